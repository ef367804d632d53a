"""The replication room: verdicts, results, the table, and every script for a few seconds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from papers.__main__ import load, main, scripts
from papers.common import results
from papers.common.claim import Above, Higher, Paper, compare
from papers.common.table import index, table

EVER = {"holds", "does not hold here", "cannot be told apart"}


@pytest.mark.parametrize("number", scripts())
def test_every_script_runs(number: int, shared_data: Path) -> None:
    paper = load(number)
    figures = paper.run(0, True)
    assert figures
    assert all(math.isfinite(value) for value in figures.values()), figures
    for expected in paper.expects:
        assert math.isfinite(expected.difference(figures))


@pytest.mark.parametrize(
    ("differences", "margin", "verdict"),
    [
        ([0.10, 0.11, 0.12], 0.0, "holds"),
        ([0.10, 0.11, 0.12], 0.2, "does not hold here"),
        ([-0.10, -0.11, -0.12], 0.0, "does not hold here"),
        ([0.10, -0.11, 0.12], 0.0, "cannot be told apart"),
        ([0.10, 0.11], 0.0, "cannot be told apart"),
        ([0.0, 0.0, 0.0], 0.0, "does not hold here"),
    ],
)
def test_verdicts(differences: list[float], margin: float, verdict: str) -> None:
    seeds = [{"a": 0.5 + difference, "b": 0.5} for difference in differences]
    found = compare(Higher("a", "b", margin), seeds)
    assert found.verdict == verdict
    assert found.mean == pytest.approx(np.mean(differences))
    assert compare(Above("d", margin), [{"d": difference} for difference in differences]).verdict == verdict


def test_the_interval_is_students() -> None:
    found = compare(Above("d"), [{"d": 1.0}, {"d": 2.0}, {"d": 3.0}])
    half = 4.302652729911275 / math.sqrt(3)  # t with two degrees of freedom, standard deviation 1
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))


def test_a_result_is_what_was_measured(tmp_path: Path) -> None:
    paper = Paper(41, "a beats b", (Higher("a", "b"),), "toy", lambda seed, smoke: {"a": seed + 1.0, "b": seed + 0.5})
    found = results.run(paper, range(3))
    path = results.save(found, tmp_path)
    assert path.name == "041.json"
    assert json.loads(path.read_text()) == found == results.load_all(tmp_path)[41]
    assert found["figures"] == {"a": [1.0, 2.0, 3.0], "b": [0.5, 1.5, 2.5]}
    assert found["verdict"] == "holds"
    assert found["comparisons"][0]["text"] == "a > b"


def test_the_index_holds_every_paper_and_the_table_is_fresh() -> None:
    papers = index()
    assert sorted(papers) == list(range(1, 120))
    for row in papers.values():
        assert set(row) == {"number", "title", "part", "claim"}
        assert all(str(value).strip() for value in row.values())
    assert (results.ROOM / "README.md").read_text(encoding="utf-8") == table(), "run `python -m papers table`"


def test_stored_results_belong_to_scripts() -> None:
    known = scripts()
    for number, result in results.load_all().items():
        assert number in known
        assert result["verdict"] in EVER
        assert len(result["seeds"]) >= 3
        assert result["claim"] == load(number).claim, f"run paper {number} again: its claim changed"


def test_unknown_papers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "999"])
    assert "no script for '999'" in capsys.readouterr().err
