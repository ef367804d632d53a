"""YetiLoss: the checks of paper 47, its weights by loops over places, noise, and both ways of summing."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import rivals.losses.yeti as yeti_module
from rivals.errors import RivalsError
from rivals.losses import lambda_loss, pairwise_logistic_loss, yeti_loss, yeti_weights

SCORES = torch.tensor([0.3, -0.2, 0.5, 1.1], dtype=torch.float64)
RELEVANCE = torch.tensor([2.0, 0.0, 1.0, 0.0], dtype=torch.float64)
METRICS = ("dcg", "ndcg", "mrr", "map", "err", "classic")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(metric: str = "ndcg", size: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    generator = seeded(4)
    scores = torch.randn(3, size, generator=generator, dtype=torch.float64).requires_grad_()
    relevance = torch.randint(0, 4, (3, size), generator=generator).double()
    relevance = relevance / 3 if metric == "err" else relevance
    return scores, relevance, torch.rand(3, size, generator=generator) < 0.85


def by_loops(metric: str, s: list[float], y: list[float], top: int | None, reach: int, gain: str, by: str) -> Tensor:
    """The weights of one list without noise, place by place."""
    n = len(s)
    order = sorted(range(n), key=lambda i: -s[i])
    worth = [value if gain == "linear" else 2**value - 1 for value in y]
    limit = n if top is None or metric == "classic" else top

    def discount(p: int) -> float:
        return 0.0 if top is not None and p >= top else 1 / (math.log2(p + 2) if by == "log" else p + 1)

    best = sum(g * discount(p) for p, g in enumerate(sorted(worth, reverse=True))) or 1.0
    found = torch.zeros(n, n, dtype=torch.float64)
    for a in range(min(limit, n)):
        last = n - 1 if reach == -1 else min(n - 1, a + reach)
        for c in range(a + 1, (a + 1 if metric == "classic" else last) + 1):
            if c >= n:
                continue
            i, j = order[a], order[c]
            if y[i] == y[j]:
                continue
            one = (y[i] > 0) != (y[j] > 0)
            between = range(a + 1, c)
            weight = 0.0
            if metric in ("dcg", "ndcg"):
                weight = abs((worth[i] - worth[j]) * (discount(a) - discount(c))) / (best if metric == "ndcg" else 1)
            elif metric == "classic":
                weight = 0.15 * 0.85**a * abs(y[i] - y[j])
            elif metric == "mrr":
                weight = (1 / (a + 1) - 1 / (c + 1)) * (one and not any(y[order[p]] > 0 for p in range(a)))
            elif metric == "map":
                weight = one * (1 / (a + 1) + sum((y[order[p]] > 0) / (p + 1) for p in between))
            else:
                look = math.prod(1 - y[order[p]] for p in range(a))
                passed = math.prod(1 - y[order[p]] for p in between)
                adds = sum(math.prod(1 - y[order[q]] for q in range(a + 1, p)) * y[order[p]] / (p + 1) for p in between)
                weight = look * abs((y[i] - y[j]) * (1 / (a + 1) - adds - passed / (c + 1)))
            better, worse = (i, j) if y[i] > y[j] else (j, i)
            found[better, worse] += weight
    return found


@pytest.mark.parametrize("options", [(None, 1), (None, -1), (2, 1), (3, 2), (20, 20)], ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_weights_by_loops(metric: Any, options: tuple[int | None, int], monkeypatch: pytest.MonkeyPatch) -> None:
    top, reach = options
    scores, relevance, mask = problem(metric)
    for gain, by in itertools.product(("linear", "exponential"), ("log", "position")):
        expected = torch.zeros(3, 7, 7, dtype=torch.float64)
        for row, there in enumerate(mask):
            parts = (part[row, there].tolist() for part in (scores, relevance))
            inside = by_loops(metric, *parts, top, reach, gain, by)
            expected[row].masked_scatter_(there[:, None] & there, inside)
        for chunk in (1, 1 << 20):
            monkeypatch.setattr(yeti_module, "CHUNK_ELEMENTS", chunk)
            found = yeti_weights(
                scores,
                relevance,
                mask,
                metric=metric,
                top=top,
                num_neighbors=reach,
                gain=gain,  # type: ignore[arg-type]
                denominator=by,  # type: ignore[arg-type]
                noise=None,
            )
            torch.testing.assert_close(found, expected)
    assert not found.requires_grad


def weights(metric: Any) -> dict[tuple[int, int], float]:
    found = yeti_weights(SCORES, RELEVANCE, metric=metric, noise=None)
    return {(i, j): found[i, j].item() for i, j in found.nonzero().tolist()}


def test_weights_by_hand() -> None:
    """Checks 1 to 3."""
    dcg = {(2, 3): 0.3690702464, (0, 2): 0.1309297536, (0, 1): 0.1386468839}
    assert weights("dcg") == pytest.approx(dcg)
    assert weights("mrr") == pytest.approx({(2, 3): 0.5})
    assert weights("map") == pytest.approx({(2, 3): 1.0, (0, 1): 1 / 3})
    assert weights("classic") == pytest.approx({(2, 3): 0.15, (0, 2): 0.1275, (0, 1): 0.21675})
    assert weights("ndcg") == pytest.approx({pair: w / 2.6309297536 for pair, w in dcg.items()})


def test_all_neighbours_without_noise_are_lambdarank() -> None:
    """Check 4."""
    scores, relevance, mask = problem()
    ours = yeti_loss(scores, relevance, mask, num_neighbors=-1, noise=None)
    theirs = lambda_loss(scores, relevance, mask, scheme="lambdarank", gain="linear", log_base=math.e)
    assert ours.item() == pytest.approx(theirs.item())
    torch.testing.assert_close(*(torch.autograd.grad(loss, scores)[0] for loss in (ours, theirs)))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "list_mean"])
@pytest.mark.parametrize("noise", ["logistic", "gauss"])
@pytest.mark.parametrize("metric", METRICS)
def test_it_is_the_pairwise_loss_under_its_weights(metric: Any, noise: Any, reduction: Any) -> None:
    """Wide lists take the sparse sum, short ones the dense; both equal the plain loss under the same draw."""
    for size in (7, 70):
        scores, relevance, mask = problem(metric, size)
        weight = torch.rand(3, size, generator=seeded(1), dtype=torch.float64)
        drawn = yeti_weights(scores, relevance, mask, metric=metric, noise=noise, generator=seeded(8))
        plain = pairwise_logistic_loss(scores, relevance, mask, weight=weight, pair_weight=drawn, reduction=reduction)
        ours = yeti_loss(
            scores, relevance, mask, weight=weight, metric=metric, noise=noise, generator=seeded(8), reduction=reduction
        )
        torch.testing.assert_close(ours, plain)
        torch.testing.assert_close(*(torch.autograd.grad(loss.sum(), scores)[0] for loss in (ours, plain)))


def test_invariances() -> None:
    """Check 5: gradients sum to 0 over a list; shifts change nothing; permuting goes through."""
    scores, relevance, mask = problem(size=70)
    loss = yeti_loss(scores, relevance, mask, generator=seeded())
    gradient = torch.autograd.grad(loss, scores)[0]
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(3, dtype=torch.float64))
    assert yeti_loss(scores + 5.0, relevance, mask, generator=seeded()).item() == pytest.approx(loss.item())
    order = torch.randperm(70, generator=seeded(3))
    moved = yeti_loss(scores[:, order], relevance[:, order], mask[:, order], noise=None)
    assert moved.item() == pytest.approx(yeti_loss(scores, relevance, mask, noise=None).item())


def test_noise_is_logistic_or_normal() -> None:
    """Check 6: of two candidates the weight does not depend on the noise; the noise has the mean and variance it should."""
    scores, relevance = torch.tensor([[0.0, 1.5]]), torch.tensor([[1.0, 0.0]])
    fixed = yeti_weights(scores, relevance, metric="dcg", noise=None)
    many = {"metric": "dcg", "n_samples": 4000, "generator": seeded()}
    torch.testing.assert_close(yeti_weights(scores, relevance, **many), fixed, rtol=1e-4, atol=0)
    draws = yeti_module._disturbed(
        torch.zeros(1, 1, dtype=torch.float64),
        yeti_module._Rule("dcg", None, 1, "linear", "log", 0.85, "logistic", 2.0, 40000),
        seeded(),
    )
    assert draws.mean().item() == pytest.approx(0.0, abs=0.05)
    assert draws.var().item() == pytest.approx(4 * math.pi**2 / 3, rel=0.03)
    normal = yeti_module._disturbed(
        torch.zeros(1, 1, dtype=torch.float64),
        yeti_module._Rule("dcg", None, 1, "linear", "log", 0.85, "gauss", 0.5, 40000),
        seeded(),
    )
    assert normal.var().item() == pytest.approx(0.25, rel=0.03)


def test_draws_follow_the_generator() -> None:
    scores, relevance, mask = problem(size=70)
    one, same, other = (yeti_loss(scores, relevance, mask, generator=seeded(s)).item() for s in (1, 1, 2))
    assert one == same
    assert one != other
    going_on = seeded(1)
    assert [yeti_loss(scores, relevance, mask, generator=going_on).item() for _ in range(2)][1] != one
    with pytest.raises(RivalsError, match="generator"):
        yeti_loss(scores, relevance, mask)


def test_nothing_to_learn_and_odd_sizes() -> None:
    generator = seeded()
    scores = torch.randn(2, 5, requires_grad=True)
    assert yeti_loss(scores, torch.ones(2, 5), generator=generator).item() == 0
    assert yeti_loss(scores[:, :1], torch.ones(2, 1), generator=generator).item() == 0
    assert yeti_loss(scores[:, :0], torch.ones(2, 0), generator=generator).item() == 0
    assert yeti_weights(scores[0], torch.eye(5)[0], generator=generator).shape == (5, 5)
    assert yeti_weights(torch.zeros(2, 3, 5), torch.zeros(2, 3, 5), generator=generator).shape == (2, 3, 5, 5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"metric": "ndcg@5"}, "metric"),
        ({"metric": "err"}, "relevance"),
        ({"top": 0}, "top"),
        ({"num_neighbors": 0}, "num_neighbors"),
        ({"num_neighbors": -2}, "num_neighbors"),
        ({"n_samples": 0}, "n_samples"),
        ({"noise_scale": -1.0}, "noise_scale"),
        ({"noise": "gumbel"}, "noise"),
        ({"gain": "exp2"}, "gain"),
        ({"denominator": "rank"}, "denominator"),
        ({"decay": 1.5}, "decay"),
    ],
)
def test_bad_options(options: dict[str, Any], match: str) -> None:
    for function in (yeti_loss, yeti_weights):
        with pytest.raises(RivalsError, match=match):
            function(SCORES, RELEVANCE, generator=seeded(), **options)
