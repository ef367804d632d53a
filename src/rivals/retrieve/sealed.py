"""Folders that are either whole and as written, or refused: the on-disk form of everything this room saves.

A sealed folder holds its files and `metadata.json`, which names the kind of folder, the format's version and every
file's size and checksum. It is written under a temporary name, flushed and renamed, so a kill leaves the old folder
or none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals.errors import IndexDamaged, RivalsError
from rivals.files import atomic_folder, checksum

METADATA = "metadata.json"
LARGE = 200 << 20  # bytes; checksums of larger files are compared only on request


@contextmanager
def sealing(folder: str | Path, *, kind: str, version: int, about: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder to fill; then seal it and let it take the name `folder`.

    Raises:
        RivalsError: `folder` exists and is not a sealed folder of this kind, which is never overwritten.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with sealing(Path(place) / "x", kind="note", version=1, about={"words": 2}) as inside:
    ...         _ = (inside / "note.txt").write_text("two words")
    ...     unseal(Path(place) / "x", kind="note", version=1, rebuild="write it again")["words"]
    2
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and _kind_of(target) != kind)):
        raise RivalsError(f"{target} exists and is not a {kind} folder; choose another name or remove it first")
    with atomic_folder(target) as inside:
        yield inside
        files = {
            str(file.relative_to(inside).as_posix()): {"bytes": file.stat().st_size, "checksum": checksum(file)}
            for file in sorted(inside.rglob("*"))
            if file.is_file()
        }
        metadata = {"kind": kind, "version": version, **about, "files": files}
        text = json.dumps(metadata, indent=2, ensure_ascii=False)
        body = {"checksum": _text_checksum(text), "metadata": metadata}
        (inside / METADATA).write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def unseal(folder: str | Path, *, kind: str, version: int, rebuild: str, verify: bool | None = None) -> dict[str, Any]:
    """Check a sealed folder and return its metadata.

    Args:
        kind, version: what this code reads; an older version is refused as a newer one is, with other words.
        rebuild: how the user makes the folder again, for the message.
        verify: compare checksums of all files (True), of none (False), of files below 200 MB (None). Sizes always.

    Raises:
        IndexDamaged: no such folder, a file missing, of another size or content, metadata unreadable, another kind or
            version.
    """
    target = Path(folder)

    def damaged(what: str) -> IndexDamaged:
        return IndexDamaged(f"{target}: {what}; rebuild it with {rebuild}")

    if not target.is_dir():
        raise damaged(f"there is no such {kind} folder")
    try:
        body = json.loads((target / METADATA).read_text(encoding="utf-8"))
        metadata = body["metadata"]
        stated = body["checksum"]
        files = {str(name): (int(file["bytes"]), str(file["checksum"])) for name, file in metadata["files"].items()}
        found, numbered = metadata["kind"], int(metadata["version"])
    except FileNotFoundError:
        raise damaged(f"{METADATA} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise damaged(f"{METADATA} cannot be read") from None
    if stated != _text_checksum(json.dumps(metadata, indent=2, ensure_ascii=False)):
        raise damaged(f"{METADATA} was altered after it was written")
    if found != kind:
        raise damaged(f"this is a {found} folder, not a {kind} folder")
    if numbered != version:
        age = "a newer" if numbered > version else "an older"
        raise damaged(f"its format has version {numbered}, {age} one than this rivals reads ({version})")
    for name, (size, digest) in files.items():
        file = target / name
        if not file.is_file():
            raise damaged(f"{name} is missing")
        if file.stat().st_size != size:
            raise damaged(f"{name} has {file.stat().st_size} bytes and should have {size}")
        if (verify or (verify is None and size < LARGE)) and checksum(file) != digest:
            raise damaged(f"{name} was altered after it was written (its checksum differs)")
    return dict(metadata)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy, without pickling."""
    np.save(path, np.ascontiguousarray(array), allow_pickle=False)


def map_array(path: Path) -> NDArray[Any]:
    """Memory-map a .npy file; arrays without elements cannot be mapped and are read.

    Copy-on-write, because compiled kernels are compiled anew for read-only arrays; the file never changes.
    """
    try:
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except ValueError:
        return np.load(path, allow_pickle=False)


def _text_checksum(text: str) -> str:
    import hashlib

    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _kind_of(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / METADATA).read_text(encoding="utf-8"))["metadata"]["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
