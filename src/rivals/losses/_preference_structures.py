"""What preference losses make of scores: which responses are compared (structure), how (link), and how much (weight)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.lists import masked_logsumexp, masked_mean
from rivals.losses._common import Checked, check_not_negative, check_shape
from rivals.losses._fused.pairs import Hinge, Kernel, Logistic, pair_sums
from rivals.losses._pair_terms import Terms
from rivals.losses._preference_scores import WITHOUT_BETA, Responses, score_responses
from rivals.losses._sets import check_unit_interval
from rivals.losses.listwise import list_mle_loss, softmax_loss
from rivals.losses.preference_weights import DcgPairWeight, margin_gate

if TYPE_CHECKING:
    from rivals.losses.preference_forms import PreferenceForm

PairWeight = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(scores without gradient, relevance, mask), each [..., R] -> weights [..., R, R]; first index: the better response."""


Reference = Tensor | float | Literal["batch_mean"]
"""The log-ratio at which a response on its own counts as neither good nor bad."""


def ordered_pairs(relevance: Tensor, mask: Tensor) -> Tensor:
    """Return bool[..., R, R], True where the first response is more relevant than the second and both are there."""
    there = mask.unsqueeze(-1) & mask.unsqueeze(-2)
    return (relevance.unsqueeze(-1) > relevance.unsqueeze(-2)) & there


# ---------------------------------------------------------------------------------- pairs of a list


def pairs(form: PreferenceForm, scores: Tensor, responses: Responses, reference: Reference) -> Terms:
    """Every pair of a better and a worse response, each by itself."""
    mask = responses.mask
    weight = _pair_weight(form, scores, responses)
    if form.constraint == "none" and form.link != "apo_down":
        lists = Checked(scores, responses.relevance, mask, None)
        return Terms(*pair_sums(lists, _kernel(form), pair_weight=weight))
    better = ordered_pairs(responses.relevance, mask)
    margins = _margins(form, scores, better)
    if form.link == "apo_down":
        loss = scores.unsqueeze(-1).sigmoid() + torch.sigmoid(-margins)
    elif form.constraint == "detach":
        loss = link_loss(form, margins)
    else:
        floor = _floor(form, scores, better).unsqueeze(-2).expand_as(margins)
        if form.link == "logistic" and form.label_smoothing == 0:
            loss = torch.stack([torch.zeros_like(margins), -margins, floor], -1).logsumexp(-1)
        else:
            loss = link_loss(form, margins) - F.logsigmoid(-floor)
    if weight is not None:
        weight = weight.masked_fill(~better, 0.0)
        check_not_negative(weight, "pair_weight")
        loss = loss * weight
    return Terms(loss.masked_fill(~better, 0.0).sum((-2, -1)), better.sum((-2, -1)))


def joint_pairs(form: PreferenceForm, scores: Tensor, responses: Responses, reference: Reference) -> Terms:
    """One logarithm over all pairs of a list: log(1 + sum of exp(-margin))."""
    better = ordered_pairs(responses.relevance, responses.mask)
    exponents, there = [-_margins(form, scores, better)], [better]
    if form.constraint == "boundary":
        exponents.append(_floor(form, scores, better).unsqueeze(-2).expand_as(better))
        there.append(better)
    every = torch.cat(there, -1).flatten(-2)
    return Terms(_log_one_plus(torch.cat(exponents, -1).flatten(-2), every), every.any(-1).long())


def suffixes(form: PreferenceForm, scores: Tensor, responses: Responses, reference: Reference) -> Terms:
    """Every response against all worse ones, scores multiplied by the gaps in relevance (PRO)."""
    better = ordered_pairs(responses.relevance, responses.mask)
    gap = responses.relevance.unsqueeze(-1) - responses.relevance.unsqueeze(-2)
    return _against_the_rest(form, scores, better, gap.masked_fill(~better, 0.0))


def best_vs_rest(form: PreferenceForm, scores: Tensor, responses: Responses, reference: Reference) -> Terms:
    """The most relevant response (each, if tied) against all worse ones."""
    better = ordered_pairs(responses.relevance, responses.mask)
    best = responses.mask & ~better.any(-2)
    better = better & best.unsqueeze(-1)
    return _against_the_rest(form, scores, better, better.to(scores.dtype))


def _against_the_rest(form: PreferenceForm, scores: Tensor, better: Tensor, gap: Tensor) -> Terms:
    own = scores.unsqueeze(-1) * gap.amax(-1, keepdim=True)
    others = (scores.detach() if form.constraint == "detach" else scores).unsqueeze(-2)
    exponents, there = [others * gap - own + form.margin], [better]
    if form.constraint == "boundary":
        exponents.append(gap * (scores.detach().unsqueeze(-1) - 2 * form.boundary - others))
        there.append(better)
    if form.epsilon > 0:
        exponents.append(math.log(form.epsilon) - own)
        there.append(better.any(-1, keepdim=True))
    terms = _log_one_plus(torch.cat(exponents, -1), torch.cat(there, -1))
    return Terms(terms.sum(-1), better.any(-1).any(-1).long())


