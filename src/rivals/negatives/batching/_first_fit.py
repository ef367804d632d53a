"""The compiled part of batches without duplicates: every example goes into the first batch that has none of its keys."""

from __future__ import annotations

import numpy as np
from numba import njit  # type: ignore[import-untyped]


@njit(cache=True)
def first_fit(offsets, keys, order, number, size):  # type: ignore[no-untyped-def]
    """Return the batch of every example; example i has the keys `keys[offsets[i]:offsets[i + 1]]`, 0..number - 1.

    Examples come in `order`. A batch is looked for after the last one that holds any of the keys, so that finding it
    takes constant time; `later` leads from a full batch to the next that is not.
    """
    n = len(order)
    last = np.full(number, -1, np.int64)
    later = np.arange(n + 1)
    count = np.zeros(n + 1, np.int64)
    batch = np.full(n, -1, np.int64)
    for i in range(n):
        e = order[i]
        b = 0
        for k in range(offsets[e], offsets[e + 1]):
            b = max(b, last[keys[k]] + 1)
        root = b
        while later[root] != root:
            root = later[root]
        while later[b] != root:
            later[b], b = root, later[b]
        batch[e] = root
        count[root] += 1
        if count[root] == size:
            later[root] = root + 1
        for k in range(offsets[e], offsets[e + 1]):
            last[keys[k]] = root
    return batch
