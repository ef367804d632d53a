"""Merging the weight changes of several training runs: TIES (trim, elect a sign, average what agrees)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype

Elect = Literal["total", "frequency"]
Normalize = Literal["count", "weights"]


class LowRank(NamedTuple):
    """A low-rank weight change scaling * up @ down: up [out, r], down [r, in]."""

    up: Tensor
    down: Tensor
    scaling: float = 1.0


@overload
def ties_merge(
    deltas: Sequence[Tensor],
    weights: Sequence[float] | None = None,
    *,
    density: float = 0.8,
    elect: Elect = "total",
    weight_before_election: bool = False,
    normalize: Normalize | None = "count",
    scale: float = 1.0,
) -> Tensor: ...
@overload
def ties_merge(
    deltas: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float] | None = None,
    *,
    density: float = 0.8,
    elect: Elect = "total",
    weight_before_election: bool = False,
    normalize: Normalize | None = "count",
    scale: float = 1.0,
) -> dict[str, Tensor]: ...
def ties_merge(
    deltas: Sequence[Tensor] | Sequence[Mapping[str, Tensor]],
    weights: Sequence[float] | None = None,
    *,
    density: float = 0.8,
    elect: Elect = "total",
    weight_before_election: bool = False,
    normalize: Normalize | None = "count",
    scale: float = 1.0,
) -> Tensor | dict[str, Tensor]:
    """Merge weight changes entry by entry, keeping what the runs agree on and dropping what they dispute.

    1. Trim: of every tensor keep the int(density * entries) of largest magnitude, set the rest to 0. 2. Elect: each
    entry's sign, that of the sum over the runs ("total") or of the sum of signs ("frequency"); a sum of 0 elects plus.
    3. Merge: the weighted sum over the runs whose entry has the elected sign, divided by their number ("count"), by the
    sum of their weights ("weights") or by nothing (None), times `scale`. Where every entry cancels, the positive one
    survives alone.

    deltas: one tensor a run, all of a shape, or one mapping a run from names to tensors (merged name by name; tensors
    that are not floating-point are refused). weights: one a run, 1 by default. `weight_before_election` lets the
    weights count in the election. PEFT's "ties" is the default; mergekit's is weight_before_election=True with
    normalize="weights". Computed in float32 at least and returned in the dtype of the first run.

    Source: Yadav et al. (2023), TIES-Merging (whose density is 0.2); PEFT `ties`, mergekit `GTATask`; the density of 0.8
    is that of Xu et al. (2025), ZJUKLAB. Paper 105. Of equal magnitudes at the cut, which stay is not specified.

    Raises RivalsError: no run, shapes or names that differ, density outside (0, 1] or one that keeps nothing, weights
    that are not finite or not one a run, unknown options.

    >>> first, second = torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.tensor([-0.4, -1.0, 0.9, -4.0])
    >>> ties_merge([first, second], density=1.0)
    tensor([ 1.0000, -1.5000,  0.7000, -4.0000])
    """
    if len(deltas) == 0:
        raise RivalsError("deltas must hold at least one run")
    if elect not in ("total", "frequency"):
        raise RivalsError(f"elect must be 'total' or 'frequency'; got {elect!r}")
    if normalize not in ("count", "weights", None):
        raise RivalsError(f"normalize must be 'count', 'weights' or None; got {normalize!r}")
    if not 0 < density <= 1:
        raise RivalsError(f"density must lie in 0..1, 0 excluded; got {density!r}")
    shares = [1.0] * len(deltas) if weights is None else [float(weight) for weight in weights]
    if len(shares) != len(deltas) or not all(math.isfinite(share) for share in shares) or not math.isfinite(scale):
        raise RivalsError(f"weights must be {len(deltas)} finite numbers, one a run, and scale finite; got {weights!r}")

    def merged(runs: Sequence[Tensor], name: str) -> Tensor:
        stacked = torch.stack([_trimmed(run, density, name) for run in _checked(runs, name)])
        by_run = torch.tensor(shares, dtype=stacked.dtype, device=stacked.device)
        by_run = by_run.reshape(-1, *[1] * (stacked.ndim - 1))
        weighted = stacked * by_run
        voters = weighted if weight_before_election else stacked
        votes = voters if elect == "total" else voters.sign()
        elected = torch.where(votes.sum(0) >= 0, 1.0, -1.0)
        agree = (voters.sign() == elected).to(stacked.dtype)
        result = (weighted * agree).sum(0)
        if normalize == "count":
            result = result / agree.sum(0).clamp(min=1)
        elif normalize == "weights":
            divisor = (agree * by_run).sum(0)
            result = result / divisor.masked_fill(divisor.abs() < 1e-8, 1.0)
        return (scale * result).to(runs[0].dtype)

    if isinstance(deltas[0], Tensor):
        return merged([delta for delta in deltas if isinstance(delta, Tensor)], "deltas")
    states = [delta for delta in deltas if isinstance(delta, Mapping)]
    for state in states:
        if state.keys() != states[0].keys():
            raise RivalsError(f"every run must name the same tensors; {state.keys() ^ states[0].keys()} are not in all")
    return {name: merged([state[name] for state in states], name) for name in states[0]}


def merge_low_rank(
    adapters: Sequence[LowRank],
    weights: Sequence[float] | None = None,
    *,
    mode: Literal["delta", "factors"] = "delta",
    density: float = 0.8,
    elect: Elect = "total",
) -> LowRank | Tensor:
    """Merge low-rank adapters of one layer by TIES, as full weight changes or factor by factor.

    mode "delta" merges scaling * up @ down and returns the tensor [out, in]. "factors" merges the `up` factors and the
    `down` factors each by themselves, weighted by sqrt(weight * scaling), and returns a `LowRank` of scaling 1: what
    PEFT's `add_weighted_adapter` does and the ZJUKLAB system did. The two are not equivalent, and factors of runs with
    different random initialisations do not correspond: prefer "delta".

    Source: PEFT `LoraModel.add_weighted_adapter`; Xu et al. (2025), ZJUKLAB. Paper 105.

    Raises RivalsError: as `ties_merge`; a negative weight or scaling in mode "factors", an unknown mode.

    >>> one = LowRank(torch.tensor([[1.0]]), torch.tensor([[3.0]]))
    >>> merge_low_rank([one], [4.0], mode="factors", density=1.0)
    LowRank(up=tensor([[2.]]), down=tensor([[6.]]), scaling=1.0)
    """
    shares = [1.0] * len(adapters) if weights is None else [float(weight) for weight in weights]
    if len(shares) != len(adapters):
        raise RivalsError(f"weights must be {len(adapters)} numbers, one an adapter; got {weights!r}")
    if mode == "delta":
        full = [adapter.scaling * (adapter.up @ adapter.down) for adapter in adapters]
        return ties_merge(full, shares, density=density, elect=elect)
    if mode != "factors":
        raise RivalsError(f"mode must be 'delta' or 'factors'; got {mode!r}")
    products = [share * adapter.scaling for share, adapter in zip(shares, adapters, strict=True)]
    if any(product < 0 for product in products):
        raise RivalsError(
            "weights and scalings must not be negative in mode 'factors': each factor takes a square root"
        )
    roots = [math.sqrt(product) for product in products]
    up, down = (
        ties_merge(factors, roots, density=density, elect=elect)
        for factors in ([adapter.up for adapter in adapters], [adapter.down for adapter in adapters])
    )
    return LowRank(up, down)


def apply_delta(base: Mapping[str, Tensor], delta: Mapping[str, Tensor], *, scale: float = 1.0) -> dict[str, Tensor]:
    """Return base + scale * delta, tensor by tensor; what `delta` does not name is taken from the base as it is.

    Source: the last step of TIES-Merging (Yadav et al., 2023). Paper 105.

    Raises RivalsError: a delta the base does not have, of another shape, or for a tensor that is not floating-point.

    >>> apply_delta({"w": torch.tensor([1.0]), "steps": torch.tensor(3)}, {"w": torch.tensor([0.5])}, scale=2.0)
    {'w': tensor([2.]), 'steps': tensor(3)}
    """
    for name, change in delta.items():
        if name not in base:
            raise RivalsError(f"the base has no tensor {name!r}")
        if base[name].shape != change.shape or not base[name].is_floating_point():
            raise RivalsError(
                f"{name!r} must be a floating-point tensor of shape {tuple(change.shape)} in the base; "
                f"it is {base[name].dtype} of shape {tuple(base[name].shape)}"
            )
    merged = dict(base)
    for name, change in delta.items():
        tensor = base[name]
        merged[name] = (tensor.to(compute_dtype(tensor)) + scale * change.to(compute_dtype(tensor))).to(tensor.dtype)
    return merged


def _checked(runs: Sequence[Tensor], name: str) -> list[Tensor]:
    for run in runs:
        if not run.is_floating_point():
            raise RivalsError(f"{name} must be floating-point; got {run.dtype}")
        if run.shape != runs[0].shape:
            raise RivalsError(
                f"{name} must have one shape in every run; got {tuple(run.shape)} and {tuple(runs[0].shape)}"
            )
    return [run.to(compute_dtype(run)) for run in runs]


def _trimmed(values: Tensor, density: float, name: str) -> Tensor:
    kept = int(density * values.numel())
    if kept == values.numel():
        return values
    if kept == 0:
        raise RivalsError(f"density {density} keeps none of the {values.numel()} entries of {name}; give a larger one")
    flat = values.flatten()
    largest = flat.abs().topk(kept).indices
    return torch.zeros_like(flat).scatter(0, largest, flat[largest]).reshape(values.shape)
