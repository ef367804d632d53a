"""What every loss needs at its door and at its end: input checks, the dtype to compute in, and reductions."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype

Reduction = Literal["mean", "sum", "none", "list_mean"]


class CheckedRows(NamedTuple):
    """Labelled rows that passed the door: only the examples that are there, computed in float32 or float64."""

    rows: Tensor
    labels: Tensor
    weight: Tensor | None
    mask: Tensor


class Checked(NamedTuple):
    """Lists that passed the door: computed in float32 or float64, and zero wherever the mask is False."""

    scores: Tensor
    relevance: Tensor
    mask: Tensor
    weight: Tensor | None


def check_lists(
    scores: Tensor, relevance: Tensor, mask: Tensor | None, weight: Tensor | None, reduction: Reduction
) -> Checked:
    """Check the arguments of a ranking-form loss and bring them to the dtype to compute in.

    Entries that are not there are set to 0, so whatever padding holds (NaN included) can reach neither value nor
    gradient.
    """
    check_reduction(reduction)
    check_scores(scores, "scores")
    check_like(relevance, scores, "relevance")
    check_mask(mask, scores, "mask")
    dtype = compute_dtype(scores)
    there = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    relevance = relevance.to(dtype).masked_fill(~there, 0.0)
    check_not_negative(relevance, "relevance")
    if weight is not None:
        check_like(weight, scores, "weight")
        weight = weight.to(dtype).masked_fill(~there, 0.0)
        check_not_negative(weight, "weight")
    return Checked(scores.to(dtype).masked_fill(~there, 0.0), relevance, there, weight)


def check_targets(
    scores: Tensor, targets: Tensor, mask: Tensor | None, weight: Tensor | None, reduction: Reduction
) -> Checked:
    """Like `check_lists` for a loss whose targets are finite numbers of any sign (returned as `relevance`)."""
    check_like(targets, scores, "targets")
    lists = check_lists(scores, torch.zeros_like(scores), mask, weight, reduction)
    targets = targets.to(lists.scores.dtype).masked_fill(~lists.mask, 0.0)
    check_finite(targets, "targets")
    return lists._replace(relevance=targets)


def check_rows(
    rows: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    *,
    weight: Tensor | None = None,
    name: str = "embeddings",
    classes: bool = False,
) -> CheckedRows:
    """Check rows [N, D] with labels int[N] and leave out the examples whose mask is False.

    With `classes` the rows are logits and every label of an example that is there must be one of their columns.
    `CheckedRows.mask` is the mask [N] itself, to lay per-example results out again (`spread_rows`).
    """
    check_scores(rows, name, ndim=2)
    check_shape(labels, (len(rows),), "labels", rows.device)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise RivalsError(f"labels must be whole numbers; got {labels.dtype}")
    there = torch.ones(len(rows), dtype=torch.bool, device=rows.device) if mask is None else mask
    check_shape(there, (len(rows),), "mask", rows.device)
    if there.dtype != torch.bool:
        raise RivalsError(f"mask must be boolean (True = the example is there); got {there.dtype}")
    if weight is not None:
        check_shape(weight, (len(rows),), "weight", rows.device)
        weight = weight[there].to(compute_dtype(rows))
        check_not_negative(weight, "weight")
    labels = labels[there]
    if classes and rows.device.type == "cpu" and len(labels) and not torch.compiler.is_compiling():
        lowest, highest = torch.aminmax(labels)
        if lowest < 0 or highest >= rows.shape[1]:
            raise RivalsError(
                f"labels must lie in 0..{rows.shape[1] - 1}, the columns of {name}; found {int(lowest)} to {int(highest)}"
            )
    return CheckedRows(rows[there].to(compute_dtype(rows)), labels, weight, there)


def spread_rows(values: Tensor, mask: Tensor) -> Tensor:
    """Lay per-example values [number of True] out as [N], 0 where the mask is False.

    >>> spread_rows(torch.tensor([1.0, 2.0]), torch.tensor([True, False, True])).tolist()
    [1.0, 0.0, 2.0]
    """
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def reduce_lists(total: Tensor, count: Tensor, reduction: Reduction) -> Tensor:
    """Reduce per-list sums `total[...]` of `count[...]` terms each; where nothing counts the result is 0, never NaN.

    "mean" divides by all terms of the batch, "list_mean" first inside every list and then over the lists that have a
    term, "sum" adds up and "none" returns `total`, so that its sum is always "sum".

    >>> total, count = torch.tensor([6.0, 1.0, 0.0]), torch.tensor([3, 1, 0])
    >>> [reduce_lists(total, count, r).tolist() for r in ("mean", "sum", "none", "list_mean")]
    [1.75, 7.0, [6.0, 1.0, 0.0], 1.5]
    """
    if reduction == "none":
        return total
    if reduction == "sum":
        return total.sum()
    if reduction == "mean":
        return total.sum() / count.sum().clamp(min=1)
    return (total / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


def check_reduction(reduction: Reduction) -> None:
    """Raise unless `reduction` is one of the four."""
    check_choice(reduction, get_args(Reduction), "reduction")


def check_choice(value: object, choices: tuple[object, ...], name: str) -> None:
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        raise RivalsError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_scores(scores: Tensor, name: str, *, ndim: int | None = None) -> None:
    """Raise unless `scores` is a floating-point tensor with at least one dimension (or with exactly `ndim`)."""
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        kind = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise RivalsError(f"{name} must be a floating-point tensor; got {kind}")
    if ndim is not None and scores.ndim != ndim:
        raise RivalsError(f"{name} must have {ndim} dimensions; got shape {tuple(scores.shape)}")
    if scores.ndim == 0:
        raise RivalsError(f"{name} must have a last dimension of candidates; got a single number")


def check_like(value: Tensor, scores: Tensor, name: str) -> None:
    """Raise unless `value` is a real tensor of the shape and on the device of `scores`."""
    check_shape(value, tuple(scores.shape), name, scores.device)
    if value.is_complex():
        raise RivalsError(f"{name} must hold real numbers; got {value.dtype}")


def check_shape(value: Tensor, shape: tuple[int, ...], name: str, device: torch.device) -> None:
    """Raise unless `value` is a tensor of this shape on this device."""
    if not isinstance(value, Tensor):
        raise RivalsError(f"{name} must be a tensor of shape {shape}; got {type(value).__name__}")
    if tuple(value.shape) != shape:
        raise RivalsError(f"{name} must have shape {shape}; got {tuple(value.shape)}")
    if value.device != device:
        raise RivalsError(f"{name} is on {value.device} but the scores are on {device}; move one of them")


def check_mask(mask: Tensor | None, scores: Tensor, name: str) -> None:
    """Raise unless `mask` is None or a boolean tensor shaped like `scores`."""
    if mask is None:
        return
    check_shape(mask, tuple(scores.shape), name, scores.device)
    if mask.dtype != torch.bool:
        raise RivalsError(f"{name} must be boolean (True = the candidate is there); got {mask.dtype}")


def check_not_negative(values: Tensor, name: str) -> None:
    """Raise if a value is negative, NaN or infinite. Only on the CPU: elsewhere reading it would stall the device."""
    if values.device.type != "cpu" or torch.compiler.is_compiling() or values.numel() == 0:
        return
    lowest, highest = torch.aminmax(values.detach())
    if not (lowest.item() >= 0 and math.isfinite(highest.item())):
        raise RivalsError(
            f"{name} must be finite and not negative wherever there is a candidate; found {_worst(values)}"
        )


def check_finite(values: Tensor, name: str) -> None:
    """Raise if a value is NaN or infinite. Only on the CPU: elsewhere reading it would stall the device."""
    if values.device.type != "cpu" or torch.compiler.is_compiling() or values.numel() == 0:
        return
    lowest, highest = torch.aminmax(values.detach())
    if not (math.isfinite(lowest.item()) and math.isfinite(highest.item())):
        wrong = values[~torch.isfinite(values)]
        raise RivalsError(f"{name} must be finite wherever there is a candidate; found {float(wrong.flatten()[0])}")


def check_positive(value: float, name: str) -> None:
    """Raise unless `value` is a finite number above zero."""
    if not (math.isfinite(value) and value > 0):
        raise RivalsError(f"{name} must be a finite number above 0; got {value!r}")


def check_at_least_zero(value: float, name: str) -> None:
    """Raise unless `value` is a finite number of at least zero."""
    if not (math.isfinite(value) and value >= 0):
        raise RivalsError(f"{name} must be a finite number of at least 0; got {value!r}")


def _worst(values: Tensor) -> float:
    wrong = values[~(torch.isfinite(values) & (values >= 0))]
    return float(wrong.flatten()[0])
