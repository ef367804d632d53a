"""The door of the classification and calibration measures: multi-hot relevance, or one class number a list."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.measures.ranked import Array, PlainLists, as_tensor, plain_lists


class Labelled(NamedTuple):
    """`lists` as `plain_lists` gives them, `right[L, C]` bool, and whether the labels came as class numbers."""

    lists: PlainLists
    right: Tensor
    classes: bool


def labelled(scores: Array, relevance: Array, mask: Array | None = None, *, relevance_level: float = 1) -> Labelled:
    """Check scores[..., C] with relevance and mask [..., C] (NaN unknown), or with class numbers and mask [...].

    >>> import numpy as np
    >>> labelled(np.array([[.2, .7]]), np.array([1])).right.tolist()
    [[False, True]]
    """
    if not relevance_level > 0:
        raise RivalsError(f"relevance_level is {relevance_level}; it must be above 0")
    values = as_tensor(scores, "scores", None)
    truth = as_tensor(relevance, "relevance", values.device)
    if truth.dim() != values.dim() - 1:
        lists = plain_lists(scores, relevance, mask)
        return Labelled(lists, (lists.relevance >= relevance_level) & lists.mask, False)
    shape, width = values.shape[:-1], values.shape[-1]
    if truth.is_floating_point() or truth.shape != shape:
        raise RivalsError(
            f"relevance has shape {tuple(truth.shape)} and dtype {truth.dtype}; give whole class numbers of shape "
            f"{tuple(shape)}, or one relevance a score, {tuple(values.shape)}"
        )
    there = torch.ones(shape, dtype=torch.bool, device=values.device)
    if mask is not None:
        there = as_tensor(mask, "mask", values.device)
        if there.dtype != torch.bool or there.shape != shape:
            raise RivalsError(f"mask must be bool of the shape of the class numbers, {tuple(shape)}")
    truth = truth.long().masked_fill(~there, 0)
    if there.any() and not ((truth >= 0) & (truth < width)).all():
        worst = truth[(truth < 0) | (truth >= width)][0].item()
        raise RivalsError(f"relevance holds class {worst}; the scores have the classes 0 to {width - 1}")
    right = truth.unsqueeze(-1) == torch.arange(width, device=values.device)
    lists = plain_lists(values, right, there.unsqueeze(-1).expand(values.shape))
    lists = replace(lists, numpy=not isinstance(scores, Tensor))
    return Labelled(lists, (lists.relevance > 0) & lists.mask, True)
