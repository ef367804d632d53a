"""Coupled estimation: each model weighs the other's pairs, and neither learns from the other's loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rivals.errors import RivalsError
from rivals.negatives import Uniform
from rivals.training import Negatives
from rivals.training.coupled import CoupledObjective
from rivals.training.query_batches import CandidateLists, QueryBatches
from rivals.training.ranker import ScorerObjective, frozen_scores
from tests.training.small_world import World, assert_same_after_breaks, surprise, train


def couple(world: World, *, k: int = 1, dropout: float = 0.2, **options: Any) -> CoupledObjective:
    batches = QueryBatches(world.dataset, 6, negatives=Negatives(world.run(), Uniform(k)))
    return CoupledObjective(
        world.ranker(seed=5, dropout=dropout), world.ranker(seed=6, dropout=dropout), batches, **options
    )


def test_the_losses_by_hand() -> None:
    objective = couple(World(), dropout=0.0, debias_ratio=2.0)
    batch = objective.batches(0)[0]
    lists = CandidateLists.of(batch)
    r, s = (frozen_scores(x, lists).double().numpy() for x in (objective.relevance, objective.selection))
    pairs = [np.logaddexp(0, x[:, 1] - x[:, 0]) for x in (r, s)]
    weights = [1 + np.exp(x[:, 1] / 2.0) for x in (s, r)]
    expected = np.mean(weights[0] * pairs[0]) + np.mean(weights[1] * pairs[1])
    assert objective.loss(batch, torch.Generator()).item() == pytest.approx(expected, rel=1e-5)
    assert objective.mean_weight == pytest.approx(weights[0].mean(), rel=1e-5)


def test_each_learns_from_its_own_loss_alone() -> None:
    """The gradient of one model is that of its weighted loss, whatever the other's parameters get."""
    from rivals.losses.weighted_pairs import selection_weighted_loss

    objective = couple(World(), dropout=0.0)
    batch = objective.batches(0)[0]
    lists = CandidateLists.of(batch)
    relevance, mask, _ = lists.tensors(torch.device("cpu"))
    objective.loss(batch, torch.Generator()).backward()
    for own, other in ((objective.relevance, objective.selection), (objective.selection, objective.relevance)):
        found = [p.grad.clone() for p in own.model.parameters()]  # type: ignore[union-attr]
        own.model.zero_grad()
        scores = own(lists.query, lists.document, lists.mask)
        weighing = frozen_scores(other, lists)
        selection_weighted_loss(scores, relevance, mask, selection_scores=weighing).backward()
        for mine, alone in zip(found, own.model.parameters(), strict=True):
            torch.testing.assert_close(mine, alone.grad)


def test_weights_come_from_models_without_dropout() -> None:
    objective = couple(World(), dropout=0.5)
    seen: list[tuple[str, bool, bool]] = []
    for name, scorer in (("r", objective.relevance), ("s", objective.selection)):
        scorer.model.register_forward_hook(
            lambda module, *_, name=name: seen.append((name, module.training, torch.is_grad_enabled()))
        )
    objective.loss(objective.batches(0)[0], torch.Generator())
    assert seen == [("r", False, False), ("s", False, False), ("r", True, True), ("s", True, True)]


def test_a_huge_ratio_is_twice_the_plain_loss() -> None:
    from rivals.losses import pairwise_logistic_loss

    objective = couple(World(), dropout=0.0, debias_ratio=1e9)
    batch = objective.batches(0)[0]
    plain = [
        ScorerObjective(x, objective.query_batches, pairwise_logistic_loss).loss(batch, torch.Generator()).item()
        for x in (objective.relevance, objective.selection)
    ]
    assert objective.loss(batch, torch.Generator()).item() == pytest.approx(2 * sum(plain), rel=1e-5)
    capped = couple(World(), dropout=0.0, debias_ratio=1e-3, max_weight=1.0)
    assert capped.loss(batch, torch.Generator()).item() == pytest.approx(sum(plain), rel=1e-5)
    assert math.isclose(capped.mean_weight, 1.0)


def test_both_learn_and_a_broken_off_training_ends_the_same(tmp_path: Path) -> None:
    world = World()
    objective = couple(world, k=4, dropout=0.0)
    before = surprise(objective.relevance)
    train(lambda: (objective, None), epochs=10, learning_rate=0.03)
    assert surprise(objective.relevance) < before - 0.2
    assert objective.clips_apart == ("relevance.", "selection.")
    assert_same_after_breaks(lambda: (couple(world, k=2), None), tmp_path, losses=(5,))


def test_mistakes_are_told() -> None:
    world = World()
    batches = QueryBatches(world.dataset, 6, share="all")
    with pytest.raises(RivalsError, match="are equal; give their heads different seeds"):
        CoupledObjective(world.ranker(seed=5), world.ranker(seed=5), batches)
    one = world.ranker()
    with pytest.raises(RivalsError, match="share parameters"):
        CoupledObjective(one, one, batches)
    with pytest.raises(RivalsError, match="debias_ratio must be above 0"):
        couple(world, debias_ratio=0.0)
    with pytest.raises(RivalsError, match="max_weight must be at least 1"):
        couple(world, max_weight=0.5)
