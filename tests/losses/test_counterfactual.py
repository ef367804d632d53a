"""Two-stage counterfactual learning (paper 63): unbiasedness and gradients by enumeration, as the card asks."""

from __future__ import annotations

from itertools import permutations, product

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    TwoStagePolicy,
    ips_labels,
    ips_value,
    plackett_luce_log_prob,
    two_stage_policy_gradient_loss,
)

THETA = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def true_value(generator: Tensor, ranker: Tensor, relevance: Tensor, k_candidates: int, weights: Tensor) -> Tensor:
    """E sum_k alpha_k R over all ordered candidate lists and all rankings of them."""
    total = generator.new_zeros(())
    for chosen in permutations(range(len(generator)), k_candidates):
        picked = torch.tensor([chosen])
        chance = plackett_luce_log_prob(generator, picked).exp()[0]
        for ranking in permutations(range(k_candidates), len(weights)):
            inner = plackett_luce_log_prob(ranker[picked[0]], torch.tensor([ranking])).exp()[0]
            total = total + chance * inner * (weights * relevance[picked[0][list(ranking)]]).sum()
    return total


def test_labels_by_hand() -> None:
    clicks = torch.tensor([[1, 0, 0], [0, 1, 1], [1, 0, 0]])
    shown = torch.tensor([[2, 0, 1], [0, 2, 1], [3, 1, 0]])
    labels = ips_labels(clicks, shown, torch.tensor([0, 0, 4]), THETA, n_docs=4)
    dense = labels.dense(5, 4)
    assert dense[0].tolist() == pytest.approx([0, 0.5 / 0.25, 1 / 0.75, 0])
    assert dense[4].tolist() == pytest.approx([0, 0, 0, 1])
    assert labels.propensity[labels.query == 0].tolist() == pytest.approx([0.75, 0.25, 0.75])
    assert (dense[1:4] == 0).all()


def test_a_mask_hides_what_was_not_shown_and_clipping_lowers_labels() -> None:
    clicks, shown = torch.tensor([[0, 1, 0]]), torch.tensor([[0, 1, -7]])
    mask = torch.tensor([[True, True, False]])
    labels = ips_labels(clicks, shown, torch.tensor([0]), THETA, mask, n_docs=2)
    assert labels.relevance.tolist() == [0, 2]
    assert ips_labels(clicks, shown, torch.tensor([0]), THETA, mask, n_docs=2, clip=0.8).relevance.tolist() == [0, 1.25]


def test_labels_are_click_rates_when_everything_is_seen() -> None:
    clicks = torch.tensor([[1, 0], [1, 1], [0, 0], [1, 0]])
    shown = torch.tensor([[0, 1], [1, 0], [0, 1], [0, 1]])
    labels = ips_labels(clicks, shown, torch.zeros(4, dtype=torch.int64), torch.ones(2), n_docs=2)
    assert labels.relevance.tolist() == pytest.approx([3 / 4, 1 / 4])


def test_the_value_is_unbiased_by_enumeration() -> None:
    relevance = torch.tensor([0.9, 0.2, 0.6], dtype=torch.float64)
    scores = torch.tensor([[0.3, -0.5, 1.0]], dtype=torch.float64), torch.tensor([[1.0, 0.0, 0.4]], dtype=torch.float64)
    weights = torch.ones(1, dtype=torch.float64)
    wanted = true_value(scores[0][0], scores[1][0], relevance, 2, weights)
    rho = torch.stack([true_value(scores[0][0], scores[1][0], one, 2, weights) for one in torch.eye(3).double()])
    shown, chance = torch.tensor([[1, 2, 0]]), THETA * relevance[[1, 2, 0]]
    expected = 0.0
    for outcome in product((0, 1), repeat=3):
        clicks = torch.tensor([outcome])
        labels = ips_labels(clicks, shown, torch.tensor([0]), THETA, n_docs=3).dense(1, 3)[0]
        probability = torch.where(clicks[0] == 1, chance, 1 - chance).prod()
        expected += (probability * (rho * labels).sum()).item()
    assert expected == pytest.approx(wanted.item(), abs=1e-10)


