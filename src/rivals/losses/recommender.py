"""Losses of recommenders: one positive item against sampled items, over cosines."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import masked_logsumexp
from rivals.losses._common import (
    Checked,
    Reduction,
    check_at_least_zero,
    check_choice,
    check_lists,
    check_positive,
    reduce_lists,
)

__all__ = ["cosine_contrastive_loss", "pairwise_softmax_loss"]

Activation = Literal["tanh", "atan", "relu", "exp"]
_LEAST = 1e-6
"""Activations below this are clamped before the logarithm; no gradient flows there."""


def pairwise_softmax_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    activation: Activation = "tanh",
    tau: float = 2.0,
    tau_star: float = 0.05,
    form: Literal["softmax", "bpr"] = "softmax",
    include_positive: bool = False,
    check_range: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """PSL: softmax loss seen as pairs, with an activation that does not explode on hard, often false, negatives.

    Formula:
        d_pn = (s_n - s_p) / tau; sigma(d) = tanh(d) + 1, arctan(d) + 1, max(d + 1, 0) or e^d.

        - form="softmax": L_p = log sum_n w_n sigma(d_pn)^(1 / tau_star), averaged over the positives p of the batch
          with weights w_p; n runs over the list's negatives, and over p itself with `include_positive`.
        - form="bpr": the log of the mean of sigma^(1 / tau_star) over all pairs of the batch (reduction="mean" only).

    Shapes:
        scores float[..., C] (cosines), relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Implicit feedback with many sampled negatives, some of which are unknown positives. Values of lists with
        different numbers of negatives are not comparable: the logarithm holds a sum.

    Relations:
        activation="exp" with tau=2 is the sampled softmax loss without its positive at temperature 2 tau_star.
        `cosine_contrastive_loss` cuts easy negatives off instead.

    Source:
        Yang et al. (2024), PSL, section 4. Paper 19. The defaults tau=2 and tanh are the released command line's;
        tau_star=0.05 is the best found for two of its four data sets. There the relu form takes the logarithm of 0;
        here the activation is clamped at 1e-6.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, tau or tau_star <= 0, an unknown activation, form or reduction, form="bpr" with a
        reduction other than "mean", scores beyond +-1 unless check_range=False.

    Example:
        >>> import torch
        >>> scores, relevance = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
        >>> pairwise_softmax_loss(scores, relevance, tau_star=1.0)
        tensor(0.3799)
    """
    check_choice(activation, get_args(Activation), "activation")
    check_choice(form, ("softmax", "bpr"), "form")
    check_positive(tau, "tau")
    check_positive(tau_star, "tau_star")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    if check_range:
        check_cosines(lists)
    if form == "bpr" and reduction != "mean":
        raise RivalsError(f'form="bpr" couples the whole batch and knows reduction="mean" only; got {reduction!r}')
    there = lists.mask if lists.weight is None else lists.mask & (lists.weight > 0)
    positive, negative = there & (lists.relevance > 0), there & (lists.relevance <= 0)
    # Only positives stand first: [..., P, C] with P the most positives of a list, not [..., C, C].
    most = int(positive.sum(-1).max()) if positive.numel() else 0
    place = positive.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[..., :most]
    anchor = positive.gather(-1, place)
    distance = (lists.scores.unsqueeze(-2) - lists.scores.gather(-1, place).unsqueeze(-1)) / tau
    pairs = anchor.unsqueeze(-1) & negative.unsqueeze(-2)
    if include_positive:
        pairs = pairs | (F.one_hot(place, max(positive.shape[-1], 1)).bool() & anchor.unsqueeze(-1))
    logits = _log_activation(distance.masked_fill(~pairs, 0.0), activation) / tau_star
    share = anchor.to(logits.dtype)
    if lists.weight is not None:
        share = share * lists.weight.gather(-1, place)
        logits = logits + lists.weight.masked_fill(~there, 1.0).log().unsqueeze(-2)
    if form == "bpr":
        if not pairs.any():
            return lists.scores.sum() * 0.0
        if lists.weight is not None:
            logits = logits + share.masked_fill(~anchor, 1.0).log().unsqueeze(-1)
        return torch.logsumexp(logits[pairs], 0) - math.log(int(pairs.sum()))
    counted = pairs.any(-1)
    terms = share * masked_logsumexp(logits, pairs).masked_fill(~counted, 0.0)
    return reduce_lists(terms.sum(-1), counted.sum(-1), reduction)


def _log_activation(distance: Tensor, activation: Activation) -> Tensor:
    if activation == "exp":
        return distance
    if activation == "tanh":
        return F.logsigmoid(2 * distance) + math.log(2)  # log(1 + tanh d)
    raised = distance.atan() + 1 if activation == "atan" else distance + 1
    return raised.clamp(min=_LEAST).log()


def cosine_contrastive_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    margin: float = 0.4,
    negative_weight: float | None = 10.0,
    check_range: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """SimpleX: pull positives to cosine 1, push away only the negatives above a margin.

    Formula:
        L = mean_p w_p max(0, 1 - s_p) + v mean_n w_n max(0, s_n - m) for a list with a positive, averaged over those;
        v = `negative_weight`, m = `margin`. negative_weight=None takes the plain sum over the negatives.

    Shapes:
        scores float[..., C] (cosines), relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Recommenders with hundreds of uniform negatives, most of them easy. Margin and weight decide everything: choose
        both on validation.

    Relations:
        A negative at or below the margin gets no gradient at all, unlike in `pairwise_softmax_loss` or `info_nce_loss`.

    Source:
        Mao et al. (2021), SimpleX, eq. 2. Paper 23. With several positives, their mean (the paper has one). Its code
        reads a weight of 0 as None; here 0 means 0.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, a margin beyond +-1, a negative `negative_weight`, an unknown reduction, scores
        beyond +-1 unless check_range=False.

    Example:
        >>> import torch
        >>> cosine_contrastive_loss(torch.tensor([[1.0, 0.2, 0.9]]), torch.tensor([[1, 0, 0]]), negative_weight=2.0)
        tensor(0.5000)
    """
    if not -1 <= margin <= 1:
        raise RivalsError(f"margin must lie in -1..1, as cosines do; got {margin!r}")
    if negative_weight is not None:
        check_at_least_zero(negative_weight, "negative_weight")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    if check_range:
        check_cosines(lists)
    positive = lists.mask & (lists.relevance > 0)
    negative = lists.mask & ~positive
    pulled = _sum((1 - lists.scores).relu(), positive, lists.weight) / positive.sum(-1).clamp(min=1)
    pushed = _sum((lists.scores - margin).relu(), negative, lists.weight)
    if negative_weight is not None:
        pushed = negative_weight * pushed / negative.sum(-1).clamp(min=1)
    counted = positive.any(-1)
    return reduce_lists((pulled + pushed).masked_fill(~counted, 0.0), counted.long(), reduction)


def _sum(terms: Tensor, there: Tensor, weight: Tensor | None) -> Tensor:
    return (terms if weight is None else terms * weight).masked_fill(~there, 0.0).sum(-1)


def check_cosines(lists: Checked) -> None:
    """Raise if a score is beyond +-1 by more than rounding. Only on the CPU: elsewhere reading would stall the device."""
    if lists.scores.device.type != "cpu" or torch.compiler.is_compiling() or lists.scores.numel() == 0:
        return
    worst = float(lists.scores.detach().abs().amax())
    if worst > 1 + 1e-4:
        raise RivalsError(f"scores must be cosines in -1..1; found one of size {worst:g} (check_range=False allows it)")
