"""`write_mining_report`: a mining audit as one HTML page that opens without a network, beside the mined file."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from rivals.errors import RivalsError
from rivals.evaluate import mining_charts
from rivals.evaluate._report import words
from rivals.evaluate.report import SCRIPTS, json_for_html, part_of, with_variables
from rivals.files import atomic_file
from rivals.negatives import MiningAudit

_CUT = 400  # characters of a text that the page shows
_EXAMPLES = 20


def write_mining_report(path: str | Path, audit: MiningAudit, *, title: str = "Mined negatives") -> Path:
    """Write the audit as one self-contained HTML file, whole or not at all, and return its path.

    Raises:
        RivalsError: altair or Jinja2 is not installed.
    """
    path = Path(path)
    page = render_mining(audit, title=title)
    with atomic_file(path) as out:
        out.write(page)
    return path


def render_mining(audit: MiningAudit, *, title: str = "Mined negatives") -> str:
    """Return the page as text."""
    specs = mining_specs(audit)
    script = "\n".join(part_of(name) for name in SCRIPTS)
    page: str = _template().render(
        title=title,
        audit=audit,
        w=words,
        cut=_CUT,
        shown=_EXAMPLES,
        lead=_lead(audit),
        reasons=sorted(audit.reasons.items(), key=lambda item: -item[1].marked),
        css=part_of("report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        specs=json_for_html(specs),
        charts=specs,
        json=json.dumps(json.loads(audit.to_json()), indent=2, ensure_ascii=False),
    )
    return page


def mining_specs(audit: MiningAudit) -> dict[str, dict[str, Any]]:
    """Return the page's charts by place, as Vega-Lite specifications checked against its schema."""
    made: dict[str, Any] = {"outcomes": mining_charts.outcomes(audit, width="container")}
    for name, chart in mining_charts.score_distributions(audit, width="container").items():
        made[f"scores-{name}"] = chart
    if audit.false_negatives:
        made["false-negatives"] = mining_charts.false_negatives(audit, width="container")
    import altair

    with altair.data_transformers.enable(consolidate_datasets=False):
        return {name: with_variables(chart.to_dict()) for name, chart in made.items()}


def _lead(audit: MiningAudit) -> str:
    """Return the outcome in one or two sentences."""
    lead = (
        f"For {words.count(audit.queries)} queries {words.count(audit.proposed)} candidates were proposed; "
        f"{words.share(audit.proposed - audit.kept, audit.proposed)} were marked and {words.count(audit.drawn)} negatives drawn"
    )
    lead += f", {words.count(audit.unfilled)} fewer than wanted." if audit.unfilled else "."
    drawn = next((rate for rate in reversed(audit.false_negatives) if rate.of == "drawn"), None)
    if drawn is not None:
        lead += (
            f" About {drawn.estimate:.1%} of the drawn are false negatives ({drawn.low:.1%} to {drawn.high:.1%}), as judged "
            f"by {drawn.judge}."
        )
    return lead


@cache
def _template() -> Any:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise RivalsError("reports need Jinja2; install it with: pip install 'rivals[report]'") from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(part_of("mining.html.j2"))
