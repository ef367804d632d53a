"""Distilling a teacher's logits, level included, into a head of its own beside the one that learns the labels."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from rivals.losses._common import Checked, Reduction, check_positive, check_targets, reduce_lists

__all__ = ["binary_kl_loss", "logit_distance_loss"]


def binary_kl_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    temperature: float = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """KL divergence between a teacher's and a student's sigmoid, candidate by candidate.

    Formula:
        L_q = T^2 sum_i w_i [ p log(p / q) + (1 - p) log((1 - p) / (1 - q)) ],  p = sigmoid(t_i / T),
        q = sigmoid(s_i / T), t the targets without gradient, T = `temperature`. Mean over the lists with a candidate.

    Shapes:
        scores float[..., C], targets [..., C] (the teacher's scores), mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none". The sum over candidates grows with C.

    When to use:
        Teacher scores whose level means something (a cross-encoder's, a multi-label model's), on a head of the
        student's own: added to cross entropy on the same linear head the two fight.

    Relations:
        Unlike a softmax KL, a constant added to the scores of a list changes it. `logit_distance_loss` depends on the
        difference of the scores only. `align_gradients` settles what conflict is left in the shared part.

    Source:
        Yang et al. (2025), dual-head knowledge distillation, BinaryKL. Paper 101. The reference clamps the sigmoids to
        [1e-8, 1 - 1e-8]; here logs are taken of logits, which agrees while |s / T| and |t / T| are below 18.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite or a
        negative weight at a candidate that is there, temperature <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> binary_kl_loss(torch.tensor([[0.0]]), torch.tensor([[2.0]]))
        tensor(0.4438)
    """
    check_positive(temperature, "temperature")
    lists = check_targets(scores, targets, mask, weight, reduction)
    student, teacher = lists.scores / temperature, lists.relevance.detach() / temperature
    p = teacher.sigmoid()
    terms = (-F.logsigmoid(-student) - p * student) - (-F.logsigmoid(-teacher) - p * teacher)
    return _summed(terms, lists, temperature, reduction)


def logit_distance_loss(
    scores: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    temperature: float = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """A smooth distance between a student's and a teacher's logits: squared when small, absolute when large.

    Formula:
        L_q = T^2 sum_i w_i [ (log(1 + e^x) + log(1 + e^{-x})) / 2 - log 2 ],  x = (s_i - t_i) / T: the KL divergence
        between an even coin and sigmoid(x). About d^2 / 8 for a small difference d, |d| T / 2 for a large one. The
        targets get no gradient. Mean over the lists with a candidate.

    Shapes:
        scores float[..., C], targets [..., C] (the teacher's scores), mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none". The sum over candidates grows with C.

    When to use:
        As `binary_kl_loss`, when the teacher's scores are large and its sigmoids saturated.

    Relations:
        T^2 `log_cosh_loss` of half the difference over T, summed. Symmetric in its two arguments.

    Source:
        Yang et al. (2025), dual-head knowledge distillation, BinaryKL-Norm. Paper 101. The reference clamps the
        sigmoid to [1e-8, 1 - 1e-8]; here logs are taken of logits, which agrees while |x| is below 18.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, targets that are not finite or a
        negative weight at a candidate that is there, temperature <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> logit_distance_loss(torch.tensor([[2.0]]), torch.tensor([[0.0]]))
        tensor(0.4805)
    """
    check_positive(temperature, "temperature")
    lists = check_targets(scores, targets, mask, weight, reduction)
    half = (lists.scores - lists.relevance.detach()) / (2 * temperature)
    terms = half - F.logsigmoid(2 * half) - math.log(2)
    return _summed(terms, lists, temperature, reduction)


def _summed(terms: Tensor, lists: Checked, temperature: float, reduction: Reduction) -> Tensor:
    if lists.weight is not None:
        terms = terms * lists.weight
    total = temperature**2 * terms.masked_fill(~lists.mask, 0.0).sum(-1)
    return reduce_lists(total, lists.mask.any(-1), reduction)
