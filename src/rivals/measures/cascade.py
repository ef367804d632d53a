"""Measures with a model of the reader, who goes down the list and stops: ERR and RBP.

As in `rivals.measures.ranking`: ranks by score, equal scores in their order; float64; numpy in, numpy out. A list
without any relevant document is worth 0.
"""

from __future__ import annotations

from typing import Any

from rivals.measures.formulas import ranked_err, ranked_rbp
from rivals.measures.ranked import Array, rank_lists
from rivals.measures.ranking import cut_off


def expected_reciprocal_rank(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    k: int | None = None,
    max_grade: float = 4,
    ranked: bool = False,
) -> Any:
    """Expected reciprocal rank (ERR) of each list: the reader stops at a document the surer, the higher its grade.

    ERR@k = sum_{r=1..k} (1 / r) R_r prod_{i<r} (1 - R_i), R = (2^max(grade, 0) - 1) / 2^max_grade.

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> [...]. Use it where one good document is enough and
    grades say how good. Unlike nDCG, a second good document below a first adds little. Its largest value is below 1:
    compare systems on the same data and the same max_grade.

    Args:
        max_grade: the highest grade of the scale (not of the data); 4 is gdeval's and ir-measures'.

    Source: Chapelle, Metzler, Zhang and Grinspan 2009 (doi 10.1145/1645953.1646033); TREC's gdeval.

    Raises:
        RivalsError: as `rank_lists`; k below 1; max_grade not above 0, or below a grade.

    >>> import numpy as np
    >>> expected_reciprocal_rank(np.array([3., 2.]), np.array([1, 2]), max_grade=2).item()
    0.53125
    """
    lists = rank_lists(scores, relevance, mask, depth=cut_off(k), ranked=ranked)
    return lists.output(ranked_err(lists, k=k, max_grade=max_grade))


def rank_biased_precision(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    p: float = 0.8,
    k: int | None = None,
    relevance_level: float = 1,
    max_grade: float | None = None,
    ranked: bool = False,
) -> Any:
    """Rank-biased precision (RBP) of each list: the reader goes on to the next rank with probability p.

    RBP@k = (1 - p) sum_{r=1..k} p^(r-1) g_r, with g = [grade >= relevance_level], or with max_grade given g =
    max(grade, 0) / max_grade.

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> [...]. Use it where lists are read to no fixed depth; it
    needs no number of relevant documents. It is a lower bound: what is below the list or not judged could add the rest.
    p = 0.5 is an impatient reader, 0.8 a usual one, 0.95 a patient one.

    Source: Moffat and Zobel 2008 (doi 10.1145/1416950.1416952); as ir-measures' `RBP(p=..., rel=...)`.

    Raises:
        RivalsError: as `rank_lists`; p not between 0 and 1; k below 1; relevance_level or max_grade not above 0; a
            grade above max_grade.

    >>> import numpy as np
    >>> rank_biased_precision(np.array([3., 2., 1.]), np.array([1, 0, 1]), p=0.5).item()
    0.625
    """
    lists = rank_lists(scores, relevance, mask, depth=cut_off(k), ranked=ranked)
    return lists.output(ranked_rbp(lists, k=k, p=p, relevance_level=relevance_level, max_grade=max_grade))
