"""The options of `rivals evaluate`: data by files or folder, slices, corrections, leakage, tables written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rivals.cli import main
from rivals.data import Collection, Dataset, Judgements, Run, save_beir, save_dataset, save_run
from rivals.data.formats.tables import read_table, write_table

COUNT = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set as a folder and as single files, and two runs on its test queries."""
    path = tmp_path_factory.mktemp("evaluate")
    texts = [f"how do I mend {'the old ' if i % 2 else ''}thing number {i}?" for i in range(COUNT)]
    texts[50] = texts[4].upper()  # a test query that was trained on
    queries = Collection([f"q{i}" for i in range(COUNT)], texts, {"kind": ["a", "b", "c"] * 20}, name="query")
    documents = Collection(
        [f"d{i}" for i in range(COUNT)], [f"thing {i} is mended with tool {i * i}" for i in range(COUNT)]
    )
    pairs = [(q, (q + step) % COUNT, 1 - step) for q in range(COUNT) for step in (0, 1)]
    judgements = Judgements.build(*zip(*pairs, strict=True), queries=COUNT, documents=COUNT)
    splits = {"train": np.arange(10), "test": np.arange(10, COUNT)}
    dataset = Dataset(queries, documents, judgements, splits, "mended")
    save_dataset(dataset, path / "data")
    test = dataset.split("test")
    save_beir(Dataset(test.queries, documents, test.judgements, {"test": np.arange(50)}), path / "beir")
    rng = np.random.default_rng(0)
    for name, shift in (("first", 0), ("second", 1)):
        rows = [(10 + q + step) % COUNT for q in range(50) for step in range(8)]
        scores = np.where(np.arange(400) % 8 == 0, 1.0 - shift, 0.0) + rng.random(400)
        save_run(Run.build(test.queries, documents, np.arange(51) * 8, rows, scores), path / f"{name}.trec")
    judged = [(q, q + 10, 1) for q in range(50)] + [(q, (q + 11) % COUNT, 0) for q in range(50)]
    lines = [f"{test.queries.ids[q]} 0 {documents.ids[d]} {grade}\n" for q, d, grade in judged]
    (path / "test.qrels").write_text("".join(lines))
    kinds = test.queries.table["kind"].to_pylist()
    write_table({"id": test.queries.ids.tolist(), "text": test.queries.texts, "kind": kinds}, path / "queries.jsonl")
    write_table({"id": documents.ids.tolist()[:-5], "text": documents.texts[:-5]}, path / "fewer.csv")
    (path / "other.trec").write_text("q11 Q0 d11 1 1.0 x\n")
    (path / "another.trec").write_text("q12 Q0 d12 1 1.0 x\n")
    (path / "strangers.trec").write_text("topic1 Q0 d12 1 1.0 x\n")
    (path / "twice.trec").write_text("q11 Q0 d11 1 1.0 x\nq11 Q0 d11 2 0.5 x\n")
    (path / "nan.trec").write_text("q11 Q0 d11 1 1.0 x\nq11 Q0 d12 2 nan x\n")
    return path


def said(folder: Path, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as end:
        main(["evaluate", *words.split()])
    assert not end.value.code, capsys.readouterr().err
    return " ".join(capsys.readouterr().out.split())


def test_a_folder_gives_texts_splits_and_leakage(folder, capsys, monkeypatch):
    out = said(folder, "first.trec second.trec --folder data --slices length kind seen relevant", capsys, monkeypatch)
    assert "data, test: 50 queries" in out
    assert "queries of test that are in train too: 1 word for word" in out
    for title in ("by length", "by kind", "by seen", "by relevant"):
        assert f"nDCG@10 {title}" in out
    assert "With 50 queries a difference below" in out
    assert "second against first:" in out
    assert "…" not in out
    assert "Unjudged in the first 5, 10, 20, 100: " in out


def test_files_give_the_same_figures_as_the_folder(folder, capsys, monkeypatch):
    files = "first.trec second.trec --judgements test.qrels --queries queries.jsonl --training data --json files.json"
    out = said(folder, files + " --per-query values.parquet --slices kind --condensed", capsys, monkeypatch)
    said(folder, "first.trec second.trec --folder data --json folder.json", capsys, monkeypatch)
    said(folder, "first.trec second.trec --folder beir --json beir.json", capsys, monkeypatch)
    said(folder, "first.trec second.trec --judgements beir/qrels/test.tsv --json tsv.json", capsys, monkeypatch)
    read = [json.loads((folder / f"{name}.json").read_text()) for name in ("files", "folder", "beir", "tsv")]
    for other in read[1:]:
        assert other["intervals"] == read[0]["intervals"]
    assert read[0]["leakage"]["overlaps"][0] == read[1]["leakage"]["overlaps"][0]
    assert read[3]["leakage"] is None
    assert "condensed lists" in out
    columns = read_table(folder / "values.parquet").columns
    assert len(columns["query"]) == 100
    assert set(columns["slice kind"]) == {"a", "b", "c"}


def test_correction_level_power_and_common_queries(folder, capsys, monkeypatch):
    options = (
        "--judgements test.qrels --correction benjamini-hochberg --level 0.9 --power 0.95 --measures RR P(rel=2)@5"
    )
    out = said(folder, f"first.trec other.trec {options} --common", capsys, monkeypatch)
    assert "1 queries, means with 90% bootstrap intervals" in out
    assert "49 queries that some system did not answer are left out." in out
    assert "Benjamini-Hochberg-corrected" in out
    assert "P(rel=2)@5 is 0 for every system" in out
    assert "95% of cases" in out


def test_unknown_documents_can_count_as_unjudged(folder, capsys, monkeypatch):
    (folder / "alien.trec").write_text("q11 Q0 alien 1 2.0 x\nq11 Q0 d11 2 1.0 x\n")
    out = said(folder, "alien.trec --folder data --on-unknown unjudged --measures RR", capsys, monkeypatch)
    assert "alien: 1 documents are not in the data set and count as unjudged." in out


MISTAKES = {
    "nothing": ("first.trec", "no judgements are given"),
    "both": ("first.trec --folder data --judgements test.qrels", "leave out --judgements"),
    "split": ("first.trec --judgements test.qrels --split dev", "--split .* --folder"),
    "no such split": ("first.trec --folder data --split exam", "no split 'exam'"),
    "training without texts": ("first.trec --judgements test.qrels --training data", "--queries"),
    "no such slices": ("first.trec --judgements test.qrels --slices mood", "mood"),
    "slices without texts": ("first.trec --judgements test.qrels --slices length", "no texts"),
    "seen without training": ("first.trec --judgements test.qrels --slices seen", "training data"),
    "judged outside": (
        "first.trec --judgements test.qrels --documents fewer.csv",
        r"test\.qrels: 5 judged documents .* fewer",
    ),
    "duplicate rows": ("twice.trec --judgements test.qrels", r"twice\.trec, line 2: query 'q11' lists document 'd11'"),
    "nan": ("nan.trec --judgements test.qrels", r"nan\.trec, line 2: the score 'nan' is not a number"),
    "nothing in common": ("other.trec another.trec --judgements test.qrels", "no common query"),
    "other queries": ("strangers.trec --judgements test.qrels", "'topic1'"),
    "table format": ("first.trec --judgements test.qrels --per-query values.docx", "docx"),
    "power": ("first.trec --judgements test.qrels --power 2", "power is 2"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(folder, case, capsys, monkeypatch):
    words, message = MISTAKES[case]
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as end:
        main(["evaluate", *words.split()])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("rivals: ")
    import re

    assert re.search(message, error), error
