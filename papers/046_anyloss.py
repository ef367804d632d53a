"""Paper 46: the measure itself, made smooth, as the loss (AnyLoss) against cross entropy and squared error.

Three imbalanced tables, logistic regression; F1 and balanced accuracy at probability 0.5. Rate and amplification are
chosen by validation; cross entropy whose threshold is chosen on validation is the honest rival.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from papers.common.claim import Higher, Paper
from papers.common.classes import best_f1_threshold, choose, f1
from papers.common.data import tabular
from papers.common.training import batches, fit, mlp
from rivals.losses import binary_cross_entropy_loss, confusion_loss, squared_error_loss

SETS = ("phoneme", "mammography", "oil_spill")
Measure = Callable[[Tensor, Tensor], float]


def balanced_accuracy(scores: Tensor, labels: Tensor) -> float:
    """Return the mean of the rates of right positives and right negatives."""
    right = (scores > 0) == (labels > 0)
    return float((right[labels > 0].float().mean() + right[labels == 0].float().mean()) / 2)


def arms(measure: str) -> dict[str, list[Callable[[Tensor, Tensor], Tensor]]]:
    """Return the losses of every arm for a measure's name in `confusion_loss`."""
    return {
        "cross entropy": [binary_cross_entropy_loss],
        "squared error": [lambda s, y: squared_error_loss(torch.sigmoid(s), y)],
        "AnyLoss": [
            lambda s, y, a=a: confusion_loss(s, y, metric=measure, amplification=a)  # type: ignore[arg-type]
            for a in (10.0, 73.0)
        ],
    }


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Train every arm on every table, for each measure."""
    figures: dict[str, float] = {}
    measures: dict[str, tuple[str, Measure]] = {"F1": ("fbeta", f1), "BA": ("balanced_accuracy", balanced_accuracy)}
    for name in SETS:
        (x, y), (x_val, y_val), (x_test, y_test) = tabular(name, seed)
        for title, (metric, measure) in measures.items():
            for arm, losses in arms(metric).items():

                def train(
                    setting: tuple[Callable[[Tensor, Tensor], Tensor], float],
                    measure: Measure = measure,
                ) -> tuple[float, tuple[float, float]]:
                    loss, rate = setting
                    model = mlp(x.shape[1], 1, hidden=(), seed=seed)
                    value = fit(
                        model,
                        lambda rows: loss(model(x[rows]).T, y[rows][None].float()),
                        batches(len(x), 128, seed=seed),
                        steps=5 if smoke else 800,
                        learning_rate=rate,
                        validate=lambda: measure(model(x_val)[:, 0], y_val),
                        every=50,
                        seed=seed,
                    )
                    val, test = model(x_val).detach()[:, 0], model(x_test).detach()[:, 0]
                    return value or 0.0, (measure(test, y_test), f1(test, y_test, best_f1_threshold(val, y_val)))

                plain, tuned = choose(itertools.product(losses[:1] if smoke else losses, (5e-3, 2e-2)), train)
                figures[f"{title} {arm} ({name})"] = plain
                if (title, arm) == ("F1", "cross entropy"):
                    figures[f"F1 cross entropy, tuned threshold ({name})"] = tuned
    names = dict.fromkeys(key.rsplit(" (", 1)[0] for key in figures)
    return {arm: float(np.mean([figures[f"{arm} ({name})"] for name in SETS])) for arm in names} | figures


PAPER = Paper(
    number=46,
    claim="Training on the smoothed measure itself gives a higher measure than cross entropy or squared error on "
    "imbalanced tables (102 data sets).",
    expects=(
        Higher("F1 AnyLoss", "F1 cross entropy"),
        Higher("F1 AnyLoss", "F1 squared error"),
        Higher("BA AnyLoss", "BA cross entropy"),
        Higher("F1 AnyLoss", "F1 cross entropy, tuned threshold"),
    ),
    data="mean of phoneme, mammography and oil_spill (29, 2 and 4 % positives), logistic regression, 800 steps",
    run=run,
    notes="BA: balanced accuracy. Three tables instead of 102.",
)
