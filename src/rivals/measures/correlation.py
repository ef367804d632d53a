"""Agreement of two orders of one list: Kendall's tau, Spearman's rho, rank-biased overlap, pair accuracy.

All are `measure(scores[..., C], relevance[..., C], mask[..., C] = None, *, ...) -> [...]`, float64, torch in, torch
out; numpy in, numpy out. `relevance` is the other order: grades, or another system's scores. Candidates whose relevance
is NaN (not judged) are left out. Equal values are ties, whatever their place in the list. Where a value is not defined
(fewer than two candidates, or one side all equal) it is 0; `empty="nan"` gives NaN, to leave the list out of a mean.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures._pair_counts import PairCounts, pair_counts, tie_codes
from rivals.measures.formulas import Empty, check_empty, check_persistence
from rivals.measures.ranked import Array, PlainLists, plain_lists
from rivals.measures.ranking import cut_off


def kendall_tau(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    variant: Literal["a", "b"] = "b",
    min_gap: float = 0.0,
    empty: Empty = "zero",
) -> Any:
    """Kendall's rank correlation of scores and relevance, -1 to 1.

    With P pairs in the same order, Q in the opposite one and n candidates:
    tau-a = (P - Q) / (n (n - 1) / 2);  tau-b = (P - Q) / sqrt(pairs that differ in score * pairs that differ in
    relevance).

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> [...]. Use it to compare two whole orders where every
    pair counts alike. Without ties both variants are equal, and (1 - tau) / 2 is the share of inverted pairs (Kendall's
    distance). O(C log^2 C).

    Args:
        variant: "b" corrects for ties, "a" does not.
        min_gap: pairs whose relevance differs by less than this count as ties of relevance (noisy labels).

    Source: Kendall 1938, 1945 (tau-b); the gap: Paper 56. Used by Papers 42, 55, 78, 104.

    Raises:
        RivalsError: as `rank_lists`; an unknown variant; min_gap below 0.

    >>> import numpy as np
    >>> kendall_tau(np.array([3., 2., 1.]), np.array([2, 0, 1])).round(4).item()
    0.3333
    """
    if variant not in ("a", "b"):
        raise RivalsError(f"variant is '{variant}'; it can be 'a' or 'b'")
    lists = plain_lists(scores, relevance, mask)
    counts = _ordered_pairs(lists, min_gap)
    agreeing, tied, inverted = (_total(counted, lists.mask) for counted in counts)
    candidates = lists.mask.sum(1).to(agreeing.dtype)
    pairs = candidates * (candidates - 1) / 2
    if variant == "a":
        return lists.output(_share(agreeing - inverted, pairs, empty))
    by_relevance = agreeing + tied + inverted
    by_score = pairs - _tied_pairs(lists.scores, lists.mask)
    return lists.output(_share(agreeing - inverted, (by_score * by_relevance).sqrt(), empty))


def spearman(scores: Array, relevance: Array, mask: Array | None = None, *, empty: Empty = "zero") -> Any:
    """Spearman's rank correlation of scores and relevance, -1 to 1.

    rho = the Pearson correlation of the ranks, equal values sharing the mean of their ranks.

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> [...]. Use it as the usual measure of semantic
    similarity, with all pairs of texts as one list. Larger displacements weigh more than in `kendall_tau`. O(C log C).

    Source: Spearman 1904. Used by Papers 42, 85, 104, 114, 119.

    Raises:
        RivalsError: as `rank_lists`.

    >>> import numpy as np
    >>> spearman(np.array([3., 2., 1.]), np.array([2, 0, 1])).item()
    0.5
    """
    lists = plain_lists(scores, relevance, mask)
    there = lists.mask.to(lists.scores.dtype)
    count = there.sum(1, keepdim=True).clamp(min=1)
    # The mean rank of n candidates is (n + 1) / 2 with ties or without.
    left, right = (
        (mid_ranks(values, lists.mask) - (count + 1) / 2) * there for values in (lists.scores, lists.relevance)
    )
    spread = (left.square().sum(1) * right.square().sum(1)).sqrt()
    return lists.output(_share((left * right).sum(1), spread, empty))


def rank_biased_overlap(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    p: float = 0.9,
    k: int | None = None,
    empty: Empty = "zero",
) -> Any:
    """Overlap of the tops of two orders, deeper ranks counting less: 1 for equal orders, 0 for disjoint tops.

    With S_d and T_d the documents at ranks 1..d of either order and the agreement A_d = 2 |S_d and T_d| / (|S_d| +
    |T_d|), down to depth D = k (or all C):

        RBO = (1 - p) sum_{d=1..D} p^(d-1) A_d + p^D A_D,

    the extrapolated form: below D the agreement is taken to stay as it is. Documents tied at rank d are all in S_d.

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> [...]. Use it to compare two systems' results: both
    orders hold all candidates; for two top-k lists give the documents that one of them lacks a score below all its
    others, and set k. The first 10 ranks carry 86% of the weight at p = 0.9. O(C log C).

    Source: Webber, Moffat and Zobel 2010 (doi 10.1145/1852102.1852106), eq. 32 and section 4.4 for ties. Paper 55.

    Raises:
        RivalsError: as `rank_lists`; p not between 0 and 1; k below 1.

    >>> import numpy as np
    >>> rank_biased_overlap(np.array([2., 1.]), np.array([1, 2]), p=0.5).item()
    0.5
    """
    check_persistence(p)
    cut_off(k)
    check_empty(empty)
    lists = plain_lists(scores, relevance, mask)
    size, width = lists.mask.shape
    nothing = ~lists.mask.any(1)
    if width == 0:
        return lists.output(_where(lists.scores.new_zeros(size), nothing, empty))
    ranks = [_first_ranks(values, lists.mask) for values in (lists.scores, lists.relevance)]
    first, second, both = (_held(rank, lists) for rank in (*ranks, torch.maximum(*ranks)))
    agreement = 2 * both / (first + second).clamp(min=1)
    depth = width if k is None else min(k, width)
    weights = (1 - p) * p ** torch.arange(depth, dtype=agreement.dtype, device=agreement.device)
    weights[-1] += p**depth
    return lists.output(_where(agreement[:, :depth] @ weights, nothing, empty))


def pair_accuracy(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    min_gap: float = 0.0,
    tie: float = 0.5,
    empty: Empty = "zero",
) -> Any:
    """Share of the pairs of different relevance that the scores put in order.

    sum over pairs rel_i > rel_j of ([s_i > s_j] + tie [s_i = s_j]) / number of such pairs.

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> [...]. Use it for preferences and graded lists; a list of
    one preferred and one rejected answer gives a reward model's accuracy. Equals `auc` for two grades, and (tau-a + 1)
    / 2 without ties. O(C log^2 C).

    Args:
        min_gap: pairs whose relevance differs by less than this are left out.
        tie: what a pair of equal scores is worth.

    Source: Papers 56, 59, 76; also known as ranking or preference accuracy.

    Raises:
        RivalsError: as `rank_lists`; min_gap below 0; tie not in 0..1.

    >>> import numpy as np
    >>> pair_accuracy(np.array([3., 2., 2.]), np.array([0, 2, 1])).round(4).item()
    0.1667
    """
    if not 0 <= tie <= 1:
        raise RivalsError(f"tie is {tie}; a pair of equal scores is worth between 0 and 1")
    lists = plain_lists(scores, relevance, mask)
    right, tied, wrong = (_total(counted, lists.mask) for counted in _ordered_pairs(lists, min_gap))
    return lists.output(_share(right + tie * tied, right + tied + wrong, empty))


def mid_ranks(values: Tensor, mask: Tensor) -> Tensor:
    """Return ranks from 1, lowest value first, equal values sharing their mean rank: [L, C] -> [L, C], 0 where absent.

    >>> mid_ranks(torch.tensor([[5.0, 9.0, 5.0]]), torch.tensor([[True, True, True]])).tolist()
    [[1.5, 3.0, 1.5]]
    """
    codes = tie_codes(values.masked_fill(~mask, torch.inf))
    there = mask.to(values.dtype)
    group = torch.zeros_like(there).scatter_add_(1, codes, there)
    below = group.cumsum(1) - group
    return (below + (group + 1) / 2).gather(1, codes) * there


def _ordered_pairs(lists: PlainLists, min_gap: float) -> PairCounts:
    """For each candidate those of lower relevance: with lower, equal, higher score."""
    if not min_gap >= 0:
        raise RivalsError(f"min_gap is {min_gap}; it must be at least 0")
    return pair_counts(lists.relevance, lists.scores, lists.mask.to(lists.scores.dtype), min_gap=min_gap)


def _total(counted: Tensor, mask: Tensor) -> Tensor:
    return counted.masked_fill(~mask, 0).sum(1)


def _tied_pairs(values: Tensor, mask: Tensor) -> Tensor:
    """How many pairs of present candidates have equal values, [L]."""
    there = mask.to(values.dtype)
    group = torch.zeros_like(there).scatter_add_(1, tie_codes(values), there)
    return (group * (group - 1) / 2).sum(1)


def _first_ranks(values: Tensor, mask: Tensor) -> Tensor:
    """Rank from 0, highest value first, equal values all at the first of their ranks, [L, C]; absent ones last."""
    codes = tie_codes((-values).masked_fill(~mask, torch.inf))
    group = torch.zeros_like(codes).scatter_add_(1, codes, mask.to(codes.dtype))
    return (group.cumsum(1) - group).gather(1, codes).clamp(max=max(values.shape[1] - 1, 0))


def _held(rank: Tensor, lists: PlainLists) -> Tensor:
    """How many present candidates have a rank of at most d, for each depth, [L, C]."""
    there = lists.mask.to(lists.scores.dtype)
    return torch.zeros_like(there).scatter_add_(1, rank, there).cumsum(1)


def _share(part: Tensor, whole: Tensor, empty: Empty) -> Tensor:
    nothing = whole <= 0
    return _where(part / whole.masked_fill(nothing, 1), nothing, empty)


def _where(values: Tensor, nothing: Tensor, empty: Empty) -> Tensor:
    check_empty(empty)
    return values.masked_fill(nothing, 0.0 if empty == "zero" else float("nan"))
