"""Overlap losses: how little the set of what is predicted has in common with the set of what is relevant."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.lists import list_ranks
from rivals.losses._classes import class_log_probabilities, one_hot, reduce_rows
from rivals.losses._common import (
    Checked,
    Reduction,
    check_at_least_zero,
    check_choice,
    check_lists,
    reduce_lists,
)
from rivals.losses._focal import focusing_weight
from rivals.losses._sets import Activation, Level, by_level, check_level, probabilities, safe_ratio
from rivals.losses.confusion import confusion_counts, counted

__all__ = ["dice_loss", "jaccard_loss", "softmax_dice_loss", "tversky_loss"]

OverlapLevel = Level | Literal["candidate"]


def dice_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    level: OverlapLevel = "set",
    alpha: float = 0.0,
    smooth: float = 1.0,
    squared: bool = True,
    ohem_ratio: float = 0.0,
    activation: Activation = "sigmoid",
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus a soft Dice (F1) coefficient between predicted probabilities and relevance.

    Formula:
        p = sigmoid(s),  q = (1 - p)^alpha p,  y = [relevance > 0],  g = `smooth`, and over the candidates of one set

        L = 1 - (2 sum w q y + g) / (sum w q^2 + sum w y + g);  squared=False has sum w q in place of sum w q^2.

        level: all candidates of the batch are one set ("set"); those of a list ("list"); those in one place of all
        lists, a label ("label"); or every candidate is a set of its own ("candidate"). Mean over the sets. With
        `ohem_ratio` r > 0, of the n negatives of a set only the min(floor(r n_positive), n) most probable count.

    Shapes:
        scores float[..., C] (probabilities with activation=None), relevance [..., C] >= 0, mask bool[..., C],
        weight float[..., C] >= 0 (multiplicity)
        -> scalar; with reduction="none" float[...] at levels "list" and "candidate" (sums), float[C] at "label", a
        scalar at "set".

    When to use:
        Few positives among many negatives and F1 as the aim, classes that overlap. Batches should hold positives. The
        gradient has no logarithm and fades at saturated scores: warm up with cross entropy if needed.

    Relations:
        squared=False and alpha 0: `tversky_loss` with weights 0.5 and half of smooth; with smooth 0 `confusion_loss`
        without amplification. `softmax_dice_loss` is the form over classes.

    Source:
        Li et al. (2020), eqs. 7 to 11: squared with alpha 0 is their DL (of Milletari et al., 2016), plain with alpha
        their DSC, both per example. Papers 18, 44. Their code takes one set for binary targets; that is the default
        here, since it alone learnt overlapping classes in our trials. Of the code's hard-negative mining
        the intent is followed, not its index error. smooth 1 and squared are those of their training scripts.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, scores outside [0, 1] with activation=None, alpha, smooth or
        ohem_ratio < 0, an unknown level, activation or reduction. An alpha above 0.5 warns: confident positives are
        then pulled back towards 0.5.

    Example:
        >>> import torch
        >>> dice_loss(torch.tensor([0.8, 0.2]).logit(), torch.tensor([1.0, 0.0]), smooth=0.0)
        tensor(0.0476)
    """
    check_level(level, "candidate")
    _check_dice(alpha, smooth, ohem_ratio)
    lists = check_lists(scores, relevance, mask, weight, reduction)
    probability = probabilities(lists, activation)
    positive, there = lists.relevance > 0, lists.mask
    if ohem_ratio:
        there = there & _hardest(probability, positive, there, ohem_ratio, "set" if level == "candidate" else level)
    predicted = probability
    if alpha and activation == "sigmoid":
        predicted = (alpha * F.logsigmoid(-lists.scores)).exp() * probability
    elif alpha:
        predicted = focusing_weight(1 - probability, alpha) * probability
    if level == "candidate":
        lists = lists._replace(mask=there)
        each = there.to(predicted.dtype)[..., None]
        return _each(_dice(predicted[..., None], positive[..., None], each, squared, smooth), lists, reduction)
    multiplicity = counted(lists.mask, lists.weight, predicted) * there
    predicted, positive, multiplicity = (by_level(values, level) for values in (predicted, positive, multiplicity))
    terms = _dice(predicted, positive, multiplicity, squared, smooth)
    return _sets(terms, lists, level, reduction)


