"""Asymmetric losses: the checks of paper 24's card, and both forms against the reference's arithmetic in plain Python."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    AdaptiveAsymmetricLoss,
    asymmetric_loss,
    asymmetric_softmax_loss,
    binary_cross_entropy_loss,
    focal_loss,
)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def entry(x: float, y: float, pos: float, neg: float, clip: float, eps: float) -> float:
    """One entry of the multi-label form, soft labels included."""
    p = 1 / (1 + math.exp(-x))
    n = min(1 - p + clip, 1.0)
    base = y * math.log(max(p, eps)) + (1 - y) * math.log(max(n, eps))
    return -((1 - (p * y + n * (1 - y))) ** (pos * y + neg * (1 - y))) * base


SCORES, RELEVANCE = normal(3, 5) * 2, (normal(3, 5, seed=1) > 0.5).double()


def test_without_gammas_and_clip_it_is_cross_entropy() -> None:
    ours = asymmetric_loss(SCORES, RELEVANCE, gamma_pos=0, gamma_neg=0, clip=0, reduction="sum")
    expected = F.binary_cross_entropy_with_logits(SCORES, RELEVANCE, reduction="sum")
    assert ours.item() == pytest.approx(expected.item(), rel=1e-13)


def test_an_easy_negative_costs_nothing() -> None:
    scores = rows([math.log(0.04 / 0.96)]).requires_grad_()
    loss = asymmetric_loss(scores, rows([0]))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, scores)[0].item() == 0


def test_a_negative_by_hand() -> None:
    score = rows([math.log(0.55 / 0.45)])
    assert asymmetric_loss(score, rows([0]), gamma_neg=2).item() == pytest.approx(0.1732868, abs=1e-7)


@pytest.mark.parametrize(("detach", "slope"), [(True, -0.25), (False, -0.4232868)])
def test_a_positive_by_hand(detach: bool, slope: float) -> None:
    score = rows([0]).requires_grad_()
    loss = asymmetric_loss(score, rows([1]), gamma_pos=1, detach_weight=detach)
    assert loss.item() == pytest.approx(0.3465736, abs=1e-7)
    assert torch.autograd.grad(loss, score)[0].item() == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize("options", [(0.0, 4.0, 0.05, 1e-8), (1.0, 2.5, 0.0, 1e-8), (0.5, 0.0, 0.3, 1e-8)], ids=str)
@pytest.mark.parametrize("soft", [False, True])
def test_against_the_reference(options: tuple[float, float, float, float], soft: bool) -> None:
    labels = torch.rand(3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64) if soft else RELEVANCE
    mask = normal(3, 5, seed=3) > -1
    pos, neg, clip, eps = options
    expected = [
        [entry(SCORES[i, k].item(), labels[i, k].item(), *options) if mask[i, k] else 0.0 for k in range(5)]
        for i in range(3)
    ]
    named: dict[str, Any] = {"gamma_pos": pos, "gamma_neg": neg, "clip": clip, "eps": eps}
    found = asymmetric_loss(SCORES, labels, mask, reduction="none", **named)
    assert found.tolist() == pytest.approx([sum(row) for row in expected], rel=1e-10)
    mean = asymmetric_loss(SCORES, labels, mask, **named)
    assert mean.item() == pytest.approx(sum(map(sum, expected)) / mask.sum().item(), rel=1e-10)


def test_the_clamp_of_the_reference_is_an_option() -> None:
    scores, relevance = rows([-30, 30]).requires_grad_(), rows([1, 0])
    clamped = asymmetric_loss(scores, relevance, gamma_neg=0, clip=0, eps=1e-8, reduction="sum")
    assert clamped.item() == pytest.approx(-2 * math.log(1e-8))
    assert torch.autograd.grad(clamped, scores)[0].tolist() == [[0, 0]]
    stable = asymmetric_loss(scores, relevance, gamma_neg=0, clip=0, reduction="sum")
    assert stable.item() == pytest.approx(60)
    assert torch.autograd.grad(stable, scores)[0][0].tolist() == pytest.approx([-1, 1])


def test_harder_options_never_raise_a_negatives_loss() -> None:
    scores, relevance = torch.linspace(-6, 6, 50, dtype=torch.float64)[:, None], torch.zeros(50, 1)

    def loss(**options: float) -> Tensor:
        return asymmetric_loss(scores, relevance, reduction="none", **options)

    for less, more in ((1.0, 2.0), (2.0, 5.0)):
        assert (loss(gamma_neg=more) <= loss(gamma_neg=less)).all()
    for less, more in ((0.0, 0.05), (0.05, 0.3)):
        assert (loss(clip=more) <= loss(clip=less) + 1e-15).all()


def test_unknown_labels_are_as_if_absent() -> None:
    mask = torch.tensor([[True, False, True, True, False]] * 3)
    labels = RELEVANCE.masked_fill(~mask, float("nan"))
    assert asymmetric_loss(SCORES, labels, mask).item() == pytest.approx(
        asymmetric_loss(SCORES[:, [0, 2, 3]], RELEVANCE[:, [0, 2, 3]]).item()
    )
    assert asymmetric_loss(SCORES, labels, torch.zeros_like(mask)).item() == 0


@pytest.mark.parametrize("gamma_pos", [0.5, 1.0])
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_the_gradient_through_the_weight(gamma_pos: float, clip: float) -> None:
    def loss(scores: Tensor) -> Tensor:
        return asymmetric_loss(scores, RELEVANCE, gamma_pos=gamma_pos, clip=clip, detach_weight=False)

    assert torch.autograd.gradcheck(loss, SCORES.clone().requires_grad_())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"gamma_neg": -1.0}, "gamma_neg"),
        ({"clip": 1.0}, "clip"),
        ({"eps": -1e-9}, "eps"),
        ({"gamma_pos": -1.0}, "pos"),
    ],
)
def test_bad_options(options: dict[str, float], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        asymmetric_loss(SCORES, RELEVANCE, **options)


def test_labels_are_at_most_one() -> None:
    with pytest.raises(RivalsError, match=r"relevance must lie in 0\.\.1"):
        asymmetric_loss(SCORES, 3 * RELEVANCE)


# ---------------------------------------------------------------------------------- one class an example

LABELS = torch.tensor([0, 4, 2])


@pytest.mark.parametrize(("pos", "neg", "smoothing"), [(0.0, 4.0, 0.1), (2.0, 1.5, 0.3), (1.0, 0.5, 0.0)])
def test_the_softmax_form_against_the_reference(pos: float, neg: float, smoothing: float) -> None:
    expected = 0.0
    for logits, label in zip(SCORES, LABELS.tolist(), strict=True):
        for k, lp in enumerate(logits.log_softmax(0).tolist()):
            p, own = math.exp(lp), float(k == label)
            power = (1 - p * own - (1 - p) * (1 - own)) ** (pos * own + neg * (1 - own))
            expected -= (own * (1 - smoothing) + smoothing / 5) * power * lp / 3
    found = asymmetric_softmax_loss(SCORES, LABELS, gamma_pos=pos, gamma_neg=neg, label_smoothing=smoothing)
    assert found.item() == pytest.approx(expected, rel=1e-10)


def test_limits_of_the_softmax_form() -> None:
    plain = asymmetric_softmax_loss(SCORES, LABELS, gamma_neg=0, label_smoothing=0)
    assert plain.item() == pytest.approx(F.cross_entropy(SCORES, LABELS).item())
    smooth = asymmetric_softmax_loss(SCORES, LABELS, gamma_neg=0, label_smoothing=0.2)
    assert smooth.item() == pytest.approx(F.cross_entropy(SCORES, LABELS, label_smoothing=0.2).item())
    focal = asymmetric_softmax_loss(SCORES, LABELS, gamma_pos=3, label_smoothing=0)
    assert focal.item() == pytest.approx(focal_loss(SCORES, LABELS, gamma=3).item())


def test_a_detached_weight_keeps_the_value_of_the_softmax_form() -> None:
    scores = SCORES.clone().requires_grad_()
    options: dict[str, Any] = {"gamma_pos": 1.0, "gamma_neg": 2.0}
    through, constant = (asymmetric_softmax_loss(scores, LABELS, detach_weight=d, **options) for d in (False, True))
    assert constant.item() == pytest.approx(through.item())
    p, t = SCORES.softmax(1), F.one_hot(LABELS, 5).double()
    power = torch.where(t > 0, 1 - p, p**2)
    expected = -((0.9 * t + 0.02) * power * scores.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(torch.autograd.grad(constant, scores)[0], torch.autograd.grad(expected, scores)[0])


@pytest.mark.parametrize("options", [{"label_smoothing": 1.0}, {"gamma_pos": -1.0}, {"gamma_neg": -1.0}])
def test_bad_options_of_the_softmax_form(options: dict[str, float]) -> None:
    with pytest.raises(RivalsError, match=next(iter(options))):
        asymmetric_softmax_loss(SCORES, LABELS, **options)


# ---------------------------------------------------------------------------------- gamma that adapts


def test_gamma_rises_while_positives_lag_and_falls_after() -> None:
    loss = AdaptiveAsymmetricLoss(target=0.1, rate=2.0, gamma_neg=1.0)
    behind = rows([0.0, -2.0])
    gap = 0.5 - 1 / (1 + math.exp(-2))
    value = loss(behind, rows([1, 0]))
    assert loss.gamma_neg.item() == pytest.approx(1 + 2 * (0.1 - gap))
    assert value.item() == pytest.approx(asymmetric_loss(behind, rows([1, 0]), gamma_neg=loss.gamma_neg.item()).item())
    for _ in range(9):
        loss(rows([9.0, 0.0]), rows([1, 0]))
    assert loss.gamma_neg.item() == 0  # never below
    loss.eval()(behind, rows([1, 0]))
    assert loss.gamma_neg.item() == 0


def test_gamma_is_saved_and_needs_both_kinds() -> None:
    loss = AdaptiveAsymmetricLoss(gamma_neg=2.0)
    loss(rows([1.0, 2.0]), rows([1, 0]), torch.tensor([[True, False]]))
    assert loss.gamma_neg.item() == 2
    fresh = AdaptiveAsymmetricLoss()
    fresh.load_state_dict(loss.state_dict())
    assert fresh.gamma_neg.item() == 2


def test_the_gradient_of_the_module_is_that_of_the_function() -> None:
    loss = AdaptiveAsymmetricLoss(gamma_neg=0.0, clip=0.0).eval()
    scores = SCORES.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(scores, RELEVANCE), scores)
    (expected,) = torch.autograd.grad(binary_cross_entropy_loss(scores, RELEVANCE), scores)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("options", [{"target": 1.0}, {"rate": -1.0}, {"gamma_neg": -1.0}])
def test_bad_options_of_the_module(options: dict[str, float]) -> None:
    with pytest.raises(RivalsError, match=next(iter(options))):
        AdaptiveAsymmetricLoss(**options)
