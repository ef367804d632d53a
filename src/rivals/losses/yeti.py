"""YetiLoss: pair weights from a rank measure, at neighbours in orders drawn at random around the scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import (
    Checked,
    Reduction,
    check_at_least_zero,
    check_choice,
    check_lists,
    reduce_lists,
)
from rivals.losses._fused.pairs import Logistic, ordered_pairs, pair_sums
from rivals.losses._gains import Denominator, Gain, check_depth, graded_gains, ideal_dcg, rank_discounts

__all__ = ["yeti_loss", "yeti_weights"]

Metric: TypeAlias = Literal["ndcg", "dcg", "mrr", "map", "err", "classic"]
Noise: TypeAlias = Literal["logistic", "gauss"]

CHUNK_ELEMENTS = 1 << 20
"""Pairs of all draws that are weighed at a time."""


def yeti_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    metric: Metric = "ndcg",
    top: int | None = None,
    num_neighbors: int = 1,
    gain: Gain = "linear",
    denominator: Denominator = "log",
    decay: float = 0.85,
    noise: Noise | None = "logistic",
    noise_scale: float = 1.0,
    n_samples: int = 10,
    generator: torch.Generator | None = None,
    reduction: Reduction = "sum",
) -> Tensor:
    """Logistic pair loss whose weights are the change of a rank measure at neighbours of randomly disturbed orders.

    Formula:
        L = sum_{i,j: y_i > y_j} W_ij w_i w_j log(1 + exp(-(s_i - s_j))),  W of `yeti_weights` (no gradient), w = `weight`.
        "mean" divides by the pairs of unequal relevance of the batch, "list_mean" inside each list first.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Aiming at one measure (NDCG, MRR, MAP, ERR) with a convex surrogate: the disturbed orders teach how firm the
        ranking is, and only pairs that could swap are looked at. Draw anew at every step: go on with one generator.

    Relations:
        `pairwise_logistic_loss` with pair_weight `yeti_weights`, "sum". noise=None, num_neighbors=-1, metric "ndcg":
        `lambda_loss` with scheme "lambdarank" and natural logarithms (gain "linear" there too). metric "classic" is
        YetiRank.

    Source:
        Gulin et al. (2011), YetiRank; Lyzhin et al. (2023), "Which tricks are important for learning to rank?"; CatBoost's
        YetiRank modes. Paper 47. The loss is taken on the undisturbed scores, as in CatBoost; TF-Ranking takes it on the
        disturbed ones.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, relevance above 1 with metric "err", top < 1, num_neighbors neither positive nor -1,
        n_samples < 1, noise_scale < 0, decay outside 0 to 1, noise without a generator, an unknown metric, gain,
        denominator, noise or reduction.

    Example:
        O(n_samples C (num_neighbors + log C)); with many neighbours a tensor [..., C, C] of weights.

        >>> scores, relevance = torch.tensor([[0.3, -0.2, 0.5, 1.1]]), torch.tensor([[2.0, 0.0, 1.0, 0.0]])
        >>> yeti_loss(scores, relevance, generator=torch.Generator().manual_seed(0))
        tensor(0.2165)
        >>> yeti_loss(scores, relevance, noise=None)
        tensor(0.2102)
    """
    lists = check_lists(scores, relevance, mask, weight, reduction)
    rule = _Rule(metric, top, num_neighbors, gain, denominator, decay, noise, noise_scale, n_samples)
    draws = _Draws.of(lists, rule, generator)
    width = lists.scores.shape[-1]
    if 4 * draws.pairs_a_candidate > width:
        total, count = pair_sums(lists, Logistic(), pair_weight=draws.dense())
        return reduce_lists(total, count, reduction)
    flat = lists.scores.reshape(draws.shape)
    weights = None if lists.weight is None else lists.weight.reshape(draws.shape)
    total = flat.sum(-1) * 0.0
    for better, worse, found in draws.pairs():
        if weights is not None:
            found = found * weights.gather(-1, better) * weights.gather(-1, worse)
        total = total - (found * F.logsigmoid(flat.gather(-1, better) - flat.gather(-1, worse))).sum(-1)
    count = ordered_pairs(lists.relevance, lists.mask).number
    return reduce_lists(total.reshape(count.shape), count, reduction)


def yeti_weights(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    metric: Metric = "ndcg",
    top: int | None = None,
    num_neighbors: int = 1,
    gain: Gain = "linear",
    denominator: Denominator = "log",
    decay: float = 0.85,
    noise: Noise | None = "logistic",
    noise_scale: float = 1.0,
    n_samples: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the pair weights W[..., C, C] of `yeti_loss` (first index: the more relevant candidate), without gradient.

    For each of `n_samples` draws: scores get noise (logistic, or normal, times `noise_scale`) and are sorted; every
    candidate i at place a < top (from 0) meets those at the next `num_neighbors` places c (-1: all below), j; if their
    relevance differs, the pair gets

    - "dcg": |g_i - g_j| |D_a - D_c|, g = y or 2^y - 1, D_p = 1 / log2(p + 2) or 1 / (p + 1), and 0 from p = top on;
      "ndcg": the same over the best DCG@top;
    - "mrr": 1/(a+1) - 1/(c+1), if exactly one of the two is relevant and nothing above a is;
    - "map": 1/(a+1) + sum of 1/(p+1) over relevant places a < p < c, if exactly one of the two is relevant;
    - "err": P(a is looked at) |(y_i - y_j)/(a+1) + R (y_j - y_i) + M (y_j - y_i)/(c+1)|, y the chance of stopping, M
      that of passing all between a and c, R what the places between add, once reached;
    - "classic": 0.15 decay^a |y_i - y_j|, for the next place only, whatever `top` and `num_neighbors` are.

    W is the mean over draws.

    Args: as `yeti_loss`. Shapes: scores, relevance, mask [..., C] -> [..., C, C].
    Source: Lyzhin et al. (2023); CatBoost's YetiRank modes. Paper 47.
    Raises: RivalsError, as `yeti_loss`.

    >>> scores, relevance = torch.tensor([0.3, -0.2, 0.5, 1.1]), torch.tensor([2.0, 0.0, 1.0, 0.0])
    >>> yeti_weights(scores, relevance, metric="mrr", noise=None)[2]
    tensor([0.0000, 0.0000, 0.0000, 0.5000])
    """
    lists = check_lists(scores, relevance, mask, None, "mean")
    rule = _Rule(metric, top, num_neighbors, gain, denominator, decay, noise, noise_scale, n_samples)
    return _Draws.of(lists, rule, generator).dense()


