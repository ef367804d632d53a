"""The plot of a scaling ladder: the loss law and the accuracy link over what the runs showed, and what they forecast."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError
from rivals.evaluate import charts
from rivals.evaluate.plots.plot import Plot

_WIDTH, _HEIGHT = 370, 270
_GRID = 60  # points of a fitted line


class Ladder(Protocol):
    """What `scaling_ladder` draws: a fitted `rivals.diagnose.ScalingLadder`."""

    run: NDArray[Any]
    params: NDArray[np.float64]
    tokens: NDArray[np.float64]
    loss: NDArray[np.float64]
    metric: NDArray[np.float64]

    @property
    def law(self) -> Any: ...
    @property
    def link(self) -> Any: ...


def scaling_ladder(
    ladder: Ladder,
    *,
    target: tuple[float, float] | None = None,
    seen: tuple[float, float] | None = None,
    window: int = 5,
    metric: str = "metric",
    data: str = "tokens",
    title: str = "Scaling ladder",
) -> Plot:
    """Draw both fits of a ladder: final loss by data and size, and the metric by loss; with the forecast of a target.

    Args:
        ladder: after `fit`.
        target: (parameters, tokens) of a model to forecast.
        seen: (loss, metric) that the target really reached, to compare.
        window: last losses of a run that make its dot, as many as `fit` averaged.
        metric, data: what the metric and the unit of data are called on the axes.

    Raises:
        RivalsError: altair is missing, the ladder is not fitted, `seen` without `target`, a window below 1.

    Source: Bhagia et al. 2024, figures 1 and 3. Paper 62.
    """
    alt = charts.load_altair()
    if ladder.law is None or ladder.link is None:
        raise RivalsError("the ladder is not fitted; call fit() first")
    if seen is not None and target is None:
        raise RivalsError("seen values belong to a target; give target=(parameters, tokens) as well")
    if window < 1:
        raise RivalsError(f"window is {window}; it must be at least 1")
    of_run = [np.flatnonzero(ladder.run == name) for name in dict.fromkeys(ladder.run.tolist())]
    last = np.array([rows[-1] for rows in of_run])
    sizes = sorted(set(ladder.params.tolist()) | ({float(target[0])} if target else set()))
    shown = [_count(size) for size in sizes]
    # Sizes have an order, so they differ in lightness as well: neighbours of the palette do.
    colours = [charts.SYSTEM_COLOURS[(1, 2, 3, 4, 5, 6, 7, 0)[i % 8]] for i in range(len(sizes))]
    colour = alt.Color(
        "size:N",
        scale=alt.Scale(domain=shown, range=colours),
        legend=alt.Legend(orient="top", title="parameters", columns=8),
    )
    top = max(float(ladder.tokens.max()), float(target[1]) if target else 0.0)
    fits, runs = [], []
    for size in sizes:
        of_size = ladder.tokens[last][ladder.params[last] == size]
        low = float(of_size.min()) if len(of_size) else float(ladder.tokens[last].min())
        grid = np.geomspace(low, max(top, low * 1.01), _GRID)
        fits += [
            {"size": _count(size), "tokens": float(f"{d:.6g}"), "loss": round(loss, 6)}
            for d, loss in zip(grid.tolist(), ladder.law.predict(size, grid).tolist(), strict=True)
        ]
    for rows in of_run:
        n, d = (float(column[rows[-1]]) for column in (ladder.params, ladder.tokens))
        end = float(ladder.loss[rows[-window:]].mean())
        runs.append({"size": _count(n), "tokens": d, "loss": end, "run": str(ladder.run[rows[-1]])})
    ticks = charts.log_ticks(float(ladder.tokens[last].min()), top)
    x = alt.X(
        "tokens:Q",
        title=f"{data} trained on (logarithmic scale)",
        scale=alt.Scale(type="log", nice=False, padding=14),
        axis=alt.Axis(grid=False, labelExpr="replace(format(datum.value, '~s'), 'G', 'B')", values=ticks),
    )
    y = alt.Y("loss:Q", title="final loss", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5, domain=False))
    tips = [alt.Tooltip("run:N"), alt.Tooltip("size:N", title="parameters"), alt.Tooltip("loss:Q", format=".4f")]
    left = alt.Chart(alt.InlineData(fits)).mark_line(strokeWidth=1.5).encode(x=x, y=y, color=colour)
    left += (
        alt.Chart(alt.InlineData(runs))
        .mark_point(filled=True, size=55, opacity=1)
        .encode(x=x, y=y, color=colour, tooltip=tips)
    )
    losses = [float(ladder.loss.min()), float(ladder.loss.max())]
    marks: list[dict[str, Any]] = []
    if target:
        loss = float(ladder.law.predict(*target))
        value = float(ladder.link.predict(loss))
        marks.append({"what": "forecast", "tokens": float(target[1]), "loss": loss, "metric": value})
        losses.append(loss)
        if seen is not None:
            marks.append({"what": "seen", "tokens": float(target[1]), "loss": seen[0], "metric": seen[1]})
            losses.append(seen[0])
    grid = np.linspace(min(losses), max(losses), _GRID)
    link = [
        {"loss": round(a, 6), "metric": round(b, 6)}
        for a, b in zip(grid.tolist(), np.asarray(ladder.link.predict(grid)).tolist(), strict=True)
    ]
    points = [
        {"size": _count(n), "loss": round(a, 6), "metric": round(b, 6)}
        for n, a, b in zip(ladder.params.tolist(), ladder.loss.tolist(), ladder.metric.tolist(), strict=True)
    ]
    across = alt.X(
        "loss:Q",
        title="loss of a checkpoint (better to the right)",
        scale=alt.Scale(zero=False, reverse=True),
        axis=alt.Axis(grid=False, tickCount=5),
    )
    up = alt.Y("metric:Q", title=metric, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5, domain=False))
    right = alt.Chart(alt.InlineData(points)).mark_point(filled=True, size=22, opacity=0.55)
    right = right.encode(x=across, y=up, color=colour)
    right += alt.Chart(alt.InlineData(link)).mark_line(strokeWidth=2, color=charts.INK).encode(x=across, y=up)
    if marks:
        left += _marked(alt, marks, x, y)
        right += _marked(alt, marks, across, up)
    panels = [panel.properties(width=_WIDTH, height=_HEIGHT) for panel in (left, right)]
    chart = charts.styled(alt.hconcat(*panels, spacing=40), title)
    below = f"{len(of_run)} runs of {len(set(ladder.params.tolist()))} sizes, {len(ladder.run):,} checkpoints"
    if target:
        forecast = marks[0]
        below += f"; forecast for {_count(target[0])} parameters and {_count(target[1])} {data}: loss "
        below += f"{forecast['loss']:.3f}, {metric} {forecast['metric']:.3f}"
        below += f" (seen: {seen[0]:.3f}, {seen[1]:.3f})" if seen is not None else ""
    reading = (
        "Left: ends of the runs (dots) and the fitted law (lines). Right: all checkpoints and the fitted link from loss to "
        f"{metric}. The star is the forecast{', the ring what was seen' if seen is not None else ''}: the further it "
        "stands from the dots, the less they say about it."
    )
    return Plot.of(chart, title, reading, below=below, width=2 * _WIDTH)


def _marked(alt: Any, marks: list[dict[str, Any]], x: Any, y: Any) -> Any:
    base = alt.Chart(alt.InlineData(marks)).encode(
        x=x, y=y, tooltip=[alt.Tooltip("what:N", title="target"), alt.Tooltip("loss:Q", format=".4f")]
    )
    star = "M0,-1L0.235,-0.324L0.951,-0.309L0.38,0.124L0.588,0.809L0,0.4L-0.588,0.809L-0.38,0.124L-0.951,-0.309L-0.235,-0.324Z"
    forecast = base.transform_filter("datum.what === 'forecast'").mark_point(
        shape=star, filled=True, size=170, opacity=1, color=charts.INK
    )
    return forecast + base.transform_filter("datum.what === 'seen'").mark_point(
        filled=False, size=230, opacity=1, strokeWidth=2, color=charts.INK
    )


def _count(value: float) -> str:
    """Return a size as people write it.

    >>> _count(190e6), _count(7e9), _count(1500)
    ('190M', '7B', '1.5K')
    """
    for bound, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= bound:
            return f"{value / bound:.4g}{letter}"
    return f"{value:.4g}"
