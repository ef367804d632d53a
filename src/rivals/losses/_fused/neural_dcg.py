"""DCG of NeuralSort's relaxed order after Sinkhorn scaling, without a matrix a round: values and gradient by vectors.

In descending order of the scores NeuralSort's matrix is P_0 = diag(u_0) E, E_rj = e^{z_rj - z_rr}, whose diagonal of ones
holds the largest entry of every row. Sinkhorn's rounds change nothing but the scales of rows and columns,
P_t = diag(u_t) E diag(v_t): v_t = 1 / (E' u_{t-1}), u_t = 1 / (E v_t). So a round is two products of E and a vector,
the stopping rule reads the next round's first product, and the result is (d u_T)' E (v_T g).

The backward pass runs the recursion in reverse on vectors as well. The gradient at E is then a sum of 2 T + 2 outer
products, one matrix product, and times E it is the gradient at z. E is made anew for it rather than kept.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.losses._order import best_first

_LOWEST = -50.0  # e^-50 is the smallest entry of E: nothing in any sum, yet its products are not subnormal (and slow)
_BLOCK_ELEMENTS = 1 << 22
_WIDE = 300


def soft_dcg(
    scores: Tensor,
    mask: Tensor,
    gains: Tensor,
    discounts: Tensor,
    *,
    temperature: float,
    max_iter: int,
    tol: float,
    transposed: bool = False,
) -> Tensor:
    """Return the DCG [B] of the relaxed order of lists: scores, mask, gains [B, C], discounts [C] by rank.

    The gradient is that of the scores only. Rounds stop when every list of the call is within `tol`, as in the
    reference. Differences of scores are taken in float64, the rest in the dtype of the scores.
    """
    order = best_first(scores, mask)
    there, gains = mask.gather(-1, order), gains.detach().gather(-1, order)
    ordered = scores.gather(-1, order).to(torch.float64).masked_fill(~there, 0.0)
    distance = distance_sums(ordered, there)
    return _SoftDCG.apply(ordered, distance, there, gains, discounts, temperature, max_iter, tol, transposed)


def distance_sums(ordered: Tensor, there: Tensor) -> Tensor:
    """Return sum_i |s_i - s_j| for every candidate j of lists in descending order, in O(C log C).

    >>> distance_sums(torch.tensor([[4.0, 1.0, 1.0]]), torch.ones(1, 3, dtype=torch.bool)).tolist()
    [[6.0, 3.0, 3.0]]
    """
    keys = -ordered.detach().masked_fill(~there, -torch.inf).contiguous()
    above, until = torch.searchsorted(keys, keys), torch.searchsorted(keys, keys, right=True)
    running = F.pad(ordered.cumsum(-1), (1, 0))
    count = there.sum(-1, keepdim=True)
    higher = running.gather(-1, above) - above * ordered
    lower = (count - until) * ordered - (running[..., -1:] - running.gather(-1, until))
    return (higher + lower).masked_fill(~there, 0.0)


class _SoftDCG(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        ordered: Tensor,
        distance: Tensor,
        there: Tensor,
        gains: Tensor,
        discounts: Tensor,
        temperature: float,
        max_iter: int,
        tol: float,
        transposed: bool,
    ) -> Tensor:
        kernel = _kernel(ordered, distance, there, temperature, gains.dtype)
        row = _inverse(kernel.sum(-1), there)
        column = there.to(gains.dtype)
        rows, columns = [row], []
        received = _times(kernel, row, transpose=True)
        for _ in range(max_iter):
            column = _inverse(received, there)
            row = _inverse(_times(kernel, column), there)
            rows.append(row)
            columns.append(column)
            received = _times(kernel, row, transpose=True)
            if received.numel() == 0 or bool(((received * column - 1).masked_fill(~there, 0.0).abs() < tol).all()):
                break
        ctx.save_for_backward(ordered, distance, there, gains, discounts, *rows, *columns)
        ctx.temperature, ctx.rounds = temperature, len(columns)
        if transposed:
            return (gains * column * _times(kernel, discounts * row, transpose=True)).sum(-1)
        return (discounts * row * _times(kernel, column * gains)).sum(-1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        ordered, distance, there, gains, discounts, *scales = ctx.saved_tensors
        by_score, by_distance = torch.zeros_like(ordered), torch.zeros_like(distance)
        count, width = ordered.shape
        step = max(1, _BLOCK_ELEMENTS // max(width * width, 1))
        for start in range(0, count, step):
            part = slice(start, start + step)
            kernel = _kernel(ordered[part], distance[part], there[part], ctx.temperature, gains.dtype)
            at_kernel = _kernel_gradient(
                kernel,
                discounts * grad[part, None].to(gains.dtype),
                gains[part],
                there[part],
                [scale[part] for scale in scales[: ctx.rounds + 1]],
                [scale[part] for scale in scales[ctx.rounds + 1 :]],
            )
            at_logits = at_kernel.mul_(kernel)
            sides = torch.stack([_slopes(there[part]).to(gains.dtype), -there[part].to(gains.dtype)], 1)
            found = (sides @ at_logits).to(ordered.dtype) / ctx.temperature
            by_score[part], by_distance[part] = found.unbind(1)
        return by_score, by_distance, None, None, None, None, None, None, None


def _kernel_gradient(
    kernel: Tensor, discounts: Tensor, gains: Tensor, there: Tensor, rows: list[Tensor], columns: list[Tensor]
) -> Tensor:
    """Return the gradient at E [B, C, C]: `rows` are u_0..u_T and `columns` v_1..v_T."""
    ones = there.to(gains.dtype)
    last = columns[-1] if columns else ones
    left, right = [discounts * rows[-1]], [last * gains]
    at_row = discounts * _times(kernel, right[0])
    at_column = gains * _times(kernel, left[0], transpose=True)
    for round_ in range(len(columns) - 1, -1, -1):
        push = -at_row * rows[round_ + 1].square()
        at_column = at_column + _times(kernel, push, transpose=True)
        pull = -at_column * columns[round_].square()
        left += [push, rows[round_]]
        right += [columns[round_], pull]
        at_row, at_column = _times(kernel, pull), torch.zeros_like(at_column)
    left.append(-at_row * rows[0].square())
    right.append(ones)
    return torch.stack(left, -1) @ torch.stack(right, -2)


def _kernel(ordered: Tensor, distance: Tensor, there: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    """Return E [B, C, C] for scores in descending order; 0 in the rows and columns of absent candidates."""
    slopes, ones = _slopes(there), torch.ones_like(ordered)
    left = torch.stack([slopes, -ones, distance - slopes * ordered], -1) / temperature
    kernel = (left @ torch.stack([ordered, distance, ones], -2)).to(dtype).clamp_(min=_LOWEST).exp_()
    if not bool(there.all()):
        kernel.masked_fill_(~(there.unsqueeze(-1) & there.unsqueeze(-2)), 0.0)
    return kernel


def _slopes(there: Tensor) -> Tensor:
    """Return n + 1 - 2 r for the ranks r = 1..C of lists of n candidates."""
    rank = torch.arange(1, there.shape[-1] + 1, device=there.device, dtype=torch.float64)
    return there.sum(-1, keepdim=True) + 1 - 2 * rank


def _inverse(values: Tensor, there: Tensor) -> Tensor:
    return values.reciprocal().masked_fill_(~there, 0.0)


def _times(kernel: Tensor, vector: Tensor, *, transpose: bool = False) -> Tensor:
    """Return E x or E' x list by list, [B, C]; wide lists one by one on the CPU, where the batched product is slow."""
    if kernel.device.type == "cpu" and vector.shape[-1] >= _WIDE:
        product = torch.empty_like(vector)
        for matrix, column, out in zip(kernel, vector, product, strict=True):
            torch.mv(matrix.T if transpose else matrix, column, out=out)
        return product
    if transpose:
        return torch.bmm(vector.unsqueeze(-2), kernel).squeeze(-2)
    return torch.bmm(kernel, vector.unsqueeze(-1)).squeeze(-1)
