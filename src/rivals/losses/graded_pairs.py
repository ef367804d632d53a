"""Losses on the order of graded candidates: margins by grade gap, one softmax per good candidate, CoSENT and AnglE."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import masked_logsumexp
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_choice,
    check_lists,
    check_positive,
    check_scores,
    check_shape,
    reduce_lists,
)
from rivals.losses._in_batch import unit_rows

__all__ = [
    "angle_loss",
    "angle_similarity",
    "balanced_rerank_loss",
    "cosent_loss",
    "graded_margin_loss",
    "multi_positive_softmax_loss",
    "ordinal_ranking_loss",
]


def graded_margin_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    margin: float = 0.01,
    average: Literal["gap", "pairs"] = "gap",
    presorted: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Hinge on every pair of graded candidates, with a margin that grows with the difference of their grades.

    Formula:
        Candidates in falling order of relevance (then score). l_ij = w_i w_j max(0, s_j - s_i + m (y_i - y_j)) for i
        before j with y_i > y_j.

        - average="gap": pairs of equal distance j - i = g are averaged (over the batch), then g = 1, 2, ... are summed,
          so that a few wide gaps count as much as many narrow ones.
        - average="pairs": all pairs are averaged.

        "none" gives each list's own value, "sum" their sum and "list_mean" their mean. `presorted` takes the order of
        the candidates as it comes, whatever their relevance, and every pair of it.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none". Needs memory for [..., C, C].

    When to use:
        Candidates that carry a measured quality, such as summaries with their ROUGE; few candidates a list.

    Relations:
        margin=0, average="pairs": `pairwise_hinge_loss` with margin 0. The candidate loss of SimCLS and BRIO.

    Source:
        Sul and Choi (2023), BalSum, eq. 6 and 7. Paper 36. The released code takes candidates that are sorted already
        (presorted=True) and 1 - relevance as cost; its margins are 1 and 0.1.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, a negative margin, an unknown average or reduction.

    Example:
        >>> import torch
        >>> graded_margin_loss(torch.tensor([[0.0, 0.5]]), torch.tensor([[1.0, 0.0]]), margin=0.1)
        tensor(0.6000)
    """
    check_at_least_zero(margin, "margin")
    check_choice(average, ("gap", "pairs"), "average")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    order = _falling(lists.scores, lists.relevance, lists.mask, presorted)
    score, grade, there = (part.gather(-1, order) for part in (lists.scores, lists.relevance, lists.mask))
    first, second = (..., slice(None), None), (..., None, slice(None))
    cost = (score[second] - score[first] + margin * (grade[first] - grade[second])).relu()
    size = score.shape[-1]
    place = torch.arange(size, device=score.device)
    pairs = there[first] & there[second] & (place[:, None] < place[None, :])
    if not presorted:
        pairs = pairs & (grade[first] > grade[second])
    if lists.weight is not None:
        ordered = lists.weight.gather(-1, order)
        cost = cost * ordered[first] * ordered[second]
    cost = cost.masked_fill(~pairs, 0.0)
    if average == "pairs":
        total, count = cost.sum((-2, -1)), pairs.sum((-2, -1))
        if reduction == "mean":
            return reduce_lists(total, count, "mean")
        return reduce_lists(total / count.clamp(min=1), (count > 0).long(), reduction)
    gap = (place[None, :] - place[:, None]).clamp(min=0).expand(cost.shape).flatten(-2)
    sums = cost.new_zeros((*score.shape[:-1], size)).scatter_add(-1, gap, cost.flatten(-2))
    counts = sums.detach().new_zeros(sums.shape).scatter_add(-1, gap, pairs.to(sums.dtype).flatten(-2))
    if reduction == "mean":
        lists_of = tuple(range(sums.ndim))
        return (sums[None].sum(lists_of) / counts[None].sum(lists_of).clamp(min=1)).sum()
    return reduce_lists((sums / counts.clamp(min=1)).sum(-1), (counts.sum(-1) > 0).long(), reduction)


