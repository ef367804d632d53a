"""Numbers and findings in words that a stranger understands."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from rivals.evaluate._report.data import Comparison, Differences, ReportData, System

ALPHA = 0.05
_LABELS = {"RR": "MRR", "R": "Recall", "P": "Precision"}
_MEANINGS = {
    "nDCG": "how high the relevant documents stand among the first {k}; 1 is perfect",
    "RR": "1 divided by the place of the first relevant document, 0 if it is not among the first {k}; averaged",
    "R": "the share of all relevant documents found among the first {k}",
    "P": "the share of the first {k} documents that are relevant",
    "AP": "precision at the place of every relevant document, averaged",
}


def measure_label(name: str) -> str:
    """Return the name a reader knows: `RR@10` is shown as MRR@10, `R@100` as Recall@100.

    >>> measure_label("RR@10"), measure_label("R@100"), measure_label("P@1"), measure_label("nDCG@10")
    ('MRR@10', 'Recall@100', 'P@1', 'nDCG@10')
    """
    base, _, cut = name.partition("@")
    if base == "P" and cut == "1":
        return name
    return _LABELS.get(base, base) + (f"@{cut}" if cut else "")


def measure_meaning(name: str) -> str:
    """Return what a measure says, in one clause; empty for a measure this file does not know.

    >>> measure_meaning("P@1")
    'the share of questions whose first document is relevant'
    """
    base, _, cut = name.partition("@")
    base = {"MRR": "RR", "Recall": "R", "Precision": "P"}.get(base, base)
    if base == "P" and cut == "1":
        return "the share of questions whose first document is relevant"
    return _MEANINGS.get(base, "").format(k=cut or "all")


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with fixed digits and a true minus sign; None is a dash.

    >>> number(0.5), number(-0.0123), number(None), number(-0.0001)
    ('0.500', '−0.012', '–', '0.000')
    """
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def signed(value: float | None, digits: int = 3) -> str:
    """Return a difference with its sign.

    >>> signed(0.5), signed(-0.25), signed(0.0)
    ('+0.500', '−0.250', '0.000')
    """
    text = number(value, digits)
    return f"+{text}" if value is not None and text[0].isdigit() and float(text) else text


def count(value: int) -> str:
    """Return a whole number with thousands apart.

    >>> count(15809)
    '15,809'
    """
    return f"{value:,}"


def share(part: float, whole: float) -> str:
    """Return a percentage which never rounds something to 0 % or to 100 %.

    >>> share(1, 3), share(1, 9999), share(9999, 10000), share(0, 0)
    ('33%', '<1%', '>99%', '–')
    """
    if not whole:
        return "–"
    ratio = part / whole
    if 0 < ratio < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= ratio < 1 else f"{ratio:.0%}"


def p_value(p: float) -> str:
    """Return a p-value as a reader needs it.

    >>> p_value(0.00001), p_value(0.0312), p_value(0.5)
    ('< 0.001', '0.031', '0.50')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def correction(name: str) -> str:
    """Return how p-values were corrected, and what that bounds.

    >>> correction("holm")
    "corrected by Holm's method for the number of tests"
    """
    if name == "benjamini-hochberg":
        return (
            "corrected by the method of Benjamini and Hochberg, "
            "which bounds the expected share of false alarms among the differences found"
        )
    return "corrected by Holm's method for the number of tests"


def duration(seconds: float) -> str:
    """Return a time span.

    >>> duration(7.21), duration(95), duration(7260)
    ('7.2 s', '1 min 35 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def milliseconds(value: float | None) -> str:
    """Return a time per query.

    >>> milliseconds(0.213), milliseconds(4.26), milliseconds(86.3), milliseconds(2310)
    ('0.21 ms', '4.3 ms', '86 ms', '2.3 s')
    """
    if value is None:
        return "–"
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.{2 if value < 1 else 1 if value < 10 else 0}f} ms"


def memory(size: int | None) -> str:
    """Return a memory size.

    >>> memory(3_300_000_000), memory(48_000_000)
    ('3.3 GB', '48 MB')
    """
    if size is None:
        return "–"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def moment(text: str) -> str:
    """Return a date and time for reading; what is not ISO 8601 stays as it is.

    >>> moment("2026-11-23T12:17:05+00:00"), moment("yesterday")
    ('23 November 2026, 12:17 UTC', 'yesterday')
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = (when.tzname() or "").removesuffix("+00:00")
    return f"{when.day} {when:%B %Y, %H:%M} {zone}".rstrip()


def listed(names: Sequence[str], last: str = "and") -> str:
    """Join names as prose.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return f"{', '.join(names[:-1])} {last} {names[-1]}" if len(names) > 1 else "".join(names)


def clip(text: str, limit: int) -> str:
    """Return text cut at `limit` characters, at a blank where one is near, with an ellipsis.

    >>> clip("one two three", 9), clip("short", 9)
    ('one two…', 'short')
    """
    if len(text) <= limit:
        return text
    cut = text[:limit]
    blank = cut.rfind(" ", max(0, limit - 20))
    return (cut[:blank] if blank > 0 else cut).rstrip(" ,;:.") + "…"


