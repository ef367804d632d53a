"""Clusters in mining (papers 85 and 49): candidates near a query's clusters, suspects and weights."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from rivals.data import Collection
from rivals.errors import RivalsError
from rivals.negatives import KnownPositives, Top
from rivals.negatives.centers import Clusters
from rivals.negatives.clusters import ClusterSource, ClusterWeight, SameCluster
from rivals.retrieve import BM25
from tests.negatives.given_vectors import searched


def made(seed: int = 0, queries: int = 9, documents: int = 80, number: int = 7):
    generator = np.random.default_rng(seed)
    positives = [sorted(generator.choice(documents, 2, replace=False).tolist()) for _ in range(queries)]
    dense, dataset = searched(generator.normal(size=(queries, 5)), generator.normal(size=(documents, 5)), positives)
    return dense, dataset, Clusters.fit(dense.vectors, number, seed=seed, show=False)


def near(dense, dataset, clusters, query: int) -> list[int]:
    vectors = dense.query_vectors(dataset.queries)
    return np.argsort(-(vectors[query] @ clusters.centers.T), kind="stable").tolist()


@pytest.mark.parametrize(("skip", "exclude"), [(0, False), (1, False), (2, True), (0, True)])
def test_candidates_against_the_rule(skip, exclude):
    dense, dataset, clusters = made()
    source = ClusterSource(dense, clusters, nearest=2, skip=skip, exclude_positives=exclude)
    run = source(dataset, 6)
    for query in range(9):
        order = near(dense, dataset, clusters, query)[skip:]
        known = dataset.judgements.document[dataset.judgements.offsets[query] : dataset.judgements.offsets[query + 1]]
        if exclude:
            order = [c for c in order if c not in set(clusters.labels[known].tolist())]
        pool = np.flatnonzero(np.isin(clusters.labels, order[:2]))
        score = dense.score(dataset.queries, np.full(len(pool), query), pool)
        wanted = pool[np.argsort(-score, kind="stable")[:6]].tolist()
        rows = slice(run.offsets[query], run.offsets[query + 1])
        assert run.document[rows].tolist() == wanted
        assert run.score[rows] == pytest.approx(np.sort(score)[::-1][:6], abs=1e-6)
    assert (run.scorer, run.score_kind) == ("clusters", "cosine")
    assert run.positive.tolist() == dataset.judgements.document.tolist()
    assert np.isfinite(run.positive_score).all()


def test_all_clusters_are_plain_retrieval():
    """Check 2 of paper 49: nearest = clusters gives every document."""
    dense, dataset, clusters = made(1)
    source = ClusterSource(dense, clusters, nearest=7)
    assert source(dataset, 12).document.tolist() == dense(dataset, 12).document.tolist()
    whole = ClusterSource(dense, clusters, nearest=7, choose="random")(dataset.queries, 80)
    assert np.diff(whole.offsets).tolist() == [80] * 9


def test_random_choice_is_uniform_over_the_pool():
    """Check 3 of paper 49."""
    dense, dataset, clusters = made(2, queries=1)
    pool = np.flatnonzero(np.isin(clusters.labels, near(dense, dataset, clusters, 0)[:2]))
    counts: Counter[int] = Counter()
    for seed in range(600):
        run = ClusterSource(dense, clusters, nearest=2, choose="random", seed=seed)(dataset.queries, 3)
        assert len(set(run.document.tolist())) == 3
        counts.update(run.document.tolist())
    assert sorted(counts) == pool.tolist()
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_draws_depend_on_seed_epoch_and_id_alone(monkeypatch):
    dense, dataset, clusters = made(3, queries=20)
    source = ClusterSource(dense, clusters, choose="random", seed=1)
    run, rows = source(dataset, 4), np.array([13, 2])
    part = source(dataset.take(rows), 4)
    assert part.document.tolist() == run.take(rows).document.tolist()
    other = ClusterSource(dense, clusters, choose="random", seed=1, epoch=1)(dataset, 4)
    assert other.document.tolist() != run.document.tolist()
    hard = ClusterSource(dense, clusters)(dataset, 4)
    monkeypatch.setattr("rivals.negatives.clusters._PAIRS", 30)
    assert source(dataset, 4).document.tolist() == run.document.tolist()
    assert ClusterSource(dense, clusters)(dataset, 4).document.tolist() == hard.document.tolist()


def test_works_in_pipelines():
    dense, dataset, clusters = made(4)
    source = ClusterSource(dense, clusters, skip=1)
    bm25 = BM25(dense.documents, threads=1)
    pipeline = (bm25 | source) >> KnownPositives() >> SameCluster(clusters) >> Top(2)
    drawn = pipeline(dataset, 10)
    assert np.diff(drawn.offsets).max() == 2
    own = [set(clusters.labels[dataset.judgements.document[2 * q : 2 * q + 2]].tolist()) for q in range(9)]
    assert all(clusters.labels[d] not in own[q] for q, d in zip(drawn.query, drawn.document, strict=True))
    assert (bm25 | source)(dataset, 5).sources == ("bm25", "clusters")
    assert repr(source) == "ClusterSource(dense, Clusters(7 of 80 rows), nearest=3, skip=1)"
    nothing = source(dataset.take(np.zeros(0, np.int64)), 3)
    assert len(nothing) == 0


# -------------------------------------------------------------------------------------------------------- suspects


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 500), st.sampled_from(["positive", "query"]))
def test_suspects_against_the_rule_and_the_laws(seed, of):
    dense, dataset, clusters = made(seed % 5, number=3 + seed % 4)
    run = dense(dataset, 15)
    rule = SameCluster(clusters, of=of, source=dense)
    marked = rule(run)
    reason = f"same cluster as the {of}"
    known = ~KnownPositives()(run).keep
    for row in range(len(run)):
        query = int(run.query[row])
        if of == "query":
            own = {near(dense, dataset, clusters, query)[0]}
        else:
            own = set(clusters.labels[dataset.judgements.document[2 * query : 2 * query + 2]].tolist())
        expected = int(clusters.labels[run.document[row]]) in own and not known[row]
        assert (reason in marked.reasons_of(row)) == expected
    twice, other = rule(marked), KnownPositives()(run)
    assert np.array_equal(twice.keep, marked.keep)
    assert np.array_equal(rule(other).keep, KnownPositives()(marked).keep)
    part = rule(dense(dataset.take([4, 1]), 15))
    assert np.array_equal(part.keep, marked.take([4, 1]).keep)


def test_weights_by_the_place_of_the_cluster():
    documents = np.array([[1.0, 0.0], [0.99, 0.1], [0.6, 0.8], [0.55, 0.85], [-1.0, 0.0]])
    dense, dataset = searched(np.array([[1.0, 0.05]]), documents, [[0]])
    clusters = Clusters.given([0, 0, 1, 1, 2], vectors=documents, spherical=True)
    run = dense(dataset, 5)
    for of in ("positive", "query"):
        rule = ClusterWeight(clusters, dense, same=0.25, hard=2.0, rest=0.5, of=of)
        weighed = rule(run)
        own = {int(d): float(w) for d, w in zip(weighed.document, weighed.weight, strict=True)}
        assert own == {0: 1.0, 1: 0.25, 2: 2.0, 3: 2.0, 4: 0.5}  # the known positive keeps its weight
        assert weighed.keep.all()
        assert np.array_equal(rule(weighed).weight, weighed.weight)


def test_the_least_distant_relation_counts():
    """Two positives in two clusters: both are own ones; a cluster that is second to one and own to the other is own."""
    documents = np.array([[1.0, 0.0], [0.6, 0.8], [0.7, 0.75], [0.0, 1.0], [-1.0, 0.0]])
    dense, dataset = searched(np.array([[1.0, 0.0]]), documents, [[0, 1]])
    clusters = Clusters.given([0, 1, 1, 2, 3], vectors=documents, spherical=True)
    run = dense(dataset, 5)
    place = dict(zip(run.document.tolist(), ClusterWeight(clusters, dense).place(run).tolist(), strict=True))
    assert place == {0: 0, 1: 0, 2: 0, 3: 1, 4: 2}


def test_bad_input():
    dense, dataset, clusters = made()
    other = Clusters.given([0, 1], centers=np.eye(5)[:2])
    run = dense(dataset, 3)
    bm25 = BM25(Collection(["a"], ["a text"]), threads=1)
    for call, message in (
        (lambda: ClusterSource(bm25, clusters), "BM25 is no retriever with vectors"),
        (lambda: ClusterSource(dense, other), "the clusters are of 2 rows, but there are 80 documents"),
        (lambda: ClusterSource(dense, clusters, nearest=0), "nearest must be 1 or more"),
        (lambda: ClusterSource(dense, clusters, nearest=4, skip=4), "both together at most 7"),
        (lambda: ClusterSource(dense, clusters, choose="top"), "choose must be"),  # type: ignore[arg-type]
        (lambda: ClusterSource(dense, clusters, seed=-1), "seed and epoch"),
        (
            lambda: ClusterSource(dense, clusters, exclude_positives=True)(dataset.queries, 3),
            "call the source with a dataset",
        ),
        (lambda: ClusterSource(dense, clusters, exclude_positives=True)(dataset, 0), "k must be at least 1"),
        (lambda: SameCluster(clusters, of="document"), "of must be"),  # type: ignore[arg-type]
        (lambda: SameCluster(clusters, of="query"), "needs a source of query vectors"),
        (lambda: SameCluster(other)(run), "the clusters are of 2 rows"),
        (lambda: ClusterWeight(clusters, dense, hard=-1.0), "hard must be a finite weight"),
        (lambda: ClusterWeight(Clusters.given([0], centers=[[1.0]]), dense), "need 2 clusters or more"),
        (lambda: ClusterWeight(other, dense)(run), "the clusters are of 2 rows"),
    ):
        with pytest.raises(RivalsError, match=message):
            call()
