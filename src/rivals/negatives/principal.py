"""Principal axes of vectors that come in blocks: as many as explain a share of the variance, or a given number."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError

Blocks = Callable[[], Iterable[NDArray[Any]]]

_WIDEST = 8192  # dimensions up to which the covariance is decomposed as a whole
_PASSES = 3  # of subspace iteration beyond that


@dataclass(frozen=True, eq=False)
class PrincipalAxes:
    """The mean of a set of vectors and the orthonormal directions along which they vary most.

    `mean` float64[d], `axes` float64[d, r], `variance` float64[r] along each axis, largest first, `total` the variance
    along all directions. Coordinates are not whitened: distances are those of the centred vectors, as far as the axes
    hold them. Signs are fixed by the largest entry of each axis, which is positive.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    variance: NDArray[np.float64]
    total: float

    @property
    def share(self) -> NDArray[np.float64]:
        """The share of the total variance that each axis explains, float64[r]."""
        return self.variance / self.total

    def project(self, vectors: NDArray[Any]) -> NDArray[np.float64]:
        """Return the coordinates of vectors [n, d] on the axes, after subtracting the mean; float64[n, r]."""
        return (np.asarray(vectors, np.float64) - self.mean) @ self.axes


def fit_principal_axes(
    blocks: Blocks, *, share: float | None = None, components: int | None = None, seed: int = 0
) -> PrincipalAxes:
    """Return the principal axes of the rows of all blocks: the fewest that explain `share` of the variance, or so many.

    The covariance is summed block by block, so the rows may be more than memory holds; up to 8192 dimensions it is
    decomposed exactly. Wider vectors, if there are more rows than that, are taken through a randomised subspace iteration
    that doubles its width until the share is reached. Directions with less than 1e-12 of the largest variance do not
    count, so a share of 1 keeps as many axes as the rows span.

    Args:
        blocks: called for every pass; gives matrices [n, d] of the same rows each time.
        share: in (0, 1]. components: 1 or more. One of the two. seed: of the randomised iteration.

    Source: Pearson 1901; Halko, Martinsson, Tropp 2011, Finding structure with randomness, algorithm 4.4.

    Raises:
        RivalsError: neither or both of share and components, either out of range, fewer than 2 rows, rows that are all
        equal, values that are not finite.

    >>> rows = np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    >>> axes = fit_principal_axes(lambda: [rows], share=0.95)
    >>> axes.axes.round(6).tolist(), axes.share.round(6).tolist()
    ([[0.6], [0.8]], [1.0])
    """
    if (share is None) == (components is None):
        raise RivalsError("give either the share of variance to keep or the number of components")
    if share is not None and not 0 < share <= 1:
        raise RivalsError(f"the share of variance to keep must lie in (0, 1], not {share!r}")
    count, mean, total = _moments(blocks)
    width = len(mean)
    if count < 2 or not total > 0:
        raise RivalsError(f"principal components need 2 different rows or more; there are {count} rows")
    if components is not None and not 1 <= components <= min(count, width):
        raise RivalsError(f"components must lie in 1..{min(count, width)}, not {components!r}")
    if min(count, width) <= _WIDEST:
        exact = _by_covariance if width <= count else _by_products
        axes, variance = exact(blocks, count, mean)
    else:
        axes, variance = _by_iteration(blocks, count, mean, total, share, components, np.random.default_rng(seed))
    keep = _number(variance, total, share, components)
    axes, variance = axes[:, :keep], variance[:keep]
    signs = np.sign(axes[np.abs(axes).argmax(0), np.arange(keep)])
    return PrincipalAxes(mean, axes * signs, variance, total)


def _moments(blocks: Blocks) -> tuple[int, NDArray[np.float64], float]:
    """The number of rows, their mean and the sum of the variances of all columns."""
    count, shift = 0, np.zeros(0)
    total = squares = np.zeros(0)
    for block in blocks():
        if not len(block):
            continue
        rows = np.asarray(block, np.float64)
        if not count:
            shift = rows.mean(0)
            total, squares = np.zeros_like(shift), np.zeros_like(shift)
        rows = rows - shift
        count += len(rows)
        total = total + rows.sum(0)
        squares = squares + np.einsum("nd,nd->d", rows, rows)
    if not np.isfinite(squares).all():
        raise RivalsError("principal components need finite numbers; a vector holds NaN or infinity")
    away = total / max(count, 1)
    return count, shift + away, float(np.maximum(squares / max(count, 1) - away**2, 0).sum())


def _by_covariance(
    blocks: Blocks, count: int, mean: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    covariance = np.zeros((len(mean), len(mean)))
    for block in blocks():
        rows = np.asarray(block, np.float64) - mean
        covariance += rows.T @ rows
    variance, axes = np.linalg.eigh(covariance / count)
    return axes[:, ::-1], np.maximum(variance[::-1], 0.0)


def _by_products(
    blocks: Blocks, count: int, mean: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For fewer rows than dimensions: the same axes from the products of the rows with each other."""
    rows = np.concatenate([np.asarray(block, np.float64) for block in blocks()]) - mean
    variance, sides = np.linalg.eigh(rows @ rows.T / count)
    variance, sides = np.maximum(variance[::-1], 0.0), sides[:, ::-1]
    length = np.sqrt(variance * count)
    return rows.T @ sides / np.where(length > 0, length, 1.0), variance


def _by_iteration(
    blocks: Blocks,
    count: int,
    mean: NDArray[np.float64],
    total: float,
    share: float | None,
    components: int | None,
    generator: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    most = min(count, len(mean))
    width = min(most, (components or 256) + 16)
    while True:
        axes = np.linalg.qr(generator.standard_normal((len(mean), width)))[0]
        for _ in range(_PASSES):
            image = np.zeros_like(axes)
            for block in blocks():
                rows = np.asarray(block, np.float64) - mean
                image += rows.T @ (rows @ axes)
            axes = np.linalg.qr(image)[0]
        inner = np.zeros((width, width))
        for block in blocks():
            part = (np.asarray(block, np.float64) - mean) @ axes
            inner += part.T @ part
        variance, turn = np.linalg.eigh(inner / count)
        axes, variance = axes @ turn[:, ::-1], np.maximum(variance[::-1], 0.0)
        if share is None or width == most or variance[: width - 8].sum() >= share * total:
            return axes, variance
        width = min(most, 2 * width)


def _number(variance: NDArray[np.float64], total: float, share: float | None, components: int | None) -> int:
    if components is not None:
        return components
    rank = max(int((variance > 1e-12 * variance[0]).sum()), 1)
    reached = np.cumsum(variance[:rank]) >= (share or 1.0) * total * (1 - 1e-12)
    return int(reached.argmax()) + 1 if reached.any() else rank
