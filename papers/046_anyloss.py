"""Paper 46: the measure itself, made smooth, as the loss (AnyLoss) against cross entropy and squared error.

Three imbalanced tables, logistic regression; F1 and balanced accuracy at probability 0.5. Rate and amplification are
chosen by validation; cross entropy whose threshold is chosen on validation is the honest rival.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from papers.common.claim import Higher, Paper
from papers.common.classes import best_f1_threshold, best_model, f1
from papers.common.data import tabular
from rivals.losses import binary_cross_entropy_loss, confusion_loss, squared_error_loss

SETS = ("phoneme", "mammography", "oil_spill")
TUNED = "F1 cross entropy, tuned threshold"


def balanced_accuracy(scores: Tensor, labels: Tensor) -> float:
    """Return the mean of the rates of right positives and right negatives."""
    right = (scores > 0) == (labels > 0)
    return float((right[labels > 0].float().mean() + right[labels == 0].float().mean()) / 2)


def tuned_f1(scores: Tensor, labels: Tensor) -> float:
    """Return F1 at its best threshold."""
    return f1(scores, labels, best_f1_threshold(scores[:, 0], labels[:, 0]))


def squared(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the squared error of probabilities."""
    return squared_error_loss(torch.sigmoid(scores), labels)


def any_f1(amplification: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return AnyLoss for F1."""
    return lambda s, y: confusion_loss(s, y, metric="fbeta", amplification=amplification)


def any_balanced(amplification: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return AnyLoss for balanced accuracy."""
    return lambda s, y: confusion_loss(s, y, metric="balanced_accuracy", amplification=amplification)


ARMS: dict[str, tuple[list[Callable[[Tensor, Tensor], Tensor]], Callable[[Tensor, Tensor], float]]] = {
    "F1 cross entropy": ([binary_cross_entropy_loss], f1),
    TUNED: ([binary_cross_entropy_loss], tuned_f1),
    "F1 squared error": ([squared], f1),
    "F1 AnyLoss": ([any_f1(10), any_f1(73)], f1),
    "BA cross entropy": ([binary_cross_entropy_loss], balanced_accuracy),
    "BA squared error": ([squared], balanced_accuracy),
    "BA AnyLoss": ([any_balanced(10), any_balanced(73)], balanced_accuracy),
}


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Train every arm on every table, for each measure."""
    figures: dict[str, float] = {}
    for name in SETS:
        split = tabular(name, seed)
        split = type(split)(*((x, y[:, None].float()) for x, y in split))
        (x_val, y_val), (x_test, y_test) = split[1:]
        for arm, (losses, measure) in ARMS.items():
            model = best_model(
                split,
                losses[:1] if smoke else losses,
                measure,
                out=1,
                rates=(5e-3, 2e-2),
                seed=seed,
                steps=5 if smoke else 400,
                hidden=(),
                size=128,
            )
            threshold = best_f1_threshold(model(x_val)[:, 0], y_val[:, 0])
            test = model(x_test)
            figures[f"{arm} ({name})"] = f1(test, y_test, threshold) if arm == TUNED else measure(test, y_test)
    return {arm: float(np.mean([figures[f"{arm} ({name})"] for name in SETS])) for arm in ARMS} | figures


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
    data="mean of phoneme, mammography and oil_spill (29, 2 and 4 % positives), logistic regression, 400 steps",
    run=run,
    notes="BA: balanced accuracy. Three tables instead of 102.",
)
