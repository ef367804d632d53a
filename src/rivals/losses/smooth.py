"""Smooth stand-ins for ranks and for rank measures."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import (
    Checked,
    Reduction,
    check_at_least_zero,
    check_choice,
    check_lists,
    check_positive,
    check_scores,
    check_shape,
    reduce_lists,
)
from rivals.losses._fused.neural_dcg import soft_dcg
from rivals.losses._fused.soft_ranks import SoftRanks
from rivals.losses._gains import Gain, check_depth, graded_gains, ideal_dcg, rank_discounts

__all__ = ["approx_ndcg_loss", "neural_ndcg", "neural_ndcg_loss", "soft_ranks"]

_HIGHEST_GRADE = 60.0
_EPSILON = 1e-10


def approx_ndcg_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    temperature: float = 1.0,
    gain: Gain = "exponential",
    reduction: Reduction = "mean",
) -> Tensor:
    """Minus nDCG with smooth ranks: how far down each candidate stands, counted by sigmoids (ApproxNDCG).

    Formula:
        L_q = - sum_i w_i g(y_i) / log2(1 + r_i) / ideal DCG,  r_i = 1 + sum_{j != i} sigmoid((s_j - s_i) / temperature);
        mean over the lists with a positive.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0 (times the gain)
        -> scalar, or float[...] with reduction="none".

    When to use:
        Training on nDCG over whole lists, cheaper and smoother than `neural_ndcg_loss`. A lower temperature is nearer
        to nDCG and has smaller gradients.

    Relations:
        Tends to minus nDCG as the temperature falls. `neural_ndcg_loss` relaxes the sort instead of the ranks.

    Source:
        Qin et al. (2010), ApproxNDCG, eq. 19 to 21; allRank `approxNDCGLoss`, whose alpha is 1 / temperature. Paper 21.
        allRank counts lists without a positive as 0; here, as in `neural_ndcg_loss`, they are left out.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, temperature <= 0, an unknown gain, relevance above 60 with the
        exponential one, an unknown reduction.

    Example:
        O(C^2) time, O(C) memory for the gradient.

        >>> import torch
        >>> approx_ndcg_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(-0.9229)
    """
    lists = check_lists(scores, relevance, mask, weight, reduction)
    worth = _gains(lists, gain)
    ranks = soft_ranks(lists.scores, lists.mask, temperature=temperature).masked_fill(~lists.mask, 1.0)
    total = -(worth / torch.log2(1.0 + ranks)).sum(-1) / ideal_dcg(worth, lists.mask).squeeze(-1)
    return reduce_lists(total, (worth > 0).any(-1), reduction)


def soft_ranks(scores: Tensor, mask: Tensor | None = None, *, temperature: float = 1.0) -> Tensor:
    """Return smooth ranks from 1: one more than the candidates ahead, each counted by a sigmoid of the difference.

    r_i = 1 + sum_{j != i} sigmoid((s_j - s_i) / temperature); 0 where there is no candidate.

    Args:
        scores: float[..., C]. mask: bool[..., C]. temperature: above 0; the ranks tend to whole numbers as it falls.

    Returns:
        float[..., C], with gradient; the comparisons are not kept for it.

    Source: Qin et al. (2010), eq. 11. Paper 21.

    Raises:
        RivalsError: scores that are not floating point, a mask that does not fit, temperature <= 0.

    >>> soft_ranks(torch.tensor([9.0, 0.0, 9.0]))
    tensor([1.5001, 2.9998, 1.5001])
    """
    check_positive(temperature, "temperature")
    lists = check_lists(scores, torch.zeros_like(scores), mask, None, "none")
    found: Tensor = SoftRanks.apply(_flat(lists.scores), _flat(lists.mask), temperature)
    return found.reshape(scores.shape)


def neural_ndcg_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    temperature: float = 1.0,
    k: int | None = None,
    gain: Gain = "exponential",
    transposed: bool = False,
    noise: Literal["gumbel"] | None = None,
    n_samples: int = 32,
    beta: float = 0.1,
    log_scores: bool = True,
    gumbel: Tensor | None = None,
    generator: torch.Generator | None = None,
    max_iter: int = 50,
    tol: float = 1e-6,
    reduction: Reduction = "mean",
) -> Tensor:
    """Minus nDCG@k of a softly sorted list: NeuralSort's matrix, made doubly stochastic, sorts the gains (NeuralNDCG).

    Formula:
        P = sinkhorn(neural_sort(s / temperature)); L_q = - sum_r d_r sum_j P_rj w_j g(y_j) / (ideal DCG@k + 1e-10),
        d_r = 1 / log2(1 + r) up to rank k; mean over the lists with a positive. `transposed` sums over the ranks first
        (expected discounts), which is the same number. noise="gumbel": the mean over `n_samples` copies of the list
        with scores log(s + |min s| + 1e-10) + beta G (without the logarithm if not `log_scores`).

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0 (times the gain),
        gumbel float[S, ..., C] to fix the noise -> scalar, or float[...] with reduction="none".

    When to use:
        Training on nDCG itself with scores of bounded size, e.g. after tanh; otherwise tune the temperature.

    Relations:
        Tends to minus nDCG@k as the temperature falls. The parts: `neural_sort`, `sinkhorn`. `approx_ndcg_loss` is
        cheaper. `neural_ndcg` is the same as a measure.

    Source:
        Pobrotyn and Bialobrzeski (2021), NeuralNDCG, eq. 7 to 9; allRank `neuralNDCG` and `neuralNDCG_transposed`.
        Paper 8. Three things of the reference are not followed: its masks of several samples, its exponential ideal
        under a linear gain when transposed, and a minimum over the batch (here over the list).

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, temperature <= 0, k < 1, beta < 0, n_samples < 1, max_iter < 0, tol < 0,
        noise without gumbel or generator, relevance above 60 with the exponential gain, an unknown name.

    Example:
        O(rounds C^2) time; O(C^2) memory, none of it kept for the gradient. Rounds of Sinkhorn end when all lists of
        the call are within `tol`.

        >>> import torch
        >>> neural_ndcg_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(-0.8155)
    """
    check_positive(temperature, "temperature")
    check_at_least_zero(beta, "beta")
    check_at_least_zero(tol, "tol")
    check_depth(k, "k")
    check_choice(noise, ("gumbel", None), "noise")
    if n_samples < 1 or max_iter < 0:
        raise RivalsError(f"n_samples must be at least 1 and max_iter at least 0; got {n_samples} and {max_iter}")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    worth = _gains(lists, gain)
    width = scores.shape[-1]
    copies = lists.scores.unsqueeze(0)
    if noise == "gumbel" or gumbel is not None:
        copies = _perturbed(lists, _noise(lists.scores, gumbel, n_samples, generator), beta, log_scores)
    shape = copies.shape
    dcg = soft_dcg(
        _flat(copies),
        _flat(lists.mask.expand(shape)),
        _flat(worth.expand(shape)),
        rank_discounts(torch.arange(width, device=scores.device), worth.dtype, top=k),
        temperature=temperature,
        max_iter=max_iter,
        tol=tol,
        transposed=transposed,
    ).reshape(shape[:-1])
    valid = (worth > 0).any(-1)
    total = -dcg.mean(0) / (ideal_dcg(worth, lists.mask, top=k).squeeze(-1) + _EPSILON)
    return reduce_lists(total.masked_fill(~valid, 0.0), valid, reduction)


def neural_ndcg(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    k: int | None = None,
    gain: Gain = "exponential",
    transposed: bool = False,
    max_iter: int = 50,
    tol: float = 1e-6,
) -> Tensor:
    """Return the soft nDCG@k of every list: minus `neural_ndcg_loss` with reduction="none"; 0 without a positive.

    Args:
        scores: float[..., C]. relevance: [..., C] >= 0. mask: bool[..., C]. The rest as in `neural_ndcg_loss`.

    Returns:
        float[...].

    Source: Pobrotyn and Bialobrzeski (2021), NeuralNDCG. Paper 8.

    Raises:
        RivalsError: as `neural_ndcg_loss`.

    >>> neural_ndcg(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.8155])
    """
    return -neural_ndcg_loss(
        scores,
        relevance,
        mask,
        temperature=temperature,
        k=k,
        gain=gain,
        transposed=transposed,
        max_iter=max_iter,
        tol=tol,
        reduction="none",
    )


def _gains(lists: Checked, gain: Gain) -> Tensor:
    check_choice(gain, get_args(Gain), "gain")
    grades = lists.relevance
    if gain == "exponential" and grades.device.type == "cpu" and not torch.compiler.is_compiling():
        highest = float(grades.max()) if grades.numel() else 0.0
        if highest > _HIGHEST_GRADE:
            raise RivalsError(
                f"relevance {highest:g} is too much for the exponential gain, which takes up to {_HIGHEST_GRADE:g}; "
                "scale it or use gain='linear'"
            )
    worth = graded_gains(grades, gain)
    return worth if lists.weight is None else worth * lists.weight


def _flat(lists: Tensor) -> Tensor:
    """Return lists [..., C] as [B, C]."""
    return lists.reshape(math.prod(lists.shape[:-1]), lists.shape[-1])


def _noise(scores: Tensor, gumbel: Tensor | None, n_samples: int, generator: torch.Generator | None) -> Tensor:
    """Return standard Gumbel noise [S, ..., C]."""
    if gumbel is not None:
        check_scores(gumbel, "gumbel")
        check_shape(gumbel, (*gumbel.shape[:1], *scores.shape), "gumbel", scores.device)
        if len(gumbel) == 0:
            raise RivalsError("gumbel holds no sample; its first dimension must be at least 1")
        return gumbel.to(scores.dtype)
    if generator is None:
        raise RivalsError('noise="gumbel" draws noise; give it generator=torch.Generator() or gumbel')
    waits = torch.empty((n_samples, *scores.shape), dtype=torch.float64, device=generator.device)
    waits = waits.exponential_(generator=generator).clamp(min=torch.finfo(torch.float64).tiny)
    return -waits.log().to(scores.device, scores.dtype)


def _perturbed(lists: Checked, noise: Tensor, beta: float, log_scores: bool) -> Tensor:
    """Return noisy copies [S, ..., C] of the scores, lifted by the size of the list's lowest score.

    A negative lowest score is lifted to 0 exactly, whatever it is, so no gradient passes through it; the logarithm
    would multiply one that cancels by 1e10.
    """
    scores = lists.scores
    if scores.shape[-1] == 0:
        return scores.expand_as(noise)
    lowest = scores.masked_fill(~lists.mask, math.inf).amin(-1, keepdim=True)
    lowest = lowest.masked_fill(~lists.mask.any(-1, keepdim=True), 0.0)
    lifted = (scores + lowest.abs()).masked_fill((scores == lowest) & (lowest < 0), 0.0).masked_fill(~lists.mask, 1.0)
    if log_scores:
        lifted = (lifted + _EPSILON).log()
    return lifted + beta * noise.masked_fill(~lists.mask, 0.0)
