"""The spherical family on logits at hand: values, invariances, limits; and the laws of `spherical_loss`."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import one_hot

from rivals.errors import RivalsError
from rivals.losses import logsumexp_penalty, spherical_loss, squared_error_loss, taylor_softmax_loss, z_loss

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(5, 7, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.tensor([0, 3, 6, 2, 2])
RELEVANCE = one_hot(LABELS, 7).double()


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def gradient(loss: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, at)[0]


def test_by_hand() -> None:
    assert z_loss(rows([1, 0, -1]), rows([1, 0, 0])).item() == pytest.approx(0.2576089, abs=1e-7)
    z = math.sqrt(1.5)
    assert z_loss(rows([-1, 0, 1]), rows([1, 0, 0])).item() == pytest.approx(math.log1p(math.exp(z)))
    sharp = z_loss(rows([1, 0, -1]), rows([1, 0, 0]), sharpness=2.0, location=0.5).item()
    assert sharp == pytest.approx(math.log1p(math.exp(2 * (0.5 - z))) / 2)


def test_shift_and_scale_change_nothing() -> None:
    torch.testing.assert_close(z_loss(3.7 * LOGITS + 11, RELEVANCE), z_loss(LOGITS, RELEVANCE))
    torch.testing.assert_close(
        z_loss(-LOGITS, RELEVANCE, location=0.4) - z_loss(LOGITS, RELEVANCE, location=-0.4),
        ((LOGITS - LOGITS.mean(1, keepdim=True)) / LOGITS.std(1, correction=0, keepdim=True) + 0.4)[
            RELEVANCE > 0
        ].mean(),
    )  # softplus(x) - softplus(-x) = x


def test_the_gradient_is_free_of_shift_and_scale() -> None:
    logits = LOGITS.clone().requires_grad_()
    found = gradient(z_loss(logits, RELEVANCE, sharpness=1.3, location=0.7), logits)
    assert found.sum(1).abs().max() < 1e-15
    assert (found * (LOGITS - LOGITS.mean(1, keepdim=True))).sum(1).abs().max() < 1e-11  # eps of the denominator


def test_two_candidates_have_no_gradient() -> None:
    logits = rows([0.3, -2.0]).requires_grad_()
    loss = z_loss(logits, rows([1, 0]))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1)))
    assert gradient(loss, logits).abs().max() < 1e-11  # eps of the denominator


def test_a_high_sharpness_is_a_hinge() -> None:
    z = ((LOGITS - LOGITS.mean(1, keepdim=True)) / LOGITS.std(1, correction=0, keepdim=True))[RELEVANCE > 0]
    found = z_loss(LOGITS, RELEVANCE, sharpness=1e4, reduction="none")
    torch.testing.assert_close(found, (-z).relu(), atol=1e-4, rtol=0)


def test_candidates_at_the_mean_lower_it() -> None:
    wide = torch.cat([LOGITS, LOGITS.mean(1, keepdim=True)], 1)
    assert (
        z_loss(wide, one_hot(LABELS, 8).double(), reduction="none")[LOGITS[range(5), LABELS] > LOGITS.mean(1)]
        < z_loss(LOGITS, RELEVANCE, reduction="none")[LOGITS[range(5), LABELS] > LOGITS.mean(1)]
    ).all()


def test_several_positives_share_a_list_and_a_weight_of_two_is_twice_there() -> None:
    both = rows([1, 0, 1, 0])
    scores = rows([0.5, -1.0, 2.0, 0.1])
    alone = [z_loss(scores, one_hot(torch.tensor([i]), 4).double()) for i in (0, 2)]
    torch.testing.assert_close(z_loss(scores, both), (alone[0] + alone[1]) / 2)
    twice = z_loss(rows([0.5, -1.0, 2.0, 0.1, 0.1]), rows([1, 0, 0, 0, 0]))
    torch.testing.assert_close(z_loss(scores, rows([1, 0, 0, 0]), weight=rows([1, 1, 1, 2])), twice)
    shares = z_loss(scores, both, weight=rows([3, 1, 1, 1]))
    torch.testing.assert_close(shares, (3 * alone[0] + alone[1]) / 4)


def test_equal_scores_have_no_direction() -> None:
    scores = torch.full((1, 4), 1e4, requires_grad=True)
    loss = z_loss(scores, torch.tensor([[1.0, 0.0, 0.0, 0.0]]), weight=torch.tensor([[0.3, 0.7, 1.1, 1.0]]))
    assert loss.item() == pytest.approx(math.log(2))
    assert (gradient(loss, scores) == 0).all()


def test_taylor_softmax() -> None:
    expanded = 1 + LOGITS + LOGITS**2 / 2
    wanted = -(expanded / expanded.sum(1, keepdim=True)).log()[RELEVANCE > 0]
    torch.testing.assert_close(taylor_softmax_loss(LOGITS, RELEVANCE, reduction="none"), wanted)
    small = LOGITS * 1e-3
    cross_entropy = torch.nn.functional.cross_entropy(small, LABELS)
    assert taylor_softmax_loss(small, RELEVANCE).item() == pytest.approx(cross_entropy.item(), abs=1e-8)


@pytest.mark.parametrize(
    ("kind", "dense"),
    [
        ("z", lambda logits: z_loss(logits, RELEVANCE, reduction="none")),
        ("squared", lambda logits: squared_error_loss(logits, RELEVANCE, reduction="none")),
        ("taylor", lambda logits: taylor_softmax_loss(logits, RELEVANCE, reduction="none")),
    ],
)
def test_three_numbers_are_enough(kind: str, dense: object) -> None:
    """`spherical_loss` of (target, sum, sum of squares) is the member computed from the logits, gradient too."""
    logits = LOGITS.clone().requires_grad_()
    found = spherical_loss(
        logits.gather(1, LABELS[:, None]).squeeze(1),
        logits.sum(1),
        logits.square().sum(1),
        num_outputs=7,
        kind=kind,  # type: ignore[arg-type]
        reduction="none",
    )
    wanted = dense(logits)  # type: ignore[operator]
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient(found.sum(), logits), gradient(wanted.sum(), logits))


def test_laws_of_the_three_numbers() -> None:
    target, total, squared = LOGITS[:, 0], LOGITS.sum(1), LOGITS.square().sum(1)
    options = {"num_outputs": 7, "kind": "taylor"}
    none = spherical_loss(target, total, squared, reduction="none", **options)  # type: ignore[arg-type]
    assert spherical_loss(target, total, squared, **options).item() == pytest.approx(none.mean().item())  # type: ignore[arg-type]
    assert spherical_loss(target, total, squared, reduction="sum", **options).item() == pytest.approx(none.sum().item())  # type: ignore[arg-type]
    columns = torch.stack([target, LOGITS[:, 1]], 1)
    second = spherical_loss(LOGITS[:, 1], total, squared, reduction="none", **options)  # type: ignore[arg-type]
    torch.testing.assert_close(
        spherical_loss(columns, total, squared, reduction="none", **options),  # type: ignore[arg-type]
        (none + second) / 2,
    )
    assert spherical_loss(target[:0], total[:0], squared[:0], **options).item() == 0  # type: ignore[arg-type]
    half = LOGITS.half() * 1000
    found = spherical_loss(half[:, 0], half.float().sum(1), half.float().square().sum(1), num_outputs=7)
    assert found.dtype == torch.float32
    assert torch.isfinite(found)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"num_outputs": 1}, "num_outputs"),
        ({"kind": "cubic"}, "kind"),
        ({"sharpness": 0.0}, "sharpness"),
        ({"location": math.nan}, "location"),
        ({"total": torch.ones(2)}, "total"),
        ({"target": torch.ones(5, 1, 1)}, "target"),
        ({"reduction": "median"}, "reduction"),
    ],
)
def test_bad_input(options: dict[str, object], name: str) -> None:
    given = {"target": torch.ones(5), "total": torch.ones(5), "squared_total": torch.ones(5), "num_outputs": 7}
    with pytest.raises(RivalsError, match=name):
        spherical_loss(**(given | options))  # type: ignore[arg-type]


def test_the_penalty_on_the_partition() -> None:
    assert logsumexp_penalty(torch.zeros(2, 3)).item() == pytest.approx(math.log(3) ** 2)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert logsumexp_penalty(torch.zeros(2, 3), mask).item() == pytest.approx(math.log(2) ** 2)
    assert logsumexp_penalty(torch.zeros(2, 3), mask, reduction="none")[1] == 0
