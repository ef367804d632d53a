"""ADORE: exact searches of frozen documents at every step, and STAR before it in one training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rivals.data import Collection, Dataset, Judgements
from rivals.errors import RivalsError
from rivals.losses import pairwise_logistic_loss
from rivals.negatives import Uniform
from rivals.training import Negatives, Refresh
from rivals.training.live_query import LiveQuery, LiveQueryObjective, live_lists
from rivals.training.loop import read_log
from rivals.training.phased import Phased
from rivals.training.query_batches import QueryBatches
from rivals.training.ranker import ScorerObjective
from rivals.training.schedules import Stage, Stages
from rivals.training.vector_scorers import MappedVectors
from tests.training.small_world import DOCUMENTS, World, assert_same_after_breaks, surprise, train
from tests.training.tiny import weights


def one_query(scores: list[float], relevant: list[int], **options: Any) -> tuple[LiveQueryObjective, Any]:
    """A query whose products with the documents are these."""
    documents = len(scores)
    data = Dataset(
        Collection(["q"]),
        Collection([f"d{i}" for i in range(documents)]),
        Judgements.build([0] * len(relevant), relevant, [1] * len(relevant), queries=1, documents=documents),
    )

    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.values = nn.Parameter(torch.tensor([scores]))

        def forward(self, x: Any) -> Any:
            return self.values

    side = MappedVectors(Given(), np.ones((1, 1), np.float32))
    objective = LiveQueryObjective(side, data, documents=np.eye(documents, dtype=np.float32), **options)
    return objective, objective.loss(objective.batches(0)[0], torch.Generator())


# ------------------------------------------------------------------------------------------------------------ the loss


def test_the_card_s_numbers() -> None:
    tied = [1.0, 1.0]  # equal scores: the first row stands first
    assert one_query(tied, [0], n=2, cut=2)[1].item() == pytest.approx(0.5 * math.log(2), abs=1e-6)
    assert one_query(tied, [0], n=2, cut=1)[1].item() == pytest.approx(math.log(2), abs=1e-6)


def test_a_missed_positive_is_put_behind_with_its_own_place() -> None:
    objective, loss = one_query([4.0, 3.0, 2.0, 1.0], [3], n=3)
    pairs = [(3 / 4) * np.logaddexp(0, 3.0), (1 / 4) * np.logaddexp(0, 2.0), (1 / 12) * np.logaddexp(0, 1.0)]
    assert loss.item() == pytest.approx(np.mean(pairs), rel=1e-5)
    assert objective.missed == 1
    left, nothing = one_query([4.0, 3.0, 2.0, 1.0], [3], n=3, append_missing=False)
    assert nothing.item() == 0
    assert left.missed == 1


def test_several_positives_never_compete() -> None:
    _, loss = one_query([4.0, 3.0, 2.0], [0, 2], n=3)
    pairs = [(1 - 1 / 2) * np.logaddexp(0, -1.0), (1 / 2 - 1 / 3) * np.logaddexp(0, 1.0)]
    assert loss.item() == pytest.approx(np.mean(pairs), rel=1e-5)
    _, sharp = one_query([4.0, 3.0, 2.0], [0, 2], n=3, scale=2.0)
    pairs = [(1 - 1 / 2) * np.logaddexp(0, -2.0), (1 / 2 - 1 / 3) * np.logaddexp(0, 2.0)]
    assert sharp.item() == pytest.approx(np.mean(pairs), rel=1e-5)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 6), append=st.booleans())
def test_lists_hold_what_was_found_and_then_what_was_missed(seed: int, n: int, append: bool) -> None:
    rng = np.random.default_rng(seed)
    queries = int(rng.integers(1, 5))
    retrieved = np.stack([rng.permutation(9)[:n] for _ in range(queries)])
    relevant = [rng.permutation(9)[: rng.integers(0, 4)].tolist() for _ in range(queries)]
    offsets = np.cumsum([0, *map(len, relevant)])
    found = live_lists(
        retrieved, (offsets, np.array([d for part in relevant for d in part], np.int64)), append_missing=append
    )
    missed = 0
    for row in range(queries):
        expected = retrieved[row].tolist()
        lost = relevant[row] and not set(relevant[row]) & set(expected)
        missed += bool(lost)
        expected += relevant[row] if lost and append else []
        there = found.mask[row]
        assert found.document[row][there].tolist() == expected
        assert found.relevance[row][there].tolist() == [float(d in relevant[row]) for d in expected]
        assert not found.relevance[row][~there].any()
    assert found.missed == missed


def test_only_the_queries_have_a_gradient() -> None:
    world = World()
    scorer = world.retriever(dropout=0.0)
    objective = LiveQueryObjective(scorer.query, world.dataset, documents=scorer.document.all(), n=10)
    objective.loss(objective.batches(0)[0], torch.Generator()).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in scorer.query.module.parameters())
    assert all(p.grad is None for p in scorer.document.module.parameters())
    assert {name.split(".")[0] for name, _ in objective.model.named_parameters()} == {"query"}


def test_every_step_searches_anew() -> None:
    world = World()
    scorer = world.retriever(dropout=0.0)
    objective = LiveQueryObjective(scorer.query, world.dataset, documents=scorer.document.all(), n=8)
    before = surprise(scorer), objective.loss(objective.batches(0)[0], torch.Generator()).item()
    frozen = weights(scorer.document.module)
    train(lambda: (objective, None), epochs=30, learning_rate=0.02)
    assert surprise(scorer) < before[0]
    assert objective.loss(objective.batches(0)[0], torch.Generator()).item() < before[1]
    assert all(torch.equal(value, frozen[name]) for name, value in weights(scorer.document.module).items())
    assert [sorted(np.concatenate(objective.batches(e)).tolist()) for e in (0, 1)] == [list(range(18))] * 2


# ------------------------------------------------------------------------------------------------------ STAR and ADORE


def stages(world: World, *, shared: bool = False) -> tuple[Phased, Stages]:
    scorer = world.retriever(shared=shared, dropout=0.2)
    negatives = Negatives(scorer.search(world.dataset, 12), Uniform(1))
    star = ScorerObjective(
        scorer, QueryBatches(world.dataset, 6, negatives=negatives, share="all"), pairwise_logistic_loss
    )
    adore = LiveQueryObjective(scorer.query, world.dataset, n=10, batch_size=9)
    mine = Refresh(negatives, lambda rows: scorer.search(world.dataset, 12, rows), every=2)
    calendar = Stages(
        [
            Stage("star", 4, regime=mine),
            Stage("adore", trains=["query."], regime=LiveQuery(adore, scorer.document.all), rate=0.2),
        ]
    )
    return Phased({"star": star, "adore": adore}, scorer.model, calendar, evaluate=lambda: -surprise(scorer)), calendar


def test_star_then_adore_in_one_training(tmp_path: Path) -> None:
    world = World()
    objective, calendar = stages(world)
    before = weights(objective.model)
    train(lambda: (objective, calendar), tmp_path, evaluations=3)
    log = read_log(tmp_path)
    assert [line["phase"] for line in log if "loss" in line] == ["star"] * 4 + ["adore"] * 5
    assert [next(iter(line["refresh"])) for line in log if "refresh" in line] == ["version", "frozen"]
    after = weights(objective.model)
    assert any(not torch.equal(after[n], before[n]) for n in after if n.startswith("document."))
    rates = [line["learning_rate"] for line in log if "loss" in line]
    assert max(rates[4:]) <= 0.2 * 0.02


@pytest.mark.parametrize("shared", [False, True])
def test_broken_off_it_ends_the_same(tmp_path: Path, shared: bool) -> None:
    world = World()
    options: Any = {"losses": (3, 8), "refreshes": (2,)} if shared else {"losses": (6,)}
    assert_same_after_breaks(lambda: stages(world, shared=shared), tmp_path, **options)


def test_frozen_documents_stay_those_of_the_beginning_although_one_tower_serves_both(tmp_path: Path) -> None:
    world = World()
    objective, calendar = stages(world, shared=True)
    train(lambda: (objective, calendar))
    adore = objective.members["adore"]
    now = MappedVectors(adore.queries.module, world.documents).all()
    assert adore.documents is not None
    assert not np.allclose(adore.documents, now)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cut": None}, "cut must be a whole number"),
        ({"cut": 0}, "cut must be a whole number"),
        ({"n": 0}, "n must be a whole number"),
        ({"n": DOCUMENTS + 1}, f"n is {DOCUMENTS + 1}, but there are only {DOCUMENTS} documents"),
        ({"n": 5, "scale": 0.0}, "scale must be above 0"),
        ({"n": 5, "documents": np.zeros((3, 6), np.float32)}, r"\(3, 6\) vectors were given for 40 documents"),
    ],
)
def test_mistakes_are_told(options: Any, message: str) -> None:
    world = World()
    with pytest.raises(RivalsError, match=message):
        LiveQueryObjective(world.retriever().query, world.dataset, **options)


def test_what_is_missing_is_told() -> None:
    world = World()
    side = world.retriever().query
    objective = LiveQueryObjective(side, world.dataset, n=5)
    with pytest.raises(RivalsError, match="there are no document vectors"):
        objective.loss(objective.batches(0)[0], torch.Generator())
    with pytest.raises(RivalsError, match="name what learns"):
        LiveQuery(objective, side.all, trains=[""])
    with pytest.raises(RivalsError, match="needs a held-out score"):
        objective.evaluate()
    unjudged = Dataset(
        world.dataset.queries, world.dataset.documents, Judgements.build([], [], [], queries=18, documents=DOCUMENTS)
    )
    with pytest.raises(RivalsError, match="no query has a positive"):
        LiveQueryObjective(side, unjudged, n=5)
    known = world.dataset.judgements.positives
    first = Judgements.build(known.query[:4], known.document[:4], [1] * 4, queries=18, documents=DOCUMENTS)
    few = Dataset(world.dataset.queries, world.dataset.documents, first)
    found = LiveQueryObjective(side, few, n=5)
    assert found.without_positive == 18 - len(set(known.query[:4].tolist()))
