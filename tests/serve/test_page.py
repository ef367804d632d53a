"""The page in a real browser: headless Chromium types, toggles, filters and looks."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import uvicorn

from rivals.data import Collection
from rivals.models import Encoder
from rivals.retrieve import BM25, Dense
from rivals.serve import SearchEngine, create_app

WICKED = (
    "\U0001f9e0\U0001f9e0 Wicked glaucoma <script>document.title = 'owned'</script>"
    "<img src=x onerror=\"document.title='owned'\"> text. "
    "Its second sentence says glaucoma again, & ends with </p><b>bold</b>."
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--force-device-scale-factor=1",
    "--window-size=1100,1000",
)  # fmt: skip


@pytest.fixture(scope="module")
def address(
    documents: Collection, encoder: Encoder, dense: Dense, engine: SearchEngine
) -> Iterator[Callable[..., str]]:
    """Start servers over the sample and one wicked document; call with the arguments of `create_app`."""
    columns = {name: [*documents.table[name].to_pylist(), ""] for name in ("source", "qtype", "url")}
    columns["url"][-1] = "javascript:alert(1)"
    more = Collection(
        [*documents.ids, "wicked"], [*documents.texts, WICKED], {k: pa.array(v) for k, v in columns.items()}
    )
    vectors = np.vstack([dense.vectors, encoder.encode([WICKED], role="document", progress=False, normalize=True)])
    with_wicked = SearchEngine(
        more,
        bm25=BM25(more),
        dense=Dense(encoder, more, vectors=vectors, show_progress=False),
        reranker=engine.reranker,
        candidates=30,
        name="medquad-sample",
    )
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(**options: Any) -> str:
        config = uvicorn.Config(
            create_app(with_wicked, **options), port=0, log_level="warning", ws="none", lifespan="off"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
        limit = time.monotonic() + 20
        while not server.started and time.monotonic() < limit:
            time.sleep(0.02)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(timeout=20)


@pytest.fixture(scope="module")
def url(address: Callable[..., str]) -> str:
    return address()


class Browser:
    """Chromium through its driver, with the few moves these tests make."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def find(self, css: str) -> Any:
        return self.driver.find_element("css selector", css)

    def all(self, css: str) -> list[Any]:
        return self.driver.find_elements("css selector", css)

    def texts(self, css: str) -> list[str]:
        return [element.text for element in self.all(css)]

    def wait(self, ready: Callable[[], Any], what: str) -> Any:
        limit = time.monotonic() + 20
        while time.monotonic() < limit:
            if found := ready():
                return found
            time.sleep(0.05)
        raise AssertionError(f"waited in vain for {what}; the page shows: {self.find('body').text[:800]}")

    def open(self, url: str) -> None:
        self.driver.get("about:blank")
        self.driver.get(url)

    def settled(self) -> bool:
        return not self.find("#wait").is_displayed() and not self.all("#hits.stale")

    def search(self, query: str) -> None:
        box = self.find("#query")
        box.clear()
        box.send_keys(query + "\n")
        self.wait(
            lambda: query in self.find("#status").get_attribute("textContent") and self.settled(), f"hits for {query}"
        )

    def toggle(self, stage: str) -> None:
        before = self.find("#summary").get_attribute("innerHTML")
        self.find(f"label.{stage}").click()
        self.wait(
            lambda: self.find("#summary").get_attribute("innerHTML") != before and self.settled(), f"{stage} toggled"
        )

    def complaints(self) -> list[dict[str, Any]]:
        return [entry for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def resize(self, width: int, height: int) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )

    def scheme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        missing = "Chromium is missing; install the packages chromium and chromium-driver to test the page"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    driver.set_page_load_timeout(30)
    yield Browser(driver)
    driver.quit()


def test_a_search_shows_every_stage(browser: Browser, url: str, tmp_path: Path) -> None:
    browser.open(url)
    browser.wait(lambda: "241 documents" in browser.find("#say").text, "the welcome")
    browser.search("What are the symptoms of glaucoma ?")
    assert len(browser.all(".hit")) == 10
    for hit in browser.all(".hit"):
        cells = hit.find_elements("css selector", ".path td")
        assert [cell.find_element("css selector", ".name").text for cell in cells] == ["BM25", "Dense", "Reranker"]
        ranks = [cell.find_element("css selector", "b").text for cell in cells]
        assert all(rank == ">30" or rank.startswith("#") for rank in ranks)
        assert ranks[2] == "#" + hit.find_element("css selector", ".place").text
        assert all(cell.find_element("css selector", ".score").text for cell in cells), "a score of every stage"
    marks = {mark.lower() for mark in browser.texts("mark")}
    assert "glaucoma" in marks
    assert marks <= {"glaucoma", "symptom", "symptoms", "what"}
    assert any(browser.texts(".delta.up")), "some hit rose"
    assert [text.split()[0] for text in browser.texts(".times li")] == ["BM25", "Dense", "Reranker", "total"]
    picture = tmp_path / "page.png"
    browser.driver.save_screenshot(str(picture))
    assert picture.stat().st_size > 20_000
    assert browser.complaints() == []


