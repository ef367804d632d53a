"""Reading the answers of language models: yes or no, a grade, a choice among numbered candidates."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_CONCLUSION = re.compile(r"(?:final\s+)?(?:answer|verdict|conclusion)\s*(?:is)?\s*[:=]\s*", re.IGNORECASE)
_GRADED = re.compile(r"\b(?:grade|score|rating|answer)\W{0,4}(?:is|of)?\W{0,4}(\d{1,9})(?!\d)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<!\d)\d{1,9}(?!\d)")
_SELECTED = re.compile(
    r"^\W*(?:the\s+)?relevant(?:\s+(?:candidates?|passages?|documents?|numbers?))?\W{0,4}(?::|=|\bare\b|\bis\b)(.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_RANGE = re.compile(r"(?<!\d)(\d{1,9})\s*(?:-|–|to)\s*(\d{1,9})(?!\d)")
_SAYS_NOTHING = re.compile(
    r"(?:none|nothing|no\s+(?:candidate|passage|document)|n/a|0\b|\[\s*\]|\{\s*\})", re.IGNORECASE
)
_BARE_NOTHING = re.compile(r"(?:none|nothing|n/a|0|\[\s*\])\W*", re.IGNORECASE)
_ORNAMENT = " \t\n*_`\"'"
_LISTED = re.compile(r"[\s\d\[\](){},;.&–\-*]*(?:(?:and|to)[\s\d\[\](){},;.&–\-*]*)*", re.IGNORECASE)


def without_thought(text: str) -> str:
    """Return the answer without what a reasoning model thought aloud before it.

    >>> without_thought("<think>Yes? Hardly.</think> No")
    'No'
    """
    text = _THOUGHT.sub(" ", text)
    for tag in ("</think>", "</thinking>"):  # an opening tag that the prompt's template wrote itself
        text = text.rpartition(tag)[2]
    return text.strip()


def read_yes_no(text: str, yes: str = "Yes", no: str = "No") -> float:
    """Return 1.0 for yes, 0.0 for no, NaN if the text says neither or leaves it open.

    Looked at in turn: what stands behind the last "answer:"; the first word; the last line, if it holds one of the two
    words alone.

    >>> [read_yes_no(text) for text in ("Yes.", "**no**, it does not", "Hm. Answer: Yes", "perhaps")]
    [1.0, 0.0, 1.0, nan]
    """
    text = without_thought(text)
    values = {yes.casefold(): 1.0, no.casefold(): 0.0}
    word = re.compile("|".join(rf"(?<!\w){re.escape(one)}(?!\w|\s+or\s)" for one in values), re.IGNORECASE)

    def opening(part: str) -> float:
        found = word.match(part.lstrip(" \t\n\"'`*_([.:-"))
        return values[found.group().casefold()] if found else float("nan")

    concluded = _CONCLUSION.split(text)
    answer = opening(concluded[-1]) if len(concluded) > 1 else float("nan")
    answer = opening(text) if np.isnan(answer) else answer
    if np.isnan(answer) and text:
        said = {values[found.casefold()] for found in word.findall(text.splitlines()[-1])}
        answer = said.pop() if len(said) == 1 and len(text.splitlines()[-1].split()) <= 3 else answer
    return answer


def read_grade(text: str, highest: int = 3) -> float:
    """Return the grade 0..highest that the text gives, NaN if it gives none.

    The last number behind "grade", "score", "rating" or "answer" counts, else a number that the text begins with, else
    the only number in it.

    >>> [read_grade(text) for text in ("2", "Grade: 3", "I say 1", "7", "0 or 1")]
    [2.0, 3.0, 1.0, nan, 0.0]
    """
    text = without_thought(text)
    marked = _GRADED.findall(text)
    numbers = _NUMBER.findall(text)
    begins = _NUMBER.match(text.lstrip("\"'`*_(["))
    chosen = marked[-1] if marked else begins.group() if begins else numbers[0] if len(numbers) == 1 else None
    return float(chosen) if chosen is not None and int(chosen) <= highest else float("nan")


def read_selection(text: str, count: int) -> NDArray[np.bool_] | None:
    """Return which of `count` candidates, numbered from 1, the text selects, bool[count], or None if it cannot be read.

    The last line that begins with "Relevant:" counts (or the one after it, if it ends there); without one, a text that
    is a list of numbers, or "none", from end to end. Ranges such as 2-4 are understood. Numbers beyond `count` are
    passed over; if there are only such, the answer cannot be read.

    >>> read_selection("2 fits, 1 does not.\\nRelevant: [2], 3", 3).tolist()
    [False, True, True]
    >>> read_selection("Relevant: none", 2).tolist(), read_selection("I cannot say.", 2)
    ([False, False], None)
    """
    text = without_thought(text)
    given = text
    marks = list(_SELECTED.finditer(text))
    if marks:
        rest = [line for line in text[marks[-1].start(1) :].splitlines() if line.strip(_ORNAMENT)]
        given = rest[0] if rest else ""
    given = given.strip(_ORNAMENT)
    if not given or not (marks or _LISTED.fullmatch(given) or _BARE_NOTHING.fullmatch(given)):
        return None
    chosen = np.zeros(count, dtype=bool)
    numbers = {int(number) for number in _NUMBER.findall(given)}
    if not numbers - {0}:
        return chosen if _SAYS_NOTHING.match(given) else None
    for first, last in _RANGE.findall(given):
        numbers.update(range(int(first), min(int(last), count) + 1))
    inside = [number - 1 for number in numbers if 1 <= number <= count]
    if not inside or _SAYS_NOTHING.match(given):  # "none but 3" is for a person to read
        return None
    chosen[inside] = True
    return chosen
