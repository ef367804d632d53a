"""Made candidates: the identities of paper 34's card, the draws, and where gradients go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import extrapolate_positives, interpolate_negatives, momentum_contrast_loss


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 0.6), (1.5, 0.0), (2.0, -1.0)])
def test_the_score_of_extrapolated_positives(factor: float, expected: float) -> None:
    query, key = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    pushed = extrapolate_positives(query, key, factor=factor)
    assert (pushed.queries * pushed.keys).sum().item() == pytest.approx(expected, abs=1e-6)
    same = extrapolate_positives(query, query, factor=factor)
    assert (same.queries * same.keys).sum().item() == pytest.approx(1.0, abs=1e-6)


def test_extrapolation_keeps_the_middle_and_never_raises_the_score() -> None:
    queries, keys = F.normalize(normal(1000, 5)), F.normalize(normal(1000, 5, seed=1))
    pushed = extrapolate_positives(queries, keys, generator=seeded())
    torch.testing.assert_close(pushed.queries + pushed.keys, queries + keys)
    factor = float(pushed.factor)
    assert 1 < factor < 2
    apart = (pushed.queries - pushed.keys).norm(dim=1)
    torch.testing.assert_close(apart, (2 * factor - 1) * (queries - keys).norm(dim=1))
    assert ((pushed.queries * pushed.keys).sum(1) <= (queries * keys).sum(1) + 1e-12).all()
    unit = extrapolate_positives(queries, keys, generator=seeded(), normalize=True)
    torch.testing.assert_close(unit.queries, F.normalize(pushed.queries))
    torch.testing.assert_close(unit.keys, F.normalize(pushed.keys))


def test_draws_follow_their_distribution_and_their_generator() -> None:
    vectors = normal(2000, 10)
    for alpha in (0.5, 2.0, 50.0):
        factor = extrapolate_positives(vectors, vectors, alpha=alpha, per_dimension=True, generator=seeded()).factor
        assert factor.shape == vectors.shape
        assert factor.mean().item() == pytest.approx(1.5, abs=0.01)
        assert factor.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    uniform = extrapolate_positives(vectors, vectors, per_dimension=True, distribution="uniform", generator=seeded())
    assert uniform.factor.var().item() == pytest.approx(1 / 12, rel=0.05)
    once, again = (interpolate_negatives(vectors, generator=seeded(3)) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, interpolate_negatives(vectors, generator=seeded(4)))


def test_interpolation_keeps_the_mean_and_shortens_rows() -> None:
    bank = F.normalize(normal(50, 4))
    mixed = interpolate_negatives(bank, generator=seeded())
    torch.testing.assert_close(mixed.mean(0), bank.mean(0))
    assert (mixed.norm(dim=1) <= 1 + 1e-12).all()
    identity = torch.arange(50)
    torch.testing.assert_close(interpolate_negatives(bank, factor=0.3, permutation=identity), bank)
    torch.testing.assert_close(interpolate_negatives(bank, factor=1.0, generator=seeded()), bank)
    order = torch.randperm(50, generator=seeded(1))
    factor = torch.rand(50, 4, generator=seeded(2), dtype=torch.float64)
    found = interpolate_negatives(bank, factor=factor, permutation=order)
    torch.testing.assert_close(found, factor * bank + (1 - factor) * bank[order])


def test_the_query_gets_a_gradient_through_its_key_too() -> None:
    query, key = F.normalize(normal(3, 4)).requires_grad_(), F.normalize(normal(3, 4, seed=1))
    queue = F.normalize(normal(5, 4, seed=2))
    pushed = extrapolate_positives(query, key, factor=1.4)

    def gradient(keys: Tensor) -> Tensor:
        loss = momentum_contrast_loss(pushed.queries, keys, queue, normalize=False)
        return torch.autograd.grad(loss, query, retain_graph=True)[0]

    assert not torch.allclose(gradient(pushed.keys), gradient(pushed.keys.detach()))


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (extrapolate_positives, {"alpha": 0.0, "generator": seeded()}, "alpha"),
    (extrapolate_positives, {"factor": 0.9}, "factor"),
    (extrapolate_positives, {"factor": 2.1}, "factor"),
    (extrapolate_positives, {"factor": torch.ones(2)}, "factor"),
    (extrapolate_positives, {}, "generator"),
    (extrapolate_positives, {"keys": torch.zeros(2, 4), "factor": 1.5}, "keys"),
    (extrapolate_positives, {"distribution": "normal", "generator": seeded()}, "distribution"),
    (interpolate_negatives, {"factor": 1.1, "generator": seeded()}, "factor"),
    (interpolate_negatives, {"factor": 0.5}, "permutation"),
    (interpolate_negatives, {"factor": 0.5, "permutation": torch.zeros(3, dtype=torch.int64)}, "permutation"),
    (interpolate_negatives, {"factor": 0.5, "permutation": torch.arange(2)}, "permutation"),
    (interpolate_negatives, {"bank": torch.zeros(3), "generator": seeded()}, "bank"),
]


@pytest.mark.parametrize(("function", "options", "name"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_bad_arguments_are_named(function: Any, options: dict[str, Any], name: str) -> None:
    given = (
        {"bank": torch.eye(3)} if function is interpolate_negatives else {"queries": torch.eye(3), "keys": torch.eye(3)}
    )
    with pytest.raises(RivalsError, match=name):
        function(**(given | options))
