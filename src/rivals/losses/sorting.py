"""Differentiable sorting: NeuralSort, Sinkhorn scaling, and sorting networks with soft comparators."""

from __future__ import annotations

from typing import NamedTuple, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype, masked_log_softmax
from rivals.losses._common import (
    check_at_least_zero,
    check_choice,
    check_mask,
    check_not_negative,
    check_positive,
    check_scores,
)
from rivals.losses._networks import Cdf, Network, in_order, network_layers

__all__ = ["SoftSorted", "neural_sort", "sinkhorn", "soft_sort"]

_SMALLEST_SUM = 1e-10


class SoftSorted(NamedTuple):
    """Softly sorted values [..., n], and the doubly stochastic permutation [..., n, n]: input i at output rank j."""

    values: Tensor
    permutation: Tensor


def neural_sort(scores: Tensor, mask: Tensor | None = None, *, temperature: float = 1.0) -> Tensor:
    """Return NeuralSort's row-stochastic stand-in for the permutation that sorts a list, highest first.

    P_r = softmax_j( ((n + 1 - 2 r) s_j - sum_i |s_i - s_j|) / temperature ) for ranks r = 1..n, n the candidates that
    are there. As the temperature falls it tends to the permutation; scaling scores and temperature alike changes
    nothing.

    Args:
        scores: float[..., C]. mask: bool[..., C]. temperature: above 0.

    Returns:
        float[..., C, C], rank by candidate; the rows below rank n and the columns of absent candidates are 0.

    Source: Grover et al. (2019), NeuralSort, eq. 4; Pobrotyn and Bialobrzeski (2021), NeuralNDCG. Paper 8.

    Raises:
        RivalsError: scores that are not floating point, a mask that does not fit, temperature <= 0.

    >>> neural_sort(torch.tensor([0.0, 2.0]), temperature=1.0)
    tensor([[0.1192, 0.8808],
            [0.8808, 0.1192]])
    """
    check_positive(temperature, "temperature")
    check_scores(scores, "scores")
    check_mask(mask, scores, "mask")
    there = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    scores = scores.to(compute_dtype(scores)).masked_fill(~there, 0.0)
    pairs = there.unsqueeze(-1) & there.unsqueeze(-2)
    distance = (scores.unsqueeze(-1) - scores.unsqueeze(-2)).abs().masked_fill(~pairs, 0.0).sum(-2)
    rows = _ranks_there(there)
    rank = torch.arange(1, scores.shape[-1] + 1, device=scores.device)
    slope = (there.sum(-1, keepdim=True) + 1 - 2 * rank).to(scores.dtype)
    logits = (slope.unsqueeze(-1) * scores.unsqueeze(-2) - distance.unsqueeze(-2)) / temperature
    valid = rows.unsqueeze(-1) & there.unsqueeze(-2)
    return masked_log_softmax(logits, valid).exp().masked_fill(~valid, 0.0)


