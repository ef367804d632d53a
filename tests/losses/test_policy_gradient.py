"""Policy gradients over rankings (papers 97 and 63): exact expectations by enumeration, and the laws of the losses."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    expected_utility,
    plackett_luce_log_prob,
    plackett_luce_sample,
    policy_gradient_loss,
    ranking_utility,
    two_stage_policy_gradient_loss,
)

ESTIMATORS = [
    {"baseline": None},
    {"baseline": "leave_one_out"},
    {"estimator": "reward_to_go", "baseline": None},
    {"estimator": "reward_to_go"},
    {"estimator": "pl_rank"},
]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slope(loss: Tensor, scores: Tensor) -> Tensor:
    return torch.autograd.grad(loss, scores, retain_graph=True)[0]


def sample_slopes(scores: Tensor, relevance: Tensor, draws: Tensor, **options: Any) -> Tensor:
    """Return the gradient of every draw [N, S, K] by itself, [N, C]: copies of the list, one a draw."""
    copies = scores.detach().expand(len(draws), -1).clone().requires_grad_()
    each = policy_gradient_loss(copies, relevance.expand(len(draws), -1), rankings=draws, reduction="sum", **options)
    return slope(each, copies)


# ---------------------------------------------------------------------------------- by hand


def test_two_candidates_by_hand() -> None:
    scores = torch.zeros(2, dtype=torch.float64).requires_grad_()
    relevance, rankings = torch.tensor([1.0, 0.0]), torch.tensor([[0, 1], [1, 0]])
    second = 1 / math.log2(3)
    assert ranking_utility(rankings, relevance, utility="dcg").tolist() == pytest.approx([1, second])
    loss = policy_gradient_loss(scores, relevance, rankings=rankings, utility="dcg")
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert slope(loss, scores).tolist() == pytest.approx([-(1 - second) / 2, (1 - second) / 2])
    plain = policy_gradient_loss(scores, relevance, rankings=rankings, utility="dcg", baseline=None)
    assert plain.item() == pytest.approx(math.log(2) * (1 + second) / 2)
    mean = policy_gradient_loss(scores, relevance, rankings=rankings, utility="dcg", baseline="mean")
    assert slope(mean, scores).tolist() == pytest.approx([-(1 - second) / 4, (1 - second) / 4])


def test_utilities() -> None:
    relevance, rankings = torch.tensor([0.0, 2.0, 1.0]), torch.tensor([[0, 2, 1], [1, 0, 2]])
    discount = [1, 1 / math.log2(3), 0.5]
    dcg = [discount[1] + 2 * discount[2], 2 * discount[0] + discount[2]]
    ideal = 2 + discount[1]
    assert ranking_utility(rankings, relevance, utility="dcg").tolist() == pytest.approx(dcg)
    assert ranking_utility(rankings, relevance).tolist() == pytest.approx([value / ideal for value in dcg])
    assert ranking_utility(rankings, relevance, utility="mrr").tolist() == pytest.approx([0.5, 1])
    assert ranking_utility(rankings, relevance, utility="mrr", k=1).tolist() == [0, 1]
    assert ranking_utility(rankings, relevance, utility="dcg", k=1).tolist() == [0, 2]
    exponential = ranking_utility(rankings, relevance, utility="dcg", gain="exponential").tolist()
    assert exponential == pytest.approx([discount[1] + 3 * discount[2], 3 + discount[2]])
    weights = torch.tensor([0.2, 0.7])
    assert ranking_utility(rankings, relevance, utility="dcg", rank_weights=weights).tolist() == pytest.approx(
        [0.7, 0.4]
    )
    largest = 2 * 0.7 + 0.2
    found = ranking_utility(rankings, relevance, rank_weights=weights).tolist()
    assert found == pytest.approx([0.7 / largest, 0.4 / largest])
    mask = torch.tensor([True, True, False])
    assert ranking_utility(torch.tensor([[1, 0, 2]]), relevance, mask, utility="dcg").item() == 2
    own = ranking_utility(rankings, relevance, utility=lambda order, labels: (order[..., 0] == 1).float())
    assert own.tolist() == [0, 1]


def test_expected_utility_by_hand() -> None:
    scores = torch.tensor([math.log(3), 0.0], dtype=torch.float64)
    found = expected_utility(scores, torch.tensor([0.0, 1.0]))
    assert found.item() == pytest.approx(0.25 + 0.75 / math.log2(3))
    padded, mask = torch.tensor([float("nan"), math.log(3), 0.0, 7.0]), torch.tensor([False, True, True, False])
    assert expected_utility(padded, torch.tensor([1.0, 0, 1, 1]), mask).item() == pytest.approx(found.item())
    uniform = expected_utility(scores, torch.tensor([0.0, 1.0]), temperature=1e9)
    assert uniform.item() == pytest.approx((1 + 1 / math.log2(3)) / 2)
    with pytest.raises(RivalsError, match="8 candidates"):
        expected_utility(torch.zeros(8), torch.ones(8))


# ---------------------------------------------------------------------------------- expectation and variance


@pytest.mark.parametrize("options", ESTIMATORS, ids=str)
def test_every_estimator_is_unbiased_by_enumeration(options: dict[str, Any]) -> None:
    scores, relevance = randn(4).requires_grad_(), torch.tensor([1.0, 0.0, 2.0, 0.0])
    common = {"k": 3, "temperature": 0.8}
    wanted = -slope(expected_utility(scores, relevance, **common), scores)
    orders = torch.tensor(list(permutations(range(4))))
    chance = plackett_luce_log_prob(scores, orders, temperature=0.8).exp().detach()
    if options.get("baseline", "leave_one_out") is None or options.get("estimator") == "pl_rank":
        draws, weight = orders[:, None], chance
    else:
        left, right = torch.cartesian_prod(torch.arange(24), torch.arange(24)).T
        draws, weight = torch.stack([orders[left], orders[right]], 1), chance[left] * chance[right]
    found = (sample_slopes(scores, relevance, draws, **common, **options) * weight[:, None]).sum(0)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_variance_falls_from_plain_to_pl_rank() -> None:
    scores, relevance = randn(6), torch.tensor([1.0, 0.0, 2.0, 0.0, 0.0, 1.0])
    draws = plackett_luce_sample(scores, 4 * 2000, generator=torch.Generator().manual_seed(0)).view(2000, 4, 6)
    slopes = [sample_slopes(scores, relevance, draws, **options) for options in ESTIMATORS]
    exact = scores.clone().requires_grad_()
    wanted = -slope(expected_utility(exact, relevance), exact)
    for found in slopes:
        error = (found.mean(0) - wanted).abs() / (found.std(0) / len(found) ** 0.5)
        assert error.max() < 4
    plain, leave_one_out, to_go, _, pl_rank = (found.var(0).sum() for found in slopes)
    assert leave_one_out < plain
    assert to_go < plain
    assert pl_rank < to_go


def test_a_constant_utility_changes_only_the_plain_form() -> None:
    scores, relevance = randn(1, 5).requires_grad_(), torch.tensor([[1.0, 0, 2, 0, 0]]).double()
    rankings = plackett_luce_sample(scores, 3, generator=torch.Generator().manual_seed(1))
    utility = ranking_utility(rankings, relevance)

    def with_constant(constant: float, baseline: Any) -> Tensor:
        loss = policy_gradient_loss(
            scores, relevance, rankings=rankings, baseline=baseline, utility=lambda r, y: utility + constant
        )
        return slope(loss, scores)

    for baseline in ("leave_one_out", "mean"):
        torch.testing.assert_close(with_constant(5.0, baseline), with_constant(0.0, baseline), rtol=0, atol=1e-12)
    assert (with_constant(5.0, None) - with_constant(0.0, None)).abs().max() > 0.1


# ---------------------------------------------------------------------------------- laws of policy_gradient_loss


def lists() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three lists (full, short, without a positive) with garbage in the padding, and 3 rankings of each."""
    mask = torch.tensor([[True] * 5, [False, True, True, True, False], [True] * 5])
    scores = randn(3, 5).masked_fill(~mask, float("nan"))
    relevance = torch.tensor([[0.0, 1, 2, 0, 0], [9, 1, 0, 0, -3], [0, 0, 0, 0, 0]]).double()
    rankings = plackett_luce_sample(scores.nan_to_num(), 3, mask, generator=torch.Generator().manual_seed(2))
    return scores, relevance, mask, rankings


