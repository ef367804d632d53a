"""What losses over sets share: which candidates form a set, and scores read as probabilities."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses._common import Checked, check_choice

Level: TypeAlias = Literal["set", "list", "label"]
"""What is one set: all candidates of the batch, those of a list, or those in one place of all lists (a label)."""

Activation: TypeAlias = Literal["sigmoid"] | None
"""How scores become probabilities: through the sigmoid, or they are probabilities already."""


def check_level(level: str, *further: str) -> None:
    """Raise unless `level` is one of the levels, or of the further ones that a loss knows."""
    check_choice(level, (*get_args(Level), *further), "level")


def by_level(values: Tensor, level: str) -> Tensor:
    """Bring values [..., C] to [sets, members], [members] or [..., members]: the last dimension is what is summed.

    >>> values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> [by_level(values, level).sum(-1).tolist() for level in ("set", "list", "label")]
    [10.0, [3.0, 7.0], [4.0, 6.0]]
    """
    if level == "set":
        return values.flatten()
    if level == "label":
        return values.unsqueeze(0).movedim(-1, 0).flatten(1)
    return values


def probabilities(lists: Checked, activation: Activation) -> Tensor:
    """Return the scores of checked lists as probabilities; without activation they must lie in [0, 1] already."""
    check_choice(activation, ("sigmoid", None), "activation")
    if activation == "sigmoid":
        return lists.scores.sigmoid()
    check_unit_interval(lists.scores, "scores")
    return lists.scores


def check_unit_interval(values: Tensor, name: str) -> None:
    """Raise if a value lies outside [0, 1]. Only on the CPU: elsewhere reading it would stall the device."""
    if values.device.type != "cpu" or torch.compiler.is_compiling() or values.numel() == 0:
        return
    lowest, highest = torch.aminmax(values.detach())
    if not (lowest.item() >= 0 and highest.item() <= 1):
        raise RivalsError(f"{name} must lie in 0..1; found {lowest.item():g} to {highest.item():g}")


def safe_ratio(numerator: Tensor, denominator: Tensor, empty: float = 0.0) -> Tensor:
    """Return numerator / denominator, and `empty` with zero gradient where the denominator is 0.

    >>> safe_ratio(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0]), empty=1.0).tolist()
    [0.5, 1.0]
    """
    nothing = denominator == 0
    return (numerator / denominator.masked_fill(nothing, 1.0)).masked_fill(nothing, empty)
