"""Fixtures that several rooms need: where the shared data and the recorded vectors are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _folder(variable: str, default: str, what: str) -> Path:
    path = Path(os.environ.get(variable, ROOT.parent / "shared" / default))
    if path.is_dir():
        return path
    reason = f"{what} are not at {path}; set {variable} to their folder"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared data sets ($RIVALS_DATA, else ../shared/data)."""
    return _folder("RIVALS_DATA", "data", "the shared data sets")


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of recorded vectors ($RIVALS_VECTORS, else ../shared/papers/vectors)."""
    return _folder("RIVALS_VECTORS", "papers/vectors", "the recorded vectors")
