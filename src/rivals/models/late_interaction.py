"""Late interaction: every query token looks for its best match among a document's tokens (MaxSim)."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rivals import lists
from rivals.errors import RivalsError
from rivals.models.encoder import TokenVectors

MaxSimReduction = Literal["mean", "sum"]


def max_sim(
    queries: Tensor,
    documents: Tensor,
    query_mask: Tensor,
    document_mask: Tensor,
    *,
    reduction: MaxSimReduction = "mean",
) -> Tensor:
    """MaxSim of every query with every document, or with the documents of its own list; mean over the query's tokens.

    Formula: s(q, d) = (1 / |q|) sum_i max_j q_i . d_j over the tokens that are there (the paper sums, as reduction="sum" does;
    the mean keeps unit vectors' scores in [-1, 1], so one temperature and one mixing weight serve queries of any length).

    Shapes: queries [Q, T, H], documents [C, L, H], query_mask bool[Q, T], document_mask bool[C, L] -> [Q, C]; with a list of its
    own for every query, documents [Q, C, L, H] and document_mask bool[Q, C, L] -> [Q, C].

    Source: Khattab and Zaharia (2020), ColBERT, eq. 3. Paper 31.

    >>> q = torch.eye(2)[None]; d = torch.tensor([[[1., 0.], [0.6, 0.8]]])
    >>> max_sim(q, d, torch.ones(1, 2, dtype=bool), torch.ones(1, 2, dtype=bool))
    tensor([[0.9000]])
    """
    similarity = _token_similarity(queries, documents)
    there = document_mask[:, None] if documents.ndim == 4 else document_mask[None, None]
    return _over_query(similarity.masked_fill(~there, -1e4).amax(-1), query_mask, reduction)


def unit_max_sim(
    queries: Tensor,
    documents: Tensor,
    query_mask: Tensor,
    unit_ids: Tensor,
    units: int,
    *,
    reduction: MaxSimReduction = "mean",
) -> tuple[Tensor, Tensor]:
    """MaxSim of every query with every unit (sentence, proposition) of every document, and which units there are.

    Formula: s(q, u) = (1 / |q|) sum_i max_{j in u} q_i . d_j; reduction="sum" leaves the division out. One product of token
    vectors serves all units. `query_mask` may cover a part of the query alone.

    Shapes: queries [Q, T, H], documents [C, L, H] or [Q, C, L, H], query_mask bool[Q, T], unit_ids int[C, L] or [Q, C, L], the
    unit of every token in 0..units - 1 or -1 for none -> scores [Q, C, units], 0 where there is no such unit, and bool of the
    same shape (its first dimension 1 where all queries share the documents).

    Source: Reddy et al. (2024), AGRaME, section 2. Paper 31.

    Raises:
        RivalsError: a unit outside -1..units - 1.

    >>> q = torch.eye(2)[None]; d = torch.tensor([[[1., 0.], [0.6, 0.8]]])
    >>> unit_max_sim(q, d, torch.ones(1, 2, dtype=bool), torch.tensor([[0, 1]]), 2)[0]
    tensor([[[0.5000, 0.7000]]])
    """
    if unit_ids.numel() and not (int(unit_ids.min()) >= -1 and int(unit_ids.max()) < units):
        raise RivalsError(f"unit_ids must lie in -1..{units - 1}; found {int(unit_ids.min())}..{int(unit_ids.max())}")
    similarity = _token_similarity(queries, documents)
    place = (unit_ids if documents.ndim == 4 else unit_ids[None]).long()
    place = place.masked_fill(place < 0, units)  # a last place for tokens of no unit
    best = similarity.new_full((*similarity.shape[:3], units + 1), -1e4)
    best = best.scatter_reduce(-1, place[:, None].expand_as(similarity), similarity, "amax")[..., :units]
    there = torch.zeros((*place.shape[:2], units + 1), dtype=torch.bool, device=place.device)
    there = there.scatter(-1, place, True)[..., :units]
    best = best.masked_fill(~there[:, None], 0.0).flatten(2)
    return _over_query(best, query_mask, reduction).view(len(queries), -1, units), there


def any_granularity_score(unit: Tensor, passage: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Return unit + alpha * passage: the scores of units of different passages, made comparable by their passages' scores.

    Shapes: unit float[..., U], passage float[...] -> float[..., U]. Inside one passage the order is that of `unit`.

    Source: Reddy et al. (2024), AGRaME, section 2; alpha is not given there. Paper 31.

    Raises:
        RivalsError: shapes that do not fit. An alpha below 0, which favours units of bad passages, warns.

    >>> any_granularity_score(torch.tensor([[0.5, 0.25]]), torch.tensor([0.25]))
    tensor([[0.7500, 0.5000]])
    """
    if unit.shape[:-1] != passage.shape:
        raise RivalsError(
            f"unit scores {tuple(unit.shape)} need passage scores {tuple(unit.shape[:-1])}; got {tuple(passage.shape)}"
        )
    if alpha < 0:
        warnings.warn(f"alpha is {alpha}: units of passages that score low come first", stacklevel=2)
    return unit + alpha * passage[..., None]


def _token_similarity(queries: Tensor, documents: Tensor) -> Tensor:
    """Return q_i . d_j, [Q, T, C, L]."""
    if documents.ndim == 4:
        return torch.einsum("qth,qclh->qtcl", queries, documents)
    (q, t, h), (c, length, _) = queries.shape, documents.shape
    return (queries.reshape(q * t, h) @ documents.reshape(c * length, h).T).view(q, t, c, length)


def _over_query(best: Tensor, query_mask: Tensor, reduction: MaxSimReduction) -> Tensor:
    """Sum [Q, T, N] over the query tokens that are there, or take their mean."""
    if reduction not in ("mean", "sum"):
        raise RivalsError(f"reduction is {reduction!r}; use 'mean' or 'sum'")
    total = best.masked_fill(~query_mask[:, :, None], 0.0).to(torch.promote_types(best.dtype, torch.float32)).sum(1)
    return total if reduction == "sum" else total / query_mask.sum(1).clamp(min=1)[:, None]


def max_sim_pairs(
    queries: TokenVectors,
    documents: TokenVectors,
    query_row: NDArray[np.int64],
    document_row: NDArray[np.int64],
    *,
    device: torch.device | str = "cpu",
    block: int = 64,
) -> NDArray[np.float32]:
    """MaxSim of listed pairs (query_row[i], document_row[i]), float32[m]; pairs are worked off query by query.

    A query or document without tokens scores 0.
    """
    scores = np.zeros(len(query_row), np.float32)
    order = np.argsort(query_row, kind="stable")
    rows, starts = np.unique(query_row[order], return_index=True)
    ends = np.append(starts, len(order))[1:]
    lengths = np.diff(documents.offsets)
    for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True):
        tokens = queries.vectors[queries.offsets[row] : queries.offsets[row + 1]]
        if not len(tokens):
            continue
        query = torch.from_numpy(np.ascontiguousarray(tokens)).to(device).float()
        for at in range(start, end, block):
            places = order[at : min(at + block, end)]
            wanted = document_row[places]
            index, offsets = lists.take_segments(documents.offsets, wanted)
            if not len(index):
                continue
            flat = torch.from_numpy(documents.vectors[index]).to(device).float()
            best = (flat @ query.T).cpu().numpy()
            filled = lengths[wanted] > 0
            peaks = np.zeros((len(wanted), best.shape[1]), np.float32)
            peaks[filled] = np.maximum.reduceat(best, offsets[:-1][filled], axis=0)
            scores[places] = peaks.mean(axis=1)
    return scores


