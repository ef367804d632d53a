"""How a mining audit looks in print: plain text, and a table for terminals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.negatives.audit import MiningAudit

_SHOWN = 5  # examples in print; all are in the value
_WIDTH = 160


def _count_rows(audit: MiningAudit) -> Iterator[tuple[str, str, str]]:
    def share(part: int, whole: int) -> str:
        return f"{part / whole:.1%}" if whole else ""

    yield "queries", f"{audit.queries:,}", ""
    yield "candidates proposed", f"{audit.proposed:,}", f"{audit.proposed / max(audit.queries, 1):.1f} a query"
    for name, count in audit.proposed_by.items():
        drawn = audit.drawn_by.get(name, 0)
        yield (
            f"  first by {name}",
            f"{count:,}",
            f"{share(count, audit.proposed)}; {share(drawn, audit.drawn)} of the drawn",
        )
    for name, (marked, alone) in sorted(audit.reasons.items(), key=lambda item: -item[1].marked):
        yield f"  marked: {name}", f"{marked:,}", f"{share(marked, audit.proposed)} ({alone:,} by this rule alone)"
    if audit.relabelled:
        by = ", ".join(f"{name} {count:,}" for name, count in audit.relabelled_by.items())
        yield (
            "relabelled as positives",
            f"{audit.relabelled:,}",
            f"{share(audit.relabelled, audit.proposed)}; {by}".rstrip("; "),
        )
    yield "kept as negatives", f"{audit.kept:,}", share(audit.kept, audit.proposed)
    if audit.weighted:
        yield "  with a weight of their own", f"{audit.weighted:,}", share(audit.weighted, audit.kept)
    if audit.with_target:
        yield "with a soft target", f"{audit.with_target:,}", share(audit.with_target, audit.proposed)
    yield "drawn", f"{audit.drawn:,}", f"of {audit.wanted:,} wanted, {audit.unfilled:,} unfilled"
    yield "queries with none left", f"{audit.without_survivor:,}", share(audit.without_survivor, audit.queries)
    if audit.without_positive:
        yield "queries without positive", f"{audit.without_positive:,}", share(audit.without_positive, audit.queries)
    if audit.positive_below_median is not None:
        yield "positive below the median candidate", f"{audit.positive_below_median:.1%}", "of queries; doubtful labels"
    yield "suspected false negatives", f"{audit.suspects:,}", "marked and scoring at or above the positive"
    if audit.fn_probability is not None:
        yield (
            "expected false negatives",
            f"{audit.fn_probability:.1%}",
            "of the drawn, by the filters' own probabilities",
        )
    for rate in audit.false_negatives:
        what = "marked and relevant" if rate.of == "marked" else f"false negatives, {rate.of}"
        note = f"[{rate.low:.1%}, {rate.high:.1%}] at {rate.level:.0%}; {rate.relevant:,} of {rate.judged:,} judged by {rate.judge}"
        yield what, f"{rate.estimate:.1%}", note + (f", {rate.unjudged:,} without verdict" if rate.unjudged else "")


def _score_rows(audit: MiningAudit) -> Iterator[tuple[str, ...]]:
    for name, s in audit.scores.items():
        yield (name, f"{s.count:,}", *(f"{value:.3f}" for value in (s.mean, s.p05, s.p25, s.median, s.p75, s.p95)))


_SCORE_HEAD = ("scores of", "count", "mean", "5 %", "25 %", "median", "75 %", "95 %")


def _short(text: str | None) -> str:
    if text is None:
        return "(no text)"
    flat = " ".join(text.split())
    return flat if len(flat) <= _WIDTH else flat[: _WIDTH - 1] + "…"


def _band_lines(audit: MiningAudit) -> Iterator[str]:
    """The judged rates by rank, a line an estimate."""
    for rate in audit.false_negatives:
        parts = [
            f"{b.first}{f'-{b.last}' if b.last > b.first else ''}: {b.rate:.1%} of {b.judged:,}"
            for b in rate.bands
            if b.rate is not None
        ]
        if len(parts) > 1:
            yield f"Relevant among the {rate.of}, by rank: {'; '.join(parts)}"


def _example_lines(audit: MiningAudit) -> Iterator[str]:
    if not audit.examples:
        return
    yield f"Suspected false negatives ({min(_SHOWN, len(audit.examples))} of {audit.suspects:,}):"
    for example in audit.examples[:_SHOWN]:
        yield f"  query {example.query_id}: {_short(example.query)}"
        yield f"    {example.score:.3f} {example.document_id}: {_short(example.document)}"
        yield f"    {example.positive_score:.3f} {example.positive_id} (positive): {_short(example.positive)}"
        yield f"    marked: {', '.join(example.reasons)}"


def _title(audit: MiningAudit) -> str:
    steps = " >> ".join(audit.steps)
    return f"Mined negatives: {steps}" if steps else "Mined negatives"


def plain(audit: MiningAudit) -> str:
    """Return the audit as lines of text."""
    out = [_title(audit), ""]
    counts = list(_count_rows(audit))
    wide = max(len(name) for name, _, _ in counts)
    digits = max(len(number) for _, number, _ in counts)
    out += [f"{name:<{wide}}  {number:>{digits}}  {note}".rstrip() for name, number, note in counts]
    scores = list(_score_rows(audit))
    if scores:
        out += ["", "".join(f"{cell:<12}" if i == 0 else f"{cell:>12}" for i, cell in enumerate(_SCORE_HEAD))]
        out += ["".join(f"{cell:<12}" if i == 0 else f"{cell:>12}" for i, cell in enumerate(row)) for row in scores]
    for lines in (list(_band_lines(audit)), list(_example_lines(audit))):
        out += ["", *lines] if lines else []
    out += [f"note: {note}" for note in audit.notes]
    return "\n".join(out)


def rich(audit: MiningAudit) -> Any:
    """Return the audit as a renderable for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    counts = Table(title=_title(audit), title_justify="left", show_header=False, box=None, pad_edge=False)
    counts.add_column()
    counts.add_column(justify="right")
    counts.add_column(style="dim")
    for row in _count_rows(audit):
        counts.add_row(*(Text(cell) for cell in row))
    parts: list[Any] = [counts]
    if audit.scores:
        scores = Table(box=None, pad_edge=False)
        for i, head in enumerate(_SCORE_HEAD):
            scores.add_column(head, justify="left" if i == 0 else "right")
        for line in _score_rows(audit):
            scores.add_row(*line)
        parts += [Text(""), scores]
    for lines in (list(_band_lines(audit)), list(_example_lines(audit))):
        if lines:
            parts += [Text(""), Text("\n".join(lines))]
    parts += [Text(f"note: {note}", style="yellow") for note in audit.notes]
    return Group(*parts)
