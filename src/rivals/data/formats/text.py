"""Text files as decoded lines: plain or gzip, UTF-8 or UTF-16/32 with a byte order mark, with the place of faults."""

from __future__ import annotations

import codecs
import gzip
import io
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rivals.errors import DataError
from rivals.progress import progress

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ARCHIVES = {
    b"PK\x03\x04": "a zip archive (or a spreadsheet)",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
}
_SAMPLE = 1 << 14
_LARGE = 1 << 25


def open_bytes(path: Path) -> IO[bytes]:
    """Open a regular file for reading bytes.

    Raises:
        DataError: it is missing, empty, a folder, not a regular file, or may not be read.
    """
    try:
        handle = open(path, "rb") if stat.S_ISREG(path.stat().st_mode) else None  # noqa: SIM115
    except FileNotFoundError:
        raise DataError("there is no such file", path=path) from None
    except PermissionError:
        raise DataError("this file may not be read; check its permissions", path=path) from None
    except (OSError, ValueError) as error:
        raise DataError(
            f"this file cannot be opened ({getattr(error, 'strerror', None) or error})", path=path
        ) from None
    if handle is None:
        what = "a folder, where a file is wanted" if path.is_dir() else "not a regular file; save it to disk first"
        raise DataError(f"this is {what}", path=path)
    if path.stat().st_size == 0:
        handle.close()
        raise DataError("this file is empty", path=path)
    return handle


def first_bytes(path: Path) -> bytes:
    """Return the first bytes of a file, unzipped if it is gzip, to tell its format by."""
    with _unzipped(open_bytes(path)) as handle:
        try:
            return handle.read(_SAMPLE)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"damaged gzip data ({error})", path=path) from None


def _unzipped(handle: IO[bytes]) -> IO[bytes]:
    magic = handle.read(2)
    handle.seek(0)
    return gzip.GzipFile(fileobj=handle) if magic == b"\x1f\x8b" else handle  # type: ignore[return-value]


def encoding_of(path: Path, start: bytes) -> tuple[str, int]:
    """Return the encoding that the first bytes of a text file show and the length of its byte order mark.

    Raises:
        DataError: the bytes are an archive, binary data or UTF-16 without a mark.

    >>> encoding_of(Path("a.csv"), b"\\xef\\xbb\\xbfid,text")
    ('utf-8', 3)
    """
    for magic, what in _ARCHIVES.items():
        if start.startswith(magic):
            raise DataError(f"this file is {what}; unpack it first (gzip is read as it is)", path=path)
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding, len(mark)
    if start.count(0) * 10 > len(start):
        raise DataError("this is binary data, or UTF-16 without a byte order mark; save the file as UTF-8", path=path)
    return "utf-8", 0


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line with its ending) of a text file; only a line feed ends a line.

    Raises:
        DataError: the file cannot be opened, a byte is not UTF-8 (with line and byte offset), the gzip data are
            damaged.
    """
    start = first_bytes(path)
    encoding, mark = encoding_of(path, start)
    number = told = 0
    size = path.stat().st_size
    with (
        open_bytes(path) as file,
        _unzipped(file) as handle,
        progress(f"Reading {path.name} (bytes)", size, show=size > _LARGE) as advance,
    ):
        try:
            handle.read(mark)
            if encoding == "utf-8":
                offset = mark
                buffered = io.BufferedReader(handle, 1 << 18) if isinstance(handle, gzip.GzipFile) else handle
                for number, raw in enumerate(buffered, 1):
                    try:
                        yield number, raw.decode("utf-8")
                    except UnicodeDecodeError as error:
                        raise _not_text(path, number, raw[error.start], offset + error.start) from None
                    offset += len(raw)
                    if not number & 0xFFF:
                        advance(file.tell() - told)
                        told = file.tell()
            else:
                for number, line in enumerate(io.TextIOWrapper(handle, encoding=encoding, newline="\n"), 1):
                    yield number, line
        except UnicodeDecodeError as error:
            raise DataError(
                f"not valid {encoding} ({error.reason}); save the file as UTF-8", path=path, line=number + 1
            ) from None
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"the file ends early or is damaged after this line ({error})", path=path, line=max(number, 1)
            ) from None


def _not_text(path: Path, line: int, byte: int, offset: int) -> DataError:
    return DataError(f"byte 0x{byte:02x} at offset {offset} is not UTF-8; save the file as UTF-8", path=path, line=line)
