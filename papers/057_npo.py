"""Paper 57: forgetting a class by negative preference optimisation (NPO) against gradient ascent.

A perceptron knows all ten digits; the images of digit 3 are to be forgotten, with no retain term. Measured is the
accuracy on the other nine digits after few and after many steps, when digit 3 is forgotten either way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from papers.common.claim import Higher, Paper
from papers.common.data import digits
from papers.common.training import batches, fit, mlp
from rivals.losses import cross_entropy_loss, unlearning_loss

ARMS = {"gradient ascent": ("gradient_ascent", 1.0), "NPO": ("npo", 1.0), "NPO, beta 0.1": ("npo", 0.1)}
FORGOTTEN = 3


def log_probabilities(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the log probability of every example's label."""
    return model(x).log_softmax(-1).gather(1, y[:, None])[:, 0]


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Train once, then forget by every method from the same weights."""
    (x, y), _, (x_test, y_test) = digits(seed)
    model = mlp(64, 10, hidden=(128,), seed=seed)
    steps = 20 if smoke else 400
    fit(model, lambda r: cross_entropy_loss(model(x[r]), y[r]), batches(len(x), len(x), seed=seed), steps=steps)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    forget, kept = y == FORGOTTEN, y_test != FORGOTTEN
    reference = log_probabilities(model, x[forget], y[forget]).detach()
    figures = {}

    def accuracy(rows: Tensor) -> float:
        with torch.no_grad():
            return float((model(x_test[rows]).argmax(1) == y_test[rows]).float().mean())

    figures["others before"] = accuracy(kept)
    for arm, (kind, beta) in ARMS.items():
        model.load_state_dict(start)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        lengths = torch.ones(int(forget.sum()))
        for step in range(1, 1001):
            optimiser.zero_grad()
            found = log_probabilities(model, x[forget], y[forget])
            if found.isfinite().all():
                unlearning_loss(found, reference, lengths, forget=kind, beta=beta).backward()  # type: ignore[arg-type]
                optimiser.step()
            if step in (30, 1000):
                figures[f"others after {step} steps, {arm}"] = accuracy(kept)
                figures[f"forgotten digit after {step} steps, {arm}"] = accuracy(~kept)
            if smoke and step == 30:
                figures[f"others after 1000 steps, {arm}"] = accuracy(kept)
                break
    return figures


PAPER = Paper(
    number=57,
    claim="NPO forgets without the collapse of gradient ascent, whose damage grows faster.",
    expects=(
        Higher("others after 30 steps, NPO", "others after 30 steps, gradient ascent", margin=0.5),
        Higher("others after 1000 steps, NPO", "others after 1000 steps, gradient ascent", margin=0.5),
        Higher("others after 30 steps, NPO, beta 0.1", "others after 30 steps, gradient ascent"),
    ),
    data="digits: accuracy on nine digits while the tenth is forgotten, MLP 128, SGD 0.1, no retain term",
    run=run,
    notes="A classifier, not a language model; step size and margin of 0.5 were fixed beforehand. Ascent stops where log "
    "probabilities overflow; stopping it early, or a smaller step, was not tried.",
)
