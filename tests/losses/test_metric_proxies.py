"""Losses against class weights: margins, unified negative pairs, center loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import rivals.losses._fused.labelled as blocked
from rivals.errors import RivalsError
from rivals.losses import (
    ClassCenters,
    arcface_loss,
    center_loss,
    circle_class_loss,
    class_cosines,
    cosface_loss,
    magnitude_margin,
    magnitude_penalty,
    margin_logits,
    moved_centers,
    negative_pair_similarities,
    sphereface_loss,
    unified_negative_pair_loss,
    whisker_filter,
)
from tests import laws

CLASSES = 5


def problem(size: int = 12, width: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(size, width, generator=generator, dtype=torch.float64)
    classes = torch.randn(CLASSES, width, generator=generator, dtype=torch.float64)
    return rows, torch.randint(0, CLASSES, (size,), generator=generator), classes


# ---------------------------------------------------------------------------------- margins


def test_class_cosines() -> None:
    rows, _, classes = problem()
    wanted = F.cosine_similarity(rows[:, None], classes[None], dim=-1)
    torch.testing.assert_close(class_cosines(rows, classes), wanted)
    assert class_cosines(rows.half(), classes.half()).dtype == torch.float32
    with pytest.raises(RivalsError, match="classes"):
        class_cosines(rows, classes[:, :2])


def test_margin_logits_by_angle() -> None:
    for degrees in (5, 60, 100, 170, 179):
        angle = math.radians(degrees)
        cosines, labels = torch.tensor([[0.3, math.cos(angle)]], dtype=torch.float64), torch.tensor([1])

        def own(cosines: Tensor = cosines, labels: Tensor = labels, **options: Any) -> float:
            moved = margin_logits(cosines, labels, **options)
            assert moved[0, 0] == 0.3
            return moved[0, 1].item()

        assert own(head="none") == pytest.approx(math.cos(angle))
        assert own(head="cosface", margin=0.4) == pytest.approx(math.cos(angle) - 0.4)
        assert own(head="arcface", margin=0.5, beyond_pi="plain") == pytest.approx(math.cos(angle + 0.5))
        beyond = angle + 0.5 > math.pi
        monotone = math.cos(angle) - 0.5 * math.sin(0.5) if beyond else math.cos(angle + 0.5)
        assert own(head="arcface", margin=0.5) == pytest.approx(monotone)
        easy = math.cos(angle + 0.5) if math.cos(angle) > 0 else math.cos(angle)
        assert own(head="arcface", margin=0.5, beyond_pi="easy") == pytest.approx(easy)
        k = int(4 * degrees // 180)
        sphere = (-1) ** k * math.cos(4 * angle) - 2 * k
        assert own(head="sphereface", margin=4) == pytest.approx(sphere)


@pytest.mark.parametrize("head", ["arcface", "sphereface"])
def test_margins_never_rise_with_the_angle(head: Any) -> None:
    angles = torch.linspace(0.01, math.pi - 0.01, 400, dtype=torch.float64)
    moved = margin_logits(
        angles.cos()[:, None], torch.zeros(400, dtype=torch.int64), head=head, margin=3 if head != "arcface" else 0.5
    )
    assert (moved.diff(dim=0) < 0).all()


def test_margin_softmax_is_cross_entropy_of_the_moved_cosines() -> None:
    rows, labels, classes = problem()
    cosines = class_cosines(rows, classes)
    for function, head, margin in ((cosface_loss, "cosface", 0.2), (arcface_loss, "arcface", 0.3)):
        moved = margin_logits(cosines, labels, head=head, margin=margin)  # type: ignore[arg-type]
        found = function(cosines, labels, margin=margin, scale=10.0)
        assert found.item() == pytest.approx(F.cross_entropy(10 * moved, labels).item(), rel=1e-13)
    plain = F.cross_entropy(cosines, labels).item()
    for zero in (
        cosface_loss(cosines, labels, margin=0.0, scale=1.0),
        arcface_loss(cosines, labels, margin=0.0, scale=1.0),
        sphereface_loss(cosines, labels, margin=1),
    ):
        assert zero.item() == pytest.approx(plain, rel=1e-12)


def test_exact_cosines_have_finite_gradients() -> None:
    for own in (1.0, -1.0):
        for function in (arcface_loss, sphereface_loss):
            leaf = torch.tensor([[own, 0.2]], requires_grad=True)
            (gradient,) = torch.autograd.grad(function(leaf, torch.tensor([0])), leaf)
            assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("kind", ["ArcFaceLoss", "CosFaceLoss", "SphereFaceLoss"])
def test_faces_equal_pytorch_metric_learning(kind: str) -> None:
    peer = pytest.importorskip("pytorch_metric_learning.losses")
    rows, labels, classes = problem(size=40)
    rows[0] = -classes[labels[0]] + 0.01  # beyond pi
    theirs = getattr(peer, kind)(CLASSES, 4)
    with torch.no_grad():
        theirs.W.data = classes.T.clone()
    ours, reference = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    cosines = class_cosines(ours, classes)
    function: Callable[..., Tensor] = {
        "ArcFaceLoss": partial(arcface_loss, margin=math.radians(28.6)),
        "CosFaceLoss": cosface_loss,
        "SphereFaceLoss": partial(sphereface_loss, norms=ours.norm(dim=1)),
    }[kind]
    found, expected = function(cosines, labels), theirs(reference, labels)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for pair in zip(torch.autograd.grad(found, ours), torch.autograd.grad(expected, reference), strict=True):
        torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-6)


def test_magface() -> None:
    norms = torch.tensor([5.0, 10.0, 60.0, 110.0, 300.0], dtype=torch.float64)
    assert magnitude_margin(norms).tolist() == pytest.approx([0.45, 0.45, 0.625, 0.8, 0.8])
    assert magnitude_penalty(norms)[2].item() == pytest.approx(60 / 110**2 + 1 / 60)
    rows, labels, classes = problem()
    lengths = rows.norm(dim=1)
    margins = magnitude_margin(lengths, margins=(0.1, 0.6), range_of_norms=(0.5, 3.0))
    mask = torch.arange(12) % 4 > 0
    found = arcface_loss(class_cosines(rows, classes), labels, mask, margin=margins, reduction="none")
    alone = [
        arcface_loss(class_cosines(rows[i : i + 1], classes), labels[i : i + 1], margin=float(margins[i])).item()
        for i in range(12)
    ]
    assert found.tolist() == pytest.approx([value if there else 0 for value, there in zip(alone, mask, strict=True)])
    for wrong in ({"range_of_norms": (3.0, 3.0)}, {"margins": (-0.1, 0.2)}):
        with pytest.raises(RivalsError):
            magnitude_margin(norms, **wrong)  # type: ignore[arg-type]
    with pytest.raises(RivalsError):
        magnitude_penalty(norms, range_of_norms=(0.0, 1.0))


def test_bad_margins_and_labels() -> None:
    cosines, labels = torch.zeros(2, 3), torch.tensor([0, 2])
    wrong: list[tuple[Callable[..., Tensor], dict[str, Any], str]] = [
        (cosface_loss, {"margin": -0.1}, "margin"),
        (cosface_loss, {"scale": 0.0}, "scale"),
        (arcface_loss, {"margin": torch.zeros(3)}, "margin"),
        (arcface_loss, {"margin": torch.tensor([0.1, -0.1])}, "margin"),
        (arcface_loss, {"beyond_pi": "no"}, "beyond_pi"),
        (sphereface_loss, {"margin": 1.5}, "margin"),
        (sphereface_loss, {"norms": -torch.ones(2)}, "norms"),
        (circle_class_loss, {"margin": -1.0}, "margin"),
        (margin_logits, {"head": "magic"}, "head"),
    ]
    for function, options, name in wrong:
        with pytest.raises(RivalsError, match=name):
            function(cosines, labels, **options)
    with pytest.raises(RivalsError, match="labels"):
        cosface_loss(cosines, torch.tensor([0, 3]))


# ---------------------------------------------------------------------------------- unified negative pairs


def naive(rows: Tensor, labels: Tensor, classes: Tensor, **options: Any) -> Tensor:
    """Paper 14 with the pairs appended to every row, as the released code does."""
    scale, whisker = options["scale"], options["whisker"]
    logits = margin_logits(
        class_cosines(rows, classes), labels, head=options["head"], margin=options["margin"], beyond_pi="plain"
    )
    pairs = negative_pair_similarities(rows, labels)
    kept = pairs[whisker_filter(pairs, whisker=whisker)]
    wide = torch.cat([logits, kept.expand(len(rows), -1)], dim=1)
    return F.cross_entropy(scale * wide, labels)


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("head", ["cosface", "arcface", "none"])
@pytest.mark.parametrize("whisker", [0.0, 0.3, 1.5, None])
def test_unified_negative_pairs_equal_the_naive_form(
    whisker: float | None, head: Any, blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paper 14, check 6."""
    if blocks:
        monkeypatch.setattr(blocked, "MIN_ROWS", 1)
        monkeypatch.setattr(blocked, "BLOCK_ELEMENTS", 30)
    rows, labels, classes = problem()
    options: dict[str, Any] = {"head": head, "margin": 0.3, "scale": 12.0, "whisker": whisker}
    leaves = [rows.clone().requires_grad_(), classes.clone().requires_grad_()]
    found = unified_negative_pair_loss(leaves[0], labels, classes=leaves[1], **options)
    expected = naive(leaves[0], labels, leaves[1], **options)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for pair in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(*pair, rtol=1e-10, atol=1e-12)


