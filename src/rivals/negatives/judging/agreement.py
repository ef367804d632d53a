"""What a judge is worth: its agreement with the labels that people gave, with intervals over queries and by slice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rivals import lists
from rivals.data.dataset import Dataset
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.measures.intervals import Interval
from rivals.measures.rating_tables import kappa_of_tables, ordinal_alpha_of_tables
from rivals.negatives.judging.judges import Judge, judged

_UNDEFINED = Interval(float("nan"), float("nan"), float("nan"))

_CELLS = 1 << 21  # weighted pairs held at a time

#: What an `Agreement` measures.
MEASURES = ("accuracy", "kappa", "weighted_kappa", "alpha", "auc")


@dataclass(frozen=True)
class Agreement:
    """Agreement of a judge with people, on the pairs it could tell about.

    `pairs` were labelled, in `queries` queries; about `told` of them the judge gave a score. Each measure is an
    `Interval`, NaN where it is not defined (one class only), and over all told pairs:

    - `accuracy`, `kappa`: both sides cut in two, the judge above `threshold`, people at `relevant` or higher;
    - `weighted_kappa` (quadratic), `alpha` (Krippendorff, ordinal): the judge's score rounded to the nearest of the
      people's grades, which are taken as equally spaced steps from 0 to 1;
    - `auc`: how likely a relevant pair scores above one that is not, free of any threshold.

    `slices` holds the same for each value of what the pairs were split by.

    >>> Agreement.from_json(Agreement("j", 2, 1, 2).to_json()).pairs
    2
    """

    judge: str
    pairs: int
    queries: int
    told: int
    share_relevant: float = float("nan")
    share_flagged: float = float("nan")
    accuracy: Interval = _UNDEFINED
    kappa: Interval = _UNDEFINED
    weighted_kappa: Interval = _UNDEFINED
    alpha: Interval = _UNDEFINED
    auc: Interval = _UNDEFINED
    threshold: float = 0.5
    level: float = 0.95
    unreadable: int = 0
    slices: Mapping[str, Agreement] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the report as JSON text; undefined numbers become null."""
        return json.dumps(_plain(asdict(self)), ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Agreement:
        """Read what `to_json` wrote.

        Raises:
            RivalsError: the text is not such JSON.
        """
        try:
            return cls._of(json.loads(text))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise RivalsError(f"this is no agreement report as to_json writes it: {error}") from None

    @classmethod
    def _of(cls, plain: dict[str, Any]) -> Agreement:
        def number(value: Any) -> Any:
            return float("nan") if value is None else value

        values = {name: number(value) for name, value in plain.items()}
        for name in MEASURES:
            values[name] = Interval(*(number(value) for value in plain[name]))
        return cls(**values | {"slices": {name: cls._of(part) for name, part in plain["slices"].items()}})

    def __str__(self) -> str:
        head = f"{'':<24}{'pairs':>8}{'told':>8}" + "".join(f"{name:>24}" for name in MEASURES)
        rows = [("all", self), *self.slices.items()]
        body = [
            f"{name[:23]:<24}{part.pairs:>8,}{part.told:>8,}"
            + "".join(f"{_short(getattr(part, measure)):>24}" for measure in MEASURES)
            for name, part in rows
        ]
        title = (
            f"{self.judge} against people: {self.queries:,} queries, {self.share_relevant:.1%} relevant, "
            f"{self.share_flagged:.1%} flagged above {self.threshold:g}, {self.level:.0%} intervals over queries"
        )
        return "\n".join([title, head, *body])


def agreement_with_labels(
    scores: ArrayLike,
    labels: ArrayLike,
    queries: ArrayLike | None = None,
    *,
    threshold: float = 0.5,
    relevant: float = 1.0,
    grades: Sequence[float] | None = None,
    slices: ArrayLike | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    judge: str = "judge",
    unreadable: int = 0,
) -> Agreement:
    """Compare a judge's scores with people's labels.

    Intervals are percentiles over bootstrap samples of whole queries, for the pairs of one query stand or fall together.

    Args:
        scores: [N] in [0, 1], NaN where the judge could not tell.
        labels: [N], people's grades. queries: [N], whose pair it is, any values; None = each pair by itself.
        threshold: the judge says relevant above it. relevant: people do from this grade on.
        grades: all grades that people could give, rising; by default those that occur.
        slices: [N], any values; each gets its own report.
        unreadable: how many answers could not be read, for the report.

    Source: Cohen 1960 and 1968; Krippendorff 2004; the comparison of judges with people in papers 7, 26.

    Raises:
        RivalsError: lengths differ, nothing to compare, a score outside [0, 1], a label that is not finite or not among
            `grades`, fewer than 100 resamples, a level outside (0, 1).

    >>> report = agreement_with_labels([0.9, 0.8, 0.3, 0.1], [1, 0, 0, 0], ["a", "a", "b", "b"])
    >>> report.accuracy.estimate, report.kappa.estimate, report.auc.estimate
    (0.75, 0.5, 1.0)
    """
    score, label = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    query = np.arange(len(score)) if queries is None else np.asarray(queries)
    split = None if slices is None else np.asarray(slices)
    for name, values in (("labels", label), ("queries", query), ("slices", split)):
        if values is not None and values.shape != score.shape:
            raise RivalsError(f"{name} has shape {values.shape}; it must be one value for each of {score.shape} scores")
    told = ~np.isnan(score)
    if not len(score):
        raise RivalsError("there is no labelled pair to compare the judge on")
    if not ((score[told] >= 0) & (score[told] <= 1)).all():
        raise RivalsError("scores must lie in [0, 1], NaN where the judge could not tell")
    scale = np.unique(label) if grades is None else np.asarray(grades, dtype=np.float64)
    if not np.isfinite(label).all() or not np.isin(label, scale).all() or (np.diff(scale) <= 0).any():
        raise RivalsError("labels must be finite and among the grades, which must rise")
    if resamples < 100 or not 0 < level < 1:
        raise RivalsError(f"take at least 100 resamples and a level between 0 and 1, not {resamples} and {level}")
    _, query = np.unique(query, return_inverse=True)
    rated = np.full(len(score), np.nan)
    rated[told] = np.round(score[told] * (len(scale) - 1))
    whole = _Pairs(score, score > threshold, rated, label >= relevant, np.searchsorted(scale, label), query)
    options = (threshold, level, resamples, seed, len(scale))
    parts: dict[str, Agreement] = {}
    for value in [] if split is None else np.unique(split).tolist():
        parts[str(value)] = _report(whole.take(split == value), judge, options, 0, {})
    return _report(whole, judge, options, unreadable, parts)


def judge_agreement(
    judge: Judge,
    dataset: Dataset,
    *,
    slices: str | None = None,
    threshold: float = 0.5,
    relevant: float = 1.0,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    show: bool = True,
) -> Agreement:
    """Let a judge judge all pairs that people judged in a dataset, and compare.

    The judge is shown no positives: they are what it is examined on.

    Args:
        slices: a query column to split by. Others: as in `agreement_with_labels`.

    Raises:
        RivalsError: the dataset has no judgement, or no such column; as `agreement_with_labels`.

    >>> from rivals.data import Collection, Judgements
    >>> from rivals.negatives.judging.judges import LabelJudge
    >>> queries, documents = Collection(["p", "q"], name="query"), Collection(["a", "b"])
    >>> people = Dataset(queries, documents, Judgements.build([0, 0, 1], [0, 1, 0], [1, 0, 1], queries=2, documents=2))
    >>> judge_agreement(LabelJudge.of(people), people, show=False).accuracy.estimate
    1.0
    """
    known = dataset.judgements
    if not len(known):
        raise RivalsError("the dataset has no judgement to compare the judge with")
    query = known.query
    run = _judged_run(dataset)
    verdicts = judged(judge, run, show=show)
    split = None
    if slices is not None:
        if slices not in dataset.queries.table.column_names:
            raise RivalsError(
                f"queries have no column '{slices}'; they have {', '.join(dataset.queries.table.column_names)}"
            )
        split = np.array([str(value) for value in dataset.queries.table[slices].to_pylist()])[query]
    return agreement_with_labels(
        verdicts.score,
        known.relevance,
        query,
        threshold=threshold,
        relevant=relevant,
        slices=split,
        resamples=resamples,
        level=level,
        seed=seed,
        judge=judge.name,
        unreadable=verdicts.unreadable,
    )


# ------------------------------------------------------------------------------------------------ inside


@dataclass(frozen=True)
class _Pairs:
    score: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    rated: NDArray[np.float64]
    relevant: NDArray[np.bool_]
    grade: NDArray[np.int64]
    query: NDArray[np.int64]

    def take(self, which: NDArray[Any]) -> _Pairs:
        return _Pairs(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


def _resampled(pairs: _Pairs, grades: int, drawn: Iterable[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the measures [B, 5], in the order of MEASURES, with each query counted as often as `drawn` [B, Q] says."""
    queries = int(pairs.query.max()) + 1
    two = _tables(pairs.query, pairs.flagged, pairs.relevant, queries, 2)
    graded = _tables(pairs.query, pairs.rated, pairs.grade, queries, grades)
    order = np.argsort(pairs.score, kind="stable")
    owner, relevant = pairs.query[order], pairs.relevant[order]
    steps = np.flatnonzero(np.diff(pairs.score[order], prepend=-1.0))
    found = []
    for counts in drawn:
        weight = counts.astype(np.float64)
        cut, scale = ((weight @ tables).reshape(-1, size, size) for tables, size in ((two, 2), (graded, grades)))
        up, down = (np.add.reduceat(weight[:, owner] * side, steps, axis=1) for side in (relevant, ~relevant))
        with np.errstate(divide="ignore", invalid="ignore"):
            area = (up * (down.cumsum(1) - down / 2)).sum(1) / (up.sum(1) * down.sum(1))
        accuracy = np.trace(cut, axis1=1, axis2=2) / cut.sum((1, 2))
        kappas = kappa_of_tables(cut), kappa_of_tables(scale, weights="quadratic")
        found.append(np.stack([accuracy, *kappas, ordinal_alpha_of_tables(scale), area], axis=1))
    return np.concatenate(found)


def _tables(
    query: NDArray[np.int64], one: NDArray[Any], other: NDArray[Any], queries: int, size: int
) -> NDArray[np.float64]:
    """How often each query has each pair of ratings, [Q, size * size]."""
    cell = (query * size + one.astype(np.int64)) * size + other.astype(np.int64)
    return np.bincount(cell, minlength=queries * size * size).reshape(queries, size * size).astype(np.float64)


def _report(
    pairs: _Pairs,
    judge: str,
    options: tuple[float, float, int, int, int],
    unreadable: int,
    slices: Mapping[str, Agreement],
) -> Agreement:
    threshold, level, resamples, seed, grades = options
    told = pairs.take(~np.isnan(pairs.score))
    queries = len(np.unique(told.query))
    estimates, drawn = np.full(len(MEASURES), np.nan), np.zeros((0, len(MEASURES)))
    if queries:
        told = replace(told, query=np.unique(told.query, return_inverse=True)[1])
        (estimates,) = _resampled(told, grades, [np.ones((1, queries), np.int64)])
    if queries > 1:
        generator = np.random.default_rng(seed)
        step = max(1, _CELLS // len(told.score))
        sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
        chance = np.full(queries, 1 / queries)
        drawn = _resampled(told, grades, (generator.multinomial(queries, chance, size) for size in sizes))
    intervals = {}
    for place, name in enumerate(MEASURES):
        defined = drawn[~np.isnan(drawn[:, place]), place]
        low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) if len(defined) else (np.nan, np.nan)
        intervals[name] = Interval(float(estimates[place]), float(low), float(high))
    return Agreement(
        judge=judge,
        pairs=len(pairs.score),
        queries=len(np.unique(pairs.query)),
        told=len(told.score),
        share_relevant=float(pairs.relevant.mean()),
        share_flagged=float(told.flagged.mean()) if len(told.score) else float("nan"),
        threshold=threshold,
        level=level,
        unreadable=unreadable,
        slices=slices,
        **intervals,
    )


def _judged_run(dataset: Dataset) -> Run:
    """All judged pairs as candidates, in the order of the judgements."""
    known = dataset.judgements
    places = -lists.positions(known.offsets).astype(np.float32)  # a run sorts by score: this keeps the order
    return Run.build(dataset.queries, dataset.documents, known.offsets, known.document, places)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _short(interval: Interval) -> str:
    return "-" if np.isnan(interval.estimate) else f"{interval.estimate:.3f} [{interval.low:.2f}, {interval.high:.2f}]"
