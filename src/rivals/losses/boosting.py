"""Gradients and second derivatives of pair losses at every candidate: what boosted trees and networks are fitted to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import list_ranks
from rivals.losses._common import (
    check_at_least_zero,
    check_choice,
    check_lists,
    check_positive,
    check_shape,
)
from rivals.losses._fused.pairs import Logistic, PairTerm, pair_derivatives, tied_pairs
from rivals.losses._gains import Denominator, Gain, check_depth, graded_gains, ideal_dcg, rank_discounts
from rivals.losses._swaps import SwapMetric, swap_changes

__all__ = ["PairGradients", "lambdamart_gradients", "pairwise_logistic_gradients", "stochastic_rank_gradients"]

SmoothMetric: TypeAlias = Literal["ndcg", "dcg"]
Parts: TypeAlias = tuple[Tensor, ...]


class PairGradients(NamedTuple):
    """Of every candidate [..., C]: the loss of its pairs, the gradient of its list's loss and the second derivative."""

    value: Tensor
    gradient: Tensor
    curvature: Tensor


def pairwise_logistic_gradients(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    pair_weight: Tensor | None = None,
    sigma: float = 1.0,
    ties: bool = False,
) -> PairGradients:
    """Return the derivatives of the pairwise logistic loss of every list at every candidate.

    The list's loss is sum_{y_i > y_j} v_ij w_i w_j log(1 + exp(-sigma (s_i - s_j))). `value` is the sum over the pairs a
    candidate is in; `gradient` and `curvature` are d/ds_i and d^2/ds_i^2 of the list's loss, so that a Newton step is
    -gradient / curvature (where the curvature is 0 the candidate is in no pair: step 0).

    With `ties`, candidates of equal relevance count too, each also with itself, by log(1 + exp(-sigma d)) + sigma d / 2:
    GrowNet's sums over all j. A tie enters `value`, `gradient` and `curvature` of each of its two candidates once.

    Args:
        pair_weight: v[..., C, C] >= 0, the first index the more relevant candidate, e.g. of `yeti_weights`.

    Shapes: scores, relevance, mask, weight [..., C] -> three tensors [..., C]; absent candidates get 0.
    Source: Burges et al. (2005), RankNet; Badirli et al. (2020), GrowNet, `grad_calc_`. Papers 69, 47.
    Raises: RivalsError, as `pairwise_logistic_loss`; sigma <= 0.

    >>> found = pairwise_logistic_gradients(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    >>> found.gradient.tolist(), found.curvature.tolist()
    ([[-0.5, 0.5]], [[0.25, 0.25]])
    """
    check_positive(sigma, "sigma")
    lists = check_lists(scores, relevance, mask, weight, "mean")
    if pair_weight is not None:
        check_shape(pair_weight, (*scores.shape, scores.shape[-1]), "pair_weight", scores.device)
    better, worse = pair_derivatives(lists, Logistic(sigma), pair_weight=pair_weight)
    value, gradient = better.value + worse.value, better.slope - worse.slope
    curvature = better.curvature + worse.curvature
    if ties:
        equal, _ = pair_derivatives(lists, _Tie(sigma), pairs=tied_pairs(lists.relevance, lists.mask))
        value, gradient, curvature = value + equal.value, gradient + equal.slope, curvature + equal.curvature
    return PairGradients(value, gradient, curvature)


