"""What an ordering is worth in money: welfare of ads, the value at the top of a list, the cost of wrong flags."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures.ranked import as_tensor

__all__ = ["flagged_value", "value_at_k", "welfare", "welfare_ratio", "welfare_regret"]


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


def value_at_k(scores: Any, value: Any, mask: Any = None, *, k: int | None = 10, share: bool = False) -> Any:
    """Return what the first k of each list are worth, [...]: the sum of their values, profits and losses alike.

    V@k = sum over the k best by score of v_i; with `share` divided by the positive values of the whole list, the part
    of what could be won or lost that the first k hold (0 where a list has no positive value).

    Shapes: scores float[..., C], value float[..., C] (money, of any sign), mask bool[..., C] -> [...]. Ties go to the
    earlier candidate. k None is the whole list.

    Source: Wei et al. (2025), PA-RiskRanker, the profit of the traders ranked first. Paper 77.

    Raises:
        RivalsError: shapes that do not fit, k < 1, a value that is not finite.

    >>> value_at_k(torch.tensor([[0.9, 0.1, 0.5]]), torch.tensor([[5.0, 4.0, -1.0]]), k=2)
    tensor([4.])
    """
    if k is not None and k < 1:
        raise RivalsError(f"k must be 1 or more, or None for the whole list; got {k}")
    ranked, worth, there, numpy = _valued(scores, value, mask)
    found = _best(ranked, worth, there, ranked.shape[-1] if k is None else k, None)
    if share:
        all_of = worth.clamp(min=0).sum(-1)
        found = torch.where(all_of > 0, found / all_of.masked_fill(all_of == 0, 1.0), torch.zeros_like(found))
    return _output(found, numpy)


def flagged_value(scores: Any, labels: Any, value: Any, mask: Any = None, *, share: float = 0.01) -> Any:
    """Return the money that flagging the best-scored `share` of all candidates gets wrong, as a loss, <= 0.

    - sum over all candidates of |v_i| [flag_i differs from y_i], with the ceil(share * n) highest scores of the pool
    flagged (ties: the earlier candidate). 0 is perfect.

    Shapes: scores float[..., C], labels[..., C] (positive above 0), value float[..., C], mask bool[..., C] -> scalar.

    Source: Wei et al. (2025), PA-RiskRanker, whose classifier flags the top 1 per cent of traders. Paper 77.

    Raises:
        RivalsError: shapes that do not fit, a share outside (0, 1], a value that is not finite.

    >>> flagged_value(torch.tensor([[0.9, 0.1]]), torch.tensor([[0, 1]]), torch.tensor([[3.0, 2.0]]), share=0.5)
    tensor(-5.)
    """
    if not 0 < share <= 1:
        raise RivalsError(f"share must be above 0 and at most 1; got {share}")
    ranked, worth, there, numpy = _valued(scores, value, mask)
    positive = as_tensor(labels, "labels", ranked.device)
    if positive.shape != ranked.shape:
        raise RivalsError(f"labels must have shape {tuple(ranked.shape)}; got {tuple(positive.shape)}")
    pool, amount, wanted = ranked[there], worth[there].abs(), positive[there] > 0
    flagged = torch.zeros_like(wanted)
    flagged[pool.argsort(descending=True, stable=True)[: math.ceil(share * len(pool))]] = True
    return _output(0 - (amount * (flagged != wanted)).sum(), numpy)


def _valued(scores: Any, value: Any, mask: Any) -> tuple[Tensor, Tensor, Tensor, bool]:
    ranked = as_tensor(scores, "scores", None)
    ones = torch.ones_like(ranked)
    ranked, worth, there, numpy = _auction(scores, ones if isinstance(scores, Tensor) else ones.numpy(), value, mask)
    if not worth.isfinite().all():
        raise RivalsError("value must be a finite number at every candidate that is there")
    return ranked, worth, there, numpy


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
