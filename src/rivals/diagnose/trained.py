"""The loss landscape of what `rivals.training.fit` trains: its own loss on any weights, and the path it took."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rivals.diagnose._grid import LossFunction, evaluation_copy, tensors
from rivals.diagnose.curvature import TrajectoryPlane, trajectory_plane
from rivals.diagnose.landscape import LossSurface, loss_surface
from rivals.errors import RivalsError
from rivals.training.loop import Objective
from rivals.training.regime import Regime

_STATES = "path.safetensors"
#: What of a module is lent: its tensors, and its hooks, which is how dropout is put into a copy.
_LENT = (
    "_parameters",
    "_buffers",
    "training",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


class ObjectiveLoss:
    """An objective's loss as a function of a model's weights: what curves, surfaces, sharpness and Hessians ask for.

    Call it with a copy of the objective's model, moved or not, and one of its batches. During the call the objective's model
    has the copy's weights, in evaluation mode; afterwards it is as it was. Whatever the loss draws is drawn alike at every call.

    Args:
        objective: any of `rivals.training`, with the model that `fit` trained.
        batches: how many batches of `epoch` to take, evenly spread; 0 = all. epoch: whose batches. seed: of the loss's draws.

    Every batch counts alike, as in training. Batches stay the same, so in-batch losses can be compared between points.

    Source: Li et al. (2018), section 3. Paper 92.

    Raises RivalsError: fewer than 0 batches, an objective without batches, a model of another structure.

    >>> from rivals.diagnose.landscape import loss_curve, random_direction
    >>> from rivals.losses import softmax_loss
    >>> from rivals.models.images import FeatureEncoder
    >>> from rivals.training import SupervisedObjective
    >>> rows = torch.eye(4)
    >>> loss = ObjectiveLoss(SupervisedObjective(FeatureEncoder(4, 4), [rows], [rows], softmax_loss, batch_size=2))
    >>> direction = random_direction(loss.model, generator=torch.Generator().manual_seed(0))
    >>> curve = loss_curve(loss.model, loss, loss.data, direction, [-1, 0, 1])
    >>> len(loss.data), len(curve.loss)
    (2, 3)
    """

    def __init__(self, objective: Objective, *, batches: int = 0, epoch: int = 0, seed: int = 0) -> None:
        if batches < 0:
            raise RivalsError(f"batches is {batches}; give how many to take, or 0 for all")
        self.objective, self.seed = objective, seed
        every = objective.batches(epoch)
        if not len(every):
            raise RivalsError("the objective has no batch to measure the loss on")
        count = min(batches or len(every), len(every))
        self.data: list[tuple[int, Any]] = [
            (i, every[i]) for i in (place * len(every) // count for place in range(count))
        ]

    @property
    def model(self) -> nn.Module:
        """The objective's model."""
        return self.objective.model

    def __call__(self, model: nn.Module, batch: tuple[int, Any]) -> tuple[Tensor, float]:
        """Return (the batch's loss, 1) at the weights of `model`."""
        number, rows = batch
        seed = self.seed * 1_000_003 + number
        with _lent(self.objective.model, model), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.objective.loss(rows, torch.Generator().manual_seed(seed)), 1.0


@contextmanager
def _lent(model: nn.Module, other: nn.Module) -> Iterator[None]:
    """Let `model` run with the parameters, buffers and hooks of `other`, in evaluation mode, and give it its own back."""
    mine, theirs = dict(model.named_modules()), dict(other.named_modules())
    names = {name: {*part._parameters, *part._buffers} for name, part in mine.items()}
    if names != {name: {*part._parameters, *part._buffers} for name, part in theirs.items()}:
        raise RivalsError("the model must be a copy of the objective's; its parts have other names")
    kept = {name: {key: part.__dict__[key] for key in _LENT} for name, part in mine.items()}
    try:
        for name, part in mine.items():
            part.__dict__.update({key: theirs[name].__dict__[key] for key in _LENT})
            part.training = False
        yield
    finally:
        for name, part in mine.items():
            part.__dict__.update(kept[name])