def size_of_effect(effect: float | None) -> str:
    """Return Cohen's words for a standardised difference.

    >>> size_of_effect(0.9), size_of_effect(-0.3), size_of_effect(0.05)
    ('large', 'small', 'very small')
    """
    if effect is None:
        return ""
    for bound, word in ((0.8, "large"), (0.5, "medium"), (0.2, "small")):
        if abs(effect) >= bound:
            return word
    return "very small"


def finding(comparison: Comparison) -> str:
    """Return what a comparison shows: better, worse, or nothing."""
    if comparison.p_corrected >= ALPHA:
        return "no difference shown"
    return "better" if comparison.difference.value > 0 else "worse"


def order_in_blocks(data: ReportData) -> list[list[System]]:
    """Return systems in blocks connected by ties, best block first; inside a block by name, for it has no order.

    A block is a connected part of the tie graph, so with overlapping groups it can hold pairs that do differ; `ties`
    says which.
    """
    block_of = {system.name: {system.name} for system in data.systems}
    for group in data.tie_groups:
        merged = set().union(*(block_of[name] for name in group))
        for name in merged:
            block_of[name] = merged
    blocks: list[list[System]] = []
    for system in data.systems:
        if not any(system in block for block in blocks):
            blocks.append([other for other in data.systems if other.name in block_of[system.name]])
    for block in blocks:
        block.sort(key=lambda system: system.name.casefold())
    return sorted(blocks, key=lambda block: -max(system.measures[data.primary].value for system in block))


def ties(data: ReportData) -> list[tuple[str, tuple[str, ...]]]:
    """Return the groups with two members or more, each with a letter, best first."""
    value = {system.name: system.measures[data.primary].value for system in data.systems}
    groups = [group for group in data.tie_groups if len(group) > 1]
    groups.sort(key=lambda group: -max(value[name] for name in group))
    return [
        (chr(ord("A") + i % 26) * (i // 26 + 1), tuple(sorted(group, key=str.casefold)))
        for i, group in enumerate(groups)
    ]


def best_names(data: ReportData) -> list[str]:
    """Return the system with the highest mean and all that cannot be told apart from it, by name."""
    best = max(data.systems, key=lambda system: system.measures[data.primary].value).name
    return sorted({best}.union(*(group for group in data.tie_groups if best in group)), key=str.casefold)


def verdict(data: ReportData) -> str:
    """Return the finding of the whole report in one sentence."""
    best = max(data.systems, key=lambda system: system.measures[data.primary].value)
    tied = best_names(data)
    label = measure_label(data.primary)
    score = best.measures[data.primary]
    value = f"{label} {number(score.value)} (95% interval {span(score.low, score.high)})"
    if len(data.systems) == 1:
        return f"{best.name} reaches {value}."
    names = listed(tied)
    if len(tied) == len(data.systems):
        return f"This test set cannot tell {names} apart by {label}."
    if len(tied) > 1:
        return f"The best systems are {names}: this test set cannot tell them apart by {label}."
    tested = any(best.name in group for group in data.tie_groups)
    return (
        f"The best system is {best.name}, with {value}{', ahead of every other one beyond chance' if tested else ''}."
    )


def span(low: float, high: float, digits: int = 3, sign: bool = False) -> str:
    """Return an interval as "low to high".

    >>> span(.1, .25), span(-.1, .25, sign=True)
    ('0.100 to 0.250', '−0.100 to +0.250')
    """
    write = signed if sign else number
    return f"{write(low, digits)} to {write(high, digits)}"


def detectable_sentence(comparisons: Iterable[Comparison], queries: int | None) -> str:
    """Return what the test set could not have seen."""
    sizes = [c.detectable for c in comparisons if c.detectable is not None]
    if not sizes:
        return ""
    low, high = number(min(sizes)), number(max(sizes))
    bounds = low if low == high else f"{low} to {high}, depending on the pair,"
    whom = f"With {count(queries)} test questions" if queries else "With this many test questions"
    return (
        f"{whom}, a true difference of {bounds} would be found four times out of five. "
        "Smaller ones can exist and stay unseen, so “no difference shown” does not mean “equal”."
    )


def wins(difference: Differences) -> tuple[int, int, int]:
    """Return on how many queries the system is better, equal, worse.

    >>> wins(Differences("a", "b", "P@1", (1.0, 0.0, 0.0, -1.0)))
    (1, 2, 1)
    """
    better = sum(value > 1e-12 for value in difference.values)
    worse = sum(value < -1e-12 for value in difference.values)
    return better, len(difference.values) - better - worse, worse


def anchor(text: str) -> str:
    """Return a fragment name.

    >>> anchor("nDCG@10, dev")
    'ndcg-10-dev'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
