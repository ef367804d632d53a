"""Bootstrap intervals: against scipy, coverage by simulation, determinism, edge cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rivals.errors import RivalsError
from rivals.measures import Interval, bootstrap_interval
from rivals.measures.intervals import resampled_means


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_equal_to_scipy_up_to_the_draws(method):
    values = np.random.default_rng(1).beta(0.4, 0.8, 60)
    name = {"bca": "BCa", "percentile": "percentile"}[method]
    known = stats.bootstrap((values,), np.mean, n_resamples=40_000, method=name, rng=2).confidence_interval
    found = bootstrap_interval(values, method=method, resamples=40_000)
    assert found.estimate == pytest.approx(values.mean())
    assert found.low == pytest.approx(known.low, abs=0.003)
    assert found.high == pytest.approx(known.high, abs=0.003)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_nominal_coverage(method):
    """An 90 % interval holds the true mean in about 90 % of samples from a skewed distribution."""
    rng = np.random.default_rng(7)
    held = []
    for repetition in range(400):
        sample = rng.beta(0.5, 1.0, 80)
        interval = bootstrap_interval(sample, level=0.9, method=method, resamples=1000, seed=repetition)
        held.append(interval.low <= 1 / 3 <= interval.high)
    assert 0.855 <= np.mean(held) <= 0.94  # three standard errors of 400 repetitions, and the method's own error


def test_rows_share_the_draws_and_shapes_are_kept():
    rng = np.random.default_rng(0)
    values = rng.random((2, 3, 50))
    found = bootstrap_interval(values, resamples=500)
    assert found.low.shape == found.high.shape == found.estimate.shape == (2, 3)
    alone = bootstrap_interval(values[1, 2], resamples=500)
    assert (alone.low, alone.high) == pytest.approx((found.low[1, 2], found.high[1, 2]), abs=1e-12)
    assert ((found.low < found.estimate) & (found.estimate < found.high)).all()


def test_paired_difference_is_narrower_than_the_two_intervals():
    rng = np.random.default_rng(0)
    first = rng.random(200)
    second = first + 0.05 + 0.02 * rng.standard_normal(200)
    interval = bootstrap_interval(second - first, resamples=2000)
    assert 0.04 < interval.low < interval.high < 0.06
    apart = bootstrap_interval(np.stack([first, second]), resamples=2000)
    assert apart.low[1] < apart.high[0]


def test_same_seed_same_interval():
    values = np.random.default_rng(0).random(40)
    assert bootstrap_interval(values, resamples=300, seed=4) == bootstrap_interval(values, resamples=300, seed=4)
    assert bootstrap_interval(values, resamples=300, seed=4) != bootstrap_interval(values, resamples=300, seed=5)
    generator, again = np.random.default_rng(4), bootstrap_interval(values, resamples=300, seed=4)
    assert bootstrap_interval(values, resamples=300, seed=generator) == again


@pytest.mark.parametrize("queries", [3, 500])
def test_resampled_means_have_the_right_spread(queries):
    values = np.random.default_rng(0).random((1, queries))
    means = resampled_means(values, 20_000)[0]
    assert means.mean() == pytest.approx(values.mean(), abs=5 * values.std() / np.sqrt(queries * 20_000))
    assert means.std() == pytest.approx(values.std() / np.sqrt(queries), rel=0.03)


def test_draws_made_in_small_blocks_are_as_good(monkeypatch):
    values = np.random.default_rng(0).random((2, 30))
    monkeypatch.setattr("rivals.measures.intervals._BLOCK", 64)  # two draws a block, the last one alone
    means = resampled_means(values, 4001)
    np.testing.assert_allclose(means.mean(axis=1), values.mean(axis=1), atol=0.005)
    np.testing.assert_allclose(means.std(axis=1), values.std(axis=1) / np.sqrt(30), rtol=0.05)


def test_degenerate_values():
    assert bootstrap_interval([0.5, 0.5, 0.5], resamples=100) == Interval(0.5, 0.5, 0.5)
    single = bootstrap_interval([0.5])
    assert single.estimate == 0.5
    assert np.isnan(single.low)
    assert np.isnan(single.high)
    skewed = bootstrap_interval([0.0] * 30 + [1.0], resamples=1000)
    assert 0 <= skewed.low < skewed.high <= 1


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "no query"),
        ([0.1, np.nan], {}, "NaN"),
        ([0.1, 0.2], {"level": 95}, "between 0 and 1"),
        ([0.1, 0.2], {"resamples": 10}, "too few"),
        ([0.1, 0.2], {"method": "t"}, "'bca' or 'percentile'"),
    ],
)
def test_bad_input(values, options, message):
    with pytest.raises(RivalsError, match=message):
        bootstrap_interval(values, **options)
