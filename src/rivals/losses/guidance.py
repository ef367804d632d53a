"""Guidance by negatives: away from what is not wanted, without touching what is; and the step it is learnt through."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import check_choice, check_finite, check_scores, check_shape
from rivals.losses.combine import project_out

__all__ = [
    "DenoisingSchedule",
    "ViewWeights",
    "ddim_schedule",
    "ddim_step",
    "exclude",
    "guided_prediction",
    "perpendicular_guidance",
    "predict_clean",
    "view_weights",
]

_FLOOR = 1e-6
_NO_WEIGHT = 1e-4

BetaKind = Literal["scaled_linear", "linear"]


def perpendicular_guidance(main: Tensor, others: Tensor, weights: Tensor, *, floor: float = _FLOOR) -> Tensor:
    """Return the main direction plus weighted others, each without its component along the main one.

    g = d_0 + sum_k w_k (d_k - (d_k . d_0 / max(|d_0|^2, floor)) d_0);  w_k < 0 pushes away, w_k > 0 adds. Products run
    over everything but the batch. g . d_0 = |d_0|^2 whatever the others are, so what main wants is never reduced; a
    direction parallel to main drops out. Others are not made perpendicular to one another. |w| <= 1e-4 counts as 0.

    Shapes: main float[B, ...], others float[K, B, ...], weights float[K] or float[K, B] -> float[B, ...].

    Source: Armandpour et al. (2023), Perp-Neg, and its code (with the floor). Paper 74.

    Raises:
        RivalsError: shapes that do not fit, weights that are not finite, floor <= 0 or no floating-point tensors.

    >>> perpendicular_guidance(torch.tensor([[1.0, 0.0]]), torch.tensor([[[1.0, 1.0]]]), torch.tensor([-1.0]))
    tensor([[ 1., -1.]])
    """
    if not floor > 0:
        raise RivalsError(f"floor must be above 0; got {floor!r}")
    wide, weights = _check_directions(main, others, weights)
    flat = others.to(wide.dtype).flatten(2)
    perpendicular = project_out(flat, wide.flatten(1), floor=floor).view_as(others)
    return (wide + (weights * perpendicular).sum(0)).to(main.dtype)


def guided_prediction(
    negative: Tensor,
    positive: Tensor,
    scale: float,
    *,
    others: Tensor | None = None,
    weights: Tensor | None = None,
    perpendicular: bool = True,
) -> Tensor:
    """Return negative + scale * (positive - negative): classifier-free guidance away from a negative (or no) prompt.

    With `others` (predictions of further prompts) and their `weights`, positive - negative is the main direction and
    others - negative are added to it: perpendicular to it (`perpendicular_guidance`), or as they are.

    Shapes: negative, positive float[B, ...], others float[K, B, ...], weights float[K] or float[K, B] -> float[B, ...].

    Source: Ho and Salimans (2022); Armandpour et al. (2023); Li et al. (2024), ReNeg. Papers 74, 96. The gradient of the
    negative carries the factor 1 - scale.

    Raises:
        RivalsError: shapes that do not fit, a scale that is not finite, others without weights or the reverse.

    >>> guided_prediction(torch.zeros(1, 1), torch.ones(1, 1), 7.5)
    tensor([[7.5000]])
    """
    check_scores(negative, "negative")
    check_scores(positive, "positive")
    check_shape(positive, tuple(negative.shape), "positive", negative.device)
    check_finite(torch.tensor(float(scale)), "scale")
    if (others is None) != (weights is None):
        raise RivalsError("others and weights come together; give both or neither")
    direction = positive - negative
    if others is not None and weights is not None:
        if perpendicular:
            direction = perpendicular_guidance(direction, others - negative, weights)
        else:
            wide, factors = _check_directions(direction, others, weights)
            direction = (wide + (factors * (others - negative)).sum(0)).to(direction.dtype)
    return negative + scale * direction


def exclude(
    queries: Tensor,
    negatives: Tensor,
    mask: Tensor | None = None,
    *,
    weight: float = 1.0,
    perpendicular: bool = True,
    renormalize: bool = True,
) -> Tensor:
    """Return queries moved away from the embeddings of what they must not find ("... but not ...").

    q - weight * sum_k n_k, each n_k without its component along q if `perpendicular`, so that the query itself is not
    weakened; `renormalize` gives every result the length its query had.

    Shapes: queries float[B, D], negatives float[B, K, D], mask bool[B, K] -> float[B, D].

    Source: the combination of Armandpour et al. (2023), on embeddings. Paper 74.

    Raises:
        RivalsError: shapes or dtypes that do not fit, a weight that is not finite.

    >>> exclude(torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.6, 0.8]]]), renormalize=False)
    tensor([[ 1.0000, -0.8000]])
    """
    check_scores(queries, "queries", ndim=2)
    check_scores(negatives, "negatives", ndim=3)
    check_shape(negatives, (len(queries), negatives.shape[1], queries.shape[1]), "negatives", queries.device)
    there = torch.ones(negatives.shape[:2], dtype=torch.bool, device=queries.device) if mask is None else mask
    check_shape(there, tuple(negatives.shape[:2]), "mask", queries.device)
    directions = negatives.masked_fill(~there.unsqueeze(-1), 0.0)
    factors = torch.full((negatives.shape[1],), -float(weight), dtype=compute_dtype(queries), device=queries.device)
    if perpendicular:
        moved = perpendicular_guidance(queries, directions.transpose(0, 1), factors)
    else:
        moved = (queries.to(factors.dtype) + (factors.unsqueeze(-1) * directions).sum(1)).to(queries.dtype)
    if not renormalize:
        return moved
    length = moved.norm(dim=-1, keepdim=True)
    return moved * (queries.norm(dim=-1, keepdim=True) / length.masked_fill(length == 0, 1.0))


class ViewWeights(NamedTuple):
    """Mixtures over the prompts (front, side, back): the main one, the two negatives, and the weights of all three."""

    main: Tensor
    negatives: Tensor
    weights: Tensor


def view_weights(
    azimuth: float | Tensor, *, negative_weight: float = -2.0, front_decay: float = 2.0, side_decay: float = 10.0
) -> ViewWeights:
    """Return which mixture of view prompts to follow at an azimuth, and which to avoid how much.

    In [-90, 90), r = 1 - |azimuth| / 90: main r front + (1 - r) side; negatives front with weight n e^{-front_decay r}
    (0 where r > 0.8) and side with n e^{-side_decay (1 - r)} (0 where r < 0.2). Elsewhere, r = 2 - |azimuth| / 90: main
    r side + (1 - r) back; negatives side with n e^{-side_decay r} / 2 (0 where r > 0.8) and front with n.
    n = `negative_weight`; the main weight is 1.

    Shapes: azimuth in degrees, a number or float[...] -> main float64[..., 3] over (front, side, back), negatives
    [..., 2, 3], weights [..., 3].

    Source: Armandpour et al. (2023), Perp-Neg for views, with its code's decays. Paper 74.

    Raises:
        RivalsError: an azimuth outside [-180, 180] or NaN.

    >>> view_weights(0.0).weights
    tensor([ 1.,  0., -2.], dtype=torch.float64)
    """
    angle = torch.as_tensor(azimuth, dtype=torch.float64)
    if not bool((angle.abs() <= 180).all()):
        raise RivalsError("azimuth must lie in [-180, 180] degrees; wrap it first")
    ahead = (angle >= -90) & (angle < 90)
    r = torch.where(ahead, 1 - angle.abs() / 90, 1 - (angle.abs() - 90) / 90)
    zero, one = torch.zeros_like(r), torch.ones_like(r)
    main = torch.stack([r.where(ahead, zero), (1 - r).where(ahead, r), zero.where(ahead, 1 - r)], -1)
    front, side = torch.stack([one, zero, zero], -1), torch.stack([zero, one, zero], -1)
    choose = ahead.unsqueeze(-1)
    negatives = torch.stack([front.where(choose, side), side.where(choose, front)], -2)
    on_front = (negative_weight * (-front_decay * r).exp()).masked_fill(r > 0.8, 0.0)
    on_side = (negative_weight * (-side_decay * (1 - r)).exp()).masked_fill(r < 0.2, 0.0)
    behind = (negative_weight / 2 * (-side_decay * r).exp()).masked_fill(r > 0.8, 0.0)
    weights = [one, on_front.where(ahead, behind), on_side.where(ahead, negative_weight * one)]
    return ViewWeights(main, negatives, torch.stack(weights, -1))


class DenoisingSchedule(NamedTuple):
    """The steps of a sampler, noisiest first: their times [S] and alpha_bar [S], and alpha_bar after each [S]."""

    times: Tensor
    alpha_bar: Tensor
    alpha_bar_prev: Tensor


def ddim_schedule(
    steps: int,
    *,
    train_steps: int = 1000,
    beta: tuple[float, float] = (0.00085, 0.012),
    kind: BetaKind = "scaled_linear",
    offset: int = 1,
) -> DenoisingSchedule:
    """Return the times and cumulative signal shares alpha_bar of a deterministic sampler.

    beta rises from the first to the second number over `train_steps` ("linear"), or its square root does
    ("scaled_linear"); alpha_bar is the running product of 1 - beta. The sampler visits every (train_steps // steps)-th
    time plus `offset`; before the last step the signal share is that of time 0.

    Shapes: -> `DenoisingSchedule` of `steps` entries, float64 (times int64).

    Source: Song et al. (2021), DDIM; the constants of Stable Diffusion, as used by Li et al. (2024). Paper 96.

    Raises:
        RivalsError: steps outside 1..train_steps, betas out of order or outside (0, 1), an offset that leaves the
        schedule, an unknown kind.

    >>> ddim_schedule(30).times[:2], ddim_schedule(30).times[-1]
    (tensor([958, 925]), tensor(1))
    """
    check_choice(kind, ("scaled_linear", "linear"), "kind")
    low, high = beta
    if not 0 < low <= high < 1:
        raise RivalsError(f"beta must be two rising numbers in (0, 1); got {beta!r}")
    if not 1 <= steps <= train_steps:
        raise RivalsError(f"steps must lie in 1..{train_steps}; got {steps}")
    stride = train_steps // steps
    times = torch.arange(steps).flip(0) * stride + offset
    if offset < 0 or int(times[0]) >= train_steps:
        raise RivalsError(f"offset {offset} puts a step outside 0..{train_steps - 1}; choose a smaller one")
    root = 2 if kind == "scaled_linear" else 1
    betas = torch.linspace(low ** (1 / root), high ** (1 / root), train_steps, dtype=torch.float64) ** root
    alpha_bar = (1 - betas).cumprod(0)
    before = times - stride
    return DenoisingSchedule(times, alpha_bar[times], alpha_bar[before.clamp(min=0)])


def predict_clean(noisy: Tensor, noise: Tensor, alpha_bar: float) -> Tensor:
    """Return the clean sample that a predicted noise implies: (x - sqrt(1 - alpha_bar) noise) / sqrt(alpha_bar).

    Shapes: noisy, noise float[...] -> float[...]. Tiny alpha_bar (noisy steps) blows it up: learn at late steps only.

    Source: Song et al. (2021); Li et al. (2024), ReNeg, which rewards this sample. Paper 96.

    Raises:
        RivalsError: shapes or dtypes that do not fit, alpha_bar outside (0, 1].

    >>> predict_clean(torch.tensor([1.0]), torch.tensor([0.5]), 0.64)
    tensor([0.8750])
    """
    check_scores(noisy, "noisy")
    check_shape(noise, tuple(noisy.shape), "noise", noisy.device)
    _check_share(alpha_bar, "alpha_bar")
    return (noisy - (1 - alpha_bar) ** 0.5 * noise) / alpha_bar**0.5


def ddim_step(noisy: Tensor, noise: Tensor, alpha_bar: float, alpha_bar_prev: float) -> Tensor:
    """Return the sample one deterministic step less noisy: sqrt(abar') x_0 + sqrt(1 - abar') noise.

    Shapes: noisy, noise float[...] -> float[...].

    Source: Song et al. (2021), DDIM without added noise, as used by Li et al. (2024). Paper 96.

    Raises:
        RivalsError: shapes or dtypes that do not fit, an alpha_bar outside (0, 1].

    >>> ddim_step(torch.tensor([1.0]), torch.tensor([0.5]), 0.64, 0.81)
    tensor([1.0054])
    """
    _check_share(alpha_bar_prev, "alpha_bar_prev")
    clean = predict_clean(noisy, noise, alpha_bar)
    return alpha_bar_prev**0.5 * clean + (1 - alpha_bar_prev) ** 0.5 * noise


def _check_share(value: float, name: str) -> None:
    if not 0 < value <= 1:
        raise RivalsError(f"{name} must lie in (0, 1]; got {value!r}")


def _check_directions(main: Tensor, others: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return main in the dtype to compute in, and the weights [K, B, 1...], 0 where they are too small to count."""
    check_scores(main, "main")
    check_scores(others, "others")
    if main.ndim < 2:
        raise RivalsError(f"main must have shape [B, ...], a batch of directions; got {tuple(main.shape)}")
    check_shape(others, (len(others), *main.shape), "others", main.device)
    if weights.ndim == 1:
        weights = weights.unsqueeze(1).expand(-1, len(main))
    check_shape(weights, (len(others), len(main)), "weights", main.device)
    wide = main.to(compute_dtype(main))
    weights = weights.to(wide.dtype)
    check_finite(weights, "weights")
    weights = weights.masked_fill(weights.abs() <= _NO_WEIGHT, 0.0)
    return wide, weights.reshape(*weights.shape, *([1] * (main.ndim - 1)))
