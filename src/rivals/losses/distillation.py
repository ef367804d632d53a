"""Losses that follow a teacher's scores."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype, masked_log_softmax, masked_logsumexp
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_choice,
    check_finite,
    check_like,
    check_lists,
    check_mask,
    check_positive,
    check_scores,
    check_shape,
    check_targets,
    reduce_lists,
)
from rivals.losses._order import best_first, placement_log_prob
from rivals.losses._sets import check_unit_interval

__all__ = [
    "listwise_kl_loss",
    "multi_granular_distillation_loss",
    "partial_ranking_distillation_loss",
    "soft_label_alignment_loss",
]

Direction: TypeAlias = Literal["forward", "reverse", "symmetric"]
"""Whose candidates are averaged over: the teacher's, the student's, or half of each."""


def listwise_kl_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    target_temperature: float | None = None,
    direction: Direction = "forward",
    form: Literal["kl", "cross_entropy"] = "kl",
    eps: float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Divergence between the softmax of a teacher's scores and the softmax of the student's, list by list.

    Formula:
        p = softmax(s / temperature), q = softmax(t / target_temperature, by default temperature);
        "forward": L_q = sum_i q_i (log q_i - log(p_i + eps)); "reverse": p and q exchanged; "symmetric": the mean of
        the two. form="cross_entropy" leaves out the first term, the entropy. eps=None is 0. Mean over the lists that
        have a candidate. The teacher has no gradient.

    Shapes:
        scores float[..., C], targets [..., C] of any sign, mask bool[..., C]
        -> scalar, or float[...] with reduction="none".

    When to use:
        A teacher's scores mean something against each other, and their distances count as well as their order.

    Relations:
        Forward cross entropy: `softmax_loss` on the teacher's probabilities. Judge scores in [0, 1]:
        `soft_label_alignment_loss`. Only the teacher's order: `list_mle_loss`, `partial_ranking_distillation_loss`.
        Passages and their parts at once: `multi_granular_distillation_loss`.

    Source:
        Hinton et al. (2015); Reddy et al. (2024), AGRaME, the passage term; AR2's distillation term (cross entropy,
        eps 1e-7). Papers 31, 7, 11, 42, 77, 84, 103, 116.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite at a
        candidate that is there, a temperature <= 0, eps <= 0, an unknown name.

    Example:
        >>> import torch
        >>> listwise_kl_loss(torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 0.0]]))
        tensor(0.3278)
    """
    check_positive(temperature, "temperature")
    check_choice(direction, ("forward", "reverse", "symmetric"), "direction")
    check_choice(form, ("kl", "cross_entropy"), "form")
    if target_temperature is None:
        target_temperature = temperature
    check_positive(target_temperature, "target_temperature")
    if eps is not None:
        check_positive(eps, "eps")
    lists = check_targets(scores, targets, mask, None, reduction)
    student = masked_log_softmax(lists.scores / temperature, lists.mask)
    teacher = masked_log_softmax(lists.relevance.detach() / target_temperature, lists.mask)
    total = torch.zeros_like(student[..., :1]).sum(-1)
    if direction != "reverse":
        total = total + _divergence(teacher, student, lists.mask, form == "kl", eps)
    if direction != "forward":
        total = total + _divergence(student, teacher, lists.mask, form == "kl", eps)
    if direction == "symmetric":
        total = total / 2
    return reduce_lists(total, lists.mask.any(-1), reduction)


def soft_label_alignment_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float = 0.02,
    direction: Direction = "symmetric",
    eps: float | None = 1e-8,
    reduction: Reduction = "mean",
) -> Tensor:
    """Align a list's softmax with that of a judge's match scores, so that a near miss may stay near.

    Formula:
        p = softmax(s / temperature), q = softmax(y / temperature), y in [0, 1] the judge's scores;
        L_q = 1/2 [ sum_i q_i (log q_i - log(p_i + eps)) + sum_i p_i (log p_i - log(q_i + eps)) ]; "forward" and
        "reverse" keep one of the two sums, without the half. Mean over the lists that have a candidate.

    Shapes:
        scores float[..., C], relevance [..., C] in [0, 1], mask bool[..., C]
        -> scalar, or float[...] with reduction="none".

    When to use:
        Mined negatives with a judge's score each (a language model's yes against no). Cosines as scores.

    Relations:
        `listwise_kl_loss` with the defaults of the paper; eps=None is exact. eps bounds the loss at about
        -log(eps) and takes gradient from saturated tails.

    Source:
        Gu et al. (2025), UniME-V2, eq. 5 to 7; its `SoftLabelSoftKLContrastiveLoss`. Paper 7. The paper calls the
        symmetric divergence Jensen-Shannon; the code, followed here, is the mean of both Kullback-Leibler ones.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, relevance outside [0, 1] at a
        candidate that is there, temperature <= 0, eps <= 0, an unknown name.

    Example:
        >>> import torch
        >>> soft_label_alignment_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), temperature=1.0)
        tensor(0.4621)
    """
    check_positive(temperature, "temperature")
    lists = check_lists(scores, relevance, mask, None, reduction)
    check_unit_interval(lists.relevance, "relevance")
    return listwise_kl_loss(
        scores,
        lists.relevance,
        mask,
        temperature=temperature,
        direction=direction,
        eps=eps,
        reduction=reduction,
    )


