"""The recorded vectors of the papers that have an adapter, and the runner itself."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.golden.__main__ import main
from tests.golden.adapters import ADAPTERS
from tests.golden.runner import relative_error, run_file, run_folder

CASE: dict[str, Any] = {
    "name": "equal scores",
    "inputs": {"scores": [[0.0, 0.0]], "relevance": [[1.0, 0.0]]},
    "params": {"loss": "softmax"},
    "output": math.log(2),
    "grad": {"scores": [[-0.5, 0.5]]},
}


def write(folder: Path, paper: int, *cases: dict[str, Any]) -> Path:
    path = folder / f"{paper:03d}.json"
    path.write_text(json.dumps({"paper": paper, "cases": list(cases)}))
    return path


@pytest.mark.parametrize("paper", ADAPTERS)
def test_recorded_vectors(vectors: Path, paper: int) -> None:
    paths = list(vectors.glob(f"{paper:03d}-*.json"))
    assert paths
    for path in paths:
        outcome = run_file(path)
        assert outcome.status == "pass", str(outcome)


def test_nothing_recorded_fails(vectors: Path) -> None:
    outcomes = run_folder(vectors)
    assert [str(outcome) for outcome in outcomes if outcome.status == "FAIL"] == []
    assert all("no adapter for paper" in o.detail for o in outcomes if o.status == "unsupported")


def test_the_lines_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, 6, CASE)
    write(tmp_path, 9999, CASE)
    assert main([str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("pass 006.json: 1 cases")
    assert second == "unsupported 9999.json: no adapter for paper 9999 yet"
    write(tmp_path, 6, CASE | {"output": math.log(2) * (1 + 1e-5)})
    assert main([str(tmp_path)]) == 1
    assert "FAIL 006.json: largest relative error 1e-05 (equal scores, output)" in capsys.readouterr().out
    assert main([str(tmp_path / "none")]) == 2
    assert main([]) == 2


def test_the_command_runs_as_a_module(tmp_path: Path) -> None:
    write(tmp_path, 6, CASE | {"output": 0.0})
    command = [sys.executable, "-m", "tests.golden", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("FAIL 006.json")


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ({"grad": {"scores": [[-0.5, 0.4]]}}, "gradient of scores"),
        ({"grad": {"bias": [0.0]}}, "gives none"),
        ({"output": [math.log(2)]}, "inf"),
        ({"params": {"loss": "unheard of"}}, "KeyError"),
        ({"inputs": {"scores": [[0.0, 0.0]], "relevance": [[-1.0, 0.0]]}}, "relevance must be"),
    ],
)
def test_what_differs_fails(tmp_path: Path, changed: dict[str, Any], detail: str) -> None:
    outcome = run_file(write(tmp_path, 6, CASE, CASE | changed))
    assert outcome.status == "FAIL"
    assert detail in outcome.detail


def test_a_damaged_or_empty_file_fails(tmp_path: Path) -> None:
    path = tmp_path / "006.json"
    path.write_text("{")
    assert run_file(path).status == "FAIL"
    assert run_file(write(tmp_path, 6)).status == "FAIL"


def test_relative_error() -> None:
    assert relative_error([100.0, 1.0], [100.0, 1.001]) == pytest.approx(1e-3, rel=1e-2)
    assert relative_error([1e9, 1e-9], [1e9, 0.0]) < 1e-9  # next to a billion this is nothing
    assert relative_error(0.0, 1e-17) < 1e-9
    assert relative_error([1, 2], [1, 2]) == 0
    assert relative_error(math.nan, math.nan) == 0
    assert relative_error({"a": 1.0, "more": 2.0}, {"a": 1.0}) == 0
    for found, recorded in [([1], [1, 2]), ([1, 2], [1, 3]), (math.nan, 1.0), ({}, {"a": 1.0}), ("x", 1.0)]:
        assert relative_error(found, recorded) == math.inf
