"""Fixtures for language models: the real small one, and servers that behave as told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.models.language.server import Reply, Seen, Server
from tests.models.language.smollm import smollm2 as load_smollm2

if TYPE_CHECKING:
    from rivals.models.language import LocalLanguageModel


@pytest.fixture(scope="session")
def smollm2() -> LocalLanguageModel:
    """SmolLM2-135M-Instruct in float32 on the CPU."""
    return load_smollm2()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Seen], Reply]], Server]]:
    """Start a server that answers every request as a function says; it stops after the test."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ExitStack() as stack:
        yield lambda reply: stack.enter_context(Server(reply))
