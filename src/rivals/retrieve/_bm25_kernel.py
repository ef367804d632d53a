"""The compiled part of BM25: adding up posting lists and keeping the k best, in the order of the house.

The cache on disk watches this file only: after a change of the helpers in `_select`, touch this file too.
"""

from __future__ import annotations

import numpy as np
from numba import njit  # type: ignore[import-untyped]

from rivals.retrieve._select import _kth_largest, _pack, _sort

SMALLEST = 1e-30  # no term adds less


@njit(cache=True, nogil=True)
def search(starts, terms, indptr, indices, data, order, best, held):  # type: ignore[no-untyped-def]
    """Write the k best documents of each query as sorted keys of `_pack`; only documents that hold a query term count.

    Query q has the terms `terms[starts[q]:starts[q + 1]]`; term t the documents `indices[indptr[t]:indptr[t + 1]]` with
    the scores `data`, all above `SMALLEST`.
    """
    k = best.shape[1]
    scores = np.zeros(order.shape[0], np.float32)
    touched = np.empty(order.shape[0], np.int64)
    room = 4 * k
    pool = np.empty(room, np.float32)
    kept = np.empty(room, np.int64)
    values = np.empty(room, np.float32)
    for q in range(starts.shape[0] - 1):
        postings = 0
        for i in range(starts[q], starts[q + 1]):
            postings += indptr[terms[i] + 1] - indptr[terms[i]]
        dense = 8 * postings > order.shape[0]  # then looking at every document is quicker than listing those touched
        count = 0
        for i in range(starts[q], starts[q + 1]):
            if dense:
                for j in range(indptr[terms[i]], indptr[terms[i] + 1]):
                    scores[indices[j]] += data[j]
            else:
                for j in range(indptr[terms[i]], indptr[terms[i] + 1]):
                    document = indices[j]
                    if scores[document] == 0:
                        touched[count] = document
                        count += 1
                    scores[document] += data[j]
        if dense:
            count = order.shape[0]
        low = np.float32(SMALLEST)
        size = 0
        at = 0
        while True:
            while at < count and size < room:
                document = at if dense else touched[at]
                kept[size] = document
                values[size] = scores[document]
                size += values[size] >= low
                at += 1
            if size > k:
                for i in range(size):
                    pool[i] = values[i]
                low = _kth_largest(pool, size, k)
                above = 0
                for i in range(size):
                    if values[i] >= low:
                        values[above] = values[i]
                        kept[above] = kept[i]
                        above += 1
                size = above
            if at == count:
                break
            if size == room:  # so many equal scores: make room for all that may come
                room = max(2 * room, order.shape[0])
                wider, longer = np.empty(room, np.float32), np.empty(room, np.int64)
                for i in range(size):
                    wider[i] = values[i]
                    longer[i] = kept[i]
                values, kept, pool = wider, longer, np.empty(room, np.float32)
        keys = np.empty(size, np.int64)
        for i in range(size):
            keys[i] = _pack(values[i], order[kept[i]])
        _sort(keys, size)
        held[q] = min(size, k)
        for i in range(held[q]):
            best[q, i] = keys[i]
        for i in range(count):
            scores[i if dense else touched[i]] = 0


@njit(cache=True, nogil=True)
def pair_scores(starts, terms, indptr, indices, data, query, document, out):  # type: ignore[no-untyped-def]
    """Write the score of each (query, document) pair, adding terms in the same order as `search`."""
    for p in range(query.shape[0]):
        total = np.float32(0.0)
        for i in range(starts[query[p]], starts[query[p] + 1]):
            low, high = indptr[terms[i]], indptr[terms[i] + 1]
            last = high
            while low < high:
                middle = (low + high) >> 1
                if indices[middle] < document[p]:
                    low = middle + 1
                else:
                    high = middle
            if low < last and indices[low] == document[p]:
                total += data[low]
        out[p] = total
