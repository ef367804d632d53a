"""`rivals losses` and `rivals measures`, through the command."""

from __future__ import annotations

import re

import pytest

from rivals.catalogue import entries
from rivals.cli import app, main
from tests.workflow.small import rivals


def said(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in (0, None)
    return capsys.readouterr().out


def names(text: str) -> list[str]:
    """Return the names that stand at the beginning of a table's lines."""
    return [name for name in re.findall(r"^(\w+)  +\S", text, re.MULTILINE) if name != "name"]


def test_the_command_prints_every_loss() -> None:
    done = rivals("losses")
    assert done.returncode == 0, done.stderr
    losses = [entry for entry in entries() if entry.kind == "loss"]
    assert sorted(names(done.stdout)) == sorted(entry.name for entry in losses)
    provided = sum(entry.status == "provided" for entry in losses)
    assert f"\n{provided} losses. One of them: rivals losses " in done.stdout
    assert "…" not in done.stdout
    assert re.search(r"^lists: the scores of each query's candidates", done.stdout, re.MULTILINE)
    assert re.search(r"^info_nce +InfoNCE over given scores", done.stdout, re.MULTILINE)
    assert re.search(r"^ctc .* torch *$", done.stdout, re.MULTILINE)


def test_one_loss_shows_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    text = said("losses", "info_nce", capsys=capsys)
    (entry,) = [entry for entry in entries() if (entry.kind, entry.name) == ("loss", "info_nce")]
    fields = (entry.summary, entry.formula, entry.shapes, entry.when, entry.relations, entry.source, entry.raises)
    for field in (*fields, entry.example):
        for line in field.splitlines():
            assert line.strip() in text
    for heading in ("Formula", "Shapes", "When to use", "Relations", "Source", "Raises", "Example"):
        assert f"\n{heading}\n" in text
    assert "from rivals.losses import info_nce_loss\n" in text
    assert "temperature=0.05" in text
    assert "Papers: 1, 3, 7" in text


@pytest.mark.parametrize("name", ["RankNet", "pairwise_logistic_loss", "Pairwise-Logistic"])
def test_names_people_use(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said("losses", name, capsys=capsys).startswith("pairwise_logistic (loss)\n")


def test_parts_and_named_preference_losses(capsys: pytest.CaptureFixture[str]) -> None:
    assert said("losses", "FeatureQueue", capsys=capsys).startswith("FeatureQueue (part)\n")
    text = said("losses", "simpo", capsys=capsys)
    assert 'from rivals.losses import PREFERENCE_LOSSES\nPREFERENCE_LOSSES["simpo"](logps, relevance' in text
    assert said("losses", "ssim", capsys=capsys).endswith("Provided by: not provided\n")


def test_lists_by_paper_task_and_form(capsys: pytest.CaptureFixture[str]) -> None:
    by_paper = names(said("losses", "--paper", "41", capsys=capsys))
    assert {"multi_similarity", "in_batch_multi_similarity", "pair_weights"} <= set(by_paper)
    by_task = names(said("losses", "--task", "ranking", capsys=capsys))
    assert {"lambda", "list_mle", "pairwise_logistic"} <= set(by_task)
    assert "huber" not in by_task
    by_form = said("losses", "--form", "labelled rows", capsys=capsys)
    assert "in_batch_triplet" in names(by_form)
    assert "lists:" not in by_form
    both = names(said("losses", "--task", "ranking", "--form", "targets", capsys=capsys))
    assert "listwise_kl" in both
    assert "lambda" not in both


def test_a_paper_with_parts_alone(capsys: pytest.CaptureFixture[str]) -> None:
    text = said("losses", "--paper", "66", capsys=capsys)
    assert "combine_gradients" in names(text)
    assert re.search(r"\n\d+ parts\. One of them: rivals losses ", text)


def test_parts_are_listed_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert "hardest_negatives" not in names(said("losses", capsys=capsys))
    assert "hardest_negatives" in names(said("losses", "--parts", capsys=capsys))


def test_measures(capsys: pytest.CaptureFixture[str]) -> None:
    text = said("measures", capsys=capsys)
    measures = [entry for entry in entries() if entry.kind == "measure"]
    assert sorted(names(text)) == sorted(entry.name for entry in measures)
    assert "One of them: rivals measures " in text
    assert "bootstrap_interval" in names(said("measures", "--parts", capsys=capsys))
    shown = said("measures", "nDCG@10", capsys=capsys)
    assert shown.startswith("ndcg (measure)\n")
    assert "Järvelin" in shown
    assert said("measures", "f1", capsys=capsys).startswith("f_score (measure)\n")


MISTAKES = {
    "losses info_nc": r"no loss is called 'info_nc'; did you mean info_nce",
    "losses qqqq": r"no loss is called 'qqqq'; `rivals losses` and `rivals measures` list them all",
    "losses --task sorting": "no task is called 'sorting'; there are regression, binary",
    "losses --form cubes": "no form is called 'cubes'; there are lists, targets",
    "losses --paper 2": r"no loss is from paper 2; papers with one: 1, 3,",
    "losses --task rag --form targets": "no loss is for rag and of the form targets",
    "losses info_nce --paper 1": "not both",
    "measures beauty": "no measure is called 'beauty'",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_one_line(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(rf"rivals: .*{MISTAKES[words]}.*\n", printed.err)


@pytest.mark.parametrize("name", ["losses", "measures"])
def test_help_has_an_example_and_every_task(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from rivals.catalogue import FORMS, TASKS

    text = said(name, "--help", capsys=capsys)
    assert f"Example: rivals {name}" in text
    flat = re.sub(r"[│\s]+", " ", text)
    assert [task for task in TASKS if task not in flat] == []
    if name == "losses":
        assert [form for form in FORMS if form not in flat] == []
    options = app[name].assemble_argument_collection()
    assert [option.name for option in options if option.name not in text] == []


def test_asking_for_help_loads_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys\nfrom rivals.cli import main\ntry: main(['losses', '--help'])\nexcept SystemExit: pass\n"
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True, capture_output=True)
