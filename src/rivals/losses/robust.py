"""Softmax losses that a wrong label cannot pull far: bounded, symmetric or asymmetric in the probability of a positive.

All of them are functions of p = softmax(s) at the positives of a list, averaged over the positives and then over the
lists that have one. A weight is a positive's share and a negative's multiplicity.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import Reduction, check_lists, check_positive
from rivals.losses._positives import log_probabilities, mean_over_positives, own_log_probabilities, positives_of

__all__ = [
    "asymmetric_generalized_cross_entropy_loss",
    "asymmetric_unhinged_loss",
    "generalized_cross_entropy_loss",
    "jensen_shannon_loss",
    "normalized_cross_entropy_loss",
    "robust_log_loss",
    "symmetric_cross_entropy_loss",
]


def generalized_cross_entropy_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    q: float = 0.7,
    truncate: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Generalised cross entropy (1 - p^q) / q of a positive: between cross entropy (q -> 0) and 1 - p (q = 1).

    Formula:
        L_q = mean over the positives of min( (1 - p^q) / q, (1 - k^q) / q ),  p = softmax(s), k = `truncate`: positives
        less likely than k get no gradient. Mean over the lists with a positive.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (above 0: positive), mask bool[..., C], weight float[..., C] >= 0
        (a positive's share, a negative's multiplicity; 0 removes it)
        -> scalar, or float[...] with reduction="none". Class labels: relevance = one_hot(labels, C).

    When to use:
        Labels of which many are wrong, before anything more elaborate.

    Relations:
        q -> 0: `softmax_loss` of one positive. q = 1: 1 - p, half the L1 distance to the label ("MAE"), fully robust
        to symmetric noise and slow to learn.

    Source:
        Zhang and Sabuncu (2018). Paper 89 (a baseline of it).

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, q outside (0, 1], truncate outside [0, 1), an unknown reduction.

    Example:
        >>> import torch
        >>> generalized_cross_entropy_loss(torch.zeros(1, 4), torch.tensor([[1.0, 0.0, 0.0, 0.0]]), q=0.5)
        tensor(1.)
    """
    if not 0 < q <= 1:
        raise RivalsError(f"q must lie in (0, 1]; got {q!r}")
    if not 0 <= truncate < 1:
        raise RivalsError(f"truncate must lie in [0, 1); got {truncate!r}")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positives = positives_of(lists)
    terms = -torch.expm1(q * own_log_probabilities(lists.scores, positives)) / q
    return mean_over_positives(terms.clamp(max=(1 - truncate**q) / q), positives, reduction)


