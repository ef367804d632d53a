"""Hard negative queries for pages, written and then verified, and the groups a reranker trains on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.dataset import Dataset
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.negatives.generating.generators import Generator
from rivals.negatives.generating.writing import (
    GENERATED_BY,
    GENERATED_FOR,
    GenerationReport,
    TextChecks,
    extended,
    fresh_ids,
    write_texts,
)

#: A variant is to look like its query: only equality and wild lengths are faults.
VARIANT_CHECKS = TextChecks(shortest=0.3, longest=3.0, overlap=None)


@dataclass(frozen=True, eq=False)
class WrittenQueries:
    """What `write_queries` gives: the `dataset` with the new queries behind the old, a `run` and the `report`.

    In the run every new query has one candidate, the page it was written for, with the score 1/i for the i-th written;
    the old queries have their positives and no candidate. Verify it, `swap_roles` it, or make groups of it.
    """

    dataset: Dataset
    run: Run
    report: GenerationReport


class QueryGroups(NamedTuple):
    """Pairs of a query and a page, group after group: one page, a query it answers, then some it does not.

    `offsets` int64[G + 1] over the pairs; `query`, `document` int64: rows; `label` int8: 1 answered, 0 not.
    """

    offsets: NDArray[np.int64]
    query: NDArray[np.int64]
    document: NDArray[np.int64]
    label: NDArray[np.int8]


def write_queries(
    dataset: Dataset,
    generator: Generator,
    *,
    n: int = 12,
    checks: TextChecks = VARIANT_CHECKS,
    retries: int = 0,
    seed: int = 0,
    show: bool = True,
) -> WrittenQueries:
    """Let a generator write up to `n` queries that look like a page's own but that the page does not answer.

    For every document that is relevant to a query, variants of its first such query are written, and paired with that
    page. They are negatives for their own page alone, for another page may well answer them: they get no judgement and
    belong to no split, and in training they must not be another pair's in-batch negative.

    Then `Verify(judges)(written.run)` marks what the page answers after all, the judges two `YesNoJudge`s with the
    prompts `answerable.txt` and `answer_found.txt` of `JUDGE_PROMPTS`; `query_groups` gives the training groups.

    Args:
        generator: sees the query, and the page as the positive if it asks for it; `PromptGenerator(model,
            WRITER_PROMPTS / "query_variants.txt", lines=True)`, or `TemplateGenerator`. The writer and the verifier should
            differ.
        checks: of the variants against the page's own queries: equal ones are dropped before any verifier is asked.

    Source: Wasserman et al. 2025, DocReRank (paper 9): 12 variants of one query a page, two verifying prompts, 3 kept.

    Raises:
        RivalsError: no page with a query, nothing that survives, options out of range.

    >>> from rivals.data import Collection, Judgements
    >>> from rivals.negatives.generating.rules import TemplateGenerator
    >>> queries, documents = Collection(["q"], ["sales in 2022 ?"], name="query"), Collection(["a"], ["Sales: 3"])
    >>> dataset = Dataset(queries, documents, Judgements.build([0], [0], [1], queries=1, documents=1))
    >>> written = write_queries(dataset, TemplateGenerator(["year"]), n=2)
    >>> len(written.dataset.queries), written.run.query.tolist(), written.run.document.tolist()
    (3, [1, 2], [0, 0])
    """
    known, texts = dataset.judgements.positives, dataset.queries.full_texts
    order = np.argsort(known.document, kind="stable")
    pages, first = np.unique(known.document[order], return_index=True)
    owners = np.split(known.query[order], first[1:]) if len(pages) else []
    names = [str(identifier) for identifier in dataset.documents.ids[pages]]
    variants, report = write_texts(
        generator,
        names,
        [texts[int(mine[0])] for mine in owners],
        [dataset.documents.full_texts[page] for page in pages],
        [[texts[int(query)] for query in mine] for mine in owners],
        n,
        checks=checks,
        retries=retries,
        seed=seed,
        role="hard negative queries",
        show=show,
    )
    lengths = [len(group) for group in variants]
    page = np.repeat(pages, lengths)
    varied = np.repeat(np.array([mine[0] for mine in owners], dtype=np.int64), lengths)
    queries = extended(
        dataset.queries,
        fresh_ids(dataset.queries, [str(identifier) for identifier in dataset.queries.ids[varied]]),
        [text for group in variants for text in group],
        {
            GENERATED_FOR: [str(identifier) for identifier in dataset.documents.ids[page]],
            GENERATED_BY: [generator.name] * len(page),
        },
    )
    old, new = len(dataset.queries), len(page)

    def lengthened(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.concatenate([offsets, np.full(new, offsets[-1])])

    judgements = replace(dataset.judgements, offsets=lengthened(dataset.judgements.offsets))
    run = Run.build(
        queries,
        dataset.documents,
        np.concatenate([np.zeros(old, np.int64), np.arange(new + 1)]),
        page,
        1 / (1 + lists.positions(lists.offsets_from_lengths(lengths))),
        positives=(lengthened(known.offsets), known.document),
        positive_relevance=known.relevance,
        scorer=generator.name,
        seed=seed,
    )
    return WrittenQueries(replace(dataset, queries=queries, judgements=judgements), run, report)


def query_groups(run: Run, *, negatives: int = 3) -> QueryGroups:
    """Return for every page with a kept negative query: one query it answers, label 1, and its negatives, label 0.

    Groups are whole and in the order of the pages; batches of 8 groups of 1 + 3 are the 32 pairs of the source. Marked
    candidates are left out, and pages that have none left, or no query they answer.

    Args:
        run: as `write_queries` gives it, verified. negatives: at most so many a page, the first ones written.

    Source: Wasserman et al. 2025, DocReRank (paper 9).

    Raises:
        RivalsError: negatives below 1.

    >>> from rivals.data import Collection
    >>> queries, pages = Collection(["q", "q~1", "q~2"], name="query"), Collection(["a"])
    >>> run = Run.build(queries, pages, [0, 0, 1, 2], [0, 0], [1., .5], positives=([0, 1, 1, 1], [0]))
    >>> groups = query_groups(run.mark(np.array([True, False]), "answers"))
    >>> groups.query.tolist(), groups.document.tolist(), groups.label.tolist()
    ([0, 2], [0, 0], [1, 0])
    """
    if isinstance(negatives, bool) or not isinstance(negatives, int) or negatives < 1:
        raise RivalsError(f"negatives must be a whole number, 1 or more, not {negatives!r}")
    owner = lists.segment_ids(run.positive_offsets)
    answered = np.full(len(run.documents), -1, np.int64)
    answered[run.positive[::-1]] = owner[::-1]  # the first query of each page
    usable = np.flatnonzero(run.keep & (run.label != 1) & (answered[run.document] >= 0))
    page, query = run.document[usable], run.query[usable]
    order = np.lexsort((query, -run.score[usable], page))
    page, query = page[order], query[order]
    counts = np.bincount(page, minlength=len(run.documents))
    place = lists.positions(lists.offsets_from_lengths(counts))
    page, query = page[place < negatives], query[place < negatives]
    pages = np.unique(page)
    document = np.concatenate([pages, page])
    queries = np.concatenate([answered[pages], query])
    label = np.concatenate([np.ones(len(pages), np.int8), np.zeros(len(page), np.int8)])
    order = np.lexsort((-label, document))
    lengths = np.bincount(np.searchsorted(pages, document), minlength=len(pages))
    return QueryGroups(lists.offsets_from_lengths(lengths), queries[order], document[order], label[order])
