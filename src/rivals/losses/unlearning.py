"""Unlearning: a forget term that pushes log-probabilities down and retain terms that hold the rest in place."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import (
    check_at_least_zero,
    check_choice,
    check_finite,
    check_mask,
    check_positive,
    check_scores,
    check_shape,
)
from rivals.losses._preference_scores import check_lengths, check_not_above_zero, readable
from rivals.losses.preference_forms import PREFERENCE_LOSSES

__all__ = ["forget_weights", "unlearning_loss"]

Forget = Literal["npo", "npo_mean", "npo_no_reference", "simnpo", "gradient_ascent", "refusal", "dpo", "kto"]
Pooling = Literal["sequences", "batch"]

_SCORES: dict[str, Literal["log_ratio", "mean_log_ratio", "log_prob", "mean_log_prob"]] = {
    "npo": "log_ratio",
    "kto": "log_ratio",
    "npo_mean": "mean_log_ratio",
    "npo_no_reference": "log_prob",
    "simnpo": "mean_log_prob",
}


def unlearning_loss(
    logps: Tensor,
    ref_logps: Tensor | None = None,
    lengths: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    forget: Forget = "npo",
    beta: float = 0.1,
    delta: float = 0.0,
    reference_point: Tensor | float = 0.0,
    pooling: Pooling = "sequences",
    refusal_logps: Tensor | None = None,
    refusal_ref_logps: Tensor | None = None,
    refusal_lengths: Tensor | None = None,
    retain_logps: Tensor | None = None,
    retain_lengths: Tensor | None = None,
    retain_kl: Tensor | None = None,
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
    kl_weight: float = 1.0,
) -> Tensor:
    """Push a model away from texts it should forget, with negatives alone, while it keeps the texts to retain.

    Formula:
        L = forget_weight F + retain_weight NLL(retain) + kl_weight retain_kl, the last two where given;
        NLL(x) = - sum logp / sum length, the mean over all target tokens of the batch.
        "npo" F = mean over sequences of (2/beta) softplus(beta (logp - ref)); "npo_mean" divides the ratio by the
        length, "npo_no_reference" leaves out ref, "simnpo" does both: (2/beta) softplus(beta (logp / length + delta)).
        delta counts in all four, and in "kto" (2/beta) softplus(beta (logp - ref - k + delta)), k = reference_point
        without gradient.
        "gradient_ascent" F = sum logp / sum length. "refusal" F = NLL(refusal). "dpo" F = mean of (2/beta)
        softplus(-beta [(refusal - refusal_ref) - (logp - ref)]).
        pooling="batch": one sequence, whose log-probability is the mean over all forget tokens of the batch.

    Shapes:
        logps, ref_logps, lengths and their refusal_ siblings [N], mask bool[N]; retain_logps, retain_lengths [M];
        retain_kl scalar (`token_kl`) -> scalar.

    When to use:
        Removing memorised records: "npo" with a retain term, or "simnpo" to save the reference's forward. A
        gradient_ascent run is unbounded below and wrecks the model.

    Relations:
        F of "npo" is PREFERENCE_LOSSES["npo"], that of "simnpo" is PREFERENCE_LOSSES["simnpo"] with margin beta delta;
        "dpo" is 2/beta times `preference_loss`. "npo" tends to "gradient_ascent" over sums as beta tends to 0. Gradient
        difference is gradient_ascent with a retain NLL; IDK is "refusal" with one.

    Source:
        Zhang et al. (2024), NPO, eq. 3; Fan et al. (2024), SimNPO, eq. 4; open-unlearning `npo`, `simnpo`, `grad_diff`;
        Xu et al. (2025), the objective of ZJUKLAB (pooling="batch", both retain terms). Papers 57, 105, 110. SimNPO's
        paper writes a margin gamma = beta delta. Lengths count predicted tokens; to follow code that counts a labelled
        first position too, give its count.

    Raises:
        RivalsError: shapes that do not fit, no forget sequence at all, values that are not finite, log-probabilities
        above 0, lengths of 0 or less, beta <= 0, a negative weight, a tensor that the kind needs but is not given.

    Example:
        >>> import torch
        >>> logps, ref_logps = torch.tensor([-8.0, -9.0]), torch.tensor([-8.0, -8.0])
        >>> unlearning_loss(logps, ref_logps, beta=1.0)  # O(N)
        tensor(1.0064)
    """
    check_choice(forget, get_args(Forget), "forget")
    check_choice(pooling, get_args(Pooling), "pooling")
    check_positive(beta, "beta")
    if not math.isfinite(delta):
        raise RivalsError(f"delta must be a finite number; got {delta!r}")
    for name, value in (
        ("forget_weight", forget_weight),
        ("retain_weight", retain_weight),
        ("kl_weight", kl_weight),
    ):
        check_at_least_zero(value, name)
    batch = _Sequences(logps, ref_logps, lengths, mask, "")
    if pooling == "batch":
        batch = batch.pooled()
    if forget == "gradient_ascent":
        term = -batch.token_nll()
    elif forget in ("refusal", "dpo"):
        if refusal_logps is None:
            raise RivalsError(f"forget={forget!r} needs refusal_logps, the log-probabilities of the refusals")
        check_shape(refusal_logps, tuple(logps.shape), "refusal_logps", logps.device)
        refusal = _Sequences(refusal_logps, refusal_ref_logps, refusal_lengths, mask, "refusal_")
        if pooling == "batch":
            refusal = refusal.pooled()
        term = refusal.token_nll() if forget == "refusal" else _against_refusals(batch, refusal, beta)
    else:
        score = _SCORES[forget]
        form = replace(PREFERENCE_LOSSES["npo"], score=score, beta=beta, margin=beta * delta)
        point = torch.as_tensor(
            reference_point if forget == "kto" else 0.0, dtype=batch.logps.dtype, device=logps.device
        )
        term = form(*batch.column(), reference_point=point)
    total = forget_weight * term
    if retain_logps is not None:
        total = total + retain_weight * _Sequences(retain_logps, None, retain_lengths, None, "retain_").token_nll()
    if retain_kl is not None:
        check_shape(retain_kl, (), "retain_kl", logps.device)
        total = total + kl_weight * retain_kl
    return total


def forget_weights(
    logps: Tensor,
    ref_logps: Tensor | None = None,
    lengths: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    forget: Literal["npo", "npo_mean", "npo_no_reference", "simnpo"] = "npo",
    beta: float = 0.1,
    delta: float = 0.0,
) -> Tensor:
    """How hard an unlearning loss pushes each sequence: its derivative by logp, before the mean over sequences.

    Formula: "npo" 2 sigmoid(beta (logp - ref)), 1 for every sequence of a model that is still its reference; "simnpo"
    (2 / length) sigmoid(beta (logp / length + delta)), larger for short and well remembered texts.

    The arguments are those of `unlearning_loss`, [N] -> float[N] without gradient, 0 where the mask is False.

    Source: Zhang et al. (2024), NPO, section 3; Fan et al. (2024), SimNPO, section 5. Papers 57, 110.

    Raises RivalsError: as `unlearning_loss`.

    >>> forget_weights(torch.tensor([-8.0, -9.0]), torch.tensor([-8.0, -8.0]), beta=1.0)
    tensor([1.0000, 0.5379])
    """
    check_choice(forget, tuple(name for name in _SCORES if name != "kto"), "forget")
    leaf = logps.detach().to(compute_dtype(logps)).requires_grad_()
    with torch.enable_grad():
        batch = _Sequences(leaf, ref_logps, lengths, mask, "")
        form = replace(PREFERENCE_LOSSES["npo"], score=_SCORES[forget], beta=beta, margin=beta * delta, reduction="sum")
        return torch.autograd.grad(form(*batch.column()), leaf)[0]


class _Sequences:
    """Checked log-probabilities [N] of sequences, with what is known of their reference and lengths."""

    def __init__(
        self, logps: Tensor, ref_logps: Tensor | None, lengths: Tensor | None, mask: Tensor | None, prefix: str
    ) -> None:
        self.prefix = prefix
        check_scores(logps, f"{prefix}logps", ndim=1)
        check_mask(mask, logps, "mask")
        self.mask = torch.ones_like(logps, dtype=torch.bool) if mask is None else mask
        self.logps = logps.to(compute_dtype(logps)).masked_fill(~self.mask, 0.0)
        check_finite(self.logps, f"{prefix}logps")
        check_not_above_zero(self.logps, f"{prefix}logps")
        if logps.numel() == 0 or (readable(logps) and not self.mask.any()):
            raise RivalsError(
                f"{prefix}logps hold no sequence at all (nothing given, or a mask that is False everywhere)"
            )
        self.ref_logps = None
        if ref_logps is not None:
            check_shape(ref_logps, tuple(logps.shape), f"{prefix}ref_logps", logps.device)
            self.ref_logps = ref_logps.detach().to(self.logps.dtype).masked_fill(~self.mask, 0.0)
            check_finite(self.ref_logps, f"{prefix}ref_logps")
        self.lengths = None if lengths is None else check_lengths(lengths, self.logps, self.mask, f"{prefix}lengths")

    def column(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor]:
        """The arguments of a preference form: every sequence a list of one unwanted response."""
        values = (self.logps, torch.zeros_like(self.logps), self.ref_logps, self.lengths, self.mask)
        logps, relevance, ref_logps, lengths, mask = (None if v is None else v.unsqueeze(-1) for v in values)
        assert logps is not None
        assert relevance is not None
        assert mask is not None
        return logps, relevance, ref_logps, lengths, mask

    def token_nll(self) -> Tensor:
        """The mean negative log-probability over all tokens of the batch."""
        return -self.logps.sum() / self._tokens()

    def pooled(self) -> _Sequences:
        """The batch as one sequence of one token, its log-probability the mean over all tokens."""
        tokens = self._tokens()
        reference = None if self.ref_logps is None else (self.ref_logps.sum() / tokens).unsqueeze(0)
        pooled = (self.logps.sum() / tokens).unsqueeze(0)
        return _Sequences(pooled, reference, torch.ones_like(pooled), None, self.prefix)

    def _tokens(self) -> Tensor:
        if self.lengths is None:
            raise RivalsError(f"{self.prefix}lengths are needed for a mean over tokens")
        return self.lengths.masked_fill(~self.mask, 0.0).sum().clamp(min=1)


def _against_refusals(batch: _Sequences, refusal: _Sequences, beta: float) -> Tensor:
    """The preference loss with each refusal as the winner over the text to forget, times 2/beta."""
    unwanted, _, unwanted_ref, _, mask = batch.column()
    wanted, _, wanted_ref, _, _ = refusal.column()
    if unwanted_ref is None or wanted_ref is None:
        raise RivalsError("forget='dpo' needs ref_logps and refusal_ref_logps")
    logps, ref_logps = torch.cat([wanted, unwanted], -1), torch.cat([wanted_ref, unwanted_ref], -1)
    relevance = torch.tensor([1.0, 0.0], device=logps.device).expand_as(logps)
    form = replace(PREFERENCE_LOSSES["dpo"], beta=beta)
    return 2 / beta * form(logps, relevance, ref_logps, mask=mask.expand_as(logps))
