"""How an `Evaluation` looks in a terminal: tables of means, tests, slices and condensed lists; leakage in lines."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from rivals.evaluate.condensed import condensed_note, condensed_order
from rivals.evaluate.power import power_sentence

if TYPE_CHECKING:
    from rich.text import Text

    from rivals.data.leakage import LeakageReport
    from rivals.evaluate.result import Evaluation
    from rivals.evaluate.slices import SliceTest, SliceView
    from rivals.measures.intervals import Interval

_CORRECTIONS = {"holm": "Holm-corrected", "benjamini-hochberg": "Benjamini-Hochberg-corrected"}


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
        f"{1 / (evaluation.permutations + 1):.4f}, {_CORRECTIONS[evaluation.correction]} over this table. d_z: mean "
        "difference / standard deviation of the differences; d_av: / the systems' own spread over queries (Cohen 1988). "
        "better: share of queries won, ties half. detectable: the smallest true difference that this many queries show "
        f"in {evaluation.power:.0%} of cases.\n{power_sentence(evaluation, measure)}",
    )
    table.add_column("system", no_wrap=True)
    table.add_column("against", no_wrap=True)
    for heading in ("difference", "p corrected", "d_z", "d_av", "better", "detectable"):
        table.add_column(heading, justify="right", no_wrap=True)
    for c in evaluation.comparisons:
        if c.measure == measure:
            table.add_row(
                c.system,
                c.baseline,
                _signed(c.difference, c.low, c.high),
                f"{c.p_corrected:.4f}" + (" *" if c.significant(1 - evaluation.level) else "  "),
                f"{c.effect_size:+.2f}",
                f"{c.standardised:+.2f}",
                f"{c.superiority:.0%}",
                f"{c.detectable:.3f}",
            )
    return table


def slice_table(evaluation: Evaluation, view: SliceView) -> Table:
    """Return one view by slices: the primary measure of every system, the difference to the first baseline, and the
    tests whether differences differ between slices."""
    table = _table(f"{evaluation.primary} by {view.slicing.by}", "\n".join(slice_findings(evaluation, view)))
    table.add_column("slice")
    table.add_column("queries", justify="right", no_wrap=True)
    table.add_column("system", no_wrap=True)
    table.add_column(evaluation.primary, justify="right", no_wrap=True)
    baseline = evaluation.baselines[0] if evaluation.baselines else ""
    if baseline:
        table.add_column(f"difference to {baseline}", justify="right", no_wrap=True)
    tested = {test.system: test for test in view.tests if test.baseline == baseline}
    for i, (label, size) in enumerate(zip(view.slicing.labels, view.slicing.sizes, strict=True)):
        for place, system in enumerate(evaluation.order):
            row = [label, f"{size:,}"] if place == 0 else ["", ""]
            row += [system, _cell(view.intervals[system][evaluation.primary][i])]
            if baseline:
                row.append(_signed(*tested[system].differences[i]) if system in tested else "")
            table.add_row(*row)
    return table


def slice_findings(evaluation: Evaluation, view: SliceView) -> list[str]:
    """Return what the tests between slices say, a line each, and what to mind."""
    return [*(_slice_sentence(evaluation, test) for test in view.tests), *view.cautions]


def condensed_table(evaluation: Evaluation) -> Table:
    """Return the means on lists without unjudged documents, in the order that they give."""
    table = _table(
        "The same on condensed lists, without the documents that nobody judged",
        condensed_note(evaluation) + " These means are too kind to systems whose documents were not judged.",
    )
    table.add_column("system", no_wrap=True)
    for measure in evaluation.measures:
        table.add_column(measure, justify="right")
    for system in condensed_order(evaluation):
        table.add_row(system, *(_cell(evaluation.condensed[system][measure]) for measure in evaluation.measures))
    return table


def leakage_lines(report: LeakageReport) -> Text:
    """Return what test and training data share, a line each, with the first example of each kind."""
    from rich.text import Text

    lines = ["Leakage: nothing of the test data was found in the training data." if report.clean else "Leakage:"]
    for line, overlap in zip(str(report).splitlines(), report.overlaps, strict=True):
        example = ""
        if overlap.examples:
            first, second, similarity = overlap.examples[0]
            example = f"; such as {second} ~ {first} ({similarity:.2f})"
        lines.append(f"  {line}{example}")
    return Text("\n".join(lines))


def notes(evaluation: Evaluation) -> list[str]:
    """Return what must be known to read the table: the meaning of groups, power, and all that was left out or counted
    as 0."""
    found = [f"Caution: {caution}" for caution in evaluation.cautions]
    found += [
        f"Systems that share a group letter cannot be told apart on {evaluation.primary} (paired randomisation tests "
        f"of all pairs, {_CORRECTIONS[evaluation.correction]}, {1 - evaluation.level:.0%} level).",
        "'=' marks a shared place: those rows are a tie, not an order. Unjudged: of the first 10.",
    ]
    if not evaluation.comparisons and (sentence := power_sentence(evaluation)):
        found.append(sentence)
    if evaluation.queries_without_judgements:
        found.append(f"{evaluation.queries_without_judgements} queries without judgements are left out.")
    if evaluation.queries_not_common:
        found.append(f"{evaluation.queries_not_common} queries that some system did not answer are left out.")
    if evaluation.queries_without_relevant:
        count = evaluation.queries_without_relevant
        found.append(f"{count} judged queries have no relevant document; every system scores 0 there.")
    found += _shared(evaluation, "without_results", "queries without results count as 0.")
    found += _shared(evaluation, "left_out", "queries of the run are not judged here and are left out.")
    found += _shared(evaluation, "unknown_documents", "documents are not in the data set and count as unjudged.")
    found += _unjudged(evaluation)
    if not evaluation.condensed and (advice := condensed_note(evaluation)):
        found.append(advice)
    return found


def _unjudged(evaluation: Evaluation) -> list[str]:
    """The unjudged shares at all depths, if there are any."""
    seen = evaluation.coverage
    if not any(share for coverage in seen.values() for share in coverage.unjudged.values()):
        return []
    depths = list(seen[evaluation.order[0]].unjudged)
    shares = "; ".join(
        f"{system} {', '.join(f'{seen[system].unjudged[depth]:.0%}' for depth in depths)}"
        for system in evaluation.order
    )
    return [f"Unjudged in the first {', '.join(map(str, depths))}: {shares}."]


def _slice_sentence(evaluation: Evaluation, test: SliceTest) -> str:
    """Whether the difference of two systems differs between slices."""
    pair = f"{test.system} against {test.baseline}: "
    if math.isnan(test.p):
        return pair + "fewer than two slices are large enough for a test."
    how = f"p {test.p_corrected:.4f}, permutation test between slices, {_CORRECTIONS[evaluation.correction]}"
    if test.p_corrected < 1 - evaluation.level:
        return pair + f"the difference differs between slices ({how})."
    return pair + f"no sign that the difference differs between slices ({how})."


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


def _signed(difference: float, low: float, high: float) -> str:
    """One difference with its interval."""
    return f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]"


def _short(value: float) -> str:
    """Three decimals without the leading 0."""
    return f"{value:.3f}".replace("0.", ".", 1) if 0 <= value < 1 else f"{value:.3f}"


def _table(title: str, caption: str) -> Table:
    return Table(box=box.SIMPLE_HEAD, title=title, caption=caption, title_justify="left", caption_justify="left")