@dataclass(frozen=True)
class _Rule:
    """How orders are drawn and pairs weighed, checked; see `yeti_weights`."""

    metric: Metric
    top: int | None
    num_neighbors: int
    gain: Gain
    denominator: Denominator
    decay: float
    noise: Noise | None
    noise_scale: float
    n_samples: int

    def __post_init__(self) -> None:
        check_choice(self.metric, get_args(Metric), "metric")
        check_choice(self.gain, get_args(Gain), "gain")
        check_choice(self.denominator, get_args(Denominator), "denominator")
        check_choice(self.noise, (*get_args(Noise), None), "noise")
        check_depth(self.top, "top")
        check_at_least_zero(self.noise_scale, "noise_scale")
        if self.num_neighbors != -1 and self.num_neighbors < 1:
            raise RivalsError(f"num_neighbors must be at least 1, or -1 for all below; got {self.num_neighbors}")
        if self.n_samples < 1:
            raise RivalsError(f"n_samples must be at least 1; got {self.n_samples}")
        if not 0 <= self.decay <= 1:
            raise RivalsError(f"decay must lie between 0 and 1; got {self.decay!r}")

    def neighbors(self, width: int) -> int:
        """How many places below it a candidate meets in a list of `width`."""
        if self.metric == "classic":
            return 1
        return max(1, width - 1 if self.num_neighbors == -1 else min(self.num_neighbors, width - 1))

    def anchors(self, width: int) -> int:
        """How many places, from the first on, have neighbours below them to meet."""
        return min(width - 1, width if self.top is None or self.metric == "classic" else self.top)


