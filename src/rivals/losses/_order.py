"""Orders of the candidates of a list, and the Plackett-Luce probability of placing them one after the other."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from rivals.errors import RivalsError

Ties = Literal["scores", "order", "shuffle", "skip"]
_NOTHING = -1e30  # finite, so that no gradient divides it by itself; e^(-1e30 - s) is 0


def best_first(labels: Tensor, mask: Tensor, *tie_breaks: Tensor) -> Tensor:
    """Return the places int64[..., C] of candidates by label, highest first, absent ones last.

    Equal labels go by the first tie break, highest first, then by the next, and in the end as they stand.

    >>> labels, there = torch.tensor([1.0, 2.0, 1.0]), torch.ones(3, dtype=torch.bool)
    >>> best_first(labels, there).tolist(), best_first(labels, there, torch.tensor([0.0, 0.0, 5.0])).tolist()
    ([1, 0, 2], [1, 2, 0])
    """
    keys = (labels.detach().masked_fill(~mask, -math.inf), *tie_breaks)
    order = keys[-1].detach().argsort(dim=-1, descending=True, stable=True)
    for key in reversed(keys[:-1]):
        order = order.gather(-1, key.gather(-1, order).argsort(dim=-1, descending=True, stable=True))
    return order


def label_order(
    labels: Tensor, scores: Tensor, mask: Tensor, ties: Ties, generator: torch.Generator | None = None
) -> Tensor:
    """Return `best_first` with the ties of the labels broken as `ties` says: see `list_mle_loss`."""
    if ties == "order":
        return best_first(labels, mask)
    if ties == "shuffle":
        if generator is None:
            raise RivalsError('ties="shuffle" draws an order; give it generator=torch.Generator()')
        draw = torch.rand(labels.shape, generator=generator, dtype=torch.float64, device=generator.device)
        return best_first(labels, mask, draw.to(labels.device))
    return best_first(labels, mask, scores)


def suffix_logsumexp(ordered: Tensor, there: Tensor) -> Tensor:
    """Return at every place the log-sum-exp of the scores from there to the end of the list, in O(C).

    >>> suffix_logsumexp(torch.zeros(3), torch.tensor([True, True, False])).exp()[:2]
    tensor([2., 1.])
    """
    return ordered.masked_fill(~there, _NOTHING).flip(-1).logcumsumexp(-1).flip(-1)


def placement_log_prob(ordered: Tensor, there: Tensor, also: Tensor | None = None) -> Tensor:
    """Return log P(place t takes its candidate | those before are gone), [..., C], and 0 where none is there.

    `also[..., 1]` is the log-sum-exp of further scores that stand in every denominator.

    >>> placement_log_prob(torch.zeros(3), torch.ones(3, dtype=torch.bool)).exp()
    tensor([0.3333, 0.5000, 1.0000])
    """
    rest = suffix_logsumexp(ordered, there)
    if also is not None:
        rest = torch.logaddexp(rest, also)
    return (ordered - rest).masked_fill(~there, 0.0)
