"""What mining itself hands to its parts, opened when first asked for: the data, the encoder and its vectors, the judges."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rivals.data.collection import Collection
from rivals.data.dataset import Dataset
from rivals.errors import RivalsError
from rivals.workflow.config import Precision, model_name

if TYPE_CHECKING:
    from rivals.models import Encoder
    from rivals.negatives.centers import Clusters
    from rivals.negatives.judging import Judge
    from rivals.retrieve import Dense


@dataclass(frozen=True)
class Materials:
    """The data and options that parts are made of.

    Args:
        dataset: the queries mined for, and the documents. negatives: how many to draw. seed: of sources that draw.
        model, device, precision, max_length: of the encoder.
        folder: where vectors and indices are kept, None for memory.
        judge_names: of the configured judges; make_judge makes one of them.
    """

    dataset: Dataset
    negatives: int = 4
    seed: int = 0
    model: str = "all-MiniLM-L6-v2"
    device: str = "auto"
    precision: Precision = "auto"
    max_length: int = 0
    folder: Path | None = None
    judge_names: tuple[str, ...] = ()
    make_judge: Callable[[str, Materials], Judge] | None = None

    @property
    def documents(self) -> Collection:
        """The documents."""
        return self.dataset.documents

    def open_encoder(self, model: str) -> Encoder:
        """Load an encoder with the configured device, precision and length; each once."""
        from rivals.models import Encoder

        if model not in self._encoders:
            self._encoders[model] = Encoder.load(
                model_name(model), device=self.device, dtype=self.precision, max_length=self.max_length or None
            )
        return self._encoders[model]

    @cached_property
    def _encoders(self) -> dict[str, Encoder]:
        return {}

    @cached_property
    def dense(self) -> Dense:
        """The configured encoder over the documents: a source, and where filters find vectors."""
        return self.dense_of(self.model)

    def dense_of(self, model: str, name: str = "dense") -> Dense:
        """Return an encoder over the documents, encoded once."""
        from rivals.retrieve import Dense

        encoder = self.open_encoder(model)
        return Dense(encoder, self.documents, vectors=self.vectors_of(model), name=name)

    def vectors_of(self, model: str) -> NDArray[np.float32]:
        """Return the documents' vectors by an encoder, float32[N, D], encoded once."""
        if model not in self._vectors:
            self._vectors[model] = document_vectors(self.open_encoder(model), self.documents, self.folder)
        return self._vectors[model]

    @cached_property
    def _vectors(self) -> dict[str, NDArray[np.float32]]:
        return {}

    def clusters(self, count: int) -> Clusters:
        """Return the documents in clusters by the configured encoder's vectors; each number of clusters once."""
        from rivals.negatives.centers import Clusters

        if count not in self._clusters:
            self._clusters[count] = Clusters.fit(self.vectors_of(self.model), count, seed=self.seed)
        return self._clusters[count]

    @cached_property
    def _clusters(self) -> dict[int, Clusters]:
        return {}

    @cached_property
    def _judges(self) -> dict[str, Judge]:
        return {}

    def judges_named(self, names: Sequence[str] | None) -> list[Judge]:
        """Return the judges of these names, or all; each is made once.

        Raises:
            RivalsError: nobody configured such a judge.
        """
        for name in names or ():
            if name not in self.judge_names:
                known = ", ".join(self.judge_names) or "none"
                raise RivalsError(f"no judge is called '{name}'; the configured ones are {known}")
        for name in self.judge_names if names is None else names:
            if name not in self._judges and self.make_judge is not None:
                self._judges[name] = self.make_judge(name, self)
        return [self._judges[name] for name in (self.judge_names if names is None else names)]


def document_vectors(encoder: Encoder, documents: Collection, folder: Path | None) -> NDArray[np.float32]:
    """Return the documents' unit vectors, float32[N, D]: in memory, or as a memory map of a file in `folder`.

    They are computed in the blocks of `encode_in_blocks`, which `encode_with_ray` may have filled; the file, named by
    encoder and documents, is written whole or not at all.
    """
    from rivals.models.blocks import BLOCK, cached_block, encode_in_blocks
    from rivals.progress import progress
    from rivals.retrieve.sealed import map_array

    label = f"Encoding {len(documents):,} documents"
    if folder is None:
        return encode_in_blocks(encoder, documents.full_texts, role="document", folder=None, description=label)
    about = f"{encoder.fingerprint()} {encoder.max_length} {encoder.inference_dtype} {documents.fingerprint}"
    path = folder / f"vectors-{hashlib.blake2b(about.encode(), digest_size=12).hexdigest()}.npy"
    if not path.exists():
        texts, half = documents.full_texts, path.with_suffix(".tmp.npy")

        def compute(chunk: list[str]) -> dict[str, NDArray[Any]]:
            return {"pooled": encoder.encode(chunk, role="document", progress=False, normalize=True)}

        folder.mkdir(parents=True, exist_ok=True)
        out = np.lib.format.open_memmap(half, mode="w+", dtype=np.float32, shape=(len(texts), encoder.dimension))
        with progress(label, len(texts)) as advance:
            for start in range(0, len(texts), BLOCK):
                chunk = texts[start : start + BLOCK]
                block = cached_block(encoder, chunk, "document", folder / "encoded", "pooled", compute)
                out[start : start + len(chunk)] = block["pooled"]
                advance(len(chunk))
        out.flush()
        half.replace(path)
    return map_array(path)
