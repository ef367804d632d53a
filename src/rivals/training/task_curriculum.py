"""Asymmetric multi-task training by curriculum: which task comes next, and which tasks it may lend its weights to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rivals.errors import RivalsError

Similarity = Literal["cosine", "sign"]


class CurriculumTerms(NamedTuple):
    """The terms of one task's objective, each a number with gradient at its row of the transfer matrix."""

    train: Tensor
    transfer: Tensor
    prior: Tensor
    rank_loss: Tensor
    rank_similarity: Tensor

    def total(self) -> Tensor:
        """Their plain sum, as at the first evaluation."""
        return torch.stack(list(self)).sum()


def soft_rank(points: Tensor, *, scale: float = 200.0, shift: float = 0.01) -> Tensor:
    """Return smooth ranks of points, the largest near 1.

    rank_j = T - sum_i (tanh(scale (b_j - shift - b_i)) + 1) / 2; the sum runs over the point itself too, which is why
    the largest of well-separated points has 1 - (1 - tanh(scale shift)) / 2, 0.982. Points closer than about `shift`
    share. Without the shift it would be `rivals.losses.soft_ranks` at temperature 1 / (2 scale), less a half. The
    gradient vanishes between points much farther apart than 1 / scale.

    Args:
        points: float[..., T]. scale: above 0.

    Source: Huang et al. (2022), CAMRL, and its code, which loses the gradient. Paper 2.

    Raises RivalsError: points that are not floating-point, a scale not above 0, a shift that is not finite.

    >>> soft_rank(torch.tensor([0.9, 0.1, 0.5])).round(decimals=3)
    tensor([0.9820, 2.9820, 1.9820])
    """
    if not points.is_floating_point() or points.ndim < 1:
        raise RivalsError(f"points must be floating-point, [..., T]; got {points.dtype} of shape {tuple(points.shape)}")
    if not (math.isfinite(scale) and scale > 0 and math.isfinite(shift)):
        raise RivalsError(f"scale must be a finite number above 0 and shift finite; got {scale!r} and {shift!r}")
    behind = torch.tanh(scale * (points[..., :, None] - shift - points[..., None, :])) / 2 + 0.5
    return points.shape[-1] - behind.sum(-1)


def target_ranks(values: Tensor) -> Tensor:
    """Return the ranks of values, 1 for the largest; equal values all get the largest of their ranks.

    Args:
        values: [..., T]. Returns int64[..., T].

    Source: Huang et al. (2022), CAMRL, its code's rankdata with method "min". Paper 2.

    >>> target_ranks(torch.tensor([5.0, 9.0, 5.0]))
    tensor([3, 1, 3])
    """
    return (values[..., None, :] >= values[..., :, None]).sum(-1)


def layer_similarity(layers: Tensor, task: int, *, kind: Similarity = "cosine") -> Tensor:
    """Return how alike the last layers of the tasks are to that of one task.

    "cosine" of the flattened layers; "sign": the entries of equal sign less those of opposite sign, which is what the
    reference code comes to.

    Args:
        layers: float[T, ...]. task: a row of it. Returns float[T].

    Source: Huang et al. (2022), CAMRL, and its code. Paper 2.

    Raises RivalsError: a task outside the layers, an unknown kind.

    >>> layer_similarity(torch.tensor([[1.0, 2.0], [-3.0, 1.0]]), 0, kind="sign")
    tensor([2., 0.])
    """
    flat = layers.detach().reshape(len(layers), -1)
    if not 0 <= task < len(flat):
        raise RivalsError(f"task must lie in 0..{len(flat) - 1}; got {task}")
    if kind == "sign":
        return (flat.sign() * flat[task].sign()).sum(-1)
    if kind != "cosine":
        raise RivalsError(f"kind must be 'cosine' or 'sign'; got {kind!r}")
    return torch.nn.functional.cosine_similarity(flat, flat[task][None], dim=-1)


