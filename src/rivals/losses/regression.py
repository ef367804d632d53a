"""Regression losses: how far a score is from its target, one candidate at a time.

All take (scores, targets, mask) [..., C] with targets of any sign, weigh each candidate's term by `weight`, and divide
by the number of candidates of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import Reduction, check_positive, check_targets, reduce_lists

__all__ = [
    "absolute_error_loss",
    "huber_loss",
    "log_cosh_loss",
    "poisson_loss",
    "quantile_loss",
    "root_mean_squared_error_loss",
    "smooth_l1_loss",
    "squared_error_loss",
]


def squared_error_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Mean squared error of scores against targets.

    Formula:
        L = mean over all candidates of the batch of w_i (t_i - s_i)^2. "list_mean" divides inside each list first;
        "none" gives each list's sum.

    Shapes:
        scores float[..., C], targets [..., C], mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Targets on the scale of the scores and without gross errors; distilling a teacher's scores.

    Relations:
        Against one-hot targets, summed: the squared member of the spherical family (`spherical_loss`). On softmax
        probabilities: the Brier score.

    Source:
        Legendre (1805); torch `mse_loss`. Papers 44, 38.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite or a
        negative weight at a candidate that is there, an unknown reduction.

    Example:
        >>> import torch
        >>> squared_error_loss(torch.tensor([[1.0, 4.0]]), torch.tensor([[1.0, 2.0]]))
        tensor(2.)
    """
    return mean_error(scores, targets, mask, weight, reduction, torch.square)


def root_mean_squared_error_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    levels: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Root mean squared error of each list's scores against its targets.

    Formula:
        L = mean over lists that weigh something of sqrt(sum_i w_i (t_i - levels s_i)^2 / sum_i w_i). "list_mean" is
        the same; "none" gives each list's root.

    Shapes:
        scores float[..., C], targets [..., C], mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Regression on lists of unequal difficulty: the root keeps one bad list from outweighing the rest. `levels`
        for scores in 0..1 (a sigmoid) against grades 0..levels.

    Relations:
        One list: the root of `squared_error_loss`. Lists of one candidate: `absolute_error_loss`.

    Source:
        Pobrotyn et al. (2020), "Context-aware learning to rank with self-attention", the pointwise RMSE of allRank.
        Paper 21. A list without any error has gradient 0 here; there the root gives NaN.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite or a
        negative weight at a candidate that is there, levels <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> root_mean_squared_error_loss(torch.tensor([[1.0, 4.0], [0.0, 0.0]]), torch.tensor([[1.0, 2.0], [3.0, 3.0]]))
        tensor(2.2071)
    """
    check_positive(levels, "levels")
    lists = check_targets(scores, targets, mask, weight, reduction)
    weights = lists.mask.to(lists.scores.dtype) if lists.weight is None else lists.weight.masked_fill(~lists.mask, 0.0)
    squares = (lists.relevance - levels * lists.scores).square().masked_fill(~lists.mask, 0.0)
    whole = weights.sum(-1)
    counts = whole > 0
    mean = (squares * weights).sum(-1) / torch.where(counts, whole, 1.0)
    wrong = mean > 0
    root = torch.where(wrong, torch.where(wrong, mean, 1.0).sqrt(), mean)
    return reduce_lists(root, counts.long(), reduction)


def absolute_error_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Mean absolute error of scores against targets.

    Formula:
        L = mean over all candidates of the batch of w_i |t_i - s_i|.

    Shapes:
        scores float[..., C], targets [..., C], mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Targets with gross errors; the score then tends to the median of the target.

    Relations:
        `quantile_loss` at 0.5 is half of it. `huber_loss` rounds its tip.

    Source:
        Laplace (1774); torch `l1_loss`. Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite or a
        negative weight at a candidate that is there, an unknown reduction.

    Example:
        >>> import torch
        >>> absolute_error_loss(torch.tensor([[1.0, 4.0]]), torch.tensor([[1.0, 2.0]]))
        tensor(1.)
    """
    return mean_error(scores, targets, mask, weight, reduction, torch.abs)


