"""Mining in another process: markers, versions, chunks, and a training that takes over what it finds."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rivals.data import Run
from rivals.errors import DataError, RivalsError
from rivals.negatives import Uniform
from rivals.training import LoopConfig, Negatives, checkpoint, fit
from rivals.training.checkpoint import load_weights
from rivals.training.exchange import Follow, generate_negatives, newest_negatives, publish_negatives
from rivals.training.loop import read_log
from rivals.training.query_batches import QueryBatches
from rivals.training.ranker import ScorerObjective
from tests.training.small_world import Broken, World, assert_same_after_breaks, train


def test_only_what_has_its_marker_counts(tmp_path: Path) -> None:
    run = World().run()
    assert newest_negatives(tmp_path) is None
    publish_negatives(run, tmp_path, 1, step=10)
    publish_negatives(run, tmp_path, 2, step=20, ndcg=0.5)
    (tmp_path / "negatives-000002.json").rename(tmp_path / "hidden")
    assert newest_negatives(tmp_path) == (1, tmp_path / "negatives-000001.parquet")
    (tmp_path / "hidden").rename(tmp_path / "negatives-000002.json")
    assert newest_negatives(tmp_path) == (2, tmp_path / "negatives-000002.parquet")
    marker = json.loads((tmp_path / "negatives-000002.json").read_text())
    assert marker == {"version": 2, "candidates": len(run), "step": 20, "ndcg": 0.5}
    (tmp_path / "negatives-000002.parquet").unlink()
    with pytest.raises(DataError, match="its marker is there, but the run is not"):
        newest_negatives(tmp_path)


def setting(world: World, folder: Path, *, poll: int = 2) -> tuple[ScorerObjective, Follow]:
    negatives = Negatives(world.run(), Uniform(3))
    objective = ScorerObjective(world.retriever(), QueryBatches(world.dataset, 6, negatives=negatives))
    return objective, Follow(negatives, folder, poll=poll)


def flipped(run: Run) -> Run:
    return run.rescored(-run.score, scorer="other")


def test_a_training_takes_over_the_newest_version(tmp_path: Path) -> None:
    world = World()
    objective, follow = setting(world, tmp_path / "exchange", poll=2)
    new = flipped(world.run())
    real = follow.on_step

    def on_step(step: int, values: Any) -> None:
        real(step, values)
        if step in (2, 3):
            publish_negatives(new, tmp_path / "exchange", step)  # 2 and 3 are there before step 4

    follow.on_step = on_step  # type: ignore[method-assign]
    train(lambda: (objective, follow), tmp_path / "run")
    taken = [(line["step"] - 1, line["refresh"]["version"]) for line in read_log(tmp_path / "run") if "refresh" in line]
    assert taken == [(4, 3)]
    assert follow.negatives.run.score.tolist() == new.score.tolist()
    assert (follow.negatives.run.version, follow.negatives.run.created_step) == (3, 4)


def test_with_the_same_files_a_broken_off_training_ends_the_same(tmp_path: Path) -> None:
    world = World()
    publish_negatives(flipped(world.run()), tmp_path / "exchange", 1)
    assert_same_after_breaks(lambda: setting(world, tmp_path / "exchange"), tmp_path, losses=(2, 7))


def trained(world: World, folder: Path, steps: int) -> None:
    objective = ScorerObjective(
        world.retriever(), QueryBatches(world.dataset, 6, negatives=Negatives(world.run(), Uniform(3)))
    )
    config = LoopConfig(
        epochs=2, max_steps=6, learning_rate=0.02, evaluations=0, checkpoint_seconds=0, precision="float32"
    )
    real, calls = objective.loss, []

    def loss(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) > steps:
            raise Broken
        return real(*arguments)

    objective.loss = loss  # type: ignore[method-assign]
    with contextlib.suppress(Broken):
        fit(objective, config, folder=folder, resume=False)


def test_a_generator_mines_each_checkpoint_once_and_the_queries_in_turn(tmp_path: Path) -> None:
    world = World()
    scorer, asked, seen = world.retriever(seed=9), [], []
    run = world.run()

    def mine(rows: np.ndarray) -> Run:
        asked.append(rows.tolist())
        seen.append(scorer.model.training)
        return (
            world.run()
            .take(rows)
            .rescored(np.arange(len(world.run().take(rows)), dtype=np.float32), scorer=run.scorer, feature="before")
        )

    looks = 0

    def until() -> bool:
        nonlocal looks
        looks += 1
        if looks in (2, 4):
            trained(world, tmp_path / "run", looks)
        return looks > 5

    versions = list(
        generate_negatives(
            tmp_path / "run", tmp_path / "exchange", scorer.model, mine, run, chunks=2, poll_seconds=0.0, until=until
        )
    )
    assert versions == [1, 2]
    assert asked == [list(range(0, 18, 2)), list(range(1, 18, 2))]
    assert seen == [False, False]
    assert scorer.model.training
    first, second = (json.loads((tmp_path / "exchange" / f"negatives-00000{v}.json").read_text()) for v in (1, 2))
    assert (first["step"], second["step"]) == (2, 4)
    assert {"seconds", "stayed", "kept"} <= first.keys()
    objective = ScorerObjective(world.retriever(), QueryBatches(world.dataset, 6, negatives=Negatives(run, Uniform(3))))
    assert load_weights(tmp_path / "run", objective.model) == 4
    for mine_, theirs in zip(objective.model.parameters(), scorer.model.parameters(), strict=True):
        assert torch.equal(mine_, theirs)
    assert load_weights(tmp_path / "run", objective.model, after=4) is None
    follow = setting(world, tmp_path / "exchange")[1]
    assert follow.should_refresh(2)
    assert follow.refresh(2)["version"] == 2


def test_a_checkpoint_dropped_while_it_is_read_counts_as_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer drops it between the look at its state and the opening of its weights."""
    world = World()
    train(lambda: setting(world, tmp_path / "exchange"), tmp_path / "run")
    newest = max((tmp_path / "run").glob("step-*"))
    look = checkpoint._valid_state

    def look_and_drop(path: Path) -> Any:
        found = look(path)
        if path == newest:
            (path / checkpoint.WEIGHTS).unlink(missing_ok=True)
        return found

    monkeypatch.setattr(checkpoint, "_valid_state", look_and_drop)
    assert load_weights(tmp_path / "run", world.retriever().model) is None


