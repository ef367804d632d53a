"""Sums over pairs of candidates of one list: the core that every pair loss stands on.

How to build a loss on it:

    lists = check_lists(scores, relevance, mask, weight, reduction)
    gain = PairTerm(lambda first, second: first[0] - second[0], (lists.relevance,))
    return pair_loss(lists, Logistic(), pair_weight=gain, reduction=reduction)

- *What a pair costs*: a kernel of `pair_kernels` (Logistic, Hinge, SquaredHinge, Squared, Exponential), a function of
  the difference of the two scores. Any other object with the methods of `Kernel` will do.
- *Which pairs*: `ordered_pairs(key, mask)` (the first candidate has the higher key; the default, by relevance),
  `tied_pairs(key, mask)` (equal keys, both orders, each candidate with itself) and `all_pairs(first, mask)` (every
  candidate marked `first` with every candidate, itself included). In all of them a candidate's partners are a
  contiguous range of places in one order of the list, which is all that a `Pairs` says; make your own the same way.
- *Weights and margins of pairs*: None, a tensor [..., C, C] (first index: the first candidate), or a `PairTerm`: a
  function of per-candidate tensors [..., C] (ranks, gains, discounts, ...) that gives the numbers block by block, so
  that no C x C tensor exists. It is called with the tensors of the first candidates shaped [n, r, 1] and those of the
  second shaped [n, 1, c], and returns something that broadcasts to [n, r, c]. A margin is taken off the difference.
  `lists.weight` multiplies every pair by the weights of both candidates. No gradient flows through a PairTerm.

`pair_sums` returns each list's sum and number of pairs, `pair_loss` reduces them, and `pair_derivatives` gives every
candidate's sums of values, slopes and curvatures (for boosted trees).

How it works: lists are sorted once, so that the pairs fill rectangles; a block of a rectangle is made, its value and
slopes are summed, and it is forgotten: only a gradient [..., C] is kept for backward. A squared kernel without pair
weights needs cumulative sums alone and a hinge a few sorts (`pair_sorting`). Small problems, weights that need a gradient,
and second derivatives take the readable version, `dense_total`, which autograd differentiates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rivals.losses._common import Checked, Reduction, reduce_lists
from rivals.losses._fused.pair_blocks import BlockedSum, Pairs, PairTerm, Plan, Sweep, dense_total
from rivals.losses._fused.pair_kernels import Exponential, Hinge, Kernel, Logistic, Squared, SquaredHinge
from rivals.losses._fused.pair_sorting import hinge_total, squared_total

__all__ = [
    "Exponential",
    "Hinge",
    "Kernel",
    "Logistic",
    "PairSums",
    "PairTerm",
    "Pairs",
    "Roles",
    "Squared",
    "SquaredHinge",
    "all_pairs",
    "ordered_pairs",
    "pair_derivatives",
    "pair_loss",
    "pair_sums",
    "tied_pairs",
]

DENSE_ELEMENTS = 1 << 14
"""A problem of at most so many cells (lists x C x C) takes the readable version."""


class PairSums(NamedTuple):
    """Each list's sum over its pairs and the number of pairs, both [...]."""

    total: Tensor
    number: Tensor


class Roles(NamedTuple):
    """Each candidate's sums over the pairs in which it stands first (or second), all [..., C]."""

    value: Tensor
    slope: Tensor
    curvature: Tensor


def ordered_pairs(key: Tensor, mask: Tensor) -> Pairs:
    """Return the pairs whose first candidate has the higher key.

    >>> pairs = ordered_pairs(torch.tensor([[1.0, 3.0, 1.0, 9.0]]), torch.tensor([[True, True, True, False]]))
    >>> pairs.order.tolist(), pairs.start.tolist(), pairs.stop.tolist(), pairs.number.tolist()
    ([[1, 0, 2, 3]], [[1, 3, 3, 4]], [[3, 3, 3, 3]], [2])
    """
    falling, order = _sorted(key, mask)
    start = torch.searchsorted(falling, falling, right=True)
    return Pairs(order, start, mask.sum(-1, keepdim=True).expand_as(start))


