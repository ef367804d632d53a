"""Results on disk: one JSON a paper, written as measured."""

from __future__ import annotations

import datetime
import json
import math
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from papers.common.claim import Figures, Paper, compare

ROOM = Path(__file__).resolve().parents[1]
RESULTS = ROOM / "results"


def run(paper: Paper, seeds: Sequence[int], *, smoke: bool = False) -> dict[str, Any]:
    """Run a paper's script once a seed and return what was seen, ready for JSON."""
    started = time.perf_counter()
    figures: list[Figures] = []
    for seed in seeds:
        found = {name: float(value) for name, value in paper.run(seed, smoke).items()}
        print(f"  seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()), flush=True)
        figures.append(found)
    comparisons = [compare(expected, figures) for expected in paper.expects]
    return {
        "paper": paper.number,
        "claim": paper.claim,
        "data": paper.data,
        "notes": paper.notes,
        "seeds": list(seeds),
        "figures": {name: [seed[name] for seed in figures] for name in figures[0]},
        "comparisons": [_finite(asdict(comparison)) for comparison in comparisons],
        "verdict": comparisons[0].verdict,
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "minutes": round((time.perf_counter() - started) / 60, 2),
    }


def save(result: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write a result to results/NNN.json."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{result['paper']:03d}.json"
    path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


def load_all(folder: Path = RESULTS) -> dict[int, dict[str, Any]]:
    """Return every stored result by its paper's number."""
    found = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("[0-9]*.json")))
    return {result["paper"]: result for result in found}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _commit() -> str:
    command = ["git", "-C", str(ROOM), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
