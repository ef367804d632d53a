"""Changes of queries: typos, case, punctuation, wording, synonyms, word order, negation. Each is a pure function."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from rivals.diagnose.robustness.edits import OPERATORS, TYPOS, Synonyms, perturb, replace_words, text_generator
from rivals.errors import RivalsError

if TYPE_CHECKING:
    from rivals.models.language import LanguageModel
    from rivals.negatives.generating import Generator

_MARKS = re.compile(r"[^\w\s]|_")
_PARAPHRASE = """[user]
Rewrite the search query below in other words. Keep its meaning, its names and its numbers. Answer with the rewritten \
query alone.

{query}
"""


class TextChange(ABC):
    """Changes texts, the same way for the same seed: every text has a generator of its own, so neither the order nor the
    neighbours of a text play a part. `keeps_meaning` says whether a good system should find the same as before."""

    keeps_meaning: ClassVar[bool] = True

    @property
    @abstractmethod
    def name(self) -> str:
        """What reports call it."""

    @abstractmethod
    def change(self, text: str, rng: np.random.Generator) -> str:
        """Return one text changed, or as it is where there is nothing to change."""

    def __call__(self, texts: Sequence[str], *, seed: int = 0) -> list[str]:
        """Return all texts changed."""
        return [self.change(text, text_generator(seed, self.name, text)) for text in texts]


@dataclass(frozen=True)
class Typos(TextChange):
    """Slips of the keyboard: `edits` edits a text, each by an operator drawn from `operators` (see `perturb`).

    When to use: always; it is what people type. Works in any alphabet; texts of short words stay as they are.

    Source: Wu et al. 2022, query attacks by character. Paper 55.

    Raises:
        RivalsError: edits below 1, no operator, an unknown one.

    >>> Typos()(["symptoms of glaucoma"], seed=1)
    ['symptoms of glaucma']
    """

    edits: int = 1
    operators: tuple[str, ...] = TYPOS

    def __post_init__(self) -> None:
        _check_count("edits", self.edits)
        unknown = [operator for operator in self.operators if operator not in OPERATORS]
        if unknown or not self.operators:
            raise RivalsError(f"operators are {self.operators}; give one or more of {', '.join(OPERATORS)}")

    @property
    def name(self) -> str:
        """What reports call it."""
        what = "typos" if self.operators == TYPOS else "+".join(self.operators)
        return what if self.edits == 1 else f"{what} x{self.edits}"

    def change(self, text: str, rng: np.random.Generator) -> str:
        """Return the text with its edits."""
        for _ in range(self.edits):
            text = perturb(text, self.operators[int(rng.integers(len(self.operators)))], rng)
        return text


@dataclass(frozen=True)
class ChangeCase(TextChange):
    """All letters lower, upper, or titled ("random": each word at random as it is, lower or upper).

    Raises:
        RivalsError: an unknown `to`.

    >>> ChangeCase("upper")(["Eye pain"])
    ['EYE PAIN']
    """

    to: Literal["lower", "upper", "title", "random"] = "lower"

    def __post_init__(self) -> None:
        if self.to not in ("lower", "upper", "title", "random"):
            raise RivalsError(f"to is {self.to!r}; it can be 'lower', 'upper', 'title' or 'random'")

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.to} case"

    def change(self, text: str, rng: np.random.Generator) -> str:
        """Return the text in the other case."""
        if self.to == "random":
            kinds = rng.integers(0, 3, len(text.split(" "))).tolist()
            forms = [(word, word.lower(), word.upper()) for word in text.split(" ")]
            return " ".join(form[kind] for form, kind in zip(forms, kinds, strict=True))
        return {"lower": text.lower(), "upper": text.upper(), "title": text.title()}[self.to]


@dataclass(frozen=True)
class ChangePunctuation(TextChange):
    """Punctuation left out, or superfluous marks put behind the text.

    Raises:
        RivalsError: an unknown `how`.

    >>> ChangePunctuation()(["What is beta-thalassemia ?"])
    ['What is beta thalassemia']
    """

    how: Literal["remove", "add"] = "remove"

    def __post_init__(self) -> None:
        if self.how not in ("remove", "add"):
            raise RivalsError(f"how is {self.how!r}; it can be 'remove' or 'add'")

    @property
    def name(self) -> str:
        """What reports call it."""
        return "no punctuation" if self.how == "remove" else "more punctuation"

    def change(self, text: str, rng: np.random.Generator) -> str:
        """Return the text with less or more punctuation."""
        if self.how == "remove":
            return " ".join(_MARKS.sub(" ", text).split()) or text
        return text + ("...", "!!", " ???", " !", ",")[int(rng.integers(5))]


@dataclass(frozen=True)
class Reword(TextChange):
    """Another frame around the query, drawn from `templates`, each with `{query}` where the query stands.

    The default frames are English; give those of your language. What follows a frame in front keeps its own case.

    Raises:
        RivalsError: no template, one without `{query}`.

    >>> Reword(("I want to know: {query}",))(["what is gout?"])
    ['I want to know: what is gout?']
    """

    templates: tuple[str, ...] = (
        "Please tell me: {query}",
        "I would like to know {query}",
        "{query} Thanks in advance.",
        "Can you help me with this: {query}",
        "My question is {query}",
    )

    def __post_init__(self) -> None:
        if not self.templates or any("{query}" not in template for template in self.templates):
            raise RivalsError("templates must be one or more texts with {query} where the query is to stand")

    @property
    def name(self) -> str:
        """What reports call it."""
        return "reworded by templates"

    def change(self, text: str, rng: np.random.Generator) -> str:
        """Return the query in a frame."""
        return self.templates[int(rng.integers(len(self.templates)))].replace("{query}", text)


@dataclass(frozen=True, eq=False)
class ReplaceSynonyms(TextChange):
    """Up to `words` words replaced from a table, lower-case word -> others; see `corpus_synonyms` for a table.

    Raises:
        RivalsError: an empty table, words below 1.

    >>> ReplaceSynonyms({"treatments": ["therapies"]})(["What are the treatments of gout ?"])
    ['What are the therapies of gout ?']
    """

    table: Synonyms
    words: int = 1

    def __post_init__(self) -> None:
        _check_count("words", self.words)
        if not any(self.table.values()):
            raise RivalsError("the table of synonyms is empty; give words and what may stand for them")

    @property
    def name(self) -> str:
        """What reports call it."""
        return "synonyms" if self.words == 1 else f"synonyms x{self.words}"

    def change(self, text: str, rng: np.random.Generator) -> str:
        """Return the text with some words replaced, each at most once."""
        return replace_words(text, rng, self.table, self.words)


@dataclass(frozen=True)
class WordOrder(TextChange):
    """The words in another order: `swaps` exchanges of neighbours, or all shuffled with None.

    A bag of words such as BM25 does not notice; a system that reads should mind a little.

    Raises:
        RivalsError: swaps below 1.

    >>> WordOrder()(["symptoms of gout"], seed=1)
    ['symptoms gout of']
    """

    swaps: int | None = None

    def __post_init__(self) -> None:
        if self.swaps is not None:
            _check_count("swaps", self.swaps)

    @property
    def name(self) -> str:
        """What reports call it."""
        return "shuffled words" if self.swaps is None else f"swapped words x{self.swaps}"

    def change(self, text: str, rng: np.random.Generator) -> str:
        """Return the text in another order."""
        if self.swaps is None:
            return " ".join(np.array(text.split(), dtype=object)[rng.permutation(len(text.split()))]) or text
        seen = [text]
        for _ in range(self.swaps):
            drawn = (perturb(seen[-1], "swap_words", rng) for _ in range(8))
            seen.append(next((other for other in drawn if other not in seen), seen[-1]))  # a swap must not undo another
        return seen[-1]


@dataclass(frozen=True)
class DropWords(TextChange):
    """`words` words left out, at random; one always stays.

    Raises:
        RivalsError: words below 1.

    >>> DropWords()(["symptoms of gout"], seed=3)
    ['symptoms of']
    """

    words: int = 1

    def __post_init__(self) -> None:
        _check_count("words", self.words)

    @property
    def name(self) -> str:
        """What reports call it."""
        return "dropped word" if self.words == 1 else f"dropped words x{self.words}"

    def change(self, text: str, rng: np.random.Generator) -> str:
        """Return the text without the words."""
        for _ in range(self.words):
            text = perturb(text, "drop_word", rng)
        return text


@dataclass(frozen=True)
class Negate(TextChange):
    """The query denied: a negation taken out, or put behind the first auxiliary, or in front where there is none.

    The meaning changes, so here a drop is right and its absence is the finding: a system that answers "which foods do not
    raise blood sugar" like "which foods raise blood sugar" does not see the word. `word` and `behind` are English; give
    those of your language.

    Source: the question behind Weller, Lawrie and Van Durme 2024, NevIR. Paper 93; see `contrast_pairs` for its own test.

    Raises:
        RivalsError: an empty word.

    >>> Negate()(["What are symptoms of gout?", "foods that do not hurt"])
    ['What are not symptoms of gout?', 'foods that do hurt']
    """

    word: str = "not"
    behind: tuple[str, ...] = (
        "is", "are", "was", "were", "do", "does", "did", "can", "could", "will", "would", "should", "has", "have", "may",
    )  # fmt: skip
    keeps_meaning: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.word.strip():
            raise RivalsError("word is empty; give the negation of your language, such as 'not'")

    @property
    def name(self) -> str:
        """What reports call it."""
        return "negated"

    def change(self, text: str, rng: np.random.Generator) -> str:
        """Return the text denied."""
        there = re.search(rf"\b{re.escape(self.word)}\b\s*", text, re.IGNORECASE)
        if there:
            return (text[: there.start()] + text[there.end() :]).strip() or text
        auxiliaries = "|".join(map(re.escape, self.behind)) or r"(?!)"
        first = re.search(rf"\b(?:{auxiliaries})\b", text, re.IGNORECASE)
        return f"{text[: first.end()]} {self.word}{text[first.end() :]}" if first else f"{self.word} {text}"


@dataclass(frozen=True, eq=False)
class Generated(TextChange):
    """Queries rewritten by a generator of texts, such as a language model; an empty answer leaves the query as it is.

    Any generator of `rivals.negatives.generating` will do. `paraphrases(model)` makes one that keeps the meaning; with a
    `TemplateGenerator`, which changes a detail, say `same_meaning=False`.
    """

    generator: Generator
    same_meaning: bool = True

    @property
    def keeps_meaning(self) -> bool:  # type: ignore[override]
        """Whether a good system should find the same as before."""
        return self.same_meaning

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"written by {self.generator.name}"

    def change(self, text: str, rng: np.random.Generator) -> str:
        """Return one text rewritten."""
        return self([text], seed=int(rng.integers(2**31)))[0]

    def __call__(self, texts: Sequence[str], *, seed: int = 0) -> list[str]:
        """Return all texts rewritten, in one call of the generator."""
        written = self.generator.generate(list(texts), [""] * len(texts), 1, seed=seed)
        if len(written) != len(texts):
            raise RivalsError(f"generator '{self.generator.name}' gave {len(written)} lists for {len(texts)} texts")
        return [found[0] if found and found[0].strip() else text for found, text in zip(written, texts, strict=True)]


def paraphrases(model: LanguageModel) -> Generated:
    """Return a change that lets a language model say each query in other words.

    >>> import numpy as np
    >>> from rivals.models.language import Completion, LanguageModel, Sampling
    >>> class Echo(LanguageModel):
    ...     name = "echo"
    ...     def complete(self, prompts, sampling=Sampling(), *, show=False):
    ...         return [Completion("How does gout show?") for _ in prompts]
    ...     def option_log_probabilities(self, prompts, options, *, show=False):
    ...         return np.full((len(prompts), len(options)), np.nan)
    >>> paraphrases(Echo())(["symptoms of gout"])
    ['How does gout show?']
    """
    from rivals.models.language import PromptTemplate
    from rivals.negatives.generating import PromptGenerator

    template = PromptTemplate.parse(_PARAPHRASE, place="the paraphrase prompt")
    return Generated(PromptGenerator(model, template, name=f"{model.name} in other words"))


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RivalsError(f"{name} must be a whole number, 1 or more, not {value!r}")
