"""Faults around a run, each brought about for real: a device that is full, a limit on file sizes, an allocation too large."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.training.checkpoint import newest_step
from rivals.training.loop import LOG, LoopConfig, fit
from rivals.training.regime import Regime
from tests.training.tiny import Pairs, assert_same_weights, weights

ROOT = Path(__file__).resolve().parents[2]
CONFIG = LoopConfig(epochs=1, learning_rate=1e-2, evaluations=1, checkpoint_seconds=0, precision="float32")


class TooLarge(Pairs):
    """Asks for more memory than any machine has, at the third loss."""

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        if self.calls == 2:
            return torch.empty(1 << 60).sum()
        return super().loss(batch, generator)


def undisturbed() -> dict[str, Tensor]:
    objective = Pairs()
    fit(objective, CONFIG)
    return weights(objective.model)


def test_no_memory_names_the_step_and_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(
        RivalsError, match=r"step 3: out of memory; lower batch_size .* checkpoint of step 2 in .* is intact"
    ):
        fit(TooLarge(), CONFIG, folder=tmp_path)
    assert newest_step(tmp_path) == 2
    again = Pairs()
    fit(again, CONFIG, folder=tmp_path, resume=True)
    assert_same_weights(weights(again.model), undisturbed())


def test_without_a_folder_there_is_nothing_to_resume() -> None:
    with pytest.raises(RivalsError, match=r"out of memory; .* begin again: without a folder nothing was saved"):
        fit(TooLarge(), CONFIG)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    class FillsUp(Pairs):
        def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
            if self.calls == 2:
                (tmp_path / LOG).unlink()
                (tmp_path / LOG).symlink_to("/dev/full")
            return super().loss(batch, generator)

    with pytest.raises(
        RivalsError, match=r"step 3: the disk is full; free some space and resume: the checkpoint of step 2 "
    ):
        fit(FillsUp(), CONFIG, folder=tmp_path)
    (tmp_path / LOG).unlink()
    again = Pairs()
    fit(again, CONFIG, folder=tmp_path, resume=True)
    assert_same_weights(weights(again.model), undisturbed())


CHILD = """
import resource, signal, sys
from pathlib import Path
import tests.training.test_faults as here
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

class Limited(here.Pairs):
    def loss(self, batch, generator):
        if self.calls == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))
        return super().loss(batch, generator)

try:
    here.fit(Limited(), here.CONFIG, folder=Path(sys.argv[1]))
except here.RivalsError as error:
    print(error)
    sys.exit(3)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system has no limit on the size of files")
def test_weights_that_cannot_be_written_leave_the_checkpoint_before(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 3, done.stderr
    assert re.match(
        r"step 3: the file got too large.*; free some space and resume: the checkpoint of step 2 ", done.stdout
    )
    assert newest_step(tmp_path) == 2
    assert not list(tmp_path.glob(".step-*")), "a half-written checkpoint was left"


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    class Wrong(Pairs):
        def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
            return torch.zeros(2) @ torch.zeros(3)

    with pytest.raises(RuntimeError, match="inconsistent tensor size") as caught:
        fit(Wrong(), CONFIG, folder=tmp_path)
    assert not isinstance(caught.value, RivalsError)


def test_a_loss_that_is_no_number_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    class Diverges(Pairs):
        def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
            found = super().loss(batch, generator)
            return found * float("nan") if self.calls == 3 else found

    with pytest.raises(RivalsError, match=r"the loss became nan at step 3; .* The last checkpoint is intact"):
        fit(Diverges(), CONFIG, folder=tmp_path)
    assert newest_step(tmp_path) == 2


def test_settings_are_those_meant(tmp_path: Path) -> None:
    """Every step saves, so step 2 is there when step 3 fails."""
    result: Any = fit(Pairs(), CONFIG, folder=tmp_path)
    assert result.steps == 7
    assert newest_step(tmp_path) == 7


class Teacher(Regime):
    """Scores anew with a teacher kept in a folder, before every second step."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, 0

    def should_refresh(self, step: int) -> bool:
        return step % 2 == 0

    def refresh(self, step: int) -> Mapping[str, Any]:
        self.asked += 1
        return {"bytes": len((self.folder / "model.safetensors").read_bytes())}


def test_a_teacher_that_goes_missing_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    """Gone between two refreshes: one message with the file, the step and the checkpoint; back again, the run goes on."""
    home = tmp_path / "teacher"
    home.mkdir()
    weights_file = home / "model.safetensors"
    weights_file.write_bytes(b"1234")

    class Vanishes(Teacher):
        def refresh(self, step: int) -> Mapping[str, Any]:
            if self.asked == 1:
                weights_file.unlink(missing_ok=True)
            return super().refresh(step)

    with pytest.raises(RivalsError) as caught:
        fit(Pairs(), CONFIG, folder=tmp_path / "run", regime=Vanishes(home))
    said = str(caught.value)
    assert re.search(
        r"^step 3: the refresh failed: .*model\.safetensors.*; put that right and resume: the checkpoint", said
    )
    assert "free some space" not in said
    weights_file.write_bytes(b"1234")
    again = Pairs()
    fit(again, CONFIG, folder=tmp_path / "run", resume=True, regime=Teacher(home))
    assert_same_weights(weights(again.model), undisturbed())


def test_a_judge_that_fails_keeps_its_own_words(tmp_path: Path) -> None:
    class Fails(Teacher):
        def refresh(self, step: int) -> Mapping[str, Any]:
            raise RivalsError("the server at 127.0.0.1 answered 503 five times.")

    with pytest.raises(RivalsError, match=r"step 1: the refresh failed: the server .* 503 five times; put that right"):
        fit(Pairs(), CONFIG, folder=tmp_path, regime=Fails(tmp_path))
