"""Writers that need no model: change one detail of a text, or splice it with another; the same seed, the same text."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from rivals.errors import RivalsError

Kind = Literal["year", "number", "entity", "term", "negation"]

KINDS: tuple[Kind, ...] = ("year", "number", "entity", "term", "negation")

_YEAR = re.compile(r"(?<![\w.,])[12]\d{3}(?![\w]|[.,]\d)")
_NUMBER = re.compile(r"(?<![\w.,])\d+(?:,\d{3})*(?:\.\d+)?(?![\w]|[.,]\d)")
_NAME = re.compile(r"(?<=[a-z0-9,;:)] )[A-Z][\w'’-]*(?: [A-Z][\w'’-]*)*")
_AUXILIARY = re.compile(
    r"\b(?:is|are|was|were|do|does|did|can|could|will|would|should|has|have|had|may|might|must)\b(?! not\b)",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\b(?:not|never|no longer) ", re.IGNORECASE)
_WITH = re.compile(r"\b(?:without|with)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class _Span(NamedTuple):
    """A place in a text and what may stand there instead."""

    start: int
    end: int
    instead: tuple[str, ...]


class TemplateGenerator:
    """Changes exactly one detail of a text: a year, a number, a name, a term, or whether it is denied.

    The result looks like the original and, as a rule, means something else: a query that the page does not answer, or a
    passage that is wrong. Rules do not understand: verify what matters (`Verify`).

    - "year": 1000 to 2999, moved by up to nine years; "number": any other number, units untouched.
    - "entity": a capitalised name inside a sentence, or any of `entities`, replaced by another of `entities`.
    - "term": a word or phrase of a group in `terms` (such as symptoms, treatments, causes) replaced by another of it.
    - "negation": "not" put behind an auxiliary in a statement, or taken out; with and without exchanged.

    Args:
        kinds: which details to change. Those that find nothing in a text are passed over.
        change: the text that is changed, the "query" or the "positive"; variants of a positive are close to it by design,
            so write them with `TextChecks(overlap=None)`.

    Source: the one-property perturbations of DocReRank (paper 9), by rule instead of by a model.

    Raises:
        RivalsError: an unknown kind, a group of fewer than two terms, "entity" or "term" alone with nothing to swap.

    >>> writer = TemplateGenerator(terms=[["symptoms", "treatments"]])
    >>> writer.generate(["What are the symptoms of gout ?"], [""], 3, seed=0)
    [['What are the treatments of gout ?']]
    """

    def __init__(
        self,
        kinds: Sequence[Kind] = KINDS,
        *,
        terms: Sequence[Sequence[str]] = (),
        entities: Sequence[str] = (),
        change: Literal["query", "positive"] = "query",
        name: str = "templates",
    ) -> None:
        for kind in kinds:
            if kind not in KINDS:
                raise RivalsError(f"unknown kind {kind!r}; there are {', '.join(KINDS)}")
        if change not in ("query", "positive"):
            raise RivalsError(f"change must be 'query' or 'positive', not {change!r}")
        groups = [tuple(dict.fromkeys(term.strip() for term in group)) for group in terms]
        if any(len(group) < 2 or "" in group for group in groups):
            raise RivalsError("a group of terms needs two different ones, none empty")
        idle = {"term": not groups, "entity": len(set(entities)) < 2}
        if not kinds or all(idle.get(kind, False) for kind in kinds):
            raise RivalsError(
                "there is nothing to change: name kinds, and give terms for 'term', entities for 'entity'"
            )
        self.kinds, self.change, self.name = tuple(kinds), change, name
        self.entities = tuple(dict.fromkeys(entities))
        self._groups = {term.casefold(): group for group in groups for term in group}
        self._term = _any_of([term for group in groups for term in group])
        self._entity = _any_of(self.entities)

    def generate(self, queries: Sequence[str], positives: Sequence[str], n: int, *, seed: int) -> list[list[str]]:
        """Return up to `n` different variants of each text."""
        texts = queries if self.change == "query" else positives
        pairs = zip(queries, positives, strict=True)
        return [self._variants(text, n, _generator(seed, *pair)) for text, pair in zip(texts, pairs, strict=True)]

    def _variants(self, text: str, n: int, generator: np.random.Generator) -> list[str]:
        spans = [span for kind in self.kinds for span in self._spans(kind, text)]
        spans = [spans[place] for place in generator.permutation(len(spans))]
        options = [[span.instead[place] for place in generator.permutation(len(span.instead))] for span in spans]
        found: dict[str, None] = {}
        for turn in range(max(map(len, options), default=0)):  # one of each span before a second of any
            for span, instead in zip(spans, options, strict=True):
                if turn < len(instead) and len(found) < n:
                    found.setdefault(text[: span.start] + instead[turn] + text[span.end :])
        return list(found)

    def _spans(self, kind: Kind, text: str) -> Iterator[_Span]:
        if kind == "year":
            for match in _YEAR.finditer(text):
                year = int(match.group())
                years = (year + step for step in range(-9, 10) if step)
                yield _Span(*match.span(), tuple(str(other) for other in years if 1000 <= other <= 2999))
        elif kind == "number":
            for match in _NUMBER.finditer(text):
                if not _YEAR.fullmatch(match.group()):
                    yield _Span(*match.span(), _other_numbers(match.group()))
        elif kind == "entity" and len(self.entities) > 1:
            matches = {match.span(): match.group() for match in _NAME.finditer(text)}
            matches |= {match.span(): match.group() for match in self._entity.finditer(text)}
            for span, name in sorted(matches.items()):
                yield _Span(*span, tuple(other for other in self.entities if other.casefold() != name.casefold()))
        elif kind == "term" and self._groups:
            for match in self._term.finditer(text):
                word = match.group()
                others = [term for term in self._groups[word.casefold()] if term.casefold() != word.casefold()]
                yield _Span(*match.span(), tuple(_cased(term, word) for term in others))
        elif kind == "negation":
            yield from _negations(text)


class SpliceGenerator:
    """Keeps a passage's first sentence and puts sentences of another passage in the place of the others.

    The result opens like the answer and goes astray, in sentences that people wrote. It has as many sentences as the
    positive; passages of one sentence cannot be spliced and give nothing.

    Args:
        passages: where the other sentences come from, such as the documents' texts.

    Source: the offline writer for generated hard negatives, after paper 68.

    Raises:
        RivalsError: fewer than two different passages.

    >>> writer = SpliceGenerator(["Gout hurts. It passes.", "Flu is short. Rest helps."])
    >>> writer.generate(["What is gout?"], ["Gout hurts. It passes."], 1, seed=0)
    [['Gout hurts. Rest helps.']]
    """

    def __init__(self, passages: Sequence[str], *, name: str = "splice") -> None:
        self._parts = [_SENTENCE.split(" ".join(text.split())) for text in dict.fromkeys(passages)]
        if len(self._parts) < 2:
            raise RivalsError("splicing needs two different passages at least")
        self.name = name

    def generate(self, queries: Sequence[str], positives: Sequence[str], n: int, *, seed: int) -> list[list[str]]:
        """Return up to `n` different splices of each positive."""
        return [
            self._splices(positive, n, _generator(seed, query, positive))
            for query, positive in zip(queries, positives, strict=True)
        ]

    def _splices(self, positive: str, n: int, generator: np.random.Generator) -> list[str]:
        own = _SENTENCE.split(" ".join(positive.split()))
        if len(own) < 2:
            return []
        found: dict[str, None] = {}
        for _ in range(4 * n):
            fresh: list[str] = []
            for place in generator.integers(0, len(self._parts), 8):
                other = self._parts[int(place)]
                # its later sentences first: a first sentence names what its passage is about
                fresh += [part for part in [*other[1:], other[0]] if part and part not in own and part not in fresh]
                if len(fresh) >= len(own) - 1:
                    break
            if len(fresh) >= len(own) - 1:
                found.setdefault(" ".join([own[0], *fresh[: len(own) - 1]]))
            if len(found) == n:
                break
        return list(found)


def _generator(seed: int, query: str, positive: str) -> np.random.Generator:
    """A generator of the pair's own, the same in every process and block."""
    return np.random.default_rng(
        [seed, zlib.crc32(query.encode("utf-8", "replace")), zlib.crc32(positive.encode("utf-8", "replace"))]
    )


def _any_of(words: Sequence[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in longest_first) or r"(?!)", re.IGNORECASE)


def _cased(word: str, like: str) -> str:
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def _other_numbers(text: str) -> tuple[str, ...]:
    """Numbers near a number, written as it is: as many decimals, thousands parted or not."""
    plain = text.replace(",", "")
    decimals = len(plain.partition(".")[2])
    units = int(plain.replace(".", ""))
    others = dict.fromkeys([*(units + step for step in range(-9, 10)), units * 2, units * 10])
    mark = "," if "," in text else ""
    written = (f"{other / 10**decimals:{mark}.{decimals}f}" for other in others if other > 0 and other != units)
    return tuple(number for number in dict.fromkeys(written) if number != text)


def _negations(text: str) -> Iterator[_Span]:
    for match in _DENIED.finditer(text):
        yield _Span(*match.span(), ("",))
    for match in _WITH.finditer(text):
        yield _Span(
            *match.span(), (_cased("with" if match.group().lower() == "without" else "without", match.group()),)
        )
    if not text.rstrip().endswith("?"):  # in a question the subject follows the auxiliary
        for match in _AUXILIARY.finditer(text):
            yield _Span(match.end(), match.end(), (" not",))
