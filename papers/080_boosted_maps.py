"""Paper 80: BoostLU (positive evidence of places times five) and rejection of large losses, with one known positive.

Pictures of four digits in a 2 x 2 grid, labels the digits that are there, of which training knows one. The
share rejected an epoch and the step to keep are chosen by mAP on a fully labelled validation part.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from papers.common.claim import Higher, Paper
from papers.common.classes import label_map
from papers.common.data import digits, generator
from papers.common.training import batches, choose, fit
from rivals.losses import binary_cross_entropy_loss, boosted_pool, large_loss_fraction, large_loss_modification_loss

EPOCHS, SIZE = 12, 64
ARMS = {
    "assume negative": (1.0, (0.0,)),
    "BoostLU": (5.0, (0.0,)),
    "rejection": (1.0, (0.005, 0.02)),
    "rejection and BoostLU": (5.0, (0.005, 0.02)),
}


def mosaics(x: Tensor, y: Tensor, count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return pictures [count, 1, 16, 16] of four digits each and which digits they show [count, 10]."""
    chosen = torch.randint(len(x), (count, 4), generator=draw)
    tiles = x[chosen].view(count, 2, 2, 8, 8)
    return tiles.permute(0, 1, 3, 2, 4).reshape(count, 1, 16, 16), one_hot(y[chosen], 10).amax(1).float()


def network(seed: int) -> nn.Sequential:
    """Return a small convolutional network with a map of scores for every label."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()]
        return nn.Sequential(*first, nn.Conv2d(32, 10, 1))


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Train every arm."""
    draw = generator(seed + 1000)
    (x, full), (x_val, y_val), (x_test, y_test) = (
        mosaics(*part, count, draw) for part, count in zip(digits(seed), (1500, 500, 800), strict=True)
    )
    known = (torch.rand(full.shape, generator=draw) * full).argmax(1)
    single, each = one_hot(known, 10).float(), -(-len(x) // SIZE)

    def train(setting: tuple[float, float], alpha: float, y: Tensor) -> tuple[float, float]:
        delta, rate = setting
        model, step = network(seed), itertools.count()

        def scores(pictures: Tensor) -> Tensor:
            return boosted_pool(model(pictures).flatten(2), alpha=alpha)

        def loss(rows: Tensor) -> Tensor:
            epoch = next(step) // each + 1
            if not delta:
                return binary_cross_entropy_loss(scores(x[rows]), y[rows])
            fraction = min(large_loss_fraction(epoch, scheme="reject", delta=delta), 0.25)
            return large_loss_modification_loss(scores(x[rows]), y[rows], fraction=fraction)

        value = fit(
            model,
            loss,
            batches(len(x), SIZE, seed=seed),
            steps=5 if smoke else EPOCHS * each,
            learning_rate=rate,
            validate=lambda: label_map(scores(x_val), y_val),
            every=each,
            seed=seed,
        )
        return value or 0.0, label_map(scores(x_test).detach(), y_test)

    figures = {"mAP all labels": train((0.0, 3e-3), 1.0, full)[1]}
    for arm, (alpha, deltas) in ARMS.items():
        settings = itertools.product(deltas[:1] if smoke else deltas, (3e-3,))
        figures[f"mAP {arm}"] = choose(settings, lambda setting, alpha=alpha: train(setting, alpha, single))
    return figures


PAPER = Paper(
    number=80,
    claim="With one known positive an image, BoostLU with rejection of large losses beats rejection alone and assuming "
    "negatives by far (VOC, COCO, NUS-WIDE, CUB).",
    expects=(
        Higher("mAP rejection and BoostLU", "mAP assume negative"),
        Higher("mAP rejection and BoostLU", "mAP rejection"),
        Higher("mAP rejection", "mAP assume negative"),
        Higher("mAP BoostLU", "mAP assume negative"),
    ),
    data="1,500 mosaics of four digits, one label known, convolutions of 16 and 32 channels from scratch, 12 epochs",
    run=run,
    notes="No pretrained backbone; learning rate 3e-3 for all.",
)
