"""Calibration: whether probabilities mean what they say. ECE and its kin, Brier score, log loss, reliability curve.

Numpy in, numpy out; torch in, torch out; float64. `outcomes` says what a probability is about:

- "one": one candidate of each list is the right one, as in classification. Probabilities are the softmax over the list;
  its prediction is the highest of them. Lists where no candidate is right are left out.
- "each": every candidate is right or not by itself, as in multi-label data or a pool of judged documents.
  Probabilities are sigmoids.

Relevance is [..., C] (a grade of at least `relevance_level` is right, NaN unknown and left out), or for outcomes="one"
the class numbers [...]. With `probabilities=True` scores are probabilities already.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures._labelled import labelled
from rivals.measures.ranked import Array, PlainLists

Outcomes: TypeAlias = Literal["one", "each"]
"""Whether one candidate of a list is right, or each by itself may be."""

Norm: TypeAlias = Literal["l1", "l2", "max"]
"""How gaps of bins are joined: the weighted mean, the root of the weighted mean square, the largest."""


class ReliabilityCurve(NamedTuple):
    """One value a bin, NaN where a bin is empty: mean probability, how often it was right, how many there are."""

    confidence: Any
    frequency: Any
    count: Any


class CalibrationReport(NamedTuple):
    """What `calibration_report` returns: numbers, and the curve."""

    ece: float
    mce: float
    classwise: float
    brier: float
    nll: float
    gap: float
    """Mean probability less how often it was right: above 0 is over-confident."""
    curve: ReliabilityCurve


class _Forecast(NamedTuple):
    """p[L, C] probabilities, right[L, C], there[L, C], and the lists they came from."""

    p: Tensor
    log_p: Tensor
    right: Tensor
    there: Tensor
    lists: PlainLists

    def predictions(self, outcomes: Outcomes) -> tuple[Tensor, Tensor, Tensor]:
        """Return probability, outcome and presence of what is judged, [M, 1] each: the top of a list, or everything."""
        if outcomes == "each":
            return tuple(t.reshape(-1, 1) for t in (self.p, self.right.to(self.p.dtype), self.there))  # type: ignore[return-value]
        if self.p.shape[1] == 0:
            empty = self.p.new_zeros(0, 1)
            return empty, empty, empty.bool()
        top = self.p.masked_fill(~self.there, -1).argmax(1, keepdim=True)
        return self.p.gather(1, top), self.right.gather(1, top).to(self.p.dtype), self.there.any(1, keepdim=True)


def expected_calibration_error(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    outcomes: Outcomes = "one",
    bins: int = 15,
    adaptive: bool = False,
    norm: Norm = "l1",
    probabilities: bool = False,
    relevance_level: float = 1,
) -> Any:
    """Expected calibration error (ECE): how far stated probabilities are from how often they are right.

    ECE = sum over bins b of (n_b / N) |frequency_b - confidence_b|. Bins are equally wide and right-closed, or with
    adaptive=True hold equally many predictions (quantiles; equal probabilities stay together). norm="l2" is the root of
    the mean squared gap, "max" the largest gap (MCE).

    Shapes: scores[..., C], relevance[..., C] or class numbers [...], mask like relevance -> scalar, 0 if there is
    nothing. Use it with at least a thousand predictions; it depends on the bins, so report them, and `brier_score`
    beside it, which does not. A model that always says the base rate has ECE 0 and is useless.

    Source: Naeini et al. 2015; Guo et al. 2017; adaptive: Nguyen and O'Connor 2015. Papers 33, 109.

    Raises:
        RivalsError: as `rank_lists`; a class number out of range; bins below 1; an unknown outcomes or norm;
            probabilities not in 0..1.

    >>> import numpy as np
    >>> p, right = np.array([[0.9, 0.1]] * 4), np.array([0, 0, 0, 1])
    >>> expected_calibration_error(p, right, probabilities=True).round(4).item()
    0.15
    """
    forecast = _forecast(scores, relevance, mask, outcomes, probabilities, relevance_level)
    confidence, frequency, count = _binned(*forecast.predictions(outcomes), bins, adaptive)
    return forecast.lists.whole(_joined(confidence, frequency, count, norm)[0])


def classwise_calibration_error(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    outcomes: Outcomes = "one",
    bins: int = 15,
    adaptive: bool = False,
    norm: Norm = "l1",
    probabilities: bool = False,
    relevance_level: float = 1,
) -> Any:
    """Class-wise calibration error: the ECE of the probability of each class, averaged over the classes.

    mean over columns c of sum_b (n_bc / N_c) |frequency_bc - confidence_bc|, over all probabilities, not only the
    highest of each list.

    Shapes, bins and arguments as `expected_calibration_error`; the last dimension is the classes, so candidates in one
    place of all lists belong together. Use it where every class's probability is used, as for costs or several labels.

    Source: Kull et al. 2019 (class-wise ECE); Nixon et al. 2019 (static and adaptive). Paper 109.

    Raises:
        RivalsError: as `expected_calibration_error`.

    >>> import numpy as np
    >>> p, right = np.array([[0.9, 0.1]] * 4), np.array([0, 0, 0, 1])
    >>> classwise_calibration_error(p, right, probabilities=True).round(4).item()
    0.15
    """
    forecast = _forecast(scores, relevance, mask, outcomes, probabilities, relevance_level)
    confidence, frequency, count = _binned(
        forecast.p, forecast.right.to(forecast.p.dtype), forecast.there, bins, adaptive
    )
    errors, held = _joined(confidence, frequency, count, norm), count.sum(1) > 0
    return forecast.lists.whole((errors * held).sum() / held.sum().clamp(min=1))


def brier_score(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    outcomes: Outcomes = "one",
    probabilities: bool = False,
    relevance_level: float = 1,
) -> Any:
    """Brier score: the squared distance of probabilities from what happened; lower is better.

    one: mean over lists of sum_k (p_k - [k right])^2, in 0..2 (averaged over the right ones, should there be several);
    each: mean over candidates of (p - [right])^2, in 0..1.

    Shapes: scores[..., C], relevance[..., C] or class numbers [...], mask like relevance -> scalar. Use it as the
    calibration measure that cannot be gained by hedging: it is proper, smallest in the mean for the true probabilities.
    `brier_loss` is the same for training.

    Source: Brier 1950. Papers 44, 89, 109.

    Raises:
        RivalsError: as `expected_calibration_error`.

    >>> import numpy as np
    >>> brier_score(np.array([[0.9, 0.1]] * 2), np.array([0, 1]), probabilities=True).round(4).item()
    0.82
    """
    forecast = _forecast(scores, relevance, mask, outcomes, probabilities, relevance_level)
    if outcomes == "each":
        squares = (forecast.p - forecast.right.to(forecast.p.dtype)).square()
        return forecast.lists.whole(_mean(squares, forecast.there))
    whole = (forecast.p * forecast.there).square().sum(1, keepdim=True)
    return forecast.lists.whole(_mean_over_right(whole - 2 * forecast.p + 1, forecast))


def negative_log_likelihood(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    outcomes: Outcomes = "one",
    probabilities: bool = False,
    relevance_level: float = 1,
) -> Any:
    """Negative log-likelihood (log loss, cross entropy) of what happened under the probabilities; lower is better.

    one: mean over lists of -log p of the right candidate (of their mean, should there be several); each: mean over
    candidates of -log p if right, -log(1 - p) if not.

    Shapes: scores[..., C], relevance[..., C] or class numbers [...], mask like relevance -> scalar. Proper, as the
    Brier score, but one certain error makes it infinite (with probabilities) or very large (with scores). Its
    exponential over tokens is `perplexity`.

    Source: Good 1952; as scikit-learn's `log_loss`. Papers 44, 109.

    Raises:
        RivalsError: as `expected_calibration_error`.

    >>> import numpy as np
    >>> negative_log_likelihood(np.zeros((1, 4)), np.array([2])).round(4).item()
    1.3863
    """
    forecast = _forecast(scores, relevance, mask, outcomes, probabilities, relevance_level)
    if outcomes == "one":
        return forecast.lists.whole(_mean_over_right(-forecast.log_p, forecast))
    other = (-forecast.p).log1p() if probabilities else torch.nn.functional.logsigmoid(-forecast.lists.scores)
    return forecast.lists.whole(_mean(-torch.where(forecast.right, forecast.log_p, other), forecast.there))


def reliability_curve(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    outcomes: Outcomes = "one",
    bins: int = 15,
    adaptive: bool = False,
    probabilities: bool = False,
    relevance_level: float = 1,
) -> ReliabilityCurve:
    """The points of a reliability diagram: for each bin the mean probability and how often it was right.

    Shapes and arguments as `expected_calibration_error` -> three [bins]; empty bins are NaN with count 0. Below the
    diagonal is over-confident.

    Source: DeGroot and Fienberg 1983; as scikit-learn's `calibration_curve`. Paper 109.

    Raises:
        RivalsError: as `expected_calibration_error`.

    >>> import numpy as np
    >>> curve = reliability_curve(np.array([[0.9, 0.1]] * 4), np.array([0, 0, 0, 1]), bins=2, probabilities=True)
    >>> curve.frequency.tolist(), curve.count.tolist()
    ([nan, 0.75], [0, 4])
    """
    forecast = _forecast(scores, relevance, mask, outcomes, probabilities, relevance_level)
    table = _binned(*forecast.predictions(outcomes), bins, adaptive)
    return ReliabilityCurve(*(forecast.lists.whole(column[0]) for column in (*table[:2], table[2].long())))


def calibration_report(
    scores: Array,
    relevance: Array,
    mask: Array | None = None,
    *,
    outcomes: Outcomes = "one",
    bins: int = 15,
    adaptive: bool = False,
    probabilities: bool = False,
    relevance_level: float = 1,
) -> CalibrationReport:
    """All of them at once: ECE, largest gap, class-wise error, Brier score, log loss, signed gap, curve.

    Shapes and arguments as `expected_calibration_error` -> `CalibrationReport`. The signed gap is mean(probability) -
    mean(right).

    Source: the measures named above. Paper 109.

    Raises:
        RivalsError: as `expected_calibration_error`.

    >>> import numpy as np
    >>> report = calibration_report(np.array([[0.9, 0.1]] * 4), np.array([0, 0, 0, 1]), probabilities=True)
    >>> round(report.ece, 4), round(report.gap, 4)
    (0.15, 0.15)
    """
    forecast = _forecast(scores, relevance, mask, outcomes, probabilities, relevance_level)
    p, right, there = forecast.predictions(outcomes)
    table = _binned(p, right, there, bins, adaptive)
    keywords: dict[str, Any] = {
        "outcomes": outcomes,
        "probabilities": probabilities,
        "relevance_level": relevance_level,
    }
    return CalibrationReport(
        ece=float(_joined(*table, "l1")[0]),
        mce=float(_joined(*table, "max")[0]),
        classwise=float(classwise_calibration_error(scores, relevance, mask, bins=bins, adaptive=adaptive, **keywords)),
        brier=float(brier_score(scores, relevance, mask, **keywords)),
        nll=float(negative_log_likelihood(scores, relevance, mask, **keywords)),
        gap=float(_mean(p - right, there)),
        curve=ReliabilityCurve(*(forecast.lists.whole(column[0]) for column in (*table[:2], table[2].long()))),
    )


def _forecast(
    scores: Array,
    relevance: Array,
    mask: Array | None,
    outcomes: Outcomes,
    probabilities: bool,
    relevance_level: float,
) -> _Forecast:
    if outcomes not in ("one", "each"):
        raise RivalsError(f"outcomes is '{outcomes}'; it can be 'one' or 'each'")
    labels = labelled(scores, relevance, mask, relevance_level=relevance_level)
    lists, right, there = labels.lists, labels.right, labels.lists.mask
    if probabilities:
        p = lists.scores
        if p.numel() and not (p.min() >= 0 and p.max() <= 1):
            raise RivalsError(f"probabilities must lie in 0..1; scores reach from {p.min():g} to {p.max():g}")
        log_p = p.log()
    elif outcomes == "one":
        log_p = lists.scores.masked_fill(~there, -torch.inf).log_softmax(1).masked_fill(~there, 0)
        p = log_p.exp() * there
    else:
        log_p = torch.nn.functional.logsigmoid(lists.scores)
        p = lists.scores.sigmoid()
    if outcomes == "one":
        there = there & right.any(1, keepdim=True)
    return _Forecast(p, log_p, right, there, lists)


def _binned(p: Tensor, right: Tensor, there: Tensor, bins: int, adaptive: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Bin the columns of [M, K] one by one: mean probability, mean outcome and count of each bin, [K, bins]."""
    if isinstance(bins, bool) or int(bins) != bins or bins < 1:
        raise RivalsError(f"bins is {bins}; it must be a whole number of at least 1")
    columns, present = p.T.contiguous(), there.T.to(p.dtype)
    inner = torch.linspace(0, 1, bins + 1, dtype=p.dtype, device=p.device)[1:-1].expand(len(columns), -1)
    if adaptive:
        inner = _quantiles(columns, there.T, inner)
    place = torch.searchsorted(inner.contiguous(), columns)
    count, chance, outcome = (
        p.new_zeros(len(columns), bins).scatter_add_(1, place, values * present)
        for values in (torch.ones_like(columns), columns, right.T)
    )
    empty = count == 0
    divisor = count.masked_fill(empty, 1)
    return (chance / divisor).masked_fill(empty, torch.nan), (outcome / divisor).masked_fill(empty, torch.nan), count


