"""Samplers that follow a schedule instead of chance: which negatives a query gets depends on the epoch or its progress."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives._random_draws import query_keys, stream
from rivals.negatives.samplers import Draw, Sampler

S = TypeVar("S", bound="Scheduled")

_PART = 26  # the number of `Rotate` among the seeds


class Scheduled(Sampler):
    """A sampler that draws for certain. A subclass gives `places`; `at(epoch)` is the same sampler in another epoch.

    Args:
        k, window, skip, seed: see `Sampler`. epoch: of this draw, 0 or more.
    """

    def __init__(self, k: int, *, window: int | None = None, skip: int = 0, epoch: int = 0, seed: int = 0) -> None:
        super().__init__(k, window=window, skip=skip, seed=seed)
        if isinstance(epoch, bool) or int(epoch) != epoch or epoch < 0:
            raise RivalsError(f"epoch must be a whole number, 0 or more, not {epoch!r}")
        self.epoch = int(epoch)

    @abstractmethod
    def places(self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which pool row fills each of a query's k places, int64[A, k]: an index into `rows`, -1 for none."""

    def at(self: S, epoch: int) -> S:
        """Return the sampler of an epoch."""
        other = copy.copy(self)
        if isinstance(epoch, bool) or int(epoch) != epoch or epoch < 0:
            raise RivalsError(f"epoch must be a whole number, 0 or more, not {epoch!r}")
        other.epoch = int(epoch)
        return other

    def log_weights(self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return +inf for the rows of this epoch, which are certain, and -inf for the others."""
        weights = np.full(len(rows), -np.inf)
        places = self.places(run, rows, offsets)
        weights[places[places >= 0]] = np.inf
        return weights

    def draw_available(self, run: Run, generator: np.random.Generator) -> Draw:
        """Draw the rows of this epoch; the generator is not used."""
        rows, offsets = self._pool_rows(run)
        places = self.places(run, rows, offsets)
        chosen = np.full(places.shape, -1, np.int64)
        chosen[places >= 0] = rows[places[places >= 0]]
        return Draw.of_rows(run, chosen)


class Rotate(Scheduled):
    """Go through each query's negatives epoch by epoch: a window of `k` that advances by `k` and wraps around.

    A query's pool is shuffled once, by (seed, query, document), so the order does not depend on blocks or other queries;
    epoch e takes the places e k, ..., e k + k - 1, modulo the pool's size n. Any ceil(n / k) epochs in a row show every
    negative, once or (where the window wraps around) twice.

    Use it when every mined negative is worth seeing and there are more epochs than one.

    Args:
        k: 7 by default. short: a pool of fewer than `k` is drawn whole and its other places stay empty ("leave"), or k
            are drawn with replacement, as in the source ("replace"); a negative that comes twice weighs twice. shuffle:
            False rotates in rank order. window, skip, epoch, seed: see `Scheduled`.

    Source: the data set of Tevatron, used by RLHN (2025), Hard Negatives, Hard Lessons. Paper 26. The shuffle's numbers
    are ours, from each query's id and documents.

    Raises:
        RivalsError: an unknown `short`; as `Scheduled`.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(list("abcde")), [0, 5], range(5), [.9, .8, .7, .6, .5])
    >>> sampler = Rotate(2, shuffle=False)
    >>> [run.documents.ids[sampler.at(epoch)(run).document].tolist() for epoch in range(3)]
    [['a', 'b'], ['c', 'd'], ['a', 'e']]
    """

    def __init__(
        self,
        k: int = 7,
        *,
        short: Literal["leave", "replace"] = "leave",
        shuffle: bool = True,
        window: int | None = None,
        skip: int = 0,
        epoch: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(k, window=window, skip=skip, epoch=epoch, seed=seed)
        if short not in ("leave", "replace"):
            raise RivalsError(f"short must be 'leave' or 'replace', not {short!r}")
        self.short, self.shuffle = short, bool(shuffle)

    def places(self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which pool row fills each of a query's k places, int64[A, k]."""
        count = np.diff(offsets)[:, None]
        place = np.arange(self.k)[None, :]
        if not len(rows):
            return np.full((len(count), self.k), -1, np.int64)
        order = np.arange(len(rows))
        if self.shuffle:
            query = lists.segment_ids(offsets)
            own = query_keys(run.queries.ids, (self.seed, _PART))[query]
            number = stream(own ^ run.document[rows].astype(np.uint64), np.zeros(1, np.int64))[:, 0]
            order = np.lexsort((number, query))
        turn = np.where(count >= self.k, (self.epoch * self.k + place) % np.maximum(count, 1), place)
        there = turn < count
        if self.short == "replace":
            chance = stream(query_keys(run.queries.ids, (self.seed, _PART, self.epoch)), np.arange(self.k))
            turn = np.where(count < self.k, (chance * count).astype(np.int64), turn)
            there = np.broadcast_to(count > 0, turn.shape)
        return np.where(there, order[np.minimum(offsets[:-1, None] + turn, len(rows) - 1)], -1)

    def __repr__(self) -> str:
        given = (", short='replace'" if self.short == "replace" else "") + ("" if self.shuffle else ", shuffle=False")
        return f"{super().__repr__()[:-1]}{given})"


