"""Policy gradients over Plackett-Luce rankings: train on any measure by drawing rankings and scoring them."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import (
    Reduction,
    check_choice,
    check_like,
    check_lists,
    check_not_negative,
    check_positive,
    check_scores,
    check_shape,
    check_targets,
    reduce_lists,
)
from rivals.losses._gains import Gain, check_depth, graded_gains, rank_discounts
from rivals.losses._order import suffix_logsumexp
from rivals.losses.plackett_luce import check_order, complete_order, plackett_luce_sample, step_log_prob

__all__ = ["expected_utility", "policy_gradient_loss", "ranking_utility", "two_stage_policy_gradient_loss"]

Utility: TypeAlias = Literal["ndcg", "dcg", "mrr"] | Callable[[Tensor, Tensor], Tensor]
"""What a ranking is worth: a measure, or a function of rankings int64[..., N, C] and relevance [..., C] -> [..., N]."""
Baseline: TypeAlias = Literal["leave_one_out", "mean"] | None
Estimator: TypeAlias = Literal["reinforce", "reward_to_go", "pl_rank"]
_LARGEST_ENUMERATION = 7


def policy_gradient_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    utility: Utility = "ndcg",
    k: int | None = 10,
    gain: Gain = "linear",
    rank_weights: Tensor | None = None,
    n_samples: int = 16,
    estimator: Estimator = "reinforce",
    baseline: Baseline = "leave_one_out",
    temperature: float = 1.0,
    rankings: Tensor | None = None,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Raise the expected utility of rankings drawn from the scores (Neural PG-RANK): a loss for its gradient.

    Formula:
        L_q = - 1/N sum_i (u(r_i) - b_i) log P(r_i), r_i Plackett-Luce rankings by s / temperature, cut at k places, u
        and b without gradient; b_i = mean of the other utilities ("leave_one_out"), of all ("mean"), or 0 (None).
        "reward_to_go": each place's log-probability times what the places from there on gain, less the same baseline
        place by place. "pl_rank": - sum_d g_d s_d with PL-Rank's estimate g of the gradient of E[u].
        u: nDCG@k, DCG@k or RR@k, or `utility(rankings, relevance)`; `rank_weights[K]` stand for 1 / log2(1 + rank)
        and K for k. Mean over the lists that have a positive (a function as utility: a candidate).

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], rankings int64[..., N, K] to fix the draws
        -> scalar, or float[...] with reduction="none".

    When to use:
        Training on the measure itself, or on any reward of a whole ranking. Cosines need a temperature of 0.05 to 0.1.

    Relations:
        Its gradient has the expectation of that of minus `expected_utility`. Two stages, a candidate generator and a
        ranker: `two_stage_policy_gradient_loss`. The order of the labels in place of draws: `list_mle_loss`.

    Source:
        Gao et al. (2023), Neural PG-RANK, eq. 3 and 4; Oosterhuis (2022), PL-Rank-3, eq. 17, and its reference
        `policy_gradient` (utility "dcg", no baseline). Paper 97. N = 16, k = 10 and temperature 1 are ours.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance at a
        candidate that is there, neither rankings nor generator, fewer than 2 rankings with "leave_one_out", rankings
        with a repeated or an absent candidate, a utility that gives NaN or has no value a place where the estimator
        needs one, k < 1, temperature <= 0, an unknown name.

    Example:
        O(N C log C) time, O(N C) memory. The value means nothing; watch `ranking_utility(...).mean()`.

        >>> import torch
        >>> scores, relevance = torch.zeros(1, 2, requires_grad=True), torch.tensor([[1.0, 0.0]])
        >>> loss = policy_gradient_loss(scores, relevance, rankings=torch.tensor([[[0, 1], [1, 0]]]))
        >>> torch.autograd.grad(loss, scores)[0]
        tensor([[-0.1845,  0.1845]])
    """
    check_positive(temperature, "temperature")
    check_choice(estimator, get_args(Estimator), "estimator")
    check_baseline(baseline)
    lists = check_lists(scores, relevance, mask, None, reduction)
    if rankings is None:
        if generator is None:
            raise RivalsError("drawing rankings needs generator=torch.Generator(); or give rankings")
        rankings = plackett_luce_sample(
            lists.scores, n_samples, lists.mask, temperature=temperature, generator=generator
        )
    places = step_log_prob(lists.scores, rankings, lists.mask, temperature)
    counts = (lists.mask if callable(utility) else lists.relevance > 0).any(-1)
    if estimator == "reinforce":
        worth = _worth(rankings, lists.relevance, lists.mask, utility, k, gain, rank_weights)
        depth = k if rank_weights is None else len(rank_weights)
        total = -(advantages(worth, baseline) * places[..., :depth].sum(-1)).mean(-1)
    else:
        weights = _rank_weights(rankings, utility, k, rank_weights, lists.scores)
        value = _value(lists.relevance, utility, gain, weights)
        rewards = _rewards(rankings, value, lists.mask, weights)
        to_go = rewards.flip(-1).cumsum(-1).flip(-1)
        if estimator == "reward_to_go":
            total = -(advantages(to_go, baseline, dim=-2) * places[..., : to_go.shape[-1]]).sum(-1).mean(-1)
        else:
            lists_scores = lists.scores / temperature
            total = -(_pl_rank(lists_scores.detach(), lists.mask, rankings, value, weights, to_go) * lists_scores).sum(
                -1
            )
    return reduce_lists(total.masked_fill(~counts, 0.0), counts, reduction)


