"""Multi-task models that may fall back on each task's own encoder, so that sharing need not make a task worse."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError

Level = Literal["hidden", "output"]
Gate = Literal["softmax", "sigmoid2", "hard"]
Path = Literal["mixed", "public", "private"]


class SafeSharing(nn.Module):
    """A public encoder that all tasks share and a private one for each, mixed by a gate per task.

    Args:
        public: the shared encoder. private, decoders: each task's own encoder and decoder, by the task's name.
        public_decoders: each task's decoder after the public encoder; needed at level "output", unused in training both at "hidden".
        level: where both paths meet: before one decoder ("hidden") or after two ("output", scores before any softmax).
        gate: "softmax": weights a and 1 - a. "sigmoid2": two weights that need not add up to 1. "hard": one path, drawn in training
            (straight-through Gumbel-softmax at temperature `tau`), in evaluation the private one where sigmoid(u) >= 0.5.
        init: the public path's first weight.

    Formula: hidden: y_t = h_t(a_t f_S(x) + (1 - a_t) f_t(x)); output: y_t = a_t hS_t(f_S(x)) + (1 - a_t) h_t(f_t(x)).
    Shapes: forward(*inputs) -> {task: output}; with task= one task's output.
    When to use: tasks that may hurt each other. It costs an encoder per task while training; `compact` leaves the unused ones out.
    Source: Yue et al. (2021), safe and deep safe multi-task learning (paper 94).
    Raises: RivalsError for tasks that differ between the parts, an unknown level or gate, init outside (0, 1), tau <= 0, encoders
    whose outputs differ in shape where they are mixed, a task not known.

    >>> model = SafeSharing(nn.Linear(2, 3), {"a": nn.Linear(2, 3)}, {"a": nn.Linear(3, 1)})
    >>> model(torch.zeros(4, 2))["a"].shape, model.gates().tolist()
    (torch.Size([4, 1]), [0.5])
    """

    def __init__(
        self,
        public: nn.Module,
        private: Mapping[str, nn.Module],
        decoders: Mapping[str, nn.Module],
        public_decoders: Mapping[str, nn.Module] | None = None,
        *,
        level: Level = "hidden",
        gate: Gate = "softmax",
        init: float = 0.5,
        tau: float = 0.1,
    ) -> None:
        super().__init__()
        if level not in get_args(Level) or gate not in get_args(Gate):
            raise RivalsError(
                f"level is {level!r} and gate {gate!r}; use hidden or output, and softmax, sigmoid2 or hard"
            )
        if level == "output" and public_decoders is None:
            raise RivalsError("level 'output' needs public_decoders, one for each task")
        for name, part in (("decoders", decoders), ("public_decoders", public_decoders)):
            if part is not None and part.keys() != private.keys():
                raise RivalsError(f"private is for the tasks {list(private)}, {name} for {list(part)}; give the same")
        if not private or not 0 < init < 1 or not tau > 0:
            raise RivalsError(
                f"there must be a task, init in (0, 1) and tau above 0; got {list(private)}, {init}, {tau}"
            )
        self.tasks, self.level, self.gate, self.tau = tuple(private), level, gate, float(tau)
        self.public = public
        self.private, self.decoders = nn.ModuleDict(dict(private)), nn.ModuleDict(dict(decoders))
        self.public_decoders = nn.ModuleDict(dict(public_decoders or {})) if level == "output" else nn.ModuleDict()
        logit = math.log(init / (1 - init))
        count = len(self.tasks)
        self.gate_public = nn.Parameter(torch.full((count,), logit))  # vectors, so no weight decay
        self.gate_private = nn.Parameter(torch.full((count,), -logit)) if gate == "sigmoid2" else None
        self._path: Path = "mixed"

    @contextmanager
    def through(self, path: Path) -> Iterator[None]:
        """Send everything through one path inside the block: the public encoder alone, or the private ones."""
        if path not in get_args(Path):
            raise RivalsError(f"path is {path!r}; use mixed, public or private")
        before, self._path = self._path, path
        try:
            yield
        finally:
            self._path = before

    def gates(self) -> Tensor:
        """Return the weight of the public path of every task, [T]; of a hard gate, what evaluation takes: 0 or 1."""
        found = self.gate_public.detach().sigmoid()
        return (found > 0.5).to(found) if self.gate == "hard" else found  # sigmoid(u) >= 0.5 with u = -gate_public

    def set_gates(self, public: Mapping[str, float]) -> None:
        """Set the public path's weight of tasks, in (0, 1); of hard gates anything above 0.5 is public."""
        with torch.no_grad():
            for task, value in public.items():
                if not 0 < value < 1:
                    raise RivalsError(f"the gate of task {task!r} must be in (0, 1), not {value}")
                place, logit = self._place(task), math.log(value / (1 - value))
                self.gate_public[place] = logit
                if self.gate_private is not None:
                    self.gate_private[place] = -logit

    def _place(self, task: str) -> int:
        if task not in self.tasks:
            raise RivalsError(f"task {task!r} is not known; the tasks are {', '.join(self.tasks)}")
        return self.tasks.index(task)

    def _weights(self, place: int) -> tuple[Tensor, Tensor]:
        """Return the weights of the public and the private path of one task."""
        logit = self.gate_public[place]
        if self.gate == "sigmoid2":
            assert self.gate_private is not None
            return logit.sigmoid(), self.gate_private[place].sigmoid()
        if self.gate == "softmax":
            return logit.sigmoid(), (-logit).sigmoid()
        if self.training:
            logits = nn.functional.logsigmoid(torch.stack([logit, -logit]))
            chosen = nn.functional.gumbel_softmax(logits, tau=self.tau, hard=True)
            return chosen[0], chosen[1]
        public = (logit > 0).to(logit)
        return public, 1 - public

    def forward(self, *inputs: Tensor, task: str | None = None) -> dict[str, Tensor] | Tensor:
        """Return every task's output by name, or that of one task."""
        if task is not None:
            self._place(task)
        wanted = self.tasks if task is None else (task,)
        shared = self.public(*inputs) if self._path != "private" else None
        found = {name: self._one(name, inputs, shared) for name in wanted}
        return found if task is None else found[task]

    def _one(self, task: str, inputs: tuple[Tensor, ...], shared: Tensor | None) -> Tensor:
        decode = self.decoders[task]
        decode_public = self.public_decoders[task] if self.level == "output" else decode
        if self._path == "public":
            alone: Tensor = decode_public(shared)
            return alone
        own = self.private[task](*inputs)
        if self._path == "private":
            alone = decode(own)
            return alone  # noqa: RET504
        assert shared is not None
        public, private = self._weights(self._place(task))
        if self.level == "output":
            first, second = decode_public(shared), decode(own)
        else:
            first, second = shared, own
        if first.shape != second.shape:
            raise RivalsError(
                f"task {task!r}: the public path gives {tuple(first.shape)}, the private one {tuple(second.shape)}; they must agree"
            )
        mixed = public * first + private * second
        return mixed if self.level == "output" else decode(mixed)

    def view(self, task: str) -> TaskView:
        """Return one task's model, `forward(*inputs)`, over the same parameters: what the task's objective trains."""
        self._place(task)
        return TaskView(self, task)

    def compact(self) -> CompactSharing:
        """Return a model with the encoders and decoders that hard gates choose, and no others; its parts are copies.

        Raises:
            RivalsError: gates that mix both paths.
        """
        if self.gate != "hard":
            raise RivalsError(f"a {self.gate} gate mixes both paths, so no encoder can be left out; use gate='hard'")
        public = [task for task, share in zip(self.tasks, self.gates().tolist(), strict=True) if share > 0.5]
        encoders = {f"private_{task}": self.private[task] for task in self.tasks if task not in public}
        if public:
            encoders["public"] = self.public
        after = self.public_decoders if self.level == "output" else self.decoders
        decoders = {task: (after if task in public else self.decoders)[task] for task in self.tasks}
        uses = {task: "public" if task in public else f"private_{task}" for task in self.tasks}
        return CompactSharing(copy.deepcopy(encoders), copy.deepcopy(decoders), uses).train(self.training)


