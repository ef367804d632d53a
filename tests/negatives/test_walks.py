"""Walks through citations (paper 32)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import chisquare
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from rivals.data import Collection, Dataset, Judgements
from rivals.errors import RivalsError
from rivals.negatives import LinkSource, PositiveAware, Top, mine_hard_negatives, neighbourhood, semantic_walk


def walked(query, documents, hop, paths, length, top_k, positive=()) -> tuple[list[int], list[list[float]]]:
    """The walk of the card under "most probable", step by step over the matrix of cosines."""
    unit = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    cosine, to_query = unit @ unit.T, unit @ query
    starts = sorted((i for i in range(len(unit)) if hop[i] == 1), key=lambda i: -to_query[i])[:paths]
    visited: list[int] = []
    steps = []
    for start in starts:
        if start in visited:
            continue
        visited.append(start)
        current = start
        for _ in range(length - 1):
            left = sorted((i for i in range(len(unit)) if i not in visited), key=lambda i: -cosine[current, i])[:top_k]
            if not left:
                break
            mass = np.exp([cosine[current, i] for i in left])
            steps.append(mass / mass.sum())
            current = left[0]
            visited.append(current)
    return [i for i in visited if i not in positive], steps


def test_against_the_walk() -> None:
    generator = np.random.default_rng(0)
    for _ in range(40):
        n = int(generator.integers(2, 14))
        documents, query = generator.normal(size=(n, 5)), generator.normal(size=5)
        hop = generator.integers(1, 3, n)
        hop[0] = 1
        paths, length, top_k = generator.integers(1, 5, 3).tolist()
        positive = [1] if generator.random() < 0.5 else []
        found = semantic_walk(
            query,
            documents,
            hop,
            paths=paths,
            length=length,
            top_k=top_k,
            choice="most_probable",
            positive=positive,
        )
        collected, steps = walked(query, documents, hop, paths, length, top_k, positive)
        assert found.collected == collected
        assert len(found.step_probabilities) == len(steps)
        for ours, theirs in zip(found.step_probabilities, steps, strict=True):
            assert ours == pytest.approx(theirs)


def test_greedy_needs_no_generator() -> None:
    """Check 1."""
    documents = np.random.default_rng(1).normal(size=(9, 4))
    options = {"hop": [1] * 3 + [2] * 6, "top_k": 1}
    greedy = semantic_walk(documents[0], documents, **options)
    assert greedy.collected == semantic_walk(documents[0], documents, choice="most_probable", **options).collected
    assert all(step == [1.0] for step in greedy.step_probabilities)


def test_one_step_and_the_random_one() -> None:
    """Check 2."""
    documents = np.eye(4)
    walk = semantic_walk(
        [0.1, 0.9, 0, 0],
        documents,
        [1, 1, 2, 2],
        paths=1,
        length=1,
        random_extra=1,
        generator=np.random.default_rng(0),
    )
    assert walk.collected == [1]
    assert len(walk.extra) == 1
    assert walk.extra[0] != 1


def test_probabilities_by_hand() -> None:
    """Check 3."""
    documents = np.array([[1, 0], [0.9, np.sqrt(1 - 0.81)], [0.8, -0.6]])
    walk = semantic_walk([1, 0], documents, [1, 2, 2], paths=1, length=2, choice="most_probable")
    assert walk.step_probabilities[0] == pytest.approx([0.524979, 0.475021], abs=1e-6)
    cold = semantic_walk([1, 0], documents, [1, 2, 2], paths=1, length=2, choice="most_probable", temperature=0.1)
    assert cold.step_probabilities[0][0] == pytest.approx(1 / (1 + np.exp(-1)))


def test_exhaustion() -> None:
    """Check 4."""
    documents = np.array([[1, 0.1], [0.9, 0.3], [0.2, 1]])
    generator = np.random.default_rng(0)
    walk = semantic_walk([1, 0], documents, [1, 1, 2], random_extra=1, generator=generator)
    assert sorted(walk.collected) == [0, 1, 2]
    assert walk.extra == []


def test_opposite_documents_are_reached() -> None:
    walk = semantic_walk([1.0, 0], np.array([[1.0, 0], [-1.0, 0]]), [1, 2], paths=1, length=2)
    assert walk.collected == [0, 1]


def test_draws_follow_the_probabilities() -> None:
    documents = np.random.default_rng(3).normal(size=(8, 3))
    generator = np.random.default_rng(0)
    options = {"paths": 1, "length": 2, "top_k": 4, "temperature": 0.5, "generator": generator}
    walks = [semantic_walk(documents[0], documents, [1] + [2] * 7, **options) for _ in range(2000)]
    cosine = (documents / np.linalg.norm(documents, axis=1, keepdims=True)) @ documents[0]
    best = sorted(range(1, 8), key=lambda i: -cosine[i])[:4]
    counts = [sum(walk.collected[1] == row for walk in walks) for row in best]
    assert sum(counts) == 2000
    assert chisquare(counts, 2000 * np.array(walks[0].step_probabilities[0])).pvalue > 1e-3


def test_neighbourhood() -> None:
    """Check 6: a chain, a cycle, and a document that stands in two hops."""
    cycle = ([0, 2, 3, 4, 4], [1, 3, 2, 0])
    assert [hop.tolist() for hop in neighbourhood(cycle, 0)] == [[1, 3], [2]]
    assert [hop.tolist() for hop in neighbourhood(cycle, 0, hops=1)] == [[1, 3]]
    twice = ([0, 3, 4, 4], [1, 2, 1, 2])
    assert [hop.tolist() for hop in neighbourhood(twice, 0, hops=3)] == [[1, 2], [], []]


@pytest.fixture(scope="module")
def cacm(shared_data: Path) -> tuple[Dataset, LinkSource, np.ndarray]:
    folder = shared_data / "cacm"
    corpus = pq.read_table(folder / "corpus.parquet").to_pandas()
    links = pq.read_table(folder / "links.parquet").to_pandas().query("kind == 5")
    queries = pq.read_table(folder / "queries.parquet").to_pandas()
    qrels = pq.read_table(folder / "qrels.parquet").to_pandas()
    texts = [f"{title} {text}" for title, text in zip(corpus["title"], corpus["text"], strict=True)]
    documents = Collection(corpus["doc_id"].tolist(), texts)
    asked = Collection(queries["qid"].tolist(), queries["text"].tolist(), name="query")
    words = TfidfVectorizer(sublinear_tf=True, stop_words="english").fit(texts)
    svd = TruncatedSVD(32, random_state=0)
    vectors = svd.fit_transform(words.transform(texts)) + 1e-6
    one, other = documents.rows(links["doc_id"]), documents.rows(links["other_id"])
    start, end = np.concatenate([one, other]), np.concatenate([other, one])  # stored without direction
    order = np.argsort(start, kind="stable")
    offsets = np.cumsum([0, *np.bincount(start, minlength=len(documents))])
    source = LinkSource(
        documents,
        vectors,
        (offsets, end[order]),
        lambda some: svd.transform(words.transform(some.texts)) + 1e-6,
        seed=3,
    )
    known = Judgements.build(
        asked.rows(qrels["qid"]),
        documents.rows(qrels["doc_id"]),
        np.ones(len(qrels)),
        queries=len(asked),
        documents=len(documents),
    )
    return Dataset(asked, documents, known), source, vectors


def test_walks_on_real_citations(cacm) -> None:
    """Check 5, and that blocks of queries get what the whole gets."""
    dataset, source, vectors = cacm
    run = source(dataset, 1000)
    judged = np.diff(dataset.judgements.offsets)
    assert (np.diff(run.offsets) <= judged * (3 * 3 + 1)).all()
    assert (np.diff(run.offsets)[judged == 0] == 0).all()
    assert source.unlinked >= (judged == 0).sum() > 0
    assert (np.diff(run.offsets) > 0).sum() > 40
    query = source.encode_queries(dataset.queries)
    row = int(run.query[100])
    cosine = query[row] @ vectors[run.document[100]]
    assert run.score[100] == pytest.approx(
        cosine / np.linalg.norm(query[row]) / np.linalg.norm(vectors[run.document[100]]), rel=1e-5
    )
    part = source(dataset.take(np.arange(20, 30)), 1000)
    assert part.document.tolist() == run.take(np.arange(20, 30)).document.tolist()
    assert source(dataset, 5).offsets[-1] <= 5 * len(judged)


def test_the_source_itself_is_never_met(cacm) -> None:
    dataset, source, _ = cacm
    one = dataset.take(np.flatnonzero(np.diff(dataset.judgements.offsets) == 1))
    run = source(one, 1000)
    assert not (run.document == np.repeat(one.judgements.document, np.diff(run.offsets))).any()


def test_mining_by_walks(cacm) -> None:
    dataset, source, _ = cacm
    linked = dataset.take(np.flatnonzero(np.diff(source(dataset).offsets) > 0))
    mined = mine_hard_negatives(
        source, linked, filters=PositiveAware(relative=0.05), sampler=Top(2), show=False, allow_none=True
    )
    assert mined.draw.mask.any()
    assert not (mined.run.label[mined.draw.row[mined.draw.mask]] == 1).any()


def test_bad_input() -> None:
    documents, query, hop = np.eye(3), np.ones(3), [1, 1, 2]
    for options in (
        {"paths": 0},
        {"length": 0},
        {"top_k": 0},
        {"temperature": 0},
        {"choice": "best"},
        {"random_extra": -1},
        {"random_extra": 1, "paths": 1, "length": 1},
        {"hop": [2, 2, 2]},
        {"hop": [0, 1, 1]},
        {"hop": [1, 1]},
        {"query": [1.0, 1.0]},
        {"query": np.zeros(3)},
        {"documents": documents * np.nan},
        {},
    ):
        arguments = {"query": query, "documents": documents, "hop": hop}
        with pytest.raises(RivalsError):
            semantic_walk(**(arguments | options))
    for links, source in ((([0, 1, 1], [5]), 0), (([0, 1, 1], [1]), 2), (([0, 2, 1], [1]), 0)):
        with pytest.raises(RivalsError):
            neighbourhood(links, source)
    with pytest.raises(RivalsError):
        neighbourhood(([0, 1, 1], [1]), 0, hops=0)
    two, links = Collection(["a", "b"]), ([0, 1, 1], [1])
    for vectors, given in ((np.eye(3), links), (np.eye(2), ([0, 0, 0], [])), (np.eye(2), ([0, 0], []))):
        with pytest.raises(RivalsError):
            LinkSource(two, vectors, given, len)
    with pytest.raises(RivalsError, match="with a dataset"):
        LinkSource(two, np.eye(2), links, len)(two)
