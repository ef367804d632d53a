"""Losses over pairs of candidates of one list."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rivals.losses._common import Reduction, check_lists, check_not_negative, check_shape, reduce_lists

__all__ = ["pairwise_logistic_loss"]


def pairwise_logistic_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    pair_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Logistic loss on the score difference of every pair whose first candidate is more relevant (RankNet).

    Formula:
        L = sum_{i,j: y_i > y_j} v_ij w_i w_j log(1 + exp(-(s_i - s_j))) / number of such pairs, over the whole batch;
        v = `pair_weight`, w = `weight`, both 1 if not given. "list_mean" divides inside each list, then by the lists
        that have a pair; "none" gives each list's sum.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0,
        pair_weight float[..., C, C] >= 0 (first index: the more relevant candidate)
        -> scalar, or float[...] with reduction="none". Needs memory for [..., C, C].

    When to use:
        Graded relevance, or pairs of a positive and a mined negative; few candidates a list.

    Relations:
        Two candidates, one positive: `softmax_loss`. `pair_weight` turns it into LambdaRank or a selection-weighted
        loss (papers 5, 8, 21, 29, 47).

    Source:
        Burges et al. (2005), RankNet, eq. 3; Zhuang et al. (2022), RankT5, section 3; rax `pairwise_logistic_loss`.
        Papers 6, 5, 29, 37. The mean over all pairs of the batch follows rax.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance, weight or
        pair_weight at a candidate that is there, an unknown reduction.

    Example:
        >>> import torch
        >>> pairwise_logistic_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(0.1269)
    """
    lists = check_lists(scores, relevance, mask, weight, reduction)
    difference = lists.scores.unsqueeze(-1) - lists.scores.unsqueeze(-2)
    there = lists.mask.unsqueeze(-1) & lists.mask.unsqueeze(-2)
    ordered = (lists.relevance.unsqueeze(-1) > lists.relevance.unsqueeze(-2)) & there
    pair_loss = -F.logsigmoid(difference.masked_fill(~ordered, 0.0))
    if lists.weight is not None:
        pair_loss = pair_loss * (lists.weight.unsqueeze(-1) * lists.weight.unsqueeze(-2))
    if pair_weight is not None:
        check_shape(pair_weight, tuple(difference.shape), "pair_weight", scores.device)
        pair_weight = pair_weight.to(pair_loss.dtype).masked_fill(~ordered, 0.0)
        check_not_negative(pair_weight, "pair_weight")
        pair_loss = pair_loss * pair_weight
    pair_loss = pair_loss.masked_fill(~ordered, 0.0)
    return reduce_lists(pair_loss.sum((-2, -1)), ordered.sum((-2, -1)), reduction)
