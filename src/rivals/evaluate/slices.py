"""Views of an evaluation by slices of the queries: means, and whether the difference of two systems depends on the slice.

A gain that is there "on long queries" and not "on short ones" is claimed rightly only if the two differences differ;
`groups_differ_test` asks that, and the p-values of all slicings and pairs of an evaluation are corrected together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError
from rivals.measures.between_groups import groups_differ_test
from rivals.measures.intervals import Interval, bootstrap_interval
from rivals.measures.significance import corrected

if TYPE_CHECKING:
    from rivals.data.dataset import Dataset

SMALL = 20
"""A slice of fewer queries than this takes no part in tests, and is pointed out."""

_MOST = 10  # slices by a column; further values are put together
_BINS = 3  # of a number that has many values


@dataclass(frozen=True, eq=False)
class Slicing:
    """Which slice every query is in: `label_of[Q]` int64 indexes `labels`, -1 where the query has no value.

    >>> Slicing("type", ("what", "how"), np.array([0, 1, 1])).sizes
    (1, 2)
    """

    by: str
    labels: tuple[str, ...]
    label_of: NDArray[np.int64]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of queries of every slice."""
        return tuple(np.bincount(self.label_of[self.label_of >= 0], minlength=len(self.labels)).tolist())


@dataclass(frozen=True)
class SliceTest:
    """Whether the difference of two systems on a measure differs between slices: the difference in each, p-values.

    `p` is that of the permutation test between the slices, `p_corrected` the same after correction over all slicings
    and pairs; both NaN where fewer than two slices are large enough.
    """

    system: str
    baseline: str
    measure: str
    differences: tuple[Interval, ...]
    p: float
    p_corrected: float


@dataclass(frozen=True, eq=False)
class SliceView:
    """An evaluation by the slices of one slicing: means with intervals by system and measure, tests, cautions."""

    slicing: Slicing
    intervals: Mapping[str, Mapping[str, tuple[Interval, ...]]]
    tests: tuple[SliceTest, ...]
    cautions: tuple[str, ...]


def slice_queries(
    dataset: Dataset, by: str, rows: NDArray[np.int64] | None = None, *, train: Dataset | None = None
) -> Slicing:
    """Put queries into slices.

    Args:
        by: "length" (words of the query, in thirds), "relevant" (the number of relevant documents), "seen" (whether the
            training data has the query's topic; without a `topic` column, whether it has one of its relevant
            documents), "split" (of the data set), or any column of the queries: texts and flags give a slice for each
            value, the 10 most frequent at most, numbers with many values give thirds. A column of that name goes before
            the built-in meaning.
        rows: the query rows to slice; None is all.
        train: the training data that "seen" looks at.

    Raises:
        RivalsError: no such column; no texts for "length"; no training data for "seen"; no splits for "split".

    >>> from rivals.data import load_sample
    >>> slicing = slice_queries(load_sample().split("test"), "length")
    >>> dict(zip(slicing.labels, slicing.sizes))
    {'4 to 7 words': 312, '8 to 9 words': 289, '10 to 18 words': 249}
    """
    rows = np.arange(len(dataset.queries)) if rows is None else rows
    if by in dataset.queries.table.column_names and by not in ("id", "text"):
        return _by_values(by, dataset.queries.table[by].take(rows).to_pylist())
    if by not in _MEANINGS:
        columns = [name for name in dataset.queries.table.column_names if name not in ("id", "text")]
        raise RivalsError(
            f"queries cannot be sliced by '{by}'; there are {', '.join(_MEANINGS)}"
            + (f" and the columns {', '.join(columns)}" if columns else "; these queries have no further columns")
        )
    return _MEANINGS[by](dataset, rows, train)


