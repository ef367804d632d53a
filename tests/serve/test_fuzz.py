"""500 malformed requests to a real server in a process of its own: no 5xx, no traceback, no hang, and it lives on."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import rivals

REQUESTS = 500
DEFAULTS: dict[str, Any] = {"query": None, "k": 10, "stages": None, "filters": None}
SERVER = """
import sys
from rivals.data import load_sample
from rivals.retrieve import BM25
from rivals.serve import SearchEngine, app, serve
app._BODY_SECONDS = 3.0
documents = load_sample().documents.take(range(0, 3360, 14))
serve(SearchEngine(documents, bm25=BM25(documents)), port=0, ready=lambda address: print(address, flush=True))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, subprocess.Popen[str], Path]]:
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("w") as out:
        environment = os.environ | {"PYTHONPATH": str(Path(rivals.__file__).parents[1])}
        command = [sys.executable, "-c", SERVER]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=out, text=True, env=environment)
    assert process.stdout is not None
    address = process.stdout.readline()
    assert address, log.read_text()
    yield int(address.rpartition(":")[2]), process, log
    if process.poll() is None:
        process.kill()
    process.wait(timeout=20)


def exchange(port: int, parts: list[bytes], *, patience: float = 0.5, seconds: float = 8.0) -> bytes:
    """Send raw bytes on a connection of their own and return everything that comes back.

    When nothing comes for a while this side ends the connection; a server that does not end it then hangs: TimeoutError.
    """
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            connection.settimeout(patience)
            while True:
                try:
                    piece = connection.recv(65536)
                except TimeoutError:
                    if connection.gettimeout() == seconds:
                        raise
                    connection.shutdown(socket.SHUT_WR)
                    connection.settimeout(seconds)
                    continue
                if not piece:
                    break
                received += piece
        except (ConnectionResetError, BrokenPipeError):
            pass  # the server hung up in the middle of a request that it refused: its right
    return received


