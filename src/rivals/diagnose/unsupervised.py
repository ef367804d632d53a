"""Ranking without labels: a probe on hidden states must answer consistently and decide, in whichever direction.

The objectives are differentiable: `contrast_consistency` for a statement and its negation, and direction-free twins of
ranking losses, which take the better of the two directions. They say nothing of which end is the top: `oracle_direction`
takes that from the labels and is an optimistic measure; one known pair is the honest way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype


def contrast_consistency(p_pos: Tensor, p_neg: Tensor) -> Tensor:
    """Consistency and confidence of the probabilities of a statement and of its negation; 0 is best.

    L = mean of min(p+, p-)^2 + (p+ - (1 - p-))^2: one of the two must be improbable, and they must add up to 1.

    Shapes: p_pos[...], p_neg[...] in 0..1 -> scalar with gradients (one half to either at p+ = p-). Also a diagnosis of
    any judge of pairs: give the answers of the two orders. p+ = p- = 1/2, undecided, costs 0.25.

    Source: Burns et al. 2023 (contrast-consistent search), which pairwise CCR (Stoehr et al. 2024) reuses. Paper 78.

    Raises:
        RivalsError: shapes differ, no pair, a value outside 0..1.

    >>> contrast_consistency(torch.tensor([0.8]), torch.tensor([0.4])).item().__round__(4)
    0.2
    """
    if p_pos.shape != p_neg.shape or p_pos.numel() == 0:
        raise RivalsError(
            f"p_pos has shape {tuple(p_pos.shape)} and p_neg {tuple(p_neg.shape)}; equal, at least one pair"
        )
    for name, p in (("p_pos", p_pos), ("p_neg", p_neg)):
        if not ((p >= 0) & (p <= 1)).all():
            raise RivalsError(f"{name} must lie in 0..1")
    return (torch.minimum(p_pos, p_neg).square() + (p_pos - (1 - p_neg)).square()).mean()


def center_by_class(states: Tensor, *, scale: bool = False) -> Tensor:
    """Subtract the mean of the rows, and with `scale` divide by their population deviation.

    Call it for the statements and for their negations apart, and on the training rows' own statistics: it removes the
    direction that only says "ends in Yes". Columns without spread stay 0.

    Shapes: states[N, D] -> [N, D].

    Source: the normalisation of Burns et al. 2023. Paper 78.

    Raises:
        RivalsError: not [N, D] with at least 2 rows, a value not finite.

    >>> center_by_class(torch.tensor([[1., 5.], [3., 5.]]), scale=True).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    if states.dim() != 2 or len(states) < 2:
        raise RivalsError(f"states have shape {tuple(states.shape)}; they must be [N, D] with at least 2 rows")
    if not states.isfinite().all():
        raise RivalsError("states hold values that are not finite")
    centred = states - states.mean(0)
    if not scale:
        return centred
    deviation = centred.square().mean(0).sqrt()
    return centred / deviation.masked_fill(deviation == 0, 1)


def direction_free_margin(scores: Tensor, mask: Tensor | None = None, *, margin: float = 0.2) -> Tensor:
    """Push the items of a list apart by a margin, whichever way (MarginCCR).

    L = mean over pairs of max(0, margin - |s_i - s_j|), the smaller of the hinge losses of the two directions.

    Shapes: scores[..., C], mask[..., C] -> scalar, the mean over lists with a pair; 0 without any. Unchanged by
    negating all scores or adding a constant; the scale must be bound (|w| = 1), or it is met by stretching.

    Source: Stoehr et al. 2024, contrast-consistent ranking. Paper 78 (the default margin is unverified).

    Raises:
        RivalsError: margin not above 0, scores not floating, a mask of another shape, NaN.

    >>> direction_free_margin(torch.tensor([0., .1, .5])).item().__round__(6)
    0.033333
    """
    values, there = _lists(scores, mask)
    _check_margin(margin)
    pairs = there.unsqueeze(-1) & there.unsqueeze(-2)
    pairs = pairs & torch.ones_like(pairs).triu(1)
    apart = (values.unsqueeze(-1) - values.unsqueeze(-2)).abs()
    return _mean_of_lists((margin - apart).clamp(min=0), pairs, 2)


def direction_free_triplet(scores: Tensor, mask: Tensor | None = None, *, margin: float = 0.2) -> Tensor:
    """Make the distances of every two items to an anchor differ by a margin, whichever is nearer (TripletCCR).

    L = mean over anchors a and pairs i, j of max(0, margin - | |s_a - s_i| - |s_a - s_j| |), a, i, j different.

    Shapes: scores[..., C], mask[..., C] -> scalar, the mean over lists with a triple; 0 without any. O(C^3).

    Source: Stoehr et al. 2024, contrast-consistent ranking. Paper 78.

    Raises:
        RivalsError: as `direction_free_margin`.

    >>> direction_free_triplet(torch.tensor([0., .3, -.3, 9.]), torch.tensor([True, True, True, False])).item().__round__(4)
    0.0667
    """
    values, there = _lists(scores, mask)
    _check_margin(margin)
    size = values.shape[-1]
    distance = (values.unsqueeze(-1) - values.unsqueeze(-2)).abs()
    apart = (distance.unsqueeze(-1) - distance.unsqueeze(-2)).abs()
    place = torch.arange(size, device=values.device)
    a, i, j = place.view(-1, 1, 1), place.view(1, -1, 1), place.view(1, 1, -1)
    triples = there[..., :, None, None] & there[..., None, :, None] & there[..., None, None, :]
    triples = triples & (i < j) & (a != i) & (a != j)
    return _mean_of_lists((margin - apart).clamp(min=0), triples, 3)


