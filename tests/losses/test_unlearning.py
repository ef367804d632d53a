"""Unlearning losses (papers 57, 105, 110): values by hand, relations, and the laws of `unlearning_loss`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import forget_weights, preference_loss, token_kl, unlearning_loss

KINDS = ("npo", "npo_mean", "npo_no_reference", "simnpo", "gradient_ascent", "refusal", "dpo", "kto")
kinds = pytest.mark.parametrize("kind", KINDS)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def problem(dtype: torch.dtype = torch.float64, scale: float = 6.0) -> dict[str, Any]:
    """Five sequences to forget, one absent, with everything any kind needs."""
    generator = torch.Generator().manual_seed(2)

    def logps() -> Tensor:
        return (-scale * torch.rand(5, generator=generator, dtype=torch.float64) - 0.01).to(dtype)

    def lengths() -> Tensor:
        return torch.randint(1, 8, (5,), generator=generator)

    names = ("logps", "ref_logps", "refusal_logps", "refusal_ref_logps", "retain_logps")
    tensors: dict[str, Any] = {name: logps() for name in names}
    tensors |= {name: lengths() for name in ("lengths", "refusal_lengths", "retain_lengths")}
    return tensors | {"mask": torch.tensor([True, True, False, True, True])}


# ---------------------------------------------------------------------------------- values


def test_npo_by_hand() -> None:
    """Paper 57, checks 1 and 2, values and weights."""
    for beta, ratio, loss, weight in (
        (1.0, 0.0, 1.3862943611, 1.0),
        (1.0, -1.0, 0.6265233750, 0.5378828427),
        (1.0, 2.0, 4.2538560220, 1.7615941560),
        (0.1, -1.0, 12.8879332015, 0.9500416251),
    ):
        logps = column(-9 + ratio).requires_grad_()
        found = unlearning_loss(logps, column(-9), beta=beta)
        assert found.item() == pytest.approx(loss)
        assert torch.autograd.grad(found, logps)[0].item() == pytest.approx(weight)
        assert forget_weights(logps, column(-9), beta=beta).item() == pytest.approx(weight)


def test_simnpo_by_hand() -> None:
    """Paper 110, checks 1 to 6."""
    for length in (1, 4, 40):
        loss = unlearning_loss(column(-1.2 * length), lengths=torch.tensor([length]), forget="simnpo", beta=2.5)
        assert loss.item() == pytest.approx(0.0388698813, abs=1e-9)
        weight = forget_weights(column(-1.2 * length), lengths=torch.tensor([length]), forget="simnpo", beta=2.5)
        assert weight.item() == pytest.approx(2 / length / (1 + math.exp(3)))
    lengths = torch.tensor([3])
    moved = unlearning_loss(column(-3), lengths=lengths, forget="simnpo", delta=0.4)
    assert moved.item() == pytest.approx(unlearning_loss(column(-1.8), lengths=lengths, forget="simnpo").item())
    small = forget_weights(column(-3, -9), lengths=torch.tensor([2, 5]), forget="simnpo", beta=1e-6)
    assert small.tolist() == pytest.approx([1 / 2, 1 / 5], rel=1e-5)
    margin = preference_loss(
        column(-3, -4).unsqueeze(-1),
        torch.zeros(2, 1),
        lengths=torch.tensor([[2], [3]]),
        score="mean_log_prob",
        structure="negatives_only",
        beta=2.5,
        margin=2.5 * 0.3,
    )
    found = unlearning_loss(column(-3, -4), lengths=torch.tensor([2, 3]), forget="simnpo", beta=2.5, delta=0.3)
    assert found.item() == pytest.approx(margin.item())


def test_small_beta_is_gradient_ascent() -> None:
    """Paper 57, check 3."""
    logps, reference = column(-4, -9, -2).requires_grad_(), column(-5, -3, -2)
    (slope,) = torch.autograd.grad(unlearning_loss(logps, reference, beta=1e-5), logps)
    assert slope.tolist() == pytest.approx([1 / 3] * 3, abs=1e-4)
    assert forget_weights(logps, logps).tolist() == [1, 1, 1]  # whatever the lengths: the reference's bias


def test_every_kind_by_formula() -> None:
    tensors, beta, delta, point = problem(), 0.7, 0.3, 0.4
    there = tensors["mask"]
    lp, rp, n = (tensors[name][there] for name in ("logps", "ref_logps", "lengths"))
    idk, idk_ref, idk_n = (tensors[f"refusal_{name}"][there] for name in ("logps", "ref_logps", "lengths"))

    def twice(z: Tensor) -> Tensor:
        return (2 / beta * torch.nn.functional.softplus(beta * z)).mean()

    expected = {
        "npo": twice(lp - rp + delta),
        "npo_mean": twice((lp - rp) / n + delta),
        "npo_no_reference": twice(lp + delta),
        "simnpo": twice(lp / n + delta),
        "gradient_ascent": lp.sum() / n.sum(),
        "refusal": -idk.sum() / idk_n.sum(),
        "dpo": twice((lp - rp) - (idk - idk_ref)),
        "kto": twice(lp - rp - point + delta),
    }
    retain = -tensors["retain_logps"].sum() / tensors["retain_lengths"].sum()
    for kind, forget in expected.items():
        found = unlearning_loss(
            **tensors,
            forget=kind,  # type: ignore[arg-type]
            beta=beta,
            delta=delta,
            reference_point=point,
            retain_kl=column(0.25)[0],
            forget_weight=2.0,
            retain_weight=3.0,
            kl_weight=4.0,
        )
        assert found.item() == pytest.approx((2 * forget + 3 * retain + 4 * 0.25).item()), kind


def test_one_sequence_for_the_batch() -> None:
    """Paper 105: the mean over the batch's tokens takes the place of a sequence's sum."""
    tensors = problem()
    there = tensors["mask"]
    tokens = tensors["lengths"][there].sum()
    mean, reference = (tensors[name][there].sum() / tokens for name in ("logps", "ref_logps"))
    found = unlearning_loss(
        tensors["logps"], tensors["ref_logps"], tensors["lengths"], there, pooling="batch", beta=0.1
    )
    assert found.item() == pytest.approx((20 * torch.nn.functional.softplus(0.1 * (mean - reference))).item())


def test_the_divergence_of_two_models() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, reference = torch.randn(2, 2, 3, 5, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True, False, True], [False, True, True]])
    p, r = logits.softmax(-1), reference.softmax(-1)
    each = (r * (r / p).log()).sum(-1)
    assert token_kl(logits, reference).item() == pytest.approx(each.mean().item())
    assert token_kl(logits, reference, mask).item() == pytest.approx(each[mask].mean().item())
    assert token_kl(logits, logits).item() == pytest.approx(0)
    garbage = logits.masked_fill(~mask.unsqueeze(-1), math.nan).requires_grad_()
    loss = token_kl(garbage, reference, mask)
    assert loss.item() == pytest.approx(each[mask].mean().item())
    assert not torch.autograd.grad(loss, garbage)[0][~mask].any()
    assert token_kl(logits, reference, torch.zeros_like(mask)) == 0
    assert token_kl(logits.half() * 1e4, reference.half() * -1e4).isfinite()


# ---------------------------------------------------------------------------------- laws


@kinds
def test_absent_sequences_and_order_never_count(kind: Any) -> None:
    tensors = problem()
    loss = unlearning_loss(**tensors, forget=kind)
    there = tensors["mask"]
    for garbage in (math.nan, math.inf, 3.0):
        leaf = tensors["logps"].masked_fill(~there, garbage).requires_grad_()
        changed = {"logps": leaf, "lengths": tensors["lengths"].masked_fill(~there, 0)}
        changed["ref_logps"] = tensors["ref_logps"].masked_fill(~there, garbage)
        found = unlearning_loss(**(tensors | changed), forget=kind)
        assert found.item() == pytest.approx(loss.item(), rel=1e-12)
        if kind != "refusal":
            assert not torch.autograd.grad(found, leaf)[0][~there].any()
    order = torch.tensor([3, 1, 4, 0, 2])
    moved = unlearning_loss(**{name: value[order] for name, value in tensors.items()}, forget=kind)
    assert moved.item() == pytest.approx(loss.item(), rel=1e-12)


@kinds
def test_extremes_and_gradients(kind: Any) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for scale in (1.0, 800.0, 1e4):
            tensors = problem(dtype, scale)
            leaves = [tensors[name].requires_grad_() for name in ("logps", "refusal_logps", "retain_logps")]
            loss = unlearning_loss(**tensors, forget=kind)
            assert loss.isfinite()
            found = torch.autograd.grad(loss, leaves, allow_unused=True)
            assert all(gradient is None or gradient.isfinite().all() for gradient in found)
    tensors = problem()
    if kind == "refusal":
        return  # no gradient at the forgotten texts
    leaf = tensors.pop("logps").requires_grad_()
    assert torch.autograd.gradcheck(lambda logps: unlearning_loss(logps, **tensors, forget=kind), leaf)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logps": torch.zeros(0), "mask": None}, "no sequence at all"),
        ({"mask": torch.zeros(5, dtype=torch.bool)}, "no sequence at all"),
        ({"mask": torch.ones(5)}, "mask"),
        ({"logps": torch.ones(5)}, "none above 0"),
        ({"logps": -torch.ones(5, 2)}, "logps"),
        ({"logps": torch.full((5,), math.nan)}, "logps"),
        ({"ref_logps": None}, "ref_logps"),
        ({"ref_logps": torch.zeros(4)}, "ref_logps"),
        ({"lengths": torch.zeros(5)}, "lengths"),
        ({"lengths": None, "forget": "simnpo"}, "lengths"),
        ({"lengths": None, "forget": "gradient_ascent"}, "lengths"),
        ({"refusal_logps": None, "forget": "refusal"}, "refusal_logps"),
        ({"refusal_lengths": None, "forget": "refusal"}, "refusal_lengths"),
        ({"refusal_ref_logps": None, "forget": "dpo"}, "refusal_ref_logps"),
        ({"retain_lengths": None}, "retain_lengths"),
        ({"retain_kl": torch.zeros(2)}, "retain_kl"),
        ({"beta": 0.0}, "beta"),
        ({"delta": math.nan}, "delta"),
        ({"forget_weight": -1.0}, "forget_weight"),
        ({"forget": "amnesia"}, "forget"),
        ({"pooling": "none"}, "pooling"),
    ],
)
def test_bad_input_is_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        unlearning_loss(**(problem() | changed))
