"""Contrastive losses over several projection heads, in which every pair of vectors has a learnt temperature."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_mask,
    check_positive,
    check_reduction,
    check_scores,
    check_shape,
    reduce_lists,
)
from rivals.losses._in_batch import unit_rows

__all__ = [
    "PairTemperature",
    "multi_head_contrastive_loss",
    "multi_head_redundancy_loss",
    "multi_head_siamese_loss",
    "temperature_penalty",
]

Temperature = Callable[[Tensor, Tensor], Tensor] | float


class PairTemperature(nn.Module):
    """A temperature for a pair of vectors, between `low` and `high`: low + (high - low) sigmoid(phi([u, v])).

    phi is Linear(2 dim, hidden), ReLU, Linear(hidden, 1), one for all heads; give another module to replace it.

    Source:
        Wang et al. (2024), "Adaptive Multi-head Contrastive Learning", section 3.3. Paper 16. Their code has a lower bound
        of 1e-5; 0.05 keeps the loss from running away (ours).

    Raises:
        RivalsError: low <= 0, high <= low, vectors of another width.

    >>> temperature = PairTemperature(4)
    >>> pair = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(3, 2, 4)
    >>> temperature(*pair).shape, bool((temperature(*pair) > 0.05).all())
    (torch.Size([3, 2]), True)
    """

    def __init__(
        self, dim: int, *, hidden: int = 128, low: float = 0.05, high: float = 2.0, network: nn.Module | None = None
    ) -> None:
        super().__init__()
        check_positive(low, "low")
        if not (math.isfinite(high) and high > low):
            raise RivalsError(f"high must be a finite number above low, {low!r}; got {high!r}")
        self.low, self.high = low, high
        if network is None:
            network = nn.Sequential(nn.Linear(2 * dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.network = network

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the temperatures [...] of pairs of vectors [..., dim]."""
        dtype = next(self.parameters()).dtype
        logit = self.network(torch.cat([left, right], -1).to(dtype)).squeeze(-1)
        return self.low + (self.high - self.low) * logit.to(compute_dtype(left)).sigmoid()


def temperature_penalty(temperature: Tensor, width: int) -> Tensor:
    """Return (width / 2) log t + 1 / t, smallest at t = 2 / width: what keeps temperatures from 0 and from infinity.

    Source:
        Wang et al. (2024), "Adaptive Multi-head Contrastive Learning", table 1. Paper 16.

    Raises:
        RivalsError: a width below 1.

    >>> temperature_penalty(torch.tensor([0.5, 1.0]), 4)
    tensor([0.6137, 1.0000])
    """
    if width < 1:
        raise RivalsError(f"width must be at least 1; got {width!r}")
    return width / 2 * temperature.log() + 1.0 / temperature


