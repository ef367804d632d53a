"""Triplets ordered by a grade: of two candidates the one with the higher grade must score higher by a margin."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import (
    Reduction,
    check_at_least_zero,
    check_choice,
    check_finite,
    check_lists,
    check_positive,
    check_reduction,
    check_scores,
    check_shape,
    reduce_lists,
    spread_rows,
)
from rivals.losses._distances import euclidean
from rivals.losses._in_batch import unit_rows

__all__ = ["contrastive_regression_loss", "reference_distance", "relative_triplet_loss"]

Margin: TypeAlias = float | Literal["adaptive"]
DivideBy: TypeAlias = Literal["active", "valid"]
BLOCK_PAIRS = 1 << 22
"""About how many pairs are looked at in one go unless `chunk` is given."""


class _Rule(NamedTuple):
    margin: Margin
    grade_range: float
    min_gap: float
    sign: float


def relative_triplet_loss(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    margin: Margin = 0.2,
    relevance_range: float = 1.0,
    min_gap: float = 0.0,
    divide_by: DivideBy = "active",
    chunk: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Hinge on every pair of candidates of different relevance: the more relevant must lead by a margin.

    Formula:
        L = sum_{a, b: y_a > y_b + min_gap} w_a w_b max(0, m_ab - (s_a - s_b)) / number of terms above 0
        (divide_by="valid": number of such pairs), m_ab = margin, or (y_a - y_b) / relevance_range with
        margin="adaptive". "list_mean" divides inside each list, then by the lists with a term.

    Shapes:
        scores float[..., C], relevance [..., C] >= 0, mask bool[..., C], weight float[..., C] >= 0
        -> scalar, or float[...] with reduction="none". O(C^2) a list; the pairs of `chunk` lists are in memory at a
        time, and are computed again for the gradient.

    When to use:
        Graded relevance whose gaps mean something ("adaptive"), and where easy pairs should stop counting.

    Relations:
        With a constant margin, min_gap 0 and divide_by="valid" it is `pairwise_hinge_loss`, which is faster on long
        lists. Scores that are minus distances to an anchor make it a batch-all triplet loss:
        `contrastive_regression_loss`.

    Source:
        Ragano et al. (2024), SCOREQ, eqs. 3-6, within one anchor; Hermans et al. (2017) for the division by the terms
        above 0. Paper 45.

    Raises:
        RivalsError: shapes, dtypes or devices that do not fit, a non-boolean mask, negative or NaN relevance or weight
        at a candidate that is there, margin < 0, relevance_range <= 0, min_gap < 0, chunk < 1, an unknown divide_by or
        reduction.

    Example:
        >>> import torch
        >>> scores, relevance = torch.tensor([[1.0, 0.9, 0.0]]), torch.tensor([[2.0, 1.0, 0.0]])
        >>> relative_triplet_loss(scores, relevance), relative_triplet_loss(scores, relevance, divide_by="valid")
        (tensor(0.1000), tensor(0.0333))
    """
    rule = _rule(margin, relevance_range, "relevance_range", min_gap)
    check_choice(divide_by, ("active", "valid"), "divide_by")
    lists = check_lists(scores, relevance, mask, weight, reduction)
    lead, width = scores.shape[:-1], scores.shape[-1]

    def flat(values: Tensor) -> Tensor:
        return values.reshape(math.prod(lead), width)

    weights = None if lists.weight is None else flat(lists.weight)
    total, active, valid = _hinges(flat(lists.scores), flat(lists.relevance), flat(lists.mask), weights, rule, chunk)
    count = active if divide_by == "active" else valid
    return reduce_lists(total.reshape(lead), count.reshape(lead), reduction)


