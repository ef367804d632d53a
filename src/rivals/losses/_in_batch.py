"""The readable mathematics of the contrastive losses: softmax against negatives, over lists and over embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.lists import masked_logsumexp
from rivals.losses._common import Reduction, reduce_lists
from rivals.losses._pairs import Assignment

Positives = Literal["each", "all", "graded", "decoupled"]
Direction = Literal["query_to_document", "document_to_query", "query_to_query", "document_to_document"]


@dataclass(frozen=True)
class Rule:
    """How the candidates of a list compete; margin and the lowest score are logits, over the temperature already."""

    positives: Positives = "each"
    margin: float = 0.0
    prior: float = 0.0
    lowest: float = -math.inf

    @property
    def hides_positives(self) -> bool:
        """Whether denominators are made from the negatives first, a positive being added afterwards, if at all."""
        return self.positives in ("each", "decoupled") or self.prior > 0


class Suspects(NamedTuple):
    """What is expected of a negative that is a positive: log of its mean e^logit, and of the number of negatives [...]."""

    log_mean: Tensor
    log_mass: Tensor


def list_losses(
    logits: Tensor,
    label: Tensor,
    there: Tensor,
    weight: Tensor | None,
    rule: Rule,
    suspects: Suspects | None = None,
) -> tuple[Tensor, Tensor]:
    """Return each list's loss, 0 where it has no positive, and whether it has one. All arguments are [..., C].

    `label` above 0 marks a positive; its value counts under the rule "graded" alone. Without `suspects` a list's own
    positives say what a false negative would score.
    """
    logits, share, negative, count = _weighted(logits, label, there, weight, rule)
    positive = share > 0
    own = logits - rule.margin
    if not rule.hides_positives:
        losses = masked_logsumexp(own.where(positive, logits), positive | negative).unsqueeze(-1) - own
        return (share * losses.masked_fill(~positive, 0.0)).sum(-1), positive.any(-1)
    against, opposed = masked_logsumexp(logits, negative), negative.any(-1)
    if rule.prior > 0:
        if suspects is None:
            log_share = share.masked_fill(~positive, 1.0).log()
            suspects = Suspects(masked_logsumexp(logits + log_share, positive), log_count(count))
        against = debiased(against, suspects, rule)
    if rule.positives == "all":
        competing = masked_logsumexp(own, positive)
        against = torch.logaddexp(against.masked_fill(~opposed, -torch.inf), competing)
        losses = against.unsqueeze(-1) - own
    else:
        gap = against.unsqueeze(-1) - own
        losses = gap if rule.positives == "decoupled" else -F.logsigmoid(-gap)
        losses = losses.masked_fill(~opposed.unsqueeze(-1), 0.0)
    return (share * losses.masked_fill(~positive, 0.0)).sum(-1), positive.any(-1)


def debiased(against: Tensor, suspects: Suspects, rule: Rule) -> Tensor:
    """Take the expected share of positives out of negatives given by their log-sum-exp, bounded from below.

    log max{ (e^against - prior e^(log_mass + log_mean)) / (1 - prior), e^(log_mass + lowest) }; -inf where nothing is
    left and nothing bounds it. At that bound there is no gradient.
    """
    gap = suspects.log_mean + suspects.log_mass + math.log(rule.prior) - against
    left = gap < 0
    value = against + (-gap.masked_fill(~left, -1.0).expm1()).log() - math.log1p(-rule.prior)
    floor = suspects.log_mass + rule.lowest
    return value.where(left & (value > floor), floor)


def log_count(count: Tensor) -> Tensor:
    """Return log count, and 0 where there is nothing to count."""
    return count.masked_fill(count == 0, 1.0).log()


def _weighted(
    logits: Tensor, label: Tensor, there: Tensor, weight: Tensor | None, rule: Rule
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return logits with log w added at negatives, each positive's share of its list, the negatives and their number."""
    positive = (label > 0) & there
    negative = there & ~positive
    share = label.to(logits.dtype).masked_fill(~positive, 0.0) if rule.positives == "graded" else positive.to(logits)
    if weight is None:
        count = negative.sum(-1).to(logits.dtype)
    else:
        negative = negative & (weight > 0)
        share = share * weight.masked_fill(~positive, 0.0)
        logits = logits + weight.masked_fill(~negative, 1.0).log()
        count = weight.masked_fill(~negative, 0.0).sum(-1)
    total = share.sum(-1, keepdim=True)
    return logits, share / total.masked_fill(total == 0, 1.0), negative, count


def unit_rows(vectors: Tensor) -> Tensor:
    """Return vectors of length 1; a zero vector stays zero, has cosine 0 with everything and gets no gradient."""
    length = vectors.norm(dim=-1, keepdim=True)
    zero = length == 0
    return (vectors / length.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)


def similarity(left: Tensor, right: Tensor, matmul_dtype: torch.dtype | None) -> Tensor:
    """Return left @ right', in the matmul dtype asked for, as a tensor of the dtype of `left`."""
    if matmul_dtype is None:
        return left @ right.mT
    return (left.to(matmul_dtype) @ right.to(matmul_dtype).mT).to(left.dtype)


