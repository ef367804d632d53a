"""Small training loops and measures that the scripts share: full lists, mini-batches, early stopping on validation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from papers.common.data import generator


def mlp(width: int, out: int, *, hidden: Sequence[int] = (64,), seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    """Return a multi-layer perceptron with ReLU, initialised from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
            width = size
        return nn.Sequential(*layers, nn.Linear(width, out))


def convnet(out: int = 64, *, channels: int = 32, seed: int = 0) -> nn.Sequential:
    """Return a three-layer convolutional encoder of one-channel pictures [N, 1, S, S] -> [N, out]."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        before = 1
        for _ in range(3):
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)]
            before = channels
        return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(out))


def batches(count: int, size: int, *, seed: int) -> Iterator[Tensor]:
    """Yield rows of mini-batches without end, each epoch in another order."""
    draw = generator(seed)
    while True:
        yield from torch.randperm(count, generator=draw).split(size)


def class_batches(labels: Tensor, *, classes: int, each: int, seed: int) -> Iterator[Tensor]:
    """Yield rows of batches of `classes` classes with `each` examples, without end."""
    draw = generator(seed)
    groups = [(labels == label).nonzero().squeeze(1) for label in labels.unique()]
    groups = [group for group in groups if len(group) >= each]
    while True:
        chosen = torch.randperm(len(groups), generator=draw)[:classes].tolist()
        yield torch.cat([groups[g][torch.randperm(len(groups[g]), generator=draw)[:each]] for g in chosen])


def fit(
    modules: nn.Module | Sequence[nn.Module],
    loss: Callable[[Tensor], Tensor],
    rows: Iterator[Tensor],
    *,
    steps: int,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    validate: Callable[[], float] | None = None,
    every: int = 20,
    seed: int = 0,
) -> float | None:
    """Train by Adam on `loss(rows)`; keep the weights that were best on validation, whose best value is returned."""
    parts = [modules] if isinstance(modules, nn.Module) else list(modules)
    optimiser = torch.optim.Adam(
        [p for part in parts for p in part.parameters()], lr=learning_rate, weight_decay=weight_decay
    )
    best: tuple[float, list[dict[str, Tensor]]] | None = None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in range(1, steps + 1):
            for part in parts:
                part.train()
            optimiser.zero_grad()
            loss(next(rows)).backward()
            optimiser.step()
            if validate is not None and (step % every == 0 or step == steps):
                for part in parts:
                    part.eval()
                with torch.no_grad():
                    value = validate()
                if best is None or value > best[0]:
                    best = value, [copy.deepcopy(part.state_dict()) for part in parts]
    for number, part in enumerate(parts):
        if best is not None:
            part.load_state_dict(best[1][number])
        part.eval()
    return None if best is None else best[0]


Option = TypeVar("Option")
Trained = TypeVar("Trained")


def choose(options: Iterable[Option], train: Callable[[Option], tuple[float, Trained]]) -> Trained:
    """Train with every option and return what the one best on validation gave: `train` returns (validation, result).

    >>> choose([1, 2, 3], lambda option: (-abs(option - 2), f"model {option}"))
    'model 2'
    """
    return max((train(option) for option in options), key=lambda result: result[0])[1]


def nearest_same_class(vectors: Tensor, labels: Tensor) -> float:
    """Return recall at 1: the share of examples whose nearest other example, by cosine, has their class."""
    unit = nn.functional.normalize(vectors, dim=-1)
    similar = unit @ unit.T
    similar.fill_diagonal_(-torch.inf)
    return float((labels[similar.argmax(1)] == labels).float().mean())
