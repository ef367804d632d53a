"""Which of several training sets hurt: training without each in turn, compared query by query."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals.errors import RivalsError
from rivals.measures.intervals import Interval, bootstrap_interval
from rivals.measures.significance import holm, randomisation_test
from rivals.progress import progress

__all__ = ["LeaveOneOut", "SetEffect", "leave_one_out"]

Data = TypeVar("Data")
Model = TypeVar("Model")


@dataclass(frozen=True)
class SetEffect:
    """What leaving one training set out changes: `gain` is the measure without it less that with all, by query.

    `p` is of the paired randomisation test, `p_corrected` after Holm's correction over all sets.
    """

    name: str
    without: float
    gain: Interval
    p: float
    p_corrected: float


@dataclass(frozen=True)
class LeaveOneOut:
    """The measure with all training sets, and what leaving out each one changes, the most harmful set first."""

    full: Interval
    effects: tuple[SetEffect, ...]
    queries: int

    def harmful(self, alpha: float = 0.05) -> tuple[str, ...]:
        """Return the sets without which the model is better, by the corrected test."""
        return tuple(e.name for e in self.effects if float(e.gain.estimate) > 0 and e.p_corrected < alpha)

    def needed(self, alpha: float = 0.05) -> tuple[str, ...]:
        """Return the sets without which the model is worse, by the corrected test."""
        return tuple(e.name for e in self.effects if float(e.gain.estimate) < 0 and e.p_corrected < alpha)

    def __str__(self) -> str:
        width = max(len(e.name) for e in self.effects)
        lines = [f"all {len(self.effects)} sets: {self.full} over {self.queries:,} queries"]
        lines += [
            f"without {e.name:<{width}}  {e.without:.3f}  gain {e.gain}  corrected p {e.p_corrected:.4f}"
            for e in self.effects
        ]
        return "\n".join(lines)


def leave_one_out(
    sets: Mapping[str, Data],
    train: Callable[[dict[str, Data]], Model],
    evaluate: Callable[[Model], ArrayLike],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    permutations: int = 10_000,
    seed: int = 0,
) -> LeaveOneOut:
    """Train on all sets and on all but each, and say which sets help, which hurt and which cannot be told apart.

    The sets that hurt are candidates to drop, or to relabel: in large mixtures a few noisy sets cost more than they
    give. The gain holds for leaving out one set alone; drop several one after the other, and measure again.

    Args:
        sets: training data by name, at least two. train: makes a model of a part of them, the same way each time (same
            seed). evaluate: the measure of every held-out query, float[Q], or float[S, Q] of several trainings, which
            are averaged. level, resamples: of the bootstrap intervals. permutations: of the tests. seed: of both.

    Cost: len(sets) + 1 trainings.

    Source: the pruning of data sets in Thakur et al. (2025), RLHN, section 2. Paper 26; tests and intervals are ours.

    Raises:
        RivalsError: fewer than two sets, values that are not finite, or not of the same queries each time.

    >>> report = leave_one_out(
    ...     {"good": 1.0, "noise": -1.0, "more": 0.5},
    ...     lambda kept: sum(kept.values()),
    ...     lambda quality: quality + np.arange(40) / 100,
    ... )
    >>> report.harmful(), report.needed()
    (('noise',), ('more', 'good'))
    """
    if len(sets) < 2:
        raise RivalsError(f"leaving one set out needs at least two training sets; got {len(sets)}")
    values: dict[str | None, NDArray[np.float64]] = {}
    with progress("Training without each set", len(sets) + 1) as advance:
        for left in (None, *sets):
            kept = {name: data for name, data in sets.items() if name != left}
            values[left] = _measured(evaluate(train(kept)), left)
            if values[left].shape != values[None].shape:
                raise RivalsError(
                    f"evaluate gave {len(values[left])} values without '{left}' and {len(values[None])} with all sets; it "
                    "must measure the same queries each time"
                )
            advance(note="all" if left is None else f"without {left}")
    full = values[None]
    gains = np.stack([values[name] - full for name in sets])
    gains[np.abs(gains) < 1e-12] = 0.0
    p = np.atleast_1d(np.asarray(randomisation_test(gains, permutations=permutations, seed=seed), dtype=np.float64))
    corrected = holm(p)

    def mean(of: NDArray[np.float64]) -> Interval:
        return Interval(*map(float, bootstrap_interval(of, level=level, resamples=resamples, seed=seed)))

    effects = [
        SetEffect(name, float(values[name].mean()), mean(gains[row]), float(p[row]), float(corrected[row]))
        for row, name in enumerate(sets)
    ]
    effects.sort(key=lambda e: -float(e.gain.estimate))
    return LeaveOneOut(mean(full), tuple(effects), len(full))


def _measured(found: ArrayLike, left: str | None) -> NDArray[np.float64]:
    values = np.asarray(found, np.float64)
    where = "with all sets" if left is None else f"without '{left}'"
    if values.ndim not in (1, 2) or not values.size:
        raise RivalsError(f"evaluate must give one value a query, or [S, Q]; {where} it gave shape {values.shape}")
    if not np.isfinite(values).all():
        raise RivalsError(f"evaluate gave values that are not finite {where}")
    return values if values.ndim == 1 else values.mean(0)
