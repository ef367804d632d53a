"""What perturbations cost a system: a plot of the drops with their intervals, and a page with the worst queries."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rivals.evaluate import charts
from rivals.evaluate._report.words import measure_label
from rivals.evaluate.plots.plot import Plot
from rivals.measures.intervals import Interval

_COLOURS = {
    "queries": charts.SYSTEM_COLOURS[1],
    "documents": charts.SYSTEM_COLOURS[4],
    "candidates": charts.SYSTEM_COLOURS[7],
}


class Perturbed(Protocol):
    """What `robustness` draws of one perturbation: a `rivals.diagnose.robustness.PerturbationResult`."""

    @property
    def name(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def keeps_meaning(self) -> bool: ...
    @property
    def changed(self) -> int: ...
    @property
    def drop(self) -> Interval: ...
    @property
    def p_corrected(self) -> float: ...
    @property
    def overlap(self) -> float: ...
    @property
    def reached(self) -> float: ...
    @property
    def worst(self) -> Sequence[Hurt]: ...


class Hurt(Protocol):
    """A query that a perturbation hurt: a `rivals.diagnose.robustness.WorstCase`."""

    @property
    def query(self) -> str: ...
    @property
    def before(self) -> float: ...
    @property
    def after(self) -> float: ...
    @property
    def original(self) -> str: ...
    @property
    def perturbed(self) -> str: ...


class Robustness(Protocol):
    """What `robustness` draws: a `rivals.diagnose.robustness.RobustnessReport`."""

    @property
    def system(self) -> str: ...
    @property
    def dataset(self) -> str: ...
    @property
    def measure(self) -> str: ...
    @property
    def queries(self) -> Sequence[str]: ...
    @property
    def clean(self) -> Interval: ...
    @property
    def results(self) -> Sequence[Perturbed]: ...
    @property
    def left_out(self) -> Mapping[str, str]: ...
    @property
    def level(self) -> float: ...


def robustness(report: Robustness, *, width: int = 520) -> Plot:
    """Draw what every perturbation costs a system on its measure, the costliest first.

    Filled dots are drops that a paired randomisation test, corrected over all perturbations, tells from none; hollow ones
    are not. Perturbations that change the meaning, where a good system should answer differently, say so.

    Args:
        report: of `robustness_report`. width: in pixels.

    Raises:
        RivalsError: altair is missing.
    """
    alt = charts.load_altair()
    label = measure_label(report.measure)
    order = sorted(report.results, key=lambda result: -float(result.drop.estimate))
    rows = [
        {
            "perturbation": _title(result),
            "of": result.target,
            "drop": round(float(result.drop.estimate), 6),
            "low": round(float(result.drop.low), 6),
            "high": round(float(result.drop.high), 6),
            "changed": result.changed,
            "p": round(float(result.p_corrected), 6),
            "sure": "yes" if result.p_corrected < 1 - report.level else "no",
        }
        for result in order
    ]
    names = [_title(result) for result in order]
    axis = alt.Axis(labelLimit=260, labelFontSize=12, ticks=False, domain=False, labelPadding=8)
    y = alt.Y("perturbation:N", sort=names, title=None, axis=axis)
    scale = alt.Scale(zero=True, nice=True, padding=8)
    values = alt.Axis(format="+.2~f", tickCount=6, domain=False, ticks=False)
    title = f"drop of mean {label} from {float(report.clean.estimate):.3f}"
    found = [name for name in _COLOURS if any(result.target == name for result in order)]
    colour = alt.Color(
        "of:N",
        scale=alt.Scale(domain=found, range=[_COLOURS[name] for name in found]),
        legend=charts.legend_of({name: f"in {name}" for name in found}, columns=3),
    )
    tips: list[Any] = [alt.Tooltip("perturbation:N"), alt.Tooltip("changed:Q", title="queries concerned")]
    tips += [alt.Tooltip(f"{field}:Q", format=".3f") for field in ("drop", "low", "high")]
    tips.append(alt.Tooltip("p:Q", format=".4f", title="corrected p"))
    base = alt.Chart(alt.InlineData(rows)).encode(y=y, color=colour, tooltip=tips)
    bar = base.mark_rule(strokeWidth=3, opacity=0.45, strokeCap="round").encode(
        x=alt.X("low:Q", scale=scale, axis=values, title=title), x2="high:Q"
    )
    x = alt.X("drop:Q", scale=scale, title=title)
    sure = base.transform_filter("datum.sure === 'yes'").mark_point(filled=True, size=70, opacity=1).encode(x=x)
    unsure = base.transform_filter("datum.sure === 'no'").mark_point(filled=False, size=60, strokeWidth=2).encode(x=x)
    zero = alt.Chart(alt.InlineData([{"at": 0}])).mark_rule(color=charts.MUTED, strokeDash=[4, 3]).encode(x="at:Q")
    chart = charts.finish(zero + bar + sure + unsure, width=width, height=30 * len(rows), description=title)
    where = f" of {report.dataset}" if report.dataset else ""
    below = (
        f"{len(report.queries):,} queries{where}; {label} {report.clean} when nothing is changed; "
        f"{report.level:.0%} intervals"
    )
    reading = (
        "Right of zero the system loses. Filled dots: the loss is told from none by a paired randomisation test, "
        "corrected over all perturbations; hollow dots: it is not. Where the meaning changes, a loss is no fault."
    )
    return Plot.of(chart, f"What perturbations cost {report.system}", reading, below=below, width=width)


def _title(result: Perturbed) -> str:
    return result.name + ("" if result.keeps_meaning else " (meaning changes)")


def robustness_page(report: Robustness) -> str:
    """Return a page that opens without a network: the plot, its figures as a table, the worst queries with their texts.

    Args:
        report: of `robustness_report`.

    Raises:
        RivalsError: altair is missing.
    """
    order = sorted(report.results, key=lambda result: -float(result.drop.estimate))
    said = [
        [
            _title(result),
            result.target,
            f"{result.changed:,}",
            f"{float(result.drop.estimate):+.3f} [{float(result.drop.low):+.3f}, {float(result.drop.high):+.3f}]",
            f"{result.p_corrected:.4f}",
            f"{result.overlap:.2f}",
            "" if math.isnan(result.reached) else f"{result.reached:.0%}",
        ]
        for result in order
    ]
    heads = (
        "perturbation",
        "of",
        "changed",
        f"drop of {measure_label(report.measure)}",
        "corrected p",
        "overlap",
        "reached",
    )
    parts = [
        "<h2>All figures</h2>",
        _table(heads, said, frozenset(range(2, 7))),
        "<p class=note>Changed: queries concerned. Overlap: rank-biased, of the first 10 documents before and after. "
        "Reached: dressed-up documents that came among the first 10.</p>",
        *(
            f"<p class=note>Left out: {html.escape(name)}: {html.escape(why)}.</p>"
            for name, why in report.left_out.items()
        ),
        "<h2>Queries that lost most</h2>",
    ]
    for result in order:
        if result.worst:
            rows = [
                [w.query, f"{w.before:.2f} → {w.after:.2f}", *_around(w.original, w.perturbed)] for w in result.worst
            ]
            parts.append(f"<h3>{html.escape(_title(result))}</h3>")
            parts.append(
                _table(("query", measure_label(report.measure), "original", "changed to"), rows, frozenset({1}))
            )
    return robustness(report).to_html(more="".join(parts))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: frozenset[int] = frozenset()) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = (" class=n" if place in numbers else "" for place in range(len(cells)))
        return "".join(f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{line('th', heads)}</tr></thead><tbody>{body}</tbody></table></div>"


def _around(original: str, changed: str, room: int = 200) -> tuple[str, str]:
    """Cut two texts to the neighbourhood of their first difference."""
    same = next((n for n, (a, b) in enumerate(zip(original, changed, strict=False)) if a != b), 0)
    start = max(same - room // 3, 0)
    found = []
    for text in (original, changed):
        part = " ".join(text[start : start + room].split())
        found.append(("…" if start else "") + part + ("…" if len(text) > start + room else ""))
    return found[0], found[1]
