"""Batches of whole clusters, and the negatives drawn for a batch as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Dataset, Judgements
from rivals.errors import RivalsError
from rivals.negatives.batching import (
    BatchShared,
    Clustered,
    Examples,
    Shuffled,
    build_hard_graph,
    edges_within,
    hardness_share,
    partition,
    ranked_targets,
)


def pairs(count: int) -> Examples:
    judged = Judgements.build(np.arange(count), np.arange(count), np.ones(count), queries=count, documents=count)
    names = Collection([f"q{i}" for i in range(count)], name="query"), Collection([f"d{i}" for i in range(count)])
    return Examples(Dataset(*names, judged))


def test_every_epoch_has_whole_clusters_once() -> None:
    """Check 5."""
    clusters = np.random.default_rng(0).permutation(48) // 4
    batcher = Clustered(pairs(48), clusters, 16)
    seen = []
    for epoch in range(4):
        batcher.set_epoch(epoch)
        batches = [batch.anchor for batch in batcher]
        assert [len(rows) for rows in batches] == [16, 16, 16]
        assert sorted(np.concatenate(batches).tolist()) == list(range(48))
        for rows in batches:
            assert set(np.bincount(clusters[rows], minlength=12).tolist()) == {0, 4}
        seen.append(np.concatenate(batches).tolist())
    assert len({tuple(rows) for rows in seen}) == 4


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(2, 6), st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_remainders(count: int, size: int, times: int, drop_last: bool, seed: int) -> None:
    if count < size:
        return
    clusters = np.random.default_rng(seed).permutation(count) // size
    batcher = Clustered(pairs(count), clusters, size * times, seed=seed, drop_last=drop_last)
    plan = batcher.plan(seed)
    assert sorted([*plan.rows.tolist(), *plan.left.tolist()]) == list(range(count))
    lengths = np.diff(plan.offsets)
    if drop_last:
        assert (lengths == size * times).all()
        assert len(plan.left) < size * times
    else:
        assert len(plan.left) == 0
        assert (lengths[:-1] == size * times).all()
    broken = 0  # clusters that are not whole in a batch
    for start, stop in zip(plan.offsets[:-1], plan.offsets[1:], strict=True):
        inside = np.bincount(clusters[plan.rows[start:stop]], minlength=clusters.max() + 1)
        broken += int(((inside > 0) & (inside < np.bincount(clusters))).sum())
    assert broken <= 2


def test_the_remainder_is_not_always_the_same() -> None:
    batcher = Clustered(pairs(22), np.arange(22) // 4, 4)
    left = set()
    for epoch in range(40):
        left |= set(batcher.plan(epoch).left.tolist())
        assert len(batcher.plan(epoch).left) == 2
    assert len(left) > 12
    assert not left & {20, 21}  # the small cluster itself is always filled up


def test_clusters_of_hard_negatives_give_harder_batches() -> None:
    generator = np.random.default_rng(0)
    middle = generator.normal(size=(40, 16))
    targets = (middle[generator.integers(0, 40, 800)] + 0.7 * generator.normal(size=(800, 16))).astype(np.float32)
    queries = targets + 0.4 * generator.normal(size=targets.shape).astype(np.float32)
    graph = build_hard_graph((queries, targets), skip=2, width=12)
    examples = pairs(800)
    clustered = Clustered(examples, partition(graph, 8), 16).plan(0)
    shuffled = Shuffled(examples, 16).plan(0)
    edges, hardness = (
        [measure(what, plan.rows, plan.offsets).mean() for plan in (clustered, shuffled)]
        for measure, what in ((edges_within, graph), (hardness_share, (queries, targets)))
    )
    assert edges[0] > 10 * edges[1]
    assert hardness[0] > 2 * hardness[1]


def test_bad_clusters() -> None:
    examples = pairs(8)
    for clusters, size, said in (
        ([0, 1], 2, r"clusters have shape \(2,\) for 8 examples"),
        (np.arange(8), 2, "all clusters have one example"),
        ([0, 0, 0, 0, 1, 1, 2, 2], 4, "clusters have from 2 to 4 examples; all but one"),
        (np.arange(8) // 4, 6, "clusters of 4 do not fill batches of 6"),
    ):
        with pytest.raises(RivalsError, match=said):
            Clustered(examples, clusters, size)
    with pytest.raises(RivalsError, match=r"BatchShared\(1 lists, h=5\) for 8 examples"):
        Clustered(examples, np.arange(8) // 2, 4, shared=BatchShared([0, 1], [0]))
    state = Clustered(examples, np.arange(8) // 2, 4).state_dict()
    with pytest.raises(RivalsError, match="with clusters="):
        Clustered(examples, np.arange(8) % 4, 4).load_state_dict(state)


# -------------------------------------------------------------------------------------------------------------- shared


def test_the_shared_distribution_by_hand() -> None:
    """Check 6."""
    shared = BatchShared([0, 2, 4, 5], [5, 6, 6, 7, 9])
    assert shared.probabilities([0, 1])[5:].tolist() == [0.25, 0.5, 0.25, 0, 0]
    assert shared.probabilities([0, 1], exclude=[6])[5:8].tolist() == [0.5, 0, 0.5]
    assert shared.probabilities([2], exclude=[9]).sum() == 0


def test_first_draws_follow_the_shared_distribution() -> None:
    shared = BatchShared([0, 2, 4], [0, 1, 1, 2], h=1)
    generator = np.random.default_rng(0)
    keys = np.zeros(3)
    times = 4000
    for _ in range(times):
        drawn = shared.draw([0], generator)  # one document for one example: S_0 = {0, 1}
        keys[drawn] += 1
    assert keys / times == pytest.approx([0.5, 0.5, 0], abs=4 * 0.5 / times**0.5)
    counts = np.zeros(3)
    one = BatchShared([0, 4], [0, 1, 1, 2], h=1)
    for _ in range(times):
        counts[one.draw([0], generator)] += 1
    assert counts / times == pytest.approx([0.25, 0.5, 0.25], abs=4 * 0.5 / times**0.5)


def test_all_that_are_drawn_are_different_and_columns_for_everyone() -> None:
    examples = pairs(12)
    scores = -np.abs(np.arange(12)[:, None] - np.arange(12)[None, :])
    offsets, rows = ranked_targets(scores, skip=1, width=3)
    shared = BatchShared(offsets, rows, h=2, documents=12)
    batcher = Clustered(examples, np.arange(12) // 2, 4, shared=shared)
    for batch in batcher:
        extra = batch.columns[~np.isin(batch.columns, batch.anchor)]
        assert len(set(batch.columns.tolist())) == len(batch.columns)
        allowed = set(np.flatnonzero(shared.probabilities(batch.anchor)).tolist())
        assert set(extra.tolist()) <= allowed
        assert batch.mask.all()
        assert len(extra) == min(8, len(allowed - set(batch.anchor.tolist())))


def test_of_a_run(make_data, make_mined) -> None:
    data = make_data([[0], [1], [2]], 5)
    run = make_mined(data, [[1, 2, 3], [2, 3, 4], [4]])
    run = run.mark(run.document == 2, "a rule")
    shared = BatchShared.of_run(run, [0, 2, 0])
    assert len(shared) == 3
    assert shared.probabilities([0, 1]).tolist() == pytest.approx([0, 1 / 3, 0, 1 / 3, 1 / 3])
    assert shared.probabilities([0, 2])[[1, 3]].tolist() == [0.5, 0.5]
    assert BatchShared.of_run(run, skip=1, width=1).probabilities([0, 1, 2]).tolist() == [0, 0, 0, 0.5, 0.5]


def test_bad_lists(make_data, make_mined) -> None:
    for make, said in (
        (lambda: BatchShared([0, 1], [0, 1]), "end at 2"),
        (lambda: BatchShared([0, 1], [-1]), "rows -1 to"),
        (lambda: BatchShared([0, 1], [5], documents=3), "rows 0 to 5 of 3"),
        (lambda: BatchShared([0, 1], [0], h=0), "h must be"),
        (lambda: BatchShared.of_run(make_mined(make_data([[0]]), [[0]]), skip=-1), "skip must be 0 or more"),
    ):
        with pytest.raises(RivalsError, match=said):
            make()
