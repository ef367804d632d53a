"""Regression measures against scikit-learn on random lists with gaps, hand values and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics

from rivals.errors import RivalsError
from rivals.measures import adjusted_r2, mae, mape, mse, pinball, r2, rmse, smape

PEERS = {
    mse: metrics.mean_squared_error,
    rmse: metrics.root_mean_squared_error,
    mae: metrics.mean_absolute_error,
    mape: metrics.mean_absolute_percentage_error,
    r2: metrics.r2_score,
}


@pytest.mark.parametrize("measure", PEERS, ids=lambda measure: measure.__name__)
def test_scikit_learn(measure):
    rng = np.random.default_rng(0)
    scores, targets = rng.standard_normal((12, 20)), rng.standard_normal((12, 20)) + 0.1
    mask = rng.random((12, 20)) < 0.8
    targets[rng.random((12, 20)) < 0.1] = np.nan
    scores[~mask] = np.nan
    kept = mask & ~np.isnan(targets)
    expected = [PEERS[measure](y[m], s[m]) for s, y, m in zip(scores, targets, kept, strict=True)]
    np.testing.assert_allclose(measure(scores, targets, mask), expected)
    tensors = (torch.tensor(values) for values in (scores, targets, mask))
    np.testing.assert_array_equal(measure(*tensors).numpy(), measure(scores, targets, mask))


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_pinball(quantile):
    rng = np.random.default_rng(1)
    scores, targets = rng.standard_normal((2, 30))
    assert pinball(scores, targets, quantile=quantile) == pytest.approx(
        metrics.mean_pinball_loss(targets, scores, alpha=quantile)
    )
    assert pinball(np.array([0.0]), np.array([2.0]), quantile=0.9) == pytest.approx(1.8)
    assert pinball(np.array([2.0]), np.array([0.0]), quantile=0.9) == pytest.approx(0.2)


def test_hand_values():
    assert smape(np.array([1.0, -1.0, 0.0]), np.array([3.0, 1.0, 0.0])) == pytest.approx((1 + 2 + 0) / 3)
    assert mape(np.array([1.0, 1.0]), np.array([0.0, 2.0]), smallest=0.5) == pytest.approx((2 + 0.5) / 2)
    fit = np.array([1.0, 2, 3, 5, 4]), np.array([1.0, 2, 3, 4, 5])
    assert r2(*fit) == pytest.approx(1 - 2 / 10)
    assert adjusted_r2(*fit, predictors=2) == pytest.approx(1 - 0.2 * 4 / 2)
    assert adjusted_r2(*fit, predictors=0) == r2(*fit)


def test_undefined():
    assert np.isnan(r2(np.array([1.0, 2.0]), np.array([0.1, 0.1])))
    assert np.isnan(r2(np.array([1.0]), np.array([2.0])))
    assert np.isnan(adjusted_r2(np.arange(3.0), np.arange(3.0), predictors=2))
    nothing = np.zeros((2, 0))
    for measure in (mse, rmse, mae, mape, smape, pinball):
        assert measure(nothing, nothing).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, y: mape(s, y), "targets holds a 0"),
        (lambda s, y: mape(s, y, smallest=0), "smallest is 0"),
        (lambda s, y: pinball(s, y, quantile=1), "quantile is 1"),
        (lambda s, y: adjusted_r2(s, y, predictors=-1), "predictors is -1"),
        (lambda s, y: mse(s, y[:1]), "targets has shape"),
        (lambda s, y: mse(s, y, np.ones(2)), "mask must be bool"),
        (lambda s, y: mae(s * np.nan, y), "NaN"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(RivalsError, match=message):
        call(np.array([1.0, 2.0]), np.array([0.0, 1.0]))
