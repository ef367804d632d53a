"""Classification measures without a threshold: multi-label mean average precision, AUC of several classes.

Forms and arguments as in `rivals.measures.classification`: relevance is multi-hot, or one class number a list.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures._labelled import labelled
from rivals.measures._pair_counts import tie_codes
from rivals.measures.classification import Average, check_average
from rivals.measures.ranked import Array
from rivals.measures.roc import auc


def label_average_precision(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    average: Average = "macro",
    relevance_level: float = 1,
) -> Any:
    """Multi-label mean average precision (mAP): each label ranks the lists; the mean of the labels' APs.

    AP = sum over thresholds t of (recall_t - recall_{t-1}) precision_t, equal scores sharing one threshold; the mean is
    over labels that are right somewhere (macro), weighted by how often (weighted), or over one pool of all decisions
    (micro).

    Shapes: scores[..., C], relevance[..., C] or class numbers [...], mask like relevance -> scalar; with
    average="lists" [...], the AP of the labels of each list; with "none" [C], NaN for a label never right. Use it as
    the usual multi-label measure: it needs no threshold. Per list and without ties it is `average_precision`.

    Source: Everingham et al. 2010 (without their interpolation); as scikit-learn's `average_precision_score`. Papers
    24, 71, 80, 91.

    Raises:
        RivalsError: as `f_score`.

    >>> import numpy as np
    >>> label_average_precision(np.array([[.9, .1], [.8, .2], [.7, .3]]), np.array([[1, 1], [0, 0], [1, 0]])).item()
    0.5833333333333333
    """
    check_average(average)
    labels = labelled(scores, relevance, mask, relevance_level=relevance_level)
    lists, right = labels.lists, labels.right
    if average == "lists":
        return lists.output(_average_precision(lists.scores, right, lists.mask).nan_to_num(nan=0.0))
    if average == "micro":
        values = _average_precision(*(t.reshape(1, -1) for t in (lists.scores, right, lists.mask)))
        return lists.whole(values[0].nan_to_num(nan=0.0))
    values = _average_precision(lists.scores.T, right.T, lists.mask.T)
    if average == "none":
        return lists.whole(values)
    known = ~values.isnan()
    weights = right.sum(0).to(values.dtype) if average == "weighted" else known.to(values.dtype)
    return lists.whole((values.nan_to_num(nan=0.0) * weights).sum() / weights.sum().clamp(min=1))


def multiclass_auc(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    scheme: Literal["ovr", "ovo"] = "ovr",
    average: Literal["macro", "weighted"] = "macro",
) -> Any:
    """Area under the ROC curve for several classes: each against the rest, or every two against each other.

    ovr: mean over classes c of AUC(score of c; class c against all others). ovo: mean over pairs of classes a, b of
    (AUC(score of a; a against b) + AUC(score of b; b against a)) / 2. weighted: by the number of lists of the class, or
    of the two classes. Classes (pairs) without both sides are left out.

    Shapes: scores[..., C], relevance[..., C] or class numbers [...], mask like relevance -> scalar. Scores of one class
    are compared across lists, so give probabilities, not logits. ovo does not depend on how frequent the classes are.

    Source: Provost and Domingos 2001 (ovr), Hand and Till 2001 (ovo); as scikit-learn's `roc_auc_score`. Paper 44.

    Raises:
        RivalsError: as `f_score`; an unknown scheme or average.

    >>> import numpy as np
    >>> p = np.array([[.6, .3, .1], [.2, .5, .3], [.3, .4, .3], [.2, .2, .6]])
    >>> multiclass_auc(p, np.array([0, 1, 2, 2])).round(4).item()
    0.9583
    """
    if scheme not in ("ovr", "ovo"):
        raise RivalsError(f"scheme is '{scheme}'; it can be 'ovr' or 'ovo'")
    if average not in ("macro", "weighted"):
        raise RivalsError(f"average is '{average}'; it can be 'macro' or 'weighted'")
    labels = labelled(scores, relevance, mask)
    columns, right, there = labels.lists.scores.T, labels.right.T, labels.lists.mask.T
    often = right.sum(1).to(columns.dtype)
    if scheme == "ovr":
        values, weights = auc(columns, right, there, empty="nan"), often
    else:
        # One row a class a, against each other class b in turn: the lists of either.
        values = (
            torch.stack(
                [
                    auc(
                        columns[a].expand_as(columns),
                        right[a].expand_as(columns),
                        there[a] & (right | right[a]),
                        empty="nan",
                    )
                    for a in range(len(columns))
                ]
            )
            if len(columns)
            else columns.new_zeros(0, 0)
        )
        values.fill_diagonal_(float("nan"))
        weights = often[:, None] + often[None, :]
    known = ~values.isnan()
    weights = weights * known if average == "weighted" else known.to(values.dtype)
    return labels.lists.whole((values.nan_to_num(nan=0.0) * weights).sum() / weights.sum().clamp(min=1))


def _average_precision(scores: Tensor, right: Tensor, there: Tensor) -> Tensor:
    """Return AP of rankings [L, C], equal scores taken together; NaN where nothing is right."""
    codes = tie_codes((-scores).masked_fill(~there, torch.inf))
    found, seen = (
        torch.zeros_like(scores).scatter_add_(1, codes, kind.to(scores.dtype)) for kind in (right & there, there)
    )
    precisions = found.cumsum(1) / seen.cumsum(1).clamp(min=1)
    total = found.sum(1)
    return ((found * precisions).sum(1) / total.clamp(min=1)).masked_fill(total == 0, float("nan"))
