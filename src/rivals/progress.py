"""Progress of long work: a bar on a terminal, a line now and then elsewhere, silence when asked.

One place decides how progress is shown, so every long loop in the house says `for x in track(xs, "Encoding")`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")

_quiet = False
_shown = False


def set_quiet(quiet: bool) -> None:
    """Turn every progress display of this process off (True) or on (False)."""
    global _quiet
    _quiet = quiet


class Advance(Protocol):
    """What `progress` yields: call it with the number of units done and, if wanted, a note shown beside the bar."""

    def __call__(self, amount: float = 1, note: str = "") -> None: ...


def _silent(amount: float = 1, note: str = "") -> None:
    """Progress that nobody watches."""


@contextmanager
def progress(description: str, total: float, *, show: bool = True, delay: float = 1.0) -> Iterator[Advance]:
    """Show progress towards `total` units while the block runs.

    Nothing is drawn in the first `delay` seconds, so short work stays silent. On a terminal a bar with the time left is
    drawn on standard error; otherwise a line is written every 15 seconds, which keeps logs short. Work inside work shows
    the outer progress only.

    >>> with progress("Counting", 3, show=False) as advance:
    ...     for _ in range(3):
    ...         advance()
    """
    global _shown
    if not show or _quiet or _shown or total <= 0:
        yield _silent
        return
    _shown = True
    try:
        with _display(description, total, delay) as advance:
            yield advance
    finally:
        _shown = False


@contextmanager
def _display(description: str, total: float, delay: float) -> Iterator[Advance]:
    if not sys.stderr.isatty():
        with _lines(description, total) as line:
            yield line
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=False,
    )
    task = bar.add_task(description, total=total, note="")
    started, shown, done = time.monotonic(), False, 0.0

    def advance(amount: float = 1, note: str = "") -> None:
        nonlocal shown, done
        done += amount
        if not shown and time.monotonic() - started >= delay:
            bar.start()
            shown = True
        bar.update(task, completed=done, note=note)

    try:
        yield advance
    finally:
        if shown:
            bar.stop()


@contextmanager
def _lines(description: str, total: float, every: float = 15.0) -> Iterator[Advance]:
    started = last = time.monotonic()
    done = 0.0

    def advance(amount: float = 1, note: str = "") -> None:
        nonlocal last, done
        done += amount
        now = time.monotonic()
        if now - last >= every:
            last = now
            share = min(done / total, 1.0)
            print(
                f"{description}: {share:.0%} after {now - started:.0f} s {note}".rstrip(), file=sys.stderr, flush=True
            )

    yield advance


def track(items: Iterable[T], description: str, total: int | None = None, *, show: bool = True) -> Iterator[T]:
    """Iterate over `items` and show progress.

    >>> sum(track([1, 2, 3], "Adding", show=False))
    6
    """
    if total is None:
        items = list(items)
        total = len(items)
    with progress(description, total, show=show) as advance:
        for item in items:
            yield item
            advance()
