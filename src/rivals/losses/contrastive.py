"""Contrastive losses: a positive against its rivals under a softmax, over given scores or straight from embeddings."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_choice,
    check_lists,
    check_mask,
    check_positive,
    check_reduction,
    check_scores,
    check_shape,
    reduce_lists,
)
from rivals.losses._fused.info_nce import fused_in_batch_loss
from rivals.losses._in_batch import Direction, Positives, Rule, in_batch_loss, joint_loss, list_losses, unit_rows
from rivals.losses._pairs import SameGroup, check_assignment

__all__ = ["in_batch_info_nce_loss", "info_nce_loss"]

Targets = Literal["diagonal", "similarity"]
FUSED_FROM = 4_096
"""From how many scores (queries times documents) fused="auto" takes the fused version."""


def info_nce_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    temperature: float = 0.05,
    margin: float = 0.0,
    symmetric: bool = False,
    positives: Positives = "each",
    positive_prior: float = 0.0,
    lowest_score: float = -1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """InfoNCE over given scores: every positive of a list against the list's negatives.

    Formula:
        L_q = - sum_p (w_p / W) log [ e^{(s_p - margin)/t} / Z_p ],  W = sum_p w_p over the positives (relevance > 0),
        D = sum_n w_n e^{s_n/t} over the negatives.

        - positives="each": Z_p = e^{(s_p - margin)/t} + D; the other positives do not compete with p.
        - positives="all": Z_p = sum of e^{(s - margin)/t} over all positives + D, the same for every p.
        - positives="graded": as "all", with w_p times relevance_p in place of w_p: a teacher's distribution.
        - positives="decoupled": Z_p = D, without the positive itself; the loss may be negative.

        With `positive_prior` c, D becomes max{ [D - c N sum_p (w_p/W) e^{s_p/t}] / (1 - c), N e^{lowest_score/t} },
        N = sum_n w_n: the part of the negatives that is expected to be positive is taken out (debiased).
        Mean over the lists with a positive; a list without one is left out. `symmetric` adds the same loss over the
        columns of scores[Q, C] (each document against the queries) and averages the two.

    Shapes:
        scores float[..., C] (cosines at the default temperature), relevance [..., C] >= 0, mask bool[..., C],
        weight float[..., C] >= 0 (a positive's share, a negative's multiplicity; 0 removes it)
        -> scalar, or float[...] with reduction="none". `symmetric` needs two dimensions and another reduction.

    When to use:
        Retrievers trained with in-batch or mined negatives when the scores are there already; false negatives are
        masked, or, when nobody knows which they are, expected (`positive_prior`: the chance that a negative is one).

    Relations:
        One positive: `softmax_loss` at that temperature. positives="all", weights 1: L_out of supervised contrastive
        learning; "graded": `softmax_loss` with normalised labels; "decoupled": NT-Xent without the positive below.
        Identity relevance over cosines: the multiple negatives ranking loss. `in_batch_info_nce_loss` builds the
        scores too. `structure_aware_info_nce_loss` estimates the false negatives from a graph.

    Source:
        van den Oord et al. (2018), CPC, eq. 4; Henderson et al. (2017), section 4.4; Khosla et al. (2020), eq. 2
        ("all"); Yeh et al. (2021), eq. 6 ("decoupled"); Chuang et al. (2020), eqs. 7 and 8 (`positive_prior`; the
        list's positives are its M samples). Papers 1, 3, 7, 10, 13, 26, 28, 32, 37, 43, 52, 68, 81, 114. The default
        temperature is 1/20, as in sentence-transformers.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, temperature <= 0, margin < 0, positive_prior outside [0, 1), a
        lowest_score that is not finite, "graded" with margin or positive_prior, an unknown positives or reduction,
        symmetric on other than [Q, C] or with reduction="none".

    Example:
        >>> import torch
        >>> info_nce_loss(torch.tensor([[0.8, 0.6], [0.5, 0.9]]), torch.eye(2))
        tensor(0.0092)
    """
    rule = check_rule(positives, temperature, margin, positive_prior, lowest_score)
    lists = check_lists(scores, relevance, mask, weight, reduction)
    label, logits = lists.relevance, lists.scores / temperature
    if not symmetric:
        return reduce_lists(*list_losses(logits, label, lists.mask, lists.weight, rule), reduction)
    if scores.ndim != 2 or reduction == "none":
        raise RivalsError(
            f'symmetric needs scores of shape [Q, C] and a reduction other than "none"; '
            f"got shape {tuple(scores.shape)} and reduction {reduction!r}"
        )
    columns = None if lists.weight is None else lists.weight.T
    rows_loss = reduce_lists(*list_losses(logits, label, lists.mask, lists.weight, rule), reduction)
    columns_loss = reduce_lists(*list_losses(logits.T, label.T, lists.mask.T, columns, rule), reduction)
    return (rows_loss + columns_loss) / 2


def in_batch_info_nce_loss(
    queries: Tensor,
    documents: Tensor,
    relevance: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    negatives: Tensor | None = None,
    negative_mask: Tensor | None = None,
    weight: Tensor | None = None,
    positive_columns: Tensor | None = None,
    query_groups: Tensor | None = None,
    document_groups: Tensor | None = None,
    same_group: SameGroup = "positive",
    temperature: float = 0.05,
    margin: float = 0.0,
    normalize: bool = True,
    directions: tuple[Direction, ...] = ("query_to_document",),
    joint: bool = False,
    targets: Targets = "diagonal",
    positives: Positives = "each",
    positive_prior: float = 0.0,
    lowest_score: float = -1.0,
    reduction: Reduction = "mean",
    fused: bool | Literal["auto"] = "auto",
    matmul_dtype: torch.dtype | None = None,
) -> Tensor:
    """InfoNCE straight from embeddings: every query against all documents of the batch.

    Formula:
        s_qc = cos(query_q, document_c) (the dot product with normalize=False), then `info_nce_loss` on s, with its
        margin, positives (several, weighted, or graded: a teacher's distribution over the documents), positive_prior
        and lowest_score.

        - directions: "query_to_document" goes over the rows, each extended by the query's private negatives;
          "document_to_query" over the columns, those without a positive left out. Several are averaged.
        - joint=True: one softmax per (query i, positive p) instead. Its denominator is e^{s_ip/t} plus the negatives
          of every direction named: documents for i, queries for p, other queries for i ("query_to_query"), other
          documents for p ("document_to_document"). Queries that share a positive with i, and documents absent or
          positive for i, are left out.
        - targets="similarity": row i's target is argmax_j t_ij and column j's is argmax_i t_ij, with t the softmax
          over rows of (Q Q' + D D') / 2. It leaves the diagonal only for vectors of unequal length.

    Shapes:
        queries float[Q, D], documents float[C, D], relevance [Q, C] >= 0, mask bool[Q, C], negatives float[Q, N, D],
        negative_mask bool[Q, N], weight float[Q, C] >= 0, positive_columns int64[Q], query_groups int64[Q],
        document_groups int64[C] -> scalar, or float[Q] (float[C] for "document_to_query" alone) with
        reduction="none". Without relevance and groups, document i is the positive of query i (or `positive_columns`
        say which is) and further documents are shared negatives. Groups name the positives (same_group="positive"),
        or hide the other members of a query's group from its denominator (same_group="ignore"): no [Q, C] matrix is
        needed for either.

    When to use:
        Training retrievers on pairs, with or without mined negatives. Large batches: the fused version never builds
        [Q, C] of scores, whatever the options, and computes its gradients in the forward pass; "auto" takes it from
        4,096 scores on. weight hides or lightens false negatives that another model suspects (`false_negative_weights`).
        matmul_dtype=torch.bfloat16 is for hardware with fast bfloat16 (gradients then agree to about 1 %).

    Relations:
        The multiple negatives ranking loss of sentence-transformers (mined negatives appended to documents); both
        directions: CLIP's loss. Its joint softmax over several directions counts the positive twice when documents
        look at queries; here it counts once. Equals `info_nce_loss` on the cosine matrix.

    Source:
        Henderson et al. (2017), section 4.4; Radford et al. (2021), CLIP, figure 3; Li et al. (2023), GTE, eq. 3
        (joint); Chuang et al. (2020), eq. 8 (`positive_prior`). Papers 1, 3, 13, 28, 37, 43, 51, 52, 99, 114. Paper 3's
        reference has no temperature (temperature=1) and its `mnr_plus` takes targets="similarity"; the default here is
        the diagonal.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a document that is there, temperature <= 0, margin < 0, positive_prior outside [0, 1), a lowest_score
        that is not finite, "graded" with margin or positive_prior, unknown or repeated directions, same-side
        directions without joint, joint with positives other than "each" or with positive_prior, fewer documents than
        queries without relevance or groups, an unknown reduction, fused=True with joint, reduction="none" or
        targets="similarity", or a second derivative of the fused version.

    Example:
        >>> import torch
        >>> in_batch_info_nce_loss(torch.eye(3), torch.eye(3), temperature=1.0)
        tensor(0.5514)
    """
    rule = check_rule(positives, temperature, margin, positive_prior, lowest_score)
    check_reduction(reduction)
    check_choice(targets, get_args(Targets), "targets")
    check_choice(fused, (True, False, "auto"), "fused")
    _check_directions(directions, joint, reduction)
    pairs = check_assignment(
        queries,
        documents,
        relevance=relevance,
        mask=mask,
        weight=weight,
        positive_columns=positive_columns,
        query_groups=query_groups,
        document_groups=document_groups,
        same_group=same_group,
    )
    _check_negatives(queries, negatives, negative_mask)
    by_similarity = targets == "similarity"
    if by_similarity and not (pairs.is_diagonal and pairs.shape[0] == pairs.shape[1] and negatives is None):
        raise RivalsError(
            'targets="similarity" needs as many documents as queries, and no relevance, mask, groups or negatives'
        )
    learnt = any(given is not None and given.requires_grad for given in (weight, relevance))
    needs_matrix = joint or by_similarity or reduction == "none" or learnt
    if joint and (by_similarity or positives != "each" or positive_prior > 0):
        raise RivalsError('joint goes with targets="diagonal", positives="each" and positive_prior=0 only')
    if fused is True and needs_matrix:
        raise RivalsError(
            'fused=True cannot do joint, targets="similarity", reduction="none" or a weight or relevance that needs a '
            'gradient; use fused="auto"'
        )
    dtype = torch.promote_types(compute_dtype(queries), compute_dtype(documents))
    with torch.autocast(queries.device.type, enabled=False):
        queries, documents = queries.to(dtype), documents.to(dtype)
        negatives = None if negatives is None else negatives.to(dtype)
        size = pairs.shape[0] * pairs.shape[1]
        if not needs_matrix and size > 0 and (fused is True or (fused == "auto" and size >= FUSED_FROM)):
            return fused_in_batch_loss(
                queries,
                documents,
                pairs,
                negatives=negatives,
                negative_mask=negative_mask,
                temperature=temperature,
                normalize=normalize,
                rows="query_to_document" in directions,
                columns="document_to_query" in directions,
                rule=rule,
                reduction=reduction,
                matmul_dtype=matmul_dtype,
            )
        if normalize:
            queries, documents = unit_rows(queries), unit_rows(documents)
            negatives = None if negatives is None else unit_rows(negatives)
        if joint:
            return joint_loss(
                queries,
                documents,
                pairs,
                negatives=negatives,
                negative_mask=negative_mask,
                temperature=temperature,
                directions=directions,
                rule=rule,
                reduction=reduction,
                matmul_dtype=matmul_dtype,
            )
        return in_batch_loss(
            queries,
            documents,
            pairs,
            negatives=negatives,
            negative_mask=negative_mask,
            temperature=temperature,
            directions=directions,
            by_similarity=by_similarity,
            rule=rule,
            reduction=reduction,
            matmul_dtype=matmul_dtype,
        )


def check_rule(
    positives: Positives, temperature: float, margin: float, positive_prior: float, lowest_score: float
) -> Rule:
    """Check the options that say how candidates compete, and return them in logits."""
    check_positive(temperature, "temperature")
    check_choice(positives, get_args(Positives), "positives")
    check_at_least_zero(margin, "margin")
    if not 0 <= positive_prior < 1:
        raise RivalsError(f"positive_prior must lie in [0, 1); got {positive_prior!r}")
    if not math.isfinite(lowest_score):
        raise RivalsError(f"lowest_score must be a finite number; got {lowest_score!r}")
    if positives == "graded" and (margin > 0 or positive_prior > 0):
        raise RivalsError('positives="graded" goes without margin and positive_prior: every candidate may be a target')
    return Rule(positives, margin / temperature, positive_prior, lowest_score / temperature)


def _check_directions(directions: tuple[Direction, ...], joint: bool, reduction: Reduction) -> None:
    if isinstance(directions, str) or not directions or len(set(directions)) != len(directions):
        raise RivalsError(f"directions must be a tuple of one or more different directions; got {directions!r}")
    for direction in directions:
        check_choice(direction, get_args(Direction), "directions")
    if joint:
        return
    if {"query_to_query", "document_to_document"} & set(directions):
        raise RivalsError(
            'directions "query_to_query" and "document_to_document" hold negatives only; they need joint=True'
        )
    if len(directions) > 1 and reduction == "none":
        raise RivalsError(
            'reduction="none" needs one direction, or joint=True; several give lists of different lengths'
        )


def _check_negatives(queries: Tensor, negatives: Tensor | None, negative_mask: Tensor | None) -> None:
    if negatives is None:
        if negative_mask is not None:
            raise RivalsError("negative_mask was given without negatives")
        return
    check_scores(negatives, "negatives", ndim=3)
    width = negatives.shape[1]
    check_shape(negatives, (len(queries), width, queries.shape[1]), "negatives", queries.device)
    if negative_mask is not None:
        check_mask(negative_mask, negatives[:, :, 0], "negative_mask")
