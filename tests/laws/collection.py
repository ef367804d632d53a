"""What the laws are checked on: every public loss and measure, plain and with the variants its options name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rivals.losses import LOSSES
from rivals.measures import MEASURES
from tests.laws.forms import Form, Problem, classify
from tests.laws.options import OPTIONS, Options


@dataclass(frozen=True)
class Subject:
    """A function under law, with fixed options."""

    name: str
    function: Callable[..., Any]
    form: Form
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, problem: Problem, **options: Any) -> Any:
        keywords = {} if self.form == "measure" else problem.keywords()
        return self.function(*problem.arguments(), **(self.options | keywords | options))

    def __str__(self) -> str:
        given = ",".join(f"{key}={value}" for key, value in self.options.items())
        return self.name + (f"[{given}]" if given else "")

    @property
    def law(self) -> Options:
        """What is declared about it in `tests/laws/options`."""
        return OPTIONS.get(self.name, Options())

    @cached_property
    def takes(self) -> frozenset[str]:
        """The names of its arguments."""
        return frozenset(inspect.signature(self.function).parameters)


def loss_subjects(form: Form | None = None) -> list[Subject]:
    """Return every loss, plain and with its variants; those with laws of their own only under form="own"."""
    subjects = [
        Subject(name, function, "own" if law.own_laws else classify(function), {**law.always, **options})
        for name, function in LOSSES.items()
        for law in (OPTIONS.get(name, Options()),)
        for options in ({}, *law.variants)
    ]
    return [subject for subject in subjects if form == subject.form or (form is None and subject.form != "own")]


def measure_subjects() -> list[Subject]:
    """Return every measure, plain and, where it takes one, with a cut-off."""
    return [
        Subject(name, function, classify(function, measure=True), options)
        for name, function in MEASURES.items()
        for options in ({}, {"k": 3})
        if not options or "k" in inspect.signature(function).parameters
    ]
