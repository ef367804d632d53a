"""Contrastive losses that doubt their negatives: weighted by another model, corrected from a graph."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype, masked_log_softmax, masked_logsumexp
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_choice,
    check_lists,
    check_not_negative,
    check_positive,
    check_reduction,
    check_scores,
    check_shape,
    reduce_lists,
)
from rivals.losses._in_batch import Rule, Suspects, list_losses, log_count, unit_rows
from rivals.losses._pairs import check_assignment
from rivals.losses.contrastive import in_batch_info_nce_loss

__all__ = ["debiased_contrastive_loss", "structure_aware_info_nce_loss"]

Form = Literal["paper", "code"]


def debiased_contrastive_loss(
    queries: Tensor,
    documents: Tensor,
    relevance: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    noise: Tensor | None = None,
    temperature: float = 0.05,
    form: Form = "paper",
    reduction: Reduction = "mean",
) -> Tensor:
    """InfoNCE with weighted negatives and noise vectors as further negatives of every query (DCLR).

    Formula:
        s = cos / temperature. form="paper": L_i = -log [ e^{s_ip} / (e^{s_ip} + sum_n w_in e^{s_in} + sum_m e^{s_im}) ],
        m over the noise vectors; mean over queries (with several positives, over those of a query first).
        form="code": p_i = softmax over documents and noise of w_ij s_ij, L = mean over all entries that are there of
        -t_ij log p_ij - (1 - t_ij) log(1 - p_ij), t = 1 at positives; a weight of 0 makes a logit 0, it removes nothing.

    Shapes:
        queries float[Q, D], documents float[C, D], relevance [Q, C] >= 0 (document i is the positive of query i without
        it), mask bool[Q, C], weight float[Q, C] >= 0, noise float[M, D] -> scalar, or float[Q] with reduction="none".

    When to use:
        Sentence embeddings without labels, where a batch holds near-duplicates: `false_negative_weights` of a frozen
        model are the weights. Noise from `adversarial_noise_negatives` fills the space between documents.

    Relations:
        form="paper" is `in_batch_info_nce_loss` with the noise appended to the documents, and with weights 1 and no noise
        SimCSE. When no other model is there to doubt the negatives: its `positive_prior`.

    Source:
        Zhou et al. (2022), DCLR, eqs. 4 to 7. Paper 114. The paper's form is the default; their code (form="code")
        multiplies logits by the weights and takes a binary cross entropy of the softmax. Where it gives NaN (a positive
        of probability 1 in float32) this gives the limit.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a document that is there, temperature <= 0, an unknown form or reduction.

    Example:
        >>> import torch
        >>> debiased_contrastive_loss(torch.eye(2), torch.eye(2), weight=torch.eye(2), noise=torch.ones(1, 2), temperature=1.0)
        tensor(0.5574)
    """
    check_positive(temperature, "temperature")
    check_choice(form, get_args(Form), "form")
    check_reduction(reduction)
    pairs = check_assignment(
        queries,
        documents,
        relevance=relevance,
        mask=mask,
        weight=weight,
        positive_columns=None,
        query_groups=None,
        document_groups=None,
        same_group="positive",
    )
    count = len(queries)
    if noise is not None:
        check_scores(noise, "noise", ndim=2)
        check_shape(noise, (len(noise), queries.shape[1]), "noise", queries.device)
        documents = torch.cat([documents, noise.detach().to(documents.dtype)])

    def widened(values: Tensor | None, fill: float) -> Tensor | None:
        if values is None or noise is None:
            return values
        return torch.cat([values, values.new_full((count, len(noise)), fill)], 1)

    weight, mask = widened(weight, 1), widened(mask, 1)
    if form == "paper":
        return in_batch_info_nce_loss(
            queries,
            documents,
            widened(relevance, 0),
            mask,
            weight=weight,
            temperature=temperature,
            reduction=reduction,
        )
    positive, there = pairs.dense()
    if noise is not None:
        positive = torch.cat([positive, positive.new_zeros(count, len(noise))], 1)
        there = torch.cat([there, there.new_ones(count, len(noise))], 1)
    dtype = torch.promote_types(compute_dtype(queries), compute_dtype(documents))
    with torch.autocast(queries.device.type, enabled=False):
        logits = unit_rows(queries.to(dtype)) @ unit_rows(documents.to(dtype)).T / temperature
    logits = logits.masked_fill(~there, 0.0)
    if weight is not None:
        logits = logits * weight.to(dtype).masked_fill(~there, 0.0)
    return reduce_lists(*_softmax_binary(logits, positive, there), reduction)


def _softmax_binary(logits: Tensor, positive: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Return the binary cross entropy of softmax probabilities, summed by list, and the number of entries."""
    if logits.shape[-1] == 0:
        return logits.sum(-1), there.sum(-1)
    log_p = masked_log_softmax(logits, there)
    largest = F.one_hot(logits.masked_fill(~there, -torch.inf).argmax(-1), logits.shape[-1]).bool()
    # 1 - p of the largest entry is what the others hold: taking p from 1 would lose it.
    rest = masked_logsumexp(logits, there & ~largest) - masked_logsumexp(logits, there)
    log_not = torch.log1p(-log_p.exp().masked_fill(largest, 0.0)).where(~largest, rest.unsqueeze(-1))
    terms = -log_p.where(positive, log_not)
    alone = there.sum(-1, keepdim=True) < 2  # p = 1, and there is nothing to choose from
    return terms.masked_fill(~there | alone, 0.0).sum(-1), there.sum(-1)


