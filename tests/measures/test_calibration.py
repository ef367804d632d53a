"""Calibration measures: hand values, scikit-learn, their definitions by loops, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.calibration import calibration_curve

from rivals.errors import RivalsError
from rivals.losses import brier_loss, softmax_loss
from rivals.measures import (
    brier_score,
    calibration_report,
    classwise_calibration_error,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_curve,
)


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def problem(seed=0, rows=200, width=4):
    rng = np.random.default_rng(seed)
    scores, labels = rng.standard_normal((rows, width)) * 2, rng.integers(0, width, rows)
    scores[np.arange(rows), labels] += 1
    return scores, labels


def by_loops(p, right, edges):
    """(n_b / N)|gap| of right-closed bins, and the gaps."""
    inside = np.searchsorted(edges[1:-1], p)
    gaps = [
        (np.mean(inside == b), abs(right[inside == b].mean() - p[inside == b].mean()))
        for b in range(len(edges) - 1)
        if (inside == b).any()
    ]
    shares, gaps = np.array(gaps).T
    return (shares * gaps).sum(), np.sqrt((shares * gaps**2).sum()), gaps.max()


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("bins", [1, 5, 15])
def test_calibration_error_by_loops(adaptive, bins):
    scores, labels = problem()
    p = softmax(scores)
    top, right = p.max(1), (p.argmax(1) == labels).astype(float)
    edges = np.quantile(top, np.linspace(0, 1, bins + 1)) if adaptive else np.linspace(0, 1, bins + 1)
    for norm, expected in zip(("l1", "l2", "max"), by_loops(top, right, edges), strict=True):
        found = expected_calibration_error(scores, labels, bins=bins, adaptive=adaptive, norm=norm)
        assert found == pytest.approx(expected)
    by_class = []
    for k in range(4):
        edges = np.quantile(p[:, k], np.linspace(0, 1, bins + 1)) if adaptive else np.linspace(0, 1, bins + 1)
        by_class.append(by_loops(p[:, k], (labels == k).astype(float), edges)[0])
    found = classwise_calibration_error(p, labels, bins=bins, adaptive=adaptive, probabilities=True)
    assert found == pytest.approx(np.mean(by_class))


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_curve_of_a_pool_is_that_of_scikit_learn(strategy):
    rng = np.random.default_rng(2)
    p = rng.random((30, 10)).round(2)
    right = (rng.random(p.shape) < p**2).astype(int)
    frequency, confidence = calibration_curve(right.ravel(), p.ravel(), n_bins=7, strategy=strategy)
    adaptive = strategy == "quantile"
    curve = reliability_curve(p, right, outcomes="each", bins=7, adaptive=adaptive, probabilities=True)
    held = curve.count > 0
    np.testing.assert_allclose(curve.confidence[held], confidence)
    np.testing.assert_allclose(curve.frequency[held], frequency)
    assert curve.count.sum() == 300


def test_proper_scores_are_those_of_scikit_learn_and_of_the_losses():
    scores, labels = problem(3)
    p, hot = softmax(scores), np.eye(4)[labels]
    assert negative_log_likelihood(scores, labels) == pytest.approx(metrics.log_loss(labels, p))
    assert brier_score(scores, labels) == pytest.approx(((p - hot) ** 2).sum(1).mean())
    tensors = torch.tensor(scores), torch.tensor(hot)
    assert brier_score(*tensors).item() == pytest.approx(brier_loss(*tensors).item())
    assert negative_log_likelihood(*tensors).item() == pytest.approx(softmax_loss(*tensors).item())
    alone = 1 / (1 + np.exp(-scores))
    each = {"outcomes": "each"}
    assert brier_score(scores, hot, **each) == pytest.approx(metrics.brier_score_loss(hot.ravel(), alone.ravel()))
    assert negative_log_likelihood(scores, hot, **each) == pytest.approx(metrics.log_loss(hot.ravel(), alone.ravel()))
    found = negative_log_likelihood(alone, hot, probabilities=True, **each)
    assert found == pytest.approx(metrics.log_loss(hot.ravel(), alone.ravel()))


def test_right_closed_bins_and_the_ends():
    p = np.array([[0.0], [0.5], [0.5000001], [1.0]])
    curve = reliability_curve(p, np.array([[0], [1], [1], [1]]), outcomes="each", bins=2, probabilities=True)
    assert curve.count.tolist() == [2, 2]
    assert curve.frequency.tolist() == [0.5, 1]


def test_true_probabilities_are_calibrated_and_sure_errors_are_not():
    rng = np.random.default_rng(0)
    p = softmax(rng.standard_normal((100_000, 3)))
    labels = (p.cumsum(1) < rng.random((100_000, 1))).sum(1)
    assert expected_calibration_error(p, labels, probabilities=True) < 0.01
    assert classwise_calibration_error(p, labels, probabilities=True, adaptive=True) < 0.01
    wrong = np.array([[1.0, 0.0]] * 3), np.array([1, 1, 1])
    assert expected_calibration_error(*wrong, probabilities=True) == 1
    assert brier_score(*wrong, probabilities=True) == 2
    assert negative_log_likelihood(*wrong, probabilities=True) == np.inf


def test_lists_of_several_lengths():
    scores, labels = problem(4, rows=50)
    wide = np.concatenate([np.full((50, 1), 99.0), scores], axis=1)
    hot = np.concatenate([np.zeros((50, 1)), np.eye(4)[labels]], axis=1)
    mask = np.ones_like(wide, dtype=bool)
    mask[:, 0] = False
    for measure in (expected_calibration_error, brier_score, negative_log_likelihood, classwise_calibration_error):
        np.testing.assert_allclose(measure(wide, hot, mask), measure(scores, labels))
    # Lists where no candidate is right say nothing; neither do unknown ones.
    more = np.concatenate([scores, scores[:5]]), np.concatenate([hot[:, 1:], np.zeros((5, 4))])
    for measure in (expected_calibration_error, brier_score, negative_log_likelihood):
        np.testing.assert_allclose(measure(*more), measure(scores, labels))


def test_report():
    scores, labels = problem(5)
    report = calibration_report(scores, labels, bins=10)
    assert report.ece == pytest.approx(expected_calibration_error(scores, labels, bins=10).item())
    assert report.mce == pytest.approx(expected_calibration_error(scores, labels, bins=10, norm="max").item())
    assert report.classwise == pytest.approx(classwise_calibration_error(scores, labels, bins=10).item())
    assert report.brier == pytest.approx(brier_score(scores, labels).item())
    assert report.nll == pytest.approx(negative_log_likelihood(scores, labels).item())
    p = softmax(scores)
    assert report.gap == pytest.approx(p.max(1).mean() - (p.argmax(1) == labels).mean())
    assert report.gap > 0  # scores of twice their size
    np.testing.assert_array_equal(report.curve.count, reliability_curve(scores, labels, bins=10).count)


@pytest.mark.parametrize("outcomes", ["one", "each"])
def test_nothing_is_worth_nothing(outcomes):
    for shape in ((0, 3), (2, 0), (0, 0)):
        nothing = np.zeros(shape), np.zeros(shape)
        for measure in (expected_calibration_error, classwise_calibration_error, brier_score, negative_log_likelihood):
            assert measure(*nothing, outcomes=outcomes) == 0
        assert np.isnan(reliability_curve(*nothing, outcomes=outcomes).confidence).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outcomes": "both"}, "outcomes is 'both'"),
        ({"bins": 0}, "bins is 0"),
        ({"bins": 2.5}, "bins is 2.5"),
        ({"norm": "l3"}, "norm is 'l3'"),
        ({"probabilities": True}, "probabilities must lie in 0..1"),
        ({"relevance_level": -1}, "relevance_level is -1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(RivalsError, match=message):
        expected_calibration_error(np.array([[1.0, 2.0]]), np.array([0]), **options)