def curriculum_terms(
    transfer: Tensor,
    losses: Tensor,
    task: int,
    *,
    weights: Tensor | None = None,
    layers: Tensor | None = None,
    earlier: Sequence[int] = (),
    untrained: Sequence[int] = (),
    prior_ranks: Tensor | None = None,
    mu1: float = 0.01,
    mu2: float = 0.0,
    scale: float = 200.0,
    shift: float = 0.01,
    similarity: Similarity = "cosine",
) -> CurriculumTerms:
    """Return the terms of a task's objective at the present transfer matrix B (row t: what task t lends to the others).

    With row b = B[t], soft ranks y of b and task losses l:
    train = (1 + mu1 sum_{j != t} |b_j|) l_t - mu2 sum_{j != t} b_j l_j;
    transfer = sum over the untrained s != t of |w_s - sum over earlier p of B[p, s] w_p - b_s w_t|^2;
    prior = sum_j (prior_j - y_j)^2 over the tasks with a prior rank; rank_loss and rank_similarity likewise, against
    the ranks of the losses (own loss + 1 first) and of the likeness of last layers (own + 100, so always first).

    Args:
        transfer: float[T, T]. losses: float[T], constants here. task: t. weights: float[T, ...], of the tasks; without
            them, or untrained tasks, `transfer` is 0. layers: float[T, ...], last layers; without them
            `rank_similarity` is 0. earlier: the tasks that the pass has done. untrained: those it has not; t itself is
            left out. prior_ranks: float[T], NaN where nothing is known; without them `prior` is 0.
        mu1, mu2: of the sum of lent shares and of the help to others. scale, shift: see `soft_rank`. similarity: see
            `layer_similarity`.

    Source: Huang et al. (2022), CAMRL, supplement and code. Paper 2. The code has mu2 = 0, stops the sum over earlier
    tasks one early and computes the ranking terms without gradient; here they have one.

    Raises RivalsError: fewer than two tasks, shapes that do not fit, a task out of range, losses that are not finite.

    >>> B = torch.eye(2)
    >>> terms = curriculum_terms(B, torch.tensor([1.0, 2.0]), 0, weights=torch.tensor([[1.0], [3.0]]), untrained=[1])
    >>> terms.train.item(), terms.transfer.item()
    (1.0, 9.0)
    """
    number = _check_tasks(transfer, losses, task, weights, layers, prior_ranks, (*earlier, *untrained))
    row, level = transfer[task], losses.detach().to(transfer)
    others = torch.arange(number, device=row.device) != task
    train = (1 + mu1 * row[others].abs().sum()) * level[task] - mu2 * (row[others] * level[others]).sum()
    ranks = soft_rank(row, scale=scale, shift=shift)
    zero = row.sum() * 0
    lent = zero
    waiting = [s for s in untrained if s != task]
    if weights is not None and waiting:
        flat = weights.detach().to(transfer).reshape(number, -1)
        done = list(earlier)
        rest = flat[waiting] - transfer[done][:, waiting].T @ flat[done]
        lent = (rest - row[waiting][:, None] * flat[task]).square().sum()
    first = torch.zeros_like(level)
    first[task] = 1.0

    def distance(wanted: Tensor) -> Tensor:
        known = ~wanted.isnan()
        return (torch.where(known, wanted, 0.0) - torch.where(known, ranks, 0.0)).square().sum()

    alike = zero
    if layers is not None:
        likeness = layer_similarity(layers.to(transfer), task, kind=similarity)
        alike = distance(target_ranks(likeness + 100 * first).to(ranks))
    return CurriculumTerms(
        train=train,
        transfer=lent,
        prior=zero if prior_ranks is None else distance(prior_ranks.to(ranks)),
        rank_loss=distance(target_ranks(level + first).to(ranks)),
        rank_similarity=alike,
    )


class TermHistory:
    """Weighs the terms of the objective by how much each has varied: sum_m term_m / std_m^2 + log prod_m std_m.

    The plain sum until three evaluations are kept. Standard deviations are of the population and constants of the
    gradient; a term whose deviation is not above 1e-6 counts plainly. Call it with the terms, and `add` them when the pass moves on.

    Source: Huang et al. (2022), CAMRL, its "uncertainty-based" weights. Paper 2. Its code weighs from the second
    evaluation, drops the prior term then and shares one history among all terms.

    >>> history = TermHistory()
    >>> terms = CurriculumTerms(*torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    >>> history(terms).item()
    15.0
    """

    def __init__(self) -> None:
        self.kept: list[tuple[float, ...]] = []

    def add(self, terms: CurriculumTerms) -> None:
        """Keep the values of the terms."""
        self.kept.append(tuple(float(term.detach()) for term in terms))

    def __call__(self, terms: CurriculumTerms) -> Tensor:
        """Return the weighted sum of the terms."""
        if len(self.kept) < 3:
            return terms.total()
        values = torch.stack(list(terms))
        spread = torch.tensor(self.kept, dtype=torch.float64).std(0, correction=0).clamp(min=1e-6).to(values)
        varying = spread > 1e-6
        weight = torch.where(varying, spread.square().reciprocal(), 1.0)
        return (weight * values).sum() + torch.where(varying, spread, 1.0).log().sum()


