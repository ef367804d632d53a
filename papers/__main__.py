"""`python -m papers run NNN... | all [--seeds N] [--smoke]`, `python -m papers table`, `python -m papers list`."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Sequence

from papers.common.claim import Paper
from papers.common.results import ROOM, run, save
from papers.common.table import index, table


def scripts() -> dict[int, str]:
    """Return the module of every paper that has a script, by its number."""
    found = (re.fullmatch(r"(\d{3})_\w+", path.stem) for path in sorted(ROOM.glob("[0-9]*.py")))
    return {int(match[1]): f"papers.{match[0]}" for match in found if match}


def load(number: int) -> Paper:
    """Import a script and return its `PAPER`."""
    paper = importlib.import_module(scripts()[number]).PAPER
    assert isinstance(paper, Paper), "a script defines PAPER"
    assert paper.number == number, f"{scripts()[number]} says it is paper {paper.number}"
    return paper


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of the room."""
    parser = argparse.ArgumentParser(prog="python -m papers", description="Test the papers' claims on real data.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="run papers' scripts and store what was seen in papers/results")
    one.add_argument("papers", nargs="+", metavar="NNN", help="numbers, or 'all'")
    one.add_argument("--seeds", type=int, default=3, metavar="N", help="how many seeds, from 0 (3)")
    one.add_argument("--smoke", action="store_true", help="seconds each, one seed, nothing stored or claimed")
    commands.add_parser("table", help="write papers/README.md")
    commands.add_parser("list", help="print the papers that have a script")
    options = parser.parse_args(arguments)
    if options.command == "table":
        (ROOM / "README.md").write_text(table(), encoding="utf-8")
        print("wrote papers/README.md")
    elif options.command == "list":
        titles = index()
        for number in scripts():
            print(f"{number:03d}  {titles[number]['title']}")
    else:
        return _run(parser, options)
    return 0


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    known = scripts()
    numbers = list(known) if options.papers == ["all"] else []
    for word in [] if numbers else options.papers:
        if not word.isdigit() or int(word) not in known:
            parser.error(f"no script for {word!r}; `python -m papers list` names those there are")
        numbers.append(int(word))
    if options.seeds < 1:
        parser.error("--seeds must be 1 or more")
    seeds = range(1 if options.smoke else options.seeds)
    for number in numbers:
        print(f"paper {number:03d}", flush=True)
        result = run(load(number), seeds, smoke=options.smoke)
        if options.smoke:
            continue
        for row in result["comparisons"]:
            print(f"  {row['text']}: {row['mean']:+.4f}, {row['verdict']}")
        print(f"  {result['verdict']}; {result['minutes']} min; {save(result).relative_to(ROOM.parent)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
