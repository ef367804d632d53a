"""What losses share that average a term over the positives of a list, against everything else in it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from rivals.lists import masked_logsumexp
from rivals.losses._common import Checked, Reduction, reduce_lists


class Positives(NamedTuple):
    """What the positives of lists stand for; everything but `counted` is [..., C].

    share: a positive's part of its list's mean, summing to 1 in a list that has a positive. multiplicity: how often a
    candidate is there, 1 for a positive, its weight for a negative, 0 where it is absent or its weight is 0. negative:
    which candidates are negatives. counted: which lists have a positive.
    """

    share: Tensor
    multiplicity: Tensor
    negative: Tensor
    counted: Tensor


def positives_of(lists: Checked) -> Positives:
    """Return shares and counts: a weight is the share of a positive and the multiplicity of a negative."""
    positive = (lists.relevance > 0) & lists.mask
    negative = lists.mask & ~positive
    share = positive.to(lists.scores.dtype)
    multiplicity = lists.mask.to(lists.scores.dtype)
    if lists.weight is not None:
        share = share * lists.weight
        negative = negative & (lists.weight > 0)
        multiplicity = lists.weight.where(negative, (share > 0).to(share.dtype))
    total = share.sum(-1, keepdim=True)
    return Positives(share / total.masked_fill(total == 0, 1.0), multiplicity, negative, total.squeeze(-1) > 0)


def log_probabilities(scores: Tensor, positives: Positives) -> Tensor:
    """Return the log-softmax of scores that are there `multiplicity` times each; 0 at a candidate that is not there.

    Its exponentials, times that, sum to 1; at a negative of a weight below 1 the exponential may be above 1.
    """
    there = positives.multiplicity > 0
    safe = scores.masked_fill(~there, 0.0)
    logits = safe + positives.multiplicity.masked_fill(~there, 1.0).log()
    return (safe - masked_logsumexp(logits, there).unsqueeze(-1)).masked_fill(~there, 0.0)


def own_log_probabilities(scores: Tensor, positives: Positives) -> Tensor:
    """Return the log-softmax at the positives and 0 everywhere else, so that functions of it are safe there."""
    return log_probabilities(scores, positives).masked_fill(positives.share == 0, 0.0)


def mean_over_positives(terms: Tensor, positives: Positives, reduction: Reduction) -> Tensor:
    """Average a term [..., C] over the positives of each list, then reduce over the lists that have one."""
    kept = terms.masked_fill(positives.share == 0, 0.0)
    return reduce_lists((positives.share * kept).sum(-1), positives.counted, reduction)
