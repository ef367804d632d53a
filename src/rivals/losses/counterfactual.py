"""Learning from clicks when position decides what is seen: labels by inverse propensity, and two-stage policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import (
    check_at_least_zero,
    check_like,
    check_mask,
    check_not_negative,
    check_positive,
    check_scores,
    check_shape,
)
from rivals.losses._gains import rank_discounts
from rivals.losses.plackett_luce import plackett_luce_log_prob, plackett_luce_sample

__all__ = ["ClickLabels", "IPSValue", "TwoStagePolicy", "TwoStageSample", "ips_labels", "ips_value"]


class ClickLabels(NamedTuple):
    """One entry a (query, document) pair that was shown, by query and then document: its label and its propensity."""

    query: Tensor
    document: Tensor
    relevance: Tensor
    propensity: Tensor

    def dense(self, n_queries: int, n_docs: int) -> Tensor:
        """Return the labels as [n_queries, n_docs], 0 for pairs that were never shown."""
        labels = self.relevance.new_zeros(n_queries, n_docs)
        labels[self.query, self.document] = self.relevance
        return labels


class IPSValue(NamedTuple):
    """An estimated value, its standard error over impressions, and the policy's share of exposure that logs support."""

    value: Tensor
    standard_error: Tensor
    supported: Tensor


class TwoStageSample(NamedTuple):
    """S draws a query: candidates int64[..., S, K2], rankings int64[..., S, K] of them, log-probabilities [..., S]."""

    candidates: Tensor
    rankings: Tensor
    candidate_log_prob: Tensor
    ranking_log_prob: Tensor


@dataclass(frozen=True)
class TwoStagePolicy:
    """A generator that draws an ordered list of candidates and a ranker that draws a ranking of them.

    Both are Plackett-Luce: generator_scores float[..., M] over all documents, cut at k_candidates; ranker_scores
    float[..., M] over the candidates drawn, cut at k. mask bool[..., M]: which documents there are.

    Source: Gupta et al. (2025), two-stage counterfactual learning to rank. Paper 63.

    Raises:
        RivalsError: tensors that do not fit, k < 1 or above k_candidates, k_candidates above M, temperature <= 0.

    >>> policy = TwoStagePolicy(torch.zeros(4), torch.tensor([9.0, 0.0, 0.0, 0.0]), k_candidates=4, k=1, temperature=0.1)
    >>> policy.sample(2, torch.Generator().manual_seed(0)).rankings.tolist()
    [[0], [0]]
    """

    generator_scores: Tensor
    ranker_scores: Tensor
    k_candidates: int
    k: int
    mask: Tensor | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_scores(self.generator_scores, "generator_scores")
        check_scores(self.ranker_scores, "ranker_scores")
        check_like(self.ranker_scores, self.generator_scores, "ranker_scores")
        check_mask(self.mask, self.generator_scores, "mask")
        check_positive(self.temperature, "temperature")
        width = self.generator_scores.shape[-1]
        if not 1 <= self.k <= self.k_candidates <= width:
            raise RivalsError(
                f"k and k_candidates must satisfy 1 <= k <= k_candidates <= {width}, the number of documents; "
                f"got {self.k} and {self.k_candidates}"
            )

    def sample(self, n: int, generator: torch.Generator) -> TwoStageSample:
        """Draw n pairs of lists a query; the log-probabilities carry gradient to either policy's scores.

        The generator's log-probability is that of the ordered list, which is unbiased although the ranker does not
        look at the order. With fewer documents than k_candidates a list ends in absent ones, which count for nothing.
        """
        scores = self.generator_scores
        mask = torch.ones_like(scores, dtype=torch.bool) if self.mask is None else self.mask
        candidates = plackett_luce_sample(scores, n, mask, temperature=self.temperature, generator=generator)
        candidates = candidates[..., : self.k_candidates]
        wide = (*candidates.shape[:-1], scores.shape[-1])
        there = mask.unsqueeze(-2).expand(wide).gather(-1, candidates)
        ranker = self.ranker_scores.unsqueeze(-2).expand(wide).gather(-1, candidates)
        places = plackett_luce_sample(ranker, 1, there, temperature=self.temperature, generator=generator)[
            ..., : self.k
        ]
        return TwoStageSample(
            candidates,
            candidates.gather(-1, places.squeeze(-2)),
            plackett_luce_log_prob(scores, candidates, mask, temperature=self.temperature),
            plackett_luce_log_prob(ranker, places, there, temperature=self.temperature).squeeze(-1),
        )

    @torch.no_grad()
    def exposure(self, n: int, generator: torch.Generator, rank_weights: Tensor | None = None) -> Tensor:
        """Return every document's expected rank weight [..., M], estimated from n draws."""
        drawn = self.sample(n, generator).rankings
        weights = _weights(rank_weights, self.k, self.generator_scores)
        exposure = torch.zeros_like(self.generator_scores, dtype=weights.dtype)
        exposure.scatter_add_(-1, drawn.flatten(-2), (weights / n).expand_as(drawn).flatten(-2))
        return exposure if self.mask is None else exposure.masked_fill(~self.mask, 0.0)


