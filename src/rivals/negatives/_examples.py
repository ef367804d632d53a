"""Examples: one candidate beside its query and the nearest positive, with their texts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rivals.data.collection import Collection
from rivals.data.run import Run


class Example(NamedTuple):
    """A candidate, its query and the query's lowest-scored positive.

    `positive_id` is empty, `positive` and `positive_score` are None for a query without positive; `positive_score` also
    where the positive is not scored. Texts are None where there are none.
    """

    query_id: str
    query: str | None
    document_id: str
    document: str | None
    score: float
    positive_id: str
    positive: str | None
    positive_score: float | None
    reasons: tuple[str, ...]


def example_of(run: Run, row: int) -> Example:
    """Return candidate `row` of a run as an example."""
    query = int(np.searchsorted(run.offsets, row, side="right") - 1)
    document = int(run.document[row])
    positives = slice(run.positive_offsets[query], run.positive_offsets[query + 1])
    scores = run.positive_score[positives]
    scored = not np.isnan(scores).all()  # False for no positives, too
    nearest = int(run.positive[positives][np.nanargmin(scores) if scored else 0]) if len(scores) else None
    return Example(
        query_id=str(run.queries.ids[query]),
        query=text_of(run.queries, query),
        document_id=str(run.documents.ids[document]),
        document=text_of(run.documents, document),
        score=float(run.score[row]),
        positive_id="" if nearest is None else str(run.documents.ids[nearest]),
        positive=None if nearest is None else text_of(run.documents, nearest),
        positive_score=float(np.nanmin(scores)) if scored else None,
        reasons=tuple(run.reasons_of(row)),
    )


def text_of(collection: Collection, row: int) -> str | None:
    """Return one member's text with its title, or None where there are no texts, without reading all of them.

    >>> text_of(Collection(["a"], ["x"], {"title": ["T"]}), 0)
    'T. x'
    """
    if not collection.has_texts:
        return None
    text = str(collection.table["text"][row].as_py())
    title = collection.table["title"][row].as_py() if "title" in collection.table.column_names else None
    return f"{title}. {text}" if title else text
