"""Late interaction: every query token looks for its best match among a document's tokens (MaxSim)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rivals import lists
from rivals.errors import RivalsError
from rivals.models.encoder import TokenVectors


def max_sim(queries: Tensor, documents: Tensor, query_mask: Tensor, document_mask: Tensor) -> Tensor:
    """MaxSim of every query with every document, mean over the query's tokens.

    Formula: s(q, d) = (1 / |q|) sum_i max_j q_i . d_j over the tokens that are there (the paper sums; the mean keeps unit
    vectors' scores in [-1, 1], so one temperature and one mixing weight serve queries of any length).

    Shapes: queries [Q, T, H], documents [C, L, H], query_mask bool[Q, T], document_mask bool[C, L] -> [Q, C].

    Source: Khattab and Zaharia (2020), ColBERT, eq. 3.

    >>> q = torch.eye(2)[None]; d = torch.tensor([[[1., 0.], [0.6, 0.8]]])
    >>> max_sim(q, d, torch.ones(1, 2, dtype=bool), torch.ones(1, 2, dtype=bool))
    tensor([[0.9000]])
    """
    (q, t, h), (c, length, _) = queries.shape, documents.shape
    similarity = (queries.reshape(q * t, h) @ documents.reshape(c * length, h).T).view(q, t, c, length)
    best = similarity.masked_fill(~document_mask[None, None], -1e4).amax(-1)
    best = best.masked_fill(~query_mask[:, :, None], 0.0)
    return best.float().sum(1) / query_mask.sum(1).clamp(min=1)[:, None]


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
