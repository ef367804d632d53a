"""The HTTP side of search: `POST /search`, `GET /document/{id}`, `/about`, `/health`, `/metrics` and the page."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
import socket
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from rivals.errors import RivalsError
from rivals.serve._http import Guard, Refused, decode, error_response, json_response, read_body
from rivals.serve.engine import SearchEngine
from rivals.serve.metrics import CONTENT_TYPE, Metrics
from rivals.serve.restrict import Scalar
from rivals.serve.result import QueryError, SearchResult

PAGE = Path(__file__).with_name("page.html")

#: Searches that may wait for their turn; further ones are told to come back.
MAX_WAITING = 64

_BODY_SECONDS = 10.0
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
_STATUS_TEXT = {404: "there is nothing at this address", 405: "this address does not take this method"}


class SearchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /search`: the query, how many hits, which stages (null: all), filters by document column."""

    query: str
    k: int = 10
    stages: list[str] | None = None
    filters: dict[str, Scalar | list[Scalar]] | None = None


def create_app(
    engine: SearchEngine,
    *,
    api_key: str | None = None,
    max_k: int = 100,
    max_query_chars: int = 2000,
    max_body_bytes: int = 65536,
    hosts: Iterable[str] | None = None,
) -> FastAPI:
    """Return the web application over a search engine.

    Every error is JSON of the form `{"error": "...", "field": ...}`: 400 (not JSON), 401 (no or a wrong API key), 404,
    405, 408 (a body that does not come), 413 (too large a body), 422 (a field that cannot be), 503 (too many searches
    are waiting).

    Args:
        api_key: when given, everything but the page itself and a bare `/health` needs it.
        max_k, max_query_chars, max_body_bytes: limits of one request.
        hosts: names this server answers to (the Host header); None for any. On the loopback interface give these, so
            that a web page elsewhere cannot reach the documents under a name of its own (DNS rebinding).

    Raises:
        RivalsError: an empty API key, or one that a header cannot carry; a limit below 1.

    >>> from rivals.data import Collection
    >>> from rivals.retrieve import BM25
    >>> documents = Collection(["a", "b"], ["heart attack", "broken bones"])
    >>> app = create_app(SearchEngine(documents, bm25=BM25(documents)))
    >>> sorted({route.path for route in app.routes})
    ['/', '/about', '/document/{identifier:path}', '/health', '/metrics', '/openapi.json', '/search']
    """
    if api_key is not None and not re.fullmatch(r"[!-~]+", api_key):
        raise RivalsError("the API key must be one or more printable ASCII characters without blanks")
    if min(max_k, max_query_chars, max_body_bytes) < 1:
        raise RivalsError("max_k, max_query_chars and max_body_bytes must be at least 1")
    metrics = Metrics(documents=len(engine.documents))
    page = PAGE.read_text(encoding="utf-8")
    page_headers = {"content-security-policy": _page_policy(page), "cache-control": "no-cache"}
    routes = ("/", "/search", "/about", "/health", "/metrics", "/openapi.json")
    app = FastAPI(title="rivals search", version=_version(), docs_url=None, redoc_url=None, redirect_slashes=False)
    app.router.redirect_slashes = False
    waiting = 0

    @app.api_route("/", methods=["GET", "HEAD"], response_class=HTMLResponse, include_in_schema=False)
    async def show_page() -> Response:
        return HTMLResponse(page, headers=page_headers)

    @app.post("/search", openapi_extra=_search_schema(), response_model=None)
    async def search(request: Request) -> Response:
        """Search: the best documents for a query, with what every stage thought of them."""
        nonlocal waiting
        asked = decode(await read_body(request, limit=max_body_bytes, seconds=_BODY_SECONDS), SearchRequest)
        if not 1 <= asked.k <= max_k:
            raise Refused(422, f"k: must be between 1 and {max_k}", "k")
        if len(asked.query) > max_query_chars:
            raise Refused(
                422, f"query: has {len(asked.query)} characters; at most {max_query_chars} are allowed", "query"
            )
        if waiting >= MAX_WAITING:
            raise Refused(503, "too many searches are waiting; try again in a second", headers={"retry-after": "1"})
        waiting += 1
        try:
            found = await run_in_threadpool(
                engine.search, asked.query, asked.k, stages=asked.stages, filters=asked.filters
            )
        finally:
            waiting -= 1
        metrics.search(found.milliseconds)
        return json_response(found)

    @app.get("/document/{identifier:path}", response_model=None)
    async def document(identifier: str) -> Response:
        """One document with all its columns."""
        if identifier not in engine.documents:
            raise Refused(404, f"no document has the id '{identifier[:200]}'", "id")
        return json_response(engine.document(identifier))

    @app.get("/about", response_model=None)
    async def about() -> Response:
        """What can be asked here: documents, stages, filters and limits."""
        return json_response(
            {
                "name": engine.name,
                "documents": len(engine.documents),
                "stages": engine.stages,
                "filters": engine.filters,
                "max_k": max_k,
                "max_query_chars": max_query_chars,
            }
        )

    @app.head("/health", include_in_schema=False)
    @app.get("/health", response_model=None)
    async def health(request: Request) -> Response:
        """Whether the server is well; with the API key, where one is set, also what it serves."""
        if not request.scope["state"]["authorised"]:
            return json_response({"status": "ok"})
        about = {"documents": len(engine.documents), "model": engine.name, "stages": engine.stages}
        return json_response({"status": "ok", **about, "version": _version()})

    @app.get("/metrics", response_model=None)
    async def show_metrics() -> Response:
        """Counts and latencies for Prometheus."""
        return PlainTextResponse(metrics.render(), media_type=None, headers={"content-type": CONTENT_TYPE})

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return error.response()

    @app.exception_handler(RivalsError)
    async def bad_query(_: Request, error: RivalsError) -> Response:
        field = error.field if isinstance(error, QueryError) else None
        return error_response(422, f"{field}: {error}" if field else str(error), field)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        message = _STATUS_TEXT.get(error.status_code, str(error.detail))
        return error_response(error.status_code, message, None, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return error_response(422, "the request is not of the form this address takes")

    app.add_middleware(Guard, metrics=metrics, api_key=api_key, hosts=hosts, open_paths=("/", "/health"), routes=routes)
    return app


def serve(
    engine: SearchEngine,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    api_key: str | None = None,
    open_to_network: bool = False,
    max_k: int = 100,
    max_query_chars: int = 2000,
    max_body_bytes: int = 65536,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        host: what to listen on; by default only this machine can connect.
        port: 0 takes a free one.
        api_key: see `create_app`.
        open_to_network: allow a host other than this machine without an API key, with a warning.
        ready: called with the address once connections are accepted; by default it is printed.

    Raises:
        RivalsError: a host beyond this machine without a key, a port in use or not permitted, an unknown host.
    """
    import uvicorn

    loopback = _is_loopback(host)
    if not loopback and api_key is None:
        if not open_to_network:
            raise RivalsError(
                f"{host} can be reached from other machines and no API key is set: anyone there could read all "
                "documents; set an API key, or say that this is wanted with open_to_network"
            )
        print(f"warning: anyone who reaches {host} can read all documents; no API key is set", file=sys.stderr)
    app = create_app(
        engine,
        api_key=api_key,
        max_k=max_k,
        max_query_chars=max_query_chars,
        max_body_bytes=max_body_bytes,
        hosts=(*_LOOPBACK_HOSTS, host) if loopback else None,
    )
    listening = _listen(host, port)
    engine.warm_up()
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}"
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=5,
        proxy_headers=False,
    )
    (ready or _say_ready(len(engine.documents)))(address)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass  # uvicorn has shut down in order before it passes Ctrl-C on
    finally:
        listening.close()


def _say_ready(documents: int) -> Callable[[str], None]:
    return lambda address: print(f"{documents:,} documents at {address} (Ctrl-C stops)", file=sys.stderr, flush=True)


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise RivalsError(f"port {port} does not exist; take one from 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            if sys.platform != "win32":
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(256)
        except BaseException:
            listening.close()
            raise
    except socket.gaierror:
        raise RivalsError(f"there is no host '{host}' to listen on") from None
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise RivalsError(f"cannot listen on {host} port {port}: {cause}; choose another port") from None
    return listening


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`.

    >>> _is_loopback("127.0.0.1"), _is_loopback("localhost"), _is_loopback("0.0.0.0"), _is_loopback("example.org")
    (True, True, False, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _page_policy(page: str) -> str:
    """Return the page's content security policy: its own script and style by hash, requests to this server, no more."""

    def hashed(tag: str) -> str:
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inside)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashed('script')}; style-src {hashed('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _search_schema() -> dict[str, Any]:
    """Return what the OpenAPI description says of `POST /search`."""
    (asked, found), parts = msgspec.json.schema_components([SearchRequest, SearchResult], ref_template="#/{name}")

    def inlined(schema: Any) -> Any:
        if isinstance(schema, list):
            return [inlined(part) for part in schema]
        if not isinstance(schema, dict):
            return schema
        if "$ref" in schema:
            return inlined(parts[schema["$ref"].rpartition("/")[2]])
        return {key: inlined(part) for key, part in schema.items()}

    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": inlined(asked)}}},
        "responses": {"200": {"description": "The hits.", "content": {"application/json": {"schema": inlined(found)}}}},
    }


def _version() -> str:
    try:
        return metadata.version("rivals")
    except metadata.PackageNotFoundError:
        return "unknown"
