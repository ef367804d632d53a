"""The concordance index by its definition, on hand values, and where it meets other measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rivals.errors import RivalsError
from rivals.measures import concordance_counts, concordance_index, pair_accuracy


def by_pairs(risk, time, event, weight):
    right = total = 0.0
    for i in range(len(risk)):
        for j in range(len(risk)):
            if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                total += weight[i] * weight[j]
                right += weight[i] * weight[j] * (1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0)
    return right / total if total else 0.0


@pytest.mark.parametrize("width", [6, 90])  # all pairs at once; by sorting
def test_definition(width):
    rng = np.random.default_rng(width)
    risk, time = rng.standard_normal((8, width)).round(1), rng.integers(0, 6, (8, width))
    event, mask = rng.integers(0, 2, (8, width)), rng.random((8, width)) < 0.8
    weight = rng.random((8, width)).round(2)
    for weights in (None, weight):
        found = concordance_index(risk, time, event, mask, weight=weights)
        expected = [
            by_pairs(*(side[row][mask[row]] for side in (risk, time, event, weight if weights is not None else mask)))
            for row in range(8)
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_hand_values():
    times, all_events = np.array([1, 2, 3]), np.ones(3)
    assert concordance_index(np.array([3.0, 2, 1]), times, all_events) == 1
    assert concordance_index(np.array([1.0, 2, 3]), times, all_events) == 0
    assert concordance_index(np.ones(3), times, all_events) == 0.5
    counts = concordance_counts(np.array([1.0, 2, 1.5]), times, np.array([0, 1, 1]))
    assert [int(n) for n in counts] == [1, 0, 0]  # the pairs of the censored first one vanish
    # At one time the one who failed comes before the one who was censored; two failures are not compared.
    assert [int(n) for n in concordance_counts(np.array([2.0, 1, 3]), np.array([4, 4, 4]), np.array([1, 0, 1]))] == [
        2,
        0,
        0,
    ]


def test_relations():
    rng = np.random.default_rng(1)
    risk, time = rng.standard_normal((3, 40)), rng.permuted(np.tile(np.arange(40.0), (3, 1)), axis=1)
    np.testing.assert_allclose(concordance_index(risk, time, np.ones((3, 40))), pair_accuracy(risk, -time))
    event = rng.integers(0, 2, (3, 40))
    once = concordance_index(risk, time, event, weight=1.0 + (np.arange(40) == 7) * np.ones((3, 1)))
    twice = concordance_index(*(np.concatenate([side, side[:, 7:8]], axis=1) for side in (risk, time, event)))
    np.testing.assert_allclose(once, twice)
    tensor = concordance_index(*(torch.tensor(side) for side in (risk, time, event)))
    np.testing.assert_array_equal(tensor.numpy(), concordance_index(risk, time, event))


def test_nothing_to_compare():
    censored = np.array([1.0, 2]), np.array([1, 2]), np.zeros(2)
    assert concordance_index(*censored) == 0
    assert np.isnan(concordance_index(*censored, empty="nan"))
    assert concordance_index(np.zeros((2, 0)), np.zeros((2, 0)), np.zeros((2, 0))).tolist() == [0, 0]


def test_absent_entries_may_hold_anything():
    risk, time, event = np.array([2.0, np.nan, 1]), np.array([1.0, np.nan, 2]), np.array([1.0, 7, 1])
    assert concordance_index(risk, time, event, np.array([True, False, True])) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"event": np.array([0.5, 1])}, "event must be 0"),
        ({"duration": np.array([1.0, np.inf])}, "duration must be finite"),
        ({"duration": np.ones(3)}, "duration has shape"),
        ({"weight": np.array([-1.0, 1])}, "weight holds -1"),
        ({"scores": np.array([np.nan, 1])}, "NaN"),
        ({"empty": "one"}, "empty is 'one'"),
    ],
)
def test_bad_input_is_named(changed, message):
    sound = {"scores": np.array([2.0, 1]), "duration": np.array([1.0, 2]), "event": np.array([1, 1])}
    with pytest.raises(RivalsError, match=message):
        concordance_index(**(sound | changed))
