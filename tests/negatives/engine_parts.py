"""What the workers of the engine tests open: a source that says where it worked, and can be caught at work."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from rivals.data import Collection, Dataset, Judgements, Retriever, Run
from rivals.negatives import KnownPositives, PositiveAware

QUERIES, DOCUMENTS = 60, 90


class Matrix(Retriever):
    """Scores every pair by a matrix drawn under a seed."""

    score_kind = "cosine"

    def __init__(self, documents: Collection, name: str, seed: int) -> None:
        self.documents, self.name = documents, name
        self.scores = np.random.default_rng(seed).random((QUERIES, DOCUMENTS)).astype(np.float32)

    def rows(self, queries: Collection) -> np.ndarray:
        return np.array([int(identifier[1:]) for identifier in queries.ids.tolist()], np.int64)

    def retrieve(self, queries: Collection, k: int) -> Run:
        scores = self.scores[self.rows(queries)]
        return Run.build(
            queries,
            self.documents,
            np.arange(len(queries) + 1) * DOCUMENTS,
            np.tile(np.arange(DOCUMENTS), len(queries)),
            scores.ravel(),
            scorer=self.name,
            score_kind="cosine",
        ).top(k)

    def score(self, queries: Collection, query_row: Any, document_row: Any) -> Any:
        return self.scores[self.rows(queries)[query_row], document_row]


class Watched(Retriever):
    """Passes everything on, notes who was asked for what, and waits to be killed the first time at one query."""

    def __init__(self, inner: Retriever, folder: Path, trap: str = "") -> None:
        self.inner, self.folder, self.trap = inner, folder, trap
        self.name, self.score_kind, self.documents = inner.name, inner.score_kind, inner.documents

    def retrieve(self, queries: Collection, k: int) -> Run:
        with open(self.folder / "log", "a") as log:
            log.write(f"{os.getpid()} {queries.ids[0]}\n")
        caught = self.folder / "caught"
        if self.trap in queries and not caught.exists():
            caught.write_text(str(os.getpid()))
            time.sleep(120)
        return self.inner.retrieve(queries, k)

    def score(self, queries: Collection, query_row: Any, document_row: Any) -> Any:
        return self.inner.score(queries, query_row, document_row)


class Fatal(KnownPositives):
    """A filter that ends its process."""

    def __call__(self, run: Run) -> Run:
        os.kill(os.getpid(), signal.SIGKILL)
        return run


def small_dataset() -> Dataset:
    """Queries and documents with texts, some of them alike, and a positive each."""
    asked = Collection([f"q{i:02}" for i in range(QUERIES)], [f"query {i}" for i in range(QUERIES)], name="query")
    found = Collection([f"d{i:02}" for i in range(DOCUMENTS)], [f"text {i % 80}" for i in range(DOCUMENTS)])
    positive = np.random.default_rng(5).integers(0, DOCUMENTS, QUERIES)
    judgements = Judgements.build(range(QUERIES), positive, [1] * QUERIES, queries=QUERIES, documents=DOCUMENTS)
    return Dataset(asked, found, judgements)


class Parts:
    """Opens source and filters in a worker."""

    def __init__(
        self, folder: Path, trap: str = "", filters: tuple[Any, ...] = (PositiveAware(relative=0.01),)
    ) -> None:
        self.folder, self.trap, self.filters = folder, trap, filters

    def __call__(self, dataset: Dataset) -> tuple[Retriever, tuple[Any, ...]]:
        both = Matrix(dataset.documents, "one", 1) | Matrix(dataset.documents, "two", 2)
        return Watched(both, self.folder, self.trap), self.filters
