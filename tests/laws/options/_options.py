"""What can be declared about a loss for the laws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Options:
    """A loss's declarations.

    variants: options under which it is checked besides its defaults. always: options it is given every time, such as
    no noise where noise needs a generator. shift_invariant: unchanged when a constant is added to all scores of a list.
    extra: further keyword tensors [..., C] it needs, each "normal", "positive" (0.1 to 1) or "bool". relevance:
    "graded" (0 to 3) or "binary". exempt: laws it cannot obey, each with the reason. own_laws: the test file that holds
    its laws, for a function of a form `forms.classify` does not know.
    """

    variants: tuple[dict[str, Any], ...] = ()
    always: Mapping[str, Any] = field(default_factory=dict)
    shift_invariant: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)
    cosine: bool = False
    relevance: Literal["graded", "binary"] = "graded"
    exempt: Mapping[str, str] = field(default_factory=dict)
    own_laws: str = ""
