"""Smooth ranks of long lists: a block of rows of the comparison matrix at a time, made again for the gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_BLOCK_ELEMENTS = 1 << 20


class SoftRanks(torch.autograd.Function):
    """1 + sum over j != i of sigmoid((s_j - s_i) / temperature) for scores, mask [B, C]; 0 where none is there.

    sigmoid' is symmetric, so with W its values and g the gradient at the ranks, that at the scores is
    (W g - g * (W 1)) / temperature: two products with every block.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, mask: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(scores, mask)
        ctx.temperature = temperature
        ranks = torch.zeros_like(scores)
        for rows in _blocks(scores):
            ahead = _ahead(scores, mask, rows, temperature)
            ranks[:, rows] = ahead.sum(-1) + 0.5  # 1, less the half that a candidate counts against itself
        return ranks.masked_fill(~mask, 0.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        scores, mask = ctx.saved_tensors
        grad = grad.masked_fill(~mask, 0.0)
        sides = torch.stack([grad, mask.to(grad.dtype)], -1)
        found = torch.zeros_like(scores)
        for rows in _blocks(scores):
            ahead = _ahead(scores, mask, rows, ctx.temperature)
            slope = ahead * (1 - ahead)
            pushed, pulled = (slope @ sides).unbind(-1)
            found[:, rows] = (pushed - grad[:, rows] * pulled) / ctx.temperature
        return found.masked_fill(~mask, 0.0), None, None


def _blocks(scores: Tensor) -> list[slice]:
    count, width = scores.shape
    step = max(1, _BLOCK_ELEMENTS // max(count * width, 1))
    return [slice(start, start + step) for start in range(0, width, step)]


def _ahead(scores: Tensor, mask: Tensor, rows: slice, temperature: float) -> Tensor:
    """Return by how much every candidate j stands ahead of those of a block, 0 where j is absent."""
    difference = scores.unsqueeze(-2) - scores[:, rows].unsqueeze(-1)
    return (difference / temperature).sigmoid_().masked_fill_(~mask.unsqueeze(-2), 0.0)
