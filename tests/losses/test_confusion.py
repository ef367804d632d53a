"""Measures as losses: the checks of paper 46's card, hard predictions against scikit-learn, levels, custom measures."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from sklearn import metrics
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import confusion_loss, dice_loss, soft_confusion
from rivals.losses.confusion import Metric

GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(5, 6, generator=GENERATOR, dtype=torch.float64)
RELEVANCE = (torch.rand(5, 6, generator=GENERATOR) < 0.4).double()
MASK = torch.rand(5, 6, generator=GENERATOR) < 0.9
HARD, TRUTH = torch.tensor([1.0, 1, 0, 0, 1, 0, 0, 1]), torch.tensor([1.0, 0, 1, 0, 1, 0, 0, 0])

PEERS: dict[str, Any] = {
    "fbeta": lambda y, p: metrics.fbeta_score(y, p, beta=2.0),
    "precision": metrics.precision_score,
    "recall": metrics.recall_score,
    "specificity": lambda y, p: metrics.recall_score(y, p, pos_label=0),
    "accuracy": metrics.accuracy_score,
    "balanced_accuracy": metrics.balanced_accuracy_score,
    "youden": lambda y, p: metrics.balanced_accuracy_score(y, p, adjusted=True),
    "gmean": lambda y, p: math.sqrt(metrics.recall_score(y, p) * metrics.recall_score(y, p, pos_label=0)),
    "gmean_squared": lambda y, p: metrics.recall_score(y, p) * metrics.recall_score(y, p, pos_label=0),
    "mcc": metrics.matthews_corrcoef,
    "jaccard": metrics.jaccard_score,
}


@pytest.mark.parametrize("metric", get_args(Metric))
def test_on_hard_predictions_it_is_the_measure(metric: Any) -> None:
    expected = 1 - PEERS[metric](TRUTH.numpy(), HARD.numpy())
    options: dict[str, Any] = {"metric": metric, "beta": 2.0, "smoothing": 0.0, "activation": None}
    assert confusion_loss(HARD, TRUTH, amplification=None, **options).item() == pytest.approx(expected, abs=1e-6)
    assert confusion_loss(HARD, TRUTH, **options).item() == pytest.approx(expected, abs=1e-6)


def test_even_odds_of_the_card() -> None:
    scores, relevance = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    for metric in ("fbeta", "accuracy", "balanced_accuracy", "gmean"):
        for amplification in (None, 10.0, 73.0):
            loss = confusion_loss(
                scores,
                relevance,
                metric=metric,
                amplification=amplification,
                smoothing=0.0,  # type: ignore[arg-type]
            )
            assert loss.item() == pytest.approx(0.5)
    counts = soft_confusion(torch.full((2,), 0.5), relevance[0])
    assert [count.item() for count in counts] == [0.5, 0.5, 0.5, 0.5]


def test_amplification() -> None:
    p = torch.tensor([0.6, 0.4], dtype=torch.float64)
    amplified = 1 / (1 + math.exp(-1.0))
    assert amplified == pytest.approx(0.7310586, abs=1e-7)
    loss = confusion_loss(p, torch.tensor([1.0, 0.0]), metric="accuracy", amplification=10.0, activation=None)
    assert loss.item() == pytest.approx(1 - amplified)  # both candidates are as right as each other
    moved = confusion_loss(p, torch.tensor([1.0, 0.0]), metric="recall", threshold=0.6, smoothing=0.0, activation=None)
    assert moved.item() == pytest.approx(0.5)


def test_certain_and_right_costs_nothing() -> None:
    relevance = torch.tensor([[1.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    assert confusion_loss((2 * relevance - 1) * 100, relevance, smoothing=0.0).item() < 1e-8


def test_dice_is_f1_without_amplification() -> None:
    plain = dice_loss(SCORES, RELEVANCE, MASK, squared=False, smooth=0.0)
    loss = confusion_loss(SCORES, RELEVANCE, MASK, amplification=None, smoothing=0.0)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-12)


def test_the_gradient_of_accuracy() -> None:
    p = torch.tensor([[0.2, 0.7, 0.4]], dtype=torch.float64, requires_grad=True)
    relevance = torch.tensor([[1.0, 0.0, 0.0]])
    loss = confusion_loss(p, relevance, metric="accuracy", amplification=None, activation=None)
    assert torch.autograd.grad(loss, p)[0][0].tolist() == pytest.approx([-1 / 3, 1 / 3, 1 / 3])


def test_the_limits_of_beta() -> None:
    def loss(metric: Any, beta: float = 1.0) -> float:
        return confusion_loss(SCORES, RELEVANCE, metric=metric, beta=beta, smoothing=0.0).item()

    assert loss("fbeta", 0.0) == pytest.approx(loss("precision"))
    assert loss("fbeta", 1e5) == pytest.approx(loss("recall"), rel=1e-6)


@pytest.mark.parametrize("level", ["set", "list", "label"])
def test_a_measure_of_ones_own(level: Any) -> None:
    def f1(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:
        return 2 * tp / (2 * tp + fp + fn)

    ours = confusion_loss(SCORES, RELEVANCE, MASK, metric=f1, level=level)
    assert ours.item() == pytest.approx(confusion_loss(SCORES, RELEVANCE, MASK, smoothing=0.0, level=level).item())
    with pytest.raises(RivalsError, match="one value a set"):
        confusion_loss(SCORES, RELEVANCE, metric=lambda tp, fp, fn, tn: tp.reshape(1, -1, 1), level=level)


@pytest.mark.parametrize("metric", ["fbeta", "balanced_accuracy", "accuracy", "specificity"])
def test_levels_are_sets_of_their_own(metric: Any) -> None:
    relevance, mask = RELEVANCE.clone(), MASK.clone()
    relevance[0], relevance[1], mask[2] = 0, 1, False  # no positive, no negative, nothing

    def one(select: Any) -> float:
        kept = mask[select]
        return confusion_loss(SCORES[select][kept], relevance[select][kept], metric=metric).item()

    measured = {"fbeta": [1, 3, 4], "balanced_accuracy": [3, 4], "accuracy": [0, 1, 3, 4], "specificity": [0, 3, 4]}
    rows = measured[metric]
    found = confusion_loss(SCORES, relevance, mask, metric=metric, level="list", reduction="none")
    expected = [one(i) if i in rows else 0.0 for i in range(5)]
    assert found.tolist() == pytest.approx(expected)
    mean = confusion_loss(SCORES, relevance, mask, metric=metric, level="list")
    assert mean.item() == pytest.approx(sum(expected) / len(rows))
    columns = confusion_loss(SCORES, relevance, mask, metric=metric, level="label", reduction="none")
    assert columns.tolist() == pytest.approx([one((slice(None), k)) for k in range(6)])


def test_a_batch_without_a_positive_gives_no_signal() -> None:
    scores = torch.zeros(1, 3, requires_grad=True)
    loss = confusion_loss(scores, torch.zeros(1, 3))
    assert loss.item() == 1
    assert torch.autograd.grad(loss, scores)[0].tolist() == [[0, 0, 0]]


def test_soft_counts_with_mask_and_weight() -> None:
    p = torch.tensor([[0.9, 0.4, 0.3, float("nan")]])
    relevance, mask = torch.tensor([[2.0, 1.0, 0.0, 0.0]]), torch.tensor([[True, True, True, False]])
    counts = soft_confusion(p, relevance, mask, weight=torch.tensor([[1.0, 2.0, 3.0, 1.0]]))
    assert [count.item() for count in counts] == pytest.approx([1.7, 0.9, 1.3, 2.1])
    with pytest.raises(RivalsError, match="probabilities"):
        soft_confusion(torch.tensor([1.5]), torch.ones(1))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"metric": "f3"}, "metric"),
        ({"amplification": 0.0}, "amplification"),
        ({"threshold": 1.0}, "threshold"),
        ({"beta": -1.0}, "beta"),
        ({"smoothing": -1.0}, "smoothing"),
        ({"level": "macro"}, "level"),
        ({"activation": None}, "scores"),
    ],
)
def test_bad_options(options: dict[str, Any], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        confusion_loss(SCORES, RELEVANCE, **options)
