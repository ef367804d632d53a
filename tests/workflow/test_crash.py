"""Kills in the middle of training, of the second stage and of the evaluation: the resumed run ends with the same bits."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.workflow.small import ROOT, write_small


@pytest.fixture(scope="module")
def crash_test() -> ModuleType:
    spec = importlib.util.spec_from_file_location("crash_test", ROOT / "scripts" / "crash_test.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["crash_test"] = module
    spec.loader.exec_module(module)
    return module


def test_three_kills_change_no_bit(crash_test: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = write_small(tmp_path / "small").train
    stages = ("training", "second stage", "evaluation")
    summary = crash_test.crash_test(words, tmp_path, kills=3, per_run=3, seed=2, stages=stages)
    assert summary.passed, summary
    assert summary.kills + summary.finished_before_the_kill == 3
    assert summary.kills >= 1
    assert summary.runs == 1
    assert summary.files_compared >= 12
    names = crash_test.checksums(tmp_path / "uninterrupted")
    assert "models/retriever/model.safetensors" in names
    assert "models/second_stage/ranker.safetensors" in names or "models/second_stage/second_stage.json" in names
    assert {f"runs/{name}.trec" for name in ("bm25", "untrained", "fusion", "retriever", "two-stage")} <= set(names)


def test_a_difference_and_a_failure_are_seen(crash_test: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "bm25.trec").write_text("q Q0 d 1 0.5 bm25\n")
    before = crash_test.checksums(tmp_path)
    (tmp_path / "runs" / "bm25.trec").write_text("q Q0 d 1 0.6 bm25\n")
    assert crash_test.checksums(tmp_path) != before
    log = tmp_path / "log"
    with pytest.raises(RuntimeError, match=r"status 2: rivals: "):
        crash_test.finish(crash_test.start(["train", "--resume", str(tmp_path / "none")], log), log)
    assert not crash_test.Summary("x", different=["y"]).passed
    assert json.dumps(crash_test.Summary("x").__dict__)
