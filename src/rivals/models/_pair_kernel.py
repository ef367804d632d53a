"""Compiled loop over (query, document) pairs: soft and exact matches between their tokens."""

from __future__ import annotations

import numpy as np
from numba import njit, prange


@njit(cache=True, parallel=True, nogil=True, fastmath=True)
def match_features(  # type: ignore[no-untyped-def]
    query_vectors,
    query_offsets,
    query_ids,
    document_vectors,
    document_scales,
    document_offsets,
    document_ids,
    weights,
    head,
    pairs,
    out,
):
    """Fill out[m, 8] for every pair (query row, document row) of pairs[m, 2]; see `pair_features` for the columns."""
    width = query_vectors.shape[1]
    for p in prange(len(pairs)):
        q0, q1 = query_offsets[pairs[p, 0]], query_offsets[pairs[p, 0] + 1]
        d0, d1 = document_offsets[pairs[p, 1]], document_offsets[pairs[p, 1] + 1]
        total = soft = soft_plain = soft_head = exact = exact_head = 0.0
        worst, missing = 1.0, 0.0
        for i in range(q0, q1):
            weight = weights[query_ids[i]]
            best, best_head = -1.0, -1.0
            found = found_head = False
            for j in range(d0, d1):
                product = np.float32(0.0)
                for k in range(width):
                    product += query_vectors[i, k] * document_vectors[j, k]
                similarity = product * document_scales[j]
                best = max(best, similarity)
                same = document_ids[j] == query_ids[i]
                found |= same
                if j - d0 < head:
                    best_head = max(best_head, similarity)
                    found_head |= same
            if d1 == d0:
                best = best_head = 0.0
            total += weight
            soft += weight * best
            soft_plain += best
            soft_head += weight * best_head
            worst = min(worst, best)
            if found:
                exact += weight
            else:
                missing = max(missing, weight)
            if found_head:
                exact_head += weight
        if total > 0:
            out[p, 0] = soft / total
            out[p, 1] = soft_plain / (q1 - q0)
            out[p, 2] = worst
            out[p, 3] = soft_head / total
            out[p, 4] = exact / total
            out[p, 5] = exact_head / total
            out[p, 6] = missing
        out[p, 7] = np.log(1.0 + (d1 - d0))
