"""The page and the charts of a mining audit: everything is said, drawn in a real browser, and no text becomes markup."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from rivals.data import Collection, Run
from rivals.errors import RivalsError
from rivals.evaluate import mining_charts
from rivals.evaluate.mining_report import mining_specs, render_mining, write_mining_report
from rivals.negatives import KnownPositives, MiningAudit, PositiveAware, Top
from rivals.negatives.false_negatives import estimate_false_negatives

HOSTILE = "<script>document.title='broken'</script></script><b>&"


@pytest.fixture(scope="module")
def audit() -> MiningAudit:
    generator = np.random.default_rng(0)
    queries, documents = 40, 60
    scores = generator.random((queries, documents)).astype(np.float32)
    positive = generator.integers(0, documents, queries)
    scores[np.arange(queries), positive] = 0.8
    run = Run.build(
        Collection([f"q{i}" for i in range(queries)], [f"{HOSTILE} {i}" for i in range(queries)], name="query"),
        Collection([f"d{i}" for i in range(documents)], [f"{HOSTILE} text {i}" for i in range(documents)]),
        np.arange(queries + 1) * documents,
        np.tile(np.arange(documents), queries),
        scores.ravel(),
        positives=(np.arange(queries + 1), positive),
        positive_score=np.full(queries, 0.8),
        scorer="toy",
        score_kind="cosine",
    )
    run = PositiveAware(relative=0.1)(KnownPositives()(run))
    run = run.replace(label=np.where((run.query == 3) & ~run.keep & (run.label != 1), 1, run.label))
    draw = Top(5).draw(run, generator)

    def one_in_seven(asked, found):
        return [int(text.rsplit(" ", 1)[1]) % 7 == 0 for text in found]

    made = MiningAudit.of(run, draw, steps=("toy", HOSTILE), notes=(HOSTILE,))
    for of in ("drawn", "marked"):
        made = made.with_false_negatives(estimate_false_negatives(run, draw, one_in_seven, of=of))
    return made


@pytest.fixture(scope="module")
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    reason = "no Chromium: install it (Debian: apt-get install chromium) to test how the page is drawn"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def test_the_page_says_what_the_audit_says(audit):
    page = render_mining(audit, title="Mined & more")
    assert "<title>Mined &amp; more</title>" in page
    for said in (
        f"{audit.proposed:,}",
        "positive-aware relative 0.1",
        "relabelled as positives",
        str(audit.false_negatives[0]).split(" of the")[0],
        audit.examples[0].document_id,
        "one_in_seven",
    ):
        assert said in page
    assert page.count("data-chart=") == 4
    assert "http://" not in re.sub(r"<script>.*</script>", "", page, flags=re.DOTALL)


def test_specs_are_what_the_audit_holds(audit):
    specs = mining_specs(audit)
    assert set(specs) == {"outcomes", "scores-filters", "scores-drawn", "false-negatives"}
    bars = {row["what"]: row["count"] for row in specs["outcomes"]["data"]["values"]}
    assert bars["proposed"] == audit.proposed
    assert bars["positive-aware relative 0.1"] == audit.reasons["positive-aware relative 0.1"].marked
    assert (bars["kept as negatives"], bars["drawn"], bars["relabelled as positives"]) == (
        audit.kept,
        audit.drawn,
        audit.relabelled,
    )
    rates = specs["false-negatives"]["data"]["values"]
    assert [row["rate"] for row in rates if row["whole"]] == [round(f.estimate, 5) for f in audit.false_negatives]
    assert len(rates) == sum(1 + len(f.bands) for f in audit.false_negatives)
    stages = mining_charts.score_stages(audit)
    assert sum(stages["drawn"].negatives) == audit.drawn
    assert sum(stages["filters"].marked) == audit.scores["marked"].count


def test_an_audit_of_nothing_has_a_page():
    page = render_mining(MiningAudit())
    assert page.count("data-chart=") == 1
    for part in ('id="scores"', 'id="judged"', 'id="suspects"'):
        assert part not in page


def test_without_scores_of_positives(audit):
    bare = replace(audit, histogram={}, scores={}, examples=(), false_negatives=())
    assert "scores-filters" not in mining_specs(bare)
    assert 'id="scores"' not in render_mining(bare)


def test_without_altair_it_says_what_to_install(audit, monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(RivalsError, match=r"pip install 'rivals\[report\]'"):
        write_mining_report(tmp_path / "page.html", audit)
    assert list(tmp_path.iterdir()) == []


def test_a_browser_draws_every_chart_runs_no_text_and_asks_for_nothing(audit, browser, tmp_path):
    page, log = write_mining_report(tmp_path / "page.html", audit), tmp_path / "net.json"
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}", "--virtual-time-budget=8000", "--dump-dom",
    ]  # fmt: skip
    done = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    hosts = re.findall(r'<div data-chart="([^"]+)" class="([^"]*)"', done.stdout)
    assert len(hosts) == 4
    assert all("drawn" in classes for _, classes in hosts), hosts
    assert "<title>broken" not in done.stdout
    events = [event.get("params", {}) for event in json.loads(log.read_text(errors="replace"))["events"]]
    asked = {e["url"] for e in events if e.get("url") and e.get("initiator", "not an origin") != "not an origin"}
    assert asked == set()