def partial_ranking_distillation_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    valid: Tensor | None = None,
    valid_count: int | None = None,
    valid_threshold: float | None = None,
    temperature: float = 1.0,
    extra_negatives: Tensor | None = None,
    ties: Literal["scores", "skip"] = "scores",
    normalize: Literal["anchors", "terms"] = "anchors",
    reduction: Reduction = "mean",
) -> Tensor:
    """Follow a teacher's order of the hard negatives as far as it can be trusted (contrastive partial ranking, CPRD).

    Formula:
        c the candidates by the teacher's score, highest first; L_q = - sum_{j<J} log( e^{s_c_j / T} /
        sum_{k>=j} e^{s_c_k / T} ), J the number of valid candidates, those after it only standing in the denominators
        (with `extra_negatives` too). Valid: `valid`, or the first `valid_count` (half of the list if nothing is given)
        whose teacher score is not below `valid_threshold`. "mean" divides by the lists that have a candidate, with
        normalize="terms" by the valid candidates. ties="skip" leaves out a term whose candidate equals the next one.

    Shapes:
        scores float[..., C], targets [..., C] of any sign (the teacher's scores), mask, valid bool[..., C],
        extra_negatives float[..., N] (scores) -> scalar, or float[...] with reduction="none".

    When to use:
        A cross-encoder teaches a dual encoder: its values do not fit cosines, its order of easy negatives is noise.
        The positive is not in the list; the lists are the student's own nearest candidates.

    Relations:
        All valid: `list_mle_loss` on the teacher's order. One valid: `softmax_loss` with the teacher's best as label.

    Source:
        Chen et al. (2024), CPRD, the partial ranking objective; Xia et al. (2008), ListMLE. Paper 42. What makes a
        candidate invalid, its number and the normalisation could not be verified and are options.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite at a
        candidate that is there, valid candidates that are not the head of the teacher's order, valid_count < 0,
        temperature <= 0, an unknown name.

    Example:
        O(C log C) time, O(C) memory.

        >>> import torch
        >>> scores, teacher = torch.tensor([[3.0, 1.0, 2.0, 0.0]]), torch.tensor([[4.0, 2.0, 3.0, 1.0]])
        >>> partial_ranking_distillation_loss(scores, teacher, valid_count=2)
        tensor(0.8478)
    """
    check_positive(temperature, "temperature")
    check_choice(ties, ("scores", "skip"), "ties")
    check_choice(normalize, ("anchors", "terms"), "normalize")
    if valid_count is not None and valid_count < 0:
        raise RivalsError(f"valid_count must be at least 0; got {valid_count}")
    lists = check_targets(scores, targets, mask, None, reduction)
    teacher = lists.relevance.detach()
    check_mask(valid, scores, "valid")
    first = () if valid is None else (valid.byte(),)  # among equal teacher scores
    order = best_first(teacher, lists.mask, *first, lists.scores)
    there, teacher = lists.mask.gather(-1, order), teacher.gather(-1, order)
    head = there
    if valid is not None:
        head = head & valid.gather(-1, order)
        _check_prefix(head)
    if valid_threshold is not None:
        head = head & (teacher >= valid_threshold)
    place = torch.arange(scores.shape[-1], device=scores.device)
    if valid_count is not None:
        head = head & (place < valid_count)
    elif valid is None and valid_threshold is None:
        head = head & (place < there.sum(-1, keepdim=True) // 2)
    if ties == "skip":
        same = torch.zeros_like(head)
        same[..., :-1] = there[..., 1:] & (teacher[..., 1:] == teacher[..., :-1])
        head = head & ~same
    others = _log_sum(extra_negatives, lists.scores, temperature)
    terms = placement_log_prob((lists.scores / temperature).gather(-1, order), there, others)
    total = -terms.masked_fill(~head, 0.0).sum(-1)
    return reduce_lists(total, lists.mask.any(-1) if normalize == "anchors" else head.sum(-1), reduction)


def multi_granular_distillation_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    unit_scores: Tensor,
    unit_targets: Tensor,
    unit_mask: Tensor | None = None,
    unit_weight: float = 1.0,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Distil a teacher's scores of passages and, inside each passage, of its sentences (AGRaME).

    Formula:
        L_q = KL(softmax t || softmax s) + unit_weight * sum_p w_p KL(softmax_u t'_p || softmax_u s'_p),
        w = softmax t over the passages, without gradient; all softmaxes at `temperature`; mean over the lists that
        have a passage.

    Shapes:
        scores float[..., C], targets [..., C], mask bool[..., C]; unit_scores float[..., C, U], unit_targets
        [..., C, U], unit_mask bool[..., C, U] -> scalar, or float[...] with reduction="none".

    When to use:
        Late-interaction models that must rank sentences or propositions from one index of passages.

    Relations:
        `listwise_kl_loss` on two axes. A passage with fewer than two units adds nothing.

    Source:
        Reddy et al. (2024), AGRaME, section 3. Paper 31.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite where
        something is there, unit_weight < 0, temperature <= 0, an unknown reduction.

    Example:
        O(C U) a list.

        >>> import torch
        >>> multi_granular_distillation_loss(
        ...     torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 0.0]]),
        ...     unit_scores=torch.tensor([[[0.0, 0.0], [0.0, 1.0]]]), unit_targets=torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
        tensor(0.4399)
    """
    check_at_least_zero(unit_weight, "unit_weight")
    check_scores(scores, "scores")
    check_scores(unit_scores, "unit_scores")
    check_shape(unit_scores, (*scores.shape, unit_scores.shape[-1]), "unit_scores", scores.device)
    check_like(unit_targets, unit_scores, "unit_targets")
    check_mask(unit_mask, unit_scores, "unit_mask")
    passages = listwise_kl_loss(scores, targets, mask, temperature=temperature, reduction="none")
    lists = check_targets(scores, targets, mask, None, reduction)
    there = lists.mask.unsqueeze(-1) if unit_mask is None else unit_mask & lists.mask.unsqueeze(-1)
    there = there.expand_as(unit_scores)
    unit_targets = unit_targets.to(compute_dtype(unit_scores)).masked_fill(~there, 0.0)
    check_finite(unit_targets, "unit_targets")
    units = listwise_kl_loss(unit_scores, unit_targets, there, temperature=temperature, reduction="none")
    teacher = masked_log_softmax(lists.relevance.detach() / temperature, lists.mask).exp().masked_fill(~lists.mask, 0.0)
    total = passages + unit_weight * (teacher * units).sum(-1)
    return reduce_lists(total, lists.mask.any(-1), reduction)


def _divergence(leading: Tensor, following: Tensor, mask: Tensor, entropy: bool, eps: float | None) -> Tensor:
    """Return sum_i a_i (log a_i - log(b_i + eps)) from log a and log b, without the first term if not `entropy`."""
    if eps is not None:
        following = torch.logaddexp(following, torch.full_like(following, math.log(eps)))
    inner = leading - following if entropy else -following
    return (leading.exp() * inner).masked_fill(~mask, 0.0).sum(-1)


def _log_sum(extra_negatives: Tensor | None, scores: Tensor, temperature: float) -> Tensor | None:
    """Return the log-sum-exp [..., 1] of scores outside the list."""
    if extra_negatives is None:
        return None
    check_scores(extra_negatives, "extra_negatives")
    check_shape(extra_negatives, (*scores.shape[:-1], extra_negatives.shape[-1]), "extra_negatives", scores.device)
    if extra_negatives.shape[-1] == 0:
        return None
    return masked_logsumexp(extra_negatives.to(scores.dtype) / temperature, None).unsqueeze(-1)


def _check_prefix(head: Tensor) -> None:
    """Raise unless the valid candidates are the head of the teacher's order. Only on the CPU."""
    if head.device.type != "cpu" or torch.compiler.is_compiling():
        return
    if (head[..., 1:] & ~head[..., :-1]).any():
        raise RivalsError("valid marks a candidate that the teacher ranks below one that is not valid")
