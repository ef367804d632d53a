"""`Collection`: the rows of one side of a ranking problem, queries or documents."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rivals.errors import DataError, RivalsError


class Collection:
    """An immutable, ordered set of queries or documents: unique string ids and named columns, `text` the usual one.

    Everything downstream names a member by its *row* (int64, 0..N-1); ids appear only at the border (files, HTTP, reports).

    Args:
        ids: N unique, non-empty strings.
        texts: N strings, or None for members that have no text here (features, links, a run file read alone).
        columns: further columns of N values, such as `title`.
        name: what a member is called in messages, "document" or "query".

    Raises:
        DataError: an id is empty, not a string or repeated; a column has another length; a text is not a string.

    >>> documents = Collection(["a", "b"], ["first", "second"])
    >>> len(documents), documents.rows(["b"]).tolist(), documents.texts
    (2, [1], ['first', 'second'])
    """

    def __init__(
        self,
        ids: Iterable[str],
        texts: Iterable[str] | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
        *,
        name: str = "document",
    ) -> None:
        arrays: dict[str, pa.Array] = {"id": _strings(ids, f"{name} ids")}
        if texts is not None:
            arrays["text"] = _strings(texts, f"{name} texts")
        for key, values in (columns or {}).items():
            arrays[key] = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
        for key, values in arrays.items():
            if len(values) != len(arrays["id"]):
                raise DataError(f"{name} column '{key}' has {len(values)} values for {len(arrays['id'])} ids")
        self._adopt(pa.table(arrays), name)

    @classmethod
    def from_table(cls, table: pa.Table, *, name: str = "document") -> Collection:
        """Make a collection of an Arrow table with an `id` column (and a `text` column, if the members have texts).

        >>> Collection.from_table(pa.table({"id": ["a"], "text": ["x"]})).texts
        ['x']
        """
        if "id" not in table.column_names:
            raise DataError(
                f"the {name} table has no 'id' column; it has {', '.join(table.column_names) or 'no column'}"
            )
        for column in ("id", "text"):
            if column in table.column_names and table.schema.field(column).type != pa.large_string():
                place = table.column_names.index(column)
                table = table.set_column(place, column, _strings(table[column], f"{name} {column}s"))
        collection = cls.__new__(cls)
        collection._adopt(table, name)
        return collection

    def _adopt(self, table: pa.Table, name: str) -> None:
        self.table = table
        self.name = name
        for column in ("id", "text"):
            if column in table.column_names and table[column].null_count:
                row = table[column].to_pylist().index(None)
                raise DataError(f"{name} {row} (counted from 0) has no {column}; every row needs one")
        if len(self._row_of) != len(table):
            seen: set[str] = set()
            twice = next(i for i in self.ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise DataError(f"{name} id '{twice}' appears twice; ids must be unique")
        if "" in self._row_of:
            raise DataError(f"{name} {self._row_of['']} (counted from 0) has an empty id")

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return f"Collection({len(self)} {self.name} rows: {', '.join(self.table.column_names)})"

    @cached_property
    def ids(self) -> NDArray[np.object_]:
        """The ids, object[N]."""
        return self.table["id"].to_numpy(zero_copy_only=False).astype(object)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {i: row for row, i in enumerate(self.table["id"].to_pylist())}

    def __contains__(self, identifier: object) -> bool:
        return identifier in self._row_of

    def row(self, identifier: str) -> int:
        """Return the row of one id.

        Raises:
            RivalsError: no member has this id.
        """
        try:
            return self._row_of[identifier]
        except KeyError:
            raise RivalsError(f"no {self.name} has the id '{identifier}' among {len(self)}") from None

    def rows(self, identifiers: Iterable[str]) -> NDArray[np.int64]:
        """Return the rows of several ids, int64; unknown ids raise (see `find`)."""
        return np.fromiter((self.row(i) for i in identifiers), dtype=np.int64)

    def find(self, identifiers: Iterable[str]) -> NDArray[np.int64]:
        """Return the rows of several ids, int64, with -1 for unknown ones.

        >>> Collection(["a", "b"]).find(["b", "z"]).tolist()
        [1, -1]
        """
        lookup = self._row_of
        return np.fromiter((lookup.get(i, -1) for i in identifiers), dtype=np.int64)

    @property
    def has_texts(self) -> bool:
        """Whether the members have texts."""
        return "text" in self.table.column_names

    @cached_property
    def texts(self) -> list[str]:
        """The texts, a list of N strings; with a `title` column, "title. text" is what models and BM25 read (`full_texts`)."""
        if not self.has_texts:
            raise RivalsError(
                f"these {self.name} rows have ids but no texts; load them with their texts to use them here"
            )
        return self.table["text"].to_pylist()

    @cached_property
    def full_texts(self) -> list[str]:
        """What a model reads: the text, with the title in front where there is one.

        >>> Collection(["a", "b"], ["x", "y"], {"title": ["T", ""]}).full_texts
        ['T. x', 'y']
        """
        if "title" not in self.table.column_names:
            return self.texts
        titles = self.table["title"].to_pylist()
        return [f"{title}. {text}" if title else text for title, text in zip(titles, self.texts, strict=True)]

    @cached_property
    def tie_order(self) -> NDArray[np.int64]:
        """The lexicographic rank of each id, int64[N]: what breaks ties between equal scores."""
        order = np.empty(len(self), dtype=np.int64)
        order[np.argsort(self.ids, kind="stable")] = np.arange(len(self))
        return order

    @cached_property
    def text_hashes(self) -> NDArray[np.uint64]:
        """A 64-bit hash of each normalised text, uint64[N]: equal for texts that differ in case, accents' form or blanks only."""
        return np.fromiter((text_hash(text) for text in self.full_texts), dtype=np.uint64, count=len(self))

    @cached_property
    def text_groups(self) -> NDArray[np.int64]:
        """For each member the row of the first member with the same normalised text, int64[N]: equal numbers, equal texts.

        >>> Collection(["a", "b", "c"], ["x", "y", "X "]).text_groups.tolist()
        [0, 1, 0]
        """
        _, first, group = np.unique(self.text_hashes, return_index=True, return_inverse=True)
        return first[group].astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of ids and texts, in hexadecimal: equal for collections with the same content in the same order."""
        digest = hashlib.blake2b(digest_size=16)
        for column in ("id", "title", "text"):
            if column in self.table.column_names:
                for value in self.table[column].to_pylist():
                    encoded = ("" if value is None else str(value)).encode("utf-8", "surrogatepass")
                    digest.update(len(encoded).to_bytes(8, "little") + encoded)
        return digest.hexdigest()

    def take(self, rows: Any) -> Collection:
        """Return the members at `rows`, in that order.

        >>> Collection(["a", "b", "c"]).take([2, 0]).ids.tolist()
        ['c', 'a']
        """
        return Collection.from_table(self.table.take(pa.array(np.asarray(rows, dtype=np.int64))), name=self.name)


def normalise_text(text: str) -> str:
    """Return text in Unicode NFKC, case-folded, blanks collapsed: what counts as "the same text" for duplicates.

    >>> normalise_text("  The  \\uff21nswer\\n")
    'the answer'
    """
    if text.isascii() and text.isprintable() and "  " not in text:  # the usual case, where the long way gives the same
        return text.lower().strip()
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def text_hash(text: str) -> int:
    """Return a 64-bit hash of the normalised text.

    >>> text_hash("A  b") == text_hash("a b")
    True
    """
    encoded = normalise_text(text).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")


def _strings(values: Any, what: str) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            return values.cast(pa.large_string())
        raise DataError(f"{what} must be strings, not {values.type}")
    values = list(values)
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(f"{what}: row {row} (counted from 0) is {value!r}, not a string")
    try:
        return pa.array(values, pa.large_string())
    except (pa.ArrowInvalid, UnicodeEncodeError):
        raise DataError(
            f"{what}: a text holds lone surrogates, which are not valid Unicode; mend the source's encoding"
        ) from None