def softmax_dice_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    level: Literal["set", "example"] = "set",
    alpha: float = 0.0,
    smooth: float = 1.0,
    squared: bool = True,
    ohem_ratio: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Soft Dice losses of all classes, summed, between softmax probabilities and labels.

    Formula:
        p = softmax(logits),  q = (1 - p)^alpha p,  y_nk = [k = label_n],  g = `smooth`.

        - level "example": L_n = w_n sum_k [ 1 - (2 q_nk y_nk + g) / (q_nk^2 + y_nk + g) ], mean over the examples.
        - level "set": L = sum_k [ 1 - (2 sum_n w q y + g) / (sum_n w q^2 + sum_n w y + g) ], one number whatever the
          reduction.

        squared=False has q in place of q^2. With `ohem_ratio` r > 0, of the n examples of other classes only the
        min(floor(r n_k), n) with the highest p_k count for class k, which has n_k examples.

    Shapes:
        logits float[N, K], labels int[N], mask bool[N], weight float[N] >= 0
        -> scalar; with reduction="none" float[N] at level "example".

    When to use:
        Imbalanced classes judged by macro F1 (tagging, extraction); see `dice_loss` for its weak gradients.

    Relations:
        `dice_loss` with one set a class. With two classes its terms for class 1 are those of `dice_loss` at z_1 - z_0.

    Source:
        Li et al. (2020), eqs. 7 to 11; per example and class as in their multi-class code. Paper 18. Where that code
        has the plain denominator it sums it over the whole batch, its numerator over one example; here both are over
        the same set.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels that are no columns of logits, a non-boolean
        mask, a negative or NaN weight, alpha, smooth or ohem_ratio < 0, an unknown level or reduction. An alpha above
        0.5 warns.

    Example:
        >>> import torch
        >>> softmax_dice_loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.3111)
    """
    check_choice(level, ("set", "example"), "level")
    _check_dice(alpha, smooth, ohem_ratio)
    rows, log_probability = class_log_probabilities(logits, labels, mask, weight, reduction)
    probability = log_probability.exp()
    positive = one_hot(rows.labels, probability) > 0
    there = torch.ones_like(positive)
    if ohem_ratio:
        there = _hardest(probability, positive, there, ohem_ratio, "label")
    predicted = probability
    if alpha:
        predicted = focusing_weight(-log_probability.expm1(), alpha) * probability
    multiplicity = there.to(predicted.dtype)
    if level == "example":
        terms = _dice(predicted[..., None], positive[..., None], multiplicity[..., None], squared, smooth)
        return reduce_rows(terms.sum(1), rows, reduction)
    if rows.weight is not None:
        multiplicity = multiplicity * rows.weight.unsqueeze(1)
    return _dice(predicted.T, positive.T, multiplicity.T, squared, smooth).sum()


def tversky_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    fp_weight: float = 0.5,
    fn_weight: float = 0.5,
    smooth: float = 1.0,
    level: OverlapLevel = "set",
    activation: Activation = "sigmoid",
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus a soft Tversky index, in which false positives and false negatives have prices of their own.

    Formula:
        L = 1 - (TP + g) / (TP + a FP + b FN + g),  a = `fp_weight`, b = `fn_weight`, g = `smooth`, with the counts of
        `soft_confusion` at p = sigmoid(s) over the candidates of one set; sets and their mean as in `dice_loss`.

    Shapes:
        scores float[..., C] (probabilities with activation=None), relevance [..., C] >= 0 (positive where > 0),
        mask bool[..., C], weight float[..., C] >= 0 (multiplicity)
        -> scalar; with reduction="none" as `dice_loss`.

    When to use:
        As `dice_loss`, when a missed positive and a false alarm cost differently (fn_weight above fp_weight for
        recall).

    Relations:
        Weights 0.5: `dice_loss` with squared=False and twice the smooth. Weights 1: `jaccard_loss`. Weights that sum
        to 1 train for F-beta with beta^2 = fn_weight / fp_weight.

    Source:
        Tversky (1977); Salehi et al. (2017); Li et al. (2020), eq. 9. Papers 18, 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, scores outside [0, 1] with activation=None, fp_weight, fn_weight or
        smooth < 0, an unknown level, activation or reduction.

    Example:
        >>> import torch
        >>> tversky_loss(torch.tensor([0.8, 0.2]).logit(), torch.tensor([1.0, 0.0]), smooth=0.0)
        tensor(0.2000)
    """
    for value, name in ((fp_weight, "fp_weight"), (fn_weight, "fn_weight"), (smooth, "smooth")):
        check_at_least_zero(value, name)
    check_level(level, "candidate")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    probability, positive = probabilities(lists, activation), lists.relevance > 0
    if level == "candidate":
        there = lists.mask.to(probability.dtype)
        tp, fp, fn, _ = confusion_counts(probability[..., None], positive[..., None], there[..., None])
        terms = 1 - safe_ratio(tp + smooth, tp + fp_weight * fp + fn_weight * fn + smooth, empty=1.0)
        return _each(terms, lists, reduction)
    multiplicity = counted(lists.mask, lists.weight, probability)
    tp, fp, fn, _ = confusion_counts(*(by_level(values, level) for values in (probability, positive, multiplicity)))
    terms = 1 - safe_ratio(tp + smooth, tp + fp_weight * fp + fn_weight * fn + smooth, empty=1.0)
    return _sets(terms, lists, level, reduction)