def test_pairs_only_ever_raise_the_loss() -> None:
    """Paper 14, checks 3 and 5."""
    rows, labels, classes = problem()
    cosines = class_cosines(rows, classes)
    plain = cosface_loss(cosines, labels, margin=0.2, scale=9.0)
    losses = [
        unified_negative_pair_loss(
            rows, labels, classes=classes, head="cosface", margin=0.2, scale=9.0, whisker=w
        ).item()
        for w in (0.0, 0.5, None)
    ]
    assert plain.item() < losses[0] < losses[1] < losses[2]
    alike = torch.full_like(labels, 3)
    found = unified_negative_pair_loss(rows, alike, classes=classes, head="arcface", scale=9.0)
    expected = arcface_loss(cosines, alike, scale=9.0, beyond_pi="plain")
    assert found.item() == pytest.approx(expected.item(), rel=1e-14)
    none = unified_negative_pair_loss(rows, alike, classes=classes, head="none", scale=1.0)
    assert none.item() == pytest.approx(F.cross_entropy(cosines, alike).item(), rel=1e-12)


def test_the_gradient_of_a_pair_is_the_mass_it_takes_from_every_row() -> None:
    """Paper 14, check 4: s times the mean over rows of the pair's softmax mass, so always positive."""
    rows, labels, classes = problem()
    rows = F.normalize(rows)
    pairs = negative_pair_similarities(rows, labels).requires_grad_()
    logits = 8.0 * margin_logits(class_cosines(rows, classes), labels, margin=0.2)
    total = torch.logaddexp(logits.logsumexp(1), (8.0 * pairs).logsumexp(0))
    (gradient,) = torch.autograd.grad((total - logits.gather(1, labels[:, None])[:, 0]).mean(), pairs)
    torch.testing.assert_close(gradient, 8.0 * (8.0 * pairs[None] - total[:, None]).exp().mean(0).detach())
    held = rows.clone().requires_grad_()
    moved, still = (
        torch.autograd.grad(unified_negative_pair_loss(held, labels, classes=classes, detach_pairs=detach), held)[0]
        for detach in (False, True)
    )
    assert not torch.allclose(moved, still)


