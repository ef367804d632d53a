"""Curricula: what the first stage finds easy, how that weighs, and that it is over when it is over."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rivals.data import Collection, Run
from rivals.errors import RivalsError
from rivals.losses import pairwise_logistic_loss
from rivals.losses.curriculum import CurriculumWeighting, probability_error_loss
from rivals.negatives import Uniform
from rivals.training import Negatives
from rivals.training.curriculum import CurriculumObjective, first_stage_looks
from rivals.training.query_batches import CandidateLists, QueryBatches
from rivals.training.ranker import ScorerObjective, frozen_scores
from rivals.training.schedules import Curriculum
from tests.training.small_world import World, assert_same_after_breaks, surprise, train


def run_of(scores: list[float], positives: list[int], positive_score: list[float] | None = None) -> Run:
    documents = Collection([f"d{i}" for i in range(len(scores) + 3)])
    return Run.build(
        Collection(["q"]),
        documents,
        [0, len(scores)],
        range(len(scores)),
        scores,
        positives=([0, len(positives)], positives),
        positive_score=positive_score,
    )


# ---------------------------------------------------------------------------------------------------- the first stage


def test_ranks_of_candidates_and_of_positives_inside_and_outside() -> None:
    candidate, positive = first_stage_looks(run_of([9.0, 5.0, 7.0], [2, 4]))
    run = run_of([9.0, 5.0, 7.0], [2, 4])
    assert dict(zip(run.document.tolist(), candidate.tolist(), strict=True)) == pytest.approx(
        {0: 1, 2: 1 / 2, 1: 1 / 3}
    )
    assert positive.tolist() == pytest.approx([1 / 2, 1 / 1000])


def test_scores_of_positives_outside_stay_within_the_run_s() -> None:
    run = run_of([9.0, 5.0, 7.0], [3, 4, 5, 0], [8.0, 100.0, -3.0, 9.0])
    candidate, positive = first_stage_looks(run, "minmax")
    assert candidate.tolist() == pytest.approx([1.0, 0.5, 0.0])
    assert positive.tolist() == pytest.approx([0.75, 1.0, 0.0, 1.0])
    smooth = first_stage_looks(run_of([9.0, 5.0, 7.0], [3], [7.0]), "kde")[1]
    assert smooth.tolist() == pytest.approx([0.5], abs=1e-6)


def test_positives_without_a_score_are_told_where_it_is_needed() -> None:
    run = run_of([9.0, 5.0], [4])
    assert first_stage_looks(run)[1].tolist() == pytest.approx([0.001])
    with pytest.raises(RivalsError, match="query 'q': its relevant document 'd4' has no first-stage score"):
        first_stage_looks(run, "minmax")


def test_equal_scores_say_nothing() -> None:
    _, positive = first_stage_looks(run_of([2.0, 2.0], [3], [2.0]), "minmax")
    assert positive.tolist() == [0.5]
    with pytest.raises(RivalsError, match="two distinct scores"):
        first_stage_looks(run_of([2.0, 2.0], [3], [2.0]), "kde")


# ------------------------------------------------------------------------------------------------------ the objective


def objective_of(world: World, *, k: int = 3, time: float = 0.0, dropout: float = 0.0, **options: Any) -> Any:
    weighting = CurriculumWeighting(end=options.pop("end", 20), anti=options.pop("anti", False))
    weighting.time = time
    run = world.run()
    batches = QueryBatches(world.dataset, 6, negatives=Negatives(run, Uniform(k)))
    return CurriculumObjective(world.ranker(dropout=dropout), batches, weighting, run, **options)


@pytest.mark.parametrize(("time", "anti"), [(0.0, False), (5.0, False), (5.0, True)])
def test_lists_weigh_by_their_hardest_pair(time: float, anti: bool) -> None:
    world = World()
    objective = objective_of(world, time=time, anti=anti)
    run = objective.first_stage
    batch = objective.batches(0)[0]
    lists = CandidateLists.of(batch)
    scores = frozen_scores(objective.scorer, lists).double().numpy()
    expected = []
    for row, query in enumerate(lists.query):
        ranks = {
            int(d): int(r) + 1
            for d, r in zip(run.document[run.query == query], run.rank[run.query == query], strict=True)
        }
        h = [1 / ranks.get(int(d), 1000) for d in lists.document[row]]
        ease = [(h[0] - other + 1) / 2 for other in h[1:]]
        ease = [1 - e if anti else e for e in ease]
        weight = min(ease) * (1 - time / 20) + time / 20
        error = 1 - np.exp(scores[row, 0]) / np.exp(scores[row]).sum()
        expected.append(weight * error)
    assert objective.loss(batch, torch.Generator()).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_the_card_s_weight() -> None:
    weighting = CurriculumWeighting(end=20)
    weighting.time = 5
    ease = weighting.pairs(torch.tensor([1.0]), torch.tensor([0.25]))
    assert weighting.weights(ease).tolist() == pytest.approx([0.90625])


def test_single_documents_weigh_by_themselves() -> None:
    def squared(scores: Any, relevance: Any, mask: Any, *, reduction: str) -> Any:
        assert (scores.shape[1], reduction) == (1, "none")
        return (scores - relevance).square().squeeze(-1)

    world = World()
    objective = objective_of(world, form="points", loss=squared)
    lists = CandidateLists.of(objective.batches(0)[0])
    looks = objective.looks(lists)
    scores = frozen_scores(objective.scorer, lists).numpy()
    ease = np.where(lists.relevance > 0, looks, 1 - looks) + 1e-8
    expected = (ease * (scores - lists.relevance) ** 2)[lists.mask].mean()
    assert objective.loss(objective.batches(0)[0], torch.Generator()).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [probability_error_loss, pairwise_logistic_loss])
def test_afterwards_the_loss_and_its_gradient_are_the_plain_ones(loss: Any) -> None:
    world, found = World(), []
    curriculum = objective_of(world, k=1, time=20, loss=loss)
    plain = ScorerObjective(world.ranker(dropout=0.0), curriculum.query_batches, loss)
    for objective in (curriculum, plain):
        value = objective.loss(objective.batches(0)[0], torch.Generator())
        value.backward()
        found.append([value.detach(), *(p.grad for p in objective.model.parameters())])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)


def test_some_negatives_may_be_missing() -> None:
    world = World()
    run = world.run()
    run = run.mark((run.query % 2 == 0) & (run.rank > 2), "far")
    weighting = CurriculumWeighting(end=4)
    batches = QueryBatches(world.dataset, 18, negatives=Negatives(run, Uniform(4)))
    objective = CurriculumObjective(world.ranker(dropout=0.0), batches, weighting, run)
    lists = CandidateLists.of(batches(0)[0])
    assert not lists.mask.all()
    assert math.isfinite(objective.loss(batches(0)[0], torch.Generator()).item())
    anti = CurriculumObjective(world.ranker(), batches, CurriculumWeighting(end=4, anti=True), run)
    assert 0 < anti.loss(batches(0)[0], torch.Generator()).item() < 1


def test_it_learns_and_a_broken_off_training_ends_the_same(tmp_path: Path) -> None:
    world = World()

    def build() -> Any:
        objective = objective_of(world, dropout=0.2, end=2)
        return objective, Curriculum(objective.weighting, every=3)

    whole = build()
    before = surprise(whole[0].scorer)
    train(lambda: whole, epochs=12, learning_rate=0.03)
    assert surprise(whole[0].scorer) < before
    assert whole[0].weighting.finished
    assert_same_after_breaks(build, tmp_path, losses=(5, 8))


def test_mistakes_are_told() -> None:
    world = World()
    with pytest.raises(RivalsError, match="form must be 'pairs' or 'points'"):
        objective_of(world, form="lists")
    objective = objective_of(world)
    objective.first_stage = world.run(3)
    objective._candidate, objective._positive = first_stage_looks(objective.first_stage)
    with pytest.raises(RivalsError, match="the first stage's run does not hold"):
        [objective.loss(batch, torch.Generator()) for batch in objective.batches(0)]
    with pytest.raises(RivalsError, match="run is over 2 queries, the data over 18"):
        CurriculumObjective(
            world.ranker(), objective.query_batches, CurriculumWeighting(), world.run().take(np.array([0, 1]))
        )
