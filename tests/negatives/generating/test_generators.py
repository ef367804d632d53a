"""Prompted writers: what they are shown, how answers are cleaned, seeds, and a second run that asks nothing."""

from __future__ import annotations

import pytest

from rivals.data import Collection, Dataset, Judgements
from rivals.errors import DataError, RivalsError
from rivals.models.language.base import Completion, Sampling
from rivals.models.language.completion_cache import CachedLanguageModel
from rivals.negatives.generating import PromptGenerator, write_negatives
from rivals.negatives.generating.generators import WRITER_PROMPTS
from tests.negatives.judging.models import RuleModel


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("A passage.", "A passage."),
        ("Passage: A passage.", "A passage."),
        ("**Hard negative passage:** A passage.", "A passage."),
        ('"A passage."', "A passage."),
        ("Sure! Here is a hard negative passage:\n\nA passage.\nMore of it.", "A passage. More of it."),
        ('"Yes" and "no" differ', '"Yes" and "no" differ'),
        ("  \n ", ""),
        (Completion("", "refusal"), ""),
        (Completion("", "error", error="x"), ""),
        (Completion("One. Two. Thr", "length"), "One. Two."),
        (Completion("No end in sight", "length"), "No end in sight"),
    ],
)
def test_passages_are_cleaned(said, kept):
    assert PromptGenerator(RuleModel(lambda text: said)).generate(["q"], [""], 1, seed=0) == [[kept]]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("1. a?\n2) b?\n- c?\n\n[4] d?", ["a?", "b?", "c?"]),
        ("Here are 3 questions:\na?\nb?", ["a?", "b?"]),
        ('Question: "a?"', ["a?"]),
        (Completion("a?\nb?\nc", "length"), ["a?", "b?"]),
        ("2023 was what?", ["2023 was what?"]),
        ("", [""]),
    ],
)
def test_lines_are_parted(said, kept):
    writer = PromptGenerator(RuleModel(lambda text: said), WRITER_PROMPTS / "query_variants.txt", lines=True)
    assert writer.generate(["q"], [""], 3, seed=0) == [kept]


def test_a_writer_from_the_query_alone_never_sees_the_positive():
    model = RuleModel(lambda text: "written")
    writer = PromptGenerator(model)
    writer.generate(["the query"], ["the secret positive"], 2, seed=0)
    assert not writer.needs_positive
    assert len(model.prompts) == 2
    assert all("secret" not in message.text for prompt in model.prompts for message in prompt.messages)
    both = PromptGenerator(model, WRITER_PROMPTS / "negative_from_query_and_passage.txt")
    both.generate(["the query"], ["the secret positive"], 1, seed=0)
    assert both.needs_positive
    assert "the secret positive" in model.prompts[-1].messages[-1].text


def test_every_packaged_prompt_loads():
    model = RuleModel(lambda text: "written")
    found = sorted(path.stem for path in WRITER_PROMPTS.glob("*.txt"))
    assert found == [
        "negative_from_query", "negative_from_query_and_passage", "query_from_passage", "query_one_detail",
        "query_variants",
    ]  # fmt: skip
    for name in found:
        writer = PromptGenerator(model, WRITER_PROMPTS / f"{name}.txt")
        assert writer.name == f"rule-model {name}"
        assert writer.generate(["q"], ["p"], 1, seed=0) == [["written"]]
    PromptGenerator(model, WRITER_PROMPTS / "query_variants.txt", lines=True).generate(["q"], ["p"], 12, seed=0)
    assert "Write 12 different questions" in model.prompts[-1].messages[-1].text


def test_every_turn_has_a_seed_of_its_own():
    model = RuleModel(lambda text: "written")
    writer = PromptGenerator(model, sampling=Sampling(max_tokens=8, temperature=0.7))
    writer.generate(["q"], [""], 3, seed=0)
    first = model.seeds.copy()
    assert len(set(first)) == 3
    writer.generate(["q"], [""], 3, seed=0)
    assert model.seeds[3:] == first
    writer.generate(["q"], [""], 3, seed=1)
    assert not set(model.seeds[6:]) & set(first)


def test_a_second_run_asks_nothing_and_an_edited_prompt_asks_again(tmp_path):
    documents = Collection(["a", "b"], ["rain falls down here", "sun shines up there"])
    dataset = Dataset(
        Collection(["q", "r"], ["rain ?", "sun ?"]),
        documents,
        Judgements.build([0, 1], [0, 1], [1, 1], queries=2, documents=2),
    )
    model = RuleModel(lambda text: f"Some words about {len(text)} things.")
    prompt = tmp_path / "mine.txt"
    prompt.write_text("Write about {query}")
    with CachedLanguageModel(model, tmp_path / "answers.db") as cached:
        first = write_negatives(dataset, PromptGenerator(cached, prompt), n=1, show=False)
        asked = len(model.prompts)
        again = write_negatives(dataset, PromptGenerator(cached, prompt), n=1, show=False)
        assert len(model.prompts) == asked == 2
        assert again.dataset.documents.texts == first.dataset.documents.texts
        assert again.report == first.report
        prompt.write_text("Write more about {query}")
        write_negatives(dataset, PromptGenerator(cached, prompt), n=1, show=False)
        assert len(model.prompts) == 4


def test_faulty_prompts_are_named(tmp_path):
    model = RuleModel(lambda text: "")
    path = tmp_path / "bad.txt"
    path.write_text("Write {n} things")
    with pytest.raises(RivalsError, match=r"uses neither \{query\} nor \{positive\}"):
        PromptGenerator(model, path)
    path.write_text("Write about {topic}")
    with pytest.raises(DataError, match=r"unknown field \{topic\}"):
        PromptGenerator(model, path)
    assert PromptGenerator(model).generate([], [], 3, seed=0) == []
