"""Dense retrieval: the documents whose vectors have the largest cosine with the query's, exactly."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rivals.data import Collection, Retriever, Run
from rivals.errors import RivalsError
from rivals.progress import progress
from rivals.retrieve._topk import Precision, PreparedDocuments, compiled, exact_top_k
from rivals.retrieve.bm25 import check_rows


class TextEncoder(Protocol):
    """What `Dense` needs of an encoder; `rivals.models.Encoder` is one."""

    def encode(
        self, texts: list[str], *, role: Literal["query", "document"], progress: bool | str
    ) -> NDArray[np.float32]:
        """Return one vector a text, float32[N, D]."""

    def fingerprint(self) -> str:
        """Return a hash of the weights, other after every change of them."""


class StoredVectors:
    """An encoder for texts whose vectors were computed elsewhere: looks every text up.

    When to use: `Dense(StoredVectors(queries, query_vectors), documents, vectors=document_vectors)` searches and mines
    with vectors that are at hand, arrays or memory maps.

    Args:
        members: the queries (or documents) the vectors belong to; found by their full text.
        vectors: float[N, D], one a member, in their order.

    Raises:
        RivalsError: as many vectors as members not given, two members of one text with different vectors; when encoding, a
            text that is not among the members.

    >>> stored = StoredVectors(Collection(["q"], ["who?"], name="query"), np.eye(1, 3, dtype=np.float32))
    >>> stored.encode(["who?"], role="query", progress=False).tolist()
    [[1.0, 0.0, 0.0]]
    """

    def __init__(self, members: Collection, vectors: NDArray[Any]) -> None:
        if vectors.ndim != 2 or len(vectors) != len(members):
            raise RivalsError(f"vectors have shape {vectors.shape} for {len(members)} {members.name} rows")
        self.members, self.vectors = members, vectors
        self._row: dict[str, int] = {}
        for row, text in enumerate(members.full_texts):
            first = self._row.setdefault(text, row)
            if first != row and not np.array_equal(vectors[first], vectors[row]):
                one, other = members.ids[first], members.ids[row]
                raise RivalsError(f"{members.name} rows '{one}' and '{other}' have one text and two different vectors")

    def encode(
        self, texts: list[str], *, role: Literal["query", "document"], progress: bool | str
    ) -> NDArray[np.float32]:
        """Return the vectors of texts, float32[len(texts), D]."""
        rows = np.fromiter((self._row.get(text, -1) for text in texts), dtype=np.int64, count=len(texts))
        if (rows < 0).any():
            unknown = texts[int((rows < 0).argmax())]
            raise RivalsError(
                f"no vector is stored for the {role} {unknown[:60]!r}; {len(self.members)} texts have one"
            )
        return np.asarray(self.vectors[rows], dtype=np.float32)

    def fingerprint(self) -> str:
        """Return a hash of the texts and of a sample of the vectors."""
        sample = np.ascontiguousarray(self.vectors[:: max(1, len(self.vectors) // 64)])
        digest = hashlib.blake2b(sample.tobytes(), digest_size=16)
        digest.update(f"{self.members.fingerprint}{self.vectors.shape}{self.vectors.dtype}".encode())
        return digest.hexdigest()


class Dense(Retriever):
    """Exact search over the documents' vectors.

    score(q, d) = <e(q), e(d)> / (|e(q)| |e(d)|), or the plain inner product with similarity="dot". Equal scores are
    ordered, and cut, by document id descending.

    When to use: semantic retrieval up to some million documents; the vectors may be a memory map larger than memory.
    Equals: faiss `IndexFlatIP` over the same vectors (recall of its list >= 0.999, a few times faster; see
        `exact_top_k`).

    Args:
        encoder: gives the vectors; documents are encoded once, here, unless `vectors` is given.
        documents: what is searched; with a `title` column, title and text.
        vectors: float[N, D], the documents' vectors from the same encoder, an array or a memory map.
        cache: a vector cache handed to the encoder, which must then accept `cache=`.
        similarity: "cosine" divides by the norms (given `vectors` must have norm 1 already); "dot" takes vectors as
            they are.
        precision, device: see `exact_top_k`.

    Raises:
        RivalsError: vectors of the wrong shape, not finite or, for cosine, given and not of norm 1.

    >>> class Letters:
    ...     def encode(self, texts, *, role, progress):
    ...         return np.array([[t.count(c) for c in "abc"] for t in texts], dtype=np.float32)
    ...     def fingerprint(self):
    ...         return "letters"
    >>> dense = Dense(Letters(), Collection(["x", "y"], ["aab", "bcc"]))
    >>> dense(Collection(["q"], ["ab"]), k=1).score.tolist()
    [0.94...]
    """

    def __init__(
        self,
        encoder: TextEncoder,
        documents: Collection,
        *,
        vectors: NDArray[Any] | None = None,
        cache: Any = None,
        name: str = "dense",
        similarity: Literal["cosine", "dot"] = "cosine",
        precision: Precision = "auto",
        device: str | None = None,
        show_progress: bool = True,
    ) -> None:
        if similarity not in ("cosine", "dot"):
            raise RivalsError(f"similarity is {similarity!r}; use 'cosine' or 'dot'")
        self.encoder, self.documents, self.cache, self.name = encoder, documents, cache, name
        self.score_kind = similarity
        self.device, self.show_progress = device, show_progress
        self.fingerprint = encoder.fingerprint()
        if vectors is None:
            vectors = self._encode(documents, "document", f"Encoding {len(documents):,} documents")
        self._check(vectors)
        self._prepared = PreparedDocuments(vectors, precision=precision)
        self._last: tuple[str, Collection, NDArray[np.float32]] | None = None

    @property
    def vectors(self) -> NDArray[Any]:
        """The documents' vectors, float[N, D]."""
        return self._prepared.vectors

    def query_vectors(self, queries: Collection) -> NDArray[np.float32]:
        """Return the queries' vectors, float32[Q, D]; those of the last collection are kept.

        Raises:
            RivalsError: the encoder was trained since the documents were encoded.
        """
        now = self.encoder.fingerprint()
        if now != self.fingerprint:
            raise RivalsError("the encoder has changed since these documents were encoded; make a new Dense with it")
        last = self._last
        if last is not None and (last[1] is queries or last[0] == queries.fingerprint):
            return last[2]
        vectors = self._encode(queries, "query", f"Encoding {len(queries):,} queries")
        if vectors.shape[1] != self.vectors.shape[1]:
            found, held = vectors.shape[1], self.vectors.shape[1]
            raise RivalsError(f"the encoder gives queries {found} dimensions, the document vectors have {held}")
        self._last = (queries.fingerprint, queries, vectors)
        return vectors

    def retrieve(self, queries: Collection, k: int) -> Run:
        """Return the `k` nearest documents of every query, or all if there are fewer."""
        vectors = self.query_vectors(queries)
        size = len(self.documents)
        with progress("Searching", max(len(queries) * size, 1), show=self.show_progress) as advance:
            score, document = exact_top_k(
                vectors,
                self._prepared,
                k,
                order=size - 1 - self.documents.tie_order,
                device=self.device,
                advance=advance,
            )
        offsets = np.arange(len(queries) + 1, dtype=np.int64) * score.shape[1]
        return Run.build(
            queries,
            self.documents,
            offsets,
            document.ravel(),
            score.ravel(),
            scorer=self.name,
            score_kind=self.score_kind,
        )

    def score(
        self, queries: Collection, query_row: NDArray[np.int64], document_row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the score of each pair, float32[m], equal to the retrieved one.

        Raises:
            RivalsError: a row out of range.
        """
        query_row, document_row = np.asarray(query_row, np.int64), np.asarray(document_row, np.int64)
        check_rows(query_row, document_row, len(queries), len(self.documents))
        return pair_products(self.query_vectors(queries), self.vectors, query_row, document_row)

    def _encode(self, texts: Collection, role: Literal["query", "document"], label: str) -> NDArray[np.float32]:
        more = {} if self.cache is None else {"cache": self.cache}
        shown: bool | str = label if self.show_progress else False
        vectors = np.asarray(self.encoder.encode(texts.full_texts, role=role, progress=shown, **more), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise RivalsError(f"the encoder gave vectors of shape {vectors.shape} for {len(texts)} {texts.name} texts")
        if self.score_kind == "cosine":
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _check(self, vectors: NDArray[Any]) -> None:
        if vectors.ndim != 2 or len(vectors) != len(self.documents):
            raise RivalsError(f"document vectors have shape {vectors.shape} for {len(self.documents)} documents")
        if self.score_kind != "cosine":
            return
        for start in range(0, len(vectors), 65_536):
            part = np.asarray(vectors[start : start + 65_536], dtype=np.float32)
            norm = np.sqrt(np.einsum("nd,nd->n", part, part))
            bad = ~((np.abs(norm - 1) < 1e-2) | (norm == 0))
            if bad.any():
                row = int(bad.argmax())
                fault = f"has the norm {norm[row]:.3g}, not 1" if np.isfinite(norm[row]) else "holds NaN or infinity"
                where = f"the vector of document '{self.documents.ids[start + row]}'"
                raise RivalsError(f"{where} {fault}; normalise the vectors or use similarity='dot'")


def pair_products(
    queries: NDArray[np.float32], documents: NDArray[Any], query_row: NDArray[np.int64], document_row: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the inner product of each pair of rows, float32[m].

    >>> eye = np.eye(2, dtype=np.float32)
    >>> pair_products(eye, eye, np.array([0, 0]), np.array([0, 1])).tolist()
    [1.0, 0.0]
    """
    out = np.empty(len(query_row), np.float32)
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    pair_scores: Any = None
    if compiled():
        from rivals.retrieve._select import pair_scores
    step = max(1, (1 << 24) // max(queries.shape[1], 1))
    for start in range(0, len(out), step):
        part = slice(start, start + step)
        members = np.ascontiguousarray(documents[document_row[part]], dtype=np.float32)
        if pair_scores is None:
            out[part] = np.einsum("nd,nd->n", queries[query_row[part]], members)
        else:
            pair_scores(queries, members, query_row[part], np.arange(len(members)), out[part])
    return out
