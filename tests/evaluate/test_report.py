"""The HTML report: complete, self-contained, escaped, the same when rebuilt."""

from __future__ import annotations

import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rivals.errors import RivalsError, RunFolderError
from rivals.evaluate import charts
from rivals.evaluate._report import words
from rivals.evaluate.report import (
    About,
    Curve,
    Differences,
    Interval,
    Mining,
    Overlap,
    ReportData,
    ScoreStage,
    System,
    WorstQuery,
    measured,
    rebuild_report,
    render,
    save_report,
    worst_queries,
    write_report,
)
from tests.evaluate.report_example import Page, example


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report") / "report.html", example())


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("hostile") / "report.html", example(60, hostile=True))


def test_html_nests_and_has_every_section(page: Path) -> None:
    parsed = Page(page.read_text(encoding="utf-8"))
    assert parsed.stack == []
    sections = [attrs["id"] for tag, attrs in parsed.tags if tag == "section"]
    assert sections == ["results", "questions", "slices", "scores", "training", "mining", "worst", "leakage", "config"]
    links = {str(attrs["href"])[1:] for tag, attrs in parsed.tags if tag == "a"}
    assert links == set(sections)
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_the_numbers_are_on_the_page(page: Path) -> None:
    text = " ".join(" ".join(Page(page.read_text(encoding="utf-8")).texts).split())
    for wanted in (
        "3,514 documents",
        "1,738 train",
        "850 test",
        "7 min 11 s",
        "3.3 GB",
        "torch 2.13.0",
        "CC BY 4.0",
        "The best system is two stages, with nDCG@10 0.812",
        "MRR@10",
        "Recall@100",
        "Compared with BM25",
        "four times out of five",
        "By length",
        "4 to 7 words",
        "no sign that the difference differs",
        "171,233",
        "same text as a positive",
        "Relevant test answers that are positives in train",
        "rivals quickstart --seed 13",
        "23 November 2026, 12:17 UTC",
    ):
        assert wanted in text, wanted


def test_the_page_names_the_correction_that_was_used() -> None:
    holm, benjamini = "corrected by Holm's method", "Benjamini and Hochberg"
    for name, named, other in (("holm", holm, benjamini), ("benjamini-hochberg", benjamini, holm)):
        text = " ".join(html.unescape(render(replace(example(), correction=name))).split())
        assert named in text
        assert other not in text
    old = json.loads(example().to_json())
    del old["correction"]  # as written before the field was there
    assert ReportData.from_json(json.dumps(old)).correction == "holm"
    with pytest.raises(RivalsError, match="correction is 'none'"):
        replace(example(), correction="none")


def test_the_page_points_nowhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 3_000_000
    for tag, attrs in Page(text).tags:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            assert (attrs.get(name) or "#").startswith(("#", "data:,")), (tag, attrs)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in text
    assert "unsafe-eval" not in text


def test_charts_are_specified_for_every_place(page: Path) -> None:
    parsed = Page(page.read_text(encoding="utf-8"))
    specs = json.loads(parsed.scripts[0])
    places = [attrs["data-chart"] for _, attrs in parsed.tags if "data-chart" in attrs]
    assert sorted(places) == sorted(specs)
    assert len(places) == 13
    assert len(json.dumps(specs)) < 500_000


def test_hostile_text_stays_text(hostile_page: Path) -> None:
    text = hostile_page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.stack == []
    assert [tag for tag, _ in parsed.tags].count("script") == 2
    assert "img" not in [tag for tag, _ in parsed.tags]
    assert any("</script><script>document.title" in shown for shown in parsed.texts)


def test_hostile_names_in_chart_specs_cannot_end_the_script() -> None:
    data = example(40)
    name = "</script><script>alert(1)</script>"
    systems = (*data.systems, System(name, data.systems[0].measures))
    parsed = Page(render(ReportData(data.title, data.about, systems)))
    assert [tag for tag, _ in parsed.tags].count("script") == 2
    assert name in json.dumps(json.loads(parsed.scripts[0]))


