"""The proto-triplet loss and the ICNN score and loss: paper 25's checks, and the formula by loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import class_prototypes, icnn_loss, icnn_score, proto_triplet_loss


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def directly(
    points: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    target_labels: Tensor | None,
    k: int,
    kept: int | None,
    drop: bool,
) -> float:
    """The ICNN score by loops over points and neighbours, on plain numbers."""
    own = targets is None
    aims, classes = (points, labels) if targets is None or target_labels is None else (targets, target_labels)
    size = len(aims)
    small = k + 2 >= size
    k = size - 2 if small else k
    kept = k + 1 if kept is None else kept
    same_means, apart_sums, friends_all = [], [], []
    rows = []
    for i, point in enumerate(points):
        distances = sorted(
            (math.sqrt(float(((point - aim) ** 2).sum()) + 1e-6), int(classes[j]) == int(labels[i]))
            for j, aim in enumerate(aims)
            if not (own and i == j)
        )
        rows.append(distances[int(drop and not own) :][:kept])
    largest = max((d for row in rows for d, same in row[:k] if not same), default=0.0) + 1e-7
    for row in rows:
        enemy = min((d for d, same in row if not same), default=math.inf) + 1e-7
        relative = [d / enemy for d, _ in row[:k]]
        relative = [a / max(1.0, *relative) for a in relative]
        friends = [a for a, (_, same) in zip(relative, row, strict=False) if same]
        strangers = [d / largest for d, same in row[:k] if not same]
        friends_all.append(len(friends))
        if friends:
            same_means.append(sum(friends) / (len(friends) + 1e-7))
        if strangers:
            apart_sums.append(sum(strangers) / (len(strangers) + 1e-7))
    lam_same = 1 - sum(same_means) / (len(same_means) + 1e-7)
    lam_diff = sum(apart_sums) / (len(apart_sums) + 1e-7) if apart_sums else 1.0
    gamma = 1.0 if small else sum(friends_all) / k / len(points)
    return ((lam_same + lam_diff) / 2 + gamma) / 2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("k", "kept"), [(4, None), (2, 6), (1, None), (9, None), (4, 2)])
def test_score_equals_loops(k: int, kept: int | None, seed: int) -> None:
    points, labels = normal(10, 3, seed=seed), torch.arange(10) % 3
    found = icnn_score(points, labels, k=k, neighbours=kept).item()
    assert found == pytest.approx(directly(points, labels, None, None, k, kept, True), rel=1e-12)


@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize(("k", "kept"), [(4, None), (3, 5), (6, None)])
def test_score_against_targets_equals_loops(k: int, kept: int | None, drop: bool) -> None:
    points, labels = normal(5, 3), torch.tensor([0, 1, 1, 2, 0])
    targets, classes = normal(7, 3, seed=1), torch.tensor([0, 1, 2, 0, 1, 2, 1])
    found = icnn_score(points, labels, targets=targets, target_labels=classes, k=k, neighbours=kept, drop_nearest=drop)
    assert found.item() == pytest.approx(directly(points, labels, targets, classes, k, kept, drop), rel=1e-12)


def clusters(apart: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    labels = torch.arange(3).repeat_interleave(6)
    return normal(18, 4, seed=seed) * 0.1 + apart * torch.eye(3, 4, dtype=torch.float64)[labels], labels


def test_classes_far_apart_have_score_one_and_closer_ones_less() -> None:
    points, labels = clusters(100.0)
    assert icnn_score(points, labels).item() == 1
    assert icnn_loss(points, labels).item() == 0
    nearer = [icnn_score(*clusters(apart)).item() for apart in (0.3, 0.1, 0.0)]
    assert 1 > nearer[0] > nearer[1] > nearer[2] > 0


def test_invariances() -> None:
    points, labels = normal(12, 3), torch.arange(12) % 3
    score = icnn_score(points, labels)
    turn = torch.linalg.qr(normal(3, 3, seed=1))[0]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(icnn_score(points @ turn + 3.0, labels), score)
    torch.testing.assert_close(icnn_score(points[order], labels[order]), score)
    torch.testing.assert_close(icnn_score(points, 5 - 2 * labels), score)
    assert abs(icnn_score(points * 10, labels) - score) < 1e-4
    torch.testing.assert_close(icnn_loss(points, labels), -score.log())


def test_true_labels_beat_random_ones() -> None:
    points, labels = clusters(0.5)
    random = [
        icnn_score(points, labels[torch.randperm(18, generator=torch.Generator().manual_seed(seed))])
        for seed in range(50)
    ]
    assert icnn_score(points, labels) > torch.stack(random).mean() + 0.1


def test_the_share_of_neighbours_carries_no_gradient() -> None:
    points, labels = normal(12, 2).requires_grad_(), torch.arange(12) % 2
    assert torch.autograd.gradcheck(lambda x: icnn_loss(x, labels, k=3), points)
    alone = torch.arange(12)  # no two points share a class: only the distances to others are left
    assert torch.autograd.gradcheck(lambda x: icnn_loss(x, alone, k=3), points)


def test_equal_points_leave_themselves_out() -> None:
    points, labels = torch.zeros(6, 2, dtype=torch.float64).requires_grad_(), torch.tensor([0, 0, 0, 1, 1, 1])
    loss = icnn_loss(points, labels)
    assert torch.isfinite(loss)
    assert (torch.autograd.grad(loss, points)[0] == 0).all()


def test_too_few_points() -> None:
    labels = torch.tensor([0, 0, 1])
    with pytest.raises(RivalsError, match="at least 4"):
        icnn_score(normal(3, 2), labels)
    with pytest.raises(RivalsError, match="mask leaves none"):
        icnn_score(normal(3, 2), labels, torch.zeros(3).bool(), targets=normal(5, 2), target_labels=torch.arange(5))
    assert icnn_loss(normal(3, 2), labels).item() == 0
    one = icnn_loss(normal(1, 2), labels[:1], targets=normal(5, 2), target_labels=torch.tensor([0, 0, 1, 1, 1]))
    assert one.item() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must"),
        ({"neighbours": 0}, "neighbours"),
        ({"neighbours": 6}, "neighbours must lie in 1..5"),
        ({"targets": normal(5, 2)}, "together"),
        ({"target_labels": torch.arange(5)}, "together"),
        ({"targets": normal(5, 3), "target_labels": torch.arange(5)}, "targets"),
        ({"targets": normal(5, 2), "target_labels": torch.arange(4)}, "target_labels"),
        ({"targets": normal(2, 2), "target_labels": torch.arange(2)}, "at least 3"),
        (
            {"targets": normal(5, 2), "target_labels": torch.arange(5), "neighbours": 5, "drop_nearest": True},
            "neighbours must lie in 1..4",
        ),
    ],
)
def test_bad_options_of_the_score(options: dict, message: str) -> None:  # type: ignore[type-arg]
    for function in (icnn_score, icnn_loss):
        with pytest.raises(RivalsError, match=message):
            function(normal(6, 2), torch.arange(6) % 2, **options)


# ---------------------------------------------------------------------------------- prototypes


def test_on_a_line() -> None:
    """Check 1: prototypes at 1 (class 0) and 3 (class 1), queries of class 0 at 0 and at 2.5."""
    loss = proto_triplet_loss(
        torch.tensor([[0.0], [2.5]], dtype=torch.float64),
        torch.tensor([[1.0], [3.0]], dtype=torch.float64),
        query_groups=torch.tensor([0, 0]),
        document_groups=torch.tensor([0, 1]),
        reduction="none",
    )
    assert loss.tolist() == pytest.approx([0, 1.5], abs=1e-6)


def test_proto_triplet_by_loops_and_its_forms() -> None:
    points, labels = normal(12, 3), torch.arange(12) % 4 + 5
    prototypes, classes = class_prototypes(points, labels)
    assert classes.tolist() == [5, 6, 7, 8]
    torch.testing.assert_close(prototypes[1], points[labels == 6].mean(0))
    queries, wanted = normal(6, 3, seed=1), torch.tensor([5, 8, 8, 7, 5, 6])
    expected = []
    for query, own in zip(queries, wanted, strict=True):
        distance = ((query - prototypes).square().sum(1) + 1e-6).sqrt()
        expected.append(max(0.0, float(distance[classes == own] - distance[classes != own].min()) + 0.7))
    by_groups = proto_triplet_loss(
        queries, prototypes, query_groups=wanted, document_groups=classes, margin=0.7, reduction="none"
    )
    assert by_groups.tolist() == pytest.approx(expected)
    by_relevance = proto_triplet_loss(queries, prototypes, (wanted[:, None] == classes).double(), margin=0.7)
    assert by_relevance.item() == pytest.approx(sum(expected) / 6)
    absent = torch.ones(6, 4, dtype=torch.bool)
    absent[:, 3] = False  # class 8 has no prototype: its two queries are left out
    some = proto_triplet_loss(queries, prototypes, (wanted[:, None] == classes).double(), absent, reduction="none")
    assert some[1] == some[2] == 0


def test_absent_class_members_count_in_no_prototype() -> None:
    mask = torch.tensor([True, False, True, True])
    points = torch.tensor([[1.0], [torch.nan], [3.0], [9.0]])
    prototypes, classes = class_prototypes(points, torch.tensor([0, 0, 0, 2]), mask)
    assert prototypes.tolist() == [[2.0], [9.0]]
    assert classes.tolist() == [0, 2]


def test_bad_prototypes() -> None:
    queries, prototypes = normal(2, 3), normal(2, 3, seed=1)
    with pytest.raises(RivalsError, match="class 4"):
        proto_triplet_loss(queries, prototypes, query_groups=torch.tensor([0, 4]), document_groups=torch.tensor([0, 1]))
    with pytest.raises(RivalsError, match="two classes"):
        proto_triplet_loss(queries, prototypes, query_groups=torch.tensor([0, 0]), document_groups=torch.tensor([0, 0]))
    with pytest.raises(RivalsError, match="margin"):
        proto_triplet_loss(queries, prototypes, margin=-1.0)
