"""Losses against a queue of past keys, one view or two: the checks of papers 34 and 90."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    FeatureQueue,
    dual_view_contrast_loss,
    in_batch_info_nce_loss,
    info_nce_loss,
    momentum_contrast_loss,
    momentum_scores,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at_cosines(*cosines: float) -> Tensor:
    """Unit vectors in the plane with these cosines to (1, 0)."""
    return torch.tensor([[c, math.sqrt(1 - c * c)] for c in cosines], dtype=torch.float64)


ANCHOR = at_cosines(1.0)
QUEUE = at_cosines(0.5, 0.1, -0.3)
QUERIES, KEYS, STORED = normal(5, 4), normal(5, 4, seed=1), normal(9, 4, seed=2)


# ---------------------------------------------------------------------------------- the queue


def test_a_queue_is_first_in_first_out() -> None:
    queue = FeatureQueue(size=4, dim=1)
    seen: list[float] = []
    assert len(queue) == 0
    assert queue.rows().shape == (0, 1)
    for size in (1, 2, 3, 9, 0, 4, 1):
        rows = torch.arange(len(seen), len(seen) + size, dtype=torch.float32)[:, None].requires_grad_()
        queue.enqueue(rows)
        seen += rows.flatten().tolist()
        assert queue.rows().flatten().tolist() == seen[-4:]
        assert len(queue) == min(4, len(seen))
    assert not queue.rows().requires_grad


def test_a_snapshot_outlives_the_next_batch_and_a_checkpoint_the_queue() -> None:
    queue = FeatureQueue(size=2, dim=1, dtype=torch.float64)
    queue.enqueue(torch.tensor([[1.0], [2.0]]))
    snapshot = queue.rows()
    queue.enqueue(torch.tensor([[3.0]]))
    assert snapshot.flatten().tolist() == [1, 2]
    other = FeatureQueue(size=2, dim=1, dtype=torch.float64)
    other.load_state_dict(queue.state_dict())
    assert torch.equal(other.rows(), queue.rows())
    assert list(queue.parameters()) == []


def test_bad_queues() -> None:
    for options in ({"size": 0, "dim": 2}, {"size": 2, "dim": 0}):
        with pytest.raises(RivalsError, match="size and dim"):
            FeatureQueue(**options)
    with pytest.raises(RivalsError, match="rows"):
        FeatureQueue(2, 3).enqueue(torch.zeros(1, 2))
    with pytest.raises(RivalsError, match="rows"):
        FeatureQueue(2, 3).enqueue(torch.zeros(3, dtype=torch.int64))


# ---------------------------------------------------------------------------------- momentum contrast


@pytest.mark.parametrize(("keep", "expected"), [(None, 0.6451179000040771), (1, 0.4374879504858858), (1.0, 0.6451179)])
def test_the_values_of_paper_90(keep: Any, expected: float) -> None:
    loss = momentum_contrast_loss(ANCHOR, at_cosines(0.8), QUEUE, temperature=0.5, keep=keep)
    assert loss.item() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("normalize", [True, False])
def test_equals_the_ranking_form_and_keys_of_others_do_not_compete(normalize: bool) -> None:
    scored = momentum_scores(QUERIES, KEYS, STORED, normalize=normalize)
    assert scored.scores.shape == (5, 10)
    for reduction in ("mean", "none"):
        expected = info_nce_loss(*scored, temperature=0.5, reduction=reduction)  # type: ignore[arg-type]
        for fused in ("auto", True) if reduction == "mean" else ("auto",):
            found = momentum_contrast_loss(
                QUERIES,
                KEYS,
                STORED,
                temperature=0.5,
                normalize=normalize,
                reduction=reduction,  # type: ignore[arg-type]
                fused=fused,  # type: ignore[arg-type]
            )
            torch.testing.assert_close(found, expected)


def test_gradients_reach_queries_and_keys_but_never_the_queue() -> None:
    leaves = [tensor.clone().requires_grad_() for tensor in (QUERIES, KEYS, STORED)]
    for keep in (None, 3):
        loss = momentum_contrast_loss(*leaves, keep=keep)
        first, second, third = torch.autograd.grad(loss, leaves, allow_unused=True)
        assert first is not None
        assert second is not None
        assert third is None
    with_kept = torch.autograd.grad(momentum_contrast_loss(*leaves, keep=1), leaves[0])[0]
    hardest = momentum_scores(QUERIES, KEYS, STORED).scores[:, 1:].argmax(1)
    alone = in_batch_info_nce_loss(
        leaves[0], KEYS, negatives=STORED[hardest][:, None], mask=torch.eye(5, dtype=torch.bool), temperature=0.2
    )
    torch.testing.assert_close(with_kept, torch.autograd.grad(alone, leaves[0])[0])


def test_the_loss_rises_with_what_is_kept() -> None:
    losses = [momentum_contrast_loss(QUERIES, KEYS, STORED, keep=keep).item() for keep in range(1, 10)]
    assert losses == sorted(losses)
    assert losses[-1] == pytest.approx(momentum_contrast_loss(QUERIES, KEYS, STORED).item(), abs=1e-12)


def test_an_empty_queue_costs_nothing_and_cannot_be_selected_from() -> None:
    empty = torch.zeros(0, 4, dtype=torch.float64)
    assert momentum_contrast_loss(QUERIES, KEYS, empty).item() == 0
    for options in ({"keep": 0.5}, {"skip_top": 1}, {"max_similarity": 0.9}):
        with pytest.raises(RivalsError, match="empty"):
            momentum_contrast_loss(QUERIES, KEYS, empty, **options)


# ---------------------------------------------------------------------------------- two views


def test_balance_and_equal_views() -> None:
    one = momentum_contrast_loss(QUERIES, KEYS, STORED, keep=0.5)
    found = dual_view_contrast_loss(QUERIES, KEYS, STORED, balance=1.0)
    assert found.item() == pytest.approx(one.item(), abs=1e-12)
    same = dual_view_contrast_loss(QUERIES, KEYS, STORED, second_queries=QUERIES, second_keys=KEYS)
    assert same.item() == pytest.approx(one.item(), abs=1e-12)
    second, keys, queue = normal(5, 4, seed=5), normal(5, 4, seed=6), normal(7, 4, seed=7)
    both = dual_view_contrast_loss(
        QUERIES, KEYS, STORED, second_queries=second, second_keys=keys, second_queue=queue, balance=0.3, keep=None
    )
    expected = 0.3 * momentum_contrast_loss(QUERIES, KEYS, STORED) + 0.7 * momentum_contrast_loss(second, keys, queue)
    assert both.item() == pytest.approx(expected.item(), abs=1e-12)


def test_the_key_as_anchor_moves_the_query_through_the_positive_alone() -> None:
    query, key, queue = (F.normalize(t[:1]) for t in (QUERIES, KEYS, STORED))
    query.requires_grad_()
    options: dict[str, Any] = {"normalize": False, "temperature": 0.5, "keep": None}
    term = dual_view_contrast_loss(query, key, queue, balance=0.0, **options)
    chance = torch.cat([query @ key.T, key @ queue.T], 1).div(0.5).softmax(1)[0, 0]
    torch.testing.assert_close(torch.autograd.grad(term, query)[0], -(1 - chance.detach()) * key / 0.5)


# ---------------------------------------------------------------------------------- laws of both

LOSSES: dict[str, Callable[..., Tensor]] = {
    "momentum": lambda q, k, u, **o: momentum_contrast_loss(q, k, u, **o),
    "kept": lambda q, k, u, **o: momentum_contrast_loss(q, k, u, keep=0.5, **o),
    "dual": lambda q, k, u, **o: dual_view_contrast_loss(q, k, u, **o),
}


@pytest.mark.parametrize("name", LOSSES)
def test_laws(name: str) -> None:
    loss = LOSSES[name]
    values = loss(QUERIES, KEYS, STORED, reduction="none")
    assert values.shape == (5,)
    assert loss(QUERIES, KEYS, STORED, reduction="sum").item() == pytest.approx(values.sum().item(), abs=1e-10)
    assert loss(QUERIES, KEYS, STORED).item() == pytest.approx(values.mean().item(), abs=1e-10)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        leaves = [(t.sign() * 100).to(dtype).requires_grad_() for t in (QUERIES, KEYS)]
        value = loss(*leaves, STORED.to(dtype))
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert all(g.dtype == dtype and g.isfinite().all() for g in torch.autograd.grad(value, leaves))
    leaves = [QUERIES.clone().requires_grad_(), KEYS.clone().requires_grad_()]
    assert torch.autograd.gradcheck(lambda q, k: loss(q, k, STORED, temperature=0.5), leaves)
    assert loss(QUERIES[:0], KEYS[:0], STORED).item() == 0


BAD: list[tuple[Callable[..., Tensor], dict[str, Any], str]] = [
    (momentum_contrast_loss, {"temperature": 0.0}, "temperature"),
    (momentum_contrast_loss, {"keys": KEYS[:3]}, "keys"),
    (momentum_contrast_loss, {"queue": STORED[:, :2]}, "queue"),
    (momentum_contrast_loss, {"queue": STORED[0]}, "queue"),
    (momentum_contrast_loss, {"keep": 1.5}, "keep"),
    (momentum_contrast_loss, {"reduction": "median"}, "reduction"),
    (dual_view_contrast_loss, {"balance": 1.5}, "balance"),
    (dual_view_contrast_loss, {"second_keys": KEYS}, "second_queries"),
]


@pytest.mark.parametrize(("loss", "options", "name"), BAD, ids=[f"{n}-{name}" for n, (_, _, name) in enumerate(BAD)])
def test_bad_arguments_are_named(loss: Callable[..., Tensor], options: dict[str, Any], name: str) -> None:
    given: dict[str, Any] = {"queries": QUERIES, "keys": KEYS, "queue": STORED}
    with pytest.raises(RivalsError, match=name):
        loss(**(given | options))