def lambdamart_gradients(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    metric: SwapMetric = "ndcg",
    top: int | None = None,
    gain: Gain = "linear",
    denominator: Denominator = "log",
    sigma: float = 1.0,
    norm: bool = True,
) -> PairGradients:
    """Return LambdaMART's gradients and second derivatives, its pairs weighted by what swapping them does to a measure.

    "ndcg": v_ij = (g_i - g_j) |D_a - D_c| / best DCG@top for y_i > y_j at places a and c, at least one of them in the top.
    "mrr", "map" (relevant: y > 0) and "err" (y the chance of stopping): v_ij is the change of the reciprocal rank, the
    average precision or the expected reciprocal rank at `top` when the two trade places. With `norm`, v_ij is divided
    by 0.01 + |s_i - s_j| (unless all scores of the list are equal), and gradient and curvature are multiplied by
    log2(1 + S) / S, S twice the sum of the pairs' absolute gradients. The gradient is that of a loss: go against it.

    Shapes: scores, relevance, mask [..., C] -> three tensors [..., C]; absent candidates get 0. Every measure but
    "ndcg" takes memory [..., C, C].
    Source: Burges (2010), LambdaMART; CatBoost's LambdaMart; Donmez et al. (2009) for the other measures. Paper 47.
    `yeti_weights` has CatBoost's weights of MRR and MAP, which are changes only between neighbours. CatBoost hands the
    descent gradient to its trees as if it were the ascent one; here the sign is that of the loss.
    Raises: RivalsError: as `lambda_loss`; top < 1, sigma <= 0, relevance above 1 with metric "err", an unknown metric,
    gain or denominator.

    >>> scores, relevance = torch.tensor([[0.3, -0.2, 0.5, 1.1]]), torch.tensor([[2.0, 0.0, 1.0, 0.0]])
    >>> lambdamart_gradients(scores, relevance, norm=False).gradient
    tensor([[-0.3095,  0.0452, -0.0885,  0.3528]])
    """
    check_choice(metric, get_args(SwapMetric), "metric")
    check_depth(top, "top")
    check_positive(sigma, "sigma")
    check_choice(gain, get_args(Gain), "gain")
    check_choice(denominator, get_args(Denominator), "denominator")
    lists = check_lists(scores, relevance, mask, None, "mean")
    ranks = list_ranks(lists.scores, lists.mask)
    gains = graded_gains(lists.relevance, gain)
    gains = gains / ideal_dcg(gains, lists.mask, top=top, denominator=denominator)
    discounts = rank_discounts(ranks, gains.dtype, denominator=denominator)
    in_top = torch.ones_like(lists.mask) if top is None else ranks < top
    highest = lists.scores.masked_fill(~lists.mask, -math.inf).amax(-1, keepdim=True) if ranks.numel() else ranks
    lowest = lists.scores.masked_fill(~lists.mask, math.inf).amin(-1, keepdim=True) if ranks.numel() else ranks
    divides = ((highest > lowest) & norm).to(gains.dtype).expand_as(gains)

    def change(first: Parts, second: Parts) -> Tensor:
        swap = (first[0] - second[0]) * (first[1] - second[1]).abs() * (first[2] | second[2])
        return swap / torch.where(first[3] > 0, 0.01 + (first[4] - second[4]).abs(), 1.0)

    term: PairTerm | Tensor = PairTerm(change, (gains, discounts, in_top, divides, lists.scores))
    if metric != "ndcg":
        apart = 0.01 + (lists.scores.unsqueeze(-1) - lists.scores.unsqueeze(-2)).abs()
        term = swap_changes(lists.relevance, lists.mask, ranks, metric, top)
        term = term / torch.where(divides.unsqueeze(-1) > 0, apart, 1.0)
    better, worse = pair_derivatives(lists, Logistic(sigma), pair_weight=term)
    gradient, curvature = better.slope - worse.slope, better.curvature + worse.curvature
    if norm:
        strength = -2.0 * better.slope.sum(-1, keepdim=True)
        scale = torch.where(strength > 0, torch.log2(1.0 + strength) / strength.clamp(min=1e-30), 1.0)
        gradient, curvature = gradient * scale, curvature * scale
    return PairGradients(better.value + worse.value, gradient, curvature)


def stochastic_rank_gradients(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    metric: SmoothMetric = "ndcg",
    top: int | None = None,
    gain: Gain = "linear",
    denominator: Denominator = "log",
    sigma: float = 1.0,
    mu: float = 0.0,
    nu: float = 0.01,
    projection: float = 1.0,
    n_samples: int = 1,
    generator: torch.Generator,
) -> Tensor:
    """Return StochasticRank's gradient of minus a rank measure smoothed by noise on the scores, [..., C].

    Scores are shifted, z = s - sigma mu y, and centred; a draw adds sigma N(0, 1) to each. With the others fixed,
    candidate i has conditional mean z_i + (mean noise of the others) and deviation sigma sqrt(n / (n - 1)), so the gradient
    of the expected measure is sum_q (measure if i moves to place q - measure now) (density at the lower end of place q -
    density at its upper end). The mean over draws is centred and, in lists of more than two, loses `projection` of its
    component along the centred scores: g - projection (g . c) / (|c| + nu)^2 c.

    Args:
        mu: pushes relevant candidates down before smoothing, against ties. nu, projection: of the last step.

    Shapes: scores, relevance, mask [..., C] -> [..., C]; absent candidates get 0. Memory [lists, C, C].
    Source: Ustimenko and Prokhorenkova (2020), StochasticRank; CatBoost's StochasticRank. Paper 47. The conditional
    mean scales all noise by sigma; CatBoost does so for the candidate's own only. The sign is that of a loss.
    Raises: RivalsError: as `lambda_loss`; sigma or nu <= 0, mu < 0, n_samples < 1, top < 1, an unknown metric.

    >>> scores, relevance = torch.tensor([[0.3, -0.2, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> found = stochastic_rank_gradients(scores, relevance, generator=torch.Generator().manual_seed(0), n_samples=50)
    >>> bool(found[0, 0] < 0), found.sum().abs() < 1e-6
    (True, tensor(True))
    """
    check_choice(metric, get_args(SmoothMetric), "metric")
    check_choice(gain, get_args(Gain), "gain")
    check_choice(denominator, get_args(Denominator), "denominator")
    check_depth(top, "top")
    for name, value in (("sigma", sigma), ("nu", nu)):
        check_positive(value, name)
    check_at_least_zero(mu, "mu")
    if n_samples < 1:
        raise RivalsError(f"n_samples must be at least 1; got {n_samples}")
    lists = check_lists(scores.detach(), relevance, mask, None, "mean")
    mask = lists.mask
    number = mask.sum(-1, keepdim=True).to(lists.scores.dtype)

    def centred(values: Tensor) -> Tensor:
        return (values - values.masked_fill(~mask, 0.0).sum(-1, keepdim=True) / number.clamp(min=1)).masked_fill(
            ~mask, 0.0
        )

    gains = graded_gains(lists.relevance, gain)
    if metric == "ndcg":
        gains = gains / ideal_dcg(gains, mask, top=top, denominator=denominator)
    shifted = centred(lists.scores - sigma * mu * lists.relevance)
    ranks = torch.arange(mask.shape[-1], device=mask.device)
    discounts = rank_discounts(ranks, gains.dtype, top=top, denominator=denominator)
    others = (number - 1.0).clamp(min=1.0)
    gradient = torch.zeros_like(gains)
    for _ in range(n_samples):
        drawn = torch.randn(gains.shape, generator=generator, dtype=torch.float64, device=generator.device)
        noise = sigma * drawn.to(gains).masked_fill(~mask, 0.0)
        mean = shifted + (noise.sum(-1, keepdim=True) - noise) / others
        deviation = sigma * ((others + 1.0) / others).sqrt()
        gradient -= _smoothed(shifted + noise, mean, deviation, gains, discounts, mask) / n_samples
    gradient = centred(gradient.masked_fill((number < 2), 0.0))
    along = centred(lists.scores)
    length = (along.square().sum(-1, keepdim=True).sqrt() + nu).square()
    share = projection * (gradient * along).sum(-1, keepdim=True) / length
    return gradient - (share * along).masked_fill(number <= 2, 0.0)


