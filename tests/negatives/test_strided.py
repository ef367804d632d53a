"""Strided sampling: the places of an epoch, rotation, windows, and what a short pool gives."""

from __future__ import annotations

import numpy as np
import pytest

from rivals.data import Collection, Run
from rivals.errors import RivalsError
from rivals.negatives import Draw, KnownPositives
from rivals.negatives.strided import RANDOM_FALLBACK, Strided


def run_of(count: int, positives: tuple[int, ...] = (), queries: int = 1) -> Run:
    ids = [f"d{place:02d}" for place in range(count)]
    return Run.build(
        Collection([f"q{query}" for query in range(queries)]),
        Collection(ids),
        np.arange(queries + 1) * count,
        np.tile(np.arange(count), queries),
        np.tile(np.linspace(1, 0.1, count, dtype=np.float32), queries),
        positives=(np.arange(queries + 1) * len(positives), np.tile(np.array(positives, dtype=np.int64), queries)),
    )


def drawn(sampler: Strided, run: Run) -> list[int]:
    draw = sampler.draw(KnownPositives()(run), np.random.default_rng(0))
    return draw.candidate[draw.mask].tolist()


def test_the_places_of_an_epoch():
    run = run_of(20, positives=(3, 10))  # 18 survivors, interval 4
    survivors = [place for place in range(20) if place not in (3, 10)]
    assert drawn(Strided(4, epoch=1), run) == [survivors[place] for place in (1, 5, 9, 13)]
    assert drawn(Strided(4, epoch=5), run) == drawn(Strided(4).at(1), run)


def test_an_interval_of_epochs_draws_each_candidate_once():
    run = run_of(19, positives=(0,))
    seen = [candidate for epoch in range(4) for candidate in drawn(Strided(4, epoch=epoch), run)]
    assert sorted(seen) == list(range(1, 17))


def test_window_and_skip():
    run = run_of(30)
    assert drawn(Strided(2, skip=10, window=6, epoch=2), run) == [12, 15]


def test_short_pools_are_drawn_whole():
    run = run_of(4, positives=(0,), queries=2)
    draw = Strided(5, epoch=3).draw(KnownPositives()(run), np.random.default_rng(0))
    assert draw.candidate.tolist() == [[1, 2, 3, -1, -1]] * 2
    assert draw.unfilled == 4


def test_probabilities_and_the_transform():
    run = run_of(8)
    sampler = Strided(2, epoch=1)
    assert sampler.probabilities(run).tolist() == [0, 1, 0, 0, 0, 1, 0, 0]
    assert sampler(run).document.tolist() == [1, 5]
    first, second = (sampler.draw(run, np.random.default_rng(seed)).candidate for seed in (0, 1))
    np.testing.assert_array_equal(first, second)


def test_a_fixed_step_goes_in_circles():
    """Card 7, check 5."""
    draw = Strided(10, step=5, short="repeat").draw(run_of(12), np.random.default_rng(0))
    assert draw.row.tolist() == [[0, 5, 10, 1, 6, 11, 2, 7, 3, 8]]
    draw = Strided(10, step=5, short="repeat").draw(run_of(4), np.random.default_rng(0))
    assert draw.row.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 0, 1]]
    assert Strided(10, step=5).draw(run_of(4), np.random.default_rng(0)).unfilled == 6
    assert drawn(Strided(4, step=5, epoch=1), run_of(12)) == [1, 6, 11, 2]
    assert drawn(Strided(4, step=5, epoch=6), run_of(12)) == [1, 6, 11, 2]
    assert drawn(Strided(3, step=1), run_of(12)) == [0, 1, 2]


