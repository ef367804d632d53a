"""Positives that nobody labelled: large-loss modification of assumed negatives, and boosted pooling of locations."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.lists import masked_logsumexp, masked_mean
from rivals.losses._common import (
    Checked,
    Reduction,
    check_choice,
    check_lists,
    check_mask,
    check_positive,
    check_scores,
    reduce_lists,
)

__all__ = [
    "BoostLU",
    "boosted_pool",
    "large_loss_fraction",
    "large_loss_modification_loss",
    "large_loss_selection",
]

Scheme = Literal["reject", "correct", "correct_permanent"]
DELTAS: dict[str, float] = {"reject": 0.005, "correct": 0.002, "correct_permanent": 0.001}
"""What share of all entries is added to the selection in every epoch, by scheme."""


def large_loss_modification_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    unknown: Tensor | None = None,
    fraction: float = 0.05,
    scheme: Literal["reject", "correct"] = "reject",
    weight: Tensor | None = None,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Binary cross entropy that takes unknown labels for negative, save those where that costs most.

    Formula:
        l_i = cross entropy of s_i with y_i = [relevance > 0], 0 where unknown. The ceil(fraction n) unknown entries
        with the largest l_i, n being all entries of the batch (`large_loss_selection`), have l_i replaced: by 0 with
        "reject", by the cross entropy with y_i = 1 with "correct". L = mean of w_i l_i over all n entries, the rejected
        ones included.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0 (not read where unknown), mask bool[..., C] (False = not there),
        unknown bool[..., C] (by default every entry of relevance 0), weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none".

    When to use:
        Labels, clicks or judgements with known positives, and negatives only assumed. Let the fraction rise with the
        epochs (`large_loss_fraction`), from 0 in the first. The default is about what the paper's reject schedule
        reaches in its tenth.

    Relations:
        fraction 0: `binary_cross_entropy_loss`, unknown counted as negative. "correct" for good ("LL-Cp") is the same
        loss: write `large_loss_selection` into the labels after the step. `entropy_maximisation_loss` leaves unknown
        labels undecided instead.

    Source:
        Kim et al. (2022), large loss matters, eqs. 4 to 7; Kim et al. (2023), section 4. Paper 80. Where fewer unknown
        entries than ceil(fraction n) exist the released code selects known labels too; here it never does.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask or unknown, negative or NaN
        relevance or weight at an entry that is there, fraction outside [0, 1], an unknown scheme or reduction.

    Example:
        >>> import torch
        >>> scores, relevance = torch.tensor([[3.0, 2.0, -1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
        >>> [round(large_loss_modification_loss(scores, relevance, fraction=f).item(), 4) for f in (0.0, 0.3)]
        [0.8296, 0.1206]
    """
    check_choice(scheme, ("reject", "correct"), "scheme")
    lists, towards, unsure = _assumed(scores, relevance, mask, unknown, weight, reduction)
    loss = -F.logsigmoid(towards)
    selected = _select(towards, unsure, lists.mask, fraction, generator)
    loss = loss.masked_fill(selected, 0.0) if scheme == "reject" else loss.where(~selected, -F.logsigmoid(-towards))
    if lists.weight is not None:
        loss = loss * lists.weight
    return reduce_lists(loss.masked_fill(~lists.mask, 0.0).sum(-1), lists.mask.sum(-1), reduction)