def _log_one_plus(exponents: Tensor, there: Tensor) -> Tensor:
    """log(1 + sum of exp) over the entries of the last dimension that are there; 0 where there is none."""
    return -F.logsigmoid(-masked_logsumexp(exponents, there)).masked_fill(~there.any(-1), 0.0)


def _margins(form: PreferenceForm, scores: Tensor, better: Tensor) -> Tensor:
    worse = scores.detach() if form.constraint == "detach" else scores
    margins = scores.unsqueeze(-1) - worse.unsqueeze(-2) - form.margin
    return margins.masked_fill(~better, 0.0)


def _floor(form: PreferenceForm, scores: Tensor, better: Tensor) -> Tensor:
    """T_j - s_j, T_j = the worst score among those better than j (no gradient) less twice the boundary."""
    fixed = scores.detach().unsqueeze(-1)
    worst = fixed.masked_fill(~better, math.inf).amin(-2)
    worst = worst.masked_fill(~better.any(-2), 0.0)
    return worst - 2 * form.boundary - scores


def _pair_weight(form: PreferenceForm, scores: Tensor, responses: Responses) -> Tensor | None:
    """The weights [..., R, R] without gradient; what they hold where there is no pair does not matter."""
    if form.pair_weight is None:
        return None
    if form.pair_weight == "reward_gap":
        return responses.relevance.unsqueeze(-1) - responses.relevance.unsqueeze(-2)
    if form.pair_weight == "gate":
        logps = responses.logps.detach()
        return margin_gate(logps.unsqueeze(-1) - logps.unsqueeze(-2), form.gate_margin, form.gate_temperature)
    if form.pair_weight == "dcg":
        return DcgPairWeight()(scores, responses.relevance, responses.mask)
    weight = form.pair_weight(scores.detach(), responses.relevance, responses.mask)
    check_shape(weight, (*scores.shape, scores.shape[-1]), "pair_weight", scores.device)
    return weight.detach().to(scores.dtype)


# ---------------------------------------------------------------------------------- whole lists


def list_mle(form: PreferenceForm, scores: Tensor, responses: Responses, reference: Reference) -> Terms:
    """The likelihood of the whole order."""
    mask = responses.mask
    relevance = responses.relevance.masked_fill(~mask, torch.inf)
    relevance = (responses.relevance - relevance.amin(-1, keepdim=True)).masked_fill(~mask, 0.0)  # order alone counts
    return Terms(list_mle_loss(scores, relevance, mask, ties=form.ties, reduction="none"), mask.any(-1))


def softmax(form: PreferenceForm, scores: Tensor, responses: Responses, reference: Reference) -> Terms:
    """Cross entropy between relevance and the softmax of the scores."""
    relevance, mask = responses.relevance, responses.mask
    total = softmax_loss(scores, relevance, mask, normalize_labels=form.normalize_labels, reduction="none")
    return Terms(total, mask.any(-1))


# ---------------------------------------------------------------------------------- single responses


def pointwise(form: PreferenceForm, scores: Tensor, responses: Responses, reference: Reference) -> Terms:
    """Every response by itself: positives (relevance above 0) should score high, the others low."""
    relevance, mask = responses.relevance, responses.mask
    if form.link == "squared_error":
        loss = (relevance - scores) ** 2
    elif form.link == "cross_entropy":
        check_unit_interval(relevance, "relevance")
        loss = -(relevance * F.logsigmoid(scores) + (1 - relevance) * F.logsigmoid(-scores))
    elif form.link == "nca":
        check_not_negative(relevance, "relevance")
        share = relevance / relevance.sum(-1, keepdim=True).clamp(min=torch.finfo(relevance.dtype).tiny)
        loss = -share * F.logsigmoid(scores) - F.logsigmoid(-scores) / mask.sum(-1, keepdim=True).clamp(min=1)
    else:
        scores = scores - _neutral_score(form, scores, mask, reference)
        positive = relevance > 0
        loss = link_loss(form, scores.where(positive, -scores) - form.margin)
        if (form.positive_weight, form.negative_weight) != (1.0, 1.0):
            loss = loss * torch.full_like(loss, form.negative_weight).masked_fill(positive, form.positive_weight)
    return Terms(loss.masked_fill(~mask, 0.0).sum(-1), mask.sum(-1))


def negatives_only(form: PreferenceForm, scores: Tensor, responses: Responses, reference: Reference) -> Terms:
    """The responses with relevance 0 or less alone: the winner is removed from DPO (NPO), or plain ascent."""
    negative = responses.mask & (responses.relevance <= 0)
    above = scores - _neutral_score(form, scores, responses.mask, reference)
    loss = above if form.link == "identity" else -2 * F.logsigmoid(-above - form.margin)
    return Terms((loss / form.beta).masked_fill(~negative, 0.0).sum(-1), negative.sum(-1))


