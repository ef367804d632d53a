"""What a rank measure changes by when two candidates of a list trade places."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from rivals.errors import RivalsError

SwapMetric: TypeAlias = Literal["ndcg", "mrr", "map", "err"]


def swap_changes(relevance: Tensor, mask: Tensor, ranks: Tensor, metric: SwapMetric, top: int | None) -> Tensor:
    """Return |change| of "mrr", "map" or "err" at `top` for every pair of candidates [..., C, C], 0 at absent ones.

    ranks int64[..., C]: every candidate's place from 0, absent ones last.

    >>> found = swap_changes(torch.tensor([0.0, 1.0]), torch.ones(2).bool(), torch.tensor([0, 1]), "mrr", None)
    >>> found.tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    order = ranks.argsort(dim=-1)
    by_place = relevance.masked_fill(~mask, 0.0).gather(-1, order)
    if metric == "err" and bool((by_place > 1).any()):
        raise RivalsError(
            'relevance must lie in 0..1 with metric "err", where it is the chance of stopping; '
            f"found {float(by_place.max())}"
        )
    places = torch.arange(ranks.shape[-1], device=ranks.device)
    worth = 1.0 / (places + 1).to(by_place.dtype)
    if top is not None:
        worth = worth.masked_fill(places >= top, 0.0)
    if not places.numel():
        return by_place.unsqueeze(-1) * by_place.unsqueeze(-2)
    found = {"mrr": _reciprocal_rank, "map": _average_precision, "err": _expected_reciprocal_rank}[metric](
        by_place, worth
    ).triu(1)
    found = found + found.transpose(-1, -2)
    rows = found.gather(-2, ranks.unsqueeze(-1).expand_as(found))
    found = rows.gather(-1, ranks.unsqueeze(-2).expand_as(found))
    return found.masked_fill(~(mask.unsqueeze(-1) & mask.unsqueeze(-2)), 0.0)


def _reciprocal_rank(relevance: Tensor, worth: Tensor) -> Tensor:
    """Row a, column c > a: only the first relevant place (or one that comes before it) matters."""
    relevant = relevance > 0
    seen = relevant.long().cumsum(-1)
    first, second = relevant & (seen == 1), relevant & (seen == 2)
    later = (second * worth).sum(-1)[..., None, None]  # 0 where there is no second
    now = (first * worth).sum(-1)[..., None, None]
    upper, lower = worth.unsqueeze(-1), worth.unsqueeze(-2)
    falls = first.unsqueeze(-1) & ~relevant.unsqueeze(-2)
    rises = (seen == 0).unsqueeze(-1) & relevant.unsqueeze(-2)
    return torch.where(falls, upper - torch.maximum(lower, later), torch.where(rises, upper - now, 0.0))


def _average_precision(relevance: Tensor, worth: Tensor) -> Tensor:
    """Row a, column c > a: the one relevant of the two moves, and every relevant place between counts one more or less."""
    relevant = relevance > 0
    seen = relevant.long().cumsum(-1)
    running = (relevant * worth).cumsum(-1)
    between = (running - relevant * worth).unsqueeze(-2) - running.unsqueeze(-1)
    upper = torch.where(relevant, seen, seen + 1) * worth
    change = upper.unsqueeze(-1) + between - (seen * worth).unsqueeze(-2)
    one = relevant.unsqueeze(-1) != relevant.unsqueeze(-2)
    return (change * one).abs() / seen[..., -1, None, None].clamp(min=1)


def _expected_reciprocal_rank(relevance: Tensor, worth: Tensor) -> Tensor:
    """Row a, column c > a: places between are reached more or less often."""
    passing = (1.0 - relevance).unsqueeze(-2).expand(*relevance.shape, relevance.shape[-1])
    below = torch.ones_like(passing, dtype=torch.bool).triu(1)
    passed = torch.where(below, passing, 1.0).cumprod(-1)
    passed = torch.cat([torch.ones_like(passed[..., :1]), passed[..., :-1]], -1)  # all strictly between a and c
    stops = torch.where(below, passed * (relevance * worth).unsqueeze(-2), 0.0)
    between = stops.cumsum(-1) - stops
    reached = torch.cat([torch.ones_like(relevance[..., :1]), (1.0 - relevance).cumprod(-1)[..., :-1]], -1)
    change = worth.unsqueeze(-1) - between - passed * worth.unsqueeze(-2)
    apart = relevance.unsqueeze(-1) - relevance.unsqueeze(-2)
    return (reached.unsqueeze(-1) * apart * change).abs()
