"""Log-probabilities of sequences from logits, and the two-headed score of paper 50."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    PREFERENCE_LOSSES,
    likelihood_ratio_scores,
    likelihood_ratio_token_scores,
    token_log_probs,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = torch.tensor([[3, 1, 0, 2], [-100, 4, 4, -100]])
MASK = LABELS != -100


def test_sums_and_lengths() -> None:
    logits = draw(2, 4, 5)
    log_p = logits.log_softmax(-1)
    aligned = token_log_probs(logits, LABELS, MASK, shift=False)
    expected = [sum(log_p[0, t, LABELS[0, t]] for t in range(4)).item(), (log_p[1, 1, 4] + log_p[1, 2, 4]).item()]
    assert aligned.sums.tolist() == pytest.approx(expected)
    assert aligned.lengths.tolist() == [4, 2]
    shifted = token_log_probs(logits, LABELS, MASK)
    expected = [sum(log_p[0, t, LABELS[0, t + 1]] for t in range(3)).item(), (log_p[1, 0, 4] + log_p[1, 1, 4]).item()]
    assert shifted.sums.tolist() == pytest.approx(expected)
    assert shifted.lengths.tolist() == [3, 2]
    assert token_log_probs(logits, LABELS.clamp(min=0)).lengths.tolist() == [3, 3]
    stacked = token_log_probs(logits.unflatten(0, (1, 2)), LABELS.unflatten(0, (1, 2)), MASK.unflatten(0, (1, 2)))
    assert torch.equal(stacked.sums[0], shifted.sums)


def test_what_is_masked_reaches_nothing() -> None:
    """Paper 113, check 6: a shared prefix changes neither value nor gradient."""
    logits = draw(2, 4, 5)
    expected = token_log_probs(logits, LABELS, MASK).sums
    hidden = ~torch.cat([MASK[:, 1:], torch.zeros(2, 1, dtype=torch.bool)], 1)
    for garbage in (math.nan, math.inf, 1e4):
        changed = logits.masked_fill(hidden.unsqueeze(-1), garbage).requires_grad_()
        found = token_log_probs(changed, LABELS, MASK).sums
        assert torch.equal(found, expected)
        (gradient,) = torch.autograd.grad(found.sum(), changed)
        assert not gradient[hidden].any()
    nothing = token_log_probs(logits, LABELS, torch.zeros_like(MASK))
    assert nothing.sums.tolist() == [0, 0]


def test_half_precision_is_summed_in_single() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        logits = (draw(2, 4, 5) * 1e4).to(dtype).requires_grad_()
        found = token_log_probs(logits, LABELS, MASK).sums
        assert found.dtype == torch.float32
        assert found.isfinite().all()
        assert torch.autograd.grad(found.sum(), logits)[0].isfinite().all()
    leaf = draw(2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: token_log_probs(x, LABELS, MASK).sums, leaf)


def test_from_logits_to_a_loss_in_three_lines() -> None:
    """Two responses to each of three prompts, TRL style: labels -100 on the prompt."""
    labels = torch.randint(5, (3, 2, 6), generator=torch.Generator().manual_seed(0))
    labels[..., :3] = -100
    found = token_log_probs(draw(3, 2, 6, 5), labels, labels != -100)
    loss = PREFERENCE_LOSSES["simpo"](found.sums, torch.tensor([[1, 0]] * 3), lengths=found.lengths)
    gap = (found.sums[:, 0] - found.sums[:, 1]) / 3
    assert loss.item() == pytest.approx(torch.nn.functional.softplus(-(2 * gap - 0.5)).mean().item())


# ---------------------------------------------------------------------------------- two heads


def test_modes_of_the_likelihood_ratio() -> None:
    """Paper 50, checks 1 to 4."""
    heads = [draw(2, 3, 4, seed=seed) for seed in range(3)]
    positive, negative, base = (head.log_softmax(-1) for head in heads)
    expected = {
        "ratio": positive - negative,
        "positive": positive,
        "negative_vs_base": base - negative,
        "positive_vs_base": positive - base,
    }
    mode: Any
    for mode, scores in expected.items():
        assert torch.allclose(likelihood_ratio_token_scores(*heads, mode=mode), scores)
        shifted = [head + draw(2, 3, 1, seed=9) for head in heads]
        assert torch.allclose(likelihood_ratio_token_scores(*shifted, mode=mode), scores)
    assert not likelihood_ratio_token_scores(heads[0], heads[0]).any()
    assert torch.allclose(likelihood_ratio_token_scores(heads[0], weights=(1.0, 0.0)), positive)
    weighted = likelihood_ratio_token_scores(*heads, weights=(0.5, -2.0))
    assert torch.allclose(weighted, 0.5 * positive - 2 * negative)


def test_scores_add_over_tokens() -> None:
    """Paper 50, check 4."""
    tokens, mask = torch.tensor([[1, 3, 0], [2, -100, -100]]), torch.tensor([[True] * 3, [True, False, False]])
    scores = likelihood_ratio_token_scores(draw(2, 3, 4), draw(2, 3, 4, seed=1))
    expected = [(scores[0, 0, 1] + scores[0, 1, 3] + scores[0, 2, 0]).item(), scores[1, 0, 2].item()]
    assert likelihood_ratio_scores(scores, tokens, mask).tolist() == pytest.approx(expected)
    mean = likelihood_ratio_scores(scores, tokens, mask, length_normalize=True)
    assert mean.tolist() == pytest.approx([expected[0] / 3, expected[1]])


def test_the_ratio_of_true_densities_is_the_bayes_rule() -> None:
    """Paper 50, check 5: two known categorical distributions, choices of two words."""
    right, wrong = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.1, 0.3, 0.6])
    choices = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    scores = likelihood_ratio_token_scores(right.log(), wrong.log()).expand(9, 2, 3)
    found = likelihood_ratio_scores(scores, choices)
    posterior = right[choices].prod(1) / (right[choices].prod(1) + wrong[choices].prod(1))
    assert torch.allclose(found.sigmoid(), posterior)


def test_bad_input_is_named() -> None:
    logits = draw(2, 4, 5)
    for bad, message in (
        (lambda: token_log_probs(logits, LABELS), "labels must lie in 0..4"),
        (lambda: token_log_probs(logits, LABELS + 3, MASK), "labels must lie in 0..4"),
        (lambda: token_log_probs(logits, LABELS.float(), MASK), "whole numbers"),
        (lambda: token_log_probs(logits, LABELS[:1], MASK), "labels"),
        (lambda: token_log_probs(logits, LABELS, MASK.long()), "mask"),
        (lambda: token_log_probs(logits[0, 0], LABELS, MASK), "logits"),
        (lambda: likelihood_ratio_token_scores(logits), "negative_logits"),
        (lambda: likelihood_ratio_token_scores(logits, logits[:1]), "same shape"),
        (lambda: likelihood_ratio_token_scores(logits, weights=(0.0, 0.0)), "weights"),
        (lambda: likelihood_ratio_token_scores(logits, mode="base"), "mode"),  # type: ignore[arg-type]
    ):
        with pytest.raises(RivalsError, match=message):
            bad()
