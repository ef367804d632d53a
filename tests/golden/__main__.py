"""`python -m tests.golden FOLDER`: one line per vector file; status 1 if a file fails, 2 if there is nothing to run."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.golden.runner import run_folder


def main(arguments: list[str]) -> int:
    """Run the vector files of the folder named and return the exit status."""
    if len(arguments) != 1:
        print("usage: python -m tests.golden FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    outcomes = run_folder(folder) if folder.is_dir() else []
    if not outcomes:
        print(f"no vector files (*.json) in {folder}", file=sys.stderr)
        return 2
    for outcome in outcomes:
        print(outcome)
    return int(any(outcome.status == "FAIL" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
