"""The HTML report in a real browser: every chart is drawn, nothing is asked of a network, no text runs as script."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rivals.evaluate.report import write_report
from tests.evaluate.report_example import example


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report") / "report.html", example())


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("hostile") / "report.html", example(60, hostile=True))


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
    """Return the document after scripts ran, and the addresses the page asked for (the browser's own are left out)."""
    log = folder / "net.json"
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={log}",
        "--virtual-time-budget=8000",
        "--dump-dom",
    ]
    done = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    events = [event.get("params", {}) for event in json.loads(log.read_text(errors="replace"))["events"]]
    asked = {e["url"] for e in events if e.get("url") and e.get("initiator", "not an origin") != "not an origin"}
    return done.stdout, sorted(asked)


def test_the_log_of_requests_sees_requests(browser: str, tmp_path: Path) -> None:
    page = tmp_path / "asks.html"
    page.write_text("<!doctype html><title>asks</title><img src='http://127.0.0.1:9/x.png'>")
    assert _dump(browser, page, tmp_path)[1] == ["http://127.0.0.1:9/x.png"]


def test_a_browser_draws_every_chart_and_asks_for_nothing(browser: str, page: Path, tmp_path: Path) -> None:
    document, addresses = _dump(browser, page, tmp_path)
    hosts = re.findall(r'<div data-chart="([^"]+)" class="([^"]*)"', document)
    assert len(hosts) == 13
    assert all("drawn" in classes for _, classes in hosts), hosts
    assert document.count("<svg") >= 13
    assert addresses == []


def test_a_browser_runs_no_script_from_texts(browser: str, hostile_page: Path, tmp_path: Path) -> None:
    document, _ = _dump(browser, hostile_page, tmp_path)
    assert "<title>broken" not in document
    assert document.count("<svg") >= 13