def large_loss_selection(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    unknown: Tensor | None = None,
    fraction: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the unknown entries with the largest loss as assumed negatives, that is, with the highest scores.

    ceil(fraction n) of them, n being all entries of the batch; more where scores tie at the last place, fewer where
    fewer are unknown, and never a known one. Since every small batch then selects at least one entry, a `generator`
    rounds at random instead, so that the number is right on average. Arguments as in `large_loss_modification_loss`.

    With "correct_permanent" (LL-Cp) these become positives for good: set relevance 1 and unknown False there, and cap
    how often, since errors add up.

    Shapes: scores float[..., C], relevance [..., C], mask and unknown bool[..., C] -> bool[..., C].

    Source: Kim et al. (2022), eq. 4; Kim et al. (2023). Paper 80.

    Raises:
        RivalsError: as `large_loss_modification_loss`.

    >>> scores, relevance = torch.tensor([[3.0, 2.0, -1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> large_loss_selection(scores, relevance, fraction=0.3)
    tensor([[False,  True, False]])
    """
    lists, towards, unsure = _assumed(scores, relevance, mask, unknown, None, "none")
    return _select(towards, unsure, lists.mask, fraction, generator)


def large_loss_fraction(epoch: int, *, scheme: Scheme, delta: float | None = None, start_epoch: int = 2) -> float:
    """Return the fraction of entries to modify in an epoch, counted from 1.

    0 before `start_epoch`; then delta for each epoch since, the start included ("reject", "correct"), or always delta
    ("correct_permanent", whose corrections stay). Never above 1. By default delta is 0.005, 0.002 or 0.001.

    Source: Kim et al. (2022), section 4.3; the percentages are those of the released code. Paper 80.

    Raises:
        RivalsError: an unknown scheme, an epoch or start_epoch below 1, delta outside [0, 1].

    >>> [large_loss_fraction(epoch, scheme="reject") for epoch in (1, 2, 3)]
    [0.0, 0.005, 0.01]
    """
    check_choice(scheme, tuple(DELTAS), "scheme")
    for value, name in ((epoch, "epoch"), (start_epoch, "start_epoch")):
        if value < 1:
            raise RivalsError(f"{name} counts from 1; got {value!r}")
    delta = DELTAS[scheme] if delta is None else delta
    if not 0 <= delta <= 1:
        raise RivalsError(f"delta must lie in 0..1; got {delta!r}")
    if epoch < start_epoch:
        return 0.0
    return min(delta if scheme == "correct_permanent" else (epoch - start_epoch + 1) * delta, 1.0)


def boosted_pool(
    scores: Tensor,
    mask: Tensor | None = None,
    *,
    alpha: float = 5.0,
    pool: Literal["mean", "max", "logsumexp"] = "mean",
) -> Tensor:
    """Pool the scores of locations (image regions, passages) into one logit, positive evidence multiplied by alpha.

    b = alpha s where s > 0, else s; then the mean, maximum or log-sum-exp of b over the last dimension. A model trained
    with missing positives finds the right places but dampens them; this gives their evidence back.

    Args:
        scores: float[..., L], for each item and label its L locations (`maps.flatten(-2)` for [..., H, W]).
        mask: bool[..., L]; False = padding. Without any location the result is 0.
        alpha: 1 is plain pooling; the mean then equals a linear layer on mean-pooled features.

    Source: Kim et al. (2023), eq. 5 (BoostLU), alpha 5. Paper 80. The mean is the paper's.

    Raises:
        RivalsError: scores that are not floating-point, a mask that does not fit, alpha <= 0, an unknown pool.

    >>> boosted_pool(torch.tensor([-1.0, 2.0]))
    tensor(4.5000)
    """
    check_positive(alpha, "alpha")
    check_choice(pool, ("mean", "max", "logsumexp"), "pool")
    check_scores(scores, "scores")
    check_mask(mask, scores, "mask")
    there = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    clean = scores.masked_fill(~there, 0.0)
    boosted = torch.where(clean > 0, alpha * clean, clean)
    if pool == "logsumexp":
        return masked_logsumexp(boosted, there)
    if pool == "mean":
        return masked_mean(boosted, there, -1)
    if scores.shape[-1] == 0:
        return boosted.sum(-1)
    empty = ~there.any(-1)
    return boosted.masked_fill(~there & ~empty.unsqueeze(-1), float("-inf")).amax(-1).masked_fill(empty, 0.0)


class BoostLU(nn.Module):
    """The activation of `boosted_pool`: alpha x for x > 0, else x. Put it before the pooling, never after.

    Source: Kim et al. (2023), eq. 5. Paper 80.

    Raises:
        RivalsError: alpha <= 0.

    >>> BoostLU(alpha=3.0)(torch.tensor([-1.0, 2.0]))
    tensor([-1.,  6.])
    """

    def __init__(self, *, alpha: float = 5.0) -> None:
        super().__init__()
        check_positive(alpha, "alpha")
        self.alpha = alpha

    def forward(self, scores: Tensor) -> Tensor:
        """Return the boosted scores."""
        return torch.where(scores > 0, self.alpha * scores, scores)

    def extra_repr(self) -> str:
        """Say alpha where the module is printed."""
        return f"alpha={self.alpha}"


def check_unknown(unknown: Tensor | None, lists: Checked) -> Tensor:
    """Return which entries are there but unknown; by default those of relevance 0."""
    check_mask(unknown, lists.scores, "unknown")
    return ((lists.relevance == 0) if unknown is None else unknown) & lists.mask


def _assumed(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None,
    unknown: Tensor | None,
    weight: Tensor | None,
    reduction: Reduction,
) -> tuple[Checked, Tensor, Tensor]:
    """Return the checked lists, every score towards its assumed label, and which labels are unknown."""
    lists = check_lists(scores, relevance, mask, weight, reduction)
    unsure = check_unknown(unknown, lists)
    return lists, lists.scores.where((lists.relevance > 0) & ~unsure, -lists.scores), unsure


def _select(
    towards: Tensor, unsure: Tensor, there: Tensor, fraction: float, generator: torch.Generator | None
) -> Tensor:
    """Return the unknown entries with the largest loss, that is, with the least score towards their label."""
    if not 0 <= fraction <= 1:
        raise RivalsError(f"fraction must lie in 0..1; got {fraction!r}")
    wanted = int(there.sum()) * fraction
    if generator is None:
        number = math.ceil(wanted)
    else:
        number = math.floor(wanted)
        number += int(torch.rand((), generator=generator).item() < wanted - number)
    number = min(number, int(unsure.sum()))
    if number == 0:
        return torch.zeros_like(unsure)
    lowest = towards.detach().masked_fill(~unsure, float("inf")).flatten().kthvalue(number).values
    return unsure & (towards.detach() <= lowest)
