"""Mining inside a batch or a list: which pairs and triplets are worth a term, and what weight a loss gives to each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import check_at_least_zero, check_lists, check_mask, check_rows, check_scores
from rivals.losses._fused.labelled import blocks, negative_distances, negative_distances_by_products, use_blocks
from rivals.losses._in_batch import unit_rows
from rivals.losses._pair_terms import dense_pairs

__all__ = [
    "MinedPairs",
    "Triplets",
    "hardest_triplets",
    "pair_weights",
    "random_triplets",
    "relative_similarity_miner",
    "whisker_filter",
]


class MinedPairs(NamedTuple):
    """The candidates worth a term, bool[..., C]: positives and negatives."""

    positive: Tensor
    negative: Tensor


class Triplets(NamedTuple):
    """Rows of a batch, int64[T] each: an anchor, another row of its class, a row of another class."""

    anchor: Tensor
    positive: Tensor
    negative: Tensor


def relative_similarity_miner(
    scores: Tensor, relevance: Tensor, mask: Tensor | None = None, *, epsilon: float = 0.1
) -> MinedPairs:
    """Keep the pairs that compete: positives not clearly above every negative, negatives not clearly below every one.

    A positive stays if its score is below the list's best negative + epsilon, a negative if it is above the worst
    positive - epsilon; both bounds come from the unmined list, and a list without positives or negatives keeps none.
    To train on what is left, give `positive | negative` as the mask of any ranking loss.

    Args:
        scores: float[..., C]. relevance: [..., C] >= 0, above 0 for a positive. mask: bool[..., C].
        epsilon: how far apart a pair may be; `math.inf` keeps every pair of a list that has both kinds.

    Source: Wang et al. (2019), multi-similarity loss, section 3.3. Papers 41, 12, 117.

    Raises RivalsError: as `multi_similarity_loss`.

    >>> mined = relative_similarity_miner(torch.tensor([0.6, 0.7, 0.2]), torch.tensor([1.0, 0.0, 0.0]))
    >>> mined.positive.tolist(), mined.negative.tolist()
    ([True, False, False], [False, True, False])
    """
    check_epsilon(epsilon)
    lists = check_lists(scores, relevance, mask, None, "none")
    positive = (lists.relevance > 0) & lists.mask
    negative = lists.mask & ~positive
    pairs = dense_pairs(lists.scores, positive, negative)
    if epsilon == math.inf:
        both = pairs.both.unsqueeze(-1)
        return MinedPairs(positive & both, negative & both)
    best, worst = pairs.extremes()
    return MinedPairs(positive & ~(lists.scores >= best + epsilon), negative & ~(lists.scores <= worst - epsilon))


def check_epsilon(epsilon: float | None) -> None:
    """Raise unless epsilon is None, infinity or a number of at least 0."""
    if epsilon is not None and epsilon != math.inf:
        check_at_least_zero(epsilon, "epsilon")


def hardest_triplets(
    embeddings: Tensor, labels: Tensor, mask: Tensor | None = None, *, normalize: bool = False
) -> Triplets:
    """Return each anchor's farthest row of its class and nearest row of another, by Euclidean distance.

    Anchors without one or the other are left out. Goes by blocks of anchors: O(N^2 D) time, no N x N matrix.

    Args:
        embeddings: float[N, D]. labels: int[N]. mask: bool[N], False where there is no example.
        normalize: compare rows of unit length.

    Source: Hermans et al. (2017), eq. 5 (batch hard). Paper 12.

    Raises RivalsError: shapes, dtypes or devices that do not fit, labels that are not whole numbers.

    >>> hardest_triplets(torch.tensor([[0.0], [1.0], [3.0], [7.0]]), torch.tensor([0, 0, 1, 1])).negative.tolist()
    [2, 2, 1, 1]
    """
    rows = check_rows(embeddings, labels, mask)
    near, far, valid = hardest(unit_rows(rows.rows) if normalize else rows.rows, rows.labels)
    return _in_place(torch.arange(len(valid), device=valid.device), near, far, valid, rows.mask)


def random_triplets(labels: Tensor, mask: Tensor | None = None, *, generator: torch.Generator) -> Triplets:
    """Draw for each anchor one row of its class and one of another class, evenly. O(N log N).

    Args:
        labels: int[N]. mask: bool[N], False where there is no example. generator: where the draws come from.

    Source: the baseline of Hermans et al. (2017). Paper 12.

    Raises RivalsError: labels that are not whole numbers, a mask of another shape or dtype.

    >>> drawn = random_triplets(torch.tensor([0, 0, 1]), generator=torch.Generator().manual_seed(0))
    >>> drawn.anchor.tolist(), drawn.positive.tolist(), drawn.negative.tolist()
    ([0, 1], [1, 0], [2, 2])
    """
    device = labels.device if isinstance(labels, Tensor) else None
    rows = check_rows(torch.empty(len(labels), 0, device=device), labels, mask)
    near, far, valid = drawn(rows.labels, generator)
    return _in_place(torch.arange(len(valid), device=valid.device), near, far, valid, rows.mask)


def _in_place(anchor: Tensor, near: Tensor, far: Tensor, valid: Tensor, mask: Tensor) -> Triplets:
    """Number the rows as they were before the absent ones were left out."""
    place = mask.nonzero().squeeze(-1)
    return Triplets(*(place[index[valid]] for index in (anchor, near, far)))


@torch.no_grad()
def hardest(vectors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return every row's farthest row of its class, its nearest of another class, and whether it has both."""
    count = len(vectors)
    near, far = (torch.zeros(count, dtype=torch.int64, device=vectors.device) for _ in range(2))
    valid = torch.zeros(count, dtype=torch.bool, device=vectors.device)
    similarity = negative_distances
    if use_blocks(count, "mean", "auto"):
        vectors, similarity = vectors - vectors.mean(0), negative_distances_by_products
    for here, members in blocks(labels):
        scores = similarity(vectors[here], vectors)
        pairs = members.pairs(scores)
        place = pairs.only_pulled(pairs.pulled, torch.inf).argmin(1, keepdim=True)
        near[here] = members.index.gather(1, place).squeeze(1)
        far[here] = pairs.only_pushed(scores, -torch.inf).argmax(1)
        valid[here] = pairs.both
    return near, far, valid


