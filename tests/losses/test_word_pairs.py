"""Contrastive losses on pairs: paper 75's checks, the hard pairs, and sentence-transformers as a peer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import bimodal_contrastive_loss, online_contrastive_loss, pair_contrastive_loss


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


DISTANCES, SAME = torch.tensor([0.3, 0.3, 1.2]).double(), torch.tensor([1, 0, 0])


def test_by_hand() -> None:
    """Check 1: 0.045, 0.245 and 0."""
    assert pair_contrastive_loss(-DISTANCES, SAME).item() == pytest.approx(0.09666666666666666)
    balanced = pair_contrastive_loss(-DISTANCES, SAME, balance=True)
    assert balanced.item() == pytest.approx(0.045 + 0.245 / 2)
    assert pair_contrastive_loss(-DISTANCES, SAME, reduction="none").item() == pytest.approx(0.29)


def test_what_costs_nothing_and_where_gradients_point() -> None:
    assert pair_contrastive_loss(-torch.tensor([0.0, 1.0, 3.0]), SAME).item() == 0
    distances = torch.tensor([0.4, 0.4], dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(pair_contrastive_loss(-distances, torch.tensor([1, 0])), distances)
    assert gradient[0] > 0 > gradient[1]  # a step against the gradient: the same nearer, the different farther


def hard(distances: Tensor, same: Tensor, margin: float) -> tuple[float, int]:
    near, far = distances[same == 1], distances[same == 0]
    limit = near.max() if len(near) else far.mean()
    start = far.min() if len(far) else near.mean()
    chosen = near[near > start], far[far < limit]
    total = chosen[0].square().sum() + (margin - chosen[1]).clamp(min=0).square().sum()
    return float(total), len(chosen[0]) + len(chosen[1])


@pytest.mark.parametrize("seed", range(5))
def test_hard_pairs(seed: int) -> None:
    distances, same = normal(12, seed=seed).abs(), (normal(12, seed=seed + 50) > 0).long()
    total, count = hard(distances, same, 1.1)
    assert online_contrastive_loss(-distances, same, margin=1.1).item() == pytest.approx(total)
    mean = online_contrastive_loss(-distances, same, margin=1.1, reduction="mean")
    assert mean.item() == pytest.approx(total / max(count, 1))
    for one_kind in (torch.ones_like(same), torch.zeros_like(same)):
        value = online_contrastive_loss(-distances, one_kind, margin=1.1)
        assert value.item() == pytest.approx(hard(distances, one_kind, 1.1)[0])
    assert online_contrastive_loss(-distances[:1], torch.ones(1)).item() == 0  # not above its own mean


def test_every_list_chooses_by_itself() -> None:
    distances, same = normal(3, 6).abs(), (normal(3, 6, seed=1) > 0).long()
    expected = [hard(row, label, 1.0)[0] for row, label in zip(distances, same, strict=True)]
    assert online_contrastive_loss(-distances, same, reduction="none").tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["ContrastiveLoss", "OnlineContrastiveLoss"])
def test_sentence_transformers_agrees(name: str) -> None:
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    distances, same = normal(9).abs().float(), (normal(9, seed=1) > 0).long()
    peer = getattr(losses, name)(
        torch.nn.Identity(), distance_metric=lambda left, right: (left - right).norm(dim=1), margin=0.9
    )
    pairs = [torch.zeros(9, 2), torch.stack([distances, torch.zeros(9)], dim=1)]
    ours = {"ContrastiveLoss": pair_contrastive_loss, "OnlineContrastiveLoss": online_contrastive_loss}[name]
    torch.testing.assert_close(ours(-distances, same, margin=0.9), peer.compute_loss_from_embeddings(pairs, same))


# ---------------------------------------------------------------------------------- two encoders


def pair_sum(left: Tensor, right: Tensor, same: Tensor, margin: float, skip: bool) -> tuple[float, int]:
    total, count = 0.0, 0
    for i in range(len(left)):
        for j in range(len(right)):
            if skip and i == j:
                continue
            d = float((left[i] - right[j]).norm())
            total += 0.5 * d * d if same[i, j] else 0.5 * max(0.0, margin - d) ** 2
            count += 1
    return total, count


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("sides", [(1.0, 0.0, 0.0), (1.0, 0.5, 2.0), (0.0, 1.0, 0.0)])
def test_all_pairs_by_loops(sides: tuple[float, float, float], normalize: bool) -> None:
    speech, phones = normal(5, 3), normal(4, 3, seed=1)
    words, written = torch.tensor([0, 1, 1, 2, 0]), torch.tensor([1, 2, 3, 0])
    left, right = ((v / v.norm(dim=1, keepdim=True)) if normalize else v for v in (speech, phones))
    expected = 0.0
    for weight, a, b, x, y in zip(
        sides,
        (left, left, right),
        (right, left, right),
        (words, words, written),
        (written, words, written),
        strict=True,
    ):
        total, count = pair_sum(a, b, x[:, None] == y, 1.3, a is b)
        expected += weight * total / count
    found = bimodal_contrastive_loss(
        speech, phones, query_groups=words, document_groups=written, margin=1.3, sides=sides, normalize=normalize
    )
    assert found.item() == pytest.approx(expected)


def test_modalities_may_be_swapped() -> None:
    speech, phones, words, written = normal(5, 3), normal(4, 3, seed=1), torch.arange(5) % 3, torch.arange(4) % 3
    for options in ({}, {"hard_only": True}, {"balance": True}):
        one = bimodal_contrastive_loss(speech, phones, query_groups=words, document_groups=written, **options)  # type: ignore[arg-type]
        other = bimodal_contrastive_loss(phones, speech, query_groups=written, document_groups=words, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(one, other)


def test_equal_modalities() -> None:
    """Check 4: with a == b the three sides have the same pairs, once the cross pairs leave out the diagonal."""
    vectors, words = normal(5, 3), torch.tensor([0, 1, 1, 2, 0])
    groups: dict[str, Any] = {"query_groups": words, "document_groups": words}
    apart = ~torch.eye(5, dtype=torch.bool)
    cross = bimodal_contrastive_loss(vectors, vectors, mask=apart, **groups)
    within = bimodal_contrastive_loss(vectors, vectors, sides=(0.0, 1.0, 1.0), **groups)
    torch.testing.assert_close(within, 2 * cross)
    everything = bimodal_contrastive_loss(vectors, vectors, mask=apart, sides=(1.0, 1.0, 1.0), **groups)
    torch.testing.assert_close(everything, 3 * cross)


def test_hard_pairs_of_a_batch() -> None:
    speech, phones, words, written = normal(5, 3), normal(4, 3, seed=1), torch.arange(5) % 3, torch.arange(4) % 3
    left, right = (v / v.norm(dim=1, keepdim=True) for v in (speech, phones))
    total, count = hard(torch.cdist(left, right).flatten(), (words[:, None] == written).long().flatten(), 1.0)
    found = bimodal_contrastive_loss(speech, phones, query_groups=words, document_groups=written, hard_only=True)
    assert found.item() == pytest.approx(total / count)


def test_without_labels_the_diagonal_is_the_same_word() -> None:
    speech, phones = normal(3, 2), normal(4, 2, seed=1)
    by_relevance = bimodal_contrastive_loss(speech, phones, torch.eye(3, 4))
    torch.testing.assert_close(bimodal_contrastive_loss(speech, phones), by_relevance)
    numbered = bimodal_contrastive_loss(
        speech, phones, query_groups=torch.arange(3), document_groups=torch.arange(4), sides=(1.0, 1.0, 1.0)
    )
    torch.testing.assert_close(bimodal_contrastive_loss(speech, phones, sides=(1.0, 1.0, 1.0)), numbered)


def test_absent_rows_leave_all_sides() -> None:
    speech, phones = normal(4, 2), normal(3, 2, seed=1)
    groups = {"query_groups": torch.tensor([0, 1, 0, 1]), "document_groups": torch.tensor([0, 1, 1])}
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[2], mask[:, 1] = False, False
    dirty = [speech.clone(), phones.clone()]
    dirty[0][2], dirty[1][1] = torch.nan, torch.nan
    leaves = [tensor.requires_grad_() for tensor in dirty]
    sides = (1.0, 1.0, 1.0)
    found = bimodal_contrastive_loss(*leaves, mask=mask, sides=sides, **groups)  # type: ignore[arg-type]
    rows, columns = [0, 1, 3], [0, 2]
    kept = {"query_groups": groups["query_groups"][rows], "document_groups": groups["document_groups"][columns]}
    torch.testing.assert_close(
        found,
        bimodal_contrastive_loss(speech[rows], phones[columns], sides=sides, **kept),  # type: ignore[arg-type]
    )
    gradients = torch.autograd.grad(found, leaves)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert (gradients[0][2] == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0.0}, "margin"),
        ({"sides": (1.0, 0.0)}, "sides"),
        ({"sides": (1.0, -1.0, 0.0)}, "sides"),
        ({"sides": (1.0, 1.0, 0.0), "relevance": torch.eye(3)}, "sides"),
        ({"query_groups": torch.arange(2), "document_groups": torch.arange(3)}, "query_groups"),
        ({"query_groups": torch.arange(3)}, "together"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        bimodal_contrastive_loss(normal(3, 2), normal(3, 2, seed=1), **options)
