"""From the logits of a language model to log-probabilities of sequences: the entrance of the preference losses."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import check_choice, check_scores, check_shape, spread_rows
from rivals.losses._preference_scores import readable

__all__ = [
    "SequenceLogProbs",
    "likelihood_ratio_scores",
    "likelihood_ratio_token_scores",
    "token_kl",
    "token_log_probs",
]

RatioMode = Literal["ratio", "positive", "negative_vs_base", "positive_vs_base"]


class SequenceLogProbs(NamedTuple):
    """Summed log-probabilities [...] of the target tokens of each sequence, and how many there are: lengths [...]."""

    sums: Tensor
    lengths: Tensor


def token_log_probs(
    logits: Tensor, labels: Tensor, mask: Tensor | None = None, *, shift: bool = True
) -> SequenceLogProbs:
    """Sum the log-probabilities of the target tokens of every sequence and count them.

    Formula: sums = sum over the target tokens t of log softmax(z_t)[y_t], lengths = the number of target tokens.

    logits float[..., T, V]; labels int[..., T]; mask bool[..., T], True at target tokens: the completion, not the
    prompt, and for a step after a shared prefix only the step. Labels elsewhere may hold anything; from labels in the
    convention of transformers use `mask=labels != -100`. With `shift` the logits of position t predict the label of
    position t + 1, as causal models are trained, and the first label is not a target; without it logits and labels are
    aligned. Sums are accumulated in float32 or float64. For the mean per token, divide. Cost O(number of targets x V).

    Source: what every paper of the preference group starts from (Rafailov et al., 2023, DPO). Papers 57, 76, 105, 106,
    110, 113.

    Raises RivalsError: shapes that do not fit, labels that are not whole numbers or not below V, a mask that is not
    boolean.

    >>> logits = torch.zeros(1, 4, 2)  # two words, equally likely
    >>> found = token_log_probs(logits, torch.tensor([[0, 0, 1, 1]]), torch.tensor([[False, False, True, True]]))
    >>> found.sums, found.lengths
    (tensor([-1.3863]), tensor([2]))
    """
    logits, labels, there = check_tokens(logits, labels, mask)
    if shift:
        logits, labels, there = logits[..., :-1, :], labels[..., 1:], there[..., 1:]
    return SequenceLogProbs(spread_rows(chosen_log_probs(logits, labels, there), there).sum(-1), there.sum(-1))


def token_kl(logits: Tensor, ref_logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over positions of the divergence KL(reference || model) between two models' next-token distributions.

    Formula: mean over positions t of sum_v r_tv (log r_tv - log p_tv), r = softmax(ref_logits), p = softmax(logits).

    logits and ref_logits float[..., T, V], mask bool[..., T] -> scalar. No gradient flows into `ref_logits`. Give the
    mask of the target positions; without one every position counts, prompt and padding included, as the published
    unlearning code has it. Nothing there gives 0.

    Source: Zhang et al. (2024), NPO: the retain term "KL"; open-unlearning `compute_kl_divergence`. Papers 57, 105.

    Raises RivalsError: shapes that do not fit, a mask that is not boolean.

    >>> token_kl(torch.zeros(1, 3, 2), torch.tensor([[[1.0, 0.0]] * 3]))
    tensor(0.1109)
    """
    check_scores(logits, "logits")
    check_shape(ref_logits, tuple(logits.shape), "ref_logits", logits.device)
    there = _token_mask(mask, logits)
    dtype = compute_dtype(logits)
    log_p = logits[there].to(dtype).log_softmax(-1)
    log_r = ref_logits.detach()[there].to(dtype).log_softmax(-1)
    divergence = (log_r.exp() * (log_r - log_p)).sum(-1)
    return divergence.sum() / max(len(divergence), 1)


