"""Scaling laws: functions, recovery of known laws, gradients, the ladder, and bad input."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from rivals.diagnose import (
    AccuracyLink,
    LossLaw,
    ScalingLadder,
    fit_accuracy_link,
    fit_loss_law,
    huber_objective,
    moving_average,
)
from rivals.errors import RivalsError

LAW = LossLaw(2.4, 4.1, 0.2, 0.25, 0.5)
LINK = AccuracyLink(-0.73, 0.77, 12.7, 0.99)


def grid():
    params, ratio = np.meshgrid([1.9e8, 3.7e8, 7.6e8, 1.28e9], [1, 2, 5, 10], indexing="ij")
    return params.ravel(), (20 * params * ratio).ravel()


def table(law=LAW, link=LINK, checkpoints=12):
    """Checkpoints of 16 runs on the way down to their final loss."""
    params, tokens = grid()
    columns = {"run": [], "params": [], "tokens": [], "loss": [], "metric": []}
    for run, (n, d) in enumerate(zip(params, tokens, strict=True)):
        for step in range(1, checkpoints + 1):
            loss = law.predict(n, d) + 0.3 * (1 - step / checkpoints) ** 2
            for name, value in zip(columns, (run, n, d * step / checkpoints, loss, link.predict(loss)), strict=True):
                columns[name].append(float(value))
    return columns


def test_functions():
    assert LossLaw(-500, -500, 0.2, 0.2, 0.7).predict(1e9, 1e10) == pytest.approx(0.7)
    assert (np.diff(LAW.predict(np.array([1e8, 1e9, 1e10]), 1e11)) < 0).all()
    assert (np.diff(LAW.predict(1e9, np.array([1e9, 1e10, 1e11]))) < 0).all()
    assert LINK.predict(0.77) == pytest.approx(0.99 - 0.73 / 2)
    assert LINK.predict([0.0, 50.0]) == pytest.approx([0.99 - 0.73 / (1 + np.exp(12.7 * 0.77)), 0.26])
    log = AccuracyLink(0.3, 0.8, 9.0, 1.0, form="log_sigmoid")
    assert log.predict(0.8) == pytest.approx(1 - 0.3 * np.log(2))


def test_gradients_are_right():
    n, d = grid()
    wanted = LAW.predict(n, d) * np.exp(np.random.default_rng(0).normal(0, 0.01, 16))
    for delta in (1e-3, 1.0):
        value, gradient = huber_objective(LAW, n, d, wanted, huber_delta=delta)
        for place in range(5):
            step = np.zeros(5)
            step[place] = 1e-7
            moved = [
                huber_objective(LossLaw(*(np.array(LAW[:5]) + sign * step)), n, d, wanted, huber_delta=delta)[0]
                for sign in (1, -1)
            ]
            assert (moved[0] - moved[1]) / 2e-7 == pytest.approx(gradient[place], rel=1e-4, abs=1e-7)
        assert value > 0
    jacobian = LAW.jacobian(n, d)
    assert jacobian.shape == (16, 5)
    assert (jacobian[:, 4] == 1).all()


@pytest.mark.parametrize("law", [LAW, LossLaw(6.0, 7.0, 0.35, 0.4, 0.3), LossLaw(1.0, 3.0, 0.1, 0.2, 0.1)])
def test_a_law_without_noise_is_recovered(law):
    n, d = grid()
    found = fit_loss_law(n, d, law.predict(n, d))
    far = 10 * n.max(), 10 * d.max()
    assert found.predict(*far) == pytest.approx(float(law.predict(*far)), rel=1e-3)


def test_the_law_withstands_an_outlier():
    n, d = grid()
    seen = LAW.predict(n, d)
    seen[5] *= 1.2
    found = fit_loss_law(n, d, seen)
    assert found.predict(1e10, 1e12) == pytest.approx(float(LAW.predict(1e10, 1e12)), rel=1e-2)


def test_what_is_not_identified_is_said():
    n, d = grid()
    with pytest.warns(RuntimeWarning, match="ended at 0"):
        found = fit_loss_law(n, d, LossLaw(2.0, 1.0, 0.15, 0.05, 0.0).predict(n, d))
    assert found.E == 0


@pytest.mark.parametrize("link", [LINK, AccuracyLink(-0.5, 1.0, 6.0, 1.0)])
def test_a_link_is_recovered(link):
    loss = np.linspace(0.6, 1.4, 40)
    found = fit_accuracy_link(loss, link.predict(loss), chance=0.25, ideal_point=False)
    np.testing.assert_allclose(found.predict(loss), link.predict(loss), atol=1e-4)
    log = AccuracyLink(0.2, 0.8, 7.0, 1.0, form="log_sigmoid")
    found = fit_accuracy_link(loss, log.predict(loss), chance=0.0, form="log_sigmoid")
    np.testing.assert_allclose(found.predict(loss), log.predict(loss), atol=1e-4)


def test_moving_average():
    assert moving_average([1, 2, 3, 4, 5, 6], 5).tolist() == [1, 1.5, 2, 2.5, 3, 4]
    assert moving_average([3.0, 1.0], 1).tolist() == [3, 1]
    assert moving_average([], 3).tolist() == []


def test_ladder():
    ladder = ScalingLadder(table()).fit(window=1, skip=0.1)
    with pytest.warns(RuntimeWarning, match="below every loss seen"):
        found = ladder.predict(7e9, 4e12)
    assert found.loss == pytest.approx(float(LAW.predict(7e9, 4e12)), rel=2e-3)
    assert found.metric == pytest.approx(float(LINK.predict(LAW.predict(7e9, 4e12))), abs=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ladder.predict(2e8, 4e9)
    error = ladder.leave_out(1.28e9, window=1)
    assert np.abs(error.loss).max() < 0.01
    assert np.abs(error.metric).max() < 0.02
    spread = ladder.variance(last=3)
    losses = np.array(table()["loss"])[-3:]
    assert spread.loss_deviation == pytest.approx(losses.std())
    assert spread.loss_ratio == pytest.approx(losses.std() / losses.mean())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_loss_law([1e8] * 4, [1e9] * 4, [1.0] * 4), "at least 5 different"),
        (lambda: fit_loss_law([1e8] * 9, [1e9] * 9, [1.0] * 9), "at least 5 different"),
        (lambda: fit_loss_law([1e8], [1e9, 1e9], [1.0]), "must be equal"),
        (lambda: fit_loss_law([0.0], [1e9], [1.0]), "params must be positive"),
        (lambda: fit_loss_law([1.0], [1.0], [np.nan]), "loss must be positive"),
        (lambda: fit_loss_law(*grid(), np.ones(16), huber_delta=0), "huber_delta is 0"),
        (lambda: fit_accuracy_link([1.0], [1.0], chance=0), "at least 4"),
        (lambda: fit_accuracy_link([1.0] * 4, [1.0] * 4, chance=1), "chance is 1"),
        (lambda: fit_accuracy_link([-1.0] * 4, [1.0] * 4, chance=0), "at least 0"),
        (lambda: fit_accuracy_link([1.0] * 4, [1.0] * 4, chance=0, form="tanh"), "form is 'tanh'"),
        (lambda: moving_average([1.0], 0), "window is 0"),
        (lambda: ScalingLadder({"run": [1]}), "lacks the columns"),
        (lambda: ScalingLadder(table() | {"metric": [1.0]}), "equally long"),
        (lambda: ScalingLadder(table()).predict(1e9, 1e10), "call fit"),
        (lambda: ScalingLadder(table()).fit(skip=1), "skip is 1"),
        (lambda: ScalingLadder(table()).leave_out(5.0), "no run has 5"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(RivalsError, match=message):
        call()
