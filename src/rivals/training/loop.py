"""The training loop: steps of an objective, warm-up and decay, evaluation, the best weights, checkpoint and resume.

Everything random in step `n` comes from a generator seeded with (seed, n), so a run that was killed and resumed takes the same steps
as one that was not, and ends with the same weights, bit for bit, on the same machine and number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.progress import progress
from rivals.training.distributed import World, sum_gradients
from rivals.training.executor import Executor, Plain
from rivals.training.faults import explained, refresh_explained
from rivals.training.keeper import BEST, LOG, Keeper, TrainingResult, read_log
from rivals.training.regime import Regime

__all__ = ["BEST", "LOG", "LoopConfig", "Objective", "TrainingResult", "fit", "make_optimizer", "read_log"]


class Objective(Protocol):
    """What is trained and how: batches, their loss, and a score on held-out data.

    It may have `options`, JSON values by name: a run resumes only under the same ones; `rates`, factors on the learning rate by
    the beginning of parameters' names, for parts that should learn slower or faster than the rest; and `clips_apart`, beginnings of
    names whose gradients are clipped by themselves, as those of several models under one objective should be.
    """

    @property
    def model(self) -> nn.Module:
        """The model, trained in place."""
        ...

    def batches(self, epoch: int) -> Sequence[Any]:
        """Return the batches of an epoch: the same at every call, and as many whatever a regime refreshed."""
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


def fit(
    objective: Objective,
    config: LoopConfig,
    *,
    folder: Path | None = None,
    resume: bool = False,
    world: World = World(),  # noqa: B008 - frozen
    executor: Executor | None = None,
    regime: Regime | None = None,
    until: int | None = None,
    description: str = "Training",
) -> TrainingResult:
    """Train `objective.model` in place and leave the best weights in it.

    Args:
        executor: how a batch's gradient is made: `Plain()` (the default) or `CachedGradients()`, equal up to rounding.
        regime: what trains when, and what is refreshed when; None = everything, nothing.
        folder: where checkpoints, `log.jsonl` and the best weights go; None keeps everything in memory.
        resume: go on from the newest checkpoint in `folder`, if there is one; without it, what an earlier run left there is removed.
        until: pause after this step, with a checkpoint; the schedule stays that of the whole, and `resume` goes on. None = to the end.

    Raises:
        RivalsError: a loss or gradient that is not finite, a full disk, no memory left (each time the last checkpoint stays as
            it was, and the message names it), no batch to train on, or a checkpoint made with other options.
    """
    model, executor, regime = objective.model, executor or Plain(), regime or Regime()
    if world.size > 1 and not hasattr(objective, "world"):
        raise RivalsError(
            f"{type(objective).__name__} does not share its batches among {world.size} processes, so their gradients would add up "
            "to several times the right one; train it in one process"
        )
    per_epoch = math.ceil(len(objective.batches(0)) / config.accumulate)
    total = min(per_epoch * config.epochs, config.max_steps or per_epoch * config.epochs)
    if total == 0:
        raise RivalsError("there is nothing to train on: no query has a positive document")
    optimizer = make_optimizer(model, config, getattr(objective, "rates", {}))
    if until is not None and until < 1:
        raise RivalsError(f"until must be a step of 1 or more to pause after, not {until}")
    last = total if until is None else min(until, total)
    evaluate_at = {math.ceil(total * (i + 1) / config.evaluations) for i in range(config.evaluations)}
    options = {**asdict(config), "steps_per_epoch": per_epoch, **getattr(objective, "options", {})}
    keeper = Keeper(model, optimizer, folder, options, world, regime)
    result = keeper.restore() if resume else keeper.start()
    started = last_saved = time.monotonic()
    spent_before = result.seconds
    model.train()
    with progress(description, last, show=world.is_main) as advance:
        advance(result.steps)
        for step in range(result.steps, last):
            if result.stopped_early:
                break
            with explained(step + 1, folder):
                regime.begin(step, total)
                if regime.should_refresh(step):
                    with refresh_explained(step + 1, folder):
                        _refresh(regime, model, step, keeper)
                rate = _rate(config, *regime.clock(step, total)) * regime.rate(step)
                loss = _step(objective, optimizer, config, step, per_epoch, rate, world, executor, regime)
                result.steps = step + 1
                result.losses.append((step + 1, loss))
                regime.on_step(step, {"loss": loss})
                phase = regime.phase(step)
                note = f"{phase} loss {loss:.3f}" if phase else f"loss {loss:.3f}"
                keeper.log(
                    {"step": step + 1, "loss": loss, "learning_rate": rate, **({"phase": phase} if phase else {})}
                )
                if step + 1 in evaluate_at:
                    _evaluate(objective, result, config, keeper, world)
                    note += f", dev {result.scores[-1][1]:.4f}"
                result.seconds = spent_before + time.monotonic() - started
                if folder is not None and (
                    time.monotonic() - last_saved >= config.checkpoint_seconds
                    or step + 1 in evaluate_at
                    or step + 1 == last
                ):
                    keeper.save(result)
                    last_saved = time.monotonic()
            advance(1, note)
    keeper.leave_best(result)
    model.eval()
    return result


def make_optimizer(
    model: nn.Module, config: LoopConfig, rates: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """Return AdamW over the trainable parameters; matrices decay, vectors do not; `rates` are factors by beginning of name."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            fitting = [prefix for prefix in rates or {} if name.startswith(prefix)]
            factor = (rates or {})[max(fitting, key=len)] if fitting else 1.0
            groups.setdefault((factor, config.weight_decay if parameter.ndim >= 2 else 0.0), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: (-item[0][0], -item[0][1]))
    described = [{"params": found, "weight_decay": decay, "factor": factor} for (factor, decay), found in ordered]
    return torch.optim.AdamW(described, lr=config.learning_rate, fused=True)


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
    rate: float,
    world: World,
    executor: Executor,
    regime: Regime,
) -> float:
    """Take one optimiser step and return the mean loss of its batches."""
    epoch, place = divmod(step, per_epoch)
    batches = objective.batches(epoch)[place * config.accumulate : (place + 1) * config.accumulate]
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    optimizer.zero_grad(set_to_none=True)
    total_loss = 0.0
    for i, batch in enumerate(batches):
        seed = (config.seed * 1_000_003 + step) * 64 + i
        torch.manual_seed(seed * world.size + world.rank)
        generator = torch.Generator().manual_seed(seed)
        total_loss += executor.backward(objective, batch, generator, 1 / len(batches))
    parameters: dict[str, nn.Parameter] = {}
    for name, parameter in objective.model.named_parameters():
        if parameter.requires_grad and regime.trains(name, step):
            parameters[name] = parameter
        else:
            parameter.grad = None
    if not parameters:
        raise RivalsError(f"no parameter learns at step {step + 1}; check the names that the regime's phases train")
    sum_gradients(parameters.values(), world)
    total_loss = _sum_over(total_loss, world)
    norm = _clip(parameters, config.clip, getattr(objective, "clips_apart", ()))
    for name, value in (("loss", total_loss), ("norm of the gradients", norm)):
        if not math.isfinite(value):
            raise RivalsError(
                f"the {name} became {value} at step {step + 1}; lower the learning rate or look at the data. "
                "The last checkpoint is intact"
            )
    optimizer.step()
    return total_loss


def _clip(parameters: Mapping[str, nn.Parameter], largest: float, apart: Sequence[str]) -> float:
    """Clip the gradients' norm, of each part in `apart` (beginnings of names) and of the rest by itself; return the largest."""
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        parts.setdefault(next((part for part in apart if name.startswith(part)), ""), []).append(parameter)
    norms = [float(torch.nn.utils.clip_grad_norm_(part, largest)) for part in parts.values()]
    return sum(norms) if any(map(math.isnan, norms)) else max(norms)


def _refresh(regime: Regime, model: nn.Module, step: int, keeper: Keeper) -> None:
    """Let the regime make anew what is due before `step`, without gradients and dropout, and log what it cost."""
    started, training = time.monotonic(), model.training
    model.eval()
    with torch.no_grad():
        found = dict(regime.refresh(step))
    model.train(training)
    keeper.log({"step": step + 1, "refresh": found, "seconds": round(time.monotonic() - started, 3)})


def _sum_over(value: float, world: World) -> float:
    if world.size == 1:
        return value
    import torch.distributed as dist

    box = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(box)
    return float(box)


def _evaluate(objective: Objective, result: TrainingResult, config: LoopConfig, keeper: Keeper, world: World) -> None:
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
