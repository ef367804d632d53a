"""Classification measures as losses: a confusion matrix of probabilities, and one minus what is computed from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_choice,
    check_lists,
    check_positive,
    reduce_lists,
)
from rivals.losses._sets import Activation, Level, by_level, check_level, check_unit_interval, probabilities, safe_ratio

__all__ = ["SoftConfusion", "confusion_loss", "soft_confusion"]

Metric: TypeAlias = Literal[
    "fbeta",
    "precision",
    "recall",
    "specificity",
    "accuracy",
    "balanced_accuracy",
    "gmean",
    "gmean_squared",
    "youden",
    "mcc",
    "jaccard",
]
MetricFunction: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

ROOT = 1e-12
"""Added under square roots, whose slope at 0 has no bound."""


class SoftConfusion(NamedTuple):
    """Expected true positives, false positives, false negatives and true negatives, each float[...]."""

    tp: Tensor
    fp: Tensor
    fn: Tensor
    tn: Tensor


def soft_confusion(
    probabilities: Tensor, relevance: Tensor, mask: Tensor | None = None, *, weight: Tensor | None = None
) -> SoftConfusion:
    """Count a confusion matrix over the last dimension, every candidate in the share of its probability.

    With positives (relevance > 0) y and probabilities q: TP = sum q y, FP = sum q (1 - y), FN = sum (1 - q) y,
    TN = sum (1 - q) (1 - y), over the candidates that are there, `weight` times each.

    Args:
        probabilities: float[..., C] in [0, 1].
        relevance: [..., C] >= 0.
        mask: bool[..., C]; False = not there.
        weight: float[..., C] >= 0, a candidate's multiplicity.

    Source: Han et al. (2024), AnyLoss, section 3. Papers 46, 18.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, probabilities outside [0, 1], a non-boolean mask,
        negative or NaN relevance or weight at a candidate that is there.

    >>> import torch
    >>> counts = soft_confusion(torch.tensor([0.9, 0.2]), torch.tensor([1.0, 0.0]))
    >>> [round(float(count), 4) for count in counts]
    [0.9, 0.2, 0.1, 0.8]
    """
    lists = check_lists(probabilities, relevance, mask, weight, "none")
    check_unit_interval(lists.scores, "probabilities")
    return confusion_counts(lists.scores, lists.relevance > 0, counted(lists.mask, lists.weight, lists.scores))


def counted(mask: Tensor, weight: Tensor | None, like: Tensor) -> Tensor:
    """Return how often every candidate counts: its weight, else 1, and 0 where there is none."""
    return mask.to(like.dtype) if weight is None else weight


def confusion_counts(predicted: Tensor, positive: Tensor, multiplicity: Tensor) -> SoftConfusion:
    """Return the counts of checked arguments: `predicted` in [0, 1], `multiplicity` 0 where nothing is."""
    wanted, unwanted = multiplicity * positive, multiplicity * ~positive
    return SoftConfusion(
        (predicted * wanted).sum(-1),
        (predicted * unwanted).sum(-1),
        ((1 - predicted) * wanted).sum(-1),
        ((1 - predicted) * unwanted).sum(-1),
    )


def confusion_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    metric: Metric | MetricFunction = "fbeta",
    beta: float = 1.0,
    amplification: float | None = 73.0,
    threshold: float = 0.5,
    smoothing: float = 1e-5,
    level: Level = "set",
    activation: Activation = "sigmoid",
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus a classification measure, made differentiable by steep sigmoids around the decision threshold.

    Formula:
        p = sigmoid(s),  q = sigmoid(A (p - threshold)) with A = `amplification` (q = p with None),  then TP, FP, FN, TN
        of q by `soft_confusion`, P = TP + FN, N = FP + TN, e = `smoothing`, and the loss is 1 - metric:

        - fbeta: (1 + beta^2) TP / (beta^2 P + TP + FP + e).  precision: TP / (TP + FP + e).
        - recall: TP / (P + e).  specificity: TN / (N + e).  accuracy: (TP + TN) / (P + N).
        - balanced_accuracy: (N TP + P TN) / (2 P N + e).  youden: (N TP + P TN) / (P N + e) - 1.
        - gmean: sqrt(TP TN / (P N + e)).  gmean_squared: the same without the root.
        - mcc: (TP TN - FP FN) / sqrt((TP + FP) P N (TN + FN) + e).  jaccard: TP / (P + FP + e).
        - a function (tp, fp, fn, tn) -> value, larger better, on tensors of one number a set.

        One term a set: the whole batch, a list, or a label over all lists (macro average). Mean over the sets.

    Shapes:
        scores float[..., C] (probabilities with activation=None), relevance [..., C] >= 0 (positive where > 0),
        mask bool[..., C], weight float[..., C] >= 0 (multiplicity)
        -> scalar; with reduction="none" float[...] at level "list", float[C] at "label", a scalar at "set".

    When to use:
        Imbalanced data judged by a measure at a fixed threshold. Batches must hold positives; start with scores near
        0, or with a small amplification, since confident mistakes get no gradient. Where a tuned threshold on cross
        entropy is possible, compare with that.

    Relations:
        fbeta without amplification and smoothing: `dice_loss` with the plain denominator, alpha and smooth 0;
        jaccard likewise: `jaccard_loss`.

    Source:
        Han et al. (2024), AnyLoss, eqs. 3 to 12, amplification 73; smoothing, no amplification and the squared G-mean
        after the authors' follow-up code. Paper 46. The root of the G-mean is the paper's. Lists and labels without a
        positive (or, for measures of both sides, without a negative) are left out of the mean; the whole batch as one
        set follows the formula. What is divided by 0 counts as 0.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, scores outside [0, 1] with activation=None, an unknown metric, level,
        activation or reduction, amplification <= 0, threshold outside (0, 1), beta or smoothing < 0.

    Example:
        >>> import torch
        >>> confusion_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), smoothing=0.0)
        tensor(0.5000)
    """
    check_level(level)
    if not callable(metric):
        check_choice(metric, get_args(Metric), "metric")
    if amplification is not None:
        check_positive(amplification, "amplification")
    if not 0 < threshold < 1:
        raise RivalsError(f"threshold must lie between 0 and 1; got {threshold!r}")
    check_at_least_zero(beta, "beta")
    check_at_least_zero(smoothing, "smoothing")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    predicted = probabilities(lists, activation)
    if amplification is not None:
        predicted = (amplification * (predicted - threshold)).sigmoid()
    multiplicity = by_level(counted(lists.mask, lists.weight, predicted), level)
    positive = by_level(lists.relevance > 0, level)
    counts = confusion_counts(by_level(predicted, level), positive, multiplicity)
    measured = (multiplicity > 0).any(-1)
    if level != "set":
        if callable(metric) or metric not in ("accuracy", "specificity"):
            measured = measured & ((multiplicity > 0) & positive).any(-1)
        if metric in ("specificity", "balanced_accuracy", "gmean", "gmean_squared", "youden", "mcc"):
            measured = measured & ((multiplicity > 0) & ~positive).any(-1)
    counts = SoftConfusion(*(count.masked_fill(~measured, 1.0) for count in counts))
    value = metric(*counts) if callable(metric) else _metric(metric, counts, beta, smoothing)
    if tuple(value.shape) != tuple(measured.shape):
        raise RivalsError(
            f"metric must return one value a set, shape {tuple(measured.shape)}; got {tuple(value.shape)}"
        )
    return reduce_lists((1 - value).masked_fill(~measured, 0.0), measured, reduction)


