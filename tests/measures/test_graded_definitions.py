"""Exponential-gain nDCG against scikit-learn, ERR against the reader it describes, both on drawn lists."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from rivals.measures import expected_reciprocal_rank, ndcg

GRADES = st.lists(st.integers(0, 4), min_size=2, max_size=7)


@settings(max_examples=60, deadline=None)
@given(GRADES, st.integers(1, 8), st.randoms(use_true_random=False))
def test_exponential_ndcg_is_scikit_learns_with_gains_as_relevance(grades, k, random):
    """scikit-learn's gains are linear, so relevance 2^g - 1 makes it the exponential measure."""
    scores = [float(i) for i in range(len(grades))]
    random.shuffle(scores)
    expected = ndcg_score([[2.0**g - 1 for g in grades]], [scores], k=k)
    found = ndcg(np.array(scores), np.array(grades), k=k, gain="exponential")
    assert found == pytest.approx(expected, abs=1e-12)


def err_over_cascades(grades: list[int], k: int, top: int) -> float:
    """E[1 / stopping rank] over every outcome: each document satisfies the reader or not, the first that does stops."""
    chances = [(2**grade - 1) / 2**top for grade in grades]
    value = 0.0
    for satisfied in product((False, True), repeat=len(grades)):
        weight = np.prod([p if yes else 1 - p for p, yes in zip(chances, satisfied, strict=True)])
        stop = satisfied.index(True) + 1 if True in satisfied else None
        value += weight / stop if stop is not None and stop <= k else 0.0
    return float(value)


@settings(max_examples=60, deadline=None)
@given(GRADES, st.integers(1, 8), st.integers(4, 6))
def test_err_is_the_mean_over_all_readers(grades, k, top):
    scores = -np.arange(len(grades), dtype=float)
    found = expected_reciprocal_rank(scores, np.array(grades), k=k, max_grade=top)
    assert found == pytest.approx(err_over_cascades(grades, k, top), abs=1e-12)
