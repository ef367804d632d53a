"""Losses that look at a whole list at once."""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.lists import masked_log_softmax, masked_mean
from rivals.losses._common import (
    Checked,
    Reduction,
    check_at_least_zero,
    check_choice,
    check_lists,
    check_positive,
    reduce_lists,
)
from rivals.losses._gains import check_depth
from rivals.losses._order import Ties, label_order, placement_log_prob
from rivals.losses._pair_terms import circle_terms, dense_pairs, reduce_parts
from rivals.losses._sets import check_unit_interval

__all__ = [
    "circle_ranking_loss",
    "list_mle_loss",
    "list_net_loss",
    "pair_and_list_loss",
    "poly1_softmax_loss",
    "softmax_loss",
]


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


def list_net_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    temperature: float = 1.0,
    label_temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy between the softmax of a list's relevance and the softmax of its scores (ListNet).

    Formula:
        L_q = - sum_i w_i t_i log p_i,  t = softmax(y / label_temperature), p = softmax(s / temperature), both over the
        candidates that are there; mean over the lists that have a candidate.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Graded lists where no grade should count as nothing: even irrelevant candidates have a share of the target.

    Relations:
        The gradient is that of `listwise_kl_loss` with the relevance as the teacher's scores; the two differ by the
        entropy of the target. `softmax_loss` takes the relevance itself as the target.

    Source:
        Cao et al. (2007), ListNet, section 4.2, top-one probabilities; allRank `listNet`. Papers 21, 84. A list whose
        candidates are all equally relevant has an even target and counts, as in allRank.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, a temperature <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> list_net_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(0.6648)
    """
    check_positive(temperature, "temperature")
    check_positive(label_temperature, "label_temperature")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    target = masked_log_softmax(lists.relevance / label_temperature, lists.mask).exp().masked_fill(~lists.mask, 0.0)
    total, _ = _cross_entropy(lists._replace(relevance=target), temperature, False)
    return reduce_lists(total, lists.mask.any(-1), reduction)


def list_mle_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    k: int | None = None,
    ties: Ties = "scores",
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative Plackett-Luce log-likelihood of the order that the relevance gives (ListMLE).

    Formula:
        L_q = - sum_{t=1..k} w_{o_t} [ s_{o_t} - log sum_{j>=t} e^{s_{o_j}} ],  o the candidates by relevance, highest
        first, s = scores / temperature; mean over the lists that have a candidate. Equal relevance: `ties` = "scores"
        orders by the score, "order" as the candidates stand, "shuffle" at random, and "skip" leaves out the step of a
        candidate as relevant as the next one.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Full or partial orders of a list (a better teacher's ranking, a human's), where the order is what counts and
        the grades' distances are not. `k` keeps to the head of the order.

    Relations:
        Two candidates: `pairwise_logistic_loss`. k = 1: `softmax_loss` on the best candidate. The same likelihood
        with scores that change from step to step: `dynamic_plackett_luce_loss`; the head of a teacher's order:
        `partial_ranking_distillation_loss`; of sampled orders: `plackett_luce_log_prob`.

    Source:
        Xia et al. (2008), ListMLE, eq. 10; rax `listmle_loss`. Papers 21, 42, 56, 83, 103. The references break ties
        by the input order (rax) or at random (allRank); the first lets a mined order leak into the loss and the
        second needs a generator, so by default ties go by the score, which is the most likely order.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, k < 1, temperature <= 0, unknown ties or reduction, ties="shuffle"
        without a generator.

    Example:
        O(C log C) time, O(C) memory.

        >>> import torch
        >>> list_mle_loss(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([[2.0, 0.0, 1.0]]))
        tensor(0.7209)
    """
    check_positive(temperature, "temperature")
    check_choice(ties, get_args(Ties), "ties")
    check_depth(k, "k")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    order = label_order(lists.relevance, lists.scores, lists.mask, ties, generator)
    terms = placement_log_prob((lists.scores / temperature).gather(-1, order), lists.mask.gather(-1, order))
    if ties == "skip":
        label = lists.relevance.gather(-1, order)
        follows = lists.mask.gather(-1, order)[..., 1:] & (label[..., 1:] == label[..., :-1])
        terms = terms.masked_fill(F.pad(follows, (0, 1)), 0.0)
    if lists.weight is not None:
        terms = terms * lists.weight.gather(-1, order)
    return reduce_lists(-terms[..., :k].sum(-1), lists.mask.any(-1), reduction)


