"""Candidates ranked by several criteria at once: a product of experts, or a sum of standardised values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals import lists
from rivals.data import Judgements, Run
from rivals.data.collection import normalise_text
from rivals.data.pipeline import Transform
from rivals.errors import RivalsError
from rivals.progress import progress

Criterion: TypeAlias = Callable[[Sequence[str], Sequence[str]], ArrayLike]
"""(sources[n], candidates[n]) -> values[n], higher is better: what each candidate is worth for the source beside it."""

Combine: TypeAlias = Literal["product", "sum"]


@dataclass(frozen=True)
class Reranked:
    """Candidates of every source under several criteria, in the order in which they were given.

    values: by criterion, float64[n]. score: float64[n]. offsets: those of source i are offsets[i]:offsets[i + 1].
    """

    values: Mapping[str, NDArray[np.float64]]
    score: NDArray[np.float64]
    offsets: NDArray[np.int64]

    @property
    def scores(self) -> list[list[float]]:
        """The scores, a list a source."""
        return [part.tolist() for part in np.split(self.score, self.offsets[1:-1])]

    @property
    def ranks(self) -> list[list[int]]:
        """The place of every candidate in its list, 1 is best; of equal ones the first given stands first."""
        order = np.lexsort((np.arange(len(self.score)), -self.score, lists.segment_ids(self.offsets)))
        place = np.empty(len(order), dtype=np.int64)
        place[order] = lists.positions(self.offsets) + 1
        return [part.tolist() for part in np.split(place, self.offsets[1:-1])]

    @property
    def best(self) -> list[int]:
        """The number of the best candidate of every source."""
        return [ranks.index(1) for ranks in self.ranks]


def combine_criteria(
    values: ArrayLike,
    offsets: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    combine: Combine = "product",
    floor: float = 1e-6,
) -> NDArray[np.float64]:
    """Make one score of the values of several criteria.

    product: sum_i w_i log max(v_i, floor), the log of a weighted product of experts; a criterion scaled by a constant
    changes no order, and one that is 0 for all candidates leaves the order to the others. sum: sum_i w_i (v_i - mean) /
    deviation over the candidates of each list; one that is the same for all of a list counts 0 there.

    Shapes: values[n, K] of n candidates and K criteria, offsets[Q + 1] -> float64[n]. Scores compare within a list.

    When to use: product for probabilities and other shares of something, sum for values of any sign and scale.

    Source: the product: positive text reframing under multi-strategy optimization 2024, its reranking (paper 73), and
    log-linear models, weights 1 (Och and Ney 2002); the sum: Fox and Shaw 1994 (CombSUM).

    Raises:
        RivalsError: values that are not [n, K] or are NaN or infinite, below 0 for a product, weights that do not fit,
            floor not above 0, an unknown combine.

    >>> int(combine_criteria([[.5, .4, 1], [.2, .9, 1]], [0, 2]).argmax())
    0
    >>> int(combine_criteria([[.5, .4, 1], [.2, .9, 1]], [0, 2], weights=[0, 1, 1]).argmax())
    1
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not table.shape[1]:
        raise RivalsError(f"values have shape {table.shape}; they must be [candidates, criteria], with one criterion")
    if not np.isfinite(table).all():
        raise RivalsError("values must be finite; one of them is NaN or infinite")
    bounds = lists.as_offsets(offsets, len(table), "offsets")
    share = np.ones(table.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    if share.shape != (table.shape[1],) or not np.isfinite(share).all():
        raise RivalsError(
            f"weights have shape {share.shape}; give one finite number for each of {table.shape[1]} criteria"
        )
    if combine == "product":
        if not floor > 0:
            raise RivalsError(f"floor is {floor}; it must be above 0")
        if (table < 0).any():
            raise RivalsError("a criterion is below 0; a product needs values of at least 0, or use combine='sum'")
        return np.asarray(np.log(np.maximum(table, floor)) @ share)
    if combine != "sum":
        raise RivalsError(f"combine is '{combine}'; it can be 'product' or 'sum'")
    return _standardised(table, bounds) @ share


class CriteriaReranker(Transform):
    """Ranks candidates by several criteria: as a step of a pipeline over runs, or over texts by `rerank`.

    Which criteria is yours to say: functions of (sources, candidates), such as those of `rivals.evaluate`: overlap of
    words, similarity of vectors, fluency, agreement with wished labels, coverage of a document's sentences.

    In a run the sources are the queries' texts and the candidates the documents'. The values stay as features of the
    run under the criteria's names, so they can be inspected, compared and weighed again.

    Args:
        criteria: by name. weights: by name, 1 unless given; `fit` chooses them. combine, floor: see `combine_criteria`.
        drop_identical: candidates that repeat their source (case and blanks aside) go behind all others of their list.

    When to use: choosing among generated outputs, where one criterion alone has a way to be cheated: overlap by copying
    the source, fluency by saying nothing. Scores compare within a source only.

    Source: the product: paper 73; lexical and semantic criteria balanced: Sul and Choi 2023, BalSum (paper 36), whose
    trained scorer is one criterion here.

    Raises:
        RivalsError: no criterion, weights for other names, an unknown combine, floor not above 0.

    >>> short = lambda sources, candidates: [1 / (1 + len(text.split())) for text in candidates]
    >>> shared = lambda sources, candidates: [len({*s.split()} & {*c.split()}) for s, c in zip(sources, candidates)]
    >>> found = CriteriaReranker({"short": short, "shared": shared}).rerank(["a b c"], [["a x y z", "a b", "x"]])
    >>> found.ranks, found.best
    ([[2, 1, 3]], [1])
    """

    def __init__(
        self,
        criteria: Mapping[str, Criterion],
        *,
        weights: Mapping[str, float] | None = None,
        combine: Combine = "product",
        floor: float = 1e-6,
        drop_identical: bool = False,
        name: str = "criteria",
    ) -> None:
        if not criteria:
            raise RivalsError("criteria is empty; give at least one, by name")
        self.criteria, self.combine, self.floor, self.drop_identical = dict(criteria), combine, floor, drop_identical
        self.name = name
        self.weights = dict.fromkeys(self.criteria, 1.0) if weights is None else dict(weights)
        if set(self.weights) != set(self.criteria):
            raise RivalsError(f"weights are for {', '.join(self.weights)}, the criteria are {', '.join(self.criteria)}")
        self._combined(np.ones((1, len(self.criteria))), np.array([0, 1]))  # meets unknown options at the door

    def rerank(self, sources: Sequence[str], candidates: Sequence[Sequence[str]]) -> Reranked:
        """Score the candidates of every source; every criterion is asked once, for all of them.

        Raises:
            RivalsError: not as many lists as sources, a source without candidate, a criterion that returns another
                number of values, NaN, or values below 0 where they are multiplied.
        """
        if len(sources) != len(candidates):
            raise RivalsError(f"there are {len(sources)} sources and {len(candidates)} lists of candidates")
        lengths = np.array([len(row) for row in candidates], dtype=np.int64)
        if (lengths == 0).any():
            raise RivalsError(f"source {int((lengths == 0).argmax())} has no candidate")
        offsets = lists.offsets_from_lengths(lengths)
        left = [source for source, count in zip(sources, lengths.tolist(), strict=True) for _ in range(count)]
        right = list(chain.from_iterable(candidates))
        values = self.values(left, right)
        score = self._scores(np.column_stack(list(values.values())), offsets, left, right)
        return Reranked(values, score, offsets)

    def values(self, sources: Sequence[str], candidates: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Return every criterion's values of the pairs (sources[i], candidates[i]), by name, float64[n].

        Raises:
            RivalsError: as `rerank`.
        """
        found: dict[str, NDArray[np.float64]] = {}
        with progress("Judging candidates", len(self.criteria)) as advance:
            for name, criterion in self.criteria.items():
                given = criterion(sources, candidates) if len(candidates) else ()
                value = np.asarray(given, dtype=np.float64)
                if value.shape != (len(candidates),):
                    raise RivalsError(f"criterion '{name}' gave shape {value.shape} for {len(candidates)} candidates")
                if not np.isfinite(value).all():
                    raise RivalsError(
                        f"criterion '{name}' is NaN or infinite at candidate {_first(~np.isfinite(value))}"
                    )
                if self.combine == "product" and (value < 0).any():
                    raise RivalsError(
                        f"criterion '{name}' is below 0 at candidate {_first(value < 0)}; a product needs values of at "
                        "least 0, or use combine='sum'"
                    )
                found[name] = value
                advance()
        return found

    def __call__(self, run: Run) -> Run:
        """Return the run under the combined score, with the criteria's values as features; positives go unscored."""
        queries, documents = run.queries.full_texts, run.documents.full_texts
        left, right = [queries[row] for row in run.query], [documents[row] for row in run.document]
        values = self.values(left, right)
        score = self._scores(np.column_stack(list(values.values())), run.offsets, left, right)
        judged = {name: value.astype(np.float32) for name, value in values.items()}
        return run.replace(features={**run.features, **judged}).rescored(score.astype(np.float32), scorer=self.name)

    def fit(self, run: Run, judgements: Judgements, *, measure: str = "nDCG@10", steps: int = 20) -> Self:
        """Choose the weights (sum 1, each at least 0) with the best mean measure on a run with judgements.

        Source: `rivals.retrieve.fit_weights`, over the criteria in place of retrievers.

        Raises:
            RivalsError: no query with a relevant document, an unknown measure, and as `rerank`.
        """
        from rivals.retrieve import fit_weights

        queries, documents = run.queries.full_texts, run.documents.full_texts
        values = self.values([queries[row] for row in run.query], [documents[row] for row in run.document])
        runs = []
        for name, value in values.items():
            alone = combine_criteria(value[:, None], run.offsets, combine=self.combine, floor=self.floor)
            bare = Run.build(run.queries, run.documents, run.offsets, run.document, alone, scorer=name)
            runs.append(bare)
        self.weights = fit_weights(runs, judgements, measure=measure, normalisation="none", steps=steps)
        return self

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {weight:g}" for name, weight in self.weights.items())
        return f"CriteriaReranker({self.combine} of {shown})"

    def _combined(self, table: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        weights = [self.weights[name] for name in self.criteria]
        return combine_criteria(table, offsets, weights=weights, combine=self.combine, floor=self.floor)

    def _scores(
        self, table: NDArray[np.float64], offsets: NDArray[np.int64], sources: Sequence[str], candidates: Sequence[str]
    ) -> NDArray[np.float64]:
        score = self._combined(table, offsets)
        if not self.drop_identical:
            return score
        same = [normalise_text(one) == normalise_text(other) for one, other in zip(sources, candidates, strict=True)]
        lowest = lists.segment_reduce(np.minimum, score, offsets, empty=0.0)[lists.segment_ids(offsets)]
        return np.where(same, lowest - 1, score)


def _first(marked: NDArray[np.bool_]) -> int:
    return int(marked.argmax())


def _standardised(table: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values minus the list's mean, divided by its deviation, a column at a time; 0 where a list is constant."""
    rows, counts = lists.segment_ids(offsets), np.maximum(np.diff(offsets), 1)
    out = np.zeros_like(table)
    for column, values in enumerate(table.T):
        centred = values - (lists.segment_reduce(np.add, values, offsets, empty=0.0) / counts)[rows]
        deviation = np.sqrt(lists.segment_reduce(np.add, centred**2, offsets, empty=0.0) / counts)[rows]
        plain = deviation <= 1e-12 * np.abs(values).max(initial=0)
        out[:, column] = np.where(plain, 0.0, centred / np.where(plain, 1.0, deviation))
    return out
