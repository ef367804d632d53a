"""Training by forking and merging: branches over other mixtures of tasks, merged now and then as validation says (ForkMerge)."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from rivals.errors import RivalsError, RunFolderError
from rivals.files import atomic_file
from rivals.training.branch_merging import ALPHAS, branch_weights, greedy_merge, grid_merge
from rivals.training.checkpoint import newest_step, restore_weights, trainable_state
from rivals.training.executor import Executor
from rivals.training.loop import LoopConfig, Objective, fit
from rivals.training.multi_task import MultiTaskObjective
from rivals.training.regime import Regime

_OPTIONS = "fork_merge.json"


class TaskMixture(MultiTaskObjective):
    """Several tasks, one a step, in given shares: each epoch has `steps` steps, shared out in a new order.

    Args:
        model, main, seed: as in `MultiTaskObjective`. tasks: the objectives by name; those without a share are left out.
        shares: by task, 0 or more; divided by their sum. steps: of an epoch; a task with fewer batches repeats them.

    Source: the branches of Jiang et al. (2023), ForkMerge (paper 58). There the task of each step is drawn by itself; here its share
    of an epoch is exact.

    Raises:
        RivalsError: as `MultiTaskObjective`; shares that are negative, not finite, all 0 or of unknown tasks, fewer steps than would
            give each task one.
    """

    def __init__(
        self,
        model: nn.Module,
        tasks: Mapping[str, Objective],
        shares: Mapping[str, float],
        *,
        steps: int,
        main: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        unknown = [name for name in shares if name not in tasks]
        if unknown:
            raise RivalsError(f"shares name the unknown task {unknown[0]!r}; the tasks are {', '.join(tasks)}")
        if not all(math.isfinite(share) and share >= 0 for share in shares.values()) or not any(shares.values()):
            raise RivalsError(f"shares must be 0 or more and one of them above 0, not {dict(shares)}")
        used = {name: shares[name] for name in tasks if shares.get(name)}
        self.counts = _parts(used, steps)
        super().__init__(model, {name: tasks[name] for name in used}, mixing="proportional", main=main, seed=seed)
        self.options = {**self.options, "counts": self.counts}

    def _order(self, counts: Mapping[str, int], epoch: int) -> list[str]:
        names = [name for name, count in self.counts.items() for _ in range(count)]
        return [names[i] for i in np.random.default_rng([self.seed, 47, epoch]).permutation(len(names))]


def _parts(shares: Mapping[str, float], steps: int) -> dict[str, int]:
    """Return whole numbers that add up to `steps`, by the largest remainders.

    >>> _parts({"target": .5, "a": .25, "b": .25}, 7)
    {'target': 3, 'a': 2, 'b': 2}
    """
    exact = np.array(list(shares.values())) / math.fsum(shares.values()) * steps
    parts = np.floor(exact + 1e-9).astype(np.int64)
    parts[np.argsort(parts - exact, kind="stable")[: steps - int(parts.sum())]] += 1
    if parts.min() < 1:
        raise RivalsError(f"{steps} steps are too few for the shares {dict(shares)}: a task would never be trained")
    return dict(zip(shares, parts.tolist(), strict=True))


def task_mixtures(
    model: nn.Module,
    tasks: Mapping[str, Objective],
    *,
    targets: Sequence[str],
    auxiliaries: Sequence[str],
    top_k: Sequence[int] | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> dict[str, TaskMixture]:
    """Return the branches of a fork, by name "top 0", "top 3", ...: the targets with the k best auxiliaries each.

    Args:
        auxiliaries: best first, see `rank_auxiliaries`. top_k: numbers of auxiliaries; default none and all. The branch of the targets
            alone (0) is always there. steps: of an epoch; default the largest number of batches of a task.

    Source: Jiang et al. (2023), ForkMerge (paper 58); shares are those of `branch_weights`.

    Raises:
        RivalsError: as `branch_weights` and `TaskMixture`; a target or auxiliary that is no task.
    """
    unknown = [name for name in [*targets, *auxiliaries] if name not in tasks]
    if unknown:
        raise RivalsError(f"there is no task {unknown[0]!r}; the tasks are {', '.join(tasks)}")
    steps = steps or max(len(tasks[name].batches(0)) for name in [*targets, *auxiliaries])
    sizes = sorted({0, *((len(auxiliaries),) if top_k is None else top_k)})
    return {
        f"top {k}": TaskMixture(
            model, tasks, branch_weights(targets, auxiliaries, k), steps=steps, main=targets, seed=seed
        )
        for k in sizes
    }


def rank_auxiliaries(
    model: nn.Module,
    tasks: Mapping[str, Objective],
    config: LoopConfig,
    *,
    targets: Sequence[str],
    steps: int | None = None,
    executor: Executor | None = None,
) -> dict[str, float]:
    """Train the targets with each other task alone, from the same weights; return the best target scores, the best task first.

    The model is left as it was. Which epochs are spent on it is `config`'s matter; one is usual.

    Source: the pruning of Jiang et al. (2023), ForkMerge (paper 58: 1 epoch, 10 for scenes).

    Raises:
        RivalsError: a config without evaluations; as `task_mixtures`.
    """
    if not config.evaluations:
        raise RivalsError("auxiliaries are ranked by the held-out score of the targets; set evaluations to 1 or more")
    start, scores = trainable_state(model), {}
    for name in (name for name in tasks if name not in targets):
        try:
            branches = task_mixtures(model, tasks, targets=targets, auxiliaries=[name], steps=steps, seed=config.seed)
            scores[name] = fit(
                branches["top 1"], config, executor=executor, description=f"Targets with {name}"
            ).best_score
        finally:
            restore_weights(model, start)
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class Merge:
    """One merge: after which step, each branch's coefficient and score, the score of the merge, evaluations, and seconds spent."""

    step: int
    coefficients: dict[str, float]
    scores: dict[str, float]
    score: float
    evaluations: int
    training_seconds: float
    merging_seconds: float


