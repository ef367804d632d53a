"""The formulas of the ranking measures, on lists already in rank order (`RankedLists`); one value a list.

`rivals.measures.ranking` documents each measure and is where users call it; the functions here let several measures
share one sort. `total[L]` is the number of relevant documents of each list, in the list or not.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures.ranked import RankedLists, largest, precise

Gain: TypeAlias = Literal["linear", "exponential"]
"""What a grade is worth: itself, or 2^grade - 1."""

Empty: TypeAlias = Literal["zero", "nan"]
"""What a list without any relevant document is worth: 0 (as trec_eval and ir-measures count it) or NaN (to leave it
out)."""


def ranked_dcg(lists: RankedLists, *, k: int | None, gain: Gain) -> Tensor:
    """Return DCG@k of ranked lists, [L]; see `dcg`."""
    return _discounted(lists.top(k), gain)


def ranked_ndcg(lists: RankedLists, *, k: int | None, gain: Gain, ideal: Tensor | None, empty: Empty) -> Tensor:
    """Return nDCG@k of ranked lists, [L], against the grades `ideal[L, R]` or the lists' own; see `ndcg`."""
    found = _discounted(lists.top(k), gain)
    best = _discounted(_best_grades(lists.everything if ideal is None else ideal, k), gain)
    if (found > best * (1 + 1e-6) + 1e-9).any():
        raise RivalsError(
            "ideal is worth less than the list itself; it must hold the grades of all judged documents of the query"
        )
    return _share(found, best, empty)


def ranked_reciprocal_rank(
    lists: RankedLists, *, k: int | None, relevance_level: float, total: Tensor, empty: Empty
) -> Tensor:
    """Return RR@k of ranked lists, [L]; see `reciprocal_rank`."""
    relevant = lists.top(k) >= relevance_level
    if relevant.shape[1] == 0:
        return _where_none(precise(total) * 0, total, empty)
    first = relevant.to(torch.uint8).argmax(-1)
    found = relevant.gather(1, first[:, None])[:, 0]
    return _where_none(precise(found) / (first + 1), total, empty)


def ranked_recall(lists: RankedLists, *, k: int | None, relevance_level: float, total: Tensor, empty: Empty) -> Tensor:
    """Return R@k of ranked lists, [L]; see `recall`."""
    return _share(precise((lists.top(k) >= relevance_level).sum(-1)), precise(total), empty)


def ranked_precision(
    lists: RankedLists, *, k: int | None, relevance_level: float, total: Tensor, empty: Empty
) -> Tensor:
    """Return P@k of ranked lists, [L]; see `precision`."""
    found = precise((lists.top(k) >= relevance_level).sum(-1))
    return _where_none(found / (lists.count.clamp(min=1) if k is None else k), total, empty)


def ranked_success(lists: RankedLists, *, k: int | None, relevance_level: float, total: Tensor, empty: Empty) -> Tensor:
    """Return Success@k of ranked lists, [L]; see `success`."""
    return _where_none(precise((lists.top(k) >= relevance_level).any(-1)), total, empty)


def ranked_average_precision(
    lists: RankedLists, *, k: int | None, relevance_level: float, total: Tensor, empty: Empty
) -> Tensor:
    """Return AP@k of ranked lists, [L]; see `average_precision`."""
    row, place = (lists.top(k) >= relevance_level).nonzero(as_tuple=True)
    found = torch.bincount(row, minlength=len(total))
    nth = torch.arange(1, len(row) + 1, device=row.device) - (found.cumsum(0) - found)[row]
    precisions = precise(nth) / (place + 1)
    return _share(torch.zeros_like(precise(total)).index_add_(0, row, precisions), precise(total), empty)


def ranked_r_precision(lists: RankedLists, *, relevance_level: float, total: Tensor, empty: Empty) -> Tensor:
    """Return R-precision of ranked lists, [L]; see `r_precision`."""
    ranks = torch.arange(lists.relevance.shape[1], device=total.device)
    found = ((lists.relevance >= relevance_level) & (ranks < total[:, None])).sum(-1)
    return _share(precise(found), precise(total), empty)