def tied_pairs(key: Tensor, mask: Tensor) -> Pairs:
    """Return the pairs of candidates with equal keys, in both orders, and every candidate with itself.

    >>> tied_pairs(torch.tensor([[1.0, 3.0, 1.0]]), torch.ones(1, 3, dtype=torch.bool)).number.tolist()
    [5]
    """
    falling, order = _sorted(key, mask)
    end = mask.sum(-1, keepdim=True)
    start, stop = torch.searchsorted(falling, falling), torch.searchsorted(falling, falling, right=True)
    return Pairs(order, start, torch.minimum(stop, end))


def all_pairs(first: Tensor, mask: Tensor) -> Pairs:
    """Return the pairs of every candidate marked in `first` (bool[..., C]) with every candidate that is there.

    >>> everyone = torch.ones(1, 3, dtype=torch.bool)
    >>> all_pairs(torch.tensor([[False, True, True]]), everyone).number.tolist()
    [6]
    """
    _, order = _sorted(first.to(torch.float32), mask)
    chosen = (first & mask).gather(-1, order)
    return Pairs(order, torch.zeros_like(order), chosen * mask.sum(-1, keepdim=True))


def pair_loss(
    lists: Checked,
    kernel: Kernel,
    *,
    pairs: Pairs | None = None,
    pair_weight: Tensor | PairTerm | None = None,
    pair_margin: Tensor | PairTerm | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return `pair_sums` reduced as `reduce_lists` does: "mean" divides by all pairs of the batch."""
    sums = pair_sums(lists, kernel, pairs=pairs, pair_weight=pair_weight, pair_margin=pair_margin)
    return reduce_lists(sums.total, sums.number, reduction)


def pair_sums(
    lists: Checked,
    kernel: Kernel,
    *,
    pairs: Pairs | None = None,
    pair_weight: Tensor | PairTerm | None = None,
    pair_margin: Tensor | PairTerm | None = None,
) -> PairSums:
    """Return each list's sum of the kernel over its pairs, differentiable in the scores, and the number of pairs."""
    natural, free = pairs is None, pair_weight is None and pair_margin is None
    pairs = ordered_pairs(lists.relevance, lists.mask) if pairs is None else pairs
    plan = Plan.of(lists, pairs, kernel, pair_weight, pair_margin)
    scores = lists.scores.reshape(plan.shape).gather(-1, plan.pairs.order)
    if scores.numel() == 0:
        total = scores.sum(-1)
    elif plan.cells <= DENSE_ELEMENTS or plan.needs_gradient():
        total = dense_total(scores, plan)
    elif free and isinstance(kernel, Squared):
        total = squared_total(scores, plan.pairs.start, plan.pairs.stop, plan.weight, kernel.margin)
    elif free and natural and isinstance(kernel, Hinge | SquaredHinge):
        power = 2 if isinstance(kernel, SquaredHinge) else 1
        total = hinge_total(scores, plan.pairs.start, plan.pairs.stop, plan.weight, kernel.margin, power)
    else:
        total = BlockedSum.apply(scores, plan, torch.is_grad_enabled())
    return PairSums(total.reshape(pairs.order.shape[:-1]), pairs.number)


def pair_derivatives(
    lists: Checked, kernel: Kernel, *, pairs: Pairs | None = None, pair_weight: Tensor | PairTerm | None = None
) -> tuple[Roles, Roles]:
    """Return every candidate's sums as the first and as the second of its pairs, without gradient.

    The gradient of the list's sum is `first.slope - second.slope`, its diagonal second derivative `first.curvature +
    second.curvature`.
    """
    pairs = ordered_pairs(lists.relevance, lists.mask) if pairs is None else pairs
    with torch.no_grad():
        plan = Plan.of(lists, pairs, kernel, pair_weight, None)
        scores = lists.scores.reshape(plan.shape).gather(-1, plan.pairs.order)
        sweep = Sweep(scores, plan, slope=True, curvature=True)
        if scores.numel():
            sweep.run()
        back = plan.pairs.order

        def placed(role: list[Tensor]) -> Roles:
            found = (torch.zeros_like(part).scatter(-1, back, part).reshape(lists.scores.shape) for part in role)
            return Roles(*found)

        return placed(sweep.first), placed(sweep.second)


def _sorted(key: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the negated keys in rising order, absent ones last as infinity, and the permutation."""
    return (-key.detach()).masked_fill(~mask, torch.inf).sort(dim=-1, stable=True)