def _falling(scores: Tensor, relevance: Tensor, mask: Tensor, presorted: bool) -> Tensor:
    """Return the order by falling relevance, then score, absent candidates last."""
    if presorted:
        return (~mask).to(torch.uint8).sort(dim=-1, stable=True).indices
    by_score = scores.detach().argsort(dim=-1, descending=True, stable=True)
    key = relevance.masked_fill(~mask, -1.0).gather(-1, by_score)
    return by_score.gather(-1, key.argsort(dim=-1, descending=True, stable=True))


def multi_positive_softmax_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.1,
    weighting: Literal["logit", "term"] = "logit",
    reduction: Reduction = "mean",
) -> Tensor:
    """One smoothed cross entropy per positive, against the list's negatives alone.

    Formula:
        For a positive p and the N negatives of its list, with pi the softmax over [s_p, s_1, ..., s_N]:
        L_p = -(1 - e) log pi_p - (e / N) sum_n log pi_n, averaged over the positives of the batch; e =
        `label_smoothing` (0 where there is no negative). weighting="logit": the positive's logit is w_p s_p;
        weighting="term": its term is w_p L_p.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0 (of positives; that
        of negatives is not used) -> scalar, or float[...] with reduction="none". Needs memory for [..., C, C].

    When to use:
        Several good candidates of one input against candidates of other inputs, some of the good ones doubtful.

    Relations:
        label_smoothing=0, no weight: `info_nce_loss` at temperature 1 summed over positives instead of averaged.

    Source:
        Sul and Choi (2023), BalSum, eq. 8 and 9. Paper 36. The released code multiplies the logit by the 0/1 weight, so
        that a false positive still pushes the negatives down; that is the default here.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, label_smoothing outside 0..1, an unknown weighting or reduction.

    Example:
        >>> import torch
        >>> multi_positive_softmax_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]), label_smoothing=0.0)
        tensor(0.3133)
    """
    if not 0 <= label_smoothing < 1:
        raise RivalsError(f"label_smoothing must be at least 0 and below 1; got {label_smoothing!r}")
    check_choice(weighting, ("logit", "term"), "weighting")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positive = lists.mask & (lists.relevance > 0)
    negative = lists.mask & ~positive
    own = lists.scores
    if lists.weight is not None and weighting == "logit":
        own = own * lists.weight
    some = negative.any(-1, keepdim=True)
    against = masked_logsumexp(lists.scores, negative).unsqueeze(-1)
    against = torch.where(some, against, own.detach())  # no negative: the term below is masked away
    everything = torch.logaddexp(own, against)
    mean_negative = lists.scores.masked_fill(~negative, 0.0).sum(-1, keepdim=True) / negative.sum(
        -1, keepdim=True
    ).clamp(min=1)
    terms = everything - (1 - label_smoothing) * own - label_smoothing * mean_negative
    terms = terms.masked_fill(~(positive & some), 0.0)
    if lists.weight is not None and weighting == "term":
        terms = terms * lists.weight
    return reduce_lists(terms.sum(-1), positive.sum(-1), reduction)


