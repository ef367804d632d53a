"""Metric learning: every row of a batch against all others, by label, straight from embeddings.

Each loss is its ranking form (`losses/pair_similarity.py`) with every row as the query of one list, the other rows as
candidates and the row itself left out. From 512 rows on the N x N matrix is gone through in blocks whose gradients are
taken on the way, so nothing of that size is kept (`fused`).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.losses._common import (
    CheckedRows,
    check_choice,
    check_positive,
)
from rivals.losses._fused.labelled import (
    Fused,
    check_labelled,
    labelled_loss,
    pair_log_sum,
    use_blocks,
    vectors_of,
)
from rivals.losses._pair_terms import (
    PairReduction,
    Pairs,
    Parts,
    Terms,
    circle_pull,
    circle_push,
    circle_terms,
    multi_similarity_terms,
    split_reduction,
)
from rivals.losses.contrastive import info_nce_loss
from rivals.losses.pair_similarity import (
    EmptyAnchor,
    Pairing,
    check_circle,
    check_multi_similarity,
    circle_loss,
)

__all__ = [
    "in_batch_circle_loss",
    "in_batch_multi_similarity_loss",
    "in_batch_supervised_contrastive_loss",
]


def in_batch_multi_similarity_loss(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    threshold: float = 0.5,
    epsilon: float | None = 0.1,
    empty_anchor: EmptyAnchor = "skip",
    normalize: bool = True,
    reduction: PairReduction = "mean",
    fused: Fused = "auto",
) -> Tensor:
    """Multi-similarity loss of a batch of labelled embeddings, with its own mining.

    Formula:
        `multi_similarity_loss` on s_ij = cos(e_i, e_j), j != i (dot products with normalize=False), positives the rows
        of the same label. Mean over all N anchors, those without a competing pair included (worth 0);
        "mean_positive": over the others.

    Shapes:
        embeddings float[N, D], labels int[N], mask bool[N] (False = no example) -> scalar, or float[N] with
        reduction="none".

    When to use:
        A robust first choice for labelled embeddings: batches of some classes with about 5 examples each.

    Relations:
        epsilon=None: no mining. With empty_anchor="partial" it equals pytorch-metric-learning's MultiSimilarityLoss
        (with MultiSimilarityMiner for an epsilon).

    Source:
        Wang et al. (2019), eqs. 11 to 15. Paper 41. Threshold and empty anchors: see `multi_similarity_loss`.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels that are not whole numbers, alpha or beta <= 0,
        epsilon < 0, an unknown empty_anchor or reduction, fused=True with reduction="none", or a second derivative of
        the blocked version.

    Example:
        >>> import torch
        >>> in_batch_multi_similarity_loss(torch.eye(4), torch.tensor([0, 0, 1, 1]))
        tensor(0.6566)

        O(N^2 D) time; memory O(N D) from 512 rows on.
    """
    check_multi_similarity(alpha, beta, epsilon, empty_anchor)
    rows, plain, above = check_labelled(embeddings, labels, mask, reduction)

    def terms(pairs: Pairs) -> Parts:
        return multi_similarity_terms(
            pairs,
            alpha=alpha,
            beta=beta,
            threshold=threshold,
            epsilon=epsilon,
            partial=empty_anchor == "partial",
            positive_only=above,
        )

    return labelled_loss(rows, vectors_of(rows, normalize), terms, plain, fused=fused)


def in_batch_circle_loss(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    margin: float = 0.25,
    scale: float = 64.0,
    pairing: Pairing = "row",
    detach_weights: bool = True,
    normalize: bool = True,
    reduction: PairReduction = "mean",
    fused: Fused = "auto",
) -> Tensor:
    """Circle loss of a batch of labelled embeddings.

    Formula:
        `circle_loss` on s_ij = cos(e_i, e_j), j != i, positives the rows of the same label. Mean over the anchors
        with a positive and a negative; "mean_positive": over those with a loss above 0. pairing="batch": one list of
        all pairs of the batch, each once.

    Shapes:
        embeddings float[N, D], labels int[N], mask bool[N] (False = no example) -> scalar, or float[N] with
        reduction="none" and pairing="row".

    When to use:
        Labelled embeddings compared by cosine. pairing="batch" lets anchors outweigh each other: its size differs.

    Relations:
        reduction="mean_positive", margin 0.4, scale 80: the default of pytorch-metric-learning's CircleLoss.
        Against class weights instead of examples: `circle_class_loss`.

    Source:
        Sun et al. (2020), eqs. 5 to 8. Paper 117. Fine-grained retrieval: margin 0.4, scale 80.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels that are not whole numbers, margin < 0,
        scale <= 0, an unknown pairing or reduction, fused=True with reduction="none", or a second derivative of the
        blocked version.

    Example:
        >>> import torch
        >>> in_batch_circle_loss(torch.eye(4), torch.tensor([0, 0, 1, 1]))
        tensor(56.6931)

        O(N^2 D) time; memory O(N D) from 512 rows on.
    """
    check_circle(margin, scale)
    check_choice(pairing, get_args(Pairing), "pairing")
    rows, plain, above = check_labelled(embeddings, labels, mask, reduction)
    vectors = vectors_of(rows, normalize)
    if pairing == "batch":
        return _circle_of_batch(rows, vectors, margin, scale, detach_weights, reduction, fused)

    def terms(pairs: Pairs) -> Parts:
        return circle_terms(
            pairs,
            margin=margin,
            scale=scale,
            detach_weights=detach_weights,
            positive_only=above,
        )

    return labelled_loss(rows, vectors, terms, plain, fused=fused)


def _circle_of_batch(
    rows: CheckedRows,
    vectors: Tensor,
    margin: float,
    scale: float,
    detach_weights: bool,
    reduction: PairReduction,
    fused: Fused,
) -> Tensor:
    """One circle loss over the pairs above the diagonal."""
    plain, _ = split_reduction(reduction)
    if use_blocks(len(vectors), plain, fused):

        def pull(pairs: Pairs) -> Tensor:
            return circle_pull(pairs.pulled, margin=margin, scale=scale, detach_weights=detach_weights)

        def push(pairs: Pairs) -> Tensor:
            return circle_push(pairs.pushed, margin=margin, scale=scale, detach_weights=detach_weights)

        pulls = pair_log_sum(vectors, rows.labels, pull, same=True)
        pushes = pair_log_sum(vectors, rows.labels, push, same=False)
        return -F.logsigmoid(-(pulls + pushes))
    first, second = torch.triu_indices(len(vectors), len(vectors), 1, device=vectors.device)
    with torch.autocast(vectors.device.type, enabled=False):
        scores = (vectors @ vectors.T)[first, second]
    relevance = (rows.labels[first] == rows.labels[second]).to(scores.dtype)
    return circle_loss(
        scores, relevance, margin=margin, scale=scale, detach_weights=detach_weights, reduction=reduction
    )


def in_batch_supervised_contrastive_loss(
    embeddings: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float = 0.1,
    positives: Literal["each", "all"] = "all",
    normalize: bool = True,
    reduction: PairReduction = "mean",
    fused: Fused = "auto",
) -> Tensor:
    """Supervised contrastive loss (SupCon): InfoNCE of every row over all others, the rows of its label as positives.

    Formula:
        L_i = -1/|P_i| sum_{p in P_i} log [ e^{s_ip/t} / sum_{a != i} e^{s_ia/t} ], s_ij = cos(e_i, e_j), which is
        `info_nce_loss` with positives="all". positives="each": the other positives do not compete with p. Mean over the anchors with
        a positive; "mean_positive": over those with a loss above 0.

    Shapes:
        embeddings float[N, D] (all views of all examples, one row each), labels int[N], mask bool[N] (False = no
        example) -> scalar, or float[N] with reduction="none".

    When to use:
        Pre-training of encoders on labels (several views of an example share its label), before a classifier.

    Relations:
        Two views an example and no other label twice: SimCLR's NT-Xent. Equals pytorch-metric-learning's SupConLoss
        where every anchor has a positive.

    Source:
        Khosla et al. (2020), eq. 2 (L_out), without its temperature ratio. Papers 27, 41, 44.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels that are not whole numbers, temperature <= 0, an
        unknown positives or reduction, fused=True with reduction="none", or a second derivative of the blocked
        version.

    Example:
        >>> import torch
        >>> in_batch_supervised_contrastive_loss(torch.eye(4), torch.tensor([0, 0, 1, 1]), temperature=1.0)
        tensor(1.0986)

        O(N^2 D) time; memory O(N D) from 512 rows on.
    """
    check_positive(temperature, "temperature")
    check_choice(positives, ("each", "all"), "positives")
    rows, plain, above = check_labelled(embeddings, labels, mask, reduction, on_empty="ignore")

    def terms(pairs: Pairs) -> Parts:
        # an anchor's negatives enter as one whose score is their log-sum-exp
        rivals = (pairs.push_log_sum(pairs.pushed / temperature) * temperature).unsqueeze(-1)
        scores = torch.cat([pairs.only_pulled(pairs.pulled, 0.0), rivals], dim=-1)
        there = torch.cat([pairs.pulled_there, (pairs.negatives > 0).unsqueeze(-1)], dim=-1)
        relevance = F.pad(pairs.pulled_there.to(scores.dtype), (0, 1))
        losses = info_nce_loss(scores, relevance, there, temperature=temperature, positives=positives, reduction="none")
        return (Terms(losses, losses > 0 if above else pairs.positives > 0),)

    return labelled_loss(rows, vectors_of(rows, normalize), terms, plain, fused=fused)