def head(method: str, path: str, headers: list[tuple[str, str]]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *(f"{k}: {v}" for k, v in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def post(body: bytes, headers: list[tuple[str, str]] | None = None) -> list[bytes]:
    return [head("POST", "/search", [("Content-Length", str(len(body))), *(headers or [])]), body]


# ------------------------------------------------------------------------------------------------- malformed requests


def value(random_: random.Random, depth: int = 0) -> object:
    """Any JSON value, mostly not the one that belongs there."""
    plain = [
        None, True, False, 0, -1, 1, 10**18, -(10**30), 10**400, 1.5, 1e308, "", " ", "bm25", "rerank", "a" * 3000, "\x00\x01",
        "\u202e\u0000", "\U0001f9e0" * 20, "'; DROP TABLE documents; --", "<script>alert(1)</script>", "../../etc/passwd", "{}{}%s%n",
    ]  # fmt: skip
    if depth > 3 or random_.random() < 0.6:
        return random_.choice(plain)
    if random_.random() < 0.5:
        return [value(random_, depth + 1) for _ in range(random_.randrange(5))]
    return {str(value(random_, 4))[:50]: value(random_, depth + 1) for _ in range(random_.randrange(5))}


def wrong_json(random_: random.Random) -> list[bytes]:
    body: dict[str, object] = {"query": "heart attack"}
    for field in random_.sample(["query", "k", "stages", "filters", "size", "__proto__", ""], random_.randrange(1, 4)):
        body[field] = value(random_)
    if random_.random() < 0.3:
        return post(json.dumps(value(random_)).encode())
    return post(json.dumps(body).encode())


def broken_json(random_: random.Random) -> list[bytes]:
    good = json.dumps({"query": "heart attack", "k": 3, "stages": ["bm25"], "filters": {"source": "CDC"}}).encode()
    at = random_.randrange(1, len(good))
    broken = random_.choice(
        [
            good[:at],
            good[:at] + random_.randbytes(3) + good[at:],
            good + good,
            good.replace(b'"', b"'"),
            b"\xef\xbb\xbf" + good,
            good.decode().encode("utf-16"),
            random_.randbytes(random_.randrange(1, 300)),
            b'{"query": "\\ud8' + b'00"}',
            b'{"query": "\xc3\x28\xff"}',
            b'{"query": NaN, "k": Infinity}',
            b'{"query": "a", "query": 3, "k": 0x10}',
        ]
    )
    return post(broken)


def deep(random_: random.Random) -> list[bytes]:
    depth = random_.choice([100, 1000, 20_000])
    opening, closing = random_.choice(
        [(b"[", b"]"), (b'{"a":', b"}"), (b'{"filters":', b"}"), (b'{"query":"a","filters":{"a":[', b"]}}")]
    )
    body = (opening * depth + b"1" + (closing * depth if random_.random() < 0.5 else b""))[:60_000]
    return post(body)


def huge_number(random_: random.Random) -> list[bytes]:
    digits = b"9" * random_.choice([20, 400, 5000, 50_000])
    number = random_.choice([digits, b"-" + digits, b"0." + digits, b"1e" + digits[:400], b"1E-" + digits[:400]])
    field = random_.choice([b'"k": ', b'"filters": {"source": ', b'"query": '])
    return post(b'{"query": "heart", ' + field + number + (b"}" if b"filters" in field else b"") + b"}")


def oversized(random_: random.Random) -> list[bytes]:
    size = random_.choice([65_537, 200_000, 2_000_000])
    body = b'{"query": "' + b"a" * size + b'"}'
    if random_.random() < 0.5:
        return post(body)
    return [head("POST", "/search", [("Content-Length", str(random_.choice([10**9, 10**30])))]), body[:1000]]


def chunked(random_: random.Random) -> list[bytes]:
    start = head("POST", "/search", [("Transfer-Encoding", "chunked")])
    choice = random_.randrange(5)
    if choice == 0:  # far too much, never announced
        return [start, *[b"8000\r\n" + b"a" * 0x8000 + b"\r\n"] * 20, b"0\r\n\r\n"]
    if choice == 1:
        return [start, b"zz\r\nabc\r\n0\r\n\r\n"]
    if choice == 2:
        return [start, b"5\r\nabc"]
    if choice == 3:
        return [start, b"ffffffffffffffffffff\r\nabc\r\n0\r\n\r\n"]
    return [start, b'b\r\n{"query": 1\r\n1\r\n}\r\n0\r\n\r\n']


def wrong_method_or_path(random_: random.Random) -> list[bytes]:
    method = random_.choice(
        ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "BREW", "post", "CONNECT", "A" * 40]
    )
    path = random_.choice(
        [
            "/search", "/search/", "//search", "/document/", "/document/%00", "/document/%ff%fe", "/document/..%2f..%2fetc%2fpasswd",
            "/document/" + "a" * 4000, "/metrics/x", "/?" + "q=1&" * 500, "/%", "/health?x=%zz", "*", "/\x7f", "/d\xe9j\xe0", "relative",
            "http://evil.example/search", "/docs", "/static/../page.html", "/;/", "/search#x",
        ]
    )  # fmt: skip
    return [head(method, path, [])]


def weird_headers(random_: random.Random) -> list[bytes]:
    body = b'{"query": "heart", "k": 0}'
    pair = random_.choice(
        [
            ("Content-Type", "multipart/form-data; boundary="), ("Content-Type", "\xff\xfe"), ("Content-Encoding", "gzip"),
            ("Authorization", "Bearer \xff\xfe"), ("X-API-Key", "a" * 5000), ("Cookie", "a=" + "b" * 8000), ("Expect", "100-continue"),
            ("Content-Length", "5"), ("Content-Length", "-1"), ("Content-Length", "abc"), ("Content-Length", ""), ("Host", "evil.example"),
            ("Transfer-Encoding", "chunked, gzip"), ("Transfer-Encoding", "identity"), ("X Bad", "space in the name"), ("", "no name"),
            ("X-Nul", "a\x00b"), ("X-Fold", "a\r\n b"), ("X-Split", "a\r\nX-Injected: 1"), ("Upgrade", "websocket"), ("Range", "bytes=0-0"),
            ("X-Big", "c" * 70_000), ("Accept", "application/xml"), ("X-Forwarded-For", "'" * 500), ("Origin", "null"),
        ]
    )  # fmt: skip
    return [
        head("POST", "/search", [("Content-Length", str(len(body))), pair] if random_.random() < 0.7 else [pair]),
        body,
    ]


def partial(random_: random.Random) -> list[bytes]:
    whole = b"".join(post(b'{"query": "heart attack"}'))
    return [whole[: random_.randrange(1, len(whole) - 1)]]


def not_http(random_: random.Random) -> list[bytes]:
    return [
        random_.choice(
            [
                random_.randbytes(random_.randrange(1, 2000)),
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random_.randbytes(200),
                b"GET / HTTP/9.9\r\n\r\n",
                b"GET /\r\n\r\n",
                b"GET / HTTP/1.1\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"\r\n" * 1000,
                b"GET  /  HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"GET / HTTP/1.1\nHost: localhost\n\n",
                b"GET / HTTP/1.0\r\n\r\n",
                b"GET /search HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20,
            ]
        )
    ]


KINDS = (
    wrong_json, broken_json, deep, huge_number, oversized, chunked, wrong_method_or_path, weird_headers, partial, not_http,
)  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- tests


def check(answer: bytes, sent: list[bytes]) -> int:
    """Check one answer; return its status, 0 where the server just hung up."""
    what = f"\nsent {b''.join(sent)[:300]!r}\ngot {answer[:600]!r}"
    assert b"Traceback" not in answer, what
    assert b'File "' not in answer, what
    if not answer:
        return 0
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    assert found, what
    status = int(found[1])
    if status == 100:
        return check(answer.partition(b"\r\n\r\n")[2], sent)
    assert status < 500, what
    headers, _, body = answer.partition(b"\r\n\r\n")
    if status >= 400 and b"application/json" in headers and body and b"HTTP/1.1 " not in body:
        assert set(json.loads(body)) == {"error", "field"}, what
    return status


def may_succeed(body: Any) -> bool:
    """Whether a body made by `wrong_json` is, by chance, one that can be searched with."""
    if not isinstance(body, dict) or not set(body) <= {"query", "k", "stages", "filters"}:
        return False
    query, k, stages, filters = (body.get(name, default) for name, default in DEFAULTS.items())
    return (
        isinstance(query, str)
        and 0 < len(query.strip()) <= len(query) <= 2000
        and type(k) is int
        and 1 <= k <= 100
        and (stages is None or (isinstance(stages, list) and len(stages) > 0 and set(map(str, stages)) == {"bm25"}))
        and (filters is None or filters == {})
    )


def test_malformed_requests(server: tuple[int, subprocess.Popen[str], Path]) -> None:
    port, process, log = server
    random_ = random.Random(20)
    requests = [KINDS[i % len(KINDS)](random_) for i in range(REQUESTS)]
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda request: exchange(port, request), requests))
    assert time.monotonic() - started < 60
    statuses = [check(answer, request) for answer, request in zip(answers, requests, strict=True)]
    of_kind = {kind.__name__: set(statuses[i :: len(KINDS)]) for i, kind in enumerate(KINDS)}
    assert of_kind["broken_json"] <= {400, 422}, "broken JSON is never taken for a search"
    assert of_kind["deep"] <= {400, 422}
    assert of_kind["huge_number"] <= {400, 422}
    assert of_kind["oversized"] <= {0, 400, 413}
    assert 413 in of_kind["oversized"] & of_kind["chunked"]
    assert of_kind["partial"] <= {0, 400, 422}
    for request, status in zip(requests[:: len(KINDS)], statuses[:: len(KINDS)], strict=True):
        assert (status == 200) == may_succeed(json.loads(request[1])), request
    assert 200 not in of_kind["weird_headers"] | of_kind["chunked"]
    alive(port, process, log)


def test_a_body_that_never_comes_does_not_hold_others_up(server: tuple[int, subprocess.Popen[str], Path]) -> None:
    port, process, log = server
    held = []
    try:
        for _ in range(30):
            connection = socket.create_connection(("127.0.0.1", port), timeout=20)
            connection.sendall(head("POST", "/search", [("Content-Length", "100")]) + b'{"query"')
            held.append(connection)
        started = time.monotonic()
        assert b" 200 " in exchange(port, post(b'{"query": "heart"}'))[:20]
        assert time.monotonic() - started < 5
        assert b" 408 " in held[0].recv(65536)[:20], "a body has three seconds to come here"
    finally:
        for connection in held:
            connection.close()
    alive(port, process, log)


def test_interrupted_it_ends_quietly(server: tuple[int, subprocess.Popen[str], Path]) -> None:
    _, process, log = server
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
    assert "Traceback" not in log.read_text()


def alive(port: int, process: subprocess.Popen[str], log: Path) -> None:
    """The server still answers rightly, and its log holds no traceback."""
    answer = exchange(port, post(b'{"query": "heart attack", "k": 2}'))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["hits"]) == 2
    assert process.poll() is None
    assert "Traceback" not in log.read_text()
    assert "Exception" not in log.read_text()
