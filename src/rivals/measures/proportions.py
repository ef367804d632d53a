"""Intervals of proportions: how often something is so, seen in a sample, plain or drawn from strata."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals.errors import RivalsError
from rivals.measures.intervals import Interval

Method = Literal["clopper-pearson", "wilson"]


def proportion_interval(
    successes: ArrayLike, trials: ArrayLike, *, level: float = 0.95, method: Method = "clopper-pearson"
) -> Interval:
    """Return the interval of a proportion seen as `successes` of `trials`.

    clopper-pearson: the beta quantiles low = B(a; x, n - x + 1), high = B(1 - a; x + 1, n - x), a = (1 - level) / 2; it
    covers the truth at least as often as `level` says, whatever the truth. wilson: (p + z^2 / 2n +- z sqrt(p (1 - p) / n
    + z^2 / 4n^2)) / (1 + z^2 / n), which covers it that often on average and is a little shorter.

    Shapes: successes[...], trials[...] -> Interval of three [...], or of floats. Trials need not be whole numbers, so
    that an effective sample size can be given. No trial gives the estimate NaN and the interval [0, 1].

    When to use: for any share estimated from a sample of independent cases, rates near 0 or 1 included, where p +- 1.96
    standard errors fails.

    Source: Clopper and Pearson 1934; Wilson 1927; compared by Brown, Cai, DasGupta 2001.

    Raises:
        RivalsError: successes outside 0..trials, a level outside (0, 1), an unknown method.

    >>> print(proportion_interval(2, 50))
    0.040 [0.005, 0.137]
    >>> print(proportion_interval(2, 50, method="wilson"))
    0.040 [0.011, 0.135]
    """
    from scipy.special import betaincinv, ndtri

    x, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    if not 0 < level < 1:
        raise RivalsError(f"level is {level}; it must lie between 0 and 1, such as 0.95")
    if method not in ("clopper-pearson", "wilson"):
        raise RivalsError(f"method is '{method}'; it can be 'clopper-pearson' or 'wilson'")
    if not (np.isfinite(x).all() and np.isfinite(n).all() and (x >= 0).all() and (x <= n).all()):
        raise RivalsError("successes must lie between 0 and the number of trials")
    x, n = np.broadcast_arrays(x, n)
    empty = n == 0
    size = np.where(empty, 1.0, n)
    p = np.where(empty, np.nan, x / size)
    tail = (1 - level) / 2
    if method == "wilson":
        z = ndtri(1 - tail)
        share = x / size
        centre = share + z**2 / (2 * size)
        half = z * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
        low, high = ((centre + sign * half) / (1 + z**2 / size) for sign in (-1, 1))
    else:
        low = betaincinv(np.maximum(x, 1e-300), size - x + 1, tail)
        high = betaincinv(x + 1, np.maximum(size - x, 1e-300), 1 - tail)
    low = np.where(empty | (x == 0), 0.0, low)
    high = np.where(empty | (x == n), 1.0, high)
    return _interval(p, low, high)


def stratified_interval(
    successes: ArrayLike, trials: ArrayLike, weights: ArrayLike, *, level: float = 0.95
) -> Interval:
    """Return the interval of a proportion from a sample drawn in strata, each with its own rate.

    p = sum_h w_h x_h / n_h with w_h the strata's shares of the whole. Its variance V = sum_h w_h^2 p_h (1 - p_h) / n_h
    gives the effective sample size n' = min(n, p (1 - p) / V), n = sum_h n_h, and the interval is Clopper and Pearson's
    for n' p of n'. One stratum gives `proportion_interval`; the cap at n makes it cautious where strata help.

    Shapes: successes[H], trials[H], weights[H] -> Interval of floats. Weights need not sum to 1. A stratum with weight
    and no trial counts with the rate of the others.

    When to use: the sample was drawn per stratum (ranks, sources, languages), in proportion to their sizes or not.

    Source: Korn and Graubard 1998, Survey Methodology 24(2), for the effective sample size.

    Raises:
        RivalsError: shapes that differ, a negative weight, none above 0, no trial at all, or as `proportion_interval`.

    >>> print(stratified_interval([8, 1], [20, 20], [0.1, 0.9]))
    0.085 [0.019, 0.222]
    """
    x, n, w = (np.asarray(values, np.float64) for values in (successes, trials, weights))
    if not (x.shape == n.shape == w.shape and x.ndim == 1):
        raise RivalsError(f"successes {x.shape}, trials {n.shape} and weights {w.shape} must be vectors of one length")
    if not (np.isfinite(w).all() and (w >= 0).all()):
        raise RivalsError("weights must be finite and 0 or more")
    used = (n > 0) & (w > 0)
    if not used.any():
        raise RivalsError("no stratum with weight has a trial; sample some cases of every stratum")
    proportion_interval(x, n, level=level)  # checks successes, trials and the level
    x, n, w = x[used], n[used], w[used] / w[used].sum()
    rate = x / n
    p = float(w @ rate)
    total = float(n.sum())
    variance = float((w**2 * rate * (1 - rate) / n).sum())
    size = min(total, p * (1 - p) / variance) if variance > 0 else total
    return proportion_interval(min(p * size, size), size, level=level)._replace(estimate=p)


def _interval(estimate: NDArray[Any], low: NDArray[Any], high: NDArray[Any]) -> Interval:
    if estimate.ndim:
        return Interval(estimate, low, high)
    return Interval(float(estimate), float(low), float(high))
