"""What a user can do wrong: one line on standard error, status 2, no traceback, nothing written."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rivals.cli import main
from tests.workflow.small import Small, rivals


@pytest.fixture
def files(small: Small, tmp_path: Path) -> Path:
    """A folder with good and bad files."""
    (tmp_path / "good.trec").write_text("q1 Q0 d1 1 0.5 a\nq1 Q0 d2 2 0.25 a\nq2 Q0 d2 1 0.5 a\n")
    (tmp_path / "good.qrels").write_text("q1 0 d1 1\nq2 0 d1 1\n")
    (tmp_path / "again").mkdir()
    shutil.copy(tmp_path / "good.trec", tmp_path / "again")
    (tmp_path / "columns.qrels").write_text("q1 0 d1 1\nq2 0 d1\n")
    (tmp_path / "grade.qrels").write_text("q1 0 d1 1\nq2 0 d1 high\n")
    (tmp_path / "empty.qrels").write_text("")
    (tmp_path / "bad.trec").write_text("q1 Q0 d1 1 0.5 a\nq1 Q0 d2 2 much a\n")
    (tmp_path / "bad.jsonl").write_text('{"id": "a", "text": "x"}\n{"id": "b", "text": \n')
    (tmp_path / "unknown.jsonl").write_text('{"query": "x?", "document_id": "nowhere"}\n')
    (tmp_path / "bad.toml").write_text("[retriever]\nepochs = 0\n")
    (tmp_path / "plain").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text('{"config": {')
    (tmp_path / "noindex").mkdir()
    (tmp_path / "noindex" / "config.json").write_text("{}")
    for name, source in (("documents", small.documents), ("pairs", small.pairs)):
        shutil.copy(source, tmp_path / f"{name}.jsonl")
    shutil.copytree(small.model, tmp_path / "model")
    return tmp_path


DATA = "--documents documents.jsonl --pairs pairs.jsonl"
MISTAKES = {
    "both speeds": ("quickstart --fast --full", "--fast and --full exclude each other"),
    "no data": ("train", "no data is given"),
    "documents missing": ("train --documents none.jsonl --pairs pairs.jsonl", r"none\.jsonl"),
    "pairs missing": (f"train {DATA.replace('pairs.jsonl', 'none.jsonl')}", r"none\.jsonl"),
    "documents alone": ("train --documents documents.jsonl", "no question .* give --pairs"),
    "folder and files": (f"train --folder plain {DATA}", "not both"),
    "folder is no data set": ("train --folder plain", "plain"),
    "folder missing": ("train --folder nowhere", "nowhere"),
    "bad line": ("train --documents bad.jsonl --pairs pairs.jsonl", r"bad\.jsonl, line 2"),
    "unknown document": ("train --documents documents.jsonl --pairs unknown.jsonl", "nowhere"),
    "bad option in config": (f"train {DATA} --config bad.toml", r"bad\.toml, line 2: .*retriever\.epochs"),
    "config missing": (f"train {DATA} --config none.toml", r"none\.toml"),
    "seed below zero": (f"train {DATA} --seed -1", "seed"),
    "output in use": (f"train {DATA} --output plain/..", "not empty"),
    "output is a file": (f"train {DATA} --output good.trec", "is a file"),
    "no such model": (f"train {DATA} --model none/such --output new", "none/such"),
    "folder without model": (f"train {DATA} --model plain --output new", "plain"),
    "no such device": (f"train {DATA} --model model --device abacus --output new", "abacus"),
    "resume nothing": ("train --resume nowhere", "there is no folder nowhere"),
    "resume what is no run": ("quickstart --resume plain", "plain is not a run folder"),
    "resume a damaged run": ("train --resume half", r"config\.json is damaged"),
    "mine into a folder": (f"mine {DATA} --output plain", "is a folder"),
    "mine nothing": (f"mine {DATA} --model model --output new.jsonl --negatives 0", "0"),
    "mine no split": (f"mine {DATA} --model model --output new.jsonl --split exam", "exam"),
    "mine all marked": (f"mine {DATA} --model model --output new.jsonl --relative 0.999999", "nothing to draw"),
    "mine to an unknown format": (
        f"mine {DATA} --model model --output new.docx --relative 0.01 --candidates 60",
        "docx",
    ),
    "run missing": ("evaluate none.trec --judgements good.qrels", r"none\.trec"),
    "judgements missing": ("evaluate good.trec --judgements none.qrels", r"none\.qrels"),
    "names twice": ("evaluate good.trec again/good.trec --judgements good.qrels", "two runs are called 'good'"),
    "qrels columns": ("evaluate good.trec --judgements columns.qrels", r"columns\.qrels, line 2"),
    "qrels grade": ("evaluate good.trec --judgements grade.qrels", r"grade\.qrels, line 2: .*'high'"),
    "qrels empty": ("evaluate good.trec --judgements empty.qrels", r"empty\.qrels: this file is empty"),
    "run score": ("evaluate bad.trec --judgements good.qrels", r"bad\.trec, line 2"),
    "unknown measure": ("evaluate good.trec --judgements good.qrels --measures beauty@10", "beauty@10"),
    "unknown baseline": ("evaluate good.trec --judgements good.qrels --baseline best", "best"),
    "search nowhere": ("search nowhere question", "there is no run folder nowhere"),
    "search what is no run": ("search plain question", "index"),
    "search an unfinished run": ("search noindex question", "resume"),
    "serve what is no run": ("serve plain", "index"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_one_line_and_status_2(
    name: str, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, expected = MISTAKES[name]
    monkeypatch.chdir(files)
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    said = [line for line in lines if not re.match(r"[A-Z][\w ,]+: \d+% after", line)]  # progress of a slow machine
    assert len(said) == 1, lines
    assert said[0].startswith("rivals: ")
    assert re.search(expected, said[0]), said[0]


def test_the_same_from_a_shell(files: Path) -> None:
    for words in ("quickstart --fast --full", "evaluate good.trec --judgements columns.qrels"):
        done = rivals(*words.split(), cwd=files)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("rivals: ")
        assert len(done.stderr.splitlines()) == 1
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    ["search", "frobnicate", "mine --output x --form poem", "serve plain --port many", "train --no-such-option"],
)
def test_usage_errors_show_what_is_expected(words: str, files: Path) -> None:
    done = rivals(*words.split(), cwd=files)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert done.stderr.strip() or done.stdout.strip()


@pytest.mark.parametrize(("k", "question", "expected"), [("0", "fever?", "k must be"), ("3", "   ", "query is empty")])
def test_search_mistakes(
    finished: Path, k: str, question: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["search", str(finished), question, "--k", k, "--device", "cpu"])
    assert ended.value.code == 2
    assert re.fullmatch(rf"rivals: .*{expected}.*\n", capsys.readouterr().err)


def test_a_damaged_run_is_one_line(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    vectors = folder / "index" / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-10])
    with pytest.raises(SystemExit) as ended:
        main(["search", str(folder), "fever?", "--device", "cpu"])
    assert ended.value.code == 2
    assert re.fullmatch(r"rivals: .*vectors\.npy.*\n", capsys.readouterr().err)


def test_changed_data_is_not_resumed(
    small: Small, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    changed = tmp_path / "documents.jsonl"
    changed.write_text(small.documents.read_text().replace("the", "THE"))
    config = folder / "config.json"
    config.write_text(config.read_text().replace(str(small.documents), str(changed)))
    with pytest.raises(SystemExit) as ended:
        main(["train", "--resume", str(folder), "--quiet"])
    assert ended.value.code == 2
    assert re.fullmatch(r"rivals: the data has changed since .*\n", capsys.readouterr().err)


def test_a_closed_pipe_is_quiet(finished: Path) -> None:
    words = f"{' '.join(map(str, _evaluate(finished)))} | true"
    from tests.workflow.small import environment

    done = subprocess.run(["bash", "-c", words], env=environment(), capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def _evaluate(finished: Path) -> list[str]:
    from tests.workflow.small import command

    return command("evaluate", finished / "runs" / "bm25.trec", "--judgements", finished / "runs" / "test.qrels")
