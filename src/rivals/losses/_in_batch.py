"""The readable mathematics of the contrastive losses: softmax against negatives, over lists and over embeddings."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.lists import masked_logsumexp
from rivals.losses._common import Reduction, reduce_lists
from rivals.losses._pairs import Assignment

Positives = Literal["each", "all"]
Direction = Literal["query_to_document", "document_to_query", "query_to_query", "document_to_document"]


def list_losses(
    logits: Tensor, positive: Tensor, there: Tensor, weight: Tensor | None, positives: Positives
) -> tuple[Tensor, Tensor]:
    """Return each list's loss, 0 where it has no positive, and whether it has one. All arguments are [..., C]."""
    logits, share, negative = _weighted(logits, positive, there, weight)
    positive = share > 0
    if positives == "all":
        competing = masked_logsumexp(logits, positive | negative)
        losses = competing.unsqueeze(-1) - logits
    else:
        against = masked_logsumexp(logits, negative)
        losses = -F.logsigmoid(logits - against.unsqueeze(-1))
        losses = losses.masked_fill(~negative.any(-1, keepdim=True), 0.0)
    return (share * losses.masked_fill(~positive, 0.0)).sum(-1), positive.any(-1)


def _weighted(logits: Tensor, positive: Tensor, there: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits with log w added at negatives, each positive's share of its list, and the negatives."""
    negative = there & ~positive
    share = (positive & there).to(logits.dtype)
    if weight is not None:
        negative = negative & (weight > 0)
        share = share * weight
        logits = logits + weight.masked_fill(~negative, 1.0).log()
    total = share.sum(-1, keepdim=True)
    return logits, share / total.masked_fill(total == 0, 1.0), negative


def unit_rows(vectors: Tensor) -> Tensor:
    """Return vectors of length 1; a zero vector stays zero, has cosine 0 with everything and gets no gradient."""
    length = vectors.norm(dim=-1, keepdim=True)
    zero = length == 0
    return (vectors / length.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)


def similarity(left: Tensor, right: Tensor, matmul_dtype: torch.dtype | None) -> Tensor:
    """Return left @ right', in the matmul dtype asked for, as a tensor of the dtype of `left`."""
    if matmul_dtype is None:
        return left @ right.mT
    return (left.to(matmul_dtype) @ right.to(matmul_dtype).mT).to(left.dtype)


def in_batch_loss(
    queries: Tensor,
    documents: Tensor,
    pairs: Assignment,
    *,
    negatives: Tensor | None,
    negative_mask: Tensor | None,
    temperature: float,
    directions: tuple[Direction, ...],
    by_similarity: bool,
    positives: Positives,
    reduction: Reduction,
    matmul_dtype: torch.dtype | None,
) -> Tensor:
    """The embedding form with one softmax a direction, averaged over directions. Embeddings are normalised already."""
    positive, there = pairs.dense()
    column_positive = positive
    if by_similarity:
        positive, column_positive = similarity_targets(queries, documents)
    logits = similarity(queries, documents, matmul_dtype) / temperature
    weight = None if pairs.weight is None else pairs.weight.to(logits.dtype)
    results = []
    for direction in directions:
        if direction == "document_to_query":
            columns = None if weight is None else weight.T
            losses = list_losses(logits.T, column_positive.T, there.T, columns, positives)
        else:
            row = (logits, positive, there, weight)
            if negatives is not None:
                row = _with_private(row, queries, negatives, negative_mask, temperature, matmul_dtype)
            losses = list_losses(*row, positives)
        results.append(reduce_lists(*losses, reduction))
    return results[0] if len(results) == 1 else torch.stack(results).mean()


def joint_loss(
    queries: Tensor,
    documents: Tensor,
    pairs: Assignment,
    *,
    negatives: Tensor | None,
    negative_mask: Tensor | None,
    temperature: float,
    directions: tuple[Direction, ...],
    reduction: Reduction,
    matmul_dtype: torch.dtype | None,
) -> Tensor:
    """The embedding form with one softmax per (query, positive) over the negatives of all directions."""
    positive, there = pairs.dense()
    logits = similarity(queries, documents, matmul_dtype) / temperature
    weight = None if pairs.weight is None else pairs.weight.to(logits.dtype)
    weighted, share, negative = _weighted(logits, positive, there, weight)
    row, column = (share > 0).nonzero(as_tuple=True)
    rivals: list[tuple[Tensor, Tensor]] = []  # logits [P, n] and which of them are negatives of the pair
    if "query_to_document" in directions:
        rivals.append((weighted[row], negative[row]))
        if negatives is not None:
            private, private_there = _private_logits(queries, negatives, negative_mask, temperature, matmul_dtype)
            rivals.append((private[row], private_there[row]))
    if "document_to_query" in directions:
        rivals.append((weighted.T[column], negative.T[column]))
    if "query_to_query" in directions:
        shared = positive.to(logits.dtype) @ positive.to(logits.dtype).T > 0
        apart = ~shared & there.any(1)
        rivals.append(((similarity(queries, queries, matmul_dtype) / temperature)[row], apart[row]))
    if "document_to_document" in directions:
        rivals.append(
            ((similarity(documents, documents, matmul_dtype) / temperature)[column], (there & ~positive)[row])
        )
    against, competing = (torch.cat(part, dim=1) for part in zip(*rivals, strict=True))
    losses = -F.logsigmoid(logits[row, column] - masked_logsumexp(against, competing))
    losses = losses.masked_fill(~competing.any(1), 0.0)
    total = torch.zeros_like(queries[:, 0]).index_add(0, row, share[row, column] * losses)
    return reduce_lists(total, (share > 0).any(1), reduction)


def similarity_targets(queries: Tensor, documents: Tensor) -> tuple[Tensor, Tensor]:
    """Return the targets of paper 3's `mnr_plus` as matrices [Q, Q]: one per row, and one per column."""
    with torch.no_grad():
        likeness = ((queries @ queries.T + documents @ documents.T) / 2).softmax(dim=1)
        by_row = F.one_hot(likeness.argmax(1), len(queries)).bool()
        by_column = F.one_hot(likeness.argmax(0), len(queries)).bool().T
    return by_row, by_column


def _private_logits(
    queries: Tensor,
    negatives: Tensor,
    negative_mask: Tensor | None,
    temperature: float,
    matmul_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    logits = similarity(queries.unsqueeze(1), negatives, matmul_dtype).squeeze(1) / temperature
    there = torch.ones_like(logits, dtype=torch.bool) if negative_mask is None else negative_mask
    return logits, there


def _with_private(
    row: tuple[Tensor, Tensor, Tensor, Tensor | None],
    queries: Tensor,
    negatives: Tensor,
    negative_mask: Tensor | None,
    temperature: float,
    matmul_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    logits, positive, there, weight = row
    private, private_there = _private_logits(queries, negatives, negative_mask, temperature, matmul_dtype)
    return (
        torch.cat([logits, private], dim=1),
        torch.cat([positive, torch.zeros_like(private_there)], dim=1),
        torch.cat([there, private_there], dim=1),
        None if weight is None else torch.cat([weight, torch.ones_like(private)], dim=1),
    )
