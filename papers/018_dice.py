"""Paper 18: dice loss against cross entropy and focal loss where positives are few.

Three imbalanced tables, logistic regression, F1 at probability 0.5; rate, focal gamma and dice alpha are chosen by
validation F1. Cross entropy whose threshold is chosen on validation is the honest rival.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from torch import Tensor

from papers.common.claim import Higher, Paper
from papers.common.classes import best_f1_threshold, choose, f1
from papers.common.data import tabular
from papers.common.training import batches, fit, mlp
from rivals.losses import binary_cross_entropy_loss, dice_loss, sigmoid_focal_loss

SETS = ("phoneme", "mammography", "oil_spill")
ARMS: dict[str, list[Callable[[Tensor, Tensor], Tensor]]] = {
    "cross entropy": [binary_cross_entropy_loss],
    "focal": [lambda s, y, g=g: sigmoid_focal_loss(s, y, gamma=g, alpha=a) for g in (1.0, 2.0) for a in (None,)],
    "dice of examples": [lambda s, y, a=a: dice_loss(s, y, level="candidate", alpha=a) for a in (0.0, 0.6)],
    "dice of the batch": [lambda s, y, a=a: dice_loss(s, y, level="set", alpha=a) for a in (0.0, 0.6)],
}


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Train every arm on every table."""
    figures: dict[str, float] = {}
    for name in SETS:
        (x, y), (x_val, y_val), (x_test, y_test) = tabular(name, seed)
        for arm, losses in ARMS.items():

            def train(setting: tuple[Callable[[Tensor, Tensor], Tensor], float]) -> tuple[float, tuple[float, float]]:
                loss, rate = setting
                model = mlp(x.shape[1], 1, hidden=(), seed=seed)
                value = fit(
                    model,
                    lambda rows: loss(model(x[rows]).T, y[rows][None].float()),
                    batches(len(x), 128, seed=seed),
                    steps=5 if smoke else 1000,
                    learning_rate=rate,
                    validate=lambda: f1(model(x_val)[:, 0], y_val),
                    every=50,
                    seed=seed,
                )
                val, test = model(x_val).detach()[:, 0], model(x_test).detach()[:, 0]
                return value or 0.0, (f1(test, y_test), f1(test, y_test, best_f1_threshold(val, y_val)))

            plain, tuned = choose(itertools.product(losses[:1] if smoke else losses, (5e-3, 2e-2)), train)
            figures[f"F1 {arm} ({name})"] = plain
            if arm == "cross entropy":
                figures[f"F1 cross entropy, tuned threshold ({name})"] = tuned
    arms = dict.fromkeys(key.rsplit(" (", 1)[0] for key in figures)
    return {arm: float(np.mean([figures[f"{arm} ({name})"] for name in SETS])) for arm in arms} | figures


PAPER = Paper(
    number=18,
    claim="The dice loss lifts F1 on imbalanced language data above cross entropy and focal loss (CoNLL03 93.04 -> 93.33).",
    expects=(
        Higher("F1 dice of the batch", "F1 cross entropy"),
        Higher("F1 dice of the batch", "F1 focal"),
        Higher("F1 dice of examples", "F1 cross entropy"),
        Higher("F1 dice of the batch", "F1 cross entropy, tuned threshold"),
    ),
    data="mean of phoneme, mammography and oil_spill (29, 2 and 4 % positives), logistic regression, 1000 steps",
    run=run,
    notes="Tables instead of tagged text. The paper's own form is the dice of examples; the dice of the batch is ours.",
)
