"""What every adapter is made of: a recorded case in, our output and our gradients by input name out.

A case has `inputs` and `params` as the paper's card describes them; everything is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Case = dict[str, Any]
Adapter = Callable[[Case], tuple[Any, dict[str, Tensor]]]


def leaf(values: Any) -> Tensor:
    """Return recorded numbers as a float64 tensor that collects a gradient."""
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def constant(values: Any, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return recorded numbers as a tensor without gradient."""
    return torch.tensor(values, dtype=dtype)


def optional(values: Any, dtype: torch.dtype = torch.float64) -> Tensor | None:
    """Return recorded numbers as a tensor without gradient, or None where nothing is recorded."""
    return None if values is None else constant(values, dtype)


def gradients(loss: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradient of `loss` at every tensor, zeros at those it does not depend on."""
    found = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
    zeros = (torch.zeros_like(tensor) for tensor in tensors.values())
    return {
        name: zero if gradient is None else gradient for name, gradient, zero in zip(tensors, found, zeros, strict=True)
    }
