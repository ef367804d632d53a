"""Uncertainty weighting and fixed weights: values, optima, absent tasks, the door."""

from __future__ import annotations

import math

import pytest
import torch

from rivals.errors import RivalsError
from rivals.losses import FixedWeighting, UncertaintyWeighting, uncertainty_weighted_sum

LOSSES = torch.tensor([0.7, 2.5], dtype=torch.float64)


def scalars(*values: float) -> list[torch.Tensor]:
    return [torch.tensor(value, dtype=torch.float64) for value in values]


def test_by_hand() -> None:
    s = LOSSES.log().requires_grad_()
    total = uncertainty_weighted_sum(LOSSES, s)
    assert total.item() == pytest.approx(0.3216625280 + 0.9581453659, abs=1e-10)
    assert torch.autograd.grad(total, s)[0].abs().max() < 1e-15
    weighting = UncertaintyWeighting(2).double()
    assert weighting(scalars(0.7, 2.5)).item() == pytest.approx(1.6)
    weighting.log_vars.data.copy_(LOSSES.log())
    assert weighting.weights().tolist() == pytest.approx([0.7142857, 0.2])
    torch.testing.assert_close(weighting.sigmas(), LOSSES.sqrt())
    assert UncertaintyWeighting(1, init=-0.5).weights().item() == pytest.approx(0.8243606)


@pytest.mark.parametrize(
    ("kind", "term", "best"),
    [
        ("generic", lambda loss, s: math.exp(-s) * loss / 2 + s / 2, lambda loss: math.log(loss)),
        ("regression", lambda loss, s: math.exp(-s) * loss / 2 + s / 2, lambda loss: math.log(loss)),
        ("classification", lambda loss, s: math.exp(-s) * loss + s / 2, lambda loss: math.log(2 * loss)),
        ("laplace", lambda loss, s: math.exp(-s / 2) * loss + s / 2, lambda loss: 2 * math.log(loss)),
        ("doubled", lambda loss, s: math.exp(-s) * loss + s, lambda loss: math.log(loss)),
    ],
)
def test_kinds_and_their_optima(kind: str, term: object, best: object) -> None:
    s = torch.tensor([0.4, -1.2], dtype=torch.float64)
    found = uncertainty_weighted_sum(LOSSES, s, kinds=kind)  # type: ignore[arg-type]
    wanted = sum(term(loss, value) for loss, value in zip(LOSSES.tolist(), s.tolist(), strict=True))  # type: ignore[operator]
    assert found.item() == pytest.approx(wanted)
    at = torch.tensor([best(loss) for loss in LOSSES.tolist()], dtype=torch.float64, requires_grad=True)  # type: ignore[operator]
    slope = torch.autograd.grad(uncertainty_weighted_sum(LOSSES, at, kinds=kind), at)[0]  # type: ignore[arg-type]
    assert slope.abs().max() < 1e-15
    mixed = uncertainty_weighted_sum(LOSSES, s, kinds=[kind, "generic"])  # type: ignore[list-item]
    rest = math.exp(1.2) * 2.5 / 2 - 0.6
    assert mixed.item() == pytest.approx(term(0.7, 0.4) + rest)  # type: ignore[operator]


def test_units_do_not_matter() -> None:
    s = torch.tensor([0.3, -0.6], dtype=torch.float64)
    losses = LOSSES.clone().requires_grad_()
    scaled = torch.tensor([1000.0, 1.0], dtype=torch.float64)
    here = uncertainty_weighted_sum(losses, s)
    there = uncertainty_weighted_sum(scaled * losses, s + scaled.log())
    assert (there - here).item() == pytest.approx(0.5 * math.log(1000))
    torch.testing.assert_close(torch.autograd.grad(here, losses)[0], torch.autograd.grad(there, losses)[0])


def test_learning_the_weights_multiplies_the_losses() -> None:
    weighting = UncertaintyWeighting(2).double()
    optimizer = torch.optim.LBFGS(weighting.parameters(), line_search_fn="strong_wolfe", max_iter=50)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        total = weighting(scalars(0.7, 2.5))
        total.backward()
        return total

    optimizer.step(closure)
    assert weighting(scalars(0.7, 2.5)).item() == pytest.approx(0.5 * (2 + math.log(0.7 * 2.5)))


