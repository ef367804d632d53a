"""Continual contrastive losses: the values of paper 102's card, both forms written out, and where gradients go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    continual_contrast_loss,
    continual_nt_xent_loss,
    momentum_contrast_loss,
    pseudo_negative_loss,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------------------- with queues


def along(*scores: float) -> Tensor:
    """Vectors whose dot product with (1, 0, 0, ...) pairs is given: one axis for q, one for h."""
    return torch.tensor([scores], dtype=torch.float64)


def test_the_values_of_the_card() -> None:
    query, predicted = along(1, 0), along(0, 1)
    options: dict[str, Any] = {"normalize": False, "temperature": 0.2, "distill_temperature": 0.2}
    new, old = along(0.1, 0.0), along(0.2, 0.3)  # scored 0.1 and 0.2 by q, 0 and 0.3 by h
    loss = continual_contrast_loss(
        query, along(0.8, 0), new, predicted=predicted, frozen=along(0, 0.7), frozen_queue=old, **options
    )
    assert loss.item() == pytest.approx(0.23012485166421423, abs=1e-12)
    learning = momentum_contrast_loss(query, along(0.8, 0), torch.cat([new, old]), temperature=0.2, normalize=False)
    assert learning.item() == pytest.approx(0.07694664454192615, abs=1e-12)


QUERY, KEY, NEW = normal(4, 3), normal(4, 3, seed=1), normal(6, 3, seed=2)
REST: dict[str, Tensor] = {
    "predicted": normal(4, 3, seed=3),
    "frozen": normal(4, 3, seed=4),
    "frozen_queue": normal(5, 3, seed=5),
}


def test_both_terms_meet_both_queues() -> None:
    loss = continual_contrast_loss(QUERY, KEY, NEW, **REST, temperature=0.3, distill_temperature=0.5)
    both = torch.cat([NEW, REST["frozen_queue"]])
    expected = momentum_contrast_loss(QUERY, KEY, both, temperature=0.3)
    expected = expected + momentum_contrast_loss(REST["predicted"], REST["frozen"], both, temperature=0.5)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    swapped = continual_contrast_loss(
        QUERY, KEY, REST["frozen_queue"], **(REST | {"frozen_queue": NEW}), temperature=0.3, distill_temperature=0.5
    )
    assert swapped.item() == pytest.approx(loss.item(), abs=1e-12)
    fewer = continual_contrast_loss(
        QUERY, KEY, NEW[:3], **REST, temperature=0.3, distill_temperature=0.5, reduction="none"
    )
    more = continual_contrast_loss(QUERY, KEY, NEW, **REST, temperature=0.3, distill_temperature=0.5, reduction="none")
    assert (fewer <= more).all()


def test_before_there_is_an_old_model_it_is_momentum_contrast() -> None:
    expected = momentum_contrast_loss(QUERY, KEY, NEW, temperature=0.2)
    assert continual_contrast_loss(QUERY, KEY, NEW).item() == pytest.approx(expected.item(), abs=1e-12)
    one = continual_contrast_loss(QUERY[:1], KEY[:1], NEW)
    assert one.isfinite()


def test_only_queries_and_predictions_learn() -> None:
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in ({"query": QUERY, "new": NEW} | REST).items()}
    rest = {name: leaves[name] for name in REST}
    loss = continual_contrast_loss(leaves["query"], KEY, leaves["new"], **rest)
    found = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True))
    assert {name for name, gradient in found.items() if gradient is not None} == {"query", "predicted"}


# ---------------------------------------------------------------------------------- over a batch


SIX = [normal(3, 4, seed=seed) for seed in range(6)]


def matrices(z1: Tensor, z2: Tensor, p1: Tensor, p2: Tensor, f1: Tensor, f2: Tensor, t: float, own: bool) -> Tensor:
    """The card's two matrices, their diagonals removed."""
    z, p, f = (F.normalize(torch.cat(pair)) for pair in ((z1, z2), (p1, p2), (f1, f2)))
    count = len(z)
    diagonal = torch.eye(count, dtype=torch.bool)
    hidden = torch.cat([diagonal, diagonal], 1)
    learning = (torch.cat([z @ z.T, z @ f.T], 1) / t).masked_fill(hidden, -torch.inf)
    partner = torch.arange(count).roll(count // 2)
    first = (learning.logsumexp(1) - learning[torch.arange(count), partner]).mean()
    keeping = (torch.cat([p @ f.T, p @ z.T], 1) / t).masked_fill(hidden, -torch.inf)
    positive = (p * f).sum(1) / t
    below = torch.cat([keeping, positive[:, None]], 1) if own else keeping
    return first + (below.logsumexp(1) - positive).mean()


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_the_form_over_a_batch_written_out(own: bool, fused: bool) -> None:
    leaves = [tensor.clone().requires_grad_() for tensor in SIX]
    found = continual_nt_xent_loss(*leaves, temperature=0.3, positive_in_denominator=own, fused=fused)
    expected = matrices(*leaves, 0.3, own)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    ours = torch.autograd.grad(found, leaves, allow_unused=True)
    theirs = torch.autograd.grad(expected, leaves)
    for left, right in list(zip(ours, theirs, strict=True))[:4]:
        torch.testing.assert_close(left, right)
    assert ours[4] is None
    assert ours[5] is None


def test_swapping_the_views_changes_nothing_and_one_example_is_finite() -> None:
    z1, z2, p1, p2, f1, f2 = SIX
    loss = continual_nt_xent_loss(*SIX)
    assert continual_nt_xent_loss(z2, z1, p2, p1, f2, f1).item() == pytest.approx(loss.item(), abs=1e-12)
    one = [tensor[:1].clone().requires_grad_() for tensor in SIX]
    alone = continual_nt_xent_loss(*one)
    assert alone.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(alone, one[:4]))


