"""Checkpoints: everything needed to go on, written whole or not at all, without pickles.

A checkpoint is a folder `step-00000120/` holding `weights.safetensors`, `optimizer.safetensors` and, written last, `state.json`
with checksums; it is valid only with a matching `state.json`. The newest valid one wins, so a damaged one costs some steps, no more.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rivals.errors import RunFolderError
from rivals.files import atomic_folder, checksum

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    *,
    also: Callable[[Path], None] | None = None,
) -> Path:
    """Write the checkpoint of `step` and drop older ones.

    Args:
        state: JSON values to find again on resume (counters, best score, configuration).
        also: writes further files into the checkpoint's folder.
    """
    from safetensors.torch import save_file

    target = folder / f"step-{step:08d}"
    with atomic_folder(target) as out:
        save_file(trainable_state(model), out / WEIGHTS)
        save_file(_optimizer_tensors(optimizer), out / OPTIMIZER)
        if also is not None:
            also(out)
        files = sorted(path for path in out.rglob("*") if path.is_file())
        sums = {path.relative_to(out).as_posix(): checksum(path) for path in files}
        (out / STATE).write_text(json.dumps({"step": step, "checksums": sums, **state}), encoding="utf-8")
    for old in [*_checkpoints(folder), *folder.glob(".step-*")]:  # the second: what a kill left half written
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return target


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], Path] | None:
    """Restore model and optimiser from the newest valid checkpoint; return its state and folder, or None if there is none.

    Raises:
        RunFolderError: a valid checkpoint that is of another model.
    """
    from safetensors.torch import load_file

    for path in reversed(_checkpoints(folder)):
        state = _valid_state(path)
        if state is None:
            continue
        weights = load_file(path / WEIGHTS)
        _check_weights(path, weights, model)
        restore_weights(model, weights)
        _restore_optimizer(optimizer, load_file(path / OPTIMIZER))
        return state, path
    return None


def load_weights(folder: Path, model: nn.Module, *, after: int = -1) -> int | None:
    """Put the weights of the newest valid checkpoint into a model, if it is of a later step than `after`; return its step or None.

    For another process than the one that writes them: a checkpoint that is dropped while it is read counts as not there.

    Raises:
        RunFolderError: a checkpoint of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for path in reversed(_checkpoints(folder)):
        state = _valid_state(path)
        if state is None:
            continue
        if int(state["step"]) <= after:
            return None
        try:
            weights = load_file(path / WEIGHTS)
        except (OSError, RuntimeError, SafetensorError):  # versions of safetensors differ in what they raise
            if (path / WEIGHTS).exists():
                raise
            continue
        _check_weights(path, weights, model)
        restore_weights(model, weights)
        return int(state["step"])
    return None


def newest_step(folder: Path) -> int | None:
    """Return the step of the newest valid checkpoint, or None if there is none."""
    states = (_valid_state(path) for path in reversed(_checkpoints(folder)))
    return next((int(state["step"]) for state in states if state is not None), None)


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a folder, and what a kill left of one that was being written."""
    for path in [*_checkpoints(folder), *folder.glob(".step-*")]:
        shutil.rmtree(path, ignore_errors=True)


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers by name, on the CPU; shared tensors once each, under every name.

    Parameters marked `constant`, such as the weights beside adapters, are left out: no step changes them.
    """
    left_out = _constant(model)
    return {
        name: value.detach().cpu().clone().contiguous()
        for name, value in model.state_dict().items()
        if name not in left_out
    }


def restore_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights from `trainable_state` back, in place."""
    constant = _constant(model)
    kept = {name: value for name, value in model.state_dict().items() if name in constant} if constant else {}
    model.load_state_dict({**kept, **weights}, strict=True)


def _constant(model: nn.Module) -> set[str]:
    return {name for name, value in model.named_parameters(remove_duplicate=False) if getattr(value, "constant", False)}


def _check_weights(path: Path, weights: Mapping[str, Tensor], model: nn.Module) -> None:
    constant = _constant(model)
    expected = {name: value for name, value in model.state_dict().items() if name not in constant}
    if weights.keys() != expected.keys() or any(weights[k].shape != expected[k].shape for k in weights):
        raise RunFolderError(
            f"{path} holds the weights of another model; resume with the configuration it was made with"
        )


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _valid_state(path: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        sums = state["checksums"]
        whole = {WEIGHTS, OPTIMIZER} <= sums.keys() and all(checksum(path / name) == sum for name, sum in sums.items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return state if whole else None


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            tensors[f"{index}.{name}"] = torch.as_tensor(value).detach().cpu().clone().contiguous()
    return tensors


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
