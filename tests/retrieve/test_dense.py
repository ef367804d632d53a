"""Dense retrieval: order, cut, scores of pairs, caching, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivals.data import Collection, Dataset, Judgements
from rivals.errors import RivalsError
from rivals.retrieve import _topk
from rivals.retrieve.dense import Dense, StoredVectors


def queries(*texts: str) -> Collection:
    return Collection([f"q{i}" for i in range(len(texts))], texts, name="query")


def test_ranks_by_cosine_and_ties_by_id(letters: Any) -> None:
    documents = Collection(["m", "z", "a", "k"], ["ab", "aabb", "b", "aaab"])
    run = Dense(letters, documents)(queries("ab"), 3)
    assert documents.ids[run.document].tolist() == ["z", "m", "k"]
    np.testing.assert_allclose(run.score, [1, 1, 4 / np.sqrt(20)], rtol=1e-6)
    assert run.score_kind == "cosine"
    assert run.scorer == "dense"
    assert Dense(letters, documents)(queries("ab"), 1).document.tolist() == [1]
    assert len(Dense(letters, documents)(queries("ab"), 99)) == 4


def test_dot_takes_vectors_as_they_are(letters: Any) -> None:
    documents = Collection(["a", "b"], ["ab", "aabb"])
    run = Dense(letters, documents, similarity="dot")(queries("ab"), 2)
    assert run.score.tolist() == [4, 2]
    assert run.score_kind == "dot"


@pytest.mark.parametrize("compiled", [True, False])
def test_score_equals_the_retrieved_score(letters: Any, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(_topk, "compiled", lambda: False)
        monkeypatch.setattr("rivals.retrieve.dense.compiled", lambda: False)
    generator = np.random.default_rng(0)
    texts = ["".join(generator.choice(list("abcdefgh"), 9)) for _ in range(60)]
    dense = Dense(letters, Collection([f"d{i:02d}" for i in range(60)], texts))
    asked = queries(*texts[:5])
    run = dense(asked, 20)
    scored = dense.score(asked, run.query, run.document)
    if compiled:
        np.testing.assert_array_equal(scored, run.score)
    np.testing.assert_allclose(scored, run.score, rtol=1e-6)


def test_a_dataset_gives_positives_their_scores(letters: Any) -> None:
    documents, asked = Collection(["a", "b"], ["aab", "b"]), queries("ab", "b")
    judgements = Judgements.build([0, 1], [1, 1], [1, 2], queries=2, documents=2)
    run = Dense(letters, documents)(Dataset(asked, documents, judgements), 1)
    assert run.positive.tolist() == [1, 1]
    np.testing.assert_allclose(run.positive_score, [np.sqrt(0.5), 1], rtol=1e-6)
    assert run.label.tolist() == [-1, 1]


def test_documents_are_encoded_once_and_queries_once_a_collection(letters: Any) -> None:
    dense, asked = Dense(letters, Collection(["a"], ["a"])), queries("a", "b")
    dense(asked, 1)
    dense.score(asked, np.array([0]), np.array([0]))
    dense(queries("a", "b"), 1)
    assert letters.calls == [("document", 1), ("query", 2)]
    dense(queries("c"), 1)
    assert letters.calls[2:] == [("query", 1)]


def test_an_encoder_that_was_trained_since_is_refused(letters: Any) -> None:
    dense = Dense(letters, Collection(["a"], ["a"]))
    letters.mark = "other"
    with pytest.raises(RivalsError, match="encoder has changed"):
        dense(queries("a"), 1)


def test_the_cache_reaches_the_encoder(letters: Any) -> None:
    seen = []

    class Caching(type(letters)):  # type: ignore[misc]
        def encode(self, texts: list[str], *, role: str, progress: bool | str, cache: object) -> np.ndarray:
            seen.append(cache)
            return super().encode(texts, role=role, progress=progress)

    Dense(Caching(), Collection(["a"], ["a"]), cache="the cache")
    assert seen == ["the cache"]


def test_given_vectors_are_checked(letters: Any) -> None:
    documents = Collection(["a", "b"], ["a", "b"])
    for vectors, message in (
        (np.ones((3, 8), np.float32), r"shape \(3, 8\) for 2 documents"),
        (np.ones(2, np.float32), r"shape \(2,\)"),
        (np.eye(2, 8, dtype=np.float32) * [[1], [3]], "document 'b' has the norm 3, not 1"),
        (np.eye(2, 8, dtype=np.float32) * [[np.nan], [1]], "document 'a' holds NaN"),
    ):
        with pytest.raises(RivalsError, match=message):
            Dense(letters, documents, vectors=vectors)
    assert Dense(letters, documents, vectors=np.eye(2, 8, dtype=np.float32))(queries("b"), 1).document.tolist() == [1]
    with pytest.raises(RivalsError, match="similarity"):
        Dense(letters, documents, similarity="euclid")  # type: ignore[arg-type]


def test_vectors_of_another_width_are_named(letters: Any) -> None:
    dense = Dense(letters, Collection(["a"], ["a"]), vectors=np.ones((1, 1), np.float32))
    with pytest.raises(RivalsError, match="8 dimensions, the document vectors have 1"):
        dense(queries("a"), 1)
    with pytest.raises(RivalsError, match="8 dimensions, the document vectors have 1"):
        dense.score(queries("a"), np.array([0]), np.array([0]))


def test_stored_vectors_search_like_the_encoder_that_made_them(letters: Any) -> None:
    documents = Collection(["x", "y", "z"], ["aab", "bcc", "abc"])
    asking = Collection(["q", "r", "s"], ["ab", "c", "ab"], name="query")
    vectors = Dense(letters, documents).vectors
    asked = letters.encode(asking.full_texts, role="query", progress=False)
    stored = Dense(StoredVectors(asking, asked), documents, vectors=vectors)
    expected = Dense(letters, documents)(asking, 2)
    for block in (asking, asking.take([2, 0])):
        found = stored(block, 2)
        rows = asking.rows(block.ids)
        assert found.document.tolist() == expected.take(rows).document.tolist()
        assert found.score.tolist() == expected.take(rows).score.tolist()
    with pytest.raises(RivalsError, match=r"no vector is stored for the query 'new'; 3 texts have one"):
        stored(Collection(["t"], ["new"], name="query"), 1)
    with pytest.raises(RivalsError, match=r"vectors have shape \(2, 8\) for 3 query rows"):
        StoredVectors(asking, asked[:2])
    asked[2] += 1
    with pytest.raises(RivalsError, match="query rows 'q' and 's' have one text and two different vectors"):
        StoredVectors(asking, asked)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_memory_map_gives_what_the_array_gives_whether_kept_or_read_again(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(4)
    vectors = generator.normal(size=(900, 16)).astype(np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(dtype)
    mapped = np.memmap(tmp_path / "vectors", dtype=dtype, mode="w+", shape=vectors.shape)
    mapped[:] = vectors
    mapped.flush()
    documents = Collection([f"d{i:03}" for i in range(900)])
    asking = Collection([f"q{i}" for i in range(300)], [f"question {i}" for i in range(300)], name="query")
    asked = generator.normal(size=(300, 16)).astype(np.float32)
    monkeypatch.setattr(_topk, "_BLOCK", 250)
    expected = Dense(StoredVectors(asking, asked), documents, vectors=vectors)(asking, 20)
    read_only = np.memmap(tmp_path / "vectors", dtype=dtype, mode="r", shape=vectors.shape)
    for keep in (0, 1 << 30):
        monkeypatch.setattr(_topk.PreparedDocuments.__init__, "__kwdefaults__", {"precision": "auto", "keep": keep})
        dense = Dense(StoredVectors(asking, asked), documents, vectors=read_only)
        assert dense._prepared._keeps is (keep > 0)
        found = dense(asking, 20)
        assert found.document.tolist() == expected.document.tolist()
        assert found.score.tolist() == expected.score.tolist()
