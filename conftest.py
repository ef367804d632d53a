"""Tests, doctests and every process they start see one copy of the code: `src` of this checkout, installed or not."""

from __future__ import annotations

import os
from pathlib import Path

_SOURCE = str(Path(__file__).resolve().parent / "src")
_OTHERS = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != _SOURCE]
os.environ["PYTHONPATH"] = os.pathsep.join([_SOURCE, *_OTHERS])
