"""Routed experts: paper 3's checks on conversion, isolation and bad routes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rivals.errors import RivalsError
from rivals.models.routed import RoutedExperts


def block() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))


HIDDEN = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("expert", [0, 1, 2])
def test_conversion_changes_nothing(expert: int) -> None:
    original = block()
    expected = original(HIDDEN)
    experts = RoutedExperts(original, num_experts=3)
    assert torch.equal(experts(HIDDEN, torch.full((5,), expert)), expected)
    torch.testing.assert_close(experts(HIDDEN, torch.tensor([2, 0, 1, 0, 2])), expected, rtol=0, atol=1e-6)


def distinct_experts() -> RoutedExperts:
    experts = RoutedExperts(block(), num_experts=3)
    torch.manual_seed(2)
    for parameter in experts.parameters():
        nn.init.normal_(parameter)
    return experts


def test_every_text_goes_through_its_own_expert() -> None:
    experts, route = distinct_experts(), torch.tensor([2, 0, 2, 0, 0])
    output = experts(HIDDEN, route)
    for text, expert in enumerate(route.tolist()):
        torch.testing.assert_close(output[text], experts.experts[expert](HIDDEN[text]))
    changed = experts(HIDDEN, torch.tensor([1, 0, 2, 0, 0]))
    assert not torch.equal(changed[0], output[0])
    torch.testing.assert_close(changed[1:], output[1:])


def test_an_unused_expert_has_no_gradient() -> None:
    experts = distinct_experts()
    experts(HIDDEN, torch.tensor([2, 0, 2, 0, 0])).sum().backward()
    assert all(parameter.grad is None for parameter in experts.experts[1].parameters())
    assert all(parameter.grad is not None for parameter in experts.experts[2].parameters())


def test_one_expert_needs_no_route_and_an_empty_batch_is_fine() -> None:
    experts = RoutedExperts(block(), num_experts=1)
    assert torch.equal(experts(HIDDEN), experts.experts[0](HIDDEN))
    assert distinct_experts()(HIDDEN[:0], torch.zeros(0, dtype=torch.int64)).shape == (0, 3, 4)


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (None, "route is missing"),
        (torch.tensor([0, 1, 2]), "one entry per text"),
        (torch.tensor([0, 1, 2, 3, 0]), "0..2; found 0..3"),
        (torch.tensor([0, 1, 2, -1, 0]), "0..2; found -1..2"),
    ],
)
def test_bad_routes(route: torch.Tensor | None, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        distinct_experts()(HIDDEN, route)


def test_a_route_of_floats_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="integers"):
        distinct_experts()(HIDDEN, torch.zeros(5))


def test_at_least_one_expert() -> None:
    with pytest.raises(RivalsError, match="num_experts"):
        RoutedExperts(block(), num_experts=0)
