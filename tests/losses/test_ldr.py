"""LDR-KL, LDR-k and adaptive LDR-KL: values, limits, state."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot, softplus

from rivals.errors import RivalsError
from rivals.losses import AdaptiveLDRLoss, adaptive_temperatures, info_nce_loss, ldr_loss, normalize_scores

SCORES = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
LABELS = torch.tensor([0, 1, 4, 2, 2, 3])
RELEVANCE = one_hot(LABELS, 5).double()


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def violations(margin: float) -> torch.Tensor:
    own = SCORES.gather(1, LABELS[:, None])
    return SCORES - own + margin * (1 - RELEVANCE)


def test_by_hand() -> None:
    found = ldr_loss(rows([2, 1, 0]), rows([1, 0, 0]), margin=0.0)
    assert found.item() == pytest.approx(0.4076060 - 1.0986123, abs=1e-7)
    assert ldr_loss(SCORES, RELEVANCE, margin=0.0).item() == pytest.approx(
        cross_entropy(SCORES, LABELS).item() - math.log(5)
    )


def test_limits_of_the_temperature() -> None:
    scores, relevance = rows([2, 1, 0]), rows([1, 0, 0])
    assert ldr_loss(scores, relevance, temperature=1e-4, margin=1.0).item() == pytest.approx(0, abs=2e-4)
    assert ldr_loss(scores, relevance, temperature=1e6, margin=1.0).item() == pytest.approx(-1 / 3, abs=1e-5)


def test_temperature_is_scale() -> None:
    found = ldr_loss(SCORES, RELEVANCE, temperature=3.0, margin=0.6)
    torch.testing.assert_close(found, 3 * ldr_loss(SCORES / 3, RELEVANCE, margin=0.2))
    torch.testing.assert_close(ldr_loss(SCORES + 17, RELEVANCE, temperature=3.0, margin=0.6), found)


def test_a_high_temperature_is_symmetric_in_the_labels() -> None:
    each = [ldr_loss(SCORES, one_hot(torch.full((6,), k), 5).double(), top_k=5, margin=0.4) for k in range(5)]
    assert sum(each).item() == pytest.approx(4 * 0.4)  # (K - 1) c


def test_top_k() -> None:
    d = violations(0.5).sort(1, descending=True).values
    for k in range(1, 8):
        wanted = d[:, : min(k, 5)].mean(1)
        torch.testing.assert_close(ldr_loss(SCORES, RELEVANCE, top_k=k, margin=0.5, reduction="none"), wanted)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 20.0])
def test_it_is_the_worst_weighting(temperature: float) -> None:
    """No weighting of the violations gives more, and the softmax of them gives this."""
    d = violations(0.3)
    best = (d / temperature).softmax(1)
    uniform = torch.full_like(d, 0.2)
    found = ldr_loss(SCORES, RELEVANCE, temperature=temperature, margin=0.3, reduction="none")
    for v in (best, uniform, 0.7 * best + 0.3 * uniform):
        value = (v * d).sum(1) - temperature * torch.special.xlogy(v, 5 * v).sum(1)
        assert (value <= found + 1e-12).all()
    torch.testing.assert_close((best * d).sum(1) - temperature * torch.special.xlogy(best, 5 * best).sum(1), found)


def test_several_positives_and_absent_candidates() -> None:
    scores, relevance = rows([1.0, 0.3, -0.5, 2.0, 7.0]), rows([1, 0, 2, 0, 1])
    mask = torch.tensor([[True, True, True, True, False]])
    wanted = 0.0
    for p in (0, 2):
        d = [0.0] + [scores[0, k].item() - scores[0, p].item() + 0.2 for k in (1, 3)]
        wanted += 0.5 * 0.7 * math.log(np.mean(np.exp(np.array(d) / 0.7)))
    assert ldr_loss(scores, relevance, mask, temperature=0.7, margin=0.2).item() == pytest.approx(wanted)
    largest = 0.5 * sum(max(0.0, 2.0 - scores[0, p].item() + 0.2) for p in (0, 2))
    assert ldr_loss(scores, relevance, mask, top_k=1, margin=0.2).item() == pytest.approx(largest)


@pytest.mark.parametrize("options", [{"temperature": 0.5}, {"top_k": 2}, {"top_k": 3}, {"normalize": "l1"}], ids=str)
def test_a_weight_of_two_is_the_candidate_twice(options: dict[str, object]) -> None:
    weight = torch.ones_like(SCORES)
    column = (LABELS + 1) % 5
    weight.scatter_(1, column[:, None], 2.0)
    wide = torch.cat([SCORES, SCORES.gather(1, column[:, None])], 1)
    torch.testing.assert_close(
        ldr_loss(SCORES, RELEVANCE, weight=weight, **options),  # type: ignore[arg-type]
        ldr_loss(wide, torch.cat([RELEVANCE, torch.zeros(6, 1).double()], 1), **options),  # type: ignore[arg-type]
    )


def test_a_contrastive_loss_up_to_a_constant() -> None:
    relevance = (SCORES > 1).double()
    several = relevance.sum(1) * (1 - relevance).sum(1) > 0
    each = ldr_loss(SCORES[several], relevance[several], margin=0.0, reduction="none")
    constant = (1 + (1 - relevance[several]).sum(1)).log()
    wanted = info_nce_loss(SCORES[several], relevance[several], temperature=1.0, reduction="none")
    torch.testing.assert_close(each + constant, wanted)


def test_normalisation() -> None:
    mask = torch.tensor([[True, True, False]])
    scores = rows([3.0, -1.0, float("nan")])
    torch.testing.assert_close(normalize_scores(scores, mask), rows([1.5, -0.5, 0.0]))
    soft = softplus(scores[:, :2])
    wanted = torch.cat([soft / soft.mean(), torch.zeros(1, 1).double()], 1)
    torch.testing.assert_close(normalize_scores(scores, mask, kind="softplus_l1"), wanted)
    assert (normalize_scores(torch.zeros(1, 3)) == 0).all()


def test_temperatures_of_the_sure_and_the_unsure() -> None:
    scores = rows([0, 0, 0, 0], [500, 0, 0, 0], [1, 0, 0, 0])
    found = adaptive_temperatures(scores, torch.ones(3).double(), initial=10.0, alpha=2.0, smoothing=0.0)
    p = scores[2].softmax(0).numpy()
    middle = 10 * (1 - (p * np.log(4 * p)).sum() / (2 * math.log(4)))
    assert found.tolist() == pytest.approx([10.0, 5.0, middle])
    lone = torch.tensor([[True, False, False, False]])
    assert adaptive_temperatures(scores[:1], torch.ones(1).double(), lone, initial=3.0).tolist() == [3.0]


def test_the_adaptive_loss_by_hand() -> None:
    adaptive = AdaptiveLDRLoss(4, temperature=2.0, alpha=3.0, margin=0.1, normalize="none").double()
    found = adaptive(SCORES[:2], RELEVANCE[:2], torch.tensor([3, 1]), reduction="none")
    wanted_state = adaptive_temperatures(SCORES[:2], torch.full((2,), 2.0).double(), initial=2.0, alpha=3.0)
    torch.testing.assert_close(adaptive.noise_scores()[[3, 1]], wanted_state)
    assert adaptive.noise_scores()[[0, 2]].tolist() == [2.0, 2.0]
    t = wanted_state[:, None]
    wanted = t.squeeze() * (violations(0.1)[:2] / t).exp().mean(1).log()
    torch.testing.assert_close(found, wanted - 3 * math.log(5) / 4 * (wanted_state - 2.0) ** 2)


def test_temperatures_stay_in_evaluation_and_are_saved() -> None:
    adaptive = AdaptiveLDRLoss(6)
    adaptive(SCORES, RELEVANCE, torch.arange(6))
    state = adaptive.noise_scores()
    assert (state < 1).all()
    adaptive.eval()
    first = adaptive(SCORES, RELEVANCE, torch.arange(6))
    assert torch.equal(adaptive.noise_scores(), state)
    again = AdaptiveLDRLoss(6).eval()
    again.load_state_dict(adaptive.state_dict())
    assert again(SCORES, RELEVANCE, torch.arange(6)) == first


def test_the_last_of_an_example_counts_and_one_without_a_positive_does_not() -> None:
    adaptive = AdaptiveLDRLoss(6).double()
    adaptive(SCORES[:3], RELEVANCE[:3], torch.tensor([5, 0, 5]))
    alone = AdaptiveLDRLoss(6).double()
    alone(SCORES[1:3], RELEVANCE[1:3], torch.tensor([0, 5]))
    torch.testing.assert_close(adaptive.noise_scores(), alone.noise_scores())
    before = adaptive.noise_scores()
    nothing = adaptive(SCORES[:1], torch.zeros(1, 5), torch.tensor([99]))  # no positive: its number is never read
    assert nothing == 0
    assert torch.equal(adaptive.noise_scores(), before)


def test_bad_input() -> None:
    for options in ({"temperature": 0.0}, {"margin": -1.0}, {"top_k": 0}, {"normalize": "l2"}):
        with pytest.raises(RivalsError, match=next(iter(options))):
            ldr_loss(SCORES, RELEVANCE, **options)  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="temperature"):
        ldr_loss(SCORES, RELEVANCE, temperature=torch.zeros(6))
    with pytest.raises(RivalsError, match="temperature"):
        ldr_loss(SCORES, RELEVANCE, temperature=torch.ones(5))
    for options in ({"num_examples": 0}, {"alpha": 1.0}, {"temperature": -1.0}):
        with pytest.raises(RivalsError, match=next(iter(options))):
            AdaptiveLDRLoss(**({"num_examples": 3} | options))  # type: ignore[arg-type]
    adaptive = AdaptiveLDRLoss(3)
    for wrong in (torch.tensor([3] * 6), torch.tensor([-1] * 6), torch.tensor([0.0] * 6), torch.tensor([0])):
        with pytest.raises(RivalsError, match="examples"):
            adaptive(SCORES, RELEVANCE, wrong)
    with pytest.raises(RivalsError, match="alpha"):
        adaptive_temperatures(SCORES, torch.ones(6), alpha=0.5)
