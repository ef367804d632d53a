"""RankList: order constraints between neighbours and between distant levels of one ordered, noisily labelled list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_choice,
    check_targets,
    reduce_lists,
)
from rivals.losses._fused.pairs import Logistic, Pairs, PairTerm, pair_sums
from rivals.losses._gains import check_depth

__all__ = ["SkipSchedule", "ranklist_loss"]

_NOTHING = -1e30  # finite, so that no gradient is infinity minus infinity; its exponential is 0


def ranklist_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    form: Literal["lse", "pairwise"] = "lse",
    max_skip: int | None = None,
    margin: float = 0.0,
    local_weight: float = 1.0,
    nonlocal_weight: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Each candidate against those of lower target, up to `max_skip` levels below it and by at least a margin.

    Formula:
        N_i = { j : y_i > y_j, y_i - y_j >= margin, level_j - level_i <= max_skip },  y = `targets`, levels the distinct
        targets of a list from the highest. "lse": L_q = mean over i with N_i of log(1 + sum_{j in N_i} e^{s_j - s_i});
        "pairwise": L_q = mean over i, j in N_i of w_ij log(1 + e^{s_j - s_i}), w = `local_weight` one level apart, else
        `nonlocal_weight`. "mean" and "list_mean" are the mean of L_q over the lists with a comparison, "none" gives L_q.

    Shapes:
        scores, targets float[..., C] (targets of any sign), mask bool[..., C]
        -> scalar, or float[...] with reduction="none".

    When to use:
        Subjective or noisy graded labels (arousal, beauty, ages), where neighbours can hardly be told apart: a margin
        in units of the labels leaves those out; `SkipSchedule` begins with neighbours and goes on to the whole list.

    Relations:
        max_skip=1, or two candidates: both forms are RankNet on neighbours. No limits and no ties: "lse" times the
        number of candidates less one is the ListMLE loss; "pairwise" is `pairwise_logistic_loss`, averaged by list. An
        anchor's "lse" is at most the sum of its pairs.

    Source:
        RankList (2025), arXiv 2508.09826. Paper 56. The formulas are reconstructed from the abstract: the paper's
        own could not be read.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite at a
        candidate that is there, margin < 0, max_skip < 1, negative weights, weights other than 1 with form "lse", an
        unknown form or reduction.

    Example:
        "lse" takes O(C log C), "pairwise" the time of its pairs; neither makes a tensor [..., C, C].

        >>> ranklist_loss(torch.zeros(1, 3), torch.tensor([[3.0, 2.0, 1.0]]))
        tensor(0.8959)
    """
    check_choice(form, ("lse", "pairwise"), "form")
    check_depth(max_skip, "max_skip")
    check_at_least_zero(margin, "margin")
    check_at_least_zero(local_weight, "local_weight")
    check_at_least_zero(nonlocal_weight, "nonlocal_weight")
    if form == "lse" and (local_weight, nonlocal_weight) != (1, 1):
        raise RivalsError('local_weight and nonlocal_weight weigh pairs; give them with form="pairwise"')
    lists = check_targets(scores, targets, mask, None, reduction)
    pairs, level = _comparisons(lists.relevance, lists.mask, max_skip, margin)
    if form == "pairwise":

        def by_gap(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> Tensor:
            near = second[0] - first[0] == 1
            return torch.where(near, local_weight, nonlocal_weight).to(lists.scores.dtype)

        weighs = None if local_weight == nonlocal_weight == 1 else PairTerm(by_gap, (level,))
        sums = pair_sums(lists, Logistic(), pairs=pairs, pair_weight=weighs)
        return reduce_lists(sums.total / sums.number.clamp(min=1), sums.number > 0, reduction)
    ordered = lists.scores.gather(-1, pairs.order)
    anchor = pairs.stop > pairs.start
    below = _range_logsumexp(ordered, pairs.start, pairs.stop)
    cost = F.softplus((below - ordered).masked_fill(~anchor, 0.0)).masked_fill(~anchor, 0.0)
    count = anchor.sum(-1)
    return reduce_lists(cost.sum(-1) / count.clamp(min=1), count > 0, reduction)


@dataclass(frozen=True)
class SkipSchedule:
    """How many levels apart `ranklist_loss` may compare, from `start`, growing evenly over `warmup_steps` to `end`.

    max_skip(t) = start + floor((end - start) min(1, t / warmup_steps)); end None is the list's length less one.

    Args: warmup_steps >= 1; start >= 1; end >= start or None.
    Source: RankList (2025). Paper 56 (reconstructed, as the loss).
    Raises: RivalsError for numbers out of range, a negative step, a list of less than two.

    >>> [SkipSchedule(4).max_skip(step, list_size=9) for step in range(6)]
    [1, 2, 4, 6, 8, 8]
    """

    warmup_steps: int
    start: int = 1
    end: int | None = None

    def __post_init__(self) -> None:
        if self.warmup_steps < 1 or self.start < 1 or (self.end is not None and self.end < self.start):
            raise RivalsError(
                "a skip schedule needs warmup_steps >= 1, start >= 1 and end >= start; got "
                f"{self.warmup_steps}, {self.start} and {self.end}"
            )

    def max_skip(self, step: int, list_size: int) -> int:
        """Return the `max_skip` of a step (from 0) for lists of `list_size` candidates."""
        if step < 0 or list_size < 2:
            raise RivalsError(f"a schedule needs step >= 0 and lists of at least 2; got {step} and {list_size}")
        end = max(self.start, list_size - 1) if self.end is None else self.end
        return self.start + (end - self.start) * min(step, self.warmup_steps) // self.warmup_steps


def _range_logsumexp(values: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Return at every place the log-sum-exp of `values` over places start .. stop - 1, in O(C log C), and -1e30 for none.

    A range falls into stretches whose lengths are powers of two; those of each length are made from the last ones.

    >>> place = torch.tensor([[0, 0, 2]]), torch.tensor([[1, 3, 2]])
    >>> _range_logsumexp(torch.zeros(1, 3), *place).exp()
    tensor([[1., 3., 0.]])
    """
    width = values.shape[-1]
    length, place = (stop - start).clamp(min=0), start.clamp(max=max(width - 1, 0))
    found = torch.full_like(values, _NOTHING)
    stretch = values
    for bit in range(width.bit_length()):
        size = 1 << bit
        taken = (length >> bit) & 1 == 1
        piece = stretch.gather(-1, place.clamp(max=max(width - 1, 0))).masked_fill(~taken, _NOTHING)
        found = torch.logaddexp(found, piece)
        place = place + size * taken
        further = F.pad(stretch[..., size:], (0, min(size, width)), value=_NOTHING)
        stretch = torch.logaddexp(stretch, further)
    return found


def _comparisons(targets: Tensor, mask: Tensor, max_skip: int | None, margin: float) -> tuple[Pairs, Tensor]:
    """The comparable candidates of each, a range of places, and the level of each candidate (in input order)."""
    falling, order = (-targets).masked_fill(~mask, torch.inf).sort(dim=-1, stable=True)
    level = F.pad((falling[..., 1:] != falling[..., :-1]).long().cumsum(-1), (1, 0))[..., : falling.shape[-1]]
    start = torch.searchsorted(falling, falling, right=True)
    if margin > 0:
        start = torch.maximum(start, torch.searchsorted(falling, falling + margin))
    stop = mask.sum(-1, keepdim=True).expand_as(start)
    if max_skip is not None:
        stop = torch.minimum(stop, torch.searchsorted(level, level + max_skip, right=True))
    return Pairs(order, start, stop), torch.zeros_like(level).scatter(-1, order, level)
