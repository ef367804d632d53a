"""Paper 117: does weighting each similarity by its distance from its optimum help, and does it end at a definite point?

A small convnet is trained on Omniglot with circle loss, with the same loss without the weights (the unified loss) and
with batch-hard triplets; and 400 free pairs of similarities are moved by either loss until each pair's loss is small.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papers.common.claim import Above, Higher, Paper
from papers.common.data import generator
from papers.common.drawings import drawings, metric_encoder, recall_at_one
from papers.common.training import choose
from rivals.losses import circle_loss, in_batch_circle_loss, in_batch_triplet_loss, unified_pair_loss


def unified(vectors: Tensor, labels: Tensor, *, scale: float, margin: float) -> Tensor:
    """The unified loss of a labelled batch: circle loss with all weights 1."""
    unit = F.normalize(vectors, dim=1)
    others = ~torch.eye(len(labels), dtype=torch.bool)
    return unified_pair_loss(unit @ unit.T, (labels[:, None] == labels).float(), others, scale=scale, margin=margin)


METHODS: dict[str, tuple[Callable[[Tensor, Tensor, float], Tensor], tuple[tuple[float, float], ...]]] = {
    "circle": (lambda x, y, s: in_batch_circle_loss(x, y, scale=s), ((1e-3, 64), (3e-3, 64), (3e-3, 32))),
    "without the weights": (lambda x, y, s: unified(x, y, scale=s, margin=0.25), ((1e-3, 64), (3e-3, 64), (3e-3, 32))),
    "batch-hard triplet": (
        lambda x, y, m: in_batch_triplet_loss(x, y, margin=m, normalize=True),
        ((1e-3, 0.2), (3e-3, 0.2), (3e-3, 0.5)),
    ),
}


def ends(loss: Callable[..., Tensor], seed: int, steps: int) -> Tensor:
    """Return where 400 free pairs (s_p, s_n) stop: each is frozen once its own loss is below 0.05."""
    pairs, relevance = (
        torch.rand(400, 2, generator=generator(seed)) * 0.8 + 0.1,
        torch.tensor([1.0, 0.0]).expand(400, 2),
    )
    for _ in range(steps):
        pairs.requires_grad_()
        values = loss(pairs, relevance, scale=64.0, margin=0.25, reduction="none")
        (slope,) = torch.autograd.grad(values.sum(), pairs)
        pairs = torch.where((values > 0.05)[:, None], pairs - 2e-4 * slope, pairs).detach()
    return pairs


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return recall at 1 on new characters, and the spread of the positive similarities where training stops."""
    data, steps = drawings(seed), 2 if smoke else 100
    found = {}
    for name, (loss, settings) in METHODS.items():

        def train(
            setting: tuple[float, float], loss: Callable[[Tensor, Tensor, float], Tensor] = loss
        ) -> tuple[float, nn.Module]:
            rate, option = setting
            net = metric_encoder(lambda x, y: loss(x, y, option), data, seed=seed, steps=steps, learning_rate=rate)
            return recall_at_one(net, data.validation), net

        net = choose(settings[:1] if smoke else settings, train)
        found[f"R@1 {name}"] = recall_at_one(net, data.test)
    spread = [ends(loss, seed, 5 if smoke else 2000)[:, 0].var() for loss in (circle_loss, unified_pair_loss)]
    return {**found, "spread of end points removed": float(1 - spread[0] / spread[1])}


PAPER = Paper(
    number=117,
    claim="Weighting each similarity by its distance from its optimum gives better retrieval (Market-1501 R@1 94.2 to "
    "96.1) and a definite point of convergence.",
    expects=(
        Higher("R@1 circle", "R@1 without the weights"),
        Higher("R@1 circle", "R@1 batch-hard triplet"),
        Above("spread of end points removed", margin=0.5),
    ),
    data="Omniglot 21 x 21, 109 characters to train, 106 new ones (2,120 drawings) to test, convnet, 100 steps; 400 "
    "free pairs of similarities",
    run=run,
    notes="Margin 0.25; learning rate with scale (or the triplets' margin) from three settings on 27 held-out characters. "
    "The last comparison has no data: it moves free similarities by gradient descent, 2,000 steps of 2e-4.",
)
