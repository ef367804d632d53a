"""Regression losses against torch and scikit-learn, by hand, and where their pieces meet."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import mean_pinball_loss

from rivals.errors import RivalsError
from rivals.losses import (
    absolute_error_loss,
    balanced_l1_loss,
    berhu_loss,
    huber_loss,
    log_cosh_loss,
    poisson_loss,
    quantile_loss,
    root_mean_squared_error_loss,
    smooth_l1_loss,
    squared_error_loss,
    wing_loss,
)

SCORES = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
TARGETS = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def at(loss: Callable[..., torch.Tensor], error: float, **options: Any) -> float:
    """The loss of one error, target minus score."""
    return loss(torch.zeros(1, 1).double(), torch.full((1, 1), error).double(), **options).item()


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (squared_error_loss(SCORES, TARGETS), F.mse_loss(SCORES, TARGETS)),
        (absolute_error_loss(SCORES, TARGETS), F.l1_loss(SCORES, TARGETS)),
        (huber_loss(SCORES, TARGETS, delta=2.0), F.huber_loss(SCORES, TARGETS, delta=2.0)),
        (smooth_l1_loss(SCORES, TARGETS, beta=0.5), F.smooth_l1_loss(SCORES, TARGETS, beta=0.5)),
        (poisson_loss(SCORES, TARGETS), F.poisson_nll_loss(SCORES, TARGETS)),
        (log_cosh_loss(SCORES, TARGETS), (SCORES - TARGETS).cosh().log().mean()),
    ],
)
def test_peers(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_quantiles_are_those_of_scikit_learn(quantile: float) -> None:
    wanted = mean_pinball_loss(TARGETS.flatten(), SCORES.flatten(), alpha=quantile)
    assert quantile_loss(SCORES, TARGETS, quantile=quantile).item() == pytest.approx(wanted)


def test_by_hand() -> None:
    assert at(log_cosh_loss, 0) == 0
    assert at(log_cosh_loss, 1) == pytest.approx(0.4337808, abs=1e-7)
    assert at(log_cosh_loss, 1000) == pytest.approx(999.3068528, abs=1e-7)
    assert at(log_cosh_loss, -1000) == pytest.approx(999.3068528, abs=1e-7)
    assert at(quantile_loss, 2, quantile=0.9) == pytest.approx(1.8)
    assert at(quantile_loss, -2, quantile=0.9) == pytest.approx(0.2)
    assert at(wing_loss, 3) == pytest.approx(10 * math.log(2.5))
    assert at(wing_loss, -12) == pytest.approx(12 - (10 - 10 * math.log(6)))
    b = math.exp(3) - 1
    assert at(balanced_l1_loss, 0.5) == pytest.approx(0.5 / b * (b / 2 + 1) * math.log(b / 2 + 1) - 0.25)
    assert at(balanced_l1_loss, -3) == pytest.approx(4.5 + 1.5 / b - 0.5)
    assert at(berhu_loss, 3, threshold=1.0) == pytest.approx(5.0)
    assert at(berhu_loss, 0.5, threshold=1.0) == pytest.approx(0.5)


def test_the_threshold_of_berhu_is_a_fifth_of_the_largest_error() -> None:
    error = (SCORES - TARGETS).abs()
    c = 0.2 * error.max()
    wanted = torch.where(error <= c, error, (error**2 + c**2) / (2 * c)).mean()
    torch.testing.assert_close(berhu_loss(SCORES, TARGETS), wanted)
    mask = error < 4
    wide = berhu_loss(SCORES.masked_fill(~mask, float("inf")), TARGETS, mask)
    torch.testing.assert_close(wide, berhu_loss(SCORES[mask][None], TARGETS[mask][None]))
    assert berhu_loss(SCORES, SCORES) == 0


@pytest.mark.parametrize(
    ("loss", "joint", "options"),
    [
        (wing_loss, 10.0, {}),
        (wing_loss, 3.0, {"width": 3.0, "curvature": 0.7}),
        (balanced_l1_loss, 1.0, {}),
        (balanced_l1_loss, 1.0, {"alpha": 0.8, "gamma": 2.0}),
        (berhu_loss, 1.5, {"threshold": 1.5}),
        (huber_loss, 1.0, {}),
        (smooth_l1_loss, 1.0, {}),
    ],
)
def test_pieces_meet(loss: Callable[..., torch.Tensor], joint: float, options: dict[str, float]) -> None:
    assert at(loss, joint * (1 - 1e-12), **options) == pytest.approx(at(loss, joint * (1 + 1e-12), **options), abs=1e-9)


def test_relations() -> None:
    half = 0.5 * squared_error_loss(SCORES, TARGETS)
    torch.testing.assert_close(huber_loss(SCORES, TARGETS, delta=1e6), half)
    torch.testing.assert_close(smooth_l1_loss(SCORES, TARGETS, beta=0.3), huber_loss(SCORES, TARGETS, delta=0.3) / 0.3)
    torch.testing.assert_close(quantile_loss(SCORES, TARGETS), 0.5 * absolute_error_loss(SCORES, TARGETS))
    torch.testing.assert_close(berhu_loss(SCORES, TARGETS, threshold=1e6), absolute_error_loss(SCORES, TARGETS))


def test_gradients_at_moderate_scores() -> None:
    scores = SCORES[:2, :3].clone().requires_grad_()
    torch.autograd.gradcheck(lambda s: poisson_loss(s, TARGETS[:2, :3]), scores)
    torch.autograd.gradcheck(lambda s: berhu_loss(s, TARGETS[:2, :3], threshold=0.7), scores)


def test_weights_and_reductions() -> None:
    weight = torch.rand(5, 7, generator=torch.Generator().manual_seed(2)).double()
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(3)) < 0.6
    terms = (weight * (SCORES - TARGETS).abs()).masked_fill(~mask, 0.0)
    torch.testing.assert_close(absolute_error_loss(SCORES, TARGETS, mask, weight=weight), terms.sum() / mask.sum())
    by_list = absolute_error_loss(SCORES, TARGETS, mask, weight=weight, reduction="list_mean")
    torch.testing.assert_close(by_list, (terms.sum(1) / mask.sum(1)).mean())


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (huber_loss, {"delta": 0.0}),
        (smooth_l1_loss, {"beta": -1.0}),
        (quantile_loss, {"quantile": 1.0}),
        (balanced_l1_loss, {"alpha": 0.0}),
        (balanced_l1_loss, {"gamma": 0.0}),
        (wing_loss, {"width": 0.0}),
        (wing_loss, {"curvature": 0.0}),
        (berhu_loss, {"threshold": 0.0}),
    ],
)
def test_bad_options(loss: Callable[..., torch.Tensor], options: dict[str, float]) -> None:
    with pytest.raises(RivalsError, match=rf"^{next(iter(options))} must"):
        loss(SCORES, TARGETS, **options)


def test_root_mean_squared_error_by_hand() -> None:
    """Paper 21: errors t - levels s, the root of every list's mean, then the mean of the lists."""
    scores = torch.tensor([[0.5, 0.25, 9.0], [1.0, 0.0, 0.5], [7.0, 7.0, 7.0]], dtype=torch.float64)
    targets = torch.tensor([[4.0, 0.0, -5.0], [4.0, 3.0, 0.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True] * 3, [False] * 3])
    found = root_mean_squared_error_loss(scores, targets, mask, levels=4.0, reduction="none")
    wanted = [math.sqrt((2**2 + 1) / 2), math.sqrt((0 + 9 + 4) / 3), 0.0]
    assert found.tolist() == pytest.approx(wanted)
    mean = root_mean_squared_error_loss(scores, targets, mask, levels=4.0)
    assert mean.item() == pytest.approx(sum(wanted) / 2)


def test_root_mean_squared_error_against_its_relations() -> None:
    whole = root_mean_squared_error_loss(SCORES.reshape(1, -1), TARGETS.reshape(1, -1))
    torch.testing.assert_close(whole, squared_error_loss(SCORES, TARGETS).sqrt())
    alone = root_mean_squared_error_loss(SCORES.unsqueeze(-1), TARGETS.unsqueeze(-1))
    torch.testing.assert_close(alone, absolute_error_loss(SCORES, TARGETS))
    weight = torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64)
    twice = root_mean_squared_error_loss(SCORES[:1, [0, 0, 2]], TARGETS[:1, [0, 0, 2]])
    torch.testing.assert_close(root_mean_squared_error_loss(SCORES[:1, :3], TARGETS[:1, :3], weight=weight), twice)


def test_root_mean_squared_error_without_an_error_has_no_slope() -> None:
    scores = TARGETS.clone().requires_grad_()
    root_mean_squared_error_loss(scores, TARGETS).backward()
    assert scores.grad is not None
    assert (scores.grad == 0).all()
    with pytest.raises(RivalsError, match="levels"):
        root_mean_squared_error_loss(SCORES, TARGETS, levels=0.0)
