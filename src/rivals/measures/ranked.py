"""Put lists in rank order once, so that every measure of them shares one sort.

`rank_lists` is the door of this room: it checks the arrays, sorts each list by score, and returns `RankedLists`, from
which each measure reads the relevance at rank 1, 2, 3, ... Two sorts are here: `score_order`, the readable one (two
stable sorts, any dtype and device), and a fast one for float32 on a CPU, which packs score and position into one 64-bit
key so that a plain vectorised sort of whole numbers is also stable. Tests compare them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rivals.errors import RivalsError

Array: TypeAlias = "Tensor | NDArray[Any]"
"""What measures take: torch tensors or numpy arrays; the result is of the kind of `scores`."""

_BLOCK = 1 << 16  # values sorted at a time, so that keys stay in the cache


@dataclass(frozen=True)
class RankedLists:
    """L lists in rank order: `relevance[L, D]` holds the relevance of the documents at rank 1..D, 0 past a list's end.

    NaN relevance means "not judged": not relevant, and counted by `judged`. `everything[L, C]` is the relevance of all
    candidates in the order given (0 where masked), `count[L]` how many candidates a list has, `shape` the leading shape
    of the result.

    >>> lists = rank_lists(np.array([.1, .9]), np.array([1, 0]))
    >>> lists.relevance.tolist(), lists.output(lists.total(1).double()).tolist()
    ([[0, 1]], 1.0)
    """

    relevance: Tensor
    everything: Tensor
    count: Tensor
    shape: torch.Size
    numpy: bool
    _totals: dict[float, Tensor] = field(default_factory=dict)

    def top(self, k: int | None) -> Tensor:
        """Return the relevance at the first `k` ranks (fewer where the lists are shorter), [L, min(k, D)]."""
        return self.relevance if k is None else self.relevance[:, :k]

    def total(self, relevance_level: float) -> Tensor:
        """Return how many relevant documents each list holds, int64[L]."""
        if relevance_level not in self._totals:
            self._totals[relevance_level] = (self.everything >= relevance_level).sum(-1)
        return self._totals[relevance_level]

    def given(self, values: Any, name: str) -> Tensor:
        """Bring a per-list argument of shape [...] or [..., R] to this device as [L] or [L, R]."""
        tensor = as_tensor(values, name, self.relevance.device)
        if tensor.shape == self.shape:
            return tensor.reshape(-1)
        if tensor.dim() == len(self.shape) + 1 and tensor.shape[:-1] == self.shape:
            return tensor.reshape(len(self.count), tensor.shape[-1])
        raise RivalsError(
            f"{name} has shape {tuple(tensor.shape)}; the lists have shape {tuple(self.shape)}, it must begin with that"
        )

    def output(self, values: Tensor) -> Any:
        """Return values [L] in the leading shape, as numpy if numpy came in."""
        shaped = values.reshape(self.shape)
        return shaped.numpy() if self.numpy else shaped


def rank_lists(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    depth: int | None = None,
    ranked: bool = False,
    order: Callable[[Tensor, Tensor | None], Tensor] | None = None,
) -> RankedLists:
    """Sort every list by score, highest first, and return the relevance in that order.

    Shapes: scores[..., C], relevance[..., C], mask[..., C] -> `RankedLists`. Equal scores keep their order in the list:
    a `Run` holds its rows by score and then by document id, both descending, as trec_eval sorts them, so ranks agree
    with trec_eval's.

    Args:
        scores: higher is better; any real dtype.
        relevance: grades; below the relevance level is not relevant, negative gains nothing, NaN is not judged.
        mask: bool, False where there is no candidate.
        depth: how many ranks are wanted; None is all.
        ranked: the lists are already in rank order and their absent candidates last; scores are then not read.
        order: the sort to use instead of the one chosen here.

    Raises:
        RivalsError: shapes differ, a score of a present candidate is NaN, a relevance is infinite, the mask is not
            bool.

    >>> rank_lists(np.array([[.2, .7, .2]]), np.array([[1, 2, 3]])).relevance.tolist()
    [[2, 1, 3]]
    """
    scores, relevance, mask, shape, is_numpy = _opened(scores, relevance, mask)
    lists, width = scores.shape
    if mask is None:
        count = torch.full((lists,), width, dtype=torch.int64, device=scores.device)
    else:
        count = mask.sum(-1)
    depth = width if depth is None else min(depth, width)
    if ranked:
        if mask is not None and (mask[:, 1:] & ~mask[:, :-1]).any():
            raise RivalsError(
                "ranked=True needs the absent candidates last in every list; sort the lists or leave ranked out"
            )
        return RankedLists(relevance[:, :depth], relevance, count, shape, is_numpy)
    _check_scores(scores, mask)
    if order is not None:
        places = order(scores, mask)[:, :depth]
    elif scores.device.type == "cpu" and scores.dtype in (torch.float32, torch.float16, torch.bfloat16):
        places = _packed_order(scores.float(), mask, depth)
    else:
        places = score_order(scores, mask)[:, :depth]
    return RankedLists(relevance.gather(1, places), relevance, count, shape, is_numpy)


@dataclass(frozen=True)
class PlainLists:
    """L lists as they came, for measures that read the scores themselves: all [L, C], 0 where nothing is.

    `scores` and `relevance` are float64 (float32 where a device has no float64), `mask` is bool, `shape` the leading
    shape of the result.
    """

    scores: Tensor
    relevance: Tensor
    mask: Tensor
    shape: torch.Size
    numpy: bool

    def output(self, values: Tensor) -> Any:
        """Return values [L] in the leading shape, as numpy if numpy came in."""
        return self.whole(values.reshape(self.shape))

    def whole(self, values: Tensor) -> Any:
        """Return values of any shape as they are, as numpy if numpy came in."""
        return values.numpy() if self.numpy else values


def plain_lists(
    scores: Array, relevance: Array, mask: Array | None = None, *, unjudged: Literal["absent", "zero"] = "absent"
) -> PlainLists:
    """Check the three arrays and return them as `PlainLists`; relevance NaN (not judged) is left out or made 0.

    Raises:
        RivalsError: as `rank_lists`.

    >>> plain_lists(np.array([.2, .7]), np.array([1, np.nan])).mask.tolist()
    [[True, False]]
    """
    scores, relevance, mask, shape, is_numpy = _opened(scores, relevance, mask)
    _check_scores(scores, mask)
    present = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    if relevance.is_floating_point():
        present = present & ~relevance.isnan() if unjudged == "absent" else present
        relevance = relevance.nan_to_num(nan=0.0)
    absent = ~present
    return PlainLists(
        precise(scores).masked_fill(absent, 0), precise(relevance).masked_fill(absent, 0), present, shape, is_numpy
    )


def precise(values: Tensor) -> Tensor:
    """Return values as float64, or float32 on a device without it.

    >>> precise(torch.tensor([1])).dtype
    torch.float64
    """
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def score_order(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the places of the candidates of each list by score, highest first, ties in their order, absent ones last.

    The readable version: a stable sort by score, then a stable sort by presence. Shapes: [L, C] -> int64[L, C].

    >>> score_order(torch.tensor([[1., 3., 3.]]), torch.tensor([[True, False, True]])).tolist()
    [[2, 0, 1]]
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    if mask is None:
        return order
    absent = (~mask).gather(-1, order).to(torch.uint8)
    return order.gather(-1, absent.argsort(dim=-1, stable=True))


def _packed_order(scores: Tensor, mask: Tensor | None, depth: int) -> Tensor:
    """The first `depth` columns of `score_order`, through keys: score bits above, inverted position below."""
    lists, width = scores.shape
    values = scores.numpy()
    present = None if mask is None else mask.numpy()
    places = np.empty((lists, depth), dtype=np.int64)
    positions = ~np.arange(width, dtype=np.int64) & 0xFFFFFFFF
    step = max(1, _BLOCK // max(width, 1))
    for start in range(0, lists, step):
        block = slice(start, start + step)
        bits = (values[block] + np.float32(0)).view(np.int32)  # + 0 makes one zero of -0.0 and 0.0
        ordered = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))  # whole numbers in the order of the floats
        if present is not None:
            ordered = np.where(present[block], ordered, np.int32(-0x80000000))
        keys = (ordered.astype(np.int64) << 32) | positions
        np.bitwise_and(~largest(keys, depth), 0xFFFFFFFF, out=places[block])
    return torch.from_numpy(places)


def largest(values: NDArray[Any], depth: int) -> NDArray[Any]:
    """Return the `depth` largest values of each row, highest first; selects before sorting where that pays.

    >>> largest(np.array([[3, 9, 4]]), 2).tolist()
    [[9, 4]]
    """
    width = values.shape[-1]
    if width >= 512 and depth * 8 <= width:
        values = np.partition(values, width - depth, axis=-1)[..., width - depth :]
    return np.sort(values, axis=-1)[..., ::-1][..., :depth]


def _opened(
    scores: Array, relevance: Array, mask: Array | None
) -> tuple[Tensor, Tensor, Tensor | None, torch.Size, bool]:
    """Check the three arrays and bring them to [L, C], relevance 0 where masked; the leading shape; was it numpy."""
    is_numpy = not isinstance(scores, Tensor)
    scores = as_tensor(scores, "scores", None)
    relevance = as_tensor(relevance, "relevance", scores.device)
    if scores.dim() == 0:
        raise RivalsError("scores must have at least one dimension, the candidates of one query")
    if relevance.shape != scores.shape:
        raise RivalsError(
            f"relevance has shape {tuple(relevance.shape)} and scores {tuple(scores.shape)}; they must be equal"
        )
    shape, width = scores.shape[:-1], scores.shape[-1]
    lists = shape.numel()
    scores, relevance = scores.reshape(lists, width), relevance.reshape(lists, width)
    if mask is not None:
        mask = as_tensor(mask, "mask", scores.device)
        if mask.dtype != torch.bool or mask.shape != (*shape, width):
            raise RivalsError(
                f"mask must be bool of shape {(*shape, width)}, not {mask.dtype} of shape {tuple(mask.shape)}"
            )
        mask = mask.reshape(lists, width)
        relevance = relevance.masked_fill(~mask, 0)
    if _suspect(relevance) and relevance.isinf().any():
        raise RivalsError("relevance holds an infinite value; grades must be finite (NaN means not judged)")
    return scores, relevance, mask, shape, is_numpy


def _check_scores(scores: Tensor, mask: Tensor | None) -> None:
    """Raise if the score of a present candidate is NaN."""
    if _suspect(scores):
        missing = int((scores.isnan() if mask is None else scores.isnan() & mask).sum())
        if missing:
            raise RivalsError(f"{missing} of the scores are NaN; mask those candidates or mend the scorer")


def _suspect(values: Tensor) -> bool:
    """Whether values may hold NaN or an infinity: one cheap sum, which is finite in most cases, settles it."""
    return values.is_floating_point() and not bool(values.sum().isfinite())


def as_tensor(values: Any, name: str, device: torch.device | None) -> Tensor:
    """Return values as a detached tensor: real numbers only, bool stays bool for a mask and is 0 or 1 otherwise.

    >>> as_tensor([1.0, 2.0], "scores", None).dtype
    torch.float64
    """
    if not isinstance(values, Tensor):
        array = np.asarray(values)
        if array.dtype.kind not in "bfiu":
            raise RivalsError(f"{name} must be an array of numbers, not of {array.dtype}")
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            array = array.astype(np.int64)
        values = torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    elif values.is_complex():
        raise RivalsError(f"{name} must be real numbers, not {values.dtype}")
    if values.dtype == torch.bool and name != "mask" and not name.endswith("_mask"):
        values = values.to(torch.uint8)
    return values.detach().to(device) if device is not None else values.detach()
