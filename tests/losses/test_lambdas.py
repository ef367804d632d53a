"""Lambda losses and rank-weighted RankNet: every scheme against loops over pairs, hand-computed values, limits."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import rivals.losses._fused.pairs as core
from rivals.errors import RivalsError
from rivals.losses import (
    first_loss,
    lambda_loss,
    pairwise_logistic_loss,
    rank_weighted_ranknet_loss,
)

SCHEMES = ("ndcg1", "ndcg2", "ndcg2pp", "lambdarank", "mrr", "ranknet", "ranknet_diff", "ranknet_diff2", None)
ONE = torch.tensor([[0.0, 0.0]], dtype=torch.float64), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
SWAP = 1 - 1 / math.log2(3)  # what swapping ranks 1 and 2 changes


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def problem() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 8, generator=generator, dtype=torch.float64).requires_grad_()
    relevance = torch.randint(0, 4, (3, 8), generator=generator).double()
    mask = torch.rand(3, 8, generator=generator) < 0.8
    return scores, relevance, mask


def by_loops(scheme: str | None, k: int | None, sigma: float, mu: float) -> tuple[list[float], list[int]]:
    """Each list's sum (natural logarithms) and number of pairs, straight from the definitions."""
    sums, numbers = [], []
    for s, y, there in zip(*(part.tolist() for part in problem()), strict=True):
        real = sorted((i for i in range(len(s)) if there[i]), key=lambda i: -s[i])
        rank = {i: place for place, i in enumerate(real, start=1)}
        grades = sorted((y[i] for i in real), reverse=True)[:k]
        best = sum((2**g - 1) / math.log2(1 + r) for r, g in enumerate(grades, start=1)) or 1.0
        gain = {i: (2 ** y[i] - 1) / best for i in real}

        def discount(p: int) -> float:
            return 1 / math.log2(1 + p)

        def reciprocal(p: int) -> float:
            return 1 / p if k is None or p <= k else 0.0

        total, number = 0.0, 0
        inside = real if scheme == "mrr" or k is None else [i for i in real if rank[i] <= k]
        for i, j in itertools.product(inside, repeat=2):
            if scheme != "ndcg1" and not y[i] > y[j]:
                continue
            number += 1
            lambdarank = abs(gain[i] - gain[j]) * abs(discount(rank[i]) - discount(rank[j]))
            apart = abs(rank[i] - rank[j])
            ndcg2 = abs(gain[i] - gain[j]) * abs(discount(apart) - discount(apart + 1)) if apart else 0.0
            weight = {
                "ndcg1": gain[i] * discount(rank[i]),
                "ndcg2": ndcg2,
                "ndcg2pp": mu * ndcg2 + lambdarank,
                "lambdarank": lambdarank,
                "mrr": abs(reciprocal(rank[i]) - reciprocal(rank[j])),
                "ranknet_diff": y[i] - y[j],
                "ranknet_diff2": y[i] ** 2 - y[j] ** 2,
            }.get(scheme or "", 1.0)
            total += weight * softplus(-sigma * (s[i] - s[j]))
        sums.append(total)
        numbers.append(number)
    return sums, numbers


