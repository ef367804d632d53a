"""Parts that the tests of serving share: a slice of the embedded sample, and real retrievers over it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rivals.data import Collection, Run, Transform, load_sample
from rivals.models import Encoder
from rivals.retrieve.bm25 import BM25
from rivals.retrieve.dense import Dense
from rivals.serve.engine import SearchEngine


class WordOverlap(Transform):
    """Adds the share of the query's words that a candidate holds to its cosine: a second stage that builds on it."""

    def __call__(self, run: Run) -> Run:
        assert run.score_kind == "cosine", "the engine gives a reranker the scores it was made for"
        asked = [words(text) for text in run.queries.texts]
        found = [words(run.documents.full_texts[row]) for row in run.document]
        share = [len(asked[q] & text) / max(len(asked[q]), 1) for q, text in zip(run.query, found, strict=True)]
        return run.rescored(0.5 * np.array(share, dtype=np.float32) + run.score, scorer="overlap")


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


@pytest.fixture(scope="session")
def documents() -> Collection:
    """Every fourteenth answer of the sample: 240, of all sources."""
    return load_sample().documents.take(range(0, 240 * 14, 14))


@pytest.fixture(scope="session")
def bm25(documents: Collection) -> BM25:
    return BM25(documents)


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return Encoder.load("all-MiniLM-L6-v2", device="cpu", max_length=64)


@pytest.fixture(scope="session")
def dense(encoder: Encoder, documents: Collection) -> Dense:
    return Dense(encoder, documents, show_progress=False)


@pytest.fixture(scope="session")
def engine(documents: Collection, bm25: BM25, dense: Dense) -> SearchEngine:
    """All three stages, with few enough candidates that each has some which the others have not."""
    return SearchEngine(documents, bm25=bm25, dense=dense, reranker=WordOverlap(), candidates=20, name="sample")
