"""A retriever that fools a ranker and learns from it."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import masked_log_softmax, masked_mean
from rivals.losses._common import (
    Reduction,
    check_choice,
    check_like,
    check_lists,
    check_positive,
    check_scores,
    reduce_lists,
)
from rivals.losses.distillation import listwise_kl_loss

__all__ = ["adversarial_feedback", "adversarial_retriever_loss"]


def adversarial_retriever_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    ranker_scores: Tensor,
    adv_lambda: float = 0.5,
    temperature: float = 1.0,
    eps: float = 1e-7,
    adversarial_reduction: Literal["sum", "mean"] = "sum",
    reduction: Reduction = "mean",
) -> Tensor:
    """Put probability on documents that fool the ranker, and imitate the ranker's distribution (AR2's retriever).

    Formula:
        p = softmax(s), R = `adversarial_feedback`(y), y the ranker's scores, without gradient;
        L = lambda sum_q sum_j R_j log(p_j + eps) - (1 - lambda) mean_q sum_j softmax(y / temperature)_j log(p_j + eps),
        over the lists with a positive. adversarial_reduction="mean" divides the first sum by their number too.

    Shapes:
        scores, ranker_scores float[..., C], relevance [..., C] >= 0 (one positive), mask bool[..., C]
        -> scalar, or float[...] with reduction="none".

    When to use:
        Training a retriever in turns with a ranker, on lists the retriever has just found. Mind that the first part
        grows with the batch and the second does not.

    Relations:
        lambda = 0: `listwise_kl_loss` (cross entropy, forward). The ranker's own step is `softmax_loss`.

    Source:
        Zhang et al. (2022), AR2, eq. 4 to 8; AR2 `co_training_wiki_train.py`. Paper 11. The sum over queries of the
        adversarial part is the code's. With several positives the feedback is their mean (ours).

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance at a
        candidate that is there, adv_lambda outside [0, 1], temperature or eps <= 0, an unknown name.

    Example:
        O(P C) for P positives a list.

        >>> import torch
        >>> zeros, relevance = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
        >>> adversarial_retriever_loss(zeros, relevance, ranker_scores=zeros, adv_lambda=1.0)
        tensor(0.9609)
    """
    check_positive(temperature, "temperature")
    check_positive(eps, "eps")
    check_choice(adversarial_reduction, ("sum", "mean"), "adversarial_reduction")
    if not 0 <= adv_lambda <= 1:
        raise RivalsError(f"adv_lambda must lie in 0..1; got {adv_lambda!r}")
    lists = check_lists(scores, relevance, mask, None, reduction)
    valid = (lists.relevance > 0).any(-1)
    there = lists.mask & valid.unsqueeze(-1)
    feedback = adversarial_feedback(ranker_scores, lists.relevance, there, eps=eps)
    log_probability = masked_log_softmax(lists.scores, there)
    smoothed = torch.logaddexp(log_probability, torch.full_like(log_probability, math.log(eps)))
    adversarial = (feedback * smoothed.masked_fill(~there, 0.0)).sum(-1)
    imitation = listwise_kl_loss(
        lists.scores,
        ranker_scores,
        there,
        target_temperature=temperature,
        form="cross_entropy",
        eps=eps,
        reduction="none",
    )
    whole: Reduction = reduction if reduction == "none" or adversarial_reduction == "mean" else "sum"
    first = reduce_lists(adversarial, valid, whole)
    return adv_lambda * first + (1 - adv_lambda) * reduce_lists(imitation, valid, reduction)


def adversarial_feedback(
    ranker_scores: Tensor, relevance: Tensor, mask: Tensor | None = None, *, eps: float = 1e-7
) -> Tensor:
    """Return how likely the ranker is to prefer the positive to each document, as a logarithm, without gradient.

    R_j = mean over the positives p of log(sigmoid(y_p - y_j) + eps), the positives included among j (log 1/2).

    Args:
        ranker_scores: float[..., C]. relevance: [..., C] >= 0. mask: bool[..., C].

    Returns:
        float[..., C], at most 0; 0 where nothing is there and in lists without a positive.

    Source: Zhang et al. (2022), AR2, eq. 6. Paper 11.

    Raises:
        RivalsError: tensors that do not fit, eps <= 0.

    >>> adversarial_feedback(torch.tensor([0.0, 3.0]), torch.tensor([1.0, 0.0]))
    tensor([-0.6931, -3.0486])
    """
    check_positive(eps, "eps")
    check_scores(ranker_scores, "ranker_scores")
    check_like(ranker_scores, relevance, "ranker_scores")
    lists = check_lists(ranker_scores.detach(), relevance, mask, None, "none")
    if lists.scores.numel() == 0:
        return lists.scores
    positive = lists.relevance > 0
    there, place = positive.int().topk(int(positive.sum(-1).max()), dim=-1)
    positive_scores = lists.scores.gather(-1, place)
    gap = F.logsigmoid(positive_scores.unsqueeze(-1) - lists.scores.unsqueeze(-2))
    smoothed = torch.logaddexp(gap, torch.full_like(gap, math.log(eps)))
    return masked_mean(smoothed, there.bool().unsqueeze(-1).expand_as(smoothed), -2).masked_fill(~lists.mask, 0.0)
