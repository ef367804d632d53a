"""The large mining benchmark in a tiny form: it mines for real, and finds what a full scan finds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import mining_large


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_tiny_run_is_complete(dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "figures.json"
    asked = ["--queries", "30", "--documents", "700", "--dtype", dtype, "--threads", "1"]
    assert mining_large.main([*asked, "--folder", str(tmp_path), "--json", str(out)]) == 0
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == figures
    assert figures["recall_of_the_list"] == 1.0
    assert figures["negatives_drawn"] == 210
    assert 0 < figures["share_marked"] < 1
    assert figures["memory"]["peak_mib"] >= figures["memory"]["before_mib"] > 0
    assert set(figures["product"]["bound_over_mining"]) >= {"float32"}
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]  # vectors and run are gone


def test_vectors_depend_on_the_seed_alone_and_queries_lie_near_their_document(tmp_path: Path) -> None:
    one, queries, positive = mining_large.make_vectors(tmp_path / "a", 40, 900, "float32", 3)
    same, _, _ = mining_large.make_vectors(tmp_path / "b", 40, 900, "float32", 3)
    other, _, _ = mining_large.make_vectors(tmp_path / "c", 40, 900, "float32", 4)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
    scores = queries @ np.asarray(one).T
    best = scores.argmax(axis=1)
    assert (np.abs(best - positive) <= 1).all()  # itself, or its near copy


def test_options_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    for bad in (["--documents", "100"], ["--queries", "0"], ["--folder", "/nowhere/at/all"]):
        with pytest.raises(SystemExit):
            mining_large.main(bad)
    assert "does not exist" in capsys.readouterr().err
