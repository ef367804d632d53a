"""The HTTP interface: answers, limits, errors of one shape, keys, headers and metrics."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from rivals.data import Collection
from rivals.errors import RivalsError
from rivals.retrieve import BM25
from rivals.serve import SearchEngine, create_app, serve
from rivals.serve.app import PAGE

QUERY = "What are the symptoms of glaucoma ?"


@pytest.fixture(scope="module")
def client(engine: SearchEngine) -> TestClient:
    return TestClient(create_app(engine, max_k=50, max_query_chars=200, max_body_bytes=4096))


def refused(response, status: int, message: str, field: str | None = None) -> None:  # type: ignore[no-untyped-def]
    assert response.status_code == status, response.text
    content = response.json()
    assert set(content) == {"error", "field"}
    assert re.search(message, content["error"]), content
    assert content["field"] == field
    assert response.headers["content-type"] == "application/json"


# ------------------------------------------------------------------------------------------------------------ answers


def test_search(client: TestClient, engine: SearchEngine) -> None:
    response = client.post("/search", json={"query": QUERY, "k": 3})
    assert response.status_code == 200
    content, found = response.json(), engine.search(QUERY, 3)
    assert [hit["id"] for hit in content["hits"]] == [hit.id for hit in found.hits]
    first = content["hits"][0]
    assert first["rank"] == 1
    assert set(first["stages"]) == {"bm25", "dense", "rerank"}
    assert set(first["stages"]["dense"]) == {"score", "rank"}
    assert first["matched_terms"]
    assert all(first["text"][a:b] for a, b in first["matched_terms"])
    assert set(content["milliseconds"]) == {"wait", "bm25", "dense", "rerank", "total"}


def test_search_with_stages_and_filters(client: TestClient) -> None:
    body = {"query": QUERY, "stages": ["bm25"], "filters": {"source": ["NIDDK", "NINDS"]}}
    content = client.post("/search", json=body).json()
    assert content["stages"] == ["bm25"]
    assert {hit["columns"]["source"] for hit in content["hits"]} <= {"NIDDK", "NINDS"}


def test_document(client: TestClient, documents: Collection) -> None:
    identifier = documents.ids[3]
    content = client.get(f"/document/{identifier}").json()
    assert content["id"] == identifier
    assert content["text"] == documents.texts[3]
    refused(client.get("/document/nowhere"), 404, "no document has the id 'nowhere'", "id")


def test_document_ids_may_hold_anything() -> None:
    documents = Collection(["a/b c?#", "d\u00e9j\u00e0 vu", ".."], ["one", "two", "three"])
    client = TestClient(create_app(SearchEngine(documents, bm25=BM25(documents))))
    for path, text in (("a%2Fb%20c%3F%23", "one"), ("d%C3%A9j%C3%A0%20vu", "two")):
        assert client.get(f"/document/{path}").json()["text"] == text
    refused(client.get("/document/%FF%FE"), 404, "no document", "id")


def test_about_and_health(client: TestClient) -> None:
    about = client.get("/about").json()
    assert about["documents"] == 240
    assert about["stages"] == ["bm25", "dense", "rerank"]
    assert (about["max_k"], about["max_query_chars"]) == (50, 200)
    assert {"source", "qtype"} <= {column["column"] for column in about["filters"]}
    health = client.get("/health").json()
    assert health.pop("version")
    assert health == {"status": "ok", "documents": 240, "model": "sample", "stages": ["bm25", "dense", "rerank"]}
    assert client.head("/health").status_code == 200


def test_openapi_tells_the_body(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]["/search"]["post"]
    asked = described["requestBody"]["content"]["application/json"]["schema"]
    assert set(asked["properties"]) == {"query", "k", "stages", "filters"}
    answer = described["responses"]["200"]["content"]["application/json"]["schema"]
    assert "matched_terms" in answer["properties"]["hits"]["items"]["properties"]
    assert client.get("/docs").status_code == 404, "its page loads scripts from elsewhere"


def test_page_is_one_file_that_asks_nobody_else(client: TestClient) -> None:
    response = client.get("/")
    assert response.headers["content-type"].startswith("text/html")
    assert response.text == PAGE.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)|@import|url\(""", response.text)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[^']+'; style-src 'sha256-[^']+'; connect-src 'self'", policy)
    assert "innerHTML" not in response.text