class _Fork(Regime):
    """Starts a branch's period from the merged weights; the optimiser goes on with its own moments."""

    def __init__(self, model: nn.Module, step: int, weights: Mapping[str, Tensor]) -> None:
        self.model, self.step, self.weights = model, step, weights

    def should_refresh(self, step: int) -> bool:
        return step == self.step

    def refresh(self, step: int) -> Mapping[str, Any]:
        restore_weights(self.model, self.weights)
        return {"forked": True}


def fork_merge(
    branches: Mapping[str, Objective],
    config: LoopConfig,
    *,
    merges: int,
    validate: Callable[[], float] | None = None,
    search: Literal["greedy", "grid"] = "greedy",
    alphas: Sequence[float] = ALPHAS,
    keep: Literal["best", "last"] = "best",
    exclude: Sequence[str] = (),
    folder: Path | None = None,
    resume: bool = False,
    executor: Executor | None = None,
) -> list[Merge]:
    """Train branches of one model by turns and merge their weights by validation, several times; leave the last merge in the model.

    In each of `merges` equal periods every branch starts from the merged weights, trains through `fit` with its own optimiser and
    schedule (whose state goes on from its period before), and gives its weights to the search. A mixture that harms the targets gets
    coefficient 0, so the cost of an auxiliary that does not help is time, not quality on the validation data.

    Args:
        branches: objectives over one model, as many steps each; the first (the targets alone) has the score that counts. `task_mixtures`
            makes them.
        config: of every branch, for its whole length. merges: how often branches are merged, the last time at the end.
        validate: score of the model's present weights on validation data, higher is better; default: the first branch's `evaluate`.
            It is fitted to, so report on other data.
        keep: "best" gives the search a branch's best weights of all evaluations so far, "last" those at the end of the period.
        search, alphas, exclude: see `greedy_merge`, `grid_merge` and `weighted_average`.
        folder: for checkpoints of the branches, merges and a record of each; None uses one that is removed at the end.
        resume: go on where a run in `folder` broke off; it ends with the weights of one that did not.

    Cost: as many trainings as branches, and up to 1 + (branches - 1) * alphas evaluations a merge. Each `Merge` tells what was spent.

    Source: Jiang et al. (2023), ForkMerge: mitigating negative transfer in auxiliary-task learning (paper 58).

    Raises:
        RivalsError: no branch, branches of several models or lengths, merges below 1 or more than steps, an early stop, evaluations
            that are no multiple of `merges` with keep="best", a score that is NaN, a folder of other options.
    """
    model = _checked(branches, config, merges, search, keep)
    if folder is None:
        if resume:
            raise RivalsError("resuming needs the folder the branches are in")
        with tempfile.TemporaryDirectory(prefix="fork_merge.") as made:
            given = {"validate": validate, "search": search, "alphas": alphas, "keep": keep, "exclude": exclude}
            return fork_merge(branches, config, merges=merges, folder=Path(made), executor=executor, **given)  # type: ignore[arg-type]
    if keep == "last":
        config = replace(config, evaluations=0)
    options = {"branches": list(branches), "merges": merges, "search": search, "alphas": list(alphas), "keep": keep}
    done, weights = _begin(folder, options | {"exclude": list(exclude)}, model, resume)
    score = validate or next(iter(branches.values())).evaluate
    total = _steps(next(iter(branches.values())), config)
    bounds = [math.ceil(total * period / merges) for period in range(merges + 1)]

    def scored(state: Mapping[str, Tensor]) -> float:
        restore_weights(model, state)
        model.eval()
        return float(score())

    for period in range(len(done), merges):
        states, seconds = {}, 0.0
        for number, (name, branch) in enumerate(branches.items()):
            started, own = time.monotonic(), folder / f"branch-{number}"
            _check_place(own, name, bounds[period], bounds[period + 1])
            fit(
                branch,
                config,
                folder=own,
                resume=True,
                until=bounds[period + 1],
                executor=executor,
                regime=_Fork(model, bounds[period], weights),
                description=f"Branch {name}, period {period + 1} of {merges}",
            )
            seconds += time.monotonic() - started
            states[name] = trainable_state(model)
        started = time.monotonic()
        scores = {name: scored(state) for name, state in states.items()}
        find = greedy_merge if search == "greedy" else grid_merge
        merged = find(list(states.values()), list(scores.values()), scored, alphas=alphas, exclude=exclude)
        weights = merged.state
        done.append(
            Merge(
                bounds[period + 1],
                dict(zip(branches, merged.coefficients, strict=True)),
                scores,
                merged.score,
                merged.evaluations + len(scores),
                round(seconds, 3),
                round(time.monotonic() - started, 3),
            )
        )
        _write(folder, len(done), weights, asdict(done[-1]))
    restore_weights(model, weights)
    model.eval()
    return done


