"""Strided sampling: the places of an epoch, rotation, windows, and what a short pool gives."""

from __future__ import annotations

import numpy as np
import pytest

from rivals.data import Collection, Run
from rivals.errors import RivalsError
from rivals.negatives import KnownPositives
from rivals.negatives.strided import Strided


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


def test_bad_options_are_named():
    with pytest.raises(RivalsError, match="epoch must be"):
        Strided(2, epoch=-1)
    with pytest.raises(RivalsError, match="Strided"):
        Strided(2).draw(KnownPositives()(run_of(1, positives=(0,))), np.random.default_rng(0))
