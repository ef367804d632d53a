"""Calendars of training: whose turn it is, which stage, how far; each learning rate on its own clock."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.losses.curriculum import CurriculumWeighting
from rivals.losses.progressive import ProgressiveInfoNCE
from rivals.training import LoopConfig, Regime, Together, fit
from rivals.training.loop import read_log
from rivals.training.phased import Phased
from rivals.training.schedules import Alternate, Curriculum, Phases, Progressive, Stage, Stages
from tests.training.tiny import weights


class Two:
    """Two maps; the loss asks for both."""

    def __init__(self, steps: int = 10) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model: nn.Module = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 1)})
        self.rows = torch.randn(steps, 4, 3, generator=torch.Generator().manual_seed(1))
        self.snapshots: list[dict[str, Tensor]] = []

    def batches(self, epoch: int) -> list[Tensor]:
        return list(self.rows)

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        self.snapshots.append(weights(self.model))
        return (self.model["b"](torch.tanh(self.model["a"](batch))) - 1).square().mean()  # type: ignore[index]

    def evaluate(self) -> float:
        return 0.0


def moved(objective: Two) -> list[set[str]]:
    """Which parts each step changed."""
    states = [*objective.snapshots, weights(objective.model)]
    return [
        {name[0] for name in after if not torch.equal(before[name], after[name])} for before, after in pairwise(states)
    ]


def rates(folder: Path) -> list[float]:
    return [line["learning_rate"] for line in read_log(folder) if "loss" in line]


CONFIG: Any = {"evaluations": 0, "learning_rate": 0.1, "checkpoint_seconds": 0, "precision": "float32", "warmup": 0.0}


# ------------------------------------------------------------------------------------------------------------ in turns


def test_the_turns_of_the_release() -> None:
    turns = Alternate(["ranker", "retriever"], period=2000, first_steps=501)
    table = {1: "ranker", 500: "ranker", 501: "ranker", 502: "retriever", 2000: "retriever", 2001: "ranker"}
    assert {step: turns.phase(step - 1) for step in table} == table
    assert Alternate(["ranker", "retriever"], period=2000, first_steps=500).phase(500) == "retriever"


def test_the_turns_are_those_of_the_release_s_state_machine() -> None:
    def release(steps: int, period: int, share: int) -> list[str]:
        mode, found = "ranker", []
        for t in range(1, steps + 1):
            found.append(mode)
            r = t % period
            mode = "retriever" if r > share else ("ranker" if 0 < r < share or r == 0 else mode)
        return found

    turns = Alternate(["ranker", "retriever"], period=20, first_steps=6)
    assert [turns.phase(step) for step in range(90)] == release(90, 20, 5)


@given(period=st.integers(2, 12), first=st.integers(1, 11), total=st.integers(1, 60))
def test_each_model_s_clock_counts_its_own_steps(period: int, first: int, total: int) -> None:
    if first >= period:
        return
    turns = Alternate(["x", "y"], period=period, first_steps=first)
    seen = {"x": 0, "y": 0}
    last: dict[str, tuple[int, int]] = {}
    for step in range(total):
        name = turns.phase(step)
        last[name] = turns.clock(step, total)
        assert last[name][0] == seen[name]
        seen[name] += 1
    assert {name: clock[1] for name, clock in last.items()} == {name: n for name, n in seen.items() if n}


def test_only_the_model_at_work_learns_and_each_rate_falls_over_its_own_steps(tmp_path: Path) -> None:
    objective, turns = Two(), Alternate(["a", "b"], period=5, first_steps=2)
    fit(objective, LoopConfig(**CONFIG), folder=tmp_path, regime=turns)
    assert moved(objective) == [{"a"}, {"a"}, {"b"}, {"b"}, {"b"}] * 2
    expected = {"a": iter([0.1, 0.075, 0.05, 0.025]), "b": iter(0.1 * (6 - i) / 6 for i in range(6))}
    assert rates(tmp_path) == pytest.approx([next(expected[turns.phase(step)]) for step in range(10)])
    assert turns.current == "b"


def test_the_second_may_begin_and_prefixes_may_be_given() -> None:
    turns = Alternate(["a", "b"], period=4, first_steps=1, first="b", prefixes={"a": ["head.", "tail."]})
    assert [turns.phase(step) for step in range(5)] == ["b", "a", "a", "a", "b"]
    assert [turns.trains(name, 1) for name in ("head.w", "tail.w", "a.w", "b.w")] == [True, True, False, False]


def test_who_was_never_told_the_step_says_so() -> None:
    with pytest.raises(RivalsError, match="give it to fit as regime="):
        _ = Alternate(["a", "b"], period=4, first_steps=1).current


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (["a"], {}, "two models"),
        (["a", "a"], {}, "two models"),
        ("ab", {}, "two models"),
        (["a", "b"], {"period": 501}, "period must be above first_steps"),
        (["a", "b"], {"first_steps": 0}, "at least 1"),
        (["a", "b"], {"first": "c"}, "first is 'c'"),
        (["a", "b"], {"prefixes": {"c": ["c."]}}, "prefixes names 'c'"),
    ],
)
def test_impossible_turns_are_told(models: Any, options: Any, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        Alternate(models, **options)


def test_a_phase_in_which_nothing_learns_is_told() -> None:
    with pytest.raises(RivalsError, match="no parameter learns at step 3"):
        fit(Two(), LoopConfig(**CONFIG), regime=Alternate(["a", "c"], period=4, first_steps=2))


# -------------------------------------------------------------------------------------------------------------- stages


class Noted(Regime):
    """Writes down what it is asked."""

    def __init__(self, every: int = 0) -> None:
        self.begun: list[tuple[int, int]] = []
        self.refreshed: list[int] = []
        self.done: list[int] = []
        self.every = every

    def begin(self, step: int, total: int) -> None:
        self.begun.append((step, total))

    def should_refresh(self, step: int) -> bool:
        return self.every > 0 and step % self.every == 0

    def refresh(self, step: int) -> Mapping[str, Any]:
        self.refreshed.append(step)
        return {"at": step}

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        self.done.append(step)

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.done = list(state["done"])


def test_stages_have_their_own_clock_rate_parameters_and_regime(tmp_path: Path) -> None:
    objective, second = Two(), Noted(every=3)
    stages = Stages([Stage("both", 4), Stage("head", trains=["b."], regime=second, rate=0.5)])
    fit(objective, LoopConfig(**CONFIG), folder=tmp_path, regime=stages)
    assert moved(objective) == [{"a", "b"}] * 4 + [{"b"}] * 6
    first = [0.1 * (4 - i) / 4 for i in range(4)]
    assert rates(tmp_path) == pytest.approx([*first, *(0.05 * (6 - i) / 6 for i in range(6))])
    assert second.begun == [(i, 6) for i in range(6)]
    assert second.refreshed == [0, 3]
    assert second.done == list(range(6))
    phases = [line["phase"] for line in read_log(tmp_path) if "loss" in line]
    assert phases == ["both"] * 4 + ["head"] * 6
    restored = Stages([Stage("both", 4), Stage("head", regime=Noted())])
    restored.load_state_dict(stages.state_dict())
    assert restored.stages[1].regime.done == list(range(6))  # type: ignore[attr-defined]


def test_stages_may_hold_turns() -> None:
    stages = Stages([Stage("warm", 3), Stage("duel", regime=Alternate(["a", "b"], period=4, first_steps=1))])
    assert [stages.phase(step) for step in range(3, 8)] == ["duel/a", "duel/b", "duel/b", "duel/b", "duel/a"]
    assert stages.clock(7, 13) == (1, 3)
    assert [stages.trains("a.w", step) for step in range(3, 6)] == [True, False, False]


def test_a_training_that_ends_within_a_stage_cuts_it_short() -> None:
    stages = Stages([Stage("one", 4), Stage("two", 100)])
    assert stages.clock(5, 8) == (1, 4)
    stages.begin(7, 8)
    with pytest.raises(RivalsError, match="the stages end at step 104, but training has 200"):
        stages.begin(104, 200)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "need names"),
        ([Stage("a", 1), Stage("a")], "all different"),
        ([Stage("a"), Stage("b")], "stage 'a' needs its number"),
        ([Stage("a", 0)], "stage 'a' needs its number"),
        ([Stage("a", rate=0.0)], "rate above 0"),
        ([Stage("a", trains="head.")], "list of names' beginnings"),
    ],
)
def test_impossible_stages_are_told(stages: Any, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        Stages(stages)


# --------------------------------------------------------------------------------------------------- progress and time


def test_progress_follows_the_step() -> None:
    clock = Progressive(schedule="cosine")
    found = []
    for step in (0, 50, 99):
        clock.begin(step, 100)
        found.append((clock.progress, round(clock.ramp, 4)))
    assert found == [(0.0, 0.0), (0.5, 0.5), (0.99, 0.9998)]
    short = Progressive(total=10)
    short.begin(30, 100)
    assert (short.progress, short.ramp) == (1.0, 1.0)


def test_losses_that_count_for_themselves_are_told_the_step_and_keep_their_level() -> None:
    loss = ProgressiveInfoNCE(1, mode="curricular", momentum=0.5)
    clock = Progressive(losses=[loss])
    clock.begin(30, 120)
    loss(torch.tensor([[0.8, 0.2]]), torch.tensor([[1.0, 0.0]]))
    assert float(loss.positive_level) == pytest.approx(0.4)
    clock.begin(30, 120)  # of two batches in one step, the second is as far as the first
    assert loss.progress == 0.25
    other = ProgressiveInfoNCE(1, mode="curricular")
    Progressive(losses=[other]).load_state_dict(clock.state_dict())
    assert torch.equal(other.positive_level, loss.positive_level)


def test_a_curriculum_s_time_is_a_matter_of_the_step() -> None:
    weighting = CurriculumWeighting(end=2)
    regime = Curriculum(weighting, every=4)
    times = []
    for step in range(10):
        regime.begin(step, 10)
        times.append(weighting.time)
    assert times == [0] * 4 + [1] * 4 + [2] * 2
    assert weighting.finished
    other = CurriculumWeighting(end=2)
    Curriculum(other, every=4).load_state_dict(regime.state_dict())
    assert other.time == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Progressive(total=0), "total must be 1"),
        (lambda: Progressive(schedule="root"), "schedule"),  # type: ignore[arg-type]
        (lambda: Curriculum(CurriculumWeighting(), every=0), "every must be 1"),
    ],
)
def test_impossible_clocks_are_told(make: Any, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        make()


# ------------------------------------------------------------------------------------------------- what the loop does


def test_regimes_together_hear_of_each_step_and_multiply_their_rates(tmp_path: Path) -> None:
    class Half(Noted):
        def rate(self, step: int) -> float:
            return 0.5

    members = [Half(), Half(every=4)]
    fit(Two(), LoopConfig(**CONFIG), folder=tmp_path, regime=Together(members))
    assert members[0].begun == members[1].begun == [(i, 10) for i in range(10)]
    assert rates(tmp_path)[0] == pytest.approx(0.025)


@pytest.mark.parametrize("apart", [(), ("a.",), ("a.", "b.")])
def test_parts_are_clipped_by_themselves(apart: tuple[str, ...]) -> None:
    class Steep(Two):
        clips_apart = apart
        norms: dict[str, float]

        def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
            steep = 100 * sum(p.sum() for p in self.model["a"].parameters())  # type: ignore[index]
            return steep + 10 * sum(p.sum() for p in self.model["b"].parameters())  # type: ignore[index,no-any-return]

    objective = Steep(1)
    fit(objective, LoopConfig(**CONFIG, clip=1.0))
    norm = {
        part: float(torch.cat([p.grad.reshape(-1) for p in objective.model[part].parameters()]).norm())  # type: ignore[index,union-attr]
        for part in "ab"
    }
    whole = (100**2 * 12 + 10**2 * 4) ** 0.5
    if apart:
        assert norm == pytest.approx({"a": 1.0, "b": 1.0}, rel=1e-4)
    else:
        assert norm == pytest.approx({"a": 100 * 12**0.5 / whole, "b": 20 / whole}, rel=1e-4)


# ------------------------------------------------------------------------------------------- an objective for each phase


class Numbered:
    """Batches that say whose and which they are."""

    model = nn.Linear(1, 1)
    clips_apart = ("bias",)

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count = name, count
        self.options, self.rates = {"size": 3}, {"weight": 0.5}

    def batches(self, epoch: int) -> list[str]:
        return [f"{self.name}{epoch}.{i}" for i in range(self.count)]

    def loss(self, batch: Any, generator: torch.Generator) -> Tensor:
        assert batch.startswith(self.name)
        return self.model(torch.ones(1)).sum()  # type: ignore[no-any-return]


def test_each_phase_s_objective_goes_through_its_own_epochs() -> None:
    stages = Stages([Stage("a", 3), Stage("b", regime=Alternate(["x", "y"], period=2, first_steps=1))])
    both = Phased({"a": Numbered("a", 2), "b": Numbered("b", 3)}, Numbered.model, stages, evaluate=lambda: 0.5)
    found = []
    assert len(both.batches(0)) == 3
    for step in range(9):
        stages.begin(step, 9)
        epoch, place = divmod(step, 3)
        (batch,) = both.batches(epoch)[place : place + 1]
        found.append(batch)
        both.loss(batch, torch.Generator())
    assert found == ["a0.0", "a0.1", "a1.0", "b1.0", "b1.1", "b1.2", "b2.0", "b2.1", "b2.2"]
    assert list(both.batches(0)) == ["b0.0", "b0.1", "b0.2"]
    assert (both.options["a"], both.rates, set(both.clips_apart)) == ({"size": 3}, {"weight": 0.5}, {"bias"})
    assert both.evaluate() == 0.5
    with pytest.raises(IndexError):
        both.batches(0)[3]


def test_phases_without_an_objective_score_or_parts_are_told() -> None:
    class Named(Phases):
        def phase(self, step: int) -> str:
            return "late"

    turns = Named()
    turns.begin(0, 1)
    both = Phased({"early": Numbered("e", 1)}, Numbered.model, turns)
    with pytest.raises(RivalsError, match="phase 'late' has no objective; there are early"):
        both.loss("e", torch.Generator())
    with pytest.raises(RivalsError, match="needs a held-out score"):
        both.evaluate()
    with pytest.raises(RivalsError, match="in one piece"):
        Phased({"late": Numbered("e", 1)}, Numbered.model, turns).parts("e")
    with pytest.raises(RivalsError, match="an objective for every phase"):
        Phased({}, Numbered.model, turns)
