"""Paper 89: label-distributionally robust losses against cross entropy, error probability and GCE, with noisy labels.

BANKING77 questions as MiniLM vectors; 0 or 40 % of the training and validation labels are replaced by other classes
at random. Temperature and learning rate are chosen by accuracy on the noisy validation part; the test part is clean.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from papers.common.claim import Higher, Paper
from papers.common.classes import intents
from papers.common.data import generator
from papers.common.training import batches, choose, fit, mlp
from rivals.losses import (
    AdaptiveLDRLoss,
    cross_entropy_loss,
    generalized_cross_entropy_loss,
    ldr_loss,
    probability_error_loss,
)

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def adaptive(count: int, temperature: float) -> Loss:
    """Return ALDR-KL with temperatures for `count` training examples."""
    module = AdaptiveLDRLoss(count, temperature=temperature, normalize="softplus_l1")
    return lambda s, y, rows: module(s, y, rows)


def arms(count: int) -> dict[str, list[Callable[[], Loss]]]:
    """Return how to make the losses of every arm afresh."""
    return {
        "cross entropy": [lambda: lambda s, y, _: cross_entropy_loss(s, y.argmax(1))],
        "error probability": [lambda: lambda s, y, _: probability_error_loss(s, y)],
        "GCE": [lambda: lambda s, y, _: generalized_cross_entropy_loss(s, y)],
        "LDR": [
            lambda t=t: lambda s, y, _: ldr_loss(s, y, temperature=t, normalize="softplus_l1") for t in (0.1, 1.0, 10.0)
        ],
        "ALDR": [lambda t=t: adaptive(count, t) for t in (0.1, 1.0, 10.0)],
    }


def noisy(labels: Tensor, rate: float, classes: int, draw: torch.Generator) -> Tensor:
    """Replace a share of the labels by other classes."""
    other = (labels + torch.randint(1, classes, labels.shape, generator=draw)) % classes
    return torch.where(torch.rand(labels.shape, generator=draw) < rate, other, labels)


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Train every arm without and with noise."""
    (x, y_clean), (x_val, y_val_clean), (x_test, y_test) = intents(seed)
    classes = int(y_clean.max()) + 1
    figures: dict[str, float] = {}
    for rate in (0.0, 0.4):
        draw = generator(seed + 1000)
        y, y_val = (noisy(labels, rate, classes, draw) for labels in (y_clean, y_val_clean))
        targets = one_hot(y, classes).float()

        def train(
            setting: tuple[Callable[[], Loss], float], targets: Tensor = targets, y_val: Tensor = y_val
        ) -> tuple[float, Tensor]:
            loss, rate = setting[0](), setting[1]
            model = mlp(x.shape[1], classes, hidden=(64,), seed=seed)
            rows = batches(len(x), 64, seed=seed)
            steps = 5 if smoke else 600
            fit(model, lambda r: loss(model(x[r]), targets[r], r), rows, steps=steps, learning_rate=rate, seed=seed)
            with torch.no_grad():
                return float((model(x_val).argmax(1) == y_val).float().mean()), model(x_test)

        for arm, makers in arms(len(x)).items():
            scores = choose(itertools.product(makers[:1] if smoke else makers, (1e-3, 3e-3)), train)
            best = scores.topk(5).indices == y_test[:, None]
            figures[f"top-1 {arm} (noise {rate:g})"] = float(best[:, 0].float().mean())
            figures[f"top-5 {arm} (noise {rate:g})"] = float(best.any(1).float().mean())
    return figures


PAPER = Paper(
    number=89,
    claim="ALDR-KL has the best average rank among 13 losses on 7 data sets, clean and with noisy labels.",
    expects=(
        Higher("top-1 ALDR (noise 0.4)", "top-1 cross entropy (noise 0.4)"),
        Higher("top-1 ALDR (noise 0.4)", "top-1 GCE (noise 0.4)"),
        Higher("top-1 ALDR (noise 0.4)", "top-1 LDR (noise 0.4)"),
        Higher("top-5 ALDR (noise 0.4)", "top-5 cross entropy (noise 0.4)"),
        Higher("top-1 ALDR (noise 0)", "top-1 cross entropy (noise 0)"),
    ),
    data="3,003 BANKING77 questions, 77 classes, MiniLM vectors, MLP 64, 21 epochs, 40 % uniform label noise",
    run=run,
    notes="Temperatures 0.1, 1, 10, chosen on noisy validation labels.",
)
