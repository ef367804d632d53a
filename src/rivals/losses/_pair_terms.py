"""What one anchor pays for its similarities to positives and negatives: the readable mathematics of metric learning.

Every `*_terms` function takes `Pairs` and returns `Parts`: what each anchor (list) adds up to and how many terms that
is. The ranking forms make `Pairs` of given scores and masks; the labelled forms make them of whole batches, or block by
block (`_fused.labelled`).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import Reduction, reduce_lists

PairReduction = Literal["mean", "sum", "none", "list_mean", "mean_positive"]
Mining = Literal["hard", "semihard", "all", "random"]
_NOTHING = -80.0
"""e^-80 is nothing beside 1, in double precision too; below -87 single-precision exponentials are slow. `threshold` and
`relu` stand for `clamp` here, whose gradient is slow."""

_FAR = 100.0
"""A circle weight is at most this: cosines never get there, and gradients in half precision do not overflow."""


class Terms(NamedTuple):
    """Per anchor: the sum of its terms and their number, both [...]."""

    total: Tensor
    number: Tensor


Parts: TypeAlias = tuple[Terms, ...]
"""Terms that are averaged each by itself and then added."""


@dataclass(frozen=True)
class Pairs:
    """An anchor's scores, once as those of its positives, once as those of its negatives.

    `pulled` [..., K] are positives where `pulled_there`. `pushed` [..., C] are negatives where `negative` [..., C], or,
    when that is None, everywhere but in the columns `own` [..., K] (then every anchor must have a negative): blocks
    of large batches avoid dense masks, which cost more than all the rest. `log_weight` [..., C] goes with both.
    """

    pulled: Tensor
    pulled_there: Tensor
    pushed: Tensor
    positives: Tensor  # how many, [...]
    negatives: Tensor
    negative: Tensor | None = None
    own: Tensor | None = None
    log_weight: Tensor | None = None

    @property
    def both(self) -> Tensor:
        """Which anchors have a positive and a negative."""
        return (self.positives > 0) & (self.negatives > 0)

    def only_pulled(self, values: Tensor, fill: float) -> Tensor:
        """Return values [..., K] with `fill` where there is no positive."""
        return values.masked_fill(~self.pulled_there, fill)

    def only_pushed(self, values: Tensor, fill: float) -> Tensor:
        """Return values [..., C] with `fill` where there is no negative."""
        if self.negative is not None:
            return values.masked_fill(~self.negative, fill)
        assert self.own is not None
        return values.scatter(-1, self.own, fill)

    def pull_log_sum(self, logits: Tensor, *, plus_one: bool = False) -> Tensor:
        """Return log sum of w e^logit over the positives, 0 where there is none; with `plus_one` log(1 + sum)."""
        return _log_sum(self.only_pulled(self._weighted(logits), -torch.inf), plus_one)

    def push_log_sum(self, logits: Tensor, *, plus_one: bool = False) -> Tensor:
        """Return log sum of w e^logit over the negatives, 0 where there is none; with `plus_one` log(1 + sum)."""
        return _log_sum(self.only_pushed(self._weighted(logits), -torch.inf), plus_one)

    def extremes(self) -> tuple[Tensor, Tensor]:
        """Return the score of the best negative, -inf if none, and of the worst positive, huge if none, [..., 1]."""
        if self.pushed.shape[-1] == 0:
            return (self.pushed.new_zeros((*self.pushed.shape[:-1], 1)),) * 2
        best = self.only_pushed(self.pushed.detach(), -torch.inf).amax(-1, keepdim=True)
        worst = self.only_pulled(self.pulled.detach(), torch.inf).amin(-1, keepdim=True)
        return best, worst.clamp(max=torch.finfo(worst.dtype).max / 8)

    def _weighted(self, logits: Tensor) -> Tensor:
        return logits if self.log_weight is None else logits + self.log_weight


def dense_pairs(scores: Tensor, positive: Tensor, negative: Tensor, weight: Tensor | None = None) -> Pairs:
    """Make pairs of scores [..., C] and masks; `weight` says how many times a candidate counts, 0 takes it out."""
    log_weight = None
    if weight is not None:
        positive, negative = positive & (weight > 0), negative & (weight > 0)
        log_weight = weight.masked_fill(weight <= 0, 1.0).log()
    return Pairs(scores, positive, scores, positive.sum(-1), negative.sum(-1), negative=negative, log_weight=log_weight)


def _log_sum(logits: Tensor, plus_one: bool) -> Tensor:
    """Return log sum e^logit over the last dimension, where -inf is absent; nothing there gives 0 without gradient."""
    if logits.shape[-1] == 0:
        return logits.sum(-1)
    highest = logits.detach().amax(-1)
    empty = highest == -torch.inf
    highest = highest.clamp(min=0) if plus_one else highest.masked_fill(empty, 0.0)
    total = F.threshold(logits - highest.unsqueeze(-1), _NOTHING, _NOTHING).exp().sum(-1)
    logarithm = (total + (-highest).expm1()).log1p() if plus_one else total.log()
    return (logarithm + highest).masked_fill(empty, 0.0)


def log_one_plus(logits: Tensor, there: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return log(1 + sum of w e^logit) over the entries that are there; 0 where there is none."""
    if weight is not None:
        there = there & (weight > 0)
        logits = logits + weight.masked_fill(~there, 1.0).log()
    return _log_sum(logits.masked_fill(~there, -torch.inf), plus_one=True)


