"""The machinery of the pair core: a plan in sorted order, rectangles of pairs, one pass over them. See `pairs`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rivals.losses._common import Checked, check_not_negative
from rivals.losses._fused.pair_kernels import Kernel

BLOCK_ELEMENTS = 1 << 17
DEVICE_BLOCK_ELEMENTS = 1 << 24
"""Pairs of a block: what stays in the cache of a processor; elsewhere, what hides the cost of starting a kernel."""


class Pairs(NamedTuple):
    """Which pairs are summed: the candidate at place p of `order` is first, those at start[p] .. stop[p] - 1 second.

    All three are int64[..., C]; `start` and `stop` are by place, and a place with start >= stop is first in no pair.
    """

    order: Tensor
    start: Tensor
    stop: Tensor

    @property
    def number(self) -> Tensor:
        """The number of pairs of each list, int64[...]."""
        return (self.stop - self.start).clamp(min=0).sum(-1)


@dataclass(frozen=True)
class PairTerm:
    """A number for every pair, as a function of per-candidate tensors; with a `name` it is checked not to be negative."""

    function: Callable[[tuple[Tensor, ...], tuple[Tensor, ...]], Tensor]
    attributes: tuple[Tensor, ...]
    name: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything but the scores, flattened to [B, C] and in the order of the pairs."""

    shape: tuple[int, int]
    dtype: torch.dtype
    pairs: Pairs
    kernel: Kernel
    weight: Tensor | None
    term_weight: Tensor | PairTerm | None
    margin: Tensor | PairTerm | None

    @staticmethod
    def of(
        lists: Checked,
        pairs: Pairs,
        kernel: Kernel,
        pair_weight: Tensor | PairTerm | None,
        pair_margin: Tensor | PairTerm | None,
    ) -> Plan:
        width = pairs.order.shape[-1]
        shape = (math.prod(pairs.order.shape[:-1]), width)
        flat = Pairs(*(part.reshape(shape) for part in pairs))

        def by_place(values: Tensor) -> Tensor:
            return values.reshape(shape).gather(-1, flat.order)

        def sorted_term(term: Tensor | PairTerm | None) -> Tensor | PairTerm | None:
            if isinstance(term, PairTerm):
                return PairTerm(term.function, tuple(by_place(a.detach()) for a in term.attributes), term.name)
            return None if term is None else term.reshape(*shape, width)

        weight = None if lists.weight is None else by_place(lists.weight)
        return Plan(shape, lists.scores.dtype, flat, kernel, weight, sorted_term(pair_weight), sorted_term(pair_margin))

    @property
    def cells(self) -> int:
        return self.shape[0] * self.shape[1] ** 2

    def needs_gradient(self) -> bool:
        """Whether a weight or a margin needs a gradient, which only the readable version gives."""
        given = (self.weight, self.term_weight, self.margin)
        return torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in given)

    def term(self, term: Tensor | PairTerm | None, block: Block) -> Tensor | None:
        """A term's numbers for a block, [n, r, c] or something that broadcasts to it."""
        if term is None:
            return None
        if isinstance(term, PairTerm):
            rows = tuple(a[block.lists, block.rows].unsqueeze(-1) for a in term.attributes)
            columns = tuple(a[block.lists, block.columns].unsqueeze(-2) for a in term.attributes)
            return term.function(rows, columns)
        order = self.pairs.order[block.lists]
        number = torch.arange(block.lists.start, block.lists.stop, device=term.device)[:, None, None]
        chosen = term[number, order[:, block.rows].unsqueeze(-1), order[:, block.columns].unsqueeze(-2)]
        return chosen.to(self.dtype)

    def pair_weight(self, block: Block, outside: list[tuple[slice, Tensor]]) -> Tensor | None:
        """The product of all weights of a block, those given by a caller checked wherever there is a pair."""
        found = self.term(self.term_weight, block)
        name = self.term_weight.name if isinstance(self.term_weight, PairTerm) else "pair_weight"
        if found is not None and name:
            shape = [part.stop - part.start for part in block[:3]]
            found = found.expand(shape).clone()
            for strip, hidden in outside:
                found[..., strip] = found[..., strip].masked_fill(hidden, 0.0)
            check_not_negative(found, name)
        if self.weight is not None:
            rows, columns = self.weight[block.lists, block.rows], self.weight[block.lists, block.columns]
            both = rows.unsqueeze(-1) * columns.unsqueeze(-2)
            found = both if found is None else found * both
        return found

    def outside(self, block: Block) -> list[tuple[slice, Tensor]]:
        """For each strip of a block, which of its cells are no pairs, bool[n, r, s]."""
        start, stop = (part[block.lists, block.rows].unsqueeze(-1) for part in self.pairs[1:])
        found = []
        for strip in block.strips:
            left = block.columns.start + strip.start
            place = torch.arange(left, left + strip.stop - strip.start, device=start.device)
            found.append((strip, (place < start) | (place >= stop)))
        return found


