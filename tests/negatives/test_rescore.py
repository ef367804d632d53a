"""Rescoring: every pair once, positives included, marks kept, blocks without effect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rivals.data import Collection, Dataset, Judgements
from rivals.errors import RivalsError
from rivals.models import CrossEncoder
from rivals.negatives import PositiveAware, Top, mine_hard_negatives
from rivals.negatives.rescore import PairScorer, Rescore
from rivals.negatives.sources import RandomSource
from rivals.retrieve import BM25
from tests.models.tiny import write_tiny_bert

WORDS = ["cat", "dog", "sat", "mat", "fever", "flu", "virus", "red", "blue", "zebra"]


class Shared:
    """Scores a pair by the words both have; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score(self, queries: Sequence[str], documents: Sequence[str]) -> list[float]:
        self.asked += zip(queries, documents, strict=True)
        return [float(len(set(q.split()) & set(d.split()))) for q, d in zip(queries, documents, strict=True)]


@pytest.fixture(scope="module")
def data() -> Dataset:
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, 5)) for _ in range(40)]
    asked = [" ".join(generator.choice(WORDS, 3)) for _ in range(12)]
    return Dataset(
        Collection([f"q{i}" for i in range(12)], asked, name="query"),
        Collection([f"d{i:02}" for i in range(40)], texts, {"title": ["cat" if i % 3 else "" for i in range(40)]}),
        Judgements.build(np.arange(12), np.arange(12), np.ones(12), queries=12, documents=40),
    )


def test_candidates_and_positives_get_the_scores_each_pair_once(data: Dataset) -> None:
    scorer = Shared()
    run = BM25(data.documents)(data, 10)
    marked = run.mark(run.rank == 1, "second")
    rescored = Rescore(scorer)(marked)
    texts = data.documents.full_texts
    expected = [
        len(set(data.queries.texts[q].split()) & set(texts[d].split()))
        for q, d in zip(rescored.query, rescored.document, strict=True)
    ]
    assert rescored.score.tolist() == expected
    known = data.judgements
    assert rescored.positive_score.tolist() == [
        len(set(data.queries.texts[q].split()) & set(texts[d].split()))
        for q, d in zip(known.query, known.document, strict=True)
    ]
    pairs = {(int(q), int(d)) for q, d in zip(run.query, run.document, strict=True)} | set(
        zip(range(12), range(12), strict=True)
    )
    assert len(scorer.asked) == len(pairs) < len(run) + 12
    assert (rescored.scorer, rescored.score_kind) == ("Shared", "other")
    assert Rescore(scorer, score_kind="dot")(run).score_kind == "dot"
    second = {(int(q), int(d)) for q, d in zip(marked.query[~marked.keep], marked.document[~marked.keep], strict=True)}
    assert {
        (int(q), int(d)) for q, d in zip(rescored.query[~rescored.keep], rescored.document[~rescored.keep], strict=True)
    } == second
    old = {(int(q), int(d)): s for q, d, s in zip(run.query, run.document, run.score, strict=True)}
    assert rescored.features["bm25"].tolist() == [
        old[int(q), int(d)] for q, d in zip(rescored.query, rescored.document, strict=True)
    ]


def test_a_retriever_rescores_by_rows(data: Dataset) -> None:
    bm25 = BM25(data.documents)
    run = Rescore(bm25)(RandomSource(data.documents)(data, 6))
    np.testing.assert_array_equal(run.score, bm25.score(data.queries, run.query, run.document))
    assert (run.scorer, run.score_kind) == ("bm25", "bm25")
    with pytest.raises(RivalsError, match="over different documents"):
        Rescore(BM25(data.documents.take(np.arange(5))))(run)


def test_a_cross_encoder_gives_what_it_gives_pair_by_pair(data: Dataset, tmp_path) -> None:
    model = CrossEncoder.load(write_tiny_bert(tmp_path / "tiny", cross=True), device="cpu", dtype="float32")
    assert isinstance(model, PairScorer)
    run = Rescore(model)(BM25(data.documents)(data.take([0, 5, 7]), 5))
    alone = [
        float(model.score([run.queries.texts[q]], [data.documents.full_texts[d]], progress=False)[0])
        for q, d in zip(run.query, run.document, strict=True)
    ]
    np.testing.assert_allclose(run.score, alone, atol=1e-5)


@pytest.mark.parametrize("block", [1, 5])
def test_mining_with_a_margin_of_the_second_scorer(data: Dataset, block: int) -> None:
    filters = (Rescore(Shared()), PositiveAware(absolute=1.0, without_positive="keep"))
    options = {"filters": filters, "sampler": Top(2), "top_k": 12, "show": False, "allow_none": True}
    at_once = mine_hard_negatives(BM25(data.documents), data, **options)
    mined = mine_hard_negatives(BM25(data.documents), data, block=block, **options)
    assert mined.draw.candidate.tolist() == at_once.draw.candidate.tolist()
    drawn = mined.draw.row[mined.draw.mask]
    limit = mined.run.positive_score[mined.run.query[drawn]] - 1
    assert (mined.run.score[drawn] <= limit).all()
    assert mined.draw.mask.any()
    assert "Rescore(Shared)" in mined.audit.steps


def test_wrong_scorers_are_told(data: Dataset) -> None:
    run = BM25(data.documents)(data, 4)
    with pytest.raises(RivalsError, match="int has no method score"):
        Rescore(3)  # type: ignore[arg-type]

    class Few:
        def score(self, queries: Sequence[str], documents: Sequence[str]) -> list[float]:
            return [1.0]

    with pytest.raises(RivalsError, match=r"Rescore\(Few\) gave scores of shape \(1,\) for \d+ pairs"):
        Rescore(Few())(run)

    class Nothing(Few):
        def score(self, queries: Sequence[str], documents: Sequence[str]) -> list[float]:
            return [float("nan")] * len(queries)

    with pytest.raises(RivalsError, match="has the score NaN"):
        Rescore(Nothing())(run)
    bare = Dataset(data.queries, Collection(data.documents.ids.tolist()), data.judgements)
    with pytest.raises(RivalsError, match="have ids but no texts"):
        Rescore(Shared())(RandomSource(bare.documents)(bare, 3))
