"""Do tasks help each other? Similarity of their inputs' covariances, weights by their common span, alignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import check_choice, check_finite, check_mask, check_scores, check_shape

__all__ = ["CovarianceAlignment", "covariance_similarity", "svd_task_weights", "task_similarity_matrix"]

Energy = Literal["covariance", "data"]
Normalization = Literal["none", "relative"]


def covariance_similarity(
    first: Tensor,
    second: Tensor,
    *,
    energy: float = 0.99,
    energy_of: Energy = "covariance",
    center: bool = False,
    normalized: bool = False,
) -> Tensor:
    """Return how far the inputs of two tasks vary along the same directions.

    sim = |H_1' H_2|_F / (|H_1|_F |H_2|_F),  H_i = U_i D_i^{1/2}, with U_i D_i U_i' the best approximation of X_i' X_i
    of the smallest rank that holds `energy` of the sum of its eigenvalues (or, energy_of="data", of the singular values
    of X_i). In [0, 1], unchanged by the scale of either, the order of rows and a rotation of both. sim(X, X) is 1 only
    for rank one; `normalized` divides by sqrt(sim(1, 1) sim(2, 2)), so that it is 1 for equal inputs.

    Shapes: first float[m, d], second float[n, d] -> scalar. Uncentred by default, as in the paper; the mean of
    embeddings then dominates, so look at `center` too. No d x d matrix is formed.

    Source: Wu, Zhang and Re (2020), eq. 5. Paper 107.

    Raises:
        RivalsError: inputs that are not [m, d] and [n, d] or not finite, an input that is zero (or constant, centred),
        energy outside (0, 1], an unknown energy_of.

    >>> covariance_similarity(torch.diag(torch.tensor([2.0, 1.0])), torch.diag(torch.tensor([1.0, 2.0])), energy=1.0)
    tensor(0.5657)
    """
    roots = [_root(x, name, energy, energy_of, center) for x, name in ((first, "first"), (second, "second"))]
    if roots[0].shape[1] != roots[1].shape[1]:
        raise RivalsError(f"first and second must have the same width; got {first.shape[1]} and {second.shape[1]}")
    return _similarity(*roots, normalized=normalized)


def task_similarity_matrix(
    inputs: Sequence[Tensor],
    *,
    energy: float = 0.99,
    energy_of: Energy = "covariance",
    center: bool = False,
    normalized: bool = False,
) -> Tensor:
    """Return `covariance_similarity` of every pair of tasks, [k, k].

    Shapes: k inputs float[m_i, d] -> float[k, k], symmetric.

    Source: Wu, Zhang and Re (2020), eq. 5. Paper 107.

    Raises:
        RivalsError: no inputs, and as `covariance_similarity`.

    >>> task_similarity_matrix([torch.eye(2)[:1], torch.eye(2)[1:]])
    tensor([[1., 0.],
            [0., 1.]])
    """
    if not inputs:
        raise RivalsError("inputs must hold at least one task's inputs; got none")
    roots = [_root(x, f"inputs[{place}]", energy, energy_of, center) for place, x in enumerate(inputs)]
    if len({root.shape[1] for root in roots}) > 1:
        raise RivalsError(f"inputs must have the same width; got {[root.shape[1] for root in roots]}")
    rows = [torch.stack([_similarity(one, other, normalized=normalized) for other in roots]) for one in roots]
    return torch.stack(rows)


def svd_task_weights(
    inputs: Tensor,
    targets: Tensor,
    *,
    rank: int,
    mask: Tensor | None = None,
    normalize: Normalization = "none",
    center: bool = False,
    rescale: bool = True,
) -> Tensor:
    """Return a weight per task: how much of its label direction lies in the span that the tasks have in common.

    theta_i = X' y_i;  weight_i = |theta_i' U_r|, U_r the top `rank` left singular vectors of [theta_1 ... theta_k].
    normalize="relative" divides by |theta_i|: the share inside the span, in [0, 1], instead of favouring large tasks.
    `rescale` brings the mean to 1. `center` takes the means of X and y out first; without it a task of random labels
    points along the mean of X and looks healthy. With a mask, theta_i is the mean over the task's own rows.

    Shapes: inputs float[m, d], targets [m, k], mask bool[m, k] -> float[k], without gradient.

    Source: Wu, Zhang and Re (2020), algorithm 2 (normalize="none", not rescaled). Paper 107.

    Raises:
        RivalsError: shapes or dtypes that do not fit, rank outside 1..min(d, k), inputs or targets that are not finite,
        a task without a labelled row, labels that give every task the weight 0, an unknown normalize.

    >>> svd_task_weights(torch.eye(2), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), rank=1, rescale=False)
    tensor([1., 1., 0.])
    """
    check_choice(normalize, get_args(Normalization), "normalize")
    check_scores(inputs, "inputs", ndim=2)
    if targets.ndim != 2 or len(targets) != len(inputs):
        raise RivalsError(f"targets must have shape [{len(inputs)}, k]; got {tuple(targets.shape)}")
    check_mask(mask, targets, "mask")
    if not 1 <= rank <= min(inputs.shape[1], targets.shape[1]):
        raise RivalsError(f"rank must lie in 1..{min(inputs.shape[1], targets.shape[1])}; got {rank}")
    x = inputs.detach().to(compute_dtype(inputs))
    there = torch.ones_like(targets, dtype=torch.bool) if mask is None else mask
    y = targets.detach().to(x.dtype).masked_fill(~there, 0.0)
    check_finite(x, "inputs")
    check_finite(y, "targets")
    count = there.sum(0)
    if bool((count == 0).any()):
        raise RivalsError(f"task {int((count == 0).nonzero()[0])} has no labelled row; leave it out")
    if center:  # the mean of X then drops out by itself
        y = (y - y.sum(0) / count).masked_fill(~there, 0.0)
    theta = x.T @ y if mask is None else x.T @ y / count
    basis = torch.linalg.svd(theta, full_matrices=False).U[:, :rank]
    weights = (basis.T @ theta).norm(dim=0)
    if normalize == "relative":
        size = theta.norm(dim=0)
        weights = weights / size.masked_fill(size == 0, 1.0)
    if not bool((weights > 0).any()):
        raise RivalsError("every task has the weight 0: the targets have no product with the inputs")
    return weights / weights.mean() if rescale else weights


class CovarianceAlignment(nn.Module):
    """One square matrix per task between its embeddings and the shared module, at the start the identity.

    Trained with everything else, it turns a task's inputs towards those of the others. Weight decay should pull towards
    the identity: `drift()` is the squared distance to it, to be added to the loss.

    Shapes: forward(embeddings float[..., dim], task) -> float[..., dim].

    Source: Wu, Zhang and Re (2020), algorithm 1, which starts from given matrices and has no penalty. Paper 107.

    Raises:
        RivalsError: dim < 1, no task or names that repeat, an unknown task, embeddings of another width.

    >>> alignment = CovarianceAlignment(2, ["news", "law"])
    >>> alignment(torch.ones(1, 2), "law"), alignment.drift().item()
    (tensor([[1., 1.]], grad_fn=<MmBackward0>), 0.0)
    """

    def __init__(self, dim: int, tasks: Sequence[str]) -> None:
        super().__init__()
        if dim < 1 or not tasks or len(set(tasks)) != len(tasks):
            raise RivalsError(f"dim must be at least 1 and tasks different names; got {dim} and {list(tasks)}")
        self.tasks = list(tasks)
        self.matrices = nn.Parameter(torch.eye(dim).repeat(len(self.tasks), 1, 1))

    def forward(self, embeddings: Tensor, task: str) -> Tensor:
        """Return the embeddings of a task, aligned."""
        if task not in self.tasks:
            raise RivalsError(f"unknown task {task!r}; the tasks are {', '.join(self.tasks)}")
        check_scores(embeddings, "embeddings")
        dim = self.matrices.shape[1]
        check_shape(embeddings, (*embeddings.shape[:-1], dim), "embeddings", self.matrices.device)
        return embeddings @ self.matrices[self.tasks.index(task)].to(embeddings.dtype)

    def drift(self) -> Tensor:
        """Return the squared distance of all matrices from the identity."""
        identity = torch.eye(self.matrices.shape[1], dtype=self.matrices.dtype, device=self.matrices.device)
        return (self.matrices - identity).square().sum()


def _root(inputs: Tensor, name: str, energy: float, energy_of: Energy, center: bool) -> Tensor:
    """Return H' [r, d]: the leading right singular vectors of the inputs times their singular values."""
    check_scores(inputs, name, ndim=2)
    check_finite(inputs, name)
    check_choice(energy_of, get_args(Energy), "energy_of")
    if not 0 < energy <= 1:
        raise RivalsError(f"energy must lie in (0, 1]; got {energy!r}")
    x = inputs.detach().to(compute_dtype(inputs))
    if center:
        x = x - x.mean(0)
    _, values, directions = torch.linalg.svd(x, full_matrices=False)
    if values.numel() == 0 or not bool(values[0] > 0):
        raise RivalsError(f"{name} is zero everywhere{' once centred' if center else ''}; its similarity is undefined")
    held = (values.square() if energy_of == "covariance" else values).cumsum(0)
    rank = int((held < energy * held[-1] * (1 - 1e-12)).sum()) + 1
    return values[:rank].unsqueeze(1) * directions[:rank]


def _similarity(first: Tensor, second: Tensor, *, normalized: bool) -> Tensor:
    cross = (first @ second.T).norm()
    if normalized:
        return cross / ((first @ first.T).norm() * (second @ second.T).norm()).sqrt()
    return cross / (first.norm() * second.norm())
