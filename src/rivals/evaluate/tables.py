"""How an `Evaluation` looks in a terminal: the table of means and the table of tests."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from rivals.evaluate.evaluation import Evaluation
    from rivals.measures.intervals import Interval


def means_table(evaluation: Evaluation) -> Table:
    """Return the means with intervals, systems by the primary measure; shared places carry '='."""
    title = f"{evaluation.dataset or 'Evaluation'}: {len(evaluation.queries)} queries, "
    table = _table(title + f"means with {evaluation.level:.0%} bootstrap intervals", "\n".join(notes(evaluation)))
    table.add_column("place", justify="right", no_wrap=True)
    table.add_column("system", no_wrap=True)
    table.add_column("group", no_wrap=True)
    for measure in evaluation.measures:
        table.add_column(measure, justify="right")
    table.add_column("unjudged", justify="right", no_wrap=True)
    taken = list(evaluation.places.values())
    for system in evaluation.order:
        place = evaluation.places[system]
        table.add_row(
            f"{place}=" if taken.count(place) > 1 else f"{place} ",
            system,
            evaluation.groups[system],
            *(_cell(evaluation.intervals[system][measure]) for measure in evaluation.measures),
            f"{evaluation.coverage[system].unjudged_at_10:.0%}",
        )
    return table


def comparison_table(evaluation: Evaluation, measure: str) -> Table:
    """Return the tests against the baselines on one measure; a star marks what is significant after correction."""
    table = _table(
        f"{measure} against baselines",
        f"p: paired randomisation test, two-sided, {evaluation.permutations:,} permutations, at least "
        f"{1 / (evaluation.permutations + 1):.4f}, Holm-corrected over this table; d_z: effect size; detectable: the "
        "smallest true difference that this many queries show in 8 of 10 cases.",
    )
    table.add_column("system", no_wrap=True)
    table.add_column("against", no_wrap=True)
    for heading in ("difference", "p corrected", "d_z", "detectable"):
        table.add_column(heading, justify="right", no_wrap=True)
    for c in evaluation.comparisons:
        if c.measure == measure:
            table.add_row(
                c.system,
                c.baseline,
                f"{c.difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}]",
                f"{c.p_corrected:.4f}" + (" *" if c.significant(1 - evaluation.level) else "  "),
                f"{c.effect_size:+.2f}",
                f"{c.detectable:.3f}",
            )
    return table


def notes(evaluation: Evaluation) -> list[str]:
    """Return what must be known to read the table: the meaning of groups, and all that was left out or counted as 0."""
    found = [
        f"Systems that share a group letter cannot be told apart on {evaluation.primary} (paired randomisation tests "
        f"of all pairs, Holm-corrected, {1 - evaluation.level:.0%} level).",
        "'=' marks a shared place: those rows are a tie, not an order. Unjudged: of the first 10.",
    ]
    if evaluation.queries_without_judgements:
        found.append(f"{evaluation.queries_without_judgements} queries without judgements are left out.")
    if evaluation.queries_without_relevant:
        count = evaluation.queries_without_relevant
        found.append(f"{count} judged queries have no relevant document; every system scores 0 there.")
    found += _shared(evaluation, "without_results", "queries without results count as 0.")
    found += _shared(evaluation, "left_out", "queries of the run are not judged here and are left out.")
    return found


def as_text(evaluation: Evaluation) -> str:
    """Return both tables as plain text, as wide as they need, no colours."""
    page = io.StringIO()
    console = Console(file=page, width=400, color_system=None, legacy_windows=False)
    console.print(evaluation)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines()).strip("\n")


def _shared(evaluation: Evaluation, field: str, message: str) -> list[str]:
    """One line for each number above 0 in a field of `Coverage`, with all the systems it holds for."""
    by_number: dict[int, list[str]] = {}
    for system in evaluation.order:
        by_number.setdefault(getattr(evaluation.coverage[system], field), []).append(system)
    return [f"{', '.join(systems)}: {number} {message}" for number, systems in by_number.items() if number]


def _cell(interval: Interval) -> str:
    """One mean with its interval, short and without a blank inside the brackets so that narrow tables wrap before them."""
    return f"{interval.estimate:.3f} [{_short(interval.low)},{_short(interval.high)}]"


def _short(value: float) -> str:
    """Three decimals without the leading 0."""
    return f"{value:.3f}".replace("0.", ".", 1) if 0 <= value < 1 else f"{value:.3f}"


def _table(title: str, caption: str) -> Table:
    return Table(box=box.SIMPLE_HEAD, title=title, caption=caption, title_justify="left", caption_justify="left")
