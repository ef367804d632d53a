"""How everything here is timed: variants one after the other in one process, round by round, and compared pair by pair.

A round takes the machine's matrix product, then every variant once (in turn forwards and backwards, so that a drift of
the machine's speed falls on all alike). First all rounds with one thread, where CPU time is read; then all rounds with
several, where the clock on the wall is read. A ratio is the median over rounds of the ratios of neighbours, not the
ratio of medians. Before the rounds every variant runs for warm-up, and short ones get repeats that fill a sample.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks._machine import Reference, set_threads

_SAMPLE = 0.15  # seconds a sample should take at least
_REPEATS = 50

Case = Callable[[bool], "Workload"]
"""Makes a workload; True asks for tiny sizes."""


@dataclass(frozen=True)
class Variant:
    """One way of doing the work: `run(threads)` does it once and returns what `Workload.checks` looks at."""

    name: str
    run: Callable[[int], Any]


@dataclass(frozen=True)
class Target:
    """What was promised: `figure` is "speed" (peer / ours), "time" or "memory" (ours / peer), or a check's name."""

    text: str
    figure: str
    limit: float
    at_least: bool = True

    def judge(self, values: Mapping[str, float | None]) -> dict[str, Any]:
        """Return the target with the values measured and whether all of them meet it (None = nothing measured)."""
        known = {name: value for name, value in values.items() if value is not None}
        passed = {name: value >= self.limit if self.at_least else value <= self.limit for name, value in known.items()}
        return {
            "text": self.text,
            "limit": self.limit,
            "at_least": self.at_least,
            "values": known,
            "passed": passed,
            "met": all(passed.values()) if passed else None,
        }


@dataclass(frozen=True)
class Workload:
    """What is timed. `variants[0]` is ours; the first whose name does not begin with "rivals" is the peer.

    Args:
        what: the work, in a line. amount: how much of `unit` one run does, for a rate. flops: useful operations of one
            run, for the share of the machine's matrix product. checks: results of the warm-up by variant -> figures of
            quality. missing: peers that are not installed.
    """

    what: str
    unit: str
    amount: float
    variants: Sequence[Variant]
    targets: Sequence[Target] = ()
    flops: float | None = None
    checks: Callable[[dict[str, Any]], dict[str, float]] | None = None
    missing: Sequence[str] = ()
    notes: Sequence[str] = ()
    rounds: int = 7

    @property
    def peer(self) -> str | None:
        """The name of the variant that targets compare ours with; None if no peer is installed."""
        return next((variant.name for variant in self.variants if not variant.name.startswith("rivals")), None)


@dataclass
class _Samples:
    """Seconds of every variant and of the reference products, round by round."""

    threads: int
    cpu: bool
    seconds: dict[str, list[float]] = field(default_factory=dict)
    products: dict[str, list[float]] = field(default_factory=dict)


def measure(workload: Workload, *, threads: int, quick: bool) -> dict[str, Any]:
    """Time a workload and return its figures as JSON values; memory is added by `benchmarks._memory`."""
    reference = Reference(128 if quick else 1024)
    set_threads(1)
    results, repeats = {}, {}
    for variant in workload.variants:
        results[variant.name], repeats[variant.name] = _warm(variant, quick)
    checks = workload.checks(results) if workload.checks is not None else {}
    results.clear()
    gc.freeze()  # what lives on by now is not searched for garbage again and again
    rounds = 1 if quick else workload.rounds
    alone = _take(workload, reference, _Samples(1, True), rounds, repeats)
    together = _take(workload, reference, _Samples(threads, False), rounds, repeats)
    gc.unfreeze()
    set_threads(1)
    variants = {}
    for variant in workload.variants:
        figures = {name: _figures(workload, variant.name, s) for name, s in (("cpu", alone), ("wall", together))}
        variants[variant.name] = figures | {"repeats": repeats[variant.name]}
    return {
        "what": workload.what,
        "unit": workload.unit,
        "amount": workload.amount,
        "rounds": rounds,
        "wall_threads": threads,
        "ours": workload.variants[0].name,
        "peer": workload.peer,
        "missing_peers": list(workload.missing),
        "notes": list(workload.notes),
        "matmul_gflops": {"cpu": _rates(reference, alone), "wall": _rates(reference, together)},
        "variants": variants,
        "checks": {name: float(value) for name, value in checks.items()},
    }


def judge(workload: Workload, figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every target of a workload with what was measured for it."""
    judged = []
    for target in workload.targets:
        values: dict[str, float | None] = {}
        if target.figure in figures["checks"]:
            values = {target.figure: figures["checks"][target.figure]}
        elif workload.peer is not None and target.figure == "memory":
            values = {"memory": figures["variants"][workload.peer].get("memory_ours_over_this")}
        elif workload.peer is not None and target.figure in ("speed", "time"):
            ratios = {kind: figures["variants"][workload.peer][kind]["over_ours"]["median"] for kind in ("cpu", "wall")}
            values = {kind: ratio if target.figure == "speed" else 1 / ratio for kind, ratio in ratios.items()}
        judged.append(target.judge(values))
    return judged


def _warm(variant: Variant, quick: bool) -> tuple[Any, int]:
    """Run a variant until it is warm; return its result and how many runs fill a sample."""
    started = time.perf_counter()
    result = variant.run(1)
    spent = time.perf_counter() - started
    if quick:
        return result, 1
    if spent < 5:
        started = time.perf_counter()
        variant.run(1)
        spent = time.perf_counter() - started
    return result, min(_REPEATS, max(1, math.ceil(_SAMPLE / max(spent, 1e-9))))


def _take(
    workload: Workload, reference: Reference, samples: _Samples, rounds: int, repeats: Mapping[str, int]
) -> _Samples:
    set_threads(samples.threads)
    clock = time.process_time if samples.cpu else time.perf_counter
    _ = [reference.seconds(kind, cpu=samples.cpu) for kind in reference.kinds]
    for number in range(rounds):
        for kind in reference.kinds:
            if (seconds := reference.seconds(kind, cpu=samples.cpu)) is not None:
                samples.products.setdefault(kind, []).append(max(seconds, 1e-9))
        for variant in workload.variants if number % 2 == 0 else reversed(workload.variants):
            gc.collect()
            count = repeats[variant.name]
            started = clock()
            for _ in range(count):
                variant.run(samples.threads)
            samples.seconds.setdefault(variant.name, []).append(max((clock() - started) / count, 1e-9))
    return samples


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _figures(workload: Workload, name: str, samples: _Samples) -> dict[str, Any]:
    own, ours = samples.seconds[name], samples.seconds[workload.variants[0].name]
    figures: dict[str, Any] = {
        "seconds": _spread(own),
        "rate": workload.amount / median(own),
        "over_ours": _spread([theirs / mine for theirs, mine in zip(own, ours, strict=True)]),
        "float32_products": median([a / b for a, b in zip(own, samples.products["float32"], strict=True)]),
    }
    if workload.flops is not None:
        figures["gflops"] = workload.flops / median(own) / 1e9
    return figures


def _rates(reference: Reference, samples: _Samples) -> dict[str, float]:
    """Return the machine's rate by kind of product, in GFLOP/s (int8: GOP/s)."""
    return {kind: reference.flops / median(seconds) / 1e9 for kind, seconds in samples.products.items()}
