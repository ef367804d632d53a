"""What a pair of candidates costs, as a function of the difference d = (score of the first) - (score of the second)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Kernel(Protocol):
    """A cost phi(d) with its first two derivatives; all three take and return tensors of one shape.

    `value` is differentiable by autograd (the readable version uses only this). `block` is what the blocked version
    calls: it may overwrite `difference`, not `weight`, and returns new tensors phi * weight and phi' * weight, the latter
    only if `slope` is asked.
    """

    def value(self, difference: Tensor) -> Tensor: ...

    def curvature(self, difference: Tensor) -> Tensor: ...

    def block(self, difference: Tensor, weight: Tensor | None, *, slope: bool) -> tuple[Tensor, Tensor | None]: ...


@dataclass(frozen=True)
class Logistic:
    """log(1 + exp(-scale d)).

    >>> Logistic().value(torch.zeros(1))
    tensor([0.6931])
    """

    scale: float = 1.0

    def value(self, difference: Tensor) -> Tensor:
        return -F.logsigmoid(self.scale * difference)

    def curvature(self, difference: Tensor) -> Tensor:
        chance = torch.sigmoid(self.scale * difference)
        return self.scale**2 * chance * torch.sigmoid(-self.scale * difference)

    def block(self, difference: Tensor, weight: Tensor | None, *, slope: bool) -> tuple[Tensor, Tensor | None]:
        # The two halves of log-sigmoid share their exponential: the second costs no transcendental function.
        scaled = difference if self.scale == 1 else difference.mul_(self.scale)
        logarithm, exponential = torch.ops.aten.log_sigmoid_forward(scaled)
        factor = scaled.new_full((), -1.0).expand_as(scaled) if weight is None else weight.neg()
        change = None
        if slope:
            change = torch.ops.aten.log_sigmoid_backward(factor, scaled, exponential)
            if self.scale != 1:
                change.mul_(self.scale)
        return logarithm.mul_(factor), change


@dataclass(frozen=True)
class Hinge:
    """max(0, margin - d).

    >>> Hinge().value(torch.tensor([0.25, 2.0]))
    tensor([0.7500, 0.0000])
    """

    margin: float = 1.0

    def value(self, difference: Tensor) -> Tensor:
        return F.relu(self.margin - difference)

    def curvature(self, difference: Tensor) -> Tensor:
        return torch.zeros_like(difference)

    def block(self, difference: Tensor, weight: Tensor | None, *, slope: bool) -> tuple[Tensor, Tensor | None]:
        value = self.value(difference)
        change = value.sign().neg_() if slope else None
        return _weighted(value, change, weight)


@dataclass(frozen=True)
class SquaredHinge:
    """max(0, margin - d)^2.

    >>> SquaredHinge().value(torch.tensor([0.5, 2.0]))
    tensor([0.2500, 0.0000])
    """

    margin: float = 1.0

    def value(self, difference: Tensor) -> Tensor:
        return F.relu(self.margin - difference).square()

    def curvature(self, difference: Tensor) -> Tensor:
        return 2.0 * (difference < self.margin).to(difference.dtype)

    def block(self, difference: Tensor, weight: Tensor | None, *, slope: bool) -> tuple[Tensor, Tensor | None]:
        short = F.relu(self.margin - difference)
        return _weighted(short.square(), short.mul(-2.0) if slope else None, weight)


@dataclass(frozen=True)
class Squared:
    """(margin - d)^2, also where d is already above the margin.

    >>> Squared().value(torch.tensor([0.5, 2.0]))
    tensor([0.2500, 1.0000])
    """

    margin: float = 1.0

    def value(self, difference: Tensor) -> Tensor:
        return (self.margin - difference).square()

    def curvature(self, difference: Tensor) -> Tensor:
        return torch.full_like(difference, 2.0)

    def block(self, difference: Tensor, weight: Tensor | None, *, slope: bool) -> tuple[Tensor, Tensor | None]:
        short = self.margin - difference
        return _weighted(short.square(), short.mul(-2.0) if slope else None, weight)


@dataclass(frozen=True)
class Exponential:
    """exp(-scale d); overflows where scale d is below about -88 in float32.

    >>> Exponential().value(torch.zeros(1))
    tensor([1.])
    """

    scale: float = 1.0

    def value(self, difference: Tensor) -> Tensor:
        return torch.exp(-self.scale * difference)

    def curvature(self, difference: Tensor) -> Tensor:
        return self.scale**2 * self.value(difference)

    def block(self, difference: Tensor, weight: Tensor | None, *, slope: bool) -> tuple[Tensor, Tensor | None]:
        value = difference.mul_(-self.scale).exp_()
        return _weighted(value, value.mul(-self.scale) if slope else None, weight)


def _weighted(value: Tensor, change: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if weight is None:
        return value, change
    return value.mul_(weight), None if change is None else change.mul_(weight)
