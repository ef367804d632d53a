"""Any scorer with any loss: one objective trains every family of models with a loss of every form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.losses import (
    asymmetric_loss,
    hazard_loss,
    huber_loss,
    in_batch_multi_similarity_loss,
    in_batch_supervised_contrastive_loss,
    lambda_loss,
    neural_ndcg_loss,
    pairwise_logistic_loss,
    poly1_cross_entropy_loss,
    preference_loss,
    softmax_loss,
)
from rivals.models.images import FeatureEncoder, Headed, ImageEncoder, load_small_encoder
from rivals.training import CachedGradients, LoopConfig, Plain, fit
from rivals.training.supervised import SupervisedObjective
from tests.training.tiny import assert_same_weights, weights

CONFIG = LoopConfig(epochs=6, learning_rate=0.02, warmup=0.0, evaluations=0)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class ListScorer(nn.Module):
    """A perceptron over the candidates of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = FeatureEncoder(5, 1, hidden=(16,))

    def forward(self, features: Tensor) -> Tensor:
        return self.inner(features).squeeze(-1)


class Recommender(nn.Module):
    """Factors of users and items: scores of a list of items."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.users, self.items = nn.Embedding(16, 8), nn.Embedding(30, 8)

    def forward(self, user: Tensor, items: Tensor) -> Tensor:
        return (self.items(items) @ self.users(user)[..., None]).squeeze(-1)


class Translation(nn.Module):
    """TransE: how near head + relation comes to each tail."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.entities, self.relations = nn.Embedding(30, 8), nn.Embedding(3, 8)

    def forward(self, head: Tensor, relation: Tensor, tails: Tensor) -> Tensor:
        return -(self.entities(head) + self.relations(relation))[:, None].sub(self.entities(tails)).norm(dim=-1)


def survival(logits: Tensor, moments: Tensor, events: Tensor) -> Tensor:
    return hazard_loss(logits, moments, events=events)


def preference(logps: Tensor, relevance: Tensor) -> Tensor:
    return preference_loss(logps, relevance, torch.zeros_like(logps), beta=1.0)


Made = tuple[nn.Module, Sequence[Tensor], Sequence[Tensor], Callable[..., Tensor], Tensor | None]


def families() -> dict[str, Made]:
    """Model, inputs, targets, loss and classes of each family; targets can be learnt from the inputs."""
    lists, classes, items = (
        draw(16, 6, 5),
        torch.arange(24) % 3,
        torch.randint(30, (16, 6), generator=torch.Generator().manual_seed(1)),
    )
    graded = (lists[..., 0] > 0).float() * 2 + (lists[..., 1] > 0.5).float()
    mask = torch.ones(16, 6, dtype=torch.bool)
    mask[:, 5] = torch.arange(16) % 2 == 0
    first = torch.zeros(16, 6)
    first[:, 0] = 1
    pictures = torch.zeros(24, 1, 8, 8)
    pictures[torch.arange(24), 0, classes * 2] = 1.0
    rows = draw(24, 5)
    labels = torch.stack([rows[:, 0] > 0, rows[:, 1] > 0, rows[:, 2] > 0.5], 1).float()
    moment, events = ((rows[:, 0] + 2).clamp(0, 3.9).long(), rows[:, 1] > -0.5)
    return {
        "list scorer, graded lambdas": (ListScorer(), [lists], [graded, mask], lambda_loss, None),
        "list scorer, smooth nDCG": (ListScorer(), [lists], [graded, mask], neural_ndcg_loss, None),
        "recommender, BPR": (Recommender(), [torch.arange(16), items], [first], pairwise_logistic_loss, None),
        "knowledge graph, softmax": (
            Translation(),
            [torch.arange(16), torch.arange(16) % 3, items],
            [first],
            softmax_loss,
            None,
        ),
        "pictures, multi-similarity": (
            ImageEncoder(channels=1, widths=(8, 8), dimension=8),
            [pictures],
            [classes],
            in_batch_multi_similarity_loss,
            classes,
        ),
        "pictures, supervised contrastive": (
            ImageEncoder(channels=1, widths=(8, 8), dimension=8),
            [pictures],
            [classes],
            partial(in_batch_supervised_contrastive_loss, temperature=0.2),
            classes,
        ),
        "pictures with a head, classes": (
            Headed(ImageEncoder(channels=1, widths=(8, 8), dimension=8), outputs=3),
            [pictures],
            [classes],
            poly1_cross_entropy_loss,
            None,
        ),
        "features, labels": (FeatureEncoder(5, 3), [rows], [labels], asymmetric_loss, None),
        "features, numbers": (FeatureEncoder(5, 2), [rows], [rows[:, :2] * 2], huber_loss, None),
        "features, survival": (FeatureEncoder(5, 4), [rows], [moment, events], survival, None),
        "responses, preferences": (
            ListScorer(),
            [lists],
            [graded],
            preference,
            None,
        ),
    }


