"""Predictive multiplicity: hand values, monotonicity, capacity by theory, and bad input."""

from __future__ import annotations

import numpy as np
import pytest

from rivals.diagnose import RashomonSet, mean_above_quantile, rank_ambiguity, rashomon_capacity
from rivals.errors import RivalsError

THREE = [[0.2, 0.6, 0.9], [0.3, 0.5, 0.9], [0.7, 0.4, 0.1]]


def opinions(seed=0, models=6, examples=40, classes=3):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((1, examples, classes)) * 2 + rng.standard_normal((models, examples, classes))
    powers = np.exp(logits)
    return powers / powers.sum(2, keepdims=True), rng.random(models)


def test_hand_values():
    found = RashomonSet(THREE, [0.75, 0.5, 0.25], epsilon=0.25)
    assert found.members.tolist() == [0, 1]  # the boundary is inside
    assert (found.baseline, found.ratio) == (0, 2 / 3)
    assert found.ambiguity(0.05) == found.discrepancy(0.05) == pytest.approx(2 / 3)
    np.testing.assert_allclose(found.viable_range(), [[0.2, 0.3], [0.5, 0.6], [0.9, 0.9]])
    assert found.ambiguity() == 0
    assert RashomonSet(THREE, [0.75, 0.5, 0.25], epsilon=0.25, strict=True).members.tolist() == [0]
    loss = RashomonSet(THREE, [0.2, 0.9, 0.2], higher_is_better=False)
    assert loss.members.tolist() == [0, 2]
    assert loss.ambiguity() == 1
    near = RashomonSet(THREE, [0.2, 0.9, 0.2], higher_is_better=False, reference=0.5, epsilon=0.4)
    assert near.members.tolist() == [0, 1, 2]


def test_one_member_has_no_conflict():
    alone = RashomonSet(THREE, [3, 2, 1])
    assert alone.ambiguity() == alone.discrepancy() == alone.ambiguity(0.0) == 0
    assert (np.ptp(alone.viable_range(), axis=1) == 0).all()
    assert alone.capacity().tolist() == [1, 1, 1]
    assert alone.report().members == 1
    twice = RashomonSet([THREE[0], THREE[0]])
    assert twice.ambiguity(0.0) == 1  # with ">=" every example conflicts at delta 0
    assert twice.ambiguity(0.01) == 0


@pytest.mark.parametrize("form", ["binary", "classes"])
def test_monotone_in_models_and_delta(form):
    p, scores = opinions(models=4, examples=12)
    targets = None if form == "binary" else np.zeros(12, dtype=int)
    p = p[..., 0] if form == "binary" else p
    sets = [RashomonSet(p[:m], scores[:m], epsilon=1, baseline=0) for m in range(1, 5)]
    figures = [
        [s.ambiguity(), s.discrepancy(), s.ambiguity(0.1), s.discrepancy(0.1), *np.ptp(s.viable_range(targets), axis=1)]
        for s in sets
    ]
    assert (np.diff(figures, axis=0) >= 0).all()
    assert (np.diff([s.capacity() for s in sets[1:]], axis=0) > -1e-3).all()
    deltas = [0.0, 0.05, 0.2, 0.5]
    for measure in (sets[-1].ambiguity, sets[-1].discrepancy):
        values = [measure(delta) for delta in deltas]
        assert values == sorted(values, reverse=True)
    assert all(sets[-1].ambiguity(delta) >= sets[-1].discrepancy(delta) for delta in (None, *deltas))


def test_duplicates_and_an_outside_baseline():
    p, _ = opinions(1)
    targets = np.arange(40) % 3
    base = p.mean(0)
    one = RashomonSet(p, baseline=base)
    two = RashomonSet(np.concatenate([p, p[2:4]]), baseline=base)
    assert one.baseline is None
    assert one.ambiguity() == two.ambiguity() == np.mean((p.argmax(2) != base.argmax(1)).any(0))
    assert one.discrepancy() == two.discrepancy() == (p.argmax(2) != base.argmax(1)).mean(1).max()
    np.testing.assert_array_equal(one.viable_range(targets), two.viable_range(targets))
    np.testing.assert_allclose(one.capacity(bits=True), two.capacity(bits=True), atol=1e-4)
    np.testing.assert_allclose(one.score_variance(targets), p[:, np.arange(40), targets].var(0))


