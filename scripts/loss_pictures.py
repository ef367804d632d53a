"""Draw what losses do to two scores: contours of the value, arrows down its slope, and both along either score.

    python scripts/loss_pictures.py            # docs/losses/*.svg, all of them
    python scripts/loss_pictures.py info_nce   # one

A loss gets a picture if two scores describe it: one positive and one negative of a list, the own and another class's
logit, a better and a worse response, or one score and its target. Losses that need more tensors, draw at random or are
constant on two candidates get none. The pictures are small SVG files that follow the reader's light or dark scheme.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rivals.catalogue import Entry, entries

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "losses"
LARGEST = 6_000  # bytes a picture
_POINTS, _ARROWS, _LEVELS = 25, 6, 7  # arrows stand on points: (points - 1) / arrows is even
_SIDE = 240  # units of a square panel; a unit is half a pixel
_STYLE = (
    "text{font:20px sans-serif;fill:#57606a}.p{fill:#fff;stroke:#d0d7de}.c{stroke:#6e9bc9}.v{stroke:#0969da}"
    ".g{stroke:#cf222e}.h{fill:#cf222e}.d{stroke-dasharray:9 6}path,line{fill:none;stroke-width:3}"
    ".z{stroke:#8b949e;stroke-width:1}.c{stroke-width:2}"
    "@media(prefers-color-scheme:dark){text{fill:#9aa4af}.p{fill:#0d1117;stroke:#30363d}.c{stroke:#3d6fa5}"
    ".v{stroke:#58a6ff}.g{stroke:#ff7b72}.h{fill:#ff7b72}}"
)


@dataclass(frozen=True)
class View:
    """How a loss is looked at: its two axes, or one, and the loss of a point on them."""

    axes: tuple[str, ...]
    low: float
    high: float
    loss: Callable[[Tensor], Tensor]


def view_of(entry: Entry) -> View | None:
    """Return how to look at a loss, or None if two scores do not describe it."""
    function = entry.resolve()
    parameters = list(inspect.signature(function).parameters.values())
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        return None
    seeded = any(p.name == "generator" for p in parameters)

    def call(*tensors: Tensor, **options: Any) -> Tensor:
        if seeded:
            options["generator"] = torch.Generator().manual_seed(0)
        return function(*tensors, **options).sum()

    shapes = " ".join(entry.shapes.split())
    if re.search(r"\(minus|minus a distance", shapes):
        low, high = -3.0, 0.0
    elif "cosines" in shapes or "Cosines as scores" in entry.when:
        low, high = -1.0, 1.0
    elif re.search(r"scores float\[[^\]]*\] in 0\.\.1", shapes):
        low, high = 0.02, 0.98
    else:
        low, high = -3.0, 3.0
    leading = [p.name for p in parameters[:3]]
    if leading[:2] == ["scores", "relevance"] and leading[2] == "mask":
        first = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        return View(("positive's score", "negative's score"), low, high, lambda s: call(s[None], first))
    if entry.form == "labels" and re.search(r"logits float\[N, K\]", shapes):
        own = torch.tensor([0])
        what = "cosine" if "cosines" in shapes else "logit"
        return View((f"own class's {what}", f"other class's {what}"), low, high, lambda s: call(s[None], own))
    if entry.form == "targets":
        zero, pair = torch.zeros(1, 1, dtype=torch.float64), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        alone = View(("score, for a target of 0",), -3.0, 3.0, lambda s: call(s[None], zero))
        both = ("score, target 1", "score, target 0")
        return alone if _sampled(alone) is not None else View(both, -3.0, 3.0, lambda s: call(s[None], pair))
    if entry.form == "preferences" and ("PREFERENCE_LOSSES" in entry.symbol or leading[:2] == ["logps", "relevance"]):
        better = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        reference, lengths = torch.full((1, 2), -20.0, dtype=torch.float64), torch.full((1, 2), 10.0)
        axes = ("better text: log p", "worse text: log p")
        return View(axes, -39.0, -1.0, lambda s: call(s[None], better, reference, lengths))
    return None


@dataclass(frozen=True)
class Sampled:
    """Values and gradients on a grid: values [P] or [P, P] (first axis first), gradients with the axis last."""

    points: Tensor
    values: Tensor
    gradients: Tensor


def _sampled(view: View) -> Sampled | None:
    """Evaluate a view; None if the loss refuses it, is not finite, does not move or does not repeat itself."""
    points = torch.linspace(view.low, view.high, _POINTS, dtype=torch.float64)
    grid = torch.cartesian_prod(*[points] * len(view.axes)).reshape(-1, len(view.axes))
    found = [_at(view, point) for point in grid]
    if any(one is None for one in found):
        return None
    values = torch.stack([value for value, _ in found])  # type: ignore[misc]
    gradients = torch.stack([gradient for _, gradient in found])  # type: ignore[misc]
    finite = bool(torch.isfinite(values).all() and torch.isfinite(gradients).all())
    if not finite or float(gradients.abs().max()) < 1e-9:
        return None
    shape = (_POINTS,) * len(view.axes)
    return Sampled(points, values.reshape(shape), gradients.reshape(*shape, len(view.axes)))


def _at(view: View, point: Tensor) -> tuple[Tensor, Tensor] | None:
    scores = point.clone().requires_grad_()
    try:
        value = view.loss(scores)
    except (ValueError, RuntimeError, TypeError, IndexError):
        return None
    if not value.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(value, scores, allow_unused=True)
    return value.detach().double(), torch.zeros_like(point) if gradient is None else gradient.double()


# ---------------------------------------------------------------------------------- drawing


def draw(view: View, sampled: Sampled) -> str:
    """Return the picture of a view as SVG."""
    if len(view.axes) == 1:
        value = [("v", sampled.points, sampled.values)]
        slope = [("g", sampled.points, sampled.gradients[:, 0])]
        body = _curves(20, 34, _SIDE * 5 // 4, _SIDE, "value", value) + _label(170, 308, view.axes[0])
        body += _curves(350, 34, _SIDE * 5 // 4, _SIDE, "gradient", slope) + _label(500, 308, view.axes[0])
        return _svg(670, 320, body)
    middle = _POINTS // 2
    first, second = sampled.values[:, middle], sampled.values[middle, :]
    values = [("v", sampled.points, first), ("v d", sampled.points, second)]
    slopes = [("g", sampled.points, sampled.gradients[:, middle, 0])]
    slopes.append(("g d", sampled.points, sampled.gradients[middle, :, 1]))
    body = [_panel(40, 10, _SIDE, _SIDE), _contours(view, sampled), _arrows(view, sampled)]
    body += [_label(160, 284, f"{view.axes[0]} →"), _label(26, 130, f"{view.axes[1]} →", turned=True)]
    body += [f'<text x="40" y="270">{_number(view.low)}</text>']
    body += [f'<text x="280" y="270" text-anchor="end">{_number(view.high)}</text>']
    height = (_SIDE - 50) // 2
    body += [_curves(330, 34, 320, height, "value", values)]
    body += [_curves(330, 34 + height + 32, 320, height, "gradient", slopes)]
    other = _number((view.low + view.high) / 2)
    short = [re.sub(r"'s .*| text: .*|score, ", "", axis) for axis in view.axes]
    body += [_label(490, 284, f"— {short[0]}   - - {short[1]}   (other at {other})")]
    return _svg(670, 296, "".join(body))


def _svg(width: int, height: int, body: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width // 2}" height="{height // 2}" '
        f'viewBox="0 0 {width} {height}"><style>{_STYLE}</style><rect class="p" width="{width}" height="{height}" '
        f'rx="8"/>{body}</svg>\n'
    )


def _panel(x: int, y: int, width: int, height: int) -> str:
    return f'<rect class="p" x="{x}" y="{y}" width="{width}" height="{height}"/>'


def _label(x: int, y: int, text: str, *, turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x} {y})"' if turned else ""
    return f'<text x="{x}" y="{y}" text-anchor="middle"{turn}>{text}</text>'


def _number(value: float, extent: float = 0.0) -> str:
    """Return three figures; what is nothing beside the extent is 0."""
    return f"{0.0 if abs(value) < 1e-4 * extent else value:.3g}".replace("-", "−")


def _curves(x: int, y: int, width: int, height: int, title: str, curves: list[tuple[str, Tensor, Tensor]]) -> str:
    """Draw curves in a frame with the lowest and the highest value written above it."""
    low, high = (float(end([end(c) for _, _, c in curves])) for end in (min, max))
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    start, stop = float(curves[0][1][0]), float(curves[0][1][-1])
    parts = [_panel(x, y, width, height)]
    if low < 0 < high:
        zero = round(y + height * high / (high - low))
        parts.append(f'<line class="z" x1="{x}" y1="{zero}" x2="{x + width}" y2="{zero}"/>')
    for style, points, values in curves:
        line = [
            (x + width * (float(p) - start) / (stop - start), y + 4 + (height - 8) * (high - float(v)) / (high - low))
            for p, v in zip(points, values, strict=True)
        ]
        parts.append(f'<path class="{style}" d="{_path(_simplified(line))}"/>')
    extent = f"{_number(low, high - low)} to {_number(high, high - low)}"
    parts.append(f'<text x="{x}" y="{y - 8}">{title}</text>')
    parts.append(f'<text x="{x + width}" y="{y - 8}" text-anchor="end">{extent}</text>')
    return "".join(parts)


def _contours(view: View, sampled: Sampled) -> str:
    low, high = float(sampled.values.min()), float(sampled.values.max())
    lines = []
    for level in range(1, _LEVELS + 1):
        height = low + (high - low) * level / (_LEVELS + 1)
        lines += [_path(_simplified(line)) for line in _isolines(sampled.values, height)]
    return f'<path class="c" d="{"".join(lines)}"/>'


def _place(column: float, row: float) -> tuple[float, float]:
    """Return where a place of the grid is drawn: the first score to the right, the second upwards."""
    step = _SIDE / (_POINTS - 1)
    return 40 + column * step, 10 + _SIDE - row * step


def _isolines(values: Tensor, level: float) -> Iterator[list[tuple[float, float]]]:
    """Yield the lines of a level: marching squares over the two triangles of every cell, segments joined at their ends."""
    v = values.tolist()
    ends: dict[tuple[float, float], list[tuple[float, float]]] = {}
    for i in range(_POINTS - 1):
        for j in range(_POINTS - 1):
            for corners in (((i, j), (i + 1, j), (i + 1, j + 1)), ((i, j), (i, j + 1), (i + 1, j + 1))):
                cut = [
                    _crossing(a, b, v[a[0]][a[1]], v[b[0]][b[1]], level)
                    for a, b in ((corners[0], corners[1]), (corners[1], corners[2]), (corners[0], corners[2]))
                    if (v[a[0]][a[1]] < level) != (v[b[0]][b[1]] < level)
                ]
                if len(cut) == 2 and cut[0] != cut[1]:
                    ends.setdefault(cut[0], []).append(cut[1])
                    ends.setdefault(cut[1], []).append(cut[0])
    for loose in (True, False):  # open lines from their ends, then closed ones from anywhere
        for start in list(ends):
            if ends[start] and (len(ends[start]) == 1 or not loose):
                line, here = [start], start
                while ends[here]:
                    following = ends[here].pop()
                    ends[following].remove(here)
                    line.append(following)
                    here = following
                yield [_place(*point) for point in line]


def _crossing(a: tuple[int, int], b: tuple[int, int], at_a: float, at_b: float, level: float) -> tuple[float, float]:
    share = (level - at_a) / (at_b - at_a)
    return round(a[0] + share * (b[0] - a[0]), 3), round(a[1] + share * (b[1] - a[1]), 3)


def _arrows(view: View, sampled: Sampled) -> str:
    """Draw arrows down the slope, their length growing with the root of the gradient's."""
    rows = range((_POINTS - 1) // _ARROWS // 2, _POINTS, (_POINTS - 1) // _ARROWS)
    lengths = sampled.gradients.norm(dim=-1)
    largest = float(lengths.max())
    reach = 0.85 * _SIDE / _ARROWS
    arrows = []
    for i in rows:
        for j in rows:
            length = float(lengths[i, j]) / largest
            if length < 1e-3:
                continue
            way = -sampled.gradients[i, j] / lengths[i, j] * reach * length**0.5
            across, up = round(float(way[0])), round(float(way[1]))
            if across == 0 and up == 0:
                continue
            x, y = _place(i, j)
            start = f"{round(x - across / 2)} {round(y + up / 2)}"
            arrows.append(f'<path d="M{start}l{across} {-up}"/>')
    head = '<marker id="a" viewBox="0 0 6 6" refX="4" refY="3" markerWidth="4" markerHeight="4" orient="auto">'
    head += '<path class="h" style="stroke:none" d="M0 0 6 3 0 6z"/></marker>'
    return f'{head}<g class="g" style="stroke-width:2" marker-end="url(#a)">{"".join(arrows)}</g>'


def _simplified(line: Sequence[tuple[float, float]], tolerance: float = 0.7) -> list[tuple[float, float]]:
    """Leave out points that a straight line passes within the tolerance (Douglas and Peucker)."""
    if len(line) < 3:
        return list(line)
    (x0, y0), (x1, y1) = line[0], line[-1]
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    distances = [
        abs((x1 - x0) * (y0 - y) - (x0 - x) * (y1 - y0)) / length if length else ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5
        for x, y in line
    ]
    furthest = max(range(len(line)), key=distances.__getitem__)
    if distances[furthest] <= tolerance:
        return [line[0], line[-1]]
    return _simplified(line[: furthest + 1], tolerance)[:-1] + _simplified(line[furthest:], tolerance)


def _path(line: Sequence[tuple[float, float]]) -> str:
    """Return a path in whole units, each step relative to the last."""
    places = [(round(x), round(y)) for x, y in line]
    steps = [f"{x1 - x0} {y1 - y0}" for (x0, y0), (x1, y1) in pairwise(places)]
    return f"M{places[0][0]} {places[0][1]}l" + " ".join(steps).replace(" -", "-")


# ---------------------------------------------------------------------------------- files


def picture(entry: Entry) -> str | None:
    """Return the picture of a loss, or None if it has none."""
    view = view_of(entry)
    if view is None:
        return None
    sampled = _sampled(view)
    if sampled is None or not _repeats(entry, view):
        return None
    drawn = draw(view, sampled)
    if len(drawn.encode()) > LARGEST:
        raise ValueError(f"the picture of {entry.name} has {len(drawn.encode())} bytes; at most {LARGEST} are allowed")
    return drawn


def _repeats(entry: Entry, view: View) -> bool:
    """Say whether a loss has no randomness: with another seed it has the same value."""
    function = entry.resolve()
    if "generator" not in inspect.signature(function).parameters or len(view.axes) == 1:
        return True
    middle = (view.low + view.high) / 2
    scores = torch.tensor([[middle, (2 * middle + view.high) / 3]], dtype=torch.float64)
    first = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    values = [float(function(scores, first, generator=torch.Generator().manual_seed(seed))) for seed in range(5)]
    return max(values) - min(values) < 1e-9


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the losses named, or all; remove pictures of losses that are no more."""
    parser = argparse.ArgumentParser(description="Draw docs/losses/*.svg.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="losses, all by default")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write")
    options = parser.parse_args(arguments)
    losses = [entry for entry in entries() if entry.kind == "loss" and entry.provider == "rivals"]
    unknown = set(options.names) - {entry.name for entry in losses}
    if unknown:
        parser.error(f"no loss is called {', '.join(sorted(unknown))}")
    options.folder.mkdir(parents=True, exist_ok=True)
    drawn = set()
    for entry in losses:
        if options.names and entry.name not in options.names:
            continue
        svg = picture(entry)
        if svg is not None:
            (options.folder / f"{entry.name}.svg").write_text(svg, encoding="utf-8")
            drawn.add(entry.name)
    if not options.names:
        for path in options.folder.glob("*.svg"):
            if path.stem not in drawn:
                path.unlink()
    print(f"{len(drawn)} pictures in {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
