"""`load_dataset`: files or a folder of queries, documents, pairs and judgements as one `Dataset`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rivals.data.dataset import Dataset
from rivals.data.formats.fields import ACCEPTED, Report, split_name
from rivals.data.formats.members import Members
from rivals.data.formats.pairs import Pairs
from rivals.data.formats.tables import Table, format_of, read_table, write_table
from rivals.data.formats.trec import TOPIC_FIELDS, read_qrels_table, read_topics_table
from rivals.errors import DataError
from rivals.files import atomic_folder

PathLike = str | Path
Parts = dict[str, list[tuple[str | None, Path]]]

_STEMS = {
    "documents": ("documents", "document", "docs", "corpus", "collection"),
    "queries": ("queries", "query", "questions", "topics"),
    "pairs": ("pairs",),
    "judgements": ("judgements", "judgments", "qrels"),
    "splits": ("splits",),
}
_ROLE_OF = {stem: role for role, stems in _STEMS.items() for stem in stems}
_SPLIT = re.compile(r"(?:(?P<stem>[a-z]+)[._-])?(?P<split>train|training|dev|development|validation|valid|val|test)")
_SHARD = re.compile(r"-\d+-of-\d+$")
_SUFFIXES = (
    ".jsonl",
    ".ndjson",
    ".json",
    ".csv",
    ".tsv",
    ".tab",
    ".parquet",
    ".pq",
    ".txt",
    ".trec",
    ".qrels",
    ".xml",
    "",
)


def load_dataset(
    source: PathLike | None = None,
    *,
    documents: PathLike | None = None,
    pairs: PathLike | Mapping[str, PathLike] | None = None,
    queries: PathLike | None = None,
    judgements: PathLike | Mapping[str, PathLike] | None = None,
    splits: PathLike | Mapping[str, Iterable[str]] | None = None,
    fields: Mapping[str, str] | None = None,
    on_unknown: Literal["error", "drop"] = "error",
    name: str | None = None,
) -> Dataset:
    """Load a dataset from files (JSONL, JSON array, CSV, TSV, Parquet, TREC; text plain or gzip) or from a folder.

    Args:
        source: a folder (BEIR, or files called documents, queries, pairs, judgements, splits, train, dev, test), or
            one file of pairs.
        documents: rows with an id (or none: made from the text), a text and perhaps a title; further fields become
            columns.
        pairs: rows with a query (text or id) and a relevant document (text or id), perhaps a relevance, a split,
            negatives. A mapping gives one file a split. Without `queries` or `documents` these are made from the
            pairs' texts.
        queries: rows with an id, a text, perhaps a split; or TREC topics.
        judgements: rows of query id, document id, relevance; or TREC qrels. A mapping gives one file a split.
        splits: rows of query id and split, or a mapping from split to query ids.
        fields: the user's own choice of fields, such as `{"documents.text": "abstract", "pairs.relevance": "stars"}`.
        on_unknown: "drop" leaves out and counts rows that name unknown (or empty) queries or documents; "error" raises.
        name: what the dataset is called (default: the folder's or file's name).

    Every row that is merged or left out is counted in `dataset.report`, where for every part `rows` = `used` + all
    `dropped` + all `merged`; `dataset.describe()` prints it with the fields that were chosen.

    Raises:
        DataError: naming the file and line of the first fault.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "pairs.csv"
    ...     _ = path.write_text("question,answer\\nwho?,me\\nwho?,you\\n")
    ...     dataset = load_dataset(pairs=path)
    >>> dataset
    Dataset(pairs: 1 queries (no splits), 2 documents, 2 judgements)
    >>> dict(dataset.report)
    {'pairs rows': 2, 'pairs used': 2}
    """
    _check_options(fields or {}, on_unknown)
    parts: Parts = {role: [] for role in _STEMS}
    unused: list[str] = []
    if source is not None:
        source = Path(source)
        if source.is_dir():
            parts, unused = _find_parts(source)
        else:
            parts["pairs"].append((None, source))
    given = {"documents": documents, "queries": queries, "pairs": pairs, "judgements": judgements}
    for role, value in given.items():
        if isinstance(value, Mapping):
            parts[role] = [(split_name(split), Path(path)) for split, path in value.items()]
        elif value is not None:
            parts[role] = [(None, Path(value))]
    if isinstance(splits, str | Path):
        parts["splits"] = [(None, Path(splits))]
    if not any(parts[role] for role in given):
        raise DataError("nothing to load; give documents, pairs, queries or judgements, or a folder that holds them")
    first = source if isinstance(source, Path) else next(files[0][1] for files in parts.values() if files)
    try:
        dataset = _load(
            parts, splits if isinstance(splits, Mapping) else {}, fields or {}, on_unknown == "drop", unused
        )
    except DataError as error:
        raise error if error.path is not None else DataError(str(error), path=first) from None
    called = first.name.split(".")[0] if first.is_file() else first.resolve().name
    return replace(dataset, name=called if name is None else name)


def _check_options(fields: Mapping[str, str], on_unknown: str) -> None:
    if on_unknown not in ("error", "drop"):
        raise DataError(f"on_unknown must be 'error' or 'drop', not '{on_unknown}'")
    for key in fields:
        part, _, meaning = key.partition(".")
        if meaning not in ACCEPTED.get(part, {}):
            known = ", ".join(f"{part}.{meaning}" for part, meanings in ACCEPTED.items() for meaning in meanings)
            raise DataError(f"no field setting '{key}'; there are {known}")


def _load(
    parts: Parts, splits: Mapping[str, Iterable[str]], fields: Mapping[str, str], drop: bool, unused: list[str]
) -> Dataset:
    report = Report()
    documents, queries = Members("documents", report), Members("queries", report)
    for members in (documents, queries):
        for _, path in parts[members.part]:
            topics = members is queries and format_of(path) == "sgml"
            members.read(*((read_topics_table(path), TOPIC_FIELDS) if topics else (read_table(path), fields)))
    pairs = Pairs(queries, documents, report, drop=drop)
    for split, path in parts["pairs"]:
        pairs.read(read_table(path), "pairs", fields, split)
    for members, option in ((queries, "queries"), (documents, "documents")):
        if parts["judgements"] and not (members.closed or parts["pairs"]):
            what = f"judgements only give ids; give the {option} too, with {option}=FILE"
            raise DataError(what, path=parts["judgements"][0][1])
    for members in (queries, documents):
        members.closed = True
    for split, path in parts["judgements"]:
        table = read_qrels_table(path) if format_of(path) == "columns" else read_table(path)
        pairs.read(table, "judgements", fields, split)
    for _, path in parts["splits"]:
        pairs.read_splits(read_table(path), fields)
    if splits:
        columns: dict[str, list[str]] = {"query_id": [], "split": []}
        for split, ids in splits.items():
            for identifier in ids:
                columns["query_id"].append(identifier)
                columns["split"].append(split_name(split))
        table = Table(Path("splits"), "json", "entry")
        for place, (identifier, split) in enumerate(zip(*columns.values(), strict=True), 1):
            table.add(place, {"query_id": identifier, "split": split})
        pairs.read_splits(table, {})
    if (parts["pairs"] or parts["judgements"]) and not len(pairs.query):
        raise DataError("not one row could be used", path=(parts["pairs"] + parts["judgements"])[0][1])
    judgements = pairs.judgements()
    for members in (queries, documents):
        report.add(members.part, "noted: texts equal to an earlier one", len(members) - len(members.by_text))
    if unused:
        report.origin["files not used"] = ", ".join(unused)[:300]
    counts = {key: count for key, count in report.counts.items() if count}
    return Dataset(queries.collection(), documents.collection(), judgements, pairs.splits(), "", counts, report.origin)


# ------------------------------------------------------------------------------------------------------------- folders


def _find_parts(folder: Path) -> tuple[Parts, list[str]]:
    """Tell the files of a folder apart by their names."""
    parts: Parts = {role: [] for role in _STEMS}
    unused: list[str] = []
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        inner = sorted((folder / "qrels").iterdir()) if (folder / "qrels").is_dir() else []
    except OSError as error:
        raise DataError(f"this folder cannot be read ({error.strerror})", path=folder) from None
    for path in files:
        if path.is_dir():
            continue
        stem, suffix = _stem(path)
        match = _SPLIT.fullmatch(_SHARD.sub("", stem))
        role = _ROLE_OF.get(stem)
        if suffix not in _SUFFIXES:
            unused.append(path.name)
        elif role is not None:
            parts[role].append((None, path))
        elif match and _ROLE_OF.get(match["stem"] or "pairs") in ("pairs", "judgements"):
            parts[_ROLE_OF[match["stem"] or "pairs"]].append((split_name(match["split"]), path))
        else:
            unused.append(path.name)
    for path in inner:
        if path.is_file() and not path.name.startswith("."):
            split = _stem(path)[0]
            parts["judgements"].append((None if split == "all" else split_name(split), path))
    for role, listed in parts.items():
        whole = [path.name for split, path in listed if split is None and path.parent == folder]
        if len(whole) > 1:
            raise DataError(f"{' and '.join(whole)} could each be the {role}; give the files one by one", path=folder)
    if not (parts["documents"] or parts["pairs"] or parts["queries"]):
        names = ", ".join(path.name for path in files)[:300] or "nothing"
        wanted = (
            "documents, queries, pairs, judgements (or corpus, qrels/, train, dev, test) with an ending such as .jsonl"
        )
        raise DataError(
            f"no data found in this folder; it holds {names}; files called {wanted} are wanted", path=folder
        )
    return parts, unused


def _stem(path: Path) -> tuple[str, str]:
    name = path.name.lower().removesuffix(".gz")
    dot = name.rfind(".")
    return (name, "") if dot <= 0 else (name[:dot], name[dot:])


def save_dataset(dataset: Dataset, folder: PathLike, *, format: Literal["jsonl", "csv", "parquet"] = "jsonl") -> None:
    """Write a dataset as a folder of tables (documents, queries with their split, judgements) for `load_dataset`.

    CSV keeps texts only: further columns that are numbers come back as texts.

    Raises:
        DataError: the queries or documents have no texts, or an unknown format.

    >>> import tempfile
    >>> from rivals.data import load_sample
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_dataset(load_sample(), Path(folder) / "medquad-sample", format="parquet")
    ...     load_dataset(Path(folder) / "medquad-sample")
    Dataset(medquad-sample: 2863 queries (train 1738, dev 275, test 850), 3514 documents, 3551 judgements)
    """
    if format not in ("jsonl", "csv", "parquet"):
        raise DataError(f"no format '{format}'; there are jsonl, csv and parquet")
    query_ids, document_ids = dataset.queries.ids, dataset.documents.ids
    judgements = {
        "query_id": query_ids[dataset.judgements.query].tolist(),
        "document_id": document_ids[dataset.judgements.document].tolist(),
        "relevance": dataset.judgements.relevance.tolist(),
    }
    with atomic_folder(folder) as out:
        write_table(member_columns(dataset, "documents"), out / f"documents.{format}")
        if len(dataset.queries):
            write_table(member_columns(dataset, "queries"), out / f"queries.{format}")
        if len(dataset.judgements):
            write_table(judgements, out / f"judgements.{format}")


def member_columns(dataset: Dataset, part: Literal["documents", "queries"]) -> dict[str, list[object]]:
    """Return the columns of a dataset's documents or queries as lists, queries with a `split` if there are splits."""
    members = dataset.documents if part == "documents" else dataset.queries
    if not members.has_texts:
        raise DataError(f"these {part} have ids but no texts, and cannot be saved as a dataset")
    columns: dict[str, list[object]] = {name: members.table[name].to_pylist() for name in members.table.column_names}
    if part == "queries" and dataset.splits:
        split: list[object] = [None] * len(members)
        for name, rows in dataset.splits.items():
            for row in rows.tolist():
                split[row] = name
        columns["split"] = split
    return columns
