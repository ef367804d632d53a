"""Losses on pairs that are the same or not (a spoken and a written word): near if the same, a margin away if not."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype, masked_mean
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_lists,
    check_positive,
    reduce_lists,
)
from rivals.losses._distances import euclidean
from rivals.losses._in_batch import unit_rows
from rivals.losses._pairs import check_assignment

__all__ = ["bimodal_contrastive_loss", "online_contrastive_loss", "pair_contrastive_loss"]


def pair_contrastive_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    margin: float = 1.0,
    balance: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Contrastive loss on pairs: half the squared distance if the same, half the squared gap to the margin if not.

    Formula:
        L = mean over pairs of 1/2 D^2 where y > 0, else 1/2 max(0, margin - D)^2, with D = max(0, -score). `balance`:
        the mean over the positives plus the mean over the negatives.

    Shapes:
        scores float[..., C] (minus the distances), relevance [..., C] >= 0, mask bool[..., C] -> scalar, or float[...]
        (each list's sum) with reduction="none".

    When to use:
        Pairs labelled same / different whose distance itself must be thresholded (margin / 2 is the natural cut).
        `balance` where negatives far outnumber positives.

    Relations:
        `online_contrastive_loss` keeps the hard pairs alone; `bimodal_contrastive_loss` builds the distances of two
        encoders, `in_batch_contrastive_loss` those of one labelled batch.

    Source:
        Hadsell et al. (2006), eq. 4; El-Geish (2019), acoustic-phonetic word embeddings; as
        sentence-transformers' `ContrastiveLoss`. Paper 75. The paper's own list of losses and margins could not be
        checked.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance at a
        candidate that is there, margin <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> distances, same = torch.tensor([0.3, 0.3, 1.2]), torch.tensor([1.0, 0.0, 0.0])
        >>> pair_contrastive_loss(-distances, same)
        tensor(0.0967)
    """
    check_positive(margin, "margin")
    lists = check_lists(scores, relevance, mask, None, reduction)
    same = (lists.relevance > 0) & lists.mask
    return _reduced(_squares(lists.scores, same, lists.mask & ~same, margin), balance, reduction)


def online_contrastive_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    margin: float = 1.0,
    reduction: Reduction = "sum",
) -> Tensor:
    """Contrastive loss on the hard pairs alone: positives farther than a negative, negatives nearer than a positive.

    Formula:
        L = sum of D^2 over the positives with D above the least D of the negatives, plus sum of max(0, margin - D)^2
        over the negatives with D below the largest D of the positives, D = max(0, -score); without the 1/2 of
        `pair_contrastive_loss`. Each list chooses by itself; without negatives, positives above their own mean count,
        without positives, negatives below theirs. "mean" divides by the number of pairs chosen.

    Shapes:
        scores float[..., C] (minus the distances), relevance [..., C] >= 0, mask bool[..., C] -> scalar, or float[...]
        with reduction="none".

    When to use:
        As `pair_contrastive_loss`, in batches where most pairs are easy. The sum grows with the batch.

    Relations:
        With all pairs chosen: twice `pair_contrastive_loss`, summed.

    Source:
        sentence-transformers' `OnlineContrastiveLoss`, followed to the letter; El-Geish (2019) for its use.
        Paper 75.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance at a
        candidate that is there, margin <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> distances, same = torch.tensor([0.6, 0.2, 0.5, 0.9]), torch.tensor([1.0, 1.0, 0.0, 0.0])
        >>> online_contrastive_loss(-distances, same)
        tensor(0.6100)
    """
    check_positive(margin, "margin")
    lists = check_lists(scores, relevance, mask, None, reduction)
    same = (lists.relevance > 0) & lists.mask
    return reduce_lists(*_hard_squares(lists.scores, same, lists.mask & ~same, margin), reduction)


