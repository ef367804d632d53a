"""Runs on the judged queries of a data set: lined up by id, checked, measured, and what each of them covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.errors import RivalsError

if TYPE_CHECKING:
    from rivals.data.dataset import Dataset, Judgements
    from rivals.data.run import Run
    from rivals.measures.names import Measure

OnUnknown = Literal["error", "unjudged"]


@dataclass(frozen=True)
class Coverage:
    """What one system answered: how many judged queries got no result (and count as 0), how many of its queries were
    left out because the data set does not judge them, the share of its first k documents that nobody judged, by k, and
    how many of its documents the data set does not have.

    >>> Coverage(without_results=1, left_out=0, unjudged={5: 0.2, 10: 0.25}).unjudged_at_10
    0.25
    """

    without_results: int
    left_out: int
    unjudged: Mapping[int, float]
    unknown_documents: int = 0

    @property
    def unjudged_at_10(self) -> float:
        """The share of its first 10 documents that nobody judged, a mean over the queries it answered."""
        return self.unjudged[10]


@dataclass(frozen=True, eq=False)
class AlignedRun:
    """A run's candidates for Q queries in rank order: `offsets` int64[Q + 1], `score` and `relevance` (NaN where nobody
    judged) float32[n]; `left_out` queries with results and `unknown_documents` as in `Coverage`."""

    name: str
    offsets: NDArray[np.int64]
    score: NDArray[np.float32]
    relevance: NDArray[np.float32]
    left_out: int = 0
    unknown_documents: int = 0

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which queries have results, bool[Q]."""
        return np.diff(self.offsets) > 0

    def take(self, rows: NDArray[np.int64]) -> AlignedRun:
        """Return the candidates of some of the queries, in the order given."""
        index, offsets = lists.take_segments(self.offsets, rows)
        return replace(self, offsets=offsets, score=self.score[index], relevance=self.relevance[index])

    def condensed(self) -> AlignedRun:
        """Return the run without the documents that nobody judged; the rest closes up."""
        keep = ~np.isnan(self.relevance)
        offsets = lists.keep_values(keep, self.offsets)
        return replace(self, offsets=offsets, score=self.score[keep], relevance=self.relevance[keep])

    def unjudged(self, depth: int) -> float:
        """Return the share of the first `depth` documents that nobody judged, a mean over the answered queries."""
        lengths = np.minimum(np.diff(self.offsets), depth)
        if not lengths.any():
            return 0.0
        shown = lists.positions(self.offsets) < depth
        missing = np.bincount(
            lists.segment_ids(self.offsets)[shown], weights=np.isnan(self.relevance[shown]), minlength=len(lengths)
        )
        return float((missing[lengths > 0] / lengths[lengths > 0]).mean())

    def coverage(self, depths: Sequence[int]) -> Coverage:
        """Return what the run covers, unjudged shares at these depths."""
        shares = {depth: self.unjudged(depth) for depth in depths}
        return Coverage(int((~self.answered).sum()), self.left_out, shares, self.unknown_documents)

    def measured(self, measures: Sequence[Measure], judgements: Judgements) -> NDArray[np.float64]:
        """Return the measures on every query, [M, Q]; `judgements` are those of the same queries."""
        from rivals.measures.names import measure_all

        cuts = [measure.k for measure in measures]
        width = None if None in cuts else max(cut for cut in cuts if cut is not None)
        values = measure_all(
            measures,
            lists.pad(self.score, self.offsets, fill=np.float32(0), width=width),
            lists.pad(self.relevance, self.offsets, fill=np.float32(np.nan), width=width),
            lists.pad_mask(self.offsets, width),
            ideal=lists.pad(judgements.relevance, judgements.offsets, fill=np.float32(0)),
            ranked=True,
        )
        return np.stack([values[measure.name] for measure in measures])


