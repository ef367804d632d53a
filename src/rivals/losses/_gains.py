"""What a grade is worth, what a rank takes off, and the best DCG a list can have."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from rivals.errors import RivalsError

Gain: TypeAlias = Literal["linear", "exponential"]
"""What a grade is worth: itself, or 2^grade - 1."""
Denominator: TypeAlias = Literal["log", "position"]
"""What divides a gain at rank r (from 0): log2(r + 2), or r + 1."""


def graded_gains(relevance: Tensor, gain: Gain) -> Tensor:
    """Return the gain of every grade.

    >>> graded_gains(torch.tensor([0.0, 1.0, 2.0]), "exponential").tolist()
    [0.0, 1.0, 3.0]
    """
    return torch.exp2(relevance) - 1.0 if gain == "exponential" else relevance


def rank_discounts(
    ranks: Tensor, dtype: torch.dtype, *, top: int | None = None, denominator: Denominator = "log"
) -> Tensor:
    """Return what a gain at each rank (from 0) is multiplied by; 0 from rank `top` on.

    >>> rank_discounts(torch.arange(4), torch.float32, top=3)
    tensor([1.0000, 0.6309, 0.5000, 0.0000])
    """
    place = ranks.to(dtype)
    discount = 1.0 / (torch.log2(place + 2.0) if denominator == "log" else place + 1.0)
    return discount if top is None else discount.masked_fill(ranks >= top, 0.0)


def ideal_dcg(gains: Tensor, mask: Tensor, *, top: int | None = None, denominator: Denominator = "log") -> Tensor:
    """Return the DCG of every list in its best order, [..., 1]; where that is 0 it returns 1, to divide by.

    >>> ideal_dcg(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.ones(2, 2, dtype=torch.bool))
    tensor([[3.6309],
            [1.0000]])
    """
    best = gains.masked_fill(~mask, 0.0).sort(dim=-1, descending=True).values
    ranks = torch.arange(best.shape[-1], device=best.device)
    found = (best * rank_discounts(ranks, best.dtype, top=top, denominator=denominator)).sum(-1, keepdim=True)
    return found.masked_fill(found == 0, 1.0)


def check_depth(depth: int | None, name: str) -> None:
    """Raise unless `depth` is None or a whole number of at least 1."""
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 1):
        raise RivalsError(f"{name} must be a whole number of at least 1, or None for the whole list; got {depth!r}")
