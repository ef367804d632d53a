"""Losses over pairs whose weights come from the ranking: LambdaRank and its kin."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import list_ranks
from rivals.losses._common import (
    Checked,
    Reduction,
    check_at_least_zero,
    check_choice,
    check_lists,
    check_positive,
    check_shape,
    reduce_lists,
)
from rivals.losses._fused.pairs import Logistic, PairTerm, all_pairs, ordered_pairs, pair_sums
from rivals.losses._gains import Gain, check_depth, graded_gains, ideal_dcg, rank_discounts

__all__ = ["first_loss", "lambda_loss", "rank_weighted_ranknet_loss"]

Scheme: TypeAlias = Literal[
    "ndcg1", "ndcg2", "ndcg2pp", "lambdarank", "mrr", "ranknet", "ranknet_diff", "ranknet_diff2"
]
"""How `lambda_loss` weights pairs."""
Weighting: TypeAlias = Literal["inverse_rank_sum"]
Parts: TypeAlias = tuple[Tensor, ...]


def lambda_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    scheme: Scheme | None = "ndcg2pp",
    k: int | None = None,
    sigma: float = 1.0,
    mu: float = 10.0,
    gain: Gain = "exponential",
    normalize: bool = True,
    positions: Tensor | None = None,
    log_base: float = 2.0,
    reduction: Reduction = "sum",
) -> Tensor:
    """Logistic pair loss weighted by what swapping the pair would do to a rank measure (LambdaRank, LambdaLoss).

    Formula:
        L = sum_{i,j: y_i > y_j} v_ij w_i w_j log_b(1 + exp(-sigma (s_i - s_j))), b = `log_base`, w = `weight`. With
        p_i the rank of i by score (from 1), G_i = (2^{y_i} - 1) / maxDCG@k and D(p) = 1 / log2(1 + p), v_ij is
        "lambdarank": |G_i - G_j| |D(p_i) - D(p_j)|;  "ndcg2": |G_i - G_j| |D(d) - D(d + 1)| with d = |p_i - p_j|;
        "ndcg2pp": mu ndcg2 + lambdarank;  "ndcg1": G_i D(p_i), over all ordered pairs, i = j included;
        "mrr": |1/p_i - 1/p_j|;  "ranknet_diff": y_i - y_j;  "ranknet_diff2": y_i^2 - y_j^2;  "ranknet" or None: 1.
        Only candidates of rank <= k take part, but with "mrr", where all do and 1/p counts as 0 beyond k. "mean"
        divides by the pairs of the batch, "list_mean" inside each list first.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0, positions
        int[..., C] (ranks from 1, in place of those by score) -> scalar, or float[...] with reduction="none".

    When to use:
        Graded relevance where the top of the list matters. Learning rates depend on the reduction: "sum", the
        reference's, grows with lists and candidates.

    Relations:
        scheme "ranknet", log_base e, reduction "mean": `pairwise_logistic_loss`. scheme "lambdarank" without
        `normalize` is the weight of LiPO-lambda (paper 103, times the list's length there). scheme "mrr", log_base e,
        reduction "list_mean": the loss of ADORE (paper 29), `positions` being the retrieved order. `yeti_loss` draws
        the ranks at random.

    Source:
        Burges et al. (2006), LambdaRank; Wang et al. (2018), LambdaLoss; Pobrotyn et al. (2020), allRank's
        `lambdaLoss`; Zhan et al. (2021), ADORE. Papers 21, 29, 103. The reference clamps sigmoids and logarithms at
        1e-10; here nothing is clamped. Weights carry no gradient.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, positions below 1, k < 1, sigma <= 0, mu < 0, log_base not above 1, an unknown
        scheme, gain or reduction.

    Example:
        Time grows with the number of pairs, memory with C: pairs are made in blocks and forgotten.

        >>> lambda_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]), scheme="lambdarank")
        tensor(0.3691)
    """
    check_choice(scheme, (*get_args(Scheme), None), "scheme")
    check_choice(gain, get_args(Gain), "gain")
    check_depth(k, "k")
    check_positive(sigma, "sigma")
    check_at_least_zero(mu, "mu")
    if not (math.isfinite(log_base) and log_base > 1):
        raise RivalsError(f"log_base must be a finite number above 1; got {log_base!r}")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    ranks = _ranks(lists, positions)
    inside = lists if k is None or scheme == "mrr" else lists._replace(mask=lists.mask & (ranks < k))
    gains = graded_gains(lists.relevance, gain)
    if normalize:
        gains = gains / ideal_dcg(gains, lists.mask, top=k)
    if scheme == "ndcg1":
        pairs = all_pairs(inside.relevance > 0, inside.mask)
        count = inside.mask.sum(-1).square()
    else:
        pairs = ordered_pairs(inside.relevance, inside.mask)
        count = pairs.number
    kernel, term = Logistic(sigma), _scheme_weight(scheme, lists, gains, ranks, k, mu)
    return reduce_lists(pair_sums(inside, kernel, pairs=pairs, pair_weight=term).total, count, reduction) / math.log(
        log_base
    )


def rank_weighted_ranknet_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    weighting: Weighting | None = "inverse_rank_sum",
    reduction: Reduction = "mean",
) -> Tensor:
    """RankNet whose pairs weigh the more, the higher both candidates should stand: towards the order of a teacher.

    Formula:
        L_q = (1 / |P|) sum_{(i,j) in P} v_ij w_i w_j log(1 + exp(-(s_i - s_j))),  P the pairs with y_i > y_j,
        v_ij = 1 / (p_i + p_j), p the rank by relevance from 1 (or v = 1 with weighting=None), w = `weight`. "mean" and
        "list_mean" are the mean of L_q over the lists that have a pair, "none" gives each L_q.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (e.g. C minus the teacher's rank), mask bool[..., C], weight
        float[..., C] >= 0 -> scalar, or float[...] with reduction="none".

    When to use:
        Distilling the permutation of a slow list-wise reranker, where the first places matter most.

    Relations:
        weighting=None: `pairwise_logistic_loss` with reduction="list_mean". Weights by the ranks of the scores, not of
        the labels: `lambda_loss`. Added to a language-model loss: `first_loss`.

    Source:
        Reddy et al. (2024), FIRST, eq. 3; llm-reranker `rank_net`. Paper 84. The pairs, not the weights, divide, as
        there. Candidates of equal relevance share the mean of their ranks, so that their order in the input does not
        matter; the reference knows no ties.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, an unknown weighting or reduction.

    Example:
        >>> rank_weighted_ranknet_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 1.0]]))
        tensor(0.2310)
    """
    check_choice(weighting, (*get_args(Weighting), None), "weighting")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    pairs = ordered_pairs(lists.relevance, lists.mask)
    term = None if weighting is None else PairTerm(_inverse_sum, (_mean_ranks(lists),))
    sums = pair_sums(lists, Logistic(), pairs=pairs, pair_weight=term)
    each = sums.total / sums.number.clamp(min=1)
    return reduce_lists(each, sums.number > 0, reduction)


def first_loss(
    scores: Tensor,
    relevance: Tensor,
    lm_loss: Tensor,
    mask: Tensor | None = None,
    *,
    weighting: Weighting | None = "inverse_rank_sum",
    rank_weight: float = 10.0,
) -> Tensor:
    """Language-model loss on the target permutation plus a rank loss on the logits of its first token.

    Formula:
        L = lm_loss + rank_weight * `rank_weighted_ranknet_loss`(scores, relevance, mask).

    Shapes:
        scores float[..., C], the logits of the identifier tokens where the first identifier is predicted; relevance
        [..., C] >= 0; lm_loss a scalar; mask bool[..., C] -> scalar.

    When to use:
        Training a list-wise reranker that is read off its first token, so that one decoding step ranks a window.

    Relations:
        rank_weight = 0 is plain fine-tuning on the permutation. The paper's weights: 10 with weighting
        "inverse_rank_sum", 1 with None.

    Source:
        Reddy et al. (2024), FIRST, eq. 4. Paper 84.

    Raises:
        RivalsError: as `rank_weighted_ranknet_loss`; an lm_loss that is not a scalar; a negative rank_weight.

    Example:
        >>> first_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 1.0]]), torch.tensor(1.0))
        tensor(3.3105)
    """
    check_at_least_zero(rank_weight, "rank_weight")
    check_shape(lm_loss, (), "lm_loss", scores.device)
    return lm_loss + rank_weight * rank_weighted_ranknet_loss(scores, relevance, mask, weighting=weighting)


def _ranks(lists: Checked, positions: Tensor | None) -> Tensor:
    """Ranks from 0, by score or as given."""
    if positions is None:
        return list_ranks(lists.scores.detach(), lists.mask)
    check_shape(positions, tuple(lists.scores.shape), "positions", lists.scores.device)
    positions = positions.masked_fill(~lists.mask, 1)
    if positions.dtype != torch.int64 or (positions.device.type == "cpu" and (positions < 1).any()):
        raise RivalsError("positions must be int64 ranks from 1 on wherever there is a candidate")
    return positions - 1


def _scheme_weight(
    scheme: Scheme | None, lists: Checked, gains: Tensor, ranks: Tensor, k: int | None, mu: float
) -> PairTerm | None:
    if scheme is None or scheme == "ranknet":
        return None
    if scheme == "ranknet_diff":
        return PairTerm(_difference, (lists.relevance,))
    if scheme == "ranknet_diff2":
        return PairTerm(_difference, (lists.relevance.square(),))
    if scheme == "mrr":
        return PairTerm(_distance, (rank_discounts(ranks, gains.dtype, top=k, denominator="position"),))
    discounts = rank_discounts(ranks, gains.dtype)
    if scheme == "ndcg1":
        return PairTerm(_of_the_first, (gains * discounts,))
    if scheme == "lambdarank":
        return PairTerm(_swap, (gains, discounts))
    far = int(ranks.max()) + 2 if ranks.numel() else 1
    steps = rank_discounts(torch.arange(far, device=ranks.device), gains.dtype)  # D(1), D(2), ...
    table = torch.cat([steps[:1] * 0.0, steps[:-1] - steps[1:]])  # by the distance of two ranks

    def apart(first: Parts, second: Parts) -> Tensor:
        distance = (first[2] - second[2]).abs_()
        value = table.index_select(0, distance.flatten()).view(distance.shape)
        if scheme == "ndcg2pp":
            value = value.mul_(mu).add_((first[1] - second[1]).abs_())
        return value.mul_(first[0] - second[0])  # not negative: the first candidate is the more relevant

    return PairTerm(apart, (gains, discounts, ranks.to(torch.int32)))


def _difference(first: Parts, second: Parts) -> Tensor:
    return first[0] - second[0]


def _distance(first: Parts, second: Parts) -> Tensor:
    return (first[0] - second[0]).abs_()


def _swap(first: Parts, second: Parts) -> Tensor:
    return (first[1] - second[1]).abs_().mul_(first[0] - second[0])


def _of_the_first(first: Parts, second: Parts) -> Tensor:
    return first[0]


def _inverse_sum(first: Parts, second: Parts) -> Tensor:
    return (first[0] + second[0]).reciprocal_()


def _mean_ranks(lists: Checked) -> Tensor:
    """Ranks by relevance from 1, equal relevance sharing the mean of its ranks."""
    falling, order = (-lists.relevance).masked_fill(~lists.mask, torch.inf).sort(dim=-1, stable=True)
    before = torch.searchsorted(falling, falling)
    upto = torch.minimum(torch.searchsorted(falling, falling, right=True), lists.mask.sum(-1, keepdim=True))
    shared = (before + upto + 1).to(lists.scores.dtype) / 2.0
    return torch.empty_like(shared).scatter_(-1, order, shared).masked_fill(~lists.mask, 1.0)
