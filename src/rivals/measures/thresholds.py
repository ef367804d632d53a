"""One threshold for all candidates: the best F1, and the ROC curve that all thresholds draw.

Everything is pooled: lists and queries are forgotten, as one threshold must serve them all. float64; numpy in, numpy
out. Candidates with equal scores always fall on the same side.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures.ranked import Array, plain_lists

__all__ = ["BestF1", "RocCurve", "best_f1", "pooled_roc_curve"]


class BestF1(NamedTuple):
    """The best F1 over all thresholds, its precision and recall, and the threshold: `score >= threshold` is positive."""

    f1: float
    precision: float
    recall: float
    threshold: float


class RocCurve(NamedTuple):
    """Corners of a ROC curve from (0, 0) to (1, 1), each [P + 1]; at corner i `score >= threshold[i]` is positive.

    The first threshold is infinite. The area under straight lines between the corners is `pooled_auc`.
    """

    false_positive_rate: Any
    true_positive_rate: Any
    threshold: Any


def best_f1(scores: Array, relevance: Array, mask: Array | None = None, *, relevance_level: float = 1) -> BestF1:
    """Return the largest F1 of "positive where the score reaches a threshold", over all thresholds.

    F1 = 2 TP / (2 TP + FP + FN). The threshold lies half-way to the next lower score, so that it carries over to unseen
    scores (at the lowest score itself where everything is called positive); of several best ones it is the highest.

    Shapes: scores[..., C], relevance[..., C], mask[..., C], all in one pool. For distances pass their negatives. A
    threshold chosen on the data it is judged on makes F1 too good: choose it on held-out data, and report it with
    `classification_rates` elsewhere. F1 depends on the share of positives. O(n log n).

    Source: as sentence-transformers' binary evaluation, whose threshold lies between scores too. Papers 3, 75.

    Raises:
        RivalsError: as `rank_lists`; relevance_level not above 0; no positive at all.

    >>> import numpy as np
    >>> best_f1(np.array([0.9, 0.8, 0.3, 0.1]), np.array([1, 0, 1, 0]))
    BestF1(f1=0.8, precision=0.6666666666666666, recall=1.0, threshold=0.2)
    """
    values, true, false = _steps(scores, relevance, mask, relevance_level)
    positives = true[-1]
    if positives == 0:
        raise RivalsError(f"nothing is relevant at level {relevance_level}; F1 needs at least one positive")
    found = 2 * true / (true + false + positives)
    best = int(found.argmax())
    low = values[best + 1] if best + 1 < len(values) else values[best]
    threshold = values[best] + (low - values[best]) / 2
    if not low < threshold:  # the two scores are neighbours among the floats
        threshold = values[best]
    precision, recall = true[best] / (true[best] + false[best]), true[best] / positives
    return BestF1(float(found[best]), float(precision), float(recall), float(threshold))


def pooled_roc_curve(
    scores: Array, relevance: Array, mask: Array | None = None, *, relevance_level: float = 1
) -> RocCurve:
    """Return the ROC curve of all candidates of all lists in one pool: one corner a distinct score.

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> `RocCurve` of arrays [P + 1], P distinct scores. Use it to
    see which false positive rates one threshold over all queries can reach; `pooled_auc` is its area.

    Source: Hanley and McNeil (1982). Papers 17, 44.

    Raises:
        RivalsError: as `rank_lists`; relevance_level not above 0; no positive or no negative at all.

    >>> import numpy as np
    >>> curve = pooled_roc_curve(np.array([3., 2., 2., 1.]), np.array([1, 0, 1, 0]))
    >>> curve.false_positive_rate.tolist(), curve.true_positive_rate.tolist()
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    """
    values, true, false = _steps(scores, relevance, mask, relevance_level)
    if true[-1] == 0 or false[-1] == 0:
        kind = "positive" if true[-1] == 0 else "negative"
        raise RivalsError(f"there is no {kind} at relevance level {relevance_level}; a ROC curve needs both kinds")
    parts = (
        torch.cat([start, part])
        for start, part in (
            (false.new_zeros(1), false / false[-1]),
            (true.new_zeros(1), true / true[-1]),
            (values.new_full((1,), torch.inf), values),
        )
    )
    return RocCurve(*(part if isinstance(scores, Tensor) else part.numpy() for part in parts))


def _steps(
    scores: Array, relevance: Array, mask: Array | None, relevance_level: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distinct scores, highest first, and how many positives and negatives reach each; all float64[P]."""
    if not relevance_level > 0:
        raise RivalsError(f"relevance_level is {relevance_level}; it must be above 0")
    lists = plain_lists(scores, relevance, mask)
    there = lists.mask
    found, positive = lists.scores[there], (lists.relevance >= relevance_level)[there].to(lists.scores.dtype)
    if len(found) == 0:
        raise RivalsError("there is no candidate; thresholds need at least one score")
    values, place = (-found).unique(return_inverse=True)
    ups = torch.zeros_like(values).index_add(0, place, positive)
    all_of = torch.zeros_like(values).index_add(0, place, torch.ones_like(positive))
    return -values, ups.cumsum(0), (all_of - ups).cumsum(0)
