"""Ranking accuracy, the idealised policy, and what must happen before a pair flips (paper 76)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    flip_threshold,
    idealized_log_ratio,
    idealized_ranking_accuracy,
    preference_loss,
    ranking_accuracy,
    ranking_transition,
    reward_accuracy,
    vote_agreement,
    vote_log_ratio,
)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


CHOSEN_FIRST = rows([1, 0])


def pairs(count: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities under policy and reference, and which of each pair was chosen."""
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(2, count, 2, generator=generator, dtype=torch.float64)
    chosen = torch.eye(2, dtype=torch.float64)[torch.randint(2, (count,), generator=generator)]
    return draw[0] * 5 - 40, draw[1] * 5 - 40, chosen


def test_accuracy_by_hand() -> None:
    logps, lengths = rows([-10, -12], [-9, -8], [-5, -5]), rows([2, 4], [9, 4], [1, 1])
    chosen = CHOSEN_FIRST.expand(3, 2)
    assert ranking_accuracy(logps, chosen).item() == pytest.approx(2 / 3)  # a tie is right
    assert ranking_accuracy(logps, chosen, lengths, normalize=True).item() == pytest.approx(2 / 3)
    assert ranking_accuracy(logps[:1], chosen[:1], lengths[:1], normalize=True).item() == 0
    assert ranking_accuracy(logps, chosen, torch.full((3, 2), 7), normalize=True).item() == pytest.approx(2 / 3)
    assert ranking_accuracy(logps, chosen, level="none")[:, 0, 1].tolist() == [True, False, True]
    assert reward_accuracy(logps, logps, chosen).item() == 0  # a tie is wrong
    assert reward_accuracy(logps, logps - rows([1, 0]), chosen).item() == 1


def test_more_than_two_responses() -> None:
    logps, relevance = rows([-1, -2, -3, -9], [-1, -3, -2, 0]), rows([3, 2, 1, 9], [3, 2, 1, 1])
    mask = torch.tensor([[True, True, True, False], [True, True, True, False]])
    assert ranking_accuracy(logps, relevance, mask=mask).item() == pytest.approx(5 / 6)
    assert ranking_accuracy(logps, relevance, mask=mask, level="lists").item() == pytest.approx(1 / 2)
    assert ranking_accuracy(logps, torch.ones(2, 4)).isnan()


def test_the_idealised_policy() -> None:
    """Checks 2 and 3."""
    reference, votes = rows([-11, -9]), torch.tensor([0.75], dtype=torch.float64)
    assert idealized_log_ratio(reference, votes, beta=1.0).exp().item() == pytest.approx(0.4060058, abs=1e-7)
    assert idealized_log_ratio(reference, votes, beta=0.1).exp().item() == pytest.approx(7991.41, abs=0.01)
    assert idealized_ranking_accuracy(reference, votes, beta=1.0) == 0
    assert idealized_ranking_accuracy(reference, votes, beta=0.1) == 1
    undecided = torch.tensor([0.5], dtype=torch.float64)
    for beta in (0.01, 1.0, 10.0):
        assert idealized_log_ratio(reference, undecided, beta=beta).item() == pytest.approx(-2)
    assert idealized_log_ratio(reference, votes, beta=0.001).isfinite()  # in logarithms nothing overflows
    lengths = torch.tensor([[11, 3]])
    assert idealized_log_ratio(reference, undecided, lengths=lengths, normalize=True).item() == pytest.approx(-1 + 3)
    assert vote_log_ratio(torch.tensor([1.0, 0.0])).exp().tolist() == pytest.approx([1000, 0])


def test_agreement_with_ties() -> None:
    ratios = torch.tensor([1.0, 1.049, 1.051, 0.951, 0.949, 0.0], dtype=torch.float64).log()
    tie, first, second = (vote_agreement(ratios, torch.full_like(ratios, target).log()) for target in (1.0, 2.0, 0.5))
    assert tie.tolist() == [True, True, False, True, False, False]
    assert first.tolist() == [False, False, True, False, False, False]
    assert torch.equal(second, ~(tie | first))


def test_the_loss_at_which_a_pair_flips() -> None:
    """Checks 1 and 4, and the theorem on 400 pairs."""
    assert flip_threshold(rows([-11, -9]), CHOSEN_FIRST).item() == pytest.approx(0.5981388693)
    assert flip_threshold(rows([-9, -4]), CHOSEN_FIRST).item() == pytest.approx(0.4740769842)
    logps, reference, chosen = pairs()
    for beta in (0.1, 1.0):
        losses = preference_loss(logps, chosen, reference, beta=beta, reduction="none")
        right = ranking_accuracy(logps, chosen, level="none").flatten(1).any(1)
        assert torch.equal(losses <= flip_threshold(reference, chosen, beta=beta), right)


def test_ipo_may_demand_the_wrong_order() -> None:
    """Check 7: k = -3, 1 / (2 tau) = 2."""
    assert flip_threshold(rows([-5, -2]), CHOSEN_FIRST, beta=0.25, loss="ipo").item() == -math.inf
    solved = preference_loss(rows([-2, -1]), CHOSEN_FIRST, rows([-5, -2]), beta=0.25, link="square")
    assert solved.item() == 0  # at zero loss the winner is one nat below
    logps, reference, chosen = pairs()
    losses = preference_loss(logps, chosen, reference, beta=0.1, link="square", reduction="none")
    right = ranking_accuracy(logps, chosen, level="none").flatten(1).any(1)
    sure = losses <= flip_threshold(reference, chosen, loss="ipo")
    assert sure.any()
    assert right[sure].all()


def test_what_became_of_the_pairs() -> None:
    logps, reference, chosen = pairs()
    table = ranking_transition(logps, reference, chosen, beta=0.1)
    losses = preference_loss(logps, chosen, reference, reduction="none")
    before, after = (ranking_accuracy(x, chosen, level="none").flatten(1).any(1) for x in (reference, logps))
    for cell, members in enumerate((before & after, before & ~after, ~before & after, ~before & ~after)):
        assert table.fraction[cell].item() == pytest.approx(members.double().mean().item())
        assert table.loss[cell].item() == pytest.approx(losses[members].mean().item())
        assert table.margin[cell].item() == pytest.approx((-torch.expm1(losses[members]).log()).mean().item())
    assert ranking_transition(logps[:1], logps[:1], chosen[:1]).loss.isnan().sum() == 3


def test_bad_input_is_named() -> None:
    logps, votes = rows([-1, -2]), torch.tensor([0.5])
    for bad, message in (
        (lambda: ranking_accuracy(logps, CHOSEN_FIRST, normalize=True), "lengths"),
        (lambda: ranking_accuracy(logps, CHOSEN_FIRST, level="tokens"), "level"),  # type: ignore[arg-type]
        (lambda: ranking_accuracy(logps[:0], CHOSEN_FIRST[:0]), "no response"),
        (lambda: idealized_log_ratio(logps, votes + 1), "vote_share"),
        (lambda: idealized_log_ratio(logps, votes, beta=0), "beta"),
        (lambda: idealized_log_ratio(logps, votes, normalize=True), "lengths"),
        (lambda: idealized_log_ratio(rows([-1, -2, -3]), votes), "ref_logps"),
        (lambda: flip_threshold(logps, rows([1, 1])), "tie"),
        (lambda: flip_threshold(logps, CHOSEN_FIRST, loss="kto"), "loss"),  # type: ignore[arg-type]
        (lambda: vote_agreement(votes, votes, band=-1), "band"),
    ):
        with pytest.raises(RivalsError, match=message):
            bad()
