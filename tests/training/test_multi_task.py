"""Several tasks in one loop: mixing, weighting, combined gradients, resuming, and the report on sharing."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.losses import UncertaintyWeighting, combine_gradients
from rivals.training import CombinedGradients, LoopConfig, MultiTaskObjective, Plain, fit, sharing_report
from tests.training.tiny import assert_same_weights, weights


class Net(nn.Module):
    """A shared layer and a head a task."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.shared = nn.Linear(4, 3)
            self.heads = nn.ModuleDict({name: nn.Linear(3, 1) for name in ("a", "b")})


class Regression:
    """Least squares of a head over the shared layer; `count` rows in batches of 2."""

    def __init__(self, net: Net, name: str, count: int, *, break_at: int = 0) -> None:
        self.model, self.name, self.break_at, self.calls = net, name, break_at, 0
        draw = torch.Generator().manual_seed(len(name) + count)
        self.rows, self.targets = torch.randn(count, 4, generator=draw), torch.randn(count, 1, generator=draw)
        self.options = {"count": count}

    def batches(self, epoch: int) -> list[Tensor]:
        return list(torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(epoch)).split(2))

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        self.calls += 1
        if self.calls == self.break_at:
            raise KeyboardInterrupt
        found = self.model.heads[self.name](self.model.shared(self.rows[batch]).tanh())
        return (found - self.targets[batch]).square().mean()

    def evaluate(self) -> float:
        with torch.no_grad():
            found = self.model.heads[self.name](self.model.shared(self.rows).tanh())
            return -float((found - self.targets).square().mean())


def made(
    mixing: Any = "together", *, counts: tuple[int, int] = (6, 4), break_at: int = 0, **options: Any
) -> MultiTaskObjective:
    net = Net()
    tasks = {"a": Regression(net, "a", counts[0]), "b": Regression(net, "b", counts[1], break_at=break_at)}
    return MultiTaskObjective(net, tasks, mixing=mixing, **options)


def told(objective: MultiTaskObjective, epoch: int = 0) -> Counter[str]:
    return Counter(part.task for step in objective.batches(epoch) for part in step)


def test_together_every_step_has_every_task_and_short_ones_begin_anew() -> None:
    objective = made()
    assert [[part.task for part in step] for step in objective.batches(0)] == [["a", "b"]] * 3
    rows = [step[1].batch.tolist() for epoch in (0, 1) for step in objective.batches(epoch)]
    own = objective.tasks["b"]
    assert rows == [batch.tolist() for epoch in range(3) for batch in own.batches(epoch)]


def test_one_task_a_step_in_proportion_with_temperature_or_in_turn() -> None:
    assert told(made("proportional")) == {"a": 3, "b": 2}
    assert told(made("temperature", counts=(180, 20), temperature=2.0)) == {"a": 75, "b": 25}
    turns = [step[0].task for step in made("round-robin").batches(0)]
    assert turns == ["a", "b", "a", "b", "a"]
    objective = made("proportional")
    one, two = ([(s[0].task, s[0].batch.tolist()) for s in objective.batches(e)] for e in (0, 1))
    assert one == [(s[0].task, s[0].batch.tolist()) for s in made("proportional").batches(0)]
    assert one != two
    seen = sorted(row for task, rows in one if task == "a" for row in rows)
    assert seen == list(range(6))


def test_the_loss_is_the_weighted_sum_and_learnt_weights_are_trained() -> None:
    plain = made()
    batch = plain.batches(0)[0]
    losses = plain.task_losses(batch, torch.Generator())
    assert float(plain.loss(batch, torch.Generator()).detach()) == pytest.approx(
        sum(float(v.detach()) for v in losses.values())
    )
    learnt = made(weighting=UncertaintyWeighting(["a", "b"]))
    before = weights(learnt.model)
    fit(learnt, LoopConfig(epochs=3, evaluations=0, learning_rate=0.05))
    moved = {name for name, value in weights(learnt.model).items() if not torch.equal(value, before[name])}
    assert "weighting.log_vars" in moved


