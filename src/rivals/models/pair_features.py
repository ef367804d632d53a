"""Features of (query, document) pairs from their token vectors and tokens: what a second stage sees beside the cosine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from rivals.data.collection import Collection
from rivals.data.run import Run
from rivals.errors import ModelError, RivalsError
from rivals.models.encoder import Encoder
from rivals.models.token_store import TokenStore, encode_store, fit_projection

#: Columns of `PairFeatures`. soft: mean over query tokens of the best cosine with a document token (MaxSim), weighted by how rare the
#: token is among documents, or plain; worst: of the worst matched query token; exact: share of the query's token weight that
#: occurs in the document; *_head: in the document's first 32 tokens only; missing: weight of the rarest query token that does not occur;
#: length: log of 1 + document tokens.
FEATURES = ("soft", "soft_plain", "worst", "soft_head", "exact", "exact_head", "missing", "length")
HEAD = 32
_DIMENSION = 128


@dataclass(repr=False)
class PairFeatures:
    """Computes `FEATURES` for the candidates of a run over the documents it was built for.

    `weights` float32[V] is the inverse document frequency of each vocabulary entry; `projection` float32[H, D].
    """

    encoder: Encoder
    documents: TokenStore
    fingerprint: str
    weights: NDArray[np.float32]
    projection: NDArray[np.float32]

    def __repr__(self) -> str:
        return f"PairFeatures({len(self.documents):,} documents)"

    @classmethod
    def build(
        cls,
        encoder: Encoder,
        documents: Collection,
        *,
        folder: Path | None = None,
        description: str = "Encoding answers",
    ) -> tuple[PairFeatures, NDArray[np.float32]]:
        """Encode the documents (resumable, see `blocks`) and count their tokens; also returns their pooled unit vectors [N, D]."""
        texts = documents.full_texts
        projection = fit_projection(encoder, texts, min(_DIMENSION, encoder.hidden))
        pooled, store = encode_store(
            encoder, texts, projection, role="document", folder=folder, description=description
        )
        weights = token_weights(store, len(encoder.tokenizer))
        return cls(encoder, store, documents.fingerprint, weights, projection), pooled

    def __call__(self, run: Run) -> NDArray[np.float32]:
        """Return the features of every candidate, float32[n, 8].

        Raises:
            RivalsError: the run is over other documents.
        """
        if run.documents.fingerprint != self.fingerprint:
            raise RivalsError("this second stage was built for other documents; train it on the ones that are searched")
        from rivals.models._pair_kernel import match_features

        _, queries = encode_store(
            self.encoder,
            run.queries.full_texts,
            self.projection,
            role="query",
            folder=None,
            description="Encoding questions",
        )
        vectors = queries.vectors.astype(np.float32) * queries.scales[:, None]
        out = np.zeros((len(run), len(FEATURES)), np.float32)
        pairs = np.column_stack([run.query, run.document])
        store = self.documents
        match_features(
            vectors,
            queries.offsets,
            queries.ids,
            store.vectors,
            store.scales,
            store.offsets,
            store.ids,
            self.weights,
            HEAD,
            pairs,
            out,
        )
        return out

    def over(self, documents: Collection, others: Collection) -> PairFeatures:
        """Return the same features over other documents: only texts that are not among `documents` are encoded.

        Projection and token weights stay those of the first documents, as whatever was trained on the features expects.

        Raises:
            RivalsError: `documents` are not those that the features were built for.
        """
        if documents.fingerprint != self.fingerprint:
            raise RivalsError("these features were built for other documents than the ones said to be theirs")
        row = {text: number for number, text in enumerate(documents.full_texts)}
        new: dict[str, int] = {}
        rows = np.array(
            [row[text] if text in row else new.setdefault(text, -1 - len(new)) for text in others.full_texts], np.int64
        )
        _, store = encode_store(
            self.encoder,
            list(new),
            self.projection,
            role="document",
            folder=None,
            description="Encoding changed documents",
        )
        return replace(self, documents=self.documents.gathered(rows, store), fingerprint=others.fingerprint)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write everything but the encoder; returns what `read` needs."""
        with open(folder / "projection.npz", "wb") as out:
            np.savez(out, projection=self.projection, weights=self.weights)
        return {
            "checksums": self.documents.save(folder),
            "documents": self.fingerprint,
            "encoder": self.encoder.fingerprint(),
        }

    @classmethod
    def read(cls, folder: Path, about: dict[str, Any], encoder: Encoder) -> PairFeatures:
        """Read what `write` wrote.

        Raises:
            ModelError: a file is missing or damaged, or the encoder is another one.
        """
        if about["encoder"] != encoder.fingerprint():
            raise ModelError(f"the second stage in {folder} belongs to another encoder; load both from the same run")
        try:
            with np.load(folder / "projection.npz", allow_pickle=False) as arrays:
                projection, weights = arrays["projection"], arrays["weights"]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ModelError(
                f"{folder / 'projection.npz'} cannot be read ({error}); train the second stage again"
            ) from None
        return cls(encoder, TokenStore.load(folder, about["checksums"]), about["documents"], weights, projection)


def token_weights(store: TokenStore, vocabulary: int) -> NDArray[np.float32]:
    """Return ln(1 + (N - n + 0.5) / (n + 0.5)) for each vocabulary entry, n the number of texts with it (BM25's idf)."""
    rows = np.repeat(np.arange(len(store)), np.diff(store.offsets))
    pairs = np.unique(rows * np.int64(vocabulary) + store.ids)
    count = np.bincount(pairs % vocabulary, minlength=vocabulary)
    return np.log1p((len(store) - count + 0.5) / (count + 0.5)).astype(np.float32)
