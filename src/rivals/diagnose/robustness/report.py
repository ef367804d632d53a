"""`RobustnessReport`: what every perturbation cost, as a value that prints as tables and saves as JSON."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rivals.diagnose.robustness.stability import QuerySpread
from rivals.errors import RivalsError
from rivals.measures.intervals import Interval

if TYPE_CHECKING:
    from rich.table import Table

_VERSION = 1
_SHOWN = 160  # characters of a text that the table of worst queries shows


@dataclass(frozen=True)
class WorstCase:
    """A query that a perturbation hurt: the measure before and after, and the text that was changed, a query's or a
    document's, as it was and as it became.

    >>> WorstCase("q", 1.0, 0.0, "gout", "gotu").after
    0.0
    """

    query: str
    before: float
    after: float
    original: str
    perturbed: str


@dataclass(frozen=True)
class PerturbationResult:
    """What one perturbation cost.

    Args:
        name, target: what was done, and to what: "queries", "documents" or "candidates".
        keeps_meaning: False where a good system should find something else, so that a drop is no fault.
        changed: the number of queries for which something changed (the others count with a drop of 0).
        value, drop: the measure when perturbed, and clean - perturbed, means over all queries with bootstrap intervals.
        drop_changed: the mean drop over the changed queries alone, 0 where there are none.
        drop_rate: (perturbed - clean) / clean with its interval, NaN where clean is 0.
        p, p_corrected: of the paired randomisation test, and after Holm's correction over all perturbations.
        overlap: mean rank-biased overlap of the first 10 documents before and after, over the changed queries.
        reached: share of the dressed-up documents that got among the first 10, NaN where there are none.
        worst: the queries that lost most.
    """

    name: str
    target: str
    keeps_meaning: bool
    changed: int
    value: Interval
    drop: Interval
    drop_changed: float
    drop_rate: Interval
    p: float
    p_corrected: float
    overlap: float
    reached: float
    worst: tuple[WorstCase, ...] = ()

    def significant(self, alpha: float = 0.05) -> bool:
        """Whether the corrected p-value is below `alpha`."""
        return self.p_corrected < alpha


@dataclass(frozen=True)
class RobustnessReport:
    """What perturbations cost a system on a data set. Made by `robustness_report`; prints as tables, saves as JSON.

    `clean` is the measure without perturbation and `spread` how uneven it is over queries; `left_out` says which
    perturbations of the default suite could not be made, and why; `values` holds the measure of every query by
    perturbation ("" for none), in the order of `queries`, means over `repeats` draws.
    """

    system: str
    dataset: str
    measure: str
    queries: tuple[str, ...]
    queries_without_relevant: int
    clean: Interval
    spread: QuerySpread
    results: tuple[PerturbationResult, ...]
    left_out: Mapping[str, str]
    values: Mapping[str, tuple[float, ...]]
    level: float
    resamples: int
    permutations: int
    repeats: int
    seed: int

    def __getitem__(self, name: str) -> PerturbationResult:
        """Return the result of one perturbation by its name."""
        for result in self.results:
            if result.name == name:
                return result
        known = ", ".join(result.name for result in self.results)
        raise RivalsError(f"no perturbation is called '{name}'; there are {known}")

    def table(self) -> Table:
        """Return the perturbations as a rich table, the costliest first."""
        head = (
            f"{self.system} on {self.dataset or 'the data'}: {self.measure} {self.clean}, {len(self.queries)} queries"
        )
        table = _table(head, "\n".join(self.notes()))
        table.add_column("perturbation", overflow="fold")
        table.add_column("of", no_wrap=True)
        for heading in (
            "changed",
            self.measure,
            f"drop [{self.level:.0%}]",
            "share",
            "p corrected",
            "overlap",
            "reached",
        ):
            table.add_column(heading, justify="right", no_wrap=True)
        for result in sorted(self.results, key=lambda result: -float(result.drop.estimate)):
            table.add_row(
                result.name + ("" if result.keeps_meaning else " (should change)"),
                result.target,
                str(result.changed),
                f"{result.value.estimate:.3f}",
                f"{result.drop.estimate:+.3f} [{result.drop.low:+.3f}, {result.drop.high:+.3f}]",
                "-" if math.isnan(result.drop_rate.estimate) else f"{result.drop_rate.estimate:+.0%}",
                f"{result.p_corrected:.4f}" + (" *" if result.significant(1 - self.level) else "  "),
                f"{result.overlap:.2f}",
                "-" if math.isnan(result.reached) else f"{result.reached:.0%}",
            )
        return table

    def worst_table(self, n: int = 2) -> Table:
        """Return the `n` queries that lost most under every perturbation that hurt one, with what was changed."""
        table = _table(
            "Worst queries", "Of a document, the changed text is shown; texts are cut here, not in the JSON."
        )
        table.add_column("perturbation", overflow="fold", ratio=2)
        table.add_column("query", overflow="fold", ratio=2)
        table.add_column(self.measure, no_wrap=True)
        table.add_column("original", overflow="fold", ratio=5)
        table.add_column("perturbed", overflow="fold", ratio=5)
        for result in self.results:
            for case in result.worst[:n]:
                moved = f"{case.before:.2f} -> {case.after:.2f}"
                texts = (_shown(text, case) for text in (case.original, case.perturbed))
                table.add_row(*map(_plain_text, (result.name, case.query, moved, *texts)))
        return table

    def notes(self) -> list[str]:
        """Return what must be known to read the table."""
        found = [
            f"drop: clean - perturbed, mean over all queries with a {self.level:.0%} bootstrap interval; share: of the "
            f"clean mean; p: paired randomisation test ({self.permutations:,} permutations), Holm-corrected over this "
            "table; overlap: rank-biased, of the first 10 of changed queries; reached: dressed-up documents that got "
            "among the first 10.",
            f"Over queries: deviation {self.spread.deviation:.3f}, normalised variance "
            f"{self.spread.normalised_variance:.3f}, mean of the worst tenth {self.spread.worst_tenth:.3f}.",
        ]
        if any(not result.keeps_meaning for result in self.results):
            found.append("Where it says (should change), the question becomes another: no drop is the bad sign there.")
        if self.queries_without_relevant:
            found.append(f"{self.queries_without_relevant} queries without a relevant document are left out.")
        found += [f"Left out: {name}: {reason}." for name, reason in self.left_out.items()]
        return found

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Table]:
        yield self.table()
        if any(result.worst for result in self.results):
            yield self.worst_table()

    def __str__(self) -> str:
        from rich.console import Console

        page = io.StringIO()
        Console(file=page, width=200, color_system=None, legacy_windows=False).print(self)
        return "\n".join(line.rstrip() for line in page.getvalue().splitlines()).strip("\n")

    __repr__ = __str__

    # --------------------------------------------------------------------------------------------------------- saving

    def to_json(self) -> str:
        """Return everything as JSON; numbers that are not finite are strings. `from_json` reads it back exactly."""
        content = {"format": "rivals robustness", "version": _VERSION, **asdict(self)}
        return json.dumps(_plain(content), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> RobustnessReport:
        """Read what `to_json` wrote.

        Raises:
            RivalsError: it is not a robustness report, or one of another version.
        """
        try:
            content = json.loads(text)
            if content["format"] != "rivals robustness":
                raise KeyError("format")
            if content["version"] != _VERSION:
                raise RivalsError(f"this report has version {content['version']}; version {_VERSION} can be read here")
            fields = {name: content[name] for name in cls.__dataclass_fields__}
            fields["queries"] = tuple(fields["queries"])
            fields["clean"], fields["spread"] = _interval(fields["clean"]), QuerySpread(*map(float, fields["spread"]))
            fields["results"] = tuple(_result(row) for row in fields["results"])
            fields["values"] = {name: tuple(map(float, row)) for name, row in fields["values"].items()}
            return cls(**fields)
        except RivalsError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as fault:
            raise RivalsError(
                f"this is not a saved robustness report ({type(fault).__name__}: {fault}); save one with to_json()"
            ) from None


_NUMBERS = ("drop_changed", "p", "p_corrected", "overlap", "reached")


def _result(row: Mapping[str, Any]) -> PerturbationResult:
    fields: dict[str, Any] = {key: float(value) if key in _NUMBERS else value for key, value in row.items()}
    for name in ("value", "drop", "drop_rate"):
        fields[name] = _interval(fields[name])
    fields["worst"] = tuple(WorstCase(**case) for case in fields["worst"])
    return PerturbationResult(**fields)


def _interval(ends: Any) -> Interval:
    return Interval(*map(float, ends))


def _plain(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return str(content) if isinstance(content, float) and not math.isfinite(content) else content


def _shown(text: str, case: WorstCase) -> str:
    """A window of a text that begins shortly before the first difference between the two versions."""
    pairs = zip(case.original, case.perturbed, strict=False)
    start = next((place for place, (old, new) in enumerate(pairs) if old != new), 0)
    start = max(0, start - 40) if start > 60 else 0
    cut = text[start : start + _SHOWN]
    return ("..." if start else "") + cut + ("..." if start + _SHOWN < len(text) else "")


def _plain_text(text: str) -> Any:
    from rich.text import Text

    return Text(text)


def _table(title: str, caption: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, title=title, caption=caption, title_justify="left", caption_justify="left")
