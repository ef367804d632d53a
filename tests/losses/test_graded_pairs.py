"""Graded margins, one softmax per positive, CoSENT and AnglE: hand values, definitions, limits, the law of the pair forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.errors import RivalsError
from rivals.losses import (
    angle_loss,
    angle_similarity,
    balanced_rerank_loss,
    cosent_loss,
    graded_margin_loss,
    info_nce_loss,
    multi_positive_softmax_loss,
    ordinal_ranking_loss,
    pairwise_hinge_loss,
    pairwise_logistic_loss,
)
from rivals.models.late_interaction import sentence_attention_score

few = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def by_definition(scores: torch.Tensor, labels: torch.Tensor, scale: float) -> torch.Tensor:
    pairs = [
        torch.exp(scale * (scores[j] - scores[i]))
        for i in range(len(labels))
        for j in range(len(labels))
        if labels[i] > labels[j]
    ]
    return torch.log1p(torch.stack(pairs).sum()) if pairs else scores.sum() * 0


def test_cosent_by_hand() -> None:
    scores = torch.tensor([0.9, 0.2, 0.5], dtype=torch.float64)
    assert ordinal_ranking_loss(scores, torch.tensor([3, 1, 2])).item() == pytest.approx(0.00281109151062613, rel=1e-9)
    found = ordinal_ranking_loss(torch.tensor([0.2, 0.9], dtype=torch.float64), torch.tensor([2, 1]))
    assert found.item() == pytest.approx(14.000000831528373, rel=1e-12)
    found = ordinal_ranking_loss(torch.tensor([0.2, 0.6], dtype=torch.float64), torch.tensor([1, 0]), scale=10)
    assert found.item() == pytest.approx(4.018149928, rel=1e-9)


@few
@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([1.0, 20.0]))
def test_sorted_equals_the_definition(seed: int, size: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(size, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 4, (size,), generator=generator)
    ours, plain = ordinal_ranking_loss(scores, labels, scale=scale), by_definition(scores, labels, scale)
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(ours, scores)[0], torch.autograd.grad(plain, scores)[0])


def test_only_the_order_of_labels_counts() -> None:
    scores, labels = torch.randn(8), torch.tensor([0.0, 1, 2, 2, 3, 0, 1, 4])
    torch.testing.assert_close(ordinal_ranking_loss(scores, labels), ordinal_ranking_loss(scores, labels.exp()))
    assert ordinal_ranking_loss(scores, torch.ones(8)) == 0


def test_two_candidates_are_a_logistic_pair() -> None:
    scores, labels = torch.randn(5, 2), torch.tensor([[1.0, 0.0]] * 5)
    torch.testing.assert_close(
        ordinal_ranking_loss(scores, labels, scale=3.0), pairwise_logistic_loss(3 * scores, labels)
    )


@pytest.mark.parametrize(
    ("left", "right", "value"),
    [
        ((1, 0), (0, 1), 1.0),
        ((0, 1), (1, 0), 1.0),
        ((1, 0), (1, 0), 1.0),
        ((1, 0), (-1, 0), 1.0),
        ((1, 0), (1, 1), 0.0),
        ((1, 1), (1, 0), math.sqrt(2)),
    ],
)
def test_angle_similarity_by_hand(left: tuple[int, int], right: tuple[int, int], value: float) -> None:
    found = angle_similarity(torch.tensor(left, dtype=torch.float64), torch.tensor(right, dtype=torch.float64))
    assert found.item() == pytest.approx(value, abs=1e-12)


def test_the_peer_agrees() -> None:
    losses = pytest.importorskip("sentence_transformers.losses")
    torch.manual_seed(0)
    a, b, labels = torch.randn(7, 6), torch.randn(7, 6), torch.tensor([0.0, 1, 2, 2, 3, 5, 1])
    for ours, theirs in ((cosent_loss, losses.CoSENTLoss), (angle_loss, losses.AnglELoss)):
        peer = theirs(torch.nn.Identity()).compute_loss_from_embeddings([a, b], labels)
        torch.testing.assert_close(ours(a, b, labels), peer)


@pytest.mark.parametrize("loss", [cosent_loss, angle_loss])
def test_laws_of_the_pair_forms(loss: type) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    labels, mask = torch.tensor([0.0, 1, 2, 2, 3]), torch.tensor([True, True, False, True, True])
    value = loss(a, b, labels, mask)
    torch.testing.assert_close(value, loss(a[mask], b[mask], labels[mask]))
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(value, loss(a[order], b[order], labels[order], mask[order]))
    leaves = [t.clone().requires_grad_() for t in (a, b)]
    assert torch.autograd.gradcheck(lambda x, y: loss(x, y, labels, mask, scale=2.0), leaves)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        big = loss(a.to(dtype) * 100, b.to(dtype) * 100, labels)
        assert torch.isfinite(big)
        assert big.dtype == torch.float32
    assert loss(torch.zeros(3, 4), torch.zeros(3, 4), torch.arange(3.0)).isfinite()
    for bad, name in (((a, b[:3], labels), "right"), ((a, b, labels[:2]), "labels"), ((a.long(), b, labels), "left")):
        with pytest.raises(RivalsError, match=name):
            loss(*bad)


def gap_by_loops(scores: list[list[float]], costs: list[list[float]], margin: float) -> float:
    total, size = 0.0, len(scores[0])
    for gap in range(1, size):
        found = [
            max(0.0, row[i + gap] - row[i] + margin * (cost[i + gap] - cost[i]))
            for row, cost in zip(scores, costs, strict=True)
            for i in range(size - gap)
        ]
        total += sum(found) / len(found)
    return total


@few
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 4), st.sampled_from([0.1, 1.0]))
def test_gaps_are_averaged_then_summed(seed: int, size: int, lists: int, margin: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(lists, size, generator=generator, dtype=torch.float64)
    quality = torch.rand(lists, size, generator=generator, dtype=torch.float64).sort(dim=-1, descending=True).values
    plain = gap_by_loops(scores.tolist(), (1 - quality).tolist(), margin)
    assert graded_margin_loss(scores, quality, margin=margin).item() == pytest.approx(plain, rel=1e-9)
    shuffled = torch.randperm(size, generator=generator)
    again = graded_margin_loss(scores[:, shuffled], quality[:, shuffled], margin=margin)
    assert again.item() == pytest.approx(plain, rel=1e-9)
    costs = torch.rand(lists, size, generator=generator, dtype=torch.float64)
    unsorted = graded_margin_loss(scores, 1 - costs, margin=margin, presorted=True)
    assert unsorted.item() == pytest.approx(gap_by_loops(scores.tolist(), costs.tolist(), margin), rel=1e-9)


def test_without_a_margin_pairs_are_a_hinge() -> None:
    scores, relevance = torch.randn(3, 5), torch.randint(0, 3, (3, 5)).float()
    torch.testing.assert_close(
        graded_margin_loss(scores, relevance, margin=0.0, average="pairs"),
        pairwise_hinge_loss(scores, relevance, margin=0.0),
    )


def test_multi_positive_by_definition() -> None:
    scores = torch.randn(2, 5, dtype=torch.float64)
    relevance = torch.tensor([[1.0, 1, 0, 0, 0]] * 2)
    weight = torch.tensor([[0.0, 1, 1, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.float64)
    terms = []
    for row, share in zip(scores, weight, strict=True):
        for p in (0, 1):
            logits = torch.cat([(share[p] * row[p])[None], row[2:]])
            terms.append(
                F.cross_entropy(logits[None], torch.tensor([0])) * 0.9 + 0.1 * (-F.log_softmax(logits, 0)[1:].mean())
            )
    torch.testing.assert_close(multi_positive_softmax_loss(scores, relevance, weight=weight), torch.stack(terms).mean())
    plain = multi_positive_softmax_loss(scores, relevance, label_smoothing=0.0, reduction="none")
    torch.testing.assert_close(plain / 2, info_nce_loss(scores, relevance, temperature=1.0, reduction="none"))


def test_a_false_positive_still_pushes_negatives_down() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.5]], requires_grad=True)
    weight = torch.tensor([[0.0, 1.0, 1.0]])
    multi_positive_softmax_loss(scores, torch.tensor([[1.0, 0, 0]]), weight=weight, label_smoothing=0.0).backward()
    assert scores.grad[0, 0] == 0
    assert (scores.grad[0, 1:] > 0).all()


def test_the_balance_is_the_sum_of_both() -> None:
    """Own candidates first, two of another input behind them; the costs of the card's second check, one positive."""
    scores = torch.tensor([[0.3, 0.1, 0.6, 0.5, -0.2]], dtype=torch.float64, requires_grad=True)
    quality = torch.tensor([[0.9, 0.4, 0.2, 0.0, 0.0]], dtype=torch.float64)
    weight = torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    ranked = gap_by_loops(scores[:, :3].tolist(), (1 - quality[:, :3]).tolist(), 1.0)
    terms = []
    for place, share in enumerate((0.0, 1.0, 1.0)):
        logits = torch.cat([(share * scores[0, place])[None], scores[0, 3:]])
        logs = F.log_softmax(logits, 0)
        terms.append(-0.9 * logs[0] - 0.1 * logs[1:].mean())
    expected = 10 * ranked + 0.1 * torch.stack(terms).mean()
    found = balanced_rerank_loss(scores, quality, weight=weight)
    torch.testing.assert_close(found, expected)
    only = balanced_rerank_loss(scores, quality, weight=weight, rank_weight=0.0, contrast_weight=1.0)
    torch.testing.assert_close(only, torch.stack(terms).mean())
    only.backward()
    assert scores.grad[0, 0] == 0
    assert (scores.grad[0, 3:] > 0).all()
    plain = balanced_rerank_loss(
        torch.zeros(1, 3), torch.tensor([[1.0, 0.5, 0.0]]), contrast_weight=0.0, rank_weight=1.0
    )
    assert plain.item() == pytest.approx(0.5)  # the negative takes no part in the ranking


