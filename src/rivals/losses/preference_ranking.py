"""Does preference tuning make a model rank? Measures over log-probabilities of chosen and rejected responses."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype, masked_mean
from rivals.losses._common import check_at_least_zero, check_choice, check_positive, check_scores, check_shape
from rivals.losses._preference_scores import Responses, check_responses
from rivals.losses._preference_structures import ordered_pairs
from rivals.losses._sets import check_unit_interval

__all__ = [
    "RankingTransition",
    "flip_threshold",
    "idealized_log_ratio",
    "idealized_ranking_accuracy",
    "ranking_accuracy",
    "ranking_transition",
    "reward_accuracy",
    "vote_agreement",
    "vote_log_ratio",
]

Level = Literal["pairs", "lists", "none"]


def ranking_accuracy(
    logps: Tensor,
    relevance: Tensor,
    lengths: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    normalize: bool = False,
    level: Level = "pairs",
) -> Tensor:
    """How often the model finds the better response at least as likely as the worse one.

    Formula: mean over pairs i better than j of 1[l_i >= l_j], l = logp, or logp / length with `normalize`.

    logps, relevance, lengths [..., R], mask bool[..., R] -> scalar without gradient: the mean over all pairs of the
    batch ("pairs"), or the share of lists whose pairs are all right, among those with a pair ("lists"); "none" gives
    the verdicts bool[..., R, R], True at pairs ranked right. Equal relevance makes no pair; no pair at all gives NaN.
    Report both with and without `normalize`: longer responses are less likely.

    Source: Chen et al. (2024), definitions 2.1 and 2.2; the assessment accuracy of Wang et al. (2023), AFT, with
    `normalize`. Papers 59, 76.

    Raises RivalsError: as `preference_loss`; lengths missing with `normalize`.

    >>> ranking_accuracy(torch.tensor([[-10.0, -12.0], [-9.0, -8.0]]), torch.tensor([[1, 0], [1, 0]]))
    tensor(0.5000)
    """
    check_choice(level, get_args(Level), "level")
    responses = check_responses(logps, relevance, None, lengths, mask)
    values = responses.logps.detach()
    if normalize:
        if responses.lengths is None:
            raise RivalsError("normalize=True needs lengths, the number of target tokens of each response")
        values = values / responses.lengths
    return _accuracy(values.unsqueeze(-1) >= values.unsqueeze(-2), responses, level)


def reward_accuracy(
    logps: Tensor, ref_logps: Tensor, relevance: Tensor, mask: Tensor | None = None, *, level: Level = "pairs"
) -> Tensor:
    """How often the better response gained more log-probability over the reference than the worse one.

    Formula: mean over pairs i better than j of 1[logp_i - ref_i > logp_j - ref_j]; a model that is still the reference
    scores 0.

    Shapes and levels are those of `ranking_accuracy`. It is what most trainers call accuracy, and it says little about
    the order of the log-probabilities themselves.

    Source: Chen et al. (2024), section 2. Paper 76.

    Raises RivalsError: as `preference_loss`.

    >>> reward_accuracy(torch.tensor([[-9.0, -8.0]]), torch.tensor([[-12.0, -9.0]]), torch.tensor([[1, 0]]))
    tensor(1.)
    """
    check_choice(level, get_args(Level), "level")
    responses = check_responses(logps, relevance, ref_logps, None, mask, score="log_ratio")
    assert responses.ref_logps is not None
    gain = (responses.logps - responses.ref_logps).detach()
    return _accuracy(gain.unsqueeze(-1) > gain.unsqueeze(-2), responses, level)


def vote_log_ratio(vote_share: Tensor, *, eps: float = 1e-3) -> Tensor:
    """Return log(a / (1 - a)) for the share a of people who prefer the first response; unanimity counts 1 - a as eps.

    vote_share float[P] in 0..1 -> float[P]; a = 1 gives log(1 / eps) and a = 0 minus infinity, as the published code.

    Source: Chen et al. (2024), appendix C. Paper 76.

    Raises RivalsError: shares outside 0..1, eps <= 0.

    >>> vote_log_ratio(torch.tensor([0.75, 0.5])).exp()
    tensor([3., 1.])
    """
    check_positive(eps, "eps")
    check_scores(vote_share, "vote_share")
    check_unit_interval(vote_share, "vote_share")
    share = vote_share.to(compute_dtype(vote_share))
    against = 1 - share
    return share.log() - against.where(against > 0, eps).log()


def idealized_log_ratio(
    ref_logps: Tensor,
    vote_share: Tensor,
    *,
    beta: float = 0.1,
    lengths: Tensor | None = None,
    normalize: bool = False,
    eps: float = 1e-3,
) -> Tensor:
    """The log-probability ratio of two responses under the policy that optimises DPO perfectly.

    Formula: log pi*(1)/pi*(2) = (ref_1 - ref_2) + (1/beta) log(a / (1 - a)), a = the share that prefers response 1.

    ref_logps and lengths [P, 2], vote_share [P] -> float[P]; with `normalize` the reference's means per token. Smaller
    beta trusts the votes more.

    Source: Chen et al. (2024), theorem 3.1 (its code divides two log-likelihoods where it should divide likelihoods,
    when not normalised; not followed). Paper 76.

    Raises RivalsError: shapes that do not fit, shares outside 0..1, beta <= 0, lengths missing with `normalize`.

    >>> idealized_log_ratio(torch.tensor([[-11.0, -9.0]]), torch.tensor([0.75]), beta=0.1).exp()
    tensor([7991.4...])
    """
    check_positive(beta, "beta")
    check_scores(ref_logps, "ref_logps", ndim=2)
    check_shape(ref_logps, (len(ref_logps), 2), "ref_logps", ref_logps.device)
    check_shape(vote_share, (len(ref_logps),), "vote_share", ref_logps.device)
    values = check_responses(ref_logps, None, None, lengths, None)
    reference = values.logps.detach()
    if normalize:
        if values.lengths is None:
            raise RivalsError("normalize=True needs lengths, the number of target tokens of each response")
        reference = reference / values.lengths
    return reference[:, 0] - reference[:, 1] + vote_log_ratio(vote_share.to(reference.dtype), eps=eps) / beta


def idealized_ranking_accuracy(
    ref_logps: Tensor,
    vote_share: Tensor,
    *,
    beta: float = 0.1,
    lengths: Tensor | None = None,
    normalize: bool = False,
    eps: float = 1e-3,
) -> Tensor:
    """The ranking accuracy that perfect preference tuning would reach from this reference: what can be hoped for.

    Formula: mean of 1[(ref_w - ref_l) + (1/beta) log(a / (1 - a)) > 0], w being response 1, the chosen one.

    Arguments are those of `idealized_log_ratio`; -> scalar. Without votes Chen et al. assume a share of 0.75. Less
    `ranking_accuracy` it is the alignment gap; report the least, median and largest over beta in 0.01..10.

    Source: Chen et al. (2024), definition 3.2. Paper 76.

    Raises RivalsError: as `idealized_log_ratio`.

    >>> idealized_ranking_accuracy(torch.tensor([[-11.0, -9.0]] * 2), torch.tensor([0.75, 0.5]), beta=0.1)
    tensor(0.5000)
    """
    ratio = idealized_log_ratio(ref_logps, vote_share, beta=beta, lengths=lengths, normalize=normalize, eps=eps)
    return (ratio > 0).to(ratio.dtype).mean()


def vote_agreement(log_ratio: Tensor, target_log_ratio: Tensor, *, band: float = 0.05) -> Tensor:
    """Whether two log-ratios name the same winner, ratios within `band` of 1 being ties.

    Formula: 1[code(r) = code(r')], code of r = exp(log-ratio): a tie if |r - 1| < band, first better if r >= 1 + band,
    else second.

    Both float[P] -> bool[P]; its mean is the ranking accuracy with human ties. Comparing ratios, not differences of
    probabilities, keeps it meaningful for long texts, whose probabilities are all about 0.

    Source: Chen et al. (2024), appendix C, `compute_ranks` of the published code. Paper 76.

    Raises RivalsError: shapes that do not fit, a negative band.

    >>> vote_agreement(torch.tensor([0.2, 0.01, -3.0]), torch.tensor([0.0, 0.0, -1.1])).tolist()
    [False, True, True]
    """
    check_at_least_zero(band, "band")
    check_scores(log_ratio, "log_ratio")
    check_shape(target_log_ratio, tuple(log_ratio.shape), "target_log_ratio", log_ratio.device)
    return _code(log_ratio, band) == _code(target_log_ratio, band)


def flip_threshold(
    ref_logps: Tensor, relevance: Tensor, *, beta: float = 0.1, loss: Literal["dpo", "ipo"] = "dpo"
) -> Tensor:
    """The loss a pair must reach before the policy ranks it right; its difficulty, from the reference alone.

    Formula: c = ref_l - ref_w. "dpo": softplus(-beta c), and the pair is ranked right if and only if its DPO loss is at
    most this. "ipo": (1/(2 beta) - c)^2 guarantees it while c <= 1/(2 beta); beyond that a loss of 0 means a wrong order
    and the threshold is minus infinity.

    ref_logps and relevance [P, 2], unequal within a pair -> float[P].

    Source: Chen et al. (2024), theorem 4.1 and appendix A. Paper 76.

    Raises RivalsError: shapes that do not fit, beta <= 0, a pair of equal relevance.

    >>> flip_threshold(torch.tensor([[-11.0, -9.0]]), torch.tensor([[1, 0]]))
    tensor([0.5981])
    """
    check_positive(beta, "beta")
    check_choice(loss, ("dpo", "ipo"), "loss")
    reference, first = _winner_first(ref_logps, relevance)
    wrong = torch.where(first, -1.0, 1.0) * (reference[:, 0] - reference[:, 1])
    if loss == "dpo":
        return -F.logsigmoid(beta * wrong)
    slack = 1 / (2 * beta) - wrong
    return (slack**2).masked_fill(slack < 0, -math.inf)


class RankingTransition(NamedTuple):
    """A table by (reference right?, policy right?): right-right, right-wrong, wrong-right, wrong-wrong, each [4].

    fraction of the pairs, their mean DPO loss, and their mean margin beta [(w - rw) - (l - rl)]; NaN where no pair is.
    """

    fraction: Tensor
    loss: Tensor
    margin: Tensor


def ranking_transition(logps: Tensor, ref_logps: Tensor, relevance: Tensor, *, beta: float = 0.1) -> RankingTransition:
    """What tuning did to the order of each pair: kept right, broke, mended, or left wrong.

    logps, ref_logps and relevance [P, 2], unequal within a pair. A pair is right if the chosen response is at least as
    likely as the rejected one.

    Source: Chen et al. (2024), section 4. Paper 76.

    Raises RivalsError: shapes that do not fit, beta <= 0, a pair of equal relevance.

    >>> found = ranking_transition(torch.tensor([[-9.0, -8.0]]), torch.tensor([[-7.0, -8.0]]), torch.tensor([[1, 0]]))
    >>> found.fraction
    tensor([0., 1., 0., 0.])
    """
    check_positive(beta, "beta")
    reference, first = _winner_first(ref_logps, relevance)
    policy, _ = _winner_first(logps, relevance)
    sign = torch.where(first, 1.0, -1.0)
    before, after = sign * (reference[:, 0] - reference[:, 1]), sign * (policy[:, 0] - policy[:, 1])
    margin = beta * (after - before)
    cell = 2 * (before < 0).long() + (after < 0).long()
    members = F.one_hot(cell, 4).to(margin.dtype)
    counts = members.sum(0)
    return RankingTransition(counts / len(cell), -F.logsigmoid(margin) @ members / counts, margin @ members / counts)


def _accuracy(right: Tensor, responses: Responses, level: Level) -> Tensor:
    pairs = ordered_pairs(responses.relevance, responses.mask)
    if level == "none":
        return right & pairs
    if level == "lists":
        right, pairs = (right | ~pairs).flatten(-2).all(-1), pairs.flatten(-2).any(-1)
    share = masked_mean(right.to(responses.logps.dtype), pairs)
    return share.where(pairs.any(), math.nan)


def _code(log_ratio: Tensor, band: float) -> Tensor:
    away = torch.expm1(log_ratio)
    return torch.where(away.abs() < band, 0, torch.where(away >= band, 1, 2))


def _winner_first(logps: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Return checked log-probabilities [P, 2] without gradient, and whether the first of each pair is the better."""
    check_scores(logps, "logps", ndim=2)
    check_shape(logps, (len(logps), 2), "logps", logps.device)
    responses = check_responses(logps, relevance, None, None, None)
    equal = responses.relevance[:, 0] == responses.relevance[:, 1]
    if equal.any():
        raise RivalsError(f"relevance must differ within a pair; row {int(equal.nonzero()[0])} has a tie")
    return responses.logps.detach(), responses.relevance[:, 0] > responses.relevance[:, 1]
