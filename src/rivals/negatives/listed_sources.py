"""Sources whose candidates somebody else has listed: ready-made negatives in tables and files, and any function's answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.dataset import Dataset
from rivals.data.formats.negative_files import NegativesFormat, load_negatives
from rivals.data.run import Run, ScoreKind
from rivals.errors import RivalsError
from rivals.negatives.sources import Proposer

Proposal = Sequence[str] | Sequence[tuple[str, float]] | Mapping[str, float]
PairScores = Callable[[Collection, NDArray[np.int64], NDArray[np.int64]], Any]


class _Listing(Proposer):
    """A proposer whose lists may hold the positives too: those take the score they have there."""

    def with_positives(self, run: Run, dataset: Dataset) -> Run:
        attached = super().with_positives(run, dataset)
        place = lists.find_pairs(
            run.offsets, run.document, lists.segment_ids(attached.positive_offsets), attached.positive
        )
        known = (place >= 0) & np.isnan(attached.positive_score)
        if not known.any():
            return attached
        return attached.replace(
            positive_score=np.where(known, run.score[np.maximum(place, 0)], attached.positive_score)
        )


class ReadyMade(_Listing):
    """Proposes the candidates that a table already lists for a query: negatives from a file, or any earlier run.

    Scores are the table's own; a positive takes the one the table gives it, as a positive or as a candidate, else NaN.
    Queries are found by id and documents too, so the table may be of more queries, or of another collection with the same
    ids. A query that the table does not have gets nothing; `missing` counts those of the last call.

    When to use: to train on, clean or judge negatives mined elsewhere (papers 5 and 26 start from such), or to go on from a
    saved run without searching again. `ReadyMade.load` reads the usual files.

    Args:
        run: the table, from `load_negatives`, `load_run` or a retriever. documents: the collection in use, if it is not the
            run's own; every document listed must be there.

    Raises:
        RivalsError: a listed document which `documents` does not have.

    >>> documents, queries = Collection(["a", "b"]), Collection(["x", "y"], name="query")
    >>> table = Run.build(queries, documents, [0, 1, 2], [1, 0], [.5, .4])
    >>> source = ReadyMade(table)
    >>> documents.ids[source(Collection(["y", "z"], name="query")).document].tolist(), source.missing
    (['a'], 1)
    """

    def __init__(self, run: Run, documents: Collection | None = None, *, name: str = "ready-made") -> None:
        self.table, self.name, self.missing = run, name, 0
        self.documents = run.documents if documents is None else documents
        self.score_kind = run.score_kind
        self._row = np.arange(len(run.documents))
        if self.documents is not run.documents:
            self._row = self.documents.find(run.documents.ids)
            for used, what in ((run.document, "listed"), (run.positive, "a positive")):
                lost = self._row[used] < 0
                if lost.any():
                    raise RivalsError(
                        f"document '{run.documents.ids[used[int(lost.argmax())]]}' is {what} but is not among the "
                        f"{len(self.documents)} documents"
                    )

    @classmethod
    def load(
        cls,
        path: str | Path,
        dataset: Dataset,
        *,
        format: NegativesFormat = "auto",
        on_unknown: Literal["error", "drop"] = "error",
        name: str = "ready-made",
    ) -> ReadyMade:
        """Read negatives of a dataset from a file that names queries and documents by id or by text.

        See `rivals.data.formats.negative_files.load_negatives` for the formats.

        Raises:
            DataError: naming the file and line of the first fault, an unknown query or document included.
        """
        found = load_negatives(
            path, queries=dataset.queries, documents=dataset.documents, format=format, on_unknown=on_unknown
        )
        return cls(found.run, name=name)

    def retrieve(self, queries: Collection, k: int) -> Run:
        """Return the first `k` listed candidates of every query."""
        place = self.table.queries.find(queries.ids)
        self.missing = int((place < 0).sum())
        lengths = np.where(
            place >= 0, np.diff(self.table.offsets)[np.maximum(place, 0)] if len(self.table.queries) else 0, 0
        )
        index, _ = lists.take_segments(self.table.offsets, place[place >= 0])
        offsets = lists.offsets_from_lengths(lengths)
        inside = lists.positions(offsets) < k
        index = index[inside]
        return self._run(
            queries, lists.keep_values(inside, offsets), self._row[self.table.document[index]], self.table.score[index]
        )

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the score the table gives each pair, float32[m]; NaN where it gives none."""
        place = self.table.queries.find(queries.ids)[query_row]
        found = np.full(len(place), np.nan, dtype=np.float32)
        for offsets, members, scores in (
            (self.table.offsets, self.table.document, self.table.score),
            (self.table.positive_offsets, self.table.positive, self.table.positive_score),
        ):
            at = lists.find_pairs(offsets, self._row[members], np.maximum(place, 0), np.asarray(document_row, np.int64))
            at = np.where(place >= 0, at, -1)
            given = np.where(at >= 0, scores[np.maximum(at, 0)] if len(scores) else np.nan, np.nan)
            found = np.where(np.isnan(given), found, given).astype(np.float32)
        return found


