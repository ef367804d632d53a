"""The hazard likelihood with censoring and two terms, survival curves, value weights, time bins."""

from __future__ import annotations

import math

import pytest
import torch

from rivals.errors import RivalsError
from rivals.losses import discretize_durations, expected_lifetime, hazard_loss, survival_from_logits, value_weights

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(30, 6, generator=GENERATOR, dtype=torch.float64)
BINS = torch.randint(0, 6, (30,), generator=GENERATOR)
EVENTS = torch.randint(0, 2, (30,), generator=GENERATOR)


@pytest.mark.parametrize(("t", "event", "wanted"), [(1, 1, 2), (1, 0, 2), (0, 1, 1), (2, 1, 3)])
def test_by_hand(t: int, event: int, wanted: int) -> None:
    found = hazard_loss(torch.zeros(1, 3), torch.tensor([t]), events=torch.tensor([event]))
    assert found.item() == pytest.approx(wanted * math.log(2))


def test_against_the_probability_of_what_was_seen() -> None:
    """The likelihood of an event is S_{t-1} h_t, of censoring S_t."""
    hazards = LOGITS.sigmoid()
    survival = torch.cat([torch.ones(30, 1).double(), (1 - hazards).cumprod(1)], 1)
    row = torch.arange(30)
    seen = torch.where(EVENTS > 0, survival[row, BINS] * hazards[row, BINS], survival[row, BINS + 1])
    found = hazard_loss(LOGITS, BINS, events=EVENTS, reduction="none")
    torch.testing.assert_close(found, -seen.log())
    torch.testing.assert_close(survival_from_logits(LOGITS), survival[:, 1:])
    pmf = survival[:, :-1] * hazards
    torch.testing.assert_close(pmf.sum(1) + survival[:, -1], torch.ones(30).double())
    torch.testing.assert_close(expected_lifetime(LOGITS, bin_width=7.0), 7 * survival[:, 1:].sum(1))


