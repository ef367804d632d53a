"""The single-step law and the compute law: recovery, the ladder's short cut, and bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rivals.diagnose.scaling import ScalingLadder
from rivals.diagnose.scaling_alternatives import ComputeLaw, SingleStepLaw, fit_compute_law, fit_single_step
from rivals.errors import RivalsError
from tests.diagnose.test_scaling import LAW, LINK, grid, table

SINGLE = SingleStepLaw(4.0, 5.0, 0.2, 0.25, 1.0, -0.75, 1.0)


def test_the_ends_of_the_sigmoid() -> None:
    assert SingleStepLaw(-500, -500, 0.2, 0.2, 0.0, -0.6, 0.9).predict(1e9, 1e9) == pytest.approx(0.6)
    assert SingleStepLaw(50, 0, 0.0, 0.2, 0.0, -0.6, 0.9).predict(1e9, 1e9) == pytest.approx(0.3)
    rising = SINGLE.predict(np.array([1e8, 1e9, 1e10]), 1e11)
    assert (np.diff(rising) > 0).all()


def test_a_single_step_without_noise_is_recovered() -> None:
    n, d = (np.array(axis) for axis in zip(*itertools.product([1e7, 1e8, 1e9], [1e9, 1e10, 1e11]), strict=True))
    found = fit_single_step(n, d, SINGLE.predict(n, d), chance=0.25)
    assert found.predict(1e10, 1e12) == pytest.approx(float(SINGLE.predict(1e10, 1e12)), abs=1e-3)
    assert found.objective < 1e-8


def test_a_ladder_offers_it() -> None:
    ladder = ScalingLadder(table())
    found = ladder.single_step(window=1)
    n, d = grid()
    np.testing.assert_allclose(found.predict(n, d), LINK.predict(LAW.predict(n, d)), atol=5e-3)


@pytest.mark.parametrize("law", [ComputeLaw(4.0, 0.1, 0.5), ComputeLaw(12.0, 0.3, 0.1)])
def test_a_compute_law_without_noise_is_recovered(law: ComputeLaw) -> None:
    compute = np.array([1e18, 4e18, 1e19, 1e20, 1e21])
    found = fit_compute_law(compute, law.predict(compute))
    assert found.predict(1e22) == pytest.approx(float(law.predict(1e22)), rel=1e-3)
    outlier = law.predict(compute) * np.array([1, 1, 1.1, 1, 1])
    assert fit_compute_law(compute, outlier).predict(1e22) == pytest.approx(float(law.predict(1e22)), rel=2e-2)


def test_what_is_not_identified_is_said() -> None:
    compute = np.array([1e18, 1e19, 1e20, 1e21])
    with pytest.warns(RuntimeWarning, match="E ended at 0"):
        fit_compute_law(compute, ComputeLaw(3.0, 0.05, 0.0).predict(compute))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_single_step([1e8] * 6, [1e9] * 6, [0.5] * 6, chance=0), "at least 7 different"),
        (lambda: fit_single_step([1e8], [1e9, 1e9], [0.5], chance=0), "must be \\[runs\\]"),
        (lambda: fit_single_step([0.0] * 7, [1e9] * 7, [0.5] * 7, chance=0), "must be positive"),
        (lambda: fit_single_step([1.0] * 7, [1e9] * 7, [np.nan] * 7, chance=0), "finite"),
        (lambda: fit_single_step(*grid(), np.ones(16), chance=1), "chance is 1"),
        (lambda: fit_compute_law([1e18] * 3, [1.0] * 3), "at least 3 different"),
        (lambda: fit_compute_law([1e18], [1.0, 1.0]), "must be equal"),
        (lambda: fit_compute_law([1e18, 1e19, 1e20], [1.0, 0.0, 1.0]), "positive and finite"),
        (lambda: fit_compute_law([1e18, 1e19, 1e20], [3.0, 2.0, 1.0], huber_delta=0), "huber_delta is 0"),
    ],
)
def test_bad_input_is_named(call, message) -> None:
    with pytest.raises(RivalsError, match=message):
        call()
