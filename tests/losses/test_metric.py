"""Metric losses over labelled batches: against loops, against the readable version, against pytorch-metric-learning."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import rivals.losses._fused.labelled as blocked
import rivals.losses._pair_terms as pair_terms
from rivals.errors import RivalsError
from rivals.losses import (
    circle_loss,
    in_batch_circle_loss,
    in_batch_contrastive_loss,
    in_batch_info_nce_loss,
    in_batch_multi_similarity_loss,
    in_batch_supervised_contrastive_loss,
    in_batch_triplet_loss,
    info_nce_loss,
    multi_similarity_loss,
    triplet_loss,
)

Loss = Callable[..., Tensor]
SIZE, WIDTH = 23, 5


def problem(size: int = SIZE, classes: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(size, WIDTH, generator=generator, dtype=torch.float64)
    return rows, torch.randint(0, classes, (size,), generator=generator)


def sets(labels: Tensor, i: int) -> tuple[list[int], list[int]]:
    own = [j for j in range(len(labels)) if labels[j] == labels[i] and j != i]
    return own, [j for j in range(len(labels)) if labels[j] != labels[i]]


def cosines(rows: Tensor) -> np.ndarray:
    unit = rows.numpy() / np.linalg.norm(rows.numpy(), axis=1, keepdims=True)
    return unit @ unit.T


def distances(rows: Tensor) -> np.ndarray:
    return np.linalg.norm(rows.numpy()[:, None] - rows.numpy()[None], axis=-1)


# ---------------------------------------------------------------------------------- against loops


@pytest.mark.parametrize("empty_anchor", ["skip", "partial"])
@pytest.mark.parametrize("epsilon", [None, 0.1, math.inf])
def test_multi_similarity_by_loops(epsilon: float | None, empty_anchor: Any) -> None:
    rows, labels = problem(classes=9)
    scores, alpha, beta, threshold = cosines(rows), 2.0, 40.0, 0.4
    total = 0.0
    for i in range(SIZE):
        own, others = sets(labels, i)
        if epsilon is not None:
            best = max((scores[i, k] for k in others), default=-math.inf)
            worst = min((scores[i, j] for j in own), default=math.inf)
            own, others = (
                [j for j in own if others and scores[i, j] < best + epsilon],
                [k for k in others if own and scores[i, k] > worst - epsilon],
            )
        if empty_anchor == "partial" or (own and others):
            total += math.log1p(sum(math.exp(-alpha * (scores[i, j] - threshold)) for j in own)) / alpha
            total += math.log1p(sum(math.exp(beta * (scores[i, k] - threshold)) for k in others)) / beta
    found = in_batch_multi_similarity_loss(
        rows, labels, alpha=alpha, beta=beta, threshold=threshold, epsilon=epsilon, empty_anchor=empty_anchor
    )
    assert found.item() == pytest.approx(total / SIZE, rel=1e-12)


def test_circle_by_loops() -> None:
    rows, labels = problem(classes=9)
    scores, m, g = cosines(rows), 0.3, 20.0

    def pull(s: float) -> float:
        return math.exp(-g * max(1 + m - s, 0) * (s - 1 + m))

    def push(s: float) -> float:
        return math.exp(g * max(s + m, 0) * (s - m))

    losses = []
    for i in range(SIZE):
        own, others = sets(labels, i)
        if own and others:
            losses.append(math.log1p(sum(push(scores[i, k]) for k in others) * sum(pull(scores[i, j]) for j in own)))
    found = in_batch_circle_loss(rows, labels, margin=m, scale=g)
    assert found.item() == pytest.approx(float(np.mean(losses)), rel=1e-12)
    pairs = list(itertools.combinations(range(SIZE), 2))
    together = sum(push(scores[i, k]) for i, k in pairs if labels[i] != labels[k]) * sum(
        pull(scores[i, j]) for i, j in pairs if labels[i] == labels[j]
    )
    for fused in (False, True):
        found = in_batch_circle_loss(rows, labels, margin=m, scale=g, pairing="batch", fused=fused)
        assert found.item() == pytest.approx(math.log1p(together), rel=1e-12)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("mining", ["hard", "semihard", "all"])
def test_triplets_by_loops(mining: Any, soft: bool, squared: bool) -> None:
    rows, labels = problem(classes=9)
    d = distances(rows) ** (2 if squared else 1)
    margin = 0.7
    terms: list[list[float]] = []
    for i in range(SIZE):
        own, others = sets(labels, i)
        chosen: list[tuple[int, int]] = []
        if own and others and mining == "hard":
            chosen = [(max(own, key=lambda j: d[i, j]), min(others, key=lambda k: d[i, k]))]
        elif own and others and mining == "semihard":
            for j in own:
                farther = [k for k in others if d[i, k] > d[i, j]]
                chosen.append(
                    (j, min(farther, key=lambda k: d[i, k]) if farther else max(others, key=lambda k: d[i, k]))
                )
        elif own and others:
            chosen = list(itertools.product(own, others))
        found = [d[i, j] - d[i, k] + margin for j, k in chosen]
        terms.append([math.log1p(math.exp(v)) if soft else max(v, 0.0) for v in found])
    flat = [term for anchor in terms for term in anchor]
    above = [term for term in flat if term > 0]

    def loss(reduction: str, fused: Any = "auto") -> Tensor:
        return in_batch_triplet_loss(
            rows, labels, margin=margin, mining=mining, soft=soft, squared=squared, reduction=reduction, fused=fused
        )

    wanted = {"sum": sum(flat), "mean_positive": np.mean(above), "mean": np.mean(above if mining == "all" else flat)}
    for reduction, value in wanted.items():
        assert loss(reduction).item() == pytest.approx(value, rel=1e-12)
        assert loss(reduction, fused=True).item() == pytest.approx(value, rel=1e-9)
    assert loss("none").tolist() == pytest.approx([sum(anchor) for anchor in terms], rel=1e-12)


@pytest.mark.parametrize("squared", [False, True])
def test_contrastive_by_loops(squared: bool) -> None:
    rows, labels = problem()
    d, margin, inner, power = distances(rows), 2.5, 0.4, 2 if squared else 1
    pulled = [max(d[i, j] - inner, 0) ** power for i in range(SIZE) for j in sets(labels, i)[0]]
    pushed = [max(margin - d[i, k], 0) ** power for i in range(SIZE) for k in sets(labels, i)[1]]

    def loss(reduction: str) -> float:
        return in_batch_contrastive_loss(
            rows, labels, margin=margin, positive_margin=inner, squared=squared, reduction=reduction
        ).item()

    assert loss("sum") == pytest.approx(sum(pulled) + sum(pushed), rel=1e-12)
    assert loss("mean") == pytest.approx(np.mean(pulled) + np.mean(pushed), rel=1e-12)
    above = [np.mean([term for term in kind if term > 0]) for kind in (pulled, pushed)]
    assert loss("mean_positive") == pytest.approx(sum(above), rel=1e-12)


def test_supervised_contrastive_by_loops_and_as_info_nce() -> None:
    rows, labels = problem(classes=9)
    s, t = cosines(rows) / 0.2, []
    for i in range(SIZE):
        own, others = sets(labels, i)
        if own:
            total = math.log(sum(math.exp(s[i, a]) for a in own + others))
            t.append(np.mean([total - s[i, p] for p in own]))
    found = in_batch_supervised_contrastive_loss(rows, labels, temperature=0.2)
    assert found.item() == pytest.approx(float(np.mean(t)), rel=1e-12)
    apart = ~torch.eye(SIZE, dtype=torch.bool)
    for positives in ("each", "all"):
        shared = in_batch_info_nce_loss(
            rows,
            rows,
            mask=apart,
            query_groups=labels,
            document_groups=labels,
            temperature=0.2,
            positives=positives,  # type: ignore[arg-type]
        )
        found = in_batch_supervised_contrastive_loss(rows, labels, temperature=0.2, positives=positives)
        assert found.item() == pytest.approx(shared.item(), rel=1e-12)


def test_the_ranking_forms_are_the_same_losses() -> None:
    rows, labels = problem()
    same = (labels[:, None] == labels).double()
    apart = ~torch.eye(SIZE, dtype=torch.bool)
    unit = torch.nn.functional.normalize(rows)
    pairs: list[tuple[Tensor, Tensor]] = [
        (in_batch_multi_similarity_loss(rows, labels), multi_similarity_loss(unit @ unit.T, same, apart)),
        (in_batch_circle_loss(rows, labels), circle_loss(unit @ unit.T, same, apart)),
        (
            in_batch_supervised_contrastive_loss(rows, labels),
            info_nce_loss(unit @ unit.T, same, apart, temperature=0.1, positives="all"),
        ),
        (in_batch_triplet_loss(rows, labels), triplet_loss(-torch.cdist(rows, rows), same, apart)),
    ]
    for batch, ranking in pairs:
        assert batch.item() == pytest.approx(ranking.item(), rel=1e-9)


# ---------------------------------------------------------------------------------- blocked and readable


VARIANTS: dict[str, tuple[Loss, dict[str, Any]]] = {
    "multi similarity": (in_batch_multi_similarity_loss, {}),
    "multi similarity, partial": (in_batch_multi_similarity_loss, {"epsilon": 0.02, "empty_anchor": "partial"}),
    "multi similarity, unmined": (in_batch_multi_similarity_loss, {"epsilon": None, "normalize": False}),
    "circle": (in_batch_circle_loss, {"scale": 30.0}),
    "circle, moving weights": (in_batch_circle_loss, {"scale": 30.0, "detach_weights": False}),
    "circle, batch": (in_batch_circle_loss, {"pairing": "batch"}),
    "hard": (in_batch_triplet_loss, {}),
    "semihard": (in_batch_triplet_loss, {"mining": "semihard"}),
    "all": (in_batch_triplet_loss, {"mining": "all", "normalize": True}),
    "all, soft, squared": (in_batch_triplet_loss, {"mining": "all", "soft": True, "squared": True}),
    "contrastive": (in_batch_contrastive_loss, {"margin": 2.0}),
    "contrastive, plain": (in_batch_contrastive_loss, {"squared": False, "positive_margin": 0.3}),
    "supervised contrastive": (in_batch_supervised_contrastive_loss, {}),
    "supervised contrastive, each": (in_batch_supervised_contrastive_loss, {"positives": "each"}),
}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three rows, the last one short."""
    monkeypatch.setattr(blocked, "MIN_ROWS", 1)
    monkeypatch.setattr(blocked, "BLOCK_ELEMENTS", 3 * SIZE)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("classes", [1, 2, 9])
