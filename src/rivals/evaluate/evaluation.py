"""`evaluate`: systems on a data set, with what is sure about them and what is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError
from rivals.evaluate.alignment import AlignedRun, OnUnknown, align, check_common
from rivals.evaluate.cautions import condensed_cautions, depth_cautions, grade_cautions
from rivals.evaluate.compare import baseline_pairs, compare_pairs, compare_with_baselines
from rivals.evaluate.result import Evaluation, WorstQuery
from rivals.evaluate.slices import slice_queries, slice_views
from rivals.measures.intervals import Interval, bootstrap_interval
from rivals.measures.significance import corrected

if TYPE_CHECKING:
    from rivals.data.dataset import Dataset
    from rivals.data.leakage import LeakageReport
    from rivals.data.pipeline import Retriever
    from rivals.data.run import Run

__all__ = ["DEFAULT_MEASURES", "UNJUDGED_AT", "Evaluation", "WorstQuery", "evaluate"]

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "R@10", "R@100", "P@1")
UNJUDGED_AT = (5, 10, 20, 100)
"""The depths at which the share of unjudged documents is reported."""


def evaluate(
    systems: Mapping[str, Run | Retriever],
    dataset: Dataset,
    *,
    measures: Sequence[str] = DEFAULT_MEASURES,
    baselines: Sequence[str] = (),
    level: float = 0.95,
    correction: Literal["holm", "benjamini-hochberg"] = "holm",
    power: float = 0.8,
    slices: Sequence[str] = (),
    condensed: bool = False,
    unjudged_at: Sequence[int] = UNJUDGED_AT,
    train: Dataset | None = None,
    queries: Literal["judged", "common"] = "judged",
    on_unknown: OnUnknown = "error",
    depth: int = 100,
    resamples: int = 10_000,
    permutations: int = 10_000,
    seed: int = 0,
) -> Evaluation:
    """Measure systems on the judged queries of a data set and say what the data can and cannot tell apart.

    Every query with at least one judgement counts, for every system alike: a system without results there scores 0.
    Queries without judgements are left out and counted. Documents nobody judged count as not relevant, and their share
    is reported. A run's `keep` marks are about negatives and play no part. Means come with bootstrap intervals (BCa),
    each system is tested against the baselines on every measure (paired randomisation test, effect sizes, the smallest
    difference that could be seen), and all pairs on the first measure make the tie groups; see `Evaluation`. A measure
    that asks for grades which the judgements do not have keeps its value and is named in `cautions`.

    Args:
        systems: a run by the name of each system, or a retriever, which is asked for `depth` documents a query. Runs
            may hold the queries in any order, and other queries too.
        measures: names as `rivals.measures.parse_measure` reads them; the first is the primary one.
        baselines: names of systems to test the others against.
        level: of the intervals; tests are made at 1 - level.
        correction: "holm" bounds the chance of any false alarm, "benjamini-hochberg" their share among the finds.
        power: the probability with which a difference of the smallest size "that can be seen" is found.
        slices: views by "length", "relevant", "seen" (needs `train`), "split" or any column of the queries; see
            `rivals.evaluate.slices.slice_queries`. Pairs of systems are those with a baseline, else all.
        condensed: also measure lists without the documents that nobody judged.
        unjudged_at: depths at which the share of unjudged documents is counted; 10 is always one.
        train: the training data: what it shares with this data set is then reported (`leakage`).
        queries: "common" leaves out, and counts, the queries that some system did not answer.
        on_unknown: what to do with documents which the data set does not have: "error", or count them "unjudged".

    Raises:
        RivalsError: no system, no judged query, an unknown measure, baseline or slicing, a run with documents which the
            data set does not have, NaN scores or a document twice under a query, a system that answers none of the
            queries, two systems that answer no common query.

    >>> from rivals.data import Collection, Dataset, Judgements, Run
    >>> queries, documents = Collection(["q1", "q2"], name="query"), Collection(["a", "b"])
    >>> data = Dataset(queries, documents, Judgements.build([0, 1], [0, 1], [1, 1], queries=2, documents=2))
    >>> run = Run.build(queries, documents, [0, 2, 4], [0, 1, 0, 1], [.9, .1, .8, .2])
    >>> evaluate({"ours": run}, data, measures=["RR@10"]).per_query["ours"]["RR@10"].tolist()
    [1.0, 0.5]
    """
    from rivals.measures.names import parse_measure

    if not systems:
        raise RivalsError("there is no system to evaluate; give at least one run, by name")
    parsed = [parse_measure(measure) for measure in measures]
    names, system_names = tuple(measure.name for measure in parsed), tuple(systems)
    if not names or len(set(names)) < len(names):
        raise RivalsError(f"measures must be given, each once; got {', '.join(names) or 'none'}")
    against = tuple(dict.fromkeys(baselines))
    pairs = baseline_pairs(system_names, against)
    _check_options(correction, power, queries, unjudged_at)
    judged = np.flatnonzero(np.diff(dataset.judgements.offsets) > 0)
    if not len(judged):
        raise RivalsError(f"none of the {len(dataset.queries)} queries has a judgement; nothing can be measured")
    runs = [align(n, _as_run(s, dataset, depth), dataset, judged, on_unknown=on_unknown) for n, s in systems.items()]
    check_common(runs)
    rows = judged
    if queries == "common":
        runs, rows = _common(runs, judged)
    judgements = dataset.judgements.take(rows)
    slicings = [slice_queries(dataset, by, rows, train=train) for by in dict.fromkeys(slices)]
    values = np.stack([run.measured(parsed, judgements) for run in runs])
    shared = {"resamples": resamples, "permutations": permutations, "seed": seed}
    all_pairs = [(row, other) for other in range(len(runs)) for row in range(other + 1, len(runs))]
    short = np.stack([run.condensed().measured(parsed, judgements) for run in runs]) if condensed else None
    return Evaluation(
        systems=system_names,
        measures=names,
        baselines=against,
        queries=tuple(dataset.queries.ids[rows].tolist()),
        values=values,
        intervals=_intervals(values, system_names, names, level, resamples, seed),
        comparisons=compare_with_baselines(
            values, system_names, names, against, level=level, correction=correction, power=power, **shared
        ),
        p_pairs=compare_pairs(values[:, 0], correction=correction, permutations=permutations, seed=seed),
        coverage={run.name: run.coverage(sorted({*unjudged_at, 10})) for run in runs},
        dataset=dataset.name,
        queries_without_judgements=len(dataset.queries) - len(judged),
        queries_without_relevant=int((np.diff(judgements.positives.offsets) == 0).sum()),
        level=level,
        **shared,
        correction=correction,
        power=power,
        queries_not_common=len(judged) - len(rows),
        slices=slice_views(
            slicings,
            values,
            system_names,
            names,
            [(system_names[row], system_names[other]) for row, other in (pairs if against else all_pairs)],
            level=level,
            correction=correction,
            **shared,
        ),
        condensed={} if short is None else _intervals(short, system_names, names, level, resamples, seed),
        leakage=_leakage(train, dataset, rows),
        cautions=(
            *grade_cautions(parsed, judgements),
            *depth_cautions(parsed, runs, len(dataset.documents)),
            *(condensed_cautions(judgements) if condensed else ()),
        ),
    )


def _check_options(correction: str, power: float, queries: str, unjudged_at: Sequence[int]) -> None:
    corrected([], correction)  # knows its names
    if not 0 < power < 1:
        raise RivalsError(f"power is {power}; it must lie between 0 and 1, such as 0.8")
    if queries not in ("judged", "common"):
        raise RivalsError(f"queries is '{queries}'; it can be 'judged' or 'common'")
    if any(k < 1 for k in unjudged_at):
        raise RivalsError(f"unjudged_at holds {min(unjudged_at)}; a depth must be at least 1")


def _as_run(system: Run | Retriever, dataset: Dataset, depth: int) -> Run:
    from rivals.data.pipeline import Retriever

    return system(dataset.queries, depth) if isinstance(system, Retriever) else system


def _common(runs: Sequence[AlignedRun], judged: NDArray[np.int64]) -> tuple[list[AlignedRun], NDArray[np.int64]]:
    """Only the queries that every system answered."""
    everywhere = np.flatnonzero(np.logical_and.reduce([run.answered for run in runs]))
    if not len(everywhere):
        raise RivalsError("no judged query is answered by every system; leave out those with few results")
    return [run.take(everywhere) for run in runs], judged[everywhere]


def _intervals(
    values: NDArray[np.float64],
    systems: Sequence[str],
    measures: Sequence[str],
    level: float,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Interval]]:
    ends = bootstrap_interval(values, level=level, resamples=resamples, seed=seed)
    return {
        system: {measure: Interval(*(float(end[i, j]) for end in ends)) for j, measure in enumerate(measures)}
        for i, system in enumerate(systems)
    }


def _leakage(train: Dataset | None, dataset: Dataset, rows: NDArray[np.int64]) -> LeakageReport | None:
    from rivals.data.leakage import leakage_between

    return None if train is None else leakage_between(train, dataset.take(rows))
