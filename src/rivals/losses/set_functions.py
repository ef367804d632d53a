"""Submodular functions of a set of rows, given all similarities: how much it covers, cuts off or spans."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import check_at_least_zero, check_choice, check_positive, check_scores, check_shape
from rivals.losses._distances import euclidean
from rivals.losses._in_batch import unit_rows

__all__ = ["facility_location", "graph_cut", "log_det", "similarity_kernel"]

Kernel: TypeAlias = Literal["cosine", "dot", "rbf", "euclidean"]


def similarity_kernel(embeddings: Tensor, kernel: Kernel = "cosine") -> Tensor:
    """Return the similarities of all pairs of rows: embeddings float[N, D] -> float[N, N].

    "cosine" and "dot": products of (unit) vectors; "rbf": exp(-||x - y||^2 / D); "euclidean": minus the distance,
    scaled so that the most distant pair of the batch has 0 and equal vectors 1 (values of two batches cannot be
    compared; the gradient flows through the largest distance too). Half precision is computed in float32. O(N^2 D).

    Source: Majee et al. (2024), SCoRe, reference code `utils.py`. Paper 27.

    Raises:
        RivalsError: embeddings that are no floating-point matrix, an unknown kernel.

    >>> similarity_kernel(torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    tensor([[1.0000, 0.6000],
            [0.6000, 1.0000]])
    """
    check_choice(kernel, get_args(Kernel), "kernel")
    check_scores(embeddings, "embeddings", ndim=2)
    vectors = embeddings.to(compute_dtype(embeddings))
    with torch.autocast(embeddings.device.type, enabled=False):
        if kernel == "rbf":
            return log_rbf(vectors).exp()
        if kernel == "euclidean":
            distance = euclidean(vectors, vectors)
            largest = distance.max() if distance.numel() else distance.sum()
            return 1.0 - distance / largest.masked_fill(largest == 0, 1.0)
        if kernel == "cosine":
            vectors = unit_rows(vectors)
        return vectors @ vectors.T


def log_rbf(vectors: Tensor) -> Tensor:
    """Return the logarithm of the "rbf" kernel, which does not vanish for distant rows: [N, N]."""
    return -euclidean(vectors, vectors).square() / max(vectors.shape[1], 1)


def facility_location(similarity: Tensor, selected: Tensor) -> Tensor:
    """Return how well a set covers all rows: f(A) = sum_i max_{j in A} S_ij, and 0 for the empty set.

    Shapes: similarity float[..., N, N], selected bool[..., N] (the rows of A) -> [...]. Monotone and submodular for
    similarities of at least 0.

    Source: Majee et al. (2024), SCoRe, table 1. Paper 27.

    Raises:
        RivalsError: shapes or dtypes that do not fit.

    >>> similarity = torch.tensor([[1.0, 0.9, 0.2], [0.9, 1.0, 0.1], [0.2, 0.1, 1.0]])
    >>> facility_location(similarity, torch.tensor([True, True, False]))
    tensor(2.2000)
    """
    _check_set(similarity, selected)
    empty = ~selected.any(-1, keepdim=True)
    if selected.shape[-1] == 0:
        return similarity.sum((-2, -1))
    best = similarity.masked_fill(~selected.unsqueeze(-2), -torch.inf).amax(-1)
    return best.masked_fill(empty, 0.0).sum(-1)


def graph_cut(similarity: Tensor, selected: Tensor, *, lam: float = 0.5) -> Tensor:
    """Return what a set is like to all rows less lam of what it is like in itself.

    f(A) = sum_{i, j in A} S_ij over all i, minus lam times the same over i in A (both with the diagonal).

    Shapes: similarity float[..., N, N], selected bool[..., N] -> [...]. Submodular for similarities of at least 0;
    monotone too with lam <= 0.5.

    Source: Majee et al. (2024), SCoRe, table 1. Paper 27.

    Raises:
        RivalsError: shapes or dtypes that do not fit, lam < 0.

    >>> similarity = torch.tensor([[1.0, 0.9, 0.2], [0.9, 1.0, 0.1], [0.2, 0.1, 1.0]])
    >>> graph_cut(similarity, torch.tensor([True, True, False]), lam=1.0)
    tensor(0.3000)
    """
    _check_set(similarity, selected)
    check_at_least_zero(lam, "lam")
    columns = similarity.masked_fill(~selected.unsqueeze(-2), 0.0)
    inside = columns.masked_fill(~selected.unsqueeze(-1), 0.0)
    return columns.sum((-2, -1)) - lam * inside.sum((-2, -1))


def log_det(similarity: Tensor, selected: Tensor, *, ridge: float = 1.0) -> Tensor:
    """Return the volume a set spans: f(A) = log det(S_A + ridge 1), and 0 for the empty set.

    Shapes: similarity float[..., N, N] without negative eigenvalues, selected bool[..., N] -> [...]. Submodular;
    monotone too with ridge >= 1. Float64 is advised. O(N^3) a set.

    Source: Majee et al. (2024), SCoRe, table 1; Kulesza and Taskar (2012), determinantal point processes. Paper 27.

    Raises:
        RivalsError: shapes or dtypes that do not fit, ridge <= 0, similarities that with the ridge are not positive
        definite.

    >>> log_det(torch.eye(3), torch.tensor([True, True, False]), ridge=1.0)
    tensor(1.3863)
    """
    _check_set(similarity, selected)
    check_positive(ridge, "ridge")
    together = selected.unsqueeze(-1) & selected.unsqueeze(-2)
    diagonal = torch.ones_like(selected, dtype=similarity.dtype).masked_fill(selected, ridge)
    lower, failed = torch.linalg.cholesky_ex(similarity.masked_fill(~together, 0.0) + torch.diag_embed(diagonal))
    if similarity.device.type == "cpu" and not torch.compiler.is_compiling() and bool((failed > 0).any()):
        raise RivalsError(
            f"similarity with a ridge of {ridge:g} is not positive definite; take a larger ridge or another kernel"
        )
    return 2.0 * lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _check_set(similarity: Tensor, selected: Tensor) -> None:
    check_scores(similarity, "similarity")
    check_shape(selected, tuple(selected.shape[:-1]) + tuple(similarity.shape[-1:]), "selected", similarity.device)
    if similarity.ndim < 2 or similarity.shape[-2] != similarity.shape[-1]:
        raise RivalsError(f"similarity must have shape [..., N, N]; got {tuple(similarity.shape)}")
    if selected.dtype != torch.bool:
        raise RivalsError(f"selected must be boolean (True = in the set); got {selected.dtype}")
