"""Viable ranges of logistic regression: the exact ends against searches, the other methods against the exact one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from rivals.diagnose.viable import viable_range_linear
from rivals.errors import RivalsError


def problem(rows=60, width=3, seed=0):
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.standard_normal((rows, width)), np.ones((rows, 1))], axis=1)
    y = (rng.random(rows) < expit(x @ rng.standard_normal(width + 1))).astype(float)
    return x, y


def loss(w, x, y, l2):
    margins = x @ w
    return (np.logaddexp(0, margins) - y * margins).mean() + l2 / 2 * (w**2).sum()


def best_loss(x, y, l2):
    return minimize(loss, np.zeros(x.shape[1]), args=(x, y, l2), tol=1e-12).fun


def test_the_ends_are_on_the_edge_and_no_other_model_goes_further():
    (x, y), l2 = problem(), 1e-2
    base = best_loss(x, y, l2)
    epsilon = 0.05 * base
    chosen = [0, 7, 33]
    found = viable_range_linear(x, y, l2=l2, epsilon=epsilon, indices=chosen)
    for weights in (*found.lower_weights, *found.upper_weights):
        assert loss(weights, x, y, l2) == pytest.approx(base + epsilon, rel=1e-6)
    for place, row in enumerate(chosen):
        for sign, end in ((1, found.lower[place]), (-1, found.upper[place])):
            searched = minimize(
                lambda w, sign=sign, row=row: sign * (w @ x[row]),
                np.zeros(x.shape[1]),
                method="SLSQP",
                constraints={"type": "ineq", "fun": lambda w: base + epsilon - loss(w, x, y, l2)},
                options={"ftol": 1e-12, "maxiter": 500},
            )
            assert expit(searched.x @ x[row]) == pytest.approx(end, abs=1e-4)


def test_quadratic_and_candidates_against_the_exact_range():
    (x, y), l2 = problem(rows=40, width=1, seed=1), 1e-2
    base = best_loss(x, y, l2)
    exact, quadratic = (
        viable_range_linear(x, y, l2=l2, epsilon=1e-4 * base, method=method) for method in ("exact", "quadratic")
    )
    np.testing.assert_allclose(quadratic.upper - quadratic.lower, exact.upper - exact.lower, rtol=0.02)
    levels = np.linspace(0.02, 0.98, 25)
    wide = viable_range_linear(x, y, l2=l2, epsilon=0.1 * base)
    some = viable_range_linear(x, y, l2=l2, epsilon=0.1 * base, method="candidates", levels=levels)
    assert (some.lower >= wide.lower - 1e-9).all()
    assert (some.upper <= wide.upper + 1e-9).all()
    assert (some.upper - some.lower).mean() > 0.6 * (wide.upper - wide.lower).mean()
    for weights in some.upper_weights:
        assert loss(weights, x, y, l2) <= 1.1 * base + 1e-9


def test_more_room_is_wider_and_none_is_a_point():
    x, y = problem(seed=2)
    widths = [
        np.ptp(np.stack(viable_range_linear(x, y, l2=1e-2, epsilon=epsilon, indices=range(5))[:2]), axis=0)
        for epsilon in (0.0, 0.001, 0.01)
    ]
    assert np.abs(widths[0]).max() < 1e-4
    assert (widths[1] < widths[2]).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"l2": 0}, "l2 is 0"),
        ({"epsilon": -1}, "epsilon -1"),
        ({"targets": [0, 2]}, "targets must be 0 or 1"),
        ({"targets": [0]}, "features have shape"),
        ({"method": "sampled"}, "method is 'sampled'"),
        ({"indices": [2]}, "indices must lie"),
        ({"method": "candidates", "levels": [1.0]}, "levels are"),
    ],
)
def test_bad_input_is_named(changed, message):
    sound = {"features": [[1.0], [2.0]], "targets": [0, 1], "l2": 0.1, "epsilon": 0.1}
    with pytest.raises(RivalsError, match=message):
        viable_range_linear(**(sound | changed))
