"""What losses over classes share: the log-probabilities of checked rows, and the reduction of one value an example."""

from __future__ import annotations

import torch
from torch import Tensor

from rivals.losses._common import (
    CheckedRows,
    Reduction,
    check_not_negative,
    check_reduction,
    check_rows,
    check_shape,
    reduce_lists,
    spread_rows,
)


def class_log_probabilities(
    logits: Tensor, labels: Tensor, mask: Tensor | None, weight: Tensor | None, reduction: Reduction
) -> tuple[CheckedRows, Tensor]:
    """Check logits [N, K] with labels int[N]; return the rows that are there and their log softmax [M, K]."""
    check_reduction(reduction)
    rows = check_rows(logits, labels, mask, weight=weight, name="logits", classes=True)
    return rows, rows.rows.log_softmax(1)


def own_class(values: Tensor, labels: Tensor) -> Tensor:
    """Return every row's entry at its label: [M, K] -> [M].

    >>> own_class(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0])).tolist()
    [2.0, 3.0]
    """
    return values.gather(1, labels.long().unsqueeze(1)).squeeze(1)


def one_hot(labels: Tensor, like: Tensor) -> Tensor:
    """Return labels int[M] as ones and zeros shaped like `like` [M, K].

    >>> one_hot(torch.tensor([1]), torch.zeros(1, 3)).tolist()
    [[0.0, 1.0, 0.0]]
    """
    return torch.zeros_like(like).scatter_(1, labels.long().unsqueeze(1), 1.0)


def reduce_rows(values: Tensor, rows: CheckedRows, reduction: Reduction) -> Tensor:
    """Weight and reduce one value an example [M]; "none" lays them out as [N], 0 where the mask is False."""
    if rows.weight is not None:
        values = values * rows.weight
    return reduce_lists(spread_rows(values, rows.mask), rows.mask, reduction)


def check_class_weight(class_weight: Tensor, rows: Tensor) -> Tensor:
    """Check one weight a class [K] and return it in the dtype of the rows."""
    check_shape(class_weight, (rows.shape[1],), "class_weight", rows.device)
    check_not_negative(class_weight, "class_weight")
    return class_weight.to(rows.dtype)