@pytest.mark.parametrize("variant", VARIANTS)
def test_blocks_equal_the_readable_version(variant: str, classes: int) -> None:
    function, options = VARIANTS[variant]
    rows, labels = problem(classes=classes)
    there = torch.arange(SIZE) % 5 > 0
    for reduction in ("mean", "sum", "list_mean", "mean_positive"):
        found = []
        for fused in (True, False):
            leaf = rows.clone().requires_grad_()
            value = function(leaf, labels, there, fused=fused, reduction=reduction, **options)
            found.append((value.detach(), torch.autograd.grad(3 * value, leaf)[0]))
        (value, gradient), (readable, expected) = found
        torch.testing.assert_close(value, readable, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-11)


def test_large_batches_are_blocked_and_hold_no_matrix() -> None:
    size, largest = 700, 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, Tensor):
                    largest = max(largest, tensor.numel())
            return result

    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(size, WIDTH, generator=generator).requires_grad_()
    labels = torch.arange(size) % 50
    losses: list[Loss] = [
        in_batch_multi_similarity_loss,
        in_batch_circle_loss,
        in_batch_triplet_loss,
        in_batch_contrastive_loss,
        in_batch_supervised_contrastive_loss,
    ]
    for function in losses:
        largest = 0
        before = blocked.BLOCK_ELEMENTS
        blocked.BLOCK_ELEMENTS = 1 << 16
        try:
            with Watch():
                function(rows, labels).backward()
        finally:
            blocked.BLOCK_ELEMENTS = before
        assert 0 < largest <= 1 << 16 < size * size


