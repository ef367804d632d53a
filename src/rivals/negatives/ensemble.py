"""Several encoders as one: their vectors side by side, reduced to the principal components, searched by cosine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rivals.data.collection import Collection
from rivals.errors import RivalsError
from rivals.negatives.principal import PrincipalAxes, fit_principal_axes
from rivals.retrieve.dense import Dense, TextEncoder

_ROWS = 8192  # documents joined at once

FitOn = Literal["documents", "both"]


class EnsembleEncoder:
    """Encodes a text with several encoders, puts the vectors side by side and projects them on principal axes.

    u(t) = [e_1(t) / |e_1(t)|; ...; e_m(t) / |e_m(t)|],  v(t) = axes^T (u(t) - mean)

    It is an encoder like any other (`encode`, `fingerprint`). Make one with `EnsembleSource`, which fits the axes; by
    hand from `PrincipalAxes` fitted elsewhere.

    Args:
        encoders: one or more. axes: their principal axes, over the joined widths. normalise_blocks: divide every
            encoder's vector by its length, so that none dominates; the axes must have been fitted alike.

    Source: "Hard Negative Mining for Domain-Specific Retrieval in Enterprise Systems" (2025). Paper 60. The paper says
    only that vectors are concatenated; dividing by lengths is our choice.

    Raises:
        RivalsError: no encoder; while encoding: a text without direction in an encoder or after the projection, encoders
        whose widths do not fit the axes.

    >>> class Letters:
    ...     def __init__(self, letters): self.letters = letters
    ...     def encode(self, texts, *, role, progress):
    ...         return np.array([[t.count(c) for c in self.letters] for t in texts], np.float32)
    ...     def fingerprint(self): return self.letters
    >>> axes = PrincipalAxes(np.zeros(4), np.eye(4), np.ones(4), 4.0)
    >>> ensemble = EnsembleEncoder([Letters("ab"), Letters("ac")], axes)
    >>> ensemble.encode(["ac"], role="document", progress=False).round(3).tolist()
    [[1.0, 0.0, 0.7070000171661377, 0.7070000171661377]]
    """

    def __init__(self, encoders: Sequence[TextEncoder], axes: PrincipalAxes, *, normalise_blocks: bool = True) -> None:
        if not encoders:
            raise RivalsError("an ensemble needs at least one encoder")
        self.encoders, self.axes, self.normalise_blocks = tuple(encoders), axes, normalise_blocks

    def encode(
        self, texts: list[str], *, role: Literal["query", "document"] = "document", progress: bool | str = False
    ) -> NDArray[np.float32]:
        """Return the reduced vectors of texts, float32[n, r]."""
        parts = [_encoded(encoder, texts, role, progress) for encoder in self.encoders]
        width = sum(part.shape[1] for part in parts)
        if width != len(self.axes.mean):
            raise RivalsError(f"the encoders give {width} dimensions together, the axes have {len(self.axes.mean)}")
        reduced = np.empty((len(texts), self.axes.axes.shape[1]), np.float32)
        start = 0
        for block in _joined(parts, self.normalise_blocks, role):
            reduced[start : start + len(block)] = self.axes.project(block)
            start += len(block)
        check_direction(reduced, role)
        return reduced

    def fingerprint(self) -> str:
        """Return a hash of the encoders' weights and of the axes."""
        digest = hashlib.blake2b(digest_size=16)
        for encoder in self.encoders:
            digest.update(encoder.fingerprint().encode() + b"\0")
        digest.update(self.axes.mean.tobytes() + np.ascontiguousarray(self.axes.axes).tobytes())
        digest.update(bytes([self.normalise_blocks]))
        return digest.hexdigest()


