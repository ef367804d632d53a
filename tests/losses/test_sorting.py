"""NeuralSort, Sinkhorn and soft sorting networks: hand-computed matrices, limits and invariances."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from rivals.errors import RivalsError
from rivals.losses import neural_sort, sinkhorn, soft_sort
from rivals.losses._networks import in_order, network_layers

CDFS = ["cauchy", "logistic", "gaussian", "reciprocal", "logistic_phi", "optimal"]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def neural_sort_by_loops(scores: list[float], temperature: float) -> list[list[float]]:
    n = len(scores)
    rows = []
    for rank in range(1, n + 1):
        logits = [
            ((n + 1 - 2 * rank) * scores[j] - sum(abs(other - scores[j]) for other in scores)) / temperature
            for j in range(n)
        ]
        top = max(logits)
        weights = [math.exp(logit - top) for logit in logits]
        rows.append([weight / sum(weights) for weight in weights])
    return rows


def test_neural_sort_of_two_by_hand() -> None:
    for a in (1.3, -0.7):
        matrix = neural_sort(torch.tensor([a, 0.0], dtype=torch.float64), temperature=0.5)
        first = 1 / (1 + math.exp(-a / 0.5))
        expected = torch.tensor([[first, 1 - first], [1 - first, first]], dtype=torch.float64)
        torch.testing.assert_close(matrix, expected, rtol=0, atol=1e-12)


def test_neural_sort_against_loops_with_the_mask_anywhere() -> None:
    scores, mask = randn(2, 6), torch.tensor([[True] * 6, [False, True, True, False, True, True]])
    matrix = neural_sort(scores, mask, temperature=0.7)
    for row in range(2):
        there = mask[row].nonzero()[:, 0]
        inner = matrix[row][: len(there)][:, there]
        expected = torch.tensor(neural_sort_by_loops(scores[row, there].tolist(), 0.7), dtype=torch.float64)
        torch.testing.assert_close(inner, expected, rtol=0, atol=1e-12)
        assert matrix[row].sum() == pytest.approx(len(there))


def test_neural_sort_puts_the_rows_in_order() -> None:
    scores = randn(3, 7)
    matrix = neural_sort(scores)
    torch.testing.assert_close(matrix.sum(-1), torch.ones(3, 7, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.equal(matrix.argmax(-1), scores.argsort(dim=-1, descending=True))
    torch.testing.assert_close(neural_sort(scores * 3, temperature=3.0), matrix, rtol=0, atol=1e-12)
    torch.testing.assert_close(neural_sort(scores + 5), matrix, rtol=0, atol=1e-10)


def test_sinkhorn_sums_to_one_and_keeps_absent_candidates_out() -> None:
    scores, mask = randn(2, 5), torch.tensor([[True] * 5, [True, False, True, True, True]])
    scaled = sinkhorn(neural_sort(scores, mask), mask)
    torch.testing.assert_close(scaled.sum(-2), mask.double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(scaled[0].sum(-1), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-4)
    assert (scaled[1, 4] == 0).all()
    assert (scaled[1, :, 1] == 0).all()
    garbage = torch.where(mask[:, None, :], neural_sort(scores, mask), torch.nan)
    torch.testing.assert_close(sinkhorn(garbage, mask), scaled, rtol=0, atol=0)


def test_sinkhorn_by_hand_and_its_rounds() -> None:
    matrix = torch.tensor([[3.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    once = matrix / matrix.sum(0)
    once = once / once.sum(1, keepdim=True)
    torch.testing.assert_close(sinkhorn(matrix, max_iter=1), once)
    assert torch.equal(sinkhorn(matrix, max_iter=0), matrix)
    limit = math.sqrt(3) / (1 + math.sqrt(3))  # the ratio of products on and off the diagonal stays 3
    assert sinkhorn(matrix, tol=1e-12)[0, 0].item() == pytest.approx(limit, abs=1e-9)


def test_sinkhorn_is_differentiated_through_its_rounds() -> None:
    matrix = randn(4, 4).exp().requires_grad_()
    assert torch.autograd.gradcheck(lambda m: sinkhorn(m, max_iter=4, tol=0), (matrix,))


def soft_sort_by_loops(values: list[float], steepness: float, cdf: str) -> tuple[list[float], list[list[float]]]:
    n = len(values)
    values = list(values)
    matrix = [[float(i == j) for j in range(n)] for i in range(n)]
    for layer in range(n):
        for a in range(layer % 2, n - 1, 2):
            b = a + 1
            difference = torch.tensor(values[b] - values[a], dtype=torch.float64)
            alpha = in_order(difference, steepness, cdf).item()  # type: ignore[arg-type]
            p, q = values[a], values[b]
            values[a], values[b] = alpha * p + (1 - alpha) * q, (1 - alpha) * p + alpha * q
            for row in matrix:
                row[a], row[b] = alpha * row[a] + (1 - alpha) * row[b], (1 - alpha) * row[a] + alpha * row[b]
    return values, matrix


@pytest.mark.parametrize("cdf", CDFS)
def test_soft_sort_against_loops(cdf: str) -> None:
    values = randn(3, 5)
    found = soft_sort(values, steepness=2.5, cdf=cdf)  # type: ignore[arg-type]
    for row in range(3):
        expected, matrix = soft_sort_by_loops(values[row].tolist(), 2.5, cdf)
        torch.testing.assert_close(found.values[row], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
        torch.testing.assert_close(
            found.permutation[row], torch.tensor(matrix, dtype=torch.float64), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize(
    ("cdf", "expected"),
    [
        ("cauchy", 0.5 + math.atan(0.6) / math.pi),
        ("logistic", 1 / (1 + math.exp(-0.6))),
        ("gaussian", 0.5 * (1 + math.erf(0.6 / math.sqrt(2)))),
        ("reciprocal", 0.5 * (0.6 / 2.6 + 1)),
        ("logistic_phi", 1 / (1 + math.exp(-0.6 / 0.3**0.25))),
        ("optimal", 1 - 1 / (16 * 0.6)),
    ],
)
def test_the_distributions_by_hand(cdf: str, expected: float) -> None:
    difference = torch.tensor([0.3, -0.3, 0.0, 0.1], dtype=torch.float64)
    found = in_order(difference, 2.0, cdf)  # type: ignore[arg-type]
    assert found[0].item() == pytest.approx(expected, abs=1e-9)
    assert (found[0] + found[1]).item() == pytest.approx(1)
    assert found[2].item() == 0.5


def test_soft_sort_of_two_by_hand() -> None:
    keep = 0.5927735790777423
    sorted_, matrix = soft_sort(torch.tensor([0.2, 0.5], dtype=torch.float64))
    expected = torch.tensor([[keep, 1 - keep], [1 - keep, keep]], dtype=torch.float64)
    torch.testing.assert_close(matrix, expected, rtol=0, atol=1e-12)
    assert sorted_.sum().item() == pytest.approx(0.7)


@pytest.mark.parametrize("network", ["odd_even", "bitonic"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 11])
def test_soft_sort_is_doubly_stochastic_and_exact_in_the_limit(network: str, size: int) -> None:
    values = randn(4, size, seed=size)
    soft = soft_sort(values, network=network)  # type: ignore[arg-type]
    ones = torch.ones(4, size, dtype=torch.float64)
    torch.testing.assert_close(soft.permutation.sum(-1), ones, rtol=0, atol=1e-12)
    torch.testing.assert_close(soft.permutation.sum(-2), ones, rtol=0, atol=1e-12)
    torch.testing.assert_close((values[:, None] @ soft.permutation)[:, 0], soft.values, rtol=0, atol=1e-12)
    sharp = soft_sort(values, steepness=1e9, network=network)  # type: ignore[arg-type]
    ordered, place = values.sort(dim=-1)
    torch.testing.assert_close(sharp.values, ordered, rtol=0, atol=1e-6)
    assert torch.equal(sharp.permutation.argmax(-2), place)


def test_every_network_sorts_every_row_of_zeros_and_ones() -> None:
    for size in range(1, 10):
        rows = torch.tensor(list(product((0.0, 1.0), repeat=size)))
        for network in ("odd_even", "bitonic"):
            values = rows
            for partner, sign in network_layers(network, size):  # type: ignore[arg-type]
                other = values[:, list(partner)]
                values = torch.where(torch.tensor(sign) > 0, torch.minimum(values, other), torch.maximum(values, other))
            assert torch.equal(values, rows.sort(dim=-1).values), (network, size)
    assert len(network_layers("bitonic", 16)) == 10


def test_gradients_pass_through_all_of_it() -> None:
    values = randn(2, 4).requires_grad_()
    for cdf in CDFS:
        assert torch.autograd.gradcheck(lambda x, cdf=cdf: soft_sort(x, steepness=1.5, cdf=cdf), (values,))
    assert torch.autograd.gradcheck(neural_sort, (values,))


def test_bad_input_is_named() -> None:
    scores = randn(2, 3)
    for call, name in (
        (lambda: neural_sort(scores, temperature=0.0), "temperature"),
        (lambda: neural_sort(scores, torch.ones(2, 3)), "mask"),
        (lambda: neural_sort(torch.ones(3, dtype=torch.int64)), "scores"),
        (lambda: sinkhorn(scores), "square"),
        (lambda: sinkhorn(-torch.ones(3, 3)), "matrix"),
        (lambda: sinkhorn(torch.ones(3, 3), max_iter=-1), "max_iter"),
        (lambda: sinkhorn(torch.ones(3, 3), tol=-1.0), "tol"),
        (lambda: soft_sort(scores, steepness=0.0), "steepness"),
        (lambda: soft_sort(scores, cdf="normal"), "cdf"),  # type: ignore[arg-type]
        (lambda: soft_sort(scores, network="merge"), "network"),  # type: ignore[arg-type]
    ):
        with pytest.raises(RivalsError, match=name):
            call()
