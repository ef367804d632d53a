"""The pairwise logistic loss: hand-computed values, weights, reductions."""

from __future__ import annotations

import math

import pytest
import torch

from rivals.errors import RivalsError
from rivals.losses import pairwise_logistic_loss


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


SCORES, RELEVANCE = rows([1, 0, 3], [2, 2, 0]), rows([2, 0, 1], [1, 0, 0])
PAIRS = [softplus(-1), softplus(2), softplus(-3)], [softplus(0), softplus(-2)]  # by list: better minus worse, negated


def test_equal_scores() -> None:
    assert pairwise_logistic_loss(rows([0, 0, 0]), rows([1, 0, 0])).item() == pytest.approx(math.log(2))


def test_reductions() -> None:
    first, second = (sum(pairs) for pairs in PAIRS)

    def loss(reduction: str) -> torch.Tensor:
        return pairwise_logistic_loss(SCORES, RELEVANCE, reduction=reduction)  # type: ignore[arg-type]

    assert loss("mean").item() == pytest.approx((first + second) / 5)
    assert loss("sum").item() == pytest.approx(first + second)
    assert loss("none").tolist() == pytest.approx([first, second])
    assert loss("list_mean").item() == pytest.approx((first / 3 + second / 2) / 2)


def test_no_pair_is_worth_zero_with_zero_gradient() -> None:
    scores = rows([1, 2]).requires_grad_()
    for reduction in ("mean", "sum", "list_mean"):
        loss = pairwise_logistic_loss(scores, rows([1, 1]), reduction=reduction)
        assert loss.item() == 0
        assert torch.autograd.grad(loss, scores)[0].tolist() == [[0, 0]]


def test_weights_of_candidates_and_of_pairs() -> None:
    weight = rows([2, 1, 1], [1, 3, 1])
    expected = (2 * PAIRS[0][0] + 2 * PAIRS[0][1] + PAIRS[0][2] + 3 * PAIRS[1][0] + PAIRS[1][1]) / 5
    assert pairwise_logistic_loss(SCORES, RELEVANCE, weight=weight).item() == pytest.approx(expected)
    pair_weight = torch.ones(2, 3, 3, dtype=torch.float64)
    pair_weight[1, 0, 1] = 3  # the pair (better 0, worse 1)
    pair_weight[0, 1, 0] = float("nan")  # not a pair: never read
    expected = (sum(PAIRS[0]) + 3 * PAIRS[1][0] + PAIRS[1][1]) / 5
    assert pairwise_logistic_loss(SCORES, RELEVANCE, pair_weight=pair_weight).item() == pytest.approx(expected)


def test_a_selection_weighted_pair() -> None:
    """Paper 5, check 2: one pair (1, 0) weighted by 1 + e^0 = 2."""
    scores = rows([1, 0]).requires_grad_()
    loss = pairwise_logistic_loss(scores, rows([1, 0]), weight=rows([1, 2]))
    assert loss.item() == pytest.approx(0.626523375, abs=1e-9)
    assert torch.autograd.grad(loss, scores)[0][0].tolist() == pytest.approx([-0.537882843, 0.537882843], abs=1e-9)


@pytest.mark.parametrize(
    "pair_weight", [torch.ones(2, 3), -torch.ones(2, 3, 3), torch.full((2, 3, 3), float("nan"))], ids=str
)
def test_bad_pair_weights(pair_weight: torch.Tensor) -> None:
    with pytest.raises(RivalsError, match="pair_weight"):
        pairwise_logistic_loss(SCORES, RELEVANCE, pair_weight=pair_weight)
