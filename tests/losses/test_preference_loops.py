"""Preference losses on lists of several responses against a computation by loops, straight from the formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rivals.losses import PreferenceForm, preference_scores


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


LINKS = {
    "logistic": lambda z, beta: softplus(-z),
    "hinge": lambda z, beta: max(0.0, 1 - z),
    "perceptron": lambda z, beta: max(0.0, -z),
    "square": lambda z, beta: (z / beta - 1 / (2 * beta)) ** 2,
    "exponential": lambda z, beta: math.exp(-z),
    "sigmoid": lambda z, beta: 1 - 1 / (1 + math.exp(-z)),
    "identity": lambda z, beta: -z,
}


def loops(form: PreferenceForm, scores: list[float], labels: list[float]) -> tuple[float, int]:
    """A list's sum and number of terms, straight from the formulas."""
    everyone = range(len(scores))
    pairs = [(i, j) for i in everyone for j in everyone if labels[i] > labels[j]]
    margin = {(i, j): scores[i] - scores[j] - form.margin for i, j in pairs}
    link = LINKS.get(form.link, LINKS["logistic"])
    if form.structure == "pairs":
        return sum(link(margin[pair], form.beta) for pair in pairs), len(pairs)
    if form.structure == "joint_pairs":
        total = sum(math.exp(-margin[pair]) for pair in pairs)
        if form.constraint == "boundary":
            for _, j in pairs:
                worst = min(scores[i] for i, k in pairs if k == j)
                total += math.exp(worst - 2 * form.boundary - scores[j])
        return math.log1p(total), int(bool(pairs))
    if form.structure == "suffixes":
        total = 0.0
        for i in everyone:
            worse = [j for j in everyone if labels[j] < labels[i]]
            if worse:
                top = scores[i] * max(labels[i] - labels[j] for j in worse)
                rest = sum(math.exp(scores[j] * (labels[i] - labels[j])) for j in worse)
                total += math.log(form.epsilon + math.exp(top) + rest) - top
        return total, int(bool(pairs))
    if form.link == "squared_error":
        return sum((y - s) ** 2 for s, y in zip(scores, labels, strict=True)), len(scores)
    if form.link == "cross_entropy":
        return sum(y * softplus(-s) + (1 - y) * softplus(s) for s, y in zip(scores, labels, strict=True)), len(scores)
    if form.link == "nca":
        total = sum(y / sum(labels) * softplus(-s) for s, y in zip(scores, labels, strict=True))
        return total + sum(softplus(s) for s in scores) / len(scores), len(scores)
    point = float(form.reference_point) * form.beta
    total = 0.0
    for s, y in zip(scores, labels, strict=True):
        weight = form.positive_weight if y > 0 else form.negative_weight
        total += weight * link((s - point if y > 0 else point - s) - form.margin, form.beta)
    return total, len(scores)


FORMS = [
    *(PreferenceForm(link=link, margin=0.3, beta=0.4) for link in LINKS),  # type: ignore[arg-type]
    PreferenceForm(structure="joint_pairs", score="mean_log_prob", beta=1.5, margin=0.2),
    PreferenceForm(structure="joint_pairs", constraint="boundary", boundary=0.3),
    PreferenceForm(structure="suffixes", score="log_prob", epsilon=0.5),
    PreferenceForm(structure="pointwise", link="sigmoid", reference_point=0.7, positive_weight=1.5, margin=0.1),
    PreferenceForm(structure="pointwise", link="square", negative_weight=0.5),
    PreferenceForm(structure="pointwise", link="squared_error", score="mean_log_ratio"),
    PreferenceForm(structure="pointwise", link="cross_entropy"),
    PreferenceForm(structure="pointwise", link="nca", beta=1.0),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.structure}-{form.link}-{form.constraint}")
def test_against_loops(problem: dict[str, Tensor], form: PreferenceForm) -> None:
    if form.structure == "pointwise" and form.link in LINKS:
        problem["relevance"] = (problem["relevance"] > 0.5).double()
    tensors = (problem[name] for name in ("logps", "ref_logps", "lengths", "mask"))
    scores = preference_scores(
        *tensors, score=form.score, beta=form.beta, ref_weight=form.ref_weight, length_exponent=form.length_exponent
    )
    found = []
    for row in range(7):
        there = problem["mask"][row]
        found.append(loops(form, scores[row][there].tolist(), problem["relevance"][row][there].tolist()))
    totals, counts = zip(*found, strict=True)
    assert replace(form, reduction="none")(**problem).tolist() == pytest.approx(totals)
    assert replace(form, reduction="sum")(**problem).item() == pytest.approx(sum(totals))
    assert form(**problem).item() == pytest.approx(sum(totals) / sum(counts))
    with_term = sum(count > 0 for count in counts)
    assert replace(form, reduction="sum_per_list")(**problem).item() == pytest.approx(sum(totals) / with_term)
    shares = sum(total / count for total, count in found if count)
    assert replace(form, reduction="list_mean")(**problem).item() == pytest.approx(shares / with_term)
