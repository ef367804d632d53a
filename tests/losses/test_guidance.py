"""Guidance by negatives, the weights of views, and the sampler's step."""

from __future__ import annotations

import math

import pytest
import torch

from rivals.errors import RivalsError
from rivals.losses import (
    ddim_schedule,
    ddim_step,
    exclude,
    guided_prediction,
    perpendicular_guidance,
    predict_clean,
    view_weights,
)

G = torch.Generator().manual_seed(0)
MAIN = torch.randn(3, 2, 4, generator=G, dtype=torch.float64)
OTHERS = torch.randn(5, 3, 2, 4, generator=G, dtype=torch.float64)
WEIGHTS = torch.randn(5, 3, generator=G, dtype=torch.float64)


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_by_hand() -> None:
    main, other = rows([1, 0]), rows([1, 1])[None]
    assert perpendicular_guidance(main, other, torch.tensor([-1.0])).tolist() == [[1, -1]]
    zero = torch.zeros(1, 2).double()
    plain = guided_prediction(zero, main, 1.0, others=other, weights=torch.tensor([-1.0]), perpendicular=False)
    assert plain.tolist() == [[0, -1]]


def test_the_main_direction_is_never_reduced() -> None:
    found = perpendicular_guidance(MAIN, OTHERS, WEIGHTS)
    torch.testing.assert_close((found * MAIN).sum((1, 2)), MAIN.square().sum((1, 2)))
    parallel = torch.stack([2 * MAIN, -MAIN])
    torch.testing.assert_close(perpendicular_guidance(MAIN, parallel, rows([-3], [1])[:, 0]), MAIN)
    torch.testing.assert_close(perpendicular_guidance(MAIN, OTHERS, torch.zeros(5)), MAIN)
    torch.testing.assert_close(perpendicular_guidance(MAIN, OTHERS, torch.full((5,), 1e-4)), MAIN)
    orthogonal = rows([0, 2])[None]
    assert perpendicular_guidance(rows([1, 0]), orthogonal, torch.tensor([-1.5])).tolist() == [[1, -3]]


def test_it_is_linear_in_the_weights_and_by_sample() -> None:
    found = perpendicular_guidance(MAIN, OTHERS, WEIGHTS)
    parts = [perpendicular_guidance(MAIN, OTHERS[k : k + 1], WEIGHTS[k : k + 1]) - MAIN for k in range(5)]
    torch.testing.assert_close(found, MAIN + torch.stack(parts).sum(0))
    alone = [perpendicular_guidance(MAIN[b : b + 1], OTHERS[:, b : b + 1], WEIGHTS[:, b : b + 1]) for b in range(3)]
    torch.testing.assert_close(found, torch.cat(alone))
    scaled = perpendicular_guidance(9 * MAIN, OTHERS, WEIGHTS) - 9 * MAIN
    torch.testing.assert_close(scaled, found - MAIN)


def test_without_a_main_direction_and_in_half_precision() -> None:
    none = perpendicular_guidance(torch.zeros_like(MAIN), OTHERS, WEIGHTS)
    torch.testing.assert_close(none, (WEIGHTS[:, :, None, None] * OTHERS).sum(0))
    big = torch.full((1, 20_000), 4.0, dtype=torch.float16)
    found = perpendicular_guidance(big, torch.stack([big, -big]), torch.tensor([-2.0, 1.0]))
    torch.testing.assert_close(found, big)


def test_guided_predictions() -> None:
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    assert guided_prediction(zero, one, 7.5).item() == 7.5
    assert guided_prediction(one, one, 3.3).item() == 1
    unconditional = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1)).double()
    found = guided_prediction(unconditional, MAIN, 7.5, others=OTHERS, weights=WEIGHTS)
    combined = perpendicular_guidance(MAIN - unconditional, OTHERS - unconditional, WEIGHTS)
    torch.testing.assert_close(found, unconditional + 7.5 * combined)


@pytest.mark.parametrize("scale", [7.5, 1.0, 0.5])
def test_the_gradient_of_the_negative(scale: float) -> None:
    negative = MAIN.clone().requires_grad_()
    positive, noisy = OTHERS[0], OTHERS[1]
    clean = predict_clean(noisy, guided_prediction(negative, positive, scale), 0.6)
    found = torch.autograd.grad((WEIGHTS[0, 0] * clean).sum(), negative)[0]
    wanted = (scale - 1) * math.sqrt(0.4 / 0.6) * WEIGHTS[0, 0]
    torch.testing.assert_close(found, torch.full_like(found, wanted.item()))


