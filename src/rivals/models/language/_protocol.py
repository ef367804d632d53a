"""OpenAI's chat protocol: what a request says, and what an answer means."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals.models.language.base import Completion, Finish, Prompt, Sampling

LimitField = Literal["max_tokens", "max_completion_tokens"]

_MARKS = 16  # tokens allowed for the marks around one message, and once for those around the conversation


def request_body(
    model: str, prompt: Prompt, sampling: Sampling, *, limit_field: LimitField, extra: Mapping[str, Any] | None = None
) -> bytes:
    """Return the JSON of a request; what the server does by default is left out, for not every server knows it."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.text} for message in prompt.messages],
        limit_field: sampling.max_tokens,
        "temperature": sampling.temperature,
    }
    if sampling.top_p < 1:
        body["top_p"] = sampling.top_p
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.temperature > 0:
        body["seed"] = sampling.seed
    return json.dumps(body | dict(extra or {})).encode()


def most_prompt_tokens(prompt: Prompt) -> int:
    """Return a number of tokens that no tokenizer over bytes exceeds: one a byte, and the conversation's marks.

    >>> most_prompt_tokens(Prompt.of("Is water wet?"))
    45
    """
    return _MARKS + sum(len(message.text.encode("utf-8", "surrogatepass")) + _MARKS for message in prompt.messages)


class Unanswered(Exception):
    """What came back is no answer: broken JSON, or JSON that says something else."""


def read_answer(content: bytes) -> dict[str, Any]:
    """Return the JSON of an answer that has a choice.

    Raises: Unanswered for anything else.
    """
    try:
        answer = json.loads(content)
    except ValueError:
        raise Unanswered("the answer is broken JSON, perhaps cut short") from None
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Unanswered(error_text(content) or "the answer holds no choice")
    return dict(answer)


def error_text(content: bytes) -> str:
    """Return what a server says went wrong, on one line, at most 300 characters."""
    text = content[:10_000].decode("utf-8", "replace")
    try:
        said = json.loads(content)
    except ValueError:
        return " ".join(text.split())[:300]
    error = said.get("error", said.get("message", said.get("detail"))) if isinstance(said, dict) else said
    if isinstance(error, dict):
        error = error.get("message", error)
    return "" if error is None else " ".join(str(error).split())[:300]


def spent_tokens(answer: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the tokens (read, written) that an answer reports, None if it reports none."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return None
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
    if not (isinstance(read, int) and isinstance(written, int) and min(read, written) >= 0):
        return None
    return read, written


def completion_of(answer: Mapping[str, Any], read: int, written: int) -> Completion:
    """Return the completion in an answer: its text, and whether it stopped, ran out of tokens or is a refusal."""
    choice = answer["choices"][0]
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    content = message.get("content")
    if isinstance(content, list):  # parts; those of text count
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    refusal, reason = message.get("refusal"), choice.get("finish_reason")
    finish: Finish = "length" if reason == "length" else "stop"
    if refusal or reason == "content_filter":
        finish = "refusal"
    return Completion(str(refusal or content or ""), finish, read, written)


def option_values(answer: Mapping[str, Any], options: Sequence[str]) -> NDArray[np.float32]:
    """Return log P of each option as the answer's beginning from the likeliest tokens reported, NaN where it is not seen.

    An option of one token is looked up among those reported for the first place. One of several tokens is followed along
    the answer that was written, and summed; off that way nothing is known of it. If no reported token begins the option,
    blanks before the first token are overlooked.
    """
    logprobs = answer["choices"][0].get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    places = [place for place in content if isinstance(place, dict)] if isinstance(content, list) else []
    return np.array([_value(places, option) for option in options], dtype=np.float32)


def _value(places: Sequence[Mapping[str, Any]], option: str) -> float:
    total, left = 0.0, option
    for number, place in enumerate(places):
        reported = {
            str(entry["token"]): float(entry["logprob"])
            for entry in [place, *(place.get("top_logprobs") or [])]
            if isinstance(entry, dict) and entry.get("token") and isinstance(entry.get("logprob"), int | float)
        }
        written = str(place.get("token", ""))
        begins = [token for token in reported if left.startswith(token)]
        if not begins and number == 0:
            reported = {token.lstrip(): value for token, value in reversed(reported.items()) if token.strip()}
            written = written.lstrip()
            begins = [token for token in reported if left.startswith(token)]
        if not begins:
            return math.nan
        longest = max(begins, key=len)
        total, left = total + reported[longest], left[len(longest) :]
        if not left:
            return total
        if longest != written:
            return math.nan
    return math.nan


def seconds_to_wait(header: str | None) -> float | None:
    """Return what a Retry-After header asks for, in seconds from now; None if there is none or it cannot be read.

    >>> seconds_to_wait("2.5"), seconds_to_wait("Thu, 01 Jan 1970 00:00:00 GMT"), seconds_to_wait("soon")
    (2.5, 0.0, None)
    """
    if header is None:
        return None
    try:
        wait = float(header)
    except ValueError:
        try:
            when = parsedate_to_datetime(header)
        except ValueError:
            return None
        wait = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(wait, 0.0) if math.isfinite(wait) else None
