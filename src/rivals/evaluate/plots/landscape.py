"""Plots of the loss around a model: along lines, and on a plane with its contours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals.errors import RivalsError
from rivals.evaluate import charts
from rivals.evaluate.plots.plot import Plot

_WIDTH = 640
_SIDE = 420
_OVER = 0.05  # cells reach this far into their neighbours, so that no seam shows between them
_PATH = "#ffffff"  # stands on the colours of the surface, in the light and in the dark


class Curve(Protocol):
    """What `loss_curves` draws: a `rivals.diagnose.LossCurve`."""

    @property
    def x(self) -> Sequence[float]: ...
    @property
    def loss(self) -> Sequence[float]: ...
    @property
    def metric(self) -> Sequence[float] | None: ...


class Surface(Protocol):
    """What `loss_surface` draws: a `rivals.diagnose.LossSurface`."""

    @property
    def x(self) -> Sequence[float]: ...
    @property
    def y(self) -> Sequence[float]: ...
    @property
    def loss(self) -> Sequence[Sequence[float]]: ...
    @property
    def cosine(self) -> float: ...


def loss_curves(
    curves: Curve | Mapping[str, Curve],
    *,
    places: Mapping[str, float] | None = None,
    log: bool = False,
    title: str = "Loss along a direction",
    axis: str = "step along the direction",
    width: int = _WIDTH,
) -> Plot:
    """Draw the loss along a line through the weights, of one model or of several by name.

    Compare sharpness only of directions that were normalised by filter, or the scale of the weights is what is seen.

    Args:
        curves: what `rivals.diagnose.loss_curve` or `interpolate_models` returned.
        places: points of the line to name, such as {"small batch": 0, "large batch": 1}.
        log: show the loss on a logarithmic scale.
        axis: the title of the axis of steps.
        width: in pixels.

    Raises:
        RivalsError: altair is missing; a curve without finite losses; losses of at most 0 on a logarithmic scale.

    Source: Li et al. (2018), section 3. Paper 92.
    """
    alt = charts.load_altair()
    named: dict[str, Curve] = dict(curves) if isinstance(curves, Mapping) else {"": curves}
    rows: list[dict[str, Any]] = [
        {"system": name, "step": _short(x), "loss": _short(loss)}
        for name, curve in named.items()
        for x, loss in zip(curve.x, curve.loss, strict=True)
        if math.isfinite(loss)
    ]
    if not rows:
        raise RivalsError("no curve has a finite loss; there is nothing to draw")
    if log and min(row["loss"] for row in rows) <= 0:
        raise RivalsError("a loss of at most 0 has no logarithm; draw it with log=False")
    colours = dict(zip(named, charts.SYSTEM_COLOURS[3:] + charts.SYSTEM_COLOURS[:3], strict=False))
    if len(named) > len(colours):
        raise RivalsError(f"{len(named)} curves cannot be told apart in one chart; draw at most {len(colours)}")
    x = alt.X("step:Q", title=axis, axis=alt.Axis(grid=False, tickCount=8), scale=alt.Scale(nice=False, zero=False))
    y = alt.Y(
        "loss:Q",
        title="mean loss (logarithmic scale)" if log else "mean loss",
        axis=alt.Axis(
            domain=False, format="~g", **({"values": charts.log_ticks(*_ends(rows))} if log else {"tickCount": 5})
        ),
        scale=alt.Scale(type="log", nice=False, padding=12) if log else alt.Scale(zero=False),
    )
    colour = alt.Color(
        "system:N",
        scale=alt.Scale(domain=list(colours), range=list(colours.values())),
        legend=charts.legend_of({}) if len(named) > 1 else None,
    )
    tips = [alt.Tooltip("system:N"), alt.Tooltip("step:Q", format="~g"), alt.Tooltip("loss:Q", format=".4~g")]
    base = alt.Chart(alt.InlineData(rows)).encode(x=x, y=y, color=colour, tooltip=tips[len(named) == 1 :])
    shown = base.mark_line(strokeWidth=2)
    if places:
        marks = alt.Chart(alt.InlineData([{"step": _short(at), "text": text} for text, at in places.items()]))
        rule = marks.mark_rule(color=charts.MUTED, strokeDash=[4, 4]).encode(x=x)
        note = marks.mark_text(align="left", dx=5, fontSize=11, color=charts.INK, y=8).encode(x=x, text="text:N")
        shown = rule + shown + note
    points = {len(curve.x) for curve in named.values()}
    lost = sum(not math.isfinite(loss) for curve in named.values() for loss in curve.loss)
    below = f"{' or '.join(str(n) for n in sorted(points))} points a line"
    below += f"; {lost} of them without a finite loss are left out" if lost else ""
    reading = (
        "A narrow valley means that small changes of the weights cost much. It says little about how a model does on new "
        "data, and one random direction is noisy: compare models on several, normalised by filter."
    )
    return Plot.of(
        charts.finish(shown, width=width, height=260, description=title), title, reading, below=below, width=width
    )


def loss_surface(
    surface: Surface,
    *,
    path: ArrayLike | None = None,
    log: bool = False,
    levels: int = 10,
    title: str = "Loss on a plane through the weights",
    axes: tuple[str, str] = ("step along the first direction", "step along the second direction"),
) -> Plot:
    """Draw the loss on a plane as colours with contour lines, and a path of checkpoints on it.

    Args:
        surface: what `rivals.diagnose.loss_surface` returned.
        path: [T, 2] points in the plane, such as the `coordinates` of `trajectory_plane`; the last is ringed. Without
            one, the model itself is marked at (0, 0).
        log: colours and contours follow the logarithm of the loss, for surfaces that rise steeply.
        levels: number of contour lines, at equal steps of the colour scale.
        axes: titles of the two axes.

    Raises:
        RivalsError: altair is missing; fewer than 2 points along an axis, no finite loss, a path of another shape, a
            loss of at most 0 on a logarithmic scale.

    Source: Li et al. (2018), sections 3 and 7. Paper 92.
    """
    alt = charts.load_altair()
    x, y, loss = (np.asarray(part, np.float64) for part in (surface.x, surface.y, surface.loss))
    if len(x) < 2 or len(y) < 2 or loss.shape != (len(x), len(y)):
        raise RivalsError(f"a surface needs 2 points or more along both axes; it has {len(x)}, {len(y)}, {loss.shape}")
    finite = np.isfinite(loss)
    if not finite.any():
        raise RivalsError("the surface has no finite loss; there is nothing to draw")
    if log and not loss[finite].min() > 0:
        raise RivalsError("a loss of at most 0 has no logarithm; draw it with log=False")
    points = None if path is None else np.asarray(path, np.float64)
    if points is not None and (points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all()):
        raise RivalsError(f"the path has shape {points.shape}; it must be [checkpoints, 2], finite")
    (x_edges, y_edges), (i, j) = (_edges(x), _edges(y)), np.nonzero(finite)
    rows = [
        {
            "x": a,
            "x2": b + _OVER * (b - a),
            "y": c,
            "y2": d + _OVER * (d - c),
            "loss": _short(value),
            "at": f"{_short(x[p]):g}, {_short(y[q]):g}",
        }
        for a, b, c, d, value, p, q in zip(
            x_edges[i].tolist(),
            x_edges[i + 1].tolist(),
            y_edges[j].tolist(),
            y_edges[j + 1].tolist(),
            loss[i, j].tolist(),
            i.tolist(),
            j.tolist(),
            strict=True,
        )
    ]
    scales = [alt.Scale(domain=[float(e[0]), float(e[-1])], nice=False, zero=False) for e in (x, y)]
    x_axis = alt.X("x:Q", title=axes[0], scale=scales[0], axis=alt.Axis(grid=False, tickCount=6))
    y_axis = alt.Y("y:Q", title=axes[1], scale=scales[1], axis=alt.Axis(grid=False, tickCount=6))
    ticks = {"values": charts.log_ticks(*_ends(rows))} if log else {}
    colour = alt.Color(
        "loss:Q",
        scale=alt.Scale(scheme="viridis", type="log" if log else "linear", nice=False, zero=False),
        legend=alt.Legend(
            title=["mean loss", "(log scale)"] if log else "mean loss",
            gradientLength=_SIDE - 80,
            format="~g",
            **ticks,
        ),
    )
    tips = [alt.Tooltip("at:N", title="at"), alt.Tooltip("loss:Q", format=".4~g")]
    cells = alt.Chart(alt.InlineData(rows)).mark_rect(clip=True).encode(x=x_axis, x2="x2:Q", y=y_axis, y2="y2:Q")
    shown = cells.encode(color=colour, tooltip=tips)
    heights = np.where(finite, np.log(loss) if log else loss, np.nan)
    found = np.linspace(np.nanmin(heights), np.nanmax(heights), levels + 2)[1:-1]
    lines = [dict(zip(("x", "y", "x2", "y2"), cut, strict=True)) for at in found for cut in _contour(x, y, heights, at)]
    if lines:
        contour = alt.Chart(alt.InlineData(lines)).mark_rule(color=_PATH, strokeWidth=1, opacity=0.45)
        shown += contour.encode(x=x_axis, y=y_axis, x2="x2:Q", y2="y2:Q")
    shown += _path(alt, np.zeros((1, 2)) if points is None else points, x_axis, y_axis)
    chart = charts.finish(shown, width=_SIDE + 110, height=_SIDE, description=title)
    below = f"{len(x)} x {len(y)} points; cosine of the two directions {surface.cosine:.2f}"
    if missing := loss.size - len(rows):
        below += f"; {missing} points without a finite loss are left white"
    reading = (
        "Lines join points of equal loss, at equal steps of the colour scale. "
        + ("The dot is the model itself" if points is None else "Dots are checkpoints in order, the ring is the last")
        + ". A plane shows two of very many directions: what looks convex here may not be so elsewhere."
    )
    return Plot.of(chart, title, reading, below=below, width=_SIDE + 110)


def _path(alt: Any, points: NDArray[np.float64], x: Any, y: Any) -> Any:
    rows = [{"x": _short(a), "y": _short(b), "order": i} for i, (a, b) in enumerate(points.tolist())]
    base = alt.Chart(alt.InlineData(rows)).encode(x=x, y=y)
    line = base.mark_line(color=_PATH, strokeWidth=2).encode(order="order:Q")
    dot = base.mark_point(filled=True, size=45, opacity=1, color=_PATH, stroke="#000000", strokeWidth=1)
    last = base.transform_filter(f"datum.order === {len(rows) - 1}")
    return line + dot + last.mark_point(filled=False, size=190, opacity=1, color=_PATH, strokeWidth=2)


def _edges(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the borders of cells around points: halfway between neighbours, and as far beyond the ends."""
    if (np.diff(points) <= 0).any():
        raise RivalsError("the points along an axis must rise")
    middle = (points[1:] + points[:-1]) / 2
    return np.concatenate(([2 * points[0] - middle[0]], middle, [2 * points[-1] - middle[-1]]))


