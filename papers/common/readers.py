"""MiniLM as a scorer of pairs of texts, by one vector a text and by MaxSim over its tokens' vectors, and BM25 beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from rivals.data import Collection
from rivals.diagnose.robustness import text_scorer
from rivals.models import Encoder
from rivals.models.batching import TokenVectors
from rivals.models.late_interaction import max_sim_pairs
from rivals.retrieve import BM25

Score = Callable[[list[str], list[str]], NDArray[np.float32]]


class Read:
    """Texts read once by MiniLM in float32: their unit vectors and those of their tokens."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = list(dict.fromkeys(texts))
        self.row = {text: number for number, text in enumerate(self.texts)}
        self.encoder = Encoder.load("all-MiniLM-L6-v2", device="cpu", dtype="float32")
        pooled, tokens = self.encoder.encode_with_tokens(self.texts, storage="float16")
        self.pooled: NDArray[np.float32] = pooled
        self.tokens: TokenVectors = tokens

    def rows(self, texts: list[str]) -> NDArray[np.int64]:
        """Return the rows of texts."""
        return np.array([self.row[text] for text in texts], np.int64)

    def vector_score(self, queries: list[str], documents: list[str]) -> NDArray[np.float32]:
        """Return the cosine of each pair."""
        return np.einsum("nd,nd->n", self.pooled[self.rows(queries)], self.pooled[self.rows(documents)])

    def max_sim_score(self, queries: list[str], documents: list[str]) -> NDArray[np.float32]:
        """Return MaxSim of each pair."""
        return max_sim_pairs(self.tokens, self.tokens, self.rows(queries), self.rows(documents))

    def cut(self, texts: Iterable[str]) -> float:
        """Return the share of texts that are longer than what the encoder reads."""
        sizes = [len(ids) for ids in self.encoder.tokenizer(list(texts))["input_ids"]]
        return float(np.mean([size > self.encoder.max_length for size in sizes]))


def bm25_scorer(corpus: list[str], texts: Iterable[str]) -> Score:
    """Return BM25's scores of pairs, with the statistics of a corpus and of the texts asked about."""
    held = Collection([str(number) for number in range(len(corpus))], corpus)
    return text_scorer(BM25(held, threads=1), texts)
