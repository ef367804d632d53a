"""Fixtures for models: tiny random ones made on the fly, and the packaged MiniLM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.models.tiny import write_tiny_bert


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A plain transformers folder."""
    return write_tiny_bert(tmp_path / "tiny")


@pytest.fixture
def make_tiny(tmp_path: Path) -> Callable[..., Path]:
    """Write a tiny model under a name of its own."""

    def make(name: str = "model", **options: Any) -> Path:
        return write_tiny_bert(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def minilm() -> Any:
    """all-MiniLM-L6-v2 from its package, in float32 on the CPU."""
    from rivals.models import Encoder

    return Encoder.load("all-MiniLM-L6-v2", device="cpu", dtype="float32")
