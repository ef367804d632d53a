"""Softmax losses whose probabilities stay calibrated, and the temperature that calibrates afterwards."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.lists import masked_log_softmax
from rivals.losses._common import Reduction, check_at_least_zero, check_lists, check_positive
from rivals.losses._focal import focusing_weight
from rivals.losses._positives import Positives, log_probabilities, mean_over_positives, positives_of

__all__ = ["TemperatureScaling", "brier_loss", "dual_focal_loss"]


def dual_focal_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    gamma: float = 3.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Focal loss that also looks at the strongest candidate ranked below the positive.

    Formula:
        L_q = mean over the positives p of -(1 - p_p + p_j)^gamma log p_p,  p = softmax(s), j the candidate of lower
        relevance with the largest score strictly below s_p (p_j = 0 if there is none). Mean over the lists with a
        positive. The gradient goes through p_p and p_j.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (above 0: positive), mask bool[..., C], weight float[..., C] >= 0
        (a positive's share, a negative's multiplicity; 0 removes it)
        -> scalar, or float[...] with reduction="none". Class labels: relevance = one_hot(labels, C). O(C) per positive.

    When to use:
        A classifier or reranker whose probabilities are read as such (thresholds, fusion). Tune gamma on held-out
        data: 1 to 3 on small data, 5 on large image sets.

    Relations:
        gamma 0: `softmax_loss` of one positive. Never below `focal_loss` and never above cross entropy at the
        same gamma. `TemperatureScaling` afterwards still helps.

    Source:
        Tao, Dong and Xu (2023). Paper 109. The reference code's default is gamma 0 and the sum over the batch;
        1 - p_p + p_j is kept at 1e-12 or more, because its power has no slope at 0 when gamma < 1.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, gamma < 0, an unknown reduction.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[0.6, 0.3, 0.1]]).log()
        >>> dual_focal_loss(scores, torch.tensor([[1.0, 0.0, 0.0]]), gamma=2.0)
        tensor(0.2503)
    """
    check_at_least_zero(gamma, "gamma")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positives = positives_of(lists)
    log_p = log_probabilities(lists.scores, positives)
    if gamma == 0 or lists.scores.shape[-1] == 0:
        return mean_over_positives(-log_p, positives, reduction)
    runner_up = _runner_up(log_p, lists.relevance, positives)
    terms = -focusing_weight(runner_up - torch.expm1(log_p), gamma) * log_p
    return mean_over_positives(terms, positives, reduction)


def brier_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared distance between the softmax of a list and the label (the multi-class Brier score as a loss).

    Formula:
        L_q = mean over the positives p of sum_k (p_k - [k = p])^2,  p_k = softmax(s); in [0, 2]. Mean over the lists
        with a positive.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (above 0: positive), mask bool[..., C]
        -> scalar, or float[...] with reduction="none". Class labels: relevance = one_hot(labels, C).

    When to use:
        Probabilities that should be right on average, from labels of which some are wrong: unlike cross entropy it is
        bounded. It learns slowly from a bad start.

    Relations:
        `squared_error_loss` of the probabilities against the one-hot label, summed over a list.

    Source:
        Brier (1950). Papers 89, 109 (a baseline of both).

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance
        at a candidate that is there, an unknown reduction.

    Example:
        >>> import torch
        >>> brier_loss(torch.zeros(1, 4), torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
        tensor(0.7500)
    """
    lists = check_lists(scores, relevance, mask, None, reduction)
    positives = positives_of(lists)
    p = log_probabilities(lists.scores, positives).exp()
    squares = p.masked_fill(~lists.mask, 0.0).square().sum(-1, keepdim=True)
    return mean_over_positives(squares - 2 * p + 1, positives, reduction)


class TemperatureScaling(nn.Module):
    """Divide scores by one number that minimises the cross entropy of held-out lists; the order stays as it is.

    Shapes: fit(scores [..., C], relevance [..., C], mask [..., C]) -> itself; forward(scores) -> scores / temperature.
    Relevance is normalised over a list, so several positives share one unit; lists without a positive are left out.

    Source: Guo et al. (2017), named by paper 109 as complementary to its loss.

    Raises:
        RivalsError: what `softmax_loss` raises, no list with a positive.

    >>> scores = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    >>> relevance = torch.tensor([[1.0, 0.0]] * 4)
    >>> TemperatureScaling().fit(scores, relevance)(scores)[0].softmax(-1)
    tensor([0.7500, 0.2500])
    """

    temperature: Tensor

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        check_positive(temperature, "temperature")
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def fit(
        self, scores: Tensor, relevance: Tensor, mask: Tensor | None = None, *, steps: int = 60
    ) -> TemperatureScaling:
        """Find the temperature by bisection on the slope of the cross entropy, which is convex in 1 / temperature."""
        lists = check_lists(scores.detach().double(), relevance, mask, None, "none")
        target = lists.relevance / lists.relevance.sum(-1, keepdim=True).clamp(min=1e-12)
        if not (lists.relevance > 0).any():
            raise RivalsError("temperature scaling needs a list with a positive; relevance has none above 0")
        counted = (lists.relevance > 0).any(-1, keepdim=True).to(target.dtype)
        low, high = math.log(1e-6), math.log(1e6)  # of log(1 / temperature)
        for _ in range(steps):
            middle = (low + high) / 2
            p = masked_log_softmax(lists.scores * math.exp(middle), lists.mask).exp().masked_fill(~lists.mask, 0.0)
            slope = ((p - target) * counted * lists.scores).sum()
            low, high = (middle, high) if slope < 0 else (low, middle)
        self.temperature.fill_(math.exp(-(low + high) / 2))
        return self

    def forward(self, scores: Tensor) -> Tensor:
        """Return the scores divided by the temperature."""
        return scores / self.temperature.to(scores.dtype)


def _runner_up(log_p: Tensor, relevance: Tensor, positives: Positives) -> Tensor:
    """Return, at every positive, the probability of the strongest candidate below it in score and in relevance."""
    chosen = positives.share > 0
    width = max(1, int(chosen.sum(-1).max())) if chosen.numel() else 1
    column = chosen.to(log_p.dtype).topk(width, dim=-1).indices  # the positives of each list, then anything
    below = (log_p.unsqueeze(-2) < log_p.gather(-1, column).unsqueeze(-1)) & (positives.multiplicity > 0).unsqueeze(-2)
    below = below & (relevance.unsqueeze(-2) < relevance.gather(-1, column).unsqueeze(-1))
    strongest = log_p.unsqueeze(-2).masked_fill(~below, float("-inf")).max(-1).values.exp()
    return torch.zeros_like(log_p).scatter(-1, column, strongest)
