"""Plackett-Luce: drawing rankings, their probability, and losses whose scores change from place to place.

A ranking places one candidate after the other, each with the softmax probability of its score among those still left.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype, masked_log_softmax
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_like,
    check_mask,
    check_positive,
    check_reduction,
    check_scores,
    check_shape,
    reduce_lists,
)
from rivals.losses._gains import check_depth
from rivals.losses._order import placement_log_prob

__all__ = ["dynamic_plackett_luce_loss", "plackett_luce_log_prob", "plackett_luce_sample", "two_view_ranking_loss"]


def plackett_luce_sample(
    scores: Tensor,
    n: int,
    mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    generator: torch.Generator,
) -> Tensor:
    """Draw n rankings of every list: best first, absent candidates last.

    Sorting scores plus standard Gumbel noise gives exact draws. The noise is drawn in float64, so that half-precision
    scores do not tie.

    Args:
        scores: float[..., C]. n: rankings a list. mask: bool[..., C]. temperature: divides the scores.
        generator: the source of the noise.

    Returns:
        int64[..., n, C], the place of the candidate at each rank; no gradient.

    Source: Kool et al. (2019), Gumbel top-k; Gao et al. (2023), Neural PG-RANK. Papers 97, 63.

    Raises:
        RivalsError: scores that are not floating point, a mask that does not fit, n < 1, temperature <= 0.

    >>> plackett_luce_sample(torch.tensor([0.0, 90.0, 50.0]), 2, generator=torch.Generator().manual_seed(0)).tolist()
    [[1, 2, 0], [1, 2, 0]]
    """
    check_scores(scores, "scores")
    check_mask(mask, scores, "mask")
    check_positive(temperature, "temperature")
    if n < 1:
        raise RivalsError(f"n, the number of rankings, must be at least 1; got {n}")
    shape = (*scores.shape[:-1], n, scores.shape[-1])
    waits = torch.empty(shape, dtype=torch.float64, device=generator.device).exponential_(generator=generator)
    gumbel = -waits.clamp(min=torch.finfo(torch.float64).tiny).log().to(scores.device)
    keys = scores.detach().to(torch.float64).unsqueeze(-2) / temperature + gumbel
    if mask is not None:
        keys = keys.masked_fill(~mask.unsqueeze(-2), -torch.inf)
    return keys.argsort(dim=-1, descending=True, stable=True)


def plackett_luce_log_prob(
    scores: Tensor,
    rankings: Tensor,
    mask: Tensor | None = None,
    *,
    k: int | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Return the log-probability of the first k places of rankings.

    log P(r) = sum_{t<=k} s_{r_t} - log sum_{j not in r_1..r_{t-1}} e^{s_j}; candidates that are not placed stay in the
    denominators. k is cut at the number of candidates that are there.

    Args:
        scores: float[..., C]. rankings: whole numbers [..., N, K], best first, K <= C; what stands after the last
        candidate that is there is not read. mask: bool[..., C]. k: all K places if None. temperature: divides scores.

    Returns:
        float[..., N], with gradient to the scores.

    Source: Plackett (1975); Gao et al. (2023), Neural PG-RANK; Oosterhuis (2022), PL-Rank. Papers 97, 63.

    Raises:
        RivalsError: tensors that do not fit, a ranking with a repeated or an absent candidate, k < 1, temperature <= 0.

    >>> plackett_luce_log_prob(torch.zeros(3), torch.tensor([[2, 0, 1], [0, 1, 2]])).exp()
    tensor([0.1667, 0.1667])
    """
    check_positive(temperature, "temperature")
    check_depth(k, "k")
    return step_log_prob(scores, rankings, mask, temperature)[..., :k].sum(-1)


def step_log_prob(scores: Tensor, rankings: Tensor, mask: Tensor | None, temperature: float) -> Tensor:
    """Return the log-probability of every place of rankings [..., N, K], 0 after the last candidate that is there."""
    check_scores(scores, "scores")
    check_mask(mask, scores, "mask")
    check_order(rankings, scores, mask, "rankings")
    there = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    order = complete_order(rankings, there)
    lists = (scores.to(compute_dtype(scores)).masked_fill(~there, 0.0) / temperature).unsqueeze(-2).expand_as(order)
    present = there.unsqueeze(-2).expand_as(order).gather(-1, order)
    return placement_log_prob(lists.gather(-1, order), present)[..., : rankings.shape[-1]]


