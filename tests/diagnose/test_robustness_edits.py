"""Edits and perturbations of texts: one edit is one edit, seeds decide, nothing else changes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.diagnose.robustness import (
    ChangeCase,
    ChangePunctuation,
    DropWords,
    Generated,
    Negate,
    ReplaceSynonyms,
    Reword,
    Typos,
    WordOrder,
    paraphrases,
    perturb,
)
from rivals.diagnose.robustness.edits import OPERATORS, TYPOS, sentences_of, words_of
from rivals.errors import RivalsError
from rivals.models.language import Completion, LanguageModel
from rivals.models.language.base import GREEDY

QUESTIONS = [
    "What are the symptoms of Glaucoma ?",
    "who gets gout",
    "Was hilft bei Übelkeit?",
    "青光眼有哪些症状和治疗",
    "a b c",
    "",
]
TABLE = {"symptoms": ["signs"], "gets": ["has", "catches"]}
CHANGES = [
    Typos(),
    Typos(edits=3),
    Typos(operators=("swap_words", "drop_word")),
    ChangeCase("upper"),
    ChangeCase("random"),
    ChangePunctuation(),
    ChangePunctuation("add"),
    Reword(),
    ReplaceSynonyms(TABLE, 2),
    WordOrder(),
    WordOrder(2),
    DropWords(2),
    Negate(),
]


def distance(a: str, b: str) -> int:
    """Levenshtein's, the plain way."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


@given(st.text("abcdefg éxyz ?", max_size=30), st.sampled_from(TYPOS), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_a_typo_is_one_edit_inside_a_long_word(text: str, operator: str, seed: int) -> None:
    changed = perturb(text, operator, np.random.default_rng(seed))
    longest = {"insert": 1, "delete": -1}.get(operator, 0)
    assert len(changed) - len(text) in (0, longest)
    assert distance(text, changed) <= (2 if operator == "swap" else 1)
    if not any(len(word) >= 4 for word in words_of(text)):
        assert changed == text
    old, new = words_of(text), words_of(changed)
    assert [word[0] + word[-1] for word in old] == [word[0] + word[-1] for word in new]


def test_edits_happen() -> None:
    rng = np.random.default_rng(0)
    for operator in TYPOS:
        made = [perturb("glaucoma", operator, rng) for _ in range(20)]
        assert all(one != "glaucoma" for one in made if operator != "insert")
        assert len(set(made)) > 2
        assert all(one[0] == "g" and one[-1] == "a" for one in made)
    assert perturb("one two", "drop_word", rng) in ("one", "two")
    assert perturb("one", "drop_word", rng) == "one"
    assert perturb("one two", "swap_words", rng) == "two one"
    assert perturb("Gets it?", "synonym", rng, synonyms={"gets": ["has"]}) == "Has it?"
    assert perturb("nothing", "synonym", rng, synonyms={"gets": ["has"]}) == "nothing"
    assert set(OPERATORS) == {"insert", "delete", "swap", "keyboard", "drop_word", "swap_words"}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change.name}")
def test_seeds_decide_and_neighbours_do_not(change) -> None:
    made = change(QUESTIONS, seed=4)
    assert made == change(QUESTIONS, seed=4)
    assert made == change(QUESTIONS[::-1], seed=4)[::-1]
    assert made == [change([text], seed=4)[0] for text in QUESTIONS]
    assert len(made) == len(QUESTIONS)
    assert made[0] != QUESTIONS[0]


def test_typos_of_other_seeds_differ() -> None:
    assert len({Typos()(QUESTIONS[:1], seed=seed)[0] for seed in range(20)}) > 10


def test_what_each_change_does() -> None:
    question = QUESTIONS[0]
    assert ChangeCase("upper")([question]) == [question.upper()]
    assert ChangeCase("title")(["eye pain"]) == ["Eye Pain"]
    assert ChangePunctuation()(["What's up?", "?!"]) == ["What s up", "?!"]
    assert ChangePunctuation("add")([question], seed=1)[0].startswith(question)
    assert question in Reword()([question])[0]
    assert Reword(("{query}, bitte",))(["wie {query}"]) == ["wie {query}, bitte"]
    assert ReplaceSynonyms(TABLE)([question]) == ["What are the signs of Glaucoma ?"]
    assert sorted(WordOrder()([question], seed=2)[0].split()) == sorted(question.split())
    assert len(words_of(DropWords(2)([question])[0])) == len(words_of(question)) - 2
    assert Negate()([question, "not here", "gout"]) == ["What are not the symptoms of Glaucoma ?", "here", "not gout"]
    assert Negate("nicht", ("ist",))(["Was ist gut?"]) == ["Was ist nicht gut?"]
    assert not Negate().keeps_meaning
    assert Typos().keeps_meaning


def test_synonyms_are_each_replaced_once() -> None:
    table = {"pain": ["ache"], "ache": ["pain"]}
    assert ReplaceSynonyms(table, 9)(["pain ache pain"]) == ["ache pain ache"]
    assert len(re.findall("x", ReplaceSynonyms({"a": ["x"]}, 2)(["a a a"])[0])) == 2


class Parrot(LanguageModel):
    """Says one thing to every prompt, and what it was asked is kept."""

    name = "parrot"

    def __init__(self, answer: str) -> None:
        self.answer, self.asked = answer, []

    def complete(self, prompts, sampling=GREEDY, *, show=False):
        self.asked += [prompt.messages[-1].text for prompt in prompts]
        return [Completion(self.answer) for _ in prompts]

    def option_log_probabilities(self, prompts, options, *, show=False):
        return np.full((len(prompts), len(options)), np.nan, np.float32)


def test_paraphrases_by_a_language_model() -> None:
    model = Parrot('"How does glaucoma show?"')
    assert paraphrases(model)(QUESTIONS[:2]) == ["How does glaucoma show?"] * 2
    assert all(question in asked for question, asked in zip(QUESTIONS, model.asked, strict=False))
    assert paraphrases(Parrot(""))(QUESTIONS[:2]) == QUESTIONS[:2]
    assert paraphrases(model).keeps_meaning
    assert not Generated(paraphrases(model).generator, same_meaning=False).keeps_meaning


def test_sentences() -> None:
    assert sentences_of("One. Two!  Three") == ["One.", "Two!", "Three"]
    assert sentences_of("它疼。会好吗？") == ["它疼。", "会好吗？"]
    assert sentences_of("version 1.5 is out") == ["version 1.5 is out"]
    assert sentences_of("  ") == []


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Typos(edits=0), "edits must be a whole number, 1 or more, not 0"),
        (lambda: Typos(operators=()), "operators are"),
        (lambda: Typos(operators=("melt",)), "one or more of insert"),
        (lambda: ChangeCase("tall"), "to is 'tall'"),
        (lambda: ChangePunctuation("eat"), "how is 'eat'"),
        (lambda: Reword(("no gap",)), "with {query}"),
        (lambda: Reword(()), "with {query}"),
        (lambda: ReplaceSynonyms({}), "table of synonyms is empty"),
        (lambda: WordOrder(0), "swaps must be"),
        (lambda: DropWords(True), "words must be"),
        (lambda: Negate(" "), "word is empty"),
        (lambda: perturb("x", "melt", np.random.default_rng()), "operator is 'melt'"),
        (lambda: perturb("x", "synonym", np.random.default_rng()), "needs a table"),
    ],
)
def test_bad_options(make, said) -> None:
    with pytest.raises(RivalsError, match=re.escape(said)):
        make()
