"""Negatives from an index's neighbours whose rows are chunks: the walk of ANCE's data generator."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.errors import RivalsError

Order = Literal["shuffle", "top"]


class Selected(NamedTuple):
    """Negatives per query, in the order found.

    `document` int64[Q, n], -1 where `mask` bool[Q, n] is False; `dropped`: how many queries were left out because no
    positive of theirs is known.
    """

    document: NDArray[np.int64]
    mask: NDArray[np.bool_]
    dropped: int

    def lists(self) -> list[list[int]]:
        """Return the negatives as one list a query."""
        return [row[there].tolist() for row, there in zip(self.document, self.mask, strict=True)]


def select_negatives(
    neighbours: Any,
    row_to_document: Any,
    positives: tuple[Any, Any],
    n: int = 20,
    *,
    order: Order = "shuffle",
    window: int | None = None,
    generator: np.random.Generator | None = None,
) -> Selected:
    """Walk every query's index rows and take the first `n` documents that are neither positive nor taken already.

    An index may hold several rows (chunks) a document. The rows are walked as they stand ("top") or after a uniform
    shuffle; `window` stops the walk after that many rows. Where the rows run out, a query gets fewer than `n`.

    Args:
        neighbours: int64[Q, K], index rows, best first. row_to_document: int64[rows], the document of every row.
        positives: (offsets int64[Q + 1], documents), all known positives of every query; a query without any is
            dropped and counted. n: 20 as in the scripts. window: None for all K rows; the reference measures with
            order="top" and window=n + 1. generator: needed to shuffle.

    Source: Xiong et al. (2021), ANCE, `GenerateNegativePassaageID`. Paper 37. The reference skips only the last
    positive of its file; here every known positive is skipped.

    Raises:
        RivalsError: n not in 1..K, a window below 1, a row outside the table, positives that do not fit, order
        "shuffle" without generator, an unknown order.

    >>> neighbours, documents = [[0, 1, 2, 3]], [10, 10, 12, 14]
    >>> select_negatives(neighbours, documents, ([0, 1], [12]), 2, order="top").lists()
    [[10, 14]]
    >>> select_negatives(neighbours, documents, ([0, 1], [12]), 2, order="top", window=3).lists()
    [[10]]
    """
    found, wanted = _documents(neighbours, row_to_document, positives)
    queries, width = found.shape
    if not 1 <= n <= width:
        raise RivalsError(f"n must lie in 1..{width}, the neighbours searched; not {n}")
    if order not in ("shuffle", "top"):
        raise RivalsError(f"order must be 'shuffle' or 'top', not {order!r}")
    if window is not None and window < 1:
        raise RivalsError(f"window must be 1 or more, not {window}")
    positive = _is_positive(found, wanted)
    if order == "shuffle":
        if generator is None:
            raise RivalsError("order 'shuffle' needs a generator: numpy.random.default_rng(seed)")
        places = generator.permuted(np.broadcast_to(np.arange(width), found.shape), axis=1)
        found, positive = np.take_along_axis(found, places, 1), np.take_along_axis(positive, places, 1)
    found, positive = found[:, :window], positive[:, :window]
    known = np.diff(wanted[0]) > 0
    taken = ~positive & ~_repeated(found) & known[:, None]
    place = np.cumsum(taken, axis=1) - 1
    taken &= place < n
    document = np.full((queries, n), -1, np.int64)
    query, column = np.nonzero(taken)
    document[query, place[query, column]] = found[query, column]
    return Selected(document, np.arange(n) < taken.sum(1)[:, None], int((~known).sum()))


def neighbour_reciprocal_rank(
    neighbours: Any,
    row_to_document: Any,
    positives: tuple[Any, Any],
    *,
    window: int | None = None,
    cutoff: int = 10,
    rows: Literal["first", "all"] = "first",
) -> NDArray[np.float64]:
    """Return 1 / rank of every query's positive among its index rows, 0 beyond `cutoff`; NaN for queries without any.

    The mean over the other queries says how well the index does on its training queries when negatives are made. A
    positive of several chunks can stand in several rows: `rows="first"` counts the best one, "all" adds them up, which
    is what the reference logs as its MRR although it can exceed 1.

    Args:
        neighbours, row_to_document, positives: as in `select_negatives`. window: look at so many rows only.

    Source: Xiong et al. (2021), ANCE, `GenerateNegativePassaageID`. Paper 37.

    Raises:
        RivalsError: as `select_negatives`; a cutoff below 1, an unknown choice of rows.

    >>> neighbours, documents = [[0, 1, 2, 3]], [10, 12, 12, 14]
    >>> neighbour_reciprocal_rank(neighbours, documents, ([0, 1], [12])).tolist()
    [0.5]
    >>> neighbour_reciprocal_rank(neighbours, documents, ([0, 1], [12]), rows="all").round(3).tolist()
    [0.833]
    """
    if cutoff < 1 or (window is not None and window < 1):
        raise RivalsError(f"cutoff and window must be 1 or more, not {cutoff} and {window}")
    if rows not in ("first", "all"):
        raise RivalsError(f"rows must be 'first' or 'all', not {rows!r}")
    found, wanted = _documents(neighbours, row_to_document, positives)
    hit = _is_positive(found, wanted)[:, :window][:, :cutoff]
    gain = hit / np.arange(1, hit.shape[1] + 1)
    value = gain.sum(1) if rows == "all" else gain.max(1, initial=0.0)
    return np.where(np.diff(wanted[0]) > 0, value, np.nan)


def _documents(
    neighbours: Any, row_to_document: Any, positives: tuple[Any, Any]
) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The documents [Q, K] of the neighbours, and the positives with checked offsets."""
    index, table = np.asarray(neighbours, np.int64), np.asarray(row_to_document, np.int64)
    if index.ndim != 2 or table.ndim != 1:
        raise RivalsError(f"neighbours must be [Q, K] and row_to_document [rows], not {index.shape} and {table.shape}")
    if index.size and (index.min() < 0 or index.max() >= len(table)):
        raise RivalsError(f"neighbours name row {int(index.max())}, but the index has {len(table)} rows")
    documents = np.asarray(positives[1], np.int64)
    offsets = lists.as_offsets(positives[0], len(documents), "positive offsets")
    if len(offsets) != len(index) + 1:
        raise RivalsError(f"positives of {len(index)} queries need {len(index) + 1} offsets, not {len(offsets)}")
    return table[index], (offsets, documents)


def _is_positive(found: NDArray[np.int64], positives: tuple[NDArray[np.int64], NDArray[np.int64]]) -> NDArray[np.bool_]:
    query = np.repeat(np.arange(len(found)), found.shape[1])
    _, codes = np.unique(np.concatenate([found.ravel(), positives[1]]), return_inverse=True)
    wanted, members = codes[: found.size], codes[found.size :]
    return (lists.find_pairs(positives[0], members, query, wanted) >= 0).reshape(found.shape)


def _repeated(found: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a document stood earlier in its row."""
    order = np.argsort(found, axis=1, kind="stable")
    ordered = np.take_along_axis(found, order, 1)
    again = np.zeros(found.shape, bool)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
    return again
