"""The first step of every preference loss: responses checked at the door, and their scores from log-probabilities."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import check_finite, check_like, check_mask, check_scores

Score = Literal["log_ratio", "log_prob", "mean_log_prob", "mean_log_ratio", "log_odds", "manual"]

NEEDS_REFERENCE = ("log_ratio", "mean_log_ratio")
NEEDS_LENGTHS = ("mean_log_prob", "mean_log_ratio", "log_odds")
WITHOUT_BETA = ("log_odds", "manual")
SURE = -1e-7
"""A mean log-probability nearer to 0 than this is taken as this: the odds of certainty are infinite."""


class Responses(NamedTuple):
    """Responses that passed the door, computed in float32 or float64; 0 (lengths: 1) wherever the mask is False."""

    logps: Tensor
    relevance: Tensor
    ref_logps: Tensor | None
    lengths: Tensor | None
    mask: Tensor


def check_responses(
    logps: Tensor,
    relevance: Tensor | None,
    ref_logps: Tensor | None,
    lengths: Tensor | None,
    mask: Tensor | None,
    *,
    score: Score = "manual",
    log_probs: bool = False,
) -> Responses:
    """Check the tensors [..., R] of a preference loss against what the score needs; absent entries become harmless.

    With `log_probs` (or a score without a reference) the log-probabilities must not be above 0.
    """
    check_scores(logps, "logps")
    check_mask(mask, logps, "mask")
    there = torch.ones_like(logps, dtype=torch.bool) if mask is None else mask
    if logps.numel() == 0 or (readable(logps) and not there.any()):
        raise RivalsError("logps hold no response at all (an empty batch, or a mask that is False everywhere)")
    dtype = compute_dtype(logps)
    values = logps.to(dtype).masked_fill(~there, 0.0)
    check_finite(values, "logps")
    if score in ("log_prob", "mean_log_prob", "log_odds") or log_probs:
        check_not_above_zero(values, "logps")
    if relevance is None:
        relevance = torch.zeros_like(values)
    else:
        check_like(relevance, logps, "relevance")
        relevance = relevance.detach().to(dtype).masked_fill(~there, 0.0)
        check_finite(relevance, "relevance")
    if score in NEEDS_REFERENCE and ref_logps is None:
        raise RivalsError(f"score={score!r} needs ref_logps, the log-probabilities under the frozen reference model")
    if ref_logps is not None:
        check_like(ref_logps, logps, "ref_logps")
        ref_logps = ref_logps.detach().to(dtype).masked_fill(~there, 0.0)
        check_finite(ref_logps, "ref_logps")
    if score in NEEDS_LENGTHS and lengths is None:
        raise RivalsError(f"score={score!r} needs lengths, the number of target tokens of each response")
    if lengths is not None:
        lengths = check_lengths(lengths, logps, there, "lengths")
    return Responses(values, relevance, ref_logps, lengths, there)


def check_lengths(lengths: Tensor, like: Tensor, there: Tensor, name: str) -> Tensor:
    """Return the lengths in the dtype to compute in, 1 where the mask is False; they must be above 0 elsewhere."""
    check_like(lengths, like, name)
    lengths = lengths.detach().to(compute_dtype(like)).masked_fill(~there, 1.0)
    check_finite(lengths, name)
    if readable(lengths) and lengths.numel() and not (lengths > 0).all():
        raise RivalsError(f"{name} must be above 0 wherever there is a response; found {float(lengths.min())}")
    return lengths


def check_not_above_zero(logps: Tensor, name: str) -> None:
    """Raise if a log-probability is above 0 by more than rounding. Only on the CPU, as all checks of values."""
    if readable(logps) and logps.numel() and (highest := float(logps.detach().max())) > 1e-6:
        raise RivalsError(f"{name} must be log-probabilities, none above 0; found {highest:.6g}")


def score_responses(
    responses: Responses, *, score: Score, beta: float, ref_weight: float = 1.0, length_exponent: float = 1.0
) -> Tensor:
    """Return the scores [..., R] of checked responses, 0 where there is none; `check_responses` saw the same score."""
    logps, lengths = responses.logps, responses.lengths
    if score == "manual":
        return logps
    if score in NEEDS_REFERENCE:
        assert responses.ref_logps is not None
        logps = logps - ref_weight * responses.ref_logps
    if score in NEEDS_LENGTHS:
        assert lengths is not None
        logps = logps / (lengths if length_exponent == 1 else lengths**length_exponent)
    if score == "log_odds":
        mean = logps.clamp(max=SURE).masked_fill(~responses.mask, -1.0)
        return (mean - torch.log(-torch.expm1(mean))).masked_fill(~responses.mask, 0.0)
    return beta * logps


def readable(values: Tensor) -> bool:
    """Whether values may be looked at: on other devices than the CPU that would stall, and a compiler cannot."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()
