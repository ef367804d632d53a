"""An index on disk: documents, their vectors and the BM25 index in one folder, checked and memory-mapped on load."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rivals.data import Collection
from rivals.errors import IndexDamaged, RivalsError
from rivals.retrieve.bm25 import BM25
from rivals.retrieve.dense import Dense, TextEncoder
from rivals.retrieve.sealed import map_array, sealing, unseal

VERSION = 1
_KIND = "rivals index"
_REBUILD = "Index.build(documents, encoder).save(folder)"
_DOCUMENTS, _VECTORS, _WORDS = "documents.parquet", "vectors.npy", "bm25"


class Index:
    """Documents with what retrieval needs of them: vectors, a BM25 index, or both.

    The folder holds `documents.parquet`, `vectors.npy`, `bm25/` and `metadata.json` (format version, fingerprint of the
    encoder, size and checksum of every file). `save` replaces it whole or not at all; `load` checks it, maps vectors
    and posting lists into memory instead of reading them, and refuses a damaged one in one line.

    When to use: to search again later, or elsewhere, without encoding or indexing again.

    Args:
        documents: what is searched.
        vectors: float[N, D] of the documents, or None.
        encoder_fingerprint: `encoder.fingerprint()` of the encoder which made the vectors.
        bm25: the lexical index of the same documents, or None.

    Raises:
        RivalsError: parts over different documents, vectors without a fingerprint.

    >>> import tempfile
    >>> documents = Collection(["a", "b"], ["heart attack", "broken bone"])
    >>> with tempfile.TemporaryDirectory() as place:
    ...     Index(documents, bm25=BM25(documents)).save(f"{place}/index")
    ...     run = Index.load(f"{place}/index").bm25(Collection(["q"], ["bones"]), k=1)
    >>> run.documents.ids[run.document].tolist()
    ['b']
    """

    def __init__(
        self,
        documents: Collection,
        *,
        vectors: NDArray[Any] | None = None,
        encoder_fingerprint: str | None = None,
        bm25: BM25 | None = None,
    ) -> None:
        if vectors is not None and (vectors.ndim != 2 or len(vectors) != len(documents)):
            raise RivalsError(f"vectors have shape {vectors.shape} for {len(documents)} documents")
        if (vectors is None) != (encoder_fingerprint is None):
            raise RivalsError(
                "vectors and the fingerprint of the encoder that made them go together; give both or neither"
            )
        if bm25 is not None and bm25.documents.fingerprint != documents.fingerprint:
            raise RivalsError("the BM25 index is over other documents; build it of the same collection")
        self.documents, self.vectors, self.encoder_fingerprint = documents, vectors, encoder_fingerprint
        self._bm25 = bm25

    @classmethod
    def build(
        cls, documents: Collection, encoder: TextEncoder | None = None, *, bm25: bool = True, cache: Any = None
    ) -> Index:
        """Encode the documents (with an encoder) and index their words (unless bm25=False)."""
        dense = None if encoder is None else Dense(encoder, documents, cache=cache)
        return cls(
            documents,
            vectors=None if dense is None else dense.vectors,
            encoder_fingerprint=None if dense is None else dense.fingerprint,
            bm25=BM25(documents) if bm25 else None,
        )

    @property
    def bm25(self) -> BM25:
        """The lexical retriever.

        Raises:
            RivalsError: this index was made without one.
        """
        if self._bm25 is None:
            raise RivalsError("this index holds no BM25 part; build it with bm25=True")
        return self._bm25

    def dense(self, encoder: TextEncoder, **options: Any) -> Dense:
        """Return the dense retriever over the stored vectors; `options` are those of `Dense`.

        Raises:
            RivalsError: this index has no vectors, or another encoder made them.
        """
        if self.vectors is None:
            raise RivalsError("this index holds no vectors; build it with an encoder")
        if encoder.fingerprint() != self.encoder_fingerprint:
            raise RivalsError(
                f"the vectors of this index were made by another encoder ({self.encoder_fingerprint}); "
                f"load that one, or rebuild the index with {_REBUILD}"
            )
        return Dense(encoder, self.documents, vectors=self.vectors, **options)

    def save(self, folder: str | Path) -> None:
        """Write the folder, replacing an older index of that name, whole or not at all.

        Raises:
            RivalsError: the folder exists and is something else.
        """
        about: dict[str, Any] = {
            "documents": len(self.documents),
            "corpus": self.documents.fingerprint,
            "encoder": self.encoder_fingerprint,
            "dimensions": None if self.vectors is None else int(self.vectors.shape[1]),
            "bm25": None,
        }
        with sealing(folder, kind=_KIND, version=VERSION, about=about) as inside:
            pq.write_table(self.documents.table, inside / _DOCUMENTS, compression="zstd")
            if self.vectors is not None:
                _write_vectors(inside / _VECTORS, self.vectors)
            if self._bm25 is not None:
                (inside / _WORDS).mkdir()
                about["bm25"] = self._bm25.write(inside / _WORDS)

    @classmethod
    def load(cls, folder: str | Path, *, verify: bool | None = None) -> Index:
        """Load an index, its vectors and posting lists memory-mapped.

        Args:
            verify: compare the checksums of all files (True), of none (False), of files below 200 MB (None). Sizes
                always.

        Raises:
            IndexDamaged: a file is missing, cut or altered, or the format is another version's; says which and what
                to do.
        """
        path = Path(folder)
        about = unseal(path, kind=_KIND, version=VERSION, rebuild=_REBUILD, verify=verify)
        part = _DOCUMENTS
        try:
            documents = Collection.from_table(pq.read_table(path / _DOCUMENTS, memory_map=True))
            part = _VECTORS
            vectors = None if about["dimensions"] is None else map_array(path / _VECTORS)
            if len(documents) != about["documents"] or (
                vectors is not None and vectors.shape != (len(documents), about["dimensions"])
            ):
                raise ValueError("its shape is not the one recorded")
            part = _WORDS
            bm25 = None if about["bm25"] is None else BM25.read(path / _WORDS, about["bm25"], documents)
        except (OSError, ValueError, KeyError, EOFError, pa.ArrowException) as error:
            cause = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise IndexDamaged(f"{path}: {part} cannot be read ({cause}); rebuild it with {_REBUILD}") from None
        self = cls.__new__(cls)
        self.documents, self.vectors, self.encoder_fingerprint, self._bm25 = documents, vectors, about["encoder"], bm25
        return self

    def __repr__(self) -> str:
        parts: Iterable[str] = (
            f"{len(self.documents)} documents",
            "no vectors" if self.vectors is None else f"vectors of {self.vectors.shape[1]}",
            "no BM25" if self._bm25 is None else "BM25",
        )
        return f"Index({', '.join(parts)})"


def _write_vectors(path: Path, vectors: NDArray[Any]) -> None:
    """Write float32 vectors block by block, so that a memory map larger than memory can be saved as well."""
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=vectors.shape) if vectors.size else None
    if out is None:
        np.save(path, np.zeros(vectors.shape, np.float32), allow_pickle=False)
        return
    for start in range(0, len(vectors), 65_536):
        out[start : start + 65_536] = vectors[start : start + 65_536]
    out.flush()
