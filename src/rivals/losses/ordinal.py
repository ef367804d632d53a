"""Ordinal regression: a grade as the number of thresholds that are passed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import Reduction, check_lists, check_scores, reduce_lists

__all__ = ["ordinal_loss", "ordinal_scores"]


def ordinal_loss(
    logits: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Binary cross entropy of "the grade is at least k", for every candidate and every grade k = 1..n.

    Formula:
        L = sum_i w_i sum_{k=1..n} BCE(sigmoid(z_ik), 1[y_i >= k]) / number of candidates of the batch; "list_mean" divides
        inside each list first, "none" gives each list's sum; w = `weight`, 1 if not given.

    Shapes:
        logits float[..., C, n], relevance [..., C] in 0..n, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Few ordered grades, and a model with one output a threshold. Rank by `ordinal_scores`.

    Relations:
        n = 1: `binary_cross_entropy_loss`.

    Source:
        Niu et al. (2016); Pobrotyn et al. (2020), allRank's `ordinal`. Paper 21. The reference takes probabilities; this
        takes logits, which cannot overflow.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, logits without a threshold, a non-boolean mask, relevance
        negative, NaN or above n, negative weight, at a candidate that is there; an unknown reduction.

    Example:
        >>> ordinal_loss(torch.zeros(1, 2, 3), torch.tensor([[3.0, 1.0]]))
        tensor(2.0794)
    """
    check_scores(logits, "logits")
    if logits.ndim < 2 or logits.shape[-1] == 0:
        raise RivalsError(f"logits must be [..., C, n] with n >= 1 thresholds; got shape {tuple(logits.shape)}")
    steps = logits.shape[-1]
    lists = check_lists(logits[..., 0], relevance, mask, weight, reduction)
    if lists.relevance.device.type == "cpu" and (lists.relevance > steps).any():
        raise RivalsError(
            f"relevance must be at most {steps}, the number of logits; found {float(lists.relevance.max())}"
        )
    grades = torch.arange(1, steps + 1, device=logits.device, dtype=lists.relevance.dtype)
    passed = (lists.relevance.unsqueeze(-1) >= grades).to(lists.scores.dtype)
    safe = logits.to(lists.scores.dtype).masked_fill(~lists.mask.unsqueeze(-1), 0.0)
    cost = F.binary_cross_entropy_with_logits(safe, passed, reduction="none").sum(-1)
    cost = cost.masked_fill(~lists.mask, 0.0) if lists.weight is None else cost * lists.weight
    return reduce_lists(cost.sum(-1), lists.mask.sum(-1), reduction)


def ordinal_scores(logits: Tensor) -> Tensor:
    """Return the expected number of thresholds passed, sum_k sigmoid(z_k): the score to rank by, from 0 to n.

    Shapes: logits float[..., C, n] -> float[..., C].
    Source: Pobrotyn et al. (2020), allRank. Paper 21.
    Raises: RivalsError for logits that are not floating-point.

    >>> ordinal_scores(torch.zeros(1, 2, 3))
    tensor([[1.5000, 1.5000]])
    """
    check_scores(logits, "logits")
    return torch.sigmoid(logits.to(compute_dtype(logits))).sum(-1)
