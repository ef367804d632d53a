"""Clusters learnt along the way: the margin band, the combined loss, centroid steps (paper 85's checks), laws."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    OnlineClusters,
    bidirectional_margin_loss,
    cluster_negatives_loss,
    in_batch_info_nce_loss,
    update_centroids,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosines(left: Tensor, right: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(left[:, None], right, dim=2)


@pytest.mark.parametrize(("delta", "expected"), [(0.0, 0.1), (-0.2, 0.0), (-0.5, 0.2), (0.1, 0.2)])
def test_the_band_by_hand(delta: float, expected: float) -> None:
    """Check 1."""
    scores = torch.tensor([[0.5, 0.5 + delta]], dtype=torch.float64)
    suspects, own = torch.tensor([[False, True]]), torch.tensor([[1.0, 0.0]])
    loss = bidirectional_margin_loss(scores, own, suspects=suspects, alpha=0.1, beta=0.3, over="suspects")
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    everything = bidirectional_margin_loss(scores, own, suspects=suspects, alpha=0.1, beta=0.3)
    assert everything.item() == pytest.approx((expected + 0.1) / 2)


def test_without_suspects_the_band_costs_alpha() -> None:
    scores, nobody = normal(4, 4), torch.zeros(4, 4, dtype=torch.bool)
    assert bidirectional_margin_loss(scores, torch.eye(4), suspects=nobody, alpha=0.2).item() == pytest.approx(0.2)
    assert bidirectional_margin_loss(scores, torch.eye(4), suspects=nobody, alpha=0.2, over="suspects").item() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": 0.4}, "beta"),
        ({"over": "some"}, "over"),
        ({"suspects": torch.eye(2)}, "suspects"),
    ],
)
def test_bad_band(options: dict[str, Any], message: str) -> None:
    given = {"suspects": torch.zeros(2, 2, dtype=torch.bool)} | options
    with pytest.raises(RivalsError, match=message):
        bidirectional_margin_loss(normal(2, 2), torch.eye(2), **given)


# ---------------------------------------------------------------------------------- the combined loss


def directly(
    z1: Tensor,
    z2: Tensor,
    hard: Tensor | None,
    suspects: Tensor | None,
    t: float,
    w: float,
    mu: float,
    band: tuple[float, float],
) -> float:
    own, total, outside = cosines(z1, z2), 0.0, 0.0
    further = None if hard is None else cosines(z1, hard)
    for i in range(len(z1)):
        logits = [float(value) / t for value in own[i]]
        if further is not None:
            logits += [float(value) / t + (w if i == j else 0.0) for j, value in enumerate(further[i])]
        total += math.log(sum(map(math.exp, logits))) - logits[i]
        for j in range(len(z1)):
            delta = float(own[i, j] - own[i, i]) if suspects is not None and suspects[i, j] else 0.0
            outside += max(0.0, delta + band[0]) + max(0.0, -delta - band[1])
    return total / len(z1) + (0.0 if suspects is None else mu * outside / len(z1) ** 2)


@pytest.mark.parametrize("weight", [0.0, 1.5])
@pytest.mark.parametrize("given", ["none", "hard", "suspects", "both"])
def test_the_loss_by_loops(given: str, weight: float) -> None:
    z1, z2 = normal(5, 3), normal(5, 3, seed=1)
    hard = normal(5, 3, seed=2) if given in ("hard", "both") else None
    suspects = (normal(5, 5, seed=3) > 0).fill_diagonal_(False) if given in ("suspects", "both") else None
    found = cluster_negatives_loss(
        z1,
        z2,
        hard_negatives=hard,
        false_negatives=suspects,
        temperature=0.3,
        hard_negative_weight=weight,
        bml_weight=0.7,
        alpha=0.1,
        beta=0.4,
    )
    assert found.item() == pytest.approx(directly(z1, z2, hard, suspects, 0.3, weight, 0.7, (0.1, 0.4)))


def test_it_is_simcse_without_clusters() -> None:
    z1, z2 = normal(5, 3), normal(5, 3, seed=1)
    plain = in_batch_info_nce_loss(z1, z2)
    torch.testing.assert_close(cluster_negatives_loss(z1, z2), plain)
    suspects = torch.ones(5, 5, dtype=torch.bool)
    torch.testing.assert_close(cluster_negatives_loss(z1, z2, false_negatives=suspects, bml_weight=0.0), plain)
    nobody = torch.zeros(5, 5, dtype=torch.bool)
    alone = cluster_negatives_loss(z1, z2, false_negatives=nobody, bml_weight=1.0, alpha=0.1)
    torch.testing.assert_close(alone, plain + 0.1)


def test_false_negatives_can_leave_the_denominator() -> None:
    z1, z2, hard = normal(4, 3), normal(4, 3, seed=1), normal(4, 3, seed=2)
    suspects = torch.zeros(4, 4, dtype=torch.bool)
    suspects[0, 1:] = True
    found = cluster_negatives_loss(
        z1, z2, hard_negatives=hard, false_negatives=suspects, remove_false_negatives=True, bml_weight=0.0
    )
    logits = torch.cat([cosines(z1, z2), cosines(z1, hard)], dim=1) / 0.05
    logits[0, 1:4] = -torch.inf
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(logits, torch.arange(4)))


def test_absent_pairs_are_removed() -> None:
    tensors = [normal(6, 3, seed=seed) for seed in range(3)]
    suspects, mask = normal(6, 6, seed=4) > 0, torch.tensor([True, False, True, True, False, True])
    dirty = [tensor.clone() for tensor in tensors]
    for tensor in dirty:
        tensor[~mask] = torch.nan
    z1, z2 = (tensor.requires_grad_() for tensor in dirty[:2])
    found = cluster_negatives_loss(z1, z2, mask, hard_negatives=dirty[2], false_negatives=suspects, bml_weight=0.5)
    kept = [tensor[mask] for tensor in tensors]
    expected = cluster_negatives_loss(
        kept[0], kept[1], hard_negatives=kept[2], false_negatives=suspects[mask][:, mask], bml_weight=0.5
    )
    torch.testing.assert_close(found, expected)
    for gradient in torch.autograd.grad(found, [z1, z2]):
        assert torch.isfinite(gradient).all()
        assert (gradient[~mask] == 0).all()
    nothing = cluster_negatives_loss(z1, z2, torch.zeros(6, dtype=torch.bool))
    assert nothing.item() == 0
    assert (torch.autograd.grad(nothing, z1)[0] == 0).all()


def test_gradient_and_none_into_the_centroids() -> None:
    z1, z2 = (normal(4, 3, seed=seed).requires_grad_() for seed in (0, 1))
    hard, suspects = normal(4, 3, seed=2).requires_grad_(), normal(4, 4, seed=3) > 0

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return cluster_negatives_loss(
            a, b, hard_negatives=hard, false_negatives=suspects, temperature=0.5, bml_weight=1.0, alpha=0.1
        )

    assert torch.autograd.gradcheck(loss, (z1, z2))
    assert torch.autograd.grad(loss(z1, z2), hard, allow_unused=True)[0] is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extremes(dtype: torch.dtype) -> None:
    z1, z2 = ((normal(5, 3, seed=seed).sign() * 1e4).to(dtype).requires_grad_() for seed in (0, 1))
    suspects = normal(5, 5, seed=3) > 0
    loss = cluster_negatives_loss(z1, z2, hard_negatives=z2, false_negatives=suspects, bml_weight=1.0)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(loss, [z1, z2]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"bml_weight": -1.0}, "bml_weight"),
        ({"hard_negative_weight": math.inf}, "hard_negative_weight"),
        ({"alpha": 0.5}, "beta"),
        ({"remove_false_negatives": True}, "false_negatives"),
        ({"hard_negatives": normal(4, 2)}, "hard_negatives"),
        ({"false_negatives": torch.eye(3)}, "boolean"),
        ({"false_negatives": torch.ones(3, 2, dtype=torch.bool)}, "false_negatives"),
        ({"documents": normal(4, 2)}, "documents"),
        ({"mask": torch.ones(3)}, "boolean"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        cluster_negatives_loss(**({"queries": normal(3, 2), "documents": normal(3, 2, seed=1)} | options))


# ---------------------------------------------------------------------------------- centroids


def started(centroids: Tensor, **options: Any) -> OnlineClusters:
    clusters = OnlineClusters(centroids.shape[1], num_clusters=len(centroids), **options).to(centroids.dtype)
    clusters.start(centroids)
    return clusters


def test_two_orthogonal_clusters() -> None:
    """Check 2."""
    clusters = started(torch.eye(2))
    points = torch.tensor([[2.0, 0.1], [0.3, 1.0]])
    assert clusters.assign(points).tolist() == [0, 1]
    assert torch.equal(clusters.hard_negatives(points), torch.eye(2)[[1, 0]])
    assert torch.equal(clusters.hard_negatives(points, rank=1), torch.eye(2))
    assert not clusters.false_negatives(points).any()
    with pytest.raises(RivalsError, match="rank"):
        clusters.ranked(points, rank=3)


def test_updates_by_hand() -> None:
    """Check 4, and the other rules; a cluster without members stays."""
    centroids, members = normal(3, 2), normal(4, 2, seed=1)
    clusters = torch.tensor([0, 0, 2, 0])
    total = members[[0, 1, 3]].sum(0)
    for rule, expected in (
        ("momentum", 0.1 * total + 0.9 * centroids[0]),
        ("sum", total),
        ("mean", total / 3),
    ):
        found = update_centroids(centroids, members, clusters, rate=0.1, update=rule)
        torch.testing.assert_close(found[0], expected)
        assert torch.equal(found[1], centroids[1])
    with pytest.raises(RivalsError, match="update"):
        update_centroids(centroids, members, clusters, update="adamw")


def test_adamw_is_torchs() -> None:
    centroids = normal(3, 2)
    clusters = started(centroids.clone(), update="adamw", rate=0.01)
    parameter = torch.nn.Parameter(centroids.clone())
    optimizer = torch.optim.AdamW([parameter], lr=0.01, weight_decay=0.0, eps=1e-6)
    for seed in range(4):
        points = normal(5, 2, seed=seed)
        nearest = cosines(points, parameter.detach()).argmax(1)
        torch.nn.functional.mse_loss(parameter[nearest], points).backward()
        optimizer.step()
        optimizer.zero_grad()
        clusters.update(points)
        torch.testing.assert_close(clusters.centroids, parameter.detach())


def test_lengths_of_centroids_change_nothing() -> None:
    points, centroids = normal(6, 3), normal(4, 3, seed=1)
    one, other = started(centroids), started(centroids * torch.tensor([[0.1], [3.0], [50.0], [1.0]]))
    assert torch.equal(one.assign(points), other.assign(points))
    assert torch.equal(one.ranked(points), other.ranked(points))
    assert torch.equal(one.false_negatives(points), other.false_negatives(points))


def test_clusters_are_updated_before_they_are_asked() -> None:
    points = normal(6, 3)
    clusters, twin = started(normal(3, 3, seed=1), rate=0.9), started(normal(3, 3, seed=1), rate=0.9)
    view = clusters.step(points, points)
    twin.update(points)
    assert view is not None
    torch.testing.assert_close(view.hard_negatives, twin.hard_negatives(points))
    assert torch.equal(view.false_negatives, twin.false_negatives(points))
    assert not view.false_negatives.diagonal().any()


@pytest.mark.parametrize(("threshold", "begins"), [(0.39, False), (0.41, True)])
def test_when_clustering_starts(threshold: float, begins: bool) -> None:
    """Check 6: a batch whose mean cosine is 0.4."""
    angle = math.acos(math.sqrt(0.4) * 0.999999)
    first = torch.tensor([[math.cos(angle), math.sin(angle)], [math.cos(angle), -math.sin(angle)]]).double()
    queries = torch.cat([first, first * 2])
    assert cosines(queries, queries).mean().item() == pytest.approx(0.4, abs=1e-5)
    clusters = OnlineClusters(2, num_clusters=2, start_cosine=threshold).double()
    draw = torch.Generator().manual_seed(0)
    assert clusters.step(queries, queries, generator=draw) is None  # this step still goes without clusters
    assert bool(clusters.started) is begins
    assert (clusters.step(queries, queries, generator=draw) is not None) is begins


def test_first_centroids_are_a_chain_of_unlike_rows() -> None:
    points = normal(8, 3)
    cosine = cosines(points, points)
    for seed in range(5):
        clusters = OnlineClusters(3, num_clusters=8).double()
        clusters.start_from(points, cosine, generator=torch.Generator().manual_seed(seed))
        order = [int((points == row).all(1).nonzero()) for row in clusters.centroids]
        assert sorted(order) == list(range(8))  # distinct rows of the batch
        for place in range(1, 8):
            left = [row for row in range(8) if row not in order[:place]]
            assert order[place] == min(left, key=lambda row: float(cosine[order[place - 1], row]))


def test_state_is_saved_and_no_gradient_is_kept() -> None:
    points = normal(6, 3).requires_grad_()
    clusters = started(normal(3, 3, seed=1), update="adamw")
    view = clusters.step(points, points)
    assert view is not None
    assert not view.hard_negatives.requires_grad
    assert not clusters.centroids.requires_grad
    other = OnlineClusters(3, num_clusters=3, update="adamw").double()
    other.load_state_dict(clusters.state_dict())
    clusters.update(points)
    other.update(points)
    assert torch.equal(clusters.centroids, other.centroids)


def test_bad_clusters() -> None:
    for options, message in (
        ({"num_clusters": 1}, "num_clusters"),
        ({"rate": 0.0}, "rate"),
        ({"rate": 1.5}, "rate"),
        ({"update": "sgd"}, "update"),
    ):
        with pytest.raises(RivalsError, match=message):
            OnlineClusters(2, **options)  # type: ignore[arg-type]
    waiting = OnlineClusters(2, num_clusters=4, start_cosine=1.0)
    points = torch.eye(2)
    with pytest.raises(RivalsError, match="not started"):
        waiting.hard_negatives(points)
    with pytest.raises(RivalsError, match="at least as many rows"):
        waiting.step(points, points, generator=torch.Generator())
    patient = OnlineClusters(2, num_clusters=4, start_cosine=1.0, defer=True)
    assert patient.step(points, points, generator=torch.Generator()) is None
    assert not bool(patient.started)
    with pytest.raises(RivalsError, match="generator"):
        OnlineClusters(2, num_clusters=2, start_cosine=1.0).step(points, points)
