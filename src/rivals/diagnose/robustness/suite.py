"""`robustness_report`: one call that perturbs queries, documents and candidates and says what each perturbation costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.dataset import Dataset
from rivals.data.pipeline import check_same_documents
from rivals.data.run import Run
from rivals.diagnose.robustness.documents import (
    ChangedDocuments,
    DocumentChange,
    NearDuplicates,
    PadPassages,
    StuffKeywords,
    SubstituteWords,
    with_texts,
)
from rivals.diagnose.robustness.edits import Synonyms
from rivals.diagnose.robustness.queries import (
    ChangeCase,
    ChangePunctuation,
    DropWords,
    Negate,
    ReplaceSynonyms,
    Reword,
    TextChange,
    Typos,
    WordOrder,
)
from rivals.diagnose.robustness.report import PerturbationResult, RobustnessReport, WorstCase
from rivals.diagnose.robustness.stability import QuerySpread, drop_interval, query_spread, run_overlap
from rivals.diagnose.robustness.systems import CandidateOrder, System, rebuilt
from rivals.errors import RivalsError
from rivals.measures.intervals import Interval, bootstrap_interval
from rivals.measures.significance import holm, randomisation_test
from rivals.progress import progress

Perturbation = TextChange | DocumentChange | CandidateOrder

_TOP = 10  # what counts as reached, and how deep rankings are compared


def default_perturbations(synonyms: Synonyms | None = None) -> tuple[Perturbation, ...]:
    """Return the suite that `robustness_report` runs by default; synonyms take part if there is a table of them.

    >>> len(default_perturbations()), len(default_perturbations({"pain": ["ache"]}))
    (12, 13)
    """
    table = () if synonyms is None else (ReplaceSynonyms(synonyms),)
    return (
        Typos(),
        ChangeCase("upper"),
        ChangePunctuation(),
        Reword(),
        *table,
        WordOrder(),
        DropWords(),
        Negate(),
        PadPassages(),
        NearDuplicates(),
        StuffKeywords(),
        SubstituteWords(),
        CandidateOrder(),
    )


def robustness_report(
    system: System,
    dataset: Dataset,
    *,
    perturbations: Sequence[Perturbation] | None = None,
    synonyms: Synonyms | None = None,
    rebuild: Callable[[Collection], System] | None = None,
    measure: str = "nDCG@10",
    k: int = 100,
    repeats: int = 1,
    worst: int = 5,
    level: float = 0.95,
    resamples: int = 10_000,
    permutations: int = 10_000,
    name: str = "",
    seed: int = 0,
) -> RobustnessReport:
    """Say what typos, rewording, padding, stuffed rivals and the like cost a system on your own data.

    Every perturbation is made `repeats` times under seeds of its own, the system answers again, and its measure is
    compared query by query with the clean one: bootstrap intervals, a paired randomisation test corrected by Holm's method
    over all perturbations, the overlap of the rankings, and the queries that lost most. Queries without a relevant document
    are left out and counted; queries that a perturbation does not change keep their clean value.

    Args:
        system: takes a `Collection` of queries and a depth, gives a `Run` over the data set's documents: any retriever,
            pipeline with a reranker, or function.
        dataset: queries, documents and judgements; pass one split, such as `dataset.split("test")`.
        perturbations: None runs `default_perturbations(synonyms)` and leaves out, with the reason, what this system cannot
            take.
        synonyms: a table for the default suite; see `corpus_synonyms`.
        rebuild: makes the system over changed documents; None can do it for `BM25`, `Dense` and pipelines of them.
        measure: as `rivals.measures.parse_measure` reads it. k: how deep the system is asked.
        worst: how many queries to show a perturbation.
        name: of the system, in the report; its own `name` by default.

    Source: Wu et al. 2022, Are Neural Ranking Models Robust? (paper 55), query attacks and document manipulation; variance
    and shifts between query types and corpora are `query_spread` and `shift`. Tests and intervals are ours.

    Raises:
        RivalsError: no query with a relevant document, no perturbation or two of one name, k or repeats below 1, one that
            was asked for and cannot be made, a run over other queries or documents.

    >>> from rivals.data import load_sample
    >>> from rivals.retrieve import BM25
    >>> sample = load_sample().split("test").take(range(40))
    >>> report = robustness_report(BM25(sample.documents), sample, perturbations=[Typos(), ChangeCase("upper")], seed=1)
    >>> report["upper case"].drop.estimate, report["typos"].changed
    (0.0, 40)
    """
    from rivals.measures.names import parse_measure

    parsed = parse_measure(measure)
    for option, value in (("k", k), ("repeats", repeats)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RivalsError(f"{option} must be a whole number, 1 or more, not {value!r}")
    chosen = default_perturbations(synonyms) if perturbations is None else tuple(perturbations)
    names = [perturbation.name for perturbation in chosen]
    if not names or len(set(names)) < len(names):
        raise RivalsError(f"perturbations must be given, each name once; got {', '.join(names) or 'none'}")
    judged = np.flatnonzero(np.diff(dataset.judgements.positives.offsets) > 0)
    if not len(judged):
        raise RivalsError(
            f"none of the {len(dataset.queries)} queries has a relevant document; nothing can be measured"
        )
    world = _World(dataset.take(judged), parsed, k, system, rebuild)
    outcomes: dict[str, tuple[Perturbation, _Outcome]] = {}
    left_out: dict[str, str] = {}
    with progress("Perturbations", len(chosen) * repeats) as advance:
        for perturbation in chosen:
            try:
                drawn = []
                for repeat in range(repeats):
                    drawn.append(world.perturbed(perturbation, _seed(seed, repeat)))
                    advance(note=perturbation.name)
            except _CannotBeMadeError as fault:
                if perturbations is not None:
                    raise RivalsError(f"'{perturbation.name}' cannot be made: {fault}") from None
                left_out[perturbation.name] = str(fault)
                continue
            outcomes[perturbation.name] = perturbation, _joined(drawn)
    if not outcomes:
        raise RivalsError("none of the perturbations could be made: " + "; ".join(left_out.values()))
    clean = world.clean
    options: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    drops = np.stack([clean - outcome.values for _, outcome in outcomes.values()])
    drops[np.abs(drops) < 1e-12] = 0.0
    p = np.asarray(randomisation_test(drops, permutations=permutations, seed=seed), dtype=np.float64)
    corrected = holm(p)
    results = []
    for row, (title, (perturbation, outcome)) in enumerate(outcomes.items()):
        moved = outcome.changed
        results.append(
            PerturbationResult(
                title,
                _target(perturbation),
                perturbation.keeps_meaning,
                int(moved.sum()),
                _mean(outcome.values, **options),
                _mean(drops[row], **options),
                float(drops[row][moved].mean()) if moved.any() else 0.0,
                drop_interval(clean, outcome.values, **options) if clean.any() else Interval(*[math.nan] * 3),
                float(p[row]),
                float(corrected[row]),
                float(outcome.overlap[moved].mean()) if moved.any() else 1.0,
                float(np.mean(outcome.reached)) if outcome.reached else math.nan,
                _worst(world.dataset, clean, drops[row], outcome, worst),
            )
        )
    return RobustnessReport(
        system=name or str(getattr(system, "name", type(system).__name__)),
        dataset=dataset.name,
        measure=parsed.name,
        queries=tuple(world.dataset.queries.ids.tolist()),
        queries_without_relevant=len(dataset.queries) - len(judged),
        clean=_mean(clean, **options),
        spread=query_spread(clean) if clean.any() else QuerySpread(0.0, 0.0, math.nan, 0.0, math.nan),
        results=tuple(results),
        left_out=left_out,
        values={"": tuple(clean.tolist())} | {t: tuple(o.values.tolist()) for t, (_, o) in outcomes.items()},
        level=level,
        resamples=resamples,
        permutations=permutations,
        repeats=repeats,
        seed=seed,
    )


class _CannotBeMadeError(Exception):
    """A perturbation does not fit the system."""


@dataclass
class _Outcome:
    """The values of all queries under a perturbation, where something changed and what, per query."""

    values: NDArray[np.float64]
    changed: NDArray[np.bool_]
    overlap: NDArray[np.float64]
    texts: dict[int, tuple[str, str]] = field(default_factory=dict)
    reached: list[float] = field(default_factory=list)


class _World:
    """A system, the queries it is measured on, and what it finds when nothing is perturbed."""

    def __init__(
        self, dataset: Dataset, measure: Any, k: int, system: System, rebuild: Callable[[Collection], System] | None
    ) -> None:
        self.dataset, self.measure, self.k = dataset, measure, k
        self.system, self.rebuild = system, rebuild
        self.run = self._search(system, dataset.queries, dataset.documents)
        self.clean = self._values(self.run, np.arange(len(dataset.queries)))

    def perturbed(self, perturbation: Perturbation, seed: int) -> _Outcome:
        """Return what the system does under a perturbation drawn with a seed."""
        if isinstance(perturbation, TextChange):
            return self._queries(perturbation, seed)
        if isinstance(perturbation, DocumentChange):
            return self._documents(perturbation, seed)
        try:
            system = perturbation(self.system, seed=seed)
        except RivalsError as fault:
            raise _CannotBeMadeError(fault) from None
        run = self._search(system, self.dataset.queries, self.dataset.documents)
        everything = np.arange(len(self.clean))
        return _Outcome(self._values(run, everything), np.ones(len(everything), bool), run_overlap(self.run, run))

    def _queries(self, change: TextChange, seed: int) -> _Outcome:
        old = self.dataset.queries.texts
        new = change(old, seed=seed)
        rows = np.array([row for row, (a, b) in enumerate(zip(old, new, strict=True)) if a != b], dtype=np.int64)
        outcome = _Outcome(self.clean.copy(), np.zeros(len(old), bool), np.ones(len(old)))
        if len(rows):
            texts = [new[row] for row in rows.tolist()]
            queries = with_texts(self.dataset.queries.take(rows), range(len(rows)), texts)
            run = self._search(self.system, queries, self.dataset.documents)
            outcome.values[rows] = self._values(run, rows)
            outcome.overlap[rows] = run_overlap(self.run.take(rows), run, depth=_TOP)
            outcome.changed[rows] = True
            outcome.texts = {row: (old[row], new[row]) for row in rows.tolist()}
        return outcome

    def _documents(self, change: DocumentChange, seed: int) -> _Outcome:
        try:
            made = change.against(self.system)(self.dataset, self.run, seed=seed)
            system = rebuilt(self.system, made.documents) if self.rebuild is None else self.rebuild(made.documents)
        except RivalsError as fault:
            raise _CannotBeMadeError(fault) from None
        run = self._search(system, self.dataset.queries, made.documents)
        changed = np.zeros(len(self.clean), bool)
        changed[made.query] = True
        values = self._values(run, np.arange(len(self.clean)))
        texts = zip(made.query.tolist(), made.original, made.changed, strict=True)
        outcome = _Outcome(values, changed, run_overlap(self.run, run, depth=_TOP), reached=self._reached(made, run))
        outcome.texts = {row: (before, after) for row, before, after in texts}
        return outcome

    def _reached(self, made: ChangedDocuments, run: Run) -> list[float]:
        """Which of the dressed-up documents came among the first of their query."""
        dressed = made.rival >= 0
        place = lists.find_pairs(run.offsets, run.document, made.query[dressed], made.rival[dressed])
        found = place >= 0
        found[found] = run.rank[place[found]] < _TOP
        return found.astype(np.float64).tolist()

    def _search(self, system: System, queries: Collection, documents: Collection) -> Run:
        run = system(queries, self.k)
        if not isinstance(run, Run):
            raise RivalsError(f"the system returned {type(run).__name__}; it must take queries and a depth, give a Run")
        if run.queries is not queries and run.queries.ids.tolist() != queries.ids.tolist():
            raise RivalsError("the system's run is not over the queries it was given, in their order")
        check_same_documents(run.documents, documents)
        return run

    def _values(self, run: Run, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        judgements = self.dataset.judgements.take(rows)
        place = judgements.find(run)
        relevance = np.where(place >= 0, judgements.relevance[place], np.float32(np.nan))
        values = self.measure(
            lists.pad(run.score, run.offsets, fill=np.float32(0)),
            lists.pad(relevance, run.offsets, fill=np.float32(np.nan)),
            lists.pad_mask(run.offsets),
            ideal=lists.pad(judgements.relevance, judgements.offsets, fill=np.float32(0)),
            ranked=True,
        )
        return np.asarray(values, dtype=np.float64)


def _joined(drawn: Sequence[_Outcome]) -> _Outcome:
    """The mean over draws; of a query's changed texts those of its worst draw are kept."""
    values = np.stack([outcome.values for outcome in drawn])
    joined = _Outcome(
        values.mean(0),
        np.logical_or.reduce([outcome.changed for outcome in drawn]),
        np.mean([outcome.overlap for outcome in drawn], axis=0),
        reached=[one for outcome in drawn for one in outcome.reached],
    )
    for place in np.argsort(-values, axis=0, kind="stable"):  # the worst last, so that its texts stay
        joined.texts |= {row: drawn[i].texts[row] for row, i in enumerate(place.tolist()) if row in drawn[i].texts}
    return joined


def _worst(
    dataset: Dataset, clean: NDArray[np.float64], drops: NDArray[np.float64], outcome: _Outcome, count: int
) -> tuple[WorstCase, ...]:
    order = np.argsort(-drops.round(12), kind="stable")
    hurt = [row for row in order.tolist() if drops[row] > 0 and outcome.changed[row]][:count]
    ids, asked = dataset.queries.ids, dataset.queries.texts
    return tuple(
        WorstCase(
            str(ids[row]),
            float(clean[row]),
            float(outcome.values[row]),
            *outcome.texts.get(row, (asked[row], asked[row])),
        )
        for row in hurt
    )


def _target(perturbation: Perturbation) -> str:
    if isinstance(perturbation, TextChange):
        return "queries"
    return "documents" if isinstance(perturbation, DocumentChange) else "candidates"


def _mean(values: NDArray[np.float64], *, level: float, resamples: int, seed: int) -> Interval:
    return Interval(*map(float, bootstrap_interval(values, level=level, resamples=resamples, seed=seed)))


def _seed(seed: int, repeat: int) -> int:
    return int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0])
