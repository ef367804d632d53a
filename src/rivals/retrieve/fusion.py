"""Fusion: one ranking out of several, by ranks or by weighted scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rivals.data import Collection, Dataset, Judgements, Retriever, Run
from rivals.data.pipeline import check_same_documents
from rivals.errors import RivalsError
from rivals.retrieve._pooling import (
    Normalisation,
    Pooled,
    Scales,
    build_run,
    check_normalisation,
    check_weights,
    fit_on,
    look_up,
    normalised,
    pool,
    reciprocal,
    scales_of,
)


def fuse_reciprocal_rank(
    runs: Sequence[Run],
    *,
    k0: float = 60,
    weights: Sequence[float] | Mapping[str, float] | None = None,
    name: str = "rrf",
    k: int | None = None,
) -> Run:
    """Fuse runs by the ranks of their candidates.

    score(d) = sum over the runs i that hold d of w_i / (k0 + rank_i(d)), ranks from 1. These scores are no similarities:
    a share of the positive's means nothing, so rescore before `PositiveAware`.

    When to use: operands whose scores do not compare and no development set to weigh them on.
    Source: Cormack, Clarke, Buettcher 2009, equation 1 (k0 = 60); as a teacher's source, paper 81.

    Args:
        weights: one a run, in their order or by scorer name; None weighs all 1.
        k: keep this many candidates a query; None keeps the union.

    Raises:
        RivalsError: no run, runs over other queries or documents, two runs of one scorer, k0 < 0, weights that do not fit.

    >>> queries, documents = Collection(["q"]), Collection(["a", "b"])
    >>> one = Run.build(queries, documents, [0, 2], [0, 1], [9, 8], scorer="one")
    >>> two = Run.build(queries, documents, [0, 1], [1], [.5], scorer="two")
    >>> fused = fuse_reciprocal_rank([one, two])
    >>> documents.ids[fused.document].tolist(), (1e4 * fused.score).round().tolist()
    (['b', 'a'], [325.0, 164.0])
    """
    if not k0 >= 0:
        raise RivalsError(f"k0 is {k0}; it must be 0 or more")
    pooled = pool(runs)
    given = None if weights is None else check_weights(weights, pooled.names)
    return build_run(pooled, reciprocal(pooled.ranks, k0, given), name, k)


def fuse_weighted(
    runs: Sequence[Run],
    weights: Sequence[float] | Mapping[str, float],
    *,
    normalisation: Normalisation = "min-max",
    name: str = "weighted",
    k: int | None = None,
) -> Run:
    """Fuse runs by the weighted sum of their scores.

    score(d) = sum_i w_i n_i(s_i(d)). "min-max" maps a query's scores in one run to [0, 1] and "z-score" to mean 0 and
    deviation 1; a run without the candidate counts as its lowest candidate there (0 in min-max). "none" adds raw
    scores, 0 where absent.

    When to use: with weights chosen by `fit_weights` on a development set; it then beats reciprocal ranks as a rule.
    Source: Fox and Shaw 1994 (CombSUM); Bruch, Gai, Ingber 2023 (convex combination).

    Args:
        weights: one a run, in their order or by scorer name; finite, not all 0.

    Raises:
        RivalsError: runs that do not fit together (see `fuse_reciprocal_rank`), weights that do not fit the runs.

    >>> queries, documents = Collection(["q"]), Collection(["a", "b"])
    >>> one = Run.build(queries, documents, [0, 2], [0, 1], [9, 8], scorer="one")
    >>> two = Run.build(queries, documents, [0, 2], [0, 1], [.1, .5], scorer="two")
    >>> fuse_weighted([one, two], [0.25, 0.75]).score.tolist()
    [0.75, 0.25]
    """
    pooled = pool(runs)
    given = check_weights(weights, pooled.names)
    scales = scales_of(pooled.scores, pooled.offsets, normalisation)
    return build_run(pooled, normalised(pooled.scores, scales, pooled.query) @ given, name, k)


def fit_weights(
    runs: Sequence[Run],
    judgements: Judgements,
    *,
    measure: str = "nDCG@10",
    normalisation: Normalisation = "min-max",
    steps: int = 20,
) -> dict[str, float]:
    """Return the weights (sum 1, each >= 0, by scorer name) with the best mean `measure` on queries with a positive.

    One weight after the other is tried at all multiples of 1 / `steps`, the rest keeping their proportions, until
    nothing improves; for two runs that is the whole grid. Of equally good weights the more even ones win.
    Deterministic.

    When to use: on a development set, before `fuse_weighted`; `WeightedFusion.fit` does both from retrievers.

    Raises:
        RivalsError: runs that do not fit together, no query with a relevant document, steps < 1, an unknown measure.

    >>> queries, documents = Collection(["q"]), Collection(["a", "b"])
    >>> good = Run.build(queries, documents, [0, 2], [0, 1], [9, 8], scorer="good")
    >>> bad = Run.build(queries, documents, [0, 2], [0, 1], [.1, .5], scorer="bad")
    >>> weights = fit_weights([good, bad], Judgements.build([0], [0], [1], queries=1, documents=2))
    >>> weights["good"] > weights["bad"]
    True
    """
    pooled = pool(runs)
    scales = scales_of(pooled.scores, pooled.offsets, normalisation)
    return fit_on(pooled, normalised(pooled.scores, scales, pooled.query), judgements, measure, steps)


class _Fusion(Retriever):
    """What both fusions share: asking the operands, remembering the last answer, scoring single pairs."""

    def __init__(self, retrievers: Sequence[Retriever], *, depth: int, name: str) -> None:
        if not retrievers or len({retriever.name for retriever in retrievers}) != len(retrievers):
            names = ", ".join(retriever.name for retriever in retrievers)
            raise RivalsError(f"fusion needs retrievers of different names, not: {names or 'none'}")
        if depth < 1:
            raise RivalsError(f"depth is {depth}; it must be at least 1")
        for retriever in retrievers[1:]:
            check_same_documents(retrievers[0].documents, retriever.documents)
        self.retrievers, self.depth, self.name = tuple(retrievers), depth, name
        self.documents = retrievers[0].documents
        self._last: tuple[Collection, list[Run]] | None = None

    @abstractmethod
    def _fuse(self, runs: list[Run], k: int) -> Run:
        """Return the first `k` of the fused candidates of the operands' runs."""

    def retrieve(self, queries: Collection, k: int) -> Run:
        """Return the first `k` of the fused candidates."""
        return self._fuse(self._runs(queries, k), k)

    def __call__(self, queries: Collection | Dataset, k: int = 100) -> Run:
        """Retrieve. Operands meet the data set itself: some sources and filters start from a query's positives."""
        if k < 1 or not isinstance(queries, Dataset):
            return super().__call__(queries, k)
        check_same_documents(queries.documents, self.documents)
        runs = [retriever(queries, max(self.depth, k)) for retriever in self.retrievers]
        self._last = (queries.queries, runs)
        return self.with_positives(self._fuse(runs, k), queries)

    def _runs(self, queries: Collection, k: int | None = None) -> list[Run]:
        """Return the operands' runs at max(depth, k); for k = None the last over these queries, if any."""
        if k is None and self._last is not None and self._last[0] is queries:
            return self._last[1]
        runs = [retriever.retrieve(queries, max(self.depth, k or 0)) for retriever in self.retrievers]
        self._last = (queries, runs)
        return runs

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(retriever.name for retriever in self.retrievers)})"