def balanced_rerank_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    rank_weight: float = 10.0,
    contrast_weight: float = 0.1,
    margin: float = 1.0,
    label_smoothing: float = 0.1,
    weighting: Literal["logit", "term"] = "logit",
    reduction: Reduction = "mean",
) -> Tensor:
    """BalSum: rank an input's own candidates by their lexical quality, and push other inputs' candidates below them.

    Formula:
        L = a `graded_margin_loss` (own candidates alone) + b `multi_positive_softmax_loss` (every own candidate against
        the others, weighted by w); a = `rank_weight`, b = `contrast_weight`.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (> 0: an own candidate's quality, such as mean ROUGE; 0: a
        candidate of another input), mask bool[..., C], weight float[..., C] >= 0 (1 where an own candidate also means
        what the reference means, 0 where only its words agree; those of others are not used)
        -> scalar, or float[...] with reduction="none". Needs memory for [..., C, C].

    When to use:
        Choosing among generated candidates whose lexical quality is known in training and may deceive.

    Relations:
        contrast_weight=0: `graded_margin_loss`; rank_weight=0: `multi_positive_softmax_loss`.

    Source:
        Sul and Choi (2023), BalSum, eq. 10. Paper 36. Margins 1 and 0.1; w = 1[cosine to the reference >= 0.9 or 0.85].

    Raises:
        RivalsError: as the two losses; a negative rank_weight or contrast_weight.

    Example:
        >>> import torch
        >>> balanced_rerank_loss(torch.tensor([[0.0, 0.5, 0.5]]), torch.tensor([[0.6, 0.5, 0.0]]))
        tensor(6.0809)
    """
    check_at_least_zero(rank_weight, "rank_weight")
    check_at_least_zero(contrast_weight, "contrast_weight")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    own = lists.mask & (lists.relevance > 0)
    ranked = graded_margin_loss(lists.scores, lists.relevance, own, margin=margin, reduction=reduction)
    contrast = multi_positive_softmax_loss(
        lists.scores,
        lists.relevance,
        lists.mask,
        weight=lists.weight,
        label_smoothing=label_smoothing,
        weighting=weighting,
        reduction=reduction,
    )
    return rank_weight * ranked + contrast_weight * contrast


def ordinal_ranking_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    scale: float = 20.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """CoSENT's core: the log of one plus the sum over all wrongly, or barely rightly, ordered pairs.

    Formula:
        L = log(1 + sum_{i,j: y_i > y_j} w_i w_j exp(c (s_j - s_i))), c = `scale`; averaged over the lists with a pair.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Grades of which only the order means something. A batch of sentence pairs with similarity labels is one list.

    Relations:
        Two candidates: `pairwise_logistic_loss` of scaled scores. The sum stands inside the logarithm, so the worst pair
        rules, where `pairwise_logistic_loss` averages. `cosent_loss` and `angle_loss` make the scores too.

    Source:
        Su (2022), CoSENT; Sachin and Schlechtweg (2025), XL-DURel, section 4; Li et al. (2024), Conan-embedding, eq. 4
        (temperature 1 / scale). Papers 43 and 119.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, scale <= 0, an unknown reduction.

    Example:
        O(C log C) a list: cumulative sums over the candidates sorted by relevance.

        >>> import torch
        >>> ordinal_ranking_loss(torch.tensor([0.2, 0.9]), torch.tensor([2.0, 1.0]))
        tensor(14.0000)
    """
    check_positive(scale, "scale")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    there = lists.mask if lists.weight is None else lists.mask & (lists.weight > 0)
    logits = scale * lists.scores
    if logits.shape[-1] == 0:
        return reduce_lists(logits.sum(-1), logits.sum(-1).long(), reduction)
    log_weight = torch.zeros_like(logits) if lists.weight is None else lists.weight.masked_fill(~there, 1.0).log()
    key, order = lists.relevance.masked_fill(~there, torch.inf).sort(dim=-1, stable=True)
    present = there.gather(-1, order)
    rising, share = logits.gather(-1, order), log_weight.gather(-1, order)
    below = torch.searchsorted(key, key)  # how many candidates have a lower grade
    summed = torch.logcumsumexp((rising + share).masked_fill(~present, 0.0), -1)
    lower = summed.gather(-1, (below - 1).clamp(min=0))
    counted = present & (below > 0)
    terms = (lower - rising + share).masked_fill(~counted, 0.0)
    some = counted.any(-1)
    total = masked_logsumexp(terms, counted).masked_fill(~some, 0.0)
    return reduce_lists((-F.logsigmoid(-total)).masked_fill(~some, 0.0), some.long(), reduction)


