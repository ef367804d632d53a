"""Mined negatives as files in the training formats that other libraries read; `rivals.data.save_run` keeps the run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.files import atomic_file
from rivals.negatives.samplers import Draw

DRAWN = "drawn"  # the feature that says what was drawn
_CHUNK = 10_000  # rows that a Parquet writer gathers


@dataclass(frozen=True)
class Exported:
    """What a writer wrote: how many rows, and how many it left out because negatives or positives were missing."""

    path: str
    rows: int
    dropped: int

    def __str__(self) -> str:
        left_out = f"; left out {self.dropped:,} for want of negatives or a positive" if self.dropped else ""
        return f"wrote {self.rows:,} rows to {self.path}{left_out}"


# -------------------------------------------------------------------------------------------- the draw, in the run


def mark_drawn(run: Run, draw: Draw) -> Run:
    """Return the run with the feature `drawn`: the place, from 0, at which a candidate was drawn, NaN for the others.

    So a saved run says which of its candidates became negatives; `drawn_of` reads it back.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8])
    >>> drawn_of(mark_drawn(run, Draw.of_rows(run, np.array([[1, -1]])))).row.tolist()
    [[1]]
    """
    place = np.full(len(run), np.nan, np.float32)
    place[draw.row[draw.mask]] = np.nonzero(draw.mask)[1]
    return run.replace(features={**run.features, DRAWN: place})


def drawn_of(run: Run) -> Draw:
    """Return the draw that a run remembers, without its log-probabilities; k is the largest number drawn of a query.

    Raises:
        RivalsError: the run has no feature `drawn`.
    """
    if DRAWN not in run.features:
        raise RivalsError("this run does not say what was drawn from it; save it with mark_drawn, as rivals mine does")
    place = run.features[DRAWN]
    rows = np.flatnonzero(~np.isnan(place))
    at = place[rows].astype(np.int64)
    chosen = np.full((len(run.queries), int(at.max(initial=0)) + 1), -1, np.int64)
    chosen[run.query[rows], at] = rows
    return Draw.of_rows(run, chosen)


# -------------------------------------------------------------------------------------------- training formats


def write_triples(run: Run, draw: Draw, path: str | Path) -> Exported:
    """Write one JSON line per query and positive, with all its negatives: query, positive, negatives, and their ids.

    Keys: `query_id`, `query`, `positive_id`, `positive`, `negative_ids`, `negatives`. Queries that got no negative or
    have no positive are left out and counted. Use it for BEIR-style training scripts, or as input to anything that
    reads JSON.

    Raises:
        RivalsError: the queries or documents have no texts; the draw is not over the run's queries.
    """

    def rows() -> Iterator[dict[str, Any] | None]:
        for query, positives, negatives in _groups(run, draw):
            if not len(positives) or not len(negatives):
                yield None
            for positive in positives.tolist() if len(negatives) else ():
                yield {
                    "query_id": run.queries.ids[query],
                    "query": run.queries.full_texts[query],
                    "positive_id": run.documents.ids[positive],
                    "positive": run.documents.full_texts[positive],
                    "negative_ids": run.documents.ids[negatives].tolist(),
                    "negatives": [run.documents.full_texts[row] for row in negatives],
                }

    return _write(rows(), path)


def write_tuples(run: Run, draw: Draw, path: str | Path) -> Exported:
    """Write rows (anchor, positive, negative_1, ..., negative_k), for sentence-transformers (.jsonl, .parquet).

    One row per query and positive. A row needs all k negatives, so queries that could not be filled are left out and
    counted; `write_triples` keeps them. Load with `datasets.load_dataset("json", data_files=...)` or `"parquet"`.

    Raises:
        RivalsError: as `write_triples`; another suffix than .jsonl or .parquet.
    """

    def rows() -> Iterator[dict[str, Any] | None]:
        for query, positives, negatives in _groups(run, draw):
            full = len(negatives) == draw.k
            if not len(positives) or not full:
                yield None
            for positive in positives.tolist() if full else ():
                row = {"anchor": run.queries.full_texts[query], "positive": run.documents.full_texts[positive]}
                yield row | {f"negative_{i}": run.documents.full_texts[n] for i, n in enumerate(negatives.tolist(), 1)}

    return _write(rows(), path)


def write_lists(run: Run, draw: Draw, path: str | Path) -> Exported:
    """Write one row per query: its positives, then its negatives, with labels and scores; for list-wise rerankers.

    Keys: `query_id`, `query`, `document_ids`, `documents`, `labels` (the judged relevance, 0 for negatives), `scores`
    (null where a positive was not scored); .jsonl or .parquet. Queries with no negative or no positive are left out and
    counted.

    Raises:
        RivalsError: as `write_tuples`.
    """

    def rows() -> Iterator[dict[str, Any] | None]:
        for query, positives, negatives in _groups(run, draw):
            if not len(positives) or not len(negatives):
                yield None
                continue
            place = slice(run.positive_offsets[query], run.positive_offsets[query + 1])
            members = [*positives.tolist(), *negatives.tolist()]
            known = [None if np.isnan(score) else float(score) for score in run.positive_score[place]]
            yield {
                "query_id": run.queries.ids[query],
                "query": run.queries.full_texts[query],
                "document_ids": run.documents.ids[members].tolist(),
                "documents": [run.documents.full_texts[row] for row in members],
                "labels": [*run.positive_relevance[place].tolist(), *[0.0] * len(negatives)],
                "scores": known + run.score[draw.row[query][draw.mask[query]]].astype(float).tolist(),
            }

    return _write(rows(), path)


def _groups(run: Run, draw: Draw) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Every query's row, positives and drawn negatives (document rows, in the order drawn)."""
    if len(draw) != len(run.queries):
        raise RivalsError(
            f"the draw is over {len(draw)} queries, the run over {len(run.queries)}; give the run it was drawn from"
        )
    for query in range(len(draw)):
        positives = run.positive[run.positive_offsets[query] : run.positive_offsets[query + 1]]
        yield query, positives, draw.candidate[query][draw.mask[query]]


def _write(rows: Iterable[dict[str, Any] | None], path: str | Path) -> Exported:
    path, written, dropped = Path(path), 0, 0
    if path.suffix not in (".jsonl", ".parquet"):
        raise RivalsError(f"cannot write '{path.name}': name the file .jsonl or .parquet")
    binary = path.suffix == ".parquet"
    with atomic_file(path, "wb" if binary else "w") as out:
        writer: pq.ParquetWriter | None = None
        gathered: list[dict[str, Any]] = []

        def flush() -> None:
            nonlocal writer
            table = (
                pa.Table.from_pylist(gathered)
                if writer is None
                else pa.Table.from_pylist(gathered, schema=writer.schema)
            )
            writer = pq.ParquetWriter(out, table.schema, compression="zstd") if writer is None else writer
            writer.write_table(table)
            gathered.clear()

        for row in rows:
            if row is None:
                dropped += 1
                continue
            written += 1
            if not binary:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
                continue
            gathered.append(row)
            if len(gathered) >= _CHUNK:
                flush()
        if binary:
            if gathered or writer is None:
                flush()
            if writer is not None:
                writer.close()
    return Exported(str(path), written, dropped)
