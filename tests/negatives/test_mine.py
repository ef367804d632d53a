"""Mining: the chain, its blocks, its files, and planted false negatives on real questions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rivals.data import Collection, Dataset, Judgements, Retriever, Run, load_run, save_run
from rivals.errors import RivalsError
from rivals.negatives import (
    KnownPositives,
    PositiveAware,
    Softmax,
    Top,
    Uniform,
    mine_hard_negatives,
    write_lists,
    write_triples,
    write_tuples,
)


class Matrix(Retriever):
    """Scores every pair by a given matrix; queries are found by id."""

    name, score_kind = "matrix", "cosine"

    def __init__(self, scores: np.ndarray, queries: Collection, documents: Collection) -> None:
        self.scores, self.known, self.documents = scores.astype(np.float32), queries, documents

    def retrieve(self, queries: Collection, k: int) -> Run:
        rows, n = self.known.rows(queries.ids), len(self.documents)
        offsets = np.arange(len(rows) + 1) * n
        run = Run.build(
            queries,
            self.documents,
            offsets,
            np.tile(np.arange(n), len(rows)),
            self.scores[rows].ravel(),
            scorer=self.name,
            score_kind="cosine",
        )
        return run.top(k)

    def score(self, queries, query_row, document_row):
        return self.scores[self.known.rows(queries.ids)[query_row], document_row]


def toy(queries: int = 30, documents: int = 40, seed: int = 0) -> tuple[Matrix, Dataset]:
    generator = np.random.default_rng(seed)
    asked = Collection([f"q{i}" for i in range(queries)], [f"question {i}" for i in range(queries)], name="query")
    answers = Collection([f"d{i:02}" for i in range(documents)], [f"answer {i % 35}" for i in range(documents)])
    positive = generator.integers(0, documents, queries)
    scores = generator.uniform(0.1, 0.8, (queries, documents))
    scores[np.arange(queries), positive] = generator.uniform(0.6, 0.9, queries)
    judgements = Judgements.build(np.arange(queries), positive, np.ones(queries), queries=queries, documents=documents)
    return Matrix(scores, asked, answers), Dataset(asked, answers, judgements)


def test_defaults_are_the_papers_and_the_chain_is_the_pipeline():
    source, dataset = toy()
    mined = mine_hard_negatives(source, dataset, top_k=20, show=False)
    by_hand = source(dataset, 20)
    for step in mined_steps():
        by_hand = step(by_hand)
    assert (mined.run.keep == by_hand.keep).all()
    assert (mined.run.reason == by_hand.reason).all()
    assert (mined.negatives.document == Top(4)(by_hand).document).all()
    limit = np.repeat(dataset_scores(source, dataset) * np.float32(0.95), mined.draw.mask.sum(1))
    assert (mined.run.score[mined.draw.row[mined.draw.mask]] <= limit + 1e-6).all()


def mined_steps():
    from rivals.negatives import Duplicates

    return KnownPositives(), Duplicates(), PositiveAware(relative=0.05)


def dataset_scores(source: Matrix, dataset: Dataset) -> np.ndarray:
    return source.score(dataset.queries, dataset.judgements.query, dataset.judgements.document)


@pytest.mark.parametrize("sampler", [Top(3), Uniform(3, window=8), Softmax(2, temperature=0.1)], ids=repr)
@pytest.mark.parametrize("hold", ["all", "drawn"])
def test_blocks_change_nothing(sampler, hold, tmp_path):
    source, dataset = toy()
    whole = mine_hard_negatives(source, dataset, sampler=sampler, top_k=20, seed=5, show=False)
    parts = mine_hard_negatives(
        source,
        dataset,
        sampler=sampler,
        top_k=20,
        seed=5,
        block=7,
        hold=hold,
        output=tmp_path / "run.parquet",
        show=False,
    )
    assert (whole.draw.candidate == parts.draw.candidate).all()
    assert (whole.negatives.document == parts.negatives.document).all()
    assert (parts.run.document[parts.draw.row[parts.draw.mask]] == parts.draw.candidate[parts.draw.mask]).all()
    assert parts.negatives.queries.ids.tolist() == dataset.queries.ids.tolist()
    assert len(parts.run) == (len(whole.run) if hold == "all" else whole.draw.mask.sum())
    ours, theirs = json.loads(whole.audit.to_json()), json.loads(parts.audit.to_json())
    for name in ours:
        if name != "scores":  # sums in another order
            assert ours[name] == theirs[name], name
    stored = load_run(tmp_path / "run.parquet", dataset.queries, dataset.documents)
    assert (stored.document == whole.run.document).all()
    assert (stored.reason == whole.run.reason).all()
    assert sampler.draw(stored, np.random.default_rng([5, 0, 0])).candidate.tolist() == whole.draw.candidate.tolist()


def test_no_filters_is_plain_top_k():
    source, dataset = toy()
    mined = mine_hard_negatives(source, dataset, filters=(), sampler=Top(4), top_k=20, show=False)
    labelled = dataset.judgements.document
    groups = dataset.documents.text_groups
    for query, row in enumerate(mined.draw.candidate):
        order = [
            d for d in np.argsort(-source.scores[query], kind="stable")[:20] if groups[d] != groups[labelled[query]]
        ]
        fresh = [d for i, d in enumerate(order) if groups[d] not in groups[order[:i]]]
        assert row.tolist() == fresh[:4]


def test_documents_without_texts_are_mined_and_noted():
    source, dataset = toy()
    bare = Collection(dataset.documents.ids.tolist())
    source.documents = bare
    mined = mine_hard_negatives(
        source, Dataset(dataset.queries, bare, dataset.judgements), filters=PositiveAware(absolute=0.05), show=False
    )
    assert "duplicate texts were not looked for" in mined.audit.notes[0]
    assert mined.audit.examples[0].document is None


def test_nothing_left_can_be_allowed_and_is_noted():
    source, dataset = toy()
    mined = mine_hard_negatives(source, dataset, filters=PositiveAware(max_score=-1.0), allow_none=True, show=False)
    assert not mined.draw.mask.any()
    assert len(mined.negatives) == 0
    assert "left no candidate to draw: 1200 of 1200" in str(mined.audit)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"top_k": 0}, "top_k must be"),
        ({"seed": -1}, "seed must be"),
        ({"block": 0}, "block must be"),
        ({"hold": "some"}, "hold must be"),
        ({"filters": (Top(3),)}, "filters must be transforms that mark"),
        ({"sampler": KnownPositives()}, "sampler must be a Sampler"),
        ({"filters": PositiveAware(max_score=-1.0)}, r"nothing to draw: 600 candidates of 30 queries"),
    ],
)
def test_bad_arguments(change, said, tmp_path):
    source, dataset = toy()
    with pytest.raises(RivalsError, match=said):
        mine_hard_negatives(
            source, dataset, **({"top_k": 20, "output": tmp_path / "x.parquet", "show": False} | change)
        )
    assert list(tmp_path.iterdir()) == []  # no half-written file


def test_bad_datasets():
    source, dataset = toy()
    with pytest.raises(RivalsError, match="different documents"):
        mine_hard_negatives(source, toy(documents=41)[1], show=False)
    with pytest.raises(RivalsError, match="no queries"):
        mine_hard_negatives(source, dataset.take([]), show=False)
    with pytest.raises(RivalsError, match="needs a Dataset"):
        mine_hard_negatives(source, dataset.queries, show=False)
    nobody = Judgements.build([0], [0], [1], queries=30, documents=40)
    with pytest.raises(RivalsError, match=r"query 'q1' has no positive .*29 of 30"):
        mine_hard_negatives(source, Dataset(dataset.queries, dataset.documents, nobody), show=False)


def test_filters_that_remove_rows_are_refused():
    from rivals.data import Transform

    class Cut(Transform):
        def __call__(self, run):
            return run.top(1)

    source, dataset = toy()
    with pytest.raises(RivalsError, match="filters mark candidates and remove none"):
        mine_hard_negatives(source, dataset, filters=Cut(), show=False)


# ------------------------------------------------------------------------------------------------------------- files


def test_training_files(tmp_path):
    source, dataset = toy()
    mined = mine_hard_negatives(
        source, dataset, filters=PositiveAware(max_score=0.4), sampler=Top(8), top_k=35, show=False
    )
    per_query = mined.draw.mask.sum(1)
    assert 0 < (per_query == 8).sum() < 30
    full = int((per_query == 8).sum())

    triples = write_triples(mined.run, mined.draw, tmp_path / "triples.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "triples.jsonl").read_text().splitlines()]
    assert (triples.rows, triples.dropped) == (len(lines), int((per_query == 0).sum()))
    assert [len(line["negatives"]) for line in lines] == per_query[per_query > 0].tolist()
    first = int(np.flatnonzero(per_query)[0])
    assert (
        lines[0]["negative_ids"] == dataset.documents.ids[mined.draw.candidate[first][mined.draw.mask[first]]].tolist()
    )
    assert lines[0]["positive"] == dataset.documents.texts[dataset.judgements.document[first]]

    tuples = write_tuples(mined.run, mined.draw, tmp_path / "tuples.parquet")
    frame = pd.read_parquet(tmp_path / "tuples.parquet")
    assert list(frame.columns) == ["anchor", "positive", *[f"negative_{i}" for i in range(1, 9)]]
    assert (tuples.rows, tuples.dropped, len(frame)) == (full, 30 - full, full)
    assert f"left out {30 - full}" in str(tuples)

    write_lists(mined.run, mined.draw, tmp_path / "lists.jsonl")
    row = json.loads((tmp_path / "lists.jsonl").read_text().splitlines()[0])
    assert row["labels"] == [1.0] + [0.0] * int(per_query[first])
    assert row["scores"][0] == pytest.approx(float(dataset_scores(source, dataset)[first]))
    assert row["scores"][1:] == sorted(row["scores"][1:], reverse=True)


def test_tuples_load_where_they_are_meant_to(tmp_path):
    datasets = pytest.importorskip("datasets")
    source, dataset = toy()
    mined = mine_hard_negatives(source, dataset, sampler=Top(2), show=False)
    for kind, name in (("json", "t.jsonl"), ("parquet", "t.parquet")):
        write_tuples(mined.run, mined.draw, tmp_path / name)
        loaded = datasets.load_dataset(kind, data_files=str(tmp_path / name), cache_dir=str(tmp_path / "cache"))[
            "train"
        ]
        assert loaded.column_names == ["anchor", "positive", "negative_1", "negative_2"]
        assert len(loaded) == 30


def test_files_refuse_what_they_cannot_hold(tmp_path):
    source, dataset = toy()
    mined = mine_hard_negatives(source, dataset, show=False)
    with pytest.raises(RivalsError, match=r"\.jsonl or \.parquet"):
        write_tuples(mined.run, mined.draw, tmp_path / "x.csv")
    with pytest.raises(RivalsError, match="the run it was drawn from"):
        write_triples(mined.run.take([0]), mined.draw, tmp_path / "x.jsonl")
    save_run(mined.run, tmp_path / "run.parquet")
    with pytest.raises(RivalsError, match="no document has the id"):
        load_run(tmp_path / "run.parquet", dataset.queries, dataset.documents.take(range(5)))
    (tmp_path / "run.parquet").write_bytes((tmp_path / "run.parquet").read_bytes()[:500])
    with pytest.raises(RivalsError, match="damaged or truncated"):
        load_run(tmp_path / "run.parquet", dataset.queries, dataset.documents)
    with pytest.raises(RivalsError, match="no such file"):
        load_run(tmp_path / "other.parquet", dataset.queries, dataset.documents)


# -------------------------------------------------------------------------------------- planted false negatives


def test_positive_aware_mines_fewer_planted_false_negatives(shared_data: Path):
    """Questions with several accepted answers, one of them labelled: the others are planted false negatives."""
    from rivals.retrieve import BM25

    pairs = pd.read_parquet(shared_data / "medquad" / "qa.parquet", columns=["question", "answer_id", "focus"])
    pairs = pairs.drop_duplicates(["question", "answer_id"])
    several = pairs[pairs.groupby("question").answer_id.transform("size") > 1]
    focus = pairs[pairs.focus.isin(set(several.focus))]  # the other sections on the same diseases make the corpus hard
    texts = pd.read_parquet(shared_data / "medquad" / "answers.parquet").set_index("answer_id").text
    ids = sorted(set(focus.answer_id))
    documents = Collection(ids, [" ".join(texts[i].split()[:100]) for i in ids])
    asked = sorted(set(several.question))[::2]
    accepted = several.groupby("question").answer_id.apply(lambda column: documents.rows(sorted(column)))
    labelled = np.array([int(np.random.default_rng(row).choice(accepted[q])) for row, q in enumerate(asked)])
    queries = Collection([f"q{i}" for i in range(len(asked))], asked, name="query")
    one = Judgements.build(np.arange(len(asked)), labelled, np.ones(len(asked)), queries=len(asked), documents=len(ids))
    assert len(asked) > 400
    dataset = Dataset(queries, documents, one)

    def planted(**options) -> float:
        draw = mine_hard_negatives(BM25(documents), dataset, sampler=Top(4), show=False, **options).draw
        hits = [
            np.isin(row[mask], accepted[q]).sum() for q, row, mask in zip(asked, draw.candidate, draw.mask, strict=True)
        ]
        return float(sum(hits) / draw.mask.sum())

    naive = planted(filters=())
    assert naive > 0.05
    assert planted(filters=PositiveAware(relative=0.05)) < 0.6 * naive
    assert planted(filters=PositiveAware(relative=0.20)) < 0.5 * naive