def _generate(folder: Path) -> None:
    torch.set_num_threads(1)
    world = World()
    scorer = world.retriever()
    for _ in generate_negatives(
        folder / "run",
        folder / "exchange",
        scorer.model,
        lambda rows: scorer.search(world.dataset, 12, rows),
        scorer.search(world.dataset, 12),
        chunks=1,
        poll_seconds=0.02,
        until=(folder / "stop").exists,
    ):
        pass


def test_two_processes_meet_in_a_folder(tmp_path: Path) -> None:
    world = World()
    other = multiprocessing.get_context("fork").Process(target=_generate, args=(tmp_path,))
    other.start()
    try:
        scorer = world.retriever()
        negatives = Negatives(scorer.search(world.dataset, 12), Uniform(3))
        objective = ScorerObjective(scorer, QueryBatches(world.dataset, 6, negatives=negatives))
        follow = Follow(negatives, tmp_path / "exchange", poll=1)
        real = follow.on_step

        def on_step(step: int, values: Any) -> None:
            real(step, values)
            ends = time.monotonic() + 60
            while step == 3 and newest_negatives(tmp_path / "exchange") is None and time.monotonic() < ends:
                time.sleep(0.02)

        follow.on_step = on_step  # type: ignore[method-assign]
        train(lambda: (objective, follow), tmp_path / "run")
    finally:
        (tmp_path / "stop").touch()
        other.join(60)
    assert other.exitcode == 0
    assert negatives.version >= 1
    assert any("refresh" in line for line in read_log(tmp_path / "run"))


def test_mistakes_are_told(tmp_path: Path) -> None:
    world = World()
    run, model = world.run(), world.retriever().model
    with pytest.raises(RivalsError, match="poll must be 1 or more"):
        setting(world, tmp_path, poll=0)
    with pytest.raises(RivalsError, match="chunks must be 1 or more"):
        next(generate_negatives(tmp_path, tmp_path, model, lambda rows: run, run, chunks=0))
    trained(world, tmp_path / "run", 2)
    with pytest.raises(RivalsError, match="1 queries for 18 rows"):
        next(generate_negatives(tmp_path / "run", tmp_path / "x", model, lambda rows: run.take([0]), run, chunks=1))
    with pytest.raises(RivalsError, match="weights of another model"):
        next(generate_negatives(tmp_path / "run", tmp_path / "x", world.ranker().model, lambda rows: run, run))
