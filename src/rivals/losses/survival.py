"""Survival: when will it stop? Hazards per time bin from durations that may be censored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import (
    Reduction,
    check_choice,
    check_finite,
    check_not_negative,
    check_positive,
    check_reduction,
    check_rows,
    check_scores,
    check_shape,
    spread_rows,
)

__all__ = ["discretize_durations", "expected_lifetime", "hazard_loss", "survival_from_logits", "value_weights"]

WeightKind = Literal["linear", "log1p", "rank"]
BinScheme = Literal["quantile", "equal"]


def hazard_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    events: Tensor | None = None,
    weight: Tensor | None = None,
    boundary: int | None = None,
    long_weight: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log likelihood of discrete-time hazards, from the bin of an event or of censoring.

    Formula:
        h_u = sigmoid(z_u) is the probability of stopping in bin u of those that reached it. With t the label and e = 1
        for an event, 0 for censoring after the whole of bin t:  l = sum_{u <= t} log(1 + e^{z_u}) - e z_t.
        L = sum w l / sum w.

        `boundary` b makes two terms of it: bins 0..b-1 for every item (those that reach b are censored at b - 1), and
        bins b.. for the items that reach b:  L = L_short + long_weight L_long, each divided by the weights of its own
        items ("sum" and "none" do not divide).

    Shapes:
        logits float[N, T], labels int[N] in 0..T-1, mask bool[N], events [N] of 0 and 1 or bool (default: all
        observed), weight float[N] >= 0 -> scalar, or float[N] with reduction="none".

    When to use:
        Time to an event with items that have not had it yet: churn, discontinuation, failure. Two terms, over the
        concatenated logits of two heads, when early and late events have different causes.

    Relations:
        T = 1: binary cross entropy on the event. Without division the two terms add up to the whole, for any
        boundary. Scores to rank by: `expected_lifetime`.

    Source:
        Kitada, Iyatomi and Seki (2022), the hazard likelihood with two-term estimation and click-through weights
        (`value_weights`); Kvamme and Borgan (2019); pycox `nll_logistic_hazard`. Paper 115. Censoring at the
        start of a bin is the end of the bin before: pass t - 1.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels outside 0..T-1, events other than 0 and 1,
        negative weights or weights that are all 0, a boundary outside 1..T-1, long_weight < 0, an unknown reduction.

    Example:
        Stopped in the second of three bins, at even odds.

        >>> import torch
        >>> hazard_loss(torch.zeros(1, 3), torch.tensor([1]))
        tensor(1.3863)
    """
    check_reduction(reduction)
    rows = check_rows(logits, labels, mask, weight=weight, name="logits", classes=True)
    z, t = rows.rows, rows.labels
    event = _check_events(events, rows.mask, z)
    weights = torch.ones_like(event) if rows.weight is None else rows.weight
    if rows.weight is not None and len(weights) and weights.device.type == "cpu" and not weights.any():
        raise RivalsError("weight is 0 for every example; leave weight out or give some example a positive one")
    if boundary is None:
        return _reduced([(_likelihood(z, t, event), weights, 1.0)], rows.mask, reduction)
    if not 1 <= boundary < logits.shape[1]:
        raise RivalsError(
            f"boundary must lie in 1..{logits.shape[1] - 1}, so that both terms have a bin; got {boundary}"
        )
    if long_weight < 0:
        raise RivalsError(f"long_weight must be at least 0; got {long_weight!r}")
    reached = t >= boundary
    short = _likelihood(z[:, :boundary], t.clamp(max=boundary - 1), event * ~reached)
    long = _likelihood(z[:, boundary:], (t - boundary).clamp(min=0), event) * reached
    return _reduced([(short, weights, 1.0), (long, weights * reached, long_weight)], rows.mask, reduction)


def survival_from_logits(logits: Tensor) -> Tensor:
    """Return the survival curve S_t = prod_{u <= t} (1 - sigmoid(z_u)), summed up in logs.

    Shapes: logits float[..., T] -> float[..., T], falling along the last dimension.

    Source: Kvamme and Borgan (2019). Paper 115.

    Raises:
        RivalsError: logits that are no floating-point tensor.

    >>> survival_from_logits(torch.zeros(3))
    tensor([0.5000, 0.2500, 0.1250])
    """
    check_scores(logits, "logits")
    return F.logsigmoid(-logits.to(compute_dtype(logits))).cumsum(-1).exp()


def expected_lifetime(logits: Tensor, *, bin_width: float = 1.0) -> Tensor:
    """Return sum_t S_t, the expected number of bins survived, times the width of a bin; the shortest stops first.

    Shapes: logits float[..., T] -> float[...].

    Source: Kitada, Iyatomi and Seki (2022). Paper 115.

    Raises:
        RivalsError: logits that are no floating-point tensor, bin_width <= 0.

    >>> expected_lifetime(torch.zeros(3), bin_width=2.0)
    tensor(1.7500)
    """
    check_positive(bin_width, "bin_width")
    return bin_width * survival_from_logits(logits).sum(-1)


