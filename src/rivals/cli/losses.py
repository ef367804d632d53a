"""`rivals losses` and `rivals measures`: the catalogue in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rivals.errors import RivalsError

if TYPE_CHECKING:
    from rich.console import Console

    from rivals.catalogue import Entry

_Room = Literal["loss", "measure"]
_FIELDS = (
    ("Formula", "formula"),
    ("Shapes", "shapes"),
    ("When to use", "when"),
    ("Relations", "relations"),
    ("Cost", "cost"),
    ("Source", "source"),
    ("Raises", "raises"),
    ("Example", "example"),
)


def run_losses(*, name: str, paper: int, task: str, form: str, parts: bool) -> None:
    """Print the table of losses, or all about one."""
    _run("loss", name=name, paper=paper, task=task, form=form, parts=parts)


def run_measures(*, name: str, paper: int, task: str, form: str, parts: bool) -> None:
    """Print the table of measures, or all about one."""
    _run("measure", name=name, paper=paper, task=task, form=form, parts=parts)


def _run(room: _Room, *, name: str, paper: int, task: str, form: str, parts: bool) -> None:
    from rivals.catalogue import FORMS, check_task
    from rivals.cli._console import result_console

    if name and (paper or task or form or parts):
        raise RivalsError("give a name, or --paper, --task, --form and --parts, which choose from the list; not both")
    if form and form not in FORMS:
        raise RivalsError(f"no form is called '{form}'; there are {', '.join(FORMS)}")
    if task:
        check_task(task)
    console = result_console()
    if name:
        for entry in _named(room, name):
            _show(console, entry)
        return
    with_parts = parts or bool(paper)
    chosen = [
        entry
        for entry in _of_room(room)
        if (with_parts or entry.kind != "part")
        and paper in (0, *entry.papers)
        and (not task or task in entry.tasks)
        and (not form or form == entry.form)
    ]
    if not chosen:
        raise RivalsError(_nothing(room, paper, task, form))
    _tables(console, room, chosen)


def _of_room(room: _Room) -> list[Entry]:
    """Return the entries of a kind, and the parts that live beside them."""
    from rivals.catalogue import entries

    home = {"loss": "rivals.losses.", "measure": "rivals.measures."}[room]
    return [
        entry for entry in entries() if entry.kind == room or (entry.kind == "part" and entry.symbol.startswith(home))
    ]


def _named(room: _Room, name: str) -> list[Entry]:
    """Return the losses of a name; else the parts, or whatever else is called so."""
    from rivals.catalogue import find

    try:
        return find(name, room)
    except RivalsError as unknown:
        try:
            return find(name)
        except RivalsError:
            raise unknown from None


def _nothing(room: _Room, paper: int, task: str, form: str) -> str:
    asked = [f"from paper {paper}"] if paper else []
    asked += [f"for {task}"] if task else []
    asked += [f"of the form {form}"] if form else []
    papers = sorted({number for entry in _of_room(room) for number in entry.papers})
    hint = f"; papers with one: {', '.join(map(str, papers))}" if paper else ""
    return f"no {room} is {' and '.join(asked)}{hint}"


def _tables(console: Console, room: _Room, chosen: list[Entry]) -> None:
    from rich.table import Table
    from rich.text import Text

    from rivals.catalogue import FORMS

    groups = [(form, [entry for entry in chosen if entry.form == form and _listed(entry)]) for form in FORMS]
    groups.append(("parts", [entry for entry in chosen if entry.kind == "part"]))
    groups.append(("not provided", [entry for entry in chosen if entry.status == "not provided"]))
    plural = {"loss": "losses", "measure": "measures"}[room]
    about = FORMS | {"parts": f"what stands beside the {plural}", "not provided": "listed for those who look for them"}
    width = max(len(entry.name) for entry in chosen)
    for form, members in groups:
        if not members:
            continue
        console.print(Text(f"\n{form}: {about[form]}", style="bold"), soft_wrap=True)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("name", min_width=width, no_wrap=True)
        table.add_column("what it is", ratio=1)
        table.add_column("papers", width=18)
        for entry in members:
            papers = ", ".join(map(str, entry.papers))
            table.add_row(
                Text(entry.name),
                Text(entry.summary),
                Text(papers if entry.provider in ("rivals", "") else entry.provider),
            )
        console.print(table)
    counts = [
        (sum(entry.kind == room and entry.status == "provided" for entry in chosen), room, plural),
        (sum(entry.kind == "part" for entry in chosen), "part", "parts"),
    ]
    said = " and ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts if count) or "Nothing"
    shown = next((entry.name for entry in chosen if _listed(entry)), chosen[0].name)
    console.print(f"\n{said}. One of them: rivals {plural} {shown}", soft_wrap=True)


def _listed(entry: Entry) -> bool:
    return entry.kind != "part" and entry.status == "provided"


def _show(console: Console, entry: Entry) -> None:
    """Print all about one entry; what the docstring does not say is left out."""
    from rich.text import Text

    from rivals.catalogue import FORMS

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    say(f"{entry.name} ({entry.kind})", "bold")
    say(entry.summary)
    if entry.symbol:
        place, _, key = entry.symbol.partition("[")
        module, _, name = place.rpartition(".")
        say(f"\nfrom {module} import {name}\n{name}{'[' + key if key else ''}{entry.signature}", "cyan")
    for heading, attribute in _FIELDS:
        text = getattr(entry, attribute)
        if text:
            say(f"\n{heading}", "bold")
            say("\n".join("  " + line if line else "" for line in text.splitlines()))
    say("")
    for heading, text in (
        ("Form", f"{entry.form}: {FORMS[entry.form]}" if entry.kind != "part" and entry.symbol else ""),
        ("Tasks", ", ".join(entry.tasks)),
        ("Also called", ", ".join(entry.aliases)),
        ("Papers", ", ".join(map(str, entry.papers))),
        ("Provided by", f"{entry.provider}, {entry.symbol}" if entry.symbol else entry.status),
    ):
        if text:
            say(f"{heading}: {text}")
