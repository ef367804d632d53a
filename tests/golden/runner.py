"""Runs recorded vector files and says, per file, whether our functions give what was recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.golden.adapters import ADAPTERS, TOLERANCES

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Outcome:
    """What became of one file: status `pass`, `FAIL` or `unsupported`, and what there is to say about it."""

    file: str
    status: str
    detail: str

    def __str__(self) -> str:
        return f"{self.status} {self.file}" + (f": {self.detail}" if self.detail else "")


def run_folder(folder: Path) -> list[Outcome]:
    """Return the outcome of every vector file of a folder, by name."""
    return [run_file(path) for path in sorted(folder.glob("*.json"))]


def run_file(path: Path) -> Outcome:
    """Return the outcome of one vector file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        paper, cases = record["paper"], record["cases"]
    except (ValueError, KeyError, TypeError) as error:
        return Outcome(path.name, "FAIL", f"not a vector file ({type(error).__name__}: {error})")
    adapter = ADAPTERS.get(paper)
    if adapter is None:
        return Outcome(path.name, "unsupported", f"no adapter for paper {paper} yet")
    if not cases:
        return Outcome(path.name, "FAIL", "no cases")
    worst, place = 0.0, ""
    for case in cases:
        try:
            output, gradients = adapter(case)
            differences = list(_differences(case, output, gradients))
        except Exception as error:  # a case that cannot be run is a failed case, and the others are still reported
            differences = [(math.inf, f"{type(error).__name__}: {error}".splitlines()[0])]
        for difference, where in differences:
            if difference > worst:
                worst, place = difference, f"{case.get('name', '?')}, {where}"
    if worst > TOLERANCES.get(paper, TOLERANCE):
        return Outcome(path.name, "FAIL", f"largest relative error {worst:.3g} ({place})")
    return Outcome(path.name, "pass", f"{len(cases)} cases, largest relative error {worst:.1e}")


def relative_error(found: Any, recorded: Any) -> float:
    """Return the largest relative error of nested numbers, infinity if they differ in shape or in a whole number.

    The divisor is never below a millionth of the largest recorded value, nor below 1e-6: what cancels to nothing is
    compared with what it cancelled from.

    >>> relative_error([1.0, 2.0], [1.0, 2.2]) > 0.09, relative_error([1, 2], [1, 3]), relative_error(1.0, [1.0])
    (True, inf, inf)
    """
    largest = max((abs(value) for value in _numbers(recorded) if math.isfinite(value)), default=0.0)
    return _error(found, recorded, max(1e-6 * largest, 1e-6))


def _error(found: Any, recorded: Any, floor: float) -> float:
    if isinstance(recorded, dict) and isinstance(found, dict):
        if not recorded.keys() <= found.keys():
            return math.inf
        return max((_error(found[key], value, floor) for key, value in recorded.items()), default=0.0)
    if isinstance(recorded, list) and isinstance(found, list):
        if len(found) != len(recorded):
            return math.inf
        return max((_error(f, r, floor) for f, r in zip(found, recorded, strict=True)), default=0.0)
    if not (_is_number(found) and _is_number(recorded)):
        return 0.0 if type(found) is type(recorded) and found == recorded else math.inf
    if found == recorded or (math.isnan(found) and math.isnan(recorded)):
        return 0.0
    exact = isinstance(found, int) and isinstance(recorded, int)
    if exact or not (math.isfinite(found) and math.isfinite(recorded)):
        return math.inf
    return abs(found - recorded) / max(abs(recorded), floor)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _numbers(values: Any) -> Iterator[float]:
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            yield from _numbers(value)
    elif _is_number(values):
        yield values


def _differences(case: dict[str, Any], output: Any, gradients: dict[str, Any]) -> Iterator[tuple[float, str]]:
    yield relative_error(_plain(output), case["output"]), "output"
    for name, recorded in (case.get("grad") or {}).items():
        if name not in gradients:
            yield math.inf, f"gradient of {name}: the adapter gives none"
        else:
            yield relative_error(_plain(gradients[name]), recorded), f"gradient of {name}"


def _plain(value: Any) -> Any:
    """Turn tensors and arrays, nested in anything, into lists and numbers."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value
