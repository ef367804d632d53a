"""Regimes own time: which parameters train at a step, when negatives are made anew, and what is carried over.

The loop asks a regime before every step whether something must be refreshed, tells it after every step what happened, and keeps its
state in every checkpoint. A regime decides by the step's number and by its own state alone, so a run that was killed and resumed does
what the uninterrupted one does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rivals.errors import RivalsError


class Regime:
    """What never changes: every parameter trains at every step and nothing is refreshed. Subclasses change parts of it.

    >>> Regime().should_refresh(10), Regime().phase(10), Regime().trains("layer.weight", 10)
    (False, '', True)
    """

    def begin(self, step: int, total: int) -> None:
        """Take note that step `step` (from 0) of `total` comes next: before its refresh, its batches and its loss."""

    def phase(self, step: int) -> str:
        """Return the name of the phase that step `step` (from 0) belongs to; objectives may ask for it."""
        return ""

    def trains(self, parameter: str, step: int) -> bool:
        """Say whether the parameter of this name learns at this step; the others keep weights and optimiser state."""
        return True

    def clock(self, step: int, total: int) -> tuple[int, int]:
        """Return (step, total) as the learning rate's schedule counts them: a phase may have a schedule of its own."""
        return step, total

    def rate(self, step: int) -> float:
        """Return a factor on the learning rate of this step, beside the schedule."""
        return 1.0

    def should_refresh(self, step: int) -> bool:
        """Say whether `refresh` is due before step `step`."""
        return False

    def refresh(self, step: int) -> Mapping[str, Any]:
        """Make anew what is due; return what it cost and changed, JSON values for the training log."""
        return {}

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        """Take note of a step that is done; `values` holds its `loss`."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state to find again on resume, JSON values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""

    def save(self, folder: Path) -> None:
        """Write what is too large for `state_dict` into the checkpoint's folder, under names of its own."""

    def load(self, folder: Path) -> None:
        """Read it back, after `load_state_dict`."""


class Together(Regime):
    """Several regimes at once: a parameter trains if all let it, and each refreshes when its own turn comes.

    Raises:
        RivalsError: more than one of them has phases.

    >>> Together([Regime(), Regime()]).trains("weight", 0)
    True
    """

    def __init__(self, members: Sequence[Regime]) -> None:
        self.members = tuple(members)

    def begin(self, step: int, total: int) -> None:
        for member in self.members:
            member.begin(step, total)

    def phase(self, step: int) -> str:
        names = {name for member in self.members if (name := member.phase(step))}
        if len(names) > 1:
            raise RivalsError(
                f"step {step} is in several phases at once ({', '.join(sorted(names))}); one regime may have phases"
            )
        return names.pop() if names else ""

    def trains(self, parameter: str, step: int) -> bool:
        return all(member.trains(parameter, step) for member in self.members)

    def clock(self, step: int, total: int) -> tuple[int, int]:
        own = {clock for member in self.members if (clock := member.clock(step, total)) != (step, total)}
        return own.pop() if own else (step, total)

    def rate(self, step: int) -> float:
        return math.prod(member.rate(step) for member in self.members)

    def should_refresh(self, step: int) -> bool:
        return any(member.should_refresh(step) for member in self.members)

    def refresh(self, step: int) -> Mapping[str, Any]:
        done: dict[str, Any] = {}
        for member in self.members:
            if member.should_refresh(step):
                done |= member.refresh(step)
        return done

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        for member in self.members:
            member.on_step(step, values)

    def state_dict(self) -> dict[str, Any]:
        return {"members": [member.state_dict() for member in self.members]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for member, own in zip(self.members, state["members"], strict=True):
            member.load_state_dict(own)

    def save(self, folder: Path) -> None:
        for number, member in enumerate(self.members):
            (folder / f"regime-{number}").mkdir(exist_ok=True)
            member.save(folder / f"regime-{number}")

    def load(self, folder: Path) -> None:
        for number, member in enumerate(self.members):
            member.load(folder / f"regime-{number}")
