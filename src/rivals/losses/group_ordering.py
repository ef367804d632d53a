"""Group ordering: positives belong in the top block of a softly sorted list, whatever their order inside it."""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import Reduction, check_choice, check_lists, check_positive, check_scores, reduce_lists
from rivals.losses._networks import Cdf, in_order
from rivals.losses._order import best_first

__all__ = ["group_ordering_contrastive_loss", "group_ordering_loss"]

_LOWEST_LOG = -100.0


def group_ordering_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    top_negatives: int = 10,
    steepness: float = 1.0,
    cdf: Cdf = "cauchy",
    phi: float = 0.25,
    graded: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Positives in the top block of a soft sort, the strongest negatives in the block below (GroCo).

    Formula:
        x = the `top_negatives` highest negatives, rising, then the positives, rising; P = soft odd-even sort of x;
        M_ib = clip(sum of P_ij over the ranks j of block b, 0, 1); L_q = mean over the candidates i and the blocks b
        of BCE(M_ib, 1[i belongs in b]), logarithms cut at -100; mean over the lists with a positive and a negative.
        Two blocks, or with `graded` one for each grade of the list.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0 (times a candidate's
        terms) -> scalar, or float[...] with reduction="none".

    When to use:
        Training for nearest neighbours: only the strongest negatives matter, and each on which side it ends up, not
        by how much. Cosines with steepness 1.

    Relations:
        One positive, one negative: the logistic loss with the chosen F in place of the sigmoid. The sort itself:
        `soft_sort`. Between the views of a batch: `group_ordering_contrastive_loss`.

    Source:
        Shvetsova et al. (2023), GroCo, eq. 3 to 6; Petersen et al. (2022), sorting networks. Paper 22. `graded` and
        lists with fewer negatives than `top_negatives` are ours.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, top_negatives < 1, steepness <= 0, an unknown name.

    Example:
        O(n^2) time a list of n = positives + kept negatives (no n x n matrix is made); O(n^2) memory for the gradient.

        >>> import torch
        >>> group_ordering_loss(torch.tensor([[0.5, 0.2]]), torch.tensor([[1.0, 0.0]]))
        tensor(0.5229)
    """
    check_positive(steepness, "steepness")
    check_choice(cdf, get_args(Cdf), "cdf")
    if top_negatives < 1:
        raise RivalsError(f"top_negatives must be at least 1; got {top_negatives}")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positive, negative = lists.relevance > 0, lists.mask & (lists.relevance == 0)
    valid = positive.any(-1) & negative.any(-1)
    strongest = best_first(lists.scores, negative)
    kept = torch.zeros_like(negative).scatter(-1, strongest[..., :top_negatives], True) & negative
    wires = (kept | positive) & valid.unsqueeze(-1)
    size = int(wires.sum(-1).max()) if wires.numel() else 0
    grade = lists.relevance if graded else positive.to(lists.relevance.dtype)
    order = best_first(-grade, wires, -lists.scores)[..., :size]
    there, grade, values = wires.gather(-1, order), grade.gather(-1, order), lists.scores.gather(-1, order)
    if size == 0:
        return reduce_lists(values.sum(-1), valid, reduction)
    block = F.pad((grade[..., 1:] != grade[..., :-1]).long(), (1, 0)).cumsum(-1).masked_fill(~there, -1)
    blocks = block.amax(-1) + 1
    number = torch.arange(int(blocks.max()), device=block.device)
    own = block.unsqueeze(-1) == number
    mass = _block_mass(values, there, own.to(values.dtype), steepness, cdf, phi)
    elsewhere = mass @ (1 - torch.eye(len(number), dtype=mass.dtype, device=mass.device))  # 1 - mass, of tiny ones too
    counted = there.unsqueeze(-1) & (number < blocks[..., None, None])
    terms = -_log(mass.where(own, elsewhere).masked_fill(~counted, 1.0)).sum(-1) / blocks.clamp(min=1).unsqueeze(-1)
    if lists.weight is not None:
        terms = terms * lists.weight.gather(-1, order)
    total = terms.masked_fill(~there, 0.0).sum(-1) / there.sum(-1).clamp(min=1)
    return reduce_lists(total, valid, reduction)


def group_ordering_contrastive_loss(
    views: Tensor,
    *,
    top_negatives: int = 10,
    steepness: float = 1.0,
    cdf: Cdf = "cauchy",
    phi: float = 0.25,
    stop_grad: bool = True,
    positive_views: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Group ordering between the views of a batch: the other views of an image above the hardest other images.

    Formula:
        For view v of image i: positives cos(z_vi, z_pi) over the first `positive_views` views p != v, negatives
        cos(z_vi, z_vj), j != i; then `group_ordering_loss`. With `stop_grad` only z_vi receives gradient. Mean over
        views and images.

    Shapes:
        views float[V, B, D], not normalised -> scalar, or float[V, B] with reduction="none".

    When to use:
        Self-supervised encoders that will be used by nearest neighbours. With small crops among the views, put the
        full ones first and count them in `positive_views`.

    Relations:
        `group_ordering_loss` on the cosines; `in_batch_info_nce_loss` compares with all negatives in a softmax.

    Source:
        Shvetsova et al. (2023), GroCo; learning_by_sorting `GroCo`. Paper 22.

    Raises:
        RivalsError: views that are not float[V, B, D], fewer than 2 views or no positive view, not more than
        `top_negatives` images, top_negatives < 1, steepness <= 0, an unknown name.

    Example:
        O(V B^2 D) time.

        >>> import torch
        >>> views = torch.eye(3).expand(2, 3, 3)
        >>> group_ordering_contrastive_loss(views, top_negatives=2)
        tensor(0.1849)
    """
    check_scores(views, "views", ndim=3)
    count, images, _ = views.shape
    full = count if positive_views is None else positive_views
    if count < 2 or not 1 <= full <= count:
        raise RivalsError(f"views holds {count} views of which {full} are positives; at least 2 and 1 are needed")
    if images <= top_negatives:
        raise RivalsError(f"{images} images give {images - 1} negatives; top_negatives={top_negatives} asks for more")
    anchors = F.normalize(views.to(compute_dtype(views)), dim=-1)
    others = anchors.detach() if stop_grad else anchors
    positives = torch.einsum("vbd,pbd->vbp", anchors, others[:full])
    scores = torch.cat([positives, anchors @ others.transpose(-1, -2)], -1)
    pairs = ~torch.eye(count, dtype=torch.bool, device=views.device)[:, None, :full].expand(count, images, full)
    rest = ~torch.eye(images, dtype=torch.bool, device=views.device).expand(count, images, images)
    relevance = torch.cat([torch.ones_like(positives), torch.zeros_like(rest, dtype=scores.dtype)], -1)
    return group_ordering_loss(
        scores,
        relevance,
        torch.cat([pairs, rest], -1),
        top_negatives=top_negatives,
        steepness=steepness,
        cdf=cdf,
        phi=phi,
        reduction=reduction,
    )


