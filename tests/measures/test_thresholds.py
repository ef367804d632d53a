"""One threshold for all: against trying every threshold, and against scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score, roc_curve

from rivals.errors import RivalsError
from rivals.measures import best_f1, pooled_auc, pooled_roc_curve

pools = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=30).filter(
    lambda rows: any(label for _, label in rows)
)


@given(pools)
def test_best_f1_is_the_best_of_all_thresholds(rows):
    scores, labels = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    found = best_f1(scores, labels)
    tried = {t: f1_score(labels, scores >= t, zero_division=0) for t in scores}
    assert found.f1 == pytest.approx(max(tried.values()))
    called = scores >= found.threshold
    assert found.f1 == pytest.approx(f1_score(labels, called))
    assert found.precision == pytest.approx(precision_score(labels, called))
    assert found.recall == pytest.approx(recall_score(labels, called))


@given(pools, st.permutations(range(30)))
def test_order_and_masked_candidates_do_not_matter(rows, order):
    scores, labels = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    order = [place for place in order if place < len(rows)]
    wide = np.concatenate([scores[order], [np.nan, 99.0]])
    mask = np.array([True] * len(rows) + [False, False])
    assert best_f1(wide, np.concatenate([labels[order], [1, 0]]), mask) == best_f1(scores, labels)


def test_neighbouring_floats_still_part():
    low = np.float64(1.0)
    high = np.nextafter(low, 2.0)
    found = best_f1(np.array([high, low]), np.array([1, 0]))
    assert found.f1 == 1
    assert low < found.threshold <= high


@given(pools.filter(lambda rows: not all(label for _, label in rows)))
def test_the_roc_curve_is_scikit_learns_and_its_area_is_the_pooled_auc(rows):
    scores, labels = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    curve = pooled_roc_curve(scores, labels)
    fpr, tpr, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive_rate, fpr)
    np.testing.assert_allclose(curve.true_positive_rate, tpr)
    np.testing.assert_allclose(curve.threshold, thresholds)
    area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert area == pytest.approx(pooled_auc(scores[None], labels[None]).item())


def test_torch_in_torch_out():
    curve = pooled_roc_curve(torch.tensor([0.2, 0.9]), torch.tensor([0, 1]))
    assert isinstance(curve.threshold, torch.Tensor)
    assert curve.true_positive_rate.tolist() == [0, 1, 1]


def test_bad_arguments():
    with pytest.raises(RivalsError, match="at least one positive"):
        best_f1(np.array([1.0]), np.array([0]))
    with pytest.raises(RivalsError, match="no candidate"):
        best_f1(np.array([]), np.array([]))
    with pytest.raises(RivalsError, match="no negative"):
        pooled_roc_curve(np.array([1.0]), np.array([1]))
    with pytest.raises(RivalsError, match="relevance_level"):
        best_f1(np.array([1.0]), np.array([1]), relevance_level=0)
