"""Perturbations along gradients and the loss that uses them: the checks of papers 99 and 114."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.losses import (
    adversarial_negative,
    adversarial_noise_negatives,
    distant_positive,
    imposter_contrastive_loss,
    in_batch_info_nce_loss,
    info_nce_loss,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


HEAD = nn.Linear(4, 6, bias=False, dtype=torch.float64)
LABELS = torch.tensor([[0, 3, 5], [2, 1, -100]])
MASK = LABELS >= 0


def likelihood(states: Tensor) -> Tensor:
    return F.cross_entropy(HEAD(states).flatten(0, 1), LABELS.flatten(), ignore_index=-100)


# ---------------------------------------------------------------------------------- paper 99


def test_an_imposter_is_one_step_away_and_less_likely() -> None:
    states = normal(2, 3, 4)
    for epsilon in (1e-3, 2.0):
        moved = adversarial_negative(states, likelihood, epsilon=epsilon, mask=MASK)
        distance = (moved - states).norm(dim=-1)
        torch.testing.assert_close(distance, epsilon * MASK.double(), rtol=1e-9, atol=0)
    leaf = states.clone().requires_grad_()
    lengths = torch.autograd.grad(likelihood(leaf), leaf)[0].norm(dim=-1).sum().item()
    risen = likelihood(adversarial_negative(states, likelihood, epsilon=1e-3)) - likelihood(states)
    assert risen.item() == pytest.approx(1e-3 * lengths, rel=1e-2)
    assert all(parameter.grad is None for parameter in HEAD.parameters())


def test_a_step_of_a_sample_spreads_over_its_vectors() -> None:
    states = normal(2, 3, 4)
    moved = adversarial_negative(states, likelihood, epsilon=0.5, norm="sample") - states
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), torch.full((2,), 0.5, dtype=torch.float64))
    leaf = states.clone().requires_grad_()
    gradient = torch.autograd.grad(likelihood(leaf), leaf)[0]
    assert F.cosine_similarity(moved.flatten(1), gradient.flatten(1)).min() > 1 - 1e-9


def test_a_distant_positive_is_far_from_its_source_and_close_in_meaning() -> None:
    source, states = normal(2, 4), normal(2, 3, 4, seed=1)
    original = HEAD(states).log_softmax(-1).detach()

    def away(moved: Tensor) -> Tensor:
        return in_batch_info_nce_loss(source, moved.mean(1), temperature=0.5)

    def divergence(moved: Tensor) -> Tensor:
        return F.kl_div(HEAD(moved).log_softmax(-1), original, reduction="sum", log_target=True)

    far = adversarial_negative(states, away, epsilon=0.1)
    back = distant_positive(states, away, divergence, epsilon=0.1)
    assert away(far) > away(states)
    assert divergence(back) < divergence(far)
    torch.testing.assert_close((back - far).norm(dim=-1), torch.full((2, 3), 0.1, dtype=torch.float64))


def test_vectors_without_a_gradient_stay() -> None:
    states = normal(2, 4)
    still = adversarial_negative(states, lambda s: s[0].sum() + 1e-10 * s[1].sum())
    assert torch.equal(still[1], states[1])
    assert not torch.equal(still[0], states[0])
    half = adversarial_negative(states.bfloat16(), lambda s: s.square().sum())
    assert half.dtype == torch.float32


def test_the_value_with_an_imposter_like_the_source() -> None:
    same = torch.eye(2, dtype=torch.float64)
    plain = imposter_contrastive_loss(same, same, temperature=1.0)
    assert plain.item() == pytest.approx(math.log1p(math.exp(-1)), abs=1e-12)
    with_imposter = imposter_contrastive_loss(same, same, imposters=same[:, None], temperature=1.0)
    assert with_imposter.item() == pytest.approx(-1 + math.log(2 * math.e + 1), abs=1e-12)


def two_terms(
    queries: Tensor, documents: Tensor, imposters: Tensor, distant: Tensor, first: float, second: float
) -> Tensor:
    """The objective of the card written out: the diagonal of the second matrix is the distant positive's."""
    q, d, i, x = (F.normalize(t, dim=-1) for t in (queries, documents, imposters, distant))
    target, own = torch.arange(len(q)), torch.eye(len(q), dtype=torch.bool)
    private = torch.einsum("qd,qkd->qk", q, i)
    cosine = q @ d.T
    replaced = torch.where(own, (q * x).sum(1, keepdim=True), cosine)
    one = F.cross_entropy(torch.cat([cosine, private], 1) / first, target)
    return (one + F.cross_entropy(torch.cat([replaced, private], 1) / second, target)) / 2


