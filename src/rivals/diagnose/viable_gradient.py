"""How far any torch model's prediction of one example can be pushed while the model stays as good."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rivals.diagnose._grid import LossFunction, evaluation_copy, mean_loss
from rivals.diagnose.exploration import Predict
from rivals.errors import RivalsError
from rivals.progress import progress

Floats = NDArray[np.float64]


class GradientRange(NamedTuple):
    """Lowest and highest probability found for each example, [N] or [N, C], and what the pushed models predict.

    `reached` [1 + pushes, N] or [1 + C, N, C]: the model's own prediction first, then one row a push. A row holds another
    model for every example, so `RashomonSet(reached, baseline=0)` has ambiguity, ranges and capacity, but no discrepancy.
    `steps` [pushes, N]: gradient steps that stayed inside.
    """

    lower: Floats
    upper: Floats
    reached: Floats
    steps: NDArray[np.int64]


def viable_range_gradient(
    model: nn.Module,
    loss_fn: LossFunction,
    data: Iterable[Any],
    logits: Predict,
    examples: Iterable[Any],
    *,
    epsilon: float,
    optimizer: Literal["adam", "sgd"] = "adam",
    learning_rate: float | None = None,
    max_steps: int = 100,
) -> GradientRange:
    """Push each example's prediction by gradient steps on all weights for as long as the loss stays within epsilon.

    One push for every class (its logit upwards), or two for a single logit (down and up), each from the model's weights.
    The most extreme prediction with loss <= loss of the model + epsilon counts: a lower bound of the true range. Any model,
    but a pass over `data` a step: N pushes max_steps passes. `viable_range_linear` is exact for logistic regression.

    Args:
        loss_fn, data: as in `loss_curve`. logits: (model, batch) -> float[n] or float[n, C], with gradient. examples: batches.
        epsilon: in units of the loss, above 0.
        optimizer: "adam" (rate 1e-4), or "sgd" (rate 1e-3, momentum 0.9, weight decay 5e-4), as in adversarial weight
            perturbation. The model is copied, in evaluation mode: batch statistics and dropout stay out.

    Source: the gradient search for the ranges of Watson-Daniels, Parkes and Ustun (2023), Paper 40; with "sgd" the
    adversarial weight perturbation of Hsu and Calmon (2022), Paper 111.

    Raises RivalsError: epsilon not above 0, a rate or number of steps that is not above 0, an unknown optimizer, no
    examples, logits of another shape; what `loss_curve` raises.

    >>> model, rows = nn.Linear(2, 1), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> def loss(model, batch):
    ...     return nn.functional.softplus(-model(batch)).sum(), 2
    >>> found = viable_range_gradient(model, loss, [rows], lambda m, x: m(x)[:, 0], [rows], epsilon=0.05, learning_rate=0.01)
    >>> bool((found.lower < found.reached[0]).all()), bool((found.reached[0] < found.upper).all()), found.reached.shape
    (True, True, (3, 2))
    """
    rates = {"adam": 1e-4, "sgd": 1e-3}
    if optimizer not in rates:
        raise RivalsError(f"optimizer is {optimizer!r}; it can be 'adam' or 'sgd'")
    rate = rates[optimizer] if learning_rate is None else learning_rate
    if not (np.isfinite(epsilon) and epsilon > 0) or not rate > 0 or max_steps < 1:
        raise RivalsError(
            f"epsilon, learning_rate and max_steps must be above 0; got {epsilon}, {rate} and {max_steps}"
        )
    moved = evaluation_copy(model)
    weights = [weight.requires_grad_(True) for weight in moved.parameters()]
    start = [weight.detach().clone() for weight in weights]
    edge = mean_loss(moved, loss_fn, data)[0] + epsilon
    batches = list(examples)
    with torch.no_grad():
        own = [_checked(logits(moved, batch)) for batch in batches]
    if not own:
        raise RivalsError("there are no examples to push; give batches of them")
    base = torch.cat([_probabilities(part) for part in own])
    pushes = 2 if base.ndim == 1 else base.shape[1]
    reached = base.expand(pushes + 1, *base.shape).clone()
    steps = torch.zeros(pushes, len(base), dtype=torch.int64)
    with progress("Pushing predictions", pushes * len(base)) as advance:
        at = 0
        for batch, part in zip(batches, own, strict=True):
            for row in range(len(part)):
                for push in range(pushes):
                    _restore(weights, start)
                    opt = _optimizer(optimizer, weights, rate)
                    for step in range(max_steps):
                        opt.zero_grad(set_to_none=True)
                        goal = logits(moved, batch)[row]
                        (goal if base.ndim == 1 and push == 0 else -(goal if base.ndim == 1 else goal[push])).backward()
                        opt.step()
                        if not mean_loss(moved, loss_fn, data)[0] <= edge:
                            break
                        steps[push, at] = step + 1
                        with torch.no_grad():
                            found = _probabilities(logits(moved, batch)[row : row + 1])[0]
                        if _further(found, reached[push + 1, at], push):
                            reached[push + 1, at] = found
                    advance()
                at += 1
    return GradientRange(reached.amin(0).numpy(), reached.amax(0).numpy(), reached.numpy(), steps.numpy())


def _checked(found: Tensor) -> Tensor:
    if found.ndim not in (1, 2) or (found.ndim == 2 and found.shape[1] < 2) or not torch.isfinite(found).all():
        raise RivalsError(f"logits must be finite, of shape [n] or [n, classes]; got {tuple(found.shape)}")
    return found


def _probabilities(logits: Tensor) -> Tensor:
    wide = logits.detach().double().cpu()
    return wide.sigmoid() if wide.ndim == 1 else wide.softmax(1)


def _further(found: Tensor, before: Tensor, push: int) -> bool:
    if found.ndim:
        return bool(found[push] > before[push])
    return bool(found < before) if push == 0 else bool(found > before)


def _optimizer(name: str, weights: list[Tensor], rate: float) -> torch.optim.Optimizer:
    if name == "adam":
        return torch.optim.Adam(weights, lr=rate)
    return torch.optim.SGD(weights, lr=rate, momentum=0.9, weight_decay=5e-4)


def _restore(weights: list[Tensor], start: list[Tensor]) -> None:
    with torch.no_grad():
        for weight, value in zip(weights, start, strict=True):
            weight.copy_(value)
