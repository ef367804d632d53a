"""Softmax, poly-1, ListNet, ListMLE and list-wise circle losses: hand-computed values, limits and identities."""

from __future__ import annotations

import math

import pytest
import torch

from rivals.errors import RivalsError
from rivals.losses import (
    binary_cross_entropy_loss,
    circle_ranking_loss,
    info_nce_loss,
    list_mle_loss,
    list_net_loss,
    listwise_kl_loss,
    pair_and_list_loss,
    pairwise_logistic_loss,
    poly1_softmax_loss,
    softmax_loss,
)


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


# ---------------------------------------------------------------------------------- ListNet


def test_list_net_is_the_cross_entropy_of_two_softmaxes() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    relevance = torch.randint(0, 4, (3, 5), generator=generator).double()
    expected = -(relevance.softmax(1) * scores.log_softmax(1)).sum(1).mean()
    assert list_net_loss(scores, relevance).item() == pytest.approx(expected.item(), abs=1e-12)
    hot = list_net_loss(scores, relevance, temperature=0.5, label_temperature=2.0)
    expected = -((relevance / 2).softmax(1) * (scores * 2).log_softmax(1)).sum(1).mean()
    assert hot.item() == pytest.approx(expected.item(), abs=1e-12)


def test_list_net_has_the_gradient_of_the_divergence_from_the_labels() -> None:
    scores, relevance = rows([0.3, -1, 2]).requires_grad_(), rows([2, 0, 1])
    (ours,) = torch.autograd.grad(list_net_loss(scores, relevance), scores)
    (divergence,) = torch.autograd.grad(listwise_kl_loss(scores, relevance), scores)
    torch.testing.assert_close(ours, divergence, rtol=0, atol=1e-14)


def test_list_net_without_a_positive_has_an_even_target() -> None:
    scores = rows([1, 0])
    assert list_net_loss(scores, rows([0, 0])).item() == pytest.approx(-scores.log_softmax(1).mean().item())


# ---------------------------------------------------------------------------------- ListMLE


def list_mle_by_loops(scores: list[float], order: list[int]) -> float:
    total = 0.0
    for place, item in enumerate(order):
        total += math.log(sum(math.exp(scores[j]) for j in order[place:])) - scores[item]
    return total


def test_list_mle_by_hand() -> None:
    three = list_mle_loss(rows([3, 1, 2]), rows([2, 0, 1]))
    assert three.item() == pytest.approx(0.407606 + 0.313262, abs=1e-6)
    four = list_mle_loss(rows([3, 1, 2, 0]), rows([3, 1, 2, 0]))
    assert four.item() == pytest.approx(1.161057, abs=1e-6)


def test_list_mle_against_loops_with_absent_candidates() -> None:
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    relevance = torch.stack([torch.randperm(6, generator=generator) for _ in range(4)]).double()
    mask = torch.rand(4, 6, generator=generator) < 0.7
    mask[0] = True
    found = list_mle_loss(scores, relevance, mask, reduction="none")
    for row in range(4):
        there = mask[row].nonzero()[:, 0].tolist()
        order = sorted(there, key=lambda item: -relevance[row, item].item())
        assert found[row].item() == pytest.approx(list_mle_by_loops(scores[row].tolist(), order), abs=1e-12)


def test_list_mle_of_two_is_pairwise_and_of_one_step_is_softmax() -> None:
    assert list_mle_loss(rows([2, 0]), rows([1, 0])).item() == pytest.approx(
        pairwise_logistic_loss(rows([2, 0]), rows([1, 0])).item()
    )
    scores, relevance = rows([0.5, -1, 2, 1]), rows([0, 3, 1, 2])
    assert list_mle_loss(scores, relevance, k=1).item() == pytest.approx(
        softmax_loss(scores, rows([0, 1, 0, 0])).item()
    )
    full = list_mle_loss(scores, relevance)
    assert list_mle_loss(scores, relevance, k=3).item() == pytest.approx(full.item())
    assert list_mle_loss(scores, relevance, k=99).item() == full.item()


def test_list_mle_only_looks_at_the_order() -> None:
    scores = rows([0.5, -1, 2])
    one, other = (list_mle_loss(scores, rows(labels)) for labels in ([0.99, 0.5, 0.01], [0.51, 0.5, 0.49]))
    assert one.item() == other.item()


def test_list_mle_ties() -> None:
    scores, relevance = rows([1, 3, 2]), rows([1, 1, 0])
    by_score = list_mle_by_loops([1, 3, 2], [1, 0, 2])
    as_given = list_mle_by_loops([1, 3, 2], [0, 1, 2])
    assert list_mle_loss(scores, relevance).item() == pytest.approx(by_score)
    assert list_mle_loss(scores, relevance, ties="order").item() == pytest.approx(as_given)
    without_first = math.log(math.exp(1) + math.exp(2)) - 1
    assert list_mle_loss(scores, relevance, ties="skip").item() == pytest.approx(without_first)
    drawn = {
        round(list_mle_loss(scores, relevance, ties="shuffle", generator=torch.Generator().manual_seed(seed)).item(), 9)
        for seed in range(20)
    }
    assert drawn == {round(by_score, 9), round(as_given, 9)}
    with pytest.raises(RivalsError, match="generator"):
        list_mle_loss(scores, relevance, ties="shuffle")


