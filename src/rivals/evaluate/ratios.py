"""Intervals of ratios of sums over queries, such as micro recall: queries are drawn again with both their sums."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rivals.errors import RivalsError
from rivals.measures.intervals import Interval, per_query, resampled_means


def ratio_interval(
    top: ArrayLike, bottom: ArrayLike, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Return sum(top) / sum(bottom) over queries with its percentile bootstrap interval.

    Shapes: top[Q], bottom[Q] -> Interval of floats; NaN where sum(bottom) is 0. Draws whose bottom is 0 are left out of
    the quantiles. Equals `bootstrap_interval` with method="percentile" where bottom is 1.

    Raises:
        RivalsError: unequal lengths, values that are not finite, bottom below 0, level not between 0 and 1.

    >>> ratio_interval([1, 0, 2], [1, 1, 2]).estimate
    0.75
    """
    if not 0 < level < 1:
        raise RivalsError(f"level is {level}; it must lie between 0 and 1, such as 0.95")
    sums = [per_query(part, name) for part, name in ((top, "top"), (bottom, "bottom"))]
    if sums[0].shape != sums[1].shape or sums[0].ndim != 1 or (sums[1] < 0).any():
        raise RivalsError(f"top {sums[0].shape} and bottom {sums[1].shape} must be one number a query, bottom from 0")
    if not sums[1].sum():
        return Interval(float("nan"), float("nan"), float("nan"))
    estimate = float(sums[0].sum() / sums[1].sum())
    if len(sums[0]) < 2:
        return Interval(estimate, float("nan"), float("nan"))
    tops, bottoms = resampled_means(np.stack(sums), resamples, seed)
    there = bottoms > 0
    low, high = np.quantile(tops[there] / bottoms[there], [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))
