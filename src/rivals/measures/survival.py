"""Measures of survival rankings: the concordance index of risks against censored durations."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures._pair_counts import pair_counts, tie_codes
from rivals.measures.formulas import Empty, check_empty
from rivals.measures.ranked import Array, as_tensor, plain_lists, precise


class Concordance(NamedTuple):
    """How many comparable pairs (or how much weight of them) are in order, tied in risk, and inverted."""

    concordant: Any
    tied: Any
    discordant: Any


def concordance_index(
    scores: Array,
    duration: Array,
    event: Array,
    mask: Array | None = None,
    *,
    weight: Array | None = None,
    empty: Empty = "zero",
) -> Any:
    """Harrell's concordance index: how often, of two that can be compared, the riskier one fails first.

    C = (sum over comparable pairs of w_i w_j ([s_i > s_j] + [s_i = s_j] / 2)) / (sum of w_i w_j), where i and j can be
    compared if i failed (event_i = 1) before t_j, or at t_j while j was censored then.

    Shapes: scores[..., C] (risk, high fails early), duration[..., C], event[..., C] (1 failed, 0 censored), mask and
    weight [..., C] -> [...], one value a list; a whole test set is one list. Use it for rankings learnt from censored
    durations: 1 perfect, 0.5 chance, 0 reversed. Without censoring it is `pair_accuracy` against -duration. Give
    -(expected lifetime) as the score where a model predicts that. `concordance_counts` says how many pairs there were;
    with none the value is 0 (`empty`). O(C log^2 C).

    Source: Harrell et al. 1982. Paper 115.

    Raises:
        RivalsError: as `rank_lists`; duration not finite, event neither 0 nor 1, weight below 0.

    >>> import numpy as np
    >>> concordance_index(np.array([3., 1., 2.]), np.array([1, 2, 3]), np.array([1, 1, 0])).round(4).item()
    0.6667
    """
    check_empty(empty)
    right, tied, wrong, numpy = _counts(scores, duration, event, mask, weight)
    total = right + tied + wrong
    share = (right + tied / 2) / total.masked_fill(total <= 0, 1)
    value = share.masked_fill(total <= 0, 0.0 if empty == "zero" else float("nan"))
    return value.numpy() if numpy else value


def concordance_counts(
    scores: Array, duration: Array, event: Array, mask: Array | None = None, *, weight: Array | None = None
) -> Concordance:
    """Return how many comparable pairs are in order, tied in risk and inverted; their sum is what C was taken over.

    Arguments and source (Paper 115) as `concordance_index` -> three [...].

    Raises:
        RivalsError: as `concordance_index`.

    >>> import numpy as np
    >>> [int(n) for n in concordance_counts(np.array([3., 1., 2.]), np.array([1, 2, 3]), np.array([1, 1, 0]))]
    [2, 0, 1]
    """
    *counts, numpy = _counts(scores, duration, event, mask, weight)
    return Concordance(*(counted.numpy() if numpy else counted for counted in counts))


def _counts(
    scores: Array, duration: Array, event: Array, mask: Array | None, weight: Array | None
) -> tuple[Tensor, Tensor, Tensor, bool]:
    lists = plain_lists(scores, as_tensor(event, "event", None), mask)
    if lists.relevance.shape[0] and not ((lists.relevance == 0) | (lists.relevance == 1)).all():
        raise RivalsError("event must be 0 (censored) or 1 (failed) for everyone who is there")
    time = _alike(duration, "duration", lists.mask, lists.shape)
    weights = lists.mask.to(lists.scores.dtype)
    if weight is not None:
        weights = weights * _alike(weight, "weight", lists.mask, lists.shape)
        if (weights < 0).any():
            raise RivalsError(f"weight holds {weights.min().item():g}; weights must be at least 0")
    # At equal times those who failed stand before those who were censored, and not before each other.
    key = 2 * tie_codes(time) + (1 - lists.relevance).long()
    failed = weights * lists.relevance
    lower, equal, higher = pair_counts(key.to(weights.dtype), lists.scores, failed)
    right, tied, wrong = ((counted * weights).sum(1).reshape(lists.shape) for counted in (higher, equal, lower))
    return right, tied, wrong, lists.numpy


def _alike(values: Array, name: str, mask: Tensor, shape: torch.Size) -> Tensor:
    given = as_tensor(values, name, mask.device)
    if given.shape != (*shape, mask.shape[1]):
        raise RivalsError(
            f"{name} has shape {tuple(given.shape)}; it must be that of the scores, {(*shape, mask.shape[1])}"
        )
    given = precise(given.reshape(mask.shape)).masked_fill(~mask, 0)
    if not given.isfinite().all():
        raise RivalsError(f"{name} must be finite for everyone who is there")
    return given
