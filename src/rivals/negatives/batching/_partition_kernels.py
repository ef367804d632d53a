"""The compiled parts of cutting a graph: greedy growth of clusters, and swaps between them."""

from __future__ import annotations

import numpy as np
from numba import njit  # type: ignore[import-untyped]

_LOOK = 4096  # edges looked at for the neighbourhood of a cluster that cannot grow


@njit(cache=True)
def grow(indptr, indices, order, size):  # type: ignore[no-untyped-def]
    """Return the cluster of every node; `order` is a permutation that decides between equals."""
    n = len(order)
    place = np.empty(n, np.int64)  # of a node in `order`
    for i in range(n):
        place[order[i]] = i
    cluster = np.full(n, -1, np.int64)
    degree = np.empty(n, np.int64)  # edges to nodes not yet placed
    largest = 0
    for u in range(n):
        degree[u] = indptr[u + 1] - indptr[u]
        largest = max(largest, degree[u])
    # Nodes not yet placed stand in a list for each degree; lists are doubly linked, so a node moves in constant time.
    head = np.full(largest + 1, -1, np.int64)
    after = np.full(n, -1, np.int64)
    before = np.full(n, -1, np.int64)
    for i in range(n - 1, -1, -1):
        u = order[i]
        d = degree[u]
        after[u] = head[d]
        if head[d] >= 0:
            before[head[d]] = u
        head[d] = u
    lowest = 1
    links = np.zeros(n, np.int64)  # edges into the cluster that grows
    seen = np.zeros(n, np.bool_)
    frontier = np.empty(n, np.int64)
    members = np.empty(size, np.int64)
    free = 0  # nodes of `order` before this one are placed
    number = 0
    placed = 0
    while placed < n:
        length, count = 0, 0
        while count < size and placed < n:
            u = -1
            if count == 0:
                while lowest <= largest and head[lowest] < 0:
                    lowest += 1
                if lowest <= largest:
                    u = head[lowest]
            else:
                best, fewest = 0, 0
                for i in range(length):
                    v = frontier[i]
                    if cluster[v] >= 0:
                        continue
                    if (
                        links[v] > best
                        or (links[v] == best and degree[v] < fewest)
                        or (links[v] == best and degree[v] == fewest and u >= 0 and place[v] < place[u])
                    ):
                        u, best, fewest = v, links[v], degree[v]
                if u < 0:
                    u = _near(indptr, indices, cluster, members, count, place)
            if u < 0:
                while cluster[order[free]] >= 0:
                    free += 1
                u = order[free]
            cluster[u] = number
            members[count] = u
            count += 1
            placed += 1
            _unlink(u, degree[u], head, after, before)
            for e in range(indptr[u], indptr[u + 1]):
                v = indices[e]
                if cluster[v] >= 0:
                    continue
                _unlink(v, degree[v], head, after, before)
                degree[v] -= 1
                d = degree[v]
                before[v] = -1
                after[v] = head[d]
                if head[d] >= 0:
                    before[head[d]] = v
                head[d] = v
                if 0 < d < lowest:
                    lowest = d
                links[v] += 1
                if not seen[v]:
                    seen[v] = True
                    frontier[length] = v
                    length += 1
        for i in range(length):
            links[frontier[i]] = 0
            seen[frontier[i]] = False
        number += 1
    return cluster


@njit(cache=True)
def _unlink(u, d, head, after, before):  # type: ignore[no-untyped-def]
    if before[u] >= 0:
        after[before[u]] = after[u]
    else:
        head[d] = after[u]
    if after[u] >= 0:
        before[after[u]] = before[u]


@njit(cache=True)
def _near(indptr, indices, cluster, members, count, place):  # type: ignore[no-untyped-def]
    """The unplaced node with most edges to neighbours of the cluster, -1 for none; looks at so many edges at most."""
    looked = 0
    found = np.empty(_LOOK, np.int64)
    held = 0
    for i in range(count):
        for e in range(indptr[members[i]], indptr[members[i] + 1]):
            v = indices[e]
            for f in range(indptr[v], indptr[v + 1]):
                if looked == _LOOK:
                    break
                looked += 1
                if cluster[indices[f]] < 0:
                    found[held] = indices[f]
                    held += 1
    if held == 0:
        return -1
    ordered = np.sort(found[:held])
    best, most, start = -1, 0, 0
    for i in range(1, held + 1):
        if i == held or ordered[i] != ordered[start]:
            u = ordered[start]
            if i - start > most or (i - start == most and place[u] < place[best]):
                best, most = u, i - start
            start = i
    return best


