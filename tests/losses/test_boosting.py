"""Gradients for boosting: against autograd, loops, simulation, and the checks of papers 47 and 69."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import rivals.losses._fused.pair_blocks as blocks_module
from rivals.errors import RivalsError
from rivals.losses import (
    lambdamart_gradients,
    pairwise_logistic_gradients,
    pairwise_logistic_loss,
    stochastic_rank_gradients,
)

S = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)
Y = torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def problem(size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(3, size, generator=generator, dtype=torch.float64)
    relevance = torch.randint(0, 4, (3, size), generator=generator).double()
    return scores, relevance, torch.rand(3, size, generator=generator) < 0.85


def inside(*parts: Tensor) -> Any:
    """The lists of a problem without what is absent, as plain numbers."""
    *values, mask = parts
    return [tuple(value[row, there].tolist() for value in values) for row, there in enumerate(mask)]


# ---------------------------------------------------------------------------------- logistic pairs


@pytest.mark.parametrize("sigma", [1.0, 2.5])
def test_gradient_and_curvature_are_those_of_the_loss(sigma: float) -> None:
    scores, relevance, mask = problem()
    weight = torch.rand(scores.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pair_weight = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = pairwise_logistic_gradients(scores, relevance, mask, weight=weight, pair_weight=pair_weight, sigma=sigma)
    leaf = scores.clone().requires_grad_()
    loss = pairwise_logistic_loss(
        sigma * leaf, relevance, mask, weight=weight, pair_weight=pair_weight, reduction="sum"
    )
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    torch.testing.assert_close(found.gradient, gradient.detach())
    second = [torch.autograd.grad(g, leaf, retain_graph=True)[0].flatten()[n] for n, g in enumerate(gradient.flatten())]
    torch.testing.assert_close(found.curvature.flatten(), torch.stack(second))
    assert found.value.sum().item() == pytest.approx(2 * loss.item())
    assert all((part[~mask] == 0).all() for part in found)


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_ties_by_loops(sigma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paper 69: C_ij = sigma (1 - S_ij) d / 2 + log(1 + exp(-sigma d)), summed over all j, j = i included."""
    scores, relevance, mask = problem()
    for size in (16, 1 << 17):
        monkeypatch.setattr(blocks_module, "BLOCK_ELEMENTS", size)
        found = pairwise_logistic_gradients(scores, relevance, mask, sigma=sigma, ties=True)
        for row, (s, y) in enumerate(inside(scores, relevance, mask)):
            parts = [part[row, mask[row]].tolist() for part in found]
            for i in range(len(s)):
                value = gradient = curvature = 0.0
                for j in range(len(s)):
                    side, d = (y[i] > y[j]) - (y[i] < y[j]), s[i] - s[j]
                    value += 0.5 * sigma * (1 - side) * d + math.log1p(math.exp(-sigma * d))
                    gradient += sigma * (0.5 * (1 - side) - sigmoid(-sigma * d))
                    curvature += sigma**2 * sigmoid(-sigma * d) * sigmoid(sigma * d)
                assert [part[i] for part in parts] == pytest.approx([value, gradient, curvature])


def test_sums_of_grownet() -> None:
    """Paper 69, checks 1 and 2: gradients sum to 0, the tie of a candidate with itself bends by a quarter."""
    found = pairwise_logistic_gradients(S, Y, ties=True)
    plain = pairwise_logistic_gradients(S, Y)
    assert found.gradient.sum().item() == pytest.approx(0.0, abs=1e-12)
    torch.testing.assert_close(found.curvature - plain.curvature, torch.full_like(S, 0.25))
    torch.testing.assert_close(found.gradient, plain.gradient)
    alike = pairwise_logistic_gradients(torch.zeros(1, 3), torch.ones(1, 3), ties=True)
    assert (alike.gradient == 0).all()
    alone = pairwise_logistic_gradients(torch.zeros(1, 1), torch.ones(1, 1))
    assert [part.item() for part in alone] == [0, 0, 0]


