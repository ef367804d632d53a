"""`Plot`: a chart that saves itself, as a page that opens without a network or as a picture."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rivals.errors import RivalsError
from rivals.evaluate.charts import SURFACE, load_altair
from rivals.evaluate.report import SCRIPTS, json_for_html, part_of, with_variables
from rivals.files import atomic_file

_CHARACTER = 6.2  # pixels of a character of a subtitle, on average


@dataclass(frozen=True, eq=False)
class Plot:
    """A chart with its title and a sentence on how to read it. Notebooks show it; `save` writes it.

    `chart` is the altair chart, to be changed or joined with others; `reading` says what to look for, and stands below
    the chart on the page that `save` writes. Made by the functions of `rivals.evaluate.plots`.
    """

    chart: Any
    title: str
    reading: str

    @classmethod
    def of(cls, chart: Any, title: str, reading: str, *, below: str = "", width: int = 640) -> Plot:
        """Return the plot of a chart with its title above it and `below` under the title, wrapped at `width` pixels."""
        alt = load_altair()
        head = alt.TitleParams(text=title, subtitle=textwrap.wrap(below, max(int(width / _CHARACTER), 20)))
        return cls(chart.properties(title=head), title, reading)

    def to_dict(self) -> dict[str, Any]:
        """Return the Vega-Lite specification, checked against its schema."""
        with load_altair().data_transformers.enable(consolidate_datasets=False):
            spec: dict[str, Any] = self.chart.to_dict()
        return spec

    def to_html(self, more: str = "") -> str:
        """Return a page that holds all it needs: it opens without a network, and follows the reader's light or dark.

        Args:
            more: HTML to stand below the chart, its texts escaped.
        """
        script = "\n".join(part_of(name) for name in SCRIPTS)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"
        return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{html.escape(self.title)}</title>
<style>{part_of("report.css")}
main {{ padding-top: 32px; }} [data-chart] svg {{ height: auto; }} figcaption {{ margin-top: 1rem; }}
h2 {{ margin-top: 2.4rem; }} h3 {{ margin-top: 1.6rem; }}</style>
</head>
<body>
<main><figure><div data-chart="plot"></div><figcaption>{html.escape(self.reading)}</figcaption></figure>{more}
<noscript><p>The chart needs JavaScript.</p></noscript></main>
<script type="application/json" id="charts">{json_for_html({"plot": with_variables(self.to_dict())})}</script>
<script>{script}</script>
</body>
</html>
"""

    def save(self, path: str | Path, *, scale: float = 2.0) -> Path:
        """Write the plot, whole or not at all, in the form that the end of the name says, and return the path.

        `.html` opens in any browser without a network; `.json` is the Vega-Lite specification; `.svg` and `.png` need the
        extra `plots` (vl-convert-python) and have a light background, so that they can be read wherever they are put.

        Args:
            scale: of a PNG, in pixels a unit.

        Raises:
            RivalsError: the name ends with something else, scale is not above 0, or vl-convert-python is missing.
        """
        path = Path(path)
        if not scale > 0:
            raise RivalsError(f"scale is {scale}; it must be above 0")
        if path.suffix == ".html":
            content: str | bytes = self.to_html()
        elif path.suffix == ".json":
            content = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        elif path.suffix in (".png", ".svg"):
            content = self._picture(path.suffix, scale)
        else:
            raise RivalsError(
                f"'{path.name}' must end with .html, .json, .png or .svg, so that it is clear what to write"
            )
        with atomic_file(path, "w" if isinstance(content, str) else "wb") as out:
            out.write(content)
        return path

    def _picture(self, suffix: str, scale: float) -> str | bytes:
        try:
            import vl_convert
        except ImportError:
            raise RivalsError(
                "PNG and SVG need vl-convert-python; install it with: pip install 'rivals[plots]' (.html needs nothing more)"
            ) from None
        spec = self.to_dict()
        spec["background"] = spec["config"]["background"] = SURFACE
        spec["config"]["padding"] = 16
        version = ".".join(load_altair().VEGALITE_VERSION.split(".")[:2])
        if suffix == ".svg":
            text: str = vl_convert.vegalite_to_svg(spec, vl_version=version)
            return text
        picture: bytes = vl_convert.vegalite_to_png(spec, vl_version=version, scale=scale)
        return picture

    def _repr_mimebundle_(self, *args: Any, **options: Any) -> Any:
        return self.chart._repr_mimebundle_(*args, **options)
