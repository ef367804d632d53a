"""The compiled part of `row_cosines`. The first call in a fresh environment compiles for a second; the result is cached."""

from __future__ import annotations

import numpy as np
from numba import njit  # type: ignore[import-untyped]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _products(left, right):  # type: ignore[no-untyped-def]
    product, one, two = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for d in range(left.shape[0]):
        product += left[d] * right[d]
        one += left[d] * left[d]
        two += right[d] * right[d]
    return product, one, two


@njit(cache=True, nogil=True)
def row_cosines(left, right, left_row, right_row, out):  # type: ignore[no-untyped-def]
    """Write the cosine of each pair of rows; NaN where one has length 0."""
    for i in range(out.shape[0]):
        product, one, two = _products(left[left_row[i]], right[right_row[i]])
        squares = np.sqrt(one) * np.sqrt(two)
        out[i] = product / squares if squares > np.float32(0.0) else np.float32(np.nan)
