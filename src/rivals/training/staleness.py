"""Dynamic hard negatives while training: every so often, those that the model finds easy by now are replaced by the next ones."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError
from rivals.negatives.samplers_schedule import SlidingWindow
from rivals.negatives.staleness import DynamicNegatives, Score, check_rule
from rivals.training.negatives import Negatives
from rivals.training.regime import Regime

_FILE = "staleness.npz"


class Staleness(Regime):
    """Looks every `check` steps which queries' negatives have become easy, and moves these queries on in their mined lists.

    A query's negatives are replaced when ratio * m < m0 and |m| < floor, m their mean score now and m0 when they were put in; the
    first m0 is taken before step 0. Nothing is mined anew: a check costs the scoring of the negatives in use.

    Args:
        negatives: what the objective draws from, with a `SlidingWindow` sampler; each check that replaces something counts as a new
            version of it.
        score: (query rows, document rows) -> the present model's scores, cosines: `partial(pair_scores, scorer)`.
        ratio, floor, positive_only: see `is_stale`. check: steps between checks.

    The log tells, for each check: seconds, the mean score of the negatives in use, how many queries were stale, were given new ones,
    and are at the end of their lists.

    When to use: negatives mined once that training soon finds easy, where mining anew costs too much.

    Source: Conan-embedding (2024), dynamic hard-negative mining (paper 43).

    Raises:
        RivalsError: negatives under another sampler, check below 1, ratio or floor out of range.

    >>> from rivals.data import Collection, Run
    >>> run = Run.build(Collection(["q"]), Collection(list("abcd")), [0, 4], range(4), [.7, .6, .5, .4])
    >>> level, negatives = 0.6, Negatives(run, SlidingWindow(2, offset=2))
    >>> regime = Staleness(negatives, lambda query, document: np.full(len(query), level), check=10)
    >>> for step, level in ((0, 0.6), (10, 0.55), (20, 0.5)):
    ...     assert regime.should_refresh(step)
    ...     print(regime.refresh(step)["replaced"], negatives.draw(0).candidate.tolist())
    0 [[0, 1]]
    0 [[0, 1]]
    1 [[2, 3]]
    """

    def __init__(
        self,
        negatives: Negatives,
        score: Score,
        *,
        ratio: float = 1.15,
        floor: float = 0.8,
        check: int = 100,
        positive_only: bool = True,
    ) -> None:
        if not isinstance(negatives.sampler, SlidingWindow):
            raise RivalsError(f"negatives that move on need SlidingWindow as their sampler, not {negatives.sampler!r}")
        if isinstance(check, bool) or not isinstance(check, int | np.integer) or check < 1:
            raise RivalsError(f"check must be a whole number of steps, 1 or more, not {check!r}")
        check_rule(ratio, floor)
        self.negatives, self.score, self.check = negatives, score, int(check)
        self._rule: dict[str, Any] = {"ratio": ratio, "floor": floor, "check": check, "positive_only": positive_only}
        self._dynamic: DynamicNegatives | None = None
        self._restored: Mapping[str, Any] = {}

    def should_refresh(self, step: int) -> bool:
        return self._dynamic is None or step % self.check == 0

    def refresh(self, step: int) -> Mapping[str, Any]:
        started, means = time.monotonic(), []

        def score(query: NDArray[np.int64], document: NDArray[np.int64]) -> Any:
            found = self.score(query, document)
            means.append(float(np.mean(found)) if len(query) else float("nan"))
            return found

        if self._dynamic is None:
            self._dynamic = self._made(score)
            stale = replaced = exhausted = 0
        else:
            checked = self._dynamic.update(score)
            stale, replaced = int(checked.stale.sum()), int(checked.replaced.sum())
            exhausted = int(checked.exhausted.sum())
            if replaced:
                self.negatives.sampler = self._dynamic.sampler
                self.negatives.put(self.negatives.run, self.negatives.version + 1)
        return {
            "version": self.negatives.version,
            "seconds": round(time.monotonic() - started, 3),
            "mean": round(means[0], 6),  # of the negatives in use; those of new ones come after it
            "stale": stale,
            "replaced": replaced,
            "exhausted": exhausted,
        }

    def state_dict(self) -> dict[str, Any]:
        options = {} if self._dynamic is None else self._dynamic.state_dict()["options"]
        return {"version": self.negatives.version, "options": options}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._restored = state

    def save(self, folder: Path) -> None:
        if self._dynamic is not None:
            np.savez(folder / _FILE, window=self._dynamic.window, initial=self._dynamic.initial)

    def load(self, folder: Path) -> None:
        if not self._restored["options"]:
            return
        with np.load(folder / _FILE) as arrays:
            state = {**arrays, "options": self._restored["options"]}
        self._dynamic = self._made(None)
        self._dynamic.load_state_dict(state)
        self.negatives.sampler = self._dynamic.sampler
        self.negatives.version = int(self._restored["version"])

    def _made(self, score: Score | None) -> DynamicNegatives:
        assert isinstance(self.negatives.sampler, SlidingWindow)
        return DynamicNegatives(self.negatives.run, self.negatives.sampler, score=score, **self._rule)


__all__ = ["Staleness"]
