"""Losses that judge every candidate on its own, and losses over classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._classes import (
    check_class_weight,
    class_log_probabilities,
    own_class,
    reduce_rows,
)
from rivals.losses._common import Reduction, check_at_least_zero, check_lists, reduce_lists
from rivals.losses._focal import focusing_weight

__all__ = [
    "binary_cross_entropy_loss",
    "cross_entropy_loss",
    "focal_loss",
    "poly1_cross_entropy_loss",
    "sigmoid_focal_loss",
]


def binary_cross_entropy_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    threshold: float = 0.0,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Binary cross entropy of every candidate's score, read as a log-odds of being relevant.

    Formula:
        L = mean over all candidates of the batch of w_i [ log(1 + exp(s_i)) - t_i s_i ],  t_i = 1 if y_i > threshold
        else 0, smoothed to t_i (1 - a) + a / 2 with a = `label_smoothing`. "list_mean" divides inside each list, then
        by the lists that have a candidate; "none" gives each list's sum.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Scores that must mean a probability by themselves; a point-wise baseline for rerankers; multi-label data, where
        a masked label is one nobody knows. Unknown labels counted as 0 make the "assume negative" baseline.

    Relations:
        The sigmoid counterpart of `softmax_loss`; unlike it, a constant added to the scores changes the loss.
        `sigmoid_focal_loss` with gamma 0 and alpha None; `asymmetric_loss` with gammas and clip 0. A weight of
        `positive_weights` at the positives makes the class-weighted form.

    Source:
        Zhuang et al. (2022), RankT5, section 3 (point-wise cross entropy); rax `pointwise_sigmoid_loss`; label
        smoothing after Szegedy et al. (2016), section 7. Papers 6, 39, 44. The mean over all candidates of the batch
        follows rax, as does the division by their number, not by their weight.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, a threshold that is not finite, label_smoothing outside [0, 1), an
        unknown reduction.

    Example:
        >>> import torch
        >>> binary_cross_entropy_loss(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))
        tensor(0.6931)
    """
    if not math.isfinite(threshold):
        raise RivalsError(f"threshold must be a finite number; got {threshold!r}")
    _check_smoothing(label_smoothing)
    lists = check_lists(scores, relevance, mask, weight, reduction)
    towards = lists.scores.where(lists.relevance > threshold, -lists.scores)
    loss = -F.logsigmoid(towards)
    if label_smoothing:
        loss = (1 - label_smoothing / 2) * loss - label_smoothing / 2 * F.logsigmoid(-towards)
    if lists.weight is not None:
        loss = loss * lists.weight
    return reduce_lists(loss.masked_fill(~lists.mask, 0.0).sum(-1), lists.mask.sum(-1), reduction)


def sigmoid_focal_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    reduction: Reduction = "mean",
) -> Tensor:
    """Binary cross entropy whose stress is taken off candidates that are already right.

    Formula:
        L = mean over all candidates of - w_i a_i (1 - p_i)^gamma log p_i,  p_i = sigmoid(s_i) for a positive,
        1 - sigmoid(s_i) for a negative;  a_i = alpha at positives, 1 - alpha at negatives (1 with alpha=None).

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (positive where > 0), mask bool[..., C],
        weight float[..., C] >= 0 -> scalar, or float[...] with reduction="none".

    When to use:
        Very many easy negatives to a positive, with scores that must stay log-odds; multi-label data.

    Relations:
        gamma 0 and alpha None: `binary_cross_entropy_loss`. alpha None is `asymmetric_loss` with both gammas equal,
        clip 0 and detach_weight=False. `focal_loss` is the softmax form over classes.

    Source:
        Lin et al. (2017), focal loss, eq. 5 (gamma 2, alpha 0.25 their choice). Papers 44, 24. They divide by the
        number of positives; the mean over all candidates is the house's, and "sum" lets a caller divide otherwise.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, gamma < 0, alpha outside [0, 1], an unknown reduction.

    Example:
        >>> import torch
        >>> sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), alpha=None)
        tensor(0.1733)
    """
    check_at_least_zero(gamma, "gamma")
    if alpha is not None and not 0 <= alpha <= 1:
        raise RivalsError(f"alpha must lie in 0..1, or be None; got {alpha!r}")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positive = lists.relevance > 0
    towards = lists.scores.where(positive, -lists.scores)
    loss = -(gamma * F.logsigmoid(-towards)).exp() * F.logsigmoid(towards)
    if alpha is not None:
        loss = loss * torch.where(positive, alpha, 1 - alpha)
    if lists.weight is not None:
        loss = loss * lists.weight
    return reduce_lists(loss.masked_fill(~lists.mask, 0.0).sum(-1), lists.mask.sum(-1), reduction)


