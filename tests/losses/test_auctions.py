"""Welfare ranking (paper 53): definitions by loops, unbiasedness in clicks, the collapse of the signed form, the laws."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from rivals.errors import RivalsError
from rivals.losses import welfare_rank_loss
from rivals.measures.money import welfare, welfare_ratio, welfare_regret

torch.manual_seed(0)
RATES = torch.rand(3, 5, dtype=torch.float64) * 0.9 + 0.05
BIDS = torch.rand(3, 5, dtype=torch.float64) * 4 + 0.5
CLICKS = (torch.rand(3, 5) < 0.5).double()
MASK = torch.tensor([[True] * 5, [True, True, True, False, True], [True, False, False, False, False]])


def by_loops(rates, clicks, bids, mask, weighting, surrogate, sigma) -> float:
    values = []
    for f, t, b, m in zip(rates.tolist(), clicks.tolist(), bids.tolist(), mask.tolist(), strict=True):
        total, number = 0.0, 0
        for i, j in itertools.permutations([k for k in range(len(f)) if m[k]], 2):
            vi, vj = b[i] * t[i], b[j] * t[j]
            weight = {"value": vi, "positive_difference": max(vi - vj, 0.0), "signed": vi - vj}[weighting]
            number += weighting == "signed" or weight > 0
            d = sigma * (b[i] * f[i] - b[j] * f[j])
            total += weight * (math.log1p(math.exp(-d)) if surrogate == "logistic" else max(0.0, 1 - d))
        if number:
            values.append(total / number)
    return sum(values) / len(values)


@pytest.mark.parametrize("weighting", ["value", "positive_difference", "signed"])
@pytest.mark.parametrize("surrogate", ["logistic", "hinge"])
@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_the_definition(weighting: str, surrogate: str, sigma: float) -> None:
    found = welfare_rank_loss(
        RATES, CLICKS, MASK, value=BIDS, weighting=weighting, surrogate=surrogate, sigma=sigma, normalize_value=False
    )
    assert found.item() == pytest.approx(by_loops(RATES, CLICKS, BIDS, MASK, weighting, surrogate, sigma), rel=1e-9)


def test_clicks_are_unbiased_under_value_weights_only() -> None:
    rates, truth, bids = RATES[:1, :3], torch.tensor([[0.2, 0.5, 0.7]], dtype=torch.float64), BIDS[:1, :3]

    def total(labels, weighting):
        return welfare_rank_loss(
            rates, labels, value=bids, weighting=weighting, reduction="sum", normalize_value=False
        ).item()

    for weighting, unbiased in (("value", True), ("positive_difference", False)):
        expected = 0.0
        for clicks in itertools.product((0.0, 1.0), repeat=3):
            chance = math.prod(p if c else 1 - p for p, c in zip(truth[0].tolist(), clicks, strict=True))
            expected += chance * total(torch.tensor([clicks], dtype=torch.float64), weighting)
        assert (expected == pytest.approx(total(truth, weighting), rel=1e-9)) is unbiased


def test_the_signed_logistic_form_collapses_to_a_line() -> None:
    found = welfare_rank_loss(
        RATES[:1], CLICKS[:1], value=BIDS[:1], weighting="signed", sigma=2.0, reduction="sum", normalize_value=False
    )
    v, z = (BIDS * CLICKS)[0], (BIDS * RATES)[0]
    pairs = torch.combinations(torch.arange(5))
    line = -2.0 * ((v[pairs[:, 0]] - v[pairs[:, 1]]) * (z[pairs[:, 0]] - z[pairs[:, 1]])).sum()
    torch.testing.assert_close(found, line)


def test_defaults_follow_the_labels_and_bids_may_be_scaled() -> None:
    clicks = welfare_rank_loss(RATES, CLICKS, value=BIDS)
    torch.testing.assert_close(clicks, welfare_rank_loss(RATES, CLICKS, value=7 * BIDS, weighting="value"))
    teacher = welfare_rank_loss(RATES, CLICKS, value=BIDS, labels="teacher")
    torch.testing.assert_close(teacher, welfare_rank_loss(RATES, CLICKS, value=BIDS, weighting="positive_difference"))
    logits = torch.logit(RATES)
    torch.testing.assert_close(welfare_rank_loss(logits, CLICKS, value=BIDS, from_logits=True), clicks)


@pytest.mark.parametrize("weighting", ["value", "positive_difference"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "list_mean"])
def test_laws(weighting: str, reduction: str) -> None:
    options = {"weighting": weighting, "reduction": reduction}
    value = welfare_rank_loss(RATES, CLICKS, MASK, value=BIDS, **options)
    order = torch.tensor([4, 2, 0, 1, 3])
    again = welfare_rank_loss(RATES[:, order], CLICKS[:, order], MASK[:, order], value=BIDS[:, order], **options)
    torch.testing.assert_close(again, value)
    wide = [torch.cat([t, torch.full((3, 1), math.nan, dtype=t.dtype)], 1) for t in (RATES, CLICKS, BIDS)]
    mask = torch.cat([MASK, torch.zeros(3, 1, dtype=torch.bool)], 1)
    torch.testing.assert_close(welfare_rank_loss(wide[0], wide[1], mask, value=wide[2], **options), value)
    longer = [torch.cat([t, torch.ones(1, 5, dtype=t.dtype)]) for t in (RATES, CLICKS, BIDS)]
    mask = torch.cat([MASK, torch.zeros(1, 5, dtype=torch.bool)])
    torch.testing.assert_close(welfare_rank_loss(longer[0], longer[1], mask, value=longer[2], **options), value)
    leaf = RATES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: welfare_rank_loss(s, CLICKS, MASK, value=BIDS, **options), leaf)
    (gradient,) = torch.autograd.grad(welfare_rank_loss(leaf, CLICKS, MASK, value=BIDS, **options), leaf)
    assert (gradient[~MASK] == 0).all()


def test_none_sums_to_sum_and_half_precision_is_finite() -> None:
    none = welfare_rank_loss(RATES, CLICKS, MASK, value=BIDS, reduction="none")
    torch.testing.assert_close(none.sum(), welfare_rank_loss(RATES, CLICKS, MASK, value=BIDS, reduction="sum"))
    for dtype in (torch.bfloat16, torch.float16):
        big = welfare_rank_loss(RATES.to(dtype), CLICKS, value=BIDS.to(dtype) * 1e3, normalize_value=False)
        assert torch.isfinite(big)
        assert big.dtype == torch.float32


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"value": -BIDS}, "value"),
        ({"value": BIDS * 0}, "value"),
        ({"value": BIDS[:2]}, "value"),
        ({"relevance": CLICKS * 2}, "relevance"),
        ({"scores": RATES * 9}, "scores"),
        ({"sigma": 0.0}, "sigma"),
        ({"labels": "guesses"}, "labels"),
        ({"weighting": "all"}, "weighting"),
        ({"surrogate": "cubic"}, "surrogate"),
        ({"reduction": "median"}, "reduction"),
    ],
)
def test_bad_input(changed: dict, name: str) -> None:
    with pytest.raises(RivalsError, match=name):
        welfare_rank_loss(**({"scores": RATES, "relevance": CLICKS, "value": BIDS} | changed))


def test_welfare_of_an_ordering() -> None:
    scores, rate, bid = (torch.tensor([row]) for row in ([0.1, 0.9, 0.5], [0.5, 0.2, 0.9], [1.0, 2.0, 3.0]))
    assert welfare(scores, rate, bid).item() == pytest.approx(0.4)
    assert welfare_regret(scores, rate, bid).item() == pytest.approx(2.7 - 0.4)
    assert welfare_ratio(scores, rate, bid).item() == pytest.approx(0.4 / 2.7)
    assert welfare(scores, rate, bid, slots=2, position_weights=[1.0, 0.5]).item() == pytest.approx(0.4 + 1.35)
    assert welfare(scores, rate, bid, torch.zeros(1, 3, dtype=torch.bool)).item() == 0
    assert welfare_ratio(scores.numpy(), rate.numpy(), bid.numpy()).shape == (1,)
    for bad in ({"slots": 0}, {"slots": 2, "position_weights": [1.0]}):
        with pytest.raises(RivalsError):
            welfare(scores, rate, bid, **bad)
    with pytest.raises(RivalsError, match="rate"):
        welfare(scores, rate[:, :2], bid)
