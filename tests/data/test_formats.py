"""BEIR, TREC and run files: what they accept beyond round trips, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rivals.data import (
    Collection,
    Dataset,
    Judgements,
    Run,
    load_beir,
    load_dataset,
    load_run,
    load_sample,
    load_topics,
    save_beir,
    save_qrels,
    save_run,
    save_topics,
)
from rivals.errors import DataError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def tiny(document_id: str = "d1", relevance: float = 1) -> Dataset:
    judgements = Judgements.build([0], [0], [relevance], queries=1, documents=1)
    return Dataset(Collection(["q1"], ["what?"], name="query"), Collection([document_id], ["this"]), judgements)


def test_beir_folder_as_published(tmp_path: Path) -> None:
    write(
        tmp_path / "corpus.jsonl",
        '{"_id": "1", "title": "T", "text": "x", "metadata": {}}\n{"_id": "2", "title": "", "text": "y"}\n',
    )
    write(tmp_path / "queries.jsonl", '{"_id": "a", "text": "q", "metadata": {}}\n{"_id": "b", "text": "r"}\n')
    write(tmp_path / "qrels/test.tsv", "query-id\tcorpus-id\tscore\na\t2\t1\n")
    write(tmp_path / "qrels/dev.tsv", "query-id\tcorpus-id\tscore\nb\t1\t2\n")
    dataset = load_beir(tmp_path)
    assert dataset.documents.full_texts == ["T. x", "y"]
    assert {name: rows.tolist() for name, rows in dataset.splits.items()} == {"dev": [1], "test": [0]}
    assert dataset.judgements.relevance.tolist() == [1, 2]
    (tmp_path / "queries.jsonl").unlink()
    with pytest.raises(DataError, match=r"no queries\.jsonl"):
        load_beir(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        load_beir(tmp_path / "corpus.jsonl")


def test_beir_and_trec_refuse_what_they_cannot_keep(tmp_path: Path) -> None:
    for save in (save_beir, save_qrels):
        with pytest.raises(DataError, match="whole relevance"):
            save(tiny(relevance=0.5), tmp_path / "out")
    with pytest.raises(DataError, match="'d 1' is empty or holds blanks"):
        save_qrels(tiny("d 1"), tmp_path / "out")
    with pytest.raises(DataError, match="line breaks"):
        save_topics(Collection(["q"], ["a\nb"], name="query"), tmp_path / "out.sgml")
    assert not any(tmp_path.iterdir())


def test_qrels_outside_splits_can_be_called_test(tmp_path: Path) -> None:
    save_beir(tiny(), tmp_path / "b", unsplit="test")
    assert (tmp_path / "b" / "qrels" / "test.tsv").read_text() == "query-id\tcorpus-id\tscore\nq1\td1\t1\n"
    assert load_beir(tmp_path / "b").splits.keys() == {"test"}


def test_classic_topics(tmp_path: Path) -> None:
    path = write(
        tmp_path / "topics.301-350",
        "<top>\n\n<num> Number: 301 \n<title> International\nOrganized Crime \n\n<desc> Description: \nIdentify "
        "<b>organizations</b>\n\n<narr> Narrative: \nA relevant document must\n</top>\n"
        "<top><num>302<title>R&amp;D<desc>Description: x</top>\n",
    )
    topics = load_topics(path)
    assert topics.ids.tolist() == ["301", "302"]
    assert topics.full_texts == ["International Organized Crime", "R&D"]
    assert topics.table["narrative"].to_pylist() == ["A relevant document must", None]


def test_xml_topics(tmp_path: Path) -> None:
    path = write(
        tmp_path / "topics.xml",
        '<?xml version="1.0"?><topics task="x">\n<topic number="1">\n<query>coronavirus origin</query>\n'
        "<question>what is the origin</question>\n</topic></topics>",
    )
    assert load_topics(path).texts == ["coronavirus origin"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<top><num>1<title>a\n<top><num>2<title>b</top>", "line 2: a topic begins here"),
        ("<top><num>1<title>a", "line 1: this topic is not closed"),
        ("<top><title>a</top>", "no number"),
        ("<top><num>1</top>", "no text"),
        ("<top><num>1<title>a<title>b</top>", "two fields"),
        ("<html></html>", "no topic"),
        ("<top><num>1<title>a</top>\n<tup>\n<num>2<title>b</top>", "line 3: a field or </top> stands outside"),
        ("<top><num>1<title>a</top><top><num>1<title>b</top>", "'1' stands in line 1"),
    ],
)
def test_bad_topics(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_topics(write(tmp_path / "topics", text))
    assert "topics" in str(caught.value)


def test_qrels_with_unknown_ids_and_missing_columns(tmp_path: Path) -> None:
    documents = write(tmp_path / "d.jsonl", '{"id": "d1", "text": "x"}\n')
    topics = write(tmp_path / "t.tsv", "1\twhat?\n")
    good = write(tmp_path / "qrels.txt", "1 0 d1 2\n\n")
    dataset = load_dataset(documents=documents, queries=topics, judgements=good)
    assert dataset.judgements.relevance.tolist() == [2]
    for text, message in (
        ("1 0 d1 1\n1 0 d9 1\n", "line 2.*'d9'"),
        ("1 0 d1 1\n1 0 d1\n", "line 2: 3 columns where 4"),
    ):
        with pytest.raises(DataError, match=message):
            load_dataset(documents=documents, queries=topics, judgements=write(tmp_path / "bad.txt", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 d 1 0.5 t\nq Q0 e 2 t\n", "line 2: 5 columns where 6"),
        ("q Q0 d 1 nan t\n", "line 1: the score 'nan'"),
        ("q Q0 d 1 high t\n", "line 1: the score 'high'"),
        ("q Q0 d 1 1 t\nq Q0 d 2 2 t\n", "line 2: query 'q' lists document 'd' in line 1 too"),
        ("q Q0 z 1 1 t\n", "line 1: no document has the id 'z'"),
        ("z Q0 d 1 1 t\n", "line 1: no query has the id 'z'"),
        ("", "is empty"),
    ],
)
def test_bad_trec_runs(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "run.trec", text)
    with pytest.raises(DataError, match=message) as caught:
        load_run(path, Collection(["q"], name="query"), Collection(["d", "e"]))
    assert "run.trec" in str(caught.value)


def test_trec_run_is_ordered_by_score_not_by_rank(tmp_path: Path) -> None:
    path = write(tmp_path / "r.txt", "b Q0 x 1 0.5 s\na Q0 x 1 0.5 s\na Q0 y 2 0.9 t\na Q0 z 3 0.5 t\n")
    run = load_run(path, Collection(["a", "none", "b"], name="query"), Collection(["x", "y", "z"]))
    assert run.documents.ids[run.document].tolist() == ["y", "z", "x", "x"]
    assert run.offsets.tolist() == [0, 3, 3, 4]
    assert [run.sources[source] for source in run.source] == ["t", "t", "s", "s"]


def test_saving_a_trec_run_refuses_blanks(tmp_path: Path) -> None:
    run = Run.build(Collection(["q"], name="query"), Collection(["d 1"]), [0, 1], [0], [1.0])
    with pytest.raises(DataError, match="'d 1' is empty or holds blanks"):
        save_run(run, tmp_path / "r.trec")
    with pytest.raises(DataError, match="the tag 'a b'"):
        save_run(run, tmp_path / "r.trec", "a b")
    assert not any(tmp_path.iterdir())


def test_parquet_run_over_other_collections(tmp_path: Path) -> None:
    queries, documents = Collection(["a", "b"], name="query"), Collection(["x", "y"])
    run = Run.build(queries, documents, [0, 2, 3], [0, 1, 1], [1, 2, 3], positives=([0, 1, 1], [1]))
    path = tmp_path / "r.parquet"
    save_run(run, path)
    wider = load_run(path, Collection(["b", "new", "a"], name="query"), Collection(["y", "z", "x"]))
    assert wider.offsets.tolist() == [0, 1, 1, 3]
    assert wider.documents.ids[wider.document].tolist() == ["y", "y", "x"]
    assert wider.positive_offsets.tolist() == [0, 0, 0, 1]
    for collections, message in (
        ((Collection(["a"], name="query"), documents), "'b'"),
        ((queries, Collection(["x"])), "'y'"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            load_run(path, *collections)
        assert "r.parquet" in str(caught.value)


def test_damaged_parquet_runs(tmp_path: Path) -> None:
    sample = load_sample()
    rows = np.arange(2000)
    path = tmp_path / "r.parquet"
    save_run(Run.build(sample.queries.take([0]), sample.documents, [0, 2000], rows, rows / 7), path)
    whole = path.read_bytes()
    for cut in (4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"r\.parquet"):
            load_run(path)
    for at in range(10, len(whole) // 2, 997):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with pytest.raises(DataError, match=r"r\.parquet"):
            load_run(path)
    pq.write_table(pa.table({"query_id": ["q"]}), path)
    with pytest.raises(DataError, match="is no run"):
        load_run(path)
    path.write_text("q Q0 d 1 1 t\n")
    with pytest.raises(DataError, match="not a Parquet file"):
        load_run(path)
