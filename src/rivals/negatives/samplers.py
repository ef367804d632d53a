"""Samplers: draw k negatives per query from the candidates that filters left.

What a sampler may draw from is the same for all of them. The *survivors* of a query are its candidates with `keep` and
without the label 1, in rank order; its *pool* is what remains after the first `skip` survivors, cut to `window` if
there is one. `Top` takes the head of the pool, the others draw from it at random and without replacement.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.pipeline import Transform
from rivals.data.run import Run
from rivals.errors import RivalsError

_CELLS = 1 << 21  # padded cells that a random draw holds at once


@dataclass(frozen=True, eq=False)
class Draw:
    """What a sampler drew: `k` places per query, in the order drawn. `mask` says which places could be filled.

    - `candidate` int64[A, k]: row in the run's documents; `row` int64[A, k]: row in the run; both -1 where `mask` is
      False.
    - `weight`, `target` float32[A, k]: the run's columns at those rows (0 and NaN where `mask` is False).
    - `log_probability` float32[A, k]: of drawing this candidate at this step, given the steps before; 0 for what was
      certain.

    >>> draw = Draw.empty(2, 3)
    >>> draw.unfilled, draw.candidate.shape
    (6, (2, 3))
    """

    candidate: NDArray[np.int64]
    mask: NDArray[np.bool_]
    weight: NDArray[np.float32]
    target: NDArray[np.float32]
    log_probability: NDArray[np.float32]
    row: NDArray[np.int64]

    @classmethod
    def empty(cls, queries: int, k: int) -> Draw:
        """Return a draw in which no place is filled."""
        shape = (queries, k)
        return cls(
            candidate=np.full(shape, -1, np.int64),
            mask=np.zeros(shape, bool),
            weight=np.zeros(shape, np.float32),
            target=np.full(shape, np.nan, np.float32),
            log_probability=np.zeros(shape, np.float32),
            row=np.full(shape, -1, np.int64),
        )

    @classmethod
    def of_rows(cls, run: Run, row: NDArray[np.int64], log_probability: NDArray[np.float32] | None = None) -> Draw:
        """Return the draw of the run's rows `row` int64[A, k], -1 where a place stays empty.

        >>> from rivals.data import Collection
        >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.1, .2])
        >>> Draw.of_rows(run, np.array([[1, -1]])).candidate.tolist()
        [[0, -1]]
        """
        mask = row >= 0
        draw = cls.empty(*row.shape)
        filled = row[mask]
        draw.candidate[mask] = run.document[filled]
        draw.weight[mask] = run.weight[filled]
        draw.target[mask] = run.target[filled]
        if log_probability is not None:
            draw.log_probability[mask] = log_probability[mask]
        return replace(draw, mask=mask, row=row)

    def __len__(self) -> int:
        """The number of queries."""
        return len(self.mask)

    @property
    def k(self) -> int:
        """The number of places per query."""
        return int(self.mask.shape[1])

    @property
    def unfilled(self) -> int:
        """How many places stayed empty because a query had too few survivors."""
        return int(self.mask.size - np.count_nonzero(self.mask))

    def chosen(self, run: Run) -> NDArray[np.bool_]:
        """Return which rows of the run were drawn, bool[n]."""
        chosen = np.zeros(len(run), dtype=bool)
        chosen[self.row[self.mask]] = True
        return chosen

    def take(self, query_rows: NDArray[np.int64]) -> Draw:
        """Return the draw of some queries only; `row` still refers to the run drawn from."""
        names = ("candidate", "mask", "weight", "target", "log_probability", "row")
        return Draw(**{name: getattr(self, name)[query_rows] for name in names})

    @staticmethod
    def concatenate(draws: Sequence[Draw], lengths: Sequence[int]) -> Draw:
        """Join the draws from several runs into that from their concatenation; `lengths` are the runs' row counts."""
        starts = lists.offsets_from_lengths(lengths)
        rows = [np.where(draw.mask, draw.row + start, -1) for draw, start in zip(draws, starts[:-1], strict=True)]
        names = ("candidate", "mask", "weight", "target", "log_probability")
        joined = {name: np.concatenate([getattr(draw, name) for draw in draws]) for name in names}
        return Draw(row=np.concatenate(rows), **joined)


