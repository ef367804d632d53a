"""Measures by name, in the notation of ir-measures: `nDCG@10`, `P(rel=2)@5`, `RR@10`.

The notation is `NAME`, then options in brackets, then `@` and the cut-off: `rel` is the lowest grade that counts as
relevant, `dcg='exp-log2'` asks for the exponential gain. Letters may be of either case, and `MRR`, `MAP`, `Recall`,
`Precision`, `Hit` and `nDCG`'s other spellings are understood; `parse_measure(...).name` is the one name used in tables
and files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures import formulas
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
}
"""Every measure of a ranked list by its name: the one table the command line, files and the law tests read."""

ALIASES: dict[str, str] = {
    "MRR": "RR",
    "MAP": "AP",
    "Recall": "R",
    "Precision": "P",
    "Hit": "Success",
    "HitRate": "Success",
}
"""Other names people use, and the name in `MEASURES` each stands for."""

_GRADED = ("nDCG", "DCG")  # these take a gain; the others, Judged apart, take a relevance level
_NOTATION = re.compile(r"\s*([A-Za-z]+)\s*(?:\(([^()]*)\))?\s*(?:@\s*(\d+))?\s*")
_SPELT = {name.lower(): name for name in MEASURES} | {alias.lower(): name for alias, name in ALIASES.items()}


@dataclass(frozen=True)
class Measure:
    """One measure with its options: what `parse_measure` returns, callable on arrays.

    `base` is a name of `MEASURES`, `k` the cut-off or None, `relevance_level` the lowest relevant grade, `gain` that of
    nDCG and DCG.

    >>> import numpy as np
    >>> Measure("RR", k=10)(np.array([3., 2., 1.]), np.array([0, 1, 1])).item()
    0.5
    """

    base: str
    k: int | None = None
    relevance_level: float = 1
    gain: Gain = "linear"

    def __post_init__(self) -> None:
        if self.base not in MEASURES:
            raise RivalsError(f"no measure is called '{self.base}'; known are {known_measures()}")
        cut_off(self.k)
        if self.base == "Rprec" and self.k is not None:
            raise RivalsError("Rprec takes no cut-off: it is the precision at the number of relevant documents")

    @property
    def name(self) -> str:
        """The name in the notation of ir-measures.

        >>> Measure("P", k=5, relevance_level=2).name
        'P(rel=2)@5'
        """
        option = ""
        if self.base in _GRADED:
            option = "(dcg='exp-log2')" if self.gain == "exponential" else ""
        elif self.relevance_level != 1 and self.base != "Judged":
            option = f"(rel={self.relevance_level:g})"
        return self.base + option + ("" if self.k is None else f"@{self.k}")

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
        lists = rank_lists(scores, relevance, mask, depth=self.k, ranked=ranked)
        return lists.output(self.of_ranked(lists, ideal=ideal_of(lists, ideal, ideal_mask), empty=empty))

    def of_ranked(self, lists: RankedLists, *, ideal: Tensor | None = None, empty: Empty = "zero") -> Tensor:
        """Return the measure of lists already in rank order, [L]; `ideal[L, R]` holds 0 where it is padding."""
        if self.base == "nDCG":
            return formulas.ranked_ndcg(lists, k=self.k, gain=self.gain, ideal=ideal, empty=empty)
        if self.base == "DCG":
            return formulas.ranked_dcg(lists, k=self.k, gain=self.gain)
        if self.base == "Judged":
            return formulas.ranked_judged(lists, k=self.k)
        level = self.relevance_level
        total = total_of(lists, level, None if ideal is None else (ideal >= level).sum(-1).reshape(lists.shape))
        if self.base == "Rprec":
            return formulas.ranked_r_precision(lists, relevance_level=level, total=total, empty=empty)
        return _FORMULAS[self.base](lists, k=self.k, relevance_level=level, total=total, empty=empty)


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
    'nDCG, DCG, RR (MRR), R (Recall), P (Precision), Success (Hit, HitRate), AP (MAP), Rprec, Judged'
    """
    others = {name: [alias for alias, meant in ALIASES.items() if meant == name] for name in MEASURES}
    return ", ".join(name + (f" ({', '.join(aliases)})" if aliases else "") for name, aliases in others.items())


def parse_measure(text: str | Measure) -> Measure:
    """Return the measure that a name such as `nDCG@10` stands for.

    Raises:
        RivalsError: the name is unknown or an option does not belong to it; the message lists what is known.

    >>> [parse_measure(name).name for name in ("MRR@10", "ndcg(dcg='exp-log2')@5", "P(rel=2)@5")]
    ['RR@10', "nDCG(dcg='exp-log2')@5", 'P(rel=2)@5']
    """
    if isinstance(text, Measure):
        return text
    matched = _NOTATION.fullmatch(text)
    base = _SPELT.get(matched[1].lower()) if matched else None
    if matched is None or base is None:
        raise RivalsError(f"no measure is called '{text}'; known are {known_measures()}, as in nDCG@10 or P(rel=2)@5")
    relevance_level: float = 1
    gain: Gain = "linear"
    for option in filter(None, (part.strip() for part in (matched[2] or "").split(","))):
        key, _, value = (part.strip().strip("'\"") for part in option.partition("="))
        if (
            key == "rel"
            and base not in _GRADED
            and base != "Judged"
            and re.fullmatch(r"\d+(\.\d+)?", value)
            and float(value) > 0
        ):
            relevance_level = float(value) if "." in value else int(value)
        elif key == "dcg" and base in _GRADED and value in ("log2", "exp-log2"):
            gain = "linear" if value == "log2" else "exponential"
        else:
            fits = (
                "dcg='log2' or dcg='exp-log2'"
                if base in _GRADED
                else "none"
                if base == "Judged"
                else "rel=GRADE above 0"
            )
            raise RivalsError(f"measure '{text}': {base} has no option '{option}'; its options: {fits}")
    return Measure(base, None if matched[3] is None else int(matched[3]), relevance_level, gain)


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
    cuts = [measure.k for measure in parsed]
    depth = None if None in cuts else max((cut for cut in cuts if cut is not None), default=1)
    lists = rank_lists(scores, relevance, mask, depth=depth, ranked=ranked)
    best = ideal_of(lists, ideal, ideal_mask)
    return {measure.name: lists.output(measure.of_ranked(lists, ideal=best, empty=empty)) for measure in parsed}