def test_large_batches_of_unified_pairs() -> None:
    """From 512 rows on the blocks have the work; whisker 0 puts values on the very edge."""
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(520, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (520,), generator=generator)
    classes = torch.randn(CLASSES, 6, generator=generator, dtype=torch.float64)
    for whisker in (0.0, 1.5):
        options: dict[str, Any] = {"head": "arcface", "margin": 0.4, "scale": 20.0, "whisker": whisker}
        found = unified_negative_pair_loss(rows, labels, classes=classes, **options)
        assert found.item() == pytest.approx(naive(rows, labels, classes, **options).item(), rel=1e-10)


def unified(embeddings: Tensor, labels: Tensor, mask: Tensor | None = None, *, reduction: Any = "mean") -> Tensor:
    classes = torch.randn(CLASSES, embeddings.shape[1], generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return unified_negative_pair_loss(
        embeddings, labels, mask, classes=classes.to(embeddings.dtype), reduction=reduction
    )


def to_centers(embeddings: Tensor, labels: Tensor, mask: Tensor | None = None, *, reduction: Any = "mean") -> Tensor:
    centers = torch.randn(CLASSES, embeddings.shape[1], generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return center_loss(embeddings, labels, mask, centers=centers.to(embeddings.dtype), reduction=reduction)


@pytest.mark.parametrize("function", [unified, to_centers])
@pytest.mark.parametrize("seed", range(4))
def test_the_laws_hold(function: Callable[..., Tensor], seed: int) -> None:
    subject = laws.Subject(function.__name__, function, "labelled")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (7,), generator=generator)
    mask = torch.rand(7, generator=generator) < 0.8
    case = laws.Labelled(rows, labels, mask)
    for garbage in (*laws.GARBAGE, math.nan):
        laws.padding_never_counts(subject, case, seed, garbage)
    laws.order_never_counts(subject, case, seed)
    laws.empty_lists_never_count(subject, case)
    laws.reductions_agree(subject, case)
    laws.absent_entries_get_no_gradient(subject, case)
    laws.gradients_are_right(subject, case)
    laws.twice_is_the_same(subject, case)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        half = laws.Labelled(rows.to(dtype), labels, mask)
        laws.extremes_stay_finite(subject, half, 800.0)
    nothing = laws.Labelled(rows, labels, torch.zeros_like(mask))
    assert subject(nothing) == 0


def test_bad_options_of_unified_pairs() -> None:
    rows, labels, classes = problem()
    for options, name in (
        ({"whisker": -1.0}, "whisker"),
        ({"scale": 0.0}, "scale"),
        ({"head": "face"}, "head"),
        ({"margin": torch.zeros(3)}, "margin"),
        ({"reduction": "median"}, "reduction"),
    ):
        with pytest.raises(RivalsError, match=name):
            unified_negative_pair_loss(rows, labels, classes=classes, **options)  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="labels"):
        unified_negative_pair_loss(rows, labels + 3, classes=classes)
    with pytest.raises(RivalsError, match="classes"):
        unified_negative_pair_loss(rows, labels, classes=classes[:, :2])


