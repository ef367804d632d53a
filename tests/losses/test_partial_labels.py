"""Large-loss modification and boosted pooling: the checks of paper 80's card."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    BoostLU,
    boosted_pool,
    large_loss_fraction,
    large_loss_modification_loss,
    large_loss_selection,
)

GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(4, 5, generator=GENERATOR, dtype=torch.float64)
RELEVANCE = F.one_hot(torch.tensor([4, 2, 3, 2]), 5)


def plain(scores: Tensor = SCORES) -> Tensor:
    return F.binary_cross_entropy_with_logits(scores, RELEVANCE.double(), reduction="none")


def test_no_fraction_is_cross_entropy() -> None:
    assert large_loss_modification_loss(SCORES, RELEVANCE, fraction=0.0).item() == pytest.approx(plain().mean().item())
    assert not large_loss_selection(SCORES, RELEVANCE, fraction=0.0).any()


def test_the_highest_scored_unknown_entries_are_selected() -> None:
    selected = large_loss_selection(SCORES, RELEVANCE, fraction=0.15)
    assert selected.sum() == 3
    order = SCORES.masked_fill(RELEVANCE > 0, -99).flatten().argsort(descending=True)[:3]
    assert set(selected.flatten().nonzero()[:, 0].tolist()) == set(order.tolist())


def test_rejected_and_corrected_entries() -> None:
    selected = large_loss_selection(SCORES, RELEVANCE, fraction=0.15)
    scores = SCORES.clone().requires_grad_()
    rejected = large_loss_modification_loss(scores, RELEVANCE, fraction=0.15)
    assert rejected.item() == pytest.approx((plain() * ~selected).sum().item() / 20)
    gradient = torch.autograd.grad(rejected, scores)[0]
    assert (gradient[selected] == 0).all()
    flipped = F.binary_cross_entropy_with_logits(SCORES, torch.ones_like(SCORES), reduction="none")
    corrected = large_loss_modification_loss(scores, RELEVANCE, fraction=0.15, scheme="correct")
    assert corrected.item() == pytest.approx(torch.where(selected, flipped, plain()).mean().item())
    assert (torch.autograd.grad(corrected, scores)[0][selected] < 0).all()


def test_known_labels_are_never_selected() -> None:
    unknown = torch.zeros(4, 5, dtype=torch.bool)
    unknown[0, :2] = True
    everything = large_loss_selection(SCORES, RELEVANCE, unknown=unknown, fraction=0.5)  # 10 wanted, 2 unknown
    assert everything.equal(unknown)
    loss = large_loss_modification_loss(SCORES, RELEVANCE, unknown=unknown, fraction=0.5)
    assert loss.item() == pytest.approx((plain() * ~unknown).sum().item() / 20)


def test_the_relevance_of_an_unknown_entry_is_not_read() -> None:
    unknown = RELEVANCE == 0
    unknown[1, 2] = True
    relevance = RELEVANCE.clone()
    relevance[1, 2] = 0
    for scheme in ("reject", "correct"):
        found = large_loss_modification_loss(SCORES, RELEVANCE, unknown=unknown, fraction=0.2, scheme=scheme)
        assert found.item() == large_loss_modification_loss(SCORES, relevance, fraction=0.2, scheme=scheme).item()


def test_padding_is_neither_counted_nor_selected() -> None:
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[:, 0] = False
    selected = large_loss_selection(SCORES.masked_fill(~mask, 99.0), RELEVANCE, mask, fraction=0.25)
    assert selected.sum() == 4
    assert not selected[:, 0].any()


def test_ties_at_the_last_place_are_all_selected() -> None:
    scores = torch.tensor([[1.0, 1.0, 0.0, 2.0]])
    selected = large_loss_selection(scores, torch.tensor([[0, 0, 0, 1]]), fraction=0.25)
    assert selected.tolist() == [[True, True, False, False]]


def test_rounding_up_and_rounding_at_random() -> None:
    scores, relevance = torch.arange(5.0)[None], torch.zeros(1, 5)
    assert large_loss_selection(scores, relevance, fraction=0.01).sum() == 1
    generator = torch.Generator().manual_seed(0)
    numbers = [large_loss_selection(scores, relevance, fraction=0.25, generator=generator).sum() for _ in range(400)]
    assert set(map(int, numbers)) == {1, 2}
    assert float(sum(numbers)) / 400 == pytest.approx(1.25, abs=0.1)
    seeds = [torch.Generator().manual_seed(3) for _ in range(2)]
    first, second = (large_loss_modification_loss(scores, relevance, fraction=0.3, generator=seed) for seed in seeds)
    assert first.item() == second.item()


def test_the_schedule() -> None:
    assert [large_loss_fraction(t, scheme="reject") for t in (1, 2, 10)] == pytest.approx([0.0, 0.005, 0.045])
    assert [large_loss_fraction(t, scheme="correct") for t in (1, 2, 3)] == pytest.approx([0.0, 0.002, 0.004])
    assert [large_loss_fraction(t, scheme="correct_permanent") for t in (1, 2, 9)] == [0.0, 0.001, 0.001]
    assert large_loss_fraction(7, scheme="reject", delta=0.1, start_epoch=5) == pytest.approx(0.3)
    assert large_loss_fraction(99, scheme="reject", delta=0.5) == 1.0


def test_correction_for_good_is_a_rewrite_of_the_labels() -> None:
    relevance, unknown = RELEVANCE.clone(), RELEVANCE == 0
    selected = large_loss_selection(SCORES, relevance, unknown=unknown, fraction=0.15)
    corrected = large_loss_modification_loss(SCORES, relevance, unknown=unknown, fraction=0.15, scheme="correct")
    relevance[selected], unknown[selected] = 1, False
    after = large_loss_modification_loss(SCORES, relevance, unknown=unknown, fraction=0.0)
    assert after.item() == pytest.approx(corrected.item())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"fraction": 1.5}, "fraction"),
        ({"scheme": "correct_permanent"}, "scheme"),
        ({"unknown": torch.ones(4, 5)}, "unknown"),
        ({"unknown": torch.ones(4, 4, dtype=torch.bool)}, "unknown"),
    ],
)
def test_bad_options(options: dict[str, Any], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        large_loss_modification_loss(SCORES, RELEVANCE, **options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"epoch": 0}, "epoch"),
        ({"start_epoch": 0}, "start_epoch"),
        ({"delta": 2.0}, "delta"),
        ({"scheme": "x"}, "scheme"),
    ],
)
def test_bad_schedules(options: dict[str, Any], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        large_loss_fraction(**({"epoch": 3, "scheme": "reject"} | options))


# ---------------------------------------------------------------------------------- boosted pooling


def test_the_pooled_value_of_the_card() -> None:
    scores = torch.tensor([-1.0, 2.0], requires_grad=True)
    pooled = boosted_pool(scores)
    assert pooled.item() == 4.5
    assert torch.autograd.grad(pooled, scores)[0].tolist() == [0.5, 2.5]
    assert boosted_pool(scores, alpha=1.0).item() == 0.5


def test_plain_pooling_is_a_linear_layer_on_pooled_features() -> None:
    features = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(1))  # items, features, locations
    layer = torch.nn.Linear(8, 2)
    at_locations = layer(features.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(boosted_pool(at_locations, alpha=1.0), layer(features.mean(2)))


@pytest.mark.parametrize("pool", ["mean", "max", "logsumexp"])
def test_padding_and_nothing_at_all(pool: Any) -> None:
    scores = torch.tensor([[-1.0, 2.0, float("nan")], [7.0, 7.0, 7.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    pooled = boosted_pool(scores, mask, pool=pool)
    values = {"mean": 4.5, "max": 10.0, "logsumexp": math.log(math.exp(-1) + math.exp(10))}
    assert pooled.tolist() == pytest.approx([values[pool], 0.0])
    gradient = torch.autograd.grad(pooled.sum(), scores)[0]
    assert torch.isfinite(gradient).all()
    assert (gradient[~mask] == 0).all()
    assert boosted_pool(torch.zeros(2, 0), pool=pool).tolist() == [0, 0]


def test_the_slope_at_zero_is_one() -> None:
    scores = torch.zeros(1, requires_grad=True)
    assert torch.autograd.grad(BoostLU()(scores).sum(), scores)[0].item() == 1
    assert "alpha=5.0" in repr(BoostLU())


@pytest.mark.parametrize(
    ("options", "name"),
    [({"alpha": 0.0}, "alpha"), ({"pool": "median"}, "pool"), ({"mask": torch.ones(2)}, "mask")],
)
def test_bad_options_of_pooling(options: dict[str, Any], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        boosted_pool(torch.zeros(2), **options)
    with pytest.raises(RivalsError, match="scores"):
        boosted_pool(torch.zeros(2, dtype=torch.int64))
