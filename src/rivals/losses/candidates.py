"""Candidates made from vectors instead of found: positives pushed apart, negatives mixed.

They are inputs for any loss over embeddings (`momentum_contrast_loss`, `in_batch_info_nce_loss`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import check_choice, check_positive, check_scores, check_shape
from rivals.losses._in_batch import unit_rows

__all__ = ["Extrapolated", "extrapolate_positives", "interpolate_negatives"]

Distribution = Literal["beta", "uniform"]


class Extrapolated(NamedTuple):
    """Queries and keys [B, D] pushed apart, and by how much: `factor`, [], [B, D] or as given."""

    queries: Tensor
    keys: Tensor
    factor: Tensor


def extrapolate_positives(
    queries: Tensor,
    keys: Tensor,
    *,
    alpha: float = 2.0,
    per_dimension: bool = False,
    distribution: Distribution = "beta",
    factor: Tensor | float | None = None,
    normalize: bool = False,
    generator: torch.Generator | None = None,
) -> Extrapolated:
    """Push two positives of each other apart: q' = f q + (1 - f) k and k' = f k + (1 - f) q with f in [1, 2].

    For unit vectors and one f their score falls to (f^2 + (1 - f)^2) q.k + 2 f (1 - f): harder positives without another
    encoder pass. Both outputs carry the gradient of both inputs; vectors are not of unit length any more.

    Args:
        queries, keys: float[B, D], usually unit rows, keys detached.
        alpha: f - 1 is drawn from Beta(alpha, alpha), or from [0, 1) with distribution="uniform".
        per_dimension: draw an f for every number instead of one for all.
        factor: f itself in place of a draw: a number, or a tensor that broadcasts to [B, D].
        normalize: scale the results to unit length.
        generator: for the draw; needed unless factor is given.

    Source:
        Zhu et al. (2021), "Improving Contrastive Learning by Visualizing Feature Transformation", section 4.1. Paper 34.
        The published commands draw one f a step (per_dimension=False) and do not normalise.

    Raises:
        RivalsError: shapes or dtypes that do not fit, alpha <= 0, a factor outside [1, 2], neither factor nor generator.

    >>> q, k = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    >>> pushed = extrapolate_positives(q, k, factor=1.5)
    >>> round(float((pushed.queries * pushed.keys).sum()), 4)
    0.0
    """
    check_scores(queries, "queries", ndim=2)
    check_scores(keys, "keys")
    check_shape(keys, tuple(queries.shape), "keys", queries.device)
    if factor is None:
        drawn = _draw(queries, alpha, per_dimension, distribution, generator, "factor") + 1.0
    else:
        drawn = _given(factor, queries, (1.0, 2.0), "factor")
    dtype = torch.promote_types(compute_dtype(queries), compute_dtype(keys))
    first, second, drawn = queries.to(dtype), keys.to(dtype), drawn.to(dtype)
    pushed = drawn * first + (1 - drawn) * second, drawn * second + (1 - drawn) * first
    if normalize:
        pushed = unit_rows(pushed[0]), unit_rows(pushed[1])
    return Extrapolated(*pushed, drawn)


def interpolate_negatives(
    bank: Tensor,
    *,
    alpha: float = 1.6,
    per_dimension: bool = False,
    distribution: Distribution = "beta",
    factor: Tensor | float | None = None,
    permutation: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mix every row of a bank of negatives with another one: N' = f N + (1 - f) N[permutation] with f in [0, 1].

    The result takes the bank's place in one step's loss; the bank itself stays as it is. Rows get shorter by mixing and
    are not normalised.

    Args:
        bank: float[K, D]. alpha, per_dimension, distribution, factor: as in `extrapolate_positives`, f in [0, 1].
        permutation: int64[K], drawn if it is not given.
        generator: for the draws; needed unless factor and permutation are given.

    Source:
        Zhu et al. (2021), "Improving Contrastive Learning by Visualizing Feature Transformation", section 4.2. Paper 34.

    Raises:
        RivalsError: shapes or dtypes that do not fit, alpha <= 0, a factor outside [0, 1], a permutation that is none,
        a draw without a generator.

    >>> interpolate_negatives(torch.eye(2), factor=0.75, permutation=torch.tensor([1, 0]))
    tensor([[0.7500, 0.2500],
            [0.2500, 0.7500]])
    """
    check_scores(bank, "bank", ndim=2)
    if factor is None:
        drawn = _draw(bank, alpha, per_dimension, distribution, generator, "factor")
    else:
        drawn = _given(factor, bank, (0.0, 1.0), "factor")
    if permutation is None:
        if generator is None:
            raise RivalsError("permutation must be given, or a generator to draw it with")
        permutation = torch.randperm(len(bank), generator=generator, device=generator.device).to(bank.device)
    check_shape(permutation, (len(bank),), "permutation", bank.device)
    everyone = torch.arange(len(bank), device=bank.device)
    if permutation.dtype != torch.int64 or (
        bank.device.type == "cpu" and not torch.equal(permutation.sort()[0], everyone)
    ):
        raise RivalsError(f"permutation must be int64 and hold every number from 0 to {len(bank) - 1} once")
    wide = bank.to(compute_dtype(bank))
    drawn = drawn.to(wide.dtype)
    return drawn * wide + (1 - drawn) * wide[permutation]


def _draw(
    like: Tensor,
    alpha: float,
    per_dimension: bool,
    distribution: Distribution,
    generator: torch.Generator | None,
    name: str,
) -> Tensor:
    """Draw from Beta(alpha, alpha) or [0, 1): one number, or one for every entry of `like`."""
    check_positive(alpha, "alpha")
    check_choice(distribution, get_args(Distribution), "distribution")
    if generator is None:
        raise RivalsError(f"{name} must be given, or a generator to draw it with")
    shape = tuple(like.shape) if per_dimension else ()
    dtype, device = compute_dtype(like), generator.device
    if distribution == "uniform":
        return torch.rand(shape, dtype=dtype, device=device, generator=generator).to(like.device)
    concentration = torch.full((*shape, 2), alpha, dtype=dtype, device=device)
    return torch._sample_dirichlet(concentration, generator)[..., 0].to(like.device)


def _given(value: Tensor | float, like: Tensor, bounds: tuple[float, float], name: str) -> Tensor:
    given = torch.as_tensor(value, device=like.device, dtype=compute_dtype(like))
    try:
        fits = torch.broadcast_shapes(given.shape, like.shape) == like.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise RivalsError(f"{name} must broadcast to {tuple(like.shape)}; got {tuple(given.shape)}")
    if given.device.type == "cpu" and not ((given >= bounds[0]) & (given <= bounds[1])).all():
        raise RivalsError(f"{name} must lie in [{bounds[0]:g}, {bounds[1]:g}]")
    return given
