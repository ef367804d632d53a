"""The charts of a mining audit, as altair charts, for notebooks and for the page that `rivals mine` writes.

    from rivals.evaluate import mining_charts
    mining_charts.outcomes(mined.audit)

They look like those of `rivals.evaluate.charts`, and need the extra `report` (altair) as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rivals.evaluate._report.data import ScoreStage
from rivals.evaluate.charts import CLASS_COLOURS, INK, MUTED, SYSTEM_COLOURS, finish, load_altair, scores
from rivals.negatives import MiningAudit

if TYPE_CHECKING:
    import altair as alt

DRAWN_COLOUR = SYSTEM_COLOURS[3]
_LABEL = 300  # pixels for the names of rules


def outcomes(audit: MiningAudit, *, width: int | str = 620) -> alt.LayerChart:
    """What became of the candidates: a bar for all, one for every rule that marked some, for the kept and the drawn.

    Args:
        width: in pixels, or "container".
    """
    alt = load_altair()
    rows = [{"what": "proposed", "count": audit.proposed, "kind": "all"}]
    reasons = sorted(audit.reasons.items(), key=lambda item: -item[1].marked)
    rows += [{"what": name, "count": r.marked, "kind": "marked", "alone": r.alone} for name, r in reasons if r.marked]
    if audit.relabelled:
        rows.append({"what": "relabelled as positives", "count": audit.relabelled, "kind": "positives"})
    rows += [{"what": "kept as negatives", "count": audit.kept, "kind": "kept"}]
    rows += [{"what": "drawn", "count": audit.drawn, "kind": "drawn"}]
    for row in rows:
        row["label"] = f"{row['count']:,}"
    order = [row["what"] for row in rows]
    colours = {
        "all": MUTED,
        "marked": CLASS_COLOURS["marked"],
        "positives": CLASS_COLOURS["positives"],
        "kept": CLASS_COLOURS["negatives"],
        "drawn": DRAWN_COLOUR,
    }
    axis = alt.Axis(labelLimit=_LABEL, labelFontSize=12, ticks=False, domain=False, labelPadding=8)
    base = alt.Chart(alt.InlineData(rows)).encode(
        y=alt.Y("what:N", sort=order, title=None, axis=axis),
        x=alt.X(
            "count:Q", title=None, axis=None, scale=alt.Scale(domain=[0, max(audit.proposed, 1) * 1.12], nice=False)
        ),
        tooltip=[
            alt.Tooltip("what:N", title="candidates"),
            alt.Tooltip("count:Q", format=","),
            alt.Tooltip("alone:Q", format=",", title="by this rule alone"),
        ],
    )
    colour = alt.Color("kind:N", legend=None, scale=alt.Scale(domain=list(colours), range=list(colours.values())))
    bars = base.mark_bar(height=13).encode(color=colour)
    labels = base.mark_text(align="left", dx=6, fontSize=11).encode(text="label:N", color=alt.value(INK))
    return finish(
        bars + labels,
        width=width,
        height=27 * len(rows),
        description="Candidates proposed, marked by each rule, kept and drawn",
    )


def score_stages(audit: MiningAudit) -> dict[str, ScoreStage]:
    """Return the histograms of the audit: "filters" (positives, kept, marked) and "drawn" (positives, drawn); {} if none."""
    counts = {
        name: tuple(round(value) for value in values) for name, values in audit.histogram.items() if name != "edges"
    }
    if not counts:
        return {}
    edges = audit.histogram["edges"]
    none = (0,) * (len(edges) - 1)
    return {
        "filters": ScoreStage("after the filters", edges, counts["positives"], counts["kept"], counts["marked"]),
        "drawn": ScoreStage("of the drawn negatives", edges, counts["positives"], counts["drawn"], none),
    }


def score_distributions(audit: MiningAudit, *, width: int | str = 420) -> dict[str, alt.LayerChart]:
    """Overlaid histograms: the scores of positives, kept and marked candidates, and those of positives and drawn ones."""
    return {name: scores(stage, width=width) for name, stage in score_stages(audit).items()}


def false_negatives(audit: MiningAudit, *, width: int | str = 520) -> alt.LayerChart:
    """The judged rates of relevant candidates with their intervals: every group as a whole (strong) and by rank."""
    alt = load_altair()
    rows: list[dict[str, Any]] = []
    for rate in audit.false_negatives:
        whole = f"{rate.of}, judged by {rate.judge}"
        parts: list[tuple[str, float | None, float, float, int, int, bool]] = [
            (whole, rate.estimate, rate.low, rate.high, rate.relevant, rate.judged, True)
        ]
        bands = [band for band in rate.bands if band.rate is not None]
        for band in bands if len(rate.bands) > 1 else ():
            ranks = f"rank {band.first}" if band.first == band.last else f"ranks {band.first} to {band.last}"
            parts.append((f"{rate.of}, {ranks}", band.rate, band.low, band.high, band.relevant, band.judged, False))
        rows += [
            {
                "what": what,
                "rate": round(value or 0.0, 5),
                "low": round(low, 5),
                "high": round(high, 5),
                "label": f"{value:.1%}",
                "seen": f"{relevant:,} of {judged:,}",
                "whole": is_whole,
            }
            for what, value, low, high, relevant, judged, is_whole in parts
        ]
    axis = alt.Axis(labelLimit=_LABEL, labelFontSize=12, ticks=False, domain=False, labelPadding=8)
    x = alt.Axis(format=".0%", tickCount=6, domain=False, ticks=False)
    tips = [
        alt.Tooltip("what:N", title="candidates"),
        *(
            alt.Tooltip(f"{f}:Q", format=".1%", title=t)
            for f, t in (("rate", "relevant"), ("low", "from"), ("high", "to"))
        ),
        alt.Tooltip("seen:N", title="judged relevant"),
    ]
    strong = alt.condition("datum.whole", alt.value(1), alt.value(0.6))
    base = alt.Chart(alt.InlineData(rows)).encode(
        y=alt.Y("what:N", sort=[row["what"] for row in rows], title=None, axis=axis),
        color=alt.condition("datum.whole", alt.value(DRAWN_COLOUR), alt.value(MUTED)),
        opacity=strong,
        tooltip=tips,
    )
    scale = alt.Scale(domain=[0, 1.05 * max([0.05, *(row["high"] for row in rows)])], nice=True)
    rule = base.mark_rule(strokeWidth=3, strokeCap="round").encode(
        x=alt.X("low:Q", title="share that is relevant", axis=x, scale=scale), x2="high:Q"
    )
    dot = base.mark_point(filled=True, size=70).encode(x=alt.X("rate:Q", scale=scale))
    text = base.mark_text(align="left", dx=8, fontSize=11).encode(x="high:Q", text="label:N", color=alt.value(INK))
    return finish(
        rule + dot + text,
        width=width,
        height=34 * max(len(rows), 1),
        description="Share of relevant candidates with its interval",
    )
