"""Queries and documents while a dataset is being read: unique ids, texts, and where each was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rivals.data.collection import Collection
from rivals.data.formats.fields import (
    Report,
    as_id,
    as_split,
    as_text,
    extra_column,
    generated_id,
    match_fields,
    require,
    short,
)
from rivals.data.formats.tables import Table
from rivals.errors import DataError


class Members:
    """The queries or the documents of a dataset being read.

    Either `closed`, read from a file of their own, so that others can only refer to them; or open, collected from the
    texts in pairs.

    Args:
        part: "documents" or "queries".
    """

    def __init__(self, part: str, report: Report) -> None:
        self.part = part
        self.name = "document" if part == "documents" else "query"
        self.report = report
        self.closed = False
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.titles: list[str] = []
        self.splits: list[str | None] = []
        self.columns: dict[str, list[Any]] = {}
        self.where: list[tuple[Table, int]] = []
        self.row_of: dict[str, int] = {}
        self.empty: dict[str, tuple[Table, int]] = {}
        self._by_text: dict[str, int] | None = None
        self._given: Collection | None = None

    @classmethod
    def of(cls, part: str, collection: Collection, report: Report) -> Members:
        """Return closed members that stand for a collection at hand; texts are looked up bare and with their title.

        >>> Members.of("documents", Collection(["a"], ["x"], {"title": ["T"]}), Report()).find(None, "T. x")
        (0, '')
        """
        members = cls(part, report)
        members.closed, members._given = True, collection
        members.ids, members.row_of = collection.ids.tolist(), {name: row for row, name in enumerate(collection.ids)}
        members.texts = collection.texts if collection.has_texts else [""] * len(collection)
        members._by_text = {}
        for text in (members.texts, collection.full_texts) if collection.has_texts else ():
            for row, value in enumerate(text):
                members._by_text.setdefault(value, row)
        return members

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def by_text(self) -> dict[str, int]:
        """Text -> row of the first member with it."""
        if self._by_text is None:
            self._by_text = {}
            for row, text in enumerate(self.texts):
                self._by_text.setdefault(text, row)
        return self._by_text

    def read(self, table: Table, fields: Mapping[str, str]) -> None:
        """Take the members from a file of their own.

        Raises:
            DataError: no text field, a row without an id, an id twice with different content, no member left.
        """
        chosen = match_fields(table, self.part, fields, self.report)
        require(table, chosen, self.part, "text", "title")
        self.closed = True
        columns = table.columns
        none: list[Any] = [None] * len(table)
        column = {meaning: columns[name] for meaning, name in chosen.items()}
        ids, texts, titles, splits = (column.get(meaning, none) for meaning in ("id", "text", "title", "split"))
        extra = {name: values for name, values in columns.items() if name not in chosen.values()}
        generated = "id" not in chosen
        kept: list[int] = []
        for row in range(len(table)):
            text = as_text(texts[row], table, row, f"{self.name} text", self.part, self.report)
            title = as_text(titles[row], table, row, f"{self.name} title", self.part, self.report)
            blank = not (text and not text.isspace()) and not (title and not title.isspace())
            if generated:
                identifier = None if blank else generated_id(f"{title}\n{text}" if title else text, self.name[0])
            else:
                identifier = as_id(ids[row], table, row, f"{self.name} id")
                if identifier is None:
                    raise table.error(row, f"this {self.name} has no id")
            split = as_split(splits[row], table, row)
            known = None if identifier is None else self.row_of.get(identifier)
            if known is not None:
                there = kept[known]
                same = self.texts[known] == text and self.titles[known] == title and self.splits[known] == split
                if same and (generated or all(values[there] == values[row] for values in extra.values())):
                    self.report.add(self.part, "merged: equal texts" if generated else "merged: identical rows")
                    continue
                what = "its content" if self.splits[known] == split else "its split or content"
                raise table.error(
                    row, f"{self.name} id '{identifier}' stands in line {table.places[there]} too and {what} differs"
                )
            if identifier in self.empty and not blank:
                line = table.places[self.empty[identifier][1]]
                raise table.error(
                    row, f"{self.name} id '{identifier}' stands in line {line} too, where its text is empty"
                )
            if blank:
                self.report.add(self.part, "dropped: empty text")
                if identifier is not None:
                    self.empty.setdefault(identifier, (table, row))
                continue
            assert identifier is not None
            self._append(identifier, text, title, split, (table, row))
            kept.append(row)
        self.report.add(self.part, "rows", len(table))
        self.report.add(self.part, "used", len(self.ids))
        self.report.add(self.part, "noted: blank lines", table.blank)
        if not self.ids:
            raise DataError(f"every {self.name} text is empty", path=table.path)
        self._extra(extra, kept, table)

    def _extra(self, extra: dict[str, list[Any]], kept: list[int], table: Table) -> None:
        for name, values in extra.items():
            try:
                column = extra_column([values[row] for row in kept])
            except RecursionError:
                raise DataError(f"the values of {short(name)} are nested too deeply", path=table.path) from None
            if column is not None:
                taken = name in ("id", "text", "title") or name in self.columns
                self.columns[f"original_{name}" if taken else name] = column
        if self.columns:
            self.report.origin[self.part] += f"; further columns: {', '.join(map(short, self.columns))[:300]}"

    def _append(self, identifier: str, text: str, title: str, split: str | None, where: tuple[Table, int]) -> int:
        row = len(self.ids)
        self.row_of[identifier] = row
        self.ids.append(identifier)
        self.texts.append(text)
        self.titles.append(title)
        self.splits.append(split)
        self.where.append(where)
        if self._by_text is not None:
            self._by_text.setdefault(text, row)
        return row

    def find(self, identifier: str | None, text: str) -> tuple[int, str]:
        """Return (row, ""), or (-1, why it cannot be used), for a reference by id or else by text.

        An open collection answers -1 without a reason if the member is new and usable; `add` then makes it.
        """
        if identifier is not None:
            row = self.row_of.get(identifier, -1)
            if row >= 0:
                return row, ""
            if identifier in self.empty:
                return -1, f"empty {self.name}"
        elif text:
            row = self.by_text.get(text, -1)
            if row >= 0:
                return row, ""
        if self.closed:
            return -1, f"unknown {self.name}"
        return -1, "" if text and not text.isspace() else f"empty {self.name} text"

    def add(self, identifier: str | None, text: str, table: Table, row: int, *, title: str = "") -> int:
        """Return the row of a member named in a pair, made now (with its title) if it is new.

        Raises:
            DataError: the id has another text elsewhere.
        """
        known, _ = self.find(identifier, text)
        if known < 0:
            made = generated_id(text, self.name[0]) if identifier is None else identifier
            return self._append(made, text, title, None, (table, row))
        if identifier is not None and text and self.texts[known] != text:
            if not self.closed:
                place = self.where[known][0].place(self.where[known][1])
                raise table.error(row, f"{self.name} id '{identifier}' has another text than in {place}")
            self.report.add(self.part, "noted: a pair gives another text (the file's own is used)")
        return known

    def collection(self) -> Collection:
        """Return the finished collection."""
        if self._given is not None:
            return self._given
        columns: dict[str, Any] = {"title": self.titles} if any(self.titles) else {}
        return Collection(self.ids, self.texts, columns | self.columns, name=self.name)
