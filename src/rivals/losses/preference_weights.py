"""Weights of pairs of responses, all without gradient: what a swap does to DCG, and a gate that closes with the margin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import list_ranks
from rivals.losses._common import check_choice
from rivals.losses._gains import Gain, check_depth, graded_gains, ideal_dcg, rank_discounts

__all__ = ["DcgPairWeight"]


@dataclass(frozen=True, kw_only=True)
class DcgPairWeight:
    """How much DCG would change if two responses swapped places: the weight of LiPO-lambda, with its ablations.

    Formula: |G_i - G_j| |D_i - D_j|, G = 2^y - 1 (gain="linear": y), D = 1 / log_b(1 + rank), the rank by score from 1,
    equal scores in the order in which they stand; D = 0 beyond `top`. With `normalize`, G is divided by the list's ideal
    DCG. `by` leaves one of the two factors out. `scale_by_list_size` multiplies by R, the padded width, as rax does; the
    loss then depends on the padding.

    Called with scores, relevance and mask [..., R], it returns [..., R, R], 0 where a response is absent: give it as
    `pair_weight` to `preference_loss` ("dcg" is this with its defaults).

    Source: Liu et al. (2024), LiPO, eq. 11 (natural logarithm: log_base=math.e) and section 5.2 (ablations); rax
    `dcg_lambdaweight`. Paper 103.

    Raises RivalsError: top below 1, log_base not above 1, an unknown gain or factor.

    >>> weight = DcgPairWeight()(torch.tensor([0.2, 0.5, -0.1]), torch.tensor([1.0, 0.5, 0.0]))
    >>> weight[0]
    tensor([0.0000, 0.2162, 0.1309])
    """

    gain: Gain = "exponential"
    by: Literal["gain_and_discount", "gain", "discount"] = "gain_and_discount"
    top: int | None = None
    normalize: bool = False
    log_base: float = 2.0
    scale_by_list_size: bool = False

    def __post_init__(self) -> None:
        check_choice(self.gain, get_args(Gain), "gain")
        check_choice(self.by, ("gain_and_discount", "gain", "discount"), "by")
        check_depth(self.top, "top")
        if not (math.isfinite(self.log_base) and self.log_base > 1):
            raise RivalsError(f"log_base must be a finite number above 1; got {self.log_base!r}")

    def __call__(self, scores: Tensor, relevance: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the weights [..., R, R]."""
        scores = scores.detach()
        mask = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
        there = mask.unsqueeze(-1) & mask.unsqueeze(-2)
        weight = there.to(scores.dtype) * (scores.shape[-1] if self.scale_by_list_size else 1)
        if self.by != "discount":
            gains = graded_gains(relevance.to(scores.dtype).masked_fill(~mask, 0.0), self.gain)
            if self.normalize:
                gains = gains / ideal_dcg(gains, mask, top=self.top)
            weight = weight * _distance(gains)
        if self.by != "gain":
            discounts = rank_discounts(list_ranks(scores, mask), scores.dtype, top=self.top)
            weight = weight * _distance(discounts * math.log2(self.log_base))
        return weight


def margin_gate(margins: Tensor, gate_margin: float, gate_temperature: float) -> Tensor:
    """sigmoid((b - M) / tau): near 1 while a pair's margin M is below b, near 0 once it is above.

    >>> margin_gate(torch.tensor([0.0, 9.0]), 0.0, 1.0)
    tensor([5.0000e-01, 1.2339e-04])
    """
    return torch.sigmoid((gate_margin - margins) / gate_temperature)


def _distance(values: Tensor) -> Tensor:
    return (values.unsqueeze(-1) - values.unsqueeze(-2)).abs()
