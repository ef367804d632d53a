"""What filters over vectors need: where the vectors of a run's queries and documents come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.pipeline import check_same_documents
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives._row_cosines import row_cosines

_NUMBERS = 1 << 23  # numbers of gathered vectors held at once


@runtime_checkable
class VectorSource(Protocol):
    """Gives the vectors of documents and queries in one space; `rivals.retrieve.Dense` is one."""

    documents: Collection

    @property
    def vectors(self) -> NDArray[Any]:
        """The documents' vectors, float[N, D], an array or a memory map."""

    def query_vectors(self, queries: Collection) -> NDArray[np.float32]:
        """Return the queries' vectors, float32[Q, D]."""


def vectors_of(run: Run, source: VectorSource) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return the vectors of a run's queries, [Q, D], and those of its documents, [N, D].

    Raises:
        RivalsError: the source has no vectors, is over other documents than the run, or its queries have another width.
    """
    if not isinstance(source, VectorSource):
        raise RivalsError(
            f"{type(source).__name__} gives no vectors; a retriever with `vectors` and `query_vectors`, such as Dense, "
            "is needed here"
        )
    check_same_documents(run.documents, source.documents)
    queries, documents = source.query_vectors(run.queries), source.vectors
    if queries.shape != (len(run.queries), documents.shape[1]):
        raise RivalsError(
            f"the query vectors have shape {queries.shape} for {len(run.queries)} queries and document vectors of width "
            f"{documents.shape[1]}"
        )
    return queries, documents


def row_blocks(rows: int, width: int) -> Iterator[slice]:
    """Yield slices that cover `rows` pairs, so that few gathered vectors of this width are held at once.

    >>> list(row_blocks(3, 1 << 22))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    step = max(1, _NUMBERS // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def nearest_positive_cosine(run: Run, vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return the highest cosine of each candidate with a positive of its query, float32[n]; -inf without positive.

    A candidate that is a positive itself is compared with it and so has 1. A vector of length 0 has the cosine 0 with
    every other.

    Args:
        vectors: float[N, D], the documents' vectors.

    >>> queries, documents = Collection(["q"]), Collection(["a", "b", "c"])
    >>> run = Run.build(queries, documents, [0, 2], [1, 2], [.9, .8], positives=([0, 1], [0]))
    >>> nearest_positive_cosine(run, np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])).tolist()
    [1.0, 0.0]
    """
    query = run.query
    pairs, offsets = lists.take_segments(run.positive_offsets, query)  # every candidate with each of its positives
    candidate, positive = lists.segment_ids(offsets), run.positive[pairs]
    cosine = np.nan_to_num(row_cosines(vectors, vectors, run.document[candidate], positive), copy=False)
    return lists.segment_reduce(np.maximum, cosine, offsets, empty=-np.inf)
