"""Answers of language models on disk, so that no prompt is paid for twice and an interrupted job goes on where it was.

One SQLite file in write-ahead mode: every answer is one transaction of its own, written when it arrives, so a kill at any
moment loses at most the answers that were on their way; several processes may share the file. It must lie on a local disk,
not on a network share.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals.errors import RivalsError
from rivals.models.language.base import (
    GREEDY,
    Completion,
    LanguageModel,
    Prompt,
    Sampling,
    StreamingLanguageModel,
    check_options,
    check_prompts,
)

_MARK = 0x5249564C  # "RIVL": says that the file is ours
_VERSION = 1
_LOOKUP = 500  # keys asked for in one query
_PATIENCE = 60.0  # seconds to wait for another process that is writing
_TABLES = (
    "CREATE TABLE IF NOT EXISTS completions (key BLOB PRIMARY KEY, text BLOB NOT NULL, finish TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS options (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {_MARK}",
    f"PRAGMA user_version = {_VERSION}",
)


class CachedLanguageModel(StreamingLanguageModel):
    """A language model whose answers are kept in a file; prompts seen before with the same settings are not sent.

    An answer is found by the model's name, the messages and every setting of the sampling; option log-probabilities by
    name, messages and options. Equal prompts in one call are sent once. Errors are never kept, nor option rows of which
    nothing is known, so the next run asks for them again. An answer from the file, or shared by an equal prompt of the same
    call, has `cached` True and no tokens.

    Args:
        model: the model to ask for what is missing; its `usage` counts the answers found here too (`cached`).
        path: the file; it is made when the first answer is looked for.
    When to use: around every model that costs money or minutes.
    Raises: RivalsError for a file that is something else, damaged, of a later version, or cannot be written.

    >>> import tempfile
    >>> class Echo(LanguageModel):
    ...     name = "echo"
    ...     def complete(self, prompts, sampling=Sampling(), *, show=False):
    ...         return [Completion(prompt.messages[-1].text, prompt_tokens=3) for prompt in prompts]
    ...     def option_log_probabilities(self, prompts, options, *, show=False):
    ...         return np.full((len(prompts), len(options)), np.nan, dtype=np.float32)
    >>> with tempfile.TemporaryDirectory() as folder, CachedLanguageModel(Echo(), Path(folder) / "answers.db") as model:
    ...     first, second = model.complete([Prompt.of("a")]), model.complete([Prompt.of("a")])
    >>> first[0].cached, second[0].cached, second[0].text
    (False, True, 'a')
    """

    def __init__(self, model: LanguageModel, path: str | os.PathLike[str]) -> None:
        self.model = model
        self.path = Path(path)
        self.name = model.name
        self.usage = model.usage
        self._file: sqlite3.Connection | None = None
        self._process = 0
        self._lock = threading.RLock()

    def __enter__(self) -> CachedLanguageModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["model"], state["path"])  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"CachedLanguageModel({self.model!r}, {str(self.path)!r})"

    def close(self) -> None:
        """Close the file; the next question opens it again."""
        with self._lock:
            if self._file is not None and self._process == os.getpid():
                self._file.close()
            self._file = None

    def iter_complete(
        self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY
    ) -> Generator[tuple[int, Completion], None, None]:
        """Yield (row, completion): first what is on disk, then what the model answers, kept as it comes."""
        check_prompts(prompts)
        setting = [
            sampling.max_tokens,
            float(sampling.temperature),
            float(sampling.top_p),
            list(sampling.stop),
            sampling.seed,
        ]
        rows = self._rows("completion", prompts, setting)
        for key, text, finish in self._found("SELECT key, text, finish FROM completions", list(rows)):
            for row in rows.pop(key):
                self.usage.add(cached=1)
                yield row, Completion(text.decode("utf-8", "surrogatepass"), finish, cached=True)
        missing = list(rows.items())
        asked = self.model.iter_complete([prompts[same[0]] for _, same in missing], sampling)
        with closing(asked) as coming:
            for place, answer in coming:
                key, same = missing[place]
                if answer.finish != "error":
                    text = answer.text.encode("utf-8", "surrogatepass")
                    self._keep("INSERT OR IGNORE INTO completions VALUES (?, ?, ?)", (key, text, answer.finish))
                yield same[0], answer
                copied = (
                    answer
                    if answer.finish == "error"
                    else replace(answer, prompt_tokens=0, completion_tokens=0, cached=True)
                )
                for row in same[1:]:
                    self.usage.add(cached=int(copied.cached), errors=int(not copied.cached))
                    yield row, copied

    def iter_option_log_probabilities(
        self, prompts: Sequence[Prompt], options: Sequence[str]
    ) -> Generator[tuple[int, NDArray[np.float32]], None, None]:
        """Yield (row, log-probabilities): first what is on disk, then what the model answers, kept as it comes."""
        check_prompts(prompts)
        check_options(options)
        rows = self._rows("options", prompts, list(options))
        for key, value in self._found("SELECT key, value FROM options", list(rows)):
            for row in rows.pop(key):
                self.usage.add(cached=1)
                yield row, np.frombuffer(value, dtype="<f4").astype(np.float32)
        missing = list(rows.items())
        asked = self.model.iter_option_log_probabilities([prompts[same[0]] for _, same in missing], options)
        with closing(asked) as coming:
            for place, values in coming:
                key, same = missing[place]
                known = not np.isnan(values).all()
                if known:
                    value = np.asarray(values, dtype="<f4").tobytes()
                    self._keep("INSERT OR IGNORE INTO options VALUES (?, ?)", (key, value))
                yield same[0], values
                for row in same[1:]:
                    self.usage.add(cached=int(known), errors=int(not known))
                    yield row, np.array(values)

    def _rows(self, kind: str, prompts: Sequence[Prompt], setting: list[Any]) -> dict[bytes, list[int]]:
        """The rows of every distinct key, in order of appearance."""
        rows: dict[bytes, list[int]] = {}
        for row, prompt in enumerate(prompts):
            turns = [[message.role, message.text] for message in prompt.messages]
            said = json.dumps([kind, self.name, turns, setting]).encode()
            rows.setdefault(hashlib.blake2b(said, digest_size=20).digest(), []).append(row)
        return rows

    def _found(self, query: str, keys: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(keys), _LOOKUP):
            some = keys[start : start + _LOOKUP]
            with self._told(), self._lock:
                records = self._open().execute(f"{query} WHERE key IN ({','.join('?' * len(some))})", some).fetchall()
            yield from records

    def _keep(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._told(), self._lock:
            self._open().execute(statement, values)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say in one line what is wrong with the file."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise RivalsError(
                f"{self.path}: the answers cannot be kept here ({error}); give another path, or free or restore this one"
            ) from None

    def _open(self) -> sqlite3.Connection:
        """The connection of this process: one that came over a fork is left alone."""
        if self._file is None or self._process != os.getpid():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(file)
            except BaseException:
                file.close()
                raise
            self._file, self._process = file, os.getpid()
        return self._file

    def _prepare(self, file: sqlite3.Connection) -> None:
        mark, version = (file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        empty = file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if mark != _MARK and not (empty and mark == 0):
            raise RivalsError(f"{self.path} is a database of something else; give the cache a file of its own")
        if version > _VERSION:
            raise RivalsError(f"{self.path} was written by a later version of rivals; update, or give another file")
        deadline = time.monotonic() + _PATIENCE
        while True:  # another process may be turning the same new file to write-ahead mode, which does not wait
            try:
                file.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        file.execute("PRAGMA synchronous = NORMAL")
        if mark != _MARK or version != _VERSION:
            file.execute("BEGIN IMMEDIATE")
            for statement in _TABLES:
                file.execute(statement)
            file.execute("COMMIT")
