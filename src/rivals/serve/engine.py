"""`SearchEngine`: one query through the house's pipeline, with the score and rank that every stage gave each hit."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals.data.collection import Collection
from rivals.data.pipeline import Retriever, Transform, check_same_documents
from rivals.data.run import Run
from rivals.errors import RivalsError, RunFolderError
from rivals.serve.restrict import Restricted, Scalar, match_columns
from rivals.serve.result import Hit, QueryError, SearchResult, StageScore

#: The stages in the order in which a query passes them.
STAGES = ("bm25", "dense", "rerank")

#: A hit carries this much of its text; `SearchEngine.document` gives all of it.
MAX_TEXT = 20_000

_WORD = re.compile(r"\w+")
_MASKS = 32  # filters whose matching documents are remembered


@dataclass
class _Clock:
    """Milliseconds by stage of one search."""

    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.spent[stage] = self.spent.get(stage, 0.0) + (time.perf_counter() - started) * 1000


class _Timed(Retriever):
    """A retriever that notes how long it took and what it found."""

    def __init__(self, source: Retriever, documents: Collection, stage: str, clock: _Clock) -> None:
        self.source, self.stage, self.clock = source, stage, clock
        self.name, self.score_kind, self.documents = source.name, source.score_kind, documents
        self.found: Run | None = None

    def retrieve(self, queries: Collection, k: int) -> Run:
        with self.clock(self.stage):
            run = self.source.retrieve(queries, k)
        self.found = run if run.documents is self.documents else run.replace(documents=self.documents)
        return self.found

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        with self.clock(self.stage):
            return self.source.score(queries, query_row, document_row)


class SearchEngine:
    """Two-stage search, one query at a time: `(bm25 | dense) >> reranker`, stages and filters chosen by each query.

    The pipeline objects are those that mining and evaluation use, so what was measured is what is served. With both
    first stages and no reranker the candidates are ordered by `fusion`. Safe to call from several threads; they take
    turns, because the models use all cores for one query.

    Args:
        documents: what is searched; the retrievers must be over the same.
        bm25: the lexical retriever; one with `words` (`rivals.retrieve.BM25`) also tells which words to highlight.
        dense: the retriever by vectors, if there is one.
        reranker: re-scores the candidates, if there is one.
        candidates: how many candidates each first stage proposes.
        fusion: makes one run of the two first stages' runs where no reranker does; None is
            `rivals.retrieve.fuse_reciprocal_rank`.
        name: what is served, for the page and `/health`.

    Raises:
        RivalsError: retrievers over other documents, candidates < 1. QueryError: see `search`.

    >>> from rivals.retrieve import BM25
    >>> documents = Collection(["a", "b"], ["heart attack symptoms", "treating a broken heart"])
    >>> result = SearchEngine(documents, bm25=BM25(documents)).search("attacks of the heart")
    >>> [(hit.id, hit.stages["bm25"].rank, hit.matched_terms) for hit in result.hits]
    [('a', 1, [(0, 5), (6, 12)]), ('b', 2, [(18, 23)])]
    """

    def __init__(
        self,
        documents: Collection,
        *,
        bm25: Retriever,
        dense: Retriever | None = None,
        reranker: Transform | None = None,
        candidates: int = 100,
        fusion: Callable[[Sequence[Run]], Run] | None = None,
        name: str = "",
    ) -> None:
        if candidates < 1:
            raise RivalsError(f"candidates must be at least 1, not {candidates}")
        self.documents = documents
        self.first: dict[str, Retriever] = {"bm25": bm25} if dense is None else {"bm25": bm25, "dense": dense}
        for retriever in self.first.values():
            check_same_documents(documents, retriever.documents)
        self.reranker = reranker
        self.candidates = candidates
        self.fusion = _reciprocal_ranks if fusion is None else fusion
        self.name = name
        self.stages = (*self.first, *(() if reranker is None else ("rerank",)))
        self._lock = threading.Lock()
        self._masks: OrderedDict[tuple[str, tuple[tuple[str, Scalar], ...]], NDArray[np.bool_]] = OrderedDict()

    # ------------------------------------------------------------------------------------------------------ searching

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        stages: Sequence[str] | None = None,
        filters: Mapping[str, Scalar | Sequence[Scalar]] | None = None,
    ) -> SearchResult:
        """Return the `k` best documents for a query.

        Args:
            query: the question, as its user wrote it.
            k: how many hits; more than `candidates` makes every stage look deeper.
            stages: which of `stages` to use, at least one of "bm25" and "dense"; None uses all.
            filters: column -> the value, or the values, a document may have there.

        Raises:
            QueryError: an empty query, k < 1, an unknown stage, none that finds candidates, a filter that cannot apply.
        """
        started = time.perf_counter()
        query = _checked_query(query)
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise QueryError(f"k must be a whole number of at least 1, not {k!r}", "k")
        used = self._used(stages)
        clock, notes = _Clock(), []
        with self._lock:
            clock.spent["wait"] = (time.perf_counter() - started) * 1000
            allowed = self._allowed(filters or {})
            if allowed is not None and (matching := int(allowed.sum())) < k:
                notes.append(_matching_note(matching))
            depth = max(self.candidates, k)
            queries = Collection(["query"], [query], name="query")
            first = {stage: self._first(stage, allowed, clock) for stage in used if stage in self.first}
            run = self._run(queries, min(depth, len(self.documents)), list(first.values()), "rerank" in used, clock)
            hits = self._hits(queries, run.top(k), used, first)
        clock.spent["total"] = (time.perf_counter() - started) * 1000
        if not len(run) and (allowed is None or allowed.any()):
            notes.append("No document that may be returned holds a word of the query.")
        return SearchResult(query, used, hits, len(run), depth, clock.spent, notes)

    def _used(self, stages: Sequence[str] | None) -> list[str]:
        if stages is None:
            return list(self.stages)
        for stage in stages:
            if stage not in self.stages:
                known = f"is not a stage of this search; its stages are {', '.join(self.stages)}"
                raise QueryError(f"{stage[:40]!r} {known}", "stages")
        used = [stage for stage in self.stages if stage in stages]
        if not any(stage in self.first for stage in used):
            raise QueryError(f"at least one of {' and '.join(self.first)} must be on, to find candidates", "stages")
        return used

    def _allowed(self, filters: Mapping[str, Scalar | Sequence[Scalar]]) -> NDArray[np.bool_] | None:
        """Return which documents pass the filters, bool[N], or None when there is no filter."""
        allowed = None
        for column, wanted in filters.items():
            values = (wanted,) if wanted is None or isinstance(wanted, Scalar) else tuple(wanted)
            key = (column, tuple((type(value).__name__, value) for value in values))
            mask = self._masks.get(key)
            if mask is None:
                try:
                    mask = match_columns(self.documents, {column: values})
                except RivalsError as error:
                    raise QueryError(str(error), f"filters.{column}"[:100]) from None
                self._masks[key] = mask
                if len(self._masks) > _MASKS:
                    self._masks.popitem(last=False)
            self._masks.move_to_end(key)
            allowed = mask if allowed is None else allowed & mask
        return allowed

    def _first(self, stage: str, allowed: NDArray[np.bool_] | None, clock: _Clock) -> _Timed:
        source = self.first[stage]
        return _Timed(source if allowed is None else Restricted(source, allowed), self.documents, stage, clock)

    def _run(self, queries: Collection, depth: int, first: Sequence[_Timed], rerank: bool, clock: _Clock) -> Run:
        """Return the candidates in their final order."""
        if rerank and self.reranker is not None:
            run = (first[0] if len(first) == 1 else first[0] | first[1])(queries, depth)
            with clock("rerank"):
                return self.reranker(self._as_trained(run)) if len(run) else run
        runs = [retriever(queries, depth) for retriever in first]
        if len(runs) == 1:
            return runs[0]
        with clock("fuse"):
            return self.fusion(runs)

    def _as_trained(self, run: Run) -> Run:
        """Return the run under the scores rerankers are trained on: the last first stage's, even if that is off."""
        scorer = tuple(self.first.values())[-1]
        if run.scorer == scorer.name:
            return run
        score = scorer.score(run.queries, run.query, run.document)
        return run.rescored(score, scorer=scorer.name, score_kind=scorer.score_kind)

    # ----------------------------------------------------------------------------------------------------------- hits

    def _hits(self, queries: Collection, run: Run, used: Sequence[str], first: Mapping[str, _Timed]) -> list[Hit]:
        rows = run.document
        thoughts = {stage: _thoughts(retriever, queries, rows) for stage, retriever in first.items()}
        if "rerank" in used:
            thoughts["rerank"] = [StageScore(_number(score), rank + 1) for rank, score in enumerate(run.score.tolist())]
        spans = self._marker(queries.texts[0])
        columns = [name for name in self.documents.table.column_names if name not in ("id", "text", "title")]
        hits = []
        for i, row in enumerate(rows.tolist()):
            text, title = self._cell("text", row) or "", self._cell("title", row)
            hits.append(
                Hit(
                    rank=i + 1,
                    id=self._cell("id", row),
                    score=float(run.score[i]),
                    title=title,
                    text=text[:MAX_TEXT],
                    text_truncated=len(text) > MAX_TEXT,
                    columns={name: self._cell(name, row) for name in columns},
                    stages={stage: thoughts[stage][i] for stage in used},
                    matched_terms=spans(text[:MAX_TEXT]),
                    matched_title=spans(title) if isinstance(title, str) else [],
                )
            )
        return hits

    def _marker(self, query: str) -> Callable[[str], list[tuple[int, int]]]:
        """Return a function from a text to the spans of the words which share a stem with the query."""
        words = getattr(self.first["bm25"], "words", None)
        if words is None:
            return lambda text: []
        terms = set(words.terms(query))
        matches: dict[str, bool] = {}  # most words of a text occur again; each is stemmed once

        def spans(text: str) -> list[tuple[int, int]]:
            found = []
            for match in _WORD.finditer(text):
                word = match[0]
                if word not in matches:
                    lower = word.lower()
                    matches[word] = len(word) > 1 and lower not in words.stop_words and words.term(lower) in terms
                if matches[word]:
                    found.append(match.span())
            return found

        return spans

    def _cell(self, column: str, row: int) -> Any:
        return self.documents.table[column][row].as_py() if column in self.documents.table.column_names else None

    def warm_up(self) -> None:
        """Search once, so that the first user does not wait for kernels to compile and models to be prepared."""
        if len(self.documents):
            words = (self._cell("text", 0) or "").split()[:12]
            self.search(" ".join(words) or "warm up", 1)

    # ---------------------------------------------------------------------------------------------------------- about

    def document(self, identifier: str) -> dict[str, Any]:
        """Return all columns of one document.

        Raises:
            RivalsError: no document has this id.
        """
        row = self.documents.row(identifier)
        return {name: self._cell(name, row) for name in self.documents.table.column_names}

    @cached_property
    def filters(self) -> list[dict[str, Any]]:
        """The columns with 2 to 50 different values, worth a choice on a page, and those values with their counts."""
        import pyarrow as pa

        found = []
        for name in self.documents.table.column_names:
            column = self.documents.table[name]
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            plain = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)
            if name in ("id", "text", "title") or not any(is_plain(kind) for is_plain in plain):
                continue
            counts = sorted(column.cast(kind).value_counts().to_pylist(), key=lambda c: -c["counts"])
            named = [{"value": c["values"], "count": c["counts"]} for c in counts if c["values"] not in (None, "")]
            if 2 <= len(named) <= 50:
                found.append({"column": name, "values": named})
        return found


