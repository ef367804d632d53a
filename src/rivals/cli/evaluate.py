"""`rivals evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rivals.data.collection import Collection
from rivals.data.dataset import Dataset
from rivals.data.run import Run
from rivals.errors import DataError, RivalsError

if TYPE_CHECKING:
    from rivals.evaluate import Evaluation

Correction = Literal["holm", "benjamini-hochberg"]
OnUnknown = Literal["error", "unjudged"]


def run_evaluate(
    *,
    runs: Sequence[str],
    judgements: str,
    queries: str = "",
    documents: str = "",
    folder: str = "",
    split: str = "",
    training: str = "",
    measures: Sequence[str] | None = None,
    baselines: Sequence[str] | None = None,
    slices: Sequence[str] | None = None,
    level: float = 0.95,
    correction: Correction = "holm",
    power: float = 0.8,
    condensed: bool = False,
    common: bool = False,
    on_unknown: OnUnknown = "error",
    json_file: str = "",
    per_query: str = "",
    seed: int = 0,
) -> None:
    """Compare run files on the same judgements."""
    from rivals.cli._console import result_console
    from rivals.evaluate import evaluate
    from rivals.evaluate.evaluation import DEFAULT_MEASURES

    names = [Path(path).stem for path in runs]
    for name in names:
        if names.count(name) > 1:
            raise RivalsError(
                f"two runs are called '{name}'; run files need different names, since the table shows them"
            )
    paths = dict(zip(names, runs, strict=True))
    if folder:
        systems, dataset, train = load_folder(paths, folder, split, judgements or queries or documents)
    elif split:
        raise RivalsError("--split chooses from a data set; give it with --folder")
    else:
        systems, dataset = load_runs(paths, judgements, queries=queries, documents=documents)
        train = None
    if training:
        train = _training(training)
    if train is not None and not _comparable(train, dataset):
        if training:
            raise RivalsError(
                "--training is compared with the test queries' texts; give them with --queries (and --documents)"
            )
        train = None
    evaluation = evaluate(
        systems,
        dataset,
        measures=tuple(measures or DEFAULT_MEASURES),
        baselines=tuple(baselines or names[:1]),
        level=level,
        correction=correction,
        power=power,
        slices=tuple(slices or ()),
        condensed=condensed,
        train=train,
        queries="common" if common else "judged",
        on_unknown=on_unknown,
        seed=seed,
    )
    result_console().print(evaluation)
    _write(evaluation, json_file, per_query)


def load_runs(
    paths: Mapping[str, str], judgements: str, *, queries: str = "", documents: str = ""
) -> tuple[dict[str, Run], Dataset]:
    """Load run files and judgements. Without a file of documents, those are all that a run or a judgement names."""
    from rivals.data.formats import load_run

    if not judgements:
        raise RivalsError("no judgements are given; give them with --judgements, or a whole data set with --folder")
    judged = read_judgements(judgements)
    loaded = {name: load_run(path) for name, path in paths.items()}
    ids = {document for _, document, _ in judged}.union(*(run.documents.ids.tolist() for run in loaded.values()))
    found = {
        "documents": _members(documents, "documents") if documents else Collection(sorted(ids)),
        "queries": _members(queries, "queries")
        if queries
        else Collection(sorted({query for query, _, _ in judged}), name="query"),
    }
    for file, part, place in ((documents, "documents", 1), (queries, "queries", 0)):
        missing = [row[place] for row in judged if row[place] not in found[part]] if file else []
        if missing:
            raise DataError(
                f"{len(set(missing))} judged {part} are not in {file}, such as '{missing[0]}'", path=judgements
            )
    dataset = Dataset.from_pairs(found["queries"], found["documents"], judged, name=Path(judgements).name)
    return loaded, dataset


def load_folder(
    paths: Mapping[str, str], folder: str, split: str, others: str
) -> tuple[dict[str, Run], Dataset, Dataset | None]:
    """Load run files and a data set: the split to evaluate ("test" if there is one) and the training split."""
    from rivals.data.formats import load_dataset, load_run

    if others:
        raise RivalsError("a data set is given with --folder; leave out --judgements, --queries and --documents")
    dataset = load_dataset(folder)
    chosen = split or ("test" if "test" in dataset.splits else "")
    train = dataset.split("train") if chosen != "train" and "train" in dataset.splits else None
    tested = replace(dataset.split(chosen), name=f"{dataset.name}, {chosen}") if chosen else dataset
    return {name: load_run(path) for name, path in paths.items()}, tested, train if chosen else None


def read_judgements(path: str) -> list[tuple[str, str, float]]:
    """Read TREC qrels, or a table of query id, document id and relevance, as triples."""
    from rivals.data.formats.fields import Report, as_id, as_relevance, match_fields, require
    from rivals.data.formats.tables import format_of, read_table
    from rivals.data.formats.text import first_bytes
    from rivals.data.formats.trec import read_qrels_table

    file = Path(path)
    if not first_bytes(file):
        raise DataError("this file is empty; every line needs: query id, 0, document id, relevance", path=path)
    plain = file.suffix.lower() not in (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".gz")
    if plain or format_of(file) == "columns":
        table = read_qrels_table(file)
        chosen = {"query_id": "query_id", "document_id": "document_id", "relevance": "relevance"}
    else:
        table = read_table(file)
        chosen = match_fields(table, "judgements", {}, Report())
        for meaning in ("query_id", "document_id", "relevance"):
            require(table, chosen, "judgements", meaning)
    if not len(table):
        raise DataError("holds no judgement; every line needs: query id, 0, document id, relevance", path=path)
    columns = {meaning: table.columns[name] for meaning, name in chosen.items()}
    return [
        (
            as_id(columns["query_id"][row], table, row, "query id") or "",
            as_id(columns["document_id"][row], table, row, "document id") or "",
            as_relevance(columns["relevance"][row], table, row),
        )
        for row in range(len(table))
    ]


def _members(path: str, part: Literal["queries", "documents"]) -> Collection:
    """Read queries or documents with their columns."""
    from rivals.data.formats.fields import Report
    from rivals.data.formats.members import Members
    from rivals.data.formats.tables import read_table
    from rivals.data.formats.trec import load_topics

    if part == "queries":
        return load_topics(path)
    members = Members(part, Report())
    members.read(read_table(path), {})
    return members.collection()


def _training(path: str) -> Dataset:
    """Read what the systems were trained on: a folder, or a file of pairs; of a data set with splits, its "train"."""
    from rivals.data.formats import load_dataset

    dataset = load_dataset(path)
    return dataset.split("train") if "train" in dataset.splits else dataset


def _comparable(train: Dataset, dataset: Dataset) -> bool:
    return any(getattr(train, side).has_texts and getattr(dataset, side).has_texts for side in ("queries", "documents"))


def _write(evaluation: Evaluation, json_file: str, per_query: str) -> None:
    from rivals.files import atomic_file

    if json_file:
        with atomic_file(json_file) as out:
            out.write(evaluation.to_json())
    if per_query:
        evaluation.save_per_query(per_query)
