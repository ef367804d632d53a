"""Losses that look at a whole list at once."""

from __future__ import annotations

from torch import Tensor

from rivals.lists import masked_log_softmax
from rivals.losses._common import (
    Checked,
    Reduction,
    check_at_least_zero,
    check_lists,
    check_positive,
    reduce_lists,
)

__all__ = ["poly1_softmax_loss", "softmax_loss"]


def softmax_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    normalize_labels: bool = False,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy between the relevance of a list and the softmax of its scores (ListNet's top-one loss).

    Formula:
        L_q = - sum_i w_i y_i log p_i,  p = softmax(s / temperature) over the candidates that are there;
        mean over the lists that have a candidate. With `normalize_labels`, w_i y_i is divided by its sum over the list.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Training a reranker on lists of one or few positives and many negatives; graded relevance counts as given.

    Relations:
        One-hot relevance: cross entropy over the list. Two candidates, one positive: `pairwise_logistic_loss`,
        gradient too. One positive: `info_nce_loss` at the same temperature. `poly1_softmax_loss` with epsilon 0 is
        this loss.

    Source:
        Cao et al. (2007), ListNet, with top-one probabilities; Zhuang et al. (2022), RankT5, section 3; rax
        `softmax_loss`. Papers 6, 4, 11. Labels are not normalised by default and a list without a positive counts as
        0 in the mean, as in rax.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, temperature <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> softmax_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(0.1269)
    """
    check_positive(temperature, "temperature")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    total, _ = _cross_entropy(lists, temperature, normalize_labels)
    return reduce_lists(total, lists.mask.any(-1), reduction)


def poly1_softmax_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    epsilon: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Softmax loss plus epsilon times the probability that does not fall on relevant candidates.

    Formula:
        L_q = - sum_i w_i y_i log p_i + epsilon (1 - sum_i z_i p_i),  p = softmax(s),  z_i = w_i y_i / sum_j w_j y_j
        (uniform over the candidates that are there when no w_i y_i is above 0); mean over the lists that have a
        candidate.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        As `softmax_loss`, when the gradient on positives that are already likely should stay larger.

    Relations:
        epsilon = 0 is `softmax_loss`.

    Source:
        Leng et al. (2022), PolyLoss, eq. 4 (poly-1); Zhuang et al. (2022), RankT5, section 3; rax `poly1_softmax_loss`.
        Paper 6. RankT5 leaves the labels of the second term as they are; rax, followed here, normalises them.
        The two agree on one-hot relevance.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, epsilon < 0, an unknown reduction.

    Example:
        >>> import torch
        >>> poly1_softmax_loss(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))
        tensor(1.7653)
    """
    check_at_least_zero(epsilon, "epsilon")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    total, log_probability = _cross_entropy(lists, 1.0, False)
    labels = _labels(lists)
    labels = labels.where(labels.sum(-1, keepdim=True) > 0, lists.mask.to(labels.dtype))
    labels = labels / _divisor(labels)
    there = lists.mask.any(-1)
    missed = 1.0 - (labels * log_probability.exp()).sum(-1)
    return reduce_lists(total + epsilon * missed * there, there, reduction)


def _labels(lists: Checked) -> Tensor:
    return lists.relevance if lists.weight is None else lists.relevance * lists.weight


def _divisor(labels: Tensor) -> Tensor:
    """The sum of a list's labels, or 1 where it is 0."""
    total = labels.sum(-1, keepdim=True)
    return total.masked_fill(total == 0, 1.0)


def _cross_entropy(lists: Checked, temperature: float, normalize_labels: bool) -> tuple[Tensor, Tensor]:
    labels = _labels(lists)
    if normalize_labels:
        labels = labels / _divisor(labels)
    log_probability = masked_log_softmax(lists.scores / temperature, lists.mask)
    return -(labels * log_probability).sum(-1), log_probability
