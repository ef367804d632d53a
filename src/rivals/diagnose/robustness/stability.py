"""Measures of robustness: spread over queries, drops between conditions, and how far rankings move.

Five questions of Wu et al. 2022 (paper 55) about a ranker: how uneven is it over queries (`query_spread`), what does it lose
on types of queries or on a corpus it was not trained for (`shift`), on perturbed queries (`robustness_report`), and how
does its ranking move when authors rewrite their documents (`round_stability`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals import lists
from rivals.data.run import Run
from rivals.diagnose.robustness.edits import words_of
from rivals.errors import RivalsError
from rivals.measures import kendall_tau
from rivals.measures.intervals import Interval, bootstrap_interval, per_query, resampled_means


def normalised_variance(values: ArrayLike, *, normalise: Literal["mean", "max"] | None = "mean") -> float:
    """Return the variance of a measure over queries, of values divided by their mean, by their maximum, or as they are.

    VNAP = mean over q of (x_q - mean x)^2, x_q = m(q) / mean m: free of scale, so that systems of different quality can be
    compared. Leave queries without relevant documents out before.

    Source: Wu et al. 2022, performance variance; which normaliser they use could not be verified. Paper 55.

    Raises:
        RivalsError: no value, one that is not finite, all 0 with a normaliser, an unknown normaliser.

    >>> round(normalised_variance([0.2, 0.4, 0.6]), 6)
    0.166667
    """
    checked = per_query(values, "values").ravel()
    if normalise not in ("mean", "max", None):
        raise RivalsError(f"normalise is {normalise!r}; it can be 'mean', 'max' or None")
    scale = {"mean": checked.mean(), "max": checked.max(), None: 1.0}[normalise]
    if scale == 0:
        raise RivalsError(f"the {normalise} of the values is 0, so they cannot be divided by it")
    return float((checked / scale).var())


def worst_fraction_mean(values: ArrayLike, fraction: float = 0.1) -> float:
    """Return the mean over the worst `fraction` of the queries (at least one query).

    Source: the conditional value at risk, our lower tail beside paper 55's variance.

    Raises:
        RivalsError: no value, one that is not finite, a fraction outside (0, 1].

    >>> worst_fraction_mean(range(1, 11), 0.2)
    1.5
    """
    if not 0 < fraction <= 1:
        raise RivalsError(f"fraction is {fraction}; it is a share of the queries, above 0 and at most 1")
    checked = np.sort(per_query(values, "values").ravel())
    return float(checked[: max(1, math.ceil(fraction * len(checked) - 1e-9))].mean())


def drop_rate(reference: float, value: float) -> float:
    """Return (value - reference) / reference: negative is a loss.

    A weak system has little to lose: print the reference beside it.

    Source: Wu et al. 2022. Paper 55.

    Raises:
        RivalsError: the reference is 0.

    >>> round(drop_rate(0.5, 0.4), 12)
    -0.2
    """
    if reference == 0:
        raise RivalsError("the reference is 0, so nothing can be dropped from it")
    return (value - reference) / reference


class QuerySpread(NamedTuple):
    """How uneven a system is over queries: what `query_spread` returns; `hurt` is NaN without a reference system."""

    mean: float
    deviation: float
    normalised_variance: float
    worst_tenth: float
    hurt: float


def query_spread(values: ArrayLike, reference: ArrayLike | None = None, *, by: float = 0.1) -> QuerySpread:
    """Return mean, standard deviation, normalised variance and the mean of the worst tenth of the queries.

    `hurt` is the share of queries where the system is more than `by` below a reference system.

    Source: Wu et al. 2022, the first of five tasks; lower tail and hurt queries are ours. Paper 55.

    Raises:
        RivalsError: as `normalised_variance`; a reference of another length.

    >>> query_spread([0.2, 0.4, 0.6], [0.2, 0.6, 0.6]).hurt
    0.3333333333333333
    """
    checked = per_query(values, "values")
    hurt = math.nan
    if reference is not None:
        other = per_query(reference, "reference")
        if other.shape != checked.shape:
            raise RivalsError(
                f"values are of {len(checked)} queries, the reference of {len(other)}; give the same ones"
            )
        hurt = float((checked < other - by).mean())
    return QuerySpread(
        float(checked.mean()), float(checked.std()), normalised_variance(checked), worst_fraction_mean(checked), hurt
    )


class Shift(NamedTuple):
    """A system in and out of its domain: means with intervals, and the drop rate between them with its own."""

    inside: Interval
    outside: Interval
    drop_rate: Interval


def shift(
    inside: ArrayLike, outside: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Shift:
    """Return what a system loses on the same queries because it was not trained for them.

    `inside` holds, query by query, a measure of the model whose training had this type of query (or this corpus),
    `outside` that of the model which never saw it; drop rate = (mean outside - mean inside) / mean inside, with the
    percentile interval of queries drawn again for both together.

    Source: Wu et al. 2022, out-of-distribution by query type and by corpus. Paper 55.

    Raises:
        RivalsError: different lengths, nothing or not finite values, a mean of 0 inside.

    >>> found = shift([0.5, 0.5, 0.5], [0.4, 0.4, 0.4])
    >>> round(found.drop_rate.estimate, 12), round(found.drop_rate.high, 12)
    (-0.2, -0.2)
    """
    own, other = per_query(inside, "inside"), per_query(outside, "outside")
    if own.shape != other.shape or own.ndim != 1:
        raise RivalsError(f"inside has shape {own.shape}, outside {other.shape}; give one value a query, the same ones")
    both = np.stack([own, other])
    options = {"level": level, "resamples": resamples}
    ends = [Interval(*map(float, bootstrap_interval(row, seed=seed, **options))) for row in both]  # type: ignore[arg-type]
    return Shift(ends[0], ends[1], drop_interval(own, other, level=level, resamples=resamples, seed=seed))


def drop_interval(
    reference: NDArray[np.float64], value: NDArray[np.float64], *, level: float, resamples: int, seed: int
) -> Interval:
    """Return the drop rate of two systems' means over the same queries with its paired percentile interval."""
    estimate = drop_rate(float(reference.mean()), float(value.mean()))
    means = resampled_means(np.stack([reference, value]), resamples, seed)
    means = means[:, means[0] > 0]
    if len(reference) < 2 or not means.shape[1]:
        return Interval(estimate, math.nan, math.nan)
    low, high = np.quantile(means[1] / means[0] - 1, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))


