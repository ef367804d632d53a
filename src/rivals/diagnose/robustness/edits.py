"""One small edit of a text, of characters or of words, drawn by a generator: what perturbations are made of."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rivals.errors import RivalsError

Synonyms = Mapping[str, Sequence[str]]

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_SHORTEST = 4  # characters of shorter words are left alone


def words_of(text: str) -> list[str]:
    """Return the words of a text as they stand, in order: runs of letters and digits of any script.

    >>> words_of("It's non-toxic, is it?")
    ["It's", 'non-toxic', 'is', 'it']
    """
    return _WORD.findall(text)


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a text: parted behind . ! ? and a blank, or behind their full-width forms.

    >>> sentences_of("It hurts. Does it pass? Yes")
    ['It hurts.', 'Does it pass?', 'Yes']
    """
    return [part.strip() for part in _SENTENCE.split(text) if part.strip()]


def text_generator(seed: int, name: str, text: str) -> np.random.Generator:
    """Return a generator of the text's own: the same in every process, whatever texts stand beside it."""
    return np.random.default_rng(
        [seed, zlib.crc32(name.encode()), zlib.crc32(text.encode("utf-8", "surrogatepass")), len(text)]
    )


def perturb(text: str, operator: str, rng: np.random.Generator, *, synonyms: Synonyms | None = None) -> str:
    """Return the text after one edit; where there is no place for it, the text as it is.

    Of characters, always inside a word of four letters or more, its first and last character kept: "insert" (a letter of
    the text), "delete", "swap" (two neighbours), "keyboard" (a key beside it; where the letter is on no Latin keyboard,
    another letter of the text). Of words: "drop_word" (never the last one left), "swap_words" (two neighbours),
    "synonym" (from `synonyms`, lower-case word -> others).

    Source: the query attacks of Wu et al. 2022 (paper 55); which words and characters are spared is ours.

    Raises:
        RivalsError: an unknown operator; "synonym" without a table.

    >>> perturb("glaucoma", "delete", np.random.default_rng(0))
    'glaucoa'
    >>> perturb("eye pain", "swap_words", np.random.default_rng(0))
    'pain eye'
    """
    if operator not in OPERATORS and operator != "synonym":
        raise RivalsError(f"operator is {operator!r}; it can be {', '.join(OPERATORS)} or synonym")
    if operator == "synonym":
        if not synonyms:
            raise RivalsError("operator 'synonym' needs a table of synonyms; give one, or make it with corpus_synonyms")
        return replace_words(text, rng, synonyms)
    return OPERATORS[operator](text, rng)


def replace_words(text: str, rng: np.random.Generator, table: Synonyms, count: int = 1) -> str:
    """Return the text with up to `count` of its words that the table knows replaced by one of their synonyms each, the
    case of the first letter kept.

    >>> replace_words("Severe pain", np.random.default_rng(0), {"severe": ["strong"]})
    'Strong pain'
    """
    found = [match for match in _WORD.finditer(text) if table.get(match[0].lower())]
    for place in sorted(rng.permutation(len(found))[:count].tolist(), reverse=True):  # from the end, so places stay
        match = found[place]
        others = table[match[0].lower()]
        other = cased_like(others[int(rng.integers(len(others)))], match[0])
        text = text[: match.start()] + other + text[match.end() :]
    return text


def cased_like(word: str, like: str) -> str:
    """Return a word with a capital where `like` has one in front."""
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def _insert(text: str, rng: np.random.Generator) -> str:
    place = _inside(text, rng)
    return text if place is None else text[:place] + _letter(text, rng) + text[place:]


def _delete(text: str, rng: np.random.Generator) -> str:
    place = _inside(text, rng)
    return text if place is None else text[:place] + text[place + 1 :]


def _swap(text: str, rng: np.random.Generator) -> str:
    places = [
        place
        for match in _long_words(text)
        for place in range(match.start() + 1, match.end() - 2)
        if text[place] != text[place + 1]
    ]
    if not places:
        return text
    place = places[int(rng.integers(len(places)))]
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]


def _keyboard(text: str, rng: np.random.Generator) -> str:
    place = _inside(text, rng)
    if place is None:
        return text
    old = text[place]
    near = _NEIGHBOURS.get(old.lower()) or "".join(sorted({c for c in text.lower() if c.isalnum()} - {old.lower()}))
    if not near:
        return text
    new = near[int(rng.integers(len(near)))]
    return text[:place] + (new.upper() if old.isupper() else new) + text[place + 1 :]


def _drop_word(text: str, rng: np.random.Generator) -> str:
    found = list(_WORD.finditer(text))
    if len(found) < 2:
        return text
    match = found[int(rng.integers(len(found)))]
    return (text[: match.start()].rstrip() + " " + text[match.end() :].lstrip()).strip()


def _swap_words(text: str, rng: np.random.Generator) -> str:
    found = list(_WORD.finditer(text))
    places = [place for place in range(len(found) - 1) if found[place][0] != found[place + 1][0]]
    if not places:
        return text
    place = places[int(rng.integers(len(places)))]
    one, two = found[place], found[place + 1]
    return text[: one.start()] + two[0] + text[one.end() : two.start()] + one[0] + text[two.end() :]


OPERATORS: dict[str, Callable[[str, np.random.Generator], str]] = {
    "insert": _insert,
    "delete": _delete,
    "swap": _swap,
    "keyboard": _keyboard,
    "drop_word": _drop_word,
    "swap_words": _swap_words,
}
"""The edits that need nothing but the text, by name."""

TYPOS = ("insert", "delete", "swap", "keyboard")


def _neighbours() -> dict[str, str]:
    """Every letter's neighbours on a Latin keyboard: beside it, and above and below."""
    at = {letter: (row, column) for row, letters in enumerate(_ROWS) for column, letter in enumerate(letters)}
    return {
        letter: "".join(
            other for other, (r, c) in at.items() if other != letter and abs(r - row) <= 1 and abs(c - column) <= 1
        )
        for letter, (row, column) in at.items()
    }


_NEIGHBOURS = _neighbours()


def _long_words(text: str) -> list[re.Match[str]]:
    return [match for match in _WORD.finditer(text) if len(match[0]) >= _SHORTEST]


def _inside(text: str, rng: np.random.Generator) -> int | None:
    """A place inside a long word, neither its first nor its last character."""
    found = _long_words(text)
    if not found:
        return None
    match = found[int(rng.integers(len(found)))]
    return int(rng.integers(match.start() + 1, match.end() - 1))


def _letter(text: str, rng: np.random.Generator) -> str:
    letters = sorted({character for character in text.lower() if character.isalpha()}) or ["x"]
    return letters[int(rng.integers(len(letters)))]
