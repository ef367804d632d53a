"""Two processes training together compute what one does alone on the same batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rivals.training.distributed import World, gather, join_world, sum_gradients
from rivals.training.loop import read_log
from tests.models.tiny import write_tiny_bert
from tests.training.two_processes import gathering, training

ROOT = Path(__file__).resolve().parents[2]

#: float32 sums in another order: gradients differ in the 6th digit, and six AdamW steps at 1e-4 turn that into less than this.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    write_tiny_bert(folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    """What each of two real processes found."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "tests" / "training" / "two_processes.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank {rank}.pt", weights_only=False) for rank in (0, 1)]


def test_gather_has_the_gradients_of_one_process(ranks: list[dict[str, Any]]) -> None:
    alone = gathering(World())
    for rank, found in enumerate(ranks):
        assert found["size"] == 2
        there = found["gathering"]
        assert there["loss"] == pytest.approx(alone["loss"], rel=1e-12)
        torch.testing.assert_close(there["rows"], alone["rows"], rtol=1e-12, atol=1e-12)
        assert torch.equal(there["beside"], torch.ones(4, 3)), (
            "a gradient that is not gathered was summed over processes"
        )
        assert there["idle"] is None
        assert there["flags"] == [True, True, False]
        assert there["told"] == "by 0"
        assert rank in (0, 1)


@pytest.mark.parametrize("way", ["late", "cached"])
@pytest.mark.parametrize("late", [0.0, 1.0])
def test_two_processes_train_as_one(folder: Path, ranks: list[dict[str, Any]], late: float, way: str) -> None:
    alone = training(folder, late, World())
    one, other = (found[f"{way} {late}"] for found in ranks)
    assert one["losses"] == other["losses"]
    for name, value in one["weights"].items():
        assert torch.equal(value, other["weights"][name]), f"the two processes ended with different {name}"
    assert [step for step, _ in one["losses"]] == [1, 2, 3, 4, 5, 6]
    for (_, there), (_, here) in zip(one["losses"], alone["losses"], strict=True):
        assert there == pytest.approx(here, rel=TOLERANCE, abs=1e-6)
    assert [step for step, _ in one["scores"]] == [3, 6]
    assert dict(one["scores"]) == pytest.approx(dict(alone["scores"]))
    assert one["gradients"].keys() == alone["gradients"].keys()
    for name, here in alone["gradients"].items():
        torch.testing.assert_close(
            one["gradients"][name], here, rtol=1e-4, atol=1e-6 * max(1.0, float(here.abs().max()))
        )
    moved = 0.0
    for name, here in alone["weights"].items():
        if name.endswith("key.bias"):  # no gradient but rounding errors, which AdamW scales up; changes no output
            continue
        assert float((one["weights"][name] - here).abs().max()) < TOLERANCE, name
        moved = max(moved, float((here - alone["start"][name]).abs().max()))
    assert moved > 10 * TOLERANCE


def test_the_main_process_alone_writes(folder: Path, ranks: list[dict[str, Any]]) -> None:
    log = read_log(folder / "run 1.0")
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [(line["step"], line["loss"]) for line in log if "loss" in line] == ranks[0]["late 1.0"]["losses"]
    assert len(list((folder / "run 1.0").glob("step-*"))) == 1


def test_shares_join_to_the_whole() -> None:
    for size in (1, 2, 3, 5):
        for count in range(8):
            parts = [World(rank, size).share(list(range(count))) for rank in range(size)]
            assert [item for part in parts for item in part] == list(range(count))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_alone_everything_is_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = join_world()
    rows = torch.ones(2, 3, requires_grad=True)
    assert (world.rank, world.size, world.is_main) == (0, 1, True)
    assert gather(rows, world) is rows
    assert world.broadcast("x") == "x"
    world.barrier()
    parameter = torch.nn.Parameter(torch.ones(2))
    sum_gradients([parameter], world)
    assert parameter.grad is None
