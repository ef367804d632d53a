"""The catalogue of losses and measures: what there is, for which data and task, from which paper, at what cost.

Everything is read from the docstrings of what is registered in `rivals.losses` and `rivals.measures`, so a new loss is in
the catalogue the moment it is public. Beside these stand what torch and scikit-learn compute, and what is not provided
(`outside`). `rivals losses` and `rivals measures` print it; `docs/losses.md` is made from it.

Importing this module loads no torch; the first question does.
"""

from __future__ import annotations

from rivals.catalogue.entry import FORMS, Entry
from rivals.catalogue.groups import DATA, TASKS, Group, data_of
from rivals.catalogue.search import Suggestion, check_task, entries, find, suggest

__all__ = [
    "DATA",
    "FORMS",
    "TASKS",
    "Entry",
    "Group",
    "Suggestion",
    "check_task",
    "data_of",
    "entries",
    "find",
    "suggest",
]
