"""Reading answers: whatever a model says, it is read rightly or not at all, and never an exception."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.negatives.judging.answers import read_grade, read_selection, read_yes_no, without_thought


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Yes", 1.0),
        (" no.", 0.0),
        ("**Yes**, because", 1.0),
        ("YES!", 1.0),
        ("The passage says nothing.\nAnswer: No", 0.0),
        ("Answer: No, at first. Final answer: yes", 1.0),
        ("It is about water.\n\nYes", 1.0),
        ("<think>Yes, no, yes</think>No", 0.0),
        ("half a thought</think> Yes", 1.0),
    ],
)
def test_yes_and_no(text, value):
    assert read_yes_no(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "Maybe", "Nothing here", "Yesterday", "there is no mention of it in the whole text", "yes or no?\nno yes"],
)
def test_what_says_neither(text):
    assert math.isnan(read_yes_no(text))


def test_other_words_for_yes_and_no():
    assert read_yes_no("Ja, natürlich", "Ja", "Nein") == 1.0
    assert read_yes_no("c++", "c++", "c") == 1.0
    assert math.isnan(read_yes_no("Yes", "Ja", "Nein"))


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("2", 2),
        ("Grade: 1", 1),
        ("**Score**: 3", 3),
        ("I would give it 0", 0),
        ("2/3", 2),
        ("Grade: 1. No: grade 2", 2),
    ],
)
def test_grades(text, grade):
    assert read_grade(text) == grade


@pytest.mark.parametrize("text", ["", "good", "4", "Grade: 9", "of 12 pages 3 fit"])
def test_what_is_no_grade(text):
    assert math.isnan(read_grade(text))


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("Relevant: 1, 3", [0, 2]),
        ("[1] no, [2] yes.\n**Relevant:** [2]", [1]),
        ("Relevant candidates: 1 and 4", [0, 3]),
        ("relevant: 2-4", [1, 2, 3]),
        ("Relevant: 2, 17", [1]),
        ("Relevant: none", []),
        ("Relevant: None of them.", []),
        ("Relevant: []", []),
        ("The relevant candidates are 3.", [2]),
        ("Relevant:\n\n1, 2", [0, 1]),
        ("Relevant: 1\nOn second thought.\nRelevant: 4", [3]),
        ("<think>Relevant: 1</think>\nRelevant: 2", [1]),
        ("[2], [3]", [1, 2]),
        ("none", []),
    ],
)
def test_selections(text, chosen):
    assert read_selection(text, 4).nonzero()[0].tolist() == chosen


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot help.",
        "Relevant:",
        "Relevant: 17",
        "Relevant: all",
        "3 is not relevant: it rains",
        "none but 3",
        "()",
    ],
)
def test_selections_that_cannot_be_read(text):
    assert read_selection(text, 4) is None


LIKELY = st.sampled_from("Relvant: yesno0123456789[],-–\n*()gradto<think>/ \u0661\u00b2")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=LIKELY, max_size=60) | st.text(max_size=60))
def test_no_answer_raises(text):
    assert read_yes_no(text) in (0.0, 1.0) or math.isnan(read_yes_no(text))
    assert read_grade(text) in (0, 1, 2, 3) or math.isnan(read_grade(text))
    chosen = read_selection(text, 5)
    assert chosen is None or chosen.shape == (5,)
    assert without_thought(text) == without_thought(without_thought(text)) or "think" in text.lower()


def test_long_numbers_are_no_grades_and_no_candidates():
    assert math.isnan(read_grade("9" * 5000))
    assert read_selection("Relevant: " + "9" * 5000, 3) is None
