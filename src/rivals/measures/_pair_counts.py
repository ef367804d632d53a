"""Counting ordered pairs of a list: the one core of Kendall's tau, pair accuracy and the concordance index.

For each element, how much weight comes before it by a key, and how much of that has a lower, an equal or a higher
value. `dense_counts` compares all pairs, C x C at a time, and is the readable version; `sorted_counts` walks down the
bits of the values' ranks, O(C log^2 C), and is used for long lists. Tests compare them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_DENSE_UP_TO = 64
_BLOCK = 1 << 24  # pairs compared at a time


class PairCounts(NamedTuple):
    """For each element [L, C]: the weight before it by key whose value is lower than, equal to, higher than its own."""

    lower: Tensor
    equal: Tensor
    higher: Tensor


def pair_counts(key: Tensor, value: Tensor, weight: Tensor, *, min_gap: float = 0.0) -> PairCounts:
    """Return the counts of lists [L, C]; i comes before j where key_i < key_j and key_i <= key_j - min_gap.

    Keys and values must be finite or infinite, never NaN; an element of weight 0 is never counted.

    >>> pair_counts(torch.tensor([[1., 2., 3.]]), torch.tensor([[5., 9., 5.]]), torch.ones(1, 3)).equal.tolist()
    [[0.0, 0.0, 1.0]]
    """
    count = dense_counts if key.shape[1] <= _DENSE_UP_TO else sorted_counts
    return count(key, value, weight, min_gap=min_gap)


def dense_counts(key: Tensor, value: Tensor, weight: Tensor, *, min_gap: float = 0.0) -> PairCounts:
    """Return the counts by comparing every two elements.

    >>> dense_counts(torch.tensor([[1., 2.]]), torch.tensor([[5., 9.]]), torch.ones(1, 2)).lower.tolist()
    [[0.0, 1.0]]
    """
    width = max(key.shape[1], 1)
    blocks = max(1, _BLOCK // (width * width))
    found = []
    for keys, values, weights in zip(*(t.split(blocks) for t in (key, value, weight)), strict=True):
        mine, theirs = values[:, :, None], values[:, None, :]
        before = keys[:, None, :] < keys[:, :, None]
        if min_gap > 0:
            before &= keys[:, None, :] <= keys[:, :, None] - min_gap
        # Comparisons of the values of pairs in order, each summed with the weights of the earlier ones.
        kinds = (theirs < mine, theirs == mine, theirs > mine)
        found.append(
            torch.stack([((kind & before).to(weights.dtype) @ weights[:, :, None])[:, :, 0] for kind in kinds])
        )
    lower, equal, higher = torch.cat(found, dim=1) if found else weight.new_zeros(3, *key.shape)
    return PairCounts(lower, equal, higher)


def sorted_counts(key: Tensor, value: Tensor, weight: Tensor, *, min_gap: float = 0.0) -> PairCounts:
    """Return the counts by sorting: each element is a point that is counted and a question that counts.

    >>> sorted_counts(torch.tensor([[1., 2.]]), torch.tensor([[5., 9.]]), torch.ones(1, 2)).lower.tolist()
    [[0.0, 1.0]]
    """
    width = key.shape[1]
    questions, points = key - min_gap if min_gap > 0 else key, key
    # At equal keys a question stands before the points (strictly earlier), with a gap behind them.
    parts = [(points, weight), (questions, torch.zeros_like(weight))]
    if min_gap <= 0:
        parts.reverse()
    keys, weights = (torch.cat(columns, dim=1) for columns in zip(*parts, strict=True))
    order = keys.argsort(dim=1, stable=True)
    codes = tie_codes(torch.cat([value, value], dim=1)).gather(1, order)
    weights = weights.gather(1, order)
    before = weights.cumsum(1) - weights
    lower = _lower_before(codes, weights)
    higher = _lower_before(2 * width - codes, weights)
    start = width if min_gap > 0 else 0
    home = torch.empty_like(order).scatter_(1, order, torch.arange(2 * width, device=key.device).expand_as(order))
    mine = home[:, start : start + width]
    return PairCounts(*(counts.gather(1, mine) for counts in (lower, before - lower - higher, higher)))


def tie_codes(values: Tensor) -> Tensor:
    """Return whole numbers from 0 in the order of the values of each list, equal ones alike: [L, C] -> int64[L, C].

    >>> tie_codes(torch.tensor([[0.5, -1.0, 0.5]])).tolist()
    [[1, 0, 1]]
    """
    ordered, order = values.sort(dim=1, stable=True)
    rises = torch.zeros_like(order)
    rises[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.empty_like(order).scatter_(1, order, rises.cumsum(1))


def _lower_before(codes: Tensor, weights: Tensor) -> Tensor:
    """Return for each place of [L, N] the weight at earlier places with a lower code.

    The codes are looked at bit by bit from the top. Elements that agree in all higher bits stand together, in their
    order; an element whose bit is 1 has a higher code than those of its group whose bit is 0.
    """
    size = codes.shape[1]
    place = torch.arange(size, device=codes.device).expand_as(codes)
    found = torch.zeros_like(weights)
    for bit in reversed(range(max(size, 1).bit_length())):
        group, one = codes >> (bit + 1), (codes >> bit & 1).to(weights.dtype)
        counted = weights * (1 - one)
        so_far = counted.cumsum(1) - counted
        first = torch.ones_like(codes, dtype=torch.bool)
        first[:, 1:] = group[:, 1:] != group[:, :-1]
        base = so_far.masked_fill(~first, 0).cummax(1).values  # weights are not negative, so it only rises
        found = found + one * (so_far - base)
        order = (codes >> bit).argsort(dim=1, stable=True)
        codes, weights, found, place = (values.gather(1, order) for values in (codes, weights, found, place))
    return torch.empty_like(found).scatter_(1, place, found)
