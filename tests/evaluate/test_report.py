"""The HTML report: complete, self-contained, escaped, drawn by a real browser without any request."""

from __future__ import annotations

import html.parser
import json
import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rivals.errors import RivalsError, RunFolderError
from rivals.evaluate import charts
from rivals.evaluate._report import words
from rivals.evaluate.report import (
    About,
    Comparison,
    Curve,
    Differences,
    Hit,
    Interval,
    Mining,
    Overlap,
    ReportData,
    ScoreStage,
    Suspect,
    System,
    WorstQuery,
    rebuild_report,
    save_report,
    write_report,
)

MEASURES = {"nDCG@10": 0.0, "RR@10": -0.02, "R@10": 0.08, "R@100": 0.16, "P@1": -0.11}
SYSTEMS = {
    "BM25": (0.452, 0.4, "words in common, stemmed"),
    "untrained encoder": (0.668, 3.1, "all-MiniLM-L6-v2 as published"),
    "fusion": (0.661, 3.6, "BM25 and the untrained encoder, reciprocal ranks"),
    "trained encoder": (0.788, 3.1, "info_nce over in-batch and mined negatives"),
    "two stages": (0.812, 21.4, "trained encoder, then late interaction over its first 50"),
}
HOSTILE = "</script><script>document.title='broken'</script><!-- <img src=x onerror=alert(1)> & \u2028 \"quoted\" 'x'"


