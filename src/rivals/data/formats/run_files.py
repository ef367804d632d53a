"""Runs on disk: Parquet, which keeps every column, or TREC format, which every evaluation tool reads."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.formats.fields import short
from rivals.data.formats.text import first_bytes
from rivals.data.formats.trec import load_trec_run, save_trec_run
from rivals.data.run import Run
from rivals.errors import DataError, RivalsError
from rivals.files import atomic_file

PathLike = str | Path

_KEY = b"rivals.run"
_FORMAT = 1
_COLUMNS = ("score", "source", "keep", "weight", "label", "target", "fn_probability", "reason")
_FACTS = ("scorer", "score_kind", "version", "built_from", "created_step", "seed")


def save_run(run: Run, path: PathLike, tag: str = "") -> None:
    """Write a run: with every column if the name ends in .parquet, else in TREC format under `tag` (or the scorer).

    The Parquet file has a row per query: `query_id`, the list `document_id` and a list for every other column,
    `feature.NAME` for features, `positive_*` for the positives, and the metadata as JSON in its schema.

    Raises:
        DataError: TREC format cannot hold an id or tag with blanks.

    >>> import tempfile
    >>> queries, documents = Collection(["q"], name="query"), Collection(["a", "b"])
    >>> run = Run.build(queries, documents, [0, 2], [0, 1], [.1, .2], scorer="bm25")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_run(run, Path(folder) / "bm25.trec")
    ...     (Path(folder) / "bm25.trec").read_text()
    'q Q0 b 1 0.200000003 bm25\\nq Q0 a 2 0.100000001 bm25\\n'
    """
    path = Path(path)
    if path.suffix.lower() != ".parquet":
        save_trec_run(run, path, tag)
        return
    with RunWriter(path) as writer:
        writer.add(run)


class RunWriter:
    """Writes the Parquet file of `save_run` block after block; it takes its name when the `with` block ends well.

    >>> import tempfile
    >>> run = Run.build(Collection(["q"], name="query"), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with RunWriter(Path(folder) / "run.parquet") as writer:
    ...         writer.add(run)
    ...     load_run(Path(folder) / "run.parquet", run.queries, run.documents).document.tolist()
    [0, 1]
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self._facts: dict[str, Any] | None = None
        self._writer: Any = None
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
        """Append the queries of one run. All runs of a file need the same sources, reasons, features and metadata."""
        import pyarrow.parquet as pq

        facts: dict[str, Any] = {name: getattr(run, name) for name in _FACTS}
        facts |= {"format": _FORMAT, "sources": list(run.sources), "reasons": list(run.reasons)}
        table = _table(run).replace_schema_metadata({_KEY: json.dumps(facts).encode()})
        if self._writer is None:
            self._facts = facts
            self._writer = pq.ParquetWriter(self._out, table.schema, compression="zstd", write_page_checksum=True)
        elif facts != self._facts or table.schema != self._writer.schema:
            raise RivalsError("the runs of one file need the same sources, reasons, features, scorer and seed")
        self._writer.write_table(table)


def _table(run: Run) -> Any:
    import pyarrow as pa

    def ragged(values: Any, offsets: NDArray[np.int64]) -> pa.Array:
        return pa.LargeListArray.from_arrays(
            pa.array(offsets), values if isinstance(values, pa.Array) else pa.array(values)
        )

    ids = run.documents.table["id"].combine_chunks()
    columns = {
        "query_id": run.queries.table["id"],
        "document_id": ragged(ids.take(pa.array(run.document)), run.offsets),
    }
    columns |= {name: ragged(getattr(run, name), run.offsets) for name in _COLUMNS}
    columns |= {f"feature.{name}": ragged(values, run.offsets) for name, values in run.features.items()}
    positive = {"positive_id": ids.take(pa.array(run.positive))}
    positive |= {name: getattr(run, name) for name in ("positive_score", "positive_relevance")}
    columns |= {name: ragged(values, run.positive_offsets) for name, values in positive.items()}
    return pa.table(columns)


def load_run(path: PathLike, queries: Collection | None = None, documents: Collection | None = None) -> Run:
    """Load a run that `save_run` or any TREC tool wrote; the content tells which.

    Args:
        queries, documents: what the ids refer to; the run then covers all these queries, in their order. Left out,
            collections without texts are made of the ids in the file.

    Raises:
        DataError: a damaged file, an unknown id, a document twice under a query, with the file's name.
    """
    path = Path(path)
    try:
        if first_bytes(path).startswith(b"PAR1"):
            return _load_parquet(path, queries, documents)
        if path.suffix.lower() == ".parquet":
            raise DataError("this is not a Parquet file (it does not begin with PAR1), or it is damaged", path=path)
        return load_trec_run(path, queries, documents)
    except RivalsError as error:
        if isinstance(error, DataError) and error.path is not None:
            raise
        raise DataError(str(error), path=path) from None


def _load_parquet(path: Path, queries: Collection | None, documents: Collection | None) -> Run:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, memory_map=False, page_checksum_verification=True).combine_chunks()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"this Parquet file cannot be read; it is damaged or truncated ({reason})", path=path) from None
    facts = _facts(table.schema.metadata or {}, path)
    wanted = ("query_id", "document_id", *_COLUMNS, "positive_id", "positive_score", "positive_relevance")
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise DataError(f"this is no complete run file; it lacks {', '.join(missing)}", path=path)
    features = [name for name in table.column_names if name.startswith("feature.")]
    columns: dict[str, Any] = {}
    offsets: dict[str, NDArray[np.int64]] = {}
    for name in (*wanted[1:], *features):
        column = table[name].combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        if not pa.types.is_large_list(column.type) or column.null_count or column.flatten().null_count:
            raise DataError(f"run column {short(name)} must hold lists without gaps", path=path)
        offsets[name] = (
            column.offsets.to_numpy().astype(np.int64) - column.offsets[0].as_py()
            if len(column)
            else np.zeros(1, np.int64)
        )
        columns[name] = column.flatten()
        group = "positive_id" if name.startswith("positive_") else "document_id"
        if not np.array_equal(offsets[name], offsets[group]):
            raise DataError(f"run column {short(name)} has lists of other lengths than '{group}'", path=path)
    query_ids = table["query_id"].to_pylist()
    document_ids, positive_ids = columns.pop("document_id").to_pylist(), columns.pop("positive_id").to_pylist()
    if documents is None:
        documents = Collection(dict.fromkeys([*document_ids, *positive_ids]))
    stored = Collection(query_ids, name="query")
    queries = stored if queries is None else queries
    unknown = [identifier for identifier in query_ids if identifier not in queries]
    if unknown:
        raise DataError(f"no query has the id '{unknown[0]}' among {len(queries)}", path=path)
    candidates, run_offsets = _align(stored, queries, offsets["document_id"])
    positives, positive_offsets = _align(stored, queries, offsets["positive_id"])
    values = {name: column.to_numpy(zero_copy_only=False) for name, column in columns.items()}
    run = Run.build(
        queries,
        documents,
        run_offsets,
        documents.rows(document_ids)[candidates],
        values["score"][candidates],
        source=values["source"][candidates],
        features={name.removeprefix("feature."): values[name][candidates] for name in features},
        positives=(positive_offsets, documents.rows(positive_ids)[positives]),
        positive_score=values["positive_score"][positives],
        positive_relevance=values["positive_relevance"][positives],
        sources=facts.pop("sources"),
        columns={name: values[name][candidates] for name in _COLUMNS if name not in ("score", "source")},
    )
    return replace(run, **facts)


def _align(
    stored: Collection, queries: Collection, offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the flat index and offsets of lists of the stored queries, laid out over `queries`."""
    rows = stored.find(queries.ids.tolist())
    lengths = np.where(rows >= 0, np.diff(offsets)[np.maximum(rows, 0)] if len(stored) else 0, 0)
    index, _ = lists.take_segments(offsets, rows[rows >= 0])
    return index, lists.offsets_from_lengths(lengths)


def _facts(metadata: dict[bytes, bytes], path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(metadata[_KEY])
        version = facts.pop("format")
        facts["sources"], facts["reasons"] = tuple(facts["sources"]), tuple(facts["reasons"])
        complete = set(facts) == {*_FACTS, "sources", "reasons"}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise DataError("this Parquet file is no run; it lacks the run's metadata", path=path) from None
    if version != _FORMAT or not complete:
        raise DataError(f"this run file has format {version}; this version of rivals reads format {_FORMAT}", path=path)
    return facts
