"""Losses that doubt their negatives: the values of the cards of papers 114 and 35, and both written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    debiased_contrastive_loss,
    in_batch_info_nce_loss,
    info_nce_loss,
    structure_aware_info_nce_loss,
)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at_cosines(*cosines: float) -> Tensor:
    """Unit vectors in the plane with these cosines to (1, 0)."""
    return rows(*([c, math.sqrt(1 - c * c)] for c in cosines))


ANCHOR = rows([1.0, 0.0])


# ---------------------------------------------------------------------------------- paper 114


def test_the_values_of_paper_114() -> None:
    documents, noise = at_cosines(0.8, 0.6, 0.3), at_cosines(0.1)
    weight = rows([1, 0, 1])
    paper = debiased_contrastive_loss(ANCHOR, documents, weight=weight, noise=noise)
    assert paper.item() == pytest.approx(4.623038984077631e-05, rel=1e-9)
    code = debiased_contrastive_loss(ANCHOR, documents, weight=weight, noise=noise, form="code")
    assert code.item() == pytest.approx(2.3171449165342133e-05, rel=1e-9)


def code_form(queries: Tensor, documents: Tensor, weight: Tensor, noise: Tensor, t: float) -> Tensor:
    columns = torch.cat([documents, noise])
    weight = torch.cat([weight, torch.ones(len(queries), len(noise))], 1)
    p = (weight * F.cosine_similarity(queries[:, None], columns[None], dim=-1) / t).softmax(-1)
    return F.binary_cross_entropy(p, torch.eye(*p.shape, dtype=p.dtype))


def test_the_code_form_written_out() -> None:
    queries, documents, noise = normal(4, 3).requires_grad_(), normal(4, 3, seed=1), normal(3, 3, seed=2)
    weight = (normal(4, 4, seed=3) > -0.3).double()
    found = debiased_contrastive_loss(queries, documents, weight=weight, noise=noise, temperature=0.3, form="code")
    expected = code_form(queries, documents, weight, noise, 0.3)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(value, queries)[0] for value in (found, expected)))


def test_the_code_form_survives_certainty() -> None:
    """In float32 the softmax of a learnt positive is exactly 1, and log(1 - p) times 0 would be NaN."""
    queries, documents = ANCHOR.float().requires_grad_(), at_cosines(1.0, -1.0).float()
    loss = debiased_contrastive_loss(queries, documents, temperature=0.01, form="code")
    assert loss.item() == 0
    assert torch.isfinite(torch.autograd.grad(loss, queries)[0]).all()
    wrong = debiased_contrastive_loss(-queries, documents, temperature=0.01, form="code")
    assert wrong.item() == pytest.approx(200.0)  # p = e^-200 at the positive, 1 - e^-200 at the negative
    alone = debiased_contrastive_loss(queries, documents[:1], form="code")
    assert alone.item() == 0


def test_weights_and_noise_of_the_paper_form() -> None:
    queries, documents, noise = normal(4, 3), normal(4, 3, seed=1), normal(3, 3, seed=2)
    plain = in_batch_info_nce_loss(queries, documents)
    assert debiased_contrastive_loss(queries, documents).item() == pytest.approx(plain.item(), abs=1e-12)
    weight = torch.ones(4, 4)
    weight[:, 2] = 0
    weight[2, 2] = 1
    mask = weight > 0
    masked = in_batch_info_nce_loss(queries, documents, mask=mask)
    assert debiased_contrastive_loss(queries, documents, weight=weight).item() == pytest.approx(
        masked.item(), abs=1e-12
    )
    noisy = debiased_contrastive_loss(queries, documents, weight=weight, noise=noise)
    assert noisy > masked
    only_noise = debiased_contrastive_loss(queries, documents, weight=torch.eye(4), noise=noise)
    cosine = F.cosine_similarity(queries, documents)[:, None]
    scores = torch.cat([cosine, F.normalize(queries) @ F.normalize(noise).T], 1)
    expected = info_nce_loss(scores, torch.eye(1, 4).expand(4, 4))
    assert only_noise.item() == pytest.approx(expected.item(), abs=1e-12)
    leaf = noise.clone().requires_grad_()
    queries.requires_grad_()
    for form in ("paper", "code"):
        loss = debiased_contrastive_loss(queries, documents, noise=leaf, form=form)  # type: ignore[arg-type]
        assert torch.autograd.grad(loss, leaf, allow_unused=True)[0] is None


# ---------------------------------------------------------------------------------- paper 35


EYE, HARD = torch.eye(2, dtype=torch.float64), rows([1, 0.5], [0.5, 1])


def hasa(**options: Any) -> Tensor:
    return structure_aware_info_nce_loss(EYE, EYE, weight=HARD, num_negatives=1, **options)


def test_the_values_of_paper_35() -> None:
    assert hasa().item() == pytest.approx(math.log(1.5), abs=1e-12)
    false = torch.zeros(2, 1, dtype=torch.float64)
    one = hasa(false_scores=false, false_weight=torch.ones(2, 1), positive_prior=0.2)
    assert one.item() == pytest.approx(0.318454, abs=1e-6)
    scores, high = EYE.clone().requires_grad_(), torch.full((2, 1), math.log(5.0)).requires_grad_()
    clamped = structure_aware_info_nce_loss(
        scores, EYE, weight=HARD, num_negatives=1, false_scores=high, positive_prior=0.2
    )
    assert clamped.item() == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(clamped, (scores, high)))


def written_out(
    scores: Tensor, p: Tensor, false: Tensor, f: Tensor, tau: float, n: float, margin: float, t: float
) -> Tensor:
    """Section 4 of the card, for one positive on the diagonal."""
    own = torch.eye(*scores.shape, dtype=torch.bool)
    d = (p * (scores / t).exp()).masked_fill(own, 0).sum(1) - tau * (f * (false / t).exp()).sum(1)
    positive = ((scores.diagonal() - margin) / t).exp()
    return -(positive / (positive + n / (1 - tau) * d.clamp(min=0))).log().mean()


@pytest.mark.parametrize("tau", [0.0, 0.05, 0.6])
def test_equals_the_formula_written_out(tau: float) -> None:
    scores, false = normal(4, 9).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    p, f = normal(4, 9, seed=2).softmax(1), normal(4, 3, seed=3).softmax(1)
    for n, margin, t in ((5.0, 1.0, 1.0), (8.0, 0.2, 0.7)):
        found = structure_aware_info_nce_loss(
            scores,
            torch.eye(4, 9),
            weight=p,
            false_scores=false,
            false_weight=f,
            positive_prior=tau,
            margin=margin,
            num_negatives=n,
            temperature=t,
        )
        expected = written_out(scores, p, false, f, tau, n, margin, t)
        assert found.item() == pytest.approx(expected.item(), abs=1e-12)
        ours = torch.autograd.grad(found, (scores, false), allow_unused=True)
        theirs = torch.autograd.grad(expected, (scores, false))
        torch.testing.assert_close(ours[0], theirs[0])
        assert tau == 0 or ours[1] is not None
        if ours[1] is not None:
            torch.testing.assert_close(ours[1], theirs[1])
            assert (ours[1] <= 0).all()  # a higher false score, a lower loss


def test_without_weights_it_is_infonce() -> None:
    scores, relevance, mask = normal(3, 6), torch.eye(3, 6), normal(3, 6, seed=1) > -1.5
    plain = info_nce_loss(scores, relevance, mask, temperature=0.5, margin=0.4)
    found = structure_aware_info_nce_loss(scores, relevance, mask, temperature=0.5, margin=0.4)
    assert found.item() == pytest.approx(plain.item(), abs=1e-12)
    uniform = structure_aware_info_nce_loss(
        scores, relevance, weight=torch.full_like(scores, 1 / 5), num_negatives=5, margin=0.0
    )
    assert uniform.item() == pytest.approx(F.cross_entropy(scores, torch.arange(3)).item(), abs=1e-12)
    false = scores[:, 4:]
    doubted = structure_aware_info_nce_loss(scores, relevance, false_scores=false, positive_prior=0.1, margin=0.0)
    expected = written_out(scores, torch.full_like(scores, 1 / 5), false, torch.full((3, 2), 0.5), 0.1, 5.0, 0.0, 1.0)
    assert doubted.item() == pytest.approx(expected.item(), abs=1e-12)


def test_lists_without_suspects_are_corrected_by_nothing() -> None:
    scores, relevance = normal(2, 4), torch.eye(2, 4)
    false, f = torch.tensor([[float("nan"), 0.3], [0.1, 0.2]]).requires_grad_(), rows([0, 0], [0.5, 0.5])
    found = structure_aware_info_nce_loss(
        scores, relevance, false_scores=false, false_weight=f, positive_prior=0.1, reduction="none"
    )
    alone = structure_aware_info_nce_loss(
        scores[:1], relevance[:1], false_scores=torch.full((1, 1), -1e4), positive_prior=0.1
    )
    assert found[0].item() == pytest.approx(alone.item(), abs=1e-9)
    assert (torch.autograd.grad(found.sum(), false)[0][0] == 0).all()


BAD: list[tuple[dict[str, Any], str]] = [
    ({"positive_prior": 1.0}, "positive_prior"),
    ({"positive_prior": 0.1}, "false_scores"),
    ({"false_weight": torch.ones(2, 1)}, "false_scores"),
    ({"false_scores": torch.zeros(3, 1)}, "false_scores"),
    ({"false_scores": torch.zeros(2, 2), "false_weight": torch.full((2, 2), 0.4)}, "sum to 1"),
    ({"false_scores": torch.zeros(2, 2), "false_weight": rows([1.5, -0.5], [0.5, 0.5])}, "false_weight"),
    ({"margin": -1.0}, "margin"),
    ({"num_negatives": 0.0}, "num_negatives"),
    ({"temperature": 0.0}, "temperature"),
]


@pytest.mark.parametrize(("options", "name"), BAD, ids=[f"{n}-{name}" for n, (_, name) in enumerate(BAD)])
def test_bad_arguments_are_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        structure_aware_info_nce_loss(EYE, EYE, **options)


def test_bad_options_of_the_debiased_loss() -> None:
    for options, name in (
        ({"form": "book"}, "form"),
        ({"noise": torch.ones(2, 3)}, "noise"),
        ({"temperature": 0}, "temp"),
    ):
        with pytest.raises(RivalsError, match=name):
            debiased_contrastive_loss(EYE, EYE, **options)  # type: ignore[arg-type]
