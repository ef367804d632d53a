"""What the ranking scripts share: scorers of lists, and factor models of users and items, chosen on validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from papers.common.data import Interactions, RankedSplit, generator
from papers.common.training import batches, fit, mlp
from rivals.measures import ndcg
from rivals.models.simplex import SimpleX

Option = TypeVar("Option")
Model = TypeVar("Model")
ListLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(scores [Q, C], relevance [Q, C], mask [Q, C]) -> loss."""


def mean_ndcg(scores: Tensor, relevance: Tensor, mask: Tensor, *, k: int = 10) -> float:
    """Return nDCG@k with gain 2^grade - 1, over the lists that have a relevant candidate."""
    values = ndcg(scores.detach(), relevance, mask, k=k, gain="exponential", empty="nan")
    return float(torch.nanmean(values))


class ListScorer(nn.Module):
    """A perceptron that scores the candidates of a list one by one: features [..., C, F] -> scores [..., C]."""

    def __init__(self, width: int, *, hidden: int = 64, seed: int = 0, bounded: bool = False) -> None:
        super().__init__()
        self.inner, self.bounded = mlp(width, 1, hidden=(hidden,), seed=seed), bounded

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return scores, within -1..1 if `bounded`; the mask plays no part."""
        scores = self.inner(features).squeeze(-1)
        return torch.tanh(scores) if self.bounded else scores


def train_scorer(
    split: RankedSplit,
    loss: ListLoss,
    *,
    learning_rate: float,
    steps: int,
    seed: int,
    model: nn.Module | None = None,
    measure: Callable[[Tensor, Tensor, Tensor], float] = mean_ndcg,
    size: int = 32,
    every: int = 10,
) -> tuple[float, nn.Module]:
    """Train a scorer (None: a `ListScorer`) on batches of lists; return its best value on validation and the scorer."""
    features, relevance, mask = split.train
    scorer = ListScorer(features.shape[-1], seed=seed) if model is None else model
    held, held_relevance, held_mask = split.validation

    def step(rows: Tensor) -> Tensor:
        return loss(scorer(features[rows], mask[rows]), relevance[rows], mask[rows])

    def validate() -> float:
        return float(measure(scorer(held, held_mask), held_relevance, held_mask))

    rows = batches(len(features), size, seed=seed)
    best = fit(scorer, step, rows, steps=steps, learning_rate=learning_rate, validate=validate, every=every, seed=seed)
    assert best is not None, "a validation value"
    return best, scorer


def factors(data: Interactions, *, dimension: int = 32, seed: int = 0) -> SimpleX:
    """Return unit vectors of users and items, without history: matrix factorisation by cosine."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SimpleX(data.users, data.items, dimension=dimension, pooling=None, dropout=0.0)


def recommended_ndcg(data: Interactions, scores: Tensor, *, test: bool, k: int = 20) -> float:
    """Return nDCG@k of the held-out item among all items not liked before; scores [users, items]."""
    scores = scores.detach().clone()
    scores[data.train[:, 0], data.train[:, 1]] = -torch.inf
    if test:
        scores[data.validation[:, 0], data.validation[:, 1]] = -torch.inf
    held = data.test if test else data.validation
    relevance = torch.zeros_like(scores)
    relevance[held[:, 0], held[:, 1]] = 1.0
    return float(ndcg(scores, relevance, scores > -torch.inf, k=k).mean())


def train_factors(
    data: Interactions,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    negatives: int,
    learning_rate: float,
    epochs: int,
    seed: int,
    false_share: float = 0.0,
    size: int = 512,
    steps: int | None = None,
) -> tuple[float, SimpleX]:
    """Train factors on (liked item, uniform negatives); return nDCG@20 on validation and the factors.

    The negatives are drawn once a batch for all its rows. `false_share` of each row's are replaced by other items that
    its user likes: false negatives by design. The loss is given cosines [B, 1 + negatives] and their relevance.
    """
    model, draw = factors(data, seed=seed), generator(seed + 1)
    false = round(negatives * false_share)
    order = torch.argsort(data.train[:, 0], stable=True)
    liked, counts = data.train[order, 1], torch.bincount(data.train[:, 0], minlength=data.users)
    first = counts.cumsum(0) - counts

    def step(rows: Tensor) -> Tensor:
        users, positive = model.user(data.train[rows, 0]), data.train[rows, 1]
        drawn = torch.randint(data.items, (negatives - false,), generator=draw)
        columns = [(users * model.item(positive)).sum(-1, keepdim=True), users @ model.item(drawn).T]
        if false:
            owner = data.train[rows, 0]
            place = torch.rand(len(rows), false, generator=draw) * counts[owner].unsqueeze(1)
            own = liked[first[owner].unsqueeze(1) + place.long()]
            columns.append((model.item(own) @ users.unsqueeze(-1)).squeeze(-1))
        scores = torch.cat(columns, 1).clamp(-1, 1)
        relevance = torch.zeros_like(scores)
        relevance[:, 0] = 1.0
        return loss(scores, relevance)

    def validate() -> float:
        everyone = model.user(torch.arange(data.users)) @ model.item(torch.arange(data.items)).T
        return recommended_ndcg(data, everyone, test=False)

    an_epoch = -(-len(data.train) // size)
    count = epochs * an_epoch if steps is None else steps
    rows = batches(len(data.train), size, seed=seed)
    best = fit(
        model, step, rows, steps=count, learning_rate=learning_rate, validate=validate, every=an_epoch * 2, seed=seed
    )
    assert best is not None, "a validation value"
    return best, model


def factor_ndcg(data: Interactions, model: SimpleX) -> float:
    """Return nDCG@20 of factors on the test items."""
    everyone = model.user(torch.arange(data.users)) @ model.item(torch.arange(data.items)).T
    return recommended_ndcg(data, everyone, test=True)


def mean_over_splits(seed: int, count: int, one: Callable[[int], dict[str, float]]) -> dict[str, float]:
    """Return the mean of the figures of `count` splits: a test part of 40 queries alone is too noisy."""
    found = [one(seed * count + split) for split in range(count)]
    return {name: sum(figures[name] for figures in found) / count for name in found[0]}
