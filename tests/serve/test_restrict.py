"""`Restricted` gives what the retriever gives with the other documents left out; filters match columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from rivals.data import Collection, Retriever
from rivals.errors import RivalsError
from rivals.retrieve import BM25, Dense
from rivals.serve import restrict
from rivals.serve.restrict import Restricted, match_columns

QUERIES = Collection(["a", "b"], ["What are the symptoms of leukemia ?", "How is cancer treated with chemotherapy ?"])


def expected(retriever: Retriever, allowed: np.ndarray, k: int) -> list[tuple[int, int]]:
    """The whole list, filtered afterwards: slow and plainly right."""
    run = retriever(QUERIES, k=len(allowed))
    run = run.select(allowed[run.document]).top(k)
    return list(zip(run.query.tolist(), run.document.tolist(), strict=True))


@pytest.mark.parametrize("count", [0, 1, 3, 30, 239, 240])
@pytest.mark.parametrize("score_all", [0, 4096])
def test_equals_the_whole_list_filtered(
    bm25: BM25, dense: Dense, count: int, score_all: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restrict, "_SCORE_ALL", score_all)
    allowed = np.zeros(240, dtype=bool)
    allowed[np.random.default_rng(count).permutation(240)[:count]] = True
    for retriever in (bm25, dense):
        run = Restricted(retriever, allowed)(QUERIES, k=7)
        assert list(zip(run.query.tolist(), run.document.tolist(), strict=True)) == expected(retriever, allowed, 7)
        assert run.scorer == retriever.name
        whole = retriever.score(QUERIES, run.query, run.document)
        np.testing.assert_allclose(run.score, whole, rtol=1e-6)


def test_the_last_document_of_the_list_is_found(dense: Dense) -> None:
    allowed = np.zeros(240, dtype=bool)
    allowed[dense(QUERIES.take([0]), k=240).document[-1]] = True
    run = Restricted(dense, allowed)(QUERIES.take([0]), k=1)
    assert allowed[run.document].tolist() == [True]


def test_wrong_length_is_refused(bm25: BM25) -> None:
    with pytest.raises(RivalsError, match="240 documents"):
        Restricted(bm25, np.ones(3, dtype=bool))


@pytest.fixture(scope="module")
def rows() -> Collection:
    columns = {
        "year": [2019, 2020, None, 2020],
        "kind": pa.array(["x", "y", "x", None]).dictionary_encode(),
        "good": [True, False, None, True],
        "tags": pa.chunked_array([[["p", "q"], []], [None, ["q", "r"]]]),
        "weight": [0.5, 1.0, 2.0, None],
        "more": [{"a": 1}] * 4,
    }
    return Collection(["a", "b", "c", "d"], columns=columns)


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({}, "abcd"),
        ({"year": 2020}, "bd"),
        ({"year": "2020"}, "bd"),
        ({"year": [2019, None]}, "ac"),
        ({"year": []}, ""),
        ({"kind": "x"}, "ac"),
        ({"kind": None}, "d"),
        ({"good": True}, "ad"),
        ({"good": "false"}, "b"),
        ({"tags": "q"}, "ad"),
        ({"tags": ["r", "p"]}, "ad"),
        ({"weight": 1}, "b"),
        ({"id": ["a", "zzz"]}, "a"),
        ({"year": 2020, "kind": "y"}, "b"),
    ],
)
def test_filters(rows: Collection, filters: dict, ids: str) -> None:
    assert "".join(rows.ids[match_columns(rows, filters)]) == ids


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"colour": "red"}, "no column 'colour'; they have id, year"),
        ({"year": "soon"}, "'year' holds int64; 'soon' is not"),
        ({"year": 10**30}, "'year' holds int64"),
        ({"year": True}, "'year' holds int64"),
        ({"year": 2020.5}, "'year' holds int64"),
        ({"kind": 3}, "'kind' holds string; 3 is not"),
        ({"good": 1}, "'good' holds bool"),
        ({"kind": "\ud800"}, "'kind' holds string"),
        ({"more": "a"}, "cannot be filtered on"),
    ],
)
def test_filters_that_cannot_be(rows: Collection, filters: dict, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        match_columns(rows, filters)