def test_sentence_attention() -> None:
    candidates, sentences = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    found = sentence_attention_score(candidates, sentences)
    cosine = F.cosine_similarity(candidates[1, 2], sentences[1], dim=-1)
    torch.testing.assert_close(found[1, 2], cosine.square().sum() / cosine.sum())
    wide = torch.cat([sentences, torch.full((2, 1, 4), torch.nan)], 1)
    mask = torch.tensor([[True] * 5 + [False]] * 2)
    torch.testing.assert_close(sentence_attention_score(candidates, wide, mask), found)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert sentence_attention_score(torch.tensor([[1.0, 0.0]]), opposite).item() == 0
    with pytest.raises(RivalsError, match="wide"):
        sentence_attention_score(torch.randn(1, 3), torch.randn(2, 4))


@pytest.mark.parametrize(
    ("loss", "options", "name"),
    [
        (balanced_rerank_loss, {"rank_weight": -1}, "rank_weight"),
        (balanced_rerank_loss, {"contrast_weight": -0.1}, "contrast_weight"),
        (graded_margin_loss, {"margin": -1}, "margin"),
        (graded_margin_loss, {"average": "lists"}, "average"),
        (multi_positive_softmax_loss, {"label_smoothing": 1.0}, "label_smoothing"),
        (multi_positive_softmax_loss, {"weighting": "both"}, "weighting"),
        (ordinal_ranking_loss, {"scale": 0}, "scale"),
    ],
)
def test_bad_options(loss: type, options: dict, name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        loss(torch.randn(1, 2), torch.tensor([[1.0, 0.0]]), **options)
