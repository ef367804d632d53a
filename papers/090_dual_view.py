"""Paper 90: momentum contrast with both views as anchors, and with the hardest part of the queue as the only negatives.

A small convnet learns from moved views of Omniglot drawings without labels: MoCo, the dual view with all, half and a
tenth of the queue. Test: nearest neighbours among drawings of new characters.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from papers.common.claim import Higher, Paper
from papers.common.data import generator
from papers.common.drawings import SlowCopy, drawings, moved, recall_at_one, two_views
from papers.common.training import batches, choose, fit
from rivals.losses import FeatureQueue, dual_view_contrast_loss, momentum_contrast_loss

ARMS: dict[str, float | None] = {"MoCo": None, "dual": None, "dual, keep 0.5": 0.5, "dual, keep 0.1": 0.1}


def encoder(pictures: Tensor, seed: int, steps: int, temperature: float, arm: str) -> nn.Module:
    """Train from the same weights, batches and moves whatever the arm."""
    model = two_views(pictures, 32, seed=seed)
    net = nn.Sequential(model.body, model.head)
    slow, queue, draw = SlowCopy(net), FeatureQueue(512, 32), generator(seed)

    def loss(rows: Tensor) -> Tensor:
        slow.follow()
        first, second = moved(pictures[rows], draw), moved(pictures[rows], draw)
        keys, bank = slow.keys(second), queue.rows()
        queries = F.normalize(net(first))
        if arm == "MoCo":
            found = momentum_contrast_loss(queries, keys, bank, temperature=temperature, normalize=False)
        else:
            found = dual_view_contrast_loss(
                queries,
                keys,
                bank,
                second_queries=F.normalize(net(second)),
                second_keys=slow.keys(first),
                temperature=temperature,
                keep=ARMS[arm],
                normalize=False,
            )
        queue.enqueue(keys)
        return found

    whole = (rows for rows in batches(len(pictures), 64, seed=seed) if len(rows) == 64)
    next_rows = next(whole)
    queue.enqueue(slow.keys(moved(pictures[next_rows], draw)))  # the first step has negatives too
    fit(net, loss, whole, steps=steps)
    return model.body


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return recall at 1 on new characters for every arm, its temperature chosen on held-out characters."""
    data, steps, found = drawings(seed), 4 if smoke else 150, {}
    for arm in ARMS:

        def train(temperature: float, arm: str = arm) -> tuple[float, nn.Module]:
            net = encoder(data.train[0], seed, steps, temperature, arm)
            return recall_at_one(net, data.validation), net

        found[f"R@1 {arm}"] = recall_at_one(choose((0.2,) if smoke else (0.1, 0.2), train), data.test)
    return found


PAPER = Paper(
    number=90,
    claim="Anchoring on both views and keeping only the most similar queue negatives beats momentum contrast.",
    expects=(
        Higher("R@1 dual, keep 0.5", "R@1 MoCo"),
        Higher("R@1 dual", "R@1 MoCo"),
        Higher("R@1 dual, keep 0.1", "R@1 dual", margin=-0.005),
    ),
    data="Omniglot 21 x 21 without labels, 109 characters to train, 106 new ones (2,120 drawings) to test, convnet, queue "
    "of 512, 150 steps of 64 drawings",
    run=run,
    notes="Momentum 0.99; temperature of each from 0.1 and 0.2 by 27 held-out characters. The dual view takes two passes a "
    "step where MoCo takes one: equal steps, not equal time. 150 steps show early training only.",
)
