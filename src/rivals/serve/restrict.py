"""A retriever that sees only some of its documents, exactly: filters for search, negatives from the same section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rivals.data.collection import Collection
from rivals.data.pipeline import Retriever
from rivals.data.run import Run, empty_run
from rivals.errors import RivalsError

_SCORE_ALL = 4096  # allowed documents: up to this many are scored directly, without a search
_RANKS_EVERYTHING = ("cosine", "dot")  # scores of retrievers that leave no document out

Scalar = str | int | float | bool | None


class Restricted(Retriever):
    """The best `k` of the allowed documents, for any retriever.

    A filter must not be applied to the first `k` results, which may hold no allowed document at all. Here the retriever
    is asked for ever more until k allowed documents are among its results; where a retriever by vectors may return few,
    those are all scored instead. Both give the retriever's own complete list with the other documents left out.

    Args:
        source: the retriever; its name, scores and kind of score stay.
        allowed: bool[N], True where a document may be returned.

    Raises:
        RivalsError: `allowed` has another length than the documents.
    """

    def __init__(self, source: Retriever, allowed: NDArray[np.bool_]) -> None:
        if allowed.shape != (len(source.documents),):
            raise RivalsError(f"allowed has shape {allowed.shape} for {len(source.documents)} documents")
        self.source = source
        self.allowed = allowed
        self.name = source.name
        self.score_kind = source.score_kind
        self.documents = source.documents

    def retrieve(self, queries: Collection, k: int) -> Run:
        size, rows = len(self.allowed), np.flatnonzero(self.allowed)
        if not len(rows) or not len(queries):
            return empty_run(queries, self.documents, scorer=self.name)
        if len(rows) == size:
            return self.source.retrieve(queries, k)
        if len(rows) <= max(_SCORE_ALL, 4 * k) and self.score_kind in _RANKS_EVERYTHING:
            return self._score_all(queries, rows, k)
        depth = min(2 * k * size // len(rows), size)
        while True:
            run = self.source.retrieve(queries, depth)
            kept = run.select(self.allowed[run.document]).top(k)
            complete = (np.diff(kept.offsets) >= k) | (np.diff(run.offsets) < depth)
            if depth == size or complete.all():
                return kept
            depth = min(4 * depth, size)

    def _score_all(self, queries: Collection, rows: NDArray[np.int64], k: int) -> Run:
        query = np.repeat(np.arange(len(queries)), len(rows))
        document = np.tile(rows, len(queries))
        return Run.build(
            queries,
            self.documents,
            np.arange(len(queries) + 1) * len(rows),
            document,
            self.source.score(queries, query, document),
            sources=[self.name],
            scorer=self.name,
            score_kind=self.score_kind,
        ).top(k)

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        return self.source.score(queries, query_row, document_row)


def match_columns(documents: Collection, filters: Mapping[str, Scalar | Sequence[Scalar]]) -> NDArray[np.bool_]:
    """Return which documents match every filter, bool[N]: the column's value is the one given, or one of those given.

    None matches rows without a value; a column of lists matches where any member of the list does.

    Raises:
        RivalsError: there is no such column, or a value cannot be of the column's type.

    >>> documents = Collection(["a", "b", "c"], columns={"year": [2019, 2020, 2021], "kind": ["x", "y", "x"]})
    >>> match_columns(documents, {"year": [2020, 2021], "kind": "x"}).tolist()
    [False, False, True]
    """
    allowed = np.ones(len(documents), dtype=bool)
    for column, wanted in filters.items():
        if column not in documents.table.column_names:
            known = ", ".join(documents.table.column_names)
            raise RivalsError(f"{documents.name}s have no column '{column}'; they have {known}")
        values = [wanted] if wanted is None or isinstance(wanted, Scalar) else list(wanted)
        allowed &= _matches(documents.table[column], column, values)
    return allowed


def _matches(values: pa.ChunkedArray, column: str, wanted: Sequence[Scalar]) -> NDArray[np.bool_]:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        inside = _matches(pc.list_flatten(values), column, wanted)
        matched = np.zeros(len(values), dtype=bool)
        matched[pc.list_parent_indices(values).to_numpy()[inside]] = True
        return matched
    if pa.types.is_struct(values.type) or pa.types.is_binary(values.type) or pa.types.is_map(values.type):
        raise RivalsError(f"column '{column}' holds {values.type}; it cannot be filtered on")
    given = [value for value in wanted if value is not None]
    options = pa.array([_as_type(value, values.type, column) for value in given], type=values.type)
    matched = pc.is_in(values, value_set=options)
    if len(given) < len(wanted):
        matched = pc.or_(matched, pc.is_null(values))
    return np.asarray(matched.to_numpy(), dtype=bool)


def _as_type(value: Scalar, kind: pa.DataType, column: str) -> Any:
    """Return a filter's value as the column's type; numbers written as text are understood, other mixtures refused."""
    try:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            if isinstance(value, str):
                return pa.scalar(value, kind)
        elif pa.types.is_boolean(kind):
            if isinstance(value, bool):
                return value
            if str(value).lower() in ("true", "false"):
                return str(value).lower() == "true"
        elif not isinstance(value, bool):
            return pa.scalar(value).cast(kind)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        pass
    holds = str(kind).removeprefix("large_")
    raise RivalsError(f"column '{column}' holds {holds}; {repr(value)[:80]} is not such a value") from None
