"""`leakage_report`: what the splits of a dataset, or two datasets, share, word for word or nearly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals.data.collection import Collection, normalise_text
from rivals.data.dataset import Dataset
from rivals.errors import RivalsError

_BLOCK = 512


@dataclass(frozen=True)
class Overlap:
    """How many `what` ("queries", "relevant documents" or "topics") of split `second` are in split `first` too.

    `exact` counts equal normalised texts, `near` those that are only nearly equal, of `total`; `examples` holds up to
    five (id in `first`, id in `second`, Jaccard similarity), the least similar exact ones last.
    """

    what: str
    first: str
    second: str
    total: int
    exact: int
    near: int
    examples: tuple[tuple[str, str, float], ...] = ()


@dataclass(frozen=True)
class LeakageReport:
    """The overlaps of all pairs of splits; prints as one line each.

    >>> print(LeakageReport(0.8, (Overlap("queries", "train", "test", 850, 2, 5),)))
    queries of test that are in train too: 2 word for word, 5 nearly (similarity >= 0.8), of 850
    """

    threshold: float
    overlaps: tuple[Overlap, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is shared."""
        return not any(overlap.exact or overlap.near for overlap in self.overlaps)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> LeakageReport:
        """Read what `to_json` returned, also after a way through a file.

        >>> LeakageReport.from_json(LeakageReport(0.8, (Overlap("queries", "train", "test", 9, 1, 0),)).to_json()).clean
        False
        """
        rows = [
            {**row, "examples": tuple((a, b, float(c)) for a, b, c in row["examples"])} for row in content["overlaps"]
        ]
        return cls(float(content["threshold"]), tuple(Overlap(**row) for row in rows))

    def __str__(self) -> str:
        return "\n".join(
            f"{overlap.what} of {overlap.second} that are in {overlap.first} too: {overlap.exact:,} word for word, "
            f"{overlap.near:,} nearly (similarity >= {self.threshold:g}), of {overlap.total:,}"
            for overlap in self.overlaps
        )


def leakage_report(dataset: Dataset, *, threshold: float = 0.8, topic: str = "topic") -> LeakageReport:
    """Report which queries, relevant documents and topics of one split appear, exactly or nearly, in another.

    Two texts are nearly equal if |A and B| / |A or B| >= threshold for their sets of 5-grams: of characters for
    queries and topics, of words for documents, after `normalise_text`. All such pairs are found: candidates come from
    prefix filtering, which misses none, and are then compared exactly. A document that is relevant in both splits
    counts as exact. Topics are the different values of a query column and are left out where there is none.

    Use it before believing a test figure. Source: Jaccard join by prefix filtering, Chaudhuri, Ganti and Kaushik,
    2006, and Bayardo, Ma and Srikant, 2007.

    Args:
        topic: the query column that holds topics.

    Raises:
        RivalsError: fewer than two splits, or a threshold outside (0, 1].

    >>> from rivals.data import Judgements
    >>> queries = Collection(["a", "b"], ["What is glaucoma?", "what is  glaucoma?"], name="query")
    >>> judged = Judgements.build([0, 1], [0, 1], [1, 1], queries=2, documents=2)
    >>> documents = Collection(["x", "y"], ["A disease of the eye.", "It harms the optic nerve."])
    >>> report = leakage_report(Dataset(queries, documents, judged, {"train": np.array([0]), "test": np.array([1])}))
    >>> [(overlap.what, overlap.exact, overlap.near) for overlap in report.overlaps]
    [('queries', 1, 0), ('relevant documents', 0, 0)]
    """
    if len(dataset.splits) < 2:
        raise RivalsError(f"leakage is between splits; the dataset has {len(dataset.splits)}")
    order = {"train": 0, "dev": 1, "test": 2}
    names = sorted(dataset.splits, key=lambda name: order.get(name, 3))
    parts = {name: dataset.split(name) for name in names}
    overlaps = []
    for first, second in combinations(names, 2):
        overlaps += _overlaps((first, parts[first]), (second, parts[second]), threshold, topic)
    return LeakageReport(threshold, tuple(overlaps))


def leakage_between(train: Dataset, test: Dataset, *, threshold: float = 0.8, topic: str = "topic") -> LeakageReport:
    """Report what two data sets share, as `leakage_report` does for the splits of one: "train" and "test".

    Sides without texts are left out: documents that have only ids, as those of run files, are compared by nothing. Use
    it where a model was trained on other files than it is tested on.

    Raises:
        RivalsError: a threshold outside (0, 1]; the data sets have no texts and no topics in common to compare.

    >>> from rivals.data import Judgements
    >>> def data(query, document):
    ...     return Dataset(
    ...         Collection(["q"], [query], name="query"),
    ...         Collection(["d"], [document]),
    ...         Judgements.build([0], [0], [1], queries=1, documents=1),
    ...     )
    >>> print(leakage_between(data("who?", "It is me."), data("Who?", "It was you.")))
    queries of test that are in train too: 1 word for word, 0 nearly (similarity >= 0.8), of 1
    relevant documents of test that are in train too: 0 word for word, 0 nearly (similarity >= 0.8), of 1
    """
    overlaps = _overlaps(("train", train), ("test", test), threshold, topic)
    if not overlaps:
        raise RivalsError(
            "nothing can be compared with the training data: neither queries nor documents have texts on both sides"
        )
    return LeakageReport(threshold, tuple(overlaps))


