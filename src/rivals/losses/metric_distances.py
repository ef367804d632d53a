"""Metric learning on Euclidean distances: every row of a labelled batch against all others."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rivals.losses._common import check_at_least_zero, check_choice, check_finite, spread_rows
from rivals.losses._fused.labelled import Fused, check_labelled, labelled_loss, use_blocks, vectors_of
from rivals.losses._pair_terms import (
    Mining,
    PairReduction,
    Pairs,
    Parts,
    Terms,
    contrastive_terms,
    hinge,
    needs_generator,
    reduce_parts,
    triplet_terms,
)
from rivals.losses.mining import drawn, hardest
from rivals.losses.pair_similarity import check_triplets

__all__ = ["in_batch_contrastive_loss", "in_batch_triplet_loss"]


def in_batch_triplet_loss(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    margin: float = 0.2,
    mining: Mining = "hard",
    soft: bool = False,
    squared: bool = False,
    normalize: bool = False,
    generator: torch.Generator | None = None,
    on_empty: Literal["zero", "raise"] = "zero",
    reduction: PairReduction = "mean",
    fused: Fused = "auto",
) -> Tensor:
    """Triplet loss of a batch of labelled embeddings: a row's class must be nearer than all others by a margin.

    Formula:
        max(0, d_ap - d_an + m), or log(1 + e^{d_ap - d_an + m}) with `soft` (usual with margin 0), d the Euclidean
        distance (its square with `squared`), over the triplets that `mining` takes for each anchor a:

        - "hard": the farthest row of its class and the nearest of another. "random": one of each, drawn evenly.
        - "semihard": for every row p of its class the nearest n of another with d_an > d_ap, or the farthest if none.
        - "all": every triplet.

        Mean over triplets; "mean_positive", and "mean" with mining="all": over those with a loss above 0.

    Shapes:
        embeddings float[N, D] (raw; normalize=True for unit rows), labels int[N], mask bool[N] (False = no example)
        -> scalar, or float[N] with reduction="none" (each anchor's sum).

    When to use:
        Distances where only the order counts. Watch `rivals.diagnose.collapse_report`: with "hard", large batches and
        small widths collapse to one point, where the loss is exactly the margin; begin with "semihard" or "all".

    Relations:
        `triplet_loss` on minus the distances. One positive and one negative: all kinds of mining agree. Its largest
        term over a batch is twice the distance to the nearest separated arrangement (`triplet_separation_gap`).

    Source:
        Hermans et al. (2017), eq. 5; Schroff et al. (2015), FaceNet, eq. 3; Xu et al. (2022). Papers 12, 75.
        "hard" with reduction="mean_positive" equals pytorch-metric-learning's TripletMarginLoss with BatchHardMiner.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels that are not whole numbers, NaN or infinite
        embeddings, margin < 0, mining="random" without a generator, no anchor with both a positive and a negative
        when on_empty="raise", an unknown mining, on_empty or reduction, fused=True with reduction="none", or a second
        derivative of the blocked version.

    Example:
        >>> import torch
        >>> points = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> in_batch_triplet_loss(points, torch.tensor([0, 0, 1, 1]), margin=0.5)
        tensor(0.6250)

        O(N^2 D) time; memory O(N D) from 512 rows on. "random" costs O(N D); "all" with `soft` O(N^2) numbers per
        example of a class.
    """
    check_triplets(margin, mining)
    check_choice(on_empty, ("zero", "raise"), "on_empty")
    rows, plain, above = check_labelled(embeddings, labels, mask, reduction, on_empty=on_empty)
    check_finite(rows.rows, "embeddings")
    vectors = vectors_of(rows, normalize)
    by_blocks = use_blocks(len(vectors), plain, fused)
    if mining in ("hard", "random"):
        found = hardest(vectors, rows.labels) if mining == "hard" else drawn(rows.labels, needs_generator(generator))
        near, far, valid = found
        anchor = vectors[valid]
        violation = _distance(anchor, vectors[near[valid]], squared) - _distance(anchor, vectors[far[valid]], squared)
        there = torch.ones_like(violation[:, None], dtype=torch.bool)
        total, count = hinge(violation[:, None] + margin, there, soft=soft, positive_only=above)
        spread = (spread_rows(spread_rows(values, valid), rows.mask) for values in (total, count))
        return reduce_parts((Terms(*spread),), plain)

    def terms(pairs: Pairs) -> Parts:
        return triplet_terms(pairs, margin=margin, mining=mining, soft=soft, positive_only=above)

    largest = int(rows.labels.unique(return_counts=True)[1].max()) if mining == "all" and soft and by_blocks else 1
    return labelled_loss(
        rows, vectors, terms, plain, fused=by_blocks, distance=True, squared=squared, load=max(1, largest - 1)
    )


def _distance(left: Tensor, right: Tensor, squared: bool) -> Tensor:
    """Return the distances of paired rows; that of equal rows has a zero gradient."""
    square = (left - right).square().sum(1)
    return square if squared else square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()


def in_batch_contrastive_loss(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    margin: float = 1.0,
    positive_margin: float = 0.0,
    squared: bool = True,
    normalize: bool = False,
    reduction: PairReduction = "mean",
    fused: Fused = "auto",
) -> Tensor:
    """Contrastive loss of a batch of labelled embeddings: a class within one distance, all others beyond another.

    Formula:
        Same label: max(0, d - m_p)^2. Different labels: max(0, m - d)^2. Without the square for squared=False; d the
        Euclidean distance, m = `margin`, m_p = `positive_margin`. Mean over the pairs of either kind by itself, then
        the sum of both; "mean_positive": over the terms above 0 of either kind.

    Shapes:
        embeddings float[N, D] (raw; normalize=True for unit rows), labels int[N], mask bool[N] (False = no example)
        -> scalar, or float[N] with reduction="none" (each anchor's sum).

    When to use:
        Absolute distances matter (a threshold decides later), or as the plain baseline of metric learning.

    Relations:
        In the terms of pair weights: positives all weigh alike, negatives inside the margin too (squared=False).
        normalize=True, squared=False, "mean_positive": pytorch-metric-learning's ContrastiveLoss.

    Source:
        Hadsell et al. (2006), eq. 4, without its factor 1/2. Papers 41, 44. That either kind is averaged by itself,
        so that the many negatives do not drown the positives, follows pytorch-metric-learning.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels that are not whole numbers, a margin < 0, an
        unknown reduction, fused=True with reduction="none", or a second derivative of the blocked version.

    Example:
        >>> import torch
        >>> points = torch.tensor([[0.0], [0.5], [0.9]])
        >>> in_batch_contrastive_loss(points, torch.tensor([0, 0, 1]))
        tensor(0.4350)

        O(N^2 D) time; memory O(N D) from 512 rows on.
    """
    check_at_least_zero(margin, "margin")
    check_at_least_zero(positive_margin, "positive_margin")
    rows, plain, above = check_labelled(embeddings, labels, mask, reduction, on_empty="ignore")

    def terms(pairs: Pairs) -> Parts:
        return contrastive_terms(
            pairs,
            margin=margin,
            positive_margin=positive_margin,
            squared=squared,
            positive_only=above,
        )

    return labelled_loss(rows, vectors_of(rows, normalize), terms, plain, fused=fused, distance=True)
