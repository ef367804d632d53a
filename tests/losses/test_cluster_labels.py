"""Cluster labels: the two-term multi-label loss, nearest centres, sampled prototypes (paper 71's checks)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    SampledPrototypes,
    binary_cross_entropy_loss,
    log_sum_exp_multilabel_loss,
    nearest_centers,
    sample_classes,
    unified_pair_loss,
)

SCORES, TARGETS = torch.tensor([[0.4, 0.8, 0.1, 0.5]]).double(), torch.tensor([[1, 1, 0, 0]])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(scores: Tensor, targets: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    return log_sum_exp_multilabel_loss(scores, targets, mask, **options)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_by_hand() -> None:
    """Check 1."""
    positive, negative = 0.751250513728494, 1.3227932187257527
    assert loss(SCORES, TARGETS).item() == pytest.approx(positive + negative)
    assert loss(SCORES, TARGETS, mode="relative").item() == pytest.approx(1.4069281779878031)
    only = torch.tensor([[True, True, False, False]])
    assert loss(SCORES, TARGETS, only).item() == pytest.approx(positive)  # the others are unknown
    assert loss(SCORES, TARGETS, ~only).item() == pytest.approx(negative)
    assert loss(SCORES, TARGETS, only, mode="relative").item() == 0


def test_the_two_modes() -> None:
    scores, targets = normal(6, 5) * 3, (normal(6, 5, seed=1) > 0).double()
    separate, relative = (loss(scores, targets, mode=mode, reduction="none") for mode in ("separate", "relative"))
    assert (separate >= relative).all()
    for row in range(6):
        a = float((-scores[row][targets[row] > 0]).exp().sum())
        b = float(scores[row][targets[row] == 0].exp().sum())
        assert separate[row].item() == pytest.approx(math.log1p(a) + math.log1p(b))
        assert relative[row].item() == pytest.approx(math.log1p(a * b))
    assert loss(scores, targets).item() == pytest.approx(separate.mean().item())
    torch.testing.assert_close(relative, unified_pair_loss(scores, targets, scale=1.0, margin=0.0, reduction="none"))


def test_one_element_sets_are_binary_cross_entropy() -> None:
    scores, targets = normal(4, 2), torch.tensor([[1.0, 0.0]] * 4)
    both = loss(scores, targets, reduction="sum")
    torch.testing.assert_close(both, binary_cross_entropy_loss(scores, targets, reduction="sum"))
    assert loss(torch.tensor([[0.7]]), torch.ones(1, 1)).item() == pytest.approx(softplus(-0.7))


def test_the_ambiguity_of_the_relative_mode() -> None:
    pairs, targets = torch.tensor([[0.1, 0.4], [0.5, 0.8]]), torch.tensor([[0, 1], [0, 1]])
    relative = loss(pairs, targets, mode="relative", reduction="none")
    separate = loss(pairs, targets, reduction="none")
    torch.testing.assert_close(relative[0], relative[1])
    assert abs(separate[0] - separate[1]) > 0.01


def test_zero_scores_and_the_size_of_gradients() -> None:
    for positives, negatives in ((1, 3), (4, 2)):
        scores = torch.zeros(1, positives + negatives, dtype=torch.float64, requires_grad=True)
        targets = (torch.arange(positives + negatives) < positives)[None].double()
        value = loss(scores, targets)
        assert value.item() == pytest.approx(math.log1p(positives) + math.log1p(negatives))
        (gradient,) = torch.autograd.grad(value, scores)
        pull, push = gradient[targets > 0], gradient[targets == 0]
        assert ((pull > -1) & (pull <= 0)).all()
        assert ((push < 1) & (push >= 0)).all()
        assert pull.sum() >= -1
        assert push.sum() <= 1


def test_scale_margin_threshold_and_weights() -> None:
    scaled = 8.0 * (SCORES - 0.3 * TARGETS) - 1.5
    found = loss(SCORES, TARGETS, scale=8.0, margin=0.3, threshold=1.5)
    torch.testing.assert_close(found, loss(scaled, TARGETS))
    twice = torch.cat([SCORES, SCORES[:, 3:]], dim=1), torch.tensor([[1, 1, 0, 0, 0]])
    weight = torch.tensor([[1.0, 1.0, 1.0, 2.0]]).double()
    for mode in ("separate", "relative"):
        torch.testing.assert_close(loss(SCORES, TARGETS, weight=weight, mode=mode), loss(*twice, mode=mode))
    without = loss(SCORES, TARGETS, weight=torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    torch.testing.assert_close(without, loss(SCORES[:, 2:], TARGETS[:, 2:]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "both"}, "mode"),
        ({"scale": 0.0}, "scale"),
        ({"margin": math.nan}, "margin"),
        ({"threshold": math.inf}, "threshold"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        loss(SCORES, TARGETS, **options)


# ---------------------------------------------------------------------------------- centres and samples


def test_nearest_centers() -> None:
    features, centers = normal(7, 3), normal(5, 3, seed=1) * torch.arange(1, 6)[:, None]
    cosine = torch.nn.functional.cosine_similarity(features[:, None], centers, dim=2)
    index, near = nearest_centers(features, centers, top=3, min_similarity=0.2)
    assert torch.equal(index, cosine.argsort(dim=1, descending=True)[:, :3])
    assert torch.equal(near, cosine.gather(1, index) >= 0.2)
    assert nearest_centers(features, centers, top=1)[1].all()
    assert nearest_centers(features[:0], centers, top=2)[0].shape == (0, 2)
    for top in (0, 6):
        with pytest.raises(RivalsError, match="top"):
            nearest_centers(features, centers, top=top)
    with pytest.raises(RivalsError, match="centers"):
        nearest_centers(features, normal(5, 2))


def test_sampled_classes() -> None:
    draw = torch.Generator().manual_seed(0)
    positives = torch.tensor([[3, 9], [9, 17]])
    seen = torch.zeros(50)
    for _ in range(300):
        classes = sample_classes(positives, 50, ratio=0.2, generator=draw)
        assert len(classes) == 10
        assert torch.isin(positives, classes).all()
        assert torch.equal(classes, classes.unique())
        seen[classes] += 1
    others = seen[~torch.isin(torch.arange(50), positives)] / 300
    assert (others - 7 / 47).abs().max() < 0.08  # the rest is drawn evenly
    many = torch.arange(30)
    assert torch.equal(sample_classes(many, 50, ratio=0.2, generator=draw), many)
    assert torch.equal(sample_classes(positives, 50, ratio=1), torch.arange(50))
    for ratio in (0.0, 1.5):
        with pytest.raises(RivalsError, match="ratio"):
            sample_classes(positives, 50, ratio=ratio, generator=draw)
    with pytest.raises(RivalsError, match="positives"):
        sample_classes(positives, 17, generator=draw)
    with pytest.raises(RivalsError, match="generator"):
        sample_classes(positives, 50)


def test_prototypes_that_are_not_sampled_get_no_gradient() -> None:
    draw = torch.Generator().manual_seed(0)
    prototypes = SampledPrototypes(40, 3, sample_ratio=0.2, generator=draw)
    embeddings = torch.randn(4, 3, generator=draw)
    positives, there = (
        torch.tensor([[3, 9], [9, 17], [0, 0], [5, 6]]),
        torch.tensor([[True, True]] * 3 + [[True, False]]),
    )
    step = prototypes(embeddings, positives, there, generator=draw)
    assert len(step.classes) == 8
    for row in range(4):
        chosen = set(step.classes[step.relevance[row]].tolist())
        assert chosen == set(positives[row][there[row]].tolist())
    expected = torch.nn.functional.cosine_similarity(embeddings[:, None], prototypes.vectors[step.classes], dim=2)
    torch.testing.assert_close(step.scores, expected)
    log_sum_exp_multilabel_loss(step.scores, step.relevance, scale=32.0).backward()
    gradient = prototypes.vectors.grad
    assert gradient is not None
    moved = gradient.abs().sum(1) > 0
    assert torch.equal(moved.nonzero().flatten(), step.classes)
    assert prototypes.eval()(embeddings, positives).scores.shape == (4, 40)
    with pytest.raises(RivalsError, match="sample_ratio"):
        SampledPrototypes(4, 3, sample_ratio=0.0)
    with pytest.raises(RivalsError, match="positive_mask"):
        prototypes(embeddings, positives, there[:, :1])