@pytest.mark.parametrize("k", [None, 3, 20])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_by_loops(scheme: Any, k: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    sums, numbers = by_loops(scheme, k, 0.7, 3.0)
    for dense in (0, 10**9):
        monkeypatch.setattr(core, "DENSE_ELEMENTS", dense)

        def loss(reduction: Any, log_base: float = math.e) -> Tensor:
            return lambda_loss(
                *problem(), scheme=scheme, k=k, sigma=0.7, mu=3.0, log_base=log_base, reduction=reduction
            )

        assert loss("none").tolist() == pytest.approx(sums, rel=1e-9)
        assert loss("sum").item() == pytest.approx(sum(sums))
        assert loss("mean").item() == pytest.approx(sum(sums) / sum(numbers))
        assert loss("sum", 2.0).item() == pytest.approx(sum(sums) / math.log(2))
        each = [total / number for total, number in zip(sums, numbers, strict=True) if number]
        assert loss("list_mean").item() == pytest.approx(sum(each) / len(each))


def test_two_candidates() -> None:
    """Paper 21, check 4: s = (0, 0), y = (1, 0)."""
    for scheme, expected in (
        ("lambdarank", SWAP),
        ("ndcg2", SWAP),
        ("ndcg2pp", 11 * SWAP),
        ("ranknet", 1.0),
        (None, 1.0),
        ("ranknet_diff", 1.0),
        ("mrr", 0.5),
        ("ndcg1", 2.0),  # two ordered pairs, one of them the candidate with itself
    ):
        assert lambda_loss(*ONE, scheme=scheme).item() == pytest.approx(expected, rel=1e-9)  # type: ignore[arg-type]
    assert math.isclose(SWAP, 0.3690702464, rel_tol=1e-9)


def test_ranknet_is_the_pairwise_logistic_loss() -> None:
    """Paper 21, check 5, gradient too."""
    scores, relevance, mask = problem()
    ours = lambda_loss(scores, relevance, mask, scheme="ranknet", log_base=math.e, reduction="mean")
    plain = pairwise_logistic_loss(scores, relevance, mask)
    assert ours.item() == pytest.approx(plain.item())
    torch.testing.assert_close(*(torch.autograd.grad(loss, scores)[0] for loss in (ours, plain)))


def test_weights_carry_no_gradient() -> None:
    """The gradient is that of the logistic loss under weights held fixed."""
    scores, relevance, mask = problem()
    loss = lambda_loss(scores, relevance, mask, scheme="lambdarank", log_base=math.e)
    fixed = torch.zeros(3, 8, 8, dtype=torch.float64)
    ranks = scores.detach().masked_fill(~mask, -math.inf).argsort(descending=True).argsort()
    gains = (2**relevance - 1).masked_fill(~mask, 0.0)
    discounts = 1 / torch.log2(2 + torch.arange(8.0, dtype=torch.float64))
    best = (gains.sort(descending=True).values * discounts).sum(-1)[:, None, None]
    for matrix, g, d in zip(fixed, gains, discounts[ranks], strict=True):
        matrix += (g[:, None] - g).abs() * (d[:, None] - d).abs()
    plain = pairwise_logistic_loss(scores, relevance, mask, pair_weight=fixed / best, reduction="sum")
    assert loss.item() == pytest.approx(plain.item())
    torch.testing.assert_close(*(torch.autograd.grad(value, scores)[0] for value in (loss, plain)))


def test_gains_and_normalisation() -> None:
    scores, relevance = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 1.0]])
    cost = softplus(-1.0) * SWAP

    def loss(**options: Any) -> float:
        return lambda_loss(scores, relevance, scheme="lambdarank", log_base=math.e, **options).item()

    assert loss(normalize=False) == pytest.approx(6 * cost, rel=1e-5)
    assert loss() == pytest.approx(6 * cost / (7 + 1 / math.log2(3)), rel=1e-5)
    assert loss(gain="linear", normalize=False) == pytest.approx(2 * cost, rel=1e-5)
    assert loss(gain="linear") == pytest.approx(2 * cost / (3 + 1 / math.log2(3)), rel=1e-5)


def adore(scores: Tensor, relevance: Tensor, cut: int, positions: Tensor | None = None) -> Tensor:
    return lambda_loss(
        scores, relevance, scheme="mrr", k=cut, positions=positions, log_base=math.e, reduction="list_mean"
    )


def test_adore() -> None:
    """Paper 29, checks 3, 4 and 7."""
    assert adore(*ONE, cut=2).item() == pytest.approx(0.5 * math.log(2))
    assert adore(*ONE, cut=1).item() == pytest.approx(math.log(2))
    scores, relevance = torch.zeros(1, 4), torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    appended = adore(scores, relevance, 200, torch.tensor([[1, 2, 3, 4]]))
    assert appended.item() == pytest.approx((0.75 + 0.25 + 1 / 12) / 3 * math.log(2), rel=1e-6)
    beyond = adore(scores[:, :2], torch.tensor([[0.0, 1.0]]), 200, torch.tensor([[4, 201]]))
    assert beyond.item() == pytest.approx(0.25 * math.log(2), rel=1e-6)
    shown = torch.tensor([[2, 1, 3, 4]])
    assert adore(scores, relevance, 200, shown).item() == pytest.approx(appended.item())


def test_bad_options_of_the_lambda_loss() -> None:
    for option, bad in (
        ("scheme", "ndcg3"),
        ("k", 0),
        ("k", 1.5),
        ("sigma", 0.0),
        ("mu", -1.0),
        ("log_base", 1.0),
        ("log_base", math.nan),
        ("gain", "exp2"),
        ("positions", torch.tensor([[0, 1]])),
        ("positions", torch.tensor([[1.0, 2.0]])),
        ("positions", torch.tensor([1, 2])),
    ):
        with pytest.raises(RivalsError, match=option):
            lambda_loss(*ONE, **{option: bad})  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------- paper 84


