"""Every benchmark runs in its tiny form and gives valid figures; nothing is asserted about times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as benchmarks

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "encode", "top_k/random", "top_k/clustered", "mining", "rescoring", "info_nce", "training_step", "gradient_cache",
    "metrics", "bm25/build", "bm25/search", "metric_learning/multi_similarity", "metric_learning/circle",
    "metric_learning/triplet_hard", "metric_learning/supervised_contrastive", "pairwise/lambda",
    "pairwise/lambdarank", "pairwise/logistic", "pairwise/hinge", "neural_ndcg", "filters", "batching/b3_20000",
    "batching/b3_100000", "batching/no_duplicates", "full_ranking",
}  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path: Path = tmp_path_factory.mktemp("benchmarks") / "figures.json"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "benchmarks", "--quick", "--threads", "1", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "target:" in done.stdout

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_says_what_the_machine_is(report: dict[str, Any]) -> None:
    machine = report["machine"]
    assert machine["cores"] >= 1
    assert {"amx_bf16", "avx512_vnni", "avx512_bf16"} <= set(machine["flags"])
    assert machine["versions"]["torch"]
    assert report["quick"] is True


def test_every_case_is_there(report: dict[str, Any]) -> None:
    assert set(report["cases"]) == CASES


@pytest.mark.parametrize("case", sorted(CASES))
def test_figures_are_complete(report: dict[str, Any], case: str) -> None:
    figures = report["cases"][case]
    assert figures["missing_peers"] == [], "the peers are part of the dev extra"
    assert figures["peer"] in figures["variants"]
    for variant in figures["variants"].values():
        for kind in ("cpu", "wall"):
            seconds = variant[kind]["seconds"]
            assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
            assert variant[kind]["rate"] > 0
    assert figures["variants"][figures["ours"]]["cpu"]["over_ours"]["median"] == 1
    assert figures["matmul_gflops"]["cpu"]["float32"] > 0
    for target in figures["targets"]:
        assert target["met"] in (True, False)
        assert target["text"]


@pytest.mark.parametrize(
    ("case", "check", "low", "high"),
    [
        ("encode", "least cosine with sentence-transformers", 0.99, 1.001),
        ("top_k/random", "recall", 0.999, 1),
        ("top_k/clustered", "recall of faiss IndexFlatIP", 0.999, 1),
        ("mining", "queries with the same list", 0.9, 1),
        ("rescoring", "queries with the same list in float32", 0.5, 1),
        ("rescoring", "rank correlation of our scores with float32", 0.9, 1),
        ("info_nce", "gradient difference", 0, 1e-5),
        ("info_nce", "gradient error", 0, 1e-5),
        ("metric_learning/multi_similarity", "gradient difference", 0, 1e-4),
        ("metric_learning/circle", "gradient difference", 0, 1e-4),
        ("metric_learning/triplet_hard", "value difference", 0, 1e-5),
        ("metric_learning/supervised_contrastive", "gradient difference", 0, 1e-4),
        ("pairwise/lambda", "gradient difference", 0, 1e-4),
        ("pairwise/lambdarank", "gradient difference", 0, 1e-4),
        ("pairwise/logistic", "gradient difference", 0, 1e-4),
        ("pairwise/hinge", "gradient difference", 0, 1e-4),
        ("neural_ndcg", "value difference", 0, 1e-5),
        ("neural_ndcg", "gradient difference", 0, 1e-4),
        ("metrics", "largest difference from pytrec_eval", 0, 1e-6),
        ("metrics", "largest difference from ir-measures", 0, 1e-6),
        ("bm25/search", "largest relative difference of best scores", 0, 1e-4),
    ],
)
def test_both_sides_do_the_same_work(report: dict[str, Any], case: str, check: str, low: float, high: float) -> None:
    assert low <= report["cases"][case]["checks"][check] <= high


def test_a_step_has_the_loss_of_the_peer(report: dict[str, Any]) -> None:
    ours, theirs = report["cases"]["training_step"]["checks"].values()
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_memory_is_measured_where_it_is_promised(report: dict[str, Any]) -> None:
    variants = report["cases"]["info_nce"]["variants"].values()
    measured = [variant["memory_mib"] for variant in variants if "memory_mib" in variant]
    assert len(measured) == 2
    assert all(mebibytes is not None and mebibytes >= 0 for mebibytes in measured)


def test_an_unknown_name_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        benchmarks.main(["nothing"])
    assert stopped.value.code == 2
    assert "no benchmark is called nothing" in capsys.readouterr().err


def test_a_missing_peer_leaves_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import _harness, metrics
    from benchmarks._harness import judge, measure

    monkeypatch.setattr(_harness, "set_threads", lambda count: None)
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    workload = metrics.workload(True)
    figures = measure(workload, threads=1, quick=True)
    assert figures["missing_peers"] == ["pytrec_eval"]
    assert list(figures["variants"]) == ["rivals"]
    assert [target["met"] for target in judge(workload, figures)] == [None]


def test_one_thread_is_one_thread_although_numba_starts_its_own_late() -> None:
    code = (
        "import numba, torch; from benchmarks._machine import set_threads; set_threads(1); "
        "assert torch.get_num_threads() == 1; set_threads(1); assert torch.get_num_threads() == 1"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), environment.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-1000:]
