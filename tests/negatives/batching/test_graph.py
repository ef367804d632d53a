"""The graph of hard negatives: the card's checks, the definition in plain Python, vectors against score matrices."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals import lists
from rivals.data import Judgements
from rivals.errors import RivalsError
from rivals.negatives.batching import (
    build_hard_graph,
    cut_edges,
    edges_within,
    hardness_share,
    ranked_targets,
    rival_graph,
)
from rivals.negatives.batching.graph import adjacency, symmetric_graph

RANKS = -np.array(
    [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]
)  # R_0 = (0, 1, 2, 3), R_1 = (1, 0, 3, 2), ...


def edges(graph: object) -> set[tuple[int, int]]:
    indptr, indices = adjacency(graph)
    owner = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    return {(int(i), int(j)) for i, j in zip(owner, indices, strict=True) if i < j}


def by_definition(
    scores: np.ndarray, skip: int, width: int, group: np.ndarray, identity: np.ndarray | None, mutual: bool
) -> set[tuple[int, int]]:
    """Edges from the definition, example by example."""
    near: list[set[int]] = []
    for i in range(len(scores)):
        ranked = sorted((j for j in range(len(scores)) if group[j] == group[i]), key=lambda j: (-scores[i, j], j))
        if identity is not None:
            ranked = [j for j in ranked if identity[j] != identity[i]]
        near.append(set(ranked[skip : skip + width]))
    both = all if mutual else any
    return {(i, j) for i in range(len(scores)) for j in range(i + 1, len(scores)) if both((j in near[i], i in near[j]))}


def test_by_hand() -> None:
    """Check 1."""
    offsets, rows = ranked_targets(RANKS, skip=1, width=1)
    assert lists.pad(rows, offsets, fill=-1).tolist() == [[1], [0], [3], [2]]
    graph = build_hard_graph(RANKS, skip=1, width=1)
    assert edges(graph) == {(0, 1), (2, 3)}
    assert cut_edges(graph, [0, 0, 1, 1]) == 0
    assert cut_edges(graph, [0, 1, 0, 1]) == 2


def test_the_first_rank_is_the_own_target() -> None:
    """Check 2."""
    assert ranked_targets(RANKS, skip=0, width=1)[1].tolist() == [0, 1, 2, 3]
    assert build_hard_graph(RANKS, skip=0, width=1).nnz == 0


def test_links_in_one_direction() -> None:
    """Check 3: 0 -> 1 and 1 -> 2 only."""
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [2.0, 1.0, 3.0]])
    assert edges(build_hard_graph(scores, skip=1, width=1)) == set()
    assert edges(build_hard_graph(scores, skip=1, width=1, mutual=False)) == {(0, 1), (1, 2), (0, 2)}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 14), st.integers(0, 4), st.integers(1, 8), st.booleans(), st.booleans(), st.integers(0, 999))
def test_against_the_definition(size: int, skip: int, width: int, mutual: bool, labelled: bool, seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 6, (size, size)).astype(float)  # with ties
    group = generator.integers(0, 2, size)
    identity = generator.integers(0, 4, size) if labelled else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = build_hard_graph(scores, skip=skip, width=width, group=group, identity=identity, mutual=mutual)
    assert edges(graph) == by_definition(scores, skip, width, group, identity, mutual)


@pytest.mark.parametrize("block", [7, 8192])
def test_vectors_give_what_their_scores_give(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rivals.negatives.batching.graph._BLOCK", block)
    generator = np.random.default_rng(0)
    targets = generator.normal(size=(60, 16)).astype(np.float32)
    queries = targets + generator.normal(size=(60, 16)).astype(np.float32)
    group, identity = generator.integers(0, 3, 60), generator.integers(0, 30, 60)
    options = {"skip": 2, "width": 6, "group": group, "identity": identity}
    by_vectors = build_hard_graph((queries, targets), **options)
    assert by_vectors.nnz > 0
    assert edges(by_vectors) == edges(build_hard_graph(queries.astype(float) @ targets.T.astype(float), **options))


def test_classes_need_no_skip() -> None:
    """Targets of the same class are left out of the ranking; the next ones count."""
    scores = np.array([[9.0, 8.0, 7.0, 1.0], [8.0, 9.0, 1.0, 7.0], [7.0, 1.0, 9.0, 8.0], [1.0, 7.0, 8.0, 9.0]])
    assert edges(build_hard_graph(scores, skip=0, width=1, identity=["a", "a", "b", "b"])) == {(0, 2), (1, 3)}


def test_windows_beyond_the_examples_are_cut_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"ranks 1 to 101 go beyond the 4 examples"):
        graph = build_hard_graph(RANKS, skip=1)
    assert len(edges(graph)) == 6


def test_no_example_at_all() -> None:
    nothing = np.zeros((0, 4), np.float32)
    assert build_hard_graph((nothing, nothing)).shape == (0, 0)
    assert build_hard_graph(np.zeros((0, 0))).shape == (0, 0)


def test_the_graph_of_a_run(make_data, make_mined) -> None:
    data = make_data([[0], [1], [2]], 4)
    run = make_mined(data, [[1, 0, 2], [3, 0], [1]])
    assert edges(rival_graph(run, data.judgements.positives)) == {(0, 1)}
    assert edges(rival_graph(run, data.judgements.positives, mutual=False)) == {(0, 1), (0, 2), (1, 2)}
    assert edges(rival_graph(run, data.judgements.positives, skip=1)) == set()
    doubted = run.mark(run.document == 1, "a rule")
    assert edges(rival_graph(doubted, data.judgements.positives)) == set()


def test_edges_within_batches() -> None:
    graph = symmetric_graph(np.array([0, 2, 3, 3, 3]), np.array([1, 2, 2]), mutual=False)  # a triangle and a node
    assert edges_within(graph, np.array([3, 0, 1, 2]), np.array([0, 3, 4])).tolist() == [0, 1, 1, 0]
    assert cut_edges(graph, [0, 0, 0, 1]) == 0
    assert cut_edges(graph, [-1, 0, 0, 1]) == 2


@pytest.mark.parametrize("top", [1, 3, 50])
def test_hardness_of_batches_in_plain_python(top: int) -> None:
    generator = np.random.default_rng(2)
    targets = generator.normal(size=(20, 4)).astype(np.float32)
    queries = generator.normal(size=(20, 4)).astype(np.float32)
    scores = queries.astype(float) @ targets.T.astype(float)
    rows, offsets = generator.permutation(20)[:13], np.array([0, 6, 12, 13])
    found = hardness_share((queries, targets), rows, offsets, top=top, temperature=0.5)
    assert found == pytest.approx(hardness_share(scores, rows, offsets, top=top, temperature=0.5), rel=1e-4)
    for start, stop in pairwise(offsets):
        batch = rows[start:stop].tolist()
        for place, i in enumerate(batch, start):
            inside = sorted((np.exp(scores[i, j] / 0.5) for j in batch if j != i), reverse=True)[:top]
            outside = sorted((np.exp(scores[i, j] / 0.5) for j in range(20) if j != i), reverse=True)[:top]
            assert found[place] == pytest.approx(sum(inside) / sum(outside), rel=1e-4)
    with pytest.raises(RivalsError, match="top must be 1 or more and temperature above 0"):
        hardness_share(scores, rows, offsets, top=0)


def test_bad_input() -> None:
    vectors = np.zeros((3, 2), np.float32)
    for teacher, said in (
        (np.zeros((3, 2)), "square matrix"),
        ((vectors, vectors[:2]), "one pair an example"),
        (np.full((2, 2), np.nan), "example 0 .counted from 0. are not all finite"),
        ((vectors, np.full((3, 2), np.inf, np.float32)), "row 0"),
    ):
        with pytest.raises(RivalsError, match=said):
            build_hard_graph(teacher, skip=0, width=1)
    for options, said in (
        ({"skip": -1}, "skip must be a whole number"),
        ({"width": 0}, "width must be a whole number"),
        ({"width": 1.5}, "width must be a whole number"),
        ({"group": [0, 1]}, r"group has shape \(2,\) for 4 examples"),
        ({"identity": [0]}, r"identity has shape \(1,\)"),
    ):
        with pytest.raises(RivalsError, match=said):
            build_hard_graph(RANKS, **{"skip": 0, "width": 1} | options)
    one_way = symmetric_graph(np.array([0, 1, 1]), np.array([1]), mutual=False)
    one_way.data[0] = False
    one_way.eliminate_zeros()
    with pytest.raises(RivalsError, match="one direction only"):
        cut_edges(one_way, [0, 0])
    with pytest.raises(RivalsError, match="every node needs one"):
        cut_edges(build_hard_graph(RANKS, skip=1, width=1), [0, 1])
    with pytest.raises(RivalsError, match="square sparse matrix"):
        cut_edges(np.zeros((2, 2)), [0, 1])


def test_runs_and_judgements_must_fit(make_data, make_mined) -> None:
    data = make_data([[0], [1]])
    other = Judgements.build([0], [0], [1], queries=1, documents=2)
    with pytest.raises(RivalsError, match="the run has 2 queries, the judgements 1"):
        rival_graph(make_mined(data, [[1], [0]]), other)
