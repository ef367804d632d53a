"""`rivals diagnose` on data files and on a run folder: what it prints, what it writes, and mistakes in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rivals.cli.diagnose import diagnose
from rivals.data import load_dataset
from rivals.diagnose.robustness import RobustnessReport
from rivals.errors import DataError, RivalsError
from rivals.retrieve import BM25, Index
from tests.workflow.small import Small, write_small


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A slice of the sample as files, and a tiny encoder."""
    return write_small(tmp_path_factory.mktemp("small"), queries={"train": 6, "dev": 4, "test": 16}, documents=90)


def test_bm25_on_files(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "synonyms.json"
    table.write_text(json.dumps({"Symptoms": ["signs"], "what": ["which"]}))
    diagnose(
        documents=str(small.documents),
        pairs=str(small.pairs),
        synonyms=str(table),
        conditions=2,
        sample=12,
        json=str(tmp_path / "report.json"),
        html=str(tmp_path / "report.html"),
        quiet=True,
    )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Queries that lost most" in page
    assert "typos" in page
    said = capsys.readouterr().out
    report = RobustnessReport.from_json((tmp_path / "report.json").read_text())
    assert len(report.queries) == 12
    assert report.system == "bm25"
    for name in ("typos", "synonyms", "keyword stuffing x3", "Worst queries", "conditions"):
        assert name in said
    assert "…" not in said
    assert "only a pipeline with a reranker" in report.left_out["candidate order"]


def test_an_encoder_on_files_by_name(small: Small, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    diagnose(
        documents=str(small.documents),
        pairs=str(small.pairs),
        model=str(small.model),
        perturbations=["case", "pad"],
        measure="RR@10",
        device="cpu",
        json=str(tmp_path / "report.json"),
        quiet=True,
    )
    report = RobustnessReport.from_json((tmp_path / "report.json").read_text())
    assert [result.name for result in report.results] == ["upper case", "padded in front x3"]
    assert (report.measure, report.system, len(report.queries)) == ("RR@10", "dense", 16)
    assert "RR@10" in capsys.readouterr().out


def test_a_run_folder(small: Small, tmp_path: Path) -> None:
    from rivals.workflow.config import DataConfig, ExperimentConfig
    from rivals.workflow.run_folder import RunFolder

    dataset = load_dataset(documents=small.documents, pairs=small.pairs)
    config = ExperimentConfig(data=DataConfig(documents=str(small.documents), pairs=str(small.pairs)))
    folder = RunFolder.create(tmp_path / "run", config, dataset)
    Index(dataset.documents, bm25=BM25(dataset.documents)).save(folder.index)
    diagnose(str(folder.path), perturbations=["typos"], json=str(tmp_path / "report.json"), quiet=True)
    report = RobustnessReport.from_json((tmp_path / "report.json").read_text())
    assert (report.system, len(report.queries)) == ("bm25", 16)
    with pytest.raises(RivalsError, match="has no trained retriever"):
        diagnose(str(folder.path), system="retriever", quiet=True)


def test_mistakes(small: Small, tmp_path: Path) -> None:
    data = {"documents": str(small.documents), "pairs": str(small.pairs), "quiet": True}
    (tmp_path / "bad.json").write_text("[1]")
    (tmp_path / "worse.json").write_text("{")
    for options, said in (
        ({}, "nothing to diagnose: give a run folder"),
        ({"run": "x", "model": "y"}, "a run folder is tested on its own data"),
        ({"run": str(tmp_path / "none")}, "there is no folder"),
        (data | {"sample": -1}, "--sample is -1"),
        (data | {"system": "two-stage"}, "data files bring no second stage"),
        (data | {"system": "bm25", "model": "x"}, "BM25 takes no model"),
        (data | {"folder": "x"}, "give a folder or single files, not both"),
        (data | {"split": "moon"}, "the dataset has no split 'moon'"),
        (data | {"perturbations": ["rust"]}, "no perturbation is called 'rust'; there are typos"),
        (data | {"perturbations": ["synonyms"]}, "synonyms need a table"),
        (data | {"synonyms": str(tmp_path / "bad.json")}, "must hold an object of lists"),
        (data | {"synonyms": str(tmp_path / "worse.json")}, "is not JSON"),
    ):
        with pytest.raises((RivalsError, DataError), match=re.escape(said)):
            diagnose(**options)
