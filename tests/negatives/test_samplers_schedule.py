"""Samplers that follow a schedule: rotation (paper 26) and sliding windows (paper 43)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Run
from rivals.data.run import concatenate
from rivals.errors import RivalsError
from rivals.negatives import Draw, Top
from rivals.negatives.samplers_schedule import Rotate, SlidingWindow


def run_of(lengths: list[int], first: int = 0) -> Run:
    """Queries with `lengths` candidates, each from the whole set of 40 documents, best first."""
    generator = np.random.default_rng(sum(lengths) + first)
    return Run.build(
        Collection([f"q{first + i}" for i in range(len(lengths))], name="query"),
        Collection([f"d{i:02d}" for i in range(40)]),
        np.cumsum([0, *lengths]),
        np.concatenate([[], *(generator.permutation(40)[:n] for n in lengths)]),
        np.concatenate([[], *(np.linspace(1, 0.1, n) for n in lengths)]),
    )


def drawn(sampler: Rotate | SlidingWindow, run: Run) -> list[list[int]]:
    draw = sampler.draw_available(run, np.random.default_rng(0))
    return [row[there].tolist() for row, there in zip(draw.row, draw.mask, strict=True)]


# ----------------------------------------------------------------------------------------------------------- rotation


def test_rotation_in_rank_order() -> None:
    run = run_of([5])
    windows = [drawn(Rotate(2, shuffle=False, epoch=epoch), run)[0] for epoch in range(6)]
    assert windows == [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4], [0, 1]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=5), st.integers(1, 7), st.integers(0, 50), st.booleans())
def test_every_negative_comes_in_so_many_epochs(lengths: list[int], k: int, start: int, shuffle: bool) -> None:
    """ceil(n / k) epochs in a row show all n, each once or twice; each epoch shows min(k, n)."""
    run = run_of(lengths)
    for query, n in enumerate(lengths):
        seen: Counter[int] = Counter()
        for epoch in range(start, start + max(-(-n // k), 1)):
            window = drawn(Rotate(k, shuffle=shuffle, seed=3).at(epoch), run)[query]
            assert len(window) == len(set(window)) == min(k, n)
            seen.update(window)
        assert set(seen) == set(range(run.offsets[query], run.offsets[query + 1]))
        assert max(seen.values(), default=1) <= 2
        if n % k == 0 and n:
            assert set(seen.values()) == {1}


def test_whole_turns_show_every_negative_equally_often() -> None:
    run = run_of([6])
    seen = Counter(row for epoch in range(6) for row in drawn(Rotate(4).at(epoch), run)[0])
    assert set(seen.values()) == {4}


def test_the_order_is_shuffled_by_seed_and_query() -> None:
    run = run_of([20] * 6)
    orders = {seed: [drawn(Rotate(20, seed=seed), run)[q] for q in range(6)] for seed in (0, 1)}
    assert orders[0] == [drawn(Rotate(20, seed=0).at(0), run)[q] for q in range(6)]
    assert orders[0] != orders[1]
    within = {tuple(np.subtract(order, 20 * q).tolist()) for q, order in enumerate(orders[0])}
    assert len(within) == 6
    assert all(order != sorted(order) for order in orders[0])


def test_places_of_the_shuffle_are_uniform() -> None:
    """The first place over 4,000 queries of four candidates, within four standard errors."""
    times = 4000
    run = Run.build(
        Collection([f"q{i}" for i in range(times)]), Collection(list("abcd")), np.arange(times + 1) * 4,
        np.tile(np.arange(4), times), np.tile([0.9, 0.8, 0.7, 0.6], times),
    )  # fmt: skip
    first = Rotate(1).draw(run, np.random.default_rng(0)).candidate[:, 0]
    assert np.bincount(first) / times == pytest.approx(np.full(4, 0.25), abs=4 * (0.25 * 0.75 / times) ** 0.5)


def test_short_pools() -> None:
    run = run_of([3, 0, 9])
    assert [len(window) for window in drawn(Rotate(7), run)] == [3, 0, 7]
    replaced = Rotate(7, short="replace").draw(run, np.random.default_rng(0))
    assert replaced.mask.sum(1).tolist() == [7, 0, 7]
    assert set(replaced.row[0].tolist()) <= {0, 1, 2}
    assert len(set(replaced.row[2].tolist())) == 7
    other = Rotate(7, short="replace").at(1).draw(run, np.random.default_rng(0))
    assert other.row[0].tolist() != replaced.row[0].tolist()
    many = [Rotate(7, short="replace").at(epoch).draw(run, np.random.default_rng(0)).row[0] for epoch in range(300)]
    shares = np.bincount(np.concatenate(many)) / 2100
    assert shares == pytest.approx(np.full(3, 1 / 3), abs=4 * (2 / 9 / 2100) ** 0.5)


@pytest.mark.parametrize(
    "sampler", [Rotate(3, epoch=2), Rotate(3, short="replace"), SlidingWindow(3, offset=2, replaced=1)]
)
def test_blocks_change_nothing(sampler: Rotate | SlidingWindow) -> None:
    whole = run_of([9, 2, 12, 0, 7])
    parts = [whole.take(rows) for rows in ([0], [1, 2], [3, 4])]
    joined = Draw.concatenate(
        [sampler.draw_available(p, np.random.default_rng(0)) for p in parts], list(map(len, parts))
    )
    assert (joined.row == sampler.draw_available(whole, np.random.default_rng(1)).row).all()
    again = concatenate(parts)
    assert (again.document == whole.document).all()


def test_marks_window_skip_and_probabilities() -> None:
    run = run_of([8])
    marked = run.mark(np.arange(8) == 1, "a rule")
    assert drawn(Rotate(2, shuffle=False, skip=1, window=4), marked)[0] == [2, 3]
    assert drawn(Rotate(2, shuffle=False, skip=1, window=4, epoch=2), marked)[0] == [2, 3]
    assert Rotate(2, shuffle=False, epoch=1).probabilities(marked).tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
    assert Rotate(2, shuffle=False, epoch=1)(marked).document.tolist() == run.document[[3, 4]].tolist()
    assert repr(Rotate(2, shuffle=False, short="replace")) == "Rotate(2, short='replace', shuffle=False)"


def test_samplers_without_schedule_are_the_same_in_every_epoch() -> None:
    sampler = Top(3)
    assert sampler.at(4) is sampler


def test_bad_rotations() -> None:
    for make, said in (
        (lambda: Rotate(0), "k must be"),
        (lambda: Rotate(2, short="pad"), "short must be"),
        (lambda: Rotate(2, epoch=-1), "epoch must be"),
        (lambda: Rotate(2).at(-1), "epoch must be"),
        (lambda: Rotate(2).draw(run_of([0]), np.random.default_rng(0)), "nothing to draw"),
    ):
        with pytest.raises(RivalsError, match=said):
            make()


# ----------------------------------------------------------------------------------------------------- sliding windows


def test_windows_of_the_paper() -> None:
    """Card 43, check 2: replacements 1, 2, 3 of five are ranks 10-14, 15-19, 20-24; before any, 0-4."""
    run = run_of([26])
    windows = [drawn(SlidingWindow(5, replaced=i), run)[0] for i in range(5)]
    assert windows == [list(range(5)), *(list(range(start, start + 5)) for start in (10, 15, 20, 20))]


def test_windows_do_not_overlap_and_lists_end() -> None:
    run = run_of([13, 10, 4, 0])
    sampler = SlidingWindow(1, offset=10)
    assert sampler.last_window(run).tolist() == [3, 0, 0, 0]
    assert [drawn(sampler.at_window(i), run)[0] for i in range(5)] == [[0], [10], [11], [12], [12]]
    assert sampler.at_window([3, 0, 0, 0]).exhausted(run).all()
    assert sampler.at_window([2, 0, 0, 0]).exhausted(run).tolist() == [False, True, True, True]
    assert drawn(SlidingWindow(5, offset=8, replaced=[1, 1, 0, 3]), run) == [
        [8, 9, 10, 11, 12], [13, 14, 15, 16, 17], [23, 24, 25, 26], []]  # fmt: skip


def test_windows_are_of_survivors() -> None:
    run = run_of([8])
    marked = run.mark(np.arange(8) < 2, "a rule")
    assert drawn(SlidingWindow(2, offset=3, replaced=1), marked)[0] == [5, 6]
    assert SlidingWindow(2, offset=3, replaced=1).probabilities(marked).tolist() == [0, 0, 0, 0, 0, 1, 1, 0]


def test_bad_windows() -> None:
    for make, said in (
        (lambda: SlidingWindow(2, offset=-1), "offset must be"),
        (lambda: SlidingWindow(2, replaced=-1), "replaced must be one number, 0 or more"),
        (lambda: SlidingWindow(2, replaced=[[0]]), "replaced must be one number"),
        (
            lambda: drawn(SlidingWindow(2, replaced=[0, 1]), run_of([5])),
            "2 numbers of replacements .* run of 1 queries",
        ),
    ):
        with pytest.raises(RivalsError, match=said):
            make()