def example(queries: int = 850, *, hostile: bool = False, seed: int = 0) -> ReportData:
    """Random but plausible data of a quickstart run."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0, 1, queries)
    per_query: dict[str, np.ndarray] = {}
    for name, (mean, _, _) in SYSTEMS.items():
        latent = 0.8 * ease + 0.6 * rng.normal(0, 1, queries) + (mean - 0.5) * 3.3
        rank = np.exp(np.clip(2.2 - 1.9 * latent, -1, 5)).astype(int)
        per_query[name] = np.where(rank < 10, 1 / np.log2(rank + 2), 0.0)
    systems = tuple(
        System(name, {m: _around(mean + shift, queries, rng) for m, shift in MEASURES.items()}, about, ms, ms * 1.7)
        for name, (mean, ms, about) in SYSTEMS.items()
    )
    comparisons = tuple(
        _compare(a, b, m, np.clip(per_query[a] + MEASURES[m], 0, 1) - np.clip(per_query[b] + MEASURES[m], 0, 1))
        for m in MEASURES
        for b in ("BM25", "untrained encoder")
        for a in SYSTEMS
        if a != b and not (a == "BM25" and b == "untrained encoder")
    )
    pairs = (("trained encoder", "untrained encoder"), ("two stages", "trained encoder"))
    differences = tuple(Differences(a, b, "nDCG@10", tuple((per_query[a] - per_query[b]).tolist())) for a, b in pairs)
    scores = ScoreStage.of(
        {
            "before training": (rng.normal(0.72, 0.11, 1738), rng.normal(0.49, 0.13, 20000), rng.normal(0.74, 0.06, 700)),
            "after training": (rng.normal(0.79, 0.09, 1738), rng.normal(0.36, 0.15, 20000), rng.normal(0.77, 0.07, 420)),
        }
    )
    steps = range(1, 241)
    loss = tuple((s, float(0.5 + 2.1 * math.exp(-s / 50) + rng.normal(0, 0.12))) for s in steps)
    dev = tuple((s, float(0.80 - 0.125 * math.exp(-s / 45) - max(0, s - 180) * 1e-4 + rng.normal(0, 0.002))) for s in range(0, 241, 20))
    kept = max(dev, key=lambda pair: pair[1])[0]
    question = "What are the symptoms of Adult Acute Lymphoblastic Leukemia ?"
    answer = (
        "Signs and symptoms of adult ALL include fever, feeling tired, and easy bruising or bleeding. The early signs and symptoms of "
        "ALL may be like the flu or other common diseases. Check with your doctor if you have weakness, fever or drenching night sweats."
    )
    other = (
        "Key Points - Adult acute lymphoblastic leukemia (ALL) is a type of cancer in which the bone marrow makes too many lymphocytes "
        "(a type of white blood cell). - Leukemia may affect red blood cells, white blood cells, and platelets. " * 4
    )
    if hostile:
        question, answer, other = (f"{text} {HOSTILE}" for text in (question, answer, other))
    worst = tuple(
        WorstQuery(
            f"01-{i:07d}_1-2",
            question if not i else f"How is the inheritance of disease {i} described ?",
            {name: float(rng.choice([0, 0, 0.29, 0.43])) if name != "two stages" else 0.0 for name in SYSTEMS},
            {
                name: tuple(Hit(f"01-{rng.integers(9999):07d}", [other, answer, other][j], j == 1 and name == "BM25", 0.9 - 0.05 * j) for j in range(3))
                for name in SYSTEMS
            },
            (answer,),
        )
        for i in range(8)
    )
    return ReportData(
        title=f"MedQuAD sample: search over medical answers{HOSTILE if hostile else ''}",
        about=About(
            dataset="MedQuAD sample",
            documents=3514,
            queries={"train": 1738, "dev": 275, "test": queries},
            judgements=3551,
            trained="all-MiniLM-L6-v2 with info_nce over in-batch and mined negatives; then late interaction over its token vectors.",
            started="2026-11-23T12:17:05+00:00",
            seconds=431.2,
            seed=13,
            peak_memory_bytes=3_310_000_000,
            versions={"rivals": "0.1.0", "Python": "3.11.9", "torch": "2.13.0", "transformers": "5.2.0", "altair": "6.3.0"},
            attribution="MedQuAD, Ben Abacha and Demner-Fushman 2019, CC BY 4.0.",
            machine="2 CPU cores, bfloat16, 8 GB",
            command="rivals quickstart --seed 13",
            notes=("12 answers longer than 256 tokens were cut.",),
        ),
        systems=systems,
        tie_groups=(("BM25",), ("untrained encoder", "fusion"), ("trained encoder",), ("two stages",)),
        comparisons=comparisons,
        differences=differences,
        scores=scores,
        curves=(
            Curve("Retriever", loss, dev, "nDCG@10", kept),
            Curve("Second stage", tuple((s, 0.4 + v / 3) for s, v in loss[:90]), tuple((s, v + 0.02) for s, v in dev[:5]), "nDCG@10", 60),
        ),
        mining=Mining(
            queries=1738,
            proposed=171_233,
            marked={"scores above 95% of the positive": 9_204, "same text as a positive": 311, "known positive": 1_850},
            kept=160_121,
            drawn=13_904,
            proposed_by={"BM25": 86_900, "dense": 86_900},
            examples=tuple(Suspect(question, answer, other, "scores above 95% of the positive", 0.74, 0.73 + 0.01 * i) for i in range(3)),
        ),
        worst=worst,
        worst_of="two stages",
        leakage=(
            Overlap("Test questions that are also asked in train", 0, queries, "None was seen in training."),
            Overlap(
                "Relevant test answers that are positives in train", 14, 861, "A few answers are shared by several diseases.", (answer,)
            ),
        ),
        config={"model": "all-MiniLM-L6-v2", "training": {"batch": 64, "temperature": 0.05, "note": HOSTILE if hostile else ""}},
    )


def _around(mean: float, n: int, rng: np.random.Generator) -> Interval:
    half = 1.96 * 0.40 / math.sqrt(n)
    return Interval(mean, mean - half * rng.uniform(0.9, 1.1), min(mean + half * rng.uniform(0.9, 1.1), 1))


def _compare(system: str, baseline: str, measure: str, values: np.ndarray) -> Comparison:
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    error = spread / math.sqrt(len(values))
    p = math.erfc(abs(mean / error) / math.sqrt(2))
    interval = Interval(mean, mean - 1.96 * error, mean + 1.96 * error)
    return Comparison(system, baseline, measure, interval, p, min(1, 4 * p), mean / spread, 2.8 * error)


class _Page(html.parser.HTMLParser):
    """Collects elements, checks that they nest."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes {self.stack[-3:]}"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "script":
            self.scripts.append(data)
        elif data.strip() and (not self.stack or self.stack[-1] != "style"):
            self.texts.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report") / "report.html", example())


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("hostile") / "report.html", example(60, hostile=True))


def test_html_nests_and_has_every_section(page: Path) -> None:
    parsed = _Page(page.read_text(encoding="utf-8"))
    assert parsed.stack == []
    sections = [attrs["id"] for tag, attrs in parsed.tags if tag == "section"]
    assert sections == ["results", "questions", "scores", "training", "mining", "worst", "leakage", "config"]
    links = {str(attrs["href"])[1:] for tag, attrs in parsed.tags if tag == "a"}
    assert links == set(sections)
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_the_numbers_are_on_the_page(page: Path) -> None:
    text = " ".join(" ".join(_Page(page.read_text(encoding="utf-8")).texts).split())
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
        "171,233",
        "same text as a positive",
        "Relevant test answers that are positives in train",
        "rivals quickstart --seed 13",
        "23 November 2026, 12:17 UTC",
    ):
        assert wanted in text, wanted