def two_stage_policy_gradient_loss(
    candidate_log_prob: Tensor,
    ranking_log_prob: Tensor,
    utility: Tensor,
    *,
    baseline: Baseline = "leave_one_out",
    train: Literal["both", "generator", "ranker"] = "both",
    reduction: Reduction = "mean",
) -> Tensor:
    """Policy gradient of two stages at once: one policy picks the candidates, the other ranks them.

    Formula:
        L_q = - 1/S sum_s (u_s - b_s) (log P_c(y_s) + log P_r(r_s | y_s)), u and b without gradient, b as in
        `policy_gradient_loss`; `train` = "generator" keeps only log P_c and "ranker" only log P_r. Mean over queries.

    Shapes:
        candidate_log_prob, ranking_log_prob, utility float[..., S], one entry a sampled pair of lists
        -> scalar, or float[...] with reduction="none".

    When to use:
        Training a candidate generator and a ranker for each other, in turns (`train`) or together, from labels or
        from clicks (`ips_labels`). `TwoStagePolicy.sample` gives the log-probabilities.

    Relations:
        With one stage (log P_c = 0) it is `policy_gradient_loss` with given rankings.

    Source:
        Gupta et al. (2025), two-stage counterfactual learning to rank, the score-function gradients of both policies;
        Williams (1992), REINFORCE. Paper 63. The leave-one-out baseline is ours.

    Raises:
        RivalsError: shapes or dtypes that do not fit, a utility that is not finite, fewer than 2 samples with
        "leave_one_out", an unknown name.

    Example:
        O(S) a query.

        >>> import torch
        >>> log_prob = torch.tensor([[-1.0, -2.0]])
        >>> two_stage_policy_gradient_loss(log_prob, log_prob, torch.tensor([[1.0, 0.0]]))
        tensor(-1.)
    """
    check_choice(train, ("both", "generator", "ranker"), "train")
    check_baseline(baseline)
    lists = check_targets(candidate_log_prob, utility, None, None, reduction)
    check_scores(ranking_log_prob, "ranking_log_prob")
    check_like(ranking_log_prob, candidate_log_prob, "ranking_log_prob")
    chosen = lists.scores if train != "ranker" else lists.scores.detach() * 0
    if train != "generator":
        chosen = chosen + ranking_log_prob.to(lists.scores.dtype)
    total = -(advantages(lists.relevance.detach(), baseline) * chosen).sum(-1) / max(utility.shape[-1], 1)
    return reduce_lists(total, lists.mask.any(-1), reduction)