class TaskView(nn.Module):
    """One task of a `SafeSharing` model, over the same parameters."""

    def __init__(self, sharing: SafeSharing, task: str) -> None:
        super().__init__()
        self.sharing, self.task = sharing, task

    def forward(self, *inputs: Tensor) -> Tensor:
        found = self.sharing(*inputs, task=self.task)
        assert isinstance(found, Tensor)
        return found


class CompactSharing(nn.Module):
    """What is left of a `SafeSharing` model when every task has chosen its path; `uses` is each task's encoder by name."""

    def __init__(
        self, encoders: Mapping[str, nn.Module], decoders: Mapping[str, nn.Module], uses: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.encoders, self.decoders = nn.ModuleDict(dict(encoders)), nn.ModuleDict(dict(decoders))
        self.uses = dict(uses)

    def forward(self, *inputs: Tensor, task: str | None = None) -> dict[str, Tensor] | Tensor:
        """Return every task's output by name, or that of one task; each encoder runs once."""
        if task is not None and task not in self.uses:
            raise RivalsError(f"task {task!r} is not known; the tasks are {', '.join(self.uses)}")
        wanted = list(self.uses) if task is None else [task]
        hidden = {name: self.encoders[name](*inputs) for name in dict.fromkeys(self.uses[each] for each in wanted)}
        found = {each: self.decoders[each](hidden[self.uses[each]]) for each in wanted}
        return found if task is None else found[task]


__all__ = ["CompactSharing", "SafeSharing", "TaskView"]
