"""`Run`: candidates per query, the one table that retrievers return, filters mark, samplers draw from and evaluators measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.errors import DataError, RivalsError

ScoreKind = Literal["cosine", "dot", "probability", "bm25", "other"]

#: Per-candidate columns: dtype and the value a column has when nobody set it.
COLUMNS: dict[str, tuple[type, Any]] = {
    "document": (np.int64, None),
    "score": (np.float32, np.nan),
    "rank": (np.int32, None),
    "source": (np.int16, 0),
    "keep": (np.bool_, True),
    "weight": (np.float32, 1.0),
    "label": (np.int8, -1),
    "target": (np.float32, np.nan),
    "fn_probability": (np.float32, np.nan),
    "reason": (np.uint64, 0),
}


@dataclass(frozen=True, eq=False)
class Run:
    """Candidates of every query, grouped by query as in CSR, in rank order.

    Candidates of query row `q` are the slice `offsets[q]:offsets[q + 1]` of every column. Inside a query they stand by score,
    highest first, ties by document id, highest first (as trec_eval orders them). Columns (n candidates in all):

    - `document` int64: row in `documents`; `score` float32; `rank` int32, from 0; `source` int16: who proposed it, an index
      into `sources`.
    - `keep` bool: may be used as a negative; `weight` float32; `label` int8: 1 positive, 0 negative, -1 unjudged; `target`
      float32: soft relevance in [0, 1] or NaN; `fn_probability` float32 or NaN; `reason` uint64: bit i set = marked by `reasons[i]`.
    - `features`: further float32 columns by name, such as each retriever's own score (NaN where it did not see the candidate).

    Positives of the same queries, ragged by `positive_offsets`: `positive` int64 rows in `documents`, `positive_score` float32 by
    the same scorer (NaN = not scored), `positive_relevance` float32 > 0.

    Build one with `Run.build`; it sorts, fills defaults and checks. Runs are values: `replace` returns a changed copy.
    """

    queries: Collection
    documents: Collection
    offsets: NDArray[np.int64]
    document: NDArray[np.int64]
    score: NDArray[np.float32]
    rank: NDArray[np.int32]
    source: NDArray[np.int16]
    keep: NDArray[np.bool_]
    weight: NDArray[np.float32]
    label: NDArray[np.int8]
    target: NDArray[np.float32]
    fn_probability: NDArray[np.float32]
    reason: NDArray[np.uint64]
    positive_offsets: NDArray[np.int64]
    positive: NDArray[np.int64]
    positive_score: NDArray[np.float32]
    positive_relevance: NDArray[np.float32]
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    sources: tuple[str, ...] = ("",)
    reasons: tuple[str, ...] = ()
    scorer: str = ""
    score_kind: ScoreKind = "other"
    version: int = 0
    built_from: str = ""
    created_step: int = 0
    seed: int = 0

    # -------------------------------------------------------------------------------------------------------- building

    @classmethod
    def build(
        cls,
        queries: Collection,
        documents: Collection,
        offsets: Any,
        document: Any,
        score: Any,
        *,
        source: Any = None,
        features: Mapping[str, Any] | None = None,
        positives: tuple[Any, Any] | None = None,
        positive_score: Any = None,
        positive_relevance: Any = None,
        sources: Sequence[str] | None = None,
        scorer: str = "",
        score_kind: ScoreKind = "other",
        seed: int = 0,
        columns: Mapping[str, Any] | None = None,
    ) -> Run:
        """Make a run from candidates in any order: sorts every query's candidates, numbers ranks, fills defaults, checks.

        Args:
            queries, documents: what the rows refer to.
            offsets: int64[Q + 1] over the candidates.
            document, score: rows in `documents` and scores, one per candidate.
            positives: `(offsets, rows)` of the known positives, if any.
            columns: any other per-candidate column by name (`keep`, `weight`, `label`, ...).

        Raises:
            RivalsError: a row out of range, a NaN score, a document twice under one query, a column of the wrong length.

        >>> queries, documents = Collection(["q"], name="query"), Collection(["a", "b", "c"])
        >>> run = Run.build(queries, documents, [0, 3], [0, 1, 2], [.5, .9, .5])
        >>> run.documents.ids[run.document].tolist()
        ['b', 'c', 'a']
        """
        document = np.ascontiguousarray(document, dtype=np.int64)
        n = len(document)
        offsets = lists.as_offsets(offsets, n, "run offsets")
        if len(offsets) != len(queries) + 1:
            raise RivalsError(f"a run over {len(queries)} queries needs {len(queries) + 1} offsets, not {len(offsets)}")
        if n and (document.min() < 0 or document.max() >= len(documents)):
            raise RivalsError(
                f"a candidate names document row {document.max()}, but there are {len(documents)} documents"
            )
        values: dict[str, Any] = {"document": document, "score": np.asarray(score, dtype=np.float32)}
        if source is not None:
            values["source"] = np.asarray(source, dtype=np.int16)
        for name, column in (columns or {}).items():
            if name not in COLUMNS:
                raise RivalsError(f"a run has no column '{name}'; its columns are {', '.join(COLUMNS)} and features")
            values[name] = np.asarray(column, dtype=COLUMNS[name][0])
        extra = {name: np.asarray(column, dtype=np.float32) for name, column in (features or {}).items()}
        for name, column in [*values.items(), *extra.items()]:
            if len(column) != n:
                raise RivalsError(f"run column '{name}' has {len(column)} values for {n} candidates")
        if np.isnan(values["score"]).any():
            bad = int(np.isnan(values["score"]).argmax())
            query = int(np.searchsorted(offsets, bad, side="right") - 1)
            raise RivalsError(
                f"query '{queries.ids[query]}': document '{documents.ids[document[bad]]}' has the score NaN; "
                "scores must be numbers"
            )
        ties = documents.tie_order[document]
        sorted_already = lists.is_rank_order(values["score"], ties, offsets)
        order = slice(None) if sorted_already else lists.rank_order(values["score"], ties, offsets)
        values = {name: column[order].copy() if sorted_already else column[order] for name, column in values.items()}
        extra = {name: column[order].copy() if sorted_already else column[order] for name, column in extra.items()}
        values["rank"] = lists.positions(offsets).astype(np.int32)
        for name, (dtype, default) in COLUMNS.items():
            if name not in values:
                values[name] = np.full(n, default, dtype=dtype)
        ordered = np.sort(lists.segment_ids(offsets) * max(len(documents), 1) + values["document"])
        if (ordered[1:] == ordered[:-1]).any():
            query, row = divmod(int(ordered[1:][ordered[1:] == ordered[:-1]][0]), len(documents))
            raise DataError(f"query '{queries.ids[query]}' lists document '{documents.ids[row]}' twice")
        known = (np.zeros(len(queries) + 1, np.int64), np.zeros(0, np.int64)) if positives is None else positives
        positive = np.ascontiguousarray(known[1], dtype=np.int64)
        run = cls(
            queries=queries,
            documents=documents,
            offsets=offsets,
            **values,
            positive_offsets=lists.as_offsets(known[0], len(positive), "positive offsets"),
            positive=positive,
            positive_score=_filled(positive_score, len(positive), np.nan),
            positive_relevance=_filled(positive_relevance, len(positive), 1.0),
            features=extra,
            sources=tuple(sources or (scorer,)),
            scorer=scorer,
            score_kind=score_kind,
            seed=seed,
        )
        if len(run.positive_offsets) != len(queries) + 1:
            raise RivalsError(f"positives of {len(queries)} queries need {len(queries) + 1} offsets")
        return run

    def replace(self, **changes: Any) -> Run:
        """Return a copy with some columns replaced; lengths and dtypes are kept, a changed score is sorted anew (`rescored`).

        Raises:
            RivalsError: an unknown column, another length, or `score`/`rank`/`document` (use `rescored` or `Run.build`).
        """
        known = {f.name for f in fields(self)}
        for name, value in changes.items():
            if name not in known or name in ("score", "rank", "document", "offsets"):
                raise RivalsError(
                    f"Run.replace cannot set '{name}'; use Run.rescored for scores, Run.build for candidates"
                )
            if name in COLUMNS:
                column: NDArray[Any] = np.asarray(value, dtype=COLUMNS[name][0])
                if column.shape != self.document.shape:
                    raise RivalsError(
                        f"run column '{name}' has {column.shape} values for {len(self.document)} candidates"
                    )
                changes[name] = column
        return replace(self, **changes)

    # -------------------------------------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        """The number of candidates over all queries."""
        return len(self.document)

    def __repr__(self) -> str:
        marked = int((~self.keep).sum())
        return f"Run({len(self.queries)} queries, {len(self)} candidates, {marked} marked, scored by {self.scorer or 'nobody'})"

    @property
    def query(self) -> NDArray[np.int64]:
        """The query row of every candidate, int64[n]."""
        return lists.segment_ids(self.offsets)

    def where_reason(self, name: str) -> NDArray[np.bool_]:
        """Return which candidates the rule `name` marked, bool[n]."""
        if name not in self.reasons:
            return np.zeros(len(self), dtype=bool)
        return (self.reason >> np.uint64(self.reasons.index(name))) & np.uint64(1) == 1

    def reasons_of(self, row: int) -> list[str]:
        """Return the names of all rules that marked candidate `row`."""
        return [name for i, name in enumerate(self.reasons) if int(self.reason[row]) >> i & 1]

    # -------------------------------------------------------------------------------------------------------- changing

    def mark(self, marked: NDArray[np.bool_], reason: str, *, keep: bool = False) -> Run:
        """Return the run with candidates `marked` given a reason and, unless `keep`, no longer usable as negatives.

        Marks add up: an earlier mark is never taken back, and a candidate can carry several reasons.

        >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.1, .2])
        >>> run.mark(np.array([True, False]), "duplicate").reasons_of(0)
        ['duplicate']
        """
        names = self.reasons if reason in self.reasons else (*self.reasons, reason)
        if len(names) > 64:
            raise RivalsError("a run holds at most 64 different reasons")
        bit = np.where(marked, np.uint64(1) << np.uint64(names.index(reason)), np.uint64(0))
        return replace(self, reasons=names, reason=self.reason | bit, keep=self.keep if keep else self.keep & ~marked)

    def select(self, chosen: NDArray[np.bool_]) -> Run:
        """Return the run with only the `chosen` candidates; order stays, ranks are numbered anew."""
        offsets = lists.keep_values(chosen, self.offsets)
        kept = {name: getattr(self, name)[chosen] for name in COLUMNS}
        kept["rank"] = lists.positions(offsets).astype(np.int32)
        return replace(self, offsets=offsets, features={k: v[chosen] for k, v in self.features.items()}, **kept)

    def top(self, k: int) -> Run:
        """Return the run cut to the first `k` candidates of every query.

        >>> len(Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.1, .2]).top(1))
        1
        """
        if k < 1:
            raise RivalsError(f"k must be at least 1, not {k}")
        return self.select(self.rank < k)

    def take(self, query_rows: Any) -> Run:
        """Return the run of some queries only, in the order given."""
        rows = np.asarray(query_rows, dtype=np.int64)
        index, offsets = lists.take_segments(self.offsets, rows)
        positive, positive_offsets = lists.take_segments(self.positive_offsets, rows)
        return replace(
            self,
            queries=self.queries.take(rows),
            offsets=offsets,
            **{name: getattr(self, name)[index] for name in COLUMNS},
            features={k: v[index] for k, v in self.features.items()},
            positive_offsets=positive_offsets,
            positive=self.positive[positive],
            positive_score=self.positive_score[positive],
            positive_relevance=self.positive_relevance[positive],
        )

    def rescored(
        self,
        score: Any,
        *,
        scorer: str,
        score_kind: ScoreKind = "other",
        positive_score: Any = None,
        feature: str | None = None,
    ) -> Run:
        """Return the run under new scores, sorted anew.

        Args:
            score: one per candidate, in the present order.
            positive_score: the same scorer's scores of the positives (NaN where left out).
            feature: keep the old scores as a feature of this name (default: the old scorer's name, if it has one).
        """
        kept = dict(self.features)
        if feature or self.scorer:
            kept.setdefault(feature or self.scorer, self.score)
        columns = {name: getattr(self, name) for name in COLUMNS if name not in ("document", "score", "rank")}
        built = Run.build(
            self.queries,
            self.documents,
            self.offsets,
            self.document,
            score,
            features=kept,
            positives=(self.positive_offsets, self.positive),
            positive_score=positive_score,
            positive_relevance=self.positive_relevance,
            sources=self.sources,
            scorer=scorer,
            score_kind=score_kind,
            seed=self.seed,
            columns=columns,
        )
        return replace(
            built,
            reasons=self.reasons,
            version=self.version,
            built_from=self.built_from,
            created_step=self.created_step,
        )

    # -------------------------------------------------------------------------------------------------------- tensors

    def padded(self, column: str, *, fill: Any, width: int | None = None) -> NDArray[Any]:
        """Return a column or feature laid out as [Q, width] in rank order, `fill` where a query has no candidate."""
        values = self.features[column] if column in self.features else getattr(self, column)
        return lists.pad(values, self.offsets, fill=fill, width=width)

    def lists(self, judgements: Any = None, *, width: int | None = None) -> lists.Lists:
        """Return the run as padded `(scores, relevance, mask)`, each [Q, width], in rank order.

        Args:
            judgements: a `Judgements` over the same query rows; None takes relevance from the run's own positives.
        """
        relevance = self.relevance() if judgements is None else judgements.relevance_of(self)
        return lists.Lists(
            lists.pad(self.score, self.offsets, fill=np.float32(0), width=width),
            lists.pad(relevance, self.offsets, fill=np.float32(0), width=width),
            lists.pad_mask(self.offsets, width),
        )

    def relevance(self) -> NDArray[np.float32]:
        """Return the relevance of every candidate by the run's own positives, float32[n]; 0 = not a known positive."""
        place = lists.find_pairs(self.positive_offsets, self.positive, self.query, self.document)
        if not len(self.positive):
            return np.zeros(len(self), dtype=np.float32)
        return np.where(place >= 0, self.positive_relevance[place], np.float32(0))


def _filled(values: Any, n: int, default: float) -> NDArray[np.float32]:
    if values is None:
        return np.full(n, default, dtype=np.float32)
    values = np.asarray(values, dtype=np.float32)
    if len(values) != n:
        raise RivalsError(f"{len(values)} values for {n} positives")
    return values


def empty_run(queries: Collection, documents: Collection, *, scorer: str = "") -> Run:
    """Return a run in which no query has a candidate.

    >>> len(empty_run(Collection(["q"]), Collection(["a"])))
    0
    """
    return Run.build(queries, documents, np.zeros(len(queries) + 1, np.int64), [], [], scorer=scorer)


def concatenate(runs: Iterable[Run]) -> Run:
    """Join runs over different queries and the same documents into one, query after query.

    >>> documents = Collection(["a"])
    >>> one, two = (Run.build(Collection([q]), documents, [0, 1], [0], [.1]) for q in "xy")
    >>> concatenate([one, two]).queries.ids.tolist()
    ['x', 'y']
    """
    import pyarrow as pa

    runs = list(runs)
    first = runs[0]
    for run in runs:
        if run.documents is not first.documents or (run.sources, run.reasons) != (first.sources, first.reasons):
            raise RivalsError("runs can be joined only over the same documents, sources and reasons")

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(run, name) for run in runs])

    columns: dict[str, Any] = {
        name: joined(name) for name in (*COLUMNS, "positive", "positive_score", "positive_relevance")
    }
    return replace(
        first,
        queries=Collection.from_table(pa.concat_tables([run.queries.table for run in runs]), name=first.queries.name),
        offsets=lists.offsets_from_lengths(np.concatenate([np.diff(run.offsets) for run in runs])),
        positive_offsets=lists.offsets_from_lengths(np.concatenate([np.diff(run.positive_offsets) for run in runs])),
        **columns,
        features={k: np.concatenate([run.features[k] for run in runs]) for k in first.features},
    )
