"""Spread, drops and moving rankings: the hand values of paper 55, scipy, and what must not be asked."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from rivals.data import Collection, Run
from rivals.diagnose.robustness import (
    Ranking,
    drop_rate,
    kendall_distance,
    normalised_variance,
    query_spread,
    ranking_overlap,
    round_stability,
    run_overlap,
    shift,
    top_change,
    worst_fraction_mean,
)
from rivals.errors import RivalsError
from rivals.measures import rank_biased_overlap


def test_variance() -> None:
    assert normalised_variance([0.2, 0.4, 0.6]) == pytest.approx(1 / 6)
    assert normalised_variance([2, 4, 6]) == pytest.approx(1 / 6)
    assert normalised_variance([0.3, 0.3]) == 0
    assert normalised_variance([0.2, 0.4, 0.6], normalise=None) == pytest.approx(np.var([0.2, 0.4, 0.6]))
    assert normalised_variance([1, 2], normalise="max") == pytest.approx(np.var([0.5, 1]))
    assert worst_fraction_mean(range(1, 11), 0.2) == 1.5
    assert worst_fraction_mean([3, 1, 2], 0.1) == 1
    assert drop_rate(0.5, 0.4) == pytest.approx(-0.2)
    seen = query_spread([0.2, 0.4, 0.6], [0.2, 0.6, 0.69])
    assert seen.hurt == pytest.approx(1 / 3)
    assert (seen.mean, seen.worst_tenth) == (pytest.approx(0.4), pytest.approx(0.2))
    assert math.isnan(query_spread([1.0]).hurt)


def test_shift_has_a_paired_interval() -> None:
    rng = np.random.default_rng(0)
    inside = rng.uniform(0.3, 0.9, 200)
    seen = shift(inside, 0.8 * inside)
    assert seen.drop_rate.estimate == pytest.approx(-0.2)
    assert seen.drop_rate.low == pytest.approx(-0.2)  # queries are drawn together, so their spread plays no part
    assert seen.inside.low < inside.mean() < seen.inside.high
    noisy = shift(inside, 0.8 * inside + rng.normal(0, 0.1, 200))
    assert noisy.drop_rate.low < -0.2 < noisy.drop_rate.high


def test_rankings_by_hand() -> None:
    assert ranking_overlap("ab", "ba", p=0.5) == 0.5
    for p in (0.1, 0.7, 0.95):
        assert ranking_overlap("abcd", "abcd", p=p) == pytest.approx(1)
        assert ranking_overlap("abcd", "wxyz", p=p) == 0
    assert ranking_overlap("ab", "ab", p=0.5, extrapolate=False) == pytest.approx(0.75)
    assert kendall_distance("abcd", "dcba") == 1
    assert kendall_distance("abcd", "abcd") == 0
    assert kendall_distance("abcd", "bacd") == pytest.approx(1 / 6)
    assert top_change("ab", "ba") == top_change("ba", "ab") == 1
    assert top_change("ab", "ab") == 0


@given(st.permutations(range(7)), st.permutations(range(7)), st.floats(0.1, 0.9))
@settings(max_examples=40, deadline=None)
def test_rankings_against_scipy_and_the_measure(one: list[int], two: list[int], p: float) -> None:
    names = [str(member) for member in one], [str(member) for member in two]
    places = [np.argsort(ranking) for ranking in (one, two)]
    assert kendall_distance(*names) == pytest.approx((1 - kendalltau(*places).statistic) / 2)
    scores = [-place.astype(float) for place in places]
    assert ranking_overlap(*names, p=p) == pytest.approx(float(rank_biased_overlap(*scores, p=p)))


def test_runs_overlap_as_rankings_do() -> None:
    rng = np.random.default_rng(1)
    queries, documents = Collection(list("pqrst"), name="query"), Collection([f"d{i:02}" for i in range(30)])

    def run(lengths: list[int]) -> Run:
        rows = [rng.permutation(30)[:length] for length in lengths]
        scores = [-np.arange(length, dtype=np.float32) for length in lengths]
        return Run.build(
            queries, documents, np.concatenate([[0], np.cumsum(lengths)]), np.concatenate(rows), np.concatenate(scores)
        )

    before, after = run([12, 3, 0, 0, 20]), run([12, 7, 4, 0, 11])
    seen = run_overlap(before, after, depth=10, p=0.8)
    for row in (0, 1, 4):
        lists = [one.document[one.offsets[row] : one.offsets[row + 1]][:10] for one in (before, after)]
        assert seen[row] == pytest.approx(ranking_overlap(*([str(d) for d in found] for found in lists), p=0.8))
    assert seen[2:4].tolist() == [0, 1]
    assert run_overlap(before, before)[[0, 1, 2, 3]] == pytest.approx(1)


def rounds_of(order) -> list[dict[str, Ranking]]:
    grades, made = {"x": 0.0, "y": 2.0, "z": 1.0}, []
    for number in range(4):
        texts = {author: f"about {author} " + "more " * number for author in grades}
        made.append({"q": Ranking(tuple(order(number)), grades, texts)})
    return made


def test_a_ranker_that_never_looks_is_stable_and_found_out() -> None:
    seen = round_stability(rounds_of(lambda number: "xyz"))
    assert (seen.top_change, seen.kendall_distance, seen.pairs) == (0, 0, 3)
    assert seen.overlap == pytest.approx(1)
    assert (seen.top_relevance, seen.best_relevance) == (0, 2)
    assert seen.document_change > 0


def test_a_ranker_that_moves() -> None:
    seen = round_stability(rounds_of(lambda number: "xyz" if number % 2 else "zyx"), p=0.7)
    assert (seen.top_change, seen.kendall_distance) == (1, 1)
    assert seen.overlap == pytest.approx(ranking_overlap("xyz", "zyx", p=0.7))
    still = round_stability([{"q": Ranking(("a", "b"))}, {"q": Ranking(("a", "b")), "new": Ranking(("a",))}])
    assert math.isnan(still.document_change)
    assert math.isnan(still.top_relevance)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: normalised_variance([]), "values has no query"),
        (lambda: normalised_variance([0, 0]), "the mean of the values is 0"),
        (lambda: normalised_variance([1], normalise="sum"), "normalise is 'sum'"),
        (lambda: worst_fraction_mean([1], 0), "fraction is 0"),
        (lambda: drop_rate(0, 1), "the reference is 0"),
        (lambda: query_spread([1, 2], [1]), "values are of 2 queries"),
        (lambda: shift([1, 2], [1]), "inside has shape"),
        (lambda: ranking_overlap("ab", "ab", p=1), "p is 1"),
        (lambda: ranking_overlap("", "ab"), "a ranking is empty"),
        (lambda: ranking_overlap("aa", "ab"), "names a member twice"),
        (lambda: kendall_distance("ab", "ac"), "different members"),
        (lambda: kendall_distance("a", "a"), "one member has no order"),
        (lambda: round_stability([{}]), "there is only 1"),
        (lambda: round_stability([{"q": Ranking(("a",))}] * 2), "no query has two authors"),
    ],
)
def test_bad_questions(ask, said) -> None:
    with pytest.raises(RivalsError, match=re.escape(said)):
        ask()
