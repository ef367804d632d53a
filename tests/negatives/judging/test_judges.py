"""Judges without a language model, and how any judge is asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.errors import DataError, RivalsError
from rivals.negatives import PositiveAware
from rivals.negatives.judging import Judge, LabelJudge, ScoreJudge, Verdicts, judge_positives, judged
from rivals.negatives.review_sheets import write_sheet
from rivals.retrieve import BM25
from tests.negatives.judging.models import RuleJudge


def test_a_judge_is_what_has_a_name_and_judges():
    assert isinstance(RuleJudge(lambda q, d: 1.0), Judge)
    assert isinstance(LabelJudge({("q", "d"): 1}), Judge)
    assert not isinstance(object(), Judge)


def test_only_the_wanted_are_asked_and_in_order(make_run):
    run = make_run([[0.9, 0.8, 0.7], [0.3, 0.2, 0.1], [0.6, 0.5, 0.4]])
    judge = RuleJudge(lambda q, d: int(d[1:]) / 10)
    wanted = np.array([True, False, True, False, False, False, False, True, False])
    verdicts = judged(judge, run, wanted)
    assert judge.asked == [("q0", "d000"), ("q0", "d002"), ("q2", "d001")]
    np.testing.assert_allclose(verdicts.score[wanted], [0.0, 0.2, 0.1], rtol=1e-6)
    assert np.isnan(verdicts.score[~wanted]).all()
    assert verdicts.unknown == 6


def test_blocks_do_not_change_the_verdicts(make_run):
    generator = np.random.default_rng(0)
    run = make_run(generator.random((70, 31)))
    wanted = generator.random(len(run)) < 0.7
    judge = RuleJudge(lambda q, d: (int(q[1:]) * 31 + int(d[1:])) / 3000)
    verdicts = judged(judge, run, wanted)
    expected = np.where(wanted, (run.query * 31 + run.document) / 3000, np.nan).astype(np.float32)
    np.testing.assert_array_equal(verdicts.score, expected)
    assert len(judge.calls) > 1  # some hundred candidates a call
    assert all(len(call) < 600 for call in judge.calls)
    queries = [{query for query, _ in call} for call in judge.calls]
    assert sum(map(len, queries)) == len(set().union(*queries))  # a query is not parted


def test_positives_are_judged_in_their_order(make_run):
    run = make_run([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]], [[0, 2], [1]])
    judge = RuleJudge(lambda q, d: int(d[1:]) / 4)
    assert judge_positives(judge, run).score.tolist() == [0.0, 0.5, 0.25]


def test_nothing_wanted_asks_nobody(make_run):
    run = make_run([[0.9, 0.8]])
    judge = RuleJudge(lambda q, d: 1.0)
    assert np.isnan(judged(judge, run, np.zeros(2, dtype=bool)).score).all()
    assert judge.calls == []


class Wrong:
    name = "wrong"

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def judge(self, run: Run) -> Verdicts:
        return Verdicts(np.array(self.scores, dtype=np.float32))


def test_wrong_verdicts_are_named(make_run):
    run = make_run([[0.9, 0.8]])
    with pytest.raises(RivalsError, match=r"judge 'wrong' returned \(1,\) scores for 2 candidates"):
        judged(Wrong([1.0]), run)
    with pytest.raises(RivalsError, match=r"judge 'wrong' gave 1.5 for document 'd001'"):
        judged(Wrong([0.5, 1.5]), run)
    with pytest.raises(RivalsError, match="wanted has shape"):
        judged(Wrong([0.5, 0.5]), run, np.array([True]))


# ------------------------------------------------------------------------------------------------ scorers


class Shared:
    """Words in common, over those of the query."""

    def score(self, queries: Any, documents: Any) -> Any:
        pairs = zip(queries, documents, strict=True)
        return [len(set(q.split()) & set(d.split())) / len(q.split()) for q, d in pairs]


class Counted:
    """How many words of the query the document has."""

    def score(self, queries: Any, documents: Any) -> Any:
        pairs = zip(queries, documents, strict=True)
        return [len(set(q.split()) & set(d.split())) for q, d in pairs]


@pytest.fixture
def words() -> Run:
    queries = Collection(["q0", "q1"], ["amber brook cedar delta", "xylem yield"], name="query")
    documents = Collection(
        ["d0", "d1", "d2", "d3"], ["amber brook cedar delta", "amber brook cedar", "amber brook", "xylem"]
    )
    return Run.build(
        queries, documents, [0, 3, 5], [1, 2, 3, 2, 1], [0.9, 0.8, 0.7, 0.6, 0.5], positives=([0, 1, 2], [0, 3])
    )


def test_scores_flags_and_margins(words):
    assert ScoreJudge(Shared()).judge(words).score.tolist() == [0.75, 0.5, 0.0, 0.0, 0.0]
    assert ScoreJudge(Shared(), threshold=0.5).judge(words).score.tolist() == [1, 0, 0, 0, 0]
    assert ScoreJudge(Shared(), relative=0.3).judge(words).score.tolist() == [1, 0, 0, 0, 0]
    assert ScoreJudge(Shared(), relative=0.6).judge(words).score.tolist() == [1, 1, 0, 0, 0]
    assert ScoreJudge(Shared()).judge(words).asked == 0


def test_a_retriever_judges_as_positive_aware_marks(words):
    bm25 = BM25(words.documents)
    dataset = Dataset(words.queries, words.documents, Judgements.build([0, 1], [0, 3], [1, 1], queries=2, documents=4))
    run = bm25(dataset, k=4)
    flagged = ScoreJudge(bm25, relative=0.3).judge(run).score == 1
    np.testing.assert_array_equal(flagged, ~PositiveAware(relative=0.3)(run).keep)
    assert ScoreJudge(bm25).name == "bm25"


def test_scorers_out_of_bounds(words):
    bm25 = BM25(words.documents)
    with pytest.raises(RivalsError, match=r"from 0 to 3 are no relevance in \[0, 1\]; give ScoreJudge a threshold"):
        ScoreJudge(Counted()).judge(words)
    with pytest.raises(RivalsError, match="not both"):
        ScoreJudge(bm25, threshold=1.0, relative=0.1)
    with pytest.raises(RivalsError, match="relative must lie between 0 and 1"):
        ScoreJudge(bm25, relative=0.0)
    with pytest.raises(RivalsError, match="anchor must be"):
        ScoreJudge(bm25, anchor="median")  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="different documents"):
        ScoreJudge(BM25(Collection(["z"], ["zinc"])), threshold=1.0).judge(words)
    with pytest.raises(RivalsError, match="no method score"):
        ScoreJudge(object())  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ labels


def test_labels_by_id(words):
    judge = LabelJudge({("q0", "d1"): 3, ("q1", "d1"): 0, ("q9", "d1"): 1, ("q0", "d9"): 2})
    np.testing.assert_array_equal(judge.judge(words).score, np.float32([1.0, np.nan, np.nan, np.nan, 0.0]))
    assert len(judge) == 4


def test_labels_of_a_dataset(words):
    dataset = Dataset(
        words.queries, words.documents, Judgements.build([0, 0, 1], [1, 2, 2], [4, 1, -1], queries=2, documents=4)
    )
    assert LabelJudge.of(dataset).judge(words).score.tolist()[:2] == [1.0, 0.25]
    assert LabelJudge.of(dataset, highest=8).judge(words).score[[0, 1, 3]].tolist() == [0.5, 0.125, 0.0]


def test_labels_from_files(words, tmp_path):
    (tmp_path / "people.tsv").write_text("query_id\tdoc_id\trelevance\nq0\td1\t2\nq0\td1\t1\nq1\td2\t0\n")
    judge = LabelJudge.load(tmp_path / "people.tsv")
    assert judge.name == "people"
    assert judge.judge(words).score[[0, 3]].tolist() == [0.75, 0.0]  # twice labelled: the mean
    (tmp_path / "qrels").write_text("q0 0 d1 1\nq1 0 d2 0\n")
    assert LabelJudge.load(tmp_path / "qrels", name="trec").judge(words).score[[0, 3]].tolist() == [1.0, 0.0]
    (tmp_path / "graded.csv").write_text("qid,docid,stars\nq0,d1,4\n")
    chosen = {"judgements.relevance": "stars"}
    assert LabelJudge.load(tmp_path / "graded.csv", fields=chosen, highest=5).judge(words).score[0] == np.float32(0.8)


def test_labels_from_a_review_sheet(words, tmp_path):
    sheet = tmp_path / "sheet.csv"
    write_sheet(words, np.array([0, 1, 2]), sheet, {("q0", "d1"): True, ("q0", "d2"): False})
    np.testing.assert_array_equal(LabelJudge.load(sheet).judge(words).score[:3], np.float32([1, 0, np.nan]))
    write_sheet(words, np.array([0]), sheet)
    with pytest.raises(DataError, match="no row of this sheet is answered"):
        LabelJudge.load(sheet)


def test_faulty_labels(tmp_path):
    with pytest.raises(RivalsError, match="got no label"):
        LabelJudge({})
    with pytest.raises(RivalsError, match="0 or more"):
        LabelJudge({("q", "d"): -1})
    with pytest.raises(RivalsError, match="labels go up to 3, highest is 2"):
        LabelJudge({("q", "d"): 3}, highest=2)
    path = tmp_path / "labels.csv"
    path.write_text("query_id,doc_id,relevance\nq0,,1\n")
    with pytest.raises(DataError, match=r"labels.csv, line 2: this row lacks"):
        LabelJudge.load(path)
    path.write_text("query_id,doc_id\nq0,d0\n")
    with pytest.raises(DataError, match="no field for the relevance"):
        LabelJudge.load(path)
    path.write_text("query_id,doc_id,relevance\nq0,d0,-2\n")
    with pytest.raises(DataError, match=r"labels\.csv: labels must be finite"):
        LabelJudge.load(path)
