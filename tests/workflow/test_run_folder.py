"""The run folder: never written over, resumed with the same data only, and clear about damage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rivals.data import Collection, Dataset, Judgements
from rivals.errors import RivalsError, RunFolderError
from rivals.workflow import ExperimentConfig, RunFolder, run_experiment
from rivals.workflow.run_folder import fingerprints
from tests.workflow.small import environment


def dataset(*, last: str = "about fleas", relevance: float = 1.0, dev: int = 2) -> Dataset:
    queries = Collection(["q1", "q2", "q3", "q4"], ["cats?", "dogs?", "birds?", "fleas?"], name="query")
    documents = Collection(["a", "b", "c", "d"], ["about cats", "about dogs", "about birds", last])
    judgements = Judgements.build([0, 1, 2, 3], [0, 1, 2, 3], [1, 1, 1, relevance], queries=4, documents=4)
    rest = 5 - dev
    splits = {"train": np.array([0, 1]), "dev": np.array([dev]), "test": np.array([rest])}
    return Dataset(queries, documents, judgements, splits, "animals")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", ExperimentConfig(seed=5), dataset())


def test_a_new_folder_says_what_it_is(folder: RunFolder) -> None:
    about = folder.read_json("config.json")
    assert set(about) == {"config", "data", "versions", "git", "started"}
    assert about["data"]["sizes"] == {"queries": 4, "documents": 4, "judgements": 4, "train": 2, "dev": 1, "test": 1}
    assert about["versions"]["torch"]
    assert RunFolder.open(folder.path).config() == ExperimentConfig(seed=5)
    assert not folder.done("baselines")
    assert folder.seconds() == {}


def test_nothing_is_written_over(folder: RunFolder, tmp_path: Path) -> None:
    before = (folder.path / "config.json").read_bytes()
    with pytest.raises(RunFolderError, match=r"holds a run; .* --resume"):
        RunFolder.create(folder.path, ExperimentConfig(), dataset())
    assert (folder.path / "config.json").read_bytes() == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="not empty"):
        RunFolder.create(other, ExperimentConfig(), dataset())
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder.create(other / "thesis.tex", ExperimentConfig(), dataset())
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_and_one_a_kill_left_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / ".config.json.k3j2h1.tmp").write_text('{"config": {"mod')
    RunFolder.create(path, ExperimentConfig(), dataset())
    assert [inside.name for inside in path.iterdir()] == ["config.json"]


def test_opening_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="there is no folder"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match=r"is not a run folder \(it has no config.json\)"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [dataset(last="about ticks"), dataset(relevance=2.0), dataset(dev=3), replace(dataset(), name="beasts")],
    ids=["text", "relevance", "splits", "name"],
)
def test_other_data_is_refused_on_resume(folder: RunFolder, changed: Dataset) -> None:
    folder.check_data(dataset())
    with pytest.raises(RunFolderError, match="the data has changed"):
        folder.check_data(changed)
    with pytest.raises(RunFolderError, match="the data has changed"):
        run_experiment(ExperimentConfig(), changed, folder.path, resume=True)


def test_fingerprints_see_ids_and_their_order() -> None:
    data = dataset()
    turned = replace(data, queries=Collection(["q1", "q2", "q4", "q3"], data.queries.texts, name="query"))
    assert fingerprints(data) == fingerprints(dataset())
    assert fingerprints(data)["queries"] != fingerprints(turned)["queries"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"complete": 3}',
        '{"seconds": {"training": "long"}}',
        '{"running": {"stage": "x"}}',
        "\0",
    ],
)
def test_a_damaged_state_is_one_clear_error(folder: RunFolder, content: str) -> None:
    (folder.path / "state.json").write_text(content)
    for act in (folder.seconds, folder.recover, lambda: folder.done("training")):
        with pytest.raises(RunFolderError) as caught:
            act()
        assert "state.json is damaged" in str(caught.value)
        assert "delete it to do all stages again" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", "{}", '{"config": {"seed": "one"}}', '{"config": {"retriever": {"epochs": 0}}}']
)
def test_a_damaged_config_is_one_clear_error(folder: RunFolder, content: str) -> None:
    (folder.path / "config.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"config\.json is damaged") as caught:
        RunFolder.open(folder.path).config()
    assert "\n" not in str(caught.value)


def test_a_missing_part_says_to_resume(folder: RunFolder) -> None:
    with pytest.raises(RunFolderError, match=r"metrics\.json is missing; .* --resume"):
        folder.read_json("metrics.json")


def test_stages_stay_complete_and_their_seconds_add_up(folder: RunFolder) -> None:
    for seconds in (1.5, 2.25):
        folder.begin("baselines")
        folder.finish("baselines", seconds)
    assert folder.done("baselines")
    assert not folder.done("mining")
    assert folder.seconds() == {"baselines": 3.75}
    assert folder.read_json("state.json") == {
        "complete": ["baselines"],
        "seconds": {"baselines": 3.75},
        "running": None,
    }


def test_a_killed_stage_is_counted_and_not_complete(folder: RunFolder) -> None:
    folder.finish("mining", 2.0)
    folder.begin("training")
    state = folder.read_json("state.json")
    state["running"]["since"] -= 100
    folder.write_json("state.json", state)
    block = folder.vectors / "block.npz"
    block.parent.mkdir()
    block.write_bytes(b"work")
    sign_of_life = time.time() - 60
    for path in (folder.path, *folder.path.rglob("*")):
        os.utime(path, (sign_of_life, sign_of_life))
    folder.recover()
    assert not folder.done("training")
    assert folder.seconds()["mining"] == 2.0
    assert folder.seconds()["training"] == pytest.approx(40, abs=2)
    folder.begin("training")
    folder.finish("training", 5.0)
    folder.recover()
    assert folder.seconds()["training"] == pytest.approx(45, abs=2)


def test_leftovers_go_and_nothing_else(folder: RunFolder) -> None:
    kept = [
        folder.vectors / "a.npz",
        folder.retriever / "config.json",
        folder.path / "my notes.tmp",
        folder.path / ".hidden",
    ]
    gone = [
        folder.path / ".metrics.json.x1.tmp",
        folder.path / "models" / ".retriever.x2.tmp" / "model.safetensors",
        folder.path / ".index.x3.old" / "index" / "metadata.json",
        folder.vectors / ".b.npz.x4.tmp",
        folder.checkpoints / "best.safetensors.tmp",
        folder.checkpoints / ".step-00000004.x5.tmp" / "weights.safetensors",
    ]
    for path in (*kept, *gone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content")
    folder.recover()
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)
    assert not list(folder.path.rglob(".*.tmp"))
    assert not list(folder.path.rglob(".*.old"))


def test_two_processes_cannot_work_on_one_run(folder: RunFolder) -> None:
    attempt = (
        f"from rivals.workflow import RunFolder\nwith RunFolder.open({str(folder.path)!r}).locked():\n    print('in')"
    )

    def other() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", attempt], env=environment(), capture_output=True, text=True, check=False
        )

    with folder.locked():
        refused = other()
    assert "another process is working on" in refused.stderr.splitlines()[-1]
    assert refused.stdout == ""
    assert other().stdout == "in\n"


def test_data_without_a_split_leaves_no_folder(tmp_path: Path) -> None:
    data = dataset()
    for splits in ({}, {**data.splits, "dev": np.array([], dtype=np.int64)}):
        with pytest.raises(RivalsError, match=r"the data has no '(train|dev)' queries"):
            run_experiment(ExperimentConfig(), replace(data, splits=splits), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_json_is_whole_or_absent(folder: RunFolder) -> None:
    folder.write_json("latency.json", {"bm25": 1.0})
    with pytest.raises(TypeError):
        folder.write_json("latency.json", {"bm25": object()})
    assert json.loads((folder.path / "latency.json").read_text()) == {"bm25": 1.0}
    assert not list(folder.path.glob(".latency*"))
