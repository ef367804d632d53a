"""Peak memory that one run adds, each variant in a fresh process so that nothing freed before hides it."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def add_memory(entry: str, case: str, figures: dict[str, Any], *, quick: bool) -> None:
    """Measure every variant of a case (quick: ours and the peer); add `memory_mib` and ours over each."""
    wanted = [figures["ours"], figures["peer"]] if quick and figures["peer"] else list(figures["variants"])
    found: dict[str, float | None] = {name: in_fresh_process(entry, case, name, quick) for name in wanted}
    ours = found[figures["ours"]]
    for name, mebibytes in found.items():
        figures["variants"][name]["memory_mib"] = mebibytes
        if ours is not None and mebibytes:
            figures["variants"][name]["memory_ours_over_this"] = ours / mebibytes


def in_fresh_process(entry: str, case: str, variant: str, quick: bool) -> float | None:
    """Return the MiB that one run adds to the resident memory at its peak; None if the process died."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_added, entry, case, variant, quick).result()
        except BrokenProcessPool:
            return None


def _added(entry: str, case: str, name: str, quick: bool) -> float:
    from importlib import import_module

    from benchmarks._machine import set_threads

    set_threads(1)
    make = import_module(f"benchmarks.{entry}").CASES[case]

    def variant(tiny: bool) -> Any:
        return next(variant for variant in make(tiny).variants if variant.name == name)

    run = variant(True).run
    set_threads(1)
    run(1)  # loads libraries and compiles kernels, which is not the memory asked for
    if not quick:
        run = variant(False).run
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = _reset_peak()
    result = run(1)
    after = _peak()
    del result
    return max(after - before, 0.0)


def _reset_peak() -> float:
    """Make the present resident memory the peak, where the system can, and return it in MiB."""
    try:
        _CLEAR.write_text("5")
        return _status("VmRSS")
    except (OSError, KeyError):
        return _peak()


def _peak() -> float:
    """Return the peak of the resident memory of this process in MiB."""
    try:
        return _status("VmHWM")
    except (OSError, KeyError):
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _status(key: str) -> float:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return int(lines[key].split()[0]) / 1024
