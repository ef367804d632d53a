"""The small parts of the HTTP side: one shape of error, bounded bodies, and the guard around every request."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rivals.serve.metrics import Metrics

log = logging.getLogger("rivals.serve")

T = TypeVar("T")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FIXED_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Refused(Exception):
    """A request that is answered with an error: status, message and, where one is to blame, the field."""

    def __init__(
        self, status: int, message: str, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.headers = status, message, field, headers

    def response(self) -> Response:
        """Return the answer to send."""
        return error_response(self.status, self.message, self.field, self.headers)


def json_response(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return `content` as JSON; numbers that JSON cannot hold (NaN, infinities) become null."""
    body = msgspec.json.encode(content)
    return Response(body, status, headers=dict(headers or {}), media_type="application/json")


def error_response(
    status: int, message: str, field: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error in the one shape that all of them have: `{"error": "...", "field": "..." or null}`.

    >>> error_response(404, "no such page").body
    b'{"error":"no such page","field":null}'
    """
    return json_response({"error": message, "field": field}, status=status, headers=headers)


async def read_body(request: Request, *, limit: int, seconds: float) -> bytes:
    """Return a request's body; one over `limit` bytes is refused as soon as that shows, as is one that takes too long.

    Raises:
        Refused: 413, 408, or 400 when the client goes away in the middle.
    """
    too_large = Refused(413, f"the request body is larger than {limit} bytes", headers={"connection": "close"})
    stated = request.headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and (len(stated) > 18 or int(stated) > limit):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise Refused(
            408, f"the request body took longer than {seconds:g} s", headers={"connection": "close"}
        ) from None
    except ClientDisconnect:
        raise Refused(400, "the request ended before its body did") from None
    return bytes(body)


def decode(body: bytes, kind: type[T]) -> T:
    """Return JSON as the msgspec type `kind`.

    Raises:
        Refused: 400 for text that is not JSON, 422 for JSON of another form, naming the field.

    >>> class Point(msgspec.Struct):
    ...     x: int
    >>> decode(b'{"x": 1}', Point).x
    1
    >>> try:
    ...     decode(b'{"x": "one"}', Point)
    ... except Refused as refused:
    ...     refused.status, refused.message, refused.field
    (422, 'x: expected `int`, got `str`', 'x')
    """
    if not body:
        raise Refused(400, "the request has no body; send a JSON object")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        message, field = _place(str(error))
        raise Refused(422, message, field) from None
    except RecursionError:
        raise Refused(400, "the request body is nested too deeply") from None
    except ValueError as error:  # msgspec.DecodeError, and bad UTF-8
        raise Refused(400, f"the request body is not JSON: {str(error)[:200]}") from None


def _place(message: str) -> tuple[str, str | None]:
    """Split msgspec's "what - at `$.where`" into a message that opens with the field, and the field."""
    found = re.fullmatch(r"(.*?)(?: - at `(?:key in )?\$(.*)`)?", message, re.DOTALL)
    assert found is not None
    what, where = found[1][:200], (found[2] or "").lstrip(".")[:100] or None
    named = re.search(r"field `(.*)`", what)
    if where is None and named:
        return what[0].lower() + what[1:], named[1]
    lowered = what[0].lower() + what[1:] if what else what
    return (f"{where}: {lowered}", where) if where else (f"the request body: {lowered}", None)


class Guard:
    """Stands around the application: checks host and key, adds security headers, counts, and lets no exception out."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        api_key: str | None,
        hosts: Iterable[str] | None,
        open_paths: Iterable[str],
        routes: Iterable[str],
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.key = None if api_key is None else api_key.encode()
        self.hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self.open_paths = frozenset(open_paths)
        self.routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                present = {name.lower() for name, _ in headers}
                for name, value in _FIXED_HEADERS.items():
                    if name.encode() not in present:
                        headers.append((name.encode(), value.encode()))
            await send(message)

        with self.metrics.in_flight():
            try:
                refusal = self._refusal(scope)
                await (self.app if refusal is None else refusal)(scope, receive, send_guarded)
            except Exception:
                log.exception("%s %s failed", scope["method"], scope["path"])
                if status == 0:
                    answer = error_response(500, "the server met an error it did not expect; its log says more")
                    await answer(scope, receive, send_guarded)
            finally:
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self.metrics.request(self._route(scope["path"]), method, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = scope["headers"]
        if self.hosts is not None:
            host = next((value for name, value in headers if name == b"host"), b"")
            if host and _host_name(host.decode("latin-1")) not in self.hosts:
                return error_response(400, "this server answers only to the host names it was started for", "Host")
        authorised = self.key is None or has_key(headers, self.key)
        scope.setdefault("state", {})["authorised"] = authorised
        if not authorised and scope["path"] not in self.open_paths:
            message = "an API key is needed: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
            return error_response(401, message, "Authorization", {"www-authenticate": "Bearer"})
        return None

    def _route(self, path: str) -> str:
        if path in self.routes:
            return path
        return "/document/{id}" if path.startswith("/document/") else "other"


def has_key(headers: Iterable[tuple[bytes, bytes]], key: bytes) -> bool:
    """Return whether the headers carry the key, compared in a time that does not tell how much of it was right.

    >>> has_key([(b"authorization", b"Bearer s3cret")], b"s3cret"), has_key([(b"x-api-key", b"guess")], b"s3cret")
    (True, False)
    """
    right = False
    for name, value in headers:
        if name == b"x-api-key":
            right |= hmac.compare_digest(value.strip(), key)
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            right |= hmac.compare_digest(value[7:].strip(), key)
    return right


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets.

    >>> _host_name("[::1]:8080"), _host_name("LOCALHOST:80"), _host_name("127.0.0.1")
    ('::1', 'localhost', '127.0.0.1')
    """
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
