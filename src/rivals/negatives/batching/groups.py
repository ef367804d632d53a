"""Groups of queries that are each other's rivals, made anew each epoch, so that in-batch negatives are hard ones at no cost."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rivals import lists
from rivals.data.dataset import Judgements
from rivals.data.run import Run
from rivals.errors import RivalsError


def rival_queries(
    run: Run, known: Judgements, *, depth: int = 20, skip: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rivals of every query, as (offsets, query rows): queries with a positive among its hardest usable negatives.

    Only `depth` kept candidates after the first `skip` count, and their order (hardest first) is kept, so a query's first
    rival has the positive that is most easily mistaken for its own.

    Raises:
        RivalsError: a run and judgements over different numbers of queries, depth < 1, skip < 0.
    """
    if depth < 1 or skip < 0:
        raise RivalsError(f"depth must be 1 or more and skip 0 or more, not {depth} and {skip}")
    if len(run.queries) != len(known.offsets) - 1:
        raise RivalsError(
            f"the run has {len(run.queries)} queries, the judgements {len(known.offsets) - 1}; align them first"
        )
    usable = run.keep & (run.label != 1)
    offsets = lists.keep_values(usable, run.offsets)
    place = lists.positions(offsets)
    rows = np.flatnonzero(usable)[(place >= skip) & (place < skip + depth)]
    query, document = run.query[rows], run.document[rows]
    order = np.argsort(known.document, kind="stable")
    owner, of = known.query[order], known.document[order]
    first, last = np.searchsorted(of, document), np.searchsorted(of, document, side="right")
    lengths = last - first
    index = np.repeat(first, lengths) + lists.positions(lists.offsets_from_lengths(lengths))
    rival, asker = owner[index], np.repeat(query, lengths)
    apart = rival != asker
    counts = np.bincount(asker[apart], minlength=len(run.queries))
    return lists.offsets_from_lengths(counts), rival[apart]


def grouped_order(
    order: NDArray[np.int64], offsets: NDArray[np.int64], rivals: NDArray[np.int64], size: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return `order` rearranged so that groups of up to `size` rivals stand together; groups come in random order.

    Walking through `order`, each query not yet placed opens a group and takes its hardest rivals not yet placed. Source: the idea of
    batches rich in mutual negatives, Thirukovalluru et al. (2025), paper 28; the greedy grouping is ours.

    >>> order = grouped_order(np.arange(4), np.array([0, 1, 1, 1, 1]), np.array([3]), 2, np.random.default_rng(0))
    >>> sorted(order.tolist()), abs(order.tolist().index(0) - order.tolist().index(3))
    ([0, 1, 2, 3], 1)
    """
    group = _group(order, offsets, rivals, size)
    shuffled = rng.permutation(int(group.max(initial=-1)) + 1)
    return order[np.argsort(shuffled[group], kind="stable")]


@njit(cache=True)
def _group(order, offsets, rivals, size):  # type: ignore[no-untyped-def]
    place = np.full(len(offsets) - 1, -2, np.int64)  # -2: not to be placed, -1: not yet
    for q in order:
        place[q] = -1
    groups = 0
    for q in order:
        if place[q] != -1:
            continue
        place[q] = groups
        members = 1
        for i in range(offsets[q], offsets[q + 1]):
            if members == size:
                break
            if place[rivals[i]] == -1:
                place[rivals[i]] = groups
                members += 1
        groups += 1
    out = np.empty(len(order), np.int64)
    for i in range(len(order)):
        out[i] = place[order[i]]
    return out