def test_ips_value_of_one_impression() -> None:
    policy = TwoStagePolicy(torch.tensor([[0.3, -0.5, 1.0]]), torch.tensor([[1.0, 0.0, 0.4]]), k_candidates=2, k=1)
    log = torch.tensor([[1, 0, 1]]), torch.tensor([[1, 2, 0]]), torch.tensor([0]), THETA.float()
    found = ips_value(policy, *log, n_samples=4000, generator=seeded())
    rho = torch.stack(
        [true_value(policy.generator_scores[0], policy.ranker_scores[0], one, 2, torch.ones(1)) for one in torch.eye(3)]
    )
    labels = ips_labels(*log, n_docs=3).dense(1, 3)[0]
    assert found.value.item() == pytest.approx((rho * labels).sum().item(), abs=0.1)
    assert found.supported.item() == pytest.approx(1)
    assert found.standard_error.isnan()


def test_unsupported_exposure_is_reported_and_can_be_divided_out() -> None:
    policy = TwoStagePolicy(torch.zeros(1, 4), torch.zeros(1, 4), k_candidates=2, k=1)
    log = torch.tensor([[1], [0], [1]]), torch.tensor([[0], [1], [0]]), torch.zeros(3, dtype=torch.int64), torch.ones(1)
    plain = ips_value(policy, *log, n_samples=20_000, generator=seeded())
    scaled = ips_value(policy, *log, n_samples=20_000, self_normalized=True, generator=seeded())
    assert plain.supported.item() == pytest.approx(0.5, abs=0.02)
    assert plain.value.item() == pytest.approx(0.25, abs=0.02)
    assert scaled.value.item() == pytest.approx((plain.value / plain.supported).item())
    values = torch.tensor([0.375, 0.0, 0.375])
    assert plain.standard_error.item() == pytest.approx(values.std().item() / 3**0.5, abs=0.02)


def test_all_documents_as_candidates_teach_the_generator_nothing() -> None:
    generator = torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64).requires_grad_()
    ranker, relevance = torch.tensor([1.0, 0.3, -0.4]).double(), torch.tensor([1.0, 0.0, 0.5]).double()
    value = true_value(generator, ranker, relevance, 3, torch.tensor([1.0, 0.5]).double())
    assert torch.autograd.grad(value, generator)[0].abs().max() < 1e-12


def test_one_candidate_leaves_the_ranker_no_choice() -> None:
    scores = torch.tensor([[0.3, 1.0, -0.5]])
    policy = TwoStagePolicy(scores, scores * 0, k_candidates=1, k=1)
    sample = policy.sample(50_000, seeded())
    assert (sample.ranking_log_prob == 0).all()
    relevance = torch.tensor([1.0, 0.0, 2.0])
    value = relevance[sample.rankings[0, :, 0]]
    exact = (scores[0].softmax(0) * relevance).sum()
    assert abs(value.mean() - exact) < 4 * value.std() / len(value) ** 0.5


def test_the_generators_gradient_by_hand() -> None:
    scores = torch.zeros(1, 2, dtype=torch.float64).requires_grad_()
    sample = TwoStagePolicy(scores, scores.detach(), k_candidates=1, k=1).sample(40_000, seeded())
    utility = torch.tensor([1.0, 0.0], dtype=torch.float64)[sample.rankings[..., 0]]
    loss = two_stage_policy_gradient_loss(sample.candidate_log_prob, sample.ranking_log_prob, utility)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert utility.mean().item() == pytest.approx(0.5, abs=0.01)
    assert gradient[0].tolist() == pytest.approx([-0.25, 0.25], abs=0.005)


