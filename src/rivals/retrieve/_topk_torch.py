"""Exact top-k with torch alone: for GPUs, and for CPUs without the compiler. Same lists as the compiled kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rivals.errors import RivalsError

if TYPE_CHECKING:
    from rivals.retrieve._topk import PreparedDocuments

_NONE = torch.iinfo(torch.int64).max
_GATHER = 1 << 26  # values gathered at once for rescoring


def search(
    queries: NDArray[np.float32],
    documents: PreparedDocuments,
    k: int,
    order: NDArray[np.int64] | None,
    device: str,
    advance: Callable[[float], None] | None,
) -> NDArray[np.int64]:
    """Return the sorted keys of the k best documents of each query, int64[Q, k] (see `_topk.unpack`).

    The product runs in float32, or in what torch makes of float32 where TF32 or bfloat16 are allowed for it; documents
    within the rounding bound of the k-th best are rescored in float32, as on the CPU.
    """
    from rivals.retrieve._topk import check_norms

    try:
        place = torch.device(device)
        everything = torch.from_numpy(queries).to(place)
    except (RuntimeError, AssertionError) as error:
        raise RivalsError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from None
    rows, size = (128, 32_768) if place.type == "cpu" else (2048, 65_536)
    lost = 2.0**-8 if _reduced(place) else 0.0
    norm = everything.norm(dim=1)
    best = torch.full((len(queries), k), _NONE, dtype=torch.int64, device=place)
    for start in range(0, len(documents), size):
        vectors = np.ascontiguousarray(documents.vectors[start : start + size], dtype=np.float32)
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        check_norms(vectors, lengths, start, "documents")
        block = torch.from_numpy(vectors).to(place)
        ranks = np.arange(start, start + len(vectors)) if order is None else order[start : start + len(vectors)]
        placed = torch.from_numpy(np.ascontiguousarray(ranks)).to(place)
        bound = norm * float(lengths.max()) * (queries.shape[1] * 2.0**-22 + lost)
        for first in range(0, len(queries), rows):
            part = slice(first, first + rows)
            best[part] = _fold(everything[part], block, placed, best[part], bound[part], k)
            if advance is not None:
                advance(len(best[part]) * len(vectors))
    return best.cpu().numpy()


def _reduced(place: torch.device) -> bool:
    if torch.get_float32_matmul_precision() != "highest":
        return True
    return place.type == "cuda" and torch.backends.cuda.matmul.allow_tf32


def _fold(queries: Tensor, block: Tensor, ranks: Tensor, best: Tensor, error: Tensor, k: int) -> Tensor:
    """Merge one block into the lists of a tile of queries."""
    approximate = queries @ block.T
    size = block.shape[0]
    width = min(size, k + max(32, k // 4))
    values, index = approximate.topk(width, dim=1)
    low = values[:, min(k, size) - 1] - 2 * error if size >= k else torch.full_like(error, -torch.inf)
    low = torch.where(best[:, -1] == _NONE, low, torch.maximum(low, scores_of(best[:, -1]) - error))
    if width < size and bool((values[:, -1] >= low).any()):
        width = int((approximate >= low[:, None]).sum(dim=1).max())
        values, index = approximate.topk(width, dim=1)
    del approximate
    step = max(1, _GATHER // (width * block.shape[1]))
    exact = torch.cat(
        [(queries[i : i + step, None] * block[index[i : i + step]]).sum(-1) for i in range(0, len(queries), step)]
    )
    keys = torch.where(values >= low[:, None], _keys(exact, ranks[index]), _NONE)
    return torch.cat([best, keys], dim=1).topk(k, dim=1, largest=False, sorted=True).values


def _keys(scores: Tensor, ranks: Tensor) -> Tensor:
    bits = (scores + 0.0).view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return ((~ordered).to(torch.int64) << 32) | ranks


def scores_of(keys: Tensor) -> Tensor:
    """Return the scores in the upper half of keys."""
    ordered = (~(keys >> 32)).to(torch.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
