"""Graded triplets and contrastive regression: paper 45's checks, triples by loops, chunks, laws of the own form."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    contrastive_regression_loss,
    pairwise_hinge_loss,
    reference_distance,
    relative_triplet_loss,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LINE = torch.tensor([[0.0], [2.0], [1.0]], dtype=torch.float64)
GRADES = torch.tensor([4.5, 2.0, 1.5], dtype=torch.float64)


def line(**options: Any) -> float:
    return contrastive_regression_loss(LINE, GRADES, normalize=False, **options).item()


def triples(
    points: Tensor, targets: Tensor, margin: Any, scale: float, gap: float = 0.0, squared: bool = False
) -> list[float]:
    """T_ijk of every valid triple, by loops."""
    found = []
    for i, j, k in itertools.permutations(range(len(points)), 3):
        near, far = abs(float(targets[i] - targets[j])), abs(float(targets[i] - targets[k]))
        if far - near > gap:
            d = [float((points[i] - points[other]).norm()) ** (2 if squared else 1) for other in (j, k)]
            found.append(d[0] - d[1] + ((far - near) / scale if margin == "adaptive" else margin))
    return found


def test_constant_margin_by_hand() -> None:
    """Check 1: the triples give 1.2, -0.8 and 0.2."""
    assert line(reduction="sum") == pytest.approx(1.4)
    assert line() == pytest.approx(0.7)
    assert line(divide_by="valid") == pytest.approx(0.4666666666666667)
    assert line(reduction="list_mean") == pytest.approx(0.7)  # two anchors with a term above 0


@pytest.mark.parametrize(("scale", "terms"), [(4.0, (1.125, 0.625)), (3.0, (1.1666667, 0.8333333))])
def test_adaptive_margin_by_hand(scale: float, terms: tuple[float, ...]) -> None:
    """Check 2."""
    assert line(margin="adaptive", target_range=scale, reduction="sum") == pytest.approx(sum(terms))
    assert line(margin="adaptive", reduction="sum") == line(margin="adaptive", target_range=3.0, reduction="sum")
    printed = line(margin="adaptive", target_range=scale, printed_sign=True, reduction="sum")
    assert printed == pytest.approx(1 - 0.5 / scale)  # the others are below 0


@pytest.mark.parametrize("margin", [0.2, 1.0, "adaptive"])
@pytest.mark.parametrize("options", [{}, {"normalize": False}, {"squared": True}, {"min_gap": 0.4}])
def test_equals_loops(margin: Any, options: dict[str, Any]) -> None:
    points, targets = normal(8, 3), normal(8, seed=1)
    plain = points if options.get("normalize") is False else points / points.norm(dim=1, keepdim=True)
    values = triples(plain, targets, margin, 2.5, options.get("min_gap", 0.0), options.get("squared", False))
    above = [value for value in values if value > 0]
    for reduction, divide_by, expected in (
        ("sum", "active", sum(above)),
        ("mean", "active", sum(above) / len(above)),
        ("mean", "valid", sum(above) / len(values)),
    ):
        found = contrastive_regression_loss(
            points,
            targets,
            margin=margin,
            target_range=2.5,
            divide_by=divide_by,  # type: ignore[arg-type]
            reduction=reduction,  # type: ignore[arg-type]
            **options,
        )
        assert found.item() == pytest.approx(expected, rel=1e-10)


def test_number_of_triples() -> None:
    for size in (3, 5, 8):
        counted = triples(torch.zeros(size, 1), normal(size), 1.0, 1.0)
        assert len(counted) == size * (size - 1) * (size - 2) / 2
        points = torch.zeros(size, 1, dtype=torch.float64)  # all distances 0: every hinge is the margin
        total = contrastive_regression_loss(points, normal(size), margin=1.0, reduction="sum")
        assert total.item() == len(counted)


def test_invariances() -> None:
    points, targets = normal(7, 3), normal(7, seed=1)
    turn = torch.linalg.qr(normal(3, 3, seed=2))[0]
    for options in ({}, {"margin": "adaptive"}):
        value = contrastive_regression_loss(points, targets, **options)  # type: ignore[arg-type]
        moved = contrastive_regression_loss(points @ turn, -3.0 * targets + 2.0, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(moved, value)


def test_an_ordered_line_costs_nothing() -> None:
    targets = normal(7)
    points = targets[:, None] * torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    assert contrastive_regression_loss(points, targets, margin=0.0, normalize=False).item() == pytest.approx(
        0, abs=1e-12
    )


def test_two_grades_are_the_batch_all_triplet_loss() -> None:
    points, targets = normal(7, 3), torch.tensor([0, 1, 1, 0, 0, 1, 0])
    unit = points / points.norm(dim=1, keepdim=True)
    terms = []
    for i, j, k in itertools.permutations(range(7), 3):
        if targets[i] == targets[j] != targets[k]:
            terms.append(max(0.0, float((unit[i] - unit[j]).norm() - (unit[i] - unit[k]).norm()) + 0.2))
    loss = contrastive_regression_loss(points, targets, reduction="sum")
    assert loss.item() == pytest.approx(sum(terms))


def test_equal_targets_are_worth_nothing() -> None:
    points = normal(5, 2).requires_grad_()
    for margin in (0.2, "adaptive"):
        loss = contrastive_regression_loss(points, torch.ones(5), margin=margin)  # type: ignore[arg-type]
        assert loss.item() == 0
        assert (torch.autograd.grad(loss, points)[0] == 0).all()


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_change_nothing(chunk: int) -> None:
    points, targets = normal(8, 3).requires_grad_(), normal(8, seed=1)
    whole = contrastive_regression_loss(points, targets)
    parts = contrastive_regression_loss(points, targets, chunk=chunk)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, points), torch.autograd.grad(whole, points))


def test_it_is_the_ranking_form_over_anchors() -> None:
    points, targets = normal(6, 2), normal(6, seed=1)
    distance, gap = torch.cdist(points, points), (targets[:, None] - targets).abs()
    others = ~torch.eye(6, dtype=torch.bool)
    by_lists = relative_triplet_loss(-distance, gap.max() - gap, others, margin=0.5)
    torch.testing.assert_close(contrastive_regression_loss(points, targets, margin=0.5, normalize=False), by_lists)


# ---------------------------------------------------------------------------------- laws of the own form


def test_absent_examples_are_removed() -> None:
    points, targets = normal(8, 3), normal(8, seed=1)
    mask = torch.tensor([True, True, False, True, False, True, True, True])
    dirty, grades = points.clone(), targets.clone()
    dirty[~mask], grades[~mask] = torch.nan, torch.inf
    leaf = dirty.requires_grad_()
    for options in ({}, {"margin": "adaptive"}, {"reduction": "sum"}, {"reduction": "list_mean"}):
        found = contrastive_regression_loss(leaf, grades, mask, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(found, contrastive_regression_loss(points[mask], targets[mask], **options))  # type: ignore[arg-type]
    each = contrastive_regression_loss(leaf, grades, mask, reduction="none")
    assert each.shape == (8,)
    assert (each[~mask] == 0).all()
    torch.testing.assert_close(each.sum(), contrastive_regression_loss(leaf, grades, mask, reduction="sum"))
    (gradient,) = torch.autograd.grad(each.sum(), leaf)
    assert torch.isfinite(gradient).all()
    assert (gradient[~mask] == 0).all()
    nothing = contrastive_regression_loss(leaf, grades, torch.zeros_like(mask))
    assert nothing.item() == 0
    assert (torch.autograd.grad(nothing, leaf)[0] == 0).all()


def test_order_gradient_and_equal_points() -> None:
    points, targets = normal(6, 3).requires_grad_(), normal(6, seed=1)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        contrastive_regression_loss(points[order], targets[order]), contrastive_regression_loss(points, targets)
    )
    assert torch.autograd.gradcheck(lambda x: contrastive_regression_loss(x, targets), points)
    same = torch.ones(4, 2, dtype=torch.float64).requires_grad_()
    loss = contrastive_regression_loss(same, torch.arange(4.0))
    assert loss.item() == pytest.approx(0.2)
    assert torch.isfinite(torch.autograd.grad(loss, same)[0]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalize", [True, False])
def test_extremes(dtype: torch.dtype, normalize: bool) -> None:
    points = (normal(7, 3).sign() * 1e4).to(dtype).requires_grad_()
    loss = contrastive_regression_loss(points, normal(7, seed=1).to(dtype), normalize=normalize)
    assert loss.dtype == torch.float32
    gradient = torch.autograd.grad(loss, points)[0]
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": normal(2, 2), "targets": normal(2)}, "at least 3"),
        ({"targets": normal(4)}, "targets"),
        ({"targets": torch.full((5,), torch.nan)}, "finite"),
        ({"embeddings": torch.ones(5, 2, dtype=torch.int64)}, "floating"),
        ({"mask": torch.ones(5)}, "boolean"),
        ({"margin": -0.1}, "margin"),
        ({"margin": "wide"}, "margin"),
        ({"target_range": 0.0}, "target_range"),
        ({"min_gap": -1.0}, "min_gap"),
        ({"chunk": 0}, "chunk"),
        ({"divide_by": "all"}, "divide_by"),
        ({"reduction": "median"}, "reduction"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        contrastive_regression_loss(**({"embeddings": normal(5, 2), "targets": normal(5)} | change))


# ---------------------------------------------------------------------------------- ranking form and scoring


def test_pairs_of_a_list() -> None:
    scores = torch.tensor([[1.0, 0.5, 0.7, 9.0]], dtype=torch.float64)
    relevance, mask = torch.tensor([[3.0, 1.0, 0.0, 2.0]]).double(), torch.tensor([[True, True, True, False]])
    terms = [0.2 - 0.5, 0.2 - 0.3, 0.2 + 0.2]  # (0, 1), (0, 2), (1, 2)
    options: dict[str, Any] = {"mask": mask, "margin": 0.2}
    assert relative_triplet_loss(scores, relevance, **options).item() == pytest.approx(terms[2])
    valid = relative_triplet_loss(scores, relevance, divide_by="valid", **options)
    assert valid.item() == pytest.approx(terms[2] / 3)
    adaptive = relative_triplet_loss(scores, relevance, mask, margin="adaptive", relevance_range=4.0, reduction="sum")
    assert adaptive.item() == pytest.approx(0 + (0.75 - 0.3) + (0.25 + 0.2))
    weight = torch.tensor([[2.0, 3.0, 0.5, 1.0]]).double()
    assert relative_triplet_loss(scores, relevance, weight=weight, **options).item() == pytest.approx(1.5 * terms[2])
    wide = relative_triplet_loss(scores, relevance, mask, margin=2.0, min_gap=1.5, reduction="sum")
    assert wide.item() == pytest.approx((2 - 0.5) + (2 - 0.3))  # the pair (1, 2) is too close


def test_all_pairs_with_a_constant_margin_are_the_pairwise_hinge() -> None:
    scores, relevance = normal(3, 6), torch.randint(0, 3, (3, 6), generator=torch.Generator().manual_seed(0))
    mask, weight = normal(3, 6, seed=1) > -0.5, normal(3, 6, seed=2).abs()
    for reduction in ("mean", "sum", "list_mean"):
        ours = relative_triplet_loss(
            scores,
            relevance,
            mask,
            weight=weight,
            margin=0.7,
            divide_by="valid",
            reduction=reduction,  # type: ignore[arg-type]
        )
        theirs = pairwise_hinge_loss(scores, relevance, mask, weight=weight, margin=0.7, reduction=reduction)  # type: ignore[arg-type]
        torch.testing.assert_close(ours, theirs)


def test_reference_distance() -> None:
    points, references = normal(4, 3), normal(5, 3, seed=1)
    unit = [vectors / vectors.norm(dim=1, keepdim=True) for vectors in (points, references)]
    for options, (left, right), power in (
        ({}, unit, 1),
        ({"normalize": False}, (points, references), 1),
        ({"squared": True}, unit, 2),
    ):
        expected = [float(((row - right).norm(dim=1) ** power).mean()) for row in left]
        assert reference_distance(points, references, **options).tolist() == pytest.approx(expected)  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="at least one"):
        reference_distance(points, references[:0])
    with pytest.raises(RivalsError, match="references"):
        reference_distance(points, references[:, :2])
