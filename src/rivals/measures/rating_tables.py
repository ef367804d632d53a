"""Agreement of two raters from tables of counts: Cohen's kappa and Krippendorff's ordinal alpha, many tables at once."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals.errors import RivalsError

KappaWeights: TypeAlias = Literal["none", "linear", "quadratic"]
"""What a disagreement of categories i and j counts: 1, |i - j| or (i - j)^2."""


def cohen_kappa(
    one: ArrayLike, other: ArrayLike, *, weights: KappaWeights = "none", categories: int | None = None
) -> float:
    """Cohen's kappa: agreement of two raters beyond what their marginals give by chance; 1 is perfect, 0 chance.

    kappa = 1 - sum_ij w_ij O_ij / sum_ij w_ij E_ij, O the table of counts, E that of independent raters with the same
    marginals, w_ij = [i != j], |i - j| (linear) or (i - j)^2 (quadratic).

    Shapes: one[N], other[N], whole numbers 0..categories-1 -> a number; NaN where both always give one same category.
    Use it for two raters who each rated everything; `krippendorff_alpha` takes more raters and gaps.

    Source: Cohen 1960; weighted: Cohen 1968; as scikit-learn's `cohen_kappa_score`. Used in paper 26.

    Raises:
        RivalsError: lengths differ or are 0, a rating that is no whole number from 0, an unknown weighting.

    >>> cohen_kappa([1, 1, 0, 0], [1, 0, 0, 0])
    0.5
    """
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise RivalsError(f"two raters must rate the same things, one at least; not {first.shape} and {second.shape}")
    both = np.concatenate([first, second])
    size = int(both.max()) + 1 if categories is None and np.isfinite(both).all() else int(categories or 0)
    if not ((both >= 0) & (both < size) & (both == np.floor(both))).all():
        raise RivalsError("ratings must be whole numbers from 0, below the number of categories")
    table = np.bincount((first * size + second).astype(np.int64), minlength=size * size).reshape(size, size)
    return float(kappa_of_tables(table, weights=weights))


def kappa_of_tables(tables: NDArray[Any], *, weights: KappaWeights = "none") -> NDArray[np.float64]:
    """Return Cohen's kappa of each table of counts [..., K, K]; see `cohen_kappa`. NaN where chance cannot disagree.

    Raises:
        RivalsError: an unknown weighting.

    >>> kappa_of_tables(np.array([[[2, 0], [1, 1]]])).tolist()
    [0.5]
    """
    if weights not in ("none", "linear", "quadratic"):
        raise RivalsError(f"weights must be 'none', 'linear' or 'quadratic', not {weights!r}")
    rank = np.arange(tables.shape[-1])
    apart = np.abs(rank[:, None] - rank).astype(np.float64)
    weight = apart**2 if weights == "quadratic" else apart if weights == "linear" else np.sign(apart)
    both = tables.sum(-1)[..., :, None] * tables.sum(-2)[..., None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = (weight * both).sum((-1, -2)) / tables.sum((-1, -2))
        kappa: NDArray[np.float64] = 1 - np.where(chance > 0, (weight * tables).sum((-1, -2)) / chance, np.nan)
    return kappa


def ordinal_alpha_of_tables(tables: NDArray[Any]) -> NDArray[np.float64]:
    """Return Krippendorff's ordinal alpha of two raters for each table of counts [..., K, K], every unit rated by both.

    It is `rivals.measures.krippendorff_alpha` on the ratings themselves, for thousands of resampled tables at once. NaN
    where all ratings are one.

    >>> ordinal_alpha_of_tables(np.array([[2, 0], [0, 3]])).tolist()
    1.0
    """
    often = tables.sum(-2) + tables.sum(-1)
    middle = often.cumsum(-1) - often / 2
    apart = (middle[..., :, None] - middle[..., None, :]) ** 2
    total = often.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = 2 * (tables * apart).sum((-1, -2)) / total
        expected = (often[..., :, None] * often[..., None, :] * apart).sum((-1, -2)) / (total * (total - 1))
        alpha: NDArray[np.float64] = 1 - np.where(expected > 0, observed / expected, np.nan)
    return alpha