def _smoothed(
    scores: Tensor, mean: Tensor, deviation: Tensor, gains: Tensor, discounts: Tensor, mask: Tensor
) -> Tensor:
    """The gradient of the expected DCG with respect to every candidate's mean, given the others' scores, [..., C]."""
    width = scores.shape[-1]
    keyed, order = scores.masked_fill(~mask, -math.inf).sort(dim=-1, descending=True, stable=True)
    by_place = [values.gather(-1, order) for values in (mean, gains, mask)]
    centre, gain, there = by_place
    old = torch.arange(width, device=scores.device).unsqueeze(-1)  # the place a candidate has
    new = old.transpose(0, 1)  # the place it would move to
    # Taking it out, the rest moves up; place q then lies between two of the rest, the ends of its interval.
    upper = keyed[..., torch.where(new <= old, new - 1, new).clamp(min=0)].masked_fill(new == 0, math.inf)
    ends = torch.cat([keyed, keyed.new_full((*keyed.shape[:-1], 1), -math.inf)], -1)
    lower = ends[..., torch.where(new < old, new, new + 1)]
    weight = _density(lower, centre, deviation) - _density(upper, centre, deviation)
    # Those between move by one place: down if it comes from below, up if it goes down.
    down = torch.cumsum(gain * (torch.roll(discounts, -1) - discounts), -1)
    up = torch.cumsum(gain * (torch.roll(discounts, 1) - discounts), -1)
    down, up = (torch.cat([torch.zeros_like(part[..., :1]), part], -1) for part in (down, up))
    raised = down[..., old] - down[..., new]
    lowered = up[..., new + 1] - up[..., old + 1]
    own = gain.unsqueeze(-1) * (discounts[new] - discounts[old])
    change = own + torch.where(new < old, raised, lowered)
    moves = there.unsqueeze(-1) & there.unsqueeze(-2) & (new != old)
    found = (weight * change).masked_fill(~moves, 0.0).sum(-1)
    return torch.zeros_like(found).scatter(-1, order, found)


def _density(at: Tensor, centre: Tensor, deviation: Tensor) -> Tensor:
    """The normal density; 0 at infinity."""
    distance = (at - centre.unsqueeze(-1)) / deviation.unsqueeze(-1)
    return torch.exp(-0.5 * distance.square()) / (deviation.unsqueeze(-1) * math.sqrt(2.0 * math.pi))


@dataclass(frozen=True)
class _Tie:
    """log(1 + exp(-scale d)) + scale d / 2: the logistic cost of a pair that is equally likely in both orders."""

    scale: float

    def value(self, difference: Tensor) -> Tensor:
        return Logistic(self.scale).value(difference) + 0.5 * self.scale * difference

    def curvature(self, difference: Tensor) -> Tensor:
        return Logistic(self.scale).curvature(difference)

    def block(self, difference: Tensor, weight: Tensor | None, *, slope: bool) -> tuple[Tensor, Tensor | None]:
        value = self.value(difference)
        change = 0.5 * self.scale * torch.tanh(0.5 * self.scale * difference) if slope else None
        if weight is None:
            return value, change
        return value * weight, None if change is None else change * weight