def drawn(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return for every row a random other row of its class, a random row of another class, and whether it has both."""
    count = len(labels)
    ordered, order = labels.sort(stable=True)
    first = torch.searchsorted(ordered, labels)
    size = torch.searchsorted(ordered, labels, right=True) - first
    own = torch.empty_like(order).scatter_(0, order, torch.arange(count, device=labels.device)) - first
    draw = torch.rand(2, count, generator=generator, dtype=torch.float64, device=generator.device).to(labels.device)
    other = (draw[0] * (size - 1)).long()
    near = first + other + (other >= own)
    far = (draw[1] * (count - size)).long()
    far = far + size * (far >= first)
    last = max(count - 1, 0)
    return order[near.clamp(max=last)], order[far.clamp(max=last)], (size > 1) & (size < count)


def whisker_filter(values: Tensor, mask: Tensor | None = None, *, whisker: float | None = 1.5) -> Tensor:
    """Keep the values inside the whiskers of a box plot: outliers on either side are taken for label noise.

    With the n values of a list in ascending order S, q1 = S[n // 4], q3 = S[3 n // 4] (elements, not interpolated
    quantiles) and w = q3 - q1, a value stays if q1 - whisker w <= value <= q3 + whisker w.

    Args:
        values: float[..., C], each list by itself. mask: bool[..., C]. whisker: None keeps all.

    Returns:
        bool[..., C], False where the mask is.

    Source: Jung et al. (2022), UNPG, and its `box_and_whisker_algorithm`, whose quartiles these are.
    Paper 14.

    Raises RivalsError: a negative whisker, a mask of another shape or dtype.

    >>> whisker_filter(torch.tensor([-0.9, 0.0, 0.1, 0.2, 0.3, 0.95]), whisker=1.0).tolist()
    [False, True, True, True, True, False]
    """
    check_scores(values, "values")
    check_mask(mask, values, "mask")
    there = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    if whisker is None or values.shape[-1] == 0:
        return there.clone()
    check_at_least_zero(whisker, "whisker")
    low, high = whisker_bounds(values.detach(), there, whisker)
    return there & (values >= low) & (values <= high)


def whisker_bounds(values: Tensor, there: Tensor, whisker: float) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest value [..., 1] that `whisker_filter` keeps; values must not be empty lists."""
    ordered, _ = values.masked_fill(~there, torch.inf).sort(-1)
    count = there.sum(-1, keepdim=True)
    first, third = ordered.gather(-1, count // 4), ordered.gather(-1, (3 * count) // 4)
    reach = whisker * (third - first)
    return first - reach, third + reach


def pair_weights(
    loss: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the weight that a loss gives to every pair of a query and a candidate: |d loss / d score|.

    Every pair-based loss has the gradient of sum w_n s_n - sum w_p s_p with these weights held constant, so they are
    what losses differ in (general pair weighting). A loss that gives several values (reduction="none") is summed.

    Args:
        loss: any ranking loss (scores, relevance, mask); fix options with `functools.partial`.
        scores: float[..., C]. relevance: [..., C] >= 0. mask: bool[..., C].

    Returns:
        float[..., C], not negative, without gradient.

    Source: Wang et al. (2019), section 3.1. Paper 41.

    Raises RivalsError: what the loss raises, or a loss that does not depend on the scores.

    >>> from rivals.losses import softmax_loss
    >>> pair_weights(softmax_loss, torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor([[0.5000, 0.5000]])
    """
    with torch.enable_grad():
        leaf = scores.detach().requires_grad_()
        value = loss(leaf, relevance, mask).sum()
        if not value.requires_grad:
            raise RivalsError("loss does not depend on the scores it was given, so pairs have no weights")
        (gradient,) = torch.autograd.grad(value, leaf)
    return gradient.abs()
