"""`MiningAudit`: what mining proposed, marked, kept and drew, as a value that prints and saves as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.run import Run
from rivals.errors import DataError
from rivals.negatives.filters import POSITIVE_TEXT
from rivals.negatives.samplers import Draw

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


class Example(NamedTuple):
    """A suspected false negative: a candidate that a filter marked and that scores at or above its query's positive."""

    query_id: str
    query: str | None
    document_id: str
    document: str | None
    score: float
    positive_id: str
    positive: str | None
    positive_score: float
    reasons: tuple[str, ...]


class Reason(NamedTuple):
    """How many candidates a rule marked, and how many of them no other rule marked."""

    marked: int
    alone: int


@dataclass(frozen=True)
class MiningAudit:
    """What happened in mining.

    Counts are exact; quantiles and histogram are of a random sample where a group is above a million.

    - `queries`, `proposed`, `marked`, `kept`, `drawn` (of `wanted` = queries * k), `unfilled`; `reasons` by name (a
      candidate may have several, so they do not add up).
    - `without_positive`, `without_survivor`: queries with no positive, with nothing left to draw
      (`without_survivor_ids`: the first 20).
    - `scores`: summaries of "positives", "candidates" (less the known positives), "kept", "marked", "drawn".
    - `histogram`: "edges" and, for the same groups, counts on common edges: how far the filters part the two sides.
    - `positive_below_median`: share of queries whose lowest positive scores below the median of its candidates (less
      known positives). Such positives are doubtful labels or beyond the scorer, and a margin below them removes every
      hard negative.
    - `examples`: suspected false negatives, at most one per query, farthest above their positive first.
    - `notes`: what was left out or deserves a look.

    >>> MiningAudit.from_json(MiningAudit().to_json()) == MiningAudit()
    True
    """

    scorer: str = ""
    score_kind: str = "other"
    steps: tuple[str, ...] = ()
    queries: int = 0
    without_positive: int = 0
    without_survivor: int = 0
    without_survivor_ids: tuple[str, ...] = ()
    proposed: int = 0
    marked: int = 0
    kept: int = 0
    wanted: int = 0
    drawn: int = 0
    unfilled: int = 0
    reasons: Mapping[str, Reason] = field(default_factory=dict)
    scores: Mapping[str, ScoreSummary] = field(default_factory=dict)
    histogram: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    positive_below_median: float | None = None
    suspects: int = 0
    examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, run: Run, draw: Draw, *, steps: tuple[str, ...] = (), examples: int = 20, notes: tuple[str, ...] = ()
    ) -> MiningAudit:
        """Audit one marked run and what was drawn from it.

        >>> from rivals.negatives.samplers import Top
        >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8])
        >>> MiningAudit.of(run, Top(1).draw(run, np.random.default_rng(0))).drawn
        1
        """
        builder = AuditBuilder(steps=steps, examples=examples, notes=notes)
        builder.add(run, draw)
        return builder.finish()

    def to_json(self) -> str:
        """Return the audit as JSON text."""
        plain = asdict(self)
        plain["reasons"] = {name: reason._asdict() for name, reason in self.reasons.items()}
        plain["scores"] = {name: asdict(summary) for name, summary in self.scores.items()}
        plain["examples"] = [example._asdict() for example in self.examples]
        return json.dumps(plain, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> MiningAudit:
        """Read what `to_json` wrote.

        Raises:
            DataError: the text is not such JSON.
        """
        try:
            plain = json.loads(text)
            plain["reasons"] = {name: Reason(**value) for name, value in plain["reasons"].items()}
            plain["scores"] = {name: ScoreSummary(**value) for name, value in plain["scores"].items()}
            plain["histogram"] = {name: tuple(values) for name, values in plain["histogram"].items()}
            plain["examples"] = tuple(
                Example(**(value | {"reasons": tuple(value["reasons"])})) for value in plain["examples"]
            )
            for name in ("steps", "without_survivor_ids", "notes"):
                plain[name] = tuple(plain[name])
            return cls(**plain)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"this is not the JSON of a mining audit ({error}); its fields are {_fields()}") from None

    def __str__(self) -> str:
        from rivals.negatives._audit_text import plain

        return plain(self)

    def __rich__(self) -> Any:
        from rivals.negatives._audit_text import rich

        return rich(self)