class FunctionSource(_Listing):
    """Makes a source of any function that names candidates: a search service, a database, a rule.

    `function(queries, k)` gets a block of queries (a `Collection`) and returns one answer a query: document ids, best first;
    or (id, score) pairs; or a mapping from id to score. An answer longer than `k` is cut, best first.

    When to use: whatever has no retriever here. With `score` its candidates can be compared with positives; without, a
    positive is scored only where the function names it.

    Args:
        documents: the collection the ids refer to. score: `score(queries, query_row, document_row)`, the scores of pairs by
            the same scorer, float[m]. score_kind: of both scores.

    Raises:
        RivalsError: when called, for an answer that is no list of ids or pairs, an unknown id, one twice, a score that is no
        number, as many answers as there are queries not given; the query is named.

    >>> documents = Collection(["a", "b"], ["red", "blue"])
    >>> source = FunctionSource(lambda queries, k: [["b", "a"] for _ in queries.ids], documents)
    >>> documents.ids[source(Collection(["q"], name="query"), k=1).document].tolist()
    ['b']
    """

    def __init__(
        self,
        function: Callable[[Collection, int], Sequence[Proposal]],
        documents: Collection,
        *,
        score: PairScores | None = None,
        score_kind: ScoreKind = "other",
        name: str = "function",
    ) -> None:
        self.function, self.documents, self.pair_scores = function, documents, score
        self.score_kind, self.name, self.scores_pairs = score_kind, name, score is not None

    def retrieve(self, queries: Collection, k: int) -> Run:
        """Ask the function and return what it named, at most `k` a query."""
        answers = list(self.function(queries, k))
        if len(answers) != len(queries):
            raise RivalsError(
                f"source '{self.name}' gave {len(answers)} answers for {len(queries)} queries; give one each"
            )
        parsed = [self._parse(answer, queries.ids[row]) for row, answer in enumerate(answers)]
        offsets = lists.offsets_from_lengths([len(ids) for ids, _ in parsed])
        document = self.documents.find([identifier for ids, _ in parsed for identifier in ids])
        query = lists.segment_ids(offsets)
        if (document < 0).any():
            row = int((document < 0).argmax())
            unknown = parsed[query[row]][0][row - offsets[query[row]]]
            raise RivalsError(
                f"source '{self.name}' named document {unknown!r} for query '{queries.ids[query[row]]}', which is not "
                f"among the {len(self.documents)} documents"
            )
        score = np.array([value for _, values in parsed for value in values], dtype=np.float32)
        return self._run(queries, offsets, document, score).top(k)

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the scores of pairs by the `score` given, float32[m]; NaN without one."""
        if self.pair_scores is None:
            return super().score(queries, query_row, document_row)
        scores = np.asarray(self.pair_scores(queries, query_row, document_row), dtype=np.float32)
        if scores.shape != (len(query_row),):
            raise RivalsError(f"the score of source '{self.name}' gave shape {scores.shape} for {len(query_row)} pairs")
        return scores

    def _parse(self, answer: Any, query: str) -> tuple[list[str], list[float]]:
        pairs = list(answer.items()) if isinstance(answer, Mapping) else None
        if pairs is None:
            if isinstance(answer, str) or not isinstance(answer, Sequence | np.ndarray):
                raise self._fault(query, f"{type(answer).__name__} {str(answer)[:40]!r}")
            rows = list(answer)
            if all(isinstance(row, str) for row in rows):
                return rows, [-float(place) for place in range(len(rows))]
            if not all(isinstance(row, tuple | list) and len(row) == 2 and isinstance(row[0], str) for row in rows):
                raise self._fault(query, str(next(row for row in rows if not isinstance(row, str)))[:40])
            pairs = [(row[0], row[1]) for row in rows]
        try:
            return [str(identifier) for identifier, _ in pairs], [float(score) for _, score in pairs]
        except (TypeError, ValueError):
            raise self._fault(query, str(pairs[0])[:40]) from None

    def _fault(self, query: str, what: str) -> RivalsError:
        return RivalsError(
            f"source '{self.name}' answered query '{query}' with {what}; give document ids, (id, score) pairs or a "
            "mapping from id to score"
        )
