"""`Generator`: who writes the negatives. Here a language model with a prompt file; writers by rule are in `rules`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from rivals.errors import RivalsError
from rivals.models.language.base import Completion, LanguageModel, Prompt, Sampling
from rivals.models.language.prompts import PromptTemplate
from rivals.negatives.judging.prompted import failed, template_of

#: The packaged prompts: query_from_passage, negative_from_query, negative_from_query_and_passage, query_variants,
#: query_one_detail. Copy one, edit it and hand its path to a `PromptGenerator`.
WRITER_PROMPTS = Path(__file__).with_name("prompts")

_PASSAGE = Sampling(max_tokens=200, temperature=0.7)
_BULLET = re.compile(r"^\s*(?:[-*•–]+|\(?\d{1,3}[.):]|\[\d{1,3}\])\s*")
_LABEL = re.compile(
    r"^[*#\s]*(?:hard\s+negative\s*)?(?:passage|question|query|text|document|answer)[*\s]*:[*\s]*", re.IGNORECASE
)
_PREAMBLE = re.compile(r"^(?:sure|certainly|of course|here(?:'s| is| are))\b.*:\s*$", re.IGNORECASE)
_QUOTES = {'"': '"', "“": "”", "'": "'", "«": "»"}


@runtime_checkable
class Generator(Protocol):
    """Writes texts for pairs of a query and its positive.

    What it writes for a pair depends on the pair, `n` and `seed` only, not on the other pairs of the call, so that blocks
    of any size give the same texts.
    """

    @property
    def name(self) -> str:
        """Names the generator in collections and reports."""

    def generate(self, queries: Sequence[str], positives: Sequence[str], n: int, *, seed: int) -> list[list[str]]:
        """Return up to `n` texts for each pair (queries[i], positives[i]); positives[i] is "" where there is none."""


class PromptGenerator:
    """A language model that writes what a prompt file asks for.

    The file may use {query}, {positive} and {n}. Without {positive} the writer works from the query alone and never sees
    the positive; without {query}, as in `query_from_passage`, it writes queries.

    Args:
        template: the prompt file; packaged ones are in `WRITER_PROMPTS`.
        lines: one call gives all n texts, one a line (numbers and bullets are taken off); otherwise n calls give one
            each, with seeds of their own.
        sampling: 0.7 is warm enough for n calls to differ. An answer cut at max_tokens loses its unfinished last
            sentence.

    Source: Don't Retrieve, Generate (2025, paper 68), which prompts with and without the positive; Wasserman et al. 2025,
    DocReRank (paper 9), with lines=True and 12 variants. The wording of the prompts is our own.

    Raises:
        DataError: a prompt file with unknown fields, or with none of {query} and {positive}.

    >>> class Echo(LanguageModel):
    ...     name = "echo"
    ...     def complete(self, prompts, sampling=Sampling(), *, show=False):
    ...         return [Completion("Passage: “Water is dry.”") for _ in prompts]
    ...     def option_log_probabilities(self, prompts, options, *, show=False):
    ...         return np.full((len(prompts), len(options)), np.nan)
    >>> PromptGenerator(Echo()).generate(["Is water wet?"], [""], 1, seed=0)
    [['Water is dry.']]
    """

    def __init__(
        self,
        model: LanguageModel,
        template: PromptTemplate | str | Path = WRITER_PROMPTS / "negative_from_query.txt",
        *,
        lines: bool = False,
        sampling: Sampling = _PASSAGE,
        name: str = "",
    ) -> None:
        self.model, self.lines, self.sampling = model, lines, sampling
        self.template = template_of(template, (), ("query", "positive", "n"))
        if not {"query", "positive"} & set(self.template.fields):
            raise RivalsError(f"the prompt {self.template.place} uses neither {{query}} nor {{positive}}; put one in")
        self.name = name or f"{model.name} {Path(self.template.place).stem}"

    @property
    def needs_positive(self) -> bool:
        """Whether the prompt shows the positive."""
        return "positive" in self.template.fields

    def generate(self, queries: Sequence[str], positives: Sequence[str], n: int, *, seed: int) -> list[list[str]]:
        """Return the texts that the model wrote, cleaned of labels and quotes; an answer that failed gives an empty one."""
        prompts = [self._prompt(*pair, n) for pair in zip(queries, positives, strict=True)]
        if not prompts:
            return []
        if self.lines:
            answers = self.model.complete(prompts, replace(self.sampling, seed=_seed(seed, 0)))
            return [_lines(answer)[:n] for answer in answers]
        drawn = [self.model.complete(prompts, replace(self.sampling, seed=_seed(seed, turn))) for turn in range(n)]
        return [[_passage(answer) for answer in answers] for answers in zip(*drawn, strict=True)]

    def _prompt(self, query: str, positive: str, n: int) -> Prompt:
        values = {"query": query, "positive": positive, "n": str(n)}
        return self.template.fill({name: values[name] for name in self.template.fields})

    def __repr__(self) -> str:
        return f"PromptGenerator({self.name})"


def _seed(seed: int, turn: int) -> int:
    """A seed of its own for every call, the same in every process."""
    return int(np.random.SeedSequence([seed, turn]).generate_state(1)[0])


def _passage(answer: Completion) -> str:
    """The passage in an answer, without preamble, label, quotes and, if it was cut, its unfinished last sentence."""
    if failed(answer):
        return ""
    rows = [row for row in answer.text.strip().splitlines() if row.strip()]
    rows = rows[1:] if len(rows) > 1 and _PREAMBLE.match(rows[0]) else rows
    text = _unquoted(_LABEL.sub("", " ".join(" ".join(rows).split())))
    if answer.finish == "length":
        end = max(text.rfind(mark) for mark in (". ", "! ", "? ", "。"))
        text = text[: end + 1] if end >= 0 else text
    return text


def _lines(answer: Completion) -> list[str]:
    if failed(answer):
        return [""]
    rows = [row for row in answer.text.strip().splitlines() if row.strip()]
    rows = rows[1:] if len(rows) > 1 and _PREAMBLE.match(rows[0]) else rows
    rows = rows[:-1] if answer.finish == "length" and len(rows) > 1 else rows
    texts = [_unquoted(_LABEL.sub("", _BULLET.sub("", row)).strip()) for row in rows]
    return [text for text in texts if text] or [""]


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        return text[1:-1].strip()
    return text
