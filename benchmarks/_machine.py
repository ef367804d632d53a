"""What the machine is, how many threads libraries may use on it, and how fast it multiplies matrices right now."""

from __future__ import annotations

import os
import platform
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LOAD_LIMIT = 1.5
"""Load average above which figures are not to be trusted: somebody else is computing."""

SIZE = 1024
"""Side of the square matrices of the reference product."""

_PACKAGES = (
    "torch", "numpy", "numba", "transformers", "sentence-transformers", "faiss-cpu", "bm25s", "pytrec-eval-terrier",
    "ir-measures", "rivals",
)  # fmt: skip
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_average() -> float | None:
    """Return the load average of the last minute, None where the system does not tell."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def describe() -> dict[str, Any]:
    """Return the machine as JSON: processor, its units for cheap products, cores, memory, versions, load average."""
    import torch

    name, flags, memory = platform.processor() or platform.machine(), set(), None
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
                break
    with suppress(AttributeError, ValueError, OSError):
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    load = load_average()
    return {
        "cpu": name,
        "flags": {flag: flag in flags for flag in _FLAGS},
        "amx_usable": bool(amx),
        "cores": cores(),
        "memory_gib": memory,
        "system": f"{platform.system()} {platform.release()}",
        "versions": versions,
        "load_average": load,
        "quiet": load is not None and load <= LOAD_LIMIT,
    }


def set_threads(count: int) -> None:
    """Let torch, BLAS, the tokenizers and, once imported, faiss and numba use `count` threads each."""
    import torch

    if "numba" in sys.modules:  # first: starting its threads, which its first call does, resets those of OpenMP
        numba = sys.modules["numba"]
        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(count)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if count > 1 else "false"
    with suppress(ImportError):
        from threadpoolctl import threadpool_limits

        threadpool_limits(count)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(count)


class Reference:
    """The square product in float32, bfloat16 and int8 that every round is timed beside.

    >>> Reference(64).seconds("float32", cpu=True) >= 0
    True
    """

    kinds = ("float32", "bfloat16", "int8")

    def __init__(self, size: int = SIZE) -> None:
        import torch

        generator = torch.Generator().manual_seed(0)
        self.size = size
        whole = torch.randn(size, size, generator=generator)
        self._operand = {
            "float32": whole,
            "bfloat16": whole.bfloat16(),
            "int8": (whole * 30).clamp(-127, 127).to(torch.int8),
        }

    def seconds(self, kind: str, *, cpu: bool) -> float | None:
        """Return the seconds of one product, None where torch cannot do it."""
        import torch

        operand = self._operand[kind]
        clock = time.process_time if cpu else time.perf_counter
        try:
            started = clock()
            _ = torch._int_mm(operand, operand.T) if kind == "int8" else operand @ operand.T
            return clock() - started
        except (AttributeError, RuntimeError):
            return None

    @property
    def flops(self) -> float:
        """Floating-point operations of one product."""
        return 2.0 * self.size**3
