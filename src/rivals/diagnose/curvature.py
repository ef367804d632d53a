"""The path that training took, in a plane, and the curvature where it ended."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rivals.diagnose._grid import Direction, LossFunction, add_losses, check_same, evaluation_copy, measured, points
from rivals.diagnose.landscape import as_rows
from rivals.errors import RivalsError

Projection = Literal["lstsq", "cos"]


class Extremes(NamedTuple):
    """The largest and smallest eigenvalue of a Hessian; |min / max| is near 0 where the loss is convex."""

    max: float
    min: float

    @property
    def ratio(self) -> float:
        """|min / max|."""
        return abs(self.min / self.max) if self.max else float("inf")


@dataclass(frozen=True)
class CurvatureSurface:
    """The largest and smallest eigenvalue of the Hessian on a plane: `max[i][j]` and `min[i][j]` at x[i], y[j]."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    max: tuple[tuple[float, ...], ...]
    min: tuple[tuple[float, ...], ...]

    @property
    def ratio(self) -> tuple[tuple[float, ...], ...]:
        """|min / max|, near 0 where the loss is close to convex."""
        pairs = [zip(above, below, strict=True) for above, below in zip(self.max, self.min, strict=True)]
        return tuple(tuple(Extremes(*pair).ratio for pair in row) for row in pairs)

    def to_json(self) -> dict[str, Any]:
        """Return the surface as JSON values."""
        return {"x": self.x, "y": self.y, "max": self.max, "min": self.min}


@dataclass(frozen=True, eq=False)
class TrajectoryPlane:
    """A path of checkpoints in the plane of its two principal directions.

    `coordinates` float64[T, 2] relative to the last checkpoint; `directions`: the two unit vectors, tensors by name;
    `explained_variance`: the share of the path's variance along each.
    """

    coordinates: NDArray[np.float64]
    directions: tuple[dict[str, Tensor], dict[str, Tensor]]
    explained_variance: tuple[float, float]


def project_displacement(
    displacement: Tensor, first: Tensor, second: Tensor, *, method: Projection = "lstsq"
) -> tuple[float, float]:
    """Return the coordinates of a displacement in the plane of two directions.

    "lstsq": the x and y of least |displacement - x first - y second|. "cos": x = <displacement, first> / |first|, a
    length rather than a coefficient, and y likewise; the same for orthonormal directions only.

    Args:
        displacement, first, second: float[P].

    Source: Li et al. (2018), section 7, and its `project_2D`. Paper 92.

    Raises RivalsError: vectors of other lengths, not finite, a direction of length 0, an unknown method.

    >>> project_displacement(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0]), method="cos")
    (3.0, 4.0)
    """
    vectors = [vector.detach().double().flatten() for vector in (displacement, first, second)]
    if len({len(vector) for vector in vectors}) > 1 or not all(torch.isfinite(vector).all() for vector in vectors):
        raise RivalsError("displacement and directions must be finite vectors of one length")
    if method not in ("lstsq", "cos"):
        raise RivalsError(f"method must be 'lstsq' or 'cos'; got {method!r}")
    change, x, y = vectors
    if not (x.any() and y.any()):
        raise RivalsError("a direction has length 0")
    if method == "cos":
        return float(change @ x / x.norm()), float(change @ y / y.norm())
    found = np.linalg.lstsq(torch.stack([x, y], dim=1).numpy(force=True), change.numpy(force=True), rcond=None)[0]
    return float(found[0]), float(found[1])


