"""Negatives from the joint candidates of several retrievers: who found what, and a sampler that gives each retriever its say."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.samplers import Sampler

Policy = Literal["mixture", "union", "agreement"]


def found_by(run: Run) -> NDArray[np.bool_]:
    """Return which of a united run's sources proposed each candidate, bool[n, m], in the order of `run.sources`.

    A union keeps every member's score as a feature, NaN where the member did not propose the candidate. In a run of one source all
    candidates are its own.

    Raises:
        RivalsError: the run has several sources, but not their scores.

    >>> from rivals.data import Collection
    >>> features = {"bm25": [3.0, np.nan], "dense": [0.9, 0.8]}
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8], features=features, sources=["bm25", "dense"])
    >>> found_by(run).tolist()
    [[True, True], [False, True]]
    """
    if len(run.sources) == 1:
        return np.ones((len(run), 1), bool)
    if missing := [name for name in run.sources if name not in run.features]:
        raise RivalsError(
            f"the run does not say which candidates '{missing[0]}' proposed; unite the retrievers with | and keep the features"
        )
    return np.column_stack([~np.isnan(run.features[name]) for name in run.sources])


def pool_overlap(run: Run) -> NDArray[np.float64]:
    """Return how much of their candidates the sources of a united run share, float64[m, m]: Jaccard, over all queries.

    Use it before training on joint negatives: sources that agree on nearly all bring one kind of label noise, not two.

    Source: "Towards Robust Ranker for Text Retrieval" (2023), paper 4; the measure is ours.

    >>> from rivals.data import Collection
    >>> features = {"a": [4, 3, 2, 1, np.nan, np.nan], "b": [np.nan, np.nan, 4, 3, 2, 1]}
    >>> run = Run.build(Collection(["q"]), Collection(list("123456")), [0, 6], range(6), range(6, 0, -1),
    ...                 features=features, sources=["a", "b"])
    >>> pool_overlap(run).round(3).tolist()
    [[1.0, 0.333], [0.333, 1.0]]
    """
    found = found_by(run).astype(np.float64)
    both = found.T @ found
    either = found.sum(0)[:, None] + found.sum(0)[None, :] - both
    return np.where(either > 0, both / np.where(either > 0, either, 1.0), 0.0) + np.diag(found.sum(0) == 0)


class Joint(Sampler):
    """Draw `k` negatives from the joint candidates of several retrievers.

    "mixture" draws a retriever, all alike likely, then one of its candidates, all alike likely; "agreement" in proportion to how many
    retrievers found a candidate, the same where their lists are equally long; "union" is `Uniform` over all. The first is drawn so
    and the others alike from what is left. For the negatives of one retriever alone, mine with it alone.

    Use it for rankers: the label noise of the strongest retriever's top hits is concentrated, that of many is spread and hurts less.

    Args:
        k: 15 of lists of 200 is the method's order. policy: see above. skip, window, seed: as for every sampler, in the order of
            the run's scores.

    Source: "Towards Robust Ranker for Text Retrieval" (2023), paper 4. Which policy the authors have is not known.

    Raises:
        RivalsError: an unknown policy; while drawing, a run that does not say who found what (`found_by`).

    >>> from rivals.data import Collection
    >>> features = {"a": [4, 3, 2, np.nan, np.nan], "b": [np.nan, np.nan, 4, 3, 2]}
    >>> run = Run.build(Collection(["q"]), Collection(list("12356")), [0, 5], range(5), range(5, 0, -1),
    ...                 features=features, sources=["a", "b"])
    >>> Joint(1).probabilities(run).round(4).tolist()
    [0.1667, 0.1667, 0.3333, 0.1667, 0.1667]
    """

    def __init__(
        self, k: int = 15, *, policy: Policy = "mixture", window: int | None = None, skip: int = 0, seed: int = 0
    ) -> None:
        if policy not in get_args(Policy):
            raise RivalsError(f"policy is {policy!r}; use {', '.join(get_args(Policy))}")
        super().__init__(k, window=window, skip=skip, seed=seed)
        self.policy = policy

    def log_weights(self, run: Run, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the logarithm of the weight of each pool row."""
        if self.policy == "union":
            return np.zeros(len(rows))
        found = found_by(run)[rows].astype(np.float64)
        if self.policy == "agreement":
            weight = found.sum(1)
        else:
            sizes = np.column_stack([lists.segment_reduce(np.add, column, offsets) for column in found.T])
            share = np.repeat(1 / np.maximum(sizes, 1.0), np.diff(offsets), axis=0)
            weight = (found * share).sum(1)
        with np.errstate(divide="ignore"):
            return np.log(weight)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, policy='{self.policy}')"
