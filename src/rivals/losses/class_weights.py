"""Weights for rare classes and rare labels, from how often they occur."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import check_choice, check_lists

__all__ = ["class_balanced_weights", "positive_weights"]


def class_balanced_weights(counts: Tensor, *, beta: float = 0.999) -> Tensor:
    """Return one weight a class, the inverse of its effective number of examples: (1 - beta) / (1 - beta^n).

    beta 0 gives every class 1; towards 1 the weights go to 1 / n. They fit `cross_entropy_loss(class_weight=...)`, and
    with multi-label losses `weight=torch.where(relevance > 0, weights, 1.0)`.

    Args:
        counts: whole numbers or float[K] >= 1, the examples of each class.
        beta: in [0, 1).

    Source: Cui et al. (2019), eq. 2; Ezzati et al. (2020), section 3. Papers 39, 70.

    Raises:
        RivalsError: a count below 1, beta outside [0, 1).

    >>> class_balanced_weights(torch.tensor([10, 1000]))
    tensor([0.1005, 0.0016])
    """
    if not 0 <= beta < 1:
        raise RivalsError(f"beta must lie in 0..1, 1 excluded; got {beta!r}")
    if not isinstance(counts, Tensor) or counts.is_complex():
        raise RivalsError("counts must be a tensor of real numbers, one a class")
    if counts.numel() and not (counts.min() >= 1):
        raise RivalsError(f"counts must be at least 1 everywhere; found {float(counts.min()):g}")
    # 1 - beta^n loses its digits where beta is near 1; expm1 keeps them
    lost = -(counts.double() * torch.tensor(beta, dtype=torch.float64).log()).expm1()
    return ((1 - beta) / lost).to(compute_dtype(counts))


def positive_weights(
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    scheme: Literal["ratio", "inverse", "effective"] = "ratio",
    beta: float = 0.999,
    limits: tuple[float, float] | None = None,
) -> Tensor:
    """Return one weight a label for its positives, from n_k positives among the N_k known entries of label k.

    - "ratio": (N_k - n_k) / n_k, the negatives to a positive, between 1 and 20 unless `limits` says otherwise.
    - "inverse": N_k / (C n_k) with C labels. "effective": `class_balanced_weights` of n_k.

    A label without a positive counts as having one. Count on the training part only.

    Args:
        relevance: [..., C] >= 0, positive where > 0.
        mask: bool[..., C]; False = unknown.
        limits: lowest and highest weight.

    Source: the class-weighted term of paper 70, whose own equation was not at hand; effective numbers as in paper 39.
    Papers 70, 39.

    Raises:
        RivalsError: shapes or dtypes that do not fit, negative relevance, an unknown scheme, beta outside [0, 1),
        limits that fall.

    >>> positive_weights(torch.tensor([[1, 0], [0, 0], [0, 1], [0, 1]]))
    tensor([3., 1.])
    """
    check_choice(scheme, ("ratio", "inverse", "effective"), "scheme")
    if limits is not None and not 0 <= limits[0] <= limits[1]:
        raise RivalsError(f"limits must be (lowest, highest), at least 0 and not falling; got {limits!r}")
    lists = check_lists(torch.zeros_like(relevance, dtype=torch.float32), relevance, mask, None, "none")
    known = lists.mask.unsqueeze(0).flatten(0, -2).sum(0)
    positive = (lists.relevance > 0).unsqueeze(0).flatten(0, -2).sum(0)
    if scheme == "effective":
        weights = class_balanced_weights(positive.clamp(min=1), beta=beta)
    elif scheme == "inverse":
        weights = known / (positive.clamp(min=1) * max(len(known), 1))
    else:
        weights = (known - positive) / positive.clamp(min=1)
        limits = (1.0, 20.0) if limits is None else limits
    return weights if limits is None else weights.clamp(*limits)