def value_weights(
    values: Tensor,
    *,
    kind: WeightKind | Callable[[Tensor], Tensor] = "linear",
    normalize: bool = True,
    clip: float | None = None,
) -> Tensor:
    """Return example weights that rise with a value (click-through rate, revenue), with mean 1 if normalised.

    "linear": the value; "log1p": log(1 + value); "rank": (1 + how many are smaller) / N, ties at their lowest; or a
    function of the values. `clip` first cuts values above that quantile: heavy tails otherwise give most of the weight
    to a few examples.

    Shapes: values float[N] >= 0 -> float[N], without gradient.

    Source: Kitada, Iyatomi and Seki (2022), click-through weighting; its exact form is not known here. Paper 115.

    Raises:
        RivalsError: negative, NaN or infinite values, weights that are all 0, an unknown kind, clip outside (0, 1].

    >>> value_weights(torch.tensor([1.0, 3.0]))
    tensor([0.5000, 1.5000])
    """
    check_scores(values, "values", ndim=1)
    check_not_negative(values, "values")
    if not callable(kind):
        check_choice(kind, get_args(WeightKind), "kind")
    values = values.detach().to(compute_dtype(values))
    if clip is not None:
        if not 0 < clip <= 1:
            raise RivalsError(f"clip must be a quantile in (0, 1]; got {clip!r}")
        if len(values):
            values = values.clamp(max=torch.quantile(values, clip))
    if callable(kind):
        weights = kind(values)
        check_not_negative(weights, "weights")
    elif kind == "rank":
        weights = (1 + torch.searchsorted(values.sort().values, values).to(values.dtype)) / max(1, len(values))
    else:
        weights = values if kind == "linear" else values.log1p()
    if not len(weights):
        return weights
    if weights.device.type == "cpu" and not weights.any():
        raise RivalsError("values give every example the weight 0; at least one must be above 0")
    return weights / weights.mean() if normalize else weights


def discretize_durations(
    times: Tensor, num_bins: int, *, scheme: BinScheme = "quantile", events: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cut durations into bins and return (bin of each, int64[N]; inner edges, float[at most num_bins - 1]).

    "quantile" puts the edges at the quantiles of the durations (of the observed ones, given `events`), "equal" at equal
    distances from 0 to the largest. A time t falls into bin i if edge_{i-1} < t <= edge_i; equal quantiles give one
    edge. Cut new times with torch.bucketize(times, edges).

    Shapes: times float[N] >= 0, events [N] -> (int64[N], float[E]).

    Source: Kvamme and Borgan (2019). Paper 115.

    Raises:
        RivalsError: no times, negative or infinite ones, num_bins < 2, an unknown scheme, no observed event.

    >>> discretize_durations(torch.tensor([1.0, 2.0, 3.0, 4.0]), 2)
    (tensor([0, 0, 1, 1]), tensor([2.5000]))
    """
    check_choice(scheme, get_args(BinScheme), "scheme")
    check_scores(times, "times", ndim=1)
    check_not_negative(times, "times")
    if num_bins < 2:
        raise RivalsError(f"num_bins must be at least 2; got {num_bins}")
    observed = times if events is None else times[events.bool()]
    if not len(observed):
        raise RivalsError("times holds no observed duration; there is nothing to take the bins from")
    steps = torch.arange(1, num_bins, dtype=times.dtype, device=times.device) / num_bins
    edges = torch.quantile(observed, steps).unique() if scheme == "quantile" else steps * times.max()
    return torch.bucketize(times, edges), edges


def _likelihood(logits: Tensor, bins: Tensor, event: Tensor) -> Tensor:
    """Return every item's negative log likelihood; logits of later bins reach neither value nor gradient."""
    lived = torch.arange(logits.shape[1], device=logits.device) <= bins.unsqueeze(1)
    own = logits.gather(1, bins.long().unsqueeze(1)).squeeze(1)
    survived = F.logsigmoid(-logits.masked_fill(~lived, 0.0))
    return -survived.masked_fill(~lived, 0.0).sum(1) - event * own


def _reduced(terms: list[tuple[Tensor, Tensor, float]], mask: Tensor, reduction: Reduction) -> Tensor:
    """Add up (losses, weights, factor) terms, for the means each divided by its own weights."""
    if reduction == "none":
        return spread_rows(torch.stack([factor * weight * loss for loss, weight, factor in terms]).sum(0), mask)
    if reduction == "sum":
        return torch.stack([(factor * weight * loss).sum() for loss, weight, factor in terms]).sum()
    means = []
    for loss, weight, factor in terms:
        total = weight.sum()
        means.append(factor * (weight * loss).sum() / total.masked_fill(total == 0, 1.0))
    return torch.stack(means).sum()


def _check_events(events: Tensor | None, mask: Tensor, logits: Tensor) -> Tensor:
    if events is None:
        return torch.ones_like(logits[:, 0])
    check_shape(events, tuple(mask.shape), "events", logits.device)
    event = events[mask].to(logits.dtype)
    check_finite(event, "events")
    if event.device.type == "cpu" and not ((event == 0) | (event == 1)).all():
        raise RivalsError("events must be 1 (observed) or 0 (censored)")
    return event
