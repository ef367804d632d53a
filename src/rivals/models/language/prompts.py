"""Prompts as text files that anybody can edit.

A file is one or more sections, each headed by a line `[system]`, `[user]` or `[assistant]`; what follows is that turn's
text, with `{name}` where a value goes in. A file without such a line is one user turn. Lines before the first heading are
comments and start with `#`.

    # Is the document an answer?
    [system]
    You judge search results. Answer Yes or No.
    [user]
    Query: {query}
    Document: {document}
    Does the document answer the query?

Braces that hold no single name stay as they are, so JSON needs no care; `{{name}}` gives a literal `{name}`, and a line
that begins with a backslash before a bracket, as in `\\[user]`, is text. Values are put in as they are, in one pass:
braces in them mean nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rivals.errors import DataError
from rivals.models.language.base import Message, Prompt, Role

_FIELD = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}", re.ASCII)
_HEADING = re.compile(r"\[([a-z]+)\]\s*", re.ASCII)
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True)
class PromptTemplate:
    """A conversation with named gaps.

    turns: the messages, gaps written `{name}`. place: the file it came from, for messages. allowed: names that may be
    given to `fill` although no gap has them; None = only the gaps' own.
    When to use: every prompt of a judge or a generator, so that users can read and change it.
    Raises: DataError for no turn, a system turn that is not the first, or a last turn that is not the user's.

    >>> template = PromptTemplate.parse("[system]\\nAnswer Yes or No.\\n[user]\\nIs {thing} wet?")
    >>> template.fill({"thing": "{water}"}).messages[-1].text
    'Is {water} wet?'
    >>> template.fields
    ('thing',)
    """

    turns: tuple[Message, ...]
    place: str = "the prompt template"
    allowed: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if not self.turns or self.turns[-1].role != "user":
            raise DataError("the last section must be [user], which the model answers", path=self.place)
        if any(turn.role == "system" for turn in self.turns[1:]):
            raise DataError("[system] may stand once, as the first section", path=self.place)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, fields: Iterable[str] | None = None, optional: Iterable[str] = ()
    ) -> PromptTemplate:
        """Read a template from a UTF-8 file.

        fields: the names it must use; optional: those it may use beside them. Without `fields` any name goes.
        Raises: DataError naming the file, and the line or the field, for a file that cannot be read, a section that is
        not known, or a field that is unknown or missing.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise DataError(f"the prompt template cannot be read ({reason})", path=path) from None
        return cls.parse(text, place=os.fspath(path), fields=fields, optional=optional)

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        place: str = "the prompt template",
        fields: Iterable[str] | None = None,
        optional: Iterable[str] = (),
    ) -> PromptTemplate:
        """Make a template of a file's text; see `load`."""
        needed, more = frozenset(fields or ()), frozenset(optional)
        template = cls(_sections(text, place), place, None if fields is None else needed | more)
        used = frozenset(template.fields)
        if fields is not None:
            for name in template.fields:
                if name not in needed | more:
                    known = ", ".join(f"{{{field}}}" for field in sorted(needed | more)) or "none"
                    raise DataError(
                        f"unknown field {{{name}}}; the fields here are {known} ({{{{{name}}}}} means the word in braces)",
                        path=place,
                    )
            for name in sorted(needed - used):
                raise DataError(f"the field {{{name}}} is missing; put it where its value is to stand", path=place)
        return template

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The names of the gaps, in order of appearance, each once."""
        names = (match[2] for turn in self.turns for match in _FIELD.finditer(turn.text) if match[2])
        return tuple(dict.fromkeys(names))

    @cached_property
    def digest(self) -> str:
        """A hash of the turns, for caches and reports: it changes with every edit that changes a prompt."""
        turns = json.dumps([[turn.role, turn.text] for turn in self.turns])
        return hashlib.blake2b(turns.encode(), digest_size=16).hexdigest()

    def fill(self, values: Mapping[str, str]) -> Prompt:
        """Return the prompt with every gap filled.

        Raises: DataError naming the file and the field for a gap without a value, a value without a gap, or a value
        that is not a string.
        """
        for name in self.fields:
            if name not in values:
                raise DataError(f"no value was given for the field {{{name}}}", path=self.place)
        known = frozenset(self.fields) | (self.allowed or frozenset())
        for name, value in values.items():
            if name not in known:
                raise DataError(f"a value was given for {name!r}, but there is no field {{{name}}}", path=self.place)
            if not isinstance(value, str):
                kind = type(value).__name__
                raise DataError(f"the value of the field {{{name}}} is {kind}, not a string", path=self.place)

        def put(match: re.Match[str]) -> str:
            return values[match[2]] if match[2] else f"{{{match[1]}}}"

        return Prompt(tuple(Message(turn.role, _FIELD.sub(put, turn.text)) for turn in self.turns))


def _sections(text: str, place: str) -> tuple[Message, ...]:
    lines = text.replace("\r\n", "\n").split("\n")
    headings = [(number, match[1]) for number, line in enumerate(lines) if (match := _HEADING.fullmatch(line))]
    for number, name in headings:
        if name not in _ROLES:
            raise DataError(
                f"unknown section [{name}]; use [system], [user] or [assistant], or write \\[{name}] for text",
                path=place,
                line=number + 1,
            )
    if not headings:
        headings, lines = [(0, "user")], ["", *lines]
    for number, line in enumerate(lines[: headings[0][0]]):
        if line.strip() and not line.startswith("#"):
            raise DataError(
                "text before the first section; begin the line with # if it is a comment, or put it below a heading",
                path=place,
                line=number + 1,
            )
    turns = []
    for (start, name), (end, _) in zip(headings, [*headings[1:], (len(lines), "")], strict=True):
        body = [line[1:] if line.startswith("\\[") else line for line in lines[start + 1 : end]]
        content = "\n".join(body).strip("\n")
        if not content.strip():
            raise DataError(f"the section [{name}] is empty; give it a text or remove it", path=place, line=start + 1)
        turns.append(Message(_ROLES[name], content))
    return tuple(turns)
