"""Models nearly as good as one trained model, found cheaply: by dropout, by listing others, by pushing one prediction.

Every way gives members whose loss is within epsilon of the base model's, and what they predict; `RashomonSet` says how
much that differs. All are lower bounds: compare ways at one epsilon and tell how many members each had.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rivals.diagnose._grid import LossFunction, evaluation_copy, mean_loss
from rivals.diagnose.multiplicity import RashomonSet, rank_ambiguity
from rivals.errors import RivalsError
from rivals.progress import progress

Predict = Callable[[Any, Any], Tensor]
Noise = Literal["gaussian", "bernoulli"]
_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
_MAX_RATE: dict[str, float] = {"gaussian": 0.6, "bernoulli": 0.2}


@dataclass(frozen=True, eq=False)
class RashomonSample:
    """The members that an exploration found, the base model first, and how it went.

    Args:
        outputs: [members, N, ...], what each predicts. member_losses: [members]. losses, rates: [tries], of every model
            tried; rates are 0 where there was no dropout. epsilon: of membership. seconds: of the whole exploration.
    """

    outputs: NDArray[np.float64]
    member_losses: NDArray[np.float64]
    losses: NDArray[np.float64]
    rates: NDArray[np.float64]
    epsilon: float
    seconds: float

    @property
    def base_loss(self) -> float:
        """The loss of the base model."""
        return float(self.member_losses[0])

    @property
    def ratio(self) -> float:
        """Members over models tried, the base left out."""
        return (len(self.outputs) - 1) / len(self.losses) if len(self.losses) else 0.0

    def within(self, epsilon: float) -> RashomonSample:
        """Return the sample for a smaller epsilon."""
        if not 0 < epsilon <= self.epsilon:
            raise RivalsError(f"epsilon is {epsilon}; models were looked for within {self.epsilon} only")
        kept = self.member_losses < self.base_loss + epsilon
        kept[0] = True
        return replace(self, outputs=self.outputs[kept], member_losses=self.member_losses[kept], epsilon=epsilon)

    def rashomon_set(self, *, threshold: float = 0.5) -> RashomonSet:
        """Return the members as a `RashomonSet` whose baseline is the base model; outputs must be probabilities."""
        return RashomonSet(self.outputs, baseline=0, threshold=threshold)

    def rank_ambiguity(self, *, k: int, mask: NDArray[np.bool_] | None = None) -> tuple[float, float]:
        """Return ambiguity and discrepancy of the top k where outputs are scores [members, Q, C]; see `rank_ambiguity`."""
        return rank_ambiguity(self.outputs, mask, k=k)

    def __str__(self) -> str:
        return (
            f"{len(self.outputs) - 1} of {len(self.losses)} models within {self.epsilon:g} of the loss "
            f"{self.base_loss:.4g}, in {self.seconds:.1f} s"
        )


def sample_rashomon(
    model: nn.Module,
    loss_fn: LossFunction,
    data: Iterable[Any],
    predict: Predict,
    examples: Iterable[Any],
    *,
    epsilon: float,
    method: Noise = "gaussian",
    rates: int | Sequence[float] = 21,
    max_rate: float | None = None,
    draws: int = 100,
    frozen_masks: bool = True,
    generator: torch.Generator | None = None,
) -> RashomonSample:
    """Explore the models around a trained one by dropout, without training: 20 times faster a member, and more.

    The output h of every linear and convolutional layer, the last one included, is multiplied: "gaussian": h (1 + q xi), xi
    normal; "bernoulli": h m / (1 - q), m = 0 with probability q. A draw whose loss on `data` is below that of the model plus
    epsilon is a member. Other dropout stays off; the model is copied and stays as it is.

    Args:
        loss_fn, data: as in `loss_curve`; better not the examples themselves. `ObjectiveLoss` makes them from what `fit` trains.
        predict: (model, batch) -> float[n, ...]: probabilities [n] or [n, C] for `rashomon_set`, scores of lists [n, C]
            for `rank_ambiguity`. examples: its batches.
        epsilon: in units of the loss, above 0. 1 % to 5 % of the model's loss are usual.
        rates: q, this many from 0 to `max_rate` (0.6 Gaussian, 0.2 Bernoulli; deep networks stand far less), or given.
        draws: models a rate.
        frozen_masks: draw one factor a unit (feature or channel) for a whole model, so that a member is a model. False is
            the paper's: anew for every activation at every call, a random function.
        generator: on the CPU, seeds the draws.

    Source: Hsu, Li, Hu and Chen (2024), dropout-based Rashomon set exploration, and its code. Paper 111. Frozen masks
    are ours.

    Raises RivalsError: epsilon not above 0, a rate outside [0, 1), no draw, a model whose linear or convolutional layers
    are not called, predictions that are not finite; what `loss_curve` raises.

    >>> model, rows = nn.Sequential(nn.Linear(2, 2)), torch.eye(2)
    >>> def loss(model, batch):
    ...     return nn.functional.cross_entropy(model(batch), torch.tensor([0, 1]), reduction="sum"), 2
    >>> found = sample_rashomon(model, loss, [rows], lambda m, x: m(x).softmax(1), [rows], epsilon=0.05, rates=3, draws=5)
    >>> len(found.losses), found.outputs.shape[1:], found.rashomon_set().ambiguity(0.5)
    (15, (2, 2), 0.0)
    """
    if method not in _MAX_RATE:
        raise RivalsError(f"method is {method!r}; it can be 'gaussian' or 'bernoulli'")
    top = _MAX_RATE[method] if max_rate is None else max_rate
    grid = np.linspace(0, top, rates).tolist() if isinstance(rates, int) else [float(rate) for rate in rates]
    if draws < 1 or not grid or not all(0 <= rate < 1 for rate in grid):
        raise RivalsError(f"rates must be numbers in [0, 1) and draws 1 or more; got {grid} and {draws}")
    tries = [rate for rate in grid for _ in range(draws)]
    copied = evaluation_copy(model)
    noisy = _Noise(copied, method, frozen_masks, generator or torch.Generator().manual_seed(0))
    models = (noisy.at(rate) for rate in tries)
    found = _collect(copied, models, len(tries), loss_fn, data, predict, examples, epsilon)
    if not noisy.called:
        raise RivalsError("no linear or convolutional layer of the model was called, so dropout changed nothing")
    return replace(found, rates=np.asarray(tries))


def rashomon_of_models(
    models: Sequence[nn.Module],
    loss_fn: LossFunction,
    data: Iterable[Any],
    predict: Predict,
    examples: Iterable[Any],
    *,
    epsilon: float,
) -> RashomonSample:
    """Return which of several models are as good as the first within epsilon, and what they predict.

    For models trained from other seeds, with other settings, or checkpoints of one run: the costly way that dropout is
    compared with. The first is the base.

    Args: as in `sample_rashomon`.

    Source: the retraining baseline of Hsu, Li, Hu and Chen (2024). Paper 111.

    Raises RivalsError: no model; as `sample_rashomon`.

    >>> models = [nn.Linear(1, 1), nn.Linear(1, 1)]
    >>> def loss(model, batch):
    ...     return model(batch).sum() * 0, 1
    >>> rows = torch.ones(3, 1)
    >>> found = rashomon_of_models(models, loss, [rows], lambda m, x: m(x)[:, 0].sigmoid(), [rows], epsilon=0.1)
    >>> found.outputs.shape, found.ratio
    ((2, 3), 1.0)
    """
    if not len(models):
        raise RivalsError("there is no model; give the base model first, then the others")
    copies = (evaluation_copy(model) for model in models[1:])
    return _collect(evaluation_copy(models[0]), copies, len(models) - 1, loss_fn, data, predict, examples, epsilon)


def rashomon_ensembles(
    probabilities: NDArray[Any], size: int, repeats: int = 100, *, generator: np.random.Generator | None = None
) -> NDArray[np.float64]:
    """Return the mean predictions of ensembles of members drawn at random: a cure, for they differ less than members.

    Shapes: probabilities[M, N, ...] -> [repeats, N, ...]. Members of an ensemble differ.

    Args: size: members an ensemble, 1 to M. repeats: ensembles.

    Source: Hsu, Li, Hu and Chen (2024). Paper 111.

    Raises RivalsError: size not in 1..M, repeats below 1.

    >>> rashomon_ensembles(np.array([[0.2], [0.4]]), 2, 3).round(2).tolist()
    [[0.3], [0.3], [0.3]]
    """
    given = np.asarray(probabilities, dtype=np.float64)
    if given.ndim < 2 or not 1 <= size <= len(given) or repeats < 1:
        raise RivalsError(f"size must be in 1..{len(given)} members and repeats 1 or more; got {size} and {repeats}")
    draw = generator or np.random.default_rng(0)
    chosen = (draw.permutation(len(given))[:size] for _ in range(repeats))
    return np.stack([given[rows].mean(0) for rows in chosen])


def select_least_multiple(multiplicity: Sequence[float], quality: Sequence[float], *, tolerance: float = 0.0) -> int:
    """Return the place of the model with the least multiplicity among those of nearly the best quality.

    Args:
        multiplicity: of each model, by any measure of its `sample_rashomon`. quality: higher is better; negate a loss.
        tolerance: how far below the best quality a model may be.

    Source: Hsu, Li, Hu and Chen (2024), model selection. Paper 111.

    Raises RivalsError: no model, lengths that differ, NaN, a negative tolerance.

    >>> select_least_multiple([0.3, 0.1, 0.05], [0.9, 0.9, 0.7], tolerance=0.01)
    1
    """
    spread, good = np.asarray(multiplicity, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    if spread.ndim != 1 or spread.shape != good.shape or not spread.size or np.isnan(spread + good).any():
        raise RivalsError("multiplicity and quality must be one number a model, without NaN")
    if not tolerance >= 0:
        raise RivalsError(f"tolerance is {tolerance}; it must be at least 0")
    return int(np.where(good >= good.max() - tolerance, spread, np.inf).argmin())


class _Noise:
    """Dropout on the outputs of a model's linear and convolutional layers, drawn anew for each `at`."""

    def __init__(self, model: nn.Module, method: Noise, frozen: bool, generator: torch.Generator) -> None:
        self.model, self.method, self.frozen, self.generator = model, method, frozen, generator
        self.rate, self.called = 0.0, False
        self._factors: dict[str, Tensor] = {}
        for name, module in model.named_modules():
            if isinstance(module, _LAYERS):
                module.register_forward_hook(partial(self._hook, name))

    def at(self, rate: float) -> nn.Module:
        """Return the model with fresh dropout of this rate."""
        self.rate = rate
        self._factors.clear()
        return self.model

    def _hook(self, name: str, module: nn.Module, _: Any, output: Tensor) -> Tensor | None:
        self.called = True
        if self.rate == 0:
            return None
        if not self.frozen:
            return output * self._drawn(output.shape, output)
        if name not in self._factors:
            linear = isinstance(module, nn.Linear)
            units = output.shape[-1] if linear else int(module.out_channels)  # type: ignore[arg-type]
            after = 0 if linear else len(module.kernel_size)  # type: ignore[arg-type]
            self._factors[name] = self._drawn((units,) + (1,) * after, output)
        return output * self._factors[name]

    def _drawn(self, shape: Sequence[int], like: Tensor) -> Tensor:
        if self.method == "gaussian":
            return (1 + self.rate * torch.randn(tuple(shape), generator=self.generator)).to(like)
        kept = torch.rand(tuple(shape), generator=self.generator) >= self.rate
        return kept.to(like) / (1 - self.rate)


