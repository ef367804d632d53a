"""Submodular set functions and losses: paper 27's checks, and every formula by loops."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    facility_location,
    facility_location_loss,
    graph_cut,
    graph_cut_loss,
    log_det,
    log_det_loss,
    similarity_kernel,
    submodular_snn_loss,
    submodular_supcon_loss,
    submodular_triplet_loss,
)

LOSSES = [
    facility_location_loss,
    graph_cut_loss,
    log_det_loss,
    submodular_snn_loss,
    submodular_supcon_loss,
    submodular_triplet_loss,
]
BY_CLASS = [function for function in LOSSES if function is not log_det_loss]
over_losses = pytest.mark.parametrize("function", LOSSES)
styles = pytest.mark.parametrize("style", ["paper", "code"])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    return normal(9, 3, seed=seed), torch.tensor([0, 2, 2, 0, 5, 5, 2, 5, 5])


def directly(name: str, points: Tensor, labels: Tensor, similarity: np.ndarray, **given: Any) -> float:
    """Every formula by loops over rows and classes, from a matrix of similarities."""
    lam, t, style, form = given.get("lam", 1.0), given.get("t", 0.07), given["style"], given.get("form")
    classes, rows = labels.numpy(), range(len(labels))
    sets = [np.flatnonzero(classes == c) for c in np.unique(classes)]
    friends = [[j for j in rows if j != i and classes[j] == classes[i]] for i in rows]
    outside = [[j for j in rows if classes[j] != classes[i]] for i in rows]

    def per_class(value: list[float]) -> float:
        return float(np.mean([sum(value[i] for i in members) / len(members) for members in sets]))

    if name == "facility_location":
        if style == "code":
            kept = [[similarity[i, j] if j in outside[i] else 0.0 for i in rows] for j in rows]
            return t / 0.07 * lam * float(np.mean([math.log(sum(map(math.exp, row))) for row in kept]))
        totals = [sum(max(similarity[i, j] for j in a) for i in rows if i not in a) / len(a) for a in sets]
        return t / 0.07 * lam * float(np.mean(totals))
    inside_sum = [sum(similarity[i, j] for j in friends[i]) for i in rows]
    outside_sum = [sum(similarity[i, j] for j in outside[i]) for i in rows]
    if name == "graph_cut":
        if form == "log_ratio":
            return -t / 0.07 * float(np.mean([math.log(lam * inside_sum[i] / outside_sum[i]) for i in rows]))
        if style == "code":
            return t / 0.07 * lam * float(np.mean([outside_sum[i] / len(friends[i]) for i in rows]))
        if form == "information":
            return t / 0.07 * per_class([outside_sum[i] - lam * inside_sum[i] for i in rows])
        return t / 0.07 * per_class([lam * outside_sum[i] for i in rows])
    if name == "log_det":
        volume = [np.linalg.slogdet(similarity[np.ix_(a, a)] + given["ridge"] * np.eye(len(a)))[1] for a in sets]
        if form == "correlation":
            return sum(volume) - np.linalg.slogdet(similarity + given["ridge"] * np.eye(len(similarity)))[1]
        if style == "code":
            return -t / 0.07 * float(np.mean(volume))
        return t / 0.07 * float(np.mean([v / len(a) for v, a in zip(volume, sets, strict=True)]))
    if name == "submodular_triplet":
        squares = similarity**2
        if style == "code":
            squares = squares - squares.max(1, keepdims=True)
        value = [squares[i, outside[i]].sum() - squares[i, friends[i]].sum() for i in rows]
        return per_class(value) if style == "paper" else -float(np.mean(value)) / 0.07
    scaled = similarity / t
    if name == "submodular_supcon":
        if style == "paper":
            return per_class(
                [math.log(np.exp(scaled[i, outside[i]]).sum()) - scaled[i, friends[i]].mean() for i in rows]
            )
        scaled = scaled - scaled.max(1, keepdims=True)
        value = [math.log(np.exp(scaled[i, outside[i]]).sum()) - scaled[i, friends[i]].sum() / len(rows) for i in rows]
        return t / 0.07 * float(np.mean(value))
    squared = np.square(points.numpy()[:, None] - points.numpy()[None]).sum(-1) / t
    if style == "paper":
        near = [math.log(np.exp(squared[i, friends[i]]).sum()) for i in rows]
        return per_class([near[i] + math.log(np.exp(scaled[i, outside[i]]).sum()) for i in rows])
    value = [
        math.log(sum(math.exp(squared[i, j]) if j in friends[i] else 1.0 for j in rows))
        + math.log(sum(math.exp(scaled[i, j]) if j in outside[i] else 1.0 for j in rows))
        for i in rows
    ]
    return t / 0.07 * float(np.mean(value))


def kernel_by_hand(points: np.ndarray, kernel: str) -> np.ndarray:
    squared = np.square(points[:, None] - points[None]).sum(-1)
    if kernel == "rbf":
        return np.exp(-squared / points.shape[1])
    if kernel == "euclidean":
        negative = -np.sqrt(squared)
        return (negative - negative.min()) / (negative.max() - negative.min())
    if kernel == "cosine":
        points = points / np.linalg.norm(points, axis=1, keepdims=True)
    return points @ points.T


@pytest.mark.parametrize("kernel", ["cosine", "dot", "rbf", "euclidean"])
def test_kernels(kernel: Any) -> None:
    points, _ = batch()
    found = similarity_kernel(points, kernel)
    np.testing.assert_allclose(found.numpy(), kernel_by_hand(points.numpy(), kernel), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: similarity_kernel(x, kernel), points[:4].clone().requires_grad_())
    assert torch.isfinite(similarity_kernel(torch.zeros(3, 2), kernel)).all()


CASES: list[tuple[Any, dict[str, Any]]] = [
    (facility_location_loss, {"kernel": "cosine", "lam": 0.5, "temperature": 0.7}),
    (facility_location_loss, {"kernel": "euclidean"}),
    (facility_location_loss, {"kernel": "rbf"}),
    (graph_cut_loss, {"form": "correlation", "kernel": "cosine", "lam": 0.5, "temperature": 0.7}),
    (graph_cut_loss, {"form": "log_ratio", "kernel": "rbf", "lam": 0.3, "temperature": 0.2}),
    (graph_cut_loss, {"form": "log_ratio", "kernel": "cosine"}),
    (log_det_loss, {"form": "correlation", "kernel": "dot", "ridge": 0.5}),
    (log_det_loss, {"form": "information", "kernel": "cosine", "ridge": 0.2, "temperature": 0.7}),
    (submodular_supcon_loss, {"kernel": "dot", "temperature": 0.7}),
    (submodular_supcon_loss, {"kernel": "cosine"}),
    (submodular_snn_loss, {"kernel": "dot", "temperature": 0.7}),
    (submodular_triplet_loss, {"kernel": "dot"}),
    (submodular_triplet_loss, {"kernel": "cosine"}),
]


@styles
@pytest.mark.parametrize(("function", "options"), CASES)
def test_equals_loops(function: Any, options: dict[str, Any], style: Any) -> None:
    points, labels = batch()
    points = points.abs()  # the ratio needs sums above 0
    kernel = options.get("kernel", "cosine")
    similarity = kernel_by_hand(points.numpy(), kernel)
    given = {name: value for name, value in options.items() if name != "temperature"}
    expected = directly(
        function.__name__.removesuffix("_loss"),
        points,
        labels,
        similarity,
        style=style,
        t=options.get("temperature", 0.07),
        **given,
    )
    assert function(points, labels, style=style, **options).item() == pytest.approx(expected, rel=1e-10)


def test_information_of_the_graph_cut() -> None:
    points, labels = batch()
    similarity = kernel_by_hand(points.numpy(), "cosine")
    expected = directly("graph_cut", points, labels, similarity, style="paper", form="information", lam=0.3)
    found = graph_cut_loss(points, labels, form="information", lam=0.3)
    assert found.item() == pytest.approx(expected, rel=1e-10)
    with pytest.raises(RivalsError, match="log_ratio"):
        graph_cut_loss(points, labels, form="information", style="code")


# ---------------------------------------------------------------------------------- the card's checks


SIMILARITY = torch.tensor([[1.0, 0.9, 0.2], [0.9, 1.0, 0.1], [0.2, 0.1, 1.0]], dtype=torch.float64)
POINTS, LABELS = torch.linalg.cholesky(SIMILARITY), torch.tensor([0, 0, 1])


def test_three_points() -> None:
    """Check 1: sums per class are 0.2 and 0.3 (facility location), 0.3 (graph cut), divided by the size of the class."""
    assert facility_location_loss(POINTS, LABELS, reduction="none").tolist() == pytest.approx([0.2 / 2, 0.3])
    assert graph_cut_loss(POINTS, LABELS, reduction="none").tolist() == pytest.approx([0.3 / 2, 0.3])
    information = graph_cut_loss(POINTS, LABELS, form="information", reduction="none")
    assert information.tolist() == pytest.approx([(0.3 - 1.8) / 2, 0.3])


def psd_similarity(seed: int) -> Tensor:
    return similarity_kernel(normal(6, 3, seed=seed), "rbf")


@pytest.mark.parametrize(
    "function",
    [
        facility_location,
        lambda s, a: graph_cut(s, a, lam=0.5),
        lambda s, a: log_det(s, a, ridge=1.0),
        lambda s, a: log_det(s, a, ridge=0.3),
    ],
    ids=["facility_location", "graph_cut", "log_det", "log_det, small ridge"],
)
def test_submodularity(function: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    for seed in range(100):
        similarity = psd_similarity(seed)
        large = torch.rand(6, generator=draw) < 0.6
        small = large & (torch.rand(6, generator=draw) < 0.5)
        added = torch.zeros(6, dtype=torch.bool)
        added[int(torch.randint(6, (1,), generator=draw))] = True
        if (added & large).any():
            continue
        gain = function(similarity, small | added) - function(similarity, small)
        later = function(similarity, large | added) - function(similarity, large)
        assert gain >= later - 1e-10
        apart = torch.stack([large & (torch.arange(6) % 3 == part) for part in range(3)])
        assert function(similarity, apart).sum() >= function(similarity, large) - 1e-10  # total correlation
    assert function(psd_similarity(0), torch.zeros(6, dtype=torch.bool)) == 0


def test_total_correlation_of_log_det() -> None:
    for seed in range(20):
        points, labels = batch(seed)
        correlation = log_det_loss(points, labels, ridge=1.0)
        similarity = similarity_kernel(points)
        parts = sum(log_det(similarity, labels == c) for c in labels.unique())
        torch.testing.assert_close(correlation, parts - log_det(similarity, labels >= 0))
        assert correlation >= 0
    apart = torch.block_diag(normal(3, 2), normal(2, 3))  # two classes in directions of their own
    assert log_det_loss(apart, torch.tensor([0, 0, 0, 1, 1])).item() == pytest.approx(0, abs=1e-12)


@over_losses
@styles
def test_order_rotation_and_names_of_classes(function: Any, style: Any) -> None:
    points, labels = batch()
    value = function(points, labels, style=style)
    turn, order = (
        torch.linalg.qr(normal(3, 3, seed=1))[0],
        torch.randperm(9, generator=torch.Generator().manual_seed(1)),
    )
    torch.testing.assert_close(function(points @ turn, labels, style=style), value)
    torch.testing.assert_close(function(points[order], labels[order], style=style), value)
    torch.testing.assert_close(function(points, 7 - labels, style=style), value)


@pytest.mark.parametrize(
    "function",
    [facility_location_loss, graph_cut_loss, log_det_loss, submodular_supcon_loss, submodular_snn_loss],
)
def test_an_outsider_that_moves_away_lowers_the_loss(function: Any) -> None:
    labels = torch.tensor([0, 0, 1])
    angles = torch.linspace(0.3, 1.4, 6, dtype=torch.float64)
    members = torch.tensor([[1.0, 0.0], [1.0, 0.05]], dtype=torch.float64)
    values = [function(torch.cat([members, torch.stack([a.cos(), a.sin()])[None]]), labels).item() for a in angles]
    assert all(later < earlier for earlier, later in itertools.pairwise(values))


@pytest.mark.parametrize("function", BY_CLASS)
def test_rare_classes_count_as_much_as_frequent_ones(function: Any) -> None:
    points, labels = batch()
    values = function(points, labels, reduction="none")
    assert values.shape == (3,)
    torch.testing.assert_close(function(points, labels), values.mean())


@over_losses
@styles
def test_one_class_and_singletons_are_legal(function: Any, style: Any) -> None:
    points = normal(4, 3).requires_grad_()
    for labels in (torch.zeros(4, dtype=torch.int64), torch.arange(4)):
        loss = function(points, labels, style=style)
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, points)[0]).all()
    one = torch.zeros(4, dtype=torch.int64)
    if function in (facility_location_loss, graph_cut_loss, log_det_loss, submodular_supcon_loss):
        assert function(points, one, style=style).item() == pytest.approx(0, abs=1e-12)


def test_the_ratio_stands_distant_rows_and_refuses_negative_sums() -> None:
    points, labels = normal(6, 3).mul(1e3).requires_grad_(), torch.arange(6) % 2
    loss = graph_cut_loss(points, labels, form="log_ratio", kernel="rbf")
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, points)[0]).all()
    with pytest.raises(RivalsError, match="more than 0"):
        graph_cut_loss(points, labels, form="log_ratio", kernel="cosine")


def test_bad_input() -> None:
    points, labels = batch()
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (facility_location_loss, {"kernel": "linear"}, "kernel"),
        (facility_location_loss, {"style": "blog"}, "style"),
        (facility_location_loss, {"lam": -1.0}, "lam"),
        (facility_location_loss, {"temperature": 0.0}, "temperature"),
        (graph_cut_loss, {"form": "cut"}, "form"),
        (graph_cut_loss, {"form": "log_ratio", "kernel": "rbf", "lam": 0.0}, "lam"),
        (log_det_loss, {"ridge": 0.0}, "ridge"),
        (log_det_loss, {"kernel": "euclidean"}, "kernel"),
        (log_det_loss, {"form": "log_ratio"}, "form"),
        (log_det_loss, {"style": "blog"}, "style"),
        (submodular_snn_loss, {"kernel": "rbf"}, "kernel"),
        (submodular_supcon_loss, {"temperature": -1.0}, "temperature"),
        (submodular_triplet_loss, {"kernel": "rbf"}, "kernel"),
    ]
    for function, options, message in wrong:
        with pytest.raises(RivalsError, match=message):
            function(points, labels, **options)
    chosen = torch.ones(3, dtype=torch.bool)
    with pytest.raises(RivalsError, match="N, N"):
        graph_cut(SIMILARITY[:2], chosen)
    with pytest.raises(RivalsError, match="boolean"):
        facility_location(SIMILARITY, chosen.long())
    with pytest.raises(RivalsError, match="selected"):
        facility_location(SIMILARITY, chosen[:2])
    with pytest.raises(RivalsError, match="positive definite"):
        log_det(-SIMILARITY, chosen)


def test_sets_may_be_many_at_once() -> None:
    chosen = torch.tensor([[True, False, False], [True, True, True]])
    expected = [facility_location(SIMILARITY, row).item() for row in chosen]
    assert facility_location(SIMILARITY, chosen).tolist() == pytest.approx(expected)
