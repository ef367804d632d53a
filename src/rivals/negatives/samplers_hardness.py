"""Samplers that weigh hardness against doubt: resampling by false-negative probability, self-adversarial weights, mixtures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.samplers import Draw, Sampler, Softmax


class Resample(Sampler):
    """Draw `k` negatives by another sampler's probabilities times (1 - false-negative probability)^gamma.

    p_i proportional to base_i (1 - f_i)^gamma over the base's pool, without replacement; f_i is the run's
    `fn_probability`, whoever estimated it.

    Use it where a detector gives doubts instead of verdicts: a candidate that is likely a positive is drawn rarely, not
    never. gamma=0 is the base sampler.

    Args:
        k: how many to draw. gamma: 0 or more, 1 by default. base: what weighs hardness, a softmax over all scores by
            default; `Ambiguous` suits too. Its window and skip count, its own k does not. seed: see `Sampler`.

    A query all of whose candidates are false negatives for certain is drawn for by the base alone, with a warning.

    Source: RRRA (2025), resampling through a retriever adapter. Paper 20. The source multiplies "the base hardness
    weight"; that it is a softmax, and gamma 1, are our reading.

    Raises:
        RivalsError: gamma below 0, a base that draws for certain; called on a run whose `fn_probability` is missing or
        outside 0..1 for a candidate in the pool.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(list("abc")), [0, 3], [0, 1, 2], np.log([.5, .3, .2]),
    ...                 columns={"fn_probability": [.8, .1, 0]})
    >>> Resample(1).probabilities(run).round(6).tolist()
    [0.175439, 0.473684, 0.350877]
    """

    def __init__(self, k: int = 15, *, gamma: float = 1.0, base: Sampler | None = None, seed: int = 0) -> None:
        super().__init__(k, seed=seed)
        if not (math.isfinite(gamma) and gamma >= 0):
            raise RivalsError(f"gamma must be a finite number, 0 or more, not {gamma}")
        self.gamma = float(gamma)
        self.base = Softmax(k, window=None) if base is None else base

    def at(self, epoch: int) -> Resample:
        """Return the sampler of an epoch: with its base's."""
        return Resample(self.k, gamma=self.gamma, base=self.base.at(epoch), seed=self.seed)

    def pool(self, run: Run) -> NDArray[np.bool_]:
        """Return the base's pool, bool[n]."""
        return self.base.pool(run)

    def log_weights(self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the base's log-weights + gamma log(1 - fn_probability)."""
        weights = self.base.log_weights(run, rows, offsets)
        if weights is None or np.isposinf(weights).any():
            raise RivalsError(
                f"{self.base!r} draws for certain and has no weights to multiply; use Softmax or Ambiguous"
            )
        if self.gamma == 0:
            return weights
        doubt = run.fn_probability[rows].astype(np.float64)
        wrong = ~((doubt >= 0) & (doubt <= 1))
        if wrong.any():
            row = int(rows[int(wrong.argmax())])
            query = int(np.searchsorted(run.offsets, row, side="right") - 1)
            raise RivalsError(
                f"query '{run.queries.ids[query]}': a candidate's fn_probability is {run.fn_probability[row]} "
                f"({int(wrong.sum())} of {len(rows)} are not in 0..1); run a filter that estimates it first"
            )
        with np.errstate(divide="ignore"):
            product = weights + self.gamma * np.log1p(-doubt)
        lengths = np.diff(offsets)
        possible = lists.segment_reduce(np.maximum, product, offsets, empty=0.0) > -np.inf
        before = lists.segment_reduce(np.maximum, weights, offsets, empty=-np.inf) > -np.inf
        lost = ~possible & before
        if lost.any():
            warnings.warn(
                f"{int(lost.sum())} of {len(lost)} queries have only candidates with fn_probability 1; they are drawn "
                "for by the base sampler alone",
                stacklevel=2,
            )
        return np.where(np.repeat(lost, lengths), weights, product)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, gamma={self.gamma:g}, base={self.base!r})"


