"""Pairs of documents that differ by a negation, and queries that fit one of them each: does the scorer see it?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rivals.errors import RivalsError

Floats = NDArray[np.float64]


class PairedPreference(NamedTuple):
    """What `paired_preference` returns; `per_item` [N] is the share of an item's queries that are right."""

    pairwise_accuracy: float
    query_accuracy: float
    same_order_rate: float
    tie_rate: float
    per_item: Floats


class ContrastItem(NamedTuple):
    """Two documents and two queries, the first query answered by the first document only, the second by the second."""

    documents: tuple[str, str]
    queries: tuple[str, str]


def paired_preference(scores: ArrayLike) -> PairedPreference:
    """How often every query of an item ranks its own document first among the item's documents.

    - pairwise_accuracy: share of items with all queries right. Chance is 1/4 for two documents; a scorer that is blind
      to the difference gets 0.
    - query_accuracy: share of queries that are right; a blind scorer has one half.
    - same_order_rate: share of items where all queries prefer one and the same document: ignoring, not noise.
    - tie_rate: share of queries whose own document is within 1e-9 of the best other one, as after truncation.

    A tie is wrong. Shapes: scores[N, K, K], of query q and document d, relevant where d = q.

    Source: Weller, Lawrie and Van Durme 2024, NevIR. Paper 93; same-order and tie rates are ours.

    Raises:
        RivalsError: not [N, K, K] with N at least 1 and K at least 2; NaN.

    >>> found = paired_preference([[[2., 1.], [0., 1.]], [[2., 1.], [1., 0.]]])
    >>> found.pairwise_accuracy, found.same_order_rate, found.per_item.tolist()
    (0.5, 0.5, [1.0, 0.5])
    """
    table = np.asarray(scores.detach().cpu() if isinstance(scores, Tensor) else scores, dtype=np.float64)
    if table.ndim != 3 or len(table) < 1 or table.shape[1] != table.shape[2] or table.shape[1] < 2:
        raise RivalsError(
            f"scores have shape {table.shape}; they must be [items, K, K] with at least 1 item and K of 2"
        )
    if np.isnan(table).any():
        raise RivalsError("scores hold NaN")
    size = table.shape[1]
    own = np.diagonal(table, axis1=1, axis2=2)
    other = np.where(np.eye(size, dtype=bool), -np.inf, table).max(2)
    right = own > other
    ranked = np.sort(table, axis=2)
    favourite = np.where(ranked[..., -1] > ranked[..., -2], table.argmax(2), -1)
    same = (favourite == favourite[:, :1]).all(1) & (favourite[:, 0] >= 0)
    with np.errstate(invalid="ignore"):
        tied = (own == other) | (np.abs(own - other) < 1e-9)
    return PairedPreference(
        float(right.all(1).mean()), float(right.mean()), float(same.mean()), float(tied.mean()), right.mean(1)
    )


def contrast_pairs(
    items: Sequence[ContrastItem], score: Callable[[list[str], list[str]], Any], *, batch_size: int = 64
) -> PairedPreference:
    """Score every query of every item with both of its documents, and return `paired_preference`.

    `score(queries, documents)` gives one number for each pair of texts, from any kind of model.

    Source: Weller, Lawrie and Van Durme 2024, NevIR. Paper 93.

    Raises:
        RivalsError: no item, batch_size below 1, not one score a pair, NaN.

    >>> items = [ContrastItem(("a dog", "no dog"), ("dog yes", "no"))]
    >>> contrast_pairs(items, lambda q, d: [len(set(a.split()) & set(b.split())) for a, b in zip(q, d)]).query_accuracy
    0.5
    """
    if not len(items):
        raise RivalsError("items holds no item")
    if batch_size < 1:
        raise RivalsError(f"batch_size is {batch_size}; it must be at least 1")
    pairs = [(query, document) for item in items for query in item.queries for document in item.documents]
    found: list[float] = []
    for start in range(0, len(pairs), batch_size):
        queries, documents = zip(*pairs[start : start + batch_size], strict=True)
        values = score(list(queries), list(documents))
        values = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
        if values.shape != (len(queries),):
            raise RivalsError(f"score returned shape {values.shape} for {len(queries)} pairs; it must be one a pair")
        found.extend(values.tolist())
    return paired_preference(np.array(found).reshape(len(items), 2, 2))


def contrast_triples(items: Sequence[ContrastItem]) -> list[tuple[str, str, str]]:
    """Return (query, positive, negative) both ways: negatives that differ from the positive by as little as can be.

    Source: the fine-tuning study of NevIR. Paper 93.

    >>> contrast_triples([ContrastItem(("it is", "it is not"), ("is it?", "isn't it?"))])
    [('is it?', 'it is', 'it is not'), ("isn't it?", 'it is not', 'it is')]
    """
    return [(item.queries[own], item.documents[own], item.documents[1 - own]) for item in items for own in (0, 1)]