def test_log1p_keeps_totals_positive() -> None:
    s = torch.tensor([-3.0, 0.5], dtype=torch.float64)
    plain = uncertainty_weighted_sum(torch.zeros(2).double(), s)
    kept = uncertainty_weighted_sum(torch.zeros(2).double(), s, regularizer="log1p")
    assert plain < 0 < kept
    assert kept.item() == pytest.approx(0.5 * (math.log1p(math.exp(-3)) + math.log1p(math.exp(0.5))))


def test_an_absent_task_takes_part_in_nothing() -> None:
    weighting = UncertaintyWeighting(["rank", "class", "size"], init=0.7).double()
    total = weighting({"size": scalars(2.0)[0], "class": None})
    total.backward()
    assert total.item() == pytest.approx(math.exp(-0.7) + 0.35, abs=1e-6)
    assert weighting.log_vars.grad is not None
    assert weighting.log_vars.grad[:2].tolist() == [0, 0]
    assert weighting.log_vars.grad[2] != 0
    assert weighting([None, None, scalars(2.0)[0]]).item() == pytest.approx(total.item())
    nan = torch.tensor([math.nan, 1.0], dtype=torch.float64)
    masked = uncertainty_weighted_sum(nan, torch.zeros(2).double(), torch.tensor([False, True]))
    assert masked.item() == pytest.approx(0.5)


def test_a_loss_of_zero_meets_the_clamp() -> None:
    weighting = UncertaintyWeighting(1, init=-50.0, clamp=(-3.0, 3.0))
    assert weighting.weights().item() == pytest.approx(0.5 * math.exp(3))
    assert torch.isfinite(weighting([torch.tensor(1.0)]))


def test_losses_below_zero() -> None:
    weighting = UncertaintyWeighting(["rank", "class"])
    with pytest.warns(UserWarning, match="task class is below 0"):
        weighting([torch.tensor(1.0), torch.tensor(-1.0)])
    with pytest.raises(RivalsError, match="task class is below 0"):
        UncertaintyWeighting(["rank", "class"], strict=True)([torch.tensor(1.0), torch.tensor(-1.0)])


def test_half_precision_losses_and_saved_weights() -> None:
    weighting = UncertaintyWeighting(2)
    total = weighting([torch.tensor(3.0, dtype=torch.bfloat16), torch.tensor(1.0)])
    assert total.dtype == torch.float32
    weighting.log_vars.data.fill_(0.3)
    again = UncertaintyWeighting(2)
    again.load_state_dict(weighting.state_dict())
    assert torch.equal(again.weights(), weighting.weights())


def test_fixed_weights() -> None:
    weights = torch.tensor([2.0, 0.5])
    weighting = FixedWeighting(["a", "b"], weights=weights)
    assert weighting({"a": torch.tensor(1.0), "b": torch.tensor(4.0)}).item() == 4
    assert weighting({"b": torch.tensor(4.0)}).item() == 2
    assert FixedWeighting(2)(scalars(1, 2)).item() == 3
    assert torch.equal(weighting.weights(), weights)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (scalars(1.0), "2 tasks"),
        ({"a": torch.tensor(1.0), "c": torch.tensor(1.0)}, "'c'"),
        (scalars(1.0, math.nan), "task b is nan"),
        ([torch.tensor(1.0), torch.ones(2)], "task b"),
        ([torch.tensor(1.0), torch.tensor(1)], "task b"),
    ],
)
def test_bad_losses(losses: object, message: str) -> None:
    for weighting in (UncertaintyWeighting(["a", "b"]), FixedWeighting(["a", "b"])):
        with pytest.raises(RivalsError, match=message):
            weighting(losses)


def test_bad_options() -> None:
    for options in (
        {"tasks": 0},
        {"tasks": ["a", "a"]},
        {"kinds": "gauss"},
        {"kinds": ["generic"]},
        {"clamp": (1.0, 0.0)},
    ):
        with pytest.raises(RivalsError):
            UncertaintyWeighting(**({"tasks": 2} | options))  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="regularizer"):
        uncertainty_weighted_sum(LOSSES, LOSSES, regularizer="l2")  # type: ignore[arg-type]
    for weights in (torch.ones(3), -torch.ones(2)):
        with pytest.raises(RivalsError, match="weights"):
            FixedWeighting(2, weights=weights)