def test_no_gradient_is_computed_where_none_is_wanted() -> None:
    rows, labels = problem()
    value = in_batch_circle_loss(rows, labels, fused=True)
    assert not value.requires_grad
    leaf = rows.clone().requires_grad_()
    with torch.no_grad():
        assert not in_batch_circle_loss(leaf, labels, fused=True).requires_grad
    frozen = in_batch_circle_loss(leaf, labels, fused=True)
    with pytest.raises(RivalsError, match="second derivative"):
        torch.autograd.grad(frozen, leaf, create_graph=True)
    with pytest.raises(RivalsError, match="no value per anchor"):
        in_batch_circle_loss(rows, labels, fused=True, reduction="none")


# ---------------------------------------------------------------------------------- peers


@pytest.fixture
def peer() -> tuple[Any, Any, Any]:
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning import distances, losses, miners

    return losses, miners, distances


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", ["multi similarity", "unmined", "circle", "hard", "raw", "contrastive", "supcon"])
def test_equals_pytorch_metric_learning(peer: tuple[Any, Any, Any], name: str, fused: bool) -> None:
    losses, miners, of = peer
    raw = of.LpDistance(normalize_embeddings=False)
    theirs, miner, function, options = {
        "multi similarity": (
            losses.MultiSimilarityLoss(),
            miners.MultiSimilarityMiner(),
            in_batch_multi_similarity_loss,
            {"empty_anchor": "partial"},
        ),
        "unmined": (
            losses.MultiSimilarityLoss(alpha=1, beta=5, base=0.2),
            None,
            in_batch_multi_similarity_loss,
            {"empty_anchor": "partial", "epsilon": None, "alpha": 1.0, "beta": 5.0, "threshold": 0.2},
        ),
        "circle": (
            losses.CircleLoss(),
            None,
            in_batch_circle_loss,
            {"margin": 0.4, "scale": 80.0, "reduction": "mean_positive"},
        ),
        "hard": (
            losses.TripletMarginLoss(margin=0.2),
            miners.BatchHardMiner(),
            in_batch_triplet_loss,
            {"normalize": True, "reduction": "mean_positive"},
        ),
        "raw": (
            losses.TripletMarginLoss(margin=0.2, distance=raw),
            miners.BatchHardMiner(distance=raw),
            in_batch_triplet_loss,
            {"reduction": "mean_positive"},
        ),
        "contrastive": (
            losses.ContrastiveLoss(),
            None,
            in_batch_contrastive_loss,
            {"normalize": True, "squared": False, "reduction": "mean_positive"},
        ),
        "supcon": (losses.SupConLoss(), None, in_batch_supervised_contrastive_loss, {}),
    }[name]
    rows, labels = problem(size=40, classes=10, seed=3)
    ours, reference = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    found = function(ours, labels, fused=fused, **options)
    mined = None if miner is None else miner(reference, labels)
    expected = theirs(reference, labels, mined)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for gradients in zip(torch.autograd.grad(found, ours), torch.autograd.grad(expected, reference), strict=True):
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------------------------- triplets


