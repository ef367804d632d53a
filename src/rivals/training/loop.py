"""The training loop: steps of an objective, warm-up and decay, evaluation, the best weights, checkpoint and resume.

Everything random in step `n` comes from a generator seeded with (seed, n), so a run that was killed and resumed takes the same steps
as one that was not, and ends with the same weights, bit for bit, on the same machine and number of threads.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError, RunFolderError
from rivals.files import atomic_file, sync_file, sync_folder
from rivals.progress import progress
from rivals.training.checkpoint import (
    load_checkpoint,
    remove_checkpoints,
    restore_weights,
    save_checkpoint,
    trainable_state,
)
from rivals.training.distributed import World, sum_gradients

LOG, BEST = "log.jsonl", "best.safetensors"


class Objective(Protocol):
    """What is trained and how: batches, their loss, and a score on held-out data.

    It may have `options`, JSON values by name: a run resumes only under the same ones.
    """

    @property
    def model(self) -> nn.Module:
        """The model, trained in place."""
        ...

    def batches(self, epoch: int) -> Sequence[Any]:
        """Return the batches of an epoch, the same at every call."""
        ...

    def loss(self, batch: Any, generator: torch.Generator) -> Tensor:
        """Return the scalar loss of a batch; draw nothing but from `generator` (and dropout)."""
        ...

    def evaluate(self) -> float:
        """Return the held-out score of the present weights, higher is better."""
        ...


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to train.

    Args:
        epochs: passes over the batches.
        max_steps: stop after this many steps, with the schedule fitted to it; 0 = no limit.
        learning_rate: peak of AdamW's rate, reached after `warmup` (share of all steps), falling linearly to 0.
        weight_decay: AdamW's, on matrices only (biases and norms are left free).
        accumulate: batches summed into one step.
        clip: largest gradient norm.
        evaluations: how often the held-out score is taken, at equal distances, the last at the end; 0 = never.
        patience: stop after this many evaluations without a new best; 0 = never.
        checkpoint_seconds: time between checkpoints.
        precision: "auto" (bfloat16 where it pays), "bfloat16" or "float32".
        seed: of every random draw.
    """

    epochs: int = 1
    max_steps: int = 0
    learning_rate: float = 5e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    accumulate: int = 1
    clip: float = 1.0
    evaluations: int = 2
    patience: int = 0
    checkpoint_seconds: float = 30.0
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1,
            "max_steps": self.max_steps >= 0,
            "learning_rate": self.learning_rate > 0,
            "warmup": 0 <= self.warmup < 1,
            "weight_decay": self.weight_decay >= 0,
            "accumulate": self.accumulate >= 1,
            "clip": self.clip > 0,
            "evaluations": self.evaluations >= 0,
            "patience": self.patience >= 0,
            "checkpoint_seconds": self.checkpoint_seconds >= 0,
            "precision": self.precision in ("auto", "bfloat16", "float32"),
            "seed": self.seed >= 0,
        }
        for name, fine in checks.items():
            if not fine:
                raise RivalsError(f"training option {name}={getattr(self, name)!r} is out of range; see LoopConfig")


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


def fit(
    objective: Objective,
    config: LoopConfig,
    *,
    folder: Path | None = None,
    resume: bool = False,
    world: World = World(),  # noqa: B008 - frozen
    description: str = "Training",
) -> TrainingResult:
    """Train `objective.model` in place and leave the best weights in it.

    Args:
        folder: where checkpoints, `log.jsonl` and the best weights go; None keeps everything in memory.
        resume: go on from the newest checkpoint in `folder`, if there is one; without it, what an earlier run left there is removed.

    Raises:
        RivalsError: a loss or gradient that is not finite (the last checkpoint stays as it was), no batch to train on, or a
            checkpoint made with other options.
    """
    model = objective.model
    per_epoch = math.ceil(len(objective.batches(0)) / config.accumulate)
    total = min(per_epoch * config.epochs, config.max_steps or per_epoch * config.epochs)
    if total == 0:
        raise RivalsError("there is nothing to train on: no query has a positive document")
    optimizer = make_optimizer(model, config)
    evaluate_at = {math.ceil(total * (i + 1) / config.evaluations) for i in range(config.evaluations)}
    options = {**asdict(config), "steps_per_epoch": per_epoch, **getattr(objective, "options", {})}
    keeper = _Keeper(model, optimizer, folder, options, world)
    result = keeper.restore() if resume else keeper.start()
    started = last_saved = time.monotonic()
    spent_before = result.seconds
    model.train()
    with progress(description, total, show=world.is_main) as advance:
        advance(result.steps)
        for step in range(result.steps, total):
            if result.stopped_early:
                break
            loss = _step(objective, optimizer, config, step, per_epoch, total, world)
            result.steps = step + 1
            result.losses.append((step + 1, loss))
            note = f"loss {loss:.3f}"
            keeper.log({"step": step + 1, "loss": loss, "learning_rate": _rate(config, step, total)})
            if step + 1 in evaluate_at:
                _evaluate(objective, result, config, keeper, world)
                note += f", dev {result.scores[-1][1]:.4f}"
            result.seconds = spent_before + time.monotonic() - started
            if folder is not None and (
                time.monotonic() - last_saved >= config.checkpoint_seconds
                or step + 1 in evaluate_at
                or step + 1 == total
            ):
                keeper.save(result)
                last_saved = time.monotonic()
            advance(1, note)
    keeper.leave_best(result)
    model.eval()
    return result