class TrajectoryRecorder(Regime):
    """A regime that keeps the weights at the start, every `every` steps and at the end of training.

    Give it to `fit`, alone or in `Together`, then its `states` to `trajectory_plane` or `trajectory_surface`. All states are
    in memory, and in every checkpoint, so that a resumed run has the whole path.

    Args:
        model: what is trained. every: steps between two states. buffers: also floating-point buffers, such as running statistics.

    Source: Li et al. (2018), section 7. Paper 92.

    Raises RivalsError: every below 1.

    >>> from rivals.losses import softmax_loss
    >>> from rivals.models.images import FeatureEncoder
    >>> from rivals.training import LoopConfig, SupervisedObjective, fit
    >>> rows, model = torch.eye(4), FeatureEncoder(4, 4)
    >>> path = TrajectoryRecorder(model, every=5)
    >>> result = fit(SupervisedObjective(model, [rows], [rows], softmax_loss), LoopConfig(epochs=12, evaluations=0), regime=path)
    >>> path.steps
    [0, 5, 10, 12]
    """

    def __init__(self, model: nn.Module, *, every: int, buffers: bool = False) -> None:
        if every < 1:
            raise RivalsError(f"every is {every}; it must be at least 1 step")
        self.model, self.every, self.buffers = model, every, buffers
        self.steps: list[int] = []
        self.states: list[dict[str, Tensor]] = []
        self._total = 0

    def begin(self, step: int, total: int) -> None:
        self._total = total
        if step == 0:
            self.steps, self.states = [], []
            self._keep(0)

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        if (step + 1) % self.every == 0 or step + 1 == self._total:
            self._keep(step + 1)

    def _keep(self, step: int) -> None:
        self.steps.append(step)
        self.states.append({k: v.detach().cpu().clone() for k, v in tensors(self.model, self.buffers).items()})

    def state_dict(self) -> dict[str, Any]:
        return {"steps": list(self.steps)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = [int(step) for step in state["steps"]]

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        flat = {f"{i}/{name}": t.contiguous() for i, state in enumerate(self.states) for name, t in state.items()}
        save_file(flat, folder / _STATES)

    def load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        self.states = [{} for _ in self.steps]
        for key, value in load_file(folder / _STATES).items():
            place, name = key.split("/", 1)
            self.states[int(place)][name] = value


@dataclass(frozen=True, eq=False)
class TrajectorySurface:
    """A path of training on the loss around it: `plane` has its coordinates, `surface` the loss in the same coordinates."""

    plane: TrajectoryPlane
    surface: LossSurface

    def to_json(self) -> dict[str, Any]:
        """Return path and surface as JSON values."""
        path = {
            "coordinates": self.plane.coordinates.tolist(),
            "explained_variance": list(self.plane.explained_variance),
        }
        return {**path, "surface": self.surface.to_json()}


def trajectory_surface(
    model: nn.Module,
    states: Sequence[Mapping[str, Tensor]],
    loss_fn: LossFunction,
    data: Iterable[Any],
    *,
    points: int = 25,
    margin: float = 0.2,
    cache: str | os.PathLike[str] | None = None,
) -> TrajectorySurface:
    """Return the loss around a path of training, in the plane of its two principal directions.

    The plane goes through the last state; the grid covers the path and `margin` of its extent more on every side. The model
    is copied and stays as it is; what the states do not name (buffers, say) keeps its values.

    Args:
        states: three or more, in order, as `TrajectoryRecorder` keeps them. loss_fn, data, cache: as in `loss_curve`.
        points: of the grid on each side, at least 2; points^2 passes over the data.

    Source: Li et al. (2018), section 7. Paper 92.

    Raises RivalsError: as `trajectory_plane` and `loss_surface`; points below 2, a negative margin, states of another model.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> states = [{"weight": torch.tensor([point])} for point in ([3.0, 0.0], [1.0, 1.0], [0.0, 0.0])]
    >>> found = trajectory_surface(model, states, lambda m, _: (m.weight.square().sum(), 1), [0], points=3, margin=0)
    >>> found.plane.coordinates.shape, round(min(map(min, found.surface.loss)), 4) < 1
    ((3, 2), True)
    """
    if points < 2 or not margin >= 0:
        raise RivalsError(f"points must be 2 or more and margin at least 0; got {points} and {margin}")
    plane = trajectory_plane(states)
    last = evaluation_copy(model)
    own = tensors(last, buffers=True)
    for name in plane.directions[0]:
        if name not in own or own[name].shape != states[-1][name].shape:
            raise RivalsError(
                f"the model has no tensor {name!r} of shape {tuple(states[-1][name].shape)}, as the states do"
            )
        own[name].data.copy_(states[-1][name])
    low, high = plane.coordinates.min(0), plane.coordinates.max(0)
    room = margin * (high - low)
    xs, ys = (
        torch.linspace(float(a), float(b), points, dtype=torch.float64)
        for a, b in zip(low - room, high + room, strict=True)
    )
    return TrajectorySurface(plane, loss_surface(last, loss_fn, data, *plane.directions, xs, ys, cache=cache))
