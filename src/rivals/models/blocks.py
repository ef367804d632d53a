"""Encoding in fixed blocks that are kept on disk, so that long encoding resumes and gives the same numbers as if never stopped.

Which texts share a batch changes the last bits of their vectors. Blocks are cut at fixed places of the given order and each is
encoded alone, so what a resumed run computes does not depend on where the first one stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals.files import atomic_file
from rivals.models.encoder import Encoder
from rivals.progress import progress

BLOCK = 512
Arrays = dict[str, NDArray[Any]]


def encode_in_blocks(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    role: Literal["query", "document"],
    folder: Path | None,
    description: str = "Encoding",
) -> NDArray[np.float32]:
    """Return unit vectors float32[N, D]; blocks found in `folder` are read, missing ones computed and kept there."""

    def encode(chunk: list[str]) -> Arrays:
        return {"pooled": encoder.encode(chunk, role=role, progress=False, normalize=True)}

    parts: list[NDArray[np.float32]] = []
    with progress(description, len(texts)) as advance:
        for chunk in blocks_of(texts):
            parts.append(cached_block(encoder, chunk, role, folder, "pooled", encode)["pooled"])
            advance(len(chunk))
    return np.concatenate(parts) if parts else np.zeros((0, encoder.dimension), np.float32)


def blocks_of(texts: Sequence[str]) -> Iterator[list[str]]:
    """Cut texts into blocks of `BLOCK`."""
    for start in range(0, len(texts), BLOCK):
        yield list(texts[start : start + BLOCK])


def cached_block(
    encoder: Encoder,
    texts: list[str],
    role: Literal["query", "document"],
    folder: Path | None,
    salt: str,
    compute: Callable[[list[str]], Arrays],
) -> Arrays:
    """Return the arrays of a block, from its file if there is a sound one, else computed and written.

    The file's name is a hash of all that decides its content (weights, prompt, length, dtype, texts and `salt`), so a changed model or
    text never finds a stale block. A file that cannot be read is computed again.
    """
    if folder is None:
        return compute(texts)
    path = folder / f"{_key(encoder, texts, role, salt)}.npz"
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except Exception:  # a damaged archive raises whatever its broken header suggests; sound or not is all that matters
        arrays = compute(texts)
    with atomic_file(path, "wb") as out:
        np.savez(out, allow_pickle=False, **arrays)
    return arrays


def _key(encoder: Encoder, texts: Sequence[str], role: Literal["query", "document"], salt: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    about = (encoder.fingerprint(), salt, role, encoder.prompt_for(role), encoder.max_length, encoder.inference_dtype)
    for part in (*map(str, about), *texts):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()
