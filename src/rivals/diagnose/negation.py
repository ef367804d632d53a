"""Pairs of documents that differ by a negation, and queries that fit one of them each: does the scorer see it?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rivals.diagnose.conditions import Score, score_pairs
from rivals.diagnose.robustness.edits import sentences_of
from rivals.errors import RivalsError
from rivals.measures.intervals import Interval, bootstrap_interval

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


def contrast_pairs(items: Sequence[ContrastItem], score: Score, *, batch_size: int = 64) -> PairedPreference:
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
    pairs = [(query, document) for item in items for query in item.queries for document in item.documents]
    return paired_preference(score_pairs(score, pairs, batch_size).reshape(len(items), 2, 2))


def contrast_triples(items: Sequence[ContrastItem]) -> list[tuple[str, str, str]]:
    """Return (query, positive, negative) both ways: negatives that differ from the positive by as little as can be.

    Source: the fine-tuning study of NevIR. Paper 93.

    >>> contrast_triples([ContrastItem(("it is", "it is not"), ("is it?", "isn't it?"))])
    [('is it?', 'it is', 'it is not'), ("isn't it?", 'it is not', 'it is')]
    """
    return [(item.queries[own], item.documents[own], item.documents[1 - own]) for item in items for own in (0, 1)]


class EditedPassage(NamedTuple):
    """A version of a passage: `edit` 0 is the original, 1 says its negated statement in other words, 3 undoes the negation
    (as CondaQA numbers them; other numbers are left alone)."""

    passage: str
    edit: int
    text: str


class EditedItems(NamedTuple):
    """What `negation_items` returns: the items with the passage each came from, and the number of passages left out."""

    items: tuple[ContrastItem, ...]
    passages: tuple[str, ...]
    left_out: int


def negation_items(
    versions: Iterable[EditedPassage],
    *,
    split: Callable[[str], list[str]] = sentences_of,
    most: int = 2,
) -> EditedItems:
    """Make negation items out of passages that people edited: the original, a paraphrase, and one without the negation.

    The documents are the original and the version without its negation. The first query is what the paraphrase says and
    the original does not (in its words), the second what the un-negated version says and the original does not. The
    second stands word for word in its document, so it is the easy side: read both sides of `contrast_report`.

    A passage is left out, and counted, if it lacks a version, or a version changes no sentence or more than `most`.

    Source: built as Weller, Lawrie and Van Durme 2024 (NevIR) build from CondaQA (Ravichander et al. 2022), with sentences
    of the edits in place of questions that people wrote. Paper 93.

    Raises:
        RivalsError: a version twice, most below 1, no passage that makes an item.

    >>> texts = [(0, "Rain fell. It did not stop."), (1, "Rain fell. It went on."), (3, "Rain fell. It stopped.")]
    >>> negation_items(EditedPassage("p", edit, text) for edit, text in texts).items[0].queries
    ('It went on.', 'It stopped.')
    """
    if most < 1:
        raise RivalsError(f"most is {most}; it must be at least 1")
    found: dict[str, dict[int, str]] = {}
    for passage, edit, text in versions:
        known = found.setdefault(str(passage), {})
        if edit in known:
            raise RivalsError(f"passage '{passage}' has version {edit} twice; every version stands once")
        known[edit] = text
    items, names = [], []
    for name, known in found.items():
        if not {0, 1, 3} <= known.keys():
            continue
        original = set(split(known[0]))
        said, undone = ([part for part in split(known[edit]) if part not in original] for edit in (1, 3))
        if 1 <= len(said) <= most and 1 <= len(undone) <= most:
            items.append(ContrastItem((known[0], known[3]), (" ".join(said), " ".join(undone))))
            names.append(name)
    if not items:
        raise RivalsError(
            f"none of {len(found)} passages has the versions 0, 1 and 3 with 1 to {most} changed sentences"
        )
    return EditedItems(tuple(items), tuple(names), len(found) - len(items))


class ContrastReport(NamedTuple):
    """What `contrast_report` returns: the pairwise accuracy with its interval beside chance, and where it comes from.

    `first` and `second` are the shares of items whose first and second query is right; `blind` of those where both
    queries prefer the same document; `ties` of queries that cannot tell, as after truncation.
    """

    items: int
    accuracy: Interval
    first: float
    second: float
    blind: float
    ties: float

    def __str__(self) -> str:
        return (
            f"{self.items} items: both queries right {self.accuracy} (chance 0.250), first {self.first:.3f}, second "
            f"{self.second:.3f}, same document for both {self.blind:.3f}, ties {self.ties:.3f}"
        )


def contrast_report(
    items: Sequence[ContrastItem],
    score: Score,
    *,
    batch_size: int = 64,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> ContrastReport:
    """Run any scorer over contrast items and say how sure the accuracy is, with a bootstrap interval over items.

    Source: Weller, Lawrie and Van Durme 2024, NevIR. Paper 93; intervals and the two sides are ours.

    Raises:
        RivalsError: as `contrast_pairs`.

    >>> items = [ContrastItem(("a dog", "no dog"), ("a cat", "no cat"))] * 2
    >>> contrast_report(items, lambda q, d: [float(a[:1] == b[:1]) for a, b in zip(q, d)]).accuracy.estimate
    1.0
    """
    if not len(items):
        raise RivalsError("items holds no item")
    pairs = [(query, document) for item in items for query in item.queries for document in item.documents]
    scores = score_pairs(score, pairs, batch_size).reshape(len(items), 2, 2)
    seen = paired_preference(scores)
    both = (seen.per_item == 1).astype(np.float64)
    accuracy = bootstrap_interval(both, level=level, resamples=resamples, seed=seed)
    return ContrastReport(
        len(items),
        Interval(*map(float, accuracy)),
        float((scores[:, 0, 0] > scores[:, 0, 1]).mean()),
        float((scores[:, 1, 1] > scores[:, 1, 0]).mean()),
        seen.same_order_rate,
        seen.tie_rate,
    )