def test_security_headers_are_on_everything(client: TestClient) -> None:
    for response in (
        client.get("/"),
        client.get("/health"),
        client.get("/nowhere"),
        client.post("/search", content=b"{"),
    ):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "access-control-allow-origin" not in response.headers
    preflight = client.options(
        "/search", headers={"origin": "https://example.org", "access-control-request-method": "POST"}
    )
    refused(preflight, 405, "does not take this method")


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("body", "status", "message", "field"),
    [
        (b"", 400, "no body", None),
        (b"{", 400, "not JSON", None),
        (b'{"query": "\xff"}', 400, "not JSON", None),
        (b"[" * 3000, 422, "the request body: expected `object`", None),
        (b'{"query": "a", "filters": ' + b"[" * 3000, 422, "filters", "filters"),
        (b'{"query": "\\ud800"}', 400, "not JSON", None),
        (b"[1]", 422, "the request body: expected `object`", None),
        (b"null", 422, "the request body: expected `object`", None),
        (b"{}", 422, "missing required field `query`", "query"),
        (b'{"query": 3}', 422, "query: expected `str`, got `int`", "query"),
        (b'{"query": "a", "size": 3}', 422, "unknown field `size`", "size"),
        (b'{"query": " "}', 422, "query: the query is empty", "query"),
        (b'{"query": "' + b"a" * 201 + b'"}', 422, "has 201 characters; at most 200", "query"),
        (b'{"query": "a", "k": 0}', 422, "k: must be between 1 and 50", "k"),
        (b'{"query": "a", "k": 51}', 422, "k: must be between 1 and 50", "k"),
        (b'{"query": "a", "k": 1e999}', 422, "k: number out of range", "k"),
        (b'{"query": "a", "k": 99999999999999999999999999}', 422, "k: ", "k"),
        (b'{"query": "a", "k": "10"}', 422, "k: expected `int`", "k"),
        (b'{"query": "a", "k": true}', 422, "k: expected `int`", "k"),
        (b'{"query": "a", "stages": "bm25"}', 422, "stages: expected `array | null`", "stages"),
        (b'{"query": "a", "stages": ["bm25", 3]}', 422, "expected `str`", "stages[1]"),
        (b'{"query": "a", "stages": ["magic"]}', 422, "'magic' is not a stage", "stages"),
        (b'{"query": "a", "stages": ["rerank"]}', 422, "at least one of bm25 and dense", "stages"),
        (b'{"query": "a", "filters": {"colour": "red"}}', 422, "no column 'colour'", "filters.colour"),
        (b'{"query": "a", "filters": {"qtype": {"not": 1}}}', 422, "filters", "filters[...]"),
    ],
)
def test_bad_bodies(client: TestClient, body: bytes, status: int, message: str, field: str | None) -> None:
    refused(client.post("/search", content=body), status, message, field)


def test_unknown_addresses_and_methods(client: TestClient) -> None:
    refused(client.get("/nowhere"), 404, "nothing at this address")
    refused(client.get("/search/"), 404, "nothing at this address")
    refused(client.get("/search"), 405, "does not take this method")
    refused(client.delete("/"), 405, "does not take this method")


def test_bodies_are_bounded(client: TestClient) -> None:
    big = json.dumps({"query": "a" * 5000})
    refused(client.post("/search", content=big), 413, "larger than 4096 bytes")
    sent = 0

    def pieces() -> Iterator[bytes]:  # no content-length: sent in chunks
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 1000

    refused(client.post("/search", content=pieces()), 413, "larger than 4096 bytes")