def contrastive_regression_loss(
    embeddings: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    margin: Margin = 0.2,
    target_range: float | None = None,
    normalize: bool = True,
    squared: bool = False,
    min_gap: float = 0.0,
    printed_sign: bool = False,
    divide_by: DivideBy = "active",
    chunk: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Batch-all triplets whose positive is whichever of two examples has the nearer target (SCOREQ).

    Formula:
        L = sum over i, j, k, all different, with |y_i - y_j| + min_gap < |y_i - y_k|, of max(0, D_ij - D_ik + m_ijk)
        / number of terms above 0 (divide_by="valid": number of such triplets); D the distances of the (unit)
        vectors, squared if told; m_ijk = margin, or (|y_i - y_k| - |y_i - y_j|) / target_range with
        margin="adaptive".

    Shapes:
        embeddings float[N, D], targets real[N], mask bool[N] -> scalar, or float[N] (by anchor i) with
        reduction="none". target_range None: the range of the targets of the batch; give the scale's own (4 for grades
        1 to 5). O(N^3); the triplets of `chunk` anchors are in memory at a time, and computed again for the gradient.

    When to use:
        An encoder for a number (quality, price, severity): train it with this loss, then fit a linear head. Orders the
        space by the target where a squared error clusters it by nuisance.

    Relations:
        `relative_triplet_loss` with one list per anchor, scores -D and relevance -|y_i - y_j|. Targets of 0 and 1: the
        batch-all triplet loss of two classes.

    Source:
        Ragano et al. (2024), SCOREQ, eqs. 1-7. Paper 45. The margin's value and the reduction are not printed: 0.2,
        and the mean over the terms above 0 of Hermans et al. (2017). The printed adaptive margin has the opposite sign
        of what the text describes, which is followed; `printed_sign` gives the printed one.

    Raises:
        RivalsError: fewer than three rows, shapes or dtypes that do not fit, targets that are not finite, a
        non-boolean mask, margin < 0, target_range <= 0, min_gap < 0, chunk < 1, an unknown divide_by or reduction.

    Example:
        >>> import torch
        >>> embeddings, targets = torch.tensor([[0.0], [2.0], [1.0]]), torch.tensor([4.5, 2.0, 1.5])
        >>> contrastive_regression_loss(embeddings, targets, normalize=False)
        tensor(0.7000)
    """
    check_choice(divide_by, ("active", "valid"), "divide_by")
    check_reduction(reduction)
    vectors, values, there = _check_regression(embeddings, targets, mask)
    if target_range is None:
        spread = float(values.max() - values.min()) if len(values) else 0.0
        target_range = spread if spread > 0 else 1.0
    rule = _rule(margin, target_range, "target_range", min_gap)
    if printed_sign:
        rule = rule._replace(sign=-1.0)
    if normalize:
        vectors = unit_rows(vectors)
    distance = euclidean(vectors, vectors)
    if squared:
        distance = distance.square()
    gap = (values.unsqueeze(1) - values).abs()
    others = ~torch.eye(len(values), dtype=torch.bool, device=values.device)
    total, active, valid = _hinges(-distance, -gap, others, None, rule, chunk)
    count = active if divide_by == "active" else valid
    if reduction == "none":
        return spread_rows(total, there)
    return reduce_lists(total, count, reduction)


def reference_distance(
    embeddings: Tensor, references: Tensor, *, normalize: bool = True, squared: bool = False
) -> Tensor:
    """Return the mean distance of each vector to reference vectors: a score without a fitted head.

    With references of the best grade it falls as the target rises. Shapes: embeddings float[N, D], references
    float[M, D] -> float[N]. O(N M D).

    Source: Ragano et al. (2024), SCOREQ, section 3 (non-matching reference). Paper 45.

    Raises:
        RivalsError: no references, shapes or dtypes that do not fit.

    >>> reference_distance(torch.tensor([[0.0, 2.0], [5.0, 0.0]]), torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    tensor([1.4142, 0.0000])
    """
    check_scores(embeddings, "embeddings", ndim=2)
    check_scores(references, "references", ndim=2)
    check_shape(references, (len(references), embeddings.shape[1]), "references", embeddings.device)
    if len(references) == 0:
        raise RivalsError("references must hold at least one vector")
    dtype = torch.promote_types(compute_dtype(embeddings), compute_dtype(references))
    left, right = embeddings.to(dtype), references.to(dtype)
    distance = euclidean(unit_rows(left), unit_rows(right)) if normalize else euclidean(left, right)
    return (distance.square() if squared else distance).mean(1)


def _rule(margin: Margin, grade_range: float, name: str, min_gap: float) -> _Rule:
    if isinstance(margin, str):
        check_choice(margin, ("adaptive",), "margin")
    else:
        check_at_least_zero(margin, "margin")
    check_positive(grade_range, name)
    check_at_least_zero(min_gap, "min_gap")
    return _Rule(margin, grade_range, min_gap, 1.0)


def _check_regression(embeddings: Tensor, targets: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the vectors and targets that are there, and the mask."""
    check_scores(embeddings, "embeddings", ndim=2)
    if len(embeddings) < 3:
        raise RivalsError(f"embeddings must have at least 3 rows to make a triplet; got {len(embeddings)}")
    check_shape(targets, (len(embeddings),), "targets", embeddings.device)
    there = torch.ones(len(embeddings), dtype=torch.bool, device=embeddings.device) if mask is None else mask
    check_shape(there, (len(embeddings),), "mask", embeddings.device)
    if there.dtype != torch.bool:
        raise RivalsError(f"mask must be boolean (True = the example is there); got {there.dtype}")
    vectors = embeddings[there].to(compute_dtype(embeddings))
    values = targets[there].to(vectors.dtype)
    check_finite(values, "targets")
    return vectors, values, there


def _hinges(
    scores: Tensor, grades: Tensor, there: Tensor, weight: Tensor | None, rule: _Rule, chunk: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return, per list [Q], the sum of the hinges, how many are above 0, and how many pairs there are."""
    if chunk is not None and chunk < 1:
        raise RivalsError(f"chunk must be at least 1; got {chunk!r}")
    count, width = scores.shape
    size = max(1, BLOCK_PAIRS // max(width * width, 1)) if chunk is None else chunk
    if size >= count:
        return _block(scores, grades, there, weight, rule)
    parts = []
    for start in range(0, count, size):
        rows = slice(start, start + size)
        block = (scores[rows], grades[rows], there[rows], None if weight is None else weight[rows], rule)
        parts.append(checkpoint(_block, *block, use_reentrant=False))
    total, active, valid = (torch.cat(part) for part in zip(*parts, strict=True))
    return total, active, valid


def _block(
    scores: Tensor, grades: Tensor, there: Tensor, weight: Tensor | None, rule: _Rule
) -> tuple[Tensor, Tensor, Tensor]:
    gap = grades.unsqueeze(-1) - grades.unsqueeze(-2)
    pairs = (gap > rule.min_gap) & there.unsqueeze(-1) & there.unsqueeze(-2)
    margin = rule.sign * gap / rule.grade_range if isinstance(rule.margin, str) else rule.margin
    hinge = (margin - (scores.unsqueeze(-1) - scores.unsqueeze(-2))).masked_fill(~pairs, 0.0).relu()
    active = (hinge > 0).sum((-2, -1))
    if weight is not None:
        hinge = hinge * (weight.unsqueeze(-1) * weight.unsqueeze(-2))
    return hinge.sum((-2, -1)), active, pairs.sum((-2, -1))
