"""Pipelines over runs: retrievers make them, transforms change them, `|` unites and `>>` composes.

Mining negatives is a pipeline which ends in a sampler, `(bm25 | dense) >> PositiveAware(relative=0.05) >> Top(4)`; two-stage search is
one which ends in a reranker, `(bm25 | dense) >> cross_encoder`. The same objects serve off line, while training and in the server.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.dataset import Dataset
from rivals.data.marks import merge_features, merge_marks
from rivals.data.run import Run, ScoreKind
from rivals.errors import RivalsError


class Retriever(ABC):
    """Makes a run: up to `k` candidates for every query.

    A subclass says its `name`, `score_kind` and `documents` and implements `retrieve` and `score`. One that only
    proposes, as a random source does, sets `scores_pairs` to False and gives NaN for scores it does not know; a union
    is then scored by another member.
    """

    name: str = "retriever"
    score_kind: ScoreKind = "other"
    scores_pairs: bool = True
    documents: Collection

    @abstractmethod
    def retrieve(self, queries: Collection, k: int) -> Run:
        """Return up to `k` candidates per query, scored."""

    @abstractmethod
    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return this retriever's score of each pair (query_row[i], document_row[i]), float32[m]."""

    def __call__(self, queries: Collection | Dataset, k: int = 100) -> Run:
        """Retrieve. A `Dataset` also gives the run its known positives, scored by this same retriever.

        Raises:
            RivalsError: k < 1, or a dataset over other documents than the retriever's.
        """
        if k < 1:
            raise RivalsError(f"k must be at least 1, not {k}")
        if not isinstance(queries, Dataset):
            return self.retrieve(queries, k)
        check_same_documents(queries.documents, self.documents)
        return self.with_positives(self.retrieve(queries.queries, k), queries)

    def with_positives(self, run: Run, dataset: Dataset) -> Run:
        """Return the run with the dataset's positives attached, scored by this retriever, and known labels filled in."""
        known = dataset.judgements.positives
        scores = self.score(run.queries, known.query, known.document)
        place = dataset.judgements.find(run)
        label = run.label.copy()
        if len(dataset.judgements):
            label = np.where(place >= 0, dataset.judgements.relevance[place] > 0, label).astype(np.int8)
        return run.replace(
            positive_offsets=known.offsets,
            positive=known.document,
            positive_score=np.asarray(scores, dtype=np.float32),
            positive_relevance=known.relevance,
            label=label,
        )

    def __or__(self, other: Retriever) -> Union:
        left = self.members if isinstance(self, Union) else (self,)
        right = other.members if isinstance(other, Union) else (other,)
        return Union((*left, *right))

    def __rshift__(self, transform: Transform) -> Pipeline:
        return Pipeline(self, (transform,))


class Transform(ABC):
    """Maps a run to a run. Rerankers re-score; filters mark and never delete; samplers draw."""

    @abstractmethod
    def __call__(self, run: Run) -> Run:
        """Return the changed run."""

    def __rshift__(self, then: Transform) -> Chain:
        left = self.steps if isinstance(self, Chain) else (self,)
        right = then.steps if isinstance(then, Chain) else (then,)
        return Chain((*left, *right))


class Chain(Transform):
    """Several transforms, one after the other."""

    def __init__(self, steps: Sequence[Transform]) -> None:
        self.steps = tuple(steps)

    def __call__(self, run: Run) -> Run:
        for step in self.steps:
            run = step(run)
        return run

    def __repr__(self) -> str:
        return " >> ".join(map(repr, self.steps))


class Pipeline(Retriever):
    """A retriever followed by transforms; itself a retriever, so pipelines nest, unite and serve."""

    def __init__(self, source: Retriever, steps: Sequence[Transform]) -> None:
        self.source = source
        self.steps = tuple(steps)
        self.name = source.name
        self.score_kind = source.score_kind
        self.scores_pairs = source.scores_pairs
        self.documents = source.documents

    def retrieve(self, queries: Collection, k: int) -> Run:
        return self._apply(self.source.retrieve(queries, k))

    def __call__(self, queries: Collection | Dataset, k: int = 100) -> Run:
        return self._apply(self.source(queries, k))

    def _apply(self, run: Run) -> Run:
        for step in self.steps:
            run = step(run)
        return run

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        return self.source.score(queries, query_row, document_row)

    def __rshift__(self, transform: Transform) -> Pipeline:
        return Pipeline(self.source, (*self.steps, transform))

    def __repr__(self) -> str:
        return " >> ".join([self.source.name, *map(repr, self.steps)])