def multi_head_contrastive_loss(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    temperature: Temperature,
    beta: float = 0.1,
    normalize_penalty: bool = False,
    include_positive: bool = False,
    softness: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Contrastive loss summed over heads: the positive against the hardest negative, each at its pair's own temperature.

    Formula:
        l_i = sum_h [ -s_i+ / t_i+ + s_in / t_in + b O(t_i+) - b O(t_in) ], s = cosines in head h, n = argmax of s_in over
        the negatives (and the positive, with `include_positive`), O = `temperature_penalty`, b = `beta`, times 2 / D with
        `normalize_penalty`. `softness` a > 0: a logsumexp(s / a) in place of the largest score s_in. Mean over i.

    Shapes:
        anchors, positives float[H, B, D]; negatives float[H, B, N, D] (each anchor's own), float[H, K, D] (shared) or
        None (the positives of the other examples); mask bool[B, N], bool[B, K] or bool[B, B]; temperature a number or
        a function of two tensors [H, B, D] -> [H, B] (`PairTemperature`) -> scalar, or float[B] with reduction="none".

    When to use:
        Views changed so strongly that some positives look unlike and some negatives alike: no one temperature fits.
        Beta must fall with the width, or the penalty drowns the scores (`normalize_penalty`).

    Relations:
        A fixed temperature and beta 0: the limit of `info_nce_loss` (temperature times loss) as its temperature goes to
        0, with positives="decoupled" unless the positive is included.

    Source:
        Wang et al. (2024), "Adaptive Multi-head Contrastive Learning", tables 1 and 2. Paper 16. Its code does not run:
        the tables are followed; `softness` and `normalize_penalty` are ours. The choice of n carries no gradient.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, no negatives, temperature, beta or
        softness out of range, an unknown reduction.

    Example:
        >>> import torch
        >>> anchor, positive = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.8, 0.6]]])
        >>> multi_head_contrastive_loss(anchor, positive, torch.tensor([[[0.0, 1.0], [0.6, 0.8]]]), temperature=0.5, beta=0.0)
        tensor(-0.4000)

        O(H B N D); temperatures are asked for the positives and the hardest negatives only.
    """
    check_reduction(reduction)
    check_at_least_zero(beta, "beta")
    check_at_least_zero(softness, "softness")
    first, second = _heads(anchors, positives, ("anchors", "positives"))
    _, count, width = first.shape
    others = None if negatives is None else _checked_negatives(negatives, first)
    size = count if others is None else others.shape[-2]
    there = torch.ones(count, size, dtype=torch.bool, device=first.device)
    check_mask(mask, there, "mask")
    there = there if mask is None else mask
    if others is None:
        others, there = second, there & ~torch.eye(count, dtype=torch.bool, device=first.device)
    if size - int(negatives is None) < 1 and count:
        raise RivalsError("there are no negatives: give some, or a batch of more than one example")
    if count == 0:
        return reduce_lists((first.sum((0, 2)) + second.sum((0, 2))) * 0.0, there.sum(1), reduction)
    left, right = unit_rows(first), unit_rows(second)
    rival = unit_rows(others)
    own = (left * right).sum(-1)
    shared = rival.ndim == 3
    scores = left @ rival.mT if shared else (rival @ left.unsqueeze(-1)).squeeze(-1)
    opposed = there.any(1)
    if include_positive:
        scores = torch.cat([scores, own.unsqueeze(-1)], -1)
        there = torch.cat([there, opposed[:, None]], 1)
    hidden = scores.masked_fill(~there, -torch.inf).masked_fill(~opposed[:, None], 0.0)
    hardest = hidden.detach().argmax(-1, keepdim=True)
    score = hidden.gather(-1, hardest).squeeze(-1)
    if softness > 0:
        score = softness * (hidden / softness).logsumexp(-1)
    picked = _picked(others, hardest.clamp(max=size - 1), shared)
    if include_positive:
        picked = second.where(hardest == size, picked)
    scale = beta * (2.0 / width if normalize_penalty else 1.0)
    terms = _penalised(score, _temperatures(temperature, first, picked), width, -scale) - _penalised(
        own, _temperatures(temperature, first, second), width, -scale
    )
    return reduce_lists(terms.sum(0).masked_fill(~opposed, 0.0), opposed, reduction)


def multi_head_siamese_loss(
    first: Tensor,
    second: Tensor,
    target_first: Tensor,
    target_second: Tensor,
    *,
    temperature: Temperature,
    beta: float = 0.1,
    reduction: Reduction = "mean",
) -> Tensor:
    """Two views drawn together without negatives, summed over heads, each pair at its own temperature (SimSiam form).

    Formula:
        l_i = sum_h [ -cos(z_i, h'_i) / (2 t_i) - cos(z'_i, h_i) / (2 t'_i) + b O(t_i) + b O(t'_i) ], z, z' the two views
        after the predictor, h, h' the targets without gradient, t_i = temperature(z_i, h'_i), O = `temperature_penalty`.

    Shapes:
        all float[H, B, D] -> scalar, or float[B] with reduction="none".

    When to use:
        Learning from two views in small batches, several heads at once.

    Relations:
        One head, temperature 1 and beta 0: SimSiam's loss.

    Source:
        Wang et al. (2024), "Adaptive Multi-head Contrastive Learning", table 2. Paper 16.

    Raises:
        RivalsError: shapes or dtypes that do not fit, temperature or beta out of range, an unknown reduction.

    Example:
        >>> import torch
        >>> views = torch.eye(2)[None]
        >>> multi_head_siamese_loss(views, views, views, views, temperature=1.0, beta=0.0)
        tensor(-1.)
    """
    check_reduction(reduction)
    check_at_least_zero(beta, "beta")
    z, other = _heads(first, second, ("first", "second"))
    target, target_other = _heads(target_first.detach(), target_second.detach(), ("target_first", "target_second"))
    check_shape(target_first, tuple(first.shape), "target_first", first.device)

    def one(view: Tensor, goal: Tensor) -> Tensor:
        score = (unit_rows(view) * unit_rows(goal)).sum(-1)
        heat = _temperatures(temperature, view, goal)
        return beta * temperature_penalty(heat, view.shape[-1]) - score / (2.0 * heat)

    total = (one(z, target_other) + one(other, target)).sum(0)
    return reduce_lists(total, torch.ones_like(total), reduction)


def multi_head_redundancy_loss(
    first: Tensor,
    second: Tensor,
    *,
    temperature: Tensor | float = 1.0,
    off_diagonal: float = 5e-3,
    beta: float = 0.0,
) -> Tensor:
    """Dimensions of two views correlated with themselves and not with each other, summed over heads (Barlow form).

    Formula:
        C = correlations over the batch between the dimensions of the two views (each standardised).
        L = sum_h [ sum_l (1 - C_ll / t_ll)^2 + a sum_{l != m} (C_lm)^2 / t_lm + b sum_l O(t_ll) - b sum_{l != m} O(t_lm) ],
        a = `off_diagonal`, b = `beta`, O = `temperature_penalty`.

    Shapes:
        first, second float[H, B, D], temperature a number or float[H, D, D] (or what broadcasts to it) -> scalar.

    When to use:
        Views without negatives, where every dimension should say something of its own; needs batches well above 2.

    Relations:
        One head, temperature 1 and beta 0: Barlow Twins.

    Source:
        Wang et al. (2024), "Adaptive Multi-head Contrastive Learning", table 2; Zbontar et al. (2021), Barlow Twins, eq. 1,
        for the default of 0.005. Paper 16. A dimension that does not vary has correlation 0.

    Raises:
        RivalsError: shapes or dtypes that do not fit, a temperature that is not above 0, off_diagonal or beta < 0.

    Example:
        >>> import torch
        >>> views = torch.tensor([[[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]])
        >>> multi_head_redundancy_loss(views, views.flip(2), off_diagonal=0.5)
        tensor(3.)
    """
    check_at_least_zero(off_diagonal, "off_diagonal")
    check_at_least_zero(beta, "beta")
    left, right = _heads(first, second, ("first", "second"))
    width = left.shape[-1]
    if not isinstance(temperature, Tensor):
        check_positive(temperature, "temperature")
    heat = torch.as_tensor(temperature, dtype=left.dtype, device=left.device)
    if heat.device.type == "cpu" and not (heat > 0).all():
        raise RivalsError("temperature must be above 0 everywhere")
    heat = heat.expand(len(left), width, width)
    correlation = unit_rows(_centred(left).mT) @ unit_rows(_centred(right).mT).mT
    own = torch.eye(width, dtype=torch.bool, device=left.device)
    penalty = temperature_penalty(heat, max(width, 1))
    on = (1.0 - correlation / heat).square() + beta * penalty
    off = off_diagonal * correlation.square() / heat - beta * penalty
    return on.where(own, off).sum()


def _centred(views: Tensor) -> Tensor:
    return views - views.sum(1, keepdim=True) / max(views.shape[1], 1)


def _heads(first: Tensor, second: Tensor, names: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """Check two tensors [H, B, D] and bring them to the dtype to compute in."""
    check_scores(first, names[0], ndim=3)
    check_scores(second, names[1], ndim=3)
    check_shape(second, tuple(first.shape), names[1], first.device)
    dtype = torch.promote_types(compute_dtype(first), compute_dtype(second))
    return first.to(dtype), second.to(dtype)


def _checked_negatives(negatives: Tensor, anchors: Tensor) -> Tensor:
    check_scores(negatives, "negatives")
    heads, count, width = anchors.shape
    middle = (count,) if negatives.ndim == 4 else ()
    size = negatives.shape[-2] if negatives.ndim >= 2 else 0
    check_shape(negatives, (heads, *middle, size, width), "negatives", anchors.device)
    return negatives.to(anchors.dtype)


def _picked(others: Tensor, column: Tensor, shared: bool) -> Tensor:
    """Return the vectors [H, B, D] of the chosen columns [H, B, 1]."""
    if shared:
        return others.gather(1, column.expand(-1, -1, others.shape[-1]))
    chosen = column.unsqueeze(-1).expand(-1, -1, 1, others.shape[-1])
    return others.gather(2, chosen).squeeze(2)


def _temperatures(temperature: Temperature, left: Tensor, right: Tensor) -> Tensor:
    if callable(temperature):
        return temperature(left, right)
    check_positive(temperature, "temperature")
    return left.new_full(left.shape[:-1], temperature)


def _penalised(score: Tensor, heat: Tensor, width: int, scale: float) -> Tensor:
    return score / heat + scale * temperature_penalty(heat, width)
