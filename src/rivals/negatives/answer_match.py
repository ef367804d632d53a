"""`AnswerMatch`: candidates that contain an accepted answer are right, whether or not anybody judged them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rivals import lists
from rivals.data.collection import Collection
from rivals.data.pipeline import Transform
from rivals.data.run import Run
from rivals.errors import RivalsError

ANSWER = "contains an answer"
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, repr=False)
class AnswerMatch(Transform):
    """Mark candidates whose text contains an accepted answer of their query, word for word, and label them 1.

    Texts and answers are compared as sequences of words without case, accents and punctuation, so "U.S." is found in
    "the U.S. Army" and "art" is not found in "heart". A query without answers is left as it is.

    Use it for questions with short answers (names, dates, numbers), in front of a sampler: a passage that holds the answer
    is no negative. With long answers nothing matches; take `PositiveAware` or a judge then.

    Args:
        answers: query id -> its accepted answers.

    Source: Karpukhin et al. 2020 (DPR), section 4; in the refreshes of AR2 (paper 11) and SimANS (paper 10).

    Raises:
        RivalsError: an answer that is one text instead of a list of texts or holds no word; on a run: documents without
            texts.

    >>> from rivals.data import Run
    >>> documents = Collection(["a", "b"], ["Born in Ulm, 1879.", "Moved to Berlin."])
    >>> run = Run.build(Collection(["q"]), documents, [0, 2], [0, 1], [.2, .1])
    >>> marked = AnswerMatch({"q": ["1879", "March 1879"]})(run)
    >>> marked.keep.tolist(), marked.label.tolist()
    ([False, True], [1, -1])
    """

    answers: Mapping[str, Sequence[str]]
    _words: dict[str, list[tuple[str, ...]]] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        words = {}
        for query, given in self.answers.items():
            if isinstance(given, str):
                raise RivalsError(f"the answers of query '{query}' are one text; give a list of texts")
            words[query] = [_words(answer) for answer in given]
            if () in words[query]:
                raise RivalsError(
                    f"query '{query}' has the answer '{given[words[query].index(())]}', which holds no word"
                )
        object.__setattr__(self, "_words", words)

    def __repr__(self) -> str:
        return f"AnswerMatch({len(self.answers)} queries)"

    def __call__(self, run: Run) -> Run:
        if not run.documents.has_texts:
            raise RivalsError("AnswerMatch reads texts, but the documents have none; leave it out or load the texts")
        asked = [self._words.get(query, []) for query in run.queries.ids.tolist()]
        trie, number = _Trie.of(words for several in asked for words in several)
        contains = trie.occurrences(run.documents, np.unique(run.document))
        offsets = lists.offsets_from_lengths(np.array([len(several) for several in asked], np.int64))
        index, of_row = lists.take_segments(offsets, run.query)  # every candidate with every answer of its query
        row = lists.segment_ids(of_row)
        key = run.document[row] * np.int64(len(trie.is_end) + 1) + number[index]
        found = np.zeros(len(run), dtype=bool)
        if len(contains):
            place = np.minimum(np.searchsorted(contains, key), len(contains) - 1)
            found[row[contains[place] == key]] = True
        return run.mark(found, ANSWER).replace(label=np.where(found, 1, run.label))


def _words(text: str) -> tuple[str, ...]:
    plain = unicodedata.normalize("NFKD", text.casefold())
    return tuple(_WORD.findall("".join(c for c in plain if not unicodedata.combining(c))))


@dataclass(frozen=True)
class _Trie:
    """All answers as paths of words from the root, node 0; `step` holds the sorted keys node * words + word, `is_end` the
    nodes that end an answer."""

    vocabulary: dict[str, int]
    step: NDArray[np.int64]
    target: NDArray[np.int64]
    is_end: NDArray[np.bool_]

    @classmethod
    def of(cls, answers: Iterable[tuple[str, ...]]) -> tuple[_Trie, NDArray[np.int64]]:
        """Return the trie and the node of every answer, in their order."""
        vocabulary: dict[str, int] = {}
        steps: dict[tuple[int, int], int] = {}
        ends = []
        for words in answers:
            node = 0
            for word in words:
                number = vocabulary.setdefault(word, len(vocabulary))
                node = steps.setdefault((node, number), len(steps) + 1)
            ends.append(node)
        is_end = np.zeros(len(steps) + 1, dtype=bool)
        is_end[ends] = True
        keys = np.array([node * len(vocabulary) + word for node, word in steps], np.int64)
        order = np.argsort(keys)
        return cls(vocabulary, keys[order], np.array(list(steps.values()), np.int64)[order], is_end), np.array(
            ends, np.int64
        )

    def occurrences(self, documents: Collection, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sorted keys document * (nodes + 1) + node of all answers that documents contain."""
        texts = documents.full_texts
        told = [[self.vocabulary.get(word, -1) for word in _words(texts[row])] for row in rows.tolist()]
        owner = np.repeat(rows, [len(words) for words in told])
        word = np.array([number for words in told for number in words], np.int64)
        # From every place at once, one word further at a time, as long as some answer goes on that way.
        place, node = np.arange(len(word)), np.zeros(len(word), np.int64)
        found = [np.zeros(0, np.int64)]
        start = place
        while len(place) and len(self.step):
            key = node * len(self.vocabulary) + word[place]
            at = np.minimum(np.searchsorted(self.step, key), len(self.step) - 1)
            goes_on = (self.step[at] == key) & (word[place] >= 0) & (owner[place] == owner[start])
            start, place, node = start[goes_on], place[goes_on], self.target[at[goes_on]]
            ends = self.is_end[node]
            found.append(owner[place[ends]] * np.int64(len(self.is_end) + 1) + node[ends])
            inside = place + 1 < len(word)
            start, place, node = start[inside], place[inside] + 1, node[inside]
        return np.unique(np.concatenate(found))


__all__ = ["ANSWER", "AnswerMatch"]