def test_smallest_report() -> None:
    about = About("tiny", 2, {"test": 1}, 1, "nothing", "2026-01-01T00:00:00", 0.5, 0)
    data = ReportData("Tiny", about, (System("only", {"nDCG@10": Interval(1, 1, 1)}),))
    parsed = Page(render(data))
    assert [attrs["id"] for tag, attrs in parsed.tags if tag == "section"] == ["results", "config"]
    assert "only reaches nDCG@10 1.000" in " ".join(parsed.texts)


def test_empty_parts_do_not_break_the_page() -> None:
    data = example(40)
    odd = ReportData(
        data.title,
        data.about,
        data.systems,
        differences=(Differences("fusion", "BM25", "nDCG@10", ()),),
        scores=ScoreStage.of({"before": ([], [], [])}),
        curves=(Curve("Retriever", ()),),
        mining=Mining(0, 0, {}, 0, 0),
        worst=(WorstQuery("q", "text", {}, {"BM25": ()}),),
        leakage=(Overlap("x", 0, 0),),
    )
    assert Page(render(odd)).stack == []


def test_json_round_trip_and_rebuild(tmp_path: Path) -> None:
    data = example(50)
    assert ReportData.from_json(data.to_json()) == data
    path = save_report(tmp_path, data)
    first = path.read_bytes()
    path.unlink()
    assert rebuild_report(tmp_path).read_bytes() == first
    (tmp_path / "report.json").write_text('{"title": 3}')
    with pytest.raises(RunFolderError, match=r"report\.json is not the data of a report"):
        rebuild_report(tmp_path)
    with pytest.raises(RunFolderError, match="not been evaluated"):
        rebuild_report(tmp_path / "nowhere")


def test_wrong_data_is_refused() -> None:
    data = example(20)
    with pytest.raises(RivalsError, match="at least one system"):
        ReportData("t", data.about, ())
    with pytest.raises(RivalsError, match="same name"):
        ReportData("t", data.about, (data.systems[0], data.systems[0]))
    with pytest.raises(RivalsError, match=r"has no P@5"):
        ReportData("t", data.about, data.systems, primary="P@5")
    with pytest.raises(RivalsError, match="unknown systems: nobody"):
        ReportData("t", data.about, data.systems, tie_groups=(("nobody", "BM25"),))
    with pytest.raises(RivalsError, match="finite"):
        Interval(0.5, float("nan"), 1)
    with pytest.raises(RivalsError, match="not finite"):
        ScoreStage.of({"before": ([math.inf], [0.0], [])})


def test_tied_systems_are_not_shown_as_an_order() -> None:
    data = example(40)
    tied = ReportData(
        data.title,
        data.about,
        data.systems,
        tie_groups=(("two stages", "trained encoder"), ("fusion", "untrained encoder"), ("BM25",)),
    )
    names = [[system.name for system in block] for block in words.order_in_blocks(tied)]
    assert names == [["trained encoder", "two stages"], ["fusion", "untrained encoder"], ["BM25"]]
    assert words.verdict(tied).startswith("The best systems are trained encoder and two stages: this test set cannot")
    assert words.ties(tied) == [("A", ("trained encoder", "two stages")), ("B", ("fusion", "untrained encoder"))]


def test_overlapping_ties_keep_their_groups() -> None:
    data = example(40)
    groups = (("BM25", "fusion"), ("fusion", "untrained encoder"))
    tied = ReportData(data.title, data.about, data.systems, tie_groups=groups)
    assert [len(block) for block in words.order_in_blocks(tied)] == [1, 1, 3]
    assert sorted(words.ties(tied)) == [("A", ("fusion", "untrained encoder")), ("B", ("BM25", "fusion"))]


