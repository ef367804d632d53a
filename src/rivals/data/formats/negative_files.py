"""Ready-made negatives in files: the training formats of ANCE, DPR and SimANS, triplets, n-tuples and labelled lists."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.dataset import Dataset, Judgements
from rivals.data.formats.fields import Report, as_id, as_text, short
from rivals.data.formats.members import Members
from rivals.data.formats.negative_rows import Item, NegativesFormat, Row, open_rows
from rivals.data.formats.pairs import unusable
from rivals.data.formats.tables import Table
from rivals.data.run import Run
from rivals.errors import DataError


class ReadyNegatives(NamedTuple):
    """What a file of negatives holds: the `dataset` of its queries, documents and positives, and the `run` of its candidates.

    The run's scores are the file's; where a negative has none, all are minus the place in the list (0, -1, ...). Its positives carry the
    scores the file gives them, NaN where it gives none.
    """

    dataset: Dataset
    run: Run


def load_negatives(
    path: str | Path,
    *,
    queries: Collection | None = None,
    documents: Collection | None = None,
    format: NegativesFormat = "auto",
    on_unknown: Literal["error", "drop"] = "error",
) -> ReadyNegatives:
    r"""Read queries with their positives and ready-made negatives from a file, plain or gzip.

    Formats, told apart by the content unless `format` says one:

    - "ance": lines `query id \t positive id \t negative id,negative id,...`.
    - "simans": lines `query id \t query \t id score,id score \t id score,...`, positives and then negatives.
    - "dpr": JSON objects with `question`, `positive_ctxs`, `hard_negative_ctxs` and `negative_ctxs`, whose members have a
      `text` and perhaps `title`, `passage_id` (or `psg_id`) and `score`; hard negatives come first in the list.
    - "columns": rows (JSONL, CSV, TSV, Parquet) of `query`, `question` or `anchor`; `positive`, a text or a list;
      `negatives` (a list), `negative` or `negative_1` to `negative_n`; perhaps `query_id`, `positive_id`, `negative_ids`, and
      `scores`, of the positives and then the negatives, or of the negatives alone.
    - "lists": rows of a query, `documents`, `labels` (above 0 is relevant), perhaps `document_ids` and `scores`.

    Several rows of one query become one list; a document that comes again is merged into its first mention. A listed
    negative that is a positive as well stays in the list (filters mark it) and is counted. `dataset.describe()` tells all
    counts.

    Args:
        queries, documents: collections at hand, in which ids, or else texts, are looked up; needed where the file names them
            by id alone. None collects them from the file.
        on_unknown: "drop" leaves out and counts what names an unknown or empty query or document; "error" raises.

    Source: the files of Xiong et al. 2021 (ANCE, paper 37), Karpukhin et al. 2020 (DPR), Zhou et al. 2022 (SimANS, paper
    10) and BiCA 2025 (paper 32).

    Raises:
        DataError: naming the file and line of the first fault.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mined.jsonl"
    ...     _ = path.write_text('{"query": "who?", "positive": "me", "negatives": ["you", "they"], "scores": [0.75, 0.5]}')
    ...     found = load_negatives(path)
    >>> found.run.documents.texts, found.run.score.tolist()
    (['me', 'you', 'they'], [0.75, 0.5])
    """
    if on_unknown not in ("error", "drop"):
        raise DataError(f"on_unknown must be 'error' or 'drop', not '{on_unknown}'")
    path, report = Path(path), Report()
    table, rows = open_rows(path, format)
    asking = Members("queries", report) if queries is None else Members.of("queries", queries, report)
    read = Members("documents", report) if documents is None else Members.of("documents", documents, report)
    gathered = _Gathered(table, asking, read, report, drop=on_unknown == "drop")
    for row in rows:
        gathered.add(row)
    if not len(gathered.query):
        raise DataError("not one row could be used", path=path)
    return gathered.finish(path)


# ----------------------------------------------------------------------------------------------------------- gathering


class _Gathered:
    """All rows so far: candidates and positives by query and document row, with scores."""

    def __init__(self, table: Table, queries: Members, documents: Members, report: Report, *, drop: bool) -> None:
        self.table, self.queries, self.documents, self.report, self.drop = table, queries, documents, report, drop
        self.query, self.document, self.score = array("q"), array("q"), array("d")
        self.owner, self.positive, self.positive_score, self.relevance = array("q"), array("q"), array("d"), array("d")

    def add(self, row: Row) -> None:
        """Take one row of the file."""
        self.report.add("rows", "read")
        query = self._find(self.queries, row.query, row.row)
        positives = [(self._find(self.documents, item, row.row), item) for item in row.positives] if query >= 0 else []
        negatives = [(self._find(self.documents, item, row.row), item) for item in row.negatives] if query >= 0 else []
        for document, item in positives:
            if document >= 0:
                self.owner.append(query)
                self.positive.append(document)
                self.positive_score.append(item.score)
                self.relevance.append(item.relevance)
        for document, item in negatives:
            if document >= 0:
                self.query.append(query)
                self.document.append(document)
                self.score.append(item.score)

    def _find(self, members: Members, item: Item, row: int) -> int:
        """Return the row of a member, made now if it is new; -1 if it is left out."""
        part = members.part
        name = as_id(item.id, self.table, row, f"{members.name} id")
        text = as_text(item.text, self.table, row, members.name, part, self.report)
        title = as_text(item.title, self.table, row, f"{members.name} title", part, self.report)
        if not members.closed and name is not None and not text and name not in members.row_of:
            what = f"{members.name} {short(name)} stands here by its id alone; give the collection, {part}=..."
            raise self.table.error(row, what)
        if name is None and not text and not self.drop:
            raise self.table.error(row, f"this row names no {members.name}, or an empty one")
        _, fault = members.find(name, text)
        if (
            fault == f"unknown {members.name}" and name is not None and text
        ):  # ids of another collection, texts of this one
            _, fault = members.find(None, text)
            name = None
        if fault and not self.drop:
            raise self.table.error(row, unusable(members, name, text, fault))
        if fault:
            self.report.add(part, f"dropped: {fault}")
            return -1
        return members.add(name, text, self.table, row, title=title)

    def finish(self, path: Path) -> ReadyNegatives:
        """Build the dataset and the run."""
        queries, documents = self.queries.collection(), self.documents.collection()
        query, document = np.array(self.query, np.int64), np.array(self.document, np.int64)
        keep = _first_mentions(query, document, len(documents))
        self.report.add("negatives", "read", len(query))
        self.report.add("negatives", "merged: listed again for the same query", len(query) - len(keep))
        query, document, score = query[keep], document[keep], np.array(self.score, np.float32)[keep]
        offsets = lists.offsets_from_lengths(np.bincount(query, minlength=len(queries)))
        if np.isnan(score).any():
            given = int((~np.isnan(score)).sum())
            self.report.add("negatives", "noted: scores not used, since others have none", given)
            score = (0 - lists.positions(offsets)).astype(np.float32)
        owner, positive = np.array(self.owner, np.int64), np.array(self.positive, np.int64)
        first = _first_mentions(owner, positive, len(documents))
        self.report.add("positives", "read", len(owner))
        self.report.add("positives", "merged: named again for the same query", len(owner) - len(first))
        owner, positive = owner[first], positive[first]
        judgements = Judgements.build(
            owner, positive, np.array(self.relevance, np.float32)[first], queries=len(queries), documents=len(documents)
        )
        by_document = np.lexsort((positive, owner))  # the order of judgements
        twice = lists.find_pairs(judgements.offsets, judgements.document, query, document) >= 0
        self.report.add("negatives", "noted: listed for a query whose positive they are", int(twice.sum()))
        self.report.add("rows", "noted: blank lines", self.table.blank)
        name = path.name.split(".")[0]
        run = Run.build(
            queries,
            documents,
            offsets,
            document,
            score,
            positives=(judgements.offsets, judgements.document),
            positive_score=np.array(self.positive_score, np.float32)[first][by_document],
            positive_relevance=judgements.relevance,
            scorer=name,
        )
        counts = {key: count for key, count in self.report.counts.items() if count}
        origin = {"negatives": f"{path} ({len(self.table):,} {self.table.unit}s)"}
        return ReadyNegatives(Dataset(queries, documents, judgements, {}, name, counts, origin), run)


def _first_mentions(query: NDArray[np.int64], document: NDArray[np.int64], documents: int) -> NDArray[np.int64]:
    """Return the rows that mention a pair for the first time, query after query in the order read."""
    first = np.unique(query * np.int64(max(documents, 1)) + document, return_index=True)[1]
    return first[np.lexsort((first, query[first]))]
