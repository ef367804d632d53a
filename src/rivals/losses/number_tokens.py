"""Losses over tokens or classes that stand for numbers: being wrong by much costs more than being wrong by little."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype, masked_log_softmax
from rivals.losses._common import (
    Reduction,
    check_choice,
    check_finite,
    check_lists,
    check_positive,
    check_reduction,
    check_rows,
    check_scores,
    check_shape,
    reduce_lists,
    spread_rows,
)

__all__ = [
    "expected_token_value",
    "number_level_loss",
    "number_token_loss",
    "ordinal_wasserstein_loss",
    "token_values",
]

NumberKind = Literal["wasserstein", "squared", "absolute", "huber"]
_WORSE_THAN_ANY_NUMBER = 1.01

_ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared": lambda found, wanted: (found - wanted).square(),
    "absolute": lambda found, wanted: (found - wanted).abs(),
    "huber": lambda found, wanted: F.huber_loss(found, wanted, reduction="none"),
}


def number_token_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    values: Tensor | None = None,
    weight: Tensor | None = None,
    kind: NumberKind = "wasserstein",
    squash: float | None = None,
    reweigh: bool = False,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Number token loss: how far the predicted distribution over number tokens lies from the number meant.

    Formula:
        At a position whose label is a number y, with q the softmax over the number tokens only and v their values:

        - "wasserstein": sum_j q_j |y - v_j|, the Wasserstein-1 distance to the label.
        - "squared", "absolute", "huber": f(sum_j q_j v_j, y), the error of the mean number.

        `squash` s > 1 replaces the distances d > 0 by 1 + (d - d_min)(s - 1) / (d_max - d_min). `reweigh` replaces the
        term w by n w + 1.01 D (1 - n), n the probability of any number token under the full softmax and D the largest
        distance. L = sum of weighted terms / sum of weights over the positions that count; "none" gives the terms.

    Shapes:
        logits float[..., V], labels int[...] (`ignore_index`: left out), mask bool[...], weight float[...] >= 0, values
        float[V] (NaN: not a number; default 0, 1, ..., V - 1) -> scalar, or float[...] with reduction="none".

    When to use:
        Beside cross entropy (0.3 of it, in the paper) where a language model writes numbers or grades, and for ordinal
        classes. Shift a causal model's labels first. Values of many digits make it huge: digits only, or `squash`.

    Relations:
        `expected_token_value` reads the number back. Soft targets: `ordinal_wasserstein_loss`. The error of the mean
        has false minima (half on 0 and half on 8 means 4), "wasserstein" has none.

    Source:
        Zausinger et al. (2025); `reweigh` and `squash` as in their package, where reweigh is the default.
        Paper 30. A padded label is masked, not taken for token 0 as in the research code.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, labels outside 0..V - 1, fewer than two number values,
        an infinite value, squash <= 1 or with another kind, an unknown kind or reduction, a negative weight.

    Example:
        >>> import torch
        >>> number_token_loss(torch.zeros(1, 10), torch.tensor([4]))
        tensor(2.5000)
    """
    check_choice(kind, get_args(NumberKind), "kind")
    if squash is not None:
        if kind != "wasserstein":
            raise RivalsError(f'squash reshapes distances and needs kind "wasserstein"; got {kind!r}')
        if not (math.isfinite(squash) and squash > 1):
            raise RivalsError(f"squash must be a finite number above 1; got {squash!r}")
    found = _positions(logits, labels, mask, values, weight, ignore_index, reduction)
    full, columns, y = found.rows, found.rows[:, found.numbers], found.targets
    q, v = columns.softmax(-1), found.values
    if kind == "wasserstein":
        distance, furthest = _squashed((y.unsqueeze(-1) - v).abs(), v, squash)
        terms = (q * distance).sum(-1)
    else:
        terms, furthest = _ERRORS[kind](q @ v, y), _ERRORS[kind](v.min(), v.max())
    if reweigh:
        share = (columns.logsumexp(-1) - full.logsumexp(-1)).exp()
        terms = share * terms + _WORSE_THAN_ANY_NUMBER * furthest * (1 - share)
    return _reduced(terms, found, reduction)


