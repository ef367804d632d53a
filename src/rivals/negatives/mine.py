"""Mining hard negatives: a retrieval pipeline which ends in a sampler, run over a dataset and audited."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from rivals.data.dataset import Dataset
from rivals.data.formats.run_files import RunWriter
from rivals.data.pipeline import Retriever, Transform, check_same_documents
from rivals.data.run import Run, concatenate
from rivals.errors import RivalsError
from rivals.negatives.audit import AuditBuilder, MiningAudit
from rivals.negatives.export import mark_drawn
from rivals.negatives.filters import Duplicates, KnownPositives, PositiveAware
from rivals.negatives.samplers import Draw, Sampler, Top, check_drawn
from rivals.progress import progress

_CANDIDATES = 1 << 20  # candidates a block of queries may have
_FILTERS = (PositiveAware(relative=0.05),)
_SAMPLER = Top(4)


@dataclass(frozen=True, eq=False)
class Mined:
    """What mining gives: the marked `run`, the `draw` from it, and the `audit` of both.

    `run` holds every candidate with its marks (or, mined with `hold="drawn"`, the drawn ones only); `draw.row` points
    into it.
    """

    run: Run
    draw: Draw
    audit: MiningAudit

    @property
    def negatives(self) -> Run:
        """The drawn candidates only, in rank order."""
        return self.run.select(self.draw.chosen(self.run))


def mine_hard_negatives(
    source: Retriever,
    dataset: Dataset,
    *,
    filters: Transform | Sequence[Transform] = _FILTERS,
    sampler: Sampler = _SAMPLER,
    top_k: int = 100,
    seed: int = 0,
    hold: Literal["all", "drawn"] = "all",
    output: str | Path | None = None,
    block: int | None = None,
    allow_none: bool = False,
    examples: int = 20,
    show: bool = True,
) -> Mined:
    """Mine hard negatives for every query: `source >> KnownPositives() >> Duplicates() >> filters >> sampler`.

    Queries go through in blocks of about a million candidates. With `hold="drawn"` and `output` the memory needed does
    not grow with `top_k` times the number of queries. Blocks do not change the result, random samplers included.

    Args:
        source: any retriever or pipeline over the dataset's documents, `bm25 | dense` for instance. Positives are
            scored by the same scorer as candidates.
        dataset: the queries to mine for, usually `dataset.split("train")`.
        filters: what to mark besides known positives and duplicate texts, in order; rerankers may stand among them.
            `()` mines naively. Duplicates are checked where the documents have texts; the audit notes it otherwise.
        sampler: what to draw from the rest.
        top_k: candidates per query; known positives among them are marked, so allow for them.
        seed: of the draw, with the sampler's own.
        hold: keep "all" candidates in the returned run, or the "drawn" ones only.
        output: write the marked run, all candidates, to this Parquet file as well (`rivals.data.load_run` reads it); its
            feature `drawn` says which were drawn.
        block: queries at a time; by default as many as have a million candidates.
        allow_none: return an empty draw, with a note in the audit, where no query at all has a candidate left.
        examples: suspected false negatives kept in the audit.
        show: show progress.

    Source: Moreira et al. 2024, NV-Retriever (paper 13), for the defaults: relative margin 5 %, the 4 hardest
    survivors.

    Raises:
        RivalsError: other documents than the source's, no query, a query without positive under a positive-aware filter
        (it is named),
            nothing left to draw for any query without `allow_none`, a filter that removed candidates, an option out of range.

    >>> from rivals.data import Collection, Judgements
    >>> queries, documents = Collection(["q"], name="query"), Collection(["a", "b", "c"], ["yes", "no", "perhaps"])
    >>> dataset = Dataset(queries, documents, Judgements.build([0], [0], [1], queries=1, documents=3))
    >>> class Words(Retriever):
    ...     name, score_kind, documents = "words", "cosine", documents
    ...     def retrieve(self, queries, k):
    ...         return Run.build(queries, documents, [0, 3], [0, 1, 2], [.9, .5, .88], score_kind="cosine").top(k)
    ...     def score(self, queries, query_row, document_row):
    ...         return np.array([.9, .5, .88], dtype=np.float32)[document_row]
    >>> mined = mine_hard_negatives(Words(), dataset, sampler=Top(1))
    >>> documents.ids[mined.negatives.document].tolist(), mined.audit.reasons["positive-aware relative 0.05"].marked
    (['b'], 2)
    """
    steps = (filters,) if isinstance(filters, Transform) else tuple(filters)
    size = _check(source, dataset, steps, sampler, top_k, seed, hold, block)
    marked = marked_blocks(source, dataset, steps, top_k=top_k, seed=seed, block=size, show=show)
    return collect(marked, sampler, seed=seed, hold=hold, output=output, allow_none=allow_none, examples=examples)


class Marked(NamedTuple):
    """A block of queries after the filters: its run, the names of the source and filters, and notes for the audit."""

    run: Run
    steps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def marked_blocks(
    source: Retriever,
    dataset: Dataset,
    filters: Sequence[Transform],
    *,
    top_k: int,
    seed: int,
    block: int,
    show: bool = True,
) -> Iterator[Marked]:
    """Search and filter block after block of queries: the first half of `mine_hard_negatives`, whose arguments these are.

    Raises:
        RivalsError: a filter that removed candidates, and what source and filters raise.
    """
    notes: tuple[str, ...] = ()
    marking: list[Transform] = [KnownPositives()]
    if dataset.documents.has_texts:
        marking.append(Duplicates())
    else:
        notes = ("the documents have no texts here, so duplicate texts were not looked for",)
    chain = (*marking, *filters)
    names = (getattr(source, "name", type(source).__name__), *map(repr, chain))
    total = len(dataset.queries)
    with progress("Mining negatives", total, show=show and total > block) as advance:
        for start in range(0, total, block):
            part = dataset if block >= total else dataset.take(np.arange(start, min(start + block, total)))
            run = replace(source(part, top_k), seed=seed)
            for step in chain:
                run = _applied(step, run)
            yield Marked(run, names, notes)
            advance(len(part.queries))


def collect(
    blocks: Iterable[Marked],
    sampler: Sampler,
    *,
    seed: int = 0,
    hold: Literal["all", "drawn"] = "all",
    output: str | Path | None = None,
    allow_none: bool = False,
    examples: int = 20,
) -> Mined:
    """Draw from marked blocks in order, with one generator, and audit, write and join them: the end of any mining.

    `mine_hard_negatives` and other engines hand it their blocks; the arguments are those of `mine_hard_negatives`.

    Raises:
        RivalsError: nothing left to draw for any query without `allow_none`; blocks with different sources or reasons.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8])
    >>> collect([Marked(run)], Top(1)).draw.candidate.tolist()
    [[0]]
    """
    audit: AuditBuilder | None = None
    runs: list[Run] = []
    draws: list[Draw] = []
    with ExitStack() as stack:
        writer = stack.enter_context(RunWriter(output)) if output is not None else None
        for run, steps, notes in blocks:
            if audit is None:
                audit = AuditBuilder(steps=(*steps, repr(sampler)), examples=examples, notes=notes)
                generator = np.random.default_rng([seed, sampler.seed, run.version])
            draw = sampler.draw_available(run, generator)
            audit.add(run, draw)
            if writer is not None:
                writer.add(mark_drawn(run, draw))
            if hold == "drawn":
                run, draw = _drawn_only(run, draw)
            runs.append(run)
            draws.append(draw)
        if audit is None:
            raise RivalsError("there is no block of queries to draw negatives for")
        run = runs[0] if len(runs) == 1 else concatenate(runs)
        draw = draws[0] if len(draws) == 1 else Draw.concatenate(draws, [len(piece) for piece in runs])
        finished = audit.finish()
        if allow_none and not draw.mask.any():
            left = f"the filters left no candidate to draw: {finished.marked} of {finished.proposed} are marked"
            finished = replace(finished, notes=(*finished.notes, left))
        else:
            check_drawn(draw, sampler, proposed=finished.proposed, marked=finished.marked)
    return Mined(run, draw, finished)


def _check(
    source: Retriever,
    dataset: Dataset,
    steps: tuple[Transform, ...],
    sampler: Sampler,
    top_k: int,
    seed: int,
    hold: str,
    block: int | None,
) -> int:
    """Check the arguments and return the number of queries in a block."""
    if not isinstance(dataset, Dataset):
        raise RivalsError(
            f"mining needs a Dataset, whose judgements name the positives, not a {type(dataset).__name__}"
        )
    if not isinstance(sampler, Sampler):
        raise RivalsError(f"sampler must be a Sampler such as Top(4), not {sampler!r}")
    for step in steps:
        if not isinstance(step, Transform) or isinstance(step, Sampler):
            raise RivalsError(f"filters must be transforms that mark, not {step!r}; samplers go to sampler=")
    for name, value, least in (("top_k", top_k, 1), ("seed", seed, 0), ("block", block, 1)):
        if not (name == "block" and value is None) and (not isinstance(value, int | np.integer) or value < least):
            raise RivalsError(f"{name} must be a whole number, {least} or more, not {value!r}")
    if hold not in ("all", "drawn"):
        raise RivalsError(f"hold must be 'all' or 'drawn', not {hold!r}")
    if not len(dataset.queries):
        raise RivalsError("the dataset has no queries to mine negatives for; check the split")
    check_same_documents(dataset.documents, source.documents)
    return int(block or max(_CANDIDATES // top_k, 1))


def _applied(step: Transform, run: Run) -> Run:
    after = step(run)
    if len(after) != len(run) or len(after.queries) != len(run.queries):
        raise RivalsError(
            f"{step!r} turned {len(run)} candidates into {len(after)}; filters mark candidates and remove none"
        )
    return after


def _drawn_only(run: Run, draw: Draw) -> tuple[Run, Draw]:
    chosen = draw.chosen(run)
    place = np.cumsum(chosen) - 1
    return run.select(chosen), replace(draw, row=np.where(draw.mask, place[draw.row], -1))
