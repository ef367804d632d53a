"""Two views of the same examples, without negatives: losses that keep the views together and the dimensions apart."""

from __future__ import annotations

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_positive,
    check_reduction,
    check_scores,
    check_shape,
    reduce_lists,
    spread_rows,
)
from rivals.losses._in_batch import unit_rows

__all__ = ["barlow_twins_loss", "simsiam_loss"]


def barlow_twins_loss(
    left: Tensor,
    right: Tensor,
    mask: Tensor | None = None,
    *,
    redundancy_weight: float = 5e-3,
    eps: float = 1e-5,
) -> Tensor:
    """Barlow Twins: the dimensions of two views correlate with themselves and with nothing else.

    Formula:
        L = sum_i (1 - C_ii)^2 + w sum_{i != j} C_ij^2, w = `redundancy_weight`, C = Z1' Z2 / N the correlations [D, D]
        of the two views, each dimension standardised over the batch: (z - mean) / sqrt(variance + eps), divisor N.

    Shapes:
        left, right float[N, D] (row i of both: one example), mask bool[N] (False = no example) -> scalar. No
        reduction: it is one value of the whole batch.

    When to use:
        Self-supervised pre-training where negatives cannot be trusted; wants a large D.

    Relations:
        `whitened_mse_loss` decorrelates exactly, by whitening, instead of by a penalty.

    Source:
        Zbontar et al. (2021), eqs. 1 and 2, and its code (batch normalisation without scale, hence eps). Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, fewer than two examples, a negative
        redundancy_weight, eps <= 0.

    Example:
        >>> import torch
        >>> view = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> round(barlow_twins_loss(view, -view).item(), 3)
        8.0

        O(N D^2).
    """
    check_at_least_zero(redundancy_weight, "redundancy_weight")
    check_positive(eps, "eps")
    there = _check_views({"left": left, "right": right}, mask)
    count = int(there.sum())
    if count < 2:
        raise RivalsError(f"left and right must hold at least two examples, to correlate dimensions; got {count}")
    with torch.autocast(left.device.type, enabled=False):
        first, second = (_standardised(view[there].to(compute_dtype(view)), eps) for view in (left, right))
        correlations = first.T @ second / count
    own = correlations.diagonal()
    return (1 - own).square().sum() + redundancy_weight * (correlations.square().sum() - own.square().sum())


def _standardised(view: Tensor, eps: float) -> Tensor:
    centred = view - view.mean(0)
    return centred / (centred.square().mean(0) + eps).sqrt()


def simsiam_loss(
    left_predictions: Tensor,
    right_predictions: Tensor,
    left_projections: Tensor,
    right_projections: Tensor,
    mask: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """SimSiam: each view's prediction points to the other view's projection, which is held still.

    Formula:
        L_i = -[cos(p1_i, stop(z2_i)) + cos(p2_i, stop(z1_i))] / 2, without gradient to the projections z.

    Shapes:
        four float[N, D], one row an example, mask bool[N] (False = no example) -> scalar, or float[N] with
        reduction="none". In [-1, 1].

    When to use:
        Self-supervised pre-training with small batches: no negatives, no queue. The predictor must be a network of
        its own, else it collapses.

    Relations:
        Minus the positives' part of InfoNCE at any temperature; the held projection stands for the negatives.

    Source:
        Chen and He (2021), eqs. 1 to 4. Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, an unknown reduction.

    Example:
        >>> import torch
        >>> view = torch.tensor([[3.0, 4.0]])
        >>> simsiam_loss(view, view, 2 * view, -view)
        tensor(0.)
    """
    check_reduction(reduction)
    views = {
        "left_predictions": left_predictions,
        "right_predictions": right_predictions,
        "left_projections": left_projections,
        "right_projections": right_projections,
    }
    there = _check_views(views, mask)
    p1, p2, z1, z2 = (unit_rows(view[there].to(compute_dtype(view))) for view in views.values())
    losses = -((p1 * z2.detach()).sum(1) + (p2 * z1.detach()).sum(1)) / 2
    return reduce_lists(spread_rows(losses, there), there, reduction)


def _check_views(views: dict[str, Tensor], mask: Tensor | None) -> Tensor:
    """Check views [N, D] that go row by row together; return which examples are there."""
    names = list(views)
    first = views[names[0]]
    check_scores(first, names[0], ndim=2)
    for name in names[1:]:
        check_scores(views[name], name, ndim=2)
        check_shape(views[name], tuple(first.shape), name, first.device)
    if mask is None:
        return torch.ones(len(first), dtype=torch.bool, device=first.device)
    check_shape(mask, (len(first),), "mask", first.device)
    if mask.dtype != torch.bool:
        raise RivalsError(f"mask must be boolean (True = the example is there); got {mask.dtype}")
    return mask
