"""What makes a figure mean something else than its name says: measures and judgements that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rivals.data.dataset import Judgements
    from rivals.evaluate.alignment import AlignedRun
    from rivals.measures.names import Measure

_LEVELLED = ("RR", "R", "P", "Success", "AP", "Rprec", "RBP", "AUC")


def grade_cautions(measures: Sequence[Measure], judgements: Judgements) -> tuple[str, ...]:
    """Return a sentence for every measure that asks for grades which the judgements do not have.

    The values stay defined, as in ir-measures: a measure whose level no document reaches is 0 everywhere.

    >>> from rivals.data import Judgements
    >>> from rivals.measures import parse_measure
    >>> binary = Judgements.build([0], [0], [1], queries=1, documents=1)
    >>> print(*grade_cautions([parse_measure("P(rel=2)@5")], binary))
    No judgement reaches grade 2 (the highest is 1), so P(rel=2)@5 is 0 for every system and query.
    """
    highest = float(judgements.relevance.max(initial=0.0))
    found = []
    for measure in measures:
        if measure.base in _LEVELLED and measure.max_grade is None and measure.relevance_level > highest:
            found.append(
                f"No judgement reaches grade {measure.relevance_level:g} (the highest is {highest:g}), so {measure.name} "
                "is 0 for every system and query."
            )
        elif measure.base in ("nDCG", "DCG") and measure.gain == "exponential" and _binary(judgements):
            plain = type(measure)(measure.base, measure.k).name
            found.append(f"The judgements are 0 or 1, so {measure.name} is the same as {plain}.")
        elif measure.max_grade is not None and 0 < highest < measure.max_grade:
            fitting = type(measure)(
                measure.base,
                measure.k,
                relevance_level=measure.relevance_level,
                p=measure.p,
                max_grade=round(highest, 4),
            ).name
            share = highest / measure.max_grade if measure.base == "RBP" else (2**highest - 1) / 2**measure.max_grade
            found.append(
                f"{measure.name} expects grades up to {measure.max_grade:g}, the highest here is {highest:g}: even the "
                f"best document counts as {share:.2g} only; {fitting} fits this data."
            )
    return tuple(found)


def depth_cautions(measures: Sequence[Measure], runs: Sequence[AlignedRun], documents: int) -> tuple[str, ...]:
    """Return a sentence for every system whose lists all end before a measure's cut-off, though there are more
    documents: what it would have found there counts as missed."""
    deepest = max((measure.k for measure in measures if measure.base in ("R", "nDCG", "AP") and measure.k), default=0)
    found = []
    for run in runs:
        longest = int(np.diff(run.offsets).max(initial=0))
        if 0 < longest < min(deepest, documents):
            names = [m.name for m in measures if m.base in ("R", "nDCG", "AP") and m.k and m.k > longest]
            found.append(
                f"{run.name} returned at most {longest} documents a query, so {' and '.join(names)} cannot see further."
            )
    return tuple(found)


def condensed_cautions(judgements: Judgements) -> tuple[str, ...]:
    """Return the sentence for condensed lists over judgements that know relevant documents only.

    >>> from rivals.data import Judgements
    >>> len(condensed_cautions(Judgements.build([0], [0], [1], queries=1, documents=1)))
    1
    """
    if (judgements.relevance <= 0).any():
        return ()
    return (
        "No document is judged not relevant, so condensed lists hold relevant documents alone and tell how many were "
        "found, not how they were ranked.",
    )


def _binary(judgements: Judgements) -> bool:
    positive = judgements.relevance[judgements.relevance > 0]
    return bool((positive == 1).all())
