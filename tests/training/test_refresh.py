"""Negatives mined anew while training: when, with which weights, for which queries, and the same after an interruption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rivals.data import Collection, Dataset, Run
from rivals.errors import RivalsError
from rivals.models import Encoder
from rivals.negatives import PositiveAware, Top
from rivals.retrieve import Dense
from rivals.training import (
    CachedGradients,
    LoopConfig,
    Negatives,
    Refresh,
    Regime,
    RetrieverConfig,
    Together,
    train_retriever,
)
from rivals.training.loop import read_log
from rivals.training.refresh import movement
from tests.models.tiny import write_tiny_bert
from tests.training.tiny import assert_same_weights, small_sample, weights


def lists_of(scores: list[list[float]]) -> Run:
    queries, documents = Collection([f"q{i}" for i in range(len(scores))]), Collection(list("abcd"))
    return Run.build(queries, documents, np.arange(len(scores) + 1) * 4, [0, 1, 2, 3] * len(scores), np.ravel(scores))


def hardest(negatives: Negatives) -> list[int]:
    return negatives.draw(0).candidate[:, 0].tolist()


def test_chunks_take_turns_and_the_others_keep_their_run() -> None:
    first = lists_of([[4, 3, 2, 1]] * 5)
    negatives, asked = Negatives(first, Top(1)), []

    def mine(rows: np.ndarray) -> Run:
        asked.append(rows.tolist())
        return lists_of([[1, 2, 3, 4]] * len(rows)).replace(queries=first.queries.take(rows), documents=first.documents)

    regime = Refresh(negatives, mine, every=10, chunks=2)
    assert [step for step in range(9, 31) if regime.should_refresh(step) and regime.refresh(step)] == [10, 20, 30]
    assert asked == [[0, 2, 4], [1, 3], [0, 2, 4]]
    assert negatives.run.queries.ids.tolist() == first.queries.ids.tolist()
    regime = Refresh(negatives := Negatives(first, Top(1)), mine, every=10, chunks=2)
    regime.refresh(10)
    assert hardest(negatives) == [3, 0, 3, 0, 3]
    assert (negatives.version, negatives.run.version, negatives.run.created_step) == (1, 1, 10)


def test_lag_mines_with_the_weights_of_the_refresh_before() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    seen: list[float] = []

    def mine(rows: np.ndarray) -> Run:
        seen.append(float(model.weight.detach()))
        return lists_of([[1, 2, 3, 4]])

    regime = Refresh(Negatives(lists_of([[1, 2, 3, 4]]), Top(1)), mine, every=5, lag=1, model=model)
    for step, weight in ((0, 0.5), (5, 1.5), (10, 2.5)):
        with torch.no_grad():
            model.weight.fill_(weight)
        if step:
            regime.refresh(step)
            assert float(model.weight.detach()) == weight
    assert seen == [pytest.approx(regime_start := seen[0]), 1.5]
    assert regime_start not in (1.5, 2.5)


def test_movement_tells_what_stayed_and_how_hard_it_is() -> None:
    before, after = lists_of([[4, 3, 2, 1]]), lists_of([[0.1, 0.2, 0.3, 0.4]])
    after = after.mark(after.rank == 0, "too close")
    moved = movement(before, after)
    assert moved["stayed"] == 1.0
    assert moved["kept"] == pytest.approx(0.2)
    assert (moved["marked"], moved["marked_before"]) == (0.25, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every and chunks"),
        ({"every": 1, "lag": 2}, "lag must be 0"),
        ({"every": 1, "lag": 1}, "needs the model"),
    ],
)
def test_mistakes_are_told(options: dict[str, int], message: str) -> None:
    negatives = Negatives(lists_of([[1, 2, 3, 4]]), Top(1))
    with pytest.raises(RivalsError, match=message):
        Refresh(negatives, lambda rows: negatives.run, **options)  # type: ignore[arg-type]


def test_mining_other_queries_is_told() -> None:
    negatives = Negatives(lists_of([[1, 2, 3, 4]] * 2), Top(1))
    with pytest.raises(RivalsError, match="1 queries for 2 rows"):
        Refresh(negatives, lambda rows: negatives.run.take([0]), every=1).refresh(1)


class Broken(Exception):
    """An interruption in the middle of mining."""


def train(
    folder: Path, start: Path, data: tuple[Dataset, Dataset], *, lag: int, chunks: int, resume: bool, broken: int = 0
) -> tuple[Encoder, Refresh]:
    encoder = Encoder.load(start, device="cpu", dtype="float32")
    calls = 0

    def mine(rows: np.ndarray) -> Run:
        nonlocal calls
        calls += 1
        if calls == broken:
            raise Broken
        return PositiveAware(relative=0.05)(
            Dense(encoder, data[0].documents, show_progress=False)(data[0].take(rows), 5)
        )

    negatives = Negatives(mine(np.arange(len(data[0].queries))), Top(2))
    regime = Refresh(negatives, mine, model=encoder, every=4, lag=lag, chunks=chunks)
    loop = LoopConfig(epochs=2, learning_rate=1e-3, evaluations=2, checkpoint_seconds=0, precision="float32")
    config = RetrieverConfig(batch_size=8, negatives=2, loop=loop, max_document_tokens=24, max_query_tokens=16)
    train_retriever(
        encoder, data[0], config, negatives=negatives, dev=data[1], folder=folder, resume=resume, regime=regime,
        executor=CachedGradients(),
    )  # fmt: skip
    return encoder, regime


@pytest.mark.parametrize(("lag", "chunks"), [(0, 1), (1, 2)])
def test_broken_off_while_mining_and_resumed_it_ends_with_the_same_weights(
    tmp_path: Path, lag: int, chunks: int
) -> None:
    start, data = write_tiny_bert(tmp_path / "start"), small_sample(40, 8)
    whole, regime = train(tmp_path / "whole", start, data, lag=lag, chunks=chunks, resume=False)
    assert regime.negatives.version == 2
    with pytest.raises(Broken):
        train(tmp_path / "broken", start, data, lag=lag, chunks=chunks, resume=False, broken=3)
    resumed, again = train(tmp_path / "broken", start, data, lag=lag, chunks=chunks, resume=True)
    assert_same_weights(weights(resumed), weights(whole))
    assert again.negatives.version == 2
    logs = [
        [
            {k: v for k, v in line["refresh"].items() if k != "seconds"}
            for line in read_log(tmp_path / name)
            if "refresh" in line
        ]
        for name in ("whole", "broken")
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 2


def test_frozen_parameters_stay_and_phases_are_logged(tmp_path: Path) -> None:
    class Bias(Regime):
        def trains(self, parameter: str, step: int) -> bool:
            return parameter.endswith("bias")

        def phase(self, step: int) -> str:
            return "early" if step < 2 else "late"

    start, data = write_tiny_bert(tmp_path / "start"), small_sample(24, 8)
    encoder = Encoder.load(start, device="cpu", dtype="float32")
    before = weights(encoder)
    loop = LoopConfig(learning_rate=1e-2, evaluations=0, precision="float32", checkpoint_seconds=0, weight_decay=0.1)
    regime = Together([Bias(), Regime()])
    train_retriever(encoder, data[0], RetrieverConfig(batch_size=8, loop=loop), folder=tmp_path / "run", regime=regime)
    moved = {name for name, value in weights(encoder).items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.endswith("bias") for name in moved)
    assert [line["phase"] for line in read_log(tmp_path / "run")] == ["early", "early", "late"]


def test_two_regimes_with_phases_are_one_too_many() -> None:
    class Phased(Regime):
        def __init__(self, name: str) -> None:
            self.name = name

        def phase(self, step: int) -> str:
            return self.name

    assert Together([Phased("a"), Regime()]).phase(0) == "a"
    with pytest.raises(RivalsError, match="several phases at once"):
        Together([Phased("a"), Phased("b")]).phase(0)
