"""`rivals mine`: flags and TOML spell the same pipelines; what it writes beside its file; mistakes in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from rivals.cli import main
from rivals.data import load_dataset, load_run
from rivals.negatives import MiningAudit
from rivals.negatives.export import drawn_of
from tests.workflow.small import Small, write_small

COMMON = ["--split", "train", "--device", "cpu", "--quiet", "--candidates", "40", "--negatives", "2"]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A few of the sample's questions and answers as files."""
    return write_small(tmp_path_factory.mktemp("few"), queries={"train": 24, "dev": 4, "test": 4}, documents=70)


def mine(small: Small, output: Path, *words: str) -> None:
    data = ["--documents", str(small.documents), "--pairs", str(small.pairs)]
    main_done(["mine", *data, "--output", str(output), *COMMON, *words])


def main_done(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in (0, None)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_real_questions_with_the_real_encoder(few: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """BM25 and MiniLM over a slice of the sample, two filters, and everything that lies beside the file afterwards."""
    output = tmp_path / "negatives.jsonl"
    mine(
        few,
        output,
        "--model",
        "all-MiniLM-L6-v2",
        "--filters",
        "positive-aware relative=0.1",
        "neighbour-noise neighbours=2",
    )
    said = capsys.readouterr().out
    beside = {path.name.removeprefix("negatives.jsonl") for path in tmp_path.iterdir()}
    assert beside == {"", ".audit.json", ".audit.html", ".run.parquet", ".toml"}
    rows = lines(output)
    assert f"Wrote {len(rows)} rows to {output}" in said
    assert f"rivals review {output}" in said
    audit = MiningAudit.from_json((tmp_path / "negatives.jsonl.audit.json").read_text())
    assert str(audit) in said
    assert audit.queries == 24
    assert audit.steps[0] == "bm25|dense"
    assert [step.split("(")[0] for step in audit.steps[1:]] == [
        "KnownPositives", "Duplicates", "PositiveAware", "NeighbourNoise", "Top"
    ]  # fmt: skip
    assert set(audit.proposed_by) == {"bm25", "dense"}
    data = load_dataset(documents=few.documents, pairs=few.pairs)
    run = load_run(f"{output}.run.parquet", data.queries, data.documents)
    assert len(run) == audit.proposed
    drawn = drawn_of(run)
    by_query = {row["query_id"]: row["negative_ids"] for row in rows}
    for query, row, mask in zip(run.queries.ids, drawn.candidate, drawn.mask, strict=True):
        assert by_query.get(query, []) == run.documents.ids[row[mask]].tolist()
    positives = {row["query_id"]: row["positive_id"] for row in rows}
    assert all(positives[query] not in negatives for query, negatives in by_query.items())
    page = (tmp_path / "negatives.jsonl.audit.html").read_text()
    assert "<title>Mined negatives: negatives.jsonl</title>" in page


def test_the_configuration_beside_a_file_gives_the_file_again(few: Small, tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    mine(
        few,
        first,
        "--sources",
        "bm25 k1=0.9,random",
        "--sampler",
        "ambiguous width='auto'",
        "--relative",
        "0.2",
        "--seed",
        "7",
    )
    main_done(["mine", "--config", f"{first}.toml", "--output", str(second), "--quiet"])
    assert first.read_bytes() == second.read_bytes()
    assert Path(f"{first}.toml").read_text() == Path(f"{second}.toml").read_text()
    assert Path(f"{first}.run.parquet").read_bytes() == Path(f"{second}.run.parquet").read_bytes()


def test_flags_override_the_configuration(few: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "mining.toml"
    config.write_text(
        "negatives = 3\ncandidates = 9\n[[sources]]\nkind = 'bm25'\n[[filters]]\nkind = 'positive-aware'\nabsolute = 1.0\n"
    )
    main_done(
        [
            "mine",
            "--config",
            str(config),
            "--output",
            "x.jsonl",
            "--negatives",
            "5",
            "--sampler",
            "uniform",
            "--print-config",
        ]
    )
    said = capsys.readouterr().out
    assert "negatives = 5" in said
    assert "candidates = 9" in said
    assert re.search(r'\[sampler\]\nkind = "uniform"\nwindow = 10\n', said)
    assert 'kind = "positive-aware"\nabsolute = 1.0' in said
    assert not Path("x.jsonl").exists()


def test_no_filter_and_a_fusion(few: Small, tmp_path: Path) -> None:
    config = tmp_path / "mining.toml"
    config.write_text(
        "fusion = 'rrf'\n[[sources]]\nkind = 'bm25'\n[[sources]]\nkind = 'bm25'\nname = 'plain'\nb = 0.0\n"
    )
    mine(few, tmp_path / "n.parquet", "--config", str(config), "--filters", "none", "--form", "tuples")
    audit = MiningAudit.from_json((tmp_path / "n.parquet.audit.json").read_text())
    assert audit.scorer == "rrf"
    assert set(audit.reasons) == {"known positive", "same text as a positive", "text repeated in the list"}
    assert audit.kept == audit.proposed - audit.marked


def test_a_cascade_relabels_and_labels_estimate(few: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The data's own labels as a judge, told of two answers nobody gave to mining: the cascade finds exactly these."""
    plain = tmp_path / "plain.jsonl"
    mine(few, plain, "--sources", "bm25", "--filters", "none")
    data = load_dataset(documents=few.documents, pairs=few.pairs)
    run = load_run(f"{plain}.run.parquet", data.queries, data.documents)
    ids = list(zip(run.queries.ids[run.query].tolist(), run.documents.ids[run.document].tolist(), strict=True))
    hidden = {ids[row] for row in np.flatnonzero(run.keep)[[0, 50]]}
    labels = tmp_path / "labels.tsv"
    labels.write_text(
        "query_id\tdocument_id\trelevance\n" + "".join(f"{q}\t{d}\t{int((q, d) in hidden)}\n" for q, d in ids)
    )
    config = tmp_path / "mining.toml"
    config.write_text(
        "[[sources]]\nkind = 'bm25'\n[[filters]]\nkind = 'cascade'\njudges = ['people']\n"
        "[[judges]]\nkind = 'labels'\nname = 'people'\npath = 'labels.tsv'\nhighest = 1.0\n"
        "[estimate]\njudge = 'people'\ngroups = ['drawn', 'marked']\nsample = 30\n"
    )
    mine(few, tmp_path / "clean.jsonl", "--config", str(config))
    audit = MiningAudit.from_json((tmp_path / "clean.jsonl.audit.json").read_text())
    assert audit.relabelled == 2
    drawn, marked = audit.false_negatives
    assert (drawn.of, drawn.estimate, drawn.judged) == ("drawn", 0.0, 30)
    assert (marked.of, marked.estimate, marked.size) == ("marked", 1.0, 2)
    assert "relabelled as positives" in capsys.readouterr().out
    mine(few, tmp_path / "naive.jsonl", "--sources", "bm25", "--filters", "none", "--labels", str(labels))
    (naive,) = MiningAudit.from_json((tmp_path / "naive.jsonl.audit.json").read_text()).false_negatives
    chosen = drawn_of(run).chosen(run)
    assert naive.sampled == naive.judged == chosen.sum()  # labels: all of them
    assert naive.relevant == sum(ids[row] in hidden for row in np.flatnonzero(chosen))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sources", "bm52"], "no source is called 'bm52'"),
        (["--sources", "bm25,bm25"], "different names"),
        (["--sources", "random"], "its positive .* has no score"),
        (["--filters", "positive-aware relativ=0.1"], "has no option 'relativ'"),
        (["--filters", "positive-aware relative=2"], "relative must lie between"),
        (["--filters", "positive-aware relative"], "is no option=value"),
        (["--filters", "none", "--relative", "0.1"], "--relative sets the default filter"),
        (["--sampler", "lottery"], "no sampler is called 'lottery'"),
        (["--sampler", "uniform", "--window", "1"], "a window of 1 cannot give 2"),
        (["--labels", "nowhere.tsv", "--sources", "bm25", "--relative", "0.5"], r"nowhere\.tsv"),
        (["--config", "nowhere.toml"], r"nowhere\.toml"),
        (["--negatives", "0"], "option 'negatives' = 0 is out of range"),
    ],
)
def test_mistakes_are_one_line(
    few: Small,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["--documents", str(few.documents), "--pairs", str(few.pairs)]
    common = [
        "--split",
        "train",
        "--device",
        "cpu",
        "--quiet",
        *([] if "--negatives" in words else ["--negatives", "2"]),
    ]
    with pytest.raises(SystemExit) as ended:
        main(["mine", *data, "--output", "n.jsonl", *common, *words])
    assert ended.value.code == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1, errors
    assert errors[0].startswith("rivals: ")
    assert re.search(said, errors[0]), errors[0]
    assert list(tmp_path.iterdir()) == []


def test_over_ray_it_is_the_same_file(few: Small, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'rivals[ray]' to test mining over a cluster")
    config = tmp_path / "mining.toml"
    config.write_text("block = 10\n[[sources]]\nkind = 'bm25'\n[[sources]]\nkind = 'random'\n")
    for name, engine in (("local", "local"), ("cluster", "ray")):
        mine(few, tmp_path / f"{name}.jsonl", "--config", str(config), "--sampler", "uniform", "--engine", engine)
    for ending in ("", ".run.parquet", ".audit.json", ".toml"):
        assert (tmp_path / f"local.jsonl{ending}").read_bytes() == (tmp_path / f"cluster.jsonl{ending}").read_bytes(), (
            ending
        )
    assert not (tmp_path / "cluster.jsonl.work").exists()
