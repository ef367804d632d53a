"""Tables in files (JSON lines, a JSON array, CSV, TSV, Parquet): read into columns that know their lines, written."""

from __future__ import annotations

import csv
import gzip
import io
import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from rivals.data.formats.text import encoding_of, first_bytes, text_lines
from rivals.errors import DataError
from rivals.files import atomic_file

MAX_FIELDS = 1000

_EXTENSIONS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
}
_OTHER = {"sgml": "SGML or HTML", "columns": "a TREC file"}


@dataclass
class Table:
    """A table as columns of equal length; a value that a row does not have is None.

    `places` holds the line (or row, or element: `unit`) of every row, `blank` the number of blank lines that are no
    rows.
    """

    path: Path
    kind: str
    unit: str = "line"
    columns: dict[str, list[Any]] = field(default_factory=dict)
    places: array[int] = field(default_factory=lambda: array("q"))
    blank: int = 0

    def __len__(self) -> int:
        return len(self.places)

    def error(self, row: int, message: str) -> DataError:
        """Return the error that says `message` about a row."""
        return DataError(message, path=self.path, line=self.places[row], unit=self.unit)

    def place(self, row: int) -> str:
        """Return where a row stands, for a message about two rows."""
        return f"{self.path}, {self.unit} {self.places[row]}"

    def add(self, place: int, row: Mapping[str, Any]) -> None:
        """Append one row; fields that are new or not there are filled with None."""
        length = len(self.places)
        self.places.append(place)
        for name, value in row.items():
            column = self.columns.get(name)
            if column is None:
                if len(self.columns) >= MAX_FIELDS:
                    raise self.error(
                        length, f"more than {MAX_FIELDS} different field names; give one object a row, with fields"
                    )
                column = self.columns[name] = [None] * length
            column.append(value)
        if len(row) != len(self.columns):
            for name, column in self.columns.items():
                if name not in row:
                    column.append(None)


def format_of(path: Path) -> str:
    """Tell a file's format by its name and its content: json, csv, tsv, parquet, sgml or columns.

    "columns" is text in blank-separated columns without a header, as TREC files have.

    Raises:
        DataError: the file cannot be opened, or nothing tells its format.
    """
    start = first_bytes(path)
    if start.startswith(b"PAR1"):
        return "parquet"
    suffixes = [suffix.lower() for suffix in path.suffixes]
    named = _EXTENSIONS.get(suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:]))
    if named == "parquet":
        raise DataError("this is not a Parquet file (it does not begin with PAR1), or it is damaged", path=path)
    encoding, mark = encoding_of(path, start)
    head = start[mark:].decode(encoding, "ignore").lstrip()
    if not head:
        raise (
            DataError("this file holds no rows", path=path)
            if len(start) < 1 << 14
            else DataError("16 kB of blanks", path=path)
        )
    if head[0] == "<":
        return "sgml"
    if named is None and head[0] in "{[":
        return "json"
    line = head.splitlines()[0]
    cells = line.split()
    if named in (None, "tsv") and len(cells) in (4, 6) and _is_number(cells[-1 if len(cells) == 4 else -2]):
        return "columns"
    if named is not None:
        return named
    if "\t" in line:
        return "tsv"
    if "," in line:
        return "csv"
    raise DataError("nothing tells this file's format; name it .jsonl, .csv, .tsv or .parquet", path=path)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_table(path: str | Path) -> Table:
    """Read a JSONL, JSON array, CSV, TSV or Parquet file (text plain or gzip) into columns.

    Raises:
        DataError: with file and line, whatever is wrong with the file: missing, empty, not UTF-8, truncated, not
            JSON, a row with another number of fields than the header, an unclosed quote, more than 1,000 fields, no
            row at all.
    """
    path = Path(path)
    readers = {"json": _read_json, "csv": _read_delimited, "tsv": _read_delimited, "parquet": _read_parquet}
    kind = format_of(path)
    if kind not in readers:
        raise DataError(f"a table is wanted (JSONL, CSV, TSV, Parquet), this looks like {_OTHER[kind]}", path=path)
    try:
        table = readers[kind](path, kind)
    except MemoryError:
        raise DataError(
            "this file does not fit in memory, or is damaged and claims an enormous size", path=path
        ) from None
    if not len(table):
        raise DataError("this file holds no rows", path=path)
    return table


# ---------------------------------------------------------------------------------------------------------------- JSON


def _read_json(path: Path, kind: str) -> Table:
    import msgspec

    decode = msgspec.json.Decoder().decode
    table = Table(path, kind)
    lines = text_lines(path)
    for number, line in lines:
        if not line.strip():
            table.blank += 1
            continue
        if not len(table) and line.lstrip()[0] == "[":
            return _read_array(path, [line, *(rest for _, rest in lines)], decode)
        row = _decoded(line, decode, path, number)
        if not isinstance(row, dict):
            raise DataError(f"a row must be an object with fields, not {_json_type(row)}", path=path, line=number)
        table.add(number, row)
    return table


def _read_array(path: Path, text: list[str], decode: Callable[[str], Any]) -> Table:
    rows = _decoded("".join(text), decode, path, None)
    if not isinstance(rows, list):
        raise DataError(f"a JSON file must hold lines or one array of objects, not {_json_type(rows)}", path=path)
    table = Table(path, "json", "element")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            what = f"a row must be an object with fields, not {_json_type(row)}"
            raise DataError(what, path=path, line=number, unit="element")
        table.add(number, row)
    return table


def _decoded(text: str, decode: Callable[[str], Any], path: Path, line: int | None) -> Any:
    import msgspec

    try:
        return decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        reason = str(error).removeprefix("JSON is malformed: ")
        raise DataError(f"not valid JSON: {reason}", path=path, line=line) from None
    except RecursionError:
        raise DataError("this JSON is nested too deeply", path=path, line=line) from None


