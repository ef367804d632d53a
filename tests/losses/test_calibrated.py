"""Dual focal loss, Brier loss and temperature scaling."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from rivals.errors import RivalsError
from rivals.losses import TemperatureScaling, brier_loss, dual_focal_loss, focal_loss

SCORES = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
LABELS = torch.randint(0, 6, (40,), generator=torch.Generator().manual_seed(1))
RELEVANCE = one_hot(LABELS, 6).double()


def label(index: int, size: int = 3) -> torch.Tensor:
    return one_hot(torch.tensor([index]), size).double()


@pytest.mark.parametrize(("index", "wanted"), [(0, 0.2503046), (1, 0.7705426), (2, 1.8650939)])
def test_by_hand(index: int, wanted: float) -> None:
    scores = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log()
    assert dual_focal_loss(scores, label(index), gamma=2.0).item() == pytest.approx(wanted, abs=1e-7)


def test_ties_are_no_competitors() -> None:
    uniform = torch.zeros(1, 4, dtype=torch.float64)
    assert dual_focal_loss(uniform, label(0, 4)).item() == pytest.approx(0.75**3 * math.log(4))
    two_on_top = torch.tensor([[0.4, 0.4, 0.2]], dtype=torch.float64).log()
    assert dual_focal_loss(two_on_top, label(1), gamma=2.0).item() == pytest.approx(0.8**2 * -math.log(0.4))


def test_between_focal_loss_and_cross_entropy() -> None:
    none = dual_focal_loss(SCORES, RELEVANCE, gamma=0.0)
    torch.testing.assert_close(none, cross_entropy(SCORES, LABELS))
    for gamma in (0.5, 1.0, 5.0):
        dual = dual_focal_loss(SCORES, RELEVANCE, gamma=gamma, reduction="none")
        assert (focal_loss(SCORES, LABELS, gamma=gamma, reduction="none") <= dual + 1e-15).all()
        assert (dual <= cross_entropy(SCORES, LABELS, reduction="none") + 1e-15).all()


def test_against_a_loop_and_its_gradient() -> None:
    scores = SCORES.clone().requires_grad_()
    p = scores.softmax(1)
    wanted = []
    for row, own in zip(p, LABELS, strict=True):
        below = row[row < row[own]]
        competitor = below.max() if len(below) else 0.0
        wanted.append(-((1 - row[own] + competitor) ** 2.5) * row[own].log())
    found = dual_focal_loss(scores, RELEVANCE, gamma=2.5, reduction="none")
    torch.testing.assert_close(found, torch.stack(wanted))
    (left,), (right,) = (
        torch.autograd.grad(total.sum(), scores, retain_graph=True) for total in (found, torch.stack(wanted))
    )
    torch.testing.assert_close(left, right)


def test_lists_with_grades_and_absent_candidates() -> None:
    """Competitors have a lower grade, and are there."""
    p = torch.tensor([0.35, 0.3, 0.2, 0.1, 0.05], dtype=torch.float64)
    relevance = torch.tensor([[2.0, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)

    def term(own: float, competitor: float) -> float:
        return -((1 - own + competitor) ** 2) * math.log(own)

    found = dual_focal_loss(p.log()[None], relevance, gamma=2.0).item()
    assert found == pytest.approx((term(0.35, 0.3) + term(0.3, 0.2)) / 2)
    binary = dual_focal_loss(p.log()[None], (relevance > 0).double(), gamma=2.0).item()
    assert binary == pytest.approx((term(0.35, 0.2) + term(0.3, 0.2)) / 2)
    mask = torch.tensor([[True, True, False, True, True]])
    masked = dual_focal_loss(p.log()[None], relevance, mask, gamma=2.0).item()
    assert masked == pytest.approx((term(0.35 / 0.8, 0.3 / 0.8) + term(0.3 / 0.8, 0.1 / 0.8)) / 2)


def test_a_certain_positive() -> None:
    scores = torch.tensor([[900.0, 0.0]], requires_grad=True)
    for gamma in (0.3, 1.0, 3.0):
        loss = dual_focal_loss(scores, torch.tensor([[1.0, 0.0]]), gamma=gamma)
        assert loss == 0
        assert torch.isfinite(torch.autograd.grad(loss, scores)[0]).all()
    with pytest.raises(RivalsError, match="gamma"):
        dual_focal_loss(scores, torch.tensor([[1.0, 0.0]]), gamma=-1.0)


def test_brier() -> None:
    wanted = (SCORES.softmax(1) - RELEVANCE).square().sum(1)
    torch.testing.assert_close(brier_loss(SCORES, RELEVANCE, reduction="none"), wanted)
    both = (label(0, 6) + label(1, 6)).expand(40, 6)
    each = [brier_loss(SCORES, label(k, 6).expand(40, 6)) for k in (0, 1)]
    torch.testing.assert_close(brier_loss(SCORES, both), (each[0] + each[1]) / 2)


def test_the_temperature_that_made_the_labels() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(20_000, 4, generator=generator)
    labels = (logits / 1.7).softmax(1).multinomial(1, generator=generator).squeeze(1)
    scaling = TemperatureScaling().fit(logits, one_hot(labels, 4).float())
    assert scaling.temperature.item() == pytest.approx(1.7, rel=0.05)
    at = [cross_entropy(logits / (scaling.temperature * f), labels).item() for f in (0.95, 1.0, 1.05)]
    assert at[1] == min(at)
    again = TemperatureScaling()
    again.load_state_dict(scaling.state_dict())
    assert torch.equal(again(logits), scaling(logits))


def test_temperature_of_lists_ignores_what_is_absent() -> None:
    mask = torch.ones_like(SCORES, dtype=torch.bool)
    wide = torch.cat([SCORES, torch.full((40, 1), float("nan"))], 1)
    there = torch.cat([mask, ~mask[:, :1]], 1)
    judged = torch.cat([RELEVANCE, RELEVANCE[:, :1]], 1)
    wanted = TemperatureScaling().fit(SCORES, RELEVANCE).temperature
    assert torch.equal(TemperatureScaling().fit(wide, judged, there).temperature, wanted)
    unjudged = torch.cat([SCORES, SCORES]), torch.cat([RELEVANCE, torch.zeros_like(RELEVANCE)])
    assert TemperatureScaling().fit(*unjudged).temperature.item() == pytest.approx(wanted.item())
    with pytest.raises(RivalsError, match="positive"):
        TemperatureScaling().fit(SCORES, torch.zeros_like(SCORES))
