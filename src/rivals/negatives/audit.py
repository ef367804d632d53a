"""`MiningAudit`: what mining proposed, marked, kept and drew, as a value that prints and saves as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.run import Run
from rivals.errors import DataError
from rivals.negatives._examples import Example, example_of
from rivals.negatives._score_statistics import ScoreStream, ScoreSummary, histogram, summary_of_both
from rivals.negatives.false_negatives import FalseNegatives
from rivals.negatives.filters import KNOWN_POSITIVE, POSITIVE_TEXT
from rivals.negatives.samplers import Draw

__all__ = ["AuditBuilder", "Example", "MiningAudit", "Reason", "ScoreSummary", "relabelled_rows"]

_DOUBTFUL, _SCARCE = 0.25, 0.1  # shares of queries and of places above which the audit says so


class Reason(NamedTuple):
    """How many candidates a rule marked, and how many of them no other rule marked."""

    marked: int
    alone: int


@dataclass(frozen=True)
class MiningAudit:
    """What happened in mining.

    Counts are exact; quantiles and histogram are of a random sample where a group is above a million.

    - `queries`, `proposed`, `marked`, `kept`, `drawn` (of `wanted` = queries * k), `unfilled`; `reasons` by name (a
      candidate may have several, so they do not add up); `proposed_by`, `drawn_by`: by the source that proposed first.
    - `relabelled`: candidates that a filter turned into positives (label 1, and no known positive), `relabelled_by`
      the rules that marked them. `weighted`: kept candidates with another weight than 1, `with_target`: candidates with
      a soft target.
    - `without_positive`, `without_survivor`: queries with no positive, with nothing left to draw
      (`without_survivor_ids`: the first 20).
    - `scores`: summaries of "positives", "candidates" (less the known positives: before the filters), "kept" (after
      them), "marked", "drawn".
    - `histogram`: "edges" and, for the same groups, counts on common edges: how far the filters part the two sides.
    - `positive_below_median`: share of queries whose lowest positive scores below the median of its candidates (less
      known positives). Such positives are doubtful labels or beyond the scorer, and a margin below them removes every
      hard negative.
    - `fn_probability`: mean over the drawn candidates that a filter gave one: the rate of false negatives it expects.
    - `false_negatives`: rates estimated from judged samples, see `estimate_false_negatives`.
    - `suspects`, `examples`: candidates that were marked or relabelled and score at or above their positive; at most
      one example per query, farthest above first.
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
    relabelled: int = 0
    kept: int = 0
    weighted: int = 0
    with_target: int = 0
    wanted: int = 0
    drawn: int = 0
    unfilled: int = 0
    proposed_by: Mapping[str, int] = field(default_factory=dict)
    drawn_by: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, Reason] = field(default_factory=dict)
    relabelled_by: Mapping[str, int] = field(default_factory=dict)
    scores: Mapping[str, ScoreSummary] = field(default_factory=dict)
    histogram: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    positive_below_median: float | None = None
    fn_probability: float | None = None
    false_negatives: tuple[FalseNegatives, ...] = ()
    suspects: int = 0
    examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, run: Run, draw: Draw, *, steps: tuple[str, ...] = (), examples: int = 20, notes: tuple[str, ...] = ()
    ) -> MiningAudit:
        """Audit one marked run and what was drawn from it.

        >>> from rivals.data import Collection
        >>> from rivals.negatives.samplers import Top
        >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8])
        >>> MiningAudit.of(run, Top(1).draw(run, np.random.default_rng(0))).drawn
        1
        """
        builder = AuditBuilder(steps=steps, examples=examples, notes=notes)
        builder.add(run, draw)
        return builder.finish()

    def with_false_negatives(self, estimate: FalseNegatives) -> MiningAudit:
        """Return the audit with an estimate added; an older one of the same group and judge is replaced."""
        others = (old for old in self.false_negatives if (old.of, old.judge) != (estimate.of, estimate.judge))
        return replace(self, false_negatives=(*others, estimate))

    def to_json(self) -> str:
        """Return the audit as JSON text."""
        plain = asdict(self)
        plain["reasons"] = {name: reason._asdict() for name, reason in self.reasons.items()}
        plain["scores"] = {name: asdict(summary) for name, summary in self.scores.items()}
        plain["examples"] = [example._asdict() for example in self.examples]
        plain["false_negatives"] = [estimate.as_dict() for estimate in self.false_negatives]
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
            plain["false_negatives"] = tuple(map(FalseNegatives.of_dict, plain["false_negatives"]))
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


