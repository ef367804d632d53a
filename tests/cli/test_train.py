"""`rivals train`: a whole experiment on the user's files, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from rivals.cli import main
from rivals.data import load_run
from rivals.models import Encoder
from rivals.retrieve import Index
from rivals.workflow import ExperimentConfig, RunFolder, load_config
from tests.workflow.small import Small, command, environment, rivals

SYSTEMS = ("bm25", "untrained", "fusion", "retriever", "two-stage")


def test_it_says_what_it_did_and_what_comes_next(trained: tuple[Path, str]) -> None:
    folder, said = trained
    assert "60 queries (train 36, dev 10, test 14)" in said
    for part in (
        "Mined negatives",
        "suspected false negatives",
        "Trained the retriever",
        "Second stage on dev",
        "chosen",
    ):
        assert part in said, part
    for name in SYSTEMS:
        assert re.search(rf"{name}: \d+\.\d ms per query", said), name
    assert "…" not in said.split("Second stage on dev")[-1], "the table of results must not be cut"
    assert re.search(rf'rivals search {re.escape(str(folder))} ["\']?\S.*["\']?\n', said)
    assert f"rivals serve {folder}\n" in said


def test_every_file_of_the_run_folder_is_there_and_parses(finished: Path) -> None:
    def read(name: str) -> dict:
        return json.loads((finished / name).read_text(encoding="utf-8"))

    about = read("config.json")
    assert set(about) == {"config", "data", "versions", "git", "started"}
    assert about["data"]["sizes"]["test"] == 14
    config = RunFolder.open(finished).config()
    assert config.seed == 3
    assert config.retriever.batch_size == 8
    stages = ["baselines", "mining", "training", "indexing", "second stage", "evaluation", "report"]
    state = read("state.json")
    assert state["complete"] == stages
    assert all(seconds > 0 for seconds in state["seconds"].values())
    assert set(read("metrics.json")["systems"]) == set(SYSTEMS)
    assert set(read("latency.json")) == set(SYSTEMS)
    assert read("mining.json")["queries"] == 36
    assert set(read("second_stage.json")) == {"chosen", "dev_scores", "seconds"}
    training = read("training.json")
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, training["steps"] + 1))
    assert [line["member"] for line in lines if "dev" in line] == [0, 0, 1, 1]
    for name in SYSTEMS:
        run = load_run(finished / "runs" / f"{name}.trec")
        assert len(run.queries) <= 14
        assert np.bincount(run.query).max() <= (40 if name == "two-stage" else 20)  # of both first stages
    judged = [line.split() for line in (finished / "runs" / "test.qrels").read_text().splitlines()]
    assert {len(line) for line in judged} == {4}
    index = Index.load(finished / "index")
    assert len(index.documents) == 120
    assert index.documents.table["topic"].to_pylist()[0] in {"0", "1", "2"}
    assert not list(finished.rglob(".*"))


def test_the_report_opens_offline(finished: Path) -> None:
    whole = (finished / "report.html").read_text(encoding="utf-8")
    page = re.sub(
        r"(<script\b[^>]*>).*?</script>", r"\1", whole, flags=re.DOTALL
    )  # the tags, without the programs in them
    tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)\s*=\s*[\"']?([^\"'>\s]+)", page)
    assert [where for where in tags if not where.startswith(("data:", "#"))] == []
    assert "@import" not in page
    assert json.loads((finished / "report.json").read_text(encoding="utf-8"))["title"]
    assert "two-stage" in whole


def test_sentence_transformers_gives_the_same_vectors(finished: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["What causes flu?", "the cat sat on a mat", "fever " * 60]
    theirs = SentenceTransformer(str(finished / "models" / "retriever"), device="cpu").encode(
        texts, normalize_embeddings=True
    )
    ours = Encoder.load(finished / "models" / "retriever", device="cpu", dtype="float32").encode(
        texts, progress=False, normalize=True
    )
    assert (theirs * ours).sum(1).min() >= 0.9999


def test_training_changed_the_model_and_not_the_one_it_began_with(finished: Path, small: Small) -> None:
    from safetensors.numpy import load_file

    before = load_file(small.model / "model.safetensors")
    after = load_file(finished / "models" / "retriever" / "model.safetensors")
    assert any(not np.array_equal(before[name], after[name]) for name in before.keys() & after.keys())


def test_print_config_is_a_config(small: Small, tmp_path: Path) -> None:
    done = rivals(*small.train, "--seed", "9", "--print-config")
    assert done.returncode == 0, done.stderr
    (tmp_path / "printed.toml").write_text(done.stdout)
    config = load_config(tmp_path / "printed.toml")
    assert (config.seed, config.candidates, config.device) == (9, 20, "cpu")
    assert config.data.documents == str(small.documents)
    assert config.model == str(small.model)
    done = rivals("train", "--print-config")
    (tmp_path / "printed.toml").write_text(done.stdout)
    assert load_config(tmp_path / "printed.toml") == ExperimentConfig()


def hear_interrupts() -> None:
    """Undo what a shell does to its background jobs, whose children are born deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_interrupt_then_resume_from_elsewhere(small: Small, finished: Path, tmp_path: Path) -> None:
    """Ctrl-C once while it trains: status 130, one line, and either command goes on and ends as if nothing had been."""
    for attempt in range(3):  # on a loaded machine the short training may be over before anyone looks
        folder = tmp_path / f"run{attempt}"
        words = [word.replace(str(small.documents.parent), ".") for word in (*small.train, "--output", str(folder))]
        process = subprocess.Popen(
            command(*words),
            cwd=small.documents.parent,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hear_interrupts,
        )
        deadline = time.monotonic() + 200
        while not stage_running(folder, "training") and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        if process.returncode != 0:
            break
    assert process.returncode == 130, errors
    assert errors.splitlines() == [f"rivals: interrupted; continue with: rivals train --resume {folder}"]
    assert "training" not in RunFolder.open(folder).read_json("state.json")["complete"]
    spent = sum(RunFolder.open(folder).seconds().values())
    done = rivals("quickstart", "--resume", folder, "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "with what was done before" in done.stdout
    for name in ("models/retriever/model.safetensors", "models/second_stage/second_stage.json", "runs/two-stage.trec"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name
    assert sum(RunFolder.open(folder).seconds().values()) > spent


def stage_running(folder: Path, stage: str) -> bool:
    try:
        running = json.loads((folder / "state.json").read_text())["running"]
    except (OSError, ValueError):
        return False
    return bool(running) and running["stage"] == stage


def test_a_resume_fills_what_a_kill_left_open(finished: Path, tmp_path: Path) -> None:
    """A kill between the outputs of a stage and its mark in state.json, and one right after config.json was written."""
    folder, bare = tmp_path / "run", tmp_path / "bare"
    shutil.copytree(finished, folder)
    state = json.loads((folder / "state.json").read_text())
    state["complete"] = ["baselines", "mining", "training"]
    (folder / "state.json").write_text(json.dumps(state))
    (folder / ".metrics.json.abc.tmp").write_text("{")
    (folder / "metrics.json").unlink()
    shutil.rmtree(folder / "runs")
    bare.mkdir()
    shutil.copy(finished / "config.json", bare)
    for resumed in (folder, bare):
        in_process("train", "--resume", str(resumed), "--quiet")
        assert (
            RunFolder.open(resumed).read_json("state.json")["complete"]
            == RunFolder.open(finished).read_json("state.json")["complete"]
        )
        assert files_of(resumed) == files_of(finished)
    seconds = [RunFolder.open(place).seconds()["second stage"] for place in (folder, finished)]
    assert seconds[0] > seconds[1], "the seconds of all sessions add up"
    weights = "models/retriever/model.safetensors"
    assert (folder / weights).read_bytes() == (finished / weights).read_bytes()


def files_of(folder: Path) -> set[str]:
    """The files of a run, but for encoded blocks, whose names are hashes."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("vectors/")}


def in_process(*words: str) -> None:
    """Run a command to its good end in this process, where the heavy modules are loaded already."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in (0, None)


def test_ids_that_trec_cannot_hold(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Document ids with blanks: everything works, and the runs are kept as Parquet."""
    for name in ("documents", "pairs"):
        text = getattr(small, name).read_text(encoding="utf-8")
        field = '"id": "' if name == "documents" else '"document_id": "'
        (tmp_path / f"{name}.jsonl").write_text(text.replace(field, field + "answer "), encoding="utf-8")
    settings = small.config.read_text().replace("epochs = 2", "epochs = 1")
    (tmp_path / "short.toml").write_text(settings.replace("[second_stage]", '[second_stage]\nkind = "none"'))
    folder = tmp_path / "run"
    data = ["--documents", str(tmp_path / "documents.jsonl"), "--pairs", str(tmp_path / "pairs.jsonl")]
    options = ["--model", str(small.model), "--config", str(tmp_path / "short.toml"), "--device", "cpu", "--quiet"]
    in_process("train", *data, *options, "--output", str(folder))
    assert "saved as Parquet" in capsys.readouterr().out
    assert len(load_run(folder / "runs" / "retriever.parquet")) > 0
    assert not (folder / "models" / "second_stage").exists()
    assert os.path.getsize(folder / "report.html") > 10_000
