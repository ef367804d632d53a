"""Covariance similarity, SVD task weights, alignment."""

from __future__ import annotations

import math

import pytest
import torch

from rivals.errors import RivalsError
from rivals.losses import CovarianceAlignment, covariance_similarity, svd_task_weights, task_similarity_matrix

G = torch.Generator().manual_seed(0)
X1 = torch.randn(40, 6, generator=G, dtype=torch.float64) * torch.tensor([5.0, 2, 1, 1, 0.2, 0.1]) + 0.5
X2 = torch.randn(30, 6, generator=G, dtype=torch.float64)


def diagonal(*values: float) -> torch.Tensor:
    return torch.diag(torch.tensor(values, dtype=torch.float64))


def test_similarity_by_hand() -> None:
    first, second = diagonal(2, 1), diagonal(1, 2)
    assert covariance_similarity(first, second, energy=1.0).item() == pytest.approx(0.5656854, abs=1e-7)
    assert covariance_similarity(first, first, energy=1.0).item() == pytest.approx(0.8246211, abs=1e-7)
    line = torch.outer(X1[:, 0], X2[0])
    assert covariance_similarity(line, line).item() == pytest.approx(1)
    assert covariance_similarity(first[:1], first[1:]).item() == 0


def test_similarity_by_the_definition() -> None:
    roots = []
    for x in (X1, X2):
        values, vectors = torch.linalg.eigh(x.T @ x)
        values, vectors = values.flip(0), vectors.flip(1)
        rank = int((values.cumsum(0) < 0.95 * values.sum()).sum()) + 1
        roots.append(vectors[:, :rank] * values[:rank].sqrt())
    wanted = (roots[0].T @ roots[1]).norm() / (roots[0].norm() * roots[1].norm())
    assert roots[0].shape[1] < 6
    torch.testing.assert_close(covariance_similarity(X1, X2, energy=0.95), wanted)


def test_similarity_invariances() -> None:
    found = covariance_similarity(X1, X2)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)).double()).Q
    torch.testing.assert_close(covariance_similarity(X1 @ rotation, X2 @ rotation), found)
    torch.testing.assert_close(covariance_similarity(5 * X1, X2.flip(0)), found)
    torch.testing.assert_close(covariance_similarity(X2, X1), found)
    assert 0 < found < 1
    assert covariance_similarity(X1, X1, normalized=True).item() == pytest.approx(1)
    c1, c2 = X1.T @ X1, X2.T @ X2
    wanted = ((c1 * c2).sum() / (c1.norm() * c2.norm())).sqrt()
    torch.testing.assert_close(covariance_similarity(X1, X2, energy=1.0, normalized=True), wanted)


def test_centring_and_energy_of_the_data() -> None:
    moved = covariance_similarity(X1 + 100, X2 - 70, center=True)
    torch.testing.assert_close(moved, covariance_similarity(X1, X2, center=True))
    assert covariance_similarity(X1 + 100, X2 + 100) > 0.99
    few = covariance_similarity(X1, X1, energy=0.9)
    more = covariance_similarity(X1, X1, energy=0.9, energy_of="data")
    assert few != more


def test_similarity_matrix() -> None:
    found = task_similarity_matrix([X1, X2, X1[:20]])
    torch.testing.assert_close(found, found.T)
    torch.testing.assert_close(found[0, 1], covariance_similarity(X1, X2))


@pytest.mark.parametrize("wide", [X1 * math.nan, torch.zeros(4, 6), X1[:, :3], X1[0]])
def test_bad_inputs(wide: torch.Tensor) -> None:
    with pytest.raises(RivalsError):
        covariance_similarity(wide.double(), X2)
    with pytest.raises(RivalsError):
        task_similarity_matrix([X2, wide.double()])
    with pytest.raises(RivalsError, match="energy"):
        covariance_similarity(X1, X2, energy=0.0)


