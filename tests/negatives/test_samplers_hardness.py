"""Resampling by false-negative probability (paper 20), self-adversarial weights, mixtures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from rivals.data import Collection, Run
from rivals.data.run import concatenate
from rivals.errors import RivalsError
from rivals.negatives import Ambiguous, Draw, Sampler, Softmax, Top, Uniform
from rivals.negatives.samplers_hardness import Mixture, Resample, SelfAdversarial
from rivals.negatives.samplers_schedule import Rotate
from rivals.negatives.strided import Strided

SAMPLERS: list[Sampler] = [
    Resample(2),
    Resample(3, gamma=2.5, base=Softmax(1, window=4, temperature=0.2)),
    Resample(2, gamma=0.5, base=Uniform(2, skip=1)),
    SelfAdversarial(2, temperature=0.5),
    SelfAdversarial(3, window=4, skip=1),
    Mixture([(Top(2), 1), (Uniform(1), 3)], k=3),
    Mixture([(Softmax(1, window=3), 0.2), (Uniform(1, skip=2, window=3), 0.8)], k=2),
]


def repeated(scores: list[float], times: int, **columns: list[float]) -> Run:
    """The same list for many queries: one draw gives `times` samples."""
    n = len(scores)
    return Run.build(
        Collection([f"q{i}" for i in range(times)], name="query"),
        Collection([f"d{i}" for i in range(n)]),
        np.arange(times + 1) * n,
        np.tile(np.arange(n), times),
        np.tile(np.float32(scores), times),
        columns={name: np.tile(column, times) for name, column in columns.items()},
    )


# ----------------------------------------------------------------------------------------------------------- resampling


def test_by_hand() -> None:
    """Card 20, check 4."""
    run = repeated(np.log([0.5, 0.3, 0.2]).tolist(), 1, fn_probability=[0.8, 0.1, 0.0])
    assert Resample(1).probabilities(run) == pytest.approx([0.175439, 0.473684, 0.350877], abs=1e-6)
    assert Resample(1, gamma=2.0).probabilities(run) == pytest.approx(np.array([0.02, 0.243, 0.2]) / 0.463, abs=1e-6)


def test_gamma_zero_is_the_base_and_certain_positives_are_never_drawn() -> None:
    """Card 20, check 3."""
    run = repeated([0.9, 0.5, 0.1, 0.0], 2000, fn_probability=[1.0, 0.3, 0.2, 0.9])
    base = Softmax(1, window=3, temperature=0.4)
    assert Resample(1, gamma=0.0, base=base).probabilities(run) == pytest.approx(base.probabilities(run))
    draw = Resample(3, base=base).draw(run, np.random.default_rng(0))
    assert draw.mask.sum(1).tolist() == [2] * 2000
    assert not (draw.candidate == 0).any()
    assert not (draw.candidate == 3).any()  # outside the base's window


def test_draws_follow_the_product() -> None:
    times = 20_000
    run = repeated([1.0, 0.4, 0.1, -0.8], times, fn_probability=[0.9, 0.5, 0.0, 0.2])
    sampler = Resample(2, gamma=1.5, base=Softmax(1, window=None, temperature=0.7))
    draw = sampler.draw(run, np.random.default_rng(5))
    expected = sampler.probabilities(run)[:4]
    weights = np.exp(np.array([1.0, 0.4, 0.1, -0.8]) / 0.7) * (1 - np.array([0.9, 0.5, 0.0, 0.2])) ** 1.5
    assert expected == pytest.approx(weights / weights.sum(), rel=1e-5)
    assert chisquare(np.bincount(draw.candidate[:, 0], minlength=4), expected * times).pvalue > 1e-3
    assert np.exp(draw.log_probability[:, 0]) == pytest.approx(expected[draw.candidate[:, 0]], rel=1e-4)


def test_ambiguous_weights_as_base(make_run) -> None:
    run = make_run([[0.8, 0.7, 0.6, 0.2]], [[0]])
    run = run.mark(run.document == 0, "known").replace(fn_probability=[np.nan, 0.5, 0.0, 0.0])
    base = Ambiguous(1, a=50)
    expected = base.probabilities(run) * np.array([0, 0.5, 1, 1])
    assert Resample(1, base=base).probabilities(run) == pytest.approx(expected / expected.sum())


def test_no_mass_falls_back_to_the_base_with_a_warning() -> None:
    run = repeated([1.0, 0.0], 2, fn_probability=[1.0, 1.0])
    run = run.replace(fn_probability=[1.0, 1.0, 0.0, 1.0])
    with pytest.warns(UserWarning, match="1 of 2 queries have only candidates with fn_probability 1"):
        probability = Resample(1).probabilities(run)
    assert probability == pytest.approx([0.731059, 0.268941, 1, 0], abs=1e-6)


def test_bad_resampling(make_run) -> None:
    plain = make_run([[0.9, 0.8]])
    doubts = plain.replace(fn_probability=[0.1, 1.5])
    for make, said in (
        (lambda: Resample(1, gamma=-1), "gamma must be"),
        (lambda: Resample(1, gamma=float("nan")), "gamma must be"),
        (lambda: Resample(1).probabilities(plain), r"query 'q0': a candidate's fn_probability is nan \(2 of 2"),
        (lambda: Resample(1).probabilities(doubts), "fn_probability is 1.5"),
        (lambda: Resample(1, base=Top(1)).probabilities(plain), r"Top\(1\) draws for certain"),
        (lambda: Resample(1, base=Softmax(1, keep_top1=True)).probabilities(plain), "draws for certain"),
    ):
        with pytest.raises(RivalsError, match=said):
            make()


# ------------------------------------------------------------------------------------------------------ self-adversarial


def test_weights_are_a_softmax_over_what_was_drawn() -> None:
    run = repeated([2.0, 1.0, 0.0, -1.0], 500, weight=[1.0, 1.0, 2.0, 1.0])
    draw = SelfAdversarial(3, temperature=0.5).draw(run, np.random.default_rng(0))
    score = np.array([2.0, 1.0, 0.0, -1.0])[draw.candidate]
    share = np.exp(score / 0.5) / np.exp(score / 0.5).sum(1, keepdims=True)
    assert draw.weight == pytest.approx(3 * share * np.array([1, 1, 2, 1])[draw.candidate], rel=1e-5)
    assert (np.bincount(draw.candidate.ravel()) > 300).all()  # drawn alike


def test_large_temperatures_weigh_all_alike_and_short_lists_are_fine(make_run) -> None:
    draw = SelfAdversarial(4, temperature=1e6).draw(make_run([[0.9, 0.1, 0.5]]), np.random.default_rng(0))
    assert draw.weight[0] == pytest.approx([1, 1, 1, 0], abs=1e-5)
    run = make_run([[0.9, 0.1]]).mark(np.array([True, True]), "a rule")
    empty = SelfAdversarial(2).draw_available(run, np.random.default_rng(0))
    assert empty.weight.tolist() == [[0, 0]]
    far = SelfAdversarial(2, temperature=1e-3).draw(make_run([[1e4, -1e4]]), np.random.default_rng(0))
    assert sorted(far.weight[0].tolist()) == [0, 2]
    with pytest.raises(RivalsError, match="temperature must be"):
        SelfAdversarial(1, temperature=0)
    with pytest.raises(RivalsError, match="query 'q0': the score inf"):
        SelfAdversarial(1).draw(make_run([[np.inf]]), np.random.default_rng(0))


# --------------------------------------------------------------------------------------------------------------- mixtures


def test_mixture_is_the_mean_of_its_samplers(make_run) -> None:
    run = make_run(np.random.default_rng(0).random((4, 7)))
    parts = [(Softmax(1, window=3, temperature=0.3), 2.0), (Uniform(1, skip=2), 1.0), (Top(2), 1.0)]
    expected = sum(share * s.probabilities(run) / (2 if isinstance(s, Top) else 1) for s, share in parts) / 4
    assert Mixture(parts, k=2).probabilities(run) == pytest.approx(expected)


def test_mixture_draws_follow_its_shares() -> None:
    times = 20_000
    run = repeated([0.9, 0.8, 0.1, 0.0], times)
    sampler = Mixture([(Uniform(1, window=2), 0.75), (Uniform(1, skip=2), 0.25)], k=1)
    first = sampler.draw(run, np.random.default_rng(0)).candidate[:, 0]
    assert chisquare(np.bincount(first, minlength=4), np.array([0.375, 0.375, 0.125, 0.125]) * times).pvalue > 1e-3


def test_a_sampler_without_candidates_leaves_its_share_to_the_others(make_run) -> None:
    run = make_run([[0.9, 0.8]])
    assert Mixture([(Uniform(1, skip=5), 9), (Uniform(1), 1)], k=1).probabilities(run).tolist() == [0.5, 0.5]


def test_schedules_inside_are_followed(make_run) -> None:
    run = make_run(np.linspace(1, 0.1, 6)[None, :].tolist())
    mixed = Mixture([(Strided(2), 1)], k=2)
    assert sorted(mixed.at(1).draw(run, np.random.default_rng(0)).candidate[0].tolist()) == [1, 4]
    scheduled = Mixture([(Rotate(2, shuffle=False), 1), (Uniform(1), 1)], k=2).at(2)
    assert scheduled.probabilities(run).argsort()[-2:].tolist() == [4, 5]
    assert Resample(2, base=Softmax(2)).at(3).gamma == 1.0


def test_bad_mixtures() -> None:
    with pytest.raises(RivalsError, match="a mixture needs a sampler"):
        Mixture([], k=1)
    with pytest.raises(RivalsError, match=r"the share of Top\(1\) must be"):
        Mixture([(Top(1), 0)], k=1)


# ------------------------------------------------------------------------------------------------------------------ laws


@st.composite
def marked_runs(draw):
    queries, documents = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = queries * documents
    return Run.build(
        Collection([f"{draw(st.integers(0, 9))}-{i}" for i in range(queries)], name="query"),
        Collection([f"d{i}" for i in range(documents)]),
        np.arange(queries + 1) * documents,
        np.tile(np.arange(documents), queries),
        generator.normal(size=n),
        columns={
            "keep": generator.random(n) < 0.8,
            "label": generator.integers(-1, 2, n),
            "fn_probability": generator.random(n) * 0.99,
        },
    )


@settings(max_examples=80, deadline=None)
@given(marked_runs(), st.sampled_from(SAMPLERS), st.integers(0, 1000))
def test_only_survivors_are_drawn_and_as_many_as_there_are(run, sampler, seed) -> None:
    draw = sampler.draw_available(run, np.random.default_rng(seed))
    drawn = draw.row[draw.mask]
    assert (run.keep & (run.label != 1))[drawn].all()
    assert len(set(drawn.tolist())) == len(drawn)
    probability = sampler.probabilities(run)
    possible = np.bincount(run.query[probability > 0], minlength=len(run.queries))
    assert (draw.mask.sum(1) == np.minimum(possible, sampler.k)).all()
    total = np.bincount(run.query, probability, len(run.queries))
    assert total[possible > 0] == pytest.approx(1)
    assert (draw.log_probability <= 0).all()


@settings(max_examples=40, deadline=None)
@given(marked_runs(), st.sampled_from(SAMPLERS), st.integers(0, 99), st.integers(0, 5))
def test_blocks_change_nothing(run, sampler, seed, cut) -> None:
    cut = min(cut, len(run.queries))
    parts = [run.take(np.arange(cut)), run.take(np.arange(cut, len(run.queries)))]
    generator = np.random.default_rng(seed)
    draws = [sampler.draw_available(part, generator) for part in parts]
    joined = Draw.concatenate(draws, [len(part) for part in parts])
    whole = sampler.draw_available(concatenate(parts), np.random.default_rng(seed))
    for name in ("candidate", "mask", "row", "log_probability", "weight"):
        assert np.array_equal(getattr(joined, name), getattr(whole, name)), name
