"""Pairwise judges: turn the answers "which of two is better" into scores, and see how consistent the judge is."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from torch import Tensor

from rivals.errors import RivalsError

Floats = NDArray[np.float64]


class JudgeConsistency(NamedTuple):
    """Over all pairs: share whose two orders contradict, share with a tie, mean of P(first) - 1/2."""

    contradiction_rate: float
    tie_rate: float
    position_bias: float


def pairwise_wins(
    logits: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    probabilities: bool = False,
    contradiction: float = 0.0,
    tie: float = 0.5,
    round_to: int | None = None,
) -> Floats:
    """Wins of each candidate over all others, from a judge that saw every pair in both orders.

    For i and j the judge answers twice, with i first and with j first. i wins (1) if both answers prefer it; if the two
    contradict, either gets `contradiction`; if one is an exact tie and they do not agree, either gets `tie`. S_i = sum
    over j. A judge that follows some total order gives C - 1, ..., 0.

    Shapes: logits[..., C, C, 2], of "the first" and "the second" when i is shown first and j second; mask[..., C] ->
    [..., C], 0 where absent. The diagonal is never read.

    Args:
        probabilities: the argument is [..., C, C], the probability of "the first".
        contradiction: 0 as the paper's code, 0.5 as the original pairwise ranking prompting.
        round_to: round to this many decimals first, as the paper's code does with 2; more ties.

    Source: Sinhababu et al. 2024 (few-shot pairwise ranking prompting), all pairs; Qin et al. 2023. Paper 100.

    Raises:
        RivalsError: shapes that do not fit, fewer than 2 candidates, values not finite, contradiction or tie not in
            0..1.

    >>> pairwise_wins([[[0., 0.], [2., 1.]], [[0., 1.], [0., 0.]]]).tolist()
    [1.0, 0.0]
    """
    for name, value in (("contradiction", contradiction), ("tie", tie)):
        if not 0 <= value <= 1:
            raise RivalsError(f"{name} is {value}; what either gets lies in 0..1")
    lead, pairs = _leads(logits, mask, probabilities, round_to)
    other = -np.swapaxes(lead, -1, -2)  # the answer of the other order, seen from i
    agreed = (lead > 0) & (other > 0)
    lost = (lead < 0) & (other < 0)
    tied = ((lead == 0) | (other == 0)) & ~agreed & ~lost
    contradicted = ~agreed & ~lost & ~tied
    return ((agreed + tie * tied + contradiction * contradicted) * pairs).sum(-1)


def judge_consistency(
    logits: ArrayLike, mask: ArrayLike | None = None, *, probabilities: bool = False, round_to: int | None = None
) -> JudgeConsistency:
    """How often a judge contradicts itself when two candidates change places, and which place it favours.

    Position bias = mean over prompts of P("the first") - 1/2, P by softmax of the two logits: +0.5 if it always says
    "the first". Shapes and errors as `pairwise_wins`. Source: Paper 100.

    >>> judge_consistency([[[0., 0.], [9., 0.]], [[9., 0.], [0., 0.]]]).contradiction_rate
    1.0
    """
    lead, pairs = _leads(logits, mask, probabilities, round_to)
    other = -np.swapaxes(lead, -1, -2)
    tied = (lead == 0) | (other == 0)
    count = max(int(pairs.sum()), 1)
    contradicted = (np.sign(lead) == -np.sign(other)) & ~tied
    first = lead + 0.5 if probabilities else expit(lead)
    return JudgeConsistency(
        float((contradicted & pairs).sum() / count),
        float((tied & pairs).sum() / count),
        float(((first - 0.5) * pairs).sum() / count),
    )


def fuse_scores(
    scores: ArrayLike,
    prior: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    weight: float = 0.7,
    normalise: Literal["minmax", "rank"] | None = None,
) -> Floats:
    """weight * scores + (1 - weight) * prior: pairwise wins with a first stage's scores, to part the many ties.

    normalise: None takes raw scores, as the paper does; "minmax" brings both to 0..1 in each list, "rank" takes 1 for
    the best down to 0 for the last (equal ones share the mean).

    Shapes: scores[..., C], prior[..., C], mask[..., C] -> [..., C], 0 where absent.

    Source: Sinhababu et al. 2024. Paper 100.

    Raises:
        RivalsError: shapes differ, values not finite, weight not in 0..1, an unknown normalise.

    >>> fuse_scores([2., 1., 1.], [0., 3., 9.], normalise="minmax", weight=0.5).round(4).tolist()
    [0.5, 0.1667, 0.5]
    """
    if not 0 <= weight <= 1:
        raise RivalsError(f"weight is {weight}; it must lie in 0..1")
    if normalise not in (None, "minmax", "rank"):
        raise RivalsError(f"normalise is '{normalise}'; it can be None, 'minmax' or 'rank'")
    ours, theirs, there = _lists(scores, prior, mask)
    if normalise is not None:
        change = _minmax if normalise == "minmax" else _by_rank
        ours, theirs = change(ours, there), change(theirs, there)
    return np.where(there, weight * ours + (1 - weight) * theirs, 0.0)


def break_ties(scores: ArrayLike, prior: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.int64]:
    """Return the places of the candidates by score, equal scores by the prior, then in their order; absent ones last.

    Shapes: scores[..., C], prior[..., C], mask[..., C] -> int64[..., C].

    Source: the tie rule of the code of Paper 100.

    Raises:
        RivalsError: shapes differ, values not finite.

    >>> break_ties([1., 2., 1.], [0., 0., 5.]).tolist()
    [1, 2, 0]
    """
    ours, theirs, there = _lists(scores, prior, mask)
    return np.lexsort((-theirs, -ours, ~there), axis=-1)


def _array(values: Any) -> NDArray[Any]:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)


def _leads(
    logits: ArrayLike, mask: ArrayLike | None, probabilities: bool, round_to: int | None
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return by how much "the first" leads when i is first and j second, [..., C, C], and which pairs count."""
    values = _array(logits).astype(np.float64)
    square = values.shape if probabilities else values.shape[:-1]
    if len(square) < 2 or square[-1] != square[-2] or square[-1] < 2 or not (probabilities or values.shape[-1] == 2):
        wanted = "[..., C, C]" if probabilities else "[..., C, C, 2]"
        raise RivalsError(f"logits have shape {values.shape}; they must be {wanted}, C at least 2")
    size = square[-1]
    there = np.ones((*square[:-2], size), dtype=bool) if mask is None else _array(mask)
    if there.dtype != bool or there.shape != (*square[:-2], size):
        raise RivalsError(f"mask must be bool of shape {(*square[:-2], size)}")
    pairs = there[..., :, None] & there[..., None, :] & ~np.eye(size, dtype=bool)
    if not np.isfinite(values[pairs]).all():
        raise RivalsError("the judge's answers must be finite for every pair that is there")
    values = np.where(pairs if probabilities else pairs[..., None], values, 0.5)
    if probabilities and not ((values >= 0) & (values <= 1)).all():
        raise RivalsError("probabilities must lie in 0..1")
    if round_to is not None:
        values = values.round(round_to)
    return (values - 0.5 if probabilities else values[..., 0] - values[..., 1]), pairs


