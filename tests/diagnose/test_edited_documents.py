"""Documents with broken conditions, pairs that differ by a negation: hand values, chance, invariances, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rivals.diagnose import (
    ContrastItem,
    chain_monotonicity,
    contrast_pairs,
    contrast_triples,
    order_flip_rate,
    pair_win_rate,
    paired_preference,
)
from rivals.errors import RivalsError

# ---------------------------------------------------------------------------------- conditions


def test_win_rate():
    positive, negative = np.array([[1.0], [2.0]]), np.array([[0.0], [2.0]])
    assert pair_win_rate(positive, negative).win_rate.item() == 0.5  # a tie is a loss
    assert pair_win_rate(positive, negative, ties="half").win_rate.item() == 0.75
    assert pair_win_rate(positive, negative).gap.item() == 0.5
    found = pair_win_rate(torch.ones(2, 3), torch.tensor([[0.0, 0, 2], [0, 2, 2]]))
    assert found.win_rate.tolist() == [1, 0.5, 0]
    assert found.drop == -1
    assert found.slope == pytest.approx(-0.5)
    assert pair_win_rate(positive, negative).slope == 0


def test_chains():
    falling = np.tile(np.arange(5.0, 0, -1), (3, 1))
    found = chain_monotonicity(falling)
    assert found.step_win_rate.tolist() == [1] * 4
    assert (found.chain_rate, found.kendall) == (1, 1)
    found = chain_monotonicity(-falling)
    assert found.step_win_rate.tolist() == [0] * 4
    assert (found.chain_rate, found.kendall) == (0, -1)
    assert order_flip_rate(falling, falling) == 0
    assert order_flip_rate(falling, -falling) == 1
    random = np.random.default_rng(0).standard_normal((2, 2000, 11))
    assert chain_monotonicity(random[0]).step_win_rate.mean() == pytest.approx(0.5, abs=0.02)
    assert order_flip_rate(*random) == order_flip_rate(*random[::-1]) == pytest.approx(0.5, abs=0.02)


def test_scale_and_level_of_an_item_change_nothing():
    rng = np.random.default_rng(1)
    chain, other = rng.standard_normal((2, 30, 6))
    moved = chain * rng.uniform(0.5, 3, (30, 1)) + rng.standard_normal((30, 1))
    np.testing.assert_allclose(chain_monotonicity(moved).step_win_rate, chain_monotonicity(chain).step_win_rate)
    assert order_flip_rate(moved, other) == order_flip_rate(chain, other)
    lift = rng.standard_normal((30, 1))
    np.testing.assert_allclose(pair_win_rate(chain + lift, other + lift).win_rate, pair_win_rate(chain, other).win_rate)


# ---------------------------------------------------------------------------------- negation


def test_paired_preference():
    assert paired_preference([[[2, 1], [0, 1]]]).pairwise_accuracy == 1
    blind = paired_preference([[[2, 1], [1, 0]]])
    assert (blind.pairwise_accuracy, blind.query_accuracy, blind.same_order_rate) == (0, 0.5, 1)
    tied = paired_preference([[[1, 1], [0, 1]]])
    assert (tied.pairwise_accuracy, tied.tie_rate, tied.same_order_rate) == (0, 0.5, 0)


def test_paired_preference_by_chance_and_by_invariance():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((20_000, 2, 2))
    found = paired_preference(scores)
    assert found.pairwise_accuracy == pytest.approx(0.25, abs=0.01)
    assert found.query_accuracy == pytest.approx(0.5, abs=0.01)
    assert found.same_order_rate == pytest.approx(0.5, abs=0.01)
    assert paired_preference(rng.standard_normal((20_000, 3, 3))).pairwise_accuracy == pytest.approx(1 / 27, abs=0.005)
    lifted = paired_preference(scores + rng.standard_normal((20_000, 2, 1)))
    assert lifted[:4] == found[:4]
    swapped = paired_preference(torch.tensor(scores[:, ::-1, ::-1].copy()))
    assert swapped[:4] == found[:4]


def test_contrast_pairs():
    items = [
        ContrastItem(("the pill helps", "the pill does not help"), ("pill helps", "pill not help")),
        ContrastItem(("it rains", "it never rains"), ("rains", "it never rains")),
    ]
    asked = []

    def bag(queries, documents, without=()):
        asked.append(len(queries))
        return torch.tensor(
            [
                float(len((set(q.split()) & set(d.split())) - set(without)))
                for q, d in zip(queries, documents, strict=True)
            ]
        )

    found = contrast_pairs(items, bag, batch_size=3)
    assert asked == [3, 3, 2]
    assert found.per_item.tolist() == [1, 0.5]  # "rains" is in both documents: a tie is wrong
    blind = contrast_pairs(items, lambda q, d: bag(q, d, without=("not", "never", "help", "helps")))
    assert blind.pairwise_accuracy == 0
    assert contrast_triples(items)[1] == ("pill not help", "the pill does not help", "the pill helps")
    assert len(contrast_triples(items)) == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pair_win_rate([[1.0]], [[1.0, 2.0]]), "must be equal"),
        (lambda: pair_win_rate([1.0], [1.0]), "positive has shape"),
        (lambda: pair_win_rate([[1.0]], [[np.nan]]), "negative holds NaN"),
        (lambda: pair_win_rate([[1.0]], [[1.0]], ties="win"), "ties is 'win'"),
        (lambda: chain_monotonicity([[1.0]]), "at least 2 a row"),
        (lambda: order_flip_rate([[1.0, 2.0]], [[1.0, 2.0, 3.0]]), "must be equal"),
        (lambda: paired_preference(np.zeros((0, 2, 2))), "scores have shape"),
        (lambda: paired_preference(np.zeros((1, 2, 3))), "scores have shape"),
        (lambda: paired_preference(np.full((1, 2, 2), np.nan)), "NaN"),
        (lambda: contrast_pairs([], lambda q, d: []), "no item"),
        (lambda: contrast_pairs([ContrastItem(("a", "b"), ("c", "d"))], lambda q, d: [1.0]), "one a pair"),
        (lambda: contrast_pairs([ContrastItem(("a", "b"), ("c", "d"))], lambda q, d: q, batch_size=0), "batch_size"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(RivalsError, match=message):
        call()
