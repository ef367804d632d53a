"""Losses that read a list through its target, its sum and its sum of squares only: the spherical family."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype, masked_logsumexp
from rivals.losses._common import (
    Reduction,
    check_choice,
    check_lists,
    check_positive,
    check_reduction,
    check_scores,
    check_shape,
    reduce_lists,
)
from rivals.losses._positives import mean_over_positives, positives_of

__all__ = ["logsumexp_penalty", "spherical_loss", "taylor_softmax_loss", "z_loss"]

SphericalKind = Literal["z", "squared", "taylor"]


def z_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    sharpness: float = 1.0,
    location: float = 0.0,
    eps: float = 1e-12,
    reduction: Reduction = "mean",
) -> Tensor:
    """Z-loss: a softplus of how many standard deviations a positive's score lies above its list's mean.

    Formula:
        L_q = mean over the positives p of (1/a) log(1 + exp(a (b - z_p))),  z_p = (s_p - mu) / (sigma + eps), with mu
        and sigma the mean and the standard deviation of all scores of the list, a = `sharpness`, b = `location`. Where
        sigma^2 <= eps, z is 0 and has no gradient. Mean over the lists with a positive; a list with one candidate is
        left out.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (above 0: positive), mask bool[..., C], weight float[..., C] >= 0
        (a positive's share, a negative's multiplicity; 0 removes it)
        -> scalar, or float[...] with reduction="none". Class labels: relevance = one_hot(labels, C).

    When to use:
        Very many candidates and a measure of rank near the top, where neither shift nor scale of the scores means
        anything. The scores give an order, no probabilities. Useless with two candidates (z is always 1 or -1).

    Relations:
        Unchanged by s -> c s + d, c > 0. sharpness -> infinity: max(0, b - z). `SphericalOutput` trains a linear
        layer on it at a cost that does not depend on C. Not the squared log-partition term that language models call
        z-loss: that is `logsumexp_penalty`.

    Source:
        de Brebisson and Vincent (2016). Paper 38. The reference code has a = 1, b = 0 and sums over the batch.
        z cannot exceed sqrt(C - 1), so a larger b never lets go. In equal scores its gradient explodes: start from
        random weights.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, sharpness or eps <= 0, a location that is not finite, an unknown reduction.

    Example:
        >>> import torch
        >>> z_loss(torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[1.0, 0.0, 0.0]]))
        tensor(0.2576)
    """
    _check_z(sharpness, location, eps)
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positives = positives_of(lists)
    total = positives.multiplicity.sum(-1, keepdim=True)
    total = total.masked_fill(total == 0, 1.0)
    shifted = _below_largest(lists.scores, lists.mask)  # equal scores become 0, without rounding
    centred = shifted - (positives.multiplicity * shifted).sum(-1, keepdim=True) / total
    variance = (positives.multiplicity * centred.square()).sum(-1, keepdim=True) / total
    several = (positives.multiplicity > 0).sum(-1) > 1
    share = positives.share.masked_fill(~several.unsqueeze(-1), 0.0)
    positives = positives._replace(share=share, counted=positives.counted & several)
    terms = _z_term(centred, variance, sharpness, location, eps)
    return mean_over_positives(terms, positives, reduction)


def taylor_softmax_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log of a positive's share under a softmax whose exponential is cut after its square (Taylor softmax).

    Formula:
        L_q = mean over the positives p of [ log sum_k e(s_k) - log e(s_p) ],  e(s) = 1 + s + s^2 / 2 (never below
        1/2). Mean over the lists with a positive.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (above 0: positive), mask bool[..., C], weight float[..., C] >= 0
        (a positive's share, a negative's multiplicity; 0 removes it)
        -> scalar, or float[...] with reduction="none". Class labels: relevance = one_hot(labels, C).

    When to use:
        Probabilities from the spherical family, above all with `SphericalOutput`; scores within a few units of 0.

    Relations:
        Small scores: close to `softmax_loss`. Unlike it, a constant added to the scores changes it, and a very
        negative score counts as much as a large one.

    Source:
        Vincent et al. (2015); de Brebisson and Vincent (2016). Paper 38.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, an unknown reduction.

    Example:
        >>> import torch
        >>> taylor_softmax_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(0.1823)
    """
    lists = check_lists(scores, relevance, mask, weight, reduction)
    positives = positives_of(lists)
    expanded = _taylor(lists.scores)
    partition = (positives.multiplicity * expanded).sum(-1, keepdim=True)
    terms = partition.masked_fill(partition == 0, 1.0).log() - expanded.log()
    return mean_over_positives(terms, positives, reduction)


