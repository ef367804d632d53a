"""`load_dataset`: chosen fields, made ids, splits, negatives, folders, and every defined outcome of bad input."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rivals.data import Dataset, load_dataset
from rivals.errors import DataError

DOCUMENTS = [{"id": "a", "text": "first"}, {"id": "b", "text": "second"}, {"id": "c", "text": "third"}]


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return lines(tmp_path / "docs.jsonl", DOCUMENTS)


def judged(dataset: Dataset) -> set[tuple[str, str, float]]:
    judgements = dataset.judgements
    ids = dataset.queries.ids[judgements.query], dataset.documents.ids[judgements.document]
    return set(zip(*ids, judgements.relevance.tolist(), strict=True))


def fails(*parts: str, **arguments: Any) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(**arguments)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


# ---------------------------------------------------------------------------------------------------------- what works


def test_documents_and_pairs_by_id(docs: Path, tmp_path: Path) -> None:
    pairs = lines(tmp_path / "pairs.jsonl", [{"query": "one?", "doc_id": "a"}, {"query": "one?", "doc_id": "b"}])
    dataset = load_dataset(documents=docs, pairs=pairs)
    assert (len(dataset.queries), len(dataset.documents), len(dataset.judgements)) == (1, 3, 2)
    assert dataset.queries.texts == ["one?"]
    assert dataset.report == {"documents rows": 3, "documents used": 3, "pairs rows": 2, "pairs used": 2}
    assert "document_id from 'doc_id'" in dataset.describe()


def test_documents_are_made_of_pairs_and_ids_are_stable(tmp_path: Path) -> None:
    rows = [{"question": "x?", "answer": "yes"}, {"question": "y?", "answer": "no"}, {"question": "x?", "answer": "no"}]
    one = load_dataset(lines(tmp_path / "one.jsonl", rows))
    other = load_dataset(lines(tmp_path / "other.jsonl", rows[::-1]))
    assert (len(one.queries), len(one.documents)) == (2, 2)
    assert set(one.queries.ids) == set(other.queries.ids)
    assert judged(one) == judged(other)


def test_pairs_match_documents_by_text(docs: Path, tmp_path: Path) -> None:
    dataset = load_dataset(
        documents=docs, pairs=lines(tmp_path / "p.jsonl", [{"qid": 7, "query": "q", "passage": "third"}])
    )
    assert judged(dataset) == {("7", "c", 1.0)}


def test_whole_numbers_as_ids_in_every_format(tmp_path: Path) -> None:
    pq.write_table(pa.table({"docid": [1, 2], "body": ["x", "y"]}), tmp_path / "d.parquet")
    (tmp_path / "p.csv").write_text("query,docid,label\nq,2,1\n")
    dataset = load_dataset(documents=tmp_path / "d.parquet", pairs=tmp_path / "p.csv")
    assert judged(dataset) == {(dataset.queries.ids[0], "2", 1.0)}
    dataset = load_dataset(documents=lines(tmp_path / "d.jsonl", [{"id": 12345678901234567890, "text": "x"}]))
    assert dataset.documents.ids.tolist() == ["12345678901234567890"]


def test_titles_and_further_columns(tmp_path: Path) -> None:
    rows = [
        {"_id": "a", "title": "T", "text": "", "year": 2001, "metadata": {}, "tags": ["x"]},
        {"_id": "b", "text": "t", "year": 2002, "metadata": {}},
    ]
    documents = load_dataset(documents=lines(tmp_path / "c.jsonl", rows)).documents
    assert documents.full_texts == ["T. ", "t"]
    assert documents.table.column_names == ["id", "text", "title", "year", "tags"]
    assert documents.table["year"].to_pylist() == [2001, 2002]
    assert documents.table["tags"].to_pylist() == ['["x"]', None]


def test_splits_from_rows_files_and_mappings(docs: Path, tmp_path: Path) -> None:
    queries = lines(tmp_path / "q.jsonl", [{"id": str(i), "text": f"q{i}"} for i in range(3)])
    rows = [{"query_id": str(i), "doc_id": "a", "split": s} for i, s in enumerate(["train", "validation", "test"])]
    expected = {"train": [0], "dev": [1], "test": [2]}

    def splits(**more: Any) -> dict[str, list[int]]:
        dataset = load_dataset(documents=docs, queries=queries, **more)
        return {name: where.tolist() for name, where in dataset.splits.items()}

    assert splits(pairs=lines(tmp_path / "p.jsonl", rows)) == expected
    plain = lines(tmp_path / "plain.jsonl", [{k: v for k, v in row.items() if k != "split"} for row in rows])
    assert splits(judgements=plain, splits={"train": ["0"], "dev": ["1"], "test": ["2"]}) == expected
    assert splits(judgements=plain, splits=lines(tmp_path / "s.jsonl", rows)) == expected
    each = {row["split"]: lines(tmp_path / f"{row['split']}.jsonl", [row | {"split": None}]) for row in rows}
    assert splits(pairs=each) == expected


def test_negatives_become_judgements_of_relevance_zero(tmp_path: Path) -> None:
    rows = [
        {"query": "q", "positive": "p", "negatives": ["n", "p", "", "m", "n"]},
        {"query": "q", "positive": "r", "negatives": ["n", "r"]},
    ]
    dataset = load_dataset(lines(tmp_path / "p.jsonl", rows))
    texts = {
        dataset.documents.texts[d]: r
        for d, r in zip(dataset.judgements.document, dataset.judgements.relevance, strict=True)
    }
    assert texts == {"p": 1, "r": 1, "n": 0, "m": 0}
    assert {key: count for key, count in dataset.report.items() if key.startswith("negatives")} == {
        "negatives rows": 7,
        "negatives dropped: empty": 1,
        "negatives merged: known as relevant": 2,
        "negatives merged: judged already": 2,
        "negatives used": 2,
    }


def test_numbered_negatives_in_csv(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("anchor,positive,negative_1,negative_2\nq,p,n,\n")
    assert load_dataset(tmp_path / "p.csv").judgements.relevance.tolist() == [1, 0]


def test_the_user_chooses_fields(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "wrong", "abstract": "right"}]
    path = lines(tmp_path / "d.jsonl", rows)
    documents = load_dataset(documents=path, fields={"documents.text": "abstract"}).documents
    assert documents.texts == ["right"]
    assert documents.table["original_text"].to_pylist() == ["wrong"]
    fails("no field 'nothing'", "'abstract'", documents=path, fields={"documents.text": "nothing"})
    fails("no field setting 'documents.nothing'", documents=path, fields={"documents.nothing": "x"})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("zipped", [False, True])
def test_encodings_with_a_mark_and_gzip(tmp_path: Path, encoding: str, zipped: bool) -> None:
    data = '{"id": "a", "text": "naïve 漢字 🦉"}\r\n'.encode(encoding)
    path = tmp_path / ("d.jsonl.gz" if zipped else "d.jsonl")
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert load_dataset(documents=path).documents.texts == ["naïve 漢字 🦉"]


def test_ten_megabyte_lines(tmp_path: Path) -> None:
    text = "word " * 2_100_000
    rows = [{"id": "a", "text": text}, {"id": "b", "text": "short"}]
    assert load_dataset(documents=lines(tmp_path / "d.jsonl", rows)).documents.texts == [text, "short"]
    (tmp_path / "d.csv").write_text(f'id,text\na,"{text}"\n')
    assert load_dataset(documents=tmp_path / "d.csv").documents.texts == [text]


def test_json_array_and_semicolons_and_headerless_tsv(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps(DOCUMENTS, indent=2))
    (tmp_path / "e.csv").write_text('\n\nID;Text\na;first\nb;"sec;ond\nline"\n\nc;third\n')
    (tmp_path / "f.tsv").write_text("1\tfirst\n2\tsecond\n")
    assert load_dataset(documents=tmp_path / "d.json").documents.texts == ["first", "second", "third"]
    dataset = load_dataset(documents=tmp_path / "e.csv")
    assert dataset.documents.texts == ["first", "sec;ond\nline", "third"]
    assert dataset.report["documents noted: blank lines"] == 3
    assert load_dataset(documents=tmp_path / "f.tsv").documents.ids.tolist() == ["1", "2"]


def test_folder_by_file_names(docs: Path, tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", [{"query": "x", "doc_id": "a"}])
    lines(tmp_path / "validation-00000-of-00001.jsonl", [{"query": "y", "doc_id": "b"}])
    (tmp_path / "README.md").write_text("hello")
    dataset = load_dataset(tmp_path)
    assert {name: len(rows) for name, rows in dataset.splits.items()} == {"train": 1, "dev": 1}
    assert dataset.origin["files not used"] == "README.md"
    assert dataset.name == tmp_path.name


# ------------------------------------------------------------------------------------------------------ what is counted


def test_identical_rows_are_merged_and_counted(tmp_path: Path) -> None:
    documents = lines(tmp_path / "d.jsonl", [*DOCUMENTS, DOCUMENTS[0]])
    pairs = lines(tmp_path / "p.jsonl", [{"query": "q", "doc_id": "a"}, {"query": "q", "doc_id": "a"}])
    report = load_dataset(documents=documents, pairs=pairs).report
    assert report["documents merged: identical rows"] == 1
    assert (report["pairs rows"], report["pairs used"], report["pairs merged: identical rows"]) == (2, 1, 1)


def test_empty_texts_are_dropped_and_counted_unless_judged(tmp_path: Path) -> None:
    documents = lines(
        tmp_path / "d.jsonl", [*DOCUMENTS, {"id": "e", "text": "  "}, {"id": "f"}, {"id": "g", "text": None}]
    )
    good = lines(tmp_path / "p.jsonl", [{"query": "q", "doc_id": "a"}])
    dataset = load_dataset(documents=documents, pairs=good)
    assert len(dataset.documents) == 3
    assert dataset.report["documents dropped: empty text"] == 3
    bad = lines(tmp_path / "bad.jsonl", [{"query": "q", "doc_id": "a"}, {"query": "q", "doc_id": "e"}])
    fails("bad.jsonl, line 2", "'e'", "whose text is empty", "d.jsonl, line 4", documents=documents, pairs=bad)
    report = load_dataset(documents=documents, pairs=bad, on_unknown="drop").report
    assert (report["pairs used"], report["pairs dropped: empty document"]) == (1, 1)


def test_pairs_with_an_empty_text_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [{"query": "q", "answer": "a"}, {"query": "", "answer": "b"}, {"query": "r", "answer": " "}]
    dataset = load_dataset(lines(tmp_path / "p.jsonl", rows))
    assert (len(dataset.queries), len(dataset.documents)) == (1, 1)
    assert dataset.report["pairs dropped: empty query text"] == 1
    assert dataset.report["pairs dropped: empty document text"] == 1


def test_nul_characters_become_blanks_and_are_counted(tmp_path: Path) -> None:
    dataset = load_dataset(documents=lines(tmp_path / "d.jsonl", [{"id": "a", "text": "x\0y"}]))
    assert dataset.documents.texts == ["x y"]
    assert dataset.report["documents noted: NUL characters replaced by blanks"] == 1
    fails("line 1", "control character", documents=lines(tmp_path / "e.jsonl", [{"id": "a\0", "text": "x"}]))


# -------------------------------------------------------------------------------------------------------- what is wrong


def test_duplicate_ids_with_different_content(tmp_path: Path) -> None:
    path = lines(tmp_path / "d.jsonl", [*DOCUMENTS, {"id": "a", "text": "other"}])
    fails("d.jsonl, line 4", "'a'", "line 1", documents=path)
    extra = lines(tmp_path / "e.jsonl", [{"id": "a", "text": "x", "year": 1}, {"id": "a", "text": "x", "year": 2}])
    fails("e.jsonl, line 2", "line 1", documents=extra)
    empty = lines(tmp_path / "f.jsonl", [{"id": "a", "text": ""}, {"id": "a", "text": "x"}])
    fails("f.jsonl, line 2", "line 1", documents=empty)


def test_unknown_ids(docs: Path, tmp_path: Path) -> None:
    queries = lines(tmp_path / "q.jsonl", [{"id": "q1", "text": "one"}])
    rows = [{"query_id": "q1", "doc_id": "a"}, {"query_id": "q1", "doc_id": "z"}, {"query_id": "q9", "doc_id": "a"}]
    qrels = lines(tmp_path / "j.jsonl", rows)
    fails("j.jsonl, line 2", "document 'z'", "on_unknown", documents=docs, queries=queries, judgements=qrels)
    dataset = load_dataset(documents=docs, queries=queries, judgements=qrels, on_unknown="drop")
    assert judged(dataset) == {("q1", "a", 1.0)}
    assert dataset.report["judgements dropped: unknown document"] == 1
    assert dataset.report["judgements dropped: unknown query"] == 1
    bad = lines(tmp_path / "s.jsonl", [{"qid": "zz", "split": "test"}])
    fails("s.jsonl, line 1", "'zz'", documents=docs, queries=queries, splits=bad)


def test_contradictions(docs: Path, tmp_path: Path) -> None:
    twice = lines(tmp_path / "p.jsonl", [{"query": "q", "doc_id": "a", "score": s} for s in (1, 1, 2)])
    fails("p.jsonl, line 3", "twice", "line 1", documents=docs, pairs=twice)
    splits = lines(
        tmp_path / "s.jsonl", [{"query": "q", "doc_id": d, "split": s} for d, s in (("a", "train"), ("b", "test"))]
    )
    fails("s.jsonl, line 2", "'train'", "line 1", documents=docs, pairs=splits)
    texts = lines(tmp_path / "t.jsonl", [{"qid": 1, "query": q, "doc_id": "a"} for q in "xy"])
    fails("t.jsonl, line 2", "another text", "line 1", documents=docs, pairs=texts)


@pytest.mark.parametrize("value", ["NaN", '"nan"', '"many"', "null", "1e300", "[1]", '""', '"inf"'])
def test_relevance_that_is_no_number(docs: Path, tmp_path: Path, value: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"query": "q", "doc_id": "a", "score": 1}\n{"query": "q", "doc_id": "b", "score": ' + value + "}\n"
    )
    fails("p.jsonl, line 2", documents=docs, pairs=path)


def test_missing_and_ambiguous_fields(docs: Path, tmp_path: Path) -> None:
    fails(
        "no field for the text",
        "'code', 'body_text'",
        documents=lines(tmp_path / "d.jsonl", [{"code": 1, "body_text": "x"}]),
    )
    both = lines(tmp_path / "e.jsonl", [{"id": 1, "text": "x", "body": "y"}])
    fails("'text' and 'body' could each be the text", "documents.text=text", documents=both)
    fails(
        "no field for the document_id or document", pairs=lines(tmp_path / "p.jsonl", [{"query": "q"}]), documents=docs
    )
    ids = lines(tmp_path / "i.jsonl", [{"query_id": 1, "doc_id": "a"}])
    fails("queries=FILE", pairs=ids, documents=docs)
    fails("queries=FILE", judgements=ids, documents=docs)
    fails("nothing to load")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"id": 1.5, "text": "x"}, "1.5"),
        ({"id": True, "text": "x"}, "True"),
        ({"id": ["a"], "text": "x"}, "['a']"),
        ({"id": None, "text": "x"}, "no id"),
        ({"id": " ", "text": "x"}, "no id"),
        ({"id": "a", "text": 5}, "not a text"),
        ({"id": "a", "text": {"b": 1}}, "not a text"),
        ("a string", "must be an object"),
        ([1], "must be an object"),
        (None, "must be an object"),
    ],
)
def test_values_of_the_wrong_type(tmp_path: Path, row: Any, what: str) -> None:
    fails(
        "d.jsonl, line 4",
        what,
        documents=lines(tmp_path / "d.jsonl", [*({**d, "id": d["id"] * 2} for d in DOCUMENTS), row]),
    )


@pytest.mark.parametrize(
    ("name", "data", "parts"),
    [
        ("d.jsonl", b'{"id": 1, "text": "x"}\n{"id": 2, "text": "caf\xe9"}\n', ["line 2", "0xe9", "offset 45"]),
        ("d.csv", b"id,text\n1,caf\xe9\n", ["line 2", "0xe9", "offset 13"]),
        ("d.jsonl", b'{"id": 1, "text": "x"}\n{"id": 2, "text": "x"\n', ["line 2", "not valid JSON"]),
        ("d.jsonl", b'{"id": 1, "text": "\\ud800"}\n', ["line 1", "not valid JSON"]),
        ("d.jsonl", b'{"id": ' + b"[" * 100_000 + b"\n", ["line 1", "nested too deeply"]),
        ("d.jsonl", b'{"id": 1, "text": "x"}'.decode().encode("utf-16-le"), ["without a byte order mark"]),
        ("d.jsonl", b"[1, 2]\n", ["element 1", "must be an object"]),
        ("d.json", b'[{"id": 1, "text": "x"}', ["not valid JSON"]),
        ("d.json", b'{\n"id": 1,\n"text": "x"\n}\n', ["line 1", "not valid JSON"]),
        ("d.csv", b"id,text\n1,a\n2,b,c\n", ["line 3", "3 fields", "header has 2"]),
        ("d.csv", b"id,text\n1\n", ["line 2", "1 fields"]),
        ("d.csv", b'id,text\n1,"a\n2,b\n', ["line 2", "never closed"]),
        ("d.csv", b'id,text\n1,"a"b\n', ["line 2", "not valid CSV"]),
        ("d.csv", b"id,text,id\n1,a,2\n", ["line 1", "'id' twice"]),
        ("d.csv", b"id,text\n", ["no rows"]),
        ("d.csv", b"   \n\n", ["no rows"]),
        ("d.jsonl", b"", ["is empty"]),
        ("d.parquet", b"PAR1 nonsense PAR1", ["damaged or truncated"]),
        ("d.parquet", b"hello", ["not a Parquet file"]),
        ("d.jsonl.gz", gzip.compress(b'{"id": 1, "text": "x"}\n' * 999)[:-20], ["damaged"]),
        ("d.jsonl.gz", b"\x1f\x8b\x08nonsense that is no gzip", ["d.jsonl.gz"]),
        ("d.xlsx", b"PK\x03\x04 and so on", ["zip archive"]),
        ("d.bin", b"just words\n", ["nothing tells this file's format"]),
        ("d.jsonl", b"<html><body>404</body></html>", ["SGML or HTML"]),
        ("d.jsonl", json.dumps({f"k{i}": i for i in range(2000)}).encode(), ["more than 1000"]),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, data: bytes, parts: list[str]) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    fails(str(path), *parts, documents=path)


def test_truncated_parquet_and_wrong_types(tmp_path: Path) -> None:
    whole = tmp_path / "d.parquet"
    pq.write_table(pa.table({"id": ["a"] * 1, "text": ["x" * 5000]}), whole)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-30])
    fails("cut.parquet", "damaged or truncated", documents=cut)
    pq.write_table(pa.table({"id": [1.0, 2.5], "text": ["x", "y"]}), whole)
    fails("d.parquet, row 1", "whole numbers", documents=whole)
    pq.write_table(pa.table({"id": ["a"], "text": [b"\xff"]}), whole)
    fails("d.parquet, row 1", "not a text", documents=whole)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    fails("missing.jsonl", "no such file", documents=tmp_path / "missing.jsonl")
    fails("a folder, where a file is wanted", documents=tmp_path)
    fails("no data found in this folder", source=tmp_path)
    fails("no such file", source=tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.jsonl")
    fails("not a regular file", documents=tmp_path / "pipe.jsonl")
    fails("cannot be opened", documents="a\0b")


def test_permission_error_is_reported(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    fails("docs.jsonl", "permissions", documents=docs)


def test_judgements_keep_float32_relevance(docs: Path, tmp_path: Path) -> None:
    path = lines(
        tmp_path / "p.jsonl",
        [{"query": "q", "doc_id": "a", "relevance": 0.1}, {"query": "q", "doc_id": "b", "relevance": -1}],
    )
    assert load_dataset(documents=docs, pairs=path).judgements.relevance.tolist() == [np.float32(0.1), -1.0]
