"""Which field of a file means what: accepted names, the choice among them, and the checks of single values."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rivals.data.formats.tables import Table
from rivals.errors import DataError

#: part -> meaning -> accepted field names (case, blanks and hyphens do not matter).
ACCEPTED: dict[str, dict[str, tuple[str, ...]]] = {
    "documents": {
        "id": ("id", "_id", "doc_id", "docid", "document_id", "corpus_id", "answer_id", "pid"),
        "text": ("text", "contents", "content", "body", "passage", "answer", "document"),
        "title": ("title",),
    },
    "queries": {
        "id": ("id", "_id", "query_id", "qid", "question_id"),
        "text": ("text", "query", "question", "anchor"),
        "title": ("title",),
        "split": ("split",),
    },
    "pairs": {
        "query_id": ("query_id", "qid", "question_id"),
        "query": ("query", "question", "anchor", "text"),
        "document_id": ("document_id", "doc_id", "docid", "answer_id", "corpus_id", "pid"),
        "document": ("document", "answer", "positive", "passage"),
        "relevance": ("relevance", "score", "label"),
        "split": ("split",),
        "negatives": ("negatives", "negative"),
    },
    "splits": {"query_id": ("query_id", "qid", "id", "_id", "question_id"), "split": ("split",)},
}
ACCEPTED["judgements"] = {key: ACCEPTED["pairs"][key] for key in ("query_id", "document_id", "relevance", "split")}

_NUMBERED_NEGATIVE = re.compile(r"negative_\d+")
_SPLIT_NAMES = {"validation": "dev", "valid": "dev", "val": "dev", "development": "dev", "training": "train"}


#: Longer ids are texts in the wrong field.
MAX_ID = 512


class Report:
    """Counts by reason: for every part `rows` = `used` + all `dropped: ` + all `merged: `; `noted: ` only tells."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.origin: dict[str, str] = {}

    def add(self, part: str, reason: str, amount: int = 1) -> None:
        """Count `amount` rows of a part."""
        if amount:
            self.counts[f"{part} {reason}"] += amount


def match_fields(table: Table, part: str, fields: Mapping[str, str], report: Report) -> dict[str, str]:
    """Choose the field for every meaning of a part (`ACCEPTED`); meanings that the file does not have are left out.

    Args:
        fields: the user's own choices, "part.meaning" -> field name.

    Raises:
        DataError: two fields could be meant, or a chosen field is not there.

    >>> from pathlib import Path
    >>> table = Table(Path("d.csv"), "csv", columns={"Doc-ID": [], "body": [], "year": []})
    >>> match_fields(table, "documents", {}, Report())
    {'id': 'Doc-ID', 'text': 'body'}
    """
    names: dict[str, list[str]] = {}
    for name in table.columns:
        names.setdefault(re.sub(r"[\s-]+", "_", name.strip().lower()), []).append(name)
    wishes = {wish for key, wish in fields.items() if key.startswith(f"{part}.")}
    chosen: dict[str, str] = {}
    for meaning, accepted in ACCEPTED[part].items():
        wish = fields.get(f"{part}.{meaning}")
        if wish is not None:
            if wish not in table.columns:
                raise DataError(f"no field '{wish}' (asked for as {part}.{meaning}); {found(table)}", path=table.path)
            chosen[meaning] = wish
            continue
        candidates = [name for key in accepted for name in names.get(key, []) if name not in wishes]
        if len(candidates) > 1:
            both = " and ".join(short(name) for name in candidates)
            raise DataError(
                f"{both} could each be the {meaning}; choose with the field setting "
                f"{part}.{meaning}={candidates[0][:60]}; {found(table)}",
                path=table.path,
            )
        if candidates:
            chosen[meaning] = candidates[0]
    text = ", ".join(f"{meaning} from {short(name)}" for meaning, name in chosen.items())
    entry = f"{table.path} ({len(table):,} {table.unit}s): {text or 'no known field'}"
    report.origin[part] = f"{report.origin[part]}; {entry}" if part in report.origin else entry
    return chosen


def found(table: Table) -> str:
    """Return the list of a file's fields for a message."""
    names = ", ".join(short(name) for name in list(table.columns)[:30])
    return f"the fields found are {names[:600] or 'none'}"