def test_list_mle_weights_the_steps() -> None:
    scores, relevance, weight = rows([3, 1, 2]), rows([2, 0, 1]), rows([0, 5, 2])
    assert list_mle_loss(scores, relevance, weight=weight).item() == pytest.approx(2 * 0.31326168751, abs=1e-9)


def test_list_mle_of_a_long_list_is_stable() -> None:
    scores = torch.linspace(-1e4, 1e4, 4000).requires_grad_()
    loss = list_mle_loss(scores, torch.arange(4000.0, 0, -1))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(scores.grad).all()
    assert scores.grad.sum().abs() < 1e-3 * scores.grad.abs().sum()


@pytest.mark.parametrize(
    ("option", "name"), [({"k": 0}, "k"), ({"ties": "mean"}, "ties"), ({"temperature": 0}, "temp")]
)
def test_list_mle_refuses(option: dict[str, object], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        list_mle_loss(rows([0, 1]), rows([0, 1]), **option)


# ---------------------------------------------------------------------------------- pair and list, circle


def test_pair_and_list_adds_three_terms() -> None:
    scores, relevance = rows([0.2, 1.5, -0.3, 0.4]), rows([0, 1, 0, 0])
    mask = torch.tensor([[False, True, True, True]])
    alone = binary_cross_entropy_loss(scores[:, 1:2], rows([1])) + binary_cross_entropy_loss(scores[:, 2:3], rows([0]))
    listed = softmax_loss(scores, relevance, mask)
    assert pair_and_list_loss(scores, relevance, mask).item() == pytest.approx((alone + listed).item(), abs=1e-12)
    two = pair_and_list_loss(scores, rows([1, 1, 0, 0]))
    expected = (math.log1p(math.exp(-0.2)) + math.log1p(math.exp(-1.5))) / 2 + math.log1p(math.exp(-0.3))
    expected -= scores.log_softmax(1)[0, :2].mean().item()
    assert two.item() == pytest.approx(expected, abs=1e-12)
    assert pair_and_list_loss(scores, rows([0, 0, 0, 0])) == 0


def circle(scores: torch.Tensor, relevance: torch.Tensor, **options: float) -> torch.Tensor:
    return circle_ranking_loss(scores, relevance, apply_sigmoid=False, **options)


def test_circle_by_hand() -> None:
    assert circle(rows([0.4, 0.6]), rows([1, 0])).item() == pytest.approx(6.4016601784, abs=1e-9)
    logits = rows([0.4, 0.6]).logit()
    assert circle_ranking_loss(logits, rows([1, 0])).item() == pytest.approx(6.4016601784, abs=1e-9)


def test_circle_lets_go_of_what_is_good_enough() -> None:
    scores = rows([0.8, 0.9, 1.0, 0.2, 0.1]).requires_grad_()
    loss = circle(scores, rows([1, 1, 1, 0, 0]))
    assert loss.item() == pytest.approx(math.log(7), abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert (gradient == 0).all()


def test_circle_gradient_is_that_of_constant_pulls() -> None:
    scores = rows([0.4, 0.7, 0.6, 0.3]).requires_grad_()
    loss = circle(scores, rows([1, 1, 0, 0]))
    (gradient,) = torch.autograd.grad(loss, scores)
    x = scores.detach()[0]
    pull, push = (0.8 - x[:2]).clamp(min=0), (x[2:] - 0.2).clamp(min=0)
    logit_p, logit_n = -10 * pull * (x[:2] - 1.2), 10 * push * (x[2:] + 0.2)
    z = torch.sigmoid(logit_p.logsumexp(0) + logit_n.logsumexp(0))
    expected = torch.cat([-z * logit_p.softmax(0) * 10 * pull, z * logit_n.softmax(0) * 10 * push])
    torch.testing.assert_close(gradient[0], expected, rtol=0, atol=1e-12)


def test_circle_leaves_out_lists_of_one_kind_and_refuses_what_is_no_probability() -> None:
    lone = circle(rows([0.4, 0.6], [0.4, 0.6], [0.1, 0.2]), rows([1, 0], [1, 1], [0, 0]))
    assert lone.item() == pytest.approx(6.4016601784, abs=1e-9)
    with pytest.raises(RivalsError, match="scores must lie"):
        circle(rows([0.4, 1.6]), rows([1, 0]))
    with pytest.raises(RivalsError, match="scale"):
        circle(rows([0.4, 0.6]), rows([1, 0]), scale=0)