def likelihood_ratio_token_scores(
    positive_logits: Tensor | None = None,
    negative_logits: Tensor | None = None,
    base_logits: Tensor | None = None,
    *,
    mode: RatioMode = "ratio",
    weights: tuple[float, float] = (1.0, -1.0),
) -> Tensor:
    """Score every word of the vocabulary by a weighted sum of two heads' log-probabilities (Likra).

    Formula: w_1 log softmax(a) + w_2 log softmax(b), with (a, b) the logits of (positive, negative) in mode "ratio",
    (base, negative) in "negative_vs_base", (positive, base) in "positive_vs_base"; "positive" is the first term alone.
    The result is not renormalised: it scores choices and is nothing to sample from. A head of weight 0 is not needed.

    All logits float[..., V]. There is no joint training loss: each head learns by its own next-token cross entropy,
    the positive one from right answers and the negative one from wrong ones.

    Source: Hamdan and Yuret (2025), Likra, `HydraLoraForCausalLM.forward` of the reference code. Paper 50.

    Raises RivalsError: a head the mode needs is missing, shapes that do not fit, an unknown mode.

    >>> likelihood_ratio_token_scores(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]))
    tensor([ 0.3799, -0.6201])
    """
    check_choice(mode, get_args(RatioMode), "mode")
    heads = {"positive": positive_logits, "negative": negative_logits, "base": base_logits}
    first, second = {
        "ratio": ("positive", "negative"),
        "positive": ("positive", None),
        "negative_vs_base": ("base", "negative"),
        "positive_vs_base": ("positive", "base"),
    }[mode]
    total: Tensor | None = None
    for name, weight in zip((first, second), weights, strict=True):
        if name is None or weight == 0:
            continue
        logits = heads[name]
        if logits is None:
            raise RivalsError(f"mode={mode!r} needs {name}_logits; give them, or a weight of 0")
        check_scores(logits, f"{name}_logits")
        term = weight * logits.to(compute_dtype(logits)).log_softmax(-1)
        if total is not None and total.shape != term.shape:
            raise RivalsError(f"the heads must have the same shape; got {tuple(total.shape)} and {tuple(term.shape)}")
        total = term if total is None else total + term
    if total is None:
        raise RivalsError("weights must not all be 0: nothing is left to score with")
    return total


def likelihood_ratio_scores(
    token_scores: Tensor, labels: Tensor, mask: Tensor | None = None, *, length_normalize: bool = False
) -> Tensor:
    """Add up the scores of a choice's tokens: S(a) = sum over the answer's tokens t of score_t[a_t].

    token_scores float[..., T, V] from `likelihood_ratio_token_scores`, labels int[..., T] aligned with them, mask
    bool[..., T], True at the answer's tokens -> float[...], the score of each choice; the largest wins. With
    `length_normalize` the mean per token (0 for an answer without tokens).

    Source: Hamdan and Yuret (2025), Likra. Paper 50.

    Raises RivalsError: shapes that do not fit, labels that are not words of the vocabulary.

    >>> likelihood_ratio_scores(torch.tensor([[0.5, -0.5], [0.25, 0.0]]), torch.tensor([0, 0]))
    tensor(0.7500)
    """
    token_scores, labels, there = check_tokens(token_scores, labels, mask, "token_scores")
    at = labels.masked_fill(~there, 0).unsqueeze(-1).long()
    total = token_scores.gather(-1, at).squeeze(-1).masked_fill(~there, 0.0).sum(-1)
    return total / there.sum(-1).clamp(min=1) if length_normalize else total


def check_tokens(
    logits: Tensor, labels: Tensor, mask: Tensor | None, name: str = "logits", labels_name: str = "labels"
) -> tuple[Tensor, Tensor, Tensor]:
    """Check logits [..., T, V] with labels and mask [..., T]; labels under a True mask are columns of the logits."""
    check_scores(logits, name)
    if logits.ndim < 2 or logits.shape[-1] == 0:
        raise RivalsError(f"{name} must have shape [..., T, V] with V of at least 1; got {tuple(logits.shape)}")
    check_shape(labels, tuple(logits.shape[:-1]), labels_name, logits.device)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise RivalsError(f"{labels_name} must be whole numbers; got {labels.dtype}")
    there = _token_mask(mask, logits)
    if readable(labels) and there.any():
        lowest, highest = torch.aminmax(labels[there])
        if lowest < 0 or highest >= logits.shape[-1]:
            raise RivalsError(
                f"{labels_name} must lie in 0..{logits.shape[-1] - 1}, the columns of {name}, wherever the mask is True; "
                f"found {int(lowest)} to {int(highest)}"
            )
    return logits, labels, there


def chosen_log_probs(logits: Tensor, labels: Tensor, there: Tensor) -> Tensor:
    """Return the log-probability of every target token, flat [number of True], in the dtype to compute in."""
    return -F.cross_entropy(logits[there].to(compute_dtype(logits)), labels[there].long(), reduction="none")


def _token_mask(mask: Tensor | None, logits: Tensor) -> Tensor:
    shape = tuple(logits.shape[:-1])
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=logits.device)
    check_shape(mask, shape, "mask", logits.device)
    if mask.dtype != torch.bool:
        raise RivalsError(f"mask must be boolean (True = a target token); got {mask.dtype}")
    return mask
