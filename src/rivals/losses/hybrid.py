"""Rare and correlated labels: label correlation, contrast by shared labels, and both beside a weighted cross entropy."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import masked_logsumexp
from rivals.losses._common import (
    Checked,
    Reduction,
    check_at_least_zero,
    check_choice,
    check_finite,
    check_lists,
    check_not_negative,
    check_positive,
    check_scores,
    check_shape,
    reduce_lists,
)
from rivals.losses._sets import safe_ratio
from rivals.losses.classification import binary_cross_entropy_loss

__all__ = [
    "HybridTerms",
    "hybrid_multilabel_loss",
    "hybrid_multilabel_terms",
    "label_correlation",
    "multilabel_contrastive_loss",
]

Similarity = Literal["jaccard", "overlap", "any"]
CorrelationKind = Literal["consistency", "covariance"]
FEWEST = 8
"""How many examples must know two labels for their correlation in a batch to be compared."""


class HybridTerms(NamedTuple):
    """The three terms of `hybrid_multilabel_loss`, each times its weight; their sum is the loss."""

    classification: Tensor
    correlation: Tensor
    contrastive: Tensor


def hybrid_multilabel_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    representations: Tensor | None = None,
    positive_weight: Tensor | None = None,
    correlation: Tensor | None = None,
    weights: tuple[float, float, float] = (1.0, 0.1, 0.1),
    correlation_kind: CorrelationKind = "consistency",
    similarity: Similarity = "jaccard",
    temperature: float = 0.1,
) -> Tensor:
    """Weighted cross entropy, plus agreement of correlated labels, plus contrast of representations by shared labels.

    Formula:
        L = w_1 L_cls + w_2 L_cor + w_3 L_con,  p = sigmoid(s):

        - L_cls: mean over the known entries of - c_k y log p - (1 - y) log(1 - p),  c = `positive_weight`.
        - L_cor, "consistency": mean over the examples of sum_{k<l} S_kl (p_k - p_l)^2 / sum_{k<l} S_kl, with
          S = (R + R^T) / 2 of `correlation` R, negative entries 0, over the labels known there.
        - L_cor, "covariance": mean over the pairs k != l of (corr(p)_kl - R_kl)^2, pairs that at least 8 examples of
          the batch know, with Pearson's correlation over these.
        - L_con: `multilabel_contrastive_loss`.

    Shapes:
        scores float[N, C], relevance [N, C] >= 0 (positive where > 0), mask bool[N, C] (False = unknown),
        representations float[N, D], positive_weight float[C] >= 0, correlation float[C, C] -> scalar.

    When to use:
        Multi-label tagging with rare and co-occurring labels, representations at hand. Of the three, expect the class
        weights to carry the gain; check the other two by leaving them out (weight 0, and no tensor needed).

    Relations:
        weights (1, 0, 0): `binary_cross_entropy_loss` with that weight at positives. `positive_weights` and
        `label_correlation` make the weights and R from the training labels.

    Source:
        After Abdelfattah et al. (2024), hybrid loss. Paper 70. Only the abstract was at hand: it names class weights, a
        label correlation matrix and contrastive learning, and these equations and weights are an instantiation of it,
        not the paper's own.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance, a
        negative weight, a weight above 0 without the representations or correlation it needs, fewer than two labels
        with a correlation term, temperature <= 0, an unknown correlation_kind or similarity.

    Example:
        Memory O(N^2 + N C), time O(N C^2 + N^2 (C + D)).

        >>> import torch
        >>> scores, relevance = torch.tensor([[2.0, -2.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
        >>> hybrid_multilabel_loss(scores, relevance, correlation=torch.ones(2, 2), weights=(1.0, 0.1, 0.0))
        tensor(0.2491)
    """
    return torch.stack(
        hybrid_multilabel_terms(
            scores,
            relevance,
            mask,
            representations=representations,
            positive_weight=positive_weight,
            correlation=correlation,
            weights=weights,
            correlation_kind=correlation_kind,
            similarity=similarity,
            temperature=temperature,
        )
    ).sum()


def hybrid_multilabel_terms(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    representations: Tensor | None = None,
    positive_weight: Tensor | None = None,
    correlation: Tensor | None = None,
    weights: tuple[float, float, float] = (1.0, 0.1, 0.1),
    correlation_kind: CorrelationKind = "consistency",
    similarity: Similarity = "jaccard",
    temperature: float = 0.1,
) -> HybridTerms:
    """Return the three weighted terms of `hybrid_multilabel_loss`, for logging; same arguments.

    Source: Abdelfattah et al. (2024). Paper 70.

    Raises:
        RivalsError: as `hybrid_multilabel_loss`.

    >>> terms = hybrid_multilabel_terms(torch.zeros(2, 2), torch.eye(2), weights=(1.0, 0.0, 0.0))
    >>> terms.classification, terms.contrastive
    (tensor(0.6931), tensor(0.))
    """
    check_scores(scores, "scores", ndim=2)
    lists = check_lists(scores, relevance, mask, None, "mean")
    for value in weights:
        check_at_least_zero(value, "weights")
    weight = None
    if positive_weight is not None:
        check_shape(positive_weight, (scores.shape[1],), "positive_weight", scores.device)
        check_not_negative(positive_weight, "positive_weight")
        weight = torch.where(lists.relevance > 0, positive_weight.to(lists.scores.dtype), 1.0)
    nothing = (lists.scores * 0.0).sum()
    correlated = contrast = nothing
    if weights[1] > 0:
        correlated = _correlation_term(lists, correlation, correlation_kind)
    if weights[2] > 0:
        if representations is None:
            raise RivalsError("representations are needed where the third of weights is above 0")
        contrast = multilabel_contrastive_loss(
            representations, relevance, mask, similarity=similarity, temperature=temperature
        ).to(nothing.dtype)
    classified = binary_cross_entropy_loss(scores, relevance, mask, weight=weight)
    return HybridTerms(weights[0] * classified, weights[1] * correlated, weights[2] * contrast)


def multilabel_contrastive_loss(
    embeddings: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    similarity: Similarity = "jaccard",
    temperature: float = 0.1,
    reduction: Reduction = "mean",
) -> Tensor:
    """Supervised contrastive loss in which examples attract each other by the share of labels they have in common.

    Formula:
        h = embeddings / |embeddings|,  and over the other examples j of the batch

        L_i = - sum_j a_ij log [ exp(h_i . h_j / t) / sum_{l != i} exp(h_i . h_l / t) ] / sum_j a_ij,  t = `temperature`;

        a_ij = |y_i & y_j| / |y_i | y_j| ("jaccard"), / min(|y_i|, |y_j|) ("overlap"), or 1 if they share a label
        ("any"), over the labels known of both, 0/0 = 0. Mean over the examples with a partner.

    Shapes:
        embeddings float[N, D], relevance [N, C] >= 0 (a label where > 0), mask bool[N, C] (False = unknown; an example
        of which nothing is known is not there) -> scalar, or float[N] with reduction="none".

    When to use:
        Beside a multi-label classifier, on the representations before its last layer.

    Relations:
        One label an example: the supervised contrastive loss of Khosla et al. (2020), eq. 2.

    Source:
        After Abdelfattah et al. (2024), contrastive term, whose equations were not at hand. Paper 70. The cosine of two
        zero vectors counts as 0.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance where it
        is known, temperature <= 0, an unknown similarity or reduction.

    Example:
        Memory and time O(N^2).

        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> labels = torch.tensor([[1, 0], [1, 0], [0, 1]])
        >>> multilabel_contrastive_loss(embeddings, labels, temperature=1.0)
        tensor(0.3133)
    """
    check_positive(temperature, "temperature")
    check_choice(similarity, ("jaccard", "overlap", "any"), "similarity")
    check_scores(embeddings, "embeddings", ndim=2)
    if not isinstance(relevance, Tensor) or relevance.ndim != 2 or len(relevance) != len(embeddings):
        shape = tuple(relevance.shape) if isinstance(relevance, Tensor) else type(relevance).__name__
        raise RivalsError(f"relevance must have a row for each of the {len(embeddings)} embeddings; got {shape}")
    template = embeddings.new_empty(()).expand(relevance.shape)
    lists = check_lists(template.new_zeros(template.shape), relevance, mask, None, reduction)
    there = lists.mask.any(1)
    rows = F.normalize(embeddings.to(lists.scores.dtype).masked_fill(~there.unsqueeze(1), 0.0), dim=1)
    shared = _shared_labels((lists.relevance > 0).to(rows.dtype), lists.mask.to(rows.dtype), similarity)
    rival = there.unsqueeze(1) & there & ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    shared = shared * rival
    logits = rows @ rows.T / temperature
    log_probability = logits - masked_logsumexp(logits, rival).unsqueeze(1)
    total = shared.sum(1)
    loss = -safe_ratio((shared * log_probability).sum(1), total)
    return reduce_lists(loss, total > 0, reduction)


def label_correlation(
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    kind: Literal["conditional", "pearson"] = "conditional",
    excess: bool = True,
) -> Tensor:
    """Return how labels go together, [C, C], over the training examples that know both.

    - "conditional": R_kl = n_kl / n_k, the share of k's positives that have l; with `excess`, what it is above l's
      base rate, at least 0, so that labels that merely are frequent, or exclude each other, count as unrelated.
    - "pearson": Pearson's correlation, which for labels is the phi coefficient (`excess` is not used).

    The diagonal is 1; what has no example or no variance is 0.

    Args:
        relevance: [N, C] >= 0, a label where > 0.
        mask: bool[N, C]; False = unknown.

    Source: after Abdelfattah et al. (2024). Paper 70.

    Raises:
        RivalsError: shapes or dtypes that do not fit, negative relevance where it is known, an unknown kind.

    >>> label_correlation(torch.tensor([[1, 1], [1, 0]]), excess=False)
    tensor([[1.0000, 0.5000],
            [1.0000, 1.0000]])
    """
    check_choice(kind, ("conditional", "pearson"), "kind")
    if not isinstance(relevance, Tensor) or relevance.ndim != 2:
        raise RivalsError("relevance must be a tensor [examples, labels]")
    lists = check_lists(torch.zeros_like(relevance, dtype=torch.float32), relevance, mask, None, "none")
    known, positive = lists.mask.float(), (lists.relevance > 0).float()
    if kind == "pearson":
        related = _pairwise_correlation(positive.double(), known.double())[0].float()
    else:
        related = safe_ratio(positive.T @ positive, positive.T @ known)
        if excess:
            related = (related - safe_ratio(positive.sum(0), known.sum(0))).relu()
    return related.fill_diagonal_(1.0)


def _shared_labels(positive: Tensor, known: Tensor, similarity: Similarity) -> Tensor:
    """Return a_ij [N, N] over the labels known of both; `positive` is 0 where unknown."""
    both = positive @ positive.T
    if similarity == "any":
        return (both > 0).to(both.dtype)
    mine = positive @ known.T
    if similarity == "overlap":
        return safe_ratio(both, torch.minimum(mine, mine.T))
    return safe_ratio(both, mine + mine.T - both)


def _correlation_term(lists: Checked, correlation: Tensor | None, kind: CorrelationKind) -> Tensor:
    check_choice(kind, ("consistency", "covariance"), "correlation_kind")
    width = lists.scores.shape[1]
    if correlation is None:
        raise RivalsError("correlation is needed where the second of weights is above 0; see label_correlation")
    if width < 2:
        raise RivalsError(f"scores must have at least two labels for the correlation term; got {width}")
    check_shape(correlation, (width, width), "correlation", lists.scores.device)
    check_finite(correlation, "correlation")
    wanted = correlation.to(lists.scores.dtype)
    known = lists.mask.to(wanted.dtype)
    other = 1 - torch.eye(width, dtype=wanted.dtype, device=wanted.device)
    p = lists.scores.sigmoid() * known
    if kind == "covariance":
        found, count = _pairwise_correlation(p, known)
        compared = (count >= FEWEST) * other
        return safe_ratio(((found - wanted).square() * compared).sum(), compared.sum())
    strength = ((wanted + wanted.T) / 2).clamp(min=0.0) * other
    pull = known @ strength  # sum over l of S_kl known_l, by example
    # sum over k and l of S_kl (p_k - p_l)^2 counts every pair twice, and so does its divisor
    apart = 2 * (p * p * pull).sum(1) - 2 * (p * (p @ strength)).sum(1)
    size = (known * pull).sum(1)
    return safe_ratio(apart, size).sum() / (size > 0).sum().clamp(min=1)


def _pairwise_correlation(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return Pearson's correlation of columns [C, C] over the rows that know both, and how many those are."""
    count = known.T @ known
    values = (values - safe_ratio((values * known).sum(0), known.sum(0))) * known
    mean, square = safe_ratio(values.T @ known, count), safe_ratio(values.square().T @ known, count)
    covariance = safe_ratio(values.T @ values, count) - mean * mean.T
    variance = square - mean.square()
    flat = variance <= 32 * torch.finfo(square.dtype).eps * square  # nothing but rounding
    flat = flat | flat.T
    return (covariance / (variance * variance.T).masked_fill(flat, 1.0).sqrt()).masked_fill(flat, 0.0), count