def dense_total(scores: Tensor, plan: Plan) -> Tensor:
    """The readable version: sums [B] from sorted scores [B, C], through tensors [B, C, C]."""
    columns = slice(0, plan.shape[1])
    everything = Block(slice(0, plan.shape[0]), columns, columns, (columns,))
    ((_, outside),) = plan.outside(everything)
    difference = scores.unsqueeze(-1) - scores.unsqueeze(-2)
    margin = plan.term(plan.margin, everything)
    if margin is not None:
        difference = difference - margin
    value = plan.kernel.value(difference.masked_fill(outside, 0.0))
    weight = plan.pair_weight(everything, [(columns, outside)])
    if weight is not None:
        value = value * weight
    return value.masked_fill(outside, 0.0).sum((-2, -1))


class BlockedSum(torch.autograd.Function):
    """The sum of each list, with the gradient made in the forward pass."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, plan: Plan, with_gradient: bool) -> Tensor:
        sweep = Sweep(scores, plan, slope=with_gradient and ctx.needs_input_grad[0], curvature=False)
        sweep.run()
        ctx.plan = plan
        ctx.save_for_backward(scores, sweep.gradient)
        return sweep.total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        scores, gradient = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return upstream[0].unsqueeze(-1) * gradient, None, None
        total = dense_total(scores, ctx.plan)  # somebody wants to differentiate the gradient: autograd can
        (found,) = torch.autograd.grad(total, scores, upstream[0], create_graph=True)
        return found, None, None


class Sweep:
    """One pass over all blocks, and what it sums up: totals [B] and, by place, first- and second-role sums [B, C]."""

    def __init__(self, scores: Tensor, plan: Plan, *, slope: bool, curvature: bool) -> None:
        self.scores, self.plan, self.slope, self.curvature = scores, plan, slope, curvature
        self.total = scores.new_zeros(plan.shape[0])
        self.gradient = torch.zeros_like(scores) if slope else None
        self.first = [torch.zeros_like(scores) for _ in range(3)] if curvature else []
        self.second = [torch.zeros_like(scores) for _ in range(3)] if curvature else []

    def run(self) -> None:
        for block in blocks(self.plan.pairs, self.scores.device):
            self._add(block)

    def _add(self, block: Block) -> None:
        plan = self.plan
        lists, rows, columns = block[:3]
        difference = self.scores[lists, rows].unsqueeze(-1) - self.scores[lists, columns].unsqueeze(-2)
        margin = plan.term(plan.margin, block)
        if margin is not None:
            difference -= margin
        outside = plan.outside(block)
        weight = plan.pair_weight(block, outside)
        if weight is not None:
            weight = weight.expand_as(difference)
        bent = plan.kernel.curvature(difference) if self.curvature else None
        if bent is not None and weight is not None:
            bent = bent * weight
        value, change = plan.kernel.block(difference, weight, slope=self.slope)
        for strip, hidden in outside:
            for part in (value, change, bent):
                if part is not None:
                    part[..., strip].masked_fill_(hidden, 0.0)
        self.total[lists] += value.sum((-2, -1))
        if self.gradient is not None and change is not None:
            self.gradient[lists, rows] += change.sum(-1)
            self.gradient[lists, columns] -= change.sum(-2)
        if self.curvature:
            for index, part in enumerate((value, change, bent)):
                assert part is not None
                self.first[index][lists, rows] += part.sum(-1)
                self.second[index][lists, columns] += part.sum(-2)


class Block(NamedTuple):
    """A rectangle of pairs: lists, rows (first candidates) and columns (second), and the columns that need a mask."""

    lists: slice
    rows: slice
    columns: slice
    strips: tuple[slice, ...]  # relative to `columns`


def blocks(pairs: Pairs, device: torch.device) -> Iterator[Block]:
    """Cover the pairs with rectangles: several short lists at once, or some rows of a long one."""
    count, width = pairs.order.shape
    size = BLOCK_ELEMENTS if device.type == "cpu" else DEVICE_BLOCK_ELEMENTS
    group = max(1, size // (4 * width**2))  # a longer list gets its own, whose pairs need few masks
    start, stop = pairs.start.cpu().numpy(), pairs.stop.cpu().numpy()
    used = stop > start
    for first in range(0, count, group):
        lists = slice(first, min(first + group, count))
        height = max(1, size // ((lists.stop - first) * width))
        rows_used = np.flatnonzero(used[lists].any(0))
        if len(rows_used) == 0:
            continue
        for row in range(int(rows_used[0]), int(rows_used[-1]) + 1, height):
            rows = slice(row, min(row + height, int(rows_used[-1]) + 1))
            inside = used[lists, rows]
            if not inside.any():
                continue
            starts, stops = start[lists, rows], stop[lists, rows]
            left, right = int(starts[inside].min()), int(stops[inside].max())
            full = inside.all()
            inner = (int(starts.max()) - left, int(stops.min()) - left) if full else (right - left, 0)
            yield Block(lists, rows, slice(left, right), _strips(right - left, *inner))


def _strips(width: int, begin: int, end: int) -> tuple[slice, ...]:
    """The columns that some row does not use, where all rows use those from `begin` to `end`."""
    if begin >= end:
        return (slice(0, width),)
    return tuple(s for s in (slice(0, begin), slice(end, width)) if s.start < s.stop)
