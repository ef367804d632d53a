"""Barlow Twins and SimSiam: by hand, limits, masks, gradients, and the laws of a loss over two views."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import barlow_twins_loss, simsiam_loss


def views(count: int = 2, size: int = 9, width: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, width, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_barlow_twins_by_correlations() -> None:
    left, right = views()
    correlations = torch.corrcoef(torch.cat([left, right], dim=1).T)[:4, 4:]
    own = correlations.diagonal()
    wanted = ((1 - own) ** 2).sum() + 0.01 * ((correlations**2).sum() - (own**2).sum())
    assert barlow_twins_loss(left, right, redundancy_weight=0.01, eps=1e-12).item() == pytest.approx(wanted.item())


def test_barlow_twins_limits() -> None:
    signs = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert barlow_twins_loss(signs, 3 * signs + 7, eps=1e-12).item() == pytest.approx(0, abs=1e-20)
    assert barlow_twins_loss(signs, -signs, eps=1e-12).item() == pytest.approx(8)
    swapped = barlow_twins_loss(signs, signs.flip(1), eps=1e-12, redundancy_weight=0.5)
    assert swapped.item() == pytest.approx(2 + 0.5 * 2)
    constant = torch.ones(4, 2, dtype=torch.float64, requires_grad=True)
    loss = barlow_twins_loss(constant, signs)
    assert loss.item() == 2
    assert torch.isfinite(torch.autograd.grad(loss, constant)[0]).all()


def test_simsiam_by_hand() -> None:
    p1, p2, z1, z2 = views(4)
    wanted = -(F.cosine_similarity(p1, z2) + F.cosine_similarity(p2, z1)) / 2
    torch.testing.assert_close(simsiam_loss(p1, p2, z1, z2, reduction="none"), wanted)
    assert simsiam_loss(p1, p1, p1, p1).item() == pytest.approx(-1)
    leaves = [view.requires_grad_() for view in (p1, p2, z1, z2)]
    gradients = torch.autograd.grad(simsiam_loss(*leaves), leaves, allow_unused=True)
    assert gradients[2] is None
    assert gradients[3] is None
    assert (gradients[0] * p1).sum(1).abs().max() < 1e-12  # a cosine does not change along its vector


@pytest.mark.parametrize("function", [barlow_twins_loss, simsiam_loss])
def test_the_laws_of_views(function: object) -> None:
    count = 2 if function is barlow_twins_loss else 4

    def loss(*given: Tensor, mask: Tensor | None = None) -> Tensor:
        return function(*given, mask)  # type: ignore[operator, no-any-return]

    given = views(count)
    plain = loss(*given)
    order = torch.tensor([4, 2, 0, 1, 8, 3, 5, 6, 7])
    torch.testing.assert_close(loss(*(view[order] for view in given)), plain)
    mask = torch.tensor([False] + [True] * 9)
    for garbage in (0.0, 1e4, float("nan")):
        padded = [torch.cat([torch.full((1, 4), garbage, dtype=view.dtype), view]).requires_grad_() for view in given]
        value = loss(*padded, mask=mask)
        torch.testing.assert_close(value, plain)
        gradient = torch.autograd.grad(value, padded[0])[0]
        assert (gradient[0] == 0).all()
        assert torch.isfinite(gradient).all()
    held = given[2:]
    assert torch.autograd.gradcheck(
        lambda *rows: loss(*rows, *held), tuple(view.requires_grad_() for view in given[:2])
    )
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        large = [(view.detach().sign() * 1e4).to(dtype).requires_grad_() for view in given]
        value = loss(*large)
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert torch.isfinite(torch.autograd.grad(value, large[0])[0]).all()


def test_simsiam_reductions() -> None:
    given = views(4)
    mask = torch.arange(9) != 3
    each = simsiam_loss(*given, mask, reduction="none")
    assert each[3] == 0
    assert simsiam_loss(*given, mask, reduction="sum").item() == pytest.approx(each.sum().item())
    assert simsiam_loss(*given, mask).item() == pytest.approx(each.sum().item() / 8)
    assert simsiam_loss(*given, torch.zeros(9, dtype=torch.bool)) == 0


def test_bad_views() -> None:
    left, right = views()
    for size in (0, 1):
        with pytest.raises(RivalsError, match="at least two examples"):
            barlow_twins_loss(left[:size], right[:size])
    with pytest.raises(RivalsError, match="at least two examples"):
        barlow_twins_loss(left, right, torch.arange(9) == 4)
    with pytest.raises(RivalsError, match="right must have shape"):
        barlow_twins_loss(left, right[:, :3])
    with pytest.raises(RivalsError, match="redundancy_weight"):
        barlow_twins_loss(left, right, redundancy_weight=-1.0)
    with pytest.raises(RivalsError, match="eps"):
        barlow_twins_loss(left, right, eps=0.0)
    with pytest.raises(RivalsError, match="left must be a floating"):
        barlow_twins_loss(left.long(), right)
    with pytest.raises(RivalsError, match="mask"):
        simsiam_loss(left, right, left, right, torch.ones(9))
    with pytest.raises(RivalsError, match="mask"):
        simsiam_loss(left, right, left, right, torch.ones(8, dtype=torch.bool))
    with pytest.raises(RivalsError, match="reduction"):
        simsiam_loss(left, right, left, right, reduction="median")  # type: ignore[arg-type]
