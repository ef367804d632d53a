"""Tests, doctests and every process they start see one copy of the code: `src` of this checkout, installed or not."""

from __future__ import annotations

import os
from pathlib import Path

_SOURCE = str(Path(__file__).resolve().parent / "src")
_OTHERS = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != _SOURCE]
os.environ["PYTHONPATH"] = os.pathsep.join([_SOURCE, *_OTHERS])

if os.environ.get("CI") == "true":
    # The same examples every time: a change is judged by itself. Elsewhere hypothesis looks for new ones at every run.
    from hypothesis import settings

    settings.register_profile("ci", derandomize=True, deadline=None)
    settings.load_profile("ci")
