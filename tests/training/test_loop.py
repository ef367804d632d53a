"""The training loop: what resumes is the same run, bit for bit; schedules by hand; failures leave what was saved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.training.checkpoint import load_checkpoint, trainable_state
from rivals.training.distributed import World
from rivals.training.loop import LOG, LoopConfig, TrainingResult, fit, make_optimizer, read_log
from tests.training.tiny import Pairs, assert_same_weights, weights, write_word_bert

ROOT = Path(__file__).resolve().parents[2]
CONFIG = LoopConfig(
    epochs=2, learning_rate=1e-2, accumulate=2, evaluations=3, checkpoint_seconds=0, precision="float32", seed=4
)
CALLS = 14  # 26 pairs in batches of 4: 7 batches an epoch, two to a step: 8 steps


def history(result: TrainingResult) -> dict[str, Any]:
    return {name: value for name, value in vars(result).items() if name != "seconds"}


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and history of a run that nothing interrupts, in memory."""
    objective = Pairs()
    result = fit(objective, CONFIG)
    assert objective.calls == CALLS
    return weights(objective.model), history(result)


@pytest.mark.parametrize("call", range(1, CALLS + 1))
def test_interrupted_at_any_loss_and_resumed_it_is_the_same_run(tmp_path: Path, whole: Any, call: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(Pairs(break_at=call), CONFIG, folder=tmp_path)
    objective = Pairs()
    result = fit(objective, CONFIG, folder=tmp_path, resume=True)
    assert_same_weights(weights(objective.model), whole[0])
    assert history(result) == whole[1]
    log = read_log(tmp_path)
    assert [(line["step"], line["loss"]) for line in log if "loss" in line] == whole[1]["losses"]
    assert [(line["step"], line["dev"]) for line in log if "dev" in line] == whole[1]["scores"]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 8), min_size=2, max_size=4), st.sampled_from([0.0, 1000.0]))
def test_interrupted_again_and_again(
    tmp_path_factory: pytest.TempPathFactory, whole: Any, breaks: list[int], seconds: float
) -> None:
    folder = tmp_path_factory.mktemp("run")
    config = LoopConfig(**{**vars(CONFIG), "checkpoint_seconds": seconds})
    for call in breaks:
        try:
            fit(Pairs(break_at=call), config, folder=folder, resume=True)
        except KeyboardInterrupt:
            continue
    objective = Pairs()
    result = fit(objective, config, folder=folder, resume=True)
    assert_same_weights(weights(objective.model), whole[0])
    assert history(result) == whole[1]


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5])
def test_cut_off_while_writing(tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """A write that breaks off (best weights or a checkpoint, whichever comes `after`-th) costs steps, not the run."""
    import safetensors.torch

    real, count = safetensors.torch.save_file, 0

    def breaks(tensors: dict[str, Tensor], path: Path) -> None:
        nonlocal count
        count += 1
        if count == 2 * after:
            Path(path).write_bytes(b"half of it")
            raise KeyboardInterrupt
        real(tensors, path)

    monkeypatch.setattr(safetensors.torch, "save_file", breaks)
    with pytest.raises(KeyboardInterrupt):
        fit(Pairs(), CONFIG, folder=tmp_path)
    monkeypatch.undo()
    with open(tmp_path / LOG, "a", encoding="utf-8") as log:
        log.write('{"step": 99, "lo')
    objective = Pairs()
    result = fit(objective, CONFIG, folder=tmp_path, resume=True)
    assert_same_weights(weights(objective.model), whole[0])
    assert history(result) == whole[1]


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, whole: Any) -> None:
    fit(Pairs(), CONFIG, folder=tmp_path)
    objective = Pairs(break_at=1)
    result = fit(objective, CONFIG, folder=tmp_path, resume=True)
    assert objective.calls == 0
    assert_same_weights(weights(objective.model), whole[0])
    assert history(result) == whole[1]
    assert not objective.model.training


