"""Exact top-k of inner products, against faiss `IndexFlatIP`: random unit vectors, and clustered ones as texts give."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._harness import Case, Target, Variant, Workload

_DIMENSIONS = 384


def unit_vectors(count: int, centres: int, seed: int, *, spread: float = 0.7) -> NDArray[np.float32]:
    """Return unit vectors float32[count, 384]: random, or scattered about common centres where `centres` > 0."""
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((count, _DIMENSIONS), dtype=np.float32)
    if centres:
        middle = np.random.default_rng(0).standard_normal((centres, _DIMENSIONS), dtype=np.float32)
        vectors = middle[generator.integers(0, centres, count)] + spread * vectors
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def recall(
    queries: NDArray[np.float32], documents: NDArray[np.float32], rows: NDArray[np.int64], rounding: float = 1e-6
) -> float:
    """Return the share of listed documents whose float64 score is among the k best, up to float32's rounding."""
    products = queries.astype(np.float64) @ documents.T.astype(np.float64)
    k = rows.shape[1]
    least = -np.partition(-products, k - 1, axis=1)[:, k - 1]
    distinct = np.array([len(set(row)) for row in rows.tolist()])
    hits = np.take_along_axis(products, rows, 1) >= least[:, None] - rounding
    return float(hits.mean() * (distinct / k).mean())


def workload(centres: int, quick: bool) -> Workload:
    """Search 512 queries in 20,000 documents for the best 100 (8 in 200 for 10 when quick)."""
    from rivals.retrieve import PreparedDocuments, exact_top_k

    asked, size, k = (8, 200, 10) if quick else (512, 20_000, 100)
    queries, documents = unit_vectors(asked, centres, 1), unit_vectors(size, centres, 2)
    prepared = PreparedDocuments(documents)
    variants = [Variant("rivals", lambda threads: exact_top_k(queries, prepared, k)[1])]
    missing = []
    if find_spec("faiss") is None:
        missing.append("faiss")
    else:
        import faiss

        index = faiss.IndexFlatIP(_DIMENSIONS)
        index.add(documents)
        variants.append(Variant("faiss IndexFlatIP", lambda threads: index.search(queries, k)[1]))
    variants += [
        Variant("rivals, preparing included", lambda threads: exact_top_k(queries, documents, k)[1]),
        Variant("rivals, proven bound", lambda threads: exact_top_k(queries, prepared, k, proven=True)[1]),
    ]

    def checks(results: dict[str, Any]) -> dict[str, float]:
        return {
            "recall" if name == "rivals" else f"recall of {name}": recall(queries, documents, rows)
            for name, rows in results.items()
        }

    return Workload(
        what=f"exact top {k}, {asked} queries, {size:,} x {_DIMENSIONS} {'clustered' if centres else 'random'}",
        unit="queries/s",
        amount=asked,
        flops=2.0 * asked * size * _DIMENSIONS,
        variants=variants,
        targets=[
            Target("at least 1.4x faiss IndexFlatIP", "speed", 1.4),
            Target("recall of the exact list at least 0.999", "recall", 0.999),
        ],
        checks=checks,
        missing=missing,
        notes=[f"our product here is {prepared.precision}"],
    )


CASES: dict[str, Case] = {"random": partial(workload, 0), "clustered": partial(workload, 200)}
