"""The passage ranking protocol of T2Ranking: binary measures of retrieval and graded ones of reranking, over ranked
queries, with micro recall; and both ways of every average by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.dataset import Judgements
from rivals.errors import RivalsError
from rivals.evaluate.ratios import ratio_interval
from rivals.measures.intervals import Interval, bootstrap_interval
from rivals.measures.names import measure_all

if TYPE_CHECKING:
    from rich.table import Table

    from rivals.data.run import Run


def binary_judgements(judgements: Judgements, *, minimum: float = 2) -> Judgements:
    """Return graded judgements as binary ones: relevance 1 from grade `minimum` up, else 0; nothing is dropped.

    Use it where training or retrieval measures want one line through the grades; 2 of 0 to 3 is T2Ranking's.

    Source: Xie et al. 2023 (arXiv 2304.03679). Paper 79.

    Raises:
        RivalsError: minimum is not above 0.

    >>> graded = Judgements.build([0, 0], [0, 1], [1, 3], queries=1, documents=2)
    >>> binary_judgements(graded).relevance.tolist()
    [0.0, 1.0]
    """
    if not minimum > 0:
        raise RivalsError(f"minimum is {minimum}; it must be above 0, the grade of what nobody judged")
    return Judgements(judgements.offsets, judgements.document, (judgements.relevance >= minimum).astype(np.float32))


def mean_reciprocal_rank(
    run: Run,
    judgements: Judgements,
    *,
    k: int | None = 10,
    relevance_level: float = 1,
    average: Literal["ranked", "judged"] = "ranked",
) -> float:
    """Return MRR@k over the queries that the run ranks, or over those that have a relevant document.

    "ranked" divides by the queries with a result, with or without a relevant document (the code of MS MARCO and
    T2Ranking); "judged" by the queries with a relevant document, with or without a result (trec_eval -c). The two
    differ as soon as a query is missing on one side.

    Source: Xie et al. 2023 (arXiv 2304.03679). Paper 79.

    Raises:
        RivalsError: the run and the judgements cover other queries; no query counts; unknown average.

    >>> from rivals.data import Collection, Run
    >>> run = Run.build(Collection(["q", "r"]), Collection(["a", "b"]), [0, 2, 3], [0, 1, 0], [2.0, 1.0, 1.0])
    >>> answers = Judgements.build([0], [1], [1], queries=2, documents=2)
    >>> [mean_reciprocal_rank(run, answers, average=over) for over in ("ranked", "judged")]
    [0.25, 0.5]
    """
    if average not in ("ranked", "judged"):
        raise RivalsError(f"average is '{average}'; it can be 'ranked' or 'judged'")
    relevant = _relevant(judgements, relevance_level)
    values = _of_run(run, judgements, [f"RR{_level(relevance_level)}" + (f"@{k}" if k else "")])[0]
    counted = np.diff(run.offsets) > 0 if average == "ranked" else relevant > 0
    if not counted.any():
        raise RivalsError(f"no query of the run is {average}; nothing can be averaged")
    return float(values[counted].mean())


def mean_recall(
    run: Run,
    judgements: Judgements,
    *,
    k: int,
    relevance_level: float = 1,
    average: Literal["micro", "macro"] = "micro",
) -> float:
    """Return recall@k over the ranked queries that have a relevant document: pooled (micro) or as a mean (macro).

    micro = found in the first k of all queries together / relevant of all of them together, so a query with many
    relevant documents weighs more, and recall@1 is at most queries / relevant documents. Never mix the two in a table.

    Source: Xie et al. 2023 (arXiv 2304.03679). Paper 79.

    Raises:
        RivalsError: the run and the judgements cover other queries; no ranked query has a relevant document; unknown
            average.

    >>> from rivals.data import Collection, Run
    >>> run = Run.build(Collection(["q", "r"]), Collection(["a", "b"]), [0, 1, 2], [0, 1], [1.0, 1.0])
    >>> answers = Judgements.build([0, 0, 1], [0, 1, 0], [1, 1, 1], queries=2, documents=2)
    >>> [round(mean_recall(run, answers, k=1, average=over), 3) for over in ("micro", "macro")]
    [0.333, 0.25]
    """
    if average not in ("micro", "macro"):
        raise RivalsError(f"average is '{average}'; it can be 'micro' or 'macro'")
    relevant = _relevant(judgements, relevance_level)
    values = _of_run(run, judgements, [f"R{_level(relevance_level)}@{k}"])[0]
    counted = (np.diff(run.offsets) > 0) & (relevant > 0)
    if not counted.any():
        raise RivalsError("no query that the run ranks has a relevant document; recall cannot be averaged")
    if average == "macro":
        return float(values[counted].mean())
    return float((values * relevant)[counted].sum() / relevant[counted].sum())


@dataclass(frozen=True)
class PassageReport:
    """Systems under the passage ranking protocol: what `passage_protocol` returns.

    `values[system][measure]` are intervals, their names saying how they average: "MRR@10 (ranked)", "R@50 (micro)",
    "nDCG@20"; `counts[system]` how many queries the system ranks, how many of them have no relevant document and how
    many with one it does not rank. `level_one` is the share of relevant-looking grades below the line among judged
    passages: what training on binary labels may take for negatives.

    >>> PassageReport({"bm25": {"MRR@10 (ranked)": Interval(0.5, 0.4, 0.6)}}, {"bm25": {"ranked": 3}}, 2.0, 0.1).minimum
    2.0
    """

    values: Mapping[str, Mapping[str, Interval]]
    counts: Mapping[str, Mapping[str, int]]
    minimum: float
    level_one: float

    def table(self) -> Table:
        """Return the values with intervals as a rich table."""
        from rich.table import Table

        line = f"relevant from grade {self.minimum:g}; {self.level_one:.1%} of judged passages are above 0 and below it"
        table = Table(title=line)
        names = list(next(iter(self.values.values())))
        for column in ("system", *names, "ranked", "without relevant", "not ranked"):
            table.add_column(column)
        for system, row in self.values.items():
            counts = self.counts[system]
            table.add_row(system, *(str(row[name]) for name in names), *(f"{n:,}" for n in counts.values()))
        return table

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Table]:
        yield self.table()


def passage_protocol(
    systems: Mapping[str, Run],
    judgements: Judgements,
    *,
    minimum: float = 2,
    mrr_at: int = 10,
    recall_at: Sequence[int] = (1, 50, 1000),
    ndcg_at: Sequence[int] = (20, 100),
    seed: int = 0,
) -> PassageReport:
    """Measure runs as T2Ranking does: MRR and micro recall on binary labels, nDCG with linear gains on the grades.

    All measures are over the queries that a run ranks. `evaluate` counts a judged query without a result as 0 and
    averages recall by query; use this one to compare with published tables, and that one to compare systems.

    Args:
        judgements: graded, over the runs' queries. minimum: the lowest grade that the binary measures take as relevant.

    Source: Xie et al. 2023 (arXiv 2304.03679) and its evaluation code. Paper 79.

    Raises:
        RivalsError: no system; as `mean_reciprocal_rank` and `mean_recall`.

    >>> from rivals.data import Collection, Run
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [2.0, 1.0])
    >>> graded = Judgements.build([0, 0], [0, 1], [1, 3], queries=1, documents=2)
    >>> report = passage_protocol({"ours": run}, graded)
    >>> report.values["ours"]["MRR@10 (ranked)"].estimate
    0.5
    """
    if not systems:
        raise RivalsError("there is no system to evaluate; give at least one run, by name")
    relevant = _relevant(judgements, minimum)
    below = (judgements.relevance > 0) & (judgements.relevance < minimum)
    values: dict[str, dict[str, Interval]] = {}
    counts: dict[str, dict[str, int]] = {}
    for system, run in systems.items():
        asked = [f"RR{_level(minimum)}@{mrr_at}", *(f"R{_level(minimum)}@{k}" for k in recall_at)]
        binary = _of_run(run, judgements, asked)
        graded = _of_run(run, judgements, [f"nDCG@{k}" for k in ndcg_at]) if ndcg_at else np.zeros((0, len(relevant)))
        ranked = np.diff(run.offsets) > 0
        counted = ranked & (relevant > 0)
        if not counted.any():
            raise RivalsError(f"system '{system}' ranks no query with a passage of grade {minimum:g} or more")
        row = {f"MRR@{mrr_at} (ranked)": _mean(binary[0][ranked], seed)}
        for k, found in zip(recall_at, binary[1:], strict=True):
            row[f"R@{k} (micro)"] = ratio_interval((found * relevant)[counted], relevant[counted], seed=seed)
        for k, found in zip(ndcg_at, graded, strict=True):
            row[f"nDCG@{k}"] = _mean(found[ranked & (_relevant(judgements, 1e-9) > 0)], seed)
        values[system] = row
        counts[system] = {
            "ranked": int(ranked.sum()),
            "without relevant": int((ranked & (relevant == 0)).sum()),
            "not ranked": int((~ranked & (relevant > 0)).sum()),
        }
    return PassageReport(values, counts, float(minimum), float(below.mean()) if len(below) else 0.0)


def _relevant(judgements: Judgements, level: float) -> NDArray[np.float64]:
    """Return how many documents of each query have at least a grade."""
    return lists.segment_reduce(np.add, (judgements.relevance >= level).astype(np.float64), judgements.offsets)


def _of_run(run: Run, judgements: Judgements, measures: Sequence[str]) -> NDArray[np.float64]:
    """Return measures of every query of a run, [M, Q]; 0 where it has no result or nothing is relevant."""
    scores, relevance, mask = run.lists(judgements)
    if not scores.shape[1]:
        return np.zeros((len(measures), len(scores)))
    grades = lists.pad(judgements.relevance, judgements.offsets, fill=np.float32(0))
    if not grades.shape[1]:
        return np.zeros((len(measures), len(scores)))
    found = measure_all(measures, scores, relevance, mask, ideal=grades, ranked=True)
    return np.stack([np.asarray(found[name], np.float64) for name in found])


def _mean(values: NDArray[np.float64], seed: int) -> Interval:
    return bootstrap_interval(values, resamples=2000, seed=seed)


def _level(level: float) -> str:
    """Return the notation of a lowest relevant grade."""
    return f"(rel={level:g})"