def ranking_utility(
    rankings: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    utility: Utility = "ndcg",
    k: int | None = 10,
    gain: Gain = "linear",
    rank_weights: Tensor | None = None,
) -> Tensor:
    """Return what given rankings are worth, without gradient.

    sum_{t<=k} w_t g(y_{r_t}) with w_t = 1 / log2(1 + t) or `rank_weights` ("dcg"), divided by its largest possible
    value ("ndcg"); or 1 / rank of the first positive among the first k ("mrr"); or a function of rankings and relevance.

    Args:
        rankings: int64[..., N, K], best first. relevance: [..., C] >= 0. mask: bool[..., C]. rank_weights: float[K],
        which also sets k. gain: of the grades, "linear" or "exponential".

    Returns:
        float[..., N]; 0 for a list without a positive.

    Source: Gao et al. (2023), Neural PG-RANK. Paper 97.

    Raises:
        RivalsError: tensors that do not fit, a ranking with a repeated or an absent candidate, k < 1, an unknown name,
        a function that gives NaN or another shape.

    >>> ranking_utility(torch.tensor([[0, 1], [1, 0]]), torch.tensor([1.0, 0.0]))
    tensor([1.0000, 0.6309])
    """
    lists = check_lists(torch.zeros_like(relevance, dtype=compute_dtype(relevance)), relevance, mask, None, "none")
    check_order(rankings, lists.scores, mask, "rankings")
    return _worth(rankings, lists.relevance, lists.mask, utility, k, gain, rank_weights)


