"""`write_report`: one HTML file which shows a run to a stranger and opens without a network.

The page holds everything it needs: the numbers, the chart specifications (made and checked by altair) and the
JavaScript that draws them. A content security policy inside the page forbids every request. Needs the extra `report`
(altair, which brings Jinja2).
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from rivals.errors import RivalsError, RunFolderError
from rivals.evaluate import charts
from rivals.evaluate._report import words
from rivals.evaluate._report.build import Measured, measured, worst_queries
from rivals.evaluate._report.data import (
    About,
    Comparison,
    Curve,
    Differences,
    Hit,
    Interval,
    Mining,
    Overlap,
    ReportData,
    ScoreStage,
    Slice,
    Slices,
    Suspect,
    System,
    WorstQuery,
)
from rivals.files import atomic_file

__all__ = [
    "About",
    "Comparison",
    "Curve",
    "Differences",
    "Hit",
    "Interval",
    "Measured",
    "Mining",
    "Overlap",
    "ReportData",
    "ScoreStage",
    "Slice",
    "Slices",
    "Suspect",
    "System",
    "WorstQuery",
    "measured",
    "rebuild_report",
    "render",
    "save_report",
    "worst_queries",
    "write_report",
]

SCRIPTS = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js", "report.js")
_CUT, _HIT_CUT = 400, 240  # characters of a document that the page shows, alone and in a list of hits


def write_report(path: str | Path, data: ReportData) -> Path:
    """Write the report as one self-contained HTML file, whole or not at all, and return its path.

    Raises:
        RivalsError: altair or Jinja2 is not installed.
    """
    path = Path(path)
    page = render(data)
    with atomic_file(path) as out:
        out.write(page)
    return path


def save_report(run_folder: str | Path, data: ReportData) -> Path:
    """Write `report.json` (the data) and `report.html` (the page) into a run folder and return the path of the page."""
    with atomic_file(Path(run_folder) / "report.json", "wb") as out:
        out.write(data.to_json())
    return write_report(Path(run_folder) / "report.html", data)


def rebuild_report(run_folder: str | Path) -> Path:
    """Write `report.html` of a run folder anew from its `report.json`, with this version's page.

    Raises:
        RunFolderError: the folder has no `report.json`, or it is damaged.
    """
    source = Path(run_folder) / "report.json"
    try:
        content = source.read_bytes()
    except OSError as error:
        raise RunFolderError(
            f"{source} cannot be read ({error.strerror}); the run has not been evaluated yet"
        ) from None
    return write_report(Path(run_folder) / "report.html", ReportData.from_json(content, path=source))


def render(data: ReportData) -> str:
    """Return the page as text."""
    specs = chart_specs(data)
    script = "\n".join(part_of(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    blocks = words.order_in_blocks(data)
    tested = [c for c in data.comparisons if c.measure == data.primary]
    test_queries = len(data.differences[0].values) if data.differences else data.about.queries.get("test")
    best = max(data.systems, key=lambda system: system.measures[data.primary].value)
    page: str = _template().render(
        data=data,
        w=words,
        cut=_CUT,
        hit_cut=_HIT_CUT,
        css=part_of("report.css"),
        script=script,
        script_hash=digest,
        specs=json_for_html(specs),
        charts=specs,
        measures=list(data.systems[0].measures),
        blocks=blocks,
        ties=words.ties(data),
        colour={s.name: f"var(--s{i % len(charts.SYSTEM_COLOURS)})" for i, s in enumerate(data.systems)},
        best=best,
        best_names=words.best_names(data),
        tested=_by_baseline(tested),
        tested_elsewhere=_by_baseline([c for c in data.comparisons if c.measure != data.primary]),
        tested_best=[c for c in tested if c.system == best.name],
        detectable=words.detectable_sentence(tested, test_queries),
        config=json.dumps(data.config, indent=2, ensure_ascii=False, default=str),
    )
    return page


def chart_specs(data: ReportData) -> dict[str, dict[str, Any]]:
    """Return the charts by place, as Vega-Lite specifications checked against its schema, colours as CSS variables."""
    order = [system.name for block in words.order_in_blocks(data) for system in block]
    made: dict[str, Any] = {}
    for measure in data.systems[0].measures:
        made[f"intervals-{words.anchor(measure)}"] = charts.intervals(
            data.systems, measure, order=order, width="container"
        )
    for i, pair in enumerate(data.differences):
        made[f"differences-{i}"] = charts.differences(pair, data.systems, width="container")
    edges = [edge for stage in data.scores for edge in (stage.edges[0], stage.edges[-1])]
    for i, stage in enumerate(data.scores):
        same = len({(s.edges[0], s.edges[-1]) for s in data.scores}) == 1
        made[f"scores-{i}"] = charts.scores(stage, domain=(min(edges), max(edges)) if same else None, width="container")
    for i, curve in enumerate(data.curves):
        if curve.loss:
            made[f"loss-{i}"] = charts.loss_curve(curve, width="container")
        if curve.evaluations:
            made[f"dev-{i}"] = charts.dev_curve(curve, width="container")
    import altair

    with altair.data_transformers.enable(consolidate_datasets=False):
        return {name: with_variables(chart.to_dict()) for name, chart in made.items()}


def with_variables(spec: Any) -> Any:
    """Write the palette's colours as CSS variables, so that the page can change them in the dark and on paper."""
    if isinstance(spec, dict):
        return {
            key: value if key == "values" else with_variables(value) for key, value in spec.items() if key != "$schema"
        }
    if isinstance(spec, list):
        return [with_variables(value) for value in spec]
    return f"var({charts.CSS_NAMES[spec]}, {spec})" if isinstance(spec, str) and spec in charts.CSS_NAMES else spec


def json_for_html(value: Any) -> str:
    """Return JSON that can stand inside a script element: no character that could end it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _by_baseline(comparisons: list[Comparison]) -> dict[str, list[Comparison]]:
    grouped: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        grouped.setdefault(comparison.baseline, []).append(comparison)
    return grouped


@cache
def part_of(name: str) -> str:
    return (files("rivals.evaluate") / "_report" / name).read_text(encoding="utf-8").strip()


@cache
def _template() -> Any:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise RivalsError("reports need Jinja2; install it with: pip install 'rivals[report]'") from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(part_of("report.html.j2"))