@pytest.mark.parametrize("family", list(families()))
def test_every_family_learns_with_a_loss_of_its_form(family: str) -> None:
    model, inputs, targets, loss, classes = families()[family]
    objective = SupervisedObjective(model, inputs, targets, loss, batch_size=12, classes=classes, drop_last=True)
    before = float(objective.loss(objective.batches(0)[0], torch.Generator()).detach())
    result = fit(objective, LoopConfig(epochs=25, learning_rate=0.02, warmup=0.0, evaluations=0))
    after = float(objective.loss(objective.batches(0)[0], torch.Generator()).detach())
    assert np.isfinite([value for _, value in result.losses]).all()
    assert after < before - 0.01 * abs(before)


def noisy(inputs: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    return [tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for tensor in inputs]


def test_cached_and_plain_end_alike_with_augmentation_and_dropout() -> None:
    found = []
    for executor in (Plain(), CachedGradients()):
        model, rows, classes = FeatureEncoder(5, 4, dropout=0.0), draw(20, 5), torch.arange(20) % 4
        objective = SupervisedObjective(
            model,
            [rows],
            [classes],
            partial(in_batch_supervised_contrastive_loss, temperature=0.3),
            batch_size=10,
            classes=classes,
            each=2,
            augment=noisy,
            chunk=3,
        )
        fit(objective, CONFIG, executor=executor)
        found.append(weights(model))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-5)


def test_batches_of_classes_hold_packs_and_every_row_once() -> None:
    classes = torch.tensor([0] * 5 + [1] * 4 + [2])
    objective = SupervisedObjective(
        FeatureEncoder(1, 1), [draw(10, 1)], [], softmax_loss, batch_size=10, classes=classes, each=2
    )
    for epoch in (0, 1):
        (batch,) = objective.batches(epoch)
        assert sorted(batch.rows.tolist()) == list(range(10))
        labels = classes[batch.rows].tolist()
        runs = [sum(1 for _ in group) for _, group in groupby(labels)]
        assert max(runs) >= 2
    assert objective.batches(0)[0].rows.tolist() != objective.batches(1)[0].rows.tolist()


def test_broken_off_and_resumed_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    def made(broken: int = 0) -> SupervisedObjective:
        calls = 0

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            if calls == broken:
                raise KeyboardInterrupt
            return huber_loss(outputs, targets)

        model, rows = FeatureEncoder(5, 2, dropout=0.2), draw(20, 5)
        held = lambda: -float(huber_loss(model(rows), rows[:, :2]))  # noqa: E731
        return SupervisedObjective(model, [rows], [rows[:, :2]], loss, batch_size=6, augment=noisy, validate=held)

    config = LoopConfig(epochs=3, learning_rate=0.02, evaluations=3, checkpoint_seconds=0)
    whole = made()
    fit(whole, config, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(made(7), config, folder=tmp_path / "run")
    again = made()
    fit(again, config, folder=tmp_path / "run", resume=True)
    assert_same_weights(weights(again.model), weights(whole.model))


@pytest.mark.parametrize(
    "encoder", [ImageEncoder(channels=1, widths=(8,), seed=2), FeatureEncoder(3, 2, hidden=(4, 5))]
)
def test_small_encoders_come_back_as_they_were(tmp_path: Path, encoder: Any) -> None:
    again = load_small_encoder(encoder.save(tmp_path / "encoder"))
    assert type(again) is type(encoder)
    assert again.options == encoder.options
    assert_same_weights(weights(again), weights(encoder))


@pytest.mark.parametrize("normalisation", ["group", "batch", "none"])
def test_image_encoders_take_any_normalisation(normalisation: Any) -> None:
    encoder = ImageEncoder(widths=(8, 16), dimension=5, normalisation=normalisation)
    assert encoder(torch.zeros(2, 3, 9, 12)).shape == (2, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImageEncoder(widths=(12,)), "8 groups, which do not divide"),
        (lambda: ImageEncoder(normalisation="layer"), "normalisation is 'layer'"),  # type: ignore[arg-type]
        (lambda: ImageEncoder()(torch.zeros(2, 1, 8, 8)), r"must be \[N, 3, H, W\]"),
        (lambda: FeatureEncoder(0, 1), "must be 1 or more"),
        (lambda: Headed(nn.Linear(2, 2), outputs=2), "encoder's dimension"),
        (lambda: load_small_encoder("/nowhere"), "holds no encoder that can be read"),
        (lambda: SupervisedObjective(nn.Linear(1, 1), [draw(3, 1)], [draw(4, 1)], huber_loss), "their lengths are"),
        (lambda: SupervisedObjective(nn.Linear(1, 1), [draw(3, 1)], [], huber_loss, chunk=0), "chunk must be 1"),
        (lambda: SupervisedObjective(nn.Linear(1, 1), [draw(3, 1)], [], huber_loss).evaluate(), "needs validate="),
    ],
)
def test_mistakes_are_told(make: Any, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        make()
