"""Pairwise judges and label-free consistency: hand values, total orders, direction-free twins, gradients, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rivals.diagnose import (
    break_ties,
    center_by_class,
    contrast_consistency,
    direction_free_margin,
    direction_free_triplet,
    fuse_scores,
    judge_consistency,
    min_over_directions,
    oracle_direction,
    ordinal_consistency,
    pairwise_wins,
)
from rivals.errors import RivalsError
from rivals.measures import kendall_tau


def answers(quality, sharpness=3.0):
    """A consistent judge: logits of the first and of the second by their quality."""
    quality = np.asarray(quality, dtype=float)
    pair = np.broadcast_arrays(quality[:, None], quality[None, :])
    return np.stack(pair, axis=-1) * sharpness


# ---------------------------------------------------------------------------------- wins


def test_two_items():
    def wins(one, other, **options):
        return pairwise_wins(np.array([[[0, 0], one], [other, [0, 0]]], dtype=float), **options).tolist()

    assert wins([2, 1], [0, 3]) == [1, 0]
    assert wins([2, 1], [3, 0]) == [0, 0]  # either order prefers what stands first
    assert wins([2, 1], [3, 0], contradiction=0.5) == [0.5, 0.5]
    assert wins([1, 1], [3, 0]) == [0.5, 0.5]
    assert wins([1, 1], [3, 0], tie=0.25) == [0.25, 0.25]
    assert wins([1.001, 1.0], [0, 3], round_to=2) == [0.5, 0.5]


def test_a_total_order_is_found_and_labels_do_not_matter():
    quality = np.random.default_rng(0).permutation(7)
    assert pairwise_wins(answers(quality)).tolist() == quality.tolist()
    order = np.random.default_rng(1).permutation(7)
    table = np.random.default_rng(2).standard_normal((7, 7, 2)).round(1)
    np.testing.assert_array_equal(pairwise_wins(table[order][:, order]), pairwise_wins(table)[order])
    np.testing.assert_array_equal(
        pairwise_wins(table + np.random.default_rng(3).integers(0, 9, (7, 7, 1))), pairwise_wins(table)
    )


def test_probabilities_masks_and_batches():
    quality = np.array([3.0, 1.0, 2.0])
    p = 1 / (1 + np.exp(-(quality[:, None] - quality[None, :])))
    assert pairwise_wins(p, probabilities=True).tolist() == [2, 0, 1]
    two = np.stack([answers(quality), answers(-quality)])
    two[0, :, 1] = two[0, 1, :] = np.nan
    mask = np.array([[True, False, True], [True, True, True]])
    assert pairwise_wins(two, mask).tolist() == [[1, 0, 0], [0, 2, 1]]
    assert pairwise_wins(torch.tensor(two), torch.tensor(mask)).tolist() == [[1, 0, 0], [0, 2, 1]]


def test_a_judge_that_always_says_the_first():
    table = np.zeros((4, 4, 2))
    table[..., 0] = 50.0
    assert pairwise_wins(table).tolist() == [0] * 4
    found = judge_consistency(table)
    assert (found.contradiction_rate, found.tie_rate) == (1, 0)
    assert found.position_bias == pytest.approx(0.5)
    prior = np.array([1.0, 4, 3, 2])
    assert np.argsort(-fuse_scores(pairwise_wins(table), prior)).tolist() == np.argsort(-prior).tolist()
    fair = judge_consistency(answers([1, 2, 3]))
    assert (fair.contradiction_rate, fair.tie_rate) == (0, 0)
    assert fair.position_bias == pytest.approx(0)
    sure = judge_consistency(np.full((3, 3), 0.75), probabilities=True)
    assert sure.position_bias == pytest.approx(0.25)


def test_more_agreeing_pairs_rank_better():
    rng = np.random.default_rng(0)
    quality = np.arange(8.0)
    taus = []
    for noise in (0.3, 1.0, 4.0):
        tables = [answers(quality, 1.0) + rng.gumbel(0, noise, (8, 8, 2)) for _ in range(60)]
        taus.append(np.mean([kendall_tau(pairwise_wins(table), quality) for table in tables]))
    assert taus == sorted(taus, reverse=True)


def test_fusion_and_ties():
    scores, prior = np.array([2.0, 0.0, 2.0]), np.array([1.0, 9.0, 5.0])
    np.testing.assert_allclose(fuse_scores(scores, prior), 0.7 * scores + 0.3 * prior)
    assert fuse_scores(scores, prior, weight=1).tolist() == scores.tolist()
    assert fuse_scores(scores, prior, weight=0).tolist() == prior.tolist()
    np.testing.assert_allclose(fuse_scores(scores, prior, weight=0, normalise="minmax"), [0, 1, 0.5])
    np.testing.assert_allclose(fuse_scores(scores, prior, weight=1, normalise="rank"), [0.75, 0, 0.75])
    mask = np.array([True, False, True])
    np.testing.assert_allclose(fuse_scores(scores, prior, mask, weight=0, normalise="minmax"), [0, 0, 1])
    assert fuse_scores(np.ones(2), np.ones(2), normalise="minmax").tolist() == [0, 0]
    assert break_ties(scores, prior).tolist() == [2, 0, 1]
    assert break_ties(scores, prior, np.array([True, True, False])).tolist() == [0, 1, 2]
    assert break_ties(np.zeros(3), np.zeros(3)).tolist() == [0, 1, 2]


# ---------------------------------------------------------------------------------- without labels


def test_contrast_consistency():
    def loss(pos, neg):
        return contrast_consistency(torch.tensor(pos), torch.tensor(neg)).item()

    assert loss([1.0], [0.0]) == 0
    assert loss([0.5], [0.5]) == 0.25
    assert loss([1.0], [1.0]) == 2
    assert loss([0.8], [0.4]) == pytest.approx(0.2)
    assert loss([0.8, 0.1], [0.4, 0.3]) == pytest.approx(loss([0.4, 0.3], [0.8, 0.1]))
    p = torch.rand(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: contrast_consistency(p[:, 0], p[:, 1]), p)


def test_centring():
    states = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.testing.assert_allclose(center_by_class(states), states - states.mean(0))
    scaled = center_by_class(states * 5, scale=True)
    np.testing.assert_allclose(scaled, (states - states.mean(0)) / states.std(0, correction=0))


def test_direction_free_losses():
    assert direction_free_margin(torch.tensor([0.0, 0.1, 0.5])).item() == pytest.approx(0.1 / 3)
    assert direction_free_triplet(torch.tensor([0.0, 0.3, -0.3])).item() == pytest.approx(0.2 / 3)
    scores = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.3
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4, [False] * 5])
    for loss in (direction_free_margin, direction_free_triplet):
        value = loss(scores, mask)
        torch.testing.assert_close(loss(-scores, mask), value)
        torch.testing.assert_close(loss(scores + 3.0, mask), value)
        torch.testing.assert_close(loss(scores.masked_fill(~mask, float("nan")), mask), value)
        alone = [loss(scores[:1]), loss(scores[1:2, :3])]
        torch.testing.assert_close(value, torch.stack(alone).mean())
        leaf = scores.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda s, loss=loss: loss(s, mask), leaf)
        assert loss(scores, torch.zeros_like(mask)).item() == 0


def test_directions():
    difference = torch.randn(50, generator=torch.Generator().manual_seed(2))
    hinge = min_over_directions(lambda d, margin: (margin - d).clamp(min=0))
    torch.testing.assert_close(hinge(difference, 0.7), (0.7 - difference.abs()).clamp(min=0))
    scores, truth = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]]), np.array([[3, 2, 1], [3, 1, 2]])
    assert oracle_direction(kendall_tau)(torch.tensor(scores), torch.tensor(truth)).tolist() == [1, 1]
    assert oracle_direction(lambda s, y: float((s * y).sum()))(scores[:1], truth[:1] - 2) == 2


def test_ordinal_consistency():
    clear = torch.tensor([-50.0, 0.0, 50.0])
    assert ordinal_consistency(clear, torch.tensor([-25.0, 25.0])).item() == pytest.approx(0)
    same = ordinal_consistency(torch.zeros(3), torch.tensor([-25.0, 25.0])).item()
    assert same == pytest.approx((1 + 4 + 1) / 3)  # all three in the middle rank
    unsure = ordinal_consistency(torch.zeros(2), torch.tensor([0.0])).item()
    assert unsure == pytest.approx(0.25)
    leaf = torch.tensor([[0.3, -0.2, 0.9]], dtype=torch.float64, requires_grad=True)
    cuts = torch.tensor([-0.4, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: ordinal_consistency(s, cuts), leaf)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pairwise_wins(np.zeros((3, 3))), "must be \\[..., C, C, 2\\]"),
        (lambda: pairwise_wins(np.zeros((1, 1, 2))), "C at least 2"),
        (lambda: pairwise_wins(np.zeros((2, 3)), probabilities=True), "must be \\[..., C, C\\]"),
        (lambda: pairwise_wins(np.full((2, 2), 2.0), probabilities=True), "lie in 0..1"),
        (lambda: pairwise_wins(np.full((2, 2, 2), np.inf)), "finite"),
        (lambda: pairwise_wins(np.zeros((2, 2, 2)), np.ones(3, dtype=bool)), "mask must be"),
        (lambda: pairwise_wins(np.zeros((2, 2, 2)), tie=2), "tie is 2"),
        (lambda: fuse_scores([1.0], [1.0], weight=2), "weight is 2"),
        (lambda: fuse_scores([1.0], [1.0], normalise="z"), "normalise is 'z'"),
        (lambda: fuse_scores([1.0], [1.0, 2.0]), "must be equal"),
        (lambda: break_ties([np.nan], [1.0]), "finite"),
        (lambda: contrast_consistency(torch.tensor([1.5]), torch.tensor([0.5])), "p_pos must lie"),
        (lambda: contrast_consistency(torch.zeros(0), torch.zeros(0)), "at least one pair"),
        (lambda: center_by_class(torch.zeros(1, 2)), "at least 2 rows"),
        (lambda: direction_free_margin(torch.zeros(2), margin=0), "margin is 0"),
        (lambda: direction_free_triplet(torch.zeros(2, dtype=torch.int64)), "floating"),
        (lambda: direction_free_margin(torch.tensor([float("nan"), 1.0])), "finite"),
        (lambda: direction_free_margin(torch.zeros(2), torch.ones(3, dtype=torch.bool)), "mask must be"),
        (lambda: ordinal_consistency(torch.zeros(3), torch.tensor([1.0, 0.0])), "rising"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(RivalsError, match=message):
        call()
