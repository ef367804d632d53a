"""Contrastive losses against a queue of past keys."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import Reduction, check_scores, check_shape
from rivals.losses._in_batch import unit_rows
from rivals.losses.contrastive import in_batch_info_nce_loss, info_nce_loss
from rivals.losses.hardness import top_similar_negatives

__all__ = [
    "FeatureQueue",
    "MomentumScores",
    "dual_view_contrast_loss",
    "momentum_contrast_loss",
    "momentum_scores",
]


class FeatureQueue(nn.Module):
    """The last `size` vectors of width `dim` that were enqueued, first in, first out; a buffer, without gradient.

    It starts empty: `rows` returns only what was enqueued, so random rows never count as negatives.

    Source:
        He et al. (2020), MoCo, section 3. Papers 34, 90, 102.

    Raises:
        RivalsError: size or dim < 1, rows of another width.

    >>> queue = FeatureQueue(size=3, dim=1)
    >>> queue.enqueue(torch.tensor([[1.0], [2.0]]))
    >>> queue.enqueue(torch.tensor([[3.0], [4.0]]))
    >>> queue.rows().flatten().tolist()
    [2.0, 3.0, 4.0]
    """

    buffer: Tensor
    count: Tensor

    def __init__(self, size: int, dim: int, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise RivalsError(f"size and dim must be at least 1; got {size!r} and {dim!r}")
        self.register_buffer("buffer", torch.zeros(size, dim, dtype=dtype))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        """Return how many rows are stored."""
        return min(int(self.count), len(self.buffer))

    @torch.no_grad()
    def enqueue(self, rows: Tensor) -> None:
        """Store rows [B, dim], the oldest making place; of more rows than fit, the last stay."""
        check_scores(rows, "rows", ndim=2)
        check_shape(rows, (len(rows), self.buffer.shape[1]), "rows", self.buffer.device)
        size = len(self.buffer)
        kept = rows[-size:] if len(rows) else rows
        first = int(self.count) + len(rows) - len(kept)
        place = torch.arange(first, first + len(kept), device=rows.device) % size
        self.buffer[place] = kept.detach().to(self.buffer.dtype)
        self.count += len(rows)

    def rows(self) -> Tensor:
        """Return a copy of the stored rows, oldest first: later enqueueing does not touch it."""
        size, count = len(self.buffer), int(self.count)
        if count <= size:
            return self.buffer[:count].clone()
        return self.buffer.roll(-(count % size), 0)


class MomentumScores(NamedTuple):
    """Scores [B, 1 + K] of each query's key (column 0) and of the queue, and the relevance that says so."""

    scores: Tensor
    relevance: Tensor


def momentum_scores(queries: Tensor, keys: Tensor, queue: Tensor, *, normalize: bool = True) -> MomentumScores:
    """Return the scores of momentum contrast in the ranking form, for any loss, filter or statistic over lists.

    Args:
        queries, keys: float[B, D], key i the positive of query i. queue: float[K, D], shared negatives, constants.
        normalize: score by cosine; otherwise by the dot product.

    Source:
        He et al. (2020), MoCo, algorithm 1. Papers 34, 90, 102.

    Raises:
        RivalsError: shapes or dtypes that do not fit.

    >>> momentum_scores(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])).scores
    tensor([[0.6000, 0.8000]])
    """
    queries, keys, queue = _checked(queries, keys, queue)
    with torch.autocast(queries.device.type, enabled=False):
        if normalize:
            queries, keys, queue = unit_rows(queries), unit_rows(keys), unit_rows(queue)
        scores = torch.cat([(queries * keys).sum(-1, keepdim=True), queries @ queue.T], 1)
    relevance = torch.zeros_like(scores)
    relevance[:, 0] = 1.0
    return MomentumScores(scores, relevance)


