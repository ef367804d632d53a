"""Random datasets and runs for round-trip tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from rivals import lists
from rivals.data import Collection, Dataset, Judgements, Run

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=30).filter(
    lambda text: not text.isspace()
)
PLAIN_TEXT = TEXT.map(lambda text: " ".join(text.split())).filter(bool)
ANY_ID = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8).filter(
    lambda i: not i.isspace()
)
WORD_ID = st.text(st.characters(categories=("L", "N", "P", "S"), exclude_characters="\"'"), min_size=1, max_size=8)


GRADES = st.integers(-2, 3)


@st.composite
def datasets(draw: Any, ids: Any = ANY_ID, text: Any = TEXT, relevance: Any = GRADES, loose: bool = True) -> Dataset:
    """A dataset with splits; with `loose`, some queries are in no split and some are not judged."""
    query_ids, document_ids = (draw(st.lists(ids, min_size=1, max_size=6, unique=True)) for _ in range(2))
    titles = draw(st.none() | st.lists(st.just("") | text, min_size=len(document_ids), max_size=len(document_ids)))
    size = len(document_ids)
    extra = {"year": draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=size, max_size=size))}
    columns: dict[str, Any] = ({"title": titles} if titles and any(titles) else {}) | extra
    documents = Collection(document_ids, draw(st.lists(text, min_size=size, max_size=size)), columns)
    count = len(query_ids)
    queries = Collection(query_ids, draw(st.lists(text, min_size=count, max_size=count)), name="query")
    first = [] if loose else [(q, 0) for q in range(count)]
    pairs = {*first, *draw(st.sets(st.tuples(st.integers(0, count - 1), st.integers(0, size - 1)), max_size=12))}
    grades = draw(st.lists(relevance, min_size=len(pairs), max_size=len(pairs)))
    rows = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    judgements = Judgements.build(rows[:, 0], rows[:, 1], grades, queries=count, documents=size)
    names = ["train", "dev", "test", "fold 4", *([None] if loose else [])]
    split = draw(st.lists(st.sampled_from(names), min_size=count, max_size=count))
    splits = {name: np.flatnonzero([s == name for s in split]) for name in names if name in split and name is not None}
    return Dataset(queries, documents, judgements, splits)


@st.composite
def runs(draw: Any, ids: Any = ANY_ID) -> Run:
    """A run with every column set, features, positives, ties and queries without candidates."""
    query_ids, document_ids = (draw(st.lists(ids, min_size=1, max_size=6, unique=True)) for _ in range(2))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    q, d = len(query_ids), len(document_ids)
    chosen, known = (generator.random((q, d)) < share for share in (0.5, 0.2))
    n = int(chosen.sum())
    score = generator.choice(np.array([0.1, 0.3, -7.25, 1e-30, 3e30], np.float32), n)
    gaps = np.where(generator.random(n) < 0.3, np.nan, generator.random(n))
    run = Run.build(
        Collection(query_ids, name="query"),
        Collection(document_ids),
        lists.offsets_from_lengths(chosen.sum(1)),
        np.nonzero(chosen)[1],
        score,
        source=generator.integers(0, 2, n),
        features={"bm25": gaps, "dense x": generator.normal(size=n)},
        positives=(lists.offsets_from_lengths(known.sum(1)), np.nonzero(known)[1]),
        positive_score=np.where(generator.random(int(known.sum())) < 0.5, np.nan, 1.5),
        sources=("one", "two"),
        scorer="mixed",
        score_kind="cosine",
        seed=3,
        columns={
            "weight": generator.random(n),
            "label": generator.integers(-1, 2, n),
            "target": gaps,
            "fn_probability": gaps,
        },
    )
    run = run.mark(generator.random(n) < 0.3, "near").mark(generator.random(n) < 0.3, "judged", keep=True)
    return run.replace(version=2, built_from="checkpoint-7", created_step=11)
