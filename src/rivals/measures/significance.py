"""Whether two systems differ: paired randomisation tests, corrections for several comparisons, effect sizes, power.

Two systems answer the same queries, so what counts is the difference query by query. If the systems were equal, each
difference could as well have had the other sign; the randomisation test asks how often random signs give a mean
difference as large as the one seen. It assumes nothing about the shape of the differences, which for retrieval measures
is far from normal (Smucker, Allan and Carterette 2007).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals.errors import RivalsError
from rivals.measures.intervals import per_query
from rivals.progress import progress

EXACT_UP_TO = 14
"""With at most this many non-zero differences all 2^n sign patterns are counted instead of drawn."""

_BLOCK = 1 << 20  # signs held at a time


def randomisation_test(
    first: ArrayLike,
    second: ArrayLike | None = None,
    *,
    permutations: int = 10_000,
    seed: int | np.random.Generator = 0,
) -> Any:
    """Return the two-sided p-value of a paired randomisation (sign-flip) test of equal means.

    With d = first - second and random signs s: p = (1 + #{|sum s d| >= |sum d|}) / (1 + permutations). With at most 14
    non-zero differences all 2^n patterns are enumerated and p is their share, exactly.

    Shapes: first[..., Q], second[..., Q] -> p[...] (a float for one pair). Use it as the test between two systems; all
    pairs of one call share the signs. The smallest p is 1 / (1 + permutations). No difference at all gives 1.

    Args:
        first: one value a query.
        second: the other system's values, query by query; None says that `first` holds the differences already.

    Source: Fisher 1935; Smucker, Allan and Carterette 2007 (doi 10.1145/1321440.1321528); (b + 1) / (m + 1): Phipson
    and Smyth 2010.

    Raises:
        RivalsError: shapes differ, a value is not finite, there is no query, fewer than 100 permutations.

    >>> randomisation_test([1., 1., 1., 1., 1.], [0., 0., 0., 0., 0.])
    0.0625
    """
    if permutations < 100:
        raise RivalsError(f"{permutations} permutations are too few for a p-value; take at least 100, usually 10,000")
    differences = paired(first, second)
    rows = differences.reshape(-1, differences.shape[-1])
    p_values = np.ones(len(rows))
    non_zero = (rows != 0).sum(axis=-1)
    for row in np.flatnonzero((non_zero > 0) & (non_zero <= EXACT_UP_TO)):
        p_values[row] = _exact(rows[row][rows[row] != 0])
    many = np.flatnonzero(non_zero > EXACT_UP_TO)
    if len(many):
        drawn = rows[many][:, (rows[many] != 0).any(axis=0)]
        exceeding = _exceeding(drawn, permutations, np.random.default_rng(seed))
        p_values[many] = (exceeding + 1) / (permutations + 1)
    shape = differences.shape[:-1]
    return float(p_values[0]) if not shape else p_values.reshape(shape)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values adjusted by Holm's method, which bounds the chance of any false alarm in the family.

    adjusted_(i) = max over j <= i of min(1, (m - j + 1) p_(j)), p sorted ascending. Shapes: p[...] -> [...], the whole
    array one family. Use it for a few planned comparisons, such as systems against baselines. Never worse than
    Bonferroni.

    Source: Holm 1979.

    Raises:
        RivalsError: a p-value is NaN or not between 0 and 1.

    >>> holm([0.01, 0.04, 0.03]).round(6).tolist()
    [0.03, 0.06, 0.06]
    """
    flat, order = _ascending(p_values)
    steps = np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1))
    return _restored(np.minimum(steps, 1.0), order, p_values)


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values adjusted by Benjamini and Hochberg, who bound the share of false alarms among finds.

    adjusted_(i) = min over j >= i of min(1, m p_(j) / j), p sorted ascending. Shapes: p[...] -> [...], the whole array
    one family. Use it to screen many comparisons, such as slices of the queries, where some false alarms can be borne.

    Source: Benjamini and Hochberg 1995.

    Raises:
        RivalsError: a p-value is NaN or not between 0 and 1.

    >>> benjamini_hochberg([0.01, 0.04, 0.03]).round(6).tolist()
    [0.03, 0.04, 0.04]
    """
    flat, order = _ascending(p_values)
    steps = flat[order] * len(flat) / np.arange(1, len(flat) + 1)
    return _restored(np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0), order, p_values)


CORRECTIONS: dict[str, Callable[[ArrayLike], NDArray[np.float64]]] = {
    "holm": holm,
    "benjamini-hochberg": benjamini_hochberg,
}
"""The corrections for several tests by their names."""


def corrected(p_values: ArrayLike, correction: str = "holm") -> NDArray[np.float64]:
    """Return p-values adjusted by the correction of a name: "holm" or "benjamini-hochberg".

    Shapes: p[...] -> [...], the whole array one family.

    Raises:
        RivalsError: an unknown correction; a p-value is NaN or not between 0 and 1.

    >>> corrected([0.01, 0.04, 0.03], "benjamini-hochberg").round(6).tolist()
    [0.03, 0.04, 0.04]
    """
    if correction not in CORRECTIONS:
        raise RivalsError(f"no correction is called '{correction}'; there are {' and '.join(CORRECTIONS)}")
    return CORRECTIONS[correction](p_values)


def effect_size(first: ArrayLike, second: ArrayLike | None = None) -> Any:
    """Return the standardised mean difference of pairs, d_z = mean(d) / sd(d), d = first - second.

    Shapes: first[..., Q], second[..., Q] -> [...] (a float for one pair). Use it to compare gains across measures and
    data; about 0.2 is called small, 0.5 medium, 0.8 large. No difference gives 0; a constant one gives an infinite d_z;
    one query alone gives NaN.

    Source: Cohen 1988, section 2.3.5.

    Raises:
        RivalsError: as `randomisation_test`.

    >>> effect_size([3., 2., 1.], [1., 1., 1.])
    1.0
    """
    differences = paired(first, second)
    mean, spread = differences.mean(axis=-1), _spread(differences)
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = np.where(np.isnan(spread), np.nan, np.where(mean == 0, 0.0, mean / spread))
    return float(sizes) if sizes.ndim == 0 else sizes


def standardised_difference(first: ArrayLike, second: ArrayLike) -> Any:
    """Return the mean difference in units of the systems' own spread over queries, d_av.

    d_av = mean(first - second) / sqrt((var(first) + var(second)) / 2), variances with Q - 1.

    Shapes: first[..., Q], second[..., Q] -> [...] (a float for one pair). Use it beside `effect_size`: d_z grows as two
    systems agree more from query to query, d_av does not, so it can be set beside gains from other data, paired or not.
    No difference gives 0; a difference without any spread is infinite; one query alone gives NaN.

    Source: Cohen 1988, section 2.2 (the average of two variances); Lakens 2013 (doi 10.3389/fpsyg.2013.00863) on
    when to report which.

    Raises:
        RivalsError: as `randomisation_test`.

    >>> round(standardised_difference([3., 2., 1.], [2., 1., 0.]), 6)
    1.0
    """
    mean = paired(first, second).mean(axis=-1)
    variances = [_spread(per_query(values, "values")) ** 2 for values in (first, second)]
    spread = np.sqrt(sum(variances) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = np.where(np.isnan(spread), np.nan, np.where(mean == 0, 0.0, mean / spread))
    return float(sizes) if sizes.ndim == 0 else sizes


def superiority(first: ArrayLike, second: ArrayLike | None = None) -> Any:
    """Return the share of queries on which the first system is better, ties counted half.

    (#{d > 0} + #{d = 0} / 2) / Q, d = first - second. Shapes: first[..., Q], second[..., Q] -> [...] (a float for one
    pair). Use it to say a gain in words: 0.5 is no preference, 0.7 means the first wins on 70 of 100 queries. It does
    not ask by how much.

    Source: McGraw and Wong 1992 (doi 10.1037/0033-2909.111.2.361), the common-language effect size; ties as in Vargha
    and Delaney 2000 (doi 10.3102/10769986025002101); here for paired queries.

    Raises:
        RivalsError: as `randomisation_test`.

    >>> superiority([3., 2., 1., 0.], [1., 1., 1., 1.])
    0.625
    """
    differences = paired(first, second)
    share = ((differences > 0).mean(axis=-1)) + (differences == 0).mean(axis=-1) / 2
    return float(share) if np.ndim(share) == 0 else share


def minimal_detectable_difference(
    first: ArrayLike, second: ArrayLike | None = None, *, alpha: float = 0.05, power: float = 0.8
) -> Any:
    """Return the smallest true mean difference that this many queries show with probability `power`.

    mdd = (t_{1 - alpha/2} + t_{power}) * sd(d) / sqrt(Q), with Student quantiles of Q - 1 degrees of freedom and d =
    first - second.

    Shapes: first[..., Q], second[..., Q] -> [...] (a float for one pair). Use it to say what "no difference found" is
    worth: a difference below it may well be there and not be seen. Four times the queries halve it. One query alone
    gives NaN.

    Source: the usual normal-theory power formula (Cohen 1988, section 2.4), t quantiles for few queries; the
    randomisation test has nearly the power of the t-test.

    Raises:
        RivalsError: as `randomisation_test`; alpha or power not between 0 and 1.

    >>> round(minimal_detectable_difference([0.5, -0.5] * 50), 4)
    0.1422
    """
    from scipy.special import stdtrit

    if not (0 < alpha < 1 and 0 < power < 1):
        raise RivalsError(f"alpha is {alpha} and power {power}; both must lie between 0 and 1")
    differences = paired(first, second)
    queries = differences.shape[-1]
    if queries < 2:
        quantiles = np.nan
    else:
        quantiles = stdtrit(queries - 1, 1 - alpha / 2) + stdtrit(queries - 1, power)
    smallest = np.asarray(quantiles * _spread(differences) / np.sqrt(queries))
    return float(smallest) if smallest.ndim == 0 else smallest


def queries_needed(
    first: ArrayLike,
    second: ArrayLike | None = None,
    *,
    difference: float,
    alpha: float = 0.05,
    power: float = 0.8,
) -> Any:
    """Return how many queries show a true mean difference of this size with probability `power`.

    The smallest Q with (t_{1 - alpha/2} + t_{power}) * sd(d) / sqrt(Q) <= difference, Student quantiles of Q - 1
    degrees of freedom, d = first - second and sd(d) as seen on the queries at hand: `minimal_detectable_difference`
    turned round.

    Shapes: first[..., Q], second[..., Q] -> [...] of whole numbers as floats (a float for one pair). Use it when a
    comparison came out as "cannot be told apart" and the question is how many more queries to judge. One query alone
    gives NaN; no spread gives 2.

    Source: as `minimal_detectable_difference`.

    Raises:
        RivalsError: as `minimal_detectable_difference`; difference not above 0.

    >>> queries_needed([0.5, -0.5] * 50, difference=0.1)
    201.0
    """
    from scipy.special import stdtrit

    if not difference > 0:
        raise RivalsError(f"difference is {difference}; it must be above 0, such as 0.01")
    if not (0 < alpha < 1 and 0 < power < 1):
        raise RivalsError(f"alpha is {alpha} and power {power}; both must lie between 0 and 1")
    spread = np.asarray(_spread(paired(first, second)))
    low, high = np.ones(spread.shape), np.full(spread.shape, 2.0**40)  # low is too few, high is enough
    while (high - low > 1).any():
        middle = np.floor((low + high) / 2)
        smallest = (stdtrit(middle - 1, 1 - alpha / 2) + stdtrit(middle - 1, power)) * spread / np.sqrt(middle)
        enough = (smallest <= difference) & (middle > 1)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    needed = np.where(np.isnan(spread), np.nan, high)
    return float(needed) if needed.ndim == 0 else needed


def paired(first: ArrayLike, second: ArrayLike | None) -> NDArray[np.float64]:
    """Return the differences of two systems' values per query, [..., Q], checked.

    >>> paired([1., 2.], [0., 2.]).tolist()
    [1.0, 0.0]
    """
    differences = per_query(first, "first")
    if second is None:
        return differences
    other = per_query(second, "second")
    if other.shape[-1] != differences.shape[-1]:
        raise RivalsError(
            f"first has {differences.shape[-1]} queries, second {other.shape[-1]}; a paired test needs the same ones"
        )
    return differences - other


def _exact(differences: NDArray[np.float64]) -> float:
    """The share of all sign patterns whose sum is at least as far from 0; half of them do, as the rest mirror them."""
    sums = np.zeros(1)
    for difference in differences[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    return float((np.abs(sums + differences[0]) >= _threshold(differences[None])[0]).mean())


def _exceeding(
    differences: NDArray[np.float64], permutations: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """How many random sign patterns give each row a sum at least as far from 0: differences[S, Q] -> int64[S]."""
    queries = differences.shape[-1]
    packed = (queries + 7) // 8
    doubled, total = 2 * differences.T, differences.sum(axis=-1)
    threshold = _threshold(differences)
    exceeding = np.zeros(len(differences), dtype=np.int64)
    step = max(1, _BLOCK // queries)
    with progress("Randomisation tests", permutations) as advance:
        for start in range(0, permutations, step):
            size = min(step, permutations - start)
            drawn = np.frombuffer(generator.bytes(size * packed), dtype=np.uint8).reshape(size, packed)
            bits = np.unpackbits(drawn, axis=1, count=queries).astype(np.float64)
            exceeding += (np.abs(bits @ doubled - total) >= threshold).sum(axis=0)
            advance(size)
    return exceeding


def _threshold(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """|sum d| less a rounding allowance, so that patterns with the very same sum count as reached."""
    return np.abs(differences.sum(axis=-1)) - 1e-12 * np.abs(differences).sum(axis=-1)


def _spread(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    if differences.shape[-1] < 2:
        return np.full(differences.shape[:-1], np.nan)
    spread = differences.std(axis=-1, ddof=1)
    return np.where(np.ptp(differences, axis=-1) == 0, 0.0, spread)


def _ascending(p_values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    flat = np.asarray(p_values, dtype=np.float64).ravel()
    if not ((flat >= 0) & (flat <= 1)).all():
        raise RivalsError("p-values must lie between 0 and 1")
    return flat, np.argsort(flat, kind="stable")


def _restored(ascending: NDArray[np.float64], order: NDArray[np.int64], p_values: ArrayLike) -> NDArray[np.float64]:
    restored = np.empty_like(ascending)
    restored[order] = ascending
    return restored.reshape(np.shape(p_values))