def test_unexpected_errors_stay_inside(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = TestClient(create_app(engine))

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(engine, "search", broken)
    response = client.post("/search", json={"query": "a"})
    refused(response, 500, "its log says more")
    assert "secret" not in response.text
    assert "a secret of the inside" in caplog.text
    assert 'rivals_requests_total{route="/search",method="POST",status="500"} 1' in client.get("/metrics").text


def test_too_many_waiting_searches_are_sent_away(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rivals.serve.app.MAX_WAITING", 0)
    response = client.post("/search", json={"query": QUERY})
    refused(response, 503, "too many searches are waiting")
    assert response.headers["retry-after"] == "1"


# --------------------------------------------------------------------------------------------------------- keys, hosts


def test_api_key(engine: SearchEngine) -> None:
    client = TestClient(create_app(engine, api_key="s3cret"))
    for call in (
        lambda h: client.post("/search", json={"query": QUERY}, headers=h),
        lambda h: client.get("/metrics", headers=h),
    ):
        for headers in ({}, {"x-api-key": "guess"}, {"authorization": "Bearer "}, {"authorization": "Basic s3cret"}):
            response = call(headers)
            refused(response, 401, "an API key is needed", "Authorization")
            assert response.headers["www-authenticate"] == "Bearer"
        for headers in (
            {"x-api-key": "s3cret"},
            {"authorization": "Bearer s3cret"},
            {"authorization": "bearer s3cret"},
        ):
            assert call(headers).status_code == 200
    assert client.get("/").status_code == 200
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/health", headers={"x-api-key": "s3cret"}).json()["documents"] == 240
    refused(client.get("/nowhere"), 401, "an API key is needed", "Authorization")
    refused(client.get("/about", headers={"x-api-key": b"\xff\xfe"}), 401, "an API key is needed", "Authorization")


@pytest.mark.parametrize("key", ["", "two words", "\u00fcml\u00e4ut", "line\n"])
def test_api_keys_that_cannot_be(engine: SearchEngine, key: str) -> None:
    with pytest.raises(RivalsError, match="printable ASCII"):
        create_app(engine, api_key=key)


def test_hosts(engine: SearchEngine) -> None:
    client = TestClient(create_app(engine, hosts=("localhost", "127.0.0.1", "::1")))
    for host in ("localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080"):
        assert client.get("/health", headers={"host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8080"):
        refused(client.get("/health", headers={"host": host}), 400, "host names", "Host")


# -------------------------------------------------------------------------------------------------------------- metrics


def test_metrics_count_and_parse(engine: SearchEngine) -> None:
    client = TestClient(create_app(engine))
    for _ in range(3):
        client.post("/search", json={"query": QUERY})
    client.post("/search", content=b"{")
    for i in range(20):
        client.get(f"/no/{i}")
        client.get(f"/document/{i}")
    client.request("BREW", "/coffee")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = parse(response.text)
    assert samples['rivals_requests_total{route="/search",method="POST",status="200"}'] == 3
    assert samples['rivals_requests_total{route="/search",method="POST",status="400"}'] == 1
    assert samples['rivals_requests_total{route="other",method="GET",status="404"}'] == 20
    assert samples['rivals_requests_total{route="/document/{id}",method="GET",status="404"}'] == 20
    assert samples['rivals_requests_total{route="other",method="other",status="404"}'] == 1
    assert samples['rivals_request_seconds_count{route="/search"}'] == 4
    assert samples['rivals_stage_seconds_count{stage="rerank"}'] == 3
    assert samples["rivals_requests_in_flight"] == 1, "this very request"
    assert samples["rivals_documents"] == 240
    for name in ("rivals_request_seconds", "rivals_stage_seconds"):
        for labels in re.findall(rf"^{name}_count{{(.*)}}", response.text, re.MULTILINE):
            buckets = [value for key, value in samples.items() if key.startswith(f"{name}_bucket{{{labels},")]
            assert buckets == sorted(buckets)
            assert buckets[-1] == samples[f"{name}_count{{{labels}}}"]


def parse(text: str) -> dict[str, float]:
    """Read the Prometheus text format strictly: a sample belongs to a family announced before it and comes once."""
    families: dict[str, str] = {}
    samples: dict[str, float] = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert name not in families
            families[name] = kind
        elif not line.startswith("# HELP "):
            found = re.fullmatch(r'([a-z_]+)(\{(?:[a-z]+="[^"\\\n]*"(?:,(?=[a-z]))?)+\})? ([0-9.e+-]+)', line)
            assert found, line
            name = found[1]
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert families.get(name) in ("counter", "gauge") or families.get(base) == "histogram", line
            key = name + (found[2] or "")
            assert key not in samples
            samples[key] = float(found[3])
    return samples


# ---------------------------------------------------------------------------------------------------------------- serve


def test_serve_refuses_the_network_without_a_key(engine: SearchEngine) -> None:
    with pytest.raises(RivalsError, match="other machines and no API key"):
        serve(engine, host="0.0.0.0", port=0)


def test_serve_says_what_is_wrong_with_the_address(engine: SearchEngine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RivalsError, match=f"cannot listen on 127.0.0.1 port {port}: address already in use"):
            serve(engine, port=port)
    with pytest.raises(RivalsError, match="port 70000 does not exist"):
        serve(engine, port=70000)
    with pytest.raises(RivalsError, match=r"no host 'nowhere\.invalid'"):
        serve(engine, host="nowhere.invalid", api_key="k")
