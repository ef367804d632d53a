"""Omniglot drawings for the metric-learning and self-supervised scripts: splits by character, moved views, measures."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papers.common.data import characters, generator
from papers.common.training import batches, class_batches, convnet, fit, nearest_same_class
from rivals.losses import in_batch_info_nce_loss


class Drawings(NamedTuple):
    """Drawings [N, 1, 21, 21] and their characters: 109 to train on, 27 to choose settings by, 106 to test on."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def drawings(seed: int) -> Drawings:
    """Split the training characters in two at random; the test characters are the new ones of every seed."""
    (pictures, labels), test = characters()
    kinds = labels.unique()
    held = torch.isin(labels, kinds[torch.randperm(len(kinds), generator=generator(seed))[:27]])
    return Drawings((pictures[~held], labels[~held]), (pictures[held], labels[held]), test)


def moved(
    pictures: Tensor, draw: torch.Generator, *, turn: float = 10, scale: float = 0.12, shift: float = 0.1
) -> Tensor:
    """Turn (degrees), scale and shift every picture by amounts drawn evenly up to these on either side."""
    amount = torch.rand(len(pictures), 4, generator=draw) * 2 - 1
    angle, size = amount[:, 0] * math.radians(turn), 1 + scale * amount[:, 1]
    cosine, sine = angle.cos() * size, angle.sin() * size
    rows = torch.stack([cosine, -sine, 2 * shift * amount[:, 2], sine, cosine, 2 * shift * amount[:, 3]], 1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def picture_encoder(width: int, pictures: Tensor, *, seed: int) -> nn.Sequential:
    """Return a convolutional encoder of 16 channels whose last layer has met the size of the pictures."""
    net = convnet(width, channels=16, seed=seed)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        net.eval()(pictures[:2])
    return net


class SlowCopy:
    """A momentum encoder: a copy of a network that follows its weights slowly and gives unit keys without gradient."""

    def __init__(self, net: nn.Module, rate: float = 0.01) -> None:
        self.net, self.copy, self.rate = net, copy.deepcopy(net), rate

    @torch.no_grad()
    def follow(self) -> None:
        """Move every weight by `rate` of the way."""
        for old, new in zip(self.copy.parameters(), self.net.parameters(), strict=True):
            old.lerp_(new, self.rate)

    @torch.no_grad()
    def keys(self, pictures: Tensor) -> Tensor:
        """Return the unit vectors of pictures, with batch statistics as in training."""
        return F.normalize(self.copy.train()(pictures))


def embedded(net: nn.Module, pictures: Tensor) -> Tensor:
    """Return the vectors of all pictures, in evaluation mode and without gradient."""
    net.eval()
    with torch.no_grad():
        return torch.cat([net(part) for part in pictures.split(512)])


def recall_at_one(net: nn.Module, part: tuple[Tensor, Tensor]) -> float:
    """Return the share of drawings whose nearest other drawing is of the same character."""
    return nearest_same_class(embedded(net, part[0]), part[1])


def metric_encoder(
    loss: Callable[[Tensor, Tensor], Tensor],
    data: Drawings,
    *,
    seed: int,
    steps: int,
    learning_rate: float,
    width: int = 64,
    extra: nn.Module | None = None,
) -> nn.Sequential:
    """Train an encoder on `loss(vectors, labels)` over batches of 16 characters with 5 drawings each.

    Every loss gets the same initial weights, batches and moves from a seed. `extra` is trained along.
    """
    pictures, labels = data.train
    net, draw = picture_encoder(width, pictures, seed=seed), generator(seed)
    fit(
        [net] if extra is None else [net, extra],
        lambda rows: loss(net(moved(pictures[rows], draw)), labels[rows]),
        class_batches(labels, classes=16, each=5, seed=seed),
        steps=steps,
        learning_rate=learning_rate,
    )
    return net


class TwoViews(NamedTuple):
    """A self-supervised encoder: `body` gives the vectors to use, `head` those of the loss."""

    body: nn.Sequential
    head: nn.Module


def two_views(pictures: Tensor, out: int, *, seed: int) -> TwoViews:
    """Return an encoder to 128 numbers and a perceptron head with batch normalisation to `out`."""
    body = picture_encoder(128, pictures, seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = nn.Sequential(nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 128), nn.BatchNorm1d(128), nn.ReLU())
        return TwoViews(body, head.append(nn.Linear(128, out)))


def self_supervised(
    model: TwoViews,
    loss: Callable[[list[Tensor]], Tensor],
    pictures: Tensor,
    *,
    seed: int,
    steps: int,
    views: int = 2,
    learning_rate: float = 1e-3,
    also: tuple[nn.Module, ...] = (),
) -> nn.Sequential:
    """Train on `loss(head outputs of every view)` over batches of 64 drawings without labels; return the body."""
    draw = generator(seed)

    def step(rows: Tensor) -> Tensor:
        seen = torch.cat([moved(pictures[rows], draw) for _ in range(views)])
        return loss(list(model.head(model.body(seen)).chunk(views)))

    whole = (rows for rows in batches(len(pictures), 64, seed=seed) if len(rows) == 64)
    fit([model.body, model.head, *also], step, whole, steps=steps, learning_rate=learning_rate)
    return model.body


def nt_xent(views: list[Tensor], temperature: float) -> Tensor:
    """SimCLR's loss: every vector of two views against all others of both, its other view the positive."""
    both, count = torch.cat(views), len(views[0])
    others = ~torch.eye(2 * count, dtype=torch.bool)
    partner = torch.arange(2 * count).roll(count)
    return in_batch_info_nce_loss(both, both, mask=others, positive_columns=partner, temperature=temperature)
