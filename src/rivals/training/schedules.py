"""Regimes that own the calendar of a training: models in turns, one stage after another, effects that come on with time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rivals.errors import RivalsError
from rivals.losses.curriculum import CurriculumWeighting
from rivals.losses.progressive import ProgressiveInfoNCE, Schedule, progress_ramp
from rivals.training.regime import Regime


class Phases(Regime):
    """A regime with phases: `current` is that of the step that comes next, for objectives that do other things in each."""

    def __init__(self) -> None:
        self._step: int | None = None

    def begin(self, step: int, total: int) -> None:
        self._step = step

    @property
    def current(self) -> str:
        """The phase of the present step.

        Raises:
            RivalsError: no training goes on that has this regime.
        """
        if self._step is None:
            raise RivalsError(
                f"{type(self).__name__} does not know the step: give it to fit as regime=, alone or among Together"
            )
        return self.phase(self._step)


class Alternate(Phases):
    """Several models train in turns: the first for the first steps of each period, the next one for the rest.

    Of period N, the steps 0 to `first_steps` - 1 are the first model's, those up to N - 1 the second's, then it begins anew. Each
    model has a clock of its own, so its learning rate warms up and falls over its own steps; what does not learn keeps its optimiser
    state. Put `Refresh(..., every=period)` beside it for negatives mined anew at the end of each period:
    `Together([turns, Refresh(...)])`.

    Args:
        models: the names of two models, the phases' names. The parameters of one begin with its name and a dot, unless `prefixes`
            says otherwise; all others never learn.
        period: steps of a period. first_steps: how many of them are the first model's. AR2's script flips after the step that
            reaches 500, so 501 is its number, 500 that of its description.
        first: which model begins; the first named by default.
        prefixes: model -> beginnings of its parameters' names.

    Source: Zhang et al. 2022, AR2: a ranker and a retriever (paper 11).

    Raises:
        RivalsError: not two different names, a period not above first_steps, first_steps below 1, an unknown first or prefix.

    >>> turns = Alternate(["ranker", "retriever"], period=2000, first_steps=501)
    >>> [turns.phase(step) for step in (0, 500, 501, 1999, 2000)]
    ['ranker', 'ranker', 'retriever', 'retriever', 'ranker']
    >>> turns.clock(2000, 4000), turns.clock(501, 4000), turns.trains("ranker.head.weight", 501)
    ((501, 1002), (0, 2998), False)
    """

    def __init__(
        self,
        models: Sequence[str],
        *,
        period: int = 2000,
        first_steps: int = 501,
        first: str | None = None,
        prefixes: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        names = tuple(models)
        if isinstance(models, str) or len(names) != 2 or len(set(names)) != 2 or not all(names):
            raise RivalsError(f"Alternate takes the names of two models, not {models!r}")
        if first_steps < 1 or period <= first_steps:
            raise RivalsError(f"period must be above first_steps, and that at least 1; got {period} and {first_steps}")
        if first is not None and first not in names:
            raise RivalsError(f"first is '{first}', which is neither of {' and '.join(names)}")
        if unknown := set(prefixes or {}) - set(names):
            raise RivalsError(f"prefixes names '{min(unknown)}', which is neither of {' and '.join(names)}")
        self.models = names if first in (None, names[0]) else names[::-1]
        self.period, self.first_steps = period, first_steps
        self.prefixes = {name: tuple((prefixes or {}).get(name, (f"{name}.",))) for name in names}

    def phase(self, step: int) -> str:
        return self.models[step % self.period >= self.first_steps]

    def trains(self, parameter: str, step: int) -> bool:
        return parameter.startswith(self.prefixes[self.phase(step)])

    def clock(self, step: int, total: int) -> tuple[int, int]:
        return self._taken(step, self.phase(step)), self._taken(total, self.phase(step))

    def _taken(self, step: int, name: str) -> int:
        """How many of the first `step` steps are this model's."""
        whole, rest = divmod(step, self.period)
        first = whole * self.first_steps + min(rest, self.first_steps)
        return first if name == self.models[0] else step - first


