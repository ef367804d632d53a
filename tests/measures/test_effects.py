"""Effect sizes and the number of queries needed: by hand, and turned round."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rivals.errors import RivalsError
from rivals.measures import benjamini_hochberg, effect_size, holm, minimal_detectable_difference
from rivals.measures.significance import corrected, queries_needed, standardised_difference, superiority


def test_the_standardised_difference_by_hand():
    first, second = np.array([0.2, 0.4, 0.9, 0.5]), np.array([0.1, 0.5, 0.4, 0.2])
    spread = math.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)
    assert standardised_difference(first, second) == pytest.approx((first - second).mean() / spread)
    rows = standardised_difference(np.stack([first, second]), np.stack([second, first]))
    assert rows[0] == -rows[1] == pytest.approx(standardised_difference(first, second))
    assert standardised_difference(first, first) == 0
    assert standardised_difference([1.0, 1.0], [0.0, 0.0]) == math.inf
    assert math.isnan(standardised_difference([1.0], [0.0]))


def test_agreement_from_query_to_query_raises_d_z_and_leaves_d_av():
    rng = np.random.default_rng(0)
    base, noise = rng.standard_normal(5000), rng.standard_normal(5000)
    close, apart = base + 0.2 + 0.1 * noise, noise + 0.2
    assert effect_size(close, base) > 5 * effect_size(apart, base)
    assert standardised_difference(close, base) == pytest.approx(0.2, abs=0.02)
    assert standardised_difference(apart, base) == pytest.approx(0.2, abs=0.06)


def test_superiority_counts_ties_half_and_is_the_mirror_of_the_other_way_round():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 3, 50).astype(float), rng.integers(0, 3, 50).astype(float)
    wins, ties = (first > second).sum(), (first == second).sum()
    assert superiority(first, second) == pytest.approx((wins + ties / 2) / 50)
    assert superiority(first, second) + superiority(second, first) == pytest.approx(1)
    assert superiority(np.stack([first - second, second - first])).sum() == pytest.approx(1)


@pytest.mark.parametrize("difference", [0.5, 0.05, 0.004])
def test_queries_needed_turns_the_detectable_difference_round(difference):
    from scipy.special import stdtrit

    sample = np.random.default_rng(1).standard_normal(80)
    needed = queries_needed(sample, difference=difference)
    spread = sample.std(ddof=1)

    def smallest(queries: float) -> float:
        return (stdtrit(queries - 1, 0.975) + stdtrit(queries - 1, 0.8)) * spread / math.sqrt(queries)

    assert smallest(needed) <= difference < smallest(needed - 1)
    assert queries_needed(sample, difference=minimal_detectable_difference(sample) * (1 + 1e-9)) == 80
    assert queries_needed([1.0, 1.0, 1.0], difference=0.1) == 2
    assert np.isnan(queries_needed([1.0], difference=0.1))
    assert queries_needed(np.stack([sample, sample]), difference=difference).tolist() == [needed, needed]


def test_corrections_by_name_and_refusals():
    p = [0.01, 0.04, 0.03]
    np.testing.assert_array_equal(corrected(p), holm(p))
    np.testing.assert_array_equal(corrected(p, "benjamini-hochberg"), benjamini_hochberg(p))
    with pytest.raises(RivalsError, match="no correction is called 'none'"):
        corrected(p, "none")
    with pytest.raises(RivalsError, match="difference is 0"):
        queries_needed([0.1, 0.2], difference=0)
    with pytest.raises(RivalsError, match="between 0 and 1"):
        queries_needed([0.1, 0.2], difference=0.1, power=1)