def test_parts_from_an_evaluation_and_its_runs() -> None:
    from rivals.data.collection import Collection
    from rivals.data.dataset import Dataset, Judgements
    from rivals.data.run import Run
    from rivals.evaluate.evaluation import evaluate

    texts = [f"question {i}" if i < 20 else f"a longer question {i}" for i in range(30)]
    queries = Collection([f"q{i}" for i in range(30)], texts, name="query")
    documents = Collection([f"d{i}" for i in range(40)], [f"answer {i}" for i in range(40)])
    judgements = Judgements.build(range(30), range(30), [1] * 30, queries=30, documents=40)
    data = Dataset(queries, documents, judgements, name="tiny", splits={"test": np.arange(30)})

    def run(first: int) -> Run:  # the relevant document stands at place `first`
        order = [(q + (j - first) % 10) % 40 for q in range(30) for j in range(10)]
        return Run.build(
            queries, documents, range(0, 301, 10), order, [1 - j / 10 for _ in range(30) for j in range(10)]
        )

    runs = {"low": run(4), "high": run(0), "same": run(0)}
    evaluation = evaluate(runs, data, baselines=["low"], slices=["length", "split"], resamples=200, permutations=200)
    parts = measured(evaluation, descriptions={"low": "weak"}, milliseconds={"high": 2.0}, pairs=[("high", "low")])
    worst = worst_queries(evaluation, runs, data, system="low", n=2)
    about = About("tiny", 40, {"test": 30}, 30, "nothing", "2026-01-01", 1.0, 0)
    report = ReportData("t", about, **parts._asdict(), worst=worst, worst_of="low")
    assert sorted(sorted(group) for group in report.tie_groups) == [["high", "same"], ["low"]]
    assert words.best_names(report) == ["high", "same"]
    assert report.differences[0].values == pytest.approx([1 - 1 / math.log2(6)] * 30)
    assert [hit.relevant for hit in worst[0].returned["high"]] == [True, False, False]
    assert worst[0].relevant == (f"answer {worst[0].id[1:]}",)
    assert worst[0].returned["high"][0].text == worst[0].relevant[0]
    (view,) = report.slices  # all queries are in one split, so there is nothing to show by it
    assert [(part.label, part.queries) for part in view.slices] == [("2 words", 20), ("4 words", 10)]
    assert view.slices[1].means["low"].value == pytest.approx(1 / math.log2(6))
    assert any("Too small to be tested" in line for line in view.findings)
    assert ReportData.from_json(report.to_json()).systems == report.systems
    assert ReportData.from_json(report.to_json()).slices == report.slices
    assert "The best systems are high and same" in " ".join(Page(render(report)).texts)
    with pytest.raises(RivalsError, match="no system is called 'nobody'"):
        measured(evaluation, milliseconds={"nobody": 1.0})
    with pytest.raises(RivalsError, match="no run was given for same"):
        worst_queries(evaluation, {k: v for k, v in runs.items() if k != "same"}, data, system="low")


def test_charts_stay_small_on_large_data() -> None:
    rng = np.random.default_rng(0)
    data = example(20)
    many = Differences("fusion", "BM25", "nDCG@10", tuple(rng.normal(0.1, 0.3, 100_000).tolist()))
    assert len(json.dumps(charts.differences(many, data.systems).to_dict())) < 90_000
    long = Curve("Retriever", tuple((s, 1 / (s + 1)) for s in range(50_000)))
    assert len(json.dumps(charts.loss_curve(long).to_dict())) < 60_000


def test_colours_are_the_same_everywhere() -> None:
    css = (Path(charts.__file__).parent / "_report" / "report.css").read_text()
    light = css[: css.index("@media")]
    for colour, name in charts.CSS_NAMES.items():
        assert re.search(rf"{name}: {colour};", light), (name, colour)


def test_a_system_keeps_its_colour() -> None:
    data = example(30)
    spec = json.dumps(charts.differences(data.differences[0], data.systems).to_dict())
    colours = charts.system_colours([s.name for s in data.systems])
    assert colours["trained encoder"] in spec
    assert colours["untrained encoder"] in spec
    assert colours["BM25"] not in spec


def test_bundled_scripts_are_safe_inside_html() -> None:
    folder = Path(charts.__file__).parent / "_report"
    scripts = sorted(folder.glob("*.js"))
    assert len(scripts) == 4
    assert sum(p.stat().st_size for p in scripts) < 1_000_000
    for script in scripts:
        text = script.read_bytes().decode()
        assert not [part for part in ("</script", "</SCRIPT", "<!--", "\r", "\0", "sourceMappingURL") if part in text]
    third_party = (folder / "THIRD_PARTY.md").read_text()
    assert all(p.name in third_party for p in scripts if p.name.endswith(".min.js"))