def structure_aware_info_nce_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    false_scores: Tensor | None = None,
    false_weight: Tensor | None = None,
    positive_prior: float = 0.0,
    margin: float = 1.0,
    num_negatives: float | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """InfoNCE whose negatives are weighted by hardness and cleared of what suspected false negatives would add (HaSa).

    Formula:
        L_q = - sum_p (1/P) log [ e^{(s_p - m)/t} / (e^{(s_p - m)/t} + N/(1 - c) max(D, 0)) ],
        D = sum_n w_n e^{s_n/t} - c sum_k f_k e^{s'_k/t},  m = margin, c = `positive_prior`, s' = `false_scores`, f their
        weights (uniform if not given), N = `num_negatives` or the number of negatives of positive weight. Without
        `weight`, w_n = 1/N, so that negatives count once each. Mean over the lists with a positive. Weights are
        constants.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0 (only that of
        negatives is read), false_scores float[..., F], false_weight float[..., F] >= 0, summing to 1 in each list, or
        0 where nothing is suspected -> scalar, or float[...] with reduction="none".

    When to use:
        Link prediction with hard negatives, where the graph says which candidates may be true (those two steps away);
        `hardness_weights` are the weights. Any retrieval with a sample of suspected positives.

    Relations:
        positive_prior=0, no weight: `info_nce_loss` with the same margin and temperature. With the list's positives as
        suspects and a bound above 0: `info_nce_loss` with `positive_prior`.

    Source:
        Zhang et al. (2023), HaSa, and its code. Paper 35. Their code takes the width of the embeddings for N
        (num_negatives=width follows it) and subtracts a margin of 1 from the positive. A list whose D is not above 0
        has loss 0 and no gradient.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or
        weight at a candidate that is there, positive_prior outside [0, 1), a positive_prior without false_scores,
        false_weight that is negative, does not sum to 1 or comes without false_scores, margin < 0, num_negatives or
        temperature <= 0, an unknown reduction.

    Example:
        >>> import torch
        >>> hard, false = torch.tensor([[1.0, 0.5], [0.5, 1.0]]), torch.zeros(2, 1)
        >>> options = {"weight": hard, "false_scores": false, "positive_prior": 0.2, "num_negatives": 1}
        >>> structure_aware_info_nce_loss(torch.eye(2), torch.eye(2), **options)
        tensor(0.3185)
    """
    check_positive(temperature, "temperature")
    check_at_least_zero(margin, "margin")
    if num_negatives is not None:
        check_positive(num_negatives, "num_negatives")
    if not 0 <= positive_prior < 1:
        raise RivalsError(f"positive_prior must lie in [0, 1); got {positive_prior!r}")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    logits = lists.scores / temperature
    positive = (lists.relevance > 0) & lists.mask
    negative = lists.mask & ~positive
    if lists.weight is not None:
        negative = negative & (lists.weight > 0)
    count = negative.sum(-1, keepdim=True).to(logits.dtype)
    mass = count if num_negatives is None else torch.full_like(count, num_negatives)
    multiplicity = None
    if lists.weight is not None:
        multiplicity = (lists.weight.detach() * mass).where(negative, positive.to(logits.dtype))
    elif num_negatives is not None:
        multiplicity = (mass / count.clamp(min=1)).where(negative, positive.to(logits.dtype))
    log_mean = _suspected(scores, false_scores, false_weight, positive_prior, temperature)
    suspects = None if log_mean is None else Suspects(log_mean, log_count(mass.squeeze(-1)))
    rule = Rule("each", margin / temperature, positive_prior if suspects is not None else 0.0)
    return reduce_lists(*list_losses(logits, positive, lists.mask, multiplicity, rule, suspects), reduction)


def _suspected(
    scores: Tensor, false_scores: Tensor | None, false_weight: Tensor | None, positive_prior: float, temperature: float
) -> Tensor | None:
    """Return log of the weighted mean e^{s/t} of a list's suspects, -inf where it has none; None if nothing was given."""
    if false_scores is None:
        if false_weight is not None or positive_prior > 0:
            raise RivalsError("false_weight and positive_prior need false_scores, the scores of the suspects")
        return None
    check_scores(false_scores, "false_scores")
    lists, width = tuple(scores.shape[:-1]), false_scores.shape[-1]
    check_shape(false_scores, (*lists, width), "false_scores", scores.device)
    dtype = torch.promote_types(compute_dtype(scores), compute_dtype(false_scores))
    if false_weight is None:
        false_weight = false_scores.new_full(false_scores.shape, 1.0 / max(width, 1))
    check_shape(false_weight, (*lists, width), "false_weight", scores.device)
    false_weight = false_weight.detach().to(dtype)
    check_not_negative(false_weight, "false_weight")
    total = false_weight.sum(-1)
    if total.device.type == "cpu" and not ((total - 1).abs().le(1e-4) | (total == 0)).all():
        raise RivalsError("false_weight must sum to 1 in every list, or to 0 where nothing is suspected")
    there = false_weight > 0
    logits = false_scores.to(dtype).masked_fill(~there, 0.0) / temperature
    found = masked_logsumexp(logits + false_weight.masked_fill(~there, 1.0).log(), there)
    return found.masked_fill(~there.any(-1), -torch.inf)