def sentence_attention_score(
    candidates: Tensor, sentences: Tensor, mask: Tensor | None = None, *, normalize: bool = True
) -> Tensor:
    """Return how much of a document every candidate covers, float[..., C]: its mean cosine, weighted by the cosine itself.

    f_c = sum_k a_ck^2 / sum_k a_ck with a_ck the cosine of candidate c (`candidates` float[..., C, D]) and sentence k
    (`sentences` float[..., K, D], `mask` bool[..., K]). Where the cosines sum to nearly 0 it is their plain mean. With
    normalize=False the rows are taken to be unit vectors already.

    Source: Sul and Choi (2023), BalSum, eq. 3 (paper 36); the guard is ours.

    Raises:
        RivalsError: vectors of different widths.

    >>> sentence_attention_score(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
    tensor([0.8500])
    """
    if candidates.shape[-1] != sentences.shape[-1]:
        raise RivalsError(
            f"candidates are {candidates.shape[-1]} wide and sentences {sentences.shape[-1]}; they must agree"
        )
    there = torch.ones(sentences.shape[:-1], dtype=torch.bool, device=sentences.device) if mask is None else mask
    sentences = sentences.masked_fill(~there.unsqueeze(-1), 0.0)
    if normalize:
        candidates, sentences = (torch.nn.functional.normalize(side, dim=-1) for side in (candidates, sentences))
    cosine = candidates @ sentences.mT
    total, number = cosine.sum(-1), there.sum(-1, keepdim=True).clamp(min=1)
    small = total.abs() < 1e-6
    return torch.where(small, total / number, cosine.square().sum(-1) / total.masked_fill(small, 1.0))
