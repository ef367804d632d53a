"""Second-order predictions: losses, uncertainty and the impossibility of rewarding their spread (paper 72)."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.diagnose.properness import check_epistemic_decay, check_second_order_properness
from rivals.diagnose.second_order import (
    Dirichlet,
    Samples,
    dirichlet_kl,
    energy_score,
    second_order_loss,
    uncertainty,
)
from rivals.errors import RivalsError

ONES = Dirichlet(torch.ones(1, 2, dtype=torch.float64))
ZERO = torch.tensor([0])


@pytest.mark.parametrize(
    ("kind", "base", "value"),
    [("inner", "log", 1.0), ("outer", "log", math.log(2)), ("inner", "brier", 2 / 3), ("outer", "brier", 0.5)],
)
def test_losses_by_hand(kind, base, value) -> None:
    """Check 1."""
    assert float(second_order_loss(ONES, ZERO, kind=kind, base=base)) == pytest.approx(value, rel=1e-12)


def test_uncertainty_by_hand() -> None:
    """Check 2."""
    assert [float(part) for part in uncertainty(ONES)] == pytest.approx([math.log(2), 0.5, math.log(2) - 0.5])
    assert [float(part) for part in uncertainty(ONES, "variance")] == pytest.approx([0.5, 1 / 3, 1 / 6])


def test_divergences_by_hand() -> None:
    """Check 3; the entropy of the uniform distribution on two classes is 0, on three -log 2."""
    ones = torch.ones(1, 2)
    assert float(dirichlet_kl(ones, ones)) == 0
    assert float(dirichlet_kl(2 * ones, ones)) == pytest.approx(math.log(6) - 5 / 3)
    three = Dirichlet(torch.tensor([[0.5, 2.0, 4.0]], dtype=torch.float64))
    plain = float(second_order_loss(three, ZERO))
    entropy = torch.distributions.Dirichlet(three.alpha).entropy()
    assert float(second_order_loss(three, ZERO, regulariser="entropy", strength=2.0)) == pytest.approx(
        plain - 2 * float(entropy)
    )
    prior = Dirichlet(torch.tensor([[1.0, 1.0, 3.0]], dtype=torch.float64))
    wanted = torch.distributions.kl_divergence(
        torch.distributions.Dirichlet(three.alpha), torch.distributions.Dirichlet(prior.alpha)
    )
    assert float(second_order_loss(three, ZERO, regulariser=prior, strength=1.0)) == pytest.approx(
        plain + float(wanted)
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.05, 200), min_size=2, max_size=6), st.sampled_from(["log", "brier"]), st.data())
def test_the_mean_of_losses_is_no_less_than_the_loss_of_the_mean(alpha, base, data) -> None:
    """Check 4: with equality, and no epistemic uncertainty, as alpha grows."""
    target = torch.tensor([data.draw(st.integers(0, len(alpha) - 1))])
    q = Dirichlet(torch.tensor([alpha], dtype=torch.float64))
    inner, outer = (float(second_order_loss(q, target, kind=kind, base=base)) for kind in ("inner", "outer"))
    assert inner >= outer - 1e-12
    large = Dirichlet(q.alpha * 1e7)
    inner, outer = (float(second_order_loss(large, target, kind=kind, base=base)) for kind in ("inner", "outer"))
    assert inner == pytest.approx(outer, abs=1e-3 / min(alpha))
    for measure in ("entropy", "variance"):
        total, aleatoric, epistemic = uncertainty(q, measure)
        assert epistemic >= 0
        assert float(total) == pytest.approx(float(aleatoric + epistemic))
        assert float(uncertainty(large, measure).epistemic) < 1e-4


def test_many_samples_give_the_closed_forms() -> None:
    """Check 5."""
    q = Dirichlet(torch.tensor([[2.0, 1.0, 0.7], [5.0, 5.0, 1.0]], dtype=torch.float64))
    drawn = q.draw(200_000, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 2])
    for kind in ("inner", "outer"):
        for base in ("log", "brier"):
            a, b = (second_order_loss(x, targets, kind=kind, base=base, reduction="none") for x in (q, drawn))
            assert b.tolist() == pytest.approx(a.tolist(), rel=1e-2)
    for measure in ("entropy", "variance"):
        for a, b in zip(uncertainty(q, measure), uncertainty(drawn, measure), strict=True):
            assert b.tolist() == pytest.approx(a.tolist(), rel=1e-2)


def test_members_of_a_rashomon_set_are_samples() -> None:
    same = Samples(torch.tensor([[[0.3, 0.7]]] * 4))
    assert float(uncertainty(same).epistemic) == pytest.approx(0, abs=1e-12)
    single = Samples(torch.tensor([[[0.3, 0.7], [1.0, 0.0]]]))
    assert uncertainty(single).epistemic.tolist() == [0, 0]
    assert float(second_order_loss(single, torch.tensor([0, 0]), kind="inner")) == pytest.approx(-math.log(0.3) / 2)
    assert energy_score(single, torch.tensor([[0.3, 0.7], [0.0, 1.0]])).tolist() == pytest.approx(
        [0, math.sqrt(2)], abs=1e-7
    )


def test_gradients_drive_the_spread_to_nothing() -> None:
    """F2: the inner loss keeps raising alpha; a KL term stops it, at a place set by its strength."""
    ends = {}
    for strength in (0.0, 0.1, 1.0):
        raw = torch.zeros(1, 2, requires_grad=True)
        optimizer = torch.optim.Adam([raw], lr=0.05)
        for _ in range(400):
            optimizer.zero_grad()
            q = Dirichlet(raw.exp().expand(2, 2))
            second_order_loss(q, torch.tensor([0, 1]), regulariser="kl_uniform", strength=strength).backward()
            optimizer.step()
        ends[strength] = float(raw.detach().exp().sum())
    assert ends[0.0] > 100  # and still growing
    assert ends[0.1] == pytest.approx(12, rel=1e-4)  # 2 + 1 / strength, for labels half and half
    assert ends[1.0] == pytest.approx(3, rel=1e-4)


# ------------------------------------------------------------------------------------------------ the checks


def family(*sizes: float) -> list[Dirichlet]:
    return [Dirichlet(torch.full((1, 2), size, dtype=torch.float64)) for size in sizes]


TRUTHS = family(1.0, 100.0, 1e8)
CANDIDATES = family(*np.logspace(-1, 3, 17))


@pytest.mark.parametrize("kind", ["inner", "outer"])
@pytest.mark.parametrize("base", ["log", "brier"])
@pytest.mark.parametrize("regulariser", [None, "entropy", "kl_uniform"])
def test_no_loss_of_labels_sees_the_spread(kind, base, regulariser) -> None:
    """Check 6, F1 to F4."""

    def loss(q, y):
        strength = 0.0 if regulariser is None else 0.1
        return second_order_loss(q, y, kind=kind, base=base, regulariser=regulariser, strength=strength)

    report = check_second_order_properness(loss, TRUTHS, CANDIDATES)
    assert not report.depends_on_truth
    assert report.counterexample == (0, 1)
    assert report.expected[0] == pytest.approx(report.expected[1])
    if regulariser is None and kind == "inner":
        assert report.minimisers[0] == (16,)
        assert (np.diff(report.expected[0]) < 0).all()
    if regulariser is None and kind == "outer":
        assert report.minimisers[0] == tuple(range(17))
        if base == "log":
            assert report.expected[0] == pytest.approx([math.log(2)] * 17)
    if regulariser == "kl_uniform" and kind == "inner" and base == "log":
        assert 0 < report.minimisers[0][0] < 16
    json.dumps(report.to_json())
    assert "does not reward the true spread" in str(report)


def test_any_loss_of_labels_fails() -> None:
    """A loss made up on the spot, which even looks at the spread."""

    def invented(q, y):
        return (uncertainty(q).epistemic - 0.1 * y) ** 2 + second_order_loss(q, y) / 10

    report = check_second_order_properness(invented, TRUTHS, CANDIDATES)
    assert not report.depends_on_truth
    assert report.counterexample is not None


def test_scores_of_observed_probabilities_find_the_spread() -> None:
    """Check 6: the energy score prefers the true distribution."""
    candidates = CANDIDATES[::2]
    draw = torch.Generator().manual_seed(0)
    drawn = {id(q): q.draw(300, generator=draw) for q in candidates}
    report = check_second_order_properness(
        lambda q, p: energy_score(drawn[id(q)], p),
        family(1.0, 10.0, 100.0),
        candidates,
        observe="probabilities",
        draws=150,
    )
    assert report.depends_on_truth
    assert report.counterexample is None
    for (low, high), true in zip(report.optimal_spread, report.true_spread, strict=True):
        assert true / 2 < low <= high < true * 2
    assert "follows the truth" in str(report)


def test_truths_may_be_samples() -> None:
    near = TRUTHS[0].draw(4000, generator=torch.Generator().manual_seed(0))
    report = check_second_order_properness(second_order_loss, [near, TRUTHS[2]], CANDIDATES)
    assert not report.depends_on_truth


def test_an_honest_learner_grows_sure() -> None:
    def fixed(size: int) -> Dirichlet:
        return Dirichlet(torch.tensor([[3.0, 7.0]]))

    def bayes(size: int) -> Dirichlet:
        return Dirichlet(torch.tensor([[1 + 0.3 * size, 1 + 0.7 * size]]))

    assert check_epistemic_decay(fixed, [20, 200, 2000]).slope == pytest.approx(0, abs=1e-9)
    decay = check_epistemic_decay(bayes, [20, 200, 2000])
    assert decay.slope == pytest.approx(-1, abs=0.1)
    assert decay.epistemic[0] > 50 * decay.epistemic[2]
    json.dumps(decay.to_json())


def test_errors() -> None:
    for alpha in (torch.ones(2), torch.ones(1, 1), torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, torch.inf]])):
        with pytest.raises(RivalsError, match="alpha must be"):
            Dirichlet(alpha)
    for p in (torch.ones(1, 2), torch.ones(0, 1, 2), torch.ones(1, 1, 2), torch.tensor([[[1.5, -0.5]]])):
        with pytest.raises(RivalsError, match="probabilities must be"):
            Samples(p)
    with pytest.raises(RivalsError, match="kind must be"):
        second_order_loss(ONES, ZERO, kind="middle")
    with pytest.raises(RivalsError, match="targets must be int"):
        second_order_loss(ONES, torch.tensor([0.0]))
    with pytest.raises(RivalsError, match=r"lie in 0\.\.1"):
        second_order_loss(ONES, torch.tensor([2]))
    with pytest.raises(RivalsError, match="goes with a regulariser"):
        second_order_loss(ONES, ZERO, strength=1.0)
    with pytest.raises(RivalsError, match="which Samples do not have"):
        second_order_loss(Samples(torch.tensor([[[0.5, 0.5]]])), ZERO, regulariser="entropy", strength=1.0)
    with pytest.raises(RivalsError, match="the prior must have"):
        second_order_loss(ONES, ZERO, regulariser=Dirichlet(torch.ones(1, 3)), strength=1.0)
    with pytest.raises(RivalsError, match="measure must be"):
        uncertainty(ONES, "range")
    with pytest.raises(RivalsError, match="two or more truths"):
        check_second_order_properness(second_order_loss, TRUTHS[:1], CANDIDATES)
    skew = Dirichlet(torch.tensor([[1.0, 3.0]]))
    with pytest.raises(RivalsError, match="the same mean"):
        check_second_order_properness(second_order_loss, [TRUTHS[0], skew], CANDIDATES)
    with pytest.raises(RivalsError, match="rising numbers"):
        check_epistemic_decay(lambda size: ONES, [10, 10])
    with pytest.raises(RivalsError, match="observed must have shape"):
        energy_score(Samples(torch.tensor([[[0.5, 0.5]]])), torch.ones(2, 2))
