"""Softmax and poly-1 losses: the values of paper 6's card, and what they have in common with other losses."""

from __future__ import annotations

import math

import pytest
import torch

from rivals.errors import RivalsError
from rivals.losses import info_nce_loss, pairwise_logistic_loss, poly1_softmax_loss, softmax_loss


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_equal_scores() -> None:
    scores, relevance = rows([0, 0, 0]), rows([1, 0, 0])
    assert softmax_loss(scores, relevance).item() == pytest.approx(math.log(3), abs=1e-12)
    assert poly1_softmax_loss(scores, relevance).item() == pytest.approx(math.log(3) + 2 / 3, abs=1e-12)


def test_two_candidates_are_a_logistic_loss_gradient_too() -> None:
    scores, relevance = rows([2, 0]).requires_grad_(), rows([1, 0])
    loss = softmax_loss(scores, relevance)
    assert loss.item() == pytest.approx(0.1269280110429726, abs=1e-12)
    (listwise,) = torch.autograd.grad(loss, scores)
    (pairwise,) = torch.autograd.grad(pairwise_logistic_loss(scores, relevance), scores)
    torch.testing.assert_close(listwise, pairwise, rtol=0, atol=1e-15)


def test_labels_are_normalised_only_when_asked() -> None:
    scores, relevance = rows([0, 0]), rows([2, 0])
    assert softmax_loss(scores, relevance).item() == pytest.approx(2 * math.log(2))
    assert softmax_loss(scores, relevance, normalize_labels=True).item() == pytest.approx(math.log(2))


def test_a_list_without_a_positive_counts_in_the_mean_and_an_absent_one_does_not() -> None:
    scores, relevance = rows([0, 0], [5, 1], [1, 1]), rows([1, 0], [0, 0], [1, 0])
    mask = torch.tensor([[True, True], [True, True], [False, False]])
    assert softmax_loss(scores, relevance, mask).item() == pytest.approx(math.log(2) / 2)
    half = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    uniform = 1 - (half * scores[1:2].softmax(1)).sum().item()  # no positive: the labels of the second term are uniform
    expected = (math.log(2) + 0.5 + uniform) / 2
    assert poly1_softmax_loss(scores, relevance, mask).item() == pytest.approx(expected)


def test_epsilon_zero_is_softmax_and_one_positive_is_info_nce() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    relevance = torch.nn.functional.one_hot(torch.arange(5), 7).double()
    mask = (torch.rand(5, 7, generator=generator) < 0.8) | (relevance > 0)
    softmax = softmax_loss(scores, relevance, mask, temperature=0.3)
    assert info_nce_loss(scores, relevance, mask, temperature=0.3).item() == pytest.approx(softmax.item(), abs=1e-12)
    plain = softmax_loss(scores, relevance, mask)
    assert poly1_softmax_loss(scores, relevance, mask, epsilon=0).item() == pytest.approx(plain.item(), abs=1e-12)


def test_weight_multiplies_relevance() -> None:
    scores, relevance, weight = rows([1, 2, 3]), rows([1, 1, 0]), rows([0.5, 2, 9])
    expected = softmax_loss(scores, relevance * weight)
    assert softmax_loss(scores, relevance, weight=weight).item() == pytest.approx(expected.item())


def test_leading_dimensions_are_kept() -> None:
    scores, relevance = torch.randn(2, 3, 4), torch.eye(4)[:3].expand(2, 3, 4)
    assert softmax_loss(scores, relevance, reduction="none").shape == (2, 3)
    assert softmax_loss(scores[0, 0], relevance[0, 0]).ndim == 0


def test_a_nan_score_of_a_real_candidate_is_not_hidden() -> None:
    assert softmax_loss(rows([float("nan"), 0]), rows([1, 0])).isnan()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperature_must_be_above_zero(temperature: float) -> None:
    with pytest.raises(RivalsError, match="temperature"):
        softmax_loss(rows([0, 0]), rows([1, 0]), temperature=temperature)


def test_epsilon_must_not_be_negative() -> None:
    with pytest.raises(RivalsError, match="epsilon"):
        poly1_softmax_loss(rows([0, 0]), rows([1, 0]), epsilon=-0.1)
