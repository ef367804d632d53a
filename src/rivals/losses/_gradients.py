"""The algebra of combining gradients, on their inner products; and vectors made of many tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import check_choice, check_not_negative, check_shape

Method = Literal["config", "sum", "mean", "pcgrad", "imtl_g", "mgda"]
Length = Literal["projection", "minimum", "maximum", "harmonic", "arithmetic", "geometric"]
_WEIGHTED = ("config", "sum", "mean")
_BLOCK = 2**20


def inner_products(gradients: Tensor) -> Tensor:
    """Return the inner products of rows [m, N], float64[m, m], summed up block by block."""
    total = torch.zeros(len(gradients), len(gradients), dtype=torch.float64, device=gradients.device)
    for block in gradients.split(_BLOCK, dim=1):
        wide = block.double()
        total += wide @ wide.T
    return total


def linear_combination(coefficients: Tensor, gradients: Tensor) -> Tensor:
    """Return sum_i a_i g_i, added up in float64, in the dtype of the gradients."""
    blocks = [(coefficients @ block.double()).to(gradients.dtype) for block in gradients.split(_BLOCK, dim=1)]
    return torch.cat(blocks) if blocks else gradients.new_zeros(0)


def coefficients_of(products: Tensor, method: Method, weights: Tensor | None, length: Length | int) -> Tensor:
    """Return the coefficients of the combined update; gradients of length 0 get none."""
    check_choice(method, get_args(Method), "method")
    w = _weights(weights, method, products)
    if method == "sum":
        return w
    if method == "mean":
        return w / w.sum()
    alive = products.diagonal() > 0
    found = products.new_zeros(len(products))
    if not bool(alive.any()):
        return found
    inner = products[alive][:, alive]
    if method == "config":
        norms = products.diagonal().sqrt()
        found[alive] = _config(inner, w[alive], _lengths(norms, norms[alive], length))
    elif method == "pcgrad":
        found[alive] = _pcgrad(inner)
    elif method == "imtl_g":
        found[alive] = _imtl_g(inner)
    elif bool(alive.all()):  # otherwise the hull holds 0, which nothing is shorter than
        found = _least_norm(inner)
    return found


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors as one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def unflat(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Cut a vector into tensors of the shapes of others."""
    parts = vector.split([tensor.numel() for tensor in like])
    return [part.view_as(tensor) for part, tensor in zip(parts, like, strict=True)]


def _weights(weights: Tensor | None, method: Method, products: Tensor) -> Tensor:
    if weights is None:
        return torch.ones_like(products[0])
    if method not in _WEIGHTED:
        raise RivalsError(f"weights have no meaning for method {method!r}; leave them out or take one of {_WEIGHTED}")
    check_shape(weights, (len(products),), "weights", products.device)
    check_not_negative(weights, "weights")
    if not bool((weights > 0).all()):
        raise RivalsError("weights must be above 0; leave out the gradient of a loss that should not count")
    return weights.to(products.dtype)


def _lengths(norms: Tensor, alive: Tensor, length: Length | int) -> Tensor:
    """Return the length that each gradient counts with in the length of the update."""
    if isinstance(length, int):
        if not 0 <= length < len(norms):
            raise RivalsError(f"length must name a gradient in 0..{len(norms) - 1}; got {length}")
        return norms[length].expand_as(alive)
    check_choice(length, get_args(Length), "length")
    if length == "projection":
        return alive
    common = {
        "minimum": alive.min(),
        "maximum": alive.max(),
        "harmonic": len(alive) / alive.reciprocal().sum(),
        "arithmetic": alive.mean(),
        "geometric": alive.log().mean().exp(),
    }
    return common[length].expand_as(alive)


def _config(inner: Tensor, weights: Tensor, lengths: Tensor) -> Tensor:
    norms = inner.diagonal().sqrt()
    cosines = inner / norms.outer(norms)
    resolution = 64 * len(inner) * torch.finfo(inner.dtype).eps
    direction = torch.linalg.pinv(cosines, rtol=resolution, hermitian=True) @ weights
    reached = cosines @ direction  # the products of the direction with every unit gradient
    if reached.norm() <= 1e-8 * weights.norm():  # no direction that all agree on
        return torch.zeros_like(direction)
    square = direction @ reached
    return (lengths @ reached) / square * direction / norms


def _pcgrad(inner: Tensor) -> Tensor:
    size = len(inner)
    coefficients = torch.eye(size, dtype=inner.dtype, device=inner.device)
    for i in range(size):
        for j in range(size):
            if i != j:
                product = coefficients[i] @ inner[:, j]
                coefficients[i, j] -= product.clamp(max=0.0) / inner[j, j]
    return coefficients.sum(0)


def _imtl_g(inner: Tensor) -> Tensor:
    """Solve for an affine combination whose product with every unit gradient is the same."""
    on_unit = inner / inner.diagonal().sqrt()  # g_i . u_j
    first = on_unit[0, 0] - on_unit[0, 1:]
    rest = first - on_unit[1:, :1] + on_unit[1:, 1:]
    others = first @ torch.linalg.pinv(rest)
    return torch.cat([1 - others.sum(-1, keepdim=True), others])


def _least_norm(inner: Tensor) -> Tensor:
    """Return the convex combination of least norm, by non-negative least squares.

    |R a|^2 + (sum a - 1)^2 over a >= 0 has its minimum on the ray of the combination sought, R'R = inner.
    """
    import numpy as np
    from scipy.optimize import nnls

    values, vectors = np.linalg.eigh((inner / inner.diagonal().mean()).cpu().numpy())
    root = np.sqrt(values.clip(min=0.0))[:, None] * vectors.T
    system = np.concatenate([root, np.ones((1, len(root)))])
    found, _ = nnls(system, np.append(np.zeros(len(root)), 1.0))
    return torch.as_tensor(found / found.sum(), dtype=inner.dtype, device=inner.device)
