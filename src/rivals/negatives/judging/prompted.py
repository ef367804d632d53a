"""Language models as judges: yes or no, a grade, or one call for a query and all of its candidates."""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rivals.data.run import Run
from rivals.errors import DataError, RivalsError
from rivals.models.language.base import Completion, LanguageModel, Prompt, Sampling
from rivals.models.language.prompts import PromptTemplate
from rivals.negatives.judging.answers import read_grade, read_selection, read_yes_no
from rivals.negatives.judging.judges import Verdicts

#: The packaged prompts: yes_no, answerable, answer_found, grade, list. Copy one, edit it and hand its path to a judge.
JUDGE_PROMPTS = Path(__file__).with_name("prompts")

_ONE_WORD = Sampling(max_tokens=16)
_REASONED = Sampling(max_tokens=2048, temperature=0.1)

Read = Literal["options", "text"]


class _PairJudge(ABC):
    """What judges of single pairs share: one prompt a pair, equal prompts asked once, long texts cut and counted."""

    def __init__(
        self,
        model: LanguageModel,
        template: PromptTemplate | str | Path,
        options: Sequence[str],
        *,
        read: Read,
        sampling: Sampling,
        max_words: int,
        name: str,
    ) -> None:
        if read not in ("options", "text"):
            raise RivalsError(f"read must be 'options' or 'text', not {read!r}")
        if len({option.strip().casefold() for option in options if option.strip()}) < len(options):
            raise RivalsError(f"the answers must be different words, not {', '.join(map(repr, options))}")
        self.model, self.template = model, template_of(template, ("query", "document"))
        self.options, self.read, self.sampling, self.name = tuple(options), read, sampling, name
        self.max_words = check_count(max_words, "max_words")

    def judge(self, run: Run) -> Verdicts:
        """Return the scores of all candidates; what the options do not tell is asked for as text."""
        texts = PromptTexts(run, self.max_words)
        prompts = [
            self.template.fill({"query": texts.query(query), "document": texts.document(document)})
            for query, document in zip(run.query.tolist(), run.document.tolist(), strict=True)
        ]
        number: dict[Prompt, int] = {}
        place = np.array([number.setdefault(prompt, len(number)) for prompt in prompts], dtype=np.int64)
        distinct = list(number)
        score = np.full(len(distinct), np.nan)
        if self.read == "options" and distinct:
            told = self.model.option_log_probabilities(distinct, self.options)
            score = self._from_options(np.asarray(told, dtype=np.float64))
        left = np.flatnonzero(np.isnan(score))
        if len(left):
            answers = self.model.complete([distinct[row] for row in left], self.sampling)
            score[left] = [math.nan if failed(answer) else self._from_text(answer.text) for answer in answers]
        return Verdicts(score[place].astype(np.float32), len(distinct), int(np.isnan(score).sum()), texts.cut)

    @abstractmethod
    def _from_options(self, log_probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return scores [N] from log-probabilities [N, K], NaN where they tell too little."""

    @abstractmethod
    def _from_text(self, text: str) -> float:
        """Return the score that an answer gives, or NaN."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


class YesNoJudge(_PairJudge):
    """Asks a language model about every pair and weighs its Yes against its No.

    s = P(yes) / (P(yes) + P(no)) = sigmoid(z_yes - z_no), z the log-probabilities of the answer's beginning. Where the
    model reports only one of the two words, the other gets all that is left: P(yes), or 1 - P(no). Where it reports
    neither, it is asked to answer in words, and s is 1 or 0; an answer that says neither, a refusal or a failure is NaN.

    When to use: soft relevance for `JudgeThreshold` and for training targets, verification of generated texts, the cheap
    stage of a `Cascade`. A small model's scores order candidates better than its 0.5 divides them: `judge_agreement`
    against some labels says where to cut.

    Args:
        template: a prompt file with {query} and {document}.
        yes, no: the answer words, as the prompt asks for them.
        read: "options" (log-probabilities) or "text" (always the answer in words, for models that think first; give
            `sampling` room for that).
        max_words: longer queries and documents are cut there and counted in `Verdicts.cut`.
        name: names the judge in reasons and reports; two prompts of one model need two names.

    Source: Gu et al. 2025, UniME-V2 (paper 7), plain logits without the repetition penalty of its example data; the
    two-token softmax of paper 9.

    Raises:
        RivalsError: a template without {query} or {document}; answers that are no two words; max_words below 1.

    >>> from rivals.data import Collection
    >>> class Sure(LanguageModel):
    ...     name = "sure"
    ...     def complete(self, prompts, sampling=Sampling(), *, show=False):
    ...         return [Completion("Yes") for _ in prompts]
    ...     def option_log_probabilities(self, prompts, options, *, show=False):
    ...         return np.log([[0.6, 0.2]] * len(prompts))
    >>> run = Run.build(Collection(["q"], ["wet?"]), Collection(["a"], ["water"]), [0, 1], [0], [.9])
    >>> YesNoJudge(Sure()).judge(run).score.round(3).tolist()
    [0.75]
    """

    def __init__(
        self,
        model: LanguageModel,
        template: PromptTemplate | str | Path = JUDGE_PROMPTS / "yes_no.txt",
        *,
        yes: str = "Yes",
        no: str = "No",
        read: Read = "options",
        sampling: Sampling = _ONE_WORD,
        max_words: int = 400,
        name: str = "",
    ) -> None:
        super().__init__(
            model,
            template,
            (yes, no),
            read=read,
            sampling=sampling,
            max_words=max_words,
            name=name or f"{model.name} yes/no",
        )

    def _from_options(self, log_probability: NDArray[np.float64]) -> NDArray[np.float64]:
        yes, no = log_probability.T
        both = 1 / (1 + np.exp(np.clip(no - yes, -700, 700)))
        only_yes, only_no = np.exp(np.minimum(yes, 0)), 1 - np.exp(np.minimum(no, 0))
        return np.where(np.isnan(no), only_yes, np.where(np.isnan(yes), only_no, both))

    def _from_text(self, text: str) -> float:
        return read_yes_no(text, *self.options)


class GradedJudge(_PairJudge):
    """Asks a language model for a grade 0..highest of every pair, scaled to [0, 1].

    s = sum_g p_g g / highest, p the softmax of the log-probabilities of the digits; with expected=False the likeliest
    grade alone. Where the model reports less than half of the probability on digits, and not all of them, it is asked to
    answer in words; an answer without a grade is NaN.

    When to use: targets with steps between "same subject" and "answer", as TREC-like labels have.

    Args:
        template: a prompt file with {query} and {document} that explains the grades; packaged for 0..3.
        highest: the best grade, 1 to 9.
        Others: see `YesNoJudge`.

    Source: graded judging as TREC assessors do; expected grades over digit probabilities, Zhuang et al. 2024. Paper 7
    asks the same question with two grades.

    Raises:
        RivalsError: highest not in 1..9; as `YesNoJudge`.

    >>> from rivals.data import Collection
    >>> class Torn(LanguageModel):
    ...     name = "torn"
    ...     def complete(self, prompts, sampling=Sampling(), *, show=False):
    ...         return [Completion("Grade: 2") for _ in prompts]
    ...     def option_log_probabilities(self, prompts, options, *, show=False):
    ...         return np.log([[0.1, 0.1, 0.4, 0.4]] * len(prompts))
    >>> run = Run.build(Collection(["q"], ["wet?"]), Collection(["a"], ["water"]), [0, 1], [0], [.9])
    >>> [round(float(j.judge(run).score[0]), 3) for j in (GradedJudge(Torn()), GradedJudge(Torn(), read="text"))]
    [0.7, 0.667]
    """

    def __init__(
        self,
        model: LanguageModel,
        template: PromptTemplate | str | Path = JUDGE_PROMPTS / "grade.txt",
        *,
        highest: int = 3,
        expected: bool = True,
        read: Read = "options",
        sampling: Sampling = _ONE_WORD,
        max_words: int = 400,
        name: str = "",
    ) -> None:
        if not 1 <= check_count(highest, "highest") <= 9:
            raise RivalsError(f"highest must lie in 1..9, one digit, not {highest}")
        self.highest, self.expected = highest, expected
        super().__init__(
            model,
            template,
            [str(grade) for grade in range(highest + 1)],
            read=read,
            sampling=sampling,
            max_words=max_words,
            name=name or f"{model.name} grade",
        )

    def _from_options(self, log_probability: NDArray[np.float64]) -> NDArray[np.float64]:
        known = ~np.isnan(log_probability)
        mass = np.where(known, np.exp(np.minimum(np.where(known, log_probability, 0.0), 0)), 0.0).sum(1)
        enough = known.all(1) | (mass >= 0.5)
        filled = np.where(known, log_probability, -np.inf)
        best = np.where(known.any(1), filled.max(1), 0.0)
        share = np.exp(filled - best[:, None])
        share /= np.maximum(share.sum(1, keepdims=True), 1e-300)
        grade = share @ np.arange(self.highest + 1.0) if self.expected else share.argmax(1).astype(np.float64)
        return np.where(enough, np.clip(grade / self.highest, 0, 1), np.nan)

    def _from_text(self, text: str) -> float:
        return read_grade(text, self.highest) / self.highest


class ListJudge:
    """One call for a query, its positives and up to `group` candidates: which of them are relevant too?

    Seeing the positives tells the model what counts as an answer, and a call for many candidates costs less than many
    calls. Candidates are shuffled in each call, seeded by `seed`, query and call, and mapped back, since models favour
    places in a list. More than `group` candidates make several calls, in rank order. Flagged ones score 1, the others 0;
    an answer that cannot be read, a refusal or a failure flags nothing: NaN for its candidates, and counted.

    When to use: both stages of a `Cascade` with models able to follow it; models of a few hundred million parameters
    are not.

    Args:
        template: a prompt file with {query}, {positives} and {candidates}, which asks to close with "Relevant: 2, 5" or
            "Relevant: none".
        sampling: room to think, temperature 0.1.
        max_words: longer texts are cut there and counted in `Verdicts.cut`.

    Source: Thakur et al. 2025, RLHN (paper 26); the wording is our own.

    Raises:
        RivalsError: a template without its fields; group or max_words below 1; seed below 0.

    >>> from rivals.data import Collection
    >>> class Second(LanguageModel):
    ...     name = "second"
    ...     def complete(self, prompts, sampling=Sampling(), *, show=False):
    ...         texts = [prompt.messages[-1].text for prompt in prompts]
    ...         return [Completion(f"Relevant: {2 if '[2] damp' in text else 1}") for text in texts]
    ...     def option_log_probabilities(self, prompts, options, *, show=False):
    ...         return np.full((len(prompts), len(options)), np.nan)
    >>> run = Run.build(Collection(["q"], ["wet?"]), Collection(["a", "b"], ["dry", "damp"]), [0, 2], [0, 1], [.9, .8])
    >>> ListJudge(Second()).judge(run).score.tolist()
    [0.0, 1.0]
    """

    def __init__(
        self,
        model: LanguageModel,
        template: PromptTemplate | str | Path = JUDGE_PROMPTS / "list.txt",
        *,
        group: int = 25,
        seed: int = 0,
        sampling: Sampling = _REASONED,
        max_words: int = 400,
        name: str = "",
    ) -> None:
        if seed < 0:
            raise RivalsError(f"seed must be 0 or more, not {seed}")
        self.model, self.template = model, template_of(template, ("query", "positives", "candidates"))
        self.group, self.max_words = check_count(group, "group"), check_count(max_words, "max_words")
        self.seed, self.sampling, self.name = seed, sampling, name or f"{model.name} list"

    def judge(self, run: Run) -> Verdicts:
        """Return 1 for what the model flags, 0 for the rest of what it judged."""
        texts = PromptTexts(run, self.max_words)
        calls: list[NDArray[np.int64]] = []  # the run's rows in the order shown
        prompts: list[Prompt] = []
        for query in np.flatnonzero(np.diff(run.offsets)).tolist():
            known = run.positive[run.positive_offsets[query] : run.positive_offsets[query + 1]]
            positives = "\n".join(f"- {texts.document(row)}" for row in known.tolist()) or "(none is known)"
            for call, start in enumerate(range(int(run.offsets[query]), int(run.offsets[query + 1]), self.group)):
                rows = np.arange(start, min(start + self.group, int(run.offsets[query + 1])))
                about = [self.seed, zlib.crc32(str(run.queries.ids[query]).encode()), call]
                rows = np.random.default_rng(about).permutation(rows)
                listed = "\n".join(
                    f"[{number}] {texts.document(row)}" for number, row in enumerate(run.document[rows].tolist(), 1)
                )
                calls.append(rows)
                values = {"query": texts.query(query), "positives": positives, "candidates": listed}
                prompts.append(self.template.fill(values))
        score = np.full(len(run), np.nan, dtype=np.float32)
        unreadable = 0
        for rows, answer in zip(calls, self.model.complete(prompts, self.sampling) if prompts else (), strict=True):
            flagged = None if failed(answer) else read_selection(answer.text, len(rows))
            if flagged is None:
                unreadable += 1
            else:
                score[rows] = flagged
        return Verdicts(score, len(prompts), unreadable, texts.cut)

    def __repr__(self) -> str:
        return f"ListJudge({self.name})"


# ------------------------------------------------------------------------------------------------ shared parts


class PromptTexts:
    """The texts of a run as prompts show them: blanks collapsed, cut after `max_words` words; `cut` counts the cut ones."""

    def __init__(self, run: Run, max_words: int) -> None:
        self._queries, self._documents, self._limit = run.queries.full_texts, run.documents.full_texts, max_words
        self._shown: dict[tuple[bool, int], str] = {}
        self.cut = 0

    def query(self, row: int) -> str:
        """Return the text of a query."""
        return self._show(True, row, self._queries)

    def document(self, row: int) -> str:
        """Return the text of a document, with its title."""
        return self._show(False, row, self._documents)

    def _show(self, asked: bool, row: int, texts: Sequence[str]) -> str:
        shown = self._shown.get((asked, row))
        if shown is None:
            words = texts[row].split()
            self.cut += len(words) > self._limit
            shown = " ".join(words[: self._limit]) + (" …" if len(words) > self._limit else "")
            self._shown[asked, row] = shown
        return shown


def template_of(
    given: PromptTemplate | str | Path, needed: Iterable[str], optional: Iterable[str] = ()
) -> PromptTemplate:
    """Return a prompt template, loaded if a path is given, that has all fields needed and no unknown ones.

    Raises:
        DataError: naming the file and the field.
    """
    if not isinstance(given, PromptTemplate):
        return PromptTemplate.load(given, fields=needed, optional=optional)
    needed, known = frozenset(needed), frozenset(needed) | frozenset(optional)
    wrong = [*(f"lacks {{{name}}}" for name in sorted(needed - set(given.fields)))]
    wrong += [f"has the unknown field {{{name}}}" for name in given.fields if name not in known]
    if wrong:
        raise DataError(
            f"{'; '.join(wrong)}; its fields are {', '.join(f'{{{name}}}' for name in sorted(known))}", path=given.place
        )
    return replace(given, allowed=known)


def failed(answer: Completion) -> bool:
    """Return whether a completion holds no answer: the model refused or the call failed."""
    return answer.finish in ("refusal", "error")


def check_count(value: int, name: str) -> int:
    """Return a whole number of at least 1, or raise a RivalsError that names it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise RivalsError(f"{name} must be a whole number, 1 or more, not {value!r}")
    return int(value)
