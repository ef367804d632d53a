"""A chat server on this machine that answers, stalls, fails or lies as a test tells it, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Seen:
    """One request: its last message, how often that had come before, the whole body, the headers, when it came."""

    text: str
    times: int
    body: dict[str, Any]
    headers: dict[str, str]
    at: float


@dataclass(frozen=True)
class Reply:
    """What to do: wait `delay` seconds, then send; `sent`: bytes of the body after which the line is cut; `drop`: send nothing."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    sent: int | None = None
    drop: bool = False


def chat(
    text: str | None,
    *,
    finish: str | None = "stop",
    tokens: tuple[int, int] | None = (5, 2),
    refusal: str | None = None,
    logprobs: Sequence[tuple[str, dict[str, float]]] | None = None,
) -> bytes:
    """Return the JSON of an answer; logprobs: for every token written, the token and what is reported at its place."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if refusal is not None:
        choice["message"]["refusal"] = refusal
    if logprobs is not None:
        choice["logprobs"] = {
            "content": [
                {
                    "token": token,
                    "logprob": reported[token],
                    "top_logprobs": [{"token": other, "logprob": value} for other, value in reported.items()],
                }
                for token, reported in logprobs
            ]
        }
    answer: dict[str, Any] = {"id": "x", "object": "chat.completion", "choices": [choice]}
    if tokens is not None:
        answer["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return json.dumps(answer).encode()


def failure(status: int, message: str, **headers: str) -> Reply:
    """Return an error as OpenAI's servers word it."""
    body = json.dumps({"error": {"message": message, "type": "test"}}).encode()
    return Reply(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


class Server:
    """A server on a port of its own. `seen`: all requests; `peak`: the most that were open at a time."""

    def __init__(self, reply: Callable[[Seen], Reply]) -> None:
        self.seen: list[Seen] = []
        self.peak = self._open = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    text = body["messages"][-1]["content"]
                    times = sum(one.text == text for one in outer.seen)
                    seen = Seen(text, times, body, dict(self.headers), time.monotonic())
                    outer.seen.append(seen)
                    outer._open += 1
                    outer.peak = max(outer.peak, outer._open)
                try:
                    self.answer(reply(seen))
                except (BrokenPipeError, ConnectionResetError):  # the client has gone, as it may
                    self.close_connection = True
                finally:
                    with outer._lock:
                        outer._open -= 1

            def answer(self, told: Reply) -> None:
                time.sleep(told.delay)
                if told.drop:
                    self.close_connection = True
                    return
                self.send_response(told.status)
                for name, value in told.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(told.body)))
                if told.sent is not None:
                    self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(told.body[: told.sent])

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128  # the usual 5 resets connections that come in a burst

        self._server = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def texts(self) -> list[str]:
        """The last message of every request, in the order of arrival."""
        with self._lock:
            return [one.text for one in self.seen]

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
