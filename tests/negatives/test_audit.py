"""The mining audit: its counts, statistics and examples, in print and as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from rivals.data import Collection, Run
from rivals.errors import DataError
from rivals.negatives import Duplicates, KnownPositives, MiningAudit, PositiveAware, Top
from rivals.negatives._score_statistics import ScoreStream
from rivals.negatives.audit import relabelled_rows


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
    monkeypatch.setattr("rivals.negatives._score_statistics._SAMPLE", 2000)
    values = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    scores = ScoreStream(0)
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
    scores = ScoreStream(0)
    scores.add(values)
    summary = scores.summary(scores.sample())
    expected = np.quantile(values.astype(np.float64), [0.05, 0.25, 0.5, 0.75, 0.95])
    assert [summary.p05, summary.p25, summary.median, summary.p75, summary.p95] == pytest.approx(expected)


# ---------------------------------------------------------------------------------------------- what filters may set


def test_relabelled_weighted_and_targets_are_counted(make_run):
    run = make_run([[0.8, 0.7, 0.6, 0.5]], [[0]])
    run = KnownPositives()(run).mark(np.array([False, True, True, False]), "judged relevant")
    run = run.replace(
        label=[1, 1, -1, -1], weight=[1, 1, 1, 0.5], target=[np.nan, 0.9, 0.7, np.nan], fn_probability=[0, 0, 0, 0.25]
    )
    assert relabelled_rows(run).tolist() == [False, True, False, False]
    audit = MiningAudit.of(run, Top(2).draw(run, np.random.default_rng(0)))
    assert (audit.relabelled, audit.relabelled_by) == (1, {"judged relevant": 1})
    assert (audit.marked, audit.kept, audit.weighted, audit.with_target, audit.drawn) == (3, 1, 1, 2, 1)
    assert audit.fn_probability == 0.25
    assert audit.scores["marked"].count == 2  # the relabelled one was a candidate too; the known positive was none
    assert audit.scores["candidates"].count == 3
    text = str(audit)
    for part in ("relabelled as positives", "judged relevant 1", "with a weight of their own", "25.0%"):
        assert part in text
    assert MiningAudit.from_json(audit.to_json()) == audit


def test_a_relabelled_candidate_stays_one_when_it_joins_the_positives(make_run):
    run = KnownPositives()(make_run([[0.8, 0.7, 0.6]], [[0]]))
    joined = run.replace(
        label=[1, 1, -1],
        positive_offsets=np.array([0, 2]),
        positive=np.array([0, 1]),
        positive_score=np.float32([0.8, 0.7]),
        positive_relevance=np.float32([1, 1]),
    )
    assert relabelled_rows(joined).tolist() == [False, True, False]


def test_without_known_positives_the_runs_own_list_decides(make_run):
    run = make_run([[0.8, 0.7, 0.6]], [[0]]).replace(label=[1, 1, 0])
    assert relabelled_rows(run).tolist() == [False, True, False]


def test_relabelled_candidates_are_suspects(make_run):
    run = KnownPositives()(make_run([[0.8, 0.9, 0.6]], [[0]])).replace(label=[1, 1, -1])
    audit = MiningAudit.of(run, Top(1).draw(run, np.random.default_rng(0)))
    assert [example.document_id for example in audit.examples] == ["d001"]


def test_sources_are_counted_where_there_are_several():
    documents = Collection(["a", "b", "c"])
    run = Run.build(
        Collection(["q"]), documents, [0, 3], [0, 1, 2], [0.9, 0.8, 0.7], source=[1, 0, 1], sources=["bm25", "dense"]
    )
    audit = MiningAudit.of(run, Top(1).draw(run, np.random.default_rng(0)))
    assert (audit.proposed_by, audit.drawn_by) == ({"bm25": 1, "dense": 2}, {"bm25": 0, "dense": 1})
    assert "first by dense" in str(audit)
    assert MiningAudit.from_json(audit.to_json()) == audit


def test_what_deserves_a_look_is_said(make_run):
    run = make_run([[0.1, 0.8, 0.9]], [[0]])
    audit = MiningAudit.of(run, Top(9).draw(run, np.random.default_rng(0)))
    assert "100% of the queries have a positive below" in audit.notes[0]
    assert "67% of the wanted negatives could not be filled" in audit.notes[1]
