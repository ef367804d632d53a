"""Losses that judge every candidate on its own."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import Reduction, check_lists, reduce_lists

__all__ = ["binary_cross_entropy_loss"]


def binary_cross_entropy_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    threshold: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Binary cross entropy of every candidate's score, read as a log-odds of being relevant.

    Formula:
        L = mean over all candidates of the batch of w_i [ log(1 + exp(s_i)) - t_i s_i ],  t_i = 1 if y_i > threshold
        else 0. "list_mean" divides inside each list, then by the lists that have a candidate; "none" gives each
        list's sum.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Scores that must mean a probability by themselves; a point-wise baseline for rerankers; multi-label data.

    Relations:
        The sigmoid counterpart of `softmax_loss`; unlike it, a constant added to the scores changes the loss.

    Source:
        Zhuang et al. (2022), RankT5, section 3 (point-wise cross entropy); rax `pointwise_sigmoid_loss`. Paper 6. The
        mean over all candidates of the batch follows rax, as does the division by their number, not by their weight.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, a threshold that is not finite, an unknown reduction.

    Example:
        >>> import torch
        >>> binary_cross_entropy_loss(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))
        tensor(0.6931)
    """
    if not math.isfinite(threshold):
        raise RivalsError(f"threshold must be a finite number; got {threshold!r}")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    towards = lists.scores.where(lists.relevance > threshold, -lists.scores)
    loss = -F.logsigmoid(towards)
    if lists.weight is not None:
        loss = loss * lists.weight
    return reduce_lists(loss.masked_fill(~lists.mask, 0.0).sum(-1), lists.mask.sum(-1), reduction)
