"""The loss around a trained model: along random directions of the right scale, and between two models."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rivals.diagnose._grid import Direction, LossFunction, check_same, mean_loss, measured, points, tensors
from rivals.errors import RivalsError
from rivals.lists import compute_dtype

Norm = Literal["filter", "layer", "weight", "dfilter", "dlayer", "none"]
Vectors = Literal["zero", "weight", "keep"]

_TINY = 1e-10


@dataclass(frozen=True)
class LossCurve:
    """The loss along a line: mean `loss` at every `x`, and the mean `metric` if the loss function gives one."""

    x: tuple[float, ...]
    loss: tuple[float, ...]
    metric: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the curve as JSON values."""
        return {"x": self.x, "loss": self.loss, "metric": self.metric}


@dataclass(frozen=True)
class LossSurface:
    """The loss on a plane: `loss[i][j]` at x[i], y[j]; `cosine` of the two directions, near 0 for random ones."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    loss: tuple[tuple[float, ...], ...]
    metric: tuple[tuple[float, ...], ...] | None
    cosine: float

    def to_json(self) -> dict[str, Any]:
        """Return the surface as JSON values."""
        return {"x": self.x, "y": self.y, "loss": self.loss, "metric": self.metric, "cosine": self.cosine}


def normalize_direction(
    direction: Direction, weights: Mapping[str, Tensor], *, norm: Norm = "filter", vectors: Vectors = "zero"
) -> dict[str, Tensor]:
    """Rescale a direction to the weights it starts from, so that models of other scales can be compared.

    A filter f is a slice along dimension 0 (an output unit) of a tensor of two or more dimensions.
    "filter": d_f |w_f| / (|d_f| + 1e-10); "layer": d |w| / |d|; "weight": d w, entry by entry; "dfilter", "dlayer":
    every filter, or layer, to norm 1; "none": as it is.

    Args:
        direction, weights: tensors by name. vectors: what becomes of tensors of at most one dimension, such as biases
            and the scales of normalisation layers: direction 0 (recommended), the weights themselves, or kept as is.

    Source: Li et al. (2018), visualizing the loss landscape, section 4, and its code. Paper 92. "zero" is the code's
    ignore="biasbn", "weight" what it does otherwise.

    Raises RivalsError: names or shapes that differ, weights that are not finite, an unknown norm or choice of vectors.

    >>> normalize_direction({"w": torch.tensor([[3.0, 4.0]])}, {"w": torch.tensor([[0.0, 2.0]])})["w"].round(decimals=4)
    tensor([[1.2000, 1.6000]])
    """
    if norm not in ("filter", "layer", "weight", "dfilter", "dlayer", "none"):
        raise RivalsError(f"norm must be 'filter', 'layer', 'weight', 'dfilter', 'dlayer' or 'none'; got {norm!r}")
    if vectors not in ("zero", "weight", "keep"):
        raise RivalsError(f"vectors must be 'zero', 'weight' or 'keep'; got {vectors!r}")
    check_same(direction, weights, "direction and weights")
    result = {}
    for name, change in direction.items():
        weight = weights[name].detach().to(change)
        if not torch.isfinite(weight).all():
            raise RivalsError(f"the weights {name!r} are not finite")
        if change.ndim <= 1:
            result[name] = {"zero": torch.zeros_like(change), "weight": weight.clone(), "keep": change.clone()}[vectors]
        else:
            result[name] = _rescaled(change, weight, norm)
    return result


def _rescaled(change: Tensor, weight: Tensor, norm: Norm) -> Tensor:
    rows, of_weight = change.flatten(1), weight.flatten(1)
    if norm == "filter":
        return (rows * (of_weight.norm(dim=1) / (rows.norm(dim=1) + _TINY))[:, None]).reshape(change.shape)
    if norm == "dfilter":
        return (rows / (rows.norm(dim=1) + _TINY)[:, None]).reshape(change.shape)
    if norm == "weight":
        return change * weight
    if norm == "none":
        return change.clone()
    length = change.norm()
    scale = (weight.norm() if norm == "layer" else 1.0) / torch.where(length > 0, length, 1.0)
    return change * scale


def random_direction(
    model: nn.Module, *, norm: Norm = "filter", vectors: Vectors = "zero", generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Return a random direction from a model's weights: normal numbers, rescaled by `normalize_direction`.

    Shared (tied) parameters appear once. One direction is noisy: average over ten or more.

    Args:
        model: any module with parameters. norm, vectors: see `normalize_direction`. generator: on the CPU, for
            reproducible directions.

    Source: Li et al. (2018), section 4. Paper 92.

    Raises RivalsError: as `normalize_direction`; a model without parameters.

    >>> direction = random_direction(nn.Linear(3, 2), generator=torch.Generator().manual_seed(0))
    >>> direction["bias"]
    tensor([0., 0.])
    """
    weights = dict(model.named_parameters())
    if not weights:
        raise RivalsError("the model has no parameters to move")
    noise = {
        name: torch.randn(weight.shape, generator=generator, dtype=compute_dtype(weight)).to(weight.device)
        for name, weight in weights.items()
    }
    return normalize_direction(noise, weights, norm=norm, vectors=vectors)