def sinkhorn(matrix: Tensor, mask: Tensor | None = None, *, max_iter: int = 50, tol: float = 1e-6) -> Tensor:
    """Scale a non-negative matrix towards rows and columns that sum to 1.

    A round divides every column by its sum and then every row by its; sums are at least 1e-10. The rounds end when all
    sums of the call are within `tol` of 1, and all are differentiated through.

    Args:
        matrix: float[..., C, C]. mask: bool[..., C], the columns that are there; with n of them the first n rows are.
        max_iter: largest number of rounds. tol: when to stop.

    Returns:
        float[..., C, C], 0 outside the rows and columns that are there.

    Source: Sinkhorn (1964); Pobrotyn and Bialobrzeski (2021), NeuralNDCG; allRank `sinkhorn_scaling`. Paper 8.

    Raises:
        RivalsError: a matrix that is not square or has negative or NaN entries, a mask that does not fit,
        max_iter < 0, tol < 0.

    >>> sinkhorn(torch.tensor([[3.0, 1.0], [1.0, 1.0]]))
    tensor([[0.6340, 0.3660],
            [0.3660, 0.6340]])
    """
    check_at_least_zero(tol, "tol")
    check_scores(matrix, "matrix")
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise RivalsError(f"matrix must be square in its last two dimensions; got shape {tuple(matrix.shape)}")
    if max_iter < 0:
        raise RivalsError(f"max_iter must be at least 0; got {max_iter}")
    one_row = matrix.sum(-2)
    check_mask(mask, one_row, "mask")
    there = torch.ones_like(one_row, dtype=torch.bool) if mask is None else mask
    rows = _ranks_there(there)
    scaled = matrix.to(compute_dtype(matrix)).masked_fill(~(rows.unsqueeze(-1) & there.unsqueeze(-2)), 0.0)
    check_not_negative(scaled, "matrix")
    for _ in range(max_iter):
        scaled = scaled / _divisor(scaled.sum(-2, keepdim=True))
        scaled = scaled / _divisor(scaled.sum(-1, keepdim=True))
        with torch.no_grad():
            off = [((scaled.sum(dim) - 1).abs() >= tol) & side for dim, side in ((-1, rows), (-2, there))]
            if not bool((off[0] | off[1]).any()):
                break
    return scaled


def soft_sort(
    values: Tensor,
    *,
    steepness: float = 1.0,
    cdf: Cdf = "cauchy",
    network: Network = "odd_even",
    phi: float = 0.25,
) -> SoftSorted:
    """Sort values, lowest first, with a sorting network whose comparators swap by degrees.

    A comparator of values p, q keeps them by a = F(steepness (q - p)): smaller = a p + (1 - a) q, larger =
    (1 - a) p + a q. The same mixtures of the identity's columns give the permutation, so that values = x P.

    Args:
        values: float[..., n]. steepness: above 0; large values sort exactly, with vanishing gradients.
        cdf: F, the cumulative function of the "cauchy" (atan), "logistic", "gaussian", "reciprocal" or "optimal"
            distribution, or "logistic_phi" (differences divided by their size to the power `phi` first).
        network: "odd_even" (n layers) or "bitonic" (about log2(n)^2 / 2 layers).

    Source: Petersen et al. (2021, 2022), differentiable sorting networks, diffsort 0.2.0; Shvetsova et al. (2023),
    GroCo. Paper 22.

    Raises:
        RivalsError: values that are not floating point, steepness <= 0, an unknown name.

    >>> soft_sort(torch.tensor([0.5, 0.2])).permutation
    tensor([[0.4072, 0.5928],
            [0.5928, 0.4072]])
    """
    check_positive(steepness, "steepness")
    check_choice(cdf, get_args(Cdf), "cdf")
    check_choice(network, get_args(Network), "network")
    check_scores(values, "values")
    values = values.to(compute_dtype(values))
    size = values.shape[-1]
    permutation = torch.eye(size, dtype=values.dtype, device=values.device).expand(*values.shape, size)
    for partner, sign in network_layers(network, size):
        place = torch.tensor(partner, device=values.device)
        other = values[..., place]
        keep = in_order(values.new_tensor(sign) * (other - values), steepness, cdf, phi)
        values = keep * values + (1 - keep) * other
        column = keep.unsqueeze(-2)
        permutation = column * permutation + (1 - column) * permutation[..., place]
    return SoftSorted(values, permutation)


def _divisor(total: Tensor) -> Tensor:
    """Return sums to divide by; 1 where there is nothing, since 1e-10 round after round would blow up its gradient."""
    return total.clamp(min=_SMALLEST_SUM).masked_fill(total == 0, 1.0)


def _ranks_there(there: Tensor) -> Tensor:
    """Return which ranks [..., C] a list has a candidate for."""
    return torch.arange(there.shape[-1], device=there.device) < there.sum(-1, keepdim=True)