def symmetric_cross_entropy_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    balance: float = 0.5,
    amplitude: float = 4.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy mixed with the reverse cross entropy, which is amplitude times 1 - p.

    Formula:
        L_q = mean over the positives of (1 - b) (-log p) + b A (1 - p),  p = softmax(s), b = `balance`, A =
        `amplitude`. Mean over the lists with a positive.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (above 0: positive), mask bool[..., C], weight float[..., C] >= 0
        (a positive's share, a negative's multiplicity; 0 removes it)
        -> scalar, or float[...] with reduction="none". Class labels: relevance = one_hot(labels, C).

    When to use:
        Noisy labels, when 1 - p alone learns too slowly.

    Relations:
        balance 0: `softmax_loss` of one positive. balance 1: the reverse cross entropy -sum_k p_k log y_k with log 0
        put at -A; A = -log(1e-4) = 9.2103 is a common choice. `generalized_cross_entropy_loss` at q = 1 is balance 1,
        amplitude 1.

    Source:
        Wang et al. (2019). Paper 89 (a baseline of it; balance 0.5 and amplitude 4 as in its code).

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, balance outside [0, 1], amplitude <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> symmetric_cross_entropy_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor(1.3466)
    """
    if not 0 <= balance <= 1:
        raise RivalsError(f"balance must lie in [0, 1]; got {balance!r}")
    check_positive(amplitude, "amplitude")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positives = positives_of(lists)
    log_p = own_log_probabilities(lists.scores, positives)
    terms = -balance * amplitude * torch.expm1(log_p)
    if balance < 1:
        terms = terms - (1 - balance) * log_p
    return mean_over_positives(terms, positives, reduction)


def normalized_cross_entropy_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy of a positive divided by the sum of the cross entropies of all candidates.

    Formula:
        L_q = mean over the positives of log p_p / sum_k log p_k,  p = softmax(s); in [0, 1]. Mean over the lists with
        a positive; a list with one candidate is worth 0.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (above 0: positive), mask bool[..., C], weight float[..., C] >= 0
        (a positive's share, a negative's multiplicity; 0 removes it)
        -> scalar, or float[...] with reduction="none". Class labels: relevance = one_hot(labels, C).

    When to use:
        Noisy labels, added to a loss that keeps learning: `symmetric_cross_entropy_loss` with balance 1, or
        `asymmetric_generalized_cross_entropy_loss`; on its own it underfits.

    Relations:
        Summed over all labels of a list it is 1, which makes it robust to symmetric noise.

    Source:
        Ma et al. (2020). Paper 89 (a baseline of it).

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, an unknown reduction.

    Example:
        >>> import torch
        >>> normalized_cross_entropy_loss(torch.zeros(1, 4), torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
        tensor(0.2500)
    """
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positives = positives_of(lists)
    log_p = log_probabilities(lists.scores, positives)
    total = (positives.multiplicity * log_p).sum(-1, keepdim=True)
    return mean_over_positives(log_p / total.masked_fill(total == 0, -1.0), positives, reduction)


def asymmetric_unhinged_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    a: float = 1.5,
    q: float = 0.9,
    reduction: Reduction = "mean",
) -> Tensor:
    """Asymmetric unhinged loss ((a - p)^q - (a - 1)^q) / q of a positive's probability.

    Formula:
        L_q = mean over the positives of ((a - p)^q - (a - 1)^q) / q,  p = softmax(s). Mean over the lists with a
        positive.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (above 0: positive), mask bool[..., C], weight float[..., C] >= 0
        (a positive's share, a negative's multiplicity; 0 removes it)
        -> scalar, or float[...] with reduction="none". Class labels: relevance = one_hot(labels, C).

    When to use:
        Noisy labels of which the right one is still the most frequent.

    Relations:
        q = 1: 1 - p, whatever a. Often added to `normalized_cross_entropy_loss` with a = 6, q = 1.5.

    Source:
        Zhou et al. (2021), asymmetric loss functions. Paper 89 (a baseline of it).

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, a <= 1, q <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> asymmetric_unhinged_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), q=1.0)
        tensor(0.5000)
    """
    if not (math.isfinite(a) and a > 1):
        raise RivalsError(f"a must be a finite number above 1; got {a!r}")
    check_positive(q, "q")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positives = positives_of(lists)
    p = own_log_probabilities(lists.scores, positives).exp()
    return mean_over_positives(((a - p).pow(q) - (a - 1) ** q) / q, positives, reduction)