def test_steps_by_hand_and_back() -> None:
    x, eps = torch.tensor([1.0], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    assert predict_clean(x, eps, 0.64).item() == pytest.approx(0.875)
    assert ddim_step(x, eps, 0.64, 1.0).item() == pytest.approx(0.875)
    assert ddim_step(x, eps, 0.64, 0.81).item() == pytest.approx(1.005445, abs=1e-6)
    noisy = math.sqrt(0.3) * MAIN + math.sqrt(0.7) * OTHERS[0]
    torch.testing.assert_close(predict_clean(noisy, OTHERS[0], 0.3), MAIN, rtol=1e-10, atol=1e-10)
    for share in (0.0, 1.1, math.nan):
        with pytest.raises(RivalsError, match="alpha_bar"):
            predict_clean(x, eps, share)
        with pytest.raises(RivalsError, match="alpha_bar_prev"):
            ddim_step(x, eps, 0.5, share)


def test_the_schedule_of_stable_diffusion() -> None:
    """Against recorded values, which the library rounds to float32."""
    schedule = ddim_schedule(30)
    at = {int(t): (a.item(), b.item()) for t, a, b in zip(*schedule, strict=True)}
    assert at[331] == pytest.approx((0.5383222699165, 0.5938645601273), rel=1e-5)
    assert at[1] == pytest.approx((0.9982960224152, 0.9991499781609), rel=1e-6)
    assert (schedule.alpha_bar.diff() > 0).all()
    linear = ddim_schedule(10, train_steps=10, beta=(0.1, 0.2), kind="linear", offset=0)
    torch.testing.assert_close(linear.alpha_bar.flip(0), (1 - torch.linspace(0.1, 0.2, 10).double()).cumprod(0))
    for options in ({"steps": 0}, {"steps": 2000}, {"steps": 10, "beta": (0.2, 0.1)}, {"steps": 1000, "offset": 1}):
        with pytest.raises(RivalsError):
            ddim_schedule(**options)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------- embeddings


def test_exclude() -> None:
    queries = torch.randn(4, 6, generator=torch.Generator().manual_seed(2)).double()
    negatives = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(3)).double()
    mask = torch.tensor([[True, True, False]] * 4)
    found = exclude(queries, negatives.masked_fill(~mask[..., None], math.nan), mask, weight=0.5, renormalize=False)
    wanted = queries.clone()
    for k in range(2):
        n = negatives[:, k]
        wanted -= 0.5 * (n - (n * queries).sum(1, keepdim=True) / queries.square().sum(1, keepdim=True) * queries)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close((found * queries).sum(1), queries.square().sum(1))
    plain = exclude(queries, negatives, mask, perpendicular=False, renormalize=False)
    torch.testing.assert_close(plain, queries - negatives[:, :2].sum(1))
    torch.testing.assert_close(exclude(queries, negatives).norm(dim=1), queries.norm(dim=1))
    torch.testing.assert_close(exclude(queries, negatives[:, :0]), queries)


# --------------------------------------------------------------------------------------------------------------- views


@pytest.mark.parametrize(
    ("azimuth", "main", "weights", "first"),
    [
        (0, [1, 0, 0], [1, 0, -2], "front"),
        (30, [2 / 3, 1 / 3, 0], [1, -0.527194, -0.071348], "front"),
        (-30, [2 / 3, 1 / 3, 0], [1, -0.527194, -0.071348], "front"),
        (-90, [0, 1, 0], [1, -2, 0], "front"),
        (90, [0, 1, 0], [1, 0, -2], "side"),
        (135, [0, 0.5, 0.5], [1, -0.006738, -2], "side"),
        (-180, [0, 0, 1], [1, -1, -2], "side"),
    ],
)
def test_views(azimuth: float, main: list[float], weights: list[float], first: str) -> None:
    view = view_weights(azimuth)
    assert view.main.tolist() == pytest.approx(main)
    assert view.weights.tolist() == pytest.approx(weights, abs=1e-6)
    order = [[1, 0, 0], [0, 1, 0]]
    assert view.negatives.tolist() == (order if first == "front" else order[::-1])


def test_many_views_at_once() -> None:
    angles = torch.linspace(-180, 180, 37)
    together = view_weights(angles, negative_weight=-3.0, front_decay=1.0, side_decay=4.0)
    for place, angle in enumerate(angles.tolist()):
        alone = view_weights(angle, negative_weight=-3.0, front_decay=1.0, side_decay=4.0)
        assert all(torch.equal(many[place], one) for many, one in zip(together, alone, strict=True))
    torch.testing.assert_close(together.main.sum(-1), torch.ones(37).double())
    for wrong in (181.0, -360.0, math.nan):
        with pytest.raises(RivalsError, match="azimuth"):
            view_weights(wrong)


@pytest.mark.parametrize(
    ("main", "others", "weights"),
    [
        (MAIN, OTHERS[:, :2], WEIGHTS),
        (MAIN, OTHERS, WEIGHTS[:3]),
        (MAIN, OTHERS, WEIGHTS * math.nan),
        (MAIN[0, 0], OTHERS[:, 0, 0], WEIGHTS[:, 0]),
        (MAIN.long(), OTHERS, WEIGHTS),
    ],
)
def test_bad_directions(main: torch.Tensor, others: torch.Tensor, weights: torch.Tensor) -> None:
    with pytest.raises(RivalsError):
        perpendicular_guidance(main, others, weights)
    with pytest.raises(RivalsError, match="others and weights"):
        guided_prediction(MAIN, MAIN, 2.0, others=OTHERS)
    with pytest.raises(RivalsError, match="scale"):
        guided_prediction(MAIN, MAIN, math.inf)
