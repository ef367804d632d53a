"""The laws every loss and every measure obeys, and the collection of what they are checked on.

Subjects are found by themselves: every entry of `rivals.losses.LOSSES` and `rivals.measures.MEASURES`, classified by
the names of its leading arguments (`forms.classify`). A public function of another form is an error here, not a silent
gap: its options (`tests/laws/options/`) name the test file that holds its own laws. `tests/test_laws.py` runs every law
on every subject; a law is a function (subject, problem) that asserts.
"""

from __future__ import annotations

from tests.laws.collection import Subject, loss_subjects, measure_subjects
from tests.laws.forms import GARBAGE, Embeddings, Labelled, Lists, classify
from tests.laws.options import OPTIONS, Options
from tests.laws.rules import (
    REDUCTIONS,
    absent_entries_get_no_gradient,
    empty_lists_never_count,
    extremes_stay_finite,
    gradients,
    gradients_are_right,
    order_never_counts,
    padding_never_counts,
    reductions_agree,
    shifts_change_nothing,
    twice_is_the_same,
)
from tests.laws.strategies import embeddings, labelled, lists, problems

__all__ = [
    "GARBAGE",
    "OPTIONS",
    "REDUCTIONS",
    "Embeddings",
    "Labelled",
    "Lists",
    "Options",
    "Subject",
    "absent_entries_get_no_gradient",
    "classify",
    "embeddings",
    "empty_lists_never_count",
    "extremes_stay_finite",
    "gradients",
    "gradients_are_right",
    "labelled",
    "lists",
    "loss_subjects",
    "measure_subjects",
    "order_never_counts",
    "padding_never_counts",
    "problems",
    "reductions_agree",
    "shifts_change_nothing",
    "twice_is_the_same",
]