@pytest.mark.parametrize("options", [*ESTIMATORS, {"utility": "mrr"}, {"utility": "dcg", "k": 2}], ids=str)
def test_padding_is_nothing_and_reductions_agree(options: dict[str, Any]) -> None:
    scores, relevance, mask, rankings = lists()
    scores.requires_grad_()
    each = policy_gradient_loss(scores, relevance, mask, rankings=rankings, reduction="none", **options)
    assert each[2] == 0
    short = policy_gradient_loss(
        scores[1, 1:4], relevance[1, 1:4], rankings=rankings[1, :, :3] - 1, reduction="none", **options
    )
    assert each[1].item() == pytest.approx(short.item(), abs=1e-12)
    mean, total = (
        policy_gradient_loss(scores, relevance, mask, rankings=rankings, reduction=r, **options)
        for r in ("mean", "sum")
    )
    assert total.item() == pytest.approx(each.sum().item())
    assert mean.item() == pytest.approx(each.sum().item() / 2)
    gradient = slope(mean, scores)
    assert torch.isfinite(gradient).all()
    assert (gradient[~mask] == 0).all()
    if options.get("estimator") != "pl_rank":  # whose estimate sums to 0 in expectation only
        assert gradient.sum(1).abs().max() < 1e-12
    prefix = policy_gradient_loss(scores, relevance, mask, rankings=rankings[..., :4], **options)
    if options.get("k", 10) <= 4:
        assert prefix.item() == pytest.approx(mean.item())


