"""Scoring a run anew, positives included: the first half of every filter that trusts another scorer than the source's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.pipeline import Retriever, Transform, check_same_documents
from rivals.data.run import Run, ScoreKind
from rivals.errors import RivalsError


@runtime_checkable
class PairScorer(Protocol):
    """What reads a query and a document together; `rivals.models.CrossEncoder` is one."""

    def score(self, queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float32]:
        """Return the score of every pair (queries[i], documents[i]), float32[N]."""


@dataclass(frozen=True)
class Rescore(Transform):
    """Give every candidate and every positive the score of `scorer`, and sort anew.

    The pairs of all queries of a block are scored in one call, each distinct pair once, so that a cross-encoder can batch
    them by length (one loaded with dtype="fast" reads them in int8 where that pays). Marks stay; the earlier score becomes
    a feature under the earlier scorer's name.

    When to use: `Rescore(cross_encoder) >> PositiveAware(absolute=...)`, margins by a better judge than the retriever, and
    `RandomSource(documents) >> Rescore(dense)` for candidates that have no score of their own.

    Args:
        scorer: a retriever over the same documents, or a pair scorer such as a cross-encoder, which reads the texts (with
            their titles). A positive that is not scored by it gets NaN.
        score_kind: of the new scores; None takes a retriever's own, and "other" for a pair scorer.

    Source: candidates rescored by a cross-encoder before the margin: Qu et al. 2021, RocketQA, section 4.2; Ren et al. 2021.

    Raises:
        RivalsError: no `score` method; when called, other documents than the retriever's, no texts, as many scores as pairs
        not given, a score that is not a number.

    >>> class Overlap:
    ...     def score(self, queries, documents):
    ...         return [len(set(q.split()) & set(d.split())) for q, d in zip(queries, documents)]
    >>> documents = Collection(["a", "b"], ["red cat", "red dog"])
    >>> run = Run.build(Collection(["q"], ["a red cat"], name="query"), documents, [0, 2], [0, 1], [.1, .2])
    >>> rescored = Rescore(Overlap())(run)
    >>> documents.ids[rescored.document].tolist(), rescored.score.tolist()
    (['a', 'b'], [2.0, 1.0])
    """

    scorer: Retriever | PairScorer
    score_kind: ScoreKind | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.scorer, PairScorer):
            raise RivalsError(f"{type(self.scorer).__name__} has no method score; give a retriever or a cross-encoder")

    def __repr__(self) -> str:
        return f"Rescore({self.name})"

    @property
    def name(self) -> str:
        """The retriever's name, or the class name of a pair scorer."""
        return str(getattr(self.scorer, "name", type(self.scorer).__name__))

    def __call__(self, run: Run) -> Run:
        query = np.concatenate([run.query, lists.segment_ids(run.positive_offsets)])
        document = np.concatenate([run.document, run.positive])
        pairs, place = np.unique(query * np.int64(max(len(run.documents), 1)) + document, return_inverse=True)
        score = self._score(run, *np.divmod(pairs, max(len(run.documents), 1)))[place.reshape(-1)]
        if self.score_kind is not None:
            kind = self.score_kind
        else:
            kind = self.scorer.score_kind if isinstance(self.scorer, Retriever) else "other"
        return run.rescored(score[: len(run)], scorer=self.name, score_kind=kind, positive_score=score[len(run) :])

    def _score(self, run: Run, query: NDArray[np.int64], document: NDArray[np.int64]) -> NDArray[np.float32]:
        scores: Any
        if isinstance(self.scorer, Retriever):
            check_same_documents(run.documents, self.scorer.documents)
            scores = self.scorer.score(run.queries, query, document)
        else:
            asked, read = run.queries.full_texts, _texts(run.documents, document)
            scores = self.scorer.score([asked[row] for row in query], read)
        scores = np.asarray(scores, dtype=np.float32)
        if scores.shape != query.shape:
            raise RivalsError(f"{self!r} gave scores of shape {scores.shape} for {len(query)} pairs")
        return scores


def _texts(documents: Collection, rows: NDArray[np.int64]) -> list[str]:
    """The full texts of some rows; of a large collection only those are read."""
    distinct, place = np.unique(rows, return_inverse=True)
    if 4 * len(distinct) > len(documents):
        texts = documents.full_texts
        return [texts[row] for row in rows]
    taken = documents.take(distinct).full_texts
    return [taken[row] for row in place.reshape(-1)]
