"""Held-out scores: what objectives choose their best weights by."""

from __future__ import annotations

from collections.abc import Callable

from rivals.data.dataset import Dataset
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.training.scorers import Scorer, rescore
from rivals.training.second_stage import dev_score

HeldOut = Callable[[], float]


def held_out_score(evaluate: HeldOut | None) -> float:
    """Return what `evaluate` gives.

    Raises:
        RivalsError: there is none.

    >>> held_out_score(lambda: 0.5)
    0.5
    """
    if evaluate is None:
        raise RivalsError("choosing a checkpoint needs a held-out score; give evaluate= or set evaluations to 0")
    return float(evaluate())


class Reranking:
    """nDCG@10 of the candidates of a run under a scorer's present weights: a held-out score for rankers and retrievers.

    Args:
        scorer: over the held-out queries; it shares its module with the one that is trained.
        run: held-out candidates. dataset: the held-out queries with judgements; a relevant document that is not in the run is missed.
    """

    def __init__(self, scorer: Scorer, run: Run, dataset: Dataset) -> None:
        self.scorer, self.run, self.dataset = scorer, run, dataset

    def __call__(self) -> float:
        """Return the score."""
        return dev_score(rescore(self.scorer, self.run), self.dataset)


__all__ = ["HeldOut", "Reranking", "held_out_score"]
