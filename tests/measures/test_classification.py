"""Classification measures against scikit-learn on random data with gaps, and hand values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics

from rivals.errors import RivalsError
from rivals.measures import (
    average_precision,
    classification_rates,
    confusion_matrix,
    f_score,
    hamming_error,
    jaccard_accuracy,
    label_average_precision,
    multiclass_auc,
    subset_accuracy,
)


def multi_label(seed: int = 0, rows: int = 60, width: int = 5):
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((rows, width)).round(1)
    return scores, (rng.random((rows, width)) < rng.uniform(0.1, 0.7, width)).astype(int)


def classes(seed: int = 0, rows: int = 80, width: int = 4):
    rng = np.random.default_rng(seed)
    scores, labels = rng.standard_normal((rows, width)), rng.integers(0, width, rows)
    scores[np.arange(rows), labels] += 0.7
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return probabilities.round(2), labels


# ---------------------------------------------------------------------------------- scikit-learn

AVERAGES = {"macro": "macro", "micro": "micro", "weighted": "weighted", "lists": "samples", "none": None}


@pytest.mark.parametrize("average", AVERAGES)
def test_several_labels(average):
    scores, right = multi_label()
    predicted = (scores > 0.2).astype(int)
    keywords = {"average": AVERAGES[average], "zero_division": 0}
    rates = classification_rates(scores, right, average=average, threshold=0.2)
    by_list = average == "lists"

    def compare(found, expected):
        np.testing.assert_allclose(found.mean() if by_list else found, expected)

    compare(rates.precision, metrics.precision_score(right, predicted, **keywords))
    compare(rates.recall, metrics.recall_score(right, predicted, **keywords))
    compare(rates.f1, metrics.f1_score(right, predicted, **keywords))
    for beta in (0.5, 2.0):
        found = f_score(scores, right, average=average, threshold=0.2, beta=beta)
        compare(found, metrics.fbeta_score(right, predicted, beta=beta, **keywords))
    expected = metrics.average_precision_score(right, scores, average=AVERAGES[average]) if not by_list else None
    if expected is not None:
        np.testing.assert_allclose(label_average_precision(scores, right, average=average), expected)


def test_by_list():
    scores, right = multi_label(1)
    right[:3], scores[1:3] = 0, -1
    predicted = (scores > 0).astype(int)
    jaccard = metrics.jaccard_score(right, predicted, average="samples", zero_division=1)
    assert jaccard_accuracy(scores, right).mean() == pytest.approx(jaccard)
    assert hamming_error(scores, right).mean() == pytest.approx(metrics.hamming_loss(right, predicted))
    assert subset_accuracy(scores, right).mean() == pytest.approx(metrics.accuracy_score(right, predicted))
    some = right.any(1)
    ap = label_average_precision(scores[some], right[some], average="lists").mean()
    assert ap == pytest.approx(metrics.average_precision_score(right[some], scores[some], average="samples"))


@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "none"])
def test_one_class(average):
    scores, labels = classes()
    predicted = scores.argmax(1)
    keywords = {"average": AVERAGES[average], "zero_division": 0}
    rates = classification_rates(scores, labels, average=average)
    np.testing.assert_allclose(rates.precision, metrics.precision_score(labels, predicted, **keywords))
    np.testing.assert_allclose(rates.recall, metrics.recall_score(labels, predicted, **keywords))
    np.testing.assert_allclose(f_score(scores, labels, average=average), rates.f1)
    np.testing.assert_allclose(rates.f1, metrics.f1_score(labels, predicted, **keywords))
    np.testing.assert_array_equal(confusion_matrix(scores, labels), metrics.confusion_matrix(labels, predicted))
    assert subset_accuracy(scores, labels).mean() == pytest.approx(metrics.accuracy_score(labels, predicted))


@pytest.mark.parametrize("scheme", ["ovr", "ovo"])
@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_area_of_several_classes(scheme, average):
    p, labels = classes(3)
    p = p / p.sum(1, keepdims=True)
    expected = metrics.roc_auc_score(labels, p, multi_class=scheme, average=average)
    assert multiclass_auc(p, labels, scheme=scheme, average=average) == pytest.approx(expected)
    hot = np.eye(4, dtype=int)[labels]
    assert multiclass_auc(p, hot, scheme=scheme, average=average) == pytest.approx(expected)


# ---------------------------------------------------------------------------------- hand values and forms


def test_hand_values():
    # Truth {1, 2} against {2, 3} of three labels.
    scores, right = np.array([[-1.0, 1.0, 1.0]]), np.array([[1, 1, 0]])
    assert jaccard_accuracy(scores, right).item() == pytest.approx(1 / 3)
    assert hamming_error(scores, right).item() == pytest.approx(2 / 3)
    assert subset_accuracy(scores, right).item() == 0
    rates = classification_rates(scores, right, average="micro")
    assert [round(float(rate), 4) for rate in rates] == [0.5, 0.5, 0.5, 0, 0, 1, 0.5, 0.3333]
    two = np.array([[1.0, 1, 1, -1], [1, -1, -1, -1]]), np.array([[1, 1, 0, 0], [0, 0, 0, 0]])
    rates = classification_rates(*two, average="none")
    assert rates.precision.tolist() == [0.5, 1, 0, 0]
    assert rates.specificity.tolist() == [0, 1, 0.5, 1]
    assert rates.negative_predictive_value.tolist() == [0, 1, 1, 1]


def test_unknown_labels_are_left_out():
    scores, right = multi_label(2)
    rng = np.random.default_rng(9)
    unknown = rng.random(right.shape) < 0.2
    with_gaps = np.where(unknown, np.nan, right)
    for measure in (f_score, hamming_error, label_average_precision):
        np.testing.assert_allclose(measure(scores, with_gaps), measure(scores, right, ~unknown))
    by_label = label_average_precision(scores, with_gaps, average="none")
    for k in range(5):
        kept = ~unknown[:, k]
        assert by_label[k] == pytest.approx(metrics.average_precision_score(right[kept, k], scores[kept, k]))


def test_empty_labels_and_lists():
    scores = np.array([[-1.0, -1.0], [-1.0, 1.0]])
    right = np.array([[0, 0], [0, 1]])
    assert f_score(scores, right) == 0.5
    assert f_score(scores, right, zero_division=np.nan) == 1
    assert label_average_precision(scores, right) == 1
    assert np.isnan(label_average_precision(scores, right, average="none")[0])
    assert jaccard_accuracy(scores, right).tolist() == [1, 1]
    none = np.zeros((3, 0))
    assert jaccard_accuracy(none, none).tolist() == [1, 1, 1]
    assert f_score(none, none) == label_average_precision(none, none) == multiclass_auc(none, none) == 0
    assert confusion_matrix(none, np.zeros(3, dtype=int), np.zeros(3, dtype=bool)).shape == (0, 0)
    assert multiclass_auc(np.ones((3, 2)), np.array([1, 1, 1]), scheme="ovo") == 0


def test_forms_agree():
    scores, labels = classes(5)
    mask = np.random.default_rng(0).random(len(labels)) < 0.7
    left = scores[mask], labels[mask]
    for measure in (f_score, multiclass_auc, confusion_matrix, label_average_precision):
        np.testing.assert_allclose(measure(scores, labels, mask), measure(*left))
    tensors = torch.tensor(scores), torch.tensor(labels), torch.tensor(mask)
    assert isinstance(f_score(*tensors), torch.Tensor)
    np.testing.assert_array_equal(confusion_matrix(*tensors).numpy(), confusion_matrix(*left))
    ranked = np.random.default_rng(1).standard_normal((4, 6))
    right = ranked.round() > 0
    np.testing.assert_allclose(
        label_average_precision(ranked, right, average="lists"), average_precision(ranked, right), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, y: f_score(s, y, average="samples"), "average is 'samples'"),
        (lambda s, y: f_score(s, y, beta=0), "beta is 0"),
        (lambda s, y: f_score(s, y + 3), "class 3; the scores have the classes 0 to 1"),
        (lambda s, y: f_score(s, y - 1), "class -1"),
        (lambda s, y: f_score(s, y.astype(float)), "whole class numbers"),
        (lambda s, y: f_score(s, y[:1]), "relevance has shape"),
        (lambda s, y: f_score(s, y, np.ones((2, 2), dtype=bool)), "mask must be bool of the shape of the class"),
        (lambda s, y: f_score(s, y, relevance_level=0), "relevance_level is 0"),
        (lambda s, y: confusion_matrix(s, np.eye(2)), "one class number a list"),
        (lambda s, y: multiclass_auc(s, y, scheme="ovx"), "scheme is 'ovx'"),
        (lambda s, y: multiclass_auc(s, y, average="micro"), "average is 'micro'"),
        (lambda s, y: label_average_precision(s, y, average="all"), "average is 'all'"),
        (lambda s, y: classification_rates(s * np.nan, y), "NaN"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(RivalsError, match=message):
        call(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([0, 1]))
