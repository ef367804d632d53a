"""A cached job in a process of its own, to be killed in the middle: python jobs.py URL FILE COUNT CONCURRENCY."""

from __future__ import annotations

import signal
import sys

from rivals.models.language import CachedLanguageModel, EndpointLanguageModel, Prompt


def questions(count: int) -> list[Prompt]:
    """Return the prompts of the job."""
    return [Prompt.of(f"question {number}") for number in range(count)]


def model_at(url: str, file: str, concurrency: int) -> CachedLanguageModel:
    """Return the cached model of the job."""
    return CachedLanguageModel(EndpointLanguageModel(url, "m", concurrency=concurrency, name="m"), file)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    url, file, count, concurrency = sys.argv[1:]
    try:
        model_at(url, file, int(concurrency)).complete(questions(int(count)))
    except KeyboardInterrupt:
        sys.exit(130)
