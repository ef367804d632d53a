"""TIES merging of weight changes (paper 105)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.training.merging import LowRank, apply_delta, merge_low_rank, ties_merge

FIRST, SECOND = torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.tensor([-0.4, -1.0, 0.9, -4.0])


def test_by_hand() -> None:
    """Checks 1 and 2."""
    assert ties_merge([FIRST, SECOND], density=1.0).tolist() == pytest.approx([1, -1.5, 0.7, -4])
    assert ties_merge([FIRST, SECOND], density=0.5).tolist() == pytest.approx([0, -1.5, 0, -4])


def test_limits() -> None:
    """Checks 3 and 4."""
    assert torch.equal(ties_merge([FIRST], density=1.0), FIRST)
    assert torch.equal(ties_merge([FIRST, FIRST], density=1.0), FIRST)
    assert torch.equal(ties_merge([FIRST, -FIRST], density=1.0), FIRST.abs())
    assert ties_merge([FIRST], density=0.8).tolist() == [1, -2, 0, 3]  # int(3.2) entries stay


def test_weights_and_elections() -> None:
    """Checks 5 and 6, and the order of weighting and election."""
    one = torch.tensor([1.0])
    pair = [4 * one, one]
    assert ties_merge(pair, [2, 1], density=1).item() == pytest.approx((2 * 4 + 1) / 2)
    assert ties_merge(pair, [2, 1], density=1, normalize="weights").item() == pytest.approx((2 * 4 + 1) / 3)
    assert ties_merge(pair, [2, 1], density=1, normalize=None).item() == pytest.approx(9)
    assert ties_merge(pair, [2, 1], density=1, scale=0.5).item() == pytest.approx(2.25)
    three = [5 * one, -one, -one]
    assert ties_merge(three, density=1).item() == 5
    assert ties_merge(three, density=1, elect="frequency").item() == -1
    split = [one, -3 * one]
    assert ties_merge(split, [9, 1], density=1).item() == -3
    assert ties_merge(split, [9, 1], density=1, weight_before_election=True).item() == 9


def test_names_and_dtypes() -> None:
    states = [{"a": FIRST, "b": FIRST.reshape(2, 2)}, {"a": SECOND, "b": SECOND.reshape(2, 2)}]
    merged = ties_merge(states, density=1.0)
    assert torch.equal(merged["a"], ties_merge([FIRST, SECOND], density=1.0))
    assert torch.equal(merged["b"].flatten(), merged["a"])
    half = ties_merge([FIRST.bfloat16() / 3, SECOND.bfloat16() / 3], density=1.0)
    assert half.dtype == torch.bfloat16
    assert half.float().tolist() == pytest.approx([1 / 3, -0.5, 0.7 / 3, -4 / 3], rel=1e-2)


def test_low_rank_factors_and_products() -> None:
    """Check 7, and that the two ways differ."""
    generator = torch.Generator().manual_seed(0)
    adapters = [
        LowRank(torch.randn(4, 2, generator=generator), torch.randn(2, 3, generator=generator), scale)
        for scale in (1.0, 0.5)
    ]
    up, down, scaling = merge_low_rank(adapters[:1], [4.0], mode="factors", density=1.0)
    assert torch.allclose(up, 2 * adapters[0].up)
    assert torch.allclose(down, 2 * adapters[0].down)
    assert scaling == 1
    full = merge_low_rank(adapters, density=1.0)
    expected = ties_merge([a.scaling * a.up @ a.down for a in adapters], density=1.0)
    assert isinstance(full, Tensor)
    assert torch.equal(full, expected)
    factors = merge_low_rank(adapters, mode="factors", density=1.0)
    assert isinstance(factors, LowRank)
    assert not torch.allclose(factors.up @ factors.down, full)


def test_applying_a_delta() -> None:
    base = {"w": FIRST, "half": FIRST.half(), "steps": torch.tensor(7)}
    moved = apply_delta(base, {"w": SECOND, "half": SECOND}, scale=2.0)
    assert torch.equal(moved["w"], FIRST + 2 * SECOND)
    assert moved["half"].dtype == torch.float16
    assert moved["steps"] is base["steps"]
    assert torch.equal(base["w"], FIRST)


def test_bad_input_is_named() -> None:
    pair = [FIRST, SECOND]
    adapter = LowRank(torch.ones(2, 1), torch.ones(1, 2))
    for bad, message in (
        (lambda: ties_merge([]), "at least one"),
        (lambda: ties_merge([FIRST, SECOND[:2]]), "one shape"),
        (lambda: ties_merge([FIRST.long()]), "floating"),
        (lambda: ties_merge(pair, density=0), "density"),
        (lambda: ties_merge(pair, density=1.1), "density"),
        (lambda: ties_merge(pair, density=0.1), "keeps none"),
        (lambda: ties_merge(pair, [1.0]), "weights"),
        (lambda: ties_merge(pair, [1.0, math.nan]), "weights"),
        (lambda: ties_merge(pair, elect="lottery"), "elect"),  # type: ignore[call-overload]
        (lambda: ties_merge(pair, normalize="mean"), "normalize"),  # type: ignore[call-overload]
        (lambda: ties_merge([{"a": FIRST}, {"b": FIRST}]), "same tensors"),
        (lambda: merge_low_rank([adapter], [-1.0], mode="factors"), "negative"),
        (lambda: merge_low_rank([adapter], [1.0, 1.0]), "weights"),
        (lambda: merge_low_rank([adapter], mode="both"), "mode"),  # type: ignore[arg-type]
        (lambda: apply_delta({"w": FIRST}, {"v": FIRST}), "no tensor 'v'"),
        (lambda: apply_delta({"w": FIRST.long()}, {"w": FIRST}), "floating"),
    ):
        with pytest.raises(RivalsError, match=message):
            bad()