def number_level_loss(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    values: Tensor | None = None,
    point: int | None = None,
    eps: float = 1e-8,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Relative error of whole numbers written digit by digit (experimental in its source, and here).

    Formula:
        Neighbouring positions of a row whose labels are digits form a number y; x has the mean digit sum_j q_j v_j in
        every place. Term: |x - y| / (|x| + |y| + eps), in [0, 1); mean over the numbers. Only the ratio counts, so
        places are taken relative to the leading digit; a `point` token between two digits joins them.

    Shapes:
        logits float[..., T, V], labels int[..., T], mask bool[..., T], values float[V] (digits; NaN: no digit; default
        0, 1, ..., V - 1; `point` then is no digit) -> scalar, or float[..., T] with reduction="none" (a number's term
        at its first digit).

    When to use:
        When a wrong leading digit should cost more than a wrong last one.

    Relations:
        One digit a number: the relative, not the absolute, error of `number_token_loss` with kind="absolute".

    Source:
        The number-level variant of the package of Zausinger et al. (2025). Paper 30.

    Raises:
        RivalsError: as `number_token_loss`; values other than 0 to 9; eps <= 0; labels without a dimension of places.

    Example:
        >>> import torch
        >>> number_level_loss(60 * torch.eye(10)[None, [1, 5]], torch.tensor([[1, 2]]))
        tensor(0.1111)
    """
    check_positive(eps, "eps")
    if labels.ndim < 1:
        raise RivalsError("labels must have a last dimension, the places of a number; got a single number")
    if values is None and isinstance(logits, Tensor) and logits.ndim:
        values = torch.arange(logits.shape[-1], dtype=compute_dtype(logits), device=logits.device)
        values = values.where(values < 10, float("nan"))
    if values is not None and point is not None:
        values = values.where(torch.arange(len(values), device=values.device) != point, float("nan"))
    found = _positions(logits, labels, mask, values, None, ignore_index, reduction)
    if found.values.device.type == "cpu" and not ((found.values >= 0) & (found.values <= 9)).all():
        raise RivalsError("values must be digits, 0 to 9, or NaN where a token is no digit")
    digit = found.mask.view(labels.shape)
    inside = digit if point is None else digit | _between(digit, labels == point)
    before = F.pad(inside, (1, 0))[..., :-1]
    starts = inside & ~before
    count = digit.cumsum(-1)
    place = count - 1 - (count - 1).masked_fill(~starts, 0).cummax(-1).values if count.shape[-1] else count
    number = (starts.flatten().cumsum(0) - 1).view(labels.shape)[digit]
    scale = torch.pow(10.0, -place[digit].to(found.targets.dtype))
    mean_digit = found.rows[:, found.numbers].softmax(-1) @ found.values
    zeros = found.targets.new_zeros(int(starts.sum()))
    x = zeros.index_add(0, number, mean_digit * scale)
    y = zeros.index_add(0, number, found.targets * scale)
    return _reduced((x - y).abs() / (x.abs() + y.abs() + eps), found._replace(mask=starts.flatten()), reduction)


def ordinal_wasserstein_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    values: Tensor,
    reduction: Reduction = "mean",
) -> Tensor:
    """Wasserstein-1 distance between the softmax of the scores and a target distribution over values on a line.

    Formula:
        L_q = sum over neighbouring values of |F(v_i) - G(v_i)| (v_{i+1} - v_i), F and G the cumulative sums of
        softmax(s) and of the relevance divided by its sum, in the order of the values. Mean over the lists with a
        positive.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], values float[..., C] or float[C]
        -> scalar, or float[...] with reduction="none".

    When to use:
        Ordinal classes or number tokens with soft labels: several annotators, a smoothed grade.

    Relations:
        One-hot relevance: `number_token_loss` ("wasserstein").

    Source:
        Zausinger et al. (2025), for soft targets. Paper 30. Their code takes every step between values as 1;
        here its true length counts, which agrees for 0, 1, 2, ...

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or a value
        that is not finite at a candidate that is there, an unknown reduction.

    Example:
        >>> import torch
        >>> ordinal_wasserstein_loss(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]), values=torch.arange(3.0))
        tensor(1.)
    """
    lists = check_lists(scores, relevance, mask, None, reduction)
    if values.ndim == 1 and scores.ndim > 1:
        check_shape(values, (scores.shape[-1],), "values", scores.device)
        values = values.expand(scores.shape)
    check_shape(values, tuple(scores.shape), "values", scores.device)
    values = values.to(lists.scores.dtype).masked_fill(~lists.mask, 0.0)
    check_finite(values, "values")
    total = lists.relevance.sum(-1, keepdim=True)
    counted = total.squeeze(-1) > 0
    if scores.shape[-1] == 0:
        return reduce_lists(lists.scores.sum(-1), counted, reduction)
    highest = values.masked_fill(~lists.mask, float("-inf")).max(-1, keepdim=True).values
    values = values.where(lists.mask, highest.masked_fill(highest.isinf(), 0.0))
    p = masked_log_softmax(lists.scores, lists.mask).exp().masked_fill(~lists.mask, 0.0)
    surplus = p - lists.relevance / total.masked_fill(total == 0, 1.0)
    values, order = values.sort(dim=-1, stable=True)
    steps = surplus.gather(-1, order).cumsum(-1)[..., :-1].abs() * values.diff(dim=-1)
    return reduce_lists(steps.sum(-1).masked_fill(~counted, 0.0), counted, reduction)


def expected_token_value(logits: Tensor, values: Tensor) -> Tensor:
    """Return the mean number sum_j q_j v_j, q the softmax over the number tokens: a judge's tokens as a score.

    Shapes: logits float[..., V], values float[V] (NaN: not a number) -> float[...].

    Source: Zausinger et al. (2025). Paper 30.

    Raises:
        RivalsError: shapes or dtypes that do not fit, fewer than two number values.

    >>> expected_token_value(torch.tensor([0.0, 0.0, 9.0]), torch.tensor([1.0, 5.0, torch.nan]))
    tensor(3.)
    """
    check_scores(logits, "logits")
    values, numbers = _check_values(values, logits)
    return logits[..., numbers].to(values.dtype).softmax(-1) @ values[numbers]


def token_values(tokenizer: Any, *, digits_only: bool = True) -> Tensor:
    """Return the value of every token of a tokenizer's vocabulary, NaN where it is not a number.

    A token counts if it is exactly one of the ASCII digits 0 to 9 or, without `digits_only`, an ASCII spelling of a
    finite number; a leading space, other scripts' digits and superscripts do not count.

    Shapes: -> float64[V], V one more than the largest token id.

    Source: Zausinger et al. (2025) and their package (`digit_level`). Paper 30.

    Raises: nothing; a vocabulary without numbers is refused by the loss.

    >>> from types import SimpleNamespace
    >>> token_values(SimpleNamespace(get_vocab=lambda: {"a": 0, "7": 1, "12": 2})).tolist()
    [nan, 7.0, nan]
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    values = torch.full((1 + max(vocabulary.values(), default=-1),), float("nan"), dtype=torch.float64)
    for token, index in vocabulary.items():
        if not token.isascii() or token != token.strip() or "_" in token:
            continue
        if token in "0123456789" and len(token) == 1:
            values[index] = float(token)
        elif not digits_only:
            try:
                value = float(token)
            except ValueError:
                continue
            if math.isfinite(value):
                values[index] = value
    return values


