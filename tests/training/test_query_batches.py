"""Batches of queries: always from the negatives in use, and as lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rivals.errors import RivalsError
from rivals.negatives import Strided, Top, Uniform
from rivals.negatives.batching import Batch, NoDuplicates
from rivals.training import Negatives
from rivals.training.query_batches import CandidateLists, QueryBatches
from tests.training.small_world import QUERIES, World


def batches_of(world: World, negatives: Negatives, **options: Any) -> QueryBatches:
    return QueryBatches(world.dataset, 4, negatives=negatives, **options)


def test_an_epoch_holds_every_query_once_with_a_positive_and_its_drawn_negatives() -> None:
    world = World()
    negatives = Negatives(world.run(), Uniform(3))
    batches = batches_of(world, negatives)
    for epoch in (0, 1):
        draw, seen = negatives.draw(epoch), []
        for batch in batches(epoch):
            found = CandidateLists.of(batch)
            seen += found.query.tolist()
            assert found.relevance[:, 0].tolist() == [1] * len(found.query)
            assert found.relevance[:, 1:].sum() == 0
            for row, query in enumerate(found.query):
                assert set(found.document[row, 1:].tolist()) == set(draw.candidate[query].tolist())
        assert sorted(seen) == list(range(QUERIES))
    assert batches(0)[1].anchor.tolist() == batches(0)[1:3][0].anchor.tolist() == list(batches(0))[1].anchor.tolist()
    assert batches(0)[-1].anchor.tolist() == batches(0)[len(batches(0)) - 1].anchor.tolist()


def test_new_negatives_come_into_the_same_batches_at_once() -> None:
    world = World()
    run = world.run()
    negatives = Negatives(run, Top(2))
    batches = batches_of(world, negatives)
    epoch = batches(0)
    before = epoch[0]
    flipped = run.rescored(-run.score, scorer="other")
    negatives.put(flipped, 1)
    after = batches(0)[0]
    assert after.anchor.tolist() == before.anchor.tolist()
    assert (after.relevance > 0).sum(1).tolist() == (before.relevance > 0).sum(1).tolist()
    lists = CandidateLists.of(after)
    for row, query in enumerate(lists.query):
        mine = flipped.document[(flipped.query == query) & flipped.keep]
        assert lists.document[row, 1:].tolist() == mine[:2].tolist() or set(lists.document[row, 1:]) == set(mine[:2])


def test_samplers_with_a_schedule_go_on_with_the_epochs() -> None:
    world = World()
    negatives = Negatives(world.run(), Strided(2))
    drawn = [negatives.draw(epoch).candidate for epoch in range(3)]
    assert not np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[1], negatives.draw(1).candidate)


def test_a_query_without_negatives_teaches_nothing() -> None:
    world = World()
    run = world.run()
    run = run.mark(run.query == 5, "doubtful")
    batches = batches_of(world, Negatives(run, Top(2)))
    with pytest.warns(UserWarning, match="have no negative"):
        lists = [CandidateLists.of(batch) for batch in batches(0)]
    assert sum(part.empty for part in lists) == 1
    (holder,) = [part for part in lists if part.empty]
    assert holder.query[~holder.mask.any(1)].tolist() == [5]
    relevance, mask, weight = holder.tensors(torch.device("cpu"))
    assert relevance.shape == mask.shape == weight.shape == holder.document.shape


def test_own_columns_that_serve_others_too_stay_apart() -> None:
    mask = np.array([[True, True, False], [False, True, True]])
    batch = Batch(
        np.array([7, 8]),
        np.array([10, 11, 12]),
        np.array([[1, 0, 0], [0, 0, 1]], np.float32),
        mask,
        np.array([[1, 2, 3], [4, 5, 6]], np.float32),
    )
    found = CandidateLists.of(batch)
    assert found.document.tolist() == [[10, 11], [12, 11]]
    assert found.relevance.tolist() == [[1, 0], [1, 0]]
    assert found.weight.tolist() == [[1, 2], [6, 5]]


def test_other_arrangements_and_shared_columns() -> None:
    world = World()
    batches = QueryBatches(
        world.dataset, share="all", arrange=lambda examples: NoDuplicates(examples, 5, seed=1), seed=1
    )
    (first, *_) = batches(0)
    assert len(first.columns) == len(first) == 5
    assert CandidateLists.of(first).document.ndim == 1
    assert batches.options["batcher"] == "NoDuplicates"


def test_queries_with_nothing_of_their_own_are_told() -> None:
    with pytest.raises(RivalsError, match="need negatives"):
        QueryBatches(World().dataset, 4)
