"""Dice, Tversky and Jaccard losses: the checks of paper 18's card, and every level against a direct computation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import confusion_loss, dice_loss, jaccard_loss, softmax_dice_loss, tversky_loss


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def dice(p: Tensor, y: Tensor, *, alpha: float, smooth: float, squared: bool) -> float:
    """The Dice loss of one set by the card, entry by entry."""
    overlap = size = 0.0
    for probability, label in zip(p.flatten().tolist(), y.flatten().tolist(), strict=True):
        q = (1 - probability) ** alpha * probability
        overlap += q * label
        size += (q * q if squared else q) + label
    return 1 - (2 * overlap + smooth) / (size + smooth)


GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(4, 5, generator=GENERATOR, dtype=torch.float64) * 2
RELEVANCE = (torch.rand(4, 5, generator=GENERATOR) < 0.4).double()
MASK = torch.rand(4, 5, generator=GENERATOR) < 0.8
P, Y = rows([0.8, 0.2]), rows([1, 0])
OPTIONS = [
    {"alpha": 0.0, "smooth": 1.0, "squared": True},
    {"alpha": 0.3, "smooth": 0.5, "squared": True},
    {"alpha": 0.1, "smooth": 1e-4, "squared": False},
]


def test_values_of_the_card() -> None:
    options: dict[str, Any] = {"activation": None, "smooth": 0.0}
    assert dice_loss(P, Y, **options).item() == pytest.approx(0.0476190, abs=1e-7)
    assert dice_loss(P, Y, squared=False, **options).item() == pytest.approx(0.2)
    with pytest.warns(UserWarning, match="alpha"):
        assert dice_loss(P, Y, squared=False, alpha=1.0, **options).item() == pytest.approx(0.7575758, abs=1e-7)
    for smooth in (0.0, 1.0, 7.0):
        assert dice_loss(Y, Y, activation=None, smooth=smooth).item() == pytest.approx(0.0, abs=1e-12)
    assert dice_loss(torch.zeros(1, 3), rows([1, 0, 0]), activation=None).item() == pytest.approx(0.5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_level_is_the_dice_of_its_sets(options: dict[str, Any]) -> None:
    p = SCORES.sigmoid()

    def of(select: Any) -> float:
        kept = MASK[select]
        return dice(p[select][kept], RELEVANCE[select][kept], **options)

    def loss(level: Any, reduction: Any = "none", **further: Any) -> Tensor:
        return dice_loss(SCORES, RELEVANCE, MASK, level=level, reduction=reduction, **options, **further)

    assert loss("set").item() == pytest.approx(of(...), abs=1e-12)
    assert loss("list").tolist() == pytest.approx([of(i) for i in range(4)], abs=1e-12)
    assert loss("label").tolist() == pytest.approx([of((slice(None), k)) for k in range(5)], abs=1e-12)
    each = [[of((i, slice(k, k + 1))) if MASK[i, k] else 0.0 for k in range(5)] for i in range(4)]
    assert loss("candidate").tolist() == pytest.approx([sum(row) for row in each], abs=1e-12)
    assert loss("candidate", "mean").item() == pytest.approx(sum(map(sum, each)) / MASK.sum().item())
    given = dice_loss(p, RELEVANCE, MASK, activation=None, **options)
    assert given.item() == pytest.approx(of(...), abs=1e-12)


@pytest.mark.parametrize("loss", [dice_loss, tversky_loss, jaccard_loss])
def test_a_weight_of_two_is_the_candidate_twice(loss: Any) -> None:
    weight = torch.ones_like(SCORES)
    weight[:, 1] = 2
    twice = torch.cat([SCORES, SCORES[:, 1:2]], 1), torch.cat([RELEVANCE, RELEVANCE[:, 1:2]], 1)
    for level in ("set", "list"):
        weighted = loss(SCORES, RELEVANCE, weight=weight, level=level)
        assert weighted.item() == pytest.approx(loss(*twice, level=level).item(), rel=1e-12)


def test_true_negatives_do_not_count_and_gradients_have_their_signs() -> None:
    longer = torch.cat([P, rows([0.0, 0.0])], 1), torch.cat([Y, rows([0, 0])], 1)
    assert dice_loss(*longer, activation=None).item() == pytest.approx(dice_loss(P, Y, activation=None).item())
    p = SCORES.sigmoid().requires_grad_()
    gradient = torch.autograd.grad(dice_loss(p, RELEVANCE, activation=None), p)[0]
    assert (gradient[RELEVANCE > 0] < 0).all()
    assert (gradient[RELEVANCE == 0] > 0).all()


def test_hard_negatives_alone_count() -> None:
    scores, relevance = rows([2.0, 1.0, 0.5, -1.0, -2.0, 0.9]), rows([1, 0, 0, 0, 0, 1])
    for ratio, kept in [(0.5, [0, 1, 5]), (1.0, [0, 1, 2, 5]), (9.0, [0, 1, 2, 3, 4, 5])]:
        expected = dice(scores.sigmoid()[:, kept], relevance[:, kept], alpha=0, smooth=1.0, squared=True)
        for level in ("set", "list"):
            found = dice_loss(scores, relevance, level=level, ohem_ratio=ratio)  # type: ignore[arg-type]
            assert found.item() == pytest.approx(expected)
    columns = dice_loss(scores.T, relevance.T, level="label", ohem_ratio=1.0)
    assert columns.item() == pytest.approx(dice_loss(scores, relevance, ohem_ratio=1.0).item())
    single = dice_loss(scores, relevance, level="candidate", ohem_ratio=1.0)
    kept_scores, kept_labels = scores[:, [0, 1, 2, 5]], relevance[:, [0, 1, 2, 5]]
    assert single.item() == pytest.approx(dice_loss(kept_scores, kept_labels, level="candidate").item())


def test_nothing_wanted_and_nothing_found_is_worth_nothing() -> None:
    scores = torch.full((1, 2), -1e4, requires_grad=True)
    for loss in (dice_loss, tversky_loss, jaccard_loss):
        value = loss(scores, torch.zeros(1, 2), smooth=0.0)
        assert value.item() == 0
        assert torch.autograd.grad(value, scores)[0].tolist() == [[0, 0]]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_softmax_dice_is_a_dice_for_every_class(options: dict[str, Any]) -> None:
    labels, mask = torch.tensor([0, 4, 1, 1]), torch.tensor([True, True, False, True])
    p, y = SCORES.softmax(1), torch.nn.functional.one_hot(labels, 5)
    examples = [
        sum(dice(p[i, k : k + 1], y[i, k : k + 1], **options) for k in range(5)) if mask[i] else 0.0 for i in range(4)
    ]
    found = softmax_dice_loss(SCORES, labels, mask, level="example", reduction="none", **options)
    assert found.tolist() == pytest.approx(examples, abs=1e-12)
    mean = softmax_dice_loss(SCORES, labels, mask, level="example", **options)
    assert mean.item() == pytest.approx(sum(examples) / 3)
    whole = softmax_dice_loss(SCORES, labels, mask, **options)
    assert whole.item() == pytest.approx(sum(dice(p[mask, k], y[mask, k], **options) for k in range(5)))


def test_softmax_dice_with_weights_and_hard_negatives() -> None:
    labels = torch.tensor([0, 4, 1, 1])
    weight = torch.tensor([1.0, 2.0, 1.0, 1.0])
    twice = torch.cat([SCORES, SCORES[1:2]]), torch.cat([labels, labels[1:2]])
    weighted = softmax_dice_loss(SCORES, labels, weight=weight)
    assert weighted.item() == pytest.approx(softmax_dice_loss(*twice).item())
    p, expected = SCORES.softmax(1), 0.0
    for k in range(5):
        own, others = (labels == k).nonzero()[:, 0].tolist(), (labels != k).nonzero()[:, 0].tolist()
        hardest = sorted(others, key=lambda n, k=k: -p[n, k].item())[: len(own)]
        kept = own + hardest
        expected += dice(p[kept, k], (labels[kept] == k).double(), alpha=0, smooth=1.0, squared=True)
    assert softmax_dice_loss(SCORES, labels, ohem_ratio=1.0).item() == pytest.approx(expected)


def test_tversky_by_hand_and_its_kin() -> None:
    tp, fp, fn = 0.8, 0.2, 0.2
    found = tversky_loss(P, Y, fp_weight=0.3, fn_weight=0.7, smooth=0.5, activation=None)
    assert found.item() == pytest.approx(1 - (tp + 0.5) / (tp + 0.3 * fp + 0.7 * fn + 0.5))
    for level in ("set", "list", "label", "candidate"):
        half = tversky_loss(SCORES, RELEVANCE, MASK, smooth=0.5, level=level)  # type: ignore[arg-type]
        plain = dice_loss(SCORES, RELEVANCE, MASK, squared=False, smooth=1.0, level=level)  # type: ignore[arg-type]
        assert half.item() == pytest.approx(plain.item(), rel=1e-12)
    d = dice_loss(SCORES, RELEVANCE, squared=False, smooth=0.0).item()
    assert jaccard_loss(SCORES, RELEVANCE).item() == pytest.approx(2 * d / (1 + d))
    beta = 2.0
    f2 = confusion_loss(SCORES, RELEVANCE, beta=beta, amplification=None, smoothing=0.0)
    fn_weight = beta**2 / (1 + beta**2)
    same = tversky_loss(SCORES, RELEVANCE, fp_weight=1 - fn_weight, fn_weight=fn_weight, smooth=0.0)
    assert same.item() == pytest.approx(f2.item())


def test_jaccard_of_hard_predictions() -> None:
    assert jaccard_loss(rows([1, 1, 0, 0]), rows([1, 0, 1, 0]), activation=None).item() == pytest.approx(1 - 1 / 3)


@pytest.mark.parametrize(
    ("function", "options", "name"),
    [
        (dice_loss, {"alpha": -1.0}, "alpha"),
        (dice_loss, {"smooth": -1.0}, "smooth"),
        (dice_loss, {"ohem_ratio": -1.0}, "ohem_ratio"),
        (dice_loss, {"level": "query"}, "level"),
        (dice_loss, {"activation": None}, "scores"),
        (tversky_loss, {"fp_weight": -1.0}, "fp_weight"),
        (tversky_loss, {"level": "all"}, "level"),
        (jaccard_loss, {"smooth": float("nan")}, "smooth"),
    ],
)
def test_bad_options(function: Any, options: dict[str, Any], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        function(SCORES, RELEVANCE, **options)


def test_bad_options_of_the_softmax_form() -> None:
    with pytest.raises(RivalsError, match="level"):
        softmax_dice_loss(SCORES, torch.zeros(4, dtype=torch.int64), level="label")  # type: ignore[arg-type]
