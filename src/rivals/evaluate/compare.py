"""Statistics on systems: each against baselines, all against all, and the groups that the data cannot tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError
from rivals.measures.intervals import bootstrap_interval
from rivals.measures.significance import (
    corrected,
    effect_size,
    minimal_detectable_difference,
    randomisation_test,
    standardised_difference,
    superiority,
)

_SAME = 1e-12  # two values of a measure closer than this differ by rounding only


@dataclass(frozen=True)
class Comparison:
    """One system against one baseline on one measure, query by query.

    `difference` is the mean of system - baseline with the ends `low`, `high` of its bootstrap interval; `p` is the
    p-value of the paired randomisation test and `p_corrected` the same after correction over all comparisons on this
    measure; `detectable` is the smallest true difference this many queries would show with the power asked for (0.8
    unless said otherwise); `wins` and `losses` count queries.

    Three effect sizes: `effect_size` is d_z, the mean difference by the standard deviation of the differences
    (`rivals.measures.effect_size`); `standardised` is d_av, the mean difference by the systems' own spread over queries
    (`standardised_difference`); `superiority` is the share of queries won, ties counted half (`superiority`).

    >>> Comparison("ours", "bm25", "nDCG@10", 0.1, 0.05, 0.15, 0.001, 0.002, 0.4, 0.03, 60, 20).significant()
    True
    """

    system: str
    baseline: str
    measure: str
    difference: float
    low: float
    high: float
    p: float
    p_corrected: float
    effect_size: float
    detectable: float
    wins: int
    losses: int
    standardised: float = float("nan")
    superiority: float = float("nan")

    def significant(self, alpha: float = 0.05) -> bool:
        """Whether the corrected p-value is below `alpha`."""
        return self.p_corrected < alpha


def compare_with_baselines(
    values: NDArray[np.float64],
    systems: Sequence[str],
    measures: Sequence[str],
    baselines: Sequence[str],
    *,
    level: float = 0.95,
    correction: str = "holm",
    power: float = 0.8,
    resamples: int = 10_000,
    permutations: int = 10_000,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Test every system against every baseline on every measure; the correction runs over the comparisons of one
    measure.

    Shapes: values[S, M, Q] per query -> one `Comparison` a pair and measure, pairs in the order given. Two baselines
    meet once. All comparisons share the resampled queries and the random signs.

    Args:
        correction: "holm" or "benjamini-hochberg".
        power: the probability with which a difference of size `detectable` is found.

    Raises:
        RivalsError: a baseline is not among the systems; a value is not finite; an unknown correction.

    >>> values = np.array([[[0.1, 0.2, 0.3]], [[0.5, 0.6, 0.7]]])
    >>> [(c.system, c.baseline, c.p) for c in compare_with_baselines(values, ["bm25", "ours"], ["RR"], ["bm25"])]
    [('ours', 'bm25', 0.25)]
    """
    pairs = baseline_pairs(systems, baselines)
    if not pairs:
        return ()
    differences = _differences(values, pairs)  # [pairs, M, Q]
    p = randomisation_test(differences, permutations=permutations, seed=seed)
    p_corrected = np.stack([corrected(column, correction) for column in p.T], axis=1)
    estimate, low, high = bootstrap_interval(differences, level=level, resamples=resamples, seed=seed)
    size, won = effect_size(differences), superiority(differences)
    detectable = minimal_detectable_difference(differences, alpha=1 - level, power=power)
    rows, others = [row for row, _ in pairs], [other for _, other in pairs]
    standardised = np.where(size == 0, 0.0, standardised_difference(values[rows], values[others]))
    wins, losses = (differences > 0).sum(axis=-1), (differences < 0).sum(axis=-1)
    return tuple(
        Comparison(
            system=systems[row],
            baseline=systems[other],
            measure=measure,
            difference=float(estimate[i, m]),
            low=float(low[i, m]),
            high=float(high[i, m]),
            p=float(p[i, m]),
            p_corrected=float(p_corrected[i, m]),
            effect_size=float(size[i, m]),
            detectable=float(detectable[i, m]),
            wins=int(wins[i, m]),
            losses=int(losses[i, m]),
            standardised=float(standardised[i, m]),
            superiority=float(won[i, m]),
        )
        for m, measure in enumerate(measures)
        for i, (row, other) in enumerate(pairs)
    )