@dataclass(frozen=True)
class Stage:
    """One part of a training.

    Args:
        name: the phase's name. steps: how many; None, of the last stage only, is all that are left.
        trains: beginnings of the names of parameters that learn; by default all do.
        regime: what goes on within it, with steps counted from the stage's first.
        rate: factor on the learning rate.

    >>> Stage("warm-up", 1000).trains
    ('',)
    """

    name: str
    steps: int | None = None
    trains: Sequence[str] = ("",)
    regime: Regime = field(default_factory=Regime)
    rate: float = 1.0


class Stages(Phases):
    """One stage after another, each with its own parameters, learning-rate clock and regime.

    A stage's regime counts steps from the stage's first one, and its clock, warm-up and fall included, runs over the stage alone.
    `Phased` gives each stage an objective of its own. A stage that training ends in is cut short.

    Source: Zhan et al. 2021: a warm-up, STAR, then ADORE for the query encoder alone (paper 29).

    Raises:
        RivalsError: no stage, names that repeat, steps below 1 or left out before the last stage, a rate not above 0; in training,
            stages that end before it does.

    >>> stages = Stages([Stage("star", 3), Stage("adore", trains=["query."], rate=0.05)])
    >>> [stages.phase(step) for step in (2, 3)], stages.clock(4, 10), stages.rate(4), stages.trains("document.weight", 4)
    (['star', 'adore'], (1, 7), 0.05, False)
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.stages = tuple(stages)
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names) or not all(names):
            raise RivalsError(f"stages need names, all different; got {names}")
        self._starts = [0]
        for stage in self.stages:
            last = stage is self.stages[-1]
            if (stage.steps is None and not last) or (stage.steps is not None and stage.steps < 1):
                raise RivalsError(f"stage '{stage.name}' needs its number of steps, 1 or more, not {stage.steps!r}")
            if not stage.rate > 0 or isinstance(stage.trains, str):
                raise RivalsError(
                    f"stage '{stage.name}' needs a rate above 0 and a list of names' beginnings as `trains`"
                )
            if not last:
                self._starts.append(self._starts[-1] + (stage.steps or 0))

    def at(self, step: int) -> tuple[int, int]:
        """Return the number of the stage that a step belongs to, and that stage's first step."""
        number = sum(step >= start for start in self._starts) - 1
        return number, self._starts[number]

    def begin(self, step: int, total: int) -> None:
        super().begin(step, total)
        number, start = self.at(step)
        length = self._length(number, total)
        if step - start >= length:
            raise RivalsError(
                f"the stages end at step {step}, but training has {total}; leave out the last one's steps"
            )
        self.stages[number].regime.begin(step - start, length)

    def phase(self, step: int) -> str:
        number, start = self.at(step)
        inner = self.stages[number].regime.phase(step - start)
        return f"{self.stages[number].name}/{inner}" if inner else self.stages[number].name

    def trains(self, parameter: str, step: int) -> bool:
        number, start = self.at(step)
        stage = self.stages[number]
        return parameter.startswith(tuple(stage.trains)) and stage.regime.trains(parameter, step - start)

    def clock(self, step: int, total: int) -> tuple[int, int]:
        number, start = self.at(step)
        return self.stages[number].regime.clock(step - start, self._length(number, total))

    def rate(self, step: int) -> float:
        number, start = self.at(step)
        return self.stages[number].rate * self.stages[number].regime.rate(step - start)

    def should_refresh(self, step: int) -> bool:
        number, start = self.at(step)
        return self.stages[number].regime.should_refresh(step - start)

    def refresh(self, step: int) -> Mapping[str, Any]:
        number, start = self.at(step)
        return self.stages[number].regime.refresh(step - start)

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        number, start = self.at(step)
        self.stages[number].regime.on_step(step - start, values)

    def state_dict(self) -> dict[str, Any]:
        return {stage.name: stage.regime.state_dict() for stage in self.stages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for stage in self.stages:
            stage.regime.load_state_dict(state[stage.name])

    def save(self, folder: Path) -> None:
        for number, stage in enumerate(self.stages):
            (folder / f"stage-{number}").mkdir(exist_ok=True)
            stage.regime.save(folder / f"stage-{number}")

    def load(self, folder: Path) -> None:
        for number, stage in enumerate(self.stages):
            stage.regime.load(folder / f"stage-{number}")

    def _length(self, number: int, total: int) -> int:
        steps, left = self.stages[number].steps, total - self._starts[number]
        return left if steps is None else min(steps, left)


class Progressive(Regime):
    """How far training is, from 0 at its first step towards 1, for losses that change on the way.

    `progress` is step / total, at most 1; `ramp` is it under the schedule (`progress_ramp`). Losses that keep their own count,
    `ProgressiveInfoNCE`, are told the step instead and their running level is kept in checkpoints. At step 0 nothing is on yet.

    Args:
        total: steps until progress is 1; None is the whole training. schedule: "linear", "cosine" or "step".
        losses: those whose count it keeps.

    Source: "Towards Robust Text Retrieval with Progressive Learning" (paper 87); the schedules are ours.

    Raises:
        RivalsError: total below 1, an unknown schedule.

    >>> clock = Progressive(total=100, schedule="cosine")
    >>> clock.begin(25, 400)
    >>> clock.progress, round(clock.ramp, 4)
    (0.25, 0.1464)
    """

    def __init__(
        self, *, total: int | None = None, schedule: Schedule = "linear", losses: Sequence[ProgressiveInfoNCE] = ()
    ) -> None:
        if total is not None and total < 1:
            raise RivalsError(f"total must be 1 or more, not {total}")
        self.total, self.schedule, self.losses = total, schedule, tuple(losses)
        self.progress = 0.0
        progress_ramp(self.progress, schedule)

    @property
    def ramp(self) -> float:
        """How much of an effect is on at the present step, in 0..1."""
        return progress_ramp(self.progress, self.schedule)

    def begin(self, step: int, total: int) -> None:
        length = self.total or total
        self.progress = min(1.0, step / length)
        for loss in self.losses:
            loss.total_steps = length
            loss.steps.fill_(step)

    def state_dict(self) -> dict[str, Any]:
        return {"progress": self.progress, "levels": [float(loss.positive_level) for loss in self.losses]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.progress = float(state["progress"])
        for loss, level in zip(self.losses, state["levels"], strict=True):
            loss.positive_level.fill_(level)


class Curriculum(Regime):
    """Lets the time of a `CurriculumWeighting` go on: one unit every `every` steps.

    Args:
        weighting: which the objective weighs its examples by; its `end` is counted in these units.
        every: steps a unit; the release's epoch is 32 batches of 16 examples. 1 counts steps.

    Source: MacAvaney et al. 2020, training curricula for open domain answer re-ranking (paper 48).

    Raises:
        RivalsError: every below 1.

    >>> curriculum = Curriculum(weighting := CurriculumWeighting(end=20), every=32)
    >>> curriculum.begin(160, 1000)
    >>> weighting.time, weighting.finished
    (5.0, False)
    """

    def __init__(self, weighting: CurriculumWeighting, *, every: int = 32) -> None:
        if every < 1:
            raise RivalsError(f"every must be 1 or more, not {every}")
        self.weighting, self.every = weighting, every

    def begin(self, step: int, total: int) -> None:
        self.weighting.time = float(step // self.every)

    def state_dict(self) -> dict[str, Any]:
        return self.weighting.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weighting.load_state_dict(dict(state))


__all__ = ["Alternate", "Curriculum", "Phases", "Progressive", "Stage", "Stages"]
