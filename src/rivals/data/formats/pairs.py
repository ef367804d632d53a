"""Pairs and judgements while a dataset is being read: who is relevant to whom, with the place of every row."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals.data.dataset import Judgements
from rivals.data.formats.fields import (
    Report,
    as_id,
    as_relevance,
    as_split,
    as_text,
    match_fields,
    numbered_negatives,
    require,
    short,
    split_name,
)
from rivals.data.formats.members import Members
from rivals.data.formats.tables import Table
from rivals.errors import DataError


class Pairs:
    """All judgements read so far: rows of queries and documents, relevance, and the file and row of each.

    Args:
        drop: leave out (and count) rows that name unknown or empty members, instead of raising.
    """

    def __init__(self, queries: Members, documents: Members, report: Report, *, drop: bool) -> None:
        self.queries, self.documents, self.report, self.drop = queries, documents, report, drop
        self.query, self.document, self.row, self.source = array("q"), array("q"), array("q"), array("q")
        self.relevance = array("f")
        self.listed = array("b")
        self.tables: list[tuple[str, Table]] = []
        self.split_of: dict[int, tuple[str, tuple[Table, int]]] = {}

    # -------------------------------------------------------------------------------------------------------- reading

    def read(self, table: Table, part: str, fields: Mapping[str, str], split: str | None = None) -> None:
        """Read one file of pairs (`part` "pairs") or judgements by id ("judgements"), all in one split if one is given.

        Raises:
            DataError: no field for queries or documents, an unknown id, a relevance that is no number, with file and
                line.
        """
        chosen = match_fields(table, part, fields, self.report)
        if part == "judgements":
            require(table, chosen, part, "query_id")
            require(table, chosen, part, "document_id")
        else:
            require(table, chosen, part, "query_id", "query")
            require(table, chosen, part, "document_id", "document")
            self._check_texts(table, chosen)
        none: list[Any] = [None] * len(table)
        column = {meaning: table.columns[name] for meaning, name in chosen.items()}
        query_ids, queries = column.get("query_id", none), column.get("query", none)
        document_ids, documents = column.get("document_id", none), column.get("document", none)
        splits, relevance = column.get("split", none), column.get("relevance")
        lists = [table.columns[name] for name in numbered_negatives(table)] if part == "pairs" else []
        if "negatives" in column:
            lists.append(column["negatives"])
        source = len(self.tables)
        self.tables.append((part, table))
        used = 0
        for row in range(len(table)):
            query_id = as_id(query_ids[row], table, row, "query id")
            query_text = as_text(queries[row], table, row, "query", part, self.report)
            document_id = as_id(document_ids[row], table, row, "document id")
            document_text = as_text(documents[row], table, row, "document", part, self.report)
            grade = 1.0 if relevance is None else as_relevance(relevance[row], table, row)
            own_split = as_split(splits[row], table, row) or split
            found = self._resolve(part, table, row, query_id, query_text, document_id, document_text)
            if found is None:
                continue
            used += 1
            self._append(found[0], found[1], grade, source, row, 0)
            if own_split is not None:
                self.assign(found[0], own_split, table, row)
            for values in lists:
                self._negatives(values[row], found[0], source, row, by_id="document" not in chosen)
        self.report.add(part, "rows", len(table))
        self.report.add(part, "used", used)
        self.report.add(part, "noted: blank lines", table.blank)

    def _check_texts(self, table: Table, chosen: Mapping[str, str]) -> None:
        for members, text, option in ((self.queries, "query", "queries"), (self.documents, "document", "documents")):
            if not members.closed and text not in chosen:
                where = f"'{chosen[f'{text}_id']}' only gives ids"
                raise DataError(
                    f"{where}; give the {text} texts too, with {option}=FILE or in a field '{text}'", path=table.path
                )

    def _resolve(
        self,
        part: str,
        table: Table,
        row: int,
        query_id: str | None,
        query: str,
        document_id: str | None,
        document: str,
    ) -> tuple[int, int] | None:
        for members, identifier, text in ((self.queries, query_id, query), (self.documents, document_id, document)):
            if identifier is None and not text and (part == "judgements" or members.closed):
                raise table.error(row, f"this row names no {members.name}")
            _, fault = members.find(identifier, text)
            if not fault:
                continue
            by_text = fault.endswith("text")
            if not self.drop and not by_text:
                raise table.error(row, unusable(members, identifier, text, fault))
            self.report.add(part, f"dropped: {fault}")
            return None
        return self.queries.add(query_id, query, table, row), self.documents.add(document_id, document, table, row)

    def _negatives(self, values: Any, query: int, source: int, row: int, *, by_id: bool) -> None:
        part, table = self.tables[source]
        if values is None or values == "":
            return
        if isinstance(values, str) and values.lstrip().startswith("["):
            values = _json_list(values)
        for value in values if isinstance(values, list) else [values]:
            self.report.add("negatives", "rows")
            identifier = as_id(value, table, row, "negative") if by_id else None
            text = "" if by_id else as_text(value, table, row, "negative", part, self.report)
            if not (identifier or text):
                self.report.add("negatives", "dropped: empty")
                continue
            _, fault = self.documents.find(identifier, text)
            if fault and not self.drop and not fault.endswith("text"):
                raise table.error(row, unusable(self.documents, identifier, text, fault))
            if fault:
                self.report.add("negatives", f"dropped: {fault}")
                continue
            self._append(query, self.documents.add(identifier, text, table, row), 0.0, source, row, 1)

    def _append(self, query: int, document: int, relevance: float, source: int, row: int, listed: int) -> None:
        self.query.append(query)
        self.document.append(document)
        self.relevance.append(relevance)
        self.source.append(source)
        self.row.append(row)
        self.listed.append(listed)

    # ---------------------------------------------------------------------------------------------------------- splits

    def assign(self, query: int, split: str, table: Table, row: int) -> None:
        """Put a query row into a split, as a row of a file says.

        Raises:
            DataError: it is in another one already.
        """
        known, before = self.split_of.setdefault(query, (split, (table, row)))
        if known != split:
            there = before[0].place(before[1])
            what = f"query '{self.queries.ids[query]}' is in split {split!r} here and in {known!r} in {there}"
            raise table.error(row, f"{what}; a query may be in one split only")

    def read_splits(self, table: Table, fields: Mapping[str, str]) -> None:
        """Read a file that says the split of every query id."""
        chosen = match_fields(table, "splits", fields, self.report)
        require(table, chosen, "splits", "query_id")
        require(table, chosen, "splits", "split")
        ids, splits = (table.columns[chosen[meaning]] for meaning in ("query_id", "split"))
        used = 0
        for row in range(len(table)):
            identifier = as_id(ids[row], table, row, "query id")
            split = as_split(splits[row], table, row)
            if identifier is None or split is None:
                raise table.error(row, "this row lacks a query id or a split")
            query, fault = self.queries.find(identifier, "")
            if query >= 0:
                self.assign(query, split, table, row)
                used += 1
            elif self.drop:
                self.report.add("splits", f"dropped: {fault.removesuffix(' text')}")
            else:
                raise table.error(row, unusable(self.queries, identifier, "", fault))
        self.report.add("splits", "rows", len(table))
        self.report.add("splits", "used", used)

    def splits(self) -> dict[str, NDArray[np.int64]]:
        """Return split name -> query rows, train, dev and test first."""
        for query, split in enumerate(self.queries.splits):
            if split is not None:
                self.assign(query, split, *self.queries.where[query])
        rows: dict[str, list[int]] = {}
        for query, (split, _) in sorted(self.split_of.items()):
            rows.setdefault(split_name(split), []).append(query)
        names = sorted(rows, key=lambda name: {"train": 0, "dev": 1, "test": 2}.get(name, 3))
        return {name: np.array(rows[name], dtype=np.int64) for name in names}

    # ------------------------------------------------------------------------------------------------------ judgements

    def judgements(self) -> Judgements:
        """Return the judgements; rows that say the same are merged, listed negatives give way to positives (counted).

        Raises:
            DataError: two rows judge the same pair differently.
        """
        query, document = np.array(self.query, np.int64), np.array(self.document, np.int64)
        relevance, listed = np.array(self.relevance, np.float32), np.array(self.listed, np.int8)
        order = np.lexsort((listed, document, query))
        query, document, relevance, listed = query[order], document[order], relevance[order], listed[order]
        first = np.ones(len(query), bool)
        first[1:] = (query[1:] != query[:-1]) | (document[1:] != document[:-1])
        leader = np.flatnonzero(first)[np.cumsum(first) - 1] if len(query) else np.zeros(0, np.int64)
        clash = np.flatnonzero((listed == 0) & (relevance != relevance[leader]))
        if len(clash):
            raise self._clash(int(order[leader[clash[0]]]), int(order[clash[0]]))
        for at in np.flatnonzero(~first & (listed == 0)).tolist():
            part = self.tables[self.source[int(order[at])]][0]
            self.report.add(part, "merged: identical rows")
            self.report.add(part, "used", -1)
        doubled = ~first & (listed == 1)
        positive = doubled & (relevance[leader] > 0)
        self.report.add("negatives", "merged: known as relevant", int(positive.sum()))
        self.report.add("negatives", "merged: judged already", int((doubled & ~positive).sum()))
        self.report.add("negatives", "used", int((first & (listed == 1)).sum()))
        return Judgements.build(
            query[first], document[first], relevance[first], queries=len(self.queries), documents=len(self.documents)
        )

    def _clash(self, one: int, other: int) -> DataError:
        one, other = sorted((one, other))
        (_, before), (_, table) = (self.tables[self.source[i]] for i in (one, other))
        pair = f"query '{self.queries.ids[self.query[one]]}' and document '{self.documents.ids[self.document[one]]}'"
        grades = f"{self.relevance[other]:g} here and {self.relevance[one]:g} in {before.place(self.row[one])}"
        return table.error(self.row[other], f"{pair} are judged twice, differently: {grades}")


def unusable(members: Members, identifier: str | None, text: str, fault: str) -> str:
    """Return the message for a row that names a member which is not there."""
    called = f"'{identifier}'" if identifier is not None else f"with the text {short(text)}"
    if fault.startswith("empty") and identifier in members.empty:
        table, row = members.empty[identifier]
        where = f"whose text is empty ({table.place(row)})"
        return f'this row names the {members.name} {called}, {where}; use on_unknown="drop" to leave such rows out'
    return (
        f"this row names the {members.name} {called}, which is not among the {len(members)} {members.part}; "
        'use on_unknown="drop" to leave such rows out'
    )


def _json_list(text: str) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