def test_rank_weights_by_hand() -> None:
    """Paper 84, checks 1 and 2."""
    assert rank_weighted_ranknet_loss(ONE[0], ONE[1]).item() == pytest.approx(math.log(2) / 3)
    assert rank_weighted_ranknet_loss(ONE[0], ONE[1], weighting=None).item() == pytest.approx(math.log(2))
    three = rank_weighted_ranknet_loss(torch.zeros(1, 3), torch.tensor([[2.0, 1.0, 0.0]]))
    assert three.item() == pytest.approx(47 / 60 * math.log(2) / 3, rel=1e-6)


def test_perfect_and_reversed_orders() -> None:
    """Paper 84, check 3."""
    relevance = torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64)
    far = torch.tensor([[100.0, 50.0, 0.0]], dtype=torch.float64)
    assert rank_weighted_ranknet_loss(far, relevance).item() < 1e-20
    one, two = (rank_weighted_ranknet_loss(-far * factor, relevance).item() for factor in (1, 2))
    assert two == pytest.approx(2 * one)


def test_the_top_pulls_hardest() -> None:
    """Paper 84, check 4: equal gaps, the pair at ranks 1 and 2 pulls 39/3 times the pair at 19 and 20."""
    relevance = torch.arange(20.0, 0.0, -1.0, dtype=torch.float64)[None]
    pulls = []
    for top in (0, 18):
        scores = torch.zeros(1, 20, dtype=torch.float64, requires_grad=True)
        pair = torch.zeros(1, 20, dtype=torch.bool)
        pair[0, top : top + 2] = True
        weight = pair.double()
        loss = rank_weighted_ranknet_loss(scores, relevance, weight=weight, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, scores)
        assert gradient.sum().item() == pytest.approx(0)
        pulls.append(gradient[0, top].item())
    assert pulls[0] / pulls[1] == pytest.approx(39 / 3)


def test_unweighted_is_ranknet_by_list_and_ties_share_their_ranks() -> None:
    """Paper 84, check 5; candidates of one relevance may swap places without consequence."""
    scores, relevance, mask = problem()
    ours = rank_weighted_ranknet_loss(scores, relevance, mask, weighting=None)
    assert ours.item() == pytest.approx(pairwise_logistic_loss(scores, relevance, mask, reduction="list_mean").item())
    tied = torch.tensor([[5.0, 1.0, 1.0]])
    loss = rank_weighted_ranknet_loss(torch.zeros(1, 3), tied)
    assert loss.item() == pytest.approx(math.log(2) / 3.5, rel=1e-6)  # ranks 1, 2.5, 2.5


def test_lists_without_a_pair_are_left_out_of_the_mean() -> None:
    scores, relevance = torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert rank_weighted_ranknet_loss(scores, relevance).item() == pytest.approx(math.log(2) / 3)
    assert rank_weighted_ranknet_loss(scores, relevance, reduction="none").tolist() == pytest.approx(
        [math.log(2) / 3, 0]
    )
    with pytest.raises(RivalsError, match="weighting"):
        rank_weighted_ranknet_loss(scores, relevance, weighting="rank")  # type: ignore[arg-type]


def test_first_loss_adds_the_language_model() -> None:
    """Its laws: it is a sum of two parts, both of which pass their gradients on."""
    scores, relevance, mask = problem()
    language = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    loss = first_loss(scores, relevance, language, mask)
    rank = rank_weighted_ranknet_loss(scores, relevance, mask)
    assert loss.item() == pytest.approx(1.5 + 10 * rank.item())
    by_scores, by_language = torch.autograd.grad(loss, (scores, language))
    assert by_language.item() == 1
    torch.testing.assert_close(by_scores, 10 * torch.autograd.grad(rank, scores)[0])
    assert first_loss(scores, relevance, language, mask, rank_weight=0.0).item() == 1.5
    plain = first_loss(scores, relevance, language, mask, weighting=None, rank_weight=1.0)
    assert plain.item() == pytest.approx(
        1.5 + rank_weighted_ranknet_loss(scores, relevance, mask, weighting=None).item()
    )
    assert first_loss(scores, torch.ones_like(relevance), language, mask).item() == 1.5  # no pair
    for arguments, match in (
        ((scores, relevance, torch.ones(2), mask), "lm_loss"),
        ((scores, -relevance - 1, language, mask), "relevance"),
        ((scores, relevance, language, mask.double()), "mask"),
    ):
        with pytest.raises(RivalsError, match=match):
            first_loss(*arguments)  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="rank_weight"):
        first_loss(scores, relevance, language, mask, rank_weight=-1.0)
