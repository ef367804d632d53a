"""AR2's retriever loss (paper 11): the card's checks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import adversarial_feedback, adversarial_retriever_loss, listwise_kl_loss, softmax_loss


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def first_positive(scores: Tensor) -> Tensor:
    return torch.zeros_like(scores).index_fill(1, torch.tensor([0]), 1.0)


def test_an_undecided_ranker_by_hand() -> None:
    scores, relevance = rows([0, 0]), rows([1, 0])
    half = math.log(0.5 + 1e-7)
    assert adversarial_feedback(scores, relevance).tolist() == [pytest.approx([half, half])]
    loss = adversarial_retriever_loss(scores, relevance, ranker_scores=scores, adv_lambda=1.0)
    assert loss.item() == pytest.approx(2 * math.log(2) ** 2, abs=1e-6)
    assert loss.item() == pytest.approx(2 * half**2, abs=1e-12)


def test_against_the_formula() -> None:
    scores, ranker = randn(3, 5), randn(3, 5, seed=1) * 3
    log_p = (scores.softmax(1) + 1e-7).log()
    reward = (torch.sigmoid(ranker[:, :1] - ranker) + 1e-7).log()
    adversarial = (reward * log_p).sum()
    for temperature in (1.0, 3.0):
        imitation = -((ranker / temperature).softmax(1) * log_p).sum(1).mean()
        for share in (0.0, 0.3, 1.0):
            found = adversarial_retriever_loss(
                scores, first_positive(scores), ranker_scores=ranker, adv_lambda=share, temperature=temperature
            )
            assert found.item() == pytest.approx((share * adversarial + (1 - share) * imitation).item(), rel=1e-12)
    mean = adversarial_retriever_loss(
        scores, first_positive(scores), ranker_scores=ranker, adv_lambda=1.0, adversarial_reduction="mean"
    )
    assert mean.item() == pytest.approx(adversarial.item() / 3)


def test_a_sure_ranker_without_the_adversary_is_the_contrastive_loss() -> None:
    scores = randn(2, 4)
    sure = first_positive(scores) * 1e3
    loss = adversarial_retriever_loss(scores, first_positive(scores), ranker_scores=sure, adv_lambda=0.0, eps=1e-15)
    assert loss.item() == pytest.approx(softmax_loss(scores, first_positive(scores)).item(), abs=1e-9)
    soft = adversarial_retriever_loss(scores, first_positive(scores), ranker_scores=scores * 2, adv_lambda=0.0)
    same = listwise_kl_loss(scores, scores * 2, form="cross_entropy", eps=1e-7)
    assert soft.item() == pytest.approx(same.item(), abs=1e-12)


def test_the_gradient_lifts_what_fools_the_ranker() -> None:
    scores = rows([0, 0]).requires_grad_()
    relevance, ranker = rows([1, 0]), rows([0, 3])
    loss = adversarial_retriever_loss(scores, relevance, ranker_scores=ranker, adv_lambda=1.0)
    (gradient,) = torch.autograd.grad(loss, scores)
    reward, p = adversarial_feedback(ranker, relevance), torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(gradient, reward - p * reward.sum(), rtol=0, atol=1e-5)
    assert gradient[0, 1] < 0


def test_the_ranker_gets_no_gradient() -> None:
    scores, ranker = randn(2, 4).requires_grad_(), randn(2, 4, seed=1).requires_grad_()
    loss = adversarial_retriever_loss(scores, first_positive(scores), ranker_scores=ranker)
    assert torch.autograd.grad(loss, ranker, retain_graph=True, allow_unused=True)[0] is None
    assert (torch.autograd.grad(loss, scores)[0] != 0).any()


def test_twice_the_batch_doubles_the_adversary_only() -> None:
    scores, ranker = randn(2, 4), randn(2, 4, seed=1)

    def loss(times: int, share: float) -> float:
        wide = scores.repeat(times, 1)
        return adversarial_retriever_loss(
            wide, first_positive(wide), ranker_scores=ranker.repeat(times, 1), adv_lambda=share
        ).item()

    assert loss(2, 1.0) == pytest.approx(2 * loss(1, 1.0))
    assert loss(2, 0.0) == pytest.approx(loss(1, 0.0))


def test_several_positives_share_the_feedback() -> None:
    ranker = rows([0.5, -1, 2])
    found = adversarial_feedback(ranker, rows([1, 1, 0]))
    one, other = (adversarial_feedback(ranker, rows(labels)) for labels in ([1, 0, 0], [0, 1, 0]))
    torch.testing.assert_close(found, (one + other) / 2)
    assert (adversarial_feedback(ranker, rows([0, 0, 0])) == 0).all()


def test_a_saturated_ranker_stays_finite() -> None:
    scores = randn(2, 3).requires_grad_()
    ranker = rows([-1e4, 1e4, 0], [1e4, -1e4, 0])
    loss = adversarial_retriever_loss(scores, first_positive(scores), ranker_scores=ranker)
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, scores)[0]).all()
    assert adversarial_feedback(ranker, first_positive(scores))[0, 1].item() == pytest.approx(math.log(1e-7))


def test_bad_input_is_named() -> None:
    scores = randn(2, 3)
    for options, name in (
        ({"adv_lambda": 1.5}, "adv_lambda"),
        ({"temperature": 0.0}, "temperature"),
        ({"eps": 0.0}, "eps"),
        ({"adversarial_reduction": "none"}, "adversarial_reduction"),
        ({"ranker_scores": scores[:1]}, "ranker_scores"),
    ):
        with pytest.raises(RivalsError, match=name):
            adversarial_retriever_loss(scores, first_positive(scores), **({"ranker_scores": scores} | options))
