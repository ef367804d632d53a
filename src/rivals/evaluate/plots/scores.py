"""Plots of scores: how positives and negatives are spread, and whether stated probabilities come true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from rivals.errors import RivalsError
from rivals.evaluate import charts
from rivals.evaluate._report.data import ScoreStage
from rivals.evaluate._report.words import number
from rivals.evaluate.plots.plot import Plot
from rivals.measures.proportions import proportion_interval

if TYPE_CHECKING:
    from rivals.measures.calibration import CalibrationReport, ReliabilityCurve

_WIDTH = 640
_SIDE = 440


def score_distribution(
    scores: ScoreStage | tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike],
    *,
    title: str = "Scores of positives and negatives",
    unit: str = "score",
    bins: int = 48,
    width: int = _WIDTH,
) -> Plot:
    """Draw how one model's scores of positives, negatives and marked false negatives are spread, each class as shares.

    What overlaps is what the model cannot order. A second hump of negatives among the positives is the sign of false
    negatives; the marked ones should lie there.

    Args:
        scores: (positives, negatives) or (positives, negatives, marked), each of any shape; or a `ScoreStage`, such as
            `mining_charts.score_stages(audit)` gives.
        unit: of the scores, such as "cosine"; the title of their axis.
        bins: of equal width over all scores; a `ScoreStage` has its own.
        width: in pixels.

    Raises:
        RivalsError: altair is missing, a score is not finite, there are not two or three classes, or no score.

    >>> score_distribution(([.9, .8], [.1, .8]), unit="cosine").title
    'Scores of positives and negatives'
    """
    if isinstance(scores, ScoreStage):
        stage = scores
    else:
        if len(scores) not in (2, 3):
            raise RivalsError(f"{len(scores)} classes of scores were given; give (positives, negatives[, marked])")
        marked = scores[2] if len(scores) == 3 else ()
        (stage,) = ScoreStage.of({title: (scores[0], scores[1], marked)}, bins=bins)
    total = sum(stage.positives) + sum(stage.negatives) + sum(stage.marked)
    if not total:
        raise RivalsError("there is no score to draw")
    wide = stage.edges[1] - stage.edges[0]
    chart = charts.scores(stage, width=width, legend=True, axis_title=f"{unit} (bins of {wide:.2g})")
    below = f"{total:,} scores, every class as shares of itself"
    if stage.separation is not None:
        below += f"; a random positive scores above a random negative with probability {number(stage.separation)}"
    reading = (
        "Where the classes overlap the model cannot order them. A second hump of negatives among the positives is a sign "
        "of right answers that nobody labelled; marked candidates should lie there."
    )
    return Plot.of(chart, title, reading, below=below, width=width)


def reliability(
    curves: ReliabilityCurve | CalibrationReport | Mapping[str, ReliabilityCurve | CalibrationReport],
    *,
    title: str = "Do stated probabilities come true?",
    level: float = 0.95,
) -> Plot:
    """Draw a reliability diagram: how often predictions were right, by the probability they stated.

    On the diagonal a model is calibrated, below it over-confident. Every bin has its Clopper-Pearson interval, without
    which a bin of three predictions looks like a finding; the area of a dot is the bin's share of the predictions.

    Args:
        curves: of `reliability_curve` or `calibration_report`, alone or by the name of each model.
        level: of the intervals.

    Raises:
        RivalsError: altair is missing, or no bin holds a prediction.

    Source: DeGroot and Fienberg 1983. Paper 109.

    >>> from rivals.measures import reliability_curve
    >>> curve = reliability_curve(np.array([[0.9, 0.1]] * 4), np.array([0, 0, 0, 1]), bins=5, probabilities=True)
    >>> reliability(curve).chart.to_dict()["width"]
    440
    """
    alt = charts.load_altair()
    named = dict(curves) if isinstance(curves, Mapping) else {"": curves}
    rows: list[dict[str, Any]] = []
    key: dict[str, str] = {}
    for name, given in named.items():
        curve: Any = getattr(given, "curve", given)
        confidence, frequency = (np.asarray(part, np.float64) for part in (curve.confidence, curve.frequency))
        count = np.asarray(curve.count)
        filled = np.flatnonzero(count > 0)
        total = int(count.sum())
        key[name] = f"{name}: n = {total:,}" if name else f"{total:,} predictions"
        error = getattr(given, "ece", None)
        if error is not None:
            key[name] += f", calibration error {number(error)}"
        _, low, high = proportion_interval(np.round(frequency[filled] * count[filled]), count[filled], level=level)
        for place, below_it, above_it in zip(filled.tolist(), low.tolist(), high.tolist(), strict=True):
            rows.append(
                {
                    "system": name,
                    "stated": round(float(confidence[place]), 5),
                    "right": round(float(frequency[place]), 5),
                    "low": round(below_it, 5),
                    "high": round(above_it, 5),
                    "count": int(count[place]),
                    "part": round(float(count[place]) / total, 5),
                }
            )
    if not rows:
        raise RivalsError("no bin holds a prediction; there is nothing to draw")
    scale = alt.Scale(domain=[0, 1], nice=False)
    axis = alt.Axis(format=".0%", tickCount=5, domain=False)
    x_title, y_title = "stated probability (mean of a bin)", f"share that was right, with {level:.0%} interval"
    x = alt.X("stated:Q", scale=scale, axis=axis, title=x_title)
    colours = dict(zip(named, charts.SYSTEM_COLOURS[3:] + charts.SYSTEM_COLOURS[:3], strict=False))
    if len(named) > len(colours):
        raise RivalsError(f"{len(named)} curves cannot be told apart in one diagram; draw at most {len(colours)}")
    colour = alt.Color(
        "system:N",
        scale=alt.Scale(domain=list(colours), range=list(colours.values())),
        legend=charts.legend_of(key, columns=1) if len(named) > 1 else None,
    )
    tips = [
        alt.Tooltip("stated:Q", format=".3f", title="stated"),
        alt.Tooltip("right:Q", format=".3f", title="right"),
        alt.Tooltip("low:Q", format=".3f", title="from"),
        alt.Tooltip("high:Q", format=".3f", title="to"),
        alt.Tooltip("count:Q", format=",", title="predictions"),
    ]
    diagonal = alt.Chart(alt.InlineData([{"stated": 0, "right": 0}, {"stated": 1, "right": 1}])).mark_line(
        color=charts.MUTED, strokeWidth=1, strokeDash=[4, 4]
    )
    y = alt.Y("right:Q", scale=scale, axis=axis, title=y_title)
    base = alt.Chart(alt.InlineData(rows)).encode(x=x, color=colour, tooltip=tips)
    bar = base.mark_rule(strokeWidth=2, opacity=0.45).encode(y=alt.Y("low:Q", scale=scale, title=y_title), y2="high:Q")
    line = base.mark_line(strokeWidth=1.5, opacity=0.8).encode(y=y)
    size = alt.Size("part:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[25, 500]))
    dot = base.mark_point(filled=True, opacity=1).encode(y=y, size=size)
    chart = charts.finish(
        diagonal.encode(x=x, y=y) + bar + line + dot, width=_SIDE, height=_SIDE - 60, description=title
    )
    reading = (
        "On the dashed line predictions come true as often as they say; below it the model is over-confident, above it "
        "too careful. The area of a dot is the share of predictions in its bin, and a long bar means few of them."
    )
    below = "" if len(named) > 1 else next(iter(key.values()))
    return Plot.of(chart, title, reading, below=below, width=_SIDE)