def _quantiles(columns: Tensor, there: Tensor, levels: Tensor) -> Tensor:
    """Return quantiles of the present values of each row, by linear interpolation; the levels where there are none."""
    if columns.shape[1] == 0:
        return levels
    ordered = columns.masked_fill(~there, torch.inf).sort(1).values
    last = (there.sum(1, keepdim=True) - 1).clamp(min=0)
    place = levels * last
    low = place.floor().long()
    left, right = ordered.gather(1, low), ordered.gather(1, (low + 1).minimum(last))
    found = left + (right - left).nan_to_num(nan=0.0, posinf=0.0) * (place - low)
    return torch.where(there.any(1, keepdim=True), found, levels)


def _joined(confidence: Tensor, frequency: Tensor, count: Tensor, norm: Norm) -> Tensor:
    """Join the gaps of bins [K, bins] to one number a row."""
    gaps = (frequency - confidence).abs().nan_to_num(nan=0.0)
    share = count / count.sum(1, keepdim=True).clamp(min=1)
    if norm == "l1":
        return (share * gaps).sum(1)
    if norm == "l2":
        return (share * gaps.square()).sum(1).sqrt()
    if norm == "max":
        return gaps.amax(1)
    raise RivalsError(f"norm is '{norm}'; it can be 'l1', 'l2' or 'max'")


def _mean(values: Tensor, there: Tensor) -> Tensor:
    return values.masked_fill(~there, 0).sum() / there.sum().clamp(min=1)


def _mean_over_right(values: Tensor, forecast: _Forecast) -> Tensor:
    """Average values [L, C] over the right candidates of each list, then over the lists that have one."""
    right = forecast.right & forecast.there
    several = right.sum(1)
    each = values.expand_as(forecast.p).masked_fill(~right, 0).sum(1) / several.clamp(min=1)
    return each.sum() / (several > 0).sum().clamp(min=1)