def test_combined_gradients_are_those_of_paper_66_on_what_tasks_share() -> None:
    objective, plain = made(), made()
    batch = objective.batches(0)[0]
    total = CombinedGradients(partial(combine_gradients, method="pcgrad")).backward(
        objective, batch, torch.Generator(), 0.5
    )
    net, other = objective.model, plain.model
    losses = [loss * 0.5 for loss in plain.task_losses(batch, torch.Generator()).values()]
    assert total == pytest.approx(sum(float(loss.detach()) for loss in losses))
    shared = list(other.shared.parameters())
    rows = [torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, shared, retain_graph=True)]) for loss in losses]
    expected = combine_gradients(torch.stack(rows), "pcgrad")
    torch.testing.assert_close(torch.cat([p.grad.reshape(-1) for p in net.shared.parameters()]), expected)
    for name, loss in zip(("a", "b"), losses, strict=True):
        own = torch.autograd.grad(loss, list(other.heads[name].parameters()))
        torch.testing.assert_close([p.grad for p in net.heads[name].parameters()], list(own))


def test_the_sum_of_gradients_is_the_gradient_of_the_sum_and_accumulates() -> None:
    objective, plain = made(), made()
    for batch in objective.batches(0)[:2]:
        CombinedGradients(partial(combine_gradients, method="sum")).backward(objective, batch, torch.Generator(), 0.5)
        Plain().backward(plain, batch, torch.Generator(), 0.5)
    for mine, theirs in zip(objective.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("mixing", ["together", "proportional", "temperature", "round-robin"])
def test_broken_off_and_resumed_it_ends_with_the_same_weights(tmp_path: Path, mixing: Any) -> None:
    config = LoopConfig(epochs=3, evaluations=3, checkpoint_seconds=0, learning_rate=0.05)
    options: dict[str, Any] = {"temperature": 2.0, "weighting": UncertaintyWeighting(["a", "b"])}
    whole = made(mixing, **options)
    fit(whole, config, folder=tmp_path / "whole")
    options["weighting"] = UncertaintyWeighting(["a", "b"])
    with pytest.raises(KeyboardInterrupt):
        fit(made(mixing, break_at=4, **options), config, folder=tmp_path / "run")
    options["weighting"] = UncertaintyWeighting(["a", "b"])
    resumed = made(mixing, **options)
    fit(resumed, config, folder=tmp_path / "run", resume=True)
    assert_same_weights(weights(resumed.model), weights(whole.model))


def test_only_main_tasks_choose_the_checkpoint() -> None:
    objective = made(main=["b"])
    assert objective.evaluate() == objective.evaluate_tasks()["b"]
    assert made().evaluate() == pytest.approx(np.mean(list(made().evaluate_tasks().values())))


def test_sharing_report_by_hand() -> None:
    report = sharing_report({"a": [0.5, 0.7]}, {"a": [0.4, 0.4]})
    (task,) = report.tasks
    assert task.gain == pytest.approx(0.2)
    half = 12.706204736 * np.std([0.1, 0.3], ddof=1) / np.sqrt(2)
    assert (task.low, task.high) == (pytest.approx(0.2 - half), pytest.approx(0.2 + half))
    assert report.mean_relative_gain == pytest.approx(0.5)
    assert report.safe
    lower = sharing_report({"a": [0.5, 0.5, 0.51]}, {"a": [0.4, 0.4, 0.42]}, higher_is_better=False)
    assert lower.tasks[0].hurt
    assert not lower.safe
    assert "sharing hurts" in str(lower)
    assert sharing_report({"a": [0.5, 0.5, 0.51]}, {"a": [0.4, 0.4, 0.42]}, higher_is_better=False, tolerance=0.2).safe


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiTaskObjective(Net(), {}), "at least one objective"),
        (lambda: made("sideways"), "mixing is 'sideways'"),
        (lambda: made(temperature=0.5), "temperature must be"),
        (lambda: made(main=["c"]), "unknown task 'c'"),
        (lambda: MultiTaskObjective(Net(), {"a": Regression(Net(), "a", 4)}), "not in the model given"),
        (lambda: CombinedGradients().backward(Regression(Net(), "a", 4), None, torch.Generator(), 1.0), "has one loss"),
        (lambda: sharing_report({"a": [1, 2]}, {"b": [1, 2]}), "give the same"),
        (lambda: sharing_report({"a": [1]}, {"a": [1]}), "at least 2"),
        (lambda: sharing_report({"a": [1, np.nan]}, {"a": [1, 2]}), "not finite"),
    ],
)
def test_mistakes_are_told(make: Any, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        make()