def _fields() -> str:
    return ", ".join(f.name for f in fields(MiningAudit))


class _Scores:
    """Exact moments of a stream of scores and a sample of it for quantiles."""

    def __init__(self, seed: int) -> None:
        self.count, self.total, self.squares, self.share = 0, 0.0, 0.0, 1.0
        self.lowest, self.highest = np.inf, -np.inf
        self.parts: list[NDArray[np.float32]] = []
        self.generator = np.random.default_rng(seed)

    def add(self, values: NDArray[np.float32]) -> None:
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
        return np.sort(np.concatenate(self.parts)) if self.parts else np.zeros(0, np.float32)

    def summary(self, ordered: NDArray[np.float32]) -> ScoreSummary:
        mean = self.total / self.count
        variance = max(self.squares / self.count - mean * mean, 0.0)
        place = np.array(list(_QUANTILES.values())) * (len(ordered) - 1)
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, len(ordered) - 1)
        lower, upper = ordered[low].astype(np.float64), ordered[high].astype(np.float64)
        values = lower + (upper - lower) * (place - low)
        quantiles = {name: float(value) for name, value in zip(_QUANTILES, values, strict=True)}
        return ScoreSummary(self.count, mean, variance**0.5, self.lowest, highest=self.highest, **quantiles)


class AuditBuilder:
    """Adds up an audit over runs, block after block of queries, in bounded memory."""

    def __init__(self, *, steps: tuple[str, ...] = (), examples: int = 20, notes: tuple[str, ...] = ()) -> None:
        self.steps, self.limit, self.notes = steps, examples, notes
        self.counts: dict[str, int] = dict.fromkeys(
            (
                "queries",
                "without_positive",
                "without_survivor",
                "proposed",
                "marked",
                "kept",
                "wanted",
                "drawn",
                "suspects",
            ),
            0,
        )
        self.reasons: dict[str, Reason] = {}
        self.lonely_ids: list[str] = []
        self.examples: list[tuple[float, Example]] = []
        self.groups = {name: _Scores(i) for i, name in enumerate(("positives", "kept", "marked", "drawn"))}
        self.below, self.compared = 0, 0
        self.scorer, self.score_kind = "", "other"

    def add(self, run: Run, draw: Draw) -> None:
        """Add one block: the marked run and what was drawn from it."""
        survivors = run.keep & (run.label != 1)
        per_query = lists.keep_values(survivors, run.offsets)
        empty = np.flatnonzero(np.diff(per_query) == 0)
        positives = np.diff(run.positive_offsets)
        marked = ~run.keep
        self.scorer, self.score_kind = run.scorer, run.score_kind
        for name, value in (
            ("queries", len(run.queries)),
            ("without_positive", int((positives == 0).sum())),
            ("without_survivor", len(empty)),
            ("proposed", len(run)),
            ("marked", int(marked.sum())),
            ("kept", int(survivors.sum())),
            ("wanted", draw.mask.size),
            ("drawn", int(draw.mask.sum())),
        ):
            self.counts[name] += value
        self.lonely_ids += [str(run.queries.ids[row]) for row in empty[: max(20 - len(self.lonely_ids), 0)]]
        bits = run.reason[run.reason != 0]
        for i, name in enumerate(run.reasons):
            bit = np.uint64(1) << np.uint64(i)
            old = self.reasons.get(name, Reason(0, 0))
            self.reasons[name] = Reason(
                old.marked + int(np.count_nonzero(bits & bit)), old.alone + int((bits == bit).sum())
            )
        suspected = marked & (run.label != 1)
        self.groups["positives"].add(run.positive_score[~np.isnan(run.positive_score)])
        self.groups["kept"].add(run.score[survivors])
        self.groups["marked"].add(run.score[suspected])
        self.groups["drawn"].add(run.score[draw.row[draw.mask]])
        self._compare(run, suspected)

    def _compare(self, run: Run, suspected: NDArray[np.bool_]) -> None:
        """Compare candidates with the lowest positive of their query, where it is scored."""
        lowest = lists.segment_reduce(np.minimum, run.positive_score, run.positive_offsets, empty=np.nan)  # NaN spreads
        others = np.flatnonzero(run.label != 1)
        offsets = lists.keep_values(run.label != 1, run.offsets)
        lengths = np.diff(offsets)
        comparable = (lengths > 0) & ~np.isnan(lowest)
        start, half = offsets[:-1][comparable], lengths[comparable]
        ranked = run.score[others]  # highest first within a query, so the median stands in the middle
        median = (ranked[start + (half - 1) // 2] + ranked[start + half // 2]) / 2
        self.below += int((lowest[comparable] < median).sum())
        self.compared += int(comparable.sum())
        rows = np.flatnonzero(suspected & ~run.where_reason(POSITIVE_TEXT))
        query = np.searchsorted(run.offsets, rows, side="right") - 1
        excess = run.score[rows] - lowest[query]
        high = excess >= 0  # False for NaN
        rows, query, excess = rows[high], query[high], excess[high]
        self.counts["suspects"] += len(rows)
        first = np.concatenate(([True], query[1:] != query[:-1]))[: len(query)]
        rows, query, excess = rows[first], query[first], excess[first]
        if self.limit < 1:
            return
        for i in np.argsort(-excess, kind="stable")[: self.limit]:
            floor = min((value for value, _ in self.examples), default=-np.inf)
            if len(self.examples) < self.limit or excess[i] > floor:
                self.examples.append((float(excess[i]), _example(run, int(rows[i]), int(query[i]))))
                self.examples = sorted(self.examples, key=lambda pair: -pair[0])[: self.limit]

    def finish(self) -> MiningAudit:
        """Return the audit of everything added."""
        samples = {name: group.sample() for name, group in self.groups.items()}
        scores = {name: group.summary(samples[name]) for name, group in self.groups.items() if group.count}
        both = [self.groups["kept"], self.groups["marked"]]
        if both[0].count + both[1].count:
            candidates = _Scores(0)
            share = min(group.share for group in both)
            for group, name in zip(both, ("kept", "marked"), strict=True):
                part = samples[name]
                thin = (
                    part if group.share == share else part[candidates.generator.random(len(part)) < share / group.share]
                )
                candidates.parts.append(thin)
            candidates.count = both[0].count + both[1].count
            candidates.total, candidates.squares = both[0].total + both[1].total, both[0].squares + both[1].squares
            candidates.lowest = min(group.lowest for group in both)
            candidates.highest = max(group.highest for group in both)
            scores["candidates"] = candidates.summary(candidates.sample())
        return MiningAudit(
            scorer=self.scorer,
            score_kind=self.score_kind,
            steps=self.steps,
            without_survivor_ids=tuple(self.lonely_ids),
            unfilled=self.counts["wanted"] - self.counts["drawn"],
            reasons=dict(self.reasons),
            scores={
                name: scores[name] for name in ("positives", "candidates", "kept", "marked", "drawn") if name in scores
            },
            histogram=_histogram(samples, {name: group.share for name, group in self.groups.items()}),
            positive_below_median=self.below / self.compared if self.compared else None,
            examples=tuple(example for _, example in self.examples),
            notes=self.notes,
            **self.counts,
        )


def _histogram(samples: Mapping[str, NDArray[np.float32]], share: Mapping[str, float]) -> dict[str, tuple[float, ...]]:
    """Counts of every group on common edges, scaled up where a group was sampled."""
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


def _example(run: Run, row: int, query: int) -> Example:
    positives = slice(run.positive_offsets[query], run.positive_offsets[query + 1])
    nearest = int(run.positive[positives][np.argmin(run.positive_score[positives])])
    document = int(run.document[row])
    return Example(
        query_id=str(run.queries.ids[query]),
        query=text_of(run.queries, query),
        document_id=str(run.documents.ids[document]),
        document=text_of(run.documents, document),
        score=float(run.score[row]),
        positive_id=str(run.documents.ids[nearest]),
        positive=text_of(run.documents, nearest),
        positive_score=float(run.positive_score[positives].min()),
        reasons=tuple(run.reasons_of(row)),
    )


def text_of(collection: Collection, row: int) -> str | None:
    """Return one member's text with its title, or None where there are no texts, without reading all of them.

    >>> text_of(Collection(["a"], ["x"], {"title": ["T"]}), 0)
    'T. x'
    """
    if not collection.has_texts:
        return None
    text = str(collection.table["text"][row].as_py())
    title = collection.table["title"][row].as_py() if "title" in collection.table.column_names else None
    return f"{title}. {text}" if title else text
