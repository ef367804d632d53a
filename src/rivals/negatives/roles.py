"""Queries and candidates are roles, not types: `swap_roles` turns a run round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rivals import lists
from rivals.data.run import COLUMNS, Run


def swap_roles(run: Run) -> Run:
    """Return the run with documents as queries and queries as candidates.

    Every pair stays, with its score, marks and features.

    Use it to mine negatives in the other direction (queries that are hard for a page) or to train both directions of a
    loss. Positives turn round as well. Swapping twice gives the run back, if each query's positives stand in the
    documents' order, as retrievers and datasets put them.

    Source: roles of candidates as in paper 9.

    >>> from rivals.data import Collection
    >>> run = Run.build(Collection(["q1", "q2"]), Collection(["a", "b"]), [0, 2, 3], [0, 1, 1], [.9, .8, .7])
    >>> swapped = swap_roles(run)
    >>> swapped.offsets.tolist(), swapped.queries.ids[swapped.document].tolist() == ['a', 'b', 'b']
    ([0, 1, 3], False)
    >>> swapped.documents.ids[swapped.document].tolist()
    ['q1', 'q1', 'q2']
    """
    order = np.argsort(run.document, kind="stable")
    owner = lists.segment_ids(run.positive_offsets)
    turned = np.argsort(run.positive, kind="stable")
    swapped = Run.build(
        run.documents,
        run.queries,
        lists.offsets_from_lengths(np.bincount(run.document, minlength=len(run.documents))),
        run.query[order],
        run.score[order],
        features={name: column[order] for name, column in run.features.items()},
        positives=(lists.offsets_from_lengths(np.bincount(run.positive, minlength=len(run.documents))), owner[turned]),
        positive_score=run.positive_score[turned],
        positive_relevance=run.positive_relevance[turned],
        sources=run.sources,
        scorer=run.scorer,
        score_kind=run.score_kind,
        seed=run.seed,
        columns={name: getattr(run, name)[order] for name in COLUMNS if name not in ("document", "score", "rank")},
    )
    return replace(
        swapped, reasons=run.reasons, version=run.version, built_from=run.built_from, created_step=run.created_step
    )
