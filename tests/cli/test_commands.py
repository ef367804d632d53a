"""`rivals search`, `evaluate`, `mine` and `serve` on a finished run, and the help of every command."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from rivals.cli import app, main
from rivals.data import load_run
from tests.workflow.small import Small, command, environment, rivals

COMMANDS = ("quickstart", "train", "mine", "review", "evaluate", "diagnose", "search", "serve", "losses", "measures")


def test_help_of_every_command_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    main_done(["--help"])
    listed = capsys.readouterr().out
    assert [name for name in COMMANDS if name not in listed] == []
    for name in COMMANDS:
        main_done([name, "--help"])
        said = capsys.readouterr().out
        assert f"Example: rivals {name}" in said, name
        options = app[name].assemble_argument_collection()
        assert [option.name for option in options if option.name not in said] == [], name


def main_done(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in (0, None)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom rivals.cli import main\ntry:\n    main(['train', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numba', 'scipy', 'pyarrow'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([command()[0], "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_search(finished: Path) -> None:
    done = rivals("search", finished, "What are the symptoms of liver cancer?", "--k", "3", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(\d+)\. \S+", done.stdout, re.MULTILINE) == ["1", "2", "3"]
    for stage in ("bm25", "dense", "rerank"):
        assert len(re.findall(rf"{stage} (?:-|-?\d+\.\d+) \(#(?:\d+|-)\)", done.stdout)) == 3, stage
    assert re.search(r"\d+ candidates; .*rerank \d+ ms", done.stdout)


def test_search_as_json(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_done(["search", str(finished), 'liver "cancer" [bold]?', "--json", "--k", "2", "--device", "cpu"])
    found = json.loads(capsys.readouterr().out)
    assert [hit["rank"] for hit in found["hits"]] == [1, 2]
    assert found["query"] == 'liver "cancer" [bold]?'
    assert set(found["hits"][0]["stages"]) == {"bm25", "dense", "rerank"}
    assert found["hits"][0]["columns"]["topic"] in {"0", "1", "2"}


def test_evaluate(finished: Path, tmp_path: Path) -> None:
    runs = sorted((finished / "runs").glob("*.trec"))
    done = rivals("evaluate", *runs, "--judgements", finished / "runs" / "test.qrels", "--json", tmp_path / "e.json")
    assert done.returncode == 0, done.stderr
    for run in runs:
        assert run.stem in done.stdout
    assert "…" not in done.stdout
    ours = json.loads((finished / "metrics.json").read_text())["systems"]
    theirs = json.loads((tmp_path / "e.json").read_text())["systems"]
    assert set(theirs) == set(ours)


def test_evaluate_with_measures_and_baselines(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(finished / "runs" / f"{name}.trec") for name in ("bm25", "retriever", "two-stage")]
    judgements = str(finished / "runs" / "test.qrels")
    main_done(["evaluate", *runs, "--judgements", judgements, "--measures", "nDCG@5", "P@1", "--baseline", "retriever"])
    said = capsys.readouterr().out
    assert "nDCG@5" in said
    assert "R@100" not in said
    assert "against" in said


@pytest.mark.parametrize("form", ["triples", "tuples", "lists", "run"])
def test_mine_in_every_form(small: Small, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / ("mined.parquet" if form == "run" else "mined.jsonl")
    options = [
        "--split",
        "train",
        "--relative",
        "0.01",
        "--negatives",
        "2",
        "--candidates",
        "60",
        "--device",
        "cpu",
        "--quiet",
    ]
    main_done(["mine", *small.data, "--output", str(output), "--form", form, *options])
    said = capsys.readouterr().out
    assert "candidates proposed" in said
    assert str(output) in said
    audit = json.loads((tmp_path / f"{output.name}.audit.json").read_text())
    assert audit["queries"] == 36
    rows = int(re.search(r"Wrote ([\d,]+) rows", said)[1].replace(",", ""))  # type: ignore[index]
    assert rows > 0
    if form == "run":
        run = load_run(output)
        assert len(run) == audit["proposed"]
        assert int((~run.keep).sum()) > 0
        return
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(lines) == rows
    fields = {
        "triples": {"query", "positive", "negatives"},
        "tuples": {"anchor", "positive", "negative_1"},
        "lists": {"query"},
    }
    assert fields[form] <= set(lines[0]), lines[0].keys()


def test_mine_in_a_process_of_its_own_without_torch_noise(small: Small, tmp_path: Path) -> None:
    options = [
        "--sampler",
        "uniform",
        "--negatives",
        "1",
        "--relative",
        "0.01",
        "--candidates",
        "60",
        "--device",
        "cpu",
        "--quiet",
    ]
    done = rivals("mine", *small.data, "--output", tmp_path / "mined.jsonl", "--form", "tuples", *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert set(json.loads((tmp_path / "mined.jsonl").read_text().splitlines()[0])) == {
        "anchor",
        "positive",
        "negative_1",
    }


def test_serve_answers_and_stops(finished: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = command("serve", finished, "--port", str(port), "--device", "cpu")
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/health", process)
        request = urllib.request.Request(
            f"{address}/search",
            json.dumps({"query": "liver cancer", "k": 2}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert len(json.load(answer)["hits"]) == 2
        with urllib.request.urlopen(f"{address}/", timeout=30) as page:
            assert b"<input" in page.read()
        taken = rivals("serve", finished, "--port", str(port), "--device", "cpu")
        assert taken.returncode == 2
        assert re.fullmatch(
            rf"rivals: cannot listen on 127\.0\.0\.1 port {port}: .*; choose another port\n", taken.stderr
        )
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def wait_for(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise AssertionError(f"no answer at {url}: {process.communicate()[1]}")