def model_difference(a: nn.Module, b: nn.Module, *, buffers: bool = True) -> dict[str, Tensor]:
    """Return the direction from model a to model b: every floating-point tensor of b minus that of a.

    With `buffers` also running statistics, which two batch-normalised models need when they are mixed.

    Source: Li et al. (2018), directions of type "states" and "weights". Paper 92.

    Raises RivalsError: models of another structure.

    >>> a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> (a.weight + model_difference(a, b)["weight"] - b.weight).abs().item() < 1e-6
    True
    """
    first, second = tensors(a, buffers), tensors(b, buffers)
    check_same(first, second, "the two models")
    return {
        name: second[name].detach().to(compute_dtype(second[name])) - tensor.detach().to(compute_dtype(tensor))
        for name, tensor in first.items()
    }


def loss_curve(
    model: nn.Module,
    loss_fn: LossFunction,
    data: Iterable[Any],
    direction: Direction,
    xs: Sequence[float] | Tensor | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
) -> LossCurve:
    """Return the loss along a direction: f(x) = loss(weights + x direction).

    The model is copied, to float32 at least and evaluation mode, and stays as it is. The cost is len(xs) passes over the
    data: take a fixed part of it.

    Args:
        loss_fn: (model, batch) -> (sum of losses, count) or (sum of losses, count, sum of a metric). data: batches,
                the same at every x; an in-batch loss needs fixed batches. `ObjectiveLoss` makes both from what `fit` trains.
        xs: 51 points from -1 to 1 by default.
        cache: a file that values are written to as they are found; the same call goes on from it after an interruption.

    Source: Li et al. (2018), section 3. Paper 92.

    Raises RivalsError: no data, a direction for tensors the model does not have, or of another shape; a cache of another
    model, direction, points, data or loss.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> curve = loss_curve(model, lambda m, _: (m.weight.square().sum(), 1), [0], {"weight": -model.weight.detach()}, [1])
    >>> curve.loss
    (0.0,)
    """
    places = points(xs, -1.0, 1.0, 51)
    steps = [(x,) for x in places]
    values = measured(model, [direction], steps, lambda moved: mean_loss(moved, loss_fn, data), cache=cache)
    return LossCurve(places, tuple(loss for loss, _ in values), _metrics([metric for _, metric in values]))


def loss_surface(
    model: nn.Module,
    loss_fn: LossFunction,
    data: Iterable[Any],
    first: Direction,
    second: Direction,
    xs: Sequence[float] | Tensor | None = None,
    ys: Sequence[float] | Tensor | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
) -> LossSurface:
    """Return the loss on a plane: f(x, y) = loss(weights + x first + y second).

    Args: as in `loss_curve`; xs and ys are 51 points from -1 to 1 by default, so 2601 passes over the data.

    Source: Li et al. (2018), section 3. Paper 92.

    Raises RivalsError: as `loss_curve`.

    >>> model = nn.Linear(1, 1)
    >>> ones = {"weight": torch.ones(1, 1)}, {"bias": torch.ones(1)}
    >>> surface = loss_surface(model, lambda m, x: (m(x).sum() - model(x).sum(), 1), [torch.ones(1)], *ones, [0, 1], [0, 2])
    >>> [[round(loss, 4) for loss in row] for row in surface.loss], surface.cosine
    ([[0.0, 2.0], [1.0, 3.0]], 0.0)
    """
    rows, columns = points(xs, -1.0, 1.0, 51), points(ys, -1.0, 1.0, 51)
    steps = [(x, y) for x in rows for y in columns]
    values = measured(model, [first, second], steps, lambda moved: mean_loss(moved, loss_fn, data), cache=cache)
    metrics = _metrics([metric for _, metric in values])
    loss = as_rows([loss for loss, _ in values], len(columns))
    metric = None if metrics is None else as_rows(metrics, len(columns))
    return LossSurface(rows, columns, loss, metric, direction_cosine(first, second))


