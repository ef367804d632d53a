"""A dense retriever over vectors made in a test: the encoder looks texts up."""

from __future__ import annotations

from typing import Any

import numpy as np

from rivals.data import Collection, Dataset, Judgements
from rivals.retrieve import Dense


class LookUp:
    """Stands for an encoder: gives each text the vector it was made with."""

    def __init__(self, vectors: dict[str, np.ndarray], name: str) -> None:
        self.vectors, self.name = vectors, name

    def encode(self, texts: list[str], *, role: str, progress: Any) -> np.ndarray:
        width = len(next(iter(self.vectors.values())))
        return np.array([self.vectors[text] for text in texts], np.float32).reshape(-1, width)

    def fingerprint(self) -> str:
        return self.name


def searched(
    queries: np.ndarray, documents: np.ndarray, positives: list[list[int]], *, name: str = "made", **options: Any
) -> tuple[Dense, Dataset]:
    """Return a `Dense` over the documents' vectors and the dataset of the queries with their positives."""
    asked = Collection(
        [f"q{i}" for i in range(len(queries))], [f"query {i}" for i in range(len(queries))], name="query"
    )
    told = Collection([f"d{i:04}" for i in range(len(documents))], [f"text {i}" for i in range(len(documents))])
    vectors = dict(zip([*asked.texts, *told.texts], [*queries, *documents], strict=True))
    owner = np.repeat(np.arange(len(queries)), [len(rows) for rows in positives])
    flat = np.array([row for rows in positives for row in rows], np.int64)
    judged = Judgements.build(owner, flat, np.ones(len(flat)), queries=len(queries), documents=len(documents))
    dense = Dense(LookUp(vectors, name), told, show_progress=False, **options)
    return dense, Dataset(asked, told, judged)


def planted(seed: int, *, queries: int = 160, noise: int = 6) -> tuple[Dense, Dataset, np.ndarray]:
    """Queries with 3 relevant documents, of which one is known; what makes them relevant is half of their vectors.

    Returns the retriever, the dataset that knows one positive each, and relevant bool[Q, N].
    """
    generator = np.random.default_rng(seed)
    topics = generator.normal(size=(queries, 6))
    about = np.concatenate([np.repeat(topics, 3, axis=0), generator.normal(size=(queries * 3, 6))])
    about = about + 0.25 * generator.normal(size=about.shape)
    documents = np.concatenate([about, generator.normal(size=(len(about), noise))], axis=1)
    asked = np.concatenate([topics, generator.normal(size=(queries, noise))], axis=1)
    relevant = np.zeros((queries, len(documents)), bool)
    relevant[np.repeat(np.arange(queries), 3), np.arange(3 * queries)] = True
    dense, dataset = searched(asked, documents, [[3 * i] for i in range(queries)])
    return dense, dataset, relevant


def all_known(dataset: Dataset, relevant: np.ndarray) -> Dataset:
    """Return the dataset that knows every relevant document."""
    query, document = np.nonzero(relevant)
    judged = Judgements.build(query, document, np.ones(len(query)), queries=len(relevant), documents=relevant.shape[1])
    return Dataset(dataset.queries, dataset.documents, judged)
