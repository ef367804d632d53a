"""Marks of several runs about the same candidates, brought together: what uniting and fusing runs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals.data.run import COLUMNS, Run
from rivals.errors import RivalsError

#: How two opinions about one candidate become one. Each rule has the column's default as its neutral element, so a run
#: that says nothing changes nothing, and each gives the same when an opinion comes twice.
_JOIN: dict[str, np.ufunc] = {
    "keep": np.logical_and,  # one mark is enough
    "weight": np.minimum,
    "label": np.maximum,  # positive beats negative beats unjudged
    "target": np.fmax,
    "fn_probability": np.fmax,
}


def merge_marks(
    runs: Sequence[Run], places: Sequence[NDArray[np.int64]], n: int
) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """Return the columns of marks of `n` united candidates, and the names of their reasons.

    A candidate marked in one run is marked in the union; of two weights the smaller counts, of two soft targets or
    false-negative probabilities the larger; a label 1 beats 0, which beats -1; reasons add up. A column that no run has
    set is left out. Weights above 1 count only where every run that holds the candidate gives one.

    Args:
        places: for each run, where its candidates stand among the united ones, int64[len(run)].

    Raises:
        RivalsError: more than 64 different reasons in all.
    """
    columns: dict[str, NDArray[Any]] = {}
    for name, join in _JOIN.items():
        kind, default = COLUMNS[name]
        said = [(getattr(run, name), place) for run, place in zip(runs, places, strict=True)]
        if all(_is_default(column, default) for column, _ in said):
            continue
        values: NDArray[Any] = np.full(n, default, dtype=kind)
        seen = np.zeros(n, dtype=bool)
        for column, place in said:
            values[place] = np.where(seen[place], join(values[place], column), column)
            seen[place] = True
        columns[name] = values
    reasons = tuple(dict.fromkeys(name for run in runs for name in run.reasons))
    if len(reasons) > 64:
        raise RivalsError(f"the runs to combine name {len(reasons)} different reasons; a run holds at most 64")
    if reasons:
        bits = np.zeros(n, dtype=np.uint64)
        for run, place in zip(runs, places, strict=True):
            for i, name in enumerate(run.reasons):
                marked = (run.reason >> np.uint64(i)) & np.uint64(1)
                bits[place] |= marked << np.uint64(reasons.index(name))
        columns["reason"] = bits
    return columns, reasons


def merge_features(runs: Sequence[Run], places: Sequence[NDArray[np.int64]], n: int) -> dict[str, NDArray[np.float32]]:
    """Return the features of `n` united candidates; of two runs that know one of the same name, the first counts.

    A feature is NaN where no run that has it holds the candidate. `places` is as for `merge_marks`.
    """
    merged: dict[str, NDArray[np.float32]] = {}
    for run, place in zip(runs, places, strict=True):
        for name, column in run.features.items():
            values = merged.setdefault(name, np.full(n, np.nan, dtype=np.float32))
            values[place] = np.where(np.isnan(values[place]), column, values[place])
    return merged


def _is_default(column: NDArray[Any], default: Any) -> bool:
    return bool((column != column).all() if default != default else (column == default).all())
