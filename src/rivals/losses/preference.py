"""Preference and unlearning losses over the log-probabilities of responses: one function, its labels, its report."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import masked_mean
from rivals.losses._common import check_mask, check_scores
from rivals.losses._preference_scores import Score, check_responses, score_responses
from rivals.losses._preference_structures import PairWeight, ordered_pairs
from rivals.losses._sets import check_unit_interval
from rivals.losses.preference_forms import (
    Constraint,
    Link,
    NllReduction,
    PreferenceForm,
    PreferenceReduction,
    Structure,
    Ties,
)

__all__ = [
    "PreferenceReport",
    "preference_loss",
    "preference_report",
    "preference_scores",
    "rank_labels",
    "win_rate_labels",
]


def preference_loss(
    logps: Tensor,
    relevance: Tensor,
    ref_logps: Tensor | None = None,
    lengths: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    score: Score = "log_ratio",
    structure: Structure = "pairs",
    link: Link = "logistic",
    beta: float = 0.1,
    margin: float = 0.0,
    label_smoothing: float = 0.0,
    ref_weight: float = 1.0,
    length_exponent: float = 1.0,
    reference_point: Tensor | float | Literal["batch_mean"] = 0.0,
    positive_weight: float = 1.0,
    negative_weight: float = 1.0,
    normalize_labels: bool = True,
    ties: Ties = "scores",
    pair_weight: Literal["dcg", "reward_gap", "gate"] | PairWeight | None = None,
    gate_margin: float = 0.0,
    gate_temperature: float = 1.0,
    constraint: Constraint = "none",
    boundary: float = 0.2,
    epsilon: float = 0.0,
    preference_weight: float = 1.0,
    nll_weight: float = 0.0,
    nll_reduction: NllReduction = "example",
    nll_grows_with_list: bool = False,
    nll_logps: Tensor | None = None,
    nll_lengths: Tensor | None = None,
    reduction: PreferenceReduction = "mean",
) -> Tensor:
    """Every preference loss as one function: scores from log-probabilities, then a ranking loss (the default is DPO).

    Formula:
        L = preference_weight * comparison(s, relevance) + nll_weight * NLL, from left to right:

        score s: "log_ratio" beta (logp - ref_weight ref); "log_prob" beta logp; "mean_log_prob" beta logp / len^p;
        "mean_log_ratio" beta (logp - ref_weight ref) / len^p; "log_odds" m - log(1 - e^m), m = logp / len^p, beta
        then multiplies the comparison; "manual" logp as it is. p = length_exponent.

        structure, i better than j meaning relevance_i > relevance_j: "pairs" sum of link(z_ij), z_ij = s_i - s_j -
        margin; "joint_pairs" log(1 + sum of e^-z_ij); "best_vs_rest" log(1 + sum_j e^-z_bj), b the best; "suffixes"
        sum_i log(1 + sum_j e^(g_ij s_j - G_i s_i) + epsilon e^(-G_i s_i)), g_ij = relevance_i - relevance_j,
        G_i = max_j g_ij; "list_mle"
        and "softmax" the ranking losses of that name; "pointwise" link(s_i - c) of positives (relevance > 0) and
        link(c - s_i) of the others, c = reference_point in log-ratio units (times beta); "negatives_only" (2/beta)
        softplus(s_i - c + margin) (link "identity": (s_i - c)/beta) of the responses with relevance <= 0;
        "sorted_margins", "sorted_scores": margins of policy and reference, or scores of winners and losers, each
        sorted over the batch and subtracted.

        link, e = label_smoothing: "logistic" (1-e) softplus(-z) + e softplus(z); "robust" [(1-e) softplus(-z) -
        e softplus(z)] / (1-2e); "hinge" max(0, 1-z); "perceptron" max(0, -z); "square" (z/beta - 1/(2 beta))^2;
        "exponential" e^-z (its tangent beyond z = -50); "sigmoid" 1 - sigmoid(z); "identity" -z; "exo" the reverse
        divergence of (sigmoid(z), sigmoid(-z)) from (1-e, e); pairs only: "apo_down" sigmoid(s_i) + 1 - sigmoid(z);
        pointwise only: "nca", "squared_error" (y-s)^2, "cross_entropy" with relevance y in 0..1.

        pair_weight, without gradient: "reward_gap" relevance_i - relevance_j; "dcg" |2^y_i - 2^y_j| |D_i - D_j|, D =
        1/log2(1 + rank by s); "gate" sigmoid((gate_margin - (logp_i - logp_j)) / gate_temperature); a function.

        constraint: "detach" stops the gradient at every worse response; "boundary" adds e^(T_j - s_j) inside the
        logarithm (beside a link without one: log(1 + e^(T_j - s_j))), T_j = (lowest s_i better than j, no gradient)
        - 2 boundary, which holds a loser `boundary` below.

        NLL: -logp of the best response (the first, if tied), or -nll_logps, over its length ("example"), over the
        mean length of the batch ("token"), or as it is ("sum"); times (R - 1)^2 with nll_grows_with_list.

    Shapes:
        logps, relevance, ref_logps, lengths [..., R], mask bool[..., R]; nll_logps, nll_lengths [...]; relevance may
        have any sign. -> scalar; with reduction="none" float[...] (sorted structures: one value a pair). "mean"
        divides by the pairs (pairs, sorted), the responses (pointwise, negatives_only) or the lists (others) of the
        batch; "sum_per_list" by the lists; "list_mean" inside each list and then by the lists, counting those with
        a term. The NLL is averaged over all lists with a response.

    When to use:
        Preference tuning and unlearning of language models, or of anything with a likelihood.
        `rivals.losses.PREFERENCE_LOSSES["simpo"]` and its siblings hold the options of the losses with a name. Put
        sums of token log-probabilities in (`token_log_probs`); the score divides by length where the loss does.

    Relations:
        With s as scores: "pairs"/"logistic" is `pairwise_logistic_loss`, with "dcg" LambdaRank's weights;
        "list_mle" is `list_mle_loss`, "softmax" `softmax_loss`. Two responses: list_mle = pairs = best_vs_rest =
        joint_pairs. "negatives_only" is 2/beta times "pairs" with a winner at score 0.

    Source:
        Rafailov et al. (2023), DPO, eq. 7; Azar et al. (2023), IPO; Yuan et al. (2023), RRHF; Song et al. (2023), PRO;
        Wang et al. (2023), AFT; Meng et al. (2024), SimPO; Hong et al. (2024), ORPO; Ethayarajh et al. (2024), KTO; Liu
        et al. (2024), LiPO; Zhang et al. (2024), NPO; Pang et al. (2024), IRPO; TRL 0.11. Papers 57, 59, 76, 95, 103,
        105, 106, 110, 112, 113. Where paper and code differ: IPO takes sums as the paper does (TRL takes means:
        score="mean_log_ratio"); the NLL is averaged per example as in IRPO (TRL: nll_reduction="token"); softmax
        labels are normalised as in LiPO (rax does not); PRO compares with strictly worse responses only (its code
        lets ties in as a constant). The boundary's parametrisation keeps AFT's point of balance.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, options that do not go together or lie out of range, no
        response at all, values that are not finite, log-probabilities above 0 where the score or the NLL needs
        log-probabilities, lengths of 0 or less, ref_logps or lengths missing for a score that needs them.

    Example:
        >>> import torch
        >>> logps, ref_logps = torch.tensor([[-10.0, -12.0]]), torch.tensor([[-11.0, -9.0]])
        >>> preference_loss(logps, torch.tensor([[1, 0]]), ref_logps)  # O(R^2) for each prompt
        tensor(0.5130)
    """
    tensor = reference_point if isinstance(reference_point, Tensor) else None
    form = PreferenceForm(
        score=score,
        structure=structure,
        link=link,
        beta=beta,
        margin=margin,
        label_smoothing=label_smoothing,
        ref_weight=ref_weight,
        length_exponent=length_exponent,
        reference_point=0.0 if isinstance(reference_point, Tensor) else reference_point,
        positive_weight=positive_weight,
        negative_weight=negative_weight,
        normalize_labels=normalize_labels,
        ties=ties,
        pair_weight=pair_weight,
        gate_margin=gate_margin,
        gate_temperature=gate_temperature,
        constraint=constraint,
        boundary=boundary,
        epsilon=epsilon,
        preference_weight=preference_weight,
        nll_weight=nll_weight,
        nll_reduction=nll_reduction,
        nll_grows_with_list=nll_grows_with_list,
        reduction=reduction,
    )
    return form(
        logps,
        relevance,
        ref_logps,
        lengths,
        mask,
        reference_point=tensor,
        nll_logps=nll_logps,
        nll_lengths=nll_lengths,
    )


def preference_scores(
    logps: Tensor,
    ref_logps: Tensor | None = None,
    lengths: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    score: Score = "log_ratio",
    beta: float = 0.1,
    ref_weight: float = 1.0,
    length_exponent: float = 1.0,
) -> Tensor:
    """Turn log-probabilities of responses into the scores that any ranking loss or measure takes.

    The tensors are [..., R]; the scores are those of `preference_loss`, 0 where the mask is False, and carry gradient
    to `logps` alone. beta * (logp - ref) is the implicit reward of DPO.

    Source: Rafailov et al. (2023), DPO, eq. 5. Papers 57, 59, 103, 110.

    Raises RivalsError: as `preference_loss`.

    >>> preference_scores(torch.tensor([-10.0, -12.0]), torch.tensor([-11.0, -9.0]), beta=1.0)
    tensor([ 1., -3.])
    """
    form = PreferenceForm(score=score, beta=beta, ref_weight=ref_weight, length_exponent=length_exponent)
    responses = check_responses(logps, None, ref_logps, lengths, mask, score=score)
    return form.scores(responses)


class PreferenceReport(NamedTuple):
    """What to log beside a preference loss, all scalars without gradient; 0 where there is no pair.

    n_pairs: pairs of a better and a worse response. margin: their mean difference in score. score_accuracy and
    logp_accuracy: the share whose better member has the higher score (a tie is wrong) and the higher summed
    log-probability (a tie is right); they differ, see `ranking_accuracy`. better_logp, worse_logp: means over the pairs.
    """

    n_pairs: Tensor
    margin: Tensor
    score_accuracy: Tensor
    logp_accuracy: Tensor
    better_logp: Tensor
    worse_logp: Tensor


def preference_report(
    logps: Tensor,
    relevance: Tensor,
    ref_logps: Tensor | None = None,
    lengths: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    score: Score = "log_ratio",
    beta: float = 0.1,
    ref_weight: float = 1.0,
    length_exponent: float = 1.0,
) -> PreferenceReport:
    """Report how well scores and log-probabilities rank the responses, beside a loss of the same arguments.

    The tensors are [..., R] as in `preference_loss`. Watch `better_logp`: without a likelihood term it often falls.

    Source: Chen et al. (2024), Preference learning algorithms do not learn preference rankings, section 2. Papers 59,
    76, 106.

    Raises RivalsError: as `preference_loss`.

    >>> report = preference_report(torch.tensor([[-9.0, -8.0]]), torch.tensor([[1, 0]]), torch.tensor([[-12.0, -9.0]]))
    >>> [round(float(value), 3) for value in report]
    [1.0, 0.2, 1.0, 0.0, -9.0, -8.0]
    """
    with torch.no_grad():
        responses = check_responses(logps, relevance, ref_logps, lengths, mask, score=score)
        scores = score_responses(
            responses, score=score, beta=beta, ref_weight=ref_weight, length_exponent=length_exponent
        )
        better = ordered_pairs(responses.relevance, responses.mask)
        margins = scores.unsqueeze(-1) - scores.unsqueeze(-2)
        gaps = responses.logps.unsqueeze(-1) - responses.logps.unsqueeze(-2)
        return PreferenceReport(
            better.sum(),
            masked_mean(margins, better),
            masked_mean((margins > 0).to(scores.dtype), better),
            masked_mean((gaps >= 0).to(scores.dtype), better),
            masked_mean(responses.logps.unsqueeze(-1).expand_as(gaps), better),
            masked_mean(responses.logps.unsqueeze(-2).expand_as(gaps), better),
        )


def win_rate_labels(preferences: Tensor, mask: Tensor | None = None) -> Tensor:
    """Turn a matrix of pairwise preferences into one label a response: its mean probability of being preferred.

    Formula: y_k = (1/R) sum_i P_ki, over the R responses that are there.

    preferences float[..., R, R], P_ki in 0..1 the probability that response k is preferred to response i (1/2 on the
    diagonal), mask bool[..., R] -> float[..., R], 0 where the mask is False.

    Source: Liu et al. (2024), LiPO, section 4. Paper 103.

    Raises RivalsError: a matrix that is not square, entries outside 0..1.

    >>> win_rate_labels(torch.tensor([[0.5, 1.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]]))
    tensor([0.8333, 0.5000, 0.1667])
    """
    check_scores(preferences, "preferences")
    if preferences.ndim < 2 or preferences.shape[-1] != preferences.shape[-2]:
        raise RivalsError(f"preferences must be square, [..., R, R]; got {tuple(preferences.shape)}")
    if mask is None:
        mask = torch.ones(preferences.shape[:-1], dtype=torch.bool, device=preferences.device)
    check_mask(mask, preferences[..., 0], "mask")
    there = mask.unsqueeze(-1) & mask.unsqueeze(-2)
    preferences = preferences.masked_fill(~there, 0.0)
    check_unit_interval(preferences, "preferences")
    return preferences.sum(-1) / mask.sum(-1, keepdim=True).clamp(min=1)


def rank_labels(ranks: Tensor, mask: Tensor | None = None) -> Tensor:
    """Turn a human order (1 = best) into the labels of `win_rate_labels`; equal ranks count as a half each way.

    ranks [..., R] of any order-keeping numbers, mask bool[..., R] -> float[..., R], 0 where the mask is False.

    Source: Liu et al. (2024), LiPO, section 4. Paper 103.

    Raises RivalsError: a mask that is not boolean or of another shape.

    >>> rank_labels(torch.tensor([1, 3, 2]))
    tensor([0.8333, 0.1667, 0.5000])
    """
    check_mask(mask, ranks, "mask")
    above = (ranks.unsqueeze(-1) < ranks.unsqueeze(-2)).float()
    tied = (ranks.unsqueeze(-1) == ranks.unsqueeze(-2)).float()
    return win_rate_labels(above + 0.5 * tied, mask)
