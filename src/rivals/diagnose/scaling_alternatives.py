"""What a two-step scaling law is compared with: the metric fitted to size and data at once, and loss to compute alone."""

from __future__ import annotations

import itertools
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares, minimize
from scipy.special import expit

from rivals.errors import RivalsError

Floats = NDArray[np.float64]


class SingleStepLaw(NamedTuple):
    """Metric(N, D) = q / (1 + exp(-(exp(log_A - alpha log N) + exp(log_B - beta log D) - E))) + b, and its squared error.

    The slope and the middle of the sigmoid are part of A, B and E. Near b where N and D are large.

    >>> float(SingleStepLaw(3.0, 3.0, 0.2, 0.2, 2.0, -0.75, 1.0).predict(1e30, 1e30).round(2))
    0.91
    """

    log_A: float
    log_B: float
    alpha: float
    beta: float
    E: float
    q: float
    b: float
    objective: float = float("nan")

    def predict(self, params: ArrayLike, tokens: ArrayLike) -> Floats:
        """Return the metric at N parameters and D tokens, broadcast."""
        log_n, log_d = np.log(np.asarray(params, dtype=np.float64)), np.log(np.asarray(tokens, dtype=np.float64))
        return _single(np.array(self[:7]), log_n, log_d)


class ComputeLaw(NamedTuple):
    """L(C) = exp(log_A - alpha log C) + E, and the objective reached in the fit.

    >>> float(ComputeLaw(4.0, 0.1, 0.5).predict(1e20).round(3))
    1.046
    """

    log_A: float
    alpha: float
    E: float
    objective: float = float("nan")

    def predict(self, compute: ArrayLike) -> Floats:
        """Return the loss at an amount of compute, such as 6 N D."""
        power = self.log_A - self.alpha * np.log(np.asarray(compute, dtype=np.float64))
        return np.asarray(np.exp(np.minimum(power, 300.0)) + self.E)


def fit_single_step(
    params: ArrayLike, tokens: ArrayLike, metric: ArrayLike, *, chance: float, maximum: float = 1.0
) -> SingleStepLaw:
    """Fit a bounded metric to model size and data at once, without the loss: the simpler rival of `ScalingLadder`.

    Least squares of a sigmoid of a power law with q in [-1, 0], b in [0, 1], log_A, log_B, alpha and beta at least 0,
    from several starts (q and b at chance - maximum and maximum). It uses the metric of final checkpoints only, and
    seven numbers for few runs: look at its prediction, not at its numbers.

    Shapes: params[R], tokens[R], metric[R] of R runs -> `SingleStepLaw`.

    Source: Bhagia et al. 2024, the single-step baseline. Paper 62.

    Raises:
        RivalsError: fewer than 7 different (N, D), sizes that are not positive and finite, metrics that are not finite,
            lengths that differ, chance not in [0, 1).

    >>> law = SingleStepLaw(4., 5., .2, .25, 1., -.75, 1.)
    >>> n, d = (a.ravel() for a in np.meshgrid([1e7, 1e8, 1e9], [1e9, 1e10, 1e11]))
    >>> found = fit_single_step(n, d, law.predict(n, d), chance=.25)
    >>> bool(abs(found.predict(1e10, 1e12) - law.predict(1e10, 1e12)) < .01)
    True
    """
    n, d, seen = (np.asarray(values, dtype=np.float64) for values in (params, tokens, metric))
    if not n.shape == d.shape == seen.shape or n.ndim != 1:
        raise RivalsError(
            f"params, tokens and metric have shapes {n.shape}, {d.shape}, {seen.shape}; they must be [runs]"
        )
    if not (np.isfinite([n, d, seen]).all() and (n > 0).all() and (d > 0).all()):
        raise RivalsError("params and tokens must be positive, and all numbers finite")
    if len(np.unique(np.stack([n, d]), axis=1).T) < 7:
        raise RivalsError("a law of 7 numbers needs at least 7 different (params, tokens)")
    if not 0 <= chance < 1:
        raise RivalsError(f"chance is {chance}; it must be at least 0 and below 1")
    log_n, log_d = np.log(n), np.log(d)
    low, high = np.array([0, 0, 0, 0, -np.inf, -1, 0.0]), np.array([np.inf, np.inf, 5, 5, np.inf, 0, 1.0])
    best: Any = None
    for power, middle in itertools.product((0.1, 0.3, 0.6), (0.0, 2.0)):
        # Both terms start at 1 in the middle of the runs, so that the sigmoid is not flat there.
        first = [power * log_n.mean(), power * log_d.mean(), power, power, middle, chance - maximum, maximum]
        found = least_squares(
            lambda x: _single(x, log_n, log_d) - seen,
            np.clip(first, low, high),
            bounds=(low, high),
            x_scale=np.array([5, 5, 0.3, 0.3, 1, 0.5, 0.5]),
            xtol=1e-12,
            ftol=1e-12,
            max_nfev=2000,
        )
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    log_a, log_b, alpha, beta, middle, q, b = (float(value) for value in best.x)
    return SingleStepLaw(log_a, log_b, alpha, beta, middle, q, b, objective=float(best.cost))