# ------------------------------------------------------------------------------------------------------- rankings


def top_change(before: Sequence[str], after: Sequence[str]) -> int:
    """Return 1 if the first members of two rankings differ, else 0.

    >>> top_change(["a", "b"], ["b", "a"])
    1
    """
    _check_rankings(before, after)
    return int(before[0] != after[0])


def kendall_distance(before: Sequence[str], after: Sequence[str]) -> float:
    """Return the share of pairs that two rankings of the same members order differently: 0 equal, 1 reversed.

    Equals (1 - tau) / 2 of `rivals.measures.kendall_tau` without ties.

    Raises:
        RivalsError: fewer than two members, one named twice, different members.

    >>> round(kendall_distance(["a", "b", "c", "d"], ["b", "a", "c", "d"]), 6)
    0.166667
    """
    _check_rankings(before, after)
    if set(before) != set(after):
        raise RivalsError("the rankings hold different members; compare those that both have")
    if len(before) < 2:
        raise RivalsError("one member has no order; a distance needs two at least")
    place = {member: rank for rank, member in enumerate(after)}
    ranks = np.array([place[member] for member in before], dtype=np.float64)
    return float((1 - kendall_tau(-ranks, -np.arange(len(ranks), dtype=np.float64)).item()) / 2)


def ranking_overlap(before: Sequence[str], after: Sequence[str], *, p: float = 0.9, extrapolate: bool = True) -> float:
    """Return the rank-biased overlap of two rankings that may hold different members: 1 equal, 0 disjoint.

    With X_d members in the first d of both, n the shorter length: (1 - p) sum_{d=1..n} p^(d-1) X_d / d, and with
    `extrapolate` + p^n X_n / n. For scores of the same candidates there is `rivals.measures.rank_biased_overlap`.

    Source: Webber, Moffat and Zobel 2010. Paper 55.

    Raises:
        RivalsError: an empty ranking, a member twice, p outside (0, 1).

    >>> ranking_overlap(["a", "b"], ["b", "a"], p=0.5)
    0.5
    """
    _check_rankings(before, after)
    if not 0 < p < 1:
        raise RivalsError(f"p is {p}; it must lie between 0 and 1")
    number = {member: row for row, member in enumerate(dict.fromkeys([*before, *after]))}
    ranks = np.full((2, len(number)), len(number) + 1)
    for side, ranking in enumerate((before, after)):
        ranks[side, [number[member] for member in ranking]] = np.arange(len(ranking))
    depth = min(len(before), len(after))
    held = np.bincount(np.minimum(ranks.max(0), depth), minlength=depth + 1)[:depth].cumsum()
    return float(_biased(held[None] / np.arange(1, depth + 1), p, np.array([depth]), extrapolate)[0])