def momentum_contrast_loss(
    queries: Tensor,
    keys: Tensor,
    queue: Tensor,
    *,
    temperature: float = 0.2,
    keep: float | None = None,
    skip_top: int = 0,
    max_similarity: float | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
    fused: bool | Literal["auto"] = "auto",
) -> Tensor:
    """Momentum contrast: each query's key against a queue of past keys, all of them or the hardest (MoCo).

    Formula:
        L_i = -log [ e^{q_i.k_i/t} / (e^{q_i.k_i/t} + sum_u e^{q_i.u/t}) ], cosines, u over the queue; mean over i. With
        `keep`, `skip_top` or `max_similarity`, u goes over the negatives that `top_similar_negatives` leaves.

    Shapes:
        queries float[B, D], keys float[B, D], queue float[K, D] -> scalar, or float[B] with reduction="none".

    When to use:
        More negatives than a batch holds, at the price of a momentum encoder for the keys (detach them) and a
        `FeatureQueue`. Enqueue the keys after the loss, as they were before any change to them.

    Relations:
        `info_nce_loss` over `momentum_scores`; with the queue empty it is 0. With `extrapolate_positives` and
        `interpolate_negatives` before it (normalize=False): paper 34.

    Source:
        He et al. (2020), MoCo, eq. 1; "Momentum Contrastive Learning with Enhanced Negative Sampling and Hard Negative
        Filtering" (2025) for `keep`. Papers 34, 90, 102. The temperature of 0.2 is that of MoCo v2.

    Raises:
        RivalsError: shapes or dtypes that do not fit, temperature <= 0, keep with an empty queue and what
        `top_similar_negatives` raises, an unknown reduction.

    Example:
        >>> import torch
        >>> queue = torch.tensor([[0.5, 0.75**0.5], [0.1, 0.99**0.5]])
        >>> momentum_contrast_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.8, 0.6]]), queue, temperature=0.5)
        tensor(0.5852)
    """
    if keep is not None or skip_top or max_similarity is not None:
        if len(queue) == 0:
            raise RivalsError("keep, skip_top and max_similarity select from the queue, which is empty; fill it first")
        scored = momentum_scores(queries, keys, queue, normalize=normalize)
        mask = top_similar_negatives(
            *scored, keep=1.0 if keep is None else keep, skip_top=skip_top, max_similarity=max_similarity
        )
        return info_nce_loss(*scored, mask, temperature=temperature, reduction=reduction)
    queries, keys, queue = _checked(queries, keys, queue)
    # Keys of other queries do not compete: as one group they are hidden from everybody but their own query.
    group = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    return in_batch_info_nce_loss(
        queries,
        torch.cat([keys, queue]),
        query_groups=group,
        document_groups=torch.cat([group, group.new_ones(len(queue))]),
        same_group="ignore",
        temperature=temperature,
        normalize=normalize,
        reduction=reduction,
        fused=fused,
    )


def dual_view_contrast_loss(
    queries: Tensor,
    keys: Tensor,
    queue: Tensor,
    *,
    second_queries: Tensor | None = None,
    second_keys: Tensor | None = None,
    second_queue: Tensor | None = None,
    balance: float = 0.5,
    temperature: float = 0.2,
    keep: float | None = 0.5,
    skip_top: int = 0,
    max_similarity: float | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """Momentum contrast in which both views are anchors, each against its own hardest negatives of the queue.

    Formula:
        L = b M(q, k) + (1 - b) M(q', k'), M = `momentum_contrast_loss`, b = `balance`. With `second_queries` and
        `second_keys`, q' is the second view through the trained encoder and k' the first through the momentum encoder;
        without them (q', k') = (k, q), so that the second term reaches q through the positive score alone.

    Shapes:
        queries, keys, second_queries, second_keys float[B, D], queue float[K, D], second_queue float[K', D] (by
        default the same queue) -> scalar, or float[B] with reduction="none".

    When to use:
        Momentum contrast on two views when one more pass through the trained encoder is affordable; without it the second
        term is free and weak. A small `keep` hurts where much of the queue is of the query's own class.

    Relations:
        balance=1: `momentum_contrast_loss`. Both with the same views: it too.

    Source:
        "Momentum Contrastive Learning with Enhanced Negative Sampling and Hard Negative Filtering" (2025); Chen et al.
        (2021), MoCo v3, algorithm 1, for the symmetric form. Paper 90. Its method section could not be read; both
        readings of its abstract are here, and keep=0.5 is ours.

    Raises:
        RivalsError: what `momentum_contrast_loss` raises, balance outside [0, 1], one of second_queries and second_keys
        without the other.

    Example:
        >>> import torch
        >>> q, k, queue = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.8, 0.6]]), torch.tensor([[0.0, 1.0]])
        >>> dual_view_contrast_loss(q, k, queue, temperature=0.5)
        tensor(0.3485)
    """
    if not 0 <= balance <= 1:
        raise RivalsError(f"balance must lie in [0, 1]; got {balance!r}")
    if (second_queries is None) != (second_keys is None):
        raise RivalsError("second_queries and second_keys must be given together")

    def one(anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        return momentum_contrast_loss(
            anchors,
            positives,
            negatives,
            temperature=temperature,
            keep=keep,
            skip_top=skip_top,
            max_similarity=max_similarity,
            normalize=normalize,
            reduction=reduction,
        )

    again = (keys, queries) if second_queries is None or second_keys is None else (second_queries, second_keys)
    other = queue if second_queue is None else second_queue
    return balance * one(queries, keys, queue) + (1.0 - balance) * one(*again, other)


def _checked(queries: Tensor, keys: Tensor, queue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the three in the dtype to compute in; the queue without gradient."""
    check_scores(queries, "queries", ndim=2)
    check_scores(keys, "keys")
    check_shape(keys, tuple(queries.shape), "keys", queries.device)
    check_scores(queue, "queue", ndim=2)
    check_shape(queue, (len(queue), queries.shape[1]), "queue", queries.device)
    dtype = torch.promote_types(compute_dtype(queries), compute_dtype(keys))
    dtype = torch.promote_types(dtype, compute_dtype(queue))
    return queries.to(dtype), keys.to(dtype), queue.detach().to(dtype)
