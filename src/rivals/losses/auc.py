"""Losses over one pool: every positive of the batch against every negative of the batch, whatever their queries."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import Checked, check_choice, check_lists, check_positive
from rivals.losses._fused.pairs import Hinge, Kernel, Logistic, SquaredHinge, ordered_pairs, pair_sums

__all__ = ["mann_whitney_loss"]

Surrogate = Literal["logistic", "hinge", "squared_hinge"]
Average = Literal["pairs", "positives"]


def mann_whitney_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    temperature: float = 1.0,
    surrogate: Surrogate = "logistic",
    margin: float = 1.0,
    graded: bool = False,
    average: Average = "pairs",
) -> Tensor:
    """Mann-Whitney loss: every positive score of the batch against every negative one, across queries (pooled AUC).

    Formula:
        L = sum_p sum_n w_p w_n phi((s_p - s_n) / temperature) / sum_p sum_n w_p w_n, p over all positives (relevance >
        0) and n over all other candidates of the whole batch; w = `weight`, or 1.

        - surrogate: phi(d) = log(1 + e^-d) ("logistic"), max(0, margin - d) ("hinge") or its square.
        - graded: all pairs of the batch whose first candidate has the higher relevance.
        - average="positives": divided by sum_p w_p alone, so that the negatives of a positive are added up.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0 -> scalar.

    When to use:
        Scores that must be comparable between queries: one threshold for all, as in retrieval that may return nothing.
        The gradient is spread over all negatives of the pool: expect another learning rate than with `info_nce_loss`.
        At a temperature of 0.01 to 0.05 for cosines.

    Relations:
        One list: `pairwise_logistic_loss` at temperature 1. Divided by ln 2 it bounds one minus the pooled AUC from
        above. Unlike `info_nce_loss` it notices a constant added to the scores of one query; only a constant added
        to all scores leaves it.

    Source:
        "Optimizing What Matters: AUC-Driven Learning for Robust Neural Retrieval" (2025), eqs. 2 and 3, lemma 2.
        Paper 17. Eq. 3 as printed adds negatives up and has no temperature (average="positives", temperature=1); the
        default is the mean over pairs of eq. 2 with the temperature of lemma 2.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, temperature <= 0, a margin that is not finite, an unknown surrogate or
        average.

    Example:
        >>> import torch
        >>> mann_whitney_loss(torch.tensor([[1.0, 0.8], [0.5, 0.0]]), torch.tensor([[1, 0], [1, 0]]))
        tensor(0.5600)

        The logistic surrogate costs O(positives x negatives), in blocks; the hinges O(N log N).
    """
    check_positive(temperature, "temperature")
    check_choice(surrogate, get_args(Surrogate), "surrogate")
    check_choice(average, get_args(Average), "average")
    if not math.isfinite(margin):
        raise RivalsError(f"margin must be a finite number; got {margin!r}")
    lists = check_lists(scores, relevance, mask, weight, "mean")
    label = lists.relevance if graded else (lists.relevance > 0).to(lists.scores.dtype)
    pool = Checked(
        lists.scores.reshape(1, -1) / temperature,
        label.reshape(1, -1),
        lists.mask.reshape(1, -1),
        None if lists.weight is None else lists.weight.reshape(1, -1),
    )
    kernel: Kernel = Logistic()
    if surrogate != "logistic":
        kernel = Hinge(margin) if surrogate == "hinge" else SquaredHinge(margin)
    count = _pair_count(pool, average)
    return (pair_sums(pool, kernel).total / count.masked_fill(count == 0, 1.0)).sum()


def _pair_count(pool: Checked, average: Average) -> Tensor:
    """Return the number, by weight, of pairs of the pool, or of candidates that are the better one of a pair."""
    pairs = ordered_pairs(pool.relevance, pool.mask)
    counted = (pool.mask if pool.weight is None else pool.weight).to(pool.scores.dtype).gather(-1, pairs.order)
    running = F.pad(counted.cumsum(-1), (1, 0))
    worse = running.gather(-1, pairs.stop) - running.gather(-1, pairs.start)
    return (counted * (worse if average == "pairs" else (worse > 0).to(counted.dtype))).sum(-1)
