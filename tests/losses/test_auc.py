"""The Mann-Whitney loss: the values of paper 17's card, its bounds, and pairs counted one by one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import info_nce_loss, mann_whitney_loss, pairwise_logistic_loss


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SCORES, RELEVANCE = rows([1, 0.8], [0.5, 0]), rows([1, 0], [1, 0])


def test_the_values_of_the_card() -> None:
    assert mann_whitney_loss(SCORES, RELEVANCE).item() == pytest.approx(0.5599581963871121, abs=1e-12)
    added = mann_whitney_loss(SCORES, RELEVANCE, average="positives")
    assert added.item() == pytest.approx(1.1199163927742242, abs=1e-12)
    cold = mann_whitney_loss(SCORES, RELEVANCE, temperature=0.1)
    assert cold.item() == pytest.approx(0.7955690275012626, abs=1e-12)


def by_pairs(scores: Tensor, relevance: Tensor, mask: Tensor, weight: Tensor, phi: Any, graded: bool) -> list[float]:
    """Sum over pairs, total weight of pairs, and weight of the candidates that are the better one of a pair."""
    pool = [
        (s, y if graded else float(y > 0), w)
        for s, y, m, w in zip(scores.flatten(), relevance.flatten(), mask.flatten(), weight.flatten(), strict=True)
        if m
    ]
    total = count = better = 0.0
    for s, y, w in pool:
        worse = [(t, v) for t, z, v in pool if y > z]
        total += sum(float(w * v * phi(s - t)) for t, v in worse)
        count += float(w) * sum(float(v) for _, v in worse)
        better += float(w) * (sum(float(v) for _, v in worse) > 0)
    return [total, count, better]


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("surrogate", ["logistic", "hinge", "squared_hinge"])
def test_equals_pairs_counted_one_by_one(surrogate: Any, graded: bool) -> None:
    scores, relevance = normal(3, 7), (normal(3, 7, seed=1) * 2).round().clamp(min=0)
    mask, weight = normal(3, 7, seed=2) > -1, normal(3, 7, seed=3).abs()
    kernel: dict[str, Any] = {
        "logistic": lambda d: F.softplus(-d / 0.5),
        "hinge": lambda d: F.relu(0.7 - d / 0.5),
        "squared_hinge": lambda d: F.relu(0.7 - d / 0.5) ** 2,
    }
    options: dict[str, Any] = {"temperature": 0.5, "surrogate": surrogate, "margin": 0.7, "graded": graded}
    for given in (None, weight):
        used = torch.ones_like(scores) if given is None else given
        total, count, better = by_pairs(scores, relevance, mask, used, kernel[surrogate], graded)
        found = mann_whitney_loss(scores, relevance, mask, weight=given, **options)
        assert found.item() == pytest.approx(total / count, rel=1e-9)
        added = mann_whitney_loss(scores, relevance, mask, weight=given, **options, average="positives")
        assert added.item() == pytest.approx(total / better, rel=1e-9)


def test_it_notices_what_infonce_does_not() -> None:
    scores, relevance = normal(4, 6), torch.eye(4, 6)
    lifted = scores + torch.tensor([[1.0], [0.0], [-2.0], [0.5]])
    assert info_nce_loss(lifted, relevance).item() == pytest.approx(info_nce_loss(scores, relevance).item(), abs=1e-12)
    assert abs(mann_whitney_loss(lifted, relevance) - mann_whitney_loss(scores, relevance)) > 0.01
    everywhere = mann_whitney_loss(scores + 3.0, relevance)
    assert everywhere.item() == pytest.approx(mann_whitney_loss(scores, relevance).item(), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0, 10.0])
def test_it_bounds_one_minus_the_pooled_auc(temperature: float) -> None:
    for seed in range(50):
        scores, relevance = normal(3, 5, seed=seed), torch.eye(3, 5)
        missed = (scores[relevance > 0][:, None] < scores[relevance == 0]).double().mean()
        assert missed <= mann_whitney_loss(scores, relevance, temperature=temperature) / math.log(2) + 1e-12


def test_limits() -> None:
    one = normal(1, 6), torch.tensor([[1, 0, 1, 0, 0, 0]])
    assert mann_whitney_loss(*one).item() == pytest.approx(pairwise_logistic_loss(*one).item(), abs=1e-12)
    assert mann_whitney_loss(torch.zeros(2, 3), torch.eye(2, 3)).item() == pytest.approx(math.log(2))
    assert mann_whitney_loss(rows([3, 1], [2, 0]), rows([1, 0], [1, 0]), temperature=1e-3).item() < 1e-300
    for relevance in (torch.ones(2, 2), torch.zeros(2, 2)):
        scores = SCORES.clone().requires_grad_()
        loss = mann_whitney_loss(scores, relevance)
        assert loss.item() == 0
        assert (torch.autograd.grad(loss, scores)[0] == 0).all()


@pytest.mark.parametrize("surrogate", ["logistic", "hinge", "squared_hinge"])
def test_gradients_raise_positives_and_lower_negatives(surrogate: Any) -> None:
    scores, relevance, mask = normal(8, 40).requires_grad_(), torch.eye(8, 40), normal(8, 40, seed=1) > -1
    relevance[~mask] = 0
    loss = mann_whitney_loss(scores, relevance, mask, surrogate=surrogate)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert (gradient[relevance > 0] <= 0).all()
    assert (gradient[relevance == 0] >= 0).all()
    assert (gradient[~mask] == 0).all()
    assert abs(gradient.sum()) < 1e-12


def test_the_blocked_sum_is_the_whole_one() -> None:
    """A pool too large for the readable version, against one that is written out."""
    scores, relevance = normal(20, 60).requires_grad_(), torch.eye(20, 60)
    loss = mann_whitney_loss(scores, relevance, temperature=0.05)
    whole = -F.logsigmoid((scores[relevance > 0][:, None] - scores[relevance == 0]) / 0.05).mean()
    assert loss.item() == pytest.approx(whole.item(), rel=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(value, scores)[0] for value in (loss, whole)))


def test_a_weight_of_two_is_the_candidate_twice() -> None:
    weight = rows([1, 2], [2, 1])
    twice = mann_whitney_loss(rows([1, 0.8, 0.8], [0.5, 0, 0.5]), rows([1, 0, 0], [1, 0, 1]))
    assert mann_whitney_loss(SCORES, RELEVANCE, weight=weight).item() == pytest.approx(twice.item(), abs=1e-12)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"surrogate": "square"}, "surrogate"),
        ({"average": "all"}, "average"),
        ({"margin": float("inf")}, "margin"),
    ],
)
def test_bad_options(options: dict[str, Any], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        mann_whitney_loss(SCORES, RELEVANCE, **options)