def test_svd_weights_by_hand() -> None:
    x, y = torch.eye(2).double(), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).double()
    assert svd_task_weights(x, y, rank=1, rescale=False).tolist() == pytest.approx([1, 1, 0], abs=1e-12)
    assert svd_task_weights(x, y, rank=2, rescale=False).tolist() == pytest.approx([1, 1, 1])
    assert svd_task_weights(x, y, rank=1).mean().item() == pytest.approx(1)
    assert svd_task_weights(x, y[:, :1] * 7, rank=1).tolist() == pytest.approx([1])


def test_svd_weights_by_the_definition() -> None:
    y = torch.randn(40, 4, generator=torch.Generator().manual_seed(2)).double()
    theta = X1.T @ y
    u = torch.linalg.svd(theta).U[:, :2]
    wanted = (theta.T @ u).norm(dim=1)
    torch.testing.assert_close(svd_task_weights(X1, y, rank=2, rescale=False), wanted)
    torch.testing.assert_close(svd_task_weights(X1, y, rank=4, rescale=False), theta.norm(dim=0))
    relative = svd_task_weights(X1, y, rank=2, normalize="relative", rescale=False)
    torch.testing.assert_close(relative, wanted / theta.norm(dim=0))
    centred = svd_task_weights(X1, y, rank=2, center=True, rescale=False)
    both = (X1 - X1.mean(0)).T @ (y - y.mean(0))
    torch.testing.assert_close(centred, (both.T @ torch.linalg.svd(both).U[:, :2]).norm(dim=1))


def test_svd_weights_with_missing_labels() -> None:
    y = torch.randn(40, 4, generator=torch.Generator().manual_seed(3)).double()
    mask = torch.rand(40, 4, generator=torch.Generator().manual_seed(4)) < 0.6
    theta = torch.stack([X1[mask[:, i]].T @ y[mask[:, i], i] / mask[:, i].sum() for i in range(4)], 1)
    wanted = (theta.T @ torch.linalg.svd(theta).U[:, :2]).norm(dim=1)
    found = svd_task_weights(X1, y.masked_fill(~mask, math.nan), rank=2, mask=mask, rescale=False)
    torch.testing.assert_close(found, wanted)
    with pytest.raises(RivalsError, match="task 1"):
        svd_task_weights(X1, y, rank=2, mask=mask & (torch.arange(4) != 1))


def test_shuffled_labels_weigh_less() -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2000, 20, generator=generator)
    y = x[:, :3] @ torch.randn(3, 8, generator=generator)
    y[:, 6:] = y[torch.randperm(2000, generator=generator)][:, 6:]
    weights = svd_task_weights(x, y, rank=3, normalize="relative")
    assert weights[6:].max() < 0.7 * weights[:6].min()


def test_bad_svd_weights() -> None:
    y = torch.ones(40, 2).double()
    for options in ({"rank": 0}, {"rank": 3}, {"normalize": "size", "rank": 1}):
        with pytest.raises(RivalsError, match=next(iter(options))):
            svd_task_weights(X1, y, **options)  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="targets"):
        svd_task_weights(X1, y[:5], rank=1)
    with pytest.raises(RivalsError, match="targets"):
        svd_task_weights(X1, y * math.nan, rank=1)
    with pytest.raises(RivalsError, match="weight 0"):
        svd_task_weights(X1, 0 * y, rank=1)


def test_alignment() -> None:
    alignment = CovarianceAlignment(6, ["news", "law"]).double()
    torch.testing.assert_close(alignment(X1, "law"), X1)
    assert alignment.drift().item() == 0
    y = X1 @ torch.arange(6.0).double() + 1.0
    head = torch.nn.Linear(6, 1, bias=True).double()
    optimizer = torch.optim.LBFGS(
        [*alignment.parameters(), *head.parameters()], max_iter=300, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (head(alignment(X1, "law")).squeeze(1) - y).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert closure().item() < 1e-8  # a linear head behind it fits what least squares fits
    assert torch.equal(alignment.matrices[0], torch.eye(6).double())
    assert alignment.drift() > 0
    with pytest.raises(RivalsError, match="sport"):
        alignment(X1, "sport")
    with pytest.raises(RivalsError, match="embeddings"):
        alignment(X1[:, :2], "law")
    with pytest.raises(RivalsError, match="tasks"):
        CovarianceAlignment(6, [])
