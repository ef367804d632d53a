"""Language models as judges: what is asked, how scores come of it, and what happens to answers that are none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data import Collection, Run
from rivals.errors import DataError, RivalsError
from rivals.models.language.base import Completion
from rivals.models.language.completion_cache import CachedLanguageModel
from rivals.models.language.prompts import PromptTemplate
from rivals.negatives.judging import GradedJudge, ListJudge, YesNoJudge, judged
from rivals.negatives.judging.prompted import JUDGE_PROMPTS
from tests.negatives.judging.models import RuleModel


def run_of(documents: list[str], queries: tuple[str, ...] = ("is it wet?",), positives: bool = True) -> Run:
    """Every query with every document but the first, which is its positive."""
    width = len(documents) - 1
    known = (np.arange(len(queries) + 1), np.zeros(len(queries), np.int64)) if positives else None
    return Run.build(
        Collection([f"q{i}" for i in range(len(queries))], queries, name="query"),
        Collection([f"d{i}" for i in range(len(documents))], documents),
        np.arange(len(queries) + 1) * width,
        np.tile(np.arange(1, width + 1), len(queries)),
        np.tile(np.linspace(0.9, 0.1, width), len(queries)),
        positives=known,
    )


# ------------------------------------------------------------------------------------------------ yes or no


def test_the_score_is_the_sigmoid_of_the_difference():
    model = RuleModel(lambda text: "Yes", lambda text: (0.6, 0.2) if "rain" in text else (0.1, 0.1))
    verdicts = YesNoJudge(model).judge(run_of(["water", "rain", "sand"]))
    np.testing.assert_allclose(verdicts.score, [0.75, 0.5], rtol=1e-6)  # equal logits: one half
    assert verdicts.asked == 2
    assert verdicts.unreadable == 0
    assert model.prompts == []
    difference = math.log(0.6) - math.log(0.2)
    assert verdicts.score[0] == pytest.approx(1 / (1 + math.exp(-difference)))


def test_one_option_alone_bounds_the_other():
    rows = {"both": (0.5, 0.25), "yes": (0.7, math.nan), "no": (math.nan, 0.9)}
    model = RuleModel(lambda text: "?", lambda text: next(v for k, v in rows.items() if f"sees {k}" in text))
    scores = YesNoJudge(model).judge(run_of(["x", "sees both", "sees yes", "sees no"])).score
    np.testing.assert_allclose(scores, [2 / 3, 0.7, 0.1], rtol=1e-6)


def test_a_model_that_tells_no_probabilities_is_asked_in_words():
    answers = {"rain": "Yes, it is.", "sand": "No", "fog": "Hard to say.", "ice": Completion("", "refusal")}
    model = RuleModel(lambda text: next(answer for word, answer in answers.items() if word in text))
    verdicts = YesNoJudge(model).judge(run_of(["water", "rain", "sand", "fog", "ice"]))
    np.testing.assert_array_equal(verdicts.score, [1, 0, np.nan, np.nan])
    assert (verdicts.asked, verdicts.unreadable) == (4, 2)


def test_reading_text_asks_for_no_options():
    model = RuleModel(lambda text: "I think so. Answer: Yes", lambda text: (0.0, 1.0))
    assert YesNoJudge(model, read="text").judge(run_of(["a", "b"])).score.tolist() == [1.0]
    assert model.weighed == []


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-80, 0) | st.just(math.nan), st.floats(-80, 0) | st.just(math.nan)), min_size=1, max_size=6
    )
)
def test_scores_of_options_lie_in_range(told):
    rows = iter(told)
    model = RuleModel(lambda text: "?", lambda text: [math.exp(value) for value in next(rows)])
    scores = YesNoJudge(model).judge(run_of(["x", *map(str, range(len(told)))])).score
    neither = np.array([math.isnan(yes) and math.isnan(no) for yes, no in told])
    np.testing.assert_array_equal(np.isnan(scores), neither)
    assert ((scores[~neither] >= 0) & (scores[~neither] <= 1)).all()


def test_equal_pairs_are_asked_once_and_long_texts_are_cut():
    model = RuleModel(lambda text: "?", lambda text: (0.3, 0.6))
    run = run_of(["w", "one two three four", "one  two three four", "one"], ("same", "same"))
    verdicts = YesNoJudge(model, max_words=3).judge(run)
    assert len(model.weighed) == verdicts.asked == 2
    assert verdicts.cut == 2  # two documents; counted once each, not per query
    assert "one two three …" in model.weighed[0].messages[-1].text
    assert len(verdicts.score) == 6


def test_titles_are_shown_and_braces_mean_nothing():
    model = RuleModel(lambda text: "?", lambda text: (0.5, 0.5))
    documents = Collection(["a"], ["a {query} {x"], {"title": ["Rain"]})
    YesNoJudge(model).judge(Run.build(Collection(["q"], ["{document}?"]), documents, [0, 1], [0], [0.9]))
    assert "Query: {document}?" in model.weighed[0].messages[-1].text
    assert "Passage: Rain. a {query} {x" in model.weighed[0].messages[-1].text


# ------------------------------------------------------------------------------------------------ grades


def test_grades_are_expected_likeliest_or_read():
    model = RuleModel(lambda text: "Grade: 2", lambda text: (0.1, 0.1, 0.4, 0.4))
    run = run_of(["a", "b"])
    assert GradedJudge(model).judge(run).score[0] == pytest.approx((0.1 + 0.8 + 1.2) / 3)
    assert GradedJudge(model, expected=False).judge(run).score[0] == pytest.approx(2 / 3)
    assert GradedJudge(model, read="text").judge(run).score[0] == pytest.approx(2 / 3)
    assert GradedJudge(model, highest=4, read="text").judge(run).score[0] == 0.5


def test_grades_of_which_the_model_tells_a_part():
    run = run_of(["a", "b"])
    most = RuleModel(lambda text: "0", lambda text: (math.nan, 0.2, math.nan, 0.6))
    assert GradedJudge(most).judge(run).score[0] == pytest.approx((0.25 + 0.75 * 3) / 3)
    little = RuleModel(lambda text: "1", lambda text: (math.nan, 0.01, math.nan, 0.02))
    assert GradedJudge(little).judge(run).score[0] == pytest.approx(1 / 3)  # asked in words
    silent = RuleModel(lambda text: "well ...")
    verdicts = GradedJudge(silent).judge(run)
    assert np.isnan(verdicts.score[0])
    assert verdicts.unreadable == 1


# ------------------------------------------------------------------------------------------------ lists


def pick_wet(text: str) -> str:
    """Name the numbers of the candidates that hold the word wet."""
    listed = text.partition("candidates are believed")[2]
    numbers = [line[1 : line.index("]")] for line in listed.splitlines() if line.startswith("[") and "wet" in line]
    return f"I looked at each.\nRelevant: {', '.join(numbers) or 'none'}"


def test_candidates_are_shuffled_and_mapped_back():
    texts = ["positive", *(f"{'wet' if i % 3 == 0 else 'dry'} text {i}" for i in range(20))]
    run = run_of(texts, ("one?", "two?"))
    model = RuleModel(pick_wet)
    verdicts = ListJudge(model).judge(run)
    expected = np.tile([float(i % 3 == 0) for i in range(20)], 2)
    np.testing.assert_array_equal(verdicts.score, expected)
    assert verdicts.asked == 2
    orders = [[line for line in p.messages[-1].text.splitlines() if line.startswith("[")] for p in model.prompts]
    assert orders[0] != orders[1]
    assert sorted(x[x.index("]") :] for x in orders[0]) == sorted(x[x.index("]") :] for x in orders[1])
    assert "- positive" in model.prompts[0].messages[-1].text
    again = RuleModel(pick_wet)
    ListJudge(again).judge(run.take([1, 0]))
    assert [p.messages for p in again.prompts] == [p.messages for p in reversed(model.prompts)]  # seeded by query
    other = RuleModel(pick_wet)
    np.testing.assert_array_equal(ListJudge(other, seed=1).judge(run).score, expected)
    assert other.prompts[0] != model.prompts[0]


def test_sixty_candidates_make_three_calls():
    model = RuleModel(pick_wet)
    run = run_of(["p", *(f"{'wet' if i in (3, 30, 59) else 'dry'} {i}" for i in range(60))])
    verdicts = ListJudge(model).judge(run)
    sizes = [prompt.messages[-1].text.count("\n[") for prompt in model.prompts]
    assert sizes == [25, 25, 10]
    assert verdicts.asked == 3
    assert verdicts.score.nonzero()[0].tolist() == [3, 30, 59]  # the union of the calls


def test_an_unreadable_call_flags_nothing_and_is_counted():
    def say(text: str) -> str | Completion:
        return Completion("", "error", error="HTTP 500") if "dry 0" in text else pick_wet(text)

    run = run_of(["p", "wet a", "dry 0", "wet b", "dry 1"])
    verdicts = ListJudge(RuleModel(say), group=2).judge(run)
    np.testing.assert_array_equal(verdicts.score, [np.nan, np.nan, 1, 0])
    assert (verdicts.asked, verdicts.unreadable) == (2, 1)
    nonsense = ListJudge(RuleModel(lambda text: "Certainly! I flag them all.")).judge(run)
    assert np.isnan(nonsense.score).all()
    assert nonsense.unreadable == 1


def test_queries_without_positives_say_so():
    model = RuleModel(pick_wet)
    ListJudge(model).judge(run_of(["p", "wet"], positives=False))
    assert "(none is known)" in model.prompts[0].messages[-1].text


# ------------------------------------------------------------------------------------------------ prompts, cache, errors


def test_prompts_can_be_edited(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("[system]\nBe strict.\n[user]\n{document} for {query}?")
    model = RuleModel(lambda text: "Yes")
    YesNoJudge(model, mine).judge(run_of(["a", "b"], ("q?",)))
    assert [message.text for message in model.prompts[0].messages] == ["Be strict.", "b for q??"]
    parsed = PromptTemplate.parse("{document} {query}")
    YesNoJudge(model, parsed).judge(run_of(["a", "b"], ("q?",)))
    assert model.prompts[-1].messages[-1].text == "b q?"


def test_every_packaged_prompt_loads():
    assert sorted(path.name for path in JUDGE_PROMPTS.glob("*.txt")) == [
        "answer_found.txt", "answerable.txt", "grade.txt", "list.txt", "yes_no.txt",
    ]  # fmt: skip
    model = RuleModel(lambda text: "Yes")
    for name in ("yes_no", "answerable", "answer_found"):
        assert YesNoJudge(model, JUDGE_PROMPTS / f"{name}.txt", name=name).judge(run_of(["a", "b"])).score.tolist() == [
            1.0
        ]


def test_faulty_options_are_named(tmp_path):
    model = RuleModel(lambda text: "Yes")
    bad = tmp_path / "bad.txt"
    bad.write_text("Is {document} good?")
    with pytest.raises(DataError, match=r"bad.txt: the field \{query\} is missing"):
        YesNoJudge(model, bad)
    bad.write_text("{query} {document} {mood}")
    with pytest.raises(DataError, match=r"unknown field \{mood\}"):
        GradedJudge(model, bad)
    with pytest.raises(DataError, match=r"lacks \{query\}; has the unknown field \{x\}"):
        YesNoJudge(model, PromptTemplate.parse("{document} {x}"))
    with pytest.raises(RivalsError, match="read must be"):
        YesNoJudge(model, read="guess")  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="different words"):
        YesNoJudge(model, yes="Yes", no="yes ")
    with pytest.raises(RivalsError, match=r"highest must lie in 1\.\.9"):
        GradedJudge(model, highest=10)
    with pytest.raises(RivalsError, match="group must be a whole number"):
        ListJudge(model, group=0)
    with pytest.raises(RivalsError, match="max_words must be"):
        ListJudge(model, max_words=0)
    with pytest.raises(RivalsError, match="seed must be 0 or more"):
        ListJudge(model, seed=-1)


class Interrupted(Exception):
    pass


def test_an_interrupted_job_asks_only_for_the_rest(tmp_path):
    run = run_of(["p", *(f"text {i}" for i in range(20))])
    told: list[str] = []

    def say(text: str) -> str:
        if len(told) == 12 and "again" not in told:
            raise Interrupted
        told.append(text)
        return "Yes"

    with CachedLanguageModel(RuleModel(say), tmp_path / "answers.db") as model:
        judge = YesNoJudge(model, read="text")
        judged(judge, run.select(np.arange(20) >= 12))  # eight answers are on disk
        with pytest.raises(Interrupted):
            judged(judge, run)
        told.append("again")
        before = len(told)
        assert judged(judge, run).score.tolist() == [1.0] * 20
        assert len(told) - before == 12