def ips_labels(
    clicks: Tensor,
    shown: Tensor,
    query: Tensor,
    theta: Tensor,
    mask: Tensor | None = None,
    *,
    n_docs: int,
    clip: float = 0.0,
) -> ClickLabels:
    """Turn logged clicks into relevance labels that do not depend on where documents were shown.

    R(q, d) = mean over the impressions of q of c(d) / rho(d), rho(q, d) = max(clip, mean over the impressions of q of
    theta at the rank where d stood, 0 where it was not shown). Unbiased for the relevance of documents that were shown
    if clip is 0; labels may exceed 1.

    Args:
        clicks: bool or 0/1 [N, K]. shown: int64[N, K], the document at each rank. query: int64[N], from 0.
        theta: float[K], the chance that each rank is looked at. mask: bool[N, K], False where nothing was shown.
        n_docs: number of documents. clip: smallest propensity.

    Source: Joachims et al. (2017), inverse propensity scoring under the position-based model; Gupta et al. (2025).
    Paper 63.

    Raises:
        RivalsError: tensors that do not fit, theta outside (0, 1], documents or queries outside their range, a
        document twice in one impression, a click where nothing was shown.

    >>> labels = ips_labels(torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0, 1], [0, 1]]), torch.tensor([0, 0]),
    ...                     torch.tensor([1.0, 0.5]), n_docs=2)
    >>> labels.relevance.tolist(), labels.propensity.tolist()
    ([0.5, 1.0], [1.0, 0.5])
    """
    check_at_least_zero(clip, "clip")
    log = _check_log(clicks, shown, query, theta, mask, n_docs)
    keys, pair = torch.unique(log.key, return_inverse=True)
    impressions = torch.bincount(query)[keys // n_docs].to(log.theta.dtype)
    propensity = log.theta.new_zeros(len(keys)).index_add_(0, pair, log.theta) / impressions
    clicked = log.theta.new_zeros(len(keys)).index_add_(0, pair, log.clicked) / impressions
    propensity = propensity.clamp(min=clip)
    return ClickLabels(keys // n_docs, keys % n_docs, clicked / propensity, propensity)


def ips_value(
    policy: TwoStagePolicy,
    clicks: Tensor,
    shown: Tensor,
    query: Tensor,
    theta: Tensor,
    mask: Tensor | None = None,
    *,
    rank_weights: Tensor | None = None,
    n_samples: int = 256,
    clip: float = 0.0,
    self_normalized: bool = False,
    generator: torch.Generator,
) -> IPSValue:
    """Estimate from another policy's logs what a two-stage policy is worth.

    U = 1/N sum_i sum_d exposure(q_i, d) c_i(d) / rho(q_i, d): exposure the policy's expected rank weight (from
    `n_samples` draws), rho the propensity of `ips_labels`. `self_normalized` divides by the share of the exposure that
    falls on documents the logs have shown, which is 1 when they have shown all (this variant is our reading).

    Args:
        policy: scores [Q, M], row q the query q. rank_weights: float[k], by default 1 / log2(1 + rank). The rest as in
        `ips_labels`.

    Source: Gupta et al. (2025), two-stage counterfactual learning to rank. Paper 63.

    Raises:
        RivalsError: as `ips_labels`; a query that the policy has no scores for.

    >>> policy = TwoStagePolicy(torch.zeros(1, 2), torch.tensor([[50.0, 0.0]]), k_candidates=2, k=1)
    >>> log = torch.tensor([[1], [0]]), torch.tensor([[0], [0]]), torch.tensor([0, 0]), torch.tensor([0.5])
    >>> ips_value(policy, *log, n_samples=4, generator=torch.Generator().manual_seed(0)).value
    tensor(1.)
    """
    count, width = policy.generator_scores.shape
    labels = ips_labels(clicks, shown, query, theta, mask, n_docs=width, clip=clip)
    if len(query) and int(query.max()) >= count:
        raise RivalsError(f"query holds {int(query.max())} but the policy has scores for {count} queries")
    exposure = policy.exposure(n_samples, generator, rank_weights)
    log = _check_log(clicks, shown, query, theta, mask, width)
    pair = torch.searchsorted(labels.query * width + labels.document, log.key)
    worth = exposure.flatten()[log.key] * log.clicked.to(exposure.dtype) / labels.propensity[pair].to(exposure.dtype)
    value = exposure.new_zeros(len(query)).index_add_(0, log.impression, worth)
    logged = torch.bincount(query, minlength=count).to(exposure.dtype)
    covered = exposure.new_zeros(count).index_add_(0, labels.query, exposure[labels.query, labels.document])
    supported = (logged @ covered) / (logged @ exposure.sum(-1)).clamp(min=1e-30)
    scale = supported.clamp(min=1e-30) if self_normalized else 1.0
    error = value.std(correction=1) / max(len(query), 1) ** 0.5 if len(query) > 1 else value.new_tensor(torch.nan)
    return IPSValue(value.mean() / scale, error / scale, supported)


class _Log(NamedTuple):
    """What was shown, flat: impression, query * n_docs + document, examination probability, clicked (0 or 1)."""

    impression: Tensor
    key: Tensor
    theta: Tensor
    clicked: Tensor


def _check_log(clicks: Tensor, shown: Tensor, query: Tensor, theta: Tensor, mask: Tensor | None, n_docs: int) -> _Log:
    check_shape(shown, tuple(shown.shape), "shown", shown.device)
    if shown.ndim != 2 or shown.dtype != torch.int64:
        raise RivalsError(f"shown must be int64[N, K]; got {shown.dtype}{list(shown.shape)}")
    check_like(clicks, shown, "clicks")
    check_shape(query, (len(shown),), "query", shown.device)
    check_scores(theta, "theta")
    check_shape(theta, (shown.shape[1],), "theta", shown.device)
    check_mask(mask, shown, "mask")
    if query.dtype != torch.int64 or (query < 0).any():
        raise RivalsError("query must be int64 numbers from 0")
    if not ((theta > 0) & (theta <= 1)).all():
        raise RivalsError("theta must lie above 0 and not above 1: the chance that a rank is looked at")
    there = torch.ones_like(shown, dtype=torch.bool) if mask is None else mask
    if ((clicks != 0) & ~there).any():
        raise RivalsError("clicks holds a click where the mask says nothing was shown")
    if ((clicks != 0) & (clicks != 1)).any():
        raise RivalsError("clicks must be 0 or 1")
    if (there & ((shown < 0) | (shown >= n_docs))).any():
        raise RivalsError(f"shown must hold documents from 0 to {n_docs - 1}")
    impression, rank = there.nonzero(as_tuple=True)
    document = shown[there]
    if len(torch.unique(impression * n_docs + document)) < len(document):
        raise RivalsError("shown holds a document twice in one impression")
    return _Log(impression, query[impression] * n_docs + document, theta[rank], clicks[there].to(theta.dtype))


def _weights(rank_weights: Tensor | None, k: int, like: Tensor) -> Tensor:
    if rank_weights is None:
        return rank_discounts(torch.arange(k, device=like.device), like.dtype)
    check_shape(rank_weights, (k,), "rank_weights", like.device)
    check_not_negative(rank_weights, "rank_weights")
    return rank_weights.to(like.dtype)
