"""TREC files: topics (SGML, XML or two tab-separated columns), qrels of four columns, runs of six."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.dataset import Dataset
from rivals.data.formats.fields import Report
from rivals.data.formats.members import Members
from rivals.data.formats.tables import Table, format_of, read_table
from rivals.data.formats.text import text_lines
from rivals.data.run import Run
from rivals.errors import DataError
from rivals.files import atomic_file

PathLike = str | Path

_TOPIC = re.compile(r"<(top|topic)\b([^>]*)>", re.IGNORECASE)
_TOPIC_END = re.compile(r"</top(?:ic)?>", re.IGNORECASE)
_FIELD = re.compile(r"<(num|title|query|question|desc|description|narr|narrative)\b[^>]*>", re.IGNORECASE)
_LABEL = re.compile(r"^(number|topic|title|description|narrative|question|query)\s*:\s*", re.IGNORECASE)
_NUMBER = re.compile(r"""\b(?:number|id)\s*=\s*["']([^"']+)["']""", re.IGNORECASE)
#: The fields of a table of topics, for `Members.read`.
TOPIC_FIELDS = {"queries.id": "id", "queries.text": "text"}
_LONG = {"desc": "description", "narr": "narrative"}


# -------------------------------------------------------------------------------------------------------------- topics


def read_topics_table(path: PathLike) -> Table:
    """Read TREC topics in SGML or XML as a table of id, text, and description and narrative where they are given.

    The text is the title, else the query, the question or the description. White space is collapsed.

    Raises:
        DataError: a topic without number or text, a topic that is not closed, no topic.
    """
    path = Path(path)
    table = Table(path, "sgml")
    topic: tuple[int, str, list[str]] | None = None
    for number, line in text_lines(path):
        rest = line
        while rest:
            if topic is None:
                begin = _TOPIC.search(rest)
                outside = rest[: begin.start()] if begin else rest
                if _FIELD.search(outside) or _TOPIC_END.search(outside):
                    raise DataError("a field or </top> stands outside <top> ... </top>", path=path, line=number)
                if begin is None:
                    break
                topic, rest = (number, begin[2], []), rest[begin.end() :]
            end = _TOPIC_END.search(rest)
            if _TOPIC.search(rest[: end.start()] if end else rest):
                raise DataError(
                    f"a topic begins here, but the one of line {topic[0]} is not closed", path=path, line=number
                )
            topic[2].append(rest[: end.start()] if end else rest)
            if end is None:
                break
            table.add(topic[0], _topic("".join(topic[2]), topic[1], path, topic[0]))
            topic, rest = None, rest[end.end() :]
    if topic is not None:
        raise DataError("this topic is not closed with </top>; the file may be truncated", path=path, line=topic[0])
    if not len(table):
        raise DataError("no topic (<top> ... </top>) in this file", path=path)
    return table


def _topic(body: str, attributes: str, path: Path, line: int) -> dict[str, Any]:
    marks = list(_FIELD.finditer(body))
    values: dict[str, str] = {}
    for mark, following in zip_longest(marks, marks[1:]):
        name = _LONG.get(mark[1].lower(), mark[1].lower())
        value = body[mark.end() : following.start() if following else len(body)]
        value = " ".join(re.sub(r"</\w+>", " ", value).split())
        value = html.unescape(_LABEL.sub("", value) if name != "title" or value.lower().startswith("topic:") else value)
        if name in values:
            raise DataError(f"this topic has two fields <{mark[1]}>", path=path, line=line)
        values[name] = value
    attribute = _NUMBER.search(attributes)
    identifier = values.pop("num", None) or (attribute[1] if attribute else None)
    if not identifier:
        raise DataError("this topic has no number (<num>)", path=path, line=line)
    text = next((values.pop(name) for name in ("title", "query", "question", "description") if values.get(name)), None)
    if text is None:
        raise DataError(
            f"topic '{identifier}' has no text (<title>, <query>, <question> or <desc>)", path=path, line=line
        )
    return {"id": identifier, "text": text, **values}


def load_topics(path: PathLike) -> Collection:
    """Load queries from TREC topics (SGML, XML, or `id<TAB>text` lines) or any table of queries.

    Raises:
        DataError: with file and line.
    """
    path = Path(path)
    members = Members("queries", Report())
    members.read(*((read_topics_table(path), TOPIC_FIELDS) if format_of(path) == "sgml" else (read_table(path), {})))
    return members.collection()


def save_topics(queries: Collection, path: PathLike) -> None:
    """Write queries as TREC topics: `id<TAB>text` lines with a header if the name ends in .tsv, else SGML.

    Raises:
        DataError: an id with blanks, or a text with line breaks or runs of blanks, which the format cannot keep.
    """
    tabbed = Path(path).suffix.lower() == ".tsv"
    with atomic_file(path) as out:
        if tabbed:
            out.write("id\ttext\n")
        for identifier, text in zip(queries.ids.tolist(), queries.texts, strict=True):
            _check_word(identifier, "query", path)
            if text != " ".join(text.split()):
                raise DataError(
                    f"query '{identifier}': TREC topics keep no tabs, line breaks or runs of blanks", path=path
                )
            if tabbed:
                quoted = '"' + text.replace('"', '""') + '"' if '"' in text else text
                out.write(f"{identifier}\t{quoted}\n")
            else:
                out.write(f"<top>\n<num> Number: {html.escape(identifier)}\n<title> {html.escape(text)}\n</top>\n")


# --------------------------------------------------------------------------------------------------------------- qrels


def read_qrels_table(path: PathLike) -> Table:
    """Read TREC qrels (query id, iteration, document id, relevance) as a table.

    Raises:
        DataError: a line without four columns.
    """
    table = Table(Path(path), "columns")
    for number, cells in _words(path, 4, "query id, iteration, document id, relevance", table):
        table.add(number, {"query_id": cells[0], "document_id": cells[2], "relevance": cells[3]})
    return table


def save_qrels(dataset: Dataset, path: PathLike) -> None:
    """Write a dataset's judgements as TREC qrels.

    Raises:
        DataError: an id with blanks, or a relevance that is not a whole number.
    """
    judged = dataset.judgements
    if not (judged.relevance == np.round(judged.relevance)).all():
        raise DataError(
            "TREC qrels keep whole relevance grades only; save the judgements as a table instead", path=path
        )
    queries, documents = dataset.queries.ids[judged.query], dataset.documents.ids[judged.document]
    with atomic_file(path) as out:
        for query, document, relevance in zip(
            queries.tolist(), documents.tolist(), judged.relevance.tolist(), strict=True
        ):
            _check_word(query, "query", path)
            _check_word(document, "document", path)
            out.write(f"{query} 0 {document} {int(relevance)}\n")


# ---------------------------------------------------------------------------------------------------------------- runs


def save_trec_run(run: Run, path: PathLike, tag: str = "") -> None:
    """Write a run in TREC format (`query Q0 document rank score tag`), ranks from 1, scores exact in float32.

    Raises:
        DataError: an id or tag with blanks, which this format cannot hold (save as .parquet instead).
    """
    tag = tag or run.scorer or "rivals"
    _check_word(tag, "tag", path)
    for ids, rows, what in ((run.queries.ids, run.query, "query"), (run.documents.ids, run.document, "document")):
        for identifier in ids[np.unique(rows)].tolist():
            _check_word(identifier, what, path)
    columns = (run.queries.ids[run.query], run.documents.ids[run.document], run.rank + 1, run.score)
    with atomic_file(path) as out:
        out.writelines(
            f"{query} Q0 {document} {rank} {score:.9g} {tag}\n"
            for query, document, rank, score in zip(*(column.tolist() for column in columns), strict=True)
        )


def load_trec_run(path: PathLike, queries: Collection | None = None, documents: Collection | None = None) -> Run:
    """Load a TREC run. Ranks follow from scores and ids, as in trec_eval; the rank column is not used.

    Args:
        queries, documents: what the ids refer to; the run then has all these queries, perhaps with no candidates.
            Left out, collections without texts are made of the ids in the file.

    Raises:
        DataError: a line without six columns, an unknown id, a score that is no number, a document twice under a query.
    """
    path = Path(path)
    table = Table(path, "columns")
    rows = list(_words(path, 6, "query id, Q0, document id, rank, score, tag", table))
    query_ids, document_ids = ([cells[column] for _, cells in rows] for column in (0, 2))
    queries = Collection(dict.fromkeys(query_ids), name="query") if queries is None else queries
    documents = Collection(dict.fromkeys(document_ids)) if documents is None else documents
    query, document = queries.find(query_ids), documents.find(document_ids)
    scores = np.empty(len(rows), np.float32)
    seen: dict[tuple[int, int], int] = {}
    for at, (number, cells) in enumerate(rows):
        for found, members, identifier in ((query[at], queries, cells[0]), (document[at], documents, cells[2])):
            if found < 0:
                raise DataError(
                    f"no {members.name} has the id '{identifier}' among {len(members)}", path=path, line=number
                )
        scores[at] = _score(cells[4], path, number)
        before = seen.setdefault((int(query[at]), int(document[at])), number)
        if before != number:
            raise DataError(
                f"query '{cells[0]}' lists document '{cells[2]}' in line {before} too", path=path, line=number
            )
    tags = list(dict.fromkeys(cells[5] for _, cells in rows))
    order = np.argsort(query, kind="stable")
    source = np.array([tags.index(cells[5]) for _, cells in rows], np.int16)[order] if len(tags) > 1 else None
    offsets = lists.offsets_from_lengths(np.bincount(query, minlength=len(queries)))
    return Run.build(
        queries, documents, offsets, document[order], scores[order], source=source, sources=tags,
        scorer=tags[0] if len(tags) == 1 else "",
    )  # fmt: skip


def _score(cell: str, path: Path, line: int) -> float:
    try:
        score = float(cell)
    except ValueError:
        score = float("nan")
    if score != score:
        raise DataError(f"the score '{cell[:40]}' is not a number", path=path, line=line)
    return score


def _words(path: PathLike, count: int, meaning: str, table: Table) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, its blank-separated words); every line must have `count`."""
    for number, line in text_lines(Path(path)):
        cells = line.split()
        if not cells:
            table.blank += 1
            continue
        if len(cells) != count:
            raise DataError(f"{len(cells)} columns where {count} are wanted ({meaning})", path=path, line=number)
        yield number, cells


def _check_word(word: str, what: str, path: PathLike) -> None:
    if len(word.split()) != 1 or word != word.strip():
        name = f"the {what} id" if what != "tag" else "the tag"
        raise DataError(f"{name} '{word[:60]}' is empty or holds blanks, which TREC files cannot keep", path=path)
