"""Paper 25: do a prototype triplet or the nearest-neighbour (ICNN) loss beside cross entropy help few-shot episodes?

A prototypical network is trained on 10-way 1-shot episodes of Omniglot characters with each loss and tested on 5-way
1-shot episodes of new characters; the learning rate of each comes from episodes of held-out characters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from papers.common.claim import Higher, Paper
from papers.common.drawings import drawings, embedded, picture_encoder
from papers.common.training import choose, class_batches, fit
from rivals.losses import class_prototypes, cross_entropy_loss, icnn_loss, proto_triplet_loss

WIDTH, SHOT, QUERY = 64, 1, 5


def split(vectors: Tensor, way: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return support and queries of an episode [way * (SHOT + QUERY), D], each with its labels."""
    parts = vectors.view(way, SHOT + QUERY, -1)
    labels = torch.arange(way)
    support, queries = parts[:, :SHOT].flatten(0, 1), parts[:, SHOT:].flatten(0, 1)
    return support, labels.repeat_interleave(SHOT), queries, labels.repeat_interleave(QUERY)


def episode_loss(vectors: Tensor, kind: str, way: int) -> Tensor:
    """Cross entropy over distances to the prototypes, alone or averaged with an auxiliary loss."""
    support, support_labels, queries, labels = split(vectors, way)
    prototypes, classes = class_prototypes(support, support_labels)
    loss = cross_entropy_loss(-torch.cdist(queries, prototypes).square() / 16, labels)
    if kind == "prototype triplet":
        extra = proto_triplet_loss(queries, prototypes, query_groups=labels, document_groups=classes)
        return (loss + extra) / 2
    if kind == "ICNN":
        everything = torch.cat([support, queries]), torch.cat([support_labels, labels])
        return (loss + icnn_loss(*everything, neighbours=SHOT + QUERY)) / 2
    return loss


def accuracy(net: nn.Module, part: tuple[Tensor, Tensor], episodes: int, seed: int) -> float:
    """Return the share of queries nearest to their own prototype in 5-way 1-shot episodes."""
    vectors, right = embedded(net, part[0]), []
    rows = class_batches(part[1], classes=5, each=SHOT + QUERY, seed=seed)
    for _ in range(episodes):
        support, _, queries, labels = split(vectors[next(rows)], 5)
        right.append((torch.cdist(queries, support).argmin(1) == labels).float().mean())
    return float(torch.stack(right).mean())


def run(seed: int, smoke: bool) -> dict[str, float]:
    """Return the accuracy on new characters with each loss."""
    data = drawings(seed)
    pictures, labels = data.train
    steps, episodes, way = (2, 5, 10) if smoke else (120, 400, 10)

    def trainer(kind: str) -> Callable[[float], tuple[float, nn.Module]]:
        def train(rate: float) -> tuple[float, nn.Module]:
            net = picture_encoder(WIDTH, pictures, seed=seed)
            rows = class_batches(labels, classes=way, each=SHOT + QUERY, seed=seed)
            fit(net, lambda r: episode_loss(net(pictures[r]), kind, way), rows, steps=steps, learning_rate=rate)
            return accuracy(net, data.validation, episodes, seed), net

        return train

    rates = (1e-3,) if smoke else (1e-3, 3e-3)
    return {
        f"accuracy with {kind}": accuracy(choose(rates, trainer(kind)), data.test, episodes, seed)
        for kind in ("cross entropy", "prototype triplet", "ICNN")
    }


PAPER = Paper(
    number=25,
    claim="The prototype triplet and ICNN losses beside cross entropy add about two points to few-shot accuracy on "
    "miniImageNet over other metric-based methods.",
    expects=(
        Higher("accuracy with ICNN", "accuracy with cross entropy"),
        Higher("accuracy with prototype triplet", "accuracy with cross entropy"),
        Higher("accuracy with ICNN", "accuracy with cross entropy", margin=0.01),
    ),
    data="Omniglot 21 x 21, 109 characters to train, 106 new ones to test, convnet, 120 episodes 10-way 1-shot, 400 "
    "test episodes 5-way 1-shot",
    run=run,
    notes="The ICNN loss looks at support and queries together. Learning rate of each from two on 27 held-out characters.",
)