def interpolate_models(
    a: nn.Module,
    b: nn.Module,
    loss_fn: LossFunction,
    data: Iterable[Any],
    xs: Sequence[float] | Tensor | None = None,
    *,
    buffers: bool = True,
    cache: str | os.PathLike[str] | None = None,
) -> LossCurve:
    """Return the loss on the line through two models: a at x = 0, b at x = 1.

    Args: as in `loss_curve`; xs are 401 points from -0.5 to 1.5 by default; buffers: see `model_difference`.

    Source: Goodfellow et al. (2015); Li et al. (2018), section 3. Paper 92.

    Raises RivalsError: as `loss_curve` and `model_difference`.

    >>> a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> curve = interpolate_models(a, b, lambda m, x: (m(x).sum(), 1), [torch.ones(1)], [0, 1])
    >>> abs(curve.loss[1] - b(torch.ones(1)).item()) < 1e-6
    True
    """
    direction = model_difference(a, b, buffers=buffers)
    return loss_curve(a, loss_fn, data, direction, points(xs, -0.5, 1.5, 401), cache=cache)


def sharpness(
    model: nn.Module,
    loss_fn: LossFunction,
    data: Iterable[Any],
    *,
    radius: float = 1.0,
    n_directions: int = 10,
    norm: Norm = "filter",
    generator: torch.Generator | None = None,
) -> float:
    """Return by how much the loss rises on average at +-radius / 2 and +-radius along random directions.

    One number for a flatness that curves show; ours, not the paper's. Compare models of one architecture and data only,
    by the same generator seed: it says little about generalisation otherwise.

    Args: as in `loss_curve` and `random_direction`; radius: above 0; n_directions: 1 or more.

    Source: ours, on the filter-normalised directions of Li et al. (2018). Paper 92.

    Raises RivalsError: as `loss_curve`; a radius not above 0, no direction.

    >>> model = nn.Linear(4, 1, bias=False)
    >>> size = model.weight.square().sum().item()
    >>> rise = sharpness(model, lambda m, _: ((m.weight - model.weight).square().sum() / size, 1), [0])
    >>> round(rise, 4)
    0.625
    """
    if not (math.isfinite(radius) and radius > 0) or n_directions < 1:
        raise RivalsError(f"radius must be above 0 and n_directions 1 or more; got {radius!r} and {n_directions!r}")
    steps = (-radius, -radius / 2, 0.0, radius / 2, radius)
    rises = []
    for _ in range(n_directions):
        loss = loss_curve(model, loss_fn, data, random_direction(model, norm=norm, generator=generator), steps).loss
        rises.append((loss[0] + loss[1] + loss[3] + loss[4]) / 4 - loss[2])
    return math.fsum(rises) / n_directions


def direction_cosine(first: Direction, second: Direction) -> float:
    """Return the cosine of two directions over all their entries; what only one of them names counts as 0 in the other.

    >>> direction_cosine({"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([-2.0, 0.0])})
    -1.0
    """
    both = [name for name in first if name in second]
    dot = math.fsum(float((first[name].double() * second[name].double()).sum()) for name in both)
    one, two = (math.fsum(float(t.double().square().sum()) for t in way.values()) for way in (first, second))
    return dot / math.sqrt(one * two) if one and two else 0.0


def _metrics(values: Sequence[float | None]) -> tuple[float, ...] | None:
    return None if any(value is None for value in values) else tuple(value for value in values if value is not None)


def as_rows(flat: Sequence[float], columns: int) -> tuple[tuple[float, ...], ...]:
    """Return a grid's values row by row."""
    return tuple(tuple(flat[start : start + columns]) for start in range(0, len(flat), columns))