@njit(cache=True)
def refine(indptr, indices, cluster, order, number, passes):  # type: ignore[no-untyped-def]
    """Swap nodes of different clusters while that cuts fewer edges; `cluster` is changed. Return the swaps made.

    With c(u, A) the edges of u into cluster A, swapping u of A and v of B keeps c(u, B) - c(u, A) + c(v, A) - c(v, B)
    - 2 [u, v linked] more edges whole. One of the two must gain by itself, so only such u are tried.
    """
    n = len(order)
    sizes = np.zeros(number, np.int64)
    for u in range(n):
        sizes[cluster[u]] += 1
    starts = np.zeros(number + 1, np.int64)
    for c in range(number):
        starts[c + 1] = starts[c] + sizes[c]
    members = np.empty(n, np.int64)
    slot = np.empty(n, np.int64)
    filled = starts[:-1].copy()
    for u in range(n):
        slot[u] = filled[cluster[u]]
        members[slot[u]] = u
        filled[cluster[u]] += 1
    own = np.zeros(n, np.int64)  # edges of a node inside its cluster
    for u in range(n):
        for e in range(indptr[u], indptr[u + 1]):
            own[u] += cluster[indices[e]] == cluster[u]
    links = np.zeros(number, np.int64)  # edges of u into every cluster
    touched = np.empty(number, np.int64)
    inward = np.zeros(n, np.int64)  # edges of every node into the cluster of u
    linked = np.zeros(n, np.bool_)
    swaps = 0
    for _ in range(passes):
        made = 0
        for i in range(n):
            u = order[i]
            mine = cluster[u]
            count = 0
            better = False
            for e in range(indptr[u], indptr[u + 1]):
                c = cluster[indices[e]]
                if links[c] == 0:
                    touched[count] = c
                    count += 1
                links[c] += 1
                better = better or (c != mine and links[c] > own[u])
            if better:
                for j in range(starts[mine], starts[mine + 1]):
                    w = members[j]
                    for e in range(indptr[w], indptr[w + 1]):
                        inward[indices[e]] += 1
                for e in range(indptr[u], indptr[u + 1]):
                    linked[indices[e]] = True
                best, partner = 0, -1
                for t in range(count):
                    c = touched[t]
                    gain = links[c] - own[u]
                    if c == mine or gain <= 0:
                        continue
                    for j in range(starts[c], starts[c + 1]):
                        v = members[j]
                        total = gain + inward[v] - own[v] - (2 if linked[v] else 0)
                        if total > best:
                            best, partner = total, v
                for j in range(starts[mine], starts[mine + 1]):
                    w = members[j]
                    for e in range(indptr[w], indptr[w + 1]):
                        inward[indices[e]] = 0
                for e in range(indptr[u], indptr[u + 1]):
                    linked[indices[e]] = False
                if partner >= 0:
                    v, other = partner, cluster[partner]
                    _move(indptr, indices, cluster, own, u, mine, other)
                    _move(indptr, indices, cluster, own, v, other, mine)
                    members[slot[u]], members[slot[v]] = v, u
                    slot[u], slot[v] = slot[v], slot[u]
                    made += 1
            for t in range(count):
                links[touched[t]] = 0
        swaps += made
        if made == 0:
            break
    return swaps


@njit(cache=True)
def _move(indptr, indices, cluster, own, u, old, new):  # type: ignore[no-untyped-def]
    own[u] = 0
    for e in range(indptr[u], indptr[u + 1]):
        v = indices[e]
        if cluster[v] == old:
            own[v] -= 1
        elif cluster[v] == new:
            own[v] += 1
            own[u] += 1
    cluster[u] = new
