"""Marked words (paper 119, check 7): the word comes back, both markers stay, each side keeps its share."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from rivals.errors import RivalsError
from rivals.models.target_words import mark_target


def by_words() -> Any:
    """A tokenizer whose tokens are the words between blanks and the two markers."""
    inner = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    inner.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<t>", "</t>"]})
    return tokenizer


WORDS = by_words()
LETTERS = "one two three four five six seven eight nine ten"


def test_without_a_tokenizer_nothing_is_cut() -> None:
    assert mark_target("Ein Ton.", 4, 7) == "Ein <t>Ton</t>."
    assert mark_target("Ton", 0, 3, markers=("[[", "]]")) == "[[Ton]]"


def test_each_side_keeps_its_half() -> None:
    """Room 10 - 2, span <t> five </t> = 3: two tokens a side."""
    start = LETTERS.index("five")
    cut = mark_target(LETTERS, start, start + 4, WORDS, max_length=10)
    assert cut == "three four <t>five</t> six seven"
    # the odd one of five is left over; a short side's room stays unused
    assert mark_target(LETTERS, start, start + 4, WORDS, max_length=9) == cut
    assert mark_target(LETTERS, 0, 3, WORDS, max_length=10) == "<t>one</t> two three"
    assert mark_target(LETTERS, start, start + 4, WORDS, max_length=5) == "<t>five</t>"
    assert mark_target(LETTERS, start, start + 4, WORDS) == LETTERS.replace("five", "<t>five</t>")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abcé", min_size=1, max_size=4), min_size=1, max_size=40), st.data())
def test_the_word_comes_back(words: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(words) - 1))
    text, start = " ".join(words), len(" ".join([*words[:place], ""]))
    limit = data.draw(st.integers(5, 50))
    cut = mark_target(text, start, start + len(words[place]), WORDS, max_length=limit)
    found = re.fullmatch(r"(.*)<t>(.*)</t>(.*)", cut)
    assert found is not None
    before, word, after = found.groups()
    assert word == words[place]
    assert text[:start].endswith(before)
    assert text[start + len(word) :].startswith(after)
    side = (limit - 5) // 2
    assert len(before.split()) == min(side, place)
    assert len(after.split()) == min(side, len(words) - 1 - place)
    assert len(WORDS(cut)["input_ids"]) <= limit - 2


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("word", 2, 2), {}, "inside the text"),
        (("word", 0, 5), {}, "inside the text"),
        (("a <t> b", 0, 1), {}, "holds a marker already"),
        (("word", 0, 4), {"markers": ("#", "#")}, "two different"),
        (("word", 0, 4), {"tokenizer": object()}, "fast"),
        (("word", 0, 4), {"tokenizer": WORDS, "max_length": 4}, "need 5"),
    ],
)
def test_what_is_refused(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(RivalsError, match=message):
        mark_target(*arguments, **options)
