"""Pair losses weighted by a selection model (paper 5) and by money (paper 77): the cards' checks and loops."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    coupled_losses,
    lambda_loss,
    pairwise_logistic_loss,
    profit_aware_pairwise_loss,
    selection_weight,
    selection_weighted_loss,
)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ---------------------------------------------------------------------------------- paper 5


def test_selection_weights() -> None:
    """Check 1, the cut-off, and that nothing overflows (check 6)."""
    for ratio in (0.1, 1.0, 10.0):
        scores = torch.tensor([0.0, ratio * math.log(3), -1e4], dtype=torch.float64)
        assert selection_weight(scores, ratio).tolist() == pytest.approx([2, 4, 1])
    assert selection_weight(torch.tensor([20.0, -20.0]), 0.1).isfinite().all()
    assert selection_weight(torch.tensor([1e4], dtype=torch.float16), 0.1).isfinite().all()
    assert selection_weight(torch.tensor([0.0, 50.0]), max_weight=5.0).tolist() == [2.0, 5.0]
    for bad in ({"debias_ratio": 0.0}, {"debias_ratio": math.nan}, {"max_weight": 0.5}):
        with pytest.raises(RivalsError, match=next(iter(bad))):
            selection_weight(torch.zeros(2), **bad)
    with pytest.raises(RivalsError, match="scores must be finite"):
        selection_weight(torch.tensor([math.nan]))


def test_one_pair() -> None:
    """Check 2."""
    scores = rows([1, 0]).requires_grad_()
    loss = selection_weighted_loss(scores, rows([1, 0]), selection_scores=rows([7, 0]))
    assert loss.item() == pytest.approx(0.626523375, abs=1e-9)
    assert torch.autograd.grad(loss, scores)[0][0].tolist() == pytest.approx([-0.537882843, 0.537882843], abs=1e-9)


def coupled_problem() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    own, other = (torch.randn(3, 6, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    relevance = torch.randint(0, 3, (3, 6), generator=generator).double()
    return {
        "relevance_scores": own,
        "selection_scores": other,
        "relevance": relevance,
        "mask": torch.rand(3, 6, generator=generator) < 0.8,
    }


def test_each_model_learns_from_the_other_without_touching_it() -> None:
    """Checks 3 and 5."""
    problem = coupled_problem()
    own, other = problem["relevance_scores"], problem["selection_scores"]
    found = coupled_losses(**problem)
    for loss, mine, theirs in ((found.relevance_loss, own, other), (found.selection_loss, other, own)):
        gradient, stray = torch.autograd.grad(loss, (mine, theirs), allow_unused=True)
        assert stray is None
        assert gradient.abs().sum() > 0
    swapped = coupled_losses(other, own, problem["relevance"], problem["mask"])
    assert (swapped.relevance_loss, swapped.selection_loss) == (found.selection_loss, found.relevance_loss)
    assert torch.equal(swapped.relevance_weight, found.selection_weight)


def test_weighted_pairs_by_loops() -> None:
    problem = coupled_problem()
    y, there = problem["relevance"].tolist(), problem["mask"].tolist()
    s, t = problem["relevance_scores"].tolist(), problem["selection_scores"].tolist()
    costs = [
        (1 + math.exp(t[q][j] / 2)) * softplus(s[q][j] - s[q][i])
        for q, i, j in itertools.product(range(3), range(6), range(6))
        if there[q][i] and there[q][j] and y[q][i] > y[q][j]
    ]
    found = coupled_losses(**problem, debias_ratio=2.0)
    assert found.relevance_loss.item() == pytest.approx(sum(costs) / len(costs))


def test_a_large_ratio_is_twice_the_plain_loss() -> None:
    """Check 4."""
    problem = coupled_problem()
    plain = pairwise_logistic_loss(problem["relevance_scores"], problem["relevance"], problem["mask"])
    assert coupled_losses(**problem, debias_ratio=1e9).relevance_loss.item() == pytest.approx(2 * plain.item())


def test_scores_in_evaluation_mode_make_the_weights() -> None:
    problem = coupled_problem()
    calm = torch.zeros(3, 6, dtype=torch.float64)
    found = coupled_losses(**problem, selection_eval_scores=calm)
    plain = pairwise_logistic_loss(problem["relevance_scores"], problem["relevance"], problem["mask"])
    assert found.relevance_loss.item() == pytest.approx(2 * plain.item())
    assert (found.relevance_weight == 2).all()
    assert found.selection_loss.item() == coupled_losses(**problem).selection_loss.item()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"selection_scores": torch.zeros(3, 5)}, "selection_scores"),
        ({"selection_scores": torch.full((3, 6), math.nan, dtype=torch.float64)}, "selection_scores"),
        ({"selection_scores": torch.zeros(3, 6, dtype=torch.int64)}, "selection_scores"),
        ({"debias_ratio": -1.0}, "debias_ratio"),
        ({"max_weight": 0.9}, "max_weight"),
    ],
)
def test_bad_selection_scores(change: dict[str, Any], match: str) -> None:
    problem = coupled_problem()
    options = {"selection_scores": problem["selection_scores"], **change}
    with pytest.raises(RivalsError, match=match):
        selection_weighted_loss(problem["relevance_scores"], problem["relevance"], problem["mask"], **options)


# ---------------------------------------------------------------------------------- paper 77


def test_profit_by_hand() -> None:
    """Checks 1 and 2."""
    assert profit_aware_pairwise_loss(rows([0, 0]), rows([9, 0]), top_k=6).item() == pytest.approx(math.log(2) / 2)
    three, values = rows([0, 0, 0]), rows([99, 9, 0])
    weights = [math.log10(91), 2, 1]
    assert profit_aware_pairwise_loss(three, values).item() == pytest.approx(sum(weights) * math.log(2) / 3)
    assert profit_aware_pairwise_loss(three, values, top_k=2).item() == pytest.approx(weights[0] * math.log(2) / 2)


def profit_problem() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(4, 9, generator=generator, dtype=torch.float64).requires_grad_()
    values = torch.randn(4, 9, generator=generator, dtype=torch.float64).mul(100).round()
    values[1] = 5.0  # a list of equal values
    return scores, values, torch.rand(4, 9, generator=generator) < 0.8


@pytest.mark.parametrize("top_k", [None, 1, 3, 20])
def test_profit_by_loops(top_k: int | None) -> None:
    scores, values, mask = profit_problem()
    losses = []
    for s, v, there in zip(scores.tolist(), values.tolist(), mask.tolist(), strict=True):
        kept = sorted((i for i in range(9) if there[i]), key=lambda i: -v[i])[:top_k]
        total = sum(math.log10(1 + v[i] - v[j]) * softplus(s[j] - s[i]) for i, j in itertools.combinations(kept, 2))
        losses.append(total / len(kept))
    each = profit_aware_pairwise_loss(scores, values, mask, top_k=top_k, reduction="none")
    assert each.tolist() == pytest.approx(losses)
    left = [loss for loss in losses if loss != 0]
    dropped = profit_aware_pairwise_loss(scores, values, mask, top_k=top_k)
    assert dropped.item() == pytest.approx(sum(left) / max(len(left), 1))
    kept_all = profit_aware_pairwise_loss(scores, values, mask, top_k=top_k, empty="keep")
    assert kept_all.item() == pytest.approx(sum(losses) / 4)


def test_equal_values_are_dropped_and_alone_are_worth_nothing() -> None:
    """Check 3."""
    scores = rows([1, 2]).requires_grad_()
    loss = profit_aware_pairwise_loss(scores, rows([3, 3]))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, scores)[0].tolist() == [[0, 0]]


def test_only_differences_of_value_count_and_only_the_top_moves() -> None:
    """Checks 4, 5 and 7."""
    scores, values, mask = profit_problem()
    loss = profit_aware_pairwise_loss(scores, values, mask, top_k=3)
    assert profit_aware_pairwise_loss(scores, values - 1000.0, mask, top_k=3).item() == pytest.approx(loss.item())
    (gradient,) = torch.autograd.grad(loss, scores)
    order = values.masked_fill(~mask, -math.inf).argsort(dim=-1, descending=True, stable=True)
    moved = torch.zeros_like(mask).scatter(-1, order[:, :3], True) & mask
    assert (gradient[~moved] == 0).all()
    best = order[[0, 2, 3], 0]
    assert (gradient[[0, 2, 3], best] <= 0).all()


def test_linear_weights_are_those_of_label_differences() -> None:
    """Check 6."""
    scores, _, mask = profit_problem()
    labels = torch.randint(0, 4, scores.shape, generator=torch.Generator().manual_seed(2)).double()
    ours = profit_aware_pairwise_loss(scores, labels, mask, pair_weight="linear", reduction="none") * mask.sum(-1)
    theirs = lambda_loss(scores, labels, mask, scheme="ranknet_diff", log_base=math.e, reduction="none")
    torch.testing.assert_close(ours, theirs)


def test_weights_of_your_own() -> None:
    scores, values, mask = profit_problem()
    ours = profit_aware_pairwise_loss(scores, values, mask, pair_weight=lambda apart: apart)
    assert ours.item() == pytest.approx(profit_aware_pairwise_loss(scores, values, mask, pair_weight="linear").item())
    with pytest.raises(RivalsError, match="pair_weight must be finite and not negative"):
        profit_aware_pairwise_loss(scores, values, mask, pair_weight=torch.neg)
    for bad in ({"pair_weight": "log2"}, {"top_k": 0}, {"empty": "skip"}):
        with pytest.raises(RivalsError, match=next(iter(bad))):
            profit_aware_pairwise_loss(scores, values, mask, **bad)  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="targets must be finite"):
        profit_aware_pairwise_loss(scores, values.masked_fill(mask, math.nan), mask)


def test_a_tie_at_the_cut_keeps_the_earlier_candidate() -> None:
    scores = rows([0, 0, 0]).requires_grad_()
    loss = profit_aware_pairwise_loss(scores, rows([9, 0, 0]), top_k=2)
    assert torch.autograd.grad(loss, scores)[0].tolist() == [[-0.25, 0.25, 0.0]]
