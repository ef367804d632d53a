"""Pair losses whose weights come from elsewhere: a selection model (who was judged at all), or money at stake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype, list_ranks
from rivals.losses._common import (
    Reduction,
    check_choice,
    check_finite,
    check_like,
    check_lists,
    check_mask,
    check_positive,
    check_scores,
    check_targets,
    reduce_lists,
)
from rivals.losses._fused.pairs import Logistic, PairTerm, ordered_pairs, pair_loss, pair_sums
from rivals.losses._gains import check_depth

__all__ = [
    "CoupledLosses",
    "coupled_losses",
    "profit_aware_pairwise_loss",
    "selection_weight",
    "selection_weighted_loss",
]

Stake: TypeAlias = Literal["log10", "linear"] | Callable[[Tensor], Tensor]
Parts: TypeAlias = tuple[Tensor, ...]

_LARGEST_EXPONENT = 60.0  # e^60 = 1e26: far from overflow in float32, also once multiplied by a loss


class CoupledLosses(NamedTuple):
    """The losses of a relevance and a selection model, and the weight of each candidate as a negative of either."""

    relevance_loss: Tensor
    selection_loss: Tensor
    relevance_weight: Tensor
    selection_weight: Tensor


def selection_weight(scores: Tensor, debias_ratio: float = 10.0, *, max_weight: float | None = None) -> Tensor:
    """Return 1 / (1 - sigmoid(scores / debias_ratio)) = 1 + exp(scores / debias_ratio), without gradient.

    It is above 1, 2 where the score is 0, and has no upper bound but `max_weight`; the exponent stops at 60, so that a
    weight and its product with a loss stay finite.

    Shapes: scores float[...] -> float[...]. Use the other model's scores in evaluation mode: dropout would add noise.
    Source: Cai et al. (2022), coupled estimation; Coupled_Estimation_Technique `train`. Paper 5.
    Raises: RivalsError for debias_ratio <= 0, max_weight below 1, scores that are not finite.

    >>> selection_weight(torch.tensor([0.0, 10.986123])).tolist()
    [2.0, 4.0...]
    """
    check_positive(debias_ratio, "debias_ratio")
    if max_weight is not None and not max_weight >= 1:
        raise RivalsError(f"max_weight must be at least 1, the least weight there is; got {max_weight!r}")
    check_scores(scores, "scores")
    check_finite(scores.detach(), "scores")
    exponent = scores.detach().to(compute_dtype(scores)) / debias_ratio
    weight = 1.0 + exponent.clamp(max=_LARGEST_EXPONENT).exp()
    return weight if max_weight is None else weight.clamp(max=max_weight)


def selection_weighted_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    selection_scores: Tensor,
    weight: Tensor | None = None,
    debias_ratio: float = 10.0,
    max_weight: float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Pairwise logistic loss that trusts a negative the more, the likelier another model holds it to have been judged.

    Formula:
        L = sum_{i,j: y_i > y_j} (1 + exp(t_j / debias_ratio)) w_i w_j log(1 + exp(-(s_i - s_j))) / number of such pairs,
        over the whole batch; t = `selection_scores` (no gradient), w = `weight`. "list_mean" divides inside each list,
        then by the lists that have a pair; "none" gives each list's sum.

    Shapes:
        scores, selection_scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Mined negatives many of which are unjudged positives, with a second model trained alongside: see
        `coupled_losses`.

    Relations:
        Equal selection scores: a multiple of `pairwise_logistic_loss`; a huge debias_ratio: twice it.

    Source:
        Cai et al. (2022), coupled estimation technique, as in its code. Paper 5. The weight of the paper is taken for
        every pair's less relevant candidate; debias_ratio 10 is the training script's, 2 the code's default.

    Raises:
        RivalsError: as `pairwise_logistic_loss`; selection_scores of another shape or not finite at a candidate that is
        there, debias_ratio <= 0, max_weight below 1.

    Example:
        >>> pair, judged = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
        >>> selection_weighted_loss(pair, judged, selection_scores=torch.zeros(1, 2))
        tensor(0.6265)
    """
    lists = check_lists(scores, relevance, mask, weight, reduction)
    check_like(selection_scores, scores, "selection_scores")
    check_scores(selection_scores, "selection_scores")
    there = selection_scores.detach().masked_fill(~lists.mask, 0.0)
    check_finite(there, "selection_scores")
    trust = selection_weight(there, debias_ratio, max_weight=max_weight).to(lists.scores.dtype)
    return pair_loss(lists, Logistic(), pair_weight=PairTerm(_of_the_second, (trust,)), reduction=reduction)


