"""Claims as comparisons of figures over seeds, and the verdict that an interval allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

Verdict = Literal["holds", "does not hold here", "cannot be told apart"]
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Higher:
    """The claim that figure `better` exceeds figure `than` by more than `margin`, seed by seed."""

    better: str
    than: str
    margin: float = 0.0

    def __str__(self) -> str:
        by = f" by more than {self.margin:g}" if self.margin else ""
        return f"{self.better} > {self.than}{by}"

    def difference(self, figures: Figures) -> float:
        """Return how far one seed's figures are on the claim's side of its margin, plus the margin."""
        return figures[self.better] - figures[self.than]


@dataclass(frozen=True)
class Above:
    """The claim that a figure, which is itself a difference or a rate, is above a limit."""

    figure: str
    margin: float = 0.0

    def __str__(self) -> str:
        return f"{self.figure} > {self.margin:g}"

    def difference(self, figures: Figures) -> float:
        """Return the figure of one seed."""
        return figures[self.figure]


@dataclass(frozen=True)
class Paper:
    """A script's subject.

    Args:
        number: of the paper. claim: what it says, in a sentence, with its figures.
        expects: the comparisons that test it here; the first is the claim, the others are told beside it.
        data: what it is tested on, and how small. run: (seed, smoke) -> figures by name; `smoke` means seconds.
        notes: departures from the paper that a reader must know.
    """

    number: int
    claim: str
    expects: Sequence[Higher | Above]
    data: str
    run: Callable[[int, bool], Figures]
    notes: str = ""


@dataclass(frozen=True)
class Comparison:
    """A comparison over seeds: its mean difference, 95 % t interval and verdict."""

    text: str
    mean: float
    low: float
    high: float
    verdict: Verdict


def compare(expected: Higher | Above, seeds: Sequence[Figures]) -> Comparison:
    """Judge a comparison from the figures of every seed.

    The interval is Student's over seeds: it holds if all of the interval lies above the margin, does not if all of it
    lies below, and cannot be told apart otherwise, or with fewer than three seeds.

    >>> seeds = [{"a": 0.7 + e, "b": 0.6} for e in (0.0, 0.01, 0.02)]
    >>> result = compare(Higher("a", "b"), seeds)
    >>> result.verdict, round(result.mean, 2)
    ('holds', 0.11)
    """
    values = np.array([expected.difference(figures) for figures in seeds], dtype=float)
    mean = float(values.mean())
    if len(values) < 3 or not np.isfinite(values).all():
        return Comparison(str(expected), mean, -math.inf, math.inf, "cannot be told apart")
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    low, high = mean - half, mean + half
    verdict: Verdict = "cannot be told apart"
    if low > expected.margin:
        verdict = "holds"
    elif high < expected.margin or (half == 0 and mean == expected.margin):
        verdict = "does not hold here"
    return Comparison(str(expected), mean, low, high, verdict)