def test_a_new_run_takes_nothing_of_an_old_one(tmp_path: Path, whole: Any) -> None:
    fit(Pairs(), LoopConfig(**{**vars(CONFIG), "seed": 9}), folder=tmp_path)
    (tmp_path / ".step-00000003.abc.tmp").mkdir()
    with pytest.raises(KeyboardInterrupt):
        fit(Pairs(break_at=1), CONFIG, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    objective = Pairs()
    assert history(fit(objective, CONFIG, folder=tmp_path, resume=True)) == whole[1]
    assert len([line for line in read_log(tmp_path) if "loss" in line]) == 8


@pytest.mark.parametrize(
    ("change", "count"), [({"learning_rate": 1e-3}, 26), ({"seed": 5}, 26), ({"epochs": 3}, 26), ({}, 40)]
)
def test_other_options_or_data_are_not_resumed(tmp_path: Path, change: dict[str, Any], count: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(Pairs(break_at=6), CONFIG, folder=tmp_path)
    with pytest.raises(RivalsError, match="other training options") as caught:
        fit(Pairs(count=count), LoopConfig(**{**vars(CONFIG), **change}), folder=tmp_path, resume=True)
    assert (next(iter(change)) if change else "steps_per_epoch") in str(caught.value)


def test_an_objectives_own_options_are_checked_too(tmp_path: Path) -> None:
    objective = Pairs(break_at=6)
    objective.options = {"temperature": 0.2, "sizes": (1, 2)}  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        fit(objective, CONFIG, folder=tmp_path)
    again = Pairs()
    again.options = {"temperature": 0.1, "sizes": (1, 2)}  # type: ignore[attr-defined]
    with pytest.raises(RivalsError, match=r"\(temperature\)"):
        fit(again, CONFIG, folder=tmp_path, resume=True)
    again.options = {"temperature": 0.2, "sizes": (1, 2)}  # type: ignore[attr-defined]
    config = LoopConfig(**{**vars(CONFIG), "checkpoint_seconds": 5})  # this one may change
    assert fit(again, config, folder=tmp_path, resume=True).steps == 8


class Scripted(Pairs):
    """Held-out scores as told; remembers the weights of every evaluation."""

    def __init__(self, scores: list[float], **options: Any) -> None:
        super().__init__(**options)
        self.scores, self.seen = scores, {}

    def evaluate(self) -> float:
        assert not self.model.training
        self.seen[self.calls] = weights(self.model)
        return self.scores[len(self.seen) - 1]


def test_best_weights_and_patience() -> None:
    config = LoopConfig(epochs=4, learning_rate=1e-2, evaluations=14, patience=3)  # an evaluation every second step
    objective = Scripted([0.1, 0.5, 0.2, 0.5, 0.4, 0.9])
    result = fit(objective, config)
    assert [step for step, _ in result.scores] == [2, 4, 6, 8, 10]  # 0.5 again is no new best
    assert (result.best_step, result.best_score, result.steps, result.stopped_early) == (4, 0.5, 10, True)
    assert_same_weights(weights(objective.model), objective.seen[4])


def test_no_evaluation_leaves_the_last_weights(tmp_path: Path) -> None:
    config = LoopConfig(learning_rate=1e-2, evaluations=0, checkpoint_seconds=0)
    objective = Pairs()
    result = fit(objective, config, folder=tmp_path)
    assert result.scores == []
    assert result.best_score != result.best_score
    saved = Pairs()
    assert load_checkpoint(tmp_path, saved.model, make_optimizer(saved.model, config)) is not None
    assert_same_weights(weights(saved.model), weights(objective.model))


class Squares:
    """A mean loss without any randomness, in float64."""

    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(8, 3, generator=generator, dtype=torch.float64)
        self.y = torch.randn(8, 2, generator=generator, dtype=torch.float64)
        self.size = size
        self.model: nn.Module = nn.Linear(3, 2).double()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.fill_(0.1)

    def batches(self, epoch: int) -> list[Tensor]:
        return list(torch.arange(8).split(self.size))

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        return (self.model(self.x[batch]) - self.y[batch]).square().mean()

    def evaluate(self) -> float:
        return 0.0


def test_halves_accumulated_are_the_whole() -> None:
    whole, halves = Squares(4), Squares(2)
    config = {"epochs": 3, "learning_rate": 0.1, "evaluations": 0, "clip": 0.5}
    one = fit(whole, LoopConfig(**config))
    two = fit(halves, LoopConfig(**config, accumulate=2))
    assert one.steps == two.steps == 6
    torch.testing.assert_close([loss for _, loss in two.losses], [loss for _, loss in one.losses], rtol=1e-12, atol=0)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(halves.model.state_dict()[name], value, rtol=1e-10, atol=1e-12)


def test_rates_by_hand(tmp_path: Path) -> None:
    config = LoopConfig(epochs=5, learning_rate=1.0, warmup=0.2, evaluations=0)
    fit(Squares(4), config, folder=tmp_path)
    rates = [line["learning_rate"] for line in read_log(tmp_path)]
    assert rates == pytest.approx([0.5, 1.0, 8 / 8, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_rates_without_warmup_and_with_max_steps(tmp_path: Path) -> None:
    config = LoopConfig(epochs=5, max_steps=4, learning_rate=1.0, warmup=0.0, evaluations=0)
    assert fit(Squares(4), config, folder=tmp_path).steps == 4
    assert [line["learning_rate"] for line in read_log(tmp_path)] == pytest.approx([4 / 4, 3 / 4, 2 / 4, 1 / 4])


def test_vectors_do_not_decay() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    model[1].bias.requires_grad_(False)
    groups = make_optimizer(model, LoopConfig(weight_decay=0.3)).param_groups
    assert {p.ndim: group["weight_decay"] for group in groups for p in group["params"]} == {2: 0.3, 1: 0.0}
    assert sum(len(group["params"]) for group in groups) == 3


class Breaks(Pairs):
    """The loss or only its gradient is not finite at the n-th call."""

    def __init__(self, call: int, kind: str) -> None:
        super().__init__()
        self.at, self.kind = call, kind

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        loss = super().loss(batch, generator)
        if self.calls != self.at:
            return loss
        weight = next(self.model.parameters())
        return loss * float("nan") if self.kind == "loss" else loss + (weight * 0).square().sum().sqrt()


@pytest.mark.parametrize("kind", ["loss", "gradients"])
def test_what_is_not_finite_stops_before_it_does_harm(tmp_path: Path, whole: Any, kind: str) -> None:
    objective = Breaks(7, kind)  # the first half of step 4
    with pytest.raises(RivalsError, match=f"the .*{kind} became nan at step 4"):
        fit(objective, CONFIG, folder=tmp_path)
    assert all(value.isfinite().all() for value in trainable_state(objective.model).values())
    mended = Pairs()
    found = load_checkpoint(tmp_path, mended.model, make_optimizer(mended.model, CONFIG))
    assert found is not None
    assert found[0]["step"] == 3
    result = fit(mended, CONFIG, folder=tmp_path, resume=True)
    assert_same_weights(weights(mended.model), whole[0])
    assert history(result) == whole[1]


def test_lost_best_weights_are_one_clear_error(tmp_path: Path) -> None:
    fit(Pairs(), CONFIG, folder=tmp_path)
    (tmp_path / "best.safetensors").write_bytes(b"\x05")
    with pytest.raises(RivalsError, match="best weights, cannot be read"):
        fit(Pairs(), CONFIG, folder=tmp_path, resume=True)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"warmup": 1.0},
        {"accumulate": 0},
        {"clip": 0.0},
        {"seed": -1},
        {"precision": "float16"},
        {"patience": -1},
        {"checkpoint_seconds": -1.0},
        {"max_steps": -1},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(RivalsError, match=next(iter(options))):
        LoopConfig(**options)


def test_nothing_to_train_on_and_nowhere_to_resume() -> None:
    with pytest.raises(RivalsError, match="nothing to train on"):
        fit(Pairs(count=0), CONFIG)
    with pytest.raises(RivalsError, match="needs the folder"):
        fit(Pairs(), CONFIG, resume=True)


@pytest.mark.skipif(
    not hasattr(os, "fork"), reason="the killed trainings are forked processes, which this system has not"
)
def test_killed_trainings_end_with_the_same_weights(tmp_path: Path) -> None:
    """A real encoder in real processes, SIGKILLed five times at random moments."""
    from safetensors.torch import load_file

    from rivals.data.sample import load_sample

    write_word_bert(tmp_path / "start", load_sample().documents.texts, words=500)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    environment["TOKENIZERS_PARALLELISM"] = "false"
    command = [sys.executable, str(ROOT / "tests" / "training" / "killed.py"), str(tmp_path), "5"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told["killed_at"]) >= 1, "no training was still running when its signal came"
    assert_same_weights(load_file(tmp_path / "killed.safetensors"), load_file(tmp_path / "whole.safetensors"))
    killed, whole = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("killed", "whole"))
    assert killed == whole
    assert whole["steps"] == 16
    start = load_file(tmp_path / "start" / "model.safetensors")
    trained = load_file(tmp_path / "whole.safetensors")
    name = "embeddings.word_embeddings.weight"
    assert not torch.equal(trained[f"backbone.{name}"], start[name])


def test_an_objective_that_does_not_share_its_batches_trains_alone() -> None:
    with pytest.raises(RivalsError, match="Pairs does not share its batches among 2 processes"):
        fit(Pairs(), CONFIG, world=World(0, 2))
