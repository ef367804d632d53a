"""What a test set of this size could not have shown, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rivals.measures.significance import minimal_detectable_difference

if TYPE_CHECKING:
    from rivals.evaluate.result import Evaluation


def detectable_of_pairs(values: NDArray[np.float64], *, alpha: float, power: float) -> NDArray[np.float64]:
    """Return the smallest difference that each pair of systems could show, symmetric, NaN on the diagonal.

    Shapes: values[S, Q] of one measure -> [S, S]; see `rivals.measures.minimal_detectable_difference`.

    >>> detectable_of_pairs(np.array([[0., 1.] * 50, [1., 0.] * 50]), alpha=0.05, power=0.8).round(3).tolist()
    [[nan, 0.284], [0.284, nan]]
    """
    smallest = np.full((len(values), len(values)), np.nan)
    first, second = np.triu_indices(len(values), k=1)
    if len(first):
        found = minimal_detectable_difference(values[first], values[second], alpha=alpha, power=power)
        smallest[first, second] = smallest[second, first] = found
    return smallest


def power_sentence(evaluation: Evaluation, measure: str | None = None) -> str:
    """Return the sentence that says which differences this many queries cannot show; "" for a single system.

    The bound comes from the spread of the paired differences seen here, so it differs by pair; the smallest and the
    largest are named. It is that of one test at the level of the evaluation; correcting for several tests raises it.
    """
    measure = measure or evaluation.primary
    if len(evaluation.systems) < 2:
        return ""
    values = evaluation.values[:, evaluation.measures.index(measure)]
    smallest = detectable_of_pairs(values, alpha=1 - evaluation.level, power=evaluation.power)
    pairs = [
        (float(smallest[i, j]), f"{evaluation.systems[i]} and {evaluation.systems[j]}")
        for i in range(len(values))
        for j in range(i)
        if np.isfinite(smallest[i, j]) and smallest[i, j] > 0
    ]
    if not pairs:
        return "No difference varies from query to query here, so nothing can be said of power."
    (low, one), (high, other) = min(pairs), max(pairs)
    bound = f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f} ({one}) to {high:.3f} ({other})"
    return (
        f"With {len(evaluation.queries):,} queries a difference below {bound} {measure} cannot be seen "
        f"({evaluation.power:.0%} power, one test at the {1 - evaluation.level:.0%} level)."
    )
