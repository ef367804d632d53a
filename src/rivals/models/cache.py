"""A folder of vectors already computed, found by model and text.

Layout: `segments/<time>-<process>-<random>.seg`, each written once and never altered: a header (magic, rows, width),
one 128-bit key and one 64-bit checksum a row, the float32 vectors, and a closing mark. A segment is written beside its
place and renamed, a file of the wrong size is ignored, and a row whose checksum fails counts as absent: a crash or a
damaged disk costs time, never a wrong vector. Several processes may read and write one folder.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from rivals.errors import RivalsError
from rivals.files import atomic_file

_MAGIC = b"RIVALSV1"
_HEADER = struct.Struct("<8sQQ")
_END = b"COMPLETE"
_FLUSH_ROWS = 4096
_STALE_SECONDS = 86400


@dataclass(frozen=True, slots=True)
class _Segment:
    path: Path
    size: int
    rows: int
    width: int

    def keys(self) -> np.ndarray:
        return np.fromfile(self.path, dtype=np.uint64, count=2 * self.rows, offset=_HEADER.size).reshape(self.rows, 2)

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (vectors, sound): the rows asked for and whether each one's checksum holds."""
        raw = np.memmap(self.path, dtype=np.uint8, mode="r")
        if raw.size != self.size:
            raise OSError("the file has changed its size")
        sums = raw[_HEADER.size + 16 * self.rows : _HEADER.size + 24 * self.rows].view(np.uint64)
        start = _HEADER.size + 24 * self.rows
        table = raw[start : start + 4 * self.rows * self.width].view(np.float32).reshape(self.rows, self.width)
        vectors = np.array(table[rows])
        return vectors, _row_sums(vectors) == sums[rows]


def _row_sums(vectors: np.ndarray) -> np.ndarray:
    words = np.ascontiguousarray(vectors).view(np.uint32).astype(np.uint64)
    weights = (np.arange(vectors.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)) * np.uint64(
        0x9E3779B97F4A7C15
    )
    return (words * weights).sum(1, dtype=np.uint64) + np.uint64(vectors.shape[1])


def text_keys(space: str, texts: Sequence[str]) -> np.ndarray:
    """Return a 128-bit key of every text within a space (model, prompt, length, dtype), uint64[N, 2].

    >>> keys = text_keys("model", ["a", "b", "a"])
    >>> bool((keys[0] == keys[2]).all()), bool((keys[0] == keys[1]).all())
    (True, False)
    """
    seed = hashlib.blake2b(space.encode("utf-8", "surrogatepass"), digest_size=32)
    base = hashlib.blake2b(key=seed.digest(), digest_size=16)
    digests = []
    for text in texts:
        one = base.copy()
        one.update(text.encode("utf-8", "surrogatepass"))
        digests.append(one.digest())
    return np.frombuffer(b"".join(digests), dtype=np.uint64).reshape(len(texts), 2)


