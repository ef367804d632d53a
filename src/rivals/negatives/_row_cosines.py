"""Cosines of many pairs of rows, one pass over the memory they lie in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals.retrieve._topk import compiled

_NUMBERS = 1 << 23  # numbers of gathered vectors held at once


def row_cosines(
    left: NDArray[Any], right: NDArray[Any], left_row: NDArray[np.int64], right_row: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the cosine of left[left_row[i]] and right[right_row[i]], float32[m]; NaN where one has length 0.

    Rows are taken from memory maps and other dtypes than float32 in blocks; two float32 arrays are read where they lie.

    >>> rows = np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
    >>> row_cosines(rows, rows, np.array([0, 1]), np.array([1, 2])).round(3).tolist()
    [0.800000011920929, nan]
    """
    out = np.empty(len(right_row), np.float32)
    fast = compiled()
    if fast and _in_memory(left) and _in_memory(right):
        _kernel()(left, right, left_row, right_row, out)
        return out
    step = max(1, _NUMBERS // max(right.shape[1], 1))
    for start in range(0, len(out), step):
        part = slice(start, start + step)
        one = np.ascontiguousarray(left[left_row[part]], dtype=np.float32)
        two = np.ascontiguousarray(right[right_row[part]], dtype=np.float32)
        if fast:
            each = np.arange(len(one))
            _kernel()(one, two, each, each, out[part])
            continue
        squares = np.einsum("nd,nd->n", one, one) * np.einsum("nd,nd->n", two, two)
        with np.errstate(divide="ignore", invalid="ignore"):
            out[part] = np.where(squares > 0, np.einsum("nd,nd->n", one, two) / np.sqrt(squares), np.nan)
    return out


def _in_memory(vectors: NDArray[Any]) -> bool:
    held = type(vectors) is np.ndarray and vectors.dtype == np.float32 and vectors.flags.c_contiguous
    return held and not isinstance(vectors.base, np.memmap)


def _kernel() -> Any:
    from rivals.negatives._row_cosines_kernel import row_cosines as kernel

    return kernel
