"""The classes of a batch as sets of rows: what the submodular losses are made of, and how they are averaged."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from rivals.losses._common import (
    Reduction,
    check_choice,
    check_positive,
    check_reduction,
    check_rows,
    reduce_lists,
    spread_rows,
)
from rivals.losses.set_functions import Kernel, similarity_kernel

Style: TypeAlias = Literal["paper", "code"]
"""The formulas as printed, or as the authors' released code computes them."""
BASE_TEMPERATURE = 0.07
"""The temperature at which the released code's factor temperature / 0.07 is 1."""


class ClassSets(NamedTuple):
    """The rows that are there, and their classes as sets.

    vectors [n, D]; similarity [n, n]; classes int[n], counted from 0; sizes int[C]; friends and outside bool[n, n]: the
    other members of a row's class, and the rows of other classes; mask bool[N] of the rows given.
    """

    vectors: Tensor
    similarity: Tensor
    classes: Tensor
    sizes: Tensor
    friends: Tensor
    outside: Tensor
    mask: Tensor


def class_sets(
    embeddings: Tensor, labels: Tensor, mask: Tensor | None, *, kernel: Kernel, style: str, reduction: Reduction
) -> ClassSets:
    """Check the arguments of a loss over the classes of a batch."""
    check_choice(style, get_args(Style), "style")
    check_reduction(reduction)
    rows = check_rows(embeddings, labels, mask)
    _, classes, sizes = rows.labels.unique(return_inverse=True, return_counts=True)
    same = classes.unsqueeze(1) == classes
    friends = same & ~torch.eye(len(classes), dtype=torch.bool, device=same.device)
    return ClassSets(rows.rows, similarity_kernel(rows.rows, kernel), classes, sizes, friends, ~same, rows.mask)


def temperature_factor(temperature: float) -> float:
    """Return the factor that the released code multiplies its losses by."""
    check_positive(temperature, "temperature")
    return temperature / BASE_TEMPERATURE


def class_totals(rows: Tensor, sets: ClassSets) -> Tensor:
    """Add rows [n] up inside each class: [C], by rising label."""
    return rows.new_zeros(len(sets.sizes)).index_add(0, sets.classes, rows)


def reduce_classes(totals: Tensor, sets: ClassSets, reduction: Reduction) -> Tensor:
    """Divide class totals [C] by the size of the class, then reduce over the classes; "none" gives them as they are."""
    return reduce_lists(totals / sets.sizes, torch.ones_like(sets.sizes), reduction)


def reduce_rows(rows: Tensor, counted: Tensor, sets: ClassSets, reduction: Reduction) -> Tensor:
    """Reduce rows [n] over those that count; "none" gives [N], 0 where a row is absent or does not count."""
    rows = rows.masked_fill(~counted, 0.0)
    if reduction == "none":
        return spread_rows(rows, sets.mask)
    return reduce_lists(rows, counted, reduction)