def asymmetric_generalized_cross_entropy_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    a: float = 1.0,
    q: float = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Asymmetric generalised cross entropy ((a + 1)^q - (a + p)^q) / q of a positive's probability.

    Formula:
        L_q = mean over the positives of ((a + 1)^q - (a + p)^q) / q,  p = softmax(s). Mean over the lists with a
        positive.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (above 0: positive), mask bool[..., C], weight float[..., C] >= 0
        (a positive's share, a negative's multiplicity; 0 removes it)
        -> scalar, or float[...] with reduction="none". Class labels: relevance = one_hot(labels, C).

    When to use:
        Noisy labels of which the right one is still the most frequent.

    Relations:
        a -> 0: `generalized_cross_entropy_loss`. Often added to `normalized_cross_entropy_loss` with a = 3, q = 1.5.

    Source:
        Zhou et al. (2021), asymmetric loss functions. Paper 89 (a baseline of it).

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, a <= 0, q <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> asymmetric_generalized_cross_entropy_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor(0.8750)
    """
    check_positive(a, "a")
    check_positive(q, "q")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positives = positives_of(lists)
    p = own_log_probabilities(lists.scores, positives).exp()
    return mean_over_positives(((a + 1) ** q - (a + p).pow(q)) / q, positives, reduction)


def jensen_shannon_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    label_share: float = 0.5,
    reduction: Reduction = "mean",
) -> Tensor:
    """Weighted Jensen-Shannon divergence between the label and the softmax, scaled to run from cross entropy to 1 - p.

    Formula:
        L_q = mean over the positives of -[ w KL(e || m) + (1 - w) KL(p || m) ] / ((1 - w) log(1 - w)),
        m = w e + (1 - w) p,  p = softmax(s), e the one-hot label, w = `label_share`. Because p and m differ by the
        factor 1 - w off the positive, only p at the positive is needed. Mean over the lists with a positive.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (above 0: positive), mask bool[..., C], weight float[..., C] >= 0
        (a positive's share, a negative's multiplicity; 0 removes it)
        -> scalar, or float[...] with reduction="none". Class labels: relevance = one_hot(labels, C).

    When to use:
        Noisy labels, with one dial for how robust to be.

    Relations:
        label_share -> 0: cross entropy. label_share -> 1: 1 - p (twice that is the L1 distance to the label).

    Source:
        Englesson and Azizpour (2021). Paper 89 (a baseline of it).

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, label_share outside (0, 1), an unknown reduction.

    Example:
        >>> import torch
        >>> jensen_shannon_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor(0.6226)
    """
    if not 0 < label_share < 1:
        raise RivalsError(f"label_share must lie in (0, 1); got {label_share!r}")
    w, rest = label_share, 1 - label_share
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positives = positives_of(lists)
    log_p = own_log_probabilities(lists.scores, positives)
    missed = -torch.expm1(log_p)
    log_m = torch.log1p(-rest * missed)
    divergence = -w * log_m + rest * (log_p.exp() * (log_p - log_m) - missed * math.log(rest))
    return mean_over_positives(divergence / (-rest * math.log(rest)), positives, reduction)


def robust_log_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    offset: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Log of an offset probability of a positive against the mean log of the offset probabilities of the others.

    Formula:
        L_q = mean over the positives of -log(t + p_p) + mean over k != p of log(t + p_k),  p = softmax(s), t =
        `offset`. Mean over the lists with a positive.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (above 0: positive), mask bool[..., C], weight float[..., C] >= 0
        (a positive's share, a negative's multiplicity; 0 removes it)
        -> scalar, or float[...] with reduction="none". Class labels: relevance = one_hot(labels, C).

    When to use:
        Noisy labels; a bounded loss that still tells a near miss from a far one.

    Relations:
        Summed over all labels of a list it is 0, whatever the scores: symmetric, hence robust to symmetric noise.

    Source:
        Patel and Sastry (2021). Paper 89 (a baseline of it): its code subtracts the sum of
        all logits in the second term and takes the log of a sum, which is not the loss and is not followed.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, offset <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> robust_log_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(-0.5191)
    """
    check_positive(offset, "offset")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positives = positives_of(lists)
    logs = (offset + log_probabilities(lists.scores, positives).exp()).log()
    size = positives.multiplicity.sum(-1, keepdim=True)
    others = ((positives.multiplicity * logs).sum(-1, keepdim=True) - logs) / (size - 1).clamp(min=1e-12)
    others = others.masked_fill((positives.multiplicity > 0).sum(-1, keepdim=True) < 2, 0.0)
    return mean_over_positives(others - logs, positives, reduction)
