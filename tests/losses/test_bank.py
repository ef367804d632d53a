"""The loss against a bank of all documents: the checks of paper 51's card."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import FeatureBank, bank_contrastive_loss, in_batch_info_nce_loss


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at_cosines(*cosines: float) -> Tensor:
    """Unit vectors in the plane with these cosines to (1, 0)."""
    return torch.tensor([[c, math.sqrt(1 - c * c)] for c in cosines], dtype=torch.float64)


ANCHOR = at_cosines(1.0)
QUERIES, KEYS, STORED = normal(5, 4), normal(5, 4, seed=1), normal(9, 4, seed=2)


def test_a_bank_keeps_one_row_for_everything() -> None:
    vectors = normal(4, 3).requires_grad_()
    bank = FeatureBank(vectors)
    snapshot = bank.rows()
    bank.update(torch.tensor([2, 0]), normal(2, 3, seed=1))
    expected = vectors.detach().clone()
    expected[[2, 0]] = normal(2, 3, seed=1)
    assert torch.equal(bank.rows(), expected)
    assert torch.equal(snapshot, vectors)
    assert len(bank) == 4
    other = FeatureBank(torch.zeros(4, 3, dtype=torch.float64))
    other.load_state_dict(bank.state_dict())
    assert torch.equal(other.rows(), expected)
    assert not bank.rows().requires_grad
    with pytest.raises(RivalsError, match="index"):
        bank.update(torch.tensor([4]), normal(1, 3))
    with pytest.raises(RivalsError, match="rows"):
        bank.update(torch.tensor([1]), normal(1, 2))
    with pytest.raises(RivalsError, match="vectors"):
        FeatureBank(torch.zeros(3))


def test_the_values_of_paper_51() -> None:
    bank = at_cosines(0.9, 0.5, 0.1)
    loss = bank_contrastive_loss(ANCHOR, bank, torch.tensor([0]), temperature=0.1)
    assert loss.item() == pytest.approx(0.0184793025946573, abs=1e-12)
    alone = bank_contrastive_loss(ANCHOR, bank[:1], torch.tensor([0]))
    assert alone.item() == 0


def test_a_bank_of_the_batch_is_the_in_batch_loss() -> None:
    documents = F.normalize(KEYS)
    order = torch.tensor([3, 1, 4, 0, 2])
    expected = in_batch_info_nce_loss(QUERIES, documents, temperature=0.02)
    found = bank_contrastive_loss(QUERIES, documents[order], order.argsort())
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("fused", [True, False])
def test_masks_and_gradients_of_a_bank(fused: bool) -> None:
    bank, rows, mask = F.normalize(STORED), torch.tensor([0, 8, 8, 3, 1]), normal(5, 9, seed=3) > 0
    queries, bank = QUERIES.clone().requires_grad_(), bank.requires_grad_()
    loss = bank_contrastive_loss(queries, bank, rows, mask, temperature=0.3, fused=fused)
    cosine = F.normalize(queries) @ bank.detach().T / 0.3
    own = F.one_hot(rows, 9).bool()
    expected = F.cross_entropy(cosine.masked_fill(~(mask | own), -torch.inf), rows)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    found, none = torch.autograd.grad(loss, (queries, bank), allow_unused=True)
    torch.testing.assert_close(found, torch.autograd.grad(expected, queries)[0])
    assert none is None
    assert ((found * QUERIES).sum(1).abs() < 1e-12).all()  # the gradient of a normalised vector is orthogonal to it
    assert loss <= bank_contrastive_loss(queries, bank, rows, temperature=0.3)


def test_samples_of_a_bank() -> None:
    bank, rows = F.normalize(STORED), torch.tensor([0, 8, 8, 3, 1])

    def sampled(count: int, seed: int = 0, mask: Tensor | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return bank_contrastive_loss(
            QUERIES, bank, rows, mask, num_negatives=count, generator=generator, temperature=0.3, reduction="none"
        )

    full = bank_contrastive_loss(QUERIES, bank, rows, temperature=0.3, reduction="none")
    torch.testing.assert_close(sampled(8), full)
    mask = normal(5, 9, seed=3) > 0
    torch.testing.assert_close(
        sampled(8, mask=mask), bank_contrastive_loss(QUERIES, bank, rows, mask, temperature=0.3, reduction="none")
    )
    assert torch.equal(sampled(2), sampled(2))
    assert not torch.equal(sampled(2), sampled(2, seed=1))
    assert (sampled(2) <= full).all()
    # the mean of e^loss - 1 over draws is the share drawn of what all negatives give
    average = torch.stack([sampled(2, seed).expm1() for seed in range(400)]).mean(0)
    torch.testing.assert_close(average, full.expm1() * 2 / 8, rtol=0.2, atol=0)


def test_laws() -> None:
    rows = torch.tensor([0, 8, 8, 3, 1])
    values = bank_contrastive_loss(QUERIES, STORED, rows, reduction="none")
    for reduction, expected in (("sum", values.sum()), ("mean", values.mean())):
        found = bank_contrastive_loss(QUERIES, STORED, rows, reduction=reduction)  # type: ignore[arg-type]
        assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        leaf = (QUERIES.sign() * 1e4).to(dtype).requires_grad_()
        for options in ({}, {"num_negatives": 3, "generator": torch.Generator().manual_seed(0)}):
            value = bank_contrastive_loss(leaf, STORED.to(dtype), rows, **options)  # type: ignore[arg-type]
            (gradient,) = torch.autograd.grad(value, leaf)
            assert value.dtype == torch.float32
            assert value.isfinite()
            assert gradient.dtype == dtype
            assert gradient.isfinite().all()
    leaf = QUERIES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda q: bank_contrastive_loss(q, STORED, rows, temperature=0.5), leaf)
    assert bank_contrastive_loss(QUERIES[:0], STORED, rows[:0]).item() == 0


BAD: list[tuple[dict[str, Any], str]] = [
    ({"positive_rows": torch.tensor([0, 1, 2, 3, 9])}, "positive_rows"),
    ({"positive_rows": torch.tensor([0, 1])}, "positive_rows"),
    ({"positive_rows": torch.zeros(5)}, "positive_rows"),
    ({"bank": STORED[:, :2]}, "bank"),
    ({"mask": torch.ones(5, 9)}, "mask"),
    ({"num_negatives": 9, "generator": torch.Generator()}, "num_negatives"),
    ({"num_negatives": 3}, "generator"),
]


@pytest.mark.parametrize(("options", "name"), BAD, ids=[f"{n}-{name}" for n, (_, name) in enumerate(BAD)])
def test_bad_arguments_are_named(options: dict[str, Any], name: str) -> None:
    given = {"queries": QUERIES, "bank": STORED, "positive_rows": torch.arange(5)}
    with pytest.raises(RivalsError, match=name):
        bank_contrastive_loss(**(given | options))