def _lists(scores: ArrayLike, prior: ArrayLike, mask: ArrayLike | None) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    ours, theirs = _array(scores).astype(np.float64), _array(prior).astype(np.float64)
    if ours.shape != theirs.shape or ours.ndim == 0:
        raise RivalsError(f"scores have shape {ours.shape} and prior {theirs.shape}; they must be equal")
    there = np.ones(ours.shape, dtype=bool) if mask is None else _array(mask)
    if there.dtype != bool or there.shape != ours.shape:
        raise RivalsError(f"mask must be bool of shape {ours.shape}")
    if not (np.isfinite(ours[there]).all() and np.isfinite(theirs[there]).all()):
        raise RivalsError("scores and prior must be finite for every candidate that is there")
    return np.where(there, ours, 0.0), np.where(there, theirs, 0.0), there


def _minmax(values: Floats, there: NDArray[np.bool_]) -> Floats:
    low = np.where(there, values, np.inf).min(-1, keepdims=True, initial=np.inf)
    high = np.where(there, values, -np.inf).max(-1, keepdims=True, initial=-np.inf)
    spread = np.where(high > low, high - low, 1.0)
    return (values - np.where(np.isfinite(low), low, 0.0)) / spread


def _by_rank(values: Floats, there: NDArray[np.bool_]) -> Floats:
    lower = (there[..., None, :] & (values[..., None, :] < values[..., :, None])).sum(-1)
    alike = (there[..., None, :] & (values[..., None, :] == values[..., :, None])).sum(-1)
    return (lower + (alike - 1) / 2) / np.maximum(there.sum(-1, keepdims=True) - 1, 1)