def line() -> tuple[Tensor, Tensor]:
    return torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=torch.float64), torch.tensor([0, 0, 1, 1])


def test_the_line_example() -> None:
    """Paper 12, check 1."""
    rows, labels = line()
    assert in_batch_triplet_loss(rows, labels, margin=0.5, reduction="none").tolist() == [0, 0, 2.5, 0]
    assert in_batch_triplet_loss(rows, labels, margin=0.5).item() == 0.625
    assert in_batch_triplet_loss(rows, labels, margin=0.5, reduction="mean_positive").item() == 2.5


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("mining", ["hard", "semihard", "all"])
def test_collapse_is_worth_the_margin(mining: Any, fused: bool) -> None:
    """Paper 12, check 2: all rows equal."""
    rows = torch.full((6, 3), 4.2).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    loss = in_batch_triplet_loss(rows, labels, margin=0.2, mining=mining, fused=fused)
    assert loss.item() == pytest.approx(0.2, abs=1e-7)
    assert (torch.autograd.grad(loss, rows)[0] == 0).all()
    loss = in_batch_triplet_loss(rows, labels, margin=0.0, mining=mining, fused=fused, soft=True)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("mining", ["hard", "semihard", "all"])
def test_rigid_motions_and_scale(mining: Any) -> None:
    """Paper 12, check 3."""
    rows, labels = problem()
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64))[
        0
    ]
    loss = in_batch_triplet_loss(rows, labels, mining=mining)
    moved = in_batch_triplet_loss(rows @ turn - 3, labels, mining=mining)
    assert moved.item() == pytest.approx(loss.item(), rel=1e-10)
    scaled = in_batch_triplet_loss(5 * rows, labels, mining=mining, margin=1.0)
    assert scaled.item() == pytest.approx(5 * loss.item(), rel=1e-10)


