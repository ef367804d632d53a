"""The compiled part of `EntityGraph`: breadth-first search from many entities. The first call compiles for a second."""

from __future__ import annotations

import numpy as np
from numba import njit  # type: ignore[import-untyped]


@njit(cache=True, nogil=True)
def fill_levels(starts, targets, source, hops, level):  # type: ignore[no-untyped-def]
    """Write the steps from source[i] to every entity into level[i], which holds hops + 1 everywhere.

    `starts` and `targets` are the links as in CSR.
    """
    size = level.shape[1]
    queue = np.empty(size, np.int64)
    for i in range(source.shape[0]):
        row = level[i]
        row[source[i]] = 0
        queue[0] = source[i]
        done, end = 0, 1
        while done < end and row[queue[done]] < hops:
            entity = queue[done]
            done += 1
            step = row[entity] + 1
            for place in range(starts[entity], starts[entity + 1]):
                other = targets[place]
                if row[other] > step:
                    row[other] = step
                    queue[end] = other
                    end += 1
