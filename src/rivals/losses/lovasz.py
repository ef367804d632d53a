"""Lovász losses: the convex extension of one minus the Jaccard index, by sorting errors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rivals.losses._classes import class_log_probabilities, one_hot
from rivals.losses._common import Reduction, check_choice, check_lists, reduce_lists
from rivals.losses._sets import Level, by_level, check_level, safe_ratio
from rivals.losses.confusion import counted

__all__ = ["lovasz_hinge_loss", "lovasz_softmax_loss"]


def lovasz_hinge_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    level: Level = "list",
    reduction: Reduction = "mean",
) -> Tensor:
    """Hinge errors, each weighed by what it adds to one minus the Jaccard index.

    Formula:
        m_i = max(0, 1 - t_i s_i) with t_i = 1 at positives, -1 at negatives, sorted so that m falls; then

        L = sum_i m_i (J_i - J_{i-1}),  J_i = 1 - (P - cum_i w y) / (P + cum_i w (1 - y)),  J_0 = 0,  P = sum w y

        over the candidates of one set: a list, all of the batch, or a label. Mean over the sets with a candidate.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (positive where > 0), mask bool[..., C],
        weight float[..., C] >= 0 (multiplicity)
        -> scalar; with reduction="none" float[...] at level "list", float[C] at "label", a scalar at "set".

    When to use:
        Sets (relevant passages, tagged spans, pixels) judged by intersection over union at threshold 0. Often after a
        few epochs of cross entropy.

    Relations:
        Scores of +1 and -1: twice 1 - Jaccard of the predicted set. `jaccard_loss` is the product extension on
        probabilities instead.

    Source:
        Berman et al. (2018), eqs. 8 to 10. Paper 44. The gradient flows through the errors; their order is constant.
        Without a positive the largest error alone counts, as in the authors' code.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, an unknown level or reduction.

    Example:
        Cost O(C log C).

        >>> import torch
        >>> lovasz_hinge_loss(torch.tensor([[1.0, 1.0, -1.0]]), torch.tensor([[1.0, 0.0, 0.0]]))
        tensor(1.)
    """
    check_level(level)
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positive, there = lists.relevance > 0, by_level(lists.mask, level)
    errors = (1 - lists.scores.where(positive, -lists.scores)).relu().masked_fill(~lists.mask, 0.0)
    multiplicity = by_level(counted(lists.mask, lists.weight, errors), level)
    total = _extension(by_level(errors, level), by_level(positive, level), multiplicity, there)
    return reduce_lists(total, there.any(-1), reduction)


def lovasz_softmax_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    classes: Literal["present", "all"] = "present",
) -> Tensor:
    """Errors of softmax probabilities, each weighed by what it adds to its class's one minus Jaccard, over classes.

    Formula:
        For every class k: m_n = |[label_n = k] - p_nk| with p = softmax(logits), and L_k the sorted sum of
        `lovasz_hinge_loss` over these errors and all examples of the batch. L = mean of L_k over the classes that have
        an example ("present"), or over all K.

    Shapes:
        logits float[N, K], labels int[N], mask bool[N], weight float[N] >= 0 (multiplicity) -> scalar.

    When to use:
        Classes judged by mean intersection over union (segments, tags); batches large enough to hold most classes.

    Relations:
        On one-hot probabilities exactly the mean over classes of 1 - Jaccard. `softmax_dice_loss` at level "set" aims
        at F1 without sorting.

    Source:
        Berman et al. (2018), eqs. 11 and 12. Paper 44. Defined over a whole batch, so there is no reduction.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels that are no columns of logits, a non-boolean
        mask, a negative or NaN weight, an unknown choice of classes.

    Example:
        Cost O(K N log N).

        >>> import torch
        >>> lovasz_softmax_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor(0.5000)
    """
    check_choice(classes, ("present", "all"), "classes")
    rows, log_probability = class_log_probabilities(logits, labels, mask, weight, "mean")
    positive = (one_hot(rows.labels, log_probability) > 0).T
    probability = log_probability.exp().T
    errors = torch.where(positive, 1 - probability, probability)
    multiplicity = torch.ones_like(errors) if rows.weight is None else rows.weight.expand_as(errors)
    total = _extension(errors, positive, multiplicity, torch.ones_like(positive))
    if classes == "all":
        return total.sum() / max(len(total), 1)
    present = (positive & (multiplicity > 0)).any(-1)
    return total.masked_fill(~present, 0.0).sum() / present.sum().clamp(min=1)


def _extension(errors: Tensor, positive: Tensor, multiplicity: Tensor, there: Tensor) -> Tensor:
    """Return sum_i m_i (J_i - J_{i-1}) along the last dimension, errors in falling order, absent ones last."""
    order = errors.detach().masked_fill(~there, -1.0).argsort(dim=-1, descending=True, stable=True)
    wanted = (multiplicity * positive).gather(-1, order)
    unwanted = (multiplicity * ~positive).gather(-1, order)
    total = wanted.sum(-1, keepdim=True)
    left, union = total - wanted.cumsum(-1), total + unwanted.cumsum(-1)
    lost = 1 - safe_ratio(left, union, empty=1.0)
    steps = lost.diff(dim=-1, prepend=torch.zeros_like(total))
    return (errors.gather(-1, order) * steps).sum(-1)
