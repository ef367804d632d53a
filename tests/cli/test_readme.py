"""What the README shows must run as it stands there."""

from __future__ import annotations

import doctest
import re
import shutil
from pathlib import Path

import pytest

from rivals.cli import app
from tests.workflow.small import ROOT, write_small

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands, on small files of the same names, from the packaged encoder to a saved one."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) == 11  # two of them imports
    small = write_small(tmp_path / "small", queries={"train": 16, "dev": 4, "test": 4}, documents=50)
    shutil.copy(small.documents, tmp_path / "docs.jsonl")
    shutil.copy(small.pairs, tmp_path / "pairs.jsonl")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    said = capsys.readouterr().out
    for part in ("before", "after", "bm25", "queries", "marked", "nDCG@10"):
        assert part in said, part
    assert (tmp_path / "my-retriever" / "modules.json").is_file()


def test_the_session_it_shows_prints_what_it_says() -> None:
    (session,) = re.findall(r"```pycon\n(.*?)```", README, re.DOTALL)
    test = doctest.DocTestParser().get_doctest(session, {}, "README.md", "README.md", 0)
    result = doctest.DocTestRunner().run(test)
    assert (result.attempted, result.failed) == (4, 0)


def test_the_files_it_shows_are_read(tmp_path: Path) -> None:
    from rivals.data import load_dataset

    document, pair = re.findall(r"^(\{.*\})$", README, re.MULTILINE)
    (tmp_path / "docs.jsonl").write_text(document)
    (tmp_path / "pairs.jsonl").write_text(pair)
    data = load_dataset(documents=tmp_path / "docs.jsonl", pairs=tmp_path / "pairs.jsonl")
    assert (len(data.queries), len(data.documents), len(data.judgements)) == (1, 1, 1)


def test_every_command_it_shows_is_one() -> None:
    shown = re.findall(r"(?:^\$ |`|&& )rivals ([a-z]+)((?: [^`\n]*)?)", README, re.MULTILINE)
    assert {name for name, _ in shown} == {"quickstart", "train", "mine", "evaluate", "search", "serve", "losses"}
    for name, rest in shown:
        known = {option for argument in app[name].assemble_argument_collection() for option in argument.names}
        assert set(re.findall(r"--[a-z-]+", rest)) - {"--help"} <= known, (name, rest)


def test_the_first_screen_has_the_two_commands() -> None:
    screen = "\n".join(README.splitlines()[:20])
    assert 'pip install -c constraints.txt ".[quickstart]" && rivals quickstart\n' in screen
    assert 'pip install -c constraints.txt ".[dev]" && pytest\n' in screen
    assert {"quickstart", "dev"} <= set(
        re.findall(r"^([a-z-]+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    )
