"""What fusions share: candidates of several runs side by side, normalised scores, the choice of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data import Collection, Judgements, Run
from rivals.data.marks import merge_features, merge_marks
from rivals.data.pipeline import check_aligned
from rivals.errors import RivalsError
from rivals.measures import measure_all

Normalisation = Literal["min-max", "z-score", "none"]


@dataclass(frozen=True, slots=True)
class Pooled:
    """All candidates of several runs over the same queries.

    `scores` and `ranks` are [n, runs], NaN where a run lacks the candidate. `marks` and `reasons` are what filters said
    in any of the runs, `features` what the runs brought along.
    """

    queries: Collection
    documents: Collection
    offsets: NDArray[np.int64]
    document: NDArray[np.int64]
    scores: NDArray[np.float32]
    ranks: NDArray[np.float32]
    names: tuple[str, ...]
    marks: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def query(self) -> NDArray[np.int64]:
        return lists.segment_ids(self.offsets)


@dataclass(frozen=True, slots=True)
class Scales:
    """How each run's scores of a query are normalised: (score - low) / width, [Q, runs].

    `absent` stands for a missing score and `floor` for lower values: what was not retrieved counts as the lowest
    that was.
    """

    low: NDArray[np.float64]
    width: NDArray[np.float64]
    absent: NDArray[np.float64]
    floor: NDArray[np.float64]


def pool(runs: Sequence[Run]) -> Pooled:
    queries, documents = check_aligned(runs)
    names = tuple(run.scorer or f"run {i + 1}" for i, run in enumerate(runs))
    if len(set(names)) != len(names):
        raise RivalsError(f"runs to fuse need different scorers, not {', '.join(names)}")
    size = max(len(documents), 1)
    keys = [run.query * size + run.document for run in runs]
    unique = np.unique(np.concatenate(keys))
    scores, ranks = np.full((2, len(unique), len(runs)), np.nan, dtype=np.float32)
    places = [np.searchsorted(unique, key) for key in keys]
    for i, (run, place) in enumerate(zip(runs, places, strict=True)):
        scores[place, i], ranks[place, i] = run.score, run.rank
    query, document = np.divmod(unique, size)
    offsets = lists.offsets_from_lengths(np.bincount(query, minlength=len(queries)))
    marks, reasons = merge_marks(runs, places, len(unique))
    features = merge_features(runs, places, len(unique))
    return Pooled(queries, documents, offsets, document, scores, ranks, names, marks, reasons, features)


def build_run(pooled: Pooled, score: NDArray[np.floating], name: str, k: int | None) -> Run:
    proposer = np.argmin(np.where(np.isnan(pooled.ranks), np.inf, pooled.ranks), axis=1)
    run = Run.build(
        pooled.queries,
        pooled.documents,
        pooled.offsets,
        pooled.document,
        score,
        source=proposer,
        features={**pooled.features, **{name: pooled.scores[:, i] for i, name in enumerate(pooled.names)}},
        sources=pooled.names,
        scorer=name,
        score_kind="other",
        columns=pooled.marks,
    ).replace(reasons=pooled.reasons)
    return run if k is None else run.top(k)


def reciprocal(
    ranks: NDArray[np.float32], k0: float, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    worth = 1.0 / (k0 + 1.0 + ranks.astype(np.float64))
    worth = np.where(np.isnan(worth), 0.0, worth)
    total: NDArray[np.float64] = worth.sum(axis=1) if weights is None else worth @ weights
    return total


def look_up(
    run: Run, column: NDArray[np.generic], query: NDArray[np.int64], document: NDArray[np.int64]
) -> NDArray[np.float32]:
    place = lists.find_pairs(run.offsets, run.document, np.asarray(query, np.int64), np.asarray(document, np.int64))
    found = np.full(len(place), np.nan, dtype=np.float32)
    found[place >= 0] = column[place[place >= 0]]
    return found


def scales_of(scores: NDArray[np.float32], offsets: NDArray[np.int64], normalisation: Normalisation) -> Scales:
    """Return how to normalise, from the scores that each run gave itself (not NaN)."""
    check_normalisation(normalisation)
    shape = (len(offsets) - 1, scores.shape[1])
    low, width, absent = np.zeros(shape), np.ones(shape), np.zeros(shape)
    if normalisation == "none":
        return Scales(low, width, absent, np.full(shape, -np.inf))
    for i in range(scores.shape[1]):
        given = ~np.isnan(scores[:, i])
        own, values = lists.keep_values(given, offsets), scores[given, i].astype(np.float64)
        smallest = lists.segment_reduce(np.minimum, values, own)
        if normalisation == "min-max":
            low[:, i] = smallest
            width[:, i] = lists.segment_reduce(np.maximum, values, own) - smallest
        else:
            count = np.maximum(np.diff(own), 1)
            low[:, i] = lists.segment_reduce(np.add, values, own) / count
            spread = (values - low[lists.segment_ids(own), i]) ** 2
            width[:, i] = np.sqrt(lists.segment_reduce(np.add, spread, own) / count)
        # One candidate, or all alike: they tell nothing apart, but in min-max they still beat what was not retrieved.
        flat = width[:, i] <= 1e-9 * np.abs(low[:, i])
        width[flat, i] = 1e-6 * np.maximum(np.abs(low[flat, i]), 1e-30)
        if normalisation == "min-max":
            low[flat, i] -= width[flat, i]
        width[np.diff(own) == 0, i] = np.inf  # nothing retrieved: whatever the score, 0
        absent[:, i] = 0.0 if normalisation == "min-max" else (smallest - low[:, i]) / width[:, i]
    return Scales(low, width, absent, absent)


def normalised(scores: NDArray[np.float32], scales: Scales, query: NDArray[np.int64]) -> NDArray[np.float64]:
    value = (scores - scales.low[query]) / scales.width[query]
    return np.maximum(np.where(np.isnan(value), scales.absent[query], value), scales.floor[query])


def check_normalisation(normalisation: str) -> None:
    if normalisation not in ("min-max", "z-score", "none"):
        raise RivalsError(f"normalisation is {normalisation!r}; use 'min-max', 'z-score' or 'none'")


def check_weights(weights: Sequence[float] | Mapping[str, float], names: Sequence[str]) -> NDArray[np.float64]:
    if isinstance(weights, Mapping):
        if set(weights) != set(names):
            raise RivalsError(f"weights are for {', '.join(weights)}, but the runs are {', '.join(names)}")
        weights = [weights[name] for name in names]
    given = np.asarray(weights, dtype=np.float64)
    if given.shape != (len(names),):
        raise RivalsError(f"{given.size} weights for {len(names)} runs; give one a run")
    if not np.isfinite(given).all() or not given.any():
        raise RivalsError(f"weights are {given.tolist()}; they must be finite and not all 0")
    return given


def fit_on(
    pooled: Pooled, values: NDArray[np.float64], judgements: Judgements, measure: str, steps: int
) -> dict[str, float]:
    if steps < 1:
        raise RivalsError(f"steps is {steps}; it must be at least 1")
    if len(judgements.offsets) != len(pooled.offsets):
        raise RivalsError(
            f"the judgements cover {len(judgements.offsets) - 1} queries, the runs {len(pooled.offsets) - 1}"
        )
    judged = np.flatnonzero(np.diff(judgements.positives.offsets) > 0)
    if not len(judged):
        raise RivalsError("no query has a relevant document; weights need judged queries")
    # Measures keep equal scores in the order of the list, so lists in the order of ties rank as runs do.
    by_tie = lists.rank_order(
        np.zeros(len(pooled.document)), pooled.documents.tie_order[pooled.document], pooled.offsets
    )
    index, offsets = lists.take_segments(pooled.offsets, judged)
    index = by_tie[index]
    place = lists.find_pairs(judgements.offsets, judgements.document, pooled.query[index], pooled.document[index])
    relevance = lists.pad(np.where(place >= 0, judgements.relevance[place], np.float32(0)), offsets, fill=0)
    mask, kept = lists.pad_mask(offsets), lists.take_segments(judgements.offsets, judged)
    ideal, ideal_mask = lists.pad(judgements.relevance[kept[0]], kept[1], fill=0), lists.pad_mask(kept[1])

    def worth(weights: NDArray[np.float64]) -> float:
        scores = lists.pad((values[index] @ weights).astype(np.float32), offsets, fill=0)
        found = measure_all([measure], scores, relevance, mask, ideal=ideal, ideal_mask=ideal_mask)
        return float(next(iter(found.values())).mean())

    count = len(pooled.names)
    best = np.full(count, 1.0 / count)
    best_worth, improved = worth(best), count > 1
    while improved:
        improved = False
        for i in range(count):
            rest = np.delete(best, i)
            share = rest / rest.sum() if rest.sum() > 0 else np.full(count - 1, 1.0 / (count - 1))
            for weight in sorted(np.arange(steps + 1) / steps, key=lambda w: (abs(w - 1.0 / count), w)):
                trial = np.insert(share * (1.0 - weight), i, weight)
                value = worth(trial)
                if value > best_worth + 1e-9:
                    best, best_worth, improved = trial, value, True
    return {name: round(float(weight), 6) for name, weight in zip(pooled.names, best, strict=True)}