class _Ranked(NamedTuple):
    """The lists of every draw by place, and a chunk of pairs of places."""

    relevance: Tensor  # [B, S, C]
    gains: Tensor  # [B, S, C]
    discounts: Tensor  # [C]
    above: Tensor  # int64[R, 1]
    below: Tensor  # int64[R, K]


@dataclass(frozen=True)
class _Draws:
    """The drawn orders of B flattened lists, S draws each."""

    rule: _Rule
    shape: tuple[int, int]
    leading: torch.Size
    order: Tensor  # int64[B, S, C]
    count: Tensor  # int64[B, 1, 1, 1]
    relevance: Tensor  # [B, S, C] by place
    gains: Tensor  # [B, S, C] by place
    discounts: Tensor  # [C]

    @staticmethod
    def of(lists: Checked, rule: _Rule, generator: torch.Generator | None) -> _Draws:
        width = lists.scores.shape[-1]
        shape = (math.prod(lists.scores.shape[:-1]), width)
        scores, relevance, mask = (part.detach().reshape(shape) for part in lists[:3])
        if rule.metric == "err" and relevance.device.type == "cpu" and (relevance > 1).any():
            raise RivalsError(
                'relevance must lie in 0..1 with metric "err", where it is the chance of stopping; '
                f"found {float(relevance.max())}"
            )
        disturbed = _disturbed(scores, rule, generator).masked_fill(~mask.unsqueeze(1), -math.inf)
        order = disturbed.argsort(dim=-1, descending=True, stable=True)
        gains = graded_gains(relevance, rule.gain)
        if rule.metric == "ndcg":
            gains = gains / ideal_dcg(gains, mask, top=rule.top, denominator=rule.denominator)
        relevance, gains = (part.unsqueeze(1).expand_as(order).gather(-1, order) for part in (relevance, gains))
        ranks = torch.arange(width, device=scores.device)
        discounts = rank_discounts(ranks, scores.dtype, top=rule.top, denominator=rule.denominator)
        count = mask.sum(-1)[:, None, None, None]
        return _Draws(rule, shape, lists.scores.shape[:-1], order, count, relevance, gains, discounts)

    @property
    def pairs_a_candidate(self) -> int:
        return self.order.shape[1] * self.rule.neighbors(self.shape[1])

    def pairs(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield chunks of (better, worse, weight), each [B, P]; a pair of candidates may come several times."""
        lists, width = self.shape
        samples, last = self.order.shape[1], self.rule.anchors(width)
        rows = max(1, CHUNK_ELEMENTS // max(1, lists * self.pairs_a_candidate))
        steps = torch.arange(1, self.rule.neighbors(width) + 1, device=self.order.device)
        for first in range(0, last, rows):
            above = torch.arange(first, min(first + rows, last), device=self.order.device).unsqueeze(-1)
            below = above + steps
            absent = below >= self.count
            below = below.clamp(max=width - 1)
            upper, lower = self.relevance[..., above], self.relevance[..., below]
            ranked = _Ranked(self.relevance, self.gains, self.discounts, above, below)
            weight = self._weight(ranked) / samples
            weight = weight.masked_fill(absent | (upper == lower), 0.0)
            left, right = self.order[..., above].expand_as(weight), self.order[..., below]
            swapped = lower > upper
            better, worse = torch.where(swapped, right, left), torch.where(swapped, left, right)
            yield better.flatten(1), worse.flatten(1), weight.flatten(1)

    def dense(self) -> Tensor:
        """The weights as a tensor [..., C, C]."""
        width = self.shape[1]
        found = self.gains.new_zeros(self.shape[0], width * width)
        for better, worse, weight in self.pairs():
            found.scatter_add_(-1, better * width + worse, weight)
        return found.reshape(*self.leading, width, width)

    def _weight(self, ranked: _Ranked) -> Tensor:
        """What a pair weighs, whether or not its two are equally relevant, [B, S, R, K]."""
        if self.rule.metric == "classic":
            apart = ranked.relevance[..., ranked.above] - ranked.relevance[..., ranked.below]
            return 0.15 * self.rule.decay ** ranked.above.to(apart.dtype) * apart.abs()
        return _MEASURES[self.rule.metric](ranked)


def _disturbed(scores: Tensor, rule: _Rule, generator: torch.Generator | None) -> Tensor:
    """The scores [B, 1, C], or [B, S, C] with noise."""
    if rule.noise is None:
        return scores.unsqueeze(1)
    if generator is None:
        raise RivalsError(f"noise={rule.noise!r} draws at random; give it generator=torch.Generator(), or noise=None")
    shape = (scores.shape[0], rule.n_samples, scores.shape[1])
    if rule.noise == "gauss":
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
    else:
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)
        drawn = uniform.clamp_(min=torch.finfo(torch.float64).tiny).logit()
    return scores.unsqueeze(1) + rule.noise_scale * drawn.to(scores)


def _dcg(ranked: _Ranked) -> Tensor:
    change = ranked.gains[..., ranked.above] - ranked.gains[..., ranked.below]
    return (change * (ranked.discounts[ranked.above] - ranked.discounts[ranked.below])).abs()


def _one_relevant(ranked: _Ranked) -> Tensor:
    relevant = ranked.relevance > 0
    return relevant[..., ranked.above] != relevant[..., ranked.below]


def _reciprocal(ranked: _Ranked, places: Tensor) -> Tensor:
    return 1.0 / (places.to(ranked.relevance.dtype) + 1.0)


def _mrr(ranked: _Ranked) -> Tensor:
    relevant = (ranked.relevance > 0).long()
    untouched = (relevant.cumsum(-1) - relevant)[..., ranked.above] == 0
    change = _reciprocal(ranked, ranked.above) - _reciprocal(ranked, ranked.below)
    return change * (untouched & _one_relevant(ranked))


def _map(ranked: _Ranked) -> Tensor:
    places = torch.arange(ranked.relevance.shape[-1], device=ranked.above.device)
    running = ((ranked.relevance > 0) * _reciprocal(ranked, places)).cumsum(-1)
    between = running[..., ranked.below - 1] - running[..., ranked.above]
    return (_reciprocal(ranked, ranked.above) + between) * _one_relevant(ranked)


def _err(ranked: _Ranked) -> Tensor:
    upper, lower = ranked.relevance[..., ranked.above], ranked.relevance[..., ranked.below]
    reached = _before(torch.cumprod(1.0 - ranked.relevance, -1), 1.0)[..., ranked.above]
    passed = _before(torch.cumprod(1.0 - lower, -1), 1.0)
    between = _before((passed * lower * _reciprocal(ranked, ranked.below)).cumsum(-1), 0.0)
    spread = _reciprocal(ranked, ranked.above) - between - passed * _reciprocal(ranked, ranked.below)
    return reached * ((upper - lower) * spread).abs()


def _before(running: Tensor, start: float) -> Tensor:
    """Shift a running product or sum by one place, so that it leaves its own place out."""
    return F.pad(running[..., :-1], (1, 0), value=start)


_MEASURES: dict[str, Callable[[_Ranked], Tensor]] = {
    "ndcg": _dcg,
    "dcg": _dcg,
    "mrr": _mrr,
    "map": _map,
    "err": _err,
}