def fit_compute_law(compute: ArrayLike, loss: ArrayLike, *, huber_delta: float = 1e-3) -> ComputeLaw:
    """Fit L(C) = A / C^alpha + E to final losses: for ladders in which data grows with size in one proportion.

    Minimises sum Huber_delta(log L_fit - log L) from several starts, all three numbers at least 0.

    Shapes: compute[R], loss[R] of R runs -> `ComputeLaw`.

    Source: Bhagia et al. 2024, the fit from compute. Paper 62.

    Raises:
        RivalsError: fewer than 3 different amounts, numbers that are not positive and finite, lengths that differ.

    Warns:
        RuntimeWarning: alpha or E ends at 0: that part of the law is not identified by these runs.

    >>> c = np.array([1e18, 1e19, 1e20, 1e21])
    >>> found = fit_compute_law(c, ComputeLaw(4., .1, .5).predict(c))
    >>> bool(abs(found.predict(1e22) / ComputeLaw(4., .1, .5).predict(1e22) - 1) < 1e-3)
    True
    """
    c, seen = np.asarray(compute, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    if c.shape != seen.shape or c.ndim != 1:
        raise RivalsError(f"compute and loss have shapes {c.shape} and {seen.shape}; they must be equal, [runs]")
    if not (np.isfinite([c, seen]).all() and (c > 0).all() and (seen > 0).all()):
        raise RivalsError("compute and loss must be positive and finite")
    if len(np.unique(c)) < 3:
        raise RivalsError("a law of 3 numbers needs at least 3 different amounts of compute")
    if not huber_delta > 0:
        raise RivalsError(f"huber_delta is {huber_delta}; it must be above 0")
    # Around the middle of the runs the two numbers of the power are nearly independent: fit its height there.
    log_c = np.log(c)
    centre = log_c.mean()

    def objective(x: Floats) -> tuple[float, Floats]:
        power = np.exp(np.minimum(x[0] - x[1] * (log_c - centre), 300.0))
        found = power + x[2]
        residual = np.log(found) - np.log(seen)
        inside = np.abs(residual) <= huber_delta
        value = np.where(inside, residual**2 / 2, huber_delta * (np.abs(residual) - huber_delta / 2)).sum()
        slope = np.clip(residual, -huber_delta, huber_delta) / found
        return value * 1e3, 1e3 * np.array([slope @ power, -slope @ (power * (log_c - centre)), slope.sum()])

    best: Any = None
    for alpha, share in itertools.product((0.05, 0.2, 0.5), (0.0, 0.5, 0.9)):
        floor = share * seen.min()
        first = np.array([np.log(max(seen.mean() - floor, 1e-9)), alpha, floor])
        found = minimize(
            objective,
            first,
            jac=True,
            method="L-BFGS-B",
            bounds=[(None, None), (0.0, None), (0.0, None)],
            options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 5000, "maxls": 50},
        )
        if best is None or found.fun < best.fun:
            best = found
    assert best is not None
    height, alpha, floor = (float(value) for value in best.x)
    gone = [name for name, value in (("alpha", alpha), ("E", floor)) if value <= 1e-9]
    if gone:
        warnings.warn(f"{' and '.join(gone)} ended at 0: these runs do not identify it", RuntimeWarning, 2)
    return ComputeLaw(height + alpha * float(centre), alpha, floor, objective=float(best.fun) / 1e3)


def _single(x: Floats, log_n: Floats, log_d: Floats) -> Floats:
    size, data = np.exp(np.minimum(x[0] - x[2] * log_n, 300.0)), np.exp(np.minimum(x[1] - x[3] * log_d, 300.0))
    return np.asarray(x[5] * expit(size + data - x[4]) + x[6])
