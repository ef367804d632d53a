"""Compiled steps between the int8 products of a BERT layer: each reads its input once and writes what comes next.

Every row is worked on alone, in one thread, so results depend on neither batch nor thread count. A row of codes is
`value / scale` rounded to -127 .. 127 with `scale = max |value| / 127`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_EDGE = np.float32(4.0)  # beyond it gelu(x) is x or 0 within 2e-4


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _quantise(row, codes):  # type: ignore[no-untyped-def]
    bits = np.int32(0)  # of the largest magnitude: integers of that kind order alike, and compare ten times as fast
    for k in range(row.shape[0]):
        bits = max(bits, np.float32(abs(row[k])).view(np.int32))
    scale = np.int32(bits).view(np.float32) / np.float32(127.0)
    inverse = np.float32(1.0) / max(scale, np.float32(1e-30))
    for k in range(row.shape[0]):  # truncation of a positive number: rounds to the nearest
        codes[k] = np.int8(np.int32(row[k] * inverse + np.float32(128.5)) - np.int32(128))
    return scale


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _normalise(row, gain, shift, epsilon):  # type: ignore[no-untyped-def]
    width = row.shape[0]
    total = np.float32(0.0)
    for k in range(width):
        total += row[k]
    mean = total / np.float32(width)
    square = np.float32(0.0)
    for k in range(width):
        square += (row[k] - mean) * (row[k] - mean)
    factor = np.float32(1.0) / np.sqrt(square / np.float32(width) + epsilon)
    for k in range(width):
        row[k] = (row[k] - mean) * factor * gain[k] + shift[k]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def norm_quantise(hidden, gain, shift, epsilon, codes, scales):  # type: ignore[no-untyped-def]
    """LayerNorm of hidden[n, H] in place, and its codes."""
    for i in range(hidden.shape[0]):
        _normalise(hidden[i], gain, shift, epsilon)
        scales[i] = _quantise(hidden[i], codes[i])


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def dequantise(sums, scales, weight_scales, bias, place, out):  # type: ignore[no-untyped-def]
    """out[place[i]] = sums[i] * scales[i] * weight_scales + bias, for sums int32[n, M]."""
    for i in range(sums.shape[0]):
        source, target, scale = sums[i], out[place[i]], scales[i]
        for k in range(source.shape[0]):
            target[k] = np.float32(source[k]) * (scale * weight_scales[k]) + bias[k]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def gather_quantise(values, place, codes, scales):  # type: ignore[no-untyped-def]
    """Codes of the rows `place` of values."""
    for i in range(place.shape[0]):
        scales[i] = _quantise(values[place[i]], codes[i])


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def add_norm_quantise(  # type: ignore[no-untyped-def]
    sums, scales, weight_scales, bias, hidden, gain, shift, epsilon, codes, new_scales
):
    """hidden = LayerNorm(hidden + dequantised sums) in place, and its codes."""
    for i in range(sums.shape[0]):
        source, row, scale = sums[i], hidden[i], scales[i]
        for k in range(source.shape[0]):
            row[k] += np.float32(source[k]) * (scale * weight_scales[k]) + bias[k]
        _normalise(row, gain, shift, epsilon)
        new_scales[i] = _quantise(row, codes[i])


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def gelu_quantise(sums, scales, weight_scales, bias, factors, codes, new_scales):  # type: ignore[no-untyped-def]
    """Codes of gelu(dequantised sums); Phi(x) = 1/2 + x p(x^2) with the nine `factors` of p, lowest first."""
    row = np.empty(sums.shape[1], np.float32)
    f0, f1, f2, f3, f4 = factors[0], factors[1], factors[2], factors[3], factors[4]
    f5, f6, f7, f8 = factors[5], factors[6], factors[7], factors[8]
    for i in range(sums.shape[0]):
        source, scale = sums[i], scales[i]
        for k in range(source.shape[0]):
            x = np.float32(source[k]) * (scale * weight_scales[k]) + bias[k]
            c = min(max(x, -_EDGE), _EDGE)
            u = c * c
            p = f0 + u * (f1 + u * (f2 + u * (f3 + u * (f4 + u * (f5 + u * (f6 + u * (f7 + u * f8)))))))
            row[k] = x * (np.float32(0.5) + c * p)
        new_scales[i] = _quantise(row, codes[i])
