"""Correlations and AUC: hand values, scipy and scikit-learn on random lists with ties and gaps, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from rivals.errors import RivalsError
from rivals.measures import auc, kendall_tau, pair_accuracy, pooled_auc, rank_biased_overlap, spearman
from rivals.measures._pair_counts import dense_counts, pair_counts, sorted_counts


def lists(seed: int, width: int = 9, grades: int = 4):
    """Two lists a case: rounded scores (ties), grades, a few candidates absent or not judged; and what is left."""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((40, width)).round(rng.integers(0, 3))
    relevance = rng.integers(0, grades, (40, width)).astype(float)
    relevance[rng.random(relevance.shape) < 0.1] = np.nan
    mask = rng.random(relevance.shape) < 0.8
    kept = mask & ~np.isnan(relevance)
    return scores, relevance, mask, [(s[m], r[m]) for s, r, m in zip(scores, relevance, kept, strict=True)]


# ---------------------------------------------------------------------------------- the counting core


@pytest.mark.parametrize("min_gap", [0.0, 1.0, 2.5])
def test_sorted_counts_equal_dense_ones(min_gap):
    generator = torch.Generator().manual_seed(3)
    for width in (0, 1, 2, 7, 16, 33):
        key = torch.randint(0, 8, (3, width), generator=generator).double()
        value = torch.randint(0, 6, (3, width), generator=generator).double()
        weight = torch.rand(3, width, generator=generator, dtype=torch.float64).masked_fill(key == 2, 0)
        for fast, plain in zip(
            sorted_counts(key, value, weight, min_gap=min_gap),
            dense_counts(key, value, weight, min_gap=min_gap),
            strict=True,
        ):
            torch.testing.assert_close(fast, plain)


def test_long_lists_take_the_sorted_way_to_the_same_numbers():
    rng = np.random.default_rng(1)
    scores, relevance = rng.standard_normal((2, 700)).round(1), rng.integers(0, 9, (2, 700))
    found = kendall_tau(scores, relevance)
    np.testing.assert_allclose(
        found, [stats.kendalltau(*pair).statistic for pair in zip(scores, relevance, strict=True)]
    )
    one = torch.ones(1, 65, dtype=torch.float64)
    assert pair_counts(one.cumsum(1), one, one).equal.sum() == 65 * 64 / 2


# ---------------------------------------------------------------------------------- against peers


@pytest.mark.parametrize("seed", range(5))
def test_kendall_and_spearman_are_those_of_scipy(seed):
    scores, relevance, mask, left = lists(seed)
    defined = [min(len(np.unique(side)) for side in pair) > 1 for pair in left]
    tau, rho = (
        [peer(*pair).statistic if fine else 0.0 for pair, fine in zip(left, defined, strict=True)]
        for peer in (stats.kendalltau, stats.spearmanr)
    )
    np.testing.assert_allclose(kendall_tau(scores, relevance, mask), tau, atol=1e-12)
    np.testing.assert_allclose(spearman(scores, relevance, mask), rho, atol=1e-12)
    tensor = kendall_tau(torch.tensor(scores), torch.tensor(relevance), torch.tensor(mask))
    np.testing.assert_array_equal(tensor.numpy(), kendall_tau(scores, relevance, mask))


@pytest.mark.parametrize("max_fpr", [1.0, 0.5, 0.1])
def test_auc_is_that_of_scikit_learn(max_fpr):
    scores, relevance, mask, left = lists(7, width=14, grades=3)
    found = auc(scores, relevance, mask, relevance_level=2, max_fpr=max_fpr, empty="nan")
    for value, (s, r) in zip(found, left, strict=True):
        if len(np.unique(r >= 2)) < 2:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(roc_auc_score(r >= 2, s, max_fpr=None if max_fpr == 1 else max_fpr))
    pool = [np.concatenate(side) for side in zip(*left, strict=True)]
    expected = roc_auc_score(pool[1] >= 2, pool[0], max_fpr=None if max_fpr == 1 else max_fpr)
    assert pooled_auc(scores, relevance, mask, relevance_level=2, max_fpr=max_fpr) == pytest.approx(expected)


def test_partial_area_without_standardising_is_the_area():
    scores, relevance = np.array([4.0, 3.0, 2.0, 1.0]), np.array([1, 0, 1, 0])
    assert auc(scores, relevance, max_fpr=0.5, standardise=False) == 0.5  # height 1/2 over the first half
    assert auc(scores, np.array([1, 1, 0, 0]), max_fpr=0.2, standardise=False) == pytest.approx(1)


@pytest.mark.parametrize("min_gap", [0.0, 1.0, 2.0])
def test_pair_accuracy_by_its_definition(min_gap):
    scores, relevance, mask, left = lists(11)
    found = pair_accuracy(scores, relevance, mask, min_gap=min_gap, tie=0.25)
    for value, (s, r) in zip(found, left, strict=True):
        worth = [
            1.0 if a > b else 0.25 if a == b else 0.0
            for a, x in zip(s, r, strict=True)
            for b, y in zip(s, r, strict=True)
            if x > y and x - y >= min_gap
        ]
        assert value == pytest.approx(np.mean(worth) if worth else 0.0)


def test_relations():
    rng = np.random.default_rng(5)
    scores, relevance = rng.standard_normal((6, 12)), rng.permuted(np.tile(np.arange(12), (6, 1)), axis=1)
    np.testing.assert_allclose(pair_accuracy(scores, relevance), (kendall_tau(scores, relevance, variant="a") + 1) / 2)
    np.testing.assert_allclose(kendall_tau(scores, relevance, variant="a"), kendall_tau(scores, relevance))
    binary = (relevance > 6).astype(int)
    np.testing.assert_allclose(pair_accuracy(scores.round(), binary), auc(scores.round(), binary))
    np.testing.assert_allclose(auc(scores, binary), 1 - auc(-scores, binary))


# ---------------------------------------------------------------------------------- hand values


def test_hand_values_of_tau():
    assert kendall_tau(np.array([4, 3, 2, 1.0]), np.array([1, 2, 3, 4])) == -1
    assert kendall_tau(np.array([4, 3, 1, 2.0]), np.array([4, 3, 2, 1])) == pytest.approx(1 - 2 / 6)
    # Two of three pairs differ in relevance by 2 or more, one of them in order, one not.
    assert kendall_tau(np.array([3, 2, 1.0]), np.array([2, 0, 2]), min_gap=2) == 0
    assert kendall_tau(np.array([3, 2, 1.0]), np.array([3, 2, 0]), min_gap=2) == pytest.approx(2 / np.sqrt(3 * 2))
    assert kendall_tau(np.array([3, 2, 1.0]), np.array([3, 2, 0]), min_gap=2, variant="a") == pytest.approx(2 / 3)


def overlap_by_loops(first, second, p, depth):
    """Webber, Moffat and Zobel: tied documents stand at the first of their ranks."""
    ranks = [[1 + sum(other > mine for other in side) for mine in side] for side in (first, second)]
    agreements = []
    for d in range(1, depth + 1):
        left, right = ({i for i, rank in enumerate(side) if rank <= d} for side in ranks)
        agreements.append(2 * len(left & right) / (len(left) + len(right)))
    return (1 - p) * sum(p ** (d - 1) * a for d, a in enumerate(agreements, 1)) + p**depth * agreements[-1]


def test_rank_biased_overlap():
    first = np.array([4.0, 3.0, 2.0, 1.0])
    assert rank_biased_overlap(first, first * 2 - 7) == pytest.approx(1)
    assert rank_biased_overlap(np.array([2.0, 1.0]), np.array([1.0, 2.0]), p=0.5) == pytest.approx(0.5)
    apart = np.array([[9.0, 8.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 9.0, 8.0]])
    assert rank_biased_overlap(*apart, k=2).item() == 0
    # Top three of one list a b c, of the other a c d: agreements 1, 1/2, 2/3.
    top = rank_biased_overlap(np.array([3.0, 2, 1, 0]), np.array([3.0, 0, 2, 1]), p=0.8, k=3)
    assert top == pytest.approx(0.2 * (1 + 0.8 / 2 + 0.64 * 2 / 3) + 0.512 * 2 / 3)
    scores, relevance, mask, left = lists(13)
    for k in (None, 1, 4):
        found = rank_biased_overlap(scores, relevance, mask, p=0.7, k=k)
        for value, (s, r) in zip(found, left, strict=True):
            expected = overlap_by_loops(s, r, 0.7, len(s) if k is None else min(k, len(s))) if len(s) else 0
            assert value == pytest.approx(expected)


@pytest.mark.parametrize("measure", [kendall_tau, spearman, pair_accuracy, auc, rank_biased_overlap])
def test_lists_where_nothing_can_be_said(measure):
    nothing = np.zeros((2, 0)), np.zeros((2, 0))
    assert measure(*nothing).tolist() == [0, 0]
    assert np.isnan(measure(*nothing, empty="nan")).all()
    assert measure(np.zeros(3), np.array([1, 0, 1]), np.zeros(3, dtype=bool)) == 0
    assert measure(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0,)
    with pytest.raises(RivalsError, match="empty is 'none'"):
        measure(np.zeros(3), np.array([1, 0, 1]), empty="none")
    with pytest.raises(RivalsError, match="NaN"):
        measure(np.array([np.nan, 1.0]), np.array([1, 0]))


def test_a_constant_side_has_no_correlation():
    assert kendall_tau(np.ones(3), np.arange(3)) == spearman(np.ones(3), np.arange(3)) == 0
    assert np.isnan(spearman(np.arange(3.0), np.ones(3), empty="nan"))
    assert auc(np.ones(4), np.array([1, 0, 0, 1])) == pair_accuracy(np.ones(4), np.array([1, 0, 0, 1])) == 0.5
    assert kendall_tau(np.array([1.0, 2.0, 0.0]), np.array([2.0, np.inf, 1.0]).clip(max=5)) == 1


def test_infinite_scores_keep_their_places():
    scores = np.array([np.inf, 1.0, -np.inf])
    assert spearman(scores, np.array([3, 2, 1])) == pytest.approx(1)
    assert kendall_tau(scores, np.array([3, 2, 1])) == 1
    assert auc(scores, np.array([1, 0, 0])) == 1
    assert rank_biased_overlap(scores, np.array([3, 2, 1])) == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, r: kendall_tau(s, r, variant="c"), "variant is 'c'"),
        (lambda s, r: kendall_tau(s, r, min_gap=-1), "min_gap is -1"),
        (lambda s, r: pair_accuracy(s, r, tie=2), "tie is 2"),
        (lambda s, r: rank_biased_overlap(s, r, p=1), "persistence"),
        (lambda s, r: rank_biased_overlap(s, r, k=0), "k is 0"),
        (lambda s, r: auc(s, r, max_fpr=0), "max_fpr is 0"),
        (lambda s, r: pooled_auc(s, r, relevance_level=0), "relevance_level is 0"),
    ],
)
def test_bad_options_are_named(call, message):
    with pytest.raises(RivalsError, match=message):
        call(np.array([1.0, 2.0]), np.array([0, 1]))
