"""The bridge between tables and tensors: ragged lists, padded lists, masks, stable ranks, segment reductions.

Between components a batch of lists is *ragged*: one flat array of values and `offsets` (int64[Q + 1], as in CSR), where list `q` is
`values[offsets[q]:offsets[q + 1]]`. Inside components it is *padded*: arrays [..., C] with a boolean `mask`, False where there is
no candidate. This file is the only home of the arithmetic of padding, masks and ties.

The numpy half needs numpy alone; the torch half (names with `masked_`, and `list_ranks`) imports torch on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Offsets = NDArray[np.int64]


class Lists(NamedTuple):
    """Padded lists: `scores[Q, C]` float32, `relevance[Q, C]` float32, `mask[Q, C]` bool (False = no candidate there)."""

    scores: NDArray[np.float32]
    relevance: NDArray[np.float32]
    mask: NDArray[np.bool_]


# ------------------------------------------------------------------------------------------------ ragged lists (numpy)


def as_offsets(offsets: Any, size: int, name: str = "offsets") -> Offsets:
    """Check and return offsets: int64, starting at 0, never falling, ending at `size`.

    >>> as_offsets([0, 2, 2, 5], 5).tolist()
    [0, 2, 2, 5]
    """
    checked = np.ascontiguousarray(offsets, dtype=np.int64)
    if checked.ndim != 1 or len(checked) == 0 or checked[0] != 0 or checked[-1] != size or (np.diff(checked) < 0).any():
        raise RivalsError(
            f"{name} must be one-dimensional, start at 0, never fall and end at {size}, the number of values"
        )
    return checked


def offsets_from_lengths(lengths: Any) -> Offsets:
    """Turn list lengths into offsets.

    >>> offsets_from_lengths([2, 0, 3]).tolist()
    [0, 2, 2, 5]
    """
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def segment_ids(offsets: Offsets) -> NDArray[np.int64]:
    """Return the list number of every value.

    >>> segment_ids(np.array([0, 2, 2, 5])).tolist()
    [0, 0, 2, 2, 2]
    """
    return np.repeat(np.arange(len(offsets) - 1, dtype=np.int64), np.diff(offsets))


def positions(offsets: Offsets) -> NDArray[np.int64]:
    """Return the place of every value inside its list, from 0.

    >>> positions(np.array([0, 2, 2, 5])).tolist()
    [0, 1, 0, 1, 2]
    """
    return np.arange(offsets[-1], dtype=np.int64) - np.repeat(offsets[:-1], np.diff(offsets))


def take_segments(offsets: Offsets, rows: Any) -> tuple[NDArray[np.int64], Offsets]:
    """Return the flat index of the values of lists `rows`, in that order, and the offsets of the result.

    >>> index, taken = take_segments(np.array([0, 2, 2, 5]), [2, 0])
    >>> index.tolist(), taken.tolist()
    ([2, 3, 4, 0, 1], [0, 3, 5])
    """
    rows = np.asarray(rows, dtype=np.int64)
    lengths = np.diff(offsets)[rows]
    taken = offsets_from_lengths(lengths)
    return np.repeat(offsets[:-1][rows], lengths) + positions(taken), taken


def keep_values(keep: NDArray[np.bool_], offsets: Offsets) -> Offsets:
    """Return the offsets that remain when only the values with `keep` stay.

    >>> keep_values(np.array([True, False, True, True, False]), np.array([0, 2, 2, 5])).tolist()
    [0, 1, 1, 3]
    """
    running = np.concatenate(([0], np.cumsum(keep, dtype=np.int64)))
    return running[offsets]


def pad(values: NDArray[Any], offsets: Offsets, *, fill: Any, width: int | None = None) -> NDArray[Any]:
    """Lay ragged values out as [Q, width] with `fill` where a list ends; longer lists are cut at `width`.

    >>> pad(np.array([1., 2., 3.]), np.array([0, 2, 2, 3]), fill=0).tolist()
    [[1.0, 2.0], [0.0, 0.0], [3.0, 0.0]]
    """
    mask = pad_mask(offsets, width)
    padded = np.full(mask.shape, fill, dtype=values.dtype)
    padded[mask] = values if width is None else values[positions(offsets) < width]
    return padded


def pad_mask(offsets: Offsets, width: int | None = None) -> NDArray[np.bool_]:
    """Return the mask [Q, width] that goes with `pad`.

    >>> pad_mask(np.array([0, 2, 2, 3])).tolist()
    [[True, True], [False, False], [True, False]]
    """
    lengths = np.diff(offsets)
    if width is None:
        width = int(lengths.max(initial=0))
    return np.arange(width)[None, :] < lengths[:, None]


def unpad(padded: NDArray[Any], mask: NDArray[np.bool_]) -> tuple[NDArray[Any], Offsets]:
    """Return the values under `mask`, list after list, and their offsets: the inverse of `pad`.

    >>> values, offsets = unpad(np.array([[1, 2], [0, 0], [3, 0]]), np.array([[True, True], [False, False], [True, False]]))
    >>> values.tolist(), offsets.tolist()
    ([1, 2, 3], [0, 2, 2, 3])
    """
    return padded[mask], offsets_from_lengths(mask.sum(axis=-1))


def rank_order(scores: NDArray[Any], tie_order: NDArray[Any], offsets: Offsets) -> NDArray[np.int64]:
    """Return the permutation that sorts every list by score, highest first; ties by `tie_order`, highest first.

    This is the only order in the house. With `tie_order` the lexicographic rank of the document id it is the order of
    trec_eval, so a run file read by trec_eval, ir-measures and `rivals` has the same ranks.

    >>> rank_order(np.array([.5, .9, .5]), np.array([0, 1, 2]), np.array([0, 3])).tolist()
    [1, 2, 0]
    """
    return np.lexsort((-tie_order, -scores, segment_ids(offsets)))


def is_rank_order(scores: NDArray[Any], tie_order: NDArray[Any], offsets: Offsets) -> bool:
    """Return whether every list stands in the order of `rank_order` already; a hundredth of the price of sorting.

    >>> is_rank_order(np.array([.9, .5, .5]), np.array([0, 2, 1]), np.array([0, 3]))
    True
    """
    right = scores[:-1] > scores[1:]
    right |= (scores[:-1] == scores[1:]) & (tie_order[:-1] > tie_order[1:])
    starts = offsets[1:-1]
    right[starts[(starts > 0) & (starts < len(scores))] - 1] = True
    return bool(right.all())


def segment_reduce(ufunc: np.ufunc, values: NDArray[Any], offsets: Offsets, empty: float = 0) -> NDArray[Any]:
    """Reduce every list with a ufunc (np.add, np.maximum, ...); empty lists give `empty`.

    >>> segment_reduce(np.add, np.array([1, 2, 3]), np.array([0, 2, 2, 3])).tolist()
    [3, 0, 3]
    """
    lengths = np.diff(offsets)
    reduced = np.full(len(lengths), empty, dtype=values.dtype)
    filled = lengths > 0
    if filled.any():
        reduced[filled] = ufunc.reduceat(values, offsets[:-1][filled])
    return reduced


def find_pairs(
    offsets: Offsets, members: NDArray[Any], list_rows: NDArray[Any], wanted: NDArray[Any]
) -> NDArray[np.int64]:
    """Return where `wanted[i]` stands among the members of list `list_rows[i]` (flat index), or -1.

    >>> find_pairs(np.array([0, 2, 3]), np.array([7, 4, 7]), np.array([0, 0, 1, 1]), np.array([4, 5, 7, 4])).tolist()
    [1, -1, 2, -1]
    """
    found = np.full(len(wanted), -1, dtype=np.int64)
    if len(members) == 0 or len(wanted) == 0:
        return found
    if len(wanted) > 4 * len(members) and (list_rows[1:] >= list_rows[:-1]).all():
        asked = np.searchsorted(list_rows, np.arange(len(offsets)))  # where each list's questions begin
        owner = segment_ids(offsets)
        sizes = np.diff(asked)[owner]
        if sizes.sum() <= 2 * len(wanted):  # few members a list: compare each with all that is asked of its list
            index, starts = take_segments(asked, owner)
            equal = np.flatnonzero(wanted[index] == np.repeat(members, sizes))[
                ::-1
            ]  # so that the first of equals stays
            found[index[equal]] = np.searchsorted(starts, equal, side="right") - 1
            return found
    span = np.int64(max(int(members.max()), int(wanted.max())) + 1)
    keys = segment_ids(offsets) * span + members
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    queries = list_rows.astype(np.int64) * span + wanted
    place = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
    return np.where(keys[place] == queries, order[place], -1)


# ------------------------------------------------------------------------------------------------ padded lists (torch)


def compute_dtype(scores: Tensor) -> torch.dtype:
    """Return the dtype to compute in: float32 for half precision and integers, else the tensor's own.

    >>> import torch
    >>> compute_dtype(torch.zeros(1, dtype=torch.bfloat16))
    torch.float32
    """
    import torch

    return scores.dtype if scores.dtype in (torch.float32, torch.float64) else torch.float32


def masked_logsumexp(scores: Tensor, mask: Tensor | None, dim: int = -1) -> Tensor:
    """Return log sum exp over the candidates that are there; a list without any gives 0 with zero gradient.

    >>> import torch
    >>> masked_logsumexp(torch.zeros(1, 3), torch.tensor([[True, True, False]])).exp()
    tensor([2.])
    """
    if mask is None:
        return scores.logsumexp(dim)
    lowest = float("-inf")
    filled = scores.masked_fill(~mask, lowest)
    empty = ~mask.any(dim, keepdim=True)
    return filled.masked_fill(empty, 0.0).logsumexp(dim).masked_fill(empty.squeeze(dim), 0.0)


def masked_log_softmax(scores: Tensor, mask: Tensor | None, dim: int = -1) -> Tensor:
    """Return log-probabilities over the candidates that are there, and 0 where there is none (so products stay finite).

    >>> import torch
    >>> masked_log_softmax(torch.zeros(1, 3), torch.tensor([[True, True, False]]))
    tensor([[-0.6931, -0.6931,  0.0000]])
    """
    if mask is None:
        return scores.log_softmax(dim)
    safe = scores.masked_fill(~mask, 0.0)
    return (safe - masked_logsumexp(scores, mask, dim).unsqueeze(dim)).masked_fill(~mask, 0.0)


def masked_mean(values: Tensor, mask: Tensor | None, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Return the mean over the entries that are there; nothing there gives 0 with zero gradient.

    >>> import torch
    >>> masked_mean(torch.tensor([1., 2., 9.]), torch.tensor([True, True, False]))
    tensor(1.5000)
    """
    if mask is None:
        return values.mean() if dim is None else values.mean(dim)
    kept = values.masked_fill(~mask, 0.0)
    if dim is None:
        return kept.sum() / mask.sum().clamp(min=1)
    return kept.sum(dim) / mask.sum(dim).clamp(min=1)


def list_ranks(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the 0-based rank of every candidate by score, highest first; ties keep their order; absent ones come last.

    >>> import torch
    >>> list_ranks(torch.tensor([.5, .9, .5]))
    tensor([1, 0, 2])
    """
    import torch

    keyed = scores if mask is None else scores.masked_fill(~mask, float("-inf"))
    order = keyed.argsort(dim=-1, descending=True, stable=True)
    ranks = torch.empty_like(order)
    return ranks.scatter_(-1, order, torch.arange(order.shape[-1], device=order.device).expand_as(order))
