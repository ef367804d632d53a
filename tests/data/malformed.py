"""Generator of damaged data files: valid files of every format, mutated in one of many ways, all from one seed."""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = list[dict[str, Any]]
KINDS = ("jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz", "csv.gz", "beir", "trec")
TEXTS = [
    "plain words",
    'a "quoted" word',
    "comma, semicolon; tab\tand\nline break",
    "naïve café",
    "漢字かな",
    "🦉 owl",
    "x" * 300,
]
STRANGE: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 10**30, 1e300, "", "   ", "\x00", "nan", "NaN", "inf", [], [1], {},
    {"a": {"b": 1}}, "a\x01b", "\ufeff", "d1", "q1",
)  # fmt: skip


def base(generator: random.Random) -> dict[str, Rows]:
    """Return the rows of valid documents, queries and judgements."""
    documents = [
        {"id": f"d{i}", "text": f"{generator.choice(TEXTS)} {i}", "year": 1990 + i}
        for i in range(generator.randint(1, 9))
    ]
    queries = [
        {"id": f"q{i}", "text": f"question {i} {generator.choice(TEXTS)}"} for i in range(generator.randint(1, 6))
    ]
    pairs = {(q["id"], generator.choice(documents)["id"]) for q in queries for _ in range(2)}
    judgements = [{"query_id": q, "document_id": d, "relevance": generator.randint(0, 2)} for q, d in sorted(pairs)]
    return {"documents": documents, "queries": queries, "judgements": judgements}


# ----------------------------------------------------------------------------------------------------------- of values


def _row(tables: dict[str, Rows], generator: random.Random) -> tuple[Rows, dict[str, Any], str]:
    rows = tables[generator.choice(list(tables))]
    row = generator.choice(rows)
    return rows, row, generator.choice(list(row))


def strange_value(tables: dict[str, Rows], generator: random.Random) -> None:
    _, row, name = _row(tables, generator)
    row[name] = copy.deepcopy(generator.choice(STRANGE))


def strange_column(tables: dict[str, Rows], generator: random.Random) -> None:
    rows, _, name = _row(tables, generator)
    value = generator.choice(STRANGE)
    for row in rows:
        row[name] = copy.deepcopy(value)


def deep_value(tables: dict[str, Rows], generator: random.Random) -> None:
    _, row, name = _row(tables, generator)
    value: Any = 1
    for _ in range(generator.choice([50, 400])):
        value = [value] if generator.random() < 0.5 else {"a": value}
    row[generator.choice([name, "more"])] = value


def field_gone(tables: dict[str, Rows], generator: random.Random) -> None:
    rows, row, name = _row(tables, generator)
    for one in rows if generator.random() < 0.5 else [row]:
        one.pop(name, None)


def field_renamed(tables: dict[str, Rows], generator: random.Random) -> None:
    rows, row, name = _row(tables, generator)
    new = generator.choice(["Text", "body", "doc_id", "qid", "wrong", "", "title", "split", "négatif", "text"])
    for one in rows if generator.random() < 0.7 else [row]:
        if name in one:
            one[new] = one.pop(name)


def row_twice(tables: dict[str, Rows], generator: random.Random) -> None:
    rows, row, name = _row(tables, generator)
    rows.insert(generator.randint(0, len(rows)), dict(row))
    if generator.random() < 0.6:
        rows[-1] = rows[-1] | {name: generator.choice(["changed", 2, "d0", "q0"])}


def row_gone(tables: dict[str, Rows], generator: random.Random) -> None:
    rows, row, _ = _row(tables, generator)
    rows.remove(row)


def long_text(tables: dict[str, Rows], generator: random.Random) -> None:
    _, row, name = _row(tables, generator)
    row[name] = "long " * 40_000


# ------------------------------------------------------------------------------------------------------------ of bytes


def truncated(data: bytes, generator: random.Random) -> bytes:
    return data[: generator.randint(0, len(data))]


def flipped(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.choice([1, 1, 2, 8]) if data else 0):
        changed[generator.randrange(len(changed))] ^= generator.choice([1, 2, 4, 16, 32, 128, 255])
    return bytes(changed)


def inserted(data: bytes, generator: random.Random) -> bytes:
    at = generator.randint(0, len(data))
    new = generator.choice(
        [
            b"\x00",
            b"\xff\xfe",
            b'"',
            b"\n",
            b"\r",
            b"{",
            b"]",
            b",",
            b"\t",
            b"\xef\xbb\xbf",
            b"<top>",
            b"PAR1",
            b"\x1f\x8b",
        ]
    )
    return data[:at] + new * generator.choice([1, 1, 3, 2000]) + data[at:]


def cut_out(data: bytes, generator: random.Random) -> bytes:
    at = generator.randint(0, len(data))
    return data[:at] + data[at + generator.randint(1, 40) :]


def repeated(data: bytes, generator: random.Random) -> bytes:
    at = generator.randint(0, len(data))
    return data[: at + 30] + data[at:]


