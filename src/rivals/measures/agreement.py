"""Agreement of raters, and scores turned into ordinal labels: Krippendorff's alpha and fitted thresholds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures.ranked import Array, as_tensor

AlphaLevel: TypeAlias = Literal["ordinal", "nominal", "interval"]
"""What a difference of two ratings means: how many ratings lie between them, whether they differ, their distance."""

_LEVELS = ("ordinal", "nominal", "interval")


def krippendorff_alpha(ratings: Array, mask: Array | None = None, *, level: AlphaLevel = "ordinal") -> Any:
    """Krippendorff's alpha: how far several raters agree beyond chance; 1 is perfect, 0 chance, below 0 worse.

    alpha = 1 - D_o / D_e. With m_u ratings of unit u (units with fewer than two are left out) and n ratings in all:

        D_o = (1 / n) sum_u 1 / (m_u - 1) sum_{i != j in u} d(r_i, r_j)^2
        D_e = 1 / (n (n - 1)) sum_{i != j} d(r_i, r_j)^2
        d^2: nominal [r != s];  interval (r - s)^2;  ordinal (sum_{g=r..s} n_g - (n_r + n_s) / 2)^2,

    n_g being how often value g occurs: the ordinal distance is that of the mid-ranks. O(n log n), no table of values.

    Shapes: ratings[coders, units], NaN where a coder did not rate; mask[coders, units], False where there is no rating
    -> scalar. Use it for human labels, or for a judge against people; not for measures where one side is the truth.

    Source: Krippendorff 2004, Content Analysis, chapter 11; agrees with the package `krippendorff`. Paper 119.

    Raises:
        RivalsError: ratings not two-dimensional or infinite; an unknown level; a mask of another shape.

    Warns:
        RuntimeWarning: all ratings are equal, or no unit has two: alpha is not defined, and NaN is returned.

    >>> import numpy as np
    >>> krippendorff_alpha(np.array([[1, 2, 3, np.nan], [1, 2, 2, 3]]), level="nominal").round(4).item()
    0.5455
    """
    values = as_tensor(ratings, "ratings", None)
    if values.dim() != 2:
        raise RivalsError(f"ratings must have shape [coders, units], not {tuple(values.shape)}")
    if level not in _LEVELS:
        raise RivalsError(f"level is '{level}'; it can be {', '.join(map(repr, _LEVELS))}")
    values = values.to(torch.float32 if values.device.type == "mps" else torch.float64)
    there = ~values.isnan()
    if mask is not None:
        given = as_tensor(mask, "mask", values.device)
        if given.dtype != torch.bool or given.shape != values.shape:
            raise RivalsError(
                f"mask must be bool of shape {tuple(values.shape)}, not {given.dtype} {tuple(given.shape)}"
            )
        there &= given
    if (values.isinf() & there).any():
        raise RivalsError("ratings hold an infinite value; a missing rating is NaN")
    there &= there.sum(0) >= 2
    alpha = _alpha(values, there, level)
    if alpha.isnan():
        warnings.warn(
            "Krippendorff's alpha is not defined: all ratings are equal or no unit has two", RuntimeWarning, 2
        )
    return alpha if isinstance(ratings, Tensor) else alpha.numpy()


def _alpha(values: Tensor, there: Tensor, level: AlphaLevel) -> Tensor:
    unit = there.nonzero(as_tuple=True)[1]
    units = values.shape[1]
    _, value, how_often = values[there].unique(return_inverse=True, return_counts=True)
    often = how_often.to(values.dtype)
    size = torch.bincount(unit, minlength=units).to(values.dtype)
    total = size.sum()
    pairs = (size - 1).clamp(min=1)
    if len(often) < 2:  # one value, or none
        return values.new_tensor(float("nan"))
    if level == "nominal":
        kinds = len(often)
        cells, alike = (unit * kinds + value).unique(return_counts=True)
        alike = alike.to(values.dtype)
        same = torch.zeros_like(size).index_add_(0, cells // kinds, alike * alike)
        observed = ((size * size - same) / pairs).sum() / total
        expected = (total * total - (often * often).sum()) / (total * (total - 1))
        return 1 - observed / expected
    points = values[there]
    if level == "ordinal":
        points = (often.cumsum(0) - often / 2)[value]
    points = points - points.mean()
    of_unit = torch.zeros_like(size).index_add_(0, unit, points)
    squares = torch.zeros_like(size).index_add_(0, unit, points * points)
    observed = (2 * (size * squares - of_unit * of_unit) / pairs).sum() / total
    expected = 2 * (points * points).sum() / (total - 1)
    return 1 - observed / expected


class OrdinalThresholds:
    """Cut scores into ordinal labels where Krippendorff's alpha with the given labels is highest.

    With k labels, k - 1 thresholds make right-closed bins, the outer ones open. They start equally spaced between the
    lowest and the highest score and are moved by Nelder-Mead on 1 - alpha (ordinal; nominal for two labels). The
    objective is constant in pieces, so the search may stall; `restarts` also starts from two sets of quantiles of the
    scores (equal shares, and the shares of the labels) and keeps the best. Fit on development data only, for each data
    set by itself, and apply to the test data.

    Args:
        levels: the number of labels k, which are then 1..k, or the labels themselves, such as (2, 4).
        restarts: start from quantiles as well (an extension of the paper's procedure).

    Source: the thresholding of ordinal word-in-context evaluation (CoMeDi 2025; XL-DURel, 2025). Paper 119.

    >>> cut = OrdinalThresholds(3).fit([0.1, 0.2, 0.5, 0.6, 0.9], [1, 1, 2, 2, 3])
    >>> cut.predict([0.0, 0.55, 2.0]).tolist(), round(cut.alpha, 4)
    ([1, 2, 3], 1.0)
    """

    def __init__(self, levels: int | Sequence[float], *, restarts: bool = False) -> None:
        labels = np.arange(1, levels + 1) if isinstance(levels, int) else np.asarray(levels)
        if labels.ndim != 1 or len(labels) < 2 or not (np.diff(labels) > 0).all():
            raise RivalsError(
                f"levels is {levels!r}; it must be a number of labels of at least 2, or the rising labels"
            )
        self.labels: NDArray[Any] = labels
        self.restarts = restarts
        self.thresholds: NDArray[np.float64] | None = None
        """The k - 1 fitted thresholds, rising."""
        self.alpha = float("nan")
        """The alpha reached on the data of `fit`."""

    def fit(self, scores: ArrayLike, labels: ArrayLike) -> Self:
        """Find the thresholds on scores[N] with labels[N].

        Raises:
            RivalsError: lengths differ, a score or label is not finite, fewer than 2 distinct labels.
        """
        from scipy.optimize import minimize

        values, wanted = _numbers(scores, "scores"), _numbers(labels, "labels")
        if len(values) != len(wanted):
            raise RivalsError(f"scores has {len(values)} values and labels {len(wanted)}; they must be as many")
        if len(np.unique(wanted)) < 2:
            raise RivalsError("labels holds fewer than 2 distinct labels; there is nothing to separate")
        level: AlphaLevel = "ordinal" if len(self.labels) > 2 else "nominal"

        def disagreement(thresholds: NDArray[np.float64]) -> float:
            pairs = np.stack([wanted, self._binned(values, np.sort(thresholds))])
            return 1.0 - float(krippendorff_alpha(pairs, level=level))

        best = min(
            (minimize(disagreement, start, method="Nelder-Mead") for start in self._starts(values, wanted)),
            key=lambda found: float(found.fun),
        )
        self.thresholds, self.alpha = np.sort(best.x), 1.0 - float(best.fun)
        return self

    def predict(self, scores: ArrayLike) -> NDArray[Any]:
        """Return the label of every score, [N].

        Raises:
            RivalsError: `fit` has not been called; a score is not finite.
        """
        if self.thresholds is None:
            raise RivalsError("the thresholds are not fitted; call fit(scores, labels) on development data first")
        return self._binned(_numbers(scores, "scores"), self.thresholds)

    def _binned(self, values: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[Any]:
        return self.labels[np.searchsorted(thresholds, values, side="left")]

    def _starts(self, values: NDArray[np.float64], wanted: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        equal = np.linspace(values.min(), values.max(), len(self.labels) + 1)[1:-1]
        if not self.restarts:
            return [equal]
        shares = [(wanted <= label).mean() for label in self.labels[:-1]]
        spaced = np.linspace(0, 1, len(self.labels) + 1)[1:-1]
        return [equal, np.quantile(values, spaced), np.quantile(values, shares)]


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    numbers = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise RivalsError(f"{name} must be one-dimensional and finite")
    return numbers