def split_reduction(reduction: PairReduction) -> tuple[Reduction, bool]:
    """Return the plain reduction and whether only terms above 0 count ("mean_positive" = a mean over those)."""
    return ("mean", True) if reduction == "mean_positive" else (reduction, False)


def reduce_parts(parts: Parts, reduction: Reduction) -> Tensor:
    """Reduce every part by itself and add them up."""
    reduced = [reduce_lists(*part, reduction) for part in parts]
    return reduced[0] if len(reduced) == 1 else torch.stack(reduced).sum(0)


def multi_similarity_terms(
    pairs: Pairs,
    *,
    alpha: float,
    beta: float,
    threshold: float,
    epsilon: float | None,
    partial: bool,
    positive_only: bool = False,
) -> Parts:
    """Paper 41: one term an anchor that has any candidate; without mined positives or negatives it is 0 or partial."""
    there = (pairs.positives > 0) | (pairs.negatives > 0)
    pulled, pushed, both = pairs.pulled, pairs.pushed, pairs.both
    if epsilon is not None and epsilon != torch.inf:
        best, worst = pairs.extremes()
        kept = pairs.pulled_there & ~(pulled >= best + epsilon)  # NaN stays, here and below
        floor = worst - epsilon
        pulled = pulled.masked_fill(~kept, torch.inf)
        pushed = F.threshold(pushed - floor, 0.0, -torch.inf) + floor
        both = kept.any(-1) & ~(best <= floor).squeeze(-1)
    pull = pairs.pull_log_sum(-alpha * (pulled - threshold), plus_one=True) / alpha
    loss = pull + pairs.push_log_sum(beta * (pushed - threshold), plus_one=True) / beta
    if not partial or epsilon == torch.inf:
        loss = loss.masked_fill(~both, 0.0)
    return (Terms(loss, loss > 0 if positive_only else there),)


def _both_sides(pairs: Pairs, pulls: Tensor, pushes: Tensor, positive_only: bool) -> Parts:
    """Return log(1 + sum_n e^push sum_p e^pull), one term an anchor that has both."""
    loss = -F.logsigmoid(-pairs.pull_log_sum(pulls) - pairs.push_log_sum(pushes)).masked_fill(~pairs.both, 0.0)
    return (Terms(loss, loss > 0 if positive_only else pairs.both),)


def unified_terms(pairs: Pairs, *, scale: float, margin: float, positive_only: bool = False) -> Parts:
    """Paper 117, the unified loss: every similarity pulled or pushed with the same strength."""
    return _both_sides(pairs, -scale * pairs.pulled, scale * (pairs.pushed + margin), positive_only)


def circle_pull(scores: Tensor, *, margin: float, scale: float, detach_weights: bool = True) -> Tensor:
    """Paper 117: -g a_p (s_p - D_p), the logit of a positive; a_p says how far it has still to go."""
    source = scores.detach() if detach_weights else scores
    return ((source - (1 + margin)).clamp(-_FAR, 0) * scale) * (scores - (1 - margin))


def circle_push(scores: Tensor, *, margin: float, scale: float, detach_weights: bool = True) -> Tensor:
    """Paper 117: g a_n (s_n - D_n), the logit of a negative."""
    source = scores.detach() if detach_weights else scores
    return ((source + margin).clamp(0, _FAR) * scale) * (scores - margin)


def circle_terms(
    pairs: Pairs, *, margin: float, scale: float, detach_weights: bool = True, positive_only: bool = False
) -> Parts:
    """Paper 117, circle loss: one term an anchor that has a positive and a negative. Any margin (paper 116: -0.2)."""
    pulls = circle_pull(pairs.pulled, margin=margin, scale=scale, detach_weights=detach_weights)
    pushes = circle_push(pairs.pushed, margin=margin, scale=scale, detach_weights=detach_weights)
    return _both_sides(pairs, pulls, pushes, positive_only)


def contrastive_terms(
    pairs: Pairs, *, margin: float, positive_margin: float, squared: bool, positive_only: bool
) -> Parts:
    """Hadsell et al.: positives pay for distance (-score) above one margin, negatives for distance below the other."""
    too_far = pairs.only_pulled(F.relu(-pairs.pulled - positive_margin), 0.0)
    too_near = pairs.only_pushed(F.relu(pairs.pushed + margin), 0.0)
    parts = []
    for excess, count in ((too_far, pairs.positives), (too_near, pairs.negatives)):
        total = (excess.square() if squared else excess).sum(-1)
        parts.append(Terms(total, (excess > 0).sum(-1) if positive_only else count))
    return tuple(parts)