# ---------------------------------------------------------------------------------- the batch, sorted


def sorted_margins(form: PreferenceForm, scores: Tensor, responses: Responses, reference: Reference) -> Terms:
    """The policy's margins and the reference's, each sorted over the batch, compared rank by rank (AOT)."""
    policy = score_responses(
        responses, score=form.score, beta=form.beta, ref_weight=0.0, length_exponent=form.length_exponent
    )
    better = ordered_pairs(responses.relevance, responses.mask)
    mine = (policy.unsqueeze(-1) - policy.unsqueeze(-2))[better]
    theirs = (policy - scores).detach()
    theirs = (theirs.unsqueeze(-1) - theirs.unsqueeze(-2))[better]
    return _compare_sorted(form, mine, theirs)


def sorted_scores(form: PreferenceForm, scores: Tensor, responses: Responses, reference: Reference) -> Terms:
    """The scores of the better and of the worse members of all pairs, each sorted over the batch (unpaired AOT)."""
    better = ordered_pairs(responses.relevance, responses.mask)
    winners = scores.unsqueeze(-1).expand_as(better)[better]
    return _compare_sorted(form, winners, scores.unsqueeze(-2).expand_as(better)[better])


def _compare_sorted(form: PreferenceForm, high: Tensor, low: Tensor) -> Terms:
    loss = link_loss(form, high.sort().values - low.sort().values - form.margin)
    return Terms(loss, torch.ones_like(loss, dtype=torch.long))


# ---------------------------------------------------------------------------------- links

STEEP = 50.0
"""Where the exponential link goes over into its tangent, so that no margin is infinite."""


def link_loss(form: PreferenceForm, z: Tensor) -> Tensor:
    """The form's link applied to margins of any shape."""
    smoothing = form.label_smoothing
    if form.link == "logistic":
        loss = -F.logsigmoid(z)
        return loss if smoothing == 0 else (1 - smoothing) * loss - smoothing * F.logsigmoid(-z)
    if form.link == "robust":
        return (smoothing * F.logsigmoid(-z) - (1 - smoothing) * F.logsigmoid(z)) / (1 - 2 * smoothing)
    if form.link == "exo":
        flip = smoothing or 1e-3
        agree = z.sigmoid() * (F.logsigmoid(z) - math.log(1 - flip))
        return agree + torch.sigmoid(-z) * (F.logsigmoid(-z) - math.log(flip))
    if form.link == "exponential":
        return torch.exp(-z.clamp(min=-STEEP)) + math.exp(STEEP) * F.relu(-z - STEEP)
    simple: dict[str, Callable[[Tensor], Tensor]] = {
        "square": lambda z: (z / form.beta - 1 / (2 * form.beta)) ** 2,
        "sigmoid": lambda z: torch.sigmoid(-z),
        "hinge": lambda z: F.relu(1 - z),
        "perceptron": lambda z: F.relu(-z),
        "identity": lambda z: -z,
    }
    return simple[form.link](z)


@dataclass(frozen=True)
class _LinkKernel:
    """A link as a cost of pairs, its derivatives by autograd."""

    form: PreferenceForm

    def value(self, difference: Tensor) -> Tensor:
        return link_loss(self.form, difference - self.form.margin)

    def curvature(self, difference: Tensor) -> Tensor:
        at = difference.detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.value(at).sum(), at, create_graph=True)
            return torch.autograd.grad(slope.sum(), at)[0] if slope.requires_grad else torch.zeros_like(at)

    def block(self, difference: Tensor, weight: Tensor | None, *, slope: bool) -> tuple[Tensor, Tensor | None]:
        at = difference.detach().requires_grad_(slope)
        with torch.set_grad_enabled(slope):
            value = self.value(at) if weight is None else self.value(at) * weight
            change = torch.autograd.grad(value.sum(), at)[0] if slope else None
        return value.detach(), change


def _kernel(form: PreferenceForm) -> Kernel:
    """The pair core's own kernel where it has the link, else the link itself."""
    if form.link == "logistic" and form.label_smoothing == 0 and form.margin == 0:
        return Logistic()
    if form.link in ("hinge", "perceptron"):
        return Hinge(form.margin + (form.link == "hinge"))
    return _LinkKernel(form)


def _neutral_score(form: PreferenceForm, scores: Tensor, mask: Tensor, reference: Reference) -> Tensor | float:
    """The reference point in the units of the scores."""
    if isinstance(reference, str):
        return masked_mean(scores.detach(), mask)
    return reference * (1.0 if form.score in WITHOUT_BETA else form.beta)
