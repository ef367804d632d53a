"""Every public name of the room has a docstring with an example and a paper, and a test that uses it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import rivals.losses

TESTS = Path(__file__).resolve().parents[1]
FAMILIES = [getattr(rivals.losses, path.stem) for path in sorted(Path(rivals.losses.__path__[0]).glob("[!_]*.py"))]


def public() -> Iterator[tuple[str, Any]]:
    for family in FAMILIES:
        for name in family.__all__:
            yield name, getattr(family, name)


@cache
def used_words() -> frozenset[str]:
    """Every word that tests, other than the laws' declarations, use."""
    files = [path for path in TESTS.rglob("*.py") if "laws" not in path.parts]
    return frozenset(word for path in files for word in re.findall(r"\w+", path.read_text(encoding="utf-8")))


CALLABLE = [(name, thing) for name, thing in public() if inspect.isfunction(thing) or inspect.isclass(thing)]


def is_value(thing: Any) -> bool:
    """Whether it is a named result or a protocol, whose function or users say the rest."""
    return inspect.isclass(thing) and (
        issubclass(thing, tuple) or is_dataclass(thing) or getattr(thing, "_is_protocol", False)
    )


@pytest.mark.parametrize(("name", "thing"), CALLABLE, ids=[name for name, _ in CALLABLE])
def test_it_is_documented_and_used(name: str, thing: Any) -> None:
    text = inspect.getdoc(thing) or ""
    assert text, f"{name} has no docstring"
    if is_value(thing):
        return
    assert name in used_words(), f"no test uses {name}"
    assert ">>>" in text, f"{name} has no doctest"
    assert re.search(r"[Pp]apers? \d", text), f"{name} names no paper"


def test_no_name_stands_in_two_families() -> None:
    names = [name for name, _ in public()]
    assert len(names) == len(set(names)), sorted(name for name in set(names) if names.count(name) > 1)


def test_the_room_offers_every_familys_names() -> None:
    assert {name for name, _ in public()} == set(rivals.losses.__all__) - {"LOSSES"}
