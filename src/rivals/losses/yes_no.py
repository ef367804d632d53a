"""Losses of rerankers that answer yes or no: the logits of the two tokens of every query-document pair."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rivals.lists import masked_log_softmax
from rivals.losses._common import (
    Checked,
    Reduction,
    check_choice,
    check_like,
    check_lists,
    check_positive,
    check_scores,
    reduce_lists,
)
from rivals.losses.classification import binary_cross_entropy_loss

__all__ = ["reranking_gradient_weights", "unified_reranking_loss", "yes_no_loss"]

Rule = Literal["sft", "cl"]


def yes_no_loss(
    yes: Tensor,
    no: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Supervised fine-tuning of a yes/no reranker: cross entropy over the two answer tokens, pair by pair.

    Formula:
        p_i = e^{yes_i} / (e^{yes_i} + e^{no_i}); L = -mean_i w_i [l_i log p_i + (1 - l_i) log (1 - p_i)], l_i = 1 where
        relevance > 0.

    Shapes:
        yes, no float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Language models as point-wise rerankers; the trained score is yes - no, so rank by it.

    Relations:
        `binary_cross_entropy_loss` of yes - no. Its contrastive rival is `info_nce_loss` of yes at temperature 1;
        `unified_reranking_loss` mixes the weights of one with the direction of the other.

    Source:
        Zhang et al. (2025), supervised fine-tuning or contrastive learning, eq. 2. Paper 54.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, an unknown reduction.

    Example:
        >>> import torch
        >>> yes_no_loss(torch.zeros(1, 4), torch.zeros(1, 4), torch.tensor([[1, 0, 0, 0]]))
        tensor(0.6931)
    """
    _check_logits(yes, no)
    return binary_cross_entropy_loss(_difference(yes, no), relevance, mask, weight=weight, reduction=reduction)


def unified_reranking_loss(
    yes: Tensor,
    no: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Rule = "sft",
    direction: Rule = "sft",
    temperature: float = 1.0,
    weight_score: Literal["same", "yes"] = "same",
    reduction: Reduction = "mean",
) -> Tensor:
    """Weights of one reranking objective on the direction of another; its gradient is what counts, not its value.

    Formula:
        L = sum_i stopgrad(W_i) z_i g_i over a list, z = -1 for positives and +1 for the rest, averaged over the lists;
        g = yes - no (direction="sft") or yes ("cl"); W as in `reranking_gradient_weights`.

    Shapes:
        yes, no float[..., C], relevance [..., C] >= 0, mask bool[..., C] -> scalar, or float[...] with
        reduction="none".

    When to use:
        To find out whether a reranker owes its quality to how an objective weighs documents or to where it pushes them.

    Relations:
        ("sft", "sft") has the gradient of `yes_no_loss` over one list, ("cl", "cl") that of `info_nce_loss` of yes.

    Source:
        Zhang et al. (2025), supervised fine-tuning or contrastive learning, section 3. Paper 54. With weight="cl" and
        direction="sft" the softmax is over the score in use, yes - no; weight_score="yes" takes yes.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance at a
        candidate that is there, an unknown weight, direction, weight_score or reduction, temperature <= 0.

    Example:
        >>> import torch
        >>> yes = torch.zeros(1, 4, requires_grad=True)
        >>> unified_reranking_loss(yes, torch.zeros(1, 4), torch.tensor([[1, 0, 0, 0]])).backward()
        >>> yes.grad
        tensor([[-0.1250,  0.1250,  0.1250,  0.1250]])
    """
    check_choice(direction, ("sft", "cl"), "direction")
    lists, other = _check(yes, no, relevance, mask, reduction)
    pulled = _weights(lists, other, weight, direction, temperature, weight_score)
    score = lists.scores - other if direction == "sft" else lists.scores
    sign = torch.where(lists.relevance > 0, -1.0, 1.0).to(score.dtype)
    total = (pulled * sign * score).masked_fill(~lists.mask, 0.0).sum(-1)
    counted = lists.mask.any(-1) if weight == "sft" else (lists.mask & (lists.relevance > 0)).any(-1)
    return reduce_lists(total.masked_fill(~counted, 0.0), counted.long(), reduction)


def reranking_gradient_weights(
    yes: Tensor,
    no: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Rule = "sft",
    direction: Rule = "sft",
    temperature: float = 1.0,
    weight_score: Literal["same", "yes"] = "same",
) -> Tensor:
    """Return how hard each document is pushed, float[..., C], without gradient; 0 where there is none.

    "sft": |p_i - l_i| / C with p = sigmoid(yes - no) and C the list's documents. "cl": |pi_i - [i positive] / P| / t
    with pi the softmax of the score over the list, P its positives; 0 in lists without a positive.

    Source: Zhang et al. (2025), supervised fine-tuning or contrastive learning, section 3 (paper 54).

    Raises:
        RivalsError: as `unified_reranking_loss`.

    >>> import torch
    >>> zero = torch.zeros(1, 4)
    >>> reranking_gradient_weights(zero, zero, torch.tensor([[1, 0, 0, 0]]), weight="cl")
    tensor([[0.7500, 0.2500, 0.2500, 0.2500]])
    """
    check_choice(direction, ("sft", "cl"), "direction")
    lists, other = _check(yes, no, relevance, mask, "mean")
    return _weights(lists, other, weight, direction, temperature, weight_score)


def _weights(
    lists: Checked, no: Tensor, weight: Rule, direction: Rule, temperature: float, weight_score: str
) -> Tensor:
    check_choice(weight, ("sft", "cl"), "weight")
    check_choice(weight_score, ("same", "yes"), "weight_score")
    check_positive(temperature, "temperature")
    yes, no = lists.scores.detach(), no.detach()
    positive = lists.mask & (lists.relevance > 0)
    if weight == "sft":
        probability = (yes - no).sigmoid()
        pulled = (probability - positive.to(yes.dtype)).abs() / lists.mask.sum(-1, keepdim=True).clamp(min=1)
        return pulled.masked_fill(~lists.mask, 0.0)
    score = yes - no if direction == "sft" and weight_score == "same" else yes
    share = masked_log_softmax(score / temperature, lists.mask).exp()
    number = positive.sum(-1, keepdim=True)
    pulled = (share - positive.to(yes.dtype) / number.clamp(min=1)).abs() / temperature
    return pulled.masked_fill(~lists.mask | (number == 0), 0.0)


def _check(
    yes: Tensor, no: Tensor, relevance: Tensor, mask: Tensor | None, reduction: Reduction
) -> tuple[Checked, Tensor]:
    _check_logits(yes, no)
    lists = check_lists(yes, relevance, mask, None, reduction)
    return lists, no.to(lists.scores.dtype).masked_fill(~lists.mask, 0.0)


def _check_logits(yes: Tensor, no: Tensor) -> None:
    check_scores(yes, "yes")
    check_like(no, yes, "no")


def _difference(yes: Tensor, no: Tensor) -> Tensor:
    wide = torch.promote_types(yes.dtype, torch.float32)
    return yes.to(wide) - no.to(wide)
