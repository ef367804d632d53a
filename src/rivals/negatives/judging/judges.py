"""`Judge`: who says how relevant a candidate is. Here scorers and people's labels; language models are in `prompted`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.dataset import Dataset
from rivals.data.formats.fields import Report, as_id, as_relevance, match_fields, require
from rivals.data.formats.tables import format_of, read_table
from rivals.data.formats.trec import read_qrels_table
from rivals.data.pipeline import Retriever
from rivals.data.run import Run
from rivals.errors import DataError, RivalsError
from rivals.negatives.filters import Anchor, positive_threshold
from rivals.negatives.rescore import PairScorer, Rescore
from rivals.negatives.review_sheets import read_rows
from rivals.negatives.rules import check_rules, rule_marks
from rivals.progress import progress

_BLOCK = 512  # candidates judged at a time: what an interrupted job without a cache loses


class Verdicts(NamedTuple):
    """What a judge says about the candidates of a run.

    `score` float32[n]: relevance in [0, 1], 0 and 1 where it only flags, NaN where it could not tell. `asked`: prompts
    put to a model (0 for judges without one); `unreadable`: how many answers were none, refused or could not be read;
    `cut`: texts shortened to fit.
    """

    score: NDArray[np.float32]
    asked: int = 0
    unreadable: int = 0
    cut: int = 0

    @property
    def unknown(self) -> int:
        """How many candidates the judge could not tell about."""
        return int(np.isnan(self.score).sum())


@runtime_checkable
class Judge(Protocol):
    """Judges a batch of instances, each a query with its positives and candidates: a `Run`.

    A class with a `name` and a method `judge` is a judge; nothing need be inherited.

    >>> class Longer:
    ...     name = "longer"
    ...     def judge(self, run):
    ...         texts = run.documents.texts
    ...         return Verdicts(np.array([len(texts[row]) > 3 for row in run.document], dtype=np.float32))
    >>> isinstance(Longer(), Judge)
    True
    """

    @property
    def name(self) -> str:
        """Names the judge in reasons and reports."""

    def judge(self, run: Run) -> Verdicts:
        """Return the verdict on every candidate of the run, in its order."""


def judged(judge: Judge, run: Run, wanted: NDArray[np.bool_] | None = None, *, show: bool = True) -> Verdicts:
    """Return a judge's verdicts on the `wanted` candidates of a run (all by default), NaN for the others.

    The judge meets whole queries, with the wanted candidates only, some hundred at a time, under one progress display.
    Judges which ask a language model with a cache on disk go on where they were interrupted: the answers given so far
    are not asked for again.

    Raises:
        RivalsError: the judge returned another number of scores than it was given candidates, or a score outside
        [0, 1].

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8])
    >>> labels = LabelJudge({("q", "a"): 1, ("q", "b"): 0})
    >>> judged(labels, run, np.array([True, False])).score.tolist()
    [1.0, nan]
    """
    wanted = np.ones(len(run), dtype=bool) if wanted is None else np.asarray(wanted, dtype=bool)
    if wanted.shape != (len(run),):
        raise RivalsError(f"wanted has shape {wanted.shape}; it must hold one truth value for {len(run)} candidates")
    part = run if wanted.all() else run.select(wanted)
    score = np.full(len(part), np.nan, dtype=np.float32)
    counts = np.zeros(3, dtype=np.int64)
    filled = np.flatnonzero(np.diff(part.offsets))
    block_of = part.offsets[filled] // _BLOCK
    with progress(f"Judging by {judge.name}", len(part), show=show) as advance:
        for queries in np.split(filled, np.flatnonzero(np.diff(block_of)) + 1) if len(filled) else ():
            piece = part.take(queries)
            verdicts = judge.judge(piece)
            inside = slice(part.offsets[queries[0]], part.offsets[queries[-1] + 1])
            score[inside] = _checked(judge, piece, verdicts)
            counts += (verdicts.asked, verdicts.unreadable, verdicts.cut)
            advance(len(piece))
    whole = np.full(len(run), np.nan, dtype=np.float32)
    whole[wanted] = score
    return Verdicts(whole, *counts.tolist())


def judge_positives(judge: Judge, run: Run, *, show: bool = True) -> Verdicts:
    """Return a judge's verdicts on the known positives of a run, in the order of `run.positive`.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 1], [0], [.9], positives=([0, 1], [1]))
    >>> judge_positives(LabelJudge({("q", "b"): 1}), run).score.tolist()
    [1.0]
    """
    as_candidates = Run.build(
        run.queries,
        run.documents,
        run.positive_offsets,
        run.positive,
        -lists.positions(run.positive_offsets).astype(np.float32),  # a run sorts by score: this keeps the order
        positives=(run.positive_offsets, run.positive),
        positive_score=run.positive_score,
        positive_relevance=run.positive_relevance,
    )
    return judged(judge, as_candidates, show=show)


def _checked(judge: Judge, run: Run, verdicts: Verdicts) -> NDArray[np.float32]:
    score = np.asarray(verdicts.score, dtype=np.float32)
    if score.shape != (len(run),):
        raise RivalsError(f"judge '{judge.name}' returned {score.shape} scores for {len(run)} candidates")
    with np.errstate(invalid="ignore"):
        outside = (score < 0) | (score > 1)
    if outside.any():
        raise RivalsError(
            f"judge '{judge.name}' gave {float(score[outside][0]):g} for document "
            f"'{run.documents.ids[run.document[outside][0]]}'; scores lie in [0, 1], NaN = could not tell"
        )
    return score


class ScoreJudge:
    """A scorer as a judge: any retriever, or a cross-encoder. Cheap; the usual first stage of a cascade.

    With `threshold` = t a candidate is flagged (1, else 0) where s > t; with `relative` = r where s > s+ - r |s+|, s+
    the score of the query's positive by the same scorer: what `PositiveAware` marks. Without either the score itself is
    the verdict: a cosine, negative ones as 0, or a probability.

    Args:
        scorer: a `Retriever` over the run's documents, or anything with `score(queries, documents)` on texts.
        anchor: which positive counts where a query has several: "min", "max" or "mean".

    Source: the re-ranker baseline of Thakur et al. 2025 (paper 26); Moreira et al. 2024 (paper 13).

    Raises:
        RivalsError: both rules given, or one out of range; a run over other documents; `relative` on a query without
        positive; scores outside [0, 1] with neither rule.

    >>> from rivals.data import Collection
    >>> class Words:
    ...     def score(self, queries, documents):
    ...         return [len(set(q.split()) & set(d.split())) / len(q.split()) for q, d in zip(queries, documents)]
    >>> run = Run.build(Collection(["q"], ["red fox"]), Collection(["a", "b"], ["a red fox", "red"]), [0, 2], [0, 1], [.9, .8])
    >>> ScoreJudge(Words()).judge(run).score.tolist(), ScoreJudge(Words(), threshold=0.5).judge(run).score.tolist()
    ([1.0, 0.5], [1.0, 0.0])
    """

    def __init__(
        self,
        scorer: Retriever | PairScorer,
        *,
        threshold: float | None = None,
        relative: float | None = None,
        anchor: Anchor = "min",
        name: str = "",
    ) -> None:
        if threshold is not None and relative is not None:
            raise RivalsError("give ScoreJudge a threshold or relative, not both")
        if threshold is not None or relative is not None:
            check_rules(relative, None, threshold, None)
        if anchor not in ("min", "max", "mean"):
            raise RivalsError(f"anchor must be min, max or mean, not {anchor!r}")
        self.scorer, self.threshold, self.relative, self.anchor = scorer, threshold, relative, anchor
        self.name = name or Rescore(scorer).name

    def judge(self, run: Run) -> Verdicts:
        """Return the flags, or the scores."""
        if self.relative is None:  # positives need no score
            none = np.zeros(0, np.float32)
            run = run.replace(
                positive_offsets=np.zeros_like(run.positive_offsets),
                positive=np.zeros(0, np.int64),
                positive_score=none,
                positive_relevance=none,
            )
        scored = Rescore(self.scorer)(run)
        score = scored.score[lists.find_pairs(scored.offsets, scored.document, run.query, run.document)]
        if self.threshold is None and self.relative is None:
            if scored.score_kind == "cosine":
                score = np.clip(score, 0, 1)  # rounding may take the cosine of equal texts past 1
            if len(score) and not (score.min() >= 0 and score.max() <= 1):
                raise RivalsError(
                    f"judge '{self.name}': scores from {score.min():g} to {score.max():g} are no relevance in [0, 1]; "
                    "give ScoreJudge a threshold, or relative"
                )
            return Verdicts(score)
        limit = np.zeros(len(run.queries), np.float32)
        if self.relative is not None:
            limit, _ = positive_threshold(scored, self.anchor)
        marks = rule_marks(
            score,
            np.repeat(limit, np.diff(run.offsets)),
            relative=self.relative,
            absolute=None,
            max_score=self.threshold,
            min_score=None,
            strict=False,
        )
        (flagged,) = marks.values()
        return Verdicts(flagged.astype(np.float32))

    def __repr__(self) -> str:
        return f"ScoreJudge({self.name})"


class LabelJudge:
    """Labels that people gave as a judge: NaN for pairs without a label.

    Args:
        labels: relevance, 0 or more, by (query id, document id). A pair may be labelled several times in a file; the
            mean counts.
        highest: the grade that means fully relevant, score 1; by default the highest that occurs (1 if that is 0).

    Raises:
        RivalsError: no label, a label that is negative or not finite, one above `highest`.

    >>> from rivals.data import Collection
    >>> judge = LabelJudge({("q", "a"): 2, ("q", "b"): 1})
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b", "c"]), [0, 3], [0, 1, 2], [.9, .8, .7])
    >>> judge.judge(run).score.tolist()
    [1.0, 0.5, nan]
    """

    def __init__(
        self, labels: Mapping[tuple[str, str], float], *, highest: float | None = None, name: str = "labels"
    ) -> None:
        self._set([q for q, _ in labels], [d for _, d in labels], list(labels.values()), highest, name)

    def _set(self, queries: list[str], documents: list[str], grades: Any, highest: float | None, name: str) -> None:
        grade = np.asarray(grades, dtype=np.float64)
        if not len(grade):
            raise RivalsError("LabelJudge got no label")
        if not (np.isfinite(grade).all() and grade.min() >= 0):
            raise RivalsError("labels must be finite numbers, 0 or more; leave out what nobody judged")
        top = (float(grade.max()) or 1.0) if highest is None else float(highest)
        if not top > 0 or grade.max() > top:
            raise RivalsError(
                f"labels go up to {grade.max():g}, highest is {top:g}; highest must be above 0 and no less"
            )
        self.highest, self.name = top, name
        self._queries, query = np.unique(np.asarray(queries, dtype=object), return_inverse=True)
        self._documents, document = np.unique(np.asarray(documents, dtype=object), return_inverse=True)
        key, place, times = np.unique(
            query * np.int64(len(self._documents)) + document, return_inverse=True, return_counts=True
        )
        self._key, self._score = key, np.bincount(place, weights=grade) / times / top

    def __len__(self) -> int:
        """The number of labelled pairs."""
        return len(self._key)

    @classmethod
    def of(cls, dataset: Dataset, *, highest: float | None = None, name: str = "labels") -> LabelJudge:
        """Return the judge that knows a dataset's judgements; relevance below 0 counts as 0."""
        judge, known = cls.__new__(cls), dataset.judgements
        queries, documents = dataset.queries.ids[known.query], dataset.documents.ids[known.document]
        judge._set(queries.tolist(), documents.tolist(), np.maximum(known.relevance, 0), highest, name)
        return judge

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        highest: float | None = None,
        fields: Mapping[str, str] | None = None,
        name: str = "",
    ) -> LabelJudge:
        """Load labels: TREC qrels, a table (JSONL, CSV, TSV, Parquet) of query id, document id and relevance, or a sheet.

        A sheet for review, which has a column `relevant`, gives 1 for yes and 0 for no; open rows are no labels.

        Args:
            fields: other names of the fields, such as `{"judgements.relevance": "grade"}`. name: by default the file's.

        Raises:
            DataError: a field is missing, a row without an id or with a relevance that is no number; with file and
                line.
        """
        path = Path(path)
        table = read_qrels_table(path) if format_of(path) == "columns" else read_table(path)
        if "relevant" in table.columns and not fields:
            answers = {(row.query_id, row.document_id): float(row.relevant) for row in read_rows(path)}
            if not answers:
                raise DataError("no row of this sheet is answered; write yes or no under `relevant`", path=path)
            return cls(answers, highest=highest, name=name or path.name.split(".")[0])
        chosen = match_fields(table, "judgements", fields or {}, Report())
        for meaning in ("query_id", "document_id", "relevance"):
            require(table, chosen, "judgements", meaning)
        column = {meaning: table.columns[field] for meaning, field in chosen.items()}
        queries, documents, grades = [], [], []
        for row in range(len(table)):
            query = as_id(column["query_id"][row], table, row, "query id")
            document = as_id(column["document_id"][row], table, row, "document id")
            if query is None or document is None:
                raise table.error(row, "this row lacks a query id or a document id")
            queries.append(query)
            documents.append(document)
            grades.append(as_relevance(column["relevance"][row], table, row))
        judge = cls.__new__(cls)
        try:
            judge._set(queries, documents, grades, highest, name or path.name.split(".")[0])
        except RivalsError as error:
            raise DataError(str(error), path=path) from None
        return judge

    def judge(self, run: Run) -> Verdicts:
        """Return each candidate's label over `highest`."""
        rows, place = np.unique(run.document, return_inverse=True)  # of all documents only these are looked up
        query = _places(self._queries, run.queries.ids)[run.query]
        document = _places(self._documents, run.documents.ids[rows])[place]
        key = query * np.int64(len(self._documents)) + document
        place = np.minimum(np.searchsorted(self._key, key), len(self._key) - 1)
        known = (query >= 0) & (document >= 0) & (self._key[place] == key)
        return Verdicts(np.where(known, self._score[place], np.nan).astype(np.float32))

    def __repr__(self) -> str:
        return f"LabelJudge({self.name}, {len(self)} labels)"


def _places(known: NDArray[Any], ids: NDArray[Any]) -> NDArray[np.int64]:
    """Where each id stands among the sorted known ones, -1 if it does not."""
    place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[place] == ids, place, -1).astype(np.int64)