def cosent_loss(
    left: Tensor, right: Tensor, labels: Tensor, mask: Tensor | None = None, *, scale: float = 20.0
) -> Tensor:
    """`ordinal_ranking_loss` on the cosines of sentence pairs, the batch being one list.

    Formula:
        s_i = cos(left_i, right_i), then L = log(1 + sum_{i,j: y_i > y_j} exp(scale (s_j - s_i))).

    Shapes:
        left, right float[B, D], labels [B] >= 0, mask bool[B] -> scalar.

    When to use:
        Sentence pairs with similarity grades, the larger the batch the better.

    Relations:
        `angle_loss` with another similarity; `ordinal_ranking_loss` on given scores. The loss of that name in
        sentence-transformers.

    Source:
        Su (2022), CoSENT; Li et al. (2024), Conan-embedding; Sachin and Schlechtweg (2025). Papers 43, 119.

    Raises:
        RivalsError: shapes that do not fit, negative or NaN labels, scale <= 0.

    Example:
        >>> import torch
        >>> a, b = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> cosent_loss(a, b, torch.tensor([0.0, 1.0]), scale=1.0)
        tensor(1.3133)
    """
    left, right = _check_pairs(left, right, labels)
    scores = (unit_rows(left) * unit_rows(right)).sum(-1)
    return ordinal_ranking_loss(scores, labels, mask, scale=scale)


def angle_loss(
    left: Tensor, right: Tensor, labels: Tensor, mask: Tensor | None = None, *, scale: float = 20.0
) -> Tensor:
    """`ordinal_ranking_loss` on the angle similarity of sentence pairs in complex space, the batch being one list.

    Formula:
        s_i = `angle_similarity`(left_i, right_i), then L = log(1 + sum_{i,j: y_i > y_j} exp(scale (s_j - s_i))).

    Shapes:
        left, right float[B, D], labels [B] >= 0, mask bool[B] -> scalar.

    When to use:
        As `cosent_loss`, where cosines saturate. For training alone: rank by the cosine afterwards.

    Relations:
        `cosent_loss` with another similarity. AnglELoss of sentence-transformers, which leaves the cosine and in-batch
        terms of the AnglE code out.

    Source:
        Li and Li (2023), AnglE, eq. 5 to 7; Sachin and Schlechtweg (2025), XL-DURel, section 4. Paper 119.

    Raises:
        RivalsError: shapes that do not fit, negative or NaN labels, scale <= 0.

    Example:
        >>> import torch
        >>> a, b = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        >>> angle_loss(a, b, torch.tensor([1.0, 0.0]), scale=1.0)
        tensor(0.9130)
    """
    left, right = _check_pairs(left, right, labels)
    return ordinal_ranking_loss(angle_similarity(left, right), labels, mask, scale=scale)


def angle_similarity(left: Tensor, right: Tensor) -> Tensor:
    """Return |Re + Im| of the quotient of unit vectors [..., D] read as D / 2 complex numbers, float[...], 0 to sqrt 2.

    The first half of the dimensions is real, the second imaginary (odd D: a zero is appended). It is neither symmetric
    nor an angle, and a vector and its opposite have similarity 1.

    Source: Li and Li (2023), AnglE, eq. 5 (paper 119).

    >>> angle_similarity(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0]))
    tensor(1.4142)
    """
    left, right = unit_rows(left), unit_rows(right)
    if left.shape[-1] % 2:
        left, right = F.pad(left, (0, 1)), F.pad(right, (0, 1))
    (a, b), (c, d) = left.chunk(2, -1), right.chunk(2, -1)
    return ((a * c + b * d).sum(-1) + (b * c - a * d).sum(-1)).abs()


def _check_pairs(left: Tensor, right: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    check_scores(left, "left", ndim=2)
    check_scores(right, "right", ndim=2)
    check_shape(right, tuple(left.shape), "right", left.device)
    check_shape(labels, (len(left),), "labels", left.device)
    wide = torch.promote_types(left.dtype, torch.float32)
    return left.to(wide), right.to(wide)