def ordinal_consistency(scores: Tensor, thresholds: Tensor, mask: Tensor | None = None) -> Tensor:
    """Every rank taken by exactly one item, and every item sure of its rank (the ordinal CCR, in our reading).

    With thresholds b_1 < ... < b_{C-1}, P(rank_i > k) = sigmoid(s_i - b_k) and P_ik by differences:
    L = mean over ranks k of (sum_i P_ik - 1)^2 + mean over items i of (1 - max_k P_ik)^2.

    Shapes: scores[..., C], thresholds[C - 1] (rising), mask[..., C] -> scalar, the mean over lists. With m of C items
    there each rank is to be taken by m / C of one.

    Source: Stoehr et al. 2024 name the objective; the form is recollected and not verified. Paper 78.

    Raises:
        RivalsError: thresholds not C - 1 rising numbers; otherwise as `direction_free_margin`.

    >>> ordinal_consistency(torch.tensor([-50., 0., 50.]), torch.tensor([-25., 25.])).item().__round__(6)
    0.0
    """
    values, there = _lists(scores, mask)
    size = values.shape[-1]
    if thresholds.shape != (size - 1,) or not (thresholds[1:] > thresholds[:-1]).all():
        raise RivalsError(f"thresholds must be {size - 1} rising numbers, one fewer than the items")
    above = (values.unsqueeze(-1) - thresholds.to(values.dtype)).sigmoid()
    edge = torch.ones_like(values).unsqueeze(-1)
    p = torch.cat([edge, above], -1) - torch.cat([above, edge - 1], -1)
    kept = there.to(values.dtype)
    count = kept.sum(-1)
    taken = ((p * kept.unsqueeze(-1)).sum(-2) - (count / size).unsqueeze(-1)).square().mean(-1)
    unsure = ((1 - p.amax(-1)).square() * kept).sum(-1) / count.clamp(min=1)
    held = (count > 0).to(values.dtype)
    return ((taken + unsure) * held).sum() / held.sum().clamp(min=1)


def min_over_directions(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the direction-free twin of a loss: the smaller of its values for the scores and for their negatives.

    `loss(scores, ...)` must return values elementwise (reduction="none"); the twin takes the minimum element by element.
    Apply it to single pairs for contrast-consistent ranking.

    Source: the general rule of Stoehr et al. 2024. Paper 78.

    >>> hinge = min_over_directions(lambda difference: (0.2 - difference).clamp(min=0))
    >>> hinge(torch.tensor([-0.5, 0.1])).tolist()
    [0.0, 0.10000000149011612]
    """

    def twin(scores: Tensor, *arguments: Any, **options: Any) -> Tensor:
        return torch.minimum(loss(scores, *arguments, **options), loss(-scores, *arguments, **options))

    return twin


def oracle_direction(measure: Callable[..., Any]) -> Callable[..., Any]:
    """Return a measure that takes the better of the two directions of the scores, element by element.

    Optimistic: the direction is read from the labels. Report beside it a direction fixed by one known pair.

    Source: the evaluation of Paper 78.

    >>> from rivals.measures import kendall_tau
    >>> oracle_direction(kendall_tau)(torch.tensor([1., 2., 3.]), torch.tensor([3, 2, 1])).item()
    1.0
    """

    def better(scores: Any, *arguments: Any, **options: Any) -> Any:
        one, other = measure(scores, *arguments, **options), measure(-scores, *arguments, **options)
        return torch.maximum(one, other) if isinstance(one, Tensor) else (one if one >= other else other)

    return better


def _lists(scores: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    if not isinstance(scores, Tensor) or not scores.is_floating_point() or scores.dim() == 0 or scores.shape[-1] == 0:
        raise RivalsError("scores must be a floating-point tensor [..., C] with at least one item")
    there = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    if there.dtype != torch.bool or there.shape != scores.shape:
        raise RivalsError(f"mask must be bool of shape {tuple(scores.shape)}")
    values = scores.to(compute_dtype(scores)).masked_fill(~there, 0)
    if not values.isfinite().all():
        raise RivalsError("scores must be finite for every item that is there")
    return values, there


def _check_margin(margin: float) -> None:
    if not margin > 0:
        raise RivalsError(f"margin is {margin}; it must be above 0")


def _mean_of_lists(terms: Tensor, counted: Tensor, dims: int) -> Tensor:
    axes = tuple(range(-dims, 0))
    count = counted.sum(axes)
    each = terms.masked_fill(~counted, 0).sum(axes) / count.clamp(min=1)
    return each.sum() / (count > 0).sum().clamp(min=1)
