"""Multi-similarity, circle and unified pair losses on given scores: the cards' checks, weights, limits, gradients."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import rivals.losses._pair_terms as pair_terms
from rivals.errors import RivalsError
from rivals.losses import (
    circle_class_loss,
    circle_loss,
    cosface_loss,
    multi_similarity_loss,
    pair_weights,
    relative_similarity_miner,
    triplet_loss,
    unified_pair_loss,
)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def lists(seed: int = 0, shape: tuple[int, int] = (5, 8)) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    relevance = (torch.rand(shape, generator=generator) < 0.4).double()
    relevance[:, 0], relevance[:, 1] = 1, 0
    return scores, relevance, torch.rand(shape, generator=generator) < 2


ONE, SCORES = rows([1, 0, 0]), rows([0.6, 0.7, 0.2])


# ---------------------------------------------------------------------------------- multi-similarity


def test_multi_similarity_by_hand() -> None:
    """Paper 41, check 1."""
    whole = multi_similarity_loss(SCORES, ONE, beta=40.0, epsilon=None)
    assert whole.item() == pytest.approx(0.29906943469079594 + 0.20000838521083397, abs=1e-14)
    assert multi_similarity_loss(SCORES, ONE, beta=40.0).item() == pytest.approx(0.49907781985011834, abs=1e-14)
    mined = relative_similarity_miner(SCORES, ONE)
    assert mined.positive.tolist() == [[True, False, False]]
    assert mined.negative.tolist() == [[False, True, False]]


def test_multi_similarity_weights_in_closed_form() -> None:
    """Paper 41, check 2; and check 6: the surrogate with frozen weights has the same gradient."""
    scores, relevance, _ = lists()
    alpha, beta, t = 2.0, 50.0, 0.5

    def loss(s: Tensor, r: Tensor, m: Tensor | None) -> Tensor:
        return multi_similarity_loss(s, r, m, epsilon=None, reduction="sum")

    weights = pair_weights(loss, scores, relevance)
    wanted = torch.zeros_like(scores)
    for q in range(len(scores)):
        for i in range(scores.shape[1]):
            if relevance[q, i]:
                rest = scores[q][relevance[q] > 0] - scores[q, i]
                wanted[q, i] = 1 / (math.exp(-alpha * (t - scores[q, i])) + (-alpha * rest).exp().sum())
            else:
                rest = scores[q][relevance[q] == 0] - scores[q, i]
                wanted[q, i] = 1 / (math.exp(beta * (t - scores[q, i])) + (beta * rest).exp().sum())
    torch.testing.assert_close(weights, wanted, rtol=1e-10, atol=1e-14)
    leaf = scores.clone().requires_grad_()
    surrogate = (weights * leaf * (1 - 2 * relevance)).sum()
    frozen = torch.autograd.grad(surrogate, leaf)[0]
    torch.testing.assert_close(torch.autograd.grad(loss(leaf, relevance, None), leaf)[0], frozen)


def test_multi_similarity_limits() -> None:
    """Paper 41, check 3."""
    scores, relevance, _ = lists()
    sharp = multi_similarity_loss(scores, relevance, alpha=1e5, beta=1e5, epsilon=None, reduction="none")
    pull = (0.5 - scores).masked_fill(relevance == 0, 0).amax(1).clamp(min=0)
    push = (scores - 0.5).masked_fill(relevance > 0, 0).amax(1).clamp(min=0)
    torch.testing.assert_close(sharp, pull + push, atol=1e-4, rtol=0)


def test_one_of_each_is_binomial_deviance() -> None:
    """Paper 41, check 4."""
    found = multi_similarity_loss(rows([0.3, 0.8]), rows([1, 0]), epsilon=None).item()
    assert found == pytest.approx(math.log1p(math.exp(0.4)) / 2 + math.log1p(math.exp(15)) / 50, rel=1e-12)


def test_mining_away_separated_lists() -> None:
    """Paper 41, check 5."""
    assert multi_similarity_loss(rows([0.9, 0.5, 0.1]), ONE).item() == 0
    scores, relevance, _ = lists()
    unmined = multi_similarity_loss(scores, relevance, epsilon=None)
    assert multi_similarity_loss(scores, relevance, epsilon=math.inf).item() == unmined.item()
    mined = relative_similarity_miner(scores, relevance, epsilon=math.inf)
    assert (mined.positive | mined.negative).all()


def test_the_miner_is_a_mask_for_any_loss() -> None:
    scores, relevance, _ = lists()
    mined = relative_similarity_miner(scores, relevance, epsilon=0.3)
    by_mask = multi_similarity_loss(scores, relevance, mined.positive | mined.negative, epsilon=None)
    assert by_mask.item() == pytest.approx(multi_similarity_loss(scores, relevance, epsilon=0.3).item(), rel=1e-14)
    assert circle_loss(scores, relevance, mined.positive | mined.negative) > 0


def test_half_an_anchor_counts_only_when_partial() -> None:
    scores, relevance = rows([0.9, 0.2], [0.4, 0.6]), rows([1, 1], [1, 0])

    def loss(**options: Any) -> list[float]:
        return multi_similarity_loss(scores, relevance, epsilon=None, reduction="none", **options).tolist()

    assert loss()[0] == 0
    assert loss(empty_anchor="partial")[0] == pytest.approx(math.log1p(math.exp(-0.8) + math.exp(0.6)) / 2)
    assert loss()[1] == loss(empty_anchor="partial")[1] > 0


@pytest.mark.parametrize("function", [multi_similarity_loss, circle_loss, unified_pair_loss])
def test_weight_two_is_the_candidate_twice(function: Any) -> None:
    scores, relevance, _ = lists(seed=4)
    weight = torch.ones_like(scores)
    weight[:, 2], weight[:, 3], weight[:, 5] = 2, 2, 0
    twice = torch.tensor([0, 1, 2, 2, 3, 3, 4, 6, 7])
    found = function(scores, relevance, weight=weight, reduction="none")
    torch.testing.assert_close(found, function(scores[:, twice], relevance[:, twice], reduction="none"))


def test_nan_scores_give_nan() -> None:
    scores = rows([0.6, math.nan, 0.2], [math.nan, 0.1, 0.0])
    relevance = rows([1, 0, 0], [1, 0, 0])
    for function in (multi_similarity_loss, circle_loss, unified_pair_loss, triplet_loss):
        assert torch.isnan(function(scores, relevance, reduction="none")).all()


# ---------------------------------------------------------------------------------- circle


def test_circle_by_hand() -> None:
    """Paper 117, check 1, and check 2: the level set of ln 2."""
    label = rows([1, 0])
    assert circle_loss(rows([0.8, 0.3]), label).item() == pytest.approx(0.8658929371800745, rel=1e-13)
    assert circle_loss(rows([0.75, 0.25]), label).item() == pytest.approx(math.log(2), rel=1e-13)
    assert circle_loss(rows([1.0, 0.0]), label).item() == pytest.approx(0.00033540637289576885, rel=1e-11)
    for turn in torch.linspace(0.1, 1.4, 5).tolist():
        radius = math.sqrt(2) * 0.25
        pair = rows([1 - radius * math.cos(turn), radius * math.sin(turn)])
        for scale in (8.0, 64.0, 256.0):
            assert circle_loss(pair, label, scale=scale).item() == pytest.approx(math.log(2), rel=1e-10)


def test_circle_of_a_flat_list_of_the_listwise_reranker() -> None:
    """Paper 116, check 2: margin -0.2 goes through the same terms, though `circle_loss` refuses it."""
    pairs = pair_terms.dense_pairs(rows([0.4, 0.6]), rows([1, 0]) > 0, rows([0, 1]) > 0)
    (terms,) = pair_terms.circle_terms(pairs, margin=-0.2, scale=10.0)
    assert terms.total.item() == pytest.approx(6.4016601784, abs=1e-9)
    with pytest.raises(RivalsError, match="margin"):
        circle_loss(rows([0.4, 0.6]), rows([1, 0]), margin=-0.2)


def test_circle_gradient() -> None:
    """Paper 117, check 5: Z softmax(.) g a, the weights a held."""
    scores, relevance, _ = lists(seed=2)
    m, g = 0.25, 16.0
    leaf = scores.clone().requires_grad_()
    loss = circle_loss(leaf, relevance, margin=m, scale=g, reduction="none")
    (found,) = torch.autograd.grad(loss.sum(), leaf)
    outer = (1 - (-loss.detach()).exp()).unsqueeze(1)
    a_p, a_n = (1 + m - scores).clamp(min=0), (scores + m).clamp(min=0)
    positive = relevance > 0
    push = (g * a_n * (scores - m)).masked_fill(positive, -math.inf).softmax(1) * g * a_n
    pull = (-g * a_p * (scores - 1 + m)).masked_fill(~positive, -math.inf).softmax(1) * g * a_p
    torch.testing.assert_close(found, outer * (push - pull), rtol=1e-10, atol=1e-12)


def test_moving_weights_have_another_gradient() -> None:
    scores, relevance, _ = lists(seed=2)

    def loss(s: Tensor) -> Tensor:
        return circle_loss(s, relevance, scale=4.0, detach_weights=False)

    assert torch.autograd.gradcheck(loss, (scores.clone().requires_grad_(),))
    leaf = scores.clone().requires_grad_()
    moving, held = (
        torch.autograd.grad(circle_loss(leaf, relevance, detach_weights=detach), leaf)[0] for detach in (False, True)
    )
    assert (moving - held).abs().max() > 1e-2


def test_batch_pairing_is_one_list() -> None:
    scores, relevance, mask = lists()
    mask = mask & (torch.arange(8) != 6)
    found = circle_loss(scores, relevance, mask, pairing="batch")
    one = circle_loss(scores[mask], relevance[mask])
    assert found.item() == pytest.approx(one.item(), rel=1e-13)
    assert circle_loss(scores, relevance, mask, pairing="batch", reduction="none").shape == ()


def test_average_over_valid_or_over_positive_rows() -> None:
    scores, relevance = rows([0.8, 0.3], [1.0, -1.0], [0.5, 0.1]), rows([1, 0], [1, 0], [1, 1])
    values = circle_loss(scores, relevance, scale=40_000.0, reduction="none")
    assert values[1] == 0  # so small that it vanishes
    assert values[2] == 0  # no negative
    assert circle_loss(scores, relevance, scale=40_000.0).item() == pytest.approx(values[0].item() / 2)
    assert circle_loss(scores, relevance, scale=40_000.0, reduction="mean_positive").item() == values[0].item()


def test_circle_refuses_what_is_no_cosine() -> None:
    with pytest.raises(RivalsError, match="cosines"):
        circle_loss(rows([3.0, 0.2]), rows([1, 0]), check=True)
    circle_loss(rows([3.0, 0.2]), rows([0, 1]), torch.tensor([[False, True]]), check=True)
    for options, name in (
        ({"scale": 0.0}, "scale"),
        ({"pairing": "all"}, "pairing"),
        ({"reduction": "x"}, "reduction"),
    ):
        with pytest.raises(RivalsError, match=name):
            circle_loss(rows([0.3, 0.2]), rows([1, 0]), **options)  # type: ignore[arg-type]


def test_class_level_is_the_row_with_one_positive() -> None:
    """Paper 117, check 6."""
    scores, _, _ = lists()
    labels = torch.tensor([0, 3, 7, 7, 2])
    relevance = F.one_hot(labels, 8).double()
    by_row = circle_loss(scores, relevance, scale=32.0, reduction="none")
    torch.testing.assert_close(circle_class_loss(scores, labels, scale=32.0, reduction="none"), by_row)
    leaf = scores.clone().requires_grad_()
    gradients = [
        torch.autograd.grad(loss, leaf)[0]
        for loss in (circle_class_loss(leaf, labels), circle_loss(leaf, relevance, scale=256.0))
    ]
    torch.testing.assert_close(*gradients)


# ---------------------------------------------------------------------------------- unified pair loss


def test_unified_pair_loss() -> None:
    """Paper 117, checks 3 and 4; paper 71, check 1."""
    scores, relevance, _ = lists(seed=5)
    labels = torch.tensor([1, 1, 4, 0, 6])
    one = F.one_hot(labels, 8).double()
    unified = unified_pair_loss(scores, one, scale=30.0, margin=0.35, reduction="none")
    torch.testing.assert_close(unified, cosface_loss(scores, labels, scale=30.0, margin=0.35, reduction="none"))
    sharp = unified_pair_loss(scores, relevance, scale=1e5, margin=0.1, reduction="none") / 1e5
    torch.testing.assert_close(sharp, triplet_loss(scores, relevance, margin=0.1, reduction="none"), atol=1e-4, rtol=0)
    relative = unified_pair_loss(rows([0.4, 0.8, 0.1, 0.5]), rows([1, 1, 0, 0]))
    assert relative.item() == pytest.approx(1.4069281779878031, rel=1e-12)


def test_lists_with_nothing_to_learn_from_warn_once() -> None:
    pair_terms.warn_of_nothing.cache_clear()
    leaf = rows([0.5, 0.4]).requires_grad_()
    with pytest.warns(UserWarning, match="no anchor of the batch"):
        loss = circle_loss(leaf, rows([1, 1]))
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, leaf)[0] == 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unified_pair_loss(leaf, rows([0, 0]))


# ---------------------------------------------------------------------------------- general pair weights


def test_triplet_weights_are_those_of_the_card() -> None:
    """Paper 41, general pair weighting: every active triplet weighs 1 on both of its pairs."""
    scores, relevance, _ = lists(seed=6)

    def loss(s: Tensor, r: Tensor, m: Tensor | None) -> Tensor:
        return triplet_loss(s, r, m, mining="all", margin=0.2, reduction="sum")

    weights = pair_weights(loss, scores, relevance)
    active = (
        (scores[:, None, :] > scores[:, :, None] - 0.2) & (relevance[:, :, None] > 0) & (relevance[:, None, :] == 0)
    )
    torch.testing.assert_close(weights, (active.sum(2) + active.sum(1)).double())


def test_pair_weights_need_a_loss_of_the_scores() -> None:
    with pytest.raises(RivalsError, match="does not depend"):
        pair_weights(lambda scores, relevance, mask: relevance.sum(), torch.zeros(1, 2), torch.ones(1, 2))
    per_list = pair_weights(lambda s, r, m: circle_loss(s, r, m, reduction="none"), SCORES, ONE)
    assert per_list.shape == SCORES.shape
    assert not per_list.requires_grad