def _reciprocal_ranks(runs: Sequence[Run]) -> Run:
    from rivals.retrieve import fuse_reciprocal_rank

    return fuse_reciprocal_rank(runs)


def _thoughts(retriever: _Timed, queries: Collection, rows: NDArray[np.int64]) -> list[StageScore]:
    """What a first stage thought of documents `rows`: its score of each, its rank of those that it proposed itself."""
    if retriever.found is None or not len(rows):
        return []
    place = dict(zip(retriever.found.document.tolist(), (retriever.found.rank + 1).tolist(), strict=True))
    score = retriever.score(queries, np.zeros(len(rows), np.int64), rows)
    return [StageScore(_number(s), place.get(row)) for row, s in zip(rows.tolist(), score.tolist(), strict=True)]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _checked_query(query: str) -> str:
    if not isinstance(query, str) or not query.strip():
        raise QueryError("the query is empty; write a question or some words", "query")
    try:
        query.encode()
    except UnicodeEncodeError:
        raise QueryError("the query holds lone surrogates, which are not valid Unicode", "query") from None
    return query.strip()


def _matching_note(matching: int) -> str:
    if matching == 0:
        return "No document matches the filter."
    return f"Only {matching} document{'s match' if matching > 1 else ' matches'} the filter."


def load_engine(run_folder: str | Path, *, candidates: int | None = None, device: str = "auto") -> SearchEngine:
    """Load what a finished run left for searching: `index/`, `models/retriever`, `models/second_stage`.

    A folder without models gives a search by BM25 alone, one without a second stage a search without a reranker.

    Args:
        candidates: how many each first stage proposes; None is what the run was evaluated with.

    Raises:
        RunFolderError: no such folder, or one without an index. IndexDamaged, ModelError: a part that cannot be used.
    """
    from rivals.retrieve import Index

    folder = Path(run_folder)
    if not folder.is_dir():
        raise RunFolderError(f"there is no run folder {folder}; `rivals quickstart` or `rivals train` makes one")
    if not (folder / "index").is_dir():
        raise RunFolderError(f"{folder} has no index/; resume its run, or give the folder of a finished one")
    index = Index.load(folder / "index")
    retriever, second_stage = folder / "models" / "retriever", folder / "models" / "second_stage"
    dense = reranker = None
    if retriever.is_dir() and index.vectors is not None:
        from rivals.models import Encoder

        encoder = Encoder.load(retriever, device=device, dtype=_evaluated(folder, "precision", "auto"))
        dense = index.dense(encoder, show_progress=False)
        if second_stage.is_dir():
            from rivals.models.rerank import load_reranker

            reranker = load_reranker(second_stage, encoder)
    return SearchEngine(
        index.documents,
        bm25=index.bm25,
        dense=dense,
        reranker=reranker,
        candidates=int(_evaluated(folder, "candidates", 100)) if candidates is None else candidates,
        name=folder.resolve().name,
    )


def _evaluated(folder: Path, option: str, otherwise: Any) -> Any:
    """Return an option that the run was evaluated with, `otherwise` where it has none."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"].get(option, otherwise)
    except FileNotFoundError:
        return otherwise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{folder / 'config.json'} cannot be read ({error}); restore it") from None
