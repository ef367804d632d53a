"""The same system over other documents, and with its candidates handed over in another order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rivals.data.collection import Collection
from rivals.data.pipeline import Pipeline, Retriever, Transform, Union
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.retrieve import BM25, Dense

System = Callable[[Collection, int], Run]
"""What is tested: takes queries and a depth, gives a run. Every `Retriever` is one, pipelines with rerankers included."""


def rebuilt(system: Any, documents: Collection) -> Retriever:
    """Return a system like the one given, over other documents.

    Knows `BM25`, `Dense` (only texts that it has not seen are encoded), unions and pipelines of them. Second stages with
    stored token vectors get those of the new texts; the other steps of a pipeline are used as they are, so they must not
    hold documents of their own.

    Raises:
        RivalsError: a system of another kind; give your own function from documents to a system.

    >>> documents = Collection(["a"], ["red cat"])
    >>> rebuilt(BM25(documents), Collection(["a", "b"], ["red cat", "red dog"])).documents.ids.tolist()
    ['a', 'b']
    """
    if type(system) is BM25:
        return BM25(documents, **system.settings, name=system.name, threads=system.threads)
    if type(system) is Dense:
        return _dense(system, documents)
    if type(system) is Union:
        return Union([rebuilt(member, documents) for member in system.members])
    if type(system) is Pipeline:
        held = system.source.documents
        return Pipeline(rebuilt(system.source, documents), [_step(step, held, documents) for step in system.steps])
    raise RivalsError(
        f"a {type(system).__name__} cannot be made anew over changed documents here; give rebuild=, a function from "
        "documents to the system"
    )


@dataclass(frozen=True)
class CandidateOrder:
    """The candidates handed to the first step after retrieval in random order, as if the first stage had ranked so.

    A reranker that scores each candidate by itself does not notice; one that reads lists, or mixes in the first stage's
    score, may. The scores stay the same numbers, given to other candidates. Only for pipelines with a step.

    >>> CandidateOrder().name
    'candidate order'
    """

    keeps_meaning: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """What reports call it."""
        return "candidate order"

    def __call__(self, system: Any, *, seed: int = 0) -> Pipeline:
        """Return the pipeline with its retriever's candidates shuffled.

        Raises:
            RivalsError: the system is no pipeline with a step.
        """
        if not isinstance(system, Pipeline) or not system.steps:
            raise RivalsError(
                "only a pipeline with a reranker gets its candidates from another; this system finds its own"
            )
        return Pipeline(_Shuffled(system.source, seed), system.steps)


class _Shuffled(Retriever):
    """A retriever whose candidates come in random order."""

    def __init__(self, source: Retriever, seed: int) -> None:
        self.source, self.seed = source, seed
        self.name, self.score_kind, self.documents = source.name, source.score_kind, source.documents
        self.scores_pairs = source.scores_pairs

    def retrieve(self, queries: Collection, k: int) -> Run:
        run = self.source.retrieve(queries, k)
        order = np.lexsort((np.random.default_rng(self.seed).random(len(run)), run.query))
        columns = {name: column[order] for name, column in run.features.items()}
        return Run.build(
            run.queries,
            run.documents,
            run.offsets,
            run.document[order],
            run.score,
            source=run.source[order],
            features=columns,
            sources=run.sources,
            scorer=run.scorer,
            score_kind=run.score_kind,
            seed=self.seed,
        )

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        return self.source.score(queries, query_row, document_row)


def _dense(dense: Dense, documents: Collection) -> Dense:
    """A `Dense` with the same encoder: vectors of known texts are taken over, the others computed."""
    row = {text: number for number, text in enumerate(dense.documents.full_texts)}
    place = np.fromiter((row.get(text, -1) for text in documents.full_texts), dtype=np.int64, count=len(documents))
    new = np.flatnonzero(place < 0)
    vectors = np.asarray(dense.vectors)[np.maximum(place, 0)].astype(np.float32)
    if len(new):
        vectors[new] = _vectors(dense, documents.take(new))
    return Dense(
        dense.encoder,
        documents,
        vectors=vectors,
        cache=dense.cache,
        name=dense.name,
        similarity="cosine" if dense.score_kind == "cosine" else "dot",
        device=dense.device,
        show_progress=dense.show_progress,
    )


def _vectors(dense: Dense, documents: Collection) -> NDArray[np.float32]:
    return Dense(
        dense.encoder,
        documents,
        cache=dense.cache,
        similarity="cosine" if dense.score_kind == "cosine" else "dot",
        device=dense.device,
        show_progress=False,
    ).vectors


def _step(step: Transform, held: Collection, documents: Collection) -> Transform:
    """A step of a pipeline over `held` for other documents: itself, unless it stores some."""
    from rivals.models.rerank import SecondStage
    from rivals.negatives.rescore import Rescore

    if isinstance(step, SecondStage):
        step = step.over(held, documents)
    if isinstance(step, Rescore) and isinstance(step.scorer, Retriever):
        return replace(step, scorer=rebuilt(step.scorer, documents))
    if isinstance(getattr(step, "source", None), Retriever):
        return replace(step, source=rebuilt(step.source, documents))  # type: ignore[type-var, attr-defined]
    return step


def text_scorer(system: Any, texts: Iterable[str]) -> Callable[[list[str], list[str]], NDArray[np.float32]]:
    """Return a scorer of pairs of texts out of a retriever: what `condition_report` and `contrast_report` take.

    The retriever is made anew once, over its own documents and all of `texts` that will be asked about, so that a lexical one
    keeps the statistics of the whole corpus.

    Args:
        system: `BM25`, `Dense` or a union of them. texts: the documents that pairs will name.

    Raises:
        RivalsError: a pipeline, whose steps score no single pairs; when called, a document that was not announced.

    >>> score = text_scorer(BM25(Collection(["a"], ["red cat"])), ["red dog"])
    >>> score(["a dog", "a cat"], ["red dog", "red dog"]).round(2).tolist()
    [0.3199..., 0.0]
    """
    if isinstance(system, Pipeline):
        raise RivalsError("a pipeline scores candidates, not single pairs; give its source, or a function of your own")
    known = dict.fromkeys(texts)
    held = system.documents
    ids = [f"{held.ids[0] if len(held) else ''}+{number}" for number in range(len(known))]
    while any(identifier in held for identifier in ids):
        ids = [f"+{identifier}" for identifier in ids]
    both = Collection([*held.ids.tolist(), *ids], [*held.full_texts, *known])
    made = rebuilt(system, both)
    row = {text: len(held) + number for number, text in enumerate(known)}

    def score(queries: list[str], documents: list[str]) -> NDArray[np.float32]:
        asked = {query: number for number, query in enumerate(dict.fromkeys(queries))}
        for document in documents:
            if document not in row:
                raise RivalsError(f"the document {document[:60]!r} was not among the texts the scorer was made for")
        members = Collection([str(number) for number in range(len(asked))], list(asked), name="query")
        return made.score(
            members,
            np.array([asked[query] for query in queries], np.int64),
            np.array([row[document] for document in documents], np.int64),
        )

    return score
