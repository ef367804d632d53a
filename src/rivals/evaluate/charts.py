"""The charts of a report, as altair charts, for `rivals.evaluate.report` and as parts of `rivals.evaluate.plots`.

Every function takes a part of a `ReportData` and returns one chart that shows one thing. A system has one colour in all
of them, given by its place in `systems`. Needs the extra `report` (altair).

    from rivals.evaluate import charts
    charts.intervals(data.systems, "nDCG@10")
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rivals.errors import RivalsError
from rivals.evaluate._report.data import Curve, Differences, ScoreStage, System
from rivals.evaluate._report.words import measure_label, share, wins

if TYPE_CHECKING:
    import altair as alt

INK, MUTED, GRID, SURFACE = "#1b1f24", "#5c6570", "#e1e5ea", "#fffffe"
#: One colour per system, in order: readers with any of the common colour vision deficiencies tell them apart, by
#: lightness if not by hue.
SYSTEM_COLOURS = ("#868e97", "#3f9fdb", "#00906a", "#0b4f8a", "#d4560a", "#b8578f", "#8a7500", "#5b4b8a")
CLASS_COLOURS = {"positives": "#5e3c99", "negatives": "#8b8379", "marked": "#c98a00"}
#: How the report names these colours, so that it can show others in the dark: {hexadecimal: CSS variable}.
CSS_NAMES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    SURFACE: "--surface",
    **{colour: f"--s{i}" for i, colour in enumerate(SYSTEM_COLOURS)},
    **{colour: f"--{name}" for name, colour in CLASS_COLOURS.items()},
}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_POINTS = 500  # a line of more points than this looks the same and loads slower


def load_altair() -> Any:
    try:
        import altair
    except ImportError:
        raise RivalsError("charts and reports need altair; install it with: pip install 'rivals[report]'") from None
    return altair


def system_colours(names: Sequence[str]) -> dict[str, str]:
    """Return each system's colour; from the ninth system on colours repeat (charts also name every system).

    >>> system_colours(["BM25", "trained"])
    {'BM25': '#868e97', 'trained': '#3f9fdb'}
    """
    return {name: SYSTEM_COLOURS[i % len(SYSTEM_COLOURS)] for i, name in enumerate(names)}


def intervals(
    systems: Sequence[System],
    measure: str,
    *,
    order: Sequence[str] | None = None,
    width: int | str = 320,
    axis_title: str | None = None,
) -> alt.LayerChart:
    """One dot and its 95 % interval per system on one measure.

    Args:
        order: names from top to bottom; as given unless said.
        width: in pixels, or "container".
        axis_title: of the axis of values, where no page around the chart names it.
    """
    chart = interval_layers(systems, measure, order=order, axis_title=axis_title)
    title = f"{measure_label(measure)} of every system with its 95 % interval"
    return finish(chart, width=width, height=34 * len(systems), description=title)


def interval_layers(
    systems: Sequence[System], measure: str, *, order: Sequence[str] | None = None, axis_title: str | None = None
) -> alt.LayerChart:
    """Return what `intervals` draws without size and style, to stand beside other charts."""
    alt = load_altair()
    names = list(order or [system.name for system in systems])
    rows = [
        {
            "system": s.name,
            "value": _short(m.value),
            "low": _short(m.low),
            "high": _short(m.high),
            "label": f"{m.value:.3f}",
        }
        for s in systems
        if (m := s.measures.get(measure))
    ]
    y = alt.Y(
        "system:N",
        sort=names,
        title=None,
        axis=alt.Axis(labelLimit=150, labelFontSize=12, ticks=False, domain=False, labelPadding=8),
    )
    scale = alt.Scale(zero=False, nice=True, padding=8)
    axis = alt.Axis(format=".2~f", tickCount=5, domain=False, ticks=False)
    tips = [
        alt.Tooltip("system:N", title="system"),
        *(
            alt.Tooltip(f"{f}:Q", format=".3f", title=t)
            for f, t in zip(("value", "low", "high"), (measure_label(measure), "from", "to"), strict=True)
        ),
    ]
    base = alt.Chart(alt.InlineData(rows)).encode(y=y, color=_colour(alt, [s.name for s in systems]), tooltip=tips)
    bar = base.mark_rule(strokeWidth=3, opacity=0.45, strokeCap="round").encode(
        x=alt.X("low:Q", scale=scale, axis=axis, title=axis_title), x2="high:Q"
    )
    dot = base.mark_point(filled=True, size=70, opacity=1).encode(x=alt.X("value:Q", scale=scale, title=axis_title))
    text = base.mark_text(dy=-10, fontSize=11).encode(
        x=alt.X("value:Q", title=axis_title), text="label:N", color=alt.value(INK)
    )
    return bar + dot + text


def differences(
    pair: Differences, systems: Sequence[System], *, width: int | str = 420, legend: bool = False
) -> alt.Chart:
    """Per-query differences, sorted: above zero in the colour of the system, below in that of the baseline.

    Args:
        legend: also say in the chart on how many questions either is better.
    """
    alt = load_altair()
    colours = system_colours([system.name for system in systems])
    values = _thin(sorted(pair.values, reverse=True))
    width_of_one = 1 / max(len(values), 1)
    better = sum(v > 0 for v in values)
    worse_from = len(values) - sum(v < 0 for v in values)
    rows = []
    for name, start, stop in ((pair.system, 0, better), (pair.baseline, worse_from, len(values))):
        edges = [*range(start, stop), stop - 1] if stop > start else []  # the last step needs an end
        rows += [
            {"better": name, "question": round((start + i) * width_of_one, 5), "difference": round(values[v], 4)}
            for i, v in enumerate(edges)
        ]
    label = measure_label(pair.measure)
    questions = f"share of the {len(pair.values):,} test questions, sorted by difference"
    x_axis = alt.Axis(format=".0%", tickCount=5, title=questions, grid=False)
    sign = "datum.value === 0 ? '0' : format(datum.value, '+.1~f')"
    y_axis = alt.Axis(labelExpr=sign, tickCount=5, title=f"difference in {label}", domain=False)
    scale = alt.Scale(domain=[pair.system, pair.baseline], range=[colours[pair.system], colours[pair.baseline]])
    more, _, fewer = wins(pair)
    total = len(pair.values)
    key = {
        name: f"{name} better: {n:,} of {total:,} ({share(n, total)})"
        for name, n in ((pair.system, more), (pair.baseline, fewer))
    }
    chart = (
        alt.Chart(alt.InlineData(rows))
        .mark_area(interpolate="step-after")
        .encode(
            x=alt.X("question:Q", scale=alt.Scale(domain=[0, 1], nice=False), axis=x_axis),
            y=alt.Y("difference:Q", axis=y_axis, stack=None),
            color=alt.Color("better:N", scale=scale, legend=legend_of(key) if legend else None),
        )
    )
    title = f"Difference in {label} between {pair.system} and {pair.baseline} on every test question"
    return finish(chart, width=width, height=190, description=title)


def scores(
    stage: ScoreStage,
    *,
    domain: tuple[float, float] | None = None,
    width: int | str = 420,
    legend: bool = False,
    axis_title: str = "score",
) -> alt.LayerChart:
    """Overlaid histograms of the scores of positives, negatives and marked false negatives, as shares of each class.

    Args:
        domain: of the score axis; give the same to several stages to compare them.
        legend: also name the classes with their numbers, and the axis of shares, in the chart itself.
        axis_title: of the score axis.
    """
    alt = load_altair()
    rows: list[dict[str, Any]] = []
    for kind in ("negatives", "positives", "marked"):
        counts = getattr(stage, kind)
        total = sum(counts)
        filled = [i for i, n in enumerate(counts) if n]
        if filled:
            bins = range(filled[0], filled[-1] + 2)  # from the first to the last filled bin, and its end
            shares = [*(n / total for n in counts), 0.0]
            points = [(stage.edges[filled[0]], 0.0), *((stage.edges[i], shares[i]) for i in bins)]
            rows += [
                {"kind": kind, "score": round(edge, 5), "share": round(part, 6), "draw": i}
                for i, (edge, part) in enumerate(points)
            ]
    seen = {kind: sum(getattr(stage, kind)) for kind in CLASS_COLOURS}
    classes = {kind: colour for kind, colour in CLASS_COLOURS.items() if seen[kind] or not legend}
    key = {kind: f"{kind} ({seen[kind]:,})" for kind in classes}
    colour = alt.Color(
        "kind:N",
        legend=legend_of(key, columns=3) if legend else None,
        scale=alt.Scale(domain=list(classes), range=list(classes.values())),
    )
    x = alt.X(
        "score:Q",
        title=axis_title,
        scale=alt.Scale(domain=list(domain or (stage.edges[0], stage.edges[-1])), nice=False),
        axis=alt.Axis(grid=False, tickCount=6),
    )
    shown = alt.Axis(format=".2~p", tickCount=4, domain=False) if legend else None
    y = alt.Y("share:Q", stack=None, title="share of its class a bin" if legend else None, axis=shown)
    tips = [
        alt.Tooltip("kind:N", title="candidates"),
        alt.Tooltip("score:Q", format=".2f", title="score from"),
        alt.Tooltip("share:Q", format=".1%", title="share"),
    ]
    base = alt.Chart(alt.InlineData(rows)).encode(x=x, y=y, color=colour)
    area = base.mark_area(interpolate="step-after", opacity=0.22, line=False).encode(tooltip=tips)
    line = base.mark_line(interpolate="step-after", strokeWidth=1.6).encode(
        order="draw:Q",
        strokeDash=alt.condition("datum.kind === 'marked'", alt.value([5, 3]), alt.value([1, 0])),
    )
    return finish(area + line, width=width, height=170, description=f"Distribution of scores {stage.stage}")


def loss_curve(curve: Curve, *, width: int | str = 420) -> alt.LayerChart:
    """Training loss per step: the raw values faint, their exponential average strong."""
    alt = load_altair()
    smooth = _smooth([loss for _, loss in curve.loss])
    rows = [
        {"step": step, "loss": round(loss, 5), "smooth": round(average, 5)}
        for (step, loss), average in _thin(list(zip(curve.loss, smooth, strict=True)))
    ]
    scale = alt.Scale(domain=[0, max((step for step, _ in curve.loss), default=1)], nice=False)
    x = alt.X("step:Q", title="step", axis=alt.Axis(grid=False, tickCount=6, format="~s"), scale=scale)
    y = alt.Y("loss:Q", title="loss", axis=alt.Axis(tickCount=4, domain=False), scale=alt.Scale(zero=False))
    base = alt.Chart(alt.InlineData(rows)).encode(x=x)
    raw = base.mark_line(strokeWidth=1, opacity=0.35, color=MUTED).encode(y=y)
    tips = [
        alt.Tooltip("step:Q"),
        alt.Tooltip("loss:Q", format=".4f"),
        alt.Tooltip("smooth:Q", format=".4f", title="smoothed"),
    ]
    average = base.mark_line(strokeWidth=2, color=INK).encode(y=alt.Y("smooth:Q", title="loss"), tooltip=tips)
    return finish(raw + average, width=width, height=170, description=f"Training loss of {curve.name} per step")


def dev_curve(curve: Curve, *, colour: str = SYSTEM_COLOURS[3], width: int | str = 420) -> alt.LayerChart:
    """The measure on dev at every evaluation; the checkpoint that was kept is ringed and named."""
    alt = load_altair()
    label = measure_label(curve.measure)
    last = max((step for step, _ in curve.evaluations), default=1)
    rows = [
        {
            "step": step,
            "value": round(value, 5),
            "chosen": step == curve.chosen_step,
            "text": f"kept: step {step}, {value:.3f}",
        }
        for step, value in curve.evaluations
    ]
    x = alt.X(
        "step:Q",
        title="step",
        axis=alt.Axis(grid=False, tickCount=6, format="~s"),
        scale=alt.Scale(domain=[0, last], nice=False),
    )
    y = alt.Y(
        "value:Q",
        title=f"{label} on dev",
        axis=alt.Axis(tickCount=4, domain=False, format=".2~f"),
        scale=alt.Scale(zero=False, padding=14),
    )
    tips = [alt.Tooltip("step:Q"), alt.Tooltip("value:Q", format=".4f", title=label)]
    base = alt.Chart(alt.InlineData(rows)).encode(x=x, y=y)
    line = base.mark_line(strokeWidth=2, color=colour, point={"filled": True, "size": 36, "color": colour}).encode(
        tooltip=tips
    )
    chosen = base.transform_filter("datum.chosen")
    ring = chosen.mark_point(size=190, filled=False, strokeWidth=2, color=INK, opacity=1)
    late = (curve.chosen_step or 0) > last / 2
    text = chosen.mark_text(align="right" if late else "left", dx=0, dy=-16, fontSize=11, fontWeight=600, color=INK)
    shown = line + ring + text.encode(text="text:N")
    return finish(shown, width=width, height=170, description=f"{label} of {curve.name} on dev at every evaluation")


def _colour(alt: Any, names: Sequence[str]) -> Any:
    colours = system_colours(names)
    return alt.Color("system:N", legend=None, scale=alt.Scale(domain=list(colours), range=list(colours.values())))


def legend_of(labels: Mapping[str, str], *, columns: int = 2) -> Any:
    """Return a legend above the chart that shows each value as its label, or as itself."""
    alt = load_altair()
    shown = "".join(f"datum.label === {json.dumps(value)} ? {json.dumps(text)} : " for value, text in labels.items())
    return alt.Legend(
        orient="top", title=None, labelExpr=f"{shown}datum.label", labelLimit=0, columns=columns, symbolOpacity=1
    )


def finish(chart: Any, *, width: int | str, height: int, description: str) -> Any:
    alt = load_altair()
    autosize = alt.AutoSizeParams(type="fit-x", contains="padding")
    return styled(chart.properties(width=width, height=height, autosize=autosize), description)


def styled(chart: Any, description: str) -> Any:
    """Give a chart, or several side by side, the look of the house."""
    axis: Mapping[str, Any] = {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "gridColor": GRID,
        "domainColor": GRID,
        "tickColor": GRID,
        "labelFontSize": 11,
        "labelFlush": False,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 8,
    }
    return (
        chart.properties(description=description)
        .configure(font=_FONT, background="transparent", padding={"left": 2, "right": 14, "top": 4, "bottom": 2})
        .configure_view(stroke=None)
        .configure_axis(**axis)
        .configure_legend(
            labelColor=INK, titleColor=MUTED, titleFontWeight="normal", titleFontSize=11, labelFontSize=11
        )
        .configure_title(color=INK, fontSize=14, subtitleColor=MUTED, subtitleFontSize=11.5, anchor="start", offset=12)
    )


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten between two numbers, or only the powers where they are far apart.

    >>> log_ticks(0.06, 1.1), log_ticks(3e9, 4e12)
    ([0.1, 0.2, 0.5, 1.0], [10000000000.0, 100000000000.0, 1000000000000.0])
    """
    digits = (1, 2, 5) if high < 100 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [float(f"{digit}e{power}") for power in powers for digit in digits]
    return [tick for tick in found if low <= tick <= high]


def _short(value: float) -> float:
    return round(float(value), 5)


def _thin(values: list[Any]) -> list[Any]:
    """Return at most `_POINTS` values, evenly spaced, ends included."""
    if len(values) <= _POINTS:
        return values
    return [values[round(i * (len(values) - 1) / (_POINTS - 1))] for i in range(_POINTS)]


def _smooth(values: Sequence[float]) -> list[float]:
    """Return the exponential moving average over about a twentieth of the values, free of a starting value's pull."""
    keep = 1 - 2 / (max(len(values) / 20, 2) + 1)
    total = weight = 0.0
    out = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        out.append(total / weight)
    return out
