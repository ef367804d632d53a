"""Kill a run with SIGKILL at random moments, resume it each time, and compare what it leaves with an uninterrupted run.

    python scripts/crash_test.py                       # 20 kills of a small run with a tiny model (minutes)
    python scripts/crash_test.py -- quickstart --fast  # the same of any run: what follows -- goes to rivals

The kills are spread over all stages: each is drawn to fall into one stage, at a random share of that stage's time in the
uninterrupted run. Some moments are drawn before the first stage. Weights of both models and the runs must be bit-equal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("start", "baselines", "mining", "training", "indexing", "second stage", "evaluation", "report")
COMPARED = ("models/retriever/*.safetensors", "models/retriever/*/*.safetensors", "models/second_stage/**/*", "runs/*")
_POLL = 0.002


@dataclass
class Summary:
    """What was done and whether it held."""

    command: str
    kills: int = 0
    runs: int = 0
    kills_by_stage: dict[str, int] = field(default_factory=dict)
    finished_before_the_kill: int = 0
    uninterrupted_seconds: float = 0.0
    files_compared: int = 0
    different: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not (self.different or self.failed or self.leftovers)


def crash_test(
    words: Sequence[str], place: Path, *, kills: int, per_run: int, seed: int, stages: Sequence[str] = STAGES
) -> Summary:
    """Run `rivals WORDS` once in peace, then kill and resume it until `kills` kills are done, and compare every run.

    Args:
        words: a command that takes --output. per_run: kills of one run before it may finish. stages: where to kill, in turn.
    """
    draw = random.Random(seed)
    summary = Summary("rivals " + " ".join(words))
    peaceful = place / "uninterrupted"
    started = time.monotonic()
    finish(start([*words, "--output", str(peaceful)], place / "uninterrupted.log"), place / "uninterrupted.log")
    summary.uninterrupted_seconds = round(time.monotonic() - started, 1)
    seconds = {"start": 0.5, **json.loads((peaceful / "state.json").read_text())["seconds"]}
    expected = checksums(peaceful)
    order = [stages[i % len(stages)] for i in range(kills)]
    draw.shuffle(order)
    while order:
        chain = sorted(order[:per_run], key=STAGES.index)
        del order[:per_run]
        folder, log = place / f"run-{summary.runs}", place / f"run-{summary.runs}.log"
        for stage in chain:
            process = start(_words(words, folder), log)
            if kill_in(process, folder, stage, draw.random() * seconds[stage]):
                summary.kills += 1
                summary.kills_by_stage[stage] = summary.kills_by_stage.get(stage, 0) + 1
            elif process.returncode == 0:
                summary.finished_before_the_kill += 1
            else:
                summary.failed.append(f"{folder.name}, before a kill in {stage}: {_last_line(log)}")
                break
        try:
            finish(start(_words(words, folder), log), log)
        except RuntimeError as error:
            summary.failed.append(f"{folder.name}, after kills in {', '.join(chain)}: {error}")
        else:
            found = checksums(folder)
            for name in sorted(expected.keys() | found.keys()):
                if expected.get(name) != found.get(name):
                    summary.different.append(f"{folder.name}/{name}, after kills in {', '.join(chain)}")
            summary.files_compared += len(expected)
            summary.leftovers += [str(path.relative_to(place)) for path in folder.rglob(".*")]
            shutil.rmtree(folder)
        summary.runs += 1
        print(
            f"{summary.kills} kills, {summary.runs} runs, {len(summary.different)} differences",
            file=sys.stderr,
            flush=True,
        )
    return summary


def _words(words: Sequence[str], folder: Path) -> list[str]:
    """Return the command that starts a run, or continues it once it is more than an empty folder."""
    if (folder / "config.json").exists():
        return ["train", "--resume", str(folder), "--quiet"]
    return [*words, "--output", str(folder)]


def start(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start `rivals` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    with open(log, "ab") as out:
        return subprocess.Popen([sys.executable, "-m", "rivals", *words], stdout=out, stderr=out, env=environment)


def finish(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the end, which must be a good one."""
    if process.wait() != 0:
        raise RuntimeError(f"status {process.returncode}: {_last_line(log)}")


def kill_in(process: subprocess.Popen[bytes], folder: Path, stage: str, after: float) -> bool:
    """Kill the process `after` seconds after it begins a stage; False if it ended before."""
    since = time.time()
    while process.poll() is None and not _reached(folder, stage, since):
        time.sleep(_POLL)
    until = time.monotonic() + after
    while process.poll() is None and time.monotonic() < until:
        time.sleep(_POLL)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def _reached(folder: Path, stage: str, since: float) -> bool:
    """Whether this process has begun the stage (or one after it)."""
    if stage == "start":
        return folder.exists() or time.time() - since > 1
    try:
        running = json.loads((folder / "state.json").read_text())["running"]
    except (OSError, ValueError, KeyError):
        return False
    return running is not None and running["since"] >= since and STAGES.index(running["stage"]) >= STAGES.index(stage)


def checksums(folder: Path) -> dict[str, str]:
    """Return a hash of every compared file by its name."""
    files = {path for pattern in COMPARED for path in folder.glob(pattern) if path.is_file()}
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else ""


def main() -> None:
    """Parse the command line and print the summary as JSON; status 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--per-run", type=int, default=2, help="kills of one run before it may finish")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--place", type=Path, help="where runs and logs go (default: a temporary folder)")
    parser.add_argument("words", nargs="*", help="the command to kill; default: a small run with a tiny model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = options.place or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        words = options.words or small(place)
        summary = crash_test(words, place.resolve(), kills=options.kills, per_run=options.per_run, seed=options.seed)
    found: dict[str, Any] = {"passed": summary.passed, **asdict(summary)}
    print(json.dumps(found, indent=2))
    sys.exit(0 if summary.passed else 1)


def small(place: Path) -> list[str]:
    """Write the small experiment of the tests and return the command that runs it."""
    sys.path[:0] = [str(ROOT), str(ROOT / "src")]
    from tests.workflow.small import write_small

    return write_small(place.resolve() / "small").train


if __name__ == "__main__":
    main()
