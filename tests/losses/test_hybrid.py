"""The parts of paper 70's hybrid loss: the checks of its card, and the laws of losses of this form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    hybrid_multilabel_loss,
    hybrid_multilabel_terms,
    label_correlation,
    multilabel_contrastive_loss,
)

GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(12, 4, generator=GENERATOR, dtype=torch.float64)
RELEVANCE = (torch.rand(12, 4, generator=GENERATOR) < 0.5).double()
MASK = torch.rand(12, 4, generator=GENERATOR) < 0.85
ROWS = torch.randn(12, 3, generator=GENERATOR, dtype=torch.float64)
CORRELATION = label_correlation(RELEVANCE).double()
ALL: dict[str, Any] = {"representations": ROWS, "correlation": CORRELATION, "temperature": 0.5}
KINDS = ("consistency", "covariance")


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ---------------------------------------------------------------------------------- correlation of labels


def test_conditional_correlation() -> None:
    labels = torch.tensor([[1, 1], [1, 0]])
    assert label_correlation(labels, excess=False).tolist() == [[1, 0.5], [1, 1]]
    assert label_correlation(labels).tolist() == [[1, 0], [0, 1]]
    labels = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]])
    expected = [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]  # 1 - 2/4 together; never with the third
    assert label_correlation(labels).tolist() == expected


def test_correlation_over_what_both_know() -> None:
    relevance, known = RELEVANCE.numpy(), MASK.numpy()
    found = label_correlation(RELEVANCE.masked_fill(~MASK, float("nan")), MASK, excess=False)
    pearson = label_correlation(RELEVANCE, MASK, kind="pearson")
    for k in range(4):
        for other in range(4):
            both = known[:, k] & known[:, other]
            x, y = relevance[both, k], relevance[both, other]
            if k != other:
                assert found[k, other].item() == pytest.approx((x * y).sum() / x.sum(), abs=1e-6)
                assert pearson[k, other].item() == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)
    assert label_correlation(torch.ones(5, 2), kind="pearson").tolist() == [[1, 0], [0, 1]]


# ---------------------------------------------------------------------------------- contrast by shared labels


def contrastive(embeddings: Tensor, labels: Tensor, known: Tensor, temperature: float, similarity: str) -> list[float]:
    """The contrastive term by the card, pair by pair."""
    h = F.normalize(embeddings, dim=1)
    sets = [{k for k in range(labels.shape[1]) if labels[i, k] and known[i, k]} for i in range(len(h))]
    knows = [{k for k in range(labels.shape[1]) if known[i, k]} for i in range(len(h))]

    def shared(i: int, j: int) -> float:
        mine, yours = sets[i] & knows[j], sets[j] & knows[i]
        size = {"jaccard": len(mine | yours), "overlap": min(len(mine), len(yours)), "any": len(mine & yours)}
        return len(mine & yours) / size[similarity] if size[similarity] else 0.0

    terms = []
    for i in range(len(h)):
        others = [j for j in range(len(h)) if j != i and knows[j] and knows[i]]
        weights = [shared(i, j) for j in others]
        if sum(weights) == 0:
            terms.append(0.0)
            continue
        logits = [float(h[i] @ h[j]) / temperature for j in others]
        total = math.log(sum(map(math.exp, logits)))
        terms.append(-sum(w * (z - total) for w, z in zip(weights, logits, strict=True)) / sum(weights))
    return terms


def test_contrastive_values_of_the_card() -> None:
    assert multilabel_contrastive_loss(rows([1, 2], [1, 2]), torch.ones(2, 1)).item() == pytest.approx(0, abs=1e-12)
    embeddings, labels = rows([1, 0], [1, 0], [0, 1]), torch.tensor([[1, 0], [1, 0], [0, 1]])
    found = multilabel_contrastive_loss(embeddings, labels, temperature=1.0)
    assert found.item() == pytest.approx(0.3132617, abs=1e-7)
    assert multilabel_contrastive_loss(embeddings, torch.eye(3)).item() == 0  # no partner anywhere


@pytest.mark.parametrize("similarity", ["jaccard", "overlap", "any"])
def test_contrastive_against_the_card(similarity: Any) -> None:
    mask = MASK.clone()
    mask[3] = False
    expected = contrastive(ROWS, RELEVANCE, mask, 0.3, similarity)
    options: dict[str, Any] = {"temperature": 0.3, "similarity": similarity}
    found = multilabel_contrastive_loss(ROWS, RELEVANCE, mask, reduction="none", **options)
    assert found.tolist() == pytest.approx(expected)
    mean = multilabel_contrastive_loss(ROWS, RELEVANCE, mask, **options)
    assert mean.item() == pytest.approx(sum(expected) / sum(value > 0 for value in expected))


# ---------------------------------------------------------------------------------- the sum


def test_the_classification_term_alone_is_that_of_torch() -> None:
    alone = hybrid_multilabel_loss(SCORES, RELEVANCE, weights=(1, 0, 0))
    assert alone.item() == pytest.approx(F.binary_cross_entropy_with_logits(SCORES, RELEVANCE).item())
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    weighted = hybrid_multilabel_loss(SCORES, RELEVANCE, positive_weight=weight, weights=(2, 0, 0))
    expected = 2 * F.binary_cross_entropy_with_logits(SCORES, RELEVANCE, pos_weight=weight)
    assert weighted.item() == pytest.approx(expected.item())


def test_consistency_values_of_the_card() -> None:
    def term(p: list[float], correlation: Tensor) -> float:
        scores = rows(p).logit()
        return hybrid_multilabel_loss(scores, rows([1, 1]), correlation=correlation, weights=(0, 1, 0)).item()

    assert term([0.9, 0.1], torch.ones(2, 2)) == pytest.approx(0.64)
    assert term([0.4, 0.4], torch.ones(2, 2)) == pytest.approx(0, abs=1e-12)
    assert term([0.9, 0.1], torch.eye(2)) == 0
    assert term([0.9, 0.1], -torch.ones(2, 2)) == 0


def test_consistency_pair_by_pair() -> None:
    p, strength = SCORES.sigmoid(), (CORRELATION + CORRELATION.T) / 2
    values = []
    for i in range(12):
        pairs = [(k, j) for k in range(4) for j in range(k) if MASK[i, k] and MASK[i, j]]
        size = sum(strength[k, j].item() for k, j in pairs)
        if size:
            values.append(sum((strength[k, j] * (p[i, k] - p[i, j]) ** 2).item() for k, j in pairs) / size)
    found = hybrid_multilabel_loss(SCORES, RELEVANCE, MASK, correlation=CORRELATION, weights=(0, 1, 0))
    assert found.item() == pytest.approx(sum(values) / len(values))


def test_covariance_pair_by_pair() -> None:
    mask = MASK.clone()
    mask[:5, 3] = False  # too few examples know the fourth label
    p, values = SCORES.sigmoid().numpy(), []
    for k in range(4):
        for other in range(4):
            both = (mask[:, k] & mask[:, other]).numpy()
            if k != other and both.sum() >= 8:
                values.append((np.corrcoef(p[both, k], p[both, other])[0, 1] - CORRELATION[k, other].item()) ** 2)
    assert 0 < len(values) < 12
    options: dict[str, Any] = {"correlation": CORRELATION, "weights": (0, 1, 0), "correlation_kind": "covariance"}
    assert hybrid_multilabel_loss(SCORES, RELEVANCE, mask, **options).item() == pytest.approx(np.mean(values))
    assert hybrid_multilabel_loss(SCORES[:7], RELEVANCE[:7], **options).item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_terms_add_up_and_the_order_of_labels_and_examples_does_not_matter(kind: Any) -> None:
    terms = hybrid_multilabel_terms(SCORES, RELEVANCE, MASK, correlation_kind=kind, **ALL)
    loss = hybrid_multilabel_loss(SCORES, RELEVANCE, MASK, correlation_kind=kind, **ALL)
    assert all(term.item() > 0 for term in terms)
    assert loss.item() == pytest.approx(sum(term.item() for term in terms))
    contrast = multilabel_contrastive_loss(ROWS, RELEVANCE, MASK, temperature=0.5)
    assert terms.contrastive.item() == pytest.approx(0.1 * contrast.item())
    order, labels = torch.randperm(12, generator=torch.Generator().manual_seed(1)), [2, 0, 3, 1]
    moved = hybrid_multilabel_loss(
        SCORES[order][:, labels],
        RELEVANCE[order][:, labels],
        MASK[order][:, labels],
        representations=ROWS[order],
        correlation=CORRELATION[labels][:, labels],
        temperature=0.5,
        correlation_kind=kind,
    )
    assert moved.item() == pytest.approx(loss.item())


# ---------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_labels_and_absent_examples_reach_nothing(kind: Any) -> None:
    options = ALL | {"correlation_kind": kind}
    loss = hybrid_multilabel_loss(SCORES, RELEVANCE, MASK, **options)
    nothing = torch.zeros(1, 4)
    scores = torch.cat([SCORES.masked_fill(~MASK, float("nan")), nothing + float("inf")]).requires_grad_()
    vectors = torch.cat([ROWS, torch.full((1, 3), float("nan"))]).requires_grad_()
    relevance = torch.cat([RELEVANCE.masked_fill(~MASK, float("nan")), nothing + 1])
    mask = torch.cat([MASK, nothing > 0])
    longer = hybrid_multilabel_loss(scores, relevance, mask, **(options | {"representations": vectors}))
    assert longer.item() == pytest.approx(loss.item())
    for gradient, absent in zip(torch.autograd.grad(longer, (scores, vectors)), (~mask, ~mask.any(1)), strict=True):
        assert torch.isfinite(gradient).all()
        assert (gradient[absent] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: Any) -> None:
    def loss(scores: Tensor, vectors: Tensor) -> Tensor:
        options = ALL | {"representations": vectors, "correlation_kind": kind}
        return hybrid_multilabel_loss(scores, RELEVANCE, MASK, **options)

    assert torch.autograd.gradcheck(loss, (SCORES.clone().requires_grad_(), ROWS.clone().requires_grad_()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_extremes_stay_finite(kind: Any, dtype: torch.dtype) -> None:
    scores, vectors = ((values.sign() * 1e4).to(dtype).requires_grad_() for values in (SCORES, ROWS))
    options = ALL | {"representations": vectors, "correlation_kind": kind, "temperature": 0.1}
    loss = hybrid_multilabel_loss(scores, RELEVANCE, MASK, **options)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(loss, (scores, vectors)))


@pytest.mark.parametrize("shape", [(0, 3), (2, 3)])
def test_nothing_is_worth_nothing(shape: tuple[int, int]) -> None:
    scores, vectors = torch.randn(shape, requires_grad=True), torch.randn(shape[0], 2, requires_grad=True)
    relevance, mask = torch.ones(shape), torch.zeros(shape, dtype=torch.bool)
    for kind in KINDS:
        loss = hybrid_multilabel_loss(
            scores,
            relevance,
            mask,
            representations=vectors,
            correlation=torch.ones(3, 3),
            correlation_kind=kind,  # type: ignore[arg-type]
        )
        assert loss.item() == 0
        assert all((g == 0).all() for g in torch.autograd.grad(loss, (scores, vectors)))


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"representations": None}, "representations"),
        ({"representations": ROWS[:3]}, "relevance"),
        ({"correlation": None}, "correlation"),
        ({"correlation": torch.ones(3, 3)}, "correlation"),
        ({"correlation": torch.full((4, 4), float("nan"))}, "correlation"),
        ({"correlation_kind": "cosine"}, "correlation_kind"),
        ({"weights": (1.0, -0.1, 0.0)}, "weights"),
        ({"temperature": 0.0}, "temperature"),
        ({"similarity": "dice"}, "similarity"),
        ({"positive_weight": torch.ones(3)}, "positive_weight"),
        ({"mask": torch.ones(12, 4)}, "mask"),
    ],
)
def test_bad_options(options: dict[str, Any], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        hybrid_multilabel_loss(SCORES, RELEVANCE, **(ALL | options))


def test_bad_shapes() -> None:
    with pytest.raises(RivalsError, match="scores"):
        hybrid_multilabel_loss(SCORES[0], RELEVANCE[0], weights=(1, 0, 0))
    with pytest.raises(RivalsError, match="at least two labels"):
        hybrid_multilabel_loss(SCORES[:, :1], RELEVANCE[:, :1], correlation=torch.ones(1, 1), weights=(1, 1, 0))
    with pytest.raises(RivalsError, match="relevance"):
        label_correlation(RELEVANCE[0])
    with pytest.raises(RivalsError, match="kind"):
        label_correlation(RELEVANCE, kind="phi")  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="relevance"):
        multilabel_contrastive_loss(ROWS, [[1]])  # type: ignore[arg-type]
