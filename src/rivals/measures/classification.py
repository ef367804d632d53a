"""Classification measures at a threshold: F scores and other rates, confusion, Jaccard accuracy, Hamming error.

Numpy in, numpy out; torch in, torch out; float64. Two forms of labels, told apart by their shape:

- several labels a list: scores[..., C], relevance[..., C] (a grade of at least `relevance_level` is right, NaN unknown
  and left out), mask[..., C]. A label is predicted where its score is above `threshold`, 0 unless told, which suits
  logits.
- one class a list: scores[..., C] and the whole class numbers in place of relevance, relevance[...] with mask[...]. The
  highest-scoring class is predicted (the first of equals), unless a threshold is given.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures._labelled import Labelled, labelled
from rivals.measures.ranked import Array, PlainLists

Average: TypeAlias = Literal["macro", "micro", "weighted", "lists", "none"]
"""Over labels, each alike; over all decisions in one pool; over labels, by their number of right ones; within each list
(one value a list); not at all (one value a label)."""

_AVERAGES = ("macro", "micro", "weighted", "lists", "none")


class Counts(NamedTuple):
    """Right and predicted, predicted only, right only, neither: true and false positives, false and true negatives."""

    true_positives: Tensor
    false_positives: Tensor
    false_negatives: Tensor
    true_negatives: Tensor


class Rates(NamedTuple):
    """What `classification_rates` returns, each a scalar, or one value a label or a list, as averaged."""

    precision: Any
    """TP / (TP + FP); 1 - precision is the false discovery rate."""
    recall: Any
    """TP / (TP + FN), the true positive rate or sensitivity."""
    f1: Any
    """2 TP / (2 TP + FP + FN)."""
    specificity: Any
    """TN / (TN + FP), the true negative rate."""
    negative_predictive_value: Any
    """TN / (TN + FN)."""
    false_positive_rate: Any
    """FP / (FP + TN)."""
    false_discovery_rate: Any
    """FP / (FP + TP)."""
    accuracy: Any
    """(TP + TN) / all decisions: with "micro" the share of right decisions on single labels."""


def f_score(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    average: Average = "macro",
    beta: float = 1.0,
    threshold: float | None = None,
    relevance_level: float = 1,
    zero_division: float = 0.0,
) -> Any:
    """F score: the harmonic mean of precision and recall, macro, micro, weighted, by list or by label.

    F_beta = (1 + beta^2) TP / ((1 + beta^2) TP + FP + beta^2 FN), of each label and then averaged (macro, weighted), of
    all decisions (micro), or of each list (lists).

    Shapes: scores[..., C], relevance[..., C] or class numbers [...], mask like relevance -> scalar; [...] with
    average="lists"; [C] with "none". Use macro where rare labels matter as much as frequent ones. For one class a list,
    micro F1 is the accuracy.

    Args:
        beta: how much more recall weighs than precision.
        threshold: predict what scores above it; see the head of this file for None.
        zero_division: the value of a label (or list) with nothing right and nothing predicted; NaN leaves it out of the
            mean.

    Source: van Rijsbergen 1979; as scikit-learn's `fbeta_score`. Papers 18, 24, 44, 70.

    Raises:
        RivalsError: as `rank_lists`; a class number out of range; an unknown average; beta not above 0.

    >>> import numpy as np
    >>> scores, right = np.array([[1., -1.], [1., -1.]]), np.array([[1, 0], [0, 1]])
    >>> f_score(scores, right).round(4).item(), f_score(scores, right, average="micro").item()
    (0.3333, 0.5)
    """
    if not beta > 0:
        raise RivalsError(f"beta is {beta}; it must be above 0")
    labels = labelled(scores, relevance, mask, relevance_level=relevance_level)
    counts = _counts(labels, threshold, average)
    both = (1 + beta * beta) * counts.true_positives
    rest = counts.false_positives + beta * beta * counts.false_negatives
    return _averaged(_ratio(both, both + rest, zero_division), counts, average, labels.lists)


def classification_rates(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    average: Average = "macro",
    threshold: float | None = None,
    relevance_level: float = 1,
    zero_division: float = 0.0,
) -> Rates:
    """Precision, recall, F1, specificity, negative predictive value, false positive and discovery rate, accuracy.

    The formulas stand at the fields of `Rates`. Shapes and arguments as `f_score`. Use it for the whole picture at one
    threshold. For one class a list, micro precision, recall and F1 are all the accuracy of the prediction.

    Source: Fawcett 2006; as scikit-learn and torchmetrics. Papers 44, 46.

    Raises:
        RivalsError: as `f_score`.

    >>> import numpy as np
    >>> rates = classification_rates(np.array([[1., 1., -1., -1.]]), np.array([[1, 0, 0, 1]]), average="micro")
    >>> rates.precision.item(), rates.specificity.item()
    (0.5, 0.5)
    """
    labels = labelled(scores, relevance, mask, relevance_level=relevance_level)
    counts = _counts(labels, threshold, average)
    tp, fp, fn, tn = counts
    parts = (
        (tp, tp + fp),
        (tp, tp + fn),
        (2 * tp, 2 * tp + fp + fn),
        (tn, tn + fp),
        (tn, tn + fn),
        (fp, fp + tn),
        (fp, fp + tp),
        (tp + tn, tp + tn + fp + fn),
    )
    ratios = (_ratio(part, whole, zero_division) for part, whole in parts)
    return Rates(*(_averaged(ratio, counts, average, labels.lists) for ratio in ratios))


def confusion_matrix(scores: Array, relevance: Array, mask: Array | None = None) -> Any:
    """How often class i (row) was predicted as class j (column).

    M[i, j] = number of lists of class i whose highest score is that of class j.

    Shapes: scores[..., C], class numbers relevance[...], mask[...] -> int64[C, C]. Use it to see which classes are taken
    for each other.

    Source: as scikit-learn's `confusion_matrix`. Papers 44, 46.

    Raises:
        RivalsError: relevance that is not class numbers; otherwise as `f_score`.

    >>> import numpy as np
    >>> confusion_matrix(np.array([[2., 1.], [2., 1.], [0., 1.]]), np.array([0, 1, 1])).tolist()
    [[1, 0], [1, 1]]
    """
    labels = labelled(scores, relevance, mask)
    if not labels.classes:
        raise RivalsError("a confusion matrix needs one class number a list, relevance of the shape of scores less C")
    width = labels.right.shape[1]
    there = labels.lists.mask.any(1)
    if width == 0:
        return labels.lists.whole(torch.zeros(0, 0, dtype=torch.int64, device=there.device))
    cells = labels.right.to(torch.uint8).argmax(1) * width + labels.lists.scores.argmax(1)
    return labels.lists.whole(torch.bincount(cells[there], minlength=width * width).reshape(width, width))


def jaccard_accuracy(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    threshold: float | None = None,
    relevance_level: float = 1,
) -> Any:
    """Jaccard accuracy of each list: shared labels over all labels right or predicted; its mean is the usual figure.

    |right and predicted| / |right or predicted|, 1 where both are empty.

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> [...]. Use it for multi-label data with few labels a
    list. At most the F1 of the list. A list without any candidate is worth 1 too; leave it out of the mean.

    Source: Godbole and Sarawagi 2004; Paper 70.

    Raises:
        RivalsError: as `f_score`.

    >>> import numpy as np
    >>> jaccard_accuracy(np.array([[-1., 1., 1.]]), np.array([[1, 1, 0]])).round(4).tolist()
    [0.3333]
    """
    labels = labelled(scores, relevance, mask, relevance_level=relevance_level)
    counts = _counts(labels, threshold, "lists")
    whole = counts.true_positives + counts.false_positives + counts.false_negatives
    return labels.lists.output(_ratio(counts.true_positives, whole, 1.0))


def hamming_error(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    threshold: float | None = None,
    relevance_level: float = 1,
) -> Any:
    """Hamming loss of each list: the share of its labels that are decided wrongly.

    (labels right but not predicted + predicted but not right) / labels that are there.

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> [...]. Use it where a missed label costs as much as a
    false one; with many labels it is small for every model. A list without any candidate is worth 0.

    Source: Schapire and Singer 1999; as scikit-learn's `hamming_loss`. Paper 70.

    Raises:
        RivalsError: as `f_score`.

    >>> import numpy as np
    >>> hamming_error(np.array([[-1., 1., 1.]]), np.array([[1, 1, 0]])).round(4).tolist()
    [0.6667]
    """
    labels = labelled(scores, relevance, mask, relevance_level=relevance_level)
    counts = _counts(labels, threshold, "lists")
    wrong = counts.false_positives + counts.false_negatives
    return labels.lists.output(_ratio(wrong, wrong + counts.true_positives + counts.true_negatives, 0.0))


def subset_accuracy(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    threshold: float | None = None,
    relevance_level: float = 1,
) -> Any:
    """Whether all labels of a list are decided rightly, 1 or 0; with class numbers, whether the class is right.

    Shapes: scores[..., C], relevance[..., C] or class numbers [...], mask like relevance -> [...]. Its mean is the
    accuracy (top-1 accuracy). The strictest multi-label measure. A list without any candidate is worth 1; leave it out
    of the mean.

    Source: as scikit-learn's `accuracy_score`. Paper 44.

    Raises:
        RivalsError: as `f_score`.

    >>> import numpy as np
    >>> subset_accuracy(np.array([[2., 1.], [2., 1.]]), np.array([0, 1])).tolist()
    [1.0, 0.0]
    """
    labels = labelled(scores, relevance, mask, relevance_level=relevance_level)
    counts = _counts(labels, threshold, "lists")
    return labels.lists.output((counts.false_positives + counts.false_negatives == 0).to(labels.lists.scores.dtype))


def check_average(average: str) -> None:
    """Raise unless `average` is one of the five.

    >>> check_average("macro")
    """
    if average not in _AVERAGES:
        raise RivalsError(f"average is '{average}'; it can be {', '.join(map(repr, _AVERAGES))}")


def _counts(labels: Labelled, threshold: float | None, average: Average) -> Counts:
    """Count the four outcomes of every label [C], of all [], or of every list [L]."""
    check_average(average)
    lists, right = labels.lists, labels.right
    if threshold is None and labels.classes:
        predicted = torch.zeros_like(right)
        if right.shape[1]:
            predicted.scatter_(1, lists.scores.argmax(1, keepdim=True), True)
    else:
        predicted = lists.scores > (0.0 if threshold is None else threshold)
    there = lists.mask
    kinds = (right & predicted, ~right & predicted, right & ~predicted, ~right & ~predicted)
    axes = {"micro": (0, 1), "lists": (1,)}.get(average, (0,))
    return Counts(*((kind & there).sum(axes).to(lists.scores.dtype) for kind in kinds))


def _ratio(part: Tensor, whole: Tensor, zero_division: float) -> Tensor:
    return (part / whole.masked_fill(whole == 0, 1)).masked_fill(whole == 0, zero_division)


def _averaged(values: Tensor, counts: Counts, average: Average, lists: PlainLists) -> Any:
    if average == "lists":
        return lists.output(values)
    if average in ("micro", "none"):
        return lists.whole(values)
    known = (~values.isnan() & (sum(counts) > 0)).to(values.dtype)  # a label that is nowhere there does not count
    weights = known * (counts.true_positives + counts.false_negatives) if average == "weighted" else known
    return lists.whole((values.nan_to_num(nan=0.0) * weights).sum() / weights.sum().clamp(min=1))