def run_overlap(before: Run, after: Run, *, depth: int = 10, p: float = 0.9) -> NDArray[np.float64]:
    """Return the rank-biased overlap of the first `depth` documents of two runs, query by query, [Q].

    As `ranking_overlap`, down to the shorter list; two empty lists are equal (1), an empty and a filled one disjoint (0).

    Raises:
        RivalsError: runs of different queries, depth below 1, p outside (0, 1).
    """
    if len(before.queries) != len(after.queries):
        raise RivalsError(f"the runs have {len(before.queries)} and {len(after.queries)} queries; give the same ones")
    if depth < 1 or not 0 < p < 1:
        raise RivalsError(f"depth is {depth} and p is {p}; depth must be 1 or more and p between 0 and 1")
    lengths = np.minimum(np.stack([np.diff(run.offsets) for run in (before, after)]), depth)
    shorter = lengths.min(0)
    place = lists.find_pairs(before.offsets, before.document, after.query, after.document)
    there = place >= 0
    rank = np.maximum(before.rank[place[there]], after.rank[there])
    query = after.query[there]
    inside = rank < shorter[query]
    held = (
        np.bincount(query[inside] * depth + rank[inside], minlength=len(shorter) * depth).reshape(-1, depth).cumsum(1)
    )
    found = _biased(held / np.arange(1, depth + 1), p, shorter, True)
    return np.where(shorter > 0, found, (lengths.max(0) == 0).astype(np.float64))


class Ranking(NamedTuple):
    """One query's documents in one round: their authors in rank order, and per author grade and text where known."""

    authors: tuple[str, ...]
    relevance: Mapping[str, float] = {}
    texts: Mapping[str, str] = {}


class RoundStability(NamedTuple):
    """How a ranking moved between rounds, as means over queries and pairs of rounds; see `round_stability`."""

    top_change: float
    kendall_distance: float
    overlap: float
    document_change: float
    top_relevance: float
    best_relevance: float
    pairs: int


