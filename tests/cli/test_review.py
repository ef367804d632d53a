"""`rivals review`: suspects in the terminal and on sheets; answers add up and become labels."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from rivals.cli import main
from rivals.data import load_dataset, load_run
from rivals.negatives import MiningAudit
from tests.workflow.small import Small, write_small


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Small, Path]:
    """A mined file and everything beside it."""
    small = write_small(tmp_path_factory.mktemp("few"), queries={"train": 24, "dev": 4, "test": 4}, documents=70)
    output = tmp_path_factory.mktemp("mined") / "n.jsonl"
    data = ["--documents", str(small.documents), "--pairs", str(small.pairs), "--split", "train"]
    run(["mine", *data, "--output", str(output), "--sources", "bm25", "--relative", "0.3", "--quiet"])
    return small, output


@pytest.fixture
def output(mined: tuple[Small, Path], tmp_path: Path) -> Path:
    """A copy of the mined file that a test may write beside."""
    for path in mined[1].parent.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path / mined[1].name


def run(words: list[str], code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert (ended.value.code or 0) == code


def fill(sheet: Path, answers: list[str]) -> list[tuple[str, str]]:
    """Write answers into the column `relevant` as a spreadsheet would, and return the pairs."""
    with open(sheet, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row, answer in zip(rows, answers, strict=False):
        row["relevant"] = answer
    with open(sheet, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return [(row["query_id"], row["document_id"]) for row in rows]


def test_suspects_are_listed_with_their_texts(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["review", str(output), "--limit", "4"])
    said = capsys.readouterr().out
    audit = MiningAudit.from_json(Path(f"{output}.audit.json").read_text())
    assert re.search(rf"4 of {audit.suspects:,} suspected false negatives", said)
    assert said.count("positive-aware relative 0.3") == 4
    assert "labelled positive" in said
    data = json.loads(Path(output).read_text().splitlines()[0])
    assert data["query"]
    run(["review", f"{output}.run.parquet", "--limit", "4"])
    assert capsys.readouterr().out == said  # the run file is as good


def test_a_review_in_two_goes(
    mined: tuple[Small, Path], output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "a.tsv"
    run(["review", str(output), "--limit", "3", "--sheet", str(sheet)])
    first = fill(sheet, ["yes", "no", ""])
    run(["review", str(output), "--apply", str(sheet)])
    said = capsys.readouterr().out
    assert "2 new answers, 0 changed" in said
    again = tmp_path / "b.tsv"
    run(["review", str(output), "--limit", "3", "--sheet", str(again)])
    assert "2 were answered before" in capsys.readouterr().out
    second = fill(again, ["y", "?", "n"])
    assert not set(first[:2]) & set(second)
    assert first[2] in second  # still open
    run(["review", str(output), "--apply", str(again), "--judgements", str(tmp_path / "j.qrels")])
    assert "2 new answers, 0 changed, 0 as before; of 4 reviewed candidates 2 are relevant" in capsys.readouterr().out
    data = load_dataset(documents=mined[0].documents, pairs=mined[0].pairs)
    reviewed = load_run(f"{output}.reviewed.parquet", data.queries, data.documents)
    labels = {
        (q, d): (int(label), bool(keep))
        for q, d, label, keep in zip(
            reviewed.queries.ids[reviewed.query],
            reviewed.documents.ids[reviewed.document],
            reviewed.label,
            reviewed.keep,
            strict=True,
        )
    }
    assert [labels[pair] for pair in (first[0], first[1], second[0], second[2])] == [
        (1, False),
        (0, True),
        (1, False),
        (0, True),
    ]
    judged = {tuple(line.split()[::2]): line.split()[3] for line in (tmp_path / "j.qrels").read_text().splitlines()}
    assert judged[first[0]] == judged[second[0]] == "1"
    assert judged[first[1]] == judged[second[2]] == "0"
    known = data.judgements.positives
    assert len(judged) == 4 + sum(
        1 for row in range(len(data.queries)) if data.queries.ids[row] in {q for q, _ in judged}
        for _ in range(known.offsets[row], known.offsets[row + 1])
    )  # fmt: skip


def test_judgements_train(mined: tuple[Small, Path], output: Path, tmp_path: Path) -> None:
    """What a review leaves is a file of judgements that loads beside the documents and queries."""
    run(["review", str(output), "--limit", "2", "--sheet", str(tmp_path / "a.tsv")])
    (pair, _) = fill(tmp_path / "a.tsv", ["yes", "no"])
    run(["review", str(output), "--apply", str(tmp_path / "a.tsv")])
    data = load_dataset(documents=mined[0].documents, pairs=mined[0].pairs)
    queries = tmp_path / "queries.jsonl"
    queries.write_text(
        "".join(
            json.dumps({"id": i, "text": t}) + "\n" for i, t in zip(data.queries.ids, data.queries.texts, strict=True)
        )
    )
    cleaned = load_dataset(documents=mined[0].documents, queries=queries, judgements=f"{output}.judgements.jsonl")
    positives = cleaned.judgements.positives
    row = cleaned.queries.row(pair[0])
    ids = cleaned.documents.ids[positives.document[positives.offsets[row] : positives.offsets[row + 1]]]
    assert pair[1] in ids


def test_drawn_negatives_are_judged_for_the_rate(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "drawn.tsv"
    run(["review", str(output), "--of", "drawn", "--limit", "12", "--seed", "3", "--sheet", str(sheet)])
    assert "12 of" in capsys.readouterr().out
    fill(sheet, ["yes", "yes", *["no"] * 10])
    run(["review", str(output), "--apply", str(sheet)])
    said = capsys.readouterr().out
    assert "(2 of 12 judged by review" in said
    (rate,) = MiningAudit.from_json(Path(f"{output}.audit.json").read_text()).false_negatives
    assert (rate.judged, rate.relevant, rate.judge) == (12, 2, "review")
    assert rate.low < 2 / 12 < rate.high
    assert "false negatives" in Path(f"{output}.audit.html").read_text()


def test_a_run_without_its_data_shows_ids(output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = tmp_path / "alone.parquet"
    shutil.copy(f"{output}.run.parquet", alone)
    run(["review", str(alone), "--limit", "1"])
    assert "holds ids only" in capsys.readouterr().out
    run(["review", str(alone), "--limit", "1", "--folder", str(tmp_path / "nowhere")], code=2)
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        (
            "query_id\tdocument_id\trelevant\nq404\td\tyes\n",
            [],
            r"s\.tsv, line 2: no query of the run has the id 'q404'",
        ),
        ("query_id\tdocument_id\trelevant\n{q}\td404\tyes\n", [], r"line 2: no document of the run has the id 'd404'"),
        ("query_id\tdocument_id\trelevant\n{q}\t{d}\tmaybe\n", [], "line 2: the answer 'maybe'"),
        ("query_id\tdocument_id\trelevant\n{q}\t{d}\t\n", [], "no answer yet"),
        ("query_id\tdocument_id\trelevant\n{q}\t{d}\tyes\n", ["--output", "x.trec"], r"let its name end in \.parquet"),
        ("query_id\tdocument_id\trelevant\n{q}\t{d}\tyes\n", ["--sheet", "y.tsv"], "give one of them"),
    ],
)
def test_bad_answers_change_nothing(
    mined: tuple[Small, Path],
    output: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str,
    words: list[str],
    said: str,
) -> None:
    stored = load_run(f"{output}.run.parquet")
    suspect = next(row for row in range(len(stored)) if not stored.keep[row] and stored.label[row] != 1)
    ids = {"q": stored.queries.ids[stored.query[suspect]], "d": stored.documents.ids[stored.document[suspect]]}
    (tmp_path / "s.tsv").write_text(content.format(**ids))
    before = sorted(path.name for path in tmp_path.iterdir())
    run(["review", str(output), "--apply", str(tmp_path / "s.tsv"), *words], code=2)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert re.search(said, errors[0]), errors[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_mistakes(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        ([str(output.parent / "none.jsonl")], "there is no file"),
        ([str(output), "--limit", "0"], "--limit must be 1"),
        ([str(output), "--output", "x.parquet"], "go with --apply"),
        ([f"{output}.toml"], "columns where 6 are wanted|not"),
    ):
        run(["review", *words], code=2)
        assert re.search(said, capsys.readouterr().err)
