"""Whether a value per query, such as the difference of two systems, depends on the group that the query is in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals.errors import RivalsError
from rivals.measures.intervals import per_query
from rivals.progress import progress

_BLOCK = 1 << 19  # permuted values held at a time


def groups_differ_test(
    values: ArrayLike,
    groups: ArrayLike,
    *,
    permutations: int = 10_000,
    seed: int | np.random.Generator = 0,
) -> Any:
    """Return the p-value of a permutation test that the mean of the values is the same in all groups of queries.

    The statistic is Welch's: T = sum_g w_g (m_g - m)^2 with group means m_g, w_g = n_g / v_g and m = sum_g w_g m_g /
    sum_g w_g; v_g = ((n_g - 1) s_g^2 + s^2) / n_g is the group's variance, drawn by one query's weight to the variance
    s^2 of all, so that a group without spread divides by no zero. Queries are dealt to the groups anew at random: p =
    (1 + #{T* >= T}) / (1 + permutations). The level holds exactly where the values do not depend on the group at all,
    and for large groups also where only their spread does.

    Shapes: values[..., Q], groups[Q] -> p[...] (a float for one row). Use it on the paired differences of two systems,
    to ask whether the gain is larger on some queries than on others; two separate tests, one significant and one not,
    do not answer that. Values that are all equal give 1.

    Source: Welch 1951 (doi 10.1093/biomet/38.3-4.330); studentised permutation: Janssen 1997
    (doi 10.1016/S0167-7152(97)00043-6), Chung and Romano 2013 (doi 10.1214/13-AOS1090); the pull to the common variance
    is ours.

    Raises:
        RivalsError: fewer than two groups, a group of one query, another number of groups than queries, a value that is
            not finite, fewer than 100 permutations.

    >>> groups_differ_test([0., .1, 0., .1, .9, 1., .9, 1.], [0, 0, 0, 0, 1, 1, 1, 1]) < 0.05
    True
    """
    checked = per_query(values, "values")
    member = np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
    queries = checked.shape[-1]
    if len(member) != queries:
        raise RivalsError(f"groups has {len(member)} entries for {queries} queries; every query needs one group")
    sizes = np.bincount(member)
    if len(sizes) < 2 or sizes.min() < 2:
        raise RivalsError(
            f"the groups hold {', '.join(map(str, sizes.tolist()))} queries; at least two of two are needed"
        )
    if permutations < 100:
        raise RivalsError(f"{permutations} permutations are too few for a p-value; take at least 100, usually 10,000")
    rows = checked.reshape(-1, queries)[:, np.argsort(member, kind="stable")]
    rows = rows - rows.mean(axis=-1, keepdims=True)
    spread = (rows**2).sum(axis=-1) / (queries - 1)
    varied = np.ptp(rows, axis=-1) > 1e-12 * np.maximum(np.abs(checked).max(initial=0.0), 1e-300)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    exceeding = np.zeros(len(rows), dtype=np.int64)
    seen = [_welch(row, starts, sizes, s) if v else 0.0 for row, s, v in zip(rows, spread, varied, strict=True)]
    generator = np.random.default_rng(seed)
    step = max(1, _BLOCK // queries)
    with progress("Tests between slices", permutations) as advance:
        for begin in range(0, permutations, step):
            size = min(step, permutations - begin)
            dealt = generator.permuted(np.broadcast_to(np.arange(queries), (size, queries)), axis=1)
            for at in np.flatnonzero(varied):
                drawn = _welch(rows[at][dealt], starts, sizes, spread[at])
                exceeding[at] += int((drawn >= seen[at] * (1 - 1e-9)).sum())
            advance(size)
    p = np.where(varied, (exceeding + 1) / (permutations + 1), 1.0)
    return float(p[0]) if checked.ndim == 1 else p.reshape(checked.shape[:-1])


def _welch(values: NDArray[np.float64], starts: NDArray[np.int64], sizes: NDArray[np.int64], spread: float) -> Any:
    """Welch's statistic of values[..., Q] that stand group by group; `spread` is the variance of all."""
    sums = np.add.reduceat(values, starts, axis=-1)
    squares = np.add.reduceat(values**2, starts, axis=-1)
    means = sums / sizes
    within = np.maximum(squares - sums * means, 0.0)
    weights = sizes**2 / (within + spread)
    common = (weights * means).sum(axis=-1, keepdims=True) / weights.sum(axis=-1, keepdims=True)
    return (weights * (means - common) ** 2).sum(axis=-1)