class Sampler(Transform):
    """Draws `k` negatives per query. A subclass gives `log_weights`; everything else is here.

    Args:
        k: how many to draw. window: how many survivors to draw from, None for all. skip: survivors to pass over first
            (Top-K shifted by N). seed: of the sampler, used together with the run's when it is called as a transform.

    As a transform it keeps only the drawn rows, in rank order. For training, `draw` again at every visit with the
    epoch's generator.
    """

    def __init__(self, k: int, *, window: int | None = None, skip: int = 0, seed: int = 0) -> None:
        for name, value, least in (("k", k, 1), ("window", window, 1), ("skip", skip, 0), ("seed", seed, 0)):
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not (value is None and name == "window") and not (whole and value >= least):  # type: ignore[operator]
                raise RivalsError(f"{name} must be a whole number, {least} or more, not {value!r}")
        if window is not None and window < k:
            raise RivalsError(f"a window of {window} cannot give {k} negatives; use window >= k")
        self.k, self.window, self.skip, self.seed = int(k), window, int(skip), int(seed)

    @abstractmethod
    def log_weights(self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Return the unnormalised log-probability of each pool row, float64[m]; +inf = certain; None = take the head.

        Args:
            rows: int64[m], the pool's rows in the run, query after query in rank order. offsets: int64[A + 1] over
                them.
        """

    def pool(self, run: Run) -> NDArray[np.bool_]:
        """Return which rows may be drawn, bool[n]: survivors after `skip`, within `window`.

        >>> from rivals.data import Collection
        >>> run = Run.build(Collection(["q"]), Collection(list("abcd")), [0, 4], [0, 1, 2, 3], [.9, .8, .7, .6])
        >>> Top(1, skip=1).pool(run).tolist()
        [False, True, True, True]
        """
        survivors = run.keep & (run.label != 1)
        if self.skip == 0 and self.window is None:
            return survivors
        running = np.cumsum(survivors, dtype=np.int64)
        before = np.concatenate(([0], running))[run.offsets[:-1]]
        place = running - np.repeat(before, np.diff(run.offsets))  # 1-based among the query's survivors
        pool = survivors & (place > self.skip)
        return pool if self.window is None else pool & (place <= self.skip + self.window)

    def probabilities(self, run: Run) -> NDArray[np.float64]:
        """Return the probability of every row to be the first one drawn at random, float64[n].

        Over the rows left to chance the probabilities of a query sum to 1; later draws are from the same weights
        without the rows already drawn. A row that is drawn for certain has 1: every row of `Top`, the first of
        `Softmax(keep_top1=True)`. Rows outside the pool have 0.

        >>> from rivals.data import Collection
        >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [1., 0.])
        >>> Softmax(1, window=2).probabilities(run).round(6).tolist()
        [0.731059, 0.268941]
        """
        probability = np.zeros(len(run), dtype=np.float64)
        rows, offsets = self._pool_rows(run)
        weights = self.log_weights(run, rows, offsets)
        if weights is None:
            probability[rows[lists.positions(offsets) < self.k]] = 1.0
            return probability
        certain = np.isposinf(weights)
        finite = np.where(certain, -np.inf, weights)
        highest = lists.segment_reduce(np.maximum, finite, offsets, empty=0.0)
        lengths = np.diff(offsets)
        mass = np.exp(finite - np.repeat(np.where(np.isfinite(highest), highest, 0.0), lengths))
        total = np.repeat(lists.segment_reduce(np.add, mass, offsets, empty=1.0), lengths)
        probability[rows] = np.where(certain, 1.0, mass / np.where(total > 0, total, 1.0))
        return probability

    def draw(self, run: Run, generator: np.random.Generator) -> Draw:
        """Draw `k` negatives for every query of the run, without replacement.

        The generator is asked for one number per row of the run, kept or not, so that drawing block after block with
        one generator gives what drawing at once gives. Queries with fewer than `k` in the pool get all of it and `mask`
        False in the rest.

        Raises:
            RivalsError: the run has queries, but not one of them a candidate in the pool.

        >>> from rivals.data import Collection
        >>> run = Run.build(Collection(["q"]), Collection(list("abc")), [0, 3], [0, 1, 2], [.9, .8, .7])
        >>> Top(2).draw(run, np.random.default_rng(0)).candidate.tolist()
        [[0, 1]]
        """
        draw = self.draw_available(run, generator)
        check_drawn(draw, self, proposed=len(run), marked=int((~run.keep).sum()))
        return draw

    def draw_available(self, run: Run, generator: np.random.Generator) -> Draw:
        """Draw as `draw` does, but return an empty draw where no query has a candidate left."""
        rows, offsets = self._pool_rows(run)
        weights = self.log_weights(run, rows, offsets)
        if weights is None:
            chosen = np.full((len(run.queries), self.k), -1, np.int64)
            place = lists.positions(offsets)
            head = place < self.k
            chosen[lists.segment_ids(offsets)[head], place[head]] = rows[head]
            return Draw.of_rows(run, chosen)
        noise = generator.random(len(run))[rows]
        gumbel = -np.log(-np.log(np.maximum(noise, 2.0**-54)))
        return Draw.of_rows(run, *self._draw_random(rows, offsets, weights, gumbel))

    def at(self, epoch: int) -> Sampler:
        """Return the sampler of an epoch: this one, unless it follows a schedule, as `Rotate` and `Strided` do."""
        return self

    def __call__(self, run: Run) -> Run:
        if run.seed < 0 or run.version < 0:
            raise RivalsError(f"a run's seed and version must be 0 or more, not {run.seed} and {run.version}")
        generator = np.random.default_rng([run.seed, self.seed, run.version])
        return run.select(self.draw(run, generator).chosen(run))

    def __repr__(self) -> str:
        given = "".join(
            f", {name}={value}"
            for name, value in (("window", self.window), ("skip", self.skip or None))
            if value is not None
        )
        return f"{type(self).__name__}({self.k}{given})"

    def _pool_rows(self, run: Run) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        pool = self.pool(run)
        return np.flatnonzero(pool), lists.keep_values(pool, run.offsets)

    def _draw_random(
        self,
        rows: NDArray[np.int64],
        offsets: NDArray[np.int64],
        weights: NDArray[np.float64],
        gumbel: NDArray[np.float64],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Gumbel top-k: the k largest of log-weight + Gumbel noise are k draws without replacement, in order.

        Source: Gumbel 1954; Kool, van Hoof, Welling 2019, Stochastic beams and where to find them, section 2.3.
        """
        queries = len(offsets) - 1
        chosen = np.full((queries, self.k), -1, np.int64)
        log_probability = np.zeros((queries, self.k), np.float32)
        widest = int(np.diff(offsets).max(initial=0))
        step = max(1, _CELLS // max(widest, 1))
        for start in range(0, queries, step):
            stop = min(start + step, queries)
            part = slice(offsets[start], offsets[stop])
            local = offsets[start : stop + 1] - offsets[start]
            log_weight = lists.pad(weights[part], local, fill=-np.inf)
            if not log_weight.shape[1]:
                continue
            key = lists.pad(weights[part] + gumbel[part], local, fill=-np.inf)
            order = np.argsort(-key, axis=1, kind="stable")
            k = min(self.k, order.shape[1])
            ordered = np.take_along_axis(log_weight, order, axis=1)
            possible = ordered[:, :k] > -np.inf
            picked = np.take_along_axis(lists.pad(rows[part], local, fill=-1), order[:, :k], axis=1)
            chosen[start:stop, :k] = np.where(possible, picked, -1)
            log_probability[start:stop, :k] = _step_log_probability(ordered, k)
        return chosen, log_probability


class Top(Sampler):
    """Take the `k` hardest survivors; `skip=N` first passes over N of them (Top-K shifted by N).

    Use it as the plain choice after a positive-aware filter; without one it takes the false negatives first.

    Source: Moreira et al. 2024, NV-Retriever, Naive Top-K and Top-K shifted by N (paper 13); skipping after filtering,
    as in the reference code.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(list("abcd")), [0, 4], [0, 1, 2, 3], [.9, .8, .7, .6])
    >>> run.documents.ids[Top(2, skip=2)(run).document].tolist()
    ['c', 'd']
    """

    def __init__(self, k: int, *, skip: int = 0) -> None:
        super().__init__(k, skip=skip)

    def log_weights(self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
        """Return None: the head of the pool is taken."""


class Uniform(Sampler):
    """Draw `k` survivors at random, all of the pool alike; `window` limits it to the hardest ones.

    Use it with the top 100 or 200 of a retriever: easier negatives than `Top`, and fewer false ones.

    Source: Xiong et al. 2021, ANCE (paper 37: 20 of the top 200); Zhan et al. 2021, STAR (paper 29).

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(list("abcd")), [0, 4], [0, 1, 2, 3], [.9, .8, .7, .6])
    >>> Uniform(1, window=2).probabilities(run).tolist()
    [0.5, 0.5, 0.0, 0.0]
    """

    def log_weights(self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return zeros."""
        return np.zeros(len(rows), dtype=np.float64)


class Softmax(Sampler):
    """Draw `k` of the `window` hardest survivors with probability softmax(score / temperature), without replacement.

    p_i = exp(s_i / t) / sum_j exp(s_j / t) over the pool; `keep_top1` takes the hardest for certain and draws the other
    k - 1.

    Use it for some variety among hard negatives between epochs. Scores of cosine kind differ by hundredths, so at
    temperature 1 this is nearly `Uniform(k, window=...)`; 0.05 follows the scores.

    Source: Moreira et al. 2024, NV-Retriever, sampled top-k and top-1 + sampled (paper 13; the temperature is not
    given, 1 is ours).

    Raises:
        RivalsError: temperature not above 0; a score in the pool that is not finite.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(list("abc")), [0, 3], [0, 1, 2], [2., 1., 0.])
    >>> Softmax(2, window=3, keep_top1=True).probabilities(run).round(6).tolist()
    [1.0, 0.731059, 0.268941]
    """

    def __init__(
        self,
        k: int,
        *,
        window: int | None = 10,
        temperature: float = 1.0,
        keep_top1: bool = False,
        skip: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(k, window=window, skip=skip, seed=seed)
        if not (math.isfinite(temperature) and temperature > 0):
            raise RivalsError(f"temperature must be a finite number above 0, not {temperature}")
        self.temperature, self.keep_top1 = float(temperature), keep_top1

    def log_weights(self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return score / temperature, and +inf for the hardest with `keep_top1`."""
        score = run.score[rows].astype(np.float64)
        if not np.isfinite(score).all():
            row = int(rows[int((~np.isfinite(score)).argmax())])
            query = int(np.searchsorted(run.offsets, row, side="right") - 1)
            raise RivalsError(
                f"query '{run.queries.ids[query]}': the score {run.score[row]} has no softmax; scores must be finite"
            )
        weights = score / self.temperature
        if self.keep_top1:
            weights[offsets[:-1][np.diff(offsets) > 0]] = np.inf
        return weights

    def __repr__(self) -> str:
        return (
            super().__repr__()[:-1]
            + f", temperature={self.temperature:g}"
            + (", keep_top1=True)" if self.keep_top1 else ")")
        )


def check_drawn(draw: Draw, sampler: Sampler, *, proposed: int, marked: int) -> None:
    """Raise a RivalsError if there are queries and not one of them got a negative."""
    if len(draw) and not draw.mask.any():
        raise RivalsError(
            f"{sampler!r} found nothing to draw: {proposed} candidates of {len(draw)} queries, {marked} of them "
            "marked; retrieve more candidates or loosen the filters"
        )


def _step_log_probability(ordered: NDArray[np.float64], k: int) -> NDArray[np.float32]:
    """Log-probability of each of the first k draws, float32[A, k]: w_j - log sum of exp(w_i) for i >= j.

    Certain rows (+inf, in front) and rows that cannot be drawn (-inf, at the end) give 0.
    """
    head, tail = ordered[:, :k], ordered[:, k:]
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.full(len(ordered), -np.inf)
        if tail.shape[1]:
            highest = np.maximum(tail.max(axis=1), np.finfo(np.float64).min)
            left = highest + np.log(np.exp(tail - highest[:, None]).sum(axis=1))
        steps = np.logaddexp.accumulate(np.concatenate([left[:, None], head[:, ::-1]], axis=1), axis=1)[:, 1:][:, ::-1]
        result = head - steps
    return np.where(np.isfinite(head), np.minimum(result, 0.0), 0.0).astype(np.float32)
