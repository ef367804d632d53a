"""Statistics of long streams of scores in bounded memory: exact moments, quantiles and histograms of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SAMPLE = 1 << 20  # scores of a group held for quantiles; beyond that a random sample of about this many
_BINS = 40
_QUANTILES = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


@dataclass(frozen=True)
class ScoreSummary:
    """Count, mean, standard deviation, extremes and quantiles of a group of scores."""

    count: int
    mean: float
    deviation: float
    lowest: float
    p05: float
    p25: float
    median: float
    p75: float
    p95: float
    highest: float


class ScoreStream:
    """Exact moments of a stream of scores and a sample of it for quantiles."""

    def __init__(self, seed: int) -> None:
        self.count, self.total, self.squares, self.share = 0, 0.0, 0.0, 1.0
        self.lowest, self.highest = np.inf, -np.inf
        self.parts: list[NDArray[np.float32]] = []
        self.generator = np.random.default_rng(seed)

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in some scores."""
        if not len(values):
            return
        self.count += len(values)
        self.total += float(values.sum(dtype=np.float64))
        self.squares += float(np.einsum("i,i->", values, values, dtype=np.float64))
        self.lowest, self.highest = min(self.lowest, float(values.min())), max(self.highest, float(values.max()))
        self.parts.append(values if self.share == 1 else values[self.generator.random(len(values)) < self.share])
        held = sum(map(len, self.parts))
        while held > _SAMPLE:
            joined = np.concatenate(self.parts)
            self.parts = [joined[self.generator.random(held) < 0.5]]
            self.share, held = self.share / 2, len(self.parts[0])

    def sample(self) -> NDArray[np.float32]:
        """Return the sample, sorted."""
        return np.sort(np.concatenate(self.parts)) if self.parts else np.zeros(0, np.float32)

    def summary(self, ordered: NDArray[np.float32]) -> ScoreSummary:
        """Return the statistics, quantiles taken from the sorted sample."""
        mean = self.total / self.count
        variance = max(self.squares / self.count - mean * mean, 0.0)
        place = np.array(list(_QUANTILES.values())) * (len(ordered) - 1)
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, len(ordered) - 1)
        lower, upper = ordered[low].astype(np.float64), ordered[high].astype(np.float64)
        values = lower + (upper - lower) * (place - low)
        quantiles = {name: float(value) for name, value in zip(_QUANTILES, values, strict=True)}
        return ScoreSummary(self.count, mean, variance**0.5, self.lowest, highest=self.highest, **quantiles)


def summary_of_both(one: ScoreStream, other: ScoreStream) -> ScoreSummary:
    """Return the statistics of two streams together; at least one holds scores."""
    both, share = ScoreStream(0), min(one.share, other.share)
    for stream in (one, other):
        part = stream.sample()
        both.parts.append(
            part if stream.share == share else part[both.generator.random(len(part)) < share / stream.share]
        )
    both.count, both.total, both.squares = one.count + other.count, one.total + other.total, one.squares + other.squares
    both.lowest, both.highest = min(one.lowest, other.lowest), max(one.highest, other.highest)
    return both.summary(both.sample())


def histogram(samples: Mapping[str, NDArray[np.float32]], share: Mapping[str, float]) -> dict[str, tuple[float, ...]]:
    """Counts of every group on common "edges", scaled up where a group was sampled; samples are sorted."""
    finite = {name: values[np.isfinite(values)] for name, values in samples.items()}
    full = [values for values in finite.values() if len(values)]
    if not full:
        return {}
    low, high = float(min(values[0] for values in full)), float(max(values[-1] for values in full))
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    counts: dict[str, tuple[float, ...]] = {"edges": tuple(edges.tolist())}
    for name, values in finite.items():
        below = np.searchsorted(values, edges, side="left")
        below[0], below[-1] = 0, len(values)
        counts[name] = tuple((np.diff(below) / share[name]).tolist())
    return counts