def test_the_page_points_nowhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 3_000_000
    for tag, attrs in _Page(text).tags:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            assert (attrs.get(name) or "#").startswith(("#", "data:,")), (tag, attrs)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in text and "unsafe-eval" not in text


def test_charts_are_specified_for_every_place(page: Path) -> None:
    parsed = _Page(page.read_text(encoding="utf-8"))
    specs = json.loads(parsed.scripts[0])
    places = [attrs["data-chart"] for _, attrs in parsed.tags if "data-chart" in attrs]
    assert sorted(places) == sorted(specs) and len(places) == 13
    assert len(json.dumps(specs)) < 500_000


def test_hostile_text_stays_text(hostile_page: Path) -> None:
    text = hostile_page.read_text(encoding="utf-8")
    parsed = _Page(text)
    assert parsed.stack == []
    assert [tag for tag, _ in parsed.tags].count("script") == 2
    assert "img" not in [tag for tag, _ in parsed.tags]
    assert any("</script><script>document.title" in shown for shown in parsed.texts)


def test_hostile_names_in_chart_specs_cannot_end_the_script() -> None:
    data = example(40)
    name = "</script><script>alert(1)</script>"
    systems = (*data.systems, System(name, data.systems[0].measures))
    from rivals.evaluate.report import render

    parsed = _Page(render(ReportData(data.title, data.about, systems)))
    assert [tag for tag, _ in parsed.tags].count("script") == 2
    assert name in json.dumps(json.loads(parsed.scripts[0]))


def test_smallest_report() -> None:
    from rivals.evaluate.report import render

    about = About("tiny", 2, {"test": 1}, 1, "nothing", "2026-01-01T00:00:00", 0.5, 0)
    data = ReportData("Tiny", about, (System("only", {"nDCG@10": Interval(1, 1, 1)}),))
    parsed = _Page(render(data))
    assert [attrs["id"] for tag, attrs in parsed.tags if tag == "section"] == ["results", "config"]
    assert "only reaches nDCG@10 1.000" in " ".join(parsed.texts)


def test_empty_parts_do_not_break_the_page() -> None:
    from rivals.evaluate.report import render

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
    assert _Page(render(odd)).stack == []


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
    tied = ReportData(data.title, data.about, data.systems, tie_groups=(("two stages", "trained encoder"), ("fusion", "untrained encoder"), ("BM25",)))
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
    assert colours["trained encoder"] in spec and colours["untrained encoder"] in spec and colours["BM25"] not in spec


def test_bundled_scripts_are_safe_inside_html() -> None:
    folder = Path(charts.__file__).parent / "_report"
    scripts = sorted(folder.glob("*.js"))
    assert len(scripts) == 4 and sum(p.stat().st_size for p in scripts) < 1_000_000
    for script in scripts:
        text = script.read_bytes().decode()
        assert "</script" not in text.lower() and "<!--" not in text and "\r" not in text and "\0" not in text
        assert "sourceMappingURL" not in text
    third_party = (folder / "THIRD_PARTY.md").read_text()
    assert all(p.name in third_party for p in scripts if p.name.endswith(".min.js"))


# ------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    reason = "no Chromium: install it (Debian: apt-get install chromium) to test how the report is drawn"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _dump(browser: str, page: Path, folder: Path) -> tuple[str, list[str]]:
    """Return the document after scripts ran, and the addresses the page asked for."""
    log = folder / "net.json"
    subprocess_flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={log}",
        "--virtual-time-budget=8000",
        "--dump-dom",
    ]
    done = subprocess.run([browser, *subprocess_flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, sorted(set(re.findall(r'"url":"([^"]+)"', log.read_text(errors="replace"))))


def test_a_browser_draws_every_chart_and_asks_for_nothing(browser: str, page: Path, tmp_path: Path) -> None:
    document, addresses = _dump(browser, page, tmp_path)
    hosts = re.findall(r'<div data-chart="([^"]+)" class="([^"]*)"', document)
    assert len(hosts) == 13
    assert all("drawn" in classes for _, classes in hosts), hosts
    assert document.count("<svg") >= 13
    assert "could not be drawn" not in document.split("<script")[0]
    assert [a for a in addresses if a.startswith(("http:", "https:", "ws:", "ftp:"))] == []


def test_a_browser_runs_no_script_from_texts(browser: str, hostile_page: Path, tmp_path: Path) -> None:
    document, _ = _dump(browser, hostile_page, tmp_path)
    assert "<title>broken" not in document
    assert document.count("<svg") >= 13