def huber_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    delta: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Huber loss: squared for small errors, linear beyond delta.

    Formula:
        L = mean over all candidates of the batch of w_i h(e_i), e = t - s: h = e^2 / 2 where |e| <= delta, else
        delta (|e| - delta / 2).

    Shapes:
        scores float[..., C], targets [..., C], mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Mostly clean targets with some gross errors; delta at the size of the error that is still believable.

    Relations:
        delta -> infinity: half of `squared_error_loss`. delta -> 0: delta times `absolute_error_loss`. Divided by
        delta: `smooth_l1_loss`.

    Source:
        Huber (1964); torch `huber_loss`. Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite or a
        negative weight at a candidate that is there, delta <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> huber_loss(torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2))
        tensor(1.3125)
    """
    check_positive(delta, "delta")
    return mean_error(scores, targets, mask, weight, reduction, _peer(F.huber_loss, delta=delta))


def smooth_l1_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    beta: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Smooth L1 loss: the absolute error with its tip rounded off below beta.

    Formula:
        L = mean over all candidates of the batch of w_i h(e_i), e = t - s: h = e^2 / (2 beta) where |e| < beta, else
        |e| - beta / 2.

    Shapes:
        scores float[..., C], targets [..., C], mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        As `absolute_error_loss`, when gradients that jump at 0 disturb the optimiser.

    Relations:
        `huber_loss` with delta = beta, divided by beta.

    Source:
        Girshick (2015), Fast R-CNN, eq. 3; torch `smooth_l1_loss`. Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite or a
        negative weight at a candidate that is there, beta <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> smooth_l1_loss(torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2))
        tensor(1.3125)
    """
    check_positive(beta, "beta")
    return mean_error(scores, targets, mask, weight, reduction, _peer(F.smooth_l1_loss, beta=beta))


def log_cosh_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Log of the hyperbolic cosine of the error: squared near 0, linear far away, smooth everywhere.

    Formula:
        L = mean over all candidates of the batch of w_i log cosh(t_i - s_i), computed as e + log(1 + exp(-2e)) - log 2.

    Shapes:
        scores float[..., C], targets [..., C], mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        As `huber_loss`, without a threshold to choose; its gradient is tanh of the error.

    Relations:
        Small errors: half of `squared_error_loss`. Large ones: `absolute_error_loss` minus log 2.

    Source:
        Green (1990) uses the same function as a penalty; catalogued by paper 44. Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite or a
        negative weight at a candidate that is there, an unknown reduction.

    Example:
        >>> import torch
        >>> log_cosh_loss(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2), reduction="sum")
        tensor(0.4338)
    """
    return mean_error(
        scores, targets, mask, weight, reduction, lambda error: error - F.logsigmoid(2 * error) - math.log(2)
    )


def quantile_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    quantile: float = 0.5,
    reduction: Reduction = "mean",
) -> Tensor:
    """Quantile (pinball) loss: a score too low costs quantile per unit, a score too high 1 - quantile.

    Formula:
        L = mean over all candidates of the batch of w_i max(q e_i, (q - 1) e_i),  e = t - s.

    Shapes:
        scores float[..., C], targets [..., C], mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        A score that should be exceeded by the target with probability 1 - quantile: bounds, risk, stock levels.

    Relations:
        quantile 0.5: half of `absolute_error_loss`.

    Source:
        Koenker and Bassett (1978); scikit-learn `mean_pinball_loss`. Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite or a
        negative weight at a candidate that is there, a quantile outside (0, 1), an unknown reduction.

    Example:
        >>> import torch
        >>> quantile_loss(torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0, 0.0]]), quantile=0.9)
        tensor(1.)
    """
    if not 0 < quantile < 1:
        raise RivalsError(f"quantile must lie in (0, 1); got {quantile!r}")
    return mean_error(
        scores,
        targets,
        mask,
        weight,
        reduction,
        lambda error: torch.maximum(quantile * error, (quantile - 1) * error),
    )


def poisson_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Poisson negative log likelihood of counts, the score being the log of the expected count.

    Formula:
        L = mean over all candidates of the batch of w_i (exp(s_i) - t_i s_i); the constant log(t!) is left out.

    Shapes:
        scores float[..., C], targets [..., C], mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none". Overflows for scores above 88 in float32.

    When to use:
        Counts: clicks, visits, purchases.

    Relations:
        Its gradient exp(s) - t is that of a generalised linear model with log link.

    Source:
        Nelder and Wedderburn (1972); torch `poisson_nll_loss` with log_input. Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite or a
        negative weight at a candidate that is there, an unknown reduction.

    Example:
        >>> import torch
        >>> poisson_loss(torch.zeros(1, 2), torch.tensor([[3.0, 0.0]]))
        tensor(1.)
    """
    return mean_error(
        scores,
        targets,
        mask,
        weight,
        reduction,
        lambda score, target: F.poisson_nll_loss(score, target, log_input=True, reduction="none"),
        of_error=False,
    )


def mean_error(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None,
    weight: Tensor | None,
    reduction: Reduction,
    term: Callable[..., Tensor],
    *,
    of_error: bool = True,
) -> Tensor:
    """Average `term` of the error t - s (or of scores and targets) over all candidates that are there."""
    lists = check_targets(scores, targets, mask, weight, reduction)
    values = term(lists.relevance - lists.scores) if of_error else term(lists.scores, lists.relevance)
    if lists.weight is not None:
        values = values * lists.weight
    return reduce_lists(values.masked_fill(~lists.mask, 0.0).sum(-1), lists.mask.sum(-1), reduction)


def _peer(function: Callable[..., Tensor], **options: float) -> Callable[[Tensor], Tensor]:
    """Return torch's loss, as a function of the error."""
    return lambda error: function(error, torch.zeros_like(error), reduction="none", **options)
