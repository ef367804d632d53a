"""An `Evaluation` as JSON, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

import numpy as np

from rivals.data.leakage import LeakageReport
from rivals.errors import RivalsError
from rivals.evaluate.alignment import Coverage
from rivals.evaluate.compare import Comparison
from rivals.evaluate.result import Evaluation
from rivals.evaluate.slices import SliceTest, SliceView, Slicing
from rivals.measures.intervals import Interval

_VERSION = 2
_READABLE = (1, 2)
_NUMBERS = (
    "difference", "low", "high", "p", "p_corrected", "effect_size", "detectable", "standardised", "superiority",
)  # fmt: skip


def to_json(evaluation: Evaluation) -> str:
    """Return an evaluation as JSON; numbers that are not finite are written as strings."""
    content = {field.name: getattr(evaluation, field.name) for field in fields(evaluation)}
    content["intervals"] = _intervals(evaluation.intervals)
    content["condensed"] = _intervals(evaluation.condensed)
    content["comparisons"] = [asdict(comparison) for comparison in evaluation.comparisons]
    content["coverage"] = {system: asdict(seen) for system, seen in evaluation.coverage.items()}
    content["slices"] = [_view(view) for view in evaluation.slices]
    content["leakage"] = None if evaluation.leakage is None else evaluation.leakage.to_json()
    content |= {"values": evaluation.values.tolist(), "p_pairs": evaluation.p_pairs.tolist()}
    summary = {"groups": evaluation.groups, "places": evaluation.places, "power_sentence": evaluation.power_sentence}
    return json.dumps(
        _plain({"format": "rivals evaluation", "version": _VERSION, **content, **summary}), allow_nan=False
    )


def from_json(text: str) -> Evaluation:
    """Read what `to_json` wrote, in this version or the one before.

    Raises:
        RivalsError: it is not an evaluation, or one of another version.
    """
    try:
        content = json.loads(text)
        if content["format"] != "rivals evaluation":
            raise KeyError("format")
        if content["version"] not in _READABLE:
            raise RivalsError(
                f"this evaluation has version {content['version']}; versions {_READABLE[0]} to {_VERSION} can be read here"
            )
        values = {
            field.name: content[field.name]
            for field in fields(Evaluation)
            if field.name in content or (field.default is MISSING and field.default_factory is MISSING)
        }
        for name in ("systems", "measures", "baselines", "queries", "cautions"):
            values[name] = tuple(values.get(name, ()))
        for name in ("values", "p_pairs"):
            values[name] = np.array(values[name], dtype=np.float64)
        for name in ("intervals", "condensed"):
            values[name] = {
                system: {measure: _interval(ends) for measure, ends in row.items()}
                for system, row in values.get(name, {}).items()
            }
        values["comparisons"] = tuple(_comparison(row) for row in values["comparisons"])
        values["coverage"] = {system: _coverage(seen) for system, seen in values["coverage"].items()}
        values["slices"] = tuple(_read_view(view) for view in values.get("slices", ()))
        leakage = values.get("leakage")
        values["leakage"] = None if leakage is None else LeakageReport.from_json(leakage)
        return Evaluation(**values)
    except RivalsError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as fault:
        raise RivalsError(
            f"this is not a saved evaluation ({type(fault).__name__}: {fault}); save one with to_json()"
        ) from None


def _plain(content: Any) -> Any:
    """Make content fit for strict JSON: mappings to dicts, NaN and infinities to the strings that float() reads."""
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return str(content) if isinstance(content, float) and not np.isfinite(content) else content


def _intervals(rows: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, list[float]]]:
    return {system: {measure: list(interval) for measure, interval in row.items()} for system, row in rows.items()}


def _interval(ends: Any) -> Interval:
    estimate, low, high = map(float, ends)
    return Interval(estimate, low, high)


def _view(view: SliceView) -> dict[str, Any]:
    return {
        "by": view.slicing.by,
        "labels": view.slicing.labels,
        "label_of": view.slicing.label_of.tolist(),
        "intervals": view.intervals,
        "tests": [asdict(test) for test in view.tests],
        "cautions": view.cautions,
    }


def _read_view(content: Mapping[str, Any]) -> SliceView:
    slicing = Slicing(content["by"], tuple(content["labels"]), np.array(content["label_of"], dtype=np.int64))
    intervals = {
        system: {measure: tuple(map(_interval, row)) for measure, row in rows.items()}
        for system, rows in content["intervals"].items()
    }
    tests = tuple(
        SliceTest(
            test["system"],
            test["baseline"],
            test["measure"],
            tuple(map(_interval, test["differences"])),
            float(test["p"]),
            float(test["p_corrected"]),
        )
        for test in content["tests"]
    )
    return SliceView(slicing, intervals, tests, tuple(content["cautions"]))


def _comparison(row: Mapping[str, Any]) -> Comparison:
    values: dict[str, Any] = {key: float(value) if key in _NUMBERS else value for key, value in row.items()}
    return Comparison(**values)


def _coverage(row: Mapping[str, Any]) -> Coverage:
    """What a system covers; version 1 knew one depth only."""
    unjudged = row["unjudged"] if "unjudged" in row else {"10": row["unjudged_at_10"]}
    shares = {int(depth): float(share) for depth, share in unjudged.items()}
    return Coverage(int(row["without_results"]), int(row["left_out"]), shares, int(row.get("unknown_documents", 0)))
