"""Which documents are whose positives: the options of the embedding form, as a matrix and as a list of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import check_choice, check_like, check_mask, check_not_negative, check_scores, check_shape

SameGroup = Literal["positive", "ignore"]


@dataclass(frozen=True)
class Assignment:
    """Positives and absent entries of Q queries by C documents, kept in the compact form they were given in.

    `relevance` and `mask` are None or [Q, C]; `own` is each query's positive column (None with `relevance`, or when
    groups name the positives); `query_groups` and `document_groups` are both None or both given.
    """

    shape: tuple[int, int]
    device: torch.device
    relevance: Tensor | None
    mask: Tensor | None
    weight: Tensor | None
    own: Tensor | None
    query_groups: Tensor | None
    document_groups: Tensor | None

    @property
    def is_diagonal(self) -> bool:
        """Whether nothing but one own positive per query was given."""
        return self.own is not None and self.mask is None and self.query_groups is None

    def dense(self) -> tuple[Tensor, Tensor]:
        """Return (positive, there), both bool[Q, C]: the readable form."""
        there = torch.ones(self.shape, dtype=torch.bool, device=self.device) if self.mask is None else self.mask
        if self.relevance is not None:
            return (self.relevance > 0) & there, there
        same = None
        if self.query_groups is not None and self.document_groups is not None:
            same = self.query_groups[:, None] == self.document_groups[None, :]
        if self.own is None:
            assert same is not None
            return same & there, there
        positive = torch.zeros(self.shape, dtype=torch.bool, device=self.device)
        positive[torch.arange(self.shape[0], device=self.device), self.own] = True
        if same is not None:
            there = there & (positive | ~same)
        return positive & there, there

    def positive_pairs(self) -> tuple[Tensor, Tensor]:
        """Return the rows (never falling) and columns of all positives, int64[P]; no matrix unless one was given."""
        if self.relevance is not None:
            wanted = self.relevance > 0
            rows, columns = (wanted if self.mask is None else wanted & self.mask).nonzero(as_tuple=True)
            return rows, columns
        if self.own is None:
            rows, columns = self.group_pairs()
        else:
            rows, columns = torch.arange(self.shape[0], device=self.device), self.own
        if self.mask is not None:
            there = self.mask[rows, columns]
            rows, columns = rows[there], columns[there]
        return rows, columns

    def group_pairs(self) -> tuple[Tensor, Tensor]:
        """Return the rows (never falling) and columns of all pairs of the same group, by sorting."""
        assert self.query_groups is not None
        assert self.document_groups is not None
        ordered, order = self.document_groups.sort()
        first = torch.searchsorted(ordered, self.query_groups)
        count = torch.searchsorted(ordered, self.query_groups, right=True) - first
        rows = torch.repeat_interleave(torch.arange(self.shape[0], device=self.device), count)
        place = torch.arange(len(rows), device=self.device) - torch.repeat_interleave(count.cumsum(0) - count, count)
        return rows, order[first[rows] + place]

    def ignored_pairs(self) -> tuple[Tensor, Tensor] | None:
        """Return the pairs that groups take out of the denominator: same group, but not the query's own positive."""
        if self.own is None or self.query_groups is None:
            return None
        rows, columns = self.group_pairs()
        other = columns != self.own[rows]
        return rows[other], columns[other]


def check_assignment(
    queries: Tensor,
    documents: Tensor,
    *,
    relevance: Tensor | None,
    mask: Tensor | None,
    weight: Tensor | None,
    positive_columns: Tensor | None,
    query_groups: Tensor | None,
    document_groups: Tensor | None,
    same_group: SameGroup,
) -> Assignment:
    """Check the embeddings and everything that says which documents are positives, and return it compactly."""
    check_scores(queries, "queries", ndim=2)
    check_scores(documents, "documents", ndim=2)
    if queries.shape[1] != documents.shape[1]:
        raise RivalsError(f"documents must have the width of queries, {queries.shape[1]}; got {documents.shape[1]}")
    if queries.device != documents.device:
        raise RivalsError(f"documents are on {documents.device} but queries on {queries.device}; move one of them")
    shape, device = (len(queries), len(documents)), queries.device
    template = queries.new_empty(()).expand(shape)  # a shape and a device, no memory
    check_choice(same_group, ("positive", "ignore"), "same_group")
    if (query_groups is None) != (document_groups is None):
        raise RivalsError("query_groups and document_groups must be given together")
    if relevance is not None and (query_groups is not None or positive_columns is not None):
        raise RivalsError("relevance names all positives; give it without query_groups and positive_columns")
    if relevance is not None:
        check_like(relevance, template, "relevance")
        check_not_negative(_where_there(relevance, mask, template), "relevance")
    check_mask(mask, template, "mask")
    if weight is not None:
        check_like(weight, template, "weight")
        check_not_negative(_where_there(weight, mask, template), "weight")
    if query_groups is not None and document_groups is not None:
        _check_indices(query_groups, shape[0], "query_groups", device)
        _check_indices(document_groups, shape[1], "document_groups", device)
    own: Tensor | None = None
    if positive_columns is not None:
        if query_groups is not None and same_group == "positive":
            raise RivalsError(
                'positive_columns with query_groups needs same_group="ignore": else the groups name positives'
            )
        _check_indices(positive_columns, shape[0], "positive_columns", device)
        if device.type == "cpu" and ((positive_columns < 0) | (positive_columns >= shape[1])).any():
            raise RivalsError(f"positive_columns must lie in 0..{shape[1] - 1}, the columns of documents")
        own = positive_columns
    elif relevance is None and (query_groups is None or same_group == "ignore"):
        if shape[1] < shape[0]:
            raise RivalsError(
                f"documents must have at least as many rows as queries, {shape[0]}, since document i is the positive "
                f"of query i; got {shape[1]}. Give relevance, positive_columns or groups otherwise"
            )
        own = torch.arange(shape[0], device=device)
    return Assignment(shape, device, relevance, mask, weight, own, query_groups, document_groups)


def _where_there(values: Tensor, mask: Tensor | None, template: Tensor) -> Tensor:
    check_mask(mask, template, "mask")
    return values if mask is None else values.masked_fill(~mask, 0)


def _check_indices(values: Tensor, length: int, name: str, device: torch.device) -> None:
    check_shape(values, (length,), name, device)
    if values.dtype != torch.int64:
        raise RivalsError(f"{name} must be int64; got {values.dtype}")
