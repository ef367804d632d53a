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
    """Re-scores candidates by the share of the query's words that they hold, and a little by their brevity."""

    def __call__(self, run: Run) -> Run:
        words = [set(re.findall(r"\w+", text.lower())) for text in run.queries.texts]
        texts = [run.documents.full_texts[row] for row in run.document]
        share = [
            len(words[q] & set(re.findall(r"\w+", text.lower()))) / len(words[q])
            for q, text in zip(run.query, texts, strict=True)
        ]
        brevity = 1e-3 / np.log2([2.0 + len(text) for text in texts])
        return run.rescored(np.array(share) + brevity, scorer="overlap")


@pytest.fixture(scope="session")
def documents() -> Collection:
    """The first 240 answers of the sample."""
    return load_sample().documents.take(range(240))


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
