"""Small runs from score matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from rivals.data import Collection, Run

MakeRun = Callable[..., Run]


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """Return a function: (scores[Q][C], positives[Q][...]) -> a run of all documents, positives scored alike."""

    def make(
        scores: Sequence[Sequence[float]],
        positives: Sequence[Sequence[int]] | None = None,
        *,
        texts: Sequence[str] | None = None,
        score_kind: Any = "cosine",
        **more: Any,
    ) -> Run:
        matrix = np.asarray(scores, dtype=np.float32)
        queries, documents = matrix.shape
        known = positives or [[] for _ in range(queries)]
        flat = np.array([row for rows in known for row in rows], dtype=np.int64)
        offsets = np.cumsum([0, *map(len, known)])
        owner = np.repeat(np.arange(queries), [len(rows) for rows in known])
        return Run.build(
            Collection([f"q{i}" for i in range(queries)], name="query"),
            Collection([f"d{i:03}" for i in range(documents)], texts),
            np.arange(queries + 1) * documents,
            np.tile(np.arange(documents), queries),
            matrix.ravel(),
            positives=(offsets, flat),
            positive_score=matrix[owner, flat],
            scorer="toy",
            score_kind=score_kind,
            **more,
        )

    return make
