"""Intervals of proportions: against scipy, by hand, and by how often they cover the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rivals.errors import RivalsError
from rivals.measures.proportions import proportion_interval, stratified_interval


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.99))
def test_both_methods_are_scipys(case: tuple[int, int], level: float) -> None:
    x, n = case
    for ours, theirs in (("clopper-pearson", "exact"), ("wilson", "wilson")):
        estimate, low, high = proportion_interval(x, n, level=level, method=ours)  # type: ignore[arg-type]
        expected = binomtest(x, n).proportion_ci(level, method=theirs)
        assert estimate == x / n
        assert [low, high] == pytest.approx([max(expected.low, 0), min(expected.high, 1)], abs=1e-9)
        assert 0 <= low <= estimate <= high <= 1


def test_arrays_and_no_trials() -> None:
    estimate, low, high = proportion_interval([0, 1, 0], [0, 4, 4])
    assert np.isnan(estimate[0])
    assert (low[0], high[0]) == (0, 1)
    assert estimate[1:].tolist() == [0.25, 0]
    assert high[2] == pytest.approx(1 - 0.025 ** (1 / 4))  # the closed form for no success


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.1, 9))
def test_one_stratum_is_the_plain_interval(case: tuple[int, int], weight: float) -> None:
    x, n = case
    ours, plain = stratified_interval([x], [n], [weight]), proportion_interval(x, n)
    assert list(ours) == pytest.approx(list(plain))


def test_strata_weigh_their_rates() -> None:
    found = stratified_interval([8, 1], [20, 20], [1, 9])
    assert found.estimate == pytest.approx(0.1 * 0.4 + 0.9 * 0.05)
    # a stratum without weight, or without a trial, says nothing
    assert stratified_interval([8, 1, 5], [20, 20, 5], [1, 9, 0]) == pytest.approx(found)
    assert stratified_interval([8, 1, 0], [20, 20, 0], [1, 9, 3]) == pytest.approx(found)


@pytest.mark.parametrize("allocation", [(40, 40, 40), (12, 36, 72)], ids=["even", "proportional"])
def test_the_interval_covers_the_truth_as_often_as_it_says(allocation: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    truth, weights = np.array([0.3, 0.1, 0.02]), np.array([0.1, 0.3, 0.6])
    draws = generator.binomial(allocation, truth, size=(600, 3))
    inside = [stratified_interval(x, allocation, weights) for x in draws]
    covered = np.mean([i.low <= weights @ truth <= i.high for i in inside])
    assert covered >= 0.94


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: proportion_interval(3, 2), "between 0 and the number"),
        (lambda: proportion_interval(-1, 2), "between 0 and the number"),
        (lambda: proportion_interval(float("nan"), 2), "between 0 and the number"),
        (lambda: proportion_interval(1, 2, level=1), "level is 1"),
        (lambda: proportion_interval(1, 2, method="wald"), "method is 'wald'"),  # type: ignore[arg-type]
        (lambda: stratified_interval([1], [2, 3], [1]), "vectors of one length"),
        (lambda: stratified_interval([1], [2], [-1]), "0 or more"),
        (lambda: stratified_interval([0], [0], [1]), "no stratum with weight"),
        (lambda: stratified_interval([3, 0], [2, 1], [1, 1]), "between 0 and the number"),
    ],
)
def test_mistakes(call, said) -> None:
    with pytest.raises(RivalsError, match=said):
        call()
