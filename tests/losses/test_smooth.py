"""ApproxNDCG and NeuralNDCG: limits, hand-computed values, invariances, and the fast sort against the readable one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import approx_ndcg_loss, neural_ndcg, neural_ndcg_loss, neural_sort, sinkhorn, soft_ranks
from rivals.losses._fused import neural_dcg
from rivals.losses._fused import soft_ranks as fused_ranks
from rivals.losses._gains import rank_discounts


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grades(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(seed)).double()


def dcg_by_hand(labels: list[float], k: int | None = None, linear: bool = False) -> float:
    return sum((y if linear else 2**y - 1) / math.log2(r + 2) for r, y in enumerate(labels[:k]))


def hard_ndcg(scores: Tensor, relevance: Tensor, k: int | None = None, linear: bool = False) -> float:
    ranked = relevance[scores.argsort(descending=True)].tolist()
    return dcg_by_hand(ranked, k, linear) / dcg_by_hand(sorted(relevance.tolist(), reverse=True), k, linear)


# ---------------------------------------------------------------------------------- smooth ranks, ApproxNDCG


def test_soft_ranks_against_loops() -> None:
    scores, mask = randn(2, 5), torch.tensor([[True] * 5, [True, False, True, True, False]])
    found = soft_ranks(scores, mask, temperature=0.4)
    for row in range(2):
        for i in range(5):
            others = [j for j in range(5) if j != i and mask[row, j]]
            expected = 1 + sum(1 / (1 + math.exp(-(scores[row, j] - scores[row, i]).item() / 0.4)) for j in others)
            assert found[row, i].item() == pytest.approx(expected if mask[row, i] else 0, abs=1e-12)


def test_soft_ranks_in_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, pull = randn(2, 9).requires_grad_(), randn(2, 9, seed=1)
    whole = soft_ranks(scores)
    (gradient,) = torch.autograd.grad(whole, scores, pull)
    monkeypatch.setattr(fused_ranks, "_BLOCK_ELEMENTS", 40)
    parts = soft_ranks(scores)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-13)
    torch.testing.assert_close(torch.autograd.grad(parts, scores, pull)[0], gradient, rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(soft_ranks, (scores,))


def test_approx_ndcg_by_hand() -> None:
    scores, relevance = randn(4), torch.tensor([2.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    ranks = [1 + sum(1 / (1 + math.exp((a - b).item())) for b in scores if b is not a) - 0.5 for a in scores]
    found = sum((2 ** y.item() - 1) / math.log2(1 + rank) for y, rank in zip(relevance, ranks, strict=True))
    expected = -found / dcg_by_hand([2, 1])
    assert approx_ndcg_loss(scores, relevance).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("linear", [False, True])
def test_approx_ndcg_tends_to_ndcg(linear: bool) -> None:
    scores, relevance = torch.randperm(8, generator=torch.Generator().manual_seed(3)).double(), grades(8)
    gain = "linear" if linear else "exponential"
    loss = approx_ndcg_loss(scores, relevance, temperature=1e-3, gain=gain)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(-hard_ndcg(scores, relevance, linear=linear), abs=1e-9)


def test_approx_ndcg_leaves_out_lists_without_a_positive() -> None:
    scores, relevance = randn(2, 4), torch.tensor([[1.0, 0, 2, 0], [0, 0, 0, 0]], dtype=torch.float64)
    assert approx_ndcg_loss(scores, relevance).item() == approx_ndcg_loss(scores[:1], relevance[:1]).item()
    assert approx_ndcg_loss(scores[1:], relevance[1:]) == 0


# ---------------------------------------------------------------------------------- NeuralNDCG


def readable(scores: Tensor, relevance: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """NeuralNDCG from the public parts, every matrix made and kept."""
    mask = torch.ones_like(relevance, dtype=torch.bool) if mask is None else mask
    matrix = neural_sort(scores, mask, temperature=options.get("temperature", 1.0))
    matrix = sinkhorn(matrix, mask, max_iter=options.get("max_iter", 50), tol=options.get("tol", 1e-6))
    gain = (relevance if options.get("gain") == "linear" else 2**relevance - 1).masked_fill(~mask, 0.0)
    discount = rank_discounts(torch.arange(scores.shape[-1]), torch.float64, top=options.get("k"))
    ideal = (gain.sort(dim=-1, descending=True).values * discount).sum(-1)
    valid = ideal > 0
    found = ((matrix @ gain.unsqueeze(-1)).squeeze(-1) * discount).sum(-1)
    return -(found / (ideal + 1e-10))[valid].sum() / valid.sum()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.1, "k": 3},
        {"temperature": 5.0, "gain": "linear"},
        {"max_iter": 2},
        {"max_iter": 0},
        {"tol": 0.05},
        {"tol": 0.0, "max_iter": 7, "k": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("transposed", [False, True])
def test_the_fast_sort_is_the_readable_one(options: dict[str, Any], transposed: bool) -> None:
    scores, relevance = randn(3, 7, seed=4).requires_grad_(), grades(3, 7, seed=4)
    mask = torch.tensor([[True] * 7, [False, True, True, False, True, True, True], [True] * 6 + [False]])
    fast = neural_ndcg_loss(scores, relevance, mask, transposed=transposed, **options)
    slow = readable(scores, relevance, mask, **options)
    assert fast.item() == pytest.approx(slow.item(), abs=1e-12)
    (ours,), (theirs,) = torch.autograd.grad(fast, scores), torch.autograd.grad(slow, scores)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-13)


def test_wide_and_blocked_lists_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, relevance = randn(5, 12, seed=5).requires_grad_(), grades(5, 12, seed=5)
    loss = neural_ndcg_loss(scores, relevance)
    (gradient,) = torch.autograd.grad(loss, scores)
    monkeypatch.setattr(neural_dcg, "_WIDE", 2)
    monkeypatch.setattr(neural_dcg, "_BLOCK_ELEMENTS", 300)
    again = neural_ndcg_loss(scores, relevance)
    assert again.item() == pytest.approx(loss.item(), abs=1e-13)
    torch.testing.assert_close(torch.autograd.grad(again, scores)[0], gradient, rtol=1e-9, atol=1e-14)


def test_long_lists_in_float32() -> None:
    scores, relevance = randn(2, 400, seed=6), grades(2, 400, seed=6)
    exact = readable(exact_scores := scores.clone().requires_grad_(), relevance)
    (wanted,) = torch.autograd.grad(exact, exact_scores)
    single = scores.float().requires_grad_()
    loss = neural_ndcg_loss(single, relevance)
    (found,) = torch.autograd.grad(loss, single)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_distance_sums_with_ties() -> None:
    scores = torch.tensor([[2.0, 1.0, 1.0, -0.5, 0.0], [0.0] * 5], dtype=torch.float64).requires_grad_()
    there = torch.tensor([[True, True, True, True, False], [True] * 5])
    found = neural_dcg.distance_sums(scores.masked_fill(~there, 0.0), there)
    pairs = (there[:, :, None] & there[:, None, :]).double()
    plain = ((scores[:, :, None] - scores[:, None, :]).abs() * pairs).sum(1)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-12)
    pull = randn(2, 5)
    ours, theirs = (torch.autograd.grad(value, scores, pull)[0] for value in (found, plain))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_one_candidate() -> None:
    assert neural_ndcg_loss(torch.tensor([[3.0]]), torch.tensor([[1.0]])).item() == pytest.approx(-1)
    assert neural_ndcg_loss(torch.tensor([[3.0]]), torch.tensor([[0.0]])) == 0


@pytest.mark.parametrize("a", [0.0, 1.2, -0.8])
def test_two_candidates_by_hand(a: float) -> None:
    loss = neural_ndcg_loss(torch.tensor([[a, 0.0]], dtype=torch.float64), torch.tensor([[1.0, 0.0]]), temperature=0.5)
    first = 1 / (1 + math.exp(-a / 0.5))
    assert loss.item() == pytest.approx(-(first + (1 - first) / math.log2(3)), abs=1e-9)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("k", [None, 1, 3])
def test_it_tends_to_ndcg(k: int | None, transposed: bool) -> None:
    for seed in range(4):
        scores = torch.randperm(9, generator=torch.Generator().manual_seed(seed)).double() * 0.2
        relevance = grades(9, seed=seed)
        loss = neural_ndcg_loss(scores, relevance, temperature=1e-3, k=k, transposed=transposed)
        assert loss.item() == pytest.approx(-hard_ndcg(scores, relevance, k), abs=1e-4)


def test_a_blank_list_changes_nothing_beside_another() -> None:
    scores, relevance = randn(2, 5, seed=7).requires_grad_(), grades(2, 5, seed=7)
    relevance[1] = 0
    options = {"tol": 0.0, "max_iter": 10}
    both, alone = (neural_ndcg_loss(scores[rows], relevance[rows], **options) for rows in (slice(2), slice(1)))
    assert both.item() == pytest.approx(alone.item(), abs=1e-15)
    (gradient,) = torch.autograd.grad(both, scores)
    torch.testing.assert_close(gradient[0], torch.autograd.grad(alone, scores)[0][0], rtol=0, atol=1e-15)
    blank = neural_ndcg_loss(scores[1:], relevance[1:])
    assert blank == 0
    assert (torch.autograd.grad(blank, scores)[0] == 0).all()


def test_it_is_invariant_where_it_should_be() -> None:
    scores, relevance = randn(1, 6, seed=8), grades(1, 6, seed=8)
    loss = neural_ndcg_loss(scores, relevance).item()
    assert neural_ndcg_loss(scores + 3, relevance).item() == pytest.approx(loss, abs=1e-9)
    assert neural_ndcg_loss(scores * 4, relevance, temperature=4.0).item() == pytest.approx(loss, abs=1e-12)
    assert neural_ndcg(scores, relevance).item() == -loss


def test_raising_a_relevant_candidate_lowers_the_loss() -> None:
    scores = torch.tensor([[0.0, 0.5, 0.8]], dtype=torch.float64).requires_grad_()
    loss = neural_ndcg_loss(scores, torch.tensor([[1.0, 0.0, 0.0]]))
    assert torch.autograd.grad(loss, scores)[0][0, 0] < 0


def reference_noise(scores: Tensor, gumbel: Tensor, beta: float, log_scores: bool) -> Tensor:
    """The perturbation as the card writes it, for one list without padding."""
    positive = scores + scores.min().abs()
    if log_scores:
        positive = (positive + 1e-10).log()
    return positive + beta * gumbel


@pytest.mark.parametrize("log_scores", [True, False])
@pytest.mark.parametrize("lift", [0.0, 4.0])
def test_given_noise(log_scores: bool, lift: float) -> None:
    scores, relevance = (randn(1, 6, seed=9) + lift).requires_grad_(), grades(1, 6, seed=9)
    gumbel = randn(4, 1, 6, seed=10)
    options = {"temperature": 0.7, "tol": 0.0, "max_iter": 20}
    found = neural_ndcg_loss(
        scores, relevance, noise="gumbel", gumbel=gumbel, beta=0.3, log_scores=log_scores, **options
    )
    noisy = reference_noise(scores, gumbel[:, 0], 0.3, log_scores)
    expected = readable(noisy, relevance.expand(4, 6), **options)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    (ours,), (theirs,) = torch.autograd.grad(found, scores), torch.autograd.grad(expected, scores)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_noise_of_several_lists_keeps_to_their_masks() -> None:
    scores, relevance = randn(2, 5, seed=11), grades(2, 5, seed=11) + 1
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    gumbel = randn(3, 2, 5, seed=12)
    options = {"noise": "gumbel", "tol": 0.0, "max_iter": 10}
    both = neural_ndcg_loss(scores, relevance, mask, gumbel=gumbel, reduction="none", **options)
    for row in range(2):
        alone = neural_ndcg_loss(scores[row], relevance[row], mask[row], gumbel=gumbel[:, row], **options)
        assert both[row].item() == pytest.approx(alone.item(), abs=1e-12)


def test_drawn_noise_comes_from_the_generator() -> None:
    scores, relevance = randn(2, 5), grades(2, 5)

    def draw(seed: int, beta: float = 0.1) -> float:
        generator = torch.Generator().manual_seed(seed)
        return neural_ndcg_loss(scores, relevance, noise="gumbel", n_samples=5, beta=beta, generator=generator).item()

    assert draw(1) == draw(1) != draw(2)
    assert draw(1, beta=0.0) == draw(2, beta=0.0)
    with pytest.raises(RivalsError, match="generator"):
        neural_ndcg_loss(scores, relevance, noise="gumbel")


def test_it_keeps_no_matrix_for_the_gradient() -> None:
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        neural_ndcg_loss(randn(2, 64).requires_grad_(), grades(2, 64))
    assert max(saved) < 64 * 64


def test_bad_input_is_named() -> None:
    scores, relevance = randn(2, 3), grades(2, 3)
    for options, name in (
        ({"temperature": 0.0}, "temperature"),
        ({"k": 0}, "k"),
        ({"beta": -0.1}, "beta"),
        ({"n_samples": 0}, "n_samples"),
        ({"max_iter": -1}, "max_iter"),
        ({"tol": -1.0}, "tol"),
        ({"gain": "cubic"}, "gain"),
        ({"noise": "normal"}, "noise"),
        ({"gumbel": torch.zeros(0, 2, 3)}, "gumbel"),
        ({"gumbel": torch.zeros(4, 3)}, "gumbel"),
    ):
        with pytest.raises(RivalsError, match=name):
            neural_ndcg_loss(scores, relevance, **options)
    with pytest.raises(RivalsError, match="exponential"):
        neural_ndcg_loss(scores, relevance + 60)
    assert torch.isfinite(neural_ndcg_loss(scores, relevance + 60, gain="linear"))
    with pytest.raises(RivalsError, match="temperature"):
        approx_ndcg_loss(scores, relevance, temperature=-1.0)


def test_a_nan_score_of_a_real_candidate_is_not_hidden() -> None:
    scores = torch.tensor([[float("nan"), 1.0, 2.0]])
    assert neural_ndcg_loss(scores, torch.tensor([[1.0, 0.0, 0.0]])).isnan()
    assert approx_ndcg_loss(scores, torch.tensor([[1.0, 0.0, 0.0]])).isnan()
