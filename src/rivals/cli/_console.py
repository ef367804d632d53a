"""Where commands print their results."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_TABLE = 120  # columns that a table of results needs to show every figure whole


def result_console() -> Console:
    """Return a console that never cuts a figure: as wide as the terminal, but wide enough for a table of results."""
    from rich.console import Console

    console = Console(highlight=False)
    console.width = max(console.width, _TABLE)
    return console