def test_kinds_of_mining_compare() -> None:
    """Paper 12, checks 4 and 6: separated classes are worth 0; hard is the worst; one of each, all agree."""
    rows, labels = problem()
    far = rows + 1000.0 * labels[:, None]
    for mining in ("hard", "semihard", "all"):
        assert in_batch_triplet_loss(far, labels, mining=mining).item() == 0
    hard = in_batch_triplet_loss(rows, labels, reduction="none")
    semihard = in_batch_triplet_loss(rows, labels, mining="semihard", reduction="none")
    own = (labels[:, None] == labels).sum(1) - 1
    assert (hard >= semihard / own.clamp(min=1) - 1e-12).all()
    for seed in range(5):
        scores = torch.randn(4, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        relevance = torch.tensor([[1.0, 0.0]] * 4, dtype=torch.float64)
        sums = {
            triplet_loss(
                scores,
                relevance,
                mining=mining,
                margin=3.0,
                reduction="sum",
                generator=torch.Generator(),
            ).item()
            for mining in ("hard", "semihard", "all", "random")
        }
        assert max(sums) - min(sums) < 1e-12


def test_random_triplets_are_drawn_evenly_and_reproducibly() -> None:
    rows, labels = problem(size=12, classes=3)
    draws = [
        in_batch_triplet_loss(rows, labels, mining="random", generator=torch.Generator().manual_seed(seed)).item()
        for seed in range(400)
    ]
    again = in_batch_triplet_loss(rows, labels, mining="random", generator=torch.Generator().manual_seed(3)).item()
    assert again == draws[3]
    d = distances(rows)
    expected = []
    for i in range(12):
        own, others = sets(labels, i)
        if own:
            expected.append(np.mean([max(d[i, j] - d[i, k] + 0.2, 0) for j in own for k in others]))
    assert np.mean(draws) == pytest.approx(np.mean(expected), abs=4 * np.std(draws) / 20)
    with pytest.raises(RivalsError, match="generator"):
        in_batch_triplet_loss(rows, labels, mining="random")


# ---------------------------------------------------------------------------------- warnings and errors


@pytest.fixture
def warn_again() -> Iterator[None]:
    pair_terms.warn_of_nothing.cache_clear()
    yield
    pair_terms.warn_of_nothing.cache_clear()


@pytest.mark.usefixtures("warn_again")
@pytest.mark.parametrize("function", [in_batch_multi_similarity_loss, in_batch_circle_loss, in_batch_triplet_loss])
def test_a_batch_with_nothing_to_learn_from_warns_once(function: Loss) -> None:
    rows, _ = problem(size=4)
    leaf = rows.requires_grad_()
    for labels in (torch.arange(4), torch.zeros(4, dtype=torch.int64)):
        pair_terms.warn_of_nothing.cache_clear()
        with pytest.warns(UserWarning, match="no anchor of the batch"):
            loss = function(leaf, labels)
        assert loss.item() == 0
        assert (torch.autograd.grad(loss, leaf)[0] == 0).all()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            function(leaf, labels)


def test_bad_options() -> None:
    rows, labels = problem()
    wrong: list[tuple[Loss, dict[str, Any], str]] = [
        (in_batch_multi_similarity_loss, {"alpha": 0.0}, "alpha"),
        (in_batch_multi_similarity_loss, {"beta": -1.0}, "beta"),
        (in_batch_multi_similarity_loss, {"epsilon": -0.1}, "epsilon"),
        (in_batch_multi_similarity_loss, {"empty_anchor": "drop"}, "empty_anchor"),
        (in_batch_circle_loss, {"margin": -0.1}, "margin"),
        (in_batch_circle_loss, {"scale": 0.0}, "scale"),
        (in_batch_circle_loss, {"pairing": "column"}, "pairing"),
        (in_batch_triplet_loss, {"margin": -0.1}, "margin"),
        (in_batch_triplet_loss, {"mining": "easy"}, "mining"),
        (in_batch_triplet_loss, {"on_empty": "warn"}, "on_empty"),
        (in_batch_contrastive_loss, {"margin": -1.0}, "margin"),
        (in_batch_supervised_contrastive_loss, {"temperature": 0.0}, "temperature"),
        (in_batch_supervised_contrastive_loss, {"positives": "some"}, "positives"),
        (in_batch_supervised_contrastive_loss, {"fused": "no"}, "fused"),
    ]
    for function, options, name in wrong:
        with pytest.raises(RivalsError, match=name):
            function(rows, labels, **options)
    with pytest.raises(RivalsError, match="finite"):
        in_batch_triplet_loss(rows * torch.nan, labels)
    with pytest.raises(RivalsError, match="no anchor"):
        in_batch_triplet_loss(rows, torch.arange(SIZE), on_empty="raise")