def test_both_gradients_agree_with_enumeration() -> None:
    leaves = [torch.tensor([0.4, -0.3, 0.2]).double().requires_grad_() for _ in range(2)]
    relevance, weights = torch.tensor([1.0, 0.0, 0.7]).double(), torch.tensor([1.0]).double()
    wanted = torch.autograd.grad(-true_value(*leaves, relevance, 2, weights), leaves)
    policy = TwoStagePolicy(leaves[0][None], leaves[1][None], k_candidates=2, k=1)
    sample = policy.sample(60_000, seeded(1))
    utility = relevance[sample.rankings[..., 0]]
    loss = two_stage_policy_gradient_loss(sample.candidate_log_prob, sample.ranking_log_prob, utility)
    for found, exact in zip(torch.autograd.grad(loss, leaves), wanted, strict=True):
        assert (found - exact).abs().max() < 0.01


def test_samples_keep_to_the_mask() -> None:
    mask = torch.tensor([[True, False, True, True], [False, True, False, False]])
    policy = TwoStagePolicy(torch.zeros(2, 4), torch.zeros(2, 4), k_candidates=3, k=2, mask=mask)
    sample = policy.sample(30, seeded())
    assert sample.candidates.shape == (2, 30, 3)
    assert sample.rankings.shape == (2, 30, 2)
    assert set(sample.rankings[0].flatten().tolist()) == {0, 2, 3}
    assert (sample.rankings[1, :, 0] == 1).all()
    assert (sample.candidate_log_prob[1] == 0).all()
    exposure = policy.exposure(4000, seeded())
    assert (exposure[~mask] == 0).all()
    assert exposure[1, 1].item() == pytest.approx(1, abs=1e-3)
    assert exposure[0, [0, 2, 3]].tolist() == pytest.approx([(1 + 0.63093) / 3] * 3, abs=0.03)


def test_bad_input_is_named() -> None:
    scores = torch.zeros(1, 3)
    clicks, shown, query = torch.tensor([[0, 1]]), torch.tensor([[0, 1]]), torch.tensor([0])
    theta = torch.tensor([1.0, 0.5])
    for call, name in (
        (lambda: TwoStagePolicy(scores, scores, k_candidates=4, k=1), "k_candidates"),
        (lambda: TwoStagePolicy(scores, scores, k_candidates=2, k=3), "k_candidates"),
        (lambda: TwoStagePolicy(scores, scores[0], k_candidates=2, k=1), "ranker_scores"),
        (lambda: TwoStagePolicy(scores, scores, k_candidates=2, k=1, temperature=0.0), "temperature"),
        (lambda: ips_labels(clicks, shown, query, theta * 3, n_docs=2), "theta"),
        (lambda: ips_labels(clicks, shown, query, theta * 0, n_docs=2), "theta"),
        (lambda: ips_labels(clicks, shown, query, theta[:1], n_docs=2), "theta"),
        (lambda: ips_labels(clicks * 2, shown, query, theta, n_docs=2), "0 or 1"),
        (lambda: ips_labels(clicks, shown, query, theta, clicks == 0, n_docs=2), "click where"),
        (lambda: ips_labels(clicks, shown, query, theta, n_docs=1), "documents from 0 to 0"),
        (lambda: ips_labels(clicks, shown * 0, query, theta, n_docs=2), "twice"),
        (lambda: ips_labels(clicks, shown, query - 1, theta, n_docs=2), "query"),
        (lambda: ips_labels(clicks, shown.int(), query, theta, n_docs=2), "shown"),
        (lambda: ips_labels(clicks, shown, query, theta, n_docs=2, clip=-1.0), "clip"),
    ):
        with pytest.raises(RivalsError, match=name):
            call()
    policy = TwoStagePolicy(scores, scores, k_candidates=2, k=1)
    with pytest.raises(RivalsError, match="query holds 1"):
        ips_value(policy, clicks, shown, query + 1, theta, generator=seeded())
