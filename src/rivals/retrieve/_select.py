"""The compiled part of exact top-k: quantising, selecting candidates and rescoring them.

Everything here releases the interpreter lock and touches only its own rows, so callers may run it from a plain thread
pool. The first call in a fresh environment compiles for a few seconds; the result is cached on disk beside this file
(or where NUMBA_CACHE_DIR says).
"""

from __future__ import annotations

import numpy as np
from numba import njit  # type: ignore[import-untyped]

_MATH = {"reassoc", "contract"}
_GROUP, _FINE = 64, 8  # documents a group, and a part of it


@njit(cache=True, nogil=True, fastmath=_MATH)
def quantise(vectors, centre, dither, back, codes, scale, norm, residual):  # type: ignore[no-untyped-def]
    """Write round((v - centre) / scale + dither) as int8 with one scale a row, and two norms a row.

    `norm` is that of v - centre and `residual` that of v - centre - scale * (code - back * dither), what is lost. A row
    that is not finite gets the norm infinity and no code.
    """
    width = vectors.shape[1]
    for row in range(vectors.shape[0]):
        # Bits of the largest magnitude: as integers they order alike, and infinity and NaN come out on top.
        bits = np.int32(0)
        for d in range(width):
            bits = max(bits, np.float32(abs(vectors[row, d] - centre[d])).view(np.int32))
        if bits >= np.int32(0x7F800000):
            norm[row] = np.float32(np.inf)
            continue
        largest = np.int32(bits).view(np.float32)
        step = largest / np.float32(126.5) if largest > np.float32(1e-30) else np.float32(1.0)
        inverse = np.float32(1.0) / step
        total = np.float32(0.0)
        lost = np.float32(0.0)
        for d in range(width):
            value = vectors[row, d] - centre[d]
            code = np.float32(np.rint(value * inverse + dither[d]))
            codes[row, d] = np.int8(code)
            rest = value - (code - back * dither[d]) * step
            total += value * value
            lost += rest * rest
        scale[row] = step
        norm[row] = np.sqrt(total)
        residual[row] = np.sqrt(lost)


@njit(cache=True, nogil=True)
def _kth_largest(values, count, k):  # type: ignore[no-untyped-def]
    """The k-th largest (1-based) of values[:count]; reorders them."""
    low, high, target = 0, count - 1, k - 1
    while low < high:
        middle = (low + high) >> 1
        a, b, c = values[low], values[middle], values[high]
        pivot = max(min(a, b), min(max(a, b), c))
        left, right = low, high
        while left <= right:
            while values[left] > pivot:
                left += 1
            while values[right] < pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if target <= right:
            high = right
        elif target >= left:
            low = left
        else:
            break
    return values[target]


@njit(cache=True, nogil=True, fastmath=_MATH)
def _dot(left, right):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for d in range(left.shape[0]):
        total += left[d] * right[d]
    return total


@njit(cache=True, nogil=True)
def _pack(score, order):  # type: ignore[no-untyped-def]
    """A 64-bit key that ascends as (score descending, order ascending)."""
    bits = np.float32(score + np.float32(0.0)).view(np.int32)
    ordered = bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))
    return (np.int64(~ordered) << np.int64(32)) | np.int64(order)


@njit(cache=True, nogil=True)
def _score_of(key):  # type: ignore[no-untyped-def]
    ordered = np.int32(~(key >> np.int64(32)))
    bits = ordered ^ ((ordered >> np.int32(31)) & np.int32(0x7FFFFFFF))
    return np.int32(bits).view(np.float32)


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "contract"})
def _group_maxima(values, scale, offset, maxima, groups):  # type: ignore[no-untyped-def]
    """maxima[j] = max of (values[i] - offset) * scale[i] over i = j, j + groups, ...; strides need no shuffles."""
    size = values.shape[0]
    for j in range(groups):
        maxima[j] = (np.float32(values[j]) - offset) * scale[j]
    for start in range(groups, size, groups):
        part = values[start : start + groups]  # slices: indices known to be 0 or more are what lets loops use vectors
        part_scale = scale[start : start + groups]
        for j in range(part.shape[0]):
            maxima[j] = max(maxima[j], (np.float32(part[j]) - offset) * part_scale[j])


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _fold_maxima(fine, count, coarse, groups):  # type: ignore[no-untyped-def]
    """coarse[j] = max of fine[i] over i = j, j + groups, ... below count."""
    for j in range(groups):
        coarse[j] = fine[j]
    for start in range(groups, count, groups):
        part = fine[start : min(start + groups, count)]
        for j in range(part.shape[0]):
            coarse[j] = max(coarse[j], part[j])


