"""Dynamic hard negatives (paper 43): when negatives are stale, what replaces them, and going on from a state."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Run
from rivals.errors import RivalsError
from rivals.negatives.samplers_schedule import SlidingWindow
from rivals.negatives.staleness import DynamicNegatives, is_stale


def run_of(scores: list[list[float]]) -> Run:
    lengths = list(map(len, scores))
    return Run.build(
        Collection([f"q{i}" for i in range(len(scores))], name="query"),
        Collection([f"d{i:02d}" for i in range(max(lengths))]),
        np.cumsum([0, *lengths]),
        np.concatenate([np.arange(n) for n in lengths]),
        np.concatenate(scores),
        score_kind="cosine",
    )


def test_by_hand() -> None:
    """Checks 1 and 7."""
    assert is_stale([0.60, 0.61], [0.7, 0.7]).tolist() == [True, False]
    assert not is_stale(0.81, 0.95)
    assert 1.15 * 0.81 < 0.95  # the ratio alone would replace them
    assert is_stale(-0.5, 0.1)
    assert not is_stale(-0.9, 0.1)
    means = np.linspace(-1, 1, 41)
    assert not is_stale(means, means).any()
    assert is_stale(-0.1, -0.1, positive_only=False)
    assert not is_stale(0.0, 0.0, positive_only=False)


@settings(max_examples=60, deadline=None)
@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(1.01, 3), st.floats(0.01, 1))
def test_the_rule(current: float, initial: float, ratio: float, floor: float) -> None:
    expected = ratio * current < initial and abs(current) < floor and initial > 0
    assert bool(is_stale(current, initial, ratio=ratio, floor=floor)) == expected


def table(values: np.ndarray) -> Any:
    return lambda query, document: values[query, document]


def test_stale_negatives_are_replaced_by_the_next_window() -> None:
    run = run_of([[0.7] * 9, [0.7] * 9])
    dynamic = DynamicNegatives(run, SlidingWindow(2, offset=3))
    assert dynamic.initial.tolist() == pytest.approx([0.7, 0.7])
    start = run.document.reshape(2, 9)
    assert dynamic.draw.candidate.tolist() == start[:, :2].tolist()
    now = np.full((2, 9), 0.7)
    now[0, start[0, :2]] = [0.5, 0.6]  # mean 0.55: 1.15 * 0.55 < 0.7
    now[0, start[0, 3:5]] = [0.4, 0.6]
    found = dynamic.update(table(now))
    assert (found.stale.tolist(), found.replaced.tolist(), found.exhausted.tolist()) == (
        [True, False], [True, False], [False, False])  # fmt: skip
    assert dynamic.draw.candidate[0].tolist() == start[0, 3:5].tolist()
    assert dynamic.draw.candidate[1].tolist() == start[1, :2].tolist()
    assert dynamic.window.tolist() == [1, 0]
    assert dynamic.initial.tolist() == pytest.approx([0.5, 0.7])
    again = dynamic.update(table(now))
    assert not again.stale.any()  # check 7
    assert "0 of 2 queries have stale negatives, 0 were given new ones" in str(again)


def test_lists_come_to_an_end() -> None:
    run = run_of([[0.9] * 6])
    dynamic = DynamicNegatives(run, SlidingWindow(2, offset=2))
    level = 0.5
    windows, ended = [], []
    for _ in range(4):
        found = dynamic.update(lambda query, document, level=level: np.full(len(query), level))
        level *= 0.6
        windows.append(dynamic.window.tolist())
        ended.append((bool(found.stale[0]), bool(found.replaced[0]), bool(found.exhausted[0])))
    assert windows == [[1], [2], [2], [2]]
    assert ended == [(True, True, False), (True, True, True), (True, False, True), (True, False, True)]


def test_hard_negatives_stay() -> None:
    dynamic = DynamicNegatives(run_of([[0.99] * 20]), SlidingWindow(3))
    assert not dynamic.update(lambda query, document: np.full(len(query), 0.81)).stale.any()


def test_queries_without_negatives_and_the_first_scores() -> None:
    run = run_of([[0.5, 0.4], [], [0.9]])
    dynamic = DynamicNegatives(run, SlidingWindow(2, offset=0), score=lambda query, document: 0.1 * (query + 1.0))
    assert dynamic.initial.tolist() == pytest.approx([0.1, 0, 0.3])
    found = dynamic.update(lambda query, document: np.zeros(len(query)))
    assert found.stale.tolist() == [True, False, True]
    assert (found.replaced <= found.stale).all()


def test_the_mean_is_over_what_could_be_drawn() -> None:
    assert DynamicNegatives(run_of([[0.6, 0.4, 0.2]]), SlidingWindow(5)).initial.tolist() == pytest.approx([0.4])


def test_goes_on_from_a_state() -> None:
    generator = np.random.default_rng(0)
    run = run_of(np.sort(generator.random((30, 24)))[:, ::-1].tolist())
    levels = generator.random((6, 30, 24)) * np.linspace(0.9, 0.2, 6)[:, None, None]
    whole = DynamicNegatives(run, SlidingWindow(4, offset=6))
    drawn = []
    for step in range(6):
        whole.update(table(levels[step]))
        drawn.append(whole.draw.row.tolist())
    assert drawn[0] != drawn[-1]
    for stop in (0, 2, 5):
        first = DynamicNegatives(run, SlidingWindow(4, offset=6))
        for step in range(stop):
            first.update(table(levels[step]))
        later = DynamicNegatives(run, SlidingWindow(4, offset=6))
        later.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert (later.draw.row == first.draw.row).all()
        for step in range(stop, 6):
            later.update(table(levels[step]))
        assert later.draw.row.tolist() == drawn[-1]
        assert (later.initial == whole.initial).all()


def test_only_new_negatives_are_scored_again() -> None:
    run = run_of([[0.7] * 20] * 5)
    asked: list[int] = []

    def score(query: np.ndarray, document: np.ndarray) -> np.ndarray:
        asked.append(len(query))
        return np.where(query == 2, 0.1, 0.7)

    DynamicNegatives(run, SlidingWindow(3)).update(score)
    assert asked == [15, 3]


def test_bad_input() -> None:
    run = run_of([[0.5, 0.4]])
    dynamic = DynamicNegatives(run, SlidingWindow(1))
    for make, said in (
        (lambda: is_stale(0.1, 0.2, ratio=1.0), "ratio must be above 1"),
        (lambda: is_stale(0.1, 0.2, floor=0.0), "floor must be above 0"),
        (lambda: is_stale(0.1, 0.2, floor=1.5), "floor must be above 0 and at most 1"),
        (lambda: is_stale([0.1], 0.2), "must have one shape"),
        (lambda: is_stale(np.nan, 0.2), "must not be NaN"),
        (lambda: DynamicNegatives(run, SlidingWindow(1), check=0), "check must be"),
        (lambda: DynamicNegatives(run, SlidingWindow(1), ratio=0.9), "ratio must be"),
        (lambda: dynamic.update(lambda query, document: np.array([np.nan])), "query 'q0': the current score"),
        (lambda: dynamic.update(lambda query, document: np.zeros(3)), "the scores of 1 pairs"),
        (
            lambda: dynamic.load_state_dict(DynamicNegatives(run, SlidingWindow(1, offset=2)).state_dict()),
            "with offset=2",
        ),
        (lambda: dynamic.load_state_dict(dynamic.state_dict() | {"window": [9]}), "do not fit this run's lists"),
    ):
        with pytest.raises(RivalsError, match=said):
            make()