def make_optimizer(model: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """Return AdamW over the trainable parameters; matrices decay, vectors do not."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in wanted if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in wanted if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.learning_rate, fused=True)


def _rate(config: LoopConfig, step: int, total: int) -> float:
    """Return the learning rate of step `step`: linear warm-up, then linear decay to 0 after the last step."""
    warm = config.warmup * total
    share = min(1.0, (step + 1) / warm) if warm >= 1 else 1.0
    return config.learning_rate * min(share, (total - step) / max(total - warm, 1.0))


def _step(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    config: LoopConfig,
    step: int,
    per_epoch: int,
    total: int,
    world: World,
) -> float:
    """Take one optimiser step and return the mean loss of its batches."""
    epoch, place = divmod(step, per_epoch)
    batches = objective.batches(epoch)[place * config.accumulate : (place + 1) * config.accumulate]
    for group in optimizer.param_groups:
        group["lr"] = _rate(config, step, total)
    optimizer.zero_grad(set_to_none=True)
    total_loss = 0.0
    for i, batch in enumerate(batches):
        seed = (config.seed * 1_000_003 + step) * 64 + i
        torch.manual_seed(seed * world.size + world.rank)
        generator = torch.Generator().manual_seed(seed)
        loss = objective.loss(batch, generator) / len(batches)
        loss.backward()
        total_loss += float(loss.detach())
    parameters = [p for p in objective.model.parameters() if p.requires_grad]
    sum_gradients(parameters, world)
    total_loss = _sum_over(total_loss, world)
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.clip))
    for name, value in (("loss", total_loss), ("norm of the gradients", norm)):
        if not math.isfinite(value):
            raise RivalsError(
                f"the {name} became {value} at step {step + 1}; lower the learning rate or look at the data. "
                "The last checkpoint is intact"
            )
    optimizer.step()
    return total_loss


def _sum_over(value: float, world: World) -> float:
    if world.size == 1:
        return value
    import torch.distributed as dist

    box = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(box)
    return float(box)


def _evaluate(objective: Objective, result: TrainingResult, config: LoopConfig, keeper: _Keeper, world: World) -> None:
    objective.model.eval()
    score = world.broadcast(objective.evaluate())  # one score for all, so that all stop together
    objective.model.train()
    result.scores.append((result.steps, score))
    keeper.log({"step": result.steps, "dev": score})
    if not result.best_score >= score:  # also true while the best is NaN
        result.best_step, result.best_score = result.steps, score
        keeper.keep_best()
    evaluations_since = sum(1 for step, _ in result.scores if step > result.best_step)
    result.stopped_early = 0 < config.patience <= evaluations_since


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


class _Keeper:
    """Where a run's state lives: in a folder, or in memory when there is none."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        folder: Path | None,
        options: dict[str, Any],
        world: World,
    ) -> None:
        self.model, self.optimizer, self.folder, self.world = model, optimizer, folder, world
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
        save_checkpoint(
            self.folder, result.steps, self.model, self.optimizer, {"options": self._options, "result": counters}
        )

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
        state = load_checkpoint(self.folder, self.model, self.optimizer)
        if state is None:
            return self.start()
        made_with = state.get("options", {})
        names = sorted(made_with.keys() | self._options.keys())
        other = [name for name in names if made_with.get(name) != self._options.get(name)]
        if set(other) - {"checkpoint_seconds"}:
            raise RunFolderError(
                f"the checkpoint in {self.folder} was made with other training options ({', '.join(other)}); "
                "resume with the same ones"
            )
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
