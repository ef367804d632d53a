"""Class weights and batch neighbours together: the batch's own negative pairs inside a margin softmax, and centres."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._classes import own_class, reduce_rows
from rivals.losses._common import (
    CheckedRows,
    Reduction,
    check_at_least_zero,
    check_positive,
    check_reduction,
    check_rows,
    check_scores,
    check_shape,
)
from rivals.losses._fused.labelled import blocks, dot_products, pair_log_sum
from rivals.losses._in_batch import unit_rows
from rivals.losses._pair_terms import Pairs
from rivals.losses.mining import whisker_bounds
from rivals.losses.proxies import BeyondPi, Head, class_cosines, margin_logits

__all__ = [
    "ClassCenters",
    "center_loss",
    "moved_centers",
    "negative_pair_similarities",
    "unified_negative_pair_loss",
]


def unified_negative_pair_loss(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    classes: Tensor,
    weight: Tensor | None = None,
    head: Head = "arcface",
    scale: float = 64.0,
    margin: float | Tensor = 0.5,
    beyond_pi: BeyondPi = "plain",
    whisker: float | None = 1.5,
    detach_pairs: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Margin softmax whose denominator also holds the batch's own negative pairs, outliers left out (UNPG).

    Formula:
        L_i = -log [ e^{s t_iy} / (sum_k e^{s t_ik} + sum_{u in S'} e^{s u}) ], t the `margin_logits` of the cosines
        with `classes`, s = `scale`; S' the cosines of all pairs of rows with different labels (each pair once) that
        `whisker_filter` keeps. The same S' enters every row, without margin. Without such a pair: plain margin
        softmax.

    Shapes:
        embeddings float[N, D], labels int[N] in 0..K - 1, mask bool[N] (False = no example), classes float[K, D]
        (learnt class weights), weight float[N] >= 0, margin a number or float[N] -> scalar, or float[N] with
        reduction="none".

    When to use:
        Class weights alone are too easy late in training; the batch's hardest wrong pairs cost nothing extra. The
        filter drops pairs of one identity under two labels.

    Relations:
        No two labels in the batch: `cosface_loss` or `arcface_loss`. MagFace: head="arcface" with
        margin=`magnitude_margin(norms)`. detach_pairs=True: the pairs weigh, but are not moved.

    Source:
        Jung et al. (2022), UNPG, and the released code, which this follows: quartiles without interpolation, no
        guard beyond pi. Paper 14. Cosines are kept 1e-7 away from +-1 for ArcFace, unlike there.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels outside 0..K - 1, negative or NaN weight or
        margin, whisker < 0, scale <= 0, an unknown head, beyond_pi or reduction.

    Example:
        >>> import torch
        >>> points = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> labels = torch.tensor([0, 0, 1])
        >>> unified_negative_pair_loss(points, labels, classes=torch.eye(2), head="cosface", scale=4.0, margin=0.1)
        tensor(0.4950)

        O(N^2 D) time; a vector of all pairs is held, but no N x K x pairs.
    """
    check_positive(scale, "scale")
    check_reduction(reduction)
    if whisker is not None:
        check_at_least_zero(whisker, "whisker")
    rows = check_rows(embeddings, labels, mask, weight=weight)
    cosines = class_cosines(rows.rows, classes)
    if isinstance(margin, Tensor):
        check_shape(margin, tuple(rows.mask.shape), "margin", embeddings.device)
        margin = margin[rows.mask]
    logits = margin_logits(cosines, rows.labels, head=head, margin=margin, beyond_pi=beyond_pi) * scale
    unit = unit_rows(rows.rows.detach() if detach_pairs else rows.rows).to(logits.dtype)
    pairs = _log_sum_of_pairs(unit, rows.labels, scale, whisker)
    return reduce_rows(torch.logaddexp(logits.logsumexp(1), pairs) - own_class(logits, rows.labels), rows, reduction)


def _log_sum_of_pairs(unit: Tensor, labels: Tensor, scale: float, whisker: float | None) -> Tensor:
    """Return log sum e^{scale u} over the kept negative pairs: one number for all rows."""
    low, high = -torch.inf, torch.inf
    if whisker is not None:
        with torch.no_grad():
            values = _pair_values(unit, labels)
            if len(values):
                there = torch.ones_like(values, dtype=torch.bool)
                low, high = (float(bound) for bound in whisker_bounds(values, there, whisker))
    # A pair's two orders come from two products, which may differ in the last bits.
    slack = 4 * torch.finfo(unit.dtype).eps

    def logits(pairs: Pairs) -> Tensor:
        outside = (pairs.pushed < low - slack) | (pairs.pushed > high + slack)
        return (pairs.pushed * scale).masked_fill(outside.detach(), -torch.inf)

    return pair_log_sum(unit, labels, logits, same=False)


