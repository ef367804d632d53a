"""Mined negatives as files: the whole run as Parquet, and the training formats that other libraries read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.run import Run
from rivals.errors import DataError, RivalsError
from rivals.files import atomic_file
from rivals.negatives.samplers import Draw

_FORMAT = 1
_COLUMNS = ("score", "source", "keep", "weight", "label", "target", "fn_probability", "reason")
_POSITIVE = ("positive_score", "positive_relevance")
_META = ("sources", "reasons", "scorer", "score_kind", "version", "built_from", "created_step", "seed")
_FEATURE = "feature:"
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


# ------------------------------------------------------------------------------------------ the run as Parquet


class RunWriter:
    """Writes a run to a Parquet file block after block; the file takes its name when the `with` block ends well.

    One row per query: `query_id`, then lists over its candidates in rank order (`document_id`, `score`, `source`,
    `keep`, `weight`, `label`, `target`, `fn_probability`, `reason`, `feature:NAME`) and over its positives
    (`positive_id`, `positive_score`, `positive_relevance`). The names of reasons and sources and the other metadata are
    JSON under the key `rivals` of the file's metadata.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows = 0
        self._meta: dict[str, Any] | None = None
        self._writer: pq.ParquetWriter | None = None
        self._stack = ExitStack()

    def __enter__(self) -> RunWriter:
        self._out = self._stack.enter_context(atomic_file(self.path, "wb"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
        self._stack.__exit__(kind, error, trace)

    def add(self, run: Run) -> None:
        """Append the queries of one run. All runs of a file need the same reasons, sources and features."""
        meta = {name: getattr(run, name) for name in _META}
        table = _run_table(run)
        if self._writer is None:
            self._meta = meta
            head = json.dumps({"format": _FORMAT, **meta}, ensure_ascii=False)
            self._writer = pq.ParquetWriter(self._out, table.schema.with_metadata({"rivals": head}), compression="zstd")
        elif meta != self._meta:
            raise RivalsError("the runs of one file need the same sources, reasons, scorer and seed")
        self._writer.write_table(table.replace_schema_metadata(self._writer.schema.metadata))
        self.rows += len(run.queries)


def write_run(run: Run, path: str | Path) -> Exported:
    """Write a run with all its marks and positives to a Parquet file; `read_run` gives the same run back.

    >>> import tempfile
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write_run(run, Path(folder) / "run.parquet")
    ...     read_run(Path(folder) / "run.parquet", run.queries, run.documents).document.tolist()
    [0, 1]
    """
    with RunWriter(path) as writer:
        writer.add(run)
    return Exported(str(path), writer.rows, 0)


def read_run(path: str | Path, queries: Collection, documents: Collection) -> Run:
    """Read a run written by `write_run` or mining's `output`.

    Args:
        queries: the run's queries or more; the run is over those in the file, in the file's order.
        documents: every document that the file names.

    Raises:
        DataError: not such a file, a damaged one, or ids that the collections do not have.
    """
    try:
        table = pq.read_table(path)
        meta = json.loads((table.schema.metadata or {})[b"rivals"])
        if meta.pop("format") != _FORMAT:
            raise DataError("this run was written by another version; mine or export it again", path=path)
        return _table_run(table, meta, queries, documents)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError("there is no such file", path=path) from None
    except RivalsError as error:
        raise DataError(str(error), path=path) from None
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"this is not a run in Parquet as write_run writes it ({error})", path=path) from None


def _run_table(run: Run) -> pa.Table:
    def nested(offsets: NDArray[np.int64], values: Any) -> pa.Array:
        return pa.LargeListArray.from_arrays(pa.array(offsets), values)

    def ids(rows: NDArray[np.int64]) -> pa.Array:
        taken = run.documents.table["id"].take(pa.array(rows))
        return taken.combine_chunks() if isinstance(taken, pa.ChunkedArray) else taken

    columns: dict[str, Any] = {
        "query_id": run.queries.table["id"],
        "document_id": nested(run.offsets, ids(run.document)),
    }
    for name in _COLUMNS:
        columns[name] = nested(run.offsets, pa.array(getattr(run, name)))
    for name, values in run.features.items():
        columns[_FEATURE + name] = nested(run.offsets, pa.array(values))
    columns["positive_id"] = nested(run.positive_offsets, ids(run.positive))
    for name in _POSITIVE:
        columns[name] = nested(run.positive_offsets, pa.array(getattr(run, name)))
    return pa.table(columns)


def _table_run(table: pa.Table, meta: dict[str, Any], queries: Collection, documents: Collection) -> Run:
    def values(name: str) -> Any:
        return table[name].combine_chunks().flatten()

    def offsets(name: str) -> NDArray[np.int64]:
        lengths = [chunk.value_lengths().to_numpy(zero_copy_only=False) for chunk in table[name].chunks]
        return lists.offsets_from_lengths(np.concatenate([np.zeros(0, np.int64), *lengths]).astype(np.int64))

    def numbers(name: str) -> NDArray[Any]:
        return values(name).to_numpy(zero_copy_only=False)

    run = Run.build(
        queries.take(queries.rows(table["query_id"].to_pylist())),
        documents,
        offsets("document_id"),
        documents.rows(values("document_id").to_pylist()),
        numbers("score"),
        features={
            name.removeprefix(_FEATURE): numbers(name) for name in table.column_names if name.startswith(_FEATURE)
        },
        positives=(offsets("positive_id"), documents.rows(values("positive_id").to_pylist())),
        positive_score=numbers("positive_score"),
        positive_relevance=numbers("positive_relevance"),
        columns={name: numbers(name) for name in _COLUMNS if name != "score"},
    )
    changes = {
        name: tuple(value) if isinstance(value, list) else value for name, value in meta.items() if name in _META
    }
    return run.replace(**changes)


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
