"""Filters: transforms that mark candidates which must not serve as negatives, say why, and delete nothing.

A filter sets `keep` to False and adds its reason to every candidate that breaks its rule. Rows stay where they are, a
mark is never taken back and every rule looks only at scores, texts and judgements, never at other marks. So filters are
idempotent and commute, and what each of them did can be counted.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.pipeline import Transform
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.rules import check_rules, positive_aware_mask, rule_marks

__all__ = [
    "Duplicates",
    "KnownPositives",
    "PositiveAware",
    "known_positives",
    "positive_aware_mask",
    "positive_threshold",
    "top_k_abs",
    "top_k_margin_pos",
    "top_k_perc_pos",
]

#: Reasons of the two filters that mining always applies.
KNOWN_POSITIVE = "known positive"
POSITIVE_TEXT = "same text as a positive"
REPEATED_TEXT = "text repeated in the list"
NO_POSITIVE = "query without positive"

Anchor = Literal["min", "max", "mean"]
WithoutPositive = Literal["error", "keep", "mark"]


@dataclass(frozen=True)
class KnownPositives(Transform):
    """Mark the candidates that are labelled positives of their query, and label them 1.

    A candidate is a known positive if it is among the run's positives or already carries the label 1.
    `mine_hard_negatives` applies this filter by itself; in a pipeline written out by hand it comes first.

    >>> from rivals.data import Collection, Run
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8], positives=([0, 1], [0]))
    >>> KnownPositives()(run).keep.tolist()
    [False, True]
    """

    def __call__(self, run: Run) -> Run:
        known = known_positives(run)
        marked = run.mark(known, KNOWN_POSITIVE)
        return marked if (run.label[known] == 1).all() else marked.replace(label=np.where(known, np.int8(1), run.label))


@dataclass(frozen=True)
class Duplicates(Transform):
    """Mark candidates that say what a positive of their query says, and texts that come back further down the list.

    Texts are compared by `Collection.text_hashes`: equal up to case, Unicode form (NFKC) and blanks. Of several equal
    texts in a list the best-ranked one stays. Corpora repeat texts more often than one thinks, and a copy of the
    positive is the worst negative there is.

    Raises:
        RivalsError: the documents have no texts.

    >>> from rivals.data import Collection, Run
    >>> documents = Collection(["a", "b", "c", "d"], ["Yes.", "yes. ", "no", "No"])
    >>> run = Run.build(Collection(["q"]), documents, [0, 4], [0, 1, 2, 3], [.9, .8, .7, .6], positives=([0, 1], [0]))
    >>> marked = Duplicates()(run)
    >>> [marked.reasons_of(row) for row in range(1, 4)]
    [['same text as a positive', 'text repeated in the list'], [], ['text repeated in the list']]
    """

    def __call__(self, run: Run) -> Run:
        if not run.documents.has_texts:
            raise RivalsError("Duplicates compares texts, but the documents have none; leave it out or load the texts")
        group = run.documents.text_groups
        shared = np.bincount(group, minlength=len(group))[group] > 1
        of_positive, repeated = np.zeros(len(run), dtype=bool), np.zeros(len(run), dtype=bool)
        rows = np.flatnonzero(shared[run.document])  # only these can equal another document
        if len(rows):
            query = np.searchsorted(run.offsets, rows, side="right") - 1
            members = group[run.positive]
            found = lists.find_pairs(run.positive_offsets, members, query, group[run.document[rows]])
            # The positive itself is not its own duplicate: KnownPositives marks it.
            itself = lists.find_pairs(run.positive_offsets, run.positive, query, run.document[rows])
            of_positive[rows] = (found >= 0) & (itself < 0)
            key = query * np.int64(len(run.documents)) + group[run.document[rows]]
            first = np.unique(key, return_index=True)[1]  # rows stand in rank order, so the first is the best-ranked
            later = np.ones(len(rows), dtype=bool)
            later[first] = False
            repeated[rows] = later
        return run.mark(of_positive, POSITIVE_TEXT).mark(repeated, REPEATED_TEXT)


@dataclass(frozen=True, kw_only=True, repr=False)
class PositiveAware(Transform):
    """Mark candidates that score too close to, or above, their query's own positive: likely unlabelled positives.

    With s the candidate's score and s+ the positive's by the same scorer, a candidate is kept when it breaks none of
    the rules given:

    - `relative` = r: s <= s+ - r * |s+|     (TopK-PercPos with p = 1 - r; right for negative s+ too)
    - `absolute` = m: s + m <= s+            (TopK-MarginPos)
    - `max_score` = c: s <= c                (TopK-Abs; needs no positive score)
    - `min_score` = c: s >= c                (drops candidates too easy to teach anything)

    Use it in front of every sampler when candidates come from a good retriever: the better the retriever, the more of
    its top candidates are right answers that nobody labelled. `relative=0.05` is the best setting of the source.

    Args:
        relative: in (0, 1). absolute: 0 or more. max_score, min_score: any numbers, min_score <= max_score.
        anchor: which positive counts when a query has several: the "min" (the strictest), the "max" or the "mean".
        strict: the source writes `<` for both margins; its reference code, and this default, keep exact ties.
        without_positive: a query with no positive is an "error", its candidates are all "keep"-ed by the margins, or
            all "mark"-ed.

    Each rule marks under a reason of its own, such as "positive-aware relative 0.05". Thresholds are computed in the
    scores' dtype, float32. Shifting by N ranks is a matter of the samplers: `Top(k, skip=N)`.

    Source: Moreira et al. 2024, NV-Retriever, algorithms TopK-Abs, -MarginPos, -PercPos (paper 13); the
    several-positives rule and ties as in the reference implementation of sentence-transformers 6.2.

    Raises:
        RivalsError: no rule or a rule out of range; called on a run whose positives are missing or not scored.

    >>> from rivals.data import Collection, Run
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b", "c"]), [0, 2], [1, 2], [.79, .5],
    ...                 positives=([0, 1], [0]), positive_score=[.8], score_kind="cosine")
    >>> marked = PositiveAware(relative=0.05)(run)
    >>> marked.keep.tolist(), marked.reasons_of(0)
    ([False, True], ['positive-aware relative 0.05'])
    """

    relative: float | None = None
    absolute: float | None = None
    max_score: float | None = None
    min_score: float | None = None
    anchor: Anchor = "min"
    strict: bool = False
    without_positive: WithoutPositive = "error"

    def __post_init__(self) -> None:
        check_rules(self.relative, self.absolute, self.max_score, self.min_score)
        for name, value, allowed in (
            ("anchor", self.anchor, ("min", "max", "mean")),
            ("without_positive", self.without_positive, ("error", "keep", "mark")),
        ):
            if value not in allowed:
                raise RivalsError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")

    def __repr__(self) -> str:
        given = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"PositiveAware({', '.join(given)})"

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons under which this filter marks, in the order relative, absolute, max_score, min_score."""
        return tuple(self._names().values())

    def _names(self) -> dict[str, str]:
        tail = (" strict" if self.strict else "") + ("" if self.anchor == "min" else f" of {self.anchor} positive")
        given = {
            "relative": (self.relative, "positive-aware relative {:g}" + tail),
            "absolute": (self.absolute, "positive-aware absolute {:g}" + tail),
            "max_score": (self.max_score, "score above {:g}"),
            "min_score": (self.min_score, "score below {:g}"),
        }
        return {rule: text.format(value) for rule, (value, text) in given.items() if value is not None}

    def __call__(self, run: Run) -> Run:
        needs_positive = self.relative is not None or self.absolute is not None
        threshold, present = np.zeros(len(run.queries), np.float32), np.ones(len(run.queries), dtype=bool)
        if needs_positive:
            threshold, present = positive_threshold(run, self.anchor, error=self.without_positive == "error")
            self._warn_unbounded(run)
        lengths = np.diff(run.offsets)
        marks = rule_marks(
            run.score,
            np.repeat(threshold, lengths),
            relative=self.relative,
            absolute=self.absolute,
            max_score=self.max_score,
            min_score=self.min_score,
            strict=self.strict,
        )
        lonely = None if present.all() else np.repeat(~present, lengths)
        for rule, name in self._names().items():
            marked = marks[rule]
            run = run.mark(
                marked & ~lonely if lonely is not None and rule in ("relative", "absolute") else marked, name
            )
        if lonely is not None and self.without_positive == "mark":
            run = run.mark(lonely, NO_POSITIVE)
        return run

    def _warn_unbounded(self, run: Run) -> None:
        if self.relative is None:
            return
        if run.score_kind == "dot" or (run.score_kind == "other" and (run.positive_score <= 0).any()):
            _warn_once(
                f"PositiveAware(relative={self.relative:g}) on scores of kind '{run.score_kind}': a share of an "
                "unbounded score is no fixed distance, and none near 0; prefer absolute=..., or normalised vectors"
            )


