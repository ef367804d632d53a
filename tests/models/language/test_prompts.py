"""Templates put values in as they are, and say where a file is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivals.errors import DataError
from rivals.models.language import Message, Prompt, PromptTemplate

FILE = """# Is the document an answer?
# Keep it short.

[system]
You judge. Reply as JSON: {"relevant": true, "why": {"text": ""}}.
[user]
Query: {query}
Document:
{document}

\\[user] is text here, and {{query}} a word in braces.
"""
READ = Prompt(
    (
        Message("system", 'You judge. Reply as JSON: {"relevant": true, "why": {"text": ""}}.'),
        Message("user", "Query: wet?\nDocument:\n{query} %s\n\n[user] is text here, and {query} a word in braces."),
    )
)

ODD = st.sampled_from(["{a}", "{b}", "{{a}}", "{", "}", "{}", '{"k": 1}', "\\[user]"])
PARTS = ODD | st.text(alphabet="xyz {}%\\", max_size=5)


def write(folder: Path, text: str) -> Path:
    path = folder / "judge.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_becomes_a_prompt(tmp_path: Path) -> None:
    template = PromptTemplate.load(write(tmp_path, FILE), fields=("query", "document"))
    assert template.fields == ("query", "document")
    assert template.fill({"document": "{query} %s", "query": "wet?"}) == READ


def test_windows_lines_a_mark_and_unix_lines_read_the_same(tmp_path: Path) -> None:
    path = tmp_path / "judge.txt"
    path.write_bytes(b"\xef\xbb\xbf" + FILE.replace("\n", "\r\n").encode())
    assert PromptTemplate.load(path).turns == PromptTemplate.parse(FILE).turns


def test_a_file_without_sections_is_the_users(tmp_path: Path) -> None:
    template = PromptTemplate.load(write(tmp_path, "\nIs {thing} wet?\n"))
    assert template.fill({"thing": "sand"}) == Prompt.of("Is sand wet?")


def test_examples_are_turns() -> None:
    template = PromptTemplate.parse("[user]\nIs fire wet?\n[assistant]\nNo\n[user]\nIs {thing} wet?")
    assert [turn.role for turn in template.turns] == ["user", "assistant", "user"]
    assert template.fill({"thing": "rain"}).messages[-1].text == "Is rain wet?"


@given(st.text(), st.text())
def test_values_stand_as_they_are(query: str, document: str) -> None:
    template = PromptTemplate.parse("a {query}{document} {{document}} {query}")
    assert template.fill({"query": query, "document": document}) == Prompt.of(
        f"a {query}{document} {{document}} {query}"
    )


@given(st.lists(PARTS, max_size=12))
def test_whatever_a_template_says_its_fields_are_all_it_needs(parts: list[str]) -> None:
    text = "t " + " ".join(parts)
    template = PromptTemplate.parse(text)
    filled = template.fill(dict.fromkeys(template.fields, "<>")).messages[0].text
    assert filled.count("<>") >= len(template.fields)
    assert ("{a}" in filled) == ("{{a}}" in text)


def test_the_digest_follows_the_words_not_the_file(tmp_path: Path) -> None:
    template = PromptTemplate.load(write(tmp_path, FILE))
    assert template.digest == PromptTemplate.parse(FILE.replace("Keep it short", "Or not")).digest
    assert template.digest != PromptTemplate.parse(FILE.replace("You judge.", "You judge!")).digest
    assert template.digest != PromptTemplate.parse(FILE.replace("[system]", "[user]")).digest
    assert len(template.digest) == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[user]\n{query} {documnet}",
            r"judge\.txt: unknown field \{documnet\}; the fields here are \{document\}, \{q",
        ),
        ("[user]\n{query}", r"judge\.txt: the field \{document\} is missing"),
        ("[usr]\n{query}", r"judge\.txt, line 1: unknown section \[usr\].*\\\[usr\]"),
        ("hm\n[user]\n{query}", r"judge\.txt, line 1: text before the first section"),
        ("# x\n[system]\n\n[user]\n{query}", r"judge\.txt, line 2: the section \[system\] is empty"),
        ("[user]\na\n[system]\nb\n[user]\nc", r"judge\.txt: \[system\] may stand once"),
        ("[system]\nb", r"judge\.txt: the last section must be \[user\]"),
        ("[user]\na\n[assistant]\nb", r"judge\.txt: the last section must be \[user\]"),
        ("", r"judge\.txt, line 1: the section \[user\] is empty"),
    ],
)
def test_a_wrong_file_says_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        PromptTemplate.load(write(tmp_path, text), fields=("query", "document"))


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt: the prompt template cannot be read \(No such file"):
        PromptTemplate.load(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"latin\.txt: the prompt template cannot be read \(it is not UTF-8\)"):
        PromptTemplate.load(tmp_path / "latin.txt")


def test_values_are_checked_when_filled(tmp_path: Path) -> None:
    path = write(tmp_path, "[user]\n{query}")
    template = PromptTemplate.load(path, fields=("query",), optional=("positive",))
    assert template.fill({"query": "a", "positive": "unused"}) == Prompt.of("a")
    with pytest.raises(DataError, match=r"judge\.txt: no value was given for the field \{query\}"):
        template.fill({"positive": "a"})
    with pytest.raises(DataError, match=r"judge\.txt: a value was given for 'other', but there is no field"):
        template.fill({"query": "a", "other": "b"})
    with pytest.raises(DataError, match=r"judge\.txt: the value of the field \{query\} is int, not a string"):
        template.fill({"query": 3})  # type: ignore[dict-item]
