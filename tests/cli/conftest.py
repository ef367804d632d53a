"""One small experiment, run by the command line to its end, that the tests of every command look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.small import Small, rivals, write_small


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The files of the small experiment."""
    return write_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def trained(small: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The finished run folder and what the command printed."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    done = rivals(*small.train, "--output", folder)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return folder, done.stdout


@pytest.fixture(scope="session")
def finished(trained: tuple[Path, str]) -> Path:
    """The finished run folder."""
    return trained[0]
