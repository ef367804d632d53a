"""What goes wrong around a training run (a full disk, no memory left) told in one message, with what is left to go on from."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from rivals.errors import RivalsError
from rivals.training.checkpoint import newest_step

#: How torch words a failed allocation on the CPU, where it raises a plain RuntimeError.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc")
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file got too large",
}


@contextmanager
def explained(step: int, folder: Path | None) -> Iterator[None]:
    """Turn a failed write or allocation inside the block into one clear error that says where the run stands.

    Args:
        step: the step under way, counted from 1. folder: of the checkpoints, if there is one.

    Raises:
        RivalsError: instead of an OSError, a failed write of weights or a failed allocation; other errors pass.

    >>> import os
    >>> with explained(3, None):
    ...     raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "log.jsonl")
    Traceback (most recent call last):
    ...
    rivals.errors.RivalsError: step 3: the disk is full (log.jsonl); free some space and begin again: without a folder nothing was saved
    """
    from safetensors import SafetensorError

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise RivalsError(_out_of_memory(step, folder)) from None
    except (OSError, SafetensorError) as error:
        raise RivalsError(f"step {step}: {_reason(error)}; {_go_on('free some space', folder)}") from None
    except RuntimeError as error:
        if any(words in str(error) for words in _NO_MEMORY):
            raise RivalsError(_out_of_memory(step, folder)) from None
        raise


@contextmanager
def refresh_explained(step: int, folder: Path | None) -> Iterator[None]:
    """Say of an error inside a refresh that it was one, at which step, and where the run goes on once it is put right.

    A refresh asks others: a teacher's folder, a judge's server, a file of negatives. What they are missing is not a failed
    write, and the run up to here is not lost.

    Args:
        step: the step under way, counted from 1. folder: of the checkpoints, if there is one.

    Raises:
        RivalsError: instead of a RivalsError or OSError from the refresh; a full disk is left to `explained`.

    >>> with refresh_explained(7, None):
    ...     raise RivalsError("no judge")
    Traceback (most recent call last):
    ...
    rivals.errors.RivalsError: step 7: the refresh failed: no judge; put that right and begin again: without a folder nothing was saved
    """
    try:
        yield
    except (RivalsError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        said = str(error).rstrip(".")
        raise RivalsError(f"step {step}: the refresh failed: {said}; {_go_on('put that right', folder)}") from error


def _out_of_memory(step: int, folder: Path | None) -> str:
    lower = "lower batch_size or chunk_tokens, or set gradient_cache = true, which needs the memory of one chunk only"
    return f"step {step}: out of memory; {lower}. {_go_on('', folder)}"


def _reason(error: Exception) -> str:
    """Say what failed; safetensors gives its system errors as text only."""
    code = error.errno if isinstance(error, OSError) else None
    text = str(error)
    for number, words in _FULL.items():
        if code == number or f"os error {number})" in text:
            file = getattr(error, "filename", None)
            return f"{words} ({file})" if file else words
    return f"writing failed ({text})"


def _go_on(first: str, folder: Path | None) -> str:
    first = f"{first} and " if first else ""
    saved = None if folder is None else newest_step(folder)
    if folder is None:
        return f"{first}begin again: without a folder nothing was saved"
    if saved is None:
        return f"{first}begin again: {folder} holds no checkpoint yet"
    return f"{first}resume: the checkpoint of step {saved} in {folder} is intact"
