"""Measures by name, in the notation of ir-measures: `nDCG@10`, `P(rel=2)@5`, `RR@10`.

The notation is `NAME`, then options in brackets, then `@` and the cut-off: `rel` is the lowest grade that counts as
relevant, `dcg='exp-log2'` asks for the exponential gain, `p` is the persistence of RBP and RBO, `max` the highest grade
of the scale (ERR, RBP), `max_fpr` how much of the ROC curve counts (AUC). Letters may be of either case, and `MRR`,
`MAP`, `Recall`, `Precision`, `Hit` and `nDCG`'s other spellings are understood; `parse_measure(...).name` is the one
name used in tables and files.

Most measures read the relevance in rank order and share one sort. Those of `SCORE_MEASURES` compare the scores
themselves, so that equal scores are ties; they have no use for documents outside the list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures import formulas
from rivals.measures.cascade import expected_reciprocal_rank, rank_biased_precision
from rivals.measures.correlation import kendall_tau, pair_accuracy, rank_biased_overlap, spearman
from rivals.measures.formulas import Empty, Gain
from rivals.measures.ranked import Array, RankedLists, rank_lists
from rivals.measures.ranking import (
    average_precision,
    cut_off,
    dcg,
    ideal_of,
    judged,
    ndcg,
    precision,
    r_precision,
    recall,
    reciprocal_rank,
    success,
    total_of,
)
from rivals.measures.roc import auc

MEASURES: dict[str, Callable[..., Any]] = {
    "nDCG": ndcg,
    "DCG": dcg,
    "RR": reciprocal_rank,
    "R": recall,
    "P": precision,
    "Success": success,
    "AP": average_precision,
    "Rprec": r_precision,
    "Judged": judged,
    "ERR": expected_reciprocal_rank,
    "RBP": rank_biased_precision,
    "AUC": auc,
    "PairAccuracy": pair_accuracy,
    "KendallTau": kendall_tau,
    "Spearman": spearman,
    "RBO": rank_biased_overlap,
}
"""Every measure of a ranked list by its name: the one table the command line, files and the law tests read."""

ALIASES: dict[str, str] = {
    "MRR": "RR",
    "MAP": "AP",
    "Recall": "R",
    "Precision": "P",
    "Hit": "Success",
    "HitRate": "Success",
    "ROCAUC": "AUC",
    "GAUC": "AUC",
    "Tau": "KendallTau",
    "Rho": "Spearman",
}
"""Other names people use, and the name in `MEASURES` each stands for."""

SCORE_MEASURES = ("AUC", "PairAccuracy", "KendallTau", "Spearman", "RBO")
"""The measures that read scores, not ranks."""

_WITH_CUT_OFF = frozenset(MEASURES) - {"Rprec", "AUC", "PairAccuracy", "KendallTau", "Spearman"}
_KEYS: dict[str, tuple[str, ...]] = {  # the options of each measure in the notation; of the others, `rel` alone
    "nDCG": ("dcg",),
    "DCG": ("dcg",),
    "Judged": (),
    "ERR": ("max",),
    "RBP": ("p", "rel", "max"),
    "RBO": ("p",),
    "AUC": ("rel", "max_fpr"),
    "PairAccuracy": (),
    "KendallTau": (),
    "Spearman": (),
}
_PERSISTENCE = {"RBP": 0.8, "RBO": 0.9}
_ASK = {
    "dcg": "dcg='log2' or dcg='exp-log2'",
    "rel": "rel=GRADE above 0",
    "p": "p=PERSISTENCE between 0 and 1",
    "max": "max=GRADE above 0",
    "max_fpr": "max_fpr=RATE above 0, at most 1",
}
_NUMBER = re.compile(r"\d+(\.\d*)?|\.\d+")
_NOTATION = re.compile(r"\s*([A-Za-z]+)\s*(?:\(([^()]*)\))?\s*(?:@\s*(\d+))?\s*")
_SPELT = {name.lower(): name for name in MEASURES} | {alias.lower(): name for alias, name in ALIASES.items()}


@dataclass(frozen=True)
class Measure:
    """One measure with its options: what `parse_measure` returns, callable on arrays.

    `base` is a name of `MEASURES`, `k` the cut-off or None, `relevance_level` the lowest relevant grade, `gain` that of
    nDCG and DCG, `p` the persistence of RBP and RBO (None takes its default), `max_grade` the top of the scale of ERR
    (4) and RBP (binary gains), `max_fpr` the part of the curve of AUC.

    >>> import numpy as np
    >>> Measure("RR", k=10)(np.array([3., 2., 1.]), np.array([0, 1, 1])).item()
    0.5
    """

    base: str
    k: int | None = None
    relevance_level: float = 1
    gain: Gain = "linear"
    p: float | None = None
    max_grade: float | None = None
    max_fpr: float = 1.0

    def __post_init__(self) -> None:
        if self.base not in MEASURES:
            raise RivalsError(f"no measure is called '{self.base}'; known are {known_measures()}")
        cut_off(self.k)
        if self.base == "Rprec" and self.k is not None:
            raise RivalsError("Rprec takes no cut-off: it is the precision at the number of relevant documents")
        if self.base not in _WITH_CUT_OFF and self.k is not None:
            raise RivalsError(f"{self.base} takes no cut-off: it looks at the whole list")
        if self.p is None and self.base in _PERSISTENCE:
            object.__setattr__(self, "p", _PERSISTENCE[self.base])
        if self.max_grade is None and self.base == "ERR":
            object.__setattr__(self, "max_grade", 4)
        if self.p is not None:
            formulas.check_persistence(self.p)

    @property
    def name(self) -> str:
        """The name in the notation of ir-measures.

        >>> Measure("P", k=5, relevance_level=2).name, Measure("RBP", k=5).name
        ('P(rel=2)@5', 'RBP(p=0.8)@5')
        """
        said = {
            "dcg": "dcg='exp-log2'" if self.gain == "exponential" else "",
            "p": f"p={self.p:g}" if self.p is not None else "",
            "rel": f"rel={self.relevance_level:g}" if self.relevance_level != 1 else "",
            "max": f"max={self.max_grade:g}" if self.max_grade not in (None, 4 if self.base == "ERR" else None) else "",
            "max_fpr": f"max_fpr={self.max_fpr:g}" if self.max_fpr != 1 else "",
        }
        options = ", ".join(filter(None, (said[key] for key in _keys(self.base))))
        return self.base + (f"({options})" if options else "") + ("" if self.k is None else f"@{self.k}")

    def __str__(self) -> str:
        return self.name

    def __call__(
        self,
        scores: Array,
        relevance: Array,
        mask: Array | None = None,
        *,
        ideal: Array | None = None,
        ideal_mask: Array | None = None,
        ranked: bool = False,
        empty: Empty = "zero",
    ) -> Any:
        """Return the measure of each list, [...].

        Args:
            ideal: the grades of all judged documents of each query, [..., R]: nDCG's ideal list, and where recall, AP
                and R-precision count the relevant documents; None takes the list's own.
            ideal_mask: False where `ideal` is padding.
            ranked: the lists are already in rank order.
            empty: what a list without any relevant document is worth.
        """
        if self.base in SCORE_MEASURES:
            return self._of_scores(scores, relevance, mask, empty)
        lists = rank_lists(scores, relevance, mask, depth=self.k, ranked=ranked)
        return lists.output(self.of_ranked(lists, ideal=ideal_of(lists, ideal, ideal_mask), empty=empty))

    def of_ranked(self, lists: RankedLists, *, ideal: Tensor | None = None, empty: Empty = "zero") -> Tensor:
        """Return the measure of lists already in rank order, [L]; `ideal[L, R]` holds 0 where it is padding.

        Not for `SCORE_MEASURES`, which need the scores.
        """
        if self.base == "nDCG":
            return formulas.ranked_ndcg(lists, k=self.k, gain=self.gain, ideal=ideal, empty=empty)
        if self.base == "DCG":
            return formulas.ranked_dcg(lists, k=self.k, gain=self.gain)
        if self.base == "Judged":
            return formulas.ranked_judged(lists, k=self.k)
        if self.base == "ERR":
            return formulas.ranked_err(lists, k=self.k, max_grade=self.max_grade or 4)
        level = self.relevance_level
        if self.base == "RBP":
            return formulas.ranked_rbp(
                lists, k=self.k, p=self.p or 0.8, relevance_level=level, max_grade=self.max_grade
            )
        total = total_of(lists, level, None if ideal is None else (ideal >= level).sum(-1).reshape(lists.shape))
        if self.base == "Rprec":
            return formulas.ranked_r_precision(lists, relevance_level=level, total=total, empty=empty)
        return _FORMULAS[self.base](lists, k=self.k, relevance_level=level, total=total, empty=empty)

    def _of_scores(self, scores: Array, relevance: Array, mask: Array | None, empty: Empty) -> Any:
        options: dict[str, Any] = {"empty": empty}
        if self.base == "AUC":
            options |= {"relevance_level": self.relevance_level, "max_fpr": self.max_fpr}
        elif self.base == "RBO":
            options |= {"p": self.p, "k": self.k}
        return MEASURES[self.base](scores, relevance, mask, **options)


_FORMULAS: dict[str, Callable[..., Tensor]] = {
    "RR": formulas.ranked_reciprocal_rank,
    "R": formulas.ranked_recall,
    "P": formulas.ranked_precision,
    "Success": formulas.ranked_success,
    "AP": formulas.ranked_average_precision,
}


def known_measures() -> str:
    """Return the names that can be asked for, in words, for messages and help texts.

    >>> known_measures()
    'nDCG, DCG, RR (MRR), R (Recall), P (Precision), Success (Hit, HitRate), AP (MAP), Rprec, Judged, ERR, ...'
    """
    others = {name: [alias for alias, meant in ALIASES.items() if meant == name] for name in MEASURES}
    return ", ".join(name + (f" ({', '.join(aliases)})" if aliases else "") for name, aliases in others.items())


def parse_measure(text: str | Measure) -> Measure:
    """Return the measure that a name such as `nDCG@10` stands for.

    Raises:
        RivalsError: the name is unknown or an option does not belong to it; the message lists what is known.

    >>> [parse_measure(name).name for name in ("MRR@10", "ndcg(dcg='exp-log2')@5", "P(rel=2)@5", "RBP(p=0.5)")]
    ['RR@10', "nDCG(dcg='exp-log2')@5", 'P(rel=2)@5', 'RBP(p=0.5)']
    """
    if isinstance(text, Measure):
        return text
    matched = _NOTATION.fullmatch(text)
    base = _SPELT.get(matched[1].lower()) if matched else None
    if matched is None or base is None:
        raise RivalsError(f"no measure is called '{text}'; known are {known_measures()}, as in nDCG@10 or P(rel=2)@5")
    options: dict[str, Any] = {}
    for option in filter(None, (part.strip() for part in (matched[2] or "").split(","))):
        key, _, value = (part.strip().strip("'\"") for part in option.partition("="))
        read = _read_option(key, value) if key in _keys(base) else None
        if read is None:
            fits = " or ".join(_ASK[known] for known in _keys(base)) or "none"
            raise RivalsError(f"measure '{text}': {base} has no option '{option}'; its options: {fits}")
        options |= read
    return Measure(base, None if matched[3] is None else int(matched[3]), **options)


def _keys(base: str) -> tuple[str, ...]:
    return _KEYS.get(base, ("rel",))


def _read_option(key: str, value: str) -> dict[str, Any] | None:
    """Return the field of `Measure` that an option sets, None if its value does not fit."""
    if key == "dcg":
        gains = {"log2": "linear", "exp-log2": "exponential"}
        return {"gain": gains[value]} if value in gains else None
    if not _NUMBER.fullmatch(value) or not float(value) > 0:
        return None
    number = float(value) if "." in value else int(value)
    if key == "p":
        return {"p": number} if number < 1 else None
    if key == "max_fpr":
        return {"max_fpr": number} if number <= 1 else None
    return {{"rel": "relevance_level", "max": "max_grade"}[key]: number}


def measure_all(
    measures: Iterable[str | Measure],
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    ideal: Array | None = None,
    ideal_mask: Array | None = None,
    ranked: bool = False,
    empty: Empty = "zero",
) -> dict[str, Any]:
    """Compute several measures of the same lists with one sort.

    Shapes: scores[..., C], relevance[..., C], mask[..., C], ideal[..., R], ideal_mask[..., R] -> {name: [...]}. Use it
    whenever more than one measure is wanted; each value equals that of the measure alone. Arguments as for `Measure`.

    Raises:
        RivalsError: as the measures and `parse_measure`.

    >>> import numpy as np
    >>> values = measure_all(["RR@10", "R@2"], np.array([3., 2., 1.]), np.array([0, 1, 1]))
    >>> {name: value.item() for name, value in values.items()}
    {'RR@10': 0.5, 'R@2': 0.5}
    """
    parsed = [parse_measure(measure) for measure in measures]
    cuts = [measure.k for measure in parsed if measure.base not in SCORE_MEASURES]
    depth = None if None in cuts else max((cut for cut in cuts if cut is not None), default=1)
    lists = rank_lists(scores, relevance, mask, depth=depth, ranked=ranked)
    best = ideal_of(lists, ideal, ideal_mask)
    values = {}
    for measure in parsed:
        if measure.base in SCORE_MEASURES:
            values[measure.name] = measure(scores, relevance, mask, empty=empty)
        else:
            values[measure.name] = lists.output(measure.of_ranked(lists, ideal=best, empty=empty))
    return values