# ---------------------------------------------------------------------------------- LambdaMART


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("top", [None, 1, 3])
def test_lambdamart_by_loops(top: int | None, norm: bool) -> None:
    scores, relevance, mask = problem()
    for gain, by, sigma in itertools.product(("linear", "exponential"), ("log", "position"), (1.0, 2.0)):
        found = lambdamart_gradients(
            scores,
            relevance,
            mask,
            top=top,
            gain=gain,
            denominator=by,
            sigma=sigma,
            norm=norm,  # type: ignore[arg-type]
        )
        for row, (s, y) in enumerate(inside(scores, relevance, mask)):
            n = len(s)
            rank = {i: place for place, i in enumerate(sorted(range(n), key=lambda i: -s[i]))}
            worth = y if gain == "linear" else [2**value - 1 for value in y]

            def discount(p: int, by: str = by) -> float:
                return 1 / (math.log2(p + 2) if by == "log" else p + 1)

            best = sum(g * discount(p) for p, g in enumerate(sorted(worth, reverse=True)[:top]))
            gradient, curvature, strength = [0.0] * n, [0.0] * n, 0.0
            for i, j in itertools.product(range(n), repeat=2):
                if not y[i] > y[j] or (top is not None and min(rank[i], rank[j]) >= top):
                    continue
                weight = (worth[i] - worth[j]) * abs(discount(rank[i]) - discount(rank[j])) / best
                weight /= 0.01 + abs(s[i] - s[j]) if norm else 1.0
                p = sigmoid(-sigma * (s[i] - s[j]))
                pull, bend = sigma * weight * p, sigma**2 * weight * p * (1 - p)
                gradient[i], gradient[j] = gradient[i] - pull, gradient[j] + pull
                curvature[i], curvature[j] = curvature[i] + bend, curvature[j] + bend
                strength += 2 * pull
            scale = math.log2(1 + strength) / strength if norm and strength else 1.0
            assert found.gradient[row, mask[row]].tolist() == pytest.approx([scale * g for g in gradient])
            assert found.curvature[row, mask[row]].tolist() == pytest.approx([scale * h for h in curvature])


def measured(metric: str, y: list[float], top: int | None) -> float:
    """A measure of relevance in rank order, by loops."""
    value, left, seen = 0.0, 1.0, 0
    for p, grade in enumerate(y[:top]):
        seen += grade > 0
        if metric == "mrr" and grade > 0:
            return 1 / (p + 1)
        if metric == "map" and grade > 0:
            value += seen / (p + 1) / sum(g > 0 for g in y)
        if metric == "err":
            value, left = value + left * grade / (p + 1), left * (1 - grade)
    return value


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("top", [None, 1, 3])
@pytest.mark.parametrize("metric", ["mrr", "map", "err"])
def test_lambdamart_weights_are_what_a_swap_changes(metric: Any, top: int | None, norm: bool) -> None:
    """Paper 47: every pair of unequal relevance, weighed by the measure before and after the two trade places."""
    scores, relevance, mask = problem(9)
    relevance = relevance / 3 if metric == "err" else relevance
    found = lambdamart_gradients(scores, relevance, mask, metric=metric, top=top, norm=norm)
    moved = False
    for row, (s, y) in enumerate(inside(scores, relevance, mask)):
        order = sorted(range(len(s)), key=lambda i: -s[i])
        gradient, strength = [0.0] * len(s), 0.0
        for a, c in itertools.combinations(range(len(s)), 2):
            i, j = (order[a], order[c]) if y[order[a]] > y[order[c]] else (order[c], order[a])
            if y[i] == y[j]:
                continue
            grades = [y[place] for place in order]
            before = measured(metric, grades, top)
            grades[a], grades[c] = grades[c], grades[a]
            weight = abs(measured(metric, grades, top) - before) / (0.01 + abs(s[i] - s[j]) if norm else 1.0)
            pull = weight * sigmoid(s[j] - s[i])
            gradient[i], gradient[j] = gradient[i] - pull, gradient[j] + pull
            strength += 2 * pull
        moved |= strength > 0
        scale = math.log2(1 + strength) / strength if norm and strength else 1.0
        assert found.gradient[row, mask[row]].tolist() == pytest.approx([scale * g for g in gradient], abs=1e-12)
    assert moved
    assert all((part[~mask] == 0).all() for part in found)
    assert lambdamart_gradients(scores[:, :0], relevance[:, :0], metric=metric).gradient.shape == (3, 0)


