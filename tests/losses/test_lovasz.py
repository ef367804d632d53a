"""Lovász losses against the definition of the extension, with sets, and against the Jaccard index of scikit-learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import lovasz_hinge_loss, lovasz_softmax_loss

GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(4, 6, generator=GENERATOR, dtype=torch.float64)
RELEVANCE = (torch.rand(4, 6, generator=GENERATOR) < 0.4).double()
MASK = torch.rand(4, 6, generator=GENERATOR) < 0.8


def extension(errors: list[float], labels: list[float]) -> float:
    """The extension of one minus Jaccard at a vector of errors: mispredicted sets grow from the largest error on."""
    truth = {i for i, label in enumerate(labels) if label}

    def lost(wrong: set[int]) -> float:
        union = truth | wrong
        return 1 - len(truth - wrong) / len(union) if union else 0.0

    total, wrong = 0.0, set()
    for place in sorted(range(len(errors)), key=lambda i: -errors[i]):
        total += errors[place] * (lost(wrong | {place}) - lost(wrong))
        wrong = wrong | {place}
    return total


def hinge(scores: Tensor, labels: Tensor) -> float:
    errors = [max(0.0, 1 - (s if y else -s)) for s, y in zip(scores.tolist(), labels.tolist(), strict=True)]
    return extension(errors, labels.tolist())


def test_every_level_is_the_extension_of_its_sets() -> None:
    def of(select: Any) -> float:
        kept = MASK[select]
        return hinge(SCORES[select][kept], RELEVANCE[select][kept])

    def loss(level: Any) -> Tensor:
        return lovasz_hinge_loss(SCORES, RELEVANCE, MASK, level=level, reduction="none")

    assert loss("list").tolist() == pytest.approx([of(i) for i in range(4)])
    assert loss("label").tolist() == pytest.approx([of((slice(None), k)) for k in range(6)])
    assert loss("set").item() == pytest.approx(of(...))
    mean = lovasz_hinge_loss(SCORES, RELEVANCE, MASK)
    assert mean.item() == pytest.approx(sum(of(i) for i in range(4)) / 4)


def test_hard_scores_cost_twice_one_minus_jaccard() -> None:
    predicted = (SCORES > 0).double()
    for scores, labels in zip(predicted, RELEVANCE, strict=True):
        expected = 1 - jaccard_score(labels.numpy(), scores.numpy(), zero_division=1)
        assert lovasz_hinge_loss(2 * scores - 1, labels).item() == pytest.approx(2 * expected)


def test_without_a_positive_the_largest_error_counts() -> None:
    scores = torch.tensor([0.3, 2.0, -5.0], requires_grad=True)
    loss = lovasz_hinge_loss(scores, torch.zeros(3))
    assert loss.item() == pytest.approx(3.0)
    assert torch.autograd.grad(loss, scores)[0].tolist() == [0, 1, 0]


def test_a_weight_of_two_is_the_candidate_twice() -> None:
    weight = torch.ones_like(SCORES)
    weight[:, 2] = 2
    weight[:, 3] = 0
    columns = [0, 1, 2, 2, 4, 5]
    expected = lovasz_hinge_loss(SCORES[:, columns], RELEVANCE[:, columns])
    assert lovasz_hinge_loss(SCORES, RELEVANCE, weight=weight).item() == pytest.approx(expected.item())


def test_softmax_form_is_the_mean_extension_over_classes() -> None:
    labels, mask = torch.tensor([0, 2, 2, 0]), torch.tensor([True, True, False, True])
    p = SCORES.softmax(1)[mask]
    y = torch.nn.functional.one_hot(labels[mask], 6)
    terms = [extension((y[:, k] - p[:, k]).abs().tolist(), y[:, k].tolist()) for k in range(6)]
    found = lovasz_softmax_loss(SCORES, labels, mask)
    assert found.item() == pytest.approx((terms[0] + terms[2]) / 2)
    assert lovasz_softmax_loss(SCORES, labels, mask, classes="all").item() == pytest.approx(sum(terms) / 6)


def test_softmax_form_on_hard_predictions() -> None:
    labels, predicted = torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([0, 2, 2, 1, 1, 1])
    logits = torch.nn.functional.one_hot(predicted, 3) * 1e4
    expected = 1 - jaccard_score(labels.numpy(), predicted.numpy(), average="macro")
    assert lovasz_softmax_loss(logits.double(), labels).item() == pytest.approx(expected)


def test_softmax_form_with_weights() -> None:
    labels, weight = torch.tensor([0, 2, 2, 1]), torch.tensor([1.0, 2.0, 1.0, 0.0])
    rows = [0, 1, 1, 2]
    expected = lovasz_softmax_loss(SCORES[rows], labels[rows])
    assert lovasz_softmax_loss(SCORES, labels, weight=weight).item() == pytest.approx(expected.item())


def test_bad_options() -> None:
    with pytest.raises(RivalsError, match="level"):
        lovasz_hinge_loss(SCORES, RELEVANCE, level="image")  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="classes"):
        lovasz_softmax_loss(SCORES, torch.zeros(4, dtype=torch.int64), classes="some")  # type: ignore[arg-type]
