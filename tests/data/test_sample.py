"""The embedded sample: the right members, texts and splits, and the same as the tables it was made of."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq

from rivals.data import SAMPLE_ATTRIBUTION, load_sample
from rivals.data.sample import SAMPLE_PATH


def test_counts() -> None:
    sample = load_sample()
    assert (len(sample.documents), len(sample.queries)) == (3514, 2863)
    assert {name: len(rows) for name, rows in sample.splits.items()} == {"train": 1738, "dev": 275, "test": 850}
    test = sample.split("test").judgements
    assert (len(test), len(np.unique(test.document))) == (1064, 1059)
    assert (sample.judgements.relevance == 1).all()
    assert (np.diff(sample.judgements.offsets) > 0).all()


def test_models_read_the_texts_alone() -> None:
    sample = load_sample()
    assert sample.documents.full_texts == sample.documents.texts
    assert sample.queries.full_texts == sample.queries.texts
    assert sample.documents.table.column_names == ["id", "text", "source", "focus", "topic", "qtype", "url"]
    assert sample.queries.table.column_names == ["id", "text", "topic", "qtype"]
    assert len(set(sample.documents.table["source"].to_pylist())) == 6


def test_topics_do_not_cross_splits() -> None:
    sample = load_sample()
    topics = np.array(sample.queries.table["topic"].to_pylist())
    train, dev, test = (set(topics[rows]) for rows in sample.splits.values())
    assert train.isdisjoint(dev | test)
    assert dev.isdisjoint(test)


def test_file_is_small_and_names_its_authors() -> None:
    assert SAMPLE_PATH.stat().st_size < 1_000_000
    facts = {key.decode(): value.decode() for key, value in pq.read_schema(SAMPLE_PATH).metadata.items()}
    for field, text in (("authors", "Ben Abacha"), ("license", "CC BY 4.0"), ("citation", "BMC Bioinformatics")):
        assert text in facts[field]
        assert text in SAMPLE_ATTRIBUTION


def test_equals_the_tables_it_was_made_of(shared_data) -> None:
    folder = shared_data / "medquad"
    texts = dict(
        zip(*(pq.read_table(folder / "answers.parquet")[c].to_pylist() for c in ("answer_id", "text")), strict=True)
    )
    asked = dict(zip(*(pq.read_table(folder / "qa.parquet")[c].to_pylist() for c in ("uid", "question")), strict=True))
    rows = pq.read_table(folder / "quickstart.parquet").to_pylist()
    sample = load_sample()
    assert set(sample.documents.ids) == {row["answer_id"] for row in rows}
    assert all(texts[i] == text for i, text in zip(sample.documents.ids, sample.documents.texts, strict=True))
    assert all(asked[i] == text for i, text in zip(sample.queries.ids, sample.queries.texts, strict=True))
    expected = {(row["query_id"], row["answer_id"]) for row in rows}
    judged = sample.judgements
    assert set(zip(sample.queries.ids[judged.query], sample.documents.ids[judged.document], strict=True)) == expected
    split_of = {row["query_id"]: row["split"] for row in rows}
    assert all(split_of[i] == name for name, rows in sample.splits.items() for i in sample.queries.ids[rows])