class EnsembleSource(Dense):
    """Exact search by the cosine of several encoders' joined vectors, reduced to the principal components.

    Use it as a source of hard negatives where no single encoder is to be trusted: what several of them find near is hard.
    Behind it, `CloserThanPositive` is the paper's rule, `PositiveAware` the usual one. It is a `Dense` retriever in
    all other respects; the score is the cosine of v(query) and v(document), see `EnsembleEncoder`.

    Args:
        encoders: two or more, as a rule; also objects that only look finished vectors up.
        documents: what is searched.
        vectors: for every encoder its vectors of the documents, float[N, d_i], arrays or memory maps; encoded here if
            not given.
        variance: share of the variance that the components kept must explain, in (0, 1]; the fewest that do are kept.
        normalise_blocks: see `EnsembleEncoder`.
        fit_on: the components are those of the "documents", or of "both" documents and `queries`. Queries are always
            projected with the same mean and axes.
        seed: of the randomised decomposition beyond 8192 joined dimensions.

    `axes` holds mean and components, `explained_variance` the share of each. The reduced vectors are kept in memory,
    float32[N, r]; given `vectors` are read block by block.

    Source: "Hard Negative Mining for Domain-Specific Retrieval in Enterprise Systems" (2025): six encoders, 95 % of the
    variance. Paper 60.

    Raises:
        RivalsError: variance outside (0, 1], fewer than 2 documents, vectors of a wrong shape, a document without
        direction in some encoder or after the projection, fit_on="both" without queries.

    >>> class Letters:
    ...     def __init__(self, letters): self.letters = letters
    ...     def encode(self, texts, *, role, progress):
    ...         return np.array([[t.count(c) for c in self.letters] for t in texts], np.float32)
    ...     def fingerprint(self): return self.letters
    >>> documents = Collection(["x", "y", "z"], ["aab", "bcc", "abc"])
    >>> source = EnsembleSource([Letters("ab"), Letters("bc")], documents, variance=0.9)
    >>> source(Collection(["q"], ["ab"]), k=1).documents.ids[source(Collection(["q"], ["ab"]), k=1).document].tolist()
    ['x']
    """

    def __init__(
        self,
        encoders: Sequence[TextEncoder],
        documents: Collection,
        *,
        vectors: Sequence[NDArray[Any]] | None = None,
        variance: float = 0.95,
        normalise_blocks: bool = True,
        fit_on: FitOn = "documents",
        queries: Collection | None = None,
        name: str = "ensemble",
        seed: int = 0,
        show_progress: bool = True,
    ) -> None:
        if fit_on not in ("documents", "both"):
            raise RivalsError(f"fit_on must be 'documents' or 'both', not {fit_on!r}")
        if (fit_on == "both") != (queries is not None):
            raise RivalsError("queries are given with fit_on='both', and only then")
        if len(documents) < 2:
            raise RivalsError(f"principal components need 2 documents or more, not {len(documents)}")
        if not 0 < variance <= 1:
            raise RivalsError(f"variance must lie in (0, 1], the share to keep; not {variance!r}")
        parts = self._parts(encoders, documents, vectors, show_progress)
        sources = [(parts, "document")]
        if queries is not None:
            label: bool | str = f"Encoding {len(queries):,} queries" if show_progress else False
            asked = [_encoded(encoder, queries.full_texts, "query", label) for encoder in encoders]
            sources.append((asked, "query"))

        def blocks() -> Iterator[NDArray[Any]]:
            for members, role in sources:
                yield from _joined(members, normalise_blocks, role)

        self.axes = fit_principal_axes(blocks, share=variance, seed=seed)
        ensemble = EnsembleEncoder(encoders, self.axes, normalise_blocks=normalise_blocks)
        reduced = np.empty((len(documents), self.axes.axes.shape[1]), np.float32)
        start = 0
        for block in _joined(parts, normalise_blocks, "document"):
            reduced[start : start + len(block)] = self.axes.project(block)
            start += len(block)
        reduced /= check_direction(reduced, "document")[:, None]
        super().__init__(ensemble, documents, vectors=reduced, name=name, show_progress=show_progress)

    @property
    def components(self) -> int:
        """How many principal components were kept."""
        return self.axes.axes.shape[1]

    @property
    def explained_variance(self) -> NDArray[np.float64]:
        """The share of the variance that each component explains, largest first."""
        return self.axes.share

    def transform(self, texts: list[str]) -> NDArray[np.float32]:
        """Return the reduced vectors of texts encoded as documents, float32[n, r], not of length 1."""
        return np.asarray(self.encoder.encode(texts, role="document", progress=False), np.float32)

    @staticmethod
    def _parts(
        encoders: Sequence[TextEncoder],
        documents: Collection,
        vectors: Sequence[NDArray[Any]] | None,
        show_progress: bool,
    ) -> list[NDArray[Any]]:
        if not encoders:
            raise RivalsError("an ensemble needs at least one encoder")
        if vectors is None:
            label: bool | str = f"Encoding {len(documents):,} documents" if show_progress else False
            return [_encoded(encoder, documents.full_texts, "document", label) for encoder in encoders]
        if len(vectors) != len(encoders):
            raise RivalsError(f"{len(encoders)} encoders need as many sets of vectors, not {len(vectors)}")
        for place, part in enumerate(vectors):
            if part.ndim != 2 or len(part) != len(documents):
                raise RivalsError(f"vectors of encoder {place} have shape {part.shape} for {len(documents)} documents")
        return list(vectors)


def check_direction(vectors: NDArray[Any], role: str) -> NDArray[Any]:
    """Return the lengths of rows, or raise a RivalsError that names the first of length 0.

    >>> check_direction(np.array([[3.0, 4.0]]), "document").tolist()
    [5.0]
    """
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    if not (length > 0).all():
        row = int((~(length > 0)).argmax())
        raise RivalsError(
            f"{role} {row} (counted from 0) has a vector of length 0 or not finite, so its distance is not defined; "
            "leave out empty texts"
        )
    return length


def _encoded(
    encoder: TextEncoder, texts: list[str], role: Literal["query", "document"], progress: bool | str
) -> NDArray[np.float32]:
    vectors = np.asarray(encoder.encode(texts, role=role, progress=progress), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise RivalsError(f"an encoder gave vectors of shape {vectors.shape} for {len(texts)} texts")
    return vectors


def _joined(parts: Sequence[NDArray[Any]], normalise: bool, role: str) -> Iterator[NDArray[np.float64]]:
    """Yield the vectors of all encoders side by side, block by block."""
    for start in range(0, len(parts[0]), _ROWS):
        rows = [np.asarray(part[start : start + _ROWS], np.float64) for part in parts]
        if normalise:
            rows = [part / _lengths(part, start, place, role)[:, None] for place, part in enumerate(rows)]
        yield np.concatenate(rows, axis=1)


def _lengths(rows: NDArray[np.float64], start: int, place: int, role: str) -> NDArray[np.float64]:
    length: NDArray[np.float64] = np.linalg.norm(rows, axis=1)
    if not (np.isfinite(length) & (length > 0)).all():
        row = int((~(np.isfinite(length) & (length > 0))).argmax())
        raise RivalsError(
            f"encoder {place} gives {role} {start + row} (counted from 0) a vector of length 0 or not finite; leave out "
            "empty texts, or use normalise_blocks=False"
        )
    return length
