"""Small datasets of pairs for the batchers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from rivals.data import Collection, Dataset, Judgements, Run

MakeData = Callable[..., Dataset]


@pytest.fixture(scope="session")
def make_data() -> MakeData:
    """Return a function: positives of every query [[document rows]] -> a dataset, with texts if they are given."""

    def make(
        positives: Sequence[Sequence[int]],
        documents: int | None = None,
        *,
        grades: Sequence[Sequence[float]] | None = None,
        query_texts: Sequence[str] | None = None,
        document_texts: Sequence[str] | None = None,
    ) -> Dataset:
        count = documents or max((row for rows in positives for row in rows), default=-1) + 1
        query = np.repeat(np.arange(len(positives)), [len(rows) for rows in positives])
        flat = [row for rows in positives for row in rows]
        relevance = [1.0] * len(flat) if grades is None else [grade for row in grades for grade in row]
        judged = Judgements.build(query, flat, relevance, queries=len(positives), documents=count)
        return Dataset(
            Collection([f"q{i}" for i in range(len(positives))], query_texts, name="query"),
            Collection([f"d{i}" for i in range(count)], document_texts),
            judged,
        )

    return make


@pytest.fixture(scope="session")
def make_mined() -> Callable[..., Run]:
    """Return a function: (dataset, candidates [[document rows]], best first) -> a run over it."""

    def make(data: Dataset, candidates: Sequence[Sequence[int]], **columns: object) -> Run:
        lengths = [len(rows) for rows in candidates]
        scores = [1 - 0.01 * place for rows in candidates for place in range(len(rows))]
        known = data.judgements.positives
        return Run.build(
            data.queries,
            data.documents,
            np.cumsum([0, *lengths]),
            [row for rows in candidates for row in rows],
            scores,
            positives=(known.offsets, known.document),
            columns=columns or None,
        )

    return make