@njit(cache=True, nogil=True)
def _merge(best, held, fresh, count, scratch):  # type: ignore[no-untyped-def]
    """Merge sorted fresh[:count] into sorted best[:held], keeping the first len(best); returns the new length."""
    size = min(best.shape[0], held + count)
    i, j = 0, 0
    for out in range(size):
        if j >= count or (i < held and best[i] <= fresh[j]):
            scratch[out] = best[i]
            i += 1
        else:
            scratch[out] = fresh[j]
            j += 1
    for out in range(size):
        best[out] = scratch[out]
    return size


@njit(cache=True, nogil=True)
def _sort(keys, count):  # type: ignore[no-untyped-def]
    """Shell sort of keys[:count]: as quick as the library's at a hundred keys, and a tenth of its compile time."""
    gap = 1
    while gap < count // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, count):
            key = keys[i]
            j = i
            while j >= gap and keys[j - gap] > key:
                keys[j] = keys[j - gap]
                j -= gap
            keys[j] = key
        gap //= 3


@njit(cache=True, nogil=True)
def select(  # type: ignore[no-untyped-def]
    block, scale, offset, documents, order, queries, query_scale, shift, running, window, rounding, best, held
):
    """Fold one block of approximate scores into the exact lists.

    `(block[R, n] - offset[R]) * scale[n]` approximates `(q . d - shift) / query_scale`. A row's candidates are those
    which
    can still belong to its k best: at or above the approximate k-th of the block less `window`, and at or above the
    exact k-th so far less `running` (both in units of q . d, plus `rounding` times the score). They are rescored in
    float32 and merged into `best[R, k]` (sorted keys of `_pack`, `held[R]` of them).
    """
    rows, size = block.shape
    k = best.shape[1]
    groups = min(size, max((size + _GROUP - 1) // _GROUP, 4 * k))
    parts = min(size, max((size + _FINE - 1) // _FINE, groups))
    fine, maxima = np.empty(parts, np.float32), np.empty(groups, np.float32)
    hot = np.empty(groups, np.int32)
    pool = np.empty(size, np.float32)
    values = np.empty(size, np.float32)
    found = np.empty(size, np.int32)
    fresh = np.empty(size, np.int64)
    scratch = np.empty(k, np.int64)
    for r in range(rows):
        inverse = np.float32(1.0) / query_scale[r]
        row = block[r]
        _group_maxima(row, scale, offset[r], fine, parts)
        _fold_maxima(fine, parts, maxima, groups)
        low = np.float32(-np.inf)
        if held[r] == k:
            worst = _score_of(best[r, k - 1]) - shift[r]
            low = (worst - running[r] - rounding * (abs(worst) + running[r])) * inverse
        warm = 0
        for j in range(groups):
            hot[warm] = j
            pool[warm] = maxima[j]
            warm += maxima[j] >= low
        if warm > k:
            level = _kth_largest(pool, warm, k)
            margin = window[r] * inverse + rounding * (abs(level) + window[r] * inverse)
            low = max(low, level - margin)
        count = 0
        for h in range(warm):
            j = hot[h]
            if maxima[j] < low:
                continue
            for g in range(j, parts, groups):
                if fine[g] < low:
                    continue
                for position in range(g, size, parts):
                    value = (np.float32(row[position]) - offset[r]) * scale[position]
                    values[count] = value
                    found[count] = position
                    count += value >= low
        if count > k:
            for c in range(count):
                pool[c] = values[c]
            level = _kth_largest(pool, count, k)
            margin = window[r] * inverse + rounding * (abs(level) + window[r] * inverse)
            low = max(low, level - margin)
        query = queries[r]
        new = 0
        for c in range(count):
            if values[c] < low:
                continue
            position = found[c]
            key = _pack(_dot(query, documents[position]), order[position])
            if held[r] < k or key < best[r, k - 1]:
                fresh[new] = key
                new += 1
        if new:
            _sort(fresh, new)
            held[r] = _merge(best[r], held[r], fresh, new, scratch)


@njit(cache=True, nogil=True)
def pair_scores(queries, documents, query_row, document_row, out):  # type: ignore[no-untyped-def]
    """Write the inner product of each pair, bit-equal to what `select` gives it."""
    for i in range(query_row.shape[0]):
        out[i] = _dot(queries[query_row[i]], documents[document_row[i]])
