"""The rules of positive-aware filtering on plain arrays, numpy or torch."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from rivals.errors import RivalsError


def positive_aware_mask(
    scores: Any,
    positive_score: Any,
    mask: Any = None,
    *,
    relative: float | None = None,
    absolute: float | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    strict: bool = False,
) -> Any:
    """Return which candidates may serve as negatives next to a positive: the functional core of `PositiveAware`.

    keep = mask and s <= s+ - relative * |s+| and s + absolute <= s+ and min_score <= s <= max_score, for the rules
    given.

    Shapes: scores[..., C], positive_score[...], mask[..., C] -> bool[..., C]; numpy arrays or torch tensors alike, so
    it also masks false negatives inside a training batch. Computed in the dtype of `scores`. Masked entries are never
    looked at and never kept.

    Source: Moreira et al. 2024, NV-Retriever (paper 13); ties kept as in the reference code, `strict=True` gives the
    paper's `<` for the two margins.

    Raises:
        RivalsError: no rule, a rule out of range, shapes that do not fit, a NaN score under the mask or a NaN positive
        score.

    >>> positive_aware_mask([[.76, .755, .75]], [.8], absolute=.05).tolist()
    [[False, False, True]]
    """
    check_rules(relative, absolute, max_score, min_score)
    tensor = type(scores).__module__.partition(".")[0] == "torch"
    if not tensor:
        scores = np.asarray(scores)
        scores = scores if scores.dtype.kind == "f" else scores.astype(np.float64)
        positive_score = np.asarray(positive_score, dtype=scores.dtype)
        mask = None if mask is None else np.asarray(mask, dtype=bool)
    else:
        positive_score = positive_score.to(scores.dtype)
    if tuple(positive_score.shape) != tuple(scores.shape[:-1]):
        raise RivalsError(
            f"scores {tuple(scores.shape)} need one positive score a list, not {tuple(positive_score.shape)}"
        )
    if mask is not None and tuple(mask.shape) != tuple(scores.shape):
        raise RivalsError(f"mask {tuple(mask.shape)} and scores {tuple(scores.shape)} must have the same shape")
    missing = scores != scores  # NaN, in both libraries
    if bool((missing if mask is None else missing & mask).any()):
        raise RivalsError("a candidate's score is NaN; mask candidates that were not scored")
    if (relative is not None or absolute is not None) and bool((positive_score != positive_score).any()):
        row = int((positive_score != positive_score).reshape(-1).tolist().index(True))
        raise RivalsError(
            f"the positive score of list {row} (counted from 0) is NaN; score positives with the candidates' scorer"
        )
    marks = rule_marks(
        scores,
        positive_score[..., None],
        relative=relative,
        absolute=absolute,
        max_score=max_score,
        min_score=min_score,
        strict=strict,
    )
    keep = ~missing if mask is None else mask
    for marked in marks.values():
        keep = keep & ~marked
    return keep


def rule_marks(
    scores: Any,
    positive: Any,
    *,
    relative: float | None,
    absolute: float | None,
    max_score: float | None,
    min_score: float | None,
    strict: bool,
) -> dict[str, Any]:
    """Return which scores break which rule; `positive` broadcasts. Arrays of numpy or torch, in their own dtype."""
    marks: dict[str, Any] = {}
    if relative is not None:
        limit = positive - abs(positive) * float(relative)
        marks["relative"] = scores >= limit if strict else scores > limit
    if absolute is not None:
        raised = scores + float(absolute)
        marks["absolute"] = raised >= positive if strict else raised > positive
    if max_score is not None:
        marks["max_score"] = scores > float(max_score)
    if min_score is not None:
        marks["min_score"] = scores < float(min_score)
    return marks


def check_rules(
    relative: float | None, absolute: float | None, max_score: float | None, min_score: float | None
) -> None:
    given = {"relative": relative, "absolute": absolute, "max_score": max_score, "min_score": min_score}
    if all(value is None for value in given.values()):
        raise RivalsError("PositiveAware needs a rule: relative, absolute, max_score or min_score")
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value)):
            raise RivalsError(f"{name} must be a finite number, not {value!r}")
    if relative is not None and not 0 < relative < 1:
        raise RivalsError(
            f"relative must lie between 0 and 1, not {relative}; 0.05 keeps up to 95 % of the positive's score"
        )
    if absolute is not None and absolute < 0:
        raise RivalsError(f"absolute must be 0 or more, not {absolute}")
    if max_score is not None and min_score is not None and min_score > max_score:
        raise RivalsError(f"min_score {min_score} above max_score {max_score} would mark everything")
