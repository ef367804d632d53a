"""Ready-made lists and functions as sources: what is listed comes back, by id, with its own scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rivals.data import Collection, Dataset, Judgements, Run, save_run
from rivals.data.formats.run_files import load_run
from rivals.errors import DataError, RivalsError
from rivals.negatives import KnownPositives, PositiveAware, Top, mine_hard_negatives, write_triples, write_tuples
from rivals.negatives.listed_sources import FunctionSource, ReadyMade
from rivals.retrieve import BM25

DOCUMENTS = Collection(["a", "b", "c", "d"], ["red cat", "red dog", "blue cat", "green"])
QUERIES = Collection(["x", "y", "z"], ["red", "cat", "green"], name="query")
DATA = Dataset(QUERIES, DOCUMENTS, Judgements.build([0, 1, 2], [0, 2, 3], [1, 1, 1], queries=3, documents=4))


def table() -> Run:
    return Run.build(
        QUERIES.take([1, 0]),
        DOCUMENTS,
        [0, 2, 5],
        [0, 1, 1, 2, 0],
        [0.5, 0.25, 0.75, 0.5, 0.9],
        positives=([0, 1, 2], [2, 0]),
        positive_score=[0.6, np.nan],
        score_kind="cosine",
        scorer="somebody",
    )


def rows(run: Run) -> list[list[str]]:
    ids = run.documents.ids[run.document]
    return [ids[run.offsets[q] : run.offsets[q + 1]].tolist() for q in range(len(run.queries))]


def test_lists_come_back_by_query_id_and_are_cut() -> None:
    source = ReadyMade(table())
    run = source(QUERIES)
    assert rows(run) == [["a", "b", "c"], ["a", "b"], []]
    assert run.score.tolist() == np.array([0.9, 0.75, 0.5, 0.5, 0.25], np.float32).tolist()
    assert (run.scorer, run.score_kind, source.missing) == ("ready-made", "cosine", 1)
    assert rows(source(QUERIES, 1)) == [["a"], ["a"], []]


def test_positives_take_the_scores_of_the_table() -> None:
    run = ReadyMade(table())(DATA)
    # x's positive a is not scored as a positive, but as a candidate; z is not in the table
    np.testing.assert_array_equal(run.positive_score, np.array([0.9, 0.6, np.nan], np.float32))
    marked = PositiveAware(relative=0.2)(ReadyMade(table())(DATA.take([0, 1])))
    assert marked.where_reason("positive-aware relative 0.2").tolist() == [True, True, False, True, False]
    with pytest.raises(RivalsError, match="query 'z': its positive 'd' has no score"):
        PositiveAware(relative=0.2)(run)


def test_another_collection_with_the_same_ids_will_do() -> None:
    other = DOCUMENTS.take([3, 2, 1, 0])
    run = ReadyMade(table(), other)(QUERIES)
    assert rows(run) == [["a", "b", "c"], ["a", "b"], []]
    assert run.documents is other
    scores = ReadyMade(table(), other).score(QUERIES, np.array([0, 0, 1, 2]), other.rows(["b", "d", "c", "a"]))
    np.testing.assert_array_equal(scores, np.array([0.75, np.nan, 0.6, np.nan], np.float32))
    with pytest.raises(RivalsError, match="document 'b' is listed but is not among the 2"):
        ReadyMade(table(), DOCUMENTS.take([0, 2]))


def test_a_union_scores_ready_made_candidates_by_its_retriever() -> None:
    bm25 = BM25(DOCUMENTS)
    run = (bm25 | ReadyMade(table()))(DATA, 2)
    np.testing.assert_array_equal(run.score, bm25.score(QUERIES, run.query, run.document))
    assert not np.isnan(run.positive_score).any()
    assert np.nanmax(run.features["ready-made"]) == np.float32(0.9)


def test_files_in_the_formats_of_others_are_sources(tmp_path: Path) -> None:
    (tmp_path / "ann").write_text("x\ta\tb,c\ny\tc\ta\nz\td\t\n")
    source = ReadyMade.load(tmp_path / "ann", DATA)
    assert rows(source(DATA, 10)) == [["b", "c"], ["a"], []]
    (tmp_path / "ann").write_text("x\ta\tb,nothing\n")
    with pytest.raises(DataError, match="ann, line 1: this row names the document 'nothing'"):
        ReadyMade.load(tmp_path / "ann", DATA)
    assert rows(ReadyMade.load(tmp_path / "ann", DATA, on_unknown="drop")(DATA)) == [["b"], [], []]


@pytest.mark.parametrize("name", ["mined.jsonl", "mined.parquet"])
@pytest.mark.parametrize("write", [write_triples, write_tuples])
def test_what_was_exported_is_read_again(name: str, write, tmp_path: Path) -> None:
    mined = mine_hard_negatives(BM25(DOCUMENTS), DATA.take([0, 1]), filters=(), sampler=Top(1), top_k=4, show=False)
    write(mined.run, mined.draw, tmp_path / name)
    again = ReadyMade.load(tmp_path / name, DATA)(DATA.take([0, 1]))
    assert rows(again) == rows(mined.negatives) == [["b"], ["a"]]


def test_a_saved_run_goes_on_without_searching(tmp_path: Path) -> None:
    first = BM25(DOCUMENTS)(DATA, 3)
    save_run(first, tmp_path / "bm25.parquet")
    run = ReadyMade(load_run(tmp_path / "bm25.parquet", QUERIES, DOCUMENTS))(DATA, 3)
    assert run.document.tolist() == first.document.tolist()
    np.testing.assert_array_equal(run.score, first.score)
    np.testing.assert_array_equal(run.positive_score, first.positive_score)


# ------------------------------------------------------------------------------------------------------------ functions


@pytest.mark.parametrize(
    ("answer", "scores"),
    [
        (["c", "a"], [0, -1]),
        (np.array(["c", "a"]), [0, -1]),
        ([("a", 0.25), ("c", 0.5)], [0.5, 0.25]),
        ({"a": 1, "c": 2}, [2, 1]),
    ],
)
def test_a_function_names_ids_pairs_or_scores(answer: object, scores: list[float]) -> None:
    source = FunctionSource(lambda queries, k: [answer, [], ["d"]], DOCUMENTS)
    run = source(QUERIES, 5)
    assert rows(run) == [["c", "a"], [], ["d"]]
    assert run.score.tolist() == [*scores, 0]
    assert rows(source(QUERIES, 1)) == [["c"], [], ["d"]]


def test_positives_that_the_function_names_are_scored() -> None:
    source = FunctionSource(
        lambda queries, k: [{"a": 0.9, "b": 0.5} for _ in queries.ids], DOCUMENTS, score_kind="cosine"
    )
    run = source(DATA, 5)
    np.testing.assert_array_equal(run.positive_score, np.array([0.9, np.nan, np.nan], np.float32))
    assert not source.scores_pairs


def test_with_a_score_a_function_is_a_whole_retriever() -> None:
    def score(queries: Collection, query: np.ndarray, document: np.ndarray) -> list[float]:
        return [
            float(len(set(queries.texts[q].split()) & set(DOCUMENTS.texts[d].split())))
            for q, d in zip(query, document, strict=True)
        ]

    source = FunctionSource(lambda queries, k: [{"b": 1.0, "d": 0.0} for _ in queries.ids], DOCUMENTS, score=score)
    run = KnownPositives()(source(DATA, 5))
    assert run.positive_score.tolist() == [1, 1, 1]
    united = BM25(DOCUMENTS) | source
    assert united.scorer is source
    assert set(united(DATA, 4).score.tolist()) <= {0.0, 1.0}
    wrong = FunctionSource(lambda queries, k: [[]] * 3, DOCUMENTS, score=lambda *_: [1.0])
    with pytest.raises(RivalsError, match=r"the score of source 'function' gave shape \(1,\) for 3 pairs"):
        wrong(DATA, 2)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([["a"]], "gave 1 answers for 3 queries"),
        ([["a"], ["zz"], []], "named document 'zz' for query 'y', which is not among the 4 documents"),
        ([["a"], "b", []], "answered query 'y' with str 'b'"),
        ([["a"], 3, []], "answered query 'y' with int '3'"),
        ([["a"], [("a", "high")], []], "answered query 'y' with"),
        ([["a"], [("a", 1.0), "b"], []], "answered query 'y' with"),
        ([[], {"a": float("nan")}, []], "query 'y': document 'a' has the score NaN"),
        ([[], ["a", "a"], []], "query 'y' lists document 'a' twice"),
    ],
)
def test_wrong_answers_name_the_query(answers: list[object], said: str) -> None:
    with pytest.raises(RivalsError, match=said):
        FunctionSource(lambda queries, k: answers, DOCUMENTS)(QUERIES, 5)
