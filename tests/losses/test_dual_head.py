"""Distillation of logits with their level: binary KL and logit distance."""

from __future__ import annotations

import math

import pytest
import torch

from rivals.errors import RivalsError
from rivals.losses import binary_kl_loss, log_cosh_loss, logit_distance_loss

STUDENT = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
TEACHER = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3


def one(value: float) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def test_by_hand() -> None:
    assert logit_distance_loss(one(2), one(0)).item() == pytest.approx(0.480458, abs=1e-6)
    assert binary_kl_loss(one(0), one(2)).item() == pytest.approx(0.443776, abs=1e-6)
    student = one(2).requires_grad_()
    (slope,) = torch.autograd.grad(logit_distance_loss(student, one(0)), student)
    assert slope.item() == pytest.approx(0.462117, abs=1e-6)  # T (sigmoid(1) - 1/2)


@pytest.mark.parametrize("temperature", [0.5, 2.0, 4.0])
def test_formulas_on_probabilities(temperature: float) -> None:
    p, q = (TEACHER / temperature).sigmoid(), (STUDENT / temperature).sigmoid()
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    found = binary_kl_loss(STUDENT, TEACHER, temperature=temperature)
    torch.testing.assert_close(found, temperature**2 * kl.sum(1).mean())
    s = ((STUDENT - TEACHER) / temperature).sigmoid()
    even = 0.5 * (0.5 / s).log() + 0.5 * (0.5 / (1 - s)).log()
    found = logit_distance_loss(STUDENT, TEACHER, temperature=temperature)
    torch.testing.assert_close(found, temperature**2 * even.sum(1).mean())


@pytest.mark.parametrize("loss", [binary_kl_loss, logit_distance_loss])
def test_no_distance_no_loss_and_no_gradient_for_the_teacher(loss: object) -> None:
    student = TEACHER.clone().requires_grad_()
    value = loss(student, TEACHER)  # type: ignore[operator]
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(value, student)[0].abs().max() < 1e-12
    teacher = TEACHER.clone().requires_grad_()
    assert not loss(STUDENT, teacher).requires_grad  # type: ignore[operator]
    shifted = loss(STUDENT + 1, TEACHER)  # type: ignore[operator]
    assert abs((shifted - loss(STUDENT, TEACHER)).item()) > 1e-3  # type: ignore[operator]
    with pytest.raises(RivalsError, match="temperature"):
        loss(STUDENT, TEACHER, temperature=0.0)  # type: ignore[operator]


def test_symmetry_and_small_differences() -> None:
    torch.testing.assert_close(logit_distance_loss(STUDENT, TEACHER), logit_distance_loss(TEACHER, STUDENT))
    assert binary_kl_loss(STUDENT, TEACHER) != binary_kl_loss(TEACHER, STUDENT)
    near = TEACHER + 1e-3 * STUDENT
    ratio = logit_distance_loss(near, TEACHER, reduction="sum") / ((near - TEACHER).square().sum() / 8)
    assert ratio.item() == pytest.approx(1, rel=1e-5)
    far = logit_distance_loss(one(1e4), one(-1e4))
    assert far.item() == pytest.approx(2e4 - 4 * math.log(2))
    halved = 4 * log_cosh_loss(STUDENT / 4, TEACHER / 4, reduction="none").mean()
    torch.testing.assert_close(logit_distance_loss(STUDENT, TEACHER), halved)


def test_masks_and_weights() -> None:
    mask = torch.rand(4, 6, generator=torch.Generator().manual_seed(2)) < 0.6
    mask[3] = False
    weight = torch.rand(4, 6, generator=torch.Generator().manual_seed(3)).double()
    each = torch.stack(
        [
            torch.stack([binary_kl_loss(s.view(1, 1), t.view(1, 1)) for s, t in zip(*pair, strict=True)])
            for pair in zip(STUDENT, TEACHER, strict=True)
        ]
    )
    found = binary_kl_loss(STUDENT, TEACHER.masked_fill(~mask, math.nan), mask, weight=weight)
    torch.testing.assert_close(found, (weight * each)[mask].sum() / 3)
