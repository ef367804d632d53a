"""Random draws without replacement for many queries at once, each from a stream of its own named by the query's id.

A stream is a counter-based generator (splitmix64): number i of a stream is computed from its key and i alone. So a query
gets the same numbers in whatever block it comes, and thousands of streams are read in one vectorised pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_CELLS = 1 << 21  # random numbers held at once


def query_keys(ids: Iterable[str], seed: Sequence[int]) -> NDArray[np.uint64]:
    """Return a 64-bit key of every id under a seed (whole numbers), uint64[Q].

    >>> query_keys(["a", "b"], (0, 1)).tolist() == query_keys(["b", "a"], (0, 1))[::-1].tolist()
    True
    """
    salt = hashlib.blake2b(",".join(map(str, seed)).encode(), digest_size=32).digest()
    start = hashlib.blake2b(key=salt, digest_size=8)

    def digest(identifier: str) -> bytes:
        own = start.copy()
        own.update(str(identifier).encode("utf-8", "surrogatepass"))
        return own.digest()

    return np.frombuffer(b"".join(map(digest, ids)), dtype="<u8").astype(np.uint64)


def stream(keys: NDArray[np.uint64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return numbers `places` of every stream, uniform in [0, 1), float64[Q, P].

    Source: Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators (the mixing function of splitmix64).

    >>> stream(np.array([7], np.uint64), np.array([0, 1, 2])).shape
    (1, 3)
    """
    with np.errstate(over="ignore"):
        state = keys[:, None] + (places.astype(np.uint64) + np.uint64(1))[None, :] * _GOLDEN
        state ^= state >> np.uint64(30)
        state *= _MIX[0]
        state ^= state >> np.uint64(27)
        state *= _MIX[1]
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def distinct_draws(
    keys: NDArray[np.uint64], k: int, size: int, mass: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Draw `k` different rows of `size` for every key, one after the other, int64[Q, k]; -1 where none is left.

    Each is drawn in proportion to `mass` (None: alike) among the rows not drawn yet. Draws with replacement are made until
    k differ, which is the same distribution; where the mass is so uneven that they do not, the rest is decided by an
    exponential race over all rows, which is too.

    Args:
        keys: uint64[Q]. mass: float64[size], 0 or more, not all 0.

    Source: Efraimidis and Spirakis 2006 for the race.

    >>> distinct_draws(np.array([1, 2], np.uint64), 3, 3).shape
    (2, 3)
    """
    wanted = min(k, size if mass is None else int((mass > 0).sum()))
    out = np.full((len(keys), k), -1, dtype=np.int64)
    running = None if mass is None else np.cumsum(mass)
    short, columns = np.arange(len(keys)), 2 * wanted + 16
    while len(short) and columns <= max(size // 4, 64):
        left = []
        step = max(_CELLS // columns, 1)
        for start in range(0, len(short), step):
            rows = short[start : start + step]
            out[rows] = _by_rejection(keys[rows], k, columns, size, running)
            left.append(rows[(out[rows] >= 0).sum(axis=1) < wanted])
        short, columns = np.concatenate(left), columns * 4
    step = max(_CELLS // size, 1)
    for start in range(0, len(short), step):
        rows = short[start : start + step]
        out[rows] = _by_race(keys[rows], out[rows], wanted, columns, mass, size)
    return out


def _by_rejection(
    keys: NDArray[np.uint64], k: int, columns: int, size: int, running: NDArray[np.float64] | None
) -> NDArray[np.int64]:
    """The first k different of `columns` draws with replacement, -1 where there are fewer."""
    uniform = stream(keys, np.arange(columns))
    if running is None:
        drawn = (uniform * size).astype(np.int64)
    else:
        drawn = np.searchsorted(running, uniform * running[-1], side="right")
        drawn = np.minimum(drawn, np.searchsorted(running, running[-1]))  # rounding at the very end
    order = np.argsort(drawn, axis=1, kind="stable")
    ordered = np.take_along_axis(drawn, order, axis=1)
    repeated = np.zeros(drawn.shape, dtype=bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    place = np.cumsum(~repeated, axis=1) - 1
    chosen = ~repeated & (place < k)
    out = np.full((len(keys), k), -1, dtype=np.int64)
    out[np.nonzero(chosen)[0], place[chosen]] = drawn[chosen]
    return out


def _by_race(
    keys: NDArray[np.uint64],
    drawn: NDArray[np.int64],
    wanted: int,
    used: int,
    mass: NDArray[np.float64] | None,
    size: int,
) -> NDArray[np.int64]:
    """Fill up to `wanted` with the first arrivals among the rows not drawn: row i arrives after -log(u_i) / mass_i."""
    arrival = -np.log1p(-stream(keys, used + np.arange(size)))
    if mass is not None:
        arrival = np.divide(arrival, mass, out=np.full(arrival.shape, np.inf), where=mass > 0)
    query, place = np.nonzero(drawn >= 0)
    arrival[query, drawn[query, place]] = np.inf
    first = np.argsort(arrival, axis=1, kind="stable")[:, :wanted]
    held = (drawn >= 0).sum(axis=1)
    out = drawn.copy()
    places = held[:, None] + np.arange(first.shape[1])
    fits = places < wanted
    out[np.nonzero(fits)[0], places[fits]] = first[fits]
    return out
