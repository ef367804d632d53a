"""Answers in candidates: by hand, against a plain search of words, and the laws of filters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivals.data import Collection, Run
from rivals.errors import RivalsError
from rivals.negatives import AnswerMatch, Top

TEXTS = [
    "Born in Ulm, in March 1879.",
    "ULM is a town",
    "The U.S. Army",
    "a change of heart",
    "Café Zürich",
    "march on, 1879",
]


def run_over(texts: list[str], queries: int = 1) -> Run:
    documents = Collection([f"d{i}" for i in range(len(texts))], texts)
    asked = Collection([f"q{i}" for i in range(queries)], name="query")
    rows = np.tile(np.arange(len(texts)), queries)
    return Run.build(asked, documents, np.arange(queries + 1) * len(texts), rows, -rows.astype(float), scorer="s")


def matched(answers: list[str]) -> list[int]:
    run = AnswerMatch({"q0": answers})(run_over(TEXTS))
    return sorted(run.document[~run.keep].tolist())


@pytest.mark.parametrize(
    ("answers", "documents"),
    [
        (["ulm"], [0, 1]),
        (["March 1879"], [0]),  # in the last one a word stands between
        (["US"], []),
        (["u.s."], [2]),
        (["art"], []),
        (["cafe zurich"], [4]),
        (["Zürich Café"], []),
        (["ulm", "march on"], [0, 1, 5]),
        (["march", "march 1879", "1879"], [0, 5]),
        ([], []),
    ],
)
def test_words_in_their_order(answers: list[str], documents: list[int]) -> None:
    assert matched(answers) == documents


def test_an_answer_does_not_run_over_the_end_of_a_text() -> None:
    run = AnswerMatch({"q0": ["one two"]})(run_over(["zero one", "two three"]))
    assert run.keep.all()


def test_only_the_query_s_own_answers_count_and_its_label_is_set() -> None:
    run = AnswerMatch({"q1": ["ulm"]})(run_over(TEXTS, queries=2))
    assert run.query[~run.keep].tolist() == [1, 1]
    assert (run.label == np.where(run.keep, -1, 1)).all()
    assert run.where_reason("contains an answer").sum() == 2


def test_samplers_pass_over_what_holds_the_answer() -> None:
    drawn = Top(1).draw(AnswerMatch({"q0": ["ulm"]})(run_over(TEXTS)), np.random.default_rng(0))
    assert drawn.candidate.tolist() == [[2]]


words = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=5)


@given(st.lists(words, min_size=1, max_size=5), st.lists(words, max_size=4), st.lists(words, max_size=4))
def test_as_a_plain_search_finds_it(texts: list[list[str]], one: list[list[str]], two: list[list[str]]) -> None:
    run = run_over([" ".join(text) for text in texts], queries=2)
    answers = {f"q{i}": [" ".join(words) for words in several] for i, several in enumerate((one, two))}
    found = AnswerMatch(answers)(run)
    for query, document, keep in zip(found.query, found.document, found.keep, strict=True):
        text = f" {' '.join(texts[document])} "
        assert keep != any(f" {answer} " in text for answer in answers[f"q{query}"])
    again = AnswerMatch(answers)(found)
    assert (again.keep == found.keep).all()
    assert (again.reason == found.reason).all()
    assert (found.document == run.document).all()


def test_faulty_answers_are_named() -> None:
    with pytest.raises(RivalsError, match="query 'q' are one text; give a list"):
        AnswerMatch({"q": "Ulm"})
    with pytest.raises(RivalsError, match=r"query 'q' has the answer '\?!', which holds no word"):
        AnswerMatch({"q": ["Ulm", "?!"]})
    bare = Run.build(Collection(["q"]), Collection(["a"]), [0, 1], [0], [1.0])
    with pytest.raises(RivalsError, match="reads texts, but the documents have none"):
        AnswerMatch({"q": ["Ulm"]})(bare)
