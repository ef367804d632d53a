"""Yes/no rerankers: gradient identities of the unified loss (paper 54), hand values, and the laws for this form."""

from __future__ import annotations

import math

import pytest
import torch

from rivals.errors import RivalsError
from rivals.losses import info_nce_loss, reranking_gradient_weights, unified_reranking_loss, yes_no_loss

torch.manual_seed(0)
YES, NO = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
RELEVANCE = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0]], dtype=torch.float64)
MASK = torch.tensor([[True] * 5, [True, True, True, False, True], [True, True, False, True, True]])


def grads(loss, *, relevance=RELEVANCE, mask=MASK) -> list[torch.Tensor]:
    leaves = [YES.clone().requires_grad_(), NO.clone().requires_grad_()]
    found = torch.autograd.grad(loss(*leaves, relevance, mask), leaves, allow_unused=True)
    return [torch.zeros_like(YES) if g is None else g for g in found]


def test_sft_on_sft_is_the_cross_entropy() -> None:
    ours = grads(lambda *a: unified_reranking_loss(*a))
    theirs = grads(lambda *a: yes_no_loss(*a, reduction="list_mean"))
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_cl_on_cl_is_the_contrastive_loss(temperature: float) -> None:
    ours = grads(lambda *a: unified_reranking_loss(*a, weight="cl", direction="cl", temperature=temperature))
    theirs = grads(lambda y, n, r, m: info_nce_loss(y, r, m, temperature=temperature))
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-12, atol=1e-12)
    assert (ours[1] == 0).all()


def test_the_direction_of_sft_moves_both_logits() -> None:
    yes, no = grads(lambda *a: unified_reranking_loss(*a, weight="cl", direction="sft"))
    torch.testing.assert_close(no, -yes)
    same = reranking_gradient_weights(YES, NO, RELEVANCE, MASK, weight="cl")
    other = reranking_gradient_weights(YES, NO, RELEVANCE, MASK, weight="cl", weight_score="yes")
    assert not torch.allclose(same, other)


def test_by_hand() -> None:
    zero, relevance = torch.zeros(1, 4), torch.tensor([[1.0, 0, 0, 0]])
    assert reranking_gradient_weights(zero, zero, relevance).tolist() == [[0.125] * 4]
    assert reranking_gradient_weights(zero, zero, relevance, weight="cl").tolist() == [[0.75, 0.25, 0.25, 0.25]]
    assert yes_no_loss(zero, zero, relevance).item() == pytest.approx(math.log(2))
    sure = torch.tensor([[20.0, -20, -20, -20]])
    for weight in ("sft", "cl"):
        assert (reranking_gradient_weights(sure, zero, relevance, weight=weight) < 1e-8).all()


def test_shifts() -> None:
    shift = torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(yes_no_loss(YES + shift, NO + shift, RELEVANCE), yes_no_loss(YES, NO, RELEVANCE))
    lifted = grads(lambda y, n, r, m: unified_reranking_loss(y + 3.0, n, r, m, weight="cl", direction="cl"))
    plain = grads(lambda *a: unified_reranking_loss(*a, weight="cl", direction="cl"))
    torch.testing.assert_close(lifted[0], plain[0])


@pytest.mark.parametrize("loss", [yes_no_loss, unified_reranking_loss], ids=["yes_no", "unified"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "list_mean"])
def test_laws(loss, reduction: str) -> None:
    value = loss(YES, NO, RELEVANCE, MASK, reduction=reduction)
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(
        loss(YES[:, order], NO[:, order], RELEVANCE[:, order], MASK[:, order], reduction=reduction), value
    )
    for garbage in (math.nan, math.inf, 1e4):
        wide = [torch.cat([t, torch.full((3, 1), garbage, dtype=t.dtype)], 1) for t in (YES, NO, RELEVANCE)]
        mask = torch.cat([MASK, torch.zeros(3, 1, dtype=torch.bool)], 1)
        torch.testing.assert_close(loss(*wide, mask, reduction=reduction), value)
    empty = [torch.cat([t, torch.ones(1, 5, dtype=t.dtype)]) for t in (YES, NO, RELEVANCE)]
    mask = torch.cat([MASK, torch.zeros(1, 5, dtype=torch.bool)])
    torch.testing.assert_close(loss(*empty, mask, reduction=reduction), value)
    torch.testing.assert_close(
        loss(YES, NO, RELEVANCE, MASK, reduction="none").sum(), loss(YES, NO, RELEVANCE, MASK, reduction="sum")
    )
    assert loss(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 3), reduction=reduction) == 0


@pytest.mark.parametrize("loss", [yes_no_loss, unified_reranking_loss], ids=["yes_no", "unified"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_extremes_stay_finite(loss, dtype: torch.dtype) -> None:
    for size in (1.0, 1e4):
        yes = (YES.sign() * size).to(dtype).requires_grad_()
        value = loss(yes, (NO.sign() * size).to(dtype), RELEVANCE, MASK)
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert torch.isfinite(torch.autograd.grad(value, yes)[0]).all()


def test_yes_no_gradcheck() -> None:
    leaves = [YES.clone().requires_grad_(), NO.clone().requires_grad_()]
    assert torch.autograd.gradcheck(lambda y, n: yes_no_loss(y, n, RELEVANCE, MASK), leaves)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"no": torch.zeros(2, 5)}, "no"),
        ({"relevance": -RELEVANCE}, "relevance"),
        ({"mask": torch.ones(3, 5)}, "mask"),
        ({"yes": torch.ones(3, 5, dtype=torch.int64)}, "floating"),
        ({"reduction": "median"}, "reduction"),
    ],
)
@pytest.mark.parametrize("loss", [yes_no_loss, unified_reranking_loss], ids=["yes_no", "unified"])
def test_bad_input(loss, changed: dict, name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        loss(**({"yes": YES, "no": NO, "relevance": RELEVANCE} | changed))


@pytest.mark.parametrize("options", [{"weight": "x"}, {"direction": "x"}, {"weight": "cl", "weight_score": "x"}])
def test_unknown_options(options: dict) -> None:
    with pytest.raises(RivalsError, match=list(options)[-1]):
        unified_reranking_loss(YES, NO, RELEVANCE, **options)
