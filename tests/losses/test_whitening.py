"""Whitening and the W-MSE loss: paper 15's checks, groups, and what happens to constant vectors."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import Whitening, whiten, whitened_mse_loss, whiteness


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def directly(views: Tensor, size: int, permutations: Tensor, eps: float, normalize: bool) -> float:
    """The loss by loops over iterations, groups and pairs of views, in numpy."""
    total, pairs = 0.0, 0
    for order in permutations.tolist():
        white = np.zeros(views.shape)
        for start in range(0, len(order), size):
            group = order[start : start + size]
            for view in range(len(views)):
                rows = views[view, group].numpy()
                covariance = np.cov(rows.T, ddof=1).reshape(rows.shape[1], rows.shape[1])
                lower = np.linalg.cholesky((1 - eps) * covariance + eps * np.eye(len(covariance)))
                white[view, group] = (rows - rows.mean(0)) @ np.linalg.inv(lower).T
        for a, b in itertools.combinations(range(len(views)), 2):
            left, right = white[a], white[b]
            if normalize:
                cosine = (left * right).sum(1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
                total += 2 - 2 * cosine.mean()
            else:
                total += ((left - right) ** 2).mean()
            pairs += 1
    return total / pairs


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("views", "size", "eps"), [(2, 12, 0.0), (3, 6, 0.1), (4, 4, 0.5)])
def test_equals_loops(views: int, size: int, eps: float, normalize: bool) -> None:
    data = normal(views, 12, 3)
    orders = torch.stack([torch.randperm(12, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)])
    loss = whitened_mse_loss(data, group_size=size, iterations=2, eps=eps, normalize=normalize, permutations=orders)
    assert loss.item() == pytest.approx(directly(data, size, orders, eps, normalize), rel=1e-10)


@pytest.mark.parametrize("method", ["cholesky", "zca"])
def test_whitened_vectors_are_white(method: Any) -> None:
    white = whiten(normal(3, 9, 4), method=method)
    assert white.mean(1).abs().max() < 1e-10
    covariance = white.mT @ white / 8
    torch.testing.assert_close(covariance, torch.eye(4, dtype=torch.float64).expand(3, 4, 4), atol=1e-10, rtol=0)
    assert whiteness(white).max() < 1e-10
    assert torch.autograd.gradcheck(lambda x: whiten(x, method=method), normal(6, 3).requires_grad_())


def test_zca_turns_least_and_stands_equal_eigenvalues() -> None:
    data = normal(9, 3)
    centred = data - data.mean(0)
    distance = {m: (whiten(data, method=m) - centred).norm() for m in ("cholesky", "zca")}  # type: ignore[arg-type]
    assert distance["zca"] < distance["cholesky"]
    turn = torch.linalg.qr(normal(3, 3, seed=5))[0]
    torch.testing.assert_close(whiten(data @ turn.T, method="zca"), whiten(data, method="zca") @ turn.T)
    few = normal(3, 5).requires_grad_()  # rank 2 of 5: three eigenvalues are eps
    (gradient,) = torch.autograd.grad(whiten(few, eps=0.2, method="zca").pow(3).sum(), few)
    assert torch.isfinite(gradient).all()
    assert torch.autograd.gradcheck(lambda x: whiten(x, eps=0.2, method="zca"), few)


def test_lower_triangular_maps_and_shifts_change_nothing() -> None:
    data, lower = normal(8, 3), normal(3, 3, seed=1).tril(-1) + torch.diag(torch.tensor([0.5, 2.0, 3.0]).double())
    torch.testing.assert_close(whiten(data @ lower.T + 7.0), whiten(data))
    general = normal(3, 3, seed=2)
    turned = torch.linalg.lstsq(whiten(data), whiten(data @ general.T)).solution
    torch.testing.assert_close(turned @ turned.T, torch.eye(3, dtype=torch.float64))  # differs by a rotation alone


def test_limits() -> None:
    view = normal(8, 3)
    assert whitened_mse_loss(torch.stack([view, view])).item() == pytest.approx(0, abs=1e-12)
    assert whitened_mse_loss(torch.stack([view, -view])).item() == pytest.approx(4)
    assert whitened_mse_loss([view, view + 5.0]).item() == pytest.approx(0, abs=1e-12)  # views as a list
    apart = whitened_mse_loss(normal(2, 4000, 8)).item()
    assert apart == pytest.approx(2, abs=0.1)


def test_constant_vectors_raise_and_with_shrinkage_are_worth_two() -> None:
    constant = torch.full((2, 6, 3), 0.1)
    for method in ("cholesky", "zca"):
        with pytest.raises(RivalsError, match="need group_size > D or eps > 0"):
            whitened_mse_loss(constant, method=method)  # type: ignore[arg-type]
        leaf = constant.clone().requires_grad_()
        loss = whitened_mse_loss(leaf, eps=0.3, method=method)  # type: ignore[arg-type]
        assert loss.item() == 2
        assert (torch.autograd.grad(loss, leaf)[0] == 0).all()


def test_iterations_and_views_are_means() -> None:
    data, draw = normal(3, 8, 2), torch.Generator().manual_seed(3)
    orders = torch.stack([torch.randperm(8, generator=draw) for _ in range(3)])
    whole = whitened_mse_loss(data, group_size=4, iterations=3, permutations=orders)
    single = [whitened_mse_loss(data, group_size=4, permutations=order[None]) for order in orders]
    torch.testing.assert_close(whole, torch.stack(single).mean())
    one = orders[:1]
    pairs = [whitened_mse_loss(data[list(pair)], group_size=4, permutations=one) for pair in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(single[0], torch.stack(pairs).mean())
    drawn = [
        whitened_mse_loss(data, group_size=4, iterations=2, generator=torch.Generator().manual_seed(s)) for s in (1, 1)
    ]
    assert torch.equal(*drawn)


def test_gradient() -> None:
    data = normal(2, 6, 3).requires_grad_()
    assert torch.autograd.gradcheck(whitened_mse_loss, data)
    (gradient,) = torch.autograd.grad(whitened_mse_loss(data), data)
    assert gradient.sum(1).abs().max() < 1e-12  # moving a group moves nothing


def test_absent_samples_are_removed() -> None:
    data, mask = normal(2, 7, 2), torch.tensor([True, True, False, True, True, False, True])
    padded = data.clone()
    padded[:, ~mask] = torch.nan
    leaf = padded.requires_grad_()
    loss = whitened_mse_loss(leaf, mask)
    torch.testing.assert_close(loss, whitened_mse_loss(data[:, mask]))
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, ~mask] == 0).all()
    nothing = whitened_mse_loss(leaf, torch.zeros_like(mask))
    assert nothing.item() == 0
    assert (torch.autograd.grad(nothing, leaf)[0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_large_values_in_every_dtype(dtype: torch.dtype) -> None:
    data = (normal(2, 16, 3) * 3000).to(dtype).requires_grad_()
    loss = whitened_mse_loss(data)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(whitened_mse_loss(data.detach().double()).item(), abs=1e-4)
    assert torch.isfinite(torch.autograd.grad(loss, data)[0]).all()


def test_the_layer() -> None:
    layer = Whitening(3, momentum=0.25).double()
    first, second = normal(9, 3), normal(9, 3, seed=1) * 2 + 1
    torch.testing.assert_close(layer(first), whiten(first))
    layer(second)
    mean = 0.75 * 0.25 * first.mean(0) + 0.25 * second.mean(0)
    torch.testing.assert_close(layer.mean, mean)
    covariance = 0.75 * (0.75 * torch.eye(3) + 0.25 * first.T.cov()) + 0.25 * second.T.cov()
    torch.testing.assert_close(layer.covariance, covariance)
    layer.eval()
    before = layer.mean.clone()
    one = layer(first[:1])
    torch.testing.assert_close(one, layer(first)[:1])
    torch.testing.assert_close(one, (first[:1] - mean) @ torch.linalg.inv(torch.linalg.cholesky(covariance)).T)
    assert torch.equal(layer.mean, before)  # evaluation changes no statistics
    with pytest.raises(RivalsError, match="momentum"):
        Whitening(3, momentum=0.0)
    with pytest.raises(RivalsError, match="shape"):
        layer(normal(4, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": normal(1, 6, 2)}, "two views"),
        ({"views": []}, "two views"),
        ({"views": [normal(6, 2), normal(5, 2)]}, "shape"),
        ({"group_size": 4}, "divide"),
        ({"views": normal(2, 4, 5)}, "group_size > D or eps > 0"),
        ({"group_size": 3}, "generator"),
        ({"iterations": 0}, "iterations"),
        ({"eps": 1.0}, "eps"),
        ({"eps": -0.1}, "eps"),
        ({"views": torch.full((2, 6, 2), torch.nan)}, "finite"),
        ({"method": "pca"}, "method"),
        ({"permutations": torch.tensor([[0, 1, 2, 3, 4, 4]])}, "permutations"),
        ({"permutations": torch.arange(6)}, "permutations"),
        ({"mask": torch.ones(6)}, "boolean"),
        ({"mask": torch.ones(5, dtype=torch.bool)}, "mask"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        whitened_mse_loss(**({"views": normal(2, 6, 2)} | change))
