"""Scaling laws: forecast a large model's loss from a ladder of small ones, and its accuracy from its loss.

Two steps, because the loss is smooth in size and data while accuracy is a sigmoid in the loss: a power law L(N, D)
fitted to the final loss of every small run (`fit_loss_law`), then accuracy as a function of the loss fitted to all
checkpoints (`fit_accuracy_link`). `ScalingLadder` does both on a table of runs, and can be asked to forecast its own
largest run first (`leave_out`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import curve_fit, minimize
from scipy.special import expit, log_expit

from rivals.errors import RivalsError

if TYPE_CHECKING:
    from rivals.diagnose.scaling_alternatives import SingleStepLaw

Floats = NDArray[np.float64]

_STARTS = [
    (a, b, alpha, alpha + 0.05, E)
    for a in (2.0, 6.0, 10.0)
    for b in (3.0, 8.0)
    for alpha, E in ((0.2, 0.3), (0.4, 0.8))
]


class LossLaw(NamedTuple):
    """L(N, D) = exp(log_A - alpha log N) + exp(log_B - beta log D) + E, and the objective reached in the fit.

    >>> float(LossLaw(2.4, 4.1, 0.2, 0.25, 0.5).predict(7e9, 4e12).round(6))
    0.661049
    """

    log_A: float
    log_B: float
    alpha: float
    beta: float
    E: float
    objective: float = float("nan")

    def predict(self, params: ArrayLike, tokens: ArrayLike) -> Floats:
        """Return the loss at N parameters and D tokens, broadcast."""
        size, data = _parts(self, params, tokens)
        return size + data + self.E

    def jacobian(self, params: ArrayLike, tokens: ArrayLike) -> Floats:
        """Return the derivatives of the loss by log_A, log_B, alpha, beta and E, [..., 5]."""
        size, data = _parts(self, params, tokens)
        log_n, log_d = np.log(np.asarray(params, dtype=np.float64)), np.log(np.asarray(tokens, dtype=np.float64))
        return np.stack(np.broadcast_arrays(size, data, -size * log_n, -data * log_d, 1.0), axis=-1)


class AccuracyLink(NamedTuple):
    """Accuracy as a function of loss: q / (1 + exp(-k (L - L0))) + b, or q log(1 - sigmoid(k (L - L0))) + 1.

    Sigmoid: from b at a small loss to b + q, the chance level, at a large one; the middle lies at L0. The second form is
    for a metric that is itself a log likelihood; there q >= 0 and b is 1.

    >>> float(AccuracyLink(-0.73, 0.77, 12.7, 0.99).predict(0.77))
    0.625
    """

    q: float
    L0: float
    k: float
    b: float
    form: Literal["sigmoid", "log_sigmoid"] = "sigmoid"

    def predict(self, loss: ArrayLike) -> Floats:
        """Return the accuracy at a loss."""
        at = np.asarray(loss, dtype=np.float64)
        if self.form == "sigmoid":
            return _sigmoid(at, *self[:4])
        return _log_sigmoid(at, self.q, self.L0, self.k)


class Forecast(NamedTuple):
    """What a ladder says about a model: loss and metric."""

    loss: Floats
    metric: Floats


class Variance(NamedTuple):
    """Spread over the last evaluations of a run: standard deviation, and its ratio to the mean."""

    loss_deviation: float
    metric_deviation: float
    loss_ratio: float
    metric_ratio: float


def fit_loss_law(
    params: ArrayLike,
    tokens: ArrayLike,
    loss: ArrayLike,
    *,
    huber_delta: float = 1e-3,
    start: Sequence[float] | None = None,
    restarts: bool = True,
) -> LossLaw:
    """Fit L(N, D) = A / N^alpha + B / D^beta + E to final losses of small runs.

    Minimises sum Huber_delta(log L_fit - log L), all five numbers at least 0, by L-BFGS-B with the analytic gradient
    from `start` (log_A, log_B, alpha, beta, E) = (3, 6, 0.1, 0.2, 1), and with `restarts` from a small grid besides; the
    best is then followed to the end. Compare predictions, not coefficients: they are weakly identified.

    Shapes: params[R], tokens[R], loss[R] of R runs -> `LossLaw`.

    Source: Bhagia et al. 2024, step 1; the law: Hoffmann et al. 2022. Paper 62.

    Raises:
        RivalsError: fewer than 5 different (N, D), numbers that are not positive and finite, lengths that differ.

    Warns:
        RuntimeWarning: alpha, beta or E ends at 0: that part of the law is not identified by these runs.

    >>> law = LossLaw(3., 5., .2, .25, .5)
    >>> n, d = np.array([1e8, 1e8, 4e8, 4e8, 1e9, 1e9]), np.array([2e9, 2e10, 8e9, 8e10, 2e10, 2e11])
    >>> bool(abs(fit_loss_law(n, d, law.predict(n, d)).predict(1e10, 1e12) / law.predict(1e10, 1e12) - 1) < 1e-3)
    True
    """
    n, d, wanted = (
        _positive(values, name) for values, name in ((params, "params"), (tokens, "tokens"), (loss, "loss"))
    )
    if not n.shape == d.shape == wanted.shape or n.ndim != 1:
        raise RivalsError(
            f"params, tokens and loss have shapes {n.shape}, {d.shape}, {wanted.shape}; must be equal, [runs]"
        )
    if len(np.unique(np.stack([n, d]), axis=1).T) < 5:
        raise RivalsError("a law of 5 numbers needs at least 5 different (params, tokens)")
    if not huber_delta > 0:
        raise RivalsError(f"huber_delta is {huber_delta}; it must be above 0")

    def objective(x: Floats) -> tuple[float, Floats]:
        value, gradient = huber_objective(LossLaw(*x), n, d, wanted, huber_delta=huber_delta)
        return value * 1e3, gradient * 1e3

    def search(x: Any, **options: Any) -> Any:
        bounds = [(0.0, None)] * 5
        return minimize(objective, x, jac=True, method="L-BFGS-B", bounds=bounds, options=options | {"maxls": 50})

    first = (3.0, 6.0, 0.1, 0.2, 1.0) if start is None else tuple(start)
    rough = [search(x, maxiter=400, ftol=1e-10) for x in (first, *(_STARTS if restarts else ()))]
    best = search(min(rough, key=lambda found: float(found.fun)).x, maxiter=20_000, maxfun=20_000, ftol=0.0, gtol=1e-10)
    log_a, log_b, alpha, beta, floor = (float(value) for value in best.x)
    law = LossLaw(log_a, log_b, alpha, beta, floor, objective=float(best.fun) / 1e3)
    gone = [name for name in ("alpha", "beta", "E") if getattr(law, name) <= 1e-9]
    if gone:
        warnings.warn(f"{' and '.join(gone)} ended at 0: these runs do not identify it", RuntimeWarning, 2)
    return law


def huber_objective(
    law: LossLaw, params: ArrayLike, tokens: ArrayLike, loss: ArrayLike, *, huber_delta: float = 1e-3
) -> tuple[float, Floats]:
    """Return sum Huber_delta(log L_fit - log L) and its gradient by the five numbers of the law.

    Source: Paper 62, the objective of step 1.

    >>> huber_objective(LossLaw(3., 5., .2, .25, .5), [1e8], [2e9], [LossLaw(3., 5., .2, .25, .5).predict(1e8, 2e9)])[0]
    0.0
    """
    found = law.predict(params, tokens)
    residual = np.log(found) - np.log(np.asarray(loss, dtype=np.float64))
    inside = np.abs(residual) <= huber_delta
    value = np.where(inside, residual**2 / 2, huber_delta * (np.abs(residual) - huber_delta / 2)).sum()
    slope = np.clip(residual, -huber_delta, huber_delta) / found
    return float(value), slope @ law.jacobian(params, tokens)


def fit_accuracy_link(
    loss: ArrayLike,
    metric: ArrayLike,
    *,
    chance: float,
    maximum: float = 1.0,
    form: Literal["sigmoid", "log_sigmoid"] = "sigmoid",
    ideal_point: bool = True,
) -> AccuracyLink:
    """Fit a metric as a function of the loss, over all checkpoints of all small runs.

    Least squares of the sigmoid with q in [-1, 0], L0 >= 0, k >= 0, b in [0, 1], started at (chance - 1, 0.9, 3,
    maximum). `ideal_point` adds one point: at loss 0 the metric is `maximum`.

    Shapes: loss[P], metric[P] -> `AccuracyLink`.

    Source: Bhagia et al. 2024, step 2. Paper 62.

    Raises:
        RivalsError: fewer than 4 points, numbers that are not finite, a loss below 0, chance not in [0, 1), an unknown
            form.

    >>> link = AccuracyLink(-0.75, 0.8, 12., 1.)
    >>> loss = np.linspace(.6, 1.2, 20)
    >>> round(float(fit_accuracy_link(loss, link.predict(loss), chance=0.25).predict(0.7)), 3)
    0.826
    """
    x, y = np.asarray(loss, dtype=np.float64), np.asarray(metric, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 4:
        raise RivalsError(f"loss has shape {x.shape} and metric {y.shape}; they must be equal, [points], at least 4")
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or (x < 0).any():
        raise RivalsError("loss and metric must be finite, and a loss at least 0")
    if not 0 <= chance < 1:
        raise RivalsError(f"chance is {chance}; it must be at least 0 and below 1")
    if ideal_point:
        x, y = np.append(x, 0.0), np.append(y, maximum)
    if form == "sigmoid":
        first, bounds = [chance - 1.0, 0.9, 3.0, maximum], ([-1.0, 0.0, 0.0, 0.0], [0.0, np.inf, np.inf, 1.0])
        first = np.clip(first, *bounds).tolist()
        found, _ = curve_fit(_sigmoid, x, y, p0=first, bounds=bounds, maxfev=500_000)
        q, middle, k, b = (float(value) for value in found)
        return AccuracyLink(q, middle, k, b)
    if form == "log_sigmoid":
        bounds3 = ([0.0, 0.0, 0.0], [np.inf, np.inf, np.inf])
        found, _ = curve_fit(_log_sigmoid, x, y, p0=[1.0, 0.9, 3.0], bounds=bounds3, maxfev=500_000)
        q, middle, k = (float(value) for value in found)
        return AccuracyLink(q, middle, k, 1.0, form="log_sigmoid")
    raise RivalsError(f"form is '{form}'; it can be 'sigmoid' or 'log_sigmoid'")


def moving_average(values: ArrayLike, window: int) -> Floats:
    """Mean of the last `window` values at each place; of what there is at the first ones.

    Source: Paper 62, the smoothing of step 2.

    Raises:
        RivalsError: window below 1, values not one-dimensional.

    >>> moving_average([1, 2, 3, 4, 5, 6], 5).tolist()
    [1.0, 1.5, 2.0, 2.5, 3.0, 4.0]
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or window < 1:
        raise RivalsError(f"values have shape {given.shape} and window is {window}; one dimension, window at least 1")
    total = np.concatenate([[0.0], given.cumsum()])
    stop = np.arange(1, len(given) + 1)
    begin = np.maximum(stop - window, 0)
    return (total[stop] - total[begin]) / (stop - begin)


