"""Vectors made for a training batch: the cards' checks of papers 34, 99, 114 and 85 in their batch form, masks, laws."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    OnlineClusters,
    debiased_contrastive_loss,
    false_negative_weights,
    imposter_contrastive_loss,
    in_batch_info_nce_loss,
    info_nce_loss,
    momentum_contrast_loss,
)
from rivals.negatives.vector_batch import VectorBatch
from rivals.negatives.vector_generators import (
    Adversarial,
    CentroidNegatives,
    MixedFeatures,
    NoiseNegatives,
    neighbourhood_divergence,
    retrieval_loss,
)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=draws(seed), dtype=torch.float64), dim=-1)


def batch(size: int = 6, documents: int = 9, width: int = 5, seed: int = 0) -> VectorBatch:
    return VectorBatch.in_batch(rows(size, width, seed=seed), rows(documents, width, seed=seed + 1))


# -------------------------------------------------------------------------------------------------------- the batch


def test_lists_are_the_in_batch_loss():
    made = batch()
    expected = in_batch_info_nce_loss(made.queries, made.negatives, temperature=0.1)
    assert float(info_nce_loss(*made.lists(), temperature=0.1)) == pytest.approx(float(expected))
    mask = torch.rand(6, 9, generator=draws()) > 0.4
    mask |= torch.eye(6, 9, dtype=torch.bool)
    masked = VectorBatch.in_batch(made.queries, made.negatives, mask)
    expected = in_batch_info_nce_loss(made.queries, made.negatives, mask=mask, temperature=0.1)
    assert float(info_nce_loss(*masked.lists(), temperature=0.1)) == pytest.approx(float(expected))


def test_masks_of_a_complementary_model():
    """Check 2 and 3 of paper 114: a weight of 0 is a deleted column, its positive is never masked."""
    queries, documents = rows(6, 5), rows(6, 5, seed=1)
    weight = false_negative_weights(rows(6, 4, seed=2), rows(6, 4, seed=3), threshold=0.2)
    made = VectorBatch.in_batch(queries, documents, weight > 0)
    ours = info_nce_loss(*made.lists(), temperature=0.05)
    assert float(ours) == pytest.approx(float(debiased_contrastive_loss(queries, documents, weight=weight)))


def test_private_negatives_are_seen_by_their_own_query():
    """Check 4 of paper 99: rows 1, 0, 1 give 0.861995."""
    made = replace(VectorBatch.in_batch(torch.eye(2), torch.eye(2)), private=torch.eye(2)[:, None])
    assert made.lists().scores.tolist() == [[1, 1, 0, 1], [1, 0, 1, 1]]
    assert float(info_nce_loss(*made.lists(), temperature=1.0)) == pytest.approx(0.861995, abs=1e-6)


# ------------------------------------------------------------------------------------------------------- paper 34


def test_mixing_keeps_sums_and_means():
    """Checks 2 and 3, and 5: the positive score never rises."""
    made = VectorBatch(rows(7, 5), rows(7, 5, seed=1), rows(11, 5, seed=2))
    for seed in range(20):
        mixed = MixedFeatures()(made, generator=draws(seed))
        assert torch.allclose(mixed.queries + mixed.positives, made.queries + made.positives)
        assert torch.allclose(mixed.negatives.mean(0), made.negatives.mean(0))
        before, after = ((m.queries * m.positives).sum(1) for m in (made, mixed))
        assert (after <= before + 1e-9).all()
        assert mixed.negatives.norm(dim=1).max() <= 1 + 1e-9


def test_the_loss_is_that_of_momentum_contrast():
    query, key, queue = rows(4, 5), rows(4, 5, seed=1), rows(20, 5, seed=2)
    mixed = MixedFeatures()(VectorBatch(query, key, queue), generator=draws())
    expected = momentum_contrast_loss(
        mixed.queries, mixed.positives, mixed.negatives, temperature=0.07, normalize=False
    )
    ours = info_nce_loss(*mixed.lists(normalize=False), temperature=0.07)
    assert float(ours) == pytest.approx(float(expected))


def test_gradient_flows_through_both_sides():
    """Check 4: the key carries the query too, and neither queue nor key gets a gradient they did not ask for."""
    query = rows(3, 5).requires_grad_()
    mixed = MixedFeatures(negatives=False)(VectorBatch(query, rows(3, 5, seed=1), rows(4, 5)), generator=draws())
    gradients = []
    for made in (mixed, replace(mixed, positives=mixed.positives.detach())):
        (gradient,) = torch.autograd.grad(info_nce_loss(*made.lists(), temperature=0.2), query, retain_graph=True)
        gradients.append(gradient)
    assert not torch.allclose(*gradients)


def test_a_mixture_counts_where_both_parts_may():
    made = batch(4, 4)
    mixed = MixedFeatures(positives=False)(made, generator=draws(3))
    generator = draws(3)
    order = torch.randperm(4, generator=generator)
    assert made.allowed is not None
    assert mixed.allowed is not None
    assert torch.equal(mixed.allowed, made.allowed & made.allowed[:, order])
    added = MixedFeatures(positives=False, append=True)(made, generator=draws(3))
    assert torch.equal(added.negatives, torch.cat([made.negatives, mixed.negatives]))
    assert torch.equal(added.allowed, torch.cat([made.allowed, mixed.allowed], 1))  # type: ignore[arg-type]


def test_mixing_begins_at_its_step():
    made = batch()
    rule = MixedFeatures(start_step=5)
    assert rule(made, step=4, generator=draws()) is made
    assert rule(made, step=5, generator=draws()) is not made


# ------------------------------------------------------------------------------------------------------ paper 114


def test_noise_is_shared_unit_and_constant():
    made = batch()
    leaf = replace(made, queries=made.queries.requires_grad_())
    noisy = NoiseNegatives(times=1.5)(leaf, generator=draws())
    assert noisy.negatives.shape == (9 + 9, 5)
    assert torch.allclose(noisy.negatives[9:].norm(dim=1), torch.ones(9, dtype=torch.float64))
    assert not noisy.negatives[9:].requires_grad
    assert noisy.allowed is not None
    assert noisy.allowed[:, 9:].all()
    again = NoiseNegatives(times=1.5)(made, generator=draws())
    assert torch.equal(again.negatives, noisy.negatives.detach())
    assert len(NoiseNegatives(times=0.1)(made, generator=draws()).negatives) == 9


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_noise_never_lowers_the_loss_and_ascends(seed):
    """Checks 4 and 5 of the card."""
    made = batch(seed=seed)
    losses = [float(info_nce_loss(*made.lists(), temperature=0.05))]
    for steps in (0, 4, 12):
        rule = NoiseNegatives(steps=steps, step_size=1e-2)
        losses.append(float(info_nce_loss(*rule(made, generator=draws(seed + 5000)).lists(), temperature=0.05)))
    assert losses[1] > losses[0]
    assert all(later > before - 1e-3 for before, later in pairwise(losses))


def test_noise_in_the_paper_form():
    made = VectorBatch.in_batch(rows(5, 8), rows(5, 8, seed=1))
    noisy = NoiseNegatives()(made, generator=draws(9))
    expected = debiased_contrastive_loss(made.queries, made.positives, noise=noisy.negatives[5:])
    found = float(info_nce_loss(*noisy.lists(), temperature=0.05))
    assert found == pytest.approx(float(expected))
    farther = NoiseNegatives(steps=30, step_size=0.05)(made, generator=draws(9))
    assert float(info_nce_loss(*farther.lists(), temperature=0.05)) > found + 1


# ------------------------------------------------------------------------------------------------------- paper 99


def test_imposters_are_close_and_less_likely():
    """Checks 1, 2 and 6."""
    made = batch(8, 8, seed=4)
    scaled = replace(made, positives=3 * made.positives)
    imposters = Adversarial(imposter=0.2)(scaled, generator=draws()).private
    assert imposters is not None
    moved = (imposters[:, 0] - scaled.positives).norm(dim=1)
    assert moved.tolist() == pytest.approx([0.6] * 8)  # a share of the mean length
    tiny = Adversarial(imposter=1e-3)(made, generator=draws()).private
    assert tiny is not None
    leaf = made.positives.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(retrieval_loss(made, leaf), leaf)
    rise = float(retrieval_loss(made, tiny[:, 0]) - retrieval_loss(made, made.positives))
    assert rise == pytest.approx(1e-3 * float(gradient.norm(dim=1).sum()), rel=0.05)
    query = made.queries.clone().requires_grad_()
    Adversarial(distant=0.3)(replace(made, queries=query), generator=draws())
    assert query.grad is None


def test_distant_positives_are_farther_and_alike():
    """Check 3: less like the query than before, and the second step brings the meaning nearer again."""
    found = {"cosine": [], "divergence": []}
    for seed in range(10):
        made = batch(8, 30, width=12, seed=3 * seed)
        away = Adversarial(imposter=0.3)(made, generator=draws()).private
        distant = Adversarial(imposter=None, distant=0.3)(made, generator=draws()).distant
        assert away is not None
        assert distant is not None
        states = (made.positives, away[:, 0], distant)
        found["cosine"].append([float(F.cosine_similarity(made.queries, each, dim=1).mean()) for each in states])
        found["divergence"].append([float(neighbourhood_divergence(made, each)) for each in states])
    cosine, divergence = (torch.tensor(each).mean(0).tolist() for each in found.values())
    assert cosine[1] < cosine[0]
    assert cosine[2] < cosine[0]
    assert divergence[0] == pytest.approx(0, abs=1e-7)
    assert divergence[2] < divergence[1] / 2


def test_both_terms_are_the_house_loss():
    """Check 5 and the whole of the loss: private imposters, and distant positives in a second term."""
    queries, documents = rows(5, 7), rows(5, 7, seed=1)
    made = Adversarial(imposter=0.3, distant=0.3)(VectorBatch.in_batch(queries, documents), generator=draws())
    terms = [info_nce_loss(*each.lists(), temperature=0.1) for each in (made, made.with_distant_as_positives())]
    expected = imposter_contrastive_loss(
        queries, documents, imposters=made.private, distant=made.distant, temperature=0.1
    )
    assert float(sum(terms) / 2) == pytest.approx(float(expected))


def test_losses_of_ones_own():
    made = batch()
    towards = torch.zeros(5, dtype=torch.float64)
    towards[2] = 1
    moved = Adversarial(imposter=0.5, likelihood=lambda batch, states: (states @ towards).sum())(
        made, generator=draws()
    )
    assert moved.private is not None
    assert torch.allclose(moved.private[:, 0], made.positives + 0.5 * towards)
    twice = Adversarial(imposter=0.5)(moved, generator=draws())
    assert twice.private is not None
    assert twice.private.shape == (6, 2, 5)


# ------------------------------------------------------------------------------------------------------- paper 85


def test_centroids_of_the_second_nearest_cluster():
    clusters = OnlineClusters(2, num_clusters=3, rate=1e-6)
    clusters.start(torch.tensor([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]]))
    queries = torch.tensor([[1.0, 0.1], [0.7, 0.7], [-1.0, 0.2]])
    made = VectorBatch.in_batch(queries, torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0]]))
    hard = CentroidNegatives(clusters)(made, generator=draws())
    assert hard.negatives[3:].tolist() == pytest.approx(torch.tensor([[0.8, 0.6], [1.0, 0.0], [0.8, 0.6]]), abs=1e-4)
    apart = CentroidNegatives(clusters, remove_mates=True)(made, generator=draws())
    assert apart.allowed is not None
    assert apart.allowed[:, :3].tolist() == [[False, False, True], [True, False, True], [True, True, False]]
    assert apart.allowed[:, 3:].all()


def test_nothing_until_the_clusters_start():
    clusters = OnlineClusters(5, num_clusters=3, start_cosine=0.4)
    alike = VectorBatch.in_batch(torch.ones(4, 5), torch.ones(4, 5))
    assert CentroidNegatives(clusters)(alike, generator=draws()) is alike
    apart = VectorBatch.in_batch(torch.eye(5)[:4], torch.eye(5)[:4])
    assert CentroidNegatives(clusters)(apart, generator=draws()) is apart  # this batch starts them
    assert len(CentroidNegatives(clusters)(apart, generator=draws()).negatives) == 8


# ----------------------------------------------------------------------------------------------------- composition


def test_generators_in_turn():
    made = batch()
    chain = MixedFeatures() >> NoiseNegatives() >> Adversarial(imposter=0.2)
    one, generator = chain(made, step=3, generator=draws()), draws()
    two = made
    for rule in (MixedFeatures(), NoiseNegatives(), Adversarial(imposter=0.2)):
        two = rule(two, step=3, generator=generator)
    assert torch.equal(one.lists().scores, two.lists().scores)
    assert "NoiseNegatives" in repr(chain)
    assert torch.isfinite(one.lists().scores).all()


def test_empty_batches():
    empty = VectorBatch.in_batch(torch.zeros(0, 4), torch.zeros(0, 4))
    for rule in (MixedFeatures(), NoiseNegatives(), Adversarial()):
        assert len(rule(empty, generator=draws()).queries) == 0
    alone = VectorBatch(rows(1, 4), rows(1, 4, seed=1), torch.zeros(0, 4, dtype=torch.float64))
    assert math.isclose(float(info_nce_loss(*alone.lists(), temperature=0.1)), 0, abs_tol=1e-9)


def test_bad_input():
    q = torch.zeros(2, 3)
    for call, message in (
        (lambda: VectorBatch(q[0], q, q), r"queries \[B, D\] and negatives"),
        (lambda: VectorBatch(q, q[:1], q), r"positives must have shape \[2, 3\]"),
        (lambda: VectorBatch(q, q, q[:, :2]), r"negatives must have shape \[2, 3\]"),
        (lambda: VectorBatch(q, q, q, torch.ones(2, 3, dtype=torch.bool)), r"allowed must have shape \[2, 2\]"),
        (lambda: VectorBatch(q, q, q, torch.ones(2, 2)), "allowed must be boolean"),
        (lambda: VectorBatch(q, q, q, private=q), r"private must have shape"),
        (lambda: VectorBatch(q, q, q, distant=q[:1]), r"distant must have shape \[2, 3\]"),
        (lambda: VectorBatch.in_batch(q, q[:1]), "need at least as many documents"),
        (lambda: VectorBatch.in_batch(q, q, torch.ones(2, 2)), "mask must be bool"),
        (lambda: VectorBatch(q, q, q).with_distant_as_positives(), "no distant positives"),
        (lambda: MixedFeatures(positives=False, negatives=False), "nothing to do"),
        (lambda: MixedFeatures(positive_alpha=0.0), "positive_alpha must be"),
        (lambda: MixedFeatures(distribution="normal"), "distribution must be"),  # type: ignore[arg-type]
        (lambda: MixedFeatures(start_step=-1), "start_step must be"),
        (lambda: NoiseNegatives(times=-1.0), "times must be a finite number, 0 or more"),
        (lambda: NoiseNegatives(step_size=0.0), "step_size must be a finite number above 0"),
        (lambda: Adversarial(imposter=None), "nothing to make"),
        (lambda: Adversarial(imposter=0.0), "imposter must be a finite number above 0"),
        (lambda: Adversarial()(VectorBatch(q, q, q), generator=draws()), "all of length 0"),
        (lambda: neighbourhood_divergence(VectorBatch(q, q, q[:0]), q), "without negatives"),
    ):
        with pytest.raises(RivalsError, match=message):
            call()