def slice_views(
    slicings: Sequence[Slicing],
    values: NDArray[np.float64],
    systems: Sequence[str],
    measures: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    *,
    level: float = 0.95,
    correction: str = "holm",
    resamples: int = 10_000,
    permutations: int = 10_000,
    seed: int = 0,
) -> tuple[SliceView, ...]:
    """Measure every slice, and test for every pair whether its difference on the first measure differs between slices.

    Shapes: values[S, M, Q] per query. Slices of fewer than 20 queries are measured but not tested; those of fewer than
    two have no interval.

    >>> rng = np.random.default_rng(0)
    >>> slicing = Slicing("type", ("easy", "hard"), np.repeat([0, 1], 40))
    >>> values = np.stack([rng.random(80), rng.random(80) + np.repeat([0, .5], 40)])[:, None]
    >>> view = slice_views([slicing], values, ["a", "b"], ["RR"], [("b", "a")], resamples=200, permutations=999)[0]
    >>> view.tests[0].p_corrected < 0.01
    True
    """
    options: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    raw: list[list[tuple[str, str, tuple[Interval, ...], float]]] = []
    for slicing in slicings:
        large = np.isin(slicing.label_of, [i for i, size in enumerate(slicing.sizes) if size >= SMALL])
        testable = sum(size >= SMALL for size in slicing.sizes) > 1
        found = []
        for system, baseline in pairs:
            difference = values[list(systems).index(system), 0] - values[list(systems).index(baseline), 0]
            difference[np.abs(difference) < 1e-12] = 0.0
            p = np.nan
            if testable:
                group = slicing.label_of[large]
                p = groups_differ_test(difference[large], group, permutations=permutations, seed=seed)
            ends = tuple(
                Interval(*map(float, _interval(difference[slicing.label_of == i], options)))
                for i in range(len(slicing.labels))
            )
            found.append((system, baseline, ends, float(p)))
        raw.append(found)
    p_values = np.array([p for found in raw for *_, p in found])
    adjusted = np.full(len(p_values), np.nan)
    known = ~np.isnan(p_values)
    adjusted[known] = corrected(p_values[known], correction)
    ordered = iter(adjusted.tolist())
    return tuple(
        SliceView(
            slicing,
            _means(slicing, values, systems, measures, options),
            tuple(SliceTest(s, b, measures[0], ends, p, next(ordered)) for s, b, ends, p in found),
            _cautions(slicing),
        )
        for slicing, found in zip(slicings, raw, strict=True)
    )


def _means(
    slicing: Slicing,
    values: NDArray[np.float64],
    systems: Sequence[str],
    measures: Sequence[str],
    options: Mapping[str, Any],
) -> dict[str, dict[str, tuple[Interval, ...]]]:
    parts = [_interval(values[:, :, slicing.label_of == i], options) for i in range(len(slicing.labels))]
    return {
        system: {
            measure: tuple(Interval(*(float(end[s, m]) for end in part)) for part in parts)
            for m, measure in enumerate(measures)
        }
        for s, system in enumerate(systems)
    }


def _interval(values: NDArray[np.float64], options: Mapping[str, Any]) -> Interval:
    return bootstrap_interval(values, **options)


def _cautions(slicing: Slicing) -> tuple[str, ...]:
    found = []
    small = [f"{label} ({n})" for label, n in zip(slicing.labels, slicing.sizes, strict=True) if n < SMALL]
    if small:
        found.append(
            f"Too small to be tested (fewer than {SMALL} queries), and their means may be chance: {', '.join(small)}."
        )
    if missing := int((slicing.label_of < 0).sum()):
        found.append(f"{missing} queries have no value of '{slicing.by}' and are in no slice.")
    if len(slicing.labels) < 2:
        found.append(f"All queries are in one slice by '{slicing.by}'; there is nothing to compare.")
    return tuple(found)


# ----------------------------------------------------------------------------------------------------------- slicings


def _by_length(dataset: Dataset, rows: NDArray[np.int64], train: Dataset | None) -> Slicing:
    texts = dataset.queries.texts
    chosen = [texts[row] for row in rows.tolist()]
    words = np.array([len(text.split()) for text in chosen], dtype=np.int64)
    if np.median(words) > 1:
        return _binned("length", words, " words")
    return _binned("length", np.array([len(text) for text in chosen], dtype=np.int64), " characters")


def _by_relevant(dataset: Dataset, rows: NDArray[np.int64], train: Dataset | None) -> Slicing:
    counts = np.diff(dataset.judgements.positives.offsets)[rows]
    return _binned("relevant", counts, " relevant")


