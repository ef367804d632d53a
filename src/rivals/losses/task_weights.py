"""How much each of several losses counts: fixed weights, and weights learnt as the noise of each task."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.errors import RivalsError
from rivals.losses._common import check_choice, check_finite, check_not_negative, check_scores, check_shape

__all__ = ["FixedWeighting", "LossWeighting", "TaskKind", "UncertaintyWeighting", "uncertainty_weighted_sum"]

TaskKind = Literal["generic", "regression", "laplace", "classification", "doubled"]
Regularizer = Literal["log", "log1p"]
Losses = Sequence[Tensor | None] | Mapping[str, Tensor | None]

_SCALES: dict[str, tuple[float, float, float]] = {  # kind: precision factor, part of s in the precision, factor of s
    "generic": (0.5, 1.0, 0.5),
    "regression": (0.5, 1.0, 0.5),
    "laplace": (1.0, 0.5, 0.5),
    "classification": (1.0, 1.0, 0.5),
    "doubled": (1.0, 1.0, 1.0),
}


class LossWeighting(Protocol):
    """Turns the losses of several tasks into one: a sequence, or a mapping by task name; None (or left out): absent."""

    def __call__(self, losses: Losses) -> Tensor:
        """Return the total."""

    def weights(self) -> Tensor:
        """Return the factor [m] each loss has now, without gradient."""


def uncertainty_weighted_sum(
    losses: Tensor,
    log_variances: Tensor,
    mask: Tensor | None = None,
    *,
    kinds: TaskKind | Sequence[TaskKind] = "generic",
    regularizer: Regularizer = "log",
) -> Tensor:
    """Return the sum of losses, each divided by its noise variance e^s, plus what keeps the variance small.

    kind of a task -> its term for loss L and log variance s:

    - "regression" (L a mean squared error) and "generic": e^{-s} L / 2 + s / 2
    - "classification" (L a cross entropy): e^{-s} L + s / 2
    - "laplace" (L a mean absolute error): e^{-s / 2} L + s / 2
    - "doubled": e^{-s} L + s, twice "regression"

    regularizer="log1p" puts log(1 + e^s) in place of s beside the losses, which keeps totals of positive losses
    positive. The best s of a regression is log L, where its part of the total is (1 + log L) / 2: the losses are
    multiplied, not added, so their units do not matter. A task whose mask is False takes part in nothing.

    Shapes: losses float[m] (means, not sums), log_variances float[m], mask bool[m] -> scalar.

    Source: Kendall, Gal and Cipolla (2018); LibMTL has "generic" for every task, the authors' example
    "doubled"; Liebel and Koerner (2018), log1p. Paper 65.

    Raises:
        RivalsError: shapes or dtypes that do not fit, a NaN or infinite loss of a task that is there, an unknown kind
        or number of kinds, an unknown regularizer.

    >>> uncertainty_weighted_sum(torch.tensor([0.7, 2.5]), torch.tensor([0.7, 2.5]).log())
    tensor(1.2798)
    """
    check_scores(losses, "losses", ndim=1)
    check_shape(log_variances, tuple(losses.shape), "log_variances", losses.device)
    check_choice(regularizer, get_args(Regularizer), "regularizer")
    s = log_variances.to(torch.promote_types(losses.dtype, torch.float32))
    there = torch.ones_like(losses, dtype=torch.bool) if mask is None else mask
    check_shape(there, tuple(losses.shape), "mask", losses.device)
    values = losses.to(s.dtype).masked_fill(~there, 0.0)
    check_finite(values, "losses")
    precision, factor = _precision(s, kinds)
    kept = s if regularizer == "log" else F.softplus(s)
    return (precision * values + factor * kept).masked_fill(~there, 0.0).sum()


class UncertaintyWeighting(nn.Module):
    """Losses weighted by a learnt noise each: `uncertainty_weighted_sum` with the log variances as parameters.

    Give its parameters to the optimiser, without weight decay; plain SGD wants a larger rate for them. The log
    variances count within `clamp`, so that a loss of 0 cannot get an infinite weight. Losses below 0 have no optimum:
    they are warned of once, or refused with `strict`.

    Shapes: forward(losses: sequence of m scalars, or a mapping by the names in `tasks`) -> scalar.

    Source: Kendall, Gal and Cipolla (2018). Paper 65. Starts at log variance 0; LibMTL starts at -0.5.

    Raises:
        RivalsError: no task, a wrong number or unknown name of losses, a loss that is no scalar or is NaN (named), kinds
        of another number or unknown, clamp out of order, with `strict` a loss below 0.

    >>> weighting = UncertaintyWeighting(2)
    >>> weighting([torch.tensor(3.0), torch.tensor(1.0)]).item(), weighting.weights().tolist()
    (2.0, [0.5, 0.5])
    """

    def __init__(
        self,
        tasks: int | Sequence[str],
        *,
        kinds: TaskKind | Sequence[TaskKind] = "generic",
        init: float = 0.0,
        clamp: tuple[float, float] = (-10.0, 10.0),
        regularizer: Regularizer = "log",
        strict: bool = False,
    ) -> None:
        super().__init__()
        self.tasks = _names(tasks)
        if not (math.isfinite(init) and clamp[0] < clamp[1]):
            raise RivalsError(f"init must be finite and clamp rising; got {init!r} and {clamp!r}")
        check_choice(regularizer, get_args(Regularizer), "regularizer")
        self.kinds, self.clamp, self.regularizer, self.strict = kinds, clamp, regularizer, strict
        self.log_vars = nn.Parameter(torch.full((len(self.tasks),), float(init)))
        _precision(self.log_vars, kinds)
        self._warned = False

    def forward(self, losses: Losses) -> Tensor:
        """Return the total of the losses that are there."""
        values, there = _collect(losses, self.tasks, self.log_vars)
        self._look_for_negative(values, there)
        return uncertainty_weighted_sum(
            values, self._log_variances(), there, kinds=self.kinds, regularizer=self.regularizer
        )

    def weights(self) -> Tensor:
        """Return the factor each loss has now."""
        return _precision(self._log_variances().detach(), self.kinds)[0]

    def sigmas(self) -> Tensor:
        """Return the noise of each task, e^{s / 2}."""
        return (self._log_variances().detach() / 2).exp()

    def _log_variances(self) -> Tensor:
        return self.log_vars.clamp(*self.clamp)

    def _look_for_negative(self, values: Tensor, there: Tensor) -> None:
        if values.device.type != "cpu" or (self._warned and not self.strict) or not (values[there] < 0).any():
            return
        task = self.tasks[int((values.masked_fill(~there, 0.0) < 0).nonzero()[0])]
        message = f"the loss of task {task} is below 0; its weight would grow without bound"
        if self.strict:
            raise RivalsError(f"{message}, give it a lower bound of 0")
        self._warned = True
        warnings.warn(f"{message}, up to the clamp", UserWarning, stacklevel=3)


class FixedWeighting(nn.Module):
    """Losses weighted by given numbers, 1 each by default; e.g. `svd_task_weights`.

    Shapes: forward(losses: sequence of m scalars, or a mapping by the names in `tasks`) -> scalar.

    Source: the baseline of Kendall, Gal and Cipolla (2018). Papers 65, 107.

    Raises:
        RivalsError: no task, weights of another shape or below 0, and as `UncertaintyWeighting` for the losses.

    >>> FixedWeighting(["rank", "class"], weights=torch.tensor([1.0, 0.5]))({"rank": torch.tensor(3.0)})
    tensor(3.)
    """

    fixed: Tensor

    def __init__(self, tasks: int | Sequence[str], *, weights: Tensor | None = None) -> None:
        super().__init__()
        self.tasks = _names(tasks)
        weights = torch.ones(len(self.tasks)) if weights is None else weights.detach().clone()
        check_shape(weights, (len(self.tasks),), "weights", weights.device)
        check_not_negative(weights, "weights")
        self.register_buffer("fixed", weights)

    def forward(self, losses: Losses) -> Tensor:
        """Return the weighted sum of the losses that are there."""
        values, there = _collect(losses, self.tasks, self.fixed)
        return (self.fixed.to(values.dtype) * values).masked_fill(~there, 0.0).sum()

    def weights(self) -> Tensor:
        """Return the weights."""
        return self.fixed.clone()


def _names(tasks: int | Sequence[str]) -> list[str]:
    names = [str(place) for place in range(tasks)] if isinstance(tasks, int) else list(tasks)
    if not names or len(set(names)) != len(names):
        raise RivalsError(f"tasks must be a number above 0 or different names; got {tasks!r}")
    return names


def _collect(losses: Losses, tasks: list[str], like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses [m] (0 where one is absent) and which are there."""
    if isinstance(losses, Mapping):
        unknown = sorted(losses.keys() - set(tasks))
        if unknown:
            raise RivalsError(f"losses names the unknown task {unknown[0]!r}; the tasks are {', '.join(tasks)}")
        found = [losses.get(name) for name in tasks]
    else:
        found = list(losses)
        if len(found) != len(tasks):
            raise RivalsError(f"losses must hold one loss for each of the {len(tasks)} tasks; got {len(found)}")
    dtype = like.dtype
    for name, loss in zip(tasks, found, strict=True):
        if loss is None:
            continue
        check_scores(loss.reshape(-1), f"the loss of task {name}")
        check_shape(loss.reshape(-1), (1,), f"the loss of task {name}", like.device)
        if loss.device.type == "cpu" and not math.isfinite(loss.item()):
            raise RivalsError(f"the loss of task {name} is {loss.item()}; find out why before it is weighted")
        dtype = torch.promote_types(dtype, loss.dtype)
    absent = torch.zeros((), dtype=dtype, device=like.device)
    values = torch.stack([absent if loss is None else loss.reshape(()).to(dtype) for loss in found])
    return values, torch.tensor([loss is not None for loss in found], device=like.device)


def _precision(s: Tensor, kinds: TaskKind | Sequence[TaskKind]) -> tuple[Tensor, Tensor]:
    """Return the factor of every loss and of every s."""
    each = [kinds] * len(s) if isinstance(kinds, str) else list(kinds)
    if len(each) != len(s):
        raise RivalsError(f"kinds must be one kind or one for each of the {len(s)} tasks; got {len(each)}")
    for kind in each:
        check_choice(kind, get_args(TaskKind), "kinds")
    table = torch.tensor([_SCALES[kind] for kind in each], dtype=s.dtype, device=s.device).reshape(-1, 3)
    return table[:, 0] * (-table[:, 1] * s).exp(), table[:, 2]
