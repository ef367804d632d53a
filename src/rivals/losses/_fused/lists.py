"""What a rule makes of lists whose negatives are given by their log-sum-exp: losses, and the pulls on both sides.

One entry a list and one a positive pair, so that nothing here is large.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.losses._common import Reduction
from rivals.losses._in_batch import Rule, Suspects, debiased, log_count
from rivals.losses._pairs import Assignment

_BLOCK_ELEMENTS = 1 << 20


def shares(index: Tensor, weight: Tensor, size: int, reduction: Reduction, scale: float) -> Tensor:
    """Each pair's weight over its list's total, times what the reduction and the average over directions ask for."""
    total = weight.new_zeros(size).index_add_(0, index, weight)
    share = weight / total[index] * scale
    return share if reduction == "sum" else share / (total > 0).sum().clamp(min=1)


class Targets:
    """Graded relevance, dense: what pushes every logit of a block up, and how hard lists are pulled down."""

    def __init__(
        self, pairs: Assignment, graded: Tensor, rows: bool, columns: bool, reduction: Reduction, dtype: torch.dtype
    ) -> None:
        self.pairs, self.graded, self.dtype = pairs, graded, dtype
        count, width = pairs.shape
        step = max(1, _BLOCK_ELEMENTS // max(width, 1))
        row_total, column_total = graded.new_zeros(count, dtype=dtype), graded.new_zeros(width, dtype=dtype)
        for start in range(0, count, step):
            block = self.block(start, start + step)
            row_total[start : start + step] = block.sum(1)
            column_total += block.sum(0)
        scale = 1.0 / (rows + columns)
        self.row_pull = _pulls(row_total, scale * rows, reduction)
        self.column_pull = _pulls(column_total, scale * columns, reduction)
        self._by_row = self.row_pull / row_total.masked_fill(row_total == 0, 1.0)
        self._by_column = self.column_pull / column_total.masked_fill(column_total == 0, 1.0)

    def block(self, start: int, stop: int) -> Tensor:
        """Return the weighted relevance of queries start..stop, 0 where a document is absent."""
        target = self.graded[start:stop].to(self.dtype)
        if self.pairs.weight is not None:
            target = target * self.pairs.weight[start:stop].to(self.dtype)
        if self.pairs.mask is not None:
            target = target.masked_fill(~self.pairs.mask[start:stop], 0.0)
        return target

    def push(self, target: Tensor, start: int, stop: int) -> Tensor:
        """Return how hard every logit of a block is pushed up."""
        return target * (self._by_row[start:stop, None] + self._by_column)


def _pulls(total: Tensor, scale: float, reduction: Reduction) -> Tensor:
    listed = (total > 0).to(total.dtype) * scale
    return listed if reduction == "sum" else listed / (total > 0).sum().clamp(min=1)


def compete(
    lse: Tensor, index: Tensor, positive: Tensor, share: Tensor, count: Tensor | None, rule: Rule
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss [], how hard each positive is pushed up [P] and each list's log-sum-exp pulled down [n].

    `lse` [n] is that of the negatives (with the rules "all" and "graded" and no prior: of everything), -inf where
    nothing competes; positive pair p of logit `positive[p]` and part `share[p]` of the loss belongs to list `index[p]`.
    `count` [n], the number of negatives, is read with a prior only.
    """
    if rule.prior > 0:
        assert count is not None
        with torch.enable_grad():
            leaves = lse.detach().requires_grad_(), positive.detach().requires_grad_()
            loss = _debiased_loss(*leaves, index, share, count, rule)
            pull, minus_push = torch.autograd.grad(loss, leaves)
        return loss.detach(), -minus_push, pull
    gap = lse[index] - positive + rule.margin
    if rule.positives == "each":
        loss, push = -(share * F.logsigmoid(-gap)).sum(), share * gap.sigmoid()
    else:
        opposed = gap > -torch.inf
        push = share.masked_fill(~opposed, 0.0)
        loss = (push * gap.masked_fill(~opposed, 0.0)).sum()
    return loss, push, torch.zeros_like(lse).index_add_(0, index, push)


def _debiased_loss(lse: Tensor, positive: Tensor, index: Tensor, share: Tensor, count: Tensor, rule: Rule) -> Tensor:
    opposed = count > 0
    total = torch.zeros_like(lse).index_add(0, index, share)
    log_mean = _grouped_logsumexp(positive, index, share / total[index], len(lse))
    against = debiased(lse.masked_fill(~opposed, 0.0), Suspects(log_mean, log_count(count)), rule)
    own = positive - rule.margin
    if rule.positives == "all":
        competing = _grouped_logsumexp(own, index, torch.ones_like(own), len(lse))
        against = torch.logaddexp(against.masked_fill(~opposed, -torch.inf), competing)
        return (share * (against[index] - own)).sum()
    gap = (against[index] - own).masked_fill(~opposed[index], 0.0)
    losses = gap if rule.positives == "decoupled" else -F.logsigmoid(-gap)
    return (share * losses.masked_fill(~opposed[index], 0.0)).sum()


def _grouped_logsumexp(values: Tensor, index: Tensor, weight: Tensor, size: int) -> Tensor:
    """Return log sum of weight e^value by list; 0 for a list without a value."""
    highest = values.detach().new_zeros(size).scatter_reduce_(0, index, values.detach(), "amax", include_self=False)
    total = torch.zeros_like(highest).index_add(0, index, weight * (values - highest[index]).exp())
    return highest + total.masked_fill(total == 0, 1.0).log()


def finite(values: Tensor) -> Tensor:
    """Return values with 0 in place of -inf."""
    return values.masked_fill(values == -torch.inf, 0.0)