def negative_pair_similarities(embeddings: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the cosines of all pairs of rows with different labels, each pair once, in the order of the first row.

    Args:
        embeddings: float[N, D]. labels: int[N]. mask: bool[N], False where there is no example.

    Source: Jung et al. (2022), metric-loss negative pair generation. Paper 14.

    Raises RivalsError: shapes, dtypes or devices that do not fit, labels that are not whole numbers.

    >>> rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    >>> negative_pair_similarities(rows, torch.tensor([0, 0, 1])).tolist()
    [-1.0, 0.0]
    """
    rows = check_rows(embeddings, labels, mask)
    return _pair_values(unit_rows(rows.rows), rows.labels)


def _pair_values(unit: Tensor, labels: Tensor) -> Tensor:
    place = torch.arange(len(labels), device=labels.device)
    found = [unit.new_zeros(0) + unit.sum() * 0]
    for here, _ in blocks(labels):
        wanted = (labels[here, None] != labels) & (place > place[here, None])
        found.append(dot_products(unit[here], unit)[wanted])
    return torch.cat(found)


def center_loss(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    centers: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Center loss: half the squared distance of every embedding to the centre of its class.

    Formula:
        L_i = 1/2 |x_i - c_{y_i}|^2.

    Shapes:
        embeddings float[N, D], labels int[N] in 0..K - 1, mask bool[N] (False = no example), centers float[K, D],
        weight float[N] >= 0 -> scalar, or float[N] with reduction="none".

    When to use:
        Beside a softmax loss (weight about 0.003), to make classes compact. By itself it collapses.

    Relations:
        The within-class part of the contrastive loss with class means for partners. `ClassCenters` holds and moves
        the centres.

    Source:
        Wen et al. (2016), eq. 2, there summed over the batch. Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels outside 0..K - 1, negative or NaN weight, an
        unknown reduction.

    Example:
        >>> import torch
        >>> center_loss(torch.tensor([[3.0, 4.0]]), torch.tensor([1]), centers=torch.zeros(2, 2))
        tensor(12.5000)
    """
    check_reduction(reduction)
    rows = check_rows(embeddings, labels, mask, weight=weight)
    _check_centers(centers, rows)
    away = rows.rows - centers.to(rows.rows.dtype)[rows.labels.long()]
    return reduce_rows(away.square().sum(1) / 2, rows, reduction)


def moved_centers(
    centers: Tensor, embeddings: Tensor, labels: Tensor, mask: Tensor | None = None, *, rate: float = 0.5
) -> Tensor:
    """Return the centres after a batch: each moves towards its members by rate * sum (x_i - c) / (1 + members).

    Source: Wen et al. (2016), eq. 4, with its rate. Paper 44.

    Raises RivalsError: as `center_loss`, or a rate outside [0, 1].

    >>> moved_centers(torch.zeros(2, 1), torch.tensor([[4.0], [8.0]]), torch.tensor([1, 1])).tolist()
    [[0.0], [2.0]]
    """
    if not 0 <= rate <= 1:
        raise RivalsError(f"rate must lie between 0 and 1; got {rate!r}")
    rows = check_rows(embeddings, labels, mask)
    _check_centers(centers, rows)
    index, exact = rows.labels.long(), centers.to(compute_dtype(centers))
    away = torch.zeros_like(exact).index_add_(0, index, rows.rows.to(exact.dtype) - exact[index])
    members = torch.zeros_like(exact[:, :1]).index_add_(0, index, torch.ones_like(exact[index, :1]))
    return (exact + rate * away / (1 + members)).to(centers.dtype)


def _check_centers(centers: Tensor, rows: CheckedRows) -> None:
    check_scores(centers, "centers", ndim=2)
    check_shape(centers, (len(centers), rows.rows.shape[1]), "centers", rows.rows.device)
    if rows.labels.device.type == "cpu" and len(rows.labels) and not torch.compiler.is_compiling():
        lowest, highest = torch.aminmax(rows.labels)
        if lowest < 0 or highest >= len(centers):
            raise RivalsError(
                f"labels must lie in 0..{len(centers) - 1}, the rows of centers; found {int(lowest)} to {int(highest)}"
            )


class ClassCenters(nn.Module):
    """The centres of K classes and their `center_loss`; in training mode each call moves the centres afterwards.

    Args:
        num_classes: K. dim: width of the embeddings. rate: how far centres move (`moved_centers`).

    Source: Wen et al. (2016), algorithm 1. Paper 44.

    Raises RivalsError: as `center_loss` and `moved_centers`.

    >>> centers = ClassCenters(2, 1)
    >>> centers(torch.tensor([[4.0], [8.0]]), torch.tensor([1, 1])).item(), centers.centers.tolist()
    (20.0, [[0.0], [2.0]])
    """

    centers: Tensor

    def __init__(self, num_classes: int, dim: int, *, rate: float = 0.5) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("centers", torch.zeros(num_classes, dim))

    def forward(self, embeddings: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the mean center loss of a batch."""
        loss = center_loss(embeddings, labels, mask, centers=self.centers.clone())
        if self.training:
            with torch.no_grad():
                self.centers.copy_(moved_centers(self.centers, embeddings, labels, mask, rate=self.rate))
        return loss
