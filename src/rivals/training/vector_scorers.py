"""Scorers by vectors: a query's and a document's, each from its own side, of texts or of frozen features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rivals.data.collection import Collection
from rivals.data.dataset import Dataset
from rivals.data.run import Run
from rivals.errors import RivalsError
from rivals.models.batching import token_batches
from rivals.models.encoder import Encoder
from rivals.retrieve.dense import Dense
from rivals.training.executor import Vectors
from rivals.training.scorers import Precision, Rows, autocast, inference

_BLOCK = 4096  # rows of vectors mapped at once outside of training


@runtime_checkable
class Side(Protocol):
    """One side of a scorer by vectors: its rows and the module that makes their vectors."""

    @property
    def module(self) -> nn.Module:
        """The module whose parameters learn."""
        ...

    def chunks(self, rows: Rows) -> tuple[list[Callable[[], Vectors]], Rows]:
        """Return functions that each make the vectors of some rows, [b, D], and which of `rows` they make, in their order."""
        ...

    def all(self) -> NDArray[np.float32]:
        """Return the vectors of all rows, [N, D], for searching: without gradient."""
        ...


class EncodedTexts:
    """The texts of a collection through an encoder.

    Args:
        role: whose prompt is put before them. max_tokens: texts are cut there while training. chunk_tokens: padded tokens a pass.
        precision: "auto" is bfloat16 where it pays.

    >>> from rivals.models import Encoder
    >>> texts = EncodedTexts(Encoder.load("all-MiniLM-L6-v2", device="cpu"), Collection(["q"], ["a cat"]), "query")
    >>> make, rows = texts.chunks(np.array([0]))
    >>> make[0]()[0].shape, rows.tolist()
    (torch.Size([1, 384]), [0])
    """

    def __init__(
        self,
        encoder: Encoder,
        texts: Collection,
        role: Literal["query", "document"],
        *,
        max_tokens: int = 128,
        chunk_tokens: int = 4096,
        precision: Precision = "auto",
    ) -> None:
        self.module, self.texts, self.role, self.chunk_tokens = encoder, texts, role, chunk_tokens
        self._tokens = encoder.tokenize(texts.full_texts, role=role, longest=max_tokens)
        self._autocast = autocast(encoder.device, precision)

    def chunks(self, rows: Rows) -> tuple[list[Callable[[], Vectors]], Rows]:
        """See `Side`."""
        chunks = list(token_batches(self._tokens.lengths[rows], self.chunk_tokens))
        return [partial(self._encode, rows[chunk]) for chunk in chunks], np.concatenate(
            [*chunks, np.zeros(0, np.int64)]
        )

    def _encode(self, rows: Rows) -> Vectors:
        encoder = self.module
        ids, mask = self._tokens.pad(rows, pad_id=encoder.fast_tokenizer.pad_id, device=encoder.device)
        with self._autocast:
            hidden = encoder.token_vectors(ids, mask)
        return (encoder.finish(hidden, mask, prompt_length=self._tokens.prompt_length),)

    def all(self) -> NDArray[np.float32]:
        """See `Side`."""
        return self.module.encode(self.texts.full_texts, role=self.role, progress=False)


class MappedVectors:
    """Given vectors through a module that learns, such as frozen features through a tower.

    Args:
        module: maps float[n, F] to [n, D]. vectors: float[N, F], one a row of the collection; an array or a memory map.

    >>> side = MappedVectors(nn.Identity(), np.eye(2, dtype=np.float32))
    >>> side.all().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(self, module: nn.Module, vectors: NDArray[Any]) -> None:
        if vectors.ndim != 2:
            raise RivalsError(f"vectors must be [N, F], not {vectors.shape}")
        self.module, self.vectors = module, vectors

    def chunks(self, rows: Rows) -> tuple[list[Callable[[], Vectors]], Rows]:
        """See `Side`."""
        return [partial(self._map, rows)], np.arange(len(rows))

    def _map(self, rows: Rows) -> Vectors:
        like = next(self.module.parameters(), torch.empty(0))
        return (self.module(torch.from_numpy(np.ascontiguousarray(self.vectors[rows])).to(like)),)

    def all(self) -> NDArray[np.float32]:
        """See `Side`."""
        with inference(self.module):
            blocks = [np.arange(s, min(s + _BLOCK, len(self.vectors))) for s in range(0, len(self.vectors), _BLOCK)]
            return torch.cat([self._map(rows)[0].float() for rows in blocks]).cpu().numpy()