class ScalingLadder:
    """A table of small runs, one row a checkpoint, that forecasts larger ones.

    Args:
        runs: columns run (a name), params, tokens, loss, metric, equally long, checkpoints of a run in order.

    Source: Bhagia et al. 2024. Paper 62.

    Raises:
        RivalsError: a column is missing, lengths differ, sizes or losses that are not positive and finite.

    >>> law, link = LossLaw(3., 5., .2, .25, .5), AccuracyLink(-.75, 1.2, 6., 1.)
    >>> n, d = (a.ravel() for a in np.meshgrid(np.array([1e8, 4e8, 1e9]), np.array([2e9, 1e10, 5e10]), indexing="ij"))
    >>> loss = law.predict(n, d)
    >>> ladder = ScalingLadder(dict(run=np.arange(9), params=n, tokens=d, loss=loss, metric=link.predict(loss)))
    >>> ladder.fit(window=1, skip=0, chance=.25).predict(1e10, 1e12).loss.round(3).item()
    0.849
    """

    def __init__(self, runs: dict[str, ArrayLike]) -> None:
        missing = {"run", "params", "tokens", "loss", "metric"} - set(runs)
        if missing:
            raise RivalsError(f"runs lacks the columns {', '.join(sorted(missing))}")
        self.run: NDArray[Any] = np.asarray(runs["run"])
        self.params, self.tokens, self.loss = (_positive(runs[name], name) for name in ("params", "tokens", "loss"))
        self.metric: Floats = np.asarray(runs["metric"], dtype=np.float64)
        if len({len(column) for column in (self.run, self.params, self.tokens, self.loss, self.metric)}) > 1:
            raise RivalsError("the columns of runs must be equally long")
        self.law: LossLaw | None = None
        self.link: AccuracyLink | None = None

    def fit(
        self,
        *,
        window: int = 5,
        skip: float = 0.1,
        chance: float = 0.25,
        maximum: float = 1.0,
        form: Literal["sigmoid", "log_sigmoid"] = "sigmoid",
    ) -> Self:
        """Fit both steps: the law to the mean of each run's last `window` losses, the link to its smoothed checkpoints.

        Of each run the first ceil(skip) share of checkpoints is left out of the link, then loss and metric are averaged
        over `window`.
        """
        if not 0 <= skip < 1:
            raise RivalsError(f"skip is {skip}; it must be at least 0 and below 1")
        last, losses, metrics = [], [], []
        for name in dict.fromkeys(self.run.tolist()):
            rows = np.flatnonzero(self.run == name)
            last.append((self.params[rows[-1]], self.tokens[rows[-1]], self.loss[rows[-window:]].mean()))
            kept = rows[int(np.ceil(skip * len(rows))) :]
            losses.append(moving_average(self.loss[kept], window))
            metrics.append(moving_average(self.metric[kept], window))
        self.law = fit_loss_law(*(np.array(column) for column in zip(*last, strict=True)))
        self.link = fit_accuracy_link(
            np.concatenate(losses), np.concatenate(metrics), chance=chance, maximum=maximum, form=form
        )
        return self

    def predict(self, params: ArrayLike, tokens: ArrayLike) -> Forecast:
        """Return the forecast for models of N parameters trained on D tokens.

        Raises:
            RivalsError: `fit` has not been called.

        Warns:
            RuntimeWarning: the loss lies below every loss seen, so that the link is extrapolated.
        """
        if self.law is None or self.link is None:
            raise RivalsError("the ladder is not fitted; call fit() first")
        loss = self.law.predict(params, tokens)
        if (loss < self.loss.min()).any():
            warnings.warn("the forecast loss lies below every loss seen; the metric is extrapolated", RuntimeWarning, 2)
        return Forecast(loss, self.link.predict(loss))

    def single_step(self, *, window: int = 5, chance: float = 0.25, maximum: float = 1.0) -> SingleStepLaw:
        """Fit the metric to (N, D) at once, to the mean of each run's last `window` metrics; what two steps should beat."""
        from rivals.diagnose.scaling_alternatives import fit_single_step

        ends = [np.flatnonzero(self.run == name) for name in dict.fromkeys(self.run.tolist())]
        last = [rows[-1] for rows in ends]
        metric = [self.metric[rows[-window:]].mean() for rows in ends]
        return fit_single_step(self.params[last], self.tokens[last], metric, chance=chance, maximum=maximum)

    def variance(self, *, last: int = 10) -> Variance:
        """Return the spread over the last evaluations of the largest run; a gate before trusting a forecast."""
        largest = self.run[np.lexsort((self.tokens, self.params))[-1]]
        rows = np.flatnonzero(self.run == largest)[-last:]
        loss, metric = self.loss[rows], self.metric[rows]
        return Variance(
            float(loss.std()), float(metric.std()), float(loss.std() / loss.mean()), float(metric.std() / metric.mean())
        )

    def leave_out(self, params: float, **options: Any) -> Forecast:
        """Fit on the runs below a size and return the forecast error at it: forecast - seen, for loss and metric.

        `options` are those of `fit`. What was seen is the last checkpoint of each run of that size.

        Raises:
            RivalsError: no run of that size, or too few below it.
        """
        rows = np.flatnonzero(self.params == params)
        if not len(rows):
            raise RivalsError(f"no run has {params:g} parameters; there are {sorted(set(self.params.tolist()))}")
        below = self.params < params
        smaller = ScalingLadder(
            {name: getattr(self, name)[below] for name in ("run", "params", "tokens", "loss", "metric")}
        ).fit(**options)
        ends = [
            np.flatnonzero((self.run == name) & (self.params == params))[-1]
            for name in dict.fromkeys(self.run[rows].tolist())
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of course the larger model is beyond what was seen
            found = smaller.predict(self.params[ends], self.tokens[ends])
        return Forecast(found.loss - self.loss[ends], found.metric - self.metric[ends])


def _parts(law: LossLaw, params: ArrayLike, tokens: ArrayLike) -> tuple[Floats, Floats]:
    log_n, log_d = np.log(np.asarray(params, dtype=np.float64)), np.log(np.asarray(tokens, dtype=np.float64))
    powers = law.log_A - law.alpha * log_n, law.log_B - law.beta * log_d
    size, data = (np.exp(np.minimum(power, 300.0)) for power in powers)  # a search may step far out
    return size, data


def _sigmoid(loss: Floats, q: float, middle: float, k: float, b: float) -> Floats:
    return q * expit(k * (loss - middle)) + b


def _log_sigmoid(loss: Floats, q: float, middle: float, k: float) -> Floats:
    return q * log_expit(-k * (loss - middle)) + 1


def _positive(values: ArrayLike, name: str) -> Floats:
    given = np.asarray(values, dtype=np.float64)
    if not (np.isfinite(given).all() and (given > 0).all()):
        raise RivalsError(f"{name} must be positive and finite")
    return given
