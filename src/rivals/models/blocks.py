"""Encoding in fixed blocks that are kept on disk, so that long encoding resumes and gives the same numbers as if never stopped.

Which texts share a batch changes the last bits of their vectors. Blocks are cut at fixed places of the given order and each is
encoded alone, so what a resumed run computes does not depend on where the first one stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rivals.files import atomic_file
from rivals.models.encoder import Encoder
from rivals.progress import progress

BLOCK = 512


def encode_in_blocks(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    role: Literal["query", "document"],
    folder: Path | None,
    description: str = "Encoding",
    block: int = BLOCK,
) -> NDArray[np.float32]:
    """Return unit vectors float32[N, D]; blocks found in `folder` are read, missing ones computed and kept there.

    A block's file is named by what it depends on (weights, prompt, length, dtype and texts), so a changed model or text never finds a stale one.
    A file that cannot be read is computed again.
    """
    parts: list[NDArray[np.float32]] = []
    with progress(description, len(texts)) as advance:
        for chunk in _blocks(texts, block):
            path = None if folder is None else folder / f"{_key(encoder, chunk, role)}.npy"
            vectors = None if path is None else _read(path, (len(chunk), encoder.dimension))
            if vectors is None:
                vectors = encoder.encode(chunk, role=role, progress=False, normalize=True)
                if path is not None:
                    with atomic_file(path, "wb") as out:
                        np.save(out, vectors, allow_pickle=False)
            parts.append(vectors)
            advance(len(chunk))
    return np.concatenate(parts) if parts else np.zeros((0, encoder.dimension), np.float32)


def _blocks(texts: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield list(texts[start : start + size])


def _key(encoder: Encoder, texts: Sequence[str], role: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    about = (encoder.fingerprint(), role, encoder.prompt_for("query" if role == "query" else "document"), encoder.max_length, encoder.dtype)
    for part in (*map(str, about), *texts):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def _read(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return vectors if vectors.shape == shape and vectors.dtype == np.float32 else None
