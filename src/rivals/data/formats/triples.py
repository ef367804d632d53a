"""Knowledge graphs in folders: numbered triples with tables of entities and relations, or triples by name."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals.data.collection import Collection
from rivals.data.formats.tables import read_table
from rivals.data.formats.text import text_lines
from rivals.data.triples import Triples
from rivals.errors import DataError

_PARTS = {"train": "train", "valid": "valid", "validation": "valid", "dev": "valid", "test": "test"}
_FALSE = "_negatives"
_TEXTS = ("text", "name", "label", "description", "types")
_NAMES = ("head", "relation", "tail")


def load_triples(folder: str | Path, *, name: str | None = None) -> Triples:
    """Load a knowledge graph from a folder.

    Two layouts:

    - `triples.npz` with an array [n, 3] of (head, relation, tail) numbers a part, and tables `entities` and `relations`
      (Parquet, CSV, TSV, JSONL) whose rows the numbers count. The column called entity or relation gives the ids, else
      the first that holds texts; a column called text, name, label, description or types (the first of these) is the text. Arrays called
      `<part>_negatives` are false triples.
    - files train, valid (validation, dev) and test: .txt or .tsv with three columns head, relation, tail separated by
      tabs and no header, or .parquet, .csv, .jsonl with columns of these names. Entities and relations are numbered in
      the order of their names.

    Raises:
        DataError: nothing of the kind in the folder, or a file that is damaged, with its line where it has lines.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "train.txt").write_text("ann\\tlikes\\tbob\\nbob\\tlikes\\tann\\n")
    ...     load_triples(folder, name="friends")
    Triples(friends: 2 entities, 1 relations, train 2)
    """
    path = Path(folder)
    if not path.is_dir():
        raise DataError("this is no folder; a knowledge graph is a folder of triples", path=path)
    called = path.resolve().name if name is None else name
    if (path / "triples.npz").is_file():
        return _numbered(path, called)
    files: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        stem = file.name.split(".")[0].lower()
        if file.is_file() and stem in _PARTS and file.suffix.lower() != ".npz":
            part = _PARTS[stem]
            if part in files:
                raise DataError(f"{files[part].name} and {file.name} could each be the part {part}", path=path)
            files[part] = file
    if not files:
        raise DataError("this folder holds neither triples.npz nor files train, valid or test", path=path)
    return _named(files, called)


def _numbered(folder: Path, name: str) -> Triples:
    members = {}
    for part in ("entities", "relations"):
        found = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name.split(".")[0] == part]
        if len(found) != 1:
            raise DataError(f"one table called {part} is wanted, there are {len(found)}", path=folder)
        members[part] = _members(found[0], "document" if part == "entities" else "relation")
    file = folder / "triples.npz"
    parts: dict[str, NDArray[Any]] = {}
    try:
        with np.load(file, allow_pickle=False) as arrays:
            parts = {part: arrays[part] for part in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"this archive of triples cannot be read ({error})", path=file) from None
    true = {part: rows for part, rows in parts.items() if not part.endswith(_FALSE)}
    false = {part.removesuffix(_FALSE): rows for part, rows in parts.items() if part.endswith(_FALSE)}
    try:
        return Triples(members["entities"], members["relations"], true, false, name)
    except DataError as error:
        raise DataError(str(error), path=file) from None


def _members(file: Path, called: str) -> Collection:
    table = read_table(file)
    names = [column for column, values in table.columns.items() if isinstance(values[0], str)]
    names.sort(key=lambda column: column not in ("entity", "relation"))
    if not names:
        raise DataError("no column holds names; the ids must be texts", path=file)
    texts = next((column for column in _TEXTS if column in table.columns), None)
    rest = {column: values for column, values in table.columns.items() if column not in (names[0], texts, "id", "text")}
    text = None if texts is None else ["" if value is None else str(value) for value in table.columns[texts]]
    try:
        return Collection(table.columns[names[0]], text, rest, name=called)
    except DataError as error:
        raise DataError(str(error), path=file) from None


def _named(files: dict[str, Path], name: str) -> Triples:
    columns = {part: _columns(file) for part, file in files.items()}
    entities = _numbering([column for each in columns.values() for column in (each[0], each[2])])
    relations = _numbering([each[1] for each in columns.values()])
    parts = {}
    for part, each in columns.items():
        numbers = [
            np.fromiter(map(known.__getitem__, column), np.int64, len(column))
            for known, column in zip((entities, relations, entities), each, strict=True)
        ]
        parts[part] = np.stack(numbers, axis=1)
    return Triples(Collection(entities), Collection(relations, name="relation"), parts, name=name)


def _numbering(columns: list[list[str]]) -> dict[str, int]:
    return {name: row for row, name in enumerate(sorted({name for column in columns for name in column}))}


def _columns(file: Path) -> list[list[str]]:
    if file.suffix.lower() not in (".txt", ".tsv", ".tab", ".gz"):
        table = read_table(file)
        missing = [column for column in _NAMES if column not in table.columns]
        if missing:
            raise DataError(f"no column {', '.join(missing)}; head, relation and tail are wanted", path=file)
        for column in _NAMES:
            for row, value in enumerate(table.columns[column]):
                if value is None or value == "":
                    raise table.error(row, f"this triple has no {column}")
        return [[str(value) for value in table.columns[column]] for column in _NAMES]
    columns: list[list[str]] = [[], [], []]
    for number, line in text_lines(file):
        if not line.strip():
            continue
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) != 3 or not all(cell.strip() for cell in cells):
            raise DataError(
                f"three names separated by tabs are wanted (head, relation, tail), not {len(cells)}",
                path=file,
                line=number,
            )
        for place, cell in enumerate(cells):
            columns[place].append(cell.strip())
    if not columns[0]:
        raise DataError("this file holds no triples", path=file)
    return columns
