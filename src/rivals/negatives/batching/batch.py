"""`Batch`, what a batcher gives to training: anchors, the columns to encode, and who may compete with whom."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's examples as matrices over Q anchors and C columns.

    - `anchor` int64[Q]: rows of the queries. `columns` int64[C]: rows of the documents to encode, each once.
    - `relevance` float32[Q, C]: of the positives trained on, 0 elsewhere.
    - `mask` bool[Q, C]: False where a column must not compete for an anchor: another known positive of it, or a text
      equal to one; a candidate that a filter marked; what another anchor keeps to itself.
    - `weight` float32[Q, C]: of the column for the anchor, 1 by default. `target` float32[Q, C]: soft relevance of a
      judge or teacher, NaN where there is none; None where there is none at all.
    - `task`: which of several tasks, `step`: which batch of the epoch, from 0.

    >>> batch = Batch.of_pairs([4, 9], [1, 7])
    >>> batch.columns.tolist(), batch.relevance.tolist(), len(batch)
    ([1, 7], [[1.0, 0.0], [0.0, 1.0]], 2)
    """

    anchor: NDArray[np.int64]
    columns: NDArray[np.int64]
    relevance: NDArray[np.float32]
    mask: NDArray[np.bool_]
    weight: NDArray[np.float32]
    target: NDArray[np.float32] | None = None
    task: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        shape = (len(self.anchor), len(self.columns))
        for name in ("relevance", "mask", "weight", "target"):
            matrix = getattr(self, name)
            if matrix is not None and matrix.shape != shape:
                raise RivalsError(f"a batch of {shape[0]} anchors and {shape[1]} columns has {name} {matrix.shape}")

    @classmethod
    def of_pairs(cls, anchor: NDArray[np.int64] | list[int], positive: NDArray[np.int64] | list[int]) -> Batch:
        """Return the batch of pairs in which every positive is a column for every anchor.

        >>> Batch.of_pairs([0, 1], [5, 5]).relevance.tolist()
        [[1.0], [1.0]]
        """
        rows = np.asarray(anchor, np.int64)
        columns, place = first_seen(np.asarray(positive, np.int64))
        relevance = np.zeros((len(rows), len(columns)), np.float32)
        relevance[np.arange(len(rows)), place] = 1
        return cls(rows, columns, relevance, np.ones(relevance.shape, bool), np.ones(relevance.shape, np.float32))

    def __len__(self) -> int:
        """The number of anchors."""
        return len(self.anchor)

    @property
    def lonely(self) -> NDArray[np.bool_]:
        """Which anchors have no negative and no soft target, bool[Q]: a loss over their columns is 0."""
        useful = self.mask & (self.relevance <= 0)
        if self.target is not None:
            useful |= self.mask & np.isfinite(self.target)
        return useful.sum(1) == 0

    def shards(self, count: int) -> list[Batch]:
        """Return the batch dealt out to devices: all anchors and positives on each, the other columns in turn.

        A softmax over the columns of all shards, each positive once, is that over this batch.

        Source: Conan-embedding (2024), cross-GPU batch balance. Paper 43.

        Raises:
            RivalsError: count < 1.

        >>> batch = Batch.of_pairs([0, 1], [5, 6])
        >>> [shard.columns.tolist() for shard in batch.shards(2)]
        [[5, 6], [5, 6]]
        """
        if count < 1:
            raise RivalsError(f"a batch is dealt out to 1 device or more, not {count}")
        shared = (self.relevance > 0).any(0)
        others = np.cumsum(~shared) - 1
        parts = []
        for number in range(count):
            held = shared | (others % count == number)
            parts.append(
                replace(
                    self,
                    columns=self.columns[held],
                    relevance=self.relevance[:, held],
                    mask=self.mask[:, held],
                    weight=self.weight[:, held],
                    target=None if self.target is None else self.target[:, held],
                )
            )
        return parts


def first_seen(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the different values in the order in which they first come, and the place of every value among them.

    >>> [part.tolist() for part in first_seen(np.array([7, 3, 7]))]
    [[7, 3], [0, 1, 0]]
    """
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return values[first[order]], place[inverse.ravel()]
