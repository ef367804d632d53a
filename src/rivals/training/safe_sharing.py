"""Training a `SafeSharing` model: everything together, or each task alone first, then what is shared, then the gates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.models.safe_sharing import Path as SharingPath
from rivals.models.safe_sharing import SafeSharing
from rivals.training.executor import Executor
from rivals.training.loop import LoopConfig, Objective, TrainingResult, fit
from rivals.training.multi_task import MultiTaskObjective, TaskBatch
from rivals.training.schedules import Stage, Stages

_PATHS: dict[str, SharingPath] = {"alone": "private", "shared": "public", "gates": "mixed"}


class _Staged(MultiTaskObjective):
    """All tasks in every step, through the path of the present stage; gates learn faster than the rest."""

    def __init__(
        self, model: SafeSharing, tasks: Mapping[str, Objective], stages: Stages | None, rate: float, seed: int
    ) -> None:
        super().__init__(model, tasks, seed=seed)
        self.sharing, self.stages, self.rates = model, stages, {"gate_": rate}

    def task_losses(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        path: SharingPath = "mixed" if self.stages is None else _PATHS[self.stages.current]
        with self.sharing.through(path):
            return super().task_losses(cast("list[TaskBatch]", batch), generator)


def fit_safe(
    model: SafeSharing,
    tasks: Mapping[str, Objective],
    config: LoopConfig,
    *,
    strategy: Literal["joint", "individual"] = "joint",
    steps: tuple[int, int] | None = None,
    gate_rate: float = 10.0,
    folder: Path | None = None,
    resume: bool = False,
    executor: Executor | None = None,
) -> TrainingResult:
    """Train a model that shares safely.

    Args:
        tasks: each task's objective; its model is `model.view(task)`.
        strategy: "joint" trains encoders, decoders and gates together. "individual" first trains every task alone, then the public
            path as in ordinary sharing, then the gates with the rest frozen. Hard gates are not trained then but chosen: a task takes
            the public path only if its objective's `evaluate` is better there, so no task ends below its own model by that score.
        steps: of the first two stages of "individual", in steps of `config`; what is left is for the gates (hard gates: nothing is
            left, the second stage takes all). Default: a third each (hard gates: half each).
        gate_rate: the gates' learning rate over that of the rest.
        folder, resume, executor: as in `fit`; all stages are one run and resume as one.

    At level "hidden" the decoders stay those of the first stage while the public encoder is trained behind them.

    Source: Yue et al. (2021), paper 94: JL and IL.

    Raises:
        RivalsError: tasks other than the model's, stages that leave nothing for the next, evaluations in "individual" (the best
            weights of one stage would undo the others), soft gates at level "hidden" in "individual", where two encoders that were
            trained apart would be averaged.
    """
    if tasks.keys() != set(model.tasks):
        raise RivalsError(f"the model has the tasks {list(model.tasks)}, objectives were given for {list(tasks)}")
    if strategy not in ("joint", "individual"):
        raise RivalsError(f"strategy is {strategy!r}; use 'joint' or 'individual'")
    if strategy == "joint":
        objective = _Staged(model, tasks, None, gate_rate, config.seed)
        return fit(objective, config, folder=folder, resume=resume, executor=executor, description="Sharing safely")
    hard = model.gate == "hard"
    if config.evaluations:
        raise RivalsError(
            "the stages of 'individual' build on one another, so the last weights are kept; set evaluations to 0"
        )
    if model.level == "hidden" and not hard:
        raise RivalsError(
            "encoders trained apart cannot be averaged: use level='output' or gate='hard' for 'individual'"
        )
    per_epoch = max(len(task.batches(0)) for task in tasks.values())
    per_epoch = -(-per_epoch // config.accumulate)
    total = min(per_epoch * config.epochs, config.max_steps or per_epoch * config.epochs)
    first, second = steps or ((total // 2, total - total // 2) if hard else (total // 3, total // 3))
    if min(first, second) < 1 or first + second > total - (not hard) or (hard and first >= total):
        raise RivalsError(
            f"{total} steps cannot hold stages of {first} and {second} steps and one for the gates; train longer"
        )
    last = [] if hard else [Stage("gates", trains=["gate_"])]
    stages = Stages(
        [
            Stage("alone", first, trains=["private.", "decoders."]),
            Stage("shared", None if hard else second, trains=["public.", "public_decoders."]),
            *last,
        ]
    )
    objective = _Staged(model, tasks, stages, gate_rate, config.seed)
    result = fit(
        objective,
        config,
        folder=folder,
        resume=resume,
        executor=executor,
        regime=stages,
        description="Sharing safely",
    )
    if hard:
        choose_gates(model, tasks)
    return result


def choose_gates(model: SafeSharing, tasks: Mapping[str, Objective], *, margin: float = 0.0) -> dict[str, bool]:
    """Set each task's gate to the path with the better `evaluate`, the private one unless the public is better by `margin`.

    Use held-out rows in `evaluate`: on training rows the private path has the advantage of its capacity.

    Source: paper 94's fall-back to the single-task model. Returns which tasks share.
    """
    shares = {}
    training = model.training
    model.eval()
    for name in model.tasks:
        scores = {}
        for path in _PATHS.values():
            if path == "mixed":
                continue
            with model.through(path):
                scores[path] = tasks[name].evaluate()
        shares[name] = scores["public"] > scores["private"] + margin
    model.set_gates({name: 0.999 if share else 0.001 for name, share in shares.items()})
    model.train(training)
    return shares


__all__ = ["choose_gates", "fit_safe"]