def top_k_perc_pos(share: float = 0.95, *, strict: bool = False) -> PositiveAware:
    """Return the filter TopK-PercPos: keep what scores at most `share` of the positive's score (paper 13; 0.95).

    >>> top_k_perc_pos(0.95).reasons
    ('positive-aware relative 0.05',)
    """
    if not 0 < share < 1:
        raise RivalsError(f"share must lie between 0 and 1, not {share}")
    return PositiveAware(relative=round(1 - share, 12), strict=strict)


def top_k_margin_pos(margin: float = 0.05, *, strict: bool = False) -> PositiveAware:
    """Return the filter TopK-MarginPos: keep what scores at least `margin` below the positive (paper 13; 0.05).

    >>> top_k_margin_pos().absolute
    0.05
    """
    return PositiveAware(absolute=margin, strict=strict)


def top_k_abs(score: float = 0.7) -> PositiveAware:
    """Return the filter TopK-Abs: keep what scores at most `score`, whatever the positive scores (paper 13; 0.7).

    >>> top_k_abs().max_score
    0.7
    """
    return PositiveAware(max_score=score)


# ------------------------------------------------------------------------------------------------ shared parts


def known_positives(run: Run) -> NDArray[np.bool_]:
    """Return which candidates are labelled positives of their query, bool[n].

    >>> from rivals.data import Collection, Run
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8], positives=([0, 1], [1]))
    >>> known_positives(run).tolist()
    [False, True]
    """
    labelled = run.label == 1
    lengths = np.diff(run.positive_offsets)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    sizes = np.diff(run.offsets)[owner]
    if sizes.sum() <= 2 * len(run):  # few positives a query: compare each with its query's candidates
        index, _ = lists.take_segments(run.offsets, owner)
        labelled[index[run.document[index] == np.repeat(run.positive, sizes)]] = True
        return labelled
    return labelled | (lists.find_pairs(run.positive_offsets, run.positive, run.query, run.document) >= 0)


