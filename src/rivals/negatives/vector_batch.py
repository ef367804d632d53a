"""`VectorBatch`, the vectors of one training batch, and `VectorGenerator`, what changes them or adds some."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError


class ScoredLists(NamedTuple):
    """Scores, relevance and mask [B, 1 + N + K]: column 0 the positive, then the shared and the private negatives."""

    scores: Tensor
    relevance: Tensor
    mask: Tensor


@dataclass(frozen=True, eq=False)
class VectorBatch:
    """The vectors of one training batch, found or made.

    `queries` and `positives` float[B, D]; `negatives` float[N, D], which all queries share, `allowed` bool[B, N] saying
    for which query each may count (None: all); `private` float[B, K, D], negatives of one query each; `distant`
    float[B, D], made positives for a second term of the loss.

    >>> batch = VectorBatch.in_batch(torch.eye(2), torch.eye(2))
    >>> batch.lists().scores.tolist(), batch.lists().mask.tolist()
    ([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]], [[True, False, True], [True, True, False]])
    """

    queries: Tensor
    positives: Tensor
    negatives: Tensor
    allowed: Tensor | None = None
    private: Tensor | None = None
    distant: Tensor | None = None

    def __post_init__(self) -> None:
        if self.queries.ndim != 2 or self.negatives.ndim != 2:
            raise RivalsError(
                f"queries [B, D] and negatives [N, D] are needed, not {tuple(self.queries.shape)} and "
                f"{tuple(self.negatives.shape)}"
            )
        (size, width), number = self.queries.shape, len(self.negatives)
        kept = None if self.private is None else self.private.shape[1:2]
        for name, value, shape in (
            ("positives", self.positives, (size, width)),
            ("negatives", self.negatives, (number, width)),
            ("allowed", self.allowed, (size, number)),
            ("private", self.private, (size, *(kept or ()), width)),
            ("distant", self.distant, (size, width)),
        ):
            if value is not None and tuple(value.shape) != shape:
                raise RivalsError(f"{name} must have shape {list(shape)}, not {list(value.shape)}")
        if self.allowed is not None and self.allowed.dtype != torch.bool:
            raise RivalsError(f"allowed must be boolean (True = may count as a negative), not {self.allowed.dtype}")

    @classmethod
    def in_batch(cls, queries: Tensor, documents: Tensor, mask: Tensor | None = None) -> VectorBatch:
        """Return the batch in which every document but a query's own is its negative.

        Args:
            queries: float[B, D]. documents: float[C, D], document i < B the positive of query i, the rest mined
                negatives. mask: bool[B, C], False = no negative of that query, such as other known positives or what
                `rivals.losses.false_negative_weights` gives the weight 0.
        """
        if queries.ndim != 2 or documents.ndim != 2 or len(documents) < len(queries):
            raise RivalsError(
                f"queries [B, D] need at least as many documents [C, D], the first B their positives; not "
                f"{tuple(queries.shape)} and {tuple(documents.shape)}"
            )
        allowed = ~torch.eye(len(queries), len(documents), dtype=torch.bool, device=queries.device)
        if mask is not None:
            if mask.shape != allowed.shape or mask.dtype != torch.bool:
                raise RivalsError(f"mask must be bool{list(allowed.shape)}, not {mask.dtype} {list(mask.shape)}")
            allowed = allowed & mask
        return cls(queries, documents[: len(queries)], documents, allowed)

    def with_negatives(self, negatives: Tensor) -> VectorBatch:
        """Return the batch with further negatives float[M, D], which count for every query."""
        allowed = None
        if self.allowed is not None:
            allowed = torch.cat([self.allowed, self.allowed.new_ones(len(self.queries), len(negatives))], 1)
        made = negatives.to(self.negatives.dtype)
        return replace(self, negatives=torch.cat([self.negatives, made]), allowed=allowed)

    def with_distant_as_positives(self) -> VectorBatch:
        """Return the batch with the distant positives in the place of the positives, for the second term of the loss.

        Raises:
            RivalsError: there are none.
        """
        if self.distant is None:
            raise RivalsError("the batch has no distant positives; make them with Adversarial(distant=...)")
        return replace(self, positives=self.distant, distant=None)

    def lists(self, *, normalize: bool = True) -> ScoredLists:
        """Return the batch in the ranking form, by cosine or, with normalize=False, by the inner product."""
        vectors = [self.queries, self.positives, self.negatives]
        if self.private is not None:
            vectors.append(self.private)
        if normalize:
            vectors = [F.normalize(each, dim=-1) for each in vectors]
        queries, positives, negatives, *private = vectors
        parts = [(queries * positives).sum(-1, keepdim=True), queries @ negatives.T]
        parts += [torch.einsum("bd,bkd->bk", queries, each) for each in private]
        scores = torch.cat(parts, 1)
        relevance = torch.zeros_like(scores)
        relevance[:, 0] = 1.0
        mask = torch.ones_like(scores, dtype=torch.bool)
        if self.allowed is not None:
            mask[:, 1 : 1 + len(negatives)] = self.allowed
        return ScoredLists(scores, relevance, mask)


class VectorGenerator(ABC):
    """Changes the vectors of a training batch, or adds some; draws come from the generator given."""

    @abstractmethod
    def __call__(self, batch: VectorBatch, *, step: int = 0, generator: torch.Generator) -> VectorBatch:
        """Return the changed batch; `step` counts training steps from 0."""

    def __rshift__(self, then: VectorGenerator) -> VectorGenerator:
        return _InTurn((*_members(self), *_members(then)))


class _InTurn(VectorGenerator):
    def __init__(self, members: tuple[VectorGenerator, ...]) -> None:
        self.members = members

    def __call__(self, batch: VectorBatch, *, step: int = 0, generator: torch.Generator) -> VectorBatch:
        for member in self.members:
            batch = member(batch, step=step, generator=generator)
        return batch

    def __repr__(self) -> str:
        return " >> ".join(map(repr, self.members))


def _members(generator: VectorGenerator) -> tuple[VectorGenerator, ...]:
    return generator.members if isinstance(generator, _InTurn) else (generator,)