def require(table: Table, chosen: Mapping[str, str], part: str, *meanings: str) -> None:
    """Check that at least one of the meanings was found.

    Raises:
        DataError: none was; says which names are accepted and which fields were found.
    """
    if not any(meaning in chosen for meaning in meanings):
        accepted = ", ".join(name for meaning in meanings for name in ACCEPTED[part][meaning])
        raise DataError(
            f"no field for the {' or '.join(meanings)} (accepted: {accepted}); {found(table)}", path=table.path
        )


def numbered_negatives(table: Table) -> list[str]:
    """Return the fields `negative_1`, `negative_2`, ... of a table."""
    return [name for name in table.columns if _NUMBERED_NEGATIVE.fullmatch(name.strip().lower())]


# ------------------------------------------------------------------------------------------------------------- values


def as_id(value: Any, table: Table, row: int, what: str) -> str | None:
    """Return an id as a string (whole numbers become strings), or None where there is none.

    Raises:
        DataError: it is a fraction, true/false, a list, an object, or holds control characters.
    """
    if value is None:
        return None
    if type(value) is str:
        if not value or value.isspace():
            return None
        if len(value) > MAX_ID:
            raise table.error(
                row, f"the {what} has {len(value):,} characters ({short(value)}); at most {MAX_ID} are allowed"
            )
        if not value.isprintable() and any(ord(mark) < 32 or ord(mark) == 127 for mark in value):
            raise table.error(row, f"the {what} {short(value)} holds a control character")
        return value
    if type(value) is int:
        return str(value)
    raise table.error(row, f"the {what} is {short(value)}; ids must be strings or whole numbers")


def as_text(value: Any, table: Table, row: int, what: str, part: str, report: Report) -> str:
    """Return a text; absent becomes empty, NUL characters become blanks (counted).

    Raises:
        DataError: it is not a string.
    """
    if type(value) is str:
        if "\0" in value:
            report.add(part, "noted: NUL characters replaced by blanks")
            return value.replace("\0", " ")
        return value
    if value is None:
        return ""
    raise table.error(row, f"the {what} is {short(value)}, not a text")


def as_relevance(value: Any, table: Table, row: int) -> float:
    """Return a relevance as a finite float32 number.

    Raises:
        DataError: it is missing, not a number, NaN or too large.
    """
    number = math.nan
    if isinstance(value, int | float):
        number = float(value) if abs(value) < 1e38 else math.inf
    elif isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
    if value is None or value == "":
        raise table.error(row, "the relevance is missing; give a number, 0 for not relevant")
    if not abs(number) < 1e38:
        raise table.error(
            row, f"the relevance is {short(value)}, not a finite number; give a number, 0 for not relevant"
        )
    return float(struct.unpack("f", struct.pack("f", number))[0])


def as_split(value: Any, table: Table, row: int) -> str | None:
    """Return a split's name ("validation" and the like are called "dev"), or None."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise table.error(row, f"the split is {short(value)}, not a name such as train, dev or test")
    return split_name(value)


def split_name(name: str) -> str:
    """Return the name a split has here.

    >>> split_name("Validation"), split_name("fold 3")
    ('dev', 'fold 3')
    """
    name = name.strip()
    plain = name.lower()
    return _SPLIT_NAMES.get(plain, plain if plain in ("train", "dev", "test") else name)


def generated_id(text: str, prefix: str) -> str:
    """Return an id made of a text: the same text always gets the same id, in every file and process.

    >>> generated_id("What is rivalry?", "q")
    'q-2b4de7626fab98afcc8b'
    """
    return f"{prefix}-{hashlib.blake2b(text.encode(), digest_size=10).hexdigest()}"


def extra_column(values: list[Any]) -> list[Any] | None:
    """Return a further column in a form that one Arrow type holds: as it is, or as strings; None if it holds nothing.

    >>> extra_column([1, None, 2.5]), extra_column(["a", 1]), extra_column(["", None, {}])
    ([1.0, None, 2.5], ['a', '1'], None)
    >>> extra_column([{"b": 1}, None])
    ['{"b": 1}', None]
    """
    types = {type(value) for value in values}
    if not any(value is not None and value != "" and value != [] and value != {} for value in values):
        return None
    types.discard(type(None))
    if types <= {int, float} and types != {int}:
        return [None if value is None else _float(value) for value in values]
    if types in ({str}, {bool}) or (
        types == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values)
    ):
        return values
    return [
        json.dumps(value, ensure_ascii=False, default=str)
        if isinstance(value, list | dict)
        else None
        if value is None
        else str(value)
        for value in values
    ]


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def short(value: Any) -> str:
    """Return a value for a message, on one line and not too long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
