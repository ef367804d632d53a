"""Filters over a million candidate rows: known positives, duplicates, scores, the triangle rule, neighbour noise.

10,000 queries with 100 candidates each of 20,000 documents, 384 dimensions; every query has one positive and two judged
negatives, a fiftieth of the documents repeat another's text. The peer is the same rules as one loop over rows in Python,
which is what mining scripts do.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._harness import Case, Target, Variant, Workload
from benchmarks.top_k import unit_vectors

_HIGHEST = 0.6  # a margin below the positive and the triangle rule leave nothing together, so a plain limit is used


class _Space:
    """Finished vectors of queries and documents."""

    def __init__(self, documents: Any, queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> None:
        self.documents, self.vectors, self._queries = documents, vectors, queries

    def query_vectors(self, queries: Any) -> NDArray[np.float32]:
        """Return the vectors of the queries, which are named by their number."""
        return self._queries[[int(name) for name in queries.ids]]


def _run(quick: bool) -> tuple[Any, _Space]:
    from rivals.data import Collection, Run
    from rivals.retrieve.dense import pair_products

    asked, size, width = (50, 400, 20) if quick else (10_000, 20_000, 100)
    generator = np.random.default_rng(5)
    vectors, queries = unit_vectors(size, 400 if not quick else 8, 1), unit_vectors(asked, 400 if not quick else 8, 2)
    texts = [f"answer number {row if row % 50 else row // 100 * 100}" for row in range(size)]
    documents = Collection([f"{row}" for row in range(size)], texts)
    document = np.argsort(generator.random((asked, size // (size // (2 * width))), dtype=np.float32), axis=1)[:, :width]
    document = (document * (size // (2 * width)) + generator.integers(0, size // (2 * width), document.shape)).ravel()
    owner = np.repeat(np.arange(asked), width)
    score = pair_products(queries, vectors, owner, document)
    positive = document.reshape(asked, width)[np.arange(asked), generator.integers(0, width, asked)]
    label = np.full(asked * width, -1, np.int8)
    label[generator.integers(0, asked * width, 2 * asked)] = 0
    run = Run.build(
        Collection([f"{row}" for row in range(asked)], name="query"),
        documents,
        np.arange(asked + 1) * width,
        document,
        score,
        positives=(np.arange(asked + 1), positive),
        positive_score=pair_products(queries, vectors, np.arange(asked), positive),
        scorer="dense",
        score_kind="cosine",
        columns={"label": label},
    )
    _ = documents.text_groups, documents.tie_order  # once a collection, whatever is filtered
    return run, _Space(documents, queries, vectors)


def _filters(space: _Space) -> list[Any]:
    from rivals.negatives.closer_than_positive import CloserThanPositive
    from rivals.negatives.filters import Duplicates, KnownPositives, PositiveAware
    from rivals.negatives.neighbour_filter import NeighbourNoise

    return [
        KnownPositives(),
        Duplicates(),
        PositiveAware(max_score=_HIGHEST),
        CloserThanPositive(space),
        NeighbourNoise(space, missed=5),
    ]


def _loops(run: Any, space: _Space) -> NDArray[np.bool_]:
    """The same five rules, row by row."""
    keep = []
    for query in range(len(run.queries)):
        rows = range(run.offsets[query], run.offsets[query + 1])
        positive = int(run.positive[query])
        own = float(run.positive_score[query])
        text = run.documents.text_hashes[positive]
        wanted, near, seen = space.vectors[positive], [], set()
        for row in rows:
            document = int(run.document[row])
            near.append(float(wanted @ space.vectors[document]))
            said = run.documents.text_hashes[document]
            score = float(run.score[row])
            good = document != positive and said != text and said not in seen
            good &= score <= _HIGHEST
            good &= score > own and score > near[-1]
            seen.add(said)
            keep.append(good)
        unjudged = [row for row in rows if run.label[row] < 0 and int(run.document[row]) != positive]
        if sum(float(run.score[row]) > own for row in unjudged) >= 5:
            for row in sorted(unjudged, key=lambda row: -near[row - rows.start])[:5]:
                keep[row] = False
    return np.array(keep)


def workload(quick: bool) -> Workload:
    """Mark a million candidates by five filters (a thousand when quick)."""
    run, space = _run(quick)
    filters = _filters(space)
    rows = len(run)

    seconds: list[float] = []

    def ours(threads: int) -> NDArray[np.bool_]:
        started, marked = time.process_time(), run
        for step in filters:
            marked = step(marked)
        seconds.append(time.process_time() - started)
        return marked.keep

    def one(step: Any) -> Any:
        return lambda threads: step(run).keep

    names = [type(step).__name__ for step in filters]
    alone = [Variant(f"rivals, {name} alone", one(step)) for name, step in zip(names, filters, strict=True)]
    loops = Variant("loops in Python", lambda threads: _loops(run, space))

    def checks(results: dict[str, Any]) -> dict[str, float]:
        same = results["rivals"] == results[loops.name]
        return {
            "rows marked as by the loops": float(same.mean()),
            "rows kept": float(results["rivals"].mean()),
            "CPU seconds": min(seconds),
        }

    return Workload(
        what=f"{rows:,} rows x 5 filters, 384 dimensions",
        unit="rows/s",
        amount=rows,
        variants=[Variant("rivals", ours), *alone, loops],
        targets=[
            Target("at least 3x the loops", "speed", 3.0),
            Target("marks as the loops do", "rows marked as by the loops", 1.0),
            Target("a million rows in 2 s on one core", "CPU seconds", 2.0, at_least=False),
        ],
        checks=checks,
        rounds=3,
    )


CASES: dict[str, Case] = {"": workload}
