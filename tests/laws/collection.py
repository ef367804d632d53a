"""What the laws are checked on: every public loss and measure, plain and with the variants its options name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import rivals.measures
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


#: Options under which measures are checked besides their defaults.
MEASURE_VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "auc": ({"max_fpr": 0.3},),
    "expected_calibration_error": ({"outcomes": "each"}, {"adaptive": True}, {"norm": "max", "bins": 3}),
    "classwise_calibration_error": ({"outcomes": "each", "adaptive": True},),
    "brier_score": ({"outcomes": "each"},),
    "negative_log_likelihood": ({"outcomes": "each"},),
    "f_score": ({"average": "micro"}, {"average": "lists"}, {"average": "weighted"}),
    "kendall_tau": ({"variant": "a", "min_gap": 2.0},),
    "label_average_precision": ({"average": "micro"}, {"average": "lists"}),
    "multiclass_auc": ({"scheme": "ovo"},),
    "pair_accuracy": ({"min_gap": 2.0},),
}


def measure_subjects() -> list[Subject]:
    """Return every measure of a list and every public one of the same form, plain, with a cut-off, with variants."""
    functions = MEASURES | {
        name: function
        for name, function in ((name, getattr(rivals.measures, name)) for name in rivals.measures.__all__)
        if _is_measure(function) and function not in MEASURES.values()
    }
    return [
        Subject(name, function, classify(function, measure=True), options)
        for name, function in functions.items()
        for options in ({}, {"k": 3}, *MEASURE_VARIANTS.get(function.__name__, ()))
        if options != {"k": 3} or "k" in inspect.signature(function).parameters
    ]


def _is_measure(function: Any) -> bool:
    """Whether it takes scores, relevance and mask and returns numbers (not a report), whatever the kind of labels."""
    if not inspect.isfunction(function) or function is rivals.measures.confusion_matrix:  # of class numbers alone
        return False
    signature = inspect.signature(function)
    return tuple(signature.parameters)[:3] == ("scores", "relevance", "mask") and signature.return_annotation == "Any"
