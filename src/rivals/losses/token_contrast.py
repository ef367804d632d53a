"""Losses on the tokens of good and bad texts, from the logits of a language model: CRINGE and unlikelihood."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_choice,
    check_positive,
    check_reduction,
    check_scores,
    check_shape,
    reduce_lists,
    spread_rows,
)
from rivals.losses._preference_scores import readable
from rivals.losses.preference_weights import margin_gate
from rivals.losses.token_likelihood import check_tokens, chosen_log_probs

__all__ = ["CringeTerms", "cringe_loss", "cringe_terms", "pairwise_cringe_loss", "unlikelihood_loss"]

TokenReduction = Literal["mean", "sum", "none"]


class CringeTerms(NamedTuple):
    """The two parts of the CRINGE loss, each [N], 0 where a token has none; `counted` bool[N], tokens with either."""

    cross_entropy: Tensor
    contrast: Tensor
    counted: Tensor


def cringe_terms(
    logits: Tensor,
    tokens: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    k: int = 5,
    detach_positives: bool = False,
    contrast_on_positives: bool = False,
    cross_entropy_on_positives: bool = True,
    generator: torch.Generator | None = None,
) -> CringeTerms:
    """Return the parts of `cringe_loss` token by token; the arguments are the same.

    Source: Adolphs et al. (2022), CRINGE. Paper 112.

    Raises RivalsError: as `cringe_loss`.

    >>> terms = cringe_terms(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]), torch.tensor([0]), k=1)
    >>> terms.contrast, terms.cross_entropy
    (tensor([1.3133]), tensor([0.]))
    """
    check_scores(logits, "logits", ndim=2)
    check_shape(tokens, (len(logits),), "tokens", logits.device)
    logits, tokens, there = check_tokens(logits, tokens, mask, labels_name="tokens")
    check_shape(labels, tuple(tokens.shape), "labels", logits.device)
    if readable(labels) and not torch.isin(labels[there], torch.tensor([-1, 0, 1])).all():
        raise RivalsError("labels must be 1 (good text), 0 (bad text) or -1 (unlabelled)")
    if not 1 <= k < logits.shape[-1]:
        raise RivalsError(f"k must lie in 1..{logits.shape[-1] - 1}, below the size of the vocabulary; got {k!r}")
    learnt = there & ((labels == -1) | ((labels == 1) & cross_entropy_on_positives))
    contrasted = there & ((labels == 0) | ((labels == 1) & contrast_on_positives))
    cross_entropy = spread_rows(-chosen_log_probs(logits, tokens, learnt), learnt)
    sign = torch.where(labels[contrasted] == 0, 1.0, -1.0)
    contrast = _contrast(logits[contrasted], tokens[contrasted].long(), sign, k, detach_positives, generator)
    return CringeTerms(cross_entropy, spread_rows(contrast, contrasted), learnt | contrasted)


def cringe_loss(
    logits: Tensor,
    tokens: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    k: int = 5,
    alpha: float = 1.0,
    detach_positives: bool = False,
    contrast_on_positives: bool = False,
    cross_entropy_on_positives: bool = True,
    generator: torch.Generator | None = None,
    reduction: TokenReduction = "mean",
) -> Tensor:
    """Cross entropy on tokens of good texts, and on tokens of bad texts a contrast with a likely alternative.

    Formula:
        good or unlabelled token: -log softmax(z)_y; bad token: alpha log(1 + exp(z_y - z_s)), s one of the k largest
        logits other than y (y left out of the k + 1 largest, or else the last of them), drawn with probability softmax
        of those k logits. With contrast_on_positives good tokens pay alpha log(1 + exp(z_s - z_y)) besides. "mean"
        divides by the tokens that pay anything.

    Shapes:
        logits float[N, V], tokens int[N], labels [N] of 1 (good), 0 (bad), -1 (unlabelled: cross entropy only),
        mask bool[N] -> scalar, or float[N] with reduction="none". Logits and tokens are aligned: row i predicts
        token i.

    When to use:
        Texts marked good or bad without pairs, where the bad tokens should give way to what the model itself finds
        likely. Bad texts alone leave the model without an anchor. For pairs, `pairwise_cringe_loss`.

    Relations:
        Labels all 1 or -1: the language model's cross entropy. The contrast is the pairwise logistic loss of s over y.
        `unlikelihood_loss` lowers bad tokens against the whole vocabulary instead. Without a generator nothing is
        drawn: the loss is the expectation over s (its probabilities without gradient), equal to the drawn loss on
        average, in value and gradient.

    Source:
        Adolphs et al. (2022), CRINGE; Xu et al. (2023), section 3; ParlAI `ContrastiveCrossEntropyLoss`. Paper 112. In
        ParlAI the contrast on good tokens is always 0, because its padding index coincides with their class; here it
        works. k = 1 in ParlAI, 5 in the paper, which is followed.

    Raises:
        RivalsError: shapes that do not fit, tokens that are not columns of the logits, labels other than 1, 0, -1, k
        outside 1..V-1, alpha < 0, an unknown reduction.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
        >>> cringe_loss(logits, torch.tensor([0, 1]), torch.tensor([0, 1]), k=1)  # O(V) for each token
        tensor(1.2059)
    """
    check_at_least_zero(alpha, "alpha")
    check_choice(reduction, ("mean", "sum", "none"), "reduction")
    terms = cringe_terms(
        logits,
        tokens,
        labels,
        mask,
        k=k,
        detach_positives=detach_positives,
        contrast_on_positives=contrast_on_positives,
        cross_entropy_on_positives=cross_entropy_on_positives,
        generator=generator,
    )
    return reduce_lists(terms.cross_entropy + alpha * terms.contrast, terms.counted, reduction)


def pairwise_cringe_loss(
    logits: Tensor,
    tokens: Tensor,
    rejected_logits: Tensor,
    rejected_tokens: Tensor,
    mask: Tensor | None = None,
    rejected_mask: Tensor | None = None,
    *,
    margin: float = 0.0,
    temperature: float = 1.0,
    hard: bool = False,
    gate_grad: bool = False,
    k: int = 5,
    alpha: float = 1.0,
    detach_positives: bool = False,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """CRINGE on a chosen and a rejected text, switched off softly where the chosen one is far ahead already.

    Formula:
        L_p = g(M) [CE(chosen) + alpha Cr(rejected)], M = log p(chosen) - log p(rejected), sums over target tokens;
        g(M) = sigmoid((margin - M) / temperature), or 1[M < margin] with `hard`, a weight without gradient unless
        gate_grad; CE and Cr are means over a text's target tokens, Cr the contrast of `cringe_loss`. Mean over pairs.

    Shapes:
        logits float[P, T, V], tokens int[P, T], mask bool[P, T] of the chosen texts; the rejected ones likewise with
        another T; True = a target token, aligned with its logits. A pair without any target token is absent. ->
        scalar, or float[P] with reduction="none".

    When to use:
        Preference pairs, when pushing losers further down than needed harms the model; also to unlearn repetition.

    Relations:
        margin far above M: `cringe_loss` with means per text. `PreferenceForm(pair_weight="gate")` puts the same gate
        on any pair loss over log-probabilities. No reference model.

    Source:
        Xu et al. (2023), Some things are more CRINGE than others, eq. 5 (no code is public; that CE and Cr are means per
        text and that the gate has no gradient is our choice). The paper's runs have margin -10, temperature 10, alpha
        0.005. Paper 112.

    Raises:
        RivalsError: shapes that do not fit, tokens that are not columns of the logits, a pair with target tokens in one
        text only, k outside 1..V-1, temperature <= 0, alpha < 0, hard with gate_grad, an unknown reduction.

    Example:
        >>> import torch
        >>> good, bad = torch.zeros(1, 1, 3), torch.tensor([[[2.0, 1.0, 0.0]]])
        >>> pairwise_cringe_loss(good, torch.tensor([[1]]), bad, torch.tensor([[0]]), k=1)  # O(V) for each token
        tensor(1.6068)
    """
    check_reduction(reduction)
    check_at_least_zero(alpha, "alpha")
    check_positive(temperature, "temperature")
    if hard and gate_grad:
        raise RivalsError("hard=True has no gradient; leave gate_grad False")
    check_scores(logits, "logits", ndim=3)
    check_scores(rejected_logits, "rejected_logits", ndim=3)
    logits, tokens, chosen = check_tokens(logits, tokens, mask, labels_name="tokens")
    rejected_logits, rejected_tokens, rejected = check_tokens(
        rejected_logits, rejected_tokens, rejected_mask, "rejected_logits", "rejected_tokens"
    )
    if len(logits) != len(rejected_logits):
        raise RivalsError(f"rejected_logits must have {len(logits)} rows, one a pair; got {len(rejected_logits)}")
    there = chosen.any(-1) & rejected.any(-1)
    if readable(there) and (chosen.any(-1) != rejected.any(-1)).any():
        raise RivalsError("mask must mark target tokens in both texts of a pair, or in neither")
    if not 1 <= k < rejected_logits.shape[-1]:
        raise RivalsError(f"k must lie in 1..{rejected_logits.shape[-1] - 1}, below the vocabulary; got {k!r}")
    chosen_logps = spread_rows(chosen_log_probs(logits, tokens, chosen), chosen).sum(-1)
    rejected_logps = spread_rows(chosen_log_probs(rejected_logits, rejected_tokens, rejected), rejected).sum(-1)
    flat = rejected_logits[rejected]
    contrast = _contrast(
        flat, rejected_tokens[rejected].long(), flat.new_ones(len(flat)), k, detach_positives, generator
    )
    contrast = spread_rows(contrast, rejected).sum(-1) / rejected.sum(-1).clamp(min=1)
    gap = chosen_logps - rejected_logps
    gap = gap if gate_grad else gap.detach()
    gate = (gap < margin).to(gap.dtype) if hard else margin_gate(gap, margin, temperature)
    loss = gate * (alpha * contrast - chosen_logps / chosen.sum(-1).clamp(min=1))
    return reduce_lists(loss.masked_fill(~there, 0.0), there, reduction)


def unlikelihood_loss(
    logits: Tensor,
    tokens: Tensor,
    mask: Tensor | None = None,
    *,
    reduction: TokenReduction = "mean",
) -> Tensor:
    """Push tokens of bad texts down: minus the log-probability of anything else.

    Formula:
        L = - sum over tokens of log(1 - p_y), p = softmax(z); "mean" divides by the tokens.

    Shapes:
        logits float[N, V], tokens int[N], mask bool[N] -> scalar, or float[N] with reduction="none". Row i predicts
        token i.

    When to use:
        The token-level baseline for texts to avoid; add the cross entropy of good texts.

    Relations:
        `cringe_loss` contrasts with one likely token, this with the log-sum-exp of all others, so that it is never
        more than the contrast with any single one.

    Source:
        Welleck et al. (2019), neural text generation with unlikelihood training, eq. 4. Paper 95 (its CEUnl is the
        sequence-level cousin).

    Raises:
        RivalsError: shapes that do not fit, tokens that are not columns of the logits, an unknown reduction.

    Example:
        >>> import torch
        >>> unlikelihood_loss(torch.zeros(1, 4), torch.tensor([1]))  # O(V) for each token
        tensor(0.2877)
    """
    check_choice(reduction, ("mean", "sum", "none"), "reduction")
    check_scores(logits, "logits", ndim=2)
    logits, tokens, there = check_tokens(logits, tokens, mask, labels_name="tokens")
    if logits.shape[-1] < 2:
        raise RivalsError("logits must have at least 2 columns: a vocabulary of one word leaves nothing else")
    values = logits[there].to(compute_dtype(logits))
    at = tokens[there].long().unsqueeze(-1)
    others = values.scatter(-1, at, -torch.inf).logsumexp(-1)
    loss = -F.logsigmoid(others - values.gather(-1, at).squeeze(-1))
    return reduce_lists(spread_rows(loss, there), there, reduction)


def _contrast(
    logits: Tensor, tokens: Tensor, sign: Tensor, k: int, detach: bool, generator: torch.Generator | None
) -> Tensor:
    """softplus(sign (z_y - z_s)) of flat logits [N, V]: s drawn among the top k others, or the expectation over s."""
    top, words = logits.topk(k + 1, dim=-1)
    own = words == tokens.unsqueeze(-1)
    own[..., -1] |= ~own.any(-1)
    dtype = compute_dtype(logits)
    candidates = top[~own].reshape(len(logits), k).to(dtype)
    if detach:
        candidates = candidates.detach()
    likely = candidates.detach().softmax(-1)
    target = logits.gather(-1, tokens.unsqueeze(-1)).to(dtype)
    if generator is not None and len(logits):
        drawn = torch.multinomial(likely, 1, generator=generator)
        candidates, likely = candidates.gather(-1, drawn), torch.ones_like(drawn, dtype=dtype)
    return -(likely * F.logsigmoid(sign.to(dtype).unsqueeze(-1) * (candidates - target))).sum(-1)
