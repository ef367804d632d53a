"""Rivals of queries, and groups of them made anew in every epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Judgements
from rivals.errors import RivalsError
from rivals.negatives.batching import grouped_order, rival_queries


def test_rivals_are_owners_of_usable_candidates_hardest_first(make_data, make_mined) -> None:
    data = make_data([[0], [1], [2, 1]], 4)
    run = make_mined(data, [[2, 1, 3], [0, 2], [3]])
    offsets, rivals = rival_queries(run, data.judgements.positives)
    assert offsets.tolist() == [0, 3, 5, 5]
    assert rivals.tolist() == [2, 1, 2, 0, 2]
    assert rival_queries(run, data.judgements.positives, depth=1)[1].tolist() == [2, 0]
    assert rival_queries(run, data.judgements.positives, depth=1, skip=1)[1].tolist() == [1, 2, 2]
    marked = run.mark(run.document == 2, "a rule")
    assert rival_queries(marked, data.judgements.positives)[1].tolist() == [1, 2, 0]
    with pytest.raises(RivalsError, match="depth must be 1 or more and skip 0 or more"):
        rival_queries(run, data.judgements, depth=0)
    with pytest.raises(RivalsError, match="align them first"):
        rival_queries(run, Judgements.build([0], [0], [1], queries=1, documents=4))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(0, 999))
def test_groups_are_greedy_and_complete(queries: int, size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, 4, queries)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rivals = generator.integers(0, queries, offsets[-1])
    order = generator.permutation(queries)[: generator.integers(1, queries + 1)]
    placed: set[int] = set()
    groups = []
    for query in order.tolist():
        if query in placed:
            continue
        group = [query]
        placed.add(query)
        for rival in rivals[offsets[query] : offsets[query + 1]].tolist():
            if len(group) < size and rival in order and rival not in placed:
                group.append(rival)
                placed.add(rival)
        groups.append(group)
    arranged = grouped_order(order, offsets, rivals, size, np.random.default_rng(1))
    assert sorted(arranged.tolist()) == sorted(order.tolist())
    found, start = [], 0
    while start < len(arranged):
        group = next(g for g in groups if int(arranged[start]) in g)
        found.append(sorted(group))
        assert sorted(arranged[start : start + len(group)].tolist()) == sorted(group)
        start += len(group)
    assert sorted(found) == sorted(sorted(group) for group in groups)
