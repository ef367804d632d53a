"""What a cascade of judges did: counts by stage, every change, and the way back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

import numpy as np

from rivals import lists
from rivals.data.run import Run
from rivals.errors import RivalsError


@dataclass(frozen=True)
class Stage:
    """One judge's work: instances and candidates it was given, how many of them it flagged, what it could not tell.

    `asked`, `unreadable`, `cut` are those of `Verdicts`: prompts, answers that could not be read, texts cut.
    """

    judge: str
    instances: int = 0
    candidates: int = 0
    flagged_instances: int = 0
    flagged: int = 0
    unknown: int = 0
    asked: int = 0
    unreadable: int = 0
    cut: int = 0

    def __add__(self, other: Stage) -> Stage:
        mine, theirs = asdict(self), asdict(other)
        return Stage(self.judge, **{name: mine[name] + theirs[name] for name in mine if name != "judge"})


class Change(NamedTuple):
    """What happened to one candidate: the reasons it got, and its marks before."""

    query_id: str
    document_id: str
    reasons: tuple[str, ...]
    relabelled: bool
    kept_before: bool
    label_before: int


@dataclass(frozen=True)
class CascadeReport:
    """What a `Cascade` did to a run.

    - `instances`: queries with candidates to judge; `unjudged`: queries left alone for want of a positive.
    - `stages`: one `Stage` a judge. `by`: instances, flagged by the first judge, confirmed by the last, for every value
      of the query column asked for, such as the data set.
    - `histogram`: number of confirmed candidates -> instances with so many (0 for those with none).
    - `relabelled`, `removed_candidates`: candidates turned into positives, or taken out alone.
    - `removed`: ids of the queries whose instance was dropped, `too_many` of them by the guard.
    - `without_negative`: instances left with no candidate to draw, removed ones aside; in-batch negatives remain.
    - `changes`: one `Change` for each candidate touched. `undo` takes them back.
    """

    mode: str = "relabel"
    instances: int = 0
    unjudged: int = 0
    stages: tuple[Stage, ...] = ()
    histogram: Mapping[int, int] = field(default_factory=dict)
    by: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    relabelled: int = 0
    removed_candidates: int = 0
    removed: tuple[str, ...] = ()
    too_many: int = 0
    without_negative: int = 0
    changes: tuple[Change, ...] = ()
    reasons_before: tuple[str, ...] = ()

    # -------------------------------------------------------------------------------------------------------- the way back

    def undo(self, run: Run) -> Run:
        """Return the run as it was before the cascade: marks, labels, positives and reasons.

        Marks that other filters made since stay, and so does what they took away.

        Raises:
            RivalsError: a changed candidate is not in the run.
        """
        query = run.queries.find(change.query_id for change in self.changes)
        document = run.documents.find(change.document_id for change in self.changes)
        row = lists.find_pairs(run.offsets, run.document, query, document)
        row = np.where((query >= 0) & (document >= 0), row, -1)
        if (row < 0).any():
            lost = self.changes[int((row < 0).argmax())]
            raise RivalsError(
                f"query '{lost.query_id}' has no candidate '{lost.document_id}' in this run; undo the run that was changed"
            )
        keep, label, reason = run.keep.copy(), run.label.copy(), run.reason.copy()
        bit = {name: np.uint64(1) << np.uint64(place) for place, name in enumerate(run.reasons)}
        mine = {name for change in self.changes for name in change.reasons}
        since = sum(int(bit[name]) for name in run.reasons if name not in mine and name not in self.reasons_before)
        for at, change in zip(row.tolist(), self.changes, strict=True):
            for name in change.reasons:
                reason[at] &= ~bit.get(name, np.uint64(0))
            if not reason[at] & np.uint64(since):
                keep[at] = change.kept_before
            label[at] = change.label_before
        reasons = run.reasons
        while reasons and reasons[-1] not in self.reasons_before and not (reason & bit[reasons[-1]]).any():
            reasons = reasons[:-1]
        run = run.replace(keep=keep, label=label, reason=reason, reasons=reasons)
        gone = [place for place, change in enumerate(self.changes) if change.relabelled]
        return without_positives(run, query[gone], document[gone])

    def remaining(self, run: Run) -> Run:
        """Return the run without the queries whose instance was removed, for training on the others."""
        rows = run.queries.find(self.removed)
        return run.take(np.setdiff1d(np.arange(len(run.queries)), rows))

    # -------------------------------------------------------------------------------------------------------- as a value

    @classmethod
    def joined(cls, reports: Iterable[CascadeReport]) -> CascadeReport:
        """Return one report of a cascade's work on several blocks of queries.

        Raises:
            RivalsError: no report, or reports of different cascades.
        """
        reports = list(reports)
        if not reports:
            raise RivalsError("there is no report to join; the cascade has not been called")
        first = reports[0]
        kind = (first.mode, [stage.judge for stage in first.stages])
        if any((report.mode, [stage.judge for stage in report.stages]) != kind for report in reports):
            raise RivalsError("reports of different cascades cannot be joined")
        histogram: dict[int, int] = {}
        by: dict[str, tuple[int, int, int]] = {}
        for report in reports:
            for size, count in report.histogram.items():
                histogram[size] = histogram.get(size, 0) + count
            for name, counts in report.by.items():
                old = by.get(name, (0, 0, 0))
                by[name] = (old[0] + counts[0], old[1] + counts[1], old[2] + counts[2])
        stages = list(first.stages)
        for report in reports[1:]:
            stages = [one + other for one, other in zip(stages, report.stages, strict=True)]
        total = {
            name: sum(getattr(report, name) for report in reports)
            for name in ("instances", "unjudged", "relabelled", "removed_candidates", "too_many", "without_negative")
        }
        return replace(
            first,
            stages=tuple(stages),
            histogram=dict(sorted(histogram.items())),
            by=by,
            removed=tuple(name for report in reports for name in report.removed),
            changes=tuple(change for report in reports for change in report.changes),
            **total,
        )

    def to_json(self) -> str:
        """Return the report as JSON text.

        >>> CascadeReport.from_json(CascadeReport(histogram={1: 2}).to_json()) == CascadeReport(histogram={1: 2})
        True
        """
        plain = asdict(self) | {"changes": [change._asdict() for change in self.changes]}
        return json.dumps(plain, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> CascadeReport:
        """Read what `to_json` wrote.

        Raises:
            RivalsError: the text is not such JSON.
        """
        try:
            plain = json.loads(text)
            plain["stages"] = tuple(Stage(**stage) for stage in plain["stages"])
            plain["histogram"] = {int(size): count for size, count in plain["histogram"].items()}
            plain["by"] = {name: tuple(counts) for name, counts in plain["by"].items()}
            plain["changes"] = tuple(
                Change(**change | {"reasons": tuple(change["reasons"])}) for change in plain["changes"]
            )
            for name in ("removed", "reasons_before"):
                plain[name] = tuple(plain[name])
            return cls(**plain)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise RivalsError(f"this is no cascade report as to_json writes it: {error}") from None

    def __str__(self) -> str:
        out = [f"Cascade ({self.mode}) over {self.instances:,} instances"]
        for stage in self.stages:
            out.append(
                f"  {stage.judge}: {stage.instances:,} instances, {stage.candidates:,} candidates judged; flagged "
                f"{stage.flagged:,} in {stage.flagged_instances:,} instances, could not tell {stage.unknown:,}"
            )
            if stage.asked:
                out.append(
                    f"    {stage.asked:,} prompts, {stage.unreadable:,} answers not readable, {stage.cut:,} texts cut"
                )
        spread = ", ".join(f"{size}: {count:,}" for size, count in self.histogram.items())
        out.append(f"  confirmed candidates an instance: {spread or 'none'}")
        out.append(f"  relabelled {self.relabelled:,}, taken out alone {self.removed_candidates:,}")
        out.append(
            f"  instances removed {len(self.removed):,} ({self.too_many:,} for too many), left without negative "
            f"{self.without_negative:,}, not judged for want of a positive {self.unjudged:,}"
        )
        for name, (instances, flagged, confirmed) in self.by.items():
            out.append(f"  {name}: {instances:,} instances, {flagged:,} flagged, {confirmed:,} confirmed")
        return "\n".join(out)


def with_positives(run: Run, rows: np.ndarray) -> Run:
    """Return the run with the candidates at `rows` added to their queries' positives, relevance 1, own score.

    They are put where the order of the documents has them if the positives stood in it, at the end otherwise.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 1], [0], [.5], positives=([0, 1], [1]))
    >>> with_positives(run, np.array([0])).positive.tolist()
    [0, 1]
    """
    old = lists.segment_ids(run.positive_offsets)
    owner = np.concatenate([old, run.query[rows]])
    positive = np.concatenate([run.positive, run.document[rows]])
    span = np.int64(max(len(run.documents), 1))
    ordered = (np.diff(old * span + run.positive) > 0).all()
    order = np.lexsort((positive, owner)) if ordered else np.argsort(owner, kind="stable")
    score = np.concatenate([run.positive_score, run.score[rows]])
    relevance = np.concatenate([run.positive_relevance, np.ones(len(rows), np.float32)])
    return run.replace(
        positive_offsets=lists.offsets_from_lengths(np.bincount(owner, minlength=len(run.queries))),
        positive=positive[order],
        positive_score=score[order],
        positive_relevance=relevance[order],
    )


def without_positives(run: Run, query: np.ndarray, document: np.ndarray) -> Run:
    """Return the run without the positives (query[i], document[i]); pairs that are none are passed over.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 0], [], [], positives=([0, 2], [0, 1]))
    >>> without_positives(run, np.array([0]), np.array([0])).positive.tolist()
    [1]
    """
    place = lists.find_pairs(run.positive_offsets, run.positive, query, document)
    stays = np.ones(len(run.positive), dtype=bool)
    stays[place[place >= 0]] = False
    return run.replace(
        positive_offsets=lists.keep_values(stays, run.positive_offsets),
        positive=run.positive[stays],
        positive_score=run.positive_score[stays],
        positive_relevance=run.positive_relevance[stays],
    )