def pair_and_list_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """A reranker judged on its positive alone, on the first negative alone and on the whole list, added up.

    Formula:
        L_q = mean_p softplus(-s_p) + softplus(s_n) - mean_p log softmax(s)_p,  p the positives and n the first
        candidate of relevance 0 in the list; mean over the lists that have a positive. No negative: no second term.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C]
        -> scalar, or float[...] with reduction="none".

    When to use:
        Training a reranker whose scores must mean something by themselves (yes above 0, no below) and also rank. The
        negatives must stand hardest first.

    Relations:
        The last term is `softmax_loss` with normalised labels, the first two are terms of
        `binary_cross_entropy_loss`.

    Source:
        Gu et al. (2025), UniME-V2, the reranker's pair-wise and list-wise tasks. Paper 7. There a generator says Yes,
        No or a number; here the score's sigmoid and its softmax over the list stand for these answers.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance at a
        candidate that is there, an unknown reduction.

    Example:
        >>> import torch
        >>> pair_and_list_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(0.9470)
    """
    lists = check_lists(scores, relevance, mask, None, reduction)
    positive, negative = lists.relevance > 0, lists.mask & (lists.relevance == 0)
    first = negative & (negative.cumsum(-1) == 1)
    listed = -masked_mean(masked_log_softmax(lists.scores, lists.mask), positive, -1)
    pair = masked_mean(F.softplus(-lists.scores), positive, -1) + F.softplus(lists.scores).masked_fill(~first, 0).sum(
        -1
    )
    valid = positive.any(-1)
    return reduce_lists((pair + listed).masked_fill(~valid, 0.0), valid, reduction)


def circle_ranking_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    margin: float = -0.2,
    scale: float = 10.0,
    apply_sigmoid: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """Circle loss over a list: a positive pulls the harder the farther it is from 1 - margin, a negative from margin.

    Formula:
        L_q = log(1 + sum_n e^{g a_n (x_n - m)} sum_p e^{-g a_p (x_p - 1 + m)}),  x = sigmoid(s) (or s itself),
        a_p = [1 + m - x_p]_+ and a_n = [x_n + m]_+ without gradient, g = scale, m = margin; mean over the lists that
        have a positive and a negative.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C]
        -> scalar, or float[...] with reduction="none".

    When to use:
        List-wise rerankers whose score is a probability. With the negative margin the loss lets go of positives
        above 1 + m and of negatives below -m.

    Relations:
        `circle_loss` on probabilities, with a margin that may be negative.

    Source:
        Liu et al. (2025), ListConRanker, section 3.3; Sun et al. (2020), circle loss, eq. 4. Paper 116. Margin
        -0.2 and scale 10 could not be verified.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance at a
        candidate that is there, scale <= 0, scores outside [0, 1] without sigmoid, an unknown reduction.

    Example:
        >>> import torch
        >>> circle_ranking_loss(torch.tensor([[0.4, 0.6]]), torch.tensor([[1.0, 0.0]]), apply_sigmoid=False)
        tensor(6.4017)
    """
    check_positive(scale, "scale")
    lists = check_lists(scores, relevance, mask, None, reduction)
    if apply_sigmoid:
        probability = lists.scores.sigmoid()
    else:
        probability = lists.scores
        check_unit_interval(probability, "scores")
    positive, negative = lists.relevance > 0, lists.mask & (lists.relevance == 0)
    parts = circle_terms(dense_pairs(probability, positive, negative), margin=margin, scale=scale)
    return reduce_parts(parts, reduction)


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
