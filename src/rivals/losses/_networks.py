"""Sorting networks whose comparators swap by degrees."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Cdf: TypeAlias = Literal["cauchy", "logistic", "gaussian", "reciprocal", "logistic_phi", "optimal"]
"""The distribution whose cumulative function says how far two values already stand in order."""
Network: TypeAlias = Literal["odd_even", "bitonic"]
Layer: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
"""For every wire, the wire it is compared with (itself if none), and +1 where it takes the smaller value, -1 else."""


@lru_cache(maxsize=64)
def network_layers(network: Network, size: int) -> tuple[Layer, ...]:
    """Return the layers of a network of `size` wires: `size` odd-even ones, or about log2(size)^2 / 2 bitonic ones.

    A bitonic network is made for the next power of two; the surplus wires, the first ones, are taken away together
    with their comparators.

    >>> network_layers("odd_even", 3)[:2]
    (((1, 0, 2), (1, -1, 1)), ((0, 2, 1), (1, 1, -1)))
    """
    if network == "odd_even":
        return tuple(_layer(size, [(a, a + 1) for a in range(start % 2, size - 1, 2)]) for start in range(size))
    depth = (size - 1).bit_length() if size > 1 else 0
    surplus = 2**depth - size
    layers = []
    for block in range(depth):
        for distance in (2 ** (block - step) for step in range(block + 1)):
            pairs = []
            for wire in range(surplus, 2**depth - distance):
                if wire & distance == 0:
                    falling = wire >> (block + 1) & 1
                    low, high = wire - surplus, wire + distance - surplus
                    pairs.append((high, low) if falling else (low, high))
            layers.append(_layer(size, pairs))
    return tuple(layers)


def _layer(size: int, pairs: list[tuple[int, int]]) -> Layer:
    partner, sign = list(range(size)), [1] * size
    for small, large in pairs:
        partner[small], partner[large], sign[large] = large, small, -1
    return tuple(partner), tuple(sign)


def in_order(difference: Tensor, steepness: float, cdf: Cdf, phi: float = 0.25) -> Tensor:
    """Return how far a wire keeps its value, F(steepness * difference) in [0, 1]; F(-x) = 1 - F(x).

    >>> in_order(torch.tensor([0.0, 0.3]), 1.0, "cauchy")
    tensor([0.5000, 0.5928])
    """
    scaled = steepness * difference
    if cdf == "cauchy":
        return scaled.atan() / math.pi + 0.5
    if cdf == "logistic":
        return scaled.sigmoid()
    if cdf == "gaussian":
        return 0.5 * (1 + torch.erf(scaled / math.sqrt(2)))
    if cdf == "reciprocal":
        return 0.5 * (scaled / (2 + scaled.abs()) + 1)
    if cdf == "logistic_phi":
        return (scaled / (difference.abs() + 1e-10) ** phi).sigmoid()
    tail = (0.25 - 1 / (16 * (scaled.abs() + 1e-10))) * ((scaled > 0.25).to(scaled) - (scaled < -0.25).to(scaled))
    return scaled.clamp(-0.25, 0.25) + 0.5 + tail
