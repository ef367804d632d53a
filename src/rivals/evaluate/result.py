"""`Evaluation`: what `evaluate` returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError
from rivals.evaluate.alignment import Coverage
from rivals.evaluate.compare import Comparison, compact_letters, places
from rivals.evaluate.slices import SliceView
from rivals.measures.intervals import Interval

if TYPE_CHECKING:
    from rich.table import Table

    from rivals.data.leakage import LeakageReport


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
    primary one: it orders the table and makes the groups. `p_pairs[S, S]` are the p-values of all pairs on it, after
    `correction`; `comparisons` are the tests against the baselines on all measures. `slices` are the views by slices of
    the queries, `condensed` the means on lists without unjudged documents, `leakage` what test and training data share,
    `cautions` sentences about what does not mean what it seems to. Prints as tables, saves as JSON (`to_json`), and per
    query as a table (`save_per_query`).
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
    correction: str = "holm"
    power: float = 0.8
    queries_not_common: int = 0
    slices: tuple[SliceView, ...] = ()
    condensed: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    leakage: LeakageReport | None = None
    cautions: tuple[str, ...] = ()

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

    def slice_table(self, by: str) -> Table:
        """Return the view by one slicing as a rich table.

        Raises:
            RivalsError: the evaluation was not sliced so.
        """
        from rivals.evaluate.tables import slice_table

        return slice_table(self, self.slice_view(by))

    def slice_view(self, by: str) -> SliceView:
        """Return the view by one slicing.

        Raises:
            RivalsError: the evaluation was not sliced so.
        """
        for view in self.slices:
            if view.slicing.by == by:
                return view
        known = ", ".join(view.slicing.by for view in self.slices) or "none"
        raise RivalsError(f"this evaluation has no slices by '{by}'; there are {known}")

    def condensed_table(self) -> Table:
        """Return the means on lists without unjudged documents as a rich table.

        Raises:
            RivalsError: the evaluation was made without `condensed`.
        """
        from rivals.evaluate.tables import condensed_table

        if not self.condensed:
            raise RivalsError("there are no condensed lists; evaluate with condensed=True")
        return condensed_table(self)

    @property
    def power_sentence(self) -> str:
        """Which differences on the primary measure this many queries cannot show, in a sentence; "" for one system."""
        from rivals.evaluate.power import power_sentence

        return power_sentence(self)

    def save_per_query(self, path: str | Path) -> None:
        """Write every system's values per query as CSV, TSV, JSONL or Parquet, by the file's name: a row for each query
        and system, a column for each measure and slicing.

        Raises:
            DataError: the name tells no format.
        """
        from rivals.data.formats.tables import write_table

        count = len(self.systems)
        columns: dict[str, Any] = {"query": [query for query in self.queries for _ in range(count)]}
        columns["system"] = list(self.systems) * len(self.queries)
        for view in self.slices:
            labels = [*view.slicing.labels, None]  # -1 is no label
            name = f"slice {view.slicing.by}"
            columns[name] = [labels[i] for i in view.slicing.label_of.tolist() for _ in range(count)]
        for m, measure in enumerate(self.measures):
            columns[measure] = self.values[:, m].T.ravel().tolist()
        write_table(columns, path)

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        yield self.table()
        if self.comparisons:
            yield self.comparison_table()
        for view in self.slices:
            yield self.slice_table(view.slicing.by)
        if self.condensed:
            yield self.condensed_table()
        if self.leakage is not None:
            from rivals.evaluate.tables import leakage_lines

            yield leakage_lines(self.leakage)

    def __str__(self) -> str:
        from rivals.evaluate.tables import as_text

        return as_text(self)

    __repr__ = __str__

    def to_json(self) -> str:
        """Return everything as JSON; numbers that are not finite are written as strings. `from_json` reads it back
        exactly."""
        from rivals.evaluate.saving import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """Read what `to_json` wrote.

        Raises:
            RivalsError: it is not an evaluation, or one of another version.
        """
        from rivals.evaluate.saving import from_json

        return from_json(text)

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
