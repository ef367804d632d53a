"""Several tasks at once: how their batches mix, how their losses or gradients are joined, and whether sharing hurt any of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.losses import FixedWeighting, LossWeighting, combine_gradients
from rivals.losses._gradients import flat, unflat
from rivals.losses.combine import GradientCombiner
from rivals.training.loop import Objective

Mixing = Literal["together", "proportional", "temperature", "round-robin"]


class TaskBatch(NamedTuple):
    """One task's batch within a step."""

    task: str
    batch: Any


class MultiTaskObjective:
    """Several objectives that share parameters, trained as one.

    Args:
        model: holds all parameters of all tasks, each once; every task's own `model` is this module or a part of it.
        tasks: the objectives by name. Each keeps its loss, prompts and batch sizes.
        mixing: "together" puts a batch of every task into each step, as many steps as the task with the most batches has (the others
            begin their next epoch early); the others give each step to one task: "proportional" to its number of batches,
            "temperature" to that number to the power 1 / temperature (above 1 favours small tasks, which then repeat), "round-robin" in
            turn until a task's batches are used up.
        weighting: turns the losses of a step into one; learnt weights (`UncertaintyWeighting`) become part of what is trained.
            Default: their plain sum.
        main: the tasks whose mean held-out score chooses the checkpoint; default all.
        temperature: 1 or more. seed: of the order.

    Everything is a function of (seed, epoch), so a run resumes exactly.

    Source: mixing by temperature as in Devlin et al. 2018 (multilingual BERT) and Raffel et al. 2020 (T5), section 3.5.2; weighting by
    papers 65, 107; gradients by paper 66 (`CombinedGradients`); steps that hold all tasks as in paper 43.

    Raises:
        RivalsError: no task, an unknown mixing or main task, a temperature below 1, a task's parameters outside the model.
    """

    def __init__(
        self,
        model: nn.Module,
        tasks: Mapping[str, Objective],
        *,
        mixing: Mixing = "together",
        weighting: LossWeighting | None = None,
        main: Sequence[str] | None = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not tasks:
            raise RivalsError("several tasks need at least one objective, given by name")
        if mixing not in get_args(Mixing):
            raise RivalsError(f"mixing is {mixing!r}; use one of {', '.join(get_args(Mixing))}")
        if not (math.isfinite(temperature) and temperature >= 1):
            raise RivalsError(f"temperature must be a finite number of 1 or more, not {temperature}")
        unknown = [name for name in main or () if name not in tasks]
        if unknown:
            raise RivalsError(f"main names the unknown task {unknown[0]!r}; the tasks are {', '.join(tasks)}")
        held = {id(parameter) for parameter in model.parameters()}
        for name, task in tasks.items():
            if any(id(parameter) not in held for parameter in task.model.parameters()):
                raise RivalsError(
                    f"task {name!r} trains parameters that are not in the model given; put its parts into that model"
                )
        self.tasks, self.mixing, self.temperature, self.seed = dict(tasks), mixing, float(temperature), seed
        self.weighting: LossWeighting = weighting or FixedWeighting(list(tasks))
        self.main = tuple(main or tasks)
        learnt = isinstance(self.weighting, nn.Module) and any(True for _ in self.weighting.parameters())
        self.model = nn.ModuleDict({"model": model, "weighting": self.weighting}) if learnt else model  # type: ignore[dict-item]
        self.options: dict[str, Any] = {
            "tasks": list(tasks),
            "mixing": mixing,
            "temperature": self.temperature,
            "mixing_seed": seed,
        }
        for name, task in tasks.items():
            self.options |= {f"{name}.{key}": value for key, value in getattr(task, "options", {}).items()}
        self.batches = lru_cache(maxsize=2)(self._batches)

    def _batches(self, epoch: int) -> list[tuple[TaskBatch, ...]]:
        counts = {name: len(task.batches(0)) for name, task in self.tasks.items()}
        empty = [name for name, count in counts.items() if not count]
        if empty:
            raise RivalsError(f"task {empty[0]!r} has no batch to train on")
        if self.mixing == "together":
            steps = max(counts.values())
            return [
                tuple(TaskBatch(name, self._batch(name, epoch * steps + step, counts[name])) for name in self.tasks)
                for step in range(steps)
            ]
        order = self._order(counts, epoch)
        used = dict.fromkeys(counts, 0)
        each = {name: order.count(name) for name in counts}
        steps_of: list[tuple[TaskBatch, ...]] = []
        for name in order:
            steps_of.append((TaskBatch(name, self._batch(name, epoch * each[name] + used[name], counts[name])),))
            used[name] += 1
        return steps_of

    def _batch(self, name: str, place: int, count: int) -> Any:
        """Return batch number `place` of a task whose epochs follow one another without end."""
        return self.tasks[name].batches(place // count)[place % count]

    def _order(self, counts: Mapping[str, int], epoch: int) -> list[str]:
        if self.mixing == "round-robin":
            turns = [(turn, place, name) for place, name in enumerate(counts) for turn in range(counts[name])]
            return [name for _, _, name in sorted(turns)]
        shares = counts if self.mixing == "proportional" else _tempered(counts, self.temperature)
        names = np.repeat(np.array(list(shares), dtype=object), list(shares.values()))
        return list(np.random.default_rng([self.seed, 31, epoch]).permutation(names))

    def task_losses(self, batch: Sequence[TaskBatch], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the losses of a step's tasks, unweighted."""
        return {part.task: self.tasks[part.task].loss(part.batch, generator) for part in batch}

    def loss(self, batch: Sequence[TaskBatch], generator: torch.Generator) -> Tensor:
        """Return the weighted loss of a step."""
        return self.weighting(self.task_losses(batch, generator))

    def evaluate_tasks(self) -> dict[str, float]:
        """Return every task's held-out score."""
        return {name: task.evaluate() for name, task in self.tasks.items()}

    def evaluate(self) -> float:
        """Return the mean held-out score of the main tasks."""
        return float(np.mean([self.tasks[name].evaluate() for name in self.main]))


def _tempered(counts: Mapping[str, int], temperature: float) -> dict[str, int]:
    """Return how often each task comes: about as many steps in all, shares by count^(1/T), each at least once.

    >>> _tempered({"large": 90, "small": 10}, 2.0)
    {'large': 75, 'small': 25}
    """
    raised = {name: count ** (1 / temperature) for name, count in counts.items()}
    total, whole = sum(counts.values()), sum(raised.values())
    return {name: max(1, round(total * share / whole)) for name, share in raised.items()}


class CombinedGradients:
    """An executor that joins the tasks' gradients, not their losses, so that none is drowned or opposed by another.

    Args:
        combiner: gradients [tasks, parameters] -> update; `functools.partial(combine_gradients, method="pcgrad")` for another method.
            Default: ConFIG.

    A parameter that one task alone reaches keeps that task's own gradient. Use it with a `MultiTaskObjective` whose mixing is "together".

    Source: Liu et al. 2024, ConFIG, with PCGrad, IMTL-G and MGDA (paper 66).

    Raises:
        RivalsError: an objective without `task_losses`.
    """

    def __init__(self, combiner: GradientCombiner = combine_gradients) -> None:
        self.combiner = combiner

    def backward(self, objective: Any, batch: Any, generator: torch.Generator, scale: float) -> float:
        """See `rivals.training.executor.Executor`."""
        if not hasattr(objective, "task_losses"):
            raise RivalsError(
                f"combining gradients needs the losses of several tasks; {type(objective).__name__} has one loss"
            )
        losses = [loss * scale for loss in objective.task_losses(batch, generator).values()]
        wanted = [p for p in objective.model.parameters() if p.requires_grad]
        found = [
            torch.autograd.grad(loss, wanted, retain_graph=place + 1 < len(losses), allow_unused=True)
            for place, loss in enumerate(losses)
        ]
        columns = list(zip(*found, strict=True))  # one per parameter, one gradient or None per task
        shared = [i for i, column in enumerate(columns) if sum(gradient is not None for gradient in column) > 1]
        joined = {i: next((g for g in column if g is not None), None) for i, column in enumerate(columns)}
        if shared:
            parameters = [wanted[i] for i in shared]
            rows = torch.stack(
                [flat([torch.zeros_like(wanted[i]) if row[i] is None else row[i] for i in shared]) for row in found]
            )
            joined |= dict(zip(shared, unflat(self.combiner(rows), parameters), strict=True))
        for i, parameter in enumerate(wanted):
            gradient = joined[i]
            if gradient is not None:
                parameter.grad = gradient.detach().clone() if parameter.grad is None else parameter.grad + gradient
        return float(torch.stack([loss.detach() for loss in losses]).sum())


# ------------------------------------------------------------------------------------------------ is sharing worth it?


@dataclass(frozen=True)
class TaskGain:
    """What a task gained by sharing: mean over seeds of (together - alone), its 95 % interval, and the mean score alone."""

    task: str
    gain: float
    low: float
    high: float
    alone: float

    @property
    def hurt(self) -> bool:
        """Whether the task is worse together than alone, beyond the noise of the seeds."""
        return self.high < 0

    @property
    def helped(self) -> bool:
        """Whether the task is better together than alone, beyond the noise of the seeds."""
        return self.low > 0


@dataclass(frozen=True)
class SharingReport:
    """Each task together against alone; prints as a table.

    `mean_relative_gain` is the mean over tasks of (together - alone) / |alone|, the usual summary of multi-task learning.
    """

    tasks: tuple[TaskGain, ...]
    mean_relative_gain: float
    seeds: int

    @property
    def safe(self) -> bool:
        """Whether no task is hurt beyond the noise of the seeds."""
        return not any(task.hurt for task in self.tasks)

    def __str__(self) -> str:
        width = max(len("task"), *(len(task.task) for task in self.tasks))
        lines = [f"{'task':<{width}}   alone   together - alone (95 % interval over {self.seeds} seeds)"]
        for task in self.tasks:
            said = "hurt" if task.hurt else "helped" if task.helped else "cannot be told apart"
            lines.append(
                f"{task.task:<{width}}  {task.alone:6.3f}   {task.gain:+.3f} [{task.low:+.3f}, {task.high:+.3f}]  {said}"
            )
        lines.append(
            f"mean relative gain {self.mean_relative_gain:+.1%}; {'no task is hurt' if self.safe else 'sharing hurts'}"
        )
        return "\n".join(lines)


def sharing_report(
    together: Mapping[str, Sequence[float]],
    alone: Mapping[str, Sequence[float]],
    *,
    higher_is_better: bool | Mapping[str, bool] = True,
    tolerance: float = 0.0,
) -> SharingReport:
    """Compare each task's held-out scores trained together with those trained alone, seed by seed.

    Args:
        together, alone: scores by task, one per seed, the same seeds in the same order; at least 2.
        higher_is_better: for all tasks, or by task.
        tolerance: how much worse a task may be before it counts as hurt; it is added to every gain.

    Alone must have had the same budget and tuning as together, or the comparison says nothing.

    Source: safe sharing as in paper 94; intervals are Student's over the paired seeds.

    Raises:
        RivalsError: other tasks on the two sides, different numbers of seeds or fewer than 2, scores that are not finite.

    >>> report = sharing_report({"a": [.8, .82, .81], "b": [.5, .51, .52]}, {"a": [.7, .71, .72], "b": [.6, .61, .63]})
    >>> [task.task for task in report.tasks if task.hurt], report.safe
    (['b'], False)
    """
    if together.keys() != alone.keys() or not together:
        raise RivalsError(
            f"together has the tasks {', '.join(together) or 'none'}, alone {', '.join(alone) or 'none'}; give the same"
        )
    seeds = {len(scores) for side in (together, alone) for scores in side.values()}
    if len(seeds) != 1 or min(seeds) < 2:
        raise RivalsError(f"every task needs the same number of seeds on both sides, at least 2; got {sorted(seeds)}")
    gains, relative = [], []
    for task in together:
        after, before = np.asarray(together[task], float), np.asarray(alone[task], float)
        if not (np.isfinite(after).all() and np.isfinite(before).all()):
            raise RivalsError(f"task {task!r} has a score that is not finite")
        better = higher_is_better if isinstance(higher_is_better, bool) else higher_is_better[task]
        difference = (after - before) * (1 if better else -1)
        half = float(stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / math.sqrt(len(difference)))
        mean = float(difference.mean())
        gains.append(TaskGain(task, mean, mean - half + tolerance, mean + half + tolerance, float(before.mean())))
        relative.append(mean / max(abs(float(before.mean())), 1e-12))
    return SharingReport(tuple(gains), float(np.mean(relative)), min(seeds))