def bimodal_contrastive_loss(
    queries: Tensor,
    documents: Tensor,
    relevance: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    query_groups: Tensor | None = None,
    document_groups: Tensor | None = None,
    margin: float = 1.0,
    sides: tuple[float, float, float] = (1.0, 0.0, 0.0),
    normalize: bool = True,
    balance: bool = False,
    hard_only: bool = False,
) -> Tensor:
    """Contrastive loss on all pairs of two encoders' vectors, and of each encoder's among themselves if told.

    Formula:
        L = sides[0] L(queries, documents) + sides[1] L(queries, queries) + sides[2] L(documents, documents), each the
        `pair_contrastive_loss` of all its pairs (a vector is not paired with itself), D the distance of the (unit)
        vectors. hard_only: the mean of `online_contrastive_loss` over the pairs it chooses.

    Shapes:
        queries float[Q, D], documents float[C, D], relevance [Q, C] >= 0, mask bool[Q, C]; or query_groups int64[Q] and
        document_groups int64[C], equal for the same word -> scalar. Without either, document i is the same as query
        i, and no other. O((Q + C)^2 D) with all sides.

    When to use:
        Two encoders without shared weights, such as speech and phonemes, and a decision by distance. Words that sound
        the same belong to one group.

    Relations:
        The margin loss beside `in_batch_info_nce_loss`, which needs no margin but gives no absolute distance.

    Source:
        El-Geish (2019), acoustic-phonetic word embeddings; Hadsell et al. (2006), eq. 4. Paper 75. Weights and
        margin are our choice; the paper's full text could not be checked.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance, margin
        <= 0, sides that are not three weights of at least 0, sides 1 or 2 with relevance (which says nothing about
        them), fewer documents than queries without relevance or groups.

    Example:
        >>> import torch
        >>> bimodal_contrastive_loss(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        tensor(0.0801)
    """
    check_positive(margin, "margin")
    if len(sides) != 3:
        raise RivalsError(f"sides must be three weights (cross, queries, documents); got {sides!r}")
    for side in sides:
        check_at_least_zero(side, "sides")
    pairs = check_assignment(
        queries,
        documents,
        relevance=relevance,
        mask=mask,
        weight=None,
        positive_columns=None,
        query_groups=query_groups,
        document_groups=document_groups,
        same_group="positive",
    )
    if relevance is not None and (sides[1] or sides[2]):
        raise RivalsError("sides among queries or documents need query_groups and document_groups, not relevance")
    same, there = pairs.dense()
    dtype = torch.promote_types(compute_dtype(queries), compute_dtype(documents))
    rows, columns = there.any(1), there.any(0)
    left = queries.to(dtype).masked_fill(~rows.unsqueeze(1), 0.0)
    right = documents.to(dtype).masked_fill(~columns.unsqueeze(1), 0.0)
    if normalize:
        left, right = unit_rows(left), unit_rows(right)
    result = sides[0] * _all_pairs(left, right, same, there, margin, balance, hard_only)
    for weight, vectors, present, groups in (
        (sides[1], left, rows, query_groups),
        (sides[2], right, columns, document_groups),
    ):
        if weight:
            labels = torch.arange(len(vectors), device=vectors.device) if groups is None else groups
            apart = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
            chosen = apart & present.unsqueeze(0) & present.unsqueeze(1)
            alike = (labels.unsqueeze(1) == labels) & chosen
            result = result + weight * _all_pairs(vectors, vectors, alike, chosen, margin, balance, hard_only)
    return result


def _all_pairs(
    left: Tensor, right: Tensor, same: Tensor, there: Tensor, margin: float, balance: bool, hard_only: bool
) -> Tensor:
    scores, same, there = -euclidean(left, right).flatten(), same.flatten(), there.flatten()
    if hard_only:
        return reduce_lists(*_hard_squares(scores, same, there & ~same, margin), "mean")
    return _reduced(_squares(scores, same, there & ~same, margin), balance, "mean")


class _Terms(NamedTuple):
    """Per list: the squares of positives and of negatives added up, and how many pairs of each there are."""

    near: Tensor
    far: Tensor
    positives: Tensor
    negatives: Tensor


def _squares(scores: Tensor, same: Tensor, different: Tensor, margin: float) -> _Terms:
    near = (-scores).clamp(min=0).masked_fill(~same, 0.0).square().sum(-1)
    far = (margin - (-scores).clamp(min=0)).clamp(min=0).masked_fill(~different, 0.0).square().sum(-1)
    return _Terms(near, far, same.sum(-1), different.sum(-1))


def _reduced(terms: _Terms, balance: bool, reduction: Reduction) -> Tensor:
    """Reduce half the squares: all pairs together, or positives and negatives each by themselves."""
    if balance:
        near = reduce_lists(terms.near / 2, terms.positives, reduction)
        return near + reduce_lists(terms.far / 2, terms.negatives, reduction)
    return reduce_lists((terms.near + terms.far) / 2, terms.positives + terms.negatives, reduction)


def _hard_squares(scores: Tensor, same: Tensor, different: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Return per list the squares of the hard pairs added up, without the factor 1/2, and how many pairs that is."""
    if scores.shape[-1] == 0:
        return scores.sum(-1), same.sum(-1)
    distance = (-scores.detach()).clamp(min=0)
    farthest = distance.masked_fill(~same, -torch.inf).amax(-1, keepdim=True)
    nearest = distance.masked_fill(~different, torch.inf).amin(-1, keepdim=True)
    limit = farthest.where(same.any(-1, keepdim=True), masked_mean(distance, different, -1).unsqueeze(-1))
    start = nearest.where(different.any(-1, keepdim=True), masked_mean(distance, same, -1).unsqueeze(-1))
    terms = _squares(scores, same & (distance > start), different & (distance < limit), margin)
    return terms.near + terms.far, terms.positives + terms.negatives
