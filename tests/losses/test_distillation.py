"""Distillation losses: the values of the cards of papers 7, 31 and 42, their limits and invariances."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    list_mle_loss,
    listwise_kl_loss,
    multi_granular_distillation_loss,
    partial_ranking_distillation_loss,
    soft_label_alignment_loss,
    softmax_loss,
)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slope(loss: Tensor, scores: Tensor) -> Tensor:
    return torch.autograd.grad(loss, scores)[0]


# ---------------------------------------------------------------------------------- list-wise KL


def kl(leading: Tensor, following: Tensor, eps: float = 0.0) -> float:
    return (leading * (leading.log() - (following + eps).log())).sum().item()


@pytest.mark.parametrize("eps", [None, 1e-3])
def test_every_direction_and_form_against_the_formula(eps: float | None) -> None:
    scores, targets = randn(2, 4), randn(2, 4, seed=1)
    p, q, e = (scores / 0.5).softmax(1), (targets / 2).softmax(1), eps or 0.0
    forward = sum(kl(q[row], p[row], e) for row in range(2)) / 2
    reverse = sum(kl(p[row], q[row], e) for row in range(2)) / 2
    entropy = -(q * q.log()).sum(1).mean().item()
    common: dict[str, Any] = {"temperature": 0.5, "target_temperature": 2.0, "eps": eps}
    for options, expected in (
        ({}, forward),
        ({"direction": "reverse"}, reverse),
        ({"direction": "symmetric"}, (forward + reverse) / 2),
        ({"form": "cross_entropy"}, forward + entropy),
    ):
        found = listwise_kl_loss(scores, targets, **common, **options)
        assert found.item() == pytest.approx(expected, abs=1e-12)


def test_kl_against_torch_and_softmax_loss() -> None:
    scores, targets = randn(3, 5).requires_grad_(), randn(3, 5, seed=1)
    ours = listwise_kl_loss(scores, targets)
    theirs = F.kl_div(scores.log_softmax(1), targets.log_softmax(1), log_target=True, reduction="batchmean")
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-12)
    torch.testing.assert_close(slope(ours, scores), slope(theirs, scores))
    entropy = listwise_kl_loss(scores, targets, form="cross_entropy")
    assert entropy.item() == pytest.approx(softmax_loss(scores, targets.softmax(1)).item(), abs=1e-12)


def test_the_teacher_has_no_gradient_and_a_constant_changes_nothing() -> None:
    scores, targets = randn(2, 4).requires_grad_(), randn(2, 4, seed=1).requires_grad_()
    loss = listwise_kl_loss(scores, targets, direction="symmetric")
    assert torch.autograd.grad(loss, targets, retain_graph=True, allow_unused=True)[0] is None
    moved = listwise_kl_loss(scores, targets + 11, direction="symmetric")
    assert moved.item() == pytest.approx(loss.item(), abs=1e-10)
    same = listwise_kl_loss(scores, scores.detach() + 3, temperature=0.3)
    assert same.item() == pytest.approx(0, abs=1e-12)
    assert slope(same, scores).abs().max() < 1e-12


# ---------------------------------------------------------------------------------- a judge's scores (paper 7)


def test_alignment_of_two_by_hand() -> None:
    found = soft_label_alignment_loss(rows([1, 0]), rows([0, 1]), temperature=1.0, eps=None)
    assert found.item() == pytest.approx(0.462117157, abs=1e-9)


def test_alignment_with_eps_against_the_formula() -> None:
    scores, judged = randn(3, 6), torch.rand(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for temperature in (0.02, 0.3):
        p, q = (scores / temperature).softmax(1), (judged / temperature).softmax(1)
        forward = torch.special.xlogy(q, q) - q * (p + 1e-8).log()
        reverse = torch.special.xlogy(p, p) - p * (q + 1e-8).log()
        expected = (forward + reverse).sum(1).mean().item() / 2
        found = soft_label_alignment_loss(scores, judged, temperature=temperature)
        assert found.item() == pytest.approx(expected, rel=1e-12)


def test_alignment_limits() -> None:
    scores = rows([0.2, 0.9, 0.4]).requires_grad_()
    same = soft_label_alignment_loss(scores, scores.detach())
    assert same.item() == pytest.approx(0, abs=1e-7)
    assert slope(same, scores).abs().max() < 1e-5
    assert soft_label_alignment_loss(rows([0.7]), rows([0.1])).item() == pytest.approx(0, abs=1e-7)
    loss = soft_label_alignment_loss(scores, rows([1, 0.5, 0]))
    assert slope(loss, scores).sum().abs() < 1e-9
    moved = soft_label_alignment_loss(scores + 5, rows([1, 0.5, 0]))
    assert moved.item() == pytest.approx(loss.item(), rel=1e-9)


def test_a_judge_stays_between_0_and_1() -> None:
    with pytest.raises(RivalsError, match=r"relevance must lie in 0\.\.1"):
        soft_label_alignment_loss(rows([1, 0]), rows([0, 1.01]))
    mask = torch.tensor([[True, False]])
    assert torch.isfinite(soft_label_alignment_loss(rows([1, 0]), rows([0.5, 7]), mask))


# ---------------------------------------------------------------------------------- partial rankings (paper 42)

SCORES, TEACHER = [3.0, 1.0, 2.0, 0.0], [9.0, 5.0, 7.0, 1.0]


def test_partial_ranking_by_hand() -> None:
    scores, teacher = rows(SCORES), rows(TEACHER)
    two = partial_ranking_distillation_loss(scores, teacher, valid_count=2)
    assert two.item() == pytest.approx(0.440190 + 0.407606, abs=1e-6)
    assert partial_ranking_distillation_loss(scores, teacher).item() == two.item()  # half of four
    terms = partial_ranking_distillation_loss(scores, teacher, valid_count=2, normalize="terms")
    assert terms.item() == pytest.approx(two.item() / 2)
    whole = partial_ranking_distillation_loss(scores, teacher, valid_count=4)
    assert whole.item() == pytest.approx(1.161057, abs=1e-6)
    assert whole.item() == pytest.approx(list_mle_loss(scores, teacher).item(), abs=1e-12)
    assert partial_ranking_distillation_loss(scores, teacher, valid_count=3).item() == pytest.approx(whole.item())
    assert partial_ranking_distillation_loss(scores, teacher, valid_count=0) == 0
    best = partial_ranking_distillation_loss(scores, teacher, valid_count=1)
    assert best.item() == pytest.approx(softmax_loss(scores, rows([1, 0, 0, 0])).item(), abs=1e-12)


def test_what_is_valid() -> None:
    scores, teacher = rows(SCORES), rows(TEACHER)
    expected = partial_ranking_distillation_loss(scores, teacher, valid_count=2).item()
    threshold = partial_ranking_distillation_loss(scores, teacher, valid_threshold=7.0)
    assert threshold.item() == expected
    marked = torch.tensor([[True, False, True, False]])
    assert partial_ranking_distillation_loss(scores, teacher, valid=marked).item() == expected
    both = partial_ranking_distillation_loss(scores, teacher, valid=marked, valid_count=1, valid_threshold=-9.0)
    assert both.item() == pytest.approx(partial_ranking_distillation_loss(scores, teacher, valid_count=1).item())
    with pytest.raises(RivalsError, match="valid marks a candidate"):
        partial_ranking_distillation_loss(scores, teacher, valid=~marked)
    tied = partial_ranking_distillation_loss(
        scores, rows([9, 7, 7, 1]), valid=torch.tensor([[True, True, False, False]])
    )
    expected = -(scores[0].log_softmax(0)[0] + scores[0, [1, 2, 3]].log_softmax(0)[0]).item()
    assert tied.item() == pytest.approx(expected)


def test_only_the_order_of_the_valid_ones_counts() -> None:
    scores, teacher = randn(3, 8).requires_grad_(), randn(3, 8, seed=1)
    options: dict[str, Any] = {"valid_count": 4, "temperature": 0.3}
    loss = partial_ranking_distillation_loss(scores, teacher, **options)
    gradient = slope(loss, scores)
    order = teacher.argsort(dim=1, descending=True)
    noise = torch.rand(3, 8, generator=torch.Generator().manual_seed(2)).double() * 0.01
    tail = teacher.scatter(1, order[:, 4:], -9 + noise.gather(1, order[:, 4:]))
    for changed in (teacher.exp() * 3, tail):
        again = partial_ranking_distillation_loss(scores, changed, **options)
        assert again.item() == pytest.approx(loss.item(), abs=1e-12)
        torch.testing.assert_close(slope(again, scores), gradient)
    swapped = teacher.scatter(1, order[:, :2], teacher.gather(1, order[:, :2]).flip(1))
    assert partial_ranking_distillation_loss(scores, swapped, **options).item() != pytest.approx(loss.item())
    assert (gradient.gather(1, order)[:, 0] <= 0).all()
    assert (gradient.gather(1, order)[:, 4:] >= 0).all()


def test_further_negatives_stand_in_every_denominator() -> None:
    scores, teacher, further = rows(SCORES), rows(TEACHER), rows([0.5, -2, 1])
    found = partial_ranking_distillation_loss(scores, teacher, valid_count=2, temperature=2.0, extra_negatives=further)
    s, f = (scores / 2)[0], (further / 2)[0].exp().sum()
    first = (s.exp().sum() + f).log() - s[0]
    second = (s[[1, 2, 3]].exp().sum() + f).log() - s[2]
    assert found.item() == pytest.approx((first + second).item(), abs=1e-12)
    empty = partial_ranking_distillation_loss(scores, teacher, extra_negatives=torch.zeros(1, 0))
    assert empty.item() == partial_ranking_distillation_loss(scores, teacher).item()


def test_ties_can_be_skipped() -> None:
    scores = rows([3, 1, 2, 0])
    skipped = partial_ranking_distillation_loss(scores, rows([9, 9, 7, 1]), valid_count=3, ties="skip")
    second = scores[0, [1, 2, 3]].logsumexp(0) - 1
    third = scores[0, [2, 3]].logsumexp(0) - 2
    assert skipped.item() == pytest.approx((second + third).item())


# ---------------------------------------------------------------------------------- any granularity (paper 31)


def granular() -> dict[str, Tensor]:
    return {
        "scores": rows([1, 1]),
        "targets": rows([2, 0]),
        "unit_scores": rows([0, 0], [0, 1])[None],
        "unit_targets": rows([1, 0], [0, 0])[None],
    }


def test_passages_and_units_by_hand() -> None:
    assert multi_granular_distillation_loss(**granular()).item() == pytest.approx(0.439851, abs=1e-6)
    passages = multi_granular_distillation_loss(**granular(), unit_weight=0.0)
    assert passages.item() == pytest.approx(0.327813, abs=1e-6)
    double = multi_granular_distillation_loss(**granular(), unit_weight=2.0)
    assert double.item() == pytest.approx(0.327813 + 2 * 0.112037, abs=1e-6)


def test_units_of_absent_passages_and_absent_units_are_nothing() -> None:
    parts = granular()
    wide = {name: F.pad(value, (0, 1), value=float("nan")) for name, value in parts.items()}
    for name in ("unit_scores", "unit_targets"):
        wide[name] = torch.cat([wide[name], torch.full((1, 1, 3), 5.0)], 1)
    mask = torch.tensor([[True, True, False]])
    unit_mask = torch.tensor([[[True, True, False]] * 2 + [[True] * 3]])
    for name in ("scores", "unit_scores"):
        wide[name].requires_grad_()
    loss = multi_granular_distillation_loss(**wide, mask=mask, unit_mask=unit_mask)
    assert loss.item() == pytest.approx(multi_granular_distillation_loss(**parts).item(), abs=1e-12)
    at_scores, at_units = torch.autograd.grad(loss, (wide["scores"], wide["unit_scores"]))
    assert torch.isfinite(at_scores).all()
    assert torch.isfinite(at_units).all()
    assert at_scores[0, 2] == 0
    assert (at_units[~(unit_mask & mask[..., None])] == 0).all()


def test_multi_granular_distillation_loss_keeps_the_laws() -> None:
    scores, targets = randn(3, 4).requires_grad_(), randn(3, 4, seed=1)
    units = {"unit_scores": randn(3, 4, 2, seed=2), "unit_targets": randn(3, 4, 2, seed=3)}
    mask = torch.tensor([[True] * 4, [True, False, True, True], [False] * 4])
    each = multi_granular_distillation_loss(scores, targets, mask, **units, reduction="none")
    assert each[2] == 0
    for reduction, expected in (("sum", each.sum()), ("mean", each.sum() / 2), ("list_mean", each.sum() / 2)):
        found = multi_granular_distillation_loss(scores, targets, mask, **units, reduction=reduction)
        assert found.item() == pytest.approx(expected.item())
    order = torch.tensor([2, 0, 3, 1])
    moved = {name: value[:, order] for name, value in units.items()}
    again = multi_granular_distillation_loss(scores[:, order], targets[:, order], mask[:, order], **moved)
    assert again.item() == pytest.approx(each.sum().item() / 2)
    lifted = multi_granular_distillation_loss(
        scores, targets + 3, mask, unit_scores=units["unit_scores"], unit_targets=units["unit_targets"] - 2
    )
    assert lifted.item() == pytest.approx(again.item())
    same = multi_granular_distillation_loss(
        scores, scores.detach(), unit_scores=units["unit_scores"], unit_targets=units["unit_scores"]
    )
    assert same.item() == pytest.approx(0, abs=1e-12)
    assert slope(same, scores).abs().max() < 1e-12
    assert torch.autograd.gradcheck(
        lambda s, u: multi_granular_distillation_loss(
            s, targets, mask, unit_scores=u, unit_targets=units["unit_targets"], temperature=0.7
        ),
        (scores, units["unit_scores"].requires_grad_()),
    )


def test_a_passage_with_one_unit_adds_nothing() -> None:
    scores, targets = randn(2, 3), randn(2, 3, seed=1)
    found = multi_granular_distillation_loss(
        scores, targets, unit_scores=randn(2, 3, 1), unit_targets=randn(2, 3, 1) * 9
    )
    assert found.item() == pytest.approx(listwise_kl_loss(scores, targets).item(), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_large_units_stay_finite(dtype: torch.dtype) -> None:
    scores, units = ((randn(*shape).sign() * 1e4).to(dtype).requires_grad_() for shape in ((2, 3), (2, 3, 2)))
    loss = multi_granular_distillation_loss(scores, -scores.detach(), unit_scores=units, unit_targets=-units.detach())
    loss.backward()
    assert loss.dtype == torch.float32
    assert math.isfinite(loss.item())
    assert torch.isfinite(scores.grad).all()
    assert torch.isfinite(units.grad).all()


# ---------------------------------------------------------------------------------- bad input


def test_bad_input_is_named() -> None:
    scores, targets = randn(2, 3), randn(2, 3)
    units = {"unit_scores": randn(2, 3, 2), "unit_targets": randn(2, 3, 2)}
    calls: list[tuple[Any, str]] = [
        (lambda: listwise_kl_loss(scores, targets, temperature=0.0), "temperature"),
        (lambda: listwise_kl_loss(scores, targets, target_temperature=-1.0), "target_temperature"),
        (lambda: listwise_kl_loss(scores, targets, direction="both"), "direction"),  # type: ignore[arg-type]
        (lambda: listwise_kl_loss(scores, targets, form="js"), "form"),  # type: ignore[arg-type]
        (lambda: listwise_kl_loss(scores, targets, eps=0.0), "eps"),
        (lambda: partial_ranking_distillation_loss(scores, targets, valid_count=-1), "valid_count"),
        (lambda: partial_ranking_distillation_loss(scores, targets, temperature=0.0), "temperature"),
        (lambda: partial_ranking_distillation_loss(scores, targets, valid=torch.ones(2, 3)), "valid"),
        (lambda: partial_ranking_distillation_loss(scores, targets, extra_negatives=randn(3, 1)), "extra_negatives"),
        (lambda: partial_ranking_distillation_loss(scores, targets, normalize="lists"), "normalize"),  # type: ignore[arg-type]
        (lambda: multi_granular_distillation_loss(scores, targets, **units, unit_weight=-1.0), "unit_weight"),
        (lambda: multi_granular_distillation_loss(scores[:1], targets[:1], **units), "unit_scores"),
        (lambda: multi_granular_distillation_loss(scores, targets * float("nan"), **units), "targets"),
        (
            lambda: multi_granular_distillation_loss(
                scores, targets, unit_scores=units["unit_scores"], unit_targets=units["unit_targets"] * float("nan")
            ),
            "unit_targets",
        ),
    ]
    for call, name in calls:
        with pytest.raises(RivalsError, match=name):
            call()
