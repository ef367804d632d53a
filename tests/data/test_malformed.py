"""2,000 damaged datasets: each gives either a sound dataset that accounts for every row, or one clear `DataError`."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rivals.data import Dataset, load_dataset
from rivals.errors import DataError
from tests.data.malformed import KINDS, make

CASES, BLOCKS = 2000, 10
seen: Counter[tuple[str, str, bool]] = Counter()


def plain_text(path: Path) -> str:
    """Decode a text file by means of its own: the mark tells the encoding."""
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    for mark, encoding in (
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return data.decode(encoding)
    return data.decode("utf-8-sig")


def count_rows(path: Path) -> int:
    """Count the rows of a file by means other than the loader's."""
    data = path.read_bytes()
    if data.startswith(b"PAR1"):
        return pq.ParquetFile(path).metadata.num_rows
    text = plain_text(path)
    name = path.name.removesuffix(".gz")
    if name == "topics.txt":
        return len(re.findall(r"</top>", text, re.IGNORECASE))
    if text.lstrip().startswith("[") and ".json" in name:
        return len(json.loads(text))
    if name.endswith((".csv", ".tsv")):
        header = text.lstrip("\n\r \t").split("\n")[0]
        mark = "\t" if name.endswith(".tsv") else "," if "," in header else ";" if ";" in header else "\t"
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=mark) if row]
        first = next(i for i, row in enumerate(rows) if any(cell.strip() for cell in row))
        return len(rows) - first - (0 if len(rows[first]) == 2 and rows[first][0].strip().isdigit() else 1)
    return sum(1 for line in text.split("\n") if line.strip())


def check_sound(dataset: Dataset, folder: Path) -> None:
    """Check a dataset's invariants, that its report accounts for every row, and its documents against the file."""
    report = dataset.report
    for members in (dataset.queries, dataset.documents):
        assert len(set(members.ids)) == len(members)
        assert all(identifier.strip() for identifier in members.ids)
        assert all(isinstance(text, str) and "\0" not in text for text in members.texts)
        assert all(text.strip() for text in members.full_texts)
    judged = dataset.judgements
    assert np.isfinite(judged.relevance).all()
    assert len(judged) == sum(report.get(f"{part} used", 0) for part in ("pairs", "judgements", "negatives"))
    assert len(np.unique(judged.query * len(dataset.documents) + judged.document)) == len(judged)
    assert len(dataset.documents) == report["documents used"]
    stems = {
        "documents": ("documents", "corpus"),
        "queries": ("queries", "topics"),
        "judgements": ("judgements", "qrels", "test"),
    }
    for part, names in stems.items():
        lost = sum(count for key, count in report.items() if key.startswith((f"{part} dropped", f"{part} merged")))
        rows = report.get(f"{part} rows", 0)
        assert rows == report.get(f"{part} used", 0) + lost
        files = [path for path in folder.rglob("*") if path.is_file() and path.name.split(".")[0] in names]
        assert rows == sum(count_rows(path) for path in files)
    for path in folder.glob("*.jsonl"):
        if path.name.split(".")[0] in stems["documents"]:
            rows = [json.loads(line) for line in plain_text(path).split("\n") if line.strip()]
            if all(isinstance(row, dict) and "title" not in row for row in rows):
                keys = [key for key in ("text", "Text", "body") if any(key in row for row in rows)]
                texts = {(row.get(keys[0]) or "").replace("\0", " ") for row in rows}
                assert set(dataset.documents.texts) == {text for text in texts if text.strip()}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_malformed(block: int, tmp_path: Path) -> None:
    for seed in range(block, CASES, BLOCKS):
        folder = tmp_path / f"case{seed}"
        folder.mkdir()
        kind, change = make(seed, folder)
        started = time.monotonic()
        try:
            dataset = load_dataset(folder, on_unknown="drop" if seed % 3 == 0 else "error")
        except DataError as error:
            message = str(error)
            assert str(folder) in message, (seed, kind, change, message[:500])
            assert "\n" not in message, (seed, kind, change, message[:500])
            assert len(message) < 2000, (seed, kind, change, message[:500])
            assert change != "unchanged", (seed, kind, message)
            seen[kind, change, False] += 1
        else:
            try:
                check_sound(dataset, folder)
            except Exception as fault:
                raise AssertionError(f"case {seed} ({kind}, {change}): wrong success") from fault
            seen[kind, change, True] += 1
        assert time.monotonic() - started < 10, (seed, kind, change)


def test_the_cases_were_varied() -> None:
    if sum(seen.values()) != CASES:
        pytest.skip("only some of the blocks were run")
    for kind in KINDS:
        for good in (True, False):
            assert sum(count for (k, _, g), count in seen.items() if (k, g) == (kind, good)) >= 20, (kind, good)
    assert len({change for _, change, _ in seen}) == 19
    assert sum(count for (_, _, good), count in seen.items() if not good) > 800
