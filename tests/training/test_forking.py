"""ForkMerge as training: branches through `fit`, merged by validation, and broken off anywhere."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rivals.errors import RivalsError, RunFolderError
from rivals.training import LoopConfig, fit
from rivals.training.branch_merging import greedy_merge, weighted_average
from rivals.training.checkpoint import newest_step, trainable_state
from rivals.training.forking import TaskMixture, fork_merge, rank_auxiliaries, task_mixtures
from rivals.training.loop import read_log
from tests.training.small_world import Broken
from tests.training.tiny import Pairs, assert_same_weights, weights

CONFIG = LoopConfig(epochs=4, learning_rate=0.05, evaluations=4, checkpoint_seconds=0, precision="float32")
NAMES = ("target", "helps", "harms")


class Net(nn.Module):
    """A shared layer with dropout and a head a task."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.shared = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Dropout(0.1))
            self.heads = nn.ModuleDict({name: nn.Linear(4, 1) for name in NAMES})


class Task:
    """Least squares in batches of 4: the target has few noisy rows, one helper many clean ones, the other noise for labels."""

    def __init__(self, net: Net, name: str) -> None:
        self.model, self.name = net, name
        draw = torch.Generator().manual_seed(5)
        true = torch.randn(8, 1, generator=draw)
        count = {"target": 12, "helps": 40, "harms": 24}[name]
        self.rows = torch.randn(count, 8, generator=torch.Generator().manual_seed(len(name)))
        noise = torch.randn(count, 1, generator=torch.Generator().manual_seed(9))
        self.labels = 3 * noise if name == "harms" else (self.rows @ true).tanh() + (name == "target") * 0.3 * noise
        self.held = torch.randn(60, 8, generator=draw)
        self.held_labels = (self.held @ true).tanh()

    def batches(self, epoch: int) -> list[Tensor]:
        return list(torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(epoch)).split(4))

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        found = self.model.heads[self.name](self.model.shared(self.rows[batch]))
        return (found - self.labels[batch]).square().mean()

    def evaluate(self) -> float:
        with torch.no_grad():
            return -float(
                (self.model.heads[self.name](self.model.shared(self.held)) - self.held_labels).square().mean()
            )


def world() -> tuple[Net, dict[str, Task]]:
    net = Net()
    return net, {name: Task(net, name) for name in NAMES}


def forked(top_k: tuple[int, ...] = (0, 1, 2), **options: Any) -> dict[str, TaskMixture]:
    net, tasks = world()
    return task_mixtures(net, tasks, targets=["target"], auxiliaries=["helps", "harms"], top_k=top_k, **options)


def counted(branches: dict[str, TaskMixture], name: str, last: int) -> None:
    """Let the n-th call of this method, over all branches, break off after its work."""
    calls = []
    for branch in branches.values():
        real = getattr(branch, name)

        def call(*arguments: Any, real: Any = real) -> Any:
            found = real(*arguments)
            calls.append(1)
            if len(calls) == last:
                raise Broken
            return found

        setattr(branch, name, call)


def test_branches_share_an_epoch_as_the_paper_does() -> None:
    branches = forked(steps=12)
    assert {name: branch.counts for name, branch in branches.items()} == {
        "top 0": {"target": 12},
        "top 1": {"target": 6, "helps": 6},
        "top 2": {"target": 6, "helps": 3, "harms": 3},
    }
    net, tasks = world()
    tasks |= {"third": Task(net, "harms")}
    both = task_mixtures(net, tasks, targets=["target"], auxiliaries=["helps", "harms", "third"], steps=12)
    assert list(both) == ["top 0", "top 3"]
    assert both["top 3"].counts == {"target": 6, "helps": 2, "harms": 2, "third": 2}
    for branch in branches.values():
        for epoch in range(2):
            told = [part.task for (part,) in branch.batches(epoch)]
            assert {name: told.count(name) for name in branch.counts} == branch.counts
    orders = [[part.task for (part,) in branches["top 2"].batches(epoch)] for epoch in (0, 1)]
    assert orders[0] != orders[1]


