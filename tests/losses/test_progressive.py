"""The progressive loss: the checks of paper 87's card and both modes written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import ProgressiveInfoNCE, info_nce_loss, progress_ramp, progressive_info_nce_loss


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem() -> tuple[Tensor, Tensor, Tensor]:
    scores, mask = normal(5, 7).tanh(), normal(5, 7, seed=1) > -1
    return scores.requires_grad_(), torch.eye(5, 7), mask | torch.eye(5, 7).bool()


def test_no_progress_and_no_effect_are_infonce() -> None:
    scores, relevance, mask = problem()
    plain = info_nce_loss(scores, relevance, mask, temperature=0.02)
    (wanted,) = torch.autograd.grad(plain, scores)
    off: list[dict[str, Any]] = [
        {"progress": 0.0},
        {"progress": 0.6, "gamma_max": 0.0, "kappa_max": 0.0},
        {"progress": 0.4, "schedule": "step"},
    ]
    for options in off:
        loss = progressive_info_nce_loss(scores, relevance, mask, **options)
        assert loss.item() == pytest.approx(plain.item(), abs=1e-12)
        torch.testing.assert_close(torch.autograd.grad(loss, scores)[0], wanted)


def test_the_weights_of_two_negatives() -> None:
    scores, relevance = rows([0.6, 0.5, 0.1]), rows([1, 0, 0])
    weight = rows([1, 1.379949, 0.620051])
    found = progressive_info_nce_loss(scores, relevance, temperature=0.1, progress=1.0, kappa_max=0.0)
    expected = info_nce_loss(scores, relevance, weight=weight, temperature=0.1)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    equal = progressive_info_nce_loss(rows([0.6, 0.3, 0.3]), relevance, temperature=0.1, progress=1.0, kappa_max=0.0)
    plain = info_nce_loss(rows([0.6, 0.3, 0.3]), relevance, temperature=0.1)
    assert equal.item() == pytest.approx(plain.item(), abs=1e-12)


def frozen(scores: Tensor, mask: Tensor, gamma: float, kappa: float) -> tuple[Tensor, Tensor]:
    """Weights of negatives and of lists by the card, one list at a time."""
    weights, difficulty = torch.ones_like(scores), []
    for row in range(len(scores)):
        negative = mask[row] & (torch.arange(scores.shape[1]) != row)
        raw = (gamma * (scores[row] - scores[row][negative].mean())).exp()
        weights[row][negative] = (raw / raw[negative].mean())[negative]
        hardest = scores[row][negative].max() - scores[row, row]
        difficulty.append((F.softplus(hardest / 0.1) + 1e-8) ** kappa)
    v = torch.stack(difficulty)
    return weights, v / v.mean()


@pytest.mark.parametrize("progress", [0.3, 1.0])
def test_weights_written_out_and_held_constant(progress: float) -> None:
    scores, relevance, mask = problem()
    ramp = progress_ramp(progress)
    weights, v = frozen(scores.detach(), mask, 2.0 * ramp, 0.5 * ramp)
    per_list = info_nce_loss(scores, relevance, mask, weight=weights, temperature=0.05, reduction="none")
    expected = (v * per_list).mean()
    found = progressive_info_nce_loss(scores, relevance, mask, temperature=0.05, progress=progress)
    assert found.item() == pytest.approx(expected.item(), rel=1e-10)
    gradients = [torch.autograd.grad(value, scores)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_a_batch_of_one_has_weight_one_and_absent_candidates_none() -> None:
    scores, relevance = normal(1, 5).tanh(), torch.eye(1, 5)
    alone = progressive_info_nce_loss(scores, relevance, progress=1.0, gamma_max=0.0, kappa_max=3.0)
    assert alone.item() == pytest.approx(info_nce_loss(scores, relevance, temperature=0.02).item(), abs=1e-12)
    mask = torch.tensor([[True, True, False, True, True]])
    first, second = (
        progressive_info_nce_loss(scores.masked_fill(~mask, value), relevance, mask, progress=0.8)
        for value in (50.0, float("nan"))
    )
    assert first.item() == second.item()
    lonely = progressive_info_nce_loss(rows([0.5, 0.5]), rows([1, 1]), progress=1.0)
    assert lonely.item() == 0


def test_weights_of_candidates_are_multiplicities() -> None:
    twice = progressive_info_nce_loss(rows([0.6, 0.5, 0.5, 0.1]), rows([1, 0, 0, 0]), progress=0.9)
    weighted = progressive_info_nce_loss(rows([0.6, 0.5, 0.1]), rows([1, 0, 0]), weight=rows([1, 2, 1]), progress=0.9)
    assert weighted.item() == pytest.approx(twice.item(), abs=1e-12)


@pytest.mark.parametrize(("level", "bent"), [(0.3, 0.70), (0.0, 0.49)])
def test_curricular_bends_negatives_above_the_positive(level: float, bent: float) -> None:
    relevance = rows([1, 0, 0])
    found = progressive_info_nce_loss(
        rows([0.6, 0.7, 0.5]), relevance, mode="curricular", positive_level=level, temperature=0.1
    )
    expected = info_nce_loss(rows([0.6, bent, 0.5]), relevance, temperature=0.1)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)


def test_ramps() -> None:
    assert [progress_ramp(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0, 0.5, 1])
    assert [progress_ramp(p, "linear") for p in (0.0, 0.3, 1.0)] == [0.0, 0.3, 1.0]
    assert [progress_ramp(p, "step") for p in (0.0, 0.49, 0.5, 1.0)] == [0, 0, 1, 1]
    ramp = [progress_ramp(p / 20) for p in range(21)]
    assert ramp == sorted(ramp)


def test_the_module_counts_and_saves_its_state() -> None:
    module = ProgressiveInfoNCE(total_steps=3, mode="curricular", momentum=0.5)
    scores, relevance = torch.tensor([[0.8, 0.9], [0.4, 0.1]]), torch.tensor([[1, 0], [1, 0]])
    module(scores, relevance)
    assert module.positive_level.item() == pytest.approx(0.3)
    module(scores, relevance, torch.zeros(2, 2, dtype=torch.bool))  # nothing there to learn a level from
    assert module.positive_level.item() == pytest.approx(0.3)
    assert module.progress == pytest.approx(2 / 3)
    module.eval()
    module(scores, relevance)
    assert module.progress == pytest.approx(2 / 3)
    other = ProgressiveInfoNCE(total_steps=3, mode="curricular")
    other.load_state_dict(module.state_dict())
    assert other.progress == module.progress
    assert other.positive_level == module.positive_level
    module.train()
    for _ in range(5):
        module(scores, relevance)
    assert module.progress == 1.0


def test_the_module_is_the_function_at_its_progress() -> None:
    module, (scores, relevance, mask) = ProgressiveInfoNCE(total_steps=4, temperature=0.05), problem()
    for step in range(5):
        expected = progressive_info_nce_loss(scores, relevance, mask, temperature=0.05, progress=min(1, step / 4))
        assert module(scores, relevance, mask).item() == expected.item()


BAD: list[tuple[dict[str, Any], str]] = [
    ({"progress": 1.1}, "progress"),
    ({"progress": math.nan}, "progress"),
    ({"temperature": 0.0}, "temperature"),
    ({"difficulty_temperature": 0.0}, "difficulty_temperature"),
    ({"gamma_max": -1.0}, "gamma_max"),
    ({"kappa_max": -1.0}, "kappa_max"),
    ({"schedule": "exponential"}, "schedule"),
    ({"mode": "hard"}, "mode"),
]


@pytest.mark.parametrize(("options", "name"), BAD, ids=[f"{n}-{name}" for n, (_, name) in enumerate(BAD)])
def test_bad_options_are_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        progressive_info_nce_loss(normal(2, 3), torch.eye(2, 3), **options)
    if name in ("schedule", "mode"):
        with pytest.raises(RivalsError, match=name):
            ProgressiveInfoNCE(3, **options)


def test_bad_options_of_the_module() -> None:
    with pytest.raises(RivalsError, match="total_steps"):
        ProgressiveInfoNCE(0)
    with pytest.raises(RivalsError, match="momentum"):
        ProgressiveInfoNCE(1, momentum=1.0)
