"""Contrastive losses that change while training goes on."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.errors import RivalsError
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
from rivals.losses._in_batch import Rule, list_losses

__all__ = ["ProgressiveInfoNCE", "progress_ramp", "progressive_info_nce_loss"]

Mode = Literal["weights", "curricular"]
Schedule = Literal["linear", "cosine", "step"]
SMALLEST_DIFFICULTY = 1e-8


def progress_ramp(progress: float, schedule: Schedule = "cosine") -> float:
    """Return how much of an effect is on at a progress from 0 to 1: linear, half a cosine, or a step at one half.

    Source:
        "Towards Robust Text Retrieval with Progressive Learning" (2023). Paper 87; the schedules are ours.

    Raises:
        RivalsError: progress outside [0, 1], an unknown schedule.

    >>> [round(progress_ramp(p), 4) for p in (0, 0.25, 0.5, 1)]
    [0.0, 0.1464, 0.5, 1.0]
    """
    if not 0 <= progress <= 1:
        raise RivalsError(f"progress must lie in [0, 1]; got {progress!r}")
    check_choice(schedule, get_args(Schedule), "schedule")
    if schedule == "step":
        return float(progress >= 0.5)
    return float(progress) if schedule == "linear" else (1.0 - math.cos(math.pi * progress)) / 2.0


def progressive_info_nce_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    temperature: float = 0.02,
    progress: float = 0.0,
    mode: Mode = "weights",
    gamma_max: float = 2.0,
    kappa_max: float = 0.5,
    schedule: Schedule = "cosine",
    difficulty_temperature: float = 0.1,
    positive_level: Tensor | float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """InfoNCE that looks more and more at hard negatives, and at lists that have them, as training progresses.

    Formula:
        L = mean over lists with a positive of v_q `info_nce_loss`_q, r = `progress_ramp`(progress, schedule).

        - mode="weights": a negative's multiplicity is w_n e^{g s_n} over its mean in the list, g = gamma_max r; v_q is
          d_q^{k} over its mean in the batch, k = kappa_max r, d_q = log(1 + e^{(max_n s_n - s_q+) / difficulty_temperature}),
          s_q+ the mean positive score. Both are constants for the gradient.
        - mode="curricular": v = 1, and the score s_n of a negative above the positive p becomes s_n (m + s_n), m =
          `positive_level`; with several positives, p is the worst one.

    Shapes:
        scores float[..., C] (cosines), relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Long trainings with large batches, when late steps should be spent on what is still hard. Mask false negatives:
        they are the hardest negatives of all. `ProgressiveInfoNCE` keeps the progress and the positive level.

    Relations:
        progress=0, or gamma_max and kappa_max 0: `info_nce_loss`.

    Source:
        "Towards Robust Text Retrieval with Progressive Learning" (PEG, 2023) says that weights follow the difficulty of
        negatives as training goes on, but not how: both forms here are ours, "curricular" after Huang et al. (2020),
        CurricularFace, eq. 10. Paper 87.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, temperature or difficulty_temperature <= 0, progress outside [0, 1],
        gamma_max or kappa_max < 0, an unknown mode, schedule or reduction.

    Example:
        >>> import torch
        >>> scores, relevance = torch.tensor([[0.6, 0.5, 0.1]]), torch.tensor([[1, 0, 0]])
        >>> progressive_info_nce_loss(scores, relevance, temperature=0.1, progress=1.0)
        tensor(0.4133)
    """
    check_positive(temperature, "temperature")
    check_positive(difficulty_temperature, "difficulty_temperature")
    check_at_least_zero(gamma_max, "gamma_max")
    check_at_least_zero(kappa_max, "kappa_max")
    check_choice(mode, get_args(Mode), "mode")
    ramp = progress_ramp(progress, schedule)
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positive, negative = _sides(lists)
    listed = scores.shape[-1] > 0
    if mode == "curricular":
        hurdle = lists.scores.masked_fill(~positive, torch.inf).amin(-1, keepdim=True) if listed else 0.0
        harder = negative & (lists.scores > hurdle)
        bent = (lists.scores * (positive_level + lists.scores)).where(harder, lists.scores)
        return reduce_lists(
            *list_losses(bent / temperature, lists.relevance, lists.mask, lists.weight, Rule()), reduction
        )
    multiplicity = negative_multiplicity(lists, gamma_max * ramp)
    total, counted = list_losses(lists.scores / temperature, lists.relevance, lists.mask, multiplicity, Rule())
    return reduce_lists(total * _list_weights(lists, kappa_max * ramp, difficulty_temperature), counted, reduction)


class ProgressiveInfoNCE(nn.Module):
    """`progressive_info_nce_loss` that counts its own steps and follows the level of the positives.

    Args:
        total_steps: calls in training mode until progress is 1.
        mode, temperature, gamma_max, kappa_max, schedule: as in `progressive_info_nce_loss`.
        momentum: of the running mean of positive scores that "curricular" uses, from 0.

    Buffers: `steps` and `positive_level`. In evaluation mode neither changes.

    Source:
        "Towards Robust Text Retrieval with Progressive Learning" (2023). Paper 87.

    Raises:
        RivalsError: total_steps < 1, momentum outside [0, 1), and what the function raises.

    >>> loss = ProgressiveInfoNCE(total_steps=2, mode="curricular")
    >>> for _ in range(2):
    ...     value = loss(torch.tensor([[0.6, 0.7]]), torch.tensor([[1.0, 0.0]]))
    >>> loss.progress, round(loss.positive_level.item(), 5)
    (1.0, 0.01194)
    """

    steps: Tensor
    positive_level: Tensor

    def __init__(
        self,
        total_steps: int,
        *,
        mode: Mode = "weights",
        temperature: float = 0.02,
        gamma_max: float = 2.0,
        kappa_max: float = 0.5,
        schedule: Schedule = "cosine",
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        if total_steps < 1:
            raise RivalsError(f"total_steps must be at least 1; got {total_steps!r}")
        if not 0 <= momentum < 1:
            raise RivalsError(f"momentum must lie in [0, 1); got {momentum!r}")
        check_choice(mode, get_args(Mode), "mode")
        check_choice(schedule, get_args(Schedule), "schedule")
        self.total_steps, self.momentum = total_steps, momentum
        self.mode, self.schedule = mode, schedule
        self.temperature, self.gamma_max, self.kappa_max = temperature, gamma_max, kappa_max
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("positive_level", torch.zeros(()))

    @property
    def progress(self) -> float:
        """The share of `total_steps` that is over, at most 1."""
        return min(1.0, int(self.steps) / self.total_steps)

    def forward(
        self,
        scores: Tensor,
        relevance: Tensor,
        mask: Tensor | None = None,
        *,
        weight: Tensor | None = None,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """Return the loss at the present progress; in training mode, count a step."""
        if self.training and self.mode == "curricular":
            lists = check_lists(scores.detach(), relevance, mask, weight, reduction)
            positive, _ = _sides(lists)
            seen = masked_mean(lists.scores, positive).to(self.positive_level)
            if bool(positive.any()):
                self.positive_level.mul_(self.momentum).add_(seen, alpha=1.0 - self.momentum)
        loss = progressive_info_nce_loss(
            scores,
            relevance,
            mask,
            weight=weight,
            temperature=self.temperature,
            progress=self.progress,
            mode=self.mode,
            gamma_max=self.gamma_max,
            kappa_max=self.kappa_max,
            schedule=self.schedule,
            positive_level=self.positive_level.clone(),
            reduction=reduction,
        )
        if self.training:
            self.steps += 1
        return loss


def negative_multiplicity(lists: Checked, gamma: float) -> Tensor | None:
    """Return weights [..., C] whose negatives go with e^(gamma s), the same in all as before; None where nothing changes."""
    if gamma == 0:
        return lists.weight
    _, negative = _sides(lists)
    weight = lists.mask.to(lists.scores.dtype) if lists.weight is None else lists.weight.detach()
    logits = gamma * lists.scores.detach() + weight.masked_fill(~negative, 1.0).log()
    share = masked_log_softmax(logits, negative).exp()
    return (share * weight.masked_fill(~negative, 0.0).sum(-1, keepdim=True)).where(negative, weight)


def _list_weights(lists: Checked, kappa: float, difficulty_temperature: float) -> Tensor:
    """Return a weight for every list by its hardest negative; 1 on average over the lists with both sides."""
    positive, negative = _sides(lists)
    both = positive.any(-1) & negative.any(-1)
    if kappa == 0 or lists.scores.shape[-1] == 0:
        return torch.ones_like(both, dtype=lists.scores.dtype)
    scores = lists.scores.detach()
    hardest = scores.masked_fill(~negative, -torch.inf).amax(-1)
    gap = (hardest - masked_mean(scores, positive, -1)).masked_fill(~both, 0.0)
    difficulty = (F.softplus(gap / difficulty_temperature) + SMALLEST_DIFFICULTY).pow(kappa)
    mean = masked_mean(difficulty, both)
    return difficulty / mean.masked_fill(mean == 0, 1.0)


def _sides(lists: Checked) -> tuple[Tensor, Tensor]:
    """Return the positives and the negatives that weigh something."""
    positive = (lists.relevance > 0) & lists.mask
    negative = lists.mask & ~positive
    if lists.weight is not None:
        positive, negative = positive & (lists.weight > 0), negative & (lists.weight > 0)
    return positive, negative
