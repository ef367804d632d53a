"""Selections, weights and statistics by hardness: papers 34, 35, 90 and 114."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    false_negative_weights,
    hardest_negatives,
    hardness_weights,
    info_nce_loss,
    score_statistics,
    top_similar_negatives,
)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SCORES, RELEVANCE = rows([0.8, 0.5, 0.1, -0.3]), rows([1, 0, 0, 0])


@pytest.mark.parametrize(("keep", "expected"), [(1.0, 0.6451179000040771), (1, 0.4374879504858858)])
def test_the_filtered_losses_of_paper_90(keep: float, expected: float) -> None:
    mask = top_similar_negatives(SCORES, RELEVANCE, keep=keep)
    assert info_nce_loss(SCORES, RELEVANCE, mask, temperature=0.5).item() == pytest.approx(expected, abs=1e-12)


def test_what_a_selection_keeps() -> None:
    def kept(**options: Any) -> list[bool]:
        return top_similar_negatives(SCORES, RELEVANCE, **options)[0].tolist()

    assert kept(keep=0.5) == [True, True, True, False]  # one and a half of three, rounded up
    assert kept(keep=1.0, skip_top=1) == [True, False, True, True]
    assert kept(keep=1, skip_top=1) == [True, False, True, False]
    assert kept(keep=1.0, max_similarity=0.4) == [True, False, True, True]
    duplicate = top_similar_negatives(rows([0.8, 1.0, 0.1]), rows([1, 0, 0]), keep=2, max_similarity=0.95)
    assert duplicate.tolist() == [[True, False, True]]
    masked = top_similar_negatives(SCORES, RELEVANCE, torch.tensor([[True, False, True, True]]), keep=1)
    assert masked.tolist() == [[True, False, True, False]]
    assert top_similar_negatives(torch.zeros(2, 0), torch.zeros(2, 0)).shape == (2, 0)


def test_keeping_more_never_lowers_the_loss() -> None:
    scores, relevance = normal(6, 9), torch.eye(6, 9)
    losses = [info_nce_loss(scores, relevance, top_similar_negatives(scores, relevance, keep=k)) for k in range(1, 9)]
    assert all(small <= large for small, large in itertools.pairwise(losses))
    assert losses[-1].item() == pytest.approx(info_nce_loss(scores, relevance).item(), abs=1e-12)


def test_hardest_negatives_leave_out_what_is_known() -> None:
    scores, known = normal(4, 7), (normal(4, 7, seed=1) > 0).double()
    columns, found = hardest_negatives(scores, known, count=3)
    for row in range(4):
        order = [c for c in scores[row].argsort(descending=True).tolist() if not known[row, c]][:3]
        assert columns[row][found[row]].tolist() == order
    columns, found = hardest_negatives(scores[:1], torch.ones(1, 7), count=2)
    assert not found.any()


def test_hardness_weights_are_a_softmax_of_unit_scores() -> None:
    scores, relevance, mask = normal(3, 6), torch.eye(3, 6), normal(3, 6, seed=4) > -1
    mask = mask | (relevance > 0)
    weights = hardness_weights(scores, relevance, mask)
    assert (weights[relevance > 0] == 1).all()
    assert (weights[~mask] == 0).all()
    for row in range(3):
        there, negative = mask[row], mask[row] & (relevance[row] == 0)
        length = scores[row][there].norm()
        expected = (scores[row][negative] / length).softmax(0)
        torch.testing.assert_close(weights[row][negative], expected)
    known = torch.zeros(3, 6, dtype=torch.bool)
    known[0, 5] = True
    kept = hardness_weights(scores, relevance, known=known, known_logit=-10.0)
    logits = scores / scores.norm(dim=1, keepdim=True)
    logits = logits.masked_fill(known | (relevance > 0), -10.0)
    torch.testing.assert_close(kept, logits.softmax(1).masked_fill(relevance > 0, 1.0))
    assert hardness_weights(scores, relevance, known=known)[0, 5] == 0
    nothing = hardness_weights(scores, torch.ones(3, 6), torch.zeros(3, 6, dtype=torch.bool))
    assert (nothing == 0).all()


def test_false_negative_weights_spare_positives() -> None:
    first, second = F.normalize(normal(5, 4)), F.normalize(normal(5, 4, seed=1))
    cosine = first @ second.T
    weights = false_negative_weights(3 * first, second, threshold=0.2)
    other = ~torch.eye(5, dtype=torch.bool)
    assert torch.equal(weights[other], (cosine <= 0.2).double()[other])
    assert (weights.diagonal() == 1).all()
    assert (false_negative_weights(first, second, threshold=1.0) == 1).all()
    assert torch.equal(false_negative_weights(first, second, threshold=-1.0), torch.eye(5, dtype=torch.float64))
    relevance = torch.eye(5).roll(1, 0)
    assert (false_negative_weights(first, second, relevance, threshold=-1.0) == relevance).all()


def test_statistics() -> None:
    scores, relevance = normal(3, 6), torch.eye(3, 6)
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[:, 5] = False
    found = score_statistics(scores, relevance, mask, temperature=0.5)
    for row in range(3):
        inside = [c for c in range(5) if c != row]
        negative = scores[row][inside]
        assert found.positive_mean[row].item() == pytest.approx(scores[row, row].item())
        assert found.negative_mean[row].item() == pytest.approx(negative.mean().item())
        assert found.negative_variance[row].item() == pytest.approx(negative.var().item())
        assert found.negative_exp_mean[row].item() == pytest.approx((negative / 0.5).exp().mean().item())
        assert found.positive_exp_mean[row].item() == pytest.approx(math.exp(scores[row, row] / 0.5))
        assert found.above_positive[row].item() == pytest.approx((negative > scores[row, row]).double().mean().item())
    nothing = score_statistics(torch.zeros(2, 0), torch.zeros(2, 0))
    assert all((value == 0).all() for value in nothing)


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (top_similar_negatives, {"keep": 0.0}, "keep"),
    (top_similar_negatives, {"keep": 1.5}, "keep"),
    (top_similar_negatives, {"keep": 5}, "keep"),
    (top_similar_negatives, {"keep": True}, "keep"),
    (top_similar_negatives, {"skip_top": -1}, "skip_top"),
    (hardest_negatives, {"count": 0}, "count"),
    (hardest_negatives, {"count": 5}, "count"),
    (hardness_weights, {"known": torch.zeros(1, 4)}, "known"),
    (hardness_weights, {"temperature": 0.0}, "temperature"),
    (score_statistics, {"temperature": -1.0}, "temperature"),
]


@pytest.mark.parametrize(("function", "options", "name"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_bad_options_are_named(function: Any, options: dict[str, Any], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        function(SCORES, RELEVANCE, **options)


def test_bad_arguments_of_false_negative_weights() -> None:
    with pytest.raises(RivalsError, match="threshold"):
        false_negative_weights(torch.eye(2), torch.eye(2), threshold=1.5)
    with pytest.raises(RivalsError, match="documents"):
        false_negative_weights(torch.eye(2), torch.eye(3))
    with pytest.raises(RivalsError, match="relevance"):
        false_negative_weights(torch.eye(2), torch.eye(2), torch.eye(3))