# ---------------------------------------------------------------------------------- center loss


def test_center_loss_and_its_centers() -> None:
    rows, labels, centers = problem()
    mask = torch.arange(12) != 2
    wanted = [0.5 * float((rows[i] - centers[labels[i]]).square().sum()) for i in range(12) if mask[i]]
    assert center_loss(rows, labels, mask, centers=centers, reduction="sum").item() == pytest.approx(sum(wanted))
    assert center_loss(rows, labels, mask, centers=centers).item() == pytest.approx(sum(wanted) / 11)
    moved = moved_centers(centers, rows, labels, mask, rate=0.5)
    for k in range(CLASSES):
        members = rows[mask & (labels == k)]
        step = (centers[k] - members).sum(0) / (1 + len(members))
        torch.testing.assert_close(moved[k], centers[k] - 0.5 * step)
    with pytest.raises(RivalsError, match="rate"):
        moved_centers(centers, rows, labels, rate=1.5)
    with pytest.raises(RivalsError, match="labels"):
        center_loss(rows, labels + 4, centers=centers)
    with pytest.raises(RivalsError, match="centers"):
        center_loss(rows, labels, centers=centers[:, :2])


def test_class_centers_move_in_training_only() -> None:
    rows, labels, _ = problem()
    module = ClassCenters(CLASSES, 4).double()
    leaf = rows.clone().requires_grad_()
    first = module(leaf, labels)
    first.backward()
    torch.testing.assert_close(leaf.grad, rows / len(rows))  # of the centres before they moved
    assert module(rows, labels) < first
    module.eval()
    before = module.centers.clone()
    module(rows, labels)
    assert torch.equal(module.centers, before)
    assert list(module.state_dict()) == ["centers"]
