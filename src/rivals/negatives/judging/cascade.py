"""A cascade of judges: cheap ones screen every instance, strong ones decide, what they confirm is relabelled or removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.dataset import Dataset, Judgements
from rivals.data.pipeline import Transform, check_same_documents
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.filters import known_positives
from rivals.negatives.judging.cascade_report import CascadeReport, Change, Stage, with_positives
from rivals.negatives.judging.filters import Ask, check_judges, could_not_tell, to_ask
from rivals.negatives.judging.judges import Judge, judged

Mode = Literal["relabel", "remove_hn", "remove"]


class Cleaned(NamedTuple):
    """A run after a cascade, and what the cascade did."""

    run: Run
    report: CascadeReport


class Cascade(Transform):
    """Let judges find false negatives, the cheap one first, and relabel them, take them out, or drop their instance.

    An instance is a query with its positives P and its candidates N. The first judge sees every instance; one in which
    it flags nothing (score > `threshold`) leaves unchanged. Each further judge sees the instances that the one before
    flagged in, whole again; what the last one flags is F:

    - "relabel": P := P u F, N := N - F. F gets label 1 and joins the run's positives with relevance 1 and its own score;
      an instance with more than `max_relabelled` in F is removed instead, its query being ambiguous.
    - "remove_hn": N := N - F.
    - "remove": instances with F not empty are removed.

    Candidates of N - F are marked with the judges' names in the reason; in a removed instance all candidates are, so that
    nothing can be drawn for it. Labelled positives are never questioned. What a judge could not tell about it has not
    flagged.

    When to use: on the candidates that would become negatives, after cheap filters and a cut to some 25 a query. Or with
    ask="marked" on what `PositiveAware` suspects: relabelling gives those to training as positives instead of losing
    them. Keep test data out of it: it would be cleaned to the judge's taste.

    Unlike other filters it changes the positives, so filters that compare with positives stand before it, and training
    takes its judgements from `with_relabelled(dataset, run)`. A second call changes nothing where judges are
    deterministic and judge pair by pair. An interrupted run goes on from the model's cache on disk.

    Args:
        judges: cheap first; one is enough.
        restrict: later judges are asked only about what the one before flagged, and can only confirm.
        without_positive: a query with candidates and no positive is an "error", or left unjudged ("keep") and counted.
        by: a query column whose values get counts of their own, such as the data set.
        ask: which candidates are N, see `JudgeThreshold`.

    As a transform it returns the run; `clean` returns the report too. The reports of all calls are in `reports`
    (`CascadeReport.joined` adds them up), for mining calls it once a block.

    Source: Thakur et al. 2025, RLHN (paper 26).

    Raises:
        RivalsError: no judge, two of one name, an unknown mode, max_relabelled below 1; a query without positive.

    >>> from rivals.data import Collection
    >>> from rivals.negatives.judging.judges import LabelJudge
    >>> run = Run.build(Collection(["q"]), Collection(list("abcd")), [0, 3], [0, 1, 2], [.9, .8, .7], positives=([0, 1], [3]))
    >>> cheap = LabelJudge({("q", "a"): 0, ("q", "b"): 1, ("q", "c"): 0}, name="cheap")
    >>> strong = LabelJudge({("q", "a"): 0, ("q", "b"): 1, ("q", "c"): 1}, name="strong")
    >>> cleaned = Cascade([cheap, strong]).clean(run)
    >>> cleaned.run.keep.tolist(), cleaned.run.positive.tolist(), cleaned.report.histogram
    ([True, False, False], [1, 2, 3], {2: 1})
    """

    def __init__(
        self,
        judges: Sequence[Judge],
        *,
        mode: Mode = "relabel",
        max_relabelled: int = 7,
        restrict: bool = False,
        threshold: float = 0.5,
        ask: Ask = "kept",
        without_positive: Literal["error", "keep"] = "error",
        by: str | None = None,
    ) -> None:
        self.judges = tuple(judges)
        check_judges(self.judges, "Cascade")
        for name, value, allowed in (
            ("mode", mode, ("relabel", "remove_hn", "remove")),
            ("ask", ask, ("kept", "marked", "all")),
            ("without_positive", without_positive, ("error", "keep")),
        ):
            if value not in allowed:
                raise RivalsError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        if isinstance(max_relabelled, bool) or not isinstance(max_relabelled, int) or max_relabelled < 1:
            raise RivalsError(f"max_relabelled must be a whole number, 1 or more, not {max_relabelled!r}")
        if not 0 <= threshold < 1:
            raise RivalsError(f"threshold must lie in [0, 1), not {threshold}")
        self.mode, self.max_relabelled, self.restrict, self.threshold = mode, max_relabelled, restrict, threshold
        self.ask, self.without_positive, self.by = ask, without_positive, by
        self.reports: list[CascadeReport] = []
        """What each call so far did, oldest first."""

    def __repr__(self) -> str:
        return f"Cascade({' -> '.join(judge.name for judge in self.judges)}, {self.mode})"

    def __call__(self, run: Run) -> Run:
        return self.clean(run).run

    @property
    def _removal(self) -> str:
        return f"instance removed by {self.judges[-1].name}"

    def clean(self, run: Run) -> Cleaned:
        """Return the cleaned run and the report."""
        wanted, unjudged = self._wanted(run)
        instances = _queries(run, wanted)
        marks: list[tuple[NDArray[np.bool_], str, bool]] = []
        stages: list[Stage] = []
        flagged, open_, firsts = wanted, instances, instances
        for number, judge in enumerate(self.judges):
            given = flagged if number == 0 or self.restrict else wanted & np.isin(run.query, np.flatnonzero(open_))
            verdicts = judged(judge, run, given)
            unknown = given & np.isnan(verdicts.score)
            with np.errstate(invalid="ignore"):
                flagged = verdicts.score > self.threshold
            open_ = _queries(run, flagged)
            firsts = open_ if number == 0 else firsts
            stages.append(
                Stage(
                    judge.name,
                    int(_queries(run, given).sum()),
                    int(given.sum()),
                    int(open_.sum()),
                    int(flagged.sum()),
                    int(unknown.sum()),
                    *verdicts[1:],
                )
            )
            marks.append((unknown, could_not_tell(judge), True))
            if number < len(self.judges) - 1:
                marks.append((flagged, f"flagged by {judge.name}", True))
        sizes = np.bincount(run.query[flagged], minlength=len(run.queries))
        too_many = (sizes > self.max_relabelled) if self.mode == "relabel" else np.zeros(len(sizes), dtype=bool)
        removed = too_many | ((sizes > 0) if self.mode == "remove" else False)
        gone = removed[run.query]
        deciding = self.judges[-1].name
        marks += [
            (flagged & ~gone, f"{'relabelled' if self.mode == 'relabel' else 'relevant'} by {deciding}", False),
            (gone, self._removal, False),
        ]
        cleaned = run
        for marked, reason, keep in marks:
            cleaned = cleaned.mark(marked, reason, keep=keep)
        relabelled = flagged & ~gone if self.mode == "relabel" else np.zeros(len(run), dtype=bool)
        if self.mode == "relabel":
            cleaned = cleaned.replace(label=np.where(relabelled, np.int8(1), run.label))
            cleaned = with_positives(cleaned, np.flatnonzero(relabelled))
        left = _queries(cleaned, cleaned.keep & ~known_positives(cleaned))
        report = CascadeReport(
            mode=self.mode,
            instances=int(instances.sum()),
            unjudged=unjudged,
            stages=tuple(stages),
            histogram={size: count for size, count in enumerate(np.bincount(sizes[instances]).tolist()) if count},
            by=self._counts_by(run, instances, firsts, sizes > 0),
            relabelled=int(relabelled.sum()),
            removed_candidates=int((flagged & ~gone).sum()) if self.mode == "remove_hn" else 0,
            removed=tuple(run.queries.ids[removed].tolist()),
            too_many=int(too_many.sum()),
            without_negative=int((instances & ~left & ~removed).sum()),
            changes=_changes(run, cleaned, relabelled),
            reasons_before=run.reasons,
        )
        self.reports.append(report)
        return Cleaned(cleaned, report)

    def _wanted(self, run: Run) -> tuple[NDArray[np.bool_], int]:
        """The candidates to judge, and how many queries are left out for want of a positive."""
        dropped = _queries(run, run.where_reason(self._removal))  # by an earlier call: that is settled
        wanted = to_ask(run, self.ask) & ~dropped[run.query]
        lonely = (np.diff(run.positive_offsets) == 0) & _queries(run, wanted)
        if lonely.any() and self.without_positive == "error":
            raise RivalsError(
                f"query '{run.queries.ids[int(lonely.argmax())]}' has no positive to compare candidates with "
                f"({int(lonely.sum())} of {len(lonely)} queries have none); attach positives by calling the retriever "
                "with a dataset, or set without_positive='keep'"
            )
        return wanted & ~lonely[run.query], int(lonely.sum())

    def _counts_by(
        self, run: Run, instances: NDArray[np.bool_], flagged: NDArray[np.bool_], confirmed: NDArray[np.bool_]
    ) -> dict[str, tuple[int, int, int]]:
        if self.by is None:
            return {}
        if self.by not in run.queries.table.column_names:
            raise RivalsError(
                f"queries have no column '{self.by}'; they have {', '.join(run.queries.table.column_names)}"
            )
        values, group = np.unique(
            np.array([str(value) for value in run.queries.table[self.by].to_pylist()], dtype=object),
            return_inverse=True,
        )
        counts = [np.bincount(group[which], minlength=len(values)) for which in (instances, flagged, confirmed)]
        return {str(name): (int(a), int(b), int(c)) for name, a, b, c in zip(values, *counts, strict=True)}


def with_relabelled(dataset: Dataset, run: Run) -> Dataset:
    """Return the dataset with the run's positives among its judgements, relevance as in the run.

    Pairs that the dataset judges not relevant and the run holds as positive become positive; positives of the dataset stay
    as they are. Train on it after a `Cascade` in mode "relabel": the new positives are then trained towards, and masked
    where they come up as another query's document.

    Args:
        run: over queries of the dataset, all or some, and the same documents.

    Source: Thakur et al. 2025 (paper 26).

    Raises:
        RivalsError: the run has other documents, or a query that the dataset has not.

    >>> from rivals.data import Collection
    >>> queries, documents = Collection(["q"], name="query"), Collection(["a", "b"])
    >>> dataset = Dataset(queries, documents, Judgements.build([0], [0], [2], queries=1, documents=2))
    >>> run = Run.build(queries, documents, [0, 0], [], [], positives=([0, 2], [0, 1]))
    >>> with_relabelled(dataset, run).judgements.relevance.tolist()
    [2.0, 1.0]
    """
    check_same_documents(dataset.documents, run.documents)
    rows = dataset.queries.rows(run.queries.ids.tolist())
    query, document = rows[lists.segment_ids(run.positive_offsets)], run.positive
    known = dataset.judgements
    place = lists.find_pairs(known.offsets, known.document, query, document)
    relevance = known.relevance.copy()
    overruled = (
        (place >= 0) & (relevance[np.maximum(place, 0)] <= 0) if len(known) else np.zeros(len(place), dtype=bool)
    )
    relevance[place[overruled]] = run.positive_relevance[overruled]
    new = place < 0
    judgements = Judgements.build(
        np.concatenate([known.query, query[new]]),
        np.concatenate([known.document, document[new]]),
        np.concatenate([relevance, run.positive_relevance[new]]),
        queries=len(dataset.queries),
        documents=len(dataset.documents),
    )
    report = dict(dataset.report) | {"judgements relabelled as relevant": int(new.sum() + overruled.sum())}
    return replace(dataset, judgements=judgements, report=report)


def _queries(run: Run, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which queries have a candidate among `rows`, bool[Q]."""
    return np.bincount(run.query[rows], minlength=len(run.queries)) > 0


def _changes(before: Run, after: Run, relabelled: NDArray[np.bool_]) -> tuple[Change, ...]:
    changed = (before.keep != after.keep) | (before.label != after.label) | (before.reason != after.reason)
    return tuple(
        Change(
            str(before.queries.ids[before.query[row]]),
            str(before.documents.ids[before.document[row]]),
            tuple(name for name in after.reasons_of(row) if name not in before.reasons_of(row)),
            bool(relabelled[row]),
            bool(before.keep[row]),
            int(before.label[row]),
        )
        for row in np.flatnonzero(changed).tolist()
    )
