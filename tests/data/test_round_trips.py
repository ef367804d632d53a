"""What is saved in a format and loaded again is the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import (
    Collection,
    Dataset,
    Run,
    load_beir,
    load_dataset,
    load_run,
    load_topics,
    save_beir,
    save_dataset,
    save_qrels,
    save_run,
    save_topics,
)
from rivals.data.formats import read_table, write_table
from rivals.errors import DataError
from tests.data.strategies import PLAIN_TEXT, TEXT, WORD_ID, datasets, runs

FEW = settings(max_examples=30, deadline=None)


def same(one: Dataset, other: Dataset) -> None:
    """Check that two datasets are equal, whatever the order of equal things."""
    for left, right in ((one.queries, other.queries), (one.documents, other.documents)):
        assert left.ids.tolist() == right.ids.tolist()
        assert left.full_texts == right.full_texts
        for name in left.table.column_names:
            assert left.table[name].to_pylist() == right.table[name].to_pylist()
    for name in ("offsets", "document", "relevance"):
        np.testing.assert_array_equal(getattr(one.judgements, name), getattr(other.judgements, name))
    assert {n: r.tolist() for n, r in one.splits.items()} == {n: r.tolist() for n, r in other.splits.items()}


def through(save: Callable[[Path], object], load: Callable[[Path], Dataset]) -> Dataset:
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "data")
        return load(Path(folder) / "data")


@FEW
@given(datasets(relevance=st.floats(-2, 2, width=32)), st.sampled_from(["jsonl", "parquet"]))
def test_folder_of_tables(dataset: Dataset, format: str) -> None:
    same(dataset, through(lambda p: save_dataset(dataset, p, format=format), load_dataset))  # type: ignore[arg-type]


@FEW
@given(datasets(relevance=st.floats(-2, 2, width=32)))
def test_folder_of_csv(dataset: Dataset) -> None:
    loaded = through(lambda p: save_dataset(dataset, p, format="csv"), load_dataset)
    years = [str(year) for year in dataset.documents.table["year"].to_pylist()]
    assert loaded.documents.table["year"].to_pylist() == years
    place = loaded.documents.table.column_names.index("year")
    table = loaded.documents.table.set_column(place, "year", dataset.documents.table["year"])
    same(dataset, Dataset(loaded.queries, Collection.from_table(table), loaded.judgements, loaded.splits))


@FEW
@given(datasets())
def test_beir(dataset: Dataset) -> None:
    loaded = through(lambda p: save_beir(dataset, p), load_beir)
    same(dataset, loaded)


@FEW
@given(datasets(ids=WORD_ID, text=PLAIN_TEXT, loose=False), st.sampled_from(["topics.sgml", "topics.tsv"]))
def test_trec_topics_and_qrels(dataset: Dataset, topics: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_topics(dataset.queries, folder / topics)
        save_qrels(dataset, folder / "qrels.txt")
        save_dataset(dataset, folder / "tables")
        loaded = load_dataset(
            documents=folder / "tables" / "documents.jsonl",
            queries=folder / topics,
            judgements=folder / "qrels.txt",
            splits={split: dataset.queries.ids[rows].tolist() for split, rows in dataset.splits.items()},
        )
        same(dataset, loaded)
        assert load_topics(folder / topics).texts == dataset.queries.texts


@FEW
@given(
    st.lists(st.tuples(TEXT, st.none() | st.integers(0, 9), st.lists(TEXT, max_size=2)), min_size=1, max_size=5),
    st.sampled_from(["t.jsonl", "t.jsonl.gz", "t.json", "t.parquet", "t.csv", "t.tsv.gz"]),
)
def test_tables(rows: list[tuple[str, int | None, list[str]]], name: str) -> None:
    columns = dict(zip(("text", "count", "list"), (list(values) for values in zip(*rows, strict=True)), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        write_table(columns, Path(folder) / name)
        loaded = read_table(Path(folder) / name)
    assert len(loaded) == len(rows)
    assert loaded.columns["text"] == columns["text"]
    if "json" in name or "parquet" in name:
        assert loaded.columns == columns
    else:
        assert loaded.columns["count"] == ["" if value is None else str(value) for value in columns["count"]]


def equal_runs(one: Run, other: Run) -> None:
    names = (
        "document",
        "score",
        "rank",
        "source",
        "keep",
        "weight",
        "label",
        "target",
        "fn_probability",
        "reason",
        "offsets",
    )
    for name in (*names, "positive_offsets", "positive", "positive_score", "positive_relevance"):
        left, right = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(left, right, err_msg=name)
        assert left.dtype == right.dtype, name
    assert one.features.keys() == other.features.keys()
    for name, values in one.features.items():
        np.testing.assert_array_equal(values, other.features[name], err_msg=name)
    for name in ("sources", "reasons", "scorer", "score_kind", "version", "built_from", "created_step", "seed"):
        assert getattr(one, name) == getattr(other, name), name


@FEW
@given(runs())
def test_run_as_parquet(run: Run) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.parquet"
        save_run(run, path)
        equal_runs(run, load_run(path, run.queries, run.documents))
        alone = load_run(path)
    assert alone.queries.ids.tolist() == run.queries.ids.tolist()
    assert alone.documents.ids[alone.document].tolist() == run.documents.ids[run.document].tolist()
    np.testing.assert_array_equal(alone.reason, run.reason)


@FEW
@given(runs(ids=WORD_ID))
def test_run_as_trec(run: Run) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.trec"
        save_run(run, path, "tag")
        if not len(run):
            with pytest.raises(DataError, match="empty"):
                load_run(path, run.queries, run.documents)
            return
        loaded = load_run(path, run.queries, run.documents)
        alone = load_run(path)
    for name in ("offsets", "document", "score", "rank"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(run, name))
    assert loaded.scorer == "tag"
    assert alone.documents.ids[alone.document].tolist() == run.documents.ids[run.document].tolist()
