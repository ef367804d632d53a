"""BM25 against its formula written out, against bm25s, and through its own save and load."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, load_sample
from rivals.errors import IndexDamaged, RivalsError
from rivals.measures import ndcg
from rivals.retrieve import bm25 as module
from rivals.retrieve.bm25 import BM25, Words

WORDS = ["ant", "bee", "cat", "dog", "elk", "fox"]


def collection(texts: list[str], prefix: str = "d") -> Collection:
    return Collection([f"{prefix}{i}" for i in range(len(texts))], texts)


def by_formula(query: list[str], texts: list[list[str]], k1: float, b: float) -> list[float]:
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        counts, score = Counter(text), 0.0
        for word in query:
            holding = sum(word in other for other in texts)
            idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            score += idf * counts[word] / (counts[word] + k1 * (1 - b + b * len(text) / mean)) if counts[word] else 0.0
        scores.append(score)
    return scores


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), max_size=8), min_size=1, max_size=8).filter(any),
    queries=st.lists(st.lists(st.sampled_from([*WORDS, "unseen"]), max_size=5), min_size=1, max_size=4),
    k=st.integers(1, 10),
    k1=st.sampled_from([0.0, 0.9, 1.2]),
    b=st.sampled_from([0.0, 0.75, 1.0]),
    compiled=st.booleans(),
)
def test_equals_the_formula(
    texts: list[list[str]], queries: list[list[str]], k: int, k1: float, b: float, compiled: bool
) -> None:
    documents = collection([" ".join(text) for text in texts])
    asked = collection([" ".join(query) for query in queries], "q")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "compiled", lambda: compiled)
        retriever = BM25(documents, k1=k1, b=b, language=None, threads=1)
        run = retriever(asked, k)
        pairs = np.divmod(np.arange(len(asked) * len(documents)), len(documents))
        scores = retriever.score(asked, *pairs).reshape(len(asked), -1)
    for row, query in enumerate(queries):
        expected = by_formula(query, texts, k1, b)
        np.testing.assert_allclose(scores[row], expected, rtol=1e-5, atol=1e-7)
        part = slice(run.offsets[row], run.offsets[row + 1])
        found = run.document[part]
        np.testing.assert_array_equal(run.score[part], scores[row][found])
        ranked = sorted((d for d in range(len(texts)) if scores[row][d] > 0), key=lambda d: (scores[row][d], f"d{d}"))
        assert found.tolist() == ranked[::-1][:k]


@pytest.mark.parametrize("method", ["lucene", "robertson", "atire", "bm25l", "bm25+"])
def test_equals_bm25s(method: str) -> None:
    import bm25s

    generator = np.random.default_rng(2)
    texts = [" ".join(f"w{w}" for w in generator.zipf(1.5, size=30).clip(max=200)) for _ in range(300)]
    documents, asked = collection(texts), collection(texts[:20], "q")
    retriever = BM25(documents, language=None, method=method)  # type: ignore[arg-type]
    run = retriever(asked, 20)
    reference = bm25s.BM25(k1=1.2, b=0.75, method=method)
    reference.index([text.split() for text in texts], show_progress=False)
    for row in range(20):
        expected = reference.get_scores(texts[row].split())
        part = slice(run.offsets[row], run.offsets[row + 1])
        np.testing.assert_allclose(run.score[part], np.sort(expected)[::-1][:20], rtol=2e-5, atol=1e-5)
        np.testing.assert_allclose(run.score[part], expected[run.document[part]], rtol=2e-5, atol=1e-5)


def test_many_equal_scores_are_cut_by_id() -> None:
    documents = Collection([f"{i:04d}" for i in range(3000)], ["cat dog"] * 3000)
    run = BM25(documents)(collection(["cats"], "q"), 5)
    assert documents.ids[run.document].tolist() == ["2999", "2998", "2997", "2996", "2995"]


def test_threads_agree() -> None:
    generator = np.random.default_rng(4)
    documents = collection([" ".join(generator.choice(WORDS, 6)) for _ in range(200)])
    asked = collection([" ".join(generator.choice(WORDS, 2)) for _ in range(300)], "q")
    one, three = (BM25(documents, threads=threads)(asked, 10) for threads in (1, 3))
    np.testing.assert_array_equal(one.document, three.document)
    np.testing.assert_array_equal(one.score, three.score)


def test_stemming_stop_words_and_titles() -> None:
    assert Words("english").terms("The treatments of CATS, at 5") == ["treatment", "cat"]
    assert Words("english", stem=False).terms("The treatments") == ["treatments"]
    assert Words("english", stop_words=False).terms("The cat") == ["the", "cat"]
    assert Words("english", stop_words=["cat"]).terms("The cat") == ["the"]
    assert Words("german").terms("die Häuser und das Haus") == ["haus", "haus"]
    assert Words("finnish").terms("talot") == ["talo"]
    titled = Collection(["a", "b"], ["plain", "plain"], {"title": ["zebra", ""]})
    assert BM25(titled)(collection(["zebras"], "q"), 2).document.tolist() == [0]


def test_every_language_builds() -> None:
    for language in module.LANGUAGES:
        assert Words(language).terms("some words")


def test_queries_without_an_answer_are_counted_and_empty() -> None:
    retriever = BM25(collection(["cat", "dog"]))
    asked = collection(["", "the of", "zebra", "cat"], "q")
    run = retriever(asked, 5)
    assert np.diff(run.offsets).tolist() == [0, 0, 0, 1]
    assert retriever.unanswered(asked) == {"without words": 2, "without known words": 1}
    assert len(retriever(Collection([], []), 5)) == 0


def test_matched_terms_add_up() -> None:
    retriever = BM25(collection(["heart attack symptoms", "heart", "bones"]))
    matched = retriever.matched_terms("Symptoms of heart attacks in hearts", 0)
    assert set(matched) == {"symptoms", "attacks", "heart"}
    assert list(matched.values()) == sorted(matched.values(), reverse=True)
    asked = collection(["Symptoms of heart attacks in hearts"], "q")
    total = retriever.score(asked, np.zeros(1, int), np.zeros(1, int))[0]
    assert sum(matched.values()) == pytest.approx(total, rel=1e-6)
    assert retriever.matched_terms("bones", 0) == {}


def test_save_and_load_give_the_same_scores(tmp_path: Path) -> None:
    documents, asked = collection(["heart attack", "broken heart", "bones"]), collection(["hearts"], "q")
    for settings_ in ({}, {"method": "bm25l", "stem": False, "stop_words": ["bones"], "k1": 0.9, "name": "words"}):
        before = BM25(documents, **settings_)  # type: ignore[arg-type]
        before.save(tmp_path / "bm25")
        after = BM25.load(tmp_path / "bm25", documents)
        assert after.settings == before.settings
        assert after.name == before.name
        np.testing.assert_array_equal(after(asked, 3).score, before(asked, 3).score)
        assert isinstance(after._data, np.memmap)
    with pytest.raises(IndexDamaged, match="other documents"):
        BM25.load(tmp_path / "bm25", collection(["else"]))


def test_the_index_does_not_depend_on_the_hash_seed() -> None:
    retriever = BM25(collection([" ".join(WORDS), "fox elk"]))
    assert list(retriever.vocabulary) == sorted(retriever.vocabulary)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "klingon"}, "language is 'klingon'"),
        ({"k1": -1}, "k1 is -1"),
        ({"b": 1.5}, "b is 1.5"),
        ({"k1": math.nan}, "k1 is nan"),
        ({"method": "tfidf"}, "method is 'tfidf'"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        BM25(collection(["cat"]), **options)


def test_documents_without_words_are_refused() -> None:
    for texts in (["", "the"], []):
        with pytest.raises(RivalsError, match="has a word"):
            BM25(collection(texts))
    assert BM25(collection(["", "cat"]))(collection(["cat"], "q"), 2).document.tolist() == [1]


def test_rows_out_of_range_are_named() -> None:
    retriever, asked = BM25(collection(["cat"])), collection(["cat"], "q")
    with pytest.raises(RivalsError, match="document_row"):
        retriever.score(asked, np.array([0]), np.array([1]))
    with pytest.raises(RivalsError, match="query_row"):
        retriever.score(asked, np.array([-1]), np.array([0]))
    with pytest.raises(RivalsError, match="same length"):
        retriever.score(asked, np.array([0, 0]), np.array([0]))


def test_quality_on_the_sample() -> None:
    """Test nDCG@10 on the embedded sample: 0.463 with stems, 0.452 without; bm25s gives the same."""
    test = load_sample().split("test")
    for stem, expected in ((True, 0.4631), (False, 0.4518)):
        scores, relevance, mask = BM25(test.documents, stem=stem)(test, 100).lists(test.judgements)
        assert ndcg(scores, relevance, mask, k=10).mean() == pytest.approx(expected, abs=0.01)