def _json_type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", type(None): "null", dict: "an object"}
    return names.get(type(value), "a number")


# ---------------------------------------------------------------------------------------------------------------- CSV


def _read_delimited(path: Path, kind: str) -> Table:
    table = Table(path, kind)
    rows = _csv_rows(path, "\t" if kind == "tsv" else None, table)
    place, header = next(rows, (1, []))
    table.columns = {name: [] for name in _header(header, path, place)}
    names = list(table.columns)
    if kind == "tsv" and len(header) == 2 and header[0].strip().isdigit():
        table.columns, names = {"id": [], "text": []}, ["id", "text"]
        table.add(place, dict(zip(names, header, strict=True)))
    columns = list(table.columns.values())
    for place, cells in rows:
        if len(cells) != len(columns):
            hint = "quote values that hold the separator or a quote"
            what = f"{len(cells)} fields, but the header has {len(columns)}; {hint}"
            raise DataError(what, path=path, line=place)
        table.places.append(place)
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    return table


def _header(cells: list[str], path: Path, line: int) -> list[str]:
    if len(cells) > MAX_FIELDS:
        raise DataError(f"more than {MAX_FIELDS} different field names in the header", path=path, line=line)
    names = [cell.strip() or f"column {i}" for i, cell in enumerate(cells, 1)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"the header names {twice!r} twice", path=path, line=line)
    if not any(cell.strip() for cell in cells):
        raise DataError("the header names no field", path=path, line=line)
    return names


def _csv_rows(path: Path, delimiter: str | None, table: Table) -> Iterator[tuple[int, list[str]]]:
    """Yield (line the row begins on, cells) of a delimited file; blank lines are counted in the table."""
    csv.field_size_limit(2**31 - 1)
    lines = (line for _, line in text_lines(path))
    first = next((line for line in lines if line.strip() or not _count(table)), "")
    if delimiter is None:
        delimiter = max(",;\t", key=lambda mark: (first.count(mark) > 0, mark == ",", first.count(mark)))
    skipped = table.blank
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    begins = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            what = {"unexpected end of data": "a quote is opened here and never closed"}.get(str(error), str(error))
            raise DataError(f"not valid CSV: {what}", path=path, line=begins + skipped) from None
        if cells:
            yield begins + skipped, cells
        else:
            table.blank += 1
        begins = reader.line_num + 1


def _count(table: Table) -> bool:
    table.blank += 1
    return True


# ------------------------------------------------------------------------------------------------------------- Parquet


def _read_parquet(path: Path, kind: str) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = Table(path, kind, "row")
    try:
        with pq.ParquetFile(path, memory_map=False, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            if len(set(names)) != len(names):
                raise DataError(f"two columns have the same name; the columns are {str(names)[:500]}", path=path)
            if len(names) > MAX_FIELDS:
                raise DataError(f"more than {MAX_FIELDS} columns", path=path)
            table.columns = {name: [] for name in names}
            expected = file.metadata.num_rows
            for batch in file.iter_batches(batch_size=8192):
                batch.validate(full=True)
                for name, column in zip(names, batch.columns, strict=True):
                    table.columns[name].extend(column.to_pylist())
                table.places.extend(range(len(table) + 1, len(table) + 1 + batch.num_rows))
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError, RuntimeError) as error:  # RuntimeError: odd types
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"this Parquet file cannot be read; it is damaged or truncated ({reason})", path=path) from None
    if len(table) != expected:
        raise DataError(f"this Parquet file promises {expected} rows and holds {len(table)}; it is damaged", path=path)
    return table


# ------------------------------------------------------------------------------------------------------------- writing


def write_table(columns: Mapping[str, Sequence[Any]], path: str | Path) -> None:
    """Write columns of equal length as JSONL, CSV, TSV (each also .gz) or Parquet, by the file's name; atomic.

    Args:
        columns: name -> values. None is written as null, in CSV as an empty cell; lists are written as JSON in CSV.

    Raises:
        DataError: the name tells no format, or the columns differ in length.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_table({"id": ["a"], "text": ["x, y"]}, Path(folder) / "documents.csv.gz")
    ...     read_table(Path(folder) / "documents.csv.gz").columns
    {'id': ['a'], 'text': ['x, y']}
    """
    path = Path(path)
    zipped = path.suffix.lower() == ".gz"
    kind = _EXTENSIONS.get((path.with_suffix("") if zipped else path).suffix.lower())
    if kind is None or (zipped and kind == "parquet"):
        raise DataError("name the file .jsonl, .csv or .tsv (also with .gz), or .parquet", path=path)
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise DataError(f"the columns have different lengths: {sorted(lengths)}", path=path)
    with atomic_file(path, "wb") as out:
        if kind == "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table(dict(columns)), out, compression="zstd", write_page_checksum=True)
            return
        binary = gzip.GzipFile(filename="", fileobj=out, mode="wb", mtime=0) if zipped else out
        if kind == "json":
            for row in zip(*columns.values(), strict=True):
                line = json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, allow_nan=False)
                binary.write(line.encode() + b"\n")
        else:
            _write_delimited(columns, binary, "\t" if kind == "tsv" else ",")
        if zipped:
            binary.close()


def _write_delimited(columns: Mapping[str, Sequence[Any]], binary: Any, delimiter: str) -> None:
    text = io.TextIOWrapper(binary, encoding="utf-8", newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")  # quotes both marks
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow(
            [json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else cell for cell in row]
        )
    text.flush()
    text.detach()
