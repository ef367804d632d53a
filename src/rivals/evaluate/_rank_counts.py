"""The compiled part of full ranking: how many candidates score above an answer, and how many equal it."""

from __future__ import annotations

import numpy as np
from numba import njit  # type: ignore[import-untyped]

_STRETCH = 2048  # scores that are compared with all answers while they are in the nearest cache


@njit(cache=True, nogil=True)
def _count(values, threshold):  # type: ignore[no-untyped-def]
    """Return how many values lie above a threshold and how many equal it; NaN does neither."""
    above = np.int32(0)  # of the scores' own width, so that many are compared at once
    equal = np.int32(0)
    for i in range(values.shape[0]):
        above = np.int32(above + np.int32(values[i] > threshold))
        equal = np.int32(equal + np.int32(values[i] == threshold))
    return np.int64(above), np.int64(equal)


@njit(cache=True, nogil=True)
def _missing(values):  # type: ignore[no-untyped-def]
    """Return how many values are NaN."""
    found = np.int32(0)
    for i in range(values.shape[0]):
        found = np.int32(found + np.int32(values[i] != values[i]))
    return np.int64(found)


@njit(cache=True, nogil=True)
def count_rows(scores, low, high, first, excluded_offsets, excluded, offsets, answer, score, above, tied, nan):  # type: ignore[no-untyped-def]
    """Count for rows low to high of a block, whose row 0 is query `first`; writes `score`, `above`, `tied` and `nan`.

    Answers of query q are `answer[offsets[q]:offsets[q + 1]]`; `excluded` holds, in the same way, every document that is
    no rival: the answers themselves and what is filtered.
    """
    width = scores.shape[1]
    for row in range(low, high):
        query = first + row
        begin, end = offsets[query], offsets[query + 1]
        for place in range(begin, end):
            score[place] = scores[row, answer[place]]
        for start in range(0, width, _STRETCH):
            part = scores[row, start : min(start + _STRETCH, width)]
            nan[query] += _missing(part)
            for place in range(begin, end):
                more, same = _count(part, scores[row, answer[place]])
                above[place] += more
                tied[place] += same
        left, right = excluded_offsets[query], excluded_offsets[query + 1]
        out = np.empty(right - left, scores.dtype)
        for place in range(left, right):
            out[place - left] = scores[row, excluded[place]]
        for start in range(0, len(out), _STRETCH):
            part = out[start : start + _STRETCH]
            for place in range(begin, end):
                more, same = _count(part, scores[row, answer[place]])
                above[place] -= more
                tied[place] -= same


@njit(cache=True, nogil=True)
def count_listed(scores, first, listed_offsets, listed, offsets, answer, above, tied):  # type: ignore[no-untyped-def]
    """Count for a whole block, whose row 0 is query `first`, among listed documents only."""
    for row in range(scores.shape[0]):
        query = first + row
        for place in range(offsets[query], offsets[query + 1]):
            threshold = scores[row, answer[place]]
            for other in range(listed_offsets[query], listed_offsets[query + 1]):
                value = scores[row, listed[other]]
                above[place] += value > threshold
                tied[place] += value == threshold