def _collect(
    base: nn.Module,
    models: Iterable[nn.Module],
    count: int,
    loss_fn: LossFunction,
    data: Iterable[Any],
    predict: Predict,
    examples: Iterable[Any],
    epsilon: float,
) -> RashomonSample:
    """Measure the base and then every model; predict with the members only."""
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise RivalsError(f"epsilon is {epsilon}; it must be a finite number above 0")
    started = time.monotonic()
    base_loss = mean_loss(base, loss_fn, data)[0]
    if not np.isfinite(base_loss):
        raise RivalsError(f"the base model's loss is {base_loss}; nothing can be near to it")
    outputs, member_losses, losses = [_predicted(base, predict, examples)], [base_loss], []
    with progress("Exploring models", count) as advance:
        for model in models:
            losses.append(mean_loss(model, loss_fn, data)[0])
            if losses[-1] < base_loss + epsilon:
                outputs.append(_predicted(model, predict, examples))
                member_losses.append(losses[-1])
            advance(1, f"{len(outputs) - 1} members")
    return RashomonSample(
        np.stack(outputs),
        np.asarray(member_losses),
        np.asarray(losses, dtype=np.float64),
        np.zeros(len(losses)),
        epsilon,
        time.monotonic() - started,
    )


def _predicted(model: nn.Module, predict: Predict, examples: Iterable[Any]) -> NDArray[np.float64]:
    with torch.no_grad():
        parts = [predict(model, batch).double().cpu() for batch in examples]
    if not parts:
        raise RivalsError("there are no examples to predict; give batches that can be gone through repeatedly")
    found = torch.cat(parts)
    if not torch.isfinite(found).all():
        raise RivalsError("a member predicts values that are not finite")
    return found.numpy()
