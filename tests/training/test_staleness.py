"""Negatives that move on when they have become easy: per query, on the check steps, and the same after an interruption."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivals.data import Collection, Run
from rivals.errors import RivalsError
from rivals.negatives import Top
from rivals.negatives.samplers_schedule import SlidingWindow
from rivals.training import Negatives
from rivals.training.loop import read_log
from rivals.training.query_batches import QueryBatches
from rivals.training.ranker import ScorerObjective
from rivals.training.scorers import pair_scores
from rivals.training.staleness import Staleness
from rivals.training.vector_scorers import VectorScorer
from tests.training.small_world import World, assert_same_after_breaks, train


def run_of(queries: int, candidates: int = 30) -> Run:
    names = Collection([f"q{i}" for i in range(queries)])
    documents = Collection([f"d{i}" for i in range(candidates)])
    return Run.build(
        names,
        documents,
        np.arange(queries + 1) * candidates,
        np.tile(np.arange(candidates), queries),
        np.tile(np.linspace(0.9, 0.1, candidates), queries),
    )


class Levels:
    """The model's score of each query's negatives, the same for all of them."""

    def __init__(self, *levels: float) -> None:
        self.now = np.array(levels)

    def __call__(self, query: Any, document: Any) -> Any:
        return self.now[query]


def drawn(negatives: Negatives) -> list[list[int]]:
    return negatives.draw(0).candidate.tolist()


def test_the_card_s_rule_query_by_query() -> None:
    negatives, levels = Negatives(run_of(4), SlidingWindow(5)), Levels(0.7, 0.7, 0.95, 0.7)
    regime = Staleness(negatives, levels)
    assert regime.refresh(0)["replaced"] == 0
    levels.now = np.array([0.60, 0.61, 0.81, 0.70])
    assert [step for step in range(1, 250) if regime.should_refresh(step)] == [100, 200]
    found = regime.refresh(100)
    assert (found["stale"], found["replaced"], found["version"]) == (1, 1, 1)
    assert found["mean"] == pytest.approx(np.mean([0.60, 0.61, 0.81, 0.70]))
    assert drawn(negatives) == [[10, 11, 12, 13, 14], *([[0, 1, 2, 3, 4]] * 3)]


def test_windows_go_down_the_list_until_its_end() -> None:
    negatives, levels = Negatives(run_of(1, 22), SlidingWindow(5)), Levels(0.7)
    regime = Staleness(negatives, levels, check=10)
    regime.refresh(0)
    seen = []
    for step in range(10, 60, 10):
        levels.now = levels.now * 0.8
        found = regime.refresh(step)
        seen.append((drawn(negatives)[0][0], found["replaced"], found["exhausted"]))
    assert seen == [(10, 1, 0), (15, 1, 1), (15, 0, 1), (15, 0, 1), (15, 0, 1)]
    assert negatives.version == 2


def test_nothing_is_stale_when_it_was_put_in() -> None:
    negatives = Negatives(run_of(2), SlidingWindow(3))
    regime = Staleness(negatives, Levels(0.5, -0.1), check=1)
    regime.refresh(0)
    assert regime.refresh(1)["stale"] == 0
    assert negatives.version == 0


def test_a_state_goes_on_query_by_query(tmp_path: Path) -> None:
    levels = Levels(0.7, 0.7)
    first = Staleness(Negatives(run_of(2), SlidingWindow(2)), levels, check=5)
    first.refresh(0)
    levels.now = np.array([0.3, 0.7])
    first.refresh(5)
    first.save(tmp_path)
    other = Staleness(Negatives(run_of(2), SlidingWindow(2)), levels, check=5)
    other.load_state_dict(first.state_dict())
    other.load(tmp_path)
    assert drawn(other.negatives) == drawn(first.negatives) == [[10, 11], [0, 1]]
    assert not other.should_refresh(6)
    levels.now = np.array([0.2, 0.5])
    found = [{k: v for k, v in regime.refresh(10).items() if k != "seconds"} for regime in (first, other)]
    assert found[0] == found[1]
    assert drawn(other.negatives) == drawn(first.negatives) == [[12, 13], [10, 11]]
    fresh = Staleness(Negatives(run_of(2), SlidingWindow(2)), levels)
    fresh.load_state_dict(Staleness(Negatives(run_of(2), SlidingWindow(2)), levels).state_dict())
    fresh.load(tmp_path)
    assert fresh.should_refresh(3)


def moving(world: World) -> tuple[ScorerObjective, Staleness]:
    towers = world.retriever(dropout=0.1)
    scorer = VectorScorer(towers.query, towers.document, similarity="cosine", scale=1.0)
    negatives = Negatives(world.run(30), SlidingWindow(3, offset=5))
    regime = Staleness(negatives, partial(pair_scores, scorer), check=3, ratio=1.02)
    return ScorerObjective(scorer, QueryBatches(world.dataset, 6, negatives=negatives)), regime


def test_in_training_negatives_move_on(tmp_path: Path) -> None:
    objective, regime = moving(World())
    train(lambda: (objective, regime), tmp_path, epochs=4, learning_rate=0.05)
    checks = [line for line in read_log(tmp_path) if "refresh" in line]
    assert [line["step"] - 1 for line in checks] == [0, 3, 6, 9]
    assert sum(line["refresh"]["replaced"] for line in checks) > 3
    assert regime.negatives.version >= 1


def test_broken_off_it_ends_the_same(tmp_path: Path) -> None:
    world = World()
    options: Any = {"epochs": 4, "learning_rate": 0.05}
    assert_same_after_breaks(lambda: moving(world), tmp_path, losses=(5, 8), refreshes=(2, 3), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"check": 0}, "check must be a whole number"),
        ({"ratio": 1.0}, "ratio must be above 1"),
        ({"floor": 0.0}, "floor must be above 0"),
    ],
)
def test_mistakes_are_told(options: Any, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        Staleness(Negatives(run_of(1), SlidingWindow(2)), Levels(0.5), **options)


def test_other_samplers_are_told() -> None:
    with pytest.raises(RivalsError, match=r"SlidingWindow as their sampler, not Top\(2\)"):
        Staleness(Negatives(run_of(1), Top(2)), Levels(0.5))
