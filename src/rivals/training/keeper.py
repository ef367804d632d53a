"""Where a training run's state lives: log, best weights and checkpoints in a folder, or in memory when there is none."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError, RunFolderError
from rivals.files import atomic_file, sync_file, sync_folder
from rivals.training.checkpoint import (
    load_checkpoint,
    remove_checkpoints,
    restore_weights,
    save_checkpoint,
    trainable_state,
)
from rivals.training.distributed import World
from rivals.training.regime import Regime

LOG, BEST = "log.jsonl", "best.safetensors"


@dataclass
class TrainingResult:
    """What happened: steps taken, losses, held-out scores by step, the best of them, seconds spent in steps and evaluations."""

    steps: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    scores: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    best_score: float = float("nan")
    seconds: float = 0.0
    stopped_early: bool = False


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a training log; a last line cut short by a kill is left out."""
    lines = []
    try:
        text = (folder / LOG).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


class Keeper:
    """Where a run's state lives: in a folder, or in memory when there is none."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        folder: Path | None,
        options: dict[str, Any],
        world: World,
        regime: Regime,
    ) -> None:
        self.model, self.optimizer, self.folder, self.world, self.regime = model, optimizer, folder, world, regime
        self._options = json.loads(json.dumps(options))  # as they come back from a file
        self._best: dict[str, Tensor] | None = None
        self._lines: list[str] = []
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def log(self, values: dict[str, Any]) -> None:
        self._lines.append(json.dumps(values))

    def keep_best(self) -> None:
        self._best = trainable_state(self.model)
        if self.folder is not None and self.world.is_main:
            from safetensors.torch import save_file

            temporary = self.folder / f"{BEST}.tmp"
            save_file(self._best, temporary)
            sync_file(temporary)
            os.replace(temporary, self.folder / BEST)
            sync_folder(self.folder)

    def save(self, result: TrainingResult) -> None:
        """Write the log up to here, then the checkpoint: a log may run ahead of its checkpoint, never behind."""
        if self.folder is None or not self.world.is_main:
            return
        with open(self.folder / LOG, "a", encoding="utf-8") as log:
            log.writelines(line + "\n" for line in self._lines)
            log.flush()
            os.fsync(log.fileno())
        self._lines.clear()
        counters = {k: v for k, v in asdict(result).items() if k not in ("losses", "scores")}
        state = {"options": self._options, "result": counters, "regime": self.regime.state_dict()}
        save_checkpoint(self.folder, result.steps, self.model, self.optimizer, state, also=self.regime.save)

    def start(self) -> TrainingResult:
        """Begin anew: what an earlier run left in the folder goes, so that it is never taken for this one's."""
        if self.folder is not None and self.world.is_main:
            remove_checkpoints(self.folder)
            for name in (LOG, BEST):
                (self.folder / name).unlink(missing_ok=True)
        return TrainingResult()

    def restore(self) -> TrainingResult:
        """Go on from the newest checkpoint, or begin anew where there is none."""
        if self.folder is None:
            raise RivalsError("resuming needs the folder the checkpoints are in")
        found = load_checkpoint(self.folder, self.model, self.optimizer)
        if found is None:
            return self.start()
        state, folder = found
        made_with = state.get("options", {})
        names = sorted(made_with.keys() | self._options.keys())
        other = [name for name in names if made_with.get(name) != self._options.get(name)]
        if set(other) - {"checkpoint_seconds"}:
            raise RunFolderError(
                f"the checkpoint in {self.folder} was made with other training options ({', '.join(other)}); "
                "resume with the same ones"
            )
        self.regime.load_state_dict(state.get("regime", {}))
        self.regime.load(folder)
        result = TrainingResult(**state["result"])
        lines = [line for line in read_log(self.folder) if line["step"] <= result.steps]
        if self.world.is_main:
            with atomic_file(self.folder / LOG) as log:
                log.writelines(json.dumps(line) + "\n" for line in lines)
        result.losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
        result.scores = [(line["step"], line["dev"]) for line in lines if "dev" in line]
        return result

    def leave_best(self, result: TrainingResult) -> None:
        """Put the best weights into the model; without an evaluation the last ones stay."""
        if not result.scores:
            return
        if self._best is None and self.folder is not None:
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                self._best = load_file(self.folder / BEST)
            except (OSError, SafetensorError) as error:
                raise RunFolderError(
                    f"{self.folder / BEST}, the best weights, cannot be read ({error}); train again"
                ) from None
        if self._best is not None:
            restore_weights(self.model, self._best)
