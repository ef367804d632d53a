"""Mining in a second process: it watches the checkpoints of a training, mines with the newest, and hands over runs in a folder."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rivals.data.formats.run_files import load_run, save_run
from rivals.data.run import Run
from rivals.errors import DataError, RivalsError
from rivals.files import atomic_file
from rivals.training.checkpoint import load_weights
from rivals.training.negatives import Negatives
from rivals.training.refresh import movement, renewed
from rivals.training.regime import Regime
from rivals.training.scorers import inference

_MARKER = re.compile(r"negatives-(\d{6})\.json")
_RUN = "negatives.parquet"


def publish_negatives(run: Run, folder: Path, version: int, **notes: Any) -> Path:
    """Write a version of the negatives: the run first, then its marker, by rename; only with the marker does it count.

    Args:
        notes: JSON values beside it, such as a held-out score.

    Source: the file exchange of ANCE's data generator and trainer (paper 37).

    >>> import tempfile
    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"], name="query"), Collection(["a"]), [0, 1], [0], [.9])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = publish_negatives(run, Path(folder), 3, step=40)
    ...     newest_negatives(Path(folder))[0]
    3
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"negatives-{version:06d}.parquet"
    save_run(replace(run, version=version), path)
    with atomic_file(path.with_suffix(".json")) as marker:
        json.dump({"version": version, "candidates": len(run), **notes}, marker)
    return path


def newest_negatives(folder: Path) -> tuple[int, Path] | None:
    """Return the highest version of the negatives in a folder that is complete, and its file; None where there is none.

    A run without marker is being written, or was when its writer died, and is passed over.

    Raises:
        DataError: the newest marker has no run beside it.
    """
    found = [int(match[1]) for path in folder.glob("*.json") if (match := _MARKER.fullmatch(path.name))]
    if not found:
        return None
    path = folder / f"negatives-{max(found):06d}.parquet"
    if not path.exists():
        raise DataError("its marker is there, but the run is not; remove the marker or mine again", path=path)
    return max(found), path


class Follow(Regime):
    """Takes over the negatives that another process mined, as soon as they are there.

    Every `poll` steps the newest version in the folder is taken if it is not the one in use. What was taken is kept in checkpoints;
    which version comes at which step is a matter of the other process's speed, so that two trainings are equal only if they meet
    the same files at the same steps. `Refresh` does the same in one process and repeats exactly.

    Args:
        negatives: what the objective draws from. folder: where `generate_negatives` hands over. poll: steps between looks.

    Source: Xiong et al. 2021, ANCE: its trainer looks every 100 steps (paper 37).

    Raises:
        RivalsError: poll below 1; in training, a run over other queries or documents.
    """

    def __init__(self, negatives: Negatives, folder: Path, *, poll: int = 100) -> None:
        if poll < 1:
            raise RivalsError(f"poll must be 1 or more, not {poll}")
        self.negatives, self.folder, self.poll = negatives, folder, poll

    def should_refresh(self, step: int) -> bool:
        found = newest_negatives(self.folder) if step % self.poll == 0 else None
        return found is not None and found[0] > self.negatives.version

    def refresh(self, step: int) -> Mapping[str, Any]:
        found, before = newest_negatives(self.folder), self.negatives.run
        assert found is not None
        version, path = found
        run = replace(load_run(path, before.queries, before.documents), version=version, created_step=step)
        self.negatives.put(run, version)
        return {"version": version, **movement(before, run)}

    def state_dict(self) -> dict[str, Any]:
        return {"version": self.negatives.version}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.negatives.version = int(state["version"])

    def save(self, folder: Path) -> None:
        if self.negatives.version:
            save_run(self.negatives.run, folder / _RUN)

    def load(self, folder: Path) -> None:
        if self.negatives.version:
            now = self.negatives.run
            self.negatives.run = load_run(folder / _RUN, now.queries, now.documents)


def generate_negatives(
    training: Path,
    folder: Path,
    model: torch.nn.Module,
    mine: Callable[[NDArray[np.int64]], Run],
    run: Run,
    *,
    chunks: int = 5,
    poll_seconds: float = 60.0,
    until: Callable[[], bool] = lambda: False,
) -> Iterator[int]:
    """Mine a version from every new checkpoint of a training and yield its number, until told to stop.

    Version v mines the queries of rows v mod `chunks`, + `chunks`, ...; the others keep theirs. An unchanged checkpoint is not mined
    from again. It goes on after the newest version in `folder`, so that it may be killed and started anew.

    Args:
        training: the folder of the training's checkpoints. folder: where versions go. model: of the same kind as the one that is
            trained; it takes the checkpoints' weights. mine: query rows -> their marked run by the model's weights, as for `Refresh`.
        run: over all training queries, what training began with. poll_seconds: waited before looking again. until: asked before
            each look; True ends it.

    Source: Xiong et al. 2021, ANCE's data generator: 5 chunks, 60 seconds (paper 37).

    Raises:
        RivalsError: chunks below 1, mining that gives other queries, a checkpoint of another model.
    """
    if chunks < 1 or poll_seconds < 0:
        raise RivalsError(f"chunks must be 1 or more and poll_seconds 0 or more, not {chunks} and {poll_seconds}")
    last = -1
    while not until():
        found = newest_negatives(folder)
        version = found[0] if found else 0
        if found:
            run = load_run(found[1], run.queries, run.documents)
        step = load_weights(training, model, after=last)
        if step is None:
            time.sleep(poll_seconds)
            continue
        started, last = time.monotonic(), step
        rows = np.arange(version % chunks, len(run.queries), chunks)
        with inference(model):
            mined = mine(rows)
        before, run = run.take(rows), renewed(run, rows, mined)
        seconds = round(time.monotonic() - started, 3)
        publish_negatives(run, folder, version + 1, step=step, seconds=seconds, **movement(before, mined))
        yield version + 1


__all__ = ["Follow", "generate_negatives", "newest_negatives", "publish_negatives"]
