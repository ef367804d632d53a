"""The ambiguous sampler: negatives that score about as much as the query's positive (SimANS)."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.samplers import Draw, Sampler

Positive = Literal["draw", "first", "min", "max", "mean"]
OnMissing = Literal["raise", "uniform"]


def ambiguous_log_weights(
    scores: Any, positive_score: Any, *, a: float = 0.5, b: float = 0.0, power: int = 2
) -> NDArray[np.float64]:
    """Return the log-weights -a |s - s+ - b|^power of candidates, not normalised.

    Args:
        scores: float[..., C]. positive_score: float[...], the positives' scores by the same scorer. a: above 0, in
            units of 1 / score^power. b: where the weight is highest, relative to the positive. power: 2, or 1 as in
            the MS MARCO script.

    Source: Zhou et al. (2022), SimANS. Paper 10. The sign of b is the paper's: the scripts' --b is minus this one.

    Raises:
        RivalsError: a not above 0, a power other than 1 and 2, b not finite.

    >>> ambiguous_log_weights([1.0, 2.0], 0.0).tolist()
    [-0.5, -2.0]
    """
    check_shape(a, b, power)
    distance = np.abs(np.asarray(scores, np.float64) - np.asarray(positive_score, np.float64)[..., None] - b)
    return -a * (distance if power == 1 else distance**2)


def ambiguous_probabilities(
    scores: Any,
    positive_score: Any,
    mask: Any = None,
    *,
    a: float = 0.5,
    b: float = 0.0,
    power: int = 2,
    on_missing_positive: OnMissing = "raise",
    allow_empty: bool = False,
) -> NDArray[np.float64]:
    """Return the probabilities of candidates to be drawn first, highest where they score s+ + b.

    p_i = exp(-a |s_i - s+ - b|^power) / sum_j exp(-a |s_j - s+ - b|^power), computed in logarithms: candidates far from
    the positive still get a distribution.

    Args:
        scores: float[..., C]. positive_score: float[...]. mask: bool[..., C], False = not there or marked; such entries
            get 0 whatever they hold. a, b, power: see `ambiguous_log_weights`. on_missing_positive: what a positive
            score of NaN means, an error or equal probabilities. allow_empty: whether a list without candidate gives
            zeros instead of an error.

    Source: Zhou et al. (2022), SimANS. Paper 10.

    Raises:
        RivalsError: as `ambiguous_log_weights`; shapes that do not fit, a score that is there and not finite, a positive
        score of NaN with "raise" (an infinite one always), an empty list without `allow_empty`.

    >>> ambiguous_probabilities([0.0, 1.0, 2.0], 0.0).round(6).tolist()
    [0.574097, 0.348207, 0.077696]
    """
    check_missing(on_missing_positive)
    values, positive = np.asarray(scores, np.float64), np.asarray(positive_score, np.float64)
    if values.ndim == 0 or positive.shape != values.shape[:-1]:
        raise RivalsError(f"scores {values.shape} need one positive score a list, shape {values.shape[:-1]}")
    there = np.ones(values.shape, bool) if mask is None else np.asarray(mask, bool)
    if there.shape != values.shape:
        raise RivalsError(f"mask {there.shape} must have the shape of the scores, {values.shape}")
    if not np.isfinite(values[there]).all():
        raise RivalsError("scores must be finite where the mask is True")
    if not (allow_empty or there.any(-1).all()):
        raise RivalsError("a list has no candidate to draw from; leave it out or set allow_empty=True")
    missing = np.isnan(positive)
    if np.isinf(positive).any() or (missing.any() and on_missing_positive == "raise"):
        raise RivalsError(
            f"{int((~np.isfinite(positive)).sum())} of {positive.size} positive scores are not finite; score every "
            "positive with the candidates' scorer, or set on_missing_positive='uniform' for NaN"
        )
    weights = ambiguous_log_weights(
        np.where(there, values, 0.0), np.where(missing, 0.0, positive), a=a, b=b, power=power
    )
    weights = np.where(there, np.where(missing[..., None], 0.0, weights), -np.inf)
    highest = weights.max(-1, keepdims=True, initial=-np.inf)
    mass = np.exp(weights - np.where(np.isfinite(highest), highest, 0.0))
    total = mass.sum(-1, keepdims=True)
    return mass / np.where(total > 0, total, 1.0)


class Ambiguous(Sampler):
    """Draw `k` negatives that score about as much as the positive: neither false negatives nor too easy.

    p_i proportional to exp(-a |s_i - s+ - b|^power) over the pool, s+ the score of the query's positive by the same
    scorer, without replacement. The positives' own scores come with a run that a retriever made of a dataset.

    Use it after the known positives are marked, in place of `Top`. `a` has units of 1 / score^2: 0.5 fits scores of
    60 to 110 (dot products), cosines want 50 to 500, or `width`. With cosines, b = -0.1 or so, below the positive,
    avoids far more false negatives than 0.

    Args:
        k: how many to draw. a: 0.5 by default. b: where the peak lies relative to the positive. power: 2 or 1.
        width: instead of `a`: the standard deviation in score units, a = 1 / (2 width^2); "auto" takes half the
            standard deviation of the query's pool (ours). Power 2 only.
        positive: which one counts when a query has several: one drawn at every visit, the "first", or the "min",
            "max" or "mean" score. With "draw", `probabilities` are the average over the positives, and a draw's
            `log_probability` is given the positive it was drawn with.
        on_missing_positive: what to do for a query with candidates and a positive without score, or with no positive:
            "raise", or leave unscored positives out and draw alike ("uniform") where none is left.
        window, skip, seed: see `Sampler`.

    Source: Zhou et al. (2022), SimANS. Paper 10. Its Wikipedia script is positive="first" with --b = -b, its MS MARCO
    script power=1, a=3. The scripts draw with replacement until k differ and cut; this draws without (Gumbel top-k),
    and a positive that was not retrieved has a score here and is not replaced by a uniform draw.

    Raises:
        RivalsError: a or width not above 0, both given, power not 1 or 2, width with power 1, unknown options; called
        with a score that is not finite or, by default, without a positive's score.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(list("abcd")), [0, 3], [1, 2, 3], [.8, .7, .5],
    ...                 positives=([0, 1], [0]), positive_score=[.7])
    >>> Ambiguous(2, a=50).probabilities(run).round(3).tolist()
    [0.348, 0.574, 0.078]
    """

    def __init__(
        self,
        k: int = 15,
        *,
        a: float | None = None,
        b: float = 0.0,
        power: int = 2,
        width: float | Literal["auto"] | None = None,
        positive: Positive = "draw",
        on_missing_positive: OnMissing = "raise",
        window: int | None = None,
        skip: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(k, window=window, skip=skip, seed=seed)
        if positive not in ("draw", "first", "min", "max", "mean"):
            raise RivalsError(f"positive must be 'draw', 'first', 'min', 'max' or 'mean', not {positive!r}")
        check_missing(on_missing_positive)
        if width is not None:
            if a is not None or power != 2:
                raise RivalsError("width stands for a with power 2; give a or width, and width with power 2 only")
            if width != "auto" and not (isinstance(width, int | float) and math.isfinite(width) and width > 0):
                raise RivalsError(f"width must be a finite number above 0 or 'auto', not {width!r}")
            if width != "auto":
                a = 1 / (2 * float(width) ** 2)
        check_shape(0.5 if a is None else a, b, power)
        self.a = None if width == "auto" else float(0.5 if a is None else a)
        self.b, self.power = float(b), int(power)
        self.positive: Positive = positive
        self.on_missing_positive: OnMissing = on_missing_positive

    def log_weights(self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return log p, with positive="draw" the log of the average of p over the query's positives."""
        return self._log_probability(run, rows, offsets, *self._positives(run, offsets))

    def draw_available(self, run: Run, generator: np.random.Generator) -> Draw:
        """Draw as `draw` does, but return an empty draw where no query has a candidate left.

        With positive="draw", the number of a query's first row also picks the positive: its leading digits do, and
        what follows them is as uniform as before. So the generator is still asked for one number per row.
        """
        if self.positive != "draw":
            return super().draw_available(run, generator)
        rows, offsets = self._pool_rows(run)
        scores, bounds = self._positives(run, offsets)
        noise = generator.random(len(run))
        count = np.diff(bounds)
        several = np.flatnonzero((count > 1) & (np.diff(run.offsets) > 0))
        place = np.zeros(len(count), np.int64)
        if len(several):
            first = run.offsets[several]
            scaled = noise[first] * count[several]
            place[several] = np.minimum(scaled.astype(np.int64), count[several] - 1)
            noise[first] = scaled - place[several]
        taken = bounds[:-1][count > 0] + place[count > 0]
        weights = self._log_probability(run, rows, offsets, scores[taken], lists.offsets_from_lengths(count > 0))
        gumbel = -np.log(-np.log(np.maximum(noise[rows], 2.0**-54)))
        return Draw.of_rows(run, *self._draw_random(rows, offsets, weights, gumbel))

    def _positives(self, run: Run, offsets: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The scores of the positives that count, query after query, and their offsets."""
        score = run.positive_score.astype(np.float64)
        known = np.isfinite(score)
        bounds = lists.keep_values(known, run.positive_offsets)
        needed = np.diff(offsets) > 0
        if self.on_missing_positive == "raise":
            complete = (np.diff(bounds) == np.diff(run.positive_offsets)) & (np.diff(bounds) > 0)
            if (needed & ~complete).any():
                query = int((needed & ~complete).argmax())
                lacks = "no positive" if not np.diff(run.positive_offsets)[query] else "a positive without score"
                raise RivalsError(
                    f"query '{run.queries.ids[query]}' has {lacks} ({int((needed & ~complete).sum())} of {len(needed)} "
                    "queries); call the retriever with the dataset, retriever(dataset, k), or set "
                    "on_missing_positive='uniform'"
                )
        score = score[known]
        if self.positive == "draw":
            return score, bounds
        filled = np.diff(bounds) > 0
        if self.positive == "first":
            one = score[bounds[:-1][filled]]
        elif self.positive == "mean":
            one = (lists.segment_reduce(np.add, score, bounds) / np.maximum(np.diff(bounds), 1))[filled]
        else:
            reduce = np.minimum if self.positive == "min" else np.maximum
            one = lists.segment_reduce(reduce, score, bounds)[filled]
        return one, lists.offsets_from_lengths(filled)

    def _log_probability(
        self,
        run: Run,
        rows: NDArray[np.int64],
        offsets: NDArray[np.int64],
        positive: NDArray[np.float64],
        bounds: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """log p of every pool row, averaged over the positives `positive` [bounds] of its query; 0 without any."""
        score = run.score[rows].astype(np.float64)
        if not np.isfinite(score).all():
            row = int(rows[int((~np.isfinite(score)).argmax())])
            query = int(np.searchsorted(run.offsets, row, side="right") - 1)
            raise RivalsError(
                f"query '{run.queries.ids[query]}': the score {run.score[row]} is at no distance from the positive's; "
                "scores must be finite"
            )
        owner = lists.segment_ids(bounds)
        index, pairs = lists.take_segments(offsets, owner)  # every pool row once per positive of its query
        lengths = np.diff(pairs)
        distance = np.abs(score[index] - np.repeat(positive, lengths) - self.b)
        weight = -np.repeat(self._steepness(score, offsets)[owner], lengths) * distance**self.power
        highest = lists.segment_reduce(np.maximum, weight, pairs)
        mass = lists.segment_reduce(np.add, np.exp(weight - np.repeat(highest, lengths)), pairs, empty=1.0)
        weight -= np.repeat(highest + np.log(mass), lengths)
        result = np.zeros(len(rows))
        if (np.diff(bounds) <= 1).all():
            result[index] = weight
            return result
        order = np.argsort(index, kind="stable")
        times = np.bincount(index, minlength=len(rows))
        starts = lists.offsets_from_lengths(times)
        together = lists.segment_reduce(np.logaddexp, weight[order], starts)
        return np.where(times > 0, together - np.log(np.maximum(times, 1)), result)

    def _steepness(self, score: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """a of every query; under width="auto" 1 / (2 w^2) with w half the standard deviation of its pool."""
        lengths = np.diff(offsets)
        if self.a is not None:
            return np.full(len(lengths), self.a)
        mean = lists.segment_reduce(np.add, score, offsets) / np.maximum(lengths, 1)
        spread = lists.segment_reduce(np.add, (score - np.repeat(mean, lengths)) ** 2, offsets)
        variance = spread / np.maximum(lengths, 1)
        return np.where(variance > 0, 2 / np.where(variance > 0, variance, 1.0), 1.0)

    def __repr__(self) -> str:
        steepness = "width='auto'" if self.a is None else f"a={self.a:g}"
        given = (
            f", b={self.b:g}" if self.b else "",
            f", power={self.power}" if self.power != 2 else "",
            f", positive={self.positive!r}" if self.positive != "draw" else "",
        )
        return f"{super().__repr__()[:-1]}, {steepness}{''.join(given)})"


def check_shape(a: float, b: float, power: int) -> None:
    """Raise a RivalsError unless a > 0, b is finite and power is 1 or 2."""
    if not (math.isfinite(a) and a > 0):
        raise RivalsError(f"a must be a finite number above 0, not {a!r}")
    if power not in (1, 2):
        raise RivalsError(f"power must be 1 or 2, not {power!r}")
    if not math.isfinite(b):
        raise RivalsError(f"b must be finite, not {b!r}")


def check_missing(on_missing_positive: str) -> None:
    """Raise a RivalsError unless the option is known."""
    if on_missing_positive not in ("raise", "uniform"):
        raise RivalsError(f"on_missing_positive must be 'raise' or 'uniform', not {on_missing_positive!r}")