class ReciprocalRankFusion(_Fusion):
    """Retrieves with several retrievers and fuses their ranks; see `fuse_reciprocal_rank`.

    Args:
        depth: candidates asked of each operand (more if k is larger).
        weights: one an operand, in their order or by name; None weighs all 1.

    >>> from rivals.retrieve import BM25
    >>> documents = Collection(["a", "b"], ["heart attack", "broken heart"])
    >>> plain, stemmed = BM25(documents, stem=False, name="plain"), BM25(documents, name="stemmed")
    >>> run = ReciprocalRankFusion([plain, stemmed])(Collection(["q"], ["heart attacks"]), k=2)
    >>> sorted(run.features)
    ['plain', 'stemmed']
    """

    score_kind = "other"

    def __init__(
        self,
        retrievers: Sequence[Retriever],
        *,
        k0: float = 60,
        depth: int = 100,
        weights: Sequence[float] | Mapping[str, float] | None = None,
        name: str = "rrf",
    ) -> None:
        if not k0 >= 0:
            raise RivalsError(f"k0 is {k0}; it must be 0 or more")
        super().__init__(retrievers, depth=depth, name=name)
        self.k0 = k0
        names = tuple(retriever.name for retriever in retrievers)
        self.weights = (
            None if weights is None else dict(zip(names, check_weights(weights, names).tolist(), strict=True))
        )

    def _fuse(self, runs: list[Run], k: int) -> Run:
        weights = None if self.weights is None else list(self.weights.values())
        return fuse_reciprocal_rank(runs, k0=self.k0, weights=weights, name=self.name, k=k)

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the fused score of each pair; an operand that did not retrieve the document adds nothing."""
        runs = self._runs(queries)
        ranks = np.stack([look_up(run, run.rank, query_row, document_row) for run in runs], axis=1)
        given = None if self.weights is None else np.array(list(self.weights.values()))
        return reciprocal(ranks, self.k0, given).astype(np.float32)


class WeightedFusion(_Fusion):
    """Retrieves with several retrievers and adds up their normalised scores; see `fuse_weighted`.

    Unlike there, every operand scores every candidate, so `features` has no gaps. With "min-max" and "z-score" a
    candidate below all that an operand retrieved still counts as the lowest of those.

    Args:
        retrievers, weights: weights in the retrievers' order or by name; `WeightedFusion.fit` finds them.
        depth: candidates asked of each operand (more if k is larger); normalisation is over these.

    >>> from rivals.retrieve import BM25
    >>> documents = Collection(["a", "b"], ["heart attack", "broken heart"])
    >>> plain, stemmed = BM25(documents, stem=False, name="plain"), BM25(documents, name="stemmed")
    >>> WeightedFusion([plain, stemmed], [0.5, 0.5])(Collection(["q"], ["attacks"]), k=1).score.tolist()
    [0.5]
    """

    score_kind = "other"

    def __init__(
        self,
        retrievers: Sequence[Retriever],
        weights: Sequence[float] | Mapping[str, float],
        *,
        normalisation: Normalisation = "min-max",
        depth: int = 100,
        name: str = "weighted",
    ) -> None:
        super().__init__(retrievers, depth=depth, name=name)
        names = tuple(retriever.name for retriever in retrievers)
        self.weights = dict(zip(names, check_weights(weights, names).tolist(), strict=True))
        check_normalisation(normalisation)
        self.normalisation: Normalisation = normalisation

    @classmethod
    def fit(
        cls,
        retrievers: Sequence[Retriever],
        dataset: Dataset,
        *,
        measure: str = "nDCG@10",
        normalisation: Normalisation = "min-max",
        depth: int = 100,
        steps: int = 20,
        name: str = "weighted",
    ) -> WeightedFusion:
        """Return the fusion whose weights are best on a development set (see `fit_weights`)."""
        fusion = cls(retrievers, [1.0] * len(retrievers), normalisation=normalisation, depth=depth, name=name)
        check_same_documents(dataset.documents, fusion.documents)
        runs = fusion._runs(dataset.queries)
        pooled, scores, scales = fusion._complete(runs)
        found = fit_on(pooled, normalised(scores, scales, pooled.query), dataset.judgements, measure, steps)
        fusion.weights = dict(zip(fusion.weights, (found[name] for name in pooled.names), strict=True))
        return fusion

    def _fuse(self, runs: list[Run], k: int) -> Run:
        pooled, scores, scales = self._complete(runs)
        fused = normalised(scores, scales, pooled.query) @ np.array(list(self.weights.values()))
        return build_run(replace(pooled, scores=scores), fused, self.name, k)

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the fused score of each pair, normalised by what each operand retrieved for its query."""
        runs = self._runs(queries)
        query_row, document_row = np.asarray(query_row, np.int64), np.asarray(document_row, np.int64)
        scores = np.stack([self._own(i, run, query_row, document_row) for i, run in enumerate(runs)], axis=1)
        pooled = pool(runs)
        scales = scales_of(pooled.scores, pooled.offsets, self.normalisation)
        return (normalised(scores, scales, query_row) @ np.array(list(self.weights.values()))).astype(np.float32)

    def _complete(self, runs: list[Run]) -> tuple[Pooled, NDArray[np.float32], Scales]:
        pooled = pool(runs)
        scales = scales_of(pooled.scores, pooled.offsets, self.normalisation)
        scores = pooled.scores.copy()
        for i, run in enumerate(runs):
            missing = np.isnan(scores[:, i])
            scores[missing, i] = self._own(i, run, pooled.query[missing], pooled.document[missing])
        return pooled, scores, scales

    def _own(self, i: int, run: Run, query: NDArray[np.int64], document: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return operand i's scores of pairs; NaN where its run lacks one and was re-scored by something else."""
        found = look_up(run, run.score, query, document)
        missing = np.isnan(found)
        if run.scorer == self.retrievers[i].name and missing.any():
            found[missing] = self.retrievers[i].score(run.queries, query[missing], document[missing])
        return found