class VectorScorer:
    """Inner products or cosines of a query's vector and a document's, times `scale`.

    Args:
        query, document: the two sides. One module on both sides is one tower for both.
        similarity: "dot", or "cosine" of unit vectors. scale: of the scores, 1 / temperature or 1 / sqrt(dimension).

    Its parameters' names begin with `query.` and `document.` (one tower: `query.`).

    >>> eye = np.eye(3, dtype=np.float32)
    >>> scorer = VectorScorer(MappedVectors(nn.Identity(), eye), MappedVectors(nn.Identity(), eye))
    >>> scorer(np.array([1]), np.array([[1, 2]]), np.ones((1, 2), bool)).tolist()
    [[1.0, 0.0]]
    """

    def __init__(
        self, query: Side, document: Side, *, similarity: Literal["dot", "cosine"] = "dot", scale: float = 1.0
    ) -> None:
        if similarity not in ("dot", "cosine"):
            raise RivalsError(f"similarity is {similarity!r}; use 'dot' or 'cosine'")
        if not scale > 0:
            raise RivalsError(f"scale must be above 0, not {scale!r}")
        self.query, self.document, self.similarity, self.scale = query, document, similarity, scale
        self.model: nn.Module = nn.ModuleDict({"query": query.module, "document": document.module})

    def __call__(self, query: Rows, document: Rows, mask: NDArray[np.bool_]) -> Tensor:
        """See `Scorer`."""
        return self.joined([part() for part in self.parts(query, document, mask)], query, document, mask)

    def parts(self, query: Rows, document: Rows, mask: NDArray[np.bool_]) -> list[Callable[[], Vectors]]:
        """Return what makes the vectors of the queries and of the documents that are there, each document once."""
        return [*self.query.chunks(query)[0], *self.document.chunks(self._columns(document, mask)[0])[0]]

    def joined(self, vectors: Sequence[Vectors], query: Rows, document: Rows, mask: NDArray[np.bool_]) -> Tensor:
        """Return the scores from what `parts` gave."""
        columns, place = self._columns(document, mask)
        asked, order = self.query.chunks(query)
        queries = self._assembled(vectors[: len(asked)], order)
        if not len(columns):
            return queries.sum() * 0 + queries.new_zeros(mask.shape)
        documents = self._assembled(vectors[len(asked) :], self.document.chunks(columns)[1])
        scores = self.scale * (queries @ documents.T)
        if document.ndim == 2:
            scores = scores.gather(1, torch.from_numpy(place).to(scores.device))
        return scores.masked_fill(~torch.from_numpy(mask).to(scores.device), 0.0)

    def search(self, dataset: Dataset, k: int, rows: Rows | None = None) -> Run:
        """Return the `k` best documents of the present weights for some of the dataset's queries, as `Dense` finds them.

        The run has the known positives, scored alike; scores are without `scale`. It is what `Refresh` wants as `mine`.
        """
        rows = np.arange(len(dataset.queries)) if rows is None else rows
        unit = self.similarity == "cosine"
        queries, documents = (_unit(side.all()) if unit else side.all() for side in (self.query, self.document))
        dense = _Search(queries[rows], documents, dataset.documents, self.similarity)
        return dense(dataset.take(rows), k)

    def _assembled(self, vectors: Sequence[Vectors], order: Rows) -> Tensor:
        joined = torch.cat([part for (part,) in vectors])
        joined = joined[torch.from_numpy(np.argsort(order)).to(joined.device)]
        return nn.functional.normalize(joined, dim=-1) if self.similarity == "cosine" else joined

    @staticmethod
    def _columns(document: Rows, mask: NDArray[np.bool_]) -> tuple[Rows, Rows]:
        """The documents to encode, and the place of every cell's among them; empty cells have the first."""
        if document.ndim == 1:
            return document, np.arange(len(document))
        columns, found = np.unique(document[mask], return_inverse=True)
        place = np.zeros(document.shape, np.int64)
        place[mask] = found
        return columns, place


class _Search(Dense):
    """Dense retrieval for queries whose vectors are there."""

    def __init__(
        self,
        queries: NDArray[np.float32],
        vectors: NDArray[np.float32],
        documents: Collection,
        similarity: Literal["dot", "cosine"],
    ) -> None:
        super().__init__(_Nothing(), documents, vectors=vectors, similarity=similarity, show_progress=False)
        self._queries = queries

    def query_vectors(self, queries: Collection) -> NDArray[np.float32]:
        return self._queries


class _Nothing:
    """The encoder of a search that encodes nothing."""

    def encode(self, texts: list[str], *, role: str, progress: bool | str) -> NDArray[np.float32]:
        raise RivalsError("these vectors were made before; there is no encoder for further texts")

    def fingerprint(self) -> str:
        return ""


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


__all__ = ["EncodedTexts", "MappedVectors", "Side", "VectorScorer"]
