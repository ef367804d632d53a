"""Dynamic hard negatives: a query's negatives are replaced by the next of its list once the model finds them easy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.samplers import Draw
from rivals.negatives.samplers_schedule import SlidingWindow

Score = Callable[[NDArray[np.int64], NDArray[np.int64]], Any]


def is_stale(
    current: Any, initial: Any, *, ratio: float = 1.15, floor: float = 0.8, positive_only: bool = True
) -> NDArray[np.bool_]:
    """Return which queries' negatives have become easy: ratio * current < initial and |current| < floor.

    Args:
        current, initial: float[...], the mean score of a query's negatives now and when they were put in; cosines, or
            other scores within -1..1. ratio: above 1. floor: in (0, 1]; negatives that score as much stay, since they may
            be positives which training cannot push away. positive_only: test only where `initial` is above 0 (ours:
            below, the rule would replace negatives that have not changed).

    Source: Conan-embedding (2024), dynamic hard-negative mining. Paper 43.

    Raises:
        RivalsError: ratio <= 1, floor outside (0, 1], shapes that differ, NaN.

    >>> is_stale([0.60, 0.61, 0.81], [0.7, 0.7, 0.95]).tolist()
    [True, False, False]
    """
    check_rule(ratio, floor)
    now, then = np.asarray(current, np.float64), np.asarray(initial, np.float64)
    if now.shape != then.shape:
        raise RivalsError(f"current scores {now.shape} and initial ones {then.shape} must have one shape")
    if np.isnan(now).any() or np.isnan(then).any():
        raise RivalsError("mean scores of negatives must not be NaN; leave out queries without negatives")
    stale = (ratio * now < then) & (np.abs(now) < floor)
    return stale & (then > 0) if positive_only else stale


@dataclass(frozen=True, eq=False)
class Checked:
    """What a check found, bool[A] each: negatives that were `stale`, that were `replaced`, lists that are `exhausted`."""

    stale: NDArray[np.bool_]
    replaced: NDArray[np.bool_]
    exhausted: NDArray[np.bool_]

    def __str__(self) -> str:
        return (
            f"{int(self.stale.sum())} of {len(self.stale)} queries have stale negatives, {int(self.replaced.sum())} were "
            f"given new ones, {int(self.exhausted.sum())} lists are at their end"
        )


class DynamicNegatives:
    """Each query's negatives in use, and the test that replaces them by the next window of its list.

    Every `check` steps of training: score the negatives in use with the current model, `update`, and go on with `draw`.
    A query whose mean score has fallen by the ratio, and is below the floor, gets the next k of its ranked list, and the
    mean it is compared with from then on is that of the new ones under the current model.

    Args:
        run: candidates mined once, with the filters' marks. sampler: k and offset. ratio, floor, positive_only: see
            `is_stale`. check: steps between two checks.
        score: the current model's scores of pairs (query rows int64[m], document rows int64[m]) -> float[m], for the
            first negatives; None takes the run's own scores, right if the model to be trained mined them.

    Source: Conan-embedding (2024). Paper 43. What new negatives are compared with is our reading.

    Raises:
        RivalsError: check < 1; as `is_stale`.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(list("abcd")), [0, 4], range(4), [.7, .6, .5, .4])
    >>> dynamic = DynamicNegatives(run, SlidingWindow(2, offset=2))
    >>> print(dynamic.update(lambda query, document: np.full(len(query), 0.3)), dynamic.draw.candidate.tolist())
    1 of 1 queries have stale negatives, 1 were given new ones, 1 lists are at their end [[2, 3]]
    """

    def __init__(
        self,
        run: Run,
        sampler: SlidingWindow,
        *,
        ratio: float = 1.15,
        floor: float = 0.8,
        check: int = 100,
        positive_only: bool = True,
        score: Score | None = None,
    ) -> None:
        check_rule(ratio, floor)
        if isinstance(check, bool) or not isinstance(check, int | np.integer) or check < 1:
            raise RivalsError(f"check must be a whole number of steps, 1 or more, not {check!r}")
        self.run, self.ratio, self.floor, self.check = run, float(ratio), float(floor), int(check)
        self.positive_only = bool(positive_only)
        self._last = sampler.last_window(run)
        numbers = np.broadcast_to(sampler.replaced, len(run.queries))
        self.sampler = sampler.at_window(np.minimum(numbers, self._last))
        self.draw = self._drawn()
        own = run.score[self.draw.row].astype(np.float64) if len(run) else np.zeros(self.draw.row.shape)
        self.initial = self._mean(own if score is None else self._scores(score, self.draw)).astype(np.float32)

    @property
    def window(self) -> NDArray[np.int32]:
        """How many times each query's negatives were replaced, int32[A]."""
        return self.sampler.replaced.astype(np.int32)

    def due(self, step: int) -> bool:
        """Return whether a check belongs after `step` steps of training.

        >>> from rivals.data import Collection
        >>> run = Run.build(Collection(["q"]), Collection(["a"]), [0, 1], [0], [.7])
        >>> [step for step in range(250) if DynamicNegatives(run, SlidingWindow(1)).due(step)]
        [100, 200]
        """
        return step > 0 and step % self.check == 0

    def update(self, score: Score) -> Checked:
        """Score the negatives in use, replace those that are stale, and return what was found.

        Args:
            score: the current model's, see above. It is asked for all negatives in use, then for the new ones.

        Raises:
            RivalsError: a score that is NaN or infinite, or not one for each pair.
        """
        has = self.draw.mask.sum(1) > 0
        stale = np.zeros(len(has), dtype=np.bool_)
        current = self._mean(self._scores(score, self.draw))
        stale[has] = is_stale(
            current[has], self.initial[has], ratio=self.ratio, floor=self.floor, positive_only=self.positive_only
        )
        replaced = stale & (self.sampler.replaced < self._last)
        if replaced.any():
            self.sampler = self.sampler.at_window(self.sampler.replaced + replaced)
            self.draw = self._drawn()
            new = self._mean(self._scores(score, self.draw, replaced))
            self.initial = np.where(replaced, new, self.initial).astype(np.float32)
        return Checked(stale, replaced, self.sampler.replaced >= self._last)

    def state_dict(self) -> dict[str, Any]:
        """Return each query's window and initial mean, as lists, and the options."""
        return {
            "window": self.sampler.replaced.tolist(),
            "initial": self.initial.tolist(),
            "options": self._options(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the windows and means of a state.

        Raises:
            RivalsError: a state of another run or other options.
        """
        for name, value in self._options().items():
            if state["options"].get(name) != value:
                raise RivalsError(
                    f"the state is of dynamic negatives with {name}={state['options'].get(name)!r}, here it is {value!r}"
                )
        window = np.asarray(state["window"], np.int64)
        if window.shape != self._last.shape or (window > self._last).any() or (window < 0).any():
            raise RivalsError("the state's windows do not fit this run's lists; go on with the run it was made with")
        self.sampler = self.sampler.at_window(window)
        self.initial = np.asarray(state["initial"], np.float32)
        self.draw = self._drawn()

    def _options(self) -> dict[str, Any]:
        return {
            "queries": len(self.run.queries),
            "k": self.sampler.k,
            "offset": self.sampler.offset,
            "ratio": self.ratio,
            "floor": self.floor,
            "check": self.check,
            "positive_only": self.positive_only,
        }

    def _drawn(self) -> Draw:
        return self.sampler.draw_available(self.run, np.random.default_rng(0))  # nothing is left to chance

    def _scores(self, score: Score, draw: Draw, queries: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """The scores of the negatives drawn, [A, k]; of some queries only, 0 elsewhere."""
        wanted = draw.mask if queries is None else draw.mask & queries[:, None]
        query = np.nonzero(wanted)[0]
        given = np.asarray(score(query, draw.candidate[wanted]), np.float64)
        if given.shape != query.shape:
            raise RivalsError(f"the scores of {len(query)} pairs have the shape {given.shape}; give one each")
        if not np.isfinite(given).all():
            name = self.run.queries.ids[query[int((~np.isfinite(given)).argmax())]]
            raise RivalsError(f"query '{name}': the current score of a negative is not finite")
        scores = np.zeros(draw.mask.shape)
        scores[wanted] = given
        return scores

    def _mean(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(self.draw.mask, scores, 0.0).sum(1) / np.maximum(self.draw.mask.sum(1), 1)

    def __repr__(self) -> str:
        return f"DynamicNegatives({len(self.run.queries)} queries, {self.sampler!r}, ratio={self.ratio}, floor={self.floor})"


def check_rule(ratio: float, floor: float) -> None:
    """Raise a RivalsError unless ratio is above 1 and floor in (0, 1]."""
    if not ratio > 1:
        raise RivalsError(f"ratio must be above 1, not {ratio}")
    if not 0 < floor <= 1:
        raise RivalsError(f"floor must be above 0 and at most 1, not {floor}")
