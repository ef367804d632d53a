"""The errors a user can meet. Each message says what is wrong, where, and what to do.

All of them are `ValueError`s, so a caller who knows nothing of `rivals` can still catch them; the command line prints the
message on one line and exits with status 2, without a traceback.
"""

from __future__ import annotations


class RivalsError(ValueError):
    """Something the caller can put right: bad input, a bad option, a missing file."""


class DataError(RivalsError):
    """Data that cannot be read, with the place of the fault.

    >>> str(DataError("no field 'id'; every document needs one", path="docs.jsonl", line=3))
    "docs.jsonl, line 3: no field 'id'; every document needs one"
    >>> str(DataError("no id", path="docs.parquet", line=3, unit="row"))
    'docs.parquet, row 3: no id'
    """

    def __init__(self, message: str, *, path: object = None, line: int | None = None, unit: str = "line") -> None:
        self.path = None if path is None else str(path)
        self.line = line
        place = "" if path is None else str(path) + ("" if line is None else f", {unit} {line}") + ": "
        super().__init__(place + message)


class ModelError(RivalsError):
    """A model folder or name that cannot be used."""


class IndexDamaged(RivalsError):
    """An index folder that is incomplete, altered or of another version."""


class RunFolderError(RivalsError):
    """A run folder that cannot be read or resumed."""
