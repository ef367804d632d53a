"""AR2: who learns when, from what, and that a broken-off duel ends the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rivals.errors import RivalsError
from rivals.losses.listwise import softmax_loss
from rivals.negatives import Ambiguous, Sampler, Uniform
from rivals.training import Negatives, Refresh, Together
from rivals.training.adversarial import AdversarialObjective
from rivals.training.loop import read_log
from rivals.training.query_batches import CandidateLists, QueryBatches
from rivals.training.ranker import frozen_scores
from rivals.training.schedules import Alternate
from tests.training.small_world import World, assert_same_after_breaks, surprise, train

TURNS: Any = {"period": 5, "first_steps": 2}


def duel(
    world: World, *, sampler: Sampler | None = None, dropout: float = 0.2, **options: Any
) -> tuple[AdversarialObjective, Together]:
    retriever, ranker = world.retriever(dropout=dropout), world.ranker(dropout=dropout)
    negatives = Negatives(retriever.search(world.dataset, 12), sampler or Uniform(4))
    turns = Alternate(["ranker", "retriever"], **TURNS)
    refresh = Refresh(negatives, lambda rows: retriever.search(world.dataset, 12, rows), every=turns.period)
    batches = QueryBatches(world.dataset, 6, negatives=negatives)
    return AdversarialObjective(retriever, ranker, batches, turns, **options), Together([turns, refresh])


def begun(objective: AdversarialObjective, phase: str) -> None:
    objective.turns.begin({"ranker": 0, "retriever": 2}[phase], 100)


@pytest.mark.parametrize("phase", ["ranker", "retriever"])
def test_only_the_model_at_work_gets_a_gradient(phase: str) -> None:
    objective, _ = duel(World())
    begun(objective, phase)
    objective.loss(objective.batches(0)[0], torch.Generator()).backward()
    learn = {
        name.partition(".")[0]
        for name, parameter in objective.model.named_parameters()
        if parameter.grad is not None and bool(parameter.grad.any())
    }
    assert learn == {phase}


def test_the_retriever_s_loss_by_hand() -> None:
    world = World()
    objective, _ = duel(world, dropout=0.0, adv_lambda=0.3, temperature=2.0)
    begun(objective, "retriever")
    batch = objective.batches(0)[0]
    lists = CandidateLists.of(batch)
    z, y = (frozen_scores(s, lists).double().numpy() for s in (objective.retriever, objective.ranker))
    log_p = np.logaddexp(z - np.logaddexp.reduce(z, 1, keepdims=True), math.log(1e-7))
    feedback = np.log(1 / (1 + np.exp(-(y[:, :1] - y))) + 1e-7)
    taught = np.exp(y / 2) / np.exp(y / 2).sum(1, keepdims=True)
    expected = 0.3 * (feedback * log_p).sum() - 0.7 * (taught * log_p).sum() / len(z)
    assert objective.loss(batch, torch.Generator()).item() == pytest.approx(expected, rel=1e-5)


def test_the_ranker_s_loss_is_list_wise_over_the_same_lists() -> None:
    objective, _ = duel(World(), dropout=0.0)
    begun(objective, "ranker")
    batch = objective.batches(0)[0]
    lists = CandidateLists.of(batch)
    expected = softmax_loss(frozen_scores(objective.ranker, lists), *lists.tensors(torch.device("cpu"))[:2])
    assert objective.loss(batch, torch.Generator()).item() == pytest.approx(float(expected), rel=1e-6)


def test_equal_rankers_give_the_card_s_number() -> None:
    """Two documents, all scores 0: 2 (ln 2)^2 a query."""
    world = World()
    objective, _ = duel(world, sampler=Uniform(1), adv_lambda=1.0)
    with torch.no_grad():
        for parameter in objective.model.parameters():
            parameter.zero_()
    world.queries[:] = 0
    begun(objective, "retriever")
    batch = objective.batches(0)[0]
    assert objective.loss(batch, torch.Generator()).item() == pytest.approx(6 * 2 * math.log(2) ** 2, rel=1e-5)
    assert 2 * math.log(2) ** 2 == pytest.approx(0.960906, abs=1e-6)


def test_the_ranker_judges_without_dropout_and_goes_on_with_it() -> None:
    objective, _ = duel(World(), dropout=0.5)
    seen: list[bool] = []
    objective.ranker.model.register_forward_hook(lambda module, *_: seen.append(module.training))
    for phase in ("retriever", "ranker"):
        begun(objective, phase)
        objective.loss(objective.batches(0)[0], torch.Generator())
    assert seen == [False, True]
    assert objective.ranker.model.training


def test_a_duel_takes_turns_and_mines_anew_each_period(tmp_path: Path) -> None:
    objective, regime = duel(World())
    train(lambda: (objective, regime), tmp_path, epochs=4, clip=2.0, warmup=0.0)
    log = read_log(tmp_path)
    phases = [line["phase"] for line in log if "loss" in line]
    assert phases == (["ranker"] * 2 + ["retriever"] * 3) * 2 + ["ranker"] * 2
    assert [line["step"] - 1 for line in log if "refresh" in line] == [5, 10]
    rates = [line["learning_rate"] for line in log if "loss" in line]
    assert rates[0] == rates[2] == max(rates)  # both clocks begin at their model's first step
    assert rates[1] == pytest.approx(0.02 * 5 / 6)  # and count its own steps
    assert rates[7] == pytest.approx(0.02 * 3 / 6)
    assert objective.query_batches.negatives is not None
    assert objective.query_batches.negatives.version == 2


def test_the_ranker_s_rate_is_a_tenth() -> None:
    objective, _ = duel(World())
    assert objective.rates == {"ranker.": 0.1}
    assert set(objective.clips_apart) == {"ranker.", "retriever."}
    assert objective.options["adv_lambda"] == 0.5


def test_both_learn() -> None:
    world = World()
    objective, regime = duel(world, dropout=0.0, ranker_rate=1.0)
    before = surprise(objective.retriever), surprise(objective.ranker)
    train(lambda: (objective, regime), epochs=20, learning_rate=0.03)
    assert surprise(objective.retriever) < before[0] - 0.5
    assert surprise(objective.ranker) < before[1] - 0.3


@pytest.mark.parametrize("host_of", ["uniform", "ambiguous"])
def test_broken_off_it_ends_the_same(tmp_path: Path, host_of: str) -> None:
    world = World()

    def build() -> Any:
        if host_of == "uniform":
            return duel(world)
        return duel(world, sampler=Ambiguous(4, a=0.5, b=-1.0), adv_lambda=0.0)

    breaks: Any = {"losses": (8,), "refreshes": (1,)} if host_of == "uniform" else {"losses": (7,)}
    assert_same_after_breaks(build, tmp_path, **breaks)


def test_the_host_draws_what_is_as_good_as_the_positive() -> None:
    """Paper 10: candidates near the positive's score are drawn, from scores of the same weights."""
    objective, _ = duel(World(), sampler=Ambiguous(1, a=50.0), adv_lambda=0.0)
    negatives = objective.query_batches.negatives
    assert negatives is not None
    run = negatives.run
    near = np.abs(
        run.score - np.repeat(np.fmax.reduceat(run.positive_score, run.positive_offsets[:-1]), np.diff(run.offsets))
    )
    drawn = negatives.draw(0)
    usable = run.label != 1
    hits = 0
    for query in range(len(run.queries)):
        rows = np.flatnonzero((run.query == query) & usable)
        hits += int(drawn.row[query, 0] in rows[np.argsort(near[rows])[:2]])
    assert hits > 0.8 * len(run.queries)


def test_mistakes_are_told() -> None:
    world = World()
    with pytest.raises(RivalsError, match="adv_lambda must lie in"):
        duel(world, adv_lambda=1.5)
    with pytest.raises(RivalsError, match="ranker_rate must be above 0"):
        duel(world, ranker_rate=0.0)
    objective, _ = duel(world)
    objective.turns = Alternate(["judge", "retriever"], **TURNS)
    objective.turns.begin(0, 10)
    with pytest.raises(RivalsError, match="the phases of this objective are 'ranker' and 'retriever', not 'judge'"):
        objective.loss(objective.batches(0)[0], torch.Generator())
    with pytest.raises(RivalsError, match="does not know the step"):
        train(lambda: (duel(world)[0], None), epochs=1)
    assert isinstance(objective.model, nn.ModuleDict)
