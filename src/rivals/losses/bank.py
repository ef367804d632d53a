"""Contrastive loss against a bank that holds a stored vector of every document."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import Reduction, check_mask, check_positive, check_scores, check_shape
from rivals.losses._in_batch import unit_rows
from rivals.losses.contrastive import in_batch_info_nce_loss, info_nce_loss

__all__ = ["FeatureBank", "bank_contrastive_loss"]


class FeatureBank(nn.Module):
    """One stored vector for every document or entity, by its row; a buffer, without gradient.

    Fill it once with a frozen encoder's vectors, or keep it fresh with `update` as batches pass.

    Source:
        Feng et al. (2024), SPN4CIR, section 3.4; Zhang et al. (2023), HaSa, for refreshing in place. Papers 51, 35.

    Raises:
        RivalsError: vectors that are not a floating-point [M, D], rows of another shape.

    >>> bank = FeatureBank(torch.zeros(3, 1))
    >>> bank.update(torch.tensor([2, 0]), torch.tensor([[5.0], [7.0]]))
    >>> bank.rows().flatten().tolist()
    [7.0, 0.0, 5.0]
    """

    buffer: Tensor

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        check_scores(vectors, "vectors", ndim=2)
        self.register_buffer("buffer", vectors.detach().clone())

    def __len__(self) -> int:
        """Return how many rows are stored."""
        return len(self.buffer)

    @torch.no_grad()
    def update(self, index: Tensor, rows: Tensor) -> None:
        """Replace the rows int64[B] by new vectors [B, D]; of a row given twice, one of the two stays."""
        check_scores(rows, "rows", ndim=2)
        check_shape(rows, (len(index), self.buffer.shape[1]), "rows", self.buffer.device)
        if index.device.type == "cpu" and ((index < 0) | (index >= len(self.buffer))).any():
            raise RivalsError(f"index must lie in 0..{len(self.buffer) - 1}, the rows of the bank")
        self.buffer[index] = rows.detach().to(self.buffer.dtype)

    def rows(self) -> Tensor:
        """Return a copy of all rows: later updates do not touch it."""
        return self.buffer.clone()


def bank_contrastive_loss(
    queries: Tensor,
    bank: Tensor,
    positive_rows: Tensor,
    mask: Tensor | None = None,
    *,
    num_negatives: int | None = None,
    generator: torch.Generator | None = None,
    temperature: float = 0.02,
    normalize: bool = True,
    reduction: Reduction = "mean",
    fused: bool | Literal["auto"] = "auto",
) -> Tensor:
    """InfoNCE of queries against a frozen bank of all documents, or a sample of it for each query.

    Formula:
        L_b = -log [ e^{s_bp/t} / sum_m e^{s_bm/t} ], s = (query_b / |query_b|) . bank_m (without the division with
        normalize=False), p = positive_rows[b], m over the bank rows that are not masked; mean over b. With
        `num_negatives`, m goes over p and that many others, drawn uniformly without replacement for each query.

    Shapes:
        queries float[B, D], bank float[M, D] (unit rows for cosines), positive_rows int64[B], mask bool[B, M] (False: a
        known false negative; the positive itself always counts) -> scalar, or float[B] with reduction="none".

    When to use:
        A second stage: freeze the document encoder, encode every document once into unit rows, and train the query side
        against all of them; minutes instead of hours. The bank is taken as it is and carries no gradient.

    Relations:
        `in_batch_info_nce_loss` with the bank for documents and `positive_columns`; a bank of the batch's own documents
        gives the in-batch loss.

    Source:
        Feng et al. (2024), SPN4CIR, section 3.4, stage 2. Paper 51.

    Raises:
        RivalsError: shapes or dtypes that do not fit, positive_rows outside the bank, temperature <= 0, num_negatives
        outside 1..M - 1 or without a generator, an unknown reduction.

    Example:
        >>> import torch
        >>> bank, query = torch.tensor([[0.9, 0.19**0.5], [0.5, 0.75**0.5], [0.1, 0.99**0.5]]), torch.tensor([[1.0, 0.0]])
        >>> bank_contrastive_loss(query, bank, torch.tensor([0]), temperature=0.1)
        tensor(0.0185)

        O(B M D), without a [B, M] matrix in the fused version; a sample needs one of random numbers.
    """
    check_scores(bank, "bank", ndim=2)
    check_shape(positive_rows, (len(queries),), "positive_rows", queries.device)
    if positive_rows.dtype != torch.int64:
        raise RivalsError(f"positive_rows must be int64; got {positive_rows.dtype}")
    if positive_rows.device.type == "cpu" and ((positive_rows < 0) | (positive_rows >= len(bank))).any():
        raise RivalsError(f"positive_rows must lie in 0..{len(bank) - 1}, the rows of the bank")
    everyone = torch.arange(len(queries), device=queries.device)
    if mask is not None:
        check_mask(mask, queries.new_empty(()).expand(len(queries), len(bank)), "mask")
        mask = mask.clone()
        mask[everyone, positive_rows] = True
    check_scores(queries, "queries", ndim=2)
    check_shape(bank, (len(bank), queries.shape[1]), "bank", queries.device)
    dtype = torch.promote_types(compute_dtype(queries), compute_dtype(bank))
    queries, bank = queries.to(dtype), bank.detach().to(dtype)
    if normalize:
        queries = unit_rows(queries)
    if num_negatives is None:
        return in_batch_info_nce_loss(
            queries,
            bank,
            mask=mask,
            positive_columns=positive_rows,
            temperature=temperature,
            normalize=False,
            reduction=reduction,
            fused=fused,
        )
    check_positive(temperature, "temperature")
    if not 1 <= num_negatives < max(len(bank), 2):
        raise RivalsError(
            f"num_negatives must lie in 1..{len(bank) - 1}, the other rows of the bank; got {num_negatives!r}"
        )
    if generator is None:
        raise RivalsError("num_negatives needs a generator to draw the negatives with")
    keys = torch.rand(len(queries), len(bank), generator=generator, device=generator.device).to(bank.device)
    keys = (keys if mask is None else keys.masked_fill(~mask, -1.0)).scatter(1, positive_rows[:, None], -1.0)
    found, drawn = keys.topk(min(num_negatives, len(bank)), dim=1)
    columns = torch.cat([positive_rows[:, None], drawn], 1)
    there = torch.cat([torch.ones_like(found[:, :1], dtype=torch.bool), found >= 0], 1)
    with torch.autocast(queries.device.type, enabled=False):
        scores = (bank[columns] @ queries.unsqueeze(-1)).squeeze(-1)
    relevance = torch.zeros_like(scores)
    relevance[:, 0] = 1.0
    return info_nce_loss(scores, relevance, there, temperature=temperature, reduction=reduction)
