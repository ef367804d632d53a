"""Samplers: hand values, what they may draw, and that their draws follow their probabilities."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from rivals.data import Collection, Run
from rivals.data.run import concatenate
from rivals.errors import RivalsError
from rivals.negatives import Draw, KnownPositives, Sampler, Softmax, Top, Uniform

SAMPLERS = [
    Top(2),
    Top(1, skip=2),
    Uniform(2),
    Uniform(1, window=2, skip=1),
    Softmax(2, window=4, temperature=0.1),
    Softmax(3, window=None, keep_top1=True),
]


def repeated(scores: list[float], times: int) -> Run:
    """The same list for many queries: one draw gives `times` samples."""
    n = len(scores)
    return Run.build(
        Collection([f"q{i}" for i in range(times)], name="query"),
        Collection([f"d{i}" for i in range(n)]),
        np.arange(times + 1) * n,
        np.tile(np.arange(n), times),
        np.tile(np.float32(scores), times),
    )


def sequences(weights: list[float], k: int) -> dict[tuple[int, ...], float]:
    """Exact probability of every ordered draw of k without replacement."""
    exact = {}
    for order in permutations(range(len(weights)), k):
        probability, left = 1.0, sum(weights)
        for item in order:
            probability, left = probability * weights[item] / left, left - weights[item]
        exact[order] = probability
    return exact


# ------------------------------------------------------------------------------------------------------- hand values


def test_softmax_of_one_and_zero(make_run):
    probability = Softmax(1).probabilities(make_run([[1.0, 0.0]]))
    assert probability.tolist() == pytest.approx([0.7310585786, 0.2689414214])


def test_window_of_one_is_top_one(make_run):
    run = make_run(np.random.default_rng(0).random((20, 6)))
    generator = np.random.default_rng(1)
    for sampler in (Softmax(1, window=1), Uniform(1, window=1)):
        assert (sampler.draw(run, generator).candidate == Top(1).draw(run, generator).candidate).all()


def test_skip_counts_survivors(make_run):
    run = KnownPositives()(make_run([[0.95, 0.9, 0.8, 0.7, 0.6, 0.5]], [[1]]))
    run = run.mark(run.document == 4, "some rule")
    assert Top(9, skip=2).draw(run, np.random.default_rng(0)).candidate[0].tolist() == [3, 5] + [-1] * 7


def test_top_takes_ties_by_document_id_as_the_run_does(make_run):
    assert Top(2)(make_run([[0.5, 0.5, 0.5]])).document.tolist() == [2, 1]


def test_probabilities_of_certain_rows(make_run):
    run = make_run([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7]])
    assert Top(2).probabilities(run).tolist() == [1, 1, 0] * 2
    assert Softmax(2, window=3, keep_top1=True).probabilities(run).sum() == pytest.approx(4)
    assert Uniform(1, skip=1).probabilities(run).tolist() == [0, 0.5, 0.5] * 2


def test_draw_carries_the_runs_columns(make_run):
    run = make_run([[0.9, 0.8]]).replace(weight=[2, 3], target=[0.1, np.nan])
    draw = Top(3).draw(run, np.random.default_rng(0))
    assert draw.weight.tolist() == [[2, 3, 0]]
    assert draw.target[0, 0] == np.float32(0.1)
    assert np.isnan(draw.target[0, 1:]).all()
    assert (draw.unfilled, draw.k, draw.row.tolist(), draw.mask.tolist()) == (1, 3, [[0, 1, -1]], [[True, True, False]])


# -------------------------------------------------------------------------------------------------------------- laws


@st.composite
def marked_runs(draw):
    queries, documents = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = queries * documents
    run = Run.build(
        Collection([f"q{i}" for i in range(queries)], name="query"),
        Collection([f"d{i}" for i in range(documents)]),
        np.arange(queries + 1) * documents,
        np.tile(np.arange(documents), queries),
        generator.normal(size=n),
        columns={"keep": generator.random(n) < 0.8, "label": generator.integers(-1, 2, n)},
    )
    return run.select(generator.random(n) < 0.8)


@settings(max_examples=80, deadline=None)
@given(marked_runs(), st.sampled_from(SAMPLERS), st.integers(0, 1000))
def test_only_survivors_are_drawn_and_as_many_as_there_are(run, sampler, seed):
    draw = sampler.draw_available(run, np.random.default_rng(seed))
    survivors = run.keep & (run.label != 1)
    drawn = draw.row[draw.mask]
    assert survivors[drawn].all()
    assert len(set(drawn.tolist())) == len(drawn)
    assert (run.query[drawn] == np.repeat(np.arange(len(draw)), draw.mask.sum(1))).all()
    assert (run.document[drawn] == draw.candidate[draw.mask]).all()
    available = np.bincount(run.query[sampler.pool(run)], minlength=len(run.queries))
    assert (draw.mask.sum(1) == np.minimum(available, sampler.k)).all()
    assert (np.diff(draw.mask.astype(int), axis=1) <= 0).all()  # filled places come first
    probability = sampler.probabilities(run)
    assert (probability[drawn] > 0).all()
    assert (probability[~sampler.pool(run)] == 0).all()
    assert (draw.log_probability <= 0).all()
    assert np.isfinite(draw.log_probability).all()


@settings(max_examples=40, deadline=None)
@given(marked_runs(), st.sampled_from(SAMPLERS))
def test_chance_sums_to_one_per_query(run, sampler):
    probability = sampler.probabilities(run)
    weights = sampler.log_weights(run, *sampler._pool_rows(run))
    if weights is None:
        assert set(probability.tolist()) <= {0.0, 1.0}
        return
    chance = np.zeros(len(run), bool)
    chance[sampler._pool_rows(run)[0][~np.isposinf(weights)]] = True
    total = np.bincount(run.query[chance], probability[chance], len(run.queries))
    assert total[np.bincount(run.query[chance], minlength=len(run.queries)) > 0] == pytest.approx(1)


@settings(max_examples=40, deadline=None)
@given(st.lists(marked_runs(), min_size=1, max_size=4), st.sampled_from(SAMPLERS), st.integers(0, 99))
def test_drawing_block_after_block_is_drawing_at_once(blocks, sampler, seed):
    documents = Collection([f"d{i}" for i in range(8)])
    runs = [
        Run.build(
            Collection([f"b{b}{i}" for i in range(len(run.queries))], name="query"),
            documents,
            run.offsets,
            run.document,
            run.score,
            columns={"keep": run.keep, "label": run.label},
        )
        for b, run in enumerate(blocks)
    ]
    generator = np.random.default_rng(seed)
    parts = [sampler.draw_available(run, generator) for run in runs]
    joined = Draw.concatenate(parts, [len(run) for run in runs])
    whole = sampler.draw_available(concatenate(runs), np.random.default_rng(seed))
    for name in ("candidate", "mask", "row", "log_probability"):
        assert np.array_equal(getattr(joined, name), getattr(whole, name)), name


def test_small_padding_blocks_change_nothing(make_run, monkeypatch):
    run = make_run(np.random.default_rng(0).random((50, 9)))
    sampler = Softmax(3, window=9, temperature=0.3)
    whole = sampler.draw(run, np.random.default_rng(5))
    monkeypatch.setattr("rivals.negatives.samplers._CELLS", 20)
    small = sampler.draw(run, np.random.default_rng(5))
    assert (whole.row == small.row).all()
    assert whole.log_probability == pytest.approx(small.log_probability)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_as_a_transform_it_keeps_the_drawn_rows_and_repeats(make_run, sampler):
    run = make_run(np.random.default_rng(0).random((6, 8)), seed=11)
    first, again = sampler(run), sampler(run)
    assert (first.document == again.document).all()
    draw = sampler.draw(run, np.random.default_rng([11, 0, 0]))
    assert len(first) == draw.mask.sum()
    assert sorted(zip(first.query.tolist(), first.document.tolist(), strict=True)) == sorted(
        (query, int(document)) for query in range(6) for document in draw.candidate[query][draw.mask[query]]
    )
    assert (first.rank == np.concatenate([np.arange(size) for size in np.diff(first.offsets)])).all()


def test_seeds_matter(make_run):
    run = make_run(np.random.default_rng(0).random((50, 8)))
    base = Uniform(2)(run).document
    assert (base != Uniform(2, seed=1)(run).document).any()
    assert (base != Uniform(2)(run.replace(seed=1)).document).any()
    assert (base != Uniform(2)(run.replace(version=1)).document).any()


# ------------------------------------------------------------------------------------------------------- frequencies

SCORES = [1.0, 0.4, 0.1, -0.8]


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_softmax_draws_follow_exact_enumeration(k, temperature):
    times = 20_000
    run = repeated(SCORES, times)
    draw = Softmax(k, window=4, temperature=temperature).draw(run, np.random.default_rng(k))
    exact = sequences(np.exp(np.array(SCORES) / temperature).tolist(), k)
    code = {order: i for i, order in enumerate(exact)}
    seen = np.bincount([code[tuple(row)] for row in draw.candidate.tolist()], minlength=len(exact))
    expected = np.array(list(exact.values()))
    assert chisquare(seen, expected * times).pvalue > 1e-3
    logged = np.exp(draw.log_probability.astype(float).sum(1))
    assert logged == pytest.approx(np.array([exact[tuple(row)] for row in draw.candidate.tolist()]), rel=1e-4)


def test_first_draws_follow_probabilities():
    times = 20_000
    run = repeated(SCORES, times)
    for sampler in (Softmax(2, window=3, temperature=0.5, skip=1), Uniform(2, window=3), Uniform(2)):
        draw = sampler.draw(run, np.random.default_rng(3))
        probability = sampler.probabilities(run)[:4]
        seen = np.bincount(draw.candidate[:, 0], minlength=4)
        possible = probability > 0
        assert seen[~possible].sum() == 0
        assert chisquare(seen[possible], probability[possible] * times).pvalue > 1e-3


def test_keep_top1_takes_it_and_draws_the_rest():
    times = 20_000
    draw = Softmax(3, window=4, keep_top1=True).draw(repeated(SCORES, times), np.random.default_rng(0))
    assert (draw.candidate[:, 0] == 0).all()
    assert (draw.log_probability[:, 0] == 0).all()
    exact = sequences(np.exp(SCORES[1:]).tolist(), 2)
    seen = dict.fromkeys(exact, 0)
    for first, second in draw.candidate[:, 1:].tolist():
        seen[(first - 1, second - 1)] += 1
    assert chisquare(list(seen.values()), np.array(list(exact.values())) * times).pvalue > 1e-3


def test_extreme_scores_and_temperatures_stay_finite(make_run):
    run = make_run([[1e4, 0.0, -1e4]], score_kind="dot")
    sampler = Softmax(3, window=3, temperature=1e-3)
    draw = sampler.draw(run, np.random.default_rng(0))
    assert draw.candidate.tolist() == [[0, 1, 2]]
    assert draw.log_probability[0] == pytest.approx(0, abs=1e-6)
    assert sampler.probabilities(run).tolist() == [1, 0, 0]


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Top(0), "k must be a whole number, 1 or more"),
        (lambda: Top(2.0), "k must be"),
        (lambda: Top(True), "k must be"),
        (lambda: Top(1, skip=-1), "skip must be"),
        (lambda: Uniform(1, window=0), "window must be"),
        (lambda: Uniform(1, seed=-1), "seed must be"),
        (lambda: Softmax(11), "a window of 10 cannot give 11"),
        (lambda: Softmax(1, temperature=0.0), "temperature must be"),
        (lambda: Softmax(1, temperature=float("nan")), "temperature must be"),
    ],
)
def test_options_out_of_range(make, said):
    with pytest.raises(RivalsError, match=said):
        make()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_nothing_to_draw_for_anyone(make_run, sampler):
    run = make_run([[0.9, 0.8]])
    with pytest.raises(RivalsError, match=r"nothing to draw: 2 candidates of 1 queries, 2 of them marked"):
        sampler.draw(run.mark(np.array([True, True]), "a rule"), np.random.default_rng(0))
    assert len(sampler.draw(run.take([]), np.random.default_rng(0))) == 0


def test_negative_seeds_of_runs_are_refused(make_run):
    with pytest.raises(RivalsError, match="seed and version must be 0 or more"):
        Uniform(1)(make_run([[0.1]], seed=-1))


def test_infinite_scores_have_no_softmax(make_run):
    with pytest.raises(RivalsError, match="query 'q0': the score inf"):
        Softmax(1).draw(make_run([[np.inf, 0.1]]), np.random.default_rng(0))


def test_a_sampler_of_ones_own_needs_only_weights(make_run):
    class Last(Sampler):
        """Prefer the lowest score, strongly."""

        def log_weights(self, run, rows, offsets):
            return -1e3 * run.score[rows].astype(float)

    assert Last(1).draw(make_run([[0.9, 0.1, 0.5]]), np.random.default_rng(0)).candidate.tolist() == [[1]]
