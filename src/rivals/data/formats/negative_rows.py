"""The rows of files of ready-made negatives, format by format: who asks, which positives, which candidates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rivals.data.formats.fields import found, numbered_negatives, short
from rivals.data.formats.tables import Table, format_of, read_table
from rivals.data.formats.text import text_lines
from rivals.errors import DataError

NegativesFormat = Literal["auto", "ance", "dpr", "simans", "columns", "lists"]

_QUERY = ("query", "question", "anchor")
_QUERY_ID = ("query_id", "qid", "question_id")
_CONTEXTS = ("hard_negative_ctxs", "negative_ctxs")


class Item(NamedTuple):
    """A query or document as a row names it: by id, by text or by both; with its score or its relevance, if it has one."""

    id: Any
    text: Any = None
    title: Any = None
    score: float = math.nan
    relevance: float = 1.0


class Row(NamedTuple):
    """One row of a file: its number in the table, who asks, what is relevant to it and what may be a negative."""

    row: int
    query: Item
    positives: Sequence[Item]
    negatives: Sequence[Item]


def open_rows(path: Path, wanted: str) -> tuple[Table, Iterator[Row]]:
    """Tell the format and return the table of places with the rows to come.

    Raises:
        DataError: no such format, or the content is of none of them.
    """
    readers = {"ance": _ance, "simans": _simans, "dpr": _dpr, "columns": _columns, "lists": _lists}
    if wanted != "auto" and wanted not in readers:
        raise DataError(f"no format '{wanted}'; there are auto, {', '.join(readers)}", path=path)
    if wanted in ("ance", "simans") or (wanted == "auto" and format_of(path) in ("tsv", "columns")):
        first = next((line for _, line in text_lines(path) if line.strip()), "").rstrip("\r\n").split("\t")
        header = any(name.strip().lower() in ("positive", "documents") for name in first)
        told = wanted if wanted != "auto" else "" if header else {3: "ance", 4: "simans"}.get(len(first), "?")
        if told == "?":
            raise DataError(
                f"{len(first)} tab-separated fields; ANCE files have 3 (query id, positive, negatives) and SimANS files 4 "
                "(query id, query, positives, negatives)",
                path=path,
                line=1,
            )
        if told:
            table = Table(path, "tsv")
            return table, readers[told](table)
    table = read_table(path)
    if wanted == "auto":
        wanted = "dpr" if "positive_ctxs" in table.columns else "lists" if "labels" in table.columns else "columns"
    return table, readers[wanted](table)


def _fields(table: Table, count: int, what: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in text_lines(table.path):
        if not line.strip():
            table.blank += 1
            continue
        table.places.append(number)
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) != count:
            raise table.error(len(table) - 1, f"{len(fields)} tab-separated fields, not {count}: {what}")
        yield len(table) - 1, fields


def _ance(table: Table) -> Iterator[Row]:
    for row, (query, positive, negatives) in _fields(table, 3, "query id, positive id, negative ids"):
        listed = [Item(name.strip()) for name in negatives.split(",") if name.strip()]
        yield Row(row, Item(query.strip()), [Item(positive.strip())], listed)


def _simans(table: Table) -> Iterator[Row]:
    for row, (name, query, positives, negatives) in _fields(table, 4, "query id, query, positives, negatives"):
        sides = [
            [_scored(cell, table, row) for cell in side.split(",") if cell.strip()] for side in (positives, negatives)
        ]
        yield Row(row, Item(name.strip(), query), *sides)


def _scored(cell: str, table: Table, row: int) -> Item:
    name, _, score = cell.strip().rpartition(" ")
    if not name:
        raise table.error(row, f"{short(cell.strip())} is not an id, a blank and a score")
    return Item(name.strip(), score=_number(score, table, row))


def _dpr(table: Table) -> Iterator[Row]:
    columns = table.columns
    for name in ("question", "positive_ctxs"):
        if name not in columns:
            raise DataError(f"no field '{name}', which DPR files have; {found(table)}", path=table.path)
    lists_of = [columns[name] for name in _CONTEXTS if name in columns]
    if not lists_of:
        raise DataError(f"no field {' or '.join(_CONTEXTS)}; {found(table)}", path=table.path)
    for row, question in enumerate(columns["question"]):
        contexts = [[_context(value, table, row) for value in _list(columns["positive_ctxs"][row], table, row)]]
        contexts.append(
            [_context(value, table, row) for column in lists_of for value in _list(column[row], table, row)]
        )
        yield Row(row, Item(None, question), *contexts)


def _context(value: Any, table: Table, row: int) -> Item:
    if not isinstance(value, Mapping):
        raise table.error(row, f"a context is {short(value)}, not an object with a text")
    name = value.get("passage_id", value.get("psg_id"))
    score = value.get("score")
    title = value.get("title")
    return Item(name, value.get("text"), title, math.nan if score is None else _number(score, table, row))


def _columns(table: Table) -> Iterator[Row]:
    query, query_id = _column(table, _QUERY), _column(table, _QUERY_ID)
    positive, positive_id = _column(table, ("positive",)), _column(table, ("positive_id",))
    texts = _column(table, ("negatives", "negative"))
    ids = _column(table, ("negative_ids",))
    numbered = sorted(numbered_negatives(table), key=lambda name: int(name.strip().rsplit("_", 1)[1]))
    scores = _column(table, ("scores",))
    if (query is None and query_id is None) or (positive is None and positive_id is None):
        raise DataError(f"a query and a positive are wanted; {found(table)}", path=table.path)
    if texts is None and ids is None and not numbered:
        raise DataError(
            f"no field with negatives (negatives, negative, negative_1, ...); {found(table)}", path=table.path
        )
    for row in range(len(table)):
        listed = _list(texts[row], table, row) if texts is not None else []
        listed = [
            *listed,
            *(table.columns[name][row] for name in numbered if table.columns[name][row] not in (None, "")),
        ]
        positives = _items(table, row, positive_id, _list(positive[row], table, row) if positive is not None else [])
        negatives = _items(table, row, ids, listed)
        given = _list(scores[row], table, row) if scores is not None else []
        numbers = [_number(value, table, row) for value in given]
        if numbers and len(numbers) not in (len(negatives), len(positives) + len(negatives)):
            expected = f"{len(positives)} positives and {len(negatives)} negatives"
            raise table.error(row, f"{len(numbers)} scores for {expected}; give one for each, or for each negative")
        split = len(numbers) - len(negatives)
        if split > 0:
            positives = [item._replace(score=score) for item, score in zip(positives, numbers, strict=False)]
        if numbers:
            negatives = [item._replace(score=score) for item, score in zip(negatives, numbers[split:], strict=True)]
        yield Row(row, _asker(row, query, query_id), positives, negatives)


def _lists(table: Table) -> Iterator[Row]:
    query, query_id = _column(table, _QUERY), _column(table, _QUERY_ID)
    texts, ids = _column(table, ("documents", "positive")), _column(table, ("document_ids",))
    labels, scores = _column(table, ("labels",)), _column(table, ("scores",))
    if labels is None or (texts is None and ids is None) or (query is None and query_id is None):
        raise DataError(f"a query, documents and labels are wanted; {found(table)}", path=table.path)
    for row in range(len(table)):
        items = _items(table, row, ids, _list(texts[row], table, row) if texts is not None else [])
        grades = [_number(value, table, row) for value in _list(labels[row], table, row)]
        given = _list(scores[row], table, row) if scores is not None else [None] * len(items)
        if len(grades) != len(items) or len(given) != len(items):
            raise table.error(
                row, f"{len(items)} documents, {len(grades)} labels and {len(given)} scores do not pair up"
            )
        numbers = [math.nan if value is None else _number(value, table, row) for value in given]
        both = [i._replace(score=s, relevance=g) for i, s, g in zip(items, numbers, grades, strict=True)]
        positives = [item for item in both if item.relevance > 0]
        yield Row(row, _asker(row, query, query_id), positives, [item for item in both if item.relevance <= 0])


def _column(table: Table, names: Sequence[str]) -> list[Any] | None:
    known = {name.strip().lower(): values for name, values in table.columns.items()}
    return next((known[name] for name in names if name in known), None)


def _asker(row: int, query: list[Any] | None, query_id: list[Any] | None) -> Item:
    return Item(None if query_id is None else query_id[row], None if query is None else query[row])


def _items(table: Table, row: int, ids: list[Any] | None, texts: Sequence[Any]) -> list[Item]:
    names = _list(ids[row], table, row) if ids is not None else [None] * len(texts)
    if len(texts) and len(names) != len(texts):
        raise table.error(row, f"{len(names)} ids for {len(texts)} texts")
    return [Item(name, text) for name, text in zip(names, texts or [None] * len(names), strict=True)]


def _list(value: Any, table: Table, row: int) -> list[Any]:
    """A cell as a list: a list, a JSON list in text (CSV), one value, or nothing."""
    if value is None or value == "":
        return []
    if isinstance(value, str) and value.lstrip().startswith("["):
        import msgspec

        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return [value]
    if isinstance(value, Mapping):
        raise table.error(row, f"{short(value)} where a list is wanted")
    return list(value) if isinstance(value, list) else [value]


def _number(value: Any, table: Table, row: int) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise table.error(row, f"the score or label {short(value)} is not a finite number")
    return number
