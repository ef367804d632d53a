"""Review by a person: who is listed, what sheets keep, and what answers change."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rivals.data import Run, load_run, save_run
from rivals.data.formats.tables import read_table
from rivals.errors import DataError, RivalsError
from rivals.negatives import Duplicates, KnownPositives, PositiveAware, Top
from rivals.negatives.review import (
    NOT_RELEVANT,
    RELEVANT,
    add_reviews,
    apply_reviews,
    load_reviews,
    reviewed_judgements,
    reviews_path,
    suspect_rows,
)
from rivals.negatives.review_sheets import candidate_rows, read_answers, read_rows, sheet_columns, write_sheet

TEXTS = ["yes", "Yes ", "indeed", "quite", "no\tnever", "perhaps"]
SCORES = [[0.8, 0.81, 0.9, 0.85, 0.4, 0.3], [0.3, 0.4, 0.5, 0.6, 0.72, 0.2]]


@pytest.fixture
def run(make_run) -> Run:
    marked = Duplicates()(KnownPositives()(make_run(SCORES, [[0], [3]], texts=TEXTS)))
    return PositiveAware(relative=0.05)(marked)


def pairs_of(run: Run, rows: np.ndarray) -> list[tuple[str, str]]:
    return list(zip(run.queries.ids[run.query[rows]], run.documents.ids[run.document[rows]], strict=True))


def test_suspects_are_marked_and_above_their_positive(run):
    # q0: d000 is the positive, d001 its copy, d002 and d003 score above; q1: d003 is the positive, d004 above it
    everyone = suspect_rows(run, per_query=None)
    assert pairs_of(run, everyone) == [("q0", "d003"), ("q0", "d002"), ("q1", "d004")]  # 0.05, 0.1, 0.12 above
    assert pairs_of(run, suspect_rows(run)) == [("q0", "d003"), ("q1", "d004")]
    assert pairs_of(run, suspect_rows(run, order="farthest")) == [("q1", "d004"), ("q0", "d002")]
    assert pairs_of(run, suspect_rows(run, limit=1)) == [("q0", "d003")]
    shuffled = {tuple(pairs_of(run, suspect_rows(run, order="random", per_query=None, seed=s))) for s in range(20)}
    assert {frozenset(order) for order in shuffled} == {frozenset(pairs_of(run, everyone))}
    assert len(shuffled) == 6


def test_what_was_answered_needs_no_other_look(run):
    answers = {("q0", "d003"): False, ("q9", "d004"): True}
    assert pairs_of(run, suspect_rows(run, per_query=None, answers=answers)) == [("q0", "d002"), ("q1", "d004")]


def test_relabelled_candidates_are_suspects_wherever_they_score(run):
    low = np.flatnonzero((run.query == 0) & (run.score == np.float32(0.3)))
    label = run.label.copy()
    label[low] = 1
    assert ("q0", "d005") in pairs_of(run, suspect_rows(run.replace(label=label), per_query=None))


def test_positives_without_score_hide_no_relabelled(make_run):
    run = KnownPositives()(make_run(SCORES, [[0], [3]], texts=TEXTS))
    run = run.replace(
        positive_score=np.full(2, np.nan, np.float32), label=np.where(run.score == np.float32(0.9), 1, run.label)
    )
    assert pairs_of(run, suspect_rows(run)) == [("q0", "d002")]


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl"])
def test_sheets_are_filled_in_and_read_back(run, tmp_path, ending):
    path = tmp_path / f"sheet{ending}"
    assert write_sheet(run, suspect_rows(run, per_query=None), path, {("q1", "d004"): False}) == 3
    table = read_table(path)
    assert table.columns["relevant"][2] == "no"
    assert table.columns["document"] == ["quite", "indeed", "no never"]  # tabs and line breaks are blanks
    assert table.columns["reasons"][0] == "positive-aware relative 0.05"
    text = path.read_text()
    filled = (
        text.replace('"relevant": ""', '"relevant": "Yes"', 1)
        if ending == ".jsonl"
        else text.replace("d003\t\t", "d003\tYes\t").replace("d003,,", "d003,Yes,")
    )
    path.write_text(filled)
    assert read_answers(path, run) == {("q0", "d003"): True, ("q1", "d004"): False}


def test_columns_without_texts(make_run):
    run = KnownPositives()(make_run(SCORES, [[0], []])).mark(np.ones(12, bool), "all")
    columns = sheet_columns(run, np.array([6]))
    assert columns["document"] == columns["positive"] == columns["positive_score"] == [None]
    assert columns["positive_id"] == [""]


ROWS = "query_id,document_id,relevant\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ROWS + "q0,d003,yes\nq7,d003,no\n", r"sheet\.csv, line 3: no query of the run has the id 'q7'"),
        (ROWS + "q0,d9,yes\n", "line 2: no document of the run has the id 'd9'"),
        (ROWS + "q0,d000,no\n", "line 2: document 'd000' is a labelled positive of query 'q0'"),
        (ROWS + "q0,d003,perhaps\n", "line 2: the answer 'perhaps' is neither yes nor no"),
        (ROWS + "q0,d003,yes\nq0,d003,\nq0,d003,no\n", "line 4: .* another answer in line 2"),
        ("query_id,relevant\nq0,yes\n", "lacks document_id"),
    ],
)
def test_bad_sheets_are_refused_with_their_line(run, tmp_path, content, said):
    (tmp_path / "sheet.csv").write_text(content)
    with pytest.raises(DataError, match=said):
        read_answers(tmp_path / "sheet.csv", run)


def test_a_pair_that_is_no_candidate_is_refused(run, tmp_path):
    short = run.top(2)
    (tmp_path / "sheet.csv").write_text(ROWS + "q0,d005,yes\n")
    with pytest.raises(DataError, match=r"line 2: document 'd005' is no candidate of query 'q0'"):
        read_answers(tmp_path / "sheet.csv", short)
    with pytest.raises(RivalsError, match="document 'd005' is no candidate"):
        apply_reviews(short, {("q0", "d005"): True})


def test_words_for_yes_and_no(tmp_path):
    words = ["yes", "Y", "TRUE", "1", "no", "n", "False", "0", "", "?", "unsure"]
    (tmp_path / "s.csv").write_text(ROWS + "".join(f"q{i},d,{word}\n" for i, word in enumerate(words)))
    assert [row.relevant for row in read_rows(tmp_path / "s.csv")] == [True] * 4 + [False] * 4
    lines = [
        {"query_id": f"q{i}", "document_id": "d", "relevant": value} for i, value in enumerate([True, False, None, 1])
    ]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [row.relevant for row in read_rows(tmp_path / "s.jsonl")] == [True, False, True]


# ------------------------------------------------------------------------------------------------- answers


def test_answers_add_up_and_newer_ones_win(tmp_path):
    path = tmp_path / "run.parquet"
    assert load_reviews(path) == {}
    _, first = add_reviews(path, {("q0", "d003"): True, ("q0", "d002"): True})
    assert (first.new, first.changed, first.relevant) == (2, 0, 2)
    merged, second = add_reviews(path, {("q0", "d002"): False, ("q0", "d003"): True, ("q1", "d004"): False})
    assert (second.new, second.changed, second.unchanged, second.relevant, second.not_relevant) == (1, 1, 1, 1, 2)
    assert load_reviews(path) == merged == {("q0", "d003"): True, ("q0", "d002"): False, ("q1", "d004"): False}
    reviews_path(path).write_text('{"query_id": "q0"}\n')
    with pytest.raises(DataError, match=r"reviews\.jsonl: .*lacks"):
        load_reviews(path)


def test_answers_become_labels_positives_and_negatives(run):
    before = run.reason.copy()
    reviewed = apply_reviews(run, {("q0", "d003"): True, ("q0", "d002"): False})
    yes, no = candidate_rows(run, [("q0", "d003"), ("q0", "d002")])
    assert (reviewed.label[yes], reviewed.keep[yes]) == (1, False)
    assert (reviewed.label[no], reviewed.keep[no]) == (0, True)
    assert reviewed.reasons_of(yes) == ["positive-aware relative 0.05", RELEVANT]
    assert reviewed.reasons_of(no) == ["positive-aware relative 0.05", NOT_RELEVANT]
    assert reviewed.positive.tolist() == [0, 3, 3]
    assert reviewed.positive_offsets.tolist() == [0, 2, 3]
    assert reviewed.positive_score.tolist() == np.float32([0.8, 0.85, 0.6]).tolist()
    others = np.setdiff1d(np.arange(len(run)), [yes, no])
    assert (reviewed.keep[others] == run.keep[others]).all()
    assert (run.reason == before).all()
    drawn = Top(1).draw(reviewed, np.random.default_rng(0)).row[0, 0]
    assert drawn == no  # the hardest negative there is


def test_applying_twice_or_changing_ones_mind(run):
    answers = {("q0", "d003"): True, ("q0", "d002"): False}
    once = apply_reviews(run, answers)
    twice = apply_reviews(once, answers)
    turned = apply_reviews(once, {("q0", "d003"): False, ("q0", "d002"): True})
    direct = apply_reviews(run, {("q0", "d003"): False, ("q0", "d002"): True})
    for one, other in ((once, twice), (turned, direct)):
        for name in ("keep", "label", "reason", "positive", "positive_offsets", "positive_score", "positive_relevance"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist(), name


def test_a_copy_of_a_positive_is_not_given_back(run):
    assert not apply_reviews(run, {("q0", "d001"): False}).keep[candidate_rows(run, [("q0", "d001")])[0]]


def test_judgements_hold_positives_and_refusals(run, tmp_path):
    reviewed = apply_reviews(run, {("q0", "d003"): True, ("q0", "d002"): False})
    judged = reviewed_judgements(reviewed)
    found = list(zip(judged.query.tolist(), judged.document.tolist(), judged.relevance.tolist(), strict=True))
    assert found == [(0, 0, 1), (0, 2, 0), (0, 3, 1), (1, 3, 1)]
    save_run(reviewed, tmp_path / "run.parquet")
    stored = load_run(tmp_path / "run.parquet", run.queries, run.documents)
    assert (
        suspect_rows(stored, answers={("q0", "d003"): True, ("q0", "d002"): False}).tolist()
        == suspect_rows(run)[1:].tolist()
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"order": "best"}, "order must be"),
        ({"limit": 0}, "limit must be 1"),
        ({"per_query": 0}, "per_query must be 1"),
    ],
)
def test_mistakes(run, change, said):
    with pytest.raises(RivalsError, match=said):
        suspect_rows(run, **change)