def test_toggling_a_stage_searches_anew(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.search("How is glaucoma treated ?")
    three = browser.texts(".open")
    browser.toggle("rerank")
    assert {len(hit.find_elements("css selector", ".path td")) for hit in browser.all(".hit")} == {2}
    browser.toggle("dense")
    assert browser.texts(".hit:first-child .path b") == ["#1"]
    assert browser.texts(".open") != three
    browser.toggle("bm25")
    on = [box.get_attribute("id") for box in browser.all("#stages input:checked")]
    assert on == ["stage-dense"], "one first stage stays on"
    assert "stages=dense" in browser.driver.current_url
    shown = browser.texts(".open")
    browser.open(browser.driver.current_url)
    browser.wait(lambda: browser.texts(".open") == shown, "the same hits from the address alone")
    assert browser.complaints() == []


def test_filters(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.search("treatment of glaucoma")
    browser.find("#filter-source").send_keys("NIDDK")
    browser.wait(
        lambda: browser.settled() and browser.all(".hit") and "NIDDK" in browser.driver.current_url, "filtered hits"
    )
    sources = browser.texts(".meta li[title=source]")
    assert sources
    assert set(sources) == {"NIDDK"}
    browser.find(".hit .meta li[title=qtype] button").click()
    browser.wait(
        lambda: (
            "documents match" in browser.find("#notes").text or len(set(browser.texts(".meta li[title=qtype]"))) == 1
        ),
        "both",
    )
    assert browser.find("#filter-qtype").get_attribute("value")
    assert browser.complaints() == []


def test_texts_are_never_markup(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.search("wicked glaucoma script")
    wicked = next(hit for hit in browser.all(".hit") if "wicked" in hit.find_element("css selector", ".meta").text)
    assert "<script>document.title = 'owned'</script>" in wicked.text
    opener = wicked.find_element("css selector", ".open")
    opener.click()
    full = wicked.find_element("css selector", ".full")
    assert full.text == WICKED
    assert [mark.text for mark in full.find_elements("css selector", "mark")] == [
        "Wicked",
        "glaucoma",
        "script",
        "script",
        "glaucoma",
    ]
    assert not wicked.find_elements("css selector", "script, img, b:not(td b), a")
    assert opener.get_attribute("aria-expanded") == "true"
    opener.click()
    assert not full.is_displayed()
    assert browser.driver.title == "rivals search · medquad-sample"
    assert browser.complaints() == []


def test_keyboard_alone_is_enough(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.search("glaucoma")
    browser.find("#k").send_keys("")  # focus leaves the box
    body, active = browser.find("body"), lambda: browser.driver.switch_to.active_element
    browser.driver.execute_script("document.activeElement.blur()")
    body.send_keys("j")
    assert active().text == browser.all(".open")[0].text
    active().send_keys("j")
    assert active().text == browser.all(".open")[1].text
    active().send_keys("\n")
    assert active().get_attribute("aria-expanded") == "true"
    active().send_keys("k")
    active().send_keys("/")
    assert active().get_attribute("id") == "query"


def test_empty_and_error_states(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.wait(lambda: browser.all("label.dense"), "the stages")
    browser.find("label.dense").click()
    browser.find("label.rerank").click()
    browser.search("xyzzyqwertz")
    assert "Nothing found" in browser.find("#say").text
    assert "holds a word of the query" in browser.find("#notes").text
    assert browser.complaints() == []
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/search"]})
    try:
        browser.find("#query").send_keys("again\n")
        browser.wait(lambda: browser.all("[role=alert]"), "the error")
        assert "The server does not answer" in browser.find("#say").text
    finally:
        browser.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    browser.find("#say button").click()
    browser.wait(lambda: "Nothing found" in browser.find("#say").text, "recovery")
    browser.complaints()


def test_the_key_is_asked_for(browser: Browser, address: Callable[..., str]) -> None:
    browser.open(address(api_key="s3cret"))
    browser.wait(lambda: browser.all("#key-value"), "the question for the key")
    browser.find("#key-value").send_keys("wrong\n")
    browser.wait(lambda: "not right" in browser.find("#say").text, "the refusal")
    browser.find("#key-value").send_keys("s3cret\n")
    browser.wait(lambda: "241 documents" in browser.find("#say").text, "the welcome")
    browser.search("glaucoma")
    assert browser.all(".hit")
    browser.complaints()


@pytest.mark.parametrize("width", [1100, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_the_window(browser: Browser, url: str, width: int, scheme: str) -> None:
    browser.open(url)
    browser.scheme(scheme)
    browser.resize(width, 900)
    try:
        browser.search("What are the symptoms of glaucoma ?")
        if folder := os.environ.get("RIVALS_SCREENSHOTS"):
            browser.driver.save_screenshot(f"{folder}/page-{width}-{scheme}.png")
        browser.all(".open")[0].click()
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= width
        paper = browser.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(251, 250, 247)" if scheme == "light" else "rgb(21, 23, 27)")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
