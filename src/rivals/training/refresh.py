"""Negatives that move with the model: mined anew while training, from the present weights or from those of the last time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rivals.data.run import Run, concatenate
from rivals.errors import RivalsError
from rivals.training.checkpoint import restore_weights, trainable_state
from rivals.training.negatives import Negatives
from rivals.training.regime import Regime

_WEIGHTS, _RUN = "lagging.safetensors", "negatives.parquet"


class Refresh(Regime):
    """Mine the training queries' negatives anew every `every` steps.

    Args:
        negatives: what the objective draws from; each refresh puts a new run there.
        mine: query rows -> the marked run of these queries under the model's present weights: encode what the weights changed, search,
            filter. It is called without gradients and dropout.
        model: the model `mine` reads; needed for `lag`, which mines with weights it had before.
        every: steps between refreshes. first: the first of them (default: at step `every`; 0 mines before training starts).
        lag: 0 mines with the present weights; 1 with those of the refresh before, as a second process beside training would (the
            run is then one period old, and so is the one it would have found).
        chunks: mine only every chunks-th of the queries each time, in turn; the others keep their run.

    The log tells, for each refresh: seconds, how many candidates stayed, the mean score of positives and of what is kept, and the share
    that the filters marked, which is the mining's own estimate of false negatives.

    When to use: while training moves the model far from the one that mined, so that its negatives become easy. Costs an encoding of
    all documents each time; `docs/training.md` has the measured gain.

    Source: Xiong et al. 2021, ANCE (paper 37: every 10,000 steps, 5 chunks, a second process); paper 29 for its baseline.

    Raises:
        RivalsError: every, chunks below 1, lag not 0 or 1, lag without model.

    >>> from rivals.data import Collection
    >>> from rivals.negatives import Top
    >>> queries, documents = Collection(["q"]), Collection(["a", "b"])
    >>> def mine(rows):
    ...     return Run.build(queries.take(rows), documents, [0, 2], [0, 1], [.3, .4])
    >>> negatives = Negatives(Run.build(queries, documents, [0, 2], [0, 1], [.2, .1]), Top(1))
    >>> regime = Refresh(negatives, mine, every=10)
    >>> [step for step in range(25) if regime.should_refresh(step) and regime.refresh(step)], negatives.draw(0).candidate.tolist()
    ([10, 20], [[1]])
    """

    def __init__(
        self,
        negatives: Negatives,
        mine: Callable[[NDArray[np.int64]], Run],
        *,
        every: int,
        model: torch.nn.Module | None = None,
        first: int | None = None,
        lag: int = 0,
        chunks: int = 1,
    ) -> None:
        if every < 1 or chunks < 1:
            raise RivalsError(f"every and chunks must be 1 or more, not {every} and {chunks}")
        if lag not in (0, 1):
            raise RivalsError(f"lag must be 0 (the present weights) or 1 (those of the refresh before), not {lag}")
        if lag and model is None:
            raise RivalsError("lag=1 needs the model, to put its former weights in for mining")
        self.negatives, self.mine, self.model = negatives, mine, model
        self.every, self.first, self.lag, self.chunks = every, every if first is None else first, lag, chunks
        self._next = self.first
        self._former = trainable_state(model) if lag and model is not None else None

    def should_refresh(self, step: int) -> bool:
        return step >= self._next

    def refresh(self, step: int) -> Mapping[str, Any]:
        started, before = time.monotonic(), self.negatives.run
        version = self.negatives.version + 1
        rows = np.arange((version - 1) % self.chunks, len(before.queries), self.chunks)
        if self._former is None or self.model is None:
            found = self.mine(rows)
        else:
            present = trainable_state(self.model)
            restore_weights(self.model, self._former)
            try:
                found = self.mine(rows)
            finally:
                restore_weights(self.model, present)
            self._former = present
        run = replace(renewed(before, rows, found), version=version, created_step=step)
        self.negatives.put(run, version)
        self._next = step + self.every
        return {
            "version": version,
            "seconds": round(time.monotonic() - started, 3),
            **movement(before.take(rows), found),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"next": self._next, "version": self.negatives.version}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._next = int(state["next"])
        self.negatives.version = int(state["version"])

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        from rivals.data import save_run

        if self.negatives.version:
            save_run(self.negatives.run, folder / _RUN)
        if self._former is not None:
            save_file(self._former, folder / _WEIGHTS)

    def load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        from rivals.data import load_run

        if self.negatives.version:
            now = self.negatives.run
            self.negatives.run = load_run(folder / _RUN, now.queries, now.documents)
        if self._former is not None:
            self._former = load_file(folder / _WEIGHTS)


def movement(before: Run, after: Run) -> dict[str, float]:
    """Return how mined negatives moved between two runs over the same queries.

    `stayed`: share of the new run's kept candidates that were kept before; `positives`, `kept`: mean scores now; `marked`: share of
    candidates marked now and, in `marked_before`, then.

    >>> from rivals.data import Collection
    >>> queries, documents = Collection(["q"]), Collection(["a", "b", "c"])
    >>> one = Run.build(queries, documents, [0, 2], [0, 1], [.3, .2])
    >>> movement(one, Run.build(queries, documents, [0, 2], [0, 2], [.9, .8]))["stayed"]
    0.5
    """
    keys = [(run.query * np.int64(len(run.documents)) + run.document)[run.keep] for run in (before, after)]
    scored = after.positive_score[np.isfinite(after.positive_score)]
    found = {
        "stayed": np.isin(keys[1], keys[0]).mean() if len(keys[1]) else 0.0,
        "kept": after.score[after.keep].mean() if after.keep.any() else float("nan"),
        "positives": scored.mean() if len(scored) else float("nan"),
        "marked": (~after.keep).mean() if len(after) else 0.0,
        "marked_before": (~before.keep).mean() if len(before) else 0.0,
    }
    return {name: round(float(value), 6) for name, value in found.items() if np.isfinite(value)}


def renewed(run: Run, rows: NDArray[np.int64], found: Run) -> Run:
    """Return the run with the candidates of the queries `rows` replaced by those found anew.

    Raises:
        RivalsError: as many queries as rows were not mined, or some were, but with other sources or filters.
    """
    if len(found.queries) != len(rows):
        raise RivalsError(
            f"mining anew gave {len(found.queries)} queries for {len(rows)} rows; it must keep their order"
        )
    if len(rows) == len(run.queries):
        return found
    if (found.sources, found.reasons) != (run.sources, run.reasons):
        raise RivalsError(
            "mining some of the queries anew needs the sources and filters of the first run, in the same order"
        )
    rest = np.setdiff1d(np.arange(len(run.queries)), rows)
    joined = concatenate([run.take(rest), replace(found, documents=run.documents, features=_common(run, found))])
    place = np.empty(len(run.queries), np.int64)
    place[np.concatenate([rest, rows])] = np.arange(len(run.queries))
    return joined.take(place)


def _common(run: Run, found: Run) -> dict[str, NDArray[np.float32]]:
    absent = np.full(len(found), np.nan, np.float32)
    return {name: found.features.get(name, absent) for name in run.features}
