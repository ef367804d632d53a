"""How hard candidates are: which negatives to keep, what they should weigh, and what to log about them.

Nothing here carries a gradient. Masks and weights go into the `mask` and `weight` of any loss.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype, list_ranks, masked_mean
from rivals.losses._common import check_lists, check_mask, check_positive, check_scores
from rivals.losses._in_batch import unit_rows

__all__ = [
    "ScoreStatistics",
    "false_negative_weights",
    "hardest_negatives",
    "hardness_weights",
    "score_statistics",
    "top_similar_negatives",
]


class ScoreStatistics(NamedTuple):
    """Per list [...]: what the scores of its positives and negatives look like; 0 where there is nothing to count."""

    positive_mean: Tensor
    negative_mean: Tensor
    negative_variance: Tensor
    positive_exp_mean: Tensor
    negative_exp_mean: Tensor
    above_positive: Tensor


def top_similar_negatives(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    keep: float = 0.5,
    skip_top: int = 0,
    max_similarity: float | None = None,
) -> Tensor:
    """Return the mask that leaves every list its positives and its hardest negatives.

    First the `skip_top` best negatives and those above `max_similarity` go (suspected false negatives), then the
    best-scored of the rest stay: `keep` of them if it is a whole number, else that share (0, 1] of the list's negatives,
    rounded up. Ties go to the earlier candidate.

    Args:
        scores: [..., C]. relevance: [..., C] >= 0, above 0 = positive. mask: bool[..., C].

    Source:
        "Momentum Contrastive Learning with Enhanced Negative Sampling and Hard Negative Filtering" (2025). Paper 90; the
        abstract names the selection by cosine, its form is ours.

    Raises:
        RivalsError: what `check_lists` raises, keep outside (0, 1] or, as a whole number, outside 1..C, skip_top < 0.

    >>> scores, relevance = torch.tensor([[0.8, 0.5, 0.1, 0.9]]), torch.tensor([[1, 0, 0, 0]])
    >>> top_similar_negatives(scores, relevance, keep=1)
    tensor([[ True, False, False,  True]])
    """
    lists = check_lists(scores.detach(), relevance, mask, None, "mean")
    whole = isinstance(keep, int)
    if isinstance(keep, bool) or not (1 <= keep <= max(scores.shape[-1], 1) if whole else 0 < keep <= 1):
        raise RivalsError(
            f"keep must be a share in (0, 1] or a whole number from 1 to {scores.shape[-1]}, the candidates; got {keep!r}"
        )
    if skip_top < 0:
        raise RivalsError(f"skip_top must be at least 0; got {skip_top!r}")
    positive = (lists.relevance > 0) & lists.mask
    negative = lists.mask & ~positive
    left = negative & (list_ranks(lists.scores, negative) >= skip_top)
    if max_similarity is not None:
        left = left & (lists.scores <= max_similarity)
    most = keep if whole else (negative.sum(-1, keepdim=True) * keep).ceil()
    return positive | (left & (list_ranks(lists.scores, left) < most))


def hardest_negatives(
    scores: Tensor, relevance: Tensor, mask: Tensor | None = None, *, count: int = 1
) -> tuple[Tensor, Tensor]:
    """Return the columns of every list's hardest negatives, best score first, and which of them exist.

    Args:
        scores: [..., C], for example queries against a bank of all entities or documents. relevance: [..., C] >= 0,
            above 0 for everything known to be true. mask: bool[..., C]. count: at most C.

    Returns:
        int64[..., count] and bool[..., count], False where a list has fewer negatives.

    Source:
        Zhang et al. (2023), HaSa: hard tails from an entity bank without the known ones. Paper 35.

    Raises:
        RivalsError: what `check_lists` raises, count outside 1..C.

    >>> hardest_negatives(torch.tensor([[0.8, 0.5, 0.1, 0.9]]), torch.tensor([[1, 0, 0, 0]]), count=2)
    (tensor([[3, 1]]), tensor([[True, True]]))
    """
    lists = check_lists(scores.detach(), relevance, mask, None, "mean")
    if not 1 <= count <= scores.shape[-1]:
        raise RivalsError(f"count must lie in 1..{scores.shape[-1]}, the candidates; got {count!r}")
    negative = lists.mask & ~(lists.relevance > 0)
    order = lists.scores.masked_fill(~negative, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    chosen = order[..., :count]
    return chosen, negative.gather(-1, chosen)


def hardness_weights(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    known: Tensor | None = None,
    known_logit: float = -math.inf,
    temperature: float = 1.0,
) -> Tensor:
    """Return weights [..., C] of candidates by hardness: the softmax over a list's scores made a unit vector; positives 1.

    p = softmax(s / (|s| temperature)) over the candidates that are there, |s| the length of the list's scores. Positives
    and the candidates in `known` (other true ones) enter that softmax with `known_logit`, the default leaves them out;
    then every positive gets weight 1. Negatives weigh 1 in all, or nearly with a finite `known_logit`.

    Args:
        scores: [..., C]. relevance: [..., C] >= 0, above 0 = positive. mask, known: bool[..., C].

    Source:
        Zhang et al. (2023), HaSa, the code of its hard-negative sampler. Paper 35. There known candidates enter with -10
        (known_logit=-10) and keep a small weight.

    Raises:
        RivalsError: what `check_lists` raises, a known that is not boolean, temperature <= 0.

    >>> hardness_weights(torch.tensor([[5.0, 3.0, 4.0]]), torch.tensor([[1, 0, 0]]))
    tensor([[1.0000, 0.4647, 0.5353]])
    """
    check_positive(temperature, "temperature")
    lists = check_lists(scores.detach(), relevance, mask, None, "mean")
    check_mask(known, scores, "known")
    positive = (lists.relevance > 0) & lists.mask
    unit = unit_rows(lists.scores) / temperature
    true = positive if known is None else positive | known
    unit = unit.masked_fill(true, known_logit).masked_fill(~lists.mask, -torch.inf)
    nothing = (unit == -torch.inf).all(-1, keepdim=True)
    weights = unit.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing | ~lists.mask, 0.0)
    return weights.masked_fill(positive, 1.0)


def false_negative_weights(
    queries: Tensor, documents: Tensor, relevance: Tensor | None = None, *, threshold: float = 0.9
) -> Tensor:
    """Return weights [Q, C] that are 0 where another model finds a negative too like the query, and 1 elsewhere.

    Args:
        queries, documents: [Q, D] and [C, D], of a frozen complementary model over the inputs of the batch.
        relevance: [Q, C] >= 0, above 0 = positive, never weighed down; without it document i is that of query i.
        threshold: cosines above it mark false negatives.

    Source:
        Zhou et al. (2022), DCLR, eq. 6; 0.9 is their value for BERT, 0.85 for RoBERTa. Paper 114. Their code compares
        cosines over the temperature with 20 times the threshold, the same at temperature 0.05.

    Raises:
        RivalsError: shapes or dtypes that do not fit, threshold outside [-1, 1].

    >>> a, b = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.1], [1.0, 0.0]])
    >>> false_negative_weights(a, b)
    tensor([[1., 0.],
            [1., 1.]])
    """
    for values, name in ((queries, "queries"), (documents, "documents")):
        check_scores(values, name, ndim=2)
    if queries.shape[1] != documents.shape[1]:
        raise RivalsError(f"documents must have the width of queries, {queries.shape[1]}; got {documents.shape[1]}")
    if not -1 <= threshold <= 1:
        raise RivalsError(f"threshold must lie in [-1, 1], as cosines do; got {threshold!r}")
    with torch.no_grad():
        dtype = torch.promote_types(compute_dtype(queries), compute_dtype(documents))
        cosine = unit_rows(queries.to(dtype)) @ unit_rows(documents.to(dtype)).T
        if relevance is None:
            positive = torch.eye(*cosine.shape, dtype=torch.bool, device=cosine.device)
        else:
            positive = check_lists(cosine, relevance, None, None, "mean").relevance > 0
        return ((cosine <= threshold) | positive).to(dtype)


def score_statistics(
    scores: Tensor, relevance: Tensor, mask: Tensor | None = None, *, temperature: float = 1.0
) -> ScoreStatistics:
    """Return what to log about a contrastive run: means, spread and exponentials of positive and negative scores.

    Per list: the mean score of its positives; mean and unbiased variance of its negatives; the means of e^(s/temperature)
    of both; and the share of negatives that score above the list's worst positive.

    Args:
        scores: [..., C]. relevance: [..., C] >= 0, above 0 = positive. mask: bool[..., C].

    Source:
        Zhu et al. (2021), "Improving Contrastive Learning by Visualizing Feature Transformation", section 3. Paper 34.

    Raises:
        RivalsError: what `check_lists` raises, temperature <= 0.

    >>> found = score_statistics(torch.tensor([[0.8, 0.9, 0.1]]), torch.tensor([[1, 0, 0]]))
    >>> [round(float(value), 2) for value in found]
    [0.8, 0.5, 0.32, 2.23, 1.78, 0.5]
    """
    check_positive(temperature, "temperature")
    lists = check_lists(scores.detach(), relevance, mask, None, "mean")
    positive = (lists.relevance > 0) & lists.mask
    negative = lists.mask & ~positive
    mean = masked_mean(lists.scores, negative, -1)
    squares = (lists.scores - mean.unsqueeze(-1)).square().masked_fill(~negative, 0.0).sum(-1)
    exponential = (lists.scores / temperature).exp()
    worst = lists.scores.masked_fill(~positive, torch.inf).amin(-1) if scores.shape[-1] else mean
    return ScoreStatistics(
        masked_mean(lists.scores, positive, -1),
        mean,
        squares / (negative.sum(-1) - 1).clamp(min=1),
        masked_mean(exponential, positive, -1),
        masked_mean(exponential, negative, -1),
        masked_mean((lists.scores > worst.unsqueeze(-1)).to(mean.dtype), negative, -1),
    )