# ---------------------------------------------------------------------------------- pseudo-negatives


def test_pseudo_negatives_written_out() -> None:
    predicted, same, other = (tensor.clone().requires_grad_() for tensor in SIX[:3])
    cosine = [F.cosine_similarity(predicted, frozen) for frozen in (same, other)]
    expected = (2.0 * (1 - cosine[0]) - 0.5 * (1 - cosine[1])).mean()
    loss = pseudo_negative_loss(predicted, same, other, weight=2.0, negative_weight=0.5)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    squared = F.mse_loss(predicted, same) - F.mse_loss(predicted, other)
    found = pseudo_negative_loss(predicted, same, other, distance="mse")
    assert found.item() == pytest.approx(squared.item(), abs=1e-12)
    assert torch.autograd.grad(loss + found, (same, other), allow_unused=True) == (None, None)
    plain = pseudo_negative_loss(predicted, same, other, negative_weight=0.0)
    assert plain.item() == pytest.approx((1 - cosine[0]).mean().item(), abs=1e-12)


# ---------------------------------------------------------------------------------- laws

LAWFUL: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
    "queues": (
        lambda q, h, **o: continual_contrast_loss(
            q, KEY[: len(q)], NEW, **(REST | {"predicted": h, "frozen": REST["frozen"][: len(q)]}), **o
        ),
        [QUERY, REST["predicted"]],
    ),
    "batch": (lambda *six, **o: continual_nt_xent_loss(*six, *SIX[4:], **o), SIX[:4]),
    "pseudo": (lambda p, **o: pseudo_negative_loss(p, SIX[1], SIX[2], **o), SIX[:1]),
}


@pytest.mark.parametrize("name", LAWFUL)
def test_laws(name: str) -> None:
    loss, inputs = LAWFUL[name]
    values = loss(*inputs, reduction="none")
    assert loss(*inputs, reduction="sum").item() == pytest.approx(values.sum().item(), abs=1e-10)
    assert torch.autograd.gradcheck(loss, [tensor.clone().requires_grad_() for tensor in inputs])
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        leaves = [(tensor.sign() * 1e3).to(dtype).requires_grad_() for tensor in inputs]
        value = loss(*leaves)
        assert value.isfinite()
        assert all(g.dtype == dtype and g.isfinite().all() for g in torch.autograd.grad(value, leaves))


def test_nothing_costs_nothing() -> None:
    none = [tensor[:0].requires_grad_() for tensor in SIX]
    assert continual_nt_xent_loss(*none).item() == 0
    assert pseudo_negative_loss(*none[:3]).item() == 0
    assert continual_contrast_loss(QUERY[:0], KEY[:0], NEW).item() == 0


BAD: list[tuple[Callable[..., Tensor], dict[str, Any], str]] = [
    (continual_contrast_loss, {"frozen": None}, "together"),
    (continual_contrast_loss, {"temperature": 0.0}, "temperature"),
    (continual_contrast_loss, {"distill_temperature": -1.0}, "temperature"),
    (continual_contrast_loss, {"frozen_queue": NEW[:, :2]}, "frozen_queue"),
    (continual_nt_xent_loss, {"second": SIX[1][:2]}, "second"),
    (continual_nt_xent_loss, {"predicted_first": SIX[1][:, :2]}, "predicted_first"),
    (continual_nt_xent_loss, {"temperature": 0.0}, "temperature"),
    (pseudo_negative_loss, {"frozen_same": SIX[1][:2]}, "frozen_same"),
    (pseudo_negative_loss, {"weight": -1.0}, "weight"),
    (pseudo_negative_loss, {"negative_weight": -1.0}, "negative_weight"),
    (pseudo_negative_loss, {"distance": "l1"}, "distance"),
    (pseudo_negative_loss, {"reduction": "median"}, "reduction"),
]
BATCH = dict(
    zip(("first", "second", "predicted_first", "predicted_second", "frozen_first", "frozen_second"), SIX, strict=True)
)
GIVEN: dict[Callable[..., Tensor], dict[str, Any]] = {
    continual_contrast_loss: {"queries": QUERY, "keys": KEY, "queue": NEW} | REST,
    continual_nt_xent_loss: dict(BATCH),
    pseudo_negative_loss: {"predicted": SIX[0], "frozen_same": SIX[1], "frozen_other": SIX[2]},
}


@pytest.mark.parametrize(("loss", "options", "name"), BAD, ids=[f"{n}-{name}" for n, (_, _, name) in enumerate(BAD)])
def test_bad_arguments_are_named(loss: Callable[..., Tensor], options: dict[str, Any], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        loss(**(GIVEN[loss] | options))
