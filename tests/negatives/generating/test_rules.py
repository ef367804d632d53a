"""Writers by rule: exactly one detail changes, and the same seed gives the same text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.errors import RivalsError
from rivals.negatives.generating import Generator, SpliceGenerator, TemplateGenerator

TEXTS = [
    "What was the revenue of Acme Corp in 2022 ?",
    "Profit rose by 3.5 percent to 1,200 dollars in 1999.",
    "The treatments of gout are not with risk.",
    "In 2020, Berlin had 12 of them.",
]
WRITER = TemplateGenerator(
    terms=[["symptoms", "treatments", "causes"], ["revenue", "profit"]], entities=["Acme Corp", "Berlin", "Umbrella"]
)


def alike(one: str, other: str) -> int:
    """How many first characters two texts share."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def changed_span(before: str, after: str) -> tuple[str, str]:
    """What stands between the common beginning and the common end."""
    start = alike(before, after)
    end = alike(before[start:][::-1], after[start:][::-1])
    return before[start : len(before) - end], after[start : len(after) - end]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(TEXTS), st.integers(1, 15), st.integers(0, 2**31 - 1))
def test_one_detail_changes(text, n, seed):
    (variants,) = WRITER.generate([text], ["page"], n, seed=seed)
    assert 0 < len(variants) <= n
    assert len(set(variants)) == len(variants)
    for variant in variants:
        assert variant != text
        old, new = changed_span(text, variant)
        assert len(old.split()) <= 2
        assert len(new.split()) <= 2
    assert WRITER.generate([text], ["page"], n, seed=seed) == [variants]
    both = WRITER.generate(["another 7", text], ["x", "page"], n, seed=seed)
    assert both[1] == variants  # whatever else is in the call


def test_a_year_is_never_left_as_it_was():
    (variants,) = TemplateGenerator(["year"]).generate([TEXTS[0]], [""], 30, seed=1)
    assert len(variants) == 18
    years = {int(re.search(r"\d{4}", variant).group()) for variant in variants}
    assert years == set(range(2013, 2032)) - {2022}
    assert TemplateGenerator(["year"]).generate(["founded 1000 years ago"], [""], 30, seed=1)[0][0] > "founded 1000"


def test_numbers_keep_their_form():
    (variants,) = TemplateGenerator(["number"]).generate([TEXTS[1]], [""], 100, seed=1)
    for variant in variants:
        assert re.fullmatch(r"Profit rose by \d+\.\d percent to \d+(,\d{3})* dollars in 1999\.", variant), variant
    assert any("1,20" in variant and "1,200" not in variant for variant in variants)
    assert TemplateGenerator(["number"]).generate(["v1.2.3 and B12 and in 1999"], [""], 5, seed=0) == [[]]


def test_names_terms_and_denials():
    entities = TemplateGenerator(["entity"], entities=["Acme Corp", "Berlin", "Umbrella"])
    assert sorted(entities.generate([TEXTS[0]], [""], 9, seed=0)[0]) == [
        "What was the revenue of Berlin in 2022 ?",
        "What was the revenue of Umbrella in 2022 ?",
    ]
    terms = TemplateGenerator(["term"], terms=[["symptoms", "treatments"]])
    assert terms.generate(["Treatments of gout"], [""], 9, seed=0) == [["Symptoms of gout"]]
    denial = TemplateGenerator(["negation"])
    assert sorted(denial.generate(["It is here with us."], [""], 9, seed=0)[0]) == [
        "It is here without us.",
        "It is not here with us.",
    ]
    assert sorted(denial.generate([TEXTS[2]], [""], 9, seed=0)[0]) == [
        "The treatments of gout are not without risk.",
        "The treatments of gout are with risk.",
    ]
    assert denial.generate(["Which of them is best ?"], [""], 9, seed=0) == [[]]


def test_the_positive_may_be_what_changes():
    writer = TemplateGenerator(["year"], change="positive")
    assert writer.generate(["q 1990"], ["In 2020."], 1, seed=0)[0][0].startswith("In 20")


def test_splices_begin_like_the_positive():
    passages = ["A one. A two. A three.", "B one. B two.", "C one! C two? C three."]
    writer = SpliceGenerator(passages)
    (texts,) = writer.generate(["q"], [passages[0]], 3, seed=0)
    assert 1 <= len(texts) <= 3
    for text in texts:
        parts = re.split(r"(?<=[.!?])\s+", text)
        assert parts[0] == "A one."
        assert len(parts) == 3
        assert all(part[0] in "BC" for part in parts[1:])
    assert writer.generate(["q"], [passages[0]], 3, seed=0) == [texts]
    assert writer.generate(["x", "q"], [passages[1], passages[0]], 3, seed=0)[1] == texts
    assert any(writer.generate(["q"], [passages[0]], 3, seed=seed) != [texts] for seed in range(1, 5))
    assert writer.generate(["q"], ["A single sentence."], 3, seed=0) == [[]]


def test_both_are_generators():
    assert isinstance(WRITER, Generator)
    assert isinstance(SpliceGenerator(["a", "b"]), Generator)


def test_faulty_options_are_named():
    with pytest.raises(RivalsError, match="unknown kind 'colour'"):
        TemplateGenerator(["colour"])  # type: ignore[list-item]
    with pytest.raises(RivalsError, match="nothing to change"):
        TemplateGenerator(["term"])
    with pytest.raises(RivalsError, match="nothing to change"):
        TemplateGenerator(["entity"], entities=["Berlin"])
    with pytest.raises(RivalsError, match="two different ones"):
        TemplateGenerator(terms=[["one"]])
    with pytest.raises(RivalsError, match="change must be"):
        TemplateGenerator(["year"], change="title")  # type: ignore[arg-type]
    with pytest.raises(RivalsError, match="two different passages"):
        SpliceGenerator(["same", "same"])