def trajectory_plane(states: Sequence[Mapping[str, Tensor]], *, projection: Projection = "lstsq") -> TrajectoryPlane:
    """Return the path of training in the plane that shows most of it.

    The displacements of the checkpoints from the last one, mean-centred, give two principal directions; the path is
    projected on them by `project_displacement`. Random directions show almost nothing of a path.

    Args:
        states: three or more state dicts in the order of training; floating-point tensors count.

    Source: Li et al. (2018), section 7. Paper 92.

    Raises RivalsError: fewer than three states, other names or shapes, weights that are not finite, a path that does
    not leave a line.

    >>> points = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]
    >>> plane = trajectory_plane([{"w": torch.tensor(point)} for point in points])
    >>> round(sum(plane.explained_variance), 6), plane.coordinates.shape
    (1.0, (3, 2))
    """
    if len(states) < 3:
        raise RivalsError(f"a plane needs three or more checkpoints; got {len(states)}")
    kept = [{name: t.detach() for name, t in state.items() if t.is_floating_point()} for state in states]
    for state in kept[1:]:
        check_same(kept[0], state, "all checkpoints")
    flat = torch.stack([torch.cat([t.double().flatten().cpu() for t in state.values()]) for state in kept])
    if not torch.isfinite(flat).all():
        raise RivalsError("the weights of a checkpoint are not finite")
    moved = flat - flat[-1]
    _, spectrum, axes = torch.linalg.svd(moved - moved.mean(0), full_matrices=False)
    if len(spectrum) < 2 or not spectrum[1] > 1e-12 * spectrum[0]:
        raise RivalsError("the checkpoints lie on a line; a plane needs a path that leaves it")
    share = spectrum.square() / spectrum.square().sum()
    coordinates = np.array([project_displacement(change, axes[0], axes[1], method=projection) for change in moved])
    sizes = [t.numel() for t in kept[0].values()]
    first, second = (
        {name: part.reshape(t.shape) for (name, t), part in zip(kept[0].items(), axis.split(sizes), strict=True)}
        for axis in axes[:2]
    )
    return TrajectoryPlane(coordinates, (first, second), (float(share[0]), float(share[1])))


