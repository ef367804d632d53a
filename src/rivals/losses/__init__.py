"""Losses: pure functions of scores (or of embeddings), one family a file.

The ranking form is the common one: `some_loss(scores, relevance, mask=None, *, weight=None, reduction="mean", ...)`
with tensors [..., C], the last dimension the candidates of one query and `mask` False where there is none. `relevance
> 0` marks a positive. `weight[..., C]` multiplies a candidate's contribution; to weight whole lists, use
`reduction="none"`. Half-precision inputs are computed in float32. NaN scores of real candidates give a NaN loss;
padding may hold anything.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rivals.losses.classification import binary_cross_entropy_loss
from rivals.losses.contrastive import in_batch_info_nce_loss, info_nce_loss
from rivals.losses.listwise import poly1_softmax_loss, softmax_loss
from rivals.losses.pairwise import pairwise_logistic_loss

__all__ = [
    "LOSSES",
    "binary_cross_entropy_loss",
    "in_batch_info_nce_loss",
    "info_nce_loss",
    "pairwise_logistic_loss",
    "poly1_softmax_loss",
    "softmax_loss",
]

LOSSES: dict[str, Callable[..., Tensor]] = {
    "binary_cross_entropy": binary_cross_entropy_loss,
    "in_batch_info_nce": in_batch_info_nce_loss,
    "info_nce": info_nce_loss,
    "pairwise_logistic": pairwise_logistic_loss,
    "poly1_softmax": poly1_softmax_loss,
    "softmax": softmax_loss,
}
"""Every loss by the name that configuration files and the command line use."""
