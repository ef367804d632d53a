"""Measures of one ranked list: nDCG, reciprocal rank, recall, precision, success, average precision, R-precision.

Every measure is `measure(scores[..., C], relevance[..., C], mask[..., C] = None, *, ...) -> [...]`, one float64 value a
list (float32 on devices without float64), torch in, torch out; numpy in, numpy out. What holds for all of them:

- Ranks: by score, highest first; equal scores keep their order in the list. A `Run` lists its rows by score, then
  document id, both descending, which is trec_eval's order, so the values are trec_eval's.
- Relevance: a grade of at least `relevance_level` (1 unless told) is relevant; negative grades gain nothing; NaN is not
  judged and counts as not relevant.
- Relevant documents that are not in the list count if they are told: `total_relevant[...]`, or for nDCG `ideal[...,
  R]`, the grades of all judged documents. Without them the list is taken to hold all there is.
- A list without any relevant document is worth 0, as trec_eval counts it; `empty="nan"` gives NaN, to leave it out of a
  mean.
- `ranked=True` says that lists are already in rank order, and skips the sort. To take several measures with one sort,
  see `rivals.measures.measure_all`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures.formulas import (
    Empty,
    Gain,
    ranked_average_precision,
    ranked_dcg,
    ranked_judged,
    ranked_ndcg,
    ranked_precision,
    ranked_r_precision,
    ranked_recall,
    ranked_reciprocal_rank,
    ranked_success,
)
from rivals.measures.ranked import Array, RankedLists, precise, rank_lists


def dcg(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    k: int | None = None,
    gain: Gain = "linear",
    ranked: bool = False,
) -> Any:
    """Discounted cumulative gain of each list.

    DCG@k = sum_{r=1..k} g(rel_r) / log2(1 + r), with g(rel) = max(rel, 0) (linear) or 2^max(rel, 0) - 1 (exponential).

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> [...]. Use it to compare rankings of the same list;
    across queries use `ndcg`. Equals `ndcg` times the ideal DCG.

    Source: Järvelin and Kekäläinen 2002 (doi 10.1145/582415.582418); exponential: Burges et al. 2005.

    Raises:
        RivalsError: as `rank_lists`; k below 1; an exponential gain that overflows.

    >>> import numpy as np
    >>> dcg(np.array([3., 2., 1.]), np.array([0, 1, 2])).round(4).item()
    1.6309
    """
    lists = rank_lists(scores, relevance, mask, depth=cut_off(k), ranked=ranked)
    return lists.output(ranked_dcg(lists, k=k, gain=gain))


def ndcg(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    k: int | None = None,
    gain: Gain = "linear",
    ideal: Array | None = None,
    ideal_mask: Array | None = None,
    ranked: bool = False,
    empty: Empty = "zero",
) -> Any:
    """Normalised discounted cumulative gain of each list.

    nDCG@k = DCG@k / DCG@k of the grades in `ideal`, best first. With gain="linear" it is trec_eval's `ndcg_cut_k` and
    ir-measures' `nDCG@k`; gain="exponential" is the one of Burges et al. and of most learning-to-rank libraries. All
    positive grades gain.

    Shapes: scores[..., C], relevance[..., C], mask[..., C], ideal[..., R], ideal_mask[..., R] -> [...]. Use it as the
    main measure where grades or the order of the first results matter. Generalises reciprocal rank's idea of a
    discounted position.

    Args:
        ideal: the grades of all judged documents of the query; None takes the list's own.
        ideal_mask: False where `ideal` is padding.

    Source: Järvelin and Kekäläinen 2002 (doi 10.1145/582415.582418); exponential: Burges et al. 2005.

    Raises:
        RivalsError: as `dcg`; `ideal` is worth less than the list, so it cannot hold all judged documents.

    >>> import numpy as np
    >>> ndcg(np.array([3., 2., 1.]), np.array([0, 1, 2]), k=2).round(4).item()
    0.2398
    """
    lists = rank_lists(scores, relevance, mask, depth=cut_off(k), ranked=ranked)
    return lists.output(ranked_ndcg(lists, k=k, gain=gain, ideal=ideal_of(lists, ideal, ideal_mask), empty=empty))


def reciprocal_rank(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    k: int | None = None,
    relevance_level: float = 1,
    total_relevant: Array | None = None,
    ranked: bool = False,
    empty: Empty = "zero",
) -> Any:
    """Reciprocal rank of the first relevant document; its mean over queries is MRR.

    RR@k = 1 / rank of the first relevant document, 0 if none is among the first k.

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> [...]. Use it where one answer is enough. Equals
    `average_precision` where a query has one relevant document. `total_relevant` only tells which lists `empty` is
    about.

    Source: Kantor and Voorhees 2000 (TREC-5 confusion track); trec_eval's `recip_rank`.

    Raises:
        RivalsError: as `rank_lists`; k below 1; relevance_level not above 0; total_relevant below what the list holds.

    >>> import numpy as np
    >>> reciprocal_rank(np.array([3., 2., 1.]), np.array([0, 1, 1])).item()
    0.5
    """
    lists = rank_lists(scores, relevance, mask, depth=cut_off(k), ranked=ranked)
    total = total_of(lists, relevance_level, total_relevant)
    return lists.output(ranked_reciprocal_rank(lists, k=k, relevance_level=relevance_level, total=total, empty=empty))


def recall(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    k: int | None = None,
    relevance_level: float = 1,
    total_relevant: Array | None = None,
    ranked: bool = False,
    empty: Empty = "zero",
) -> Any:
    """Share of the relevant documents that are among the first k.

    R@k = (relevant documents in the first k) / (relevant documents there are).

    Shapes: scores[..., C], relevance[..., C], mask[..., C], total_relevant[...] -> [...]. Use it for first stages, with
    k the number of candidates the next stage reads. Equals `success` where a query has one relevant document.

    Source: Cleverdon 1967; trec_eval's `recall_k`.

    Raises:
        RivalsError: as `reciprocal_rank`.

    >>> import numpy as np
    >>> recall(np.array([3., 2., 1.]), np.array([0, 1, 1]), k=2, total_relevant=4).item()
    0.25
    """
    lists = rank_lists(scores, relevance, mask, depth=cut_off(k), ranked=ranked)
    total = total_of(lists, relevance_level, total_relevant)
    return lists.output(ranked_recall(lists, k=k, relevance_level=relevance_level, total=total, empty=empty))


def micro_recall(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    k: int | None = None,
    relevance_level: float = 1,
    total_relevant: Array | None = None,
    ranked: bool = False,
) -> Any:
    """Relevant documents in the first k of all lists together, over the relevant documents of all lists together.

    sum over lists of hits_q@k / sum over lists of relevant_q; 0 if there is none. Queries with many relevant documents
    weigh more than in the mean of `recall` (macro), and R@1 is bounded by lists / relevant documents: never put the two
    in one table.

    Shapes: as `recall` -> scalar.

    Source: the evaluation of T2Ranking (Xie et al. 2023). Paper 79.

    Raises:
        RivalsError: as `reciprocal_rank`.

    >>> import numpy as np
    >>> micro_recall(np.array([[2., 1.], [2., 1.]]), np.array([[1, 1], [0, 0]]), total_relevant=np.array([2, 1])).item()
    0.6666666666666666
    """
    lists = rank_lists(scores, relevance, mask, depth=cut_off(k), ranked=ranked)
    total = total_of(lists, relevance_level, total_relevant)
    hits = (lists.top(k) >= relevance_level).sum()
    value = precise(hits) / total.sum().clamp(min=1)
    return value.numpy() if lists.numpy else value


def precision(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    k: int | None = None,
    relevance_level: float = 1,
    total_relevant: Array | None = None,
    ranked: bool = False,
    empty: Empty = "zero",
) -> Any:
    """Share of the first k that is relevant.

    P@k = (relevant documents in the first k) / k, also where the list is shorter than k; without k the list's length
    divides.

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> [...]. Use P@1 where only the first result is shown.
    `total_relevant` only tells which lists `empty` is about.

    Source: Cleverdon 1967; trec_eval's `P_k`.

    Raises:
        RivalsError: as `reciprocal_rank`.

    >>> import numpy as np
    >>> precision(np.array([3., 2., 1.]), np.array([0, 1, 1]), k=2).item()
    0.5
    """
    lists = rank_lists(scores, relevance, mask, depth=cut_off(k), ranked=ranked)
    total = total_of(lists, relevance_level, total_relevant)
    return lists.output(ranked_precision(lists, k=k, relevance_level=relevance_level, total=total, empty=empty))


def success(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    k: int | None = None,
    relevance_level: float = 1,
    total_relevant: Array | None = None,
    ranked: bool = False,
    empty: Empty = "zero",
) -> Any:
    """Whether any relevant document is among the first k (hit rate): 1 or 0.

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> [...]. Use it where one answer is enough and its rank
    does not matter; what question answering calls recall@k or top-k accuracy. `total_relevant` only tells which lists
    `empty` is about.

    Source: Craswell and Hawking 2004 (TREC web track); trec_eval's `success_k`.

    Raises:
        RivalsError: as `reciprocal_rank`.

    >>> import numpy as np
    >>> success(np.array([3., 2., 1.]), np.array([0, 1, 1]), k=1).item()
    0.0
    """
    lists = rank_lists(scores, relevance, mask, depth=cut_off(k), ranked=ranked)
    total = total_of(lists, relevance_level, total_relevant)
    return lists.output(ranked_success(lists, k=k, relevance_level=relevance_level, total=total, empty=empty))


def average_precision(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    k: int | None = None,
    relevance_level: float = 1,
    total_relevant: Array | None = None,
    ranked: bool = False,
    empty: Empty = "zero",
) -> Any:
    """Mean of the precisions at the ranks of the relevant documents; its mean over queries is MAP.

    AP@k = (1 / relevant documents there are) * sum over relevant ranks r <= k of P@r. The divisor is not cut at k, as
    in trec_eval.

    Shapes: scores[..., C], relevance[..., C], mask[..., C], total_relevant[...] -> [...]. Use it where a query has
    several relevant documents and all are wanted. Equals `reciprocal_rank` where it has one.

    Source: Harman 1992; trec_eval's `map` and `map_cut_k`.

    Raises:
        RivalsError: as `reciprocal_rank`.

    >>> import numpy as np
    >>> average_precision(np.array([3., 2., 1.]), np.array([1, 0, 1])).round(4).item()
    0.8333
    """
    lists = rank_lists(scores, relevance, mask, depth=cut_off(k), ranked=ranked)
    total = total_of(lists, relevance_level, total_relevant)
    return lists.output(ranked_average_precision(lists, k=k, relevance_level=relevance_level, total=total, empty=empty))


def r_precision(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    relevance_level: float = 1,
    total_relevant: Array | None = None,
    ranked: bool = False,
    empty: Empty = "zero",
) -> Any:
    """Precision at rank R, R being the number of relevant documents there are.

    Rprec = (relevant documents in the first R) / R, which is also the recall at R.

    Shapes: scores[..., C], relevance[..., C], mask[..., C], total_relevant[...] -> [...]. Use it where the number of
    relevant documents differs much between queries, so that no one cut-off suits all.

    Source: Buckley and Voorhees 2005; trec_eval's `Rprec`.

    Raises:
        RivalsError: as `reciprocal_rank`.

    >>> import numpy as np
    >>> r_precision(np.array([3., 2., 1.]), np.array([1, 0, 1])).item()
    0.5
    """
    lists = rank_lists(scores, relevance, mask, ranked=ranked)
    total = total_of(lists, relevance_level, total_relevant)
    return lists.output(ranked_r_precision(lists, relevance_level=relevance_level, total=total, empty=empty))


def judged(
    scores: Array, relevance: Array, mask: Array | None = None, *, k: int | None = None, ranked: bool = False
) -> Any:
    """Share of the first k that has a judgement, that is, whose relevance is not NaN.

    Judged@k = (judged documents in the first k) / min(k, length of the list), 0 for an empty list.

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> [...]. Use it before believing any other measure:
    documents nobody judged count as not relevant there. Equals ir-measures' `Judged@k`.

    Raises:
        RivalsError: as `rank_lists`; k below 1.

    >>> import numpy as np
    >>> judged(np.array([3., 2., 1.]), np.array([1, np.nan, 0]), k=2).item()
    0.5
    """
    lists = rank_lists(scores, relevance, mask, depth=cut_off(k), ranked=ranked)
    return lists.output(ranked_judged(lists, k=k))


def cut_off(k: int | None) -> int | None:
    """Check a cut-off."""
    if k is not None and (isinstance(k, bool) or int(k) != k or k < 1):
        raise RivalsError(f"k is {k}; the cut-off must be a whole number of at least 1, or None for the whole list")
    return k


def total_of(lists: RankedLists, relevance_level: float, total_relevant: Array | None) -> Tensor:
    """Return the number of relevant documents of each list, [L], as told or as held; checked."""
    if not relevance_level > 0:
        raise RivalsError(
            f"relevance_level is {relevance_level}; it must be above 0, as documents not judged count as 0"
        )
    held = lists.total(relevance_level)
    if total_relevant is None:
        return held
    total = lists.given(total_relevant, "total_relevant")
    if (total < held).any():
        worst = int((total < held).nonzero()[0, 0])
        raise RivalsError(
            f"total_relevant is {total[worst].item()} for list {worst}, which holds {held[worst].item()} itself"
        )
    return total


def ideal_of(lists: RankedLists, ideal: Array | None, ideal_mask: Array | None) -> Tensor | None:
    """Bring `ideal` to [L, R] with 0 where it is padding; None stays None."""
    if ideal is None:
        return None
    grades = lists.given(ideal, "ideal")
    if grades.dim() == 1:
        raise RivalsError(
            f"ideal must have the judged documents of each list in a last dimension, shape {(*lists.shape, 'R')}"
        )
    return grades if ideal_mask is None else grades.masked_fill(~lists.given(ideal_mask, "ideal_mask"), 0)