def hessian_extremes(
    model: nn.Module,
    loss_fn: LossFunction,
    data: Iterable[Any],
    *,
    vectors: bool = False,
    tol: float = 1e-2,
    max_iter: int = 1000,
    generator: np.random.Generator | None = None,
) -> Extremes:
    """Return the largest and the smallest eigenvalue of the Hessian of the mean loss, by Lanczos iteration.

    The Hessian is never formed: each step costs one product with it, two backward passes over the data. The model is
    copied, to float32 at least and evaluation mode, and stays as it is.

    Args:
        loss_fn: (model, batch) -> (sum of losses, count), with gradient. data: batches that can be gone through
            repeatedly. vectors: also biases and other tensors of at most one dimension. tol: relative accuracy,
            for the smaller end of the two's distance.
        generator: for the starting vector.

    Source: Li et al. (2018), section 6. Paper 92. As in its code the end of largest magnitude comes first, the other
    from the shifted matrix; it is shifted by the whole of it, not by 0.51, which would miss a smallest eigenvalue above
    0.02 of the largest. The code sums the means of batches, this is the mean over examples.

    Raises RivalsError: no data, nothing to differentiate, a loss that is not finite, no convergence in `max_iter` steps.

    >>> model = nn.Linear(3, 1, bias=False)
    >>> scale = torch.tensor([[1.0, 2.0, 5.0]])
    >>> extremes = hessian_extremes(model, lambda m, _: ((scale * m.weight ** 2).sum(), 2), [0])
    >>> round(extremes.max, 3), round(extremes.min, 3)
    (5.0, 1.0)
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    moved = evaluation_copy(model)
    weights = [weight for weight in moved.parameters() if vectors or weight.ndim > 1]
    for weight in weights:
        weight.requires_grad_(True)
    size = sum(weight.numel() for weight in weights)
    if not size:
        raise RivalsError("the model has no weights of two or more dimensions; set vectors=True to take all")

    def product(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = torch.as_tensor(vector.reshape(-1), dtype=weights[0].dtype, device=weights[0].device)
        parts = [p.reshape(w.shape) for p, w in zip(flat.split([w.numel() for w in weights]), weights, strict=True)]
        total, count = torch.zeros(size, dtype=torch.float64), 0.0
        for loss, number, _ in add_losses(moved, loss_fn, data):
            total += _hessian_product(loss, weights, parts)
            count += number
        if not count > 0:
            raise RivalsError("there is no data to measure the curvature on; give batches that can be repeated")
        if not torch.isfinite(total).all():
            raise RivalsError("the loss has no finite second derivative here")
        return (total / count).numpy()

    if size <= 2:
        values = np.linalg.eigvalsh(np.stack([product(row) for row in np.eye(size)]))
        return Extremes(float(values[-1]), float(values[0]))
    start = (generator or np.random.default_rng(0)).normal(size=size)
    if not product(start).any():
        return Extremes(0.0, 0.0)

    def farthest(shift: float) -> float:
        """The eigenvalue farthest from `shift`."""
        operator = LinearOperator((size, size), matvec=lambda v: product(v) - shift * v.reshape(-1), dtype=np.float64)
        try:
            found = eigsh(operator, k=1, which="LM", tol=tol, maxiter=max_iter, v0=start, return_eigenvectors=False)
        except ArpackError as error:
            raise RivalsError(f"the eigenvalues did not converge in {max_iter} steps: {error}") from error
        return float(found[0]) + shift

    one = farthest(0.0)
    left = product(start) - one * start
    alike = np.linalg.norm(left) <= 1e-6 * abs(one) * np.linalg.norm(start)
    other = one if alike else farthest(one)  # the far end, to a tolerance of their distance: it may be 0
    return Extremes(max(one, other), min(one, other))


def curvature_surface(
    model: nn.Module,
    loss_fn: LossFunction,
    data: Iterable[Any],
    first: Direction,
    second: Direction,
    xs: Sequence[float] | Tensor | None = None,
    ys: Sequence[float] | Tensor | None = None,
    *,
    vectors: bool = False,
    tol: float = 1e-2,
    cache: str | os.PathLike[str] | None = None,
) -> CurvatureSurface:
    """Return the Hessian's extremes on a plane, weights + x first + y second: where the loss is far from convex.

    Args: as in `loss_surface` and `hessian_extremes`; xs and ys are 11 points from -1 to 1 by default. A point costs tens
        of products with the Hessian, so keep data and grid small, and give a `cache`.

    Source: Li et al. (2018), section 6. Paper 92.

    Raises RivalsError: as `loss_surface` and `hessian_extremes`.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> scale, still = torch.tensor([[1.0, -2.0]]), {"weight": torch.zeros(1, 2)}
    >>> found = curvature_surface(model, lambda m, _: ((scale * m.weight**2).sum(), 2), [0], still, still, [0], [0, 1])
    >>> found.max, found.min, found.ratio
    (((1.0, 1.0),), ((-2.0, -2.0),), ((2.0, 2.0),))
    """
    rows, columns = points(xs, -1.0, 1.0, 11), points(ys, -1.0, 1.0, 11)

    def extremes(moved: nn.Module) -> tuple[float, float]:
        found = hessian_extremes(moved, loss_fn, data, vectors=vectors, tol=tol)
        return found.max, found.min

    steps = [(x, y) for x in rows for y in columns]
    values = measured(model, [first, second], steps, extremes, cache=cache, description="Curvature")
    largest, smallest = (as_rows([float(value[end] or 0.0) for value in values], len(columns)) for end in (0, 1))
    return CurvatureSurface(rows, columns, largest, smallest)


def _hessian_product(loss: Tensor, weights: Sequence[Tensor], vector: Sequence[Tensor]) -> Tensor:
    """Hessian of one batch's loss times a vector, float64[P]; 0 for what the loss is at most linear in."""
    slopes = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    along = [(slope * part).sum() for slope, part in zip(slopes, vector, strict=True) if slope is not None]
    total = torch.stack(along).sum() if along else torch.zeros(())
    bends: Sequence[Tensor | None] = [None] * len(weights)
    if total.requires_grad:
        bends = torch.autograd.grad(total, weights, allow_unused=True)
    return torch.cat(
        [
            torch.zeros(weight.numel(), dtype=torch.float64) if bend is None else bend.detach().double().flatten().cpu()
            for bend, weight in zip(bends, weights, strict=True)
        ]
    )
