"""Strided sampling: negatives from all depths of a ranking, another set each epoch, without any chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.samplers import Draw, Sampler


class Strided(Sampler):
    """Take every n-th survivor, so that the k drawn cover the whole window; each epoch begins one further down.

    With a pool of m candidates the interval is m // k; epoch e draws the places e mod interval, + interval, ..., k of
    them, so `interval` epochs in a row draw each of the first k * interval candidates once. A pool of fewer than k
    candidates is drawn whole, its other places left empty.

    Use it where every depth should be seen in every epoch: easier negatives than `Top`, and reproducible without a
    seed. Level-1 documents of graded judgements count as survivors unless a filter takes them out.

    Args:
        k, window, skip: as for every sampler; the window of T2Ranking is its max_index - min_index, skip its min_index.
        epoch: of this draw; `at` gives the sampler of another one.

    Source: the samplers of the code of T2Ranking (Xie et al. 2023), without their padding by random documents. Paper
    79.

    Raises:
        RivalsError: epoch below 0; as `Sampler`.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(list("abcdef")), [0, 6], range(6), [.9, .8, .7, .6, .5, .4])
    >>> [run.documents.ids[Strided(2, epoch=epoch)(run).document].tolist() for epoch in (0, 1)]
    [['a', 'd'], ['b', 'e']]
    """

    def __init__(self, k: int, *, window: int | None = None, skip: int = 0, epoch: int = 0) -> None:
        super().__init__(k, window=window, skip=skip)
        if isinstance(epoch, bool) or int(epoch) != epoch or epoch < 0:
            raise RivalsError(f"epoch must be a whole number, 0 or more, not {epoch!r}")
        self.epoch = int(epoch)

    def at(self, epoch: int) -> Strided:
        """Return the sampler of an epoch."""
        return Strided(self.k, window=self.window, skip=self.skip, epoch=epoch)

    def log_weights(self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return +inf for the rows of this epoch, which are certain, and -inf for the others."""
        return np.where(self._chosen(offsets) >= 0, np.inf, -np.inf)

    def draw_available(self, run: Run, generator: np.random.Generator) -> Draw:
        """Draw the rows of this epoch; the generator is not used."""
        rows, offsets = self._pool_rows(run)
        place = self._chosen(offsets)
        taken = place >= 0
        chosen = np.full((len(run.queries), self.k), -1, np.int64)
        chosen[lists.segment_ids(offsets)[taken], place[taken]] = rows[taken]
        return Draw.of_rows(run, chosen)

    def _chosen(self, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which of the k places each pool row fills, int64[m], -1 for none."""
        interval = np.maximum(np.diff(offsets) // self.k, 1)
        start = self.epoch % interval
        start = np.where(np.diff(offsets) < self.k, 0, start)
        interval, start = (np.repeat(each, np.diff(offsets)) for each in (interval, start))
        past = lists.positions(offsets) - start
        place = past // interval
        return np.where((past >= 0) & (past % interval == 0) & (place < self.k), place, -1)
