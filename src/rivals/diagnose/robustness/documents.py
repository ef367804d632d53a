"""Changes of documents: relevant ones made harder to find, near-duplicates beside them, rivals dressed up to rise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rivals.data.collection import Collection
from rivals.data.dataset import Dataset
from rivals.data.run import Run
from rivals.diagnose.robustness.edits import sentences_of, text_generator, words_of
from rivals.diagnose.robustness.queries import TextChange
from rivals.errors import RivalsError

if TYPE_CHECKING:
    from rivals.negatives.generating import Generator

Where = Literal["front", "back"]


@dataclass(frozen=True, eq=False)
class ChangedDocuments:
    """What a change of documents gives: the collection, old rows kept and new ones behind them.

    `query` int64[m] are the query rows a change was made for, `original` and `changed` the texts of one document each,
    and `rival` int64[m] the row of the document that was to rise, or -1 where it is a relevant one that may fall.
    """

    documents: Collection
    query: NDArray[np.int64]
    original: tuple[str, ...]
    changed: tuple[str, ...]
    rival: NDArray[np.int64]


class DocumentChange(ABC):
    """Changes documents around the queries of a data set; the system is then made anew over them."""

    keeps_meaning: ClassVar[bool] = True

    @property
    @abstractmethod
    def name(self) -> str:
        """What reports call it."""

    def against(self, system: Any) -> DocumentChange:
        """Return the change as it is made against a system; most are the same against all."""
        return self

    @abstractmethod
    def __call__(self, dataset: Dataset, run: Run, *, seed: int = 0) -> ChangedDocuments:
        """Return the changed documents. `run` holds what the system finds in the unchanged ones, over the same queries."""


@dataclass(frozen=True, eq=False)
class ChangeRelevant(DocumentChange):
    """Every relevant document changed by a change of texts, such as `Typos(edits=20)` or `ReplaceSynonyms(table, 10)`.

    When to use: documents that come from scans, speech or many hands.

    >>> from rivals.diagnose.robustness.queries import ChangeCase
    >>> ChangeRelevant(ChangeCase("upper")).name
    'relevant documents: upper case'
    """

    change: TextChange

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"relevant documents: {self.change.name}"

    def __call__(self, dataset: Dataset, run: Run, *, seed: int = 0) -> ChangedDocuments:
        """Return the documents with the relevant ones changed."""
        rows, texts = relevant_rows(dataset), dataset.documents.texts
        return _relevant_changed(dataset, rows, self.change([texts[row] for row in rows.tolist()], seed=seed))


@dataclass(frozen=True)
class PadPassages(DocumentChange):
    """Every relevant document gets sentences of other documents in front of it or behind it.

    What is relevant in it stays; a system that looks at the beginning alone, or averages all tokens, loses it.

    Raises:
        RivalsError: sentences below 1, an unknown `where`; when called, no other document to take sentences from.

    >>> PadPassages(2).name
    'padded in front x2'
    """

    sentences: int = 3
    where: Where = "front"

    def __post_init__(self) -> None:
        check_count(self.sentences, "sentences", self.where)

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"padded {_WORDS[self.where]} x{self.sentences}"

    def __call__(self, dataset: Dataset, run: Run, *, seed: int = 0) -> ChangedDocuments:
        """Return the documents with the relevant ones padded."""
        rows, texts = relevant_rows(dataset), dataset.documents.texts
        relevant = set(rows.tolist())
        others = [row for row in range(len(texts)) if row not in relevant and texts[row].strip()]
        if not others:
            raise RivalsError("every document is relevant to some query; there is none to take sentences from")
        padded = []
        for row in rows.tolist():
            rng = text_generator(seed, self.name, texts[row])
            parts: list[str] = []
            for donor in rng.permutation(others)[: 4 * self.sentences].tolist():
                found = sentences_of(texts[donor])
                parts.append(found[int(rng.integers(len(found)))] if found else texts[donor].strip())
                if len(parts) == self.sentences:
                    break
            padded.append(joined(texts[row], " ".join(parts), self.where))
        return _relevant_changed(dataset, rows, padded)


@dataclass(frozen=True, eq=False)
class NearDuplicates(DocumentChange):
    """Beside every relevant document `copies` near-duplicates that are not relevant, new documents written by `generator`.

    By default one detail is changed (a year, a number, a negation; English rules), and where there is none, the first
    sentence is kept and the others come from elsewhere. Rules do not understand: a copy with another number may answer a
    question that does not ask for it, so look at the worst queries before blaming the system.

    Raises:
        RivalsError: copies below 1.

    >>> NearDuplicates().name
    'near-duplicates'
    """

    copies: int = 1
    generator: Generator | None = None

    def __post_init__(self) -> None:
        check_count(self.copies, "copies", "front")

    @property
    def name(self) -> str:
        """What reports call it."""
        return "near-duplicates" if self.copies == 1 else f"near-duplicates x{self.copies}"

    def __call__(self, dataset: Dataset, run: Run, *, seed: int = 0) -> ChangedDocuments:
        """Return the documents with near-duplicates behind them."""
        from rivals.negatives.generating.writing import extended, fresh_ids

        rows, texts = relevant_rows(dataset), dataset.documents.texts
        own = [texts[row] for row in rows.tolist()]
        written = self._written(own, texts, seed)
        owners = [row for row, group in zip(rows.tolist(), written, strict=True) for _ in group]
        copies = [text for group in written for text in group]
        documents = dataset.documents
        if copies:
            ids = fresh_ids(documents, [str(documents.ids[row]) for row in owners])
            documents = extended(documents, ids, copies, _titles(documents, owners))
        first = {row: copies[place] for place, row in reversed(list(enumerate(owners)))}
        return _per_query(dataset, documents, first, -1)

    def _written(self, own: Sequence[str], texts: Sequence[str], seed: int) -> list[list[str]]:
        from rivals.negatives.generating import SpliceGenerator, TemplateGenerator

        if self.generator is not None:
            return self.generator.generate([""] * len(own), own, self.copies, seed=seed)
        rules = TemplateGenerator(("year", "number", "negation"), change="positive")
        written = rules.generate([""] * len(own), own, self.copies, seed=seed)
        bare = [place for place, group in enumerate(written) if not group]
        if bare and len(set(texts)) > 1:
            spliced = SpliceGenerator(texts).generate(
                [""] * len(bare), [own[place] for place in bare], self.copies, seed=seed
            )
            for place, group in zip(bare, spliced, strict=True):
                written[place] = group
        return written


@dataclass(frozen=True)
class StuffKeywords(DocumentChange):
    """For every query one document that does not answer it gets the query's words, `times` times over.

    The document is drawn from those the system finds below `below`, so that it has something to gain; no document is
    taken twice. The report says how many of them reached the first 10 and what that cost the relevant ones.

    Source: keyword stuffing, as labelled in the document changes of paper 55.

    Raises:
        RivalsError: times below 1, below less than 0, an unknown `where`.

    >>> StuffKeywords().name
    'keyword stuffing x3'
    """

    times: int = 3
    where: Where = "front"
    below: int = 10

    def __post_init__(self) -> None:
        check_count(self.times, "times", self.where)
        check_below(self.below)

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"keyword stuffing x{self.times}"

    def __call__(self, dataset: Dataset, run: Run, *, seed: int = 0) -> ChangedDocuments:
        """Return the documents with one rival a query stuffed."""

        def stuff(query: str, text: str, rng: np.random.Generator) -> str:
            return joined(text, " ".join([query.strip()] * self.times), self.where)

        return _rivals_changed(dataset, run, stuff, self.name, self.below, seed)


@dataclass(frozen=True)
class SubstituteWords(DocumentChange):
    """For every query one document that does not answer it has `words` of its words replaced by words of the query.

    Rivals are drawn as by `StuffKeywords`; the text keeps its length, so that this is harder to spot. The places are
    drawn at random, without asking the system: a floor of what one who may ask can do (`SearchSubstitutions`).

    Source: the word-substitution attacks on rankers that paper 55's discussion builds on; without their search.

    Raises:
        RivalsError: words below 1, below less than 0.

    >>> SubstituteWords(4).name
    'substituted words x4'
    """

    words: int = 5
    below: int = 10

    def __post_init__(self) -> None:
        check_count(self.words, "words", "front")
        check_below(self.below)

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"substituted words x{self.words}"

    def __call__(self, dataset: Dataset, run: Run, *, seed: int = 0) -> ChangedDocuments:
        """Return the documents with words of one rival a query replaced."""

        def substitute(query: str, text: str, rng: np.random.Generator) -> str:
            asked, parts = words_of(query), text.split()
            if not asked or not parts:
                return text
            for place in rng.permutation(len(parts))[: self.words].tolist():
                parts[place] = asked[int(rng.integers(len(asked)))]
            return " ".join(parts)

        return _rivals_changed(dataset, run, substitute, self.name, self.below, seed)


_WORDS = {"front": "in front", "back": "behind"}


def relevant_rows(dataset: Dataset) -> NDArray[np.int64]:
    """Return the rows of the documents that are relevant to a query, each once."""
    return np.unique(dataset.judgements.positives.document)


def with_texts(members: Collection, rows: Sequence[int], texts: Sequence[str]) -> Collection:
    """Return the collection with other texts in some rows.

    >>> with_texts(Collection(["a", "b"], ["x", "y"]), [1], ["z"]).texts
    ['x', 'z']
    """
    import pyarrow as pa

    column = list(members.texts)
    for row, text in zip(rows, texts, strict=True):
        column[row] = text
    place = members.table.column_names.index("text")
    table = members.table.set_column(place, "text", pa.array(column, pa.large_string()))
    return Collection.from_table(table, name=members.name)


def joined(text: str, more: str, where: Where) -> str:
    """Return a text with another in front of it or behind it."""
    return f"{more} {text}" if where == "front" else f"{text} {more}"


def _relevant_changed(dataset: Dataset, rows: NDArray[np.int64], changed: Sequence[str]) -> ChangedDocuments:
    texts = dataset.documents.texts
    moved = {row: text for row, text in zip(rows.tolist(), changed, strict=True) if text != texts[row]}
    return _per_query(dataset, with_texts(dataset.documents, list(moved), list(moved.values())), moved, -1)


def _per_query(dataset: Dataset, documents: Collection, moved: dict[int, str], rival: int) -> ChangedDocuments:
    """Tell for every query that has a moved relevant document the first of them."""
    known, texts = dataset.judgements.positives, dataset.documents.texts
    query, document = known.query.tolist(), known.document.tolist()
    first: dict[int, int] = {}
    for asked, row in zip(query, document, strict=True):
        if row in moved:
            first.setdefault(asked, row)
    rows = np.fromiter(first, dtype=np.int64, count=len(first))
    originals, changes = tuple(texts[row] for row in first.values()), tuple(moved[row] for row in first.values())
    return ChangedDocuments(documents, rows, originals, changes, np.full(len(rows), rival, np.int64))


def choose_rivals(
    dataset: Dataset, run: Run, name: str, below: int, seed: int
) -> list[tuple[int, int, np.random.Generator]]:
    """Return (query row, document row, random numbers) of one document a query: not judged relevant to any, found below a rank.

    No document is taken twice; a query for which none is left has no entry.
    """
    texts, queries = dataset.documents.texts, dataset.queries.full_texts
    taken = set(relevant_rows(dataset).tolist())
    free = np.flatnonzero(~np.isin(np.arange(len(texts)), list(taken)))
    chosen = []
    for row, query in enumerate(queries):
        rng = text_generator(seed, name, query)
        found = run.document[run.offsets[row] + below : run.offsets[row + 1]]
        options = [d for d in rng.permutation(found).tolist() if d not in taken and texts[d].strip()]
        if not options:  # nothing is found so far down: any document that no query needs
            options = [d for d in free[rng.integers(0, len(free), 8)].tolist() if d not in taken] if len(free) else []
        if options:
            taken.add(options[0])
            chosen.append((row, options[0], rng))
    return chosen


def rivals_changed(
    dataset: Dataset, chosen: Sequence[tuple[int, int, np.random.Generator]], changed: Sequence[str]
) -> ChangedDocuments:
    """Return the documents with the texts of chosen rivals replaced."""
    texts, rivals = dataset.documents.texts, [rival for _, rival, _ in chosen]
    return ChangedDocuments(
        with_texts(dataset.documents, rivals, changed),
        np.array([row for row, _, _ in chosen], np.int64),
        tuple(texts[rival] for rival in rivals),
        tuple(changed),
        np.array(rivals, np.int64),
    )


def _rivals_changed(
    dataset: Dataset,
    run: Run,
    change: Callable[[str, str, np.random.Generator], str],
    name: str,
    below: int,
    seed: int,
) -> ChangedDocuments:
    """Change one document a query, each by itself."""
    texts, queries = dataset.documents.texts, dataset.queries.full_texts
    chosen = choose_rivals(dataset, run, name, below, seed)
    return rivals_changed(dataset, chosen, [change(queries[row], texts[rival], rng) for row, rival, rng in chosen])


def _titles(documents: Collection, owners: Sequence[int]) -> dict[str, list[str]]:
    """A copy carries its original's title: a near-duplicate that lacked it would be easy to tell."""
    if "title" not in documents.table.column_names:
        return {}
    titles = documents.table["title"].to_pylist()
    return {"title": [titles[row] or "" for row in owners]}


def check_count(count: int, name: str, where: str) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise RivalsError(f"{name} must be a whole number, 1 or more, not {count!r}")
    if where not in _WORDS:
        raise RivalsError(f"where is {where!r}; it can be 'front' or 'back'")


def check_below(below: int) -> None:
    if below < 0:
        raise RivalsError(f"below is {below}; it is a rank, 0 or more")
