"""Paper 109: dual focal loss against cross entropy and focal loss, for calibration.

BANKING77 questions as MiniLM vectors, a perceptron, no early stopping (it hides overconfidence); learning rate and
gamma are chosen by validation ECE. ECE with 15 bins on test, before and after temperature scaling on validation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from papers.common.claim import Higher, Paper
from papers.common.classes import calibration, intents
from papers.common.training import batches, choose, fit, mlp
from rivals.losses import TemperatureScaling, cross_entropy_loss, dual_focal_loss, focal_loss

GAMMAS = (1.0, 3.0, 5.0)
ARMS: dict[str, list[Callable[[Tensor, Tensor], Tensor]]] = {
    "cross entropy": [cross_entropy_loss],
    "focal": [lambda s, y, g=g: focal_loss(s, y, gamma=g) for g in GAMMAS],
    "dual focal": [lambda s, y, g=g: dual_focal_loss(s, one_hot(y, s.shape[1]).float(), gamma=g) for g in GAMMAS],
}


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Train every arm; figures at the chosen setting, and signed gaps at gamma 3."""
    (x, y), (x_val, y_val), (x_test, y_test) = intents(seed)
    classes = int(y.max()) + 1
    figures: dict[str, float] = {}

    def train(setting: tuple[Callable[[Tensor, Tensor], Tensor], float]) -> tuple[float, dict[str, float]]:
        loss, rate = setting
        model = mlp(x.shape[1], classes, hidden=(128,), seed=seed)
        rows = batches(len(x), 64, seed=seed)
        fit(model, lambda r: loss(model(x[r]), y[r]), rows, steps=5 if smoke else 840, learning_rate=rate, seed=seed)
        with torch.no_grad():
            val, test = model(x_val), model(x_test)
        scaling = TemperatureScaling().fit(val, one_hot(y_val, classes).float())
        error, gap = calibration(test.log_softmax(-1), y_test)
        found = {
            "ECE": error,
            "gap": gap,
            "ECE scaled": calibration(scaling(test).detach().log_softmax(-1), y_test)[0],
            "NLL": float(cross_entropy_loss(test, y_test)),
            "accuracy": float((test.argmax(1) == y_test).float().mean()),
        }
        return -calibration(val.log_softmax(-1), y_val)[0], found

    for arm, losses in ARMS.items():
        found = choose(itertools.product(losses[:1] if smoke else losses, (1e-3, 3e-3)), train)
        figures |= {f"{name} {arm}": value for name, value in found.items()}
    return figures


PAPER = Paper(
    number=109,
    claim="Dual focal loss gives the lowest calibration error, against cross entropy, focal loss and others, before "
    "and after temperature scaling.",
    expects=(
        Higher("ECE focal", "ECE dual focal"),
        Higher("ECE cross entropy", "ECE dual focal"),
        Higher("ECE scaled focal", "ECE scaled dual focal"),
        Higher("ECE scaled cross entropy", "ECE scaled dual focal"),
        Higher("accuracy dual focal", "accuracy cross entropy"),
    ),
    data="3,003 BANKING77 questions, 77 classes, MiniLM vectors, MLP 128, 30 epochs",
    run=run,
    notes="Calibration error: 'A > B' says that B's is lower. Gap: confidence minus accuracy.",
)