def _overlaps(first: tuple[str, Dataset], second: tuple[str, Dataset], threshold: float, topic: str) -> list[Overlap]:
    """The overlaps of two data sets: queries, relevant documents, topics, as far as both have them."""
    if not 0 < threshold <= 1:
        raise RivalsError(f"the threshold {threshold} must be above 0 and at most 1")
    names, sides = (first[0], second[0]), (first[1], second[1])
    kinds: list[tuple[str, list[Collection]]] = []
    if all(side.queries.has_texts for side in sides):
        kinds.append(("queries", [side.queries for side in sides]))
    if all(side.documents.has_texts for side in sides):
        relevant = [side.documents.take(np.unique(side.judgements.positives.document)) for side in sides]
        kinds.append(("relevant documents", relevant))
    if all(topic in side.queries.table.column_names for side in sides):
        kinds.append(("topics", [_topics(side.queries, topic) for side in sides]))
    return [_overlap(what, names, members, threshold) for what, members in kinds]


def _topics(queries: Collection, column: str) -> Collection:
    """The different topics of the queries, each its own id and text."""
    values = queries.table[column].to_pylist()
    different = list(dict.fromkeys(str(value) for value in values if value not in (None, "")))
    return Collection(different, different, name="topic")


def _overlap(what: str, names: tuple[str, str], members: Sequence[Collection], threshold: float) -> Overlap:
    left: dict[str, int] = {}
    for row, text in enumerate(members[0].full_texts):
        left.setdefault(normalise_text(text), row)
    exact: list[tuple[int, int]] = []
    right: dict[str, list[int]] = {}
    for row, original in enumerate(members[1].full_texts):
        text = normalise_text(original)
        if text in left:
            exact.append((left[text], row))
        else:
            right.setdefault(text, []).append(row)
    shingles = _words if what == "relevant documents" else _characters
    best = _near([shingles(text) for text in left], [shingles(text) for text in right], threshold)
    left_rows, right_rows = list(left.values()), list(right.values())
    near = sum(len(right_rows[there]) for there in best)
    pairs = [(left_rows[here], right_rows[there][0], score) for there, (here, score) in best.items()]
    pairs = [*sorted(pairs, key=lambda pair: -pair[2]), *((here, there, 1.0) for here, there in exact)]
    examples = tuple(
        (str(members[0].ids[here]), str(members[1].ids[there]), round(score, 4)) for here, there, score in pairs[:5]
    )
    return Overlap(what, *names, len(members[1]), len(exact), near, examples)


def _characters(text: str) -> set[str]:
    return {text[i : i + 5] for i in range(len(text) - 4)} or {text}


def _words(text: str) -> set[str]:
    words = text.split(" ")
    return {" ".join(words[i : i + 5]) for i in range(len(words) - 4)} or {text}


def _near(left: Sequence[set[str]], right: Sequence[set[str]], threshold: float) -> dict[int, tuple[int, float]]:
    """Return for every right set with a similar enough left set: (the most similar left set, similarity)."""
    from scipy.sparse import csr_matrix

    if not left or not right:
        return {}
    number: dict[str, int] = {}
    flat = np.fromiter((number.setdefault(s, len(number)) for group in (*left, *right) for s in group), dtype=np.int64)
    lengths = np.fromiter((len(group) for group in (*left, *right)), dtype=np.int64)
    rarity = np.empty(len(number), np.int64)
    rarity[np.argsort(np.bincount(flat), kind="stable")] = np.arange(len(number))
    owner = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((rarity[flat], owner))
    flat, starts = flat[order], np.concatenate(([0], np.cumsum(lengths)))
    # Two sets with similarity >= t share at least one of the rarest |A| - ceil(t |A|) + 1 members of each.
    prefix = lengths - np.ceil(threshold * lengths - 1e-9).astype(np.int64) + 1
    inside = np.arange(len(flat)) - starts[owner] < prefix[owner]

    def matrix(chosen: NDArray[np.bool_]) -> Any:
        ones = np.ones(int(chosen.sum()), np.int32)
        return csr_matrix((ones, (owner[chosen], flat[chosen])), shape=(len(lengths), len(number)))

    every, rare = matrix(np.ones(len(flat), bool)), matrix(inside)
    found: dict[int, tuple[int, float]] = {}
    rare_left = rare[: len(left)].T.tocsr()
    for begin in range(0, len(right), _BLOCK):
        block = np.arange(begin, min(begin + _BLOCK, len(right))) + len(left)
        candidates = (rare[block] @ rare_left).tocoo()
        here, there = candidates.col.astype(np.int64), block[candidates.row]
        sizes = (
            np.minimum(lengths[here], lengths[there]) >= threshold * np.maximum(lengths[here], lengths[there]) - 1e-9
        )
        here, there = here[sizes], there[sizes]
        shared = np.asarray(every[here].multiply(every[there]).sum(axis=1)).ravel()
        similarity = shared / (lengths[here] + lengths[there] - shared)
        for a, b, score in zip(here.tolist(), (there - len(left)).tolist(), similarity.tolist(), strict=True):
            if score >= threshold - 1e-9 and score > found.get(b, (0, 0.0))[1]:
                found[b] = (a, score)
    return found
