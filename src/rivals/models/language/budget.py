"""What language models have used, and a bound on it that holds: every request is paid for before it is sent."""

from __future__ import annotations

import json
import math
import os
import threading
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rivals.errors import DataError, RivalsError
from rivals.files import atomic_file

_LOCK = threading.Lock()  # one for all counts: they change a few times a second at most


class BudgetSpent(RivalsError):
    """The next request might exceed the budget, so it was not sent.

    Requests already on their way are waited for and their answers handed over first. With a `CachedLanguageModel` they
    are on disk, and the same job with a larger budget asks only for the rest.
    """


@dataclass
class Usage:
    """Counts of what a language model was asked.

    calls: requests sent, repeated ones included (for a local model: prompts read). prompt_tokens, completion_tokens:
    tokens read and written; of a request whose answer never arrived whole, the most it may have used. cost: in the
    currency of the prices given to the model. cached: answers that needed no request. errors: prompts without an answer.

    >>> usage = Usage()
    >>> usage.add(calls=2, prompt_tokens=1500, completion_tokens=20, cost=0.0031)
    >>> print(usage)
    2 calls, 1,500 tokens read, 20 written, cost 0.0031
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    cached: int = 0
    errors: int = 0

    def add(
        self,
        *,
        calls: int = 0,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        cost: float = 0.0,
        cached: int = 0,
        errors: int = 0,
    ) -> None:
        """Add to the counts; safe from several threads."""
        with _LOCK:
            self.calls += calls
            self.prompt_tokens += prompt_tokens
            self.completion_tokens += completion_tokens
            self.cost += cost
            self.cached += cached
            self.errors += errors

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens

    def __str__(self) -> str:
        parts = [f"{self.calls:,} call{'' if self.calls == 1 else 's'}", f"{self.prompt_tokens:,} tokens read"]
        parts.append(f"{self.completion_tokens:,} written")
        if self.cost:
            parts.append(f"cost {self.cost:.4g}")
        if self.cached:
            parts.append(f"{self.cached:,} from the cache")
        if self.errors:
            parts.append(f"{self.errors:,} error{'' if self.errors == 1 else 's'}")
        return ", ".join(parts)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the counts as JSON, whole or not at all."""
        with atomic_file(Path(path)) as out:
            json.dump(asdict(self), out, indent=2)
            out.write("\n")
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Usage:
        """Read counts that `save` wrote.

        Raises: DataError for a file that is missing or holds something else.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            counts = {field.name: int(found[field.name]) for field in fields(cls) if field.name != "cost"}
            usage = cls(cost=float(found["cost"]))
            usage.add(**counts)
            return usage
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"no counts of usage can be read here ({error}); save them anew", path=path) from None


@dataclass(frozen=True)
class Reservation:
    """The worst case of one request, held back until `settle` says what it came to."""

    budget: Budget
    tokens: int
    cost: float

    def settle(self, *, tokens: int, cost: float, calls: int = 1) -> None:
        """Give back what was held and book what was used. Once only."""
        with _LOCK:
            self.budget._held[0] -= 1
            self.budget._held[1] -= self.tokens
            self.budget._held[2] -= self.cost
            self.budget.calls += calls
            self.budget.tokens += tokens
            self.budget.cost += cost
            if not self.budget._held[0]:
                self.budget._held[2] = 0.0  # sums of fractions leave dust


class Budget:
    """Hard limits on what models may use; share one among the models of a job.

    max_tokens: read and written together. max_cost: in the currency of the prices the models were given. max_calls:
    requests sent, repeated ones included. None = no limit.
    Rule: a request is sent only if everything spent, everything held for requests on their way and this request's worst
    case together stay within every limit. The worst case is all the tokens it may write and as many read as its text has
    bytes, with an allowance for the conversation's marks; the limits hold as long as the server counts no more than that.
    Raises: RivalsError for a limit below 0 or not finite; BudgetSpent from `reserve`.

    >>> budget = Budget(max_tokens=100)
    >>> held = budget.reserve(tokens=60, cost=0.0)
    >>> budget.reserve(tokens=60, cost=0.0) is None  # it may yet fit once the first has settled
    True
    >>> held.settle(tokens=30, cost=0.0)
    >>> budget.tokens, budget.reserve(tokens=60, cost=0.0).tokens
    (30, 60)
    """

    def __init__(
        self, *, max_tokens: int | None = None, max_cost: float | None = None, max_calls: int | None = None
    ) -> None:
        for name, limit in (("max_tokens", max_tokens), ("max_cost", max_cost), ("max_calls", max_calls)):
            if limit is not None and not (math.isfinite(limit) and limit >= 0):
                raise RivalsError(f"{name} must be a finite number, 0 or more, or None for no limit, not {limit}")
        self.max_tokens = max_tokens
        self.max_cost = max_cost
        self.max_calls = max_calls
        self.calls = 0
        self.tokens = 0
        self.cost = 0.0
        self._held: list[float] = [0, 0, 0.0]  # requests, tokens, cost

    def reserve(self, *, tokens: int, cost: float) -> Reservation | None:
        """Hold the worst case of one request; None if it does not fit until requests on their way have settled.

        Raises: BudgetSpent if it cannot fit any more.
        """
        with _LOCK:
            limits = (
                ("calls", self.max_calls, self.calls, self._held[0], 1),
                ("tokens", self.max_tokens, self.tokens, self._held[1], tokens),
                ("cost", self.max_cost, self.cost, self._held[2], cost),
            )
            for what, limit, spent, _, wanted in limits:
                if limit is not None and spent + wanted > limit:
                    raise BudgetSpent(
                        f"the budget of {limit:,.6g} {what} is spent: {spent:,.6g} used, and the next request may take "
                        f"{wanted:,.6g}; raise max_{what} to go on"
                    )
            if any(limit is not None and spent + held + wanted > limit for _, limit, spent, held, wanted in limits):
                return None
            self._held[0] += 1
            self._held[1] += tokens
            self._held[2] += cost
        return Reservation(self, tokens, cost)

    def __repr__(self) -> str:
        limits = (("max_tokens", self.max_tokens), ("max_cost", self.max_cost), ("max_calls", self.max_calls))
        return f"Budget({', '.join(f'{name}={value!r}' for name, value in limits if value is not None)})"

    def __str__(self) -> str:
        used = (("calls", self.calls, self.max_calls), ("tokens", self.tokens, self.max_tokens))
        parts = [f"{spent:,} of {limit:,} {what}" for what, spent, limit in used if limit is not None]
        if self.max_cost is not None:
            parts.append(f"cost {self.cost:.4g} of {self.max_cost:.4g}")
        return ", ".join(parts) or "no limit"
