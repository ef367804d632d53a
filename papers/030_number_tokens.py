"""Paper 30: cross entropy plus the number token loss against cross entropy alone, on written-out products.

A perceptron reads two numbers a (0..99) and b (0..9) digit by digit and writes the three digits of a b as tokens.
Learning rate and loss weight are chosen by validation, for exact answers and for the error's size separately.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from papers.common.claim import Higher, Paper
from papers.common.data import generator
from papers.common.training import batches, fit, mlp
from rivals.losses import cross_entropy_loss, number_token_loss

ARMS = {
    "cross entropy": [("wasserstein", 0.0)],
    "Wasserstein NTL": [("wasserstein", 0.3), ("wasserstein", 1.0)],
    "squared NTL": [("squared", 0.3), ("squared", 1.0)],
}
PLACES = torch.tensor([100, 10, 1])


def products(seed: int) -> tuple[Tensor, Tensor]:
    """Return one-hot digits [1000, 30] of every pair and the digits [1000, 3] of its product, in random order."""
    order = torch.randperm(1000, generator=generator(seed))
    digits = torch.stack([order // 100, order // 10 % 10, order % 10], 1)
    product = (order // 10) * (order % 10)
    return one_hot(digits, 10).flatten(1).float(), product[:, None] // PLACES % 10


def quality(logits: Tensor, digits: Tensor) -> tuple[float, float]:
    """Return the share of exact answers and the mean absolute error of the numbers written."""
    guess = logits.argmax(-1)
    error = ((guess - digits) * PLACES).sum(-1).abs().float()
    return float((error == 0).float().mean()), float(error.mean())


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Train every arm on 300 products, choose on 200, test on 500."""
    x, y = products(seed)
    figures: dict[str, float] = {}
    for arm, settings in ARMS.items():
        found = []
        for kind, weight in settings:
            for rate in (1e-3, 2e-3, 5e-3):
                model = mlp(30, 30, hidden=(128,), seed=seed)

                def loss(rows: Tensor, model=model, kind=kind, weight=weight) -> Tensor:  # type: ignore[no-untyped-def]
                    logits = model(x[rows]).view(-1, 3, 10)
                    total = cross_entropy_loss(logits.flatten(0, 1), y[rows].flatten())
                    return total + weight * number_token_loss(logits, y[rows], kind=kind) if weight else total

                fit(model, loss, batches(300, 32, seed=seed), steps=5 if smoke else 600, learning_rate=rate, seed=seed)
                with torch.no_grad():
                    logits = model(x).view(-1, 3, 10)
                found.append((quality(logits[300:500], y[300:500]), quality(logits[500:], y[500:])))
        figures[f"exact {arm}"] = max(found, key=lambda pair: pair[0][0])[1][0]
        figures[f"absolute error {arm}"] = min(found, key=lambda pair: pair[0][1])[1][1]
    return figures


PAPER = Paper(
    number=30,
    claim="Adding the number token loss to cross entropy lifts T5's accuracy on arithmetic texts.",
    expects=(
        Higher("exact Wasserstein NTL", "exact cross entropy"),
        Higher("absolute error cross entropy", "absolute error Wasserstein NTL"),
        Higher("absolute error squared NTL", "absolute error Wasserstein NTL"),
    ),
    data="300 products a b < 1000 to train, 200 to choose, 500 to test, MLP 128, 600 steps",
    run=run,
    notes="A perceptron on digits, not a language model. Errors: 'A > B' says that B's is smaller.",
)
