"""The curriculum over tasks (paper 2)."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import rankdata
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import soft_ranks
from rivals.training.task_curriculum import (
    CurriculumTerms,
    TermHistory,
    curriculum_terms,
    frank_wolfe,
    layer_similarity,
    soft_rank,
    switch_probability,
    target_ranks,
)


def direct_rank(points: list[float], scale: float, shift: float) -> list[float]:
    """The formula of the card, point by point."""
    return [len(points) - sum(math.tanh(scale * (b - shift - x)) / 2 + 0.5 for x in points) for b in points]


def test_soft_rank_by_hand() -> None:
    """Check 1."""
    found = soft_rank(torch.tensor([0.9, 0.1, 0.5, 0.503, 1.0], dtype=torch.float64))
    assert found.tolist() == pytest.approx([1.98201, 4.98201, 3.97653, 3.92469, 0.98201], abs=1e-5)


def test_soft_rank_against_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(3, 6, generator=generator, dtype=torch.float64)
    for scale, shift in ((200.0, 0.01), (5.0, 0.1), (40.0, 0.0)):
        found = soft_rank(points, scale=scale, shift=shift)
        for row, ranks in zip(points.tolist(), found.tolist(), strict=True):
            assert ranks == pytest.approx(direct_rank(row, scale, shift))
    assert torch.allclose(soft_rank(points, scale=40.0, shift=0.0), soft_ranks(points, temperature=1 / 80) - 0.5)


def test_soft_rank_of_points_far_apart() -> None:
    """Check 2."""
    points = torch.tensor([0.3, 0.9, 0.0, 0.6])
    assert soft_rank(points).tolist() == pytest.approx([3 - 0.018, 1 - 0.018, 4 - 0.018, 2 - 0.018], abs=0.02)


def test_soft_rank_has_a_gradient() -> None:
    """Check 3."""
    points = torch.tensor([0.5, 0.505, 0.9], requires_grad=True)
    soft_rank(points)[0].backward()
    assert points.grad is not None
    assert points.grad[:2].abs().min() > 0.5


def test_target_ranks_with_ties() -> None:
    values = torch.tensor([3.0, 1.0, 3.0, 2.0, 1.0])
    assert target_ranks(values).tolist() == (6 - rankdata(values, method="min")).tolist()


def test_similarity() -> None:
    layers = torch.tensor([[[1.0, -2.0]], [[2.0, -4.0]], [[-1.0, -1.0]]])
    assert layer_similarity(layers, 0).tolist() == pytest.approx([1, 1, 1 / math.sqrt(10)])
    assert layer_similarity(layers, 0, kind="sign").tolist() == [2, 2, 0]


def example(number: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    transfer = torch.rand(number, number, generator=generator, dtype=torch.float64)
    transfer.fill_diagonal_(1)
    losses = torch.rand(number, generator=generator, dtype=torch.float64) * 3
    return transfer, losses, torch.randn(number, 2, 3, generator=generator, dtype=torch.float64)


def test_terms_against_the_formula() -> None:
    transfer, losses, weights = example()
    priors = torch.tensor([4.0, math.nan, 1.0, 2.0])
    task, earlier, untrained = 2, [3, 0], [1, 2]
    found = curriculum_terms(
        transfer,
        losses,
        task,
        weights=weights,
        layers=weights[:, 1],
        earlier=earlier,
        untrained=untrained,
        prior_ranks=priors,
        mu1=0.2,
        mu2=0.1,
    )
    row, level = transfer[task].tolist(), losses.tolist()
    lent = [j for j in range(4) if j != task]
    train = (1 + 0.2 * sum(row[j] for j in lent)) * level[task] - 0.1 * sum(row[j] * level[j] for j in lent)
    assert found.train.item() == pytest.approx(train)
    rest = weights[1] - sum(transfer[p, 1] * weights[p] for p in earlier) - transfer[task, 1] * weights[task]
    assert found.transfer.item() == pytest.approx(float(rest.square().sum()))
    y = direct_rank(row, 200, 0.01)
    assert found.prior.item() == pytest.approx(sum((priors[j].item() - y[j]) ** 2 for j in (0, 2, 3)))
    raised = [value + (j == task) for j, value in enumerate(level)]
    assert found.rank_loss.item() == pytest.approx(
        sum((r - v) ** 2 for r, v in zip((5 - rankdata(raised, method="min")).tolist(), y, strict=True))
    )
    alike = torch.nn.functional.cosine_similarity(weights[:, 1], weights[task, 1][None], dim=-1).tolist()
    alike[task] += 100
    assert found.rank_similarity.item() == pytest.approx(
        sum((r - v) ** 2 for r, v in zip((5 - rankdata(alike, method="min")).tolist(), y, strict=True))
    )
    assert found.total().item() == pytest.approx(sum(float(term) for term in found))


def test_every_term_has_its_gradient() -> None:
    transfer, losses, weights = example()
    transfer[2] = torch.tensor([0.500, 0.503, 1.0, 0.506])
    transfer.requires_grad_(True)
    terms = curriculum_terms(
        transfer, losses, 2, weights=weights, layers=weights, untrained=[1], prior_ranks=torch.arange(4.0)
    )
    for name, term in terms._asdict().items():
        (slope,) = torch.autograd.grad(term, transfer, retain_graph=True)
        assert slope[2].abs().sum() > 0, name
    nothing = curriculum_terms(transfer, losses, 2)
    assert [nothing[i].item() for i in (1, 2, 4)] == [0, 0, 0]


def test_identical_tasks_lend() -> None:
    """Check 7: with identical tasks the lent share grows; with the training term alone it falls to 0."""
    weights, losses = torch.ones(2, 3), torch.tensor([1.0, 1.0])

    def objective(lent: Tensor, with_transfer: bool) -> Tensor:
        transfer = torch.stack([torch.cat([torch.ones(1), lent]), torch.tensor([0.0, 1.0])])
        terms = curriculum_terms(transfer, losses, 0, weights=weights, untrained=[1])
        return terms.train + terms.transfer if with_transfer else terms.train

    grown = frank_wolfe(lambda lent: objective(lent, True), torch.zeros(1), steps=200)
    assert grown.item() == pytest.approx(1, abs=0.02)
    shrunk = frank_wolfe(lambda lent: objective(lent, False), torch.tensor([0.8]), steps=200)
    assert shrunk.item() == pytest.approx(0, abs=1e-3)


def test_history() -> None:
    rows = torch.tensor([[1.0, 2.0, 5.0, 4.0, 0.0], [3.0, 2.5, 1.0, 4.5, 0.0], [2.0, 2.0, 2.0, 9.0, 0.0]])
    history = TermHistory()
    for row in rows:
        assert history(CurriculumTerms(*row)).item() == pytest.approx(row.sum().item())
        history.add(CurriculumTerms(*row))
    spread = rows.double().numpy().std(0)[:4]
    terms = torch.tensor([1.0, 2.0, 3.0, 4.0, 7.0])
    wanted = sum(t / s**2 for t, s in zip(terms[:4].tolist(), spread, strict=True)) + 7 + math.log(spread.prod())
    assert history(CurriculumTerms(*terms)).item() == pytest.approx(wanted, rel=1e-5)


def test_switch() -> None:
    """Checks 4 and 5."""
    calm = torch.linspace(0, 1, 10)
    zero = torch.zeros(10)
    assert switch_probability(calm, zero, 10) == pytest.approx(0.6633499, abs=1e-7)
    high = torch.cat([torch.zeros(9), torch.ones(1)])
    assert switch_probability(high, zero, 10) == pytest.approx(0.6633499 + 1 / 30, abs=1e-7)
    assert switch_probability(-high, zero, 10) == pytest.approx(0.6633499 + 1 / 30, abs=1e-7)
    assert switch_probability(torch.full((10,), 0.1), zero, 10) == pytest.approx(0.6633499, abs=1e-7)
    assert switch_probability(calm, zero, 500) < switch_probability(calm, zero, 10)
    assert switch_probability(calm, zero + 1, 10) < switch_probability(calm, zero, 10)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        losses = torch.randn(5, generator=generator).exp()
        assert 0 < switch_probability(losses, torch.randn(5, generator=generator), 1) <= 0.8


def test_frank_wolfe_converges_inside() -> None:
    """Check 6."""
    target, seen = torch.tensor([0.2, 0.5, 0.3, 0.0]), []

    def objective(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return (x - target).square().sum()

    found = frank_wolfe(objective, torch.zeros(4), steps=500)
    assert float((found - target).square().sum()) < 1e-2
    points = torch.stack([*seen, found])
    assert (points >= 0).all()
    assert (points.sum(1) <= 1 + 1e-6).all()
    outside = frank_wolfe(lambda x: (x - 3 * target).square().sum(), torch.zeros(4), radius=2.0, steps=2000)
    assert outside.sum().item() == pytest.approx(2, abs=1e-2)
    assert frank_wolfe(lambda x: torch.tensor(1.0), target).tolist() == target.tolist()


def test_bad_input() -> None:
    transfer, losses, weights = example()
    for call in (
        lambda: soft_rank(torch.tensor([1, 2])),
        lambda: soft_rank(losses, scale=0),
        lambda: layer_similarity(weights, 4),
        lambda: layer_similarity(weights, 0, kind="dot"),
        lambda: curriculum_terms(torch.eye(1), torch.ones(1), 0),
        lambda: curriculum_terms(torch.eye(3), losses, 0),
        lambda: curriculum_terms(transfer, losses * math.nan, 0),
        lambda: curriculum_terms(transfer, losses, 4),
        lambda: curriculum_terms(transfer, losses, 0, untrained=[5]),
        lambda: curriculum_terms(transfer, losses, 0, weights=weights[:3]),
        lambda: curriculum_terms(transfer, losses, 0, prior_ranks=torch.ones(3)),
        lambda: switch_probability(torch.ones(1), torch.ones(1), 1),
        lambda: switch_probability(losses, losses * math.nan, 1),
        lambda: switch_probability(losses, losses, 1, decay_loss=0),
        lambda: frank_wolfe(torch.sum, torch.zeros(2), radius=-1),
        lambda: frank_wolfe(torch.sum, torch.full((2,), 0.7)),
        lambda: frank_wolfe(lambda x: x.sum() * math.nan, torch.zeros(2)),
    ):
        with pytest.raises(RivalsError):
            call()
