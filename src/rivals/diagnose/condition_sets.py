"""Sets of documents with broken conditions, made from any documents: what `condition_report` runs a scorer over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rivals.diagnose.robustness.edits import sentences_of, words_of
from rivals.errors import RivalsError
from rivals.progress import progress


@dataclass(frozen=True)
class ConditionItem:
    """A document of conditions, its copies with 1, 2, ... of them broken, and queries of its first 1, 2, ... conditions.

    `chain[0]` is the document as it is; `chain[j]` has the conditions `broken[:j]` replaced. `queries[k - 1]` lists the
    first k conditions (the form of instructions), `running[k - 1]` has them in running text. `rivals[k - 1]` is the
    document with one of the first k conditions replaced, number `rival_broken[k - 1]`. Numbers count from 0.
    """

    identifier: str
    conditions: tuple[str, ...]
    queries: tuple[str, ...]
    running: tuple[str, ...]
    chain: tuple[str, ...]
    broken: tuple[int, ...]
    rivals: tuple[str, ...]
    rival_broken: tuple[int, ...]


class ConditionItems(NamedTuple):
    """What `condition_items` returns: the items, and how many documents had too few different sentences for one."""

    items: tuple[ConditionItem, ...]
    too_short: int


def condition_items(
    documents: Sequence[str],
    *,
    conditions: int = 6,
    items: int | None = None,
    ids: Sequence[str] | None = None,
    split: Callable[[str], list[str]] = sentences_of,
    donors: Callable[[str, Sequence[str]], Sequence[float]] | None = None,
    seed: int = 0,
) -> ConditionItems:
    """Make items of many conditions from your own documents: each sentence is a condition, broken by another's sentence.

    The first `conditions` different sentences of a document make its query of k = 1, 2, ... conditions. A condition is
    broken by putting the most similar sentence of other documents in its place, never one of the same words as a sentence
    of the document, so that nothing but the content tells. Which conditions break, and in which order, is drawn anew for
    every item, since poolings favour early or late sentences. Neighbours in the chain differ in exactly one sentence.

    When to use: to see whether a retriever holds on as queries grow, and for graded negatives (`graded_lists`).

    Args:
        documents: texts. ids: names of the documents, by default their number.
        conditions: how many a query has at most. items: how many to make, drawn at random; None takes all that can be.
        split: a text -> its sentences.
        donors: (sentence, other sentences) -> a similarity of each, such as an encoder's cosine; None counts common words.

    Source: Lu et al. 2025, MultiConIR, whose conditions and edits a language model writes; sentences of other documents in
    their place are ours. Paper 82.

    Raises:
        RivalsError: conditions below 1, items below 1, no document with enough sentences, ids of another number.

    >>> texts = ["Gout hurts. It is treated.", "Flu hurts less. It is mild.", "Acne itches. It is treated well."]
    >>> item = condition_items(texts, conditions=2, items=1, seed=1).items[0]
    >>> len(item.chain), item.queries[0], item.running[1] == " ".join(item.conditions)
    (3, '1. Gout hurts.', True)
    """
    if conditions < 1 or (items is not None and items < 1):
        raise RivalsError(f"conditions is {conditions} and items {items}; both must be 1 or more")
    names = [str(row) for row in range(len(documents))] if ids is None else [str(name) for name in ids]
    if len(names) != len(documents):
        raise RivalsError(f"{len(names)} ids were given for {len(documents)} documents")
    parts = [split(text) for text in documents]
    enough = [row for row, found in enumerate(parts) if len(_different(found)) >= conditions]
    pool = _different([sentence for found in parts for sentence in found])
    if not enough or len(pool) < 2 * conditions:
        raise RivalsError(
            f"none of the {len(documents)} documents has {conditions} different sentences and others to break them with; "
            "ask for fewer conditions, or give longer documents"
        )
    rng = np.random.default_rng(seed)
    chosen = enough if items is None else sorted(rng.permutation(enough)[:items].tolist())
    nearest = _Donors(list(pool.values()), donors)
    made = []
    with progress("Items of many conditions", len(chosen)) as advance:
        for row in chosen:
            made.append(_item(names[row], parts[row], conditions, nearest, rng))
            advance(1)
    return ConditionItems(tuple(made), len(documents) - len(enough))


def graded_lists(items: Sequence[ConditionItem]) -> list[tuple[str, tuple[str, ...], tuple[float, ...]]]:
    """Return (query of all conditions, documents of the chain, relevance K..0): graded negatives for list-wise training.

    >>> item = ConditionItem("a", ("x.",), ("1. x.",), ("x.",), ("x.", "y."), (0,), ("y.",), (0,))
    >>> graded_lists([item])
    [('1. x.', ('x.', 'y.'), (1.0, 0.0))]
    """
    return [
        (item.queries[-1], item.chain, tuple(float(len(item.chain) - 1 - j) for j in range(len(item.chain))))
        for item in items
    ]


class _Donors:
    """The sentences of all documents, and which is most like a given one."""

    def __init__(self, pool: list[str], similarity: Callable[[str, Sequence[str]], Sequence[float]] | None) -> None:
        self.pool, self.similarity = pool, similarity
        if similarity is None:
            from scipy.sparse import csr_matrix

            words = [sorted({word.lower() for word in words_of(sentence)}) for sentence in pool]
            number: dict[str, int] = {}
            columns = [number.setdefault(word, len(number)) for group in words for word in group]
            rows = np.repeat(np.arange(len(pool)), [len(group) for group in words])
            holders = np.bincount(columns, minlength=len(number))
            weights = np.log((1 + len(pool)) / (1 + holders[columns])) + 1
            matrix = csr_matrix((weights, (rows, columns)), shape=(len(pool), len(number)))
            norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
            self.matrix = csr_matrix(matrix.multiply(1 / np.maximum(norms, 1e-12)[:, None]))
        self.place = {_key(sentence): row for row, sentence in enumerate(pool)}

    def most_like(self, sentence: str, taken: set[str]) -> str:
        """Return the sentence most similar to one, none of the keys `taken`; the first in order among equals."""
        if self.similarity is not None:
            likeness = np.array(self.similarity(sentence, self.pool), dtype=np.float64)
            if likeness.shape != (len(self.pool),):
                raise RivalsError(f"donors returned shape {likeness.shape} for {len(self.pool)} sentences")
        else:
            likeness = (self.matrix @ self.matrix[self.place[_key(sentence)]].T).toarray().ravel()
        likeness[[self.place[one] for one in taken if one in self.place]] = -np.inf
        best = int(likeness.argmax())
        if likeness[best] == -np.inf:
            raise RivalsError(
                "there are not enough sentences in other documents to break every condition with another one"
            )
        return self.pool[best]


def _key(sentence: str) -> str:
    """What makes two sentences the same: their words in order, whatever the case and the marks."""
    return " ".join(words_of(sentence.lower()))


def _different(sentences: Sequence[str]) -> dict[str, str]:
    """The first sentence of each key; those without a word are left out."""
    found: dict[str, str] = {}
    for sentence in sentences:
        found.setdefault(_key(sentence), sentence)
    found.pop("", None)
    return found


def _item(name: str, parts: list[str], conditions: int, donors: _Donors, rng: np.random.Generator) -> ConditionItem:
    own = list(_different(parts).values())[:conditions]
    where = [parts.index(sentence) for sentence in own]
    taken = {_key(sentence) for sentence in parts}
    instead = []
    for sentence in own:  # none is used twice, so that broken conditions stay broken in their own ways
        other = donors.most_like(sentence, taken)
        taken.add(_key(other))
        instead.append(other)

    def broken_by(numbers: Sequence[int]) -> str:
        changed = list(parts)
        for number in numbers:
            changed[where[number]] = instead[number]
        return " ".join(changed)

    broken = tuple(rng.permutation(conditions).tolist())
    one = tuple(int(rng.integers(k + 1)) for k in range(conditions))
    return ConditionItem(
        name,
        tuple(own),
        tuple(" ".join(f"{i + 1}. {sentence}" for i, sentence in enumerate(own[:k])) for k in range(1, conditions + 1)),
        tuple(" ".join(own[:k]) for k in range(1, conditions + 1)),
        tuple(broken_by(broken[:j]) for j in range(conditions + 1)),
        broken,
        tuple(broken_by([number]) for number in one),
        one,
    )