class _Numbers(NamedTuple):
    """The positions whose label is a number: `rows` [P, V], `targets` [P], `weight` [P]; `mask` says which of all
    positions, flattened, they are, `shape` is theirs. `numbers` bool[V] are the number tokens, `values` theirs."""

    rows: Tensor
    targets: Tensor
    weight: Tensor | None
    mask: Tensor
    shape: torch.Size
    numbers: Tensor
    values: Tensor


def _positions(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    values: Tensor | None,
    weight: Tensor | None,
    ignore_index: int,
    reduction: Reduction,
) -> _Numbers:
    check_reduction(reduction)
    check_scores(logits, "logits")
    if logits.ndim < 2:
        raise RivalsError(f"logits must have shape [..., V] with at least two dimensions; got {tuple(logits.shape)}")
    shape = logits.shape[:-1]
    check_shape(labels, tuple(shape), "labels", logits.device)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise RivalsError(f"labels must be whole numbers; got {labels.dtype}")
    if mask is not None:
        check_shape(mask, tuple(shape), "mask", logits.device)
        if mask.dtype != torch.bool:
            raise RivalsError(f"mask must be boolean (True = the position is there); got {mask.dtype}")
    values, numbers = _check_values(values, logits)
    there = labels != ignore_index if mask is None else mask & (labels != ignore_index)
    safe = labels.masked_fill(~there, 0)
    if safe.numel() and safe.device.type == "cpu":
        lowest, highest = torch.aminmax(safe)
        if lowest < 0 or highest >= logits.shape[-1]:
            raise RivalsError(
                f"labels must lie in 0..{logits.shape[-1] - 1} or be ignore_index ({ignore_index}); "
                f"found {int(lowest)} to {int(highest)}"
            )
    if weight is not None:
        check_shape(weight, tuple(shape), "weight", logits.device)
        weight = weight.flatten()
    chosen = (there & numbers[safe]).flatten()
    rows = check_rows(logits.flatten(0, -2), safe.flatten(), chosen, weight=weight, name="logits")
    return _Numbers(rows.rows, values[rows.labels], rows.weight, chosen, shape, numbers, values[numbers])


