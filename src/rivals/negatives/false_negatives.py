"""How many negatives are false: a rate with its interval, estimated from a random sample that somebody judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals import lists
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.measures.proportions import proportion_interval, stratified_interval
from rivals.negatives._examples import Example, example_of
from rivals.negatives.samplers import Draw

if TYPE_CHECKING:
    from rivals.negatives.judging.judges import Judge

Group = Literal["drawn", "kept", "marked"]
#: (queries, documents) -> relevance of each pair in [0, 1], or bool; NaN where there is no verdict.
PairJudge = Callable[[Sequence[str], Sequence[str]], ArrayLike]

_EXAMPLES = 20


@dataclass(frozen=True)
class RankBand:
    """The candidates of ranks `first` to `last` (from 1): how many there are, were judged, are relevant, and the rate."""

    first: int
    last: int
    size: int
    judged: int
    relevant: int
    rate: float | None
    low: float
    high: float


@dataclass(frozen=True)
class FalseNegatives:
    """The estimated share of candidates that are relevant after all.

    `of` names the group: "drawn" or "kept" candidates, whose relevant ones are false negatives, or "marked" ones, whose
    relevant ones the filters were right to mark. `estimate` with `low` and `high` at `level`; `size` candidates in the
    group, `sampled` of them drawn at random, `judged` with a verdict, `relevant` among these; `bands` by rank;
    `examples` of relevant ones.
    """

    of: Group
    judge: str
    estimate: float
    low: float
    high: float
    level: float
    size: int
    sampled: int
    judged: int
    relevant: int
    bands: tuple[RankBand, ...] = ()
    examples: tuple[Example, ...] = ()

    @property
    def unjudged(self) -> int:
        """How many of the sample got no verdict; they are left out of the rate."""
        return self.sampled - self.judged

    def __str__(self) -> str:
        left_out = f", {self.unjudged:,} without verdict left out" if self.unjudged else ""
        return (
            f"{self.estimate:.1%} [{self.low:.1%}, {self.high:.1%}] of the {self.size:,} {self.of} candidates are relevant "
            f"({self.relevant:,} of {self.judged:,} judged by {self.judge}{left_out})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"examples": [example._asdict() for example in self.examples]}

    @classmethod
    def of_dict(cls, plain: Mapping[str, Any]) -> FalseNegatives:
        """Read what `as_dict` gave."""
        bands = tuple(RankBand(**band) for band in plain["bands"])
        examples = tuple(Example(**(value | {"reasons": tuple(value["reasons"])})) for value in plain["examples"])
        return cls(**{**plain, "bands": bands, "examples": examples})


def estimate_false_negatives(
    run: Run,
    draw: Draw | None,
    judge: Judge | PairJudge,
    *,
    of: Group = "drawn",
    sample: int | None = 200,
    seed: int = 0,
    threshold: float = 0.5,
    level: float = 0.95,
    bands: int = 4,
    show: bool = True,
) -> FalseNegatives:
    """Estimate how many of the mined negatives are relevant, from a random sample that somebody judges.

    The sample is drawn without replacement, in proportion from `bands` bands of rank, for false negatives crowd at the
    top. The rate is the bands' rates weighted by their sizes, its interval that of `stratified_interval`: it says how
    far another sample, or another draw from the same pipeline, could lie from this one. Judging 200 candidates tells a
    rate of 10 % to about 4 points either way, 1,000 to 2 points.

    Use it after mining, to see what the filters left in (`of="drawn"`), and, `of="marked"`, how many of the marked were
    right to be marked. `MiningAudit.with_false_negatives` puts the result into the audit.

    Args:
        run: the marked run. draw: what was drawn from it, or None unless `of` is "drawn".
        judge: a `Judge` such as `YesNoJudge`, or `LabelJudge` for labels that people gave; or a function of the texts of
            the sampled queries and documents. A candidate scoring above `threshold` is relevant, NaN is no verdict.
        sample: how many candidates to judge; None for all, as with labels that cover a random part: whoever chose the
            labelled pairs must have chosen them at random.
        seed: of the sample. level: of the interval. bands: at most this many bands of rank. show: show progress.

    Raises:
        RivalsError: no candidate in the group, no verdict at all, a judge that gives another number of verdicts or values
            outside [0, 1], an option out of range.

    >>> from rivals.data import Collection
    >>> from rivals.negatives.samplers import Top
    >>> queries, documents = Collection(["q"], ["capital?"]), Collection(["a", "b"], ["Rome", "Rome, of course"])
    >>> run = Run.build(queries, documents, [0, 2], [0, 1], [.9, .8])
    >>> draw = Top(2).draw(run, np.random.default_rng(0))
    >>> def sure(asked, found):
    ...     return ["of course" in text for text in found]
    >>> print(estimate_false_negatives(run, draw, sure))
    50.0% [1.3%, 98.7%] of the 2 drawn candidates are relevant (1 of 2 judged by sure)
    """
    for option, value, least in (("sample", sample, 1), ("bands", bands, 1), ("seed", seed, 0)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise RivalsError(f"{option} must be a whole number, {least} or more, not {value!r}")
    rows = group_rows(run, draw, of)
    if not len(rows):
        raise RivalsError(f"there is no {of} candidate to judge")
    band = rank_bands(run.rank[rows], bands)
    chosen = _sample(band, len(rows) if sample is None else sample, seed)
    picked = rows[chosen]
    named, score = _judged(run, picked, judge, show)
    known = ~np.isnan(score)
    if not known.any():
        raise RivalsError(f"{named} had no verdict on any of the {len(score)} sampled candidates; label some of them")
    relevant = known & (np.nan_to_num(score) > threshold)
    sizes = np.bincount(band)
    counts = (np.bincount(band[chosen], weights=part, minlength=len(sizes)) for part in (relevant, known))
    found, asked = (part.astype(np.int64) for part in counts)
    whole, each = stratified_interval(found, asked, sizes, level=level), proportion_interval(found, asked, level=level)
    first = lists.segment_reduce(np.minimum, *_by_band(run.rank[rows], band))
    last = lists.segment_reduce(np.maximum, *_by_band(run.rank[rows], band))
    columns = (first + 1, last + 1, sizes, asked, found, each.estimate, each.low, each.high)
    return FalseNegatives(
        of=of,
        judge=named,
        estimate=whole.estimate,
        low=whole.low,
        high=whole.high,
        level=level,
        size=len(rows),
        sampled=len(chosen),
        judged=int(known.sum()),
        relevant=int(relevant.sum()),
        bands=tuple(
            RankBand(start, end, size, n, x, None if math.isnan(rate) else rate, low, high)
            for start, end, size, n, x, rate, low, high in zip(*(column.tolist() for column in columns), strict=True)
        ),
        examples=tuple(example_of(run, int(row)) for row in picked[relevant][:_EXAMPLES]),
    )


def group_rows(run: Run, draw: Draw | None, of: Group) -> NDArray[np.int64]:
    """Return the run's rows in a group: "drawn", "kept" or "marked" candidates, known positives left out, int64[m].

    Raises:
        RivalsError: an unknown group, or "drawn" without a draw.
    """
    from rivals.negatives.audit import relabelled_rows

    if of not in ("drawn", "kept", "marked"):
        raise RivalsError(f"of must be 'drawn', 'kept' or 'marked', not {of!r}")
    if of == "drawn":
        if draw is None:
            raise RivalsError("to judge drawn negatives, give the draw; or choose of='kept' or of='marked'")
        return np.flatnonzero(draw.chosen(run))
    survivors = run.keep & (run.label != 1)
    if of == "kept":
        return np.flatnonzero(survivors)
    return np.flatnonzero(~survivors & ((run.label != 1) | relabelled_rows(run)))


def rank_bands(ranks: NDArray[np.int32], bands: int) -> NDArray[np.int64]:
    """Return the band of each rank, int64[m]: at most `bands`, about equally large, equal ranks together.

    >>> rank_bands(np.array([0, 0, 0, 1, 2, 3]), 2).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    ordered = np.sort(ranks)
    cuts = np.unique(ordered[(np.arange(1, bands) * len(ordered)) // bands])
    return np.unique(np.searchsorted(cuts, ranks, side="right"), return_inverse=True)[1].astype(np.int64)


# ------------------------------------------------------------------------------------------------ parts


def _judged(run: Run, rows: NDArray[np.int64], judge: Judge | PairJudge, show: bool) -> tuple[str, NDArray[np.float64]]:
    """Return the judge's name and its scores of candidates, float64[len(rows)], NaN where it has no verdict."""
    from rivals.negatives.judging.judges import Judge, judged

    if isinstance(judge, Judge):
        wanted = np.zeros(len(run), dtype=bool)
        wanted[rows] = True
        return judge.name, judged(judge, run, wanted, show=show).score[rows].astype(np.float64)
    named = str(getattr(judge, "__name__", type(judge).__name__))
    queries = np.searchsorted(run.offsets, rows, side="right") - 1
    asked = [run.queries.full_texts[row] for row in queries.tolist()]
    found = [run.documents.full_texts[row] for row in run.document[rows].tolist()]
    score = np.asarray(judge(asked, found), dtype=np.float64)
    if score.shape != (len(rows),):
        raise RivalsError(f"{named} gave verdicts of shape {score.shape} for {len(rows)} pairs; one a pair is needed")
    known = score[~np.isnan(score)]
    if ((known < 0) | (known > 1)).any():
        raise RivalsError(f"{named} gave a relevance outside 0 to 1; map scores to probabilities, or to True and False")
    return named, score


def _by_band(values: NDArray[Any], band: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    return values[np.argsort(band, kind="stable")], lists.offsets_from_lengths(np.bincount(band))


def _sample(band: NDArray[np.int64], size: int, seed: int) -> NDArray[np.int64]:
    """Draw `size` places, from every band in proportion to its size (largest remainders first), sorted."""
    if size >= len(band):
        return np.arange(len(band))
    counts = np.bincount(band)
    share = counts * (size / len(band))
    take = np.floor(share).astype(np.int64)
    first = np.argsort(take - share + (take > 0), kind="stable")  # bands that would go empty come before the others
    take[first[: size - take.sum()]] += 1
    order = np.random.default_rng([seed, 97]).permutation(len(band))
    order = order[np.argsort(band[order], kind="stable")]
    place = lists.positions(lists.offsets_from_lengths(counts))
    return np.sort(order[place < np.repeat(take, counts)])