def triplet_terms(
    pairs: Pairs,
    *,
    margin: float,
    mining: Mining,
    soft: bool,
    positive_only: bool = False,
    generator: torch.Generator | None = None,
) -> Parts:
    """Paper 12: hinge (or softplus) of s_n - s_p + margin over the triplets that `mining` selects in each list."""
    valid = pairs.both
    if mining == "random":
        generator = needs_generator(generator)
    if not bool(valid.any()):
        return (Terms(pairs.pushed.sum(-1) * 0, valid),)
    there = pairs.pulled_there & valid.unsqueeze(-1)
    if mining == "all":
        return (_all_triplets(pairs, there, margin, soft),)
    if mining == "semihard":
        # the nearest negative that is farther than the positive, else the farthest negative
        ordered, _ = pairs.only_pushed(pairs.pushed, torch.inf).sort(-1)
        farther = torch.searchsorted(ordered.detach(), pairs.pulled.detach().contiguous())
        violation = ordered.gather(-1, (farther - 1).clamp(min=0)) - pairs.pulled
    else:
        if generator is not None and pairs.negative is not None:
            near, far = pick_one(pairs.pulled_there, generator), pick_one(pairs.negative, generator)
        else:
            near = pairs.only_pulled(pairs.pulled.detach(), torch.inf).argmin(-1, keepdim=True)
            far = pairs.only_pushed(pairs.pushed.detach(), -torch.inf).argmax(-1, keepdim=True)
        there = valid.unsqueeze(-1)
        violation = pairs.pushed.gather(-1, far) - pairs.pulled.gather(-1, near)
    return (hinge(violation + margin, there, soft=soft, positive_only=positive_only),)


def hinge(violation: Tensor, there: Tensor, *, soft: bool, positive_only: bool) -> Terms:
    """Return the hinge (or softplus) of violations [..., K] that are there, summed over the last dimension."""
    violation = violation.masked_fill(~there, 0.0)
    loss = (-F.logsigmoid(-violation) if soft else F.relu(violation)).masked_fill(~there, 0.0)
    return Terms(loss.sum(-1), ((loss > 0) if positive_only else there).sum(-1))


def _all_triplets(pairs: Pairs, there: Tensor, margin: float, soft: bool) -> Terms:
    """Every triplet of each list: softplus pair by pair; the hinge by sorting, over its terms above 0."""
    pulled, there = _gathered(pairs.pulled, there)
    ordered, _ = pairs.only_pushed(pairs.pushed, -torch.inf).sort(-1, descending=True)
    if soft:
        violation = ordered.unsqueeze(-2) - pulled.unsqueeze(-1) + margin
        both = there.unsqueeze(-1) & (ordered > -torch.inf).unsqueeze(-2)
        return hinge(violation.flatten(-2), both.flatten(-2), soft=True, positive_only=False)
    violating = torch.searchsorted(-ordered.detach(), (margin - pulled).detach()).masked_fill(~there, 0)
    running = F.pad(ordered.masked_fill(ordered == -torch.inf, 0.0).cumsum(-1), (1, 0))
    loss = violating * (margin - pulled) + running.gather(-1, violating)
    return Terms(loss.masked_fill(~there, 0.0).sum(-1), violating.sum(-1))


def _gathered(values: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Bring what is there of values [..., C] to the front, as wide as the longest list needs, and say what is there."""
    there, place = there.int().topk(int(there.sum(-1).max()), dim=-1)
    return values.gather(-1, place), there.bool()


def needs_generator(generator: torch.Generator | None) -> torch.Generator:
    """Return the generator, or say that random mining needs one."""
    if generator is None:
        raise RivalsError('mining="random" draws triplets; give it generator=torch.Generator()')
    return generator


def pick_one(chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one True of every list of `chosen` [..., C], evenly, and return its place; padding draws no number."""
    draw = torch.rand(chosen.shape[:-1], generator=generator, dtype=torch.float64, device=generator.device)
    number = (draw.to(chosen.device) * chosen.sum(-1)).long().unsqueeze(-1)
    return (chosen & (chosen.cumsum(-1) == number + 1)).int().argmax(-1, keepdim=True)


def warn_if_none(pairs: Pairs) -> None:
    """Warn, once a process, if no anchor has both. Only on the CPU: elsewhere reading it would stall the device."""
    looks = pairs.pushed.device.type == "cpu" and not torch.compiler.is_compiling()
    if looks and pairs.pushed.numel() and not bool(pairs.both.any()):
        warn_of_nothing()


@cache
def warn_of_nothing() -> None:
    """Say once that a batch has nothing to learn from."""
    warnings.warn(
        "no anchor of the batch has both a positive and a negative, so the loss is 0; "
        "draw at least two examples of each of at least two classes (this is said once)",
        stacklevel=4,
    )