def _check_values(values: Tensor | None, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values of all tokens, and which of them are numbers."""
    size = logits.shape[-1]
    if values is None:
        values = torch.arange(size, device=logits.device)
    check_shape(values, (size,), "values", logits.device)
    values = values.to(compute_dtype(logits))
    numbers = ~values.isnan()
    if values.device.type == "cpu":
        check_finite(values[numbers], "values")
        if int(numbers.sum()) < 2:
            raise RivalsError(f"values must hold at least two numbers; found {int(numbers.sum())} among {size} tokens")
    return values, numbers


def _squashed(distance: Tensor, values: Tensor, squash: float | None) -> tuple[Tensor, Tensor]:
    """Return the distances, squashed if asked for, and the largest there can be."""
    furthest = values.max() - values.min()
    if squash is None:
        return distance, furthest
    gaps = values.sort().values.diff()
    nearest = gaps.masked_fill(gaps == 0, float("inf")).min()
    spread = furthest - nearest
    step = torch.where(spread > 0, (squash - 1) / spread.masked_fill(spread == 0, 1.0), 0.0)
    return (1 + (distance - nearest) * step).masked_fill(distance == 0, 0.0), 1 + spread * step


def _reduced(terms: Tensor, found: _Numbers, reduction: Reduction) -> Tensor:
    weight = torch.ones_like(terms) if found.weight is None else found.weight
    terms = weight * terms
    if reduction == "none":
        return spread_rows(terms, found.mask).view(found.shape)
    if reduction == "sum":
        return terms.sum()
    total = weight.sum()
    return terms.sum() / total.masked_fill(total == 0, 1.0)


def _between(digit: Tensor, other: Tensor) -> Tensor:
    """Return where `other` stands between two digits."""
    return other & F.pad(digit, (1, 0))[..., :-1] & F.pad(digit, (0, 1))[..., 1:]
