"""Nearest-neighbour noise cleaning of runs: unjudged candidates that lie where relevant documents lie."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.pipeline import Transform
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives._row_cosines import row_cosines
from rivals.negatives.filters import known_positives
from rivals.negatives.vector_source import VectorSource, vectors_of

_PAIRS = 1 << 21  # pairs of documents compared at once


@dataclass(frozen=True, eq=False, repr=False)
class NeighbourNoise(Transform):
    """Mark unjudged candidates whose nearest neighbours say that they are relevant.

    Documents are compared by cosine, within a query only.

    - "intrinsic" trusts the positives: of every positive that the scorer misreads, that is, ranks below `missed` or more
      of its query's candidates, the `neighbours` nearest unjudged candidates are suspects. The scorer misreads it because
      its like passes for a negative.
    - "extrinsic" trusts the judged documents: a candidate is a suspect where the share of positives among its
      `neighbours` nearest judged documents is `agreement` or more (and above one half). It needs judged negatives, label 0;
      queries without any are left alone.

    When to use: behind a retriever, on collections whose negatives were never judged, as a second opinion beside
    `PositiveAware`, which looks at the query only. `NeighbourCleaner` is the same idea for labelled items.

    Args:
        source: gives the documents' vectors, for example a `Dense` retriever.
        strategy, neighbours, agreement: above. missed: 1 or more.
        min_cosine: suspect only what is at least as near as this to its evidence; None sets no limit.
        action: "drop" clears `keep`; "weight" leaves it and sets the weight to 1 - max(cosine, 0) with the evidence
            (intrinsic) or 1 - the share of positives (extrinsic).

    Source: "Noise in Relation Classification Dataset TACRED: Characterization and Reduction" (2023), strategies IS and
    ES; queries as relations, pairs as items, "misread" for "predicted negative" are ours. Paper 118.

    Raises:
        RivalsError: an option out of range; a source over other documents; positives that are not scored (intrinsic); no
        query with judged negatives (extrinsic).

    >>> from rivals.data import Collection
    >>> class Line:
    ...     documents = Collection(["p", "like p", "other"])
    ...     vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    ...     def query_vectors(self, queries): return np.zeros((1, 2))
    >>> run = Run.build(Collection(["q"]), Line.documents, [0, 2], [1, 2], [.5, .9], positives=([0, 1], [0]),
    ...                 positive_score=[.4])
    >>> marked = NeighbourNoise(Line(), neighbours=1, missed=2)(run)
    >>> marked.documents.ids[marked.document[~marked.keep]].tolist()
    ['like p']
    """

    source: VectorSource
    strategy: Literal["intrinsic", "extrinsic"] = "intrinsic"
    neighbours: int = 5
    missed: int = 10
    agreement: float = 0.6
    min_cosine: float | None = None
    action: Literal["drop", "weight"] = "drop"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("strategy", self.strategy, ("intrinsic", "extrinsic")),
            ("action", self.action, ("drop", "weight")),
        ):
            if value not in allowed:
                raise RivalsError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        for name, number in (("neighbours", self.neighbours), ("missed", self.missed)):
            if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
                raise RivalsError(f"{name} must be a whole number, 1 or more, not {number!r}")
        if not 0 < self.agreement <= 1:
            raise RivalsError(f"agreement must lie in (0, 1], not {self.agreement!r}")
        if self.min_cosine is not None and not -1 <= self.min_cosine <= 1:
            raise RivalsError(f"min_cosine must lie in -1..1, not {self.min_cosine!r}")

    def __repr__(self) -> str:
        return f"NeighbourNoise({self.strategy}, neighbours={self.neighbours})"

    @property
    def reason(self) -> str:
        """The reason of its marks."""
        return (
            "neighbour of a misread positive"
            if self.strategy == "intrinsic"
            else "judged neighbours are mostly positive"
        )

    def __call__(self, run: Run) -> Run:
        _, vectors = vectors_of(run, self.source)
        unjudged = (run.label < 0) & ~known_positives(run)
        find = self._intrinsic if self.strategy == "intrinsic" else self._extrinsic
        strength = find(run, vectors, unjudged)
        suspect = ~np.isnan(strength)
        marked = run.mark(suspect, self.reason, keep=self.action == "weight")
        if self.action == "drop":
            return marked
        less = np.clip(1 - np.where(suspect, strength, 0.0), 0.0, 1.0)
        return marked.replace(weight=np.where(suspect, less, run.weight))

    def _intrinsic(self, run: Run, vectors: NDArray[Any], unjudged: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The cosine of each suspect with the nearest misread positive, NaN for the others."""
        owner = lists.segment_ids(run.positive_offsets)
        counted = np.diff(run.offsets)[owner] > 0
        if np.isnan(run.positive_score[counted]).any():
            first = int((np.isnan(run.positive_score) & counted).argmax())
            raise RivalsError(
                f"query '{run.queries.ids[owner[first]]}': its positive '{run.documents.ids[run.positive[first]]}' has no "
                "score, so nobody can say whether it is misread; call the retriever with the dataset"
            )
        above = np.zeros(len(run.positive), np.int64)
        for positives, row, offsets in _with_candidates(owner, run.offsets):
            higher = run.score[row] > np.repeat(run.positive_score[positives], np.diff(offsets))
            above[positives] = lists.segment_reduce(np.add, (higher & unjudged[row]).astype(np.int64), offsets)
        misread = np.flatnonzero(above >= self.missed)
        strength = np.full(len(run), np.nan)
        for positives, row, offsets in _with_candidates(owner[misread], run.offsets):
            place = misread[positives]
            left = np.repeat(run.positive[place], np.diff(offsets))
            cosine = row_cosines(vectors, vectors, left, run.document[row])
            cosine[~unjudged[row] | np.isnan(cosine)] = -np.inf
            near = _best(cosine, offsets, self.neighbours) & np.isfinite(cosine) & (cosine >= self._least)
            np.fmax.at(strength, row[near], cosine[near])
        return strength

    def _extrinsic(self, run: Run, vectors: NDArray[Any], unjudged: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The share of positives among the nearest judged documents of each suspect, NaN for the others."""
        negative = run.label == 0
        judged = np.concatenate([run.query[negative], lists.segment_ids(run.positive_offsets)])
        document = np.concatenate([run.document[negative], run.positive])
        relevant = np.arange(len(judged)) >= negative.sum()
        order = np.argsort(judged, kind="stable")
        document, relevant = document[order], relevant[order]
        held = lists.offsets_from_lengths(np.bincount(judged, minlength=len(run.queries)))
        able = lists.segment_reduce(np.add, negative.astype(np.int64), run.offsets) > 0
        if not able.any():
            raise RivalsError(
                "no query has judged negatives (label 0), so judged neighbours cannot disagree; use strategy 'intrinsic'"
            )
        asked = np.flatnonzero(unjudged & able[run.query])
        strength = np.full(len(run), np.nan)
        for rows, index, offsets in _with_candidates(run.query[asked], held):
            candidate = asked[rows]
            cosine = row_cosines(
                vectors, vectors, np.repeat(run.document[candidate], np.diff(offsets)), document[index]
            )
            cosine[np.isnan(cosine)] = -np.inf
            near = _best(cosine, offsets, self.neighbours) & np.isfinite(cosine)
            votes = lists.segment_reduce(np.add, near.astype(np.int64), offsets)
            positive = lists.segment_reduce(np.add, (near & relevant[index]).astype(np.int64), offsets)
            best = lists.segment_reduce(np.maximum, np.where(relevant[index], cosine, -np.inf), offsets, -np.inf)
            share = positive / np.maximum(votes, 1)
            suspect = (share >= self.agreement - 1e-12) & (share > 0.5) & (best >= self._least)
            strength[candidate[suspect]] = share[suspect]
        return strength

    @property
    def _least(self) -> float:
        return -math.inf if self.min_cosine is None else self.min_cosine


def _with_candidates(
    query: NDArray[np.int64], offsets: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield, for stretches of items, their numbers, and the members of each one's query: (flat index, offsets)."""
    running = lists.offsets_from_lengths(np.diff(offsets)[query])
    start = 0
    while start < len(query):
        stop = int(np.searchsorted(running, running[start] + _PAIRS, side="right")) - 1
        stop = min(max(stop, start + 1), len(query))
        index, inside = lists.take_segments(offsets, query[start:stop])
        yield np.arange(start, stop), index, inside
        start = stop


def _best(values: NDArray[np.float32], offsets: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Which values are among the `count` largest of their list, ties by place; bool[n]."""
    lengths = np.diff(offsets)
    widest = int(lengths.max(initial=0))
    if widest <= count:
        return np.ones(len(values), bool)
    if widest * len(lengths) > 4 * len(values) + _PAIRS:  # few long lists among many short ones
        order = np.lexsort((-values, lists.segment_ids(offsets)))
        best = np.zeros(len(values), bool)
        best[order[lists.positions(offsets) < count]] = True
        return best
    padded = lists.pad(values, offsets, fill=np.float32(-np.inf))
    mask = lists.pad_mask(offsets)
    level = -np.partition(-padded, count - 1, axis=1)[:, count - 1 : count]
    above, equal = padded > level, padded == level
    left = count - above.sum(axis=1, keepdims=True)
    return (above | (equal & (np.cumsum(equal, axis=1) <= left)))[mask]