@pytest.mark.parametrize("boundary", [1, 3, 5])
def test_two_terms_add_up_to_the_whole(boundary: int) -> None:
    options = {"events": EVENTS, "boundary": boundary}
    for reduction in ("sum", "none"):
        torch.testing.assert_close(
            hazard_loss(LOGITS, BINS, reduction=reduction, **options),  # type: ignore[arg-type]
            hazard_loss(LOGITS, BINS, reduction=reduction, events=EVENTS),  # type: ignore[arg-type]
        )
    reached = boundary <= BINS
    short = hazard_loss(LOGITS[:, :boundary], BINS.clamp(max=boundary - 1), events=EVENTS.masked_fill(reached, 0))
    weight = torch.rand(30, generator=torch.Generator().manual_seed(1)).double()
    long = hazard_loss(
        LOGITS[reached][:, boundary:], BINS[reached] - boundary, events=EVENTS[reached], weight=weight[reached]
    )
    found = hazard_loss(LOGITS, BINS, long_weight=0.7, **options)  # type: ignore[arg-type]
    plain_long = hazard_loss(LOGITS[reached][:, boundary:], BINS[reached] - boundary, events=EVENTS[reached])
    torch.testing.assert_close(found, short + 0.7 * plain_long)
    weighted_short = hazard_loss(
        LOGITS[:, :boundary], BINS.clamp(max=boundary - 1), events=EVENTS.masked_fill(reached, 0), weight=weight
    )
    weighted = hazard_loss(LOGITS, BINS, weight=weight, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(weighted, weighted_short + long)


def test_a_long_term_that_nobody_reaches() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = hazard_loss(logits, BINS.clamp(max=1), events=EVENTS, boundary=3)
    gradient = torch.autograd.grad(loss, logits)[0]
    assert torch.isfinite(loss)
    assert (gradient[:, 3:] == 0).all()


def test_later_bins_do_not_matter_and_censoring_pushes_down() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = hazard_loss(logits, BINS, events=torch.zeros(30))
    gradient = torch.autograd.grad(loss, logits)[0]
    lived = torch.arange(6) <= BINS[:, None]
    assert (gradient[~lived] == 0).all()
    assert (gradient[lived] > 0).all()


def test_weights() -> None:
    weight = torch.ones(30).double()
    plain = hazard_loss(LOGITS, BINS, events=EVENTS)
    torch.testing.assert_close(hazard_loss(LOGITS, BINS, events=EVENTS, weight=3 * weight), plain)
    weight[4], weight[7] = 0.0, 2.0
    kept = torch.tensor([i for i in range(30) if i != 4] + [7])
    twice = hazard_loss(LOGITS[kept], BINS[kept], events=EVENTS[kept])
    torch.testing.assert_close(hazard_loss(LOGITS, BINS, events=EVENTS, weight=weight), twice)


def test_absent_items_may_hold_anything() -> None:
    mask = torch.arange(30) != 11
    logits, events = LOGITS.clone(), EVENTS.double()
    logits[11], events[11] = math.nan, math.nan
    found = hazard_loss(logits, BINS, mask, events=events)
    torch.testing.assert_close(found, hazard_loss(LOGITS[mask], BINS[mask], events=EVENTS[mask].bool()))


def test_extreme_logits() -> None:
    logits = torch.tensor([[60.0, -60.0], [-1e4, 1e4]], requires_grad=True)
    loss = hazard_loss(logits, torch.tensor([1, 1]), events=torch.tensor([1, 0]))
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


def test_value_weights() -> None:
    values = torch.tensor([1.0, 4.0, 4.0, 0.0, 91.0])
    assert value_weights(values).mean().item() == pytest.approx(1)
    torch.testing.assert_close(value_weights(values, normalize=False), values)
    torch.testing.assert_close(value_weights(values, kind="log1p", normalize=False), values.log1p())
    assert value_weights(values, kind="rank", normalize=False).tolist() == pytest.approx([0.4, 0.6, 0.6, 0.2, 1.0])
    torch.testing.assert_close(value_weights(values, kind=torch.sqrt, normalize=False), values.sqrt())
    assert value_weights(values, clip=0.75, normalize=False).tolist() == [1, 4, 4, 0, 4]
    for wrong, options in [(-values, {}), (values * 0, {}), (values, {"clip": 0.0}), (values, {"kind": "cubic"})]:
        with pytest.raises(RivalsError):
            value_weights(wrong, **options)  # type: ignore[arg-type]


def test_bins_of_time() -> None:
    times = torch.arange(1.0, 101.0)
    bins, edges = discretize_durations(times, 4)
    assert torch.bincount(bins).tolist() == [25, 25, 25, 25]
    assert torch.equal(torch.bucketize(times, edges), bins)
    bins, edges = discretize_durations(times, 5, scheme="equal")
    assert edges.tolist() == pytest.approx([20, 40, 60, 80])
    assert torch.bincount(bins).tolist() == [20] * 5
    observed = times > 50
    _, edges = discretize_durations(times, 2, events=observed)
    assert edges.tolist() == [75.5]
    assert len(discretize_durations(torch.ones(9), 4)[1]) == 1
    for wrong in (torch.ones(0), -times, times.long()):
        with pytest.raises(RivalsError, match="times"):
            discretize_durations(wrong, 3)
    with pytest.raises(RivalsError, match="num_bins"):
        discretize_durations(times, 1)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"events": torch.full((30,), 2)}, "events"),
        ({"events": torch.ones(4)}, "events"),
        ({"boundary": 0}, "boundary"),
        ({"boundary": 6}, "boundary"),
        ({"boundary": 2, "long_weight": -1.0}, "long_weight"),
        ({"weight": torch.zeros(30)}, "weight"),
    ],
)
def test_bad_input(options: dict[str, object], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        hazard_loss(LOGITS, BINS, **options)  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="labels"):
        hazard_loss(LOGITS, BINS + 3)