def in_batch_loss(
    queries: Tensor,
    documents: Tensor,
    pairs: Assignment,
    *,
    negatives: Tensor | None,
    negative_mask: Tensor | None,
    temperature: float,
    directions: tuple[Direction, ...],
    by_similarity: bool,
    rule: Rule,
    reduction: Reduction,
    matmul_dtype: torch.dtype | None,
) -> Tensor:
    """The embedding form with one softmax a direction, averaged over directions. Embeddings are normalised already."""
    label, there = pairs.dense()
    if rule.positives == "graded" and pairs.relevance is not None:
        label = pairs.relevance.masked_fill(~there, 0)
    column_label = label
    if by_similarity:
        label, column_label = similarity_targets(queries, documents)
    logits = similarity(queries, documents, matmul_dtype) / temperature
    weight = None if pairs.weight is None else pairs.weight.to(logits.dtype)
    results = []
    for direction in directions:
        if direction == "document_to_query":
            columns = None if weight is None else weight.T
            losses = list_losses(logits.T, column_label.T, there.T, columns, rule)
        else:
            row = (logits, label, there, weight)
            if negatives is not None:
                row = _with_private(row, queries, negatives, negative_mask, temperature, matmul_dtype)
            losses = list_losses(*row, rule)
        results.append(reduce_lists(*losses, reduction))
    return results[0] if len(results) == 1 else torch.stack(results).mean()


def joint_loss(
    queries: Tensor,
    documents: Tensor,
    pairs: Assignment,
    *,
    negatives: Tensor | None,
    negative_mask: Tensor | None,
    temperature: float,
    directions: tuple[Direction, ...],
    rule: Rule,
    reduction: Reduction,
    matmul_dtype: torch.dtype | None,
) -> Tensor:
    """The embedding form with one softmax per (query, positive) over the negatives of all directions."""
    positive, there = pairs.dense()
    logits = similarity(queries, documents, matmul_dtype) / temperature
    weight = None if pairs.weight is None else pairs.weight.to(logits.dtype)
    weighted, share, negative, _ = _weighted(logits, positive, there, weight, rule)
    row, column = (share > 0).nonzero(as_tuple=True)
    rivals: list[tuple[Tensor, Tensor]] = []  # logits [P, n] and which of them are negatives of the pair
    if "query_to_document" in directions:
        rivals.append((weighted[row], negative[row]))
        if negatives is not None:
            private, private_there = _private_logits(queries, negatives, negative_mask, temperature, matmul_dtype)
            rivals.append((private[row], private_there[row]))
    if "document_to_query" in directions:
        rivals.append((weighted.T[column], negative.T[column]))
    if "query_to_query" in directions:
        shared = positive.to(logits.dtype) @ positive.to(logits.dtype).T > 0
        apart = ~shared & there.any(1)
        rivals.append(((similarity(queries, queries, matmul_dtype) / temperature)[row], apart[row]))
    if "document_to_document" in directions:
        rivals.append(
            ((similarity(documents, documents, matmul_dtype) / temperature)[column], (there & ~positive)[row])
        )
    against, competing = (torch.cat(part, dim=1) for part in zip(*rivals, strict=True))
    losses = -F.logsigmoid(logits[row, column] - rule.margin - masked_logsumexp(against, competing))
    losses = losses.masked_fill(~competing.any(1), 0.0)
    total = torch.zeros_like(queries[:, 0]).index_add(0, row, share[row, column] * losses)
    return reduce_lists(total, (share > 0).any(1), reduction)


def similarity_targets(queries: Tensor, documents: Tensor) -> tuple[Tensor, Tensor]:
    """Return the targets of paper 3's `mnr_plus` as matrices [Q, Q]: one per row, and one per column."""
    with torch.no_grad():
        likeness = ((queries @ queries.T + documents @ documents.T) / 2).softmax(dim=1)
        by_row = F.one_hot(likeness.argmax(1), len(queries)).bool()
        by_column = F.one_hot(likeness.argmax(0), len(queries)).bool().T
    return by_row, by_column


def _private_logits(
    queries: Tensor,
    negatives: Tensor,
    negative_mask: Tensor | None,
    temperature: float,
    matmul_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    logits = similarity(queries.unsqueeze(1), negatives, matmul_dtype).squeeze(1) / temperature
    there = torch.ones_like(logits, dtype=torch.bool) if negative_mask is None else negative_mask
    return logits, there


def _with_private(
    row: tuple[Tensor, Tensor, Tensor, Tensor | None],
    queries: Tensor,
    negatives: Tensor,
    negative_mask: Tensor | None,
    temperature: float,
    matmul_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    logits, label, there, weight = row
    private, private_there = _private_logits(queries, negatives, negative_mask, temperature, matmul_dtype)
    return (
        torch.cat([logits, private], dim=1),
        torch.cat([label, torch.zeros_like(private_there, dtype=label.dtype)], dim=1),
        torch.cat([there, private_there], dim=1),
        None if weight is None else torch.cat([weight, torch.ones_like(private)], dim=1),
    )