def expected_utility(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    utility: Utility = "ndcg",
    k: int | None = 10,
    gain: Gain = "linear",
    rank_weights: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Return the exact expected utility of Plackett-Luce rankings of short lists, by going through all of them.

    Args:
        scores: float[..., C] with C at most 7, with gradient. The rest as in `ranking_utility`; a function as utility
        is given all C! rankings.

    Returns:
        float[...].

    Source: Gao et al. (2023), Neural PG-RANK, eq. 1. Paper 97.

    Raises:
        RivalsError: as `ranking_utility`; more than 7 candidates.

    >>> expected_utility(torch.zeros(2), torch.tensor([1.0, 0.0]))
    tensor(0.8155)
    """
    check_positive(temperature, "temperature")
    lists = check_lists(scores, relevance, mask, None, "none")
    width = scores.shape[-1]
    if width > _LARGEST_ENUMERATION:
        raise RivalsError(f"{width} candidates have too many orders; at most {_LARGEST_ENUMERATION} are enumerated")
    orders = torch.tensor(list(permutations(range(width))), device=scores.device).reshape(-1, width)
    there = lists.mask[..., orders]  # [..., C!, C]
    rankings = orders.expand_as(there).gather(-1, there.byte().argsort(dim=-1, descending=True, stable=True))
    places = step_log_prob(lists.scores, rankings, lists.mask, temperature)
    worth = _worth(rankings, lists.relevance, lists.mask, utility, k, gain, rank_weights)
    repeats = torch.lgamma(lists.mask.sum(-1) + 1.0) - math.lgamma(width + 1)  # absent ones make copies of an order
    return (places.sum(-1).exp() * worth).sum(-1) * repeats.exp().to(worth.dtype)


def advantages(worth: Tensor, baseline: Baseline, dim: int = -1) -> Tensor:
    """Return utilities less their baseline over the samples of dimension `dim`."""
    count = worth.shape[dim]
    if baseline == "leave_one_out" and count < 2:
        raise RivalsError(f'baseline="leave_one_out" needs at least 2 samples a list; got {count}')
    if baseline is None:
        return worth
    centred = worth - worth.mean(dim, keepdim=True)
    return centred * (count / (count - 1)) if baseline == "leave_one_out" else centred


def check_baseline(baseline: Baseline) -> None:
    """Raise unless the baseline is known."""
    check_choice(baseline, ("leave_one_out", "mean", None), "baseline")


@torch.no_grad()
def _worth(
    rankings: Tensor,
    relevance: Tensor,
    mask: Tensor,
    utility: Utility,
    k: int | None,
    gain: Gain,
    rank_weights: Tensor | None,
) -> Tensor:
    if callable(utility):
        worth = utility(rankings, relevance)
        if not isinstance(worth, Tensor) or worth.shape != rankings.shape[:-1]:
            raise RivalsError(f"utility must return a tensor of shape {tuple(rankings.shape[:-1])}")
        if worth.isnan().any():
            raise RivalsError("utility returned NaN; it must give every ranking a number")
        return worth.to(relevance.dtype)
    if utility == "mrr":
        if rank_weights is not None:
            raise RivalsError("rank_weights belong to utility 'dcg' or 'ndcg'")
        check_depth(k, "k")
        ones = relevance.new_ones(rankings.shape[-1] if k is None else k)
        found = _rewards(rankings, (relevance > 0).to(relevance.dtype), mask, ones)
        if found.shape[-1] == 0:
            return found.sum(-1)
        return found.amax(-1) / (1.0 + found.argmax(-1))
    weights = _rank_weights(rankings, utility, k, rank_weights, relevance)
    return _rewards(rankings, _value(relevance, utility, gain, weights), mask, weights).sum(-1)


def _rank_weights(rankings: Tensor, utility: Utility, k: int | None, weights: Tensor | None, like: Tensor) -> Tensor:
    """Return the weights of the ranks that count."""
    if callable(utility) or utility == "mrr":
        raise RivalsError("this estimator needs a value at every place: utility 'ndcg' or 'dcg'")
    check_choice(utility, ("ndcg", "dcg", "mrr"), "utility")
    if weights is None:
        check_depth(k, "k")
        return rank_discounts(torch.arange(rankings.shape[-1], device=like.device), like.dtype)[:k]
    check_shape(weights, tuple(weights.shape[:1]) or (1,), "rank_weights", like.device)
    weights = weights.to(like.dtype)
    check_not_negative(weights, "rank_weights")
    return weights


@torch.no_grad()
def _value(relevance: Tensor, utility: Utility, gain: Gain, weights: Tensor) -> Tensor:
    """Return what every candidate adds to the utility at a rank of weight 1."""
    check_choice(gain, get_args(Gain), "gain")
    value = graded_gains(relevance, gain)
    if utility == "dcg":
        return value
    depth = min(len(weights), value.shape[-1])
    best = value.sort(dim=-1, descending=True).values[..., :depth] * weights.sort(descending=True).values[:depth]
    ideal = best.sum(-1, keepdim=True)
    return value / ideal.masked_fill(ideal == 0, 1.0)


@torch.no_grad()
def _rewards(rankings: Tensor, value: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Return what every place gains, [..., N, min(K, places that count)]."""
    head = rankings[..., : len(weights)]
    inside = torch.arange(head.shape[-1], device=head.device) < mask.sum(-1)[..., None, None]
    placed = value.unsqueeze(-2).expand(*head.shape[:-1], value.shape[-1])
    return placed.gather(-1, head.where(inside, 0)).masked_fill(~inside, 0.0) * weights[: head.shape[-1]]


@torch.no_grad()
def _pl_rank(scores: Tensor, mask: Tensor, rankings: Tensor, value: Tensor, weights: Tensor, to_go: Tensor) -> Tensor:
    """Return PL-Rank's estimate of the gradient of the expected utility, [..., C].

    At every place the chance of each candidate still left takes the place of what was drawn:
    g_d = what follows d + sum_{t <= rank of d} P_t(d) (w_t value_d - reward to go_t). Sums of e^{s_d - log-sum-exp_t}
    are taken as logarithms, so that no score is too large.
    """
    width, depth = scores.shape[-1], to_go.shape[-1]
    order = complete_order(rankings, mask)
    there = mask.unsqueeze(-2).expand_as(order).gather(-1, order)
    ordered = scores.unsqueeze(-2).expand_as(order).gather(-1, order)
    rest = suffix_logsumexp(ordered, there)[..., :depth].masked_fill(~there[..., :depth], torch.inf)

    def chances(amount: Tensor) -> Tensor:
        running = (amount.log() - rest).logcumsumexp(-1)
        if depth < width:
            last = running[..., -1:].expand(*running.shape[:-1], width - depth)
            running = torch.cat([running, last], dim=-1)
        return (ordered + running).exp()

    after = torch.nn.functional.pad(to_go[..., 1:], (0, width - depth + 1))
    placed = value.unsqueeze(-2).expand_as(order).gather(-1, order)
    estimate = after + placed * chances(weights[:depth].expand_as(rest)) - chances(to_go)
    estimate = estimate.masked_fill(~there, 0.0)
    return torch.zeros_like(estimate).scatter(-1, order, estimate).mean(-2)
