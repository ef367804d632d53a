"""Plots of an `Evaluation`: means with intervals, groups that cannot be told apart, two systems query by query."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from rivals.errors import RivalsError
from rivals.evaluate import charts
from rivals.evaluate._report.build import measured
from rivals.evaluate._report.data import Differences
from rivals.evaluate._report.words import measure_label, number, p_value, share, signed, wins
from rivals.evaluate.plots.plot import Plot

if TYPE_CHECKING:
    from rivals.evaluate.result import Evaluation

_WIDTH = 640
_ROW = 34


def means(evaluation: Evaluation, measure: str | None = None, *, width: int = _WIDTH) -> Plot:
    """Draw the mean of every system on one measure with its bootstrap interval, best first.

    Intervals of single systems overlap long before a paired test stops seeing a difference, because they hold the
    spread of the queries, which all systems share; use `rank_groups` and `differences` to compare.

    Args:
        measure: one of the evaluation's; the primary one unless named.
        width: in pixels.

    Raises:
        RivalsError: altair is missing, or the measure was not measured.
    """
    name = evaluation._measure(measure)
    label = measure_label(name)
    order = sorted(evaluation.systems, key=lambda system: (-evaluation.mean(system, name), system))
    systems = measured(evaluation).systems
    chart = charts.intervals(systems, name, order=order, width=width, axis_title=f"{label}: {_over(evaluation)}")
    reading = (
        "Dots are means over queries, bars bootstrap intervals of each mean: another sample of such queries would give "
        "another mean. Two bars that overlap do not say that two systems are equal, for the queries are the same."
    )
    return Plot.of(chart, f"{label} of {_systems(evaluation)}", reading, below=_scope(evaluation), width=width)


def rank_groups(evaluation: Evaluation, *, width: int = 460) -> Plot:
    """Draw the means on the primary measure beside the groups of systems that the data cannot tell apart.

    Every column is a group (a, b, ...): its members share the column's dots. A system in two columns is tied with both.
    Groups come from paired randomisation tests of all pairs, corrected for their number.

    Args:
        width: of the part with the means, in pixels.

    Raises:
        RivalsError: altair is missing.
    """
    alt = charts.load_altair()
    order, label = list(evaluation.order), measure_label(evaluation.primary)
    letters = {name: re.findall(r"\([a-z]+\d+\)|[a-z]", text) for name, text in evaluation.groups.items()}
    columns = sorted({letter for found in letters.values() for letter in found}, key=lambda found: (len(found), found))
    dots = [
        {"system": name, "group": letter, "row": order.index(name)}
        for name in evaluation.systems
        for letter in letters[name]
    ]
    spans = []
    for letter in columns:
        members = [name for name in order if letter in letters[name]]
        spans.append({"group": letter, "system": members[0], "last": members[-1]})
    taken = list(evaluation.places.values())
    places = [
        {"system": name, "group": "place", "text": f"{place}=" if taken.count(place) > 1 else f"{place}"}
        for name, place in evaluation.places.items()
    ]
    height = _ROW * len(order)
    left = charts.interval_layers(
        measured(evaluation).systems, evaluation.primary, order=order, axis_title=f"{label}: {_over(evaluation)}"
    ).properties(width=width, height=height)
    axis = alt.Axis(orient="top", labelAngle=0, labelFontSize=12, labelColor=charts.INK, ticks=False, domain=False)
    x = alt.X("group:N", title=None, sort=["place", *columns], axis=axis, scale=alt.Scale(domain=["place", *columns]))
    y = alt.Y("system:N", sort=order, axis=None, scale=alt.Scale(domain=order))
    line = (
        alt.Chart(alt.InlineData(spans))
        .mark_rule(strokeWidth=3, opacity=0.4, color=charts.MUTED)
        .encode(x=x, y=y, y2="last:N")
    )
    dot = alt.Chart(alt.InlineData(dots)).mark_point(filled=True, size=80, opacity=1, color=charts.INK)
    text = alt.Chart(alt.InlineData(places)).mark_text(fontSize=12, color=charts.INK).encode(x=x, y=y, text="text:N")
    tips = [alt.Tooltip("system:N"), alt.Tooltip("group:N")]
    right = (line + dot.encode(x=x, y=y, tooltip=tips) + text).properties(width=34 * (len(columns) + 1), height=height)
    chart = charts.styled(
        alt.hconcat(left, right, spacing=18).resolve_scale(y="independent"),
        f"{label} of every system, and the groups that the data cannot tell apart",
    )
    reading = (
        f"Systems with a dot in the same column cannot be told apart on {label}; a place with = is shared. That is not "
        "proof that they are equal: more queries might part them."
    )
    below = (
        f"{_scope(evaluation)}; groups: paired randomisation tests of all pairs, corrected for their number, "
        f"{1 - evaluation.level:.0%} level"
    )
    return Plot.of(chart, f"Which of {len(order)} systems differ on {label}", reading, below=below, width=width + 140)


def differences(
    evaluation: Evaluation, system: str, baseline: str, measure: str | None = None, *, width: int = _WIDTH
) -> Plot:
    """Draw the difference of two systems on every query, sorted, with the share on which either is better.

    The mean of the area is the difference of the means. Many small gains and few large ones can have the same mean.

    Args:
        system, baseline: names of systems; above zero `system` is better.
        measure: one of the evaluation's; the primary one unless named.
        width: in pixels.

    Raises:
        RivalsError: altair is missing, or a name is unknown.
    """
    name = evaluation._measure(measure)
    label = measure_label(name)
    first, second = (evaluation.per_query[evaluation._known(one)][name] for one in (system, baseline))
    pair = Differences(system, baseline, name, tuple((first - second).round(6).tolist()))
    better, same, worse = wins(pair)
    total = len(pair.values)
    chart = charts.differences(pair, measured(evaluation).systems, width=width, legend=True)
    below = f"mean difference {signed(math.fsum(pair.values) / total)}"
    try:
        tested = evaluation.comparison(system, baseline, name)
    except RivalsError:
        pass  # these two were not tested against each other; the mean stands alone
    else:
        below += (
            f" ({evaluation.level:.0%} interval {signed(tested.low)} to {signed(tested.high)}; corrected "
            f"p {p_value(tested.p_corrected)}; a true difference below {number(tested.detectable)} may well stay unseen)"
        )
    below += f"; the same on {same:,} of {_scope(evaluation)} ({share(same, total)})"
    reading = (
        f"Every query is one step, sorted by {label} of {system} minus that of {baseline}: above zero {system} is better "
        f"({better:,} queries), below zero {baseline} ({worse:,})."
    )
    return Plot.of(chart, f"{system} against {baseline}, query by query", reading, below=below, width=width)


def _over(evaluation: Evaluation) -> str:
    return f"mean over {len(evaluation.queries):,} queries with {evaluation.level:.0%} interval"


def _scope(evaluation: Evaluation) -> str:
    where = f" of {evaluation.dataset}" if evaluation.dataset else ""
    return f"{len(evaluation.queries):,} queries{where}"


def _systems(evaluation: Evaluation) -> str:
    count = len(evaluation.systems)
    return evaluation.systems[0] if count == 1 else f"{count} systems"
