"""Sheets for review: candidates with their texts and an empty column `relevant`, written for a person and read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.formats.tables import Table, read_table, write_table
from rivals.data.run import Run
from rivals.errors import DataError
from rivals.negatives._examples import example_of
from rivals.negatives.filters import KNOWN_POSITIVE

#: (query id, document id) -> whether the document is relevant.
Answers = Mapping[tuple[str, str], bool]

_WORDS = {"yes": True, "y": True, "true": True, "1": True, "no": False, "n": False, "false": False, "0": False}
_OPEN = ("", "?", "unsure")


class SheetRow(NamedTuple):
    """One answered row of a sheet, and the line it stands in."""

    query_id: str
    document_id: str
    relevant: bool
    line: int


def sheet_columns(run: Run, rows: NDArray[np.int64], answers: Answers | None = None) -> dict[str, list[Any]]:
    """Return the columns of a sheet for a person: ids, `relevant` to fill in with yes or no, scores, reasons, texts.

    Args:
        answers: given so far; they are filled in.
    """
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            "query_id", "document_id", "relevant", "score", "positive_score", "positive_id", "reasons", "query",
            "document", "positive",
        )
    }  # fmt: skip
    for row in rows.tolist():
        example = example_of(run, row)
        given = (answers or {}).get((example.query_id, example.document_id))
        values = example._asdict() | {
            "relevant": "" if given is None else "yes" if given else "no",
            "reasons": "; ".join(example.reasons),
            "score": round(example.score, 4),
            "positive_score": None if example.positive_score is None else round(example.positive_score, 4),
        }
        for name, column in columns.items():
            value = values[name]
            column.append(" ".join(value.split()) if name in ("query", "document", "positive") and value else value)
    return columns


def write_sheet(run: Run, rows: NDArray[np.int64], path: str | Path, answers: Answers | None = None) -> int:
    """Write a sheet to fill in (.tsv, .csv or .jsonl) and return its number of rows.

    Raises:
        DataError: another ending.
    """
    write_table(sheet_columns(run, rows, answers), path)
    return len(rows)


def read_rows(path: str | Path) -> list[SheetRow]:
    """Read the answered rows of a sheet (any table); open ones (empty, "?", "unsure") are left out.

    Raises:
        DataError: with file and line: a column is missing, a word that is no answer, a pair answered twice, differently.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sheet = Path(folder) / "sheet.csv"
    ...     _ = sheet.write_text("query_id,document_id,relevant\\nq1,d1,yes\\nq1,d2,\\nq1,d3,No\\n")
    ...     [tuple(row) for row in read_rows(sheet)]
    [('q1', 'd1', True, 2), ('q1', 'd3', False, 4)]
    """
    table = read_table(path)
    wanted = ("query_id", "document_id", "relevant")
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise DataError(f"a sheet has the columns {', '.join(wanted)}; this file lacks {', '.join(missing)}", path=path)
    rows: dict[tuple[str, str], SheetRow] = {}
    for at, (query, document, word) in enumerate(zip(*(table.columns[name] for name in wanted), strict=True)):
        answer = _answer(word, table, at)
        if answer is None:
            continue
        row = SheetRow(str(query), str(document), answer, table.places[at])
        old = rows.setdefault((row.query_id, row.document_id), row)
        if old.relevant != answer:
            raise table.error(
                at, f"query '{query}' and document '{document}' have another answer in {table.unit} {old.line}"
            )
    return list(rows.values())


def _answer(word: Any, table: Table, row: int) -> bool | None:
    plain = "" if word is None else str(word).strip().lower()
    if plain in _OPEN:
        return None
    if plain not in _WORDS:
        raise table.error(row, f"the answer '{str(word)[:40]}' is neither yes nor no; leave it empty if open")
    return _WORDS[plain]


def read_answers(path: str | Path, run: Run) -> dict[tuple[str, str], bool]:
    """Read the answers of a sheet to a run's candidates.

    Raises:
        DataError: as `read_rows`; an id that does not exist, a document that is no candidate of the query, a labelled
            positive.
    """
    answered = read_rows(path)
    rows = candidate_rows(run, [(answer.query_id, answer.document_id) for answer in answered])
    labelled = run.where_reason(KNOWN_POSITIVE)
    for answer, row in zip(answered, rows.tolist(), strict=True):
        for members, identifier in ((run.queries, answer.query_id), (run.documents, answer.document_id)):
            if identifier not in members:
                raise DataError(f"no {members.name} of the run has the id '{identifier}'", path=path, line=answer.line)
        pair = f"document '{answer.document_id}' is {{}} of query '{answer.query_id}'"
        if row < 0:
            what = pair.format("no candidate") + "; review the run that the sheet was made of"
            raise DataError(what, path=path, line=answer.line)
        if labelled[row]:
            what = pair.format("a labelled positive") + "; a review settles candidates, correct labels in the data"
            raise DataError(what, path=path, line=answer.line)
    return {(answer.query_id, answer.document_id): answer.relevant for answer in answered}


def candidate_rows(run: Run, pairs: list[tuple[str, str]]) -> NDArray[np.int64]:
    """Return the run's row of each (query id, document id), -1 where it is no candidate, int64[m]."""
    query, document = run.queries.find(q for q, _ in pairs), run.documents.find(d for _, d in pairs)
    rows = lists.find_pairs(run.offsets, run.document, np.maximum(query, 0), np.maximum(document, 0))
    return np.where((query >= 0) & (document >= 0), rows, -1)