@pytest.mark.parametrize("distant_temperature", [None, 1.0])
@pytest.mark.parametrize("fused", [True, False])
def test_equals_two_matrices(distant_temperature: float | None, fused: bool) -> None:
    tensors = [normal(4, 3), normal(4, 3, seed=1), normal(4, 2, 3, seed=2), normal(4, 3, seed=3)]
    leaves = [tensor.requires_grad_() for tensor in tensors]
    found = imposter_contrastive_loss(
        leaves[0],
        leaves[1],
        imposters=leaves[2],
        distant=leaves[3],
        temperature=0.2,
        distant_temperature=distant_temperature,
        fused=fused,
    )
    expected = two_terms(*leaves, 0.2, distant_temperature or 0.2)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    pairs = zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs)


def test_masks_and_several_positives_reach_both_terms() -> None:
    queries, documents, distant = normal(3, 4), normal(5, 4, seed=1), normal(3, 4, seed=2)
    relevance = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[0, 4] = False
    cosine = F.normalize(queries) @ F.normalize(documents).T
    far = (F.normalize(queries) * F.normalize(distant)).sum(1, keepdim=True)
    negatives = mask & (relevance == 0)
    one = info_nce_loss(cosine, relevance, mask, temperature=0.1)
    listed = torch.cat([torch.ones(3, 1, dtype=torch.bool), negatives], 1)
    listed[2] = False  # no positive, no distant one
    two = info_nce_loss(torch.cat([far, cosine], 1), torch.eye(3, 6)[[0, 0, 0]], listed, temperature=0.1)
    found = imposter_contrastive_loss(queries, documents, relevance, mask, distant=distant)
    assert found.item() == pytest.approx(((one + two) / 2).item(), abs=1e-12)


# ---------------------------------------------------------------------------------- paper 114


def test_noise_climbs_and_every_step_has_its_length() -> None:
    anchors, documents, noise = normal(4, 5), normal(4, 5, seed=1), normal(6, 5, seed=2)
    scores = F.normalize(anchors) @ F.normalize(documents).T

    def disturbance(vectors: Tensor) -> Tensor:
        both = torch.cat([scores, F.normalize(anchors) @ F.normalize(vectors).T], 1) / 0.5
        return F.cross_entropy(both, torch.arange(4))

    before = noise
    for steps in range(1, 4):
        moved = adversarial_noise_negatives(anchors, scores, noise=noise, steps=steps, step_size=0.01, temperature=0.5)
        assert disturbance(moved) > disturbance(before)
        torch.testing.assert_close((moved - before).norm(dim=1), torch.full((6,), 0.01, dtype=torch.float64))
        before = moved
    assert torch.equal(adversarial_noise_negatives(anchors, scores, noise=noise, steps=0), noise)
    assert not moved.requires_grad


def test_noise_is_drawn_from_a_generator() -> None:
    anchors, scores = normal(4, 5), torch.eye(4, dtype=torch.float64)

    def drawn(seed: int, **options: Any) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return adversarial_noise_negatives(anchors, scores, generator=generator, **options)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert drawn(1).shape == (4, 5)
    assert drawn(1, count=0).shape == (0, 5)
    assert drawn(1, count=2000, steps=0).std().item() == pytest.approx(1.0, abs=0.05)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"scores": torch.zeros(2, 3)}, "scores"),
    ({"steps": -1}, "steps"),
    ({"count": -1}, "count"),
    ({"step_size": 0.0}, "step_size"),
    ({"temperature": 0.0}, "temperature"),
    ({"noise": None}, "generator"),
    ({"noise": torch.zeros(3, 2)}, "noise"),
]


@pytest.mark.parametrize(("options", "name"), BAD, ids=[name for _, name in BAD])
def test_bad_arguments_of_noise(options: dict[str, Any], name: str) -> None:
    given = {"anchors": torch.randn(3, 4), "scores": torch.eye(3), "noise": torch.randn(3, 4)} | options
    with pytest.raises(RivalsError, match=name):
        adversarial_noise_negatives(**given)


def test_bad_arguments_of_steps_and_of_the_loss() -> None:
    states = torch.randn(2, 3)
    for options, name in (
        ({"epsilon": 0.0}, "epsilon"),
        ({"norm": "batch"}, "norm"),
        ({"mask": torch.ones(2)}, "mask"),
    ):
        with pytest.raises(RivalsError, match=name):
            adversarial_negative(states, torch.sum, **options)  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="epsilon"):
        distant_positive(states, torch.sum, torch.sum, epsilon=-1.0)
    with pytest.raises(RivalsError, match="states"):
        adversarial_negative(torch.randn(3), torch.sum)
    with pytest.raises(RivalsError, match="distant_temperature"):
        imposter_contrastive_loss(states, states, distant=states, distant_temperature=0.0)
    with pytest.raises(RivalsError, match="distant"):
        imposter_contrastive_loss(states, states, distant=states[:1])
