"""Bootstrap intervals of means over queries.

The queries of a test set are a sample; another sample would give another mean. The bootstrap draws the queries again,
with replacement, many times, and reads the spread of the means. All rows of one call share the draws, so several
systems or measures cost little more than one, and differences of rows stay paired.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals.errors import RivalsError
from rivals.progress import progress

_BLOCK = 1 << 17  # drawn queries held at a time, so that they stay in the cache


class Interval(NamedTuple):
    """An estimate and the ends of its interval; floats, or arrays of the leading shape of the values.

    >>> str(Interval(0.5, 0.41, 0.58))
    '0.500 [0.410, 0.580]'
    """

    estimate: Any
    low: Any
    high: Any

    def __str__(self) -> str:
        if np.ndim(self.estimate):
            return repr(self)
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_interval(
    values: ArrayLike,
    *,
    level: float = 0.95,
    method: Literal["bca", "percentile"] = "bca",
    resamples: int = 10_000,
    seed: int | np.random.Generator = 0,
) -> Interval:
    """Return the bootstrap interval of the mean over queries.

    percentile: the (1 - level) / 2 and (1 + level) / 2 quantiles of the resampled means. bca: the same after correcting
    the two levels for bias and skewness, a_low = Phi(z0 + (z0 + z_low) / (1 - a (z0 + z_low))), with z0 the normal
    quantile of the share of resampled means below the mean (half of the ties counted) and a = sum d^3 / (6 (sum
    d^2)^1.5), d_i = x_i - mean, the jackknife acceleration of a mean.

    Shapes: values[..., Q] -> Interval of three [...]. Use bca for measures that are skewed over queries (most are);
    pass first - second for the interval of a paired difference. Fewer than two queries carry no spread: the ends are
    NaN. Equal values give an interval of no width.

    Source: Efron 1987 (doi 10.1080/01621459.1987.10478410); percentile: Efron 1979.

    Raises:
        RivalsError: a value is NaN or infinite, there is no query, level is not between 0 and 1, fewer than 100
            resamples.

    >>> bootstrap_interval([0., 1., 1., 0., 1., 1., 1., 0.], method="percentile")
    Interval(estimate=0.625, low=0.25, high=0.875)
    """
    if not 0 < level < 1:
        raise RivalsError(f"level is {level}; it must lie between 0 and 1, such as 0.95")
    if resamples < 100:
        raise RivalsError(f"{resamples} resamples are too few for an interval; take at least 100, usually 10,000")
    if method not in ("bca", "percentile"):
        raise RivalsError(f"method is '{method}'; it can be 'bca' or 'percentile'")
    checked = per_query(values, "values")
    rows = checked.reshape(-1, checked.shape[-1])
    estimate = rows.mean(axis=-1)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if rows.shape[-1] < 2:
        low = high = np.full_like(estimate, np.nan)
    else:
        centre = rows.mean(axis=-1, keepdims=True)
        means = np.sort(resampled_means(rows - centre, resamples, seed), axis=-1)
        levels = np.tile(tails, (len(rows), 1)) if method == "percentile" else _bca_levels(rows - centre, means, tails)
        low, high = (centre + _quantiles(means, levels)).T
        constant = (rows == rows[:, :1]).all(axis=-1)
        low, high = np.where(constant, estimate, low), np.where(constant, estimate, high)
    shape = checked.shape[:-1]
    if not shape:
        return Interval(float(estimate[0]), float(low[0]), float(high[0]))
    return Interval(estimate.reshape(shape), low.reshape(shape), high.reshape(shape))


def resampled_means(
    values: NDArray[np.float64], resamples: int, seed: int | np.random.Generator = 0
) -> NDArray[np.float64]:
    """Return the means of `resamples` draws of the queries with replacement: values[S, Q] -> [S, resamples].

    Every row sees the same draws. The draws are made in blocks as counts per query, so that one matrix product serves
    all rows.

    >>> resampled_means(np.array([[1., 1., 1.]]), 2).tolist()
    [[1.0, 1.0]]
    """
    generator = np.random.default_rng(seed)
    queries = values.shape[-1]
    means = np.empty((len(values), resamples))
    step = max(1, _BLOCK // queries)
    with progress("Resampling queries", resamples) as advance:
        for start in range(0, resamples, step):
            size = min(step, resamples - start)
            drawn = generator.integers(0, queries, size=(size, queries), dtype=np.int32).astype(np.int64)
            drawn += np.arange(size)[:, None] * queries
            counts = np.bincount(drawn.ravel(), minlength=size * queries).reshape(size, queries)
            means[:, start : start + size] = values @ counts.T.astype(np.float64) / queries
            advance(size)
    return means


def per_query(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Check and return values [..., Q] of queries, float64: at least one query, all finite.

    >>> per_query([0, 1], "values").tolist()
    [0.0, 1.0]
    """
    checked = np.asarray(values, dtype=np.float64)
    if checked.ndim == 0 or checked.shape[-1] == 0:
        raise RivalsError(f"{name} has no query to take a mean over")
    if not np.isfinite(checked).all():
        raise RivalsError(f"{name} has NaN or infinite values; leave those queries out, the same ones for every system")
    return checked


def _bca_levels(
    deviations: NDArray[np.float64], means: NDArray[np.float64], tails: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the two corrected quantile levels of each row, [S, 2]; `means[S, B]` are those of the deviations."""
    from scipy.special import ndtr, ndtri

    resamples = means.shape[-1]
    ties = np.abs(means) <= 1e-12 * np.abs(deviations).max(axis=-1, keepdims=True)
    below = ((means < 0) & ~ties).sum(axis=-1) + ties.sum(axis=-1) / 2
    bias = ndtri(np.clip(below / resamples, 0.5 / resamples, 1 - 0.5 / resamples))[:, None]
    spread = (deviations**2).sum(axis=-1)
    skewness = (deviations**3).sum(axis=-1) / (6 * np.where(spread > 0, spread, 1) ** 1.5)
    shifted = bias + ndtri(tails)
    return ndtr(bias + shifted / (1 - skewness[:, None] * shifted))


def _quantiles(sorted_means: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quantiles of each sorted row at that row's levels, interpolated: [S, B], [S, 2] -> [S, 2]."""
    last = sorted_means.shape[-1] - 1
    place = np.clip(levels, 0, 1) * last
    below = np.floor(place).astype(np.int64)
    low, high = (np.take_along_axis(sorted_means, np.minimum(below + step, last), -1) for step in (0, 1))
    return low + (high - low) * (place - below)
