"""Regression measures: `measure(scores[..., C], targets[..., C], mask[..., C] = None) -> [...]`, one value a list.

A whole test set is one list. Float64; numpy in, numpy out; torch in, torch out. Targets that are NaN (unknown) are left
out. A list without any target is worth 0.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures.ranked import Array, PlainLists, as_tensor, plain_lists


def mse(scores: Array, targets: Array, mask: Array | None = None) -> Any:
    """Mean squared error: mean of (s - y)^2.

    Shapes: scores[..., C], targets[..., C], mask[..., C] -> [...]. The measure of `squared_error_loss`; large errors
    dominate it.

    Source: Legendre 1805. Paper 44.

    Raises:
        RivalsError: as `rank_lists`.

    >>> import numpy as np
    >>> mse(np.array([1., 3.]), np.array([1., 1.])).item()
    2.0
    """
    lists = _opened(scores, targets, mask)
    return lists.output(_mean((lists.scores - lists.relevance).square(), lists))


def rmse(scores: Array, targets: Array, mask: Array | None = None) -> Any:
    """Root mean squared error: sqrt(mean of (s - y)^2), in the unit of the targets.

    Shapes: as `mse`. Source: Paper 44. Raises: RivalsError, as `mse`.

    >>> import numpy as np
    >>> rmse(np.array([1., 5.]), np.array([1., 1.])).round(4).item()
    2.8284
    """
    lists = _opened(scores, targets, mask)
    return lists.output(_mean((lists.scores - lists.relevance).square(), lists).sqrt())


def mae(scores: Array, targets: Array, mask: Array | None = None) -> Any:
    """Mean absolute error: mean of |s - y|. Less moved by outliers than `mse`.

    Shapes: as `mse`. Source: Paper 44. Raises: RivalsError, as `mse`.

    >>> import numpy as np
    >>> mae(np.array([1., 3.]), np.array([1., 1.])).item()
    1.0
    """
    lists = _opened(scores, targets, mask)
    return lists.output(_mean((lists.scores - lists.relevance).abs(), lists))


def mape(scores: Array, targets: Array, mask: Array | None = None, *, smallest: float | None = None) -> Any:
    """Mean absolute percentage error, as a share: mean of |s - y| / |y|.

    Shapes: as `mse`. Use it for positive quantities of differing size; it favours forecasts that are too low.

    Args:
        smallest: |y| is taken to be at least this; without it a target of 0 is refused.

    Source: Paper 44; as scikit-learn's `mean_absolute_percentage_error` but for a target of 0.

    Raises:
        RivalsError: as `mse`; a target of 0 without `smallest`; smallest not above 0.

    >>> import numpy as np
    >>> mape(np.array([1., 3.]), np.array([2., 2.])).item()
    0.5
    """
    if smallest is not None and not smallest > 0:
        raise RivalsError(f"smallest is {smallest}; it must be above 0")
    lists = _opened(scores, targets, mask)
    size = lists.relevance.abs()
    if smallest is not None:
        size = size.clamp(min=smallest)
    elif ((size == 0) & lists.mask).any():
        raise RivalsError("targets holds a 0, of which there is no percentage; give smallest, or use smape")
    return lists.output(_mean((lists.scores - lists.relevance).abs() / size.masked_fill(size == 0, 1), lists))


def smape(scores: Array, targets: Array, mask: Array | None = None) -> Any:
    """Symmetric mean absolute percentage error, 0 to 2: mean of 2 |s - y| / (|s| + |y|), 0 where both are 0.

    Shapes: as `mse`. Use it in place of `mape` where targets may be 0 or too high and too low should count alike.

    Source: Makridakis 1993, without the factor of 100. Paper 44. Raises: RivalsError, as `mse`.

    >>> import numpy as np
    >>> smape(np.array([1., 0.]), np.array([3., 0.])).item()
    0.5
    """
    lists = _opened(scores, targets, mask)
    size = lists.scores.abs() + lists.relevance.abs()
    return lists.output(_mean(2 * (lists.scores - lists.relevance).abs() / size.masked_fill(size == 0, 1), lists))


def pinball(scores: Array, targets: Array, mask: Array | None = None, *, quantile: float = 0.5) -> Any:
    """Pinball error of a predicted quantile q: mean of max(q (y - s), (q - 1) (y - s)).

    Shapes: as `mse`. Smallest in the mean for the true q-quantile; half of `mae` at 0.5.

    Source: Koenker and Bassett 1978; as scikit-learn's `mean_pinball_loss`. Paper 44.

    Raises:
        RivalsError: as `mse`; quantile not between 0 and 1.

    >>> import numpy as np
    >>> pinball(np.array([0., 2.]), np.array([2., 0.]), quantile=0.9).item()
    1.0
    """
    if not 0 < quantile < 1:
        raise RivalsError(f"quantile is {quantile}; it must lie between 0 and 1")
    lists = _opened(scores, targets, mask)
    short = lists.relevance - lists.scores
    return lists.output(_mean((quantile * short).maximum((quantile - 1) * short), lists))


def r2(scores: Array, targets: Array, mask: Array | None = None) -> Any:
    """Coefficient of determination: 1 - sum (y - s)^2 / sum (y - mean y)^2.

    Shapes: as `mse`. 1 is perfect, 0 as good as always saying the mean, below 0 worse than that. NaN where all targets
    are equal (or there are fewer than two): there is nothing to explain.

    Source: Wright 1921; as scikit-learn's `r2_score` but for equal targets. Paper 44. Raises: RivalsError, as `mse`.

    >>> import numpy as np
    >>> r2(np.array([1., 2., 4.]), np.array([1., 2., 3.])).item()
    0.5
    """
    lists = _opened(scores, targets, mask)
    return lists.output(_r2(lists))


def adjusted_r2(scores: Array, targets: Array, mask: Array | None = None, *, predictors: int) -> Any:
    """R2 corrected for the number of predictors k: 1 - (1 - R2) (N - 1) / (N - k - 1).

    Shapes: as `mse`. Use it to compare linear models of different size on the data they were fitted on. NaN where `r2`
    is and where N <= k + 1.

    Source: Ezekiel 1930. Paper 44.

    Raises:
        RivalsError: as `mse`; predictors below 0.

    >>> import numpy as np
    >>> adjusted_r2(np.array([1., 2., 4., 4.]), np.array([1., 2., 3., 4.]), predictors=1).round(4).item()
    0.7
    """
    if int(predictors) != predictors or predictors < 0:
        raise RivalsError(f"predictors is {predictors}; it must be a whole number of at least 0")
    lists = _opened(scores, targets, mask)
    count = lists.mask.sum(1).to(lists.scores.dtype)
    free = count - predictors - 1
    adjusted = 1 - (1 - _r2(lists)) * (count - 1) / free.masked_fill(free <= 0, 1)
    return lists.output(adjusted.masked_fill(free <= 0, float("nan")))


def _opened(scores: Array, targets: Array, mask: Array | None) -> PlainLists:
    given, wanted = (as_tensor(values, name, None) for values, name in ((scores, "scores"), (targets, "targets")))
    if given.shape != wanted.shape:
        raise RivalsError(
            f"targets has shape {tuple(wanted.shape)} and scores {tuple(given.shape)}; they must be equal"
        )
    return plain_lists(scores, targets, mask)


def _mean(values: Tensor, lists: PlainLists) -> Tensor:
    return (values * lists.mask).sum(1) / lists.mask.sum(1).clamp(min=1)


def _r2(lists: PlainLists) -> Tensor:
    left = ((lists.relevance - lists.scores).square() * lists.mask).sum(1)
    centred = (lists.relevance - _mean(lists.relevance, lists)[:, None]) * lists.mask
    spread = centred.square().sum(1)
    constant = spread <= 1e-24 * lists.relevance.square().sum(1)
    return (1 - left / spread.masked_fill(constant, 1)).masked_fill(constant, float("nan"))