def test_lambdamart_refuses_grades_as_chances() -> None:
    with pytest.raises(RivalsError, match="chance of stopping"):
        lambdamart_gradients(S, Y, metric="err")


def test_lambdamart_at_equal_scores_and_without_pairs() -> None:
    """Equal scores of a whole list are not divided by 0.01; lists without pairs give 0, not NaN."""
    flat = torch.zeros(1, 2, dtype=torch.float64)
    pull = 0.5 * (1 - 1 / math.log2(3))
    found = lambdamart_gradients(flat, torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    assert found.gradient[0, 1].item() == pytest.approx(pull * math.log2(1 + 2 * pull) / (2 * pull))
    for relevance, mask in ((torch.ones(2, 3), None), (torch.eye(2, 3), torch.zeros(2, 3, dtype=torch.bool))):
        found = lambdamart_gradients(torch.randn(2, 3), relevance, mask)
        assert all((part == 0).all() for part in found)
    assert lambdamart_gradients(torch.randn(2, 0), torch.zeros(2, 0)).gradient.shape == (2, 0)


# ---------------------------------------------------------------------------------- StochasticRank


def dcg(scores: Tensor, gains: Tensor, top: int | None) -> Tensor:
    """The DCG of scores [..., n] with gains [n]."""
    order = scores.argsort(dim=-1, descending=True)
    discounts = 1 / torch.log2(torch.arange(scores.shape[-1]).double() + 2)
    if top is not None:
        discounts[top:] = 0.0
    return (gains[order] * discounts).sum(-1)


@pytest.mark.parametrize(("top", "sigma", "mu"), [(None, 1.0, 0.0), (2, 0.5, 0.3), (3, 2.0, 0.0)])
def test_stochastic_rank_by_loops(top: int | None, sigma: float, mu: float) -> None:
    """One draw, with the noise the generator gives: every candidate moved to every place."""
    scores, relevance, mask = problem(6)
    options: dict[str, Any] = {"top": top, "sigma": sigma, "mu": mu, "metric": "dcg"}
    found = stochastic_rank_gradients(scores, relevance, mask, generator=torch.Generator().manual_seed(5), **options)
    noise = torch.randn(scores.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * sigma
    for row, (s, y, e) in enumerate(inside(scores, relevance, noise, mask)):
        n = len(s)
        shifted = [value - sigma * mu * label for value, label in zip(s, y, strict=True)]
        shifted = [value - sum(shifted) / n for value in shifted]
        drawn = [z + eps for z, eps in zip(shifted, e, strict=True)]
        gains = torch.tensor(y, dtype=torch.float64)
        gradient = []
        for i in range(n):
            rest = sorted((drawn[j] for j in range(n) if j != i), reverse=True)
            centre = shifted[i] + (sum(e) - e[i]) / (n - 1)
            spread = sigma * math.sqrt(n / (n - 1))

            def density(x: float, centre: float = centre, spread: float = spread) -> float:
                return math.exp(-0.5 * ((x - centre) / spread) ** 2) / (spread * math.sqrt(2 * math.pi))

            total = 0.0
            for q in range(n):  # between the rest's q - 1 and q
                below = density(rest[q]) if q < n - 1 else 0.0
                above = density(rest[q - 1]) if q > 0 else 0.0
                place = (
                    (rest[0] + 1 if q == 0 else rest[-1] - 1 if q == n - 1 else (rest[q] + rest[q - 1]) / 2)
                    if n > 1
                    else 0
                )
                moved = torch.tensor([place if j == i else drawn[j] for j in range(n)], dtype=torch.float64)
                total += dcg(moved, gains, top).item() * (below - above)
            gradient.append(-total)
        gradient = [g - sum(gradient) / n for g in gradient]
        along = [value - sum(s) / n for value in s]
        share = sum(g * c for g, c in zip(gradient, along, strict=True))
        share /= (math.sqrt(sum(c * c for c in along)) + 0.01) ** 2
        expected = [g - share * c for g, c in zip(gradient, along, strict=True)]
        assert found[row, mask[row]].tolist() == pytest.approx(expected)


def test_stochastic_rank_is_the_gradient_of_the_smoothed_measure() -> None:
    """The mean over many draws against differences of E[DCG(s + noise)] under common noise."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.tensor([0.3, -0.2, 0.5, 1.1], dtype=torch.float64)
    relevance = torch.tensor([2.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    noise = torch.randn(400_000, 4, generator=generator, dtype=torch.float64)
    step = 0.2
    wanted = torch.stack(
        [
            (dcg(scores - shift + noise, relevance, None) - dcg(scores + shift + noise, relevance, None)).mean()
            / (2 * step)
            for shift in step * torch.eye(4, dtype=torch.float64)
        ]
    )
    found = stochastic_rank_gradients(
        scores, relevance, metric="dcg", projection=0.0, n_samples=2000, generator=generator
    )
    torch.testing.assert_close(found, wanted - wanted.mean(), rtol=0.08, atol=0.004)


def test_stochastic_rank_is_centred_and_orthogonal() -> None:
    scores, relevance, mask = problem()
    found = stochastic_rank_gradients(scores, relevance, mask, nu=1e-9, generator=torch.Generator().manual_seed(0))
    assert (found[~mask] == 0).all()
    torch.testing.assert_close(found.sum(-1), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close((found * scores).sum(-1), torch.zeros(3, dtype=torch.float64), atol=1e-7, rtol=0)
    ndcg = stochastic_rank_gradients(scores, relevance, mask, generator=torch.Generator().manual_seed(0))
    dcgs = stochastic_rank_gradients(scores, relevance, mask, metric="dcg", generator=torch.Generator().manual_seed(0))
    ratio = (dcgs / ndcg)[0, mask[0]]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    for shape in ((1, 1), (2, 0), (0, 3)):
        alone = stochastic_rank_gradients(torch.randn(shape), torch.ones(shape), generator=torch.Generator())
        assert alone.shape == shape
        assert (alone == 0).all()


@pytest.mark.parametrize(
    ("function", "options", "match"),
    [
        (pairwise_logistic_gradients, {"sigma": 0.0}, "sigma"),
        (pairwise_logistic_gradients, {"pair_weight": torch.ones(1, 3)}, "pair_weight"),
        (pairwise_logistic_gradients, {"pair_weight": -torch.ones(1, 3, 3)}, "pair_weight"),
        (lambdamart_gradients, {"top": 0}, "top"),
        (lambdamart_gradients, {"sigma": -1.0}, "sigma"),
        (lambdamart_gradients, {"gain": "exp"}, "gain"),
        (lambdamart_gradients, {"denominator": "rank"}, "denominator"),
        (stochastic_rank_gradients, {"metric": "map"}, "metric"),
        (stochastic_rank_gradients, {"sigma": 0.0}, "sigma"),
        (stochastic_rank_gradients, {"nu": 0.0}, "nu"),
        (stochastic_rank_gradients, {"mu": -0.1}, "mu"),
        (stochastic_rank_gradients, {"n_samples": 0}, "n_samples"),
    ],
)
def test_bad_options(function: Any, options: dict[str, Any], match: str) -> None:
    needed = {"generator": torch.Generator()} if function is stochastic_rank_gradients else {}
    with pytest.raises(RivalsError, match=match):
        function(S, Y, **needed, **options)
