"""`evaluate`: systems on a data set, with what is sure about them and what is not; and the value it returns,
`Evaluation`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.errors import RivalsError
from rivals.evaluate.compare import Comparison, compact_letters, compare_pairs, compare_with_baselines, places
from rivals.measures.intervals import Interval, bootstrap_interval

if TYPE_CHECKING:
    from rich.table import Table

    from rivals.data.dataset import Dataset
    from rivals.data.run import Run
    from rivals.measures.names import Measure

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "R@10", "R@100", "P@1")
_VERSION = 1


@dataclass(frozen=True)
class Coverage:
    """What one system answered: how many judged queries got no result (and count as 0), how many of its queries were
    left out because the data set does not judge them, and the share of its first 10 documents that nobody judged.

    >>> Coverage(without_results=1, left_out=0, unjudged_at_10=0.25).unjudged_at_10
    0.25
    """

    without_results: int
    left_out: int
    unjudged_at_10: float


@dataclass(frozen=True)
class WorstQuery:
    """A query on which a system does badly: its id, the system's value and every system's value.

    >>> WorstQuery("q7", 0.0, {"bm25": 0.0, "ours": 1.0}).query
    'q7'
    """

    query: str
    value: float
    all_values: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Systems measured on the same queries: values per query, means with intervals, tests, tie groups. Made by
    `evaluate`.

    `values[S, M, Q]` holds every system's measures per query, 0 where it returned nothing. The first measure is the
    primary one: it orders the table and makes the groups. `p_pairs[S, S]` are the p-values of all pairs on it,
    Holm-corrected; `comparisons` are the tests against the baselines on all measures. Prints as a table, saves as JSON.
    """

    systems: tuple[str, ...]
    measures: tuple[str, ...]
    baselines: tuple[str, ...]
    queries: tuple[str, ...]
    values: NDArray[np.float64]
    intervals: Mapping[str, Mapping[str, Interval]]
    comparisons: tuple[Comparison, ...]
    p_pairs: NDArray[np.float64]
    coverage: Mapping[str, Coverage]
    dataset: str
    queries_without_judgements: int
    queries_without_relevant: int
    level: float
    resamples: int
    permutations: int
    seed: int

    @property
    def primary(self) -> str:
        """The first measure, which orders systems."""
        return self.measures[0]

    @cached_property
    def per_query(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """Values by system and measure, each [Q] in the order of `queries`."""
        return {s: {m: self.values[i, j] for j, m in enumerate(self.measures)} for i, s in enumerate(self.systems)}

    def mean(self, system: str, measure: str | None = None) -> float:
        """Return the mean of one measure (the primary one unless named) over the queries."""
        return float(self.intervals[self._known(system)][self._measure(measure)].estimate)

    @cached_property
    def groups(self) -> dict[str, str]:
        """Letters by system; systems which share a letter cannot be told apart on the primary measure."""
        letters = compact_letters(self._primary_means, self.p_pairs, alpha=1 - self.level)
        return dict(zip(self.systems, letters, strict=True))

    @cached_property
    def places(self) -> dict[str, int]:
        """1 + the number of systems that are surely better on the primary measure; equal places are ties."""
        return dict(zip(self.systems, places(self._primary_means, self.p_pairs, alpha=1 - self.level), strict=True))

    @property
    def order(self) -> tuple[str, ...]:
        """Systems by the mean of the primary measure, highest first; equal means by name."""
        return tuple(sorted(self.systems, key=lambda system: (-self.mean(system), system)))

    def comparison(self, system: str, baseline: str, measure: str | None = None) -> Comparison:
        """Return the test of a system against a baseline on a measure (the primary one unless named).

        Raises:
            RivalsError: there is no such comparison.
        """
        wanted = (self._known(system), self._known(baseline), self._measure(measure))
        for comparison in self.comparisons:
            if (comparison.system, comparison.baseline, comparison.measure) == wanted:
                return comparison
        raise RivalsError(
            f"'{system}' was not tested against '{baseline}'; baselines were {', '.join(self.baselines) or 'none'}"
        )

    def worst_queries(
        self, system: str, n: int = 10, *, measure: str | None = None, against: str | None = None
    ) -> list[WorstQuery]:
        """Return the `n` queries where a system does worst; among equals those come first where the other systems do
        best.

        Args:
            measure: the primary one unless named.
            against: order by the difference to this system instead of the value alone.
        """
        row, column = self.systems.index(self._known(system)), self.measures.index(self._measure(measure))
        values = self.values[:, column]
        own = values[row] if against is None else values[row] - values[self.systems.index(self._known(against))]
        rest = -np.delete(values, row, axis=0).mean(axis=0) if len(self.systems) > 1 else np.zeros_like(own)
        worst = np.lexsort((rest.round(12), own.round(12)))[:n]
        return [
            WorstQuery(
                self.queries[q], float(values[row, q]), dict(zip(self.systems, values[:, q].tolist(), strict=True))
            )
            for q in worst.tolist()
        ]

    def table(self) -> Table:
        """Return the means with intervals as a rich table, systems by the primary measure, ties marked."""
        from rivals.evaluate.tables import means_table

        return means_table(self)

    def comparison_table(self, measure: str | None = None) -> Table:
        """Return the tests against the baselines on one measure (the primary one unless named) as a rich table."""
        from rivals.evaluate.tables import comparison_table

        return comparison_table(self, self._measure(measure))

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Table]:
        yield self.table()
        if self.comparisons:
            yield self.comparison_table()

    def __str__(self) -> str:
        from rivals.evaluate.tables import as_text

        return as_text(self)

    __repr__ = __str__

    # --------------------------------------------------------------------------------------------------------- saving

    def to_json(self) -> str:
        """Return everything as JSON; numbers that are not finite are written as strings. `from_json` reads it back
        exactly."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        content["intervals"] = {s: {m: list(i) for m, i in row.items()} for s, row in self.intervals.items()}
        content["comparisons"] = [asdict(comparison) for comparison in self.comparisons]
        content["coverage"] = {system: asdict(seen) for system, seen in self.coverage.items()}
        content |= {"values": self.values.tolist(), "p_pairs": self.p_pairs.tolist()}
        summary = {"groups": self.groups, "places": self.places}
        return json.dumps(
            _plain({"format": "rivals evaluation", "version": _VERSION, **content, **summary}), allow_nan=False
        )

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """Read what `to_json` wrote.

        Raises:
            RivalsError: it is not an evaluation, or one of another version.
        """
        try:
            content = json.loads(text)
            if content["format"] != "rivals evaluation":
                raise KeyError("format")
            if content["version"] != _VERSION:
                raise RivalsError(
                    f"this evaluation has version {content['version']}; version {_VERSION} can be read here"
                )
            fields = {name: content[name] for name in cls.__dataclass_fields__}
            for name in ("systems", "measures", "baselines", "queries"):
                fields[name] = tuple(fields[name])
            for name in ("values", "p_pairs"):
                fields[name] = np.array(fields[name], dtype=np.float64)
            fields["intervals"] = {
                s: {m: Interval(*map(float, ends)) for m, ends in row.items()} for s, row in fields["intervals"].items()
            }
            fields["comparisons"] = tuple(_comparison(row) for row in fields["comparisons"])
            fields["coverage"] = {system: Coverage(**seen) for system, seen in fields["coverage"].items()}
            return cls(**fields)
        except RivalsError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as fault:
            raise RivalsError(
                f"this is not a saved evaluation ({type(fault).__name__}: {fault}); save one with to_json()"
            ) from None

    # ------------------------------------------------------------------------------------------------------- internal

    @property
    def _primary_means(self) -> list[float]:
        return [self.mean(system) for system in self.systems]

    def _known(self, system: str) -> str:
        if system not in self.systems:
            raise RivalsError(f"no system is called '{system}'; there are {', '.join(self.systems)}")
        return system

    def _measure(self, measure: str | None) -> str:
        if measure is None:
            return self.primary
        if measure not in self.measures:
            raise RivalsError(f"'{measure}' was not measured; there are {', '.join(self.measures)}")
        return measure


_NUMBERS = ("difference", "low", "high", "p", "p_corrected", "effect_size", "detectable")


def _plain(content: Any) -> Any:
    """Make content fit for strict JSON: mappings to dicts, NaN and infinities to the strings that float() reads."""
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return str(content) if isinstance(content, float) and not np.isfinite(content) else content


def _comparison(row: Mapping[str, Any]) -> Comparison:
    fields: dict[str, Any] = {key: float(value) if key in _NUMBERS else value for key, value in row.items()}
    return Comparison(**fields)


def evaluate(
    systems: Mapping[str, Run],
    dataset: Dataset,
    *,
    measures: Sequence[str] = DEFAULT_MEASURES,
    baselines: Sequence[str] = (),
    level: float = 0.95,
    resamples: int = 10_000,
    permutations: int = 10_000,
    seed: int = 0,
) -> Evaluation:
    """Measure systems on the judged queries of a data set and say what the data can and cannot tell apart.

    Every query with at least one judgement counts, for every system alike: a system without results there scores 0.
    Queries without judgements are left out and counted. Documents nobody judged count as not relevant, and their share
    is reported. A run's `keep` marks are about negatives and play no part. Means come with bootstrap intervals (BCa),
    each system is tested against the baselines on every measure, and all pairs on the first measure make the tie
    groups; see `Evaluation`.

    Args:
        systems: a run by the name of each system. Runs may hold the queries in any order, and other queries too.
        measures: names as `rivals.measures.parse_measure` reads them; the first is the primary one.
        baselines: names of systems to test the others against.
        level: of the intervals; tests are made at 1 - level.

    Raises:
        RivalsError: no system, no judged query, an unknown measure or baseline, a run with documents which the data set
            does not have.

    >>> from rivals.data import Collection, Dataset, Judgements, Run
    >>> queries, documents = Collection(["q1", "q2"], name="query"), Collection(["a", "b"])
    >>> data = Dataset(queries, documents, Judgements.build([0, 1], [0, 1], [1, 1], queries=2, documents=2))
    >>> run = Run.build(queries, documents, [0, 2, 4], [0, 1, 0, 1], [.9, .1, .8, .2])
    >>> evaluate({"ours": run}, data, measures=["RR@10"]).per_query["ours"]["RR@10"].tolist()
    [1.0, 0.5]
    """
    from rivals.measures.names import parse_measure

    if not systems:
        raise RivalsError("there is no system to evaluate; give at least one run, by name")
    parsed = [parse_measure(measure) for measure in measures]
    names = tuple(measure.name for measure in parsed)
    if not names or len(set(names)) < len(names):
        raise RivalsError(f"measures must be given, each once; got {', '.join(names) or 'none'}")
    for baseline in baselines:
        if baseline not in systems:
            raise RivalsError(f"baseline '{baseline}' is not among the systems: {', '.join(systems)}")
    judged = np.flatnonzero(np.diff(dataset.judgements.offsets) > 0)
    if not len(judged):
        raise RivalsError(f"none of the {len(dataset.queries)} queries has a judgement; nothing can be measured")
    judgements = dataset.judgements.take(judged)
    measured = [_measure_run(name, run, dataset, judged, parsed) for name, run in systems.items()]
    values = np.stack([row for row, _ in measured])
    estimate, low, high = bootstrap_interval(values, level=level, resamples=resamples, seed=seed)
    return Evaluation(
        systems=tuple(systems),
        measures=names,
        baselines=tuple(dict.fromkeys(baselines)),
        queries=tuple(dataset.queries.ids[judged].tolist()),
        values=values,
        intervals={
            system: {
                m: Interval(float(estimate[i, j]), float(low[i, j]), float(high[i, j])) for j, m in enumerate(names)
            }
            for i, system in enumerate(systems)
        },
        comparisons=compare_with_baselines(
            values,
            list(systems),
            names,
            baselines,
            level=level,
            resamples=resamples,
            permutations=permutations,
            seed=seed,
        ),
        p_pairs=compare_pairs(values[:, 0], permutations=permutations, seed=seed),
        coverage={system: seen for system, (_, seen) in zip(systems, measured, strict=True)},
        dataset=dataset.name,
        queries_without_judgements=len(dataset.queries) - len(judged),
        queries_without_relevant=int((np.diff(judgements.positives.offsets) == 0).sum()),
        level=level,
        resamples=resamples,
        permutations=permutations,
        seed=seed,
    )


def _measure_run(
    name: str, run: Run, dataset: Dataset, judged: NDArray[np.int64], measures: Sequence[Measure]
) -> tuple[NDArray[np.float64], Coverage]:
    """Return the measures of one run on the judged query rows, [M, Q], and what it covers."""
    from rivals.measures.names import measure_all, parse_measure

    offsets, document, score, left_out = _aligned(name, run, dataset, judged)
    judgements = dataset.judgements.take(judged)
    place = lists.find_pairs(judgements.offsets, judgements.document, lists.segment_ids(offsets), document)
    relevance = np.where(place >= 0, judgements.relevance[place], np.float32(np.nan))
    unjudged = parse_measure("Judged@10")
    cuts = [measure.k for measure in (*measures, unjudged)]
    width = None if None in cuts else max(cut for cut in cuts if cut is not None)
    values = measure_all(
        [*measures, unjudged],
        lists.pad(score, offsets, fill=np.float32(0), width=width),
        lists.pad(relevance, offsets, fill=np.float32(np.nan), width=width),
        lists.pad_mask(offsets, width),
        ideal=lists.pad(judgements.relevance, judgements.offsets, fill=np.float32(0)),
        ranked=True,
    )
    answered = np.diff(offsets) > 0
    seen = Coverage(
        without_results=int((~answered).sum()),
        left_out=left_out,
        unjudged_at_10=float(1 - values[unjudged.name][answered].mean()) if answered.any() else 0.0,
    )
    return np.stack([values[measure.name] for measure in measures]), seen


def _aligned(
    name: str, run: Run, dataset: Dataset, judged: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], int]:
    """Return a run's candidates for the judged queries, in rank order, as offsets, the data set's document rows and
    scores, and the number of queries with results that are left out."""
    same_queries = run.queries is dataset.queries
    rows = judged if same_queries else run.queries.find(dataset.queries.ids[judged].tolist())
    lengths = np.diff(run.offsets)
    index, _ = lists.take_segments(run.offsets, rows[rows >= 0])
    offsets = lists.offsets_from_lengths(np.where(rows >= 0, lengths[rows] if len(lengths) else 0, 0))
    document = run.document
    if run.documents is not dataset.documents:
        known = dataset.documents.find(run.documents.ids.tolist())
        if len(document) and (known[document] < 0).any():
            missing = run.documents.ids[document[known[document] < 0][0]]
            count = len(np.unique(document[known[document] < 0]))
            raise RivalsError(
                f"system '{name}' returned document '{missing}', which the data set does not have ({count} such); "
                "evaluate it on the collection it searched"
            )
        document = known[document] if len(known) else document
    left_out = int((lengths > 0).sum() - (np.diff(offsets) > 0).sum())
    return offsets, document[index], run.score[index], left_out
