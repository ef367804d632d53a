"""Hard negative documents that a generator writes for queries, and how they join retrieved ones in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.dataset import Dataset
from rivals.data.pipeline import Retriever, Transform
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.generating.generators import Generator
from rivals.negatives.generating.writing import (
    GENERATED_BY,
    GENERATED_FOR,
    GenerationReport,
    TextChecks,
    extended,
    fresh_ids,
    write_texts,
)

FOR_OTHERS = "generated for another query"


@dataclass(frozen=True, eq=False)
class WrittenNegatives:
    """What `write_negatives` gives: the `dataset` over the documents with the new ones behind, and the `report`.

    Train on this dataset; evaluate on the one you had, whose documents hold nothing generated.
    """

    dataset: Dataset
    report: GenerationReport

    def source(self, scorer: Retriever | None = None, *, name: str = "generated") -> GeneratedSource:
        """Return the retriever of the written texts; see `GeneratedSource`."""
        return GeneratedSource(self.dataset.documents, scorer, name=name)


def write_negatives(
    dataset: Dataset,
    generator: Generator,
    *,
    n: int = 1,
    checks: TextChecks = TextChecks(),  # noqa: B008 - frozen
    retries: int = 2,
    seed: int = 0,
    show: bool = True,
) -> WrittenNegatives:
    """Let a generator write up to `n` hard negative documents for every query, and add them to the documents.

    The new rows stand behind the old ones, which keep their numbers, so that judgements, splits, vectors and runs over
    the old documents stay valid. A row's `generated_for` is the id of its query, `generated_by` the generator's name.

    Mining then reads, with an index over the documents that people wrote:

        written = write_negatives(train, generator, n=2)
        dense = Dense(encoder, written.dataset.documents)                 # scores both kinds
        source = Widened(bm25, written.dataset.documents) | written.source() | dense
        mine_hard_negatives(source, written.dataset, filters=[GeneratedForOthers(), ...])

    When to use: no corpus to mine in, or too small a one. Models trained on generated negatives alone may learn to tell
    machine from man instead: look at `style_probe_auc`, mix with mined ones. A writer that sees only the query cannot
    know whether it wrote an answer: `Verify` or `JudgeThreshold` behind.

    Args:
        dataset: its queries that have a positive are written for; a generator that needs no positive also writes for
            the others. The first positive is shown; the checks look at all.
        checks, retries, seed: see `TextChecks` and `write_texts`.

    Source: Don't Retrieve, Generate (2025, paper 68), whose versions disagree on whether it matches mining.

    Raises:
        RivalsError: no query to write for, nothing that survives, options out of range.

    >>> from rivals.data import Judgements
    >>> from rivals.negatives.generating.rules import SpliceGenerator
    >>> texts = ["Gout hurts. It passes.", "Flu is short. Rest helps."]
    >>> queries, documents = Collection(["q"], ["What is gout?"], name="query"), Collection(["a", "b"], texts)
    >>> dataset = Dataset(queries, documents, Judgements.build([0], [0], [1], queries=1, documents=2))
    >>> written = write_negatives(dataset, SpliceGenerator(texts))
    >>> written.dataset.documents.ids.tolist(), written.dataset.documents.texts[2]
    (['a', 'b', 'q~1'], 'Gout hurts. Rest helps.')
    """
    known, documents = dataset.judgements.positives, dataset.documents.full_texts
    positives = [
        [documents[row] for row in known.document[known.offsets[query] : known.offsets[query + 1]]]
        for query in range(len(dataset.queries))
    ]
    needs = getattr(generator, "needs_positive", True)
    rows = [query for query, texts in enumerate(positives) if texts or not needs]
    texts, report = write_texts(
        generator,
        [str(dataset.queries.ids[row]) for row in rows],
        [dataset.queries.full_texts[row] for row in rows],
        [positives[row][0] if positives[row] else "" for row in rows],
        [positives[row] for row in rows],
        n,
        checks=checks,
        retries=retries,
        seed=seed,
        role="hard negatives",
        show=show,
    )
    owners = [str(dataset.queries.ids[row]) for row, group in zip(rows, texts, strict=True) for _ in group]
    more = extended(
        dataset.documents,
        fresh_ids(dataset.documents, owners),
        [text for group in texts for text in group],
        {GENERATED_FOR: owners, GENERATED_BY: [generator.name] * len(owners)},
    )
    report = replace(report, skipped=len(positives) - len(rows))
    return WrittenNegatives(replace(dataset, documents=more), report)


class GeneratedSource(Retriever):
    """Proposes for every query the documents that were written for it.

    Args:
        documents: with a column `generated_for`, as `write_negatives` makes them.
        scorer: a retriever over the same documents that scores candidates and positives alike. Without one the first
            text written scores 1, the second 1/2, ..., and everything else NaN: margin filters then refuse to compare,
            and in a union another retriever must stand last, to score.

    Source: as a source of negatives, paper 68.

    Raises:
        RivalsError: the documents have no such column.

    >>> documents = Collection(["a", "q~1", "q~2"], ["x", "y", "z"], {"generated_for": [None, "q", "q"]})
    >>> run = GeneratedSource(documents)(Collection(["q", "r"], name="query"), k=5)
    >>> documents.ids[run.document].tolist(), run.offsets.tolist(), run.sources
    (['q~1', 'q~2'], [0, 2, 2], ('generated',))
    """

    def __init__(self, documents: Collection, scorer: Retriever | None = None, *, name: str = "generated") -> None:
        if GENERATED_FOR not in documents.table.column_names:
            raise RivalsError(
                f"these documents have no column '{GENERATED_FOR}'; write_negatives(dataset, ...).dataset.documents has"
            )
        self.documents, self.scorer, self.name = documents, scorer, name
        self.score_kind = "other" if scorer is None else scorer.score_kind
        self._rows, self._owners = generated_rows(documents)

    def retrieve(self, queries: Collection, k: int) -> Run:
        owner = queries.find(self._owners)
        order = np.argsort(owner, kind="stable")
        order = order[owner[order] >= 0]
        offsets = lists.offsets_from_lengths(np.bincount(owner[order], minlength=len(queries)))
        first = lists.positions(offsets) < k
        query, document = owner[order][first], self._rows[order][first]
        score = (
            (1 / (1 + lists.positions(offsets)[first])).astype(np.float32)
            if self.scorer is None
            else self.scorer.score(queries, query, document)
        )
        return Run.build(
            queries,
            self.documents,
            lists.keep_values(first, offsets),
            document,
            score,
            scorer=self.name,
            score_kind=self.score_kind,
        )

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        if self.scorer is not None:
            return self.scorer.score(queries, query_row, document_row)
        own = self.retrieve(queries, max(len(self._rows), 1))
        place = lists.find_pairs(own.offsets, own.document, query_row, document_row)
        scores = np.full(len(place), np.nan, dtype=np.float32)
        scores[place >= 0] = own.score[place[place >= 0]]
        return scores


class Widened(Retriever):
    """A retriever over the documents that people wrote, as one over these and the generated ones behind them.

    What it retrieves is what it retrieved before: generated documents are in no index. It cannot score them, so in a
    union with a `GeneratedSource` something that can stands last.

    Raises:
        RivalsError: the retriever's documents are not the first ones of `documents`; a generated document to score.

    >>> from rivals.retrieve import BM25
    >>> people = Collection(["a", "b"], ["red fox", "red hen"])
    >>> both = Collection(["a", "b", "q~1"], ["red fox", "red hen", "red fox"], {"generated_for": [None, None, "q"]})
    >>> run = Widened(BM25(people), both)(Collection(["q"], ["red fox"], name="query"), k=5)
    >>> run.documents is both, both.ids[run.document].tolist()
    (True, ['a', 'b'])
    """

    def __init__(self, retriever: Retriever, documents: Collection) -> None:
        own = len(retriever.documents)
        if own > len(documents) or (documents.ids[:own] != retriever.documents.ids).any():
            raise RivalsError(
                f"the retriever's {own} documents are not the first of these {len(documents)}; widen it to documents "
                "that were extended from its own"
            )
        self.retriever, self.documents, self.name = retriever, documents, retriever.name
        self.score_kind = retriever.score_kind

    def retrieve(self, queries: Collection, k: int) -> Run:
        return self.retriever.retrieve(queries, k).replace(documents=self.documents)

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        if len(document_row) and document_row.max() >= len(self.retriever.documents):
            raise RivalsError(
                f"'{self.name}' has not indexed the generated document '{self.documents.ids[document_row.max()]}' and "
                "cannot score it; put a retriever over all documents last in the union"
            )
        return self.retriever.score(queries, query_row, document_row)


@dataclass(frozen=True)
class GeneratedForOthers(Transform):
    """Mark candidates that were generated for another query: nobody knows what they are to this one.

    Stands behind retrievers whose index holds generated documents.

    >>> documents = Collection(["a", "q~1", "r~1"], ["x", "y", "z"], {"generated_for": [None, "q", "r"]})
    >>> run = Run.build(Collection(["q"]), documents, [0, 3], [0, 1, 2], [.9, .8, .7])
    >>> GeneratedForOthers()(run).keep.tolist()
    [True, True, False]
    """

    def __call__(self, run: Run) -> Run:
        owner = np.full(len(run.documents), -1, dtype=np.int64)  # -1: of nobody
        if GENERATED_FOR in run.documents.table.column_names:
            rows, owners = generated_rows(run.documents)
            place = run.queries.find(owners)
            owner[rows] = np.where(place >= 0, place, -2)
        whose = owner[run.document]
        return run.mark((whose != -1) & (whose != run.query), FOR_OTHERS)


def generated_rows(collection: Collection) -> tuple[NDArray[np.int64], Sequence[str]]:
    """Return the rows that were generated, in order, and for whom.

    >>> generated_rows(Collection(["a", "b"], columns={"generated_for": [None, "q"]}))
    (array([1]), ['q'])
    """
    column = collection.table[GENERATED_FOR]
    rows = np.flatnonzero(pc.is_valid(column).to_numpy())
    return rows.astype(np.int64), column.take(pa.array(rows)).to_pylist()
