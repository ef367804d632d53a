"""Strided sampling: negatives from all depths of a ranking, another set each epoch, without any chance."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.samplers import Draw
from rivals.negatives.samplers_schedule import Scheduled

#: Under which reason the transform reports queries that had no survivor.
RANDOM_FALLBACK = "drawn at random, no survivor"


class Strided(Scheduled):
    """Take every n-th survivor, so that the k drawn cover the whole window; each epoch begins one further down.

    With a pool of m candidates the interval is m // k; epoch e draws the places e mod interval, + interval, ..., k of
    them, so `interval` epochs in a row draw each of the first k * interval candidates once. With `step` the interval is
    fixed and the pool is walked in circles: places 0, step, 2 step, ..., then 1, 1 + step, ... until k are taken; epoch e
    begins at place e mod step.

    Use it where every depth should be seen in every epoch: easier negatives than `Top`, and reproducible without a
    seed. Level-1 documents of graded judgements count as survivors unless a filter takes them out.

    Args:
        k, window, skip: as for every sampler; the window of T2Ranking is its max_index - min_index, skip its min_index.
        step: 5 in UniME-V2, which draws 10; None makes the interval fit the pool. short: a pool of fewer than k is drawn
            whole and the other places stay empty ("leave"), or are filled by going through it again ("repeat").
            on_empty: a query none of whose candidates survived gets nothing ("leave"), or k at "random" of all that are
            not labelled positive, with the target `empty_target`: so many near-positives, which `fallback` counts.
        epoch: of this draw; `at` gives the sampler of another one.

    Source: the samplers of the code of T2Ranking (Xie et al. 2023), without their padding by random documents. Paper
    79. UniME-V2 (2025), with step=5, k=10, short="repeat", on_empty="random"; the walk's order there is our reading.
    Paper 7.

    Raises:
        RivalsError: epoch below 0, step < 1, empty_target outside 0..1, unknown options; as `Sampler`.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(list("abcdef")), [0, 6], range(6), [.9, .8, .7, .6, .5, .4])
    >>> [run.documents.ids[Strided(2, epoch=epoch)(run).document].tolist() for epoch in (0, 1)]
    [['a', 'd'], ['b', 'e']]
    >>> Strided(4, step=4).draw(run, np.random.default_rng(0)).row.tolist()
    [[0, 4, 1, 5]]
    """

    def __init__(
        self,
        k: int,
        *,
        step: int | None = None,
        short: Literal["leave", "repeat"] = "leave",
        on_empty: Literal["leave", "random"] = "leave",
        empty_target: float = 1.0,
        window: int | None = None,
        skip: int = 0,
        epoch: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(k, window=window, skip=skip, epoch=epoch, seed=seed)
        if step is not None and (isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 1):
            raise RivalsError(f"step must be a whole number, 1 or more, or None, not {step!r}")
        if short not in ("leave", "repeat") or on_empty not in ("leave", "random"):
            raise RivalsError(
                f"short must be 'leave' or 'repeat' and on_empty 'leave' or 'random', not {short!r} and {on_empty!r}"
            )
        if not 0 <= empty_target <= 1:
            raise RivalsError(f"empty_target must lie in 0..1, not {empty_target}")
        self.step, self.short, self.on_empty, self.empty_target = step, short, on_empty, float(empty_target)

    def places(self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which pool row fills each of a query's k places, int64[A, k]."""
        count = np.diff(offsets)[:, None]
        place = np.arange(self.k)[None, :]
        turn = place % np.maximum(count, 1) if self.short == "repeat" else place
        there = turn < count
        if self.step is None:
            interval = np.maximum(count // self.k, 1)
            turn = np.where(count < self.k, turn, self.epoch % interval + turn * interval)
            return np.where(there, offsets[:-1, None] + turn, -1)
        past = lists.positions(offsets)
        order = np.lexsort((past, (past - self.epoch) % self.step, lists.segment_ids(offsets)))
        if not len(order):
            return np.full(there.shape, -1, np.int64)
        return np.where(there, order[np.minimum(offsets[:-1, None] + turn, len(order) - 1)], -1)

    def fallback(self, run: Run) -> NDArray[np.bool_]:
        """Return which queries have no survivor and are drawn for at random, bool[A]; none with on_empty="leave"."""
        if self.on_empty == "leave":
            return np.zeros(len(run.queries), bool)
        survivors = np.diff(lists.keep_values(self.pool(run), run.offsets))
        return (survivors == 0) & (np.diff(lists.keep_values(run.label != 1, run.offsets)) > 0)

    def probabilities(self, run: Run) -> NDArray[np.float64]:
        """Return 1 for what is drawn for certain, and equal shares of a query that is drawn for at random."""
        probability = super().probabilities(run)
        fallen = self.fallback(run)
        if fallen.any():
            possible = fallen[run.query] & (run.label != 1)
            count = np.diff(lists.keep_values(possible, run.offsets))
            probability[possible] = 1 / count[run.query[possible]]
        return probability

    def draw_available(self, run: Run, generator: np.random.Generator) -> Draw:
        """Draw the rows of this epoch; the generator is used with on_empty="random" only, for one number a row."""
        draw = super().draw_available(run, generator)
        if self.on_empty == "leave":
            return draw
        noise = generator.random(len(run))
        fallen = np.flatnonzero(self.fallback(run))
        if not len(fallen):
            return draw
        possible = run.label != 1
        rows, offsets = np.flatnonzero(possible), lists.keep_values(possible, run.offsets)
        index, bounds = lists.take_segments(offsets, fallen)
        order = index[np.lexsort((noise[rows[index]], lists.segment_ids(bounds)))]
        count = np.diff(bounds)[:, None]
        place = np.arange(self.k)[None, :]
        turn = place % count if self.short == "repeat" else place
        taken = rows[order[np.minimum(bounds[:-1, None] + turn, len(order) - 1)]]
        row = draw.row.copy()
        row[fallen] = np.where(turn < count, taken, -1)
        logs = np.zeros(row.shape, np.float32)
        logs[fallen] = -np.log(np.maximum(count - place, 1)) * (place < count)
        drawn = Draw.of_rows(run, row, logs)
        target = drawn.target.copy()
        target[fallen] = np.where(drawn.mask[fallen], np.float32(self.empty_target), np.float32(np.nan))
        return replace(drawn, target=target)

    def __call__(self, run: Run) -> Run:
        fallen = self.fallback(run)
        if fallen.any():
            marked = fallen[run.query] & (run.label != 1)
            target = np.where(marked, np.float32(self.empty_target), run.target)
            run = run.mark(marked, RANDOM_FALLBACK, keep=True)
            drawn = super().__call__(run.replace(target=target))
            return drawn.replace(keep=drawn.keep | drawn.where_reason(RANDOM_FALLBACK))
        return super().__call__(run)

    def __repr__(self) -> str:
        given = (
            f", step={self.step}" if self.step is not None else "",
            f", short={self.short!r}" if self.short != "leave" else "",
            f", on_empty={self.on_empty!r}" if self.on_empty != "leave" else "",
        )
        return f"{super().__repr__()[:-1]}{''.join(given)})"
