"""Stored negatives for sampled ranking measures: drawn once under a seed, saved, and loaded by everyone who compares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.dataset import Judgements
from rivals.errors import DataError, RivalsError

_CELLS = 1 << 22
_FORMAT = b"rivals evaluation negatives"


@dataclass(frozen=True, eq=False)
class EvaluationNegatives:
    """Documents that each query's answers are ranked among in sampled measures, grouped by query as in CSR.

    Use them only to repeat a published protocol: measures on a sample are not the full ones and may order systems
    differently (Krichene and Rendle 2020). `full_ranking(..., negatives=...)` gives both. `how` and `seed` say how they
    were drawn.

    >>> EvaluationNegatives(np.array([0, 2]), np.array([1, 4]), "uniform", 0)
    2 sampled negatives of 1 queries (uniform, seed 0)
    """

    offsets: NDArray[np.int64]
    document: NDArray[np.int64]
    how: str
    seed: int

    def __repr__(self) -> str:
        return (
            f"{len(self.document)} sampled negatives of {len(self.offsets) - 1} queries ({self.how}, seed {self.seed})"
        )

    @property
    def query(self) -> NDArray[np.int64]:
        """The query row of every negative."""
        return lists.segment_ids(self.offsets)

    def take(self, query_rows: NDArray[np.int64]) -> EvaluationNegatives:
        """Return the negatives of some queries, renumbered in the order given."""
        index, offsets = lists.take_segments(self.offsets, query_rows)
        return EvaluationNegatives(offsets, self.document[index], self.how, self.seed)

    @classmethod
    def draw(
        cls,
        positives: Judgements,
        n: int,
        *,
        documents: int,
        known: Judgements | None = None,
        how: Literal["uniform", "popularity"] = "uniform",
        popularity: ArrayLike | None = None,
        seed: int = 0,
    ) -> EvaluationNegatives:
        """Draw n documents a query without replacement, never a judged positive or a known one; fewer if there are fewer.

        Args:
            documents: how many there are. popularity: float[documents], the weights of how="popularity"; a document of
                weight 0 is never drawn.

        Raises:
            RivalsError: n below 1, unknown `how`, popularity missing or not [documents] of numbers from 0, known over
                other queries.

        >>> answers = Judgements.build([0], [2], [1], queries=1, documents=3)
        >>> sorted(EvaluationNegatives.draw(answers, 5, documents=3).document.tolist())
        [0, 1]
        """
        if n < 1:
            raise RivalsError(f"n is {n}; draw at least one negative a query")
        if how not in ("uniform", "popularity"):
            raise RivalsError(f"how is '{how}'; it can be 'uniform' or 'popularity'")
        if known is not None and len(known.offsets) != len(positives.offsets):
            raise RivalsError(
                f"known covers {len(known.offsets) - 1} queries, the positives {len(positives.offsets) - 1}"
            )
        weight = np.ones(documents) if how == "uniform" else np.asarray(popularity, np.float64)
        if weight.shape != (documents,) or not (weight >= 0).all() or not np.isfinite(weight).all():
            raise RivalsError(f"popularity must be {documents} finite weights of 0 or more, one a document")
        queries = len(positives.offsets) - 1
        banned = [part.positives for part in (positives, known) if part is not None]
        generator = np.random.default_rng([seed, 79])
        size = max(1, _CELLS // max(documents, 1))
        rows: list[NDArray[np.int64]] = []
        counts = np.zeros(queries, np.int64)
        with np.errstate(divide="ignore"):
            logs = np.log(weight)
        for start in range(0, queries, size):
            inside = np.arange(start, min(start + size, queries))
            # The largest log-weights plus Gumbel noise are a weighted draw without replacement.
            keys = logs + generator.gumbel(size=(len(inside), documents))
            for part in banned:
                taken = part.take(inside)
                keys[taken.query, taken.document] = -np.inf
            best = np.argpartition(-keys, min(n, documents) - 1, axis=1)[:, :n] if documents else keys.astype(np.int64)
            there = np.isfinite(np.take_along_axis(keys, best, 1))
            order = np.argsort(np.where(there, best, documents), axis=1)
            best, there = np.take_along_axis(best, order, 1), np.take_along_axis(there, order, 1)
            counts[inside] = there.sum(1)
            rows.append(best[there])
        document = np.concatenate([*rows, np.zeros(0, np.int64)]).astype(np.int64)
        return cls(lists.offsets_from_lengths(counts), document, how, seed)

    def save(self, path: str | Path, queries: Collection, documents: Collection) -> None:
        """Write the negatives by id as Parquet, with how they were drawn.

        Raises:
            RivalsError: the collections do not fit the rows.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if len(queries) != len(self.offsets) - 1 or self.document.max(initial=-1) >= len(documents):
            raise RivalsError(f"{self} do not fit {len(queries)} queries and {len(documents)} documents")
        table = pa.table({"query_id": queries.ids[self.query], "document_id": documents.ids[self.document]})
        facts = {b"format": _FORMAT, b"how": self.how.encode(), b"seed": str(self.seed).encode()}
        pq.write_table(table.replace_schema_metadata(facts), path)

    @classmethod
    def load(cls, path: str | Path, queries: Collection, documents: Collection) -> EvaluationNegatives:
        """Read what `save` wrote, for queries and documents in any order.

        Raises:
            DataError: no such file, another kind of file, an id that the collections do not have.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as fault:
            raise DataError(f"{path} cannot be read as evaluation negatives: {fault}") from None
        facts = table.schema.metadata or {}
        if facts.get(b"format") != _FORMAT:
            raise DataError(f"{path} does not hold evaluation negatives; write them with EvaluationNegatives.save")
        query = queries.rows(table["query_id"].to_pylist())
        document = documents.rows(table["document_id"].to_pylist())
        order = np.lexsort((document, query))
        counts = np.bincount(query, minlength=len(queries))
        offsets = lists.offsets_from_lengths(counts)
        return cls(offsets, document[order].astype(np.int64), facts[b"how"].decode(), int(facts[b"seed"]))