def round_stability(rounds: Sequence[Mapping[str, Ranking]], *, p: float = 0.7) -> RoundStability:
    """Return how far rankings move from round to round while authors rewrite their documents.

    `rounds` holds for every round query -> `Ranking`; documents are matched by author, since their texts change. Means
    over queries and consecutive rounds of `top_change`, `kendall_distance` and `ranking_overlap` (of the authors both
    rounds have), beside 1 - the cosine of the TF-IDF vectors of old and new texts (`document_change`, NaN without texts).

    A ranker that never looks is perfectly stable: read `top_relevance`, the mean grade of the first document, against
    `best_relevance`, the mean grade of the best one (both NaN without grades).

    Source: Wu et al. 2022, document manipulation, after Goren et al.'s ranking competitions. Paper 55.

    Raises:
        RivalsError: fewer than two rounds, no query with two authors in two consecutive rounds.

    >>> one, two = Ranking(("x", "y"), {"x": 1, "y": 0}), Ranking(("y", "x"), {"x": 1, "y": 0})
    >>> round_stability([{"q": one}, {"q": two}])[:2]
    (1.0, 1.0)
    """
    if len(rounds) < 2:
        raise RivalsError(f"stability is between rounds; there is only {len(rounds)}")
    rows, moved, rarity = [], [], _rarity(rounds)
    for old, new in pairwise(rounds):
        for query in old.keys() & new.keys():
            both = set(old[query].authors) & set(new[query].authors)
            if len(both) < 2:
                continue
            before, after = ([a for a in ranking.authors if a in both] for ranking in (old[query], new[query]))
            change = top_change(before, after), kendall_distance(before, after), ranking_overlap(before, after, p=p)
            rows.append(change)
            moved += [
                _text_distance(old[query].texts[author], new[query].texts[author], rarity)
                for author in both
                if author in old[query].texts and author in new[query].texts
            ]
    if not rows:
        raise RivalsError("no query has two authors in two rounds that follow each other; nothing can be compared")
    graded = [ranking for held in rounds for ranking in held.values() if ranking.relevance]
    tops = [ranking.relevance.get(ranking.authors[0], 0.0) for ranking in graded]
    bests = [max(ranking.relevance.get(author, 0.0) for author in ranking.authors) for ranking in graded]
    top, distance, overlap = np.array(rows, dtype=np.float64).mean(0).tolist()
    return RoundStability(top, distance, overlap, _mean(moved), _mean(tops), _mean(bests), len(rows))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _rarity(rounds: Sequence[Mapping[str, Ranking]]) -> dict[str, float]:
    """The inverse document frequency of every word over all texts of all rounds, log((1 + N) / (1 + n)) + 1."""
    texts = [text for held in rounds for ranking in held.values() for text in ranking.texts.values()]
    counts = Counter(word for text in texts for word in {word.lower() for word in words_of(text)})
    return {word: math.log((1 + len(texts)) / (1 + count)) + 1 for word, count in counts.items()}


def _text_distance(before: str, after: str, rarity: Mapping[str, float]) -> float:
    """1 - cosine of the TF-IDF vectors of two texts."""
    counts = [Counter(word.lower() for word in words_of(text)) for text in (before, after)]
    words = list(counts[0] | counts[1])
    left, right = (np.array([count[word] * rarity[word] for word in words]) for count in counts)
    norm = float(np.linalg.norm(left) * np.linalg.norm(right))
    return 1 - float(left @ right) / norm if norm else float(before != after)


def _biased(
    agreement: NDArray[np.float64], p: float, depth: NDArray[np.int64], extrapolate: bool
) -> NDArray[np.float64]:
    """Rank-biased sums of agreements [Q, D], each down to its own depth."""
    ranks = np.arange(agreement.shape[1])
    inside = ranks < depth[:, None]
    total = ((1 - p) * p**ranks * agreement * inside).sum(1)
    if not extrapolate:
        return total
    last = np.take_along_axis(agreement, np.maximum(depth - 1, 0)[:, None], 1)[:, 0]
    return total + p**depth * last


def _check_rankings(*rankings: Sequence[str]) -> None:
    for ranking in rankings:
        if not len(ranking):
            raise RivalsError("a ranking is empty; it needs one member at least")
        if len(set(ranking)) < len(ranking):
            raise RivalsError("a ranking names a member twice; every member has one place")
