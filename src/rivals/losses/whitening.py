"""Whitening: vectors brought to zero mean and unit covariance, and the loss that learns from two whitened views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import check_choice, check_finite, check_scores, check_shape
from rivals.losses._in_batch import unit_rows

__all__ = ["Whitening", "whiten", "whitened_mse_loss", "whiteness"]

Method = Literal["cholesky", "zca"]


def whiten(vectors: Tensor, *, eps: float = 0.0, method: Method = "cholesky") -> Tensor:
    """Return the vectors of each group moved and turned to mean 0 and covariance 1; gradients flow through all of it.

    z = (x - mean) W' with W S' W' = 1, S' = (1 - eps) S + eps 1 and S the covariance (divisor w - 1): W is the inverse
    of the lower Cholesky factor of S', or ("zca") the symmetric inverse square root, which turns the vectors least.
    Cholesky whitening depends on the order of the dimensions; ZCA does not.

    Shapes: float[..., w, D] -> [..., w, D], every group [w, D] by itself. Half precision is computed in float32 and
    returned as float32. O(w D^2 + D^3) a group.

    Source: Ermolov et al. (2021), W-MSE, section 3 and its reference code. Paper 15. ZCA is not in the paper.

    Raises:
        RivalsError: fewer than two vectors a group, w <= D or linearly dependent vectors with eps = 0, eps outside
        [0, 1), values that are not finite, an unknown method.

    >>> z = whiten(torch.tensor([[0.0, 1.0], [4.0, 1.0], [2.0, 7.0]]))
    >>> torch.allclose(z.T @ z / 2, torch.eye(2), atol=1e-6)
    True
    """
    centred, covariance = _moments(vectors)
    _check_rank(vectors, eps)
    return _apply(centred, covariance, eps, method, _noise(vectors))


def whiteness(vectors: Tensor) -> Tensor:
    """Return how far the covariance of vectors[..., w, D] is from 1: ||S - 1|| (Frobenius) / D, so 0 is white.

    Shapes: float[..., w, D] -> [...]. A diagnostic for representations that collapse onto few directions.

    Source: paper 15 (a measure of what its whitening achieves).

    Raises:
        RivalsError: fewer than two vectors a group, values that are not finite.

    >>> round(whiteness(torch.zeros(3, 4)).item(), 4)
    0.5
    """
    _, covariance = _moments(vectors)
    size = covariance.shape[-1]
    return torch.linalg.matrix_norm(covariance - torch.eye(size, dtype=covariance.dtype, device=vectors.device)) / size


def whitened_mse_loss(
    views: Tensor | Sequence[Tensor],
    mask: Tensor | None = None,
    *,
    group_size: int | None = None,
    iterations: int = 1,
    eps: float = 0.0,
    normalize: bool = True,
    method: Method = "cholesky",
    permutations: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Squared distance between the whitened views of every sample (W-MSE): positives alone, without collapse.

    Formula:
        The samples are shuffled and cut into groups of `group_size`, the same for every view; each group of each view
        is whitened by itself (`whiten`), giving z_ai for view a of sample i. Then, over all pairs of views a < b,

        - normalize: L = mean over i of 2 - 2 cos(z_ai, z_bi);
        - else: L = mean over i and dimensions of (z_ai - z_bi)^2,

        averaged over the pairs and over `iterations` shuffles.

    Shapes:
        views float[V, N, D], or V tensors [N, D]; mask bool[N] (a sample that is absent is removed from all views);
        permutations int64[iterations, n], orders of the n samples that are there -> scalar. group_size None: all.
        O(V iterations n D^2).

    When to use:
        Learning representations from pairs alone: two dropout views of a sentence, crops of an image, a query and its
        document. Take group_size = 2 D: close to D the whitened vectors are nearly random.

    Relations:
        The positives' part of `in_batch_info_nce_loss`, with whitening in place of its negatives. Without whitening it
        would be minimal for constant vectors.

    Source:
        Ermolov et al. (2021), W-MSE, section 3; reference code `w_mse.py`. Paper 15. As in the code, no running
        statistics and a separate whitening for each view.

    Raises:
        RivalsError: fewer than two views, views of different shapes, n not divisible by group_size, group_size <= D or
        linearly dependent vectors with eps = 0, eps outside [0, 1), values that are not finite, more than one group
        without a generator or permutations, permutations that are none, an unknown method.

    Example:
        >>> import torch
        >>> view = torch.tensor([[0.0, 1.0], [4.0, 1.0], [2.0, 7.0]])
        >>> whitened_mse_loss(torch.stack([view, view])).abs() < 1e-6, whitened_mse_loss(torch.stack([view, -view]))
        (tensor(True), tensor(4.))
    """
    stacked = _checked_views(views, mask)
    count = stacked.shape[1]
    if iterations < 1:
        raise RivalsError(f"iterations must be at least 1; got {iterations!r}")
    size = count if group_size is None else group_size
    if size < 1 and group_size is not None:
        raise RivalsError(f"group_size must be at least 1; got {group_size!r}")
    if count == 0:
        return stacked.sum()
    if count % size:
        raise RivalsError(f"group_size must divide the number of samples, {count}; got {size}")
    order = _orders(count, size, iterations, permutations, generator, stacked.device)
    groups = stacked[:, order].unflatten(2, (count // size, size))
    white = whiten(groups, eps=eps, method=method)
    if normalize:
        white = unit_rows(white)
    first, second = torch.triu_indices(len(white), len(white), offset=1, device=white.device)
    if normalize:
        return 2.0 - 2.0 * (white[first] * white[second]).sum(-1).mean()
    return (white[first] - white[second]).square().mean()


class Whitening(nn.Module):
    """Whitening as a layer: each training batch by its own statistics, later vectors by the running ones.

    Args: dim, the width D of the vectors; eps and method as in `whiten`; momentum, the share of a new batch in the
    running mean and covariance. In training mode it is `whiten`; in evaluation mode a vector's result does not depend
    on its batch.

    Shapes: float[w, D] -> [w, D].

    Source: Ermolov et al. (2021), reference code `whitening.py` (momentum 0.01). Paper 15.

    Raises:
        RivalsError: as `whiten`; another width than `dim`; momentum outside (0, 1].

    >>> layer = Whitening(2, momentum=1.0)
    >>> x = torch.tensor([[0.0, 1.0], [4.0, 1.0], [2.0, 7.0]])
    >>> torch.allclose(layer(x), layer.eval()(x), atol=1e-6)
    True
    """

    mean: Tensor
    covariance: Tensor

    def __init__(self, dim: int, *, eps: float = 0.0, momentum: float = 0.01, method: Method = "cholesky") -> None:
        super().__init__()
        _check_eps(eps)
        check_choice(method, get_args(Method), "method")
        if not 0 < momentum <= 1:
            raise RivalsError(f"momentum must lie in (0, 1]; got {momentum!r}")
        self.eps, self.momentum, self.method = eps, momentum, method
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("covariance", torch.eye(dim))

    def forward(self, vectors: Tensor) -> Tensor:
        """Whiten vectors[w, D]; in training mode, take their statistics into the running ones first."""
        check_scores(vectors, "vectors", ndim=2)
        check_shape(vectors, (len(vectors), len(self.mean)), "vectors", self.mean.device)
        if not self.training:
            centred = vectors.to(compute_dtype(vectors)) - self.mean
            return _apply(centred, self.covariance.to(centred.dtype), self.eps, self.method, _noise(vectors))
        centred, covariance = _moments(vectors)
        _check_rank(vectors, self.eps)
        with torch.no_grad():
            self.mean.lerp_(vectors.to(self.mean.dtype).mean(0), self.momentum)
            self.covariance.lerp_(covariance.to(self.covariance.dtype), self.momentum)
        return _apply(centred, covariance, self.eps, self.method, _noise(vectors))


class _InverseRoot(torch.autograd.Function):
    """The symmetric inverse square root of covariance matrices, with a gradient that stands equal eigenvalues."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        ctx.save_for_backward(values, vectors)
        return (vectors * values.rsqrt().unsqueeze(-2)) @ vectors.mT

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        values, vectors = ctx.saved_tensors
        root = values.sqrt()
        slope = -1.0 / (
            root.unsqueeze(-1) * root.unsqueeze(-2) * (root.unsqueeze(-1) + root.unsqueeze(-2))
        )  # divided differences of 1 / sqrt
        inner = vectors.mT @ ((gradients[0] + gradients[0].mT) / 2) @ vectors
        return vectors @ (slope * inner) @ vectors.mT


def _moments(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the centred vectors and their covariance."""
    check_scores(vectors, "vectors")
    if vectors.ndim < 2 or vectors.shape[-2] < 2:
        raise RivalsError(f"vectors must have shape [..., w, D] with at least two vectors; got {tuple(vectors.shape)}")
    check_finite(vectors, "vectors")
    vectors = vectors.to(compute_dtype(vectors))
    centred = vectors - vectors[..., :1, :].detach()  # equal vectors become exactly 0
    centred = centred - centred.mean(-2, keepdim=True)
    with torch.autocast(vectors.device.type, enabled=False):
        return centred, centred.mT @ centred / (vectors.shape[-2] - 1)


def _check_rank(vectors: Tensor, eps: float) -> None:
    _check_eps(eps)
    size, width = vectors.shape[-2:]
    if size <= width and eps == 0:
        raise RivalsError(
            f"whitening {size} vectors of width {width} needs group_size > D or eps > 0: "
            f"their covariance has no inverse"
        )


def _noise(vectors: Tensor) -> Tensor:
    """The variance that rounding alone can put into each group: [...]."""
    size = vectors.detach().abs().amax((-2, -1)).to(compute_dtype(vectors))
    return (torch.finfo(size.dtype).eps * size).square()


def _apply(centred: Tensor, covariance: Tensor, eps: float, method: str, noise: Tensor) -> Tensor:
    """Return centred W' for the W of the covariance; a covariance without an inverse raises."""
    check_choice(method, get_args(Method), "method")
    with torch.autocast(centred.device.type, enabled=False):
        one = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
        shrunk = (1.0 - eps) * covariance + eps * one
        lower, failed = torch.linalg.cholesky_ex(shrunk)
        smallest = 8 * torch.finfo(shrunk.dtype).eps * shrunk.diagonal(dim1=-2, dim2=-1) + noise.unsqueeze(-1)
        pivots = lower.detach().diagonal(dim1=-2, dim2=-1).square()
        if not torch.compiler.is_compiling() and bool(((failed > 0) | (pivots <= smallest).any(-1)).any()):
            raise RivalsError(
                "the covariance of a group has no inverse: its vectors are constant or linearly dependent; "
                "need group_size > D or eps > 0"
            )
        if method == "zca":
            return centred @ cast(Tensor, _InverseRoot.apply(shrunk))
        return torch.linalg.solve_triangular(lower, centred.mT, upper=False).mT


def _checked_views(views: Tensor | Sequence[Tensor], mask: Tensor | None) -> Tensor:
    """Return the views as [V, n, D], the samples that are there, in the dtype to compute in."""
    if not isinstance(views, Tensor):
        for view in views:
            check_scores(view, "views", ndim=2)
            check_shape(view, tuple(views[0].shape), "views", views[0].device)
        if len(views) == 0:
            raise RivalsError("views must hold at least two views of every sample; got none")
        views = torch.stack(tuple(views))
    check_scores(views, "views", ndim=3)
    if len(views) < 2:
        raise RivalsError(f"views must hold at least two views of every sample, [V, N, D]; got {tuple(views.shape)}")
    if mask is not None:
        check_shape(mask, (views.shape[1],), "mask", views.device)
        if mask.dtype != torch.bool:
            raise RivalsError(f"mask must be boolean (True = the sample is there); got {mask.dtype}")
        views = views[:, mask]
    check_finite(views, "views")
    return views.to(compute_dtype(views))


def _orders(
    count: int,
    size: int,
    iterations: int,
    permutations: Tensor | None,
    generator: torch.Generator | None,
    device: torch.device,
) -> Tensor:
    """Return the orders of the samples, int64[iterations, count]; one group needs no shuffling."""
    if permutations is not None:
        check_shape(permutations, (iterations, count), "permutations", device)
        if permutations.dtype != torch.int64 or bool((permutations.sort(-1).values != _identity(count, device)).any()):
            raise RivalsError(f"permutations must be int64 orders of the {count} samples, each sample once a row")
        return permutations
    if size == count:
        return _identity(count, device).unsqueeze(0)
    if generator is None:
        raise RivalsError(f"{count // size} groups are drawn at random; give generator= or permutations=")
    draws = [torch.randperm(count, generator=generator, device=generator.device) for _ in range(iterations)]
    return torch.stack(draws).to(device)


def _identity(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device)


def _check_eps(eps: float) -> None:
    if not (math.isfinite(eps) and 0 <= eps < 1):
        raise RivalsError(f"eps must lie in [0, 1); got {eps!r}")
