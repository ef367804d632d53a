"""BEIR folders: `corpus.jsonl`, `queries.jsonl` and `qrels/{train,dev,test}.tsv` with a header."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from rivals.data.dataset import Dataset
from rivals.data.formats.load import PathLike, load_dataset, member_columns
from rivals.data.formats.tables import write_table
from rivals.errors import DataError
from rivals.files import atomic_folder


def load_beir(folder: PathLike) -> Dataset:
    """Load a BEIR folder; the names of the files in `qrels` become splits (`all` means none).

    Source: Thakur et al., 2021, BEIR.

    Raises:
        DataError: a file is missing or faulty.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("this is not a folder; a BEIR dataset is one", path=folder)
    for name, present in (
        ("corpus.jsonl", any((folder / f"corpus.jsonl{end}").is_file() for end in ("", ".gz"))),
        ("queries.jsonl", any((folder / f"queries.jsonl{end}").is_file() for end in ("", ".gz"))),
        ("qrels/", (folder / "qrels").is_dir()),
    ):
        if not present:
            raise DataError(f"this is no BEIR folder: it has no {name}", path=folder)
    return load_dataset(folder)


def save_beir(dataset: Dataset, folder: PathLike, *, unsplit: str = "all") -> None:
    """Write a dataset as a BEIR folder that `load_beir`, and other tools that read BEIR, can read.

    Args:
        unsplit: the name of the judgements file for queries in no split; BEIR's own tools look for "test".

    Raises:
        DataError: a relevance is not a whole number, or members have no texts.

    >>> import tempfile
    >>> from rivals.data import load_sample
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_beir(load_sample(), Path(folder) / "medquad-sample")
    ...     load_beir(Path(folder) / "medquad-sample")
    Dataset(medquad-sample: 2863 queries (train 1738, dev 275, test 850), 3514 documents, 3551 judgements)
    """
    judged = dataset.judgements
    if not (judged.relevance == np.round(judged.relevance)).all():
        raise DataError("BEIR keeps whole relevance grades only; save the dataset as JSONL instead", path=folder)
    split_of = np.full(len(dataset.queries), -1)
    for number, rows in enumerate(dataset.splits.values()):
        split_of[rows] = number
    files = {name: split_of == number for number, name in enumerate(dataset.splits)}
    if unsplit in files:
        files[unsplit] |= split_of < 0
    else:
        files[unsplit] = split_of < 0
    names = {"id": "_id"}
    with atomic_folder(folder) as out:
        for part, target in (("documents", "corpus.jsonl"), ("queries", "queries.jsonl")):
            columns = member_columns(dataset, part)  # type: ignore[arg-type]
            if part == "documents":
                columns.setdefault("title", [""] * len(dataset.documents))
            write_table({names.get(name, name): values for name, values in columns.items()}, out / target)
        (out / "qrels").mkdir()
        for name, mine in files.items():
            chosen = np.flatnonzero(mine[judged.query])
            if not len(chosen):
                continue
            if "/" in name or name.startswith("."):
                raise DataError(f"the split's name '{name}' cannot be a file's name", path=folder)
            with open(out / "qrels" / f"{name}.tsv", "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, delimiter="\t", lineterminator="\n")
                writer.writerow(["query-id", "corpus-id", "score"])
                for at in chosen.tolist():
                    query, document = dataset.queries.ids[judged.query[at]], dataset.documents.ids[judged.document[at]]
                    writer.writerow([query, document, int(judged.relevance[at])])
