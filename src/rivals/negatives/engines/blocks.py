"""Marked runs in files, a block of queries each: written by any worker, whole or not at all, and found again on resume.

A block is `block-000003.npz`, the run's columns as arrays, and `block-000003.json`, the marker, which is written last and
holds the checksum: without a marker that fits there is no block. `job.json` says what the blocks are of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from rivals.data.collection import Collection
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.files import atomic_file, checksum
from rivals.negatives.mine import Marked

_JOB = "job.json"
_FEATURE = "feature."
_TABLES = ("queries", "documents", "features")
_ARRAYS = tuple(f.name for f in fields(Run) if "NDArray" in str(f.type) and f.name != "features")
_FACTS = tuple(f.name for f in fields(Run) if f.name not in (*_ARRAYS, *_TABLES))


class BlockFolder:
    """A folder of blocks of one job.

    Every machine that works on the job sees the folder under the same path.

    >>> import tempfile
    >>> run = Run.build(Collection(["q"]), Collection(["a", "b"]), [0, 2], [0, 1], [.9, .8])
    >>> with tempfile.TemporaryDirectory() as place:
    ...     folder = BlockFolder(place)
    ...     folder.begin({"queries": 1})
    ...     folder.write(0, Marked(run, ("bm25",)))
    ...     folder.has(0), folder.has(1), folder.read(0, run.queries, run.documents).run.score.tolist()
    (True, False, [0.8999999761581421, 0.800000011920929])
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def begin(self, about: Mapping[str, Any]) -> None:
        """Start a job in the folder, or go on with the same one.

        Raises:
            RivalsError: the folder holds blocks of another job, or something else.
        """
        stated = json.loads(json.dumps(about))
        try:
            found = json.loads((self.path / _JOB).read_text(encoding="utf-8"))
        except FileNotFoundError:
            found = None
        except (OSError, ValueError) as error:
            raise RivalsError(f"{self.path / _JOB} cannot be read ({error}); remove the folder to start anew") from None
        if found is None:
            if self.path.exists() and not self.path.is_dir():
                raise RivalsError(f"{self.path} is a file; give a folder for the blocks")
            with atomic_file(self.path / _JOB) as out:
                json.dump(stated, out, indent=1, ensure_ascii=False)
        elif found != stated:
            differs = sorted(name for name in {*found, *stated} if found.get(name) != stated.get(name))
            raise RivalsError(
                f"{self.path} holds blocks of another job ({', '.join(differs)} differ); go on with the same data and "
                "options, or give a new folder"
            )

    def has(self, number: int) -> bool:
        """Whether a block is there, whole."""
        return self._marker(number) is not None

    def write(self, number: int, marked: Marked) -> None:
        """Write a block and, last, its marker."""
        run = marked.run
        arrays = {name: getattr(run, name) for name in _ARRAYS}
        arrays |= {_FEATURE + name: column for name, column in run.features.items()}
        with atomic_file(self._file(number), "wb") as out:
            np.savez(out, allow_pickle=False, **arrays)
        about = {
            "checksum": checksum(self._file(number)),
            "rows": len(run),
            "facts": {name: getattr(run, name) for name in _FACTS},
            "steps": marked.steps,
            "notes": marked.notes,
        }
        with atomic_file(self._file(number).with_suffix(".json")) as out:
            json.dump(about, out, ensure_ascii=False)

    def read(self, number: int, queries: Collection, documents: Collection) -> Marked:
        """Read a block over its queries and the job's documents.

        Raises:
            RivalsError: it is not there, or damaged.
        """
        marker = self._marker(number)
        if marker is None:
            raise RivalsError(
                f"{self._file(number)} is missing or damaged; mine again with the same folder to write it"
            )
        with np.load(self._file(number), allow_pickle=False) as found:
            arrays: dict[str, Any] = {name: found[name] for name in found.files}
        features = {name.removeprefix(_FEATURE): arrays.pop(name) for name in list(arrays) if name.startswith(_FEATURE)}
        facts: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in marker["facts"].items()
        }
        run = Run(queries=queries, documents=documents, features=features, **arrays, **facts)
        return Marked(run, tuple(marker["steps"]), tuple(marker["notes"]))

    def _file(self, number: int) -> Path:
        return self.path / f"block-{number:06}.npz"

    def _marker(self, number: int) -> dict[str, Any] | None:
        """The marker of a block whose file fits it, else None."""
        try:
            marker: dict[str, Any] = json.loads(self._file(number).with_suffix(".json").read_text(encoding="utf-8"))
            return marker if marker["checksum"] == checksum(self._file(number)) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
