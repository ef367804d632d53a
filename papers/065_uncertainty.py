"""Paper 65: losses weighted by a learnt uncertainty each, against equal and other fixed weights.

Digits with three tasks of very different scale: the class, the mean ink times 1000, the share of ink in the upper
half times 0.01. The learning rate is chosen by the validation mean of accuracy and the two coefficients R2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from papers.common.claim import Higher, Paper
from papers.common.data import digits
from papers.common.training import batches, choose, fit, mlp
from rivals.losses import FixedWeighting, UncertaintyWeighting, cross_entropy_loss, squared_error_loss


def targets(x: Tensor) -> Tensor:
    """Return the two numbers to predict."""
    ink = x.view(-1, 8, 8)
    return torch.stack([ink.mean((1, 2)) * 1000, ink[:, :4].sum((1, 2)) / ink.sum((1, 2)) * 0.01], 1)


def explained(guess: Tensor, truth: Tensor) -> Tensor:
    """Return R2 of every column, not below -1."""
    return (1 - (guess - truth).square().sum(0) / (truth - truth.mean(0)).square().sum(0)).clamp(min=-1)


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Train with every weighting and the class alone."""
    split = digits(seed)
    centre = targets(split.train[0]).mean(0)
    parts = [(x, y, targets(x) - centre) for x, y in split]
    (x, y, t), held, test = parts
    spread = torch.cat([torch.ones(1), 1 / t.var(0)])
    makers: dict[str, Callable[[], nn.Module]] = {
        "equal": lambda: FixedWeighting(3),
        "by variance": lambda: FixedWeighting(3, weights=spread),
        "uncertainty": lambda: UncertaintyWeighting(
            3, kinds=["classification", "regression", "regression"], clamp=(-20.0, 20.0)
        ),
        "class alone": lambda: FixedWeighting(3, weights=torch.tensor([1.0, 0.0, 0.0])),
    }

    def quality(model: nn.Module, part: Sequence[Tensor]) -> list[float]:
        out = model(part[0])
        right = float((out[:, :10].argmax(1) == part[1]).float().mean())
        return [right, *explained(out[:, 10:], part[2]).tolist()]

    figures: dict[str, float] = {}
    for arm, maker in makers.items():

        def train(rate: float, maker: Callable[[], nn.Module] = maker, arm: str = arm) -> tuple[float, list[float]]:
            model, weighting = mlp(64, 12, hidden=(64,), seed=seed), maker()

            def loss(rows: Tensor) -> Tensor:
                out = model(x[rows])
                regressions = [squared_error_loss(out[:, 10 + k, None], t[rows, k, None]) for k in range(2)]
                total = weighting([cross_entropy_loss(out[:, :10], y[rows]), *regressions])
                assert isinstance(total, Tensor)
                return total

            steps = 5 if smoke else 1500
            fit([model, weighting], loss, batches(len(x), 64, seed=seed), steps=steps, learning_rate=rate, seed=seed)
            with torch.no_grad():
                value = quality(model, held)
                return value[0] if arm == "class alone" else sum(value), quality(model, test)

        found = choose((3e-3, 1e-2, 3e-2), train)
        figures[f"accuracy {arm}"] = found[0]
        if arm != "class alone":
            figures |= {f"R2 ink {arm}": found[1], f"R2 upper share {arm}": found[2], f"mean {arm}": sum(found) / 3}
    return figures


PAPER = Paper(
    number=65,
    claim="Weights from learnt uncertainty beat equal weights, tuned weights and single tasks (CityScapes, IoU 63.4 % "
    "against 50.1, 62.8 and 59.4).",
    expects=(
        Higher("mean uncertainty", "mean equal"),
        Higher("mean uncertainty", "mean by variance"),
        Higher("accuracy uncertainty", "accuracy equal"),
        Higher("accuracy uncertainty", "accuracy class alone"),
    ),
    data="digits: class, mean ink x 1000, upper half's share of ink x 0.01, MLP 64, 1500 steps",
    run=run,
    notes="'mean' is that of accuracy and the two R2 (at least -1); 'by variance' divides each regression by its variance.",
)
