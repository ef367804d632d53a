"""Language models behind a URL: any server that speaks OpenAI's chat protocol, hosted or your own."""

from __future__ import annotations

import asyncio
import math
import os
import random
import re
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError
from rivals.models.language._protocol import (
    LimitField,
    Unanswered,
    completion_of,
    error_text,
    most_prompt_tokens,
    option_values,
    read_answer,
    request_body,
    seconds_to_wait,
    spent_tokens,
)
from rivals.models.language._sending import Ask, as_answered
from rivals.models.language.base import (
    GREEDY,
    Completion,
    Prompt,
    Sampling,
    StreamingLanguageModel,
    check_options,
    check_prompts,
)
from rivals.models.language.budget import Budget

T = TypeVar("T")

_HOPELESS = 32  # prompts in a row that failed after all tries, none answered between: the server is gone
_ALL_FAIL = {401: "it refuses the key", 402: "its account has no credit", 404: "there is no such model or address"}
_ALL_FAIL |= {405: "nothing there takes chat requests"}


class _Again(Exception):
    """This try failed and another may not; `wait`: how long the server asks for; `billed`: it may have been charged."""

    def __init__(self, reason: str, *, wait: float | None = None, billed: bool = False, sent: bool = True) -> None:
        super().__init__(reason)
        self.wait, self.billed, self.sent = wait, billed, sent


class _Failed(Exception):
    """This prompt will not be answered."""