def complete_order(rankings: Tensor, mask: Tensor) -> Tensor:
    """Append to rankings [..., N, K] the candidates that they leave out, absent ones last: [..., N, C].

    >>> complete_order(torch.tensor([[2], [1]]), torch.tensor([False, True, True])).tolist()
    [[2, 1, 0], [1, 2, 0]]
    """
    length, width = rankings.shape[-1], mask.shape[-1]
    inside = _places(mask, length).unsqueeze(-2).expand_as(rankings)
    place = torch.arange(length, device=rankings.device).expand_as(rankings).where(inside, length)
    ranks = torch.full((*rankings.shape[:-1], width), length, device=rankings.device)
    ranks = ranks.scatter_reduce(-1, rankings.where(inside, 0), place, "amin")
    return ranks.masked_fill(~mask.unsqueeze(-2), length + 1).argsort(dim=-1, stable=True)


def check_order(order: Tensor, scores: Tensor, mask: Tensor | None, name: str) -> None:
    """Raise unless `order[..., N, K]` places candidates of `scores[..., C]` that are there, each once."""
    if not isinstance(order, Tensor) or order.dtype != torch.int64:
        kind = order.dtype if isinstance(order, Tensor) else type(order).__name__
        raise RivalsError(f"{name} must be an int64 tensor of places in the list; got {kind}")
    lead, width = scores.shape[:-1], scores.shape[-1]
    if order.shape[:-2] != lead or order.ndim != scores.ndim + 1 or order.shape[-1] > width:
        expected = ", ".join([*map(str, lead), "N", f"up to {width}"])
        raise RivalsError(f"{name} must have shape ({expected}); got {tuple(order.shape)}")
    if order.device != scores.device:
        raise RivalsError(f"{name} is on {order.device} but the scores are on {scores.device}; move one of them")
    if order.device.type != "cpu" or torch.compiler.is_compiling() or order.numel() == 0:
        return
    there = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    inside = _places(there, order.shape[-1]).unsqueeze(-2).expand_as(order)
    known = (order >= 0) & (order < width)
    if (inside & ~known).any():
        raise RivalsError(f"{name} must hold places from 0 to {width - 1}; found {order[inside & ~known][0].item()}")
    safe = order.clamp(0, width - 1)
    if (inside & ~there.unsqueeze(-2).expand(*order.shape[:-1], width).gather(-1, safe)).any():
        raise RivalsError(f"{name} places a candidate that the mask says is not there")
    times = torch.zeros((*order.shape[:-1], width), dtype=torch.int64).scatter_add_(-1, safe, inside.long())
    if (times > 1).any():
        raise RivalsError(f"{name} places a candidate twice")


