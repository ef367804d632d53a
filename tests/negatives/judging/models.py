"""Judges and language models by rule, for tests of what is made of their verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rivals.data import Run
from rivals.models.language.base import GREEDY, Completion, LanguageModel, Prompt, Sampling
from rivals.negatives.judging import Verdicts


class RuleJudge:
    """Judges pairs by their ids and remembers which it was asked about, call by call."""

    def __init__(self, rule: Callable[[str, str], float], name: str = "rule") -> None:
        self.rule, self.name = rule, name
        self.calls: list[list[tuple[str, str]]] = []

    @property
    def asked(self) -> list[tuple[str, str]]:
        return [pair for call in self.calls for pair in call]

    def judge(self, run: Run) -> Verdicts:
        queries, documents = run.queries.ids[run.query], run.documents.ids[run.document]
        self.calls.append(list(zip(queries.tolist(), documents.tolist(), strict=True)))
        return Verdicts(np.array([self.rule(*pair) for pair in self.calls[-1]], dtype=np.float32))


class RuleModel(LanguageModel):
    """Answers what a rule says about the last message; options come from another rule, NaN without one."""

    def __init__(
        self,
        say: Callable[[str], str | Completion],
        weigh: Callable[[str], Sequence[float]] | None = None,
        name: str = "rule-model",
    ) -> None:
        self.say, self.weigh, self.name = say, weigh, name
        self.prompts: list[Prompt] = []
        self.weighed: list[Prompt] = []
        self.seeds: list[int] = []

    def complete(
        self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY, *, show: bool = False
    ) -> list[Completion]:
        self.prompts += prompts
        self.seeds.append(sampling.seed)
        said = [self.say(prompt.messages[-1].text) for prompt in prompts]
        return [answer if isinstance(answer, Completion) else Completion(answer) for answer in said]

    def option_log_probabilities(self, prompts: Sequence[Prompt], options: Sequence[str], *, show: bool = False) -> Any:
        self.weighed += prompts
        if self.weigh is None:
            return np.full((len(prompts), len(options)), np.nan, dtype=np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(np.array([self.weigh(prompt.messages[-1].text) for prompt in prompts], dtype=np.float64))
