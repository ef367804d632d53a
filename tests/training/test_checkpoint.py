"""Checkpoints: whole and checked, or passed over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from rivals.errors import RunFolderError
from rivals.files import checksum
from rivals.training.checkpoint import load_checkpoint, remove_checkpoints, save_checkpoint
from rivals.training.loop import LoopConfig, fit, make_optimizer
from tests.training.tiny import Pairs, assert_same_weights, weights


def model_and_optimizer(seed: int, steps: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = make_optimizer(model, LoopConfig(learning_rate=0.1))
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def two_checkpoints(folder: Path) -> list[dict[str, torch.Tensor]]:
    """Checkpoints of steps 1 and 2 with other weights each, as if removing the older one had been cut off."""
    found = []
    for step in (1, 2):
        model, optimizer = model_and_optimizer(step)
        save_checkpoint(folder / str(step), step, model, optimizer, {"note": f"step {step}"})
        shutil.move(folder / str(step) / f"step-{step:08d}", folder / f"step-{step:08d}")
        found.append(weights(model))
    return found


def test_round_trip_of_model_buffers_and_optimiser(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer(0)
    save_checkpoint(tmp_path, 7, model, optimizer, {"best": 0.5, "config": {"epochs": 2}})
    other, state = model_and_optimizer(1, steps=0)
    found = load_checkpoint(tmp_path, other, state)
    assert found is not None
    assert found[1] == tmp_path / "step-00000007"
    assert found[0] == {
        "step": 7,
        "checksums": {
            name: checksum(tmp_path / "step-00000007" / name)
            for name in ("weights.safetensors", "optimizer.safetensors")
        },
        "best": 0.5,
        "config": {"epochs": 2},
    }
    assert_same_weights(weights(other), weights(model))
    batch = torch.ones(5, 3) * torch.arange(5)[:, None]
    for net, steps in ((model, optimizer), (other, state)):
        steps.zero_grad()
        net(batch).square().sum().backward()
        steps.step()
    assert_same_weights(weights(other), weights(model))


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty", "missing", "other"])
def test_the_newest_sound_checkpoint_wins(tmp_path: Path, file: str, damage: str) -> None:
    older, _ = two_checkpoints(tmp_path)
    path = tmp_path / "step-00000002" / file
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "one bit":
        content[content.index(b'"checksums"') + 20 if file == "state.json" else -3] ^= 4
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "missing":
        path.unlink()
    else:
        path.write_text('["another", "file"]' if file == "state.json" else "{}")
    model, optimizer = model_and_optimizer(9, steps=0)
    found = load_checkpoint(tmp_path, model, optimizer)
    assert found is not None
    assert found[0]["note"] == "step 1"
    assert_same_weights(weights(model), older)


def test_without_any_sound_one_nothing_is_touched(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    for path in tmp_path.glob("step-*/state.json"):
        path.write_text("{")
    (tmp_path / "step-00000005").mkdir()
    (tmp_path / "step-00000006").write_text("no folder")
    model, optimizer = model_and_optimizer(9, steps=0)
    before = weights(model)
    assert load_checkpoint(tmp_path, model, optimizer) is None
    assert load_checkpoint(tmp_path / "nowhere", model, optimizer) is None
    assert_same_weights(weights(model), before)


def test_training_starts_again_when_its_checkpoint_is_damaged(tmp_path: Path) -> None:
    config = LoopConfig(learning_rate=1e-2, checkpoint_seconds=0)
    whole = Pairs()
    fit(whole, config)
    with pytest.raises(KeyboardInterrupt):
        fit(Pairs(break_at=5), config, folder=tmp_path)
    (damaged,) = tmp_path.glob("step-*/weights.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-8])
    again = Pairs()
    result = fit(again, config, folder=tmp_path, resume=True)
    assert again.calls == 7
    assert [step for step, _ in result.losses] == list(range(1, 8))
    assert_same_weights(weights(again.model), weights(whole.model))


def test_saving_leaves_one_checkpoint_and_no_litter(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    (tmp_path / ".step-00000003.x1.tmp").mkdir()
    (tmp_path / ".step-00000003.x1.tmp" / "weights.safetensors").write_bytes(b"half")
    save_checkpoint(tmp_path, 4, *model_and_optimizer(4), {})
    assert [path.name for path in tmp_path.glob("*step*")] == ["step-00000004"]
    remove_checkpoints(tmp_path)
    assert not list(tmp_path.glob("*step*"))


def test_another_models_weights_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, *model_and_optimizer(0), {})
    for other in (nn.Linear(3, 4), nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))):
        before = weights(other)
        with pytest.raises(RunFolderError, match="of another model"):
            load_checkpoint(tmp_path, other, make_optimizer(other, LoopConfig()))
        assert_same_weights(weights(other), before)


def test_no_pickles(tmp_path: Path) -> None:
    """Every file is JSON or safetensors: a length, a JSON header, raw numbers."""
    folder = save_checkpoint(tmp_path, 1, *model_and_optimizer(0), {})
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["optimizer.safetensors", "state.json", "weights.safetensors"]
    json.loads((folder / "state.json").read_text())
    for path in folder.glob("*.safetensors"):
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        assert all(set(entry) == {"dtype", "shape", "data_offsets"} for entry in header.values())
