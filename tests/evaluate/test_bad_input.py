"""Bad input to `evaluate`: each kind has one clear message, or a defined result that is pointed out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.errors import RivalsError
from rivals.evaluate import Evaluation, evaluate

FEW = {"resamples": 200, "permutations": 200}
QUERIES = Collection([f"q{i}" for i in range(6)], name="query")
DOCUMENTS = Collection([f"d{i}" for i in range(9)])


def dataset(grades: tuple[int, ...] = (1, 0)) -> Dataset:
    """Six queries; all but the last judged: document i with the first grade, i + 1 with the second."""
    query, document, relevance = [], [], []
    for q in range(5):
        for step, grade in enumerate(grades):
            query.append(q)
            document.append(q + step)
            relevance.append(grade)
    judgements = Judgements.build(query, document, relevance, queries=6, documents=9)
    return Dataset(QUERIES, DOCUMENTS, judgements)


def run(rows: list[int], documents: Collection = DOCUMENTS, first: int = 0) -> Run:
    """A run that answers some query rows with three documents each."""
    lengths = [3 if q in rows else 0 for q in range(6)]
    found = [(q + first + step) % len(documents) for q in sorted(rows) for step in range(3)]
    return Run.build(QUERIES, documents, np.concatenate(([0], np.cumsum(lengths))), found, [3.0, 2.0, 1.0] * len(rows))


def said_by(evaluation: Evaluation) -> str:
    """What an evaluation prints, on one line."""
    return " ".join(str(evaluation).split())


def test_documents_that_are_not_in_the_corpus_are_an_error_or_count_as_unjudged():
    larger = Collection([*DOCUMENTS.ids, "alien", "other"])
    strange = Run.build(QUERIES, larger, [0, 3, 3, 3, 3, 3, 3], [9, 0, 10], [3.0, 2.0, 1.0])
    with pytest.raises(RivalsError, match=r"system 'odd' returned document 'alien', which .* \(2 such\)"):
        evaluate({"odd": strange}, dataset(), **FEW)
    found = evaluate({"odd": strange}, dataset(), measures=["RR"], on_unknown="unjudged", **FEW)
    assert found.per_query["odd"]["RR"][0] == 0.5  # the alien keeps its place
    assert found.coverage["odd"].unknown_documents == 2
    assert found.coverage["odd"].unjudged == {5: 2 / 3, 10: 2 / 3, 20: 2 / 3, 100: 2 / 3}
    assert "odd: 2 documents are not in the data set and count as unjudged." in said_by(found)


def test_duplicate_rows_and_nan_scores_are_met_at_the_door():
    with pytest.raises(RivalsError, match="query 'q0' lists document 'd1' twice"):
        Run.build(QUERIES, DOCUMENTS, [0, 2, 2, 2, 2, 2, 2], [1, 1], [1.0, 2.0])
    with pytest.raises(RivalsError, match="query 'q0': document 'd1' has the score NaN"):
        Run.build(QUERIES, DOCUMENTS, [0, 1, 1, 1, 1, 1, 1], [1], [np.nan])


def test_runs_made_round_the_door_are_caught_by_evaluate():
    good = run([0, 1])
    bad = replace(good, score=np.where(np.arange(6) == 4, np.nan, good.score).astype(np.float32))
    with pytest.raises(RivalsError, match="system 'odd', query 'q1': document 'd2' has the score NaN"):
        evaluate({"odd": bad}, dataset(), **FEW)
    twice = replace(good, document=np.array([0, 1, 2, 1, 1, 2]))
    with pytest.raises(RivalsError, match="system 'odd' lists a document twice under query 'q1'"):
        evaluate({"odd": twice}, dataset(), **FEW)


def test_a_query_without_judgements_is_left_out_and_counted():
    found = evaluate({"a": run([0, 5])}, dataset(), measures=["RR"], **FEW)
    assert found.queries == ("q0", "q1", "q2", "q3", "q4")
    assert (found.queries_without_judgements, found.coverage["a"].left_out) == (1, 1)
    assert found.mean("a") == pytest.approx(1 / 5)
    assert "1 queries without judgements are left out." in said_by(found)


def test_systems_without_a_common_query_cannot_be_compared():
    message = r"'a' and 'b' have results for no common query \(2 and 2 judged ones\)"
    with pytest.raises(RivalsError, match=message):
        evaluate({"a": run([0, 1]), "b": run([2, 3])}, dataset(), baselines=["a"], **FEW)
    found = evaluate({"a": run([0, 1]), "b": run([1, 2])}, dataset(), measures=["RR"], queries="common", **FEW)
    assert found.queries == ("q1",)
    assert found.queries_not_common == 4
    assert "4 queries that some system did not answer are left out." in said_by(found)
    three = {"a": run([0, 1]), "b": run([1, 2]), "c": run([0, 2])}
    with pytest.raises(RivalsError, match="no judged query is answered by every system"):
        evaluate(three, dataset(), queries="common", **FEW)


def test_a_run_over_other_queries_is_named_with_both_kinds_of_ids():
    other = Run.build(Collection(["topic-7"], name="query"), DOCUMENTS, [0, 1], [0], [1.0])
    with pytest.raises(RivalsError, match=r"'a' answers none of the 5 judged queries; .* 'topic-7', .* 'q0'"):
        evaluate({"a": other}, dataset(), **FEW)


@pytest.mark.parametrize(
    ("measure", "said", "value"),
    [
        ("P(rel=2)@5", "No judgement reaches grade 2 (the highest is 1), so P(rel=2)@5 is 0", 0),
        ("AP(rel=3)", "No judgement reaches grade 3", 0),
        ("nDCG(dcg='exp-log2')@10", "The judgements are 0 or 1, so nDCG(dcg='exp-log2')@10 is the same as nDCG@10", 1),
        ("ERR@10", "even the best document counts as 0.062 only; ERR(max=1)@10 fits this data", 1 / 16),
    ],
)
def test_a_measure_that_needs_grades_on_binary_data_is_defined_and_pointed_out(measure, said, value):
    found = evaluate({"a": run([0, 1, 2, 3, 4])}, dataset(), measures=[measure], **FEW)
    assert found.mean("a") == pytest.approx(value)
    assert any(said in caution for caution in found.cautions)
    assert "Caution: " in said_by(found)
    graded = evaluate({"a": run([0, 1])}, dataset((4, 2)), measures=[measure], **FEW)
    assert not [caution for caution in graded.cautions if "cannot see further" not in caution]


def test_lists_shorter_than_the_cut_off_are_pointed_out():
    found = evaluate({"a": run([0])}, dataset(), measures=["RR@10", "R@5"], **FEW)
    assert found.cautions == ("a returned at most 3 documents a query, so R@5 cannot see further.",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"correction": "bonferroni"}, "no correction is called 'bonferroni'; there are holm and benjamini-hochberg"),
        ({"power": 1}, "power is 1"),
        ({"queries": "all"}, "queries is 'all'"),
        ({"on_unknown": "drop"}, "on_unknown is 'drop'"),
        ({"unjudged_at": [0]}, "unjudged_at holds 0"),
        ({"slices": ["mood"]}, "cannot be sliced by 'mood'; there are length, relevant, seen, split"),
        ({"slices": ["length"]}, "have ids but no texts"),
        ({"slices": ["seen"]}, "give it as train"),
        ({"slices": ["split"]}, "no splits"),
        ({"train": dataset()}, "neither queries nor documents have texts"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(RivalsError, match=message):
        evaluate({"a": run([0])}, dataset(), **FEW, **options)