def dynamic_plackett_luce_loss(
    step_scores: Tensor,
    order: Tensor,
    mask: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """ListMLE with scores of its own for every step: a decoder's logits as it names one candidate after the other.

    Formula:
        L_q = - sum_t log softmax_{j not in o_1..o_{t-1}}(s_t)_{o_t}; "mean" divides by all steps of the batch (the
        last, which has no choice, included), "list_mean" first inside every list.

    Shapes:
        step_scores float[..., T, C], order int64[..., T] (order[t] = the candidate at rank t; T <= C), mask bool[..., C]
        -> scalar, or float[...] with reduction="none". A list of n < T candidates has n steps.

    When to use:
        Training a decoder that writes a permutation; each step's scores may depend on what has been placed.

    Relations:
        Scores that are the same at every step: `list_mle_loss`, divided by the number of steps. One step: cross
        entropy. Two views of the same list: `two_view_ranking_loss`.

    Source:
        Liu et al. (2025), PE-Rank, eq. 5 and 6; pe_rank `ListMLELoss`. Paper 83. The reference masks with -1e9,
        which half precision does not hold; here what is placed leaves the softmax.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, an order with a repeated or an absent candidate, an
        unknown reduction.

    Example:
        O(T C) time and memory.

        >>> import torch
        >>> scores = torch.tensor([3.0, 1.0, 2.0]).expand(3, 3)
        >>> dynamic_plackett_luce_loss(scores, torch.tensor([0, 2, 1]))
        tensor(0.2403)
    """
    check_reduction(reduction)
    log_probability, _, steps = _steps(step_scores, order, mask, "step_scores")
    total = _placed(log_probability, order, steps)
    return reduce_lists(total, steps.sum(-1), reduction)


def two_view_ranking_loss(
    step_scores: Tensor,
    teacher_step_scores: Tensor,
    order: Tensor,
    mask: Tensor | None = None,
    *,
    kl_weight: float = 0.2,
    student_weight: float = 1.0,
    teacher_weight: float = 1.0,
    detach_teacher: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Both views of a list learn its order, and the poorer view follows the richer one's distributions.

    Formula:
        L = a L_student + b L_teacher + kl_weight KL, L_x = `dynamic_plackett_luce_loss` of a view (a, b its weight),
        KL_q = sum_t sum_j q_tj (log q_tj - log p_tj) over the candidates still left, p the student, q the teacher.
        "mean" divides the rankings' part by all steps of the batch and the KL by its lists.

    Shapes:
        step_scores, teacher_step_scores float[..., T, C], order int64[..., T], mask bool[..., C]
        -> scalar, or float[...] with reduction="none".

    When to use:
        A ranker that sees each passage as one vector, trained beside itself reading the text.

    Relations:
        Equal views: the KL is 0 and the loss (a + b) times `dynamic_plackett_luce_loss`. Scores of one step only:
        `listwise_kl_loss`.

    Source:
        Liu et al. (2025), PE-Rank, eq. 7 and 8; pe_rank `RankTrainer`. Paper 83. As in the code, the gradient reaches
        both sides of the KL unless `detach_teacher`, and the KL is a sum over the steps.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, an order with a repeated or an absent candidate, a
        negative weight, an unknown reduction.

    Example:
        O(T C) time and memory.

        >>> import torch
        >>> scores = torch.tensor([3.0, 1.0, 2.0]).expand(3, 3)
        >>> two_view_ranking_loss(scores, scores, torch.tensor([0, 2, 1]))
        tensor(0.4806)
    """
    check_reduction(reduction)
    for name, value in (
        ("kl_weight", kl_weight),
        ("student_weight", student_weight),
        ("teacher_weight", teacher_weight),
    ):
        check_at_least_zero(value, name)
    check_scores(teacher_step_scores, "teacher_step_scores")
    check_like(step_scores, teacher_step_scores, "step_scores")
    student, left, steps = _steps(step_scores, order, mask, "step_scores")
    teacher, _, _ = _steps(teacher_step_scores, order, mask, "teacher_step_scores")
    ranking = student_weight * _placed(student, order, steps) + teacher_weight * _placed(teacher, order, steps)
    leading = teacher.detach() if detach_teacher else teacher
    divergence = (leading.exp() * (leading - student)).masked_fill(~left, 0.0).sum((-2, -1))
    lists = steps.any(-1)
    return reduce_lists(ranking, steps.sum(-1), reduction) + kl_weight * reduce_lists(divergence, lists, reduction)


def _steps(step_scores: Tensor, order: Tensor, mask: Tensor | None, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probabilities [..., T, C] at every step, which candidates are left then, and which steps are there."""
    check_scores(step_scores, name)
    if step_scores.ndim < 2:
        raise RivalsError(f"{name} must have dimensions [..., steps, candidates]; got shape {tuple(step_scores.shape)}")
    check_shape(order, tuple(step_scores.shape[:-1]), "order", step_scores.device)
    one_step = step_scores[..., 0, :] if step_scores.shape[-2] else step_scores.sum(-2)
    check_mask(mask, one_step, "mask")
    check_order(order.unsqueeze(-2), one_step, mask, "order")
    there = torch.ones_like(one_step, dtype=torch.bool) if mask is None else mask
    steps = _places(there, order.shape[-1])
    placed = torch.zeros(step_scores.shape, dtype=torch.int64, device=order.device)
    placed.scatter_(-1, order.where(steps, 0).unsqueeze(-1), steps.long().unsqueeze(-1))
    left = there.unsqueeze(-2) & (placed.cumsum(-2) - placed == 0) & steps.unsqueeze(-1)
    return masked_log_softmax(step_scores.to(compute_dtype(step_scores)), left), left, steps


def _placed(log_probability: Tensor, order: Tensor, steps: Tensor) -> Tensor:
    """Return minus the log-probability of an order, [...]."""
    chosen = log_probability.gather(-1, order.where(steps, 0).unsqueeze(-1)).squeeze(-1)
    return -chosen.masked_fill(~steps, 0.0).sum(-1)


def _places(there: Tensor, length: int) -> Tensor:
    """Return which of the first `length` ranks [..., length] a list has a candidate for."""
    return torch.arange(length, device=there.device) < there.sum(-1, keepdim=True)