@dataclass
class _Job:
    """What the requests of one call share: the connection, when sending may go on, and whether it is over."""

    client: Any
    headers: Mapping[str, str] = field(repr=False)
    resume_at: float = 0.0
    failed_in_a_row: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the job."""
        try:
            await asyncio.wait_for(self.over.wait(), seconds)
        except TimeoutError:
            return


class EndpointLanguageModel(StreamingLanguageModel):
    """A language model behind a URL that speaks OpenAI's `/chat/completions`.

    Failures that may pass (429, 5xx, no answer in time, a lost connection, broken JSON) are tried again after
    `backoff * 2^k` seconds, jittered by up to a half; what a server asks for in Retry-After is waited for by every
    request. Other 4xx fail that prompt at once, or the whole job where no prompt can succeed (401, 402, 404, 405), as
    does a server that fails 32 prompts in a row. Errors name the server, never the key.

    Args:
        url: up to `/v1`, such as `https://api.example.org/v1`; `/chat/completions` is added where it is missing.
        model: the server's name of it.
        api_key_variable: the NAME of the environment variable that holds the key. The key itself is read when a request
            is sent and kept nowhere, so it is in no file, log, representation or pickle.
        concurrency: requests on their way at once.
        timeout: seconds for one try, from sending to the last byte.
        retries: further tries after the first. backoff: seconds before the first of them. max_wait: the longest single
            wait; a server that asks for more ends the job.
        price_in, price_out: for a million tokens read and written, in any currency; for `usage.cost` and the budget.
        budget: a hard limit. The worst case of every try is reserved before it is sent; when it does not fit any more,
            the answers on their way are handed over and `BudgetSpent` is raised. A try whose answer never arrived
            whole, or reports no usage, is booked at its worst case, since the server may charge for it.
        top_logprobs: how many of the likeliest tokens to ask for, 1 to 20; some servers give 5 at most.
        limit_field: how the server calls the longest answer; some newer models want max_completion_tokens.
        name: names the model in caches and reports; by default model and URL.
        seed: of the jitter.

    When to use: judges and generators larger than this machine. Wrap it in `CachedLanguageModel`, so that nothing is
    paid for twice.
    Raises: RivalsError for an argument out of range, an environment variable that is not set, a missing httpx (install
    `rivals[judge]`), or a server that answers nothing.

    >>> model = EndpointLanguageModel("http://127.0.0.1:8000/v1", "small-judge", concurrency=4)
    >>> model
    EndpointLanguageModel('small-judge at http://127.0.0.1:8000/v1/chat/completions')
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key_variable: str | None = None,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 5,
        backoff: float = 1.0,
        max_wait: float = 120.0,
        price_in: float = 0.0,
        price_out: float = 0.0,
        budget: Budget | None = None,
        top_logprobs: int = 20,
        limit_field: LimitField = "max_tokens",
        name: str = "",
        seed: int = 0,
    ) -> None:
        self._address, shown = _address(url)
        if not model.strip():
            raise RivalsError("model is empty; give the name that the server knows the model by")
        _check_variable(api_key_variable)
        for what, value, least in (
            ("concurrency", concurrency, 1),
            ("retries", retries, 0),
            ("top_logprobs", top_logprobs, 1),
        ):
            if value < least:
                raise RivalsError(f"{what} must be {least} or more, not {value}")
        amounts = (("backoff", backoff), ("max_wait", max_wait), ("price_in", price_in), ("price_out", price_out))
        for what, amount in amounts:
            if not (math.isfinite(amount) and amount >= 0):
                raise RivalsError(f"{what} must be a finite number, 0 or more, not {amount}")
        if not (math.isfinite(timeout) and timeout > 0):
            raise RivalsError(f"timeout must be a finite number of seconds above 0, not {timeout}")
        if limit_field not in ("max_tokens", "max_completion_tokens"):
            raise RivalsError(f"limit_field must be max_tokens or max_completion_tokens, not {limit_field!r}")
        if budget is not None and budget.max_cost is not None and price_in == price_out == 0:
            raise RivalsError("a budget with max_cost needs the model's prices; give price_in and price_out")
        self.model, self.api_key_variable, self.concurrency = model, api_key_variable, concurrency
        self.timeout, self.retries, self.backoff, self.max_wait = timeout, retries, backoff, max_wait
        self.price_in, self.price_out, self.budget = price_in, price_out, budget
        self.top_logprobs, self.limit_field, self.seed = top_logprobs, limit_field, seed
        self.name = name or f"{model} at {shown}"

    def __repr__(self) -> str:
        return f"EndpointLanguageModel({self.name!r})"

    def iter_complete(
        self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY
    ) -> Generator[tuple[int, Completion], None, None]:
        """Yield (row, completion) as answers come; see `LanguageModel.iter_complete`.

        Raises: BudgetSpent, or RivalsError where no prompt can succeed, after the answers on their way.
        """
        check_prompts(prompts)

        def body(row: int) -> bytes:
            return request_body(self.model, prompts[row], sampling, limit_field=self.limit_field)

        return self._ask_all(
            prompts, body, sampling.max_tokens, completion_of, lambda reason: Completion("", "error", error=reason)
        )

    def iter_option_log_probabilities(
        self, prompts: Sequence[Prompt], options: Sequence[str]
    ) -> Generator[tuple[int, NDArray[np.float32]], None, None]:
        """Yield (row, log-probabilities) as answers come: NaN for an option not among the tokens reported.

        An option of several tokens is known only where it is the answer that the model begins with.
        Raises: as `iter_complete`.
        """
        check_prompts(prompts)
        check_options(options)
        sampling = Sampling(max_tokens=min(max(len(option.encode()) for option in options), 16))
        extra = {"logprobs": True, "top_logprobs": self.top_logprobs}

        def body(row: int) -> bytes:
            return request_body(self.model, prompts[row], sampling, limit_field=self.limit_field, extra=extra)

        def read(answer: Mapping[str, Any], _read: int, _written: int) -> NDArray[np.float32]:
            return option_values(answer, options)

        nothing = np.full(len(options), np.nan, dtype=np.float32)
        return self._ask_all(prompts, body, sampling.max_tokens, read, lambda _: nothing.copy())

    def _ask_all(
        self,
        prompts: Sequence[Prompt],
        body: Callable[[int], bytes],
        most_written: int,
        read: Callable[[Mapping[str, Any], int, int], T],
        failure: Callable[[str], T],
    ) -> Generator[tuple[int, T], None, None]:
        headers = self._headers()

        @asynccontextmanager
        async def session() -> AsyncGenerator[Ask[T], None]:
            import httpx

            limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
            async with httpx.AsyncClient(timeout=None, limits=limits) as client:
                job = _Job(client, headers)

                async def ask(row: int) -> T:
                    worst = most_prompt_tokens(prompts[row]), most_written
                    try:
                        answer, used = await self._tries(job, row, body(row), worst)
                    except _Failed as failed:
                        self.usage.add(errors=1)
                        return failure(str(failed))
                    except Exception:
                        job.over.set()
                        raise
                    return read(answer, *used)

                yield ask

        return as_answered(session, len(prompts), concurrency=self.concurrency)

    def _headers(self) -> dict[str, str]:
        try:
            import httpx  # noqa: F401
        except ImportError:
            raise RivalsError("asking an endpoint needs httpx; install rivals[judge]") from None
        headers = {"Content-Type": "application/json"}
        if self.api_key_variable is not None:
            key = os.environ.get(self.api_key_variable, "").strip()
            if not key or not key.isascii() or not key.isprintable():
                raise RivalsError(f"the environment variable {self.api_key_variable} holds no key; set it")
            headers["Authorization"] = f"Bearer {key}"
        return headers

    async def _tries(
        self, job: _Job, row: int, body: bytes, worst: tuple[int, int]
    ) -> tuple[dict[str, Any], tuple[int, int]]:
        """Return (answer, tokens used) of one prompt, after as many tries as it takes."""
        reason = ""
        for attempt in range(self.retries + 1):
            while (pause := job.resume_at - time.monotonic()) > 0 and not job.over.is_set():
                await job.wait(pause)
            if job.over.is_set():
                raise _Failed(reason or "not sent: the job ended before")
            try:
                found = await self._pay(job, body, worst)
                job.failed_in_a_row = 0
                return found
            except _Again as again:
                reason = self._clean(job, str(again))
                if again.wait is not None:
                    if again.wait > self.max_wait:
                        raise RivalsError(
                            f"{self.name} asks to wait {again.wait:.0f} s, longer than max_wait ({self.max_wait:g} s); "
                            f"go on later ({reason})"
                        ) from None
                    job.resume_at = max(job.resume_at, time.monotonic() + again.wait)
                elif attempt < self.retries:
                    jitter = random.Random(f"{self.seed} {row} {attempt}").uniform(0.5, 1.0)
                    await job.wait(min(self.backoff * 2**attempt * jitter, self.max_wait))
        job.failed_in_a_row += 1
        tries = f"{self.retries + 1} tr{'y' if self.retries == 0 else 'ies'}"
        if job.failed_in_a_row >= _HOPELESS:
            raise RivalsError(f"{self.name} failed {_HOPELESS} prompts in a row, each after {tries}; last: {reason}")
        raise _Failed(f"{reason} ({tries})")

    async def _pay(self, job: _Job, body: bytes, worst: tuple[int, int]) -> tuple[dict[str, Any], tuple[int, int]]:
        """Reserve, send, book: whatever happens, cancellation included, the reservation is settled."""
        held = None
        while self.budget is not None and held is None:
            held = self.budget.reserve(tokens=sum(worst), cost=self._cost(*worst))
            if held is None:
                await asyncio.sleep(0.01)
        used, calls = worst, 1  # until it is known to be less
        try:
            answer = await self._send(job, body)
            used = spent_tokens(answer) or worst
            return answer, used
        except _Again as again:
            calls = int(again.sent)
            used = used if again.billed else (0, 0)
            raise
        except (_Failed, RivalsError):
            used = (0, 0)
            raise
        finally:
            self.usage.add(calls=calls, prompt_tokens=used[0], completion_tokens=used[1], cost=self._cost(*used))
            if held is not None:
                held.settle(tokens=sum(used), cost=self._cost(*used), calls=calls)

    async def _send(self, job: _Job, body: bytes) -> dict[str, Any]:
        import httpx

        try:
            async with asyncio.timeout(self.timeout):
                response = await job.client.post(self._address, content=body, headers=job.headers)
        except TimeoutError:
            raise _Again(f"no answer within {self.timeout:g} s", billed=True) from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _Again(f"no connection: {str(error) or type(error).__name__}", sent=False) from None
        except httpx.HTTPError as error:
            raise _Again(f"the connection was lost: {str(error) or type(error).__name__}", billed=True) from None
        status, said = response.status_code, error_text(response.content)
        told = f"HTTP {status}{': ' if said else ''}{said}"
        if status in (408, 429) or status >= 500:
            raise _Again(told, wait=seconds_to_wait(response.headers.get("Retry-After")))
        if status in _ALL_FAIL or 300 <= status < 400:
            why = _ALL_FAIL.get(status, "it has moved; give the new address")
            raise RivalsError(self._clean(job, f"{self.name}: {why} ({told})"))
        if status >= 400:
            raise _Failed(self._clean(job, told))
        try:
            return read_answer(response.content)
        except Unanswered as error:
            raise _Again(str(error), billed=True) from None

    def _cost(self, read: int, written: int) -> float:
        return (read * self.price_in + written * self.price_out) / 1e6

    def _clean(self, job: _Job, text: str) -> str:
        """Take the key out of what a server said."""
        key = job.headers.get("Authorization", "").removeprefix("Bearer ")
        return text.replace(key, "***") if key else text


def _address(url: str) -> tuple[str, str]:
    """Return (where to post, how to show it): shown without the query, which may hold what is nobody's business."""
    try:
        parts = urlsplit(url.strip())
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound:
        raise RivalsError("the URL of an endpoint begins with http:// or https:// and names a host")
    if parts.username or parts.password:
        raise RivalsError("the URL of an endpoint must hold no user or password; name the key's variable instead")
    if re.search(r"(?:^|&)(?:api[-_]?key|key|token|access[-_]token)=", parts.query, re.IGNORECASE):
        raise RivalsError("the URL of an endpoint must hold no key; put it in a variable and name that")
    path = parts.path.rstrip("/")
    path = path if path.endswith("/chat/completions") else f"{path}/chat/completions"
    return (
        urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")),
        urlunsplit((parts.scheme, parts.netloc, path, "", "")),
    )


def _check_variable(name: str | None) -> None:
    if name is None:
        return
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name):  # it may be the key itself: it is not shown
        raise RivalsError(
            "api_key_variable must be the name of an environment variable, in capitals such as OPENAI_API_KEY, not a key"
        )
    if not os.environ.get(name, "").strip():
        raise RivalsError(f"the environment variable {name} holds no key; set it")
