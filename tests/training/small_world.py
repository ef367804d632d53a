"""A small world of vectors: queries near their documents, towers and rankers to train on them, and trainings that break off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rivals.data import Collection, Dataset, Judgements, Run
from rivals.training import LoopConfig, Regime, fit
from rivals.training.scorers import FeatureScorer
from rivals.training.vector_scorers import MappedVectors, VectorScorer
from tests.training.tiny import assert_same_weights, weights

WIDTH = 6
QUERIES, DOCUMENTS = 18, 40


class Broken(Exception):
    """An interruption."""


class Tower(nn.Module):
    """A residual linear map with dropout."""

    def __init__(self, seed: int, dropout: float = 0.2) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.map = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(torch.tanh(self.map(x)))


class World:
    """Queries with one or two relevant documents each, the first named by the query's row, noise between them."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.documents = rng.standard_normal((DOCUMENTS, WIDTH)).astype(np.float32)
        self.queries = (self.documents[:QUERIES] + rng.standard_normal((QUERIES, WIDTH))).astype(np.float32)
        query = [*range(QUERIES), 0, 3]
        document = [*range(QUERIES), 30, 31]
        self.dataset = Dataset(
            Collection([f"q{i}" for i in range(QUERIES)], name="query"),
            Collection([f"d{i}" for i in range(DOCUMENTS)]),
            Judgements.build(query, document, [1] * len(query), queries=QUERIES, documents=DOCUMENTS),
        )

    def retriever(
        self, *, seed: int = 1, dropout: float = 0.2, shared: bool = False, scale: float = 1.0
    ) -> VectorScorer:
        query = Tower(seed, dropout)
        document = query if shared else Tower(seed + 1, dropout)
        return VectorScorer(MappedVectors(query, self.queries), MappedVectors(document, self.documents), scale=scale)

    def ranker(self, *, seed: int = 5, dropout: float = 0.2) -> FeatureScorer:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = nn.Sequential(nn.Linear(2 * WIDTH, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))
        return FeatureScorer(net, self.features)

    def features(self, query: NDArray[np.int64], document: NDArray[np.int64]) -> NDArray[np.float32]:
        q, d = self.queries[query][:, None], self.documents[document]
        return np.concatenate([q * d, np.abs(q - d)], axis=-1)

    def run(self, k: int = 12) -> Run:
        """The best documents by the raw vectors, known positives marked."""
        from rivals.negatives import KnownPositives

        plain = VectorScorer(MappedVectors(nn.Identity(), self.queries), MappedVectors(nn.Identity(), self.documents))
        return KnownPositives()(plain.search(self.dataset, k))


def accuracy(scorer: Any) -> float:
    """How often a query's own document scores highest of all."""
    return float((_all_scores(scorer).argmax(1).numpy() == np.arange(QUERIES)).mean())


def surprise(scorer: Any) -> float:
    """Mean cross entropy of a query's own document against all others."""
    return float(nn.functional.cross_entropy(_all_scores(scorer), torch.arange(QUERIES)))


def _all_scores(scorer: Any) -> Tensor:
    from rivals.training.scorers import inference

    with inference(scorer.model):
        found: Tensor = scorer(np.arange(QUERIES), np.arange(DOCUMENTS), np.ones((QUERIES, DOCUMENTS), bool))
    return found


Build = Callable[[], tuple[Any, Regime | None]]


def train(
    build: Build,
    folder: Path | None = None,
    *,
    resume: bool = False,
    break_loss: int = 0,
    break_refresh: int = 0,
    **options: Any,
) -> tuple[dict[str, Tensor], Any, Regime | None]:
    """Train what `build` makes; an interruption comes in the n-th loss, or after the n-th refresh has done its work."""
    objective, regime = build()
    calls = {"loss": 0, "refresh": 0}

    def counted(name: str, real: Callable[..., Any], last: int) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls[name] += 1
            found = real(*arguments)
            if calls[name] == last:
                raise Broken
            return found

        return call

    if break_loss:
        objective.loss = counted("loss", objective.loss, break_loss)
    if break_refresh:
        assert regime is not None
        regime.refresh = counted("refresh", regime.refresh, break_refresh)  # type: ignore[method-assign]
    given = {"epochs": 3, "learning_rate": 0.02, "evaluations": 0, "checkpoint_seconds": 0, "precision": "float32"}
    fit(objective, LoopConfig(**(given | options)), folder=folder, resume=resume, regime=regime)
    return weights(objective.model), objective, regime


def assert_same_after_breaks(
    build: Build, folder: Path, *, losses: tuple[int, ...] = (2, 9), refreshes: tuple[int, ...] = (), **options: Any
) -> dict[str, Tensor]:
    """Break off in these losses and refreshes and go on each time; the weights must be those of a training left alone.

    By turns with a checkpoint after every step, and with those of the evaluations only.
    """
    whole = train(build, folder / "whole", **options)[0]
    breaks = [*({"break_loss": n} for n in losses), *({"break_refresh": n} for n in refreshes)]
    for number, point in enumerate(breaks):
        own, more = folder / str(number), options | {"checkpoint_seconds": (0, 1e9)[number % 2]}
        try:
            train(build, own, **point, **more)
        except Broken:
            pass
        else:
            raise AssertionError(f"{point} never came")
        assert_same_weights(train(build, own, resume=True, **more)[0], whole)
    return whole
