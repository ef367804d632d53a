"""What judges and generators ask of a language model: complete prompts, or weigh the options of a question."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError
from rivals.models.language.budget import Usage
from rivals.progress import progress

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "refusal", "error"]

_BLOCK = 32  # prompts asked at a time where a model hands its answers over in lists only


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True)
class Prompt:
    """The conversation a model is to go on with; its last turn is usually the user's.

    >>> Prompt.of("Is water wet?", system="Answer Yes or No.").messages[0].role
    'system'
    """

    messages: tuple[Message, ...]

    @classmethod
    def of(cls, user: str, *, system: str = "") -> Prompt:
        """Return the prompt of one question, with a system message if there is one."""
        head = (Message("system", system),) if system else ()
        return cls((*head, Message("user", user)))


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn: up to `max_tokens` tokens; temperature 0 takes the likeliest token; `stop` strings end it.

    Raises:
        RivalsError: max_tokens below 1, temperature below 0 or not finite, top_p outside (0, 1], seed below 0,
            an empty stop string.

    >>> Sampling(max_tokens=8).temperature
    0.0
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise RivalsError(f"max_tokens must be 1 or more, not {self.max_tokens}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise RivalsError(f"temperature must be a finite number, 0 or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise RivalsError(f"top_p must lie in (0, 1], not {self.top_p}")
        if self.seed < 0:
            raise RivalsError(f"seed must be 0 or more, not {self.seed}")
        if isinstance(self.stop, str) or not all(isinstance(stop, str) and stop for stop in self.stop):
            raise RivalsError(f"stop must be a tuple of strings that are not empty, not {self.stop!r}")


GREEDY = Sampling()
"""The likeliest answer of up to 256 tokens: what a call without settings asks for."""


@dataclass(frozen=True)
class Completion:
    """What a model answered. `finish` says how it ended; with "error" the text is empty and `error` says why.

    `prompt_tokens` and `completion_tokens` count what was read and written; 0 for both if the answer came from the cache on
    disk (`cached`), for then nothing was spent.
    """

    text: str
    finish: Finish = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""
    cached: bool = False


def check_prompts(prompts: Sequence[Prompt]) -> None:
    """Raise RivalsError naming the first row that is not a prompt with at least one message.

    >>> check_prompts([Prompt(())])
    Traceback (most recent call last):
    rivals.errors.RivalsError: the prompt in row 0 has no message; give it at least one
    """
    if isinstance(prompts, Prompt):
        raise RivalsError("expected a list of prompts but got one prompt; put it in a list")
    for row, prompt in enumerate(prompts):
        if not isinstance(prompt, Prompt):
            raise RivalsError(f"row {row} is {type(prompt).__name__}, not Prompt; make one with Prompt.of(text)")
        if not prompt.messages:
            raise RivalsError(f"the prompt in row {row} has no message; give it at least one")


def check_options(options: Sequence[str]) -> None:
    """Raise RivalsError unless the options are one or more different strings, none of them empty.

    >>> check_options(["Yes", "Yes"])
    Traceback (most recent call last):
    rivals.errors.RivalsError: the option 'Yes' is given twice; give every option once
    """
    if isinstance(options, str) or not options:
        raise RivalsError("options must be a list of one or more strings, such as ['Yes', 'No']")
    for place, option in enumerate(options):
        if not isinstance(option, str) or not option:
            raise RivalsError(f"option {place} is {option!r}; every option must be a string that is not empty")
        if option in options[:place]:
            raise RivalsError(f"the option {option!r} is given twice; give every option once")


class LanguageModel(ABC):
    """A model that goes on with a text. `name` identifies it, weights and all, in caches and reports."""

    name: str

    @cached_property
    def usage(self) -> Usage:
        """What this model has been asked so far and what that used."""
        return Usage()

    @abstractmethod
    def complete(
        self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY, *, show: bool = False
    ) -> list[Completion]:
        """Return one completion per prompt, in order. One prompt's failure is its completion's, not the batch's."""

    @abstractmethod
    def option_log_probabilities(
        self, prompts: Sequence[Prompt], options: Sequence[str], *, show: bool = False
    ) -> NDArray[np.float32]:
        """Return log P(option | prompt) of each option as the answer's beginning, float32[N, K].

        NaN where the model does not tell, as an endpoint may that reports only its likeliest tokens, or fails.
        """

    def iter_complete(
        self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY
    ) -> Generator[tuple[int, Completion], None, None]:
        """Yield (row, completion) as answers come, every row once, in any order; what was yielded is not lost later."""
        for start in range(0, len(prompts), _BLOCK):
            yield from enumerate(self.complete(prompts[start : start + _BLOCK], sampling), start)

    def iter_option_log_probabilities(
        self, prompts: Sequence[Prompt], options: Sequence[str]
    ) -> Generator[tuple[int, NDArray[np.float32]], None, None]:
        """Yield (row, log-probabilities float32[K]) as answers come, every row once, in any order."""
        for start in range(0, len(prompts), _BLOCK):
            yield from enumerate(self.option_log_probabilities(prompts[start : start + _BLOCK], options), start)


class StreamingLanguageModel(LanguageModel):
    """A model that hands answers over one by one as they come; the forms that return all of them follow from that.

    When to use: as the base of a model whose answers arrive singly, so that an interrupted job keeps what it has.
    """

    @abstractmethod
    def iter_complete(
        self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY
    ) -> Generator[tuple[int, Completion], None, None]: ...

    @abstractmethod
    def iter_option_log_probabilities(
        self, prompts: Sequence[Prompt], options: Sequence[str]
    ) -> Generator[tuple[int, NDArray[np.float32]], None, None]: ...

    def complete(
        self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY, *, show: bool = False
    ) -> list[Completion]:
        """Return one completion per prompt, in order."""
        check_prompts(prompts)
        answers: dict[int, Completion] = {}
        with (
            progress("Asking the model", len(prompts), show=show) as advance,
            closing(self.iter_complete(prompts, sampling)) as coming,
        ):
            for row, answer in coming:
                answers[row] = answer
                advance(note=str(self.usage))
        return [answers[row] for row in range(len(prompts))]

    def option_log_probabilities(
        self, prompts: Sequence[Prompt], options: Sequence[str], *, show: bool = False
    ) -> NDArray[np.float32]:
        """Return log P(option | prompt) of each option as the answer's beginning, float32[N, K]; NaN = not known."""
        check_prompts(prompts)
        check_options(options)
        table = np.full((len(prompts), len(options)), np.nan, dtype=np.float32)
        with (
            progress("Weighing options", len(prompts), show=show) as advance,
            closing(self.iter_option_log_probabilities(prompts, options)) as coming,
        ):
            for row, values in coming:
                table[row] = values
                advance(note=str(self.usage))
        return table
