"""Several tasks in one training: all of them in every step, or one a step in proportion to their size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError
from rivals.negatives.batching.batch import Batch
from rivals.negatives.batching.batchers import Batcher, check_options, whole_number

Mode = Literal["joint", "proportional"]

_PART = 6


class TaskBalanced:
    """Gives a tuple of batches a step: one of every task, or one of a task drawn in proportion to its size.

    "joint": every step holds a batch of each task, of that task's own size (4 retrieval queries and 32 graded pairs, say);
    losses are added, so no step pulls towards one task alone. It ends with the task of most batches ("longest", the
    others begin anew) or of fewest ("shortest"). "proportional": one task a step, task t in a share of n_t^(1 /
    temperature) of the steps, n_t its batches: 1 gives every batch once, in random order; more favours small tasks, which
    then begin anew while large ones are cut short.

    Args:
        tasks: name -> batcher, whose batches get `task` = the place of the name. Each keeps its own seed, rule and
            examples. mode, until, temperature: see above. steps: another length of the epoch. seed: of the order of tasks.

    A task that begins anew within an epoch does so as its next epoch, so that sampler schedules go on.

    Source: Conan-embedding (2024), cross-GPU batch balance, for "joint"; `Batch.shards` deals its negatives out. Paper 43.

    Raises:
        RivalsError: no task, a task without a batch, options out of range.

    >>> from rivals.data import Collection, Dataset, Judgements
    >>> from rivals.negatives.batching import Examples, Shuffled
    >>> judged = Judgements.build(range(6), range(6), [1] * 6, queries=6, documents=6)
    >>> examples = Examples(Dataset(Collection(list("abcdef")), Collection(list("uvwxyz")), judged))
    >>> both = TaskBalanced({"search": Shuffled(examples, 2), "pairs": Shuffled(examples, 3)})
    >>> [[(batch.task, len(batch)) for batch in step] for step in both][0], both.repeats
    ([(0, 2), (1, 3)], {'search': 0, 'pairs': 1})
    """

    def __init__(
        self,
        tasks: Mapping[str, Batcher[Batch]],
        *,
        mode: Mode = "joint",
        until: Literal["longest", "shortest"] = "longest",
        temperature: float = 1.0,
        steps: int | None = None,
        seed: int = 0,
    ) -> None:
        if mode not in ("joint", "proportional") or until not in ("longest", "shortest"):
            raise RivalsError(
                f"mode must be 'joint' or 'proportional', until 'longest' or 'shortest', not {mode!r} and {until!r}"
            )
        if not np.isfinite(temperature) or temperature <= 0:
            raise RivalsError(f"temperature must be a finite number above 0, not {temperature}")
        self.tasks, self.mode, self.seed = dict(tasks), mode, whole_number(seed, "seed", 0)
        if not self.tasks:
            raise RivalsError("TaskBalanced needs a task; give {name: batcher}")
        if len({id(batcher) for batcher in self.tasks.values()}) < len(self.tasks):
            raise RivalsError("two tasks have the same batcher; make one for each, since each keeps its own place")
        self.sizes: dict[str, int] = {}
        for name, batcher in self.tasks.items():
            batcher.set_epoch(0)
            self.sizes[name] = len(batcher)
            if not self.sizes[name]:
                raise RivalsError(f"task '{name}' has no batch; a step would lack it")
        lengths = np.array(list(self.sizes.values()))
        if mode == "joint":
            chosen = int(lengths.max() if until == "longest" else lengths.min())
            chosen = chosen if steps is None else whole_number(steps, "steps", 1)
            quota = np.full(len(lengths), chosen)
        else:
            chosen = int(lengths.sum()) if steps is None else whole_number(steps, "steps", 1)
            share = lengths ** (1 / temperature) / (lengths ** (1 / temperature)).sum()
            quota = np.floor(share * chosen).astype(np.int64)
            rest = np.argsort(quota - share * chosen, kind="stable")[: chosen - int(quota.sum())]
            quota[rest] += 1
        self.steps = chosen
        self.quota = dict(zip(self.sizes, map(int, quota), strict=True))
        self.temperature, self.until = float(temperature), until
        self._rounds = {name: max(-(-self.quota[name] // size), 1) for name, size in self.sizes.items()}
        self._round: dict[str, int] = {}
        self._next = self._start = 0
        self.set_epoch(0)

    @property
    def repeats(self) -> dict[str, int]:
        """How many of its batches each task gives a further time in an epoch, of its first epoch's number."""
        return {name: max(self.quota[name] - size, 0) for name, size in self.sizes.items()}

    @property
    def unseen(self) -> dict[str, int]:
        """How many of its batches each task does not give in an epoch, of its first epoch's number."""
        return {name: max(size - self.quota[name], 0) for name, size in self.sizes.items()}

    def __len__(self) -> int:
        return self.steps

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch, 0 or later."""
        self.epoch = whole_number(epoch, "epoch", 0)
        self._next = self._start = 0
        for name, batcher in self.tasks.items():
            self._round[name] = 0
            batcher.set_epoch(self.epoch * self._rounds[name])

    def _order(self) -> list[tuple[int, ...]]:
        """The tasks of every step of the epoch, by number."""
        if self.mode == "joint":
            return [tuple(range(len(self.tasks)))] * self.steps
        numbers = np.repeat(np.arange(len(self.tasks)), list(self.quota.values()))
        order: NDArray[np.int64] = np.random.default_rng([self.seed, _PART, self.epoch]).permutation(numbers)
        return [(number,) for number in order.tolist()]

    def __iter__(self) -> Iterator[tuple[Batch, ...]]:
        if self._start == 0:
            self.set_epoch(self.epoch)
        self._next, self._start = self._start, 0
        names = list(self.tasks)
        running = {name: iter(batcher) for name, batcher in self.tasks.items()}
        for step, numbers in enumerate(self._order()):
            if step < self._next:
                continue
            batches = tuple(self._take(names[number], number, step, running) for number in numbers)
            self._next = step + 1
            yield batches

    def _take(self, name: str, number: int, step: int, running: dict[str, Iterator[Batch]]) -> Batch:
        batch = next(running[name], None)
        if batch is None:
            self._round[name] += 1
            self.tasks[name].set_epoch(self.epoch * self._rounds[name] + self._round[name])
            running[name] = iter(self.tasks[name])
            batch = next(running[name], None)
            if batch is None:
                raise RivalsError(f"task '{name}' has no batch in its epoch {self._round[name]}; a step would lack it")
        return replace(batch, task=number, step=step)

    def options(self) -> dict[str, Any]:
        """Return what must be the same for a state to be gone on from, as JSON values."""
        return {
            "batcher": type(self).__name__,
            "tasks": self.sizes,
            "mode": self.mode,
            "until": self.until,
            "temperature": self.temperature,
            "steps": self.steps,
            "seed": self.seed,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, the number of steps given out, the tasks' own states, and the options."""
        return {
            "epoch": self.epoch,
            "step": self._next,
            "rounds": dict(self._round),
            "tasks": {name: batcher.state_dict() for name, batcher in self.tasks.items()},
            "options": self.options(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the last step that was given out.

        Raises:
            RivalsError: a state of other tasks or options.
        """
        check_options(state, self.options())
        self.set_epoch(int(state["epoch"]))
        step = whole_number(state["step"], "step", 0)
        if step > self.steps:
            raise RivalsError(f"the state stands at step {step}, but the epoch has {self.steps}")
        for name, batcher in self.tasks.items():
            batcher.load_state_dict(state["tasks"][name])
            self._round[name] = int(state["rounds"][name])
        self._next = self._start = step

    def __repr__(self) -> str:
        return f"TaskBalanced({', '.join(self.tasks)}; mode={self.mode!r}, {self.steps} steps)"
