"""Paper 33: a learnt link (LegendreTron) against the softmax link, on the same linear scores.

BANKING77 questions as MiniLM vectors, 77 intents, one score less than classes; learning rate, weight decay and the
step to keep are chosen by validation likelihood for both.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from papers.common.claim import Higher, Paper
from papers.common.classes import intents
from papers.common.data import generator
from papers.common.training import batches, choose, fit, mlp
from rivals.losses import LearnedLink, cross_entropy_loss, learned_link_loss


class Softmax(nn.Module):
    """The link of plain logistic regression: a last score of 0."""

    def forward(self, scores: Tensor) -> Tensor:
        """Return log probabilities of one class more."""
        return nn.functional.pad(scores, (0, 1)).log_softmax(-1)


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Train both links."""
    (x, y), (x_val, y_val), (x_test, y_test) = intents(seed)
    classes = int(y.max()) + 1

    def train(setting: tuple[float, float], learnt: bool) -> tuple[float, tuple[float, float]]:
        rate, decay = setting
        model = mlp(x.shape[1], classes - 1, hidden=(), seed=seed)
        link = LearnedLink(classes, generator=generator(seed)) if learnt else Softmax()

        def loss(rows: Tensor) -> Tensor:
            scores, weights = model(x[rows]), list(model.parameters())
            if isinstance(link, LearnedLink):
                return learned_link_loss(scores, y[rows], link=link, weight_decay=decay, decayed=weights)
            return cross_entropy_loss(link(scores), y[rows]) + decay / 2 * sum(w.square().sum() for w in weights)

        def held() -> float:
            return -float(cross_entropy_loss(link(model(x_val)), y_val))

        steps, rows = 5 if smoke else 500, batches(len(x), 64, seed=seed)
        value = fit([model, link], loss, rows, steps=steps, learning_rate=rate, validate=held, every=50, seed=seed)
        with torch.no_grad():
            found = link(model(x_test))
            right = float((found.argmax(1) == y_test).float().mean())
            return value or 0.0, (right, float(cross_entropy_loss(found, y_test)))

    figures: dict[str, float] = {}
    for arm, learnt in (("softmax link", False), ("learnt link", True)):
        settings = itertools.product((1e-3, 5e-3), (1e-4, 1e-3))
        found = choose(settings, lambda setting, learnt=learnt: train(setting, learnt))
        figures[f"accuracy {arm}"], figures[f"NLL {arm}"] = found
    return figures


PAPER = Paper(
    number=33,
    claim="A learnt link beats multinomial logistic regression on every data set of more than ten classes.",
    expects=(
        Higher("accuracy learnt link", "accuracy softmax link"),
        Higher("NLL softmax link", "NLL learnt link"),
    ),
    data="3,003 BANKING77 questions, 77 classes, MiniLM vectors, linear scores, 500 steps",
    run=run,
    notes="NLL: 'A > B' says that B's is lower.",
)
