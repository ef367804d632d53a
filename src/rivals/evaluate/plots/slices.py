"""Plots of an `Evaluation` by slices of its queries: the means in each, and the difference of two systems in each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rivals.errors import RivalsError
from rivals.evaluate import charts
from rivals.evaluate._report.words import measure_label, p_value
from rivals.evaluate.plots.plot import Plot
from rivals.evaluate.slices import SMALL, SliceView

if TYPE_CHECKING:
    from rivals.evaluate.result import Evaluation
    from rivals.measures.intervals import Interval

_WIDTH = 560
_STEP = 20  # pixels a system within a slice


def slice_means(evaluation: Evaluation, by: str, measure: str | None = None, *, width: int = _WIDTH) -> Plot:
    """Draw every system's mean in each slice of the queries, with its bootstrap interval.

    Slices differ in how hard their queries are: compare systems inside a slice, and their difference between slices by
    `slice_differences`.

    Args:
        by: a slicing that the evaluation was made with (`slices=`). measure: one of the evaluation's; the primary one
            unless named. width: in pixels.

    Raises:
        RivalsError: altair is missing, the measure was not measured, or there are no such slices.
    """
    alt = charts.load_altair()
    name, view = evaluation._measure(measure), evaluation.slice_view(by)
    label, labels = measure_label(name), _labels(view)
    rows = [
        {"slice": labels[place], "system": system} | _row(interval)
        for system in evaluation.systems
        for place, interval in enumerate(view.intervals[system][name])
    ]
    colours = charts.system_colours(list(evaluation.systems))
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    colour = alt.Color("system:N", scale=scale, legend=charts.legend_of({}, columns=4) if len(colours) > 1 else None)
    offset = alt.YOffset("system:N", sort=list(colours), scale=alt.Scale(paddingOuter=0.4))
    chart = _dots(alt, rows, labels, f"mean {label}", width, max(len(colours), 2), colour=colour, offset=offset)
    reading = (
        "Dots are means over the queries of a slice, bars bootstrap intervals of each. That one slice is lower than "
        "another says that its queries are harder, not that a system is worse on them than others are."
    )
    return Plot.of(chart, f"{label} by {by}", reading, below=_scope(evaluation, view), width=width)


def slice_differences(
    evaluation: Evaluation, by: str, system: str, baseline: str, measure: str | None = None, *, width: int = _WIDTH
) -> Plot:
    """Draw the mean difference of two systems in each slice with its interval, and say whether slices differ in it.

    A gain "on long queries only" is there if the differences differ, which the title's p-value tests; one interval that
    holds zero and another that does not say no such thing.

    Args:
        by: a slicing that the evaluation was made with. system, baseline: a tested pair. measure: one of the
            evaluation's; the primary one unless named. width: in pixels.

    Raises:
        RivalsError: altair is missing, there are no such slices, or the pair was not tested on the measure.
    """
    alt = charts.load_altair()
    name, view = evaluation._measure(measure), evaluation.slice_view(by)
    tests = [t for t in view.tests if (t.system, t.baseline, t.measure) == (system, baseline, name)]
    if not tests:
        known = ", ".join(sorted({f"{t.system} against {t.baseline}" for t in view.tests})) or "none"
        raise RivalsError(f"{system} was not tested against {baseline} on {name} by {by}; there are {known}")
    test, label, labels = tests[0], measure_label(name), _labels(view)
    rows = [{"slice": labels[place]} | _row(interval) for place, interval in enumerate(test.differences)]
    title = f"mean difference of {label}: {system} minus {baseline}"
    chart = _dots(alt, rows, labels, title, width, 2, colour=alt.value(charts.SYSTEM_COLOURS[3]), zero=True)
    said = (
        f"too few slices of {SMALL} queries to test whether they differ"
        if math.isnan(test.p)
        else f"do slices differ? p {p_value(test.p)}, corrected {p_value(test.p_corrected)}"
    )
    reading = (
        f"Right of zero {system} is better. Bars are bootstrap intervals of each slice alone; whether the gain depends "
        "on the slice is what the p-value above says, not whether a bar touches zero."
    )
    below = f"{_scope(evaluation, view)}; {said}"
    return Plot.of(chart, f"{system} against {baseline} by {by}", reading, below=below, width=width)


def _dots(
    alt: Any,
    rows: list[dict[str, Any]],
    labels: list[str],
    title: str,
    width: int,
    lines: int,
    *,
    colour: Any,
    offset: Any = None,
    zero: bool = False,
) -> Any:
    """Dots with bars, a row of the chart for each slice."""
    axis = alt.Axis(labelLimit=220, labelFontSize=12, ticks=False, domain=False, labelPadding=8)
    y = alt.Y("slice:N", sort=labels, title=None, axis=axis, scale=alt.Scale(domain=labels))
    scale = alt.Scale(zero=zero, nice=True, padding=8)
    values = alt.Axis(format="+.2~f" if zero else ".2~f", tickCount=6, domain=False, ticks=False)
    tips = [alt.Tooltip(f"{field}:N") for field in ("system", "slice") if field in rows[0]]
    tips += [alt.Tooltip(f"{field}:Q", format=".3f") for field in ("value", "low", "high")]
    more = {} if offset is None else {"yOffset": offset}
    base = alt.Chart(alt.InlineData(rows)).encode(y=y, color=colour, tooltip=tips, **more)
    layers = base.mark_rule(strokeWidth=3, opacity=0.45, strokeCap="round").encode(
        x=alt.X("low:Q", scale=scale, axis=values, title=title), x2="high:Q"
    ) + base.mark_point(filled=True, size=64, opacity=1).encode(x=alt.X("value:Q", scale=scale, title=title))
    if zero:
        line = alt.Chart(alt.InlineData([{"at": 0}])).mark_rule(color=charts.MUTED, strokeDash=[4, 3]).encode(x="at:Q")
        layers = line + layers
    return charts.finish(layers, width=width, height=_STEP * lines * len(labels), description=title)


def _labels(view: SliceView) -> list[str]:
    return [f"{label} ({size:,})" for label, size in zip(view.slicing.labels, view.slicing.sizes, strict=True)]


def _row(interval: Interval) -> dict[str, float | None]:
    """An interval as a row; what is not defined is left out."""
    values = {"value": interval.estimate, "low": interval.low, "high": interval.high}
    return {name: round(float(value), 6) if math.isfinite(value) else None for name, value in values.items()}


def _scope(evaluation: Evaluation, view: SliceView) -> str:
    counted = sum(view.slicing.sizes)
    where = f" of {evaluation.dataset}" if evaluation.dataset else ""
    return f"{counted:,} queries{where} in {len(view.slicing.labels)} slices, their numbers in brackets"