def _contour(
    x: NDArray[np.float64], y: NDArray[np.float64], height: NDArray[np.float64], level: float
) -> list[tuple[float, float, float, float]]:
    """Return the pieces (x, y, x2, y2) of a contour line, by marching squares with linear interpolation.

    Where all four edges of a cell are crossed the crossings are joined in pairs around the cell.
    """
    pieces: list[tuple[float, float, float, float]] = []
    above = height > level
    sums = above[:-1, :-1].astype(int) + above[1:, :-1] + above[:-1, 1:] + above[1:, 1:]
    whole = np.isfinite(height[:-1, :-1] + height[1:, :-1] + height[:-1, 1:] + height[1:, 1:])
    for i, j in np.argwhere((sums > 0) & (sums < 4) & whole).tolist():
        corners = ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1))
        cuts = []
        for one, other in zip(corners, (*corners[1:], corners[0]), strict=True):
            if above[one] != above[other]:
                part = (level - height[one]) / (height[other] - height[one])
                cuts.append(
                    (x[one[0]] + part * (x[other[0]] - x[one[0]]), y[one[1]] + part * (y[other[1]] - y[one[1]]))
                )
        for start, stop in zip(cuts[::2], cuts[1::2], strict=True):
            pieces.append((_short(start[0]), _short(start[1]), _short(stop[0]), _short(stop[1])))
    return pieces


def _ends(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    losses = [row["loss"] for row in rows]
    return min(losses), max(losses)


def _short(value: float) -> float:
    """Six figures: what a picture can show."""
    return float(f"{value:.6g}")