class SlidingWindow(Scheduled):
    """Take the k survivors of a rank window; each replacement moves a query's window further down its list.

    Before any replacement the ranks are 0 to k - 1; the i-th replacement (i = 1, 2, ...) has the ranks (i - 1) k + offset
    to i k + offset - 1. A list without k more keeps its last window (`exhausted`).

    Use it through `DynamicNegatives`, which moves the window of a query when its negatives have become easy.

    Args:
        k: negatives a query. offset: ranks that replacements pass over as suspected false negatives, 10 by default.
            replaced: how many times each query's negatives were replaced, int[A] in the run's order, or one number for
            all. window, skip: see `Sampler`.

    Source: Conan-embedding (2024), dynamic hard-negative mining. Paper 43.

    Raises:
        RivalsError: offset or a number of replacements below 0; numbers for other queries than the run's.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(list("abcdefgh")), [0, 8], range(8), np.arange(8, 0, -1) / 10)
    >>> [SlidingWindow(2, offset=3, replaced=i)(run).document.tolist() for i in range(4)]
    [[0, 1], [3, 4], [5, 6], [5, 6]]
    """

    def __init__(
        self, k: int, *, offset: int = 10, replaced: Any = 0, window: int | None = None, skip: int = 0
    ) -> None:
        super().__init__(k, window=window, skip=skip)
        if isinstance(offset, bool) or not isinstance(offset, int | np.integer) or offset < 0:
            raise RivalsError(f"offset must be a whole number, 0 or more, not {offset!r}")
        self.offset, self.replaced = int(offset), np.asarray(replaced, np.int64)
        if self.replaced.ndim > 1 or (self.replaced < 0).any():
            raise RivalsError("replaced must be one number, 0 or more, or one for each query")

    def at_window(self, replaced: Any) -> SlidingWindow:
        """Return the sampler with other numbers of replacements."""
        return SlidingWindow(self.k, offset=self.offset, replaced=replaced, window=self.window, skip=self.skip)

    def last_window(self, run: Run) -> NDArray[np.int64]:
        """Return how many replacements each query's list has room for, int64[A]."""
        return self._last(np.diff(self._pool_rows(run)[1]))

    def exhausted(self, run: Run) -> NDArray[np.bool_]:
        """Return which queries cannot be given other negatives any more, bool[A]."""
        return self._numbers(len(run.queries)) >= self.last_window(run)

    def places(self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which pool row fills each of a query's k places, int64[A, k]."""
        count = np.diff(offsets)
        number = np.minimum(self._numbers(len(count)), self._last(count))
        start = np.where(number > 0, (number - 1) * self.k + self.offset, 0)
        place = start[:, None] + np.arange(self.k)[None, :]
        return np.where(place < count[:, None], offsets[:-1, None] + place, -1)

    def _last(self, count: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.maximum((count - self.offset) // self.k, 0)

    def _numbers(self, queries: int) -> NDArray[np.int64]:
        if self.replaced.ndim and len(self.replaced) != queries:
            raise RivalsError(
                f"{len(self.replaced)} numbers of replacements were given for a run of {queries} queries; draw from the "
                "whole run, or take the numbers with the queries"
            )
        return np.broadcast_to(self.replaced, queries)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, offset={self.offset})"
