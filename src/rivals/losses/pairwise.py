"""Losses over pairs of candidates of one list, the first more relevant than the second."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rivals.losses._common import Reduction, check_at_least_zero, check_choice, check_lists, check_shape
from rivals.losses._fused.pairs import Hinge, Logistic, SquaredHinge, pair_loss

__all__ = ["pairwise_hinge_loss", "pairwise_logistic_loss"]


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
        -> scalar, or float[...] with reduction="none".

    When to use:
        Graded relevance, or pairs of a positive and mined or in-batch negatives.

    Relations:
        Two candidates, one positive: `softmax_loss`. Weights by rank: `lambda_loss`, `rank_weighted_ranknet_loss`,
        `yeti_loss`; by how likely a negative was judged: `selection_weighted_loss`. A matrix of queries by documents
        with each query's positive is the pair objective of STAR (paper 29).

    Source:
        Burges et al. (2005), RankNet, eq. 3; Zhuang et al. (2022), RankT5, section 3; rax `pairwise_logistic_loss`.
        Papers 6, 5, 29, 37, 103. The mean over all pairs of the batch follows rax.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance, weight or
        pair_weight at a candidate that is there, an unknown reduction.

    Example:
        Time grows with the number of pairs, memory with C: pairs are made in blocks and forgotten.

        >>> import torch
        >>> pairwise_logistic_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(0.1269)
    """
    lists = check_lists(scores, relevance, mask, weight, reduction)
    if pair_weight is not None:
        check_shape(pair_weight, (*scores.shape, scores.shape[-1]), "pair_weight", scores.device)
    return pair_loss(lists, Logistic(), pair_weight=pair_weight, reduction=reduction)


def pairwise_hinge_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    margin: float = 1.0,
    power: Literal[1, 2] = 1,
    reduction: Reduction = "mean",
) -> Tensor:
    """Hinge, or squared hinge, on the score difference of every pair whose first candidate is more relevant.

    Formula:
        L = sum_{i,j: y_i > y_j} w_i w_j max(0, margin - (s_i - s_j))^power / number of such pairs, over the whole batch;
        w = `weight`, 1 if not given. "list_mean" divides inside each list, then by the lists that have a pair; "none"
        gives each list's sum.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Long lists with graded relevance, where pairs that are already in order by the margin should not pull any more;
        with one positive and one negative, triplets of scores.

    Relations:
        `pairwise_logistic_loss` is its smooth form. Two candidates, one positive: SLiC's loss on preferences.

    Source:
        Herbrich et al. (1999), ranking SVM; Joachims (2002); Liu et al. (2024), LiPO, appendix B; rax
        `pairwise_hinge_loss`. Paper 103. The mean over all pairs of the batch follows rax.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, a negative margin, a power other than 1 and 2, an unknown reduction.

    Example:
        O(C log C) a list for each bit of the number of grades, by sorting; no pair is ever made.

        >>> import torch
        >>> pairwise_hinge_loss(torch.tensor([[0.5, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(0.5000)
    """
    check_at_least_zero(margin, "margin")
    check_choice(power, (1, 2), "power")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    return pair_loss(lists, Hinge(margin) if power == 1 else SquaredHinge(margin), reduction=reduction)
