"""Draws without replacement for many queries at once, each from a pool of its own and without what is forbidden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.negatives._random_draws import stream

_CELLS = 1 << 21  # numbers held at once
_ROUNDS = 3  # of rejection before pools are written out
_STRIDE = np.uint64(0xD1B54A32D192ED03)
_WRITTEN = 1 << 20  # where in the stream the numbers for written-out pools begin

Forbidden = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class Pools:
    """What each query may be given: `size[q]` members from `start[q]` on in `members`, or the numbers themselves."""

    start: NDArray[np.int64]
    size: NDArray[np.int64]
    members: NDArray[np.int64] | None = None

    def member(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the members at places counted over all pools."""
        return place if self.members is None else self.members[place]


def pool_draws(
    keys: NDArray[np.uint64],
    k: int,
    pools: Pools,
    forbidden: Forbidden,
    taken: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Draw `k` different members of its pool for every query, all alike likely, int64[Q, k]; -1 where none is left.

    Args:
        keys: uint64[Q], the streams of random numbers; a query's draw depends on its own key and pool alone.
        forbidden: (queries int64[m], members int64[m]) -> bool[m], what must not be drawn.
        taken: int64[Q, t], members that count as drawn already; -1 is none.

    >>> pools = Pools(np.zeros(1, np.int64), np.array([4]))
    >>> drawn = pool_draws(np.array([5], np.uint64), 9, pools, lambda query, member: member == 2)
    >>> sorted(drawn[drawn >= 0].tolist())
    [0, 1, 3]
    """
    queries = len(keys)
    before = np.full((queries, 0), -1, np.int64) if taken is None else taken
    out = np.concatenate([before, np.full((queries, k), -1, np.int64)], axis=1)
    short = np.flatnonzero(pools.size > 4 * (k + before.shape[1]))
    width, used = k + k // 2 + 8, 0
    for _ in range(_ROUNDS):
        if not len(short):
            break
        step = max(1, _CELLS // (width + out.shape[1]))
        for begin in range(0, len(short), step):
            rows = short[begin : begin + step]
            out[rows] = _rejected(keys[rows], rows, out[rows], before.shape[1], pools, forbidden, used, width)
        used += width
        short = short[(out[short, before.shape[1] :] < 0).any(1)]
    done = (out[:, before.shape[1] :] >= 0).all(1) if k else np.ones(queries, bool)
    left = np.flatnonzero(~done & (pools.size > 0))
    running = lists.offsets_from_lengths(pools.size[left])
    begin = 0
    while begin < len(left):
        end = int(np.searchsorted(running, running[begin] + _CELLS, side="right")) - 1
        end = min(max(end, begin + 1), len(left))
        rows = left[begin:end]
        out[rows] = _written_out(keys[rows], rows, out[rows], before.shape[1], pools, forbidden)
        begin = end
    return out[:, before.shape[1] :]


def _rejected(
    keys: NDArray[np.uint64],
    rows: NDArray[np.int64],
    held: NDArray[np.int64],
    skip: int,
    pools: Pools,
    forbidden: Forbidden,
    used: int,
    width: int,
) -> NDArray[np.int64]:
    """Add to what is held the first different allowed ones of `width` draws with replacement."""
    uniform = stream(keys, used + np.arange(width))
    fresh = pools.member(pools.start[rows, None] + (uniform * pools.size[rows, None]).astype(np.int64))
    fresh[forbidden(np.repeat(rows, width), fresh.ravel()).reshape(fresh.shape)] = -1
    both = np.concatenate([held, fresh], axis=1)
    order = np.argsort(both, axis=1, kind="stable")
    ordered = np.take_along_axis(both, order, axis=1)
    again = np.zeros(both.shape, bool)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    good = (both >= 0) & ~again
    good[:, :skip] = False
    place = np.cumsum(good, axis=1) - 1
    chosen = good & (place < held.shape[1] - skip)
    out = held.copy()
    query, column = np.nonzero(chosen)
    out[query, skip + place[query, column]] = both[query, column]
    return out


def _written_out(
    keys: NDArray[np.uint64],
    rows: NDArray[np.int64],
    held: NDArray[np.int64],
    skip: int,
    pools: Pools,
    forbidden: Forbidden,
) -> NDArray[np.int64]:
    """Fill what is held with the members of the pools in an order of their own for every query."""
    size = pools.size[rows]
    offsets = lists.offsets_from_lengths(size)
    query, place = lists.segment_ids(offsets), lists.positions(offsets)
    member = pools.member(np.repeat(pools.start[rows], size) + place)
    free = ~forbidden(rows[query], member)
    there = held >= 0
    span = np.int64(max(int(member.max(initial=0)), int(held.max(initial=0))) + 1)
    drawn = np.nonzero(there)[0] * span + held[there]
    free &= ~np.isin(query * span + member, drawn)
    query, member, place = query[free], member[free], place[free]
    with np.errstate(over="ignore"):
        own = keys[query] + place.astype(np.uint64) * _STRIDE
    order = np.lexsort((stream(own, np.array([_WRITTEN]))[:, 0], query))
    query, member = query[order], member[order]
    rank = lists.positions(lists.offsets_from_lengths(np.bincount(query, minlength=len(rows))))
    column = skip + (held[:, skip:] >= 0).sum(1)[query] + rank
    fits = column < held.shape[1]
    out = held.copy()
    out[query[fits], column[fits]] = member[fits]
    return out
