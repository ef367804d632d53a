"""Plackett-Luce: the sampler, log-probabilities, and losses whose scores change with every step (paper 83)."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    dynamic_plackett_luce_loss,
    list_mle_loss,
    plackett_luce_log_prob,
    plackett_luce_sample,
    two_view_ranking_loss,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------------------- sampling and probability


def test_probabilities_of_all_orders_sum_to_one() -> None:
    scores = randn(4)
    everything = torch.tensor(list(permutations(range(4))))
    assert plackett_luce_log_prob(scores, everything).exp().sum().item() == pytest.approx(1, abs=1e-12)
    pairs = torch.tensor(list(permutations(range(4), 2)))
    assert plackett_luce_log_prob(scores, pairs).exp().sum().item() == pytest.approx(1, abs=1e-12)
    cut = plackett_luce_log_prob(scores, everything, k=2).exp()
    assert cut.sum().item() == pytest.approx(2, abs=1e-12)  # every pair heads two full orders


def test_a_probability_by_hand() -> None:
    scores = torch.tensor([0.0, math.log(2), math.log(3)], dtype=torch.float64)
    found = plackett_luce_log_prob(scores, torch.tensor([[1, 2, 0]]), temperature=1.0).exp()
    assert found.item() == pytest.approx(2 / 6 * 3 / 4, abs=1e-12)
    assert plackett_luce_log_prob(scores * 3, torch.tensor([[1, 2, 0]]), temperature=3.0).exp().item() == pytest.approx(
        found.item()
    )


def test_it_is_list_mle_of_the_order_of_the_labels() -> None:
    scores, relevance = randn(3, 5), torch.stack([torch.randperm(5) for _ in range(3)]).double()
    order = relevance.argsort(dim=-1, descending=True)
    found = -plackett_luce_log_prob(scores, order.unsqueeze(-2)).squeeze(-1)
    torch.testing.assert_close(found, list_mle_loss(scores, relevance, reduction="none"), rtol=0, atol=1e-12)


def test_absent_candidates_are_no_part_of_it() -> None:
    scores, mask = randn(5), torch.tensor([True, False, True, True, False])
    short = plackett_luce_log_prob(scores[mask], torch.tensor([[2, 0, 1]]))
    padded = scores.masked_fill(~mask, float("nan"))
    for tail in ([1, 4], [0, 0]):
        found = plackett_luce_log_prob(padded, torch.tensor([[3, 0, 2, *tail]]), mask)
        assert found.item() == pytest.approx(short.item(), abs=1e-12)
    assert plackett_luce_log_prob(padded, torch.tensor([[3, 0, 2, 1, 4]]), mask, k=9).item() == pytest.approx(
        short.item()
    )


def test_first_places_are_drawn_with_the_softmax() -> None:
    scores, n = torch.tensor([0.5, -1.0, 1.2, 0.0]), 100_000
    drawn = plackett_luce_sample(scores, n, generator=torch.Generator().manual_seed(0))
    counts = drawn[:, 0].bincount(minlength=4)
    expected = scores.softmax(0) * n
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # chi-square, 3 degrees of freedom, p = 0.001
    pair = ((drawn[:, 0] == 2) & (drawn[:, 1] == 0)).double().mean().item()
    exact = plackett_luce_log_prob(scores, torch.tensor([[2, 0]])).exp().item()
    assert abs(pair - exact) < 4 * math.sqrt(exact * (1 - exact) / n)


def test_draws_keep_to_the_mask_and_the_generator() -> None:
    scores, mask = torch.zeros(2, 4), torch.tensor([[True] * 4, [False, True, False, True]])
    drawn = plackett_luce_sample(scores, 50, mask, generator=torch.Generator().manual_seed(3))
    assert drawn.shape == (2, 50, 4)
    assert set(drawn[1, :, :2].flatten().tolist()) == {1, 3}
    assert torch.equal(drawn, plackett_luce_sample(scores, 50, mask, generator=torch.Generator().manual_seed(3)))
    half = plackett_luce_sample(scores.half(), 50, mask, generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn, half)


# ---------------------------------------------------------------------------------- scores of every step


def by_loops(step_scores: Tensor, order: list[int], there: list[int]) -> Tensor:
    left, total = list(there), step_scores.new_zeros(())
    for step, item in enumerate(order):
        total = total + step_scores[step, left].logsumexp(0) - step_scores[step, item]
        left.remove(item)
    return total


def test_three_steps_by_hand() -> None:
    scores = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64).expand(3, 3)
    loss = dynamic_plackett_luce_loss(scores, torch.tensor([0, 2, 1]))
    assert loss.item() == pytest.approx((0.407606 + 0.313262) / 3, abs=1e-6)
    whole = dynamic_plackett_luce_loss(scores, torch.tensor([0, 2, 1]), reduction="sum")
    assert whole.item() == pytest.approx(list_mle_loss(scores[0], torch.tensor([2.0, 0.0, 1.0])).item())


def test_one_step_is_cross_entropy_and_one_candidate_is_nothing() -> None:
    scores = randn(2, 1, 4)
    found = dynamic_plackett_luce_loss(scores, torch.tensor([[2], [0]]))
    assert found.item() == pytest.approx(F.cross_entropy(scores[:, 0], torch.tensor([2, 0])).item())
    alone = randn(1, 1).requires_grad_()
    loss = dynamic_plackett_luce_loss(alone, torch.tensor([0]))
    assert loss == 0
    assert torch.autograd.grad(loss, alone)[0] == 0


def ragged() -> tuple[Tensor, Tensor, Tensor]:
    """Lists of 4, 2 and 0 candidates, garbage where nothing is."""
    mask = torch.tensor([[True] * 4, [False, True, False, True], [False] * 4])
    scores = randn(3, 3, 4)
    scores[1, :, [0, 2]], scores[1, 2], scores[2] = float("nan"), float("inf"), float("nan")
    return scores, torch.tensor([[2, 0, 3], [3, 1, 0], [0, 0, 0]]), mask


def test_ragged_lists_against_loops() -> None:
    scores, order, mask = ragged()
    found = dynamic_plackett_luce_loss(scores, order, mask, reduction="none")
    expected = [by_loops(scores[0], [2, 0, 3], [0, 1, 2, 3]).item(), by_loops(scores[1], [3, 1], [1, 3]).item(), 0.0]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    mean, lists = (dynamic_plackett_luce_loss(scores, order, mask, reduction=r) for r in ("mean", "list_mean"))
    assert mean.item() == pytest.approx(sum(expected) / 5)
    assert lists.item() == pytest.approx((expected[0] / 3 + expected[1] / 2) / 2)


def test_what_is_absent_or_placed_gets_no_gradient() -> None:
    scores, order, mask = ragged()
    scores.requires_grad_()
    (gradient,) = torch.autograd.grad(dynamic_plackett_luce_loss(scores, order, mask), scores)
    assert torch.isfinite(gradient).all()
    for row, step, column in [(0, 1, 2), (0, 2, 2), (0, 2, 0), (1, 0, 0), (1, 1, 3)]:
        assert gradient[row, step, column] == 0
    assert (gradient[1, 2] == 0).all()
    assert (gradient[2] == 0).all()
    sound = randn(2, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: dynamic_plackett_luce_loss(s, order[:2], mask[:2]), (sound,))


def test_the_order_of_the_candidates_does_not_matter() -> None:
    scores, order = randn(2, 3, 5), torch.tensor([[4, 1, 0], [2, 3, 4]])
    places = torch.tensor([3, 0, 4, 1, 2])  # new column c holds old candidate places[c]
    moved = places.argsort()[order]
    one, other = (dynamic_plackett_luce_loss(s, o) for s, o in ((scores, order), (scores[..., places], moved)))
    assert one.item() == pytest.approx(other.item(), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_large_scores_stay_finite(dtype: torch.dtype) -> None:
    scores = (randn(2, 4, 4).sign() * 1e4).to(dtype).requires_grad_()
    order = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
    loss = two_view_ranking_loss(scores, scores.flip(1), order)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(scores.grad).all()


# ---------------------------------------------------------------------------------- two views


def test_equal_views_cost_the_sum_of_their_rankings() -> None:
    scores, order, mask = ragged()
    single = dynamic_plackett_luce_loss(scores, order, mask)
    assert two_view_ranking_loss(scores, scores, order, mask).item() == pytest.approx(2 * single.item())
    heavy = two_view_ranking_loss(scores, scores, order, mask, student_weight=3.0, teacher_weight=0.5, kl_weight=9.0)
    assert heavy.item() == pytest.approx(3.5 * single.item())


def test_two_views_against_loops() -> None:
    student, teacher, order = randn(2, 3, 3), randn(2, 3, 3, seed=1), torch.tensor([[1, 0, 2], [2, 1, 0]])
    divergence = 0.0
    for row in range(2):
        for step in range(3):
            left = [j for j in range(3) if j not in order[row, :step]]
            p, q = student[row, step, left].softmax(0), teacher[row, step, left].softmax(0)
            divergence += (q * (q / p).log()).sum().item() / 2
    rankings = [dynamic_plackett_luce_loss(view, order).item() for view in (student, teacher)]
    found = two_view_ranking_loss(student, teacher, order, kl_weight=0.7)
    assert found.item() == pytest.approx(sum(rankings) + 0.7 * divergence, abs=1e-12)
    each = two_view_ranking_loss(student, teacher, order, reduction="none").sum()
    assert each.item() == pytest.approx(two_view_ranking_loss(student, teacher, order, reduction="sum").item())


def test_the_teacher_learns_from_the_divergence_unless_detached() -> None:
    student, teacher, order = (
        randn(3, 3).requires_grad_(),
        randn(3, 3, seed=1).requires_grad_(),
        torch.tensor([0, 2, 1]),
    )

    def gradients(**options: Any) -> tuple[Tensor, ...]:
        loss = two_view_ranking_loss(student, teacher, order, student_weight=0.0, teacher_weight=0.0, **options)
        return torch.autograd.grad(loss, (student, teacher))

    assert (gradients()[1] != 0).any()
    assert (gradients(detach_teacher=True)[1] == 0).all()
    torch.testing.assert_close(gradients()[0], gradients(detach_teacher=True)[0])


# ---------------------------------------------------------------------------------- bad input


def test_bad_input_is_named() -> None:
    scores, mask = randn(2, 3), torch.tensor([[True, True, False], [True, True, True]])
    order = torch.tensor([[[0, 1, 2]], [[2, 1, 0]]])
    generator = torch.Generator()
    steps = randn(2, 3, 3)
    for call, name in (
        (lambda: plackett_luce_sample(scores, 0, generator=generator), "n, the number"),
        (lambda: plackett_luce_sample(scores, 1, temperature=0.0, generator=generator), "temperature"),
        (lambda: plackett_luce_log_prob(scores, order[:, 0]), "rankings must have shape"),
        (lambda: plackett_luce_log_prob(scores, order.float()), "rankings must be an int64"),
        (lambda: plackett_luce_log_prob(scores, order.clamp(max=1)), "twice"),
        (lambda: plackett_luce_log_prob(scores, order + 1), "from 0 to 2"),
        (lambda: plackett_luce_log_prob(scores, order.flip(-1), mask), "not there"),
        (lambda: plackett_luce_log_prob(scores, order, k=0), "k"),
        (lambda: dynamic_plackett_luce_loss(steps, order), "order"),
        (lambda: dynamic_plackett_luce_loss(steps, torch.tensor([[0, 1, 1], [0, 1, 2]])), "order.*twice"),
        (lambda: dynamic_plackett_luce_loss(steps, order[:, 0].flip(-1), mask), "order.*not there"),
        (lambda: dynamic_plackett_luce_loss(scores[0], torch.tensor(0)), "step_scores"),
        (lambda: dynamic_plackett_luce_loss(steps, order[:, 0], mask.float()), "mask"),
        (lambda: two_view_ranking_loss(steps, steps[:, :2], order[:, 0]), "step_scores"),
        (lambda: two_view_ranking_loss(steps, steps, order[:, 0], kl_weight=-1.0), "kl_weight"),
        (lambda: two_view_ranking_loss(steps, steps, order[:, 0], reduction="median"), "reduction"),
    ):
        with pytest.raises(RivalsError, match=name):
            call()