def _log(values: Tensor) -> Tensor:
    """Return the logarithm of shares, from -100 to 0."""
    zero = values == 0
    return values.masked_fill(zero, 1.0).log().masked_fill(zero, _LOWEST_LOG).clamp(_LOWEST_LOG, 0.0)


def _block_mass(values: Tensor, there: Tensor, blocks: Tensor, steepness: float, cdf: Cdf, phi: float) -> Tensor:
    """Return P times `blocks` [..., n, G] for the odd-even sort of the wires that are there, which come first.

    P is a product of one symmetric matrix a layer, so the blocks go through the layers backwards and P is never made.
    Layers and comparators beyond a list's own number of wires do nothing.
    """
    size = values.shape[-1]
    wire = torch.arange(size, device=values.device)
    count = there.sum(-1, keepdim=True)
    layers = []
    for layer in range(size):
        left = (wire - layer) % 2 == 0
        place = torch.where(left, wire + 1, wire - 1)
        paired = (place >= 0) & (torch.maximum(place, wire) < count) & (layer < count)
        place = place.clamp(0, size - 1)
        other = values[..., place]
        difference = torch.where(left, other - values, values - other).masked_fill(~paired, 0.0)
        keep = in_order(difference, steepness, cdf, phi).masked_fill(~paired, 1.0)
        swap = in_order(-difference, steepness, cdf, phi).masked_fill(~paired, 0.0)  # 1 - keep, of tiny ones too
        values = keep * values + swap * other
        layers.append((place, keep.unsqueeze(-1), swap.unsqueeze(-1)))
    for place, keep, swap in reversed(layers):
        blocks = keep * blocks + swap * blocks[..., place, :]
    return blocks
