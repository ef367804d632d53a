"""Write docs/losses.md from the docstrings, and draw the pictures beside it.

    python scripts/build_loss_docs.py          # the page and all pictures (minutes)
    python scripts/build_loss_docs.py --text   # the page alone (seconds)
    python scripts/build_loss_docs.py --check  # say whether the page is up to date; status 1 if not

The page shows a picture where docs/losses/NAME.svg exists; scripts/loss_pictures.py draws those.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from rivals.catalogue import DATA, FORMS, TASKS, Entry, data_of, entries
from rivals.catalogue.entry import Kind
from rivals.catalogue.first_choices import FIRST_CHOICES, Condition

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "losses.md"
PICTURES = ROOT / "docs" / "losses"

INTRODUCTION = """# Losses

Every loss of the library, from its docstring: [choose by your data](#choose-by-your-data),
[by task](#what-to-try-first), [by name](#by-name), [by paper](#by-paper). The same in the terminal, with arguments and
an example that runs: `rivals losses`, `rivals losses info_nce`, `rivals losses --task ranking`.

A loss is a function of tensors that knows nothing of the model which made them: `some_loss(scores, relevance, mask)` and
a few [other forms](#forms). Nearly all take `mask` (False: there is nothing here), `weight` and `reduction`.

**The pictures** show a loss at its defaults. Left: one positive's score to the right, one negative's upwards (or the
logits of two classes, the log-probabilities of two texts); lines of equal value, and arrows along which a step down the
gradient moves the two scores, their length growing with the root of the gradient. Right: value and gradient against the
positive's score (solid) and against the negative's (dashed), the other held in the middle. A loss of a score and a target
has one curve each. Losses that two scores do not describe have no picture.

This page is made by `scripts/build_loss_docs.py`; change the docstrings, not the page.
"""


def page() -> str:
    """Return the text of docs/losses.md."""
    every = entries()
    losses = [entry for entry in every if entry.kind == "loss" and entry.status == "provided"]
    ours = sorted((entry for entry in losses if entry.provider == "rivals"), key=lambda entry: entry.name)
    parts = [entry for entry in every if entry.kind == "part" and entry.symbol.startswith("rivals.losses.")]
    measures = [entry for entry in every if entry.kind == "measure" and entry.status == "provided"]
    sections = [
        INTRODUCTION,
        _forms(),
        _by_data(ours, parts),
        _by_task(),
        _by_name(ours),
        _by_paper(ours, parts),
        _parts(parts),
        _elsewhere([entry for entry in losses if entry.provider != "rivals"], every),
        _measures(measures),
    ]
    return "\n".join(section.strip() + "\n" for section in sections)


def _forms() -> str:
    return "## Forms\n\n" + _table(("form", "what it takes"), ((form, prose(about)) for form, about in FORMS.items()))


def _by_data(losses: list[Entry], parts: list[Entry]) -> str:
    lines = ["## Choose by your data", "", "I have:", ""]
    lines += [f"- [{group.title}](#{_anchor(group.title)})" for group in DATA.values()]
    other = [entry for entry in losses if not data_of(entry)]
    for name, group in DATA.items():
        rows = [
            (_named(entry), cell(entry.reason), _papers(entry)) for entry in [*losses, *parts] if name in data_of(entry)
        ]
        lines += ["", f"### {group.title}", "", group.about, "", _table(("loss", "when to use it", "papers"), rows)]
    if other:
        rows = [(_named(entry), cell(entry.reason), _papers(entry)) for entry in other]
        lines += ["", "### Data of another kind", "", _table(("loss", "when to use it", "papers"), rows)]
    return "\n".join(lines)


def _by_task() -> str:
    def names(task: str, kind: Kind, condition: Condition) -> str:
        chosen = FIRST_CHOICES[task][kind].get(condition, ())
        return ", ".join(f"[{name}](#{name})" if kind == "loss" else f"`{name}`" for name in chosen)

    conditions: tuple[Condition, ...] = ("always", "imbalanced", "graded", "noisy")
    rows = [
        (
            f"**{group.title}**: {group.about}",
            *(names(task, "loss", condition) for condition in conditions),
            names(task, "measure", "always"),
        )
        for task, group in TASKS.items()
    ]
    heading = ("task", "start with", "rare positives", "graded labels", "noisy labels", "judge by")
    return "## What to try first\n\nAs `rivals.catalogue.suggest` says.\n\n" + _table(heading, rows)


def _by_name(losses: list[Entry]) -> str:
    return "\n\n".join(["## By name", *map(_entry, losses)])


def _entry(entry: Entry) -> str:
    lines = [f"### {entry.name}", "", prose(entry.summary)]
    if (PICTURES / f"{entry.name}.svg").exists():
        lines += ["", f"![Value and gradient of {entry.name}](losses/{entry.name}.svg)"]
    if entry.formula:
        lines += ["", "```text", entry.formula, "```"]
    for heading, text in (
        ("When to use", entry.when),
        ("Relations", entry.relations),
        ("Cost", entry.cost),
        ("Source", entry.source),
    ):
        if text:
            lines += ["", f"*{heading}.* {prose(text)}"]
    place = entry.module.replace(".", "/")
    also = f" Also called {', '.join(entry.aliases)}." if entry.aliases else ""
    lines += ["", f"*Form* {entry.form}. `{entry.symbol}`, [source](../src/{place}.py).{also}"]
    return "\n".join(lines)


def _by_paper(losses: list[Entry], parts: list[Entry]) -> str:
    table = tomllib.loads((ROOT / "papers" / "index.toml").read_text(encoding="utf-8"))
    titles = {paper["number"]: paper["title"] for paper in table["paper"]}
    numbers = sorted({number for entry in [*losses, *parts] for number in entry.papers})
    rows = [
        (
            f"{number}. {cell(titles.get(number, ''))}",
            ", ".join(_named(entry) for entry in losses if number in entry.papers),
            ", ".join(_named(entry) for entry in parts if number in entry.papers),
        )
        for number in numbers
    ]
    return "## By paper\n\n" + _table(("paper", "losses", "parts"), rows)


def _parts(parts: list[Entry]) -> str:
    rows = [
        (_named(entry), cell(entry.summary), _papers(entry)) for entry in sorted(parts, key=lambda e: e.name.lower())
    ]
    text = "What stands beside the losses: candidates, weights, queues, modules with state. `rivals losses NAME` shows one."
    return f"## Parts\n\n{text}\n\n" + _table(("part", "what it is", "papers"), rows)


def _elsewhere(others: list[Entry], every: list[Entry]) -> str:
    rows = [(f"`{entry.name}`", cell(entry.summary), f"`{entry.symbol}`") for entry in others]
    missing = [entry for entry in every if entry.status == "not provided"]
    listed = "; ".join(f"{entry.name} ({entry.kind})" for entry in missing)
    text = "One call away in torch, and not repeated here:"
    return (
        f"## Elsewhere\n\n{text}\n\n{_table(('loss', 'what it is', 'where'), rows)}\n\n"
        f"Neither here nor there, since they need boxes, images or generative models: {listed}."
    )


def _measures(measures: list[Entry]) -> str:
    rows = [
        (f"`{e.name}`", cell(e.summary), _papers(e) if e.provider == "rivals" else e.provider)
        for e in sorted(measures, key=lambda e: e.name)
    ]
    text = "What to judge by; `rivals measures ndcg` shows one."
    return f"## Measures\n\n{text}\n\n" + _table(("measure", "what it is", "papers"), rows)


# ---------------------------------------------------------------------------------- Markdown


def prose(text: str) -> str:
    """Return a docstring's text as one paragraph of Markdown in which nothing but `code` is markup.

    >>> prose("s_i * s_j <= 1 for `a * b`")
    's_i \\\\* s_j &lt;= 1 for `a * b`'
    """
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(
        part
        if part.startswith("`")
        else re.sub(r"([*\[\]])", r"\\\1", part).replace("<", "&lt;").replace(" _", " \\_").replace("$", "\\$")
        for part in parts
    )


def cell(text: str) -> str:
    """Return text for a cell of a table."""
    return prose(text).replace("|", "\\|")


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _named(entry: Entry) -> str:
    return f"[{entry.name}](#{entry.name})" if entry.kind == "loss" else f"`{entry.name}`"


def _papers(entry: Entry) -> str:
    return ", ".join(map(str, entry.papers))


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and its pictures, or check the page."""
    parser = argparse.ArgumentParser(description="Write docs/losses.md and its pictures.")
    parser.add_argument("--text", action="store_true", help="the page alone, with the pictures there are")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if the page is out of date")
    options = parser.parse_args(arguments)
    if options.check:
        current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
        print(f"{PAGE} is {'up to date' if current else 'out of date: run python scripts/build_loss_docs.py --text'}")
        return 0 if current else 1
    if not options.text:
        subprocess.run([sys.executable, str(Path(__file__).with_name("loss_pictures.py"))], check=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
