"""The mining audit: its counts, statistics and examples, in print and as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from rivals.errors import DataError
from rivals.negatives import Duplicates, KnownPositives, MiningAudit, PositiveAware, Top
from rivals.negatives.audit import _Scores


@pytest.fixture(scope="module")
def audit(make_run):
    texts = ["yes", "Yes", "indeed", "no", "never", "perhaps"]
    run = make_run([[0.8, 0.81, 0.9, 0.5, 0.4, 0.3], [0.3, 0.4, 0.5, 0.6, 0.7, 0.2]], [[0], [5]], texts=texts)
    run = PositiveAware(relative=0.05)(Duplicates()(KnownPositives()(run)))
    return MiningAudit.of(
        run, Top(4).draw(run, np.random.default_rng(0)), steps=("matrix", "Top(4)"), notes=("a note",)
    )


def test_counts(audit):
    assert (audit.queries, audit.proposed, audit.wanted) == (2, 12, 8)
    assert (audit.marked, audit.kept, audit.drawn, audit.unfilled) == (9, 3, 3, 5)
    assert (audit.without_survivor, audit.without_survivor_ids, audit.without_positive) == (1, ("q1",), 0)
    # q0: d000 is the positive, d001 its copy; these and d002 score above 0.76. q1: all score above 0.19, "yes" twice.
    assert audit.reasons["known positive"] == (2, 0)
    assert audit.reasons["positive-aware relative 0.05"] == (9, 5)
    assert audit.reasons["same text as a positive"].marked == 1
    assert audit.positive_below_median == 0.5
    assert audit.suspects == 6  # d002 of q0 and all five of q1; the copy of the positive is no mere suspect


def test_scores(audit):
    assert audit.scores["positives"].mean == pytest.approx(0.5)
    assert (audit.scores["kept"].median, audit.scores["drawn"].count) == (pytest.approx(0.4), 3)
    assert (audit.scores["candidates"].lowest, audit.scores["candidates"].highest) == (
        pytest.approx(0.3),
        pytest.approx(0.9),
    )
    assert audit.scores["candidates"].count == audit.scores["kept"].count + audit.scores["marked"].count == 10
    assert sum(audit.histogram["marked"]) == audit.scores["marked"].count
    assert len(audit.histogram["edges"]) == len(audit.histogram["kept"]) + 1


def test_examples_are_one_a_query_farthest_above_first(audit):
    assert [(e.query_id, e.document_id) for e in audit.examples] == [("q1", "d004"), ("q0", "d002")]
    example = audit.examples[1]
    assert (example.document, example.positive, example.query) == ("indeed", "yes", None)
    assert example.reasons == ("positive-aware relative 0.05",)


def test_print(audit):
    text = str(audit)
    for part in ("matrix >> Top(4)", "known positive", "drawn", "5 unfilled", "0.900 d002: indeed", "note: a note"):
        assert part in text
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(audit)
    shown = console.export_text()
    for part in ("matrix >> Top(4)", "known positive", "5 unfilled", "0.900 d002: indeed", "note: a note", "median"):
        assert part in shown


def test_json(audit):
    again = MiningAudit.from_json(audit.to_json())
    assert again == audit
    assert json.loads(audit.to_json())["reasons"]["known positive"] == {"marked": 2, "alone": 0}
    for text in ("", "[]", "{}", '{"queries": 1, "surprise": 2}'):
        with pytest.raises(DataError, match="not the JSON of a mining audit"):
            MiningAudit.from_json(text)


def test_runs_without_positive_scores_have_no_comparison(make_run):
    run = make_run([[0.5, 0.4]])
    audit = MiningAudit.of(run, Top(1).draw(run, np.random.default_rng(0)))
    assert (audit.positive_below_median, audit.examples, audit.without_positive) == (None, (), 1)
    assert "positives" not in audit.scores
    assert MiningAudit.from_json(str(audit.to_json())) == audit


def test_long_streams_are_sampled_and_still_right(monkeypatch):
    monkeypatch.setattr("rivals.negatives.audit._SAMPLE", 2000)
    values = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    scores = _Scores(0)
    for part in np.array_split(np.sort(values), 37):
        scores.add(part)
    sample = scores.sample()
    summary = scores.summary(sample)
    assert len(sample) <= 2000
    assert (summary.count, summary.lowest, summary.highest) == (50_000, values.min(), values.max())
    assert summary.mean == pytest.approx(values.mean(), abs=1e-6)
    assert summary.deviation == pytest.approx(values.std(), rel=1e-4)
    assert summary.median == pytest.approx(0, abs=0.15)


def test_quantiles_are_numpys_when_nothing_was_sampled():
    values = np.random.default_rng(1).normal(size=501).astype(np.float32)
    scores = _Scores(0)
    scores.add(values)
    summary = scores.summary(scores.sample())
    expected = np.quantile(values.astype(np.float64), [0.05, 0.25, 0.5, 0.75, 0.95])
    assert [summary.p05, summary.p25, summary.median, summary.p75, summary.p95] == pytest.approx(expected)