class Union(Retriever):
    """The candidates of several retrievers, all scored by one of them: the last that scores pairs.

    One scorer for every candidate and for the positives is what margin filters need; each member's own score is kept as a
    feature under its name (NaN where the member did not propose the candidate) and `source` says who proposed it first.

    Raises:
        RivalsError: two members of one name, or over different documents; on retrieving, no member that scores pairs.
    """

    def __init__(self, members: Sequence[Retriever]) -> None:
        if len({member.name for member in members}) != len(members):
            raise RivalsError(f"united retrievers need different names, not {', '.join(m.name for m in members)}")
        for member in members[1:]:
            check_same_documents(members[0].documents, member.documents)
        self.members = tuple(members)
        self.scorer = next((member for member in reversed(members) if member.scores_pairs), members[-1])
        self.name = "|".join(member.name for member in members)
        self.score_kind = self.scorer.score_kind
        self.scores_pairs = self.scorer.scores_pairs
        self.documents = members[0].documents

    def retrieve(self, queries: Collection, k: int) -> Run:
        self._check_scorer()
        return unite([member.retrieve(queries, k) for member in self.members], self.scorer)

    def __call__(self, queries: Collection | Dataset, k: int = 100) -> Run:
        if not isinstance(queries, Dataset):
            return super().__call__(queries, k)
        self._check_scorer()
        check_same_documents(queries.documents, self.documents)
        return self.with_positives(unite([member(queries, k) for member in self.members], self.scorer), queries)

    def _check_scorer(self) -> None:
        if not self.scores_pairs:
            raise RivalsError(
                f"none of the united {', '.join(member.name for member in self.members)} scores candidates; unite them "
                "with a retriever that does, such as BM25 or Dense"
            )

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        return self.scorer.score(queries, query_row, document_row)

    def __repr__(self) -> str:
        return f"({' | '.join(member.name for member in self.members)})"


def unite(runs: Sequence[Run], scorer: Retriever) -> Run:
    """Return the union of the candidates of several runs over the same queries and documents, scored by `scorer`.

    What the runs' filters marked stays marked (see `merge_marks`); their features stay too.

    Raises:
        RivalsError: the runs are not over the same queries and documents.
    """
    queries, documents = check_aligned(runs)
    keys = [run.query * len(documents) + run.document for run in runs]
    unique, first = np.unique(np.concatenate(keys), return_index=True)
    source = np.repeat(np.arange(len(runs)), [len(key) for key in keys])[first]
    query, document = np.divmod(unique, len(documents))
    places = [np.searchsorted(unique, key) for key in keys]
    features = merge_features(runs, places, len(unique))
    for run, place in zip(runs, places, strict=True):
        column = np.full(len(unique), np.nan, dtype=np.float32)
        column[place] = run.score
        features[run.scorer] = column
    marks, reasons = merge_marks(runs, places, len(unique))
    score = features.get(scorer.name, np.full(len(unique), np.nan, dtype=np.float32)).copy()
    missing = np.isnan(score)
    score[missing] = scorer.score(queries, query[missing], document[missing])
    united = Run.build(
        queries,
        documents,
        lists.offsets_from_lengths(np.bincount(query, minlength=len(queries))),
        document,
        score,
        source=source,
        features=features,
        sources=[run.scorer for run in runs],
        scorer=scorer.name,
        score_kind=scorer.score_kind,
        columns=marks,
    )
    return united.replace(reasons=reasons)


def check_aligned(runs: Sequence[Run]) -> tuple[Collection, Collection]:
    """Return the queries and documents that all runs share.

    Raises:
        RivalsError: there is no run, or their queries or documents differ.
    """
    if not runs:
        raise RivalsError("there is no run to combine")
    for run in runs[1:]:
        check_same_documents(runs[0].documents, run.documents)
        if run.queries is not runs[0].queries and run.queries.ids.tolist() != runs[0].queries.ids.tolist():
            raise RivalsError("runs to combine must be over the same queries in the same order")
    return runs[0].queries, runs[0].documents


def check_same_documents(one: Collection, other: Collection) -> None:
    """Raise a RivalsError unless both name the same documents in the same order."""
    if one is not other and (len(one) != len(other) or (one.ids != other.ids).any()):
        raise RivalsError(
            f"the two parts are over different documents ({len(one)} and {len(other)} rows); index the same ones"
        )
