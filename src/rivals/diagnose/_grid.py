"""Copies of a model moved along directions, and what is measured at each of them: with progress, and resumed from a file."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.files import atomic_file
from rivals.lists import compute_dtype
from rivals.progress import progress

Direction = Mapping[str, Tensor]
LossFunction = Callable[[Any, Any], tuple[Any, ...]]
Steps = Sequence[tuple[float, ...]]
Values = tuple[float, float | None]


def evaluation_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a model in evaluation mode, its half-precision tensors in float32."""
    moved = copy.deepcopy(model).eval()
    for module in moved.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                setattr(module, name, buffer.to(compute_dtype(buffer)))
    for parameter in moved.parameters():
        parameter.data = parameter.data.to(compute_dtype(parameter))
    return moved


def check_same(first: Mapping[str, Tensor], second: Mapping[str, Tensor], what: str) -> None:
    """Raise a RivalsError unless both name the same tensors, of the same shapes."""
    if first.keys() != second.keys():
        raise RivalsError(f"{what} must name the same tensors; {sorted(first.keys() ^ second.keys())} are not in both")
    for name, tensor in first.items():
        if tensor.shape != second[name].shape:
            shapes = f"{tuple(tensor.shape)} and {tuple(second[name].shape)}"
            raise RivalsError(f"{what} must have the same shapes; {name!r} has {shapes}")


def add_losses(model: nn.Module, loss_fn: LossFunction, data: Iterable[Any]) -> Iterator[tuple[Any, float, Any]]:
    """Yield (sum of losses, count, sum of a metric or None) of every batch."""
    for batch in data:
        given = loss_fn(model, batch)
        yield given[0], float(given[1]), given[2] if len(given) > 2 else None


def mean_loss(model: nn.Module, loss_fn: LossFunction, data: Iterable[Any]) -> Values:
    """Return the mean loss over the data, and the mean metric or None."""
    with torch.no_grad():
        parts = list(add_losses(model, loss_fn, data))
    count = math.fsum(part[1] for part in parts)
    if not count > 0:
        raise RivalsError("there is no data to measure the loss on; give batches that can be gone through repeatedly")
    loss = math.fsum(float(part[0]) for part in parts) / count
    if parts[0][2] is None:
        return loss, None
    return loss, math.fsum(float(part[2]) for part in parts) / count


def tensors(model: nn.Module, buffers: bool) -> dict[str, Tensor]:
    """Return a model's parameters, and with `buffers` its floating-point buffers, by name."""
    found: dict[str, Tensor] = dict(model.named_parameters())
    if buffers:
        found |= {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    return found


def points(xs: Sequence[float] | Tensor | None, low: float, high: float, number: int) -> tuple[float, ...]:
    """Return the points asked for, or `number` of them from `low` to `high`."""
    values = torch.linspace(low, high, number, dtype=torch.float64) if xs is None else xs
    found = tuple(float(x) for x in values)
    if not found or not all(math.isfinite(x) for x in found):
        raise RivalsError(f"the points must be one or more finite numbers; got {found}")
    return found


def along(model: nn.Module, directions: Sequence[Direction], steps: Steps) -> Iterator[nn.Module]:
    """Yield one copy of the model, at weights + sum_i step_i direction_i, one step after the other."""
    moved = evaluation_copy(model)
    places = tensors(moved, buffers=True)
    for direction in directions:
        for name, change in direction.items():
            if name not in places or places[name].shape != change.shape:
                raise RivalsError(f"the model has no tensor {name!r} of shape {tuple(change.shape)} to move")
    names = {name for direction in directions for name in direction}
    start = {name: places[name].detach().clone() for name in names}
    for step in steps:
        for name in names:
            changes = [x * d[name].to(start[name]) for x, d in zip(step, directions, strict=True) if name in d and x]
            places[name].data.copy_(sum(changes, start[name]))
        yield moved


def measured(
    model: nn.Module,
    directions: Sequence[Direction],
    steps: Steps,
    measure: Callable[[nn.Module], Values],
    *,
    cache: str | os.PathLike[str] | None = None,
    description: str = "Loss landscape",
) -> list[Values]:
    """Return `measure` of the model at every step, with progress.

    With `cache` every value is written to that file as it is found, and what a file of the same model, directions and
    steps holds is not measured again; its first value is, to see that the data and the loss are the same.
    """
    known, path = _read(model, directions, steps, cache)
    missing = [i for i in range(len(steps)) if i not in known]
    if known:
        first = min(known)
        _compare(known[first], next(measure(moved) for moved in along(model, directions, [steps[first]])), cache)
    with progress(description, len(steps)) as advance:
        advance(len(known))
        for i, moved in zip(missing, along(model, directions, [steps[i] for i in missing]), strict=True):
            known[i] = measure(moved)
            if path is not None:
                with path.open("a", encoding="utf-8") as out:
                    out.write(json.dumps([i, *known[i]]) + "\n")
            advance(1, f"loss {known[i][0]:.3g}")
    return [known[i] for i in range(len(steps))]


def _read(
    model: nn.Module, directions: Sequence[Direction], steps: Steps, cache: str | os.PathLike[str] | None
) -> tuple[dict[int, Values], Path | None]:
    """Return what a cache holds, by step, and its path; a new one is begun, a line cut short by a kill removed."""
    if cache is None:
        return {}, None
    path, digest = Path(cache), _fingerprint(model, directions, steps)
    known: dict[int, Values] = {}
    kept = [json.dumps({"landscape": digest, "steps": len(steps)})]
    if path.exists():
        head, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
        if head != kept[0]:
            raise RivalsError(f"{path} is not of this model, directions and points; give another file or remove it")
        for line in lines:
            try:
                i, loss, metric = json.loads(line)
            except ValueError:
                break
            known[int(i)] = float(loss), None if metric is None else float(metric)
            kept.append(line)
    with atomic_file(path) as out:
        out.writelines(line + "\n" for line in kept)
    return known, path


def _fingerprint(model: nn.Module, directions: Sequence[Direction], steps: Steps) -> str:
    digest = hashlib.blake2b(json.dumps([list(step) for step in steps]).encode(), digest_size=16)
    for part in (tensors(model, buffers=True), *directions):
        for name in sorted(part):
            digest.update(name.encode())
            digest.update(part[name].detach().to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()


def _compare(stored: Values, now: Values, cache: str | os.PathLike[str] | None) -> None:
    for before, after in zip(stored, now, strict=True):
        same = (before is None) == (after is None)
        if before is not None and after is not None:
            same = math.isclose(before, after, rel_tol=1e-4, abs_tol=1e-7) or before == after
            same = same or (math.isnan(before) and math.isnan(after))
        if not same:
            raise RivalsError(
                f"{os.fspath(cache or '')} holds {before} where this loss and data give {after}; "
                "give another file or remove it"
            )
