"""ERR and RBP: hand values, their definitions on random lists, and their kinship with other measures."""

from __future__ import annotations

import numpy as np
import pytest

from rivals.errors import RivalsError
from rivals.measures import expected_reciprocal_rank, measure_all, precision, rank_biased_precision, reciprocal_rank


def err_by_loops(grades, k, top):
    reached, value = 1.0, 0.0
    for rank, grade in enumerate(grades[:k], 1):
        satisfied = (2 ** max(grade, 0) - 1) / 2**top
        value += reached * satisfied / rank
        reached *= 1 - satisfied
    return value


@pytest.mark.parametrize("k", [None, 1, 5])
def test_definitions_on_random_lists(k):
    rng = np.random.default_rng(2)
    scores = rng.standard_normal((30, 11)).round(1).astype(np.float32)
    relevance, mask = rng.integers(-1, 4, (30, 11)).astype(float), rng.random((30, 11)) < 0.7
    relevance[rng.random(relevance.shape) < 0.1] = np.nan
    found = measure_all(
        [f"{name}@{k}" if k else name for name in ("ERR", "RBP(p=0.5)", "RBP(p=0.9, rel=2)", "RBP(max=3)")],
        *(scores, relevance, mask),
    )
    for row in range(30):
        order = [i for i in np.argsort(-scores[row], kind="stable") if mask[row, i]]
        grades = np.nan_to_num(relevance[row, order])
        depth = len(grades) if k is None else k
        weights = np.arange(len(grades[:depth]))
        expected = [
            err_by_loops(grades, depth, 4),
            0.5 * (0.5**weights * (grades[:depth] >= 1)).sum(),
            0.1 * (0.9**weights * (grades[:depth] >= 2)).sum(),
            0.2 * (0.8**weights * np.maximum(grades[:depth], 0) / 3).sum(),
        ]
        np.testing.assert_allclose([values[row] for values in found.values()], expected, rtol=1e-12)


def test_hand_values():
    # gdeval on grades 3, 2, 3 of a scale to 4: R = 7/16, 3/16, 7/16.
    err = 7 / 16 + 9 / 16 * 3 / 16 / 2 + 9 / 16 * 13 / 16 * 7 / 16 / 3
    assert expected_reciprocal_rank(np.array([3.0, 2.0, 1.0]), np.array([3, 2, 3])) == pytest.approx(err)
    assert rank_biased_precision(np.ones(3), np.array([1, 0, 1]), p=0.5) == 0.5 * (1 + 0.25)
    assert expected_reciprocal_rank(np.zeros((2, 0)), np.zeros((2, 0))).tolist() == [0, 0]


def test_relations():
    rng = np.random.default_rng(4)
    scores, relevance = rng.standard_normal((9, 20)), rng.integers(0, 2, (9, 20))
    # A reader who is surely satisfied by the first relevant document: the reciprocal rank.
    sure = expected_reciprocal_rank(scores, relevance * 30, max_grade=30)
    np.testing.assert_allclose(sure, reciprocal_rank(scores, relevance), rtol=1e-7)
    # A reader who hardly ever stops: nearly precision times the mass of the ranks seen.
    patient = rank_biased_precision(scores, relevance, p=1 - 1e-9)
    np.testing.assert_allclose(patient / 1e-9, precision(scores, relevance) * 20, rtol=1e-5)
    np.testing.assert_allclose(
        rank_biased_precision(scores, relevance, max_grade=1), rank_biased_precision(scores, relevance)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, r: expected_reciprocal_rank(s, r * 5), "grade of 5, above max_grade=4"),
        (lambda s, r: expected_reciprocal_rank(s, r, max_grade=0), "max_grade is 0"),
        (lambda s, r: expected_reciprocal_rank(s, r, k=0), "k is 0"),
        (lambda s, r: rank_biased_precision(s, r, p=0), "persistence"),
        (lambda s, r: rank_biased_precision(s, r, relevance_level=0), "relevance_level is 0"),
        (lambda s, r: rank_biased_precision(s, r, max_grade=0.5), "above max_grade=0.5"),
    ],
)
def test_bad_options_are_named(call, message):
    with pytest.raises(RivalsError, match=message):
        call(np.array([1.0, 2.0]), np.array([0, 1]))
