"""What an ordering of ads is worth: welfare, its regret and its ratio to the best."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures.ranked import as_tensor

__all__ = ["welfare", "welfare_ratio", "welfare_regret"]


def welfare(
    scores: Any, rate: Any, value: Any, mask: Any = None, *, slots: int = 1, position_weights: Any = None
) -> Any:
    """Return the expected value of the ads shown, [...]: sum over the best `slots` by score of w_slot value rate.

    `scores` [..., C] is what the auction ranks by (bid times predicted rate), `rate` the true click rate, `value` the
    bid. Ties go to the earlier ad. An auction without ads is worth 0.

    Source: Lyu et al. (2023), section 3 (paper 53); several slots are ours.

    Raises:
        RivalsError: shapes that do not fit, slots < 1, fewer position weights than slots.

    >>> welfare(torch.tensor([[0.2, 0.5]]), torch.tensor([[0.9, 0.1]]), torch.tensor([[1.0, 4.0]]))
    tensor([0.4000])
    """
    ranked, worth, there, numpy = _auction(scores, rate, value, mask)
    return _output(_best(ranked, worth, there, slots, position_weights), numpy)


def welfare_regret(
    scores: Any, rate: Any, value: Any, mask: Any = None, *, slots: int = 1, position_weights: Any = None
) -> Any:
    """Return the best possible welfare less that of the ordering, [...] >= 0. Arguments and source as `welfare` (paper 53).

    >>> welfare_regret(torch.tensor([[0.2, 0.5]]), torch.tensor([[0.9, 0.1]]), torch.tensor([[1.0, 4.0]]))
    tensor([0.5000])
    """
    ranked, worth, there, numpy = _auction(scores, rate, value, mask)
    best = _best(worth, worth, there, slots, position_weights)
    return _output(best - _best(ranked, worth, there, slots, position_weights), numpy)


def welfare_ratio(
    scores: Any, rate: Any, value: Any, mask: Any = None, *, slots: int = 1, position_weights: Any = None
) -> Any:
    """Return welfare over the best possible one, [...] in 0..1, 1 where nothing can be won. As `welfare` (paper 53).

    >>> welfare_ratio(torch.tensor([[0.2, 0.5]]), torch.tensor([[0.9, 0.1]]), torch.tensor([[1.0, 4.0]]))
    tensor([0.4444])
    """
    ranked, worth, there, numpy = _auction(scores, rate, value, mask)
    best = _best(worth, worth, there, slots, position_weights)
    found = _best(ranked, worth, there, slots, position_weights)
    return _output(torch.where(best > 0, found / best.masked_fill(best <= 0, 1.0), torch.ones_like(best)), numpy)


def _auction(scores: Any, rate: Any, value: Any, mask: Any) -> tuple[Tensor, Tensor, Tensor, bool]:
    ranked = as_tensor(scores, "scores", None)
    parts = [as_tensor(part, name, ranked.device) for part, name in ((rate, "rate"), (value, "value"))]
    there = torch.ones_like(ranked, dtype=torch.bool) if mask is None else as_tensor(mask, "mask", ranked.device).bool()
    for name, part in (("rate", parts[0]), ("value", parts[1]), ("mask", there)):
        if part.shape != ranked.shape:
            raise RivalsError(f"{name} must have shape {tuple(ranked.shape)}; got {tuple(part.shape)}")
    worth = (parts[0] * parts[1]).masked_fill(~there, 0.0)
    return ranked, worth, there, not isinstance(scores, Tensor)


def _best(ranked: Tensor, worth: Tensor, there: Tensor, slots: int, position_weights: Any) -> Tensor:
    if slots < 1:
        raise RivalsError(f"slots must be 1 or more; got {slots}")
    order = ranked.masked_fill(~there, -torch.inf).argsort(dim=-1, descending=True, stable=True)[..., :slots]
    shown = worth.gather(-1, order)
    if position_weights is not None:
        weights = as_tensor(position_weights, "position_weights", ranked.device)
        if len(weights) < slots:
            raise RivalsError(f"position_weights must name {slots} slots; got {len(weights)}")
        shown = shown * weights[: shown.shape[-1]]
    return shown.sum(-1)


def _output(values: Tensor, numpy: bool) -> Any:
    return values.numpy() if numpy else values
