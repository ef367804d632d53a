"""What a search returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rivals.errors import RivalsError


class QueryError(RivalsError):
    """A search that cannot be done as asked; `field` names the part to blame."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class StageScore:
    """What one stage thought of a hit: its score, and its rank (from 1) in the stage's own list; None = not in it."""

    score: float | None
    rank: int | None


@dataclass(frozen=True, slots=True)
class Hit:
    """One found document. Spans are [start, end) in characters (Unicode code points) of `text` and of `title`."""

    rank: int
    id: str
    score: float
    title: str | None
    text: str
    text_truncated: bool
    columns: dict[str, Any]
    stages: dict[str, StageScore]
    matched_terms: list[tuple[int, int]]
    matched_title: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The hits of one query and how they came about.

    `stages` were used; each first stage proposed up to `depth` candidates, `candidates` different ones in all;
    `milliseconds` by stage, with "wait" (for other searches) and "total"; `notes` are for the person who asked.
    """

    query: str
    stages: list[str]
    hits: list[Hit]
    candidates: int
    depth: int
    milliseconds: dict[str, float]
    notes: list[str]