def relabelled_rows(run: Run) -> NDArray[np.bool_]:
    """Return which candidates a filter turned into positives: label 1, and no known positive of their query, bool[n].

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8], positives=([0, 1], [0]),
    ...                 columns={"label": [1, 1]})
    >>> relabelled_rows(run).tolist()
    [False, True]
    """
    labelled = run.label == 1
    if KNOWN_POSITIVE in run.reasons:  # a relabelling filter may add to the run's positives, never this reason
        return labelled & ~run.where_reason(KNOWN_POSITIVE)
    rows = np.flatnonzero(labelled)
    query = np.searchsorted(run.offsets, rows, side="right") - 1
    labelled[rows] = lists.find_pairs(run.positive_offsets, run.positive, query, run.document[rows]) < 0
    return labelled


class AuditBuilder:
    """Adds up an audit over runs, block after block of queries, in bounded memory."""

    def __init__(self, *, steps: tuple[str, ...] = (), examples: int = 20, notes: tuple[str, ...] = ()) -> None:
        self.steps, self.limit, self.notes = steps, examples, notes
        self.counts: Counter[str] = Counter()
        self.reasons: dict[str, Reason] = {}
        self.by: dict[str, dict[str, int]] = {"relabelled": {}, "proposed": {}, "drawn": {}}
        self.lonely_ids: list[str] = []
        self.examples: list[tuple[float, Example]] = []
        self.groups = {name: ScoreStream(i) for i, name in enumerate(("positives", "kept", "marked", "drawn"))}
        self.below, self.compared = 0, 0
        self.expected, self.with_probability = 0.0, 0
        self.scorer, self.score_kind = "", "other"

    def add(self, run: Run, draw: Draw) -> None:
        """Add one block: the marked run and what was drawn from it."""
        survivors = run.keep & (run.label != 1)
        per_query = lists.keep_values(survivors, run.offsets)
        empty = np.flatnonzero(np.diff(per_query) == 0)
        relabelled = relabelled_rows(run)
        known = (run.label == 1) & ~relabelled
        drawn = draw.row[draw.mask]
        self.scorer, self.score_kind = run.scorer, run.score_kind
        for name, value in (
            ("queries", len(run.queries)),
            ("without_positive", np.count_nonzero(np.diff(run.positive_offsets) == 0)),
            ("without_survivor", len(empty)),
            ("proposed", len(run)),
            ("marked", np.count_nonzero(~run.keep)),
            ("relabelled", np.count_nonzero(relabelled)),
            ("kept", np.count_nonzero(survivors)),
            ("weighted", np.count_nonzero(survivors & (run.weight != 1))),
            ("with_target", np.count_nonzero(~np.isnan(run.target))),
            ("wanted", draw.mask.size),
            ("drawn", len(drawn)),
        ):
            self.counts[name] += int(value)
        self.lonely_ids += [str(run.queries.ids[row]) for row in empty[: max(20 - len(self.lonely_ids), 0)]]
        self._count_reasons(run, relabelled)
        for name, rows in (("proposed", run.source), ("drawn", run.source[drawn])):
            for i, count in enumerate(np.bincount(rows, minlength=len(run.sources)).tolist()):
                self.by[name][run.sources[i]] = self.by[name].get(run.sources[i], 0) + count
        suspected = ~survivors & ~known
        self.groups["positives"].add(run.positive_score[~np.isnan(run.positive_score)])
        self.groups["kept"].add(run.score[survivors])
        self.groups["marked"].add(run.score[suspected])
        self.groups["drawn"].add(run.score[drawn])
        probability = run.fn_probability[drawn]
        probability = probability[~np.isnan(probability)]
        self.expected += float(probability.sum(dtype=np.float64))
        self.with_probability += len(probability)
        self._compare(run, known, suspected)

    def _count_reasons(self, run: Run, relabelled: NDArray[np.bool_]) -> None:
        marked = run.reason != 0
        bits, turned = run.reason[marked], run.reason[relabelled]
        for i, name in enumerate(run.reasons):
            bit = np.uint64(1) << np.uint64(i)
            old = self.reasons.get(name, Reason(0, 0))
            self.reasons[name] = Reason(
                old.marked + int(np.count_nonzero(bits & bit)), old.alone + int((bits == bit).sum())
            )
            found = int(np.count_nonzero(turned & bit))
            if found:
                self.by["relabelled"][name] = self.by["relabelled"].get(name, 0) + found

    def _compare(self, run: Run, known: NDArray[np.bool_], suspected: NDArray[np.bool_]) -> None:
        """Compare candidates with the lowest positive of their query, where it is scored."""
        lowest = lists.segment_reduce(np.minimum, run.positive_score, run.positive_offsets, empty=np.nan)  # NaN spreads
        others = np.flatnonzero(~known)
        offsets = lists.keep_values(~known, run.offsets)
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
        rows, excess = rows[first], excess[first]
        if self.limit < 1:
            return
        for i in np.argsort(-excess, kind="stable")[: self.limit]:
            floor = min((value for value, _ in self.examples), default=-np.inf)
            if len(self.examples) < self.limit or excess[i] > floor:
                self.examples.append((float(excess[i]), example_of(run, int(rows[i]))))
                self.examples = sorted(self.examples, key=lambda pair: -pair[0])[: self.limit]

    def finish(self) -> MiningAudit:
        """Return the audit of everything added."""
        samples = {name: group.sample() for name, group in self.groups.items()}
        scores = {name: group.summary(samples[name]) for name, group in self.groups.items() if group.count}
        if self.groups["kept"].count + self.groups["marked"].count:
            scores["candidates"] = summary_of_both(self.groups["kept"], self.groups["marked"])
        unfilled = self.counts["wanted"] - self.counts["drawn"]
        below = self.below / self.compared if self.compared else None
        several = sum(map(bool, self.by["proposed"])) > 1
        return MiningAudit(
            scorer=self.scorer,
            score_kind=self.score_kind,
            steps=self.steps,
            without_survivor_ids=tuple(self.lonely_ids),
            unfilled=unfilled,
            proposed_by=dict(self.by["proposed"]) if several else {},
            drawn_by=dict(self.by["drawn"]) if several else {},
            reasons=dict(self.reasons),
            relabelled_by=dict(self.by["relabelled"]),
            scores={
                name: scores[name] for name in ("positives", "candidates", "kept", "marked", "drawn") if name in scores
            },
            histogram=histogram(samples, {name: group.share for name, group in self.groups.items()}),
            positive_below_median=below,
            fn_probability=self.expected / self.with_probability if self.with_probability else None,
            examples=tuple(example for _, example in self.examples),
            notes=(*self.notes, *_remarks(below, unfilled, self.counts["wanted"])),
            **dict[str, Any](self.counts),
        )


def _remarks(below: float | None, unfilled: int, wanted: int) -> list[str]:
    """Return what deserves a look, in words."""
    remarks = []
    if below is not None and below > _DOUBTFUL:
        remarks.append(
            f"{below:.0%} of the queries have a positive below their median candidate: the scorer is weak on this data "
            "or labels are wrong, and a margin below such a positive marks every hard candidate"
        )
    if wanted and unfilled > _SCARCE * wanted:
        remarks.append(
            f"{unfilled / wanted:.0%} of the wanted negatives could not be filled; retrieve more candidates or loosen "
            "the filters"
        )
    return remarks
