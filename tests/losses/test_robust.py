"""Noise-robust softmax losses: formulas on probabilities, limits, symmetry over labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import one_hot

from rivals.errors import RivalsError
from rivals.losses import (
    asymmetric_generalized_cross_entropy_loss,
    asymmetric_unhinged_loss,
    generalized_cross_entropy_loss,
    jensen_shannon_loss,
    normalized_cross_entropy_loss,
    robust_log_loss,
    symmetric_cross_entropy_loss,
)

SCORES = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
LABELS = torch.tensor([0, 1, 4, 2, 2, 3])
RELEVANCE = one_hot(LABELS, 5).double()
P = SCORES.softmax(1)
OWN = P.gather(1, LABELS[:, None]).squeeze(1)
CROSS_ENTROPY = -OWN.log()


def kl(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (torch.special.xlogy(left, left) - torch.special.xlogy(left, right)).sum(1)


def jensen_shannon(w: float) -> torch.Tensor:
    middle = w * RELEVANCE + (1 - w) * P
    return -(w * kl(RELEVANCE, middle) + (1 - w) * kl(P, middle)) / ((1 - w) * math.log(1 - w))


def others(values: torch.Tensor) -> torch.Tensor:
    return (values.sum(1) - values.gather(1, LABELS[:, None]).squeeze(1)) / 4


FORMULAS: list[tuple[Callable[..., torch.Tensor], dict[str, Any], torch.Tensor]] = [
    (generalized_cross_entropy_loss, {}, (1 - OWN**0.7) / 0.7),
    (generalized_cross_entropy_loss, {"q": 1.0}, 1 - OWN),
    (
        generalized_cross_entropy_loss,
        {"q": 0.4, "truncate": 0.3},
        torch.minimum((1 - OWN**0.4) / 0.4, torch.tensor((1 - 0.3**0.4) / 0.4)),
    ),
    (symmetric_cross_entropy_loss, {}, 0.5 * CROSS_ENTROPY + 2 * (1 - OWN)),
    (
        symmetric_cross_entropy_loss,
        {"balance": 1.0, "amplitude": -math.log(1e-4)},
        -(P * RELEVANCE.clamp(min=1e-4).log()).sum(1),
    ),
    (normalized_cross_entropy_loss, {}, OWN.log() / P.log().sum(1)),
    (asymmetric_unhinged_loss, {}, ((1.5 - OWN) ** 0.9 - 0.5**0.9) / 0.9),
    (asymmetric_generalized_cross_entropy_loss, {}, (4 - (1 + OWN) ** 2) / 2),
    (asymmetric_generalized_cross_entropy_loss, {"a": 3.0, "q": 1.5}, (4**1.5 - (3 + OWN) ** 1.5) / 1.5),
    (jensen_shannon_loss, {}, jensen_shannon(0.5)),
    (jensen_shannon_loss, {"label_share": 0.1}, jensen_shannon(0.1)),
    (robust_log_loss, {}, -(1 + OWN).log() + others((1 + P).log())),
    (robust_log_loss, {"offset": 0.2}, -(0.2 + OWN).log() + others((0.2 + P).log())),
]


@pytest.mark.parametrize(("loss", "options", "wanted"), FORMULAS, ids=[f"{f.__name__}{o}" for f, o, _ in FORMULAS])
def test_formula(loss: Callable[..., torch.Tensor], options: dict[str, Any], wanted: torch.Tensor) -> None:
    torch.testing.assert_close(loss(SCORES, RELEVANCE, reduction="none", **options), wanted.double())
    torch.testing.assert_close(loss(SCORES, RELEVANCE, **options), wanted.double().mean())
    several = (RELEVANCE + one_hot((LABELS + 1) % 5, 5)).clamp(max=1)
    each = [loss(SCORES, one_hot((LABELS + k) % 5, 5).double(), **options) for k in (0, 1)]
    torch.testing.assert_close(loss(SCORES, several, **options), (each[0] + each[1]) / 2)


@pytest.mark.parametrize(("loss", "options", "wanted"), FORMULAS, ids=[f"{f.__name__}{o}" for f, o, _ in FORMULAS])
def test_a_weight_of_two_is_the_negative_twice(loss: Any, options: dict[str, Any], wanted: torch.Tensor) -> None:
    column = (LABELS + 2) % 5
    weight = torch.ones_like(SCORES).scatter_(1, column[:, None], 2.0)
    wide = torch.cat([SCORES, SCORES.gather(1, column[:, None])], 1)
    relevance = torch.cat([RELEVANCE, torch.zeros(6, 1).double()], 1)
    torch.testing.assert_close(loss(SCORES, RELEVANCE, weight=weight, **options), loss(wide, relevance, **options))


def all_labels(loss: Callable[..., torch.Tensor], **options: Any) -> torch.Tensor:
    rows = [loss(SCORES, one_hot(torch.full((6,), k), 5).double(), reduction="none", **options) for k in range(5)]
    return torch.stack(rows).sum(0)


def test_symmetric_losses_sum_to_a_constant_over_labels() -> None:
    def constant(value: float) -> torch.Tensor:
        return torch.full((6,), value, dtype=torch.float64)

    torch.testing.assert_close(all_labels(generalized_cross_entropy_loss, q=1.0), constant(4))
    torch.testing.assert_close(all_labels(normalized_cross_entropy_loss), constant(1))
    torch.testing.assert_close(all_labels(asymmetric_unhinged_loss, q=1.0, a=3.0), constant(4))
    torch.testing.assert_close(all_labels(robust_log_loss, offset=0.3), constant(0))


def test_limits() -> None:
    torch.testing.assert_close(
        generalized_cross_entropy_loss(SCORES, RELEVANCE, q=1e-6), CROSS_ENTROPY.mean(), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(
        jensen_shannon_loss(SCORES, RELEVANCE, label_share=1e-6), CROSS_ENTROPY.mean(), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(
        jensen_shannon_loss(SCORES, RELEVANCE, label_share=1 - 1e-9), (1 - OWN).mean(), rtol=0.1, atol=0
    )
    torch.testing.assert_close(symmetric_cross_entropy_loss(SCORES, RELEVANCE, balance=0.0), CROSS_ENTROPY.mean())
    tiny = asymmetric_generalized_cross_entropy_loss(SCORES, RELEVANCE, a=1e-9, q=0.7)
    torch.testing.assert_close(tiny, generalized_cross_entropy_loss(SCORES, RELEVANCE))


def test_truncated_positives_get_no_gradient() -> None:
    scores = SCORES.clone().requires_grad_()
    loss = generalized_cross_entropy_loss(scores, RELEVANCE, truncate=0.3)
    moved = torch.autograd.grad(loss, scores)[0].abs().sum(1) > 0
    assert torch.equal(moved, OWN > 0.3)


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (generalized_cross_entropy_loss, {"q": 0.0}),
        (generalized_cross_entropy_loss, {"q": 1.1}),
        (generalized_cross_entropy_loss, {"truncate": 1.0}),
        (symmetric_cross_entropy_loss, {"balance": 1.5}),
        (symmetric_cross_entropy_loss, {"amplitude": 0.0}),
        (asymmetric_unhinged_loss, {"a": 1.0}),
        (asymmetric_generalized_cross_entropy_loss, {"q": -1.0}),
        (jensen_shannon_loss, {"label_share": 1.0}),
        (robust_log_loss, {"offset": 0.0}),
    ],
)
def test_bad_options(loss: Callable[..., torch.Tensor], options: dict[str, Any]) -> None:
    with pytest.raises(RivalsError, match=rf"^{next(iter(options))} must"):
        loss(SCORES, RELEVANCE, **options)
