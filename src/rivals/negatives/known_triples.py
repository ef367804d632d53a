"""Which triples are known to be true: asked of millions at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals.data.triples import sorted_unique
from rivals.errors import RivalsError


class KnownTriples:
    """A set of triples that answers which of many (head, relation, tail) it holds.

    Args:
        triples: int[M, 3], rows from 0. entities, relations: how many there are; None takes the largest row.

    Raises:
        RivalsError: triples of another shape, or naming rows that are not there.

    >>> known = KnownTriples([[0, 0, 1]], entities=3)
    >>> known.holds(np.array([0, 0]), np.array([0, 0]), np.array([1, 2])).tolist()
    [True, False]
    """

    def __init__(self, triples: Any, *, entities: int | None = None, relations: int | None = None) -> None:
        rows = check_triples(triples, entities)
        most = int(rows[:, 1].max(initial=-1)) + 1
        if relations is not None and most > relations:
            raise RivalsError(f"a triple names relation {most - 1}, but there are {relations}")
        self.relations = most
        self.entities = int(rows[:, [0, 2]].max(initial=-1)) + 1 if entities is None else entities
        self._keys = sorted_unique(self._key(*rows.T))

    def __len__(self) -> int:
        """The number of different triples."""
        return len(self._keys)

    def holds(self, head: NDArray[np.int64], relation: NDArray[np.int64], tail: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether each triple is known, bool; the three broadcast."""
        wanted = self._key(head, relation, tail)
        if not len(self._keys):
            return np.zeros(wanted.shape, bool)
        place = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        inside = (relation < self.relations) & (head < self.entities) & (tail < self.entities)
        return (self._keys[place] == wanted) & inside

    def _key(self, head: NDArray[np.int64], relation: NDArray[np.int64], tail: NDArray[np.int64]) -> NDArray[np.int64]:
        return (head * np.int64(max(self.relations, 1)) + relation) * np.int64(max(self.entities, 1)) + tail


def check_triples(values: Any, entities: int | None) -> NDArray[np.int64]:
    """Return triples as int64[N, 3], or raise a RivalsError.

    >>> check_triples([[0, 0, 1]], 2).tolist()
    [[0, 0, 1]]
    """
    rows = np.asarray(values, np.int64)
    if rows.size == 0:
        rows = rows.reshape(0, 3)
    if rows.ndim != 2 or rows.shape[1] != 3 or (rows < 0).any():
        raise RivalsError(f"triples must be [N, 3] (head, relation, tail) of numbers from 0; not shape {rows.shape}")
    if entities is not None and len(rows) and rows[:, [0, 2]].max() >= entities:
        raise RivalsError(f"a triple names entity {int(rows[:, [0, 2]].max())}, but there are {entities}")
    return rows