def _metric(metric: str, counts: SoftConfusion, beta: float, smoothing: float) -> Tensor:
    tp, fp, fn, tn = counts
    positives, negatives = tp + fn, fp + tn
    both = negatives * tp + positives * tn
    if metric == "fbeta":
        return safe_ratio((1 + beta * beta) * tp, beta * beta * positives + tp + fp + smoothing)
    if metric == "precision":
        return safe_ratio(tp, tp + fp + smoothing)
    if metric == "recall":
        return safe_ratio(tp, positives + smoothing)
    if metric == "specificity":
        return safe_ratio(tn, negatives + smoothing)
    if metric == "accuracy":
        return safe_ratio(tp + tn, positives + negatives)
    if metric == "balanced_accuracy":
        return safe_ratio(both, 2 * positives * negatives + smoothing)
    if metric == "youden":
        return safe_ratio(both, positives * negatives + smoothing) - 1
    if metric == "jaccard":
        return safe_ratio(tp, positives + fp + smoothing)
    if metric == "mcc":
        product = (tp + fp) * positives * negatives * (tn + fn) + smoothing
        return (tp * tn - fp * fn) / (product + ROOT).sqrt()
    product = safe_ratio(tp * tn, positives * negatives + smoothing)
    return product if metric == "gmean_squared" else (product + ROOT).sqrt()
