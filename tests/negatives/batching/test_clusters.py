"""Partitions: sizes, planted clusters, determinism, and that refinement never cuts more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.errors import RivalsError
from rivals.negatives.batching import PartitionReport, build_hard_graph, cut_edges, partition
from rivals.negatives.batching.graph import adjacency, symmetric_graph


def random_graph(nodes: int, links: int, seed: int, planted: int = 0) -> object:
    """Random links; with `planted`, most of them inside groups of that size, whose members are scattered."""
    generator = np.random.default_rng(seed)
    left = generator.integers(0, nodes, links)
    right = generator.integers(0, nodes, links)
    if planted:
        name = generator.permutation(nodes)
        place = np.argsort(name)
        inside = place[left] // planted * planted + generator.integers(0, planted, links)
        right = np.where(generator.random(links) < 0.8, name[np.minimum(inside, nodes - 1)], right)
    order = np.argsort(left, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(left, minlength=nodes))])
    return symmetric_graph(offsets, right[order], mutual=False)


def test_by_hand() -> None:
    """Check 1."""
    ranks = -np.array([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]])
    graph = build_hard_graph(ranks, skip=1, width=1)
    clusters = partition(graph, 2)
    assert clusters[0] == clusters[1] != clusters[2] == clusters[3]
    assert cut_edges(graph, clusters) == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [2, 5, 8])
def test_cliques_are_found(size: int, seed: int) -> None:
    """Check 4, with more than two cliques."""
    scattered = np.random.default_rng(seed).permutation(size * 4)
    clique = np.empty(size * 4, np.int64)
    clique[scattered] = np.arange(size * 4) // size
    links = [np.flatnonzero((clique == clique[i]) & (np.arange(size * 4) != i)) for i in range(size * 4)]
    graph = symmetric_graph(np.cumsum([0, *map(len, links)]), np.concatenate(links))
    clusters = partition(graph, size, seed=seed)
    assert cut_edges(graph, clusters) == 0
    assert len(set(zip(clique.tolist(), clusters.tolist(), strict=True))) == 4


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 150), st.integers(2, 9), st.integers(0, 999))
def test_sizes_determinism_and_refinement(nodes: int, links: int, size: int, seed: int) -> None:
    """Checks 7 and 8."""
    graph = random_graph(nodes, links, seed)
    clusters = partition(graph, size, seed=seed)
    counts = np.bincount(clusters)
    assert len(counts) == -(-nodes // size)
    assert (counts[:-1] == size).all()
    assert counts[-1] == (nodes % size or size)
    assert (partition(graph, size, seed=seed) == clusters).all()
    grown = partition(graph, size, seed=seed, passes=0)
    assert cut_edges(graph, clusters) <= cut_edges(graph, grown)


def test_refinement_counts_edges_right() -> None:
    """The kernel keeps counts as it swaps; more passes than it needs must leave a cut no single swap can lower."""
    graph = random_graph(40, 90, 3)
    clusters = partition(graph, 4, passes=100)
    least = cut_edges(graph, clusters)
    for u in range(40):
        for v in range(u):
            swapped = clusters.copy()
            swapped[u], swapped[v] = swapped[v], swapped[u]
            assert cut_edges(graph, swapped) >= least


def test_refinement_helps() -> None:
    graph = random_graph(960, 6000, 1, planted=32)
    assert cut_edges(graph, partition(graph, 32)) < 0.95 * cut_edges(graph, partition(graph, 32, passes=0))


def test_planted_groups_are_mostly_found() -> None:
    graph = random_graph(800, 6000, 0, planted=8)
    report = PartitionReport.of(graph, partition(graph, 8))
    truth = PartitionReport.of(graph, partition(graph, 8, start=_planted(800, 8)))
    assert report.kept > 20 * report.random
    assert report.kept > 0.9 * truth.kept


def _planted(nodes: int, size: int) -> np.ndarray:
    name = np.random.default_rng(0)
    name.integers(0, nodes, 6000)
    name.integers(0, nodes, 6000)
    return np.argsort(name.permutation(nodes)) // size


def test_clusters_of_others_are_filled_up() -> None:
    graph = random_graph(100, 400, 2, planted=10)
    communities = np.random.default_rng(0).integers(0, 3, 100)
    clusters = partition(graph, 8, start=communities)
    assert (np.bincount(clusters) == [8] * 12 + [4]).all()
    apart = symmetric_graph(np.array([0, 1, 2, 3, 4]), np.array([1, 0, 3, 2]))
    assert partition(apart, 2, start=[0, 1, 1, 0], passes=0).tolist() != partition(apart, 2, passes=0).tolist()
    assert cut_edges(apart, partition(apart, 2, start=[0, 1, 1, 0])) == 0


def test_seeds_matter() -> None:
    graph = random_graph(200, 300, 5)
    assert (partition(graph, 4, seed=0) != partition(graph, 4, seed=1)).any()


def test_the_report() -> None:
    graph = symmetric_graph(np.array([0, 1, 2, 2, 2]), np.array([1, 0]))
    report = PartitionReport.of(graph, [0, 1, 0, 1])
    assert (report.edges, report.cut, report.isolated, report.kept) == (1, 1, 2, 0.0)
    assert report.random == pytest.approx(2 / 6)
    assert "2 examples without any; 2 clusters of 2 to 2; 0.0% of the edges lie inside" in str(report)


def test_the_report_of_chance_is_right() -> None:
    graph = random_graph(120, 2000, 7)
    shares = []
    for seed in range(30):
        clusters = np.random.default_rng(seed).permutation(120) // 10
        shares.append(PartitionReport.of(graph, clusters).kept)
    spread = np.std(shares) / np.sqrt(30)
    assert np.mean(shares) == pytest.approx(PartitionReport.of(graph, np.arange(120) // 10).random, abs=4 * spread)


def test_no_node_and_no_edge() -> None:
    assert len(partition(symmetric_graph(np.zeros(1, np.int64), np.zeros(0, np.int64)), 2)) == 0
    lonely = symmetric_graph(np.zeros(6, np.int64), np.zeros(0, np.int64))
    assert np.bincount(partition(lonely, 2)).tolist() == [2, 2, 1]
    assert len(adjacency(lonely)[1]) == 0


def test_bad_input() -> None:
    graph = random_graph(10, 20, 0)
    for options, said in (
        ({"size": 1}, "size must be a whole number, 2 or more"),
        ({"passes": -1}, "passes must be"),
        ({"seed": -1}, "seed must be"),
        ({"start": [0, 1]}, r"start has shape \(2,\) for 10 nodes"),
    ):
        with pytest.raises(RivalsError, match=said):
            partition(graph, **{"size": 2} | options)
