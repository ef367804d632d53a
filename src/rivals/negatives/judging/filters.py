"""Filters that act on a judge's verdict: too close to the positive, or not shown to be a negative by every verifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.pipeline import Transform
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.filters import NO_POSITIVE, Anchor, WithoutPositive, known_positives, positive_threshold
from rivals.negatives.judging.judges import Judge, judge_positives, judged
from rivals.negatives.rules import check_rules, rule_marks

Ask = Literal["kept", "marked", "all"]
"""Which candidates a judge is asked about: those no filter has marked, those one has, or both. Never labelled positives."""


@dataclass(frozen=True, repr=False)
class JudgeThreshold(Transform):
    """Mark candidates that a judge finds about as relevant as their positive, and keep its scores as soft targets.

    With s the judge's score of a candidate and s+ that of the query's positive by the same judge:

    - `margin` = b: kept where s <= s+ - b; the rule where none is given, with b = 0.01;
    - `relative` = r: kept where s <= (1 - r) s+;
    - `threshold` = t: kept where s <= t.

    `target` takes s wherever the judge was asked and could tell. Where it could not, nothing is marked as false: the
    candidate stays, with a reason of its own, so that the audit counts it.

    When to use: after cheap filters and a cut to some 50 candidates a query, for a judge costs a model call a pair.

    Args:
        judge: see `rivals.negatives.judging`; `threshold` needs no positives, the other rules also judge them.
        anchor, without_positive: as in `PositiveAware`.
        ask: a judge costs money, so by default candidates that other filters marked are not judged (and keep the
            target they had); "all" makes the filter independent of what stands before it, "marked" has it look at
            suspects only.

    Equals: `PositiveAware` with absolute=b, relative=r, max_score=t on the judge's scores, ties and float32 included.
    Source: Gu et al. 2025, UniME-V2 (paper 7): margin 0.01; LG-ANNA 2025 (paper 81): relative 0.05 of a cross-encoder's
    probability, `JudgeThreshold(ScoreJudge(cross_encoder), relative=0.05)`.

    Raises:
        RivalsError: a rule out of range; a query without positive under `margin` or `relative` (see
            `without_positive`); what the judge raises.

    >>> from rivals.data import Collection
    >>> from rivals.negatives.judging.judges import LabelJudge
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b", "c"]), [0, 2], [1, 2], [.9, .8], positives=([0, 1], [0]))
    >>> marked = JudgeThreshold(LabelJudge({("q", "a"): 3, ("q", "b"): 3, ("q", "c"): 1}, highest=4))(run)
    >>> marked.keep.tolist(), marked.target.tolist(), marked.reasons_of(0)
    ([False, True], [0.75, 0.25], ['judge labels margin 0.01'])
    """

    judge: Judge
    margin: float | None = None
    relative: float | None = None
    threshold: float | None = None
    anchor: Anchor = "min"
    without_positive: WithoutPositive = "error"
    ask: Ask = "kept"

    def __post_init__(self) -> None:
        check_judge(self.judge)
        if self.margin is None and self.relative is None and self.threshold is None:
            object.__setattr__(self, "margin", 0.01)
        check_rules(self.relative, self.margin, self.threshold, None)
        for name, bound in (("margin", self.margin), ("threshold", self.threshold)):
            if bound is not None and not 0 <= bound < 1:
                raise RivalsError(f"{name} must lie in [0, 1), as scores of judges do, not {bound}")
        for name, value, allowed in (
            ("anchor", self.anchor, ("min", "max", "mean")),
            ("without_positive", self.without_positive, ("error", "keep", "mark")),
            ("ask", self.ask, ("kept", "marked", "all")),
        ):
            if value not in allowed:
                raise RivalsError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")

    def __repr__(self) -> str:
        given = ((name, getattr(self, name)) for name in ("margin", "relative", "threshold"))
        return f"JudgeThreshold({self.judge.name}{''.join(f', {n}={v:g}' for n, v in given if v is not None)})"

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons under which this filter marks, in the order margin, relative, threshold."""
        return tuple(self._names().values())

    def _names(self) -> dict[str, str]:
        given = {"absolute": (self.margin, "margin"), "relative": (self.relative, "relative")}
        given["max_score"] = (self.threshold, "above")
        return {
            rule: f"judge {self.judge.name} {word} {value:g}"
            for rule, (value, word) in given.items()
            if value is not None
        }

    def __call__(self, run: Run) -> Run:
        wanted = to_ask(run, self.ask)
        compares = self.margin is not None or self.relative is not None
        limit, present = np.zeros(len(run.queries), np.float32), np.ones(len(run.queries), dtype=bool)
        if compares:
            concerned = np.bincount(run.query[wanted], minlength=len(run.queries)) > 0
            limit, present = self._limits(run, concerned)
        verdicts = judged(self.judge, run, wanted)
        score, unknown = verdicts.score, wanted & np.isnan(verdicts.score)
        lengths = np.diff(run.offsets)
        limits, there = np.repeat(limit, lengths), np.repeat(present, lengths)
        if compares:
            unknown |= wanted & there & np.isnan(limits)
        with np.errstate(invalid="ignore"):
            marks = rule_marks(
                score,
                limits,
                relative=self.relative,
                absolute=self.margin,
                max_score=self.threshold,
                min_score=None,
                strict=False,
            )
        for rule, name in self._names().items():
            run = run.mark(marks[rule] if rule == "max_score" else marks[rule] & there, name)
        run = run.mark(unknown, could_not_tell(self.judge), keep=True)
        if compares and self.without_positive == "mark":
            run = run.mark(wanted & ~there, NO_POSITIVE)
        return run.replace(target=np.where(np.isnan(score), run.target, score))

    def _limits(self, run: Run, concerned: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The judge's score of each query's positive, NaN where it could not tell, and whether there is a positive."""
        limit, present = np.zeros(len(run.queries), np.float32), np.ones(len(run.queries), dtype=bool)
        rows = np.flatnonzero(concerned)
        if not len(rows):
            return limit, present
        part = run.take(rows)
        score = judge_positives(self.judge, part).score
        unknown = np.isnan(score)
        # positive_threshold refuses positives that nobody scored; these were, without a verdict
        scored = part.replace(positive_score=np.where(unknown, 0.0, score).astype(np.float32))
        found, there = positive_threshold(scored, self.anchor, error=self.without_positive == "error")
        doubtful = np.bincount(lists.segment_ids(part.positive_offsets)[unknown], minlength=len(rows))
        limit[rows], present[rows] = np.where(doubtful > 0, np.nan, found), there
        return limit, present


@dataclass(frozen=True, repr=False)
class SoftTargets(Transform):
    """Put a judge's scores into `target`, for losses with soft labels, and mark nothing.

    Where the judge could not tell, a candidate keeps the target it had and gets a reason that says so. Targets of the
    positives are `judge_positives(judge, run).score`.

    When to use: teacher scores without a filter, `SoftTargets(ScoreJudge(cross_encoder))` behind a fused run.

    Source: the soft labels of LG-ANNA (2025, paper 81) and of UniME-V2 (Gu et al. 2025, paper 7).

    Raises:
        RivalsError: what is no judge; what the judge raises.

    >>> from rivals.data import Collection
    >>> from rivals.negatives.judging.judges import LabelJudge
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8])
    >>> SoftTargets(LabelJudge({("q", "a"): 1, ("q", "b"): 2}))(run).target.tolist()
    [0.5, 1.0]
    """

    judge: Judge
    ask: Ask = "kept"

    def __post_init__(self) -> None:
        check_judge(self.judge)
        if self.ask not in ("kept", "marked", "all"):
            raise RivalsError(f"ask must be one of kept, marked, all, not {self.ask!r}")

    def __repr__(self) -> str:
        return f"SoftTargets({self.judge.name})"

    def __call__(self, run: Run) -> Run:
        wanted = to_ask(run, self.ask)
        score = judged(self.judge, run, wanted).score
        run = run.mark(wanted & np.isnan(score), could_not_tell(self.judge), keep=True)
        return run.replace(target=np.where(np.isnan(score), run.target, score))


@dataclass(frozen=True, repr=False)
class Verify(Transform):
    """Keep only candidates that verifiers reject: those which, they say, do not answer the query.

    A verifier rejects a candidate where its score, the probability that it answers, is below `threshold`. With
    rule="all_reject" every verifier must reject, with "any_reject" one is enough. A verifier that could not tell does
    not reject, and a candidate that is not kept for that alone says so: unlike other filters, this one wants proof.

    When to use: on generated negatives, which nothing else vouches for; with the two packaged prompts `answerable` and
    `answer_found` over a model other than the writer's, since a model believes itself. The share that survives is in
    the audit: strict verification leaves the easy ones.

    Args:
        verifiers: judges with different names, such as `YesNoJudge`s with different prompts.
        ask: as in `JudgeThreshold`.

    Source: Wasserman et al. 2025, DocReRank (paper 9): two prompts, both must reject.

    Raises:
        RivalsError: no verifier or two of one name; a threshold outside (0, 1]; an unknown rule.

    >>> from rivals.data import Collection
    >>> from rivals.negatives.judging.judges import LabelJudge
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8])
    >>> one = LabelJudge({("q", "a"): 0.2, ("q", "b"): 0.2}, highest=1, name="one")
    >>> two = LabelJudge({("q", "a"): 0.6, ("q", "b"): 0.3}, highest=1, name="two")
    >>> Verify([one, two])(run).keep.tolist(), Verify([one, two], rule="any_reject")(run).keep.tolist()
    ([False, True], [True, True])
    """

    verifiers: Sequence[Judge]
    threshold: float = 0.5
    rule: Literal["all_reject", "any_reject"] = "all_reject"
    ask: Ask = "kept"

    def __post_init__(self) -> None:
        object.__setattr__(self, "verifiers", tuple(self.verifiers))
        check_judges(self.verifiers, "Verify")
        if not (math.isfinite(self.threshold) and 0 < self.threshold <= 1):
            raise RivalsError(f"threshold must lie in (0, 1], not {self.threshold}")
        if self.rule not in ("all_reject", "any_reject"):
            raise RivalsError(f"rule must be 'all_reject' or 'any_reject', not {self.rule!r}")
        if self.ask not in ("kept", "marked", "all"):
            raise RivalsError(f"ask must be one of kept, marked, all, not {self.ask!r}")

    def __repr__(self) -> str:
        return f"Verify({', '.join(judge.name for judge in self.verifiers)}, {self.rule})"

    @property
    def reasons(self) -> tuple[str, str]:
        """The reasons under which this filter marks: a verifier found an answer; nobody could tell."""
        names = ", ".join(judge.name for judge in self.verifiers)
        return f"answers, say {names} ({self.rule})", f"not verified by {names} ({self.rule})"

    def __call__(self, run: Run) -> Run:
        wanted = open_rows = to_ask(run, self.ask)
        every = self.rule == "all_reject"
        accepted, unknown = np.zeros(len(run), dtype=bool), np.zeros(len(run), dtype=bool)
        rejected = np.zeros(len(run), dtype=bool)
        for judge in self.verifiers:
            if not open_rows.any():
                break
            score = judged(judge, run, open_rows).score
            told = open_rows & ~np.isnan(score)
            with np.errstate(invalid="ignore"):
                says_no = told & (score < self.threshold)
            accepted |= told & ~says_no
            unknown |= open_rows & ~told
            rejected |= says_no
            open_rows = open_rows & (
                says_no if every else ~says_no
            )  # the rest is settled: no further verifier is asked
        failed = wanted & ((accepted | unknown) if every else ~rejected)
        answers, unverified = self.reasons
        return run.mark(failed & accepted, answers).mark(failed & ~accepted, unverified)


# ------------------------------------------------------------------------------------------------ shared parts


def to_ask(run: Run, ask: Ask) -> NDArray[np.bool_]:
    """Return which candidates a judge is to be asked about, bool[n]; labelled positives never are.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8])
    >>> to_ask(run.mark(np.array([True, False]), "some rule"), "kept").tolist()
    [False, True]
    """
    unlabelled = ~known_positives(run)
    return unlabelled if ask == "all" else unlabelled & (run.keep if ask == "kept" else ~run.keep)


def could_not_tell(judge: Judge) -> str:
    """Return the reason of candidates about which a judge could not tell; it takes nothing away."""
    return f"judge {judge.name} could not tell"


def check_judge(judge: Judge) -> None:
    """Raise a RivalsError unless the object is a judge."""
    if not isinstance(judge, Judge):
        raise RivalsError(f"a judge has a name and a method judge(run); {judge!r} has not")


def check_judges(judges: Sequence[Judge], whose: str) -> None:
    """Raise a RivalsError unless there are judges, each with a name of its own."""
    for judge in judges:
        check_judge(judge)
    names = [judge.name for judge in judges]
    if not names:
        raise RivalsError(f"{whose} got no judge; give one at least")
    if len(set(names)) < len(names):
        raise RivalsError(f"{whose} needs judges with different names, not {', '.join(names)}; give them name=...")
