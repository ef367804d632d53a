"""What the server counts, in the text format that Prometheus reads."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping

#: Upper bounds of the latency histograms, in seconds; the last bucket, +Inf, is implied.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Histogram:
    """Counts of observations per bucket, their sum and their number."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def lines(self, name: str, labels: str) -> list[str]:
        lines, running = [], 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self.counts, strict=True):
            running += count
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {running}')
        return [*lines, f"{name}_sum{{{labels}}} {self.total:.9g}", f"{name}_count{{{labels}}} {running}"]


class Metrics:
    """Request counts by route, method and status, latency by route and by search stage, requests in flight, documents.

    Labels take their values from fixed sets (routes, HTTP methods, stages), so no client can make the output grow.

    >>> metrics = Metrics(documents=3)
    >>> with metrics.in_flight():
    ...     metrics.request("/search", "POST", 200, 0.004)
    >>> [line for line in metrics.render().splitlines() if line.startswith("rivals_requests_total")]
    ['rivals_requests_total{route="/search",method="POST",status="200"} 1']
    """

    def __init__(self, *, documents: int) -> None:
        self._documents = documents
        self._lock = threading.Lock()
        self._flying = 0
        self._requests: dict[tuple[str, str, int], int] = {}
        self._latency: dict[str, _Histogram] = {}
        self._stages: dict[str, _Histogram] = {}

    def in_flight(self) -> _InFlight:
        """Return a context manager that counts one request as running while it is open."""
        return _InFlight(self)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        with self._lock:
            key = (route, method, status)
            self._requests[key] = self._requests.get(key, 0) + 1
            self._latency.setdefault(route, _Histogram()).observe(seconds)

    def search(self, milliseconds: Mapping[str, float]) -> None:
        """Count the time of every stage of one search."""
        with self._lock:
            for stage, value in milliseconds.items():
                self._stages.setdefault(stage, _Histogram()).observe(value / 1000)

    def render(self) -> str:
        """Return everything as Prometheus text."""
        with self._lock:
            lines = [
                *_head("rivals_requests_total", "counter", "Requests answered."),
                *(
                    f'rivals_requests_total{{route="{route}",method="{method}",status="{status}"}} {count}'
                    for (route, method, status), count in sorted(self._requests.items())
                ),
                *_head("rivals_request_seconds", "histogram", "Time to answer a request."),
            ]
            for route, histogram in sorted(self._latency.items()):
                lines += histogram.lines("rivals_request_seconds", f'route="{route}"')
            lines += _head("rivals_stage_seconds", "histogram", "Time a search spent in one of its stages.")
            for stage, histogram in sorted(self._stages.items()):
                lines += histogram.lines("rivals_stage_seconds", f'stage="{stage}"')
            lines += [
                *_head("rivals_requests_in_flight", "gauge", "Requests being answered now."),
                f"rivals_requests_in_flight {self._flying}",
                *_head("rivals_documents", "gauge", "Documents in the index."),
                f"rivals_documents {self._documents}",
            ]
        return "\n".join(lines) + "\n"


class _InFlight:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __enter__(self) -> None:
        with self._metrics._lock:
            self._metrics._flying += 1

    def __exit__(self, *_: object) -> None:
        with self._metrics._lock:
            self._metrics._flying -= 1


def _head(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