def recoded(data: bytes, generator: random.Random) -> bytes:
    text = data.decode("utf-8", "ignore")
    return text.encode(
        generator.choice(
            ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "latin-1", "cp1252", "shift_jis", "utf-7"]
        ),
        "replace",
    )


def half_recoded(data: bytes, generator: random.Random) -> bytes:
    return data[: len(data) // 2] + recoded(data[len(data) // 2 :], generator)


def noise(data: bytes, generator: random.Random) -> bytes:
    start = generator.choice(
        [b"", b"PAR1", b"\x1f\x8b\x08\x00", b"{", b"[", b"id,text\n", b"<top>", b"\xff\xfe", b"PK\x03\x04"]
    )
    return start + generator.randbytes(generator.choice([0, 1, 10, 1000]))


def ascii_noise(data: bytes, generator: random.Random) -> bytes:
    return "".join(generator.choice('abc019 {}[]":,;\t\n\\<>/') for _ in range(generator.choice([3, 40, 400]))).encode()


def shuffled_lines(data: bytes, generator: random.Random) -> bytes:
    lines = data.split(b"\n")
    generator.shuffle(lines)
    return b"\n".join(lines)


def unchanged(data: bytes, generator: random.Random) -> bytes:
    return data


VALUE_MUTATIONS: tuple[Callable[[dict[str, Rows], random.Random], None], ...] = (
    strange_value, strange_value, strange_column, deep_value, field_gone, field_renamed, row_twice, row_gone, long_text,
)  # fmt: skip
BYTE_MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    truncated, flipped, flipped, inserted, cut_out, repeated, recoded, half_recoded, noise, ascii_noise,
    shuffled_lines, unchanged,
)  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- writing


def encode(rows: Rows, kind: str) -> bytes:
    """Return the bytes of a table file; values that the format cannot hold are written as their JSON."""
    if kind.endswith(".gz"):
        return gzip.compress(encode(rows, kind.removesuffix(".gz")), mtime=0)
    if kind == "json":
        return json.dumps(rows, ensure_ascii=False, indent=1).encode()
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    names = list(dict.fromkeys(name for row in rows for name in row))
    if kind == "parquet":
        out = io.BytesIO()
        columns = {name: [row.get(name) for row in rows] for name in names}
        try:
            pq.write_table(pa.table(columns), out)
        except (pa.ArrowException, OverflowError, ValueError):
            out = io.BytesIO()
            pq.write_table(pa.table({name: [json.dumps(v) for v in values] for name, values in columns.items()}), out)
        return out.getvalue()
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t" if kind == "tsv" else ",")
    writer.writerow(names)
    for row in rows:
        cells = (row.get(name) for name in names)
        writer.writerow([json.dumps(cell) if isinstance(cell, list | dict) else cell for cell in cells])
    return text.getvalue().encode()


def trec(tables: dict[str, Rows]) -> dict[str, bytes]:
    """Return documents as JSONL, queries as TREC topics, judgements as qrels."""
    topics = "".join(
        f"<top>\n<num> Number: {row.get('id')}\n<title> {row.get('text')}\n</top>\n" for row in tables["queries"]
    )
    qrels = "".join(
        f"{r.get('query_id')} 0 {r.get('document_id')} {r.get('relevance')}\n" for r in tables["judgements"]
    )
    return {
        "documents.jsonl": encode(tables["documents"], "jsonl"),
        "topics.txt": topics.encode(),
        "qrels.txt": qrels.encode(),
    }


def beir(tables: dict[str, Rows]) -> dict[str, bytes]:
    """Return a BEIR folder."""
    members = [
        [{("_id" if k == "id" else k): v for k, v in row.items()} for row in tables[part]]
        for part in ("documents", "queries")
    ]
    names = {"query_id": "query-id", "document_id": "corpus-id", "relevance": "score"}
    judgements = [{names.get(name, name): value for name, value in row.items()} for row in tables["judgements"]]
    return {
        "corpus.jsonl": encode(members[0], "jsonl"),
        "queries.jsonl": encode(members[1], "jsonl"),
        "qrels/test.tsv": encode(judgements, "tsv"),
    }


def make(seed: int, folder: Path) -> tuple[str, str]:
    """Write a damaged dataset into a new folder; return the kind and the name of the mutation."""
    generator = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    tables = base(generator)
    of_values = generator.random() < 0.4
    change = generator.choice(VALUE_MUTATIONS if of_values else BYTE_MUTATIONS)
    if of_values:
        change(tables, generator)  # type: ignore[arg-type, call-arg]
    files = {"trec": trec, "beir": beir}.get(
        kind, lambda t: {f"{part}.{kind}": encode(rows, kind) for part, rows in t.items()}
    )(tables)
    if not of_values:
        victim = generator.choice(list(files))
        files[victim] = change(files[victim], generator)  # type: ignore[arg-type, assignment]
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return kind, change.__name__