def jaccard_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    smooth: float = 0.0,
    level: OverlapLevel = "set",
    activation: Activation = "sigmoid",
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus a soft Jaccard index (intersection over union).

    Formula:
        L = 1 - (TP + g) / (TP + FP + FN + g),  g = `smooth`, with the counts of `soft_confusion` at p = sigmoid(s) over
        the candidates of one set; sets and their mean as in `dice_loss`.

    Shapes:
        scores float[..., C] (probabilities with activation=None), relevance [..., C] >= 0 (positive where > 0),
        mask bool[..., C], weight float[..., C] >= 0 (multiplicity)
        -> scalar; with reduction="none" as `dice_loss`.

    When to use:
        As `dice_loss`, when intersection over union is the measure. A set without a positive has no gradient unless
        smooth is above 0.

    Relations:
        `tversky_loss` with both weights 1. Through the Dice loss D: L = 2 D / (1 + D), with plain denominators and no
        smoothing. On probabilities of 0 and 1 exactly 1 - Jaccard, as `lovasz_hinge_loss` is.

    Source:
        Rahman and Wang (2016), eq. 3. Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, scores outside [0, 1] with activation=None, smooth < 0, an unknown level,
        activation or reduction.

    Example:
        >>> import torch
        >>> jaccard_loss(torch.tensor([0.8, 0.2]).logit(), torch.tensor([1.0, 0.0]))
        tensor(0.3333)
    """
    return tversky_loss(
        scores,
        relevance,
        mask,
        weight=weight,
        fp_weight=1.0,
        fn_weight=1.0,
        smooth=smooth,
        level=level,
        activation=activation,
        reduction=reduction,
    )


def _check_dice(alpha: float, smooth: float, ohem_ratio: float) -> None:
    for value, name in ((alpha, "alpha"), (smooth, "smooth"), (ohem_ratio, "ohem_ratio")):
        check_at_least_zero(value, name)
    if alpha > 0.5:
        warnings.warn(f"alpha {alpha} pulls confident positives back to p = 0.5; keep it at or below 0.1", stacklevel=3)


def _dice(predicted: Tensor, positive: Tensor, multiplicity: Tensor, squared: bool, smooth: float) -> Tensor:
    """Return one Dice loss for each set along the last dimension."""
    wanted = multiplicity * positive
    size = (multiplicity * (predicted.square() if squared else predicted)).sum(-1) + wanted.sum(-1)
    return 1 - safe_ratio(2 * (predicted * wanted).sum(-1) + smooth, size + smooth, empty=1.0)


def _hardest(probability: Tensor, positive: Tensor, there: Tensor, ratio: float, level: str) -> Tensor:
    """Return which candidates count: the positives, and the most probable negatives, `ratio` times as many."""
    negative = by_level(there & ~positive, level)
    keep = (by_level(there & positive, level).sum(-1, keepdim=True) * ratio).floor()
    kept = negative & (list_ranks(by_level(probability.detach(), level), negative) < keep)
    if level == "set":
        kept = kept.reshape(there.shape)
    elif level == "label":
        kept = kept.reshape(there.shape[-1:] + there.shape[:-1]).movedim(0, -1)
    return kept | (there & positive)


def _each(terms: Tensor, lists: Checked, reduction: Reduction) -> Tensor:
    """Weight and reduce one term a candidate."""
    if lists.weight is not None:
        terms = terms * lists.weight
    return reduce_lists(terms.masked_fill(~lists.mask, 0.0).sum(-1), lists.mask.sum(-1), reduction)


def _sets(terms: Tensor, lists: Checked, level: str, reduction: Reduction) -> Tensor:
    """Reduce one term a set over the sets that have a candidate."""
    there = by_level(lists.mask, level).any(-1)
    return reduce_lists(terms.masked_fill(~there, 0.0), there, reduction)