def align(
    name: str, run: Run, dataset: Dataset, judged: NDArray[np.int64], *, on_unknown: OnUnknown = "error"
) -> AlignedRun:
    """Return a run's candidates for the judged query rows of a data set, by the ids of queries and documents.

    Args:
        on_unknown: "error" raises where a candidate is a document that the data set does not have; "unjudged" leaves it
            in its place as a document that nobody judged, and counts it.

    Raises:
        RivalsError: an unknown document, a score that is NaN, a document twice under one query, results but none for a
            judged query.

    >>> from rivals.data import Collection, Dataset, Judgements, Run
    >>> queries, documents = Collection(["q1", "q2"], name="query"), Collection(["a", "b"])
    >>> data = Dataset(queries, documents, Judgements.build([0], [0], [1], queries=2, documents=2))
    >>> run = Run.build(queries, documents, [0, 2, 2], [0, 1], [.9, .1])
    >>> align("ours", run, data, np.array([0])).relevance.tolist()
    [1.0, nan]
    """
    if on_unknown not in ("error", "unjudged"):
        raise RivalsError(f"on_unknown is '{on_unknown}'; it can be 'error' or 'unjudged'")
    same_queries = run.queries is dataset.queries
    rows = judged if same_queries else run.queries.find(dataset.queries.ids[judged].tolist())
    lengths = np.diff(run.offsets)
    index, _ = lists.take_segments(run.offsets, rows[rows >= 0])
    offsets = lists.offsets_from_lengths(np.where(rows >= 0, lengths[rows] if len(lengths) else 0, 0))
    has_results = int((lengths > 0).sum())
    if has_results and not len(index):
        raise RivalsError(
            f"system '{name}' answers none of the {len(judged)} judged queries; its query ids are like "
            f"'{run.queries.ids[int((lengths > 0).argmax())]}', the judged ones like '{dataset.queries.ids[judged[0]]}'"
        )
    document, score = run.document[index], run.score[index]
    if np.isnan(score).any():
        at = int(np.isnan(score).argmax())
        query = dataset.queries.ids[judged[np.searchsorted(offsets, at, side="right") - 1]]
        raise RivalsError(
            f"system '{name}', query '{query}': document '{run.documents.ids[document[at]]}' has the score NaN; "
            "scores must be numbers"
        )
    unknown = 0
    if run.documents is not dataset.documents and len(run.documents):
        known = dataset.documents.find(run.documents.ids.tolist())
        strange = np.unique(document[known[document] < 0])
        unknown = len(strange)
        if unknown and on_unknown == "error":
            raise RivalsError(
                f"system '{name}' returned document '{run.documents.ids[strange[0]]}', which the data set does not have "
                f"({unknown} such); evaluate it on the collection it searched, or count such documents as unjudged "
                "with on_unknown='unjudged'"
            )
        document = np.where(known[document] >= 0, known[document], len(dataset.documents) + document)
    query_of = lists.segment_ids(offsets)
    keys = np.sort(query_of * (len(dataset.documents) + len(run.documents) + 1) + document)
    if (keys[1:] == keys[:-1]).any():
        row = int(keys[1:][keys[1:] == keys[:-1]][0]) // (len(dataset.documents) + len(run.documents) + 1)
        raise RivalsError(
            f"system '{name}' lists a document twice under query '{dataset.queries.ids[judged[row]]}'; "
            "every document may stand there once"
        )
    judgements = dataset.judgements.take(judged)
    place = lists.find_pairs(judgements.offsets, judgements.document, query_of, document)
    relevance = np.where(place >= 0, judgements.relevance[place], np.float32(np.nan)).astype(np.float32)
    left_out = has_results - int((np.diff(offsets) > 0).sum())
    return AlignedRun(name, offsets, score, relevance, left_out, unknown)


def check_common(runs: Sequence[AlignedRun]) -> None:
    """Raise unless every two systems that have results at all answered some query both.

    Raises:
        RivalsError: two systems with results for no common query.

    >>> def run(name, *lengths):
    ...     n = sum(lengths)
    ...     return AlignedRun(name, lists.offsets_from_lengths(lengths), np.zeros(n, "f4"), np.zeros(n, "f4"))
    >>> check_common([run("a", 1, 0), run("b", 1, 1)])
    """
    with_results = [run for run in runs if run.answered.any()]
    for place, first in enumerate(with_results):
        for second in with_results[place + 1 :]:
            if not (first.answered & second.answered).any():
                raise RivalsError(
                    f"systems '{first.name}' and '{second.name}' have results for no common query "
                    f"({int(first.answered.sum())} and {int(second.answered.sum())} judged ones); to be compared they "
                    "must answer the same queries: check their ids, or evaluate them apart"
                )