def switch_probability(
    losses: Tensor,
    normalised_losses: Tensor,
    round_number: int,
    *,
    n_std: float = 2.0,
    decay_rounds: float = 1000.0,
    decay_loss: float = 40.0,
) -> float:
    """Return the probability of a curriculum pass in this round; otherwise every task trains by itself.

    I = (#(l < m - n s) / T + #(l > m + n s) / T + exp(-round / decay_rounds) + exp(-mean(l') / decay_loss)) / 3 with m
    and s the mean and standard deviation of the losses: more when tasks stand out, early, and while losses are low. Not
    bounded by 1 where the normalised losses are far below 0; a draw below it then always passes.

    Args:
        losses: float[T]. normalised_losses: float[T], l', each standardised by its own history.

    Source: Huang et al. (2022), CAMRL, and its code. Paper 2.

    Raises RivalsError: fewer than two tasks, losses that are not finite or not of one shape, a decay not above 0.

    >>> round(switch_probability(torch.arange(10.0), torch.zeros(10), 10), 7)
    0.6633499
    """
    level, normalised = losses.detach().double(), normalised_losses.detach().double()
    if level.ndim != 1 or len(level) < 2 or normalised.shape != level.shape:
        raise RivalsError(f"two tasks or more need one loss each; got {tuple(level.shape)}, {tuple(normalised.shape)}")
    if not (torch.isfinite(level).all() and torch.isfinite(normalised).all()):
        raise RivalsError("the losses of all tasks must be finite")
    if not (decay_rounds > 0 and decay_loss > 0 and n_std >= 0):
        raise RivalsError("decay_rounds and decay_loss must be above 0, n_std 0 or more")
    band = n_std * level.std(correction=0)
    distance = (level - level.mean()).abs()
    outside = (distance > band + 1e-12 * level.abs().max()).double().mean()  # equal losses do not stand out
    return (
        float(outside) + math.exp(-round_number / decay_rounds) + math.exp(-float(normalised.mean()) / decay_loss)
    ) / 3


def frank_wolfe(
    objective: Callable[[Tensor], Tensor], start: Tensor, *, radius: float = 1.0, steps: int = 10
) -> Tensor:
    """Minimise a function over {x >= 0, sum(x) <= radius} by the Frank-Wolfe method.

    Step k moves 2 / (k + 2) of the way to the corner of the most negative gradient entry, or to 0 if no entry is
    negative; every point stays inside. Linear in the gradient, no projection.

    Args:
        objective: float[T] -> a number with gradient. start: float[T], inside.

    Source: Frank and Wolfe (1956); the supplement of Huang et al. (2022), CAMRL. Paper 2. The code instead steps every
    entry in [-0.05, 0.05] and clamps.

    Raises RivalsError: a start outside, a negative radius, a gradient that is not finite.

    >>> frank_wolfe(lambda x: ((x - torch.tensor([0.25, 0.5])) ** 2).sum(), torch.zeros(2), steps=2000).round(decimals=2)
    tensor([0.2500, 0.5000])
    """
    point = start.detach().clone()
    if not (math.isfinite(radius) and radius >= 0):
        raise RivalsError(f"radius must be finite and 0 or more; got {radius!r}")
    if point.ndim != 1 or not (point >= 0).all() or not float(point.sum()) <= radius * (1 + 1e-6):
        raise RivalsError(f"start must be one-dimensional, not negative and sum to at most {radius}")
    for step in range(steps):
        at = point.clone().requires_grad_(True)
        with torch.enable_grad():
            value = objective(at)
        slope = torch.autograd.grad(value, at, allow_unused=True)[0] if value.requires_grad else None
        if slope is None:
            return point
        if not torch.isfinite(slope).all():
            raise RivalsError("the objective has no finite gradient here")
        corner = torch.zeros_like(point)
        lowest = int(slope.argmin())
        if slope[lowest] < 0:
            corner[lowest] = radius
        point = point + 2 / (step + 2) * (corner - point)
    return point


def _check_tasks(
    transfer: Tensor,
    losses: Tensor,
    task: int,
    weights: Tensor | None,
    layers: Tensor | None,
    priors: Tensor | None,
    named: Sequence[int],
) -> int:
    number = len(losses)
    if number < 2 or losses.ndim != 1 or transfer.shape != (number, number):
        raise RivalsError(
            f"two tasks or more need losses [T] and a transfer matrix [T, T]; got {tuple(losses.shape)} and "
            f"{tuple(transfer.shape)}"
        )
    if not torch.isfinite(losses).all():
        raise RivalsError("the losses of all tasks must be finite")
    if not all(0 <= other < number for other in (task, *named)):
        raise RivalsError(f"tasks must lie in 0..{number - 1}; got {task} and {list(named)}")
    for name, given in (("weights", weights), ("layers", layers), ("prior_ranks", priors)):
        if given is not None and len(given) != number:
            raise RivalsError(f"{name} must have one row a task, {number}; got {len(given)}")
    return number
