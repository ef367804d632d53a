"""Metric learning against class weights (proxies): softmax losses over cosines with a margin at the own class.

All take the cosines of N embeddings with K class weights (`class_cosines`), as logits [N, K] with one label a row.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._classes import own_class, reduce_rows
from rivals.losses._common import (
    CheckedRows,
    Reduction,
    check_at_least_zero,
    check_choice,
    check_not_negative,
    check_positive,
    check_reduction,
    check_rows,
    check_scores,
    check_shape,
)
from rivals.losses._in_batch import unit_rows
from rivals.losses._pair_terms import circle_pull, circle_push
from rivals.losses.pair_similarity import check_circle

__all__ = [
    "arcface_loss",
    "circle_class_loss",
    "class_cosines",
    "cosface_loss",
    "margin_logits",
    "sphereface_loss",
]

Head = Literal["none", "cosface", "arcface", "sphereface"]
BeyondPi = Literal["monotone", "plain", "easy"]
_EDGE = 1e-7
"""Angles are taken of cosines within 1 - _EDGE, where their gradient is finite."""


def class_cosines(embeddings: Tensor, classes: Tensor) -> Tensor:
    """Return the cosines of embeddings [N, D] with class weights [K, D], in float32 or float64.

    A zero vector has cosine 0 with everything and gets no gradient.

    Source: Wang et al. (2018), CosFace, section 3.1. Papers 44, 14, 117.

    Raises RivalsError: tensors that are not of floating point or not [N, D] and [K, D].

    >>> class_cosines(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    tensor([[0.6000, 0.8000]])
    """
    check_scores(embeddings, "embeddings", ndim=2)
    check_scores(classes, "classes", ndim=2)
    check_shape(classes, (len(classes), embeddings.shape[1]), "classes", embeddings.device)
    dtype = torch.promote_types(compute_dtype(embeddings), compute_dtype(classes))
    with torch.autocast(embeddings.device.type, enabled=False):
        return unit_rows(embeddings.to(dtype)) @ unit_rows(classes.to(dtype)).T


def margin_logits(
    cosines: Tensor,
    labels: Tensor,
    *,
    head: Head = "cosface",
    margin: float | Tensor = 0.35,
    beyond_pi: BeyondPi = "monotone",
) -> Tensor:
    """Return the cosines with a margin at each row's own class, not yet scaled.

    With c = cos t the cosine of the own class and m the margin:

    - "none": c. "cosface": c - m.
    - "arcface": cos(t + m) while t + m <= pi. Beyond, beyond_pi="monotone" gives c - m sin m, which keeps falling,
      "plain" still cos(t + m), which rises again; "easy" gives no margin to any c <= 0.
    - "sphereface": (-1)^k cos(m t) - 2 k for t in [k pi / m, (k + 1) pi / m], m a whole number.

    Args:
        cosines: float[N, K]. labels: int[N], each 0..K - 1. margin: a number, or a tensor [N], one a row
        (`magnitude_margin`); radians for "arcface".

    Source: Wang et al. (2018), CosFace, eq. 4; Deng et al. (2019), ArcFace, eq. 3; Liu et al. (2017), SphereFace,
    eq. 7. Papers 44, 14, 117.

    Raises RivalsError: a label outside 0..K - 1, a negative margin, a SphereFace margin that is not a whole number, an
    unknown head or beyond_pi.

    >>> margin_logits(torch.tensor([[0.5, 0.2]]), torch.tensor([0]), margin=0.25)
    tensor([[0.2500, 0.2000]])
    """
    rows = check_rows(cosines, labels, None, name="cosines", classes=True)
    return _with_margin(rows.rows, rows.labels, head, _check_margin(margin, rows, head), beyond_pi)


def _check_margin(margin: float | Tensor, rows: CheckedRows, head: Head) -> float | Tensor:
    """Check the margin and bring one given for every example to the rows that are there."""
    if isinstance(margin, Tensor):
        check_shape(margin, tuple(rows.mask.shape), "margin", rows.rows.device)
        margin = margin[rows.mask].to(rows.rows.dtype)
        check_not_negative(margin, "margin")
        if head == "sphereface":
            raise RivalsError("margin must be one whole number for SphereFace; got a tensor")
    elif head == "sphereface":
        if margin < 1 or margin != int(margin):
            raise RivalsError(f"margin must be a whole number of at least 1 for SphereFace; got {margin!r}")
    else:
        check_at_least_zero(margin, "margin")
    return margin


def _with_margin(cosines: Tensor, labels: Tensor, head: Head, margin: float | Tensor, beyond_pi: BeyondPi) -> Tensor:
    check_choice(head, get_args(Head), "head")
    check_choice(beyond_pi, get_args(BeyondPi), "beyond_pi")
    if head == "none":
        return cosines
    own = own_class(cosines, labels)
    if head == "cosface":
        moved = own - margin
    else:
        angle = own.clamp(-1 + _EDGE, 1 - _EDGE).acos()
        moved = _sphereface(angle, int(margin)) if head == "sphereface" else _arcface(own, angle, margin, beyond_pi)
    return cosines.scatter(1, labels.long().unsqueeze(1), moved.unsqueeze(1))


def _arcface(cosine: Tensor, angle: Tensor, margin: float | Tensor, beyond_pi: BeyondPi) -> Tensor:
    moved = (angle + margin).cos()
    if beyond_pi == "plain":
        return moved
    if beyond_pi == "easy":
        return torch.where(cosine > 0, moved, cosine)
    sine = margin.sin() if isinstance(margin, Tensor) else math.sin(margin)
    return torch.where(angle <= math.pi - margin, moved, cosine - margin * sine)


def _sphereface(angle: Tensor, margin: int) -> Tensor:
    piece = (angle.detach() * margin / math.pi).floor()
    return (1 - 2 * (piece % 2)) * (margin * angle).cos() - 2 * piece


def cosface_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    margin: float = 0.35,
    scale: float = 64.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """CosFace: cross entropy over scaled cosines, the own class's lowered by a margin.

    Formula:
        L_i = -log [ e^{s (c_iy - m)} / (e^{s (c_iy - m)} + sum_{k != y} e^{s c_ik}) ], s = `scale`, m = `margin`.

    Shapes:
        logits float[N, K] (cosines, see `class_cosines`), labels int[N], mask bool[N] (False = no example), weight
        float[N] >= 0 -> scalar, or float[N] with reduction="none".

    When to use:
        Many classes with few examples each (faces, products), where test classes are unseen.

    Relations:
        margin 0, scale 1: cross entropy. `unified_pair_loss` with one positive. With the batch's own negatives:
        `unified_negative_pair_loss`.

    Source:
        Wang et al. (2018), eq. 4 (AM-softmax). Papers 44, 14, 117. Defaults as in pytorch-metric-learning.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels outside 0..K - 1, negative or NaN weight, margin
        < 0, scale <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> cosface_loss(torch.tensor([[0.5, 0.2]]), torch.tensor([0]), margin=0.25, scale=10.0)
        tensor(0.4741)
    """
    return _softmax(logits, labels, mask, weight, "cosface", margin, "monotone", scale, reduction)


def arcface_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    margin: float | Tensor = 0.5,
    scale: float = 64.0,
    beyond_pi: BeyondPi = "monotone",
    reduction: Reduction = "mean",
) -> Tensor:
    """ArcFace: cross entropy over scaled cosines, the own class's angle widened by a margin.

    Formula:
        `cosface_loss` with cos(t_iy + m) for c_iy - m, t = arccos c, m in radians. Where t + m > pi, cos(t + m) would
        rise again: beyond_pi="monotone" takes c - m sin m there, "plain" leaves it, "easy" gives a margin only to
        c > 0.

    Shapes:
        logits float[N, K] (cosines), labels int[N], mask bool[N] (False = no example), weight float[N] >= 0, margin a
        number or float[N] (MagFace: `magnitude_margin`) -> scalar, or float[N] with reduction="none".

    When to use:
        As CosFace; the angular margin weighs the same at every angle.

    Relations:
        margin 0: `cosface_loss` with margin 0. A margin of each example's length: MagFace, with `magnitude_penalty`.

    Source:
        Deng et al. (2019), eq. 3, with the fallback of its code beyond pi; Meng et al. (2021), MagFace, eq. 4.
        Papers 44, 14. Cosines are kept 1e-7 away from +-1, where arccos has no gradient.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels outside 0..K - 1, negative or NaN weight or
        margin, scale <= 0, an unknown beyond_pi or reduction.

    Example:
        >>> import torch
        >>> arcface_loss(torch.tensor([[0.5, 0.2]]), torch.tensor([0]), scale=10.0)
        tensor(1.9222)
    """
    return _softmax(logits, labels, mask, weight, "arcface", margin, beyond_pi, scale, reduction)


def sphereface_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    norms: Tensor | None = None,
    margin: int = 4,
    scale: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """SphereFace: cross entropy over cosines, the own class's angle multiplied by a whole number.

    Formula:
        Cross entropy over s |x_i| c_ik, with psi(t_iy) = (-1)^k cos(m t) - 2 k, t in [k pi / m, (k + 1) pi / m], for
        c_iy; |x_i| = `norms` (1 if not given), s = `scale`.

    Shapes:
        logits float[N, K] (cosines), labels int[N], mask bool[N] (False = no example), weight float[N] >= 0, norms
        float[N] >= 0 (the lengths of the embeddings) -> scalar, or float[N] with reduction="none".

    When to use:
        To compare with; CosFace and ArcFace train more easily.

    Relations:
        margin 1: cross entropy over the (scaled) cosines.

    Source:
        Liu et al. (2017), eq. 7; pytorch-metric-learning's SphereFaceLoss. Paper 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels outside 0..K - 1, negative or NaN weight or
        norms, a margin that is not a whole number of at least 1, scale <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> sphereface_loss(torch.tensor([[0.5, 0.2]]), torch.tensor([0]))
        tensor(1.8678)
    """
    return _softmax(logits, labels, mask, weight, "sphereface", margin, "plain", scale, reduction, norms)


def circle_class_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    margin: float = 0.25,
    scale: float = 256.0,
    detach_weights: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """Circle loss against class weights: cross entropy whose cosines are moved in proportion to their way to go.

    Formula:
        Cross entropy over s a (c - D): (a, D) = ((1 + m - c)+, 1 - m) at the own class, ((c + m)+, m) at the others;
        the a without gradient (detach_weights=False: with).

    Shapes:
        logits float[N, K] (cosines), labels int[N], mask bool[N] (False = no example), weight float[N] >= 0
        -> scalar, or float[N] with reduction="none".

    When to use:
        Where CosFace or ArcFace would do, for a definite target (1 for the own class, 0 for the others).

    Relations:
        `circle_loss` with one positive a list.

    Source:
        Sun et al. (2020), eqs. 5 and 6, section 3.2. Paper 117. Default margin and scale: face recognition; person
        re-identification takes scale 128.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels outside 0..K - 1, negative or NaN weight, margin
        < 0, scale <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> circle_class_loss(torch.tensor([[0.8, 0.3]]), torch.tensor([0]), scale=64.0)
        tensor(0.8659)
    """
    check_circle(margin, scale)
    check_reduction(reduction)
    rows = check_rows(logits, labels, mask, weight=weight, name="logits", classes=True)
    pushes = circle_push(rows.rows, margin=margin, scale=scale, detach_weights=detach_weights)
    own = own_class(rows.rows, rows.labels)
    pull = -circle_pull(own, margin=margin, scale=scale, detach_weights=detach_weights)
    return _cross_entropy(pushes.scatter(1, rows.labels.long().unsqueeze(1), pull.unsqueeze(1)), rows, reduction)


def _softmax(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    weight: Tensor | None,
    head: Head,
    margin: float | Tensor,
    beyond_pi: BeyondPi,
    scale: float,
    reduction: Reduction,
    norms: Tensor | None = None,
) -> Tensor:
    """Cross entropy over scaled cosines with a margin at the own class."""
    check_positive(scale, "scale")
    check_reduction(reduction)
    rows = check_rows(logits, labels, mask, weight=weight, name="logits", classes=True)
    moved = _with_margin(rows.rows, rows.labels, head, _check_margin(margin, rows, head), beyond_pi) * scale
    if norms is not None:
        check_shape(norms, tuple(rows.mask.shape), "norms", logits.device)
        norms = norms[rows.mask].to(moved.dtype)
        check_not_negative(norms, "norms")
        moved = moved * norms.unsqueeze(1)
    return _cross_entropy(moved, rows, reduction)


def _cross_entropy(logits: Tensor, rows: CheckedRows, reduction: Reduction) -> Tensor:
    return reduce_rows(-own_class(logits.log_softmax(1), rows.labels), rows, reduction)
