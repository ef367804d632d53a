"""The ordinal loss: by loops, hand-computed values, what is absent, bad input."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rivals.errors import RivalsError
from rivals.losses import binary_cross_entropy_loss, ordinal_loss, ordinal_scores


def problem(steps: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, steps, generator=generator, dtype=torch.float64).requires_grad_()
    relevance = torch.randint(0, steps + 1, (2, 5), generator=generator).double()
    mask = torch.tensor([[True, True, False, True, True], [False, True, True, False, False]])
    return logits, relevance, mask


def test_by_loops() -> None:
    logits, relevance, mask = problem()
    weight = torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.5]] * 2, dtype=torch.float64)
    sums, plain = [], []
    for z, y, there, w in zip(*(part.tolist() for part in (logits, relevance, mask, weight)), strict=True):
        costs = [
            sum(math.log1p(math.exp(-v if y[i] >= k else v)) for k, v in enumerate(z[i], start=1)) for i in range(5)
        ]
        plain.append(sum(c for c, t in zip(costs, there, strict=True) if t))
        sums.append(sum(c * v for c, t, v in zip(costs, there, w, strict=True) if t))
    assert ordinal_loss(logits, relevance, mask).item() == pytest.approx(sum(plain) / 6)
    assert ordinal_loss(logits, relevance, mask, weight=weight, reduction="none").tolist() == pytest.approx(sums)
    assert ordinal_loss(logits, relevance, mask, reduction="sum").item() == pytest.approx(sum(plain))
    listed = ordinal_loss(logits, relevance, mask, reduction="list_mean").item()
    assert listed == pytest.approx((plain[0] / 4 + plain[1] / 2) / 2)


def test_indifferent_and_perfect_logits() -> None:
    """Paper 21, check 6."""
    relevance = torch.tensor([[4.0, 0.0, 2.0]])
    assert ordinal_loss(torch.zeros(1, 3, 4), relevance).item() == pytest.approx(4 * math.log(2))
    perfect = torch.where(relevance[..., None] >= torch.arange(1, 5), 1e4, -1e4)
    assert ordinal_loss(perfect, relevance).item() == 0
    assert ordinal_scores(perfect).tolist() == relevance.tolist()


def test_one_threshold_is_binary_cross_entropy() -> None:
    logits, relevance, mask = problem(1)
    assert ordinal_loss(logits, relevance, mask).item() == pytest.approx(
        binary_cross_entropy_loss(logits[..., 0], relevance, mask).item()
    )


def test_laws() -> None:
    """Absent candidates may hold anything; order, empty lists and double precision; finite in half precision."""
    logits, relevance, mask = problem()
    loss = ordinal_loss(logits, relevance, mask)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[~mask] == 0).all()
    spoilt = logits.detach().masked_fill(~mask[..., None], math.nan)
    assert ordinal_loss(spoilt, relevance.masked_fill(~mask, math.nan), mask).item() == loss.item()
    order = torch.tensor([3, 1, 0, 4, 2])
    assert ordinal_loss(logits[:, order], relevance[:, order], mask[:, order]).item() == pytest.approx(loss.item())
    longer = (torch.cat([part, torch.zeros_like(part[:1])]) for part in (logits, relevance, mask))
    assert ordinal_loss(*longer).item() == pytest.approx(loss.item())
    assert torch.autograd.gradcheck(lambda z: ordinal_loss(z, relevance, mask), logits)
    for dtype in (torch.float16, torch.bfloat16):
        extreme = (logits.detach().sign() * 1e4).to(dtype).requires_grad_()
        found = ordinal_loss(extreme, relevance, mask)
        assert found.dtype == torch.float32
        assert found.isfinite()
        assert torch.autograd.grad(found, extreme)[0].isfinite().all()
    for shape in ((0, 3, 2), (2, 0, 2)):
        nothing = torch.randn(shape, requires_grad=True)
        found = ordinal_loss(nothing, torch.zeros(shape[:2]))
        assert found.item() == 0
        assert torch.autograd.grad(found, nothing)[0].shape == shape


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"logits": torch.zeros(2, 3)}, "logits|relevance"),
        ({"logits": torch.zeros(3)}, "logits"),
        ({"logits": torch.zeros(2, 3, 0)}, "logits"),
        ({"logits": torch.zeros(2, 3, 2, dtype=torch.int64)}, "logits"),
        ({"relevance": torch.full((2, 3), 3.0)}, "relevance must be at most 2"),
        ({"relevance": -torch.ones(2, 3)}, "relevance"),
        ({"mask": torch.ones(2, 3)}, "mask"),
        ({"weight": -torch.ones(2, 3)}, "weight"),
        ({"reduction": "median"}, "reduction"),
    ],
)
def test_bad_input(change: dict[str, Any], match: str) -> None:
    sound: dict[str, Any] = {"logits": torch.zeros(2, 3, 2), "relevance": torch.ones(2, 3)}
    ordinal_loss(**sound)
    with pytest.raises(RivalsError, match=match):
        ordinal_loss(**(sound | change))
    with pytest.raises(RivalsError, match="logits"):
        ordinal_scores(torch.zeros(2, 3, dtype=torch.int64))
