"""Unlearning a digit: a classifier that knows ten is made to forget one, and what that does to the other nine."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from papers.common.data import digits
from papers.common.training import batches, fit, mlp
from rivals.losses import cross_entropy_loss, unlearning_loss

FORGOTTEN = 3


def log_probabilities(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the log probability of every example's label."""
    return model(x).log_softmax(-1).gather(1, y[:, None])[:, 0]


def forget_a_digit(seed: int, smoke: bool, arms: Mapping[str, tuple[str, float]]) -> dict[str, float]:
    """Train once, then forget by every arm (kind of `unlearning_loss`, beta) from the same weights.

    Returns the accuracy on the other digits before, and on both after 30 and 1,000 steps of SGD 0.1 without retain term.
    """
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
    for arm, (kind, beta) in arms.items():
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