def spherical_loss(
    target: Tensor,
    total: Tensor,
    squared_total: Tensor,
    *,
    num_outputs: int,
    kind: SphericalKind = "z",
    sharpness: float = 1.0,
    location: float = 0.0,
    eps: float = 1e-12,
    reduction: Reduction = "mean",
) -> Tensor:
    """Any member of the spherical family from a row's target logit, sum of logits and sum of their squares.

    Formula:
        With a = target, s = total, q = squared_total, D = num_outputs:

        - kind="z": the term of `z_loss` with mu = s / D, sigma^2 = q / D - mu^2.
        - kind="squared": q - 2 a + 1, the squared distance of the logits from the one-hot target.
        - kind="taylor": log(D + s + q / 2) - log(1 + a + a^2 / 2).

        Mean over the rows; with several target columns a row's loss is the mean over them.

    Shapes:
        target float[M] or float[M, K], total float[M], squared_total float[M]
        -> scalar, or float[M] with reduction="none".

    When to use:
        Behind a layer that computes these three numbers without computing the D logits (`SphericalOutput`).

    Relations:
        On logits at hand: `z_loss`, `squared_error_loss` against the one-hot target (summed), `taylor_softmax_loss`.

    Source:
        de Brebisson and Vincent (2016); Vincent et al. (2015). Paper 38.

    Raises:
        RivalsError: shapes that do not fit, fewer than two outputs, an unknown kind or reduction, sharpness or
        eps <= 0, a location that is not finite.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[1.0, 0.0, -1.0]])
        >>> spherical_loss(logits[:, 0], logits.sum(1), logits.square().sum(1), num_outputs=3)
        tensor(0.2576)
    """
    check_choice(kind, get_args(SphericalKind), "kind")
    check_reduction(reduction)
    _check_z(sharpness, location, eps)
    check_scores(target, "target")
    if num_outputs < 2:
        raise RivalsError(f"num_outputs must be at least 2; got {num_outputs}")
    if target.ndim not in (1, 2):
        raise RivalsError(f"target must have shape [M] or [M, K]; got {tuple(target.shape)}")
    for name, value in (("total", total), ("squared_total", squared_total)):
        check_shape(value, tuple(target.shape[:1]), name, target.device)
    dtype = compute_dtype(target)
    a = target.to(dtype) if target.ndim == 2 else target.to(dtype).unsqueeze(1)
    s, q = total.to(dtype).unsqueeze(-1), squared_total.to(dtype).unsqueeze(-1)
    if kind == "z":
        mean = s / num_outputs
        terms = _z_term(a - mean, q / num_outputs - mean.square(), sharpness, location, eps)
    elif kind == "squared":
        terms = q - 2 * a + 1
    else:
        terms = (num_outputs + s + q / 2).log() - _taylor(a).log()
    return reduce_lists(terms.mean(-1), torch.ones_like(terms[:, 0], dtype=torch.bool), reduction)


def logsumexp_penalty(scores: Tensor, mask: Tensor | None = None, *, reduction: Reduction = "mean") -> Tensor:
    """Return the squared log-partition (log sum exp s)^2 of every list, averaged over the lists that have a candidate.

    A small multiple of it added to a softmax loss keeps the level of the scores near 0 ("z-loss" in language-model
    training; no relative of `z_loss`).

    Shapes: scores float[..., C], mask bool[..., C] -> scalar, or float[...] with reduction="none".

    Source: the penalty of large language models that shares the Z-loss's name (paper 38), here to keep the two apart.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, an unknown reduction.

    >>> logsumexp_penalty(torch.zeros(1, 3))
    tensor(1.2069)
    """
    lists = check_lists(scores, torch.zeros_like(scores), mask, None, reduction)
    return reduce_lists(masked_logsumexp(lists.scores, lists.mask).square(), lists.mask.any(-1), reduction)


def _below_largest(scores: Tensor, mask: Tensor) -> Tensor:
    if scores.shape[-1] == 0:
        return scores
    largest = scores.detach().masked_fill(~mask, float("-inf")).max(-1, keepdim=True).values
    return (scores - largest.masked_fill(largest.isinf(), 0.0)).masked_fill(~mask, 0.0)


def _taylor(scores: Tensor) -> Tensor:
    return 0.5 * (scores + 1).square() + 0.5


def _z_term(centred: Tensor, variance: Tensor, sharpness: float, location: float, eps: float) -> Tensor:
    flat = variance <= eps
    z = (centred / (variance.masked_fill(flat, 1.0).sqrt() + eps)).masked_fill(flat, 0.0)
    return -F.logsigmoid(sharpness * (z - location)) / sharpness


def _check_z(sharpness: float, location: float, eps: float) -> None:
    check_positive(sharpness, "sharpness")
    check_positive(eps, "eps")
    if not math.isfinite(location):
        raise RivalsError(f"location must be a finite number; got {location!r}")