@pytest.mark.parametrize("step", [None, 1, 3, 5, 20])
@pytest.mark.parametrize("count", [1, 4, 7, 16])
def test_positions_by_plain_python(step, count):
    for epoch in range(6):
        for k in (1, 3, 10):
            if step is None:
                interval = max(count // k, 1)
                order = list(range(count)) if count < k else [epoch % interval + i * interval for i in range(k)]
            else:
                order = [p for r in range(step) for p in range(count) if (p - epoch) % step == r]
            draw = Strided(k, step=step, short="repeat", epoch=epoch).draw(run_of(count), np.random.default_rng(0))
            assert draw.row[0].tolist() == [order[i % len(order)] for i in range(k)]


def test_random_when_nothing_survived():
    """Card 7, check 6: ten of the candidates with the target 1, kept, and counted."""
    run = run_of(50, positives=(4,), queries=3)
    run = KnownPositives()(run)
    run = run.mark((run.query == 1) & (run.label != 1), "judged a positive")
    sampler = Strided(10, step=5, short="repeat", on_empty="random")
    assert sampler.fallback(run).tolist() == [False, True, False]
    draw = sampler.draw(run, np.random.default_rng(0))
    assert draw.mask.all()
    assert (draw.target[1] == 1).all()
    assert np.isnan(draw.target[[0, 2]]).all()
    assert len(set(draw.candidate[1].tolist())) == 10
    assert 4 not in draw.candidate[1]
    assert (run.query[draw.row[1]] == 1).all()
    other = sampler.draw(run, np.random.default_rng(1))
    assert (other.candidate[1] != draw.candidate[1]).any()
    assert (other.candidate[[0, 2]] == draw.candidate[[0, 2]]).all()
    probability = sampler.probabilities(run)
    assert probability[run.query == 1].sum() == pytest.approx(1)
    assert np.exp(draw.log_probability[1, 0]) == pytest.approx(1 / 49)
    chosen = sampler(run)
    assert int(chosen.where_reason(RANDOM_FALLBACK).sum()) == 10
    assert chosen.keep.all()
    assert (chosen.target[chosen.query == 1] == 1).all()
    assert np.isnan(chosen.target[chosen.query != 1]).all()
    assert not Strided(10, step=5).fallback(run).any()
    assert Strided(10, step=5).draw(run, np.random.default_rng(0)).mask[1].sum() == 0


def test_random_fallbacks_of_short_lists_and_of_none():
    run = KnownPositives()(run_of(4, positives=(0,)))
    run = run.mark(np.ones(4, bool), "all of them")
    repeated = Strided(7, step=5, short="repeat", on_empty="random").draw(run, np.random.default_rng(0))
    assert sorted(np.bincount(repeated.candidate[0], minlength=4).tolist()) == [0, 2, 2, 3]
    left = Strided(7, step=5, on_empty="random").draw(run, np.random.default_rng(0))
    assert left.mask.sum() == 3
    only = KnownPositives()(run_of(1, positives=(0,)))
    assert not Strided(2, on_empty="random").fallback(only).any()


def test_random_fallbacks_are_alike_for_all_candidates():
    run = run_of(5, queries=4000)
    run = run.mark(np.ones(len(run), bool), "all of them")
    first = Strided(1, on_empty="random").draw(run, np.random.default_rng(0)).candidate[:, 0]
    assert np.bincount(first) / 4000 == pytest.approx(np.full(5, 0.2), abs=4 * (0.2 * 0.8 / 4000) ** 0.5)


def test_blocks_change_nothing():
    run = KnownPositives()(run_of(9, positives=(2,), queries=6))
    run = run.mark(np.isin(run.query, [1, 4]), "all of them")
    sampler = Strided(4, step=3, short="repeat", on_empty="random", epoch=2)
    generator = np.random.default_rng(7)
    parts = [run.take(rows) for rows in ([0, 1], [2], [3, 4, 5])]
    joined = Draw.concatenate(
        [sampler.draw_available(part, generator) for part in parts], [len(part) for part in parts]
    )
    whole = sampler.draw_available(run, np.random.default_rng(7))
    assert (joined.row == whole.row).all()
    assert np.array_equal(joined.target, whole.target, equal_nan=True)


def test_bad_options_are_named():
    for options, said in (
        ({"step": 0}, "step must be"),
        ({"short": "pad"}, "short must be"),
        ({"on_empty": "raise"}, "on_empty 'leave' or 'random'"),
        ({"empty_target": 2}, "empty_target must lie"),
        ({"epoch": -1}, "epoch must be"),
    ):
        with pytest.raises(RivalsError, match=said):
            Strided(2, **options)
    with pytest.raises(RivalsError, match="Strided"):
        Strided(2).draw(KnownPositives()(run_of(1, positives=(0,))), np.random.default_rng(0))
