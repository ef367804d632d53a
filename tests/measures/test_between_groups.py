"""The test between groups: its statistic by hand, its level, its power, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from rivals.errors import RivalsError
from rivals.measures.between_groups import _welch, groups_differ_test


def test_the_statistic_by_hand():
    groups = [np.array([1.0, 2.0, 4.0]), np.array([0.0, 1.0]), np.array([5.0, 5.0, 6.0, 8.0])]
    values = np.concatenate(groups)
    spread = values.var(ddof=1)
    weights = [len(g) / (((len(g) - 1) * g.var(ddof=1) + spread) / len(g)) for g in groups]
    centre = sum(w * g.mean() for w, g in zip(weights, groups, strict=True)) / sum(weights)
    wanted = sum(w * (g.mean() - centre) ** 2 for w, g in zip(weights, groups, strict=True))
    found = _welch(values, np.array([0, 3, 5]), np.array([3, 2, 4]), spread)
    assert found == pytest.approx(wanted)


def test_p_is_the_share_of_all_deals_where_they_are_few():
    from itertools import combinations

    values, groups = np.array([0.0, 0.1, 0.3, 0.2, 0.9, 0.8, 1.1]), np.array([0, 0, 0, 0, 1, 1, 1])
    spread = values.var(ddof=1)

    def statistic(chosen: tuple[int, ...]) -> float:
        rest = [i for i in range(7) if i not in chosen]
        return _welch(values[[*rest, *chosen]], np.array([0, 4]), np.array([4, 3]), spread)

    seen = statistic((4, 5, 6))
    share = np.mean([statistic(chosen) >= seen - 1e-12 for chosen in combinations(range(7), 3)])
    p = groups_differ_test(values, groups, permutations=20_000)
    assert p == pytest.approx(share, abs=0.004)


@pytest.mark.parametrize("unequal", [False, True])
def test_the_level_holds_also_where_spreads_and_sizes_differ(unequal):
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], [120, 40, 20])
    scale = np.repeat([0.2, 0.5, 1.0], [120, 40, 20]) if unequal else 1.0
    p = groups_differ_test(rng.standard_normal((400, 180)) * scale, groups, permutations=199)
    assert 0.02 < (p < 0.05).mean() < 0.09


def test_a_difference_between_groups_is_found_and_rows_are_as_alone():
    rng = np.random.default_rng(1)
    groups = np.repeat(["a", "b"], 50)
    values = rng.standard_normal((2, 100)) + np.array([[0.0], [1.0]]) * (groups == "b")
    p = groups_differ_test(values, groups, permutations=999)
    assert p[0] > 0.05
    assert p[1] == 0.001
    assert groups_differ_test(values[1], groups, permutations=999) == p[1]
    order = rng.permutation(100)
    assert groups_differ_test(values[1][order], groups[order], permutations=999) == 0.001


def test_values_without_spread_give_one_and_a_group_without_spread_is_no_fault():
    assert groups_differ_test([0.3] * 6, [0, 0, 0, 1, 1, 1], permutations=100) == 1
    assert groups_differ_test([0.0] * 20 + [1.0] * 20, [0] * 20 + [1] * 20, permutations=999) == 0.001


@pytest.mark.parametrize(
    ("values", "groups", "options", "message"),
    [
        ([1.0, 2.0], [0, 0], {}, "the groups hold 2 queries"),
        ([1.0, 2.0, 3.0], [0, 0, 1], {}, "the groups hold 2, 1 queries"),
        ([1.0, 2.0, 3.0], [0, 1], {}, "2 entries for 3 queries"),
        ([1.0, np.nan, 3.0, 4.0], [0, 0, 1, 1], {}, "NaN"),
        ([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1], {"permutations": 10}, "too few"),
    ],
)
def test_refusals(values, groups, options, message):
    with pytest.raises(RivalsError, match=message):
        groups_differ_test(values, groups, **options)
