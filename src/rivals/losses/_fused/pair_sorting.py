"""Hinge and squared pair sums without looking at pairs: O(C log C) by cumulative sums and sorting.

A squared pair cost opens into products of sums: sum_j (a_i + s_j)^2 = n a_i^2 + 2 a_i sum_j s_j + sum_j s_j^2 with a_i =
margin - s_i, and sums over a range of places are differences of cumulative sums. A hinge does the same over the partners
that are above s_i - margin, which after sorting are a range too. For more than two levels of relevance, write the level
in binary: two candidates of different levels first differ at exactly one bit, so going through the bits and pairing,
inside every group of equal higher bits, those whose bit is 0 with those whose bit is 1, meets every pair once.

Sums are taken in float64 over scores centred by list, so that nothing is lost to cancellation; the choice of active
pairs is constant, and autograd differentiates the rest.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def squared_total(scores: Tensor, start: Tensor, stop: Tensor, weight: Tensor | None, margin: float) -> Tensor:
    """Return sum_i w_i sum_j w_j (margin - s_i + s_j)^2 for each list, j over places start[i] .. stop[i] - 1.

    Args:
        scores: [B, C] by place. start, stop: int64[B, C]. weight: [B, C] by place, or None.

    >>> range_ = torch.tensor([[1, 2]]), torch.tensor([[2, 2]])
    >>> squared_total(torch.tensor([[3.0, 1.0]]), *range_, None, 1.0)
    tensor([1.])
    """
    centred = _centred(scores, start, stop)
    weights = torch.ones_like(centred) if weight is None else weight.to(centred.dtype)
    stop = torch.maximum(start, stop)
    moments = [_range_sum(weights * centred**power, start, stop) for power in range(3)]
    return (weights * _opened(margin - centred, moments, 2)).sum(-1).to(scores.dtype)


def hinge_total(
    scores: Tensor, start: Tensor, stop: Tensor, weight: Tensor | None, margin: float, power: int
) -> Tensor:
    """Return sum_i w_i sum_j w_j max(0, margin - s_i + s_j)^power for each list, over pairs of different levels.

    Args:
        scores: [B, C], best level first. start, stop: int64[B, C] of `ordered_pairs`. power: 1 or 2.

    >>> range_ = torch.tensor([[1, 2]]), torch.tensor([[2, 2]])
    >>> hinge_total(torch.tensor([[0.5, 0.0]]), *range_, None, 1.0, 1)
    tensor([0.5000])
    """
    centred = _centred(scores, start, stop)
    there = torch.arange(scores.shape[-1], device=scores.device) < stop
    weights = there.to(centred.dtype) if weight is None else weight.to(centred.dtype) * there
    level = F.pad((start[:, 1:] != start[:, :-1]).long().cumsum(-1), (1, 0))
    level = torch.where(there, level, 0)
    total = centred.sum(-1) * 0.0
    for bit in range(int(level.max()).bit_length()):
        total = total + _two_levels(centred, weights, level >> (bit + 1), (level >> bit) & 1 == 0, margin, power)
    return total.to(scores.dtype)


def _two_levels(scores: Tensor, weights: Tensor, group: Tensor, better: Tensor, margin: float, power: int) -> Tensor:
    """The hinge sum over pairs (better, worse) of one group, for each list."""
    key = (scores.detach() - margin * better).flip(-1)  # worst first: at equal keys the worse comes first, at cost 0
    order = key.argsort(dim=-1, stable=True)
    order = order.gather(-1, group.flip(-1).gather(-1, order).argsort(dim=-1, stable=True))
    order = scores.shape[-1] - 1 - order
    s, w, first = (values.gather(-1, order) for values in (scores, weights, better.to(scores.dtype)))
    grouped = group.gather(-1, order)
    place = torch.arange(1, scores.shape[-1] + 1, device=scores.device).expand_as(order).contiguous()
    end = torch.searchsorted(grouped, grouped, right=True)
    moments = [_range_sum((1.0 - first) * w * s**p, place, end) for p in range(power + 1)]
    return (first * w * _opened(margin - s, moments, power)).sum(-1)


def _opened(shift: Tensor, moments: list[Tensor], power: int) -> Tensor:
    """sum_j w_j (shift + s_j)^power from the moments sum_j w_j s_j^p."""
    if power == 1:
        return shift * moments[0] + moments[1]
    return shift.square() * moments[0] + 2.0 * shift * moments[1] + moments[2]


def _range_sum(values: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    running = F.pad(values.cumsum(-1), (1, 0))
    return running.gather(-1, stop) - running.gather(-1, start)


def _centred(scores: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    wide = scores if scores.device.type == "mps" else scores.double()
    return wide - wide.detach().mean(-1, keepdim=True)
