"""Tests of significance: against scipy, hand values, uniform p under the null, corrections, power by simulation."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rivals.errors import RivalsError
from rivals.measures import (
    benjamini_hochberg,
    effect_size,
    holm,
    minimal_detectable_difference,
    randomisation_test,
)


def _scipy(first, second, resamples):
    def statistic(x, y, axis):
        return (x - y).mean(axis=axis)

    return stats.permutation_test(
        (first, second),
        statistic,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        alternative="two-sided",
        rng=np.random.default_rng(0),
    ).pvalue


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=11))
def test_exact_p_equals_scipy(differences):
    first = np.array(differences) / 4  # exact in binary, so sums that should be equal are
    assert randomisation_test(first) == pytest.approx(_scipy(first, np.zeros(len(first)), np.inf))


def test_drawn_p_equals_scipy_up_to_the_draws():
    rng = np.random.default_rng(3)
    first, second = rng.random(60), rng.random(60)
    second[:20] = first[:20]
    wanted = _scipy(first, second, 50_000)
    assert randomisation_test(first, second, permutations=50_000) == pytest.approx(wanted, abs=0.01)


def test_hand_values():
    assert randomisation_test([1.0, 1, 1]) == 2 / 8
    assert randomisation_test([3.0, 1, -1]) == 6 / 8  # sums 5, 3, 3, 1 and their mirrors; six are at least 3 away
    assert randomisation_test([0.0, 0, 0]) == 1
    assert randomisation_test([1.0, 2.0], [1.0, 2.0]) == 1
    assert randomisation_test([1.0] * 200, permutations=999) == 1 / 1000


def test_rows_are_the_tests_one_by_one():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 3, 40)), rng.random((2, 3, 40))
    first[0, 0, 10:] = second[0, 0, 10:]  # ten non-zero differences: exact
    p = randomisation_test(first, second, permutations=5000, seed=1)
    assert p.shape == (2, 3)
    assert p[0, 0] == randomisation_test(first[0, 0], second[0, 0])
    for i, j in ((0, 1), (1, 2)):
        assert p[i, j] == pytest.approx(randomisation_test(first[i, j], second[i, j], permutations=5000), abs=0.03)
    assert np.array_equal(p, randomisation_test(first, second, permutations=5000, seed=1))
    assert not np.array_equal(p, randomisation_test(first, second, permutations=5000, seed=2))


def test_p_is_uniform_when_systems_are_equal():
    rng = np.random.default_rng(11)
    values = rng.beta(0.5, 0.5, (2, 600, 30))
    p = randomisation_test(values[0], values[1], permutations=999)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.03)


def test_ten_thousand_queries_within_half_a_second():
    rng = np.random.default_rng(0)
    first, second = rng.random(10_000), rng.random(10_000)
    started = time.thread_time()
    randomisation_test(first, second)
    assert time.thread_time() - started < 0.5


def test_holm_and_benjamini_hochberg_hand_values():
    p = [0.001, 0.02, 0.03, 0.5]
    np.testing.assert_allclose(holm(p), [0.004, 0.06, 0.06, 0.5])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.004, 0.04, 0.04, 0.5])
    np.testing.assert_allclose(holm([[0.5, 0.6]]), [[1.0, 1.0]])
    assert holm([]).tolist() == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_corrections_against_scipy_and_each_other(p):
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p), atol=1e-12)
    adjusted = holm(p)
    assert (adjusted >= benjamini_hochberg(p) - 1e-12).all()
    assert (adjusted <= np.minimum(np.array(p) * len(p), 1) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_effect_size():
    assert effect_size([2.0, 4.0], [1.0, 1.0]) == pytest.approx(2 / np.sqrt(2))
    assert effect_size([1.0, 1.0], [0.0, 0.0]) == np.inf
    assert effect_size([1.0, 2.0], [1.0, 2.0]) == 0
    assert np.isnan(effect_size([1.0], [0.0]))
    assert effect_size(np.ones((2, 3)), np.zeros((2, 3))).shape == (2,)


def test_detectable_difference_is_found_with_the_power_it_promises():
    rng = np.random.default_rng(5)
    sample = rng.standard_normal((1000, 40))
    shift = minimal_detectable_difference(sample.ravel()[:40] * 0 + np.tile([1.0, -1.0], 20)) * np.sqrt(39 / 40)
    p = randomisation_test(sample + shift, permutations=999)
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.04)


def test_detectable_difference_shrinks_with_the_root_of_the_queries():
    differences = np.tile([0.5, -0.5], 200)
    few, many = minimal_detectable_difference(differences[:100]), minimal_detectable_difference(differences)
    assert few / many == pytest.approx(2, rel=0.02)
    assert minimal_detectable_difference(differences, power=0.9) > many
    assert np.isnan(minimal_detectable_difference([1.0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: randomisation_test([1.0, np.nan]), "NaN"),
        (lambda: randomisation_test([1.0, 2.0], [1.0]), "the same ones"),
        (lambda: randomisation_test([]), "no query"),
        (lambda: randomisation_test([1.0], permutations=5), "too few"),
        (lambda: holm([0.1, 1.5]), "between 0 and 1"),
        (lambda: benjamini_hochberg([np.nan]), "between 0 and 1"),
        (lambda: minimal_detectable_difference([1.0, 2.0], power=80), "between 0 and 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(RivalsError, match=message):
        call()