def test_shifts_and_temperature() -> None:
    scores, relevance, mask, rankings = lists()
    loss = policy_gradient_loss(scores, relevance, mask, rankings=rankings, temperature=0.3)
    moved = policy_gradient_loss(scores + 7, relevance, mask, rankings=rankings, temperature=0.3)
    scaled = policy_gradient_loss(scores / 0.3, relevance, mask, rankings=rankings)
    assert moved.item() == pytest.approx(loss.item(), abs=1e-10)
    assert scaled.item() == pytest.approx(loss.item(), abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("estimator", ["reinforce", "reward_to_go", "pl_rank"])
def test_large_scores_stay_finite(dtype: torch.dtype, estimator: Any) -> None:
    scores = (randn(3, 6).sign() * 1e4).to(dtype).requires_grad_()
    loss = policy_gradient_loss(
        scores, (randn(3, 6) > 0.5).to(dtype), estimator=estimator, generator=torch.Generator().manual_seed(0)
    )
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(scores.grad).all()


def test_draws_come_from_the_generator() -> None:
    scores, relevance, mask, _ = lists()
    one, same, other = (
        policy_gradient_loss(scores, relevance, mask, generator=torch.Generator().manual_seed(seed)).item()
        for seed in (1, 1, 2)
    )
    assert one == same != other


def test_nothing_at_all() -> None:
    scores = torch.zeros(0, 3).requires_grad_()
    loss = policy_gradient_loss(scores, torch.zeros(0, 3), generator=torch.Generator())
    assert loss == 0
    loss.backward()
    empty = torch.zeros(2, 0).requires_grad_()
    assert policy_gradient_loss(empty, torch.zeros(2, 0), generator=torch.Generator()) == 0


# ---------------------------------------------------------------------------------- two stages


def test_two_stages_by_hand() -> None:
    candidates, rankings = randn(2, 3).requires_grad_(), randn(2, 3, seed=1).requires_grad_()
    utility = torch.tensor([[1.0, 0.0, 2.0], [0.5, 0.5, 0.5]])
    advantage = torch.tensor([[0.0, -1.5, 1.5], [0, 0, 0]], dtype=torch.float64)
    loss = two_stage_policy_gradient_loss(candidates, rankings, utility)
    assert loss.item() == pytest.approx(-(advantage * (candidates + rankings)).sum().item() / 6)
    for tensor in (candidates, rankings):
        torch.testing.assert_close(slope(loss, tensor), -advantage / 6)
    plain = two_stage_policy_gradient_loss(candidates, rankings, utility, baseline=None, reduction="none")
    torch.testing.assert_close(plain, -(utility * (candidates + rankings)).mean(-1))


def test_training_one_stage_leaves_the_other_alone() -> None:
    candidates, rankings = randn(2, 3).requires_grad_(), randn(2, 3, seed=1).requires_grad_()
    utility = randn(2, 3, seed=2)
    for train, kept, left in (("generator", candidates, rankings), ("ranker", rankings, candidates)):
        loss = two_stage_policy_gradient_loss(candidates, rankings, utility, train=train)
        other = torch.autograd.grad(loss, left, retain_graph=True, allow_unused=True)[0]
        assert other is None or (other == 0).all()
        assert (slope(loss, kept) != 0).any()


def test_a_constant_added_to_the_utility_changes_nothing() -> None:
    candidates, rankings, utility = (randn(2, 4, seed=seed) for seed in range(3))
    one = two_stage_policy_gradient_loss(candidates, rankings, utility)
    assert two_stage_policy_gradient_loss(candidates, rankings, utility + 9).item() == pytest.approx(
        one.item(), abs=1e-9
    )


# ---------------------------------------------------------------------------------- bad input


def test_bad_input_is_named() -> None:
    scores, relevance, mask, rankings = lists()
    for options, name in (
        ({}, "generator"),
        ({"generator": torch.Generator(), "n_samples": 1}, "leave_one_out"),
        ({"rankings": rankings[:, :1]}, "leave_one_out"),
        ({"rankings": rankings, "k": 0}, "k"),
        ({"rankings": rankings, "temperature": 0.0}, "temperature"),
        ({"rankings": rankings, "utility": "map"}, "utility"),
        ({"rankings": rankings, "gain": "cubic"}, "gain"),
        ({"rankings": rankings, "baseline": "median"}, "baseline"),
        ({"rankings": rankings, "estimator": "exact"}, "estimator"),
        ({"rankings": rankings, "estimator": "pl_rank", "utility": "mrr"}, "estimator"),
        ({"rankings": rankings, "utility": "mrr", "rank_weights": torch.ones(2)}, "rank_weights"),
        ({"rankings": rankings, "rank_weights": torch.tensor([1.0, -1.0])}, "rank_weights"),
        ({"rankings": rankings, "utility": lambda r, y: r[..., 0] * float("nan")}, "NaN"),
        ({"rankings": rankings, "utility": lambda r, y: r}, "utility must return"),
        ({"rankings": rankings.flip(-1)}, "not there"),
    ):
        with pytest.raises(RivalsError, match=name):
            policy_gradient_loss(scores, relevance, mask, **options)
    pair = randn(2, 1)
    for change, name in (
        ({"train": "all"}, "train"),
        ({"baseline": "best"}, "baseline"),
        ({}, "leave_one_out"),
        ({"utility": pair * float("nan"), "baseline": None}, "targets must be finite"),
    ):
        with pytest.raises(RivalsError, match=name):
            two_stage_policy_gradient_loss(pair, pair, **({"utility": pair} | change))
