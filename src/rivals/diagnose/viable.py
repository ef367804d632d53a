"""How far a logistic regression's probability of one example can move while the model stays as good.

Exact for this convex case, and so the yardstick for samplings of the Rashomon set (`rivals.diagnose.multiplicity`),
whose ranges are lower bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from rivals.errors import RivalsError

Floats = NDArray[np.float64]

LEVELS = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
"""The probabilities that candidate models are asked to reach."""


class ViableRange(NamedTuple):
    """Lowest and highest probability of each example, [n], and the weights of the models that reach them, [n, D]."""

    lower: Floats
    upper: Floats
    lower_weights: Floats
    upper_weights: Floats


class _Problem(NamedTuple):
    """L(w) = mean log loss + l2 / 2 |w|^2 of features [N, D] and targets [N]."""

    features: Floats
    targets: Floats
    l2: float

    def loss(self, weights: Floats) -> Floats:
        """Return L at each row of weights [n, D]."""
        margins = weights @ self.features.T
        return (np.logaddexp(0, margins) - self.targets * margins).mean(1) + self.l2 / 2 * (weights**2).sum(1)

    def gradient(self, weights: Floats) -> Floats:
        away = expit(weights @ self.features.T) - self.targets
        return away @ self.features / len(self.targets) + self.l2 * weights

    def hessian(self, weights: Floats) -> Floats:
        p = expit(weights @ self.features.T)
        curved = np.einsum("nk,kd,ke->nde", p * (1 - p), self.features, self.features, optimize=True)
        return curved / len(self.targets) + self.l2 * np.eye(self.features.shape[1])

    def minimise(self, pull: Floats, weights: Floats, steps: int = 50) -> Floats:
        """Return the minima of L(w) - pull . w for each row of pull [n, D], by damped Newton from `weights`."""
        for _ in range(steps):
            slope = self.gradient(weights) - pull
            step = np.linalg.solve(self.hessian(weights), slope[..., None])[..., 0]
            decrement = (slope * step).sum(1)
            if (decrement < 1e-22).all():
                break
            before = self.loss(weights) - (pull * weights).sum(1)
            size = np.ones(len(weights))
            for _ in range(40):
                moved = weights - size[:, None] * step
                short = self.loss(moved) - (pull * moved).sum(1) > before - 1e-4 * size * decrement + 1e-15
                if not short.any():
                    break
                size = np.where(short, size / 2, size)
            weights = weights - size[:, None] * step
        return weights


def viable_range_linear(
    features: ArrayLike,
    targets: ArrayLike,
    *,
    l2: float,
    epsilon: float,
    indices: Sequence[int] | None = None,
    method: Literal["exact", "candidates", "quadratic"] = "exact",
    levels: Sequence[float] = LEVELS,
) -> ViableRange:
    """Viable prediction ranges of a logistic regression: all probabilities that models within epsilon of the best give.

    L(w) = mean log loss + l2 / 2 |w|^2, L0 its minimum, S = {w : L(w) <= L0 + epsilon}. For example i:

    - exact: the extremes of w . x_i over S. w(mu) minimises L(w) -+ mu w . x_i; L(w(mu)) rises with mu, and mu is
      bisected until it is L0 + epsilon.
    - candidates: for every example and level t the best model with p_i >= t (or <= t, below the present one); the range
      of p_i over all of those in S. The paper's procedure, a lower bound of the exact width.
    - quadratic: the logit moved by +- sqrt(2 epsilon x_i^T H^-1 x_i), H the Hessian at the minimum. Fast, good for small
      epsilon.

    Shapes: features[N, D] (append a column of ones for an intercept), targets[N] of 0 and 1, indices[n] of the examples
    wanted -> `ViableRange`. Epsilon is in units of the loss: 1% and 5% of L0 are usual. O(n N D^2) a Newton step.

    Source: Watson-Daniels, Parkes and Ustun 2023 (candidates); exact and quadratic are ours. Paper 40.

    Raises:
        RivalsError: shapes that do not fit, values not finite, targets other than 0 and 1, l2 not above 0, epsilon below
            0, an unknown method, levels not between 0 and 1, an index out of range.

    >>> x = np.array([[-2., 1.], [-1., 1.], [1., 1.], [2., 1.]])
    >>> found = viable_range_linear(x, [0, 1, 0, 1], l2=0.1, epsilon=0.01)
    >>> found.lower.round(2).tolist(), found.upper.round(2).tolist()
    ([0.24, 0.34, 0.51, 0.57], [0.43, 0.49, 0.66, 0.76])
    """
    x, y = np.asarray(features, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if x.ndim != 2 or y.shape != x.shape[:1] or not np.isfinite(x).all():
        raise RivalsError(f"features have shape {x.shape} and targets {y.shape}; they must be finite, [N, D] and [N]")
    if not np.isin(y, (0, 1)).all():
        raise RivalsError("targets must be 0 or 1")
    if not l2 > 0 or not epsilon >= 0:
        raise RivalsError(
            f"l2 is {l2} and epsilon {epsilon}; l2 must be above 0 (a minimum must exist), epsilon at least 0"
        )
    rows = np.arange(len(x)) if indices is None else np.asarray(indices)
    if len(rows) and not ((rows >= 0) & (rows < len(x))).all():
        raise RivalsError(f"indices must lie in 0..{len(x) - 1}")
    problem = _Problem(x, y, l2)
    best = problem.minimise(np.zeros((1, x.shape[1])), np.zeros((1, x.shape[1])))
    asked = x[rows]
    if method == "quadratic":
        return _quadratic(problem, best, asked, epsilon)
    edge = problem.loss(best)[0] + epsilon
    if method == "candidates":
        return _candidates(problem, best, asked, edge, levels)
    if method != "exact":
        raise RivalsError(f"method is '{method}'; it can be 'exact', 'candidates' or 'quadratic'")
    ends = [_follow(problem, best, sign * asked, lambda w: problem.loss(w) <= edge) for sign in (-1, 1)]
    return ViableRange(*(expit((w * asked).sum(1)) for w in ends), *ends)


def _follow(problem: _Problem, best: Floats, pull: Floats, inside: Any) -> Floats:
    """Return the last models on the paths w(mu), one a row of pull, that are `inside`; mu is doubled, then bisected."""
    low, high = np.zeros(len(pull)), np.full(len(pull), 1e-6)
    weights = np.repeat(best, len(pull), axis=0)
    reached, growing = weights, np.abs(pull).sum(1) > 0
    for _ in range(60):
        moved = problem.minimise(high[:, None] * pull, weights)
        fine = inside(moved) & growing
        if not fine.any():
            break
        weights = np.where(fine[:, None], moved, weights)
        reached = np.where(fine[:, None], moved, reached)
        low, high = np.where(fine, high, low), np.where(fine, 4 * high, high)
    for _ in range(50):
        middle = np.where(low > 0, np.sqrt(low * high), high / 2)
        moved = problem.minimise(middle[:, None] * pull, reached)
        fine = inside(moved)
        reached = np.where(fine[:, None], moved, reached)
        low, high = np.where(fine, middle, low), np.where(fine, high, middle)
    return reached


def _candidates(problem: _Problem, best: Floats, asked: Floats, edge: float, levels: Sequence[float]) -> ViableRange:
    if not all(0 < level < 1 for level in levels):
        raise RivalsError(f"levels are {levels}; probabilities to reach lie between 0 and 1")
    now = (asked @ best.T)[:, 0]
    pool = [best]
    for level in levels:
        goal = float(logit(level))
        sign = np.where(goal > now, 1.0, -1.0)[:, None]
        # The best model on the far side of the level is the one just on it.
        found = _follow(
            problem, best, sign * asked, lambda w, sign=sign, goal=goal: (sign[:, 0] * ((w * asked).sum(1) - goal)) <= 0
        )
        pool.append(found[(problem.loss(found) <= edge) & (np.abs((found * asked).sum(1) - goal) < 1e-6)])
    models = np.concatenate(pool)
    margins = asked @ models.T
    ends = margins.argmin(1), margins.argmax(1)
    return ViableRange(expit(margins.min(1)), expit(margins.max(1)), models[ends[0]], models[ends[1]])


def _quadratic(problem: _Problem, best: Floats, asked: Floats, epsilon: float) -> ViableRange:
    solved = np.linalg.solve(problem.hessian(best)[0], asked.T).T
    length = np.sqrt(np.maximum((solved * asked).sum(1), 0))
    step = np.sqrt(2 * epsilon) * solved / np.where(length > 0, length, 1)[:, None]
    lower, upper = best - step, best + step
    return ViableRange(expit((lower * asked).sum(1)), expit((upper * asked).sum(1)), lower, upper)
