"""Time the hot paths against their peers: `python -m benchmarks [NAME ...] [--json FILE] [--quick]`."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

ENTRIES = (
    "encode",
    "top_k",
    "mining",
    "rescoring",
    "filters",
    "batching",
    "info_nce",
    "metric_learning",
    "pairwise",
    "neural_ndcg",
    "training_step",
    "gradient_cache",
    "metrics",
    "bm25",
    "full_ranking",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks named and print and write what they found."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time the hot paths of rivals against their peers, interleaved in one process.",
        epilog="Example: python -m benchmarks top_k info_nce --json figures.json. The end-to-end comparison is "
        "python -m benchmarks.quickstart_vs_sentence_transformers.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run, all by default: {', '.join(ENTRIES)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one round: does it run at all")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the wall-clock rounds (2, or all cores)")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory, which takes fresh processes")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in ENTRIES]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(ENTRIES)}")
    if options.threads is not None and options.threads < 1:
        parser.error("--threads must be 1 or more")
    if options.json is not None and not options.json.parent.is_dir():
        parser.error(f"the folder of {options.json} does not exist")
    report = run(
        options.names or ENTRIES, quick=options.quick, threads=options.threads, with_memory=not options.no_memory
    )
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def run(names: Sequence[str], *, quick: bool, threads: int | None, with_memory: bool) -> dict[str, Any]:
    """Run benchmarks by name, print a table for each, and return the whole report.

    Quick runs take the memory only of what has a target for it, since every variant needs a fresh process.
    """
    _quiet()
    from rich.console import Console

    from benchmarks._harness import Workload, judge, measure
    from benchmarks._machine import cores, describe
    from benchmarks._memory import add_memory
    from benchmarks._report import print_case, print_machine

    console = Console(width=max(140, Console().width), highlight=False)
    machine = describe()
    print_machine(console, machine)
    if quick:
        console.print("[yellow]quick: sizes are far too small for the times or the targets to mean anything[/]")
    console.print()
    cases: dict[str, Any] = {}
    for name in names:
        for case, make in import_module(f"benchmarks.{name}").CASES.items():
            workload: Workload = make(quick)
            figures = measure(workload, threads=threads or min(2, cores()), quick=quick)
            if with_memory and (not quick or any(target.figure == "memory" for target in workload.targets)):
                add_memory(name, case, figures, quick=quick)
            figures["targets"] = judge(workload, figures)
            title = f"{name}/{case}" if case else name
            cases[title] = figures
            print_case(console, title, figures)
            del workload
            gc.collect()
    return {"machine": machine, "quick": quick, "cases": cases}


def _quiet() -> None:
    """Keep progress bars and the network out of this process; child processes inherit the environment."""
    import logging

    from rivals.progress import set_quiet

    set_quiet(True)
    for name in ("TQDM_DISABLE", "HF_HUB_OFFLINE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ[name] = "1"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for logger in ("sentence_transformers", "bm25s", "faiss", "datasets", "transformers"):
        logging.getLogger(logger).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