def ranked_err(lists: RankedLists, *, k: int | None, max_grade: float) -> Tensor:
    """Return ERR@k of ranked lists, [L]; see `expected_reciprocal_rank`."""
    grades = _grades(lists, k, max_grade)
    satisfied = (grades.exp2() - 1) / 2**max_grade
    reached = (1 - satisfied).cumprod(1).roll(1, 1)
    reached[:, :1] = 1
    ranks = torch.arange(1, grades.shape[1] + 1, device=grades.device)
    return (satisfied * reached / ranks).sum(1)


def ranked_rbp(
    lists: RankedLists, *, k: int | None, p: float, relevance_level: float, max_grade: float | None
) -> Tensor:
    """Return RBP@k of ranked lists, [L]; see `rank_biased_precision`."""
    check_persistence(p)
    if not relevance_level > 0:
        raise RivalsError(f"relevance_level is {relevance_level}; it must be above 0")
    if max_grade is None:
        gains = precise(lists.top(k) >= relevance_level)
    else:
        gains = _grades(lists, k, max_grade) / max_grade
    return gains @ ((1 - p) * p ** precise(torch.arange(gains.shape[1], device=gains.device)))


def check_persistence(p: float) -> None:
    """Raise unless the persistence of a reader lies between 0 and 1."""
    if not 0 < p < 1:
        raise RivalsError(f"p is {p}; the persistence must lie between 0 and 1")


def check_empty(empty: Empty) -> None:
    """Raise unless `empty` is one of the two."""
    if empty not in ("zero", "nan"):
        raise RivalsError(f"empty is '{empty}'; it can be 'zero' or 'nan'")


def _grades(lists: RankedLists, k: int | None, max_grade: float) -> Tensor:
    """Return the grades of the first k, at least 0, checked against the highest there can be."""
    if not max_grade > 0:
        raise RivalsError(f"max_grade is {max_grade}; it must be above 0, the highest grade of the scale")
    grades = precise(lists.top(k)).nan_to_num(nan=0.0).clamp(min=0)
    if grades.numel() and (highest := grades.max().item()) > max_grade:
        raise RivalsError(f"relevance holds a grade of {highest:g}, above max_grade={max_grade:g}; set the scale's own")
    return grades


def ranked_judged(lists: RankedLists, *, k: int | None) -> Tensor:
    """Return Judged@k of ranked lists, [L]; see `judged`."""
    top = lists.top(k)
    shown = lists.count.clamp(max=top.shape[1])
    present = torch.arange(top.shape[1], device=top.device) < shown[:, None]
    return precise((present & ~top.isnan()).sum(-1)) / shown.clamp(min=1)


def _best_grades(grades: Tensor, k: int | None) -> Tensor:
    """Return the k highest positive grades of each list, highest first."""
    depth = grades.shape[-1] if k is None else min(k, grades.shape[-1])
    if grades.is_floating_point():
        grades = grades.nan_to_num(nan=0.0)
    if grades.device.type == "cpu" and grades.dtype not in (torch.float16, torch.bfloat16):
        return torch.from_numpy(largest(grades.numpy(), depth).copy())
    return grades.topk(depth, dim=-1).values


def _discounted(grades: Tensor, gain: Gain) -> Tensor:
    """Sum gains of grades in rank order [L, D] over log2(1 + rank), in double precision."""
    gains = torch.where(grades > 0, precise(grades), 0.0)
    if gain == "exponential":
        gains = gains.exp2() - 1
    elif gain != "linear":
        raise RivalsError(f"gain is '{gain}'; it can be 'linear' or 'exponential'")
    ranks = torch.arange(1, grades.shape[1] + 1, device=grades.device)
    total = gains @ (1 / torch.log2(precise(ranks) + 1))
    if gain == "exponential" and not total.isfinite().all():
        raise RivalsError("the exponential gain 2^relevance overflows; scale the grades or use gain='linear'")
    return total


def _share(part: Tensor, whole: Tensor, empty: Empty) -> Tensor:
    return _where_none(part / whole.masked_fill(whole == 0, 1), whole, empty)


def _where_none(values: Tensor, total: Tensor, empty: Empty) -> Tensor:
    check_empty(empty)
    return values.masked_fill(total == 0, 0.0 if empty == "zero" else float("nan"))