def positive_threshold(
    run: Run, anchor: Anchor = "min", *, error: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return each query's positive score (min, max or mean of several), float32[Q], and whether it has one, bool[Q].

    Raises:
        RivalsError: a positive is not scored (NaN), or, with `error`, a query with candidates has no positive; the
        query is named.

    >>> from rivals.data import Collection, Run
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 0], [], [], positives=([0, 2], [0, 1]),
    ...                 positive_score=[.9, .6])
    >>> positive_threshold(run)[0].round(3).tolist()
    [0.6000000238418579]
    """
    counts = np.diff(run.positive_offsets)
    present = counts > 0
    unscored = np.isnan(run.positive_score)
    if unscored.any():
        place = int(unscored.argmax())
        query = int(np.searchsorted(run.positive_offsets, place, side="right") - 1)
        raise RivalsError(
            f"query '{run.queries.ids[query]}': its positive '{run.documents.ids[run.positive[place]]}' has no score "
            f"({int(unscored.sum())} of {len(unscored)} have none); a positive-aware filter needs positives scored by "
            "the candidates' scorer: call the retriever with the dataset, retriever(dataset, k)"
        )
    lonely = ~present & (np.diff(run.offsets) > 0)
    if error and lonely.any():
        raise RivalsError(
            f"query '{run.queries.ids[int(lonely.argmax())]}' has no positive to compare with "
            f"({int(lonely.sum())} of {len(counts)} queries have none); attach positives by calling the retriever with "
            "a dataset, leave these queries out, or set without_positive='keep' or 'mark'"
        )
    if anchor == "mean":
        total = lists.segment_reduce(np.add, run.positive_score.astype(np.float64), run.positive_offsets)
        return (total / np.maximum(counts, 1)).astype(np.float32), present
    if len(run.positive) == len(counts) and present.all():
        return run.positive_score, present
    return lists.segment_reduce(
        np.minimum if anchor == "min" else np.maximum, run.positive_score, run.positive_offsets
    ), present


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=4)
