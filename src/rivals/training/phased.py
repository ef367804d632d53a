"""One training with several objectives: each phase of a regime has its own batches and loss over the same model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.training.executor import Separable, Vectors
from rivals.training.held_out import HeldOut, held_out_score
from rivals.training.loop import Objective
from rivals.training.schedules import Phases


class Phased:
    """The objective whose batches and losses are those of the present phase's objective.

    Each member goes through its own epochs one after another, whatever the others' lengths; an epoch of the whole is as long as that
    of the longest member. Held-out scores must mean the same in every phase, so there is one `evaluate`.

    Args:
        members: phase -> objective; their models are parts of `model`.
        model: the module that holds all parameters, under the names that the phases' prefixes tell apart.
        turns: the regime with the phases; the same object, or `Together` with it, goes to `fit`.
        evaluate: held-out score of the present weights, higher is better; None where nothing is evaluated.

    Raises:
        RivalsError: no member; in training, a phase without one.

    >>> from rivals.training.schedules import Stage, Stages
    >>> class Sums:
    ...     model = nn.Linear(1, 1)
    ...     def __init__(self, name, count): self.name, self.count = name, count
    ...     def batches(self, epoch): return [f"{self.name}{epoch}.{i}" for i in range(self.count)]
    >>> stages = Stages([Stage("a", 3), Stage("b")])
    >>> both = Phased({"a": Sums("a", 2), "b": Sums("b", 3)}, Sums.model, stages)
    >>> for step in range(4):
    ...     stages.begin(step, 4); print(list(both.batches(step // 3)[step % 3 : step % 3 + 1]))
    ['a0.0']
    ['a0.1']
    ['a1.0']
    ['b1.0']
    """

    def __init__(
        self,
        members: Mapping[str, Any],
        model: nn.Module,
        turns: Phases,
        *,
        evaluate: HeldOut | None = None,
    ) -> None:
        if not members:
            raise RivalsError("Phased needs an objective for every phase; give {phase: objective}")
        self.members, self.model, self.turns = dict(members), model, turns
        self._evaluate = evaluate
        self._length = max(len(member.batches(0)) for member in self.members.values())
        self.options = {name: getattr(member, "options", {}) for name, member in self.members.items()}
        self.rates: dict[str, float] = {}
        for member in self.members.values():
            self.rates |= getattr(member, "rates", {})
        self.clips_apart = tuple(
            part for member in self.members.values() for part in getattr(member, "clips_apart", ())
        )

    @property
    def present(self) -> Objective:
        """The objective of the present phase."""
        name = self.turns.current.partition("/")[0]
        if name not in self.members:
            raise RivalsError(f"phase '{name}' has no objective; there are {', '.join(self.members)}")
        found: Objective = self.members[name]
        return found

    def batches(self, epoch: int) -> Sequence[Any]:
        """Return as many batches as the longest member's epoch has, made when they are asked for, in the present phase."""
        return _Window(self, epoch * self._length, self._length)

    def loss(self, batch: Any, generator: torch.Generator) -> Tensor:
        """Return the present objective's loss."""
        return self.present.loss(batch, generator)

    def parts(self, batch: Any) -> Sequence[Callable[[], Vectors]]:
        """Return the present objective's parts, for `CachedGradients`."""
        return self._separable().parts(batch)

    def joined(self, batch: Any, vectors: Sequence[Vectors], generator: torch.Generator) -> Tensor:
        """Return the present objective's loss from its parts."""
        return self._separable().joined(batch, vectors, generator)

    def evaluate(self) -> float:
        """Return the held-out score."""
        return held_out_score(self._evaluate)

    def _separable(self) -> Separable:
        present = self.present
        if not isinstance(present, Separable):
            raise RivalsError(
                f"the objective of phase '{self.turns.current}' computes its loss in one piece; train with the plain executor"
            )
        return present


class _Window(Sequence[Any]):
    """The batches numbered from `start`, counted over all epochs of whichever objective is at work when they are read."""

    def __init__(self, owner: Phased, start: int, length: int) -> None:
        self._owner, self._start, self._length = owner, start, length

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(self._length))]
        if not -self._length <= place < self._length:
            raise IndexError(place)
        member = self._owner.present
        epoch, own = divmod(self._start + place % self._length, len(member.batches(0)))
        return member.batches(epoch)[own]

    def __iter__(self) -> Iterator[Any]:
        return (self[place] for place in range(self._length))


__all__ = ["Phased"]