def test_a_tasks_batches_follow_one_another_over_epochs() -> None:
    branch = forked(steps=10)["top 1"]  # 5 batches of the target an epoch, 3 batches in its own epochs
    seen = [part.batch.tolist() for epoch in (0, 1) for (part,) in branch.batches(epoch) if part.task == "target"]
    own = branch.tasks["target"]
    assert seen == [own.batches(place // 3)[place % 3].tolist() for place in range(10)]


def test_one_branch_is_a_plain_training() -> None:
    plain = forked((0,))["top 0"]
    fit(plain, LoopConfig(**(asdict(CONFIG) | {"evaluations": 0})))
    alone = forked((0,))
    done = fork_merge(alone, CONFIG, merges=3, keep="last")
    assert_same_weights(weights(alone["top 0"].model), weights(plain.model))
    assert [merge.step for merge in done] == [14, 27, 40]
    assert all(merge.coefficients == {"top 0": 1.0} for merge in done)


def test_a_merge_is_the_greedy_one_of_branches_trained_apart(tmp_path: Path) -> None:
    branches = forked()
    done = fork_merge(branches, CONFIG, merges=1, keep="best", folder=tmp_path)
    apart = forked()
    model = apart["top 0"].model
    start, states, scores = trainable_state(model), [], []
    for branch in apart.values():
        model.load_state_dict(start)
        scores.append(fit(branch, CONFIG).best_score)
        states.append(trainable_state(model))

    def score(state: dict[str, Tensor]) -> float:
        model.load_state_dict(state)
        return apart["top 0"].evaluate()

    merged = greedy_merge(states, scores, score)
    assert list(done[0].scores.values()) == scores
    assert tuple(done[0].coefficients.values()) == merged.coefficients
    assert_same_weights(weights(branches["top 0"].model), weighted_average(states, merged.coefficients))
    assert done[0].score == merged.score


def test_a_merge_is_never_below_its_best_branch_and_is_recorded(tmp_path: Path) -> None:
    branches = forked()
    done = fork_merge(branches, CONFIG, merges=4, folder=tmp_path)
    for merge in done:
        assert merge.score >= max(merge.scores.values())
        assert max(merge.coefficients.values()) == 1.0
        assert merge.evaluations == 3 + 1 + 2 * 5
        assert merge.training_seconds > 0
    records = [json.loads((tmp_path / f"merge-{n:04d}.json").read_text()) for n in (1, 2, 3, 4)]
    assert records == [asdict(merge) for merge in done]
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["merge-0004.safetensors"]
    assert [newest_step(tmp_path / f"branch-{n}") for n in range(3)] == [40] * 3
    forks = [line["step"] for line in read_log(tmp_path / "branch-1") if "refresh" in line]
    assert forks == [1, 11, 21, 31]


@pytest.mark.parametrize(
    ("point", "last", "keep"),
    [
        ("loss", 4, "best"),
        ("loss", 37, "last"),  # in the first step of the second period, or soon after
        ("loss", 61, "best"),
        ("evaluate", 7, "last"),  # inside the search of the first merge
        ("evaluate", 30, "best"),
    ],
)
def test_broken_off_and_resumed_it_ends_the_same(tmp_path: Path, point: str, last: int, keep: Any) -> None:
    for seconds in (0.0, 1e9):
        config = LoopConfig(**(asdict(CONFIG) | {"checkpoint_seconds": seconds}))
        whole = forked()
        expected = fork_merge(whole, config, merges=4, keep=keep)
        own = tmp_path / str(seconds)
        broken = forked()
        counted(broken, point, last)
        with pytest.raises(Broken):
            fork_merge(broken, config, merges=4, keep=keep, folder=own)
        again = forked()
        done = fork_merge(again, config, merges=4, keep=keep, folder=own, resume=True)
        assert_same_weights(weights(again["top 0"].model), weights(whole["top 0"].model))
        assert [(m.coefficients, m.scores) for m in done] == [(m.coefficients, m.scores) for m in expected]


def test_what_is_done_stays_done(tmp_path: Path) -> None:
    branches = forked()
    done = fork_merge(branches, CONFIG, merges=2, folder=tmp_path)
    again = forked()
    counted(again, "loss", 1)
    assert fork_merge(again, CONFIG, merges=2, folder=tmp_path, resume=True) == done
    assert_same_weights(weights(again["top 0"].model), weights(branches["top 0"].model))


def test_auxiliaries_are_ranked_and_the_model_is_left() -> None:
    net, tasks = world()
    before = weights(net)
    ranked = rank_auxiliaries(net, tasks, CONFIG, targets=["target"])
    assert list(ranked) == ["helps", "harms"]
    assert_same_weights(weights(net), before)
    branch = task_mixtures(net, tasks, targets=["target"], auxiliaries=["helps"])["top 1"]
    assert fit(branch, CONFIG).best_score == ranked["helps"]


def test_a_paused_training_goes_on_as_if_it_had_not_paused(tmp_path: Path) -> None:
    whole, parts = Pairs(), Pairs()
    config = LoopConfig(epochs=3, learning_rate=0.01, evaluations=3, precision="float32", checkpoint_seconds=1e9)
    expected = fit(whole, config)
    for until in (5, 5, 12, 99):
        found = fit(parts, config, folder=tmp_path, resume=True, until=until)
        assert found.steps == min(until, 21)
        parts = Pairs() if until < 99 else parts
    assert found.losses == expected.losses
    assert_same_weights(weights(parts.model), weights(whole.model))
    with pytest.raises(RivalsError, match="until must be a step of 1 or more"):
        fit(Pairs(), config, until=0)


def test_mistakes_are_told(tmp_path: Path) -> None:
    net, tasks = world()
    branches = forked()
    with pytest.raises(RivalsError, match="there is no branch"):
        fork_merge({}, CONFIG, merges=1)
    with pytest.raises(RivalsError, match=r"merges must lie in 1\.\.40"):
        fork_merge(branches, CONFIG, merges=0)
    with pytest.raises(RivalsError, match="multiple of merges"):
        fork_merge(branches, CONFIG, merges=3)
    with pytest.raises(RivalsError, match="cannot stop early"):
        fork_merge(branches, LoopConfig(patience=1), merges=1)
    with pytest.raises(RivalsError, match="branch 'other' trains another model"):
        fork_merge({**branches, "other": forked()["top 0"]}, CONFIG, merges=4)
    short = TaskMixture(branches["top 0"].model, branches["top 0"].tasks, {"target": 1}, steps=3)
    with pytest.raises(RivalsError, match="as many steps"):
        fork_merge({**branches, "short": short}, CONFIG, merges=4)
    with pytest.raises(RivalsError, match="needs the folder"):
        fork_merge(branches, CONFIG, merges=4, resume=True)
    with pytest.raises(RivalsError, match=r"score of a merge is NaN|scores must be"):
        fork_merge(branches, CONFIG, merges=4, validate=lambda: float("nan"))
    with pytest.raises(RivalsError, match="there is no task 'absent'"):
        task_mixtures(net, tasks, targets=["target"], auxiliaries=["absent"])
    with pytest.raises(RivalsError, match="too few"):
        task_mixtures(net, tasks, targets=["target"], auxiliaries=["helps", "harms"], steps=2)
    with pytest.raises(RivalsError, match="unknown task 'absent'"):
        TaskMixture(net, tasks, {"absent": 1.0}, steps=3)
    with pytest.raises(RivalsError, match="evaluations to 1 or more"):
        rank_auxiliaries(net, tasks, LoopConfig(evaluations=0), targets=["target"])
    fork_merge(forked(), CONFIG, merges=2, folder=tmp_path)
    with pytest.raises(RunFolderError, match=r"other options \(merges\)"):
        fork_merge(forked(), CONFIG, merges=4, folder=tmp_path, resume=True)


def test_a_branch_without_its_checkpoint_does_not_begin_anew_unseen(tmp_path: Path) -> None:
    broken = forked()
    counted(broken, "loss", 65)
    with pytest.raises(Broken):
        fork_merge(broken, CONFIG, merges=4, folder=tmp_path)
    state = next((tmp_path / "branch-1").glob("step-*")) / "state.json"
    state.write_text("{")
    with pytest.raises(RunFolderError, match=r"branch 'top 1' should have a checkpoint of steps 20 to 30 .* step 0"):
        fork_merge(forked(), CONFIG, merges=4, folder=tmp_path, resume=True)
