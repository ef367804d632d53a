"""Preference losses: values by hand, and the identities between them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    PREFERENCE_LOSSES,
    DcgPairWeight,
    PreferenceForm,
    list_mle_loss,
    pairwise_hinge_loss,
    pairwise_logistic_loss,
    preference_loss,
    preference_report,
    preference_scores,
    rank_labels,
    softmax_loss,
    win_rate_labels,
)

EXACT: dict[str, float] = {"rel": 1e-10, "abs": 1e-10}


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@pytest.fixture
def problem() -> dict[str, Tensor]:
    """Seven prompts of four responses, some absent, relevance without ties."""
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(2, 30, (7, 4), generator=generator)
    logps = -lengths * torch.rand(7, 4, generator=generator, dtype=torch.float64) - 0.1
    mask = torch.rand(7, 4, generator=generator) > 0.2
    mask[:, :2] = True
    return {
        "logps": logps,
        "relevance": torch.rand(7, 4, generator=generator, dtype=torch.float64),
        "ref_logps": logps + torch.randn(7, 4, generator=generator, dtype=torch.float64),
        "lengths": lengths,
        "mask": mask,
    }


@pytest.fixture
def duel(problem: dict[str, Tensor]) -> dict[str, Tensor]:
    """Seven prompts of a winner and a loser, in this order."""
    two = {name: value[:, :2] for name, value in problem.items()}
    return two | {"relevance": torch.tensor([1.0, 0.0]).expand(7, 2)}


def value(tensors: dict[str, Tensor], **options: Any) -> float:
    return preference_loss(**tensors, **options).item()


# ---------------------------------------------------------------------------------- values by hand


def test_dpo_and_its_reference_weight() -> None:
    """Paper 76, check 1 and check 5."""
    logps, reference, relevance = rows([-10, -12]), rows([-11, -9]), rows([1, 0])
    assert preference_loss(logps, relevance, reference).item() == pytest.approx(0.5130152524)
    logps = rows([-12.5, -12])
    assert preference_loss(logps, relevance, reference).item() == pytest.approx(0.6209570, abs=1e-7)
    assert preference_loss(logps, relevance, reference, ref_weight=0).item() == pytest.approx(softplus(0.05))
    assert preference_loss(logps, relevance, 3 * reference, ref_weight=0).item() == pytest.approx(softplus(0.05))


def test_the_likelihood_of_the_winner() -> None:
    """Paper 106, checks 1, 3 and 4."""
    logps = rows([-8, -10]).requires_grad_()
    arguments = (logps, rows([1, 0]), rows([-10, -7]), rows([4, 9]))
    loss = PREFERENCE_LOSSES["rpo"](*arguments)
    assert loss.item() == pytest.approx(2.4740769842)
    (slope,) = torch.autograd.grad(loss, logps)
    push = 0.1 / (1 + math.exp(0.5))
    assert slope[0].tolist() == pytest.approx([-push - 1 / 4, push])
    plain = preference_loss(*arguments).item()
    assert replace(PREFERENCE_LOSSES["rpo"], nll_weight=0.0)(*arguments).item() == pytest.approx(plain)
    same = PREFERENCE_LOSSES["rpo"](logps, rows([1, 0]), logps, rows([4, 9])).item()
    assert same == pytest.approx(math.log(2) + 2)


def test_how_likelihoods_are_averaged() -> None:
    logps, lengths, relevance = rows([-8, -9], [-9, -1]), rows([4, 1], [1, 3]), rows([2, 1], [0, 1])
    options: dict[str, Any] = {"score": "log_prob", "nll_weight": 2.0, "preference_weight": 0.0}

    def nll(how: Any, reduction: Any = "mean", **more: Any) -> Tensor:
        arguments = (logps, relevance, None, lengths)
        return preference_loss(*arguments, nll_reduction=how, reduction=reduction, **options, **more)

    assert nll("example").item() == pytest.approx(2 * (8 / 4 + 1 / 3) / 2)
    assert nll("token").item() == pytest.approx(2 * (8 + 1) / (4 + 3))
    assert nll("sum").item() == pytest.approx(2 * (8 + 1) / 2)
    assert nll("sum", nll_grows_with_list=True).item() == pytest.approx(2 * (8 + 1) / 2)
    assert nll("example", "none").tolist() == pytest.approx([2 * 8 / 4, 2 * 1 / 3])
    assert nll("token", "sum").item() == pytest.approx(2 * nll("token").item())
    reference = nll("example", nll_logps=torch.tensor([-3.0, -6.0]), nll_lengths=torch.tensor([3, 3]))
    assert reference.item() == pytest.approx(2 * 1.5)


def test_lambda_weights_by_hand() -> None:
    """Paper 103, check 1, and the options of the weights."""
    scores, labels = rows([0.2, 0.5, -0.1]), rows([1, 0.5, 0])
    weights = DcgPairWeight()(scores, labels)
    found = [weights[0, i, j].item() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert found == pytest.approx([0.216196, 0.130930, 0.207107], abs=1e-6)
    loss = preference_loss(scores, labels, score="manual", pair_weight="dcg", reduction="sum_per_list")
    assert loss.item() == pytest.approx(0.3478967980)
    by_width = preference_loss(scores, labels, score="manual", pair_weight=DcgPairWeight(scale_by_list_size=True))
    assert by_width.item() == pytest.approx(loss.item())  # three pairs, width three
    natural = DcgPairWeight(log_base=math.e)(scores, labels)
    assert torch.allclose(natural, weights / math.log(2))
    assert DcgPairWeight(top=1)(scores, labels)[0, 0, 2] == 0
    parts = DcgPairWeight(by="gain")(scores, labels) * DcgPairWeight(by="discount")(scores, labels)
    assert torch.allclose(parts, weights)
    best = (2**1 - 1) + (2**0.5 - 1) / math.log2(3)
    assert torch.allclose(DcgPairWeight(normalize=True)(scores, labels), weights / best)


def test_lambda_sees_the_size_of_labels() -> None:
    """Paper 103, check 4."""
    scores, far, near = rows([0.2, 0.5, -0.1]), rows([0.99, 0.5, 0.01]), rows([0.51, 0.5, 0.49])
    losses = {n: replace(PREFERENCE_LOSSES[f"lipo_{n}"], score="manual") for n in ("lambda", "logistic", "list_mle")}
    assert losses["lambda"](scores, far).item() != pytest.approx(losses["lambda"](scores, near).item(), rel=0.1)
    for name in ("logistic", "list_mle"):
        assert losses[name](scores, far).item() == pytest.approx(losses[name](scores, near).item())


def test_alignment_by_hand() -> None:
    """Paper 59, checks 1 to 5: one positive -0.5, negatives -0.7 and -0.4."""
    scores = rows([-0.5, -0.7, -0.4]).requires_grad_()
    form = PreferenceForm(score="manual", structure="joint_pairs")

    def found(form: PreferenceForm) -> tuple[float, list[float]]:
        loss = form(scores, rows([1, 0, 0]))
        return loss.item(), torch.autograd.grad(loss, scores)[0][0].tolist()

    plain, slope = found(form)
    assert plain == pytest.approx(1.0729189131)
    assert min(slope[1:]) > 0
    detached, slope = found(replace(form, constraint="detach"))
    assert detached == pytest.approx(plain)
    assert slope == pytest.approx([-0.6580, 0, 0], abs=1e-4)
    held, slope = found(replace(form, constraint="boundary", boundary=0.2))
    assert held == pytest.approx(1.4699834321)
    assert slope == pytest.approx([-0.4424, 0, 0.1146], abs=1e-4)
    assert found(replace(form, constraint="boundary", boundary=50.0)) == (
        pytest.approx(plain),
        pytest.approx(found(form)[1]),
    )


def test_the_boundary_is_where_it_says() -> None:
    """Paper 59, check 7: free scores settle b + log(m + 1) / 2 apart."""
    for negatives, boundary in ((1, 0.2), (3, 0.1)):
        scores = torch.zeros(1, 1 + negatives, dtype=torch.float64, requires_grad=True)
        relevance = torch.zeros_like(scores).index_fill(1, torch.tensor([0]), 1.0)
        form = PreferenceForm(score="manual", structure="joint_pairs", constraint="boundary", boundary=boundary)
        for _ in range(60):
            (slope,) = torch.autograd.grad(form(scores, relevance), scores)
            scores = (scores - 1.5 * slope).detach().requires_grad_()
        gap = (scores[0, 0] - scores[0, 1]).item()
        assert gap == pytest.approx(boundary + 0.5 * math.log(negatives + 1), abs=1e-6)


def test_labels_from_preferences() -> None:
    """Paper 103, check 7."""
    order = torch.tensor([[0.5, 1, 1], [0, 0.5, 1], [0, 0, 0.5]])
    assert win_rate_labels(order).tolist() == pytest.approx([5 / 6, 1 / 2, 1 / 6])
    assert rank_labels(torch.tensor([1, 2, 3])).tolist() == pytest.approx([5 / 6, 1 / 2, 1 / 6])
    assert rank_labels(torch.tensor([1, 1])).tolist() == [0.5, 0.5]
    mask = torch.tensor([True, True, False])
    assert win_rate_labels(order, mask).tolist() == pytest.approx([0.75, 0.25, 0])
    for bad in (torch.ones(2, 3), 2 * torch.ones(2, 2)):
        with pytest.raises(RivalsError, match="preferences"):
            win_rate_labels(bad)


# ---------------------------------------------------------------------------------- identities


def test_two_responses_make_many_losses_one(duel: dict[str, Tensor]) -> None:
    dpo = value(duel)
    margins = preference_scores(duel["logps"], duel["ref_logps"]).diff(dim=1).squeeze(1)  # loser minus winner
    assert dpo == pytest.approx(F.softplus(margins).mean().item(), **EXACT)
    for structure in ("list_mle", "best_vs_rest", "joint_pairs", "suffixes", "softmax"):
        assert value(duel, structure=structure) == pytest.approx(dpo, **EXACT)
    hinge = value(duel, link="hinge")
    assert hinge == pytest.approx((1 + margins).clamp(min=0).mean().item(), **EXACT)
    npo = {name: tensor[:, 1:] for name, tensor in duel.items()}
    zeroed = {name: tensor.clone() for name, tensor in duel.items()}
    zeroed["logps"][:, 0] = zeroed["ref_logps"][:, 0] = -1.0
    winner_at_0 = 2 / 0.1 * value(zeroed)
    assert PREFERENCE_LOSSES["npo"](**npo).item() == pytest.approx(winner_at_0, **EXACT)


def test_losses_without_reference_meet(duel: dict[str, Tensor]) -> None:
    free = {name: tensor for name, tensor in duel.items() if name != "ref_logps"}
    cpo = value(free, score="log_prob")
    assert value(duel | {"ref_logps": torch.zeros(7, 2)}) == pytest.approx(cpo, **EXACT)
    assert value(duel, ref_weight=0.0) == pytest.approx(cpo, **EXACT)
    ones = free | {"lengths": torch.ones(7, 2)}
    assert value(ones, score="mean_log_prob") == pytest.approx(cpo, **EXACT)
    aft = value(free, score="mean_log_prob", beta=1.0, structure="joint_pairs")
    scores = free["logps"] / free["lengths"]
    assert aft == pytest.approx(F.softplus(scores[:, 1] - scores[:, 0]).mean().item(), **EXACT)
    flat = {name: tensor[:, 1:] for name, tensor in free.items()}
    flat["lengths"] = torch.full((7, 1), 4)
    npo = replace(PREFERENCE_LOSSES["npo"], beta=2.5 / 4)(**(flat | {"ref_logps": torch.zeros(7, 1)})).item()
    assert PREFERENCE_LOSSES["simnpo"](**flat).item() == pytest.approx(npo / 4, **EXACT)


def test_scores_make_it_a_ranking_loss(problem: dict[str, Tensor]) -> None:
    scores, relevance, mask = (problem[name] for name in ("logps", "relevance", "mask"))
    for loss, options in (
        (pairwise_logistic_loss, {}),
        (pairwise_hinge_loss, {"link": "hinge"}),
        (list_mle_loss, {"structure": "list_mle"}),
        (softmax_loss, {"structure": "softmax", "normalize_labels": False}),
    ):
        expected = loss(scores, relevance, mask).item()
        found = preference_loss(scores, relevance, mask=mask, score="manual", **options).item()  # type: ignore[arg-type]
        assert found == pytest.approx(expected, **EXACT)


def test_weights_of_one_change_nothing(problem: dict[str, Tensor]) -> None:
    plain = value(problem)
    assert value(problem, pair_weight=lambda s, r, m: torch.ones(7, 4, 4)) == pytest.approx(plain, **EXACT)
    assert value(problem, pair_weight="gate", gate_margin=1e6) == pytest.approx(plain, **EXACT)
    assert value(problem, pair_weight="gate", gate_margin=-1e6) == pytest.approx(0)
    assert value(problem, pair_weight="gate", gate_temperature=1e9) == pytest.approx(plain / 2)
    tied = problem | {"relevance": torch.ones(7, 4)}
    assert value(tied) == value(tied, structure="joint_pairs") == value(tied, structure="suffixes") == 0


def test_smoothing_and_sorting(duel: dict[str, Tensor]) -> None:
    e = 0.2
    right, wrong = value(duel), value(duel | {"relevance": 1 - duel["relevance"]})
    assert value(duel, label_smoothing=e) == pytest.approx((1 - e) * right + e * wrong, **EXACT)
    robust = value(duel, link="robust", label_smoothing=e)
    assert robust == pytest.approx(((1 - e) * right - e * wrong) / (1 - 2 * e), **EXACT)
    assert value(duel, link="robust") == pytest.approx(right, **EXACT)
    one = {name: tensor[:1] for name, tensor in duel.items()}
    for structure in ("sorted_margins", "sorted_scores"):
        assert value(one, structure=structure) == pytest.approx(value(one), **EXACT)
    none = preference_loss(**duel, structure="sorted_scores", reduction="none")
    margins = [preference_scores(duel["logps"], duel["ref_logps"])[:, i].sort().values for i in (0, 1)]
    assert torch.allclose(none, F.softplus(margins[1] - margins[0]))


def test_links_of_trl_without_a_recorded_value(duel: dict[str, Tensor]) -> None:
    """EXO, BCO and PRO on pairs, written out."""
    scores = preference_scores(duel["logps"], duel["ref_logps"])
    win, lose = scores.unbind(-1)
    z, e = win - lose, 0.01
    target = torch.tensor([1 - e, e], dtype=torch.float64).log()
    model = torch.stack([F.logsigmoid(z), F.logsigmoid(-z)], -1)
    divergence = (model.exp() * (model - target)).sum(-1).mean()
    assert value(duel, link="exo", label_smoothing=e) == pytest.approx(divergence.item(), **EXACT)
    point = scores.mean()
    bco = (F.softplus(point - win) + F.softplus(lose - point)).mean()
    assert PREFERENCE_LOSSES["bco"](**duel).item() == pytest.approx(bco.item(), **EXACT)
    graded = duel | {"relevance": torch.tensor([0.9, 0.2]).expand(7, 2)}
    pro = F.softplus(-(graded["relevance"][:, 0] - 0.2) * z).mean()
    assert value(graded, structure="suffixes") == pytest.approx(pro.item(), rel=1e-7)
    gap = value(graded, pair_weight="reward_gap")
    assert gap == pytest.approx(0.7 * value(graded), rel=1e-6)


def test_a_prompt_may_be_shifted(problem: dict[str, Tensor]) -> None:
    shift = -torch.arange(1.0, 8.0, dtype=torch.float64).unsqueeze(1)
    moved = problem | {"logps": problem["logps"] + shift}
    for score in ("log_ratio", "log_prob"):
        for structure in ("pairs", "joint_pairs", "best_vs_rest", "list_mle", "softmax"):
            for constraint in ("none", "detach", "boundary") if "pairs" in structure else ("none",):
                options = {"score": score, "structure": structure, "constraint": constraint}
                assert value(moved, **options) == pytest.approx(value(problem, **options), **EXACT)
    assert value(moved, score="mean_log_prob") != pytest.approx(value(problem, score="mean_log_prob"), rel=1e-6)


def test_only_the_log_probabilities_move(problem: dict[str, Tensor]) -> None:
    """References, lengths and weights carry no gradient."""
    leaves = {name: tensor.clone().double().requires_grad_() for name, tensor in problem.items() if name != "mask"}
    for form in (PREFERENCE_LOSSES["lipo_lambda"], PreferenceForm(score="mean_log_ratio", pair_weight="reward_gap")):
        found = torch.autograd.grad(form(**leaves, mask=problem["mask"]), list(leaves.values()), allow_unused=True)
        assert found[0] is not None
        assert all(gradient is None or not gradient.any() for gradient in found[1:])


def test_scores_by_their_keys() -> None:
    logps, reference, lengths = rows([-6, -3]), rows([-5, -4]), rows([2, 3])

    def scores(score: Any, **options: Any) -> list[float]:
        return preference_scores(logps, reference, lengths, score=score, **options)[0].tolist()

    assert scores("log_ratio", ref_weight=0.5) == pytest.approx([-0.35, -0.1])
    assert scores("log_prob") == pytest.approx([-0.6, -0.3])
    assert scores("mean_log_prob", length_exponent=2) == pytest.approx([-0.15, -0.1 / 3])
    assert scores("mean_log_ratio") == pytest.approx([-0.05, 0.1 / 3])
    assert scores("log_odds") == pytest.approx([-3 - math.log1p(-math.exp(-3)), -1 - math.log1p(-math.exp(-1))])
    assert scores("manual") == [-6, -3]
    sure = rows([0, -1]).requires_grad_()
    odds = preference_scores(sure, None, torch.ones(1, 2), score="log_odds")
    assert torch.autograd.grad(odds.sum(), sure)[0].isfinite().all()


def test_steps_of_unequal_advantage() -> None:
    """Paper 113, check 4: preferences by Bradley-Terry on advantages give the reference reweighted by exp(A / beta)."""
    beta, gap = 0.1, 0.05
    reference = torch.tensor([0.3, 0.7], dtype=torch.float64).log()
    orders = torch.eye(2, dtype=torch.float64)  # the first step preferred, then the second
    chance = torch.tensor([gap, -gap], dtype=torch.float64).sigmoid()
    form = replace(PREFERENCE_LOSSES["step_dpo"], beta=beta, reduction="none")
    ahead = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for _ in range(30):
        logps = torch.stack([ahead, torch.zeros_like(ahead)]).log_softmax(0).expand(2, 2)
        (slope,) = torch.autograd.grad(form(logps, orders, reference.expand(2, 2)) @ chance, ahead)
        ahead = (ahead - 4 / beta**2 * slope).detach().requires_grad_()
    assert ahead.item() == pytest.approx((reference[0] - reference[1]).item() + gap / beta, abs=1e-6)


def test_the_report() -> None:
    logps, reference = rows([-9, -8, -30], [-5, -7, 0]), rows([-12, -9, -1], [-1, -1, 0])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    report = preference_report(logps, rows([1, 0, 9], [1, 0, 9]), reference, mask=mask)
    assert [float(v) for v in report] == pytest.approx([2, 0.2, 1, 0.5, -7, -7.5])
    tied = preference_report(reference, rows([1, 0, 0], [1, 0, 0]), reference, mask=mask)
    assert tied.score_accuracy == 0  # the model is its reference: no gain yet
    assert [float(v) for v in preference_report(logps, torch.ones(2, 3), reference)] == [0] * 6


def test_the_exponential_link_stays_finite() -> None:
    logps = rows([-9000, -1]).requires_grad_()
    loss = preference_loss(logps, rows([1, 0]), score="manual", link="exponential")
    assert loss.isfinite()
    assert torch.autograd.grad(loss, logps)[0].isfinite().all()