def coupled_losses(
    relevance_scores: Tensor,
    selection_scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    debias_ratio: float = 10.0,
    max_weight: float | None = None,
    relevance_eval_scores: Tensor | None = None,
    selection_eval_scores: Tensor | None = None,
    reduction: Reduction = "mean",
) -> CoupledLosses:
    """Return the losses of two models trained together, each weighting its negatives by the other's scores.

    The relevance loss is `selection_weighted_loss` of the relevance scores under the selection scores, the selection
    loss the other way round. The weights of a step come from scores of models in evaluation mode; give those as
    `relevance_eval_scores` and `selection_eval_scores` (the training scores serve if you do not).

    Shapes: scores float[..., C], relevance [..., C] >= 0, mask bool[..., C] -> two losses, two weights [..., C].
    Source: Cai et al. (2022), coupled estimation technique. Paper 5.
    Raises: RivalsError, as `selection_weighted_loss`.

    >>> found = coupled_losses(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    >>> found.relevance_loss, found.relevance_weight
    (tensor(0.6265), tensor([[2., 2.]]))
    """
    judge_relevance = relevance_scores if relevance_eval_scores is None else relevance_eval_scores
    judge_selection = selection_scores if selection_eval_scores is None else selection_eval_scores
    losses = [
        selection_weighted_loss(
            own,
            relevance,
            mask,
            selection_scores=other,
            debias_ratio=debias_ratio,
            max_weight=max_weight,
            reduction=reduction,
        )
        for own, other in ((relevance_scores, judge_selection), (selection_scores, judge_relevance))
    ]
    check_mask(mask, relevance_scores, "mask")
    weights = [
        selection_weight(s if mask is None else s.masked_fill(~mask, 0.0), debias_ratio, max_weight=max_weight)
        for s in (judge_selection, judge_relevance)
    ]
    return CoupledLosses(losses[0], losses[1], weights[0], weights[1])


def profit_aware_pairwise_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    top_k: int | None = None,
    pair_weight: Stake = "log10",
    empty: Literal["drop", "keep"] = "drop",
    reduction: Reduction = "mean",
) -> Tensor:
    """Pairwise logistic loss over values (profit, amount at stake), each pair weighted by how far its values differ.

    Formula:
        L_q = (1 / K) sum_{v_i > v_j} h(v_i - v_j) log(1 + exp(-(s_i - s_j))) over the K candidates of largest value, K the
        smaller of `top_k` and the list's length; v = `targets`, h(x) = log10(1 + x), x ("linear") or your function.
        "mean" and "list_mean" are the mean over the lists whose L_q is not exactly 0 (empty="keep": that have a
        candidate); "none" gives each L_q.

    Shapes:
        scores, targets float[..., C] (targets of any sign), mask bool[..., C]
        -> scalar, or float[...] with reduction="none".

    When to use:
        A column of money per candidate matters more than a class label. "log10" depends on the unit of the values:
        choose it so that differences worth telling apart are around 1 or more.

    Relations:
        "linear" with the labels as values: `lambda_loss` with scheme "ranknet_diff", but for the divisor. Only
        differences of values count, so that a constant added to all of a list changes nothing.

    Source:
        Wei et al. (2025), PA-RiskRanker; its `GraphBasedLoss`. Paper 77. The release has top_k = 6, which gives no
        gradient to any other candidate; the default here is all. Equal values at the cut: the earlier candidate stays.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite at a
        candidate that is there, top_k < 1, negative weights from your function, an unknown pair_weight, empty or
        reduction.

    Example:
        >>> profit_aware_pairwise_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[9.0, 0.0]]))
        tensor(0.3466)
    """
    check_depth(top_k, "top_k")
    check_choice(empty, ("drop", "keep"), "empty")
    if not callable(pair_weight):
        check_choice(pair_weight, ("log10", "linear"), "pair_weight")
    lists = check_targets(scores, targets, mask, None, reduction)
    kept = lists.mask
    if top_k is not None:
        kept = kept & (list_ranks(lists.relevance, kept) < top_k)

    def stake(first: Parts, second: Parts) -> Tensor:
        apart = first[0] - second[0]
        if callable(pair_weight):
            return pair_weight(apart.clamp(min=0.0))
        return apart if pair_weight == "linear" else torch.log10(1.0 + apart.clamp_(min=0.0))

    term = PairTerm(stake, (lists.relevance,), "pair_weight" if callable(pair_weight) else "")
    sums = pair_sums(lists, Logistic(), pairs=ordered_pairs(lists.relevance, kept), pair_weight=term)
    each = sums.total / kept.sum(-1).clamp(min=1)
    return reduce_lists(each, each.detach() != 0 if empty == "drop" else kept.any(-1), reduction)


def _of_the_second(first: Parts, second: Parts) -> Tensor:
    return second[0]