def _by_seen(dataset: Dataset, rows: NDArray[np.int64], train: Dataset | None) -> Slicing:
    if train is None:
        raise RivalsError("whether a topic was seen is known only with the training data; give it as train")
    if all("topic" in data.queries.table.column_names for data in (dataset, train)):
        trained = set(train.queries.table["topic"].to_pylist())
        topics = dataset.queries.table["topic"].take(rows).to_pylist()
        seen = [-1 if topic is None else int(topic not in trained) for topic in topics]
        return _compact(Slicing("seen", ("seen topic", "unseen topic"), np.array(seen, dtype=np.int64)))
    positives = train.judgements.positives
    known = dataset.documents.find(train.documents.ids[np.unique(positives.document)].tolist())
    ours = dataset.judgements.positives.take(rows)
    hits = np.bincount(ours.query[np.isin(ours.document, known)], minlength=len(rows)) > 0
    labels = ("seen relevant document", "unseen relevant documents")
    return _compact(Slicing("seen", labels, np.where(hits, 0, 1).astype(np.int64)))


def _by_split(dataset: Dataset, rows: NDArray[np.int64], train: Dataset | None) -> Slicing:
    if not dataset.splits:
        raise RivalsError("the data set has no splits to slice by")
    label_of = np.full(len(dataset.queries), -1, dtype=np.int64)
    for place, members in enumerate(dataset.splits.values()):
        label_of[members] = place
    return _compact(Slicing("split", tuple(dataset.splits), label_of[rows]))


_MEANINGS: dict[str, Callable[[Any, NDArray[np.int64], Any], Slicing]] = {
    "length": _by_length,
    "relevant": _by_relevant,
    "seen": _by_seen,
    "split": _by_split,
}


def _by_values(by: str, values: Sequence[Any]) -> Slicing:
    """Slices by the values of a column."""
    present = [value for value in values if value is not None]
    if any(isinstance(value, list | dict) for value in present):
        raise RivalsError(f"query column '{by}' holds lists; slice by a column with one value a query")
    numeric = present and all(isinstance(v, int | float) and not isinstance(v, bool) for v in present)
    if numeric and len(set(present)) > _MOST:
        return _binned(by, np.array([np.nan if value is None else value for value in values], dtype=np.float64), "")
    counts: dict[Any, int] = {}
    for value in present:
        counts[value] = counts.get(value, 0) + 1
    ordered = sorted(counts, key=lambda value: (-counts[value], str(value)))
    named = ordered if len(ordered) <= _MOST else ordered[: _MOST - 1]
    place = {value: min(i, len(named)) for i, value in enumerate(ordered)}
    labels = [str(value) if str(value) else "(empty)" for value in named]
    if len(ordered) > len(named):
        labels.append(f"{len(ordered) - len(named):,} other values")
    return Slicing(by, tuple(labels), np.array([-1 if v is None else place[v] for v in values], dtype=np.int64))


def _binned(by: str, numbers: NDArray[Any], unit: str) -> Slicing:
    """Slices by a number: 0 alone where it is the least of whole numbers, the rest in thirds of the queries."""
    known = np.isfinite(numbers.astype(np.float64))
    whole = bool((numbers[known] == np.round(numbers[known])).all())
    values = np.unique(numbers[known])
    edges: list[Any] = values.tolist()
    if len(values) > 2 * _BINS:
        zero = whole and values[0] == 0
        rest, counts = np.unique(numbers[known & (numbers != 0)] if zero else numbers[known], return_counts=True)
        before = (np.cumsum(counts) - counts) / counts.sum()  # the share of queries below each value
        cuts = {int(np.abs(before - i / _BINS).argmin()) for i in range(_BINS)} | {0}
        edges = rest[sorted(cuts)].tolist()
        edges = [0, *edges] if zero else edges
    label_of = np.where(known, np.searchsorted(np.array(edges), numbers, side="right") - 1, -1).astype(np.int64)
    labels = []
    for i in range(len(edges)):
        inside = numbers[label_of == i]
        low, high = f"{inside.min():.6g}", f"{inside.max():.6g}"
        labels.append((low if low == high else f"{low} to {high}") + unit)
    return Slicing(by, tuple(labels), label_of)


def _compact(slicing: Slicing) -> Slicing:
    """Drop labels that no query has."""
    used = [i for i, size in enumerate(slicing.sizes) if size]
    place = np.full(len(slicing.labels) + 1, -1, dtype=np.int64)
    place[used] = np.arange(len(used))
    return Slicing(slicing.by, tuple(slicing.labels[i] for i in used), place[slicing.label_of])
