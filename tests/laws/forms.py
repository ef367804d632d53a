"""The forms of public functions, and one problem (a set of arguments) of each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

GARBAGE = (0.0, 1e4, -1e4, 3.7)
Form: TypeAlias = Literal["lists", "targets", "embeddings", "labelled", "classes", "measure", "own"]
Change: TypeAlias = Callable[[Tensor], Tensor]

_LEADING: dict[tuple[str, ...], Form] = {
    ("scores", "relevance", "mask"): "lists",
    ("scores", "targets", "mask"): "targets",
    ("queries", "documents", "relevance", "mask"): "embeddings",
    ("embeddings", "labels", "mask"): "labelled",
    ("logits", "labels", "mask"): "classes",
}


def classify(function: Callable[..., Any], *, measure: bool = False) -> Form:
    """Return the form of a public function, by the names of its leading arguments; an unknown form raises.

    - lists: (scores, relevance, mask) [..., C]. targets: the same with targets of any sign in place of relevance.
    - embeddings: (queries [Q, D], documents [C, D], relevance [Q, C], mask [Q, C]).
    - labelled: (embeddings [N, D], labels [N], mask [N]). classes: (logits [N, K], labels [N], mask [N]).
    """
    names = tuple(inspect.signature(function).parameters)
    for leading, form in _LEADING.items():
        if names[: len(leading)] == leading:
            if not measure:
                return form
            if form == "lists":
                return "measure"
    raise LookupError(
        f"{function.__name__}({', '.join(names[:4])}, ...) has no law strategy; name the test file with its own laws "
        f"in tests/laws/options"
    )


@dataclass(frozen=True)
class Lists:
    """Scores, relevance (or targets) and mask [Q, C], perhaps weights, and further tensors [Q, C] by keyword."""

    scores: Tensor
    relevance: Tensor
    mask: Tensor
    weight: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))

    def arguments(self) -> tuple[Tensor, ...]:
        return self.scores, self.relevance, self.mask

    def keywords(self) -> dict[str, Any]:
        return dict(self.extra) | ({} if self.weight is None else {"weight": self.weight})

    def inputs(self) -> tuple[Tensor, ...]:
        return (self.scores,)

    def with_inputs(self, scores: Tensor) -> Lists:
        return replace(self, scores=scores)

    def columns(self, change: Change) -> Lists:
        """Apply a change to the last dimension of everything."""
        return Lists(
            change(self.scores),
            change(self.relevance),
            change(self.mask),
            None if self.weight is None else change(self.weight),
            {name: change(value) for name, value in self.extra.items()},
        )

    def reordered(self, seed: int) -> Lists:
        """Permute the candidates."""
        order = permutation(self.mask.shape[1], seed)
        return self.columns(lambda values: values[:, order])

    def padded(self, column: int, garbage: float) -> Lists:
        """Insert an absent candidate that holds garbage."""
        column %= self.mask.shape[1] + 1
        wide = self.columns(lambda values: _insert(values, column, garbage if values.is_floating_point() else 0))
        relevance = _insert(self.relevance, column, abs(garbage) if self.relevance.is_floating_point() else 1)
        return replace(wide, relevance=relevance)

    def with_empty_list(self) -> Lists:
        """Append a list whose candidates are all absent."""
        wide = self.columns(lambda values: torch.cat([values, values.new_ones(1, values.shape[1])]))
        return replace(wide, mask=torch.cat([self.mask, torch.zeros_like(self.mask[:1])]))

    def absent(self) -> tuple[Tensor, ...]:
        """Return, for every input, where nothing is."""
        return (~self.mask,)


@dataclass(frozen=True)
class Embeddings:
    """Queries [Q, D], documents [C, D], relevance and mask [Q, C], and perhaps weights; private negatives by option."""

    queries: Tensor
    documents: Tensor
    relevance: Tensor
    mask: Tensor
    weight: Tensor | None = None

    def arguments(self) -> tuple[Tensor, ...]:
        return self.queries, self.documents, self.relevance, self.mask

    def keywords(self) -> dict[str, Any]:
        return {} if self.weight is None else {"weight": self.weight}

    def inputs(self) -> tuple[Tensor, ...]:
        return self.queries, self.documents

    def with_inputs(self, queries: Tensor, documents: Tensor) -> Embeddings:
        return replace(self, queries=queries, documents=documents)

    def columns(self, change: Change) -> Embeddings:
        weight = None if self.weight is None else change(self.weight)
        documents = change(self.documents.T).T
        return Embeddings(self.queries, documents, change(self.relevance), change(self.mask), weight)

    def reordered(self, seed: int) -> Embeddings:
        """Permute the documents."""
        order = permutation(self.mask.shape[1], seed)
        return self.columns(lambda values: values[:, order])

    def padded(self, column: int, garbage: float) -> Embeddings:
        """Insert a document that is absent for every query and holds garbage."""
        column %= self.mask.shape[1] + 1
        return self.columns(lambda values: _insert(values, column, garbage if values.is_floating_point() else 0))

    def with_empty_list(self) -> Embeddings:
        """Append a query for which every document is absent."""

        def append(values: Tensor) -> Tensor:
            return torch.cat([values, torch.zeros_like(values[:1]) if values.dtype == torch.bool else values[:1]])

        weight = None if self.weight is None else append(self.weight)
        return Embeddings(append(self.queries), self.documents, append(self.relevance), append(self.mask), weight)

    def absent(self) -> tuple[Tensor, ...]:
        return ~self.mask.any(1), ~self.mask.any(0)


@dataclass(frozen=True)
class Labelled:
    """One row an example: embeddings [N, D] or logits [N, K], labels int64[N], mask [N], and perhaps weights [N]."""

    rows: Tensor
    labels: Tensor
    mask: Tensor
    weight: Tensor | None = None

    def arguments(self) -> tuple[Tensor, ...]:
        return self.rows, self.labels, self.mask

    def keywords(self) -> dict[str, Any]:
        return {} if self.weight is None else {"weight": self.weight}

    def inputs(self) -> tuple[Tensor, ...]:
        return (self.rows,)

    def with_inputs(self, rows: Tensor) -> Labelled:
        return replace(self, rows=rows)

    def examples(self, change: Change) -> Labelled:
        weight = None if self.weight is None else change(self.weight)
        return Labelled(change(self.rows), change(self.labels), change(self.mask), weight)

    def reordered(self, seed: int) -> Labelled:
        """Permute the examples."""
        order = permutation(len(self.mask), seed)
        return self.examples(lambda values: values[order])

    def padded(self, row: int, garbage: float) -> Labelled:
        """Insert an absent example that holds garbage."""
        row %= len(self.mask) + 1

        def insert(values: Tensor) -> Tensor:
            new = torch.full_like(values[:1], garbage if values.is_floating_point() else 0)
            return torch.cat([values[:row], new, values[row:]])

        return self.examples(insert)

    def with_empty_list(self) -> Labelled:
        return self.padded(len(self.mask), 1.0)

    def absent(self) -> tuple[Tensor, ...]:
        return (~self.mask,)


Problem: TypeAlias = Lists | Embeddings | Labelled


def permutation(size: int, seed: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def _insert(values: Tensor, column: int, value: float) -> Tensor:
    new = torch.full_like(values[:, :1], value)
    return torch.cat([values[:, :column], new, values[:, column:]], dim=1)
