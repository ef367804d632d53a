"""Held-out scores: what objectives choose their best weights by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rivals.data.dataset import Dataset
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.measures import ndcg
from rivals.models.encoder import Encoder
from rivals.training.scorers import Scorer, rescore
from rivals.training.second_stage import dev_score

HeldOut = Callable[[], float]
Similarities = Callable[[list[str], list[str]], NDArray[np.float32]]


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


class PoolRanking:
    """nDCG@10 of held-out queries over a pool of documents: a held-out score for whatever scores queries against documents.

    Args:
        similarities: (query texts [Q], document texts [D]) -> scores [Q, D] under the present weights.
        dataset: the held-out queries with judgements. pool: document rows they are ranked against; None = all.
    """

    def __init__(self, similarities: Similarities, dataset: Dataset, pool: NDArray[np.int64] | None = None) -> None:
        self.similarities, self.dataset = similarities, dataset
        self.pool = np.arange(len(dataset.documents)) if pool is None else pool

    def __call__(self) -> float:
        """Return the score.

        Raises:
            RivalsError: no held-out query has a relevant document.
        """
        texts, known = self.dataset.documents.full_texts, self.dataset.judgements.positives
        similarity = self.similarities(self.dataset.queries.full_texts, [texts[i] for i in self.pool])
        place = np.full(len(texts), -1)
        place[self.pool] = np.arange(len(self.pool))
        inside = place[known.document] >= 0
        relevance = np.zeros(similarity.shape, np.float32)
        relevance[known.query[inside], place[known.document[inside]]] = known.relevance[inside]
        judged = np.flatnonzero(np.diff(known.offsets) > 0)
        if not len(judged):
            raise RivalsError("no dev query has a relevant document; check the splits or set evaluations to 0")
        return float(ndcg(similarity[judged], relevance[judged], k=10).mean())


def fast_similarities(encoder: Encoder, queries: list[str], documents: list[str]) -> NDArray[np.float32]:
    """Return cosines [Q, D] from vectors in the fastest precision the machine has.

    Int8 shifts all checkpoints alike by a few thousandths, and choosing between them is all this is for.
    """
    found: NDArray[np.float32] = encoder.encode(
        documents, role="document", dtype="fast", progress=False, normalize=True
    )
    asked: NDArray[np.float32] = encoder.encode(queries, role="query", dtype="fast", progress=False, normalize=True)
    return asked @ found.T


__all__ = ["HeldOut", "PoolRanking", "Reranking", "fast_similarities", "held_out_score"]
