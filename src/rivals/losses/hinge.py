"""Hinge losses: of single candidates, of classes, and of positives against the best-scored negative."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rivals.losses._classes import own_class, reduce_rows
from rivals.losses._common import (
    Reduction,
    check_choice,
    check_lists,
    check_positive,
    check_reduction,
    check_rows,
    reduce_lists,
)
from rivals.losses._sets import Activation, Level, by_level, check_level, probabilities

__all__ = ["hinge_loss", "hinge_rank_loss", "multiclass_hinge_loss"]

CLIP = 1e-7
"""How far `hinge_rank_loss` keeps probabilities from 0 and 1."""


def hinge_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    margin: float = 1.0,
    power: Literal[1, 2] = 1,
    reduction: Reduction = "mean",
) -> Tensor:
    """Hinge loss of every candidate's score: positives above the margin, negatives below minus the margin.

    Formula:
        L = mean over all candidates of w_i max(0, margin - t_i s_i)^power,  t_i = 1 where y_i > 0, else -1.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        A maximum-margin classifier, or scores that need a decision but no probability; no gradient once a candidate
        is on the right side of its margin.

    Relations:
        Twice `multiclass_hinge_loss` over the logits (s, 0), class 0 being the positive one. `lovasz_hinge_loss` sorts
        the same errors and weighs them by what they cost in Jaccard index.

    Source:
        Cortes and Vapnik (1995); power 2 is the squared hinge. Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, margin <= 0, a power other than 1 or 2, an unknown reduction.

    Example:
        >>> import torch
        >>> hinge_loss(torch.tensor([[0.5, -2.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(0.2500)
    """
    check_positive(margin, "margin")
    check_choice(power, (1, 2), "power")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    short = (margin - lists.scores.where(lists.relevance > 0, -lists.scores)).relu()
    loss = short if power == 1 else short.square()
    if lists.weight is not None:
        loss = loss * lists.weight
    return reduce_lists(loss.masked_fill(~lists.mask, 0.0).sum(-1), lists.mask.sum(-1), reduction)


def multiclass_hinge_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    margin: float = 1.0,
    power: Literal[1, 2] = 1,
    reduction: Reduction = "mean",
) -> Tensor:
    """Hinge loss of the label's logit against every other class.

    Formula:
        L = mean over the examples of w_n (1 / K) sum_{k != label} max(0, margin - z_label + z_k)^power.

    Shapes:
        logits float[N, K], labels int[N], mask bool[N], weight float[N] >= 0 (`alpha[labels]` for class weights alpha)
        -> scalar, or float[N] with reduction="none".

    When to use:
        A maximum-margin classifier over few classes, or scores that need an order but no probability.

    Relations:
        `torch.nn.functional.multi_margin_loss` with a mask; with two classes and power 1, half of `hinge_loss` on the
        difference of the logits.

    Source:
        Weston and Watkins (1999); torch's division by all K classes is followed, where a mean over the K - 1 others
        is also seen. Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels that are no columns of logits, a non-boolean
        mask, a negative or NaN weight, margin <= 0, a power other than 1 or 2, an unknown reduction.

    Example:
        >>> import torch
        >>> multiclass_hinge_loss(torch.tensor([[2.0, 1.5, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.1250)
    """
    check_positive(margin, "margin")
    check_choice(power, (1, 2), "power")
    check_reduction(reduction)
    rows = check_rows(logits, labels, mask, weight=weight, name="logits", classes=True)
    own = own_class(rows.rows, rows.labels).unsqueeze(1)
    other = torch.arange(rows.rows.shape[1], device=logits.device) != rows.labels.unsqueeze(1)
    short = (margin - own + rows.rows).relu() * other
    return reduce_rows((short if power == 1 else short.square()).mean(1), rows, reduction)


def hinge_rank_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    level: Level = "list",
    activation: Activation = "sigmoid",
    normalise: Literal["reference", "positives"] = "reference",
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared gap of every positive that scores below the best-scored negative.

    Formula:
        L = sum_{i: y_i > 0} min(p_i - M, 0)^2 / (n + 1),  M = max_{j: y_j = 0} p_j (0 without a negative),  n the number
        of positives, p = sigmoid(s) kept within [1e-7, 1 - 1e-7]; normalise="positives" divides by n. One term a set:
        all of the batch, a list, or a label. Mean over the sets with a positive.

    Shapes:
        scores float[..., C] (probabilities with activation=None), relevance [..., C] >= 0, mask bool[..., C]
        -> scalar; with reduction="none" float[...] at level "list", float[C] at "label", a scalar at "set".

    When to use:
        Beside a weighted cross entropy, when missing a rare positive is worse than a false alarm. Expect
        little of this term alone: in our trials (papers/039) the class weight did the work.

    Relations:
        A smooth surrogate of 1 - AUC at its strictest point, the best negative alone. One positive and one negative:
        a squared hinge on their difference, over 2.

    Source:
        Ezzati et al. (2020), class-dependent compression, eq. 3, in the form of the released code: scores in place of
        ranks, and n + 1 in the divisor. Paper 39. The code cuts the gradient of this term; here it flows through the
        scores and through M. The paper weighs the term by 5.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance at a
        candidate that is there, scores outside [0, 1] with activation=None, an unknown level, activation, normalise
        or reduction.

    Example:
        >>> import torch
        >>> hinge_rank_loss(torch.tensor([[0.3, 0.6]]), torch.tensor([[1.0, 0.0]]), activation=None)
        tensor(0.0450)
    """
    check_level(level)
    check_choice(normalise, ("reference", "positives"), "normalise")
    lists = check_lists(scores, relevance, mask, None, reduction)
    clipped = by_level(probabilities(lists, activation).clamp(CLIP, 1 - CLIP), level)
    positive = by_level(lists.relevance > 0, level)
    negative = by_level(lists.mask, level) & ~positive
    count = positive.sum(-1)
    if clipped.shape[-1] == 0:
        return reduce_lists(clipped.sum(-1), count, reduction)
    best = clipped.masked_fill(~negative, 0.0).amax(-1, keepdim=True)
    gap = (clipped - best).clamp(max=0.0).masked_fill(~positive, 0.0)
    total = gap.square().sum(-1) / (count + 1 if normalise == "reference" else count.clamp(min=1))
    return reduce_lists(total, count > 0, reduction)
