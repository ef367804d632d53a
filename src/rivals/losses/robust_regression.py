"""Regression losses that reshape the absolute error: balanced L1, wing and reversed Huber."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rivals.losses._common import Reduction, check_positive, check_targets
from rivals.losses.regression import mean_error

__all__ = ["balanced_l1_loss", "berhu_loss", "wing_loss"]


def balanced_l1_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    alpha: float = 0.5,
    gamma: float = 1.5,
    reduction: Reduction = "mean",
) -> Tensor:
    """Balanced L1 loss: linear beyond an error of 1, and below it with a gradient larger than smooth L1's.

    Formula:
        L = mean over all candidates of the batch of w_i h(|t_i - s_i|):
        h(x) = (a / b)(b x + 1) log(b x + 1) - a x where x < 1, else g x + g / b - a;  a = `alpha`, g = `gamma`,
        b = e^{g / a} - 1, so that value and slope meet at 1.

    Shapes:
        scores float[..., C], targets [..., C], mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Many almost right predictions beside a few gross ones, when the almost right ones should still move.

    Relations:
        Its gradient a log(b x + 1) stands between `smooth_l1_loss` and `absolute_error_loss`, with ceiling gamma.

    Source:
        Pang et al. (2019), Libra R-CNN. Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite or a
        negative weight at a candidate that is there, alpha or gamma <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> balanced_l1_loss(torch.tensor([[2.0]]), torch.zeros(1, 1))
        tensor(2.5786)
    """
    check_positive(alpha, "alpha")
    check_positive(gamma, "gamma")
    b = math.expm1(gamma / alpha)

    def term(error: Tensor) -> Tensor:
        x = error.abs()
        inside = x.clamp(max=1.0)
        near = alpha / b * (b * inside + 1) * torch.log1p(b * inside) - alpha * inside
        return torch.where(x < 1, near, gamma * x + gamma / b - alpha)

    return mean_error(scores, targets, mask, weight, reduction, term)


def wing_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    width: float = 10.0,
    curvature: float = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Wing loss: logarithmic for errors below a width, linear beyond it.

    Formula:
        L = mean over all candidates of the batch of w_i h(|t_i - s_i|):
        h(x) = w log(1 + x / c) where x < w, else x - C,  C = w - w log(1 + w / c);  w = `width`, c = `curvature`.

    Shapes:
        scores float[..., C], targets [..., C], mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Errors that should get down to very small ones (its slope is w / c at 0); targets on a scale of tens.

    Relations:
        Beyond the width: `absolute_error_loss` plus a constant.

    Source:
        Feng et al. (2018), eq. 5. Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite or a
        negative weight at a candidate that is there, width or curvature <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> wing_loss(torch.tensor([[2.0]]), torch.zeros(1, 1))
        tensor(6.9315)
    """
    check_positive(width, "width")
    check_positive(curvature, "curvature")
    constant = width - width * math.log1p(width / curvature)

    def term(error: Tensor) -> Tensor:
        x = error.abs()
        return torch.where(x < width, width * torch.log1p(x / curvature), x - constant)

    return mean_error(scores, targets, mask, weight, reduction, term)


def berhu_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    threshold: float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Reversed Huber loss: linear for small errors, squared beyond a threshold.

    Formula:
        L = mean over all candidates of the batch of w_i h(|t_i - s_i|):
        h(x) = x where x <= c, else (x^2 + c^2) / (2 c);  c = `threshold`, or a fifth of the largest error of the batch,
        without gradient.

    Shapes:
        scores float[..., C], targets [..., C], mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Heavy-tailed targets whose large values matter (depth, prices), where small errors should not be ignored.

    Relations:
        `huber_loss` the other way round; threshold -> infinity: `absolute_error_loss`.

    Source:
        Owen (2007); Laina et al. (2016), eq. 2, for the threshold. Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite or a
        negative weight at a candidate that is there, threshold <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> berhu_loss(torch.tensor([[1.0, 10.0]]), torch.zeros(1, 2))
        tensor(13.5000)
    """
    if threshold is None:
        lists = check_targets(scores, targets, mask, weight, reduction)
        largest = (lists.relevance - lists.scores).detach().abs().masked_fill(~lists.mask, 0.0)
        bound = 0.2 * largest.max() if largest.numel() else largest.sum()
        bound = bound.masked_fill(bound == 0, 1.0)
    else:
        check_positive(threshold, "threshold")
        bound = torch.tensor(threshold, dtype=torch.float64, device=scores.device)

    def term(error: Tensor) -> Tensor:
        x, c = error.abs(), bound.to(error.dtype)
        return torch.where(x <= c, x, (x.square() + c.square()) / (2 * c))

    return mean_error(scores, targets, mask, weight, reduction, term)
