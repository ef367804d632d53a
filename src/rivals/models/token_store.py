"""Token vectors of a collection, small enough to keep: projected to fewer dimensions and stored in 8 bits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rivals.errors import ModelError
from rivals.files import atomic_file, checksum
from rivals.models.blocks import blocks_of, cached_block
from rivals.models.encoder import Encoder
from rivals.progress import progress

_SAMPLE = 256  # texts whose tokens fix the projection
_FILES = ("vectors.npy", "scales.npy", "offsets.npy", "ids.npy")


@dataclass(frozen=True, eq=False)
class TokenStore:
    """Unit token vectors of N texts: `vectors` int8[T, D] times `scales` float32[T]; text i owns tokens offsets[i]:offsets[i + 1].

    `ids` int32[T] are the vocabulary numbers of the tokens, special tokens left out.
    """

    vectors: NDArray[np.int8]
    scales: NDArray[np.float32]
    offsets: NDArray[np.int64]
    ids: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def gathered(self, rows: NDArray[np.int64], more: TokenStore) -> TokenStore:
        """Return the texts of `rows`, in their order; row -1, -2, ... stands for the first, second, ... text of `more`.

        >>> one = TokenStore(np.ones((1, 2), np.int8), np.ones(1, np.float32), np.array([0, 1]), np.array([7], np.int32))
        >>> one.gathered(np.array([0, 0]), one).ids.tolist()
        [7, 7]
        """
        rows = np.where(rows < 0, len(self) - 1 - rows, rows)
        lengths = np.concatenate([np.diff(self.offsets), np.diff(more.offsets)])[rows]
        starts = np.concatenate([self.offsets[:-1], len(self.ids) + more.offsets[:-1]])[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tokens = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        parts = ((getattr(self, name), getattr(more, name)) for name in ("vectors", "scales", "ids"))
        vectors, scales, ids = (np.concatenate(pair)[tokens] for pair in parts)
        return TokenStore(vectors, scales, offsets, ids)

    def save(self, folder: Path) -> dict[str, str]:
        """Write the arrays and return their checksums by file name."""
        arrays: tuple[NDArray[Any], ...] = (self.vectors, self.scales, self.offsets, self.ids)
        for name, array in zip(_FILES, arrays, strict=True):
            with atomic_file(folder / name, "wb") as out:
                np.save(out, array, allow_pickle=False)
        return {name: checksum(folder / name) for name in _FILES}

    @classmethod
    def load(cls, folder: Path, checksums: dict[str, str]) -> TokenStore:
        """Map the arrays of a folder into memory.

        Raises:
            ModelError: a file is missing or altered.
        """
        arrays = []
        for name in _FILES:
            try:
                if checksum(folder / name) != checksums[name]:
                    raise ModelError(f"{folder / name} is damaged (its checksum differs); train the second stage again")
                arrays.append(np.load(folder / name, mmap_mode="r", allow_pickle=False))
            except (OSError, ValueError, KeyError) as error:
                if isinstance(error, ModelError):
                    raise
                raise ModelError(f"{folder / name} cannot be read ({error}); train the second stage again") from None
        return cls(*arrays)


def fit_projection(encoder: Encoder, texts: Sequence[str], dimension: int) -> NDArray[np.float32]:
    """Return the directions [H, dimension] that keep most of the token vectors' inner products (uncentred PCA of a sample).

    Source: principal components; cutting ColBERT's vectors to 128 dimensions is Khattab and Zaharia (2020), section 3.2.
    """
    step = max(1, len(texts) // _SAMPLE)
    sample = encoder.encode_tokens(
        list(texts[::step][:_SAMPLE]), role="document", storage="float32", drop_special=True, progress=False
    )
    moments = sample.vectors.T.astype(np.float64) @ sample.vectors
    values, directions = np.linalg.eigh(moments)
    chosen = directions[:, np.argsort(-values, kind="stable")[:dimension]]
    return np.ascontiguousarray(
        chosen * np.sign(chosen[np.abs(chosen).argmax(0), np.arange(chosen.shape[1])]), dtype=np.float32
    )


def encode_store(
    encoder: Encoder,
    texts: Sequence[str],
    projection: NDArray[np.float32],
    *,
    role: Literal["query", "document"],
    folder: Path | None,
    description: str,
) -> tuple[NDArray[np.float32], TokenStore]:
    """Return the pooled unit vectors [N, D] and the token store of texts, from one forward pass, in resumable blocks (see `blocks`)."""
    parts = []
    salt = f"tokens{hashlib.blake2b(projection.tobytes(), digest_size=16).hexdigest()}"
    with progress(description, len(texts)) as advance:
        for chunk in blocks_of(texts):
            parts.append(
                cached_block(encoder, chunk, role, folder, salt, lambda c: _encode_block(encoder, c, projection, role))
            )
            advance(len(chunk))
    if not parts:
        parts = [_encode_block(encoder, [], projection, role)]
    lengths = np.concatenate([part["lengths"] for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in ("pooled", "vectors", "scales", "ids")}
    return joined["pooled"], TokenStore(joined["vectors"], joined["scales"], offsets, joined["ids"])


def _encode_block(
    encoder: Encoder, texts: list[str], projection: NDArray[np.float32], role: Literal["query", "document"]
) -> dict[str, NDArray[np.generic]]:
    pooled, tokens = encoder.encode_with_tokens(texts, role=role)
    projected = torch.from_numpy(tokens.vectors) @ torch.from_numpy(projection)
    unit = torch.nn.functional.normalize(projected, dim=-1).numpy()
    scales = np.maximum(np.abs(unit).max(axis=1, initial=0), 1e-12).astype(np.float32) / 127
    return {
        "pooled": pooled,
        "vectors": np.rint(unit / scales[:, None]).astype(np.int8),
        "scales": scales,
        "ids": tokens.ids,
        "lengths": np.diff(tokens.offsets),
    }