def _checked(branches: Mapping[str, Objective], config: LoopConfig, merges: int, search: str, keep: str) -> nn.Module:
    if not branches:
        raise RivalsError("there is no branch to train")
    model = next(iter(branches.values())).model
    steps = {name: _steps(branch, config) for name, branch in branches.items()}
    other = [name for name, branch in branches.items() if branch.model is not model]
    if other:
        raise RivalsError(f"branch {other[0]!r} trains another model; all branches must be over one")
    if len(set(steps.values())) > 1:
        raise RivalsError(f"every branch must take as many steps; got {steps}")
    if not 1 <= merges <= min(steps.values()):
        raise RivalsError(f"merges must lie in 1..{min(steps.values())}, the number of steps; got {merges}")
    if search not in ("greedy", "grid") or keep not in ("best", "last"):
        raise RivalsError(f"search is 'greedy' or 'grid' and keep is 'best' or 'last'; got {search!r} and {keep!r}")
    if config.patience:
        raise RivalsError("a branch cannot stop early, it is merged with the others; set patience to 0")
    if keep == "best" and (config.evaluations == 0 or config.evaluations % merges):
        raise RivalsError(
            f"keep='best' needs evaluations that are a multiple of merges ({merges}), so that each period ends with one; "
            f"got {config.evaluations}. Or use keep='last'"
        )
    return model


def _steps(branch: Objective, config: LoopConfig) -> int:
    steps = math.ceil(len(branch.batches(0)) / config.accumulate) * config.epochs
    return min(steps, config.max_steps or steps)


def _check_place(folder: Path, name: str, begin: int, end: int) -> None:
    """Raise a RunFolderError unless the branch's checkpoint lies in the period: without it the branch would begin anew, unseen."""
    step = newest_step(folder) or 0
    if not begin <= step <= end:
        raise RunFolderError(
            f"branch {name!r} should have a checkpoint of steps {begin} to {end} in {folder}, but the newest whole one is of step "
            f"{step}; train again without resume"
        )


def _merge_path(folder: Path, number: int) -> Path:
    return folder / f"merge-{number:04d}.safetensors"


def _begin(
    folder: Path, options: dict[str, Any], model: nn.Module, resume: bool
) -> tuple[list[Merge], dict[str, Tensor]]:
    """Return the merges done before and the weights to go on from; clear the folder where there is nothing to go on from."""
    from safetensors.torch import load_file

    if resume and (folder / _OPTIONS).exists():
        made_with = json.loads((folder / _OPTIONS).read_text(encoding="utf-8"))
        other = sorted(name for name in options if made_with.get(name) != options[name])
        if other:
            raise RunFolderError(
                f"the branches in {folder} were made with other options ({', '.join(other)}); resume with the same ones"
            )
        records = sorted(folder.glob("merge-*.json"))
        done = [Merge(**record) for path in records if (record := json.loads(path.read_text(encoding="utf-8")))]
        return done, load_file(_merge_path(folder, len(done)))
    for path in [*folder.glob("branch-*"), *folder.glob("merge-*"), folder / _OPTIONS]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    weights = trainable_state(model)
    _write(folder, 0, weights, {})
    with atomic_file(folder / _OPTIONS) as file:  # written last: with it there is something to go on from
        json.dump(options, file)
    return [], weights


def _write(folder: Path, number: int, weights: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write a merge's weights, then its record, with which it counts; then drop the weights of the one before."""
    from safetensors.torch import save

    with atomic_file(_merge_path(folder, number), "wb") as file:
        file.write(save(dict(weights)))
    if number:
        with atomic_file(_merge_path(folder, number).with_suffix(".json")) as file:
            json.dump(record, file)
        _merge_path(folder, number - 1).unlink(missing_ok=True)
