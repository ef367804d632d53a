"""The point-wise cross entropy: hand-computed values, threshold, reductions."""

from __future__ import annotations

import math

import pytest
import torch

from rivals.errors import RivalsError
from rivals.losses import binary_cross_entropy_loss


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_equal_scores() -> None:
    assert binary_cross_entropy_loss(rows([0, 0, 0]), rows([1, 0, 0])).item() == pytest.approx(math.log(2))


def test_values_and_reductions() -> None:
    scores, relevance = rows([2, -1], [0.5, 9]), rows([1, 0], [0, 1])
    mask = torch.tensor([[True, True], [True, False]])
    terms = [math.log1p(math.exp(-2)), math.log1p(math.exp(-1)), math.log1p(math.exp(0.5))]

    def loss(reduction: str) -> torch.Tensor:
        return binary_cross_entropy_loss(scores, relevance, mask, reduction=reduction)  # type: ignore[arg-type]

    assert loss("mean").item() == pytest.approx(sum(terms) / 3)
    assert loss("none").tolist() == pytest.approx([terms[0] + terms[1], terms[2]])
    assert loss("list_mean").item() == pytest.approx(((terms[0] + terms[1]) / 2 + terms[2]) / 2)


def test_equals_the_loss_of_torch_far_from_zero() -> None:
    scores, relevance = rows([800, -800, 30]), rows([0, 1, 1])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(scores, relevance)
    assert binary_cross_entropy_loss(scores, relevance).item() == pytest.approx(expected.item(), rel=1e-14)


def test_threshold_and_weight() -> None:
    scores, relevance = rows([1, 1]), rows([1, 2])
    expected = (math.log1p(math.e) + 4 * math.log1p(math.exp(-1))) / 2
    found = binary_cross_entropy_loss(scores, relevance, threshold=1.0, weight=rows([1, 4]))
    assert found.item() == pytest.approx(expected)


def test_a_constant_does_change_it() -> None:
    scores, relevance = rows([1, 0]), rows([1, 0])
    difference = binary_cross_entropy_loss(scores + 1, relevance) - binary_cross_entropy_loss(scores, relevance)
    assert difference.abs().item() > 0.01


def test_threshold_must_be_finite() -> None:
    with pytest.raises(RivalsError, match="threshold"):
        binary_cross_entropy_loss(rows([1, 0]), rows([1, 0]), threshold=float("nan"))
