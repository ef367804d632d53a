"""Contrastive losses for models that learn one data set after another, next to a frozen copy of what they were."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_choice,
    check_reduction,
    check_scores,
    check_shape,
    reduce_lists,
)
from rivals.losses._in_batch import unit_rows
from rivals.losses.contrastive import in_batch_info_nce_loss
from rivals.losses.momentum import momentum_contrast_loss

__all__ = ["continual_contrast_loss", "continual_nt_xent_loss", "pseudo_negative_loss"]

Distance = Literal["cosine", "mse"]


def continual_contrast_loss(
    queries: Tensor,
    keys: Tensor,
    queue: Tensor,
    *,
    predicted: Tensor | None = None,
    frozen: Tensor | None = None,
    frozen_queue: Tensor | None = None,
    temperature: float = 0.2,
    distill_temperature: float = 0.2,
    normalize: bool = True,
    reduction: Reduction = "mean",
    fused: bool | Literal["auto"] = "auto",
) -> Tensor:
    """Symmetric contrastive loss for continual learning: new and old negatives in learning and in remembering (Sy-CON).

    Formula:
        L = M_t(q, k; U and V) + M_t'(h, o; U and V), M = `momentum_contrast_loss`: q the query, k the momentum key of the
        other view, h the predicted and o the frozen model's output of the same view, U the queue of keys, V that of
        frozen outputs, t' = `distill_temperature`. One direction of views; average it with the other.

    Shapes:
        queries, keys, predicted, frozen float[B, D], queue float[K, D], frozen_queue float[K', D]
        -> scalar, or float[B] with reduction="none".

    When to use:
        Training an encoder further on new data without breaking what the old one could tell apart: for texts, views
        are a query and its document, and V holds the old model's document vectors. Before there is an old model, leave
        predicted, frozen and frozen_queue out: momentum contrast.

    Relations:
        Without the old model: `momentum_contrast_loss`. Exchanging the queues changes nothing.

    Source:
        Cha et al. (2023), Sy-CON, eqs. 4 to 6, and the code of its final version (PNR, 2024). Paper 102. Keys, frozen
        outputs and queues carry no gradient: detach the keys.

    Raises:
        RivalsError: what `momentum_contrast_loss` raises, only some of predicted, frozen and frozen_queue.

    Example:
        >>> import torch
        >>> q, k, new, old = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.8, 0.6]]), torch.eye(2)[1:], -torch.eye(2)[:1]
        >>> continual_contrast_loss(q, k, new, predicted=k, frozen=q, frozen_queue=old)
        tensor(0.3318)
    """
    given = [part is not None for part in (predicted, frozen, frozen_queue)]
    if any(given) != all(given):
        raise RivalsError("predicted, frozen and frozen_queue must be given together, or none of them")

    def one(anchors: Tensor, positives: Tensor, negatives: Tensor, heat: float) -> Tensor:
        return momentum_contrast_loss(
            anchors, positives, negatives, temperature=heat, normalize=normalize, reduction=reduction, fused=fused
        )

    if predicted is None or frozen is None or frozen_queue is None:
        return one(queries, keys, queue, temperature)
    for stored, name in ((queue, "queue"), (frozen_queue, "frozen_queue")):
        check_scores(stored, name, ndim=2)
        check_shape(stored, (len(stored), queries.shape[-1]), name, queries.device)
    both = torch.cat([queue, frozen_queue])
    return one(queries, keys, both, temperature) + one(predicted, frozen.detach(), both, distill_temperature)


def continual_nt_xent_loss(
    first: Tensor,
    second: Tensor,
    predicted_first: Tensor,
    predicted_second: Tensor,
    frozen_first: Tensor,
    frozen_second: Tensor,
    *,
    temperature: float = 0.2,
    positive_in_denominator: bool = False,
    reduction: Reduction = "mean",
    fused: bool | Literal["auto"] = "auto",
) -> Tensor:
    """Sy-CON without queues: both terms take the other examples' outputs, new and frozen, as negatives (SimCLR form).

    Formula:
        Z = [first; second], P = the predicted, F = the frozen ones, unit rows, s = cos / temperature, j(i) = the other
        view of i.

        - L1 = mean_i of -s(z_i, z_j(i)) + log sum over Z and F without row i of either;
        - L2 = mean_i of -s(p_i, f_i) + log sum over F and Z without row i of either, so that its positive is not below
          the line and L2 may be negative; with `positive_in_denominator` it is.

        L = L1 + L2.

    Shapes:
        all float[B, D] -> scalar, or float[2 B] with reduction="none".

    When to use:
        As `continual_contrast_loss`, for large batches without a momentum encoder.

    Relations:
        L1 without F is NT-Xent (SimCLR); L2 is `in_batch_info_nce_loss` with positives="decoupled".

    Source:
        Cha et al. (2023), Sy-CON, and the code of its final version (PNR, 2024). Paper 102. The frozen outputs carry no
        gradient.

    Raises:
        RivalsError: shapes or dtypes that do not fit, temperature <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> e = torch.eye(2)
        >>> continual_nt_xent_loss(e, e, e, e, e, e, temperature=1.0)
        tensor(2.4892)
    """
    given = (first, second, predicted_first, predicted_second, frozen_first, frozen_second)
    names = ("first", "second", "predicted_first", "predicted_second", "frozen_first", "frozen_second")
    for values, name in zip(given, names, strict=True):
        check_scores(values, name, ndim=2)
        check_shape(values, tuple(first.shape), name, first.device)
    online, predicted = torch.cat([first, second]), torch.cat([predicted_first, predicted_second])
    frozen = torch.cat([frozen_first, frozen_second]).detach()
    example = torch.arange(len(online), device=online.device)

    def one(queries: Tensor, documents: Tensor, own: Tensor, decoupled: bool) -> Tensor:
        return in_batch_info_nce_loss(
            queries,
            documents,
            positive_columns=own,
            query_groups=example,
            document_groups=example.repeat(2),
            same_group="ignore",
            temperature=temperature,
            positives="decoupled" if decoupled else "each",
            reduction=reduction,
            fused=fused,
        )

    learning = one(online, torch.cat([online, frozen]), example.roll(len(first)), False)
    return learning + one(predicted, torch.cat([frozen, online]), example, not positive_in_denominator)


def pseudo_negative_loss(
    predicted: Tensor,
    frozen_same: Tensor,
    frozen_other: Tensor,
    *,
    weight: float = 1.0,
    negative_weight: float = 1.0,
    distance: Distance = "cosine",
    reduction: Reduction = "mean",
) -> Tensor:
    """Distillation that holds on to the old output of the same view and keeps away from that of the other view.

    Formula:
        L_i = weight d(p_i, o_i) - negative_weight d(p_i, o'_i), o and o' the frozen outputs of the same and of the
        other view; d = 1 - cos ("cosine") or the mean squared difference over dimensions ("mse"). Mean over i.

    Shapes:
        all float[B, D] -> scalar, or float[B] with reduction="none".

    When to use:
        Beside a loss without negatives (BYOL, VICReg, Barlow Twins), when a model learns on and must not forget.

    Relations:
        negative_weight=0: plain feature distillation, as in CaSSLe. `continual_contrast_loss` is its contrastive form.

    Source:
        Cha et al. (2024), "Regularizing with Pseudo-Negatives for Continual Self-Supervised Learning". Paper 102. The
        frozen outputs carry no gradient; the code calls the weights lambda_d and lambda_neg.

    Raises:
        RivalsError: shapes or dtypes that do not fit, a negative weight or negative_weight, an unknown distance or
        reduction.

    Example:
        >>> import torch
        >>> pseudo_negative_loss(torch.eye(2), torch.eye(2), torch.eye(2).flip(0))
        tensor(-1.)
    """
    check_choice(distance, get_args(Distance), "distance")
    check_reduction(reduction)
    check_at_least_zero(weight, "weight")
    check_at_least_zero(negative_weight, "negative_weight")
    check_scores(predicted, "predicted", ndim=2)
    dtype = compute_dtype(predicted)
    for values, name in ((frozen_same, "frozen_same"), (frozen_other, "frozen_other")):
        check_scores(values, name, ndim=2)
        check_shape(values, tuple(predicted.shape), name, predicted.device)
        dtype = torch.promote_types(dtype, compute_dtype(values))
    wide = predicted.to(dtype)

    def apart(frozen: Tensor) -> Tensor:
        frozen = frozen.detach().to(dtype)
        if distance == "cosine":
            return 1.0 - (unit_rows(wide) * unit_rows(frozen)).sum(-1)
        return (wide - frozen).square().sum(-1) / max(wide.shape[1], 1)

    total = weight * apart(frozen_same) - negative_weight * apart(frozen_other)
    return reduce_lists(total, torch.ones_like(total), reduction)
