"""What focal losses share: the weight that takes the stress off examples that are already right."""

from __future__ import annotations

from torch import Tensor

SMALLEST = 1e-12
"""Shortfalls below this count as this, so that a power below 1 keeps a finite slope."""


def focusing_weight(shortfall: Tensor, gamma: float | Tensor, *, detach: bool = False) -> Tensor:
    """Return shortfall^gamma, where `shortfall` in [0, 1] says how far an example is from being right.

    With `detach` the weight is a constant in the gradient.

    >>> import torch
    >>> focusing_weight(torch.tensor([0.5, 1.0]), 2.0)
    tensor([0.2500, 1.0000])
    """
    base = shortfall.detach() if detach else shortfall
    return base.clamp(min=SMALLEST) ** gamma