class SelfAdversarial(Sampler):
    """Draw `k` survivors at random, all alike, and weigh each by how high the model scores it.

    w_j = k softmax_j(s_j / temperature) over the k drawn, times the run's own weight: hard negatives count more and easy
    ones remain in the loss. The weights of a query average 1, so a mean over its negatives is the source's weighted sum.

    Use it for corrupted triples and other random negatives, redrawn in every step with the current model's scores. To
    draw by these probabilities instead of weighing by them, use `Softmax(k, window=None, temperature=...)`.

    Args:
        k: how many to draw. temperature: above 0, the inverse of the source's alpha; large values weigh all alike.
            window, skip, seed: see `Sampler`.

    Source: Sun et al. (2019), RotatE, section 3.3, as used by LEMON (paper 49).

    Raises:
        RivalsError: temperature not above 0; a drawn score that is not finite.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [1., 0.])
    >>> draw = SelfAdversarial(2).draw(run, np.random.default_rng(0))
    >>> np.sort(draw.weight[0]).round(4)
    array([0.5379, 1.4621], dtype=float32)
    """

    def __init__(
        self, k: int, *, temperature: float = 1.0, window: int | None = None, skip: int = 0, seed: int = 0
    ) -> None:
        super().__init__(k, window=window, skip=skip, seed=seed)
        if not (math.isfinite(temperature) and temperature > 0):
            raise RivalsError(f"temperature must be a finite number above 0, not {temperature}")
        self.temperature = float(temperature)

    def log_weights(self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return zeros."""
        return np.zeros(len(rows), dtype=np.float64)

    def draw_available(self, run: Run, generator: np.random.Generator) -> Draw:
        """Draw as `draw` does, but return an empty draw where no query has a candidate left."""
        draw = super().draw_available(run, generator)
        score = np.full(draw.mask.shape, -np.inf)
        score[draw.mask] = run.score[draw.row[draw.mask]]
        if not np.isfinite(score[draw.mask]).all():
            query, place = np.argwhere(draw.mask & ~np.isfinite(score))[0]
            raise RivalsError(
                f"query '{run.queries.ids[query]}': the score {score[query, place]} has no softmax; scores must be finite"
            )
        highest = np.where(draw.mask.any(1), score.max(1, initial=-np.inf), 0.0)[:, None]
        mass = np.exp((score - highest) / self.temperature)
        share = mass / np.maximum(mass.sum(1, keepdims=True), 1e-300) * draw.mask.sum(1, keepdims=True)
        return replace(draw, weight=(draw.weight * share).astype(np.float32))

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, temperature={self.temperature:g})"


class Mixture(Sampler):
    """Draw `k` negatives, each from one of several samplers: from sampler i with probability share_i.

    p = sum_i share_i p_i, p_i the sampler's probabilities, those of rows drawn for certain made to sum to 1; without
    replacement over all of them. A sampler that has no candidate for a query leaves its share to the others.

    Use it to put easy negatives beside hard ones, as joint training of a retriever and its adapter does. The shares hold
    on average over queries, not in each.

    Args:
        samplers: (sampler, share) pairs, shares above 0 in any unit; a sampler's pool and probabilities count, its own k
            only where it draws for certain. k: how many to draw. seed: see `Sampler`.

    Source: mixtures of hard and random negatives are common, as in RRRA, stage 3 (paper 20), and STAR (paper 29).

    Raises:
        RivalsError: no sampler, a share not above 0.

    >>> from rivals.data import Collection
    >>> from rivals.negatives.samplers import Top, Uniform
    >>> run = Run.build(Collection(["q"]), Collection(list("abcd")), [0, 4], [0, 1, 2, 3], [.9, .8, .7, .6])
    >>> Mixture([(Top(1), 3), (Uniform(1), 1)], k=2).probabilities(run).tolist()
    [0.8125, 0.0625, 0.0625, 0.0625]
    """

    def __init__(self, samplers: Sequence[tuple[Sampler, float]], *, k: int, seed: int = 0) -> None:
        super().__init__(k, seed=seed)
        self.samplers = tuple((sampler, float(share)) for sampler, share in samplers)
        if not self.samplers:
            raise RivalsError("a mixture needs a sampler; give (sampler, share) pairs")
        for sampler, share in self.samplers:
            if not (math.isfinite(share) and share > 0):
                raise RivalsError(f"the share of {sampler!r} must be a finite number above 0, not {share}")

    def at(self, epoch: int) -> Mixture:
        """Return the sampler of an epoch: of all its samplers'."""
        return Mixture([(sampler.at(epoch), share) for sampler, share in self.samplers], k=self.k, seed=self.seed)

    def pool(self, run: Run) -> NDArray[np.bool_]:
        """Return the union of the samplers' pools, bool[n]."""
        return np.logical_or.reduce([sampler.pool(run) for sampler, _ in self.samplers])

    def log_weights(self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return log p, up to a constant a query; -inf where no sampler would draw."""
        lengths = np.diff(offsets)
        mixed = np.zeros(len(rows))
        for sampler, share in self.samplers:
            probability = sampler.probabilities(run)[rows]
            total = np.repeat(lists.segment_reduce(np.add, probability, offsets), lengths)
            mixed += share * probability / np.where(total > 0, total, 1.0)
        with np.errstate(divide="ignore"):
            return np.log(mixed)

    def __repr__(self) -> str:
        parts = ", ".join(f"({sampler!r}, {share:g})" for sampler, share in self.samplers)
        return f"Mixture([{parts}], k={self.k})"