class VectorCache:
    """Vectors on disk, found by (model, prompt, length, dtype) and text; float32, bit for bit as computed.

    max_bytes: when the folder grows beyond it the oldest segments are deleted. hits, misses: rows found and not found
    so far.
    When to use: pass it to `Encoder.encode`; texts seen before with the same weights then cost a lookup.
    Raises: RivalsError when the folder cannot be made.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, VectorCache(folder) as cache:
    ...     keys = text_keys("model", ["a", "b"])
    ...     cache.put(keys[:1], np.ones((1, 3), np.float32))
    ...     vectors, found = cache.get(keys, 3)
    >>> found.tolist(), vectors[0].tolist()
    ([True, False], [1.0, 1.0, 1.0])
    """

    def __init__(self, folder: str | os.PathLike[str], *, max_bytes: int = 4 << 30) -> None:
        if max_bytes < 0:
            raise RivalsError(f"max_bytes is {max_bytes}; it must not be negative")
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self._segments: dict[str, _Segment | None] = {}
        self._index: tuple[np.ndarray, np.ndarray, list[_Segment]] | None = None
        self._pending: dict[int, dict[bytes, np.ndarray]] = {}
        self._lock = threading.RLock()
        try:
            self._place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RivalsError(
                f"{self.folder}: the vector cache cannot be made here ({error.strerror or error})"
            ) from None
        self._remove_stale()

    @property
    def _place(self) -> Path:
        return self.folder / "segments"

    def __enter__(self) -> VectorCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def _remove_stale(self) -> None:
        """Delete what killed writers left behind, once it is a day old."""
        for path in self._place.glob(".*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
            except OSError:
                continue

    def _open(self, path: Path) -> _Segment | None:
        try:
            size = path.stat().st_size
            with open(path, "rb") as file:
                head = file.read(_HEADER.size)
                file.seek(-min(len(_END), size), os.SEEK_END)
                end = file.read()
        except OSError:
            return None
        if len(head) != _HEADER.size or end != _END:
            return None
        magic, rows, width = _HEADER.unpack(head)
        sound = magic == _MAGIC and size == _HEADER.size + rows * (24 + 4 * width) + len(_END)
        return _Segment(path, size, rows, width) if sound else None

    def _refresh(self) -> None:
        """Learn of segments that came or went, of this process or another."""
        try:
            names = {entry.name for entry in os.scandir(self._place) if entry.name.endswith(".seg")}
        except FileNotFoundError:
            names = set()
        gone, new = self._segments.keys() - names, names - self._segments.keys()
        for name in gone:
            del self._segments[name]
        for name in new:
            self._segments[name] = self._open(self._place / name)
        if gone or new or self._index is None:
            self._build()

    def _build(self) -> None:
        listed: list[_Segment] = []
        keys, place = [], []
        for _, segment in sorted(self._segments.items()):
            if segment is None:
                continue
            try:
                keys.append(segment.keys())
            except (OSError, ValueError):
                continue
            place.append(
                np.stack([np.full(segment.rows, len(listed), np.int64), np.arange(segment.rows, dtype=np.int64)], 1)
            )
            listed.append(segment)
        every = np.concatenate(keys) if keys else np.zeros((0, 2), np.uint64)
        where = np.concatenate(place) if place else np.zeros((0, 2), np.int64)
        order = np.argsort(every[:, 0], kind="stable")
        self._index = every[order], where[order], listed

    def get(self, keys: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (vectors float32[N, width], found bool[N]); rows not found are zero.

        keys uint64[N, 2] from `text_keys`.
        """
        with self._lock:
            return self._get(keys, width)

    def _get(self, keys: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        self._refresh()
        assert self._index is not None
        known, where, segments = self._index
        out = np.zeros((len(keys), width), dtype=np.float32)
        found = np.zeros(len(keys), dtype=bool)
        if len(known):
            at = np.maximum(np.searchsorted(known[:, 0], keys[:, 0], side="right") - 1, 0)  # the newest of equal keys
            match = np.flatnonzero((known[at] == keys).all(1))
            segment_of = where[at[match], 0]
            for number in np.unique(segment_of):
                rows = match[segment_of == number]
                if segments[number].width != width:
                    continue
                try:
                    vectors, sound = segments[number].read(where[at[rows], 1])
                except (OSError, ValueError):
                    continue
                out[rows[sound]] = vectors[sound]
                found[rows[sound]] = True
        waiting = self._pending.get(width)
        if waiting:
            for row in np.flatnonzero(~found):
                vector = waiting.get(keys[row].tobytes())
                if vector is not None:
                    out[row], found[row] = vector, True
        self.hits += int(found.sum())
        self.misses += int((~found).sum())
        return out, found

    def put(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors; they go to the disk by thousands, or on `flush`."""
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(keys):
            raise RivalsError(f"expected one vector for each of {len(keys)} keys, got shape {vectors.shape}")
        with self._lock:
            waiting = self._pending.setdefault(vectors.shape[1], {})
            for key, vector in zip(keys, vectors, strict=True):
                waiting[key.tobytes()] = vector.copy()
            if sum(map(len, self._pending.values())) >= _FLUSH_ROWS:
                self.flush()

    def flush(self) -> None:
        """Write what is held in memory as a segment, then delete the oldest segments beyond `max_bytes`."""
        with self._lock:  # all the while: a reader finds a vector in memory or on the disk, never between the two
            pending, self._pending = self._pending, {}
            for width, waiting in pending.items():
                if waiting:
                    keys = np.frombuffer(b"".join(waiting), dtype=np.uint64).reshape(-1, 2)
                    self._write(keys, np.stack(list(waiting.values())), width)
            if any(pending.values()):
                self._evict()

    def _write(self, keys: np.ndarray, vectors: np.ndarray, width: int) -> None:
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}.seg"
        try:
            with atomic_file(self._place / name, "wb") as out:
                out.write(_HEADER.pack(_MAGIC, len(keys), width))
                out.write(np.ascontiguousarray(keys).tobytes())
                out.write(_row_sums(vectors).tobytes())
                out.write(vectors.tobytes())
                out.write(_END)
        except OSError as error:
            raise RivalsError(
                f"{self.folder}: the vector cache cannot be written ({error.strerror or error}); free some space"
            ) from None

    def _evict(self) -> None:
        sizes = []
        for path in sorted(self._place.glob("*.seg")):
            try:
                sizes.append((path, path.stat().st_size))
            except OSError:
                continue
        total = sum(size for _, size in sizes)
        for path, size in sizes:
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size

    def __len__(self) -> int:
        with self._lock:
            self._refresh()
        assert self._index is not None
        return len(self._index[0]) + sum(map(len, self._pending.values()))
