"""Curricula over answers: how hard a training example is by the first stage's run, and what that weighs as time goes on."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import list_ranks, masked_logsumexp
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_choice,
    check_lists,
    check_scores,
    check_shape,
    reduce_lists,
)

__all__ = ["CurriculumWeighting", "looks_relevant", "probability_error_loss", "score_cdf"]

Heuristic = Literal["reciprocal", "minmax", "kde"]
_LEAST = 1e-8
"""Added to every difficulty weight, as the release does, so that none is exactly 0."""


def looks_relevant(
    scores: Tensor,
    mask: Tensor | None = None,
    *,
    heuristic: Heuristic = "reciprocal",
    ranks: Tensor | None = None,
) -> Tensor:
    """Return how relevant every document of a first-stage run looks, float[..., C] in 0..1; 0 where there is none.

    "reciprocal": 1 / rank by score (or 1 / `ranks`, whole numbers from 1). "minmax": (score - lowest) / (highest -
    lowest), 0.5 where all are equal. "kde": the share of the run below the score, smoothed (`score_cdf`).

    Source: MacAvaney et al. (2020), training curricula for open domain answer re-ranking, section 3 (paper 48).

    Raises:
        RivalsError: shapes that do not fit, NaN scores, ranks below 1, a kde over fewer than two distinct scores.

    >>> looks_relevant(torch.tensor([[12.0, 3.0, 6.0]]))
    tensor([[1.0000, 0.3333, 0.5000]])
    >>> looks_relevant(torch.tensor([[12.0, 3.0, 6.0]]), heuristic="minmax")
    tensor([[1.0000, 0.0000, 0.3333]])
    """
    check_choice(heuristic, get_args(Heuristic), "heuristic")
    check_scores(scores, "scores")
    there = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    check_shape(there, tuple(scores.shape), "mask", scores.device)
    scores = scores.detach().masked_fill(~there, 0.0)
    if torch.isnan(scores).any():
        raise RivalsError("scores must be numbers wherever there is a document; score documents outside the run first")
    if heuristic == "reciprocal":
        if ranks is None:
            ranks = list_ranks(scores, there) + 1
        check_shape(ranks, tuple(scores.shape), "ranks", scores.device)
        if bool((ranks < 1)[there].any()):
            raise RivalsError("ranks must be 1 or more; give documents outside the run a large one, such as 1000")
        looks = 1.0 / ranks.to(scores.dtype).clamp(min=1.0)
    elif heuristic == "minmax":
        low = scores.masked_fill(~there, torch.inf).amin(-1, keepdim=True) if scores.shape[-1] else scores[..., :0]
        high = scores.masked_fill(~there, -torch.inf).amax(-1, keepdim=True) if scores.shape[-1] else scores[..., :0]
        width = high - low
        looks = torch.where(
            width > 0, (scores - low) / width.masked_fill(~(width > 0), 1.0), torch.full_like(scores, 0.5)
        )
    else:
        rows = scores.reshape(-1, scores.shape[-1])
        kept = there.reshape(rows.shape)
        looks = torch.stack([score_cdf(row[one], row) for row, one in zip(rows, kept, strict=True)]).reshape(
            scores.shape
        )
    return looks.masked_fill(~there, 0.0)


def score_cdf(run_scores: Tensor, scores: Tensor) -> Tensor:
    """Return the Gaussian kernel estimate of the share of a run's scores float[n] below each of `scores` float[m].

    F(x) = mean_k Phi((x - b_k) / h), h = sd(b) n^(-1/5) by Scott's rule (sd with n - 1).

    Source: MacAvaney et al. (2020), section 3.1 (paper 48).

    Raises:
        RivalsError: fewer than two distinct scores in the run.

    >>> score_cdf(torch.tensor([0.0, 2.0]), torch.tensor([1.0]))
    tensor([0.5000])
    """
    if len(run_scores) < 2 or bool((run_scores == run_scores[0]).all()):
        raise RivalsError('a run needs two distinct scores for heuristic="kde"; use "reciprocal" there')
    width = run_scores.std() * len(run_scores) ** -0.2
    distance = (scores.unsqueeze(-1) - run_scores) / width
    return (0.5 * torch.special.erfc(-distance / math.sqrt(2))).mean(-1)


class CurriculumWeighting:
    """Weights that start with the easy examples and end, at `end`, with all alike.

    D is how easy an example is, in 0..1: for a pair (h_pos - h_neg + 1) / 2 with h of `looks_relevant`, the smallest over
    several negatives; for a single document h where it is relevant, 1 - h where not. At time t the weight is D (1 - t /
    end) + t / end, and 1 from `end` on. `anti` turns difficulty round. It only weighs: no example is left out, and
    weights are not normalised, so that early steps are small.

    Args:
        end: when the curriculum is over, in the units of `step` (epochs or steps).
        anti: begin with the hard examples.
        reduction: "per_sample" weighs every loss, as the paper says; "product_of_means" multiplies the batch's mean loss by
            its mean weight, as the release does.

    Source: MacAvaney et al. (2020), eq. 1 to 3 (paper 48).

    Raises:
        RivalsError: end below 0, an unknown reduction.

    >>> curriculum = CurriculumWeighting(end=20)
    >>> curriculum.weights(curriculum.pairs(torch.tensor([1.0, 0.1]), torch.tensor([0.2, 0.9])))
    tensor([0.9000, 0.1000])
    >>> curriculum.step(10)
    >>> curriculum.weights(torch.tensor([0.9, 0.1]))
    tensor([0.9500, 0.5500])
    """

    def __init__(
        self,
        *,
        end: float = 20,
        anti: bool = False,
        reduction: Literal["per_sample", "product_of_means"] = "per_sample",
    ) -> None:
        check_at_least_zero(end, "end")
        check_choice(reduction, ("per_sample", "product_of_means"), "reduction")
        self.end, self.anti, self.reduction = end, anti, reduction
        self.time = 0.0

    @property
    def finished(self) -> bool:
        """Whether all examples count alike by now."""
        return self.time >= self.end

    def step(self, amount: float = 1) -> None:
        """Let time go on."""
        self.time += amount

    def pairs(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Return how easy pairs are, float[B]: `positive` [B] and `negative` [B] or [B, N] of `looks_relevant`."""
        if negative.ndim > positive.ndim:
            positive = positive.unsqueeze(-1)
        ease = (positive - negative + 1) / 2
        ease = (1 - ease if self.anti else ease) + _LEAST
        return ease.amin(-1) if ease.ndim > 1 else ease

    def documents(self, looks: Tensor, relevance: Tensor) -> Tensor:
        """Return how easy single documents are, float[...]: `looks` of `looks_relevant` and their relevance."""
        check_shape(relevance, tuple(looks.shape), "relevance", looks.device)
        looks = 1 - looks if self.anti else looks
        return torch.where(relevance > 0, looks, 1 - looks) + _LEAST

    def weights(self, ease: Tensor) -> Tensor:
        """Return the weights at this time, float[...]."""
        if self.finished:
            return torch.ones_like(ease)
        progress = self.time / self.end
        return ease * (1 - progress) + progress

    def __call__(self, losses: Tensor, ease: Tensor) -> Tensor:
        """Return the weighted mean of the losses [B] of examples that are `ease` [B] easy."""
        weights = self.weights(ease.detach())
        if self.reduction == "product_of_means":
            return losses.mean() * weights.mean()
        return (losses * weights).mean()

    def state_dict(self) -> dict[str, Any]:
        """Return the time."""
        return {"time": self.time}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a stored time."""
        self.time = float(state["time"])


def probability_error_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus the softmax probability of a positive: the expected error of drawing one document by its score.

    Formula:
        L = sum_p w_p (1 - e^{s_p} / (e^{s_p} + sum_n e^{s_n})) / number of positives, over the batch; n runs over the
        list's negatives, so other positives do not compete.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0 (of positives; of
        negatives 0 removes one) -> scalar, or float[...] with reduction="none".

    When to use:
        Pairs with noisy labels: bounded, so that a wrong label costs at most 1. It hardly moves what is badly wrong.

    Relations:
        `info_nce_loss` at temperature 1 without its logarithm.

    Source:
        MacAvaney et al. (2020), training curricula, section 4 (its pair loss). Paper 48.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, an unknown reduction.

    Example:
        >>> probability_error_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(0.5000)
    """
    lists = check_lists(scores, relevance, mask, weight, reduction)
    there = lists.mask if lists.weight is None else lists.mask & (lists.weight > 0)
    positive, negative = there & (lists.relevance > 0), there & (lists.relevance <= 0)
    against = masked_logsumexp(lists.scores, negative).unsqueeze(-1)
    some = negative.any(-1, keepdim=True)
    error = torch.sigmoid(torch.where(some, against, lists.scores.detach()) - lists.scores)
    if lists.weight is not None:
        error = error * lists.weight
    counted = positive & some
    return reduce_lists(error.masked_fill(~counted, 0.0).sum(-1), positive.sum(-1), reduction)
