"""The area under the ROC curve: of each list, of a part of the curve, of all candidates in one pool.

Numpy in, numpy out; torch in, torch out; float64. A grade of at least `relevance_level` is positive; NaN (not judged)
is left out. Equal scores count half.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures._pair_counts import tie_codes
from rivals.measures.formulas import Empty, check_empty
from rivals.measures.ranked import Array, PlainLists, plain_lists


def auc(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    relevance_level: float = 1,
    max_fpr: float = 1.0,
    standardise: bool = True,
    empty: Empty = "zero",
) -> Any:
    """Area under the ROC curve of each list: how likely a positive scores above a negative.

    AUC = (1 / (P N)) sum over positives i and negatives j of [s_i > s_j] + [s_i = s_j] / 2. With max_fpr = f < 1 only
    the part of the curve up to that false positive rate counts: A_f, its area, is reported as McClish's

        (1 + (A_f - f^2 / 2) / (f - f^2 / 2)) / 2   (0.5 for chance, 1 for perfect), or as A_f / f unstandardised.

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> [...]. Use it where all ranks count alike, as in
    recommenders, where its mean over lists is called GAUC; max_fpr where only the top matters and the list is long. A
    list without a positive or without a negative is worth 0 (`empty`). `pooled_auc` compares across lists. O(C log C).

    Source: Hanley and McNeil 1982; partial: McClish 1989; as scikit-learn's `roc_auc_score`. Paper 17, 44.

    Raises:
        RivalsError: as `rank_lists`; max_fpr not above 0 and at most 1; relevance_level not above 0.

    >>> import numpy as np
    >>> auc(np.array([3., 2., 2., 1.]), np.array([1, 0, 1, 0])).item()
    0.875
    """
    lists = plain_lists(scores, relevance, mask)
    return lists.output(_area(lists, relevance_level, max_fpr, standardise, empty))


def pooled_auc(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    relevance_level: float = 1,
    max_fpr: float = 1.0,
    standardise: bool = True,
    empty: Empty = "zero",
) -> Any:
    """Area under the ROC curve of all candidates of all lists in one pool.

    The formula is that of `auc`, with pairs across lists as well.

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> scalar. Use it where one threshold serves all queries, so
    that scores must be comparable between them; a gap to the mean of `auc` shows that they are not.

    Source: as `auc`. Papers 17, 44.

    Raises:
        RivalsError: as `auc`.

    >>> import numpy as np
    >>> scores, relevance = np.array([[9., 8.], [2., 1.]]), np.array([[1, 0], [1, 0]])
    >>> auc(scores, relevance).tolist(), pooled_auc(scores, relevance).item()
    ([1.0, 1.0], 0.75)
    """
    lists = plain_lists(scores, relevance, mask)
    scores, relevance, mask = (values.reshape(1, -1) for values in (lists.scores, lists.relevance, lists.mask))
    one = PlainLists(scores, relevance, mask, torch.Size(), lists.numpy)
    return one.output(_area(one, relevance_level, max_fpr, standardise, empty))


def _area(lists: PlainLists, relevance_level: float, max_fpr: float, standardise: bool, empty: Empty) -> Tensor:
    if not relevance_level > 0:
        raise RivalsError(f"relevance_level is {relevance_level}; it must be above 0")
    if not 0 < max_fpr <= 1:
        raise RivalsError(f"max_fpr is {max_fpr}; it must be above 0 and at most 1")
    check_empty(empty)
    if lists.mask.shape[1] == 0:
        return lists.scores.new_full((len(lists.mask),), 0.0 if empty == "zero" else float("nan"))
    positive = lists.mask & (lists.relevance >= relevance_level)
    # The curve takes one straight step per group of equal scores, highest first.
    codes = tie_codes((-lists.scores).masked_fill(~lists.mask, torch.inf))
    dtype = lists.scores.dtype
    up, right = (
        torch.zeros_like(lists.scores).scatter_add_(1, codes, kind.to(dtype))
        for kind in (positive, lists.mask & ~positive)
    )
    positives, negatives = up.sum(1), right.sum(1)
    height, so_far = up.cumsum(1) - up, right.cumsum(1) - right
    run = torch.minimum((max_fpr * negatives[:, None] - so_far).clamp(min=0), right)
    slope = up / right.clamp(min=1)
    whole = (positives * negatives).clamp(min=1)
    area = (run * (height + slope * run / 2)).sum(1) / whole
    if max_fpr < 1:
        chance = max_fpr * max_fpr / 2
        area = (1 + (area - chance) / (max_fpr - chance)) / 2 if standardise else area / max_fpr
    return area.masked_fill(positives * negatives == 0, 0.0 if empty == "zero" else float("nan"))