def baseline_pairs(systems: Sequence[str], baselines: Sequence[str]) -> list[tuple[int, int]]:
    """Return (system, baseline) places for every system against every baseline; two baselines meet once.

    Raises:
        RivalsError: a baseline is not among the systems.

    >>> baseline_pairs(["a", "b", "c"], ["a", "b"])
    [(1, 0), (2, 0), (2, 1)]
    """
    for baseline in baselines:
        if baseline not in systems:
            raise RivalsError(f"baseline '{baseline}' is not among the systems: {', '.join(systems)}")
    pairs: list[tuple[int, int]] = []
    for baseline in dict.fromkeys(baselines):
        other = list(systems).index(baseline)
        pairs += [(row, other) for row in range(len(systems)) if row != other and (other, row) not in pairs]
    return pairs


def compare_pairs(
    values: NDArray[np.float64], *, correction: str = "holm", permutations: int = 10_000, seed: int = 0
) -> NDArray[np.float64]:
    """Return the p-values of all pairs of systems on one measure, corrected over all pairs.

    Shapes: values[S, Q] -> p[S, S], symmetric, 1 on the diagonal.

    Raises:
        RivalsError: a value is not finite; an unknown correction.

    >>> compare_pairs(np.array([[0., 0., 0., 0., 0., 0.], [1., 1., 1., 1., 1., 1.]])).tolist()
    [[1.0, 0.03125], [0.03125, 1.0]]
    """
    first, second = np.triu_indices(len(values), k=1)
    p = np.ones((len(values), len(values)))
    if len(first):
        differences = _differences(values, list(zip(first.tolist(), second.tolist(), strict=True)))
        p[first, second] = corrected(randomisation_test(differences, permutations=permutations, seed=seed), correction)
        p[second, first] = p[first, second]
    return p


def compact_letters(means: Sequence[float], p: NDArray[np.float64], *, alpha: float = 0.05) -> tuple[str, ...]:
    """Return group letters: two systems share a letter if and only if the data cannot tell them apart (p >= alpha).

    Starts with one group of all, and for every pair that differs splits each group holding both into one without the
    first and one without the second; groups inside others are dropped, then groups all of whose pairs other groups hold
    too. The group with the best system is `a`. Shapes: means[S], p[S, S] -> S strings.

    Source: Piepho 2004 (doi 10.1198/1061860043515), insert-and-absorb.

    >>> compact_letters([.9, .8, .7], np.array([[1, .5, .01], [.5, 1, .5], [.01, .5, 1]]))
    ('a', 'ab', 'b')
    """
    count = len(means)
    groups = [frozenset(range(count))]
    for first in range(count):
        for second in range(first + 1, count):
            if p[first, second] < alpha:
                split = [
                    part for g in groups for part in ((g - {first}, g - {second}) if {first, second} <= g else (g,))
                ]
                groups = [g for g in dict.fromkeys(split) if not any(g < other for other in split)]
    for group in sorted(groups, key=len):
        others = [g for g in groups if g != group]
        if all(any({i, j} <= g for g in others) for i in group for j in group):
            groups = others
    best_first = sorted(groups, key=lambda g: sorted((-means[i], i) for i in g))
    letters = [_letter(number, len(groups)) for number in range(len(groups))]
    return tuple("".join(letter for letter, g in zip(letters, best_first, strict=True) if i in g) for i in range(count))


def places(means: Sequence[float], p: NDArray[np.float64], *, alpha: float = 0.05) -> tuple[int, ...]:
    """Return each system's place: 1 + the number of systems that are better beyond doubt. Equal places are ties, not an
    order.

    >>> places([.9, .89, .5], np.array([[1, .6, .01], [.6, 1, .01], [.01, .01, 1]]))
    (1, 1, 3)
    """
    mean = np.asarray(means)
    better = (mean[None, :] > mean[:, None]) & (p < alpha)
    return tuple((1 + better.sum(axis=1)).tolist())


def _differences(values: NDArray[np.float64], pairs: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    differences: Any = np.stack([values[row] - values[other] for row, other in pairs])
    differences[np.abs(differences) < _SAME] = 0.0
    return differences


def _letter(number: int, count: int) -> str:
    """Letters a, b, c, ...; from 27 groups on (a1)(a2)..., so that letters written together stay readable."""
    return chr(ord("a") + number) if count <= 26 else f"({chr(ord('a') + number // 26)}{number % 26 + 1})"
