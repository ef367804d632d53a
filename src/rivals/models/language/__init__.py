"""Language models behind one small door: a local one, or any endpoint that speaks OpenAI's protocol.

Names are loaded when first used, so importing this room loads neither torch nor httpx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.models.language.base import Completion, LanguageModel, Message, Prompt, Sampling, StreamingLanguageModel
    from rivals.models.language.budget import Budget, BudgetSpent, Usage
    from rivals.models.language.completion_cache import CachedLanguageModel
    from rivals.models.language.endpoint import EndpointLanguageModel
    from rivals.models.language.likelihood import Likelihood, response_log_probabilities
    from rivals.models.language.local import LocalLanguageModel
    from rivals.models.language.prompts import PromptTemplate

_HOME = {
    "Budget": "budget",
    "BudgetSpent": "budget",
    "CachedLanguageModel": "completion_cache",
    "Completion": "base",
    "EndpointLanguageModel": "endpoint",
    "LanguageModel": "base",
    "Likelihood": "likelihood",
    "LocalLanguageModel": "local",
    "Message": "base",
    "Prompt": "base",
    "PromptTemplate": "prompts",
    "Sampling": "base",
    "StreamingLanguageModel": "base",
    "Usage": "budget",
    "response_log_probabilities": "likelihood",
}

__all__ = [
    "Budget",
    "BudgetSpent",
    "CachedLanguageModel",
    "Completion",
    "EndpointLanguageModel",
    "LanguageModel",
    "Likelihood",
    "LocalLanguageModel",
    "Message",
    "Prompt",
    "PromptTemplate",
    "Sampling",
    "StreamingLanguageModel",
    "Usage",
    "response_log_probabilities",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rivals.models.language' has no attribute {name!r}")
    return getattr(import_module(f"rivals.models.language.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
