"""The entries, and three questions to them: which are there, which fit, which to try first."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple, get_args

from rivals.catalogue.entry import FORMS, Entry, Kind, read_entry, read_preference
from rivals.catalogue.first_choices import FIRST_CHOICES, Condition
from rivals.catalogue.groups import TASKS, tasks_of
from rivals.catalogue.outside import SYNONYMS, outside_entries
from rivals.errors import RivalsError

#: Modules of `rivals.measures` whose names are no measures: what is done with measures, and with their values.
_ABOUT_MEASURES = ("names", "intervals", "significance", "between_groups")


class Suggestion(NamedTuple):
    """A loss or measure to try, and why."""

    name: str
    kind: Kind
    reason: str


def entries() -> list[Entry]:
    """Return every entry: losses, then measures, then parts, each by name.

    >>> {entry.kind for entry in entries()} == {"loss", "measure", "part"}
    True
    """
    return list(_all())


def find(
    name: str | None = None, kind: Kind | None = None, task: str | None = None, paper: int | None = None
) -> list[Entry]:
    """Return the entries of a name, kind, task and paper, all that are given.

    A name is understood with or without `_loss`, in any case, and by what people call it: "InfoNCE", "RankNet", "mse".

    Raises:
        RivalsError: an unknown name, with those nearest to it; an unknown kind or task.

    >>> [entry.name for entry in find("RankNet")]
    ['pairwise_logistic']
    >>> sorted(entry.name for entry in find(paper=41, kind="loss", task="metric-learning"))[:2]
    ['in_batch_contrastive', 'in_batch_multi_similarity']
    """
    if kind is not None and kind not in get_args(Kind):
        raise RivalsError(f"no kind is called '{kind}'; there are {', '.join(get_args(Kind))}")
    if task is not None:
        check_task(task)
    found = [entry for entry in _all() if kind in (None, entry.kind)]
    if name is not None:
        named = _named(name, found)
        if not named:
            near = _near(name, found)
            hint = f"did you mean {', '.join(near)}?" if near else "`rivals losses` and `rivals measures` list them all"
            raise RivalsError(f"no {kind or 'loss or measure'} is called '{name}'; {hint}")
        found = named
    found = [entry for entry in found if task is None or task in entry.tasks]
    return [entry for entry in found if paper is None or paper in entry.papers]


def suggest(task: str, *, imbalanced: bool = False, graded: bool = False, noisy: bool = False) -> list[Suggestion]:
    """Return what to try for a task, the first choice first: losses, then measures to judge them by.

    Args:
        task: one of `TASKS`.
        imbalanced: positives, or some classes, are rare.
        graded: labels have more than two levels, or are an order.
        noisy: some labels are wrong, or negatives only assumed.

    Source: the survey's assignment of losses and measures to tasks, paper 44, with the losses of the other papers put
    where their own "When to use" says.

    Raises:
        RivalsError: an unknown task.

    >>> [choice.name for choice in suggest("multiclass", imbalanced=True)][:2]
    ['focal', 'softmax_dice']
    """
    check_task(task)
    wished: dict[Condition, bool] = {"imbalanced": imbalanced, "graded": graded, "noisy": noisy}
    chosen: dict[tuple[Kind, str], Entry] = {}
    known = {(entry.kind, entry.name): entry for entry in _all()}
    for kind in ("loss", "measure"):
        choices = FIRST_CHOICES[task][kind]
        for condition in (*(condition for condition, given in wished.items() if given), "always"):
            for name in choices.get(condition, ()):
                chosen.setdefault((kind, name), known[kind, name])
    return [Suggestion(name, kind, entry.reason) for (kind, name), entry in chosen.items()]


def check_task(task: str) -> None:
    """Raise RivalsError unless a task is one of `TASKS`.

    >>> check_task("sorting")
    Traceback (most recent call last):
    ...
    rivals.errors.RivalsError: no task is called 'sorting'; there are regression, binary, multiclass, multilabel,...
    """
    if task not in TASKS:
        raise RivalsError(f"no task is called '{task}'; there are {', '.join(TASKS)}")


@cache
def _all() -> tuple[Entry, ...]:
    from rivals import losses, measures

    found = [read_entry(n, "loss", f, f"rivals.losses.{n}_loss") for n, f in losses.LOSSES.items()]
    found += [read_preference(name, form) for name, form in losses.PREFERENCE_LOSSES.items()]
    found += [
        read_entry(name, "part", thing, f"rivals.losses.{name}")
        for name, thing in _documented(losses)
        if not name.endswith("_loss")
    ]
    notation = {thing: short for short, thing in measures.MEASURES.items()}
    spelt = {
        short: [other for other, meant in measures.ALIASES.items() if meant == short] for short in measures.MEASURES
    }
    for name, thing in _documented(measures):
        about = thing.__module__.rpartition(".")[2] in _ABOUT_MEASURES
        entry = read_entry(
            name, "part" if about or inspect.isclass(thing) else "measure", thing, f"rivals.measures.{name}"
        )
        short = notation.get(thing)
        found.append(entry if short is None else replace(entry, aliases=(*entry.aliases, short, *spelt[short])))
    found += outside_entries({(entry.kind, entry.name) for entry in found})
    found = [replace(entry, tasks=entry.tasks or tasks_of(entry)) for entry in found]
    found = [replace(entry, aliases=_distinct(entry)) for entry in found]
    kinds, forms = get_args(Kind), list(FORMS)
    return tuple(sorted(found, key=lambda entry: (kinds.index(entry.kind), forms.index(entry.form), entry.name)))


def _distinct(entry: Entry) -> tuple[str, ...]:
    """Return the names an entry is also known by, each once, with those of the table of synonyms."""
    table = SYNONYMS[entry.kind] if entry.provider else {}
    others = [*entry.aliases, *(synonym for synonym, name in table.items() if name == entry.name)]
    return tuple({_key(other): other for other in reversed(others)}.values())[::-1]


def _documented(room: Any) -> list[tuple[str, Any]]:
    """Return the public functions and classes of a room; tables and type names are neither."""
    things = [(name, getattr(room, name)) for name in room.__all__]
    return [(name, thing) for name, thing in things if inspect.isfunction(thing) or inspect.isclass(thing)]


def _key(name: str) -> str:
    """Return a name without what people write differently: case, hyphens, the ending `_loss`, a cut-off."""
    bare = re.sub(r"[@(].*$", "", name.strip().lower())
    return re.sub(r"[^a-z0-9]", "", re.sub(r"[_ -]loss$", "", bare))


def _named(name: str, among: Iterable[Entry]) -> list[Entry]:
    among, key = list(among), _key(name)
    exact = [entry for entry in among if _key(entry.name) == key]
    return exact or [entry for entry in among if key in map(_key, entry.aliases)]


def _near(name: str, among: Iterable[Entry]) -> list[str]:
    """Return at most five names: those spelt alike, then those whose docstring speaks of it."""
    among = list(among)
    spelt = {_key(other): entry.name for entry in among for other in (*entry.aliases, entry.name)}
    alike = [spelt[key] for key in difflib.get_close_matches(_key(name), spelt, n=4, cutoff=0.6)]
    words = [re.escape(word) for word in re.findall(r"[A-Za-z0-9]{3,}", name) if word.lower() != "loss"]
    spoken = [
        entry.name
        for text in ("summary", "relations", "source")
        for entry in among
        if words and all(re.search(rf"\b{word}", getattr(entry, text), re.IGNORECASE) for word in words)
    ]
    return list(dict.fromkeys([*alike, *spoken]))[:5]