def test_disagreement():
    def votes(*labels, classes=2):
        return RashomonSet(np.eye(classes)[list(labels)][:, None]).disagreement().item()

    assert votes(0, 0, 1, 1) == 1
    assert votes(0, 0, 0, 1) == 0.75
    assert votes(0, 1, 2, classes=3) == pytest.approx(1)
    assert votes(1, 1, 1, classes=3) == pytest.approx(0)
    binary = RashomonSet([[0.9], [0.2], [0.1], [0.4]])
    assert binary.disagreement().item() == 0.75


def test_capacity_by_theory():
    def of(*rows):
        return rashomon_capacity(np.array(rows)[:, None]).item()

    assert of((1, 0), (0, 1)) == pytest.approx(1)
    assert of((0.3, 0.7), (0.3, 0.7)) == pytest.approx(0, abs=1e-9)
    assert of((1, 0), (0, 1), (0.5, 0.5)) == pytest.approx(1, abs=1e-5)
    for e in (0.1, 0.3):
        entropy = -e * np.log2(e) - (1 - e) * np.log2(1 - e)
        assert of((1 - e, e), (e, 1 - e)) == pytest.approx(1 - entropy, abs=1e-6)
    assert of(*np.eye(5)) == pytest.approx(np.log2(5))
    # A Z channel: the second input comes through with probability 1/2; its capacity is log2(5/4).
    assert of((1, 0), (0.5, 0.5)) == pytest.approx(np.log2(1.25), abs=1e-4)
    many = np.random.default_rng(0).dirichlet(np.full(300, 0.01), size=(4, 3))
    assert np.isfinite(rashomon_capacity(many)).all()


def test_rank_ambiguity():
    scores = np.array([[[3.0, 2, 1, 9]], [[3.0, 1, 2, 9]], [[1.0, 3, 2, 9]]])
    mask = np.array([[True, True, True, False]])
    ambiguity, discrepancy = rank_ambiguity(scores, mask, k=1)
    assert (ambiguity, discrepancy) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert rank_ambiguity(scores[:2], mask, k=1) == (0, 0)
    assert rank_ambiguity(scores, mask, k=3) == (0, 0)


def test_mean_above_quantile():
    values = [0.25408, 0.22101, 0.02796, 0.18763, 0.08434]
    assert mean_above_quantile(values, 0.5) == pytest.approx(np.mean([0.25408, 0.22101, 0.18763]))
    assert mean_above_quantile(values, 0) == pytest.approx(np.mean(values))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RashomonSet([0.5]), "must be \\[models, examples\\]"),
        (lambda: RashomonSet(np.zeros((0, 3))), "no model"),
        (lambda: RashomonSet([[1.5]]), "0..1"),
        (lambda: RashomonSet([[[0.5, 0.4]]]), "sum to 1"),
        (lambda: RashomonSet(THREE, [1, 2]), "one number for each"),
        (lambda: RashomonSet(THREE, [1, 2, np.nan]), "without NaN"),
        (lambda: RashomonSet(THREE, epsilon=-1), "epsilon is -1"),
        (lambda: RashomonSet(THREE, baseline=3), "baseline is 3"),
        (lambda: RashomonSet(THREE, baseline=[0.1, 0.2]), "baseline has shape"),
        (lambda: RashomonSet(THREE, [1, 1, 1], strict=True), "no model is inside"),
        (lambda: RashomonSet(THREE).ambiguity(1.5), "delta is 1.5"),
        (lambda: RashomonSet([[[0.5, 0.5]]]).viable_range(), "give targets"),
        (lambda: RashomonSet([[[0.5, 0.5]]]).viable_range([2]), "targets must be"),
        (lambda: rashomon_capacity([[0.5]]), "must be \\[models"),
        (lambda: rank_ambiguity(np.zeros((2, 3)), k=1), "models, queries, candidates"),
        (lambda: rank_ambiguity(np.zeros((2, 1, 3)), k=0), "k is 0"),
        (lambda: rank_ambiguity(np.zeros((2, 1, 3)), k=1, baseline=2), "baseline is 2"),
        (lambda: rank_ambiguity(np.full((2, 1, 3), np.nan), k=1), "NaN"),
        (lambda: rank_ambiguity(np.zeros((2, 1, 3)), np.ones((1, 2), dtype=bool), k=1), "mask must be"),
        (lambda: mean_above_quantile([], 0.5), "at least one"),
        (lambda: mean_above_quantile([1.0], 2), "quantile is 2"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(RivalsError, match=message):
        call()