def cross_entropy_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy of the softmax over classes, with a mask, class weights and label smoothing.

    Formula:
        L = mean over the examples of - w_n sum_k t_nk c_k log p_nk,  p = softmax(logits),  c = `class_weight`,
        t_nk = (1 - a) [k = label_n] + a / K with a = `label_smoothing`.

    Shapes:
        logits float[N, K], labels int[N], mask bool[N], weight float[N] >= 0, class_weight float[K] >= 0
        -> scalar, or float[N] with reduction="none".

    When to use:
        One class an example. Class weights (`class_balanced_weights`) when rare classes matter; smoothing against
        over-confidence.

    Relations:
        With weights 1, `torch.nn.functional.cross_entropy`, label smoothing included; `softmax_loss` on one-hot
        relevance. `focal_loss` with gamma 0 and `poly1_cross_entropy_loss` with epsilon 0 are this loss.

    Source:
        Szegedy et al. (2016), section 7 (label smoothing); Ezzati et al. (2020), eq. 2 (class weights). Papers 44,
        39. Unlike torch, the mean divides by the number of examples, not by their weight, as everywhere here; where
        both are given, class weights multiply the smoothed targets, as in torch.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels that are no columns of logits, a non-boolean
        mask, a negative or NaN weight or class_weight, label_smoothing outside [0, 1), an unknown reduction.

    Example:
        >>> import torch
        >>> cross_entropy_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.1269)
    """
    _check_smoothing(label_smoothing)
    rows, log_probability = class_log_probabilities(logits, labels, mask, weight, reduction)
    if class_weight is not None:
        log_probability = log_probability * check_class_weight(class_weight, rows.rows)
    loss = -own_class(log_probability, rows.labels)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * log_probability.mean(1)
    return reduce_rows(loss, rows, reduction)


def poly1_cross_entropy_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    epsilon: float | Sequence[float] = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy over classes with the first coefficients of its expansion in 1 - p changed.

    Formula:
        L = mean over the examples of w_n [ - log p_n + sum_j epsilon_j (1 - p_n)^j ],  p_n = the softmax probability of
        the label; a single number is epsilon_1. Cross entropy itself is sum_j (1 - p)^j / j.

    Shapes:
        logits float[N, K], labels int[N], mask bool[N], weight float[N] >= 0
        -> scalar, or float[N] with reduction="none".

    When to use:
        In place of cross entropy, with one number to tune: above 0 examples that are nearly right keep more of the
        gradient (balanced data), below 0 less (imbalanced data).

    Relations:
        epsilon 0: `cross_entropy_loss`. Poly-1 on lists with one-hot relevance: `poly1_softmax_loss`, at equal value.

    Source:
        Leng et al. (2022), PolyLoss, eqs. 4 and 6 (poly-1, poly-N). Papers 44, 6. epsilon_j may go down to -1/j, where
        that term of the cross entropy is gone.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels that are no columns of logits, a non-boolean
        mask, a negative or NaN weight, an epsilon_j below -1/j or not finite, an unknown reduction.

    Example:
        >>> import torch
        >>> poly1_cross_entropy_loss(torch.zeros(1, 3), torch.tensor([0]))
        tensor(1.7653)
    """
    coefficients = (epsilon,) if isinstance(epsilon, int | float) else tuple(epsilon)
    for power, coefficient in enumerate(coefficients, start=1):
        if not (math.isfinite(coefficient) and coefficient >= -1 / power):
            raise RivalsError(f"epsilon must be finite and at least -1/{power} at place {power}; got {coefficient!r}")
    rows, log_probability = class_log_probabilities(logits, labels, mask, weight, reduction)
    own = own_class(log_probability, rows.labels)
    missed = -own.expm1()
    loss = -own
    for power, coefficient in enumerate(coefficients, start=1):
        loss = loss + coefficient * missed**power
    return reduce_rows(loss, rows, reduction)


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    gamma: float | Callable[[Tensor], Tensor] = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy over classes whose stress is taken off examples that are already right.

    Formula:
        L = mean over the examples of - w_n (1 - p_n)^gamma log p_n,  p_n = the softmax probability of the label. gamma
        may be a function of p (without gradient): an exponent for every example.

    Shapes:
        logits float[N, K], labels int[N], mask bool[N], weight float[N] >= 0 (`alpha[labels]` for class weights alpha)
        -> scalar, or float[N] with reduction="none". gamma as a function: float[M] -> float[M] >= 0.

    When to use:
        Imbalanced classes; networks whose probabilities come out over-confident (tune gamma on held-out calibration).

    Relations:
        gamma 0: `cross_entropy_loss`. Two classes with logits (s, 0): `sigmoid_focal_loss` with alpha None.

    Source:
        Lin et al. (2017), eq. 4, with a softmax in place of the sigmoid; a gamma that falls with p as in Mukhoti et
        al. (2020), section 5. Papers 109, 44, 24.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels that are no columns of logits, a non-boolean
        mask, a negative or NaN weight, a number gamma < 0, an unknown reduction.

    Example:
        Gamma 5 where the label has little probability, 3 elsewhere.

        >>> import torch
        >>> logits, labels = torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1])
        >>> focal_loss(logits, labels, gamma=lambda p: torch.where(p < 0.2, 5.0, 3.0), reduction="none")
        tensor([2.1499e-04, 1.1275e+00])
    """
    if not callable(gamma):
        check_at_least_zero(gamma, "gamma")
    rows, log_probability = class_log_probabilities(logits, labels, mask, weight, reduction)
    own = own_class(log_probability, rows.labels)
    power = gamma(own.detach().exp()) if callable(gamma) else gamma
    return reduce_rows(-focusing_weight(-own.expm1(), power) * own, rows, reduction)


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise RivalsError(f"label_smoothing must lie in 0..1, 1 excluded; got {label_smoothing!r}")
